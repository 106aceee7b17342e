//! What stands for `look.rs` where an interpreter's structs are not known: nothing is found so.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use super::number::Scalar;

pub struct Attribute<'py>(PhantomData<Bound<'py, PyAny>>);

impl Attribute<'_> {
    #[allow(clippy::unnecessary_wraps)]
    pub fn of(_: &Bound<'_, PyAny>, _: &Bound<'_, PyString>) -> PyResult<Option<Self>> {
        Ok(None)
    }
}

#[allow(dead_code)]
pub struct Path<'a, 'py> {
    pub keys: Option<&'a Bound<'py, PyList>>,
    pub name: Option<&'a Bound<'py, PyString>>,
    pub attribute: Option<&'a Attribute<'py>>,
}

pub fn read<T: Scalar>(_: &Bound<'_, PyList>, _: &Path<'_, '_>, _: &mut [MaybeUninit<T>]) -> usize {
    0
}
