"""Rollouts of one task: `Groups`, and what is computed per group."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollkit import _check, _native
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray

Float64s = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Groups:
    """Which rows belong together, and statistics of their values.

    Attributes:
        keys: what the rows of each group share, in order of first appearance.
        rows: `[rows]` int64: row numbers, group after group, in input order within one.
        offsets: `[groups + 1]` int64: group `g` is `rows[offsets[g]:offsets[g + 1]]`.

    Example:
        >>> groups = Groups.by(["a", "b", "a"])
        >>> groups
        Groups(2 groups of 3 rows)
        >>> groups.rows.tolist(), groups.offsets.tolist(), groups.ids.tolist()
        ([0, 2, 1], [0, 2, 3], [0, 1, 0])
        >>> groups.mean([1.0, 5.0, 2.0])
        array([1.5, 5. ])
    """

    keys: list[Any]
    rows: Int64s
    offsets: Int64s

    @classmethod
    def by(cls, entries: Sequence[Hashable] | AnyArray, *, called: str = "entries") -> Groups:
        """Group rows that have equal entries.

        Args:
            entries: one per row.
            called: the argument that has them, for errors.

        Raises:
            TypeError: an entry has no hash, such as a list.
        """
        entries = _check.entries(called, entries)
        numbers: dict[Hashable, int] = {}
        try:
            ids = np.array([numbers.setdefault(entry, len(numbers)) for entry in entries], np.int64)
        except TypeError:
            row, entry = next((i, entry) for i, entry in enumerate(entries) if not _hashable(entry))
            raise TypeError(
                f"{called}[{row}] is {type(entry).__name__}, which cannot be grouped by; give one number, "
                "text or other hashable object per row"
            ) from None
        counts = np.bincount(ids, minlength=len(numbers)).astype(np.int64)
        return cls(list(numbers), np.argsort(ids, kind="stable"), _native.offsets_from_lengths(counts))

    @property
    def sizes(self) -> Int64s:
        """`[groups]` int64: the rows of each group."""
        return np.diff(self.offsets)

    @property
    def ids(self) -> Int64s:
        """`[rows]` int64: the group of each row."""
        ids = np.empty_like(self.rows)
        ids[self.rows] = np.repeat(np.arange(len(self)), self.sizes)
        return ids

    def sum(self, values: ArrayLike) -> Float64s:
        """`[groups]` float64: the sum of each group's values."""
        found = self._values(values)
        return np.bincount(self.ids, weights=found, minlength=len(self)).astype(np.float64, copy=False)

    def mean(self, values: ArrayLike) -> Float64s:
        """`[groups]` float64: the mean of each group's values."""
        return self.sum(values) / self.sizes

    def std(self, values: ArrayLike, *, ddof: int = 0) -> Float64s:
        """`[groups]` float64: the standard deviation of each group's values; 0 where too few.

        Args:
            values: `[rows]` numbers.
            ddof: 0 divides by the group's size, 1 by one less.
        """
        ddof = _check.positive("ddof", ddof, least=0)
        found = self._values(values)
        ids = self.ids
        found = found - found[self.rows[self.offsets[:-1]]][ids]  # so that equal values are exactly 0
        scale = self._scale(found)  # whose squares neither overflow nor vanish
        found = found / scale[ids]
        squares = self.sum((found - self.mean(found)[ids]) ** 2)
        deviations: Float64s = np.sqrt(squares / np.maximum(self.sizes - ddof, 1)) * scale
        return deviations

    def _scale(self, values: Float64s) -> Float64s:
        """`[groups]`: a power of two near the largest of each group's values, so that no digit is lost."""
        most = np.maximum.reduceat(np.abs(values)[self.rows], self.offsets[:-1])  # no group is empty
        found: Float64s = np.ldexp(1.0, np.clip(np.frexp(most)[1], -1000, 1000))
        return found

    def _values(self, values: ArrayLike) -> Float64s:
        found = _check.floats("values", values)
        if found.shape != self.rows.shape:
            raise ValueError(f"values must be one per row, {len(self.rows)}, got shape {found.shape}")
        return found

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"Groups({len(self):,} groups of {len(self.rows):,} rows)"


def _hashable(entry: Any) -> bool:
    try:
        hash(entry)
    except TypeError:
        return False
    return True
