"""Arrow tables to columns and back, over the same memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from rollkit import _native
from rollkit._errors import at, refusal
from rollkit._extras import extra
from rollkit._rollouts.fields import FIELDS
from rollkit._rows.arrow import Arrow, asked_for, exported, is_arrow, numbers_exported, read, rows_of
from rollkit._rows.ragged import Ragged, of_values


def columns_from_arrow(table: Any, lists: Collection[str] = ()) -> dict[str, Any]:
    """See `Rollouts.from_arrow`; `lists` are columns whose elements are lists, beside known ones."""
    if not is_arrow(table) and hasattr(table, "with_format"):  # a `datasets.Dataset`, with its order of rows
        table = table.with_format("arrow")[:]
    if not is_arrow(table):
        raise TypeError(f"table must be an Arrow table, got {type(table).__name__}")
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
        text = "expected an array of Arrow, got a table; take one of its columns"
        raise refusal(TypeError, text, column=name)
    return _column(name, chunks)


def _column(name: str, chunks: Sequence[Arrow], lists: bool = False) -> Any:
    lists = lists or (name in FIELDS and FIELDS[name].lists)
    with at(column=name):
        first = next((chunk for chunk in chunks if chunk.length), chunks[0])
        number = first.leaf.kind == "numbers"
        if first.is_list and (number or (first.leaf.kind == "nulls" and not first.leaf.length)):
            return of_values(*rows_of(chunks, lists))
        stored = [chunk.stored for chunk in chunks]
        if number and all(chunk.missing is None for chunk in stored):
            arrays = [chunk.numbers() for chunk in stored]
            return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        return [entry for chunk in chunks for entry in chunk.objects()]


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
