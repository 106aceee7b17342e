//! Making an assignment better: items of the costliest part for cheaper ones of another.
//!
//! Of all exchanges of one item for one or none, the one after which the costlier of the two parts costs
//! least is made, and so on until the costliest part has none. Two parts can at best meet in the middle, so
//! that few partners, from the cheapest on, need a look.

use std::collections::BTreeSet;

use super::deal::Limits;
use super::items::Items;
use crate::{Result, memory};

/// Entries that are looked at, at most, however bad the numbers: so many, and so many an item.
const LOOKS: usize = 1 << 24;
const LOOKS_PER_ITEM: usize = 16;

/// Partners that are looked at first: measured to leave parts as even as all do, in a tenth of the time where
/// parts are nearly full.
const PARTNERS: usize = 12;

/// Bytes of a set for each of its entries, where its nodes are half full.
const SET_ENTRY: usize = 48;

/// A part and what is in it.
#[derive(Clone, Default)]
pub(crate) struct Part {
    /// What its items cost.
    pub load: i64,
    /// Its elements.
    pub size: i64,
    /// Its rows.
    pub rows: i64,
    /// Cost and number of its items, costliest first.
    entries: Vec<(i64, usize)>,
}

impl Part {
    /// Adds an item in its place.
    fn put(&mut self, (cost, item): (i64, usize), items: &Items) -> Result<()> {
        self.load += cost;
        self.size += items.size(item);
        self.rows += items.rows(item);
        memory::make_room("rows", &mut self.entries, 1)?;
        let at = self.entries.partition_point(|entry| entry.1 < item);
        self.entries.insert(at, (cost, item));
        Ok(())
    }

    /// Takes an item out.
    fn take(&mut self, at: usize, items: &Items) -> (i64, usize) {
        let (cost, item) = self.entries.remove(at);
        self.load -= cost;
        self.size -= items.size(item);
        self.rows -= items.rows(item);
        (cost, item)
    }
}

/// Which item of a part goes to its partner, and which comes back, if one does.
#[derive(Clone, Copy)]
struct Exchange {
    partner: usize,
    given: usize,
    taken: Option<usize>,
}

/// What a search has found, and how much longer it may go on.
struct Search {
    /// What the costlier of the two parts costs after the best exchange.
    least: i64,
    best: Option<Exchange>,
    looks: usize,
}

/// An assignment that can be made better.
pub(crate) struct Parts<'a> {
    items: &'a Items,
    limits: Limits,
    all: Vec<Part>,
}

impl<'a> Parts<'a> {
    /// The part of each item is in `dealt`.
    pub fn new(items: &'a Items, dealt: &[usize], parts: usize, limits: Limits) -> Result<Self> {
        let mut all = memory::filled("parts", Part::default(), parts)?;
        for (item, &part) in dealt.iter().enumerate() {
            all[part].put((items.costs[item], item), items)?;
        }
        Ok(Self { items, limits, all })
    }

    /// The parts.
    pub fn all(&self) -> &[Part] {
        &self.all
    }

    /// Writes the part of each item.
    pub fn write(&self, dealt: &mut [usize]) {
        for (number, part) in self.all.iter().enumerate() {
            for &(_, item) in &part.entries {
                dealt[item] = number;
            }
        }
    }

    /// Gives each empty part the costliest item of the costliest part that has two.
    pub fn fill_empty(&mut self) -> Result<()> {
        let several = |part: &usize| self.all[*part].entries.len() > 1;
        let mut rich = memory::collected("parts", (0..self.all.len()).filter(several))?;
        memory::available::<usize>("parts", rich.len())?;
        rich.sort_by_key(|&part| self.all[part].load);
        for part in 0..self.all.len() {
            if !self.all[part].entries.is_empty() {
                continue;
            }
            while rich.last().is_some_and(|&last| self.all[last].entries.len() == 1) {
                rich.pop();
            }
            let Some(&from) = rich.last() else { break };
            let entry = self.all[from].take(0, self.items);
            self.all[part].put(entry, self.items)?;
        }
        Ok(())
    }

