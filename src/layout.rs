//! Where rows go in an output: [`Slots`], its invariants, and what can be read off it.
//!
//! ```text
//! size = 2 bins × 8        bin 0 │ 0 0 0 2 2 . . . │
//!                          bin 1 │ 1 1 1 1 1 1 1 . │      '.' is a gap
//! starts  = [0, 8, 3]
//! lengths = [3, 7, 2]      order = [0, 2, 1]: rows by ascending start
//! ```
//!
//! [`walk`] visits gaps and rows of an output in memory order and hands out each as its own mutable
//! slice, so nothing built on it can write an element twice, or leave one unwritten.

use crate::out::Out;
use crate::{Error, Result};

/// The start of a row that has no place in the output (it was dropped).
pub const ABSENT: i64 = -1;

/// Where each row goes in an output of `size` elements.
#[derive(Debug, Clone, Copy)]
pub struct Slots<'a> {
    /// First element of each row in the output, or [`ABSENT`].
    pub starts: &'a [i64],
    /// Elements of each row.
    pub lengths: &'a [i64],
    /// Rows by ascending start; `None` where they already are.
    pub order: Option<&'a [i64]>,
    /// Elements of the output.
    pub size: usize,
}

impl Slots<'_> {
    /// The rows that have a place, by ascending start. Call [`Slots::check`] first.
    pub fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.starts.len())
            .map(|i| self.order.map_or(i, |order| order[i] as usize))
            .filter(|&row| self.starts[row] != ABSENT)
    }

    /// Checks that rows lie within the output, do not overlap, and are visited once each.
    pub fn check(&self) -> Result<()> {
        let count = self.starts.len();
        same_count("lengths", self.lengths.len(), count)?;
        if let Some(order) = self.order {
            same_count("order", order.len(), count)?;
            let valid = |row: &&i64| usize::try_from(**row).is_ok_and(|row| row < count);
            if let Some(i) = order.iter().position(|row| !valid(&row)) {
                return Err(Error::OutsideSource { row: i, begin: order[i], length: 1, available: count });
            }
        }
        let mut free = 0usize;
        let mut placed = 0usize;
        for row in self.rows() {
            let (start, length) = (self.starts[row], self.lengths[row]);
            if length < 0 {
                return Err(Error::NegativeLength { row, got: length });
            }
            let end = start.checked_add(length).filter(|&end| start >= 0 && end as u64 <= self.size as u64);
            let Some(end) = end else {
                return Err(Error::OutsideOutput { row, start, length, size: self.size });
            };
            if (start as usize) < free {
                return Err(Error::Overlap { row, start, free });
            }
            free = end as usize;
            placed += length as usize;
        }
        // Disjoint rows can repeat in `order` only where they are empty, and then another is missing.
        let mut wanted = 0usize;
        for (row, (&start, &length)) in self.starts.iter().zip(self.lengths).enumerate() {
            if start != ABSENT {
                let length =
                    usize::try_from(length).map_err(|_| Error::NegativeLength { row, got: length })?;
                wanted = wanted.saturating_add(length);
            }
        }
        same_count("order", placed, wanted)
    }
}

