//! Bindings of `trie`, `forest`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::array::{self, Array};
use super::list::items::Held;
use super::place::PyParts;
use super::steps::one_item;
use crate::forest::{self as kernel, Forest, Options, Placed};
use crate::trie;

type Any<'py> = Bound<'py, PyAny>;

/// Half of a column as Python passes it: `(parts, row_lengths)`.
struct Half<'py> {
    parts: Held<'py>,
    lengths: Array<'py>,
}

/// A column as Python passes it: the numbers of an element, and one half or two.
struct PyColumn<'py> {
    numbers: usize,
    halves: Vec<Half<'py>>,
}

impl<'py> PyColumn<'py> {
    fn new(column: &Any<'py>) -> PyResult<Self> {
        let (numbers, halves): (usize, Any<'py>) = column.extract()?;
        let halves = Held::required(&halves)?;
        if !(1..=2).contains(&halves.len()) {
            return Err(PyValueError::new_err(format!("a column has one half or two, got {}", halves.len())));
        }
        let halves = halves.iter().map(|half| {
            let (parts, lengths): (Any<'py>, Any<'py>) = half.extract()?;
            Ok(Half { parts: Held::required(&parts)?, lengths: lengths.cast_into()? })
        });
        Ok(Self { numbers, halves: halves.collect::<PyResult<_>>()? })
    }

    /// The rows of each half, and the bytes of an element.
    fn rows(&self) -> PyResult<(Vec<Vec<&[u8]>>, usize)> {
        let parts = self.halves.iter().map(|half| PyParts::of(&half.parts)).collect::<PyResult<Vec<_>>>()?;
        let number = one_item(parts.iter().filter_map(|parts| parts.dtype.as_ref()))?;
        let item = number.saturating_mul(self.numbers);
        let rows = parts.iter().zip(&self.halves);
        let rows =
            rows.map(|(parts, half)| Ok(parts.rows(array::int64s("row_lengths", &half.lengths)?, item)?));
        Ok((rows.collect::<PyResult<_>>()?, item))
    }
}

/// What rows share: the parents, begins, ends and source rows of nodes, and the node that each row ends with.
#[pyfunction]
#[pyo3(signature = (columns, /, *, groups, min_shared))]
pub fn build_forest<'py>(
    py: Python<'py>,
    columns: &Any<'py>,
    groups: Option<&Array<'py>>,
    min_shared: usize,
) -> PyResult<[Array<'py>; 5]> {
    let columns = Held::required(columns)?.iter().map(PyColumn::new).collect::<PyResult<Vec<_>>>()?;
    let rows = columns.iter().map(PyColumn::rows).collect::<PyResult<Vec<_>>>()?;
    let columns: Vec<_> = rows
        .iter()
        .map(|(halves, item)| trie::Column {
            item: *item,
            first: &halves[0],
            second: halves.get(1).map_or(&[], Vec::as_slice),
        })
        .collect();
    let groups = groups.map(|groups| array::int64s("groups", groups)).transpose()?;
    let nodes = py.detach(|| trie::find(&columns, groups, min_shared, array::prefetch))?;
    let fresh = |length| array::fresh::<i64>(py, length);
    let numbers = || fresh(nodes.count());
    let arrays = [numbers()?, numbers()?, numbers()?, numbers()?, fresh(nodes.rows())?];
    let out = |at: usize| array::out_slice("out", &arrays[at], []);
    let out =
        trie::Trie { parents: out(0)?, begins: out(1)?, ends: out(2)?, source_rows: out(3)?, leaf: out(4)? };
    py.detach(|| nodes.write(out))?;
    Ok(arrays)
}

pub(super) fn arrays_of<'py, const N: usize>(
    py: Python<'py>,
    columns: [&Vec<i64>; N],
) -> PyResult<[Array<'py>; N]> {
    let made = columns.iter().map(|column| array::of_slice(py, column)).collect::<PyResult<Vec<_>>>()?;
    made.try_into().map_err(|_| PyValueError::new_err("columns"))
}

