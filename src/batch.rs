//! All arrays of a batch from one layout: prompts, responses and what goes with their tokens.
//!
//! ```text
//! row            p p p r r r r        3 prompt tokens, 4 response tokens
//! piece              └─────┘          elements 2 to 6 of it
//! per response         0 1 2          of the column's row 0 1 2 3
//! last                     1          on the last response token
//! ```
//!
//! A column's row is for an interval of its row's tokens, and a piece holds one: what both hold goes to
//! the output, and the rest of the piece is a gap. Truncated rows are pieces from their first token on.

use crate::layout::{self, Slots};
use crate::out::Out;
use crate::place::{AHEAD, FAR_AHEAD, Gaps, LINES, Mover};
use crate::{Error, Result, memory};

/// Rows of prompt and response tokens, and where pieces of them go.
#[derive(Debug, Clone, Copy)]
pub struct Sequences<'a> {
    /// Where each piece goes.
    pub slots: Slots<'a>,
    /// The row that each piece is of; `None` if they are rows, one after the other.
    pub source_rows: Option<&'a [i64]>,
    /// The first token of each piece within its row; `None` if they all are its first tokens.
    pub begins: Option<&'a [i64]>,
    /// The tokens of each row.
    pub row_lengths: &'a [i64],
    /// How many of them are the prompt.
    pub prompt_lengths: &'a [i64],
}

/// Some tokens of a row.
#[derive(Debug, Clone, Copy)]
struct Piece {
    row: usize,
    /// The first of them.
    begin: usize,
    /// The tokens of the row's prompt.
    prompt: usize,
}

/// The pieces that have a place, checked and in memory order: looked up once for all arrays of a batch.
#[derive(Debug)]
pub struct Plan {
    starts: Vec<i64>,
    lengths: Vec<i64>,
    pieces: Vec<Piece>,
    size: usize,
    /// Whether memory order is another than that of rows.
    reordered: bool,
}

impl Sequences<'_> {
    /// Checks that pieces are disjoint, and they and prompts within their rows.
    pub fn plan(&self) -> Result<Plan> {
        self.slots.check()?;
        self.check_rows()?;
        let count = self.slots.starts.len();
        let mut plan = Plan {
            starts: memory::with_room("pieces", count)?,
            lengths: memory::with_room("pieces", count)?,
            pieces: memory::with_room("pieces", count)?,
            size: self.slots.size,
            reordered: self.slots.order.is_some() || self.source_rows.is_some(),
        };
        for piece in self.slots.rows() {
            plan.starts.push(self.slots.starts[piece]);
            plan.lengths.push(self.slots.lengths[piece]);
            plan.pieces.push(self.piece(piece)?);
        }
        Ok(plan)
    }

    fn check_rows(&self) -> Result<()> {
        let (pieces, rows) = (self.slots.starts.len(), self.row_lengths.len());
        layout::same_count("prompt_lengths", self.prompt_lengths.len(), rows)?;
        match self.source_rows {
            Some(source_rows) => layout::same_count("source_rows", source_rows.len(), pieces)?,
            None => layout::same_count("row_lengths", rows, pieces)?,
        }
        if let Some(begins) = self.begins {
            layout::same_count("begins", begins.len(), pieces)?;
        }
        for (row, (&got, &available)) in self.prompt_lengths.iter().zip(self.row_lengths).enumerate() {
            if got < 0 || got > available {
                return Err(Error::PromptLength { row, got, available });
            }
        }
        Ok(())
    }

    fn piece(&self, piece: usize) -> Result<Piece> {
        let row = self.source_rows.map_or(piece as i64, |source_rows| source_rows[piece]);
        let begin = self.begins.map_or(0, |begins| begins[piece]);
        let length = self.slots.lengths[piece];
        let rows = self.row_lengths.len();
        let known = usize::try_from(row).ok().filter(|&row| row < rows);
        let known = known.ok_or(Error::UnknownRow { piece, row, rows })?;
        let available = self.row_lengths[known];
        if begin < 0 || begin.checked_add(length).is_none_or(|end| end > available) {
            return Err(Error::OutsideRow { piece, row, begin, length, available: available as usize });
        }
        Ok(Piece { row: known, begin: begin as usize, prompt: self.prompt_lengths[known] as usize })
    }
}

