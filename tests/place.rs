//! `place` beside a loop over bytes, and `cast` beside a loop over values.

use proptest::prelude::*;
use rollkit::Error;
use rollkit::cast::{Cast, Dtype};
use rollkit::layout::Slots;
use rollkit::place::{Gaps, Mover, Part, Pieces, place};

/// Rows of bytes with the gap before each, an item size, and a fill.
type Case = (usize, Vec<(usize, Vec<u8>)>, usize, Vec<u8>);

fn cases() -> impl Strategy<Value = Case> {
    (1usize..20).prop_flat_map(|item| {
        let row =
            (0usize..4, (0usize..9).prop_flat_map(move |n| prop::collection::vec(any::<u8>(), n * item)));
        let fill = prop_oneof![prop::collection::vec(any::<u8>(), item), Just(vec![7; item])];
        (Just(item), prop::collection::vec(row, 0..9), 0usize..5, fill)
    })
}

/// Floats of any size, most of which an `f32` holds.
fn doubles() -> impl Strategy<Value = f64> {
    prop_oneof![
        60 => any::<f32>().prop_map(f64::from),
        60 => -1e38..1e38,
        1 => any::<f64>(),
        1 => Just(f64::INFINITY),
    ]
}

proptest! {
    #[test]
    fn equals_a_loop((item, rows, tail, fill) in cases(), reverse in any::<bool>()) {
        let mut wanted: Vec<u8> = Vec::new();
        let (mut starts, mut lengths) = (Vec::new(), Vec::new());
        for (gap, row) in &rows {
            wanted.extend(fill.repeat(*gap));
            starts.push((wanted.len() / item) as i64);
            lengths.push((row.len() / item) as i64);
            wanted.extend(row);
        }
        wanted.extend(fill.repeat(tail));
        let size = wanted.len() / item;
        let mut bytes: Vec<&[u8]> = rows.iter().map(|(_, row)| &row[..]).collect();
        let mut order: Vec<i64> = (0..rows.len() as i64).collect();
        if reverse {
            starts.reverse();
            lengths.reverse();
            bytes.reverse();
            order.reverse();
        }
        let order = reverse.then_some(&order[..]);
        let slots = Slots { starts: &starts, lengths: &lengths, order, size };
        for poison in [0x00, 0xFF] {
            let mut out = vec![poison; wanted.len()];
            place(&bytes, &slots, Gaps::Fill(&fill), Mover::Copy, &mut out).unwrap();
            prop_assert_eq!(&out, &wanted);
        }
        // Gaps that are right already stay as they are, and rows are written all the same.
        let mut out = wanted.clone();
        for (&start, &length) in starts.iter().zip(&lengths) {
            let span = start as usize * item..(start + length) as usize * item;
            out[span].iter_mut().for_each(|byte| *byte = !*byte);
        }
        place(&bytes, &slots, Gaps::Leave(item), Mover::Copy, &mut out).unwrap();
        prop_assert_eq!(&out, &wanted);
        // Taking is placing with the output as the source.
        let part = Part { bytes: &wanted, item, begins: &starts, lengths: &lengths };
        let mut taken = Vec::new();
        part.append_to(&mut taken).unwrap();
        prop_assert_eq!(taken, bytes);
    }

    #[test]
    fn a_part_reads_within_its_bytes(begin in -3i64..12, length in -3i64..12, item in 1usize..4) {
        let bytes = vec![0; 10 * item];
        let part = Part { bytes: &bytes, item, begins: &[begin], lengths: &[length] };
        let mut rows = Vec::new();
        let fits = begin >= 0 && length >= 0 && begin + length <= 10;
        prop_assert_eq!(part.append_to(&mut rows).is_ok(), fits);
        prop_assert_eq!(rows.len(), usize::from(fits));
    }

    #[test]
    fn a_piece_reads_within_its_row(row in -2i64..5, begin in -3i64..12, length in -3i64..12, item in 1usize..4) {
        let bytes: Vec<u8> = (0..20).collect();
        let rows: Vec<&[u8]> = [0..7, 7..7, 7..16].map(|at| &bytes[at.start..at.end]).map(|row| &row[..row.len() / item * item]).into();
        let found = Pieces { source_rows: &[row], begins: &[begin], lengths: &[length] }.of(&rows, item);
        let wanted = usize::try_from(row).ok().and_then(|row| rows.get(row)).and_then(|row| {
            let elements: Vec<&[u8]> = row.chunks(item).collect();
            let fits = begin >= 0 && length >= 0 && begin + length <= elements.len() as i64;
            fits.then(|| elements[begin as usize..(begin + length) as usize].concat())
        });
        prop_assert_eq!(found.ok().map(|pieces| pieces[0].to_vec()), wanted);
    }

    #[test]
    fn integers_are_cast_or_named(values in prop::collection::vec(-300i64..300, 0..200)) {
        let source: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let mut out = vec![0u8; values.len()];
        let found = Cast::new(Dtype::I64, Dtype::I8).unwrap().run(&source, &mut out);
        match values.iter().position(|&value| i8::try_from(value).is_err()) {
            None => {
                prop_assert!(found.is_ok());
                let cast: Vec<i64> = out.iter().map(|&byte| i64::from(byte as i8)).collect();
                prop_assert_eq!(cast, values);
            }
            Some(position) => {
                let bad = found.unwrap_err();
                prop_assert_eq!((bad.position, bad.value), (position, values[position].to_string()));
            }
        }
    }

    #[test]
    fn floats_are_rounded_to_nearest(values in prop::collection::vec(doubles(), 0..80)) {
        let source: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let mut out = vec![0u8; values.len() * 4];
        let got = Cast::new(Dtype::F64, Dtype::F32).unwrap().run(&source, &mut out);
        let wanted: Vec<u8> = values.iter().flat_map(|&value| (value as f32).to_ne_bytes()).collect();
        let lost = |value: &f64| value.is_finite() && (*value as f32).is_infinite();
        if let Some(position) = values.iter().position(lost) {
            prop_assert_eq!(got.unwrap_err().position, position);
        } else {
            prop_assert_eq!((got, out), (Ok(()), wanted));
        }
    }
}

