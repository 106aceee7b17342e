//! Rows to parts that cost the same: the work of ranks, of micro-batches, of optimizer steps.
//!
//! ```text
//! costs 7 5 4 3 1, 2 parts      7 3 │ 5 4 1      10 and 10
//! ```
//!
//! Items, which are rows or groups of rows, are dealt out from the costliest on (`deal`), then exchanged
//! between parts while that makes the costliest cheaper (`swaps`), down to what no assignment is below
//! (`bound`). All of it is in integers, with ties by number, so that it is the same on every machine.

mod bound;
mod deal;
mod items;
mod problem;
mod swaps;

use crate::layout::same_count;
use crate::offsets::extremes;
use crate::out::Out;
use crate::{Error, Result, memory};

pub(crate) use bound::bound as bound_of;
pub(crate) use deal::{Limits, first_fit, lightest, neediest};
pub(crate) use items::{Groups, Items};
pub use problem::Problem;
pub(crate) use swaps::Parts;

/// How to balance.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Parts to deal to.
    pub parts: usize,
    /// Whether the rows of parts differ by one at most.
    pub equal_counts: bool,
    /// Elements a part holds.
    pub capacity: Option<i64>,
    /// What the costliest part may cost above the mean, as a share of that, before it is made better.
    pub tolerance: f64,
}

/// Writes what each row costs: `per_token` · length + `per_square` · length².
///
/// ```
/// let mut costs = [0; 2];
/// rollkit::balance::row_costs(&[3, 10], 5, 1, &mut costs)?;
/// assert_eq!(costs, [24, 150]);
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn row_costs<O: Out<i64>>(lengths: &[i64], per_token: i64, per_square: i64, out: &mut [O]) -> Result<()> {
    same_count("costs", out.len(), lengths.len())?;
    for (row, (&length, slot)) in lengths.iter().zip(out).enumerate() {
        if length < 0 {
            return Err(Error::NegativeLength { row, got: length });
        }
        let square = length.checked_mul(per_square).and_then(|found| found.checked_add(per_token));
        let cost = square.and_then(|found| found.checked_mul(length));
        slot.set(cost.ok_or(Problem::CostOverflow { row })?);
    }
    Ok(())
}

/// Writes the part of each row. Rows with one of `groups` (numbers below that of rows) stay together.
///
/// ```
/// use rollkit::balance::{Options, balance};
///
/// let options = Options { parts: 2, equal_counts: false, capacity: None, tolerance: 0.0 };
/// let mut parts = [0i64; 5];
/// balance(&[7, 5, 4, 3, 1], &[7, 5, 4, 3, 1], None, &options, &mut parts)?;
/// assert_eq!(parts, [0, 1, 1, 0, 1]);
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn balance<O: Out<i64>>(
    lengths: &[i64],
    costs: &[i64],
    groups: Option<&[i64]>,
    options: &Options,
    out: &mut [O],
) -> Result<()> {
    let rows = lengths.len();
    for (name, got) in [("cost", costs.len()), ("parts", out.len())] {
        same_count(name, got, rows)?;
    }
    let groups = Groups::of_rows(groups, rows)?;
    let items = Items::new(costs, options.capacity.map(|_| lengths), groups.as_ref())?;
    let dealt = assign(&items, options, groups.as_ref())?;
    write(&items, groups.as_ref(), |item, row| out[row].set(dealt[item] as i64));
    Ok(())
}

/// The least that the costliest of `parts` can cost, and what all rows cost.
pub fn bound(costs: &[i64], groups: Option<&[i64]>, parts: usize, equal_counts: bool) -> Result<(i64, i64)> {
    let groups = Groups::of_rows(groups, costs.len())?;
    let items = Items::new(costs, None, groups.as_ref())?;
    // Of groups of unlike sizes it is not known how many are with the costliest.
    let equal = equal_counts && items.rows_of_each().is_some();
    Ok((bound_of(&items, positive("parts", parts)?, equal), items.total))
}

/// The part of each item.
fn assign(items: &Items, options: &Options, groups: Option<&Groups>) -> Result<Vec<usize>> {
    let parts = positive("parts", options.parts)?;
    let size = options.capacity.unwrap_or(i64::MAX);
    if size < 1 {
        return Err(Error::NotPositive { name: "capacity", got: size });
    }
    fit_alone(items, &Limits { size, ..Limits::NONE }, groups)?;
    let used = parts.min(items.len());
    if used == 0 {
        return Ok(Vec::new());
    }
    let (mut dealt, limits) = if options.equal_counts {
        let limits = Limits { size, ..equal_rows(items, parts)? };
        (deal_equal(items, used, &limits, parts)?, limits)
    } else {
        let limits = Limits { size, ..Limits::NONE };
        (deal_free(items, used, &limits, parts)?, limits)
    };
    let equal = options.equal_counts && items.rows_of_each().is_some();
    let target = target(items, used, options.tolerance).max(bound_of(items, used, equal));
    if extent(&dealt, used, |item| items.costs[item])?.1 > target {
        let mut found = Parts::new(items, &dealt, used, limits)?;
        found.improve(target, false)?;
        found.write(&mut dealt);
    }
    Ok(dealt)
}

