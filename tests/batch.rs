//! `batch` beside a loop over tokens.

use proptest::prelude::*;
use rollkit::Error;
use rollkit::batch::{self, Column, Level, Sequences, Source, positions};
use rollkit::cast::{Cast, Dtype};
use rollkit::layout::{ABSENT, Slots};
use rollkit::place::{Gaps, Mover};

const FILL: u8 = 255;

/// A row's prompt and response tokens.
type Row = (usize, usize);
/// A gap, and what comes after it: a row, and which of its tokens.
type Placed = (usize, usize, usize, usize);

/// What a column has for a token of a row.
type Oracle<'a> = Box<dyn Fn(usize, usize) -> Option<u8> + 'a>;

#[derive(Debug, Clone)]
struct Case {
    rows: Vec<Row>,
    pieces: Vec<Placed>,
    /// Pieces that have no place, by number; they are of row 0.
    absent: Vec<bool>,
    reverse: bool,
    /// How many elements the short column lacks.
    missing: Vec<usize>,
}

fn cases() -> impl Strategy<Value = Case> {
    prop::collection::vec((0usize..4, 0usize..5), 1..6).prop_flat_map(|rows| {
        let lengths: Vec<usize> = rows.iter().map(|(prompt, response)| prompt + response).collect();
        let count = rows.len();
        let piece = (0usize..3, 0..count, any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(move |(gap, row, a, b)| {
                let (a, b) = (a.index(lengths[row] + 1), b.index(lengths[row] + 1));
                (gap, row, a.min(b), a.max(b))
            });
        let pieces = prop::collection::vec(piece, 0..8);
        let absent = prop::collection::vec(any::<bool>(), 8);
        let missing = prop::collection::vec(0usize..4, count);
        (Just(rows), pieces, absent, any::<bool>(), missing).prop_map(
            |(rows, pieces, absent, reverse, missing)| Case { rows, pieces, absent, reverse, missing },
        )
    })
}

/// The arrays of a layout.
struct Arrays {
    starts: Vec<i64>,
    lengths: Vec<i64>,
    source_rows: Vec<i64>,
    begins: Vec<i64>,
    order: Option<Vec<i64>>,
    row_lengths: Vec<i64>,
    prompt_lengths: Vec<i64>,
    /// What the output has at each place: a row and a token of it.
    tokens: Vec<Option<(usize, usize)>>,
}

impl Arrays {
    fn of(case: &Case) -> Self {
        let (mut starts, mut lengths, mut source_rows, mut begins) = (vec![], vec![], vec![], vec![]);
        let mut tokens = vec![];
        for (i, &(gap, row, begin, end)) in case.pieces.iter().enumerate() {
            source_rows.push(row as i64);
            begins.push(begin as i64);
            if case.absent[i] {
                starts.push(ABSENT);
                lengths.push(0);
                continue;
            }
            tokens.extend(vec![None; gap]);
            starts.push(tokens.len() as i64);
            lengths.push((end - begin) as i64);
            tokens.extend((begin..end).map(|token| Some((row, token))));
        }
        tokens.push(None);
        let mut order = None;
        if case.reverse {
            for column in [&mut starts, &mut lengths, &mut source_rows, &mut begins] {
                column.reverse();
            }
            order = Some((0..starts.len() as i64).rev().collect());
        }
        let row_lengths = case.rows.iter().map(|(prompt, response)| (prompt + response) as i64).collect();
        let prompt_lengths = case.rows.iter().map(|(prompt, _)| *prompt as i64).collect();
        Self { starts, lengths, source_rows, begins, order, row_lengths, prompt_lengths, tokens }
    }

    fn sequences(&self) -> Sequences<'_> {
        let size = self.tokens.len();
        let order = self.order.as_deref();
        Sequences {
            slots: Slots { starts: &self.starts, lengths: &self.lengths, order, size },
            source_rows: Some(&self.source_rows),
            begins: Some(&self.begins),
            row_lengths: &self.row_lengths,
            prompt_lengths: &self.prompt_lengths,
        }
    }
}

/// Rows of elements that all differ from those next to them.
fn elements(lengths: impl Iterator<Item = usize>, salt: usize) -> Vec<Vec<u8>> {
    let row = |(row, length)| (0..length).map(|i| (salt + 16 * row + i) as u8).collect();
    lengths.enumerate().map(row).collect()
}

