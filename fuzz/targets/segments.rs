//! Runs of segment ids of every width, and their lengths and offsets: against a loop over tokens.

#![no_main]

#[path = "../../tests/oracles/segments.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use rollkit::segments::{Bits, Ids, runs, seqlens_and_offsets};

fuzz_target!(|case: (Vec<u8>, u8, u8, bool)| {
    let (mut tokens, rows, most, repeated) = case;
    let (rows, most) = (usize::from(rows % 5) + 1, usize::from(most % 9) + 1);
    if repeated {
        tokens = tokens.iter().flat_map(|&id| vec![id % 8; usize::from(id)]).collect();
    }
    tokens.truncate(tokens.len() / rows * rows);
    let width = tokens.len() / rows;
    if width == 0 {
        return;
    }
    let wanted = oracle::reference(&tokens, rows);
    let (b16, b32, b64): (Vec<u16>, Vec<u32>, Vec<u64>) = (
        tokens.iter().map(|&id| id.into()).collect(),
        tokens.iter().map(|&id| id.into()).collect(),
        tokens.iter().map(|&id| id.into()).collect(),
    );
    for bits in [Bits::U8(&tokens), Bits::U16(&b16), Bits::U32(&b32), Bits::U64(&b64)] {
        let ids = Ids { name: "ids", bits, signed: false, rows, width };
        let found = runs(&ids).unwrap();
        let spans = found.starts.iter().zip(&found.lengths);
        let got: Vec<_> = found.ids.iter().zip(spans).map(|(&id, (&start, &n))| (id, start, n)).collect();
        assert_eq!(got, wanted);
        for pair in [false, true] {
            let (mut seqlens, mut offsets) = (vec![9; rows * most], vec![9; rows * (most + 1)]);
            let _ = seqlens_and_offsets(&ids, most, pair, &mut seqlens, &mut offsets);
        }
    }
});
