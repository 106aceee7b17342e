//! Advantages and returns, one token after the other.

/// What `gae` writes for tokens of rows, in float64.
pub fn naive(
    rewards: &[f64],
    values: &[f64],
    mask: &[bool],
    offsets: &[i64],
    (gamma, lambda): (f64, f64),
) -> (Vec<f64>, Vec<f64>) {
    let mut advantages = vec![0.0; rewards.len()];
    let mut returns = advantages.clone();
    for pair in offsets.windows(2) {
        let (mut ahead, mut following, mut owed) = (0.0, 0.0, 0.0);
        for at in (pair[0] as usize..pair[1] as usize).rev() {
            if mask[at] {
                ahead = rewards[at] + owed + gamma * following - values[at] + gamma * lambda * ahead;
                (following, owed) = (values[at], 0.0);
                (advantages[at], returns[at]) = (ahead, ahead + values[at]);
            } else {
                owed += rewards[at];
            }
        }
    }
    (advantages, returns)
}
