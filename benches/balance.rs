//! Parts that cost the same, and plans of optimizer steps, of log-normal lengths and the costs of a transformer.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rollkit::balance::{Options, balance, row_costs};
use rollkit::step_plan::{self, Sync, plan_steps};

/// Log-normal lengths (σ = 0.9, median 2 617) from 16 to 32 Ki, from a fixed seed.
fn lengths(rows: usize) -> Vec<i64> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    (0..rows).map(|_| ((7.87 + 0.9 * normal()).exp() as i64).clamp(16, 32_768)).collect()
}

fn costs(lengths: &[i64]) -> Vec<i64> {
    let mut costs = vec![0i64; lengths.len()];
    row_costs(lengths, 24_576, 1, &mut costs).unwrap();
    costs
}

fn parts(c: &mut Criterion) {
    let mut group = c.benchmark_group("balance");
    group.sample_size(20);
    for (rows, parts) in [(960, 64), (9_728, 512), (999_936, 512)] {
        let lengths = lengths(rows);
        let (costs, mut out) = (costs(&lengths), vec![0i64; rows]);
        group.throughput(Throughput::Elements(rows as u64));
        for equal_counts in [true, false] {
            let options = Options { parts, equal_counts, capacity: None, tolerance: 1e-4 };
            let name = if equal_counts { "equal counts" } else { "free counts" };
            group.bench_function(BenchmarkId::new(name, format!("{rows}/{parts}")), |b| {
                b.iter(|| balance(black_box(&lengths), &costs, None, &options, &mut out));
            });
        }
    }
    group.finish();
}

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan_steps");
    for (rows, capacity, ranks) in [(1_024, 65_536, 8), (4_096, 65_536, 64), (4_096, 32_768, 64)] {
        let lengths = lengths(rows);
        let (costs, mut out) = (costs(&lengths), vec![0i64; rows]);
        group.throughput(Throughput::Elements(rows as u64));
        for sync in [Sync::MicroBatch, Sync::Step] {
            let options =
                step_plan::Options { capacity, ranks, sync, max_segments: None, steps: 0, seed: None };
            group.bench_function(
                BenchmarkId::new(format!("{sync:?}"), format!("{rows}/{capacity}/{ranks}")),
                |b| {
                    b.iter(|| plan_steps(black_box(&lengths), &costs, None, None, &options, &mut out));
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, parts, steps);
criterion_main!(benches);
