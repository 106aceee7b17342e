//! Decimals as text: rounded once, to the bit as the standard library rounds them, or refused as JSON is.

#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use rollkit::cast::Dtype;
use rollkit::jsonl::{Data, Hint, Options, Values, parse};

fn read(text: &str, dtype: Dtype) -> Option<u64> {
    let options =
        Options { hints: HashMap::from([("x".to_owned(), Hint::Dtype(dtype))]), ..Options::default() };
    let line = format!("{{\"x\": [{text}]}}");
    let table = parse(line.as_bytes(), &options).ok()?;
    match &table.columns[0].1 {
        Data::Ragged { values: Values::F32(found), .. } => Some(found[0].to_bits().into()),
        Data::Ragged { values: Values::F64(found), .. } => Some(found[0].to_bits()),
        other => panic!("{other:?}"),
    }
}

fuzz_target!(|data: &[u8]| {
    // Digits and the signs among them, whatever the bytes.
    let text: String =
        data.iter().map(|byte| char::from(b"0123456789.eE+-0"[usize::from(byte % 16)])).collect();
    if text.is_empty() {
        return;
    }
    let number = serde_json::from_str::<serde_json::Value>(&text);
    let grammar = number.is_ok() || number.is_err_and(|error| error.to_string().contains("out of range"));
    let (narrow, wide) = (text.parse::<f32>(), text.parse::<f64>());
    let wanted = |bits: u64, finite: bool| (grammar && finite).then_some(bits);
    let narrow = narrow.ok().and_then(|value| wanted(value.to_bits().into(), value.is_finite()));
    let wide = wide.ok().and_then(|value| wanted(value.to_bits(), value.is_finite()));
    assert_eq!((read(&text, Dtype::F32), read(&text, Dtype::F64)), (narrow, wide), "{text}");
});
