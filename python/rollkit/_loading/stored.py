"""The bins of a folder of shards: mapped into memory, each shard when a bin of it is first asked for."""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from collections.abc import Container, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np

from rollkit._batch.fill import buffer, flat_buffer
from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._files.shard import Shard, filling_of, opened, parsed
from rollkit._files.shard_lists import OF_LISTS, ListPlaces, joined
from rollkit._files.shards import check_shards, read_index, read_layout
from rollkit._files.source import local_path, state_of
from rollkit._frameworks import AnyArray
from rollkit._loading.lines import Lines
from rollkit._loading.planned import ROW_NUMBERS
from rollkit._rows.dtypes import numpy_dtype
from rollkit._rows.layout import Layout
from rollkit._rows.lists import Lists

_MOST_MAPS: Final = 128
"""Shards that are mapped at a time: a map holds a file open, of which a process may have few."""


class Stored:
    """A folder of shards.

    Args:
        folder: where `rollkit pack` wrote.
    """

    per_token: Sequence[str] = ()

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = local_path(folder).absolute()
        self._index = read_index(self._folder)
        for wrong in check_shards(self._folder, self._index):
            raise ValueError(wrong)
        shards = self._index["shards"]
        self._paths = [self._folder / shard["file"] for shard in shards]
        self._states = [state_of(path) for path in self._paths]
        self._ends = list(accumulate(shard["bins"] for shard in shards))  # of each shard's bins
        self.shape = (self._ends[-1], self._index["totals"]["width"])
        self._columns = {name: _Column.of(column) for name, column in self._index["columns"].items()}
        self._derived = self._index.get("derived", [])
        self._shards: dict[int, _Held] = {}
        self._maps: dict[int, AnyArray] = {}

    @cached_property
    def layout(self) -> Layout:
        """Where all rows are, `[bins, capacity]`."""
        return read_layout(self._folder, self._index)

    @property
    def plan(self) -> str:
        """What is where, as 16 digits."""
        digits: str = self._index["plan_sha256"][:16]
        return digits

    def costs(self) -> Int64s:
        """`[bins]` int64: the squares of their segments' lengths, added up."""
        return self._costs.copy()

    @cached_property
    def _costs(self) -> Int64s:
        return Lines(self.layout).costs()

    def write(
        self, bins: Int64s, wanted: Container[str] | None, spare: Mapping[str, AnyArray]
    ) -> tuple[dict[str, Any], dict[str, AnyArray], Layout, Int64s]:
        """The arrays of some bins, `[bins, capacity]`, their memory and layout, and the prompts' lengths."""
        parts = self._parts(bins)
        layout, chosen = _joined(parts, self.shape[1])
        prompts = _gathered([part.held.prompt_lengths[part.rows] for part in parts], chosen)
        names = [name for name in self._columns if wanted is None or name in wanted]
        derived = [name for name in names if name in self._derived]
        made, memory = self._made(parts, layout, chosen, derived, prompts, spare)
        for name in names:
            column = self._columns[name]
            if column.of_lists:
                made[name] = self._lists(parts, name, memory, spare)
            elif name not in made:
                made[name] = buffer(memory, name, layout, column.dtype, column.inner, spare)
                self._copy(parts, name, memory[name].view(np.uint8))
        return {name: made[name] for name in names}, memory, layout, prompts

    def _made(
        self,
        parts: list[_Part],
        layout: Layout,
        chosen: Int64s | None,
        names: list[str],
        prompts: Int64s,
        spare: Mapping[str, AnyArray],
    ) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """The arrays that are derived, and their memory."""
        if not names:
            return {}, {}
        rewards = None
        if "rewards" in names:
            rewards = _gathered([part.held.rewards[part.rows] for part in parts], chosen)
        return filling_of(names, prompts, layout.row_lengths - prompts, rewards).write(layout, spare)

    def _copy(self, parts: list[_Part], name: str, out: AnyArray) -> None:
        """Copy the bytes of bins that are stored: as they are in the file, however they lie there."""
        size = self._columns[name].line
        for i, part in enumerate(parts):
            begin = part.held.begins[name] + part.line * size
            out[i * size : (i + 1) * size] = part.data[begin : begin + size]

    def _lists(
        self, parts: list[_Part], name: str, memory: dict[str, AnyArray], spare: Mapping[str, AnyArray]
    ) -> Lists:
        """The lists of bins; their entries are in the memory of that name."""
        column = self._columns[name]
        bins = []
        for part in parts:
            with at(path=self._paths[part.shard]), at(column=name):
                bins.append(part.held.lists[name].bin(part.data, part.line))
        shape = (sum(len(bin.entries) for bin in bins), *column.inner)
        return joined(bins, flat_buffer(memory, name, prod(shape), column.dtype, spare).reshape(shape))

    def columns(
        self, bins: Int64s, spare: Mapping[str, AnyArray]
    ) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """What is per row, of the rows of some bins as they lie."""
        parts = self._parts(bins)
        _, chosen = _joined(parts, self.shape[1])
        found = {ROW_NUMBERS: _gathered([part.held.row_numbers[part.rows] for part in parts], chosen)}
        for name, kind in self._index["rows"].items():
            if kind == "json":
                entries = [entry for part in parts for entry in self._entries(part, name)]
                found[name] = entries if chosen is None else [entries[i] for i in chosen]
            else:
                dtype = numpy_dtype(kind)
                found[name] = _gathered([part.numbers(name, dtype) for part in parts], chosen, dtype)
        return found, {}

    def _entries(self, part: _Part, name: str) -> list[Any]:
        """The objects that a column has of the rows of a part."""
        path = self._paths[part.shard]
        offsets = part.held.offsets.get(name)
        if offsets is None:
            with opened(path, self._index, part.shard) as shard:
                offsets = part.held.offsets[name] = shard.offsets(name)
        text, begin = part.data, part.held.begins[f"rows.{name}"]
        with at(path=path):
            ends = [(begin + offsets[row], begin + offsets[row + 1] - 1) for row in part.rows.tolist()]
            return [parsed(text[first:after]) for first, after in ends]

    def _parts(self, bins: Int64s) -> list[_Part]:
        return [self._part(number) for number in bins.tolist()]

    def _part(self, number: int) -> _Part:
        shard = bisect_right(self._ends, number)
        line = number - (self._ends[shard - 1] if shard else 0)
        data = self._maps.get(shard)
        if data is None:
            data = self._mapped(shard)
        held = self._shards.get(shard)
        if held is None:
            with opened(self._paths[shard], self._index, shard) as file:
                held = self._shards[shard] = _Held.of(file)
        layout, rows = held.lines.only(np.array([line]))
        return _Part(shard, line, held, data, layout, rows)

    def _mapped(self, shard: int) -> AnyArray:
        """Map a file that is as it was when the folder was opened."""
        path = self._paths[shard]
        try:
            if state_of(path) != self._states[shard]:
                text = "changed since its folder was opened; open the folder anew"
                raise refusal(ValueError, text, path=path)
            with path.open("rb") as file:
                raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            text = "missing; it was moved or removed since its folder was opened"
            raise refusal(ValueError, text, path=path) from None
        for old in list(self._maps)[: len(self._maps) - _MOST_MAPS + 1]:
            self._maps.pop(old, None)
        found = self._maps[shard] = np.frombuffer(raw, np.uint8)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (str(self._folder), self._index["plan_sha256"])


