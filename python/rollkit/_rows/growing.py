"""Rows that are appended to, in amortised time: `Growing`."""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np

from rollkit._frameworks import AnyArray

# Memory that nothing was written to is address space alone, so that much of it can be reserved: rows are
# then mostly written once. Beyond the limit, which is in bytes, memory doubles.
_FACTOR: Final = 32
_LIMIT: Final = 1 << 28


class Growing:
    """Rows `[length, *inner]` with room for more after them."""

    def __init__(self, dtype: np.dtype[Any], inner: tuple[int, ...], capacity: int = 0) -> None:
        self._buffer: AnyArray = np.empty((capacity, *inner), dtype)
        self.length = 0

    @classmethod
    def over(cls, rows: AnyArray) -> Growing:
        """A copy of some rows, to be appended to."""
        growing = cls(rows.dtype, rows.shape[1:], len(rows))
        growing.length = len(rows)
        growing.rows[...] = rows
        return growing

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows."""
        return self._buffer.dtype

    @property
    def inner(self) -> tuple[int, ...]:
        """The shape of one row."""
        return self._buffer.shape[1:]

    @property
    def rows(self) -> AnyArray:
        """A view of the rows, until there are more."""
        return self._buffer[: self.length]

    def room(self, count: int) -> AnyArray:
        """Memory for `count` more rows, which are there once `length` counts them."""
        if self.length + count > len(self._buffer):
            needed = self.length + count
            limit = _LIMIT // max(prod(self.inner) * self.dtype.itemsize, 1)
            self._move(min(_FACTOR * needed, max(2 * needed, limit)), self.dtype)
        return self._buffer[self.length : self.length + count]

    def widen(self, dtype: np.dtype[Any]) -> None:
        """Change the dtype to one that holds all values of this one."""
        if dtype != self.dtype:
            self._move(len(self._buffer), dtype)

    def finish(self) -> AnyArray:
        """Give the rows away, without the room after them."""
        try:
            self._buffer.resize((self.length, *self.inner))  # in place
        except ValueError:  # something, such as a traceback, has a view of it
            return self.rows.copy()
        return self._buffer

    def _move(self, capacity: int, dtype: np.dtype[Any]) -> None:
        buffer = np.empty((capacity, *self.inner), dtype)
        buffer[: self.length] = self.rows
        self._buffer = buffer

    def __getstate__(self) -> tuple[AnyArray, int]:
        return self.rows, self.length

    def __setstate__(self, state: tuple[AnyArray, int]) -> None:
        self._buffer, self.length = state
