//! Bindings of `turns`.

use numpy::{PyArrayDescrMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use super::array::{self, Array, DETACH_BYTES};
use crate::turns::{self as kernel, Mask};

/// Runs of non-zero elements in each row: `(lengths, offsets of the rows' runs, non-zeros per row)`.
#[pyfunction]
#[pyo3(signature = (mask, offsets, /))]
pub fn turns<'py>(
    py: Python<'py>,
    mask: &Array<'py>,
    offsets: &Array<'py>,
) -> PyResult<(Array<'py>, Array<'py>, Array<'py>)> {
    let descr = mask.dtype();
    if mask.ndim() != 1 || !matches!(descr.kind(), b'b' | b'i' | b'u' | b'f') {
        return Err(PyTypeError::new_err(format!(
            "mask must be a 1-D array of bools, ints or floats, got {}-D {descr}",
            mask.ndim()
        )));
    }
    // Zero is zero in any byte order, but the sign of a swapped float is not where it is looked for.
    if descr.kind() == b'f' && descr.is_native_byteorder() == Some(false) {
        return Err(PyTypeError::new_err(format!("mask is {descr}; pass floats in native byte order")));
    }
    let mask =
        Mask { bytes: array::bytes("mask", mask)?, item: descr.itemsize(), float: descr.kind() == b'f' };
    let rows = array::int64s("offsets", offsets)?;
    let run = || kernel::turns(mask, rows);
    let found = if mask.bytes.len() < DETACH_BYTES { run() } else { py.detach(run) }?;
    Ok((
        array::of_slice(py, &found.lengths)?,
        array::of_slice(py, &found.offsets)?,
        array::of_slice(py, &found.counts)?,
    ))
}
