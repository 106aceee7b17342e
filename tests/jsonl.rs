//! JSONL against `serde_json`: what it reads, what it refuses, and where.

mod common;
#[path = "oracles/jsonl.rs"]
mod oracle;

use common::{examples, stride};
use oracle::{cell, same};
use std::collections::HashMap;
use std::fmt::Write;

use proptest::prelude::*;
use rollkit::Error;
use rollkit::cast::Dtype;
use rollkit::jsonl::{Data, Hint, MAX_KEYS, Nonfinite, Options, Table, Values, lists, parse};
use serde_json::{Map, Value};

fn hints<const N: usize>(hints: [(&str, Dtype); N]) -> Options {
    let hints = hints.map(|(key, dtype)| (key.to_owned(), Hint::Dtype(dtype)));
    Options { hints: HashMap::from(hints), ..Options::default() }
}

fn read<'a>(lines: &'a [u8], options: &Options) -> Table<'a> {
    parse(lines, options).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(lines)))
}

fn message(lines: &[u8], options: &Options) -> String {
    match parse(lines, options) {
        Ok(table) => panic!("{:?} was read as {table:?}", String::from_utf8_lossy(lines)),
        Err(error) => error.to_string(),
    }
}

fn column<'a, 'b>(table: &'b Table<'a>, key: &str) -> &'b Data<'a> {
    let found = table.columns.iter().find(|(name, _)| &**name == key);
    &found.unwrap_or_else(|| panic!("no column {key}")).1
}

fn ragged(values: Values, offsets: &[i64], inner: &[usize]) -> Data<'static> {
    Data::Ragged { values, offsets: offsets.to_vec(), inner: inner.to_vec() }
}

/// Writes JSON with spaces between tokens, by a seed: none, the usual one, or many.
struct Writer {
    state: u64,
    out: String,
}

impl Writer {
    fn space(&mut self) {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.out.push_str(["", "", " ", "\t", " ", "  \r "][(self.state >> 40) as usize % 6]);
    }

    fn value(&mut self, value: &Value) {
        self.space();
        match value {
            Value::Array(items) => {
                self.out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.out.push_str(if i > 0 { "," } else { "" });
                    self.value(item);
                }
                self.space();
                self.out.push(']');
            }
            Value::Object(items) => {
                self.out.push('{');
                for (i, (key, item)) in items.iter().enumerate() {
                    self.out.push_str(if i > 0 { "," } else { "" });
                    self.value(&Value::from(key.as_str()));
                    self.out.push(':');
                    self.value(item);
                }
                self.space();
                self.out.push('}');
            }
            _ => self.out.push_str(&value.to_string()),
        }
        self.space();
    }
}

/// A row as a writer writes it: compact, as `json.dumps` does, or any way.
fn written(row: &Map<String, Value>, seed: u64) -> String {
    let value = Value::Object(row.clone());
    match seed % 3 {
        0 => value.to_string(),
        1 => {
            let mut writer = serde_json::Serializer::with_formatter(Vec::new(), Spaced);
            serde::Serialize::serialize(&value, &mut writer).unwrap_or_default();
            String::from_utf8(writer.into_inner()).unwrap_or_default()
        }
        _ => {
            let mut writer = Writer { state: seed, out: String::new() };
            writer.value(&value);
            writer.out
        }
    }
}

