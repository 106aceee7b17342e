//! Runs, and lengths and offsets of q and kv, beside one read of the same arrays.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollkit::segments::{Bits, Ids, runs, seqlens_and_offsets};
use rollkit::thd::{Columned, Mask, Positions, Side, thd};

const TOKENS: usize = 1 << 20;

fn bench(c: &mut Criterion) {
    for segments in [16usize, 256, 16_384] {
        let length = TOKENS / segments;
        let ids: Vec<u32> = (0..TOKENS).map(|t| (t / length + 1) as u32).collect();
        let q: Vec<i32> = (0..TOKENS).map(|t| (2 * (t % length)) as i32).collect();
        let kv: Vec<i32> = q.iter().map(|p| p + 1).collect();
        let tokens = Ids { name: "ids", bits: Bits::U32(&ids), signed: true, rows: 1, width: TOKENS };
        let mut lengths = [vec![0; segments], vec![0; segments]];
        let mut offsets = [vec![0; segments + 1], vec![0; segments + 1]];
        let mut group = c.benchmark_group(format!("segments/{segments}"));
        group.throughput(Throughput::Elements(TOKENS as u64));
        group.bench_function("read ids", |b| b.iter(|| black_box(&ids).iter().fold(0, |a, &x| a | x)));
        group.bench_function("runs", |b| b.iter(|| runs(black_box(&tokens))));
        group.bench_function("self", |b| {
            b.iter(|| {
                seqlens_and_offsets(black_box(&tokens), segments, true, &mut lengths[0], &mut offsets[0])
            });
        });
        for mask in [Mask::Causal, Mask::CausalBottomRight, Mask::Padding] {
            group.bench_function(format!("{mask:?}"), |b| {
                b.iter(|| {
                    let side = |positions| Side { ids: tokens, positions: Some(Positions::I32(positions)) };
                    let [q_lengths, kv_lengths] = &mut lengths;
                    let [q_offsets, kv_offsets] = &mut offsets;
                    thd(
                        black_box(&side(&q)),
                        black_box(&side(&kv)),
                        mask,
                        segments,
                        true,
                        Columned { seqlens: &mut q_lengths[..], offsets: &mut q_offsets[..] },
                        Columned { seqlens: &mut kv_lengths[..], offsets: &mut kv_offsets[..] },
                    )
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
