//! Draws equal those of a quadratic reference; weights are exact enough; 16-bit logits are exact.

mod common;
#[path = "oracles/sample.rs"]
mod oracle;

use common::examples;
use oracle::{reference, same};
use proptest::collection::vec;
use proptest::prelude::*;
use rollkit::Error;
use rollkit::sample::logits::{Bf16, Columns, F16, Logit, guide};
use rollkit::sample::noise::{BITS, Key, uniform};
use rollkit::sample::{Allowed, Filters, Ids, LogProb, Logits, Noise, Options, Order, Sampler, weight};

const HF: Options = Options { order: Order::Hf, logprob: LogProb::Kept };
const PLAIN: Filters = Filters { scale: 1.0, temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };

fn all(size: usize) -> Allowed<'static> {
    Allowed { columns: Columns::Range(0..size), ids: Ids::From(0) }
}

fn rows() -> impl Strategy<Value = Vec<f32>> {
    let few = proptest::sample::select(vec![0.0, -0.0, 1.0, 1.5, -2.0, 3.0, f32::NEG_INFINITY]);
    prop_oneof![
        vec(few, 1..40),
        vec(-8.0..8.0f32, 1..300),
        vec(-0.01..0.01f32, 1..300),
        vec(-2000.0..2000.0f32, 1..50),
        vec(proptest::sample::select(vec![f32::MAX, -f32::MAX, 3e38, 0.0, 1e-45, f32::NEG_INFINITY]), 1..50),
        vec(prop_oneof![9 => -8.0..8.0f32, 1 => Just(f32::NAN)], 1..6),
        vec(Just(f32::NEG_INFINITY), 1..6),
    ]
}

fn filters() -> impl Strategy<Value = Filters> {
    let temperature =
        proptest::sample::select(vec![0.0, 1e-310, 1e-30, 0.01, 0.7, 1.0, 3.0, 1e30, 1e38, 1e300]);
    let top_k = prop_oneof![Just(0usize), 1..20usize, Just(1000)];
    let top_p = prop_oneof![Just(1.0), 0.0..1.0f64, Just(0.999_999), Just(0.0)];
    let min_p = prop_oneof![Just(0.0), 0.0..1.0f64, Just(1.0), Just(1e-300)];
    (temperature, top_k, top_p, min_p).prop_map(|(temperature, top_k, top_p, min_p)| Filters {
        scale: 1.0,
        temperature,
        top_k,
        top_p,
        min_p,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(examples(4000)))]

    #[test]
    fn equals_the_reference(
        z in rows(),
        filters in filters(),
        seed in any::<u64>(),
        order in proptest::sample::select(vec![Order::Hf, Order::Vllm, Order::Joint]),
    ) {
        let key = Key::new(seed, 3);
        let mut sampler = Sampler::default();
        let allowed = all(z.len());
        let options = Options { order, ..HF };
        let drawn = sampler.draw(Logits::F32(&z, None), &allowed, &filters, Noise::Keyed(key), options);
        let (wanted, kept) = reference(&z, key, &filters, order);
        prop_assert!(same(drawn, wanted), "{drawn:?} is not {wanted:?}");
        prop_assert_eq!(sampler.kept(&allowed).collect::<Vec<_>>(), kept);
    }

    #[test]
    fn compact_and_full_draw_the_same(
        z in vec(-8.0..8.0f32, 1..300),
        mask in vec(any::<bool>(), 300),
        filters in filters(),
        seed in any::<u64>(),
    ) {
        let ids = (0..z.len() as i32).filter(|&id| mask[id as usize]).collect::<Vec<_>>();
        let uncond = z.iter().rev().copied().collect::<Vec<_>>();
        let pick = |from: &[f32]| ids.iter().map(|&id| from[id as usize]).collect::<Vec<_>>();
        let (c, u) = (pick(&z), pick(&uncond));
        let filters = Filters { scale: 1.5, ..filters };
        let noise = Noise::Keyed(Key::new(seed, 0));
        let listed = Allowed { columns: Columns::List(&ids), ids: Ids::List(&ids) };
        let compact = Allowed { columns: Columns::Range(0..ids.len()), ids: Ids::List(&ids) };
        let mut sampler = Sampler::default();
        let full = sampler.draw(Logits::F32(&z, Some(&uncond)), &listed, &filters, noise, HF);
        let kept = sampler.kept(&listed).collect::<Vec<_>>();
        let drawn = sampler.draw(Logits::F32(&c, Some(&u)), &compact, &filters, noise, HF);
        prop_assert!(same(drawn, full));
        prop_assert_eq!(sampler.kept(&compact).collect::<Vec<_>>(), kept);
        let given = (0..z.len() as u32).map(|id| uniform(Key::new(seed, 0).bits(id))).collect::<Vec<_>>();
        let drawn =
            sampler.draw(Logits::F32(&z, Some(&uncond)), &listed, &filters, Noise::Given(&given), HF);
        prop_assert!(same(drawn, full));
    }

    #[test]
    fn weights_are_exact_enough(x in prop_oneof![-690.0..0.0f64, -1.0..0.0f64, Just(0.0)]) {
        let (exact, bound) = weight(x);
        prop_assert!((exact / x.exp() - 1.0).abs() < 1e-14 - 2e-16 * x);
        if x > -29.0 {
            prop_assert!((f64::from(bound) / x.exp() - 1.0).abs() < 1e-4);
        } else {
            prop_assert!(bound < 1e-12);
        }
    }
}

