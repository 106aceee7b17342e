//! Lists of Python numbers to flat columns, at the speed of reading the objects.
//!
//! Two ways to read alternate. [`read`] takes exact ints, floats and bools straight from their memory; it
//! allocates nothing and runs no Python code, so a list can be read in place. Anything else (subclasses,
//! NumPy scalars, `__index__`) goes one object at a time through [`slow`], which may run Python code that
//! changes lists; the rest of the row is then read from a snapshot. Without a GIL every list is
//! read from a snapshot.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::slice;

use numpy::PyArrayDescr;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyFloat, PyInt, PyList, PyTuple, PyType};

use super::array::{self, Array};
use crate::cast::Dtype;
use crate::{Error, offsets};

/// How far ahead to ask for objects: enough to hide a cache miss where the heap is shuffled.
const AHEAD: usize = 16;

/// Shapes stop here, as NumPy's do; a list that contains itself has no end.
const MAX_DIMS: usize = 64;

/// Whether lists can be read in place: nobody else runs while this thread holds the GIL.
const IN_PLACE: bool = cfg!(not(any(Py_GIL_DISABLED, PyPy, GraalPy, RustPython)));

/// Whether an int's memory is as [`Long`] says.
const KNOWN_LAYOUT: bool =
    cfg!(all(target_pointer_width = "64", not(any(Py_3_16, PyPy, GraalPy, RustPython)),));

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
    let Some(rows) = snapshot(rows) else {
        return Err(PyTypeError::new_err(format!("rows must be a list or tuple, got {}", type_name(rows))));
    };
    let lengths = lengths(&rows)?;
    let First { row, inner, number } = First::of(&rows, &lengths)?;
    let descr = match (dtype, number) {
        (Some(descr), _) => descr,
        (None, Some(number)) => natural_dtype(&number, At { row, position: None, inner: &inner })?,
        (None, None) => numpy::dtype::<i64>(py),
    };
    let Some(dtype) = array::dtype(&descr) else {
        return Err(PyTypeError::new_err(format!(
            "lists become bool, (u)int8 to (u)int64, float32 or float64 in native byte order, not {descr}"
        )));
    };
    let offsets = array::fresh::<i64>(py, lengths.len() + 1)?;
    offsets::from_lengths(&lengths, array::out_slice("offsets", &offsets)?)?;
    let total = offsets::total(&lengths)? as usize;
    let values = array::empty(py, PyTuple::new(py, [&[total], &inner[..]].concat())?, descr)?;
    match dtype {
        Dtype::Bool => fill::<bool>(&rows, &lengths, &inner, &values),
        Dtype::I8 => fill::<i8>(&rows, &lengths, &inner, &values),
        Dtype::I16 => fill::<i16>(&rows, &lengths, &inner, &values),
        Dtype::I32 => fill::<i32>(&rows, &lengths, &inner, &values),
        Dtype::I64 => fill::<i64>(&rows, &lengths, &inner, &values),
        Dtype::U8 => fill::<u8>(&rows, &lengths, &inner, &values),
        Dtype::U16 => fill::<u16>(&rows, &lengths, &inner, &values),
        Dtype::U32 => fill::<u32>(&rows, &lengths, &inner, &values),
        Dtype::U64 => fill::<u64>(&rows, &lengths, &inner, &values),
        Dtype::F32 => fill::<f32>(&rows, &lengths, &inner, &values),
        Dtype::F64 => fill::<f64>(&rows, &lengths, &inner, &values),
    }?;
    Ok((values, offsets))
}

