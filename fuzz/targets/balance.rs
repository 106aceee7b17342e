//! Parts and plans of steps: against every assignment there is where rows are few, and any numbers without a panic.

#![no_main]

#[path = "../../tests/oracles/balance.rs"]
mod oracle;

use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use oracle::Rules;
use rollkit::balance::{Options, balance, bound};
use rollkit::step_plan::{self, Sync, plan_steps};

#[derive(Arbitrary, Debug)]
struct Case {
    rows: Vec<(u8, u8, u8)>,
    hostile: Option<(u8, i64, i64, i64)>,
    grouped: bool,
    parts: u8,
    equal_counts: bool,
    capacity: Option<u16>,
    tolerance: f64,
    max_segments: Option<u8>,
    sync: bool,
    seed: Option<u64>,
}

fuzz_target!(|case: Case| {
    let column = |of: fn(&(u8, u8, u8)) -> u8| case.rows.iter().map(|row| i64::from(of(row))).collect::<Vec<_>>();
    let (mut lengths, mut costs) = (column(|row| row.0), column(|row| row.1));
    let mut ids = column(|row| row.2);
    if case.hostile.is_none() {
        ids.iter_mut().for_each(|id| *id %= case.rows.len() as i64);
    }
    if let Some((row, length, cost, id)) = case.hostile
        && !lengths.is_empty()
    {
        let row = usize::from(row) % lengths.len();
        (lengths[row], costs[row], ids[row]) = (length, cost, id);
    }
    let groups = case.grouped.then_some(&ids[..]);
    let (parts, equal_counts) = (usize::from(case.parts), case.equal_counts);
    let capacity = case.capacity.map(i64::from);
    let mut out = vec![7i64; lengths.len()];
    let options = Options { parts, equal_counts, capacity, tolerance: case.tolerance };
    let found = balance(&lengths, &costs, groups, &options, &mut out);
    let least = bound(&costs, groups, parts, equal_counts);
    if case.hostile.is_none() && (1..4).contains(&parts) && lengths.len() < 7 {
        let rules = Rules { lengths: &lengths, costs: &costs, groups, parts, equal_counts, capacity };
        let best = rules.optimum();
        assert!(best.is_none_or(|best| least.unwrap().0 <= best));
        if found.is_ok() {
            assert!(rules.costliest(&out).unwrap() >= best.unwrap());
        }
    }
    let step = step_plan::Options {
        capacity: capacity.unwrap_or(i64::MAX),
        ranks: parts,
        sync: if case.sync { Sync::MicroBatch } else { Sync::Step },
        max_segments: case.max_segments.map(usize::from),
        steps: 0,
        seed: case.seed,
    };
    let home = case.equal_counts.then_some(&ids[..]);
    if let Ok(planned) = plan_steps(&lengths, &costs, groups, home, &step, &mut out) {
        assert!(out.iter().all(|&slot| (slot as usize) < parts * planned.steps && slot >= 0));
        assert!(planned.bound <= planned.makespan);
    }
});
