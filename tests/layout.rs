//! `layout` and `offsets` beside naive loops, through the public interface and plain vectors.

use proptest::prelude::*;
use rollkit::layout::{ABSENT, Slots, Spans, mask, positions, segment_ids, spans, visible_until};
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
        positions(&slots, None, &mut out).unwrap();
        let wanted: Vec<_> = cells.iter().map(|cell| cell.map_or(0, |(_, at)| at as i32)).collect();
        prop_assert_eq!(&out, &wanted);

        let mut bits = vec![77u8; plan.size];
        mask(&slots, &mut bits).unwrap();
        let wanted: Vec<_> = cells.iter().map(|cell| u8::from(cell.is_some())).collect();
        prop_assert_eq!(bits, wanted);

        let ends: Vec<_> = plan.starts.iter().zip(&plan.lengths).map(|(start, length)| start + length).collect();
        visible_until(&slots, &ends, plan.width, &mut out).unwrap();
        let wanted = cells.iter().enumerate().map(|(at, cell)| {
            let (start, end) = cell.map_or((at, at), |(row, _)| (plan.starts[row] as usize, ends[row] as usize));
            (end - start / plan.width * plan.width) as i32
        });
        prop_assert_eq!(&out, &wanted.collect::<Vec<_>>());

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
    fn sorting_finds_the_order_whatever_it_begins_with(plan in plans(), keys in prop::collection::vec(any::<u32>(), 12)) {
        let mut near = plan.order.clone();
        near.sort_by_key(|&row| keys[row as usize]);
        let unsorted = Slots { order: Some(&near), ..plan.slots() };
        let key = |row: &i64| (plan.starts[*row as usize], plan.lengths[*row as usize] > 0);
        for slots in [plan.slots(), unsorted, Slots { order: None, ..unsorted }] {
            let order = slots.sorted().unwrap().unwrap_or_else(|| (0..near.len() as i64).collect());
            let placed = |rows: &[i64]| rows.iter().map(key).filter(|key| key.0 != ABSENT).collect::<Vec<_>>();
            prop_assert_eq!(placed(&order), placed(&plan.order));
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
    positions(&slots, None, &mut out).unwrap();
    assert_eq!(out, [0; 3]);
    assert_eq!(
        positions(&slots, None, &mut [0; 4]),
        Err(Error::BufferSize { name: "out", got: 4, wanted: 3 })
    );
}

#[test]
fn sorting_refuses_what_a_check_does() {
    let slots = Slots { starts: &[3, 0, 2], lengths: &[1, 3, 1], order: None, size: 4 };
    assert_eq!(slots.sorted(), Err(Error::Overlap { row: 2, start: 2, free: 3 }));
    let outside = Error::OutsideSource { row: 1, begin: 3, length: 1, available: 3 };
    assert_eq!(Slots { order: Some(&[0, 3, 1]), ..slots }.sorted(), Err(outside));
}

#[test]
fn a_part_is_within_its_row() {
    let slots = Slots { starts: &[2, ABSENT, 0], lengths: &[3, 0, 2], order: Some(&[1, 2, 0]), size: 5 };
    let rows = [3, 4, 6]; // the last one has been cut to 2
    let part = |begins, lengths| {
        let mut out = ([7; 3], [7; 3]);
        spans(&slots, &rows, Spans { begins, lengths }, &mut out.0, &mut out.1).map(|()| out)
    };
    assert_eq!(part(&[1], &[2, 3, 4]), Ok(([3, ABSENT, 1], [2, 0, 1])));
    assert_eq!(part(&[3, 0, 2], &[0, 0, 1]), Ok(([2, ABSENT, ABSENT], [0, 0, 0])));
    let outside = |row, begin, length, available| Err(Error::OutsidePart { row, begin, length, available });
    assert_eq!(part(&[1], &[3, 3, 4]), outside(0, 1, 3, 3));
    assert_eq!(part(&[0, 0, -1], &[3, 3, 4]), outside(2, -1, 4, 6));
    assert_eq!(part(&[0, i64::MAX, 0], &[3, 3, 4]), outside(1, i64::MAX, 3, 4));
    let few = Error::RowCount { name: "begins", got: 2, wanted: 3 };
    assert_eq!(part(&[0, 0], &[3, 3, 4]), Err(few));
}
