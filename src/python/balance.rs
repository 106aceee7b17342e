//! Bindings of `balance`, `step_plan`.

use pyo3::prelude::*;

use super::array::{self, Array};
use crate::balance::{self as kernel, Options};
use crate::error::Error;
use crate::step_plan::{self, Sync};

/// What each row costs.
#[pyfunction]
#[pyo3(signature = (lengths, /, *, per_token, per_square))]
pub fn row_costs<'py>(
    py: Python<'py>,
    lengths: &Array<'py>,
    per_token: i64,
    per_square: i64,
) -> PyResult<Array<'py>> {
    let lengths = array::int64s("lengths", lengths)?;
    let out = array::fresh::<i64>(py, lengths.len())?;
    let costs = array::out_slice("costs", &out, [])?;
    py.detach(|| kernel::row_costs(lengths, per_token, per_square, costs))?;
    Ok(out)
}

/// The part of each row.
#[pyfunction]
#[pyo3(signature = (lengths, costs, groups, /, *, parts, equal_counts, capacity, tolerance))]
#[allow(clippy::too_many_arguments)] // keywords of one Python call
pub fn balance<'py>(
    py: Python<'py>,
    lengths: &Array<'py>,
    costs: &Array<'py>,
    groups: Option<&Array<'py>>,
    parts: usize,
    equal_counts: bool,
    capacity: Option<i64>,
    tolerance: f64,
) -> PyResult<Array<'py>> {
    let (lengths, costs) = (array::int64s("lengths", lengths)?, array::int64s("cost", costs)?);
    let groups = groups.map(|ids| array::int64s("groups", ids)).transpose()?;
    let options = Options { parts, equal_counts, capacity, tolerance };
    let out = array::fresh::<i64>(py, lengths.len())?;
    let found = array::out_slice("parts", &out, [])?;
    py.detach(|| kernel::balance(lengths, costs, groups, &options, found))?;
    Ok(out)
}

/// The least that the costliest of some parts can cost, and what all rows cost.
#[pyfunction]
#[pyo3(signature = (costs, groups, /, *, parts, equal_counts))]
pub fn balance_bound<'py>(
    py: Python<'py>,
    costs: &Array<'py>,
    groups: Option<&Array<'py>>,
    parts: usize,
    equal_counts: bool,
) -> PyResult<(i64, i64)> {
    let costs = array::int64s("cost", costs)?;
    let groups = groups.map(|ids| array::int64s("groups", ids)).transpose()?;
    Ok(py.detach(|| kernel::bound(costs, groups, parts, equal_counts))?)
}

/// Where each row goes (rank · steps + step), the steps, what passes from first to last as cost, what that is
/// at least, and what all rows cost.
type Planned<'py> = (Array<'py>, usize, i64, i64, i64);

/// One optimizer step.
#[pyfunction]
#[pyo3(signature = (lengths, costs, groups, home, /, *, capacity, ranks, sync, max_segments, steps, seed))]
#[allow(clippy::too_many_arguments)] // keywords of one Python call
pub fn plan_steps<'py>(
    py: Python<'py>,
    lengths: &Array<'py>,
    costs: &Array<'py>,
    groups: Option<&Array<'py>>,
    home: Option<&Array<'py>>,
    capacity: i64,
    ranks: usize,
    sync: &str,
    max_segments: Option<usize>,
    steps: usize,
    seed: Option<u64>,
) -> PyResult<Planned<'py>> {
    let (lengths, costs) = (array::int64s("lengths", lengths)?, array::int64s("cost", costs)?);
    let groups = groups.map(|ids| array::int64s("groups", ids)).transpose()?;
    let home = home.map(|ranks| array::int64s("home", ranks)).transpose()?;
    let sync = match sync {
        "micro_batch" => Sync::MicroBatch,
        "step" => Sync::Step,
        _ => return Err(Error::UnknownName { name: "sync", got: sync.to_owned() }.into()),
    };
    let options = step_plan::Options { capacity, ranks, sync, max_segments, steps, seed };
    let out = array::fresh::<i64>(py, lengths.len())?;
    let slots = array::out_slice("slots", &out, [])?;
    let found = py.detach(|| step_plan::plan_steps(lengths, costs, groups, home, &options, slots))?;
    Ok((out, found.steps, found.makespan, found.bound, found.total))
}
