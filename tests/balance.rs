//! Assignments keep to their rules, cost no less than the best there is and are bounded by no more than that;
//! what first fit decreasing packs is not refused.

mod common;
#[path = "oracles/balance.rs"]
mod oracle;

use common::examples;
use oracle::Rules;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rollkit::balance::{Options, Problem, balance, bound, row_costs};
use rollkit::binpack::{self, Algorithm, Oversize, plan_bins};
use rollkit::step_plan::{self, Sync, plan_steps};
use rollkit::{Error, Result};

fn options(parts: usize) -> Options {
    Options { parts, equal_counts: false, capacity: None, tolerance: 0.0 }
}

fn assign(lengths: &[i64], costs: &[i64], groups: Option<&[i64]>, options: &Options) -> Result<Vec<i64>> {
    let mut out = vec![-7; lengths.len()];
    balance(lengths, costs, groups, options, &mut out).map(|()| out)
}

/// Lengths, what a token and a square cost, groups.
fn rows(most: usize) -> impl Strategy<Value = (Vec<i64>, Vec<i64>, Option<Vec<i64>>)> {
    let lengths = prop_oneof![vec(0..=20i64, 0..=most), vec(Just(5i64), 0..=most), vec(0..=1i64, 0..=most)];
    (lengths, 0..3i64, 0..3i64, option::of(1..4usize)).prop_map(|(lengths, token, square, each)| {
        let mut costs = vec![0; lengths.len()];
        row_costs(&lengths, token, square, &mut costs).unwrap();
        let groups = each.map(|each| {
            (0..lengths.len()).map(|row| ((row * 5 + 3) % each.max(1)) as i64).collect::<Vec<_>>()
        });
        let fits = groups.iter().flatten().all(|&id| (id as usize) < lengths.len());
        (lengths, costs, groups.filter(|_| fits))
    })
}

/// The elements of each row, or group.
fn sizes(lengths: &[i64], groups: Option<&[i64]>) -> Vec<i64> {
    let Some(ids) = groups else { return lengths.to_vec() };
    let mut sums = std::collections::BTreeMap::new();
    for (id, length) in ids.iter().zip(lengths) {
        *sums.entry(id).or_insert(0) += length;
    }
    sums.into_values().collect()
}

