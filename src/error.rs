//! The one error type. Variants carry the numbers a user needs; sentences are made here, once.

use std::fmt;

use crate::jsonl::Problem;
use crate::{balance, segments};

/// What a kernel can refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A row has a length below zero.
    NegativeLength {
        /// The row.
        row: usize,
        /// Its length.
        got: i64,
    },
    /// Offsets do not start at or above zero, or fall.
    FallingOffsets {
        /// The row whose end lies before its begin.
        row: usize,
        /// Its begin.
        begin: i64,
        /// Its end.
        end: i64,
    },
    /// The lengths add up to more than an `i64`.
    TooManyElements {
        /// The row at which the sum overflows.
        row: usize,
    },
    /// With the empty bins that are added there are more elements than an `i64` counts.
    TooManyBins {
        /// What the count of bins is made a multiple of.
        multiple: usize,
        /// The elements of a bin.
        width: i64,
    },
    /// Two arguments that go row by row have different row counts.
    RowCount {
        /// The argument at fault.
        name: &'static str,
        /// Its rows.
        got: usize,
        /// The rows wanted.
        wanted: usize,
    },
    /// A row reads outside its source.
    OutsideSource {
        /// The row.
        row: usize,
        /// The first element read.
        begin: i64,
        /// The elements read.
        length: i64,
        /// The elements there are.
        available: usize,
    },
    /// A piece is of a row that there is not.
    UnknownRow {
        /// The piece.
        piece: usize,
        /// The row.
        row: i64,
        /// The rows there are.
        rows: usize,
    },
    /// A piece reads outside its row.
    OutsideRow {
        /// The piece.
        piece: usize,
        /// The row.
        row: i64,
        /// The first element read.
        begin: i64,
        /// The elements read.
        length: i64,
        /// The elements the row has.
        available: usize,
    },
    /// A node of a forest is out of place.
    Node {
        /// The node.
        node: usize,
        /// Why.
        problem: &'static str,
    },
    /// Above a node of a tree there is no root.
    LostNode {
        /// The node.
        node: usize,
        /// Its parent.
        parent: i64,
    },
    /// A row ends with a node that there is not.
    UnknownNode {
        /// The row.
        row: usize,
        /// The node.
        node: i64,
        /// The nodes there are.
        nodes: usize,
    },
    /// A row has other elements than its tokens.
    RowLength {
        /// The row.
        row: usize,
        /// Its elements.
        got: usize,
        /// The elements wanted.
        wanted: usize,
        /// What there is to be one for.
        per: &'static str,
    },
    /// A prompt is longer than the row it begins.
    PromptLength {
        /// The row.
        row: usize,
        /// The tokens of its prompt.
        got: i64,
        /// Its tokens.
        available: i64,
    },
    /// One of several columns is refused.
    Column {
        /// The column.
        index: usize,
        /// Which of its sources is at fault: 0, or 1 for the responses of a column of prompts and responses.
        source: usize,
        /// Why; rows and positions are the column's.
        error: Box<Error>,
    },
    /// A part of a row is none.
    OutsidePart {
        /// The row.
        row: usize,
        /// The first element of the part.
        begin: i64,
        /// The elements of the part.
        length: i64,
        /// The elements of the row.
        available: i64,
    },
    /// A row would be written outside the output.
    OutsideOutput {
        /// The row.
        row: usize,
        /// The first element written.
        start: i64,
        /// The elements written.
        length: i64,
        /// The elements there are.
        size: usize,
    },
    /// A row would be written over the row before it, or `order` does not sort the rows.
    Overlap {
        /// The row.
        row: usize,
        /// Its first element.
        start: i64,
        /// The first element that is free.
        free: usize,
    },
    /// A row's bytes are not those of its elements.
    RowBytes {
        /// The row.
        row: usize,
        /// Its bytes.
        got: usize,
        /// The bytes wanted.
        wanted: usize,
    },
    /// A buffer's bytes are not those of its elements.
    BufferSize {
        /// The argument at fault.
        name: &'static str,
        /// Its bytes.
        got: usize,
        /// The bytes wanted.
        wanted: usize,
    },
    /// A value does not fit the target dtype.
    ValueRange {
        /// The row.
        row: usize,
        /// The element within the row.
        position: usize,
        /// The value, printed.
        value: String,
        /// The target dtype.
        dtype: &'static str,
    },
    /// A row is longer than a bin.
    RowTooLong {
        /// The row.
        row: usize,
        /// Its length.
        length: i64,
        /// What a bin holds.
        capacity: i64,
    },
    /// A row is longer than a bin, and nothing was said about such rows.
    Oversize {
        /// The row.
        row: usize,
        /// Its length.
        length: i64,
        /// What a bin holds.
        capacity: i64,
        /// Whether rows may be split.
        splits: bool,
    },
    /// Rows cannot be dealt to parts.
    Balance(balance::Problem),
    /// What was checked is no longer so: another thread has written to an argument meanwhile.
    Changed {
        /// The argument.
        name: &'static str,
    },
    /// An option that is a word is none of those known.
    UnknownName {
        /// The argument at fault.
        name: &'static str,
        /// Its value.
        got: String,
    },
    /// Elements are of a size that the kernel does not know.
    ItemSize {
        /// The argument at fault.
        name: &'static str,
        /// The bytes of its elements.
        got: usize,
    },
    /// A capacity, alignment or count that must be at least one is not.
    NotPositive {
        /// The argument at fault.
        name: &'static str,
        /// Its value.
        got: i64,
    },
    /// A number is none of those that are permuted.
    OutOfRange {
        /// The argument at fault.
        name: &'static str,
        /// Where in it.
        index: usize,
        /// The number.
        got: i64,
        /// How many numbers there are, from 0.
        count: u64,
    },
    /// A text that should be base64 is not.
    Base64 {
        /// The character at fault, from 0.
        position: usize,
        /// What it is.
        found: u8,
    },
    /// A line of a file is refused.
    Line {
        /// The line, from 1.
        line: u64,
        /// Why.
        problem: Problem,
    },
    /// There is no memory for so many.
    NoMemory {
        /// The argument at fault.
        name: &'static str,
        /// Its value.
        got: usize,
    },
    /// Segment ids are refused.
    Segment {
        /// The argument at fault.
        name: &'static str,
        /// The row.
        row: usize,
        /// The token within the row.
        position: usize,
        /// Why.
        problem: segments::Problem,
    },
}

