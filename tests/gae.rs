//! Advantages and returns against the obvious loop.

#[path = "oracles/gae.rs"]
mod oracle;

use oracle::naive;
use proptest::prelude::*;
use rollkit::Error;
use rollkit::gae::{Decay, Tokens, gae};

type Token = (f32, f32, bool);

/// Tokens, of which most count, cut into rows anywhere.
fn cases() -> impl Strategy<Value = (Vec<Token>, Vec<i64>)> {
    let token = (-9.0..9.0f32, -9.0..9.0f32, prop::bool::weighted(0.8));
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 1..8);
    (prop::collection::vec(token, 0..60), cuts).prop_map(|(tokens, cuts)| {
        let mut offsets: Vec<i64> = cuts.iter().map(|cut| cut.index(tokens.len() + 1) as i64).collect();
        offsets.sort_unstable();
        (tokens, offsets)
    })
}

fn close(found: &[f64], wanted: &[f64], tolerance: f64) -> bool {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * (1.0 + b.abs());
    found.len() == wanted.len() && found.iter().zip(wanted).all(near)
}

proptest! {
    #[test]
    fn agrees_with_the_loop((tokens, offsets) in cases(), gamma in 0.0..=1.0, lambda in 0.0..=1.0) {
        let mask: Vec<bool> = tokens.iter().map(|token| token.2).collect();
        let bytes: Vec<u8> = mask.iter().map(|&counts| if counts { 7 } else { 0 }).collect();
        let all = vec![true; mask.len()];
        let decay = Decay { gamma, lambda };
        macro_rules! check {
            ($t:ty, $tolerance:expr) => {
                let rewards: Vec<$t> = tokens.iter().map(|token| token.0.into()).collect();
                let values: Vec<$t> = tokens.iter().map(|token| token.1.into()).collect();
                let wide = |numbers: &[$t]| numbers.iter().map(|&number| f64::from(number)).collect::<Vec<_>>();
                let none = vec![0.0; values.len()];
                for (bytes, mask) in [(Some(&bytes[..]), &mask), (None, &all)] {
                    let (mut first, mut second) = (vec![9.0; tokens.len()], vec![9.0; tokens.len()]);
                    let given = Tokens { rewards: &rewards[..], values: Some(&values[..]), mask: bytes };
                    gae(given, &offsets, decay, &mut first, Some(&mut second))?;
                    let wanted = naive(&wide(&rewards), &wide(&values), mask, &offsets, (gamma, lambda));
                    prop_assert!(close(&wide(&first), &wanted.0, $tolerance));
                    prop_assert!(close(&wide(&second), &wanted.1, $tolerance));
                    gae(Tokens { values: None, ..given }, &offsets, decay, &mut first, None)?;
                    let wanted = naive(&wide(&rewards), &none, mask, &offsets, (gamma, lambda));
                    prop_assert!(close(&wide(&first), &wanted.0, $tolerance));
                }
            };
        }
        check!(f32, 1e-5);
        check!(f64, 1e-12);
    }
}

#[test]
fn what_is_not_a_number_goes_to_what_is_before_it_in_its_row() {
    let values = [0.0, 0.0, 0.0, f64::NAN, 0.0, f64::NAN, 0.0, 0.0, f64::NAN];
    let mask = [1, 1, 1, 1, 1, 0, 1, 1, 1];
    let tokens = Tokens { rewards: &[0.0; 9], values: Some(&values), mask: Some(&mask) };
    let mut found = [9.0; 9];
    gae(tokens, &[1, 5, 8], Decay { gamma: 1.0, lambda: 1.0 }, &mut found, None).unwrap();
    let finite: Vec<bool> = found.iter().map(|advantage| advantage.is_finite()).collect();
    assert_eq!(finite, [true, false, false, false, true, true, true, true, true]);
    assert_eq!([found[0], found[8]].map(f64::to_bits), [0; 2], "what is in no row");
}

#[test]
fn refuses_what_it_cannot_read() {
    let run = |values: &[f64], mask: &[u8], offsets: &[i64], out: usize| {
        let tokens = Tokens { rewards: &[0.0; 3], values: Some(values), mask: Some(mask) };
        gae(tokens, offsets, Decay { gamma: 1.0, lambda: 1.0 }, &mut vec![0.0; out], None)
    };
    let count = |name, got| Err(Error::RowCount { name, got, wanted: 3 });
    assert_eq!(run(&[0.0; 2], &[1; 3], &[0, 3], 3), count("values", 2));
    assert_eq!(run(&[0.0; 3], &[1; 4], &[0, 3], 3), count("mask", 4));
    assert_eq!(run(&[0.0; 3], &[1; 3], &[0, 3], 2), count("advantages", 2));
    let outside = Error::OutsideSource { row: 0, begin: 0, length: 4, available: 3 };
    assert_eq!(run(&[0.0; 3], &[1; 3], &[0, 4], 3), Err(outside));
    let falling = Error::FallingOffsets { row: 0, begin: 2, end: 1 };
    assert_eq!(run(&[0.0; 3], &[1; 3], &[2, 1], 3), Err(falling));
}
