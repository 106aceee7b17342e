"""Columns on disk: rows are appended chunk by chunk, and any of them can be read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._files.atomic import naming
from rollkit._files.spooled import (
    Element,
    Kind,
    Piece,
    Spooled,
    Stored,
    entries_of,
    is_packed,
    json_rows,
    mapped,
)
from rollkit._frameworks import AnyArray
from rollkit._rollouts.columns import Column
from rollkit._rollouts.fields import FIELDS
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.dtypes import common
from rollkit._rows.ragged import Ragged

_REWRITE: Final = 1 << 22
"""Elements that a change of dtype converts at a time."""


class Spool:
    """Rollouts in a folder, one file a column, two of lists. In memory there are only the lengths of rows.

    A file is open only while it is written to or read: a process may have fewer files open than there are
    columns.

    A column's dtype is what all its rows need, as if they had been read at once: where a later chunk
    has floats, or objects, what came before is converted.

    Args:
        folder: made if it is missing.
        prefix: what the names of files begin with, so that several spools may be in a folder.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        folder.mkdir(exist_ok=True)
        self._files = folder, prefix
        self._made = 0  # files
        self._columns: dict[str, _Column] = {}
        self._counts: dict[str, _Column] = {}  # of columns of lists, the entries of each; the rest is flat
        self.rows = 0

    def append(self, chunk: Rollouts) -> None:
        """Add rows. Where a column is missing, in them or in those before, its entries are None.

        Raises:
            ValueError: a column's entries are of another kind, or a column of arrays is missing.
        """
        columns: dict[str, Column] = {name: [None] * len(chunk) for name in self._columns}
        for name, found in {**columns, **chunk.columns}.items():
            if name not in self._columns:
                self._columns[name] = self._begun(name)
                if self.rows:
                    self._columns[name].append([None] * self.rows)
            self._columns[name].append(self._without_counts(name, found))
        self.rows += len(chunk)

    def finish(self) -> Spooled:
        """What was appended, to be read."""
        counts = {name: column.stored() for name, column in self._counts.items()}
        stored = {name: column.stored(counts.get(name)) for name, column in self._columns.items()}
        return Spooled(stored, self.rows)

    def _begun(self, name: str) -> _Column:
        folder, prefix = self._files
        self._made += 1
        return _Column(name, folder / f"{prefix}{self._made - 1}.bin")

    def _without_counts(self, name: str, found: Column) -> Column:
        """What there is of a column in its file: of lists the entries of all, end to end.

        The first row that has an element tells whether elements are lists.
        """
        rows = found if isinstance(found, Ragged) else None
        if rows is not None and rows.of_lists and name not in self._counts and not self._columns[name].filled:
            self._counts[name] = self._begun(name)
            self._counts[name].append(_empty(self.rows))
            self._columns[name].none = rows.dtype, rows.inner[1:]
        lists = name in self._counts
        if rows is not None and not len(rows.flat):
            if lists:
                self._counts[name].append(_empty(len(rows)))
            return _empty(len(rows))
        null = _only_none(found) or self._columns[name].only_none  # `append` says what is wrong with it
        if lists != (rows is not None and rows.of_lists) and not null:
            text = "has a list for each token in some rows, and none in others"
            raise _refusal(name, f"{text}; --level {name}=response[] says that each has one")
        if not lists or rows is None:
            return found
        elements: Any = rows.flat
        bounds = rows.offsets - rows.offsets[0]
        self._counts[name].append(Ragged(elements.lengths, bounds))
        return Ragged(elements.values, elements.offsets[bounds])


def per_token(columns: Mapping[str, Column], levels: Mapping[str, str]) -> dict[str, Column]:
    """The columns of a chunk that `Spooled.tokens` would give of its rows."""
    return {name: column for name, column in columns.items() if is_packed(name, _kind(column), levels)}


