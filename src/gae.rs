//! Generalized advantage estimation (Schulman et al. 2015, arXiv 1506.02438): one scan from the end of each row.
//!
//! ```text
//! advantage[t] = reward[t] + γ·value[next] − value[t] + γλ·advantage[next]
//! ```
//!
//! `next` is the next token of the row that counts, and past its last one all is 0. A token that does not
//! count gets 0, is stepped over without discount, and its reward goes to the token before it that counts.
//!
//! Blocks of tokens that all count are scanned together: what a block waits for is the one after it, which takes
//! two thirds of the time that it takes where every token waits. All is computed in float64, and Rust fuses no
//! product with a sum: every machine gives the same bits. (Compiled for AVX it takes twice as long.)

use crate::layout::same_count;
use crate::out::Out;
use crate::{Error, Result, offsets};

/// Tokens that are scanned together.
const BLOCK: usize = 4;

/// A float of rewards, values and results.
pub trait Real: Copy + Default + Into<f64> {
    /// The nearest one.
    fn near(wide: f64) -> Self;
}

impl Real for f32 {
    fn near(wide: f64) -> Self {
        #[allow(clippy::cast_possible_truncation)] // meant: it rounds
        let narrow = wide as Self;
        narrow
    }
}

impl Real for f64 {
    fn near(wide: f64) -> Self {
        wide
    }
}

/// What each token has, end to end.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a, T> {
    /// The reward that a token brings.
    pub rewards: &'a [T],
    /// What the rest of the row was expected to bring, before the token; 0 where there are none.
    pub values: Option<&'a [T]>,
    /// Whether it counts: any byte but 0; all do without.
    pub mask: Option<&'a [u8]>,
}

/// How fast what is ahead counts less.
#[derive(Debug, Clone, Copy)]
pub struct Decay {
    /// γ, of rewards.
    pub gamma: f64,
    /// λ, of advantages beyond.
    pub lambda: f64,
}

/// Writes the advantage of every token, and if asked its return: the advantage and the value.
///
/// Rows are elements `offsets[i]` to `offsets[i + 1]`; what is in none gets 0.
///
/// ```
/// use rollkit::gae::{Decay, Tokens, gae};
///
/// let tokens = Tokens { rewards: &[0.0, 0.0, 1.0], values: Some(&[0.5, 9.0, 0.5]), mask: Some(&[1, 0, 1]) };
/// let (mut advantages, mut returns) = ([9.0; 3], [9.0; 3]);
/// gae(tokens, &[0, 3], Decay { gamma: 1.0, lambda: 0.5 }, &mut advantages, Some(&mut returns))?;
/// assert_eq!(advantages, [0.25, 0.0, 0.5]);
/// assert_eq!(returns, [0.75, 0.0, 1.0]);
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn gae<T: Real, O: Out<T>>(
    tokens: Tokens<'_, T>,
    offsets: &[i64],
    decay: Decay,
    advantages: &mut [O],
    mut returns: Option<&mut [O]>,
) -> Result<()> {
    let count = tokens.rewards.len();
    same_count("values", tokens.values.map_or(count, <[T]>::len), count)?;
    same_count("mask", tokens.mask.map_or(count, <[u8]>::len), count)?;
    same_count("advantages", advantages.len(), count)?;
    same_count("returns", returns.as_ref().map_or(count, |found| found.len()), count)?;
    offsets::check(offsets, count)?;
    for out in [Some(&mut *advantages), returns.as_deref_mut()].into_iter().flatten() {
        fill_outside(offsets, out)?;
    }
    scan(tokens, offsets, Powers::of(decay), advantages, returns)
}

/// Writes 0 before the first row and after the last.
fn fill_outside<T: Real, O: Out<T>>(offsets: &[i64], out: &mut [O]) -> Result<()> {
    let changed = Error::Changed { name: "offsets" };
    let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
    O::fill(out.get_mut(..first).ok_or(changed.clone())?, T::default());
    O::fill(out.get_mut(last..).ok_or(changed)?, T::default());
    Ok(())
}

/// γ, and what an advantage counts for 1 to `BLOCK` tokens before it.
#[derive(Clone, Copy)]
struct Powers {
    gamma: f64,
    ahead: [f64; BLOCK],
}

impl Powers {
    fn of(decay: Decay) -> Self {
        let step = decay.gamma * decay.lambda;
        let mut ahead = [step; BLOCK];
        for i in 1..BLOCK {
            ahead[i] = ahead[i - 1] * step;
        }
        Self { gamma: decay.gamma, ahead }
    }
}

/// What a scan knows of the tokens that it has passed.
#[derive(Clone, Copy, Default)]
struct Passed {
    advantage: f64,
    value: f64,
    /// Rewards of tokens that do not count, since the last one that does.
    owed: f64,
}

