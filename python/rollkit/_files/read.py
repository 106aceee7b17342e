"""Rollouts from files: `read` and `iter_chunks`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from rollkit import _check
from rollkit._errors import TELLING, at, path_of, refusal, retold, row_of
from rollkit._files.paths import sources
from rollkit._files.source import (
    ARROW,
    JSONL,
    PARQUET,
    TENSORS,
    PathLike,
    Saved,
    Source,
    changed,
    kind_of,
    unknown_kind,
)
from rollkit._rollouts.fields import FIELDS
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.validate import check_values
from rollkit._rows.ragged import Ragged

if TYPE_CHECKING:
    from pathlib import Path

    from rollkit._files.jsonl import Behind

T = TypeVar("T")
_INT64: Final = np.dtype(np.int64)


@dataclass(frozen=True, eq=False, repr=False)
class Reading:
    """How files are read: what `read` and `iter_chunks` take by keyword."""

    on_error: str = "raise"
    nonfinite: str = "raise"
    columns: Collection[str] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    lists: Collection[str] = ()
    """Our names of columns of which each element is a list, beside known ones."""

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

    def of_lists(self, theirs: str) -> bool:
        """Whether each element of a file's column is a list."""
        name = self.named(theirs)
        return name in self.lists or (name in FIELDS and FIELDS[name].lists)

    def hints(self) -> dict[str, Any]:
        """The dtypes of known columns, by the file's names."""
        found: dict[str, Any] = {}
        for name in self._known():
            field = FIELDS.get(self.named(name))
            if self.of_lists(name):
                found[name] = object  # to the parser lists of lists that are no rectangle are objects
            elif field is not None and field.dtype is not None and field.is_per_token:
                found[name] = field.dtype
        return found

    def list_dtypes(self) -> dict[str, Any]:
        """The dtypes of the entries of columns of lists, where these are integers; by the file's names."""
        fields = {name: FIELDS.get(self.named(name)) for name in self._known() if self.of_lists(name)}
        return {name: field.dtype if field and field.lists else _INT64 for name, field in fields.items()}

    def _known(self) -> list[str]:
        """The file's names of columns of which something is known."""
        return [*self.rename, *(name for name in (*FIELDS, *self.lists) if name not in self.rename)]

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

    def check_found(self, names: Collection[str], path: object) -> None:
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
            (`.arrow`, `.feather`, `.ipc`), which need the extra `arrow`, or what `rollkit.save` wrote as
            `.safetensors`. A folder stands for its files of these kinds, a glob (`"run/*.jsonl"`) for those
            that match it, by their names. URLs of `s3`, `gs`, `az`, `http` and `https` need the extra
            `remote`, and take keys and the like from the environment.
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
            Or no file matches a glob, or there is none in a folder.
        FileNotFoundError: there is no such file.

    Example:
        >>> rollouts = read(sample_path())
        >>> len(rollouts), rollouts["response_ids"].dtype
        (32, dtype('int32'))
    """
    how = Reading(on_error, nonfinite, columns, {} if rename is None else rename)
    found = read_sources(sources(paths), how)
    if _check.flag("validate", validate):
        check_values(found.columns)
    return found


def read_sources(given: Sequence[Source], how: Reading) -> Rollouts:
    """The rollouts of files, one after the other."""
    parts = [(path, part) for path in given for part in chunks_of(path, None, how)]
    filled = [(path, part) for path, part in parts if len(part)] or parts[:1]
    for path, part in filled:
        check_columns(path, part.keys(), *filled[0][:1], filled[0][1].keys())
    if len(filled) <= 1:
        return filled[0][1] if filled else Rollouts({})
    return Rollouts.joined([part for _, part in filled], called=[str(path) for path, _ in filled])


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
    return (chunk for source in sources(paths) for chunk in chunks_of(source, count, how) if len(chunk))


def check_columns(
    path: object, names: Collection[str], first: object, others: Collection[str], fix: str = "columns=[…]"
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
    from pathlib import Path  # a sixth of the time it takes to import rollkit

    return Path(__file__).parents[1] / "data" / "rollouts.jsonl"


def chunks_of(source: Source, rows: int | None, how: Reading) -> Iterator[Rollouts]:
    """The rollouts of one file; all at once if `rows` is None."""
    return (chunk for _, chunk in raw_chunks_of(source, rows, how))


def raw_chunks_of(
    source: Source, rows: int | None, how: Reading, behind: Behind | None = None
) -> Iterator[tuple[dict[str, Any], Rollouts]]:
    """The columns of one file as they are found there, and the rollouts that they make.

    Args:
        source: the file.
        rows: at a time; all at once if None.
        how: it is read.
        behind: lines that each piece of JSONL is read behind; they are in what is given, too.
    """
    from rollkit._files.jsonl import Behind

    done, before, seen, lacking = 0, 0, dict[str, None](), False
    piece = behind or Behind()
    try:
        for columns in _unchanged(_columns(source, rows, how, piece), source):
            before = piece.rows
            seen |= dict.fromkeys(columns)
            lacking |= bool(how.columns) and not columns  # lines without any of them
            if rows is None:
                how.check_found(seen, source)
            if not columns and behind is None:  # its rows are some, of what comes later
                columns = dict.fromkeys(sorted(how.theirs() or ()), [None] * piece.count)
            chunk = _rollouts(columns, how)
            yield columns, chunk
            done += len(chunk) if behind is None else behind.count
        if done or lacking:
            how.check_found(seen, source)
    except TELLING as error:
        row = row_of(error)
        first = 0 if row is not None and row < before else done - before  # all before are without it
        raise in_file(error, source, first, lines=how.on_error == "raise") from None


def _rollouts(columns: dict[str, Any], how: Reading) -> Rollouts:
    """Columns under our names; what `save` wrote is taken as it is."""
    named = how.renamed(columns)
    for name in set(how.lists) & named.keys():
        with at(column=name):
            if not isinstance(named[name], Ragged):
                named[name] = Ragged.from_rows(named[name], lists=True)
    return Rollouts._trusted(named) if isinstance(columns, Saved) and not how.rename else Rollouts(named)


def _unchanged(found: Iterator[T], source: Source) -> Iterator[T]:
    """What is found in a file, as long as nothing writes to it: old and new rows are never mixed."""
    begun = source.state()
    try:
        for item in found:
            if source.state() != begun:
                raise changed(source)
            yield item
    except (*TELLING, OSError) as error:
        if path_of(error) is None and source.state() != begun:  # a part of it looked damaged
            raise changed(source) from error
        if isinstance(error, OSError) and error.errno is None:  # Arrow's, of a file that is damaged
            raise refusal(ValueError, " ".join(str(error).split()), path=source) from None
        raise


def _columns(source: Source, rows: int | None, how: Reading, behind: Behind) -> Iterator[dict[str, Any]]:
    kind, compression = kind_of(source.name)

    def wanted(names: Sequence[str]) -> list[str]:
        return _wanted(names, how, source)

    if kind in JSONL:
        from rollkit._files.jsonl import jsonl

        options: dict[str, Any] = {"on_error": how.on_error, "nonfinite": how.nonfinite, "behind": behind}
        known: dict[str, Any] = {"hints": how.hints(), "lists": how.list_dtypes(), "columns": how.theirs()}
        return jsonl(source, rows, **known, **options)
    if kind in (*PARQUET, *ARROW) and compression is None:
        from rollkit._files import arrow

        return (arrow.parquet if kind in PARQUET else arrow.ipc)(source, rows, wanted, how.of_lists)
    if kind in TENSORS and compression is None:
        from rollkit._files.tensor_columns import tensor_columns

        return tensor_columns(source, rows, wanted)
    raise unknown_kind(source.name, source)


def _wanted(names: Sequence[str], how: Reading, source: Source) -> list[str]:
    how.check_found(names, source)
    theirs = how.theirs()
    double = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if double is not None:
        raise refusal(ValueError, f"two columns {double!r}; rename one of them", path=source)
    return [name for name in names if theirs is None or name in theirs]


def in_file(error: Exception, source: Source, first_row: int, *, lines: bool = True) -> Exception:
    """Say where in a file an error is, as a `ValueError`.

    Args:
        error: what it knows of the file already stays; its row counts from `first_row`.
        source: the file.
        first_row: rows of the file before those that the error counts.
        lines: whether a row's line can be told: no line was left out.
    """
    if path_of(error) is not None:
        return retold(error, kind=ValueError)
    row = row_of(error)
    line = _line(source, first_row + row) if lines and row is not None else None
    return retold(error, path=source, line=line, first_row=first_row, kind=ValueError)


def _line(source: Source, row: int) -> int | None:
    """The line of a JSONL file that holds this row."""
    if kind_of(source.name)[0] not in JSONL:
        return None
    from rollkit._files.jsonl import line_of

    return line_of(source, row)
