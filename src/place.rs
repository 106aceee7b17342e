//! The one kernel that moves rows: it writes every output element once, the row's bytes or the fill.
//!
//! Concatenating is placing rows end to end; padding and packing place them with gaps; taking rows
//! back out of a batch is placing again, end to end, with the batch as the source.

use crate::cast::Cast;
use crate::layout::{self, Slots};
use crate::out::Out;
use crate::{Error, Result};

/// Rows of one buffer: row `i` begins at element `begins[i]`. How long it is, the layout says.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The elements.
    pub bytes: &'a [u8],
    /// The first element of each row.
    pub begins: &'a [i64],
}

/// Parts whose rows count through, as if they had been concatenated.
#[derive(Debug)]
pub struct Rows<'a> {
    parts: Vec<Part<'a>>,
    /// The number of the first row of each part, and of the row after the last.
    firsts: Vec<usize>,
    item: usize,
}

impl<'a> Rows<'a> {
    /// Rows of elements of `item` bytes.
    #[must_use]
    pub fn new(parts: Vec<Part<'a>>, item: usize) -> Self {
        let mut count = 0;
        let mut firsts = Vec::with_capacity(parts.len() + 1);
        firsts.push(0);
        for part in &parts {
            count += part.begins.len();
            firsts.push(count);
        }
        Self { parts, firsts, item }
    }

    /// How many rows there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.firsts[self.parts.len()]
    }

    /// The first `length` elements of `row`; `hint` is the part of the last call, where to look first.
    fn get(&self, row: usize, length: i64, hint: &mut usize) -> Result<&'a [u8]> {
        let within = |part: usize| (self.firsts[part]..self.firsts[part + 1]).contains(&row);
        if !within(*hint) {
            let next = *hint + 1;
            *hint = if next < self.parts.len() && within(next) {
                next
            } else {
                self.firsts.partition_point(|&first| first <= row) - 1
            };
        }
        let part = self.parts[*hint];
        let begin = part.begins[row - self.firsts[*hint]];
        let range = usize::try_from(begin).ok().and_then(|begin| {
            let end = begin.checked_add(usize::try_from(length).ok()?)?;
            Some(begin.checked_mul(self.item)?..end.checked_mul(self.item)?)
        });
        range.and_then(|range| part.bytes.get(range)).ok_or_else(|| Error::OutsideSource {
            row,
            begin,
            length,
            available: part.bytes.len().checked_div(self.item).unwrap_or(0),
        })
    }
}

/// How elements get from a row to the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mover {
    /// As they are.
    Copy,
    /// To another dtype, checked.
    Cast(Cast),
}

/// Writes `rows` to `out` where `slots` says, and `fill`, one element's bytes, everywhere else.
///
/// On an error of the layout or of the sources nothing has been written. A value that does not fit is
/// found on the way, when earlier rows have been.
pub fn place<O: Out<u8>>(
    rows: &Rows<'_>,
    slots: &Slots<'_>,
    fill: &[u8],
    mover: Mover,
    out: &mut [O],
) -> Result<()> {
    let item = match mover {
        Mover::Copy => rows.item,
        Mover::Cast(cast) => rows.item / cast.from_size() * cast.to_size(),
    };
    if fill.len() != item {
        return Err(Error::BufferSize { name: "fill", got: fill.len(), wanted: item });
    }
    if rows.count() != slots.starts.len() {
        return Err(Error::RowCount { name: "the layout", got: slots.starts.len(), wanted: rows.count() });
    }
    layout::prepare(slots, item, out.len())?;
    let mut hint = 0;
    for row in slots.rows() {
        rows.get(row, slots.lengths[row], &mut hint)?;
    }
    hint = 0;
    layout::walk(
        slots,
        item,
        out,
        |gap| fill_with(fill, gap),
        |row, slot| {
            let source = rows.get(row, slots.lengths[row], &mut hint)?;
            match mover {
                Mover::Copy => {
                    O::copy(slot, source);
                    Ok(())
                }
                Mover::Cast(cast) => cast.run(source, slot).map_err(|bad| Error::ValueRange {
                    row,
                    position: bad.position / (rows.item / cast.from_size()).max(1),
                    value: bad.value,
                    dtype: cast.to.name(),
                }),
            }
        },
    )
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
