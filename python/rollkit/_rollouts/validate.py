"""Whether rollouts can be trained on: `Rollouts.validate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rollkit import _check
from rollkit._check import Int64s, same_ints
from rollkit._errors import refusal, warn
from rollkit._frameworks import AnyArray
from rollkit._rollouts.columns import Column
from rollkit._rollouts.fields import FIELDS
from rollkit._rollouts.trajectories import task_ends
from rollkit._rows.ragged import Ragged

NEEDED = ("prompt_token_ids", "response_ids", "loss_masks", "rewards")
TOKENS = ("prompt_token_ids", "response_ids", "input_ids")
MASKS = ("loss_masks", "route_masks")
# What rounding may add to the log-probability of a token that is nearly certain.
ROUNDING = 1e-4
PER_RESPONSE_TOKEN = tuple(
    name for name, field in FIELDS.items() if field.level == "response" and name not in TOKENS
)
KEPT = tuple(name for name, field in FIELDS.items() if field.lists)

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
            check_lengths(name, (column if name in KEPT else _tokens(name, column)).lengths, responses)
        elif column is not None:
            _row_rewards(name, column)
    if "rollout_expert_indices" in columns:
        _routes(columns["rollout_expert_indices"], prompts + responses)
    masks = _tokens("loss_masks", columns["loss_masks"])
    check_values(columns)
    if _check.flag("step_wise", step_wise):
        _steps(columns)
    if not any_nonzero(masks.flat):
        warn(ALL_MASKED)


def _wanted(name: str) -> tuple[Callable[[AnyArray], Any], str] | None:
    """What is wrong with values of a known column, as `[values]` bool, and what is wanted; None of others."""
    if name in TOKENS or name in KEPT:
        return (lambda values: values < 0), "expected a token id, 0 or more"
    if name in MASKS:
        return (lambda values: (values != 0) & (values != 1)), "expected 0 or 1"
    if name in ("rewards", "loss_weights"):
        return (lambda values: ~np.isfinite(values)), "expected a finite number"
    if name.endswith("logprobs"):
        wrong = "expected a log-probability, 0 or less"
        return (lambda values: ~(values <= ROUNDING)), wrong  # NaN is not, either
    if name == "rollout_expert_indices":
        return (lambda values: values < 0), "expected the number of an expert, 0 or more"
    return None


def _check_values(name: str, column: Any, wrong: Callable[[AnyArray], Any], wanted: str) -> None:
    """Refuse the first value that is wrong, by row and position."""
    values = column.flat if isinstance(column, Ragged) else column
    lists = values if isinstance(values, Ragged) else None
    if lists is not None:
        values = lists.flat
    if values.dtype.kind in "bu" and name not in MASKS:
        return
    bad = wrong(values)
    if not bad.any():
        return
    found = int(bad.reshape(len(values), -1).any(1).argmax())
    value = values[found].reshape(-1)[bad[found].reshape(-1).argmax()]
    if not isinstance(column, Ragged):
        raise refusal(ValueError, f" is {value}; {wanted}", column=name, row=found)
    if lists is not None:  # the one that it is in
        found, _ = _place(lists, found)
    raise _at_element(column, name, found, f": {value} is wrong; {wanted}")


def _at_element(column: Ragged, name: str, element: int, text: str) -> ValueError:
    """The refusal of an element, counted through all rows."""
    row, position = _place(column, element)
    return refusal(ValueError, text, column=name, row=row, position=position)


def _place(rows: Ragged, element: int) -> tuple[int, int]:
    """The row and the position of an element, counted through all rows."""
    begins = rows.offsets - rows.offsets[0]
    row = int(np.searchsorted(begins[1:], element, side="right"))
    return row, element - int(begins[row])


def _check_kept(name: str, column: Ragged, tokens: Ragged) -> None:
    """Refuse kept ids that the sampled token is not among; an empty list says nothing of its token."""
    kept: Any = column.flat
    sampled = tokens.flat
    if kept.inner:
        text = f"expected a list of ids per token, got lists of elements of shape {kept.inner}"
        raise refusal(ValueError, text, column=name)
    counts = kept.lengths
    lacking = counts > 0
    same = np.flatnonzero(kept.flat == np.repeat(sampled, counts))
    lacking[np.searchsorted(kept.offsets[1:] - kept.offsets[0], same, side="right")] = False
    if lacking.any():
        element = int(lacking.argmax())
        text = f": the sampled token {sampled[element]} is not among its {counts[element]} kept ids"
        raise _at_element(column, name, element, text)


def check_values(columns: Mapping[str, Any]) -> None:
    """Refuse values of known columns that no rollout has."""
    for name, column in columns.items():
        if (wrong := _wanted(name)) is not None and not isinstance(column, list):
            _check_values(name, column, *wrong)
        elif name == "rewards":
            _row_rewards(name, column)
    tokens = columns.get("response_ids")
    for name in KEPT:
        kept = columns.get(name)
        if (
            isinstance(kept, Ragged)
            and isinstance(tokens, Ragged)
            and same_ints(kept.lengths, tokens.lengths)
        ):
            _check_kept(name, kept, tokens)


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
    if isinstance(column, list) and None in column:
        row = column.index(None)
        raise refusal(ValueError, " is None; expected a number", column=name, row=row)
    if not isinstance(column, np.ndarray) or column.ndim != 1 or column.dtype.kind not in "biuf":
        text = "expected a number per row, or one per response token"
        raise refusal(ValueError, text, column=name)


def check_lengths(name: str, got: Int64s, wanted: Int64s) -> None:
    """Refuse rows that do not have an element for each token of their response."""
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
    task_ends(columns, len(columns["is_last_step"]))
