"""Which rows are steps of one trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit import _check
from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._frameworks import AnyArray, as_array
from rollkit._rollouts.groups import Groups
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
    seen = set(keys[:1])
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


def check_adjacent(keys: Sequence[Any], begins: Sequence[int]) -> None:
    """Refuse rows of one trajectory with rows of another between them."""
    row = returning(keys, begins)
    if row is not None:
        text = (
            f" goes on with trajectory {keys[row]!r}, but rows of another lie between; the steps of a "
            'trajectory must be adjacent: rollouts.sort("trajectory_ids") brings them together'
        )
        raise refusal(ValueError, text, column="trajectory_ids", row=row)


def check_ends(keys: Sequence[Any], begins: Sequence[int], last: NDArray[np.bool_]) -> None:
    """Refuse last steps that are not where the ids say that trajectories end."""
    if not keys:
        return
    ends = np.zeros(len(keys), bool)
    ends[[begin - 1 for begin in (*begins, len(keys))]] = True
    if (ends != last).any():
        row = int((ends != last).argmax())
        at_end = row == len(keys) - 1
        why = (
            ", the last, is False; it must end its trajectory"
            if ends[row] and at_end
            else f" is False, but row {row + 1} belongs to another trajectory, {keys[row + 1]!r}"
            if ends[row]
            else f" is True, but trajectory {keys[row]!r} goes on at row {row + 1}"
        )
        raise refusal(ValueError, why, column="is_last_step", row=row)


def check_groups(groups: Int64s, ends: NDArray[np.bool_], name: str) -> None:
    """Refuse a trajectory whose rows are of two groups; `groups` has the number of each row's."""
    odd = (groups[1:] != groups[:-1]) & ~ends[:-1]
    if odd.any():
        row = int(odd.argmax()) + 1
        text = (
            f" is of another group than row {row - 1}, which is of the same trajectory; a trajectory has one "
            "group: give repetitions of different tasks different trajectory_ids"
        )
        raise refusal(ValueError, text, column=name, row=row)


def trajectory_ends(columns: Mapping[str, Any], count: int) -> NDArray[np.bool_] | None:
    """`[count]` bool: the row is the last of its trajectory. None if no column tells.

    `is_last_step` says so, or else a change of `trajectory_ids`.

    Raises:
        ValueError: `is_last_step` is not one bool per row, or is not where `trajectory_ids` end; an id is
            None or NaN; or rows of one trajectory are not adjacent.
    """
    ids, found = columns.get("trajectory_ids"), columns.get("is_last_step")
    if ids is None:
        return None if found is None else last_steps(found, count)
    _check.given("trajectory_ids", ids)
    keys = trajectory_keys(ids)
    begins = changes(keys)
    check_adjacent(keys, begins)
    if found is not None:
        last = last_steps(found, count)
        check_ends(keys, begins, last)
        return last
    ends: NDArray[np.bool_] = np.arange(count) == count - 1
    ends[np.array(begins, np.int64) - 1] = True
    return ends


def task_ends(columns: Mapping[str, Any], count: int) -> NDArray[np.bool_] | None:
    """`trajectory_ends`, where no trajectory is of two tasks: `instance_ids`, where there are some."""
    ends = trajectory_ends(columns, count)
    if ends is not None and "instance_ids" in columns:
        check_groups(Groups.by(columns["instance_ids"]).ids, ends, "instance_ids")
    return ends


def trajectories(
    columns: Mapping[str, Any], groups: Int64s, name: str = "instance_ids"
) -> tuple[Int64s, Int64s]:
    """The last row of each trajectory, and the trajectory of each row; one each where no column tells.

    `groups` has the number of each row's group, by the column `name`.
    """
    count = len(groups)
    ends = trajectory_ends(columns, count)
    if ends is None:
        rows = np.arange(count)
        return rows, rows
    check_end(ends)
    check_groups(groups, ends, name)
    lasts = np.flatnonzero(ends)
    return lasts, np.searchsorted(lasts, np.arange(count))
