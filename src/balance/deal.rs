//! First assignments: each item, from the costliest on, to the part that needs it most.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};

use super::items::Items;
use crate::binpack::{self, Algorithm, Oversize};
use crate::{Result, memory};

/// Parts that are looked at for an item, at most; on the average, of the first kind.
const LOOKS_PER_ITEM: usize = 16;

/// What a part may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Elements, at most.
    pub size: i64,
    /// Rows, at least.
    pub least: i64,
    /// Rows, at most.
    pub most: i64,
}

impl Limits {
    /// None.
    pub const NONE: Self = Self { size: i64::MAX, least: 0, most: i64::MAX };

    /// Whether a part of so many elements and rows holds an item, too.
    fn take(&self, size: i64, rows: i64, items: &Items, item: usize) -> bool {
        size <= self.size - items.size(item) && rows <= self.most - items.rows(item)
    }
}

/// A part while items are dealt out, in the order in which it gets the next.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Light {
    load: i64,
    rows: i64,
    number: usize,
    size: i64,
}

/// Within limits, of which parts of the least cost leave room: all items that way if that fits; else the costliest
/// half, quarter or eighth, and the others where they fit best. What parts that are full cost apart is mostly of
/// their longest rows. The first of these ways to be tried is `first`. `None` where nothing fits.
pub(crate) fn lightest(
    items: &Items,
    parts: usize,
    limits: &Limits,
    first: usize,
) -> Result<Option<Vec<usize>>> {
    for halvings in first..4 {
        let mut out = memory::with_room("rows", items.len())?;
        if let Some(dealt) = to_lightest(items, items.len() >> halvings, parts, limits, &mut out)?
            && to_fullest(items, dealt, limits, &mut out)?
        {
            return Ok(Some(out));
        }
    }
    Ok(None)
}

/// So many items to the part of the least cost that has room, of the fewest rows where costs are equal (Graham,
/// 1969). Gives the parts, or `None` where an item finds no room.
fn to_lightest(
    items: &Items,
    count: usize,
    parts: usize,
    limits: &Limits,
    out: &mut Vec<usize>,
) -> Result<Option<Vec<Light>>> {
    let smallest = (0..items.len()).map(|item| items.size(item)).min().unwrap_or(0);
    let light = |number| Reverse(Light { load: 0, rows: 0, number, size: 0 });
    let mut heap = BinaryHeap::from(memory::collected("parts", (0..parts).map(light))?);
    // Those that an item found too full, by their room: they are looked at again when a smaller one comes.
    let mut full: BinaryHeap<(i64, Light)> = BinaryHeap::from(memory::with_room("parts", parts)?);
    let mut closed = memory::with_room("parts", parts)?;
    // Where every item looks at many full parts, they are too full for this.
    let mut looks = LOOKS_PER_ITEM * items.len();
    for item in 0..count {
        while let Some(top) = full.peek_mut()
            && items.size(item) <= top.0
        {
            let (_, part) = PeekMut::pop(top);
            heap.push(Reverse(part));
        }
        loop {
            let Some(mut top) = heap.peek_mut() else { return Ok(None) };
            let part = &mut top.0;
            if limits.take(part.size, part.rows, items, item) {
                out.push(part.number);
                part.load += items.costs[item];
                part.size += items.size(item);
                part.rows += items.rows(item);
                break;
            }
            let Reverse(part) = PeekMut::pop(top);
            let room = limits.size - part.size;
            if room < smallest || part.rows >= limits.most {
                closed.push(part);
            } else {
                full.push((room, part));
            }
            let Some(left) = looks.checked_sub(1) else { return Ok(None) };
            looks = left;
        }
    }
    closed.extend(heap.into_iter().map(|part| part.0));
    closed.extend(full.into_iter().map(|(_, part)| part));
    Ok(Some(closed))
}

/// The items that have no part yet, longest first, to the fullest part that has room. Whether all found one.
fn to_fullest(items: &Items, dealt: Vec<Light>, limits: &Limits, out: &mut Vec<usize>) -> Result<bool> {
    let first = out.len();
    if first == items.len() {
        return Ok(true);
    }
    let mut order = memory::collected("rows", first..items.len())?;
    order.sort_unstable_by_key(|&item| (Reverse(items.size(item)), item));
    memory::available::<[u8; 2 * size_of::<Light>()]>("parts", dealt.len())?;
    let mut open: BTreeMap<(i64, usize), Light> =
        dealt.into_iter().map(|part| ((limits.size - part.size, part.number), part)).collect();
    out.resize(items.len(), 0);
    for item in order {
        let mut fitting = open.range((items.size(item), 0)..).take(LOOKS_PER_ITEM);
        let Some(&key) =
            fitting.find(|(_, part)| limits.take(part.size, part.rows, items, item)).map(|(key, _)| key)
        else {
            return Ok(false);
        };
        let Some(mut part) = open.remove(&key) else { return Ok(false) };
        part.size += items.size(item);
        part.rows += items.rows(item);
        out[item] = part.number;
        if part.rows < limits.most {
            open.insert((limits.size - part.size, part.number), part);
        }
    }
    Ok(true)
}

