"""Sources to a spool: all rows are read, and checked, before anything is written."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from rollkit._batch import pack
from rollkit._check import Int64s
from rollkit._errors import TELLING, refusal
from rollkit._files.folder import attempt, digest
from rollkit._files.options import Options
from rollkit._files.read import check_columns, chunks_of, in_file
from rollkit._files.shard import PREFIXES, TAKEN
from rollkit._files.source import BLOCK, JSONL, File, kind_of
from rollkit._files.spool import Spool, per_token
from rollkit._files.spooled import Spooled
from rollkit._files.watch import Each, Watch, unwatched
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.layout import Layout
from rollkit._rows.ragged import Ragged

TOKEN_IDS: Final = ("prompt_token_ids", "response_ids", "input_ids")

_PART: Final = 64 << 20
"""Bytes of a part, so that one takes longer to read than to ask for."""
_PARTS: Final = 256
"""Parts at most, for each has a file for each column."""

Part = list[tuple[int, File]]
"""Files, or lines of one, and the number of the source each is of."""
_Found = tuple[Spooled, list[int], list[set[str]]]
"""All rows; and how many each source has, and which columns."""


def spooled(
    folder: Path, files: Sequence[File], options: Options, watch: Watch, each: Each | None
) -> tuple[Spooled, list[int]]:
    """Read and check all rows.

    Args:
        folder: where the spool is made.
        files: the sources.
        options: how to pack.
        watch: shows progress.
        each: reads parts of the sources; None: they are read one after the other, here.

    Returns:
        The rows, and how many each source has.
    """
    found = None if each is None else _in_parts(folder, files, options, watch, each)
    if found is None:
        found = _in_order(folder, files, options, watch)
    rows, counts, seen = found
    check_seen(files, counts, seen, options)
    return rows, counts


def _in_order(folder: Path, files: Sequence[File], options: Options, watch: Watch) -> _Found:
    """Read all, here."""
    _emptied(folder)
    read = Reader(folder, options, watch)((0, list(enumerate(files))))
    return _merged(read.rows, [read], files)


def _in_parts(
    folder: Path, files: Sequence[File], options: Options, watch: Watch, each: Each
) -> _Found | None:
    """Read parts elsewhere; None where they are not what is read in order, or that says what is wrong."""
    parts = parts_of(files, options.chunk_rows)
    try:
        found = list(watch(each(Reader(folder, options), enumerate(parts)), "reading", len(parts)))
    except TELLING:
        return None  # a part does not know what is before it: read in order, the first wrong row is told
    rows = Spooled.joined([read.rows for read in found])
    return None if rows is None else _merged(rows, found, files)


def _merged(rows: Spooled, found: Sequence[Read], files: Sequence[File]) -> _Found:
    counts, seen = [0] * len(files), [set[str]() for _ in files]
    for read in found:
        for number, count, names in read.of_source:
            counts[number] += count
            seen[number] |= names
    return rows, counts, seen


def _emptied(folder: Path) -> None:
    """Remove what parts left."""
    for path in folder.iterdir() if folder.exists() else ():
        path.unlink()


@dataclass(frozen=True)
class Read:
    """What was read of a part.

    Attributes:
        rows: on disk.
        of_source: by the number of the source, how many rows it has, and their columns.
    """

    rows: Spooled
    of_source: list[tuple[int, int, set[str]]]


@dataclass(frozen=True)
class Reader:
    """Reads a part of the sources to a spool: plain and picklable, to be called elsewhere.

    Attributes:
        folder: where the spool is made.
        options: how to pack.
        watch: shows progress.
    """

    folder: Path
    options: Options
    watch: Watch = unwatched

    def __call__(self, numbered: tuple[int, Part]) -> Read:
        """Read and check all rows of a part."""
        number, part = numbered
        spool = Spool(self.folder, f"{number}-{attempt()}-")
        found = [(source, *self._read(spool, file)) for source, file in part]
        return Read(spool.finish(), found)

    def _read(self, spool: Spool, file: File) -> tuple[int, set[str]]:
        before, seen, scratch, options = spool.rows, set[str](), None, self.options
        read = filter(len, chunks_of(file, options.chunk_rows, options.reading()))
        try:
            for chunk in self.watch(read, f"reading {file.name}", None):
                seen |= chunk.keys()
                wanted = wanted_of(chunk, options)
                # What `pack` would refuse later it refuses now, when nothing is written yet.
                columns = per_token(wanted.columns, options.levels)
                scratch = pack(
                    columns,
                    layout=Layout.concat(lengths_of(wanted)),
                    pad_id=options.pad_id,
                    levels=among(options.levels, columns),
                    out=scratch,
                )
                spool.append(wanted)
        except TELLING as error:
            raise in_file(error, file, spool.rows - before) from None
        return spool.rows - before, seen


# Parts of sources.


class Lines(File):
    """Some lines of a JSONL file."""

    def __init__(self, file: File, begin: int, end: int) -> None:
        super().__init__(file.path, str(file))
        self._begin, self._end = begin, end

    def open(self) -> io.RawIOBase:  # type: ignore[override]
        """Open it, unbuffered."""
        return _Window(super().open(), self._begin, self._end)

    def size(self, file: io.RawIOBase) -> int | None:
        """How many bytes it has."""
        return self._end - self._begin


class _Window(io.RawIOBase):
    """Bytes of a file, from one place to another."""

    def __init__(self, file: io.FileIO, begin: int, end: int) -> None:
        self._file, self._left = file, end - begin
        file.seek(begin)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._file.readinto(memoryview(buffer)[: self._left])
        self._left -= found
        return found

    def close(self) -> None:
        self._file.close()
        super().close()


def parts_of(files: Sequence[File], chunk_rows: int) -> list[Part]:
    """Files in parts that can be read apart: the chunks of rows are those that are read of all."""
    size = max(_PART, sum(size_of(file) for file in files) // _PARTS)
    parts: list[Part] = [[]]
    room = size
    for number, file in enumerate(files):
        for piece, length in _pieces(file, size, chunk_rows):
            if room < size and length > room:
                parts.append([])
                room = size
            parts[-1].append((number, piece))
            room -= length
    return [part for part in parts if part]


def _pieces(file: File, size: int, chunk_rows: int) -> list[tuple[File, int]]:
    """A file, or its lines in pieces of about `size` bytes, each but the last of whole chunks."""
    whole = size_of(file)
    kind, compression = kind_of(file.name)
    if kind not in JSONL or compression is not None or whole <= size:
        return [(file, whole)]
    bounds = [0, *_bounds(file, size, chunk_rows), whole]
    return [(Lines(file, a, b), b - a) for a, b in pairwise(bounds) if b > a]


def _bounds(file: File, size: int, chunk_rows: int) -> list[int]:
    """Where chunks begin, about every `size` bytes."""
    bounds: list[int] = []
    lines = at = 0
    with file.open() as found:
        block = np.empty(BLOCK, np.uint8)
        while count := found.readinto(block.data):
            ends = np.flatnonzero(block[:count] == ord("\n"))
            first = -(lines + 1) % chunk_rows  # of these line ends the first that ends a chunk
            if len(bounds) * size + size <= at + count and first < len(ends):
                bounds.append(at + int(ends[first]) + 1)
            lines, at = lines + len(ends), at + count
    return bounds


def source_of(file: File) -> dict[str, Any]:
    """What identifies a source. Its name alone, so that the index is the same wherever it lies."""
    return {"file": file.name, "bytes": size_of(file), "sha256": digest(file.path)}


def size_of(file: File) -> int:
    """The bytes of a source, which is no pipe."""
    status = os.stat(file.path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{file}: not a file, and it is read twice; - takes a pipe, on the standard input")
    return status.st_size


# What is read of a chunk.


def check_seen(
    files: Sequence[File], counts: Sequence[int], seen: Sequence[set[str]], options: Options
) -> None:
    """Refuse files of other columns than the first one, and names to leave out that none has."""
    skipped = set(options.skip_columns)
    filled = [i for i, count in enumerate(counts) if count]
    for i in filled:
        first = filled[0]
        check_columns(files[i], seen[i] - skipped, files[first], seen[first] - skipped, "--skip-column")
    known = set().union(*seen)
    for name in options.skip_columns:
        if filled and name not in known:
            there = ", ".join(map(repr, sorted(known)))
            raise ValueError(f"--skip-column {name}: no source has this column; there are {there}")


def among(levels: Mapping[str, str], columns: Mapping[str, Any]) -> dict[str, str]:
    """The levels of these columns alone."""
    return {name: level for name, level in levels.items() if name in columns}


def wanted_of(chunk: Rollouts, options: Options) -> Rollouts:
    """The columns that are not left out; refuses those that a shard cannot have."""
    columns = {name: column for name, column in chunk.items() if name not in options.skip_columns}
    for name in columns:
        if name in TAKEN or name.startswith(PREFIXES):
            raise refusal(
                ValueError,
                "this name has another meaning in a shard; rename the column, or leave it out "
                f"(--skip-column {name})",
                column=name,
            )
    rewards = columns.get("rewards")
    if isinstance(rewards, list) and None in rewards:  # as objects they would not be in the shard's arrays
        text = " is None; score it, leave the rollout out, or --skip-column rewards"
        raise refusal(ValueError, text, column="rewards", row=rewards.index(None))
    for name in TOKEN_IDS:
        if isinstance(ids := columns.get(name), Ragged) and ids.of_lists:
            raise refusal(ValueError, "expected token ids, got a list for each token", column=name)
    return Rollouts(columns)


def lengths_of(chunk: Rollouts, names: Sequence[str] = TOKEN_IDS) -> Int64s:
    """The tokens of each row."""
    total = np.zeros(len(chunk), np.int64)
    for name in names:
        if name in chunk:
            total += chunk[name].lengths  # type: ignore[union-attr]
    return total
