"""What spools hold, to be read: `Spooled`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rollkit._check import Int64s
from rollkit._errors import at
from rollkit._frameworks import AnyArray
from rollkit._native import offsets_from_lengths
from rollkit._rollouts.columns import Column, Level, level_of
from rollkit._rollouts.fields import FIELDS
from rollkit._rows.dtypes import common
from rollkit._rows.parts import Parts, end_to_end, gathered
from rollkit._rows.ragged import Ragged

Kind = Literal["tokens", "numbers", "objects"]
"""Elements per token, one number per row, or one object per row (kept as JSON text)."""


Element = tuple[np.dtype[Any], tuple[int, ...]]
"""The dtype and shape of an element."""


@dataclass(frozen=True)
class Piece:
    """Rows of a column in a file: the bytes of their elements, end to end.

    Attributes:
        path: of the file.
        dtype: of the elements; None where there is none.
        inner: the shape of an element.
        offsets: `[rows + 1]`, where rows begin, in elements.
    """

    path: Path
    dtype: np.dtype[Any] | None
    inner: tuple[int, ...]
    offsets: Int64s


@dataclass(frozen=True)
class Stored:
    """A column, in pieces whose rows count through.

    Attributes:
        kind: what an entry of it is.
        pieces: in the order of rows.
        turned: its kind was another one in the first rows, and what came before was converted.
        counts: where each element is a list, how many entries each has: the pieces hold entries then.
        none: the dtype and shape of an element where there is none.
    """

    kind: Kind | None
    pieces: list[Piece]
    turned: bool = False
    counts: Stored | None = None
    none: Element = (np.dtype(np.int64), ())

    @property
    def lengths(self) -> Int64s:
        """`[rows]`, the elements of each row."""
        if self.counts is not None:
            return self.counts.lengths
        return np.concatenate([np.diff(piece.offsets) for piece in self.pieces])

    def goes_on_with(self, other: Stored) -> bool:
        """Whether the entries of another are stored as they are where they are appended to these."""
        inner = {piece.inner for piece in (*self.pieces, *other.pieces) if piece.dtype is not None}
        alike = other.kind == self.kind and (other.counts is None) == (self.counts is None)
        return alike and not other.turned and len(inner) < 2

    @classmethod
    def joined(cls, parts: Sequence[Stored]) -> Stored:
        """Let the rows of several count through, each of which goes on with the first."""
        counts = [part.counts for part in parts if part.counts is not None]
        pieces = [piece for part in parts for piece in part.pieces]
        joined = cls.joined(counts) if counts else None
        return cls(parts[0].kind, pieces, counts=joined, none=parts[0].none)

    def take(self, rows: Int64s) -> Ragged:
        """Copy rows, which ascend where there are several pieces."""
        if self.counts is None:
            return self._take(rows)
        counts, entries = self.counts.take(rows), self._take(rows)
        lists: Any = Ragged(entries.values, offsets_from_lengths(counts.values))
        return Ragged(lists, counts.offsets)

    def _take(self, rows: Int64s) -> Ragged:
        # Mapped anew each time, so that pages read before count no longer as this process's memory.
        dtype, inner = self._element()
        if len(self.pieces) == 1:
            (piece,) = self.pieces
            return Ragged(mapped(piece.path, dtype, inner), piece.offsets).take(rows)
        ends = np.cumsum([len(piece.offsets) - 1 for piece in self.pieces])
        bounds = np.searchsorted(rows, [0, *ends])
        found = []
        for i, piece in enumerate(self.pieces):
            mine = rows[bounds[i] : bounds[i + 1]] - (ends[i] - (len(piece.offsets) - 1))
            begins, lengths = piece.offsets[mine], piece.offsets[mine + 1] - piece.offsets[mine]
            values = mapped(piece.path, piece.dtype or dtype, inner)
            if values.dtype != dtype:
                values, offsets = gathered(values, begins, lengths, copy=True)
                values, begins = values.astype(dtype), offsets[:-1]
            found.append(Parts.over(values, begins, lengths))
        return Ragged(*end_to_end(Parts.join(found)))

    def _element(self) -> Element:
        """The dtype that all elements meet in, as in `read`, and their shape."""
        filled = [piece for piece in self.pieces if piece.dtype is not None]
        if not filled:
            return self.none
        # One after the other, as they would be appended.
        dtypes = [piece.dtype for piece in filled if piece.dtype is not None]
        return reduce(lambda a, b: common((a, b)), dtypes), filled[0].inner


@dataclass(frozen=True)
class Spooled:
    """Columns on disk, of which any rows can be read.

    Attributes:
        columns: by their names.
        rows: how many there are.
    """

    columns: dict[str, Stored]
    rows: int

    @classmethod
    def joined(cls, parts: Sequence[Spooled]) -> Spooled | None:
        """Let the rows of several count through; None where one spool of all of them would hold other texts.

        That is where a column is of several kinds: what is a number in one part, and an object in
        another, is written as it was when the first object came.
        """
        columns = {}
        for name, column in parts[0].columns.items():
            others = [part.columns[name] for part in parts[1:] if name in part.columns]
            if len(others) < len(parts) - 1 or not all(map(column.goes_on_with, others)):
                return None
            columns[name] = Stored.joined([column, *others])
        if any(len(part.columns) != len(columns) for part in parts):
            return None
        return cls(columns, sum(part.rows for part in parts))

    def lengths(self, name: str) -> Int64s:
        """`[rows]` int64, the elements of each row; 0 for a column that is not there."""
        return self.columns[name].lengths if name in self.columns else np.zeros(self.rows, np.int64)

    def levels(self, said: Mapping[str, str]) -> dict[str, Level]:
        """What columns of arrays have an element for whose names do not say it, by the lengths of all rows.

        All columns are checked.

        Raises:
            ValueError: `said` has a column that there is not, or rows are not of those lengths.
        """
        for name in said.keys() - self.columns.keys():
            known = ", ".join(map(repr, self.columns))
            raise ValueError(f"levels has {name!r}, which is no column; there are {known}")
        ids = "response_ids" if "response_ids" in self.columns else "input_ids"
        prompts, responses = self.lengths("prompt_token_ids"), self.lengths(ids)
        found: dict[str, Level] = {}
        for name, column in self.columns.items():
            lengths = self.lengths(name) if column.kind == "tokens" else None
            if name not in ("prompt_token_ids", ids) and (lengths is not None or name in said):
                found[name] = level_of(name, lengths, prompts, responses, said)
        return {name: level for name, level in found.items() if name in said or name not in FIELDS}

    def has_lists(self, levels: Mapping[str, str]) -> bool:
        """Whether a column that `pack` takes is of lists."""
        packed = (x for name, x in self.columns.items() if is_packed(name, x.kind, levels))
        return any(column.counts is not None for column in packed)

    def tokens(self, rows: Int64s, levels: Mapping[str, str]) -> dict[str, Column]:
        """What `pack` takes of these rows: columns per token, and rewards."""
        return {
            name: column.take(rows).values if column.kind == "numbers" else column.take(rows)
            for name, column in self.columns.items()
            if is_packed(name, column.kind, levels)
        }

    def scalars(self, rows: Int64s, levels: Mapping[str, str]) -> dict[str, AnyArray | Ragged]:
        """The entries of these rows in columns per row: numbers as an array, objects as their JSON texts."""
        found: dict[str, AnyArray | Ragged] = {}
        for name, column in self.columns.items():
            if column.kind == "numbers":
                found[name] = column.take(rows).values
            elif column.kind == "objects":
                found[name] = column.take(rows)
            elif levels.get(name) == "row":
                found[name] = json_rows(name, entries_of(column.take(rows)))
        return found


def is_packed(name: str, kind: Kind | None, levels: Mapping[str, str]) -> bool:
    """Whether `pack` takes this column, and lays it per token."""
    return (kind == "tokens" and levels.get(name) != "row") or (kind == "numbers" and name == "rewards")


def mapped(path: Path, dtype: np.dtype[Any] | None, inner: tuple[int, ...]) -> AnyArray:
    """The elements of a file, without reading it."""
    dtype = np.dtype(np.int64) if dtype is None else dtype
    if not path.stat().st_size:
        return np.empty((0, *inner), dtype)
    raw = np.memmap(path, np.uint8, mode="r")
    return np.asarray(raw).view(dtype).reshape(-1, *inner)


def entries_of(column: Ragged | AnyArray) -> Iterator[Any]:
    """The entries of a column, as lists and numbers."""
    return (row.to_list() if isinstance(row, Ragged) else row.tolist() for row in column)


def json_rows(name: str, entries: Any) -> Ragged:
    """Each entry as its JSON text."""
    with at(column=name, kind=ValueError):
        texts = [json.dumps(entry, separators=(",", ":")).encode() for entry in entries]
    offsets = np.append(0, np.cumsum([len(text) for text in texts], dtype=np.int64))
    return Ragged(np.frombuffer(b"".join(texts), np.uint8), offsets)
