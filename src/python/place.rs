//! Bindings of `place`.

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::array::{self, Array, DETACH_BYTES, RowType};
use super::layout::slots;
use crate::cast::Cast;
use crate::layout::Slots;
use crate::offsets;
use crate::place::{self as kernel, Mover, Part, Rows};

/// The one row of an array that is a row itself.
const WHOLE: &[i64] = &[0];

/// How far ahead to ask for array headers: enough to hide a cache miss behind the rows between.
const AHEAD: usize = 12;

/// A part as Python passes it: `(values, begins)`, or an array that is one row.
struct PyPart<'py> {
    values: Array<'py>,
    begins: Option<Array<'py>>,
}

impl<'py> PyPart<'py> {
    fn new(part: &Bound<'py, PyAny>) -> PyResult<Self> {
        let Ok(pair) = part.cast::<PyTuple>() else {
            return Ok(Self { values: part.cast::<PyUntypedArray>()?.clone(), begins: None });
        };
        let (values, begins): (Array<'py>, Array<'py>) = pair.extract()?;
        Ok(Self { values, begins: Some(begins) })
    }
}

/// Writes the rows of `parts` to `out` where `starts` says, and `fill` everywhere else.
#[pyfunction]
#[pyo3(signature = (parts, starts, lengths, order, /, *, fill, out))]
pub fn place<'py>(
    py: Python<'py>,
    parts: &Bound<'py, PyAny>,
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    fill: &Array<'py>,
    out: &Array<'py>,
) -> PyResult<()> {
    let item = fill.len() * out.dtype().itemsize();
    let fill = array::bytes("fill", fill)?;
    let parts = snapshot(parts)?.as_slice().iter().map(PyPart::new).collect::<PyResult<Vec<_>>>()?;
    let mover = one_mover(&parts, out)?;
    let mut sources = Vec::with_capacity(parts.len());
    for part in &parts {
        let begins = part.begins.as_ref().map_or(Ok(WHOLE), |begins| array::int64s("begins", begins))?;
        sources.push(Part { bytes: array::bytes("parts", &part.values)?, begins });
    }
    let source_item = match mover {
        Mover::Copy => item,
        Mover::Cast(cast) => item / cast.to_size() * cast.from_size(),
    };
    let inputs = sources.iter().map(|part| part.bytes).chain([fill]).collect::<Vec<_>>();
    let size = array::bytes("out", out)?.len();
    let slots = slots(starts, lengths, order, size.checked_div(item).unwrap_or(0))?;
    let written = array::out_bytes("out", out, &inputs)?;
    let run = || kernel::place(&Rows::new(sources, source_item), &slots, fill, mover, written);
    Ok(if size < DETACH_BYTES { run() } else { py.detach(run) }?)
}

/// Lengths of rows that are C-contiguous arrays of one dtype and inner shape; `None` if they are not.
#[pyfunction]
#[pyo3(signature = (rows, /))]
pub fn array_lengths<'py>(py: Python<'py>, rows: &Bound<'py, PyAny>) -> PyResult<Option<Array<'py>>> {
    let rows = snapshot(rows)?;
    let Some((_, lengths)) = array_rows(&rows)? else { return Ok(None) };
    let out = array::fresh::<i64>(py, lengths.len())?;
    array::out_slice::<i64>("lengths", &out)?.write_copy_of_slice(&lengths);
    Ok(Some(out))
}

/// Joins such rows, in one walk over the objects: `(values, offsets)`, or `None` if they are not.
#[pyfunction]
#[pyo3(signature = (rows, /))]
pub fn concat_arrays<'py>(
    py: Python<'py>,
    rows: &Bound<'py, PyAny>,
) -> PyResult<Option<(Array<'py>, Array<'py>)>> {
    let rows = snapshot(rows)?;
    let Some((parts, lengths)) = array_rows(&rows)? else { return Ok(None) };
    let first = rows.get_item(0)?.cast_into::<PyUntypedArray>()?;
    let item = first.shape()[1..].iter().product::<usize>() * first.dtype().itemsize();
    let offsets = array::fresh::<i64>(py, lengths.len() + 1)?;
    offsets::from_lengths(&lengths, array::out_slice("offsets", &offsets)?)?;
    let starts = &array::int64s("offsets", &offsets)?[..lengths.len()];
    let size = offsets::total(&lengths)? as usize;
    let shape = PyTuple::new(py, [&[size], &first.shape()[1..]].concat())?;
    let values = array::empty(py, shape, first.dtype())?;
    let slots = Slots { starts, lengths: &lengths, order: None, size };
    let written = array::out_bytes("values", &values, &[])?;
    let fill = vec![0; item];
    let bytes = written.len();
    let run = || kernel::place(&Rows::new(parts, item), &slots, &fill, Mover::Copy, written);
    if bytes < DETACH_BYTES { run() } else { py.detach(run) }?;
    Ok(Some((values, offsets)))
}

/// Each row as a part of its own, with its length; `None` unless rows are alike (and there are some).
fn array_rows<'a>(rows: &'a Bound<'_, PyTuple>) -> PyResult<Option<(Vec<Part<'a>>, Vec<i64>)>> {
    let objects = rows.as_slice();
    let Some(Ok(first)) = objects.first().map(|row| row.cast::<PyUntypedArray>()) else { return Ok(None) };
    let row_type = RowType::of(first)?;
    let item = first.dtype().itemsize() * first.shape().iter().skip(1).product::<usize>();
    let mut parts = Vec::with_capacity(objects.len());
    let mut lengths = Vec::with_capacity(objects.len());
    for (i, object) in objects.iter().enumerate() {
        if let Some(ahead) = objects.get(i + AHEAD) {
            array::prefetch(ahead);
        }
        let Ok(row) = object.cast::<PyUntypedArray>() else { return Ok(None) };
        let Some(bytes) = array::fitting_bytes(&row_type, row, item) else { return Ok(None) };
        parts.push(Part { bytes, begins: WHOLE });
        lengths.push(row.shape()[0] as i64);
    }
    Ok(Some((parts, lengths)))
}

/// The rows as a tuple, which no other thread can change while their memory is in use.
fn snapshot<'py>(rows: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    match rows.cast::<PyList>() {
        Ok(list) => Ok(list.to_tuple()),
        Err(_) => Ok(rows.cast::<PyTuple>()?.clone()),
    }
}

/// How all parts get to `out`.
fn one_mover(parts: &[PyPart<'_>], out: &Array<'_>) -> PyResult<Mover> {
    let to = out.dtype();
    let mut mover = None;
    for part in parts {
        let from = part.values.dtype();
        let found = if from.is_equiv_to(&to) {
            Mover::Copy
        } else {
            let cast = array::dtype(&from).zip(array::dtype(&to)).and_then(|(from, to)| Cast::new(from, to));
            let Some(cast) = cast else {
                return Err(PyTypeError::new_err(format!("cannot place {from} rows in a {to} output")));
            };
            Mover::Cast(cast)
        };
        if mover.is_some_and(|mover| mover != found) {
            return Err(PyTypeError::new_err("parts must all have one dtype"));
        }
        mover = Some(found);
    }
    Ok(mover.unwrap_or(Mover::Copy))
}
