"""Rollouts from files: `read` and `iter_chunks`."""

from __future__ import annotations

import gzip
import os
import re
import stat
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from rollkit import _check, _native
from rollkit._errors import TELLING, path_of, refusal, retold, row_of
from rollkit._extras import extra
from rollkit._rollouts.arrow import columns_from_arrow
from rollkit._rollouts.fields import FIELDS
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.validate import check_values
from rollkit._rows.ragged import Ragged

T = TypeVar("T")

PathLike = str | os.PathLike[str]
Bytes = NDArray[np.uint8]

JSONL: Final = (".jsonl", ".ndjson", ".json")
COMPRESSED: Final = {".gz": "gzip", ".zst": "zstd"}
PARQUET: Final = (".parquet",)
ARROW: Final = (".arrow", ".feather", ".ipc", ".arrows")

BLOCK: Final = 4 << 20
"""Bytes read at a time: large enough that calls cost nothing, small enough to stay in a cache."""


@dataclass(frozen=True)
class Reading:
    """How files are read: what `read` and `iter_chunks` take by keyword."""

    on_error: str = "raise"
    nonfinite: str = "raise"
    columns: Collection[str] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check.choice("on_error", self.on_error, ("raise", "skip"))
        _check.choice("nonfinite", self.nonfinite, ("raise", "keep", "null"))
        if isinstance(self.columns, str):
            raise TypeError(f"columns must be a sequence of names, got the text {self.columns!r}")
        columns = [] if self.columns is None else _check.items("columns", self.columns)
        if self.columns is not None:
            object.__setattr__(self, "columns", columns)  # it is gone through for each chunk
        _check.mapping("rename", self.rename)
        for option, names in (("columns", columns), ("rename", [*self.rename, *self.rename.values()])):
            if odd := [name for name in names if not isinstance(name, str)]:
                raise TypeError(f"{option} must hold names, got {odd[0]!r}")

    def named(self, theirs: str) -> str:
        """The name of a file's column."""
        return self.rename.get(theirs, theirs)

    def theirs(self) -> set[str] | None:
        """The file's names of the columns that are wanted; None for all."""
        if self.columns is None:
            return None
        back = {ours: theirs for theirs, ours in self.rename.items()}
        return {name if name in self.rename else back.get(name, name) for name in self.columns}

    def hints(self) -> dict[str, Any]:
        """The dtypes of known columns, by the file's names."""
        names = [*self.rename, *(name for name in FIELDS if name not in self.rename)]
        known = {name: FIELDS[self.named(name)] for name in names if self.named(name) in FIELDS}
        return {
            name: field.dtype
            for name, field in known.items()
            if field.dtype is not None and field.is_per_token
        }

    def renamed(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Columns under the names that are wanted."""
        found: dict[str, Any] = {}
        for theirs, column in columns.items():
            name = self.named(theirs)
            if name in found:
                text = f"rename makes two columns {name!r}; leave one out with columns=[…]"
                raise refusal(ValueError, text, column=name, label="")
            found[name] = column
        return found

    def check_found(self, names: Collection[str], path: Path) -> None:
        """Refuse a file that lacks a column that is asked for by name."""
        asked = self.theirs() or set()
        for name in [*asked, *self.rename]:
            if name not in names and (name in asked or self.columns is None):
                text = f"no column {name!r}; there are {', '.join(map(repr, names)) or 'none'}"
                raise refusal(ValueError, text, path=path)


def read(
    paths: PathLike | Sequence[PathLike],
    *,
    columns: Collection[str] | None = None,
    rename: Mapping[str, str] | None = None,
    nonfinite: str = "raise",
    on_error: str = "raise",
    validate: bool = False,
) -> Rollouts:
    """Read rollouts from files, straight into columns.

    Args:
        paths: a file or several, whose rows count through: JSONL (`.jsonl`, `.ndjson`, `.json`, also
            with `.gz` or `.zst`: one object per line, strict JSON), Parquet (`.parquet`) or Arrow IPC
            (`.arrow`, `.feather`), which need the extra `arrow`.
        columns: the columns to read, by the file's names or those of `rename`; all by default. Texts of the
            others are not decoded.
        rename: our names of columns, by the file's.
        nonfinite: for JSONL, what becomes of `NaN`, `Infinity` and `-Infinity`, which Python writes:
            `"raise"`; `"keep"` them, with null in an array of floats as NaN; or `"null"`: as if null had been
            written, which is NaN in an array and None where there is one entry per row.
        on_error: for JSONL, `"raise"` or `"skip"`: leave bad lines out, and warn with their count.
        validate: refuse values that no rollout has, as `Rollouts.validate` does; else they are kept.

    Returns:
        A column per key. Token ids are int32, masks uint8, log-probabilities float32 (rounded once, from
        the decimal); unknown arrays of numbers int64 or float64, nested ones with inner dimensions.

    Raises:
        ValueError: a line is no JSON object, lacks a key, or holds what its column does not; the message
            begins with `file:line`. Or a file is truncated, or of no known kind.
        FileNotFoundError: there is no such file.

    Example:
        >>> rollouts = read(sample_path())
        >>> len(rollouts), rollouts["response_ids"].dtype
        (32, dtype('int32'))
    """
    how = Reading(on_error, nonfinite, columns, {} if rename is None else rename)
    parts = [(path, part) for path in _paths(paths) for part in _chunks(path, None, how)]
    filled = [(path, part) for path, part in parts if len(part)] or parts[:1]
    for path, part in filled:
        check_columns(path, part.keys(), *filled[0][:1], filled[0][1].keys())
    if len(filled) <= 1:
        found = filled[0][1] if filled else Rollouts({})
    else:
        found = Rollouts.joined([part for _, part in filled], called=[str(path) for path, _ in filled])
    if _check.flag("validate", validate):
        check_values(found.columns)
    return found


def iter_chunks(
    paths: PathLike | Sequence[PathLike],
    *,
    rows: int = 1024,
    columns: Collection[str] | None = None,
    rename: Mapping[str, str] | None = None,
    nonfinite: str = "raise",
    on_error: str = "raise",
) -> Iterator[Rollouts]:
    """Read rollouts from files in pieces, in memory that does not grow with the files.

    Args:
        paths: as in `read`. A chunk never spans two files.
        rows: rows of a chunk; the last one of a file has fewer, as has one with blank lines, or the last
            one of an Arrow record batch, of which one at a time is in memory.
        columns: as in `read`.
        rename: as in `read`.
        nonfinite: as in `read`.
        on_error: as in `read`.

    Example:
        >>> [len(chunk) for chunk in iter_chunks(sample_path(), rows=20)]
        [20, 12]
    """
    count = _check.positive("rows", rows)
    how = Reading(on_error, nonfinite, columns, {} if rename is None else rename)
    return (chunk for path in _paths(paths) for chunk in _chunks(path, count, how) if len(chunk))


def check_columns(
    path: Path, names: Collection[str], first: Path, others: Collection[str], fix: str = "columns=[…]"
) -> None:
    """Refuse a file whose columns are not those of the first one."""
    odd = sorted(set(names) ^ set(others))
    if odd:
        text = f"differs in columns from {first}: {', '.join(map(repr, odd))}; {fix} leaves them out"
        raise refusal(ValueError, text, path=path)


def sample_path() -> Path:
    """The path of the bundled sample: 32 rollouts of a tiny mixture-of-experts model.

    Example:
        >>> sample_path().name
        'rollouts.jsonl'
    """
    return Path(__file__).parents[1] / "data" / "rollouts.jsonl"


def _paths(paths: PathLike | Sequence[PathLike]) -> list[Path]:
    if isinstance(paths, str | os.PathLike):
        return [local_path(paths)]
    if isinstance(paths, bytes | bytearray | memoryview) or hasattr(paths, "read"):
        kind = type(paths).__name__
        raise TypeError(f"paths must be the names of files, got {kind}; write its contents to a file first")
    if not hasattr(paths, "__iter__"):
        raise TypeError(f"paths must be a path or a sequence of paths, got {type(paths).__name__}")
    found = [local_path(path) for path in paths]
    if not found:
        raise ValueError("paths is empty; give at least one file")
    return found


def local_path(path: PathLike) -> Path:
    """A path; refuses a URL, which would be a local folder of that name."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"expected a path, got {type(path).__name__}")
    name = os.fspath(path)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    scheme = _URL.match(name)
    if scheme is not None:
        text = f"URLs of {scheme[1]} are not read or written; copy the file here first, or write to a folder"
        raise refusal(ValueError, text, path=name)
    return Path(name)


_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+(?<=//)")


def _chunks(path: Path, rows: int | None, how: Reading) -> Iterator[Rollouts]:
    """The rollouts of one file; all at once if `rows` is None."""
    kind = path.suffix.lower()
    compression = COMPRESSED.get(kind)
    if compression is not None:
        kind = Path(path.stem).suffix.lower()
    done, seen = 0, dict[str, None]()
    try:
        for columns in _unchanged(_columns(path, kind, compression, rows, how), path):
            seen |= dict.fromkeys(columns)
            if rows is None:
                how.check_found(seen, path)
            chunk = Rollouts(how.renamed(columns))
            yield chunk
            done += len(chunk)
        if done:
            how.check_found(seen, path)
    except TELLING as error:
        raise in_file(error, path, done, lines=how.on_error == "raise") from None


def state_of(path: Path) -> tuple[int, ...]:
    """What changes when a file is written to; a pipe, which is read while it is, has nothing such."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def changed(path: Path) -> ValueError:
    """What is said of a file that something wrote to while it was read."""
    text = "changed while it was read; read it again when nothing writes to it"
    return refusal(ValueError, text, path=path)


def _unchanged(found: Iterator[T], path: Path) -> Iterator[T]:
    """What is found in a file, as long as nothing writes to it: old and new rows are never mixed."""
    begun = state_of(path)
    try:
        for item in found:
            if state_of(path) != begun:
                raise changed(path)
            yield item
    except (*TELLING, OSError) as error:
        if path_of(error) is None and state_of(path) != begun:  # a part of it looked damaged
            raise changed(path) from error
        if isinstance(error, OSError) and error.errno is None:  # Arrow's, of a file that is damaged
            raise refusal(ValueError, " ".join(str(error).split()), path=path) from None
        raise


def _columns(
    path: Path, kind: str, compression: str | None, rows: int | None, how: Reading
) -> Iterator[dict[str, Any]]:
    if kind in JSONL:
        yield from _jsonl(path, compression, rows, how)
    elif kind in PARQUET and compression is None:
        file = extra("pyarrow.parquet", "arrow").ParquetFile(path)
        names = _wanted(file.schema_arrow.names, how, path)
        tables = [file.read(names)] if rows is None else file.iter_batches(batch_size=rows, columns=names)
        yield from map(columns_from_arrow, tables)
    elif kind in ARROW and compression is None:
        yield from map(columns_from_arrow, _arrow(path, rows, how))
    else:
        known = ", ".join((*JSONL, *PARQUET, *ARROW))
        text = f"unknown kind of file {path.suffix!r}; expected {known} (JSONL also .gz, .zst)"
        raise refusal(ValueError, text, path=path)


def _wanted(names: Sequence[str], how: Reading, path: Path) -> list[str]:
    how.check_found(names, path)
    theirs = how.theirs()
    double = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if double is not None:
        raise refusal(ValueError, f"two columns {double!r}; rename one of them", path=path)
    return [name for name in names if theirs is None or name in theirs]


def in_file(error: Exception, path: Path, first_row: int, *, lines: bool = True) -> Exception:
    """Say where in a file an error is, as a `ValueError`.

    Args:
        error: what it knows of the file already stays; its row counts from `first_row`.
        path: the file.
        first_row: rows of the file before those that the error counts.
        lines: whether a row's line can be told: no line was left out.
    """
    if path_of(error) is not None:
        return retold(error, kind=ValueError)
    row = row_of(error)
    line = _line(path, first_row + row) if lines and row is not None else None
    return retold(error, path=path, line=line, first_row=first_row, kind=ValueError)


def _line(path: Path, row: int) -> int | None:
    """The line of a JSONL file that holds this row, counted from 1; blank lines hold none."""
    suffixes = path.suffixes[-2:]
    if not set(JSONL) & set(suffixes) or suffixes[-1] == ".zst":
        return None
    with gzip.open(path) if suffixes[-1] == ".gz" else path.open("rb") as file:
        filled = (number for number, line in enumerate(file, 1) if line.strip())
        return next((number for i, number in enumerate(filled) if i == row), None)


def printable(path: Path) -> str:
    """The name of a file as text that can be encoded, with escapes for bytes that are no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _jsonl(path: Path, compression: str | None, rows: int | None, how: Reading) -> Iterator[dict[str, Any]]:
    hints, theirs = how.hints(), how.theirs()
    line, skipped = 1, 0
    for data, lines in _whole(path, compression) if rows is None else _lines(path, compression, rows):
        _, bad, columns = _native.parse_jsonl(
            data,
            hints=hints,
            first_line=line,
            name=printable(path),
            on_error=how.on_error,
            nonfinite=how.nonfinite,
            columns=theirs,
        )
        line += lines
        skipped += bad
        yield {key: Ragged(*value) if isinstance(value, tuple) else value for key, value in columns.items()}
    if skipped:
        warnings.warn(f"{path}: skipped {skipped} bad lines", stacklevel=2)


def _whole(path: Path, compression: str | None) -> Iterator[tuple[Bytes, int]]:
    """All bytes of a file, copied or decompressed; lines after them do not matter.

    A file is never mapped: if it shrinks meanwhile, a map of it ends the process.
    """
    with path.open("rb", buffering=0) as file:
        if compression is None and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield read_bytes(file, os.fstat(file.fileno()).st_size), 0
            return
        blocks = list(_blocks(file, compression, path))
    yield (np.concatenate(blocks) if blocks else np.empty(0, np.uint8)), 0


def read_bytes(file: FileIO, count: int) -> Bytes:
    """The next bytes of a file, fewer at its end, in memory that NumPy takes in huge pages."""
    data = np.empty(count, np.uint8)
    done = 0
    while done < count and (got := file.readinto(data[done:].data)):
        done += got
    return data[:done]


def _lines(path: Path, compression: str | None, count: int) -> Iterator[tuple[Bytes, int]]:
    """Whole lines, `count` at a time, and how many."""
    pieces: list[Bytes] = []  # bytes not yet given out
    lines = 0  # line ends in them
    with path.open("rb", buffering=0) as file:
        for block in _blocks(file, compression, path):
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


def _blocks(file: Any, compression: str | None, path: Path) -> Iterator[Bytes]:
    source = file if compression is None else _native.Decompressor(file, compression, name=printable(path))
    readinto: Callable[[Bytes], int] = source.readinto
    while True:
        block = np.empty(BLOCK, np.uint8)
        count = readinto(block)
        if not count:
            return
        yield block[:count]


def _arrow(path: Path, rows: int | None, how: Reading) -> Iterator[Any]:
    """The wanted columns of a file or stream, batch by batch: what is not wanted, or not yet, is not read."""
    pa = extra("pyarrow", "arrow")
    extra("pyarrow.ipc", "arrow")
    with pa.OSFile(str(path)) as source:  # which copies: a map of a file that shrinks ends the process
        try:
            schema = _ipc(pa, source, []).schema
        except pa.ArrowInvalid as error:
            raise refusal(ValueError, f"no Arrow IPC file or stream: {error}", path=path) from None
        names = _wanted(schema.names, how, path)
        reader = _ipc(pa, source, [schema.names.index(name) for name in names])
        if rows is None:
            yield reader.read_all().select(names)
            return
        at_once = hasattr(reader, "get_batch")
        batches = map(reader.get_batch, range(reader.num_record_batches)) if at_once else reader
        for batch in batches:
            for first in range(0, len(batch), rows):
                yield batch.slice(first, rows).select(names)


def _ipc(pa: Any, source: Any, fields: Sequence[int]) -> Any:
    """Open an Arrow IPC file, or else a stream, of these fields (all if there are none)."""
    options = pa.ipc.IpcReadOptions(included_fields=fields)
    source.seek(0)
    try:
        return pa.ipc.open_file(source, options=options)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source, options=options)
