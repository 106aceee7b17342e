"""A list for each element: `Lists`, which a buffer holds where an array holds a number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from rollkit import _check, _native
from rollkit._arrays.ops import ops_of
from rollkit._check import Int64s, int64s
from rollkit._errors import retold, row_of
from rollkit._frameworks import AnyArray, as_array, framework_of, is_traced

OF_ANY_LENGTH = -1
"""What the inner shape has where each element is a list of its own length."""

_TRACED = "a list per token is moved by its offsets, which have no values under jit or vmap"


class Lists(NamedTuple):
    """A list of numbers for each element, end to end (CSR): list `i` is `values[offsets[i]:offsets[i + 1]]`.

    A batch has these for a column of a list per token, such as the token ids that survived top-p: one list a
    position of the batch, in memory order, empty where no token of the column is. Engines and trainers
    exchange sampling masks so, and `rollkit.decode.Kept` is the same with ids of tokens.

    Example:
        >>> from rollkit import pack
        >>> batch = pack({"response_ids": [[5, 6]], "sampling_mask": [[[5, 9], [6]]]}, capacity=3)
        >>> batch["sampling_mask"].values, batch["sampling_mask"].offsets
        (array([5, 9, 6], dtype=int32), array([0, 2, 3, 3]))
    """

    values: Any
    """`[entries, …]`, of any framework."""
    offsets: Any
    """`[lists + 1]` integers that never fall; they need not start at 0."""

    @property
    def dtype(self) -> Any:
        """The dtype of the values; their framework's."""
        return self.values.dtype

    def part(self, begin: int, end: int) -> Lists:
        """Lists `begin` to `end`: values are a view, where slices of their framework are."""
        begin, end = (_check.positive(name, at, least=0) for name, at in (("begin", begin), ("end", end)))
        if not begin <= end < len(self.offsets):
            raise IndexError(f"lists {begin} to {end} are out of range: there are {len(self.offsets) - 1}")
        if is_traced(self.offsets):
            raise TypeError(_TRACED)
        offsets = self.offsets[begin : end + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return type(self)(self.values[first:last], offsets - first if first else offsets)

    def take(self, rows: Any) -> Lists:
        """The lists of these numbers, in that order, copied; of the framework that these are of.

        Args:
            rows: `[n]` ints, such as the tokens that `Layout.edges` gives.

        Raises:
            IndexError: there is no such list.

        Example:
            >>> lists = Lists(np.array([3, 5, 7]), np.array([0, 2, 3]))
            >>> lists.take([1, 0]).values
            array([7, 3, 5])
        """
        numbers = int64s("rows", rows)
        count = len(self.offsets) - 1
        if (odd := (numbers < 0) | (numbers >= count)).any():
            raise IndexError(f"list {numbers[odd][0]} is out of range: there are {count}")
        found, _ = rows_of_lists(self, numbers, np.ones_like(numbers), copy=True)
        if framework_of(self.offsets) in (None, "numpy"):
            return type(self)(*found)
        return type(self)(found.values, ops_of(self.offsets).from_host(found.offsets, self.offsets))


def rows_of_lists(lists: Lists, begins: Int64s, lengths: Int64s, *, copy: bool) -> tuple[Lists, Int64s]:
    """Rows of lists, end to end: row `i` is `lengths[i]` lists from list `begins[i]` on.

    Returns:
        The lists, with offsets of the host that start at 0, and where the rows begin.
    """
    ends = _native.offsets_from_lengths(lengths)
    bounds = host_offsets(lists)
    firsts = bounds[begins]
    counts = bounds[begins + lengths] - firsts
    sizes, _ = _native.gather_rows(bounds[1:] - bounds[:-1], begins, lengths, copy=False)
    offsets = _native.offsets_from_lengths(sizes)
    if is_plain(lists):
        values = np.ascontiguousarray(as_array(lists.values))
        gathered, _ = _native.gather_rows(values, firsts, counts, copy=copy)
        return Lists(gathered, offsets), ends
    own = ops_of(lists.values)
    starts = _native.offsets_from_lengths(counts)
    index = np.repeat(firsts - starts[:-1], counts) + np.arange(starts[-1])
    return Lists(own.gather(lists.values, own.from_host(index, lists.values)), offsets), ends


@contextmanager
def of_element(offsets: Int64s) -> Iterator[None]:
    """Where each element is a list, and so a row of its own: say which row's and which element it is."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        element = row_of(error)
        if element is None:
            raise
        element += int(offsets[0])  # the elements before are not among these rows
        row = int(np.searchsorted(offsets, element, side="right")) - 1
        raise retold(error, row=row, position=int(element - offsets[row])) from None


def is_plain(lists: Lists) -> bool:
    """Whether Rust may move the values."""
    return ops_of(lists.values).is_plain(lists.values)


def host_offsets(lists: Lists) -> Int64s:
    """The offsets as int64 of the host.

    Raises:
        TypeError: they are traced, and have no values.
    """
    if is_traced(lists.offsets):
        raise TypeError(_TRACED)
    offsets: AnyArray = ops_of(lists.offsets).to_host(lists.offsets)
    return np.ascontiguousarray(offsets, np.int64)
