//! Turns that begin alike, as a tree that grows: spans of tokens, each stored once.
//!
//! ```text
//! turn 0   a b | c d      node 0  a b            prompts before the bar, responses behind it
//! turn 1   a b c d e | f  node 1   └ c d *       * a response: a node of its own, even if
//! turn 2   a b | c x      node 2     └ e         another begins alike
//!                         node 3       └ f *
//!                         node 4   └ c x *
//! ```
//!
//! A node is found by its parent and its first token, so that a prompt is compared only with nodes that begin
//! as it goes on: one, mostly, and the time is that of reading the prompt.

use std::collections::HashMap;

use crate::layout::same_count;
use crate::trie::{NONE, Trie};
use crate::{Error, Result, memory};

/// No node.
const ROOT: usize = usize::MAX;

#[derive(Debug, Clone, Copy)]
struct Node {
    /// [`ROOT`] if it has none.
    parent: usize,
    begin: usize,
    length: usize,
    sampled: bool,
    captured: usize,
    /// Another child of its parent with its first token, or [`ROOT`].
    alike: usize,
}

impl Node {
    fn tokens<'a>(&self, tokens: &'a [i32]) -> Option<&'a [i32]> {
        tokens.get(self.begin..self.begin.checked_add(self.length)?)
    }
}

/// The nodes of a tree, an element for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The node that each goes on from, or [`NONE`].
    pub parents: Vec<i64>,
    /// Its first token among all that are stored.
    pub begins: Vec<i64>,
    /// Its tokens, at least one.
    pub lengths: Vec<i64>,
    /// Whether it is (the beginning or end of) a response, 0 or 1.
    pub sampled: Vec<i64>,
    /// How many of its tokens have routes; they come first.
    pub captured: Vec<i64>,
}

/// How far a prompt is a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The tokens that are.
    pub matched: usize,
    /// The node that the last of them is in; none, if there are none.
    pub node: Option<usize>,
    /// How many of the node's tokens are among them.
    pub within: usize,
}

/// What a turn adds to a tree.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// The node that it goes on from, and how many of its tokens the turn has.
    pub after: Option<(usize, usize)>,
    /// The first of its new tokens among all that are stored.
    pub begin: usize,
    /// The new tokens of its prompt.
    pub observed: usize,
    /// The tokens of its response, which come behind them.
    pub sampled: usize,
    /// How many of the new tokens have routes.
    pub captured: usize,
    /// Nodes that have the route of one token more now.
    pub repaired: &'a [i64],
}

/// The tree; see the module. It does not hold the tokens: each call is given all that are stored.
#[derive(Debug, Clone, Default)]
pub struct TokenTree {
    nodes: Vec<Node>,
    /// A node by its parent and first token; what begins alike beside it is [`Node::alike`].
    children: HashMap<(usize, i32), usize>,
}

impl TokenTree {
    /// The tree of these nodes.
    pub fn new(columns: &Columns, tokens: &[i32]) -> Result<Self> {
        let count = columns.parents.len();
        let others = [&columns.begins, &columns.lengths, &columns.sampled, &columns.captured];
        for (name, column) in ["begins", "lengths", "sampled", "captured"].into_iter().zip(others) {
            same_count(name, column.len(), count)?;
        }
        let mut tree = Self::default();
        tree.make_room(count)?;
        for node in 0..count {
            let number = |column: &[i64]| usize::try_from(column[node]).unwrap_or(usize::MAX);
            let found = Node {
                parent: number(&columns.parents),
                begin: number(&columns.begins),
                length: number(&columns.lengths),
                sampled: columns.sampled[node] != 0,
                captured: number(&columns.captured),
                alike: ROOT,
            };
            let refused = |problem| Err(Error::Node { node, problem });
            match found.tokens(tokens) {
                None => return refused(NOT_STORED),
                Some([]) => return refused("has no tokens"),
                Some(_) if found.captured > found.length => return refused("has more routes than tokens"),
                Some(_) => tree.add(tokens, found),
            };
        }
        tree.check_parents(&columns.parents)?;
        Ok(tree)
    }