/// `json.dumps`'s default separators.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// Floats of all sizes, subnormals and integers among them.
fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |value| value.is_finite()),
        any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |v| v.is_finite()).prop_map(f64::from),
        -20.0..0.0f64,
        Just(0.0),
        Just(-0.0),
        (-1000i32..1000).prop_map(f64::from),
    ]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        float().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,4}", inner), 0..4)
                .prop_map(|items| Value::Object(items.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn row()(
        ids in prop::collection::vec(prop_oneof![0i64..10, 0i64..200_000, any::<i64>()], 0..40),
        masks in prop::collection::vec(0u8..2, 0..60),
        flags in prop::collection::vec(any::<bool>(), 0..9),
        logprobs in prop::collection::vec(float(), 0..20),
        routes in prop::collection::vec(prop::collection::vec(prop::collection::vec(0u8..200, 3), 2), 0..4),
        reward in prop::option::of(float()),
        text in prop::option::of(".{0,12}"),
        other in json(),
    ) -> Map<String, Value> {
        let value = serde_json::json!({
            "ids": ids, "masks": masks, "flags": flags, "logprobs": logprobs, "routes": routes,
            "reward": reward, "text": text, "other": other,
        });
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

fn typed() -> Options {
    let mut options = hints([
        ("ids", Dtype::I64),
        ("masks", Dtype::U8),
        ("flags", Dtype::Bool),
        ("logprobs", Dtype::F64),
        ("routes", Dtype::I16),
        ("reward", Dtype::F64),
    ]);
    options.hints.insert("other".to_owned(), Hint::Object);
    options
}

/// Decimals: as writers print floats, by the grammar, and at or next to the midpoint of two f32.
fn decimal() -> impl Strategy<Value = String> {
    let midpoint =
        |bits: u32| f64::midpoint(f64::from(f32::from_bits(bits)), f64::from(f32::from_bits(bits + 1)));
    prop_oneof![
        float().prop_map(|value| serde_json::json!(value).to_string()),
        float().prop_map(|value| value.to_string()),
        any::<u32>()
            .prop_map(f32::from_bits)
            .prop_filter("finite", |v| v.is_finite())
            .prop_map(|v| v.to_string()),
        "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?",
        (1u32..0x7F00_0000).prop_map(move |bits| format!("{:e}", midpoint(bits))),
        // Nineteen digits or less, so near a midpoint that the nearest f64 is the midpoint itself.
        (1u32..0x7F00_0000, 12usize..19)
            .prop_map(move |(bits, digits)| format!("{:.digits$e}", midpoint(bits))),
        (0x3000_0000u32..0x4800_0000, 0u8..10)
            .prop_map(move |(bits, digit)| format!("{:.60}{digit}", midpoint(bits))),
    ]
}

macro_rules! check_rounding {
    ($texts:expr, $float:ty, $dtype:ident) => {{
        let line = format!("{{\"x\": [{}]}}", $texts.join(","));
        let wanted = $texts.iter().map(|text| text.parse::<$float>().unwrap_or(0.0)).collect::<Vec<_>>();
        let got = parse(line.as_bytes(), &hints([("x", Dtype::$dtype)]));
        if let Some(at) = wanted.iter().position(|value| value.is_infinite()) {
            let wanted = format!("line 1: x[{at}]: {} does not fit {}", $texts[at], Dtype::$dtype.name());
            prop_assert_eq!(got.map_err(|error| error.to_string()), Err(wanted));
        } else {
            let got = got.map(|table| table.columns[0].1.clone());
            let Ok(Data::Ragged { values: Values::$dtype(got), .. }) = got else { panic!("{got:?}") };
            for ((got, wanted), text) in got.iter().zip(&wanted).zip(&$texts) {
                prop_assert_eq!(got.to_bits(), wanted.to_bits(), "{}", text);
            }
        }
    }};
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(examples(400)))]

    #[test]
    fn reads_what_serde_json_reads(
        rows in prop::collection::vec((row(), any::<u64>()), 1..6),
        ending in prop::sample::select(vec!["\n", "\r\n", "\n\n \n"]),
    ) {
        let mut lines = String::new();
        for (row, seed) in &rows {
            lines.push_str(&written(row, *seed));
            lines.push_str(ending);
        }
        let table = read(lines.as_bytes(), &typed());
        prop_assert_eq!(table.rows, rows.len());
        for (i, (row, _)) in rows.iter().enumerate() {
            for (key, wanted) in row {
                let got = cell(column(&table, key), i);
                prop_assert!(same(&got, wanted), "{key}: {got} is not {wanted}\n{lines}");
            }
        }
    }

    #[test]
    fn floats_are_rounded_once(texts in prop::collection::vec(decimal(), 1..20)) {
        check_rounding!(texts, f32, F32);
        check_rounding!(texts, f64, F64);
    }

    #[test]
    fn skipping_leaves_what_the_good_lines_hold(
        rows in prop::collection::vec((row(), 0usize..4, any::<prop::sample::Index>()), 1..8),
    ) {
        let (mut good, mut all, mut bad) = (String::new(), String::new(), 0);
        for (row, action, at) in &rows {
            let line = Value::Object(row.clone()).to_string();
            if *action == 0 {
                let cut = &line.as_bytes()[..at.index(line.len())];
                bad += usize::from(!cut.is_empty());
                writeln!(all, "{}", String::from_utf8_lossy(cut)).unwrap_or_default();
            } else {
                writeln!(all, "{line}").unwrap_or_default();
                writeln!(good, "{line}").unwrap_or_default();
            }
        }
        let wanted = read(good.as_bytes(), &typed());
        let got = read(all.as_bytes(), &Options { skip: true, ..typed() });
        prop_assert_eq!((got.rows, got.skipped), (wanted.rows, bad));
        prop_assert_eq!(got.columns, wanted.columns);
    }
}

const LINE: &str = concat!(
    r#"{"i": [12, 0,-7,1,2,3,4,5,6,7,8,9,123456789], "f":[0.0,-1.25e-3, 4E+2,0.1234567890123456789],"#,
    r#""b":[true,false], "n":[[1,2],[3,4]], "s":"a\"\u00e9é\n","o":{"k":[null,"x"],"e":{}}, "r":-0.5,"#,
    r#" "t":true, "z":null, "v":[]}"#
);

/// What is read must be what `serde_json` reads.
fn check(line: &[u8]) {
    let Ok(table) = parse(line, &Options::default()) else { return };
    let theirs = serde_json::from_slice::<Map<String, Value>>(line);
    let theirs = theirs.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)));
    assert_eq!(table.columns.len(), theirs.len());
    for (key, data) in &table.columns {
        let ours = cell(data, 0);
        assert!(same(&ours, &theirs[&**key]), "{key}: {ours} is not {}", theirs[&**key]);
    }
}

