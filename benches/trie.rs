//! What rows share, beside a copy of their tokens: turns of long contexts, many short rows, few values.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollkit::binpack::Oversize;
use rollkit::forest::{Forest, Options, pack};
use rollkit::trie::{Column, build};

/// Numbers that look random, the same in every run.
fn numbers(seed: u64) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(seed | 1), |x| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)))
        .map(|x| (x >> 33) as u32)
}

/// Rows of tokens, each a context that goes on from the row before it for so many rows.
fn rows(count: usize, length: usize, turns: usize, values: u32) -> Vec<Vec<u8>> {
    let mut tokens = numbers(7).map(|x| x % values);
    let mut rows: Vec<Vec<u8>> = Vec::new();
    for row in 0..count {
        let mut bytes = if row % turns == 0 { Vec::new() } else { rows[row - 1].clone() };
        bytes.extend(tokens.by_ref().take(length / turns).flat_map(u32::to_ne_bytes));
        rows.push(bytes);
    }
    rows
}

fn bench(c: &mut Criterion) {
    for (name, rows) in [
        ("turns", rows(2_000, 4_000, 20, 90_000)),
        ("short", rows(300_000, 40, 1, 90_000)),
        ("few values", rows(300_000, 40, 1, 3)),
    ] {
        let slices: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        let columns = [Column { item: 4, first: &slices, second: &[] }];
        let found = build(&columns, None, 1).expect("rows");
        let mut group = c.benchmark_group(format!("trie/{name}/{} nodes", found.parents.len()));
        group.sample_size(10).throughput(Throughput::Bytes(rows.iter().map(|row| row.len() as u64).sum()));
        group.bench_function("copy", |b| b.iter(|| black_box(&slices).concat()));
        group.bench_function("build", |b| b.iter(|| build(black_box(&columns), None, 1)));
        let forest =
            Forest { parents: &found.parents, begins: &found.begins, ends: &found.ends, leaf: &found.leaf };
        let options = Options {
            capacity: 16_384,
            align: 1,
            max_segments: None,
            bins_multiple_of: 1,
            oversize: Oversize::Raise,
        };
        group.bench_function("pack", |b| b.iter(|| pack(black_box(&forest), &options)));
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
