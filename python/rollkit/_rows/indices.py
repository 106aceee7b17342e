"""Selections of rows: numbers, or a bool each."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rollkit._check import Int64s, host, int64s


def row_indices(indices: ArrayLike, count: int, name: str = "indices") -> Int64s:
    """Return row numbers of an int or bool selection, negative ones counted from the end."""
    found = host(name, indices)
    if found.dtype == bool:
        if found.shape != (count,):
            raise ValueError(f"a bool selection needs one entry per row: {count}, got {found.shape}")
        return np.flatnonzero(found)
    rows = int64s(name, indices)
    outside = (rows < -count) | (rows >= count)
    if outside.any():
        raise IndexError(f"row {rows[outside][0]} is out of range: there are {count} rows")
    return np.where(rows < 0, rows + count, rows)
