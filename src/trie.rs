//! Rows that begin alike, as a compressed trie: every token that rows share is in one node.
//!
//! ```text
//! row 0   a b c d          node 0  a b      of row 0, elements 0 to 2
//! row 1   a b e            node 1   └ c d   of row 0, 2 to 4: the leaf of row 0
//! row 2   a b              node 2   └ e     of row 1, 2 to 3: the leaf of row 1
//! ```
//!
//! Row 2 ends at node 0. A node is a span of the first row that has it, so that nothing is copied.
//!
//! Each row is compared with the one before it first: they mostly share what the row shares with any, and
//! the path of that row says which node holds it (a finger). Only what comes after is looked up, by the
//! node and the next element, in a hash table. So every shared part is compared once.
//!
//! Short rows that share little with the one before are all over memory, and waiting for that is their time.
//! So these are scouted, many at once: hashes alone say where each may go, and memory comes meanwhile. Then
//! each is compared with a row that goes there, and starts from what they really share.

mod children;
mod order;
mod scout;

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::layout::same_count;
use crate::out::Out;
use crate::{Error, Result, memory};
use children::Children;

/// The most elements of a row, and the most rows: nodes are numbered in 32 bits, and twice as many as rows.
pub const MOST: usize = (u32::MAX / 2) as usize;

/// The parent of a node that has none, and the leaf of an empty row.
pub const NONE: i64 = -1;

/// Rows of one column, in two halves each: prompt and response, say.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// The bytes of an element.
    pub item: usize,
    /// The bytes of each row.
    pub first: &'a [&'a [u8]],
    /// What each row goes on with; empty where no row does.
    pub second: &'a [&'a [u8]],
}

impl<'a> Column<'a> {
    fn bytes(&self, row: usize) -> usize {
        self.first[row].len() + self.second.get(row).map_or(0, |half| half.len())
    }

    /// The bytes of a row from byte `at` on, up to the end of the half that has it.
    fn rest(&self, row: usize, at: usize) -> &'a [u8] {
        let first = self.first[row];
        match first.get(at..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => self.second.get(row).and_then(|half| half.get(at - first.len()..)).unwrap_or_default(),
        }
    }

    /// How many elements from `from` on two rows have in common, of at most so many. They have it in common to
    /// have none.
    fn common(&self, [a, b]: [usize; 2], from: usize, most: usize) -> usize {
        let (begin, wanted) = (from * self.item, most * self.item);
        let mut done = 0;
        while done < wanted {
            let (x, y) = (self.rest(a, begin + done), self.rest(b, begin + done));
            let length = x.len().min(y.len()).min(wanted - done);
            if x.is_empty() && y.is_empty() {
                return most;
            }
            let same = same_bytes(&x[..length], &y[..length]);
            done += same;
            if same < length || length == 0 {
                break;
            }
        }
        done / self.item
    }

    fn hash(&self, row: usize, element: usize, seed: u64) -> u64 {
        let rest = self.rest(row, element * self.item);
        match (self.item, rest.first_chunk(), rest.first_chunk()) {
            (4, Some(&four), _) => mixed(seed ^ (u64::from(u32::from_ne_bytes(four)) << 32)),
            (8, _, Some(&eight)) => mixed(seed.rotate_left(32) ^ u64::from_ne_bytes(eight)),
            _ => xxh3_64_with_seed(rest.get(..self.item).unwrap_or(rest), seed),
        }
    }
}

/// A hash of a number, no two of which have the same: two multiplications, where XXH3 has a call and branches.
fn mixed(number: u64) -> u64 {
    let spread = (number ^ (number >> 32)).wrapping_mul(SPREAD);
    let spread = (spread ^ (spread >> 29)).wrapping_mul(SPREAD);
    spread ^ (spread >> 32)
}

