//! Row lengths to bins: the textbook packers, bin for bin, in O(N log N).
//!
//! ```text
//! lengths 5 3 3 5, capacity 8      first fit    │ 5 3 │ 3 5 │        bins 0 0 1 1
//! lengths 3 3 5 5, capacity 8      first fit    │ 3 3 │ 5 . │ 5 . │  bins 0 0 1 2
//!                                  … decreasing │ 5 3 │ 5 3 │        bins 0 1 0 1
//! ```
//!
//! Rows of one length that follow each other, as they do once sorted, go to a bin together: where the
//! first one of them goes, the next one goes too, while it fits.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::str::FromStr;

use crate::layout::ABSENT;
use crate::offsets::extremes;
use crate::out::Out;
use crate::{Error, Result, memory};

/// Which open bin a row goes to. Bins are numbered in the order they are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The lowest-numbered bin with room, longest rows first, ties in input order.
    FirstFitDecreasing,
    /// The bin with the least room that is enough, ties to the lowest-numbered; longest rows first.
    BestFitDecreasing,
    /// The lowest-numbered bin with room, rows in input order.
    FirstFit,
    /// The last opened bin, rows in input order.
    NextFit,
}

impl Algorithm {
    /// Whether it takes the longest rows first.
    fn sorts(self) -> bool {
        matches!(self, Self::FirstFitDecreasing | Self::BestFitDecreasing)
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "first_fit_decreasing" => Self::FirstFitDecreasing,
            "best_fit_decreasing" => Self::BestFitDecreasing,
            "first_fit" => Self::FirstFit,
            "next_fit" => Self::NextFit,
            _ => return Err(Error::UnknownName { name: "algorithm", got: name.to_owned() }),
        })
    }
}

/// What becomes of a row that is longer than a bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oversize {
    /// An error.
    Raise,
    /// It counts as a row of the bin's capacity.
    Truncate,
    /// It gets a bin to which no other row is added, not even an empty one.
    Alone,
    /// It gets no bin, but [`ABSENT`].
    Drop,
}

impl FromStr for Oversize {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "raise" => Self::Raise,
            "truncate" => Self::Truncate,
            "alone" => Self::Alone,
            "drop" => Self::Drop,
            _ => return Err(Error::UnknownName { name: "oversize", got: name.to_owned() }),
        })
    }
}

/// How to pack.
///
/// A bin has `capacity / align` slots of `align` elements, rounded down, but at least one; a row takes
/// as many as it touches, at most all. So the rows of a bin fit it in any order, each starting at a
/// multiple of `align`, and every row within the capacity fits a bin, be it as its only row.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Elements a bin holds.
    pub capacity: i64,
    /// Elements of a slot.
    pub align: i64,
    /// Rows a bin holds, empty ones included.
    pub max_segments: Option<usize>,
    /// Which open bin a row goes to.
    pub algorithm: Algorithm,
    /// What becomes of a row longer than `capacity`.
    pub oversize: Oversize,
}

impl Options {
    fn check(&self, lengths: &[i64], range: &Range) -> Result<()> {
        let segments = self.max_segments.map_or(1, |most| i64::try_from(most).unwrap_or(i64::MAX));
        for (name, got) in [("capacity", self.capacity), ("align", self.align), ("max_segments", segments)] {
            if got < 1 {
                return Err(Error::NotPositive { name, got });
            }
        }
        let most = if self.oversize == Oversize::Raise { self.capacity } else { i64::MAX };
        if range.least >= 0 && range.longest <= most {
            return Ok(()); // without a branch per row
        }
        let Some(row) = lengths.iter().position(|length| !(0..=most).contains(length)) else { return Ok(()) };
        let length = lengths[row];
        Err(if length < 0 {
            Error::NegativeLength { row, got: length }
        } else {
            Error::Oversize { row, length, capacity: self.capacity, splits: true }
        })
    }

    fn slots(&self) -> i64 {
        slots(self.capacity, self.align)
    }

    /// The length that a row counts as.
    fn counted(&self, length: i64) -> i64 {
        if self.oversize == Oversize::Truncate { length.min(self.capacity) } else { length }
    }

    /// The elements that are placed of a row.
    pub(crate) fn placed(&self, length: i64) -> i64 {
        match self.oversize {
            Oversize::Drop if length > self.capacity => 0,
            _ => self.counted(length),
        }
    }

    /// Where a row may start after one that ends at `end`: at most at `width`, though that be unaligned.
    pub(crate) fn next_start(&self, end: i64, width: i64) -> i64 {
        match self.align {
            1 => end,
            align => (end as u64).next_multiple_of(align as u64).min(width as u64) as i64,
        }
    }

