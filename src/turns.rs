//! Turns: the maximal runs of non-zero mask elements in each row, in one read of the mask.
//!
//! Masks are mostly long runs, so a block that goes on as the one before ended costs no more than to
//! read it; where a run begins or ends, a block becomes a bit mask.

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
    let Mask { bytes, item, float } = mask;
    match (item, float) {
        (1, _) => scan(bytes.as_chunks().0, offsets, |b: [u8; 1]| b[0] != 0),
        (2, false) => scan(bytes.as_chunks().0, offsets, |b| u16::from_ne_bytes(b) != 0),
        (2, true) => scan(bytes.as_chunks().0, offsets, |b| u16::from_ne_bytes(b) << 1 != 0),
        (4, false) => scan(bytes.as_chunks().0, offsets, |b| u32::from_ne_bytes(b) != 0),
        (4, true) => scan(bytes.as_chunks().0, offsets, |b| u32::from_ne_bytes(b) << 1 != 0),
        (8, false) => scan(bytes.as_chunks().0, offsets, |b| u64::from_ne_bytes(b) != 0),
        (8, true) => scan(bytes.as_chunks().0, offsets, |b| u64::from_ne_bytes(b) << 1 != 0),
        _ => Err(Error::ItemSize { name: "mask", got: item }),
    }
}

fn scan<T: Copy>(elements: &[T], offsets: &[i64], nonzero: impl Fn(T) -> bool) -> Result<Turns> {
    offsets::check(offsets, elements.len())?;
    let mut found = Turns { offsets: vec![0], ..Turns::default() };
    let mut blocks = Blocks { elements, nonzero, number: usize::MAX, bits: 0 };
    for pair in offsets.windows(2) {
        let count = blocks.row(pair[0] as usize, pair[1] as usize, &mut found.lengths);
        found.counts.push(count as i64);
        found.offsets.push(found.lengths.len() as i64);
    }
    Ok(found)
}

/// A mask in blocks of [`BLOCK`] elements. Rows that share a block share the bits made of it.
struct Blocks<'a, T, F> {
    elements: &'a [T],
    nonzero: F,
    /// The block of `bits`.
    number: usize,
    /// Bit `i` is set where element `i` of the block is not zero.
    bits: u64,
}

impl<T: Copy, F: Fn(T) -> bool> Blocks<'_, T, F> {
    /// Appends the lengths of the turns within elements `begin` to `end`; returns their sum.
    fn row(&mut self, begin: usize, end: usize, lengths: &mut Vec<i64>) -> usize {
        let (mut at, mut inside, mut turn, mut count) = (begin, false, 0, 0);
        while at < end {
            let within = at % BLOCK;
            if within == 0 {
                at += BLOCK * self.unchanged(&self.elements[at..end], inside);
            }
            let left = (BLOCK - within).min(end - at);
            if left == 0 {
                break;
            }
            let bits = self.load(at / BLOCK) >> within;
            let row = u64::MAX >> (BLOCK - left);
            let mut changes = (bits ^ (bits << 1 | u64::from(inside))) & row;
            while changes != 0 {
                let edge = at + changes.trailing_zeros() as usize;
                if inside {
                    lengths.push((edge - turn) as i64);
                    count += edge - turn;
                }
                turn = edge;
                inside = !inside;
                changes &= changes - 1;
            }
            at += left;
        }
        if inside {
            lengths.push((end - turn) as i64);
            count += end - turn;
        }
        count
    }

    /// How many whole blocks go on as the one before ended.
    #[inline]
    fn unchanged(&self, elements: &[T], inside: bool) -> usize {
        let nonzero = &self.nonzero;
        let blocks = elements.as_chunks::<BLOCK>().0;
        let other = if inside {
            blocks.iter().position(|block| !block.iter().fold(true, |all, &e| all & nonzero(e)))
        } else {
            blocks.iter().position(|block| block.iter().fold(false, |any, &e| any | nonzero(e)))
        };
        other.unwrap_or(blocks.len())
    }

    #[inline]
    fn load(&mut self, number: usize) -> u64 {
        if number != self.number {
            let rest = &self.elements[number * BLOCK..];
            self.number = number;
            self.bits = match rest.first_chunk::<BLOCK>() {
                Some(block) => self.bits_of(block),
                None => self.bits_of(rest),
            };
        }
        self.bits
    }

    #[inline]
    fn bits_of(&self, elements: &[T]) -> u64 {
        /// Moves the lowest bit of byte `i` to bit `56 + i`.
        const GATHER: u64 = 0x0102_0408_1020_4080;
        let mut ones = [0u8; BLOCK];
        for (one, &element) in ones.iter_mut().zip(elements) {
            *one = u8::from((self.nonzero)(element));
        }
        let words = ones.as_chunks().0.iter().enumerate();
        words.fold(0, |bits, (i, &word)| {
            bits | (u64::from_le_bytes(word).wrapping_mul(GATHER) >> 56) << (8 * i)
        })
    }
}
