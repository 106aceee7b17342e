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
//! node and the first element, in a hash table. So every shared part is compared once.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::layout::same_count;
use crate::{Error, Result, memory};

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
        xxh3_64_with_seed(rest.get(..self.item).unwrap_or(rest), seed)
    }
}

/// How many first bytes two slices of one length have in common.
fn same_bytes(a: &[u8], b: &[u8]) -> usize {
    const CHUNK: usize = 512; // compared as a whole, then word by word where it differs
    let chunks = a.chunks(CHUNK).zip(b.chunks(CHUNK));
    let same = chunks.take_while(|(x, y)| x == y).count() * CHUNK;
    let (Some(x), Some(y)) = (a.get(same..), b.get(same..)) else { return a.len() };
    let words = x.as_chunks::<8>().0.iter().zip(y.as_chunks::<8>().0);
    let same = same + 8 * words.take_while(|(x, y)| x == y).count();
    same + a[same..].iter().zip(&b[same..]).take_while(|(x, y)| x == y).count()
}

/// A forest of nodes in depth-first order: parents before children, those by their first row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trie {
    /// The parent of each node, or [`NONE`].
    pub parents: Vec<i64>,
    /// The first element of each node, within its rows.
    pub begins: Vec<i64>,
    /// The end of each node, within its rows.
    pub ends: Vec<i64>,
    /// The first row that has each node.
    pub source_rows: Vec<i64>,
    /// The node that each row ends with, or [`NONE`].
    pub leaf: Vec<i64>,
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
    build_ahead(columns, groups, min_shared, |_, _| ())
}

/// [`build`], which asks for memory before it comes to it: many short rows take a sixth less time.
pub fn build_ahead(
    columns: &[Column<'_>],
    groups: Option<&[i64]>,
    min_shared: usize,
    prefetch: impl Fn(*const i8, usize),
) -> Result<Trie> {
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
        first_hashes: [None; SOON],
        nodes: Vec::new(),
        children: Children::new(rows)?,
        leaf: memory::with_room("rows", rows)?,
    };
    for row in 0..rows.min(SOON - 1) {
        builder.look_ahead(row);
    }
    for row in 0..rows {
        builder.ask(row, &prefetch);
        let length = builder.lengths[row] as usize;
        let leaf = if length == 0 { ROOT } else { builder.insert(row, length)? };
        builder.leaf.push(leaf);
    }
    builder.ordered()
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

/// How many rows are hashed before they are looked up, and how many rows before each step of that is asked for.
const SOON: usize = 32;
const AHEAD: usize = 8;

/// Above all nodes without a parent.
const ROOT: usize = usize::MAX;

/// A node in 24 bytes: of very many, looking at them is what takes the time.
#[derive(Clone, Copy)]
struct Node {
    /// Its parent's number, or [`NO_NODE`].
    parent: u32,
    /// The first row that has it.
    source: u32,
    begin: u32,
    end: u32,
    /// That of its parent and first element.
    hash: u64,
}

impl Node {
    fn parent(&self) -> usize {
        if self.parent == NO_NODE { ROOT } else { self.parent as usize }
    }

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

struct Builder<'a> {
    columns: &'a [Column<'a>],
    groups: Option<&'a [i64]>,
    min_shared: usize,
    lengths: Vec<u32>,
    /// Of rows from this one on.
    first_hashes: [Option<u64>; SOON],
    nodes: Vec<Node>,
    children: Children,
    leaf: Vec<usize>,
}