    /// Refuses parents that are no nodes, and circles.
    fn check_parents(&self, given: &[i64]) -> Result<()> {
        let mut reached = memory::filled("nodes", false, self.nodes.len())?;
        let mut way = Vec::new();
        for (first, &parent) in given.iter().enumerate() {
            let (mut node, mut steps) = (first, 0);
            while node != ROOT && !reached.get(node).copied().unwrap_or(false) {
                // A way of more steps than there are nodes goes round.
                if node >= self.nodes.len() || steps > self.nodes.len() {
                    return Err(Error::LostNode { node: first, parent });
                }
                memory::push("nodes", &mut way, node)?;
                steps += 1;
                node = self.nodes[node].parent;
            }
            if node == ROOT && way.last().is_some_and(|&last| given[last] != NONE) {
                return Err(Error::LostNode { node: first, parent });
            }
            way.drain(..).for_each(|node| reached[node] = true);
        }
        Ok(())
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes, for [`TokenTree::new`].
    pub fn columns(&self) -> Result<Columns> {
        let of = |number: fn(&Node) -> i64| memory::collected("nodes", self.nodes.iter().map(number));
        Ok(Columns {
            parents: of(|node| if node.parent == ROOT { NONE } else { node.parent as i64 })?,
            begins: of(|node| node.begin as i64)?,
            lengths: of(|node| node.length as i64)?,
            sampled: of(|node| i64::from(node.sampled))?,
            captured: of(|node| node.captured as i64)?,
        })
    }

    /// The longest beginning of a prompt that is a path; of several the one that ends in the newest node.
    pub fn find(&self, tokens: &[i32], prompt: &[i32]) -> Result<Found> {
        let mut best = Found { matched: 0, node: None, within: 0 };
        let mut reached = vec![(ROOT, 0)];
        while let Some((parent, at)) = reached.pop() {
            let Some(token) = prompt.get(at) else { continue };
            let mut child = self.children.get(&(parent, *token)).copied().unwrap_or(ROOT);
            while let Some(node) = self.nodes.get(child) {
                let own = node.tokens(tokens).ok_or(Error::Node { node: child, problem: NOT_STORED })?;
                let within = common(own, &prompt[at..]);
                best = best.max(Found { matched: at + within, node: Some(child), within });
                if within == own.len() {
                    memory::push("nodes", &mut reached, (child, at + within))?;
                }
                child = node.alike;
            }
        }
        Ok(best)
    }

    /// Adds what a turn has beyond the node it goes on from; gives its last node.
    ///
    /// A node that it goes on from the middle of is split: its beginning becomes a node, the rest keeps its
    /// number. The tree is as it was if this fails.
    pub fn extend(&mut self, tokens: &[i32], turn: &Turn<'_>) -> Result<Option<usize>> {
        let count = turn.observed.checked_add(turn.sampled);
        let end = count.and_then(|count| turn.begin.checked_add(count));
        let node = self.nodes.len();
        if end.is_none_or(|end| end > tokens.len()) {
            return Err(Error::Node { node, problem: NOT_STORED });
        }
        if count.is_none_or(|count| turn.captured > count) {
            return Err(Error::Node { node, problem: "has more routes than tokens" });
        }
        if let Some((node, within)) = turn.after {
            let found = self.nodes.get(node).ok_or(Error::Node { node, problem: "is none that there is" })?;
            if within == 0 || within > found.length || found.tokens(tokens).is_none() {
                return Err(Error::Node { node, problem: "has no such tokens to go on from" });
            }
        }
        for &node in turn.repaired {
            let found = usize::try_from(node).ok().and_then(|node| self.nodes.get(node));
            if found.is_none_or(|node| node.captured >= node.length) {
                let node = usize::try_from(node).unwrap_or(usize::MAX);
                return Err(Error::Node { node, problem: "has no token that lacks routes" });
            }
        }
        self.make_room(3)?; // what a split makes, an observation and a response
        for &node in turn.repaired {
            let node = &mut self.nodes[node as usize];
            node.captured = (node.captured + 1).min(node.length);
        }
        let mut last = turn.after.map(|(node, within)| self.cut(tokens, node, within));
        let (mut begin, mut captured) = (turn.begin, turn.captured);
        for (length, sampled) in [(turn.observed, false), (turn.sampled, true)] {
            if length > 0 {
                let parent = last.unwrap_or(ROOT);
                let own = captured.min(length);
                let node = Node { parent, begin, length, sampled, captured: own, alike: ROOT };
                last = Some(self.add(tokens, node));
                begin += length;
                captured -= own;
            }
        }
        Ok(last)
    }

    /// The nodes from a root to this one.
    pub fn path(&self, node: usize) -> Result<Vec<i64>> {
        let mut path = Vec::new();
        self.climb(node, &mut path)?;
        Ok(path)
    }

    /// The nodes on the way to the first tokens of a node of which one has no route; where in the path that is, and
    /// where among all tokens.
    pub fn lacking(&self, node: usize, within: usize) -> Result<[Vec<i64>; 3]> {
        let mut found = [Vec::new(), Vec::new(), Vec::new()];
        let mut begin = 0;
        for number in self.path(node)? {
            let on_way = &self.nodes[number as usize];
            let used = if number as usize == node { within.min(on_way.length) } else { on_way.length };
            if on_way.captured < used {
                let stored = on_way.begin + on_way.captured;
                for (column, value) in
                    found.iter_mut().zip([number, (begin + on_way.captured) as i64, stored as i64])
                {
                    memory::push("nodes", column, value)?;
                }
            }
            begin += used;
        }
        Ok(found)
    }

    /// The nodes without children in ascending order, where the path to each begins, and all of these paths.
    pub fn branches(&self) -> Result<[Vec<i64>; 3]> {
        let leaves = self.leaves()?;
        let mut offsets = memory::with_room("rows", leaves.len() + 1)?;
        offsets.push(0);
        let mut nodes = Vec::new();
        for &leaf in &leaves {
            self.climb(leaf, &mut nodes)?;
            offsets.push(nodes.len() as i64);
        }
        let leaves = memory::collected("rows", leaves.iter().map(|&leaf| leaf as i64))?;
        Ok([leaves, offsets, nodes])
    }

    /// The nodes in depth-first order, with a row for each branch: children are in the order of their first rows.
    pub fn forest(&self) -> Result<Trie> {
        let (leaves, count) = (self.leaves()?, self.nodes.len());
        let mut sources = memory::filled("nodes", ROOT, count)?; // the first row of each node
        let mut by_row = memory::with_room("nodes", count)?;
        for (row, &leaf) in leaves.iter().enumerate() {
            let mut node = leaf;
            while node != ROOT && sources[node] == ROOT {
                sources[node] = row;
                by_row.push(node);
                node = self.nodes[node].parent;
            }
        }
        // Children as lists: the first, and what comes next. No two of a node have the same first row.
        let mut first_root = ROOT;
        let mut first = memory::filled("nodes", ROOT, count)?;
        let mut next = memory::filled("nodes", ROOT, count)?;
        for &node in by_row.iter().rev() {
            let head = first.get_mut(self.nodes[node].parent).unwrap_or(&mut first_root);
            next[node] = std::mem::replace(head, node);
        }
        let mut numbers = memory::filled("nodes", NONE, count)?;
        let mut found = Trie {
            parents: memory::with_room("nodes", count)?,
            begins: memory::with_room("nodes", count)?,
            ends: memory::with_room("nodes", count)?,
            source_rows: memory::with_room("nodes", count)?,
            leaf: memory::with_room("rows", leaves.len())?,
        };
        let mut at = first_root;
        while let Some(node) = self.nodes.get(at) {
            numbers[at] = found.parents.len() as i64;
            let parent = numbers.get(node.parent).copied().unwrap_or(NONE);
            let begin = found.ends.get(parent as usize).copied().unwrap_or(0);
            found.parents.push(parent);
            found.begins.push(begin);
            found.ends.push(begin.saturating_add(node.length as i64));
            found.source_rows.push(sources[at] as i64);
            at = if first[at] == ROOT { self.after(&next, at) } else { first[at] };
        }
        found.leaf.extend(leaves.iter().map(|&leaf| numbers[leaf]));
        Ok(found)
    }

    /// What comes after all of a node: its sibling, or that of what it is in.
    fn after(&self, next: &[usize], mut at: usize) -> usize {
        while at != ROOT && next[at] == ROOT {
            at = self.nodes[at].parent;
        }
        next.get(at).copied().unwrap_or(ROOT)
    }

    fn leaves(&self) -> Result<Vec<usize>> {
        let mut leaf = memory::filled("nodes", true, self.nodes.len())?;
        for node in &self.nodes {
            if let Some(parent) = leaf.get_mut(node.parent) {
                *parent = false;
            }
        }
        memory::collected("rows", (0..leaf.len()).filter(|&node| leaf[node]))
    }

    /// Appends the path to a node.
    fn climb(&self, mut node: usize, nodes: &mut Vec<i64>) -> Result<()> {
        let first = nodes.len();
        while let Some(found) = self.nodes.get(node) {
            memory::push("nodes", nodes, node as i64)?;
            node = found.parent;
        }
        nodes[first..].reverse();
        Ok(())
    }

    fn make_room(&mut self, more: usize) -> Result<()> {
        memory::make_room("nodes", &mut self.nodes, more)?;
        memory::make_room_in("nodes", &mut self.children, more)
    }

    /// Appends a node, whose tokens are stored; there is room for it.
    fn add(&mut self, tokens: &[i32], node: Node) -> usize {
        let number = self.nodes.len();
        self.nodes.push(node);
        self.place(tokens, number);
        number
    }

    /// Lets a node be found.
    fn place(&mut self, tokens: &[i32], number: usize) {
        let node = &mut self.nodes[number];
        let first = tokens.get(node.begin).copied().unwrap_or_default();
        let beside = self.children.insert((node.parent, first), number);
        node.alike = beside.unwrap_or(ROOT);
    }

    /// The node of the first `at` tokens of a node.
    fn cut(&mut self, tokens: &[i32], number: usize, at: usize) -> usize {
        let node = self.nodes[number];
        if at == node.length {
            return number;
        }
        let upper = self.nodes.len();
        self.nodes.push(Node { length: at, captured: node.captured.min(at), ..node });
        let first = tokens.get(node.begin).copied().unwrap_or_default();
        self.replace((node.parent, first), number, upper);
        self.nodes[number] = Node {
            parent: upper,
            begin: node.begin + at,
            length: node.length - at,
            captured: node.captured.saturating_sub(at),
            ..node
        };
        self.place(tokens, number);
        upper
    }

    /// Lets a node be found in the place of another.
    fn replace(&mut self, key: (usize, i32), old: usize, new: usize) {
        let Some(first) = self.children.get_mut(&key) else { return };
        if *first == old {
            *first = new;
            return;
        }
        let mut at = *first;
        while let Some(node) = self.nodes.get_mut(at) {
            if node.alike == old {
                node.alike = new;
                return;
            }
            at = node.alike;
        }
    }
}

const NOT_STORED: &str = "has tokens that are not stored";

/// How many first tokens two slices have in common.
fn common(a: &[i32], b: &[i32]) -> usize {
    const CHUNK: usize = 128; // compared as a whole, then token by token where it differs
    let chunks = a.chunks_exact(CHUNK).zip(b.chunks_exact(CHUNK));
    let same = chunks.take_while(|(x, y)| x == y).count() * CHUNK;
    same + a[same..].iter().zip(&b[same..]).take_while(|(x, y)| x == y).count()
}
