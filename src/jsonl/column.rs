//! A column while it grows: what it holds is decided by its first value and kept by the others.

use super::array::{How, MAX_DEPTH, Reader};
use super::scan::{self, Stop, Why, skip};
use super::values::Values;
use super::{Data, Hint, Kind, Nonfinite, Place, Problem};
use crate::cast::Dtype;

/// The JSON of a value that is not there.
const NULL: &[u8] = b"null";

/// A column while it grows.
pub struct Column<'a> {
    pub name: Box<str>,
    /// The name as the file first spells it, with its quotes.
    pub spelled: &'a [u8],
    pub rows: usize,
    hint: Option<Hint>,
    nonfinite: Nonfinite,
    data: Data<'a>,
    /// Whether `data` is a list of nulls and empty arrays, which may become anything.
    open: bool,
    undo: Option<Undo<'a>>,
}

/// What the row that is being read has changed beyond adding to it.
enum Undo<'a> {
    /// It decided that an open column is a list of JSON.
    Decision,
    /// It decided that the column is something else than this list.
    List(Vec<&'a [u8]>),
    /// It had the first float among integers.
    Integers(Vec<i64>),
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
        let data = Data::Json(vec![NULL; rows]);
        Self { name, spelled, rows, hint, nonfinite, data, open, undo: None }
    }

    /// Whether it is read only to be checked.
    pub fn is_ignored(&self) -> bool {
        self.hint == Some(Hint::Ignore)
    }

    /// Reads this row's value; returns where it ends.
    pub fn read(&mut self, text: &'a [u8], at: usize) -> Result<usize, Problem> {
        if self.is_ignored() {
            let end = scan::pass(text, at)?;
            return self.read_nothing().map(|()| end);
        }
        let kind = Kind::of(text, at).ok_or_else(|| Problem::syntax(text, at, "a value"))?;
        let end = match (&mut self.data, kind) {
            (_, Kind::Null) => {
                let end = scan::value(text, at)?;
                return self.read_nothing().map(|()| end);
            }
            (_, Kind::Number) if self.nonfinite == Nonfinite::Null && scan::nonfinite(text, at).is_some() => {
                let end = scan::nonfinite(text, at).map_or(at, |(_, end)| end);
                return self.read_nothing().map(|()| end);
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

    /// Adds a row that has null, or no value.
    pub fn read_nothing(&mut self) -> Result<(), Problem> {
        match &mut self.data {
            Data::Json(list) => list.push(NULL),
            Data::Text(list) => list.push(None),
            Data::Scalars { values, missing } => {
                missing.push(values.len());
                values.push_zero();
            }
            Data::Ragged { .. } => return Err(self.absent()),
        }
        self.rows += 1;
        Ok(())
    }

    /// Accepts the row that was read.
    pub fn commit(&mut self) {
        self.undo = None;
    }

    /// Forgets everything beyond the first `rows` rows.
    pub fn roll_back(&mut self, rows: usize) {
        match (self.undo.take(), &mut self.data) {
            (Some(Undo::Decision), _) => self.open = true,
            (Some(Undo::List(list)), data) => {
                *data = Data::Json(list);
                self.open = true;
            }
            (Some(Undo::Integers(old)), Data::Ragged { values, .. } | Data::Scalars { values, .. }) => {
                *values = Values::I64(old);
            }
            _ => {}
        }
        self.rows = rows;
        match &mut self.data {
            Data::Json(list) => list.truncate(rows),
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

    /// What the column holds in the end.
    pub fn finish(mut self) -> Data<'a> {
        if let Data::Ragged { values, .. } = &mut self.data {
            values.shrink();
        }
        match &self.data {
            Data::Json(list) if self.open && !list.is_empty() && !list.contains(&NULL) => {
                let values = Values::new(self.dtype().unwrap_or(Dtype::I64));
                Data::Ragged { values, offsets: vec![0; list.len() + 1], inner: Vec::new() }
            }
            _ => self.data,
        }
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
            Data::Json(list) if self.open && list.iter().all(|json| *json == NULL) => Kind::Null,
            Data::Json(_) if self.open => Kind::Array,
            Data::Json(_) => Kind::Object,
            Data::Ragged { values, .. } if is_bool(values) => Kind::Bools,
            Data::Ragged { .. } => Kind::Numbers,
            Data::Scalars { values, .. } if is_bool(values) => Kind::Bool,
            Data::Scalars { .. } => Kind::Number,
            Data::Text(_) => Kind::Text,
        }
    }

    /// Makes an open column one of `data`.
    fn decide(&mut self, data: Data<'a>) {
        if let Data::Json(list) = std::mem::replace(&mut self.data, data) {
            self.undo = Some(Undo::List(list));
        }
        self.open = false;
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
            self.decide(Data::Text(vec![None; self.rows]));
            return self.read_text(text, at);
        }
        let dtype = self.dtype().unwrap_or(if kind == Kind::Bool { Dtype::Bool } else { Dtype::I64 });
        let mut values = Values::new(dtype);
        (0..self.rows).for_each(|_| values.push_zero());
        self.decide(Data::Scalars { values, missing: (0..self.rows).collect() });
        self.read_scalar(text, at)
    }

    /// The first array, or one after empty ones.
    fn read_first_array(&mut self, text: &'a [u8], at: usize) -> Result<usize, Problem> {
        let (depth, inside) = innermost(text, at);
        if depth == 1 && text.get(inside) == Some(&b']') {
            return self.push_json(text, at);
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
                return Err(self.problem(text, &stop, &path, dtype));
            }
        };
        let inner = reader.inner.into_iter().flatten().collect();
        if matches!(&self.data, Data::Json(list) if list.contains(&NULL)) {
            return Err(self.absent());
        }
        let mut offsets = vec![0; self.rows + 1];
        offsets.push(count as i64);
        self.decide(Data::Ragged { values, offsets, inner });
        Ok(end)
    }

    fn read_array(&mut self, text: &[u8], at: usize) -> Result<usize, Problem> {
        let Data::Ragged { values, offsets, inner } = &mut self.data else { return Ok(at) };
        let dtype = values.dtype();
        let inner = inner.iter().map(|&length| Some(length)).collect();
        let how = How { fixed: self.hint.is_some(), nonfinite: self.nonfinite };
        let mut reader = Reader::new(text, values, how, inner);
        let read = reader.level(at + 1, 0);
        let (integers, path) = (reader.integers, reader.path);
        if let Ok((count, _)) = read {
            offsets.push(offsets[offsets.len() - 1] + count as i64);
        }
        self.note(integers);
        read.map(|(_, end)| end).map_err(|stop| self.problem(text, &stop, &path, dtype))
    }

    fn read_scalar(&mut self, text: &[u8], at: usize) -> Result<usize, Problem> {
        let Data::Scalars { values, .. } = &mut self.data else { return Ok(at) };
        let dtype = values.dtype();
        let how = How { fixed: self.hint.is_some(), nonfinite: self.nonfinite };
        let mut reader = Reader::new(text, values, how, Vec::new());
        let read = reader.number(at);
        let integers = reader.integers;
        self.note(integers);
        read.map_err(|stop| self.problem(text, &stop, &[], dtype))
    }

    /// Remembers what the values were before this row's first float.
    fn note(&mut self, integers: Option<Vec<i64>>) {
        if self.undo.is_none() {
            self.undo = integers.map(Undo::Integers);
        }
    }
}

