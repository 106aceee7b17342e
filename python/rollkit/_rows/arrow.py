"""Arrow list arrays to rows and back, without a copy. Needs `pyarrow` (extra `arrow`)."""

from typing import Any

import numpy as np

from rollkit._check import Int64s
from rollkit._extras import extra
from rollkit._frameworks import AnyArray
from rollkit._rows.ragged import Ragged


def rows_from_arrow(array: Any) -> tuple[AnyArray, Int64s]:
    """See `Ragged.from_arrow`."""
    pa = extra("pyarrow", "arrow")
    if not isinstance(array, pa.Array | pa.ChunkedArray):
        if hasattr(array, "__arrow_c_stream__"):
            array = pa.chunked_array(array)
        elif hasattr(array, "__arrow_c_array__"):
            array = pa.array(array)
    if isinstance(array, pa.ChunkedArray):
        if array.num_chunks > 1 and pa.types.is_list(array.type):
            # Offsets of a `list` are int32, and chunks together may be beyond.
            array = array.cast(pa.large_list(array.type.value_field))
        array = array.combine_chunks()
    if not isinstance(array, pa.Array):
        raise TypeError(f"expected an Arrow list array, got {type(array).__name__}")
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if not _is_list(pa, array.type):
        raise TypeError(f"expected an Arrow list array, got {array.type}")
    if (row := _first_null(array)) is not None:
        raise ValueError(f"row {row} is null; fill or drop nulls first")
    offsets, values = _children(pa, array)
    count, inner, size = len(values), [], 1
    while _is_list(pa, values.type):
        _refuse_nulls(values, offsets, size)
        width, values = _rectangular(pa, values, offsets, size)
        inner.append(width)
        size *= width
    _refuse_nulls(values, offsets, size)
    return _numbers(pa, values).reshape(count, *inner), offsets


def rows_to_arrow(values: AnyArray, offsets: Int64s) -> Any:
    """See `Ragged.to_arrow`."""
    pa = extra("pyarrow", "arrow")
    if 0 in values.shape[1:]:
        raise ValueError(
            f"Arrow has no lists of inner shape {values.shape[1:]}; inner dimensions must be 1 or more"
        )
    try:
        flat = pa.array(values.reshape(-1))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise TypeError(f"Arrow has no dtype like {values.dtype}; cast with .astype first") from None
    for width in reversed(values.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.LargeListArray.from_arrays(pa.array(offsets), flat)


def _is_list(pa: Any, kind: Any) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _children(pa: Any, array: Any) -> tuple[Int64s, Any]:
    """Offsets, and those elements of the child that the array's slice has."""
    if pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
        offsets = np.arange(len(array) + 1, dtype=np.int64) * width
        return offsets, array.values.slice(array.offset * width, len(array) * width)
    offsets = array.offsets.to_numpy(zero_copy_only=True).astype(np.int64, copy=False)
    first = int(offsets[0])
    # `.values` is the whole child, whatever the slice.
    values = array.values.slice(first, int(offsets[-1]) - first)
    return (offsets - first if first else offsets), values


def _rectangular(pa: Any, array: Any, rows: Int64s, size: int) -> tuple[int, Any]:
    """The one length of all lists of an inner level, `size` to an element, and their elements."""
    if pa.types.is_fixed_size_list(array.type):
        return array.type.list_size, _children(pa, array)[1]
    offsets, values = _children(pa, array)
    lengths = np.diff(offsets)
    width = int(lengths[0]) if len(lengths) else 0
    if (lengths != width).any():
        at = int(np.flatnonzero(lengths != width)[0])
        raise ValueError(
            f"{_place(rows, at // size)} has an inner list of {lengths[at]}, the first has {width}; "
            "inner dimensions must be rectangular"
        )
    return width, values


def _numbers(pa: Any, values: Any) -> AnyArray:
    if pa.types.is_boolean(values.type):
        bits: AnyArray = values.to_numpy(zero_copy_only=False)
        return bits.astype(bool)
    try:
        numbers: AnyArray = values.to_numpy(zero_copy_only=True)
    except pa.ArrowInvalid:
        raise TypeError(f"expected lists of numbers, got lists of {values.type}") from None
    return numbers


def _refuse_nulls(array: Any, rows: Int64s, size: int) -> None:
    """Refuse a null at any level below the rows; an element has `size` entries at this level."""
    if (at := _first_null(array)) is not None:
        raise ValueError(f"{_place(rows, at // size)} is null; fill or drop nulls first")


def _first_null(array: Any) -> int | None:
    if not array.null_count:
        return None
    return int(array.is_null().to_numpy(zero_copy_only=False).argmax())


def _place(rows: Int64s, element: int) -> str:
    row = int(np.searchsorted(rows, element, side="right")) - 1
    return f"row {row}, position {element - rows[row]}"


def columns_from_arrow(table: Any) -> dict[str, Any]:
    """See `Rollouts.from_arrow`."""
    pa = extra("pyarrow", "arrow")
    if not hasattr(table, "schema"):
        table = pa.table(table)
    return {name: _column_from_arrow(pa, name, table.column(name)) for name in table.schema.names}


def columns_to_arrow(columns: Any) -> Any:
    """See `Rollouts.to_arrow`."""
    pa = extra("pyarrow", "arrow")
    return pa.table(
        {
            name: rows_to_arrow(column.values, column.offsets)
            if isinstance(column, Ragged)
            else pa.array(column)
            for name, column in columns.items()
        }
    )


def _column_from_arrow(pa: Any, name: str, column: Any) -> Any:
    kind = column.type.storage_type if isinstance(column.type, pa.ExtensionType) else column.type
    leaf = kind
    while _is_list(pa, leaf):
        leaf = leaf.value_type
    number = pa.types.is_integer(leaf) or pa.types.is_floating(leaf) or pa.types.is_boolean(leaf)
    try:
        if number and _is_list(pa, kind):
            return Ragged(*rows_from_arrow(column))
        if number and not column.null_count:
            return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(False)
    except ValueError as error:
        raise ValueError(f"column {name!r}: {error}") from None
    return column.to_pylist()
