"""Advantages on tokens: `advantages`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollkit import _check
from rollkit._errors import refusal
from rollkit._rollouts.gae import discount
from rollkit._rollouts.loss_masks import loss_masks_of
from rollkit._rollouts.masking import on_tokens, spread_rewards
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.scans import Tokens, scan_flat
from rollkit._rollouts.scores import Ignored, scores
from rollkit._rollouts.sources import Source, as_rollouts
from rollkit._rollouts.trajectories import check_end, task_ends
from rollkit._rollouts.validate import check_lengths
from rollkit._rollouts.whiten import Moments, whiten
from rollkit._rows.ragged import Ragged

OF_GROUPS: Final = ("grpo", "mean", "rloo")
ESTIMATORS: Final = (*OF_GROUPS, "gae", "reinforce_plus_plus")


def advantages(
    rollouts: Source | Sequence[Source],
    *,
    by: str | ArrayLike | Iterable[Any] = "instance_ids",
    estimator: str = "grpo",
    ddof: int = 1,
    eps: float = 1e-6,
    ignore: Ignored = None,
    gamma: float = 1.0,
    lam: float = 1.0,
    moments: Moments | None = None,
) -> Ragged:
    """How much better each token was than what was to be expected: than others of its group, or its value.

    Rewards of rollouts are compared with those of their group, and the result put on the tokens:

    | estimator | advantage of reward r in a group of n | source |
    |---|---|---|
    | `"grpo"` | (r - mean) / (std + eps) | DeepSeekMath, arXiv 2402.03300 |
    | `"mean"` | r - mean | Dr. GRPO, arXiv 2503.20783 |
    | `"rloo"` | r - mean of the other n - 1 | RLOO (leave one out), arXiv 2402.14740 |

    A group of one has nothing to compare with: its advantage is 0. So is, exactly and for any `eps`, that of
    equal rewards.

    Rows that are steps of one trajectory count as one: trajectories are compared by the reward of their last
    row (as SkyRL does), and every row has its trajectory's advantage. Where a trajectory ends says
    `is_last_step`, or else a change of `trajectory_ids`; without either, each row is one.

    Two are of tokens, from the end of each trajectory on, over all its rows and the rewards of all of them:

    | estimator | advantage of a token | source |
    |---|---|---|
    | `"gae"` | that of `rollkit.gae` | arXiv 1506.02438 |
    | `"reinforce_plus_plus"` | that of `rollkit.returns`, whitened over all loss tokens | arXiv 2501.03262 |

    A penalty for leaving a reference is the caller's: rewards per token that have it already.

    Args:
        rollouts: `Rollouts`, a dict or a sequence of them, with columns `rewards` (one per row, or per
            token: then their sum counts), `response_ids`, and, if only sampled tokens are to count,
            `loss_masks`.
        by: what rollouts of a group share: a column's name, or one id per row.
        estimator: one of the three above.
        ddof: of the standard deviation: 1 divides by n - 1 (as torch and most trainers), 0 by n.
        eps: added to the standard deviation.
        gamma: the discount of rewards, of the two estimators of tokens.
        lam: that of `"gae"`, which needs a column `values`.
        moments: for `"reinforce_plus_plus"`: the `Moments` of the returns of the whole batch, where these
            rollouts are a part of it.
        ignore: rollouts that are compared with none and get 0: one bool per row, or `"unscored"` (the
            reward is None or NaN), `"masked"` (every token is), or both words. Of a trajectory, the bool of
            its last row counts.

    Returns:
        A `Ragged` of float32 with the rows of `response_ids`: the advantage on every token whose mask is
        not 0, else 0. Computed in float64.

    Raises:
        KeyError: a column is missing.
        ValueError: with column and row: rows of one trajectory are not adjacent, or of two groups, or the
            last is not its last step; a reward is NaN or infinite; masks are not one per token.
        TypeError: rewards are no numbers; the row is named.
        OverflowError: an advantage does not fit float32; the row is named.

    Warns:
        UserWarning: every group has one rollout.

    Example:
        >>> rollouts = Rollouts({
        ...     "response_ids": [[1, 2], [3], [4]],
        ...     "loss_masks": [[0, 1], [1], [1]],
        ...     "rewards": [1.0, 0.0, 5.0],
        ...     "instance_ids": ["a", "a", "b"],
        ... })
        >>> advantages(rollouts, estimator="rloo").to_list()
        [[0.0, 1.0], [-1.0], [0.0]]
    """
    _check.choice("estimator", estimator, ESTIMATORS)
    if not _check.number("eps", eps) >= 0:
        raise ValueError(f"eps must be 0 or more, got {eps}")
    rollouts = as_rollouts(rollouts)
    if estimator not in OF_GROUPS:
        if ignore is not None:
            raise TypeError(f"ignore goes with comparisons in a group, not with estimator={estimator!r}")
        return _of_tokens(rollouts, estimator, gamma, lam, moments, ddof, eps)
    if moments is not None:
        raise TypeError(f'moments goes with estimator="reinforce_plus_plus", not {estimator!r}')
    known = scores(rollouts, by, ignore)
    groups, rewards = known.groups, known.rewards
    ids, sizes = groups.ids, groups.sizes
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        found = rewards - groups.mean(rewards)[ids]
        if estimator == "grpo":
            spread = groups.std(rewards, ddof=_check.positive("ddof", ddof, 0))[ids] + eps
            found = found / np.where(spread == 0, 1, spread)
        elif estimator == "rloo":
            # r - (sum - r) / (n - 1), written with the mean, which keeps more digits.
            found = found * (sizes / np.maximum(sizes - 1, 1))[ids]
    # Of equal rewards the mean is rounded, and what is left of that can be as large as the deviation.
    found = np.where(known.differ()[ids], found, 0.0)
    return _on_tokens(_narrowed(known.of_rows(found, 0.0)), rollouts)


def _of_tokens(
    rollouts: Rollouts,
    estimator: str,
    gamma: float,
    lam: float,
    moments: Moments | None,
    ddof: int,
    eps: float,
) -> Ragged:
    """Advantages by a scan over the tokens of each trajectory."""
    gamma, masks = discount("gamma", gamma), loss_masks_of(rollouts)
    rewards = spread_rewards(rollouts).ragged("rewards")
    check_lengths("loss_masks", masks.lengths, rollouts.ragged("response_ids").lengths)
    check_lengths("rewards", rewards.lengths, masks.lengths)
    ends = task_ends(rollouts.columns, len(rollouts))
    bounds = rewards.offsets - rewards.offsets[0]
    if ends is not None:
        check_end(ends)
        bounds = np.append(0, bounds[1:][ends])
    if estimator == "gae":
        if moments is not None:
            raise TypeError('moments goes with estimator="reinforce_plus_plus"; whiten takes those of "gae"')
        values = rollouts.ragged("values")
        check_lengths("values", values.lengths, masks.lengths)
        tokens, lam = Tokens(rewards.flat, values.flat, masks.flat), discount("lam", lam)
        return _checked(scan_flat(tokens, bounds, gamma, lam).advantages, rewards)
    found = scan_flat(Tokens(rewards.flat, None, masks.flat), bounds, gamma, 1.0).advantages
    returns = _checked(found, rewards)
    return whiten(returns, masks, moments=moments, ddof=ddof, eps=eps)


def _checked(values: NDArray[Any], rewards: Ragged) -> Ragged:
    """As rows, if all are finite: one that is not would spoil the batch."""
    found = Ragged(values, rewards.offsets - rewards.offsets[0])
    odd = ~np.isfinite(values)
    if odd.any():
        at = int(odd.argmax())
        row = int(np.searchsorted(found.offsets, at, side="right")) - 1
        text = f" has a return or advantage of {values[at]}; its rewards or values are not finite"
        raise refusal(ValueError, text, column="rewards", row=row)
    return found.astype(np.float32)


def _narrowed(per_row: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        found = per_row.astype(np.float32)
    if (lost := ~np.isfinite(found)).any():
        row = int(lost.argmax())
        text = f" has the advantage {per_row[row]}, which does not fit float32; scale the rewards"
        raise refusal(OverflowError, text, column="rewards", row=row)
    return found


def _on_tokens(per_row: NDArray[np.float32], rollouts: Rollouts) -> Ragged:
    responses = rollouts["response_ids"]
    if not isinstance(responses, Ragged):
        raise refusal(TypeError, "column 'response_ids' must hold token ids", column="response_ids", label="")
    masks = loss_masks_of(rollouts)
    if not np.array_equal(masks.lengths, responses.lengths):
        text = "column 'loss_masks' must have one mask per response token"
        raise refusal(ValueError, text, column="loss_masks", label="")
    return on_tokens(per_row, masks)
