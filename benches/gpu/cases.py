"""Random layouts, rows and values."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from rollkit import Layout, Ragged

Rng = np.random.Generator

SIZES = (
    (0, 0, (2, 4)),
    (9, 9, (9,)),
    (24, 24, (2, 16)),
    (24, 17, (3, 11)),
    (90, 90, (2, 60)),
    (90, 61, (70,)),
)
"""Elements of rows, how many of them are placed, and the shape: few, since JAX compiles for each."""


def any_layout(rng: Rng) -> Layout:
    """Rows end to end, padded or packed, cut or dropped, or pieces of rows in any order."""
    lengths = rng.integers(0, rng.choice([2, 6, 20]), int(rng.integers(0, 9)))
    align = int(rng.integers(1, 4))
    kind = int(rng.integers(7))
    if kind == 0:
        return Layout.concat(lengths, align=align)
    if kind == 1:
        return Layout.pad(lengths, side=str(rng.choice(["left", "right"])), multiple_of=align)
    if kind < 5:
        how = ["alone", "truncate", "drop"][kind - 2]
        return Layout.pack(lengths, int(rng.integers(1, 24)), align=align, oversize=how)
    return of_pieces(rng, *SIZES[int(rng.integers(len(SIZES)))])


def of_pieces(rng: Rng, total: int, kept: int, shape: tuple[int, ...]) -> Layout:
    """Rows of `total` elements, of which `kept` are placed in pieces, in any order and with gaps."""
    bounds = np.sort(rng.integers(0, total + 1, int(rng.integers(0, 6))))
    rows = np.diff([0, *bounds, total])
    ends = np.cumsum(rows)
    hole = int(rng.integers(0, kept + 1))
    elements = np.delete(np.arange(total), slice(hole, hole + total - kept))
    # A piece ends where the next element is another row's, or anywhere.
    row = np.searchsorted(ends, elements, side="right")
    breaks = (np.diff(row) != 0) | (np.diff(elements) != 1) | (rng.random(max(kept - 1, 0)) < 0.15)
    cuts = np.flatnonzero(breaks) + 1
    pieces = [piece for piece in np.split(elements, cuts) if len(piece)]
    rng.shuffle(pieces)
    size, width = int(np.prod(shape)), shape[-1]
    cells = _spots(rng, [len(piece) for piece in pieces], size)
    found = []  # cut where a line ends
    for piece, start in zip(pieces, cells, strict=True):
        inside = np.arange(start, start + len(piece))
        for part in np.split(np.arange(len(piece)), np.flatnonzero(np.diff(inside // width)) + 1):
            first = int(piece[part[0]])
            of = int(np.searchsorted(ends, first, side="right"))
            begin = first - int(ends[of] - rows[of])
            found.append((int(inside[part[0]]), len(part), of, begin))
    columns = [np.array(column, np.int64) for column in zip(*found, strict=True)] or [
        np.zeros(0, np.int64)
    ] * 4
    starts, lengths, sources, begins = columns
    return Layout(shape, starts, lengths, rows, sources, begins)


def _spots(rng: Rng, lengths: list[int], size: int) -> list[int]:
    """Where pieces of these lengths start, one after the other with random gaps."""
    gaps = rng.multinomial(size - sum(lengths), np.ones(len(lengths) + 1) / (len(lengths) + 1))
    begins = np.cumsum(gaps[:-1]) + np.cumsum([0, *lengths])[: len(lengths)]
    return [int(begin) for begin in begins]


def values(rng: Rng, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Numbers all over a dtype, and of floats those that are easily lost: infinities, NaN, -0, the least."""
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    count = int(np.prod(shape))
    if dtype.kind in "iu":
        return np.frombuffer(rng.bytes(count * dtype.itemsize), dtype).reshape(shape)
    found = rng.normal(size=shape).astype(dtype)
    if dtype.kind == "c":
        return found
    odd = [np.nan, 0.0, -0.0]
    if "float8" not in dtype.name:
        odd += [np.inf, -np.inf, float(ml_dtypes.finfo(dtype).smallest_subnormal)]
    picked = rng.random(shape) < 0.1
    found[picked] = rng.choice(np.array(odd).astype(dtype), int(picked.sum()))
    return found


def rows_of(rng: Rng, layout: Layout, dtype: np.dtype[Any], inner: tuple[int, ...]) -> Ragged:
    """Rows for a layout, in a buffer that has more than they hold, before and after."""
    lengths = layout.row_lengths
    memory = values(rng, dtype, (int(lengths.sum()) + 2, *inner))
    return Ragged(memory, 1 + np.append(0, np.cumsum(lengths)))


def prefixed_rows(rng: Rng, most: int = 13, length: int = 6, tokens: int = 3) -> list[list[int]]:
    """Rows that begin alike: equal ones, empty ones, ones that others begin with."""
    rows: list[list[int]] = []
    for _ in range(int(rng.integers(1, most + 1))):
        before = rows[int(rng.integers(len(rows)))] if rows and rng.random() < 0.8 else []
        kept = int(rng.integers(0, len(before) + 1))
        rows.append([*before[:kept], *rng.integers(0, tokens, int(rng.integers(0, length))).tolist()])
    return rows


def segment_bounds(rng: Rng, width: int) -> list[int]:
    """Lengths that sum to at most `width`."""
    cuts = np.sort(rng.integers(0, width + 1, int(rng.integers(1, 6))))
    return [int(b - a) for a, b in pairwise([0, *cuts.tolist()])]


def skewed_lengths(large: bool, count: int, longest: int) -> NDArray[np.int64]:
    """Skewed lengths, one at the cap."""
    rng = np.random.default_rng(0)
    count, longest = (count, longest) if large else (8, 64)
    found: NDArray[np.int64] = np.clip(rng.lognormal(np.log(longest / 6), 0.9, count), 1, longest).astype(
        np.int64
    )
    found[0] = longest
    return found