/// An odd number of many bits, as of the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// How many first bytes two slices of one length have in common.
fn same_bytes(a: &[u8], b: &[u8]) -> usize {
    const HEAD: usize = 64; // short rows differ early, before comparing more at once pays
    const CHUNK: usize = 512;
    let head = same_words(&a[..a.len().min(HEAD)], &b[..b.len().min(HEAD)]);
    if head < HEAD {
        return head;
    }
    let chunks = a[HEAD..].chunks(CHUNK).zip(b[HEAD..].chunks(CHUNK));
    let same = HEAD + chunks.take_while(|(x, y)| x == y).count() * CHUNK;
    let (Some(x), Some(y)) = (a.get(same..), b.get(same..)) else { return a.len() };
    same + same_words(x, y)
}

/// [`same_bytes`], word by word.
fn same_words(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let same = 8 * words.take_while(|(x, y)| x == y).count();
    same + a[same..].iter().zip(&b[same..]).take_while(|(x, y)| x == y).count()
}

/// A forest of nodes in depth-first order: parents before children, those by their first row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trie<Numbers = Vec<i64>> {
    /// The parent of each node, or [`NONE`].
    pub parents: Numbers,
    /// The first element of each node, within its rows.
    pub begins: Numbers,
    /// The end of each node, within its rows.
    pub ends: Numbers,
    /// The first row that has each node.
    pub source_rows: Numbers,
    /// The node that each row ends with, or [`NONE`].
    pub leaf: Numbers,
}

/// Finds what rows share.
///
/// Rows share an element if they have it, and all before it, in common in every column, bit for bit; if they
/// are of one group; and if they have `min_shared` elements in common at all.
///
/// ```
/// use rollkit::trie::{Column, build};
///
/// let rows: [&[u8]; 3] = [b"abcd", b"abe", b"ab"];
/// let found = build(&[Column { item: 1, first: &rows, second: &[] }], None, 1)?;
/// assert_eq!(found.parents, [-1, 0, 0]);
/// assert_eq!((found.begins, found.ends), (vec![0, 2, 2], vec![2, 4, 3]));
/// assert_eq!((found.source_rows, found.leaf), (vec![0, 0, 1], vec![1, 2, 0]));
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn build(columns: &[Column<'_>], groups: Option<&[i64]>, min_shared: usize) -> Result<Trie> {
    let nodes = find(columns, groups, min_shared, |_, _| ())?;
    let mut found = Trie {
        parents: memory::filled("nodes", 0, nodes.count())?,
        begins: memory::filled("nodes", 0, nodes.count())?,
        ends: memory::filled("nodes", 0, nodes.count())?,
        source_rows: memory::filled("nodes", 0, nodes.count())?,
        leaf: memory::filled("rows", 0, nodes.rows())?,
    };
    nodes.write(Trie {
        parents: &mut found.parents[..],
        begins: &mut found.begins,
        ends: &mut found.ends,
        source_rows: &mut found.source_rows,
        leaf: &mut found.leaf,
    })?;
    Ok(found)
}

/// What rows share, as they were gone through.
pub struct Nodes {
    nodes: Vec<Node>,
    /// The node that each row ends with.
    leaf: Vec<u32>,
}

impl Nodes {
    /// How many nodes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.leaf.len()
    }

    /// Writes them depth first, to as many numbers each.
    pub fn write<O: Out<i64>>(&self, out: Trie<&mut [O]>) -> Result<()> {
        for (name, out) in [
            ("parents", &out.parents),
            ("begins", &out.begins),
            ("ends", &out.ends),
            ("source_rows", &out.source_rows),
        ] {
            same_count(name, out.len(), self.count())?;
        }
        same_count("leaf", out.leaf.len(), self.rows())?;
        order::depth_first(&self.nodes, &self.leaf, out)
    }
}

