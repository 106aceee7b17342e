"""Whether rollouts can be trained on: `Rollouts.validate`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._frameworks import AnyArray
from rollkit._rollouts.columns import Column
from rollkit._rollouts.trajectories import changes, check_end, last_steps, returning, trajectory_keys
from rollkit._rows.ragged import Ragged

NEEDED = ("prompt_token_ids", "response_ids", "loss_masks", "rewards")
PER_RESPONSE_TOKEN = ("loss_masks", "rewards", "rollout_logprobs")

ALL_MASKED = "every token is loss-masked, so the loss has nothing to average and may be NaN"

# A mask is rarely zero from the front: a look at its first elements saves most reads of all of it.
_PEEK = 1 << 12


def validate(columns: Mapping[str, Column], *, step_wise: bool = False) -> None:
    """See `Rollouts.validate`."""
    for name in NEEDED:
        if name not in columns:
            raise refusal(ValueError, f"column {name!r} is missing", column=name, label="")
    if not len(columns["response_ids"]):
        raise ValueError("column 'response_ids' has no rows")
    responses = _tokens("response_ids", columns["response_ids"]).lengths
    prompts = _tokens("prompt_token_ids", columns["prompt_token_ids"]).lengths
    for name in PER_RESPONSE_TOKEN:
        column = columns.get(name)
        if isinstance(column, Ragged):
            _same_lengths(name, _tokens(name, column).lengths, responses)
        elif column is not None:
            _row_rewards(name, column)
    if "rollout_expert_indices" in columns:
        _routes(columns["rollout_expert_indices"], prompts + responses)
    masks = _tokens("loss_masks", columns["loss_masks"])
    if step_wise:
        _steps(columns)
    if not any_nonzero(masks.flat):
        warnings.warn(ALL_MASKED, stacklevel=3)


def any_nonzero(values: AnyArray) -> bool:
    """Whether an array has an element other than 0, read no further than needed."""
    if values.dtype.itemsize == 1 and values.dtype.kind in "iu":
        values = values.view(bool)  # which NumPy stops reading at the first
    return bool(values[:_PEEK].any() or values[_PEEK:].any())


def _tokens(name: str, column: Any) -> Ragged:
    if not isinstance(column, Ragged):
        raise refusal(ValueError, "expected an element per token, got one per row", column=name)
    if column.inner and name != "rollout_expert_indices":
        text = f"expected a number per token, got elements of shape {column.inner}"
        raise refusal(ValueError, text, column=name)
    return column


def _row_rewards(name: str, column: Any) -> None:
    if name != "rewards":
        raise refusal(ValueError, "expected an element per token, got one per row", column=name)
    if not isinstance(column, np.ndarray) or column.ndim != 1 or column.dtype.kind not in "biuf":
        text = "expected a number per row, or one per response token"
        raise refusal(ValueError, text, column=name)


def _same_lengths(name: str, got: Int64s, wanted: Int64s) -> None:
    if not np.array_equal(got, wanted):
        row = int(np.flatnonzero(got != wanted)[0])
        text = f" has {got[row]} elements, its response has {wanted[row]} tokens"
        raise refusal(ValueError, text, column=name, row=row)


def _routes(column: Any, tokens: Int64s) -> None:
    """The engine sends routes for a prefix of the tokens: it has none for the last, sometimes for more."""
    lengths = _tokens("rollout_expert_indices", column).lengths
    outside = (lengths > tokens) | ((lengths == 0) & (tokens > 0))
    if outside.any():
        row = int(outside.argmax())
        raise refusal(
            ValueError,
            f" has routes for {lengths[row]} of its {tokens[row]} tokens; expected a prefix of them that is "
            "not empty",
            column="rollout_expert_indices",
            row=row,
        )


def _steps(columns: Mapping[str, Column]) -> None:
    for name in ("is_last_step", "trajectory_ids"):
        if name not in columns:
            text = f"column {name!r} is missing; step-wise rollouts need it"
            raise refusal(ValueError, text, column=name, label="")
    last = last_steps(columns["is_last_step"], len(columns["is_last_step"]))
    check_end(last)
    keys = trajectory_keys(columns["trajectory_ids"])  # type: ignore[arg-type]
    begins = changes(keys)
    row = returning(keys, begins)
    if row is not None:
        raise refusal(
            ValueError,
            f" goes on with trajectory {keys[row]!r}, but rows of another lie between; the steps of a "
            "trajectory must be adjacent",
            column="trajectory_ids",
            row=row,
        )
    ends = np.zeros(len(keys), bool)
    ends[[begin - 1 for begin in begins]] = True
    ends[-1] = True
    if (ends != last).any():
        row = int((ends != last).argmax())
        why = (
            f" is False, but row {row + 1} belongs to another trajectory"
            if ends[row]
            else f" is True, but trajectory {keys[row]!r} goes on at row {row + 1}"
        )
        raise refusal(ValueError, why, column="is_last_step", row=row)
