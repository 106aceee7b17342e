"""The O(T²) mask, what is read off it, and token arrays of every kind, to test segments against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from rollkit.segments import THD

Int32s = NDArray[np.int32]


def mask_reference(
    ids_q: ArrayLike,
    ids_kv: ArrayLike,
    positions_q: ArrayLike | None = None,
    positions_kv: ArrayLike | None = None,
    *,
    mask: str = "causal",
    window: tuple[int, int] | None = None,
) -> NDArray[np.bool_]:
    """Compare every q token with every kv token: O(T²) time and memory.

    Takes what `rollkit.segments.dense_mask` does, as NumPy arrays `[..., T]`.

    Example:
        >>> mask_reference([1, 1, 2], [1, 1, 2], [0, 1, 0], [0, 1, 0]).astype(int)
        array([[1, 0, 0],
               [1, 1, 0],
               [0, 0, 1]])
    """
    q, kv = np.asarray(ids_q), np.asarray(ids_kv)
    found: NDArray[np.bool_] = (q[..., :, None] == kv[..., None, :]) & (q[..., :, None] > 0)
    keys_q = keys_kv = None
    if positions_q is not None and positions_kv is not None:
        keys_q, keys_kv = np.asarray(positions_q, np.int64), np.asarray(positions_kv, np.int64)
    if mask == "causal_bottom_right":
        assert keys_q is not None
        assert keys_kv is not None
        keys_q, keys_kv = keys_q - run_lengths_reference(q), keys_kv - run_lengths_reference(kv)
    if mask != "padding":
        assert keys_q is not None
        assert keys_kv is not None
        found &= keys_q[..., :, None] >= keys_kv[..., None, :]
    if window is not None:
        assert keys_q is not None
        assert keys_kv is not None
        back = keys_q[..., :, None] - keys_kv[..., None, :]
        found &= (window[0] < 0) | (back <= window[0])
        found &= (window[1] < 0) | (-back <= window[1])
    return found


def run_lengths_reference(ids: ArrayLike) -> NDArray[np.int64]:
    """Count, for each token, the neighbours with its id.

    Example:
        >>> run_lengths_reference([1, 1, 0, 2])
        array([2, 2, 0, 1])
    """
    ids = np.asarray(ids)
    found: NDArray[np.int64] = (ids != 0).astype(np.int64)
    for step in (1, -1):
        same = ids != 0
        for distance in range(1, ids.shape[-1]):
            moved = np.zeros_like(ids)
            if step > 0:
                moved[..., distance:] = ids[..., :-distance]
            else:
                moved[..., :-distance] = ids[..., distance:]
            same = same & (moved == ids)
            if not same.any():
                break
            found += same
    return found


def thd_reference(
    ids_q: ArrayLike,
    ids_kv: ArrayLike,
    positions_q: ArrayLike | None = None,
    positions_kv: ArrayLike | None = None,
    *,
    mask: str = "causal",
    max_segments: int,
) -> THD:
    """`rollkit.segments.thd` with `on_reentry="te"`, by way of the O(T²) mask.

    A token counts iff its row (q) or column (kv) of the mask has an entry; then lengths are counted by
    id, and runs of tokens that count are listed by appearance, as TransformerEngine does.

    Args:
        ids_q: `[B, T]`.
        ids_kv: `[B, T_kv]`.
        positions_q: `[B, T]`.
        positions_kv: `[B, T_kv]`.
        mask: as in `thd`.
        max_segments: as in `thd`.

    Example:
        >>> ids, positions = [[1, 1, 2]], [[0, 1, 0]]
        >>> thd_reference(ids, ids, positions, positions, max_segments=2).q_offsets
        array([[ 0,  2, -1]], dtype=int32)
    """
    found = mask_reference(ids_q, ids_kv, positions_q, positions_kv, mask=mask)
    q = np.where(found.any(-1), ids_q, 0)
    kv = np.where(found.any(-2), ids_kv, 0)
    lengths = [_lengths(side, max_segments) for side in (q, kv)]
    return THD(*lengths, *(_offsets(side, max_segments) for side in (q, kv)))


def pairs_reference(ids: ArrayLike, max_segments: int) -> NDArray[np.bool_]:
    """Whether lengths (by id) and offsets (by appearance) of rows `[B, T]` pair: ids rise, up to the most.

    Example:
        >>> pairs_reference([[1, 1, 3], [2, 1, 0], [1, 0, 1], [1, 2, 9]], 8)
        array([ True, False, False, False])
    """
    pair = []
    for row in np.asarray(ids):
        changes = np.flatnonzero(np.diff(row, prepend=0))
        numbers = row[changes][row[changes] != 0]
        pair.append(bool(np.all(np.diff(numbers) > 0) and np.all(numbers <= max_segments)))
    return np.array(pair, bool)


def attended_reference(found: THD, width_q: int, width_kv: int, *, mask: str = "causal") -> NDArray[np.bool_]:
    """What a varlen kernel attends to, given lengths and offsets: `[B, width_q, width_kv]`.

    The kernel knows no positions. It takes the n-th length above zero and the n-th offset of each side,
    and within a segment lets the i-th q token attend to the first i + 1 kv tokens (causal), to the
    first i + 1 of as many as q tokens, counted from the end (bottom-right), or to all.

    Example:
        >>> found = thd_reference([[1, 1, 2]], [[1, 1, 2]], [[0, 1, 0]], [[0, 1, 0]], max_segments=2)
        >>> attended_reference(found, 3, 3).astype(int)
        array([[[1, 0, 0],
                [1, 1, 0],
                [0, 0, 1]]])
    """
    rows = len(found.q_seqlens)
    out = np.zeros((rows, width_q, width_kv), bool)
    for row in range(rows):
        sides = [
            (lengths[row][lengths[row] > 0], offsets[row][offsets[row] >= 0])
            for lengths, offsets in (
                (found.q_seqlens, found.q_offsets),
                (found.kv_seqlens, found.kv_offsets),
            )
        ]
        (q_lengths, q_offsets), (kv_lengths, kv_offsets) = sides
        for n, m, i, j in zip(q_lengths, kv_lengths, q_offsets, kv_offsets, strict=True):
            shift = m - n if mask == "causal_bottom_right" else 0
            block = np.ones((n, m), bool) if mask == "padding" else np.tri(n, m, shift, bool)
            out[row, i : i + n, j : j + m] |= block
    return out


def _lengths(ids: NDArray[Any], max_segments: int) -> Int32s:
    one_hot = ids[..., None] == np.arange(1, max_segments + 1)
    found: Int32s = one_hot.sum(-2, dtype=np.int32)
    return found


def _offsets(ids: NDArray[Any], max_segments: int) -> Int32s:
    out = np.full((len(ids), max_segments + 1), -1, np.int32)
    before = np.zeros_like(ids)
    before[:, 1:] = ids[:, :-1]
    rows, starts = np.nonzero((ids != before) & (ids != 0))
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank <= max_segments
    out[rows[kept], rank[kept]] = starts[kept]
    return out


class Case(NamedTuple):
    """Tokens of both sides, each `[T]`."""

    ids_q: Any
    ids_kv: Any
    positions_q: Any
    positions_kv: Any


def _packed(rng: Generator, width: int, *, pad: float = 0.3, most: int = 6, hole: float = 0.0) -> Any:
    """One row: ids that rise from 1, positions that count through holes, padding in between."""
    ids, positions = np.zeros(width, np.int64), np.zeros(width, np.int64)
    at = 0
    for number in range(1, most + 1):
        at += int(rng.integers(0, 4)) if rng.random() < pad else 0
        length = int(rng.integers(1, max(2, 2 * width // most)))
        length = min(length, width - at)
        if length <= 0:
            break
        ids[at : at + length] = number
        positions[at : at + length] = np.arange(length)
        at += length
    ids[rng.random(width) < hole] = 0
    return ids, positions


def _self(rng: Generator, width: int, **options: Any) -> Case:
    ids, positions = _packed(rng, width, **options)
    return Case(ids, ids, positions, positions)


def _cross(rng: Generator, width: int, **options: Any) -> Case:
    ids_q, positions_q = _packed(rng, width, **options)
    ids_kv, positions_kv = _packed(rng, width, **options)
    return Case(ids_q, ids_kv, positions_q, positions_kv)


def _renumbered(case: Case, numbers: NDArray[Any]) -> Case:
    table = np.concatenate([[0], numbers])
    return case._replace(ids_q=table[case.ids_q], ids_kv=table[case.ids_kv])


def _permuted(rng: Generator, case: Case) -> Case:
    return _renumbered(case, rng.permutation(np.arange(1, 13)))


def _sparse(rng: Generator, case: Case) -> Case:
    return _renumbered(case, np.sort(rng.choice(np.arange(1, 15), 12, replace=False)))


def _reused(rng: Generator, case: Case) -> Case:
    return _renumbered(case, rng.integers(1, 4, 12))


def _striped(rng: Generator, width: int, stripe: int) -> Case:
    cp = int(rng.choice([2, 4, 8]))
    owner = np.arange(width * cp) // stripe % cp
    return _ring(rng, width, cp, owner)


def _dual_chunk(rng: Generator, width: int) -> Case:
    cp = int(rng.choice([2, 4, 8]))
    chunk = np.arange(width * cp) // (width // 2)
    return _ring(rng, width, cp, np.minimum(chunk, 2 * cp - 1 - chunk))


def _ring(rng: Generator, width: int, cp: int, owner: NDArray[Any]) -> Case:
    ids, positions = _packed(rng, width * cp, pad=float(rng.choice([0.0, 0.5])))
    if rng.random() < 0.5:  # positions that go on in padding
        positions = np.where(ids == 0, np.arange(len(ids)), positions)
    r, s = rng.integers(0, cp, 2)
    return Case(ids[owner == r], ids[owner == s], positions[owner == r], positions[owner == s])


def _zigzag(rng: Generator, width: int) -> Case:
    """Each segment, padded to 2·cp, is dealt in chunks 0 … 2·cp - 1, two to a rank."""
    cp = int(rng.choice([2, 4, 8]))
    shards = [(np.zeros(width, np.int64), np.zeros(width, np.int64)) for _ in range(2)]
    ranks = rng.integers(0, cp, 2)
    at = 0
    for number in range(1, 7):
        chunk = int(rng.integers(1, max(2, width // 8)))
        if at + 2 * chunk > width:
            break
        length = int(rng.integers(max(1, 2 * cp * (chunk - 1)), 2 * cp * chunk + 1))
        for (ids, positions), rank in zip(shards, ranks, strict=True):
            chunks = [np.arange(c * chunk, (c + 1) * chunk) for c in (rank, 2 * cp - 1 - rank)]
            whole = np.concatenate(chunks)
            ids[at : at + 2 * chunk] = np.where(whole < length, number, 0)
            positions[at : at + 2 * chunk] = whole
        at += 2 * chunk
    (ids_q, positions_q), (ids_kv, positions_kv) = shards
    return Case(ids_q, ids_kv, positions_q, positions_kv)


def _longer_kv(rng: Generator, width: int) -> Case:
    """Every segment has at least as many kv tokens as q tokens."""
    sides = [[np.zeros(width, np.int64), np.zeros(width, np.int64)] for _ in range(2)]
    at = [0, 0]
    for number in range(1, 7):
        n = int(rng.integers(1, 5))
        for side, length in enumerate((n, n + int(rng.integers(0, 3)))):
            at[side] += int(rng.integers(0, 2))
            length = min(length, width - at[side])
            sides[side][0][at[side] : at[side] + length] = number
            sides[side][1][at[side] : at[side] + length] = np.arange(length)
            at[side] += length
    return Case(sides[0][0], sides[1][0], sides[0][1], sides[1][1])


def _anything(rng: Generator, width: int) -> Case:
    ids = rng.integers(0, 9, (2, width))
    positions = rng.integers(-40, 40, (2, width))
    return Case(*ids, *positions)


def _empty(rng: Generator, width: int) -> Case:
    case = _cross(rng, width)
    return case._replace(**{str(rng.choice(["ids_q", "ids_kv"])): np.zeros(width, np.int64)})


CASES: dict[str, Callable[[Generator, int], Case]] = {
    "self, full": lambda rng, width: _self(rng, width, pad=0.0, most=8),
    "self, padding between": _self,
    "self, sparse ids": lambda rng, width: _sparse(rng, _self(rng, width)),
    "self, holes": lambda rng, width: _self(rng, width, hole=0.15),
    "self, ids permuted": lambda rng, width: _permuted(rng, _self(rng, width)),
    "self, ids repeated": lambda rng, width: _reused(rng, _self(rng, width)),
    "self, too many segments": lambda rng, width: _self(rng, width, most=12),
    "cross": _cross,
    "cross, longer kv": _longer_kv,
    "cross, holes": lambda rng, width: _cross(rng, width, hole=0.15),
    "cross, ids permuted": lambda rng, width: _permuted(rng, _cross(rng, width)),
    "cross, ids repeated": lambda rng, width: _reused(rng, _cross(rng, width)),
    "cross, too many segments": lambda rng, width: _cross(rng, width, most=12),
    "ring, striped 1": lambda rng, width: _striped(rng, width, 1),
    "ring, striped 4": lambda rng, width: _striped(rng, width, 4),
    "ring, dual chunk": _dual_chunk,
    "ring, zigzag": _zigzag,
    "empty side": _empty,
    "anything": _anything,
}
"""What token arrays look like in practice, and beyond: a name and how to draw one."""


def thd_cases(name: str, count: int, seed: int = 0, width: int = 32) -> Case:
    """Draw `count` cases of one of `CASES`, from a seed: each field is `[count, width]` int64.

    Example:
        >>> thd_cases("ring, striped 1", 5).ids_q.shape
        (5, 32)
    """
    rng = np.random.default_rng([seed, list(CASES).index(name)])
    drawn = [CASES[name](rng, width) for _ in range(count)]
    return Case(*(np.stack(field) for field in zip(*drawn, strict=True)))