impl Plan {
    /// Where the pieces go; they are in order.
    #[must_use]
    pub fn slots(&self) -> Slots<'_> {
        Slots { starts: &self.starts, lengths: &self.lengths, order: None, size: self.size }
    }

    /// Where the tokens of each row end: of rows from their first token on, what is placed of them.
    fn ends(&self, sequences: &Sequences<'_>) -> Result<Vec<usize>> {
        let lengths = sequences.row_lengths;
        if sequences.begins.is_some() {
            return memory::collected("rows", lengths.iter().map(|&length| length as usize));
        }
        let mut ends = memory::filled("rows", 0, lengths.len())?;
        for (piece, &length) in self.pieces.iter().zip(&self.lengths) {
            // An empty piece holds no token, wherever it is.
            if length > 0 {
                ends[piece.row] = ends[piece.row].max(piece.begin + length as usize);
            }
        }
        Ok(ends)
    }
}

/// What a column has an element for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Each prompt token.
    Prompt,
    /// Each response token.
    Response,
    /// Each token; the last ones may have none.
    Sequence,
    /// Each row: on its last response token. Of rows that are placed from their first token on, and may be cut, that
    /// is the last one that is placed, if any is; of pieces the row's own, wherever it is placed, and nowhere in a batch
    /// that has it not: the pieces in another one may. Where several pieces hold that token, each has the element,
    /// as it has all else of the token.
    Last,
}

impl Level {
    /// By its name in Python.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "prompt" => Self::Prompt,
            "response" => Self::Response,
            "sequence" => Self::Sequence,
            "last" => Self::Last,
            _ => return None,
        })
    }

    /// The elements that a row has, and what they are for.
    fn wanted(self, prompt: i64, tokens: i64) -> (usize, &'static str) {
        match self {
            Self::Prompt => (prompt as usize, "one per prompt token"),
            Self::Response => (tokens.wrapping_sub(prompt) as usize, "one per response token"),
            Self::Sequence => {
                (tokens as usize, "one per token of prompt and response, the last ones may be missing")
            }
            Self::Last => (1, "one per row"),
        }
    }

    /// Which tokens of a row have one of `elements()`, where the row is placed up to `ends[row]`. Rows have
    /// been checked, so that a response ends where its row, and at the latest there a piece of it.
    fn tokens(self, piece: Piece, ends: &[usize], elements: impl FnOnce() -> usize) -> (usize, usize) {
        match self {
            Self::Prompt => (0, piece.prompt),
            Self::Response => (piece.prompt, usize::MAX),
            Self::Sequence => (0, elements()),
            Self::Last => (ends[piece.row].saturating_sub(1).max(piece.prompt), ends[piece.row]),
        }
    }
}

/// Rows of elements for some tokens of each row.
#[derive(Debug)]
pub struct Source<'a> {
    /// For which.
    pub level: Level,
    /// The bytes of each row.
    pub rows: Vec<&'a [u8]>,
    /// How elements get to the output.
    pub mover: Mover,
}

impl Source<'_> {
    fn check(&self, sequences: &Sequences<'_>, item: usize) -> Result<()> {
        layout::same_count("the column", self.rows.len(), sequences.row_lengths.len())?;
        let item = self.mover.source_item(item);
        let lengths = sequences.prompt_lengths.iter().zip(sequences.row_lengths);
        for (row, (bytes, (&prompt, &tokens))) in self.rows.iter().zip(lengths).enumerate() {
            let (wanted, per) = self.level.wanted(prompt, tokens);
            if bytes.len() == wanted.saturating_mul(item) {
                continue;
            }
            let got = elements(bytes, item);
            if got * item != bytes.len() {
                return Err(Error::RowBytes { row, got: bytes.len(), wanted: wanted.saturating_mul(item) });
            }
            if self.level != Level::Sequence || got > wanted {
                return Err(Error::RowLength { row, got, wanted, per });
            }
        }
        Ok(())
    }
}

/// How many there are; none where they have no bytes.
fn elements(bytes: &[u8], item: usize) -> usize {
    bytes.len().checked_div(item).unwrap_or(0)
}

/// An array of a batch, and what is written to it.
#[derive(Debug)]
pub struct Column<'a, O> {
    /// One source, or several of which each is for later tokens than the one before.
    pub sources: Vec<Source<'a>>,
    /// What is where no element goes.
    pub gaps: Gaps<'a>,
    /// The array.
    pub out: &'a mut [O],
}