/// The cost that parts need not fall below.
pub(crate) fn target(items: &Items, parts: usize, tolerance: f64) -> i64 {
    (items.total as f64 / parts as f64 * (1.0 + tolerance)) as i64
}

/// What parts add up to, of what `of` says of each item: the least and the most.
fn extent(dealt: &[usize], parts: usize, of: impl Fn(usize) -> i64) -> Result<(i64, i64)> {
    let mut sums = memory::filled("parts", 0i64, parts)?;
    for (item, &part) in dealt.iter().enumerate() {
        sums[part] += of(item);
    }
    Ok(extremes(&sums))
}

/// Refuses an item that is more than a part holds.
pub(crate) fn fit_alone(items: &Items, limits: &Limits, groups: Option<&Groups>) -> Result<()> {
    let unfit = |&item: &usize| items.size(item) > limits.size || items.rows(item) > limits.most;
    let first = |item: usize| {
        let number = items.numbers[item];
        groups.and_then(|found| found.rows_of(number).next()).unwrap_or(number)
    };
    let Some(item) = (0..items.len()).filter(unfit).min_by_key(|&item| first(item)) else { return Ok(()) };
    let (row, length, rows) = (first(item), items.size(item), items.rows(item));
    if length <= limits.size {
        return Err(Problem::GroupTooMany { row, rows, most: limits.most }.into());
    }
    Err(Problem::LongerThanPart { row, group: groups.is_some(), length, capacity: limits.size }.into())
}

/// The rows that parts of equal counts may have.
fn equal_rows(items: &Items, parts: usize) -> Result<Limits> {
    let rows: i64 = (0..items.len()).map(|item| items.rows(item)).sum();
    let parts = parts as i64;
    let least = rows / parts;
    let limits = Limits { least, most: least + i64::from(rows % parts > 0), ..Limits::NONE };
    let left = items.len() as i64 % parts;
    match items.rows_of_each() {
        Some(each) if each > 1 && left > 0 => {
            let least = items.len() as i64 / parts * each;
            Err(Problem::UnequalCounts { parts, least, most: least + each }.into())
        }
        _ => Ok(limits),
    }
}

/// An assignment of equal counts to the `used` of the parts, within the capacity if one is found.
fn deal_equal(items: &Items, used: usize, limits: &Limits, parts: usize) -> Result<Vec<usize>> {
    let mut dealt = deal_counts(items, used)?;
    let (fewest, most) = extent(&dealt, used, |item| items.rows(item))?;
    let least = if used < parts { 0 } else { fewest }; // those that no group is left for have none
    if least < limits.least || most > limits.most {
        return Err(Problem::UnequalCounts { parts: parts as i64, least, most }.into());
    }
    if extent(&dealt, used, |item| items.size(item))?.1 <= limits.size {
        return Ok(dealt);
    }
    // First of all elements must be even; what parts cost is seen to afterwards.
    let sized = items.by_size()?;
    let mut by_size = deal_counts(&sized, used)?;
    let mut found = Parts::new(&sized, &by_size, used, Limits { size: i64::MAX, ..*limits })?;
    found.improve(limits.size, false)?;
    found.write(&mut by_size);
    let fullest = found.all().iter().map(|part| part.load).max().unwrap_or(0);
    if fullest > limits.size {
        return Err(Problem::EqualCapacity { capacity: limits.size, fullest }.into());
    }
    for (&item, &part) in sized.numbers.iter().zip(&by_size) {
        dealt[item] = part;
    }
    Ok(dealt)
}

fn deal_counts(items: &Items, parts: usize) -> Result<Vec<usize>> {
    match items.rows_of_each() {
        Some(_) => deal::neediest(items, parts),
        None => deal::fewest_rows(items, parts),
    }
}

/// An assignment within the capacity: found wherever first fit decreasing finds one.
fn deal_free(items: &Items, used: usize, limits: &Limits, parts: usize) -> Result<Vec<usize>> {
    if let Some(dealt) = deal::lightest(items, used, limits, 0)? {
        return Ok(dealt);
    }
    let (dealt, needed) = deal::first_fit(items, limits)?;
    if needed > parts {
        return Err(Problem::TooFewParts { parts, needed, capacity: limits.size }.into());
    }
    Ok(dealt)
}

/// Refuses none.
pub(crate) fn positive(name: &'static str, got: usize) -> Result<usize> {
    // More parts than an i64 counts are no more than there are rows, either.
    if got == 0 { Err(Error::NotPositive { name, got: 0 }) } else { Ok(got.min(i64::MAX as usize)) }
}

/// Tells `set` the item of each row.
pub(crate) fn write(items: &Items, groups: Option<&Groups>, mut set: impl FnMut(usize, usize)) {
    for (item, &number) in items.numbers.iter().enumerate() {
        match groups {
            None => set(item, number),
            Some(groups) => groups.rows_of(number).for_each(|row| set(item, row)),
        }
    }
}
