//! Lengths and offsets of q and kv equal those read off the mask of all pairs of tokens.

mod common;

use common::examples;
use proptest::prelude::*;
use rollkit::segments::{Bits, Ids};
use rollkit::thd::{Columned, Mask, Positions, Side, thd};

const MOST: usize = 5;

type Columns = (Vec<i32>, Vec<i32>);

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

fn keys(ids: &[u16], positions: &[i64], mask: Mask) -> Vec<i64> {
    let run = |at: usize| {
        let before = ids[..at].iter().rev().take_while(|&&id| id == ids[at]).count();
        let after = ids[at..].iter().take_while(|&&id| id == ids[at]).count();
        (before + after) as i64
    };
    let key = |at: usize| match mask {
        Mask::Causal => positions[at],
        Mask::CausalBottomRight => positions[at] - run(at),
        Mask::Padding => 0,
    };
    (0..ids.len()).map(key).collect()
}

/// What is read off ids that are 0 where a token does not count.
fn columns(ids: &[u16]) -> Columns {
    let lengths = (1..=MOST as u16).map(|k| ids.iter().filter(|&&id| id == k).count() as i32);
    let starts = (0..ids.len()).filter(|&at| ids[at] != 0 && (at == 0 || ids[at - 1] != ids[at]));
    let mut offsets: Vec<i32> = starts.map(|at| at as i32).take(MOST + 1).collect();
    offsets.resize(MOST + 1, -1);
    (lengths.collect(), offsets)
}

fn reference(q: &(Vec<u16>, Vec<i64>), kv: &(Vec<u16>, Vec<i64>), mask: Mask) -> (Columns, Columns) {
    let (keys_q, keys_kv) = (keys(&q.0, &q.1, mask), keys(&kv.0, &kv.1, mask));
    let seen = |i: usize, j: usize| q.0[i] == kv.0[j] && keys_q[i] >= keys_kv[j];
    let (all_q, all_kv) = (0..q.0.len(), 0..kv.0.len());
    let count = |counts, id| if counts { id } else { 0 };
    let asking: Vec<u16> = all_q.clone().map(|i| count(all_kv.clone().any(|j| seen(i, j)), q.0[i])).collect();
    let asked: Vec<u16> = all_kv.clone().map(|j| count(all_q.clone().any(|i| seen(i, j)), kv.0[j])).collect();
    (columns(&asking), columns(&asked))
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
