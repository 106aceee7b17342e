//! Planning bins and laying rows in them: 1e5 and 1e6 rows of log-normal lengths, 64 Ki elements per bin.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rollkit::binpack::{Algorithm, Options, Oversize, plan_bins};
use rollkit::pack::pack_rows;

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
    let algorithms = [
        Algorithm::FirstFitDecreasing,
        Algorithm::BestFitDecreasing,
        Algorithm::FirstFit,
        Algorithm::NextFit,
    ];
    for rows in [100_000, 1_000_000] {
        let lengths = lengths(rows);
        let mut bins = vec![0i64; rows];
        let mut group = c.benchmark_group(format!("binpack/{rows}"));
        group.throughput(Throughput::Elements(rows as u64)).sample_size(20);
        for algorithm in algorithms {
            let options = Options {
                capacity: 65_536,
                align: 1,
                max_segments: None,
                algorithm,
                oversize: Oversize::Raise,
            };
            group.bench_function(BenchmarkId::from_parameter(format!("{algorithm:?}")), |b| {
                b.iter(|| plan_bins(black_box(&lengths), &options, &mut bins));
            });
            let mut order = vec![0i64; rows];
            group.bench_function(BenchmarkId::new("pack_rows", format!("{algorithm:?}")), |b| {
                b.iter(|| pack_rows(black_box(&lengths), &options, 1, None, &mut bins, &mut order));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
