//! Rows laid one bin after the other.

use rollkit::layout::ABSENT;

/// Starts and order, bin by bin.
pub fn reference(placed: &[i64], bins: &[i64], width: i64, align: i64) -> (Vec<i64>, Vec<i64>) {
    let rows_of = |bin: i64| (0..bins.len()).filter(move |&row| bins[row] == bin);
    let mut starts = vec![ABSENT; bins.len()];
    let mut order: Vec<_> = rows_of(ABSENT).map(|row| row as i64).collect();
    for bin in 0..=bins.iter().copied().max().unwrap_or(ABSENT) {
        let mut rows: Vec<_> = rows_of(bin).collect();
        let (mut used, mut last) = (0, 0);
        for &row in &rows {
            last = if placed[row] > 0 { used } else { last };
            starts[row] = bin * width + if used == width { last } else { used };
            used = width.min((used + placed[row] + align - 1) / align * align);
        }
        rows.sort_by_key(|&row| (starts[row], placed[row] > 0));
        order.extend(rows.into_iter().map(|row| row as i64));
    }
    (starts, order)
}
