//! JSONL to columns: numbers go straight from text to typed vectors, and nothing else is built.
//!
//! A line is one JSON object, read strictly; each of its keys is a column. A column's first value
//! decides what it holds, as [`Data`] lists; hints fix the dtype of numbers.
//!
//! ```
//! use rollkit::jsonl::{Data, Options, Values, parse};
//!
//! let lines = br#"{"ids": [1, 2, 3], "reward": 0.5}
//! {"ids": [], "reward": 1}"#;
//! let table = parse(lines, &Options::default())?;
//! assert_eq!(table.rows, 2);
//! let ids = Data::Ragged { values: Values::I64(vec![1, 2, 3]), offsets: vec![0, 3, 3], inner: vec![] };
//! assert_eq!(table.columns[0], ("ids".into(), ids));
//! let reward = Data::Scalars { values: Values::F64(vec![0.5, 1.0]), missing: vec![] };
//! assert_eq!(table.columns[1], ("reward".into(), reward));
//! # Ok::<(), rollkit::Error>(())
//! ```
//!
//! Strings, escapes and values that stay JSON are `serde_json`'s work. Numbers are not: they
//! are read eight digits at a time into their own type, which makes the whole several times faster.

mod array;
mod column;
mod decimal;
mod lists;
mod number;
mod problem;
mod scan;
mod values;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::cast::Dtype;
use crate::memory;
use crate::{Error, Result};
use column::Column;
use scan::skip;

pub use lists::{Lists, lists};
pub use problem::{Kind, Place, Problem};
pub use values::Values;

/// How to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What columns are to hold, by key.
    pub hints: HashMap<String, Hint>,
    /// The keys that become columns, all if `None`; of others nothing is kept.
    pub only: Option<HashSet<String>>,
    /// The number of the first line.
    pub first_line: u64,
    /// Whether to leave out lines that are refused, instead of stopping at the first.
    pub skip: bool,
    /// What becomes of numbers that JSON does not have.
    pub nonfinite: Nonfinite,
}

/// What becomes of `NaN`, `Infinity`, `-Infinity` and, among floats, `null`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Nonfinite {
    /// They are refused.
    #[default]
    Raise,
    /// They are kept; `null` in an array of floats is NaN.
    Keep,
    /// None is a number: in an array of floats all are NaN, one per row is missing.
    Null,
}

impl Default for Options {
    fn default() -> Self {
        Self { hints: HashMap::new(), only: None, first_line: 1, skip: false, nonfinite: Nonfinite::Raise }
    }
}

/// What a column is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Numbers of this dtype; `true` and `false` are 1 and 0.
    Dtype(Dtype),
    /// Any JSON.
    Object,
    /// Nothing: values are checked to be JSON, their strings are not decoded, and there is no column.
    Ignore,
}

