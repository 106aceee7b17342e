//! Permutations: every number once, back again, and the same on every machine for ever.

mod common;
#[path = "oracles/order.rs"]
mod oracle;

use common::{examples, stride};
use oracle::is_bijective;
use proptest::prelude::*;
use rollkit::Error;
use rollkit::order::Permutation;

const MOST: u64 = i64::MAX as u64;

fn images(count: u64, seed: u64, epoch: u64, numbers: &[i64]) -> Vec<i64> {
    let mut out = vec![-7; numbers.len()];
    Permutation::new(count, seed, epoch).apply(numbers, false, &mut out).unwrap();
    out
}

#[test]
fn small_ones_are_bijective() {
    // Python's tests try all up to 4 096, with optimised code.
    for count in (0..600).step_by(stride()) {
        assert!(is_bijective(count, &Permutation::new(count, count * 3, 1)), "{count}");
    }
}

#[test]
fn images_never_change() {
    assert_eq!(images(6, 7, 0, &[0, 1, 2, 3, 4, 5]), [0, 4, 1, 5, 2, 3]);
    assert_eq!(images(1_000_000, 7, 3, &[0, 1, 2]), [727_261, 909_520, 603_094]);
    assert_eq!(images(10_000_000_000, 7, 3, &[0, 1, 2]), [6_055_273_321, 8_513_360_014, 4_436_494_335]);
    let last = MOST as i64 - 1;
    assert_eq!(images(MOST, 7, 3, &[0, last]), [7_641_828_994_449_360_369, 8_456_811_953_927_137_250]);
}

#[test]
fn refuses_what_is_no_number_of_it() {
    let order = Permutation::new(4, 0, 0);
    let refused = |got, count| Err(Error::OutOfRange { name: "numbers", index: 1, got, count });
    for got in [4, -1, i64::MAX, i64::MIN] {
        assert_eq!(order.apply(&[0, got], false, &mut [0i64; 2]), refused(got, 4));
        assert_eq!(order.apply(&[0, got], true, &mut [0i64; 2]), refused(got, 4));
    }
    let none = Permutation::new(0, 0, 0);
    let got = none.apply(&[0], false, &mut [0i64]);
    assert_eq!(got, Err(Error::OutOfRange { name: "numbers", index: 0, got: 0, count: 0 }));
    assert_eq!(none.apply(&[], false, &mut [0i64; 0]), Ok(()));
    assert_eq!((order.image(4), order.origin(u64::MAX)), (None, None));
    let wanted = Err(Error::RowCount { name: "out", got: 1, wanted: 2 });
    assert_eq!(order.apply(&[0, 1], false, &mut [0i64]), wanted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(examples(2000)))]

    #[test]
    fn one_by_one_or_together_and_back(
        (count, numbers) in prop_oneof![1..40u64, 1..100_000u64, MOST - 9..=MOST, 1..=MOST]
            .prop_flat_map(|count| (Just(count), prop::collection::vec(0..count as i64, 0..30))),
        seed in any::<u64>(),
        epoch in any::<u64>(),
    ) {
        let order = Permutation::new(count, seed, epoch);
        let found = images(count, seed, epoch, &numbers);
        let alone: Vec<i64> = numbers.iter().filter_map(|&number| order.image(number as u64)).map(|n| n as i64).collect();
        prop_assert_eq!(&found, &alone);
        prop_assert!(found.iter().all(|&image| (0..count as i64).contains(&image)));
        let mut back = vec![0; numbers.len()];
        order.apply(&found, true, &mut back)?;
        prop_assert_eq!(back, numbers);
    }
}
