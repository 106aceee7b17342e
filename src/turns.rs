//! Turns: the maximal runs of non-zero mask elements in each row, in one read of the mask.
//!
//! Masks are mostly long runs, so elements that go on as the one before them cost no more than to read
//! them; where a run begins or ends, they become bits.

#![allow(clippy::inline_always)] // only what is inlined is compiled for the caller's instruction set

use std::ops::Range;

use multiversion::multiversion;
use wide::u8x16;

use crate::{Error, Result, memory, offsets};

/// Elements that become one word of bits.
const BLOCK: usize = 64;

/// Elements that are passed over together if they are all alike.
const STRIDE: usize = 4 * BLOCK;

/// A mask's elements: any type of 1, 2, 4 or 8 bytes, of which only "zero?" is asked.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a> {
    /// The elements.
    pub bytes: &'a [u8],
    /// The bytes of an element.
    pub item: usize,
    /// Whether the elements are floats, of which −0 is a zero too.
    pub float: bool,
}

/// The turns of all rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    /// The elements of each turn, row after row.
    pub lengths: Vec<i64>,
    /// Row `i` has turns `offsets[i]` to `offsets[i + 1]`.
    pub offsets: Vec<i64>,
    /// The non-zero elements of each row.
    pub counts: Vec<i64>,
}

/// Finds the turns of rows `offsets[i]` to `offsets[i + 1]` of `mask`.
///
/// ```
/// use rollkit::turns::{Mask, turns};
///
/// let found = turns(Mask { bytes: &[1, 1, 0, 1, 0, 0, 1], item: 1, float: false }, &[0, 4, 6, 7])?;
/// assert_eq!(found.lengths, [2, 1, 1]);
/// assert_eq!(found.offsets, [0, 2, 2, 3]);
/// assert_eq!(found.counts, [3, 0, 1]);
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn turns(mask: Mask<'_>, offsets: &[i64]) -> Result<Turns> {
    let Mask { bytes, item, .. } = mask;
    if !matches!(item, 1 | 2 | 4 | 8) {
        return Err(Error::ItemSize { name: "mask", got: item });
    }
    offsets::check(offsets, bytes.len() / item)?;
    let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
    cut(&edges(mask, first..last)?, offsets)
}

/// Cuts the mask's runs where rows end.
fn cut(edges: &[i64], offsets: &[i64]) -> Result<Turns> {
    let rows = offsets.len() - 1;
    let (mut turns, mut counts) = (memory::filled("turns", 0, rows + 1)?, memory::filled("turns", 0, rows)?);
    let mut lengths = memory::with_room("turns", rows + edges.len() / 2)?;
    let mut edges = edges.iter().copied();
    let (mut edge, mut inside) = (edges.next().unwrap_or(i64::MAX), false);
    for ((row, count), turns) in offsets.windows(2).zip(&mut counts).zip(&mut turns[1..]) {
        let (mut at, end) = (row[0], row[1]);
        // An edge at the end of a row is the next row's.
        while edge < end {
            if inside && edge > at {
                memory::push("turns", &mut lengths, edge - at)?;
                *count += edge - at;
            }
            (at, inside) = (edge, !inside);
            edge = edges.next().unwrap_or(i64::MAX);
        }
        if inside && end > at {
            memory::push("turns", &mut lengths, end - at)?;
            *count += end - at;
        }
        *turns = lengths.len() as i64;
    }
    Ok(Turns { lengths, offsets: turns, counts })
}

/// Where the elements of a span turn from zero to not zero, or back; before them is zero.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn edges(mask: Mask<'_>, span: Range<usize>) -> Result<Vec<i64>> {
    let Mask { bytes, item, float } = mask;
    match (item, float) {
        (1, _) => scan(bytes.as_chunks().0, span, |b: [u8; 1]| b[0] != 0),
        (2, false) => scan(bytes.as_chunks().0, span, |b| u16::from_ne_bytes(b) != 0),
        (2, true) => scan(bytes.as_chunks().0, span, |b| u16::from_ne_bytes(b) << 1 != 0),
        (4, false) => scan(bytes.as_chunks().0, span, |b| u32::from_ne_bytes(b) != 0),
        (4, true) => scan(bytes.as_chunks().0, span, |b| u32::from_ne_bytes(b) << 1 != 0),
        (_, false) => scan(bytes.as_chunks().0, span, |b| u64::from_ne_bytes(b) != 0),
        (_, true) => scan(bytes.as_chunks().0, span, |b| u64::from_ne_bytes(b) << 1 != 0),
    }
}

#[inline(always)]
fn scan<T: Copy>(elements: &[T], span: Range<usize>, nonzero: impl Fn(T) -> bool) -> Result<Vec<i64>> {
    let mut edges = Vec::new();
    let mut inside = false;
    let mut at = span.start;
    let elements = elements.get(span).unwrap_or_default(); // another thread may write to offsets meanwhile
    let (strides, rest) = elements.as_chunks::<STRIDE>();
    for stride in strides {
        if !goes_on(stride, inside, &nonzero) {
            memory::make_room("turns", &mut edges, STRIDE)?;
            inside = changes(stride, inside, at, &nonzero, &mut edges);
        }
        at += STRIDE;
    }
    if let Some(&end) = rest.last() {
        let mut padded = [end; STRIDE];
        padded[..rest.len()].copy_from_slice(rest);
        memory::make_room("turns", &mut edges, STRIDE)?;
        changes(&padded, inside, at, &nonzero, &mut edges);
    }
    Ok(edges)
}

/// Whether elements are all as the one before them.
#[inline(always)]
fn goes_on<T: Copy>(elements: &[T; STRIDE], inside: bool, nonzero: impl Fn(T) -> bool) -> bool {
    if inside {
        elements.iter().fold(true, |all, &e| all & nonzero(e))
    } else {
        !elements.iter().fold(false, |any, &e| any | nonzero(e))
    }
}

/// Appends, to a vector with room for it, where elements, from number `at` on, turn; returns whether the last is not zero.
#[inline(always)]
fn changes<T: Copy>(
    elements: &[T; STRIDE],
    mut inside: bool,
    at: usize,
    nonzero: impl Fn(T) -> bool,
    edges: &mut Vec<i64>,
) -> bool {
    let mut words = [0; STRIDE / BLOCK];
    let mut left = 0u32;
    for (i, (word, block)) in words.iter_mut().zip(elements.as_chunks().0).enumerate() {
        let bits = bits(block, &nonzero);
        *word = bits ^ (bits << 1 | u64::from(inside));
        left |= u32::from(*word != 0) << i;
        inside = bits >> (BLOCK - 1) != 0;
    }
    // One loop over all words, whose end is all that a processor has to guess.
    while left != 0 {
        let i = left.trailing_zeros() as usize;
        edges.push((at + i * BLOCK + words[i].trailing_zeros() as usize) as i64);
        words[i] &= words[i] - 1;
        left &= !(u32::from(words[i] == 0) << i);
    }
    inside
}

/// Bit `i` is set where element `i` is not zero.
#[inline(always)]
fn bits<T: Copy>(elements: &[T; BLOCK], nonzero: impl Fn(T) -> bool) -> u64 {
    let mut ones = [0u8; BLOCK];
    for (one, &element) in ones.iter_mut().zip(elements) {
        *one = if nonzero(element) { u8::MAX } else { 0 };
    }
    let words = ones.as_chunks().0.iter().enumerate();
    // The compiler does not find the instruction that gathers bits: a third of the time.
    words.fold(0, |bits, (i, &ones)| bits | u64::from(u8x16::new(ones).to_bitmask()) << (16 * i))
}
