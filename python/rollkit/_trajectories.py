"""Which rows are steps of one trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit._check import Int64s, as_array


def trajectory_ends(columns: Mapping[str, Any], count: int) -> NDArray[np.bool_] | None:
    """`[count]` bool: the row is the last of its trajectory. None if no column tells.

    `is_last_step` says so, or else a change of `trajectory_ids`.

    Raises:
        ValueError: `is_last_step` is not one bool per row, or is False where `trajectory_ids` change.
    """
    ids = columns.get("trajectory_ids")
    last = columns.get("is_last_step")
    if last is None:
        return None if ids is None else np.append(_changes(ids), np.ones(min(count, 1), bool))
    ends = np.asarray(as_array(last), bool)
    if ends.shape != (count,):
        raise ValueError(f"column 'is_last_step': expected one bool per row, {count}, got shape {ends.shape}")
    if ids is not None:
        lost = _changes(ids) & ~ends[:-1]
        if lost.any():
            row = int(lost.argmax())
            raise ValueError(
                f"column 'is_last_step': row {row} is False, but row {row + 1} belongs to another "
                f"trajectory, {ids[row + 1]!r}"
            )
    return ends


def trajectories(columns: Mapping[str, Any], count: int) -> tuple[Int64s, Int64s]:
    """The last row of each trajectory, and the trajectory of each row; one each where no column tells."""
    ends = trajectory_ends(columns, count)
    if ends is None:
        rows = np.arange(count)
        return rows, rows
    if count and not ends[-1]:
        raise ValueError(
            f"column 'is_last_step': row {count - 1}, the last, is False; it must end its trajectory"
        )
    lasts = np.flatnonzero(ends)
    return lasts, np.searchsorted(lasts, np.arange(count))


def _changes(ids: Any) -> NDArray[np.bool_]:
    entries = ids.tolist() if isinstance(ids, np.ndarray) else ids
    return np.array([a != b for a, b in pairwise(entries)], bool)
