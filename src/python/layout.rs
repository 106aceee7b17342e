//! Bindings of `layout`, `offsets`.

use std::mem::MaybeUninit;

use numpy::PyUntypedArrayMethods;
use pyo3::prelude::*;

use super::array::{self, Array};
use crate::Result;
use crate::layout::{self, Slots, Spans};
use crate::offsets;

/// Lengths to offsets `[0, l0, l0 + l1, …]`, each length rounded up to a multiple of `align`.
#[pyfunction]
#[pyo3(signature = (lengths, /, align = 1))]
pub fn offsets_from_lengths<'py>(py: Python<'py>, lengths: &Array<'py>, align: i64) -> PyResult<Array<'py>> {
    let lengths = array::int64s("lengths", lengths)?;
    let out = array::fresh::<i64>(py, lengths.len() + 1)?;
    offsets::aligned(lengths, align, array::out_slice("offsets", &out, [])?)?;
    Ok(out)
}

/// The first number below zero.
#[pyfunction]
#[pyo3(signature = (numbers, /))]
pub fn first_negative(numbers: &Array<'_>) -> PyResult<Option<usize>> {
    Ok(offsets::first_negative(array::int64s("numbers", numbers)?))
}

/// Checks that offsets start at zero or above, never fall, and stay within `available` elements.
#[pyfunction]
#[pyo3(signature = (offsets, available, /))]
pub fn check_offsets(offsets: &Array<'_>, available: usize) -> PyResult<()> {
    Ok(offsets::check(array::int64s("offsets", offsets)?, available)?)
}

/// Checks that rows lie in an output of `size` elements and do not overlap; gives rows by ascending start,
/// `None` where they already are. `near` is an order to begin with, best one that is nearly right.
#[pyfunction]
#[pyo3(signature = (starts, lengths, near, /, *, size))]
pub fn sorted_rows<'py>(
    starts: &Array<'py>,
    lengths: &Array<'py>,
    near: Option<&Array<'py>>,
    size: usize,
) -> PyResult<Option<Array<'py>>> {
    let Some(order) = slots(starts, lengths, near, size)?.sorted()? else { return Ok(None) };
    array::of_slice(starts.py(), &order).map(Some)
}

/// Where a part of each row is, and how much of it is placed: (starts, lengths).
#[pyfunction]
#[pyo3(signature = (starts, lengths, row_lengths, begins, wanted, /))]
pub fn spans<'py>(
    starts: &Array<'py>,
    lengths: &Array<'py>,
    row_lengths: &Array<'py>,
    begins: &Array<'py>,
    wanted: &Array<'py>,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let rows = array::int64s("row_lengths", row_lengths)?;
    let part = Spans { begins: array::int64s("begins", begins)?, lengths: array::int64s("lengths", wanted)? };
    let slots = slots(starts, lengths, None, 0)?;
    let [begun, placed] = [(); 2].map(|()| array::fresh::<i64>(starts.py(), slots.starts.len()));
    let (begun, placed) = (begun?, placed?);
    let (first, second) =
        (array::out_slice("starts", &begun, [])?, array::out_slice("lengths", &placed, [])?);
    layout::spans::<MaybeUninit<i64>>(&slots, rows, part, first, second)?;
    Ok((begun, placed))
}

/// Writes row numbers within each run of `width` elements, from 1; 0 in gaps.
#[pyfunction]
#[pyo3(signature = (starts, lengths, order, /, *, width, out))]
pub fn segment_ids<'py>(
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    width: usize,
    out: &Array<'py>,
) -> PyResult<()> {
    read_off(starts, lengths, order, out, |slots, out| layout::segment_ids(slots, width, out))
}

/// Writes positions within each row, which has its first `begins` elements elsewhere; 0 in gaps.
#[pyfunction]
#[pyo3(signature = (starts, lengths, order, /, *, out, begins = None))]
pub fn positions<'py>(
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    out: &Array<'py>,
    begins: Option<&Array<'py>>,
) -> PyResult<()> {
    let firsts = begins.map(|begins| array::int64s("begins", begins)).transpose()?;
    array::check_apart(&[("out", out)], firsts.map(array::memory))?;
    read_off(starts, lengths, order, out, |slots, out| layout::positions(slots, firsts, out))
}

/// Writes 1 where a row is; 0 in gaps.
#[pyfunction]
#[pyo3(signature = (starts, lengths, order, /, *, out))]
pub fn attention_mask<'py>(
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    out: &Array<'py>,
) -> PyResult<()> {
    read_off(starts, lengths, order, out, layout::mask)
}

/// Writes what each element is seen until: `ends[row]` within a row, itself in gaps, from its line's beginning on.
#[pyfunction]
#[pyo3(signature = (starts, lengths, order, ends, /, *, width, out))]
pub fn visible_until<'py>(
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    ends: &Array<'py>,
    width: usize,
    out: &Array<'py>,
) -> PyResult<()> {
    let last = array::int64s("ends", ends)?;
    array::check_apart(&[("out", out)], [array::memory(last)])?;
    read_off(starts, lengths, order, out, |slots, out| layout::visible_until(slots, last, width, out))
}

/// Lets `kernel` fill `out` without the GIL.
fn read_off<'py, T: numpy::Element>(
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    out: &Array<'py>,
    kernel: impl FnOnce(&Slots<'_>, &mut [MaybeUninit<T>]) -> Result<()> + Send,
) -> PyResult<()> {
    let slots = slots(starts, lengths, order, out.len())?;
    let filled = array::out_slice("out", out, [starts, lengths].into_iter().chain(order))?;
    Ok(out.py().detach(|| kernel(&slots, filled))?)
}

/// The arrays of a layout as the kernels want them.
pub fn slots<'a>(
    starts: &'a Array<'_>,
    lengths: &'a Array<'_>,
    order: Option<&'a Array<'_>>,
    size: usize,
) -> PyResult<Slots<'a>> {
    Ok(Slots {
        starts: array::int64s("starts", starts)?,
        lengths: array::int64s("lengths", lengths)?,
        order: order.map(|order| array::int64s("order", order)).transpose()?,
        size,
    })
}