/// An element that Python numbers are converted to. `None` says that the value does not fit.
trait Scalar: numpy::Element + Copy {
    const DTYPE: Dtype;
    fn from_int(value: i64) -> Option<Self>;
    /// From an int that is not an `i64`.
    fn from_big_int(value: &Bound<'_, PyAny>) -> Option<Self>;
    /// `None` if the dtype holds no floats.
    fn from_float(value: f64) -> Option<Self>;
}

macro_rules! integers {
    ($($t:ty => $dtype:ident),*) => {$(
        impl Scalar for $t {
            const DTYPE: Dtype = Dtype::$dtype;
            #[inline]
            #[allow(irrefutable_let_patterns)]
            fn from_int(value: i64) -> Option<Self> { Self::try_from(value).ok() }
            fn from_big_int(value: &Bound<'_, PyAny>) -> Option<Self> { value.extract().ok() }
            #[inline]
            fn from_float(_: f64) -> Option<Self> { None }
        }
    )*};
}
integers!(i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64);

impl Scalar for bool {
    const DTYPE: Dtype = Dtype::Bool;

    #[inline]
    fn from_int(value: i64) -> Option<Self> {
        u8::try_from(value).ok().filter(|&byte| byte <= 1).map(|byte| byte == 1)
    }

    fn from_big_int(_: &Bound<'_, PyAny>) -> Option<Self> {
        None
    }

    #[inline]
    fn from_float(_: f64) -> Option<Self> {
        None
    }
}

impl Scalar for f32 {
    const DTYPE: Dtype = Dtype::F32;

    #[inline]
    fn from_int(value: i64) -> Option<Self> {
        Some(value as Self)
    }

    fn from_big_int(value: &Bound<'_, PyAny>) -> Option<Self> {
        // Not by way of f64, which would round twice. 128 bits and a sign hold all that fits.
        let magnitude = value.abs().ok()?.extract::<u128>().ok()? as Self;
        let signed = if value.lt(0).ok()? { -magnitude } else { magnitude };
        signed.is_finite().then_some(signed)
    }

    #[inline]
    fn from_float(value: f64) -> Option<Self> {
        Some(value as Self)
    }
}

impl Scalar for f64 {
    const DTYPE: Dtype = Dtype::F64;

    #[inline]
    fn from_int(value: i64) -> Option<Self> {
        Some(value as Self)
    }

    fn from_big_int(value: &Bound<'_, PyAny>) -> Option<Self> {
        value.extract().ok()
    }

    #[inline]
    fn from_float(value: f64) -> Option<Self> {
        Some(value)
    }
}

/// The lengths of all rows.
fn lengths(rows: &Bound<'_, PyTuple>) -> PyResult<Vec<i64>> {
    let length = |(row, object)| match length(object) {
        Some(length) => Ok(length as i64),
        None => Err(PyTypeError::new_err(format!(
            "row {row} is {}, expected a list, tuple or array",
            type_name(object)
        ))),
    };
    rows.as_slice().iter().enumerate().map(length).collect()
}

/// What the first number of a column tells.
struct First<'py> {
    row: usize,
    inner: Vec<usize>,
    /// `None` if there is no number at all.
    number: Option<Bound<'py, PyAny>>,
}

impl<'py> First<'py> {
    fn of(rows: &Bound<'py, PyTuple>, lengths: &[i64]) -> PyResult<Self> {
        let row = lengths.iter().position(|&length| length > 0).unwrap_or(0);
        let mut inner = Vec::new();
        let mut number = rows.as_slice().get(row).and_then(first_item);
        while let Some(list) = number.take_if(|found| length(found).is_some()) {
            if inner.len() + 1 >= MAX_DIMS {
                return Err(PyValueError::new_err(format!(
                    "row {row}, position 0: nested deeper than {MAX_DIMS} dimensions"
                )));
            }
            inner.extend(length(&list));
            number = first_item(&list);
        }
        Ok(Self { row, inner, number })
    }
}

/// The dtype a column gets from its first number.
fn natural_dtype<'py>(scalar: &Bound<'py, PyAny>, at: At<'_>) -> PyResult<Bound<'py, PyArrayDescr>> {
    static GENERIC: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = scalar.py();
    if scalar.is_instance(GENERIC.import(py, "numpy", "generic")?)? {
        return Ok(scalar.getattr("dtype")?.cast_into()?);
    }
    if scalar.is_instance_of::<PyBool>() {
        return Ok(numpy::dtype::<bool>(py));
    }
    match number(scalar)? {
        Some(Number::Int(_)) => Ok(numpy::dtype::<i64>(py)),
        Some(Number::Float(_)) => Ok(numpy::dtype::<f64>(py)),
        None => Err(at.not_a_number(scalar, 0)),
    }
}

/// Where an element is, for messages.
#[derive(Clone, Copy)]
struct At<'a> {
    row: usize,
    /// Set within nested lists: the position in the row, not in the innermost list.
    position: Option<usize>,
    inner: &'a [usize],
}

