//! What rows share, by a dictionary of their prefixes; and bins of a forest, row by row.

use std::collections::HashMap;

use rollkit::trie::{NONE, Trie};

/// Which token each element of each row is, numbered as they come: rows are columns of elements' bytes.
pub fn shared(rows: &[Vec<Vec<u8>>], groups: Option<&[i64]>, min_shared: usize) -> Vec<Vec<usize>> {
    let mut known = HashMap::new();
    let mut found = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let group = groups.map(|groups| groups[number]);
        let alone = (row.len() < min_shared).then_some(number);
        let first = row[..row.len().min(min_shared)].to_vec();
        let ids = (0..row.len()).map(|i| {
            let next = known.len();
            *known.entry((group, alone, first.clone(), row[..=i].to_vec())).or_insert(next)
        });
        found.push(ids.collect());
    }
    found
}

/// The node of each element of each row of a trie.
pub fn paths(trie: &Trie) -> Vec<Vec<(i64, i64)>> {
    let path = |&leaf: &i64| {
        let mut found = Vec::new();
        let mut node = leaf;
        while node != NONE {
            let at = node as usize;
            found.extend((trie.begins[at]..trie.ends[at]).rev().map(|element| (node, element)));
            node = trie.parents[at];
        }
        found.reverse();
        found
    };
    trie.leaf.iter().map(path).collect()
}

/// Checks that rows of a trie have in common what they are to have, and nothing more.
pub fn check(trie: &Trie, wanted: &[Vec<usize>]) {
    let found = paths(trie);
    let mut tokens = HashMap::new();
    let mut nodes = HashMap::new();
    assert_eq!(found.len(), wanted.len());
    for (row, (path, ids)) in found.iter().zip(wanted).enumerate() {
        assert_eq!(path.len(), ids.len(), "row {row}");
        for (&cell, &id) in path.iter().zip(ids) {
            assert_eq!(*tokens.entry(id).or_insert(cell), cell, "row {row} does not share a token");
            assert_eq!(*nodes.entry(cell).or_insert(id), id, "row {row} shares a token of another");
            let source = trie.source_rows[cell.0 as usize];
            assert!(source <= row as i64, "a node is of its first row");
        }
    }
}
