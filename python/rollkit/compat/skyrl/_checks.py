"""What SkyRL asserts of a generator output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rollkit._check import Int64s
from rollkit._rollouts.columns import mask_column, row_lengths
from rollkit._rollouts.rewards import is_row
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.trajectories import changes, returning, trajectory_keys
from rollkit._rollouts.validate import any_nonzero
from rollkit._rows.ragged import Ragged
from rollkit.compat._values import on_host
from rollkit.compat.skyrl._logger import warn

_PER_ROW = (
    "response_ids",
    "loss_masks",
    "rewards",
    "rollout_logprobs",
    "stop_reasons",
    "trajectory_ids",
    "rollout_expert_indices",
    "is_last_step",
    "pixel_values",
    "image_grid_thw",
)

# As asserted for each row, in this order.
_PER_TOKEN = {
    "loss_masks": "Response ids and loss masks",
    "rewards": "Token rewards and response ids",
    "rollout_logprobs": "Response ids and rollout logprobs",
}

_MIXED = "rewards must be `List[float]` or `List[List[float]]`: some rows have a number, others one per token"

# SkyRL's words: its own test compares all of them.
_ALL_MASKED = "All outputs are loss masked, which may lead to NaN loss, please check your generation logic!!"

_NO_ROW = -1


def validate_generator_output(
    num_prompts: int, generator_output: Mapping[str, Any] | Rollouts, step_wise: bool = False
) -> None:
    """Check that a generator output can be trained on.

    Raises:
        RuntimeError: there are no responses.
        AssertionError: row counts differ; masks, token rewards or log-probabilities are not one per
            response token; rewards are mixed; steps are not as step-wise training needs them.

    Logs a warning if every token is masked, for each batch: to SkyRL's logger or else loguru's where those
    are imported, else to the logger `"rollkit.compat.skyrl"` of `logging`.

    Example:
        >>> output = {
        ...     "prompt_token_ids": [[1]], "response_ids": [[2, 3]], "loss_masks": [[1]], "rewards": [1.0]
        ... }
        >>> validate_generator_output(1, output)
        Traceback (most recent call last):
        AssertionError: Response ids and loss masks must have the same length, for sample 0 got 2 and 1
    """
    check(num_prompts, generator_output, step_wise, None)


def check(
    num_prompts: int,
    generator_output: Mapping[str, Any] | Rollouts,
    step_wise: bool,
    masks: Ragged | None,
) -> None:
    """`validate_generator_output`, for a caller who may have the mask as a column already."""
    generator_output = fields(generator_output)
    responses = generator_output["response_ids"]
    if len(responses) <= 0:
        raise RuntimeError("No outputs generated")
    prompts = generator_output["prompt_token_ids"]
    _row_counts(num_prompts, len(responses), len(prompts), generator_output, step_wise)
    _token_counts(row_lengths(responses), generator_output)
    if masks is None:
        masks = mask_column(on_host("loss_masks", generator_output["loss_masks"]))
    if not any_nonzero(masks.flat):
        warn("utils.trainer_utils", _ALL_MASKED)
    lengths = _token_reward_lengths(generator_output["rewards"])
    assert lengths is None or (lengths != _NO_ROW).all(), _MIXED
    if step_wise:
        _steps(generator_output)


def fields(output: Mapping[str, Any] | Rollouts) -> Mapping[str, Any]:
    """The fields of a generator output; `Rollouts` do for one."""
    return output.columns if isinstance(output, Rollouts) else output


def _row_counts(
    num_prompts: int, responses: int, prompts: int, output: Mapping[str, Any], step_wise: bool
) -> None:
    assert step_wise or num_prompts == responses, (
        f"Mismatch between prompts ({num_prompts}) and responses ({responses})"
    )
    assert responses == prompts, f"Mismatch between responses ({responses}) and prompt_token_ids ({prompts})"
    for name in _PER_ROW:
        if output.get(name) is not None:
            count = len(output[name])
            assert count == responses, (
                f"Generator output {name} length must be equal to response_ids length, "
                f"got {count} and {responses}"
            )


def _token_counts(responses: Int64s, output: Mapping[str, Any]) -> None:
    first: tuple[int, str] | None = None
    lengths: dict[str, Int64s] = {}
    for name in _PER_TOKEN:
        found = _token_lengths(name, output)
        if found is None:
            continue
        wrong = (found != responses) & (found != _NO_ROW)
        lengths[name] = found
        if wrong.any() and (first is None or int(wrong.argmax()) < first[0]):
            first = int(wrong.argmax()), name
    if first is not None:
        row, name = first
        got, wanted = lengths[name][row], responses[row]
        both = f"{got} and {wanted}" if name == "rewards" else f"{wanted} and {got}"
        raise AssertionError(f"{_PER_TOKEN[name]} must have the same length, for sample {row} got {both}")


def _token_lengths(name: str, output: Mapping[str, Any]) -> Int64s | None:
    if name == "rewards":
        return _token_reward_lengths(output[name])
    if name == "loss_masks":
        return row_lengths(output[name], name)
    found = output.get(name)
    return row_lengths(found, name) if found is not None and len(found) else None


def _token_reward_lengths(rewards: Any) -> Int64s | None:
    """Lengths of token rewards, −1 for a row that is a number; `None` if all are."""
    if isinstance(rewards, Ragged):
        return rewards.lengths
    if isinstance(rewards, np.ndarray) and rewards.ndim == 1 and rewards.dtype != object:
        return None
    if set(map(type, rewards)) <= {float, int, bool}:
        return None
    lengths = np.array([len(row) if is_row(row) else _NO_ROW for row in rewards], np.int64)
    return None if (lengths == _NO_ROW).all() else lengths


def _steps(output: Mapping[str, Any]) -> None:
    last, ids = output.get("is_last_step"), output.get("trajectory_ids")
    assert last is not None, "step_wise=True but `is_last_step` is missing"
    assert ids is not None, "step_wise=True but `trajectory_ids` is missing"
    assert last[-1], "is_last_step[-1] must be True: the last row ends its trajectory"
    keys = trajectory_keys(ids)
    begins = changes(keys)
    back = returning(keys, begins)
    assert back is None, (
        f"Non-contiguous trajectory at index {back}: {keys[back or 0]!r} has rows before, with those of "
        "another trajectory between"
    )
    _step_ends(last, keys, begins)


def _step_ends(last: Sequence[Any], keys: Sequence[Any], begins: Sequence[int]) -> None:
    boundaries = {row - 1 for row in begins}
    for row in range(len(keys) - 1):
        if row in boundaries:
            assert last[row], (
                f"Trajectory boundary at index {row} ({keys[row]!r} to {keys[row + 1]!r}), "
                f"but is_last_step[{row}] is False"
            )
        else:
            assert not last[row], (
                f"is_last_step[{row}] is True but trajectory continues: {keys[row]!r} is at index {row} "
                f"and {row + 1}"
            )
