//! Rows that are arrays: their lengths, and their concatenation.

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::array::rows::Rows;
use super::array::{self, Array, DETACH_BYTES, RowType};
use super::layout::offsets_from_lengths;
use crate::Error;
use crate::hash;
use crate::layout::same_count;
use crate::memory;
use crate::offsets as row_offsets;
use crate::place::{self as kernel, Part};

/// Rows of this many bytes on average are copied without the GIL: then copying, not looking at objects,
/// is what takes the time.
const LONG: usize = 4096;

/// Lengths of rows that are C-contiguous arrays of one dtype and inner shape; `None` if they are not.
#[pyfunction]
#[pyo3(signature = (rows, /))]
pub fn array_lengths<'py>(py: Python<'py>, rows: &Bound<'py, PyAny>) -> PyResult<Option<Array<'py>>> {
    let Some((_, offsets)) = row_offsets(py, &Rows::of(rows)?)? else { return Ok(None) };
    let offsets = array::int64s("offsets", &offsets)?;
    let out = array::fresh::<i64>(py, offsets.len() - 1)?;
    for (slot, pair) in array::out_slice::<i64>("lengths", &out, [])?.iter_mut().zip(offsets.windows(2)) {
        slot.write(pair[1] - pair[0]);
    }
    Ok(Some(out))
}

/// Joins such rows: `(values, offsets)`, or `None` if they are not.
#[pyfunction]
#[pyo3(signature = (rows, /))]
pub fn concat_arrays<'py>(
    py: Python<'py>,
    rows: &Bound<'py, PyAny>,
) -> PyResult<Option<(Array<'py>, Array<'py>)>> {
    let rows = &Rows::of(rows)?;
    let Some((row_type, offsets)) = row_offsets(py, rows)? else { return Ok(None) };
    let ends = array::int64s("offsets", &offsets)?;
    let (count, total) = (ends.len() - 1, ends[ends.len() - 1] as usize);
    let shape = PyTuple::new(py, [&[total], &row_type.inner[..]].concat())?;
    let values = array::empty(py, shape, &row_type.dtype)?;
    let out = array::out_bytes("values", &values, [])?;
    let same = if out.len() / count < LONG {
        array::rows::join(rows, &row_type, ends, out)
    } else {
        let held = rows.held()?;
        let mut slices = memory::with_room("rows", held.len())?;
        let found = held.iter().map_while(|row| Some(row_type.row(row.cast().ok()?)?.1));
        slices.extend(found);
        slices.len() == held.len() && py.detach(|| kernel::join(&slices, out)).is_ok()
    };
    if !same {
        return Err(PyValueError::new_err("rows changed while they were read"));
    }
    Ok(Some((values, offsets)))
}

/// Joins columns: `(values, offsets)`, or `None` unless values are C-contiguous and alike. Values are
/// the first elements of `out`, if it is given.
#[pyfunction]
#[pyo3(signature = (values, offsets, /, *, out))]
#[allow(clippy::needless_pass_by_value)] // what is extracted is owned
pub fn concat_columns<'py>(
    py: Python<'py>,
    values: Vec<Array<'py>>,
    offsets: Vec<Array<'py>>,
    out: Option<Array<'py>>,
) -> PyResult<Option<(Array<'py>, Array<'py>)>> {
    let Some(row_type) = values.first().and_then(RowType::of) else { return Ok(None) };
    let rows = offsets.iter().map(|found| array::int64s("offsets", found));
    let rows = rows.collect::<PyResult<Vec<_>>>()?;
    let mut columns = Vec::with_capacity(values.len());
    for (values, rows) in values.iter().zip(&rows) {
        let Some((length, bytes)) = row_type.row(values) else { return Ok(None) };
        row_offsets::check(rows, length)?;
        let [begin, end] =
            [rows[0], rows[rows.len() - 1]].map(|at| (at as usize).wrapping_mul(row_type.item));
        // Offsets are read again after their check, and another thread may have written to them.
        columns.push(bytes.get(begin..end).ok_or(Error::Changed { name: "offsets" })?);
    }
    let ends = array::fresh::<i64>(py, rows.iter().map(|rows| rows.len() - 1).sum::<usize>() + 1)?;
    row_offsets::join(&rows, array::out_slice("offsets", &ends, [])?)?;
    let total = array::int64s("offsets", &ends)?.last().map_or(0, |&end| end as usize);
    let shape = PyTuple::new(py, [&[total], &row_type.inner[..]].concat())?;
    let out = out.map_or_else(|| array::empty(py, shape, &row_type.dtype), Ok)?;
    let written = array::out_bytes("out", &out, values.iter().chain(&offsets))?;
    let Some(written) = written.get_mut(..total.saturating_mul(row_type.item)) else {
        let got = out.shape().first().map_or(0, |&length| length);
        return Err(PyValueError::new_err(format!("out must have room for {total} elements, got {got}")));
    };
    let bytes = written.len();
    let mut run = || kernel::join(&columns, written);
    if bytes < DETACH_BYTES { run() } else { py.detach(run) }?;
    Ok(Some((out, ends)))
}