    fn touched(&self, length: i64) -> i64 {
        touched(length, self.align)
    }
}

/// The slots of a bin.
pub(crate) fn slots(capacity: i64, align: i64) -> i64 {
    (capacity / align).max(1)
}

/// The slots that a row within the capacity touches, which may be one more than there are.
pub(crate) fn touched(length: i64, align: i64) -> i64 {
    match align {
        1 => length, // the usual case, without a division
        align => length.cast_unsigned().div_ceil(align.cast_unsigned()) as i64,
    }
}

/// Writes the bin of each row to `out`, [`ABSENT`] for a dropped one.
///
/// ```
/// use rollkit::binpack::{Algorithm, Options, Oversize, plan_bins};
///
/// let options = Options {
///     capacity: 8,
///     align: 1,
///     max_segments: None,
///     algorithm: Algorithm::FirstFitDecreasing,
///     oversize: Oversize::Raise,
/// };
/// let mut bins = [0i64; 4];
/// plan_bins(&[3, 3, 5, 5], &options, &mut bins)?;
/// assert_eq!(bins, [0, 1, 0, 1]);
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn plan_bins<O: Out<i64>>(lengths: &[i64], options: &Options, out: &mut [O]) -> Result<()> {
    if out.len() != lengths.len() {
        return Err(Error::RowCount { name: "bins", got: out.len(), wanted: lengths.len() });
    }
    let sorted = if options.algorithm.sorts() { lengths.len() } else { 0 }; // zeroing takes its time
    plan(lengths, options, &mut memory::filled("rows", 0, sorted)?, out)?;
    Ok(())
}

/// What [`plan`] found.
pub(crate) struct Found {
    /// How many bins there are.
    pub bins: usize,
    /// The longest row, before any cut.
    pub longest: i64,
}

/// Does what [`plan_bins`] does, with `order` to sort rows in. Both slices must have an element per row, but
/// for `order` where the algorithm does not sort.
pub(crate) fn plan<O: Out<i64>>(
    lengths: &[i64],
    options: &Options,
    order: &mut [i64],
    out: &mut [O],
) -> Result<Found> {
    let range = Range::of(lengths);
    options.check(lengths, &range)?;
    O::fill(out, ABSENT);
    let slots = options.slots();
    let segments = Segments::new(options.max_segments, lengths.len())?;
    let bins = match options.algorithm {
        Algorithm::FirstFitDecreasing => {
            let packer = FirstFit::new(lengths.len(), slots, segments)?;
            decreasing(lengths, &range, order, Plan::new(options, packer, out))
        }
        Algorithm::BestFitDecreasing => {
            let smallest = options.touched(range.least);
            let packer = BestFit { bins: BTreeSet::new(), room: 0, opened: 0, slots, smallest, segments };
            decreasing(lengths, &range, order, Plan::new(options, packer, out))
        }
        Algorithm::FirstFit => {
            let packer = FirstFit::new(lengths.len(), slots, segments)?;
            in_order(lengths, Plan::new(options, packer, out))
        }
        Algorithm::NextFit => {
            let packer = NextFit { room: CLOSED, opened: 0, slots, segments };
            in_order(lengths, Plan::new(options, packer, out))
        }
    }?;
    Ok(Found { bins, longest: range.longest })
}

/// The least and the longest of some lengths; of none, nothing is longer than 0.
struct Range {
    least: i64,
    longest: i64,
}

impl Range {
    fn of(lengths: &[i64]) -> Self {
        let (least, longest) = extremes(lengths);
        Self { least, longest: longest.max(0) }
    }
}

/// A plan being made.
///
/// Lengths are read several times, and another thread may write to them meanwhile: then the plan is wrong,
/// but packers see no more rows than there are, and none that needs less than nothing.
struct Plan<'a, P, O> {
    options: &'a Options,
    slots: i64,
    packer: P,
    out: &'a mut [O],
    /// How many rows have no bin yet.
    left: usize,
}

/// What is said of lengths that were others when they were read before.
#[cold]
fn changed() -> Error {
    Error::Changed { name: "lengths" }
}

impl<'a, P: Packer, O: Out<i64>> Plan<'a, P, O> {
    fn new(options: &'a Options, packer: P, out: &'a mut [O]) -> Self {
        Self { options, slots: options.slots(), packer, left: out.len(), out }
    }