/// Columns of equal row count, in the order in which their keys first appear.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<'a> {
    /// Rows of every column.
    pub rows: usize,
    /// Lines that were refused and left out.
    pub skipped: usize,
    /// Keys and what they hold.
    pub columns: Vec<(Box<str>, Data<'a>)>,
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Data<'a> {
    /// An array of numbers, or of `true` and `false`, in every row. Nested arrays are rectangular.
    Ragged {
        /// The elements of all rows.
        values: Values,
        /// Where each row begins, and the last one ends, in units of `inner`.
        offsets: Vec<i64>,
        /// The shape of an item: empty unless arrays are nested.
        inner: Vec<usize>,
    },
    /// A number, or `true` or `false`, in every row.
    Scalars {
        /// One per row.
        values: Values,
        /// The rows that have null or no value, in order.
        missing: Vec<usize>,
    },
    /// A string in every row, `None` for null or no value.
    Text(Vec<Option<Cow<'a, str>>>),
    /// Anything: each row's JSON, checked; `null` where there is no value.
    Json(Vec<&'a [u8]>),
}

/// More keys are refused: each is a column.
pub const MAX_KEYS: usize = 10_000;

/// A table may have this many cells for a byte that is read, and [`FREE_CELLS`] beyond: where each row has keys of its
/// own, it would be quadratically larger than what is read.
const CELLS_PER_BYTE: usize = 8;
const FREE_CELLS: usize = 1 << 20;

/// After this part of the data, the rest is taken to be alike and room is made for it: memory that grows
/// step by step is copied and touched again. What is not used is never touched.
const RESERVE_AFTER: usize = 32;

/// Reads whole lines.
pub fn parse<'a>(data: &'a [u8], options: &Options) -> Result<Table<'a>> {
    let mut reading = Reading::new(data.len(), options);
    let mut skipped = 0;
    let mut rest = data;
    if options.first_line == 1 {
        rest = rest.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(rest);
    }
    let mut line = options.first_line;
    let mut room = false;
    while !rest.is_empty() {
        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let text = &rest[..length];
        rest = rest.get(length + 1..).unwrap_or_default();
        if skip(text, 0) < text.len() {
            match reading.read(text) {
                Ok(()) => {}
                Err(problem) if !options.skip || problem.of_all() => return Err(refused(line, problem)),
                Err(_) => skipped += 1,
            }
        }
        line += 1;
        let done = data.len() - rest.len();
        if !room && done >= data.len() / RESERVE_AFTER {
            room = true;
            reading.columns.iter_mut().for_each(|column| column.reserve(rest.len() / done));
        }
    }
    let rows = reading.rows;
    let columns = reading.finish().map_err(|problem| refused(line, problem))?;
    Ok(Table { rows, skipped, columns })
}

#[cold]
fn refused(line: u64, problem: Problem) -> Error {
    match problem {
        Problem::NoMemory { got } => Error::NoMemory { name: "values", got },
        problem => Error::Line { line, problem },
    }
}

/// The rows read so far.
struct Reading<'a, 'o> {
    options: &'o Options,
    columns: Vec<Column<'a>>,
    /// Which column a key is.
    index: HashMap<Box<str>, usize>,
    rows: usize,
    /// The columns that every row has to have a value in.
    ragged: BTreeSet<usize>,
    /// Those that the row that is being read has a value in.
    touched: Vec<usize>,
    /// Columns that are kept.
    kept: usize,
    /// Cells that the table may have.
    cells: usize,
}

impl<'a, 'o> Reading<'a, 'o> {
    fn new(bytes: usize, options: &'o Options) -> Self {
        Self {
            options,
            columns: Vec::new(),
            index: HashMap::new(),
            rows: 0,
            ragged: BTreeSet::new(),
            touched: Vec::new(),
            kept: 0,
            cells: bytes.saturating_mul(CELLS_PER_BYTE).saturating_add(FREE_CELLS),
        }
    }

    /// Adds a line, wholly or not at all.
    fn read(&mut self, text: &'a [u8]) -> Result<(), Problem> {
        let known = self.columns.len();
        self.touched.clear();
        // For what does not ask before it allocates: strings that are decoded, keys, messages.
        memory::available::<u8>("a line", text.len().saturating_mul(8))?;
        match self.read_object(text) {
            Ok(()) => self.commit(),
            Err(problem) => {
                self.roll_back(known);
                Err(problem)
            }
        }
    }

    fn commit(&mut self) -> Result<(), Problem> {
        self.rows += 1;
        for &column in &self.touched {
            if self.columns[column].commit()? {
                self.ragged.insert(column);
            }
        }
        if self.kept.saturating_mul(self.rows) > self.cells {
            return Err(Problem::Sparse { keys: self.kept, rows: self.rows });
        }
        Ok(())
    }

    fn roll_back(&mut self, known: usize) {
        for &column in self.touched.iter().filter(|&&column| column < known) {
            self.columns[column].roll_back(self.rows);
        }
        for column in self.columns.drain(known..) {
            self.kept -= usize::from(!column.is_ignored());
            self.index.remove(&column.name);
        }
    }

