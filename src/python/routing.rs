//! Bindings of `routing`.

use numpy::PyUntypedArrayMethods;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::array::{self, Array, DETACH_BYTES};
use crate::routing::{self, Base64};

/// Decodes to `out` the bytes from `begin` on of the `size` bytes that a base64 text stands for.
#[pyfunction]
#[pyo3(signature = (text, /, *, size, begin, out))]
pub fn decode_base64<'py>(
    py: Python<'py>,
    text: &Bound<'py, PyAny>,
    size: usize,
    begin: usize,
    out: &Array<'py>,
) -> PyResult<()> {
    let (found, source);
    let (text, input) = if let Ok(text) = text.cast::<PyString>() {
        found = text.clone();
        (found.to_str()?.as_bytes(), None) // of ASCII, a view
    } else {
        source = text.cast::<numpy::PyUntypedArray>()?.clone();
        (array::bytes("text", &source)?, Some(&source))
    };
    let written = array::out_bytes("out", out, input)?;
    let bytes = written.len();
    let mut run = || Base64::new(text, size)?.decode(begin, written);
    Ok(if bytes < DETACH_BYTES { run() } else { py.detach(run) }?)
}

/// The least and the greatest of an array's integers; `None` where it has none.
#[pyfunction]
#[pyo3(signature = (values, /))]
pub fn value_range(py: Python<'_>, values: &Array<'_>) -> PyResult<Option<(i128, i128)>> {
    let descr = values.dtype();
    let dtype = array::dtype(&descr)
        .ok_or_else(|| PyTypeError::new_err(format!("values must be native integers, got {descr}")))?;
    let bytes = array::bytes("values", values)?;
    Ok(py.detach(|| routing::range(bytes, dtype)))
}
