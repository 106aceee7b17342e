//! A keyed permutation of 0 … n - 1 in no memory: each number's image by itself, and back.
//!
//! ```text
//! x = left · b + right           left  += F(right, key 0)  mod a
//! 0 ≤ left < a, 0 ≤ right < b    right += F(left,  key 1)  mod b      … and so on by turns
//! ```
//!
//! A generalised Feistel network over a · b ≥ n with cycle walking: J. Black, P. Rogaway, "Ciphers with arbitrary
//! finite domains", CT-RSA 2002. As a and b are about √n, a walk goes past n once in √n times. As b is even,
//! odd permutations come too. [`ROUNDS`] are those of R. Mitchell, D. Stokes, E. Frank, G. Holmes,
//! "Bandwidth-optimal random shuffling for GPUs", ACM Trans. Parallel Comput. 9, 2022: with fewer, the
//! permutations of few numbers are not equally likely (with 24, those of six are within 4e-4 in total variation).
//! Keys are `SplitMix64`'s (G. Steele, D. Lea, C. Flood, OOPSLA 2014).
//!
//! What is here is a promise: a run that is resumed depends on it. Never change it.

use crate::out::Out;
use crate::{Error, Result};

/// How often one half is added to.
pub const ROUNDS: usize = 24;

/// Numbers that go through the rounds together: the next one's need not wait for this one's.
const LANES: usize = 8;

/// What `SplitMix64` counts by: 2⁶⁴ over the golden ratio.
pub(crate) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A permutation of 0 … n - 1.
///
/// ```
/// use rollkit::order::Permutation;
///
/// let order = Permutation::new(10, 7, 0);
/// let images: Vec<u64> = (0..10).filter_map(|number| order.image(number)).collect();
/// assert_eq!(images, [7, 8, 6, 4, 9, 5, 1, 0, 3, 2]);
/// assert_eq!((order.origin(7), order.image(10)), (Some(0), None));
/// ```
#[derive(Debug, Clone)]
pub struct Permutation {
    count: u64,
    /// Values of the left half, and of the right one.
    sides: [u64; 2],
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// That of `count` numbers, at most 2⁶³ - 1, which `seed` and `epoch` choose.
    #[must_use]
    pub fn new(count: u64, seed: u64, epoch: u64) -> Self {
        let count = count.min(i64::MAX as u64);
        let root = count.isqrt();
        let left = if root * root < count { root + 1 } else { root }.max(1);
        let right = count.div_ceil(left).next_multiple_of(2).max(2);
        let mut state = mixed(mixed(seed.wrapping_add(STEP)) ^ epoch.wrapping_mul(STEP));
        let keys = std::array::from_fn(|_| {
            state = state.wrapping_add(STEP);
            mixed(state)
        });
        Self { count, sides: [left, right], keys }
    }

    /// Where a number goes; `None` unless it is below n.
    #[must_use]
    pub fn image(&self, number: u64) -> Option<u64> {
        (number < self.count).then(|| self.walked([number], Self::forth)[0])
    }

    /// The number that goes to `image`; `None` unless that is below n.
    #[must_use]
    pub fn origin(&self, image: u64) -> Option<u64> {
        (image < self.count).then(|| self.walked([image], Self::back)[0])
    }

    /// Writes the image of each number, or its origin where that is wanted.
    pub fn apply<O: Out<i64>>(&self, numbers: &[i64], inverse: bool, out: &mut [O]) -> Result<()> {
        if numbers.len() != out.len() {
            return Err(Error::RowCount { name: "out", got: out.len(), wanted: numbers.len() });
        }
        if inverse { self.write(numbers, Self::back, out) } else { self.write(numbers, Self::forth, out) }
    }

    fn write<O: Out<i64>>(
        &self,
        numbers: &[i64],
        step: impl Fn(&Self, &mut [u64; LANES]) + Copy,
        out: &mut [O],
    ) -> Result<()> {
        for (block, (numbers, out)) in numbers.chunks(LANES).zip(out.chunks_mut(LANES)).enumerate() {
            // Read once: what another thread writes to meanwhile may be no number of these any more, and lead nowhere.
            let mut lanes = [0; LANES];
            for (lane, &number) in lanes.iter_mut().zip(numbers) {
                *lane = number as u64;
            }
            if let Some(at) = lanes.iter().position(|&number| number >= self.count) {
                let (index, got) = (LANES * block + at, lanes[at] as i64);
                return Err(Error::OutOfRange { name: "numbers", index, got, count: self.count });
            }
            for (slot, found) in out.iter_mut().zip(self.walked(lanes, step)) {
                slot.set(found as i64);
            }
        }
        Ok(())
    }

    /// Steps until numbers are below n again: they are so themselves, and a permutation goes in cycles.
    #[inline]
    fn walked<const N: usize>(&self, mut numbers: [u64; N], step: impl Fn(&Self, &mut [u64; N])) -> [u64; N] {
        let mut found = numbers;
        step(self, &mut found);
        while found.iter().any(|&number| number >= self.count) {
            numbers = found;
            step(self, &mut found);
            for (found, &before) in found.iter_mut().zip(&numbers) {
                if before < self.count {
                    *found = before;
                }
            }
        }
        found
    }

    #[inline]
    fn forth<const N: usize>(&self, numbers: &mut [u64; N]) {
        let [a, b] = self.sides;
        let (mut left, mut right) = (numbers.map(|number| number / b), numbers.map(|number| number % b));
        for keys in self.keys.chunks_exact(2) {
            for (left, &right) in left.iter_mut().zip(&right) {
                *left = added(*left, below(right, keys[0], a), a);
            }
            for (right, &left) in right.iter_mut().zip(&left) {
                *right = added(*right, below(left, keys[1], b), b);
            }
        }
        *numbers = std::array::from_fn(|i| left[i] * b + right[i]);
    }

    #[inline]
    fn back<const N: usize>(&self, numbers: &mut [u64; N]) {
        let [a, b] = self.sides;
        let (mut left, mut right) = (numbers.map(|number| number / b), numbers.map(|number| number % b));
        for keys in self.keys.chunks_exact(2).rev() {
            for (right, &left) in right.iter_mut().zip(&left) {
                *right = added(*right, b - below(left, keys[1], b), b);
            }
            for (left, &right) in left.iter_mut().zip(&right) {
                *left = added(*left, a - below(right, keys[0], a), a);
            }
        }
        *numbers = std::array::from_fn(|i| left[i] * b + right[i]);
    }
}

/// `a + b` modulo `size`, which neither is above.
#[inline]
fn added(a: u64, b: u64, size: u64) -> u64 {
    let sum = a + b;
    if sum < size { sum } else { sum - size }
}

/// A number below `size` that a half and a key decide: the high bits of a hash are scaled, without a division.
#[inline]
fn below(half: u64, key: u64, size: u64) -> u64 {
    let h = (half ^ key).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let h = (h ^ (h >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((u128::from(h) * u128::from(size)) >> 64) as u64
}

/// The finaliser of `SplitMix64`.
pub(crate) fn mixed(mut h: u64) -> u64 {
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}
