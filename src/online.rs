//! Rows that arrive one by one to bins, with a look ahead at a few: the state is those few.
//!
//! ```text
//! look ahead   waiting 5 2 7 3, capacity 8      the oldest begins a bin      │ 5 . . .
//!              waiting 2 7 3 4                  the longest that fits        │ 5 3 │
//!              waiting 2 7 4 6                  none does: the bin is out, the oldest begins the next
//! ```
//!
//! A row is taken only while `buffer` of them wait, so that each choice is among as many. Without that, a bin of more
//! rows than wait is filled with what is left. As the oldest begins each bin, a row is passed over by at most
//! `buffer` - 1 bins that are begun after it came.
//!
//! Best fit holds `buffer` open bins instead: a row goes to the one with the least room that is enough, and where none
//! has it, the oldest is out and the row begins a new one.

use std::collections::VecDeque;
use std::str::FromStr;

use crate::binpack::{slots, touched};
use crate::{Error, Result, memory};

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Rows do: the longest that fits goes to the one open bin.
    LookAhead,
    /// Bins do: a row goes to the fullest in which it fits.
    BestFit,
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "look_ahead" => Self::LookAhead,
            "best_fit" => Self::BestFit,
            _ => return Err(Error::UnknownName { name: "policy", got: name.to_owned() }),
        })
    }
}

/// How to pack. `align` and `max_segments` are those of [`binpack`](crate::binpack).
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Elements a bin holds.
    pub capacity: i64,
    /// Rows that wait, or open bins.
    pub buffer: usize,
    /// What waits.
    pub policy: Policy,
    /// A row is out once so many have come after it.
    pub max_wait: Option<u64>,
    /// Rows a bin holds, empty ones included.
    pub max_segments: Option<usize>,
    /// Elements of a slot.
    pub align: i64,
}

/// Bins that are complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bins {
    /// The rows of all, bin after bin, each in the order in which they were put there.
    pub rows: Vec<i64>,
    /// Where each bin ends.
    pub ends: Vec<i64>,
}

/// A row that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// What the caller calls it.
    pub number: i64,
    /// Its elements.
    pub length: i64,
    /// How many came before it.
    pub came: u64,
}

impl Row {
    /// Of rows that fit, the last by this is taken: the longest, of these the oldest.
    fn rank(self) -> Rank {
        rank(self.length, u64::MAX - self.came)
    }
}

/// A bin that is being filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bin {
    /// The slots that are free.
    pub room: i64,
    /// When the row came that began it, the oldest in it and in all later bins.
    pub came: u64,
    /// Its rows.
    pub rows: Vec<i64>,
}

/// A packer of rows that arrive one by one.
///
/// ```
/// use rollkit::online::{Bins, Options, Packer, Policy};
///
/// let options = Options {
///     capacity: 8,
///     buffer: 2,
///     policy: Policy::LookAhead,
///     max_wait: None,
///     max_segments: None,
///     align: 1,
/// };
/// let mut packer = Packer::new(options)?;
/// let mut bins = Bins::default();
/// packer.extend(&[0, 1, 2, 3], &[5, 7, 3, 1], &mut bins)?;
/// assert_eq!((&bins.rows[..], &bins.ends[..]), (&[0, 2][..], &[2][..]));
/// packer.flush(&mut bins)?;
/// assert_eq!(bins.rows, [0, 2, 1, 3]);
/// # Ok::<(), rollkit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Packer {
    options: Options,
    slots: i64,
    /// Rows that have come.
    added: u64,
    /// Rows that wait, by [`Row::rank`].
    waiting: Sorted,
    /// Rows by age: those that wait, and those behind the oldest of them that do no longer.
    ages: VecDeque<Aged>,
    /// Bins by age.
    bins: VecDeque<Bin>,
    /// Of best fit, bins with room for a row, by that and by number; and the number of the oldest bin.
    rooms: Sorted,
    first: u64,
}

/// A row that came, and whether it waits no longer.
#[derive(Debug, Clone, Copy)]
struct Aged {
    row: Row,
    taken: bool,
}

/// A number of 0 or more, and another where there are several of it, as one that compares without a branch.
type Rank = u128;

fn rank(number: i64, other: u64) -> Rank {
    (number as u128) << 64 | u128::from(other)
}

fn parts(rank: Rank) -> (i64, u64) {
    ((rank >> 64) as i64, rank as u64)
}

/// Ranks in their order. They are few, so that moving all behind one costs less than a tree.
#[derive(Debug, Clone, Default)]
struct Sorted(Vec<Rank>);

impl Sorted {
    fn insert(&mut self, rank: Rank) -> Result<()> {
        memory::make_room("rows", &mut self.0, 1)?;
        let at = self.below(rank);
        self.0.insert(at, rank);
        Ok(())
    }

    fn remove(&mut self, rank: Rank) {
        let at = self.below(rank);
        if self.0.get(at) == Some(&rank) {
            self.0.remove(at);
        }
    }

