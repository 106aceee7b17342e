//! Nodes numbered depth first.

use super::{NONE, Node, ROOT, Trie};
use crate::out::Out;
use crate::{Result, memory};

/// Numbers nodes depth first, children by their first rows: no two of a node have the same.
///
/// The nodes that a row is the first to have end its path: they are its leaf, and what is above it. So rows
/// from the last to the first have children before parents, and count what is under each; the other way
/// parents come before children, and each takes the numbers after those of its siblings.
pub(super) fn depth_first<O: Out<i64>>(nodes: &[Node], leaf: &[u32], out: Trie<&mut [O]>) -> Result<()> {
    let mut free = memory::filled("nodes", 1u32, nodes.len())?; // how many a subtree has; then its next number
    let mut visited = memory::with_room("nodes", nodes.len())?;
    for row in (0..leaf.len()).rev() {
        for (number, node) in own(nodes, leaf, row) {
            let count = free[number];
            if let Some(above) = free.get_mut(node.parent as usize) {
                *above += count;
            }
            visited.push((number as u32, node.parent));
        }
    }
    let mut numbers = memory::filled("nodes", ROOT, nodes.len())?;
    let mut order = memory::filled("nodes", ROOT, nodes.len())?;
    let mut next_root = 0;
    for &(node, parent) in visited.iter().rev() {
        let at = node as usize;
        let count = free[at];
        let next = free.get_mut(parent as usize).unwrap_or(&mut next_root);
        let number = std::mem::replace(next, *next + count);
        (free[at], numbers[at], order[number as usize]) = (number + 1, number, node);
    }
    drop((free, visited));
    let number = |node: u32| numbers.get(node as usize).map_or(NONE, |&number| i64::from(number));
    let written = out.parents.iter_mut().zip(out.begins).zip(out.ends).zip(out.source_rows);
    for (&at, (((parent, begin), end), source_row)) in order.iter().zip(written) {
        let node = &nodes[at as usize];
        parent.set(number(node.parent));
        begin.set(i64::from(node.begin));
        end.set(i64::from(node.end));
        source_row.set(i64::from(node.source));
    }
    for (out, &leaf) in out.leaf.iter_mut().zip(leaf) {
        out.set(number(leaf));
    }
    Ok(())
}

/// The nodes that a row is the first to have, from its end up.
fn own<'a>(nodes: &'a [Node], leaf: &[u32], row: usize) -> impl Iterator<Item = (usize, &'a Node)> {
    let node = |number: u32| nodes.get(number as usize).map(|node| (number as usize, node));
    let path = std::iter::successors(node(leaf[row]), move |(_, below)| node(below.parent));
    path.take_while(move |(_, node)| node.source() == row)
}
