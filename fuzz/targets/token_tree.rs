//! Trees of turns, against one that looks at all its nodes; and columns and turns that are none.

#![no_main]

#[path = "../../tests/oracles/token_tree.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use rollkit::token_tree::{Columns, TokenTree, Turn};

type Node = (i8, i8, i8, bool, i8);

fuzz_target!(|case: (Vec<(u8, u8, Vec<u8>, Vec<u8>, u8)>, Vec<Node>, u8, u8, Vec<i8>)| {
    let (turns, nodes, within, begin, repaired) = case;
    let (mut tree, mut mine) = (TokenTree::default(), oracle::Tree::default());
    let mut contexts: Vec<Vec<i32>> = vec![Vec::new()];
    for (before, kept, more, response, missing) in turns.iter().take(40) {
        let mut prompt = contexts[usize::from(*before) % contexts.len()].clone();
        prompt.truncate(usize::from(*kept));
        prompt.extend(more.iter().map(|token| i32::from(*token % 4)));
        let response: Vec<i32> = response.iter().map(|token| i32::from(*token % 4)).collect();
        let found = tree.find(&mine.tokens, &prompt).unwrap();
        assert_eq!(found, mine.find(&prompt));
        let (begin, observed) = (mine.tokens.len(), prompt.len() - found.matched);
        let captured = (observed + response.len()).saturating_sub(usize::from(missing % 2));
        let last = mine.commit(&prompt, &response, captured);
        let after = found.node.map(|node| (node, found.within));
        let turn = Turn { after, begin, observed, sampled: response.len(), captured, repaired: &[] };
        assert_eq!(tree.extend(&mine.tokens, &turn).unwrap(), last);
        contexts.push([prompt, response].concat());
    }
    mine.check(&tree);

    // Anything: refused, or as any other.
    let tokens = [1; 100];
    let of = |number: fn(&Node) -> i8| nodes.iter().map(|node| i64::from(number(node))).collect();
    let columns = Columns {
        parents: of(|node| node.0),
        begins: of(|node| node.1),
        lengths: of(|node| node.2),
        sampled: of(|node| i8::from(node.3)),
        captured: of(|node| node.4),
    };
    let Ok(mut odd) = TokenTree::new(&columns, &tokens) else { return };
    let repaired: Vec<i64> = repaired.into_iter().map(i64::from).collect();
    let after = odd.find(&tokens, &tokens).unwrap().node.map(|node| (node, usize::from(within)));
    let begin = usize::from(begin);
    let turn = Turn { after, begin, observed: 1, sampled: 2, captured: 1, repaired: &repaired };
    let _ = odd.extend(&tokens, &turn);
    let (_, _) = (odd.branches().unwrap(), odd.forest().unwrap());
});