/// [`build`] without an order yet, which asks for memory before it comes to it.
pub fn find(
    columns: &[Column<'_>],
    groups: Option<&[i64]>,
    min_shared: usize,
    prefetch: impl Fn(*const i8, usize),
) -> Result<Nodes> {
    let rows = columns.first().map_or(0, |column| column.first.len());
    for column in columns {
        same_count("first", column.first.len(), rows)?;
        if !column.second.is_empty() {
            same_count("second", column.second.len(), rows)?;
        }
        if column.item == 0 {
            return Err(Error::NotPositive { name: "item", got: 0 });
        }
    }
    if let Some(groups) = groups {
        same_count("groups", groups.len(), rows)?;
    }
    if rows > MOST {
        return Err(Error::NoMemory { name: "rows", got: rows });
    }
    if min_shared == 0 {
        return Err(Error::NotPositive { name: "min_shared", got: 0 });
    }
    let mut builder = Builder {
        columns,
        groups,
        min_shared,
        lengths: lengths(columns, rows)?,
        nodes: Vec::new(),
        children: Children::new(rows)?,
        leaf: memory::with_room("rows", rows)?,
    };
    for begin in (0..rows).step_by(BLOCK) {
        builder.add_rows(begin..rows.min(begin + BLOCK), &prefetch)?;
    }
    Ok(Nodes { nodes: builder.nodes, leaf: builder.leaf })
}

/// The elements of each row, those of the first column.
fn lengths(columns: &[Column<'_>], rows: usize) -> Result<Vec<u32>> {
    let mut found = memory::with_room("rows", rows)?;
    for row in 0..rows {
        let mut counts = columns.iter().map(|column| column.bytes(row) / column.item);
        let wanted = counts.next().unwrap_or(0);
        if let Some(got) = counts.find(|&got| got > wanted) {
            return Err(Error::RowLength { row, got, wanted, per: "at most one for each token" });
        }
        if wanted > MOST {
            return Err(Error::RowTooLong { row, length: wanted as i64, capacity: MOST as i64 });
        }
        found.push(wanted as u32);
    }
    Ok(found)
}

/// The number of no node: above all that have no parent.
const ROOT: u32 = u32::MAX;

/// A node in 16 bytes: of very many, looking at them is what takes the time.
#[derive(Clone, Copy)]
struct Node {
    /// Its parent's number, or [`ROOT`].
    parent: u32,
    /// The first row that has it.
    source: u32,
    begin: u32,
    end: u32,
}

impl Node {
    fn source(&self) -> usize {
        self.source as usize
    }

    fn begin(&self) -> usize {
        self.begin as usize
    }

    fn end(&self) -> usize {
        self.end as usize
    }
}

/// How many rows are scouted at once.
const BLOCK: usize = 32;

struct Builder<'a> {
    columns: &'a [Column<'a>],
    groups: Option<&'a [i64]>,
    min_shared: usize,
    lengths: Vec<u32>,
    nodes: Vec<Node>,
    children: Children,
    /// The node that each row ends with.
    leaf: Vec<u32>,
}