def _reopened(folder: str, plan: str) -> Stored:
    found = Stored(folder)
    if found._index["plan_sha256"] != plan:
        raise refusal(ValueError, "holds other bins than when it was pickled", path=folder)
    return found


class _Column(NamedTuple):
    """An array of all bins.

    Attributes:
        dtype: of its elements.
        inner: the shape of what a token has, or of an entry of its list.
        line: the bytes of a bin; of lists it is each bin's own.
        of_lists: a token has a list.
    """

    dtype: np.dtype[Any]
    inner: tuple[int, ...]
    line: int
    of_lists: bool

    @classmethod
    def of(cls, column: Mapping[str, Any]) -> _Column:
        dtype = numpy_dtype(column["dtype"])
        _, width, *inner = column["shape"]
        of_lists = inner[:1] == [OF_LISTS]
        inner = inner[of_lists:]
        line = 0 if of_lists else int(np.prod([width, *inner], dtype=object)) * dtype.itemsize
        return cls(dtype, tuple(inner), line, of_lists)


class _Held(NamedTuple):
    """What is kept of a shard: where its rows are, and where in the file the rest begins."""

    lines: Lines
    prompt_lengths: Int64s
    row_numbers: Int64s
    rewards: Any
    begins: dict[str, int]
    lists: dict[str, ListPlaces]
    offsets: dict[str, Int64s]  # of JSON; read when it is asked for

    @classmethod
    def of(cls, shard: Shard) -> _Held:
        stored = [*(name for name in shard.arrays if name not in shard.derived)]
        begins = {name: shard.tensors.place(name).begin for name in stored}
        begins |= {f"rows.{name}": shard.row_place(name).begin for name in shard.kinds}
        lists = {name: shard.list_places(name) for name in shard.lists}
        of_rows = shard.prompt_lengths, shard.row_numbers, shard.rewards
        return cls(Lines(shard.layout), *of_rows, begins, lists, {})


class _Part(NamedTuple):
    """A bin: where it is, and its layout."""

    shard: int
    line: int
    held: _Held
    data: AnyArray
    layout: Layout  # [1, capacity]
    rows: Int64s  # of the shard

    def numbers(self, name: str, dtype: np.dtype[Any]) -> AnyArray:
        """The numbers that a column has of these rows."""
        begin = self.held.begins[f"rows.{name}"]
        size = len(self.held.row_numbers) * dtype.itemsize
        return self.data[begin : begin + size].view(dtype)[self.rows]


def _joined(parts: list[_Part], width: int) -> tuple[Layout, Int64s | None]:
    """The layout of bins of any shards, and which of their rows it lays; None for all, as they lie.

    A row may have pieces in several of them.
    """
    if len(parts) == 1:
        return parts[0].layout, None
    layouts = [part.layout for part in parts]
    shape = (len(parts), width)
    starts = _gathered([layout.starts + i * width for i, layout in enumerate(layouts)])
    lengths = _gathered([layout.lengths for layout in layouts])
    row_lengths = _gathered([layout.row_lengths for layout in layouts])
    if not any(layout.has_pieces for layout in layouts):
        return Layout._trusted(shape, starts, lengths, row_lengths), None
    numbers = _gathered([part.held.row_numbers[part.rows] for part in parts])
    _, chosen, same = np.unique(numbers, return_index=True, return_inverse=True)
    firsts = np.cumsum([0, *(len(layout) for layout in layouts)])
    pieces = [layout.pieces_of_rows() for layout in layouts]
    sources = same[_gathered([rows + first for (rows, _), first in zip(pieces, firsts[:-1], strict=True)])]
    begins = _gathered([found for _, found in pieces])
    return Layout._trusted(shape, starts, lengths, row_lengths[chosen], None, sources, begins), chosen


def _gathered(parts: list[Any], chosen: Int64s | None = None, dtype: Any = np.int64) -> Any:
    """What several parts have, of some of all rows."""
    found = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, dtype)
    return found if chosen is None else found[chosen]
