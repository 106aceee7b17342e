//! Arrays of numbers, nested or not, and single numbers, into values.

use super::Nonfinite;
use super::scan::{self, Stop, Why, skip, unexpected};
use super::values::Values;

/// More levels are refused; NumPy has 64 dimensions.
pub const MAX_DEPTH: usize = 32;

/// How numbers are read.
#[derive(Clone, Copy)]
pub struct How {
    /// Whether the caller has fixed the dtype. If not, the first float turns integers to floats.
    pub fixed: bool,
    pub nonfinite: Nonfinite,
}

/// Reads one row into `values`.
pub struct Reader<'a> {
    pub text: &'a [u8],
    pub values: &'a mut Values,
    pub how: How,
    /// The lengths of the inner levels, as far as they are known.
    pub inner: Vec<Option<usize>>,
    /// Where in the row reading stopped: indices, innermost first.
    pub path: Vec<usize>,
    /// The values before the first float.
    pub integers: Option<Vec<i64>>,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a [u8], values: &'a mut Values, how: How, inner: Vec<Option<usize>>) -> Self {
        Self { text, values, how, inner, path: Vec::new(), integers: None }
    }

    /// Reads a number.
    pub fn number(&mut self, at: usize) -> Result<usize, Stop> {
        let read = self.values.read_one(self.text, at, self.how.fixed);
        let read = match self.promoted(&read) {
            Some(at) => self.values.read_one(self.text, at, false),
            None => read,
        };
        if read.is_ok() { read } else { self.nonfinite(at).ok_or(read).or_else(|read| read) }
    }

    /// Reads a level from behind its `[` to behind its `]`: how many items it has, and where it ends.
    pub fn level(&mut self, at: usize, depth: usize) -> Result<(usize, usize), Stop> {
        let at = skip(self.text, at);
        if self.text.get(at) == Some(&b']') {
            return Ok((0, at + 1));
        }
        if depth == self.inner.len() { self.numbers(at) } else { self.arrays(at, depth) }
    }

    fn numbers(&mut self, at: usize) -> Result<(usize, usize), Stop> {
        let before = self.values.len();
        let mut read = self.values.read_array(self.text, at, self.how.fixed);
        while let Err(stop) = &read {
            if let Some(at) = self.promoted(&read) {
                read = self.values.read_array(self.text, at, false);
            } else if let Some(end) = self.nonfinite(stop.at) {
                let end = skip(self.text, end);
                read = match self.text.get(end) {
                    Some(b',') => self.values.read_array(self.text, skip(self.text, end + 1), self.how.fixed),
                    Some(b']') => Ok(end + 1),
                    _ => Err(Stop::syntax(end, "',' or ']'")),
                };
            } else {
                break;
            }
        }
        let count = self.values.len() - before;
        match read {
            Ok(end) => Ok((count, end)),
            Err(stop) => {
                self.path.push(count);
                Err(stop)
            }
        }
    }

    fn arrays(&mut self, mut at: usize, depth: usize) -> Result<(usize, usize), Stop> {
        let mut count = 0;
        loop {
            let end = self.child(at, depth).inspect_err(|_| self.path.push(count))?;
            count += 1;
            at = skip(self.text, end);
            match self.text.get(at) {
                Some(b',') => at = skip(self.text, at + 1),
                Some(b']') => return Ok((count, at + 1)),
                _ => return Err(Stop::syntax(at, "',' or ']'")),
            }
        }
    }

    fn child(&mut self, at: usize, depth: usize) -> Result<usize, Stop> {
        if self.text.get(at) != Some(&b'[') {
            return Err(unexpected(self.text, at, "an array"));
        }
        let (got, end) = self.level(at + 1, depth + 1)?;
        let wanted = *self.inner[depth].get_or_insert(got);
        if got == wanted { Ok(end) } else { Err(Stop { at, why: Why::Shape { wanted, got } }) }
    }

    /// Takes a number that JSON does not have, where reading stopped; returns where it ends.
    #[cold]
    fn nonfinite(&mut self, at: usize) -> Option<usize> {
        if self.how.nonfinite == Nonfinite::Raise {
            return None;
        }
        let null = self.text.get(at..).is_some_and(|rest| rest.starts_with(b"null"));
        let (value, end) = if null { (f64::NAN, at + 4) } else { scan::nonfinite(self.text, at)? };
        if !self.how.fixed
            && let Some(integers) = self.values.promote()
        {
            self.integers = Some(integers);
        }
        let value = if self.how.nonfinite == Nonfinite::Null { f64::NAN } else { value };
        self.values.push_float(value).then_some(end)
    }

    /// Where to go on after the first float, if that is why reading stopped.
    fn promoted(&mut self, read: &Result<usize, Stop>) -> Option<usize> {
        let Err(Stop { at, why: Why::Fraction { .. } }) = read else { return None };
        let integers = if self.how.fixed { None } else { self.values.promote() };
        self.integers = Some(integers?);
        Some(*at)
    }
}
