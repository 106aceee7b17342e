//! What rows of two columns share, against a dictionary of prefixes; and forests that are none.

#![no_main]

#[path = "../../tests/oracles/trie.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use rollkit::binpack::Oversize;
use rollkit::forest::{Forest, Options, Placed, lower_bound, pack};
use rollkit::trie::{Column, build};

fuzz_target!(|case: (Vec<(Vec<u8>, u8, i64)>, bool, u8, u8, Vec<i8>)| {
    let (rows, grouped, min_shared, capacity, numbers) = case;
    let first: Vec<&[u8]> = rows.iter().map(|(row, cut, _)| &row[..usize::from(*cut).min(row.len())]).collect();
    let second: Vec<&[u8]> = rows.iter().map(|(row, cut, _)| &row[usize::from(*cut).min(row.len())..]).collect();
    let groups: Vec<i64> = rows.iter().map(|row| row.2).collect();
    let groups = grouped.then_some(&groups[..]);
    let min_shared = usize::from(min_shared % 4) + 1;
    let found = build(&[Column { item: 1, first: &first, second: &second }], groups, min_shared).unwrap();
    let elements: Vec<Vec<Vec<u8>>> =
        rows.iter().map(|(row, _, _)| row.iter().map(|&token| vec![token]).collect()).collect();
    oracle::check(&found, &oracle::shared(&elements, groups, min_shared));

    let options = Options {
        capacity: i64::from(capacity),
        align: 1,
        max_segments: None,
        bins_multiple_of: 1,
        oversize: Oversize::Truncate,
    };
    let forest =
        Forest { parents: &found.parents, begins: &found.begins, ends: &found.ends, leaf: &found.leaf };
    match pack(&forest, &options) {
        Ok(packed) => assert!(packed.lengths.iter().sum::<i64>() <= packed.bins as i64 * packed.width),
        Err(_) => assert_eq!(capacity, 0),
    }
    // Anything: refused, or as any other.
    let numbers: Vec<i64> = numbers.into_iter().map(i64::from).collect();
    let quarter = numbers.len() / 4;
    let [a, b, c] = [0, 1, 2].map(|i| &numbers[i * quarter..(i + 1) * quarter]);
    let leaf = &numbers[3 * quarter..];
    let odd = Forest { parents: a, begins: b, ends: c, leaf };
    let placed = Placed { parents: a, starts: b, lengths: c, leaf };
    let _ = (pack(&odd, &options), lower_bound(&odd, options.capacity), placed.paths(), placed.read(options.capacity));
});
