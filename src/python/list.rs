//! Lists of Python numbers to flat columns, at the speed of reading the objects.
//!
//! Two ways to convert alternate. [`number::read`] takes exact ints, floats and bools straight from their
//! memory; it allocates nothing and runs no Python code, so that a list can be read in place. Anything
//! else (subclasses, NumPy scalars, `__index__`) goes one object at a time through [`convert`], which may
//! run Python code that changes lists: what is then left of the row is read from a snapshot. Without a
//! GIL every list is. Lists of lists are always read from a snapshot, which is short.

pub mod items;
// As `IN_PLACE`.
#[cfg_attr(any(Py_GIL_DISABLED, Py_LIMITED_API, PyPy, GraalPy, RustPython), path = "list/unseen.rs")]
mod look;
mod number;
pub mod pick;

use std::mem::MaybeUninit;

use numpy::PyArrayDescr;
use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyFloat, PyList, PyTuple, PyType};

use self::items::Held;
use self::number::{Number, Scalar, read, read_list};
use super::array::{self, Array};
use super::error::{Place, refusal};
use crate::cast::Dtype;
use crate::{Error, memory, offsets};

/// Shapes stop here, as NumPy's do; a list that contains itself has no end.
const MAX_DIMS: usize = 64;

/// Characters of a value that a message quotes.
const SHOWN: usize = 40;

/// Rows of Python numbers as `(values, offsets)`; `dtype` is that of the first number unless given.
#[pyfunction]
#[pyo3(signature = (rows, dtype=None, /))]
pub fn from_lists<'py>(
    py: Python<'py>,
    rows: &Bound<'py, PyAny>,
    dtype: Option<Bound<'py, PyArrayDescr>>,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let Some(rows) = Held::of(rows)? else {
        return Err(PyTypeError::new_err(format!("rows must be a list or tuple, got {}", type_name(rows))));
    };
    let lengths = lengths(&rows)?;
    let First { row, inner, number } = First::of(&rows, &lengths)?;
    let descr = dtype_of(py, dtype, number.as_ref(), At { row, position: None, inner: &inner })?;
    written(py, &rows, &lengths, &inner, &descr, &Nested)
}

/// The dtype of a column: the one that is given, or that of its first number.
fn dtype_of<'py>(
    py: Python<'py>,
    given: Option<Bound<'py, PyArrayDescr>>,
    first: Option<&Bound<'py, PyAny>>,
    at: At<'_>,
) -> PyResult<Bound<'py, PyArrayDescr>> {
    match (given, first) {
        (Some(descr), _) => Ok(descr),
        (None, Some(number)) => natural_dtype(number, at),
        (None, None) => Ok(numpy::dtype::<i64>(py)),
    }
}

/// How the numbers of a row are found.
trait Source<'py> {
    /// Writes the numbers of a row, as many as `out` has room for.
    fn write<T: Scalar>(
        &self,
        row: &Bound<'py, PyAny>,
        shape: &[usize],
        out: &mut [MaybeUninit<T>],
        at: At<'_>,
    ) -> PyResult<()>;
}

/// Rows that are lists of numbers, or of such lists.
struct Nested;

impl<'py> Source<'py> for Nested {
    fn write<T: Scalar>(
        &self,
        row: &Bound<'py, PyAny>,
        shape: &[usize],
        out: &mut [MaybeUninit<T>],
        at: At<'_>,
    ) -> PyResult<()> {
        fill_nested(row, shape, out, at)
    }
}

/// A new column, `(values, offsets)`.
fn written<'py>(
    py: Python<'py>,
    rows: &[Bound<'py, PyAny>],
    lengths: &[i64],
    inner: &[usize],
    descr: &Bound<'py, PyArrayDescr>,
    source: &impl Source<'py>,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let Some(dtype) = array::dtype(descr) else {
        return Err(PyTypeError::new_err(format!(
            "lists become bool, (u)int8 to (u)int64, float32 or float64 in native byte order, not {descr}"
        )));
    };
    let offsets = array::fresh::<i64>(py, lengths.len() + 1)?;
    offsets::from_lengths(lengths, array::out_slice("offsets", &offsets, [])?)?;
    let total = offsets::total(lengths)? as usize;
    let values = array::empty(py, PyTuple::new(py, [&[total], inner].concat())?, descr)?;
    match dtype {
        Dtype::Bool => fill::<bool>(rows, lengths, inner, &values, source),
        Dtype::I8 => fill::<i8>(rows, lengths, inner, &values, source),
        Dtype::I16 => fill::<i16>(rows, lengths, inner, &values, source),
        Dtype::I32 => fill::<i32>(rows, lengths, inner, &values, source),
        Dtype::I64 => fill::<i64>(rows, lengths, inner, &values, source),
        Dtype::U8 => fill::<u8>(rows, lengths, inner, &values, source),
        Dtype::U16 => fill::<u16>(rows, lengths, inner, &values, source),
        Dtype::U32 => fill::<u32>(rows, lengths, inner, &values, source),
        Dtype::U64 => fill::<u64>(rows, lengths, inner, &values, source),
        Dtype::F32 => fill::<f32>(rows, lengths, inner, &values, source),
        Dtype::F64 => fill::<f64>(rows, lengths, inner, &values, source),
    }?;
    Ok((values, offsets))
}