    /// How many ranks are below one.
    fn below(&self, rank: Rank) -> usize {
        self.0.partition_point(|&other| other < rank)
    }
}

impl Packer {
    /// One without a row.
    pub fn new(options: Options) -> Result<Self> {
        let segments = options.max_segments.map_or(1, |most| i64::try_from(most).unwrap_or(i64::MAX));
        let buffer = i64::try_from(options.buffer).unwrap_or(i64::MAX);
        let all = [("capacity", options.capacity), ("buffer", buffer), ("align", options.align)];
        for (name, got) in all.into_iter().chain([("max_segments", segments)]) {
            if got < 1 {
                return Err(Error::NotPositive { name, got });
            }
        }
        Ok(Self {
            options,
            slots: slots(options.capacity, options.align),
            added: 0,
            waiting: Sorted::default(),
            ages: VecDeque::new(),
            bins: VecDeque::new(),
            rooms: Sorted::default(),
            first: 0,
        })
    }

    /// One that goes on where another was: what [`Packer::added`], [`Packer::waiting`] and [`Packer::bins`] said.
    /// `None` if it can never have been there.
    pub fn resumed(options: Options, added: u64, waiting: Vec<Row>, bins: Vec<Bin>) -> Result<Option<Self>> {
        let mut packer = Self::new(options)?;
        let fits = |row: &Row| (0..=options.capacity).contains(&row.length) && row.came < added;
        let whole = |bin: &Bin| {
            let rows = 1..=options.max_segments.unwrap_or(usize::MAX);
            (0..=packer.slots).contains(&bin.room) && bin.came < added && rows.contains(&bin.rows.len())
        };
        let few = match options.policy {
            Policy::LookAhead => waiting.len() < options.buffer && bins.len() <= 1,
            Policy::BestFit => waiting.is_empty() && bins.len() <= options.buffer,
        };
        let by_age = waiting.is_sorted_by(|a, b| a.came < b.came)
            && bins.is_sorted_by(|a, b| a.came < b.came)
            && bins.first().zip(waiting.first()).is_none_or(|(bin, row)| bin.came < row.came);
        if !(few
            && i64::try_from(added).is_ok()
            && by_age
            && waiting.iter().all(fits)
            && bins.iter().all(whole))
        {
            return Ok(None);
        }
        packer.added = added;
        for row in waiting {
            packer.wait(row)?;
        }
        memory::available::<Bin>("bins", bins.len())?;
        for bin in bins {
            packer.hold(bin)?;
        }
        Ok(Some(packer))
    }

    /// How many rows have come.
    #[must_use]
    pub fn added(&self) -> u64 {
        self.added
    }

