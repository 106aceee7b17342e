//! A hash of each row's bytes, to find rows that a transport has changed: XXH3, 64 bits.
//!
//! XXH3 (Yann Collet, 2019) reads memory about as fast as it comes, and tells apart whatever differs in a bit: the
//! payloads of NaN, 0 and -0. It is no cryptographic hash: it finds accidents.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::out::Out;
use crate::{Error, Result};

/// Writes the hash of each row: `rows` of elements of `item` bytes, from `offsets[i]` to `offsets[i + 1]`.
///
/// ```
/// let mut found = [0; 2];
/// rollkit::hash::rows(&[7, 7, 7, 7], 2, &[0, 1, 2], 0, &mut found)?;
/// assert_eq!(found[0], found[1]);
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn rows<O: Out<u64>>(
    values: &[u8],
    item: usize,
    offsets: &[i64],
    seed: u64,
    out: &mut [O],
) -> Result<()> {
    if out.len() + 1 != offsets.len() {
        return Err(Error::RowCount { name: "out", got: out.len(), wanted: offsets.len().saturating_sub(1) });
    }
    for (pair, hash) in offsets.windows(2).zip(out) {
        let [begin, end] = [pair[0], pair[1]].map(|at| (at as usize).wrapping_mul(item));
        let row = values.get(begin..end).ok_or(Error::Changed { name: "offsets" })?;
        hash.set(xxh3_64_with_seed(row, seed));
    }
    Ok(())
}
