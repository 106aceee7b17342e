"""Folders of packed shards, and their files.

A folder holds `shard-00000.safetensors` and so on, and `index.json`, which is written last. A shard's
tensors are the arrays of its `Batch` under their own names, its layout under `layout.…`, and what has
one entry per row under `rows.…` (objects as the bytes of a JSON array).
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from rollkit._batch import Batch
from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._extras import extra
from rollkit._files.folder import INDEX, WORK, digest
from rollkit._files.source import File, changed, local_path, state_of
from rollkit._files.state import INDEX_SHAPE, misfit, read_state
from rollkit._files.tensors import Tensors
from rollkit._frameworks import AnyArray
from rollkit._rows.layout import ABSENT, Layout

FORMAT: Final = 1
_LAYOUT: Final = ("starts", "lengths", "row_lengths")
_PIECES: Final = ("source_rows", "begins")  # of a shard with rows in pieces
_HEADER: Final = {"format": int, "arrays": [str], "rows": {"*": str}}
TAKEN: Final = ("segment_ids", "positions", "attention_mask", "row_numbers")
"""Names, and those that begin with `layout.` or `rows.`, that a shard has for itself."""


def read_index(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read `index.json` of a folder that `write_shards` wrote."""
    path = local_path(folder) / INDEX
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise refusal(ValueError, "not an index that rollkit wrote: a link, or no file", path=path)
        index = read_state(path, "an index", INDEX_SHAPE)
    except FileNotFoundError:
        if (path.parent / WORK).exists():
            raise ValueError(
                f"{folder}: this run is unfinished; continue it with rollkit pack --resume"
            ) from None
        raise
    if index["format"] != FORMAT:
        text = f"format {index['format']!r}; this rollkit reads {FORMAT}"
        raise refusal(ValueError, text, path=path)
    if not index["shards"]:
        raise refusal(ValueError, "not an index that rollkit wrote: it has no shards", path=path)
    for number, shard in enumerate(index["shards"]):
        if shard["file"] != shard_name(number):
            text = f"shards[{number}].file is {shard['file']!r}, expected {shard_name(number)!r}"
            raise refusal(ValueError, f"not an index that rollkit wrote: {text}", path=path)
    return index


def check_shards(folder: str | os.PathLike[str], *, verify: bool = False) -> list[str]:
    """Return what is wrong with the files of a folder: one line each, none if all is as the index says.

    Args:
        folder: where `write_shards` wrote.
        verify: compare contents too (SHA-256), and not only sizes.
    """
    wrong = []
    for shard in read_index(folder)["shards"]:
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
    for wrong in check_shards(folder):
        raise ValueError(wrong)
    for shard in read_index(folder)["shards"]:
        yield _load(Path(folder) / shard["file"])


def read_layout(folder: str | os.PathLike[str]) -> Layout:
    """Read where the rows of all shards are, and none of their tokens; bins count through.

    A row in pieces is one, though they are in several shards.
    """
    parts: list[tuple[Int64s, ...]] = []
    lines = width = 0
    for shard in read_index(folder)["shards"]:
        with _opened(Path(folder) / shard["file"]) as (file, _):
            layout, numbers = _layout(file), file.read("layout.row_numbers")
            if parts and layout.width != width:
                raise ValueError(f"bins of {layout.width:,} tokens, those before have {width:,}")
        width = layout.width
        starts = np.where(layout.starts == ABSENT, ABSENT, layout.starts + lines * width)
        rows, begins = layout.pieces_of_rows()
        parts.append((starts, layout.lengths, layout.row_lengths, numbers, numbers[rows], begins))
        lines += layout.shape[0]
    joined = (np.concatenate(found) for found in zip(*parts, strict=True))
    starts, lengths, row_lengths, numbers, of_pieces, begins = joined
    if len(numbers) == len(of_pieces) and not begins.any():
        return Layout((lines, width), starts, lengths, row_lengths)
    known, first = np.unique(numbers, return_index=True)
    rows = np.searchsorted(known, of_pieces)
    return Layout((lines, width), starts, lengths, row_lengths[first], rows, begins)


def _layout(file: Tensors) -> Layout:
    there = set(file.names())
    names = [*_LAYOUT, *(name for name in _PIECES if f"layout.{name}" in there)]
    found = {name: file.read(f"layout.{name}") for name in names}
    return Layout(file.shape("input_ids"), **found)


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"shard-{number:05d}.safetensors"


def save_shard(
    path: Path, batch: Batch, row_numbers: Int64s, rows: Mapping[str, AnyArray | bytes], **header: Any
) -> dict[str, str]:
    """Write a batch to a file.

    Args:
        path: the file.
        batch: its arrays and layout are written, and not its rows.
        row_numbers: `[rows]`, which rows of the sources these are.
        rows: the columns per row: numbers, or the bytes of a JSON array.
        **header: what else the file should say of itself.

    Returns:
        By column per row, its dtype, or `"json"`.
    """
    layout = batch.layout
    tensors: dict[str, Any] = dict(batch.arrays)
    tensors |= {f"layout.{name}": getattr(layout, name) for name in _LAYOUT}
    if layout.has_pieces:
        tensors |= {
            f"layout.{name}": found for name, found in zip(_PIECES, layout.pieces_of_rows(), strict=True)
        }
    tensors |= {"layout.prompt_lengths": batch.prompt_lengths, "layout.row_numbers": row_numbers}
    for name, found in rows.items():
        tensors[f"rows.{name}"] = np.frombuffer(found, np.uint8) if isinstance(found, bytes) else found
    kinds = {name: "json" if isinstance(found, bytes) else found.dtype.name for name, found in rows.items()}
    # safetensors writes entries of its metadata in no fixed order, so there is one.
    header |= {"format": FORMAT, "arrays": list(batch), "rows": kinds}
    _save(path, tensors, {"rollkit": json.dumps(header)})
    return kinds


def _save(path: Path, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    safetensors = extra("safetensors", "cli")
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        extra("safetensors.numpy", "cli").save_file(tensors, path, metadata=metadata)
    except safetensors.SafetensorError as error:
        raise refusal(ValueError, str(error), path=path) from None
    path.chmod(mode)  # safetensors lets nobody else read its files
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Tensors, dict[str, Any]]]:
    """Open a shard; gives its tensors, and the header that `save_shard` put there."""
    begun = state_of(path)
    with Tensors(File(path), "a shard") as file, at(path=path, kind=ValueError):
        yield file, _header(file)
    if state_of(path) != begun:
        raise changed(path)


def _header(file: Tensors) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(file.metadata.get("rollkit", ""))
        wrong = misfit(header, _HEADER)
    except (ValueError, RecursionError):
        wrong = "it has no header of rollkit's"
    if wrong is None and len(file.shape("input_ids")) != 2:
        wrong = f"input_ids has shape {file.shape('input_ids')}, expected [bins, width]"
    if wrong is not None:
        raise ValueError(f"not a shard that rollkit wrote: {wrong}")
    return header


def _load(path: Path) -> Batch:
    with _opened(path) as (file, header):
        arrays = {name: file.read(name) for name in header["arrays"]}
        prompt_lengths, numbers = (file.read(f"layout.{name}") for name in ("prompt_lengths", "row_numbers"))
        rows = {"row_numbers": numbers}
        for name, kind in header["rows"].items():
            found = file.read(f"rows.{name}")
            rows[name] = json.loads(found.tobytes()) if kind == "json" else found
        return Batch(arrays, _layout(file), prompt_lengths, rows)
