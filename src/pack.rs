//! Rows to slots in bins: [`binpack`] says which bin, here is where in it.
//!
//! ```text
//! lengths 3 0 7 2 0, capacity 8     bin 0 │ 2 2 2 2 2 2 2 . │      rows 4 and 1 are empty
//!                                   bin 1 │ 0 0 0 3 3 . . . │
//! ```
//!
//! Rows fill their bin in input order. An empty row starts where the row before it ends, unless that is
//! the end of its bin: there the next line begins. Then it starts where the last row of its bin that has
//! elements does, and comes before it.

use crate::binpack::{self, Options, Oversize};
use crate::layout::{ABSENT, same_count};
use crate::order::Permutation;
use crate::out::Out;
use crate::{Error, Result, memory};

/// The output that rows were laid in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bins {
    /// How many bins there are, empty ones at the end included.
    pub count: usize,
    /// Elements of a bin: the capacity, or of the longest row where that is laid alone.
    pub width: i64,
    /// Whether rows start in input order.
    pub in_order: bool,
    /// Whether a row is longer than its slot: cut, or dropped.
    pub cut: bool,
}

/// Plans bins and writes the start of each row, [`ABSENT`] for a dropped one, and rows by ascending start.
///
/// Bins are in the order they are opened, or in one that the key `shuffle` decides. Empty bins are added at the end, up
/// to a multiple of `multiple`. Both outputs have an element per row; until they are done, they hold what planning needs.
///
/// ```
/// use rollkit::binpack::{Algorithm, Options, Oversize};
/// use rollkit::pack::pack_rows;
///
/// let options = Options {
///     capacity: 8,
///     align: 1,
///     max_segments: None,
///     algorithm: Algorithm::FirstFitDecreasing,
///     oversize: Oversize::Raise,
/// };
/// let (mut starts, mut order) = ([0; 3], [0; 3]);
/// let bins = pack_rows(&[3, 7, 2], &options, 1, None, &mut starts, &mut order)?;
/// assert_eq!((bins.count, bins.width, bins.in_order), (2, 8, false));
/// assert_eq!((starts, order), ([8, 0, 11], [1, 0, 2]));
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn pack_rows(
    lengths: &[i64],
    options: &Options,
    multiple: usize,
    shuffle: Option<u64>,
    starts: &mut [i64],
    order: &mut [i64],
) -> Result<Bins> {
    same_count("starts", starts.len(), lengths.len())?;
    same_count("order", order.len(), lengths.len())?;
    if multiple == 0 {
        return Err(Error::NotPositive { name: "bins_multiple_of", got: 0 });
    }
    let plan = binpack::plan(lengths, options, order, starts)?;
    let alone = options.oversize == Oversize::Alone;
    let width = if alone { options.capacity.max(plan.longest) } else { options.capacity };
    let count = plan.bins.checked_next_multiple_of(multiple);
    let elements = count.and_then(|count| i64::try_from(count).ok()?.checked_mul(width));
    let (Some(count), Some(_)) = (count, elements) else {
        return Err(too_many(lengths, plan.bins, width, multiple));
    };
    if let Some(seed) = shuffle {
        renumber(starts, plan.bins, seed)?;
    }
    let mut bins = memory::filled("bins", Bin::default(), plan.bins)?;
    let mut in_order = count_rows(starts, &mut bins);
    if lay(lengths, options, width, &mut bins, starts, order) {
        before_the_end(lengths, width, &bins, starts, order);
        in_order = false;
    }
    let cut = plan.longest > options.capacity && !alone;
    Ok(Bins { count, width, in_order, cut })
}

/// Gives bins other numbers: those of a keyed permutation.
fn renumber(found: &mut [i64], bins: usize, seed: u64) -> Result<()> {
    let opened = memory::collected("bins", 0..bins as i64)?;
    let mut numbers = memory::filled("bins", 0i64, bins)?;
    Permutation::new(bins as u64, seed, 0).apply(&opened, false, &mut numbers)?;
    for bin in found.iter_mut().filter(|bin| **bin != ABSENT) {
        *bin = numbers[*bin as usize];
    }
    Ok(())
}

/// Of bins beyond all numbers: the rows' own are too many, or those that are added.
fn too_many(lengths: &[i64], bins: usize, width: i64, multiple: usize) -> Error {
    match i64::try_from(bins).ok().and_then(|bins| bins.checked_mul(width)) {
        Some(_) => Error::TooManyBins { multiple, width },
        None => Error::TooManyElements { row: lengths.len().saturating_sub(1) },
    }
}

/// Writes the elements that are placed of each row; see [`Bins::cut`].
pub fn placed(lengths: &[i64], options: &Options, out: &mut [impl Out<i64>]) {
    for (&length, slot) in lengths.iter().zip(out) {
        slot.set(options.placed(length));
    }
}

