//! Trees of turns beside one that looks at all its nodes; and columns and turns that are none.

mod common;
#[path = "oracles/token_tree.rs"]
mod oracle;

use common::examples;
use oracle::Tree;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rollkit::token_tree::{Columns, TokenTree, Turn};

/// Turns that go on from, branch off, and repeat those before them, and how many new tokens lack routes.
fn turns() -> impl Strategy<Value = Vec<(Vec<i32>, Vec<i32>, usize)>> {
    let turn = (any::<Index>(), 0..12usize, vec(0..2i32, 0..4), vec(0..2i32, 0..4), 0..2usize);
    vec(turn, 0..12).prop_map(|drawn| {
        let mut found: Vec<(Vec<i32>, Vec<i32>, usize)> = Vec::new();
        for (before, kept, more, response, missing) in drawn {
            let mut prompt = Vec::new();
            if !found.is_empty() {
                let (context, sampled, _) = &found[before.index(found.len())];
                prompt = [&context[..], sampled].concat();
            }
            prompt.truncate(kept);
            prompt.extend(more);
            found.push((prompt, response, missing));
        }
        found
    })
}

fn commit(tree: &mut TokenTree, mine: &mut Tree, turn: &(Vec<i32>, Vec<i32>, usize)) {
    let (prompt, response, missing) = turn;
    let found = tree.find(&mine.tokens, prompt).unwrap();
    assert_eq!(found, mine.find(prompt));
    let (begin, observed) = (mine.tokens.len(), prompt.len() - found.matched);
    let captured = (observed + response.len()).saturating_sub(*missing);
    let last = mine.commit(prompt, response, captured);
    let added = Turn {
        after: found.node.map(|node| (node, found.within)),
        begin,
        observed,
        sampled: response.len(),
        captured,
        repaired: &[],
    };
    assert_eq!(tree.extend(&mine.tokens, &added).unwrap(), last);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(examples(2000)))]

    #[test]
    fn a_tree_is_that_of_all_prefixes(turns in turns(), again in 0..12usize) {
        let (mut tree, mut mine) = (TokenTree::default(), Tree::default());
        for (number, turn) in turns.iter().enumerate() {
            commit(&mut tree, &mut mine, turn);
            if number == again {
                tree = TokenTree::new(&tree.columns().unwrap(), &mine.tokens).unwrap();
            }
        }
        mine.check(&tree);
    }

    #[test]
    fn routes_that_are_missing_are_found_and_repaired(turns in turns()) {
        let (mut tree, mut mine) = (TokenTree::default(), Tree::default());
        for turn in &turns {
            commit(&mut tree, &mut mine, turn);
        }
        let before = tree.columns().unwrap();
        for &leaf in &tree.branches().unwrap()[0] {
            let length = before.lengths[leaf as usize] as usize;
            for within in 1..=length {
                let [nodes, positions, stored] = tree.lacking(leaf as usize, within).unwrap();
                let mut wanted = [Vec::new(), Vec::new(), Vec::new()];
                let mut above = 0;
                for node in tree.path(leaf as usize).unwrap() {
                    let own = |column: &[i64]| column[node as usize];
                    let used = if node == leaf { within as i64 } else { own(&before.lengths) };
                    if own(&before.captured) < used {
                        wanted[0].push(node);
                        wanted[1].push(above + own(&before.captured));
                        wanted[2].push(own(&before.begins) + own(&before.captured));
                    }
                    above += own(&before.lengths);
                }
                prop_assert_eq!([&nodes, &positions, &stored], wanted.each_ref());
                let none =
                    Turn { after: None, begin: 0, observed: 0, sampled: 0, captured: 0, repaired: &nodes };
                let mut repaired = tree.clone();
                repaired.extend(&mine.tokens, &none).unwrap();
                let after = repaired.columns().unwrap().captured;
                let wanted = before.captured.iter().zip(0..).map(|(own, node)| own + i64::from(nodes.contains(&node)));
                prop_assert_eq!(after, wanted.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn what_is_no_tree_is_refused(
        columns in vec((-2..6i64, -1..6i64, -1..4i64, 0..2i64, -1..4i64), 0..6),
        stored in 0..8usize,
        turn in (prop::option::of((0..7usize, 0..4usize)), 0..9usize, 0..3usize, 0..3usize, 0..4usize),
        repaired in vec(-1..7i64, 0..3),
    ) {
        // Refused, or a tree as any other: never a panic, and a refused turn leaves it as it was.
        let tokens = vec![1; stored];
        let of = |number: fn(&(i64, i64, i64, i64, i64)) -> i64| columns.iter().map(number).collect();
        let columns = Columns {
            parents: of(|node| node.0),
            begins: of(|node| node.1),
            lengths: of(|node| node.2),
            sampled: of(|node| node.3),
            captured: of(|node| node.4),
        };
        let (after, begin, observed, sampled, captured) = turn;
        let turn = Turn { after, begin, observed, sampled, captured, repaired: &repaired };
        for tree in [TokenTree::new(&columns, &tokens), Ok(TokenTree::default())] {
            let Ok(mut tree) = tree else { continue };
            let before = tree.columns().unwrap();
            prop_assert!(tree.find(&tokens, &[1, 1, 1, 2]).is_ok());
            if tree.extend(&tokens, &turn).is_err() {
                prop_assert_eq!(&tree.columns().unwrap(), &before);
            }
            prop_assert_eq!(tree.find(&[], &[1]).is_err(), !tree.is_empty());
            let again = TokenTree::new(&tree.columns().unwrap(), &tokens).unwrap();
            prop_assert_eq!(again.branches().unwrap(), tree.branches().unwrap());
            prop_assert_eq!(again.forest().unwrap(), tree.forest().unwrap());
            prop_assert!(tree.lacking(again.len(), 1).unwrap()[0].is_empty());
        }
    }
}

#[test]
fn nodes_without_a_root_are_named() {
    let columns = |parents: &[i64]| Columns {
        parents: parents.to_vec(),
        begins: (0..parents.len() as i64).collect(),
        lengths: vec![1; parents.len()],
        sampled: vec![0; parents.len()],
        captured: vec![0; parents.len()],
    };
    let tokens = [7; 4];
    for (parents, text) in [
        (&[1, 0][..], "node 0 has parent 1, from which no way leads to a root"),
        (&[-1, 2, 3, 1], "node 1 has parent 2, from which no way leads to a root"),
        (&[-1, 0, 7], "node 2 has parent 7, from which no way leads to a root"),
        (&[1, -5], "node 0 has parent 1, from which no way leads to a root"),
    ] {
        assert_eq!(TokenTree::new(&columns(parents), &tokens).unwrap_err().to_string(), text);
    }
    let short = TokenTree::new(&columns(&[-1, 0]), &tokens[..1]).unwrap_err().to_string();
    assert_eq!(short, "node 1 has tokens that are not stored");
    let uneven = Columns { begins: vec![0], ..columns(&[-1, 0]) };
    assert!(TokenTree::new(&uneven, &tokens).is_err());
}

#[test]
fn long_chains_take_no_stack() {
    let count = 200_000i64;
    let columns = Columns {
        parents: (1..count).chain([-1]).collect(), // from the last to the first
        begins: (0..count).collect(),
        lengths: vec![1; count as usize],
        sampled: vec![0; count as usize],
        captured: vec![0; count as usize],
    };
    let tokens: Vec<i32> = (0..count as i32).collect();
    let tree = TokenTree::new(&columns, &tokens).unwrap();
    let prompt: Vec<i32> = (0..count as i32).rev().collect();
    let found = tree.find(&tokens, &prompt).unwrap();
    assert_eq!((found.matched, found.node), (count as usize, Some(0)));
    let forest = tree.forest().unwrap();
    assert_eq!(forest.parents, (-1..count - 1).collect::<Vec<_>>());
    assert_eq!(forest.leaf, [count - 1]);
}
