//! THD lengths and offsets: against the mask of all pairs of tokens.

#![no_main]

#[path = "../../tests/oracles/thd.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use oracle::MOST;
use rollkit::segments::{Bits, Ids};
use rollkit::thd::{Columned, Mask, Positions, Side, thd};

type Tokens = (Vec<u16>, Vec<i64>);

fn found(q: &Tokens, kv: &Tokens, mask: Mask) -> rollkit::Result<(oracle::Columns, oracle::Columns)> {
    fn side(tokens: &Tokens) -> Side<'_> {
        let bits = Bits::U16(&tokens.0);
        let ids = Ids { name: "ids", bits, signed: false, rows: 1, width: tokens.0.len() };
        Side { ids, positions: Some(Positions::I64(&tokens.1)) }
    }
    let mut out = [(); 2].map(|()| (vec![9; MOST], vec![9; MOST + 1]));
    let [q_out, kv_out] = out
        .each_mut()
        .map(|(seqlens, offsets)| Columned { seqlens: &mut seqlens[..], offsets: &mut offsets[..] });
    thd(&side(q), &side(kv), mask, MOST, false, q_out, kv_out)?;
    let [q_out, kv_out] = out;
    Ok((q_out, kv_out))
}

fuzz_target!(|case: (Vec<(u8, i8)>, Vec<(u8, i8)>)| {
    let (q, kv) = case;
    let tokens = |side: &[(u8, i8)]| -> Tokens {
        side.iter().take(64).map(|&(id, at)| (u16::from(id % 8), i64::from(at))).unzip()
    };
    let (q, kv) = (tokens(&q), tokens(&kv));
    for mask in [Mask::Causal, Mask::CausalBottomRight, Mask::Padding] {
        let wanted = oracle::reference(&q, &kv, mask);
        assert_eq!(found(&q, &kv, mask).unwrap(), wanted, "{mask:?}");
    }
});
