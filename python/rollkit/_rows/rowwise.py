"""One number for each row, from what a layout has of it, and back: `Layout.row_sums`, `Layout.spread`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from rollkit import _check, _native
from rollkit._arrays.ops import Ops, ops
from rollkit._check import Int64s
from rollkit._frameworks import framework_of
from rollkit._rows.laid import kept
from rollkit._rows.pieces import Pieces
from rollkit._rows.reductions import check_real, row_sums


class Rowwise(Pieces):
    """What a `Layout` does row by row; of any framework, gradients and traces go through."""

    def row_sums(self, array: Any) -> Any:
        """`[rows, *inner]`: the sum of what the layout has of each row, 0 where it has nothing.

        Over the shards of a layout (`shard`) these add up: one all-reduce of `[rows]` gives each rank the
        sums of whole rows. Padding counts in none.

        Args:
            array: `[*shape, *inner]`, of any framework: a model's per-token output, a mask.

        Returns:
            Of the framework of `array`. Integers and bools are summed in 64 bits (in JAX what it has for
            that), floats of 16 bits in float32, others as they are; NumPy's in float64.

        Example:
            >>> from rollkit import Layout
            >>> first, second = Layout.concat([4, 8], align=4).shard(2)
            >>> first.row_sums(first.positions()), second.row_sums(second.positions())
            (array([ 3, 14]), array([ 3, 14]))
        """
        own, flat = self._flat(array)
        if framework_of(array) == "numpy":
            check_real(flat)
            values, _ = _native.gather_rows(np.ascontiguousarray(flat), *self.reads(), copy=False)
            return row_sums(values, self.row_offsets())
        placed = own.gather(flat, self.indices(own, flat))
        return own.scatter_sum(len(self), placed, kept(self._row_indices, self.element_rows, own, flat))

    def spread(self, numbers: Any) -> Any:
        """`[*shape, *inner]`: each row's number at each of its tokens, and 0 in padding.

        Args:
            numbers: `[rows, *inner]`, of any framework.

        Example:
            >>> from rollkit import Layout
            >>> Layout.pad([3, 1]).spread(np.array([0.5, 2.0]))
            array([[0.5, 0.5, 0.5],
                   [0. , 0. , 2. ]])
        """
        framework = framework_of(numbers)
        if framework is None:
            numbers, framework = _check.host("numbers", numbers), "numpy"
        if not numbers.ndim or numbers.shape[0] != len(self):
            raise ValueError(f"numbers must be one for each of {len(self)} rows, got {_shape(numbers)}")
        own = ops(framework)
        zero = own.from_host(np.zeros(tuple(numbers.shape[1:]), own.dtype_of(numbers)), numbers)
        placed = own.gather(numbers, kept(self._row_indices, self.element_rows, own, numbers))
        found = own.scatter(self.size, zero, placed, self.indices(own, numbers))
        return found.reshape(*self.shape, *numbers.shape[1:])

    def element_rows(self) -> Int64s:
        """`[sum(lengths)]` int64: the row of every element, in the order of `gather_indices`."""
        return np.repeat(np.arange(len(self)), np.diff(self.row_offsets()))

    @cached_property
    def _row_indices(self) -> dict[Any, Any]:
        return {}

    def _flat(self, array: Any) -> tuple[Ops, Any]:
        """The operations of an array that the layout describes, and the array with its places in one axis."""
        framework = framework_of(array)
        if framework is None:
            raise TypeError(f"array must be an array of NumPy, torch or JAX, got {type(array).__name__}")
        depth = len(self.shape)
        if tuple(array.shape[:depth]) != self.shape:
            raise ValueError(f"array must have shape {self.shape} (and inner dims), got {tuple(array.shape)}")
        own = ops(framework)
        own.check_dense(array)
        return own, array.reshape(self.size, *array.shape[depth:])


def _shape(array: Any) -> str:
    return f"shape {tuple(array.shape)}"