    /// Exchanges items until no part costs more than `target`, or the costliest has no exchange that makes it
    /// better; with `every`, those below that one are made better then, too.
    pub fn improve(&mut self, target: i64, every: bool) -> Result<()> {
        memory::available::<[u8; SET_ENTRY]>("parts", self.all.len())?;
        let mut order: BTreeSet<_> =
            self.all.iter().enumerate().map(|(number, part)| (part.load, number)).collect();
        let mut looks = LOOKS.saturating_add(self.items.len().saturating_mul(LOOKS_PER_ITEM));
        while let Some((load, part)) = order.pop_last()
            && load > target
            && looks > 0
        {
            let mut search = Search { least: load, best: None, looks };
            self.search(part, order.iter().take(PARTNERS), &mut search);
            if search.best.is_none() && !every {
                self.search(part, order.iter().skip(PARTNERS), &mut search);
            }
            looks = search.looks;
            let Some(exchange) = search.best else {
                if every {
                    continue; // it stays as it is
                }
                break;
            };
            order.remove(&(self.all[exchange.partner].load, exchange.partner));
            self.exchange(part, exchange)?;
            for part in [part, exchange.partner] {
                order.insert((self.all[part].load, part));
            }
        }
        Ok(())
    }

    fn exchange(&mut self, part: usize, Exchange { partner, given, taken }: Exchange) -> Result<()> {
        let given = self.all[part].take(given, self.items);
        let taken = taken.map(|at| self.all[partner].take(at, self.items));
        self.all[partner].put(given, self.items)?;
        taken.map_or(Ok(()), |entry| self.all[part].put(entry, self.items))
    }

    /// Looks for the best exchange of a part with one of the others, which come from the cheapest on.
    fn search<'b>(&self, part: usize, others: impl Iterator<Item = &'b (i64, usize)>, search: &mut Search) {
        let own = &self.all[part];
        for &(load, partner) in others {
            if i64::midpoint(own.load, load) >= search.least || search.looks == 0 {
                break; // nor are the others better, which cost more
            }
            let entries = own.entries.len() + self.all[partner].entries.len();
            search.looks = search.looks.saturating_sub(entries);
            self.search_pair(own, partner, search);
        }
    }

    /// Looks for the best exchange of two parts: for each item of the one, those of the other after which
    /// both would cost nearly the same. Costs fall on both sides, so that one pass over each finds them.
    fn search_pair(&self, own: &Part, partner: usize, search: &mut Search) {
        let entries = &self.all[partner].entries;
        let half = (own.load - self.all[partner].load) / 2;
        let mut near = 0;
        for (given, &(cost, _)) in own.entries.iter().enumerate() {
            while entries.get(near).is_some_and(|entry| entry.0 > cost - half) {
                near += 1;
            }
            // From there on each is worse than the one before.
            let mut go_on = |taken| self.consider(own, Exchange { partner, given, taken }, search);
            let _ = (0..near).rev().all(|at| go_on(Some(at)));
            let _ = (near..entries.len()).map(Some).chain([None]).all(go_on);
        }
    }

    /// Keeps an exchange if it is the best yet, and within the limits; whether the next may be better.
    fn consider(&self, own: &Part, exchange: Exchange, search: &mut Search) -> bool {
        let other = &self.all[exchange.partner];
        let (cost, given) = own.entries[exchange.given];
        let taken = exchange.taken.map(|at| other.entries[at]);
        let moved = cost - taken.map_or(0, |(cost, _)| cost);
        let most = (own.load - moved).max(other.load + moved);
        if moved <= 0 || most >= search.least {
            return false;
        }
        if !self.may(own, other, given, taken.map(|(_, item)| item)) {
            search.looks = search.looks.saturating_sub(1);
            return search.looks > 0;
        }
        (search.least, search.best) = (most, Some(exchange));
        false
    }

    /// Whether two parts stay within their limits.
    fn may(&self, own: &Part, other: &Part, given: usize, taken: Option<usize>) -> bool {
        let size = self.items.size(given) - taken.map_or(0, |item| self.items.size(item));
        let rows = self.items.rows(given) - taken.map_or(0, |item| self.items.rows(item));
        let counts = self.limits.least..=self.limits.most;
        own.size - size <= self.limits.size
            && other.size + size <= self.limits.size
            && (rows == 0 || (counts.contains(&(own.rows - rows)) && counts.contains(&(other.rows + rows))))
    }
}
