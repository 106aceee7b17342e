"""Rows as a small header and flat buffers, for any transport, and back over the same memory."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from rollkit import _native
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray
from rollkit._rows.dtypes import numpy_dtype
from rollkit._rows.lists import Lists

FORMAT: Final = 1


def packed(header: Mapping[str, Any]) -> bytes:
    """A header as bytes."""
    return json.dumps({"rollkit": FORMAT, **header}, separators=(",", ":")).encode()


def unpacked(header: Any, buffers: Any) -> tuple[dict[str, Any], list[Any]]:
    """A header, and the buffers beside it."""
    try:
        found: dict[str, Any] = json.loads(bytes(header))
        known = found["rollkit"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("header is none that to_buffers made") from None
    if known != FORMAT:
        raise ValueError(f"header is of format {known!r}; this version reads {FORMAT}")
    if isinstance(buffers, str | bytes) or not hasattr(buffers, "__iter__"):
        raise TypeError(f"buffers must be a sequence of buffers, got {type(buffers).__name__}")
    return found, list(buffers)


def array_out(array: AnyArray) -> tuple[dict[str, Any], memoryview]:
    """What to say of an array, and its memory."""
    flat = np.ascontiguousarray(array)
    if flat.dtype.hasobject:
        raise TypeError(f"arrays of {flat.dtype} have no bytes to send")
    if flat.dtype.fields is not None:
        raise TypeError(f"arrays of {flat.dtype} are not sent; send each field")
    named = flat.dtype.str if flat.dtype.kind != "V" or flat.dtype.type is np.void else flat.dtype.name
    raw = flat.reshape(-1).view(np.uint8) if flat.size else np.empty(0, np.uint8)
    return {"dtype": named, "shape": list(flat.shape)}, raw.data


def array_in(said: Mapping[str, Any], buffer: Any) -> AnyArray:
    """The array over a buffer."""
    try:
        dtype, shape = numpy_dtype(said["dtype"]), tuple(int(n) for n in said["shape"])
        if said["dtype"] is None or dtype.hasobject:
            raise ValueError(f"no dtype of bytes: {said['dtype']!r}")
        raw = np.frombuffer(buffer, np.uint8) if memoryview(buffer).nbytes else np.empty(0, np.uint8)
    except (KeyError, TypeError, ValueError, BufferError) as error:
        raise ValueError(f"header or buffer is none that to_buffers made: {error}") from None
    wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if len(raw) != wanted or any(n < 0 for n in shape):
        raise ValueError(f"a buffer has {len(raw)} bytes, {said['dtype']} of shape {shape} takes {wanted}")
    if raw.ctypes.data % dtype.alignment:
        raw = raw.copy()  # a transport may lay buffers anywhere
    return raw.view(dtype).reshape(shape)


def rows_out(values: Any, offsets: Int64s) -> tuple[dict[str, Any], list[memoryview]]:
    """What to say of rows, and their buffers: offsets, and values or what lists are made of."""
    begin, end = int(offsets[0]), int(offsets[-1])
    bounds, first = array_out(offsets - begin if begin else offsets)
    if isinstance(values, Lists):
        part = values.part(begin, end)
        said, buffers = rows_out(part.values, part.offsets)
        return {"offsets": bounds, "lists": said}, [first, *buffers]
    said, second = array_out(values[begin:end])
    return {"offsets": bounds, "values": said}, [first, second]


def rows_in(said: Mapping[str, Any], buffers: Sequence[Any]) -> tuple[Any, Any, list[Any]]:
    """Values and offsets of rows, and the buffers that are left."""
    if (
        not buffers
        or not isinstance(said, dict)
        or "offsets" not in said
        or not {"lists", "values"} & said.keys()
    ):
        raise ValueError("header or buffers are none that to_buffers made")
    offsets = array_in(said["offsets"], buffers[0])
    if "lists" in said:
        values, inner, left = rows_in(said["lists"], buffers[1:])
        return Lists(values, inner), offsets, left
    if len(buffers) < 2:
        raise ValueError("there are fewer buffers than the header says")
    return array_in(said["values"], buffers[1]), offsets, list(buffers[2:])


def hashes(values: Any, offsets: Int64s) -> AnyArray:
    """A hash of each row; see `Ragged.hash`."""
    out = np.empty(len(offsets) - 1, np.uint64)
    if isinstance(values, Lists):
        # Which list an entry is in counts too: the lengths' hash is the seed, mixed in by a product.
        sizes = np.diff(values.offsets)
        lengths = hashes(sizes, offsets)
        entries = hashes(values.values, np.ascontiguousarray(values.offsets[offsets]))
        with np.errstate(over="ignore"):
            return lengths * np.uint64(0x9E3779B97F4A7C15) + entries
    flat = np.ascontiguousarray(values)
    # Bytes of one dtype may be those of another.
    seed = zlib.crc32(f"{flat.dtype.name} {flat.shape[1:]}".encode())
    _native.hash_rows(flat, offsets, seed=seed, out=out)
    return out
