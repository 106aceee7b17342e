//! Bindings of `layout`, `offsets`.

use std::mem::MaybeUninit;

use numpy::PyUntypedArrayMethods;
use pyo3::prelude::*;

use super::array::{self, Array};
use crate::Result;
use crate::layout::{self, Slots};
use crate::offsets;

/// Lengths to offsets `[0, l0, l0 + l1, …]`.
#[pyfunction]
#[pyo3(signature = (lengths, /))]
pub fn offsets_from_lengths<'py>(py: Python<'py>, lengths: &Array<'py>) -> PyResult<Array<'py>> {
    let lengths = array::int64s("lengths", lengths)?;
    let out = array::fresh::<i64>(py, lengths.len() + 1)?;
    offsets::from_lengths(lengths, array::out_slice("offsets", &out, [])?)?;
    Ok(out)
}

/// Checks that offsets start at zero or above, never fall, and stay within `available` elements.
#[pyfunction]
#[pyo3(signature = (offsets, available, /))]
pub fn check_offsets(offsets: &Array<'_>, available: usize) -> PyResult<()> {
    Ok(offsets::check(array::int64s("offsets", offsets)?, available)?)
}

/// Starts of rows that fill their bins in input order, each aligned.
#[pyfunction]
#[pyo3(signature = (lengths, bins, /, *, width, align))]
pub fn pack_starts<'py>(
    py: Python<'py>,
    lengths: &Array<'py>,
    bins: &Array<'py>,
    width: i64,
    align: i64,
) -> PyResult<Array<'py>> {
    let lengths = array::int64s("lengths", lengths)?;
    let bins = array::int64s("bins", bins)?;
    let out = array::fresh::<i64>(py, lengths.len())?;
    layout::pack_starts(lengths, bins, width, align, array::out_slice("starts", &out, [])?)?;
    Ok(out)
}

/// Checks that rows lie in an output of `size` elements, do not overlap, and that `order` sorts them.
#[pyfunction]
#[pyo3(signature = (starts, lengths, order, /, *, size))]
pub fn check_layout(
    starts: &Array<'_>,
    lengths: &Array<'_>,
    order: Option<&Array<'_>>,
    size: usize,
) -> PyResult<()> {
    Ok(slots(starts, lengths, order, size)?.check()?)
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

/// Writes positions within each row; 0 in gaps.
#[pyfunction]
#[pyo3(signature = (starts, lengths, order, /, *, out))]
pub fn positions<'py>(
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    out: &Array<'py>,
) -> PyResult<()> {
    read_off(starts, lengths, order, out, layout::positions)
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
