//! Forests of nodes ([`crate::trie`]) in bins: a row's path is in its bin, a node once in each that has a
//! row of it.
//!
//! ```text
//! node 0  a b        rows: abcd, abe, x           bin 0 │ a b c d │   abcd
//! node 1   └ c d     capacity 4                   bin 1 │ a b e x │   abe, x
//! node 2   └ e
//! node 3  x
//! ```
//!
//! Within a bin nodes are in depth-first order. So what is below a node lies right after it, and the tokens
//! that see token `k` are the range from `k` to the end of what is below its node: [`Read::visible`].

mod bins;
mod lay;
mod plan;

pub use lay::{Packed, pack};

use crate::binpack::Oversize;
use crate::layout::same_count;
use crate::trie::NONE;
use crate::{Error, Result, memory};

/// A forest, depth first, as [`crate::trie::Trie`] has it.
#[derive(Debug, Clone, Copy)]
pub struct Forest<'a> {
    /// The parent of each node, or [`NONE`].
    pub parents: &'a [i64],
    /// The first element of each node within its rows: the end of its parent.
    pub begins: &'a [i64],
    /// The end of each node.
    pub ends: &'a [i64],
    /// The node that each row ends with, or [`NONE`].
    pub leaf: &'a [i64],
}

/// How to pack.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Elements a bin holds.
    pub capacity: i64,
    /// Each tree of a bin starts at a multiple of this.
    pub align: i64,
    /// Trees that a bin holds.
    pub max_segments: Option<usize>,
    /// Empty bins are added up to a multiple of this.
    pub bins_multiple_of: usize,
    /// What becomes of a row that is longer than a bin.
    pub oversize: Oversize,
}

impl Options {
    fn check(&self) -> Result<()> {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (name, got) in [
            ("capacity", self.capacity),
            ("align", self.align),
            ("max_segments", self.max_segments.map_or(1, count)),
            ("bins_multiple_of", count(self.bins_multiple_of)),
        ] {
            if got < 1 {
                return Err(Error::NotPositive { name, got });
            }
        }
        Ok(())
    }
}

/// A node, with its parent's number; [`ROOT`] is above all without one.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    pub parent: usize,
    pub begin: i64,
    pub end: i64,
}

/// No node.
pub(crate) const ROOT: usize = usize::MAX;

impl Forest<'_> {
    /// Reads the nodes, once: another thread may write to them meanwhile.
    fn nodes(&self) -> Result<Vec<Node>> {
        same_count("begins", self.begins.len(), self.parents.len())?;
        same_count("ends", self.ends.len(), self.parents.len())?;
        let parents = parents(self.parents)?;
        let mut nodes: Vec<Node> = memory::with_room("nodes", parents.len())?;
        let spans = self.begins.iter().zip(self.ends);
        for (node, (parent, (&begin, &end))) in parents.into_iter().zip(spans).enumerate() {
            let above = nodes.get(parent).map_or(0, |parent| parent.end);
            if begin != above || end <= begin {
                return Err(Error::Node {
                    node,
                    problem: "begins other than where its parent ends, or is empty",
                });
            }
            nodes.push(Node { parent, begin, end });
        }
        Ok(nodes)
    }

    /// Checks that nodes are depth first, end to end along each path, and that rows end with nodes.
    pub fn check(&self) -> Result<()> {
        let nodes = self.nodes()?;
        self.leaves(nodes.len()).map(drop)
    }

    /// The node that each row ends with, or [`ROOT`].
    fn leaves(&self, nodes: usize) -> Result<Vec<usize>> {
        leaves(self.leaf, nodes)
    }
}

/// Checks that nodes are depth first; gives the parent of each, or [`ROOT`].
fn parents(given: &[i64]) -> Result<Vec<usize>> {
    let mut found: Vec<usize> = memory::with_room("nodes", given.len())?;
    for (node, &parent) in given.iter().enumerate() {
        let parent = if parent == NONE { ROOT } else { parent as usize };
        let mut before = node.wrapping_sub(1); // of no node it is none, as `ROOT`
        while before != parent && before != ROOT {
            before = found[before];
        }
        if before != parent {
            return Err(Error::Node { node, problem: "has a parent that is none of the path before it" });
        }
        found.push(parent);
    }
    Ok(found)
}

