//! exp for weights: argument ≤ 0, without branches or tables, so that loops over it become vectors.

#![allow(clippy::inline_always)] // only what is inlined is compiled for the caller's instruction set

use std::f64::consts::{LN_2, LOG2_E};

/// Adding 1.5 · 2⁵² rounds to an integer and leaves it in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// e^x for x ≤ 0, within a part of 1e-14 + 2e-16 |x| of its value; e^-700 below that and for NaN.
#[inline(always)]
#[must_use]
pub fn exp(x: f64) -> f64 {
    let x = if x > -700.0 { x } else { -700.0 };
    let shifted = x * LOG2_E + ROUND;
    let r = x - (shifted - ROUND) * LN_2; // |r| ≤ ln 2 / 2
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    // Taylor's series to the 11th power, whose rest is below 7e-15, by halves that do not wait for each other.
    let s = r * r;
    let odd = r * (1.0 + s * (INV[3] + s * (INV[5] + s * (INV[7] + s * (INV[9] + s * INV[11])))));
    let even = 1.0 + s * (0.5 + s * (INV[4] + s * (INV[6] + s * (INV[8] + s * INV[10]))));
    (odd + even) * power
}

/// 1 / n!
const INV: [f64; 12] = {
    let mut inv = [1.0; 12];
    let mut n = 1;
    while n < 12 {
        inv[n] = inv[n - 1] / n as f64;
        n += 1;
    }
    inv
};

/// e^x for x ≤ 0, within a part in 10 000 of its value while x > -30; at most 1e-12 below that.
#[inline(always)]
#[must_use]
pub fn exp_bound(x: f32) -> f32 {
    let x = if x > -30.0 { x } else { -30.0 };
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let r = x - (shifted - 12_582_912.0) * std::f32::consts::LN_2;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    (1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0))))) * power
}