class _Column:
    """The file of one column: the bytes of its elements, end to end."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.kind: Kind | None = None
        self._path = path
        self._path.write_bytes(b"")
        self._dtype: np.dtype[Any] | None = None  # of the elements; None until there is one
        self._inner: tuple[int, ...] = ()
        self._lengths: list[Int64s] = []
        self.none: Element = np.dtype(np.int64), ()  # what an element is where there is none
        self.only_none = True  # so far
        self._turned = False  # to objects from another kind

    def append(self, column: Column) -> None:
        kind, none = _kind(column), _only_none(column)
        if self.kind is None:
            self.kind = kind
        elif kind != self.kind:
            if "tokens" in (kind, self.kind) and (none or self.only_none):
                text = "is missing or null in some rows; a column of arrays needs an array in every row"
                raise _refusal(self.name, text)
            self._become_objects()
            kind = "objects"
        self.only_none &= none
        self._extend(self._as_ragged(column, kind))

    def _as_ragged(self, column: Column, kind: Kind) -> Ragged:
        if kind == "objects":
            entries = column if isinstance(column, list) else entries_of(column)
            return json_rows(self.name, entries)
        if isinstance(column, Ragged):
            return column
        values = np.asarray(column)
        return Ragged(values, np.arange(len(values) + 1))

    def _extend(self, rows: Ragged) -> None:
        flat = rows.flat
        if len(flat):  # no element has no dtype: a chunk of empty rows decides nothing
            flat = self._agree(flat)
            self._write([flat])
        self._lengths.append(rows.lengths)

    def _agree(self, flat: AnyArray) -> AnyArray:
        if self._dtype is None:
            self._dtype, self._inner = flat.dtype, flat.shape[1:]
        if flat.shape[1:] != self._inner:
            text = f"has inner shape {flat.shape[1:]}, {self._inner} in the rows before"
            raise _refusal(self.name, text)
        if flat.dtype != self._dtype:
            wanted = _common(self.name, self._dtype, flat.dtype)
            self._convert(wanted)
            flat = flat.astype(wanted)
        return flat

    def _convert(self, wanted: np.dtype[Any]) -> None:
        if wanted == self._dtype:
            return
        values = self._begun_anew()
        parts = range(0, len(values), _REWRITE)
        self._write(values[start : start + _REWRITE].astype(wanted) for start in parts)
        self._dtype = wanted

    def _become_objects(self) -> None:
        if self.name in FIELDS:
            text = "is missing, null, or of another kind in some rows; give it in all rows alike"
            raise _refusal(self.name, text)
        if self.kind == "objects":
            return
        numbers, self.kind, self._turned = self.kind == "numbers", "objects", True
        offsets = np.append(0, np.cumsum(np.concatenate(self._lengths)))
        values = self._begun_anew().reshape(-1, *self._inner)
        self._lengths, self._dtype, self._inner = [], None, ()
        for start in range(0, len(offsets) - 1, 1024):
            rows = Ragged(values, offsets[start : start + 1025])
            self._extend(json_rows(self.name, entries_of(rows.flat if numbers else rows)))

    def _begun_anew(self) -> AnyArray:
        """Return what is written so far, and begin the file anew."""
        values = self._mapped()
        self._path.unlink()  # the mapping keeps what it maps
        self._path.touch()
        return values.reshape(-1)

    def _write(self, parts: Iterable[AnyArray]) -> None:
        with naming(self._path), self._path.open("ab") as file:
            for part in parts:
                file.write(_bytes(part))

    @property
    def filled(self) -> bool:
        """Whether a row has an element."""
        return any(lengths.any() for lengths in self._lengths)

    def stored(self, counts: Stored | None = None) -> Stored:
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int64)
        offsets = np.append(0, np.cumsum(lengths))
        piece = Piece(self._path, self._dtype, self._inner, offsets)
        return Stored(self.kind, [piece], self._turned, counts, self.none)

    def _mapped(self) -> AnyArray:
        return mapped(self._path, self._dtype, self._inner)


def _kind(column: Column) -> Kind:
    if isinstance(column, Ragged):
        return "tokens"
    return "numbers" if isinstance(column, np.ndarray) and column.ndim == 1 else "objects"


def _empty(rows: int) -> Ragged:
    return Ragged(np.empty(0, np.int64), np.zeros(rows + 1, np.int64))


def _refusal(name: str, text: str) -> ValueError:
    return refusal(ValueError, f"column {name!r} {text}", column=name, label="")


def _only_none(column: Column) -> bool:
    return isinstance(column, list) and all(entry is None for entry in column)


def _common(name: str, a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that holds the values of both, as in `read`."""
    try:
        wanted: np.dtype[Any] = common((a, b))
    except TypeError as error:
        if a.kind in "iu" and b.kind in "iu":
            raise _refusal(name, f"has integers of {a} and of {b}; no integer dtype holds both") from None
        raise _refusal(name, str(error)) from None
    return wanted


def _bytes(values: AnyArray) -> memoryview:
    # As bytes, for bfloat16 and its like export no buffer of their own.
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