fn leaves(leaf: &[i64], nodes: usize) -> Result<Vec<usize>> {
    let found = leaf.iter().enumerate().map(|(row, &leaf)| match usize::try_from(leaf) {
        Ok(node) if node < nodes => Ok(node),
        _ if leaf == NONE => Ok(ROOT),
        _ => Err(Error::UnknownNode { row, node: leaf, nodes }),
    });
    let mut leaves = memory::with_room("rows", leaf.len())?;
    for leaf in found {
        leaves.push(leaf?);
    }
    Ok(leaves)
}

/// How many bins of `capacity` there are at least, and how many tokens in them.
///
/// Every bin that has a row of a node has the node, and at most `capacity - end` below it. From below: of
/// what is under a node, that much is in each of at least so many bins.
///
/// ```
/// use rollkit::forest::{Forest, lower_bound};
///
/// let forest =
///     Forest { parents: &[-1, 0, 0], begins: &[0, 2, 2], ends: &[2, 4, 3], leaf: &[1, 2] };
/// assert_eq!(lower_bound(&forest, 4)?, (2, 7)); // a b twice
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn lower_bound(forest: &Forest<'_>, capacity: i64) -> Result<(i64, i64)> {
    if capacity < 1 {
        return Err(Error::NotPositive { name: "capacity", got: capacity });
    }
    let nodes = forest.nodes()?;
    let leaves = forest.leaves(nodes.len())?;
    if let Some((row, length)) = oversize(&nodes, &leaves, capacity) {
        return Err(Error::Oversize { row, length, capacity, splits: false });
    }
    bound(&nodes, capacity, |_| true)
}

/// The first row that is longer than a bin, and its length.
pub(crate) fn oversize(nodes: &[Node], leaves: &[usize], capacity: i64) -> Option<(usize, i64)> {
    let lengths = leaves.iter().map(|&leaf| nodes.get(leaf).map_or(0, |node| node.end));
    lengths.enumerate().find(|&(_, length)| length > capacity)
}

/// [`lower_bound`] of those nodes that count, which end within the capacity.
fn bound(nodes: &[Node], capacity: i64, counts: impl Fn(usize) -> bool) -> Result<(i64, i64)> {
    let too_many = || Error::TooManyElements { row: 0 };
    let mut below = memory::filled("nodes", (0i64, 0i64), nodes.len())?; // tokens, and bins of one child at least
    let (mut tokens, mut most) = (0i64, 0i64);
    for (number, node) in nodes.iter().enumerate().rev().filter(|&(number, _)| counts(number)) {
        let (under, bins) = below[number];
        // What is under a node that ends with the bin is in no bin: such a row is too long.
        let bins = bins.max(1).max((under as u64).div_ceil((capacity - node.end).max(1) as u64) as i64);
        let own = (node.end - node.begin).checked_mul(bins).and_then(|own| own.checked_add(under));
        let own = own.ok_or_else(too_many)?;
        let (sum, least) =
            below.get_mut(node.parent).map_or((&mut tokens, &mut most), |(sum, least)| (sum, least));
        *sum = sum.checked_add(own).ok_or_else(too_many)?;
        *least = (*least).max(bins);
    }
    Ok((most.max((tokens as u64).div_ceil(capacity as u64) as i64), tokens))
}

/// Placed nodes: each where it starts, depth first within a bin, bin after bin.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// The parent of each node, or [`NONE`].
    pub parents: &'a [i64],
    /// The first element of each in the output.
    pub starts: &'a [i64],
    /// The elements of each.
    pub lengths: &'a [i64],
    /// The node that each row ends with, or [`NONE`].
    pub leaf: &'a [i64],
}

/// What is read off placed nodes, one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The end of what is below it, in the output.
    pub visible: Vec<i64>,
    /// How many rows have it.
    pub rows: Vec<i64>,
    /// The number of its tree within its bin, from 1.
    pub trees: Vec<i64>,
}

