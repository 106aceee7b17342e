//! The one kernel that moves rows: it writes every output element once, the row's bytes or the fill.
//!
//! Concatenating is placing rows end to end; padding and packing place them with gaps; taking rows
//! back out of a batch is placing again, end to end, with the batch as the source.

use crate::cast::{BadValue, Cast};
use crate::layout::{self, Slots};
use crate::out::Out;
use crate::{Error, Result, memory};

/// Rows of one buffer: row `i` is `lengths[i]` elements from element `begins[i]` on.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The elements.
    pub bytes: &'a [u8],
    /// The bytes of an element.
    pub item: usize,
    /// The first element of each row.
    pub begins: &'a [i64],
    /// The elements of each row.
    pub lengths: &'a [i64],
}

impl<'a> Part<'a> {
    /// Appends the bytes of each row to `rows`; its row numbers go on from there.
    pub fn append_to(self, rows: &mut Vec<&'a [u8]>) -> Result<()> {
        memory::make_room("rows", rows, self.begins.len())?;
        for (&begin, &length) in self.begins.iter().zip(self.lengths) {
            let row = elements(self.bytes, self.item, begin, length).ok_or_else(|| Error::OutsideSource {
                row: rows.len(),
                begin,
                length,
                available: self.bytes.len().checked_div(self.item).unwrap_or(0),
            })?;
            rows.push(row);
        }
        Ok(())
    }

    /// [`Part::append_to`] of rows that lie end to end: row `i` ends at `offsets[i + 1]`.
    pub fn append_ragged(
        bytes: &'a [u8],
        item: usize,
        offsets: &[i64],
        rows: &mut Vec<&'a [u8]>,
    ) -> Result<()> {
        memory::make_room("rows", rows, offsets.len())?;
        for pair in offsets.windows(2) {
            let (begin, length) = (pair[0], pair[1].saturating_sub(pair[0]));
            let row = elements(bytes, item, begin, length).ok_or_else(|| Error::OutsideSource {
                row: rows.len(),
                begin,
                length,
                available: bytes.len().checked_div(item).unwrap_or(0),
            })?;
            rows.push(row);
        }
        Ok(())
    }
}

/// Pieces of rows: piece `i` is `lengths[i]` elements of row `source_rows[i]`, from its element
/// `begins[i]` on.
#[derive(Debug, Clone, Copy)]
pub struct Pieces<'a> {
    /// The row that each piece is of.
    pub source_rows: &'a [i64],
    /// The first element of each piece, within its row.
    pub begins: &'a [i64],
    /// The elements of each piece.
    pub lengths: &'a [i64],
}

impl Pieces<'_> {
    /// The bytes of each piece of `rows`, whose elements have `item` bytes.
    pub fn of<'a>(self, rows: &[&'a [u8]], item: usize) -> Result<Vec<&'a [u8]>> {
        layout::same_count("source_rows", self.source_rows.len(), self.lengths.len())?;
        layout::same_count("begins", self.begins.len(), self.lengths.len())?;
        let pieces = self.source_rows.iter().zip(self.begins).zip(self.lengths).enumerate();
        let pieces = pieces.map(|(piece, ((&row, &begin), &length))| {
            let bytes = usize::try_from(row).ok().and_then(|row| rows.get(row));
            let bytes = bytes.ok_or(Error::UnknownRow { piece, row, rows: rows.len() })?;
            elements(bytes, item, begin, length).ok_or_else(|| {
                let available = bytes.len().checked_div(item).unwrap_or(0);
                Error::OutsideRow { piece, row, begin, length, available }
            })
        });
        let mut found = memory::with_room("pieces", self.lengths.len())?;
        for piece in pieces {
            found.push(piece?);
        }
        Ok(found)
    }

    /// An error of a value, told of the row that its piece is of.
    #[must_use]
    pub fn in_rows(self, error: Error) -> Error {
        match error {
            Error::ValueRange { row: piece, position, value, dtype } => {
                let (row, begin) = (self.source_rows[piece] as usize, self.begins[piece] as usize);
                Error::ValueRange { row, position: begin.wrapping_add(position), value, dtype }
            }
            other => other,
        }
    }
}

