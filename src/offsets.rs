//! Lengths to offsets and back, checked: the vocabulary that all other modules share.

use multiversion::multiversion;

use crate::out::Out;
use crate::{Error, Result};

/// Adds up row lengths; refuses a negative one and a sum beyond `i64`.
///
/// ```
/// assert_eq!(rollkit::offsets::total(&[3, 0, 2])?, 5);
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn total(lengths: &[i64]) -> Result<i64> {
    lengths.iter().enumerate().try_fold(0i64, |sum, (row, &length)| add(sum, row, length))
}

/// Writes `[0, l0, l0 + l1, …]` to `out`, which has one element more than `lengths`.
///
/// ```
/// let mut offsets = [0; 4];
/// rollkit::offsets::from_lengths(&[3, 0, 2], &mut offsets)?;
/// assert_eq!(offsets, [0, 3, 3, 5]);
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn from_lengths<O: Out<i64>>(lengths: &[i64], out: &mut [O]) -> Result<()> {
    aligned(lengths, 1, out)
}

/// As [`from_lengths`], with each length rounded up to a multiple of `align`.
///
/// ```
/// let mut offsets = [0; 4];
/// rollkit::offsets::aligned(&[3, 0, 2], 4, &mut offsets)?;
/// assert_eq!(offsets, [0, 4, 4, 8]);
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn aligned<O: Out<i64>>(lengths: &[i64], align: i64, out: &mut [O]) -> Result<()> {
    if align < 1 {
        return Err(Error::NotPositive { name: "align", got: align });
    }
    if out.len() != lengths.len() + 1 {
        return Err(Error::RowCount { name: "offsets", got: out.len(), wanted: lengths.len() + 1 });
    }
    let (first, ends) = out.split_at_mut(1);
    first[0].set(0);
    let mut sum = 0i64;
    for (row, (&length, end)) in lengths.iter().zip(ends).enumerate() {
        sum = add(sum, row, length)?;
        if align > 1 {
            // Every row before starts at a multiple, so the end is rounded up as the length would be.
            let end = (sum as u64).next_multiple_of(align as u64);
            sum = i64::try_from(end).map_err(|_| Error::TooManyElements { row })?;
        }
        end.set(sum);
    }
    Ok(())
}

/// The least and the greatest number, without a branch per number; of none, the greatest and least there are.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(crate) fn extremes(numbers: &[i64]) -> (i64, i64) {
    // Two passes: one over pairs is not vectorised, and takes ten times as long.
    let least = numbers.iter().copied().fold(i64::MAX, i64::min);
    let most = numbers.iter().copied().fold(i64::MIN, i64::max);
    (least, most)
}

/// The first number below zero.
///
/// ```
/// assert_eq!(rollkit::offsets::first_negative(&[3, 0, -2, -5]), Some(2));
/// ```
#[must_use]
pub fn first_negative(numbers: &[i64]) -> Option<usize> {
    // All bits or-ed have the sign of any, without a branch per number.
    let bits = numbers.iter().fold(0, |bits, number| bits | number);
    if bits < 0 { numbers.iter().position(|&number| number < 0) } else { None }
}

/// Writes the offsets of parts end to end to `out`: where each part's rows end, counted through from 0.
///
/// ```
/// let mut offsets = [0; 4];
/// rollkit::offsets::join(&[&[5, 7], &[0, 1, 4]], &mut offsets)?;
/// assert_eq!(offsets, [0, 2, 3, 6]);
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn join<O: Out<i64>>(parts: &[&[i64]], out: &mut [O]) -> Result<()> {
    let rows = parts.iter().map(|part| part.len().saturating_sub(1)).sum::<usize>();
    if out.len() != rows + 1 {
        return Err(Error::RowCount { name: "offsets", got: out.len(), wanted: rows + 1 });
    }
    let (first, mut rest) = out.split_at_mut(1);
    first[0].set(0);
    let mut sum = 0;
    for part in parts {
        let [begin, ends @ ..] = part else { continue };
        let (own, others) = rest.split_at_mut(ends.len());
        for (slot, end) in own.iter_mut().zip(ends) {
            slot.set(end.wrapping_sub(*begin).wrapping_add(sum)); // the caller has checked them
        }
        sum = sum.wrapping_add(ends.last().map_or(0, |end| end.wrapping_sub(*begin)));
        rest = others;
    }
    Ok(())
}

/// Checks that offsets start at zero or above, never fall, and stay within `available` elements.
pub fn check(offsets: &[i64], available: usize) -> Result<()> {
    let Some((&first, _)) = offsets.split_first() else {
        return Err(Error::RowCount { name: "offsets", got: 0, wanted: 1 });
    };
    if first < 0 {
        return Err(Error::FallingOffsets { row: 0, begin: first, end: first });
    }
    if first as usize > available {
        return Err(Error::OutsideSource { row: 0, begin: first, length: 0, available });
    }
    for (row, pair) in offsets.windows(2).enumerate() {
        let (begin, end) = (pair[0], pair[1]);
        if end < begin {
            return Err(Error::FallingOffsets { row, begin, end });
        }
        if end as usize > available {
            return Err(Error::OutsideSource { row, begin, length: end - begin, available });
        }
    }
    Ok(())
}

fn add(sum: i64, row: usize, length: i64) -> Result<i64> {
    if length < 0 {
        return Err(Error::NegativeLength { row, got: length });
    }
    sum.checked_add(length).ok_or(Error::TooManyElements { row })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_length() {
        assert_eq!(total(&[1, -2]), Err(Error::NegativeLength { row: 1, got: -2 }));
        assert_eq!(total(&[i64::MAX, 1]), Err(Error::TooManyElements { row: 1 }));
    }

    #[test]
    fn refuses_what_are_no_offsets() {
        assert!(check(&[0, 2, 2, 5], 5).is_ok());
        assert!(check(&[2, 3], 3).is_ok(), "a slice of offsets need not start at zero");
        assert_eq!(check(&[], 5), Err(Error::RowCount { name: "offsets", got: 0, wanted: 1 }));
        assert_eq!(check(&[0, 3, 2], 5), Err(Error::FallingOffsets { row: 1, begin: 3, end: 2 }));
        assert_eq!(check(&[-1, 3], 5), Err(Error::FallingOffsets { row: 0, begin: -1, end: -1 }));
        let outside = Error::OutsideSource { row: 0, begin: 6, length: 0, available: 5 };
        assert_eq!(check(&[6], 5), Err(outside), "no row, but a begin");
        assert_eq!(
            check(&[0, 6], 5),
            Err(Error::OutsideSource { row: 0, begin: 0, length: 6, available: 5 })
        );
    }
}
