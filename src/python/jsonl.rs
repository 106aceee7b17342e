//! Binding of `jsonl`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use numpy::{PyArray1, PyArrayDescr, PyArrayDescrMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use super::array::{self, Array, DETACH_BYTES};
use super::error::{Place, refusal};
use crate::Error;
use crate::jsonl::{Data, Hint, Lists, Nonfinite, Options, Values, lists, parse};

/// Reads whole lines of JSON: `(rows, skipped, columns)`. Of `lists`, by their dtypes, columns are
/// `((values, list_offsets), offsets)` where each row is lists of integers.
#[pyfunction]
#[pyo3(signature = (data, /, *, hints, first_line=1, name="<bytes>", on_error="raise", nonfinite="raise", columns=None, lists=None))]
#[expect(clippy::too_many_arguments, reason = "keywords, in Python")]
pub fn parse_jsonl<'py>(
    py: Python<'py>,
    data: &Array<'py>,
    hints: &Bound<'py, PyDict>,
    first_line: u64,
    name: &str,
    on_error: &str,
    nonfinite: &str,
    columns: Option<HashSet<String>>,
    lists: Option<&Bound<'py, PyDict>>,
) -> PyResult<(usize, usize, Bound<'py, PyDict>)> {
    let bytes = array::bytes("data", data)?;
    let options = Options {
        hints: read_hints(hints)?,
        only: columns,
        first_line,
        skip: skips(on_error)?,
        nonfinite: nonfinites(nonfinite)?,
    };
    let run = || parse(bytes, &options);
    let read = if bytes.len() < DETACH_BYTES { run() } else { py.detach(run) };
    let table = read.map_err(|error| match error {
        Error::Line { line, problem } => {
            let place =
                Place { column: problem.key(), path: Some(name), line: Some(line), ..Place::default() };
            let refused = refusal::<PyValueError>(&problem.to_string(), place);
            // The message has it already: `key[position]`.
            match refused.value(py).setattr("position", problem.position()) {
                Ok(()) => refused,
                Err(other) => other,
            }
        }
        error => error.into(),
    })?;
    let of_lists = lists.map(read_hints).transpose()?.unwrap_or_default();
    let columns = PyDict::new(py);
    for (key, data) in table.columns {
        let lists = listed(py, &data, of_lists.get(&*key).copied())?;
        columns.set_item(&*key, lists.map_or_else(|| column(py, data, options.nonfinite), Ok)?)?;
    }
    Ok((table.rows, table.skipped, columns))
}

fn skips(on_error: &str) -> PyResult<bool> {
    match on_error {
        "raise" => Ok(false),
        "skip" => Ok(true),
        _ => Err(PyValueError::new_err(format!("on_error must be 'raise' or 'skip', got {on_error:?}"))),
    }
}

fn nonfinites(word: &str) -> PyResult<Nonfinite> {
    match word {
        "raise" => Ok(Nonfinite::Raise),
        "keep" => Ok(Nonfinite::Keep),
        "null" => Ok(Nonfinite::Null),
        _ => Err(PyValueError::new_err(format!("nonfinite must be 'raise', 'keep' or 'null', got {word:?}"))),
    }
}

fn read_hints(hints: &Bound<'_, PyDict>) -> PyResult<HashMap<String, Hint>> {
    hints.iter().map(|(key, wanted)| Ok((key.extract()?, read_hint(&key, &wanted)?))).collect()
}

fn read_hint(key: &Bound<'_, PyAny>, wanted: &Bound<'_, PyAny>) -> PyResult<Hint> {
    let wanted = PyArrayDescr::new(wanted.py(), wanted)?;
    if wanted.has_object() {
        return Ok(Hint::Object);
    }
    array::dtype(&wanted).map(Hint::Dtype).ok_or_else(|| {
        PyTypeError::new_err(format!(
            "hints[{key:?}] is {wanted}; pass an integer dtype, float32, float64, bool or object"
        ))
    })
}

