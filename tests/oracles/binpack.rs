//! The packers of the textbook: quadratic, each row looks at every open bin.

use std::cmp::Reverse;

use rollkit::binpack::{Algorithm, Options, Oversize};
use rollkit::layout::ABSENT;

/// Quadratic: each row looks at every open bin.
pub fn reference(lengths: &[i64], options: &Options) -> Vec<i64> {
    struct Bin {
        room: i64,
        rows: usize,
        closed: bool,
    }
    let slots = (options.capacity / options.align).max(1);
    let counted = |row: usize| match options.oversize {
        Oversize::Truncate => lengths[row].min(options.capacity),
        _ => lengths[row],
    };
    let mut order = (0..lengths.len()).collect::<Vec<_>>();
    if matches!(options.algorithm, Algorithm::FirstFitDecreasing | Algorithm::BestFitDecreasing) {
        order.sort_by_key(|&row| Reverse(counted(row)));
    }
    let mut bins = Vec::<Bin>::new();
    let mut out = vec![ABSENT; lengths.len()];
    for row in order {
        let closed = counted(row) > options.capacity;
        if closed && options.oversize == Oversize::Drop {
            continue;
        }
        let need = ((counted(row) + options.align - 1) / options.align).min(slots);
        let fits = |bin: &Bin| {
            !closed
                && !bin.closed
                && bin.room >= need
                && options.max_segments.is_none_or(|most| bin.rows < most)
        };
        let mut fitting = (0..bins.len()).filter(|&bin| fits(&bins[bin]));
        let found = match options.algorithm {
            Algorithm::NextFit => fitting.find(|&bin| bin + 1 == bins.len()),
            Algorithm::BestFitDecreasing => fitting.min_by_key(|&bin| bins[bin].room),
            _ => fitting.next(),
        };
        let bin = found.unwrap_or_else(|| {
            bins.push(Bin { room: slots, rows: 0, closed });
            bins.len() - 1
        });
        bins[bin].room -= need;
        bins[bin].rows += 1;
        out[row] = bin as i64;
    }
    out
}
