"""Rows of a payload as an array: `decode_routes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rollkit._check import checked_out
from rollkit._frameworks import AnyArray
from rollkit.routing._payload import Payload


def decode_routes(
    payload: AnyArray | Mapping[str, Any],
    rows: slice = slice(None),
    *,
    out: AnyArray | None = None,
) -> AnyArray:
    """Decode the rows asked for, and none before or after them.

    Base64 is read from the group of four characters that the first row begins in, so the time is that of
    the rows and not of the payload. Characters of other rows are not looked at.

    Args:
        payload: `{data, shape, dtype, start}`. `data` is base64 (`str` or bytes: standard alphabet, padded,
            one line) or a buffer of the raw bytes; `shape` is `[rows, layers, topk]`; `dtype` any integer
            dtype; if it is missing, that of an array, or uint8. An array is its own payload.
        rows: of the payload, without a step; all by default.
        out: an array `[rows, layers, topk]` of the dtype to write to.

    Returns:
        The rows, in memory of their own, or `out`.

    Raises:
        ValueError: the data is no base64 (the character is named), or not that of the shape.
        TypeError: an unknown dtype, or one that is no integer.

    Example:
        >>> payload = {"data": "AAECAwQF", "shape": [3, 1, 2], "dtype": "uint8"}
        >>> decode_routes(payload, slice(1, None)).tolist()
        [[[2, 3]], [[4, 5]]]
    """
    found = Payload.of(payload)
    if not isinstance(rows, slice):
        raise TypeError(f"rows must be a slice, got {type(rows).__name__}")
    begin, end, step = rows.indices(found.rows)
    if step != 1:
        raise ValueError(f"rows must have no step, got {step}; decode the range, then index it")
    shape = (max(end - begin, 0), *found.inner)
    out = np.empty(shape, found.dtype) if out is None else checked_out(out, shape, found.dtype)
    found.read(begin, out)
    return out
