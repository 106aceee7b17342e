"""Arrays as pickles have them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rollkit._frameworks import AnyArray


def shipped(values: AnyArray) -> tuple[AnyArray, np.dtype[Any] | None]:
    """An array as NumPy pickles it out of band, and the dtype to view it as where that is another.

    Of dtypes that have no buffer format (bfloat16, fp8, datetime64) NumPy copies the bytes into the pickle;
    unsigned integers of the same size go beside it. So do contiguous arrays only.
    """
    values = np.ascontiguousarray(values)
    no_format = values.dtype.kind in "mM" or (values.dtype.kind == "V" and values.dtype.type is not np.void)
    if no_format and values.dtype.itemsize in (1, 2, 4, 8):
        return values.view(f"u{values.dtype.itemsize}"), values.dtype
    return values, None
