//! A column while it grows: what it holds is decided by its first value and kept by the others.

use super::array::{How, MAX_DEPTH, Reader};
use super::scan::{self, Stop, Why, skip};
use super::values::Values;
use super::{Data, Hint, Kind, Nonfinite, Place, Problem};
use crate::cast::Dtype;
use crate::memory;

/// What there may be no memory for.
const ROWS: &str = "rows";
const OFFSETS: &str = "offsets";

/// The JSON of a value that is not there.
const NULL: &[u8] = b"null";

/// A column while it grows.
///
/// Reading a row costs what the row is long, also if it is refused: what it changes beyond adding to the column waits
/// until it is accepted, and rows without a value are added when there is one again.
pub struct Column<'a> {
    pub name: Box<str>,
    /// The name as the file first spells it, with its quotes.
    pub spelled: &'a [u8],
    /// Those up to the last one that had a value.
    pub rows: usize,
    hint: Option<Hint>,
    nonfinite: Nonfinite,
    data: Data<'a>,
    /// Whether `data` is a list of nulls and empty arrays, which may become anything.
    open: bool,
    /// How many of the list of an open column are empty arrays.
    empties: usize,
    /// Whether its first value is in the row that is being read: the rows before are missing from `data` yet.
    fresh: bool,
    pending: Option<Pending<'a>>,
}

/// What the row that is being read makes of the column.
enum Pending<'a> {
    /// A list of JSON, and no longer an open one.
    List,
    /// Something else than a list: it, with this row alone.
    Data(Data<'a>),
    /// One of floats instead of integers: those of this row.
    Floats(Values),
}

impl<'a> Column<'a> {
    /// A column whose first `rows` rows are missing.
    pub fn new(
        name: Box<str>,
        spelled: &'a [u8],
        hint: Option<Hint>,
        nonfinite: Nonfinite,
        rows: usize,
    ) -> Self {
        let open = !matches!(hint, Some(Hint::Object | Hint::Ignore));
        let data = Data::Json(Vec::new());
        Self { name, spelled, rows, hint, nonfinite, data, open, empties: 0, fresh: true, pending: None }
    }

    /// Whether it is read only to be checked.
    pub fn is_ignored(&self) -> bool {
        self.hint == Some(Hint::Ignore)
    }

    /// Whether every row has to have a value.
    pub fn is_ragged(&self) -> bool {
        matches!(self.data, Data::Ragged { .. })
    }

    /// Reads the value of row `row`; returns where it ends.
    pub fn read(&mut self, text: &'a [u8], at: usize, row: usize) -> Result<usize, Problem> {
        if self.is_ignored() {
            let end = scan::pass(text, at)?;
            self.rows = row + 1;
            return Ok(end);
        }
        self.fill(row)?;
        let kind = Kind::of(text, at).ok_or_else(|| Problem::syntax(text, at, "a value"))?;
        let end = match (&mut self.data, kind) {
            (_, Kind::Null) => {
                let end = scan::value(text, at)?;
                self.read_nothing()?;
                end
            }
            (_, Kind::Number) if self.nonfinite == Nonfinite::Null && scan::nonfinite(text, at).is_some() => {
                self.read_nothing()?;
                scan::nonfinite(text, at).map_or(at, |(_, end)| end)
            }
            (Data::Json(_), Kind::Array) if self.open => self.read_first_array(text, at)?,
            (Data::Json(_), _) if self.open => self.read_first(kind, text, at)?,
            (Data::Json(_), _) => self.read_json(text, at)?,
            (Data::Ragged { .. }, Kind::Array) => self.read_array(text, at)?,
            (Data::Scalars { .. }, Kind::Number | Kind::Bool) => self.read_scalar(text, at)?,
            (Data::Text(_), Kind::Text) => self.read_text(text, at)?,
            _ => return Err(self.mismatch(kind)),
        };
        self.rows += 1;
        Ok(end)
    }

    /// Adds null.
    fn read_nothing(&mut self) -> Result<(), Problem> {
        if self.is_ragged() {
            return Err(self.absent());
        }
        Ok(self.data.push_missing(1)?)
    }

    /// Adds the rows before `row` that have no value.
    fn fill(&mut self, row: usize) -> Result<(), Problem> {
        if self.rows < row {
            self.data.push_missing(row - self.rows)?;
            self.rows = row;
        }
        Ok(())
    }

    /// Accepts the row that was read; returns whether every row has to have a value from now on.
    pub fn commit(&mut self) -> Result<bool, Problem> {
        if self.fresh || self.pending.is_some() { self.settle() } else { Ok(false) }
    }