/// The bins that first fit decreasing needs, if each item fits one.
fn bins(sizes: &[i64], capacity: i64, max_segments: Option<usize>) -> Option<usize> {
    let (algorithm, oversize) = (Algorithm::FirstFitDecreasing, Oversize::Raise);
    let options = binpack::Options { capacity, align: 1, max_segments, algorithm, oversize };
    let mut found = vec![0i64; sizes.len()];
    plan_bins(sizes, &options, &mut found).ok()?;
    Some(found.iter().max().map_or(0, |&last| last as usize + 1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(examples(4000)))]

    #[test]
    fn keeps_the_rules(
        (lengths, costs, groups) in rows(6),
        parts in 1..4usize,
        equal_counts: bool,
        capacity in option::of(1..60i64),
    ) {
        let options = Options { equal_counts, capacity, ..options(parts) };
        let groups = groups.as_deref();
        let rules = Rules { lengths: &lengths, costs: &costs, groups, parts, equal_counts, capacity };
        let best = rules.optimum();
        match assign(&lengths, &costs, groups, &options) {
            Ok(found) => {
                let got = rules.costliest(&found);
                prop_assert!(got.is_some(), "{found:?} is not allowed");
                prop_assert!(got >= best);
                let (least, total) = bound(&costs, groups, parts, equal_counts).unwrap();
                prop_assert!(Some(least) <= best && total == costs.iter().sum::<i64>());
                prop_assert_eq!(assign(&lengths, &costs, groups, &options), Ok(found));
            }
            Err(error) if equal_counts => {
                prop_assert!(groups.is_some() || capacity.is_some(), "{}", error);
            }
            Err(error) => {
                let needed = bins(&sizes(&lengths, groups), capacity.unwrap_or(i64::MAX), None);
                prop_assert!(needed.is_none_or(|needed| needed > parts), "{}", error);
                if let Error::Balance(Problem::TooFewParts { needed: said, .. }) = error {
                    prop_assert_eq!(Some(said), needed);
                }
            }
        }
    }

    #[test]
    fn within_a_capacity_each_goes_to_the_lightest_that_has_room(
        rows in vec((0..=20i64, 0..=50i64), 0..60),
        by_length: bool,
        parts in 1..12usize,
        capacity in 20..120i64,
    ) {
        let lengths = rows.iter().map(|row| row.0).collect::<Vec<_>>();
        let costs = rows.iter().map(|row| if by_length { row.0 * row.0 } else { row.1 }).collect::<Vec<_>>();
        let options = Options { capacity: Some(capacity), tolerance: 1e9, ..options(parts) };
        let rules =
            Rules { lengths: &lengths, costs: &costs, groups: None, parts, equal_counts: false, capacity: options.capacity };
        if let Some(expected) = rules.lightest() {
            prop_assert_eq!(assign(&lengths, &costs, None, &options), Ok(expected));
        }
    }

    #[test]
    fn equal_counts_of_many_rows(lengths in vec(0..=5000i64, 0..400), parts in 1..40usize) {
        let options = Options { equal_counts: true, ..options(parts) };
        let found = assign(&lengths, &lengths, None, &options).unwrap();
        let counts = (0..parts as i64).map(|part| found.iter().filter(|&&of| of == part).count());
        prop_assert!(counts.clone().max() <= counts.min().map(|least| least + 1));
    }

    #[test]
    fn a_step_keeps_the_rules(
        (lengths, costs, groups) in rows(40),
        capacity in 1..90i64,
        ranks in 1..6usize,
        each: bool,
        max_segments in option::of(1..9usize),
        steps in 0..4usize,
        seed in option::of(any::<u64>()),
        homes in option::of(0..9i64),
    ) {
        let sync = if each { Sync::MicroBatch } else { Sync::Step };
        let options = step_plan::Options { capacity, ranks, sync, max_segments, steps, seed };
        let home = homes.map(|of| (0..lengths.len() as i64).map(|row| row * of % (ranks as i64 + 1) - 1).collect::<Vec<_>>());
        let groups = groups.as_deref();
        let mut slots = vec![-7i64; lengths.len()];
        let planned = plan_steps(&lengths, &costs, groups, home.as_deref(), &options, &mut slots);
        let items = sizes(&lengths, groups);
        let Ok(planned) = planned else {
            prop_assert!(groups.is_some() || items.iter().any(|&size| size > capacity));
            return Ok(());
        };
        let batches = planned.steps * ranks;
        let sum = |numbers: &[i64], slot: usize| -> i64 {
            numbers.iter().zip(&slots).filter(|(_, at)| **at == slot as i64).map(|(number, _)| number).sum()
        };
        let counts = (0..batches).map(|slot| slots.iter().filter(|&&at| at == slot as i64).count()).collect::<Vec<_>>();
        prop_assert_eq!(counts.iter().sum::<usize>(), lengths.len());
        prop_assert!((0..batches).all(|slot| sum(&lengths, slot) <= capacity));
        prop_assert!(counts.iter().all(|&count| count <= max_segments.unwrap_or(usize::MAX)));
        prop_assert!(items.len() < batches || counts.iter().all(|&count| count > 0), "empty without need");
        if let Some(ids) = groups {
            for (id, slot) in ids.iter().zip(&slots) {
                let first = ids.iter().position(|other| other == id).unwrap();
                prop_assert_eq!(slots[first], *slot);
            }
        }
        if groups.is_none() || max_segments.is_none() {
            let needed = bins(&items, capacity, max_segments).unwrap();
            // Of more ranks than rows, some have nothing: the others' micro-batches count.
            prop_assert!(batches >= needed.next_multiple_of(ranks).max(steps * ranks));
            prop_assert!(planned.steps == steps || batches == needed.next_multiple_of(ranks));
        }
        let load = |rank: usize, step: usize| sum(&costs, rank * planned.steps + step);
        let longest = |step| (0..ranks).map(|rank| load(rank, step)).max().unwrap();
        let all = |rank| (0..planned.steps).map(|step| load(rank, step)).sum::<i64>();
        let makespan = match sync {
            Sync::MicroBatch => (0..planned.steps).map(longest).sum(),
            Sync::Step => (0..ranks).map(all).max().unwrap(),
        };
        prop_assert_eq!(planned.makespan, makespan);
        prop_assert!(planned.bound <= makespan);
        if each {
            // Neither names of ranks nor the order of steps change what a step takes.
            let plain = step_plan::Options { seed: None, ..options };
            let again = plan_steps(&lengths, &costs, groups, None, &plain, &mut slots.clone());
            prop_assert_eq!(again, Ok(planned));
        }
    }
}

#[test]
fn the_costliest_get_the_cheapest_beside_them() {
    // Two parts of one giant each, in equal counts: no assignment is below 104, the bound of one giant is
    // 102.
    let costs = [100, 100, 9, 8, 7, 6, 1, 1, 3, 3, 3, 3];
    let found = assign(&costs, &costs, None, &Options { equal_counts: true, ..options(4) }).unwrap();
    let rules =
        Rules { lengths: &costs, costs: &costs, groups: None, parts: 4, equal_counts: true, capacity: None };
    assert_eq!(bound(&costs, None, 4, true), Ok((104, 244)));
    assert_eq!(rules.costliest(&found), Some(104));
}

#[test]
fn takes_extreme_numbers() {
    let most = i64::MAX;
    for equal_counts in [false, true] {
        let options = |parts| Options { equal_counts, ..options(parts) };
        assert_eq!(assign(&[], &[], None, &options(3)), Ok(vec![]));
        assert_eq!(assign(&[most], &[most], None, &options(1)), Ok(vec![0]));
        assert_eq!(assign(&[most, 0], &[most, 0], None, &options(2)), Ok(vec![0, 1]));
        assert_eq!(assign(&[1, 2], &[1, 2], None, &options(usize::MAX)), Ok(vec![1, 0]));
        let zeros = assign(&[0; 6], &[0; 6], None, &options(3)).unwrap();
        assert!((0..3).all(|part| zeros.iter().filter(|&&of| of == part).count() == 2), "{zeros:?}");
    }
    let capped = Options { capacity: Some(most), ..options(2) };
    assert_eq!(assign(&[most - 1, 1], &[0, 0], None, &capped), Ok(vec![0, 1]));
}

