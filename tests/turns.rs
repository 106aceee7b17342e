//! Turns against the obvious loop.

#[path = "oracles/turns.rs"]
mod oracle;

use oracle::naive;
use proptest::prelude::*;
use rollkit::Error;
use rollkit::turns::{Mask, turns};

/// Runs of equal flags, long enough to fill whole blocks, cut into rows anywhere.
fn masks() -> impl Strategy<Value = (Vec<bool>, Vec<i64>)> {
    let runs =
        prop::collection::vec((any::<bool>(), prop_oneof![1..4usize, 60..70usize, 100..600usize]), 0..12);
    (runs, prop::collection::vec(any::<prop::sample::Index>(), 1..8)).prop_map(|(runs, cuts)| {
        let flags: Vec<bool> = runs.iter().flat_map(|&(flag, count)| vec![flag; count]).collect();
        let mut offsets: Vec<i64> = cuts.iter().map(|cut| cut.index(flags.len() + 1) as i64).collect();
        offsets.sort_unstable();
        (flags, offsets)
    })
}

proptest! {
    #[test]
    fn every_element_size_agrees_with_the_loop((flags, offsets) in masks(), values in any::<[u64; 3]>()) {
        let wanted = naive(&flags, &offsets);
        // A non-zero value has a bit anywhere: only the lowest byte of it may be zero.
        let values = values.map(|value| value.max(1));
        macro_rules! check {
            ($t:ty, $float:expr, $zero:expr, $nonzero:expr) => {
                let bytes: Vec<u8> = flags
                    .iter()
                    .enumerate()
                    .flat_map(|(i, &flag)| {
                        let element: $t = if flag { $nonzero(values[i % 3]) } else { $zero(i) };
                        element.to_ne_bytes()
                    })
                    .collect();
                let mask = Mask { bytes: &bytes, item: size_of::<$t>(), float: $float };
                prop_assert_eq!(&turns(mask, &offsets)?, &wanted);
            };
        }
        check!(u8, false, |_| 0, |value: u64| (value as u8).max(1));
        check!(u16, false, |_| 0, |value: u64| (value as u16).max(0x100));
        check!(u32, false, |_| 0, |value: u64| (value as u32).max(0x1000));
        check!(u64, false, |_| 0, |value: u64| value);
        let zero = |i: usize| if i.is_multiple_of(2) { 0.0 } else { -0.0 };
        check!(f32, true, zero, |value: u64| if value.is_multiple_of(2) { f32::NAN } else { -0.5 });
        let zero = |i: usize| if i.is_multiple_of(2) { 0.0 } else { -0.0 };
        check!(f64, true, zero, |value: u64| if value.is_multiple_of(2) { f64::MIN_POSITIVE } else { 1.0 });
    }
}

#[test]
fn a_turn_ends_with_its_row() {
    let mask = Mask { bytes: &[1; 300], item: 1, float: false };
    let found = turns(mask, &[10, 200, 200, 300]).unwrap();
    assert_eq!(found.lengths, [190, 100]);
    assert_eq!(found.offsets, [0, 1, 1, 2]);
    assert_eq!(found.counts, [190, 0, 100]);
}

#[test]
fn minus_zero_is_a_mask_of_zero_only_as_a_float() {
    let bytes = (-0.0f32).to_ne_bytes();
    let counts = |float| turns(Mask { bytes: &bytes, item: 4, float }, &[0, 1]).unwrap().counts;
    assert_eq!((counts(true), counts(false)), (vec![0], vec![1]));
}

#[test]
fn refuses_what_it_cannot_read() {
    let mask = Mask { bytes: &[1; 12], item: 3, float: false };
    assert_eq!(turns(mask, &[0, 4]), Err(Error::ItemSize { name: "mask", got: 3 }));
    let mask = Mask { item: 4, ..mask };
    let outside = Error::OutsideSource { row: 0, begin: 0, length: 4, available: 3 };
    assert_eq!(turns(mask, &[0, 4]), Err(outside));
    assert_eq!(turns(mask, &[]), Err(Error::RowCount { name: "offsets", got: 0, wanted: 1 }));
}
