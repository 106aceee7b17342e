"""Runs of segment ids, what is read off them, and ids from lengths, offsets and positions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check, _native
from rollkit._arrays.ops import ops
from rollkit._batch import Batch
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray, framework_of, same_framework
from rollkit._rows.layout import Layout
from rollkit.segments import _device
from rollkit.segments._tokens import INT32_MAX, Tokens, on_host, tokens, unreadable

PADDING_RULES = ("none", "trailing", "zeros")


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of a batch of segment ids, in order: all that varlen kernels, adapters and masks need.

    Make it once per batch. It is host memory (three int64 arrays, one entry per run), so that reading off
    it copies nothing from a device; results are of the framework that the ids were of, copied to where
    they were.

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

    def seqlens(self, max_segments: int) -> Any:
        """Tokens by id; see `seqlens`."""
        size = _check.positive("max_segments", max_segments)
        rows, _ = self._places()
        found = np.zeros((prod(self.shape[:-1]), size), np.int32)
        near = self.ids <= size
        np.add.at(found, (rows[near], self.ids[near] - 1), self.lengths[near].astype(np.int32))
        return self._wrap(found.reshape(*self.shape[:-1], size))

    def offsets(self, max_segments: int) -> Any:
        """Starts by appearance; see `offsets`."""
        size = _check.positive("max_segments", max_segments) + 1
        rows, columns = self._places()
        number = np.arange(len(rows)) - np.searchsorted(rows, rows)
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

    def _filled(self, values: Int64s, wrap: bool = True) -> Any:
        out = np.empty(self.shape, np.int32)
        _native.fill_runs(self.starts, self.lengths, values, out=out)
        return self._wrap(out) if wrap else out

    def _wrap(self, found: AnyArray) -> Any:
        framework = framework_of(self.like)
        return found if framework is None else ops(framework).from_host(found, self.like)


def runs(ids: Any) -> Runs:
    """Find every run of segment ids: longest stretches of one id within a row, padding left out.

    Args:
        ids: `[T]` or `[B, T]` integers, NumPy, torch or JAX. On a device they are copied to the host, once.

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
    found = tokens(ids=ids)
    if found.traced:
        raise unreadable("runs", "make them outside, or use thd, seqlens or offsets, whose sizes are fixed")
    array = found.arrays[0] if found.host else np.ascontiguousarray(found.ops.to_host(found.arrays[0]))
    numbers, starts, lengths = _native.runs(array)
    like = ids if type(ids) is not np.ndarray and framework_of(ids) in ("torch", "jax") else None
    return Runs(numbers, starts, lengths, tuple(found.like.shape), like)


def seqlens(ids: Any, max_segments: int) -> Any:
    """Count the tokens of each segment, by id: TransformerEngine's layout.

    Args:
        ids: `[T]` or `[B, T]` integers; 0 is padding. Traced JAX arrays stay in the graph.
        max_segments: S. Ids beyond it are not counted.

    Returns:
        `[S]` or `[B, S]` int32; entry `k` is the tokens with id `k + 1`, 0 if there are none.

    Example:
        >>> seqlens([1, 1, 1, 0, 2, 2], 3)
        array([3, 2, 0], dtype=int32)
    """
    return _column(0, ids, max_segments)


def offsets(ids: Any, max_segments: int) -> Any:
    """Find where each run starts in its row, by appearance: TransformerEngine's layout.

    Args:
        ids: `[T]` or `[B, T]` integers; 0 is padding. Traced JAX arrays stay in the graph.
        max_segments: S. Runs beyond S + 1 are left out.

    Returns:
        `[S + 1]` or `[B, S + 1]` int32; unused entries are -1.

    Example:
        >>> offsets([1, 1, 1, 0, 2, 2], 3)
        array([ 0,  4, -1, -1], dtype=int32)
    """
    return _column(1, ids, max_segments)


def positions(ids: Any) -> Any:
    """Number the tokens of each run from 0; 0 in padding.

    Args:
        ids: `[T]` or `[B, T]` integers. Traced JAX arrays stay in the graph.

    Returns:
        int32 of the same shape.

    Example:
        >>> positions([1, 1, 1, 0, 2, 2])
        array([0, 1, 2, 0, 0, 1], dtype=int32)
    """
    found = tokens(ids=ids)
    if found.host:
        return runs(ids).positions()
    return found.unbatch(found.ops.run(_device.positions, found.arrays[0]))


