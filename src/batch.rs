//! All arrays of a batch from one layout: prompts, responses and what goes with their tokens.
//!
//! ```text
//! row            p p p r r r r        3 prompt tokens, 4 response tokens
//! piece              └─────┘          elements 2 to 6 of it
//! per response         0 1 2          of the column's row 0 1 2 3
//! last                     1          on the last response token that is placed
//! ```
//!
//! A column's row is for an interval of its row's tokens, and a piece holds one: what both hold goes to
//! the output, and the rest of the piece is a gap. Truncated rows are pieces from their first token on.

use crate::layout::{self, ABSENT, Slots};
use crate::out::Out;
use crate::place::{AHEAD, FAR_AHEAD, Gaps, LINES, Mover, ahead};
use crate::{Error, Result};

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
#[derive(Clone, Copy)]
struct Piece {
    row: usize,
    begin: usize,
    end: usize,
}

impl Sequences<'_> {
    /// Checks that pieces are within their rows, and prompts too.
    pub fn check(&self) -> Result<()> {
        self.slots.check()?;
        let (pieces, rows) = (self.slots.starts.len(), self.row_lengths.len());
        layout::same_count("prompt_lengths", self.prompt_lengths.len(), rows)?;
        for (row, (&got, &available)) in self.prompt_lengths.iter().zip(self.row_lengths).enumerate() {
            if got < 0 || got > available {
                return Err(Error::PromptLength { row, got, available });
            }
        }
        match self.source_rows {
            Some(source_rows) => layout::same_count("source_rows", source_rows.len(), pieces)?,
            None => layout::same_count("row_lengths", rows, pieces)?,
        }
        if let Some(begins) = self.begins {
            layout::same_count("begins", begins.len(), pieces)?;
        }
        for (piece, &length) in self.slots.lengths.iter().enumerate() {
            if self.slots.starts[piece] == ABSENT {
                continue;
            }
            let row = self.source_rows.map_or(piece as i64, |source_rows| source_rows[piece]);
            let begin = self.begins.map_or(0, |begins| begins[piece]);
            let available = usize::try_from(row).ok().and_then(|row| self.row_lengths.get(row));
            let &available = available.ok_or(Error::UnknownRow { piece, row, rows })?;
            if begin < 0 || begin.checked_add(length).is_none_or(|end| end > available) {
                let available = available as usize;
                return Err(Error::OutsideRow { piece, row, begin, length, available });
            }
        }
        Ok(())
    }

    fn piece(&self, piece: usize) -> Piece {
        let row = self.source_rows.map_or(piece, |source_rows| source_rows[piece] as usize);
        let begin = self.begins.map_or(0, |begins| begins[piece] as usize);
        Piece { row, begin, end: begin + self.slots.lengths[piece] as usize }
    }

    /// Where the tokens that are placed of each row end.
    fn ends(&self) -> Vec<usize> {
        let mut ends = vec![0; self.row_lengths.len()];
        for piece in self.slots.rows().map(|piece| self.piece(piece)) {
            // An empty piece holds no token, wherever it is.
            if piece.begin < piece.end {
                ends[piece.row] = ends[piece.row].max(piece.end);
            }
        }
        ends
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
    /// Each row: on the last response token that is placed of it, if any is. Where several pieces hold
    /// that token, each has the element, as it has all else of the token.
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
            Self::Response => ((tokens - prompt) as usize, "one per response token"),
            Self::Sequence => {
                (tokens as usize, "one per token of prompt and response, the last ones may be missing")
            }
            Self::Last => (1, "one per row"),
        }
    }

    /// The token that the first element is for, if it is for any, of a row placed up to `end`.
    fn begin(self, prompt: usize, end: impl FnOnce() -> usize) -> Option<usize> {
        match self {
            Self::Prompt | Self::Sequence => Some(0),
            Self::Response => Some(prompt),
            Self::Last => end().checked_sub(1).filter(|&last| last >= prompt),
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
            let got = bytes.len().checked_div(item).unwrap_or(0);
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
        sequences: &Sequences<'_>,
        ends: &[usize],
        prefetch: impl Fn(*const i8, usize),
    ) -> Result<()> {
        let (sources, gaps) = (&self.sources, self.gaps);
        let slots = &sequences.slots;
        let (mut soon, mut later) = (ahead(slots, AHEAD), ahead(slots, FAR_AHEAD));
        layout::walk(
            slots,
            gaps.item(),
            self.out,
            |gap| gaps.write(gap),
            |piece, slot| {
                if let Some(later) = later.next() {
                    let row = sequences.piece(later).row;
                    for source in sources {
                        prefetch((&raw const source.rows[row]).cast(), 1);
                    }
                }
                if let Some(soon) = soon.next() {
                    let row = sequences.piece(soon).row;
                    for source in sources {
                        prefetch(source.rows[row].as_ptr().cast(), LINES);
                    }
                }
                let piece = sequences.piece(piece);
                let prompt = sequences.prompt_lengths[piece.row] as usize;
                let begin = |source: &Source<'_>| source.level.begin(prompt, || ends[piece.row]);
                fill_piece(index, piece, sources, begin, gaps, slot)
            },
        )
    }
}

