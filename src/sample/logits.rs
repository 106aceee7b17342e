//! Logits of any width to one row of `f32`: gather, guidance, maximum, in one pass.

#![allow(clippy::inline_always)] // only what is inlined is compiled for the caller's instruction set

use std::ops::Range;

/// How a logit is stored.
pub trait Logit {
    /// What is stored.
    type Bits: Copy;

    /// Its value, exact.
    fn value(bits: Self::Bits) -> f32;
}

/// As it is.
#[derive(Debug)]
pub struct F32;

impl Logit for F32 {
    type Bits = f32;

    #[inline(always)]
    fn value(bits: f32) -> f32 {
        bits
    }
}

/// bfloat16: the upper half of an `f32`.
#[derive(Debug)]
pub struct Bf16;

impl Logit for Bf16 {
    type Bits = u16;

    #[inline(always)]
    fn value(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }
}

/// float16.
#[derive(Debug)]
pub struct F16;

impl Logit for F16 {
    type Bits = u16;

    #[inline(always)]
    fn value(bits: u16) -> f32 {
        let bits = u32::from(bits);
        let sign = (bits & 0x8000) << 16;
        let magnitude = (bits & 0x7fff) << 13;
        // The exponent's bias differs by 112; infinities and NaN keep all ones.
        let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
        let whole = if magnitude >= 0x0f80_0000 { magnitude | 0x7f80_0000 } else { finite };
        f32::from_bits(sign | whole)
    }
}

/// The columns of a row that are allowed.
#[derive(Debug, Clone)]
pub enum Columns<'a> {
    /// Neighbours.
    Range(Range<usize>),
    /// Any, rising.
    List(&'a [i32]),
}

/// What a row looks like once gathered.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// The largest logit that is no NaN; -∞ if there is none.
    pub most: f32,
    /// Whether any is NaN.
    pub nan: bool,
}

/// Logits worked on at a time: they stay in the nearest cache.
const CHUNK: usize = 256;
const LANES: usize = 16;

/// u + s (c − u), the product and the sum in `f64` and rounded once.
///
/// The product of two `f32` is exact in `f64`, so that a compiler that fuses it with the sum gets the
/// same bits as one that does not. A token that either branch masks with -∞ stays masked.
#[inline(always)]
#[must_use]
pub fn guide(cond: f32, uncond: f32, scale: f32) -> f32 {
    let step = f64::from(scale) * f64::from(cond - uncond);
    let guided = (f64::from(uncond) + step) as f32;
    if cond == f32::NEG_INFINITY || uncond == f32::NEG_INFINITY { f32::NEG_INFINITY } else { guided }
}

/// Writes the allowed logits of a row, guided unless `uncond` is `None`, and tells their extent.
#[inline(always)]
pub fn gather<T: Logit>(
    cond: &[T::Bits],
    uncond: Option<&[T::Bits]>,
    scale: f32,
    columns: &Columns<'_>,
    z: &mut [f32],
) -> Extent {
    match (columns, uncond) {
        (Columns::Range(range), None) => {
            let cond = &cond[range.clone()];
            by_chunk(z, |chunk, at| {
                for (z, c) in chunk.iter_mut().zip(&cond[at..]) {
                    *z = T::value(*c);
                }
            })
        }
        (Columns::Range(range), Some(uncond)) => {
            let (cond, uncond) = (&cond[range.clone()], &uncond[range.clone()]);
            by_chunk(z, |chunk, at| {
                for ((z, c), u) in chunk.iter_mut().zip(&cond[at..]).zip(&uncond[at..]) {
                    *z = guide(T::value(*c), T::value(*u), scale);
                }
            })
        }
        (Columns::List(ids), None) => by_chunk(z, |chunk, at| {
            for (z, &id) in chunk.iter_mut().zip(&ids[at..]) {
                *z = value::<T>(cond, id);
            }
        }),
        (Columns::List(ids), Some(uncond)) => by_chunk(z, |chunk, at| {
            for (z, &id) in chunk.iter_mut().zip(&ids[at..]) {
                *z = guide(value::<T>(cond, id), value::<T>(uncond, id), scale);
            }
        }),
    }
}

/// The logit of a column. Another thread may write to ids after their check: NaN is no token.
#[inline(always)]
fn value<T: Logit>(logits: &[T::Bits], column: i32) -> f32 {
    logits.get(column as usize).map_or(f32::NAN, |bits| T::value(*bits))
}

#[inline(always)]
fn by_chunk(z: &mut [f32], mut fill: impl FnMut(&mut [f32], usize)) -> Extent {
    let mut most = [f32::NEG_INFINITY; LANES];
    let mut nan = [false; LANES];
    for (index, chunk) in z.chunks_mut(CHUNK).enumerate() {
        fill(chunk, index * CHUNK);
        for lanes in chunk.chunks(LANES) {
            for ((z, most), nan) in lanes.iter().zip(&mut most).zip(&mut nan) {
                *most = if *z > *most { *z } else { *most };
                *nan |= z.is_nan();
            }
        }
    }
    let most = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    Extent { most, nan: nan.contains(&true) }
}
