//! Top-k, top-p and min-p as one threshold per row: a histogram, then selection within one bin. No sort.
//!
//! A filter keeps every value at or above a threshold, ties included, so that its result does not depend
//! on the order of tokens. Top-k keeps v iff fewer than k values are larger; top-p keeps v iff the mass of
//! larger values, in `f64`, is below p of all; min-p keeps z ≥ `z_max` + T ln m.

#![allow(clippy::inline_always)] // only what is inlined is compiled for the caller's instruction set
#![allow(clippy::needless_bitwise_bool)] // a branch would keep a loop from becoming vectors

use super::exp::exp;
use super::{Filters, Order};
use crate::{Result, memory};

const BINS: usize = 1024;
const CHUNK: usize = 128;

/// Bins per unit of (`z_max` − z) / T: 1 024 bins reach to a weight of e⁻³², and the last takes the rest.
const PER_UNIT: f64 = 32.0;

/// Values at or above this are not masked.
pub const FINITE: f32 = f32::MIN;

/// A row's logits, with what weights are relative to.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The allowed logits.
    pub z: &'a [f32],
    /// Their maximum, finite.
    pub most: f32,
    /// One over the temperature.
    pub inverse: f64,
}

impl Row<'_> {
    /// The weight of a logit, 1 for the maximum.
    #[inline(always)]
    #[must_use]
    pub fn weight(&self, z: f32) -> f64 {
        exp((f64::from(z) - f64::from(self.most)) * self.inverse)
    }

    /// The mass of the values at or above `floor`.
    #[inline(always)]
    #[must_use]
    pub fn mass(&self, floor: f32) -> f64 {
        let mut sums = [0.0; 16];
        for lanes in self.z.chunks(16) {
            for (sum, &z) in sums.iter_mut().zip(lanes) {
                let weight = self.weight(z);
                *sum += if z >= floor { weight } else { 0.0 };
            }
        }
        sums.iter().sum()
    }
}

/// Memory for the selection, used again from row to row.
#[derive(Debug)]
pub struct Scratch {
    mass: Box<[[f64; BINS]; 2]>,
    count: Box<[[u32; BINS]; 2]>,
    members: Vec<f32>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { mass: Box::new([[0.0; BINS]; 2]), count: Box::new([[0; BINS]; 2]), members: Vec::new() }
    }
}

impl Scratch {
    pub(super) fn with_room(columns: usize) -> Result<Self> {
        Ok(Self { members: memory::with_room("columns", columns)?, ..Self::default() })
    }
}

/// The threshold that keeps what the filters keep.
#[inline(always)]
pub fn floor(row: &Row<'_>, filters: &Filters, order: Order, scratch: &mut Scratch) -> f32 {
    let min_p = min_p_floor(row, filters);
    let top_k = filters.top_k > 0 && filters.top_k < row.z.len();
    let top_p = filters.top_p < 1.0;
    if !top_k && !top_p {
        return min_p;
    }
    let bins = Bins::fill(row, scratch, top_k, top_p);
    let kth = if top_k { bins.kth(row, filters.top_k, &mut scratch.members) } else { FINITE };
    let mut floor = kth.max(min_p);
    if top_p {
        let counted = match order {
            Order::Joint => FINITE,
            Order::Vllm => floor,
            Order::Hf | Order::Acestep => kth,
        };
        let target = filters.top_p * bins.mass_from(row, counted, &mut scratch.members);
        floor = floor.max(bins.nucleus(row, target, counted, &mut scratch.members));
    }
    floor
}

/// The smallest `f32` at or above `z_max` + T ln m.
fn min_p_floor(row: &Row<'_>, filters: &Filters) -> f32 {
    if filters.min_p <= 0.0 {
        return FINITE;
    }
    let exact = f64::from(row.most) + filters.min_p.ln() / row.inverse;
    let near = exact as f32;
    let above = if f64::from(near) < exact { near.next_up() } else { near };
    above.clamp(FINITE, row.most)
}

/// A histogram of a row: how many values, of what mass, are how far below the maximum.
struct Bins {
    most: f32,
    scale: f32,
    mass: [f64; BINS],
    count: [u32; BINS],
}

impl Bins {
    /// The bin of a logit. Every step is monotonic, so that bins are in the order of values.
    #[inline(always)]
    fn of(z: f32, most: f32, scale: f32) -> u32 {
        let depth = (most - z) * scale;
        let depth = if depth < (BINS - 1) as f32 { depth } else { (BINS - 1) as f32 };
        (depth + 8_388_608.0).to_bits() & (BINS as u32 - 1) // adding 2²³ leaves the integer in the low bits
    }

