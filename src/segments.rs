//! One scan over segment ids: [`Runs`], and the lengths and offsets that attention kernels take.
//!
//! ```text
//! ids      1 1 1 0 2 2 0 0      0 is padding, others are positive
//! runs     (1, 0, 3)  (2, 4, 2)  id, start, length
//! seqlens  3 2 0                 by id, 0 where there is none
//! offsets  0 4 -1 -1             by appearance, -1 where there is none
//! ```
//!
//! A *run* is a longest stretch of one id that is not 0, within its row. All else is read off runs.

use std::fmt;
use std::ops::{BitOr, BitXor};

use crate::layout::{Slots, prepare, same_count, walk};
use crate::out::Out;
use crate::{Error, Result, memory};

/// An offset that is not used.
pub const UNUSED: i32 = -1;

/// An id as bits: a scan only asks "equal?" and "zero?".
pub trait Id: Copy + Default + PartialEq + BitOr<Output = Self> + BitXor<Output = Self> {
    /// The number; below zero if it is no id.
    fn number(self, signed: bool) -> i64;
}

macro_rules! id {
    ($($unsigned:ty, $signed:ty);+) => {$(
        impl Id for $unsigned {
            #[allow(clippy::cast_lossless)] // it is for 64 bits, where there is no `From`
            fn number(self, signed: bool) -> i64 {
                // An unsigned 64-bit id beyond i64 comes out negative, and is refused as such.
                if signed { self as $signed as i64 } else { self as i64 }
            }
        }
    )+};
}
id!(u8, i8; u16, i16; u32, i32; u64, i64);

/// Ids of any integer dtype.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Bits<'a> {
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
}

impl Bits<'_> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(ids) => ids.len(),
            Self::U16(ids) => ids.len(),
            Self::U32(ids) => ids.len(),
            Self::U64(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `[rows, width]` segment ids.
#[derive(Debug, Clone, Copy)]
pub struct Ids<'a> {
    /// The argument they came as, for errors.
    pub name: &'static str,
    /// The ids, row after row.
    pub bits: Bits<'a>,
    /// Whether the dtype is signed.
    pub signed: bool,
    /// How many rows there are.
    pub rows: usize,
    /// Ids of a row.
    pub width: usize,
}

impl Ids<'_> {
    /// Checks that the ids are `[rows, width]`.
    pub fn check(&self) -> Result<()> {
        let wanted = self.rows.checked_mul(self.width).ok_or(Error::TooManyElements { row: self.rows })?;
        same_count(self.name, self.bits.len(), wanted)
    }

    /// Calls `visit(id, start, end)` for each run of a row, within the row.
    pub fn visit(&self, row: usize, visit: impl FnMut(i64, usize, usize) -> Result<()>) -> Result<()> {
        let span = row * self.width..(row + 1) * self.width;
        match self.bits {
            Bits::U8(ids) => self.visit_row(row, &ids[span], visit),
            Bits::U16(ids) => self.visit_row(row, &ids[span], visit),
            Bits::U32(ids) => self.visit_row(row, &ids[span], visit),
            Bits::U64(ids) => self.visit_row(row, &ids[span], visit),
        }
    }

    fn visit_row<T: Id>(
        &self,
        row: usize,
        ids: &[T],
        mut visit: impl FnMut(i64, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let mut start = 0;
        while start < ids.len() {
            // At least one: another thread may write to ids meanwhile, and this has to end.
            let end = start + run_length(&ids[start..]).max(1);
            let id = ids[start].number(self.signed);
            if id < 0 {
                return Err(self.error(row, start, Problem::Negative { id, signed: self.signed }));
            }
            if id > 0 {
                visit(id, start, end)?;
            }
            start = end;
        }
        Ok(())
    }

    pub(crate) fn error(&self, row: usize, position: usize, problem: Problem) -> Error {
        Error::Segment { name: self.name, row, position, problem }
    }
}

/// How many ids from the first on are the same.
fn run_length<T: Id>(ids: &[T]) -> usize {
    // Near steps first: a far one that ends early has read much for nothing.
    const NEAR: usize = 16;
    const FAR: usize = 128;
    let id = ids[0];
    let near = &ids[..ids.len().min(4 * NEAR)];
    let mut length = NEAR * same_chunks::<NEAR, T>(id, near);
    if length == 4 * NEAR {
        length += FAR * same_chunks::<FAR, T>(id, &ids[length..]);
        length += NEAR * same_chunks::<NEAR, T>(id, &ids[length..]);
    }
    length + ids[length..].iter().take_while(|&&other| other == id).count()
}

fn same_chunks<const N: usize, T: Id>(id: T, ids: &[T]) -> usize {
    let same = |chunk: &[T; N]| chunk.iter().fold(T::default(), |acc, &other| acc | (other ^ id));
    ids.as_chunks::<N>().0.iter().take_while(|chunk| same(chunk) == T::default()).count()
}

