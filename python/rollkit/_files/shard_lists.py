"""Arrays of a list per token in a shard: the entries of all lists, and how many each token's has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from rollkit._check import Int64s
from rollkit._files.tensors import Place, Tensors
from rollkit._frameworks import AnyArray
from rollkit._rows.lists import Lists

OF_LISTS: Final = "list"
"""What a shape in an index has behind bins and width where each element is a list."""
_COUNTS: Final = "layout.counts."
_BEGINS: Final = "offsets."
_NARROW: Final = ("uint8", "uint16", "uint32")
"""The dtypes of counts."""


def inner_of(array: Any) -> tuple[Any, ...]:
    """What the shape of an array has behind bins and width, as an index says it."""
    return (OF_LISTS, *array.values.shape[1:]) if isinstance(array, Lists) else array.shape[2:]


def list_tensors(name: str, lists: Lists, width: int) -> dict[str, AnyArray]:
    """What a shard of bins of `width` tokens has of the lists of all positions."""
    counts = np.diff(lists.offsets).reshape(-1, width)
    narrow = np.min_scalar_type(int(counts.max(initial=0)))
    begins = lists.offsets[::width]
    return {name: lists.values, f"{_COUNTS}{name}": counts.astype(narrow), f"{_BEGINS}{name}": begins}


def list_names(tensors: Tensors, arrays: Sequence[str]) -> list[str]:
    """Those of the arrays of a shard that have a list for each token."""
    there = tensors.names()
    return [name for name in arrays if f"{_COUNTS}{name}" in there]


class Bin(NamedTuple):
    """The lists of a bin: how many entries each has, and the entries."""

    counts: AnyArray
    entries: AnyArray


class ListPlaces(NamedTuple):
    """Where the lists of an array are in a file.

    Attributes:
        entries: `[entries, …]`, of all lists.
        counts: `[bins, width]`, how many entries each list has.
        begins: `[bins + 1]`, where the entries of each bin begin, and where the last end.
    """

    entries: Place
    counts: Place
    begins: Int64s

    @classmethod
    def of(cls, tensors: Tensors, name: str, shape: tuple[int, ...]) -> ListPlaces:
        """Find them, for bins of this shape.

        Raises:
            ValueError: they are not as `list_tensors` gives them.
        """
        entries, counts = tensors.place(name), tensors.place(f"{_COUNTS}{name}")
        begins = tensors.read(f"{_BEGINS}{name}")
        whole = begins.dtype == np.int64 and begins.shape == (shape[0] + 1,) and len(entries.shape)
        whole = whole and counts.shape == shape and counts.dtype.name in _NARROW
        if not whole or begins[0] != 0 or begins[-1] != entries.shape[0] or (begins[1:] < begins[:-1]).any():
            raise ValueError(_ODD)
        return cls(entries, counts, begins)

    @property
    def shape(self) -> tuple[Any, ...]:
        """The shape of the array, as an index says it."""
        return (*self.counts.shape, OF_LISTS, *self.entries.shape[1:])

    def read(self, tensors: Tensors, name: str) -> Lists:
        """The lists of all bins."""
        counts, entries = tensors.read(f"{_COUNTS}{name}"), tensors.read(name)
        bounds = pairwise(self.begins.tolist())
        bins = [_checked(line, entries[a:b]) for line, (a, b) in zip(counts, bounds, strict=True)]
        return joined(bins, np.empty_like(entries))

    def bin(self, data: AnyArray, line: int) -> Bin:
        """A bin over the bytes of the file."""
        first = self.counts.begin + line * self.counts.item
        counts = data[first : first + self.counts.item].view(self.counts.dtype)
        begin, end = self.begins[line : line + 2].tolist()
        first, item = self.entries.begin, self.entries.item
        entries = data[first + begin * item : first + end * item].view(self.entries.dtype)
        return _checked(counts, entries.reshape(end - begin, *self.entries.shape[1:]))


def joined(bins: Sequence[Bin], out: AnyArray) -> Lists:
    """Copy the lists of some bins, their entries to `out`."""
    counts = [bin.counts for bin in bins]
    offsets = np.zeros(sum(map(len, counts)) + 1, np.int64)
    if counts:  # whose sum int64 holds: `offsets_from_lengths` would look, in three times the time
        np.cumsum(np.concatenate(counts), dtype=np.int64, out=offsets[1:])
        np.concatenate([bin.entries for bin in bins], out=out)
    return Lists(out, offsets)


def _checked(counts: AnyArray, entries: AnyArray) -> Bin:
    if counts.sum(dtype=np.int64) != len(entries):
        raise ValueError(_ODD)
    return Bin(counts, entries)


_ODD: Final = "not the shard that rollkit wrote: counts and offsets of lists are not those of their entries"