impl<'a> Column<'a> {
    fn read_json(&mut self, text: &'a [u8], at: usize) -> Result<usize, Problem> {
        let end = self.push_json(text, at)?;
        if self.open {
            (self.open, self.undo) = (false, Some(Undo::Decision));
        }
        Ok(end)
    }

    fn push_json(&mut self, text: &'a [u8], at: usize) -> Result<usize, Problem> {
        let Data::Json(list) = &mut self.data else { return Ok(at) };
        let end = scan::value(text, at)?;
        list.push(&text[at..end]);
        Ok(end)
    }

    fn read_text(&mut self, text: &'a [u8], at: usize) -> Result<usize, Problem> {
        let Data::Text(list) = &mut self.data else { return Ok(at) };
        let (value, end) = scan::string(text, at)?;
        list.push(Some(value));
        Ok(end)
    }

    /// Says where in the column reading stopped.
    #[cold]
    fn problem(&self, text: &[u8], stop: &Stop, path: &[usize], dtype: Dtype) -> Problem {
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
        }
    }

    #[cold]
    fn mismatch(&self, got: Kind) -> Problem {
        Problem::Mismatch { key: self.name.clone(), wanted: self.kind(), got }
    }

    #[cold]
    fn absent(&self) -> Problem {
        Problem::Absent { key: self.name.clone() }
    }
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
