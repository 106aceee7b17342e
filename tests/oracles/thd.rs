//! THD lengths and offsets off the mask of all pairs of tokens.

use rollkit::thd::Mask;

pub const MOST: usize = 5;

pub type Columns = (Vec<i32>, Vec<i32>);

pub fn keys(ids: &[u16], positions: &[i64], mask: Mask) -> Vec<i64> {
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
pub fn columns(ids: &[u16]) -> Columns {
    let lengths = (1..=MOST as u16).map(|k| ids.iter().filter(|&&id| id == k).count() as i32);
    let starts = (0..ids.len()).filter(|&at| ids[at] != 0 && (at == 0 || ids[at - 1] != ids[at]));
    let mut offsets: Vec<i32> = starts.map(|at| at as i32).take(MOST + 1).collect();
    offsets.resize(MOST + 1, -1);
    (lengths.collect(), offsets)
}

pub fn reference(q: &(Vec<u16>, Vec<i64>), kv: &(Vec<u16>, Vec<i64>), mask: Mask) -> (Columns, Columns) {
    let (keys_q, keys_kv) = (keys(&q.0, &q.1, mask), keys(&kv.0, &kv.1, mask));
    let seen = |i: usize, j: usize| q.0[i] == kv.0[j] && keys_q[i] >= keys_kv[j];
    let (all_q, all_kv) = (0..q.0.len(), 0..kv.0.len());
    let count = |counts, id| if counts { id } else { 0 };
    let asking: Vec<u16> = all_q.clone().map(|i| count(all_kv.clone().any(|j| seen(i, j)), q.0[i])).collect();
    let asked: Vec<u16> = all_kv.clone().map(|j| count(all_q.clone().any(|i| seen(i, j)), kv.0[j])).collect();
    (columns(&asking), columns(&asked))
}
