//! One optimizer step: rows to micro-batches of at most a capacity, and those to ranks.
//!
//! ```text
//!              rank 0        rank 1
//! step 0   │ 9 2        │ 8 3          │   ranks wait for one another after each micro-batch,
//! step 1   │ 6 4 1      │ 5 4 2        │   or only at the end of all
//! ```
//!
//! There are as few micro-batches as first fit decreasing needs, rounded up to as many for each rank, all of
//! nearly the same cost ([`crate::balance`]). Where ranks wait after each, those of one step are neighbours
//! by cost.

use std::cmp::Reverse;

use crate::balance::{self, Groups, Items, Limits, Parts, Problem};
use crate::layout::same_count;
use crate::out::Out;
use crate::{Error, Result, memory, order};

/// How near the mean is near enough.
const TOLERANCE: f64 = 1e-4;

/// How near it is not worth while to look for better micro-batches.
const GOOD_ENOUGH: f64 = 2.5e-3;

/// When ranks wait for one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// After each micro-batch, as sharded parameters make them do.
    MicroBatch,
    /// After all of them.
    Step,
}

/// How to plan.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Elements a micro-batch holds.
    pub capacity: i64,
    /// Ranks to deal to.
    pub ranks: usize,
    /// When they wait.
    pub sync: Sync,
    /// Rows a micro-batch holds.
    pub max_segments: Option<usize>,
    /// Micro-batches of each rank, at least.
    pub steps: usize,
    /// What the order of micro-batches is shuffled by; costliest first without.
    pub seed: Option<u64>,
}

/// What was planned, beside who does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Micro-batches of each rank.
    pub steps: usize,
    /// What passes from the first to the last, as cost: of those that all wait for.
    pub makespan: i64,
    /// What that is at least, whatever the plan.
    pub bound: i64,
    /// What all rows cost.
    pub total: i64,
}

/// Writes `rank` · `steps` + `step` of each row.
///
/// `home` is the rank that has a row already, below zero where none has: micro-batches go where most of their
/// elements are, where they may go to several. Rows with one of `groups` stay in one micro-batch.
///
/// ```
/// use rollkit::step_plan::{Options, Sync, plan_steps};
///
/// let sync = Sync::MicroBatch;
/// let options = Options { capacity: 12, ranks: 2, sync, max_segments: None, steps: 0, seed: None };
/// let lengths = [9, 8, 6, 5, 4, 4, 3, 2, 2, 1];
/// let mut slots = [0i64; 10];
/// let planned = plan_steps(&lengths, &lengths, None, None, &options, &mut slots)?;
/// assert_eq!((planned.steps, planned.makespan, planned.bound), (2, 22, 22));
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn plan_steps<O: Out<i64>>(
    lengths: &[i64],
    costs: &[i64],
    groups: Option<&[i64]>,
    home: Option<&[i64]>,
    options: &Options,
    out: &mut [O],
) -> Result<Planned> {
    let rows = lengths.len();
    let given = home.map_or(rows, <[i64]>::len);
    for (name, got) in [("cost", costs.len()), ("home", given), ("slots", out.len())] {
        same_count(name, got, rows)?;
    }
    let ranks = balance::positive("ranks", options.ranks)?;
    let groups = Groups::of_rows(groups, rows)?;
    let items = Items::new(costs, Some(lengths), groups.as_ref())?;
    // Of more ranks than rows, the last have nothing but what is at home there.
    let last_home = home.unwrap_or(&[]).iter().copied().max().and_then(|rank| usize::try_from(rank).ok());
    let used = ranks.min(items.len().max(last_home.map_or(1, |rank| rank.saturating_add(1))).max(1));
    let (dealt, loads) = evenest(&items, used, options, groups.as_ref())?;
    let mut batches = memory::filled("rows", 0usize, rows)?;
    balance::write(&items, groups.as_ref(), |item, row| batches[row] = dealt[item]);
    let homes = Homes::new(home, lengths, &batches, ranks)?;
    let plan = match options.sync {
        Sync::MicroBatch => after_each(&loads, used, &homes)?,
        Sync::Step => after_all(&loads, used, homes)?,
    };
    let steps = loads.len() / used;
    let order = order(steps, options.seed)?;
    for (&batch, slot) in batches.iter().zip(out) {
        let (rank, step) = plan.places[batch];
        slot.set((rank * steps + order[step]) as i64);
    }
    let bound = balance::bound_of(&items, ranks, false);
    Ok(Planned { steps, makespan: plan.makespan, bound, total: items.total })
}

