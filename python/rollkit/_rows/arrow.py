"""Arrow list arrays to values and offsets and back, without a copy. Needs `pyarrow` (extra `arrow`)."""

from typing import Any

import numpy as np

from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._extras import extra
from rollkit._frameworks import AnyArray
from rollkit._rows.parts import Parts, end_to_end


def rows_from_arrow(array: Any) -> tuple[AnyArray, Int64s]:
    """Values and offsets; see `Ragged.from_arrow`."""
    pa = extra("pyarrow", "arrow")
    if not isinstance(array, pa.Array | pa.ChunkedArray):
        if hasattr(array, "__arrow_c_stream__"):
            array = pa.chunked_array(array)
        elif hasattr(array, "__arrow_c_array__"):
            array = pa.array(array)
    if not isinstance(array, pa.ChunkedArray):
        return _rows_of_array(pa, array)
    chunks = [chunk for chunk in array.chunks if len(chunk)]
    if len(chunks) <= 1:
        return _rows_of_array(pa, chunks[0] if chunks else pa.array([], array.type))
    # Not by Arrow: its offsets may be int32 at any level, and chunks together beyond.
    parts, before = [], 0
    for chunk in chunks:
        with at(first_row=before):
            values, offsets = _rows_of_array(pa, chunk)
        parts.append(Parts.over(values, offsets[:-1], np.diff(offsets)))
        before += len(chunk)
    joined: tuple[AnyArray, Int64s] = end_to_end(Parts.join(parts))
    return joined


def _rows_of_array(pa: Any, array: Any) -> tuple[AnyArray, Int64s]:
    if not isinstance(array, pa.Array):
        raise TypeError(f"expected an Arrow list array, got {type(array).__name__}")
    array = _stored(pa, array, None, 1)
    if not is_list(pa, array.type):
        raise TypeError(f"expected an Arrow list array, got {array.type}")
    if (row := _first_null(array)) is not None:
        raise refusal(ValueError, " is null; fill or drop nulls first", row=row)
    offsets, values = _children(pa, array)
    count, inner, size = len(values), [], 1
    while is_list(pa, (values := _stored(pa, values, offsets, size)).type):
        _refuse_nulls(values, offsets, size)
        width, values = _rectangular(pa, values, offsets, size)
        inner.append(width)
        size *= width
    _refuse_nulls(values, offsets, size)
    return _numbers(pa, values).reshape(count, *inner), offsets


def rows_to_arrow(values: AnyArray, offsets: Int64s) -> Any:
    """See `Ragged.to_arrow`."""
    pa = extra("pyarrow", "arrow")
    inner = values.shape[1:]
    if 0 in inner:
        raise ValueError(f"Arrow has no lists of inner shape {inner}; inner dimensions must be 1 or more")
    try:
        flat = pa.array(values.reshape(-1))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise TypeError(f"Arrow has no dtype like {values.dtype}; cast with .astype first") from None
    for width in reversed(inner):
        flat = pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.LargeListArray.from_arrays(pa.array(offsets), flat)


def stored_type(pa: Any, kind: Any) -> Any:
    """What an Arrow type is kept as: extension types as their storage, tensors as nested lists."""
    if not isinstance(kind, pa.BaseExtensionType):
        return kind
    shape = _tensor_shape(kind)
    if not shape:
        return stored_type(pa, kind.storage_type)
    leaf = kind.value_type
    for width in reversed(shape):
        leaf = pa.list_(leaf, width)
    return leaf


def _tensor_shape(kind: Any) -> tuple[int, ...]:
    """The shape of a `fixed_shape_tensor`, whose storage is flat; empty for other types."""
    if kind.extension_name != "arrow.fixed_shape_tensor":
        return ()
    order = kind.permutation
    if order is not None and list(order) != sorted(order):
        raise TypeError(f"tensors with a permutation ({order}) are not read; store them in row-major order")
    return tuple(kind.shape)


def _stored(pa: Any, array: Any, rows: Int64s | None, size: int) -> Any:
    """An array as `stored_type` has it. Rebuilding lists of a tensor loses nulls, so they are refused."""
    if not isinstance(array, pa.ExtensionArray):
        return array
    shape = _tensor_shape(array.type)
    if not shape:
        return _stored(pa, array.storage, rows, size)
    if rows is not None:
        _refuse_nulls(array, rows, size)
    elif (row := _first_null(array)) is not None:
        raise refusal(ValueError, " is null; fill or drop nulls first", row=row)
    nested = _children(pa, array.storage)[1]
    for width in reversed(shape):
        nested = pa.FixedSizeListArray.from_arrays(nested, width)
    return nested


def is_list(pa: Any, kind: Any) -> bool:
    """Whether an Arrow type is one of lists."""
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
        row, position = _place(rows, at // size)
        raise refusal(
            ValueError,
            f" has an inner list of {lengths[at]}, the first has {width}; inner dimensions must be "
            "rectangular",
            row=row,
            position=position,
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
        row, position = _place(rows, at // size)
        raise refusal(ValueError, " is null; fill or drop nulls first", row=row, position=position)


def _first_null(array: Any) -> int | None:
    if not array.null_count:
        return None
    return int(array.is_null().to_numpy(zero_copy_only=False).argmax())


def _place(rows: Int64s, element: int) -> tuple[int, int]:
    row = int(np.searchsorted(rows, element, side="right")) - 1
    return row, int(element - rows[row])
