//! Draws by comparing every logit with every other.

use rollkit::sample::noise::{Key, uniform};
use rollkit::sample::{Drawn, Filters, Order, Status};

/// What is kept, by comparing every value with every other.
pub fn kept_reference(z: &[f32], filters: &Filters, order: Order) -> Vec<bool> {
    let most = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |z: f32| ((f64::from(z) - f64::from(most)) / filters.temperature).exp();
    let alive = z.iter().map(|&z| z > f32::NEG_INFINITY).collect::<Vec<_>>();
    let larger = |v: f32| z.iter().filter(|&&z| z > v).count();
    let top_k = |kept: Vec<bool>| -> Vec<bool> {
        let inside = |v: f32| filters.top_k == 0 || larger(v) < filters.top_k;
        z.iter().zip(kept).map(|(&v, kept)| kept && inside(v)).collect()
    };
    let top_p = |kept: Vec<bool>| -> Vec<bool> {
        let sum = |above: f32| -> f64 {
            z.iter().zip(&kept).filter(|(z, kept)| **kept && **z > above).map(|(&z, _)| weight(z)).sum()
        };
        let target = filters.top_p * sum(f32::NEG_INFINITY);
        let inside = |v: f32| filters.top_p >= 1.0 || v >= most || sum(v) < target;
        z.iter().zip(&kept).map(|(&v, kept)| *kept && inside(v)).collect()
    };
    let min_p = |kept: Vec<bool>| -> Vec<bool> {
        let floor = f64::from(most) + filters.temperature * filters.min_p.ln();
        z.iter().zip(kept).map(|(&v, kept)| kept && f64::from(v) >= floor).collect()
    };
    let both = |one: Vec<bool>, other: Vec<bool>| one.iter().zip(other).map(|(a, b)| *a && b).collect();
    match order {
        Order::Hf | Order::Acestep => min_p(top_p(top_k(alive))),
        Order::Vllm => top_p(top_k(min_p(alive))),
        Order::Joint => min_p(both(top_k(alive.clone()), top_p(alive))),
    }
}

pub fn reference(z: &[f32], key: Key, filters: &Filters, order: Order) -> (Drawn, Vec<u32>) {
    if z.iter().any(|z| z.is_nan()) {
        return (Drawn { token: -1, logprob: f32::NAN, status: Status::Nan }, vec![]);
    }
    let most = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if most == f32::NEG_INFINITY {
        return (Drawn { token: -1, logprob: f32::NAN, status: Status::Masked }, vec![]);
    }
    if filters.temperature == 0.0 {
        let token = z.iter().position(|&z| z >= most).unwrap();
        return (Drawn { token: token as i64, logprob: 0.0, status: Status::Ok }, vec![token as u32]);
    }
    let kept = kept_reference(z, filters, order);
    let weight = |token: usize| ((f64::from(z[token]) - f64::from(most)) / filters.temperature).exp();
    let time = |token: usize| -f64::from(uniform(key.bits(token as u32))).ln() / weight(token);
    let tokens = (0..z.len()).filter(|&token| kept[token]).collect::<Vec<_>>();
    let least = tokens.iter().map(|&token| time(token)).fold(f64::INFINITY, f64::min);
    let token = tokens.iter().copied().find(|&token| time(token) <= least * (1.0 + 1e-12)).unwrap();
    let mass = tokens.iter().map(|&token| weight(token)).sum::<f64>();
    let logprob = (weight(token) / mass).ln() as f32;
    let tokens = tokens.into_iter().map(|token| token as u32).collect();
    (Drawn { token: token as i64, logprob, status: Status::Ok }, tokens)
}

pub fn same(got: Drawn, wanted: Drawn) -> bool {
    let close =
        (got.logprob - wanted.logprob).abs() < 1e-5 || got.logprob.is_nan() && wanted.logprob.is_nan();
    (got.token, got.status) == (wanted.token, wanted.status) && close
}
