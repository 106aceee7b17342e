"""Rows from arrays of a framework to an array of the same: `place_same`, which drop-ins move rows with."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np

from rollkit import _native
from rollkit._arrays.ops import Ops, ops_of
from rollkit._check import Int64s
from rollkit._frameworks import framework_of
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts, place_parts

_SMALL: Final = 2048
"""Of arrays of so many numbers each, joining costs less than to look at every one's memory."""


def place_same(
    arrays: Sequence[Any], layout: Layout, fill: Any = 0, *, begins: Sequence[Int64s] | None = None
) -> Any:
    """Place rows, and give them back in the framework, the dtype and on the device that they came in.

    Where Rust may move all the arrays it moves their `Ops.bits`, so dtypes that NumPy does not have need no
    other package. Else their framework moves them, and gradients and traces stay.

    Args:
        arrays: one or more, of one framework, dtype, inner shape and device.
        layout: where rows go. `row_lengths` is taken for the lengths that they have.
        fill: what padding holds: 0, or one element in an array like `arrays`.
        begins: for each array, where in it rows begin; None where each array is a row.
    """
    own = ops_of(arrays[0])
    if not all(map(own.is_plain, arrays)):
        return place_parts(_parts(arrays, begins, layout, own), layout, fill)
    if begins is None and layout.num_placed * prod(arrays[0].shape[1:]) <= _SMALL * len(arrays):
        arrays, begins = [own.cat(arrays)], [_native.offsets_from_lengths(layout.row_lengths)[:-1]]
    bits = [np.ascontiguousarray(own.bits(array)) for array in arrays]
    padding = fill if framework_of(fill) is None else own.bits(fill)
    placed = place_parts(_parts(bits, begins, layout, None), layout, padding)
    return own.from_bits(placed, arrays[0].dtype)


def _parts(arrays: Sequence[Any], begins: Sequence[Int64s] | None, layout: Layout, own: Ops | None) -> Parts:
    buffers = list(arrays if begins is None else zip(arrays, begins, strict=True))
    return Parts(buffers, layout.row_lengths, arrays[0].dtype, tuple(arrays[0].shape[1:]), own)
