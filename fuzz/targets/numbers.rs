//! Casts between the dtypes, and numbers in JSONL read as each of them: against `i128`, and the standard library's floats.

#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rollkit::cast::{Cast, Dtype};
use rollkit::jsonl::{Data, Hint, Options, Values, parse};

#[derive(Arbitrary, Debug)]
struct Case {
    values: Vec<i128>,
    shift: u8,
    from: u8,
    to: u8,
}

const DTYPES: [Dtype; 8] =
    [Dtype::I8, Dtype::I16, Dtype::I32, Dtype::I64, Dtype::U8, Dtype::U16, Dtype::U32, Dtype::U64];

/// The least and greatest value.
fn limits(dtype: Dtype) -> (i128, i128) {
    let bits = dtype.size() as u32 * 8;
    match dtype {
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        _ => (0, (1 << bits) - 1),
    }
}

fn bytes(values: &[i128], dtype: Dtype) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()[..dtype.size()].to_vec()).collect()
}

fn read(text: &str, dtype: Dtype) -> Option<Vec<i128>> {
    let options =
        Options { hints: HashMap::from([("x".to_owned(), Hint::Dtype(dtype))]), ..Options::default() };
    let table = parse(text.as_bytes(), &options).ok()?;
    let (_, Data::Ragged { values, .. }) = &table.columns[0] else { panic!("{table:?}") };
    macro_rules! wide {
        ($($kind:ident),*) => { match values { $(Values::$kind(found) => found.iter().map(|&v| v.into()).collect(),)* _ => panic!("{values:?}") } };
    }
    Some(wide!(I8, I16, I32, I64, U8, U16, U32, U64))
}

fuzz_target!(|case: Case| {
    let (from, to) = (DTYPES[usize::from(case.from % 8)], DTYPES[usize::from(case.to % 8)]);
    let (least, most) = limits(from);
    let values: Vec<i128> =
        case.values.iter().map(|value| (value >> (case.shift % 128)).clamp(least, most)).collect();
    let (low, high) = limits(to);
    let bad = values.iter().position(|value| !(low..=high).contains(value));

    let mut out = vec![0u8; values.len() * to.size()];
    let cast = Cast::new(from, to).unwrap().run(&bytes(&values, from), &mut out);
    match (bad, cast) {
        (None, Ok(())) => assert_eq!(out, bytes(&values, to)),
        (Some(bad), Err(found)) => assert_eq!((found.position, found.value), (bad, values[bad].to_string())),
        (bad, cast) => panic!("{bad:?} {cast:?}"),
    }
    let text = format!("{{\"x\": {values:?}}}");
    let wanted = if values.is_empty() { Some(vec![]) } else { bad.is_none().then_some(values) };
    assert_eq!(read(&text, to), wanted);
});