/// Every run of `[rows, width]` ids, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    /// The id of each run.
    pub ids: Vec<i64>,
    /// The flat index of its first token.
    pub starts: Vec<i64>,
    /// Its tokens.
    pub lengths: Vec<i64>,
}

/// Finds every run.
///
/// ```
/// use rollkit::segments::{Bits, Ids, runs};
/// let bits = Bits::U32(&[1, 1, 1, 0, 2, 2, 0, 0]);
/// let found = runs(&Ids { name: "ids", bits, signed: false, rows: 1, width: 8 })?;
/// assert_eq!((found.ids, found.starts, found.lengths), (vec![1, 2], vec![0, 4], vec![3, 2]));
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn runs(ids: &Ids<'_>) -> Result<Runs> {
    ids.check()?;
    let mut found = Runs::default();
    let rows = if ids.width == 0 { 0 } else { ids.rows }; // of empty rows there may be any number
    for row in 0..rows {
        let base = row * ids.width;
        ids.visit(row, |id, start, end| {
            memory::push("runs", &mut found.ids, id)?;
            memory::push("runs", &mut found.starts, (base + start) as i64)?;
            memory::push("runs", &mut found.lengths, (end - start) as i64)
        })?;
    }
    Ok(found)
}

/// Lengths by id, `[rows, max_segments]`, and offsets by appearance, `[rows, max_segments + 1]`.
///
/// With `pair`, every id must be above the one before it and at most `max_segments`, so that the
/// n-th length above zero belongs to the n-th offset; without, ids beyond `max_segments` have no length
/// and runs beyond `max_segments + 1` no offset.
pub fn seqlens_and_offsets<O: Out<i32>>(
    ids: &Ids<'_>,
    max_segments: usize,
    pair: bool,
    seqlens: &mut [O],
    offsets: &mut [O],
) -> Result<()> {
    let mut columns = Columns::new(ids, max_segments, pair, seqlens.len(), offsets.len())?;
    for row in 0..ids.rows {
        ids.visit(row, |id, start, end| columns.push(ids, row, id, start, end))?;
        columns.write(row, seqlens, offsets);
    }
    Ok(())
}

/// The lengths and offsets of one row, as they are found.
pub(crate) struct Columns {
    seqlens: Vec<i32>,
    offsets: Vec<i32>,
    last: i64,
    pub(crate) pair: bool,
}

impl Columns {
    pub(crate) fn new(
        ids: &Ids<'_>,
        max_segments: usize,
        pair: bool,
        seqlens: usize,
        offsets: usize,
    ) -> Result<Self> {
        ids.check()?;
        same_count("seqlens", seqlens, ids.rows * max_segments)?;
        same_count("offsets", offsets, ids.rows * (max_segments + 1))?;
        if i32::try_from(ids.width).is_err() {
            return Err(Error::TooManyElements { row: 0 });
        }
        let seqlens = memory::filled("max_segments", 0, max_segments)?;
        let offsets = memory::with_room("max_segments", max_segments + 1)?;
        Ok(Self { seqlens, offsets, last: 0, pair })
    }

    /// Takes the next run of a row: tokens `start..end`.
    pub(crate) fn push(
        &mut self,
        ids: &Ids<'_>,
        row: usize,
        id: i64,
        start: usize,
        end: usize,
    ) -> Result<()> {
        if self.pair {
            let max = self.seqlens.len();
            if id > max as i64 {
                return Err(ids.error(row, start, Problem::Beyond { id, max }));
            }
            if id <= self.last {
                let again = self.seqlens[id as usize - 1] > 0;
                return Err(ids.error(row, start, Problem::Order { id, last: self.last, again }));
            }
            self.last = id;
        }
        if let Some(length) = usize::try_from(id - 1).ok().and_then(|slot| self.seqlens.get_mut(slot)) {
            *length += (end - start) as i32;
        }
        if self.offsets.len() <= self.seqlens.len() {
            self.offsets.push(start as i32);
        }
        Ok(())
    }

    /// Writes the row, and starts the next.
    pub(crate) fn write<O: Out<i32>>(&mut self, row: usize, seqlens: &mut [O], offsets: &mut [O]) {
        let max = self.seqlens.len();
        O::copy(&mut seqlens[row * max..][..max], &self.seqlens);
        let (used, unused) = offsets[row * (max + 1)..][..=max].split_at_mut(self.offsets.len());
        O::copy(used, &self.offsets);
        O::fill(unused, UNUSED);
        self.seqlens.fill(0);
        self.offsets.clear();
        self.last = 0;
    }
}

