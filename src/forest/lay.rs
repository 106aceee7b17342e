//! Rows that have a bin to nodes that have a place in it.

use super::plan::{Ends, plan};
use super::{Forest, Node, Options, ROOT, oversize};
use crate::binpack::Oversize;
use crate::trie::NONE;
use crate::{Error, Result, memory};

/// Nodes in bins, depth first within each: a node once for each bin that has a row of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packed {
    /// The parent of each, or [`NONE`].
    pub parents: Vec<i64>,
    /// Where each starts in the output.
    pub starts: Vec<i64>,
    /// The elements of each.
    pub lengths: Vec<i64>,
    /// The first row of the bin that has each.
    pub source_rows: Vec<i64>,
    /// The first element of each, within its rows.
    pub begins: Vec<i64>,
    /// Which of these each row ends with, or [`NONE`].
    pub leaf: Vec<i64>,
    /// How many bins there are, empty ones at the end included.
    pub bins: usize,
    /// The elements of a bin: the capacity, or of the longest row where that is laid alone.
    pub width: i64,
}

/// Lays a forest in bins.
///
/// ```
/// use rollkit::binpack::Oversize;
/// use rollkit::forest::{Forest, Options, pack};
///
/// let forest =
///     Forest { parents: &[-1, 0, 0], begins: &[0, 2, 2], ends: &[2, 4, 3], leaf: &[1, 2] };
/// let options =
///     Options { capacity: 8, align: 1, max_segments: None, bins_multiple_of: 1, oversize: Oversize::Raise };
/// let found = pack(&forest, &options)?;
/// assert_eq!((found.bins, found.starts, found.leaf), (1, vec![0, 2, 4], vec![1, 2]));
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn pack(forest: &Forest<'_>, options: &Options) -> Result<Packed> {
    options.check()?;
    let mut nodes = forest.nodes()?;
    let mut leaves = forest.leaves(nodes.len())?;
    let longest = oversize(&nodes, &leaves, options.capacity);
    let (mut bins, mut count) = (Vec::new(), 0);
    let mut width = options.capacity;
    match (longest, options.oversize) {
        (Some((row, length)), Oversize::Raise) => {
            return Err(Error::Oversize { row, length, capacity: options.capacity, splits: false });
        }
        (Some(_), Oversize::Alone) => {
            let short =
                leaves.iter().copied().filter(|&leaf| leaf != ROOT && nodes[leaf].end <= options.capacity);
            let ends = Ends::of(&nodes, short)?;
            (bins, count) = plan(&nodes, &ends, options)?;
            for &leaf in &leaves {
                if leaf != ROOT && bins[leaf] == ROOT {
                    (bins[leaf], count) = (count, count + 1);
                    width = width.max(nodes[leaf].end);
                }
            }
        }
        (Some(_), Oversize::Truncate) => truncate(&mut nodes, &mut leaves, options.capacity),
        (Some(_), Oversize::Drop) => {
            let long =
                leaves.iter_mut().filter(|leaf| **leaf != ROOT && nodes[**leaf].end > options.capacity);
            long.for_each(|leaf| *leaf = ROOT);
        }
        (None, _) => {}
    }
    if bins.is_empty() {
        let ends = Ends::of(&nodes, leaves.iter().copied())?;
        (bins, count) = plan(&nodes, &ends, options)?;
    }
    if count == 0 && forest.leaf.contains(&NONE) {
        count = 1; // of empty rows, as other rows have it
    }
    let wanted = count.checked_next_multiple_of(options.bins_multiple_of);
    let fits = wanted.and_then(|count| i64::try_from(count).ok()?.checked_mul(width)).is_some();
    let (Some(wanted), true) = (wanted, fits) else {
        return Err(Error::TooManyBins { multiple: options.bins_multiple_of, width });
    };
    let mut packed = lay(&nodes, &leaves, &bins, count, width, options.align)?;
    packed.bins = wanted;
    Ok(packed)
}

/// Cuts rows to their first `capacity` elements: what is below is on no row's path then.
fn truncate(nodes: &mut [Node], leaves: &mut [usize], capacity: i64) {
    for leaf in leaves {
        while *leaf != ROOT && nodes[*leaf].begin >= capacity {
            *leaf = nodes[*leaf].parent;
        }
    }
    for node in nodes {
        node.end = node.end.min(capacity);
    }
}

/// Lays the rows of each bin, in the order of their nodes.
fn lay(
    nodes: &[Node],
    leaves: &[usize],
    bins: &[usize],
    count: usize,
    width: i64,
    align: i64,
) -> Result<Packed> {
    let rows = by_bin(bins, count)?;
    let mut first_row = memory::filled("nodes", i64::MAX, nodes.len())?;
    for (row, &leaf) in leaves.iter().enumerate().rev() {
        if let Some(first) = first_row.get_mut(leaf) {
            *first = row as i64;
        }
    }
    let mut found = Packed { width, ..Packed::default() };
    let mut copies = memory::filled("nodes", (ROOT, 0usize), nodes.len())?; // the last bin with it, and which it is there
    let mut of_rows = memory::filled("nodes", NONE, nodes.len())?;
    let mut path = Vec::new();
    let (mut bin, mut free) = (ROOT, 0);
    for end in rows {
        if bins[end] != bin {
            (bin, free) = (bins[end], 0);
        }
        let mut at = end;
        while at != ROOT && copies[at].0 != bin {
            memory::push("nodes", &mut path, at)?;
            at = nodes[at].parent;
        }
        while let Some(node) = path.pop() {
            let Node { parent, begin, end } = nodes[node];
            if parent == ROOT {
                free = if align == 1 { free } else { aligned(free, align).min(width) };
            }
            copies[node] = (bin, found.starts.len());
            let above = copies.get(parent).map_or(NONE, |copy| copy.1 as i64);
            memory::push("nodes", &mut found.parents, above)?;
            memory::push("nodes", &mut found.starts, bin as i64 * width + free)?;
            memory::push("nodes", &mut found.lengths, end - begin)?;
            memory::push("nodes", &mut found.begins, begin)?;
            memory::push("nodes", &mut found.source_rows, i64::MAX)?;
            free += end - begin;
        }
        let copy = copies[end].1;
        found.source_rows[copy] = first_row[end];
        of_rows[end] = copy as i64;
    }
    for copy in (0..found.parents.len()).rev() {
        let source = found.source_rows[copy];
        if let Some(parent) = found.source_rows.get_mut(found.parents[copy] as usize) {
            *parent = (*parent).min(source);
        }
    }
    let leaf = leaves.iter().map(|&leaf| of_rows.get(leaf).copied().unwrap_or(NONE));
    found.leaf = memory::collected("rows", leaf)?;
    Ok(found)
}

fn aligned(at: i64, align: i64) -> i64 {
    at.cast_unsigned().next_multiple_of(align.cast_unsigned()).min(i64::MAX as u64) as i64
}

/// The nodes that have a bin, bin after bin, and in their order within one.
fn by_bin(bins: &[usize], count: usize) -> Result<Vec<usize>> {
    let mut ends = memory::filled("bins", 0usize, count + 1)?;
    for &bin in bins.iter().filter(|bin| **bin != ROOT) {
        ends[bin + 1] += 1;
    }
    for bin in 0..count {
        ends[bin + 1] += ends[bin];
    }
    let mut found = memory::filled("rows", 0, ends[count])?;
    for (node, &bin) in bins.iter().enumerate().filter(|(_, bin)| **bin != ROOT) {
        found[ends[bin]] = node;
        ends[bin] += 1;
    }
    Ok(found)
}