/// Lays rows of one C-contiguous array end to end: `(values, offsets)`. Without `copy` the values are the
/// array itself where they are that already, from its beginning on. Rows of no elements begin anywhere.
#[pyfunction]
#[pyo3(signature = (values, begins, lengths, /, *, copy))]
pub fn gather_rows<'py>(
    py: Python<'py>,
    values: &Array<'py>,
    begins: &Array<'py>,
    lengths: &Array<'py>,
    copy: bool,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let ends = offsets_from_lengths(py, lengths, 1)?;
    let (starts, counts) = (array::int64s("begins", begins)?, array::int64s("lengths", lengths)?);
    same_count("begins", starts.len(), counts.len())?;
    let offsets = array::int64s("offsets", &ends)?;
    let total = offsets[offsets.len() - 1];
    let rows = values.shape().first().map_or(0, |&length| length);
    let in_place = || starts.iter().zip(offsets).zip(counts).all(|((a, b), &n)| a == b || n == 0);
    if !copy && total as usize <= rows && in_place() {
        return Ok((values.clone(), ends));
    }
    let inner = values.shape().get(1..).unwrap_or_default();
    let shape = PyTuple::new(py, [&[total as usize], inner].concat())?;
    let out = array::empty(py, shape, values.dtype())?;
    let bytes = array::bytes("values", values)?;
    let item = inner.iter().product::<usize>() * values.dtype().itemsize();
    let mut sources = memory::with_room("rows", starts.len())?;
    // A row that was dropped is empty, and has no place.
    let found = starts.iter().zip(counts).map(|(&at, &n)| if n == 0 { 0 } else { at });
    let found = memory::collected("rows", found)?;
    Part { bytes, item, begins: &found, lengths: counts }.append_to(&mut sources)?;
    let written = array::out_bytes("out", &out, [values, begins, lengths])?;
    let mut run = || kernel::join(&sources, written);
    if bytes.len() < DETACH_BYTES { run() } else { py.detach(run) }?;
    Ok((out, ends))
}

/// What rows share, and where each ends; `None` unless they are alike, and there are some.
fn row_offsets<'py>(py: Python<'py>, rows: &Rows<'py>) -> PyResult<Option<(RowType<'py>, Array<'py>)>> {
    let Some((first, count)) = rows.first() else { return Ok(None) };
    let Ok(first) = first.cast_into::<PyUntypedArray>() else { return Ok(None) };
    let Some(row_type) = RowType::of(&first) else { return Ok(None) };
    let offsets = array::fresh::<i64>(py, count + 1)?;
    let total = array::rows::offsets(rows, &row_type, array::out_slice("offsets", &offsets, [])?);
    Ok(total.map(|_| (row_type, offsets)))
}

/// Hashes rows of one C-contiguous array into `out`.
#[pyfunction]
#[pyo3(signature = (values, offsets, /, *, seed, out))]
pub fn hash_rows(
    py: Python<'_>,
    values: &Array<'_>,
    offsets: &Array<'_>,
    seed: u64,
    out: &Array<'_>,
) -> PyResult<()> {
    let rows = array::int64s("offsets", offsets)?;
    row_offsets::check(rows, values.shape().first().map_or(0, |&length| length))?;
    let inner: usize = values.shape().get(1..).unwrap_or_default().iter().product();
    let item = inner * values.dtype().itemsize();
    let bytes = array::bytes("values", values)?;
    let written = array::out_slice::<u64>("out", out, [values, offsets])?;
    let mut run = || hash::rows(bytes, item, rows, seed, written);
    Ok(if bytes.len() < DETACH_BYTES { run() } else { py.detach(run) }?)
}
