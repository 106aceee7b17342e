"""Rows as torch has them: their values as a tensor, and jagged nested tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from rollkit._arrays.ops import ops
from rollkit._check import Int64s
from rollkit._extras import extra
from rollkit._frameworks import AnyArray, Tensor, framework_of
from rollkit._rows.ragged import Ragged


def jagged(values: Tensor, offsets: Tensor, counts: Int64s, jagged_dim: int = 1) -> Tensor:
    """Rows of so many values each; torch pads to the width that it is told, and loses tokens if it is not."""
    shortest, longest = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    return extra("torch", "torch").nested.nested_tensor_from_jagged(
        values, offsets, jagged_dim=jagged_dim, min_seqlen=shortest, max_seqlen=longest
    )


def values_of(rows: Ragged) -> Tensor:
    """The elements of these rows as a tensor over the same memory.

    Raises:
        TypeError: they are of another framework, or of a dtype that torch has none like.
    """
    flat: Any = rows.flat
    framework = framework_of(flat)
    if framework == "torch":
        return flat
    if framework != "numpy":
        raise TypeError(f"its values are of {framework}; make them NumPy's first (np.asarray)")
    return tensor_of(flat)


def tensor_of(array: AnyArray) -> Tensor:
    """A tensor over the memory of a contiguous array."""
    dtype = array.dtype
    if dtype.kind not in "biufcV" or dtype.type is np.void:
        raise TypeError(f"torch has no dtype like {dtype}; make it numbers, or a list of objects")
    make: Any = ops("torch")
    return make.from_numpy(array, None, {})
