"""Runs of segment ids, of a layout or of a batch, and what is read off them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Final

import numpy as np

from rollkit import _check, _native
from rollkit._batch import Batch
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray, is_array
from rollkit._rows.layout import ABSENT, Layout
from rollkit.segments import _device
from rollkit.segments._tokens import (
    INT32_MAX,
    Known,
    Tokens,
    check_segments,
    rewrapped,
    room_for,
    tokens,
    unreadable,
)


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of a batch of segment ids, in order: all that varlen kernels, adapters and masks need.

    Make it once per batch: `runs(ids)`, or `Runs.of(layout)`, which looks at no token. It is host memory
    (three int64 arrays, one entry per run), so that reading off it copies nothing from a device; results
    are of the framework that the ids were of, copied to where they were.

    Attributes:
        ids: `[runs]` int64, the segment id of each run.
        starts: `[runs]` int64, the flat index of its first token, rows counted through.
        lengths: `[runs]` int64, its tokens.
        shape: of the ids, `[T]` or `[B, T]`.
        like: an array of the framework and device that results go to; None for NumPy.
    """

    ids: Int64s
    starts: Int64s
    lengths: Int64s
    shape: tuple[int, ...]
    like: Any = None

    @classmethod
    def of(cls, given: Layout | Batch) -> Runs:
        """Read runs off a layout, writing no ids: those that `runs(layout.segment_ids())` finds.

        Args:
            given: a `Layout`, or a `Batch`, which stands for its layout, whatever its arrays hold; results
                are of the framework, and on the device, of its arrays.

        Raises:
            ValueError: the layout has more than two dimensions.
            OverflowError: its lines are longer than an int32 counts.

        Example:
            >>> from rollkit import Layout
            >>> found = Runs.of(Layout.pack([3, 7, 2], capacity=8))
            >>> found.ids, found.starts, found.lengths
            (array([1, 1, 2]), array([ 0,  8, 11]), array([7, 3, 2]))
        """
        layout = _layout(given)
        if not isinstance(layout, Layout):
            raise TypeError(f"given must be a Layout or a Batch, got {type(given).__name__}")
        if len(layout.shape) > 2:
            raise ValueError(f"the layout must be [tokens] or [rows, tokens], got shape {layout.shape}")
        if layout.width > INT32_MAX:
            raise OverflowError(f"the layout has rows of {layout.width} tokens, beyond int32")
        return cls(*_laid(layout), layout.shape, like_of(given))

    def seqlens(self, max_segments: int) -> Any:
        """Tokens by id; see `seqlens`."""
        size = room_for(max_segments, self.shape[-1])
        rows, _ = self._places()
        found = np.zeros((prod(self.shape[:-1]), size), np.int32)
        near = self.ids <= size
        np.add.at(found, (rows[near], self.ids[near] - 1), self.lengths[near].astype(np.int32))
        return self._wrap(found.reshape(*self.shape[:-1], size))

    def offsets(self, max_segments: int) -> Any:
        """Starts by appearance; see `offsets`."""
        size = room_for(max_segments, self.shape[-1]) + 1
        rows, columns = self._places()
        number = _ranks(rows)
        found = np.full((prod(self.shape[:-1]), size), -1, np.int32)
        near = number < size
        found[rows[near], number[near]] = columns[near]
        return self._wrap(found.reshape(*self.shape[:-1], size))

    def segment_ids(self) -> Any:
        """The ids, int32 of `shape`: the inverse of `runs`."""
        return self._filled(self.ids)

    def positions(self) -> Any:
        """0, 1, 2, … within each run, 0 in padding: int32 of `shape`."""
        out = np.empty(self.shape, np.int32)
        _native.positions(self.starts, self.lengths, None, out=out)
        return self._wrap(out)

    def run_length_fill(self) -> Any:
        """The length of each token's run, 0 in padding: int32 of `shape`."""
        return self._filled(self.lengths)

    def cu_seqlens(self, size: int | None = None) -> Any:
        """0 and the running sum of lengths; see `cu_seqlens`."""
        return self._wrap(_edged(_native.offsets_from_lengths(self.lengths), size))

    def cu_seqlens_padded(self, size: int | None = None) -> Any:
        """Where runs start, and the end; see `cu_seqlens_padded`."""
        return self._wrap(_edged(np.append(self.starts, prod(self.shape)), size))

    @cached_property
    def max_seqlen(self) -> int:
        """The longest run, a Python int."""
        return int(self.lengths.max(initial=0))

    def __len__(self) -> int:
        return len(self.ids)

    def _places(self) -> tuple[Int64s, Int64s]:
        """Row and column of each run's first token."""
        width = max(self.shape[-1], 1)
        return self.starts // width, self.starts % width

    def _pairs(self, max_segments: int) -> bool:
        """Whether the n-th length above 0 belongs to the n-th offset: ids rise along a row, and have room."""
        rows, _ = self._places()
        falls = (rows[1:] == rows[:-1]) & (self.ids[1:] <= self.ids[:-1])
        return not falls.any() and int(self.ids.max(initial=0)) <= max_segments

    def _filled(self, values: Int64s) -> Any:
        out = np.empty(self.shape, np.int32)
        _native.fill_runs(self.starts, self.lengths, values, out=out)
        return self._wrap(out)

    def _wrap(self, found: AnyArray) -> Any:
        return rewrapped(found, self.like)

    def _on_host(self) -> Runs:
        """The runs, for results of NumPy."""
        return self if self.like is None else replace(self, like=None)