impl At<'_> {
    fn wrong_length(self, list: &Bound<'_, PyAny>) -> PyErr {
        match self.position {
            Some(index) => self.ragged(list, index),
            None => PyValueError::new_err(format!("row {} changed while it was read", self.row)),
        }
    }

    fn ragged(self, found: &Bound<'_, PyAny>, index: usize) -> PyErr {
        let (row, position) = (self.row, self.position.unwrap_or(index));
        let wanted = match self.inner {
            [] => "a number".to_owned(),
            [one] => format!("inner shape ({one},)"),
            more => {
                format!("inner shape ({})", more.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))
            }
        };
        let found = match length(found) {
            Some(length) => format!("a {} of {length}", type_name(found)),
            None => shown(found),
        };
        PyValueError::new_err(format!("row {row}, position {position}: {wanted} expected, got {found}"))
    }

    fn not_a_number(self, found: &Bound<'_, PyAny>, index: usize) -> PyErr {
        let (row, position) = (self.row, self.position.unwrap_or(index));
        PyTypeError::new_err(format!("row {row}, position {position}: {} is not a number", shown(found)))
    }

    fn unwanted_float(self, found: &Bound<'_, PyAny>, index: usize, dtype: Dtype) -> PyErr {
        let (row, position, dtype) = (self.row, self.position.unwrap_or(index), dtype.name());
        PyTypeError::new_err(format!(
            "row {row}, position {position}: float {} in {} {dtype} column; pass dtype=np.float32 (or another float dtype) or round it first",
            shown(found),
            if dtype.starts_with('i') { "an" } else { "a" },
        ))
    }

    fn out_of_range(self, found: &Bound<'_, PyAny>, index: usize, dtype: Dtype) -> PyErr {
        let position = self.position.unwrap_or(index);
        Error::ValueRange { row: self.row, position, value: shown(found), dtype: dtype.name() }.into()
    }
}

/// Writes all rows to `values`, whose dtype is `T`'s.
fn fill<T: Scalar>(
    rows: &Bound<'_, PyTuple>,
    lengths: &[i64],
    inner: &[usize],
    values: &Array<'_>,
) -> PyResult<()> {
    let mut rest = array::out_slice::<T>("values", values)?;
    let size = inner.iter().product::<usize>();
    for (row, (object, &length)) in rows.as_slice().iter().zip(lengths).enumerate() {
        let (out, after) = rest.split_at_mut(length as usize * size);
        rest = after;
        let at = At { row, position: None, inner };
        if inner.is_empty() {
            fill_flat(object, out, at)?;
        } else {
            fill_nested(object, length as usize, inner, out, at)?;
        }
    }
    Ok(())
}

/// Writes a list of `length` lists of shape `inner`.
fn fill_nested<T: Scalar>(
    object: &Bound<'_, PyAny>,
    length: usize,
    inner: &[usize],
    mut rest: &mut [MaybeUninit<T>],
    at: At<'_>,
) -> PyResult<()> {
    let Some(lists) = snapshot(object).filter(|lists| lists.len() == length) else {
        return Err(at.wrong_length(object));
    };
    let size = rest.len().checked_div(length).unwrap_or(0);
    for (index, list) in lists.as_slice().iter().enumerate() {
        let (out, after) = rest.split_at_mut(size);
        rest = after;
        let at = At { position: at.position.or(Some(index)), ..at };
        match inner {
            [] | [_] => fill_flat(list, out, at)?,
            [length, inner @ ..] => fill_nested(list, *length, inner, out, at)?,
        }
    }
    Ok(())
}

