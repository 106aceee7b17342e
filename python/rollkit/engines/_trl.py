"""What TRL's asynchronous GRPO samples: `from_trl`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rollkit import _check
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.ragged import Ragged
from rollkit.engines._columns import Version, rollouts_of, split, versions
from rollkit.engines._fields import (
    FLOAT32,
    UINT8,
    check_lengths,
    field,
    in_all,
    ints,
    numbers,
    required,
    results_of,
    tokens_of,
)

KIND = "a RolloutSample, with 'input_ids' and 'completion_mask'"


def from_trl(
    samples: Sequence[Any],
    *,
    rewards: Any = None,
    masks: Any = None,
    version: Version | None = None,
) -> Rollouts:
    """Rollouts of TRL's `RolloutSample`s, a row a sample.

    Prompt and completion are one run of tokens there; the response begins with the first token that
    `completion_mask` has.

    Args:
        samples: `RolloutSample`s, or dicts of their fields.
        rewards: one per row, or one per response token. Default: `metrics["reward"]`, where there is one.
        masks: one per response token, or one per row. Default: what `completion_mask` says.
        version: makes a number of `model_version`, where it is none.

    Returns:
        Rollouts with `prompt_token_ids`, `response_ids` (int32), `loss_masks` (uint8), and of what there is
        `rewards`, `rollout_logprobs` (`old_log_probs`), `advantages` (float32 per row), `model_versions`
        (int32 per token) and `instance_ids` (`group_id`).

    Raises:
        ValueError: a field is in some rows and not in others, or has more or fewer entries than there are
            tokens; the row is named.
        TypeError: something is no such sample.

    Fields are those of `trl/experimental/async_grpo` of September 2026.

    Example:
        >>> sample = {"input_ids": [1, 7, 2], "completion_mask": [0, 1, 1], "advantage": 1.0, "group_id": 0}
        >>> rollouts = from_trl([{**sample, "old_log_probs": [0.0, -0.5, -0.25], "model_version": 3}])
        >>> rollouts["prompt_token_ids"].to_list(), rollouts["rollout_logprobs"].to_list()
        ([[1]], [[-0.5, -0.25]])
    """
    rows = results_of("samples", samples)
    for i, row in enumerate(rows):
        required(f"samples[{i}]", row, "input_ids", KIND)

    def of(name: str) -> list[Any]:
        return [field(row, name) for row in rows]

    whole = ints("input_ids", tokens_of("input_ids", "input_ids", of("input_ids")))
    found = tokens_of("completion_mask", "completion_mask", of("completion_mask"))
    flags = numbers("completion_mask", found, UINT8)
    check_lengths("completion_mask", flags.lengths, whole.lengths)
    firsts = first_flags(flags)
    prompts, responses = split(whole, firsts)
    columns: dict[str, Any] = {"prompt_token_ids": prompts, "response_ids": responses}
    columns["loss_masks"] = split(flags, firsts)[1]
    found = of("old_log_probs")
    if in_all("rollout_logprobs", "old_log_probs", found):
        logprobs = numbers("rollout_logprobs", found, FLOAT32)
        check_lengths("rollout_logprobs", logprobs.lengths, whole.lengths)
        columns["rollout_logprobs"] = split(logprobs, firsts)[1]
    found = of("advantage")
    if in_all("advantages", "advantage", found):
        columns["advantages"] = _check.floats("advantages", found).astype(FLOAT32)
    scored = [field(metrics, "reward") for metrics in of("metrics")]
    if rewards is None and in_all("rewards", "metrics.reward", scored):
        rewards = scored
    versions(columns, "model_version", of("model_version"), version)
    found = of("group_id")
    if in_all("instance_ids", "group_id", found):
        columns["instance_ids"] = found
    return rollouts_of(columns, rewards, masks)


def first_flags(flags: Ragged) -> Any:
    """`[rows]` int64: where the first flag of each row is; its length if it has none."""
    ends = flags.offsets[1:]
    set_ = np.append(np.flatnonzero(flags.values), len(flags.values))
    first = set_[np.searchsorted(set_, flags.offsets[:-1])]
    return np.minimum(first, ends) - flags.offsets[:-1]
