//! Tries beside a dictionary of prefixes, and forests in bins beside loops over their rows.

mod common;
#[path = "oracles/trie.rs"]
mod oracle;

use std::cell::RefCell;
use std::collections::HashSet;

use proptest::prelude::*;
use rollkit::Error;
use rollkit::binpack::Oversize;
use rollkit::forest::{Forest, Options, Packed, Placed, lower_bound, pack};
use rollkit::trie::{Column, NONE, Trie, build, find};

/// Fewer than so many rows that begin alike, each cut in two halves somewhere, and their groups.
fn rows(most: usize) -> impl Strategy<Value = (Vec<(Vec<u16>, usize)>, Vec<i64>)> {
    let row =
        (any::<prop::sample::Index>(), 0..9usize, prop::collection::vec(0..3u16, 0..6), 0..9usize, 0..2i64);
    prop::collection::vec(row, 0..most).prop_map(|drawn| {
        let mut rows: Vec<(Vec<u16>, usize)> = Vec::new();
        let mut groups = Vec::new();
        for (before, kept, more, cut, group) in drawn {
            let mut row = if rows.is_empty() { Vec::new() } else { rows[before.index(rows.len())].0.clone() };
            row.truncate(kept);
            row.extend(more);
            let cut = cut.min(row.len());
            rows.push((row, cut));
            groups.push(group);
        }
        (rows, groups)
    })
}

/// A token as an element of so many bytes.
fn element(token: u16, item: usize) -> Vec<u8> {
    u128::from(token).to_le_bytes()[..item].to_vec()
}

/// The two halves of each row, in bytes.
fn halves(rows: &[(Vec<u16>, usize)], item: usize) -> Vec<[Vec<u8>; 2]> {
    let bytes = |part: &[u16]| part.iter().flat_map(|&token| element(token, item)).collect();
    rows.iter().map(|(row, cut)| [bytes(&row[..*cut]), bytes(&row[*cut..])]).collect()
}

fn slices(halves: &[[Vec<u8>; 2]], half: usize) -> Vec<&[u8]> {
    halves.iter().map(|both| both[half].as_slice()).collect()
}

fn forest(trie: &Trie) -> Forest<'_> {
    Forest { parents: &trie.parents, begins: &trie.begins, ends: &trie.ends, leaf: &trie.leaf }
}