impl Builder<'_> {
    /// Hashes the first elements of a row.
    fn look_ahead(&mut self, row: usize) {
        self.first_hashes[row % SOON] = self.hash(ROOT, row, 0, self.lengths[row] as usize);
    }

    /// Asks for what rows that come soon are looked up in, and are compared with: rows that share nothing with the
    /// one before are all over memory.
    fn ask(&mut self, row: usize, prefetch: impl Fn(*const i8, usize)) {
        let rows = self.lengths.len();
        if row + SOON - 1 < rows {
            self.look_ahead(row + SOON - 1);
        }
        let place = |row: usize| {
            let hash = self.first_hashes[row % SOON].filter(|_| row < rows)?;
            Some(self.children.first_place(hash))
        };
        if let Some(place) = place(row + 3 * AHEAD) {
            prefetch((&raw const self.children.slots[place]).cast(), 1);
        }
        if let Some(node) = place(row + 2 * AHEAD).and_then(|place| self.node_at(place)) {
            prefetch(std::ptr::from_ref(node).cast(), 1);
        }
        if let Some(node) = place(row + AHEAD).and_then(|place| self.node_at(place)) {
            prefetch(self.columns[0].first[node.source()].as_ptr().cast(), 2);
        }
    }

    fn node_at(&self, place: usize) -> Option<&Node> {
        self.nodes.get(self.children.slots[place].1 as usize)
    }

    fn common(&self, rows: [usize; 2], from: usize, most: usize) -> usize {
        self.columns.iter().fold(most, |most, column| column.common(rows, from, most))
    }

    fn same_group(&self, a: usize, b: usize) -> bool {
        self.groups.is_none_or(|groups| groups[a] == groups[b])
    }

    /// Adds a row, and gives the node that it ends with.
    fn insert(&mut self, row: usize, length: usize) -> Result<usize> {
        let (mut at, mut depth) = self.finger(row, length);
        while depth < length {
            if at == ROOT || depth == self.nodes[at].end() {
                let known = at == ROOT;
                let hash =
                    if known { self.first_hashes[row % SOON] } else { self.hash(at, row, depth, length) };
                match hash.and_then(|hash| self.child(at, hash, row, depth, length)) {
                    Some((child, common)) => (at, depth) = (child, depth + common),
                    None => return self.add(at, hash, row, depth, length),
                }
            } else {
                let upper = self.cut(at, depth)?;
                let hash = self.hash(upper, row, depth, length);
                return self.add(upper, hash, row, depth, length);
            }
        }
        self.cut(at, depth)
    }

    /// What a row has in common with the one before it, and the node that this ends in.
    fn finger(&self, row: usize, length: usize) -> (usize, usize) {
        let Some(&(mut node)) = self.leaf.last().filter(|&&node| node != ROOT) else { return (ROOT, 0) };
        if !self.same_group(row - 1, row) {
            return (ROOT, 0);
        }
        let depth = self.common([row - 1, row], 0, length.min(self.nodes[node].end()));
        if depth < self.min_shared {
            return (ROOT, 0);
        }
        while self.nodes[node].begin() >= depth {
            node = self.nodes[node].parent();
        }
        (node, depth)
    }

    /// What a child is looked up by: the node, and of a row its next element. All that is to be in common of a
    /// row that begins, or those with one first element would all be compared; none if it is too short.
    fn hash(&self, at: usize, row: usize, depth: usize, length: usize) -> Option<u64> {
        let elements = if at == ROOT { self.min_shared } else { 1 };
        if elements > length - depth {
            return None;
        }
        let mut found = at as u64;
        for column in self.columns {
            for element in depth..depth + elements {
                found = column.hash(row, element, found);
            }
        }
        Some(found)
    }

    /// The child that a row goes on with, and how many elements of it the row has.
    fn child(&self, at: usize, hash: u64, row: usize, depth: usize, length: usize) -> Option<(usize, usize)> {
        self.children.with(hash).find_map(|child| {
            let node = &self.nodes[child];
            if node.parent() != at || (at == ROOT && !self.same_group(node.source(), row)) {
                return None;
            }
            let common = self.common([node.source(), row], depth, node.end().min(length) - depth);
            let wanted = if at == ROOT { self.min_shared } else { 1 };
            (common >= wanted).then_some((child, common))
        })
    }

    /// Adds what is left of a row as a node.
    fn add(
        &mut self,
        parent: usize,
        hash: Option<u64>,
        row: usize,
        begin: usize,
        end: usize,
    ) -> Result<usize> {
        let number = self.nodes.len();
        let parent = u32::try_from(parent).unwrap_or(NO_NODE);
        let (source, begin, end) = (row as u32, begin as u32, end as u32);
        memory::push("nodes", &mut self.nodes, Node { parent, source, begin, end, hash: hash.unwrap_or(0) })?;
        if hash.is_some() {
            self.children.insert(number, &self.nodes)?;
        }
        Ok(number)
    }

    /// The node that ends at `depth`: this one, or its first part, which becomes a node.
    fn cut(&mut self, at: usize, depth: usize) -> Result<usize> {
        let lower = self.nodes[at];
        if lower.end() == depth {
            return Ok(at);
        }
        let upper = self.nodes.len();
        memory::push("nodes", &mut self.nodes, Node { end: depth as u32, ..lower })?;
        self.children.replace(lower.hash, at, upper);
        let hash = self.hash(upper, lower.source(), depth, lower.end()).unwrap_or(0);
        // The rest keeps its number, which its children and rows know it by.
        self.nodes[at] = Node { parent: upper as u32, begin: depth as u32, hash, ..lower };
        self.children.insert(at, &self.nodes)?;
        Ok(upper)
    }

    /// Numbers nodes depth first, children by their first rows: no two of a node have the same.
    fn ordered(self) -> Result<Trie> {
        let (nodes, rows) = (&self.nodes, self.leaf.len());
        let mut of_row = memory::filled("rows", ROOT, rows)?; // lists of nodes: the head, and what comes next
        let mut next = memory::filled("nodes", ROOT, nodes.len())?;
        for (number, node) in nodes.iter().enumerate() {
            next[number] = std::mem::replace(&mut of_row[node.source()], number);
        }
        let mut first_root = ROOT;
        let mut first_child = memory::filled("nodes", ROOT, nodes.len())?;
        for &head in of_row.iter().rev() {
            let mut number = head;
            while number != ROOT {
                let first = first_child.get_mut(nodes[number].parent()).unwrap_or(&mut first_root);
                let (sibling, later) = (std::mem::replace(first, number), next[number]);
                next[number] = sibling;
                number = later;
            }
        }
        let mut found = Trie {
            parents: memory::with_room("nodes", nodes.len())?,
            begins: memory::with_room("nodes", nodes.len())?,
            ends: memory::with_room("nodes", nodes.len())?,
            source_rows: memory::with_room("nodes", nodes.len())?,
            leaf: memory::with_room("rows", rows)?,
        };
        let mut numbers = memory::filled("nodes", NONE, nodes.len())?;
        let mut at = first_root;
        while let Some(node) = nodes.get(at) {
            numbers[at] = found.parents.len() as i64;
            found.parents.push(numbers.get(node.parent()).copied().unwrap_or(NONE));
            found.begins.push(i64::from(node.begin));
            found.ends.push(i64::from(node.end));
            found.source_rows.push(i64::from(node.source));
            at = if first_child[at] == ROOT { after(nodes, &next, at) } else { first_child[at] };
        }
        found.leaf.extend(self.leaf.iter().map(|&leaf| numbers.get(leaf).copied().unwrap_or(NONE)));
        Ok(found)
    }
}