#[test]
fn a_line_cut_anywhere_is_refused() {
    read(LINE.as_bytes(), &Options::default());
    for end in 1..LINE.len() {
        message(&LINE.as_bytes()[..end], &Options::default());
    }
}

#[test]
fn a_line_broken_anywhere_is_refused_or_read_alike() {
    let line = LINE.as_bytes();
    check(line);
    for at in 0..line.len() {
        check(&[&line[..at], &line[at + 1..]].concat());
        for byte in (0..=255).filter(|byte| *byte != b'\n').step_by(stride()) {
            check(&[&line[..at], &[byte], &line[at..]].concat());
            check(&[&line[..at], &[byte], &line[at + 1..]].concat());
        }
    }
}

#[test]
fn a_line_broken_anywhere_is_dropped_whole_or_read() {
    for dtype in [Dtype::Bool, Dtype::U8, Dtype::I32, Dtype::U64, Dtype::F32] {
        let keys = ["i", "f", "b", "n", "r", "t", "v"].map(|key| (key, dtype));
        let options = Options { skip: true, ..hints(keys) };
        for at in 0..LINE.len() {
            for byte in *b"09,[]\".e-t{} \xC3" {
                let mut lines = LINE.as_bytes().to_vec();
                lines[at] = byte;
                lines.extend_from_slice(b"\n{\"i\":[1]}\n");
                let table = read(&lines, &options);
                assert_eq!(table.rows + table.skipped, 2);
            }
        }
    }
}

