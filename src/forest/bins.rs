//! Bins of rows whose paths overlap: what a row adds to each, and moving rows between them.

use super::{Node, Options, ROOT};
use crate::{Result, memory};

/// Steps until a search gives up; what has been found by then stands.
const STEPS: usize = 1 << 23;

/// How many of the emptiest bins are tried before no more is dissolved.
const TRIED: usize = 8;

/// A node in a bin.
#[derive(Clone, Copy)]
struct Entry {
    bin: usize,
    /// Its children in the bin, and one for a row that ends with it.
    count: usize,
    /// Of a root: the tokens of its tree in the bin.
    tokens: i64,
    /// The node's entry for another bin.
    next: usize,
}

/// What one row has in common with a bin.
#[derive(Clone, Copy, Default)]
struct Shared {
    /// The look that this is of.
    look: usize,
    /// The elements of the row that are there.
    depth: i64,
    /// The tokens of its tree that are there.
    tokens: i64,
}

#[derive(Clone, Copy, Default)]
struct Bin {
    slots: i64,
    trees: usize,
    dissolved: bool,
}

/// Bins while rows are put into them. A row is the node that it ends with.
pub(super) struct Bins<'a> {
    nodes: &'a [Node],
    options: Options,
    slots: i64,
    /// Of each node the first of its entries.
    first: Vec<usize>,
    entries: Vec<Entry>,
    /// Entries that are free again.
    free: Vec<usize>,
    roots: Vec<usize>,
    all: Vec<Bin>,
    rows: Vec<Vec<usize>>,
    shared: Vec<Shared>,
    looks: usize,
    /// How many bins, the last ones, are looked at for a row: all, but where rows are very many.
    window: usize,
    steps: usize,
}

impl<'a> Bins<'a> {
    /// So many bins, for so many rows.
    pub fn new(nodes: &'a [Node], rows: usize, options: &Options, count: usize) -> Result<Self> {
        let mut roots = memory::with_room("nodes", nodes.len())?;
        for (number, node) in nodes.iter().enumerate() {
            roots.push(roots.get(node.parent).copied().unwrap_or(number));
        }
        let mut bins = Self {
            nodes,
            options: *options,
            slots: (options.capacity / options.align).max(1),
            first: memory::filled("nodes", ROOT, nodes.len())?,
            entries: Vec::new(),
            free: Vec::new(),
            roots,
            all: Vec::new(),
            rows: Vec::new(),
            shared: Vec::new(),
            looks: 0,
            window: STEPS / rows.max(1) + 1,
            steps: 0,
        };
        for _ in 0..count {
            bins.open()?;
        }
        Ok(bins)
    }

    fn open(&mut self) -> Result<usize> {
        memory::push("bins", &mut self.all, Bin::default())?;
        memory::push("bins", &mut self.rows, Vec::new())?;
        memory::push("bins", &mut self.shared, Shared::default())?;
        Ok(self.all.len() - 1)
    }

    pub fn count(&self) -> usize {
        self.all.iter().filter(|bin| !bin.dissolved).count()
    }

    /// The tokens of all bins.
    pub fn tokens(&self) -> i64 {
        let nodes = self.first.iter().zip(self.nodes).map(|(&first, node)| {
            let copies = std::iter::successors(Some(first), |&at| Some(self.entries.get(at)?.next));
            (node.end - node.begin) * (copies.take_while(|&at| at != ROOT).count() as i64)
        });
        nodes.sum()
    }

    /// The bin of each row, numbered through, and how many there are.
    pub fn found(&self) -> Result<(Vec<usize>, usize)> {
        let mut found = memory::filled("nodes", ROOT, self.nodes.len())?;
        let left = self.rows.iter().zip(&self.all).filter(|(_, bin)| !bin.dissolved);
        for (number, (rows, _)) in left.enumerate() {
            for &row in rows {
                found[row] = number;
            }
        }
        Ok((found, self.count()))
    }

    /// The slots that a tree of so many tokens takes, which fit a bin.
    fn need(&self, tokens: i64) -> i64 {
        let touched = tokens.cast_unsigned().div_ceil(self.options.align.cast_unsigned()) as i64;
        touched.min(self.slots)
    }

    /// Puts a row into a bin.
    pub fn add(&mut self, row: usize, bin: usize) -> Result<()> {
        memory::push("rows", &mut self.rows[bin], row)?;
        let (mut at, mut added) = (row, 0);
        while at != ROOT {
            if let Some(entry) = self.entry(at, bin) {
                self.entries[entry].count += 1;
                break;
            }
            let entry = Entry { bin, count: 1, tokens: 0, next: self.first[at] };
            self.first[at] = if let Some(place) = self.free.pop() {
                self.entries[place] = entry;
                place
            } else {
                memory::push("entries", &mut self.entries, entry)?;
                self.entries.len() - 1
            };
            added += self.nodes[at].end - self.nodes[at].begin;
            at = self.nodes[at].parent;
        }
        self.resize(row, bin, added);
        Ok(())
    }

    /// Takes the row out of a bin that came to it last.
    fn undo(&mut self, bin: usize) -> Result<()> {
        let Some(row) = self.rows[bin].pop() else { return Ok(()) };
        let mut freed = 0;
        let mut at = row;
        let mut gone = Vec::new();
        while at != ROOT {
            let Some(entry) = self.entry(at, bin) else { break };
            self.entries[entry].count -= 1;
            if self.entries[entry].count > 0 {
                break;
            }
            memory::push("nodes", &mut gone, at)?;
            freed += self.nodes[at].end - self.nodes[at].begin;
            at = self.nodes[at].parent;
        }
        self.resize(row, bin, -freed); // while its root has an entry
        for node in gone {
            self.forget(node, bin)?;
        }
        Ok(())
    }

