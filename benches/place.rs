//! Rows to a fresh place in memory, beside copying the same bytes in one go.
//!
//!     cargo bench --bench place

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rollkit::layout::Slots;
use rollkit::place::{Gaps, Mover, Part, place};

const ITEM: usize = 4;

/// Rows × elements of a row: few long ones to many short ones.
const GRID: [(usize, usize); 5] = [(16, 65_536), (1_000, 4_000), (10_000, 400), (100_000, 40), (200_000, 4)];

fn benchmarks(c: &mut Criterion) {
    for (rows, length) in GRID {
        let bytes = rows * length * ITEM;
        let source: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
        let mut out = vec![0u8; bytes + bytes / 4];
        let lengths = vec![length as i64; rows];
        let ends = |step: usize| (0..rows).map(|row| (row * step) as i64).collect::<Vec<_>>();
        let begins = ends(length);
        let padded = ends(length + length / 4);
        let mut group = c.benchmark_group(format!("place/{rows}x{length}"));
        group.throughput(Throughput::Bytes(bytes as u64));

        group.bench_function(BenchmarkId::from_parameter("memcpy"), |b| {
            b.iter(|| black_box(&mut out)[..bytes].copy_from_slice(black_box(&source)));
        });
        let mut run = |name: &str, starts: &[i64], size: usize| {
            let slots = Slots { starts, lengths: &lengths, order: None, size };
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter(|| {
                    let mut parts = Vec::with_capacity(rows);
                    let part =
                        Part { bytes: black_box(&source), item: ITEM, begins: &begins, lengths: &lengths };
                    part.append_to(&mut parts).unwrap();
                    place(&parts, &slots, Gaps::Fill(&[0; ITEM]), Mover::Copy, &mut out[..size * ITEM])
                        .unwrap();
                });
            });
        };
        run("concat", &begins, rows * length);
        run("pad", &padded, rows * (length + length / 4));
        group.finish();
    }
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);
