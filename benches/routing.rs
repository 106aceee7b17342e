//! Decoding the last rows of a base64 text, and the range of ids.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollkit::cast::Dtype;
use rollkit::routing::{Base64, range};

const CONTEXT: usize = 32_000_000;
const RETAINED: usize = 3_200_032;

fn bench(c: &mut Criterion) {
    let routes = (0..CONTEXT).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>();
    let text = base64_simd::STANDARD.encode_to_string(&routes).into_bytes();
    let base64 = Base64::new(&text, CONTEXT).unwrap();
    let mut out = vec![0u8; RETAINED];

    let mut group = c.benchmark_group("routing");
    group.throughput(Throughput::Bytes(RETAINED as u64));
    group.bench_function("decode the suffix", |b| {
        b.iter(|| base64.decode(CONTEXT - RETAINED, black_box(&mut out)));
    });
    group.bench_function("copy the suffix", |b| {
        b.iter(|| black_box(&mut out).copy_from_slice(&routes[CONTEXT - RETAINED..]));
    });
    for (name, dtype) in
        [("uint8", Dtype::U8), ("int16", Dtype::I16), ("int32", Dtype::I32), ("int64", Dtype::I64)]
    {
        group.bench_function(format!("range of {name}"), |b| b.iter(|| range(black_box(&out), dtype)));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