DESCRIBED: Final = (Runs, Layout, Batch)
"""What has ids and positions to read off on the host, beside arrays that hold them."""


def runs(ids: Any) -> Runs:
    """Find every run of segment ids: longest stretches of one id within a row, padding left out.

    Args:
        ids: `[T]` or `[B, T]` integers, NumPy, torch or JAX. On a device they are copied to the host, once.
            Of a `Layout` or a `Batch`, on a device too, they are read off without looking at a token
            (`Runs.of`). `Runs` are returned as they are.

    Returns:
        `Runs`.

    Raises:
        TypeError: no integers; or a traced array, whose runs cannot be counted: `thd`, `seqlens`,
            `offsets`, `positions` and `run_length_fill` work there.
        ValueError: an id is negative; the message names row and position.

    Example:
        >>> found = runs([[1, 1, 1, 0, 2, 2], [5, 5, 0, 0, 0, 0]])
        >>> found.ids, found.starts, found.lengths
        (array([1, 2, 5]), array([0, 4, 6]), array([3, 2, 2]))
        >>> found.cu_seqlens(), found.max_seqlen
        (array([0, 3, 5, 7], dtype=int32), 3)
    """
    if isinstance(ids, Runs):
        return ids
    return Runs.of(ids) if isinstance(ids, Layout | Batch) else _scanned(tokens(ids=ids))


def ids_of(given: Any) -> Any:
    """Ids as they are, or those that runs, a layout or a batch have."""
    return Known(_source(given).segment_ids(), like_of(given)) if isinstance(given, DESCRIBED) else given


def positions_of(given: Any, positions: Any = None) -> Any:
    """The positions if there are any, or else those that runs, a layout or a batch have."""
    if positions is not None or not isinstance(given, DESCRIBED):
        return positions
    return Known(_source(given).positions(), like_of(given))


def like_of(given: Any) -> Any:
    """The array whose framework and device results are of; None where those of any other are as good."""
    if isinstance(given, Runs):
        return given.like
    if isinstance(given, Batch):
        return _foreign(next(iter(given.arrays.values()), None))
    return given if is_array(given) else None


def _source(given: Any) -> Runs | Layout:
    if isinstance(given, Runs):
        return given._on_host()
    return _layout(given)


