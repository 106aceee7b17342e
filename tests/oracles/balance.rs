//! Every assignment there is, tried.

/// What an assignment must keep to.
pub struct Rules<'a> {
    pub lengths: &'a [i64],
    pub costs: &'a [i64],
    pub groups: Option<&'a [i64]>,
    pub parts: usize,
    pub equal_counts: bool,
    pub capacity: Option<i64>,
}

impl Rules<'_> {
    /// What the costliest part costs; `None` where the assignment is not allowed.
    pub fn costliest(&self, assignment: &[i64]) -> Option<i64> {
        let of = |part: usize| (0..assignment.len()).filter(move |&row| assignment[row] == part as i64);
        let sum = |numbers: &[i64], part| of(part).map(|row| numbers[row]).sum::<i64>();
        let together = |a: usize, b: usize| {
            self.groups.is_none_or(|ids| ids[a] != ids[b]) || assignment[a] == assignment[b]
        };
        let rows = 0..assignment.len();
        let counts = || (0..self.parts).map(|part| of(part).count());
        let kept = assignment.iter().all(|&part| (0..self.parts as i64).contains(&part))
            && rows.clone().all(|a| rows.clone().all(|b| together(a, b)))
            && (!self.equal_counts || counts().max() <= counts().min().map(|least| least + 1))
            && self.capacity.is_none_or(|most| (0..self.parts).all(|part| sum(self.lengths, part) <= most));
        kept.then(|| (0..self.parts).map(|part| sum(self.costs, part)).max().unwrap_or(0))
    }

    /// The least that the costliest part can cost, if any assignment is allowed.
    pub fn optimum(&self) -> Option<i64> {
        let mut assignment = vec![0i64; self.lengths.len()];
        let mut best = None;
        loop {
            best = best.into_iter().chain(self.costliest(&assignment)).min();
            let Some(next) = assignment.iter().position(|&part| part + 1 < self.parts as i64) else {
                return best;
            };
            assignment[next] += 1;
            assignment[..next].fill(0);
        }
    }
    /// Each row, the costliest first, to the part of the least cost that has room, of the fewest rows where costs
    /// are equal; `None` where one finds no room.
    pub fn lightest(&self) -> Option<Vec<i64>> {
        let mut order = (0..self.costs.len()).collect::<Vec<_>>();
        order.sort_by_key(|&row| (std::cmp::Reverse(self.costs[row]), row));
        let mut parts = vec![(0, 0, 0); self.parts.min(order.len())];
        let mut out = vec![0; order.len()];
        for row in order {
            let room = |&part: &usize| parts[part].2 + self.lengths[row] <= self.capacity.unwrap_or(i64::MAX);
            let part =
                (0..parts.len()).filter(room).min_by_key(|&part| (parts[part].0, parts[part].1, part))?;
            let (cost, rows, size) = &mut parts[part];
            (*cost, *rows, *size) = (*cost + self.costs[row], *rows + 1, *size + self.lengths[row]);
            out[row] = part as i64;
        }
        Some(out)
    }
}
