"""Slow, obvious versions of what rollkit does fast, to test against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rollkit._testing_segments import attended_reference as attended_reference
from rollkit._testing_segments import attention_mask_reference as attention_mask_reference
from rollkit._testing_segments import pairs_reference as pairs_reference
from rollkit._testing_segments import run_lengths_reference as run_lengths_reference
from rollkit._testing_segments import thd_cases as thd_cases
from rollkit._testing_segments import thd_reference as thd_reference


def plan_bins_reference(
    lengths: Sequence[int] | NDArray[np.integer],
    capacity: int,
    *,
    algorithm: str = "first_fit_decreasing",
    align: int = 1,
    max_segments: int | None = None,
    oversize: str = "raise",
) -> NDArray[np.int64]:
    """`rollkit.plan_bins` by looking at every open bin for every row: O(rows × bins).

    Takes and returns what `plan_bins` does, but checks nothing beyond rows that are too long.

    Example:
        >>> plan_bins_reference([3, 3, 5, 5], capacity=8)
        array([0, 1, 0, 1])
    """
    sizes = [min(n, capacity) if oversize == "truncate" else n for n in map(int, lengths)]
    order = list(range(len(sizes)))
    if algorithm.endswith("_decreasing"):
        order.sort(key=lambda row: -sizes[row])
    slots = max(capacity // align, 1)
    most = len(sizes) if max_segments is None else max_segments
    room: list[int] = []
    free: list[int] = []  # how many more rows a bin takes
    bins = np.full(len(sizes), -1, np.int64)
    for row in order:
        size = sizes[row]
        if size > capacity:
            if oversize == "raise":
                raise ValueError(f"row {row} has {size} elements, capacity is {capacity}")
            if oversize == "alone":
                bins[row] = len(room)
                room.append(0)
                free.append(0)
            continue
        need = min(-(-size // align), slots)
        fitting = [b for b in range(len(room)) if room[b] >= need and free[b] > 0]
        if algorithm == "next_fit":
            fitting = [b for b in fitting if b == len(room) - 1]
        elif algorithm == "best_fit_decreasing":
            fitting.sort(key=lambda b: room[b])
        if not fitting:
            fitting = [len(room)]
            room.append(slots)
            free.append(most)
        bins[row] = fitting[0]
        room[fitting[0]] -= need
        free[fitting[0]] -= 1
    return bins