#[test]
fn refuses_what_is_not_json() {
    let cases: &[(&[u8], &str)] = &[
        (b"[1]", "expected an object at column 1, found '['"),
        (b"7", "expected an object at column 1, found '7'"),
        (b"{", "expected a key at column 2, found end of line"),
        (b"{}x", "expected the end of the line at column 3, found 'x'"),
        (b"{} {}", "expected the end of the line at column 4, found '{'"),
        (b"{\"a\" 1}", "expected ':' at column 6, found '1'"),
        (b"{\"a\":}", "expected a value at column 6, found '}'"),
        (b"{\"a\":1,}", "expected a key at column 8, found '}'"),
        (b"{\"a\":1", "expected ',' or '}' at column 7, found end of line"),
        (b"{\"a\":1 \"b\":2}", "expected ',' or '}' at column 8, found '\"'"),
        (b"{'a':1}", "expected a key at column 2, found '''"),
        (b"{\"a\":'b'}", "expected a value at column 6, found '''"),
        (b"{\"a\":1,\"a\":2}", "key \"a\" repeats at column 8"),
        (b"{\"a\":1,\"\\u0061\":2}", "key \"a\" repeats at column 8"),
        (b"{\"a\":[1,2,]}", "expected a number at column 11, found ']'"),
        (b"{\"a\":[1,2", "expected ',' or ']' at column 10, found end of line"),
        (b"{\"a\":[1,", "expected a number at column 9, found end of line"),
        (b"{\"a\":[1 2]}", "expected ',' or ']' at column 9, found '2'"),
        (b"{\"a\":[1,,2]}", "expected a number at column 9, found ','"),
        (b"{\"a\":[01]}", "expected no digit after a leading zero at column 8, found '1'"),
        (b"{\"a\":[1,-01.5]}", "expected no digit after a leading zero at column 11, found '1'"),
        (b"{\"a\":[1,+1]}", "expected a number at column 9, found '+'"),
        (b"{\"a\":[1,.5]}", "expected a number at column 9, found '.'"),
        (b"{\"a\":[1,-]}", "expected a digit at column 10, found ']'"),
        (b"{\"a\":[1.]}", "expected a digit at column 9, found ']'"),
        (b"{\"a\":[1.5e]}", "expected a digit at column 11, found ']'"),
        (b"{\"a\":[1.5e+]}", "expected a digit at column 12, found ']'"),
        (b"{\"a\":[1.5,NaN]}", "a[1]: NaN is no JSON number; nonfinite=\"keep\" or \"null\" takes it"),
        (b"{\"a\":NaN}", "a: NaN is no JSON number; nonfinite=\"keep\" or \"null\" takes it"),
        (b"{\"a\":-Infinity}", "a: -Infinity is no JSON number; nonfinite=\"keep\" or \"null\" takes it"),
        (b"{\"a\":[true,yes]}", "expected true or false at column 12, found 'y'"),
        (b"{\"a\":[[1],[2]}", "expected ',' or ']' at column 14, found '}'"),
        (b"{\"a\":\"b}", "EOF while parsing a string at column 8"),
        (b"{\"a\":\"\\x\"}", "invalid escape at column 8"),
        (b"{\"a\":1}\0", "expected the end of the line at column 8, found byte 0x00"),
    ];
    for (line, wanted) in cases {
        assert_eq!(message(line, &Options::default()), format!("line 1: {wanted}"));
    }
    let in_words_of_serde_json: &[&[u8]] = &[
        b"{\"a\":nul}",
        b"{\"a\":[true,tru]}",
        b"{\"a\":\"\t\"}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"\xC3\"}",
        b"{\"a\":{\"b\":\"\xFF\"}}",
        b"{\"a\":{\"b\":\"\\udc00\"}}",
        b"{\"a\":{\"b\":1,}}",
        b"{\"a\":{\"b\":01}}",
        b"{\"a\":{\"b\":1e999}}",
    ];
    for line in in_words_of_serde_json {
        assert!(message(line, &Options::default()).contains(" at column "));
    }
}

