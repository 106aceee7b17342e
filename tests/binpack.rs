//! Bins equal those of the textbook's loops, and always fit as they are laid out.

mod common;
#[path = "oracles/binpack.rs"]
mod oracle;

use common::examples;
use oracle::reference;

use proptest::collection::vec;
use proptest::prelude::*;
use rollkit::binpack::{Algorithm, Options, Oversize, plan_bins};
use rollkit::{Error, Result};

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::FirstFitDecreasing, Algorithm::BestFitDecreasing, Algorithm::FirstFit, Algorithm::NextFit];

fn plan(lengths: &[i64], options: &Options) -> Result<Vec<i64>> {
    let mut bins = vec![7; lengths.len()];
    plan_bins(lengths, options, &mut bins).map(|()| bins)
}

fn cases() -> impl Strategy<Value = (Vec<i64>, Options)> {
    let lengths = prop_oneof![
        vec(0..=40i64, 0..80),
        vec(prop_oneof![Just(0i64), Just(3), Just(10), 0..=70i64], 0..200),
        vec(0..=100_000i64, 0..40), // sparse lengths are sorted another way
    ];
    let scale = prop_oneof![1..=40i64, 1..=120_000i64];
    let oversize = prop_oneof![Just(Oversize::Truncate), Just(Oversize::Alone), Just(Oversize::Drop)];
    let segments = proptest::option::of(1..6usize);
    (lengths, scale, 1..12i64, segments, proptest::sample::select(&ALGORITHMS[..]), oversize).prop_map(
        |(lengths, capacity, align, max_segments, algorithm, oversize)| {
            (lengths, Options { capacity, align, max_segments, algorithm, oversize })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(examples(4000)))]

    #[test]
    fn equals_the_textbook((lengths, options) in cases()) {
        prop_assert_eq!(plan(&lengths, &options), Ok(reference(&lengths, &options)));
    }

    #[test]
    fn limits_the_rows_of_a_bin((lengths, options) in cases()) {
        let bins = plan(&lengths, &options)?;
        if let Some(most) = options.max_segments {
            for bin in 0..lengths.len() as i64 {
                prop_assert!(bins.iter().filter(|&&found| found == bin).count() <= most);
            }
        }
    }
}

fn options(capacity: i64) -> Options {
    Options {
        capacity,
        align: 1,
        max_segments: None,
        algorithm: Algorithm::FirstFitDecreasing,
        oversize: Oversize::Raise,
    }
}

#[test]
fn packs_as_written_in_the_book() {
    let lengths = [3, 3, 6, 5, 0, 2, 5];
    for (algorithm, wanted) in ALGORITHMS.into_iter().zip([
        [1, 2, 0, 1, 0, 0, 2],
        [1, 2, 0, 1, 0, 0, 2],
        [0, 0, 1, 2, 0, 0, 3],
        [0, 0, 1, 2, 2, 2, 3],
    ]) {
        assert_eq!(
            plan(&lengths, &Options { algorithm, ..options(8) }),
            Ok(wanted.to_vec()),
            "{algorithm:?}"
        );
    }
}

#[test]
fn rows_fit_in_any_order() {
    // 8 + 2 would fit if the longer row came first; in input order, 2 (a slot of 4) + 8 do not.
    let options = Options { align: 4, ..options(10) };
    assert_eq!(plan(&[2, 8], &options), Ok(vec![1, 0]));
    assert_eq!(plan(&[2, 4], &options), Ok(vec![0, 0]));
    assert_eq!(plan(&[0, 10, 9], &options), Ok(vec![0, 0, 1]), "rows beyond the last whole slot still fit");
    assert_eq!(plan(&[1, 1, 0], &Options { align: 16, ..options }), Ok(vec![0, 1, 0]));
}

#[test]
fn takes_extreme_numbers() {
    let most = i64::MAX;
    for algorithm in ALGORITHMS {
        let options = Options { algorithm, ..options(most) };
        assert_eq!(plan(&[], &options), Ok(vec![]));
        assert_eq!(plan(&[most], &options), Ok(vec![0]));
        assert_eq!(
            plan(&[most, most, 0], &Options { align: most, ..options }),
            Ok(vec![0, 1, 0]).map(|mut bins| {
                if algorithm == Algorithm::NextFit {
                    bins[2] = 1;
                }
                bins
            })
        );
        let one = Options { capacity: 1, oversize: Oversize::Alone, ..options };
        assert_eq!(plan(&[most, most], &one), Ok(vec![0, 1]));
        let limits = Options { max_segments: Some(usize::MAX - 1), ..options };
        assert_eq!(plan(&[0, 0, 0], &limits), Ok(vec![0, 0, 0]));
    }
}

#[test]
fn refuses() {
    let refused = |lengths: &[i64], options: &Options| plan(lengths, options).unwrap_err();
    assert_eq!(refused(&[1, -2, 9], &options(8)), Error::NegativeLength { row: 1, got: -2 });
    assert_eq!(
        refused(&[1, 9, -2], &options(8)),
        Error::Oversize { row: 1, length: 9, capacity: 8, splits: true }
    );
    assert_eq!(refused(&[], &options(0)), Error::NotPositive { name: "capacity", got: 0 });
    assert_eq!(
        refused(&[], &Options { align: 0, ..options(8) }),
        Error::NotPositive { name: "align", got: 0 }
    );
    assert_eq!(
        refused(&[], &Options { max_segments: Some(0), ..options(8) }),
        Error::NotPositive { name: "max_segments", got: 0 }
    );
    assert_eq!(
        plan_bins(&[1], &options(8), &mut [0i64; 2]),
        Err(Error::RowCount { name: "bins", got: 2, wanted: 1 })
    );
    let unknown = Error::UnknownName { name: "algorithm", got: "worst_fit".to_owned() };
    assert_eq!("worst_fit".parse::<Algorithm>(), Err(unknown));
    let unknown = Error::UnknownName { name: "oversize", got: "split".to_owned() };
    assert_eq!("split".parse::<Oversize>(), Err(unknown));
}