    #[cold]
    fn settle(&mut self) -> Result<bool, Problem> {
        let before = self.rows - 1;
        let fresh = std::mem::take(&mut self.fresh) && !self.is_ignored();
        let pending = self.pending.take();
        self.open &= !matches!(pending, Some(Pending::List | Pending::Data(_)));
        match (pending, &mut self.data) {
            (Some(Pending::Data(row)), data) => *data = row.behind(before)?,
            (Some(Pending::Floats(row)), Data::Ragged { values, .. } | Data::Scalars { values, .. }) => {
                values.promote()?;
                values.append(&row)?;
            }
            (_, Data::Json(list)) if fresh => self.data = Data::Json(std::mem::take(list)).behind(before)?,
            _ => {}
        }
        Ok(self.is_ragged())
    }

    /// Forgets everything beyond the first `rows` rows.
    pub fn roll_back(&mut self, rows: usize) {
        let decided = self.pending.take().is_some();
        self.rows = rows;
        match &mut self.data {
            Data::Json(list) => {
                self.empties -=
                    usize::from(self.open && !decided && list.get(rows).is_some_and(|&json| json != NULL));
                list.truncate(rows);
            }
            Data::Text(list) => list.truncate(rows),
            Data::Scalars { values, missing } => {
                values.truncate(rows);
                missing.truncate(missing.partition_point(|&row| row < rows));
            }
            Data::Ragged { values, offsets, inner } => {
                offsets.truncate(rows + 1);
                values.truncate(offsets[rows] as usize * inner.iter().product::<usize>());
            }
        }
    }

    /// Makes room for as many rows again, `times` over.
    pub fn reserve(&mut self, times: usize) {
        if let Data::Ragged { values, .. } = &mut self.data {
            // A tenth more, for rows that are longer later on.
            values.reserve(values.len() * times + values.len() * times / 10);
        }
    }