    /// How many rows have come and are not out.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.waiting.0.len() + self.bins.iter().map(|bin| bin.rows.len()).sum::<usize>()
    }

    /// Rows that wait, the oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = Row> {
        self.ages.iter().filter(|aged| !aged.taken).map(|aged| aged.row)
    }

    /// Bins that are being filled, the oldest first.
    pub fn bins(&self) -> impl Iterator<Item = &Bin> {
        self.bins.iter()
    }

    /// Adds rows, and appends the bins that are complete then. Where a row is refused, none is added.
    pub fn extend(&mut self, rows: &[i64], lengths: &[i64], out: &mut Bins) -> Result<()> {
        if rows.len() != lengths.len() {
            return Err(Error::RowCount { name: "lengths", got: lengths.len(), wanted: rows.len() });
        }
        for (row, &length) in lengths.iter().enumerate() {
            self.check(row, length)?;
        }
        for (row, (&number, &length)) in rows.iter().zip(lengths).enumerate() {
            self.check(row, length)?; // another thread may have written to it meanwhile
            self.put(number, length, out)?;
        }
        Ok(())
    }

    /// Appends the bins of all rows that are left, full or not.
    pub fn flush(&mut self, out: &mut Bins) -> Result<()> {
        while self.pending() > 0 {
            self.complete(out)?;
        }
        Ok(())
    }

    fn check(&self, row: usize, length: i64) -> Result<()> {
        if length < 0 {
            return Err(Error::NegativeLength { row, got: length });
        }
        if length > self.options.capacity {
            return Err(Error::RowTooLong { row, length, capacity: self.options.capacity });
        }
        Ok(())
    }

    /// Adds a row that is no longer than a bin.
    fn put(&mut self, number: i64, length: i64, out: &mut Bins) -> Result<()> {
        let row = Row { number, length, came: self.added };
        match self.options.policy {
            Policy::LookAhead => {
                self.wait(row)?;
                self.added += 1;
                while self.waiting.0.len() >= self.options.buffer {
                    if !self.take_longest()? {
                        self.out(out)?;
                        self.begin()?;
                    }
                }
            }
            Policy::BestFit => {
                self.added += 1;
                self.put_in_fullest(row, out)?;
            }
        }
        if let Some(most) = self.options.max_wait {
            while self.oldest().is_some_and(|came| self.added - came > most) {
                self.complete(out)?;
            }
        }
        Ok(())
    }

    fn need(&self, length: i64) -> i64 {
        touched(length, self.options.align).min(self.slots)
    }

    /// Where in `ages` the row is that came then.
    fn age(&self, came: u64) -> usize {
        // All follow each other, but for those of a packer that went on where another was.
        let near = self.ages.front().map_or(0, |first| (came - first.row.came) as usize);
        match self.ages.get(near) {
            Some(aged) if aged.row.came == came => near,
            _ => self.ages.partition_point(|aged| aged.row.came < came),
        }
    }

    /// When the oldest row came that is not out: it has begun the oldest bin, or is to begin one.
    fn oldest(&self) -> Option<u64> {
        let bin = self.bins.front().map(|bin| bin.came);
        bin.or_else(|| self.waiting().next().map(|row| row.came))
    }

    /// Lets a row wait, the last of all that have come.
    fn wait(&mut self, row: Row) -> Result<()> {
        self.ages.try_reserve(1).map_err(|_| Error::NoMemory { name: "rows", got: self.ages.len() })?;
        self.waiting.insert(row.rank())?;
        self.ages.push_back(Aged { row, taken: false });
        Ok(())
    }

    /// Fills the oldest bin with what is there, and hands it out.
    fn complete(&mut self, out: &mut Bins) -> Result<()> {
        if self.bins.is_empty() {
            self.begin()?;
        }
        while self.take_longest()? {}
        self.out(out)
    }

    /// Puts the longest waiting row that fits into the open bin, of equally long ones the oldest.
    fn take_longest(&mut self) -> Result<bool> {
        let Some(bin) = self.bins.front_mut() else { return Ok(false) };
        if self.options.max_segments.is_some_and(|most| bin.rows.len() >= most) {
            return Ok(false);
        }
        let room = if bin.room == self.slots { self.options.capacity } else { bin.room * self.options.align };
        let Some(at) = self.waiting.below(rank(room, u64::MAX)).checked_sub(1) else { return Ok(false) };
        memory::make_room("rows", &mut bin.rows, 1)?;
        let (length, age) = parts(self.waiting.0.remove(at));
        bin.room -= touched(length, self.options.align).min(self.slots);
        let at = self.age(u64::MAX - age);
        let aged = &mut self.ages[at];
        aged.taken = true;
        self.bins[0].rows.push(aged.row.number);
        Ok(true)
    }

    /// Begins a bin with the oldest waiting row.
    fn begin(&mut self) -> Result<()> {
        let Some(row) = self.waiting().next() else { return Ok(()) };
        self.open(row)?;
        self.waiting.remove(row.rank());
        self.ages.drain(..=self.age(row.came));
        Ok(())
    }

    /// Begins a bin with a row.
    fn open(&mut self, row: Row) -> Result<()> {
        let mut rows = memory::with_room("rows", 8)?;
        rows.push(row.number);
        self.hold(Bin { room: self.slots - self.need(row.length), came: row.came, rows })
    }

    fn hold(&mut self, bin: Bin) -> Result<()> {
        self.bins.try_reserve(1).map_err(|_| Error::NoMemory { name: "bins", got: self.bins.len() })?;
        if self.takes_more(&bin) {
            self.rooms.insert(rank(bin.room, self.first + self.bins.len() as u64))?;
        }
        self.bins.push_back(bin);
        Ok(())
    }

    /// Whether best fit may put one more row into a bin.
    fn takes_more(&self, bin: &Bin) -> bool {
        let full = self.options.max_segments.is_some_and(|most| bin.rows.len() >= most);
        self.options.policy == Policy::BestFit && !full
    }

    fn put_in_fullest(&mut self, row: Row, out: &mut Bins) -> Result<()> {
        let need = self.need(row.length);
        let Some(&fullest) = self.rooms.0.get(self.rooms.below(rank(need, 0))) else {
            if self.bins.len() >= self.options.buffer {
                self.out(out)?;
            }
            return self.open(row);
        };
        let (room, number) = parts(fullest);
        let at = (number - self.first) as usize;
        memory::push("rows", &mut self.bins[at].rows, row.number)?;
        self.bins[at].room -= need;
        self.rooms.remove(fullest);
        if self.takes_more(&self.bins[at]) {
            self.rooms.insert(rank(room - need, number))?;
        }
        Ok(())
    }

    /// Hands out the oldest bin, if there is one.
    fn out(&mut self, out: &mut Bins) -> Result<()> {
        let Some(bin) = self.bins.front() else { return Ok(()) };
        memory::make_room("rows", &mut out.rows, bin.rows.len())?;
        out.rows.extend_from_slice(&bin.rows);
        memory::push("bins", &mut out.ends, out.rows.len() as i64)?;
        self.rooms.remove(rank(bin.room, self.first));
        self.bins.pop_front();
        self.first += 1;
        Ok(())
    }
}