def run_length_fill(ids: Any) -> Any:
    """Write the length of its run to each token; 0 in padding.

    Example:
        >>> run_length_fill([1, 1, 1, 0, 2, 2])
        array([3, 3, 3, 0, 2, 2], dtype=int32)
    """
    found = tokens(ids=ids)
    if found.host:
        return runs(ids).run_length_fill()
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
    return as_runs(ids).cu_seqlens(size)


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
    return as_runs(ids).cu_seqlens_padded(size)


def max_seqlen(ids: Any) -> int:
    """Return the longest run: a Python int, as varlen kernels want it.

    Example:
        >>> max_seqlen([1, 1, 1, 0, 2, 2])
        3
    """
    return as_runs(ids).max_seqlen


def as_runs(ids: Any) -> Runs:
    """Return `Runs` as they are, or find those of ids, of a layout, or of a batch."""
    return ids if isinstance(ids, Runs) else runs(as_ids(ids))


def as_ids(ids: Any) -> Any:
    """Return ids as they are, or those of runs, of a layout, or of a batch."""
    if isinstance(ids, Runs | Layout):
        return ids.segment_ids()
    return ids["segment_ids"] if isinstance(ids, Batch) else ids


def with_positions(ids: Any, given: Any) -> tuple[Any, Any]:
    """Ids, and the positions given, or else those that runs, a layout or a batch have."""
    if type(ids) is np.ndarray or not isinstance(ids, Runs | Layout | Batch):
        return ids, given
    if given is None:
        given = ids["positions"] if isinstance(ids, Batch) else ids.positions()
    return as_ids(ids), given


def segment_ids(lengths: Any, *, starts: ArrayLike | None = None, total: int | None = None) -> Any:
    """Number the tokens of segments that follow each other: 1, 1, 1, 2, 2, …; the inverse of `cu_seqlens`.

    Args:
        lengths: `[segments]` integers, NumPy, torch or JAX. An empty segment keeps its number.
        starts: `[segments]` integers, where each starts; end to end by default. What lies between is 0.
        total: T, tokens in all, those after the last segment being 0. Needed for traced arrays.

    Returns:
        `[T]` int32.

    Raises:
        ValueError: a length or start is negative, or segments overlap, are not in order, or end after
            `total`: of arrays that are traced or on a device, nothing of this is checked. Or `total` is
            missing for such.
        TypeError: `starts` for such.

    Example:
        >>> segment_ids([3, 0, 2], total=6)
        array([1, 1, 1, 3, 3, 0], dtype=int32)
        >>> segment_ids([3, 2], starts=[0, 4])
        array([1, 1, 1, 0, 2, 2], dtype=int32)
    """
    return _from_lengths(_native_ids, _device.ids_from_lengths, lengths, starts, total)


def segment_positions(lengths: Any, *, starts: ArrayLike | None = None, total: int | None = None) -> Any:
    """Number the tokens of each segment from 0: what `positions` says of `segment_ids`, without making them.

    Args:
        lengths: as in `segment_ids`.
        starts: likewise.
        total: likewise.

    Returns:
        `[T]` int32.

    Example:
        >>> segment_positions([3, 2], total=6)
        array([0, 1, 2, 0, 1, 0], dtype=int32)
    """
    return _from_lengths(_native_positions, _device.positions_from_lengths, lengths, starts, total)


def segment_ids_from_cu_seqlens(
    cu_seqlens: Any, *, cu_seqlens_padded: Any = None, total: int | None = None
) -> Any:
    """Number the tokens of segments that running sums describe.

    Args:
        cu_seqlens: `[segments + 1]` integers from 0 that never fall. A tail that repeats the total is
            empty segments, which have no token.
        cu_seqlens_padded: where segments start in memory, and where the last one's slot ends; equal to
            `cu_seqlens` by default. The rest of each slot is 0, and so is what is before the first.
        total: T; the last entry by default.

    Returns:
        `[T]` int32.

    Raises:
        ValueError: entries fall, `cu_seqlens` does not begin with 0, or a segment is longer than its
            slot.

    Example:
        >>> segment_ids_from_cu_seqlens([0, 3, 5], cu_seqlens_padded=[0, 4, 6])
        array([1, 1, 1, 0, 2, 2], dtype=int32)
    """
    like = cu_seqlens
    valid, padded = cu_pair(cu_seqlens, cu_seqlens_padded)
    total = int(padded[-1]) if total is None else _check.positive("total", total, least=0)
    found = segment_ids(np.diff(valid), starts=padded[:-1], total=total)
    return rewrapped(found, like)


