//! The items of lists and tuples as slices: in place where the interpreter's structs are known, asked for
//! one by one where there is only the stable API (`abi3`). That is slower, and all that differs.
#![allow(unsafe_code)]

use std::ops::Deref;

use pyo3::Borrowed;
use pyo3::exceptions::PyTypeError;
#[cfg(not(any(Py_GIL_DISABLED, Py_LIMITED_API)))]
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

/// Whether a list can be read where it is: its struct is known, and a GIL keeps other threads away.
pub const IN_PLACE: bool = cfg!(not(any(Py_GIL_DISABLED, Py_LIMITED_API, PyPy, GraalPy, RustPython)));

/// The items of a tuple, or of a list as it was, which nobody can change.
#[derive(Clone)]
pub struct Held<'py>(Items<'py>);

#[cfg(not(Py_LIMITED_API))]
type Items<'py> = Bound<'py, PyTuple>;
#[cfg(Py_LIMITED_API)]
type Items<'py> = Vec<Bound<'py, PyAny>>;

impl<'py> Held<'py> {
    /// `None` if the object is neither.
    #[cfg(not(Py_LIMITED_API))]
    pub fn of(object: &Bound<'py, PyAny>) -> PyResult<Option<Self>> {
        match object.cast::<PyList>() {
            // Not `PyList::to_tuple`, which panics without memory.
            Ok(list) => list.as_sequence().to_tuple().map(Self).map(Some),
            Err(_) => Ok(object.cast::<PyTuple>().ok().cloned().map(Self)),
        }
    }

    /// `None` if the object is neither. No Python code runs in between, so that a list is read as it was.
    #[cfg(Py_LIMITED_API)]
    pub fn of(object: &Bound<'py, PyAny>) -> PyResult<Option<Self>> {
        if let Ok(list) = object.cast::<PyList>() {
            return collected((0..list.len()).map(|i| list.get_item(i))).map(Some);
        }
        let Ok(tuple) = object.cast::<PyTuple>() else { return Ok(None) };
        collected(tuple.iter().map(Ok)).map(Some)
    }
}

#[cfg(Py_LIMITED_API)]
fn collected<'py>(items: impl ExactSizeIterator<Item = PyResult<Bound<'py, PyAny>>>) -> PyResult<Held<'py>> {
    let mut found = crate::memory::with_room("rows", items.len())?;
    for item in items {
        found.push(item?);
    }
    Ok(Held(found))
}

impl<'py> Held<'py> {
    /// An error if the object is neither.
    pub fn required(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        Self::of(object)?.ok_or_else(|| {
            let got = object.get_type();
            PyTypeError::new_err(format!("a list or tuple expected, got {got}"))
        })
    }
}

impl<'py> Deref for Held<'py> {
    type Target = [Bound<'py, PyAny>];

    fn deref(&self) -> &Self::Target {
        #[cfg(not(Py_LIMITED_API))]
        return self.0.as_slice();
        #[cfg(Py_LIMITED_API)]
        return &self.0;
    }
}

/// The items of a tuple, for a glance; empty where asking for them would cost more than it tells.
#[inline]
pub fn glance<'a, 'py>(tuple: &'a Bound<'py, PyTuple>) -> &'a [Bound<'py, PyAny>] {
    #[cfg(not(Py_LIMITED_API))]
    return tuple.as_slice();
    #[cfg(Py_LIMITED_API)]
    {
        let _ = tuple;
        &[]
    }
}

/// The items of a tuple of two.
#[inline]
pub fn pair<'a, 'py>(tuple: &'a Bound<'py, PyTuple>) -> Option<[Borrowed<'a, 'py, PyAny>; 2]> {
    #[cfg(not(Py_LIMITED_API))]
    return match tuple.as_slice() {
        [one, two] => Some([one.as_borrowed(), two.as_borrowed()]),
        _ => None,
    };
    #[cfg(Py_LIMITED_API)]
    match tuple.len() {
        2 => Some([tuple.get_borrowed_item(0).ok()?, tuple.get_borrowed_item(1).ok()?]),
        _ => None,
    }
}

/// The items of a list where they are; empty unless [`IN_PLACE`].
///
/// # Safety
///
/// No Python code runs while they are in use.
pub unsafe fn in_place<'a, 'py>(list: &'a Bound<'py, PyList>) -> &'a [Bound<'py, PyAny>] {
    #[cfg(not(any(Py_GIL_DISABLED, Py_LIMITED_API)))]
    if IN_PLACE && !list.is_empty() {
        // SAFETY: a list that is not empty has `len` pointers to live objects at `ob_item`, and `Bound` is
        // such a pointer. The list keeps them alive; only Python code could change it, and the GIL is held.
        return unsafe {
            let items = (*list.as_ptr().cast::<ffi::PyListObject>()).ob_item;
            std::slice::from_raw_parts(items.cast(), list.len())
        };
    }
    let _ = list;
    &[]
}