/// Writes a list of numbers as long as `out`.
fn fill_flat<T: Scalar>(object: &Bound<'_, PyAny>, out: &mut [MaybeUninit<T>], at: At<'_>) -> PyResult<()> {
    if length(object) != Some(out.len()) {
        return Err(at.wrong_length(object));
    }
    let mut done = 0;
    if IN_PLACE && let Ok(list) = object.cast::<PyList>() {
        // SAFETY: the GIL is held, and `read` gives it to nobody.
        done = read(unsafe { items(list) }, out);
    }
    if done == out.len() {
        return Ok(());
    }
    // Between the check above and here no Python code ran, but making the snapshot may collect garbage.
    let Some(objects) = snapshot(object).filter(|objects| objects.len() == out.len()) else {
        return Err(at.wrong_length(object));
    };
    let objects = objects.as_slice();
    loop {
        done += read(&objects[done..], &mut out[done..]);
        let Some(object) = objects.get(done) else { return Ok(()) };
        out[done].write(slow(object, done, at)?);
        done += 1;
    }
}

/// Converts exact ints, floats and bools until something else comes; returns how many were converted.
/// Runs no Python code and allocates nothing.
#[inline]
fn read<T: Scalar>(objects: &[Bound<'_, PyAny>], out: &mut [MaybeUninit<T>]) -> usize {
    objects.iter().take(AHEAD).for_each(array::prefetch);
    for (i, (object, slot)) in objects.iter().zip(&mut *out).enumerate() {
        if let Some(ahead) = objects.get(i + AHEAD) {
            array::prefetch(ahead);
        }
        let object = object.as_ptr();
        // SAFETY: the object is alive, and its type is looked at before its memory is read as that type.
        let value = unsafe {
            let kind = ffi::Py_TYPE(object);
            if kind == &raw mut ffi::PyLong_Type || kind == &raw mut ffi::PyBool_Type {
                int(object).and_then(T::from_int)
            } else if kind == &raw mut ffi::PyFloat_Type {
                T::from_float(ffi::PyFloat_AS_DOUBLE(object))
            } else {
                None
            }
        };
        let Some(value) = value else { return i };
        slot.write(value);
    }
    objects.len().min(out.len())
}

/// The value of an exact int or bool that fits an `i64`.
///
/// # Safety
///
/// `object` is alive, and its type is exactly `int` or `bool`.
#[inline]
unsafe fn int(object: *mut ffi::PyObject) -> Option<i64> {
    // SAFETY: the caller's promise.
    if let Some(value) = unsafe { compact(object) } {
        return Some(value);
    }
    let mut overflow = 0;
    // SAFETY: the caller's promise; for an exact int this sets no exception and runs no Python code.
    let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow) };
    (overflow == 0).then_some(value)
}

/// Memory of an int in CPython 3.11: the sign and number of digits in one field.
#[cfg(not(Py_3_12))]
#[repr(C)]
struct Long {
    base: ffi::PyVarObject,
    digit: u32,
}

/// Memory of an int since CPython 3.12: the lowest two bits of the tag are 1 - sign, the number of digits
/// begins at the fourth.
#[cfg(Py_3_12)]
#[repr(C)]
struct Long {
    base: ffi::PyObject,
    tag: usize,
    digit: u32,
}