fn forest<'a>(
    parents: &'a Array<'_>,
    begins: &'a Array<'_>,
    ends: &'a Array<'_>,
    leaf: &'a Array<'_>,
) -> PyResult<Forest<'a>> {
    Ok(Forest {
        parents: array::int64s("parents", parents)?,
        begins: array::int64s("begins", begins)?,
        ends: array::int64s("ends", ends)?,
        leaf: array::int64s("leaf", leaf)?,
    })
}

/// Checks that nodes are a forest, depth first.
#[pyfunction]
#[pyo3(signature = (parents, begins, ends, leaf, /))]
pub fn check_forest(
    parents: &Array<'_>,
    begins: &Array<'_>,
    ends: &Array<'_>,
    leaf: &Array<'_>,
) -> PyResult<()> {
    Ok(forest(parents, begins, ends, leaf)?.check()?)
}

/// The least bins, and the least tokens in bins, of a capacity.
#[pyfunction]
#[pyo3(signature = (parents, begins, ends, leaf, /, *, capacity))]
pub fn forest_bound<'py>(
    py: Python<'py>,
    parents: &Array<'py>,
    begins: &Array<'py>,
    ends: &Array<'py>,
    leaf: &Array<'py>,
    capacity: i64,
) -> PyResult<(i64, i64)> {
    let forest = forest(parents, begins, ends, leaf)?;
    Ok(py.detach(|| kernel::lower_bound(&forest, capacity))?)
}

/// Lays a forest in bins: parents, starts, lengths, source rows and begins of placed nodes, which of these each
/// row ends with; how many bins there are, of what width.
#[pyfunction]
#[pyo3(signature = (parents, begins, ends, leaf, /, *, capacity, align, max_segments, bins_multiple_of, oversize))]
#[allow(clippy::too_many_arguments)] // keywords of one Python call
pub fn pack_forest<'py>(
    py: Python<'py>,
    parents: &Array<'py>,
    begins: &Array<'py>,
    ends: &Array<'py>,
    leaf: &Array<'py>,
    capacity: i64,
    align: i64,
    max_segments: Option<usize>,
    bins_multiple_of: usize,
    oversize: &str,
) -> PyResult<([Array<'py>; 6], usize, i64)> {
    let forest = forest(parents, begins, ends, leaf)?;
    let options = Options { capacity, align, max_segments, bins_multiple_of, oversize: oversize.parse()? };
    let found = py.detach(|| kernel::pack(&forest, &options))?;
    let columns =
        [&found.parents, &found.starts, &found.lengths, &found.source_rows, &found.begins, &found.leaf];
    Ok((arrays_of(py, columns)?, found.bins, found.width))
}

fn placed<'a>(
    parents: &'a Array<'_>,
    starts: &'a Array<'_>,
    lengths: &'a Array<'_>,
    leaf: &'a Array<'_>,
) -> PyResult<Placed<'a>> {
    Ok(Placed {
        parents: array::int64s("parents", parents)?,
        starts: array::int64s("starts", starts)?,
        lengths: array::int64s("lengths", lengths)?,
        leaf: array::int64s("leaf", leaf)?,
    })
}

/// Of placed nodes: the end of what is below each, how many rows have it, the number of its tree in its bin.
#[pyfunction]
#[pyo3(signature = (parents, starts, lengths, leaf, /, *, width))]
pub fn read_forest<'py>(
    py: Python<'py>,
    parents: &Array<'py>,
    starts: &Array<'py>,
    lengths: &Array<'py>,
    leaf: &Array<'py>,
    width: i64,
) -> PyResult<[Array<'py>; 3]> {
    let nodes = placed(parents, starts, lengths, leaf)?;
    let found = py.detach(|| nodes.read(width))?;
    arrays_of(py, [&found.visible, &found.rows, &found.trees])
}

/// Where rows are in placed nodes: where the spans of each row begin, and of spans starts and lengths.
#[pyfunction]
#[pyo3(signature = (parents, starts, lengths, leaf, /))]
pub fn forest_paths<'py>(
    py: Python<'py>,
    parents: &Array<'py>,
    starts: &Array<'py>,
    lengths: &Array<'py>,
    leaf: &Array<'py>,
) -> PyResult<[Array<'py>; 3]> {
    let nodes = placed(parents, starts, lengths, leaf)?;
    let [offsets, begins, counts] = py.detach(|| nodes.paths())?;
    arrays_of(py, [&offsets, &begins, &counts])
}
