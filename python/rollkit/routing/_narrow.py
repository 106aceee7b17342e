"""Routes in the smallest dtype that holds them: `narrow_routes`."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import numpy as np

from rollkit import _native
from rollkit._frameworks import AnyArray, as_array
from rollkit._rows.ragged import Ragged

_DTYPES: Final = ("uint8", "int16", "uint16", "int32")

_RoutesT = TypeVar("_RoutesT", AnyArray, Ragged)


def narrow_routes(routes: _RoutesT, *, sentinel: bool = False) -> _RoutesT:
    """Cast routes to the smallest of uint8, int16, uint16 and int32 that holds every id.

    Args:
        routes: an array of any shape, or a `Ragged`, of integers.
        sentinel: -1 (no route) may be among them, which needs a signed dtype. Any other negative id is an
            error.

    Returns:
        The routes, cast; the same object where the dtype is this already.

    Raises:
        ValueError: a negative id.
        OverflowError: an id beyond int32.
        TypeError: no integers.

    Example:
        >>> import numpy as np
        >>> narrow_routes(np.array([[[0, 255]]])).dtype
        dtype('uint8')
        >>> narrow_routes(np.array([[[-1, 255]]]), sentinel=True).dtype
        dtype('int16')
    """
    if isinstance(routes, Ragged):
        flat = narrow_routes(routes.flat, sentinel=sentinel)
        return routes if flat.dtype == routes.dtype else Ragged(flat, routes.offsets - routes.offsets[0])
    values = as_array(routes)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu":
        kind = values.dtype if isinstance(values, np.ndarray) else type(routes).__name__
        raise TypeError(f"routes must be an array or a Ragged of integers, got {kind}")
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    dtype = _smallest(native, sentinel)
    if dtype == values.dtype:
        return values
    flat = Ragged(native.reshape(-1), np.array([0, native.size]))
    return flat.astype(dtype).values.reshape(values.shape)


def _smallest(values: AnyArray, sentinel: bool) -> np.dtype[Any]:
    least, most = _native.value_range(values) or (0, 0)
    if least < -1 or (least < 0 and not sentinel):
        at = tuple(int(n) for n in np.unravel_index(int(values.argmin()), values.shape))
        fix = "; pass sentinel=True if it stands for no route" if least == -1 else ""
        raise ValueError(f"routes{list(at)} is {least}; ids must be 0 or more{fix}")
    for dtype in map(np.dtype, _DTYPES):
        bounds = np.iinfo(dtype)
        if bounds.min <= least and most <= bounds.max:
            return dtype
    raise OverflowError(f"routes hold {most}, which is beyond int32")
