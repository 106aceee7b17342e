//! Short rows in place: a list of many small arrays, joined without holding on to each.
//!
//! A hundred thousand arrays of forty tokens lie all over the heap, and looking at one costs as much as
//! copying it. So they are looked at twice, with the memory asked for ahead, and nothing is kept between:
//! no reference, no pointer. That is sound only while no Python code runs, which is why the rows are
//! looked at again after the output has been allocated, and why this way needs a GIL.

use std::mem::MaybeUninit;

use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::{RowType, prefetch};
use crate::out::Out;

/// Writes the offsets of rows that are all of `row_type`; `None` if they are not.
pub fn offsets(
    rows: &Bound<'_, PyAny>,
    row_type: &RowType<'_>,
    offsets: &mut [MaybeUninit<i64>],
) -> Option<i64> {
    let (first, ends) = offsets.split_first_mut()?;
    let mut end = 0;
    first.write(end);
    let mut ends = ends.iter_mut();
    let all = visit(rows, row_type, 0, |length, _| {
        end += length as i64; // lengths of arrays in memory, which is smaller than i64
        ends.next().map(|slot| slot.write(end)).is_some()
    });
    (all && ends.next().is_none()).then_some(end)
}

/// Copies rows end to end; false if they are not what they were when `offsets` was written.
pub fn join(
    rows: &Bound<'_, PyAny>,
    row_type: &RowType<'_>,
    offsets: &[i64],
    out: &mut [MaybeUninit<u8>],
) -> bool {
    let mut rest = out;
    let mut pairs = offsets.windows(2);
    let copied = visit(rows, row_type, 3, |length, bytes| {
        let same = pairs.next().is_some_and(|pair| pair[1] - pair[0] == length as i64);
        if !same || bytes.len() > rest.len() {
            return false;
        }
        let (slot, tail) = std::mem::take(&mut rest).split_at_mut(bytes.len());
        Out::copy(slot, bytes);
        rest = tail;
        true
    });
    copied && rest.is_empty()
}

/// Calls `look` with the length and bytes of each row, until it returns false or a row is not of
/// `row_type`; returns whether all were looked at. `look` must run no Python code.
fn visit(
    rows: &Bound<'_, PyAny>,
    row_type: &RowType<'_>,
    data_lines: usize,
    mut look: impl FnMut(usize, &[u8]) -> bool,
) -> bool {
    const HEADER: usize = 24;
    const BODY: usize = 12;
    let Some(items) = in_place(rows) else { return false };
    items.iter().enumerate().all(|(i, object)| {
        if let Some(ahead) = items.get(i + HEADER) {
            prefetch(ahead.as_ptr().cast(), 2);
        }
        if let Some(Ok(ahead)) = items.get(i + BODY).map(|ahead| ahead.cast_exact::<PyUntypedArray>()) {
            // SAFETY: the pointer is to a live array object.
            let fields = unsafe { &(*ahead.as_array_ptr()).fields };
            prefetch(fields.dimensions.cast(), 1);
            prefetch(fields.data.cast(), data_lines);
        }
        let row = object.cast_exact().ok().and_then(|row| row_type.row(row));
        row.is_some_and(|(length, bytes)| look(length, bytes))
    })
}

/// The items of a tuple, or of a list where it is; no Python code may run while they are in use.
fn in_place<'a, 'py>(rows: &'a Bound<'py, PyAny>) -> Option<&'a [Bound<'py, PyAny>]> {
    if let Ok(tuple) = rows.cast::<PyTuple>() {
        return Some(tuple.as_slice());
    }
    let list = rows.cast::<PyList>().ok().filter(|list| cfg!(not(Py_GIL_DISABLED)) && !list.is_empty())?;
    // SAFETY: a list that is not empty has `len` pointers to live objects at `ob_item`, and `Bound` is
    // such a pointer. The list keeps them alive; only Python code could change it, and the GIL is held.
    Some(unsafe {
        let items = (*list.as_ptr().cast::<ffi::PyListObject>()).ob_item;
        std::slice::from_raw_parts(items.cast::<Bound<'py, PyAny>>(), list.len())
    })
}