fn scan<T: Real, O: Out<T>>(
    tokens: Tokens<'_, T>,
    offsets: &[i64],
    powers: Powers,
    advantages: &mut [O],
    mut returns: Option<&mut [O]>,
) -> Result<()> {
    // From the last row on, so that memory is read in one direction.
    for bounds in offsets.windows(2).rev() {
        let span = bounds[0] as usize..bounds[1] as usize;
        // Another thread may write to offsets meanwhile.
        let rewards = tokens.rewards.get(span.clone()).ok_or(Error::Changed { name: "offsets" })?;
        let values = tokens.values.map(|values| &values[span.clone()]);
        let mask = tokens.mask.map(|mask| &mask[span.clone()]);
        let returns = returns.as_deref_mut().map(|returns| &mut returns[span.clone()]);
        scan_row(Tokens { rewards, values, mask }, powers, &mut advantages[span], returns);
    }
    Ok(())
}

fn scan_row<T: Real, O: Out<T>>(
    row: Tokens<'_, T>,
    powers: Powers,
    advantages: &mut [O],
    mut returns: Option<&mut [O]>,
) {
    let mut passed = Passed::default();
    let (head, blocks) = row.rewards.as_rchunks::<BLOCK>();
    for (number, rewards) in blocks.iter().enumerate().rev() {
        let begin = head.len() + number * BLOCK;
        let span = begin..begin + BLOCK;
        let values = row.values.map_or([0.0; BLOCK], |values| wide(&values[span.clone()]));
        let counts = row.mask.map_or([true; BLOCK], |mask| nonzero(&mask[span.clone()]));
        let rewards = rewards.map(Into::into);
        let (found, sums);
        (found, sums, passed) = if counts == [true; BLOCK] {
            passed.block(rewards, values, powers)
        } else {
            passed.each(rewards, values, counts, powers)
        };
        write(found, &mut advantages[span.clone()]);
        if let Some(returns) = returns.as_deref_mut() {
            write(sums, &mut returns[span]);
        }
    }
    for at in (0..head.len()).rev() {
        let counts = row.mask.is_none_or(|mask| mask[at] != 0);
        let value = row.values.map_or(0.0, |values| values[at].into());
        let (found, sum) = passed.token(head[at].into(), value, counts, powers);
        advantages[at].set(T::near(found));
        if let Some(returns) = returns.as_deref_mut() {
            returns[at].set(T::near(sum));
        }
    }
}

impl Passed {
    /// The advantage of the token before, and its return.
    fn token(&mut self, reward: f64, value: f64, counts: bool, powers: Powers) -> (f64, f64) {
        if !counts {
            self.owed += reward;
            return (0.0, 0.0);
        }
        let surprise = reward + self.owed + powers.gamma * self.value - value;
        *self = Self { advantage: surprise + powers.ahead[0] * self.advantage, value, owed: 0.0 };
        (self.advantage, self.advantage + value)
    }

    /// Those of the tokens before, one after the other.
    fn each(
        mut self,
        rewards: Block,
        values: Block,
        counts: [bool; BLOCK],
        powers: Powers,
    ) -> (Block, Block, Self) {
        let (mut found, mut sums) = ([0.0; BLOCK], [0.0; BLOCK]);
        for at in (0..BLOCK).rev() {
            (found[at], sums[at]) = self.token(rewards[at], values[at], counts[at], powers);
        }
        (found, sums, self)
    }

    /// Those of the tokens before, which all count: first as if nothing came after.
    fn block(self, rewards: Block, values: Block, powers: Powers) -> (Block, Block, Self) {
        let ([r0, r1, r2, r3], [v0, v1, v2, v3]) = (rewards, values);
        let (gamma, [one, two, three, four]) = (powers.gamma, powers.ahead);
        let a3 = r3 + self.owed + gamma * self.value - v3;
        let a2 = r2 + gamma * v3 - v2 + one * a3;
        let a1 = r1 + gamma * v2 - v1 + one * a2;
        let a0 = r0 + gamma * v1 - v0 + one * a1;
        let after = self.advantage;
        let [a0, a1, a2, a3] = [a0 + four * after, a1 + three * after, a2 + two * after, a3 + one * after];
        let sums = [a0 + v0, a1 + v1, a2 + v2, a3 + v3];
        ([a0, a1, a2, a3], sums, Self { advantage: a0, value: v0, owed: 0.0 })
    }
}

/// The numbers of the tokens of a block.
type Block = [f64; BLOCK];

fn wide<T: Real>(block: &[T]) -> Block {
    block.first_chunk().map_or([0.0; BLOCK], |block: &[T; BLOCK]| block.map(Into::into))
}

fn nonzero(block: &[u8]) -> [bool; BLOCK] {
    block.first_chunk().map_or([false; BLOCK], |block: &[u8; BLOCK]| block.map(|byte| byte != 0))
}

fn write<T: Real, O: Out<T>>(block: Block, out: &mut [O]) {
    O::copy(out, &block.map(T::near)); // as one: the compiler narrows them together
}
