"""Arrow lists to rows and back, over the same memory, by Arrow's C interface: no package is needed for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from rollkit import _native
from rollkit._check import Int64s
from rollkit._errors import at, refusal, retold, row_of
from rollkit._extras import extra
from rollkit._frameworks import AnyArray
from rollkit._rows.lists import Lists
from rollkit._rows.parts import Parts, end_to_end, gathered

LISTS: Final = ("list", "view", "fixed")
_NULL: Final = " is null; fill or drop nulls first"


class Arrow(NamedTuple):
    """An Arrow array, as the extension module tells of it (`src/python/arrow.rs`)."""

    kind: str
    type: str
    length: int
    missing: Any
    first: Any
    second: Any

    @property
    def stored(self) -> Arrow:
        """What it is kept as: of extension types their storage, of tensors nested lists."""
        if self.kind != "extension":
            return self
        (name, metadata), found = self.first, Arrow(*self.second)
        shape = _tensor_shape(metadata) if name == "arrow.fixed_shape_tensor" else ()
        if not shape:
            return found.stored
        _, flat = found.children()
        for width in reversed(shape):
            flat = Arrow("fixed", f"list[{width}]", flat.length // width, None, width, flat)
        return flat._replace(missing=found.missing)

    @property
    def leaf(self) -> Arrow:
        """The elements below all lists."""
        found = self.stored
        while found.kind in LISTS:
            found = Arrow(*found.second).stored
        return found

    @property
    def is_list(self) -> bool:
        """Whether each element is a list."""
        return self.stored.kind in LISTS

    def children(self) -> tuple[Int64s, Arrow]:
        """Offsets of lists, and their elements."""
        elements = Arrow(*self.second)
        if self.kind == "fixed":
            return np.arange(self.length + 1, dtype=np.int64) * self.first, elements
        if self.kind == "view":
            begins, lengths = self.first
            return _native.offsets_from_lengths(lengths), elements.take(begins, lengths)
        offsets = self.first
        return offsets if isinstance(offsets, np.ndarray) else np.frombuffer(offsets, np.int64), elements

    def take(self, begins: Int64s, lengths: Int64s) -> Arrow:
        """Elements by spans, one after the other; themselves where they are that already."""
        ends = _native.offsets_from_lengths(lengths)
        if np.array_equal(np.where(lengths > 0, begins, ends[:-1]), ends[:-1]) and ends[-1] == self.length:
            return self
        missing = None if self.missing is None else gathered(self.missing, begins, lengths, copy=True)[0]
        found = self._replace(length=int(ends[-1]), missing=missing)
        if self.kind == "numbers":
            return found._replace(first=gathered(self.numbers(), begins, lengths, copy=True)[0], second=None)
        if self.kind == "fixed":
            elements = Arrow(*self.second).take(begins * self.first, lengths * self.first)
            return found._replace(second=elements)
        index = np.repeat(begins - ends[:-1], lengths) + np.arange(ends[-1])
        if self.kind in LISTS:
            offsets, elements = self.children()
            sizes = np.diff(offsets)[index]
            inner = elements.take(offsets[index], sizes)
            return found._replace(kind="list", first=_native.offsets_from_lengths(sizes), second=inner)
        raise TypeError(f"lists of {self.type} in views are not read; cast to lists first")

    def numbers(self) -> AnyArray:
        """The elements as an array over the same memory."""
        if isinstance(self.first, np.ndarray):
            return self.first
        return np.frombuffer(self.first, self.second) if self.length else np.empty(0, self.second)

    def objects(self) -> list[Any]:
        """The elements as Python's objects."""
        found = self._objects()
        if self.missing is not None:
            for i in np.flatnonzero(self.missing).tolist():
                found[i] = None
        return found

    def _objects(self) -> list[Any]:
        if self.kind == "texts":
            return list(self.first)
        if self.kind == "numbers":
            values: list[Any] = self.numbers().tolist()
            return values
        if self.kind == "nulls":
            return [None] * self.length
        if self.kind == "dictionary":
            values = Arrow(*self.second).objects()
            keys = Arrow(*self.first).objects()
            return [None if key is None else values[key] for key in keys]
        if self.kind == "extension":
            return self.stored.objects()
        if self.is_list:
            offsets, elements = self.children()
            flat, bounds = elements.objects(), offsets.tolist()
            return [flat[a:b] for a, b in pairwise(bounds)]
        pa = extra("pyarrow", "arrow")
        other: list[Any] = pa.Array._import_from_c_capsule(self.first, self.second).to_pylist()
        return other