    /// Finds bins for rows of one length.
    fn assign(&mut self, length: i64, mut rows: impl ExactSizeIterator<Item = usize>) -> Result<()> {
        self.left = self.left.checked_sub(rows.len()).ok_or_else(changed)?;
        let length = self.options.counted(length);
        if length > self.options.capacity {
            if self.options.oversize == Oversize::Alone {
                for row in rows {
                    let bin = self.packer.open();
                    self.out.get_mut(row).ok_or_else(changed)?.set(bin as i64);
                }
            }
            return Ok(());
        }
        let need = self.options.touched(length).clamp(0, self.slots);
        while rows.len() > 0 {
            let (bin, count) = self.packer.put(need, rows.len())?;
            for row in rows.by_ref().take(count) {
                self.out.get_mut(row).ok_or_else(changed)?.set(bin as i64);
            }
        }
        Ok(())
    }
}

/// Gives the number of bins.
fn in_order<P: Packer, O: Out<i64>>(lengths: &[i64], mut plan: Plan<'_, P, O>) -> Result<usize> {
    let mut end = 0;
    for run in lengths.chunk_by(i64::eq) {
        let begin = end;
        end += run.len();
        plan.assign(run[0], begin..end)?;
    }
    Ok(plan.packer.opened())
}

/// Longest rows first, ties in input order; gives the number of bins.
fn decreasing<P: Packer, O: Out<i64>>(
    lengths: &[i64],
    range: &Range,
    order: &mut [i64],
    mut plan: Plan<'_, P, O>,
) -> Result<usize> {
    let options = plan.options;
    let counted = |row: i64| options.counted(lengths[row as usize]);
    let longest = options.counted(range.longest);
    let span = (longest - range.least.min(longest)) as usize;
    let mut assign = |length, rows: &[i64]| plan.assign(length, rows.iter().map(|&row| row as usize));
    // Counting takes a counter per possible length, comparing a factor log N.
    if span / 8 <= lengths.len() {
        let ends = count_down(lengths, longest, span, order, options)?;
        let mut begin = 0;
        for (below, &end) in ends.iter().enumerate() {
            if begin < end {
                assign(longest - below as i64, order.get(begin..end).ok_or_else(changed)?)?;
            }
            begin = end;
        }
    } else {
        for (row, slot) in order.iter_mut().enumerate() {
            *slot = row as i64;
        }
        memory::available::<(i64, usize)>("rows", order.len())?;
        order.sort_by_cached_key(|&row| Reverse(counted(row)));
        for run in order.chunk_by(|&a, &b| counted(a) == counted(b)) {
            assign(counted(run[0]), run)?;
        }
    }
    Ok(plan.packer.opened())
}

/// A counting sort of rows by length, from `longest` to `longest - span`; gives where each length ends.
fn count_down(
    lengths: &[i64],
    longest: i64,
    span: usize,
    order: &mut [i64],
    options: &Options,
) -> Result<Vec<usize>> {
    let below = |length: i64| longest.wrapping_sub(options.counted(length)) as usize;
    let mut ends = memory::filled("rows", 0usize, span + 2)?;
    for &length in lengths {
        *ends.get_mut(below(length).wrapping_add(1)).ok_or_else(changed)? += 1;
    }
    for i in 1..ends.len() {
        ends[i] += ends[i - 1];
    }
    for (row, &length) in lengths.iter().enumerate() {
        let end = ends.get_mut(below(length)).ok_or_else(changed)?;
        *order.get_mut(*end).ok_or_else(changed)? = row as i64;
        *end += 1;
    }
    ends.pop();
    Ok(ends)
}

/// Less room than any row needs.
const CLOSED: i64 = -1;

/// One of the algorithms, over slots.
trait Packer {
    /// Finds a bin for rows of `need` slots: the bin, and how many of `count` rows it takes, at least 1.
    fn put(&mut self, need: i64, count: usize) -> Result<(usize, usize)>;

    /// Opens a bin that `put` does not find.
    fn open(&mut self) -> usize;

    /// How many bins are open.
    fn opened(&self) -> usize;
}

/// Rows per bin, counted where they are limited.
struct Segments {
    most: usize,
    used: Vec<usize>,
}

impl Segments {
    /// As many bins as rows.
    fn new(most: Option<usize>, rows: usize) -> Result<Self> {
        let used = memory::filled("max_segments", 0, most.map_or(0, |_| rows))?;
        Ok(Self { most: most.unwrap_or(usize::MAX), used })
    }

    /// Adds as many of `count` rows to a bin as fit in its `room`; gives their number and the room left.
    fn add(&mut self, bin: usize, room: i64, need: i64, count: usize) -> (usize, i64) {
        let fitting = match (count, need) {
            (1, _) | (_, 0) => count,
            _ => count.min((room / need) as usize),
        };
        if self.used.is_empty() {
            return (fitting, room - need * fitting as i64);
        }
        let taken = fitting.min(self.most - self.used[bin]);
        self.used[bin] += taken;
        let full = self.used[bin] == self.most;
        (taken, if full { CLOSED } else { room - need * taken as i64 })
    }
}

