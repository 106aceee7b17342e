"""Lengths and offsets for attention between two token arrays: `thd`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rollkit import _check, _native
from rollkit.segments import _device
from rollkit.segments._runs import DESCRIBED, Runs, ids_of, positions_of, runs
from rollkit.segments._tokens import Tokens, check_segments, room_for, same_shape, tokens, unreadable

MASKS = ("causal", "causal_bottom_right", "padding")


class THD(NamedTuple):
    """What varlen attention kernels take, in TransformerEngine's layout; a pytree.

    Attributes:
        q_seqlens: `[B, S]` int32, tokens that attend, by id from 1; 0 where there are none.
        kv_seqlens: `[B, S]` int32, tokens that are attended to, likewise.
        q_offsets: `[B, S + 1]` int32, where the runs of such tokens start, by appearance; -1 is unused.
        kv_offsets: `[B, S + 1]` int32, likewise.
    """

    q_seqlens: Any
    kv_seqlens: Any
    q_offsets: Any
    kv_offsets: Any


def thd(
    ids_q: Any,
    ids_kv: Any = None,
    *,
    positions_q: Any = None,
    positions_kv: Any = None,
    mask: str = "causal",
    window: tuple[int, int] | None = None,
    max_segments: int,
    on_reentry: str = "raise",
    validate: bool | None = None,
) -> THD:
    """Find the tokens that attend to anything, and those that anything attends to, as lengths and offsets.

    A q token counts iff the mask lets it attend to some kv token of its segment, and a kv token iff some
    q token attends to it. That is what an O(T²) mask would say (`rollkit.testing.thd_reference`), for
    every pattern of ids and positions: padding anywhere, shards of context parallelism in any order,
    cross-attention. It takes O(T): a q token counts iff its key is at least the smallest kv key of its
    segment, a kv token iff its key is at most the largest q key. Keys are positions (causal), positions
    less the length of the token's run (bottom-right), or equal (padding).

    Make it once per batch (and ring step), and hand it to every layer.

    Args:
        ids_q: `[T]` or `[B, T]` integers, NumPy, torch or JAX: 0 is padding, segments are positive. Or
            `Runs`, a `Layout` or a `Batch`, which bring positions, too; what follows from them alone is
            found on the host.
        ids_kv: `[T_kv]` or `[B, T_kv]`, or one of those; None for self-attention, where every token
            attends to itself and so counts: positions and mask are not needed.
        positions_q: shaped as `ids_q`, the position within the segment. A shard keeps the positions that
            its tokens have in the whole. Not needed for `mask="padding"`.
        positions_kv: shaped as `ids_kv`.
        mask: `"causal"` (keys at the token's position or before), `"causal_bottom_right"` (positions
            counted from the end of each run), `"padding"` (all keys of the segment).
        window: the attention's sliding window, (left, right), -1 for none. It changes nothing here, as
            in TransformerEngine: the kernel applies it to the segments that these arrays describe.
        max_segments: S, the segments that a row has room for.
        on_reentry: what to do when lengths (by id) and offsets (by appearance) do not pair: ids do not
            rise along a row, an id comes again after a hole, or one is beyond `max_segments`. `"raise"`,
            or `"te"`: TransformerEngine's arithmetic, in which such ids have no length, and runs beyond
            S + 1 no offset.
        validate: whether to check ids for that. None: where it costs no synchronisation, which is in
            memory of the host. True: on a device too, by way of a copy to the host. False: nowhere.
            Ids below 0 are refused in memory of the host all the same. Unchecked on a device, they are
            padding, and so are those above both S + 1 and T.

    Returns:
        `THD` of the arguments' framework; without a batch axis if they have none.

    Raises:
        TypeError: arrays of two frameworks, or no integers; or `validate=True` under `jit`.
        ValueError: shapes disagree; positions are missing; ids do not pair, or are negative.
        OverflowError: a row has more tokens than an int32 counts.

    Example:
        Rank 1 of 2 asks rank 0, tokens dealt in turns; all but each segment's last key are seen:

        >>> ids = [1, 1, 1, 2, 2, 0]
        >>> q = [0, 2, 4, 0, 2, 0]
        >>> kv = [1, 3, 5, 1, 3, 0]
        >>> found = thd(ids, ids, positions_q=q, positions_kv=kv, max_segments=3)
        >>> found.q_seqlens, found.q_offsets
        (array([2, 1, 0], dtype=int32), array([ 1,  4, -1, -1], dtype=int32))
        >>> found.kv_seqlens, found.kv_offsets
        (array([2, 1, 0], dtype=int32), array([ 0,  3, -1, -1], dtype=int32))

    References:
        The layout and the arithmetic of `on_reentry="te"`: TransformerEngine, `transformer_engine.jax`
        (`_get_seqlens_and_offsets`), and its pull request 2522.
    """
    max_segments = _check.positive("max_segments", max_segments)
    _check.choice("mask", mask, MASKS)
    _check.choice("on_reentry", on_reentry, ("raise", "te"))
    checked_window(window)
    check_segments("ids_q", ids_q)
    check_segments("ids_kv", ids_kv)
    pair = on_reentry == "raise" and validate is not False
    if ids_kv is None:
        if positions_kv is not None:
            raise ValueError("positions_kv is given without ids_kv; pass ids_kv, or neither")
        if isinstance(ids_q, DESCRIBED) and positions_q is None:
            described = runs(ids_q)
            if not pair or described._pairs(max_segments):
                return _of_runs(described, max_segments)
        found = tokens(ids_q=ids_of(ids_q), positions_q=positions_q)
        same_shape("positions_q", found.arrays[1], "ids_q", found.arrays[0])
        room_for(max_segments, found.arrays[0].shape[-1])
        return _finish(found, _self(found, max_segments, pair, validate))
    if mask == "padding":
        positions_q, positions_kv = None, None
    else:
        positions_q, positions_kv = positions_of(ids_q, positions_q), positions_of(ids_kv, positions_kv)
        if positions_q is None or positions_kv is None:
            missing = "positions_q" if positions_q is None else "positions_kv"
            raise ValueError(
                f"{missing} is missing: mask={mask!r} between two arrays compares positions; pass them "
                "(rollkit.segments.positions makes them where every segment is whole)"
            )
    found = tokens(
        ids_q=ids_of(ids_q), ids_kv=ids_of(ids_kv), positions_q=positions_q, positions_kv=positions_kv
    )
    same_shape("positions_q", found.arrays[2], "ids_q", found.arrays[0])
    same_shape("positions_kv", found.arrays[3], "ids_kv", found.arrays[1])
    room_for(max_segments, found.arrays[0].shape[-1])
    return _finish(found, _both(found, mask, max_segments, pair, validate))


def checked_window(window: Any) -> tuple[int, int] | None:
    """Return (left, right), -1 for no bound."""
    if window is None:
        return None
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise ValueError(f"window must be (left, right), got {window!r}; -1 is no bound")
    left, right = window
    return _check.positive("window[0]", left, least=-1), _check.positive("window[1]", right, least=-1)


def _of_runs(found: Runs, max_segments: int) -> THD:
    lengths, starts = found.seqlens(max_segments), found.offsets(max_segments)
    return THD(lengths, lengths, starts, starts)


def _self(found: Tokens, max_segments: int, pair: bool, validate: bool | None) -> Any:
    ids = found.arrays[0]
    if found.host or validate:
        host = ids if found.host else _copied(found)[0]
        lengths, starts = _native.seqlens_and_offsets(
            host, name="ids_q", max_segments=max_segments, pair=pair
        )
    if found.host:
        return lengths, lengths, starts, starts
    return found.ops.run(_device.thd_self, ids, max_segments=max_segments)


def _both(found: Tokens, mask: str, max_segments: int, pair: bool, validate: bool | None) -> Any:
    if found.host:
        return _native_thd(found.arrays, mask, max_segments, pair)
    if validate:
        _native_thd(_copied(found), mask, max_segments, pair)
    return found.ops.run(_device.thd, *found.arrays, mask=mask, max_segments=max_segments)


def _native_thd(arrays: list[Any], mask: str, max_segments: int, pair: bool) -> Any:
    ids_q, ids_kv, *positions = arrays
    positions = [None if p is None else _comparable(p) for p in positions]
    return _native.thd(ids_q, ids_kv, *positions, mask=mask, max_segments=max_segments, pair=pair)


def _comparable(positions: Any) -> Any:
    """Positions as int32 or int64, which the kernel compares."""
    return positions if positions.dtype in (np.int32, np.int64) else positions.astype(np.int64)


def _copied(found: Tokens) -> list[Any]:
    """The arrays of a device, to be checked as those of the host are."""
    if found.traced:
        raise unreadable("validate=True", "check the ids outside, or pass validate=False")
    return [
        None if array is None else np.ascontiguousarray(found.ops.to_host(array)) for array in found.arrays
    ]


def _finish(found: Tokens, arrays: Any) -> THD:
    if found.host:
        arrays = [found.wrap(array) for array in arrays]
    return THD(*(arrays if found.batched else [array[0] for array in arrays]))
