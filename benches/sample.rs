//! Drawing 16 rows with guidance: what each filter costs, for 2 049 and 65 536 allowed tokens.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rollkit::sample::logits::Columns;
use rollkit::sample::noise::Key;
use rollkit::sample::{Allowed, Filters, Ids, LogProb, Logits, Noise, Options, Order, Sampler};

const ROWS: usize = 16;

/// N(0, 9), from a fixed seed.
fn logits(count: usize, seed: u64) -> Vec<f32> {
    let mut state = 88_172_645_463_325_252_u64 + seed;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    (0..count).map(|_| (3.0 * normal()) as f32).collect()
}

fn bench(c: &mut Criterion) {
    let plain = Filters { scale: 2.0, temperature: 0.85, top_k: 0, top_p: 1.0, min_p: 0.0 };
    let cases = [
        ("greedy", Filters { temperature: 0.0, ..plain }),
        ("plain", plain),
        ("top_k", Filters { top_k: 50, ..plain }),
        ("top_p", Filters { top_p: 0.9, ..plain }),
        ("min_p", Filters { min_p: 0.05, ..plain }),
        ("top_k_top_p", Filters { top_k: 50, top_p: 0.9, ..plain }),
    ];
    for size in [2049, 65_536] {
        let (cond, uncond) = (logits(ROWS * size, 1), logits(ROWS * size, 2));
        let ids = (0..size as i32).map(|id| 7 * id).collect::<Vec<_>>();
        let allowed = Allowed { columns: Columns::Range(0..size), ids: Ids::List(&ids) };
        let options = Options { order: Order::Hf, logprob: LogProb::Off };
        let mut sampler = Sampler::default();
        let mut group = c.benchmark_group(format!("sample/{size}"));
        group.throughput(Throughput::Elements((ROWS * size) as u64)).sample_size(20);
        for (name, filters) in &cases {
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter(|| {
                    for (row, (c, u)) in cond.chunks(size).zip(uncond.chunks(size)).enumerate() {
                        let noise = Noise::Keyed(Key::new(row as u64, 0));
                        let logits = Logits::F32(c, Some(u));
                        black_box(sampler.draw(logits, &allowed, filters, noise, options));
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
