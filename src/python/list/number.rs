//! Python numbers: read from their memory where that is known, asked for where it is not.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
#[cfg(not(Py_LIMITED_API))]
use pyo3::ffi::PyFloat_AS_DOUBLE as float_value;
#[cfg(Py_LIMITED_API)]
use pyo3::ffi::PyFloat_AsDouble as float_value;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyFloat, PyInt, PyList, PyTuple, PyType};

use super::items::{glance, in_place};
use crate::cast::Dtype;
use crate::python::array;

/// How far ahead to ask for objects: enough to hide a cache miss where the heap is shuffled.
const AHEAD: usize = 16;

/// An element that Python numbers are converted to. `None` says that the value does not fit.
pub trait Scalar: numpy::Element + Copy {
    const DTYPE: Dtype;

    fn from_int(value: i64) -> Option<Self>;

    /// From an int that is not an `i64`.
    fn from_big_int(_: &Bound<'_, PyAny>) -> Option<Self> {
        None
    }

    /// `None` also if the dtype holds no floats.
    fn from_float(_: f64) -> Option<Self> {
        None
    }
}

macro_rules! integers {
    ($($t:ty => $dtype:ident),*) => {$(
        impl Scalar for $t {
            const DTYPE: Dtype = Dtype::$dtype;
            fn from_int(value: i64) -> Option<Self> { Self::try_from(value).ok() }
            fn from_big_int(value: &Bound<'_, PyAny>) -> Option<Self> { value.extract().ok() }
        }
    )*};
}
integers!(i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64);

impl Scalar for bool {
    const DTYPE: Dtype = Dtype::Bool;

    fn from_int(value: i64) -> Option<Self> {
        (value & 1 == value).then_some(value == 1)
    }
}

impl Scalar for f32 {
    const DTYPE: Dtype = Dtype::F32;

    fn from_int(value: i64) -> Option<Self> {
        Some(value as Self)
    }

    fn from_big_int(value: &Bound<'_, PyAny>) -> Option<Self> {
        // Not by way of f64, which would round twice. 128 bits and a sign hold all that fits.
        let magnitude = value.abs().ok()?.extract::<u128>().ok()? as Self;
        let signed = if value.lt(0).ok()? { -magnitude } else { magnitude };
        signed.is_finite().then_some(signed)
    }

    fn from_float(value: f64) -> Option<Self> {
        let narrow = value as Self;
        (narrow.is_infinite() == value.is_infinite()).then_some(narrow)
    }
}

impl Scalar for f64 {
    const DTYPE: Dtype = Dtype::F64;

    fn from_int(value: i64) -> Option<Self> {
        Some(value as Self)
    }

    fn from_big_int(value: &Bound<'_, PyAny>) -> Option<Self> {
        value.extract().ok()
    }

    fn from_float(value: f64) -> Option<Self> {
        Some(value)
    }
}

/// As [`read`], from a list in place, if it is as long as `out`; nothing where that is not possible.
pub fn read_list<T: Scalar>(list: &Bound<'_, PyList>, out: &mut [MaybeUninit<T>]) -> usize {
    // SAFETY: `read` runs no Python code.
    let items = unsafe { in_place(list) };
    if items.len() == out.len() { read(items, out) } else { 0 }
}

/// Converts exact ints, floats and bools until something else comes; returns how many were converted.
/// Runs no Python code and allocates nothing.
pub fn read<T: Scalar>(objects: &[Bound<'_, PyAny>], out: &mut [MaybeUninit<T>]) -> usize {
    objects.iter().take(AHEAD).for_each(|object| array::prefetch(object.as_ptr().cast(), 1));
    for (i, (object, slot)) in objects.iter().zip(&mut *out).enumerate() {
        if let Some(ahead) = objects.get(i + AHEAD) {
            array::prefetch(ahead.as_ptr().cast(), 1);
        }
        let Some(value) = exact(object) else { return i };
        slot.write(value);
    }
    objects.len().min(out.len())
}

/// As [`read`], of the entries `at` of the tuples or lists in a list, all of them in place.
pub fn read_entries<T: Scalar>(list: &Bound<'_, PyList>, at: isize, out: &mut [MaybeUninit<T>]) -> usize {
    // SAFETY: nothing below runs Python code.
    let items = unsafe { in_place(list) };
    if items.len() != out.len() {
        return 0;
    }
    for (i, (item, slot)) in items.iter().zip(&mut *out).enumerate() {
        if let Some(ahead) = items.get(i + AHEAD) {
            array::prefetch(ahead.as_ptr().cast(), 1);
        }
        // SAFETY: as above.
        let Some(value) = unsafe { entry(item, at) }.and_then(exact) else { return i };
        slot.write(value);
    }
    items.len()
}

/// An entry of a tuple or list, where it is.
///
/// # Safety
///
/// No Python code runs while it is in use.
#[inline]
unsafe fn entry<'a, 'py>(item: &'a Bound<'py, PyAny>, at: isize) -> Option<&'a Bound<'py, PyAny>> {
    let entries = match item.cast::<PyTuple>() {
        Ok(tuple) => glance(tuple),
        // SAFETY: the caller's promise.
        Err(_) => unsafe { in_place(item.cast::<PyList>().ok()?) },
    };
    entries.get(if at < 0 { entries.len().checked_add_signed(at)? } else { at as usize })
}

/// The value of an object that is exactly an int, float or bool, if it fits. Runs no Python code.
#[inline]
pub fn exact<T: Scalar>(object: &Bound<'_, PyAny>) -> Option<T> {
    let object = object.as_ptr();
    // SAFETY: the object is alive, and its type is looked at before its memory is read as that type. Of an exact
    // float, neither way to its value sets an exception or runs Python code.
    unsafe {
        let kind = ffi::Py_TYPE(object);
        if kind == &raw mut ffi::PyLong_Type || kind == &raw mut ffi::PyBool_Type {
            int(object).and_then(T::from_int)
        } else if kind == &raw mut ffi::PyFloat_Type {
            T::from_float(float_value(object))
        } else {
            None
        }
    }
}

/// The value of an int that fits an `i64`.
///
/// # Safety
///
/// `object` is alive, and its type is exactly `int` or `bool`.
#[inline]
pub unsafe fn int(object: *mut ffi::PyObject) -> Option<i64> {
    // SAFETY: the caller's promise.
    if let Some(value) = unsafe { compact(object) } {
        return Some(value);
    }
    let mut overflow = 0;
    // SAFETY: the caller's promise; for an exact int this sets no exception and runs no Python code.
    let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow) };
    (overflow == 0).then_some(value)
}