impl<O: Out<u8>> Column<'_, O> {
    fn check(&self, index: usize, sequences: &Sequences<'_>) -> Result<()> {
        let item = self.gaps.item();
        layout::same_size("out", self.out.len(), sequences.slots.size, item)
            .map_err(|error| error.in_column(index, 0))?;
        for (number, source) in self.sources.iter().enumerate() {
            source.check(sequences, item).map_err(|error| error.in_column(index, number))?;
        }
        Ok(())
    }

    fn fill(
        &mut self,
        index: usize,
        plan: &Plan,
        ends: &[usize],
        prefetch: impl Fn(*const i8, usize),
    ) -> Result<()> {
        let (sources, gaps) = (&self.sources[..], self.gaps);
        let ahead = if plan.reordered { &plan.pieces[..] } else { &[] };
        layout::walk(
            &plan.slots(),
            gaps.item(),
            self.out,
            |gap| gaps.write(gap),
            |number, slot| {
                if let Some(later) = ahead.get(number + FAR_AHEAD) {
                    for source in sources {
                        prefetch((&raw const source.rows[later.row]).cast(), 1);
                    }
                }
                if let Some(soon) = ahead.get(number + AHEAD) {
                    for source in sources {
                        prefetch(source.rows[soon.row].as_ptr().cast(), LINES);
                    }
                }
                let (piece, length) = (plan.pieces[number], plan.lengths[number] as usize);
                fill_piece(index, piece, length, sources, ends, gaps, slot)
            },
        )
    }
}

/// Writes what `sources` have for the tokens of a piece, and gaps where they have nothing.
fn fill_piece<O: Out<u8>>(
    index: usize,
    piece: Piece,
    length: usize,
    sources: &[Source<'_>],
    ends: &[usize],
    gaps: Gaps<'_>,
    slot: &mut [O],
) -> Result<()> {
    let item = gaps.item();
    let mut rest = slot;
    let (mut free, end) = (piece.begin, piece.begin + length);
    for (number, source) in sources.iter().enumerate() {
        let source_item = source.mover.source_item(item);
        let bytes = source.rows[piece.row];
        let (first, last) = source.level.tokens(piece, ends, || elements(bytes, source_item));
        let (from, to) = (first.max(free), last.min(end));
        if from >= to {
            continue;
        }
        let (gap, tail) = rest.split_at_mut((from - free) * item);
        let (taken, tail) = tail.split_at_mut((to - from) * item);
        (rest, free) = (tail, to);
        gaps.write(gap);
        // Prompt lengths are read once more for the plan, and another thread may have written to them.
        let bytes = bytes.get((from - first) * source_item..(to - first) * source_item);
        let bytes = bytes.ok_or_else(|| Error::Changed { name: "lengths" }.in_column(index, number))?;
        source.mover.run(bytes, taken).map_err(|bad| {
            source.mover.refused(&bad, piece.row, from - first, source_item).in_column(index, number)
        })?;
    }
    gaps.write(rest);
    Ok(())
}

/// Writes all columns, each element once.
///
/// What is wrong with lengths is found before anything is written; a value that does not fit is found on
/// the way.
pub fn fill<O: Out<u8>>(
    sequences: &Sequences<'_>,
    plan: &Plan,
    columns: &mut [Column<'_, O>],
    prefetch: impl Fn(*const i8, usize),
) -> Result<()> {
    for (index, column) in columns.iter().enumerate() {
        column.check(index, sequences)?;
    }
    let last = columns.iter().flat_map(|column| &column.sources).any(|source| source.level == Level::Last);
    let ends = if last { plan.ends(sequences)? } else { Vec::new() };
    for (index, column) in columns.iter_mut().enumerate() {
        column.fill(index, plan, &ends, &prefetch)?;
    }
    Ok(())
}

/// Positions: of each token within its row, 0 in gaps.
pub fn positions<O: Out<i32>>(plan: &Plan, out: &mut [O]) -> Result<()> {
    layout::same_size("positions", out.len(), plan.size, 1)?;
    let gap = |gap: &mut [O]| O::fill(gap, 0);
    layout::walk(&plan.slots(), 1, out, gap, |number, slot| {
        let Piece { row, begin, .. } = plan.pieces[number];
        let end = begin + slot.len();
        if i32::try_from(end).is_err() {
            return Err(Error::RowTooLong { row, length: end as i64, capacity: i64::from(i32::MAX) });
        }
        for (position, value) in slot.iter_mut().enumerate() {
            value.set((begin + position) as i32);
        }
        Ok(())
    })
}
