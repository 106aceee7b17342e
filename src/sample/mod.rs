//! Compact logits to tokens: guidance, filters, and a draw keyed by (seed, position, global token id).
//!
//! ```text
//! z = u + s (c − u)          on the allowed columns     logits
//! keep z ≥ floor             top-k, top-p, min-p        threshold
//! token = argmin E / w       w = e^((z − z_max) / T), E = −ln u(seed, position, id)
//! ```
//!
//! The last line is an exponential race: token i wins with probability `w_i` / Σw. As the noise
//! belongs to the token and not to its column or row, a batch that is compacted, reordered or split, or
//! logits of the full vocabulary, draw the same token. Rust never fuses a product with a sum, so that
//! the instruction set chosen at run time (`multiversion`) changes no bit either.

pub mod exp;
pub mod logits;
pub mod noise;
pub mod threshold;

use std::str::FromStr;

use multiversion::multiversion;

use self::exp::{exp, exp_bound};
use self::logits::{Bf16, Columns, Extent, F16, F32, Logit, gather};
use self::noise::{Key, uniform};
use self::threshold::{FINITE, Row, Scratch};
use crate::{Error, Result, memory};

/// In which order filters are applied, which decides what mass top-p counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Top-k, top-p of what is left, min-p.
    Hf,
    /// Min-p, top-k, top-p of what is left.
    Vllm,
    /// Top-k and top-p both of the whole allowed set, then min-p.
    Joint,
    /// Top-k, top-p of what is left; no min-p.
    Acestep,
}

impl FromStr for Order {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "hf" => Self::Hf,
            "vllm" => Self::Vllm,
            "joint" => Self::Joint,
            "acestep" => Self::Acestep,
            _ => return Err(Error::UnknownName { name: "order", got: name.to_owned() }),
        })
    }
}

/// Which log-probability is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogProb {
    /// None.
    Off,
    /// Of what was drawn from: after temperature, over the kept set.
    Kept,
    /// At temperature 1, over the allowed set.
    Allowed,
}

impl FromStr for LogProb {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "off" => Self::Off,
            "kept" => Self::Kept,
            "allowed" => Self::Allowed,
            _ => return Err(Error::UnknownName { name: "logprobs", got: name.to_owned() }),
        })
    }
}

/// What a row's draw came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum Status {
    /// A token.
    Ok = 0,
    /// No token: every allowed logit is -∞.
    Masked = 1,
    /// No token: an allowed logit is NaN.
    Nan = 2,
}

/// The filters of a row.
#[derive(Debug, Clone, Copy)]
pub struct Filters {
    /// What guidance is scaled by; 1 is no guidance.
    pub scale: f32,
    /// 0 is greedy.
    pub temperature: f64,
    /// 0 is off.
    pub top_k: usize,
    /// 1 is off.
    pub top_p: f64,
    /// 0 is off.
    pub min_p: f64,
}

/// Where a row's uniforms come from.
#[derive(Debug, Clone, Copy)]
pub enum Noise<'a> {
    /// From the key, by global token id.
    Keyed(Key),
    /// As given, by column of the logits.
    Given(&'a [f32]),
}

/// The allowed tokens.
#[derive(Debug, Clone)]
pub struct Allowed<'a> {
    /// The columns of the logits they are in.
    pub columns: Columns<'a>,
    /// Their ids: neighbours from the first one, or as listed.
    pub ids: Ids<'a>,
}

/// Global token ids, rising.
#[derive(Debug, Clone, Copy)]
pub enum Ids<'a> {
    /// As many as there are columns, from this one on.
    From(u32),
    /// Any.
    List(&'a [i32]),
}

impl Ids<'_> {
    #[allow(clippy::inline_always)] // as in `noise`
    #[inline(always)]
    fn at(&self, local: usize) -> u32 {
        match self {
            Self::From(first) => first + local as u32,
            Self::List(ids) => ids[local] as u32,
        }
    }
}

/// What is the same for all rows.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The order of filters.
    pub order: Order,
    /// The log-probability wanted.
    pub logprob: LogProb,
}

/// A row drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// The global id; -1 without a token.
    pub token: i64,
    /// Its log-probability; NaN without a token, or if none was asked for.
    pub logprob: f32,
    /// Whether there is a token.
    pub status: Status,
}

/// Draws rows one after the other, in memory that is used again.
#[derive(Debug, Default)]
pub struct Sampler {
    z: Vec<f32>,
    floor: f32,
    scratch: Scratch,
}

/// The logits of a row, of one dtype.
#[derive(Debug, Clone, Copy)]
pub enum Logits<'a> {
    /// As they are.
    F32(&'a [f32], Option<&'a [f32]>),
    /// bfloat16.
    Bf16(&'a [u16], Option<&'a [u16]>),
    /// float16.
    F16(&'a [u16], Option<&'a [u16]>),
}

impl Sampler {
    /// One with memory for so many columns, so that drawing asks for none.
    pub fn with_room(columns: usize) -> Result<Self> {
        let z = memory::with_room("columns", columns)?;
        Ok(Self { z, floor: 0.0, scratch: Scratch::with_room(columns)? })
    }

