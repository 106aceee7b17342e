//! Bindings of `place`.

use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::array::{self, Array, DETACH_BYTES, Memory};
use super::layout::slots;
use super::list::items::{Held, pair};
use crate::cast::Cast;
use crate::memory;
use crate::place::{self as kernel, Gaps, Mover, Part, Pieces};

/// The one row of an array that is a row itself.
const WHOLE: &[i64] = &[0];

/// A part as Python passes it: `(values, begins)`, or an array that is one row.
struct PyPart<'a> {
    bytes: &'a [u8],
    begins: Option<&'a [i64]>, // or offsets, for `self_described`
}

/// Parts of one dtype. They borrow from the tuple that holds them: many short rows are looked at once here,
/// and not even counted as references.
pub struct PyParts<'a, 'py> {
    parts: Vec<PyPart<'a>>,
    /// `None` if there are none.
    pub dtype: Option<Bound<'py, PyArrayDescr>>,
}

impl<'a, 'py> PyParts<'a, 'py> {
    /// All parts that something holds.
    pub fn of(held: &'a [Bound<'py, PyAny>]) -> PyResult<Self> {
        let mut found = Self { parts: memory::with_room("parts", held.len())?, dtype: None };
        for (i, item) in held.iter().enumerate() {
            array::prefetch_parts(held, i);
            let (values, begins) = match item.cast::<PyTuple>().map(pair) {
                Err(_) => (item.as_borrowed().cast()?, None),
                Ok(Some([values, begins])) => {
                    (values.cast()?, Some(array::int64s("begins", begins.cast::<PyUntypedArray>()?)?))
                }
                Ok(None) => return Err(PyTypeError::new_err("a part must be an array, or (values, begins)")),
            };
            found.parts.push(PyPart { bytes: array::bytes("parts", values)?, begins });
            found.same_dtype(values.dtype())?;
        }
        Ok(found)
    }

    fn same_dtype(&mut self, dtype: Bound<'py, PyArrayDescr>) -> PyResult<()> {
        match &self.dtype {
            None => self.dtype = Some(dtype),
            Some(first) if dtype.is(first) || dtype.is_equiv_to(first) => {}
            Some(first) => {
                let message = format!("parts must all have one dtype, got {first} and {dtype}");
                return Err(PyTypeError::new_err(message));
            }
        }
        Ok(())
    }

    /// The memory that is read.
    pub fn memory(&self) -> impl Iterator<Item = Memory> {
        let all = self.parts.iter();
        all.flat_map(|part| [array::memory(part.bytes)].into_iter().chain(part.begins.map(array::memory)))
    }

    /// How elements get to an array.
    pub fn mover(&self, out: &Array<'_>) -> PyResult<Mover> {
        let to = out.dtype();
        let Some(from) = self.dtype.as_ref().filter(|from| !from.is_equiv_to(&to)) else {
            return Ok(Mover::Copy);
        };
        cast_between(from, &to)
            .map(Mover::Cast)
            .ok_or_else(|| PyTypeError::new_err(format!("cannot place {from} rows in a {to} output")))
    }

    /// The rows of all parts.
    pub fn rows(&self, mut lengths: &'a [i64], item: usize) -> crate::Result<Vec<&'a [u8]>> {
        let mut rows = memory::with_room("rows", lengths.len())?;
        for part in &self.parts {
            let begins = part.begins.unwrap_or(WHOLE);
            let (own, others) = lengths.split_at(begins.len().min(lengths.len()));
            lengths = others;
            Part { bytes: part.bytes, item, begins, lengths: own }.append_to(&mut rows)?;
        }
        Ok(rows)
    }

    /// The rows of parts that say where each ends: `(values, offsets)`, or an array that is one row.
    pub fn self_described(&self, item: usize) -> crate::Result<Vec<&'a [u8]>> {
        let mut rows = memory::with_room("rows", self.parts.len())?;
        for part in &self.parts {
            match part.begins {
                None => memory::push("rows", &mut rows, part.bytes)?,
                Some(offsets) => Part::append_ragged(part.bytes, item, offsets, &mut rows)?,
            }
        }
        Ok(rows)
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
    let parts = Held::required(parts)?;
    let parts = PyParts::of(&parts)?;
    let mover = parts.mover(out)?;
    let size = array::bytes("out", out)?.len().checked_div(item).unwrap_or(0);
    let slots = slots(starts, lengths, order, size)?;
    let source_item = mover.source_item(item);
    let pieces = pieces(row_lengths, source_rows, begins, slots.lengths)?;
    let rows = match pieces {
        None => parts.rows(slots.lengths, source_item)?,
        Some((row_lengths, pieces)) => pieces.of(&parts.rows(row_lengths, source_item)?, source_item)?,
    };
    array::check_apart(&[("out", out)], parts.memory())?;
    let inputs = [starts, lengths, fill_array].into_iter().chain(order);
    let inputs = inputs.chain(row_lengths).chain(source_rows).chain(begins);
    let written = array::out_bytes("out", out, inputs)?;
    let gaps = if zeroed { Gaps::Leave(item) } else { Gaps::Fill(fill) };
    let bytes = written.len();
    let mut run = || kernel::place_ahead(&rows, &slots, gaps, mover, array::prefetch, written);
    let done = if bytes < DETACH_BYTES { run() } else { py.detach(run) };
    Ok(done.map_err(|error| match pieces {
        None => error,
        Some((_, pieces)) => pieces.in_rows(error),
    })?)
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

/// Whether `place` casts between two dtypes, checked.
#[pyfunction]
#[pyo3(signature = (from_, to, /))]
pub fn can_cast(from_: &Bound<'_, PyArrayDescr>, to: &Bound<'_, PyArrayDescr>) -> bool {
    cast_between(from_, to).is_some()
}

fn cast_between(from: &Bound<'_, PyArrayDescr>, to: &Bound<'_, PyArrayDescr>) -> Option<Cast> {
    Cast::new(array::dtype(from)?, array::dtype(to)?)
}
