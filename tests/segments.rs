//! Runs, lengths and offsets equal a loop over tokens, for every width of id.

#[path = "oracles/segments.rs"]
mod oracle;

use oracle::reference;
use proptest::prelude::*;
use rollkit::Error;
use rollkit::layout::Slots;
use rollkit::segments::{
    Bits, Ids, Problem, fill, ids_from_lengths, positions_from_lengths, runs, seqlens_and_offsets,
};

fn ids(bits: Bits<'_>, rows: usize, signed: bool) -> Ids<'_> {
    Ids { name: "ids", bits, signed, rows, width: bits.len().checked_div(rows).unwrap_or(0) }
}

fn rows_of_ids() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let spans = prop::collection::vec((0u8..6, 1usize..400), 0..8);
    (1usize..4, 1usize..700, prop::collection::vec(spans, 4)).prop_map(|(rows, width, spans)| {
        let row = |row: usize| {
            let mut ids: Vec<u8> = spans[row].iter().flat_map(|&(id, n)| vec![id; n]).collect();
            ids.resize(width, 0);
            ids
        };
        ((0..rows).flat_map(row).collect(), rows)
    })
}

proptest! {
    #[test]
    fn ids_and_positions_of_lengths(lengths in prop::collection::vec(0i64..60, 0..20), tail in 0usize..20) {
        let total = lengths.iter().sum::<i64>() as usize;
        let (mut ids, mut places) = (vec![9; total + tail], vec![9; total + tail]);
        ids_from_lengths(&lengths, &mut ids)?;
        positions_from_lengths(&lengths, &mut places)?;
        let rows = lengths.iter().enumerate();
        let mut wanted: Vec<(i32, i32)> =
            rows.flat_map(|(row, &n)| (0..n as i32).map(move |at| (row as i32 + 1, at))).collect();
        wanted.resize(total + tail, (0, 0));
        prop_assert_eq!(ids.into_iter().zip(places).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn runs_equal_a_loop((narrow, rows) in rows_of_ids()) {
        let wanted = reference(&narrow, rows);
        let (b16, b32, b64): (Vec<u16>, Vec<u32>, Vec<u64>) = (
            narrow.iter().map(|&x| x.into()).collect(),
            narrow.iter().map(|&x| x.into()).collect(),
            narrow.iter().map(|&x| x.into()).collect(),
        );
        for bits in [Bits::U8(&narrow), Bits::U16(&b16), Bits::U32(&b32), Bits::U64(&b64)] {
            for signed in [false, true] {
                let found = runs(&ids(bits, rows, signed))?;
                let starts = found.starts.iter().zip(&found.lengths);
                let got: Vec<_> = found.ids.iter().zip(starts).map(|(&i, (&s, &l))| (i, s, l)).collect();
                prop_assert_eq!(&got, &wanted);
            }
        }
    }

    #[test]
    fn lengths_by_id_and_offsets_by_appearance((narrow, rows) in rows_of_ids(), most in 1usize..7) {
        let width = narrow.len() / rows;
        let mut seqlens = vec![9; rows * most];
        let mut offsets = vec![9; rows * (most + 1)];
        seqlens_and_offsets(&ids(Bits::U8(&narrow), rows, false), most, false, &mut seqlens, &mut offsets)?;
        for row in 0..rows {
            let mine: Vec<_> = reference(&narrow, rows)
                .into_iter()
                .filter(|run| run.1 as usize / width == row)
                .collect();
            for id in 1..=most {
                let wanted: i64 = mine.iter().filter(|run| run.0 == id as i64).map(|run| run.2).sum();
                prop_assert_eq!(i64::from(seqlens[row * most + id - 1]), wanted);
            }
            for slot in 0..=most {
                let wanted = mine.get(slot).map_or(-1, |run| run.1 - (row * width) as i64);
                prop_assert_eq!(i64::from(offsets[row * (most + 1) + slot]), wanted);
            }
        }
    }
}

#[test]
fn what_does_not_pair_is_refused() {
    let refused = |tokens: &[u8]| {
        let mut out = ([0; 2], [0; 3]);
        let Err(Error::Segment { position, problem, .. }) =
            seqlens_and_offsets(&ids(Bits::U8(tokens), 1, true), 2, true, &mut out.0, &mut out.1)
        else {
            panic!("{tokens:?} pair")
        };
        (position, problem)
    };
    assert_eq!(refused(&[1, 0, 3]), (2, Problem::Beyond { id: 3, max: 2 }));
    assert_eq!(refused(&[2, 1]), (1, Problem::Order { id: 1, last: 2, again: false }));
    assert_eq!(refused(&[1, 0, 1]), (2, Problem::Order { id: 1, last: 1, again: true }));
    assert_eq!(refused(&[1, 255]), (1, Problem::Negative { id: -1, signed: true }));
}

#[test]
fn buffers_of_another_size_are_refused() {
    let tokens = Ids { name: "ids", bits: Bits::U8(&[1, 2, 3]), signed: false, rows: 2, width: 2 };
    assert_eq!(runs(&tokens), Err(Error::RowCount { name: "ids", got: 3, wanted: 4 }));
    let mut out = ([0; 1], [0; 3]);
    let found = seqlens_and_offsets(&ids(Bits::U8(&[1]), 1, false), 2, true, &mut out.0, &mut out.1);
    assert_eq!(found, Err(Error::RowCount { name: "seqlens", got: 1, wanted: 2 }));
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let outside = Error::OutsideOutput { row: 1, start: 3, length: 2, size: 4 };
    assert_eq!(ids_from_lengths(&[3, 2], &mut [0; 4]), Err(outside));
    assert_eq!(positions_from_lengths(&[3, -2], &mut [0; 4]), Err(Error::NegativeLength { row: 1, got: -2 }));
}

#[test]
fn rows_without_tokens_have_no_segments() {
    let mut out = ([9; 4], [9; 6]);
    let tokens = Ids { name: "ids", bits: Bits::U8(&[]), signed: false, rows: 2, width: 0 };
    seqlens_and_offsets(&tokens, 2, true, &mut out.0, &mut out.1).unwrap();
    assert_eq!(out, ([0; 4], [-1; 6]));
}

#[test]
fn fill_writes_gaps_and_checks_range() {
    let slots = Slots { starts: &[1, 4], lengths: &[2, 1], order: None, size: 6 };
    let mut out = [9; 6];
    fill(&slots, &[7, 8], &mut out).unwrap();
    assert_eq!(out, [0, 7, 7, 0, 8, 0]);
    assert!(matches!(fill(&slots, &[7, 1 << 40], &mut out), Err(Error::ValueRange { row: 1, .. })));
}
