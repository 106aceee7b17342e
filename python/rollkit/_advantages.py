"""Group-relative advantages on tokens: `advantages`."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from rollkit import _check
from rollkit._ragged import Ragged
from rollkit._rollouts import Rollouts

ESTIMATORS: Final = ("grpo", "mean", "rloo")


def advantages(
    rollouts: Rollouts,
    *,
    by: str = "instance_ids",
    estimator: str = "grpo",
    ddof: int = 1,
    eps: float = 1e-6,
) -> Ragged:
    """Compare each rollout's reward with those of its group, and put the result on its tokens.

    | estimator | advantage of reward r in a group of n | source |
    |---|---|---|
    | `"grpo"` | (r - mean) / (std + eps) | DeepSeekMath, arXiv 2402.03300 |
    | `"mean"` | r - mean | Dr. GRPO, arXiv 2503.20783 |
    | `"rloo"` | r - mean of the other n - 1 | RLOO (leave one out), arXiv 2402.14740 |

    A group of one has nothing to compare with: its advantage is 0.

    Args:
        rollouts: with columns `rewards` (one per rollout, or per token: then their sum counts),
            `response_ids`, and, if only sampled tokens are to count, `loss_masks`.
        by: the column that rollouts of a group share.
        estimator: one of the three above.
        ddof: of the standard deviation: 1 divides by n - 1 (as torch and most trainers), 0 by n.
        eps: added to the standard deviation.

    Returns:
        A `Ragged` of float32 with the rows of `response_ids`: the advantage on every token whose mask is
        not 0, else 0. Computed in float64.

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
    groups = rollouts.group_by(by)
    rewards = total_rewards(rollouts)
    sizes = groups.sizes[groups.ids]
    scale: float | NDArray[np.float64] = 1.0
    if estimator == "grpo":
        scale = 1.0 / (groups.std(rewards, ddof=ddof)[groups.ids] + eps)
    elif estimator == "rloo":
        # r - (sum - r) / (n - 1), written with the mean, which keeps more digits.
        scale = sizes / np.maximum(sizes - 1, 1)
    per_row = np.where(sizes > 1, (rewards - groups.mean(rewards)[groups.ids]) * scale, 0.0)
    return _on_tokens(per_row.astype(np.float32), rollouts)


def total_rewards(rollouts: Rollouts) -> NDArray[np.float64]:
    """`[rows]` float64: the reward of each rollout; the sum of token rewards where it has those."""
    rewards = rollouts["rewards"]
    if isinstance(rewards, Ragged):
        rows = np.repeat(np.arange(len(rewards)), rewards.lengths)
        sums = np.bincount(rows, weights=rewards.flat, minlength=len(rewards))
        return sums.astype(np.float64, copy=False)
    found = np.asarray(rewards, np.float64)
    if found.ndim != 1:
        raise ValueError(f"column 'rewards' must have one number per rollout, got shape {found.shape}")
    return found


def _on_tokens(per_row: NDArray[np.float32], rollouts: Rollouts) -> Ragged:
    responses = rollouts["response_ids"]
    if not isinstance(responses, Ragged):
        raise TypeError("column 'response_ids' must hold token ids")
    values = np.repeat(per_row, responses.lengths)
    if "loss_masks" in rollouts:
        masks = rollouts["loss_masks"]
        if not isinstance(masks, Ragged) or not np.array_equal(masks.lengths, responses.lengths):
            raise ValueError("column 'loss_masks' must have one mask per response token")
        values *= masks.flat != 0
    return Ragged(values, responses.offsets - responses.offsets[0])
