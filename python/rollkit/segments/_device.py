"""Segment algorithms on device arrays, eager or traced: O(T), with fixed shapes, and no synchronisation.

Each takes the operations of a framework and `[rows, width]` ids. Ids below 0 count as padding.
"""

from __future__ import annotations

from typing import Any

from rollkit._arrays.ops import Ops


def first_of_runs(ops: Ops, ids: Any) -> Any:
    """Whether a token is the first of its run."""
    return (ids != ops.shift(ids)) & (ids > 0)


def seqlens(ops: Ops, ids: Any, *, max_segments: int) -> Any:
    """Tokens by id; see `rollkit.segments.seqlens`."""
    return _counts(ops, ops.within(ids, max_segments), max_segments)


def offsets(ops: Ops, ids: Any, *, max_segments: int) -> Any:
    """Starts by appearance; see `rollkit.segments.offsets`."""
    found = ops.nth(first_of_runs(ops, ids), max_segments + 1)
    return ops.where(found == ids.shape[1], -1, found)


def positions(ops: Ops, ids: Any) -> Any:
    """0, 1, 2, … within each run."""
    return ops.where(ids > 0, ops.arange(ids.shape[1], ids)[None] - _run_starts(ops, ids), 0)


def run_lengths(ops: Ops, ids: Any) -> Any:
    """The length of each token's run, 0 in padding."""
    ends = ids.shape[1] - ops.flip(_run_starts(ops, ops.flip(ids)))
    return ops.where(ids > 0, ends - _run_starts(ops, ids), 0)


def thd(
    ops: Ops,
    ids_q: Any,
    ids_kv: Any,
    positions_q: Any,
    positions_kv: Any,
    *,
    mask: str,
    max_segments: int,
) -> tuple[Any, Any, Any, Any]:
    """Lengths and offsets of what attends and is attended to; see `rollkit.segments.thd`."""
    known = max(max_segments + 1, ids_q.shape[1], ids_kv.shape[1])
    ids_q, ids_kv = ops.within(ids_q, known), ops.within(ids_kv, known)
    keys_q, keys_kv = _keys(ops, ids_q, positions_q, mask), _keys(ops, ids_kv, positions_kv, mask)
    lowest = ops.table_min(known + 1, ids_kv, keys_kv)
    highest = ops.table_max(known + 1, ids_q, keys_q)
    # Padding has a column too; it stays 0, whatever comes out. Times is faster than where in torch.
    # Bounds alone do not tell a segment that the other side has not from keys as far out as they can be.
    there_q, there_kv = (ops.present(known + 1, ids) for ids in (ids_q, ids_kv))
    asking = ids_q * ((keys_q >= ops.look_up(lowest, ids_q)) & ops.look_up(there_kv, ids_q))
    asked = ids_kv * ((keys_kv <= ops.look_up(highest, ids_kv)) & ops.look_up(there_q, ids_kv))
    return (
        _counts(ops, asking, max_segments),
        _counts(ops, asked, max_segments),
        offsets(ops, asking, max_segments=max_segments),
        offsets(ops, asked, max_segments=max_segments),
    )


def thd_self(ops: Ops, ids: Any, *, max_segments: int) -> tuple[Any, Any, Any, Any]:
    """`thd` where every token attends to itself, at least."""
    found = seqlens(ops, ids, max_segments=max_segments)
    starts = offsets(ops, ids, max_segments=max_segments)
    return found, found, starts, starts


def _counts(ops: Ops, ids: Any, max_segments: int) -> Any:
    return ops.count(max_segments + 1, ids)[:, 1:]


def _keys(ops: Ops, ids: Any, found: Any, mask: str) -> Any:
    if mask == "padding":
        return ops.zeros(ids.shape, ids)
    if mask == "causal":
        return ops.signed(found)
    keys = ops.wide(found)
    moved = keys - run_lengths(ops, ids)
    return ops.where(moved <= keys, moved, -(2 ** (8 * keys.dtype.itemsize - 1)))  # no key wraps


def _run_starts(ops: Ops, ids: Any) -> Any:
    """Where each token's stretch of equal ids begins; -1 in padding that a row begins with."""
    return ops.latest(ids != ops.shift(ids))


def ids_from_lengths(ops: Ops, lengths: Any, *, total: int) -> Any:
    """Segment ids of segments that follow each other; see `rollkit.segments.segment_ids`."""
    ends = ops.cumsum(ops.int32(lengths)[None])
    index = ops.arange(total, lengths)
    # The segment of a token is after all that end at it or before.
    found = ops.search(ends, index + 1)[0] + 1
    return ops.where(found <= lengths.shape[0], found, 0)


def positions_from_lengths(ops: Ops, lengths: Any, *, total: int) -> Any:
    """Positions of segments that follow each other."""
    if not lengths.shape[0]:
        return ops.zeros((total,), lengths)
    ends = ops.cumsum(ops.int32(lengths)[None])
    index = ops.arange(total, lengths)
    found = ops.search(ends, index + 1)[0]
    starts = ops.shift(ends)[0]
    inside = found < lengths.shape[0]
    return ops.where(inside, index - starts[ops.where(inside, found, 0)], 0)


def from_positions(ops: Ops, found: Any, mask: Any = None, *, rule: str) -> Any:
    """Segment ids; see `rollkit.segments.from_positions`."""
    width = found.shape[1]
    index = ops.arange(width, found)[None]
    before = ops.shift(found)
    # Of unsigned positions too: 0 is not one above the largest, nor is a difference that wraps 1.
    begins = ~((found > before) & (found - before == 1)) | (index == 0)
    if rule == "none":
        real = index >= 0
    elif rule == "mask":
        real = mask != 0
        begins = begins | ~(ops.shift(ops.int32(real)) > 0)
    elif rule == "zeros":
        real = (found != 0) | (ops.flip(ops.shift(ops.flip(found))) == 1)
    else:
        real = index <= ops.latest(found != 0)[:, -1:]
    return ops.where(real, ops.rank(begins & real), 0)


def dense_mask(
    ops: Ops,
    ids_q: Any,
    ids_kv: Any,
    positions_q: Any,
    positions_kv: Any,
    *,
    mask: str,
    window: tuple[int, int] | None,
) -> Any:
    """Every pair of tokens; see `rollkit.segments.dense_mask`."""
    seen = (ids_q[:, :, None] == ids_kv[:, None, :]) & (ids_q[:, :, None] > 0)
    left, right = window or (-1, -1)
    if mask == "padding" and left < 0 and right < 0:
        return seen
    keys = []
    for ids, found in ((ids_q, positions_q), (ids_kv, positions_kv)):
        found = ops.arange(ids.shape[1], ids)[None] if found is None else found
        keys.append(_keys(ops, ids, found, "causal" if mask == "padding" else mask))
    q, kv = keys[0][:, :, None], keys[1][:, None, :]
    if mask != "padding":
        seen = seen & (q >= kv)
    if left >= 0:
        seen = seen & _near(kv, q, left)
    if right >= 0:
        seen = seen & _near(q, kv, right)
    return seen


def _near(before: Any, after: Any, most: int) -> Any:
    """Whether `after` is at most so far after `before`, or before it."""
    apart = after - before
    reach = min(most, 2 ** (8 * apart.dtype.itemsize - 1) - 1)
    return (after <= before) | ((apart >= 0) & (apart <= reach))  # below 0, the difference has wrapped
