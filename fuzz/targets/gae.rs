//! Advantages and returns of rows that are cut anywhere: against a loop.

#![no_main]

#[path = "../../tests/oracles/gae.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use rollkit::gae::{Decay, Tokens, gae};

fuzz_target!(|case: (Vec<(i8, i8, bool)>, Vec<i16>, u8, u8, bool)| {
    let (tokens, offsets, gamma, lambda, hostile) = case;
    let rewards: Vec<f64> = tokens.iter().map(|token| token.0.into()).collect();
    let values: Vec<f64> = tokens.iter().map(|token| token.1.into()).collect();
    let mask: Vec<bool> = tokens.iter().map(|token| token.2).collect();
    let bytes: Vec<u8> = mask.iter().map(|&counts| counts.into()).collect();
    let mut offsets: Vec<i64> = offsets.into_iter().map(i64::from).collect();
    if !hostile {
        offsets.iter_mut().for_each(|offset| *offset = offset.rem_euclid(tokens.len() as i64 + 1));
        offsets.sort_unstable();
    }
    let shares = (f64::from(gamma) / 255.0, f64::from(lambda) / 255.0);
    let decay = Decay { gamma: shares.0, lambda: shares.1 };
    let given = Tokens { rewards: &rewards[..], values: Some(&values[..]), mask: Some(&bytes[..]) };
    let (mut advantages, mut returns) = (vec![9.0; tokens.len()], vec![9.0; tokens.len()]);
    match gae(given, &offsets, decay, &mut advantages, Some(&mut returns)) {
        Ok(()) => {
            let wanted = oracle::naive(&rewards, &values, &mask, &offsets, shares);
            for (found, wanted) in advantages.iter().chain(&returns).zip(wanted.0.iter().chain(&wanted.1)) {
                assert!((found - wanted).abs() <= 1e-9 * (1.0 + wanted.abs()));
            }
        }
        Err(_) => assert!(hostile || offsets.is_empty()),
    }
});