    fn finish(self) -> Result<Vec<(Box<str>, Data<'a>)>, Problem> {
        let kept = self.columns.into_iter().filter(|column| !column.is_ignored());
        kept.map(|column| Ok((column.name.clone(), column.finish(self.rows)?))).collect()
    }

    fn read_object(&mut self, text: &'a [u8]) -> Result<(), Problem> {
        let syntax = |at, wanted| Problem::syntax(text, at, wanted);
        let mut at = skip(text, 0);
        if text.get(at) != Some(&b'{') {
            return Err(syntax(at, "an object"));
        }
        at = skip(text, at + 1);
        let mut fields = 0;
        if text.get(at) != Some(&b'}') {
            loop {
                at = self.read_field(text, at, fields)?;
                fields += 1;
                match text.get(at) {
                    Some(b',') => at = skip(text, at + 1),
                    Some(b'}') => break,
                    _ => return Err(syntax(at, "',' or '}'")),
                }
            }
        }
        at = skip(text, at + 1);
        if at < text.len() {
            return Err(syntax(at, "the end of the line"));
        }
        if fields < self.columns.len() { self.check_present() } else { Ok(()) }
    }

    /// Refuses a row that lacks an array. Only as many columns are looked at as it has.
    fn check_present(&self) -> Result<(), Problem> {
        let present = self.touched.iter().filter(|&&column| self.columns[column].is_ragged()).count();
        if present == self.ragged.len() {
            return Ok(());
        }
        let mut ragged = self.ragged.iter().map(|&column| &self.columns[column]);
        ragged.find(|column| column.rows == self.rows).map_or(Ok(()), |column| Err(column.absent()))
    }

    /// Reads a key and its value; returns where the next `,` or `}` should be.
    fn read_field(&mut self, text: &'a [u8], at: usize, guess: usize) -> Result<usize, Problem> {
        let (field, end) = self.read_key(text, at, guess)?;
        let colon = skip(text, end);
        if text.get(colon) != Some(&b':') {
            return Err(Problem::syntax(text, colon, "':'"));
        }
        let column = &mut self.columns[field];
        if column.rows > self.rows {
            return Err(Problem::Duplicate { key: column.name.clone(), column: at + 1 });
        }
        memory::push("keys", &mut self.touched, field)?;
        column.read(text, skip(text, colon + 1), self.rows).map(|end| skip(text, end))
    }

    /// Reads a key; returns its column, likely `guess`, and where the key ends.
    fn read_key(&mut self, text: &'a [u8], at: usize, guess: usize) -> Result<(usize, usize), Problem> {
        if let Some(column) = self.columns.get(guess)
            && text[at..].starts_with(column.spelled)
        {
            return Ok((guess, at + column.spelled.len()));
        }
        if text.get(at) != Some(&b'"') {
            return Err(Problem::syntax(text, at, "a key"));
        }
        let (key, end) = scan::string(text, at)?;
        if let Some(&found) = self.index.get(key.as_ref()) {
            return Ok((found, end));
        }
        let left_out = self.options.only.as_ref().is_some_and(|only| !only.contains(key.as_ref()));
        let hint = if left_out { Some(Hint::Ignore) } else { self.options.hints.get(key.as_ref()).copied() };
        if hint != Some(Hint::Ignore) {
            if self.kept == MAX_KEYS {
                return Err(Problem::Keys);
            }
            self.kept += 1;
        }
        self.index.try_reserve(1).map_err(|_| Problem::NoMemory { got: self.index.len() + 1 })?;
        memory::make_room("keys", &mut self.columns, 1)?;
        let name = Box::<str>::from(key);
        self.index.insert(name.clone(), self.columns.len());
        let nonfinite = self.options.nonfinite;
        self.columns.push(Column::new(name, &text[at..end], hint, nonfinite, self.rows));
        Ok((self.columns.len() - 1, end))
    }
}
