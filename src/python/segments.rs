//! Bindings of `segments`.

use numpy::{PyArrayDescrMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::array::{self, Array, DETACH_BYTES};
use super::layout::slots;
use crate::Result;
use crate::segments::{self as kernel, Ids};

/// Every run of `[rows, width]` ids: (ids, flat starts, lengths).
#[pyfunction]
#[pyo3(signature = (ids, /))]
pub fn runs<'py>(py: Python<'py>, ids: &Array<'py>) -> PyResult<[Array<'py>; 3]> {
    let bits = rows_of("ids", ids)?;
    let found = detached(ids, || kernel::runs(&bits))?;
    let column = |values: &[i64]| array::of_slice(py, values);
    Ok([column(&found.ids)?, column(&found.starts)?, column(&found.lengths)?])
}

/// Lengths by id `[rows, max_segments]` and offsets by appearance `[rows, max_segments + 1]`.
#[pyfunction]
#[pyo3(signature = (ids, /, *, name, max_segments, pair))]
pub fn seqlens_and_offsets<'py>(
    py: Python<'py>,
    ids: &Array<'py>,
    name: &str,
    max_segments: usize,
    pair: bool,
) -> PyResult<[Array<'py>; 2]> {
    let bits = rows_of(if name == "ids_q" { "ids_q" } else { "ids" }, ids)?;
    let out = columns(py, bits.rows, max_segments)?;
    let seqlens = array::out_slice::<i32>("seqlens", &out[0], [])?;
    let offsets = array::out_slice::<i32>("offsets", &out[1], [])?;
    detached(ids, || kernel::seqlens_and_offsets(&bits, max_segments, pair, seqlens, offsets))?;
    Ok(out)
}

/// Writes `values[row]` to each row's elements; 0 in gaps.
#[pyfunction]
#[pyo3(signature = (starts, lengths, values, /, *, out))]
pub fn fill_runs<'py>(
    starts: &Array<'py>,
    lengths: &Array<'py>,
    values: &Array<'py>,
    out: &Array<'py>,
) -> PyResult<()> {
    let slots = slots(starts, lengths, None, out.len())?;
    let numbers = array::int64s("values", values)?;
    let filled = array::out_slice::<i32>("out", out, [starts, lengths, values])?;
    detached(out, || kernel::fill(&slots, numbers, filled))
}

/// Writes segment ids of segments that lie end to end; 0 after the last.
#[pyfunction]
#[pyo3(signature = (lengths, /, *, out))]
pub fn ids_from_lengths<'py>(lengths: &Array<'py>, out: &Array<'py>) -> PyResult<()> {
    let filled = array::out_slice::<i32>("out", out, [lengths])?;
    let lengths = array::int64s("lengths", lengths)?;
    detached(out, || kernel::ids_from_lengths(lengths, filled))
}

/// Writes positions in segments that lie end to end; 0 after the last.
#[pyfunction]
#[pyo3(signature = (lengths, /, *, out))]
pub fn positions_from_lengths<'py>(lengths: &Array<'py>, out: &Array<'py>) -> PyResult<()> {
    let filled = array::out_slice::<i32>("out", out, [lengths])?;
    let lengths = array::int64s("lengths", lengths)?;
    detached(out, || kernel::positions_from_lengths(lengths, filled))
}

/// `[rows, width]` ids of any integer dtype.
pub fn rows_of<'a>(name: &'static str, ids: &'a Array<'_>) -> PyResult<Ids<'a>> {
    let &[rows, width] = ids.shape() else {
        return Err(PyValueError::new_err(format!("{name} must be [rows, width], got {}-D", ids.ndim())));
    };
    let (bits, signed) = array::bits(name, ids)?;
    Ok(Ids { name, bits, signed, rows, width })
}

/// Fresh lengths and offsets.
pub fn columns(py: Python<'_>, rows: usize, max_segments: usize) -> PyResult<[Array<'_>; 2]> {
    let dtype = numpy::dtype::<i32>(py);
    Ok([array::empty(py, (rows, max_segments), &dtype)?, array::empty(py, (rows, max_segments + 1), &dtype)?])
}

/// Runs a kernel over `array`, without the GIL where that pays.
pub fn detached<T: Send>(array: &Array<'_>, run: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    let bytes = array.len() * array.dtype().itemsize();
    Ok(if bytes < DETACH_BYTES { run() } else { array.py().detach(run) }?)
}