/// Writes `values[row]` to each row's elements, 0 in gaps.
pub fn fill<O: Out<i32>>(slots: &Slots<'_>, values: &[i64], out: &mut [O]) -> Result<()> {
    prepare(slots, 1, out.len())?;
    same_count("values", values.len(), slots.starts.len())?;
    walk(
        slots,
        1,
        out,
        |gap| O::fill(gap, 0),
        |row, slot| {
            let refused =
                |_| Error::ValueRange { row, position: 0, value: values[row].to_string(), dtype: "int32" };
            O::fill(slot, i32::try_from(values[row]).map_err(refused)?);
            Ok(())
        },
    )
}

/// Segment ids of segments that lie end to end: 1, 1, 1, 2, 2, … and 0 after the last.
///
/// ```
/// let mut ids = [9; 6];
/// rollkit::segments::ids_from_lengths(&[3, 0, 2], &mut ids)?;
/// assert_eq!(ids, [1, 1, 1, 3, 3, 0]);
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn ids_from_lengths<O: Out<i32>>(lengths: &[i64], out: &mut [O]) -> Result<()> {
    end_to_end(lengths, out, |row| [row as i32 + 1; LANES], |_| {})
}

/// Positions in segments that lie end to end: 0, 1, 2, 0, 1, … and 0 after the last.
pub fn positions_from_lengths<O: Out<i32>>(lengths: &[i64], out: &mut [O]) -> Result<()> {
    let first = std::array::from_fn(|lane| lane as i32);
    end_to_end(lengths, out, |_| first, |lanes| lanes.iter_mut().for_each(|lane| *lane += LANES as i32))
}

const LANES: usize = 16;

/// Writes each segment in whole vectors. What is written beyond its end is written over by the next one:
/// for short segments that takes a fraction of the time of loops that end where they must.
fn end_to_end<O: Out<i32>>(
    lengths: &[i64],
    out: &mut [O],
    first: impl Fn(usize) -> [i32; LANES],
    step: impl Fn(&mut [i32; LANES]),
) -> Result<()> {
    if i32::try_from(lengths.len()).is_err() {
        return Err(Error::TooManyElements { row: i32::MAX as usize });
    }
    let size = out.len();
    let mut start = 0;
    for (row, &length) in lengths.iter().enumerate() {
        let count = usize::try_from(length).map_err(|_| Error::NegativeLength { row, got: length })?;
        if count > size - start {
            return Err(Error::OutsideOutput { row, start: start as i64, length, size });
        }
        let end = start + count;
        let mut lanes = first(row);
        while start < end {
            match out.get_mut(start..start + LANES) {
                Some(chunk) => O::copy(chunk, &lanes),
                None => O::copy(&mut out[start..end], &lanes[..end - start]),
            }
            step(&mut lanes);
            start += LANES;
        }
        start = end;
    }
    O::fill(&mut out[start..], 0);
    Ok(())
}

/// What is wrong with segment ids.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// An id is below zero, or beyond `i64`.
    Negative {
        /// The id, in 64 bits.
        id: i64,
        /// Whether they are those of a signed number.
        signed: bool,
    },
    /// An id is beyond `max_segments`.
    Beyond {
        /// The id.
        id: i64,
        /// `max_segments`.
        max: usize,
    },
    /// An id is not above the one before it, so lengths (by id) and offsets (by appearance) do not pair.
    Order {
        /// The id.
        id: i64,
        /// The one before.
        last: i64,
        /// Whether the id was there before.
        again: bool,
    },
    /// Positions leave out tokens amid a run, so that it counts as several.
    Split {
        /// The id.
        id: i64,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Negative { id, signed } => {
                // As an unsigned number, what is negative here is beyond `i64`.
                let number = if *signed { i128::from(*id) } else { i128::from(*id as u64) };
                write!(f, "{number} is no segment id; ids are 0 (padding) to 2**63 - 1")
            }
            Self::Beyond { id, max } => {
                write!(
                    f,
                    "segment id {id} is beyond max_segments={max}; raise max_segments to the largest id"
                )
            }
            Self::Order { id, last, again } => {
                let what = if *again { "is entered again" } else { "comes" };
                write!(
                    f,
                    "segment id {id} {what} after id {last}; lengths go by id and offsets by appearance, so ids must rise: renumber them, or pass on_reentry=\"te\""
                )
            }
            Self::Split { id } => {
                write!(
                    f,
                    "segment id {id} goes on after tokens that do not count, as positions within it do not rise; one length and one offset cannot say that: sort its tokens, or pass on_reentry=\"te\""
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_lengths_at_every_edge() {
        for length in (1..700).chain([4096]) {
            let mut ids = vec![7u32; length];
            assert_eq!(run_length(&ids), length);
            ids.extend([0; 300]);
            assert_eq!(run_length(&ids), length);
        }
    }

    #[test]
    fn numbers_keep_their_sign() {
        assert_eq!(0xffu8.number(true), -1);
        assert_eq!(0xffu8.number(false), 255);
        assert!(u64::MAX.number(false) < 0);
    }
}