def read(source: Any) -> tuple[list[str] | None, list[Any]]:
    """What speaks Arrow: the names of a table's columns (None of an array), and its chunks."""
    names, chunks = _native.read_arrow(source)
    if names is None:
        return None, [Arrow(*chunk) for chunk in chunks]
    return names, [[Arrow(*column) for column in chunk] for chunk in chunks]


def is_arrow(found: Any) -> bool:
    """Whether an object speaks Arrow's C interface: arrays, tables, streams and data frames do."""
    return hasattr(found, "__arrow_c_stream__") or hasattr(found, "__arrow_c_array__")


def rows_from_arrow(array: Any, lists: bool = False) -> tuple[Any, Int64s]:
    """Values and offsets; see `Ragged.from_arrow`."""
    if not is_arrow(array):
        raise TypeError(f"expected an Arrow list array, got {type(array).__name__}")
    names, chunks = read(array)
    if names is not None:
        raise TypeError(f"expected an Arrow list array, got {type(array).__name__}")
    return rows_of(without_decimals(chunks), lists)


def without_decimals(chunks: Sequence[Arrow]) -> list[Arrow]:
    """Decimals as numbers: int64 where their type has no places behind the point, else float64.

    Raises:
        OverflowError: a number does not hold all digits of one.
    """
    found, before = [], 0
    for chunk in chunks:
        with at(first_row=before):
            found.append(_without_decimals(chunk))
        before += chunk.length
    return found


def _without_decimals(array: Arrow) -> Arrow:
    if array.kind == "other" and array.type.startswith("decimal"):
        return _of_decimals(array)
    if array.kind not in LISTS:
        return array
    try:
        return array._replace(second=_without_decimals(Arrow(*array.second)))
    except OverflowError as error:
        element = row_of(error)
        if element is None or array.kind == "view":
            raise
        row, position = _place(array.children()[0], element)
        raise retold(error, row=row, position=position) from None


def _of_decimals(array: Arrow) -> Arrow:
    entries = array.objects()
    kind, held = (int, "int64") if array.type.endswith(", 0)") else (float, "float64")
    numbers = [kind(0 if entry is None else entry) for entry in entries]
    for i, (entry, number) in enumerate(zip(entries, numbers, strict=True)):
        if entry is None:
            continue
        exact = -(2**63) <= number < 2**63 if kind is int else type(entry)(repr(number)) == entry
        if not exact:
            text = f": {entry} has more digits than {held} holds; cast to double first"
            raise refusal(OverflowError, text, row=i)
    return array._replace(kind="numbers", first=np.array(numbers, held), second=None)


def rows_of(chunks: Sequence[Arrow], lists: bool = False) -> tuple[Any, Int64s]:
    """Values and offsets of chunks; those of several are joined."""
    chunks = [chunk for chunk in chunks if chunk.length] or chunks[:1]
    if len(chunks) == 1:
        return _rows_of_chunk(chunks[0], lists)
    # Not by Arrow: its offsets may be int32 at any level, and chunks together beyond.
    parts, before = [], 0
    for chunk in chunks:
        with at(first_row=before):
            values, offsets = _rows_of_chunk(chunk, lists)
        parts.append(Parts.over(values, offsets[:-1], np.diff(offsets)))
        before += chunk.length
    joined: tuple[Any, Int64s] = end_to_end(Parts.join(parts))
    return joined


def _rows_of_chunk(chunk: Arrow, lists: bool) -> tuple[Any, Int64s]:
    found = chunk.stored
    if found.kind not in LISTS:
        raise TypeError(f"expected an Arrow list array, got {chunk.type}")
    if found.missing is not None:
        raise refusal(ValueError, _NULL, row=int(found.missing.argmax()))
    offsets, values = found.children()
    if lists:
        return _lists(values.stored, offsets), offsets
    count, inner, size = values.length, [], 1
    while (values := _checked(values, offsets, size)).kind in LISTS:
        width, values = _rectangular(values, offsets, size)
        inner.append(width)
        size *= width
    return _numbers(values).reshape(count, *inner), offsets