/// Entries of a node: measured faster than 2, which has twice the levels, and than 8, 16 and 32, which
/// have longer nodes to search.
const WAYS: usize = 4;

/// The room of every bin, opened or not, under a tree of maxima.
struct FirstFit {
    /// `levels[0]` has the bins' rooms, `levels[i + 1]` the maximum of each node of `levels[i]`.
    levels: Vec<Vec<[i64; WAYS]>>,
    opened: usize,
    segments: Segments,
}

impl FirstFit {
    /// As many bins as rows, so that there always is one to open: the first that is still all room.
    fn new(rows: usize, slots: i64, segments: Segments) -> Result<Self> {
        let mut levels = Vec::new();
        let mut entries = rows;
        while levels.is_empty() || entries > 1 {
            entries = entries.div_ceil(WAYS);
            levels.push(memory::filled("bins", [slots; WAYS], entries)?);
        }
        Ok(Self { levels, opened: 0, segments })
    }

    fn find(&self, need: i64) -> usize {
        self.levels.iter().rev().fold(0, |at, level| {
            let node = &level[at];
            // The last entry needs no look: the node's maximum is enough, or it would not be visited.
            at * WAYS + node[..WAYS - 1].iter().position(|&room| room >= need).unwrap_or(WAYS - 1)
        })
    }

    fn set(&mut self, bin: usize, room: i64) {
        let (mut at, mut most) = (bin, room);
        for level in &mut self.levels {
            let node = &mut level[at / WAYS];
            if node[at % WAYS] == most {
                return;
            }
            node[at % WAYS] = most;
            most = node.iter().copied().fold(CLOSED, i64::max);
            at /= WAYS;
        }
    }
}

impl Packer for FirstFit {
    fn put(&mut self, need: i64, count: usize) -> Result<(usize, usize)> {
        let bin = self.find(need);
        let room = self.levels[0][bin / WAYS][bin % WAYS];
        let (taken, room) = self.segments.add(bin, room, need, count);
        self.set(bin, room);
        self.opened = self.opened.max(bin + 1);
        Ok((bin, taken))
    }

    fn open(&mut self) -> usize {
        self.opened += 1;
        self.set(self.opened - 1, CLOSED);
        self.opened - 1
    }

    fn opened(&self) -> usize {
        self.opened
    }
}

/// Open bins by room. Only for needs that do not grow: a bin with less room than `smallest` is done.
struct BestFit {
    bins: BTreeSet<(i64, usize)>,
    /// How many bins there was memory for when it was last asked for.
    room: usize,
    opened: usize,
    slots: i64,
    smallest: i64,
    segments: Segments,
}

impl BestFit {
    /// Bytes of the set for each of its entries, where its nodes are half full.
    const ENTRY: usize = 48;

    /// A set cannot say that there is no memory, so it is asked for before the set grows by as much again.
    fn insert(&mut self, room: i64, bin: usize) -> Result<()> {
        if self.bins.len() >= self.room {
            self.room = (2 * self.bins.len()).max(1 << 10);
            memory::available::<[u8; Self::ENTRY]>("bins", self.room)?;
        }
        self.bins.insert((room, bin));
        Ok(())
    }
}

impl Packer for BestFit {
    fn put(&mut self, need: i64, count: usize) -> Result<(usize, usize)> {
        let best = self.bins.range((need, 0)..).next().copied();
        let (room, bin) = match best {
            Some(best) => {
                self.bins.remove(&best);
                best
            }
            None => (self.slots, self.open()),
        };
        let (taken, room) = self.segments.add(bin, room, need, count);
        if room >= self.smallest {
            self.insert(room, bin)?;
        }
        Ok((bin, taken))
    }

    fn open(&mut self) -> usize {
        self.opened += 1;
        self.opened - 1
    }

    fn opened(&self) -> usize {
        self.opened
    }
}

/// The last opened bin.
struct NextFit {
    room: i64,
    opened: usize,
    slots: i64,
    segments: Segments,
}

impl Packer for NextFit {
    fn put(&mut self, need: i64, count: usize) -> Result<(usize, usize)> {
        if self.room < need {
            self.open();
            self.room = self.slots;
        }
        let bin = self.opened - 1;
        let (taken, room) = self.segments.add(bin, self.room, need, count);
        self.room = room;
        Ok((bin, taken))
    }

    fn open(&mut self) -> usize {
        self.opened += 1;
        self.room = CLOSED;
        self.opened - 1
    }

    fn opened(&self) -> usize {
        self.opened
    }
}
