"""JSONL, plain or compressed, to columns: at once, or so many lines at a time."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rollkit import _native
from rollkit._errors import warn
from rollkit._files.source import BLOCK, JSONL, Bytes, Source, kind_of, read_bytes
from rollkit._rows.ragged import Ragged

_BOM: Final = b"\xef\xbb\xbf"


@dataclass
class Behind:
    """Lines that each piece of a file is read behind, for what they say of its columns.

    Attributes:
        text: the lines.
        rows: how many there are, one each.
        count: the rows of the piece that was read last, without these.
    """

    text: bytes = b""
    rows: int = 0
    count: int = 0


def jsonl(
    source: Source,
    rows: int | None,
    *,
    hints: dict[str, Any],
    lists: dict[str, Any],
    columns: set[str] | None,
    on_error: str,
    nonfinite: str,
    behind: Behind,
) -> Iterator[dict[str, Any]]:
    """The columns of a file, `rows` lines at a time; all at once for None; behind the lines of `behind`."""
    compression = kind_of(source.name)[1]
    line, skipped = 1, 0
    for data, lines in _whole(source, compression) if rows is None else _lines(source, compression, rows):
        first = line
        if behind.rows:
            data = data[len(_BOM) :] if line == 1 and bytes(data[: len(_BOM)]) == _BOM else data
            data = np.concatenate([np.frombuffer(behind.text, np.uint8), data])
            first = max(0, line - behind.rows)  # what is read again has no line that is wrong
        count, bad, found = _native.parse_jsonl(
            data,
            hints=hints,
            first_line=first,
            name=printable(source),
            on_error=on_error,
            nonfinite=nonfinite,
            columns=columns,
            lists=lists,
        )
        line += lines
        skipped += bad
        behind.count = count - behind.rows
        yield {key: _column(value) for key, value in found.items()}
    if skipped:
        warn(f"{source}: skipped {skipped} bad lines")


def _column(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    values, offsets = value
    return Ragged(_column(values), offsets)


def line_of(source: Source, row: int) -> int | None:
    """The line that holds this row, counted from 1, where that can be told; blank lines hold none."""
    kind, compression = kind_of(source.name)
    if kind not in JSONL or compression == "zstd" or not source.state():
        return None
    with ExitStack() as stack:
        file: Any = stack.enter_context(io.BufferedReader(source.open(), BLOCK))
        if compression == "gzip":
            file = stack.enter_context(gzip.open(file))
        filled = (number for number, line in enumerate(file, 1) if line.strip())
        return next((number for i, number in enumerate(filled) if i == row), None)


def printable(source: object) -> str:
    """The name of a file as text that can be encoded, with escapes for bytes that are no UTF-8."""
    return os.fsencode(str(source)).decode("utf-8", "backslashreplace")


def _whole(source: Source, compression: str | None) -> Iterator[tuple[Bytes, int]]:
    """All bytes of a file, copied or decompressed; lines after them do not matter.

    A file is never mapped: if it shrinks meanwhile, a map of it ends the process.
    """
    with source.open() as file:
        size = source.size(file)
        if compression is None and size is not None:
            yield read_bytes(file, size), 0
            return
        blocks = list(_blocks(file, compression, source))
    yield (np.concatenate(blocks) if blocks else np.empty(0, np.uint8)), 0


def _lines(source: Source, compression: str | None, count: int) -> Iterator[tuple[Bytes, int]]:
    """Whole lines, `count` at a time, and how many."""
    pieces: list[Bytes] = []  # bytes not yet given out
    lines = 0  # line ends in them
    with source.open() as file:
        for block in _blocks(file, compression, source):
            pieces.append(block)
            lines += int(np.count_nonzero(block == ord("\n")))
            if lines < count:
                continue
            data = np.concatenate(pieces)
            ends = np.flatnonzero(data == ord("\n")) + 1
            first = 0
            for end in ends[count - 1 :: count]:
                yield data[first:end], count
                first = end
            pieces, lines = [data[first:]], len(ends) % count
    rest = np.concatenate(pieces) if pieces else np.empty(0, np.uint8)
    if rest.size:
        yield rest, lines


def _blocks(file: Any, compression: str | None, source: Source) -> Iterator[Bytes]:
    found = file if compression is None else _native.Decompressor(file, compression, name=printable(source))
    readinto: Callable[[Bytes], int] = found.readinto
    while True:
        block = np.empty(BLOCK, np.uint8)
        count = readinto(block)
        if not count:
            return
        yield block[:count]
