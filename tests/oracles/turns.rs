//! Turns, one element at a time.

use rollkit::turns::Turns;

/// One element at a time.
pub fn naive(nonzero: &[bool], offsets: &[i64]) -> Turns {
    let mut found = Turns { offsets: vec![0], ..Turns::default() };
    for pair in offsets.windows(2) {
        let row = &nonzero[pair[0] as usize..pair[1] as usize];
        for turn in row.split(|&nonzero| !nonzero).filter(|turn| !turn.is_empty()) {
            found.lengths.push(turn.len() as i64);
        }
        found.offsets.push(found.lengths.len() as i64);
        found.counts.push(row.iter().filter(|&&nonzero| nonzero).count() as i64);
    }
    found
}
