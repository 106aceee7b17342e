"""Arrow tables to columns and back, over the same memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from rollkit import _native
from rollkit._errors import at, refusal
from rollkit._extras import extra
from rollkit._rollouts.fields import FIELDS
from rollkit._rows.arrow import (
    Arrow,
    asked_for,
    exported,
    is_arrow,
    numbers_exported,
    read,
    rows_of,
    without_decimals,
)
from rollkit._rows.ragged import Ragged, of_values

A_TABLE: Final = "expected an array of Arrow, got a table; take one of its columns, or of several tables one"


def columns_from_arrow(table: Any, lists: Collection[str] = ()) -> dict[str, Any]:
    """See `Rollouts.from_arrow`; `lists` are columns whose elements are lists, beside known ones."""
    got = type(table).__name__
    if isinstance(table, Mapping):
        splits = ", ".join(map(repr, table)) or "none"
        raise TypeError(f"table must be an Arrow table, got {got}; take one of its tables: {splits}")
    if isinstance(table, list | tuple):
        text = f"table must be an Arrow table, got {got}; take each, and rollkit.concat what comes of them"
        raise TypeError(text)
    if not is_arrow(table) and hasattr(table, "with_format"):  # a `datasets.Dataset`, with its order of rows
        if not hasattr(table, "__len__"):
            raise TypeError(
                f"table must be an Arrow table, got {got}, a stream of rows; Rollouts.from_rows takes it"
            )
        table = table.with_format("arrow")[:]
    if not is_arrow(table):
        raise TypeError(f"table must be an Arrow table, got {got}")
    names, chunks = read(table)
    if names is None:
        raise TypeError(f"table must be an Arrow table, got an array of {chunks[0].type}")
    theirs = getattr(getattr(table, "schema", None), "names", None)
    if isinstance(theirs, list) and len(theirs) == len(names):
        names = theirs  # the interface cuts names off at a NUL
    double = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if double is not None:
        raise ValueError(f"the table has two columns {double!r}; rename one of them")
    return {
        name: _column(name, [chunk[i] for chunk in chunks], name in lists) for i, name in enumerate(names)
    }


def column_from_arrow(name: str, column: Any) -> Any:
    """A column of an Arrow array: rows of numbers as `Ragged`, numbers as an array, else a list."""
    names, chunks = read(column)
    if names is not None:
        raise refusal(TypeError, A_TABLE, column=name)
    return _column(name, chunks)


def _column(name: str, chunks: Sequence[Arrow], lists: bool = False) -> Any:
    lists = lists or (name in FIELDS and FIELDS[name].lists)
    with at(column=name):
        chunks = without_decimals(chunks)
        first = next((chunk for chunk in chunks if chunk.length), chunks[0])
        number = first.leaf.kind == "numbers"
        if first.is_list and (number or (first.leaf.kind == "nulls" and not first.leaf.length)):
            values, offsets = rows_of(chunks, lists)
            if first.stored.kind == "fixed" and not lists and _is_per_row(name):
                return values.reshape(len(offsets) - 1, first.stored.first, *values.shape[1:])
            return of_values(values, offsets)
        stored = [chunk.stored for chunk in chunks]
        if number and all(chunk.missing is None for chunk in stored):
            arrays = [chunk.numbers() for chunk in stored]
            return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        return [entry for chunk in chunks for entry in chunk.objects()]


def _is_per_row(name: str) -> bool:
    """Whether rows of one length are an array with an entry per row: its name does not say otherwise."""
    return name not in FIELDS or FIELDS[name].per == "row"


def stream_of(columns: Mapping[str, Any], rows: int, requested: Any) -> Any:
    """A stream of one record batch; see `Rollouts.__arrow_c_stream__`."""
    large = {} if requested is None else dict(asked_for(requested))
    specs = []
    for name, column in columns.items():
        with at(column=name):
            if "\0" in name or (not name.isascii() and name.encode(errors="ignore").decode() != name):
                raise ValueError(
                    "Arrow's interface has no names with a NUL, or of no UTF-8; rename the column"
                )
            specs.append(_exported(column, large.get(name, True)))
    return _native.export_stream(list(columns), specs, rows)


def _exported(column: Any, large: bool) -> tuple[Any, ...]:
    if isinstance(column, Ragged):
        return exported(column._host_parts("to_arrow"), column.offsets, large)
    if isinstance(column, np.ndarray) and column.dtype != object:
        return numbers_exported(column)
    found = list(column)
    if all(entry is None or isinstance(entry, str) for entry in found):
        return "texts", found
    return "other", extra("pyarrow", "arrow").array(found)
