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
/// Empty bins are added up to a multiple of `multiple`. Both outputs have an element per row; until they are done, they hold what planning needs.
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
/// let bins = pack_rows(&[3, 7, 2], &options, 1, &mut starts, &mut order)?;
/// assert_eq!((bins.count, bins.width, bins.in_order), (2, 8, false));
/// assert_eq!((starts, order), ([8, 0, 11], [1, 0, 2]));
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn pack_rows(
    lengths: &[i64],
    options: &Options,
    multiple: usize,
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
    let mut bins = memory::filled("bins", Bin::default(), plan.bins)?;
    let mut in_order = count_rows(starts, &mut bins);
    if lay(lengths, options, width, &mut bins, starts, order) {
        before_the_end(lengths, width, &bins, starts, order);
        in_order = false;
    }
    let cut = plan.longest > options.capacity && !alone;
    Ok(Bins { count, width, in_order, cut })
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