/// Micro-batches of the first way, or of the second where that is not good enough and the second is better.
///
/// Which is better hangs on where the capacity binds. The second's cost less alike, which can be of use: where a
/// long row makes few cost more than all others, which cost the same, nothing makes up for having one of the few.
fn evenest(
    items: &Items,
    ranks: usize,
    options: &Options,
    groups: Option<&Groups>,
) -> Result<(Vec<usize>, Vec<i64>)> {
    let makespan = |loads: &[i64]| -> Result<i64> {
        Ok(match options.sync {
            Sync::MicroBatch => after_each(loads, ranks, &Homes::NONE)?.makespan,
            Sync::Step => after_all(loads, ranks, Homes::NONE)?.makespan,
        })
    };
    let first = micro_batches(items, ranks, options, groups, 0)?;
    let most = makespan(&first.1)?;
    if most <= balance::target(items, ranks, GOOD_ENOUGH).max(balance::bound_of(items, ranks, false)) {
        return Ok(first);
    }
    let second = micro_batches(items, ranks, options, groups, 1)?;
    Ok(if makespan(&second.1)? < most { second } else { first })
}

/// The micro-batch of each item, and what each micro-batch costs. `way` is the first of the ways of
/// [`balance::lightest`] that is tried.
fn micro_batches(
    items: &Items,
    ranks: usize,
    options: &Options,
    groups: Option<&Groups>,
    way: usize,
) -> Result<(Vec<usize>, Vec<i64>)> {
    let most = options.max_segments.map_or(i64::MAX, |most| i64::try_from(most).unwrap_or(i64::MAX));
    for (name, got) in [("capacity", options.capacity), ("max_segments", most)] {
        if got < 1 {
            return Err(Error::NotPositive { name, got });
        }
    }
    let limits = Limits { size: options.capacity, most, ..Limits::NONE };
    balance::fit_alone(items, &limits, groups)?;
    let (fitted, needed) = balance::first_fit(items, &limits)?;
    let too_many = || Error::NoMemory { name: "ranks", got: ranks };
    let least = options.steps.checked_mul(ranks).ok_or_else(too_many)?;
    let count = needed.checked_next_multiple_of(ranks).ok_or_else(too_many)?.max(least);
    let mut dealt = balance::lightest(items, count, &limits, way)?.unwrap_or(fitted);
    // None is empty where there are rows enough.
    let limits = Limits { least: i64::from(items.len() >= count), ..limits };
    let mut parts = Parts::new(items, &dealt, count, limits)?;
    parts.fill_empty()?;
    let mean = balance::target(items, count.max(1), TOLERANCE);
    parts.improve(mean, options.sync == Sync::MicroBatch)?;
    parts.write(&mut dealt);
    Ok((dealt, memory::collected("micro-batches", parts.all().iter().map(|part| part.load))?))
}

/// Which rank does which micro-batch when.
struct Plan {
    /// Rank and step of each micro-batch.
    places: Vec<(usize, usize)>,
    makespan: i64,
}

/// Those of one step cost nearly the same. Of the ranks, the one that has done least gets the costliest, but
/// for what is at home elsewhere.
fn after_each(loads: &[i64], ranks: usize, homes: &Homes) -> Result<Plan> {
    let sorted = Items::of_costs(loads)?;
    let mut places = memory::filled("micro-batches", (0, 0), loads.len())?;
    let mut done = memory::filled("ranks", 0i64, ranks)?;
    let mut idle = memory::collected("ranks", 0..ranks)?;
    let mut makespan = 0;
    for (step, batches) in sorted.numbers.chunks(ranks).enumerate() {
        makespan += loads[batches[0]];
        idle.sort_unstable_by_key(|&rank| (done[rank], rank));
        for (&batch, rank) in batches.iter().zip(homes.name(batches, &idle)?) {
            places[batch] = (rank, step);
            done[rank] += loads[batch];
        }
    }
    Ok(Plan { places, makespan })
}

