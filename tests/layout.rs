//! `layout` and `offsets` beside naive loops, through the public interface and plain vectors.

use proptest::prelude::*;
use rollkit::layout::{ABSENT, Slots, mask, pack_starts, positions, segment_ids};
use rollkit::{Error, offsets};

/// Rows in bins of `width`, some dropped, in an order of no meaning.
#[derive(Debug, Clone)]
pub struct Plan {
    starts: Vec<i64>,
    lengths: Vec<i64>,
    order: Vec<i64>,
    width: usize,
    size: usize,
}

impl Plan {
    fn slots(&self) -> Slots<'_> {
        Slots { starts: &self.starts, lengths: &self.lengths, order: Some(&self.order), size: self.size }
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    let row = (0i64..6, 0i64..3, prop::bool::weighted(0.9), any::<u32>());
    (prop::collection::vec(row, 0..12), 0usize..4).prop_map(|(mut rows, tail)| {
        let mut free = 0;
        let mut placed = Vec::new();
        for (length, gap, present, key) in rows.drain(..) {
            placed.push(if present { (free + gap, length, key) } else { (ABSENT, 0, key) });
            free += if present { gap + length } else { 0 };
        }
        placed.sort_by_key(|row| row.2); // any order of input
        let starts: Vec<_> = placed.iter().map(|row| row.0).collect();
        let lengths: Vec<_> = placed.iter().map(|row| row.1).collect();
        let mut order: Vec<_> = (0..starts.len() as i64).collect();
        order.sort_by_key(|&row| (starts[row as usize], lengths[row as usize]));
        Plan { starts, lengths, order, width: 5, size: free as usize + tail }
    })
}

/// Which row has each element, and where in the row it is.
fn cells(plan: &Plan) -> Vec<Option<(usize, i64)>> {
    let mut cells = vec![None; plan.size];
    for (row, (&start, &length)) in plan.starts.iter().zip(&plan.lengths).enumerate() {
        for position in 0..length {
            cells[(start + position) as usize] = Some((row, position));
        }
    }
    cells
}