/// The lengths of all rows.
fn lengths(rows: &[Bound<'_, PyAny>]) -> PyResult<Vec<i64>> {
    let length = |(row, object)| {
        length(object).map(|length| length as i64).ok_or_else(|| {
            let text = format!(" is {}, expected a list, tuple or array", type_name(object));
            refusal::<PyTypeError>(&text, Place { row: Some(row), ..Place::default() })
        })
    };
    let mut found = memory::with_room("rows", rows.len())?;
    for row in rows.iter().enumerate() {
        found.push(length(row)?);
    }
    Ok(found)
}

/// What the first number of a column tells.
struct First<'py> {
    row: usize,
    inner: Vec<usize>,
    /// `None` if there is no number at all.
    number: Option<Bound<'py, PyAny>>,
}

impl<'py> First<'py> {
    fn of(rows: &[Bound<'py, PyAny>], lengths: &[i64]) -> PyResult<Self> {
        let row = lengths.iter().position(|&length| length > 0).unwrap_or(0);
        let mut inner = Vec::new();
        let mut number = rows.get(row).and_then(first_item);
        while let Some(list) = number.take_if(|found| length(found).is_some()) {
            if inner.len() + 1 >= MAX_DIMS {
                let at = At { row, position: None, inner: &inner };
                let text = format!("nested deeper than {MAX_DIMS} dimensions");
                return Err(at.refusal::<PyValueError>(0, &text));
            }
            inner.extend(length(&list));
            number = first_item(&list);
        }
        Ok(Self { row, inner, number })
    }
}

/// The dtype a column gets from its first number.
fn natural_dtype<'py>(first: &Bound<'py, PyAny>, at: At<'_>) -> PyResult<Bound<'py, PyArrayDescr>> {
    static GENERIC: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = first.py();
    if first.is_instance(GENERIC.import(py, "numpy", "generic")?)? {
        return Ok(first.getattr("dtype")?.cast_into()?);
    }
    if first.is_instance_of::<PyBool>() {
        return Ok(numpy::dtype::<bool>(py));
    }
    match Number::of(first)? {
        Some(Number::Int(_)) => Ok(numpy::dtype::<i64>(py)),
        Some(Number::Float(_) | Number::Beyond) => Ok(numpy::dtype::<f64>(py)),
        None => Err(at.not_a_number(first, 0)),
    }
}

/// Writes all rows to `values`, whose dtype is `T`'s.
fn fill<'py, T: Scalar>(
    rows: &[Bound<'py, PyAny>],
    lengths: &[i64],
    inner: &[usize],
    values: &Array<'py>,
    source: &impl Source<'py>,
) -> PyResult<()> {
    let mut rest = array::out_slice::<T>("values", values, [])?;
    let size = inner.iter().product::<usize>();
    let mut shape = [&[0], inner].concat();
    for (row, (object, &length)) in rows.iter().zip(lengths).enumerate() {
        shape[0] = length as usize;
        let (out, after) = rest.split_at_mut(shape[0] * size);
        rest = after;
        source.write(object, &shape, out, At { row, position: None, inner })?;
    }
    Ok(())
}

/// Writes lists nested as `shape` says.
fn fill_nested<T: Scalar>(
    object: &Bound<'_, PyAny>,
    shape: &[usize],
    mut rest: &mut [MaybeUninit<T>],
    at: At<'_>,
) -> PyResult<()> {
    let [length, inner @ ..] = shape else { return Ok(()) };
    if inner.is_empty() {
        return fill_flat(object, rest, at);
    }
    let Some(lists) = Held::of(object)?.filter(|lists| lists.len() == *length) else {
        return Err(at.wrong_length(object));
    };
    let size = rest.len().checked_div(*length).unwrap_or(0);
    for (index, list) in lists.iter().enumerate() {
        let (out, after) = rest.split_at_mut(size);
        rest = after;
        fill_nested(list, inner, out, At { position: at.position.or(Some(index)), ..at })?;
    }
    Ok(())
}

/// Writes a list of numbers as long as `out`.
fn fill_flat<T: Scalar>(object: &Bound<'_, PyAny>, out: &mut [MaybeUninit<T>], at: At<'_>) -> PyResult<()> {
    let mut done = object.cast::<PyList>().map_or(0, |list| read_list(list, out));
    if done == out.len() && done > 0 {
        return Ok(());
    }
    let Some(objects) = Held::of(object)?.filter(|objects| objects.len() == out.len()) else {
        return Err(at.wrong_length(object));
    };
    loop {
        done += read(&objects[done..], &mut out[done..]);
        let Some(object) = objects.get(done) else { return Ok(()) };
        out[done].write(convert(object, done, at)?);
        done += 1;
    }
}

/// Converts any number, or says why it cannot.
#[cold]
fn convert<T: Scalar>(object: &Bound<'_, PyAny>, index: usize, at: At<'_>) -> PyResult<T> {
    if length(object).is_some() {
        return Err(at.ragged(object, index));
    }
    match Number::of(object)? {
        Some(Number::Int(value)) => value
            .extract()
            .map_or_else(|_| T::from_big_int(&value), T::from_int)
            .ok_or_else(|| at.out_of_range(&value, index, T::DTYPE)),
        Some(Number::Float(value)) => T::from_float(value).ok_or_else(|| {
            let value = PyFloat::new(object.py(), value);
            match T::DTYPE {
                Dtype::F32 | Dtype::F64 => at.out_of_range(&value, index, T::DTYPE),
                _ => at.unwanted_float(&value, index, T::DTYPE),
            }
        }),
        Some(Number::Beyond) => Err(at.out_of_range(object, index, T::DTYPE)),
        None => Err(at.not_a_number(object, index)),
    }
}

/// Where an element is, for messages.
#[derive(Clone, Copy)]
struct At<'a> {
    row: usize,
    /// Set within nested lists, where messages give the position in the row, not in the innermost list.
    position: Option<usize>,
    inner: &'a [usize],
}

