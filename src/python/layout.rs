//! Bindings of `layout`, `offsets`.

use pyo3::prelude::*;

use super::array::{self, Array};
use crate::layout::{self, Slots};
use crate::offsets;
use crate::{Error, Result};

/// Lengths to offsets `[0, l0, l0 + l1, …]`.
#[pyfunction]
#[pyo3(signature = (lengths, /))]
pub fn offsets_from_lengths<'py>(py: Python<'py>, lengths: &Array<'py>) -> PyResult<Array<'py>> {
    let lengths = array::int64s("lengths", lengths)?;
    let out = array::fresh::<i64>(py, lengths.len() + 1)?;
    offsets::from_lengths(lengths, array::out_slice("offsets", &out)?)?;
    Ok(out)
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
    layout::pack_starts(lengths, bins, width, align, array::out_slice("starts", &out)?)?;
    Ok(out)
}

/// Row numbers within each run of `width` elements, from 1; 0 in gaps.
#[pyfunction]
#[pyo3(signature = (starts, lengths, order, /, *, size, width))]
pub fn segment_ids<'py>(
    py: Python<'py>,
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    size: usize,
    width: usize,
) -> PyResult<Array<'py>> {
    read_off(py, starts, lengths, order, size, |slots, out| layout::segment_ids(slots, width, out))
}

/// Positions within each row; 0 in gaps.
#[pyfunction]
#[pyo3(signature = (starts, lengths, order, /, *, size))]
pub fn positions<'py>(
    py: Python<'py>,
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    size: usize,
) -> PyResult<Array<'py>> {
    read_off(py, starts, lengths, order, size, layout::positions)
}

/// 1 where a row is; 0 in gaps.
#[pyfunction]
#[pyo3(signature = (starts, lengths, order, /, *, size))]
pub fn attention_mask<'py>(
    py: Python<'py>,
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    size: usize,
) -> PyResult<Array<'py>> {
    read_off(py, starts, lengths, order, size, layout::mask)
}

/// Allocates an output of `size` elements and lets `kernel` fill it without the GIL.
fn read_off<'py, T: numpy::Element>(
    py: Python<'py>,
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    size: usize,
    kernel: impl FnOnce(&Slots<'_>, &mut [std::mem::MaybeUninit<T>]) -> Result<(), Error> + Send,
) -> PyResult<Array<'py>> {
    let slots = slots(starts, lengths, order, size)?;
    let out = array::fresh::<T>(py, size)?;
    let filled = array::out_slice("out", &out)?;
    py.detach(|| kernel(&slots, filled))?;
    Ok(out)
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