#[test]
fn refuses_what_does_not_fit_the_column() {
    let cases: &[(&str, &str)] = &[
        ("{\"a\":[1]}\n{\"a\":2}", "a: expected an array of numbers as in the rows before, found a number"),
        ("{\"a\":2}\n{\"a\":[1]}", "a: expected a number as in the rows before, found an array"),
        ("{\"a\":2}\n{\"a\":\"x\"}", "a: expected a number as in the rows before, found a string"),
        ("{\"a\":[]}\n{\"a\":\"x\"}", "a: expected an array as in the rows before, found a string"),
        ("{\"a\":2}\n{\"a\":true}", "a: expected a number, found true or false"),
        ("{\"a\":[1]}\n{\"a\":[2,true]}", "a[1]: expected a number, found true or false"),
        ("{\"a\":[1]}\n{\"a\":[\"x\"]}", "a[0]: expected a number, found a string"),
        ("{\"a\":[true]}\n{\"a\":[1]}", "a[0]: expected true or false, found a number"),
        ("{\"a\":[[1]]}\n{\"a\":[2]}", "a[0]: expected an array, found a number"),
        ("{\"a\":[1]}\n{\"a\":[[2]]}", "a[0]: expected a number, found an array"),
        ("{\"a\":[[1]]}\n{\"a\":[[2],[3,4]]}", "a[1]: 2 elements, expected 1 as in the other arrays"),
        ("{\"a\":[1]}\n{\"b\":1}", "a: missing or null; a column of arrays needs an array in every row"),
        ("{\"a\":[1]}\n{\"a\":null}", "a: missing or null; a column of arrays needs an array in every row"),
        ("{}\n{\"a\":[1]}", "a: missing or null; a column of arrays needs an array in every row"),
        ("{}\n{\"a\":[9223372036854775808]}", "a[0]: 9223372036854775808 does not fit int64"),
    ];
    for (lines, wanted) in cases {
        assert_eq!(message(lines.as_bytes(), &Options::default()), format!("line 2: {wanted}"));
    }
}

#[test]
fn refuses_what_does_not_fit_the_hint() {
    let cases: &[(&str, Dtype, &str)] = &[
        ("[1,300]", Dtype::U8, "a[1]: 300 does not fit uint8"),
        ("[1,-1]", Dtype::U64, "a[1]: -1 does not fit uint64"),
        ("[1,18446744073709551616]", Dtype::U64, "a[1]: 18446744073709551616 does not fit uint64"),
        ("[[1,2],[3,128]]", Dtype::I8, "a[1][1]: 128 does not fit int8"),
        ("[1,1.5]", Dtype::I32, "a[1]: 1.5 does not fit int32"),
        ("[1,1e2]", Dtype::I32, "a[1]: 1e2 does not fit int32"),
        ("[1,2]", Dtype::Bool, "a[1]: 2 does not fit bool"),
        ("[1,1e39]", Dtype::F32, "a[1]: 1e39 does not fit float32"),
        ("[1,-1e400]", Dtype::F64, "a[1]: -1e400 does not fit float64"),
        ("300", Dtype::U8, "a: 300 does not fit uint8"),
        ("[1,true]", Dtype::F32, "a[1]: expected a number, found true or false"),
        ("[1,null]", Dtype::F32, "a[1]: null is no JSON number; nonfinite=\"keep\" or \"null\" takes it"),
        ("[[1],2]", Dtype::I32, "a[1]: expected an array, found a number"),
        ("\"x\"", Dtype::U8, "a: expected numbers for uint8, found a string"),
        ("[\"x\"]", Dtype::U8, "a[0]: expected a number, found a string"),
    ];
    for (value, dtype, wanted) in cases {
        let line = format!("{{\"a\":{value}}}");
        assert_eq!(message(line.as_bytes(), &hints([("a", *dtype)])), format!("line 1: {wanted}"));
    }
}

#[test]
fn the_first_float_makes_all_floats() {
    let lines = b"{\"a\":[1,9007199254740993],\"b\":1}\n{\"a\":[2,0.5],\"b\":2}\n{\"a\":[3],\"b\":0.5}";
    let table = read(lines, &Options::default());
    let wanted = Values::F64(vec![1.0, 9_007_199_254_740_992.0, 2.0, 0.5, 3.0]);
    assert_eq!(*column(&table, "a"), ragged(wanted, &[0, 2, 4, 5], &[]));
    let wanted = Values::F64(vec![1.0, 2.0, 0.5]);
    assert_eq!(*column(&table, "b"), Data::Scalars { values: wanted, missing: vec![] });
}

