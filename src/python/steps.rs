//! Bindings of `steps`.

use numpy::{PyArrayDescr, PyArrayDescrMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use super::array::{self, Array};
use super::list::items::Held;
use super::place::PyParts;
use crate::steps;

/// Whether each step's prompt begins with the prompt and response of the step before.
#[pyfunction]
#[pyo3(signature = (prompts, prompt_lengths, responses, response_lengths, first, /))]
pub fn joined_steps<'py>(
    py: Python<'py>,
    prompts: &Bound<'py, PyAny>,
    prompt_lengths: &Array<'py>,
    responses: &Bound<'py, PyAny>,
    response_lengths: &Array<'py>,
    first: &Array<'py>,
) -> PyResult<Array<'py>> {
    let (prompts, responses) = (Held::required(prompts)?, Held::required(responses)?);
    let (prompts, responses) = (PyParts::of(&prompts)?, PyParts::of(&responses)?);
    let item = one_item(prompts.dtype.iter().chain(&responses.dtype))?;
    let prompts = prompts.rows(array::int64s("prompt_lengths", prompt_lengths)?, item)?;
    let responses = responses.rows(array::int64s("response_lengths", response_lengths)?, item)?;
    let first = array::bytes("first", first)?;
    let out = array::fresh::<bool>(py, prompts.len())?;
    let joined = array::out_bytes("joined", &out, [])?;
    py.detach(|| steps::joined(&prompts, &responses, first, joined))?;
    Ok(out)
}

/// The bytes of a token, which must be one dtype throughout, or equal bytes would not be equal tokens.
pub fn one_item<'a, 'py: 'a>(dtypes: impl Iterator<Item = &'a Bound<'py, PyArrayDescr>>) -> PyResult<usize> {
    let mut found = None;
    for dtype in dtypes {
        match found {
            None => found = Some(dtype),
            Some(first) if dtype.is_equiv_to(first) => {}
            Some(first) => {
                return Err(PyTypeError::new_err(format!(
                    "token ids must be one dtype, got {first} and {dtype}"
                )));
            }
        }
    }
    Ok(found.map_or(1, PyArrayDescrMethods::itemsize))
}
