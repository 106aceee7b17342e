"""Arrow tables of lists to tables of longer lists: what `rollkit.datasets.pack_table` does."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from rollkit import _check, _native
from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._extras import extra
from rollkit._frameworks import AnyArray
from rollkit._rows.arrow import is_arrow
from rollkit._rows.best_fit import best_fit_decreasing

STRATEGIES: Final = ("bfd", "bfd_split", "wrapped")

MOST_IN_A_LIST_ARRAY = 2**31 - 1
"""What offsets of int32 count to."""

_UNSIGNED: Final = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


class Column(NamedTuple):
    """A column of lists.

    Attributes:
        type: of Arrow.
        lengths: `[rows]`, of the lists; 0 for null.
        flat: their elements, end to end: an array of Arrow over the same memory, but for several chunks.
    """

    type: Any
    lengths: Int64s
    flat: Any


def packed(table: Any, seq_length: int, strategy: str, lengths: str) -> Any:
    """See `rollkit.datasets.pack_table`."""
    pa = extra("pyarrow", "arrow")
    seq_length = _check.positive("seq_length", seq_length)
    _check.choice("strategy", strategy, STRATEGIES)
    if not isinstance(lengths, str):
        raise TypeError(f"lengths must be a str, got {type(lengths).__name__}")
    columns = _columns(_table(table))
    if strategy == "wrapped":
        return pa.table({name: _wrapped(column, seq_length) for name, column in columns.items()})
    if lengths in columns:
        raise ValueError(f"the table has a column {lengths!r} already; pass another name as lengths")
    first = next(iter(columns.values()))
    begins, sizes = _cut(first.lengths, seq_length, split=strategy == "bfd_split")
    order, counts = best_fit_decreasing(sizes, seq_length)
    begins, sizes, firsts = begins[order], sizes[order], _native.offsets_from_lengths(counts)
    bounds = _native.offsets_from_lengths(sizes)[firsts]
    found = {
        name: _lists(column.type, bounds, _gathered(column.flat, begins, sizes))
        for name, column in columns.items()
    }
    number = pa.int64() if pa.types.is_large_list(first.type) else pa.int32()
    found[lengths] = _lists(pa.list_(number), firsts, pa.array(sizes).cast(number))
    return pa.table(found)


def _table(table: Any) -> Any:
    pa = extra("pyarrow", "arrow")
    if hasattr(table, "with_format"):  # a `datasets.Dataset`, with its order of rows
        table = table.with_format("arrow")[:]
    if isinstance(table, pa.Table):
        return table
    if not is_arrow(table) or isinstance(table, pa.Array | pa.ChunkedArray):
        raise TypeError(f"table must be an Arrow table, got {type(table).__name__}")
    return pa.table(table)


def _columns(table: Any) -> dict[str, Column]:
    """The columns of a table by name, all of lists, and of the same lengths."""
    names = table.column_names
    if not names:
        raise ValueError("table has no columns; expected lists of tokens")
    double = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if double is not None:
        raise ValueError(f"the table has two columns {double!r}; rename one of them")
    columns = {name: _column(name, column) for name, column in zip(names, table.columns, strict=True)}
    wanted = columns[names[0]].lengths
    for name, column in columns.items():
        odd = np.flatnonzero(column.lengths != wanted)
        if len(odd):
            raise refusal(
                ValueError,
                f" has {column.lengths[odd[0]]} values, in {names[0]!r} {wanted[odd[0]]}. "
                "All columns must have values of the same length.",
                column=name,
                row=odd[0],
            )
    return columns


def _column(name: str, column: Any) -> Column:
    pa = extra("pyarrow", "arrow")
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        text = f"this is {column.type}. Packing requires all columns to be lists of lists. Drop it first"
        raise refusal(TypeError, text, column=name)
    chunks = column.chunks or [pa.array([], column.type)]
    lengths = np.concatenate([_lengths(chunk) for chunk in chunks])
    flat = [chunk.flatten() for chunk in chunks]
    return Column(column.type, lengths, flat[0] if len(flat) == 1 else pa.concat_arrays(flat))


def _lengths(chunk: Any) -> Int64s:
    lengths: Int64s = np.diff(chunk.offsets.to_numpy()).astype(np.int64, copy=False)
    if chunk.null_count:  # below a null Arrow may have anything
        lengths = lengths * chunk.is_valid().to_numpy(zero_copy_only=False)
    return lengths


def _cut(lengths: Int64s, most: int, *, split: bool) -> tuple[Int64s, Int64s]:
    """Rows that lie end to end, cut off after `most` elements, or split there: begins and lengths.

    What is empty is left out.
    """
    firsts = _native.offsets_from_lengths(lengths)[:-1]
    if not split:
        rows = np.flatnonzero(lengths)
        return firsts[rows], np.minimum(lengths[rows], most)
    counts = -(-lengths // most)
    rows = np.repeat(np.arange(len(lengths)), counts)
    before = (np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]) * most
    return firsts[rows] + before, np.minimum(lengths[rows] - before, most)


def _gathered(flat: Any, begins: Int64s, lengths: Int64s) -> Any:
    """Spans of an array of Arrow, one after the other."""
    pa = extra("pyarrow", "arrow")
    bits = _bits(flat)
    if bits is not None:
        found, _ = _native.gather_rows(bits, begins, lengths, copy=True)
        return pa.Array.from_buffers(flat.type, len(found), [None, pa.py_buffer(found)])
    # Texts, bools, lists, and what may be null: by Arrow, element by element.
    ends = _native.offsets_from_lengths(lengths)
    return flat.take(pa.array(np.repeat(begins - ends[:-1], lengths) + np.arange(ends[-1])))


def _bits(flat: Any) -> AnyArray | None:
    """Elements as unsigned integers over the same memory; None where Arrow has them otherwise."""
    types = extra("pyarrow", "arrow").types
    dtype = _UNSIGNED.get(flat.type.bit_width) if types.is_primitive(flat.type) else None
    if dtype is None or flat.null_count:
        return None
    if not len(flat):
        return np.empty(0, dtype)
    offset = flat.offset * np.dtype(dtype).itemsize
    return np.frombuffer(flat.buffers()[1], dtype, count=len(flat), offset=offset)


def _wrapped(column: Column, seq_length: int) -> Any:
    """All elements one after the other, cut every `seq_length`."""
    total = len(column.flat)
    return _lists(column.type, np.append(np.arange(0, total, seq_length), total), column.flat)


def _lists(kind: Any, bounds: Int64s, values: Any) -> Any:
    """Lists of a type over values, in as many chunks as its offsets need to count them."""
    pa = extra("pyarrow", "arrow")
    large = pa.types.is_large_list(kind)
    array, dtype = (pa.LargeListArray, np.int64) if large else (pa.ListArray, np.int32)
    most = _check.MOST if large else MOST_IN_A_LIST_ARRAY
    chunks, begin, lists = [], 0, len(bounds) - 1
    while begin < lists:
        first = int(bounds[begin])
        end = int(np.searchsorted(bounds, min(first + most, int(bounds[-1])), side="right")) - 1
        if end == begin:
            text = f"a list of {bounds[begin + 1] - first} values is beyond the offsets of {kind}"
            raise OverflowError(f"{text}; cast the columns to large_list first")
        offsets = (bounds[begin : end + 1] - first).astype(dtype)
        held = values if end - begin == lists else values.slice(first, offsets[-1])
        chunks.append(array.from_arrays(pa.array(offsets), held, type=kind))
        begin = end
    return pa.chunked_array(chunks, kind)
