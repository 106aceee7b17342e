"""Which rows are steps of one trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._frameworks import AnyArray, as_array
from rollkit._rows.ragged import Ragged


def trajectory_keys(ids: Sequence[Any] | AnyArray) -> list[Any]:
    """What tells trajectories apart: `to_string()` where an id has it, else the id as text."""
    entries = ids.tolist() if isinstance(ids, np.ndarray) else ids
    return [entry.to_string() if hasattr(entry, "to_string") else str(entry) for entry in entries]


def changes(keys: Sequence[Any]) -> list[int]:
    """Rows at which another trajectory begins, but for row 0."""
    return [i for i in range(1, len(keys)) if keys[i] != keys[i - 1]]


def returning(keys: Sequence[Any], begins: Sequence[int]) -> int | None:
    """The first row at which a trajectory begins that has ended before, if any."""
    seen = {keys[0]}
    for row in begins:
        if keys[row] in seen:
            return row
        seen.add(keys[row])
    return None


def last_steps(column: Any, count: int) -> NDArray[np.bool_]:
    """The column `is_last_step`, `[count]` bool."""
    wanted = f"expected one bool per row, {count}"
    if isinstance(column, Ragged):
        raise refusal(ValueError, f"{wanted}, got rows of elements", column="is_last_step")
    last = np.asarray(as_array(column), bool)
    if last.shape != (count,):
        raise refusal(ValueError, f"{wanted}, got shape {last.shape}", column="is_last_step")
    return last


def check_end(last: NDArray[np.bool_]) -> None:
    """Refuse rows whose last trajectory does not end."""
    if len(last) and not last[-1]:
        text = ", the last, is False; it must end its trajectory"
        raise refusal(ValueError, text, column="is_last_step", row=len(last) - 1)


def trajectory_ends(columns: Mapping[str, Any], count: int) -> NDArray[np.bool_] | None:
    """`[count]` bool: the row is the last of its trajectory. None if no column tells.

    `is_last_step` says so, or else a change of `trajectory_ids`.

    Raises:
        ValueError: `is_last_step` is not one bool per row, or is False where `trajectory_ids` change.
    """
    ids, found = columns.get("trajectory_ids"), columns.get("is_last_step")
    if ids is None:
        return None if found is None else last_steps(found, count)
    keys = trajectory_keys(ids)
    befores = np.array(changes(keys), np.int64) - 1
    if found is None:
        ends: NDArray[np.bool_] = np.arange(count) == count - 1
        ends[befores] = True
        return ends
    last = last_steps(found, count)
    if not last[befores].all():
        row = int(befores[last[befores].argmin()])
        text = f" is False, but row {row + 1} belongs to another trajectory, {keys[row + 1]!r}"
        raise refusal(ValueError, text, column="is_last_step", row=row)
    return last


def trajectories(columns: Mapping[str, Any], count: int) -> tuple[Int64s, Int64s]:
    """The last row of each trajectory, and the trajectory of each row; one each where no column tells."""
    ends = trajectory_ends(columns, count)
    if ends is None:
        rows = np.arange(count)
        return rows, rows
    check_end(ends)
    lasts = np.flatnonzero(ends)
    return lasts, np.searchsorted(lasts, np.arange(count))
