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
use rollkit::order::Permutation;
use rollkit::pack::{Bins, count_pieces, pack_rows, placed, split};

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
    fn rows_lie_as_in_a_loop(
        (lengths, options) in cases(),
        multiple in 1..4usize,
        shuffle in proptest::option::of(any::<u64>()),
    ) {
        let (mut starts, mut order) = (vec![7; lengths.len()], vec![7; lengths.len()]);
        let found = pack_rows(&lengths, &options, multiple, shuffle, &mut starts, &mut order)?;

        let mut bins = vec![7i64; lengths.len()];
        plan_bins(&lengths, &options, &mut bins)?;
        let kept: Vec<_> = lengths.iter().zip(&bins).map(|(&length, &bin)| match options.oversize {
            Oversize::Truncate => length.min(options.capacity),
            _ if bin == ABSENT => 0,
            _ => length,
        }).collect();
        let width = kept.iter().copied().max().unwrap_or(0).max(options.capacity);
        let opened = bins.iter().map(|&bin| (bin + 1) as usize).max().unwrap_or(0);
        if let Some(seed) = shuffle {
            let numbers = Permutation::new(opened as u64, seed, 0);
            for bin in &mut bins {
                *bin = u64::try_from(*bin).ok().and_then(|bin| numbers.image(bin)).map_or(ABSENT, |n| n as i64);
            }
        }
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

fn pieces(lengths: &[i64], capacity: i64) -> Result<[Vec<i64>; 3], Error> {
    let count = count_pieces(lengths, capacity)?;
    let mut found = [(); 3].map(|()| vec![7; count]);
    let [rows, begins, pieces] = &mut found;
    split(lengths, capacity, rows, begins, pieces)?;
    Ok(found)
}

proptest! {
    #[test]
    fn pieces_are_full_but_the_last(lengths in vec(0..40i64, 0..20), capacity in 1..50i64) {
        let [rows, begins, found] = pieces(&lengths, capacity)?;
        let mut at = 0;
        for (row, &length) in lengths.iter().enumerate() {
            let mut begin = 0;
            loop {
                prop_assert_eq!((rows[at], begins[at]), (row as i64, begin));
                prop_assert_eq!(found[at], capacity.min(length - begin));
                begin += found[at];
                at += 1;
                if begin == length {
                    break;
                }
            }
        }
        prop_assert_eq!(at, rows.len());
    }
}

#[test]
fn refuses_to_split() {
    let most = i64::MAX;
    assert_eq!(pieces(&[most, most, 0], most), Ok([vec![0, 1, 2], vec![0; 3], vec![most, most, 0]]));
    assert_eq!(count_pieces(&[most, most, 2], 1), Err(Error::TooManyElements { row: 2 }));
    assert_eq!(pieces(&[1, -1], 2), Err(Error::NegativeLength { row: 1, got: -1 }));
    assert_eq!(pieces(&[1], 0), Err(Error::NotPositive { name: "capacity", got: 0 }));
    let wanted = Error::RowCount { name: "begins", got: 0, wanted: 1 };
    assert_eq!(split(&[1], 2, &mut [0i64], &mut [], &mut [0]), Err(wanted));
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
        pack_rows(lengths, &options, multiple, Some(1), starts, &mut order).unwrap_err()
    };
    assert_eq!(refused(&[1, 1 << 62], 1, &mut [0; 2]), Error::TooManyElements { row: 1 });
    assert_eq!(refused(&[1], 2, &mut [0]), Error::TooManyBins { multiple: 2, width: options.capacity });
    assert_eq!(refused(&[1], 0, &mut [0]), Error::NotPositive { name: "bins_multiple_of", got: 0 });
    assert_eq!(refused(&[1], 1, &mut []), Error::RowCount { name: "starts", got: 0, wanted: 1 });
    assert_eq!(refused(&[-1], 1, &mut [0]), Error::NegativeLength { row: 0, got: -1 });
}