/// Ranks get equally many micro-batches, which cost the same together, the costliest first.
fn after_all(loads: &[i64], ranks: usize, homes: Homes) -> Result<Plan> {
    let items = Items::of_costs(loads)?;
    let each = (loads.len() / ranks) as i64;
    let limits = Limits { least: each, most: each, ..Limits::NONE };
    let mut dealt = balance::neediest(&items, ranks)?;
    let mut parts = Parts::new(&items, &dealt, ranks, limits)?;
    parts.improve(balance::target(&items, ranks, TOLERANCE), false)?;
    parts.write(&mut dealt);
    let mut next = memory::filled("ranks", 0usize, ranks)?;
    let mut places = memory::filled("micro-batches", (0, 0), loads.len())?;
    for (item, &part) in dealt.iter().enumerate() {
        places[items.numbers[item]] = (part, next[part]);
        next[part] += 1;
    }
    // Ranks are alike, so that they may be named by what is at home there.
    let all = memory::collected("ranks", 0..ranks)?;
    let names = homes.of_parts(|batch| places[batch].0).name(&all, &all)?;
    for place in &mut places {
        place.0 = names[place.0];
    }
    let makespan = parts.all().iter().map(|part| part.load).max().unwrap_or(0);
    Ok(Plan { places, makespan })
}

/// The elements of parts that some rank has already.
struct Homes {
    /// Part, rank, elements; in order, each pair once.
    entries: Vec<(usize, usize, i64)>,
}

impl Homes {
    /// Nobody has anything.
    const NONE: Self = Self { entries: Vec::new() };

    fn new(home: Option<&[i64]>, lengths: &[i64], batches: &[usize], ranks: usize) -> Result<Self> {
        let mut entries = memory::with_room("home", home.map_or(0, <[i64]>::len))?;
        for (row, &rank) in home.unwrap_or(&[]).iter().enumerate() {
            match usize::try_from(rank) {
                Ok(rank) if rank < ranks => entries.push((batches[row], rank, lengths[row])),
                Ok(_) => return Err(Problem::UnknownRank { row, got: rank, ranks }.into()),
                Err(_) => {} // nobody has it
            }
        }
        Ok(Self::merged(entries))
    }

    /// The same elements, of other parts.
    fn of_parts(mut self, part: impl Fn(usize) -> usize) -> Self {
        for entry in &mut self.entries {
            entry.0 = part(entry.0);
        }
        Self::merged(self.entries)
    }

    fn merged(mut entries: Vec<(usize, usize, i64)>) -> Self {
        entries.sort_unstable();
        entries.dedup_by(|next, kept| {
            let same = (next.0, next.1) == (kept.0, kept.1);
            kept.2 += if same { next.2 } else { 0 };
            same
        });
        Self { entries }
    }

    /// A rank for each part, each rank once: the one with most elements of a part gets that, and so on, which
    /// leaves at least half as many at home as any other way. Of the others, the first gets the first.
    fn name(&self, parts: &[usize], ranks: &[usize]) -> Result<Vec<usize>> {
        const NOBODY: usize = usize::MAX;
        if self.entries.is_empty() {
            return memory::collected("ranks", ranks.iter().copied());
        }
        let mut pairs = Vec::new();
        for (at, &part) in parts.iter().enumerate() {
            let begin = self.entries.partition_point(|entry| entry.0 < part);
            for &(_, rank, elements) in self.entries[begin..].iter().take_while(|entry| entry.0 == part) {
                memory::push("ranks", &mut pairs, (Reverse(elements), at, rank))?;
            }
        }
        pairs.sort_unstable();
        let mut names = memory::filled("ranks", NOBODY, parts.len())?;
        let mut taken = memory::filled("ranks", false, ranks.len())?;
        for (_, at, rank) in pairs {
            if names[at] == NOBODY && !taken[rank] {
                (names[at], taken[rank]) = (rank, true);
            }
        }
        let mut others = ranks.iter().filter(|&&rank| !taken[rank]);
        for name in names.iter_mut().filter(|name| **name == NOBODY) {
            if let Some(&rank) = others.next() {
                *name = rank;
            }
        }
        Ok(names)
    }
}

/// Where each step comes in the end.
fn order(steps: usize, seed: Option<u64>) -> Result<Vec<usize>> {
    let mut order = memory::collected("steps", 0..steps)?;
    if let Some(seed) = seed {
        shuffle(&mut order, seed);
    }
    Ok(order)
}

/// Fisher and Yates' shuffle.
fn shuffle(items: &mut [usize], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(order::STEP);
        items.swap(last, ((u128::from(order::mixed(state)) * (last as u128 + 1)) >> 64) as usize);
    }
}
