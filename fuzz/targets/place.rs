//! A layout, the rows placed by it, and the rows taken back: against a loop over elements.

#![no_main]

use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rollkit::layout::{Slots, mask, segment_ids};
use rollkit::place::{Gaps, Mover, Part, Pieces, place};

#[derive(Arbitrary, Debug)]
struct Case {
    item: u8,
    bytes: Vec<u8>,
    rows: Vec<Row>,
    size: u16,
    ordered: bool,
    order: Vec<u8>,
    fill: u8,
}

#[derive(Arbitrary, Debug)]
struct Row {
    source: i8,
    begin: i16,
    start: i16,
    length: i16,
    hostile: Option<i64>,
}

/// What a loop over rows and elements writes; `None` where two rows meet or one lies outside.
fn reference(slots: &Slots<'_>, rows: &[&[u8]], fill: &[u8]) -> Option<Vec<u8>> {
    let item = fill.len();
    let mut out: Vec<Option<&[u8]>> = vec![None; slots.size];
    for ((&start, &length), bytes) in slots.starts.iter().zip(slots.lengths).zip(rows) {
        for at in 0..length.max(0) {
            if start != -1 {
                let slot = out.get_mut(usize::try_from(start.checked_add(at)?).ok()?)?;
                let element = &bytes[at as usize * item..][..item];
                if slot.replace(element).is_some() {
                    return None;
                }
            }
        }
    }
    Some(out.into_iter().flat_map(|element| element.unwrap_or(fill)).copied().collect())
}

fuzz_target!(|case: Case| {
    let item = usize::from(case.item % 17) + 1;
    let column = |get: fn(&Row) -> i64| case.rows.iter().map(get).collect::<Vec<_>>();
    let starts = column(|row| row.hostile.filter(|n| n % 3 == 0).unwrap_or((row.start % 512).into()));
    let lengths = column(|row| row.hostile.filter(|n| n % 3 == 1).unwrap_or((row.length % 64).into()));
    let begins = column(|row| row.hostile.filter(|n| n % 3 == 2).unwrap_or((row.begin % 64).into()));
    let sources = column(|row| (row.source % 4).into());
    let order: Vec<i64> = case.order.iter().map(|&row| row.into()).collect();
    let size = usize::from(case.size % 2048);

    let whole: Vec<&[u8]> = case.bytes.chunks(24 * item).map(|row| &row[..row.len() / item * item]).collect();
    let pieces = Pieces { source_rows: &sources, begins: &begins, lengths: &lengths }.of(&whole, item);
    let slots = Slots { starts: &starts, lengths: &lengths, order: case.ordered.then_some(&order), size };
    let sorted = slots.sorted();
    let (mut ids, mut marks) = (vec![9; size], vec![9u8; size]);
    let slots = match &sorted {
        Ok(order) => Slots { order: order.as_deref(), ..slots },
        Err(_) => slots,
    };
    let read = [segment_ids(&slots, 64, &mut ids), mask(&slots, &mut marks)];
    assert!(read.iter().all(|result| result.is_ok() == slots.check().is_ok()));

    let Ok(rows) = pieces else { return };
    let fill: Vec<u8> = (0..item as u8).map(|at| case.fill.wrapping_add(at)).collect();
    let mut out = vec![0xEE; size * item];
    let done = place(&rows, &slots, Gaps::Fill(&fill), Mover::Copy, &mut out);
    if sorted.is_ok() {
        done.unwrap();
        assert_eq!(Some(&out), reference(&slots, &rows, &fill).as_ref());
        let kept: Vec<usize> = slots.rows().collect();
        let at = |values: &[i64]| kept.iter().map(|&row| values[row]).collect::<Vec<_>>();
        let (begins, lengths) = (at(&starts), at(&lengths));
        let mut taken = Vec::new();
        Part { bytes: &out, item, begins: &begins, lengths: &lengths }.append_to(&mut taken).unwrap();
        assert_eq!(taken, kept.iter().map(|&row| rows[row]).collect::<Vec<_>>());
    }
});
