"""Lists, arrays and tensors, and mixes of these, to values and offsets: `Ragged.from_rows`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from rollkit import _native
from rollkit._arrays.ops import as_like
from rollkit._check import Int64s, integer, items
from rollkit._errors import at, refusal, retold
from rollkit._frameworks import AnyArray, as_array, is_array
from rollkit._rows.casts import cast
from rollkit._rows.dtypes import common, numpy_dtype, odd_one
from rollkit._rows.lists import Lists, of_element
from rollkit._rows.parts import Parts, end_to_end, own_ops

Joined = tuple[Any, Int64s]
"""Values, end to end, and where rows begin and the last ends."""


def joined_rows(rows: Any, dtype: DTypeLike | None) -> Joined:
    """Rows of elements, joined in one write; see `Ragged.from_rows`."""
    if isinstance(rows, np.ndarray) and rows.dtype != object:
        return _from_rectangle(as_array(rows), dtype)
    if not isinstance(rows, list | tuple):
        rows = list(_check_rows(rows))
    tensors = None if rows and isinstance(rows[0], np.ndarray) else Parts.of_arrays(rows)
    if tensors is not None and tensors.own is not None:  # of its dtypes or of NumPy's
        return end_to_end(tensors, dtype=dtype)
    wanted = None if dtype is None else numpy_dtype(dtype)
    joined = _native.concat_arrays(rows) if rows and isinstance(rows[0], np.ndarray) else None
    if joined is None and tensors is None:
        tensors = Parts.of_arrays(rows)
    if joined is None and tensors is not None:
        joined = end_to_end(tensors)
    # Types first: asking each row whose array it is takes as long as reading a hundred numbers.
    if joined is None and (set(map(type, rows)) <= {list, tuple} or not any(map(is_array, rows))):
        joined = _from_lists(rows, wanted)
    if joined is None:
        return _from_mixed(rows, wanted)
    return joined if wanted is None else cast(*joined, wanted)


def joined_lists(rows: Any, dtype: DTypeLike | None) -> Joined:
    """Rows of which each element is a list, as `Lists`."""
    rows = list(_check_rows(rows))
    for i, row in enumerate(rows):
        if isinstance(row, str | bytes | Mapping) or not hasattr(row, "__len__"):
            raise refusal(TypeError, f" is {type(row).__name__}; expected a list for each element", row=i)
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    offsets = _native.offsets_from_lengths(lengths)
    with of_element(offsets):
        return Lists(*joined_rows(list(chain.from_iterable(rows)), dtype)), offsets


def picked_rows(rows: Any, dtype: DTypeLike | None, item: Any) -> Joined:
    """One number of each element, which is more than a number."""
    wanted = None if dtype is None else numpy_dtype(dtype)
    if not isinstance(item, int | str) or isinstance(item, bool):
        raise TypeError(f"item must be an int or a str, got {type(item).__name__}")
    if isinstance(item, int):
        item = integer("item", item)
    rows = rows if isinstance(rows, list | tuple) else items("rows", rows)
    return _from_lists(rows, wanted, lambda dtype: _native.pick_numbers(rows, item, dtype))


def _check_rows(rows: Any) -> Any:
    if isinstance(rows, str | bytes) or not hasattr(rows, "__iter__"):
        raise TypeError(f"rows must be a sequence of rows, got {type(rows).__name__}")
    return rows


def _from_rectangle(rows: AnyArray, dtype: DTypeLike | None) -> Joined:
    if rows.ndim < 2:
        raise TypeError(f"rows must be a sequence of rows, got a {rows.ndim}-D {rows.dtype} array")
    count, width = rows.shape[:2]
    flat = np.ascontiguousarray(rows).reshape(count * width, *rows.shape[2:])
    joined = flat, np.arange(count + 1, dtype=np.int64) * width
    return joined if dtype is None else cast(*joined, dtype)


def _from_lists(
    rows: list[Any] | tuple[Any, ...],
    dtype: np.dtype[Any] | None,
    read: Callable[[np.dtype[Any] | None], Joined] | None = None,
) -> Joined:
    """Rows that are lists, as `read` reads them where their elements are no numbers."""
    if dtype is not None and dtype.kind != "b" and not _native.can_cast(np.dtype(np.int64), dtype):
        # Not one that lists are read as (float16, bfloat16, byte-swapped): by way of one that is.
        return cast(*_from_lists(rows, None, read), dtype)
    read = read or (lambda dtype: _native.from_lists(rows, dtype))
    try:
        return read(dtype)
    except (TypeError, OverflowError):
        if dtype is not None:
            raise
        # The first number decides, but not for the others: NumPy's small integers and bools widen.
        with suppress(TypeError, OverflowError):
            return read(np.dtype(np.int64))
        # Ints with a float among them are floats, as in NumPy; anything else fails again, and says so.
        return read(np.dtype(np.float64))


def _from_mixed(rows: Sequence[Any], dtype: np.dtype[Any] | None) -> Joined:
    """Rows of which some are arrays: lists become arrays of the first array's dtype."""
    kept = next((row for row in rows if is_array(row) and own_ops(row) is not None), None)
    if kept is not None:
        alike = [as_like(f"row {i}", row, kept, kept.dtype) for i, row in enumerate(rows)]
        if (parts := Parts.of_arrays(alike)) is not None:
            whole = end_to_end(parts)
            return whole if dtype is None else cast(*whole, dtype)
    arrays = [_array_of(i, row) for i, row in enumerate(rows)]
    for i, row in enumerate(arrays):
        if isinstance(row, np.ndarray):
            if row.ndim == 0:
                raise ValueError(f"row {i} is a 0-D array; a row has at least one dimension")
            if row.dtype == object:
                arrays[i] = row.tolist()
    at = next((i for i, row in enumerate(arrays) if isinstance(row, np.ndarray)), None)
    if at is None:
        return _from_lists(arrays, dtype)
    first = arrays[at]
    wanted = dtype or _common_of({i: row for i, row in enumerate(arrays) if isinstance(row, np.ndarray)})
    for i, row in enumerate(arrays):
        if not isinstance(row, np.ndarray):
            arrays[i] = _one_list(i, row, wanted, first.shape[1:], fixed=dtype is not None)
        elif row.shape[1:] != first.shape[1:]:
            raise ValueError(f"row {i} has inner shape {row.shape[1:]}, row {at} has {first.shape[1:]}")
    dtype = dtype or _common_of(dict(enumerate(arrays)))
    for i, row in enumerate(arrays):
        if row.dtype != dtype:
            row = _cast_row(i, row, dtype) if len(row) else row.astype(dtype)
        arrays[i] = np.ascontiguousarray(row).view(dtype)
    # One dtype object for all rows: the kernel compares it by identity.
    arrays = [row if row.dtype is dtype else row.view(dtype) for row in arrays]
    joined = _native.concat_arrays(arrays)
    if joined is None:
        raise AssertionError("rows were made alike")  # pragma: no cover
    return joined


