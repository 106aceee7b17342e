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

use std::cell::Cell;

use crate::out::Out;
use crate::{Error, Result, memory};

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
            .filter(|&row| self.starts.get(row).is_some_and(|&start| start != ABSENT))
    }

    /// The order that `starts` and `lengths` ask for, sorted from `self.order`; `None` where rows already
    /// are in it. Of rows with one start, the empty ones come first. Then checks all as [`Slots::check`].
    ///
    /// An order that is the orders of several layouts, one after the other, is merged in linear time.
    pub fn sorted(&self) -> Result<Option<Vec<i64>>> {
        same_count("lengths", self.lengths.len(), self.starts.len())?;
        self.check_order()?;
        let order = (!self.ascending()).then(|| match self.order {
            Some(order) => self.sort(order.iter().copied()),
            None => self.sort(0..self.starts.len() as i64),
        });
        let order = order.transpose()?;
        Slots { order: order.as_deref(), ..*self }.check()?;
        Ok(order)
    }

    fn sort(&self, rows: impl Iterator<Item = i64>) -> Result<Vec<i64>> {
        // Keys beside their rows: sorting looks up none. A key past `u64` is of a start that is refused, and so
        // is a row that there is not, which another thread has written to the order since its check.
        let key = |row: i64| {
            let at = row as usize;
            let (start, length) = (self.starts.get(at).copied(), self.lengths.get(at).copied());
            (start.unwrap_or(0).wrapping_add(1) as u64) << 1 | u64::from(length != Some(0))
        };
        let mut keyed = memory::collected("rows", rows.map(|row| (key(row), row)))?;
        memory::available::<(u64, i64)>("rows", keyed.len())?;
        keyed.sort_by_key(|pair| pair.0); // stable: merges what is sorted already
        Ok(keyed.into_iter().map(|pair| pair.1).collect()) // in the same memory
    }

    /// Whether rows that have a place are in order as they are.
    fn ascending(&self) -> bool {
        let mut last = (ABSENT, 0);
        self.starts.iter().zip(self.lengths).filter(|(start, _)| **start != ABSENT).all(
            |(&start, &length)| {
                let (before, taken) = std::mem::replace(&mut last, (start, length));
                before < start || (before == start && taken == 0)
            },
        )
    }

    fn check_order(&self) -> Result<()> {
        let count = self.starts.len();
        let Some(order) = self.order else { return Ok(()) };
        same_count("order", order.len(), count)?;
        match order.iter().position(|&row| usize::try_from(row).map_or(true, |row| row >= count)) {
            Some(i) => Err(Error::OutsideSource { row: i, begin: order[i], length: 1, available: count }),
            None => Ok(()),
        }
    }

    /// Checks that rows lie within the output, do not overlap, and are visited once each.
    pub fn check(&self) -> Result<()> {
        let count = self.starts.len();
        same_count("lengths", self.lengths.len(), count)?;
        self.check_order()?;
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
pub fn walk<'a, O, E: From<Error>>(
    slots: &Slots<'_>,
    item: usize,
    out: &'a mut [O],
    mut gap: impl FnMut(&'a mut [O]),
    mut row: impl FnMut(usize, &'a mut [O]) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = out;
    let mut free = 0;
    for r in slots.rows() {
        let (start, length) = (slots.starts[r], slots.lengths[r]);
        let refused = || Error::OutsideOutput { row: r, start, length, size: slots.size };
        let (skipped, taken, tail) = cut(rest, item, start.wrapping_sub(free), length).ok_or_else(refused)?;
        rest = tail;
        free = start + length;
        if !skipped.is_empty() {
            gap(skipped);
        }
        row(r, taken)?;
    }
    gap(rest);
    Ok(())
}

/// The first `skipped` elements, the `taken` after them, and the rest. `None` where there are not so many:
/// another thread may write to a layout after its check.
fn cut<O>(rest: &mut [O], item: usize, skipped: i64, taken: i64) -> Option<(&mut [O], &mut [O], &mut [O])> {
    let bytes = |elements| usize::try_from(elements).ok()?.checked_mul(item);
    let (skipped, rest) = rest.split_at_mut_checked(bytes(skipped)?)?;
    let (taken, rest) = rest.split_at_mut_checked(bytes(taken)?)?;
    Some((skipped, taken, rest))
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

/// Positions: from `begins` (0) on within each row, gaps are 0.
pub fn positions<O: Out<i32>>(slots: &Slots<'_>, begins: Option<&[i64]>, out: &mut [O]) -> Result<()> {
    if let Some(begins) = begins {
        same_count("begins", begins.len(), slots.lengths.len())?;
    }
    let begin = |row: usize| begins.map_or(0, |begins| begins[row]);
    let longest = i64::from(i32::MAX);
    let fits = |row: usize, length: i64| {
        begin(row) >= 0 && begin(row).checked_add(length).is_some_and(|end| end <= longest)
    };
    if let Some(row) = (0..slots.lengths.len()).find(|&row| !fits(row, slots.lengths[row])) {
        let length = begin(row).saturating_add(slots.lengths[row]);
        return Err(Error::RowTooLong { row, length, capacity: longest });
    }
    read_off(slots, out, |row, slot| {
        for (position, value) in (begin(row)..).zip(slot.iter_mut()) {
            value.set(position as i32);
        }
    })
}

/// What each element is seen until: `ends[row]` within a row, in gaps itself, so that nothing sees it; both from
/// the beginning of its run of `width` elements on.
pub fn visible_until<O: Out<i32>>(
    slots: &Slots<'_>,
    ends: &[i64],
    width: usize,
    out: &mut [O],
) -> Result<()> {
    same_count("ends", ends.len(), slots.lengths.len())?;
    prepare(slots, 1, out.len())?;
    let longest = i64::from(i32::MAX);
    let line = i64::try_from(width.clamp(1, out.len().max(1))).unwrap_or(i64::MAX);
    if line > longest {
        return Err(Error::RowTooLong { row: 0, length: line, capacity: longest });
    }
    let width = line;
    let fits = |row: usize, end: i64| {
        let start = slots.starts[row];
        start == ABSENT || (start <= end && end - start / width * width <= longest)
    };
    if let Some(row) = (0..ends.len()).find(|&row| !fits(row, ends[row])) {
        return Err(Error::RowTooLong { row, length: ends[row], capacity: longest });
    }
    let at = Cell::new(0i64);
    let gap = |gap: &mut [O]| {
        for (element, value) in (at.get()..).zip(gap.iter_mut()) {
            value.set((element % width) as i32);
        }
        at.set(at.get() + gap.len() as i64);
    };
    walk(slots, 1, out, gap, |row, slot| {
        O::fill(slot, (ends[row] - at.get() / width * width) as i32);
        at.set(at.get() + slot.len() as i64);
        Ok(())
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

/// Which part of each row to lay: `lengths` elements from `begins` on (one begin per row, or one for all).
#[derive(Debug, Clone, Copy)]
pub struct Spans<'a> {
    /// First element of the part within its row.
    pub begins: &'a [i64],
    /// Elements of the part.
    pub lengths: &'a [i64],
}

/// Writes where a part of each row is: its start, and how many of its elements have been placed.
///
/// `rows` has the elements of each row, of which `slots` may place fewer. A part that was cut off whole
/// has no place; an empty one starts where its row does. So the order of `slots` is that of the parts.
pub fn spans<O: Out<i64>>(
    slots: &Slots<'_>,
    rows: &[i64],
    part: Spans<'_>,
    starts: &mut [O],
    lengths: &mut [O],
) -> Result<()> {
    let count = slots.starts.len();
    let one = part.begins.len() == 1;
    let begins = if one { count } else { part.begins.len() };
    for (name, got) in [
        ("lengths", part.lengths.len()),
        ("begins", begins),
        ("placed lengths", slots.lengths.len()),
        ("row_lengths", rows.len()),
        ("out", starts.len()),
        ("out", lengths.len()),
    ] {
        same_count(name, got, count)?;
    }
    for (row, (start, length)) in starts.iter_mut().zip(lengths).enumerate() {
        let (begin, wanted) = (part.begins[if one { 0 } else { row }], part.lengths[row]);
        let end = begin.checked_add(wanted).filter(|&end| begin >= 0 && wanted >= 0 && end <= rows[row]);
        if end.is_none() {
            return Err(Error::OutsidePart { row, begin, length: wanted, available: rows[row] });
        }
        let kept = slots.lengths[row].saturating_sub(begin).clamp(0, wanted);
        let present = slots.starts[row] != ABSENT && (kept > 0 || wanted == 0);
        start.set(match (present, kept) {
            (false, _) => ABSENT,
            (true, 0) => slots.starts[row],
            (true, _) => slots.starts[row].saturating_add(begin),
        });
        length.set(if present { kept } else { 0 });
    }
    Ok(())
}

/// Checks that a buffer of `got` bytes holds `size` elements of `item` bytes.
pub(crate) fn same_size(name: &'static str, got: usize, size: usize, item: usize) -> Result<()> {
    let wanted = size.checked_mul(item).ok_or(Error::TooManyElements { row: 0 })?;
    if got == wanted { Ok(()) } else { Err(Error::BufferSize { name, got, wanted }) }
}
