// A tree of turns as the list of its nodes, each with all tokens down to its end: every call looks at all nodes.

use rollkit::token_tree::{Columns, Found, TokenTree};

struct Node {
    parent: Option<usize>,
    begin: usize,
    path: Vec<i32>,
    length: usize,
    sampled: bool,
    captured: usize,
}

#[derive(Default)]
pub struct Tree {
    nodes: Vec<Node>,
    pub tokens: Vec<i32>,
}

impl Tree {
    /// Of each node the part of the prompt that is on its path: the longest, of several the newest.
    pub fn find(&self, prompt: &[i32]) -> Found {
        let mut best = Found { matched: 0, node: None, within: 0 };
        for (number, node) in self.nodes.iter().enumerate() {
            let above = node.path.len() - node.length;
            let matched = node.path.iter().zip(prompt).take_while(|(a, b)| a == b).count();
            if matched > above && (matched, Some(number)) > (best.matched, best.node) {
                best = Found { matched, node: Some(number), within: matched - above };
            }
        }
        best
    }

    /// Adds a turn, whose first `captured` new tokens have routes; gives its last node.
    pub fn commit(&mut self, prompt: &[i32], response: &[i32], captured: usize) -> Option<usize> {
        let Found { matched, node, within } = self.find(prompt);
        let mut last = node;
        if let Some(number) = node.filter(|&number| within < self.nodes[number].length) {
            let (upper, lower) = (self.nodes.len(), &mut self.nodes[number]);
            let above = lower.path.len() - lower.length;
            let (parent, begin) = (lower.parent, lower.begin);
            let path = lower.path[..above + within].to_vec();
            let (sampled, captured) = (lower.sampled, lower.captured.min(within));
            lower.parent = Some(upper);
            lower.begin += within;
            lower.length -= within;
            lower.captured = lower.captured.saturating_sub(within);
            self.nodes.push(Node { parent, begin, path, length: within, sampled, captured });
            last = Some(upper);
        }
        let mut path = prompt[..matched].to_vec();
        let mut captured = captured;
        for (more, sampled) in [(&prompt[matched..], false), (response, true)] {
            if !more.is_empty() {
                let (begin, length) = (self.tokens.len(), more.len());
                path.extend(more);
                self.tokens.extend(more);
                let own = captured.min(length);
                captured -= own;
                let node = Node { parent: last, begin, path: path.clone(), length, sampled, captured: own };
                last = Some(self.nodes.len());
                self.nodes.push(node);
            }
        }
        last
    }

    /// Checks that a tree is this one.
    pub fn check(&self, tree: &TokenTree) {
        let of = |number: fn(&Node) -> usize| self.nodes.iter().map(|node| number(node) as i64).collect();
        let columns = Columns {
            parents: self.nodes.iter().map(|node| node.parent.map_or(-1, |node| node as i64)).collect(),
            begins: of(|node| node.begin),
            lengths: of(|node| node.length),
            sampled: of(|node| usize::from(node.sampled)),
            captured: of(|node| node.captured),
        };
        assert_eq!(tree.columns().unwrap(), columns);
        let [leaves, offsets, nodes] = tree.branches().unwrap();
        let parents: Vec<_> = self.nodes.iter().filter_map(|node| node.parent).collect();
        let wanted: Vec<_> = (0..self.nodes.len()).filter(|node| !parents.contains(node)).collect();
        assert_eq!(leaves, wanted.iter().map(|&node| node as i64).collect::<Vec<_>>());

        let forest = tree.forest().unwrap();
        assert_eq!((forest.parents.len(), forest.leaf.len()), (self.nodes.len(), wanted.len()));
        let mut seen = Vec::new();
        for (row, &leaf) in wanted.iter().enumerate() {
            let mut way = vec![leaf];
            while let Some(parent) = self.nodes[way[way.len() - 1]].parent {
                way.push(parent);
            }
            way.reverse();
            let way: Vec<_> = way.into_iter().map(|node| node as i64).collect();
            assert_eq!(way, &nodes[offsets[row] as usize..offsets[row + 1] as usize]);
            assert_eq!(way, tree.path(leaf).unwrap());
            // The same spans, from the leaf of the forest up: a node is of the first row that has it.
            let mut node = forest.leaf[row];
            for &own in way.iter().rev() {
                let (at, wanted) = (node as usize, &self.nodes[own as usize]);
                assert_eq!(forest.ends[at], wanted.path.len() as i64);
                assert_eq!(forest.begins[at], (wanted.path.len() - wanted.length) as i64);
                let first = seen.iter().position(|known| known == &(own, node));
                assert_eq!(first.is_none(), forest.source_rows[at] == row as i64, "node {at} of row {row}");
                if first.is_none() {
                    seen.push((own, node));
                }
                node = forest.parents[at];
            }
            assert_eq!(node, -1);
        }
        assert_eq!(seen.len(), self.nodes.len(), "a node is one node of the forest");
        let given = rollkit::forest::Forest {
            parents: &forest.parents,
            begins: &forest.begins,
            ends: &forest.ends,
            leaf: &forest.leaf,
        };
        given.check().unwrap();
    }
}