impl At<'_> {
    fn refusal<T: PyTypeInfo>(self, index: usize, text: &str) -> PyErr {
        let position = Some(self.position.unwrap_or(index));
        refusal::<T>(&format!(": {text}"), Place { row: Some(self.row), position, ..Place::default() })
    }

    fn wrong_length(self, list: &Bound<'_, PyAny>) -> PyErr {
        if let Some(index) = self.position {
            return self.ragged(list, index);
        }
        refusal::<PyValueError>(
            " changed while it was read",
            Place { row: Some(self.row), ..Place::default() },
        )
    }

    fn ragged(self, found: &Bound<'_, PyAny>, index: usize) -> PyErr {
        let wanted = match self.inner {
            [] => "a number".to_owned(),
            [one] => format!("inner shape ({one},)"),
            more => format!("inner shape {more:?}").replace('[', "(").replace(']', ")"),
        };
        let found = match length(found) {
            Some(length) => format!("a {} of {length}", type_name(found)),
            None => shown(found),
        };
        self.refusal::<PyValueError>(index, &format!("{wanted} expected, got {found}"))
    }

    fn not_a_number(self, found: &Bound<'_, PyAny>, index: usize) -> PyErr {
        self.refusal::<PyTypeError>(index, &format!("{} is not a number", shown(found)))
    }

    fn unwanted_float(self, found: &Bound<'_, PyAny>, index: usize, dtype: Dtype) -> PyErr {
        let (found, dtype) = (shown(found), dtype.name());
        let article = if dtype.starts_with('i') { "an" } else { "a" };
        self.refusal::<PyTypeError>(
            index,
            &format!(
                "float {found} in {article} {dtype} column; pass dtype=np.float32 (or another float dtype) or round it first"
            ),
        )
    }

    fn out_of_range(self, found: &Bound<'_, PyAny>, index: usize, dtype: Dtype) -> PyErr {
        let position = self.position.unwrap_or(index);
        Error::ValueRange { row: self.row, position, value: shown(found), dtype: dtype.name() }.into()
    }
}

/// The length of a list or tuple.
fn length(object: &Bound<'_, PyAny>) -> Option<usize> {
    match object.cast::<PyList>() {
        Ok(list) => Some(list.len()),
        Err(_) => Some(object.cast::<PyTuple>().ok()?.len()),
    }
}

/// The first element of a list or tuple that has one.
fn first_item<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    match object.cast::<PyList>() {
        Ok(list) => list.get_item(0).ok(),
        Err(_) => object.cast::<PyTuple>().ok()?.get_item(0).ok(),
    }
}

fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "an object".into(), |name| name.to_string())
}

/// The object printed, cut where it gets long.
fn shown(object: &Bound<'_, PyAny>) -> String {
    // Printing can fail: an int of more than 4300 digits, or a class of the user's.
    let Ok(text) = object.repr() else { return format!("<{}>", type_name(object)) };
    let text = text.to_string_lossy();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}