def from_positions(positions: Any, *, padding: Any) -> Any:
    """Number segments from positions that begin at 0 in each.

    Positions alone do not tell padding from segments of one token: zero-filled padding reads as a
    segment per pad token in several frameworks. So say what zeros are.

    Args:
        positions: `[T]` or `[B, T]` integers. A segment begins wherever a position is not one above that
            before it.
        padding: `"none"` (there is none: every zero begins a segment), `"trailing"` (zeros at the end of
            a row are padding: its last segment then has two tokens or more), `"zeros"` (a zero that no
            1 follows is padding, anywhere: all segments have two tokens or more), or an array shaped as
            `positions`, nonzero where tokens are: the one exact way.

    Returns:
        Segment ids, int32 of the same shape, from 1 in each row.

    Raises:
        ValueError: `padding` is none of these.

    Example:
        >>> from_positions([0, 1, 2, 0, 1, 0, 0, 0], padding="trailing")
        array([1, 1, 1, 2, 2, 0, 0, 0], dtype=int32)
        >>> from_positions([0, 1, 2, 0, 1, 0, 0, 0], padding="none")
        array([1, 1, 1, 2, 2, 3, 4, 5], dtype=int32)
        >>> from_positions([0, 1, 2, 0, 1, 0, 0, 0], padding=[1, 1, 1, 1, 1, 1, 0, 0])
        array([1, 1, 1, 2, 2, 3, 0, 0], dtype=int32)
    """
    if padding is None or isinstance(padding, str):
        _check.choice("padding", padding, PADDING_RULES)
        found = tokens(positions=positions)
        rule, mask = padding, None
    else:
        mask = rewrapped(np.asarray(padding), positions) if framework_of(padding) is None else padding
        found = tokens(positions=positions, padding=(mask != 0) * 1)  # integers of any framework
        rule, mask = "mask", found.arrays[1]
        if mask.shape != found.arrays[0].shape:
            raise ValueError(f"padding has shape {mask.shape}, positions {found.arrays[0].shape}")
    result = found.ops.run(_device.from_positions, *filter_none(found, mask), rule=rule)
    return found.unbatch(result)


def filter_none(found: Tokens, mask: Any) -> list[Any]:
    """Arrays on their framework, the mask only where there is one."""
    arrays = [found.arrays[0]] if mask is None else [found.arrays[0], mask]
    return [found.wrap(array) for array in arrays] if found.host else arrays


def cu_pair(cu_seqlens: Any, cu_seqlens_padded: Any) -> tuple[Int64s, Int64s]:
    """Check running sums, valid and padded; the valid ones stand for padded ones that are not given."""
    valid = _running_sums("cu_seqlens", cu_seqlens)
    if valid[0] != 0:
        raise ValueError(f"cu_seqlens[0] is {valid[0]}; running sums begin with 0")
    if cu_seqlens_padded is None:
        return valid, valid
    padded = _running_sums("cu_seqlens_padded", cu_seqlens_padded)
    if len(valid) != len(padded):
        raise ValueError(f"cu_seqlens has {len(valid)} entries, cu_seqlens_padded has {len(padded)}")
    if (odd := np.diff(valid) > np.diff(padded)).any():
        row = int(odd.argmax())
        raise ValueError(
            f"segment {row} has {np.diff(valid)[row]} tokens in a slot of {np.diff(padded)[row]}; "
            "cu_seqlens_padded counts the padding too"
        )
    return valid, padded