/// What comes after all of a node: its sibling, or that of what it is in.
fn after(nodes: &[Node], next: &[usize], mut at: usize) -> usize {
    while at != ROOT && next[at] == ROOT {
        at = nodes[at].parent();
    }
    next.get(at).copied().unwrap_or(ROOT)
}

/// Nodes by hash: an open table, in which each is at the first free place from that of its hash on.
struct Children {
    /// The upper half of the hash, and the node; [`NO_NODE`] where there is none. Half a cache line has four.
    slots: Vec<(u32, u32)>,
    count: usize,
}

/// The number of no node, in 32 bits.
const NO_NODE: u32 = u32::MAX;

impl Children {
    fn new(rows: usize) -> Result<Self> {
        let size = rows.saturating_mul(2).max(8).checked_next_power_of_two();
        let size = size.ok_or(Error::NoMemory { name: "rows", got: rows })?;
        Ok(Self { slots: memory::filled("rows", (0, NO_NODE), size)?, count: 0 })
    }

    fn first_place(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn places(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let last = self.slots.len() - 1;
        (0..=last).map(move |step| (hash as usize).wrapping_add(step) & last)
    }

    /// Nodes that may have this hash.
    fn with(&self, hash: u64) -> impl Iterator<Item = usize> {
        let found = self.places(hash).map(|place| self.slots[place]).take_while(|slot| slot.1 != NO_NODE);
        found.filter(move |slot| slot.0 == tag(hash)).map(|slot| slot.1 as usize)
    }

    /// Adds the last of the nodes, or one that has another hash now.
    fn insert(&mut self, node: usize, nodes: &[Node]) -> Result<()> {
        if self.count >= self.slots.len() / 4 * 3 {
            let larger = memory::filled("nodes", (0, NO_NODE), 2 * self.slots.len())?;
            let slots = std::mem::replace(&mut self.slots, larger);
            slots.into_iter().filter(|slot| slot.1 != NO_NODE).for_each(|slot| self.put(slot.1, nodes));
        }
        self.count += 1;
        self.put(node as u32, nodes);
        Ok(())
    }

    fn put(&mut self, node: u32, nodes: &[Node]) {
        let hash = nodes[node as usize].hash;
        if let Some(place) = self.places(hash).find(|&place| self.slots[place].1 == NO_NODE) {
            self.slots[place] = (tag(hash), node);
        }
    }

    fn replace(&mut self, hash: u64, node: usize, by: usize) {
        let slot = (tag(hash), node as u32);
        if let Some(place) = self.places(hash).find(|&place| self.slots[place] == slot) {
            self.slots[place].1 = by as u32;
        }
    }
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}
