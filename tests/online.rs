//! Bins of rows that arrive one by one equal those of the loop, from any cut of the stream.

mod common;
#[path = "oracles/online.rs"]
mod oracle;

use common::examples;
use oracle::reference;
use proptest::collection::vec;
use proptest::prelude::*;
use rollkit::Error;
use rollkit::online::{Bin, Bins, Options, Packer, Policy, Row};

fn cases() -> impl Strategy<Value = (Vec<i64>, Options)> {
    let options = (
        1..20i64,
        1..9usize,
        prop_oneof![Just(Policy::LookAhead), Just(Policy::BestFit)],
        proptest::option::of(0..12u64),
        proptest::option::of(1..5usize),
        1..5i64,
    )
        .prop_map(|(capacity, buffer, policy, max_wait, max_segments, align)| Options {
            capacity,
            buffer,
            policy,
            max_wait,
            max_segments,
            align,
        });
    options.prop_flat_map(|options| {
        let most = options.capacity;
        (vec(prop_oneof![0..=most, Just(0), Just(1), Just(most)], 0..80), Just(options))
    })
}

fn bins(found: &Bins) -> Vec<Vec<i64>> {
    let mut begin = 0;
    let cut = |&end: &i64| found.rows[std::mem::replace(&mut begin, end as usize)..end as usize].to_vec();
    found.ends.iter().map(cut).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(examples(4000)))]

    #[test]
    fn equals_the_loop((lengths, options) in cases(), cut in any::<prop::sample::Index>()) {
        let rows: Vec<i64> = (0..lengths.len() as i64).map(|row| row / 2 * 7 - 3).collect();
        let cut = cut.index(lengths.len() + 1);
        let mut found = Bins::default();
        let mut packer = Packer::new(options)?;
        packer.extend(&rows[..cut], &lengths[..cut], &mut found)?;
        let (waiting, open): (Vec<Row>, Vec<Bin>) = (packer.waiting().collect(), packer.bins().cloned().collect());
        prop_assert_eq!(packer.pending(), waiting.len() + open.iter().map(|bin| bin.rows.len()).sum::<usize>());
        let mut packer = Packer::resumed(options, packer.added(), waiting, open)?.expect("a state it was in");
        packer.extend(&rows[cut..], &lengths[cut..], &mut found)?;
        packer.flush(&mut found)?;
        prop_assert_eq!(packer.pending(), 0);
        prop_assert_eq!(bins(&found), reference(&rows, &lengths, &options));
    }
}

const OPTIONS: Options = Options {
    capacity: 8,
    buffer: 2,
    policy: Policy::LookAhead,
    max_wait: None,
    max_segments: None,
    align: 1,
};

#[test]
fn refuses() {
    let refused = |options| Packer::new(options).map(|_| ()).unwrap_err();
    let zero = |name| Error::NotPositive { name, got: 0 };
    assert_eq!(refused(Options { capacity: 0, ..OPTIONS }), zero("capacity"));
    assert_eq!(refused(Options { buffer: 0, ..OPTIONS }), zero("buffer"));
    assert_eq!(refused(Options { align: 0, ..OPTIONS }), zero("align"));
    assert_eq!(refused(Options { max_segments: Some(0), ..OPTIONS }), zero("max_segments"));
    assert!("best".parse::<Policy>().is_err());

    let (mut packer, mut out) = (Packer::new(OPTIONS).unwrap(), Bins::default());
    let wanted = Error::RowTooLong { row: 1, length: 9, capacity: 8 };
    assert_eq!(packer.extend(&[0, 1], &[1, 9], &mut out), Err(wanted));
    assert_eq!(packer.extend(&[0, 1], &[1, -1], &mut out), Err(Error::NegativeLength { row: 1, got: -1 }));
    let wanted = Error::RowCount { name: "lengths", got: 1, wanted: 2 };
    assert_eq!(packer.extend(&[0, 1], &[1], &mut out), Err(wanted));
    assert_eq!((packer.pending(), packer.added(), out), (0, 0, Bins::default()));
}

#[test]
fn knows_states_that_no_packer_has() {
    let row = |length, came| Row { number: 0, length, came };
    let bin = |room, came, rows| Bin { room, came, rows };
    let resumed = |waiting, bins| Packer::resumed(OPTIONS, 3, waiting, bins).unwrap().is_some();
    assert!(resumed(vec![row(8, 2)], vec![bin(0, 0, vec![1])]));
    assert!(!resumed(vec![row(9, 2)], vec![]));
    assert!(!resumed(vec![row(1, 3)], vec![]));
    assert!(!resumed(vec![row(1, 0), row(1, 1)], vec![]), "as many as the buffer have one go on");
    assert!(!resumed(vec![row(1, 0)], vec![bin(0, 1, vec![1])]), "the oldest has begun the bin");
    assert!(!resumed(vec![], vec![bin(9, 0, vec![1])]));
    assert!(!resumed(vec![], vec![bin(1, 0, vec![])]));
    assert!(!resumed(vec![], vec![bin(1, 0, vec![1]), bin(1, 1, vec![1])]));
}
