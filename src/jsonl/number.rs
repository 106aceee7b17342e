//! Elements of columns, from text to their own type: plainly written arrays in loops that do little else,
//! anything else one by one.

use super::decimal::{Decimal, Float, digits, read_float, spelled, window};
use super::scan::{Stop, Why, literal, skip, unexpected};

/// An element of a column of numbers.
pub trait Element: Copy + Default {
    /// Reads one at `at`: the element and where it ends. With `words`, `true` and `false` are 1 and 0.
    fn read(text: &[u8], at: usize, words: bool) -> Result<(Self, usize), Stop>;

    /// Reads elements quickly, as far as they are plainly written with `GAP` spaces after each comma.
    fn read_plain<const GAP: usize>(text: &[u8], at: usize, out: &mut Vec<Self>) -> Plain;

    /// Reads from the first element of an array to behind its `]`.
    fn read_array(text: &[u8], mut at: usize, words: bool, out: &mut Vec<Self>) -> Result<usize, Stop> {
        let has_gaps = has_gaps(text, at);
        loop {
            let plain = if has_gaps {
                Self::read_plain::<1>(text, at, out)
            } else {
                Self::read_plain::<0>(text, at, out)
            };
            match plain {
                Plain::Closed(end) => return Ok(end),
                Plain::Open(element) => at = skip(text, element),
            }
            let (value, end) = Self::read(text, at, words)?;
            out.push(value);
            at = skip(text, end);
            match text.get(at) {
                Some(b',') => at += 1,
                Some(b']') => return Ok(at + 1),
                _ => return Err(Stop::syntax(at, "',' or ']'")),
            }
        }
    }
}

/// Where reading quickly has ended.
pub enum Plain {
    /// Behind the array's `]`.
    Closed(usize),
    /// Before an element, or spaces and an element.
    Open(usize),
}

/// Whether a space follows the first comma, if it is near.
#[inline]
fn has_gaps(text: &[u8], at: usize) -> bool {
    let comma = text.iter().skip(at).take(32).position(|&byte| byte == b',');
    comma.is_some_and(|comma| text.get(at + comma + 1) == Some(&b' '))
}

/// After so many elements of one digit, more are expected.
const SHORT_RUN: usize = 4;

/// Reads eight elements at a time while each is one digit: masks and expert ids.
#[inline]
fn read_single_digits<T: Copy, const GAP: usize>(
    text: &[u8],
    mut at: usize,
    out: &mut Vec<T>,
    element: impl Fn(u8) -> T,
) -> usize {
    let step = 2 + GAP;
    while let Some(group) = text.get(at..at + 8 * step) {
        let mut fits = true;
        for item in group.chunks_exact(step) {
            fits &= item[0].is_ascii_digit();
            fits &= item[1] == b',';
            fits &= GAP == 0 || item[1 + GAP] == b' ';
        }
        if !fits {
            break;
        }
        out.extend_from_slice(&std::array::from_fn::<T, 8, _>(|i| element(group[i * step] - b'0')));
        at += 8 * step;
    }
    at
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        #[allow(clippy::cast_lossless)] // the macro also narrows
        impl Element for $type {
            fn read(text: &[u8], at: usize, words: bool) -> Result<(Self, usize), Stop> {
                if words && let Some((value, end)) = literal(text, at) {
                    return Ok((Self::from(value), end));
                }
                let decimal = Decimal::read(text, at)?;
                if !decimal.whole {
                    return Err(Stop { at, why: Why::Fraction { end: decimal.end } });
                }
                let value = decimal.integer().and_then(|value| Self::try_from(value).ok());
                let value = value.ok_or(Stop { at, why: Why::Range { end: decimal.end } })?;
                Ok((value, decimal.end))
            }

            fn read_plain<const GAP: usize>(text: &[u8], mut at: usize, out: &mut Vec<Self>) -> Plain {
                let mut short = 0;
                loop {
                    let window = window(text, at);
                    let count = digits(window);
                    let zero_first = window & 0xFF == u64::from(b'0');
                    if count == 0 || count == 8 || (zero_first && count > 1) {
                        return Plain::Open(at);
                    }
                    match ((window >> (8 * count)) as u8, Self::try_from(spelled(window, count))) {
                        (b',', Ok(value)) => out.push(value),
                        (b']', Ok(value)) => {
                            out.push(value);
                            return Plain::Closed(at + count + 1);
                        }
                        _ => return Plain::Open(at),
                    }
                    if GAP == 1 && text.get(at + count + 1) != Some(&b' ') {
                        return Plain::Open(at + count + 1);
                    }
                    at += count + 1 + GAP;
                    short = if count == 1 { short + 1 } else { 0 };
                    if short == SHORT_RUN {
                        short = 0;
                        at = read_single_digits::<Self, GAP>(text, at, out, |digit| digit as Self);
                    }
                }
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Element for bool {
    fn read(text: &[u8], at: usize, words: bool) -> Result<(Self, usize), Stop> {
        if let Some(found) = literal(text, at) {
            return Ok(found);
        }
        if !words {
            return Err(unexpected(text, at, "true or false"));
        }
        match u8::read(text, at, false) {
            Ok((value @ 0..=1, end)) => Ok((value == 1, end)),
            Ok((_, end)) => Err(Stop { at, why: Why::Range { end } }),
            Err(stop) => Err(stop),
        }
    }

    fn read_plain<const GAP: usize>(_: &[u8], at: usize, _: &mut Vec<Self>) -> Plain {
        Plain::Open(at)
    }
}

macro_rules! floats {
    ($($type:ty),*) => {$(
        impl Element for $type {
            fn read(text: &[u8], at: usize, _words: bool) -> Result<(Self, usize), Stop> {
                read_float(text, at)
            }

            fn read_plain<const GAP: usize>(text: &[u8], mut at: usize, out: &mut Vec<Self>) -> Plain {
                loop {
                    let (value, end) = match text.get(at..at + 4) {
                        Some(b"0.0,") => (Self::ZERO, at + 3),
                        _ => match read_float(text, at) {
                            Ok(found) => found,
                            Err(_) => return Plain::Open(at),
                        },
                    };
                    match text.get(end) {
                        Some(b',') => out.push(value),
                        Some(b']') => {
                            out.push(value);
                            return Plain::Closed(end + 1);
                        }
                        _ => return Plain::Open(at),
                    }
                    if GAP == 1 && text.get(end + 1) != Some(&b' ') {
                        return Plain::Open(end + 1);
                    }
                    at = end + 1 + GAP;
                }
            }
        }
    )*};
}

floats!(f32, f64);
