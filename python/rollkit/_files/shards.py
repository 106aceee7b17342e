"""Folders of packed shards: their index, and all of their shards.

A folder holds `shard-00000.safetensors` and so on, and `index.json`, which is written last;
`docs/shards.md` says what is in them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rollkit._batch import Batch
from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._files.folder import INDEX, WORK, digest
from rollkit._files.shard import FORMATS, check_derived, opened, shard_name, told_formats
from rollkit._files.shard_lists import OF_LISTS
from rollkit._files.source import local_path
from rollkit._files.state import DERIVED_SHAPE, INDEX_SHAPE, misfit, read_state
from rollkit._files.tensors import DTYPES
from rollkit._rows.layout import ABSENT, Layout


def read_index(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read `index.json` of a folder that `write_shards` wrote."""
    path = local_path(folder) / INDEX
    if path.parent.is_file():
        text = "a file, expected a folder that rollkit pack wrote; rollkit.read(path) reads rollouts"
        raise refusal(ValueError, text, path=folder)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise refusal(ValueError, "not an index that rollkit wrote: a link, or no file", path=path)
        index = read_state(path, "an index", {"format": int})
    except FileNotFoundError:
        if (path.parent / WORK).exists():
            raise ValueError(
                f"{folder}: this run is unfinished; continue it with rollkit pack --resume"
            ) from None
        raise
    with at(path=path):
        _check_index(index)
    return index


def _check_index(index: dict[str, Any]) -> None:
    if index["format"] not in FORMATS:
        raise ValueError(f"format {index['format']!r}; this rollkit reads {told_formats()}")
    shape = INDEX_SHAPE | ({} if index["format"] == 1 else DERIVED_SHAPE)
    wrong = misfit(index, shape)
    shards = index["shards"] if wrong is None else []
    if wrong is None and not shards:
        wrong = "it has no shards"
    for number, shard in enumerate(shards):
        if wrong is None and shard["file"] != shard_name(number):
            wrong = f"shards[{number}].file is {shard['file']!r}, expected {shard_name(number)!r}"
    if wrong is None and sum(shard["bins"] for shard in shards) != index["totals"]["bins"]:
        wrong = f"totals.bins is {index['totals']['bins']:,}, and the shards have others"
    for name, column in index["columns"].items() if wrong is None else ():
        shape = column["shape"]
        inner = shape[3:] if shape[2:3] == [OF_LISTS] else shape[2:]
        if shape[:2] != ["bins", index["totals"]["width"]] or misfit(inner, [int]) is not None:
            wrong = f"columns.{name}.shape is {shape}, of bins of {index['totals']['width']:,} tokens"
        elif column["dtype"] not in DTYPES:
            wrong = f"columns.{name}.dtype is {column['dtype']!r}, expected one of {', '.join(DTYPES)}"
    for name, kind in index["rows"].items() if wrong is None else ():
        if kind != "json" and kind not in DTYPES:
            wrong = f"rows.{name} is {kind!r}, expected json or one of {', '.join(DTYPES)}"
    if wrong is not None:
        raise ValueError(f"not an index that rollkit wrote: {wrong}")
    check_derived(index.get("derived", []), index["rows"])


def check_shards(
    folder: str | os.PathLike[str], index: Mapping[str, Any] | None = None, *, verify: bool = False
) -> list[str]:
    """Return what is wrong with the files of a folder: one line each, none if all is as the index says.

    Args:
        folder: where `write_shards` wrote.
        index: its index; it is read by default.
        verify: compare contents too (SHA-256), and not only sizes.
    """
    wrong = []
    for shard in (read_index(folder) if index is None else index)["shards"]:
        path = Path(folder) / shard["file"]
        if path.is_symlink() and not path.resolve().is_relative_to(Path(folder).resolve()):
            wrong.append(f"{path}: a link out of the folder, which is not followed")
        elif not path.is_file():
            wrong.append(f"{path}: missing")
        elif (size := path.stat().st_size) != shard["bytes"]:
            wrong.append(f"{path}: {size:,} bytes, the index says {shard['bytes']:,}")
        elif verify and digest(path) != shard["sha256"]:
            wrong.append(f"{path}: contents differ from what the index says (sha256)")
    return wrong


def read_shards(folder: str | os.PathLike[str]) -> Iterator[Batch]:
    """Load the shards of a folder, one `Batch` at a time.

    `Batch.rows["row_numbers"]` says which rows of the sources they hold.

    Raises:
        ValueError: a file is missing, or not as large as the index says.
    """
    index = read_index(folder)
    for wrong in check_shards(folder, index):
        raise ValueError(wrong)
    for number, path in enumerate(_paths(folder, index)):
        with opened(path, index, number) as shard:
            batch = shard.batch()
        yield batch


def read_layout(folder: str | os.PathLike[str], index: Mapping[str, Any] | None = None) -> Layout:
    """Read where the rows of all shards are, and none of their tokens.

    Args:
        folder: where `write_shards` wrote.
        index: its index; it is read by default.

    Returns:
        The bins of all shards, and the rows that are in them, in the order of the sources: the plan of the
        run, but for rows that were dropped.
    """
    index = read_index(folder) if index is None else index
    width, line, has_pieces = index["totals"]["width"], 0, False
    parts: list[tuple[Int64s, ...]] = []
    for number, path in enumerate(_paths(folder, index)):
        with opened(path, index, number) as shard:
            layout, numbers = shard.layout, shard.row_numbers
        starts = np.where(layout.starts == ABSENT, ABSENT, layout.starts + line * width)
        rows, begins = layout.pieces_of_rows()
        parts.append((starts, layout.lengths, numbers[rows], begins, numbers, layout.row_lengths))
        line += layout.shape[0]
        has_pieces |= layout.has_pieces
    starts, lengths, sources, begins, numbers, whole = map(np.concatenate, zip(*parts, strict=True))
    numbers, first = np.unique(numbers, return_index=True)  # a row may have pieces in several shards
    by_row = np.lexsort((begins, sources))
    starts, lengths, begins = starts[by_row], lengths[by_row], begins[by_row]
    pieces = (np.searchsorted(numbers, sources[by_row]), begins) if has_pieces else ()
    with at(path=folder):
        return Layout((line, width), starts, lengths, whole[first], *pieces)


def _paths(folder: str | os.PathLike[str], index: Mapping[str, Any]) -> list[Path]:
    return [Path(folder) / shard["file"] for shard in index["shards"]]
