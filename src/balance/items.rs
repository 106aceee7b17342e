//! What is dealt out: rows, or groups of rows that stay together, in the order of falling cost.

use std::cmp::Reverse;

use super::problem::Problem;
use crate::layout::same_count;
use crate::offsets::extremes;
use crate::{Error, Result, memory};

/// Items by falling cost, ties by number; each vector has one element an item.
pub(crate) struct Items {
    /// What each costs.
    pub costs: Vec<i64>,
    /// Which row, or which group, each is.
    pub numbers: Vec<usize>,
    /// The elements of each; empty where nobody asks for them.
    sizes: Vec<i64>,
    /// The rows of each; empty where each is one row.
    rows: Vec<i64>,
    /// What all of them cost.
    pub total: i64,
}

impl Items {
    /// One item a row, or a group where there are `groups`; sizes are `lengths`, where there are any.
    pub fn new(costs: &[i64], lengths: Option<&[i64]>, groups: Option<&Groups>) -> Result<Self> {
        let total = check("costs", costs)?;
        if let Some(lengths) = lengths {
            check("lengths", lengths)?;
        }
        let Some(groups) = groups else { return Self::sorted(costs, lengths, None, total) };
        let sums = groups.sums(costs)?;
        let sizes = lengths.map(|lengths| groups.sums(lengths)).transpose()?;
        Self::sorted(&sums, sizes.as_deref(), Some(&groups.counts), total)
    }

    /// Items of one row each, from sums that are known to fit.
    pub fn of_costs(costs: &[i64]) -> Result<Self> {
        Self::sorted(costs, None, None, costs.iter().sum())
    }

    fn sorted(costs: &[i64], sizes: Option<&[i64]>, rows: Option<&[i64]>, total: i64) -> Result<Self> {
        let (costs, numbers) = by_falling_cost(costs)?;
        let gather = |of: &[i64]| memory::collected("rows", numbers.iter().map(|&number| of[number]));
        let sizes = sizes.map_or(Ok(Vec::new()), gather)?;
        let rows = rows.map_or(Ok(Vec::new()), gather)?;
        Ok(Self { costs, numbers, sizes, rows, total })
    }

    pub fn len(&self) -> usize {
        self.costs.len()
    }

    /// The elements of an item.
    pub fn size(&self, item: usize) -> i64 {
        self.sizes.get(item).copied().unwrap_or(0)
    }

    /// The rows of an item.
    pub fn rows(&self, item: usize) -> i64 {
        self.rows.get(item).copied().unwrap_or(1)
    }

    /// How many rows each item has, if that is one number for all.
    pub fn rows_of_each(&self) -> Option<i64> {
        let first = self.rows.first().copied().unwrap_or(1);
        self.rows.iter().all(|&rows| rows == first).then_some(first)
    }

    /// The same items, by falling size: what fills parts is what they cost.
    pub fn by_size(&self) -> Result<Self> {
        let sizes = memory::collected("rows", (0..self.len()).map(|item| self.size(item)))?;
        let rows = if self.rows.is_empty() { None } else { Some(&self.rows[..]) };
        Self::sorted(&sizes, Some(&sizes), rows, sizes.iter().sum())
    }
}

/// Checks that numbers are not below zero, and adds them up.
fn check(name: &'static str, numbers: &[i64]) -> Result<i64> {
    let mut sum = 0i64;
    for (row, &number) in numbers.iter().enumerate() {
        match sum.checked_add(number) {
            _ if number < 0 && name == "costs" => {
                return Err(Problem::NegativeCost { row, got: number }.into());
            }
            _ if number < 0 => return Err(Error::NegativeLength { row, got: number }),
            Some(next) => sum = next,
            None if name == "costs" => return Err(Problem::CostOverflow { row }.into()),
            None => return Err(Error::TooManyElements { row }),
        }
    }
    Ok(sum)
}

/// Costs, falling, and the number of each; equal costs by number.
fn by_falling_cost(costs: &[i64]) -> Result<(Vec<i64>, Vec<usize>)> {
    let most = extremes(costs).1.max(0);
    let bits = usize::BITS - costs.len().saturating_sub(1).leading_zeros();
    let mut sorted = memory::with_room("rows", costs.len())?;
    let mut numbers = memory::with_room("rows", costs.len())?;
    if most.leading_zeros() >= bits {
        // Cost and number in one word sort in a third of the time that pairs of them take.
        let mask = (1 << bits) - 1;
        let word = |(number, &cost): (usize, &i64)| (most.wrapping_sub(cost) as u64) << bits | number as u64;
        let mut words = memory::collected("rows", costs.iter().enumerate().map(word))?;
        words.sort_unstable();
        sorted.extend(words.iter().map(|word| most - (word >> bits) as i64));
        numbers.extend(words.iter().map(|word| (word & mask) as usize));
    } else {
        let pair = |(number, &cost): (usize, &i64)| (Reverse(cost), number);
        let mut pairs = memory::collected("rows", costs.iter().enumerate().map(pair))?;
        pairs.sort_unstable();
        sorted.extend(pairs.iter().map(|(cost, _)| cost.0));
        numbers.extend(pairs.iter().map(|(_, number)| number));
    }
    Ok((sorted, numbers))
}

/// Which rows stay together.
pub(crate) struct Groups {
    /// The rows of each group; groups are numbered by their first rows.
    counts: Vec<i64>,
    /// The rows of all groups, group after group.
    members: Vec<usize>,
    /// Where in `members` each group ends.
    ends: Vec<usize>,
}

impl Groups {
    /// Those of so many rows, if there are any; ids are below the number of rows.
    pub fn of_rows(given: Option<&[i64]>, rows: usize) -> Result<Option<Self>> {
        let Some(given) = given else { return Ok(None) };
        same_count("groups", given.len(), rows)?;
        Self::new(given).map(Some)
    }

    fn new(given: &[i64]) -> Result<Self> {
        const UNSEEN: usize = usize::MAX;
        let mut numbers = memory::filled("groups", UNSEEN, given.len())?;
        let mut ids = memory::with_room("groups", given.len())?;
        let mut counts = memory::with_room("groups", given.len())?;
        for (row, &id) in given.iter().enumerate() {
            let number = usize::try_from(id).ok().and_then(|id| numbers.get_mut(id));
            let number = number.ok_or(Problem::UnknownGroup { row, got: id, rows: given.len() })?;
            if *number == UNSEEN {
                *number = counts.len();
                counts.push(0);
            }
            counts[*number] += 1;
            ids.push(*number);
        }
        let begins = counts.iter().scan(0, |end, &count| Some(std::mem::replace(end, *end + count as usize)));
        let mut ends = memory::collected("groups", begins)?;
        let mut members = memory::filled("groups", 0, given.len())?;
        for (row, &group) in ids.iter().enumerate() {
            members[ends[group]] = row;
            ends[group] += 1;
        }
        Ok(Self { counts, members, ends })
    }

    /// The rows of a group.
    pub fn rows_of(&self, group: usize) -> impl Iterator<Item = usize> {
        let end = self.ends[group];
        self.members[end - self.counts[group] as usize..end].iter().copied()
    }

    /// What the rows of each group add up to; what all rows add up to is known to fit.
    fn sums(&self, of: &[i64]) -> Result<Vec<i64>> {
        let sum = |group| self.rows_of(group).fold(0i64, |sum, row| sum.wrapping_add(of[row]));
        memory::collected("groups", (0..self.counts.len()).map(sum))
    }
}