/// Checks that every row is whole, in one bin, and that bins hold each of their tokens once.
fn check_packed(trie: &Trie, packed: &Packed, options: &Options, shared: &[Vec<usize>]) {
    let placed = Placed {
        parents: &packed.parents,
        starts: &packed.starts,
        lengths: &packed.lengths,
        leaf: &packed.leaf,
    };
    let read = placed.read(packed.width).unwrap();
    let [offsets, starts, lengths] = placed.paths().unwrap();
    let mut cells = std::collections::HashMap::new();
    for (row, ids) in shared.iter().enumerate() {
        let spans = offsets[row] as usize..offsets[row + 1] as usize;
        let path: Vec<i64> = spans.flat_map(|i| starts[i]..starts[i] + lengths[i]).collect();
        let long = ids.len() as i64 > options.capacity;
        let wanted = match options.oversize {
            Oversize::Drop if long => 0,
            Oversize::Truncate if long => options.capacity as usize,
            _ => ids.len(),
        };
        assert_eq!(path.len(), wanted, "row {row}");
        let bin = path.first().map_or(0, |at| at / packed.width);
        assert!((bin as usize) < packed.bins || path.is_empty());
        for (&cell, &id) in path.iter().zip(ids) {
            assert_eq!(cell / packed.width, bin, "row {row} is in one bin");
            assert_eq!(*cells.entry((bin, id)).or_insert(cell), cell, "a token is in a bin once");
        }
        // What the row's tokens see: themselves, and nothing else of what lies between.
        for (node, &start) in packed.starts.iter().enumerate() {
            let on = path.contains(&start);
            let last = path.last().copied().unwrap_or(NONE);
            assert!(!on || (start <= last && last < read.visible[node]));
        }
    }
    let total: i64 = packed.lengths.iter().sum();
    assert_eq!(total as usize, cells.len(), "nothing else is there");
    assert_eq!(packed.bins % options.bins_multiple_of, 0);
    for (node, &start) in packed.starts.iter().enumerate() {
        if packed.parents[node] == NONE {
            assert_eq!(start % packed.width % options.align, 0);
            assert!(options.max_segments.is_none_or(|most| read.trees[node] as usize <= most));
        }
    }
    if options.oversize == Oversize::Raise {
        let (bins, tokens) = lower_bound(&forest(trie), options.capacity).unwrap();
        assert!(packed.bins as i64 >= bins && total >= tokens);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(common::examples(4000)))]

    #[test]
    fn rows_share_what_a_dictionary_of_prefixes_says(
        (rows, groups) in rows(80), // more than are scouted at once
        grouped in any::<bool>(),
        min_shared in 1..4usize,
        item in prop::sample::select(vec![2, 4, 8, 16]),
    ) {
        let bytes = halves(&rows, item);
        let (first, second) = (slices(&bytes, 0), slices(&bytes, 1));
        let groups = grouped.then_some(&groups[..]);
        let found = build(&[Column { item, first: &first, second: &second }], groups, min_shared).unwrap();
        let elements: Vec<Vec<Vec<u8>>> =
            rows.iter().map(|(row, _)| row.iter().map(|&token| element(token, item)).collect()).collect();
        let shared = oracle::shared(&elements, groups, min_shared);
        oracle::check(&found, &shared);

        // A second column, which lacks the last element of some rows.
        let flags: Vec<Vec<u8>> = rows
            .iter()
            .map(|(row, cut)| row.iter().skip(usize::from(*cut == 1)).map(|token| u8::from(*token == 2)).collect())
            .collect();
        let column: Vec<&[u8]> = flags.iter().map(Vec::as_slice).collect();
        let columns =
            [Column { item, first: &first, second: &second }, Column { item: 1, first: &column, second: &[] }];
        let found = build(&columns, groups, min_shared).unwrap();
        let mut both = elements.clone();
        for (row, flags) in both.iter_mut().zip(&flags) {
            for (i, element) in row.iter_mut().enumerate() {
                element.extend(flags.get(i));
            }
        }
        oracle::check(&found, &oracle::shared(&both, groups, min_shared));
    }

    #[test]
    fn bins_hold_every_row_whole(
        (rows, _) in rows(14),
        capacity in 1..16i64,
        align in prop_oneof![Just(1i64), 1..5i64],
        max_segments in prop_oneof![Just(None), (1..3usize).prop_map(Some)],
        bins_multiple_of in 1..3usize,
        oversize in prop_oneof![
            Just(Oversize::Raise), Just(Oversize::Truncate), Just(Oversize::Alone), Just(Oversize::Drop)
        ],
    ) {
        let bytes = halves(&rows, 2);
        let (first, second) = (slices(&bytes, 0), slices(&bytes, 1));
        let found = build(&[Column { item: 2, first: &first, second: &second }], None, 1).unwrap();
        let options = Options { capacity, align, max_segments, bins_multiple_of, oversize };
        let long = rows.iter().position(|(row, _)| row.len() as i64 > capacity);
        match (pack(&forest(&found), &options), long) {
            (Err(Error::Oversize { row, .. }), Some(first)) if oversize == Oversize::Raise => {
                prop_assert_eq!(row, first);
            }
            (Ok(packed), _) => {
                prop_assert!(oversize != Oversize::Raise || long.is_none());
                let elements: Vec<Vec<Vec<u8>>> = rows
                    .iter()
                    .map(|(row, _)| row.iter().map(|token| token.to_ne_bytes().to_vec()).collect())
                    .collect();
                check_packed(&found, &packed, &options, &oracle::shared(&elements, None, 1));
            }
            (other, _) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn what_is_no_forest_is_refused(
        parents in prop::collection::vec(-2..6i64, 0..6),
        begins in prop::collection::vec(-1..4i64, 0..6),
        ends in prop::collection::vec(-1..5i64, 0..6),
        leaf in prop::collection::vec(-2..7i64, 0..4),
        capacity in -1..9i64,
    ) {
        // Refused, or packed as any other: never a panic.
        let forest = Forest { parents: &parents, begins: &begins, ends: &ends, leaf: &leaf };
        let options = Options {
            capacity, align: 1, max_segments: None, bins_multiple_of: 1, oversize: Oversize::Truncate,
        };
        let packed = pack(&forest, &options);
        prop_assert!(packed.is_err() || forest.check().is_ok());
        let placed = Placed { parents: &parents, starts: &begins, lengths: &ends, leaf: &leaf };
        let _ = (lower_bound(&forest, capacity), placed.read(capacity), placed.paths());
    }
}

#[test]
fn equal_rows_of_many_groups_are_looked_up_apart() {
    let count = 1000;
    let rows = vec![&b"ab"[..]; count];
    let columns = [Column { item: 1, first: &rows, second: &[] }];
    for stride in [1, 1 << 40] {
        let groups: Vec<i64> = (0..count as i64).map(|group| group * stride).collect();
        let asked = RefCell::new(HashSet::new());
        let found = find(&columns, Some(&groups), 1, |address, _| {
            asked.borrow_mut().insert(address.addr());
        });
        assert_eq!(found.unwrap().count(), count);
        let places = asked.borrow().len();
        assert!(places > count / 2, "{count} rows are looked up in {places} places");
    }
}

#[test]
fn nodes_are_written_to_as_many_numbers() {
    let columns = [Column { item: 1, first: &[b"ab", b"ac"], second: &[] }];
    let found = find(&columns, None, 1, |_, _| ()).unwrap();
    assert_eq!((found.count(), found.rows()), (3, 2));
    for short in 0..5 {
        let mut out = [0; 5].map(|_: i32| vec![7i64; 3]);
        out[4].truncate(2);
        out[short].pop();
        let [parents, begins, ends, source_rows, leaf] = &mut out;
        let written = found.write(Trie { parents: &mut parents[..], begins, ends, source_rows, leaf });
        let name = ["parents", "begins", "ends", "source_rows", "leaf"][short];
        let wanted = if short == 4 { 2 } else { 3 };
        assert_eq!(written, Err(Error::RowCount { name, got: wanted - 1, wanted }));
    }
}

#[test]
fn chains_of_a_million_nodes_take_no_stack() {
    let count = 1_000_000i64;
    let parents: Vec<i64> = (-1..count - 1).collect();
    let (begins, ends): (Vec<i64>, Vec<i64>) = ((0..count).collect(), (1..=count).collect());
    let leaf: Vec<i64> = (0..count).rev().step_by(999).collect();
    let forest = Forest { parents: &parents, begins: &begins, ends: &ends, leaf: &leaf };
    assert_eq!(lower_bound(&forest, count), Ok((1, count)));
    let options = Options {
        capacity: count,
        align: 1,
        max_segments: None,
        bins_multiple_of: 1,
        oversize: Oversize::Raise,
    };
    let packed = pack(&forest, &options).unwrap();
    assert_eq!((packed.bins, packed.starts.len()), (1, count as usize));
}

#[test]
fn a_chain_of_rows_is_built_in_one_pass() {
    let buffer = vec![7u8; 2000];
    let rows: Vec<&[u8]> = (1..=buffer.len()).map(|length| &buffer[..length]).collect();
    let found = build(&[Column { item: 1, first: &rows, second: &[] }], None, 1).unwrap();
    assert_eq!(found.parents, (-1..1999).collect::<Vec<i64>>());
    let backwards: Vec<&[u8]> = rows.iter().rev().copied().collect();
    let found = build(&[Column { item: 1, first: &backwards, second: &[] }], None, 1).unwrap();
    assert_eq!(found.leaf, (0..2000).rev().collect::<Vec<i64>>());
}

#[test]
fn what_bins_cannot_be_is_refused() {
    let forest = Forest { parents: &[-1], begins: &[0], ends: &[3], leaf: &[0] };
    let options =
        Options { capacity: 4, align: 1, max_segments: None, bins_multiple_of: 1, oversize: Oversize::Raise };
    let refused = |options: Options| pack(&forest, &options).unwrap_err().to_string();
    assert_eq!(refused(Options { capacity: 0, ..options }), "capacity must be at least 1, got 0");
    assert_eq!(refused(Options { align: 0, ..options }), "align must be at least 1, got 0");
    assert_eq!(
        refused(Options { max_segments: Some(0), ..options }),
        "max_segments must be at least 1, got 0"
    );
    assert_eq!(
        refused(Options { bins_multiple_of: 0, ..options }),
        "bins_multiple_of must be at least 1, got 0"
    );
    assert_eq!(
        refused(Options { bins_multiple_of: 1 << 62, ..options }),
        "bins_multiple_of=4611686018427387904: bins of 4 elements add up to more than 2**63 - 1 elements"
    );
    assert_eq!(
        refused(Options { capacity: 2, ..options }),
        "row 0 has 3 elements, more than the capacity of 2; raise capacity, or pass oversize=\"truncate\", \"alone\" or \"drop\""
    );
    let odd = Forest { leaf: &[1], ..forest };
    assert_eq!(odd.check().unwrap_err().to_string(), "row 0 ends with node 1, but there are 1 nodes");
    let odd = Forest { begins: &[1], ..forest };
    let text = "node 0 begins other than where its parent ends, or is empty";
    assert_eq!(odd.check().unwrap_err().to_string(), text);
    let odd = Forest { parents: &[0], ..forest };
    let text = "node 0 has a parent that is none of the path before it";
    assert_eq!(odd.check().unwrap_err().to_string(), text);
}