def _layout(given: Any) -> Layout:
    """A layout, or that of a batch."""
    check_segments("given", given)
    found: Any = given.layout if isinstance(given, Batch) else given
    layout: Layout = found
    return layout


def _foreign(array: Any) -> Any:
    """The array unless it is NumPy's, or none."""
    return None if isinstance(array, np.ndarray) or not is_array(array) else array


def _laid(layout: Layout) -> tuple[Int64s, Int64s, Int64s]:
    """Ids, starts and lengths of the runs of a layout."""
    starts, lengths = layout.starts, layout.lengths
    if (order := layout.order) is not None:
        starts, lengths = starts[order], lengths[order]
    if (absent := starts == ABSENT).any():
        starts, lengths = starts[~absent], lengths[~absent]
    width = max(layout.width, 1)
    lines = starts // width
    if (starts + lengths > (lines + 1) * width).any():  # rows that go on in the next line, among its own
        ids, starts, lengths = _native.runs(layout.segment_ids().reshape(-1, layout.width))
        return ids, starts, lengths
    ids = _ranks(lines) + 1  # empty rows have a number, and no run
    if (filled := lengths > 0).all():
        return ids, starts, lengths
    return ids[filled], starts[filled], lengths[filled]


def _ranks(rows: Int64s) -> Int64s:
    """How many entries before each are of its row; rows never fall."""
    index = np.arange(len(rows))
    begins = index.copy()
    begins[1:][rows[1:] == rows[:-1]] = 0
    found: Int64s = index - np.maximum.accumulate(begins)
    return found


def _scanned(found: Tokens) -> Runs:
    if found.traced:
        raise unreadable("runs", "make them outside, or use thd, seqlens or offsets, whose sizes are fixed")
    array = found.arrays[0] if found.host else np.ascontiguousarray(found.ops.to_host(found.arrays[0]))
    ids, starts, lengths = _native.runs(array)
    return Runs(ids, starts, lengths, tuple(found.like.shape), _foreign(found.like))


def seqlens(ids: Any, max_segments: int) -> Any:
    """Count the tokens of each segment, by id: TransformerEngine's layout.

    Args:
        ids: `[T]` or `[B, T]` integers; 0 is padding. Traced JAX arrays stay in the graph. Or `Runs`, a
            `Layout` or a `Batch`.
        max_segments: S. Ids beyond it are not counted.

    Returns:
        `[S]` or `[B, S]` int32; entry `k` is the tokens with id `k + 1`, 0 if there are none.

    Example:
        >>> seqlens([1, 1, 1, 0, 2, 2], 3)
        array([3, 2, 0], dtype=int32)
    """
    if isinstance(ids, DESCRIBED):
        return runs(ids).seqlens(max_segments)
    return _column(0, ids, max_segments)


def offsets(ids: Any, max_segments: int) -> Any:
    """Find where each run starts in its row, by appearance: TransformerEngine's layout.

    Args:
        ids: `[T]` or `[B, T]` integers; 0 is padding. Traced JAX arrays stay in the graph. Or `Runs`, a
            `Layout` or a `Batch`.
        max_segments: S. Runs beyond S + 1 are left out.

    Returns:
        `[S + 1]` or `[B, S + 1]` int32; unused entries are -1.

    Example:
        >>> offsets([1, 1, 1, 0, 2, 2], 3)
        array([ 0,  4, -1, -1], dtype=int32)
    """
    if isinstance(ids, DESCRIBED):
        return runs(ids).offsets(max_segments)
    return _column(1, ids, max_segments)


def positions(ids: Any) -> Any:
    """Number the tokens of each run from 0; 0 in padding.

    Args:
        ids: `[T]` or `[B, T]` integers. Traced JAX arrays stay in the graph. Or `Runs`; or a `Layout` or a
            `Batch`, whose positions are those of its layout.

    Returns:
        int32 of the same shape.

    Example:
        >>> positions([1, 1, 1, 0, 2, 2])
        array([0, 1, 2, 0, 0, 1], dtype=int32)
    """
    if isinstance(ids, DESCRIBED):
        return positions_of(ids).wrap()
    found = tokens(ids=ids)
    if found.host:
        return _scanned(found).positions()
    return found.unbatch(found.ops.run(_device.positions, found.arrays[0]))