def _running_sums(name: str, value: Any) -> Int64s:
    """Return numbers that never fall: at least one, from 0 or above."""
    found = _check.int64s(name, on_host(name, value))
    if not len(found):
        raise ValueError(f"{name} is empty; it must begin with 0")
    if found[0] < 0:
        raise ValueError(f"{name}[0] is {found[0]}; running sums begin with 0")
    if (odd := np.diff(found) < 0).any():
        row = int(odd.argmax())
        raise ValueError(f"{name} falls from {found[row]} to {found[row + 1]} at segment {row}")
    return found


def rewrapped(found: AnyArray, like: Any) -> Any:
    """Turn an array into one of the framework of `like`."""
    framework = framework_of(like)
    return found if framework is None else ops(framework).from_host(found, like)


def _column(which: int, ids: Any, max_segments: int) -> Any:
    max_segments = _check.positive("max_segments", max_segments)
    found = tokens(ids=ids)
    if found.host:
        columns = _native.seqlens_and_offsets(
            found.arrays[0], name="ids", max_segments=max_segments, pair=False
        )
        return found.wrap(found.unbatch(columns[which]))
    function = (_device.seqlens, _device.offsets)[which]
    return found.unbatch(found.ops.run(function, found.arrays[0], max_segments=max_segments))


def _from_lengths(native: Any, device: Any, lengths: Any, starts: Any, total: int | None) -> Any:
    framework = same_framework(lengths=lengths)
    if framework != "numpy" and not ops(framework).is_host(lengths):
        if starts is not None:
            raise TypeError("starts are for arrays of the host; pass lengths of whole slots instead")
        if total is None:
            raise ValueError("total is missing: on a device the number of tokens must be known beforehand")
        total = _check.positive("total", total, least=0)
        return ops(framework).run(device, lengths, total=total)
    counts = _check.lengths("lengths", lengths)
    begins = None if starts is None else _check.int64s("starts", on_host("starts", starts))
    last = int(_native.offsets_from_lengths(counts)[-1]) if begins is None else _last_end(begins, counts)
    size = last if total is None else _check.positive("total", total, least=0)
    if last > size:
        raise ValueError(f"segments end at token {last}, after total={size}")
    out = np.empty(size, np.int32)
    native(begins, counts, out)
    return rewrapped(out, lengths)


def _last_end(starts: Int64s, counts: Int64s) -> int:
    """Where the last segment ends, once starts are known to be those of segments in order."""
    if len(starts) != len(counts):
        raise ValueError(f"starts has {len(starts)} entries, lengths has {len(counts)}")
    if (odd := starts < 0).any():
        row = int(odd.argmax())
        raise ValueError(f"starts[{row}] is {starts[row]}; starts must be 0 or more")
    ends = starts + counts
    if (odd := ends < 0).any():
        row = int(odd.argmax())
        raise OverflowError(f"segment {row} starts at {starts[row]} and so ends beyond int64")
    rows = np.flatnonzero(counts)  # where an empty one starts does not matter
    if (odd := starts[rows][1:] < ends[rows][:-1]).any():
        at = int(odd.argmax())
        before, row = rows[at : at + 2]
        raise ValueError(
            f"starts[{row}] is {starts[row]}, and segment {before} ends at {ends[before]}; "
            "segments must be disjoint and in order"
        )
    return int(ends.max(initial=0))


def _native_ids(starts: Int64s | None, lengths: Int64s, out: AnyArray) -> None:
    if starts is None:
        return _native.ids_from_lengths(lengths, out=out)
    rows = np.flatnonzero(lengths)
    return _native.fill_runs(starts[rows], lengths[rows], rows + 1, out=out)


def _native_positions(starts: Int64s | None, lengths: Int64s, out: AnyArray) -> None:
    if starts is None:
        return _native.positions_from_lengths(lengths, out=out)
    rows = np.flatnonzero(lengths)
    return _native.positions(starts[rows], lengths[rows], None, out=out)


def _edged(sums: Int64s, size: int | None) -> AnyArray:
    if sums[-1] > INT32_MAX:
        raise OverflowError(f"{sums[-1]} tokens are beyond int32, which attention kernels take")
    if size is not None:
        size = _check.positive("size", size)
        if size < len(sums):
            raise ValueError(f"there are {len(sums) - 1} segments, size={size} has room for {size - 1}")
        sums = np.pad(sums, (0, size - len(sums)), mode="edge")
    return sums.astype(np.int32)
