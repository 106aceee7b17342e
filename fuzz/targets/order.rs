//! Permutations of any size and key: small ones are bijective, and every image leads back.

#![no_main]

#[path = "../../tests/oracles/order.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use rollkit::order::Permutation;

fuzz_target!(|case: (u64, u64, u64, Vec<i64>)| {
    let (count, seed, epoch, numbers) = case;
    let order = Permutation::new(count, seed, epoch);
    if count < 300 {
        assert!(oracle::is_bijective(count, &order));
    }
    let (mut images, mut back) = (vec![0i64; numbers.len()], vec![0i64; numbers.len()]);
    if order.apply(&numbers, false, &mut images).is_ok() {
        order.apply(&images, true, &mut back).unwrap();
        assert_eq!(numbers, back);
    }
});
