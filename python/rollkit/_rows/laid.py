"""Rows that are laid in an output: what `place` writes of them, and where `take` reads each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from rollkit import _native
from rollkit._arrays.ops import Ops
from rollkit._check import Int64s
from rollkit._frameworks import framework_of

if TYPE_CHECKING:
    from rollkit._rows.layout import Layout


def counted(starts: Int64s, lengths: Int64s) -> Int64s:
    """For each start it and the numbers after it, as many as its length; one after the other.

    Example:
        >>> counted(np.array([5, 0]), np.array([2, 3]))
        array([5, 6, 0, 1, 2])
    """
    if len(lengths) and lengths[0] == lengths[-1] and (lengths == lengths[0]).all():  # stripes, blocks
        found: Int64s = (starts[:, None] + np.arange(lengths[0])).reshape(-1)
        return found
    ends = _native.offsets_from_lengths(lengths)
    found = np.repeat(starts - ends[:-1], lengths)
    found += np.arange(ends[-1])
    return found


def kept(cache: dict[Any, Any], make: Callable[[], Int64s], own: Ops, like: Any) -> Any:
    """What `make` returns, on the framework and device of `like`; made once for each."""
    if own.is_traced(like):
        return own.from_host(make(), like)
    key = (framework_of(like), str(getattr(like, "device", None)))
    if (found := cache.get(key)) is not None:
        return found
    made = own.from_host(make(), like)
    if not own.is_traced(made):  # under `jit`, also what is made for an array with values is traced
        cache[key] = made
    return made


class Laid:
    """What `place` and `take` ask: a `Layout`, whose pieces are both, or a `TreeLayout`, which shares some.

    Attributes:
        shape: that of the output.
    """

    shape: tuple[int, ...]

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def written(self) -> Layout:
        """The layout that `place` writes by: each element of the output is of one piece, or of none."""
        raise NotImplementedError

    def reads(self) -> tuple[Int64s, Int64s]:
        """What `take` copies, row after row: where each span is, and its length."""
        raise NotImplementedError

    def row_offsets(self, ends: Int64s | None = None) -> Int64s:
        """`[rows + 1]` int64: where rows begin once `take` has copied them.

        Args:
            ends: where the spans of `reads` begin then, if that is known.
        """
        raise NotImplementedError

    def edges(self, where: Any = None) -> tuple[Any, Any]:
        """Where each token is that has a predecessor in its row, and where that is; see `Layout.edges`."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """The elements of the output."""
        return prod(self.shape)

    @property
    def width(self) -> int:
        """The elements of a line: of a bin, of a padded row, of the whole stream."""
        return self.shape[-1]

    def is_end_to_end(self) -> bool:
        """Whether the output is the rows themselves, one after the other from its beginning on."""
        begins, lengths = self.reads()
        ends = _native.offsets_from_lengths(lengths)[:-1]
        return bool(((begins == ends) | (lengths == 0)).all())

    def gather_indices(self) -> Int64s:
        """`[sum(lengths)]` int64: the flat position of every element, row after row.

        What `take` does with memory, a differentiable gather does with these on any device:
        `output.flatten(0, 1)[indices]`.

        Example:
            >>> from rollkit import Layout
            >>> Layout.pad([2, 1]).gather_indices()
            array([0, 1, 3])
        """
        return counted(*self.reads())

    def indices(self, own: Ops, like: Any) -> Any:
        """`gather_indices()` on the framework and device of `like`; made once for each."""
        return kept(self._indices, self.gather_indices, own, like)

    @cached_property
    def _indices(self) -> dict[Any, Any]:
        return {}
