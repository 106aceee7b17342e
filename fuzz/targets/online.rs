//! Rows that arrive one by one: against the loop, and any numbers and states without a panic.

#![no_main]

#[path = "../../tests/oracles/online.rs"]
mod oracle;

use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rollkit::online::{Bin, Bins, Options, Packer, Policy, Row};

#[derive(Arbitrary, Debug)]
struct Case {
    lengths: Vec<u8>,
    capacity: i64,
    buffer: u8,
    best_fit: bool,
    max_wait: Option<u8>,
    max_segments: Option<u8>,
    align: u8,
    hostile: Option<(u64, Vec<(i64, i64, u64)>, Vec<(i64, u64, Vec<i64>)>)>,
}

fuzz_target!(|case: Case| {
    let tame = case.hostile.is_none();
    let options = Options {
        capacity: if tame { case.capacity.rem_euclid(300) + 1 } else { case.capacity },
        buffer: usize::from(case.buffer) + usize::from(tame),
        policy: if case.best_fit { Policy::BestFit } else { Policy::LookAhead },
        max_wait: case.max_wait.map(u64::from),
        max_segments: case.max_segments.map(|most| usize::from(most) + usize::from(tame)),
        align: i64::from(case.align) + i64::from(tame),
    };
    let lengths: Vec<i64> = case.lengths.iter().map(|&n| i64::from(n).min(options.capacity)).collect();
    let rows: Vec<i64> = (0..lengths.len() as i64).collect();
    let mut out = Bins::default();
    let packer = match case.hostile {
        None => Packer::new(options).map(Some),
        Some((added, waiting, bins)) => {
            let row = |(number, length, came)| Row { number, length, came };
            let bin = |(room, came, rows)| Bin { room, came, rows };
            let (waiting, bins) = (waiting.into_iter().map(row), bins.into_iter().map(bin));
            Packer::resumed(options, added.min(1 << 60), waiting.collect(), bins.collect())
        }
    };
    let Ok(Some(mut packer)) = packer else { return };
    if packer.extend(&rows, &lengths, &mut out).is_err() {
        return;
    }
    packer.flush(&mut out).unwrap();
    if tame {
        let mut begin = 0;
        let cut = |&end: &i64| out.rows[std::mem::replace(&mut begin, end as usize)..end as usize].to_vec();
        let found: Vec<Vec<i64>> = out.ends.iter().map(cut).collect();
        assert_eq!(found, oracle::reference(&rows, &lengths, &options));
    }
});