    fn resize(&mut self, row: usize, bin: usize, added: i64) {
        let Some(root) = self.entry(self.roots[row], bin) else { return };
        let before = self.entries[root].tokens;
        self.entries[root].tokens += added;
        let change = self.need(before + added) - self.need(before);
        let bin = &mut self.all[bin];
        bin.slots += change;
        bin.trees = bin.trees + usize::from(before == 0 && added > 0)
            - usize::from(before > 0 && before + added == 0);
    }

    /// The entry of a node for a bin. It becomes the node's first: the next row mostly goes to the same bin.
    fn entry(&mut self, node: usize, bin: usize) -> Option<usize> {
        let (mut before, mut at) = (ROOT, self.first[node]);
        while self.entries.get(at)?.bin != bin {
            (before, at) = (at, self.entries[at].next);
        }
        if before != ROOT {
            self.entries[before].next = self.entries[at].next;
            self.entries[at].next = std::mem::replace(&mut self.first[node], at);
        }
        Some(at)
    }

    fn forget(&mut self, node: usize, bin: usize) -> Result<()> {
        if let Some(entry) = self.entry(node, bin) {
            self.first[node] = self.entries[entry].next; // it was the first
            memory::push("entries", &mut self.free, entry)?;
        }
        Ok(())
    }

    /// Looks up what every bin has of a row. Of a bin that is not found to have any, it counts as having none: it
    /// has more room for the row than that.
    fn look(&mut self, row: usize) {
        self.looks += 1;
        let mut at = row;
        while let Some(node) = self.nodes.get(at) {
            let (mut entry, mut left) = (self.first[at], self.window); // the last used come first
            while let Some(&Entry { bin, tokens, next, .. }) = self.entries.get(entry).filter(|_| left > 0) {
                let shared = &mut self.shared[bin];
                if shared.look != self.looks {
                    *shared = Shared { look: self.looks, depth: node.end, tokens: 0 };
                }
                shared.tokens = tokens; // of a node other than the root 0, and the root comes last
                entry = next;
                left -= 1;
                self.steps += 1;
            }
            at = node.parent;
            self.steps += 1;
        }
    }

    /// The tokens that a row adds to a bin; none where they do not fit. After [`Bins::look`].
    fn added(&self, row: usize, bin: usize) -> Option<i64> {
        let shared = self.shared[bin];
        let shared = if shared.look == self.looks { shared } else { Shared::default() };
        let (added, found) = (self.nodes[row].end - shared.depth, self.all[bin]);
        let whole = shared.tokens + added;
        let new = self.need(whole) - self.need(shared.tokens);
        let tree = shared.tokens > 0 || self.options.max_segments.is_none_or(|most| found.trees < most);
        let room = whole <= self.options.capacity && found.slots + new <= self.slots;
        (!found.dissolved && tree && room).then_some(added)
    }

    /// Puts each row into the first bin that it fits. Whether all are, in at most so many bins.
    pub fn first_fit(&mut self, rows: impl Iterator<Item = usize>, most: usize) -> Result<bool> {
        for row in rows {
            self.look(row);
            let last = self.all.len();
            let bin = (last.saturating_sub(self.window)..last).find(|&bin| self.added(row, bin).is_some());
            let bin = bin.map_or_else(|| self.open(), Ok)?;
            if self.all.len() > most {
                return Ok(false);
            }
            self.add(row, bin)?;
        }
        Ok(true)
    }

    /// Dissolves bins while there are more than `least`, the emptiest first.
    pub fn dissolve(&mut self, least: usize) -> Result<()> {
        let mut left = self.count();
        while left > least {
            let mut order = memory::collected("bins", 0..self.all.len())?;
            order.retain(|&bin| !self.all[bin].dissolved);
            memory::available::<usize>("bins", order.len())?;
            order.sort_by_key(|&bin| self.all[bin].slots);
            let mut done = false;
            for &bin in order.iter().take(TRIED) {
                if self.steps > STEPS {
                    return Ok(());
                }
                if self.empty(bin)? {
                    done = true;
                    break;
                }
            }
            if !done {
                return Ok(());
            }
            left -= 1;
        }
        Ok(())
    }

    /// Moves each row of a bin, the longest first, to where it adds the fewest tokens; all or none.
    fn empty(&mut self, from: usize) -> Result<bool> {
        let mut rows = memory::collected("rows", self.rows[from].iter().copied())?;
        memory::available::<usize>("rows", rows.len())?;
        rows.sort_by_key(|&row| (-self.nodes[row].end, row));
        self.all[from].dissolved = true;
        let mut moved = memory::with_room("rows", rows.len())?;
        for &row in &rows {
            self.look(row);
            self.steps += self.all.len();
            let fitting = (0..self.all.len()).filter_map(|bin| Some((self.added(row, bin)?, bin)));
            // Of bins to which it adds as much, the fullest.
            let best = fitting.min_by_key(|&(added, bin)| (added, -self.all[bin].slots, bin));
            let Some((_, bin)) = best.filter(|_| self.steps <= STEPS) else {
                for bin in moved.into_iter().rev() {
                    self.undo(bin)?;
                }
                self.all[from].dissolved = false;
                return Ok(false);
            };
            self.add(row, bin)?;
            moved.push(bin);
        }
        while !self.rows[from].is_empty() {
            self.undo(from)?;
        }
        Ok(true)
    }
}
