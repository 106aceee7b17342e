//! Turns of masks of every element size: against a loop.

#![no_main]

#[path = "../../tests/oracles/turns.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use rollkit::turns::{Mask, turns};

fuzz_target!(|case: (Vec<u8>, Vec<i16>, u8, bool)| {
    let (data, offsets, size, hostile) = case;
    let item = 1 << (size % 4);
    // A byte is a run: its lowest bit what it is of, the others how long it is.
    let flags: Vec<bool> = data.iter().flat_map(|&byte| vec![byte % 2 == 1; usize::from(byte / 2)]).collect();
    let bytes: Vec<u8> = flags
        .iter()
        .enumerate()
        .flat_map(|(at, &flag)| (0..item).map(move |byte| u8::from(flag && byte == at % item)))
        .collect();
    let mut offsets: Vec<i64> = offsets.into_iter().map(i64::from).collect();
    if !hostile {
        offsets.iter_mut().for_each(|offset| *offset = offset.rem_euclid(flags.len() as i64 + 1));
        offsets.sort_unstable();
    }
    match turns(Mask { bytes: &bytes, item, float: false }, &offsets) {
        Ok(found) => assert_eq!(found, oracle::naive(&flags, &offsets)),
        Err(_) => assert!(hostile || offsets.is_empty()),
    }
});
