//! Lengths and offsets for attention between two token arrays, exact, in O(T).
//!
//! The mask of `[q, kv]` tokens is never made. A q token attends to something iff its key is at least the
//! smallest kv key of its segment, and a kv token is attended to iff its key is at most the largest q
//! key; keys are what the causal mask compares. So two numbers per segment decide about every token:
//! one scan finds them, and only runs that they cut through are looked at again.

use std::collections::HashMap;

use crate::out::Out;
use crate::segments::{Columns, Ids, Problem};
use crate::{Error, Result, memory};

/// Which kv tokens of its segment a q token attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Those at its position or before.
    Causal,
    /// The same with both sides' positions counted from the end of their run.
    CausalBottomRight,
    /// All.
    Padding,
}

impl std::str::FromStr for Mask {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "causal" => Ok(Self::Causal),
            "causal_bottom_right" => Ok(Self::CausalBottomRight),
            "padding" => Ok(Self::Padding),
            _ => Err(Error::UnknownName { name: "mask", got: name.to_owned() }),
        }
    }
}

/// Positions within segments; one per id.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Positions<'a> {
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl Positions<'_> {
    fn len(&self) -> usize {
        match self {
            Self::I32(found) => found.len(),
            Self::I64(found) => found.len(),
        }
    }

    fn at(&self, token: usize) -> i64 {
        match self {
            Self::I32(found) => found[token].into(),
            Self::I64(found) => found[token],
        }
    }

    /// `(smallest, largest, whether they never fall)` of a span that is not empty.
    fn bounds(&self, start: usize, end: usize) -> (i64, i64, bool) {
        match self {
            Self::I32(found) => bounds(&found[start..end]),
            Self::I64(found) => bounds(&found[start..end]),
        }
    }
}

/// One side: ids, and positions unless the mask needs none.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// `[rows, width]` segment ids.
    pub ids: Ids<'a>,
    /// As many positions.
    pub positions: Option<Positions<'a>>,
}

/// Where a side's lengths and offsets go; see [`crate::segments::seqlens_and_offsets`].
pub struct Columned<'a, O> {
    /// `[rows, max_segments]`.
    pub seqlens: &'a mut [O],
    /// `[rows, max_segments + 1]`.
    pub offsets: &'a mut [O],
}

/// Lengths and offsets of the tokens that attend, and of those that are attended to.
///
/// ```
/// use rollkit::segments::{Bits, Ids};
/// use rollkit::thd::{Columned, Mask, Positions, Side, thd};
/// let ids = Ids { name: "ids", bits: Bits::U8(&[1, 1, 2, 2]), signed: false, rows: 1, width: 4 };
/// // The second of two ranks asks, with odd positions; the first has even ones, and all are attended to.
/// let q = Side { ids, positions: Some(Positions::I32(&[0, 2, 0, 2])) };
/// let kv = Side { ids, positions: Some(Positions::I32(&[1, 3, 1, 3])) };
/// let mut found = [[0; 2], [0; 2]];
/// let mut offsets = [[0; 3], [0; 3]];
/// let [q_lengths, kv_lengths] = &mut found;
/// let [q_offsets, kv_offsets] = &mut offsets;
/// let q_out = Columned { seqlens: &mut q_lengths[..], offsets: &mut q_offsets[..] };
/// let kv_out = Columned { seqlens: &mut kv_lengths[..], offsets: &mut kv_offsets[..] };
/// thd(&q, &kv, Mask::Causal, 2, true, q_out, kv_out)?;
/// assert_eq!((found, offsets), ([[1, 1], [1, 1]], [[1, 3, -1], [0, 2, -1]]));
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn thd<O: Out<i32>>(
    q: &Side<'_>,
    kv: &Side<'_>,
    mask: Mask,
    max_segments: usize,
    pair: bool,
    q_out: Columned<'_, O>,
    kv_out: Columned<'_, O>,
) -> Result<()> {
    let rows = q.ids.rows;
    if kv.ids.rows != rows {
        return Err(Error::RowCount { name: kv.ids.name, got: kv.ids.rows, wanted: rows });
    }
    let mut asking = Half::new(q, mask, max_segments, pair, q_out)?;
    let mut asked = Half::new(kv, mask, max_segments, pair, kv_out)?;
    let mut reach = Reach::default();
    for row in 0..rows {
        asking.scan(row)?;
        asked.scan(row)?;
        reach.measure(&asking.runs, &asked.runs)?;
        asking.write(row, |id| reach.of(id).map(|segment| (segment.lowest, i64::MAX)))?;
        asked.write(row, |id| reach.of(id).map(|segment| (i64::MIN, segment.highest)))?;
    }
    Ok(())
}

struct Run {
    id: i64,
    start: usize,
    end: usize,
    low: i64,
    high: i64,
    rising: bool,
    shift: i64,
}