/// How many pieces [`split`] makes of rows.
pub fn count_pieces(lengths: &[i64], capacity: i64) -> Result<usize> {
    if capacity < 1 {
        return Err(Error::NotPositive { name: "capacity", got: capacity });
    }
    let mut count = 0_usize;
    for (row, &length) in lengths.iter().enumerate() {
        let length = u64::try_from(length).map_err(|_| Error::NegativeLength { row, got: length })?;
        let pieces = length.div_ceil(capacity as u64).max(1) as usize;
        count = count.checked_add(pieces).ok_or(Error::TooManyElements { row })?;
    }
    Ok(count)
}

/// Cuts rows into pieces of at most `capacity` elements: full ones first, and what is left. Writes the row of each
/// piece, its first element within that, and its length; [`count_pieces`] says how many there are.
///
/// ```
/// use rollkit::pack::split;
///
/// let ([mut rows, mut begins], mut lengths) = ([[0; 4]; 2], [0; 4]);
/// split(&[2, 9], 4, &mut rows, &mut begins, &mut lengths)?;
/// assert_eq!((rows, begins, lengths), ([0, 1, 1, 1], [0, 0, 4, 8], [2, 4, 4, 1]));
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn split<O: Out<i64>>(
    lengths: &[i64],
    capacity: i64,
    rows: &mut [O],
    begins: &mut [O],
    pieces: &mut [O],
) -> Result<()> {
    let count = count_pieces(lengths, capacity)?;
    for (name, got) in [("rows", rows.len()), ("begins", begins.len()), ("pieces", pieces.len())] {
        same_count(name, got, count)?;
    }
    let mut slots = rows.iter_mut().zip(begins).zip(pieces);
    for (row, &length) in lengths.iter().enumerate() {
        let mut begin = 0;
        loop {
            let piece = (length - begin).min(capacity);
            // Another thread may have made the row longer since it was counted.
            let ((r, b), p) = slots.next().ok_or(Error::Changed { name: "lengths" })?;
            r.set(row as i64);
            b.set(begin);
            p.set(piece);
            begin += piece;
            if begin >= length {
                break;
            }
        }
    }
    // … or shorter.
    if slots.next().is_some() { Err(Error::Changed { name: "lengths" }) } else { Ok(()) }
}

/// A bin while rows are laid in it.
#[derive(Clone, Copy, Default)]
struct Bin {
    /// Where in `order` its next row goes.
    next: usize,
    /// Elements that have been taken.
    used: i64,
}

/// Tells bins where in `order` their rows begin, behind those that have no place; and whether the bins of
/// rows never fall.
fn count_rows(found: &[i64], bins: &mut [Bin]) -> bool {
    let mut absent = 0;
    let mut last = 0;
    let mut ascending = true;
    for &bin in found {
        if bin == ABSENT {
            absent += 1;
            continue;
        }
        bins[bin as usize].next += 1;
        ascending &= last <= bin;
        last = bin;
    }
    let mut begin = absent;
    for bin in bins {
        (bin.next, begin) = (begin, begin + bin.next);
    }
    ascending
}

/// Turns the bins in `starts` into starts. Whether an empty row came to a bin that was full.
fn lay(
    lengths: &[i64],
    options: &Options,
    width: i64,
    bins: &mut [Bin],
    starts: &mut [i64],
    order: &mut [i64],
) -> bool {
    let mut absent = 0;
    let mut late = false;
    for (row, (&length, start)) in lengths.iter().zip(starts).enumerate() {
        if *start == ABSENT {
            order[absent] = row as i64;
            absent += 1;
            continue;
        }
        let bin = &mut bins[*start as usize];
        order[bin.next] = row as i64;
        bin.next += 1;
        late |= length == 0 && bin.used == width;
        *start = (*start * width).wrapping_add(bin.used);
        bin.used = options.next_start(bin.used.wrapping_add(options.placed(length)), width);
    }
    late
}

/// Moves the empty rows at the end of a full bin to the start of its last row, and before that in `order`.
fn before_the_end(lengths: &[i64], width: i64, bins: &[Bin], starts: &mut [i64], order: &mut [i64]) {
    for (number, bin) in bins.iter().enumerate().filter(|(_, bin)| bin.used == width) {
        let begin = if number == 0 { 0 } else { bins[number - 1].next };
        let rows = &mut order[begin..bin.next];
        let Some(last) = rows.iter().rposition(|&row| lengths[row as usize] > 0) else { continue };
        let start = starts[rows[last] as usize];
        for &row in &rows[last + 1..] {
            starts[row as usize] = start;
        }
        rows[last..].rotate_left(1);
    }
}
