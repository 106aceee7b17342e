//! Nodes numbered depth first.

use super::{NONE, Node, ROOT, Trie};
use crate::{Result, memory};

/// Numbers nodes depth first, children by their first rows: no two of a node have the same.
///
/// The nodes that a row is the first to have end its path: they are its leaf, and what is above it. So rows
/// from the last to the first have children before parents, and count what is under each; the other way
/// parents come before children, and each takes the numbers after those of its siblings.
pub(super) fn depth_first(nodes: &[Node], leaf: &[u32]) -> Result<Trie> {
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
    let mut found = Trie {
        parents: memory::with_room("nodes", nodes.len())?,
        begins: memory::with_room("nodes", nodes.len())?,
        ends: memory::with_room("nodes", nodes.len())?,
        source_rows: memory::with_room("nodes", nodes.len())?,
        leaf: memory::collected("rows", leaf.iter().map(|&leaf| number(leaf)))?,
    };
    for &at in &order {
        let node = &nodes[at as usize];
        found.parents.push(number(node.parent));
        found.begins.push(i64::from(node.begin));
        found.ends.push(i64::from(node.end));
        found.source_rows.push(i64::from(node.source));
    }
    Ok(found)
}

/// The nodes that a row is the first to have, from its end up.
fn own<'a>(nodes: &'a [Node], leaf: &[u32], row: usize) -> impl Iterator<Item = (usize, &'a Node)> {
    let node = |number: u32| nodes.get(number as usize).map(|node| (number as usize, node));
    let path = std::iter::successors(node(leaf[row]), move |(_, below)| node(below.parent));
    path.take_while(move |(_, node)| node.source() == row)
}
