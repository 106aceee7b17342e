//! What a line can be refused for.

use std::fmt;

use super::{MAX_KEYS, scan};
use crate::Error;

/// What helps where there are too many keys.
const FEWER_KEYS: &str = "each is a column: put those that differ from row to row in an object of their own, or name \
                          the ones to read with columns=[…]";

/// Why a line is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// It is not JSON, or no object.
    Syntax {
        /// The column, in bytes from 1.
        column: usize,
        /// What JSON has there.
        wanted: &'static str,
        /// The byte there; `None` at the end of the line.
        found: Option<u8>,
    },
    /// It is not JSON, in the words of `serde_json`.
    Json {
        /// The column, in bytes from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A key occurs twice in one row.
    Duplicate {
        /// The key.
        key: Box<str>,
        /// The column of the second, in bytes from 1.
        column: usize,
    },
    /// A value of another kind than those of the rows before.
    Mismatch {
        /// The key.
        key: Box<str>,
        /// The kind in the rows before.
        wanted: Kind,
        /// The kind here.
        got: Kind,
    },
    /// A value that is no number where a dtype is asked for.
    NotNumeric {
        /// The key.
        key: Box<str>,
        /// The dtype.
        dtype: &'static str,
        /// The kind here.
        got: Kind,
    },
    /// Null or no value in a column of arrays.
    Absent {
        /// The key.
        key: Box<str>,
    },
    /// A number that the column's dtype does not hold.
    Range {
        /// Where in the row.
        place: Place,
        /// The number as it is written.
        value: Box<str>,
        /// The dtype.
        dtype: &'static str,
    },
    /// `NaN`, `Infinity` or `-Infinity`, which JSON does not have, or null among floats.
    Nonfinite {
        /// Where in the row.
        place: Place,
        /// As it is written.
        value: Box<str>,
    },
    /// An element of another kind than its column's.
    Element {
        /// Where in the row.
        place: Place,
        /// The column's kind of element.
        wanted: &'static str,
        /// The kind here.
        got: Kind,
    },
    /// A nested array of another length than the others.
    Shape {
        /// Where in the row.
        place: Place,
        /// The length of the others.
        wanted: usize,
        /// Its length.
        got: usize,
    },
    /// A key beyond [`MAX_KEYS`](super::MAX_KEYS).
    Keys,
    /// So many keys in so many rows that most have no value: the table is much larger than what is read.
    Sparse {
        /// The keys.
        keys: usize,
        /// The rows.
        rows: usize,
    },
    /// There is no memory for so many values or rows.
    NoMemory {
        /// How many.
        got: usize,
    },
}

/// An element of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The key.
    pub key: Box<str>,
    /// Its indices, outermost first; none of a single value.
    pub indices: Box<[usize]>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        self.indices.iter().try_for_each(|index| write!(f, "[{index}]"))
    }
}

/// A kind of JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Kind {
    Null,
    Bool,
    Number,
    Text,
    Array,
    Bools,
    Numbers,
    Object,
}

impl Kind {
    /// That of the value that begins at `at`, by its first byte.
    pub(super) fn of(text: &[u8], at: usize) -> Option<Self> {
        Some(match text.get(at)? {
            b'n' => Self::Null,
            b't' | b'f' => Self::Bool,
            b'-' | b'0'..=b'9' => Self::Number,
            b'N' | b'I' if scan::nonfinite(text, at).is_some() => Self::Number,
            b'"' => Self::Text,
            b'[' => Self::Array,
            b'{' => Self::Object,
            _ => return None,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::Array => "an array",
            Self::Bools => "an array of true and false",
            Self::Numbers => "an array of numbers",
            Self::Object => "an object",
        })
    }
}

impl Problem {
    /// Whether it is of the whole table, and not of this line.
    pub(super) fn of_all(&self) -> bool {
        matches!(self, Self::Sparse { .. } | Self::NoMemory { .. })
    }

    /// The key it is of, if it is of one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Duplicate { key, .. }
            | Self::Mismatch { key, .. }
            | Self::NotNumeric { key, .. }
            | Self::Absent { key } => Some(key),
            _ => self.place().map(|place| &*place.key),
        }
    }

    /// The element of the row that it is of, if it is of one.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        self.place().and_then(|place| place.indices.first().copied())
    }

    fn place(&self) -> Option<&Place> {
        match self {
            Self::Range { place, .. }
            | Self::Nonfinite { place, .. }
            | Self::Element { place, .. }
            | Self::Shape { place, .. } => Some(place),
            _ => None,
        }
    }

    pub(super) fn syntax(text: &[u8], at: usize, wanted: &'static str) -> Self {
        Self::Syntax { column: at + 1, wanted, found: text.get(at).copied() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { column, wanted, found } => {
                write!(f, "expected {wanted} at column {column}, found ")?;
                match found {
                    None => f.write_str("end of line"),
                    Some(byte @ b' '..=b'~') => write!(f, "'{}'", char::from(*byte)),
                    Some(byte) => write!(f, "byte 0x{byte:02x}"),
                }
            }
            Self::Json { column, message } => write!(f, "{message} at column {column}"),
            Self::Duplicate { key, column } => write!(f, "key {key:?} repeats at column {column}"),
            Self::Mismatch { key, wanted, got } => {
                write!(f, "{key}: expected {wanted} as in the rows before, found {got}")
            }
            Self::NotNumeric { key, dtype, got } => {
                write!(f, "{key}: expected numbers for {dtype}, found {got}")
            }
            Self::Absent { key } => {
                write!(f, "{key}: missing or null; a column of arrays needs an array in every row")
            }
            Self::Range { place, value, dtype } => write!(f, "{place}: {value} does not fit {dtype}"),
            Self::Nonfinite { place, value } => {
                write!(f, "{place}: {value} is no JSON number; nonfinite=\"keep\" or \"null\" takes it")
            }
            Self::Element { place, wanted, got } => write!(f, "{place}: expected {wanted}, found {got}"),
            Self::Shape { place, wanted, got } => {
                write!(f, "{place}: {got} elements, expected {wanted} as in the other arrays")
            }
            Self::Keys => write!(f, "more than {MAX_KEYS} keys; {FEWER_KEYS}"),
            Self::Sparse { keys, rows } => {
                write!(f, "{keys} keys in {rows} rows, most without a value; {FEWER_KEYS}")
            }
            Self::NoMemory { got } => write!(f, "there is no memory for {got} values or rows"),
        }
    }
}

impl From<Error> for Problem {
    /// What growing a vector ends in.
    fn from(error: Error) -> Self {
        let got = if let Error::NoMemory { got, .. } = error { got } else { 0 };
        Self::NoMemory { got }
    }
}
