//! `pack` beside a loop that lays one bin after the other.

mod common;
#[path = "oracles/pack.rs"]
mod oracle;

use common::examples;
use oracle::reference;
use proptest::collection::vec;
use proptest::prelude::*;
use rollkit::Error;
use rollkit::binpack::{Algorithm, Options, Oversize, plan_bins};
use rollkit::layout::{ABSENT, Slots};
use rollkit::pack::{Bins, pack_rows, placed};

fn cases() -> impl Strategy<Value = (Vec<i64>, Options)> {
    let lengths = prop_oneof![
        vec(0..=12i64, 0..40),
        vec(prop_oneof![Just(0i64), Just(8), 0..=4i64], 0..60),
        vec(0..=100_000i64, 0..20), // sparse lengths are sorted another way
    ];
    let algorithms = [
        Algorithm::FirstFitDecreasing,
        Algorithm::BestFitDecreasing,
        Algorithm::FirstFit,
        Algorithm::NextFit,
    ];
    let oversize = prop_oneof![Just(Oversize::Truncate), Just(Oversize::Alone), Just(Oversize::Drop)];
    let algorithm = proptest::sample::select(algorithms.to_vec());
    (lengths, 1..=16i64, 1..6i64, proptest::option::of(1..6usize), algorithm, oversize).prop_map(
        |(lengths, capacity, align, max_segments, algorithm, oversize)| {
            (lengths, Options { capacity, align, max_segments, algorithm, oversize })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(examples(4000)))]

    #[test]
    fn rows_lie_as_in_a_loop((lengths, options) in cases(), multiple in 1..4usize) {
        let (mut starts, mut order) = (vec![7; lengths.len()], vec![7; lengths.len()]);
        let found = pack_rows(&lengths, &options, multiple, &mut starts, &mut order)?;

        let mut bins = vec![7i64; lengths.len()];
        plan_bins(&lengths, &options, &mut bins)?;
        let kept: Vec<_> = lengths.iter().zip(&bins).map(|(&length, &bin)| match options.oversize {
            Oversize::Truncate => length.min(options.capacity),
            _ if bin == ABSENT => 0,
            _ => length,
        }).collect();
        let width = kept.iter().copied().max().unwrap_or(0).max(options.capacity);
        let opened = bins.iter().map(|&bin| (bin + 1) as usize).max().unwrap_or(0);
        let (wanted_starts, wanted_order) = reference(&kept, &bins, width, options.align);
        prop_assert_eq!(&starts, &wanted_starts);
        prop_assert_eq!(&order, &wanted_order);

        let mut cut = vec![7i64; lengths.len()];
        placed(&lengths, &options, &mut cut);
        prop_assert_eq!(&cut, &kept);
        let count = opened.next_multiple_of(multiple);
        let present: Vec<_> = order.iter().filter(|&&row| bins[row as usize] != ABSENT).collect();
        let in_order = present.is_sorted();
        prop_assert_eq!(found, Bins { count, width, in_order, cut: kept != lengths });

        let size = count * width as usize;
        let slots = Slots { starts: &starts, lengths: &kept, order: Some(&order), size };
        prop_assert_eq!(slots.check(), Ok(()));
        for (&start, &length) in starts.iter().zip(&kept).filter(|(start, _)| **start != ABSENT) {
            prop_assert_eq!(start % width % options.align, 0);
            prop_assert!(start % width + length <= width);
        }
    }
}

#[test]
fn refuses() {
    let options = Options {
        capacity: 1 << 62,
        align: 1,
        max_segments: None,
        algorithm: Algorithm::FirstFit,
        oversize: Oversize::Raise,
    };
    let refused = |lengths: &[i64], multiple, starts: &mut [i64]| {
        let mut order = vec![0; lengths.len()];
        pack_rows(lengths, &options, multiple, starts, &mut order).unwrap_err()
    };
    assert_eq!(refused(&[1, 1 << 62], 1, &mut [0; 2]), Error::TooManyElements { row: 1 });
    assert_eq!(refused(&[1], 2, &mut [0]), Error::TooManyBins { multiple: 2, width: options.capacity });
    assert_eq!(refused(&[1], 0, &mut [0]), Error::NotPositive { name: "bins_multiple_of", got: 0 });
    assert_eq!(refused(&[1], 1, &mut []), Error::RowCount { name: "starts", got: 0, wanted: 1 });
    assert_eq!(refused(&[-1], 1, &mut [0]), Error::NegativeLength { row: 0, got: -1 });
}
