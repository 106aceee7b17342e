//! Turns of agents whose contexts grow, and samples of one prompt: a tree of them, beside a copy of the contexts.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollkit::token_tree::{TokenTree, Turn};

/// Numbers that look random, the same in every run.
fn numbers(seed: u64) -> impl Iterator<Item = i32> {
    std::iter::successors(Some(seed | 1), |x| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)))
        .map(|x| (x >> 33) as i32 % 150_000)
}

/// Turns as (context, response) in one buffer: each goes on from the one so many before it.
fn turns(agents: usize, count: usize, length: usize) -> Vec<(Vec<i32>, usize)> {
    let mut tokens = numbers(7);
    let mut found: Vec<(Vec<i32>, usize)> = Vec::new();
    for turn in 0..agents * count {
        let mut context = match turn.checked_sub(agents) {
            Some(before) => found[before].0.clone(),
            None => vec![5; length],
        };
        context.extend(tokens.by_ref().take(length));
        found.push((context, length / 2));
    }
    found
}

fn grow(turns: &[(Vec<i32>, usize)], stored: &mut Vec<i32>) -> rollkit::Result<TokenTree> {
    let mut tree = TokenTree::default();
    stored.clear();
    for (tokens, sampled) in turns {
        let prompt = &tokens[..tokens.len() - sampled];
        let found = tree.find(stored, prompt)?;
        let (begin, observed) = (stored.len(), prompt.len() - found.matched);
        stored.extend(&tokens[found.matched..]);
        let after = found.node.map(|node| (node, found.within));
        let turn = Turn { after, begin, observed, sampled: *sampled, captured: 0, repaired: &[] };
        tree.extend(stored, &turn)?;
    }
    Ok(tree)
}

fn bench(c: &mut Criterion) {
    for (name, turns) in [
        ("one agent", turns(1, 200, 200)),
        ("16 agents in turn", turns(16, 50, 200)),
        ("samples", turns(10_000, 1, 50)),
    ] {
        let mut stored = Vec::new();
        let mut group = c.benchmark_group(format!("token_tree/{name}"));
        let bytes: usize = turns.iter().map(|turn| 4 * turn.0.len()).sum();
        group.throughput(Throughput::Bytes(bytes as u64)).sample_size(10);
        let copy = || turns.iter().map(|turn| turn.0.clone()).collect::<Vec<_>>();
        group.bench_function("copy", |b| b.iter(copy));
        group.bench_function("grow", |b| b.iter(|| grow(black_box(&turns), &mut stored)));
        let tree = grow(&turns, &mut stored).expect("turns");
        group.bench_function("branches", |b| b.iter(|| tree.branches()));
        group.bench_function("forest", |b| b.iter(|| tree.forest()));
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
