//! Binding of `binpack`.

use pyo3::prelude::*;

use super::array::{self, Array};
use crate::binpack::{self as kernel, Options};

/// The bin of each row; -1 for a dropped one.
#[pyfunction]
#[pyo3(signature = (lengths, /, *, capacity, algorithm, align, max_segments, oversize))]
pub fn plan_bins<'py>(
    py: Python<'py>,
    lengths: &Array<'py>,
    capacity: i64,
    algorithm: &str,
    align: i64,
    max_segments: Option<usize>,
    oversize: &str,
) -> PyResult<Array<'py>> {
    let lengths = array::int64s("lengths", lengths)?;
    let options =
        Options { capacity, align, max_segments, algorithm: algorithm.parse()?, oversize: oversize.parse()? };
    let out = array::fresh::<i64>(py, lengths.len())?;
    let bins = array::out_slice("bins", &out, [])?;
    py.detach(|| kernel::plan_bins(lengths, &options, bins))?;
    Ok(out)
}