def _array_of(index: int, row: Any) -> Any:
    """`as_array`, whose refusal names the row."""
    try:
        return as_array(row)
    except TypeError as error:
        raise retold(error, row=index) from None


def _cast_row(row: int, values: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    with at(row=row):
        found: AnyArray = cast(np.ascontiguousarray(values), np.array([0, len(values)], np.int64), dtype)[0]
        return found


def _common_of(rows: dict[int, AnyArray]) -> np.dtype[Any]:
    """The dtype that rows meet in; empty ones, which NumPy makes float64, have no say where others have."""
    dtypes = {i: row.dtype for i, row in rows.items() if len(row)} or {
        i: row.dtype for i, row in rows.items()
    }
    try:
        found: np.dtype[Any] = common(dtypes.values())
        return found
    except TypeError as error:
        raise retold(error, row=list(dtypes)[odd_one(dtypes.values())]) from None


def _one_list(
    row: int, values: Any, dtype: np.dtype[Any], inner: tuple[int, ...], *, fixed: bool
) -> AnyArray:
    """A list as an array of `dtype`; of its own where that is not fixed, and does not hold it."""
    with at(row=row):
        try:
            found: AnyArray = _from_lists([values], dtype)[0]
        except (TypeError, OverflowError):
            if fixed:
                raise
            found = _from_lists([values], None)[0]
    if len(found) == 0:
        found = np.empty((0, *inner), dtype)
    if found.shape[1:] != inner:
        raise ValueError(f"row {row} has inner shape {found.shape[1:]}, expected {inner}")
    return found