/// The bytes of `length` elements from `begin` on, where there are so many.
fn elements(bytes: &[u8], item: usize, begin: i64, length: i64) -> Option<&[u8]> {
    let (begin, length) = (usize::try_from(begin).ok()?, usize::try_from(length).ok()?);
    let end = begin.checked_add(length)?;
    bytes.get(begin.checked_mul(item)?..end.checked_mul(item)?)
}

/// How elements get from a row to the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mover {
    /// As they are.
    Copy,
    /// To another dtype, checked.
    Cast(Cast),
}

impl Mover {
    /// Bytes of an element before, where it has `item` after.
    #[must_use]
    pub fn source_item(self, item: usize) -> usize {
        match self {
            Self::Copy => item,
            Self::Cast(cast) => item / cast.to_size() * cast.from_size(),
        }
    }

    /// Writes all of `source` to `slot`.
    pub(crate) fn run<O: Out<u8>>(self, source: &[u8], slot: &mut [O]) -> Result<(), BadValue> {
        match self {
            Self::Copy => {
                O::copy(slot, source);
                Ok(())
            }
            Self::Cast(cast) => cast.run(source, slot),
        }
    }

    /// The error for a value among those from element `begin` of a row on.
    pub(crate) fn refused(self, bad: &BadValue, row: usize, begin: usize, source_item: usize) -> Error {
        let (number, dtype) = match self {
            Self::Copy => (1, ""),
            Self::Cast(cast) => (cast.from_size(), cast.to.name()),
        };
        // Elements have inner dimensions; positions count elements.
        let position = begin + bad.position * number / source_item.max(1);
        Error::ValueRange { row, position, value: bad.value.clone(), dtype }
    }
}

/// What is to be where no row goes.
#[derive(Debug, Clone, Copy)]
pub enum Gaps<'a> {
    /// One element's bytes, again and again.
    Fill(&'a [u8]),
    /// What is there: memory fresh from the system is zero, and its pages cost nothing until they are
    /// written to. Elements have so many bytes.
    Leave(usize),
}

impl Gaps<'_> {
    /// The bytes of an element.
    pub(crate) fn item(self) -> usize {
        match self {
            Self::Fill(fill) => fill.len(),
            Self::Leave(item) => item,
        }
    }

    /// Writes a gap.
    pub(crate) fn write<O: Out<u8>>(self, gap: &mut [O]) {
        match self {
            Self::Fill(fill) if !gap.is_empty() => fill_with(fill, gap),
            _ => {}
        }
    }
}

/// Asks for so many cache lines of memory that is read soon. Safe Rust has no way to, so callers bring it.
pub type Prefetch = fn(*const i8, usize);

/// How many rows ahead their bytes are asked for, and how many lines of them.
pub(crate) const AHEAD: usize = 16;
pub(crate) const LINES: usize = 4;
/// How many rows ahead it is looked up where those bytes are.
pub(crate) const FAR_AHEAD: usize = 2 * AHEAD;

/// Writes `rows` to `out` where `slots` says, and what `gaps` says everywhere else.
///
/// A row has the bytes of its `slots.lengths` elements. On an error of the layout nothing has been
/// written; a value that does not fit is found on the way, when earlier rows have been.
///
/// ```
/// use rollkit::{layout::Slots, place::{Gaps, Mover, place}};
///
/// let slots = Slots { starts: &[0, 4], lengths: &[3, 2], order: None, size: 6 };
/// let mut out = [0u8; 6];
/// place(&[b"abc", b"de"], &slots, Gaps::Fill(b"."), Mover::Copy, &mut out)?;
/// assert_eq!(&out, b"abc.de");
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn place<O: Out<u8>>(
    rows: &[&[u8]],
    slots: &Slots<'_>,
    gaps: Gaps<'_>,
    mover: Mover,
    out: &mut [O],
) -> Result<()> {
    place_ahead(rows, slots, gaps, mover, |_, _| (), out)
}

