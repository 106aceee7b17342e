"""Columns on disk: rows are appended chunk by chunk, and any of them can be read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._files.atomic import naming
from rollkit._frameworks import AnyArray
from rollkit._rollouts.columns import Column, Level, level_of
from rollkit._rollouts.fields import FIELDS
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.dtypes import common
from rollkit._rows.ragged import Ragged

Kind = Literal["tokens", "numbers", "objects"]
"""Elements per token, one number per row, or one object per row (kept as JSON text)."""

_REWRITE: Final = 1 << 22
"""Elements that a change of dtype converts at a time."""


class Spool:
    """Rollouts in a folder, one file a column. In memory there are only the lengths of rows.

    A file is open only while it is written to or read: a process may have fewer files open than there are
    columns.

    A column's dtype is what all its rows need, as if they had been read at once: where a later chunk
    has floats, or objects, what came before is converted.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._columns: dict[str, _Column] = {}
        self.rows = 0

    def append(self, chunk: Rollouts) -> None:
        """Add rows. Where a column is missing, in them or in those before, its entries are None.

        Raises:
            ValueError: a column's entries are of another kind, or a column of arrays is missing.
        """
        columns: dict[str, Column] = {name: [None] * len(chunk) for name in self._columns}
        for name, found in {**columns, **chunk.columns}.items():
            if name not in self._columns:
                path = self._folder / f"{len(self._columns)}.bin"
                self._columns[name] = _Column(name, path)
                if self.rows:
                    self._columns[name].append([None] * self.rows)
            self._columns[name].append(found)
        self.rows += len(chunk)

    def finish(self) -> None:
        """Make what was appended readable."""
        for column in self._columns.values():
            column.finish()

    def lengths(self, name: str) -> Int64s:
        """`[rows]` int64, the elements of each row; 0 for a column that is not there."""
        if name not in self._columns:
            return np.zeros(self.rows, np.int64)
        return np.diff(self._columns[name].offsets)

    def levels(self, said: Mapping[str, str]) -> dict[str, Level]:
        """What columns of arrays have an element for whose names do not say it, by the lengths of all rows.

        All columns are checked.

        Raises:
            ValueError: `said` has a column that there is not, or rows are not of those lengths.
        """
        for name in said.keys() - self._columns.keys():
            known = ", ".join(map(repr, self._columns))
            raise ValueError(f"levels has {name!r}, which is no column; there are {known}")
        ids = "response_ids" if "response_ids" in self._columns else "input_ids"
        prompts, responses = self.lengths("prompt_token_ids"), self.lengths(ids)
        found: dict[str, Level] = {}
        for name, column in self._columns.items():
            lengths = self.lengths(name) if column.kind == "tokens" else None
            if name not in ("prompt_token_ids", ids) and (lengths is not None or name in said):
                found[name] = level_of(name, lengths, prompts, responses, said)
        return {name: level for name, level in found.items() if name in said or name not in FIELDS}

    def tokens(self, rows: Int64s, levels: Mapping[str, str]) -> dict[str, Column]:
        """What `pack` takes of these rows: columns per token, and rewards."""
        return {
            name: column.take(rows).values if column.kind == "numbers" else column.take(rows)
            for name, column in self._columns.items()
            if _is_packed(name, column.kind, levels)
        }

    def scalars(self, rows: Int64s, levels: Mapping[str, str]) -> dict[str, AnyArray | Ragged]:
        """The entries of these rows in columns per row: numbers as an array, objects as their JSON texts."""
        found: dict[str, AnyArray | Ragged] = {}
        for name, column in self._columns.items():
            if column.kind == "numbers":
                found[name] = column.take(rows).values
            elif column.kind == "objects":
                found[name] = column.take(rows)
            elif levels.get(name) == "row":
                found[name] = _json_rows(name, _entries(column.take(rows)))
        return found


def per_token(columns: Mapping[str, Column], levels: Mapping[str, str]) -> dict[str, Column]:
    """The columns of a chunk that `Spool.tokens` would give of its rows."""
    return {name: column for name, column in columns.items() if _is_packed(name, _kind(column), levels)}


def _is_packed(name: str, kind: Kind | None, levels: Mapping[str, str]) -> bool:
    return (kind == "tokens" and levels.get(name) != "row") or (kind == "numbers" and name == "rewards")


class _Column:
    """The file of one column: the bytes of its elements, end to end."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.kind: Kind | None = None
        self._path = path
        self._path.touch()
        self._dtype: np.dtype[Any] | None = None  # of the elements; None until there is one
        self._inner: tuple[int, ...] = ()
        self._lengths: list[Int64s] = []
        self._only_none = True  # so far
        self.offsets: Int64s = np.zeros(1, np.int64)

    def append(self, column: Column) -> None:
        if isinstance(column, Ragged) and column.of_lists:
            text = "has a list for each token, which shards do not hold; --skip-column leaves it out"
            raise _refusal(self.name, text)
        kind, none = _kind(column), _only_none(column)
        if self.kind is None:
            self.kind = kind
        elif kind != self.kind:
            if "tokens" in (kind, self.kind) and (none or self._only_none):
                text = "is missing or null in some rows; a column of arrays needs an array in every row"
                raise _refusal(self.name, text)
            self._become_objects()
            kind = "objects"
        self._only_none &= none
        self._extend(self._as_ragged(column, kind))

    def _as_ragged(self, column: Column, kind: Kind) -> Ragged:
        if kind == "objects":
            entries = column if isinstance(column, list) else _entries(column)
            return _json_rows(self.name, entries)
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
        numbers, self.kind = self.kind == "numbers", "objects"
        offsets = np.append(0, np.cumsum(np.concatenate(self._lengths)))
        values = self._begun_anew().reshape(-1, *self._inner)
        self._lengths, self._dtype, self._inner = [], None, ()
        for start in range(0, len(offsets) - 1, 1024):
            rows = Ragged(values, offsets[start : start + 1025])
            self._extend(_json_rows(self.name, _entries(rows.flat if numbers else rows)))

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

    def finish(self) -> None:
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int64)
        self._lengths = []
        self.offsets = np.append(0, np.cumsum(lengths))

    def take(self, rows: Int64s) -> Ragged:
        # Mapped anew each time, so that pages read before count no longer as this process's memory.
        return Ragged(self._mapped(), self.offsets).take(rows)

    def _mapped(self) -> AnyArray:
        dtype = np.dtype(np.int64) if self._dtype is None else self._dtype
        if not self._path.stat().st_size:
            return np.empty((0, *self._inner), dtype)
        raw = np.memmap(self._path, np.uint8, mode="r")
        return np.asarray(raw).view(dtype).reshape(-1, *self._inner)


def _kind(column: Column) -> Kind:
    if isinstance(column, Ragged):
        return "tokens"
    return "numbers" if isinstance(column, np.ndarray) and column.ndim == 1 else "objects"


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


def _entries(column: Ragged | AnyArray) -> Iterator[Any]:
    return (row.tolist() for row in column)


def _json_rows(name: str, entries: Any) -> Ragged:
    with at(column=name, kind=ValueError):
        texts = [json.dumps(entry, separators=(",", ":")).encode() for entry in entries]
    offsets = np.append(0, np.cumsum([len(text) for text in texts], dtype=np.int64))
    return Ragged(np.frombuffer(b"".join(texts), np.uint8), offsets)
