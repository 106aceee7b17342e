//! Which bin each row goes to.
//!
//! *Tree first fit decreasing*: from below, what is under a node is put together to pieces that fit a bin
//! together with the path to it, the largest first. Pieces of roots are put into bins. Then bins are
//! dissolved while that goes ([`super::bins`]). The case of one-node trees is `first_fit_decreasing`.

use super::bins::Bins;
use super::{Node, Options, ROOT, bound};
use crate::binpack::{self, Algorithm, Oversize};
use crate::{Result, memory};

/// Rows, one for all that end with one node, and the path to each: which nodes are needed.
pub(crate) struct Ends {
    /// Whether a row ends with a node.
    pub ends: Vec<bool>,
    /// Whether a node is on the path of one that does.
    pub live: Vec<bool>,
}

impl Ends {
    pub fn of(nodes: &[Node], leaves: impl Iterator<Item = usize>) -> Result<Self> {
        let mut ends = memory::filled("nodes", false, nodes.len())?;
        for leaf in leaves {
            if let Some(end) = ends.get_mut(leaf) {
                *end = true;
            }
        }
        let mut live = memory::collected("nodes", ends.iter().copied())?;
        for (number, node) in nodes.iter().enumerate().rev() {
            if live[number] && node.parent != ROOT {
                live[node.parent] = true;
            }
        }
        Ok(Self { ends, live })
    }
}

/// Gives each node that a row ends with a bin; all others have [`ROOT`]. Gives the bins, and their number.
pub(crate) fn plan(nodes: &[Node], rows: &Ends, options: &Options) -> Result<(Vec<usize>, usize)> {
    let found = first_fit_decreasing(nodes, rows, options)?;
    let least = bound(nodes, options.capacity, |node| rows.live[node])?.0 as usize;
    if found.1 <= least {
        return Ok(found);
    }
    let count = rows.ends.iter().filter(|&&end| end).count();
    let mut bins = Bins::new(nodes, count, options, found.1)?;
    for (node, &bin) in found.0.iter().enumerate().filter(|(_, bin)| **bin != ROOT) {
        bins.add(node, bin)?;
    }
    bins.dissolve(least)?;
    let fewer = bins.found()?;
    if fewer.1 <= least {
        return Ok(fewer);
    }
    let (tokens, most) = (bins.tokens(), fewer.1);
    let mut other = Bins::new(nodes, count, options, 0)?;
    let whole = other.first_fit((0..nodes.len()).filter(|&node| rows.ends[node]), most)?;
    if whole && (other.count(), other.tokens()) < (most, tokens) { other.found() } else { Ok(fewer) }
}

/// Rows that fit a bin together.
#[derive(Clone, Copy)]
struct Piece {
    /// Tokens of a bin that has nothing else: the path to the rows, too.
    size: i64,
    /// Its first and last row, in a list of them.
    first: usize,
    last: usize,
}

/// Puts together what is under each node, from below.
struct Pieces {
    /// Of all nodes that are done and whose parents are not.
    stack: Vec<Piece>,
    /// The row that comes after each in its piece.
    next: Vec<usize>,
}

impl Pieces {
    /// Joins pieces of one node as bins say, of which there are so many.
    fn join(&mut self, begin: usize, bins: &[i64], count: usize, above: i64) -> Result<Vec<Option<Piece>>> {
        let mut joined: Vec<Option<Piece>> = memory::filled("pieces", None, count)?;
        for (piece, &bin) in self.stack[begin..].iter().zip(bins) {
            joined[bin as usize] = Some(match joined[bin as usize] {
                None => *piece,
                Some(one) => {
                    self.next[one.last] = piece.first;
                    Piece { size: one.size + (piece.size - above), first: one.first, last: piece.last }
                }
            });
        }
        Ok(joined)
    }

    /// Puts the pieces from `begin` on, of nodes that end `above`, into as few as fit.
    fn merge(&mut self, begin: usize, above: i64, options: &binpack::Options) -> Result<()> {
        let pieces = &mut self.stack[begin..];
        pieces.reverse(); // they have come last child first
        let room = options.capacity - above;
        let sizes = memory::collected("pieces", pieces.iter().map(|piece| piece.size - above))?;
        let total = sizes.iter().try_fold(0i64, |sum, &size| sum.checked_add(size));
        let mut bins = memory::filled("pieces", 0, sizes.len())?;
        let fits =
            options.align == 1 && options.max_segments.is_none() && total.is_some_and(|sum| sum <= room);
        let count = if fits {
            1
        } else {
            let mut order = memory::filled("pieces", 0, sizes.len())?;
            let options = binpack::Options { capacity: room, ..*options };
            binpack::plan(&sizes, &options, &mut order, &mut bins)?.bins
        };
        let joined = self.join(begin, &bins, count, above)?;
        self.stack.truncate(begin);
        self.stack.extend(joined.into_iter().rev().flatten());
        Ok(())
    }
}

fn first_fit_decreasing(nodes: &[Node], rows: &Ends, options: &Options) -> Result<(Vec<usize>, usize)> {
    let mut pieces = Pieces {
        stack: memory::with_room("pieces", nodes.len())?,
        next: memory::filled("nodes", ROOT, nodes.len())?,
    };
    let mut counts = memory::filled("nodes", (0usize, 0usize), nodes.len())?; // pieces under a node, and children
    let mut fit = binpack::Options {
        capacity: options.capacity,
        align: 1,
        max_segments: None,
        algorithm: Algorithm::FirstFitDecreasing,
        oversize: Oversize::Raise,
    };
    for (number, node) in nodes.iter().enumerate().rev().filter(|&(number, _)| rows.live[number]) {
        let (count, children) = counts[number];
        let begin = pieces.stack.len() - count;
        if children > 1 {
            pieces.merge(begin, node.end, &fit)?; // of one child none fit together, or they would be together
        }
        if rows.ends[number] {
            // A row that others begin with is where any of them is; its node is nobody's second.
            match pieces.stack[begin..].last_mut() {
                Some(piece) => {
                    pieces.next[number] = piece.first;
                    piece.first = number;
                }
                None => pieces.stack.push(Piece { size: node.end, first: number, last: number }),
            }
        }
        if let Some((count, children)) = counts.get_mut(node.parent) {
            (*count, *children) = (*count + pieces.stack.len() - begin, *children + 1);
        }
    }
    (fit.align, fit.max_segments) = (options.align, options.max_segments);
    pieces.merge(0, 0, &fit)?;
    let mut found = memory::filled("nodes", ROOT, nodes.len())?;
    for (bin, piece) in pieces.stack.iter().rev().enumerate() {
        let mut row = piece.first;
        while row != ROOT {
            found[row] = bin;
            row = if row == piece.last { ROOT } else { pieces.next[row] };
        }
    }
    Ok((found, pieces.stack.len()))
}
