//! Draws, and what is kept: against a sampler that compares every logit with every other.

#![no_main]

#[path = "../../tests/oracles/sample.rs"]
mod oracle;

use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rollkit::sample::logits::Columns;
use rollkit::sample::noise::Key;
use rollkit::sample::{Allowed, Filters, Ids, LogProb, Logits, Noise, Options, Order, Sampler};

#[derive(Arbitrary, Debug)]
struct Case {
    logits: Vec<i16>,
    scale: u8,
    special: Option<(u8, u8)>,
    seed: u64,
    temperature: u8,
    top_k: u8,
    top_p: u16,
    min_p: u16,
    order: u8,
}

fuzz_target!(|case: Case| {
    let step = [1.0, 0.25, 1e-3, 10.0][usize::from(case.scale % 4)];
    let mut z: Vec<f32> = case.logits.iter().take(200).map(|&logit| f32::from(logit % 512) * step).collect();
    if z.is_empty() {
        return;
    }
    if let Some((at, kind)) = case.special {
        let at = usize::from(at) % z.len();
        z[at] = [f32::NEG_INFINITY, f32::NAN, f32::MAX, -0.0, f32::MIN][usize::from(kind % 5)];
    }
    let order = [Order::Hf, Order::Vllm, Order::Joint][usize::from(case.order % 3)];
    let filters = Filters {
        scale: 1.0,
        temperature: [0.0, 0.01, 0.7, 1.0, 30.0][usize::from(case.temperature % 5)],
        top_k: usize::from(case.top_k % 32),
        // Off the sums that weights of equal logits have: which side of them rounding falls is open.
        top_p: if case.top_p % 8 == 0 { 1.0 } else { (f64::from(case.top_p) + 0.318_309_886) / 65_537.0 },
        min_p: if case.min_p % 8 == 0 { 0.0 } else { (f64::from(case.min_p) + 0.318_309_886) / 65_537.0 },
    };
    let key = Key::new(case.seed, 3);
    let allowed = Allowed { columns: Columns::Range(0..z.len()), ids: Ids::From(0) };
    let options = Options { order, logprob: LogProb::Kept };
    let mut sampler = Sampler::default();
    let drawn = sampler.draw(Logits::F32(&z, None), &allowed, &filters, Noise::Keyed(key), options);
    let (wanted, kept) = oracle::reference(&z, key, &filters, order);
    assert!(oracle::same(drawn, wanted), "{drawn:?} is not {wanted:?}");
    assert_eq!(sampler.kept(&allowed).collect::<Vec<_>>(), kept);
});
