"""Safetensors files, read and not mapped: one that gets shorter meanwhile is an error, and no signal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, Self

import numpy as np

from rollkit._errors import refusal
from rollkit._files.source import Bytes, Source, read_bytes
from rollkit._files.state import misfit
from rollkit._frameworks import AnyArray
from rollkit._rows.dtypes import numpy_dtype

_DTYPES: Final = {
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "C64": "complex64",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
DTYPES: Final = {name: word for word, name in _DTYPES.items()}
"""The dtypes that there are, and what they are called in a file."""
_ENTRY: Final = {"dtype": str, "shape": [int], "data_offsets": [int]}


class Place(NamedTuple):
    """Where a tensor is.

    Attributes:
        begin: of its first byte, in the file.
        dtype: of its elements.
        shape: of the tensor.
    """

    begin: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def item(self) -> int:
        """The bytes of one entry: of all that one step of the first axis passes."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class Tensors:
    """The tensors of a file: its header is read at once, a tensor when it is asked for.

    Args:
        source: the file.
        what: what it should be, for messages.

    Attributes:
        metadata: the texts that its writer put there.

    Raises:
        ValueError: it is no such file, or damaged, or lacks the tensor; the message names the file.
    """

    def __init__(self, source: Source, what: str) -> None:
        self._source, self._what = source, what
        self._file = source.open()
        try:
            self._entries = self._header()
        except BaseException:
            self._file.close()
            raise
        self.metadata: dict[str, str] = self._entries.pop("__metadata__", {})

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._entry(name)["shape"])

    def names(self) -> Iterable[str]:
        """The names of the tensors."""
        return self._entries.keys()

    def place(self, name: str) -> Place:
        """Where a tensor is, all of which is in the file."""
        entry = self._entry(name)
        begin, end = entry["data_offsets"]
        dtype = numpy_dtype(_DTYPES[entry["dtype"]])
        if end - begin != math.prod(entry["shape"]) * dtype.itemsize:
            raise self._refusal(f"{name} is not as long as its shape and dtype say")
        if self._begin + end > (self._source.size(self._file) or 0):
            raise self._refusal("it ends too early")
        return Place(self._begin + begin, dtype, tuple(entry["shape"]))

    def read(self, name: str, first: int = 0, after: int | None = None) -> AnyArray:
        """Read a tensor, or those of its rows from `first` to before `after`."""
        begin, dtype, shape = place = self.place(name)
        if after is not None:
            shape = (after - first, *shape[1:])
        self._file.seek(begin + first * place.item)
        return self._next(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _header(self) -> dict[str, Any]:
        length = int(self._next(8).view("<u8")[0])
        self._begin = 8 + length
        try:
            found: dict[str, Any] = json.loads(self._next(length).tobytes())
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
            raise self._refusal("its header is no JSON") from None
        wrong = misfit(found, {"*": {}}) or misfit(found.get("__metadata__", {}), {"*": str})
        if wrong is not None:
            raise self._refusal(wrong)
        return found

    def _entry(self, name: str) -> dict[str, Any]:
        wrong = misfit(self._entries, {name: _ENTRY})
        if wrong is not None:
            raise self._refusal(wrong)
        entry: dict[str, Any] = self._entries[name]
        if len(entry["data_offsets"]) != 2:
            raise self._refusal(f"{name}.data_offsets are {len(entry['data_offsets'])}, expected 2")
        if entry["dtype"] not in _DTYPES:
            raise self._refusal(f"{name}.dtype is {entry['dtype']!r}, expected one of {', '.join(_DTYPES)}")
        return entry

    def _next(self, count: int) -> Bytes:
        # A damaged header may ask for more than there is memory.
        left = (self._source.size(self._file) or 0) - self._file.tell()
        if count <= left and len(data := read_bytes(self._file, count)) == count:
            return data
        raise self._refusal("it ends too early")

    def _refusal(self, text: str) -> ValueError:
        return refusal(ValueError, f"not {self._what} that rollkit wrote: {text}", path=self._source)


def write_tensors(file: Any, tensors: Mapping[str, AnyArray], metadata: Mapping[str, str]) -> None:
    """Write tensors as a safetensors file, each at a multiple of its itemsize."""
    shapes = {name: (array.dtype, array.shape) for name, array in tensors.items()}
    for name in write_header(file, shapes, metadata):
        file.write(bytes_of(tensors[name]))


def write_header(
    file: Any, shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], metadata: Mapping[str, str]
) -> list[str]:
    """Write what comes before tensors of these dtypes and shapes; returns the order in which they come."""
    names = sorted(shapes, key=lambda name: -shapes[name][0].itemsize)  # readers may map them
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        dtype, shape = shapes[name]
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype.name], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    return names


def bytes_of(array: AnyArray) -> memoryview:
    """The bytes of an array."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