#[test]
fn a_dropped_row_decides_nothing() {
    let lines = b"{\"a\":[],\"b\":[7,9007199254740993],\"c\":null,\"d\":[]}
{\"a\":[1],\"b\":[0.5],\"c\":1,\"d\":[\"x\"],\"e\":1,}
{\"a\":[true],\"b\":[8],\"c\":\"x\",\"d\":[1.5]}";
    let table = read(lines, &Options { skip: true, ..Options::default() });
    assert_eq!((table.rows, table.skipped, table.columns.len()), (2, 1, 4));
    assert_eq!(*column(&table, "a"), ragged(Values::Bool(vec![true]), &[0, 0, 1], &[]));
    let wanted = Values::I64(vec![7, 9_007_199_254_740_993, 8]);
    assert_eq!(*column(&table, "b"), ragged(wanted, &[0, 2, 3], &[]));
    assert_eq!(*column(&table, "c"), Data::Text(vec![None, Some("x".into())]));
    assert_eq!(*column(&table, "d"), ragged(Values::F64(vec![1.5]), &[0, 0, 1], &[]));
}

#[test]
fn what_is_neither_numbers_nor_text_stays_json() {
    let lines = b"{\"a\":[1,null]}\n{\"a\":[1,2]}\n{\"a\":{\"b\": 1}}\n{\"a\":7}\n{}\n{\"a\":[[1],[2,3]]}";
    let wanted: [&[u8]; 6] = [b"[1,null]", b"[1,2]", b"{\"b\": 1}", b"7", b"null", b"[[1],[2,3]]"];
    assert_eq!(read(lines, &Options::default()).columns[0].1, Data::Json(wanted.to_vec()));
}

#[test]
fn empty_arrays_may_become_anything() {
    let first = |lines: &'static [u8], options: &Options| read(lines, options).columns[0].1.clone();
    let any = Options::default();
    assert_eq!(first(b"{\"a\":[]}\n{\"a\":[ ]}", &any), ragged(Values::I64(vec![]), &[0, 0, 0], &[]));
    let hinted = first(b"{\"a\":[]}", &hints([("a", Dtype::F32)]));
    assert_eq!(hinted, ragged(Values::F32(vec![]), &[0, 0], &[]));
    let nested = first(b"{\"a\":[]}\n{\"a\":[[1,2],[3,4]]}\n{\"a\":[]}", &any);
    assert_eq!(nested, ragged(Values::I64(vec![1, 2, 3, 4]), &[0, 0, 2, 2], &[2]));
    assert_eq!(first(b"{\"a\":[]}\n{\"a\":[\"x\"]}", &any), Data::Json(vec![b"[]", b"[\"x\"]"]));
}

#[test]
fn words_are_numbers_under_a_hint() {
    let line = b"{\"a\":[true,false,1]}";
    let table = read(line, &hints([("a", Dtype::U8)]));
    assert_eq!(table.columns[0].1, ragged(Values::U8(vec![1, 0, 1]), &[0, 3], &[]));
    let table = read(line, &hints([("a", Dtype::Bool)]));
    assert_eq!(table.columns[0].1, ragged(Values::Bool(vec![true, false, true]), &[0, 3], &[]));
}

#[test]
fn lines_are_counted_across_blocks() {
    let later = Options { first_line: 41, ..Options::default() };
    assert_eq!(message(b"\n \r\n{}\n[]", &later), "line 44: expected an object at column 1, found '['");
    assert_eq!(read(b"\xEF\xBB\xBF{\"a\":1}", &Options::default()).rows, 1);
    assert!(matches!(parse(b"\xEF\xBB\xBF{\"a\":1}", &later), Err(Error::Line { line: 41, .. })));
    assert_eq!(read(b"", &Options::default()), Table { rows: 0, skipped: 0, columns: vec![] });
}

#[test]
fn deep_nesting_is_refused() {
    for depth in [40, 200, 100_000] {
        let line = format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
        message(line.as_bytes(), &hints([("a", Dtype::I32)]));
        message(line.as_bytes(), &Options::default());
        message(format!("{{\"a\":{}", "{\"k\":".repeat(depth)).as_bytes(), &Options::default());
    }
}

/// Lines that keep to a few keys of changing kinds, so that many are refused, decide something, or lack something.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let value = prop::sample::select(vec![
        "null",
        "1",
        "2",
        "0.5",
        "true",
        "\"x\"",
        "\"\\n\"",
        "{}",
        "[]",
        "[1]",
        "[1,2]",
        "[0.5]",
        "[[1],[2]]",
        "[[0.5]]",
        "[true]",
        "[\"x\"]",
        "[1,x]",
        "x",
        "NaN",
        "[1,NaN,0.5]",
    ]);
    let field = (prop::sample::select(vec!["a", "b", "c"]), value);
    let line = prop::collection::vec(field, 0..4).prop_map(|fields| {
        let fields = fields.iter().map(|(key, value)| format!("\"{key}\":{value}"));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    });
    prop::collection::vec(line, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(examples(4000)))]

    #[test]
    fn a_refused_row_leaves_no_trace(
        lines in lines(),
        nonfinite in prop::sample::select(vec![Nonfinite::Raise, Nonfinite::Keep, Nonfinite::Null]),
        dtype in prop::option::of(prop::sample::select(vec![Dtype::F64, Dtype::U8])),
    ) {
        let mut options = Options { nonfinite, ..Options::default() };
        options.hints.extend(dtype.map(|dtype| ("a".to_owned(), Hint::Dtype(dtype))));
        // The lines that can be added, one by one, to those before them.
        let mut good = String::new();
        for line in &lines {
            let longer = format!("{good}{line}\n");
            if parse(longer.as_bytes(), &options).is_ok() {
                good = longer;
            }
        }
        let all = lines.join("\n");
        let got = read(all.as_bytes(), &Options { skip: true, ..options.clone() });
        let wanted = read(good.as_bytes(), &options);
        // As text, in which NaN is NaN.
        prop_assert_eq!(format!("{:?}", got.columns), format!("{:?}", wanted.columns), "{}", all);
        prop_assert_eq!(got.skipped, lines.len() - wanted.rows);
    }
}