/// Visits an output in memory order: `gap(slice)` for what no row takes, `row(row, slice)` for rows.
///
/// `slots` must have passed [`Slots::check`], and `out` must have `slots.size × item` elements.
pub fn walk<'a, O, E>(
    slots: &Slots<'_>,
    item: usize,
    out: &'a mut [O],
    mut gap: impl FnMut(&'a mut [O]),
    mut row: impl FnMut(usize, &'a mut [O]) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = out;
    let mut free = 0;
    for r in slots.rows() {
        let start = slots.starts[r] as usize;
        let (skipped, tail) = rest.split_at_mut((start - free) * item);
        let (taken, tail) = tail.split_at_mut(slots.lengths[r] as usize * item);
        rest = tail;
        free = start + slots.lengths[r] as usize;
        if !skipped.is_empty() {
            gap(skipped);
        }
        row(r, taken)?;
    }
    gap(rest);
    Ok(())
}

/// Segment ids: rows are numbered from 1 within each run of `width` elements, gaps are 0.
pub fn segment_ids<O: Out<i32>>(slots: &Slots<'_>, width: usize, out: &mut [O]) -> Result<()> {
    let mut line = 0;
    let mut number = 0;
    read_off(slots, out, |row, slot| {
        let at = slots.starts[row] as usize / width.max(1);
        number = if at == line { number + 1 } else { 1 };
        line = at;
        O::fill(slot, number);
    })
}

/// Positions: 0, 1, 2, … within each row, gaps are 0.
pub fn positions<O: Out<i32>>(slots: &Slots<'_>, out: &mut [O]) -> Result<()> {
    let longest = i64::from(i32::MAX);
    if let Some(row) = slots.lengths.iter().position(|&length| length > longest) {
        return Err(Error::RowTooLong { row, length: slots.lengths[row], capacity: longest });
    }
    read_off(slots, out, |_, slot| {
        for (position, value) in slot.iter_mut().enumerate() {
            value.set(position as i32);
        }
    })
}

/// Attention mask: 1 where a row is, 0 in gaps.
pub fn mask<O: Out<u8>>(slots: &Slots<'_>, out: &mut [O]) -> Result<()> {
    read_off(slots, out, |_, slot| O::fill(slot, 1))
}

/// Lets `row` write rows, and writes 0 in gaps.
fn read_off<T: Copy + Default, O: Out<T>>(
    slots: &Slots<'_>,
    out: &mut [O],
    mut row: impl FnMut(usize, &mut [O]),
) -> Result<()> {
    prepare(slots, 1, out.len())?;
    let gap = |gap: &mut [O]| O::fill(gap, T::default());
    walk(slots, 1, out, gap, |number, slot| {
        row(number, slot);
        Ok(())
    })
}

/// Checks the layout and that `out` has its elements.
pub(crate) fn prepare(slots: &Slots<'_>, item: usize, out: usize) -> Result<()> {
    slots.check()?;
    same_size("out", out, slots.size, item)
}

pub(crate) fn same_count(name: &'static str, got: usize, wanted: usize) -> Result<()> {
    if got == wanted { Ok(()) } else { Err(Error::RowCount { name, got, wanted }) }
}

/// Starts of rows that fill bins of `width` elements in input order, each at a multiple of `align`
/// within its bin; a row with bin [`ABSENT`] has no place. An empty row starts where its bin does: a full
/// bin ends where the next one starts.
pub fn pack_starts<O: Out<i64>>(
    lengths: &[i64],
    bins: &[i64],
    width: i64,
    align: i64,
    out: &mut [O],
) -> Result<()> {
    same_count("bins", bins.len(), lengths.len())?;
    same_count("starts", out.len(), lengths.len())?;
    if align < 1 {
        return Err(Error::NotPositive { name: "align", got: align });
    }
    let mut used = vec![0i64; lengths.len()]; // there are no more bins than rows
    for (row, ((&length, &bin), start)) in lengths.iter().zip(bins).zip(out).enumerate() {
        if bin == ABSENT {
            start.set(ABSENT);
            continue;
        }
        let Some(used) = usize::try_from(bin).ok().and_then(|bin| used.get_mut(bin)) else {
            return Err(Error::OutsideOutput { row, start: bin, length, size: lengths.len() });
        };
        let end = used.checked_add(length).filter(|&end| length >= 0 && end <= width);
        let Some(end) = end else { return Err(Error::RowTooLong { row, length, capacity: width - *used }) };
        let within = if length == 0 { 0 } else { *used };
        let at = bin.checked_mul(width).and_then(|base| base.checked_add(within));
        start.set(at.ok_or(Error::TooManyElements { row })?);
        // The last row of a bin may end unaligned, where the bin's width does.
        *used = (end as u64).next_multiple_of(align as u64).min(width as u64) as i64;
    }
    Ok(())
}

/// Checks that a buffer of `got` bytes holds `size` elements of `item` bytes.
pub(crate) fn same_size(name: &'static str, got: usize, size: usize, item: usize) -> Result<()> {
    let wanted = size.checked_mul(item).ok_or(Error::TooManyElements { row: 0 })?;
    if got == wanted { Ok(()) } else { Err(Error::BufferSize { name, got, wanted }) }
}
