//! Lengths and offsets of q and kv equal those read off the mask of all pairs of tokens.

mod common;
#[path = "oracles/thd.rs"]
mod oracle;

use common::examples;
use oracle::{Columns, MOST, reference};
use proptest::prelude::*;
use rollkit::segments::{Bits, Ids};
use rollkit::thd::{Columned, Mask, Positions, Side, thd};

/// One row: ids and positions.
fn side() -> impl Strategy<Value = (Vec<u16>, Vec<i64>)> {
    let random = prop::collection::vec((0u16..8, -20i64..40), 0..40);
    let spans = prop::collection::vec((0u16..8, 1usize..12, -3i64..20, 1i64..4), 0..8);
    prop_oneof![
        random.prop_map(|tokens| tokens.into_iter().unzip()),
        spans.prop_map(|spans| {
            let token = |(id, n, first, step): (u16, usize, i64, i64)| {
                (0..n as i64).map(move |k| (id, first + k * step))
            };
            spans.into_iter().flat_map(token).unzip()
        }),
    ]
}

fn found(
    q: &(Vec<u16>, Vec<i64>),
    kv: &(Vec<u16>, Vec<i64>),
    mask: Mask,
    narrow: bool,
) -> rollkit::Result<(Columns, Columns)> {
    let narrowed = |side: &(Vec<u16>, Vec<i64>)| side.1.iter().map(|&p| p as i32).collect::<Vec<_>>();
    let (narrow_q, narrow_kv) = (narrowed(q), narrowed(kv));
    let positions = |wide: &'_ [i64], short: &'_ [i32]| -> Positions<'static> {
        // Leaked: a test.
        if narrow {
            Positions::I32(Box::leak(short.to_vec().into_boxed_slice()))
        } else {
            Positions::I64(Box::leak(wide.to_vec().into_boxed_slice()))
        }
    };
    let ids = |name, tokens: &'_ [u16]| -> Ids<'static> {
        let leaked: &'static [u16] = Box::leak(tokens.to_vec().into_boxed_slice());
        Ids { name, bits: Bits::U16(leaked), signed: false, rows: 1, width: tokens.len() }
    };
    let q_side = Side { ids: ids("ids_q", &q.0), positions: Some(positions(&q.1, &narrow_q)) };
    let kv_side = Side { ids: ids("ids_kv", &kv.0), positions: Some(positions(&kv.1, &narrow_kv)) };
    let mut out = [(); 2].map(|()| (vec![9; MOST], vec![9; MOST + 1]));
    let [q_out, kv_out] = out
        .each_mut()
        .map(|(seqlens, offsets)| Columned { seqlens: &mut seqlens[..], offsets: &mut offsets[..] });
    thd(&q_side, &kv_side, mask, MOST, false, q_out, kv_out)?;
    let [q_out, kv_out] = out;
    Ok((q_out, kv_out))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(examples(2000)))]
    #[test]
    fn equals_the_mask(q in side(), kv in side(), narrow: bool) {
        for mask in [Mask::Causal, Mask::CausalBottomRight, Mask::Padding] {
            prop_assert_eq!(found(&q, &kv, mask, narrow)?, reference(&q, &kv, mask));
        }
    }
}