impl Builder<'_> {
    /// Adds so many rows, at most [`BLOCK`].
    fn add_rows(&mut self, rows: Range<usize>, prefetch: &impl Fn(*const i8, usize)) -> Result<()> {
        let mut shared = [0; BLOCK];
        for (shared, row) in shared.iter_mut().zip(rows.clone()).filter(|(_, row)| *row > 0) {
            *shared = self.shared([row - 1, row], self.length(row - 1));
        }
        let scouted = self.scout(rows.clone(), &shared, prefetch)?;
        for (row, (shared, scouted)) in rows.zip(shared.into_iter().zip(scouted)) {
            let leaf = self.insert(row, shared, scouted)?;
            self.leaf.push(leaf);
        }
        Ok(())
    }

    /// What two rows share of their first elements, up to `most`.
    fn shared(&self, [a, b]: [usize; 2], most: usize) -> usize {
        if self.groups.is_some_and(|groups| groups[a] != groups[b]) {
            return 0;
        }
        let shared = self.common([a, b], 0, most.min(self.length(b)));
        if shared < self.min_shared { 0 } else { shared }
    }

    fn length(&self, row: usize) -> usize {
        self.lengths[row] as usize
    }

    fn common(&self, rows: [usize; 2], from: usize, most: usize) -> usize {
        self.columns.iter().fold(most, |most, column| column.common(rows, from, most))
    }

    /// Adds a row that shares so much with the one before, and gives the node that it ends with.
    fn insert(&mut self, row: usize, shared: usize, scouted: u32) -> Result<u32> {
        let length = self.length(row);
        if length == 0 {
            return Ok(ROOT);
        }
        let (mut at, mut depth) = self.start(row, shared, scouted);
        while depth < length {
            if at != ROOT && depth < self.nodes[at as usize].end() {
                at = self.cut(at, depth)?;
            }
            let hash = self.hash(at, row, depth);
            let Some((child, common)) = hash.and_then(|hash| self.child(at, hash, row, depth)) else {
                let [source, begin, end] = [row, depth, length].map(|number| number as u32);
                return self.add(Node { parent: at, source, begin, end }, hash);
            };
            (at, depth) = (child, depth + common);
        }
        self.cut(at, depth)
    }

    /// How far a row goes with the one before it, or with one that has the node found by a scout, if that goes
    /// further; and the node that this ends in.
    fn start(&self, row: usize, shared: usize, scouted: u32) -> (u32, usize) {
        let (mut at, mut depth) = (self.leaf.last().copied().unwrap_or(ROOT), shared);
        if let Some(node) = self.nodes.get(scouted as usize).filter(|node| node.begin() >= depth) {
            let shared = self.shared([node.source(), row], node.end());
            if shared > depth {
                (at, depth) = (scouted, shared);
            }
        }
        if depth == 0 {
            return (ROOT, 0);
        }
        while self.nodes[at as usize].begin() >= depth {
            at = self.nodes[at as usize].parent;
        }
        (at, depth)
    }

    /// What a child is looked up by: the node, and of a row its next element. All that is to be in common of a
    /// row that begins, and its group, or those with one first element would all be compared; none if it is too
    /// short.
    fn hash(&self, at: u32, row: usize, depth: usize) -> Option<u64> {
        let elements = if at == ROOT { self.min_shared } else { 1 };
        if elements > self.length(row) - depth {
            return None;
        }
        let mut found = u64::from(at);
        if let Some(groups) = self.groups.filter(|_| at == ROOT) {
            found ^= mixed(groups[row].cast_unsigned());
        }
        for column in self.columns {
            for element in depth..depth + elements {
                found = column.hash(row, element, found);
            }
        }
        Some(found)
    }

    /// The child that a row goes on with, and how many elements of it the row has.
    fn child(&self, at: u32, hash: u64, row: usize, depth: usize) -> Option<(u32, usize)> {
        self.children.with(hash).find_map(|child| {
            let node = &self.nodes[child as usize];
            let rows = [node.source(), row];
            let common = if node.parent != at {
                0
            } else if at == ROOT {
                self.shared(rows, node.end())
            } else {
                self.common(rows, depth, node.end().min(self.length(row)) - depth)
            };
            (common > 0).then_some((child, common))
        })
    }

    /// Adds a node that has a hash, or that no row can share.
    fn add(&mut self, node: Node, hash: Option<u64>) -> Result<u32> {
        let number = self.nodes.len() as u32;
        memory::push("nodes", &mut self.nodes, node)?;
        if let Some(hash) = hash {
            self.children.insert(hash, number);
        }
        Ok(number)
    }

    /// The node that ends at `depth`: this one, or its first part, which becomes a node.
    fn cut(&mut self, at: u32, depth: usize) -> Result<u32> {
        let lower = self.nodes[at as usize];
        if lower.end() == depth {
            return Ok(at);
        }
        let upper = self.add(Node { end: depth as u32, ..lower }, None)?;
        if let Some(hash) = self.hash(lower.parent, lower.source(), lower.begin()) {
            self.children.replace(hash, at, upper);
        }
        // The rest keeps its number, which its children and rows know it by.
        self.nodes[at as usize] = Node { parent: upper, begin: depth as u32, ..lower };
        if let Some(hash) = self.hash(upper, lower.source(), depth) {
            self.children.insert(hash, at);
        }
        Ok(upper)
    }
}