def run_length_fill(ids: Any) -> Any:
    """Write the length of its run to each token; 0 in padding.

    Args:
        ids: `[T]` or `[B, T]` integers. Traced JAX arrays stay in the graph. Or `Runs`, a `Layout` or a
            `Batch`.

    Returns:
        int32 of the same shape.

    Example:
        >>> run_length_fill([1, 1, 1, 0, 2, 2])
        array([3, 3, 3, 0, 2, 2], dtype=int32)
    """
    if isinstance(ids, DESCRIBED):
        return runs(ids).run_length_fill()
    found = tokens(ids=ids)
    if found.host:
        return _scanned(found).run_length_fill()
    return found.unbatch(found.ops.run(_device.run_lengths, found.arrays[0]))


def cu_seqlens(ids: Any, size: int | None = None) -> Any:
    """Sum up run lengths: what varlen kernels take for tokens without padding.

    Args:
        ids: `[T]` or `[B, T]` integers, `Runs`, a `Layout` or a `Batch`; rows count through.
        size: of the result, at least runs + 1; the rest repeats the total (empty segments), so that a
            graph captured for one batch fits the next.

    Returns:
        `[runs + 1]` or `[size]` int32.

    Raises:
        ValueError: there are more runs than `size` has room for.

    Example:
        >>> cu_seqlens([1, 1, 1, 0, 2, 2])
        array([0, 3, 5], dtype=int32)
        >>> cu_seqlens([1, 1, 1, 0, 2, 2], size=5)
        array([0, 3, 5, 5, 5], dtype=int32)
    """
    return runs(ids).cu_seqlens(size)


def cu_seqlens_padded(ids: Any, size: int | None = None) -> Any:
    """List where runs start in memory, padding counted, and where the last one's slot ends.

    Args:
        ids: as in `cu_seqlens`.
        size: likewise.

    Returns:
        `[runs + 1]` or `[size]` int32.

    Example:
        >>> cu_seqlens_padded([1, 1, 1, 0, 2, 2])
        array([0, 4, 6], dtype=int32)
    """
    return runs(ids).cu_seqlens_padded(size)


def max_seqlen(ids: Any) -> int:
    """Return the longest run: a Python int, as varlen kernels want it.

    Args:
        ids: as in `cu_seqlens`.

    Example:
        >>> max_seqlen([1, 1, 1, 0, 2, 2])
        3
    """
    return runs(ids).max_seqlen


def _column(which: int, ids: Any, max_segments: int) -> Any:
    found = tokens(ids=ids)
    max_segments = room_for(max_segments, found.arrays[0].shape[-1])
    if found.host:
        columns = _native.seqlens_and_offsets(
            found.arrays[0], name="ids", max_segments=max_segments, pair=False
        )
        return found.wrap(found.unbatch(columns[which]))
    function = (_device.seqlens, _device.offsets)[which]
    return found.unbatch(found.ops.run(function, found.arrays[0], max_segments=max_segments))


def _edged(sums: Int64s, size: int | None) -> AnyArray:
    if sums[-1] > INT32_MAX:
        raise OverflowError(f"{sums[-1]} tokens are beyond int32, which attention kernels take")
    return sized(sums, size).astype(np.int32)


def sized(sums: Int64s, size: int | None) -> Int64s:
    """Running sums, the last of them repeated up to a size."""
    if size is None:
        return sums
    size = _check.positive("size", size)
    if size < len(sums):
        raise ValueError(f"there are {len(sums) - 1} segments, size={size} has room for {size - 1}")
    return np.pad(sums, (0, size - len(sums)), mode="edge")
