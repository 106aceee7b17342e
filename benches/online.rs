//! Rows that arrive one by one: a million of log-normal lengths, 32 Ki elements per bin.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rollkit::online::{Bins, Options, Packer, Policy};

/// Log-normal lengths (σ = 0.9, mean 3 800) up to 32 Ki, from a fixed seed.
fn lengths(rows: usize) -> Vec<i64> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    let mean = 3800f64.ln() - 0.9 * 0.9 / 2.0;
    (0..rows).map(|_| ((mean + 0.9 * normal()).exp() as i64).clamp(1, 32_768)).collect()
}

fn bench(c: &mut Criterion) {
    let lengths = lengths(1_000_000);
    let rows: Vec<i64> = (0..1_000_000).collect();
    let mut group = c.benchmark_group("online");
    group.throughput(Throughput::Elements(1_000_000)).sample_size(10);
    for policy in [Policy::LookAhead, Policy::BestFit] {
        for buffer in [1, 16, 64, 1024] {
            let options =
                Options { capacity: 32_768, buffer, policy, max_wait: None, max_segments: None, align: 1 };
            group.bench_function(BenchmarkId::new(format!("{policy:?}"), buffer), |b| {
                b.iter(|| {
                    let mut bins = Bins::default();
                    Packer::new(options)?.extend(black_box(&rows), &lengths, &mut bins)?;
                    Ok::<_, rollkit::Error>(bins)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
