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
    values: &'a mut Values,
    /// Where in `values` the row begins.
    begin: usize,
    how: How,
    /// The lengths of the inner levels, as far as they are known.
    pub inner: Vec<Option<usize>>,
    /// Where in the row reading stopped: indices, innermost first.
    pub path: Vec<usize>,
    /// The row, if it has the first float among integers: those before it stay as they are until it is accepted.
    pub floats: Option<Values>,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a [u8], values: &'a mut Values, how: How, inner: Vec<Option<usize>>) -> Self {
        let begin = values.len();
        Self { text, values, begin, how, inner, path: Vec::new(), floats: None }
    }

    /// Reads a number.
    pub fn number(&mut self, at: usize) -> Result<usize, Stop> {
        let (text, words) = (self.text, self.how.fixed);
        self.make_room(at, 1)?;
        let mut read = self.row().read_one(text, at, words);
        if let Some(at) = self.promoted(&read)? {
            read = self.row().read_one(text, at, words);
        }
        if read.is_ok() {
            return read;
        }
        self.nonfinite(at)?.ok_or(read).or_else(|read| read)
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
        let (text, words) = (self.text, self.how.fixed);
        let before = self.len();
        self.make_room(at, most(text, at))?;
        let mut read = self.row().read_array(text, at, words);
        while let Err(stop) = &read {
            let stopped = stop.at;
            if let Some(at) = self.promoted(&read)? {
                read = self.row().read_array(text, at, words);
            } else if let Some(end) = self.nonfinite(stopped)? {
                let end = skip(text, end);
                read = match text.get(end) {
                    Some(b',') => self.row().read_array(text, skip(text, end + 1), words),
                    Some(b']') => Ok(end + 1),
                    _ => Err(Stop::syntax(end, "',' or ']'")),
                };
            } else {
                break;
            }
        }
        let count = self.len() - before;
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
    fn nonfinite(&mut self, at: usize) -> Result<Option<usize>, Stop> {
        if self.how.nonfinite == Nonfinite::Raise {
            return Ok(None);
        }
        let null = self.text.get(at..).is_some_and(|rest| rest.starts_with(b"null"));
        let found = if null { Some((f64::NAN, at + 4)) } else { scan::nonfinite(self.text, at) };
        let Some((value, end)) = found else { return Ok(None) };
        if !self.how.fixed {
            self.promote(at)?;
        }
        let value = if self.how.nonfinite == Nonfinite::Null { f64::NAN } else { value };
        Ok(self.row().push_float(value).then_some(end))
    }

    /// Where to go on after the first float, if that is why reading stopped.
    fn promoted(&mut self, read: &Result<usize, Stop>) -> Result<Option<usize>, Stop> {
        let Err(Stop { at, why: Why::Fraction { .. } }) = read else { return Ok(None) };
        Ok((!self.how.fixed && self.promote(*at)?).then_some(*at))
    }

    /// Makes the row one of floats, if it is one of integers yet; there is room for the array that `at` is in.
    fn promote(&mut self, at: usize) -> Result<bool, Stop> {
        if self.floats.is_some() {
            return Ok(false);
        }
        self.floats = self.values.split_floats(self.begin).map_err(|error| Stop::unheld(at, error))?;
        if self.floats.is_some() {
            self.make_room(at, most(self.text, at))?;
        }
        Ok(self.floats.is_some())
    }

    /// Where the row goes.
    fn row(&mut self) -> &mut Values {
        self.floats.as_mut().unwrap_or(self.values)
    }

    /// How many elements the row has.
    fn len(&self) -> usize {
        self.floats.as_ref().map_or(self.values.len() - self.begin, Values::len)
    }

    fn make_room(&mut self, at: usize, more: usize) -> Result<(), Stop> {
        self.row().make_room(more).map_err(|error| Stop::unheld(at, error))
    }
}

/// The most numbers that there can be from `at` to the end of an array: each is a byte at least, and has one behind it.
fn most(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    memchr::memchr(b']', rest).unwrap_or(rest.len()) / 2 + 1
}