/// [`place`], which asks for the bytes of rows before it comes to them: short rows in another order than
/// that of their memory are a third faster.
pub fn place_ahead<O: Out<u8>>(
    rows: &[&[u8]],
    slots: &Slots<'_>,
    gaps: Gaps<'_>,
    mover: Mover,
    prefetch: impl Fn(*const i8, usize),
    out: &mut [O],
) -> Result<()> {
    let item = gaps.item();
    let source_item = mover.source_item(item);
    layout::prepare(slots, item, out.len())?;
    layout::same_count("rows", rows.len(), slots.starts.len())?;
    for (row, (bytes, &length)) in rows.iter().zip(slots.lengths).enumerate() {
        let wanted = (length as usize).wrapping_mul(source_item);
        if bytes.len() != wanted && slots.starts[row] != layout::ABSENT {
            return Err(Error::RowBytes { row, got: bytes.len(), wanted });
        }
    }
    let (mut soon, mut later) = (ahead(slots, AHEAD), ahead(slots, FAR_AHEAD));
    layout::walk(
        slots,
        item,
        out,
        |gap| gaps.write(gap),
        |row, slot| {
            // Lengths are read again for the slot, and another thread may have written to them.
            if rows[row].len().wrapping_mul(item) != slot.len().wrapping_mul(source_item) {
                return Err(Error::Changed { name: "lengths" });
            }
            if let Some(later) = later.next() {
                prefetch((&raw const rows[later]).cast(), 1);
            }
            if let Some(soon) = soon.next() {
                prefetch(rows[soon].as_ptr().cast(), LINES);
            }
            mover.run(rows[row], slot).map_err(|bad| mover.refused(&bad, row, 0, source_item))
        },
    )
}

/// The rows that come so many rows later; none where rows are in order, which memory keeps up with.
fn ahead<'a>(slots: &'a Slots<'_>, rows: usize) -> impl Iterator<Item = usize> + 'a {
    slots.rows().skip(rows).take(slots.order.map_or(0, <[i64]>::len))
}

/// Writes rows end to end: [`place`] without a layout, for which a hundred thousand short rows, where
/// looking at each costs as much as copying it, are a third faster.
pub fn join<O: Out<u8>>(rows: &[&[u8]], out: &mut [O]) -> Result<()> {
    let (got, wanted) = (out.len(), rows.iter().map(|row| row.len()).sum());
    if got != wanted {
        return Err(Error::BufferSize { name: "out", got, wanted });
    }
    let mut rest = out;
    for row in rows {
        let (slot, tail) = rest.split_at_mut(row.len());
        O::copy(slot, row);
        rest = tail;
    }
    Ok(())
}

/// Repeats `fill` over `gap`, whose length is a multiple of it.
fn fill_with<O: Out<u8>>(fill: &[u8], gap: &mut [O]) {
    if let Some((&first, rest)) = fill.split_first()
        && rest.iter().all(|&byte| byte == first)
    {
        O::fill(gap, first);
        return;
    }
    match fill.len() {
        0 => {}
        2 => fill_chunks::<2, O>(fill, gap),
        4 => fill_chunks::<4, O>(fill, gap),
        8 => fill_chunks::<8, O>(fill, gap),
        size => {
            for chunk in gap.chunks_exact_mut(size) {
                O::copy(chunk, fill);
            }
        }
    }
}

/// With the size known, the compiler makes wide stores of it.
fn fill_chunks<const N: usize, O: Out<u8>>(fill: &[u8], gap: &mut [O]) {
    let Some(pattern) = fill.first_chunk::<N>() else { return };
    for chunk in gap.as_chunks_mut::<N>().0 {
        O::copy(chunk, pattern);
    }
}