#[test]
fn rows_that_lack_a_key_have_null_there() {
    let lines = b"{\"a\":1}\n{\"b\":\"x\",\"c\":{}}\n{\"a\":3,\"d\":[\"y\"]}\n{\"e\":true,\"d\":[]}\n{}";
    let table = read(lines, &Options::default());
    let missing = |values, rows: &[usize]| Data::Scalars { values, missing: rows.to_vec() };
    assert_eq!(*column(&table, "a"), missing(Values::I64(vec![1, 0, 3, 0, 0]), &[1, 3, 4]));
    assert_eq!(*column(&table, "b"), Data::Text(vec![None, Some("x".into()), None, None, None]));
    assert_eq!(*column(&table, "c"), Data::Json(vec![b"null", b"{}", b"null", b"null", b"null"]));
    assert_eq!(*column(&table, "d"), Data::Json(vec![b"null", b"null", b"[\"y\"]", b"[]", b"null"]));
    let wanted = Values::Bool(vec![false, false, false, true, false]);
    assert_eq!(*column(&table, "e"), missing(wanted, &[0, 1, 2, 4]));
}

const FEWER: &str = "each is a column: put those that differ from row to row in an object of their own, or name the \
                     ones to read with columns=[…]";

/// Lines that each have a key of their own.
fn new_keys(count: usize) -> String {
    (0..count).fold(String::new(), |mut lines, i| {
        writeln!(lines, "{{\"ids\":[1],\"k{i}\":{i}}}").unwrap_or_default();
        lines
    })
}