/// As many items to each part, or one more: the costliest that is left to the part that needs most for each
/// place it has free.
///
/// What a part needs is what it is short of the mean. A part of a very costly item needs little, so that the
/// cheapest are left for it; the textbook's way, by rounds or by differences, gives it an average share of
/// each round.
pub(crate) fn neediest(items: &Items, parts: usize) -> Result<Vec<usize>> {
    let mean = items.total / parts as i64;
    let (each, more) = (items.len() / parts, items.len() % parts);
    let free = |part| (each + usize::from(part < more)) as i64;
    let mut loads = memory::filled("parts", 0i64, parts)?;
    let mut places = memory::collected("parts", (0..parts).map(free))?;
    let needy = (0..parts).filter(|&part| free(part) > 0).map(|part| (mean / free(part), Reverse(part)));
    let mut heap = BinaryHeap::from(memory::collected("parts", needy)?);
    let mut out = memory::with_room("rows", items.len())?;
    for &cost in &items.costs {
        let Some(mut top) = heap.peek_mut() else { break };
        let Reverse(part) = top.1;
        out.push(part);
        loads[part] += cost;
        places[part] -= 1;
        if places[part] == 0 {
            PeekMut::pop(top);
        } else {
            top.0 = (mean - loads[part]).div_euclid(places[part]);
        }
    }
    Ok(out)
}

/// To the part of the fewest rows, of the least cost where rows are equal; items of many rows first.
pub(super) fn fewest_rows(items: &Items, parts: usize) -> Result<Vec<usize>> {
    let mut order = memory::collected("rows", 0..items.len())?;
    memory::available::<usize>("rows", items.len())?;
    order.sort_by_key(|&item| Reverse(items.rows(item)));
    let few = |part| Reverse((0i64, 0i64, part));
    let mut heap = BinaryHeap::from(memory::collected("parts", (0..parts).map(few))?);
    let mut out = memory::filled("rows", 0, items.len())?;
    for item in order {
        let Some(mut top) = heap.peek_mut() else { break };
        let (rows, load, part) = &mut top.0;
        *rows += items.rows(item);
        *load += items.costs[item];
        out[item] = *part;
    }
    Ok(out)
}

/// First fit decreasing by size, and how many parts that takes. Every item fits an empty part.
pub(crate) fn first_fit(items: &Items, limits: &Limits) -> Result<(Vec<usize>, usize)> {
    if items.rows_of_each() != Some(1) && limits.most < i64::MAX {
        return first_fit_of_groups(items, limits);
    }
    let options = binpack::Options {
        capacity: limits.size.max(1), // no tokens at all fit one, too
        align: 1,
        max_segments: usize::try_from(limits.most).ok().filter(|_| limits.most < i64::MAX),
        algorithm: Algorithm::FirstFitDecreasing,
        oversize: Oversize::Raise,
    };
    let sizes = memory::collected("rows", (0..items.len()).map(|item| items.size(item)))?;
    let mut bins = memory::filled("rows", 0i64, items.len())?;
    binpack::plan_bins(&sizes, &options, &mut bins)?;
    let parts = bins.iter().max().map_or(0, |&last| last as usize + 1);
    Ok((memory::collected("rows", bins.iter().map(|&bin| bin as usize))?, parts))
}

/// The same where groups have limits of two kinds: by looking at every part.
fn first_fit_of_groups(items: &Items, limits: &Limits) -> Result<(Vec<usize>, usize)> {
    let mut order = memory::collected("rows", 0..items.len())?;
    memory::available::<usize>("rows", items.len())?;
    order.sort_by_key(|&item| Reverse(items.size(item)));
    let mut parts: Vec<(i64, i64)> = memory::with_room("parts", items.len())?;
    let mut out = memory::filled("rows", 0, items.len())?;
    for item in order {
        let room = parts.iter().position(|&(size, rows)| limits.take(size, rows, items, item));
        let part = room.unwrap_or(parts.len());
        if part == parts.len() {
            parts.push((0, 0));
        }
        parts[part].0 += items.size(item);
        parts[part].1 += items.rows(item);
        out[item] = part;
    }
    Ok((out, parts.len()))
}
