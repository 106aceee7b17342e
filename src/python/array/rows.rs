//! Short rows in place: a list of many small arrays, joined without holding on to each.
//!
//! A hundred thousand arrays of forty tokens lie all over the heap, and looking at one costs as much as
//! copying it. So they are looked at twice, with the memory asked for ahead, and nothing is kept between:
//! no reference, no pointer. That is sound only while no Python code runs, which is why the rows are
//! looked at again after the output has been allocated, and why this way needs a GIL.

use std::mem::MaybeUninit;

use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::{RowType, prefetch};
use crate::out::Out;
use crate::python::list::items::{Held, IN_PLACE, in_place};

/// Rows to look at more than once: a list in place, if it can be, which may change between the looks.
pub enum Rows<'py> {
    List(Bound<'py, PyList>),
    Held(Held<'py>),
}

impl<'py> Rows<'py> {
    pub fn of(rows: &Bound<'py, PyAny>) -> PyResult<Self> {
        match rows.cast::<PyList>() {
            Ok(list) if IN_PLACE => Ok(Self::List(list.clone())),
            _ => Ok(Self::Held(Held::required(rows)?)),
        }
    }

    /// The rows as they are now.
    pub fn held(&self) -> PyResult<Held<'py>> {
        match self {
            Self::List(list) => Held::required(list),
            Self::Held(held) => Ok(held.clone()),
        }
    }

    /// The first row, and how many there are.
    pub fn first(&self) -> Option<(Bound<'py, PyAny>, usize)> {
        // SAFETY: taking a reference runs no Python code.
        let items = unsafe { self.items() };
        Some((items.first()?.clone(), items.len()))
    }

    /// # Safety
    ///
    /// No Python code runs while they are in use.
    unsafe fn items(&self) -> &[Bound<'py, PyAny>] {
        match self {
            // SAFETY: the caller's promise.
            Self::List(list) => unsafe { in_place(list) },
            Self::Held(held) => held,
        }
    }
}

/// Writes the offsets of rows that are all of `row_type`; `None` if they are not.
pub fn offsets(rows: &Rows<'_>, row_type: &RowType<'_>, offsets: &mut [MaybeUninit<i64>]) -> Option<i64> {
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
pub fn join(rows: &Rows<'_>, row_type: &RowType<'_>, offsets: &[i64], out: &mut [MaybeUninit<u8>]) -> bool {
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
    rows: &Rows<'_>,
    row_type: &RowType<'_>,
    data_lines: usize,
    mut look: impl FnMut(usize, &[u8]) -> bool,
) -> bool {
    const HEADER: usize = 24;
    const BODY: usize = 12;
    // SAFETY: neither this nor `look` runs Python code.
    let items = unsafe { rows.items() };
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
