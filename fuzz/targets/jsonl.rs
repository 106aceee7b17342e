//! Any bytes as JSONL: what is read is what `serde_json` reads, and what it refuses is refused.

#![no_main]

#[path = "../../tests/oracles/jsonl.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use rollkit::cast::Dtype;
use rollkit::jsonl::{Data, Options, lists, parse};
use serde_json::{Map, Value};

/// The lines as `serde_json` reads them; `None` where a line is no object, or has a key twice.
fn lines(data: &[u8]) -> Option<Vec<Map<String, Value>>> {
    let data = data.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(data);
    let blank = |line: &&[u8]| line.iter().all(|byte| b" \t\r".contains(byte));
    let lines = data.split(|&byte| byte == b'\n').filter(|line| !blank(line));
    lines.map(|line| serde_json::from_slice(line).ok()).collect()
}

fuzz_target!(|data: &[u8]| {
    let theirs = lines(data);
    match parse(data, &Options::default()) {
        Ok(table) => {
            let theirs = theirs.expect("read what serde_json refuses");
            assert_eq!(table.rows, theirs.len());
            for (name, column) in &table.columns {
                if let Data::Json(rows) = column {
                    lists(rows, Dtype::I32).expect("memory for less than what is read");
                }
                for (row, object) in theirs.iter().enumerate() {
                    let wanted = object.get(&**name).unwrap_or(&Value::Null);
                    let got = oracle::cell(column, row);
                    assert!(oracle::same(&got, wanted), "{name:?}, row {row}: {got} is not {wanted}");
                }
            }
        }
        // More is refused than by `serde_json`: columns of two kinds, keys twice. It is told in words.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
