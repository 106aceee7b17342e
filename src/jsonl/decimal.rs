//! Decimals as they are written, read eight digits at a time, and rounded once to a float.
//!
//! The quick ways are exact or say that they cannot tell; `fast_float2` then reads the text again.

use super::scan::{Stop, Why, unexpected};

/// Eight bytes from `at`, the first one lowest; zeros beyond the end.
#[inline]
pub fn window(text: &[u8], at: usize) -> u64 {
    match text.get(at..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => last_window(text, at),
    }
}

#[cold]
fn last_window(text: &[u8], at: usize) -> u64 {
    let rest = text.get(at..).unwrap_or_default();
    rest.iter().rev().fold(0, |window, &byte| window << 8 | u64::from(byte))
}

/// How many of the lowest bytes are digits before the first that is not.
#[inline]
pub fn digits(window: u64) -> usize {
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    let values = window ^ 0x3030_3030_3030_3030;
    // Carries out of a byte that is no digit only disturb bytes after it.
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & HIGH_BITS;
    others.trailing_zeros() as usize / 8
}

/// The number that the lowest `count` bytes spell; `count` is 1 to 8.
#[inline]
pub fn spelled(window: u64, count: usize) -> u64 {
    let values = (window ^ 0x3030_3030_3030_3030) << (64 - 8 * count);
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8);
    let low = (pairs & 0x0000_00FF_0000_00FF).wrapping_mul(0x000F_4240_0000_0064);
    let high = (pairs >> 16 & 0x0000_00FF_0000_00FF).wrapping_mul(0x0000_2710_0000_0001);
    low.wrapping_add(high) >> 32
}

/// 10^i for the digits of one window.
const SCALE: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// A number as it is written: `±mantissa · 10^exponent`.
pub struct Decimal {
    negative: bool,
    mantissa: u64,
    /// Whether `mantissa` holds every digit.
    complete: bool,
    exponent: i64,
    /// Whether it has neither a point nor an exponent.
    pub whole: bool,
    pub end: usize,
}

impl Decimal {
    /// Reads by JSON's grammar.
    #[inline]
    pub fn read(text: &[u8], at: usize) -> Result<Self, Stop> {
        // Two calls, not a sum: the processor goes on at a guessed place instead of waiting for the sign.
        if text.get(at) == Some(&b'-') {
            Self::read_unsigned(text, at + 1, true)
        } else {
            Self::read_unsigned(text, at, false)
        }
    }

    #[inline]
    fn read_unsigned(text: &[u8], first: usize, negative: bool) -> Result<Self, Stop> {
        let mut found = Self { negative, mantissa: 0, complete: true, exponent: 0, whole: true, end: first };
        match text.get(first..first + 2) {
            // As most log-probabilities begin.
            Some([digit @ b'0'..=b'9', b'.']) => {
                found.mantissa = u64::from(digit - b'0');
                found.end += 1;
            }
            _ => found.take_whole(text)?,
        }
        if text.get(found.end) == Some(&b'.') {
            found.whole = false;
            found.end += 1;
            let point = found.end;
            found.take_digits(text);
            if found.end == point {
                return Err(Stop::syntax(point, "a digit"));
            }
            found.exponent = point as i64 - found.end as i64;
        }
        if matches!(text.get(found.end), Some(b'e' | b'E')) {
            found.take_exponent(text)?;
        }
        Ok(found)
    }

    fn take_whole(&mut self, text: &[u8]) -> Result<(), Stop> {
        let first = self.end;
        self.take_digits(text);
        if self.end == first {
            return Err(if self.negative {
                Stop::syntax(first, "a digit")
            } else {
                unexpected(text, first, "a number")
            });
        }
        if text[first] == b'0' && self.end > first + 1 {
            return Err(Stop::syntax(first + 1, "no digit after a leading zero"));
        }
        Ok(())
    }

    #[inline]
    fn take_digits(&mut self, text: &[u8]) {
        loop {
            let window = window(text, self.end);
            let count = digits(window);
            if count == 0 {
                return;
            }
            // Nineteen digits always fit; whether more do is seen here.
            let scaled = self.mantissa.checked_mul(SCALE[count]);
            let sum = scaled.and_then(|scaled| scaled.checked_add(spelled(window, count)));
            self.complete &= sum.is_some();
            self.mantissa = sum.unwrap_or(0);
            if count < 8 {
                self.end += count;
                return;
            }
            self.end += 8;
        }
    }