/// The value of an int of one digit (30 bits), without a call. `None` for a longer one, and where
/// the memory of an int is not known.
///
/// # Safety
///
/// As for [`int`].
#[inline]
unsafe fn compact(object: *mut ffi::PyObject) -> Option<i64> {
    if !KNOWN_LAYOUT {
        return None;
    }
    let long = object.cast::<Long>();
    // SAFETY: an exact int or bool has this layout, and room for one digit even if it is 0.
    unsafe {
        #[cfg(not(Py_3_12))]
        let (is_compact, sign) = ((-1..=1).contains(&(*long).base.ob_size), (*long).base.ob_size as i64);
        #[cfg(Py_3_12)]
        let (is_compact, sign) = ((*long).tag < 2 << 3, 1 - ((*long).tag & 3) as i64);
        is_compact.then(|| sign * i64::from((*long).digit))
    }
}

/// A number that is not an exact int, float or bool. May run Python code.
enum Number<'py> {
    Int(Bound<'py, PyAny>),
    Float(f64),
}

fn number<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Number<'py>>> {
    static FLOATING: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static BOOL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = object.py();
    if object.is_instance_of::<PyInt>() {
        return Ok(Some(Number::Int(object.clone())));
    }
    if object.is_instance_of::<PyFloat>() {
        return Ok(Some(Number::Float(object.extract()?)));
    }
    if let Some(index) = index(object)? {
        return Ok(Some(Number::Int(index)));
    }
    // NumPy's own types only: `__float__` alone would let arrays of one element pass.
    if object.is_instance(FLOATING.import(py, "numpy", "floating")?)? {
        return Ok(Some(Number::Float(object.extract()?)));
    }
    if object.is_instance(BOOL.import(py, "numpy", "bool_")?)? {
        return Ok(Some(Number::Int(PyInt::new(py, u8::from(object.is_truthy()?)).into_any())));
    }
    Ok(None)
}

/// The result of `__index__`, where there is one.
fn index<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    // SAFETY: `object` is alive.
    if unsafe { ffi::PyIndex_Check(object.as_ptr()) } == 0 {
        return Ok(None);
    }
    // SAFETY: `object` is alive, and the call returns a new reference or sets an exception.
    match unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyNumber_Index(object.as_ptr())) } {
        Ok(index) => Ok(Some(index)),
        Err(error) if error.is_instance_of::<PyTypeError>(py) => Ok(None), // as arrays say it
        Err(error) => Err(error),
    }
}

/// Converts any number, or says why it cannot.
#[cold]
fn slow<T: Scalar>(object: &Bound<'_, PyAny>, index: usize, at: At<'_>) -> PyResult<T> {
    if length(object).is_some() {
        return Err(at.ragged(object, index));
    }
    match number(object)? {
        Some(Number::Int(value)) => value
            .extract()
            .map_or_else(|_| T::from_big_int(&value), T::from_int)
            .ok_or_else(|| at.out_of_range(&value, index, T::DTYPE)),
        Some(Number::Float(value)) => T::from_float(value)
            .ok_or_else(|| at.unwanted_float(PyFloat::new(object.py(), value).as_any(), index, T::DTYPE)),
        None => Err(at.not_a_number(object, index)),
    }
}

/// The objects of a list, where they are.
///
/// # Safety
///
/// Nothing changes the list for `'a`: this thread holds the GIL and runs no Python code.
unsafe fn items<'a, 'py>(list: &'a Bound<'py, PyList>) -> &'a [Bound<'py, PyAny>] {
    #[cfg(not(any(Py_GIL_DISABLED, PyPy, GraalPy, RustPython)))]
    // SAFETY: the list owns as many references as it is long, and `Bound` is a transparent pointer. The pointer is
    // null only for an empty list.
    unsafe {
        let items = (*list.as_ptr().cast::<ffi::PyListObject>()).ob_item;
        if !items.is_null() {
            return slice::from_raw_parts(items.cast(), list.len());
        }
    }
    let _ = list;
    &[]
}

/// A list or tuple as a tuple, which nobody can change.
fn snapshot<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyTuple>> {
    match object.cast::<PyList>() {
        Ok(list) => Some(list.to_tuple()),
        Err(_) => Some(object.cast::<PyTuple>().ok()?.clone()),
    }
}

/// The length of a list or tuple.
#[inline]
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
