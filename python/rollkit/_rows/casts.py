"""Rows cast to another dtype, checked: `Ragged.astype`."""

from __future__ import annotations

from typing import Any

from numpy.typing import DTypeLike

from rollkit._check import Int64s
from rollkit._rows.dtypes import numpy_dtype
from rollkit._rows.parts import Parts, end_to_end, own_ops


def cast(values: Any, offsets: Int64s, dtype: DTypeLike) -> tuple[Any, Int64s]:
    """Values of these rows in a dtype, and their offsets; the same objects where they have it already."""
    own = own_ops(values)
    if own is None:
        dtype = numpy_dtype(dtype)
    if values.dtype == (dtype if own is None else own.cast(values[:0], dtype).dtype):
        return values, offsets
    return end_to_end(Parts.over(values, offsets[:-1], offsets[1:] - offsets[:-1]), dtype=dtype)
