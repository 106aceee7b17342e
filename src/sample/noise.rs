//! Noise keyed by (seed, position, global token id): the same bits on every backend.
//!
//! Two chains of 32-bit finalisers make 64 bits of key per row; two more finalisers, one after each half
//! of the key, make the bits of a token. 32-bit multiplications wrap alike in Rust, NumPy, JAX (`uint32`)
//! and torch (`int64` with a mask), which is why nothing wider is used. The finaliser is that of
//! `MurmurHash3` (A. Appleby, 2011).

#![allow(clippy::inline_always)] // only what is inlined is compiled for the caller's instruction set

/// The bits of a uniform. With 24, `n + ½` would need 25 bits and round to 1 in `f32`.
pub const BITS: u32 = 23;

/// Spacing of uniforms.
pub const STEP: f32 = 1.0 / (1 << BITS) as f32;

/// Where the two chains start, and what a token id is multiplied by: digits of π, e and the golden ratio.
const STARTS: [u32; 2] = [0x243f_6a88, 0xb7e1_5163];
const SPREAD: u32 = 0x9e37_79b9;

/// The finaliser: each input bit reaches every output bit.
#[inline(always)]
#[must_use]
pub fn finalise(mut h: u32) -> u32 {
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// The key of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key([u32; 2]);

impl Key {
    /// That of a seed's 64 bits and a position.
    #[must_use]
    pub fn new(seed: u64, position: u32) -> Self {
        let words = [seed as u32, (seed >> 32) as u32, position];
        Self(STARTS.map(|start| words.iter().fold(start, |h, word| finalise(h ^ word))))
    }

    /// The 23 bits of a token.
    #[inline(always)]
    #[must_use]
    pub fn bits(self, token: u32) -> u32 {
        let Self([first, second]) = self;
        let h = finalise(token.wrapping_mul(SPREAD) ^ first);
        finalise(h ^ second) >> (u32::BITS - BITS)
    }
}

/// The uniform of 23 bits: (n + ½) / 2²³, exact in `f32`, from 2⁻²⁴ to 1 − 2⁻²⁴.
///
/// ```
/// use rollkit::sample::noise::{BITS, uniform};
///
/// assert!(uniform(0) > 0.0);
/// assert!(uniform((1 << BITS) - 1) < 1.0);
/// ```
#[inline(always)]
#[must_use]
pub fn uniform(bits: u32) -> f32 {
    (bits as f32 + 0.5) * STEP
}
