"""Segment ids from lengths, running sums and positions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check, _native
from rollkit._arrays.ops import ops
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray, framework_of
from rollkit.segments import _device
from rollkit.segments._tokens import Tokens, on_host, rewrapped, tokens

PADDING_RULES = ("none", "trailing", "zeros")


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
        mask = (
            rewrapped(_check.host("padding", padding), positions)
            if framework_of(padding) is None
            else padding
        )
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


def _from_lengths(native: Any, device: Any, lengths: Any, starts: Any, total: int | None) -> Any:
    framework = framework_of(lengths)
    if framework is not None and not ops(framework).is_host(lengths):
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
