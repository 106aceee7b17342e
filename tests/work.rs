//! What kernels cost on inputs made to cost much, counted in bytes that are allocated: linear in the input.

#[path = "common/counting.rs"]
mod counting;

use rollkit::balance::{self, balance};
use rollkit::binpack::{Algorithm, Options, Oversize, plan_bins};
use rollkit::pack::pack_rows;
use rollkit::sample::logits::Columns;
use rollkit::sample::noise::Key;
use rollkit::sample::{Allowed, Filters, Ids, LogProb, Logits, Noise, Options as Drawing, Order, Sampler};
use rollkit::segments::{Bits, Ids as Segments, runs, seqlens_and_offsets};
use rollkit::step_plan::{self, Sync, plan_steps};
use rollkit::turns::{Mask, turns};

const FEW: usize = 4_000;
const MANY: usize = 10 * FEW;

/// Holds a call to what it allocates for each element: never more than `most` bytes, and no more for many than
/// for few, but for what a vector that doubles has room for.
fn check(name: &str, most: f64, call: impl Fn(usize)) {
    let [few, many] = [FEW, MANY].map(|count| counting::bytes(|| call(count)) as f64 / count as f64);
    assert!(many <= most, "{name}: {many} bytes for an element of {MANY}");
    assert!(many < 2.0 * few + 16.0, "{name}: {few} bytes for an element of {FEW}, {many} of {MANY}");
}

/// Lengths that leave as many bins open as there can be: no two rows fit together, or all rooms are different.
fn lengths(way: &str, count: usize) -> Vec<i64> {
    let capacity = 1 << 40;
    (0..count as i64)
        .map(|i| match way {
            "no two fit" => capacity / 2 + 1 + i,
            "every room is another" => capacity - 1 - 2 * i,
            "large and tiny by turns" if i % 2 == 0 => capacity - 1,
            "large and tiny by turns" => 1,
            _ => 0,
        })
        .collect()
}

const LENGTHS: [&str; 4] = ["no two fit", "every room is another", "large and tiny by turns", "empty"];

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::FirstFitDecreasing, Algorithm::BestFitDecreasing, Algorithm::FirstFit, Algorithm::NextFit];

#[test]
fn bins_are_planned_in_memory_of_the_rows() {
    for way in LENGTHS {
        for algorithm in ALGORITHMS {
            for max_segments in [None, Some(1), Some(65_536)] {
                let options = Options {
                    capacity: 1 << 40,
                    align: 1,
                    max_segments,
                    algorithm,
                    oversize: Oversize::Raise,
                };
                check(&format!("{way}, {algorithm:?}, {max_segments:?}"), 200.0, |count| {
                    plan_bins(&lengths(way, count), &options, &mut vec![0i64; count]).unwrap();
                });
            }
        }
    }
}

#[test]
fn rows_are_dealt_out_in_memory_of_the_rows() {
    let numbers = |count: usize, of: i64| (0..count as i64).map(|i| i * i % of).collect::<Vec<_>>();
    for (equal_counts, capacity) in [(false, None), (true, None), (false, Some(9_000)), (true, Some(90_000))]
    {
        check(&format!("parts, {equal_counts}, {capacity:?}"), 400.0, |count| {
            let options = balance::Options { parts: count / 9, equal_counts, capacity, tolerance: 0.5 };
            let (lengths, mut out) = (numbers(count, 997), vec![0i64; count]);
            balance(&lengths, &lengths, None, &options, &mut out).unwrap();
        });
    }
    for sync in [Sync::MicroBatch, Sync::Step] {
        check(&format!("{sync:?}"), 600.0, |count| {
            let options = step_plan::Options {
                capacity: 4_000,
                ranks: 8,
                sync,
                max_segments: Some(9),
                steps: 0,
                seed: Some(1),
            };
            let (lengths, ids) = (numbers(count, 997), numbers(count, count as i64));
            let (home, mut out) = (numbers(count, 8), vec![0i64; count]);
            plan_steps(&lengths, &lengths, None, Some(&home), &options, &mut out).unwrap();
            let options = step_plan::Options { max_segments: None, capacity: 1 << 40, ..options };
            plan_steps(&lengths, &lengths, Some(&ids), None, &options, &mut out).unwrap();
        });
    }
}

#[test]
fn rows_are_laid_out_in_memory_of_the_rows() {
    let options = Options {
        capacity: 8,
        align: 1,
        max_segments: None,
        algorithm: Algorithm::BestFitDecreasing,
        oversize: Oversize::Raise,
    };
    check("rows", 300.0, |count| {
        let lengths: Vec<i64> = (0..count as i64).map(|i| i % 9).collect();
        let (mut starts, mut order) = (vec![0i64; count], vec![0i64; count]);
        pack_rows(&lengths, &options, 7, Some(3), &mut starts, &mut order).unwrap();
    });
}

#[test]
fn turns_cost_what_masks_are_long() {
    check("every token is a turn", 100.0, |count| {
        let bytes: Vec<u8> = (0..count).map(|i| u8::from(i % 2 == 0)).collect();
        let mask = Mask { bytes: &bytes, item: 1, float: false };
        drop(turns(mask, &[0, count as i64]).unwrap());
    });
    check("every row is empty", 100.0, |count| {
        let mask = Mask { bytes: &[], item: 1, float: false };
        drop(turns(mask, &vec![0; count]).unwrap());
    });
}

#[test]
fn runs_cost_what_ids_are_long() {
    for rows in [1, 100] {
        check("every token is a run", 150.0, |count| {
            let ids: Vec<u64> = (0..count as u64).map(|i| i % 2 + 1).collect();
            let ids =
                Segments { name: "ids", bits: Bits::U64(&ids), signed: false, rows, width: count / rows };
            drop(runs(&ids).unwrap());
            let most = 4;
            let (mut seqlens, mut offsets) = (vec![0i32; rows * most], vec![0i32; rows * (most + 1)]);
            let _ = seqlens_and_offsets(&ids, most, true, &mut seqlens, &mut offsets);
        });
    }
}

/// Logits that a selection by pivots is slow on: sorted either way, all equal, and all but one.
fn logits(way: usize, count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| match way {
            0 => i as f32 / count as f32,
            1 => -(i as f32) / count as f32,
            2 => 0.0,
            _ => f32::from(u8::from(i == count / 2)),
        })
        .collect()
}

#[test]
fn a_draw_costs_what_its_row_is_long() {
    for way in 0..4 {
        for order in [Order::Hf, Order::Vllm, Order::Joint] {
            check(&format!("logits {way}, {order:?}"), 100.0, |count| {
                let z = logits(way, count);
                let filters =
                    Filters { scale: 1.0, temperature: 0.7, top_k: count / 2, top_p: 0.9, min_p: 1e-3 };
                let allowed = Allowed { columns: Columns::Range(0..count), ids: Ids::From(0) };
                let drawing = Drawing { order, logprob: LogProb::Kept };
                let noise = Noise::Keyed(Key::new(1, 2));
                let mut sampler = Sampler::default();
                sampler.draw(Logits::F32(&z, None), &allowed, &filters, noise, drawing);
                assert!(sampler.kept(&allowed).count() > 0);
            });
        }
    }
}
