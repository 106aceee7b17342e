"""Rewards that are compared: of each trajectory that counts, in its group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollkit import _check
from rollkit._check import Int64s
from rollkit._errors import refusal, warn
from rollkit._rollouts.columns import mask_column, turns_of
from rollkit._rollouts.groups import Float64s, Groups
from rollkit._rollouts.loss_masks import loss_masks_of
from rollkit._rollouts.rewards import row_rewards
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.trajectories import trajectories
from rollkit._rollouts.validate import check_lengths
from rollkit._rows.ragged import Ragged

Bools = NDArray[np.bool_]

Ignored = str | Sequence[str] | ArrayLike | None

IGNORABLE: Final = ("masked", "unscored")


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Scores:
    """What is compared with what.

    Attributes:
        groups: of the trajectories that count.
        rewards: `[counted]` float64, the reward of each.
        counts: `[trajectories]` bool: those that are not ignored.
        trajectory: `[rows]` int64: the trajectory of each row.
    """

    groups: Groups
    rewards: Float64s
    counts: Bools
    trajectory: Int64s

    def differ(self, tol: float = 0.0) -> Bools:
        """`[groups]` bool: rewards of the group are further apart than `tol`."""
        ids, groups = self.groups.ids, len(self.groups)
        least, most = np.full(groups, np.inf), np.full(groups, -np.inf)
        np.minimum.at(least, ids, self.rewards)
        np.maximum.at(most, ids, self.rewards)
        return most > least + tol

    def of_rows(self, values: Any, other: Any) -> Any:
        """`[rows]`: of `[counted]` values that of each row's trajectory, `other` where it is ignored."""
        found = np.full(len(self.counts), other, values.dtype)
        found[self.counts] = values
        return found[self.trajectory]


def scores(rollouts: Rollouts, by: str | ArrayLike | Iterable[Any], ignore: Ignored) -> Scores:
    """Rewards by group; `ignore` is that of `advantages`."""
    groups, name = rollouts.group_by(by), by if isinstance(by, str) else "by"
    if any(key is None or key != key for key in groups.keys):
        _check.given(name, [groups.keys[group] for group in groups.ids])
    ids = groups.ids
    lasts, trajectory = trajectories(rollouts.columns, ids, name)
    counts = ~_ignored(rollouts, ignore, lasts, trajectory)
    needed = np.zeros(len(rollouts), bool)
    needed[lasts[counts]] = True
    _check_lengths(rollouts)
    rewards = _rewards(rollouts["rewards"], needed)
    groups = Groups.by(ids[lasts[counts]])
    _warn_of_single(groups)
    return Scores(groups, rewards[lasts[counts]], counts, trajectory)


def _check_lengths(rollouts: Rollouts) -> None:
    """Refuse rewards per token that are not one for each: their sum would be another reward."""
    rewards = rollouts["rewards"]
    if isinstance(rewards, Ragged) and "response_ids" in rollouts:
        check_lengths("rewards", rewards.lengths, rollouts.ragged("response_ids").lengths)


def _ignored(rollouts: Rollouts, ignore: Any, lasts: Int64s, trajectory: Int64s) -> Bools:
    """`[trajectories]` bool: it is left out. A mask says so of the last row, whose reward counts."""
    none = np.zeros(len(lasts), bool)
    if ignore is None:
        return none
    words = [ignore] if isinstance(ignore, str) else ignore
    if isinstance(words, list | tuple | set | frozenset) and all(isinstance(word, str) for word in words):
        for word in words:
            _check.choice("ignore", word, IGNORABLE)
        masked = _masked(rollouts, lasts, trajectory) if "masked" in words else none
        return masked | (_unscored(rollouts["rewards"])[lasts] if "unscored" in words else none)
    mask = _check.host("ignore", ignore)
    if mask.dtype != bool or mask.shape != (len(rollouts),):
        raise ValueError(
            f"ignore must be one bool per row, {len(rollouts)}, or of the words "
            f"{', '.join(map(repr, IGNORABLE))}; got {mask.dtype} of shape {mask.shape}"
        )
    return np.array(mask[lasts], bool)


def _masked(rollouts: Rollouts, lasts: Int64s, trajectory: Int64s) -> Bools:
    """Trajectories of which no token counts."""
    tokens = turns_of(mask_column(loss_masks_of(rollouts)))[2]
    masked: Bools = np.bincount(trajectory, weights=tokens, minlength=len(lasts)) == 0
    return masked


def _unscored(rewards: Any) -> Bools:
    """`[rows]` bool: the reward is None or NaN."""
    if isinstance(rewards, list):
        missing = np.array([reward is None for reward in rewards], bool)
        rewards = [0.0 if reward is None else reward for reward in rewards]
        return missing | np.isnan(row_rewards(rewards))
    return np.isnan(row_rewards(rewards))


def _rewards(column: Any, needed: Bools) -> Float64s:
    """`[rows]` float64: the rewards that are needed, each a finite number; 0 for the others."""
    if isinstance(column, list):
        column = [reward if need else 0.0 for reward, need in zip(column, needed, strict=True)]
        row = next((row for row, reward in enumerate(column) if reward is None), None)
        if row is not None:
            text = ' is None; score it, or leave such rows out: ignore="unscored"'
            raise refusal(TypeError, text, column="rewards", row=row)
    found = np.where(needed, row_rewards(column), 0.0)
    bad = ~np.isfinite(found)
    if bad.any():
        row = int(bad.argmax())
        text = f" is {found[row]}, which would spoil its group; mend it, or leave such rows out with ignore="
        raise refusal(ValueError, text, column="rewards", row=row)
    return found


def _warn_of_single(groups: Groups) -> None:
    if len(groups) > 1 and groups.sizes.max() == 1:
        text = (
            f"each of {len(groups)} groups has one rollout, so there is nothing to compare it with: every "
            "advantage is 0; check what groups them (by=)"
        )
        warn(text)
