//! Rows that share little with the one before, looked up ahead by hashes alone.

use std::ops::Range;

use super::{BLOCK, Builder, ROOT};
use crate::{Result, memory};

/// Rows that share more elements than this with the one before mostly share no more with any.
const NEAR: usize = 16;

/// The bytes of a cache line, and how many are asked for: what comes after, processors see coming.
const LINE: usize = 64;
const LINES: usize = 4;

/// A row on its way down.
struct Scout {
    row: usize,
    /// The node that it is at the end of.
    at: u32,
    /// That of the node and the row's next element.
    hash: u64,
    /// A node that has this hash.
    child: u32,
}

impl Builder<'_> {
    /// Finds the lowest node that each row may have, or [`ROOT`]. All rows go down a level before any goes on, so
    /// that what they look at comes from memory at the same time.
    pub(super) fn scout(
        &self,
        rows: Range<usize>,
        shared: &[usize; BLOCK],
        prefetch: &impl Fn(*const i8, usize),
    ) -> Result<[u32; BLOCK]> {
        let mut found = [ROOT; BLOCK];
        let first = rows.start;
        let near = rows.zip(shared).filter(|&(_, &shared)| shared <= NEAR);
        let scouts = near.filter_map(|(row, _)| self.sent(row, ROOT, 0, prefetch));
        let mut scouts = memory::collected("rows", scouts)?;
        while !scouts.is_empty() {
            scouts.retain_mut(|scout| {
                let child = self.children.with(scout.hash).next();
                scout.child = child.unwrap_or(ROOT);
                self.nodes
                    .get(scout.child as usize)
                    .inspect(|node| prefetch((&raw const **node).cast(), 1))
                    .is_some()
            });
            scouts.retain_mut(|scout| {
                let node = &self.nodes[scout.child as usize];
                if node.parent != scout.at {
                    return false;
                }
                found[scout.row - first] = scout.child;
                let next = self.sent(scout.row, scout.child, node.end(), prefetch);
                next.map(|next| *scout = next).is_some()
            });
        }
        for node in found.iter().filter_map(|&node| self.nodes.get(node as usize)) {
            let lines = (node.end() * self.columns[0].item).div_ceil(LINE).min(LINES);
            prefetch(self.columns[0].first[node.source()].as_ptr().cast(), lines);
        }
        Ok(found)
    }

    /// Sends a row to the children of a node, unless it ends before.
    fn sent(&self, row: usize, at: u32, depth: usize, prefetch: &impl Fn(*const i8, usize)) -> Option<Scout> {
        let hash = if depth < self.length(row) { self.hash(at, row, depth)? } else { return None };
        prefetch(self.children.address(hash), 1);
        Some(Scout { row, at, hash, child: ROOT })
    }
}