#[test]
fn keys_are_limited() {
    let row = |count: usize| {
        let fields = (0..count).map(|i| format!("\"k{i}\":{i}")).collect::<Vec<_>>();
        format!("{{{}}}\n", fields.join(","))
    };
    let any = Options::default();
    assert_eq!(read(row(MAX_KEYS).as_bytes(), &any).columns.len(), MAX_KEYS);
    let wanted = format!("more than {MAX_KEYS} keys; {FEWER}");
    assert_eq!(message(row(MAX_KEYS + 1).as_bytes(), &any), format!("line 1: {wanted}"));
    let skip = Options { skip: true, ..Options::default() };
    let lines = format!("{}{}", row(MAX_KEYS + 1), row(3));
    let table = read(lines.as_bytes(), &skip);
    assert_eq!((table.rows, table.skipped, table.columns.len()), (1, 1, 3));
}

#[test]
fn a_table_that_is_much_larger_than_its_text_is_refused() {
    let any = Options::default();
    assert_eq!(read(new_keys(1000).as_bytes(), &any).columns.len(), 1001);
    for skip in [false, true] {
        let told = message(new_keys(20_000).as_bytes(), &Options { skip, ..Options::default() });
        assert!(told.contains(" rows, most without a value; ") && told.ends_with(FEWER), "{told}");
    }
    // Keys that are not kept take no room.
    let only = Options { only: Some(["ids".to_owned()].into()), ..Options::default() };
    let lines = new_keys(20_000);
    let table = read(lines.as_bytes(), &only).columns;
    assert_eq!((table.len(), &*table[0].0), (1, "ids"));
}

#[test]
fn nesting_is_limited_by_name() {
    for (open, close) in [("[", "]"), ("{\"k\":", "}")] {
        let line = |depth: usize| format!("{{\"a\":{}{{}}{}}}", open.repeat(depth), close.repeat(depth));
        read(line(126).as_bytes(), &Options::default());
        for depth in [127, 1000, 100_000] {
            let told = message(line(depth).as_bytes(), &Options::default());
            assert!(
                told.starts_with("line 1: arrays and objects nested more than 128 deep at column "),
                "{told}"
            );
        }
    }
}

/// An entry of a list: mostly an integer, at times what is none.
fn entries() -> impl Strategy<Value = Value> {
    prop_oneof![
        60 => (-9i64..300_000).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => prop::sample::select(vec![Value::Null, Value::from(true), Value::from(0.5), Value::Array(Vec::new())]),
    ]
}

/// What rows of lists of integers that an `i32` holds are, read from a tree: entries, ends of lists, ends of rows.
fn flat(rows: &[Value]) -> Option<(Vec<i32>, Vec<i64>, Vec<i64>)> {
    let (mut entries, mut list_offsets, mut offsets) = (Vec::new(), vec![0], vec![0]);
    for row in rows {
        for list in row.as_array()? {
            for entry in list.as_array()? {
                entries.push(i32::try_from(entry.as_i64()?).ok()?);
            }
            list_offsets.push(entries.len() as i64);
        }
        offsets.push(list_offsets.len() as i64 - 1);
    }
    (!entries.is_empty()).then_some((entries, list_offsets, offsets))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(examples(2_000)))]

    #[test]
    fn lists_are_those_of_a_tree_or_none(
        rows in prop::collection::vec(
            prop_oneof![
                40 => prop::collection::vec(prop::collection::vec(entries(), 0..5).prop_map(Value::from), 0..5)
                    .prop_map(Value::from),
                1 => entries(),
                1 => prop::collection::vec(entries(), 0..3).prop_map(Value::from),
            ],
            0..5,
        ),
        state in any::<u64>(),
    ) {
        let texts: Vec<String> = rows
            .iter()
            .map(|row| {
                let mut writer = Writer { state, out: String::new() };
                writer.value(row);
                writer.out
            })
            .collect();
        let bytes: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        let found = lists(&bytes, Dtype::I32).unwrap();
        let wanted = flat(&rows).map(|(entries, lists, rows)| (Values::I32(entries), lists, rows));
        prop_assert_eq!(found.map(|found| (found.values, found.list_offsets, found.offsets)), wanted);
    }
}