    /// What the column holds in the end, of `rows` rows.
    pub fn finish(mut self, rows: usize) -> Result<Data<'a>, Problem> {
        self.fill(rows)?;
        if let Data::Ragged { values, .. } = &mut self.data {
            values.shrink();
        }
        if self.open && self.empties == rows {
            let values = Values::new(self.dtype().unwrap_or(Dtype::I64));
            let offsets = memory::filled(OFFSETS, 0, rows + 1)?;
            return Ok(Data::Ragged { values, offsets, inner: Vec::new() });
        }
        Ok(self.data)
    }

    fn how(&self) -> How {
        How { fixed: self.hint.is_some(), nonfinite: self.nonfinite }
    }

    fn dtype(&self) -> Option<Dtype> {
        match self.hint {
            Some(Hint::Dtype(dtype)) => Some(dtype),
            Some(Hint::Object | Hint::Ignore) | None => None,
        }
    }

    fn kind(&self) -> Kind {
        let is_bool = |values: &Values| values.dtype() == Dtype::Bool;
        match &self.data {
            Data::Json(_) if self.open && self.empties == 0 => Kind::Null,
            Data::Json(_) if self.open => Kind::Array,
            Data::Json(_) => Kind::Object,
            Data::Ragged { values, .. } if is_bool(values) => Kind::Bools,
            Data::Ragged { .. } => Kind::Numbers,
            Data::Scalars { values, .. } if is_bool(values) => Kind::Bool,
            Data::Scalars { .. } => Kind::Number,
            Data::Text(_) => Kind::Text,
        }
    }

    /// The first value that is neither null nor an array.
    fn read_first(&mut self, kind: Kind, text: &'a [u8], at: usize) -> Result<usize, Problem> {
        if let (Some(dtype), Kind::Text | Kind::Object) = (self.dtype(), kind) {
            return Err(Problem::NotNumeric { key: self.name.clone(), dtype: dtype.name(), got: kind });
        }
        if kind == Kind::Object {
            return self.read_json(text, at);
        }
        if self.kind() == Kind::Array {
            return Err(self.mismatch(kind));
        }
        if kind == Kind::Text {
            let (value, end) = scan::string(text, at)?;
            self.pending = Some(Pending::Data(Data::Text(vec![Some(value)])));
            return Ok(end);
        }
        let dtype = self.dtype().unwrap_or(if kind == Kind::Bool { Dtype::Bool } else { Dtype::I64 });
        let mut values = Values::new(dtype);
        let mut reader = Reader::new(text, &mut values, self.how(), Vec::new());
        let read = reader.number(at);
        let floats = reader.floats;
        let end = read.map_err(|stop| self.problem(text, stop, &[], dtype))?;
        let values = floats.unwrap_or(values);
        self.pending = Some(Pending::Data(Data::Scalars { values, missing: Vec::new() }));
        Ok(end)
    }

    /// The first array, or one after empty ones.
    fn read_first_array(&mut self, text: &'a [u8], at: usize) -> Result<usize, Problem> {
        let (depth, inside) = innermost(text, at);
        if depth == 1 && text.get(inside) == Some(&b']') {
            let end = self.push_json(text, at)?;
            self.empties += 1;
            return Ok(end);
        }
        let dtype = match (self.dtype(), Kind::of(text, inside)) {
            (Some(dtype), _) => dtype,
            (None, Some(Kind::Number)) => Dtype::I64,
            (None, Some(Kind::Bool)) => Dtype::Bool,
            (None, Some(Kind::Null)) if self.nonfinite != Nonfinite::Raise => Dtype::F64,
            _ => return self.read_json(text, at),
        };
        if depth > MAX_DEPTH {
            return Err(Problem::syntax(text, at + MAX_DEPTH, "an array of at most 32 dimensions"));
        }
        let mut values = Values::new(dtype);
        let how = self.how();
        let mut reader = Reader::new(text, &mut values, how, vec![None; depth - 1]);
        let (count, end) = match reader.level(at + 1, 0) {
            Ok(found) => found,
            Err(Stop { why: Why::Mixed(_) | Why::Shape { .. }, .. }) if self.hint.is_none() => {
                return self.read_json(text, at);
            }
            Err(stop) => {
                let path = reader.path;
                return Err(self.problem(text, stop, &path, dtype));
            }
        };
        let inner = reader.inner.into_iter().flatten().collect();
        let values = reader.floats.unwrap_or(values);
        if self.empties < self.rows {
            return Err(self.absent());
        }
        self.pending = Some(Pending::Data(Data::Ragged { values, offsets: vec![0, count as i64], inner }));
        Ok(end)
    }

    fn read_array(&mut self, text: &[u8], at: usize) -> Result<usize, Problem> {
        let Data::Ragged { values, offsets, inner } = &mut self.data else { return Ok(at) };
        let dtype = values.dtype();
        let inner = inner.iter().map(|&length| Some(length)).collect();
        let how = How { fixed: self.hint.is_some(), nonfinite: self.nonfinite };
        let mut reader = Reader::new(text, values, how, inner);
        let read = reader.level(at + 1, 0);
        let (floats, path) = (reader.floats, reader.path);
        match read {
            Ok((count, end)) => {
                memory::push(OFFSETS, offsets, offsets[offsets.len() - 1] + count as i64)?;
                self.pending = floats.map(Pending::Floats);
                Ok(end)
            }
            Err(stop) => Err(self.problem(text, stop, &path, dtype)),
        }
    }

    fn read_scalar(&mut self, text: &[u8], at: usize) -> Result<usize, Problem> {
        let Data::Scalars { values, .. } = &mut self.data else { return Ok(at) };
        let dtype = values.dtype();
        let how = How { fixed: self.hint.is_some(), nonfinite: self.nonfinite };
        let mut reader = Reader::new(text, values, how, Vec::new());
        let read = reader.number(at);
        self.pending = reader.floats.map(Pending::Floats);
        read.map_err(|stop| self.problem(text, stop, &[], dtype))
    }
}

impl<'a> Column<'a> {
    fn read_json(&mut self, text: &'a [u8], at: usize) -> Result<usize, Problem> {
        let end = self.push_json(text, at)?;
        if self.open {
            self.pending = Some(Pending::List);
        }
        Ok(end)
    }

    fn push_json(&mut self, text: &'a [u8], at: usize) -> Result<usize, Problem> {
        let end = match scan::value(text, at) {
            Ok(end) => end,
            Err(problem) => self.loose_json(text, at, problem)?,
        };
        let Data::Json(list) = &mut self.data else { return Ok(at) };
        memory::push(ROWS, list, &text[at..end])?;
        Ok(end)
    }

    /// Checks a value that is no JSON, unless it is for `NaN` and the like, and these are taken.
    #[cold]
    fn loose_json(&self, text: &[u8], at: usize, problem: Problem) -> Result<usize, Problem> {
        let (end, first) = scan::loose_value(text, at, problem)?;
        if self.nonfinite == Nonfinite::Raise {
            return Err(self.problem(text, Stop::syntax(first, "a value"), &[], Dtype::F64));
        }
        Ok(end)
    }

    fn read_text(&mut self, text: &'a [u8], at: usize) -> Result<usize, Problem> {
        let Data::Text(list) = &mut self.data else { return Ok(at) };
        let (value, end) = scan::string(text, at)?;
        memory::push(ROWS, list, Some(value))?;
        Ok(end)
    }

