//! What the costliest part costs at least, whatever the assignment.

use super::items::Items;

/// At least the mean, and the costliest item; with `equal` counts of items, what must be with that one
/// besides.
pub(crate) fn bound(items: &Items, parts: usize, equal: bool) -> i64 {
    let mean = items.total.div_ceil_to(parts as i64);
    let most = items.costs.first().copied().unwrap_or(0).max(mean);
    if equal && items.len() >= parts { most.max(of_equal_counts(&items.costs, parts)) } else { most }
}

/// Each part has at least `each` items. Of the `m` costliest either two are in one part, or each is in a part
/// of its own, with `each - 1` of the others: those parts cost no less than if these were the cheapest, and
/// the costliest of them no less than their mean.
fn of_equal_counts(costs: &[i64], parts: usize) -> i64 {
    let each = costs.len() / parts;
    let cheapest = |count: usize| costs[costs.len() - count..].iter().sum::<i64>();
    let with_two = cheapest(each.saturating_sub(2));
    let (mut sum, mut most) = (0i64, 0i64);
    for m in 1..=parts {
        sum += costs[m - 1];
        let mut least = i64::MAX;
        if m > 1 {
            least = costs[m - 2] + costs[m - 1] + with_two;
            if least <= most {
                break; // and so for the next ones
            }
        }
        let others = costs.len() - (m - 1) * (each - 1);
        sum += costs[others - (each - 1)..others].iter().sum::<i64>();
        most = most.max(least.min(sum.div_ceil_to(m as i64)));
    }
    most
}

trait DivCeil {
    fn div_ceil_to(self, by: i64) -> i64;
}

impl DivCeil for i64 {
    /// Of numbers that are not below zero.
    fn div_ceil_to(self, by: i64) -> i64 {
        self / by + i64::from(self % by != 0)
    }
}