#[test]
fn halves_have_their_values() {
    for bits in 0..=u16::MAX {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
        let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
        let wanted = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
        };
        let got = f64::from(F16::value(bits));
        assert!(got.to_bits() == (sign * wanted).to_bits() || got.is_nan() && wanted.is_nan(), "{bits:x}");
        let top = Bf16::value(bits);
        assert_eq!(top.to_bits(), u32::from(bits) << 16);
    }
}

#[test]
fn the_first_of_equal_times_wins() {
    let z = [0.0f32; 300];
    let mut noise = [0.25f32; 300];
    noise[70] = 0.75;
    noise[71] = 0.75;
    noise[299] = 0.75;
    let drawn = Sampler::default().draw(Logits::F32(&z, None), &all(300), &PLAIN, Noise::Given(&noise), HF);
    assert_eq!(drawn.token, 70);
}

#[test]
fn times_that_rounding_may_tell_apart_are_equal() {
    // The second is sooner by 5e-14 of its time.
    let z = [0.0, -5.159_479e-7];
    let noise = [0.25, 0.250_000_18];
    for reversed in [false, true] {
        let (mut z, mut noise) = (z.to_vec(), noise.to_vec());
        if reversed {
            z.reverse();
            noise.reverse();
        }
        let drawn = Sampler::default().draw(Logits::F32(&z, None), &all(2), &PLAIN, Noise::Given(&noise), HF);
        assert_eq!(drawn.token, 0);
    }
}

#[test]
fn ranges_and_lists_have_the_same_ids() {
    let z = (0..500).map(|i| (i % 37) as f32).collect::<Vec<_>>();
    let ids = (1000..1500).collect::<Vec<i32>>();
    let range = Allowed { columns: Columns::Range(0..500), ids: Ids::From(1000) };
    let list = Allowed { columns: Columns::Range(0..500), ids: Ids::List(&ids) };
    let mut sampler = Sampler::default();
    for seed in 0..200 {
        let noise = Noise::Keyed(Key::new(seed, 1));
        let one = sampler.draw(Logits::F32(&z, None), &range, &PLAIN, noise, HF);
        assert_eq!(one, sampler.draw(Logits::F32(&z, None), &list, &PLAIN, noise, HF));
    }
}

#[test]
#[allow(clippy::float_cmp)] // these are exact
fn guidance_is_exact_and_keeps_masks() {
    assert_eq!(guide(1.0, 0.0, 1.5), 1.5);
    assert_eq!(guide(f32::NEG_INFINITY, 0.0, 2.0), f32::NEG_INFINITY);
    assert_eq!(guide(0.0, f32::NEG_INFINITY, 2.0), f32::NEG_INFINITY);
    assert!(guide(0.0, f32::INFINITY, 2.0).is_nan());
}

#[test]
fn uniforms_stay_between_0_and_1() {
    let most = (1 << BITS) - 1;
    assert_eq!(uniform(0).to_bits(), 2f32.powi(-24).to_bits());
    assert_eq!(uniform(most).to_bits(), (1.0 - 2f32.powi(-24)).to_bits());
    assert!(1.0 - uniform(most) > 0.0);
}

#[test]
fn words_are_read() {
    assert_eq!("joint".parse::<Order>(), Ok(Order::Joint));
    let unknown = Error::UnknownName { name: "order", got: "x".to_owned() };
    assert_eq!("x".parse::<Order>(), Err(unknown));
    assert_eq!("allowed".parse::<LogProb>(), Ok(LogProb::Allowed));
    assert!("x".parse::<LogProb>().is_err());
}
