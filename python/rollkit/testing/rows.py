"""Slow, obvious versions of what rollkit does with rows and layouts, to test against."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rollkit._rows.layout import Layout
from rollkit._rows.ragged import Ragged
from rollkit.testing.orders import permuted_reference


def plan_bins_reference(
    lengths: Sequence[int] | NDArray[np.integer],
    capacity: int,
    *,
    algorithm: str = "first_fit_decreasing",
    align: int = 1,
    max_segments: int | None = None,
    oversize: str = "raise",
    order: str = "opened",
    seed: int = 0,
) -> NDArray[np.int64]:
    """`rollkit.plan_bins` by looking at every open bin for every row: O(rows × bins).

    Takes and returns what `plan_bins` does, but checks nothing beyond rows that are too long.

    Example:
        >>> plan_bins_reference([3, 3, 5, 5], capacity=8)
        array([0, 1, 0, 1])
    """
    sizes = [min(n, capacity) if oversize == "truncate" else n for n in map(int, lengths)]
    rows = list(range(len(sizes)))
    if algorithm.endswith("_decreasing"):
        rows.sort(key=lambda row: -sizes[row])
    slots = max(capacity // align, 1)
    most = len(sizes) if max_segments is None else max_segments
    room: list[int] = []
    free: list[int] = []  # how many more rows a bin takes
    bins = np.full(len(sizes), -1, np.int64)
    for row in rows:
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
    if order == "shuffled":
        numbers = [*permuted_reference(len(room), seed=seed), -1]  # the last is -1's
        bins = np.array([numbers[b] for b in bins], np.int64)
    return bins


def pieces_reference(
    lengths: Sequence[int] | NDArray[np.integer], capacity: int
) -> list[tuple[int, int, int]]:
    """Row, begin and length of each piece of rows that `oversize="split"` cuts.

    Example:
        >>> pieces_reference([3, 9, 0], capacity=4)
        [(0, 0, 3), (1, 0, 4), (1, 4, 4), (1, 8, 1), (2, 0, 0)]
    """
    found = []
    for row, length in enumerate(map(int, lengths)):
        begin = 0
        while length - begin > capacity:
            found.append((row, begin, capacity))
            begin += capacity
        found.append((row, begin, length - begin))
    return found


def pack_starts_reference(
    lengths: Sequence[int] | NDArray[np.integer], capacity: int, *, align: int = 1, **options: Any
) -> list[int]:
    """The starts of `rollkit.Layout.pack`, bin by bin; takes what `plan_bins_reference` does.

    Example:
        >>> pack_starts_reference([3, 0, 7, 2, 0, 1], capacity=8)
        [8, 0, 0, 11, 7, 7]
        >>> pack_starts_reference([3, 5, 0], capacity=8)
        [0, 3, 3]
    """
    bins = plan_bins_reference(lengths, capacity, align=align, **options).tolist()
    placed = [min(n, capacity) if options.get("oversize") == "truncate" else n for n in map(int, lengths)]
    width = max([capacity, *(n for n, found in zip(placed, bins, strict=True) if found >= 0)])
    starts = [-1] * len(bins)
    for number in set(bins) - {-1}:
        used = last = 0
        for row in (row for row, found in enumerate(bins) if found == number):
            if placed[row]:
                last = used
            # Where a bin is full, the next one starts: an empty row goes back to the last row's start.
            starts[row] = number * width + (last if used == width else used)
            used = min(-(-(used + placed[row]) // align) * align, width)
    return starts


def concat_reference(parts: Sequence[Ragged]) -> list[Any]:
    """`rollkit.concat`, as nested lists.

    Example:
        >>> concat_reference([Ragged.from_rows([[1], [2, 3]]), Ragged.from_rows([[4]])])
        [[1], [2, 3], [4]]
    """
    return [row.tolist() for part in parts for row in part]


def place_reference(
    rows: Sequence[Any] | Ragged, layout: Layout, fill: Any = 0, dtype: DTypeLike | None = None
) -> NDArray[Any]:
    """`rollkit.place`, one element at a time. `rows` are arrays (at least one) or a `Ragged`.

    Example:
        >>> place_reference([np.array([7, 8])], Layout.pad([2], width=3), fill=-1)
        array([[-1,  7,  8]])
        >>> halves = Layout((4,), [2, 0], [1, 2], [3], source_rows=[0, 0], begins=[0, 1])
        >>> place_reference([np.array([7, 8, 9])], halves)
        array([8, 9, 7, 0])
    """
    arrays = [np.asarray(row) for row in rows]
    inner = rows.inner if isinstance(rows, Ragged) else arrays[0].shape[1:]
    if dtype is None:
        dtype = rows.dtype if isinstance(rows, Ragged) else arrays[0].dtype
    out: NDArray[Any] = np.empty((layout.size, *inner), dtype)
    for cell in range(layout.size):
        out[cell] = fill
    if len(arrays) != len(layout):
        raise ValueError(f"there are {len(arrays)} rows, the layout has {len(layout)}")
    for row, begin, start, length in _pieces_reference(layout):
        for position in range(length):
            out[start + position] = arrays[row][begin + position]
    return out.reshape(*layout.shape, *inner)


def take_reference(array: NDArray[Any], layout: Layout) -> list[list[Any]]:
    """`rollkit.take`, one element at a time, as nested lists; a row's pieces in their order within it.

    Example:
        >>> take_reference(np.array([[0, 7, 8]]), Layout.pad([2], width=3))
        [[7, 8]]
        >>> halves = Layout((4,), [2, 0], [1, 2], [3], source_rows=[0, 0], begins=[0, 1])
        >>> take_reference(np.array([8, 9, 7, 0]), halves)
        [[7, 8, 9]]
    """
    flat = array.reshape(layout.size, *array.shape[len(layout.shape) :])
    rows: list[list[Any]] = [[] for _ in range(len(layout))]
    for row, _, start, length in sorted(_pieces_reference(layout)):
        rows[row] += [flat[start + position].tolist() for position in range(length)]
    return rows


def _pieces_reference(layout: Layout) -> list[tuple[int, int, int, int]]:
    """Row, begin within it, start and length of each piece of a layout."""
    starts, lengths = layout.starts.tolist(), layout.lengths.tolist()
    rows = range(len(starts)) if layout.source_rows is None else layout.source_rows.tolist()
    begins = [0] * len(starts) if layout.begins is None else layout.begins.tolist()
    return list(zip(rows, begins, starts, lengths, strict=True))


def positions_reference(layout: Layout) -> NDArray[np.int32]:
    """`Layout.positions`, one element at a time.

    Example:
        >>> positions_reference(Layout.pad([2, 1], width=3))
        array([[0, 0, 1],
               [0, 0, 0]], dtype=int32)
    """
    rows = [np.arange(n, dtype=np.int32) for n in layout.row_lengths.tolist()]
    return place_reference(rows, layout) if rows else np.zeros(layout.shape, np.int32)


def attention_mask_reference(layout: Layout) -> NDArray[np.uint8]:
    """`Layout.attention_mask`, one element at a time.

    Example:
        >>> attention_mask_reference(Layout.pad([2, 1], width=3))
        array([[0, 1, 1],
               [0, 0, 1]], dtype=uint8)
    """
    rows = [np.ones(n, np.uint8) for n in layout.row_lengths.tolist()]
    return place_reference(rows, layout) if rows else np.zeros(layout.shape, np.uint8)


def segment_ids_reference(layout: Layout) -> NDArray[np.int32]:
    """`Layout.segment_ids`, one line after another, empty rows counted where they start.

    Example:
        >>> segment_ids_reference(Layout.pack([3, 2, 1], capacity=4))
        array([[1, 1, 1, 2],
               [1, 1, 0, 0]], dtype=int32)
    """
    out = np.zeros(layout.size, np.int32)
    rows = list(zip(layout.starts.tolist(), layout.lengths.tolist(), strict=True))
    for begin in range(0, layout.size, layout.width or 1):
        number = 0
        # Of two rows with one start the empty one comes first.
        for start, length in sorted(rows):
            if begin <= start < begin + layout.width:
                number += 1
                for position in range(length):
                    out[start + position] = number
    return out.reshape(layout.shape)


def shard_reference(
    layout: Layout, size: int, scheme: str = "zigzag", *, align: int = 1
) -> list[NDArray[np.int64]]:
    """`rollkit.Layout.shard`, token by token: which place of the output each place of a rank's share is.

    Takes what `shard` does, but `"balanced"`, which is no rule but a search.

    Example:
        >>> shard_reference(Layout.concat([4, 8]), 2)
        [array([ 0,  3,  4,  5, 10, 11]), array([1, 2, 6, 7, 8, 9])]
    """
    shares: list[list[int]] = [[] for _ in range(size)]
    piece_at = {
        start + position: piece
        for piece, (_, _, start, length) in enumerate(_pieces_reference(layout))
        for position in range(length)
    }
    chunks = 2 * size if scheme in ("zigzag", "dual_chunk") and size > 1 else size
    for line in range(0, layout.size, layout.width or 1):
        slots, latest = [0], None  # where slots begin: a line's first one with the line
        for column in range(layout.width):
            piece = piece_at.get(line + column, latest)
            if piece != latest and latest is not None:
                slots.append(column)
            latest = piece
        bounds = [*slots, layout.width] if scheme == "zigzag" else [0, layout.width]
        for begin, end in pairwise(bounds):
            for position in range(end - begin):
                stripe = align if scheme == "striped" else (end - begin) // chunks
                chunk = position // stripe % chunks
                shares[min(chunk, 2 * size - 1 - chunk)].append(line + begin + position)
    shape = (*layout.shape[:-1], layout.width // size)
    return [np.array(share, np.int64).reshape(shape) for share in shares]