/// Writes what `sources` have for the tokens of a piece, and gaps where they have nothing.
fn fill_piece<O: Out<u8>>(
    index: usize,
    piece: Piece,
    sources: &[Source<'_>],
    begin: impl Fn(&Source<'_>) -> Option<usize>,
    gaps: Gaps<'_>,
    slot: &mut [O],
) -> Result<()> {
    let item = gaps.item();
    let mut rest = slot;
    let mut free = piece.begin;
    for (number, source) in sources.iter().enumerate() {
        let source_item = source.mover.source_item(item);
        let bytes = source.rows[piece.row];
        let (Some(first), Some(elements)) = (begin(source), bytes.len().checked_div(source_item)) else {
            continue;
        };
        let (from, to) = (first.max(piece.begin), (first + elements).min(piece.end));
        if from >= to {
            continue;
        }
        let (gap, tail) = rest.split_at_mut((from - free) * item);
        let (taken, tail) = tail.split_at_mut((to - from) * item);
        (rest, free) = (tail, to);
        gaps.write(gap);
        let bytes = &bytes[(from - first) * source_item..(to - first) * source_item];
        source.mover.run(bytes, taken).map_err(|bad| {
            source.mover.refused(&bad, piece.row, from - first, source_item).in_column(index, number)
        })?;
    }
    gaps.write(rest);
    Ok(())
}

/// Writes all columns, each element once.
///
/// What is wrong with the layout or with lengths is found before anything is written; a value that does
/// not fit is found on the way.
pub fn fill<O: Out<u8>>(
    sequences: &Sequences<'_>,
    columns: &mut [Column<'_, O>],
    prefetch: impl Fn(*const i8, usize),
) -> Result<()> {
    sequences.check()?;
    for (index, column) in columns.iter().enumerate() {
        column.check(index, sequences)?;
    }
    let last = columns.iter().flat_map(|column| &column.sources).any(|source| source.level == Level::Last);
    let ends = if last { sequences.ends() } else { Vec::new() };
    for (index, column) in columns.iter_mut().enumerate() {
        column.fill(index, sequences, &ends, &prefetch)?;
    }
    Ok(())
}

/// Positions: of each token within its row, 0 in gaps.
pub fn positions<O: Out<i32>>(sequences: &Sequences<'_>, out: &mut [O]) -> Result<()> {
    sequences.check()?;
    layout::same_size("positions", out.len(), sequences.slots.size, 1)?;
    let gap = |gap: &mut [O]| O::fill(gap, 0);
    layout::walk(&sequences.slots, 1, out, gap, |piece, slot| {
        let Piece { row, begin, end } = sequences.piece(piece);
        let (Ok(first), Ok(_)) = (i32::try_from(begin), i32::try_from(end)) else {
            return Err(Error::RowTooLong { row, length: end as i64, capacity: i64::from(i32::MAX) });
        };
        for (value, position) in slot.iter_mut().zip(first..) {
            value.set(position);
        }
        Ok(())
    })
}
