"""The columns of a token tree: a row of one, and all of it, an element for each token that is stored."""

from __future__ import annotations

from copy import copy
from typing import Any, Final, TypeVar

import numpy as np

from rollkit import _native
from rollkit._check import host
from rollkit._errors import at
from rollkit._frameworks import AnyArray
from rollkit._rollouts.fields import FIELDS
from rollkit._rows.dtypes import common
from rollkit._rows.growing import Growing
from rollkit._rows.lists import Lists
from rollkit._rows.ragged import Ragged

Row = AnyArray | Ragged
"""The elements of one turn: numbers, or a list for each token."""

_INT64: Final = np.dtype(np.int64)


class GrowingLists:
    """Lists, one for each element, with room for more after them."""

    def __init__(self, dtype: np.dtype[Any], inner: tuple[int, ...]) -> None:
        self._entries = Growing(dtype, inner)
        self._bounds = Growing(_INT64, ())  # where lists begin, and the last ends
        self._bounds.room(1)[...] = 0
        self._bounds.length = 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the entries."""
        return self._entries.dtype

    @property
    def inner(self) -> tuple[int, ...]:
        """The shape of an entry."""
        return self._entries.inner

    @property
    def rows(self) -> Lists:
        """A view of the lists, until there are more."""
        return Lists(self._entries.rows, self._bounds.rows)

    @property
    def length(self) -> int:
        """How many lists there are."""
        return self._bounds.length - 1

    @length.setter
    def length(self, length: int) -> None:
        self._bounds.length = length + 1
        self._entries.length = int(self._bounds.rows[-1])

    def astype(self, dtype: np.dtype[Any], inner: tuple[int, ...] | None = None) -> GrowingLists:
        """The lists with entries of a dtype that holds them, and of another shape if there are none."""
        if self.dtype == dtype and inner in (None, self.inner):
            return self
        entries = self._entries.rows.astype(dtype)
        found = GrowingLists(dtype, self.inner if inner is None else inner)
        found._bounds = Growing.over(self._bounds.rows)
        if len(entries):
            found._entries = Growing.over(entries)
        return found

    def write(self, before: int, row: Any) -> None:
        """Write so many empty lists behind the end, and then those of a row."""
        end = self._entries.length
        bounds = self._bounds.room(before + len(row))
        bounds[:before] = end
        np.add(row.offsets[1:], end - row.offsets[0], out=bounds[before:])
        if len(row.flat):
            self._entries.room(len(row.flat))[...] = row.flat


Column = Growing | GrowingLists
C = TypeVar("C", bound=Growing | GrowingLists)


def until_now(column: C) -> C:
    """A view of a column that stays as long as it is, whatever is written behind its end."""
    found = copy(column)
    if isinstance(found, GrowingLists):
        found._entries, found._bounds = copy(found._entries), copy(found._bounds)
    return found


def of_rows(rows: Row) -> Column:
    """A column that begins with these elements."""
    column = begun(rows)
    write(column, 0, 0, rows)
    column.length = len(rows)
    return column


def begun(row: Row) -> Column:
    """An empty column for such elements."""
    if isinstance(row, Ragged):
        return GrowingLists(row.dtype, row.inner)
    return Growing(row.dtype, row.shape[1:])


def write(column: Column, before: int, fill: Any, row: Row) -> None:
    """Write elements behind the end: the fill, so many times, and a row. `length` counts them later."""
    if isinstance(column, GrowingLists):
        column.write(before, row)
        return
    room = column.room(before + len(row))
    room[:before] = fill
    if len(row):
        room[before:] = row


def fitting(name: str, column: Column | None, row: Row) -> Column:
    """The column that takes a row: this one, or a wider copy.

    Raises:
        ValueError: the row has elements of another shape, or none that are lists where those before are.
        TypeError: no dtype holds both.
    """
    if column is None:
        return begun(row)
    own, given = isinstance(column, GrowingLists), isinstance(row, Ragged)
    if own != given and len(row):
        kinds = "numbers", "a list for each token"
        raise ValueError(f"{name} has {kinds[given]}, in the turns before {kinds[own]}")
    values = row.flat if isinstance(row, Ragged) else row
    if not len(values):
        return column  # without a number it has no say in what these are
    inner = values.shape[1:]
    if isinstance(column, GrowingLists) and not len(column.rows.values):
        return column.astype(values.dtype, inner)
    if inner != column.inner:
        raise ValueError(f"{name} has inner shape {inner}, in the turns before {column.inner}")
    if column.dtype == values.dtype:
        return column
    with at(column=name):
        dtype = common((column.dtype, values.dtype))
    return column.astype(dtype) if isinstance(column, GrowingLists) else wider(column, dtype)


def wider(column: Growing, dtype: np.dtype[Any]) -> Growing:
    """The column in a dtype that holds its own; itself if that is the same."""
    return column if column.dtype == dtype else Growing.over(column.rows.astype(dtype))


def row_of(name: str, value: Any, lists: bool = False) -> Row:
    """One row of a column, in the column's dtype."""
    field = FIELDS.get(name)
    dtype = None if field is None else field.dtype
    lists = lists or (field is not None and field.lists)
    if type(value) is np.ndarray and not lists and (known := _as_it_is(value, dtype)) is not None:
        return known
    with at(column=name, label=name, alone=True):
        if dtype is not None and not lists and type(value) is list:
            found: AnyArray = _native.from_lists([value], dtype)[0]  # as `Ragged.from_rows` does
            return found
        if isinstance(value, Ragged):
            if field is not None and not field.lists:
                raise TypeError("expected an element per token, got a list for each")
            if value.of_lists:
                raise TypeError("expected a list per token, got lists of lists")
            own = Ragged(host(name, value.flat), value.offsets - value.offsets[0])
            return own if dtype is None else own.astype(dtype)
        if not isinstance(value, list | tuple):
            if isinstance(value, np.ndarray) and hasattr(value, "mask"):  # which nothing here looks at
                raise TypeError("a masked array; fill it (.filled), or give what is left (.compressed)")
            found = host(name, value)
            if found.ndim == 0:
                raise TypeError(f"expected an element per token, got {value!r}")
            value = found
        try:
            row: Row = Ragged.from_rows([value], dtype, lists=lists).flat
        except ValueError as error:
            if field is None and not lists:
                error.add_note(f'levels={{{name!r}: "response[]"}} takes a list of any length for each token')
            raise
        if row.dtype.kind not in "biufcV":
            raise TypeError(f"expected numbers, got {row.dtype}")
        return row


def _as_it_is(value: AnyArray, dtype: np.dtype[Any] | None) -> AnyArray | None:
    """An array that needs no look at its numbers, or no second: what it has is copied where it is kept."""
    own = value.dtype
    if not value.ndim:
        return None
    if own == dtype:
        return value if value.flags.c_contiguous and value.flags.aligned else None
    if dtype is not None and dtype.kind == "i" and own.kind in "iu":
        found = value.astype(dtype)
        return found if (found == value).all() else None
    return None
