"""Best fit decreasing as TRL's: of equally full bins the one that has been so for the longest time."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from rollkit import _native
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray

_SMALL: Final = 1 << 16
"""Below this NumPy sorts by radix."""


def best_fit_decreasing(lengths: Int64s, capacity: int) -> tuple[Int64s, Int64s]:
    """Pack rows into bins: longest first, ties by number, each into the fullest bin with room.

    `plan_bins` has the same algorithm with another tie: there, of equally full bins, the one that was opened
    first gets the row.

    Args:
        lengths: `[rows]`, each 1 to `capacity`.
        capacity: elements of a bin.

    Returns:
        Rows bin after bin, in the order in which they went there, and how many each bin has.
    """
    order = _sorted(capacity - lengths, capacity)
    falling = lengths[order]
    begins = np.flatnonzero(np.diff(falling, prepend=capacity + 1))
    counts = np.diff(begins, append=len(lengths))
    bins, opened = _fill(falling[begins].tolist(), counts.tolist(), capacity)
    found, _ = _native.from_lists([bins], np.dtype(np.int64))
    return order[_sorted(found, opened)], np.bincount(found, minlength=opened)


def _sorted(keys: Int64s, most: int) -> Int64s:
    small: AnyArray = keys.astype(np.uint16) if most < _SMALL else keys
    return np.argsort(small, kind="stable")


def _fill(lengths: Sequence[int], counts: Sequence[int], capacity: int) -> tuple[list[int], int]:
    """The bin of each row, and how many there are; `counts[i]` rows of `lengths[i]`, which fall.

    Where a row goes, the next one of its length goes too while there is room: so bins are filled by as many
    rows as they have room for, all bins of one room at a time.
    """
    rooms: list[int] = []  # those that bins have, ascending
    waiting: dict[int, deque[int]] = {}  # the bins of each, in the order in which they came to have it
    bins: list[int] = []
    opened = 0
    for length, count in zip(lengths, counts, strict=True):
        while count:
            at = bisect_left(rooms, length)
            room = rooms[at] if at < len(rooms) else capacity
            each = room // length
            wanted = -(-count // each)
            taken: Sequence[int]
            if at == len(rooms):
                taken = range(opened, opened + wanted)
                opened += wanted
            elif wanted < len(waiting[room]):
                taken = [waiting[room].popleft() for _ in range(wanted)]
            else:
                taken = list(waiting.pop(room))
                del rooms[at]
            placed = min(count, each * len(taken))
            count -= placed
            full, more = divmod(placed, each)
            bins += taken if each == 1 else [bin for bin in taken for _ in range(each)][:placed]
            for group, left in ((taken[:full], room - each * length), (taken[full:], room - more * length)):
                if not group or not left:
                    continue
                if left not in waiting:
                    waiting[left] = deque()
                    insort(rooms, left)
                waiting[left].extend(group)
    return bins, opened