fn fill(sequences: &Sequences<'_>, columns: &mut [Column<'_, u8>]) -> Result<(), Error> {
    batch::fill(sequences, &sequences.plan()?, columns, |_, _| ())
}

fn source(level: Level, rows: &[Vec<u8>]) -> Source<'_> {
    Source { level, rows: rows.iter().map(|row| &row[..]).collect(), mover: Mover::Copy }
}

proptest! {
    #[test]
    fn equals_a_loop_over_tokens(case in cases()) {
        let arrays = Arrays::of(&case);
        let prompt = |row: usize| case.rows[row].0;
        let total = |row: usize| case.rows[row].0 + case.rows[row].1;
        let rows = 0..case.rows.len();
        let prompts = elements(rows.clone().map(prompt), 0);
        let responses = elements(rows.clone().map(|row| case.rows[row].1), 8);
        let short = elements(rows.clone().map(|row| total(row).saturating_sub(case.missing[row])), 3);
        let scalars = elements(rows.map(|_| 1), 5);
        let placed = |row| arrays.tokens.iter().flatten().filter(|at| at.0 == row).map(|at| at.1).max();
        let pieces = arrays.sequences().begins.is_some();
        let last = |row| if pieces { total(row).checked_sub(1) } else { placed(row) };
        let columns: Vec<(Vec<Source<'_>>, Oracle<'_>)> = vec![
            (vec![source(Level::Prompt, &prompts)], Box::new(|row, at| prompts[row].get(at).copied())),
            (vec![source(Level::Response, &responses)], Box::new(|row, at| {
                at.checked_sub(prompt(row)).map(|at| responses[row][at])
            })),
            (vec![source(Level::Sequence, &short)], Box::new(|row, at| short[row].get(at).copied())),
            (
                vec![source(Level::Prompt, &prompts), source(Level::Response, &responses)],
                Box::new(|row, at| Some([&prompts[row][..], &responses[row]].concat()[at])),
            ),
            (vec![source(Level::Last, &scalars)], Box::new(|row, at| {
                (last(row) == Some(at) && at >= prompt(row)).then(|| scalars[row][0])
            })),
        ];
        let (sources, oracles): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let mut outs = vec![vec![7; arrays.tokens.len()]; sources.len()];
        let mut columns: Vec<Column<'_, u8>> = sources.into_iter().zip(&mut outs)
            .map(|(sources, out)| Column { sources, gaps: Gaps::Fill(&[FILL]), out })
            .collect();
        fill(&arrays.sequences(), &mut columns).unwrap();
        for (out, oracle) in outs.iter().zip(oracles) {
            let wanted: Vec<u8> = arrays.tokens.iter()
                .map(|at| at.and_then(|(row, token)| oracle(row, token)).unwrap_or(FILL))
                .collect();
            prop_assert_eq!(out, &wanted);
        }
        let mut out = vec![-7; arrays.tokens.len()];
        positions(&arrays.sequences().plan().unwrap(), &mut out).unwrap();
        let wanted: Vec<i32> = arrays.tokens.iter().map(|at| at.map_or(0, |(_, token)| token as i32)).collect();
        prop_assert_eq!(out, wanted);
    }

    #[test]
    fn pieces_and_prompts_are_within_their_rows(
        row in -1i64..4, begin in -2i64..6, length in 0i64..6, prompt in -1i64..6,
    ) {
        let row_lengths = [4, 0, 3];
        let sequences = Sequences {
            slots: Slots { starts: &[1], lengths: &[length], order: None, size: 7 },
            source_rows: Some(&[row]),
            begins: Some(&[begin]),
            row_lengths: &row_lengths,
            prompt_lengths: &[prompt, 0, 0],
        };
        let found = sequences.plan();
        let inside = (0..3).contains(&row) && begin >= 0 && begin + length <= row_lengths[row as usize];
        prop_assert_eq!(found.is_ok(), inside && (0..=4).contains(&prompt), "{:?}", found);
    }
}

/// Two rows of 1 + 2 and 0 + 2 tokens, end to end; of the second, `kept` tokens are placed.
fn two_rows(kept: &[i64; 2]) -> Sequences<'_> {
    Sequences {
        slots: Slots { starts: &[0, 3], lengths: kept, order: None, size: 5 },
        source_rows: None,
        begins: None,
        row_lengths: &[3, 2],
        prompt_lengths: &[1, 0],
    }
}

