//! What a table holds, as `serde_json`'s values.

use rollkit::jsonl::{Data, Values};
use serde_json::Value;

pub fn numbers(values: &Values) -> Vec<Value> {
    match values {
        Values::Bool(found) => found.iter().copied().map(Value::from).collect(),
        Values::U8(found) => found.iter().copied().map(Value::from).collect(),
        Values::I16(found) => found.iter().copied().map(Value::from).collect(),
        Values::I64(found) => found.iter().copied().map(Value::from).collect(),
        Values::F64(found) => found.iter().copied().map(Value::from).collect(),
        _ => panic!("no test has {values:?}"),
    }
}

/// Values as nested arrays of `shape`.
pub fn nested(values: &[Value], shape: &[usize]) -> Value {
    let [length, inner @ ..] = shape else { return values[0].clone() };
    let size = inner.iter().product::<usize>();
    (0..*length).map(|i| nested(&values[i * size..(i + 1) * size], inner)).collect()
}

/// A row of a column, as JSON.
pub fn cell(data: &Data<'_>, row: usize) -> Value {
    match data {
        Data::Ragged { values, offsets, inner } => {
            let (begin, end) = (offsets[row] as usize, offsets[row + 1] as usize);
            let size = inner.iter().product::<usize>();
            let shape = [&[end - begin], &inner[..]].concat();
            nested(&numbers(values)[begin * size..end * size], &shape)
        }
        Data::Scalars { missing, .. } if missing.contains(&row) => Value::Null,
        Data::Scalars { values, .. } => numbers(values)[row].clone(),
        Data::Text(list) => list[row].as_deref().map_or(Value::Null, Value::from),
        Data::Json(list) => serde_json::from_slice(list[row]).unwrap_or_else(|error| panic!("{error}")),
    }
}

/// Whether both are the same, floats to the bit; to `serde_json`, the integer `-0` is a float.
pub fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            a.as_f64().map(f64::to_bits) == b.as_f64().map(f64::to_bits)
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        _ => ours == theirs,
    }
}
