"""One shard: a safetensors file of packed bins. `docs/shards.md` says what is in it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from rollkit import _check
from rollkit._batch import Batch
from rollkit._batch.fill import MADE, PACKED, Filling
from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._extras import extra
from rollkit._files.shard_lists import ListPlaces, inner_of, list_names, list_tensors
from rollkit._files.source import File, changed, state_of
from rollkit._files.state import misfit
from rollkit._files.tensors import Place, Tensors
from rollkit._frameworks import AnyArray
from rollkit._rows.layout import Layout
from rollkit._rows.lists import Lists
from rollkit._rows.place import place
from rollkit._rows.ragged import Ragged

FORMAT: Final = 2
WITH_LISTS: Final = 3
"""What is written where a column is of lists; what a reader of format 2 reads stays format 2."""
FORMATS: Final = (1, FORMAT, WITH_LISTS)
"""Those that are read. Format 1 stored what is derived now, and had no offsets of JSON and no pieces."""
TAKEN: Final = ("segment_ids", "positions", "attention_mask", "row_numbers")
"""Names that a shard has for itself, and those that begin so."""
PREFIXES: Final = ("layout.", "rows.", "offsets.")
DERIVED: Final = {**{name: np.dtype(MADE[name]) for name in PACKED}, "rewards": np.dtype(np.float32)}
"""The arrays that layout and columns per row give; rewards, where each is a number per row."""
_LAYOUT: Final = ("starts", "lengths", "row_lengths")
_PIECES: Final = ("source_rows", "begins")
_HEADER: Final = {"format": int, "arrays": [str], "rows": {"*": str}}
_OPEN, _COMMA, _CLOSE = b"[,]"


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"shard-{number:05d}.safetensors"


# Writing.


def save_shard(
    path: Path,
    batch: Batch,
    row_numbers: Int64s,
    rows: Mapping[str, AnyArray | Ragged],
    *,
    derived: bool = False,
    **header: Any,
) -> dict[str, Any]:
    """Write a batch to a file.

    Args:
        path: the file.
        batch: its arrays and layout are written, and not its rows.
        row_numbers: `[rows]`, which rows of the sources these are.
        rows: the columns per row: numbers, or JSON texts.
        derived: store what can be derived, too.
        **header: what else the file should say of itself.

    Returns:
        What an index says of all shards: `columns`, those of them that are `derived`, and `rows`.
    """
    layout = batch.layout
    left_out = [] if derived else derivable(batch, rows)
    tensors: dict[str, Any] = {}
    for name, array in batch.items():
        if isinstance(array, Lists):
            tensors |= list_tensors(name, array, layout.width)
        elif name not in left_out:
            tensors[name] = array
    tensors |= {f"layout.{name}": getattr(layout, name) for name in _LAYOUT}
    if layout.has_pieces:
        tensors |= {f"layout.{name}": x for name, x in zip(_PIECES, layout.pieces_of_rows(), strict=True)}
    tensors |= {"layout.prompt_lengths": batch.prompt_lengths, "layout.row_numbers": row_numbers}
    for name, found in rows.items():
        if isinstance(found, Ragged):
            tensors[f"rows.{name}"], tensors[f"offsets.{name}"] = _json_array(found)
        else:
            tensors[f"rows.{name}"] = found
    contents = {
        "columns": {
            name: {"dtype": array.dtype.name, "shape": ["bins", layout.width, *inner_of(array)]}
            for name, array in batch.items()
        },
        "derived": left_out,
        "rows": {name: "json" if isinstance(x, Ragged) else x.dtype.name for name, x in rows.items()},
    }
    lists = any(isinstance(array, Lists) for array in batch.values())
    header |= {
        "format": WITH_LISTS if lists else FORMAT,
        "arrays": list(batch),
        "derived": left_out,
        "rows": contents["rows"],
    }
    # safetensors writes entries of its metadata in no fixed order, so there is one.
    _save(path, tensors, {"rollkit": json.dumps(header)})
    return contents


def derivable(arrays: Mapping[str, Any], rows: Mapping[str, Any]) -> list[str]:
    """The names of the arrays that layout and columns per row give."""
    spread = isinstance(rows.get("rewards"), np.ndarray)
    return [name for name in DERIVED if name in arrays and (name != "rewards" or spread)]


def _json_array(texts: Ragged) -> tuple[AnyArray, Int64s]:
    """`[texts]` as one JSON array: its bytes, and where each entry begins; `[rows + 1]`."""
    lengths = texts.lengths + 1  # with the comma after each
    offsets = np.append(0, np.cumsum(lengths)) + 1
    size = max(int(offsets[-1]), 2)
    data: AnyArray = place(texts, Layout.at((size,), offsets[:-1], texts.lengths), _COMMA, dtype=np.uint8)
    data[0], data[-1] = _OPEN, _CLOSE
    return data, offsets


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


# Reading.


class Shard:
    """An open shard.

    Attributes:
        tensors: what is stored.
        arrays: the names of all arrays of its batch, in their order.
        derived: the names of those that are not stored.
        lists: the names of those that have a list for each token.
        kinds: by column per row, its dtype, or `"json"`.

    Raises:
        ValueError: it is no shard, or one of another run than `index` is of.
    """

    def __init__(self, tensors: Tensors, index: Mapping[str, Any] | None = None, number: int = 0) -> None:
        self.tensors = tensors
        header = _header(tensors)
        self.arrays: list[str] = header["arrays"]
        self.kinds: dict[str, str] = header["rows"]
        self.derived: list[str] = header.get("derived", [])
        self.lists = list_names(tensors, self.arrays)
        check_derived(self.derived, self.kinds)
        if index is not None:
            self._check(header, index, number)

    def _check(self, header: dict[str, Any], index: Mapping[str, Any], number: int) -> None:
        wanted = {"format": index["format"], "number": number, "plan_sha256": index["plan_sha256"]}
        wanted |= {"arrays": list(index["columns"]), "rows": index["rows"], "derived": index.get("derived")}
        for name, value in wanted.items():
            if header.get(name) != value:
                told = f": {name} is {header.get(name)!r}, the index says {value!r}"
                raise ValueError(f"a shard of another run{told if name != 'plan_sha256' else ''}")
        for name, column in index["columns"].items():
            if name in self.derived:
                continue
            shape = (index["shards"][number]["bins"], *column["shape"][1:])
            dtype, found = self._kind(name)
            if (dtype.name, found) != (column["dtype"], shape):
                text = f"{name} is {dtype} of shape {found}, the index says {column['dtype']} of {shape}"
                raise ValueError(f"not the shard that rollkit wrote: {text}")

    def _kind(self, name: str) -> tuple[np.dtype[Any], tuple[Any, ...]]:
        """The dtype and shape of a stored array, as an index says them."""
        if name in self.lists:
            found = self.list_places(name)
            return found.entries.dtype, found.shape
        return self.tensors.place(name)[1:]

    def list_places(self, name: str) -> ListPlaces:
        """Where the lists of an array are."""
        with at(column=name):
            return ListPlaces.of(self.tensors, name, self.tensors.shape("input_ids"))

    @cached_property
    def layout(self) -> Layout:
        """Where its rows are, checked."""
        there = self.tensors.names()
        more = {name: self._int64s(name) for name in _PIECES if f"layout.{name}" in there}
        return Layout(self.tensors.shape("input_ids"), *map(self._int64s, _LAYOUT), **more)

    @cached_property
    def prompt_lengths(self) -> Int64s:
        """`[rows]`."""
        found = self._of_rows("prompt_lengths")
        if (odd := (found < 0) | (found > self.layout.row_lengths)).any():
            row = int(odd.argmax())
            whole = self.layout.row_lengths[row]
            raise refusal(ValueError, f" has {whole} tokens, and a prompt of {found[row]}", row=row)
        return found

    @cached_property
    def row_numbers(self) -> Int64s:
        """`[rows]`, which rows of the sources these are."""
        return self._of_rows("row_numbers")

    def rows(self, name: str) -> Any:
        """The entries of a column per row."""
        self.row_place(name)
        found = self.tensors.read(f"rows.{name}")
        if self.kinds[name] != "json":
            return found
        entries = parsed(found)
        if not isinstance(entries, list) or len(entries) != len(self.layout):
            raise self._odd_rows(name)
        return entries

    def row_place(self, name: str) -> Place:
        """Where the entries of a column per row are: numbers, or JSON."""
        kind, found = self.kinds[name], self.tensors.place(f"rows.{name}")
        wanted = ("uint8", found.shape[:1]) if kind == "json" else (kind, (len(self.layout),))
        if (found.dtype.name, found.shape) != wanted:
            raise self._odd_rows(name)
        return found

    def offsets(self, name: str) -> Int64s:
        """`[rows + 1]`, where entries of a column of objects begin in its JSON; they end a byte before."""
        if f"offsets.{name}" in self.tensors.names():
            found = _check.int64s(f"offsets.{name}", self.tensors.read(f"offsets.{name}"))
        else:
            found = _entry_offsets(self.tensors.read(f"rows.{name}"))
        ends = np.append(found, self.row_place(name).shape[0] + 1)
        if len(found) != len(self.layout) + 1 or found[0] != 1 or (np.diff(ends) < 1).any():
            raise self._odd_rows(name)
        return found

    def _odd_rows(self, name: str) -> ValueError:
        return ValueError(f"rows.{name} does not have an entry for each of {len(self.layout)} rows")

    @property
    def rewards(self) -> AnyArray | None:
        """`[rows]`, what derived rewards are made of, if there are any."""
        if "rewards" not in self.derived:
            return None
        with at(column="rewards"):
            found = self.rows("rewards")
            return Ragged(found, np.array([0, len(found)])).astype(DERIVED["rewards"]).values

    def batch(self) -> Batch:
        """All of it."""
        layout, prompts = self.layout, self.prompt_lengths
        filling = filling_of(self.derived, prompts, layout.row_lengths - prompts, self.rewards)
        found, _ = filling.write(layout)
        arrays = {name: found[name] if name in found else self._array(name) for name in self.arrays}
        rows = {"row_numbers": self.row_numbers, **{name: self.rows(name) for name in self.kinds}}
        return Batch(arrays, layout, prompts, rows)

    def _array(self, name: str) -> Any:
        """A stored array, or its lists."""
        if name not in self.lists:
            return self.tensors.read(name)
        places = self.list_places(name)
        with at(column=name):
            return places.read(self.tensors, name)

    def _int64s(self, name: str) -> Int64s:
        return _check.int64s(f"layout.{name}", self.tensors.read(f"layout.{name}"))

    def _of_rows(self, name: str) -> Int64s:
        found = self._int64s(name)
        if len(found) != len(self.layout):
            raise ValueError(f"layout.{name} has {len(found)} entries, the layout {len(self.layout)} rows")
        return found


def parsed(text: AnyArray) -> Any:
    """The value of JSON in a shard."""
    try:
        return json.loads(text.tobytes())
    except (ValueError, RecursionError):
        raise ValueError(_NO_JSON) from None


def _entry_offsets(text: AnyArray) -> Int64s:
    """Where the entries of a JSON array begin that has no blanks; format 1 does not store it."""
    read = json.JSONDecoder().raw_decode
    try:
        found, offsets = text.tobytes().decode("ascii"), [1]
        while offsets[-1] < len(found) - 1:
            offsets.append(read(found, offsets[-1])[1] + 1)
    except (ValueError, RecursionError):
        raise ValueError(_NO_JSON) from None
    return np.array(offsets)


_NO_JSON: Final = "not a shard that rollkit wrote: what it has per row is no JSON"


@contextmanager
def opened(path: Path, index: Mapping[str, Any] | None = None, number: int = 0) -> Iterator[Shard]:
    """Open a shard, of the run that `index` is of."""
    begun = state_of(path)
    with Tensors(File(path), "a shard") as file, at(path=path, kind=ValueError):
        yield Shard(file, index, number)
    if state_of(path) != begun:
        raise changed(path)


def check_derived(names: Sequence[str], kinds: Mapping[str, str]) -> None:
    """Check that arrays can be derived where columns per row are of these kinds."""
    for name in names:
        if name not in DERIVED or (name == "rewards" and kinds.get(name, "json") == "json"):
            raise ValueError(f"not written by this rollkit: derived has {name!r}, which nothing gives")


def filling_of(
    names: Container[str], prompt_lengths: Int64s, response_lengths: Int64s, rewards: AnyArray | None
) -> Filling:
    """What writes derived arrays."""
    dtypes = {name: dtype for name, dtype in DERIVED.items() if name in names}
    return Filling.derived(dtypes, prompt_lengths, response_lengths, rewards)


def _header(file: Tensors) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(file.metadata.get("rollkit", ""))
        wrong = misfit(header, _HEADER) or misfit(header.get("derived", []), [str], "derived")
    except (ValueError, RecursionError):
        wrong = "it has no header of rollkit's"
    if wrong is None and header["format"] not in FORMATS:
        raise ValueError(f"format {header['format']}; this rollkit reads {told_formats()}")
    if wrong is None and len(shape := file.place("input_ids").shape) != 2:
        wrong = f"input_ids has shape {shape}, expected [bins, width]"
    if wrong is not None:
        raise ValueError(f"not a shard that rollkit wrote: {wrong}")
    return header


def told_formats() -> str:
    """Which formats are read."""
    *others, last = map(str, FORMATS)
    return f"{', '.join(others)} and {last}"