/// One side, row by row.
struct Half<'a, O> {
    side: &'a Side<'a>,
    mask: Mask,
    runs: Vec<Run>,
    columns: Columns,
    out: Columned<'a, O>,
}

impl<'a, O: Out<i32>> Half<'a, O> {
    fn new(side: &'a Side<'a>, mask: Mask, max: usize, pair: bool, out: Columned<'a, O>) -> Result<Self> {
        let tokens = side.ids.bits.len();
        let positions = side.positions.map_or(0, |positions| positions.len());
        if positions != tokens && mask != Mask::Padding {
            return Err(Error::RowCount { name: "positions", got: positions, wanted: tokens });
        }
        let columns = Columns::new(&side.ids, max, pair, out.seqlens.len(), out.offsets.len())?;
        Ok(Self { side, mask, runs: Vec::new(), columns, out })
    }

    /// Finds the runs of a row, and the bounds of their keys.
    fn scan(&mut self, row: usize) -> Result<()> {
        let Self { side, mask, runs, .. } = self;
        let base = row * side.ids.width;
        let positions = side.positions.filter(|_| *mask != Mask::Padding);
        runs.clear();
        side.ids.visit(row, |id, start, end| {
            let (low, high, rising) =
                positions.map_or((0, 0, true), |found| found.bounds(base + start, base + end));
            let shift = if *mask == Mask::CausalBottomRight { (end - start) as i64 } else { 0 };
            let (low, high) = (low.saturating_sub(shift), high.saturating_sub(shift));
            memory::push("runs", runs, Run { id, start, end, low, high, rising, shift })
        })
    }

    /// Writes a row of what has keys within `bounds(id)`.
    fn write(&mut self, row: usize, bounds: impl Fn(i64) -> Option<(i64, i64)>) -> Result<()> {
        let Self { side, runs, columns, out, .. } = self;
        let base = row * side.ids.width;
        for run in runs.iter() {
            let Some((least, most)) = bounds(run.id) else { continue };
            let mut parts = 0;
            let mut keep = |start, end| {
                parts += 1;
                if columns.pair && parts > 1 {
                    return Err(side.ids.error(row, start, Problem::Split { id: run.id }));
                }
                columns.push(&side.ids, row, run.id, start, end)
            };
            if least <= run.low && run.high <= most {
                keep(run.start, run.end)?;
            } else if run.low <= most && least <= run.high {
                let Some(positions) = side.positions else { continue };
                let within = |token: usize| {
                    let key = positions.at(base + token).saturating_sub(run.shift);
                    least <= key && key <= most
                };
                pieces(run, within, &mut keep)?;
            }
        }
        columns.write(row, out.seqlens, out.offsets);
        Ok(())
    }
}

/// Calls `keep(start, end)` for the stretches of a run that are `within` one bound: above or below.
fn pieces(
    run: &Run,
    within: impl Fn(usize) -> bool,
    keep: &mut impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    if run.rising {
        let size = run.end - run.start;
        return if within(run.start) {
            keep(run.start, run.end - outside(size, |n| !within(run.end - 1 - n)))
        } else {
            keep(run.start + outside(size, |n| !within(run.start + n)), run.end)
        };
    }
    let mut begin = None;
    for token in run.start..run.end {
        match (within(token), begin) {
            (true, None) => begin = Some(token),
            (false, Some(start)) => {
                keep(start, token)?;
                begin = None;
            }
            _ => {}
        }
    }
    begin.map_or(Ok(()), |start| keep(start, run.end))
}

