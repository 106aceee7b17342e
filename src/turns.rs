//! Turns: the maximal runs of non-zero mask elements in each row, in one read of the mask.
//!
//! Masks are mostly long runs, so a block that goes on as the one before ended costs no more than to
//! read it; where a run begins or ends, a block becomes a bit mask.

use multiversion::multiversion;

use crate::{Error, Result, offsets};

/// Elements that are looked at together.
const BLOCK: usize = 64;

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
    Ok(cut(&edges(mask, first, last), offsets))
}

/// Cuts the mask's runs where rows end.
fn cut(edges: &[i64], offsets: &[i64]) -> Turns {
    let rows = offsets.len() - 1;
    let (mut turns, mut counts) = (vec![0; rows + 1], vec![0; rows]);
    let mut lengths = Vec::with_capacity(rows + edges.len() / 2);
    let mut edges = edges.iter().copied();
    let (mut edge, mut inside) = (edges.next().unwrap_or(i64::MAX), false);
    for ((row, count), turns) in offsets.windows(2).zip(&mut counts).zip(&mut turns[1..]) {
        let (mut at, end) = (row[0], row[1]);
        // An edge at the end of a row is the next row's.
        while edge < end {
            if inside && edge > at {
                lengths.push(edge - at);
                *count += edge - at;
            }
            (at, inside) = (edge, !inside);
            edge = edges.next().unwrap_or(i64::MAX);
        }
        if inside && end > at {
            lengths.push(end - at);
            *count += end - at;
        }
        *turns = lengths.len() as i64;
    }
    Turns { lengths, offsets: turns, counts }
}

/// Where elements `first` to `last` turn from zero to not zero, or back; before them is zero.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn edges(mask: Mask<'_>, first: usize, last: usize) -> Vec<i64> {
    let Mask { bytes, item, float } = mask;
    match (item, float) {
        (1, _) => scan(bytes.as_chunks().0, first, last, |b: [u8; 1]| b[0] != 0),
        (2, false) => scan(bytes.as_chunks().0, first, last, |b| u16::from_ne_bytes(b) != 0),
        (2, true) => scan(bytes.as_chunks().0, first, last, |b| u16::from_ne_bytes(b) << 1 != 0),
        (4, false) => scan(bytes.as_chunks().0, first, last, |b| u32::from_ne_bytes(b) != 0),
        (4, true) => scan(bytes.as_chunks().0, first, last, |b| u32::from_ne_bytes(b) << 1 != 0),
        (_, false) => scan(bytes.as_chunks().0, first, last, |b| u64::from_ne_bytes(b) != 0),
        (_, true) => scan(bytes.as_chunks().0, first, last, |b| u64::from_ne_bytes(b) << 1 != 0),
    }
}

#[inline]
fn scan<T: Copy>(elements: &[T], first: usize, last: usize, nonzero: impl Fn(T) -> bool) -> Vec<i64> {
    let mut edges = Vec::new();
    let mut inside = false;
    let (blocks, rest) = elements[first..last].as_chunks::<BLOCK>();
    let mut number = 0;
    while number < blocks.len() {
        number += unchanged(&blocks[number..], inside, &nonzero);
        if let Some(block) = blocks.get(number) {
            inside = changes(bits(block, &nonzero), u64::MAX, inside, first + number * BLOCK, &mut edges);
            number += 1;
        }
    }
    let present = (1 << rest.len()) - 1;
    changes(bits(rest, &nonzero), present, inside, first + number * BLOCK, &mut edges);
    edges
}

/// How many blocks go on as the one before ended. A long way is gone by four blocks at a time.
#[inline]
fn unchanged<T: Copy>(blocks: &[[T; BLOCK]], inside: bool, nonzero: impl Fn(T) -> bool) -> usize {
    let same = |block: &[T]| {
        if inside {
            block.iter().fold(true, |all, &e| all & nonzero(e))
        } else {
            !block.iter().fold(false, |any, &e| any | nonzero(e))
        }
    };
    let one_by_one = |blocks: &[[T; BLOCK]]| blocks.iter().take_while(|block| same(*block)).count();
    let near = one_by_one(&blocks[..blocks.len().min(4)]);
    if near < 4 {
        return near;
    }
    let fours = blocks.as_chunks::<4>().0.iter().take_while(|four| same(four.as_flattened())).count();
    4 * fours + one_by_one(&blocks[4 * fours..])
}

/// Appends where `bits`, of elements from `at` on, change; returns whether the last is set.
#[inline]
fn changes(bits: u64, present: u64, inside: bool, at: usize, edges: &mut Vec<i64>) -> bool {
    let mut changes = (bits ^ (bits << 1 | u64::from(inside))) & present;
    while changes != 0 {
        edges.push((at + changes.trailing_zeros() as usize) as i64);
        changes &= changes - 1;
    }
    bits >> (BLOCK - 1) != 0
}

/// Bit `i` is set where element `i` is not zero; at most [`BLOCK`] of them.
#[inline]
fn bits<T: Copy>(elements: &[T], nonzero: impl Fn(T) -> bool) -> u64 {
    /// Moves the lowest bit of byte `i` to bit `56 + i`.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut ones = [0u8; BLOCK];
    for (one, &element) in ones.iter_mut().zip(elements) {
        *one = u8::from(nonzero(element));
    }
    let words = ones.as_chunks().0.iter().enumerate();
    words.fold(0, |bits, (i, &word)| bits | (u64::from_le_bytes(word).wrapping_mul(GATHER) >> 56) << (8 * i))
}
