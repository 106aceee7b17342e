"""Slow, obvious versions of loss weights and of scans over the tokens of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def objective_reference(
    losses: Sequence[Sequence[float]],
    masks: Sequence[Sequence[Any]],
    *,
    normalize: str,
    groups: Sequence[Any] | None = None,
    trajectories: Sequence[Any] | None = None,
    constant: float = 1.0,
    empty: str = "skip",
) -> float:
    """What `sum(weights * loss)` with `rollkit.loss_weights` is, said in means of a whole batch.

    Example:
        >>> objective_reference([[1.0, 9.0], [3.0]], [[1, 0], [1]], normalize="sequence")
        2.0
    """
    keys = range(len(masks)) if trajectories is None else trajectories
    sums: dict[Any, float] = {}
    counts: dict[Any, int] = {}
    for key, loss, mask in zip(groups or () if normalize == "prompt" else keys, losses, masks, strict=True):
        kept = [x for x, counted in zip(loss, mask, strict=True) if counted]
        sums[key] = sums.get(key, 0.0) + sum(kept)
        counts[key] = counts.get(key, 0) + len(kept)
    found = [key for key in sums if counts[key] or empty == "count"]
    if not any(counts.values()):
        return 0.0
    if normalize == "token":
        return sum(sums.values()) / sum(counts.values())
    if normalize in ("sequence", "prompt"):
        return sum(sums[key] / max(counts[key], 1) for key in found) / len(found)
    return sum(sums[key] for key in found) / len(found) / (constant if normalize == "constant" else 1)


def gae_reference(
    rewards: Sequence[Sequence[float]],
    values: Sequence[Sequence[float]],
    masks: Sequence[Sequence[Any]],
    *,
    gamma: float,
    lam: float,
) -> tuple[list[list[float]], list[list[float]]]:
    """Advantages and returns of `rollkit.gae`, one token after the other.

    Example:
        >>> gae_reference([[0.0, 0.0, 1.0]], [[0.5, 9.0, 0.5]], [[1, 0, 1]], gamma=1.0, lam=0.5)
        ([[0.25, 0.0, 0.5]], [[0.75, 0.0, 1.0]])
    """
    advantages: list[list[float]] = []
    returns: list[list[float]] = []
    for reward, value, mask in zip(rewards, values, masks, strict=True):
        advantages.append([0.0] * len(reward))
        returns.append([0.0] * len(reward))
        following = ahead = owed = 0.0
        for t in reversed(range(len(reward))):
            if not mask[t]:
                owed += reward[t]
                continue
            ahead = reward[t] + owed + gamma * following - value[t] + gamma * lam * ahead
            following, owed = value[t], 0.0
            advantages[-1][t], returns[-1][t] = ahead, ahead + value[t]
    return advantages, returns


def returns_reference(
    rewards: Sequence[Sequence[float]], masks: Sequence[Sequence[Any]], *, gamma: float
) -> list[list[float]]:
    """`rollkit.returns`, as sums.

    Example:
        >>> returns_reference([[0.0, 0.0, 1.0], [2.0]], [[1, 0, 1], [1]], gamma=0.5)
        [[0.5, 0.0, 1.0], [2.0]]
    """
    found = []
    for reward, mask in zip(rewards, masks, strict=True):
        row = []
        for t in range(len(reward)):
            later = range(t, len(reward)) if mask[t] else ()
            row.append(
                float(sum(reward[s] * gamma ** max(sum(map(bool, mask[t : s + 1])) - 1, 0) for s in later))
            )
        found.append(row)
    return found