/// How many of `0..size` are `out`, which the first are and the others are not. Mostly that is one, or few.
fn outside(size: usize, out: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut step) = (0, 1);
    while low + step <= size && out(low + step - 1) {
        low += step;
        step *= 2;
    }
    let mut high = size.min(low + step - 1);
    while low < high {
        let middle = low.midpoint(high);
        if out(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[derive(Clone, Copy)]
struct Segment {
    /// The smallest key among kv tokens.
    lowest: i64,
    /// The largest key among q tokens.
    highest: i64,
    asks: bool,
    asked: bool,
}

const NOBODY: Segment = Segment { lowest: i64::MAX, highest: i64::MIN, asks: false, asked: false };

/// What is known of each segment of a row: in a table while ids are small, else hashed.
#[derive(Default)]
struct Reach {
    table: Vec<Segment>,
    others: HashMap<i64, Segment>,
}

impl Reach {
    /// Beyond this id, and beyond twice the runs, a table would be mostly empty.
    const SMALL: usize = 1 << 12;

    fn measure(&mut self, asking: &[Run], asked: &[Run]) -> Result<()> {
        let runs = || asking.iter().chain(asked);
        let largest = runs().map(|run| run.id as usize).max().unwrap_or(0);
        let size = largest.min(Self::SMALL.max(2 * (asking.len() + asked.len()))) + 1;
        self.table.clear();
        memory::make_room("segments", &mut self.table, size)?;
        self.table.resize(size, NOBODY);
        self.others.clear();
        let beyond = runs().filter(|run| run.id as usize >= size).count();
        let refused = |_| Error::NoMemory { name: "segments", got: beyond };
        self.others.try_reserve(beyond).map_err(refused)?;
        for run in asking {
            let segment = self.entry(run.id);
            segment.highest = segment.highest.max(run.high);
            segment.asks = true;
        }
        for run in asked {
            let segment = self.entry(run.id);
            segment.lowest = segment.lowest.min(run.low);
            segment.asked = true;
        }
        Ok(())
    }

    fn entry(&mut self, id: i64) -> &mut Segment {
        match self.table.get_mut(id as usize) {
            Some(segment) => segment,
            None => self.others.entry(id).or_insert(NOBODY),
        }
    }

    /// The segment, if both sides have it.
    fn of(&self, id: i64) -> Option<Segment> {
        let segment = self.table.get(id as usize).or_else(|| self.others.get(&id))?;
        (segment.asks && segment.asked).then_some(*segment)
    }
}

trait Position: Copy + Ord + Into<i64> + Default {
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    /// Whether `self`, with `steps` steps of at most `step` added, is still in range.
    fn reaches(self, step: Self, steps: usize) -> bool;
}

macro_rules! position {
    ($($type:ty),+) => {$(
        impl Position for $type {
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }

            fn or(self, other: Self) -> Self {
                self | other
            }

            fn reaches(self, step: Self, steps: usize) -> bool {
                step.checked_mul(steps as Self).and_then(|sum| self.checked_add(sum)).is_some()
            }
        }
    )+};
}
position!(i32, i64);

fn bounds<T: Position>(keys: &[T]) -> (i64, i64, bool) {
    if never_falls(keys) {
        return (keys[0].into(), keys[keys.len() - 1].into(), true);
    }
    let (low, high) = keys.iter().fold((keys[0], keys[0]), |(low, high), &key| (low.min(key), high.max(key)));
    (low.into(), high.into(), false)
}

/// Whether keys never fall, as far as can be told fast: huge steps count as falls.
fn never_falls<T: Position>(keys: &[T]) -> bool {
    let (chunks, rest) = keys.as_chunks::<CHUNK>();
    let mut last = keys[0];
    let mut goes_on = |first: T, end: T| {
        let rises = last <= first;
        last = end;
        rises
    };
    chunks.iter().all(|chunk| goes_on(chunk[0], chunk[CHUNK - 1]) && (steady(chunk) || rises(chunk)))
        && rest.first().is_none_or(|&first| goes_on(first, first) && rises(rest))
}

const CHUNK: usize = 512;

/// Whether keys go up by one step: positions mostly do, and this reads each once.
fn steady<T: Position>(keys: &[T; CHUNK]) -> bool {
    let step = keys[1].minus(keys[0]);
    let mut wanted = keys[0];
    let mut other = T::default();
    for &key in keys {
        other = other.or(key.minus(wanted));
        wanted = wanted.plus(step);
    }
    other == T::default() && step >= T::default() && keys[0].reaches(step, CHUNK)
}

/// Whether keys never fall, if no step is huge.
///
/// Subtracting and or-ing is what SSE2 can do with 64 bits; comparing is not. No step is above the OR of
/// all, so if that many of those stay in range then none has wrapped.
fn rises<T: Position>(keys: &[T]) -> bool {
    let steps = keys[1..].iter().zip(keys).map(|(&after, &before)| after.minus(before));
    let all = steps.fold(T::default(), T::or);
    all >= T::default() && keys[0].reaches(all, keys.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_rising_and_falling_keys() {
        for length in [1usize, 2, 255, 256, 257, 258, 1000] {
            let rising: Vec<i64> = (0..length as i64).collect();
            assert_eq!(bounds(&rising), (0, length as i64 - 1, true));
            let narrow: Vec<i32> = (0..length as i32).collect();
            assert_eq!(bounds(&narrow), (0, length as i64 - 1, true));
            for at in 0..length.saturating_sub(1) {
                let mut odd = narrow.clone();
                odd.swap(at, at + 1);
                assert_eq!(bounds(&odd), (0, length as i64 - 1, false), "{length} {at}");
            }
        }
    }

    #[test]
    fn counts_what_is_outside() {
        for size in 0..70 {
            for wanted in 0..=size {
                assert_eq!(outside(size, |n| n < wanted), wanted, "of {size}");
            }
        }
    }

    #[test]
    fn extreme_keys_do_not_wrap() {
        assert_eq!(bounds(&[i32::MAX, i32::MIN]), (i32::MIN.into(), i32::MAX.into(), false));
        assert_eq!(bounds(&[i64::MAX, i64::MIN]), (i64::MIN, i64::MAX, false));
        let (low, high, _) = bounds(&[i64::MIN, i64::MAX]);
        assert_eq!((low, high), (i64::MIN, i64::MAX));
    }
}
