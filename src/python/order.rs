//! Binding of `order`.

use std::mem::MaybeUninit;

use pyo3::prelude::*;

use super::array::{self, Array};
use crate::order::Permutation;

/// Where each of `count` numbers goes in a keyed permutation, or where it comes from.
#[pyfunction]
#[pyo3(signature = (numbers, /, *, count, seed, epoch, inverse))]
pub fn permute<'py>(
    py: Python<'py>,
    numbers: &Array<'py>,
    count: u64,
    seed: u64,
    epoch: u64,
    inverse: bool,
) -> PyResult<Array<'py>> {
    let numbers = array::int64s("numbers", numbers)?;
    let out = array::fresh::<i64>(py, numbers.len())?;
    let images: &mut [MaybeUninit<i64>] = array::out_slice("out", &out, [])?;
    py.detach(|| Permutation::new(count, seed, epoch).apply(numbers, inverse, images))?;
    Ok(out)
}
