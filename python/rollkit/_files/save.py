"""Rollouts to files: `save`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rollkit._errors import at, refusal
from rollkit._files.atomic import replacing
from rollkit._files.read import read
from rollkit._files.source import COMPRESSED, JSONL, PARQUET, TENSORS, PathLike, local_path
from rollkit._frameworks import framework_of
from rollkit._rollouts.columns import Column
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.sources import Source, as_rollouts
from rollkit._rows.ragged import Ragged

if TYPE_CHECKING:
    from pathlib import Path


def save(rollouts: Source, path: PathLike) -> None:
    """Write rollouts to a file that `read` gives back as they are: `read(path).equals(rollouts)`.

    The file is there as a whole or not at all: it is written under another name in the same folder, has its
    bytes on the disk, and only then takes its name, and the place of a file that was there.

    Args:
        rollouts: rollouts; see `rollkit.pack`.
        path: the file, whose ending says what is written: `.arrow`, `.feather`, `.ipc` (Arrow IPC) or
            `.parquet`, which need the extra `arrow`; `.safetensors`, which has every dtype, bfloat16 too;
            or `.jsonl`, `.ndjson`, `.json`, which has only what `read` makes of JSON.

    Raises:
        TypeError: the kind of file has no place for a column as it is, or there are entries that are no
            JSON; column and row are named, and nothing is written. Convert it, or choose `.safetensors`.
        ValueError: a URL, an ending of no known kind, or something there that is no file.

    Example:
        >>> import tempfile
        >>> rollouts = Rollouts({"response_ids": [[1, 2], [3]], "notes": [{"turns": 2}, None]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(rollouts, f"{folder}/rollouts.safetensors")
        ...     read(f"{folder}/rollouts.safetensors").equals(rollouts)
        True
    """
    found, place = as_rollouts(rollouts), local_path(path)
    write = writer_of(place)
    for name, column in found.items():
        _check(name, column)
    with replacing(place) as (file, temporary):
        write(file, found)
        file.flush()
        if place.suffix.lower() in JSONL:
            _check_same(found, temporary)


def writer_of(path: Path) -> Callable[[Any, Rollouts], None]:
    """What writes a kind of file; refuses a kind that nothing does."""
    kind = path.suffix.lower()
    for kinds, write in _WRITERS:
        if kind in kinds:
            return write
    known = ", ".join(name for kinds, _ in _WRITERS for name in kinds)
    hint = "; compress the file afterwards" if kind in COMPRESSED else ""
    raise refusal(ValueError, f"unknown kind of file {path.suffix!r}; expected {known}{hint}", path=path)


def _check(name: str, column: Column) -> None:
    """Refuse values that are not numbers on the host."""
    values: Any = column.values if isinstance(column, Ragged) else None
    if isinstance(values, Ragged):
        values = values.values
    if values is None or isinstance(values, np.ndarray):
        return
    text = f"its values are of {framework_of(values)}; take them to the host first (.detach().cpu())"
    raise refusal(TypeError, text, column=name)


# The kinds of files.


def _arrow(file: Any, rollouts: Rollouts) -> None:
    from rollkit._files.arrow import write_ipc

    write_ipc(file, rollouts.columns)


def _parquet(file: Any, rollouts: Rollouts) -> None:
    from rollkit._files.arrow import write_parquet

    write_parquet(file, rollouts.columns)


def _safetensors(file: Any, rollouts: Rollouts) -> None:
    from rollkit._files.tensor_columns import write_columns

    write_columns(file, rollouts.columns, len(rollouts))


_LINES: Final = 1024
"""Rows that are made into lines at a time."""


def write_lines(file: Any, rollouts: Rollouts) -> None:
    """Write a line per row. Numbers have all their digits: `read` makes the same of them."""
    import json

    keys = [json.dumps(name) for name in rollouts]
    for first in range(0, len(rollouts), _LINES):
        columns = rollouts[first : first + _LINES].columns
        for name, column in columns.items():
            with at(column=name, first_row=first):
                _check_finite(column)
        with at(first_row=first):
            texts = [_texts(name, column) for name, column in columns.items()]
        lines = (zip(keys, row, strict=True) for row in zip(*texts, strict=True))
        file.write("".join(f"{{{','.join(map(':'.join, line))}}}\n" for line in lines).encode())


def _check_finite(column: Column) -> None:
    if isinstance(column, list) or column.dtype.kind not in "fV":
        return
    values: Any = column.flat if isinstance(column, Ragged) else column
    if isinstance(values, Ragged):
        return  # lists are of ids, or found out when they are read back
    with np.errstate(invalid="ignore"):  # what a signalling NaN is, and here it is refused in our words
        finite = np.isfinite(values.astype(np.float64))
    if not finite.all():
        element = int((~finite.reshape(len(finite), -1).all(axis=1)).argmax())
        row = element
        if isinstance(column, Ragged):
            row = int(np.searchsorted(column.offsets - column.offsets[0], element, side="right")) - 1
        text = " is NaN or infinite, which JSON does not have; save as .arrow, .parquet or .safetensors"
        raise refusal(ValueError, text, row=row)


def _texts(name: str, column: Column) -> list[str]:
    from rollkit._files.storable import json_texts, number_texts

    if isinstance(column, list):
        return json_texts(name, column, strict=True)
    entries = column.to_list() if isinstance(column, Ragged) else column.tolist()
    return number_texts(entries) if column.dtype.kind in "biuf" else json_texts(name, entries, strict=True)


def _check_same(rollouts: Rollouts, path: Path) -> None:
    """Refuse rollouts that `read` makes something else of: JSON does not say what dtypes are."""
    for name, column in rollouts.items():  # one at a time, for what cannot be read is one of them
        try:
            found = read(path, columns=[name])
        except ValueError:
            found = Rollouts({})
        got = found.columns.get(name)
        if type(got) is not type(column) or not found.equals(Rollouts._trusted({name: column})):
            raise no_place(name, column, got)


def no_place(name: str, column: Column, got: Column | None) -> TypeError:
    """What is said of a column that JSONL does not hold; `got` is what `read` makes of it."""
    text = f"JSONL has no place for it as it is ({_told(column)}, read back as {_told(got)})"
    return refusal(TypeError, f"{text}; save as .arrow, .parquet or .safetensors", column=name)


def _told(column: Column | None) -> str:
    if column is None:
        return "nothing"
    return "a list" if isinstance(column, list) else f"{type(column).__name__} of {column.dtype}"


_WRITERS: Final = (
    ((".arrow", ".feather", ".ipc"), _arrow),  # .arrows is a stream
    (PARQUET, _parquet),
    (TENSORS, _safetensors),
    (JSONL, write_lines),
)
