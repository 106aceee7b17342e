"""The key of a draw, (seed, position), and the constants of the hash that it keys: see `noise`."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit._check import host, int64s
from rollkit._frameworks import as_array

Int64s = NDArray[np.int64]

BITS: Final = 23
"""Bits of a uniform. With 24, (n + ½) would need 25 bits and round to 1.0 in float32."""

STARTS: Final = (0x243F6A88, 0xB7E15163)
SPREAD: Final = 0x9E3779B9
MULTIPLIERS: Final = (0x85EBCA6B, 0xC2B2AE35)
MASK: Final = 0xFFFFFFFF
POSITIONS: Final = 2**31


def host_keys(seeds: Any, positions: Any, rows: int | None) -> tuple[Int64s, Int64s]:
    """Return `[rows]` int64 seeds and positions; the longer of the two says `rows` if it is `None`."""
    seed, position = as_seeds(seeds), as_positions(positions)
    rows = max(len(seed), len(position)) if rows is None else rows
    check_rows(rows, seed, position)
    return _filled(rows, seed), _filled(rows, position)


def check_rows(rows: int, seeds: Any, positions: Any) -> None:
    """Refuse seeds or positions of another number than one, or one per row."""
    for name, found in (("seeds", seeds), ("positions", positions)):
        shape = tuple(found.shape) if hasattr(found, "shape") else np.shape(found)
        if shape not in ((), (1,), (rows,)):
            raise ValueError(f"{name} must be one int or [{rows}], one per row, got shape {shape}")


def as_seeds(seeds: Any) -> Int64s:
    """Return seeds on the host as int64, those above 2⁶³ as their two's complement."""
    found = np.atleast_1d(host("seeds", seeds))
    if not found.size:
        found = found.astype(np.int64)  # NumPy makes float64 of an empty list
    if found.dtype.kind not in "iu" or found.ndim != 1:
        raise TypeError(f"seeds must be 64-bit ints, one or [rows], got {found.dtype} of shape {found.shape}")
    return found.astype(np.int64, copy=False)


def as_positions(positions: Any) -> Int64s:
    """Return positions on the host as int64, in range."""
    given = as_array(positions)
    found = int64s("positions", np.atleast_1d(given) if host("positions", given).ndim == 0 else given)
    if found.size and (found.min() < 0 or found.max() >= POSITIONS):
        raise ValueError(f"positions must be 0 to 2**31 - 1, got {found.min()} to {found.max()}")
    return found


def _filled(rows: int, value: Int64s) -> Int64s:
    if len(value) == rows and value.flags.c_contiguous and value.flags.aligned:
        return value
    out = np.empty(rows, np.int64)
    out[...] = value
    return out
