//! Nodes numbered depth first.

use super::{NONE, Node, ROOT, Trie};
use crate::{Result, memory};

/// Numbers nodes depth first, children by their first rows: no two of a node have the same.
///
/// The nodes that a row is the first to have end its path: they are its leaf, and what is above it. So rows
/// from the last to the first have children before parents, and count what is under each; from the first to the
/// last they have parents before children, and each takes the numbers after those of its siblings.
pub(super) fn depth_first(nodes: &[Node], leaf: &[u32]) -> Result<Trie> {
    let mut free = memory::filled("nodes", 1u32, nodes.len())?; // how many a subtree has; then its next number
    for row in (0..leaf.len()).rev() {
        for (number, node) in own(nodes, leaf, row) {
            let count = free[number];
            if let Some(above) = free.get_mut(node.parent as usize) {
                *above += count;
            }
        }
    }
    let mut numbers = memory::filled("nodes", ROOT, nodes.len())?;
    let mut order = memory::filled("nodes", ROOT, nodes.len())?;
    let (mut path, mut next_root) = (Vec::new(), 0);
    for row in 0..leaf.len() {
        for item in own(nodes, leaf, row) {
            memory::push("nodes", &mut path, item)?;
        }
        while let Some((at, node)) = path.pop() {
            let count = free[at];
            let next = free.get_mut(node.parent as usize).unwrap_or(&mut next_root);
            let number = std::mem::replace(next, *next + count);
            (free[at], numbers[at], order[number as usize]) = (number + 1, number, at as u32);
        }
    }
    let number = |node: u32| numbers.get(node as usize).map_or(NONE, |&number| i64::from(number));
    let ordered = || order.iter().map(|&node| &nodes[node as usize]);
    Ok(Trie {
        parents: memory::collected("nodes", ordered().map(|node| number(node.parent)))?,
        begins: memory::collected("nodes", ordered().map(|node| i64::from(node.begin)))?,
        ends: memory::collected("nodes", ordered().map(|node| i64::from(node.end)))?,
        source_rows: memory::collected("nodes", ordered().map(|node| i64::from(node.source)))?,
        leaf: memory::collected("rows", leaf.iter().map(|&leaf| number(leaf)))?,
    })
}

/// The nodes that a row is the first to have, from its end up.
fn own<'a>(nodes: &'a [Node], leaf: &[u32], row: usize) -> impl Iterator<Item = (usize, &'a Node)> {
    let node = |number: u32| nodes.get(number as usize).map(|node| (number as usize, node));
    let path = std::iter::successors(node(leaf[row]), move |(_, below)| node(below.parent));
    path.take_while(move |(_, node)| node.source() == row)
}
