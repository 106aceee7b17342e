//! Bindings of `gae`.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use numpy::{Element, PyArrayDescrMethods, PyUntypedArrayMethods};

use super::array::{self, Array, DETACH_BYTES};
use crate::gae::{self as kernel, Decay, Real, Tokens};

/// What a scan from the end of each row gives, of float32 or float64: `(advantages, returns)`; the second is
/// `None` unless `both`.
#[pyfunction]
#[pyo3(signature = (rewards, values, mask, offsets, /, *, gamma, lam, both))]
#[allow(clippy::too_many_arguments)]
pub fn gae<'py>(
    py: Python<'py>,
    rewards: &Array<'py>,
    values: Option<&Array<'py>>,
    mask: Option<&Array<'py>>,
    offsets: &Array<'py>,
    gamma: f64,
    lam: f64,
    both: bool,
) -> PyResult<(Array<'py>, Option<Array<'py>>)> {
    let decay = Decay { gamma, lambda: lam };
    if rewards.dtype().is_equiv_to(&numpy::dtype::<f32>(py)) {
        of::<f32>(py, rewards, values, mask, offsets, decay, both)
    } else if rewards.dtype().is_equiv_to(&numpy::dtype::<f64>(py)) {
        of::<f64>(py, rewards, values, mask, offsets, decay, both)
    } else {
        Err(PyTypeError::new_err(format!("rewards must be float32 or float64, got {}", rewards.dtype())))
    }
}

#[allow(clippy::too_many_arguments)]
fn of<'py, T: Element + Real + Sync>(
    py: Python<'py>,
    rewards: &Array<'py>,
    values: Option<&Array<'py>>,
    mask: Option<&Array<'py>>,
    offsets: &Array<'py>,
    decay: Decay,
    both: bool,
) -> PyResult<(Array<'py>, Option<Array<'py>>)> {
    let tokens = Tokens {
        rewards: array::elements::<T>("rewards", rewards)?,
        values: values.map(|values| array::elements::<T>("values", values)).transpose()?,
        mask: mask.map(|mask| one_byte(mask)).transpose()?,
    };
    let offsets = array::int64s("offsets", offsets)?;
    let count = tokens.rewards.len();
    let first = array::fresh::<T>(py, count)?;
    let second = if both { Some(array::fresh::<T>(py, count)?) } else { None };
    let advantages = array::out_slice::<T>("advantages", &first, [])?;
    let returns = match &second {
        Some(second) => Some(array::out_slice::<T>("returns", second, [])?),
        None => None,
    };
    let run = || kernel::gae(tokens, offsets, decay, advantages, returns);
    if size_of_val(tokens.rewards) < DETACH_BYTES { run() } else { py.detach(run) }?;
    Ok((first, second))
}

/// The bytes of a mask of bools or one-byte integers.
fn one_byte<'a>(mask: &'a Array<'_>) -> PyResult<&'a [u8]> {
    if mask.dtype().itemsize() != 1 {
        return Err(PyTypeError::new_err(format!("mask must have one byte per token, got {}", mask.dtype())));
    }
    array::bytes("mask", mask)
}