/// `std::result::Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// This, of one of several columns.
    #[must_use]
    pub fn in_column(self, index: usize, source: usize) -> Self {
        Self::Column { index, source, error: Box::new(self) }
    }

    /// The error itself, without the column it is of.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::Column { error, .. } => error.root(),
            own => own,
        }
    }

    /// The column it is of.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        match self {
            Self::Column { index, .. } => Some(*index),
            _ => None,
        }
    }

    /// Which source of that column it is of.
    #[must_use]
    pub fn source_of_column(&self) -> Option<usize> {
        match self {
            Self::Column { source, .. } => Some(*source),
            _ => None,
        }
    }

    /// The row it is of.
    #[must_use]
    pub fn row(&self) -> Option<usize> {
        match self.root() {
            Self::NegativeLength { row, .. }
            | Self::FallingOffsets { row, .. }
            | Self::TooManyElements { row }
            | Self::OutsideSource { row, .. }
            | Self::RowLength { row, .. }
            | Self::UnknownNode { row, .. }
            | Self::PromptLength { row, .. }
            | Self::OutsidePart { row, .. }
            | Self::OutsideOutput { row, .. }
            | Self::Overlap { row, .. }
            | Self::RowBytes { row, .. }
            | Self::ValueRange { row, .. }
            | Self::RowTooLong { row, .. }
            | Self::Oversize { row, .. }
            | Self::Segment { row, .. } => Some(*row),
            Self::Balance(problem) => problem.row(),
            Self::UnknownRow { row, .. } | Self::OutsideRow { row, .. } => usize::try_from(*row).ok(),
            _ => None,
        }
    }

    /// The element of the row, or the character of the text, that it is of.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        match self.root() {
            Self::ValueRange { position, .. }
            | Self::Base64 { position, .. }
            | Self::Segment { position, .. } => Some(*position),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NegativeLength { row, got } => write!(f, "row {row} has length {got}; lengths are ≥ 0"),
            Self::FallingOffsets { row, begin, end } => {
                write!(
                    f,
                    "offsets fall at row {row}: it begins at {begin} and ends at {end}; offsets start at ≥ 0 and never fall"
                )
            }
            Self::TooManyElements { row } => {
                write!(f, "the lengths up to row {row} add up to more than 2**63 - 1 elements")
            }
            Self::NoMemory { name, got } => write!(f, "there is no memory for {name}={got}"),
            Self::RowCount { name, got, wanted } => write!(f, "{name} has {got} rows, expected {wanted}"),
            Self::OutsideSource { row, begin, length, available } => {
                write!(
                    f,
                    "row {row} is elements {begin} to {begin} + {length} of a source that has {available}"
                )
            }
            Self::Node { node, problem } => write!(f, "node {node} {problem}"),
            Self::LostNode { node, parent } => {
                write!(f, "node {node} has parent {parent}, from which no way leads to a root")
            }
            Self::UnknownNode { row, node, nodes } => {
                write!(f, "row {row} ends with node {node}, but there are {nodes} nodes")
            }
            Self::RowLength { row, got, wanted, per } => {
                write!(f, "row {row} has {got} elements, expected {wanted}: {per}")
            }
            Self::PromptLength { row, got, available } => {
                write!(f, "row {row} has a prompt of {got} tokens, and {available} tokens in all")
            }
            Self::Column { error, .. } => error.fmt(f),
            Self::UnknownRow { piece, row, rows } => {
                write!(f, "piece {piece} is of row {row}, but there are {rows} rows")
            }
            Self::OutsideRow { piece, row, begin, length, available } => {
                write!(
                    f,
                    "piece {piece} is elements {begin} to {begin} + {length} of row {row}, which has {available}"
                )
            }
            Self::OutsidePart { row, begin, length, available } => {
                let end = i128::from(*begin) + i128::from(*length);
                write!(f, "row {row} has {available} elements; elements {begin} to {end} are no part of it")
            }
            Self::OutsideOutput { row, start, length, size } => {
                write!(
                    f,
                    "row {row} goes to elements {start} to {start} + {length} of an output that has {size}"
                )
            }
            Self::Overlap { row, start, free } => {
                write!(
                    f,
                    "row {row} starts at element {start}, but elements below {free} are taken; rows must be disjoint, and `order` must sort them by start"
                )
            }
            Self::RowBytes { row, got, wanted } => write!(f, "row {row} has {got} bytes, expected {wanted}"),
            Self::BufferSize { name, got, wanted } => write!(f, "{name} has {got} bytes, expected {wanted}"),
            Self::ValueRange { row, position, value, dtype } => {
                write!(f, "row {row}, position {position}: {value} does not fit {dtype}")
            }
            Self::RowTooLong { row, length, capacity } => {
                write!(f, "row {row} has {length} elements, more than the capacity of {capacity}")
            }
            Self::Oversize { row, length, capacity, splits } => {
                let ways = if *splits { "\"alone\", \"drop\" or \"split\"" } else { "\"alone\" or \"drop\"" };
                write!(
                    f,
                    "row {row} has {length} elements, more than the capacity of {capacity}; raise capacity, or pass oversize=\"truncate\", {ways}"
                )
            }
            Self::Balance(problem) => problem.fmt(f),
            Self::Changed { name } => write!(f, "{name} changed while they were read"),
            Self::UnknownName { name, got } => write!(f, "{name} is {got:?}, which is not one of its values"),
            Self::ItemSize { name, got } => {
                write!(f, "{name} has elements of {got} bytes, expected 1, 2, 4 or 8")
            }
            Self::TooManyBins { multiple, width } => write!(
                f,
                "bins_multiple_of={multiple}: bins of {width} elements add up to more than 2**63 - 1 elements"
            ),
            Self::NotPositive { name, got } => write!(f, "{name} must be at least 1, got {got}"),
            Self::OutOfRange { name, index, got, count } => {
                write!(f, "{name}[{index}] is {got}, out of range: there are {count}")
            }
            Self::Base64 { position, found } => {
                write!(
                    f,
                    "character {position} of the base64 data is {:?}, which is not valid there",
                    char::from(*found)
                )
            }
            Self::Line { line, problem } => write!(f, "line {line}: {problem}"),
            Self::Segment { name, row, position, problem } => {
                write!(f, "{name}, row {row}, position {position}: {problem}")
            }
        }
    }
}

impl Error {
    /// What the message says before and after the row (and position) it is of, if it is of one.
    ///
    /// Callers that know the row by another number, or as a line of a file, say that instead.
    #[must_use]
    pub fn around_place(&self) -> Option<(String, String)> {
        let row = self.row()?;
        let place = match self.position() {
            Some(position) => format!("row {row}, position {position}"),
            None => format!("row {row}"),
        };
        let message = self.to_string();
        // The place comes before all that is not ours: values, and names of columns.
        message.split_once(&place).map(|(before, after)| (before.to_owned(), after.to_owned()))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_split_where_they_name_the_row() {
        let value = "<row 3, position 1>".to_owned();
        let error = Error::ValueRange { row: 3, position: 1, value, dtype: "int8" };
        let parts = (String::new(), ": <row 3, position 1> does not fit int8".to_owned());
        assert_eq!(error.around_place(), Some(parts));
        let parts = ("the lengths up to ", " add up to more than 2**63 - 1 elements");
        let found = Error::TooManyElements { row: 12 }.around_place();
        assert_eq!(found, Some((parts.0.to_owned(), parts.1.to_owned())));
        assert_eq!(Error::ItemSize { name: "x", got: 3 }.around_place(), None);
    }
}
