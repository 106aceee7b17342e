"""Statistics and masks of lists of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rollkit._frameworks import is_array
from rollkit._rollouts.columns import mask_column, row_lengths
from rollkit._rollouts.masking import keep_rows
from rollkit._rollouts.metrics import measure, turn_lengths
from rollkit._rollouts.rewards import row_rewards
from rollkit._rows.ragged import Ragged


def get_rollout_metrics(
    responses: Sequence[Any],
    rewards: Sequence[Any],
    env_metrics: Sequence[Mapping[str, Any]] | None = None,
    env_classes: Sequence[str] | None = None,
    loss_masks: Sequence[Any] | None = None,
    trajectory_completion_times: Sequence[float] | None = None,
    trajectory_time_splits: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Summarise rollouts; see `rollkit.rollout_metrics` for the keys.

    Environments aggregate their own metrics where SkyRL-Gym is loaded; numbers are averaged where not.

    Raises:
        ValueError: there are no responses.

    Example:
        >>> get_rollout_metrics([[1, 2], [3]], [1.0, 0.0])["generate/avg_tokens_non_zero_rewards"]
        2.0
    """
    return measure(
        row_lengths(responses),
        row_rewards(rewards),
        masks=None if loss_masks is None else mask_column(loss_masks),
        times=trajectory_completion_times,
        time_splits=trajectory_time_splits,
        env_metrics=env_metrics,
        env_classes=env_classes,
    )


def compute_turn_token_counts(loss_masks: Sequence[Any]) -> list[int]:
    """Lengths of all turns, as one list; see `rollkit.turn_lengths`.

    Example:
        >>> compute_turn_token_counts([[1, 1, 0, 1], [0], []])
        [2, 1]
    """
    counts: list[int] = turn_lengths(loss_masks).values.tolist()
    return counts


def apply_overlong_filtering(loss_masks: Sequence[Any], stop_reasons: Sequence[str]) -> Any:
    """Mask rows whole that did not end with `"stop"`; every row is a copy, of its own type.

    Raises:
        AssertionError: there are not as many stop reasons as masks.

    Example:
        >>> apply_overlong_filtering([[1, 1], [1, 0]], ["length", "stop"])
        [[0, 0], [1, 0]]
    """
    assert len(loss_masks) == len(stop_reasons), "loss_masks and stop_reasons must have the same length"
    kept = [reason == "stop" for reason in stop_reasons]
    if isinstance(loss_masks, Ragged):
        return keep_rows(loss_masks, np.array(kept, bool))
    return [_copy(mask) if keep else _zeros(mask) for mask, keep in zip(loss_masks, kept, strict=True)]


def _copy(mask: Any) -> Any:
    if is_array(mask):
        return mask.clone() if hasattr(mask, "clone") else mask.copy()
    return mask[:]


def _zeros(mask: Any) -> Any:
    if not is_array(mask):
        return [0] * len(mask)
    return mask.new_zeros(mask.shape) if hasattr(mask, "new_zeros") else np.zeros_like(mask)