#[test]
fn truncated_rows_lose_their_ends() {
    let (responses, scalars) = (vec![b"ab".to_vec(), b"cd".to_vec()], vec![b"1".to_vec(), b"2".to_vec()]);
    let (mut tokens, mut last) = ([0; 5], [0; 5]);
    let mut columns = [
        Column {
            sources: vec![source(Level::Response, &responses)],
            gaps: Gaps::Fill(b"."),
            out: &mut tokens,
        },
        Column { sources: vec![source(Level::Last, &scalars)], gaps: Gaps::Fill(b"."), out: &mut last },
    ];
    fill(&two_rows(&[1, 1]), &mut columns).unwrap();
    // Of the first row only the prompt is placed: there is no response token to put its scalar on.
    assert_eq!((&tokens, &last), (b"...c.", b"...2."));
}

#[test]
fn rows_of_other_lengths_are_named_before_anything_is_written() {
    let right = vec![b"ab".to_vec(), b"cd".to_vec()];
    let cases = [
        (Level::Response, vec![b"ab".to_vec(), b"c".to_vec()], 1, 1, 2, "one per response token"),
        (Level::Prompt, vec![b"ab".to_vec(), vec![]], 0, 2, 1, "one per prompt token"),
        (
            Level::Sequence,
            vec![vec![], b"cde".to_vec()],
            1,
            3,
            2,
            "one per token of prompt and response, the last ones may be missing",
        ),
        (Level::Last, vec![b"a".to_vec(), vec![]], 1, 0, 1, "one per row"),
    ];
    for (level, rows, row, got, wanted, per) in cases {
        let (mut first, mut second) = ([7; 5], [7; 5]);
        let mut columns = [
            Column {
                sources: vec![source(Level::Response, &right)],
                gaps: Gaps::Fill(b"."),
                out: &mut first,
            },
            Column { sources: vec![source(level, &rows)], gaps: Gaps::Fill(b"."), out: &mut second },
        ];
        let refused = fill(&two_rows(&[3, 2]), &mut columns).unwrap_err();
        assert_eq!(refused, Error::RowLength { row, got, wanted, per }.in_column(1, 0));
        assert_eq!((refused.column(), refused.row(), refused.position()), (Some(1), Some(row), None));
        assert_eq!((first, second), ([7; 5], [7; 5]));
    }
    let mut out = [7; 5];
    let mut columns =
        [Column { sources: vec![source(Level::Last, &right[..1])], gaps: Gaps::Fill(b"."), out: &mut out }];
    let refused = fill(&two_rows(&[3, 2]), &mut columns).unwrap_err();
    assert_eq!(refused.to_string(), "the column has 1 rows, expected 2");
    assert_eq!(refused.column(), Some(0));
}

#[test]
fn what_does_not_fit_is_named_within_the_columns_row() {
    let wide = |values: &[i64]| values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<u8>>();
    let prompts = [wide(&[1]), wide(&[])];
    let responses = [wide(&[2, 3]), wide(&[4, 500])];
    let mover = Mover::Cast(Cast::new(Dtype::I64, Dtype::U8).unwrap());
    let mut out = [7; 5];
    let sources = [(Level::Prompt, &prompts), (Level::Response, &responses)];
    let sources = sources.map(|(level, rows)| Source { mover, ..source(level, rows) }).into();
    let mut columns = [Column { sources, gaps: Gaps::Fill(&[0]), out: &mut out }];
    // A piece that begins within the response: positions are still those of the column's row.
    let sequences = Sequences {
        slots: Slots { starts: &[2], lengths: &[1], order: None, size: 5 },
        source_rows: Some(&[1]),
        begins: Some(&[1]),
        ..two_rows(&[3, 2])
    };
    let refused = fill(&sequences, &mut columns).unwrap_err();
    assert_eq!(refused.to_string(), "row 1, position 1: 500 does not fit uint8");
    assert_eq!((refused.column(), refused.source_of_column()), (Some(0), Some(1)));
    assert_eq!((refused.row(), refused.position()), (Some(1), Some(1)));
}
