"""Generator outputs as a whole: joined, sliced, their steps merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rollkit._rollouts.columns import mask_column, row_lengths
from rollkit._rollouts.metrics import measure, merge_extra
from rollkit._rollouts.rewards import is_row, row_rewards
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.steps import merge_steps
from rollkit._rows.place import concat
from rollkit._rows.ragged import Ragged
from rollkit.compat.skyrl._checks import check, fields

_REQUIRED = ("prompt_token_ids", "response_ids", "rewards", "loss_masks")
_OPTIONAL = (
    "stop_reasons",
    "rollout_logprobs",
    "rollout_expert_indices",
    "trajectory_generation_times",
    "trajectory_time_splits",
)
_ALL_OR_NONE = ("rollout_logprobs", "rollout_expert_indices")


def concatenate_generator_outputs(
    generator_outputs: Sequence[Mapping[str, Any] | Rollouts], step_wise: bool = False
) -> dict[str, Any]:
    """Join generator outputs, measure them together and check the result.

    Rows are shared, not copied, but for columns that are `Ragged` or arrays in every output: those are
    joined into one. Other columns of the first output that have an entry per row are joined too.

    Args:
        generator_outputs: dicts with a list per field, or `Rollouts`.
        step_wise: rows are steps of trajectories; times then count once per trajectory.

    Returns:
        A dict of the joined fields; optional ones that an output lacks are None. `rollout_metrics` is
        measured anew; what generators put there besides is averaged, or its least, greatest or sum
        taken, by its name.

    Raises:
        AssertionError: there are no outputs, or as `validate_generator_output`.
        ValueError: some outputs have log-probabilities (or routes) and others none.

    Example:
        >>> part = {"prompt_token_ids": [[1]], "response_ids": [[2]], "loss_masks": [[1]], "rewards": [1.0]}
        >>> concatenate_generator_outputs([part, part])["response_ids"]
        [[2], [2]]
    """
    assert len(generator_outputs) > 0, "generator_outputs is empty"
    outputs = [fields(part) for part in generator_outputs]
    for name in _ALL_OR_NONE:
        _all_or_none(name, [part.get(name) for part in outputs])
    result: dict[str, Any] = {name: _joined([part[name] for part in outputs]) for name in _REQUIRED}
    for name in _OPTIONAL:
        found = [part.get(name) for part in outputs]
        result[name] = None if any(value is None for value in found) else _joined(found)
    for name, value in outputs[0].items():
        if name not in result and _per_row(value, len(outputs[0]["response_ids"])):
            result[name] = _joined([part[name] for part in outputs])
    masks = mask_column(result["loss_masks"])
    last = result.get("is_last_step") if step_wise else None
    metrics = measure(
        row_lengths(result["response_ids"]),
        row_rewards(result["rewards"]),
        masks=masks,
        times=_last_steps(result["trajectory_generation_times"], last),
        time_splits=_last_steps(result["trajectory_time_splits"], last),
    )
    result["rollout_metrics"] = merge_extra(metrics, (part.get("rollout_metrics") for part in outputs))
    check(len(result["prompt_token_ids"]), result, step_wise, masks)
    return result


def slice_generator_output(
    generator_output: Mapping[str, Any] | Rollouts, indices: Sequence[int], *, preserve_metrics: bool = True
) -> dict[str, Any]:
    """Take the rows at `indices` of every field.

    Args:
        generator_output: a dict of lists, arrays, `Ragged`s, dicts of lists, or None.
        indices: rows, in the order wanted.
        preserve_metrics: keep `rollout_metrics`, which are those of all rows.

    Raises:
        AssertionError: `indices` is empty.

    Example:
        >>> slice_generator_output({"rewards": [0.0, 0.5, 1.0], "stop_reasons": None}, [2, 0])
        {'rewards': [1.0, 0.0], 'stop_reasons': None}
    """
    assert len(indices) > 0, "indices must be non-empty"
    return {
        name: value if name == "rollout_metrics" else _rows(value, indices)
        for name, value in fields(generator_output).items()
        if preserve_metrics or name != "rollout_metrics"
    }


def merge_stepwise_output(
    generator_output: Mapping[str, Any] | Rollouts, *, carry_routes: bool = False
) -> dict[str, Any]:
    """Merge the steps of each trajectory as long as one's tokens begin the next one's prompt.

    See `rollkit.merge_steps`, which takes and returns columns.

    Args:
        generator_output: step-wise, with `trajectory_ids` and `is_last_step`. Rows after the last step
            of the last trajectory are left out.
        carry_routes: take `rollout_expert_indices` along; SkyRL refuses them, and so does this unless told.

    Returns:
        A dict of lists with a row per merged run of steps, as `concatenate_generator_outputs` makes it.

    Raises:
        AssertionError: a field that cannot be merged, no `trajectory_ids`, no last step, or steps of
            several trajectories before a last step.
        TypeError: no `is_last_step`.
    """
    generator_output = fields(generator_output)
    routes = generator_output.get("rollout_expert_indices")
    assert carry_routes or routes is None, (
        "rollout_expert_indices not supported for prefix-aware merging; carry_routes=True takes them along"
    )
    for name in ("pixel_values", "image_grid_thw"):
        assert generator_output.get(name) is None, (
            f"pixel_values and image_grid_thw not supported for step-wise training merging, got {name}"
        )
    last = generator_output["is_last_step"]
    if last is None:
        raise TypeError("is_last_step is required for prefix-aware merging, got None")
    ends = [i for i in range(len(generator_output["response_ids"])) if last[i]]
    _one_trajectory_each(generator_output.get("trajectory_ids"), ends)

    columns = _step_columns(generator_output, ends[-1] + 1)
    merged = merge_steps(Rollouts(columns)).columns
    # Per-row fields go by the row of each last step, so that objects stay what they are.
    rows = np.asarray(merged["_row"]).tolist()
    output: dict[str, Any] = {
        name: column.to_list() for name, column in merged.items() if isinstance(column, Ragged)
    }
    if isinstance(merged.get("rollout_expert_indices"), Ragged):
        output["rollout_expert_indices"] = list(merged["rollout_expert_indices"])
    output["is_last_step"] = [bool(last[row]) for row in rows]
    for name in ("rewards", "stop_reasons", "trajectory_ids"):
        if name not in output and generator_output.get(name) is not None:
            output[name] = [generator_output[name][row] for row in rows]
    return concatenate_generator_outputs([output], step_wise=True)


def _step_columns(output: Mapping[str, Any], count: int) -> dict[str, Any]:
    def tokens(name: str, dtype: type[np.generic] | None) -> Ragged:
        rows = output[name]
        column = rows if isinstance(rows, Ragged) else Ragged.from_rows(rows, dtype)
        return column[:count]

    columns: dict[str, Any] = {
        "prompt_token_ids": tokens("prompt_token_ids", np.int64),
        "response_ids": tokens("response_ids", np.int64),
        "loss_masks": mask_column(output["loss_masks"])[:count],
        "is_last_step": np.asarray(output["is_last_step"], dtype=bool)[:count],
        "_row": np.arange(count),
    }
    if isinstance(output["rewards"], Ragged) or is_row(output["rewards"][0]):
        columns["rewards"] = tokens("rewards", np.float64)
    if output.get("rollout_logprobs") is not None:
        columns["rollout_logprobs"] = tokens("rollout_logprobs", np.float64)
    if output.get("rollout_expert_indices") is not None:
        columns["rollout_expert_indices"] = tokens("rollout_expert_indices", None)
    return columns


def _one_trajectory_each(ids: Any, ends: Sequence[int]) -> None:
    assert ids is not None, "trajectory_ids is required for prefix-aware merging"
    assert len(ends) > 0, "is_last_step must be True for at least one row"
    begin = 0
    for end in ends:
        assert all(ids[i] == ids[begin] for i in range(begin, end + 1)), (
            "all entries in a single trajectory must have the same trajectory_id; "
            f"rows {begin} to {end} differ"
        )
        begin = end + 1


def _all_or_none(name: str, found: Sequence[Any]) -> None:
    missing = [i for i, value in enumerate(found) if value is None]
    if missing and len(missing) < len(found):
        raise ValueError(
            f"generator outputs are expected to all have null {name} or all non-null, but received a mix: "
            f"output {missing[0]} has none"
        )


def _joined(found: Sequence[Any]) -> Any:
    if isinstance(found[0], Mapping):
        return {name: _joined([value[name] for value in found]) for name in found[0]}
    if all(isinstance(value, Ragged) for value in found):
        return concat(found)
    if all(isinstance(value, np.ndarray) for value in found):
        return np.concatenate(found)
    rows: list[Any] = []
    for value in found:
        rows.extend(value)
    return rows


def _per_row(value: Any, rows: int) -> bool:
    """Whether SkyRL joins it, or it is a column of arrays, which SkyRL does not know."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0 and len(value) == rows
    return isinstance(value, list | Ragged)


def _last_steps(values: Any, last: Any) -> Any:
    if values is None or last is None or not len(last):
        return values
    if isinstance(values, Mapping):
        return {name: _last_steps(found, last) for name, found in values.items()}
    return [value for value, is_last in zip(values, last, strict=False) if is_last]


def _rows(value: Any, indices: Sequence[int]) -> Any:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {name: _rows(found, indices) for name, found in value.items()}
    if isinstance(value, Ragged):
        return value.take(indices)
    return value[list(indices)] if isinstance(value, np.ndarray) else [value[i] for i in indices]