def _lists(values: Arrow, rows: Int64s) -> Lists:
    """A list for each element of rows."""
    if values.kind not in LISTS:
        raise TypeError(f"expected a list for each element, got {values.type}")
    _checked(values, rows, 1)
    offsets, elements = values.children()
    if elements.missing is not None:
        element = int(np.searchsorted(offsets, int(elements.missing.argmax()), side="right")) - 1
        raise _null_at(rows, element)
    return Lists(_numbers(elements.stored), offsets)


def _checked(values: Arrow, rows: Int64s, size: int) -> Arrow:
    """The elements of a level below the rows, none of which is null; each has `size` entries here."""
    for level in (values, values.stored):
        if level.missing is not None:
            raise _null_at(rows, int(level.missing.argmax()) // size)
    return values.stored


def _null_at(rows: Int64s, element: int) -> ValueError:
    row, position = _place(rows, element)
    return refusal(ValueError, _NULL, row=row, position=position)


def _rectangular(array: Arrow, rows: Int64s, size: int) -> tuple[int, Arrow]:
    """The one length of all lists of an inner level, `size` to an element, and their elements."""
    offsets, values = array.children()
    if array.kind == "fixed":
        return array.first, values
    lengths = np.diff(offsets)
    width = int(lengths[0]) if len(lengths) else 0
    if (lengths != width).any():
        odd = int(np.flatnonzero(lengths != width)[0])
        row, position = _place(rows, odd // size)
        raise refusal(
            ValueError,
            f" has an inner list of {lengths[odd]}, the first has {width}; inner dimensions must be "
            "rectangular",
            row=row,
            position=position,
        )
    return width, values


def _numbers(values: Arrow) -> AnyArray:
    if values.kind == "nulls" and not values.length:
        return np.empty(0, np.float64)
    if values.kind != "numbers":
        raise TypeError(f"expected lists of numbers, got lists of {values.type}")
    return values.numbers()


def _place(rows: Int64s, element: int) -> tuple[int, int]:
    row = int(np.searchsorted(rows, element, side="right")) - 1
    return row, int(element - rows[row])


def _tensor_shape(metadata: str) -> tuple[int, ...]:
    """The shape of a `fixed_shape_tensor`, whose storage is flat."""
    import json  # with it come its decoders, which most never need

    said = json.loads(metadata)
    order = said.get("permutation")
    if order is not None and list(order) != sorted(order):
        raise TypeError(f"tensors with a permutation ({order}) are not read; store them in row-major order")
    return tuple(said["shape"])


def exported(values: Any, offsets: Int64s, large: bool = True) -> tuple[Any, ...]:
    """Rows as `_native.export_array` takes them; `values` are an array, or `Lists`."""
    begin, end = int(offsets[0]), int(offsets[-1])
    elements: tuple[Any, ...]
    if isinstance(values, Lists):
        part = values.part(begin, end)
        elements = exported(part.values, part.offsets, large)
    else:
        elements = numbers_exported(values[begin:end])
    return "list", np.ascontiguousarray(offsets - begin if begin else offsets), elements, large


def numbers_exported(values: AnyArray) -> tuple[Any, ...]:
    """Numbers `[n, *inner]` likewise: inner dimensions are lists of fixed size."""
    inner = values.shape[1:]
    if 0 in inner:
        raise ValueError(f"Arrow has no lists of inner shape {inner}; inner dimensions must be 1 or more")
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8 or not values.dtype.isnative:
        raise TypeError(f"Arrow has no dtype like {values.dtype}; cast with .astype first")
    found: tuple[Any, ...] = ("numbers", np.ascontiguousarray(values).reshape(-1), None)
    for width in reversed(inner):
        found = ("fixed", width, found)
    return found


def asked_for(schema: Any) -> Iterator[tuple[str | None, bool]]:
    """Of a requested type, for each column (None: for the array itself), whether it asks for large lists."""
    form, children = _native.arrow_formats(schema)
    if form != "+s":
        yield None, form != "+l"
    for name, child in children if form == "+s" else ():
        yield name, child != "+l"