impl Placed<'_> {
    /// The parents of nodes, each of which must start after its parent's, in one line with it.
    fn checked(&self, width: i64) -> Result<Vec<usize>> {
        same_count("starts", self.starts.len(), self.parents.len())?;
        same_count("lengths", self.lengths.len(), self.parents.len())?;
        if width < 1 {
            return Err(Error::NotPositive { name: "width", got: width });
        }
        let parents = parents(self.parents)?;
        let (mut free, mut line) = (0, -1); // where the next node may start, and the line of this one
        for (node, (&start, &length)) in self.starts.iter().zip(self.lengths).enumerate() {
            let problem = if start < free || length < 1 || start.checked_add(length).is_none() {
                Some("must start where the one before it ends, or after, and have elements")
            } else if start % width > width - length {
                Some("goes on past the end of its line")
            } else if parents[node] != ROOT && start / width != line {
                Some("is on another line than its parent")
            } else {
                None
            };
            if let Some(problem) = problem {
                return Err(Error::Node { node, problem });
            }
            (free, line) = (start + length, start / width);
        }
        Ok(parents)
    }

    /// Reads off what nodes see, how many rows they have, and what tree they are of.
    pub fn read(&self, width: i64) -> Result<Read> {
        let parents = self.checked(width)?;
        let leaves = leaves(self.leaf, parents.len())?;
        let ends = self.starts.iter().zip(self.lengths).map(|(&start, &length)| start.saturating_add(length));
        let mut found = Read {
            visible: memory::collected("nodes", ends)?,
            rows: memory::filled("nodes", 0, parents.len())?,
            trees: memory::filled("nodes", 0, parents.len())?,
        };
        for leaf in leaves {
            if let Some(rows) = found.rows.get_mut(leaf) {
                *rows += 1;
            }
        }
        for node in (0..parents.len()).rev() {
            let (visible, rows) = (found.visible[node], found.rows[node]);
            if parents[node] != ROOT {
                let parent = parents[node];
                found.visible[parent] = found.visible[parent].max(visible);
                found.rows[parent] += rows;
            }
        }
        let (mut line, mut number) = (-1, 0);
        for (node, &start) in self.starts.iter().enumerate() {
            if parents[node] == ROOT {
                number = if start / width == line { number + 1 } else { 1 };
                line = start / width;
            }
            found.trees[node] = number;
        }
        Ok(found)
    }

    /// Where each row is: the spans of its path, from its first element on. Gives where the spans of each row
    /// begin, and of each span its start and its length. Nodes that lie end to end are one span.
    pub fn paths(&self) -> Result<[Vec<i64>; 3]> {
        let parents = self.checked(i64::MAX)?;
        let leaves = leaves(self.leaf, parents.len())?;
        let end = |node: usize| self.starts[node].saturating_add(self.lengths[node]);
        // The first node of the span that each ends, and how many spans there are down to it.
        let mut tops = memory::filled("nodes", (0usize, 0usize), parents.len())?;
        for node in 0..parents.len() {
            tops[node] = match tops.get(parents[node]) {
                Some(&(top, count)) if end(parents[node]) == self.starts[node] => (top, count),
                Some(&(_, count)) => (node, count + 1),
                None => (node, 1),
            };
        }
        let counts = leaves.iter().map(|&leaf| tops.get(leaf).map_or(0, |top| top.1));
        let mut total = 0usize;
        let mut offsets = memory::with_room("rows", leaves.len() + 1)?;
        offsets.push(0);
        for count in counts {
            total = total.checked_add(count).ok_or(Error::NoMemory { name: "spans", got: usize::MAX })?;
            offsets.push(total as i64);
        }
        let mut starts = memory::filled("spans", 0, total)?;
        let mut lengths = memory::filled("spans", 0, total)?;
        for (&leaf, &last) in leaves.iter().zip(&offsets[1..]) {
            let (mut node, mut at) = (leaf, last as usize);
            while node != ROOT {
                let top = tops[node].0;
                at -= 1;
                starts[at] = self.starts[top];
                lengths[at] = end(node).saturating_sub(self.starts[top]);
                node = parents[top];
            }
        }
        Ok([offsets, starts, lengths])
    }
}