    #[cold]
    fn take_exponent(&mut self, text: &[u8]) -> Result<(), Stop> {
        self.whole = false;
        let sign = text.get(self.end + 1).filter(|byte| matches!(byte, b'+' | b'-'));
        let first = self.end + 1 + usize::from(sign.is_some());
        let digits = text[first.min(text.len())..].iter().take_while(|byte| byte.is_ascii_digit());
        self.end = first;
        let mut exponent = 0i64;
        for digit in digits {
            // Any exponent this large is as good as another.
            exponent = (exponent * 10 + i64::from(digit - b'0')).min(1 << 40);
            self.end += 1;
        }
        if self.end == first {
            return Err(Stop::syntax(first, "a digit"));
        }
        self.exponent += if sign == Some(&b'-') { -exponent } else { exponent };
        Ok(())
    }

    /// Its value, where all its digits fit.
    pub fn integer(&self) -> Option<i128> {
        let value = i128::from(self.mantissa);
        self.complete.then_some(if self.negative { -value } else { value })
    }
}

/// A float type: how decimals become it.
pub trait Float: Copy + fast_float2::FastFloat {
    const ZERO: Self;
    /// The decimal rounded to nearest; `None` where this way cannot tell.
    fn nearest(decimal: &Decimal) -> Option<Self>;
    fn finite(self) -> bool;
}

/// Powers of ten, each the nearest f64; up to 10^22 they are exact.
const TENS: [f64; 46] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25, 1e26, 1e27, 1e28, 1e29, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35,
    1e36, 1e37, 1e38, 1e39, 1e40, 1e41, 1e42, 1e43, 1e44, 1e45,
];

/// `mantissa · 10^exponent` as f64, rounded up to three times, and whether only once.
#[inline]
fn scaled(decimal: &Decimal) -> Option<(f64, bool)> {
    let power = usize::try_from(decimal.exponent.unsigned_abs()).ok()?;
    let ten = TENS.get(power)?;
    let mantissa = decimal.mantissa as f64;
    let value = if decimal.exponent < 0 { mantissa / ten } else { mantissa * ten };
    let once = power == 0 || (decimal.mantissa <= 1 << 53 && power <= 22);
    Some((if decimal.negative { -value } else { value }, once)).filter(|_| decimal.complete)
}

impl Float for f64 {
    const ZERO: Self = 0.0;

    #[inline]
    fn nearest(decimal: &Decimal) -> Option<Self> {
        scaled(decimal).and_then(|(value, once)| once.then_some(value))
    }

    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Float for f32 {
    const ZERO: Self = 0.0;

    #[inline]
    fn nearest(decimal: &Decimal) -> Option<Self> {
        const DROPPED: u64 = (1 << 29) - 1;
        let (value, _) = scaled(decimal)?;
        // Three roundings move the f64 by at most three of its units, so it rounds to the same f32 as
        // the decimal does unless the midpoint of two f32 is that near.
        let from_tie = (value.to_bits() & DROPPED).abs_diff(1 << 28);
        let normal = (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&value.abs());
        ((normal && from_tie > 4) || decimal.mantissa == 0).then_some(value as f32)
    }

    fn finite(self) -> bool {
        self.is_finite()
    }
}

#[inline]
pub fn read_float<F: Float>(text: &[u8], at: usize) -> Result<(F, usize), Stop> {
    let decimal = Decimal::read(text, at)?;
    match F::nearest(&decimal) {
        Some(value) => Ok((value, decimal.end)),
        None => read_again(text, at, decimal.end),
    }
}

#[cold]
fn read_again<F: Float>(text: &[u8], at: usize, end: usize) -> Result<(F, usize), Stop> {
    let value = fast_float2::parse::<F, _>(&text[at..end]).ok().filter(|value| value.finite());
    value.map(|value| (value, end)).ok_or(Stop { at, why: Why::Range { end } })
}
