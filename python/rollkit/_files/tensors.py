"""Safetensors files, read and not mapped: one that gets shorter meanwhile is an error, and no signal."""

from __future__ import annotations

import json
import math
import os
from io import FileIO
from pathlib import Path
from typing import Any, Final, Self

from rollkit._errors import refusal
from rollkit._files.read import Bytes, read_bytes
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
_ENTRY: Final = {"dtype": str, "shape": [int], "data_offsets": [int]}


class Tensors:
    """The tensors of a file: its header is read at once, a tensor when it is asked for.

    Attributes:
        metadata: the texts that its writer put there.

    Raises:
        ValueError: it is no such file, or damaged, or lacks the tensor; the message names the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = FileIO(path)
        try:
            self._entries = self._header()
        except BaseException:
            self._file.close()
            raise
        self.metadata: dict[str, str] = self._entries.pop("__metadata__", {})

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._entry(name)["shape"])

    def read(self, name: str) -> AnyArray:
        """Read a tensor."""
        entry = self._entry(name)
        begin, end = entry["data_offsets"]
        dtype = numpy_dtype(_DTYPES[entry["dtype"]])
        if end - begin != math.prod(entry["shape"]) * dtype.itemsize:
            raise self._refusal(f"{name} is not as long as its shape and dtype say")
        self._file.seek(self._begin + begin)
        return self._next(end - begin).view(dtype).reshape(entry["shape"])

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
        left = os.fstat(self._file.fileno()).st_size - self._file.tell()
        if count <= left and len(data := read_bytes(self._file, count)) == count:
            return data
        raise self._refusal("it ends too early")

    def _refusal(self, text: str) -> ValueError:
        return refusal(ValueError, f"not a shard that rollkit wrote: {text}", path=self._path)
