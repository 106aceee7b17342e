//! Bindings of `place`.

use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::array::{self, Array, DETACH_BYTES};
use super::layout::slots;
use crate::cast::Cast;
use crate::place::{self as kernel, Gaps, Mover, Part, Pieces};

/// The one row of an array that is a row itself.
const WHOLE: &[i64] = &[0];

/// A part as Python passes it: `(values, begins)`, or an array that is one row.
pub struct PyPart<'py> {
    pub values: Array<'py>,
    begins: Option<Array<'py>>, // or offsets, for `self_described`
}

impl<'py> PyPart<'py> {
    /// All parts of a list or tuple.
    pub fn all(parts: &Bound<'py, PyAny>) -> PyResult<Vec<Self>> {
        snapshot(parts)?.as_slice().iter().map(Self::new).collect()
    }

    /// Its arrays.
    pub fn arrays(&self) -> impl Iterator<Item = &Array<'py>> {
        [&self.values].into_iter().chain(&self.begins)
    }

    fn new(part: &Bound<'py, PyAny>) -> PyResult<Self> {
        let Ok(pair) = part.cast::<PyTuple>() else {
            return Ok(Self { values: part.cast::<PyUntypedArray>()?.clone(), begins: None });
        };
        let (values, begins): (Array<'py>, Array<'py>) = pair.extract()?;
        Ok(Self { values, begins: Some(begins) })
    }
}

/// Writes the rows of `parts` to `out` where `starts` says, and `fill` everywhere else, unless `out` is
/// zeros already and that is what it is to be.
///
/// With `source_rows` and `begins`, what goes to `starts` are pieces of the rows.
#[pyfunction]
#[pyo3(signature = (parts, starts, lengths, order, /, *, fill, out, zeroed = false,
    row_lengths = None, source_rows = None, begins = None))]
#[allow(clippy::too_many_arguments)] // as Python passes them
pub fn place<'py>(
    py: Python<'py>,
    parts: &Bound<'py, PyAny>,
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    fill: &Array<'py>,
    out: &Array<'py>,
    zeroed: bool,
    row_lengths: Option<&Array<'py>>,
    source_rows: Option<&Array<'py>>,
    begins: Option<&Array<'py>>,
) -> PyResult<()> {
    let item = fill.len() * out.dtype().itemsize();
    let fill_array = fill;
    let fill = array::bytes("fill", fill)?;
    let parts = PyPart::all(parts)?;
    let mover = one_mover(&parts, out)?;
    let written = array::bytes("out", out)?.len();
    let slots = slots(starts, lengths, order, written.checked_div(item).unwrap_or(0))?;
    let source_item = mover.source_item(item);
    let rows = match pieces(row_lengths, source_rows, begins, slots.lengths)? {
        None => rows_of(&parts, slots.lengths, source_item)??,
        Some((row_lengths, pieces)) => {
            pieces.of(&rows_of(&parts, row_lengths, source_item)??, source_item)?
        }
    };
    let inputs = parts.iter().flat_map(PyPart::arrays);
    let inputs = inputs.chain([starts, lengths, fill_array]).chain(order);
    let inputs = inputs.chain(row_lengths).chain(source_rows).chain(begins);
    let written = array::out_bytes("out", out, inputs)?;
    let gaps = if zeroed { Gaps::Leave(item) } else { Gaps::Fill(fill) };
    let bytes = written.len();
    let mut run = || kernel::place_ahead(&rows, &slots, gaps, mover, array::prefetch, written);
    Ok(if bytes < DETACH_BYTES { run() } else { py.detach(run) }?)
}

/// The lengths of rows, and pieces of them, where there are pieces.
fn pieces<'a>(
    row_lengths: Option<&'a Array<'_>>,
    source_rows: Option<&'a Array<'_>>,
    begins: Option<&'a Array<'_>>,
    lengths: &'a [i64],
) -> PyResult<Option<(&'a [i64], Pieces<'a>)>> {
    match (row_lengths, source_rows, begins) {
        (None, None, None) => Ok(None),
        (Some(row_lengths), Some(source_rows), Some(begins)) => {
            let source_rows = array::int64s("source_rows", source_rows)?;
            let begins = array::int64s("begins", begins)?;
            let pieces = Pieces { source_rows, begins, lengths };
            Ok(Some((array::int64s("row_lengths", row_lengths)?, pieces)))
        }
        _ => Err(PyTypeError::new_err("pieces need row_lengths, source_rows and begins, all three")),
    }
}

/// The rows of all parts; the inner error is about one of them.
pub fn rows_of<'a>(
    parts: &'a [PyPart<'_>],
    mut lengths: &'a [i64],
    item: usize,
) -> PyResult<crate::Result<Vec<&'a [u8]>>> {
    let mut rows = Vec::with_capacity(lengths.len());
    for part in parts {
        let begins = part.begins.as_ref().map_or(Ok(WHOLE), |begins| array::int64s("begins", begins))?;
        let bytes = array::bytes("parts", &part.values)?;
        let (own, others) = lengths.split_at(begins.len().min(lengths.len()));
        lengths = others;
        if let Err(error) = (Part { bytes, item, begins, lengths: own }).append_to(&mut rows) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(rows))
}

/// The rows of parts that say where each ends: `(values, offsets)`, or an array that is one row.
pub fn self_described<'a>(parts: &'a [PyPart<'_>], item: usize) -> PyResult<crate::Result<Vec<&'a [u8]>>> {
    let mut rows = Vec::with_capacity(parts.len());
    for part in parts {
        let bytes = array::bytes("parts", &part.values)?;
        let Some(offsets) = &part.begins else {
            rows.push(bytes);
            continue;
        };
        let offsets = array::int64s("offsets", offsets)?;
        if let Err(error) = Part::append_ragged(bytes, item, offsets, &mut rows) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(rows))
}

/// Whether `place` casts between two dtypes, checked.
#[pyfunction]
#[pyo3(signature = (from_, to, /))]
pub fn can_cast(from_: &Bound<'_, PyArrayDescr>, to: &Bound<'_, PyArrayDescr>) -> bool {
    cast_between(from_, to).is_some()
}

fn cast_between(from: &Bound<'_, PyArrayDescr>, to: &Bound<'_, PyArrayDescr>) -> Option<Cast> {
    Cast::new(array::dtype(from)?, array::dtype(to)?)
}

/// The rows as a tuple, which no other thread can change while their memory is in use.
pub fn snapshot<'py>(rows: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    match rows.cast::<PyList>() {
        Ok(list) => Ok(list.to_tuple()),
        Err(_) => Ok(rows.cast::<PyTuple>()?.clone()),
    }
}

/// How all parts get to `out`.
pub fn one_mover(parts: &[PyPart<'_>], out: &Array<'_>) -> PyResult<Mover> {
    let to = out.dtype();
    let mut mover = None;
    let mut before: Option<Bound<'_, PyArrayDescr>> = None;
    for part in parts {
        let from = part.values.dtype();
        if before.as_ref().is_some_and(|before| before.is(&from)) {
            continue;
        }
        let found = if from.is_equiv_to(&to) {
            Mover::Copy
        } else {
            let Some(cast) = cast_between(&from, &to) else {
                return Err(PyTypeError::new_err(format!("cannot place {from} rows in a {to} output")));
            };
            Mover::Cast(cast)
        };
        if mover.is_some_and(|mover| mover != found) {
            return Err(PyTypeError::new_err("parts must all have one dtype"));
        }
        (mover, before) = (Some(found), Some(from));
    }
    Ok(mover.unwrap_or(Mover::Copy))
}