#[test]
fn refuses() {
    let refused = |lengths: &[i64], groups: Option<&[i64]>, options: Options| {
        assign(lengths, lengths, groups, &options).unwrap_err()
    };
    let capped = Options { capacity: Some(8), ..options(2) };
    let equal = Options { equal_counts: true, ..options(2) };
    assert_eq!(refused(&[1, -2], None, capped), Error::Balance(Problem::NegativeCost { row: 1, got: -2 }));
    assert_eq!(refused(&[i64::MAX, 1], None, options(2)), Error::Balance(Problem::CostOverflow { row: 1 }));
    assert_eq!(
        row_costs(&[1, 1 << 40], 0, 1, &mut [0i64; 2]),
        Err(Error::Balance(Problem::CostOverflow { row: 1 }))
    );
    assert_eq!(row_costs(&[1, -1], 0, 1, &mut [0i64; 2]), Err(Error::NegativeLength { row: 1, got: -1 }));
    assert_eq!(refused(&[1], None, options(0)), Error::NotPositive { name: "parts", got: 0 });
    assert_eq!(
        refused(&[1], None, Options { capacity: Some(0), ..options(1) }),
        Error::NotPositive { name: "capacity", got: 0 }
    );
    assert_eq!(
        refused(&[3, 9], None, capped),
        Error::Balance(Problem::LongerThanPart { row: 1, group: false, length: 9, capacity: 8 })
    );
    assert_eq!(
        refused(&[1, 5, 4], Some(&[1, 0, 0]), capped),
        Error::Balance(Problem::LongerThanPart { row: 1, group: true, length: 9, capacity: 8 })
    );
    assert_eq!(
        refused(&[5, 5, 5], None, capped),
        Error::Balance(Problem::TooFewParts { parts: 2, needed: 3, capacity: 8 })
    );
    assert_eq!(
        refused(&[1, 2], Some(&[0, 2]), options(2)),
        Error::Balance(Problem::UnknownGroup { row: 1, got: 2, rows: 2 })
    );
    assert_eq!(
        refused(&[1; 6], Some(&[0, 0, 1, 1, 2, 2]), equal),
        Error::Balance(Problem::UnequalCounts { parts: 2, least: 2, most: 4 })
    );
    assert_eq!(
        refused(&[1; 4], Some(&[0, 0, 0, 1]), equal),
        Error::Balance(Problem::UnequalCounts { parts: 2, least: 1, most: 3 })
    );
    // A part for which no group is left has no row, which is not as many as the others have.
    for capacity in [None, Some(9)] {
        assert_eq!(
            refused(&[1; 5], Some(&[0, 0, 1, 1, 2]), Options { capacity, equal_counts: true, ..options(4) }),
            Error::Balance(Problem::UnequalCounts { parts: 4, least: 0, most: 2 })
        );
    }
    assert_eq!(
        refused(&[8, 1, 1, 1], None, Options { capacity: Some(8), ..equal }),
        Error::Balance(Problem::EqualCapacity { capacity: 8, fullest: 9 })
    );
    let step = step_plan::Options {
        capacity: 8,
        ranks: 2,
        sync: Sync::Step,
        max_segments: Some(1),
        steps: 0,
        seed: None,
    };
    let plan = |groups, home, options| plan_steps(&[1, 2], &[1, 2], groups, home, &options, &mut [0i64; 2]);
    assert_eq!(
        plan(None, Some(&[0, 2]), step),
        Err(Error::Balance(Problem::UnknownRank { row: 1, got: 2, ranks: 2 }))
    );
    assert_eq!(
        plan(Some(&[1, 1]), None, step),
        Err(Error::Balance(Problem::GroupTooMany { row: 0, rows: 2, most: 1 }))
    );
    for (name, options) in [
        ("capacity", step_plan::Options { capacity: 0, ..step }),
        ("ranks", step_plan::Options { ranks: 0, ..step }),
        ("max_segments", step_plan::Options { max_segments: Some(0), ..step }),
    ] {
        assert_eq!(plan(None, None, options), Err(Error::NotPositive { name, got: 0 }));
    }
}

#[test]
fn micro_batches_go_home() {
    let (lengths, home) = ([4, 4, 4, 4], [1, 0, 1, 0]);
    for sync in [Sync::MicroBatch, Sync::Step] {
        let options =
            step_plan::Options { capacity: 4, ranks: 2, sync, max_segments: None, steps: 0, seed: None };
        let mut slots = [0i64; 4];
        let planned = plan_steps(&lengths, &lengths, None, Some(&home), &options, &mut slots).unwrap();
        let at_home =
            slots.iter().zip(home).filter(|(slot, home)| *slot / planned.steps as i64 == *home).count();
        assert!(at_home == 4 || sync == Sync::Step && at_home >= 2, "{slots:?}");
    }
}
