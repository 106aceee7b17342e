//! Bindings of `binpack`, `pack`.

use std::mem::MaybeUninit;

use pyo3::prelude::*;

use super::array::{self, Array};
use crate::binpack::{self as kernel, Options};
use crate::{memory, pack};

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

/// Starts of rows in bins, elements placed of each (`lengths` itself, if all), rows by ascending start
/// (`None` where they already are), and how many bins of what width there are.
type Packed<'py> = (Array<'py>, Array<'py>, Option<Array<'py>>, usize, i64);

/// Lays rows in bins: all of a packed layout.
#[pyfunction]
#[pyo3(signature = (lengths, /, *, capacity, algorithm, align, max_segments, bins_multiple_of, oversize, shuffle))]
#[allow(clippy::too_many_arguments)] // keywords of one Python call
pub fn pack_rows<'py>(
    py: Python<'py>,
    lengths: &Array<'py>,
    capacity: i64,
    algorithm: &str,
    align: i64,
    max_segments: Option<usize>,
    bins_multiple_of: usize,
    oversize: &str,
    shuffle: Option<u64>,
) -> PyResult<Packed<'py>> {
    let rows = array::int64s("lengths", lengths)?;
    let options =
        Options { capacity, align, max_segments, algorithm: algorithm.parse()?, oversize: oversize.parse()? };
    let [starts, order] = [array::fresh::<i64>(py, rows.len())?, array::fresh::<i64>(py, rows.len())?];
    let begins = array::out_slice("starts", &starts, [])?;
    let sorted = array::out_slice("order", &order, [])?;
    let bins = py.detach(|| {
        // Planning needs memory with anything in it, and NumPy's comes in huge pages, a vector's does not.
        let [starts, order] = [begins, sorted].map(|fresh| array::written(fresh, rows));
        pack::pack_rows(rows, &options, bins_multiple_of, shuffle, starts, order)
    })?;
    let placed = if bins.cut {
        let placed = array::fresh::<i64>(py, rows.len())?;
        pack::placed(rows, &options, array::out_slice("placed", &placed, [])?);
        placed
    } else {
        lengths.clone()
    };
    Ok((starts, placed, (!bins.in_order).then_some(order), bins.count, bins.width))
}

/// Row, begin within it and length of each piece of at most `capacity` elements; `None` where pieces are rows.
#[pyfunction]
#[pyo3(signature = (lengths, /, *, capacity))]
pub fn split_rows<'py>(
    py: Python<'py>,
    lengths: &Array<'py>,
    capacity: i64,
) -> PyResult<Option<(Array<'py>, Array<'py>, Array<'py>)>> {
    let lengths = array::int64s("lengths", lengths)?;
    let count = pack::count_pieces(lengths, capacity)?;
    if count == lengths.len() {
        return Ok(None);
    }
    memory::available::<i64>("pieces", count)?; // NumPy has another error where there is none
    let found =
        (array::fresh::<i64>(py, count)?, array::fresh::<i64>(py, count)?, array::fresh::<i64>(py, count)?);
    let (rows, begins, pieces) = &found;
    let (rows, begins) = (array::out_slice("rows", rows, [])?, array::out_slice("begins", begins, [])?);
    let pieces: &mut [MaybeUninit<i64>] = array::out_slice("pieces", pieces, [])?;
    py.detach(|| pack::split(lengths, capacity, rows, begins, pieces))?;
    Ok(Some(found))
}
