"""Rollouts as the tensors of a safetensors file: values and offsets, objects as the bytes of JSON.

A column `x` of rows of elements is `columns.x.values` and `columns.x.offsets` (and `columns.x.lists`, the
offsets of lists, where each element is one), one of an array `columns.x.array`, a list `columns.x.json`
(one JSON array). The metadata says which, and how many rows.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Self

import numpy as np

from rollkit._errors import at, refusal
from rollkit._files.arrow import Wanted
from rollkit._files.source import MARK, Saved, Source
from rollkit._files.state import misfit
from rollkit._files.storable import check_dtype, json_texts
from rollkit._files.tensors import DTYPES, Tensors, bytes_of, write_header, write_tensors
from rollkit._frameworks import AnyArray
from rollkit._rollouts.columns import Column
from rollkit._rows.lists import Lists
from rollkit._rows.ragged import Ragged, trusted

_FORMAT: Final = 1
_HEADER: Final = {"saved": int, "rows": int, "columns": {"*": str}}
_WHAT: Final = "rollouts"


def write_columns(file: Any, columns: Mapping[str, Column], rows: int) -> None:
    """Write columns as a safetensors file."""
    tensors: dict[str, AnyArray] = {}
    kinds: dict[str, str] = {}
    for name, column in columns.items():
        with at(column=name):
            found = _tensors(name, column)
        kinds[name] = next(iter(found))
        tensors |= {_key(name, part): array for part, array in found.items()}
    write_tensors(file, tensors, _metadata(kinds, rows))


def _metadata(kinds: Mapping[str, str], rows: int) -> dict[str, str]:
    return {MARK: json.dumps({"saved": _FORMAT, "rows": rows, "columns": kinds})}


class TensorParts:
    """Writes columns part by part, to the bytes of `write_columns`.

    Where a tensor begins is known when all are there. Until then their parts are in a file without a name, in
    the folder of the other.

    Args:
        file: to be written to.
    """

    def __init__(self, file: Any) -> None:
        self._file, self._rows = file, 0
        self._kinds: dict[str, str] = {}
        self._tensors: dict[str, _Growing] = {}
        self._parts = tempfile.TemporaryFile(dir=os.path.dirname(file.name) or None)  # noqa: SIM115

    def write(self, columns: Mapping[str, Column], rows: int) -> None:
        """Write rows."""
        self._rows += rows
        for name, column in columns.items():
            with at(column=name):
                found = _tensors(name, column)
            self._kinds[name] = next(iter(found))
            for part, array in found.items():
                tensor = self._tensors.setdefault(_key(name, part), _Growing(part, array))
                tensor.add(self._parts, array)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._parts:
            if kind is None:
                self._finish()

    def _finish(self) -> None:
        shapes = {
            name: (tensor.dtype, (tensor.count, *tensor.inner)) for name, tensor in self._tensors.items()
        }
        for name in write_header(self._file, shapes, _metadata(self._kinds, self._rows)):
            for begin, size in self._tensors[name].places:
                self._parts.seek(begin)
                self._file.write(self._parts.read(size))


class _Growing:
    """A tensor whose parts are in a file; those of offsets and of JSON go on where the one before ended."""

    def __init__(self, part: str, first: AnyArray) -> None:
        self._part, self._last = part, 0
        self.dtype, self.inner, self.count = first.dtype, first.shape[1:], 0
        self.places: list[tuple[int, int]] = []

    def add(self, file: Any, array: AnyArray) -> None:
        if self._part in ("offsets", "lists"):
            array = array[1 if self.count else 0 :] + self._last
            self._last = int(array[-1]) if len(array) else self._last
        if self._part == "json" and self.count:
            begin, size = self.places[-1]
            self.places[-1] = begin, size - 1  # without the bracket
            self.count -= 1
            array = np.append(np.uint8(ord(",")), array[1:])
        self.count += len(array)
        self.places.append((file.tell(), file.write(bytes_of(array))))


def _tensors(name: str, column: Column) -> dict[str, AnyArray]:
    """The arrays that a column is saved as; the first says what it is."""
    if isinstance(column, list):
        text = f"[{','.join(json_texts(name, column))}]"
        return {"json": np.frombuffer(text.encode(), np.uint8)}
    check_dtype(column.dtype, DTYPES, "safetensors")
    if isinstance(column, Ragged) and column.of_lists:
        lists: Any = column.flat
        bounds = {"lists": lists.offsets - lists.offsets[0], "offsets": column.offsets - column.offsets[0]}
        return {**bounds, "values": lists.flat}
    if isinstance(column, Ragged):
        return {"values": column.flat, "offsets": column.offsets - column.offsets[0]}
    return {"array": column}


def _key(name: str, part: str) -> str:
    return f"columns.{name}.{part}"


def tensor_columns(source: Source, rows: int | None, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """The wanted columns of a file, `rows` rows at a time; all at once for None."""
    with Tensors(source, _WHAT) as file, at(path=source, kind=ValueError):
        header = _header(file)
        kinds = {name: header["columns"][name] for name in wanted(list(header["columns"]))}
        count = header["rows"]
        whole = {name: _whole(file, name, kind, count) for name, kind in kinds.items()}
        for first in range(0, max(count, 1), rows or max(count, 1)):
            after = count if rows is None else min(first + rows, count)
            yield Saved({name: _part(file, name, whole[name], first, after) for name in kinds})


class _Bounds(NamedTuple):
    """Where rows begin among elements that are lists, and where these begin."""

    rows: AnyArray
    lists: AnyArray


_Whole = list[Any] | AnyArray | _Bounds | None


def _header(file: Tensors) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(file.metadata.get(MARK, ""))
        wrong = misfit(header, _HEADER)
    except (ValueError, RecursionError):
        wrong = "it has no header of rollkit.save"
    if wrong is None and header["saved"] != _FORMAT:
        wrong = f"format {header['saved']!r}; this rollkit reads {_FORMAT}"
    if wrong is not None:
        raise ValueError(f"not {_WHAT} that rollkit wrote: {wrong}")
    return header


def _whole(file: Tensors, name: str, kind: str, rows: int) -> _Whole:
    """What of a column is read at once: objects, and where rows are. All of it is checked."""
    found: _Whole = None
    count = -1
    if kind == "json":
        found, count = _objects(file.read(_key(name, kind)).tobytes())
    elif kind == "array":
        count = (*file.shape(_key(name, kind)), -1)[0]
    elif kind in ("values", "lists"):
        found = file.read(_key(name, "offsets"))
        elements = file.shape(_key(name, "values"))
        if kind == "lists":
            found = _Bounds(found, file.read(_key(name, kind)))
            elements = (_rows_of(found.lists, elements),)
            count = _rows_of(found.rows, elements)
        else:
            count = _rows_of(found, elements)
    else:
        raise ValueError(f"not {_WHAT} that rollkit wrote: column {name!r} is of kind {kind!r}")
    if count != rows:
        text = f"not {_WHAT} that rollkit wrote: column {name!r} does not have {rows} rows"
        raise refusal(ValueError, text, column=name, label="")
    return found


def _objects(text: bytes) -> tuple[list[Any], int]:
    """The entries of a column, and how many; -1 if this is no list of them."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return [], -1
    return (found, len(found)) if isinstance(found, list) else ([], -1)


def _rows_of(offsets: AnyArray, shape: tuple[int, ...]) -> int:
    """How many rows there are; -1 if these are no offsets of values of such a shape."""
    whole = offsets.dtype == np.int64 and offsets.ndim == 1 and len(offsets) and len(shape)
    if not whole or offsets[0] != 0 or offsets[-1] != shape[0] or (offsets[1:] < offsets[:-1]).any():
        return -1
    return len(offsets) - 1


def _part(file: Tensors, name: str, whole: _Whole, first: int, after: int) -> Column:
    if isinstance(whole, list):
        return whole[first:after]
    if whole is None:
        return file.read(_key(name, "array"), first, after)
    if isinstance(whole, _Bounds):
        rows = whole.rows[first : after + 1]
        lists = whole.lists[rows[0] : rows[-1] + 1]
        values = file.read(_key(name, "values"), *lists[[0, -1]].tolist())
        return trusted(Lists(values, lists - lists[0]), rows - rows[0])
    offsets = whole[first : after + 1]
    return Ragged(file.read(_key(name, "values"), *offsets[[0, -1]].tolist()), offsets - offsets[0])