    /// Draws one row.
    ///
    /// ```
    /// use rollkit::sample::logits::Columns;
    /// use rollkit::sample::noise::Key;
    /// use rollkit::sample::{Allowed, Filters, Ids, LogProb, Logits, Noise, Options, Order, Sampler, Status};
    ///
    /// let allowed = Allowed { columns: Columns::Range(0..3), ids: Ids::From(100) };
    /// let filters = Filters { scale: 1.0, temperature: 1.0, top_k: 1, top_p: 1.0, min_p: 0.0 };
    /// let options = Options { order: Order::Hf, logprob: LogProb::Kept };
    /// let logits = Logits::F32(&[0.5, 2.0, -1.0], None);
    /// let drawn = Sampler::default().draw(logits, &allowed, &filters, Noise::Keyed(Key::new(7, 0)), options);
    /// assert_eq!((drawn.token, drawn.logprob, drawn.status), (101, 0.0, Status::Ok));
    /// ```
    pub fn draw(
        &mut self,
        logits: Logits<'_>,
        allowed: &Allowed<'_>,
        filters: &Filters,
        noise: Noise<'_>,
        options: Options,
    ) -> Drawn {
        draw(self, logits, allowed, filters, noise, options)
    }

    /// The kept tokens of the row drawn last.
    pub fn kept<'a>(&'a self, allowed: &'a Allowed<'_>) -> impl Iterator<Item = u32> + 'a {
        let kept = self.z.iter().enumerate().filter(|(_, z)| **z >= self.floor);
        kept.map(|(local, _)| allowed.ids.at(local))
    }

    fn none(&mut self, status: Status) -> Drawn {
        self.floor = f32::NAN; // keeps nothing
        Drawn { token: -1, logprob: f32::NAN, status }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn draw(
    sampler: &mut Sampler,
    logits: Logits<'_>,
    allowed: &Allowed<'_>,
    filters: &Filters,
    noise: Noise<'_>,
    options: Options,
) -> Drawn {
    let extent = match logits {
        Logits::F32(cond, uncond) => load::<F32>(sampler, cond, uncond, allowed, filters.scale),
        Logits::Bf16(cond, uncond) => load::<Bf16>(sampler, cond, uncond, allowed, filters.scale),
        Logits::F16(cond, uncond) => load::<F16>(sampler, cond, uncond, allowed, filters.scale),
    };
    if extent.nan {
        return sampler.none(Status::Nan);
    }
    let mut most = extent.most;
    if most == f32::NEG_INFINITY {
        return sampler.none(Status::Masked);
    }
    if most == f32::INFINITY {
        only_infinite(&mut sampler.z);
        most = 0.0;
    }
    if filters.temperature == 0.0 {
        return greedy(sampler, most, allowed, options.logprob);
    }
    let Sampler { z, floor, scratch } = sampler;
    // Finite: 0 × ∞ is NaN.
    let row = Row { z, most, inverse: (1.0 / filters.temperature).min(f64::MAX) };
    *floor = threshold::floor(&row, filters, options.order, scratch);
    let local = match (noise, &allowed.columns, allowed.ids) {
        (Noise::Keyed(key), _, Ids::From(first)) => race(&row, *floor, |out, at| {
            for (offset, u) in out.iter_mut().enumerate() {
                *u = uniform(key.bits(first + (at + offset) as u32));
            }
        }),
        (Noise::Keyed(key), _, Ids::List(ids)) => race(&row, *floor, |out, at| {
            for (u, &id) in out.iter_mut().zip(&ids[at..]) {
                *u = uniform(key.bits(id as u32));
            }
        }),
        (Noise::Given(given), Columns::Range(range), _) => race(&row, *floor, |out, at| {
            out.copy_from_slice(&given[range.start + at..][..out.len()]);
        }),
        (Noise::Given(given), Columns::List(ids), _) => race(&row, *floor, |out, at| {
            for (u, &id) in out.iter_mut().zip(&ids[at..]) {
                *u = given.get(id as usize).copied().unwrap_or(0.5); // as in `logits::value`
            }
        }),
    };
    let logprob = match options.logprob {
        LogProb::Off => f32::NAN,
        LogProb::Kept => logprob(&row, row.z[local], *floor),
        LogProb::Allowed => logprob(&Row { inverse: 1.0, ..row }, row.z[local], FINITE),
    };
    Drawn { token: i64::from(allowed.ids.at(local)), logprob, status: Status::Ok }
}

#[allow(clippy::inline_always)] // only what is inlined is compiled for the caller's instruction set
#[inline(always)]
fn load<T: Logit>(
    sampler: &mut Sampler,
    cond: &[T::Bits],
    uncond: Option<&[T::Bits]>,
    allowed: &Allowed<'_>,
    scale: f32,
) -> Extent {
    let size = match &allowed.columns {
        Columns::Range(range) => range.len(),
        Columns::List(ids) => ids.len(),
    };
    sampler.z.resize(size, 0.0);
    #[allow(clippy::float_cmp)] // exactly 1 is no guidance
    gather::<T>(cond, uncond.filter(|_| scale != 1.0), scale, &allowed.columns, &mut sampler.z)
}

/// The limit of rising logits: those at +∞ share all mass.
#[cold]
fn only_infinite(z: &mut [f32]) {
    for z in z {
        *z = if *z == f32::INFINITY { 0.0 } else { f32::NEG_INFINITY };
    }
}

#[allow(clippy::inline_always)] // as above
#[inline(always)]
fn greedy(sampler: &mut Sampler, most: f32, allowed: &Allowed<'_>, wanted: LogProb) -> Drawn {
    let local = first_of(&sampler.z, most);
    let logprob = match wanted {
        LogProb::Off => f32::NAN,
        LogProb::Kept => 0.0,
        LogProb::Allowed => logprob(&Row { z: &sampler.z, most, inverse: 1.0 }, most, FINITE),
    };
    // The one kept token is the one drawn, even where others have its logit.
    sampler.z[local] = f32::INFINITY;
    sampler.floor = f32::INFINITY;
    Drawn { token: i64::from(allowed.ids.at(local)), logprob, status: Status::Ok }
}

/// Race times this close are equal: those of other tokens seldom are, roundings of one always.
const SAME: f64 = 1.0 + 1e-12;

/// The position that wins: of the kept values, that with the least E / w, the first of equals.
///
/// As 1 − u < −ln u, most losers are told apart without a logarithm. `fill` writes the uniforms from a
/// position on.
#[allow(clippy::inline_always)] // as above
#[inline(always)]
fn race(row: &Row<'_>, floor: f32, fill: impl Fn(&mut [f32], usize)) -> usize {
    let inverse = row.inverse.min(1e30) as f32; // finite, as above
    // The largest weight starts: it is seldom far from winning, and its time bounds all others.
    let mut winner = first_of(row.z, row.most);
    let mut u = [0.5; RACERS];
    fill(&mut u[..1], winner);
    let mut least = time(row, u[0], row.most);
    let mut close = false;
    for (index, chunk) in row.z.chunks(RACERS).enumerate() {
        let u = &mut u[..chunk.len()];
        fill(u, index * RACERS);
        let bound = least as f32 * 1.001;
        let mut hits = [0u32; RACERS];
        let mut any = 0;
        for ((&z, &u), hit) in chunk.iter().zip(&*u).zip(&mut hits) {
            let fastest = 1.0 - u;
            let depth = (z - row.most).max(f32::MIN); // finite, as above
            *hit = u32::from((z >= floor) & (fastest <= bound * exp_bound(depth * inverse)));
            any |= *hit;
        }
        if any == 0 {
            continue;
        }
        for (offset, _) in hits.iter().enumerate().filter(|(_, hit)| **hit != 0) {
            let (local, time) = (index * RACERS + offset, time(row, u[offset], chunk[offset]));
            close |= local != winner && time <= least * SAME && least <= time * SAME;
            if time < least {
                (least, winner) = (time, local);
            }
        }
    }
    if close { first_at(row, floor, least, fill) } else { winner }
}

/// Tokens that race at a time.
const RACERS: usize = 64;

#[allow(clippy::inline_always)] // as above
#[inline(always)]
fn time(row: &Row<'_>, u: f32, z: f32) -> f64 {
    -f64::from(u).ln() / row.weight(z)
}

/// The first position whose time is as good as the least.
#[cold]
fn first_at(row: &Row<'_>, floor: f32, least: f64, fill: impl Fn(&mut [f32], usize)) -> usize {
    let mut u = [0.5; RACERS];
    for (index, chunk) in row.z.chunks(RACERS).enumerate() {
        fill(&mut u[..chunk.len()], index * RACERS);
        let wins = |(&z, &u): (&f32, &f32)| z >= floor && time(row, u, z) <= least * SAME;
        if let Some(offset) = chunk.iter().zip(&u).position(wins) {
            return index * RACERS + offset;
        }
    }
    0
}

/// The first position of a value that is there.
#[allow(clippy::inline_always)] // as above
#[inline(always)]
#[allow(clippy::float_cmp)] // it is one of them
fn first_of(z: &[f32], value: f32) -> usize {
    const CHUNK: usize = 256;
    for (index, chunk) in z.chunks(CHUNK).enumerate() {
        let mut any = 0;
        for &z in chunk {
            any |= u32::from(z == value);
        }
        if any != 0 {
            return index * CHUNK + chunk.iter().position(|&z| z == value).unwrap_or(0);
        }
    }
    0
}

/// ln of a value's share of the mass at or above `floor`.
#[allow(clippy::inline_always)] // as above
#[inline(always)]
fn logprob(row: &Row<'_>, z: f32, floor: f32) -> f32 {
    let depth = (f64::from(z) - f64::from(row.most)) * row.inverse;
    (depth - row.mass(floor).ln()) as f32
}

/// e^x as the weights have it, for tests.
#[doc(hidden)]
#[must_use]
pub fn weight(x: f64) -> (f64, f32) {
    (exp(x), exp_bound(x as f32))
}
