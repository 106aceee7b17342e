//! What reading JSONL costs, counted in bytes that are allocated: linear in what is read, whatever lines are refused.

#[path = "common/counting.rs"]
mod counting;

use std::fmt::Write;

use rollkit::jsonl::{Options, parse};

/// Bytes that are allocated on the way, for each byte of `lines`.
fn work(lines: &str) -> f64 {
    let options = Options { skip: true, ..Options::default() };
    let bytes = counting::bytes(|| drop(parse(lines.as_bytes(), &options)));
    bytes as f64 / lines.len() as f64
}

fn repeated(first: &str, count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).fold(first.repeat(count), |mut lines, i| {
        writeln!(lines, "{}", line(i)).unwrap_or_default();
        lines
    })
}

#[test]
fn refused_lines_cost_what_they_are_long() {
    let patterns: [(&str, &str, &str); 8] = [
        ("the first float", "{\"a\":[1,2,3],\"b\":1}\n", "{\"a\":[0.5],\"b\":\"x\"}"),
        ("the first float, alone", "{\"a\":1,\"b\":1}\n", "{\"a\":0.5,\"b\":\"x\"}"),
        ("the first element", "{\"a\":[],\"b\":1}\n", "{\"a\":[1],\"b\":\"x\"}"),
        ("the first text", "{\"a\":null,\"b\":1}\n", "{\"a\":\"x\",\"b\":\"x\"}"),
        ("the first number", "{\"a\":null,\"b\":1}\n", "{\"a\":1,\"b\":\"x\"}"),
        ("the first object", "{\"a\":null,\"b\":1}\n", "{\"a\":{},\"b\":\"x\"}"),
        ("a new key", "{\"b\":1}\n", "{\"k#\":1,\"b\":\"x\"}"),
        ("another kind", "{\"a\":[]}\n", "{\"a\":\"x\"}"),
    ];
    for (name, good, bad) in patterns {
        let [small, large] =
            [500, 8000].map(|count| work(&repeated(good, count, |i| bad.replace('#', &i.to_string()))));
        assert!(
            large < 2.0 * small + 50.0,
            "{name}: {small} bytes for a byte, {large} of 16 times as many lines"
        );
    }
}

#[test]
fn new_keys_cost_what_they_are_long_up_to_a_limit() {
    let lines = |count| repeated("", count, |i| format!("{{\"ids\":[1],\"k{i}\":{i}}}"));
    let [small, large] = [2000, 32_000].map(|count| work(&lines(count)));
    assert!(large < 2.0 * small, "{small} bytes for a byte, {large} of 16 times as many lines");
}