/// Memory of an int in CPython 3.11: sign and number of digits in one field.
#[cfg(not(Py_3_12))]
#[repr(C)]
struct Long {
    base: ffi::PyVarObject,
    digit: u32,
}

/// Memory of an int since CPython 3.12: the lowest two bits of the tag are 1 - sign; the number of
/// digits begins at the fourth.
#[cfg(Py_3_12)]
#[repr(C)]
struct Long {
    base: ffi::PyObject,
    tag: usize,
    digit: u32,
}

/// Whether the memory of an int is as [`Long`] says. To be looked at with each new CPython.
const KNOWN_LAYOUT: bool =
    cfg!(all(target_pointer_width = "64", not(any(Py_3_16, Py_LIMITED_API, PyPy, GraalPy, RustPython))));

/// The value of an int of one digit (30 bits), without a call.
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
        let (short, sign) = ((-1..=1).contains(&(*long).base.ob_size), (*long).base.ob_size as i64);
        #[cfg(Py_3_12)]
        let (short, sign) = ((*long).tag < 2 << 3, 1 - ((*long).tag & 3) as i64);
        short.then(|| sign * i64::from((*long).digit))
    }
}

/// A number of any type.
pub enum Number<'py> {
    Int(Bound<'py, PyAny>),
    Float(f64),
    /// A float that no `f64` holds.
    Beyond,
}

impl<'py> Number<'py> {
    /// `None` if the object is no number. May run Python code.
    pub fn of(object: &Bound<'py, PyAny>) -> PyResult<Option<Self>> {
        static FLOATING: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        static BOOL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let py = object.py();
        if object.is_instance_of::<PyInt>() {
            return Ok(Some(Self::Int(object.clone())));
        }
        if object.is_instance_of::<PyFloat>() {
            return Ok(Some(Self::Float(object.extract()?)));
        }
        // Before `__index__`, which that of NumPy 2.0 has, with a warning.
        if object.get_type().is(BOOL.import(py, "numpy", "bool_")?) {
            return Ok(Some(Self::Int(PyInt::new(py, u8::from(object.is_truthy()?)).into_any())));
        }
        if let Some(index) = index(object)? {
            return Ok(Some(Self::Int(index)));
        }
        // NumPy's own types only: `__float__` alone would let arrays of one element pass.
        if object.is_instance(FLOATING.import(py, "numpy", "floating")?)? {
            let value: f64 = object.extract()?;
            // Long doubles go beyond: such a one becomes infinite, but is not.
            let beyond = value.is_infinite() && !object.eq(value)?;
            return Ok(Some(if beyond { Self::Beyond } else { Self::Float(value) }));
        }
        Ok(None)
    }
}

/// The result of `__index__`, where there is one.
fn index<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    // SAFETY: the object is alive.
    if unsafe { ffi::PyIndex_Check(object.as_ptr()) } == 0 {
        return Ok(None);
    }
    // SAFETY: the object is alive, and the call returns a new reference or sets an exception.
    match unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyNumber_Index(object.as_ptr())) } {
        Ok(index) => Ok(Some(index)),
        Err(error) if error.is_instance_of::<PyTypeError>(py) => Ok(None), // arrays say it so
        Err(error) => Err(error),
    }
}
