//! A keyed permutation: a million images, of few numbers and of many.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rollkit::order::Permutation;

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("order");
    group.throughput(Throughput::Elements(1_000_000)).sample_size(20);
    for count in [1_000_000, 10_000_000_000, i64::MAX as u64] {
        let order = Permutation::new(count, 7, 0);
        let numbers: Vec<i64> = (0..1_000_000).collect();
        let mut out = vec![0i64; numbers.len()];
        for inverse in [false, true] {
            let name = if inverse { "origins" } else { "images" };
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| order.apply(black_box(&numbers), inverse, &mut out));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