#[test]
fn a_bad_layout_writes_nothing() {
    let mut out = [9u8; 4];
    let slots = Slots { starts: &[0, 1], lengths: &[2, 2], order: None, size: 4 };
    let refused = place(&[b"ab", b"cd"], &slots, Gaps::Fill(b"."), Mover::Copy, &mut out);
    assert_eq!(refused, Err(Error::Overlap { row: 1, start: 1, free: 2 }));
    let slots = Slots { starts: &[0, 2], lengths: &[2, 2], order: None, size: 4 };
    let refused = place(&[b"ab", b"c"], &slots, Gaps::Fill(b"."), Mover::Copy, &mut out);
    assert_eq!(refused, Err(Error::RowBytes { row: 1, got: 1, wanted: 2 }));
    let refused = place(&[b"ab"], &slots, Gaps::Fill(b"."), Mover::Copy, &mut out);
    assert_eq!(refused, Err(Error::RowCount { name: "rows", got: 1, wanted: 2 }));
    assert_eq!(out, [9; 4]);
}

#[test]
fn pieces_outside_their_row_are_named() {
    fn pieces(source_rows: &[i64], begins: &[i64], lengths: &[i64]) -> Result<Vec<&'static [u8]>, Error> {
        Pieces { source_rows, begins, lengths }.of(&[b"abcd"], 2)
    }
    let unknown = Error::UnknownRow { piece: 1, row: -1, rows: 1 };
    assert_eq!(pieces(&[0, -1], &[0, 0], &[1, 0]), Err(unknown));
    for (begin, length) in [(1, 2), (i64::MAX, i64::MAX), (i64::MIN, 1), (0, -1), (i64::MAX / 2, 2)] {
        let outside = Error::OutsideRow { piece: 0, row: 0, begin, length, available: 2 };
        assert_eq!(pieces(&[0], &[begin], &[length]), Err(outside));
    }
    assert_eq!(pieces(&[0], &[0, 1], &[0]), Err(Error::RowCount { name: "begins", got: 2, wanted: 1 }));
    assert_eq!(pieces(&[], &[0], &[0]), Err(Error::RowCount { name: "source_rows", got: 0, wanted: 1 }));
}

#[test]
fn what_does_not_fit_is_named_by_row_and_element() {
    let values: Vec<u8> = [1i64, 2, 3, 400, 5, 6].iter().flat_map(|value| value.to_ne_bytes()).collect();
    // Elements of two numbers: the fourth number is in the second element.
    let slots = Slots { starts: &[1, 0], lengths: &[2, 1], order: Some(&[1, 0]), size: 3 };
    let rows = [&values[..32], &values[32..]];
    let cast = Cast::new(Dtype::I64, Dtype::U8).unwrap();
    let refused = place(&rows, &slots, Gaps::Fill(&[0, 0]), Mover::Cast(cast), &mut [0u8; 6]);
    let wanted = Error::ValueRange { row: 0, position: 1, value: "400".into(), dtype: "uint8" };
    assert_eq!(refused, Err(wanted));
}

#[test]
fn lossy_pairs_are_refused() {
    let all = [
        Dtype::Bool,
        Dtype::I8,
        Dtype::I16,
        Dtype::I32,
        Dtype::I64,
        Dtype::U8,
        Dtype::U16,
        Dtype::U32,
        Dtype::U64,
        Dtype::F32,
        Dtype::F64,
    ];
    let is_float = |dtype: Dtype| dtype.name().starts_with("float");
    for from in all {
        for to in all {
            let lossy = to == Dtype::Bool || (is_float(from) && !is_float(to));
            assert_eq!(Cast::new(from, to).is_none(), lossy, "{} to {}", from.name(), to.name());
        }
    }
}