    #[inline(always)]
    fn fill(row: &Row<'_>, scratch: &mut Scratch, counted: bool, weighed: bool) -> Self {
        let scale = (PER_UNIT * row.inverse).min(1e30) as f32; // finite: 0 × ∞ is NaN
        let mut weights = [0.0f64; CHUNK];
        let mut bins = [0u32; CHUNK];
        if weighed {
            scratch.mass.fill([0.0; BINS]);
        }
        if counted {
            scratch.count.fill([0; BINS]);
        }
        for chunk in row.z.chunks(CHUNK) {
            for (&z, bin) in chunk.iter().zip(&mut bins) {
                *bin = Self::of(z, row.most, scale);
            }
            // Two tables, or neighbours of one bin would wait for each other's sums.
            if weighed {
                for (&z, weight) in chunk.iter().zip(&mut weights) {
                    *weight = row.weight(z);
                }
                for (index, (&weight, &bin)) in weights.iter().zip(&bins).take(chunk.len()).enumerate() {
                    scratch.mass[index & 1][bin as usize & (BINS - 1)] += weight;
                }
            }
            if counted {
                for (index, &bin) in bins.iter().take(chunk.len()).enumerate() {
                    scratch.count[index & 1][bin as usize & (BINS - 1)] += 1;
                }
            }
        }
        Self {
            most: row.most,
            scale,
            mass: std::array::from_fn(|bin| scratch.mass[0][bin] + scratch.mass[1][bin]),
            count: std::array::from_fn(|bin| scratch.count[0][bin] + scratch.count[1][bin]),
        }
    }

    /// The values of a bin at or above `floor`.
    #[inline(always)]
    fn members<'a>(&self, row: &Row<'_>, bin: usize, floor: f32, into: &'a mut Vec<f32>) -> &'a mut [f32] {
        into.clear();
        for chunk in row.z.chunks(CHUNK) {
            let mut hits = [0u32; CHUNK];
            let mut any = 0;
            for (&z, hit) in chunk.iter().zip(&mut hits) {
                *hit = u32::from((Self::of(z, self.most, self.scale) == bin as u32) & (z >= floor));
                any |= *hit;
            }
            if any != 0 {
                into.extend(chunk.iter().zip(hits).filter_map(|(&z, hit)| (hit != 0).then_some(z)));
            }
        }
        into
    }

    /// The k-th largest value, [`FINITE`] if fewer are not masked.
    #[inline(always)]
    fn kth(&self, row: &Row<'_>, k: usize, members: &mut Vec<f32>) -> f32 {
        let mut above = 0;
        for (bin, &count) in self.count.iter().enumerate() {
            if above + count as usize >= k {
                let found = self.members(row, bin, f32::NEG_INFINITY, members);
                let (_, kth, _) = found.select_nth_unstable_by(k - 1 - above, |a, b| b.total_cmp(a));
                return kth.max(FINITE);
            }
            above += count as usize;
        }
        FINITE
    }

    /// The mass of the values at or above `floor`.
    #[inline(always)]
    fn mass_from(&self, row: &Row<'_>, floor: f32, members: &mut Vec<f32>) -> f64 {
        if floor == FINITE {
            return sum(&self.mass);
        }
        let bin = Self::of(floor, self.most, self.scale) as usize;
        let found = self.members(row, bin, floor, members);
        sum(&self.mass[..bin]) + found.iter().map(|&z| row.weight(z)).sum::<f64>()
    }

    /// The smallest value v ≥ `floor` such that the mass of larger values is below `target`.
    #[inline(always)]
    fn nucleus(&self, row: &Row<'_>, target: f64, floor: f32, members: &mut Vec<f32>) -> f32 {
        let mut above = 0.0;
        for (bin, &mass) in self.mass.iter().enumerate() {
            if above + mass >= target || bin == BINS - 1 {
                let found = self.members(row, bin, floor, members);
                return if found.is_empty() { floor } else { weighted(row, found, above, target) };
            }
            above += mass;
        }
        floor
    }
}

/// A sum in lanes: one after the other, a thousand additions wait for each other for a microsecond.
#[inline(always)]
fn sum(values: &[f64]) -> f64 {
    let mut sums = [0.0; 16];
    let (lanes, rest) = values.as_chunks::<16>();
    for lane in lanes {
        for (sum, value) in sums.iter_mut().zip(lane) {
            *sum += value;
        }
    }
    sums.iter().sum::<f64>() + rest.iter().sum::<f64>()
}

/// The last of `values`, falling, before which the mass stays below `target`: quickselect by mass.
fn weighted(row: &Row<'_>, mut values: &mut [f32], mut above: f64, target: f64) -> f32 {
    while values.len() > 1 {
        let middle = values.len() / 2;
        values.select_nth_unstable_by(middle, |a, b| b.total_cmp(a));
        let mass = values[..middle].iter().map(|&z| row.weight(z)).sum::<f64>();
        if above + mass < target {
            above += mass;
            values = &mut values[middle..];
        } else {
            values = &mut values[..middle];
        }
    }
    values[0]
}