    /// Says where in the column reading stopped.
    #[cold]
    fn problem(&self, text: &[u8], stop: Stop, path: &[usize], dtype: Dtype) -> Problem {
        if let Why::NoMemory(problem) = stop.why {
            return problem;
        }
        let place = Place { key: self.name.clone(), indices: path.iter().rev().copied().collect() };
        if let Some((value, _)) = scan::nonfinite(text, stop.at) {
            let value = if value.is_nan() {
                "NaN"
            } else if value > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            let value = value.into();
            return if self.nonfinite == Nonfinite::Raise {
                Problem::Nonfinite { place, value }
            } else {
                Problem::Range { place, value, dtype: dtype.name() }
            };
        }
        let null = matches!(stop.why, Why::Mixed(_)) && Kind::of(text, stop.at) == Some(Kind::Null);
        if null && self.nonfinite == Nonfinite::Raise && matches!(dtype, Dtype::F32 | Dtype::F64) {
            return Problem::Nonfinite { place, value: "null".into() };
        }
        match stop.why {
            Why::Fraction { end } | Why::Range { end } => {
                let value = String::from_utf8_lossy(&text[stop.at..end]).into();
                Problem::Range { place, value, dtype: dtype.name() }
            }
            Why::Shape { wanted, got } => Problem::Shape { place, wanted, got },
            Why::Mixed(wanted) => {
                Problem::Element { place, wanted, got: Kind::of(text, stop.at).unwrap_or(Kind::Null) }
            }
            Why::Syntax(wanted) => Problem::syntax(text, stop.at, wanted),
            Why::NoMemory(problem) => problem,
        }
    }

    #[cold]
    fn mismatch(&self, got: Kind) -> Problem {
        Problem::Mismatch { key: self.name.clone(), wanted: self.kind(), got }
    }

    #[cold]
    pub fn absent(&self) -> Problem {
        Problem::Absent { key: self.name.clone() }
    }
}

impl Data<'_> {
    /// Adds rows that have no value.
    fn push_missing(&mut self, count: usize) -> crate::Result<()> {
        match self {
            Data::Json(list) => push_times(list, NULL, count),
            Data::Text(list) => push_times(list, None, count),
            Data::Scalars { values, missing } => {
                memory::make_room(ROWS, missing, count)?;
                missing.extend(values.len()..values.len() + count);
                values.push_zeros(count)
            }
            Data::Ragged { offsets, .. } => push_times(offsets, offsets.last().copied().unwrap_or(0), count),
        }
    }

    /// The same rows behind `count` that have no value, or an empty array.
    fn behind(self, count: usize) -> crate::Result<Self> {
        let mut whole = match &self {
            Data::Json(_) => Data::Json(Vec::new()),
            Data::Text(_) => Data::Text(Vec::new()),
            Data::Scalars { values, .. } => {
                Data::Scalars { values: Values::new(values.dtype()), missing: Vec::new() }
            }
            Data::Ragged { values, inner, .. } => Data::Ragged {
                values: Values::new(values.dtype()),
                offsets: Vec::new(),
                inner: inner.clone(),
            },
        };
        whole.push_missing(count)?;
        match (&mut whole, self) {
            (Data::Json(list), Data::Json(rows)) => push_all(list, rows)?,
            (Data::Text(list), Data::Text(rows)) => push_all(list, rows)?,
            (Data::Scalars { values, .. }, Data::Scalars { values: rows, .. }) => values.append(&rows)?,
            (Data::Ragged { values, offsets, .. }, Data::Ragged { values: rows, offsets: ends, .. }) => {
                *values = rows;
                push_all(offsets, ends)?;
            }
            _ => {}
        }
        Ok(whole)
    }
}

fn push_times<T: Clone>(list: &mut Vec<T>, value: T, count: usize) -> crate::Result<()> {
    memory::make_room(ROWS, list, count)?;
    list.resize(list.len() + count, value);
    Ok(())
}

fn push_all<T>(list: &mut Vec<T>, rows: Vec<T>) -> crate::Result<()> {
    memory::make_room(ROWS, list, rows.len())?;
    list.extend(rows);
    Ok(())
}

/// How many arrays open at `at`, each the first item of the one before, and where the first item of the
/// last one is.
fn innermost(text: &[u8], mut at: usize) -> (usize, usize) {
    let mut depth = 0;
    while text.get(at) == Some(&b'[') {
        depth += 1;
        at = skip(text, at + 1);
    }
    (depth, at)
}
