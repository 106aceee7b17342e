"""What an engine sends: rows as an array, a buffer or base64, decoded only where they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from rollkit import _native
from rollkit._check import positive
from rollkit._frameworks import AnyArray, as_array

Routes = AnyArray | Mapping[str, Any]
"""An array `[rows, layers, topk]`, or a payload `{data, shape, dtype, start}`."""


@dataclass(slots=True)  # not frozen: that would double what a small call costs
class Payload:
    """Rows and where they are.

    Attributes:
        data: the rows, or the base64 text they are in.
        shape: `[rows, *inner]`.
        dtype: of the ids.
        start: the position, in the sequence, of the first row.
    """

    data: str | AnyArray
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int = 0
    encoded: bool = False

    @classmethod
    def of(cls, routes: Any) -> Payload:
        """Take an array, or a payload; nothing is decoded or copied."""
        if isinstance(routes, Mapping):
            return _from_mapping(routes)
        rows = as_array(routes)
        if not isinstance(rows, np.ndarray):
            raise TypeError(
                "routes must be an array or a payload {data, shape, dtype, start}, got "
                f"{type(routes).__name__}; np.asarray makes an array of lists"
            )
        _check_dtype(rows.dtype)
        if rows.ndim < 2:
            _shape(rows.shape)
        return cls(rows, rows.shape, rows.dtype)

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.shape[0]

    @property
    def inner(self) -> tuple[int, ...]:
        """The shape of a row: (layers, topk)."""
        return self.shape[1:]

    def at(self, start: int) -> Payload:
        """The same rows at another position."""
        return replace(self, start=start)

    def read(self, begin: int, out: AnyArray) -> None:
        """Write rows from `begin` on to `out`, as many as it has; its dtype holds theirs."""
        if not out.size:
            return
        if isinstance(self.data, np.ndarray) and not self.encoded:
            out[...] = self.data[begin : begin + len(out)]
        elif out.dtype != self.dtype:
            rows = np.empty(out.shape, self.dtype)
            self.read(begin, rows)
            out[...] = rows
        else:
            item = prod(self.inner) * self.dtype.itemsize
            size = self.rows * item
            _native.decode_base64(self.data, size=size, begin=begin * item, out=out)

    def view(self, begin: int, end: int) -> AnyArray:
        """Rows as a view of their array, or decoded to one."""
        if isinstance(self.data, np.ndarray) and not self.encoded:
            return self.data[begin:end]
        rows = np.empty((end - begin, *self.inner), self.dtype)
        self.read(begin, rows)
        return rows


def _from_mapping(payload: Mapping[str, Any]) -> Payload:
    data = as_array(payload.get("data"))
    if data is None:
        raise ValueError("the payload has no 'data'; it needs 'data' and 'shape' (and 'dtype', 'start')")
    start = positive("the payload's 'start'", payload.get("start") or 0, least=0)
    if isinstance(data, np.ndarray) and payload.get("shape") is None:
        return Payload.of(data).at(start)
    if payload.get("shape") is None:
        raise ValueError("the payload has no 'shape'; it is [rows, layers, topk]")
    shape = _shape(payload["shape"])
    dtype = _dtype(payload.get("dtype"), data.dtype if isinstance(data, np.ndarray) else np.dtype(np.uint8))
    size = prod(shape) * dtype.itemsize
    if isinstance(data, str):
        if not data.isascii():
            raise ValueError("the payload's 'data' has characters beyond ASCII, which are not base64")
        _check_text(len(data), data[-2:].count("="), size, shape, dtype)
        return Payload(data, shape, dtype, start, encoded=True)
    raw = _bytes(data)
    if len(raw) == size:
        return Payload(raw.view(dtype).reshape(shape), shape, dtype, start)
    # Bytes are raw or base64: which, their number tells, as base64 is never as long as what it stands for.
    if len(raw) != 4 * -(-size // 3):
        raise ValueError(
            f"the payload's 'data' has {len(raw)} bytes; shape {shape} of {dtype} is {size} bytes raw, "
            f"{4 * -(-size // 3)} in base64"
        )
    _check_text(len(raw), raw[-2:].tobytes().count(b"="), size, shape, dtype)
    return Payload(raw, shape, dtype, start, encoded=True)


def _check_text(length: int, padding: int, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if length % 4:
        raise ValueError(
            f"the payload's 'data' has {length} characters; base64 has a multiple of 4, padded with '=' and "
            "without line breaks"
        )
    if (found := length // 4 * 3 - padding) != size:
        raise ValueError(
            f"the payload's 'data' decodes to {found} bytes; shape {shape} of {dtype} has {size}"
        )


def _bytes(data: Any) -> AnyArray:
    if isinstance(data, np.ndarray):
        viewed: AnyArray = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        return viewed
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, AttributeError):
        raise TypeError(
            "the payload's 'data' must be base64 (str or bytes) or a contiguous buffer, got "
            f"{type(data).__name__}"
        ) from None


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        raise TypeError(f"shape must be [rows, layers, topk], got {value!r}")
    shape = tuple(value)
    if not all(type(n) is int and n >= 0 for n in shape):  # as JSON has them; a third of the time
        shape = tuple(positive("a dimension of routes", n, least=0) for n in shape)
    if len(shape) < 2:
        raise ValueError(f"routes must have rows and the experts of each, [rows, layers, topk]; got {shape}")
    return shape


def _dtype(named: Any, default: np.dtype[Any]) -> np.dtype[Any]:
    try:
        dtype = default if named is None else np.dtype(named)
    except (TypeError, ValueError):
        raise TypeError(
            f"the payload's 'dtype' is {named!r}, which NumPy does not know; it is 'uint8', 'int16', …"
        ) from None
    _check_dtype(dtype)
    return dtype


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "iu":
        raise TypeError(f"routes must be integers, got {dtype}")