proptest! {
    #[test]
    fn what_is_read_off_is_that_of_a_loop(plan in plans()) {
        let slots = plan.slots();
        prop_assert_eq!(slots.check(), Ok(()));
        let cells = cells(&plan);
        let mut out = vec![77i32; plan.size];
        positions(&slots, &mut out).unwrap();
        let wanted: Vec<_> = cells.iter().map(|cell| cell.map_or(0, |(_, at)| at as i32)).collect();
        prop_assert_eq!(&out, &wanted);

        let mut bits = vec![77u8; plan.size];
        mask(&slots, &mut bits).unwrap();
        let wanted: Vec<_> = cells.iter().map(|cell| u8::from(cell.is_some())).collect();
        prop_assert_eq!(bits, wanted);

        segment_ids(&slots, plan.width, &mut out).unwrap();
        for (i, cell) in cells.iter().enumerate() {
            let Some((row, _)) = cell else { prop_assert_eq!(out[i], 0); continue };
            // Rows on this line that come before, and this one.
            let line = |row: usize| plan.starts[row] as usize / plan.width;
            let key = |row: usize| (plan.starts[row], plan.lengths[row]);
            let before = (0..plan.starts.len())
                .filter(|&other| plan.starts[other] != ABSENT && line(other) == line(*row))
                .filter(|&other| key(other) < key(*row))
                .count();
            prop_assert_eq!(out[i], before as i32 + 1);
        }
    }

    #[test]
    fn any_one_change_that_breaks_a_plan_is_refused(plan in plans(), at in any::<prop::sample::Index>(), to in -3i64..40) {
        prop_assume!(!plan.starts.is_empty());
        let row = at.index(plan.starts.len());
        let mut broken = plan.clone();
        broken.starts[row] = to;
        broken.order.sort_by_key(|&r| (broken.starts[r as usize], broken.lengths[r as usize]));
        let mut taken = vec![0u8; broken.size];
        let mut valid = true;
        for (&start, &length) in broken.starts.iter().zip(&broken.lengths) {
            if start == ABSENT { continue }
            valid &= start >= 0 && start + length <= broken.size as i64;
            for cell in start.max(0)..(start + length).min(broken.size as i64) {
                taken[cell as usize] += 1;
            }
        }
        // Inside another row an empty one has no place either.
        valid &= taken.iter().all(|&rows| rows < 2);
        let inside = |at: i64| broken.starts.iter().zip(&broken.lengths).any(|(&start, &length)| {
            start != ABSENT && start < at && at < start + length
        });
        valid &= broken.starts.iter().zip(&broken.lengths).all(|(&start, &length)| length > 0 || !inside(start));
        prop_assert_eq!(broken.slots().check().is_ok(), valid);
    }

    #[test]
    fn orders_that_are_no_permutation_are_refused(plan in plans(), at in any::<prop::sample::Index>(), to in -1i64..14) {
        prop_assume!(!plan.order.is_empty());
        let i = at.index(plan.order.len());
        let mut broken = plan.clone();
        let was = std::mem::replace(&mut broken.order[i], to);
        let rows = plan.order.len() as i64;
        let lost = |row: i64| plan.starts[row as usize] != ABSENT && plan.lengths[row as usize] > 0;
        // A row that is visited twice or never, unless it has no elements.
        if !(0..rows).contains(&to) || (to != was && (lost(was) || lost(to))) {
            prop_assert!(broken.slots().check().is_err());
        }
    }

    #[test]
    fn offsets_are_running_sums(lengths in prop::collection::vec(0i64..9, 0..20)) {
        let mut out = vec![-1; lengths.len() + 1];
        offsets::from_lengths(&lengths, &mut out).unwrap();
        for i in 0..=lengths.len() {
            prop_assert_eq!(out[i], lengths[..i].iter().sum::<i64>());
        }
        prop_assert_eq!(offsets::total(&lengths), Ok(out[lengths.len()]));
        prop_assert_eq!(offsets::check(&out, out[lengths.len()] as usize), Ok(()));
        if out[lengths.len()] > 0 {
            prop_assert!(offsets::check(&out, out[lengths.len()] as usize - 1).is_err());
        }
    }

    #[test]
    fn bins_are_filled_in_input_order(
        rows in prop::collection::vec((0i64..5, -1i64..4), 4..12),
        align in 1i64..4,
    ) {
        let lengths: Vec<_> = rows.iter().map(|row| row.0).collect();
        let bins: Vec<_> = rows.iter().map(|row| row.1).collect();
        let width = 100;
        let mut starts = vec![7; rows.len()];
        pack_starts(&lengths, &bins, width, align, &mut starts).unwrap();
        let mut used = [0i64; 4];
        for (row, &(length, bin)) in rows.iter().enumerate() {
            if bin == ABSENT {
                prop_assert_eq!(starts[row], ABSENT);
                continue;
            }
            let used = &mut used[bin as usize];
            prop_assert_eq!(starts[row], bin * width + if length == 0 { 0 } else { *used });
            *used = (*used + length + align - 1) / align * align;
        }
    }
}

#[test]
fn a_row_that_is_never_visited_is_missed_whatever_its_length() {
    // Were the lengths added without care, these two would make up for each other.
    let starts = [0, 3, 6];
    for lengths in [[0, -3, 3], [0, i64::MAX, i64::MAX]] {
        let slots = Slots { starts: &starts, lengths: &lengths, order: Some(&[0, 0, 0]), size: 10 };
        assert!(slots.check().is_err());
    }
}

#[test]
fn layouts_of_nothing() {
    let slots = Slots { starts: &[], lengths: &[], order: None, size: 3 };
    let mut out = [9; 3];
    positions(&slots, &mut out).unwrap();
    assert_eq!(out, [0; 3]);
    assert_eq!(positions(&slots, &mut [0; 4]), Err(Error::BufferSize { name: "out", got: 4, wanted: 3 }));
}

#[test]
fn a_full_bin_says_which_row_is_too_much() {
    let mut starts = [0; 2];
    assert_eq!(
        pack_starts(&[3, 2], &[0, 0], 4, 1, &mut starts),
        Err(Error::RowTooLong { row: 1, length: 2, capacity: 1 })
    );
    assert_eq!(
        pack_starts(&[3, 2], &[0, 1], 4, 0, &mut starts),
        Err(Error::NotPositive { name: "align", got: 0 })
    );
}
