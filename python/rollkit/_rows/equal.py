"""Whether arrays are equal, of any dtype."""

from __future__ import annotations

import numpy as np

from rollkit._frameworks import AnyArray


def same_values(a: AnyArray, b: AnyArray) -> bool:
    """Whether two arrays are equal, with NaN equal to NaN, for any dtype."""
    if a.dtype.kind in "fcV":
        # bfloat16, fp8 and structured dtypes have kind V, where isnan may not exist; equal bytes do.
        same = np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
        return same or (a.dtype.kind in "fc" and np.array_equal(a, b, equal_nan=True))
    if a.dtype.kind in "mM":
        return np.array_equal(a, b, equal_nan=True)
    return np.array_equal(a, b)
