//! A million tokens in rows of a thousand and in one, beside a copy of what is read.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollkit::gae::{Decay, Tokens, gae};

const TOKENS: usize = 1_000_000;

fn bench(c: &mut Criterion) {
    let rewards: Vec<f32> = (0..TOKENS).map(|i| (i * 7919 % 1000) as f32 / 1000.0).collect();
    let values: Vec<f32> = rewards.iter().rev().copied().collect();
    let mask: Vec<u8> = (0..TOKENS).map(|i| u8::from(i % 300 < 270)).collect();
    let decay = Decay { gamma: 0.99, lambda: 0.95 };
    let (mut advantages, mut returns) = (vec![0f32; TOKENS], vec![0f32; TOKENS]);
    let mut group = c.benchmark_group("gae");
    group.throughput(Throughput::Elements(TOKENS as u64));
    group.bench_function("copy", |b| {
        b.iter(|| black_box((rewards.clone(), values.clone(), mask.clone())));
    });
    for rows in [1000, 1] {
        let offsets: Vec<i64> = (0..=rows).map(|row| (row * TOKENS / rows) as i64).collect();
        group.bench_function(format!("{rows} rows"), |b| {
            let tokens = Tokens { rewards: &rewards[..], values: Some(&values[..]), mask: Some(&mask[..]) };
            b.iter(|| gae(tokens, &offsets, decay, &mut advantages, Some(&mut returns)).unwrap());
        });
        group.bench_function(format!("{rows} rows, returns"), |b| {
            let tokens = Tokens { rewards: &rewards[..], values: None, mask: Some(&mask[..]) };
            b.iter(|| gae(tokens, &offsets, decay, &mut advantages, None).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
