//! A line's bytes: spaces, words, strings, values that stay JSON, and where reading numbers stops.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Problem;
use crate::Error;

/// Where in the line reading numbers stopped, and why.
#[derive(Debug)]
pub struct Stop {
    pub at: usize,
    pub why: Why,
}

/// Why reading stopped.
#[derive(Debug)]
pub enum Why {
    /// Not JSON: this was wanted.
    Syntax(&'static str),
    /// A number with a point or an exponent among integers; it ends here.
    Fraction { end: usize },
    /// A number that the dtype does not hold; it ends here.
    Range { end: usize },
    /// A value of another kind than the one that was wanted.
    Mixed(&'static str),
    /// A nested array of `got` elements where the others have `wanted`.
    Shape { wanted: usize, got: usize },
    /// No memory for what is read.
    NoMemory(Problem),
}

impl Stop {
    pub fn syntax(at: usize, wanted: &'static str) -> Self {
        Self { at, why: Why::Syntax(wanted) }
    }

    /// There is no memory.
    #[cold]
    pub fn unheld(at: usize, error: Error) -> Self {
        Self { at, why: Why::NoMemory(error.into()) }
    }
}

/// What stops at a byte that does not begin `wanted`: another kind of value, or no JSON.
#[cold]
pub fn unexpected(text: &[u8], at: usize, wanted: &'static str) -> Stop {
    let value = matches!(text.get(at), Some(b'"' | b'{' | b'[' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9'));
    if value { Stop { at, why: Why::Mixed(wanted) } } else { Stop::syntax(at, wanted) }
}

#[inline]
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// The first byte from `at` that is no space. Lines hold no `\n`.
#[inline]
pub fn skip(text: &[u8], mut at: usize) -> usize {
    while text.get(at).copied().is_some_and(is_space) {
        at += 1;
    }
    at
}

/// `true` or `false`, and where it ends.
#[inline]
pub fn literal(text: &[u8], at: usize) -> Option<(bool, usize)> {
    let rest = text.get(at..)?;
    if rest.starts_with(b"true") {
        return Some((true, at + 4));
    }
    rest.starts_with(b"false").then_some((false, at + 5))
}

/// A number that JSON does not have but Python writes, and where it ends.
pub fn nonfinite(text: &[u8], at: usize) -> Option<(f64, usize)> {
    // Reading a number stops behind its sign.
    let sign = at > 0 && text.get(at - 1) == Some(&b'-') && text.get(at) == Some(&b'I');
    let at = at - usize::from(sign);
    let rest = text.get(at..)?;
    [("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)]
        .into_iter()
        .find(|(word, _)| rest.starts_with(word.as_bytes()))
        .map(|(word, value)| (value, at + word.len()))
}

/// Passes the value at `at`, of any kind: checked to be JSON but for `NaN` and the like, its strings not decoded.
pub fn pass(text: &[u8], at: usize) -> Result<usize, Problem> {
    match read::<IgnoredAny>(text, at) {
        Ok((_, end)) => Ok(end),
        Err(problem) => loosely::<IgnoredAny>(text, at, problem).map(|(end, _)| end),
    }
}

/// Reads the string at `at`.
pub fn string(text: &[u8], at: usize) -> Result<(Cow<'_, str>, usize), Problem> {
    let (found, end) = read::<Text<'_>>(text, at)?;
    match found {
        Text::Held(found) => Ok((found, end)),
        Text::Unheld(got) => Err(Problem::NoMemory { got }),
    }
}

/// Checks the value at `at`, of any kind; returns where it ends.
pub fn value(text: &[u8], at: usize) -> Result<usize, Problem> {
    read::<Checked>(text, at).map(|(_, end)| end)
}

/// Checks a value that `value` has refused for `problem`: it may have `NaN` and the like at any depth.
///
/// Returns where it ends, and where the first of them is.
#[cold]
pub fn loose_value(text: &[u8], at: usize, problem: Problem) -> Result<(usize, usize), Problem> {
    loosely::<Checked>(text, at, problem)
}

#[cold]
fn loosely<'a, T: Deserialize<'a>>(
    text: &'a [u8],
    at: usize,
    problem: Problem,
) -> Result<(usize, usize), Problem> {
    let mut first = None;
    let end = walk::<T>(text, at, MOST_DEEP, &mut first);
    first.map_or(Err(problem), |first| Ok((end?, first)))
}

/// Steps through a value, down to what is neither array nor object, or one of `nonfinite`.
fn walk<'a, T: Deserialize<'a>>(
    text: &'a [u8],
    at: usize,
    depth: usize,
    first: &mut Option<usize>,
) -> Result<usize, Problem> {
    let close = match text.get(at) {
        Some(b'[') => b']',
        Some(b'{') => b'}',
        _ => {
            let Some((_, end)) = nonfinite(text, at) else { return read::<T>(text, at).map(|(_, end)| end) };
            first.get_or_insert(at);
            return Ok(end);
        }
    };
    if depth == 0 {
        return Err(Problem::Json { column: at + 1, message: TOO_DEEP.to_owned() });
    }
    let mut at = skip(text, at + 1);
    if text.get(at) == Some(&close) {
        return Ok(at + 1);
    }
    loop {
        if close == b'}' {
            at = pass_key::<T>(text, at)?;
        }
        at = skip(text, walk::<T>(text, at, depth - 1, first)?);
        match text.get(at) {
            Some(b',') => at = skip(text, at + 1),
            Some(&byte) if byte == close => return Ok(at + 1),
            _ if close == b'}' => return Err(Problem::syntax(text, at, "',' or '}'")),
            _ => return Err(Problem::syntax(text, at, "',' or ']'")),
        }
    }
}

/// Passes a key and its colon; returns where the value begins.
fn pass_key<'a, T: Deserialize<'a>>(text: &'a [u8], at: usize) -> Result<usize, Problem> {
    if text.get(at) != Some(&b'"') {
        return Err(Problem::syntax(text, at, "a key"));
    }
    let at = skip(text, read::<T>(text, at)?.1);
    if text.get(at) == Some(&b':') { Ok(skip(text, at + 1)) } else { Err(Problem::syntax(text, at, "':'")) }
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8], at: usize) -> Result<(T, usize), Problem> {
    let mut stream = serde_json::Deserializer::from_slice(&text[at..]).into_iter::<T>();
    match stream.next() {
        Some(Ok(value)) => Ok((value, at + stream.byte_offset())),
        Some(Err(error)) => Err(refused(at, &error)),
        None => Err(Problem::syntax(text, at, "a value")),
    }
}

/// `serde_json`'s limit, with the object that the line is.
const MOST_DEEP: usize = 127;
const TOO_DEEP: &str = "arrays and objects nested more than 128 deep";

#[cold]
fn refused(at: usize, error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    let words = message.rsplit_once(" at line ").map_or(message.as_str(), |(words, _)| words);
    let words = if words == "recursion limit exceeded" { TOO_DEEP } else { words };
    Problem::Json { column: at + error.column(), message: words.to_owned() }
}

/// A string, borrowed from the line unless it has escapes.
enum Text<'a> {
    Held(Cow<'a, str>),
    /// There is no memory for so many bytes.
    Unheld(usize),
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text::Held(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                let mut owned = String::new();
                if owned.try_reserve_exact(text.len()).is_err() {
                    return Ok(Text::Unheld(text.len()));
                }
                owned.push_str(text);
                Ok(Text::Held(Cow::Owned(owned)))
            }
        }
        deserializer.deserialize_str(Words)
    }
}

/// A value that is well-formed. Unlike `IgnoredAny`, this looks inside strings.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;
        impl<'de> Visitor<'de> for Anything {
            type Value = Checked;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Checked, A::Error> {
                while items.next_element::<Checked>()?.is_some() {}
                Ok(Checked)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Checked, A::Error> {
                while items.next_entry::<Checked, Checked>()?.is_some() {}
                Ok(Checked)
            }
        }
        deserializer.deserialize_any(Anything)
    }
}
