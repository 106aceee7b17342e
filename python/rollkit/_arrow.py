"""Arrow list arrays to rows and back, without a copy. Needs `pyarrow` (extra `arrow`)."""

from typing import Any

import numpy as np

from rollkit._check import AnyArray, Int64s
from rollkit._extras import extra
from rollkit._ragged import Ragged


def ragged_from_arrow(array: Any) -> Ragged:
    """See `Ragged.from_arrow`."""
    pa = extra("pyarrow", "arrow")
    if hasattr(array, "combine_chunks"):
        array = array.combine_chunks()
    if not isinstance(array, pa.Array):
        array = pa.array(array)
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if not _is_list(pa, array.type):
        raise TypeError(f"expected an Arrow list array, got {array.type}")
    _refuse_nulls(array, "row")
    offsets, values = _children(pa, array)
    inner: list[int] = []
    while _is_list(pa, values.type):
        _refuse_nulls(values, "element")
        width, values = _rectangular(pa, values)
        inner.append(width)
    _refuse_nulls(values, "value")
    return Ragged(_numbers(pa, values).reshape(-1, *inner), offsets)


def ragged_to_arrow(ragged: Ragged) -> Any:
    """See `Ragged.to_arrow`."""
    pa = extra("pyarrow", "arrow")
    values = ragged.values
    if values.dtype == bool:
        values = np.ascontiguousarray(values)  # Arrow packs bools into bits: the one copy
    flat = pa.array(values.reshape(-1))
    for width in reversed(ragged.inner):
        flat = pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.LargeListArray.from_arrays(pa.array(ragged.offsets), flat)


def _is_list(pa: Any, kind: Any) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _children(pa: Any, array: Any) -> tuple[Int64s, Any]:
    """Offsets into the child, and the whole child: `.values` ignores a slice, so offsets must not."""
    if pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
        offsets = (np.arange(len(array) + 1, dtype=np.int64) + array.offset) * width
        return offsets, array.values
    return array.offsets.to_numpy(zero_copy_only=True).astype(np.int64, copy=False), array.values


def _rectangular(pa: Any, array: Any) -> tuple[int, Any]:
    """The one length of all lists of an inner level, and its elements."""
    offsets, values = _children(pa, array)
    lengths = np.diff(offsets)
    width = int(lengths[0]) if len(lengths) else 0
    if (lengths != width).any():
        element = int(np.flatnonzero(lengths != width)[0])
        raise ValueError(
            f"inner lists differ in length: element 0 has {width}, element {element} has "
            f"{lengths[element]}; inner dimensions must be rectangular"
        )
    return width, values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def _numbers(pa: Any, values: Any) -> AnyArray:
    if pa.types.is_boolean(values.type):
        bits: AnyArray = values.to_numpy(zero_copy_only=False)
        return bits.astype(bool)
    try:
        numbers: AnyArray = values.to_numpy(zero_copy_only=True)
    except pa.ArrowInvalid:
        raise TypeError(f"expected lists of numbers, got lists of {values.type}") from None
    return numbers


def _refuse_nulls(array: Any, what: str) -> None:
    if array.null_count:
        place = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise ValueError(f"{what} {place} is null; fill or drop nulls first")


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
            name: ragged_to_arrow(column) if isinstance(column, Ragged) else pa.array(column)
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
            return ragged_from_arrow(column)
        if number and not column.null_count:
            return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(False)
    except ValueError as error:
        raise ValueError(f"column {name!r}: {error}") from None
    return column.to_pylist()