/// Rows of lists of integers: `((values, list_offsets), offsets)`.
fn listed<'py>(py: Python<'py>, data: &Data<'_>, hint: Option<Hint>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let (Data::Json(rows), Some(Hint::Dtype(dtype))) = (data, hint) else { return Ok(None) };
    let Some(Lists { values, list_offsets, offsets }) = py.detach(|| lists(rows, dtype))? else {
        return Ok(None);
    };
    let elements = (numbers(py, values), PyArray1::from_vec(py, list_offsets));
    Ok(Some((elements, PyArray1::from_vec(py, offsets)).into_pyobject(py)?.into_any()))
}

fn column<'py>(py: Python<'py>, data: Data<'_>, nonfinite: Nonfinite) -> PyResult<Bound<'py, PyAny>> {
    match data {
        Data::Ragged { values, offsets, inner } => {
            let rows = offsets.last().copied().unwrap_or(0) as usize;
            let shape = PyTuple::new(py, [&[rows], &inner[..]].concat())?;
            let values = numbers(py, values).call_method1("reshape", (shape,))?;
            Ok((values, PyArray1::from_vec(py, offsets)).into_pyobject(py)?.into_any())
        }
        Data::Scalars { values, missing } if missing.is_empty() => Ok(numbers(py, values)),
        Data::Scalars { values, missing } => {
            let list = numbers(py, values).call_method0("tolist")?;
            missing.iter().try_for_each(|row| list.set_item(row, py.None()))?;
            Ok(list)
        }
        Data::Text(list) => Ok(texts(py, &list)?.into_any()),
        Data::Json(list) => objects(py, &list, nonfinite),
    }
}

/// The vector as an array, without a copy.
fn numbers(py: Python<'_>, values: Values) -> Bound<'_, PyAny> {
    match values {
        Values::Bool(vector) => PyArray1::from_vec(py, vector).into_any(),
        Values::I8(vector) => PyArray1::from_vec(py, vector).into_any(),
        Values::I16(vector) => PyArray1::from_vec(py, vector).into_any(),
        Values::I32(vector) => PyArray1::from_vec(py, vector).into_any(),
        Values::I64(vector) => PyArray1::from_vec(py, vector).into_any(),
        Values::U8(vector) => PyArray1::from_vec(py, vector).into_any(),
        Values::U16(vector) => PyArray1::from_vec(py, vector).into_any(),
        Values::U32(vector) => PyArray1::from_vec(py, vector).into_any(),
        Values::U64(vector) => PyArray1::from_vec(py, vector).into_any(),
        Values::F32(vector) => PyArray1::from_vec(py, vector).into_any(),
        Values::F64(vector) => PyArray1::from_vec(py, vector).into_any(),
    }
}

/// Strings as Python objects; a string like the one before it is the same object.
fn texts<'py>(py: Python<'py>, list: &[Option<Cow<'_, str>>]) -> PyResult<Bound<'py, PyList>> {
    let out = PyList::empty(py);
    let mut before: Option<(&str, Bound<'py, PyString>)> = None;
    for text in list {
        let Some(text) = text else {
            out.append(py.None())?;
            continue;
        };
        let object = match &before {
            Some((same, object)) if same == text => object.clone(),
            _ => PyString::from_bytes(py, text.as_bytes())?,
        };
        out.append(&object)?;
        before = Some((text, object));
    }
    Ok(out)
}

/// The values as `json.loads` reads them, which takes `NaN` and the like.
fn objects<'py>(py: Python<'py>, list: &[&[u8]], nonfinite: Nonfinite) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let length = list.iter().map(|json| json.len() + 1).sum::<usize>() + 1;
    let json = PyBytes::new_with(py, length.max(2), |out| {
        let mut at = 0;
        for json in list {
            out[at] = if at == 0 { b'[' } else { b',' };
            out[at + 1..][..json.len()].copy_from_slice(json);
            at += 1 + json.len();
        }
        out[0] = b'[';
        out[out.len() - 1] = b']';
        Ok(())
    })?;
    let options = PyDict::new(py);
    if nonfinite == Nonfinite::Null {
        // A function of the word that gives None for each of the three.
        options.set_item("parse_constant", PyDict::new(py).getattr("get")?)?;
    }
    LOADS.import(py, "json", "loads")?.call((json,), Some(&options))
}
