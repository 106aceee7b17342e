//! JSONL to columns, with what a parser to a tree takes for the same bytes.
#![allow(missing_docs)] // criterion's macro makes an undocumented function

use std::collections::HashMap;
use std::fmt::Write;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollkit::cast::Dtype;
use rollkit::jsonl::{Data, Hint, Options, lists, parse};

fn options() -> Options {
    let hint = |name: &str, dtype| (name.to_owned(), Hint::Dtype(dtype));
    let hints = HashMap::from([
        hint("prompt_token_ids", Dtype::I32),
        hint("response_ids", Dtype::I32),
        hint("loss_masks", Dtype::U8),
        hint("rollout_logprobs", Dtype::F32),
    ]);
    Options { hints, ..Options::default() }
}

/// The shared rollouts ten times, where they are.
fn rollouts() -> Option<String> {
    std::fs::read_to_string("../shared/data/tau_airline.jsonl").ok().map(|lines| lines.repeat(10))
}

/// Rows as `json.dumps` or a compact writer writes them, log-probabilities with all their digits.
fn full_precision(comma: &str) -> String {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let mut lines = String::new();
    for _ in 0..2_000 {
        let ids = (0..1_000).map(|_| (random() % 131_072).to_string()).collect::<Vec<_>>().join(comma);
        let masks = (0..1_000).map(|_| (random() % 2).to_string()).collect::<Vec<_>>().join(comma);
        let logprobs = (0..1_000)
            .map(|_| f64::from(-5.0 * (random() as f32 / 2_147_483_648.0)).to_string())
            .collect::<Vec<_>>()
            .join(comma);
        writeln!(
            lines,
            "{{\"response_ids\":[{ids}]{comma}\"loss_masks\":[{masks}]{comma}\"rollout_logprobs\":[{logprobs}]}}"
        )
        .unwrap_or_default();
    }
    lines
}

fn routes() -> String {
    let token = format!("[{}]", vec!["[3,17,42,101,5,77,60,9]"; 24].join(","));
    let row = format!("{{\"rollout_expert_indices\":[{}]}}\n", vec![token; 200].join(","));
    row.repeat(20)
}

/// What survived top-p, 50 ids a token.
fn sampling_masks() -> String {
    let list = format!("[{}]", (0..50).map(|i| (i * 2_621).to_string()).collect::<Vec<_>>().join(", "));
    let row = format!("{{\"sampling_masks\": [{}]}}\n", vec![list; 500].join(", "));
    row.repeat(40)
}

fn bench(c: &mut Criterion) {
    let cases = [
        ("rollouts", rollouts()),
        ("full_precision", Some(full_precision(","))),
        ("full_precision_spaced", Some(full_precision(", "))),
        ("routes", Some(routes())),
    ];
    let mut group = c.benchmark_group("jsonl");
    group.sample_size(10);
    for (name, lines) in cases {
        let Some(lines) = lines else { continue };
        group.throughput(Throughput::Bytes(lines.len() as u64));
        group.bench_function(format!("{name}/hinted"), |bencher| {
            bencher.iter(|| parse(black_box(lines.as_bytes()), &options()));
        });
        group.bench_function(format!("{name}/unhinted"), |bencher| {
            bencher.iter(|| parse(black_box(lines.as_bytes()), &Options::default()));
        });
        group.bench_function(format!("{name}/serde_json"), |bencher| {
            bencher.iter(|| {
                lines.lines().map(serde_json::from_str::<serde_json::Value>).collect::<Result<Vec<_>, _>>()
            });
        });
    }
    let lines = sampling_masks();
    let objects = HashMap::from([("sampling_masks".to_owned(), Hint::Object)]);
    let options = Options { hints: objects, ..Options::default() };
    group.throughput(Throughput::Bytes(lines.len() as u64));
    group.bench_function("sampling_masks/lists", |bencher| {
        bencher.iter(|| {
            let table = parse(black_box(lines.as_bytes()), &options)?;
            let Data::Json(rows) = &table.columns[0].1 else { return Ok(None) };
            lists(rows, Dtype::I32)
        });
    });
    group.bench_function("sampling_masks/serde_json", |bencher| {
        bencher.iter(|| {
            lines.lines().map(serde_json::from_str::<serde_json::Value>).collect::<Result<Vec<_>, _>>()
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
