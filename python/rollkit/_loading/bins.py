"""Rollouts as a data set of bins: `Bins`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rollkit import _check
from rollkit._batch.batch import Batch, spare_of
from rollkit._batch.fill import PACKED, Filling, asked
from rollkit._batch.plan import planned, shares
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray
from rollkit._loading.planned import Planned
from rollkit._rollouts.names import Names, check_names, check_shared_names, renamed
from rollkit._rollouts.other_masks import warn_of_other_masks
from rollkit._rollouts.sources import Source, Sources
from rollkit._rows.binpack import Packing
from rollkit._rows.layout import ABSENT, Layout
from rollkit._rows.lists import Lists
from rollkit._rows.order import permuted

if TYPE_CHECKING:
    from rollkit._rows.trees import TreeLayout


class Store(Protocol):
    """Where bins come from: rollouts in memory, or a folder of shards."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`[bins, capacity]`."""

    @property
    def layout(self) -> Layout | TreeLayout:
        """Where all rows are."""

    @property
    def per_token(self) -> Sequence[str]:
        """Those of `columns` that have an element per token: of rows that share prefixes."""

    @property
    def plan(self) -> str:
        """What is where, as 16 digits."""

    def costs(self) -> Int64s:
        """`[bins]` int64: the squares of their segments' lengths, added up."""

    def write(
        self, bins: Int64s, wanted: Sequence[str] | None, spare: Mapping[str, AnyArray]
    ) -> tuple[dict[str, Any], dict[str, AnyArray], Layout | TreeLayout, Int64s]:
        """The arrays of some bins, `[bins, capacity]`, their memory and layout, and the prompts' lengths."""

    def columns(
        self, bins: Int64s, spare: Mapping[str, AnyArray]
    ) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """What is of rows, of those in some bins as they lie, and the memory of what is per token."""


class Bins(Sequence[dict[str, Any]]):
    """Rollouts as a data set of bins: planned when it is made, placed when a bin is asked for.

    `bins[i]` is the `i`-th bin, a dict of `[capacity]` arrays. So any sampler, rank split or checkpoint of a
    framework works on it, which need to know numbers alone: `rollkit.ShuffledSampler` is one without memory.
    Nothing is copied when it is made; a bin is written when it is asked for, into memory of its own.

    Args:
        rollouts: as `rollkit.pack` takes them.
        capacity: tokens of a bin (or give `layout`).
        layout: a plan made before; a `TreeLayout` for bins that share prefixes.
        columns: the names of exactly what a bin has, made arrays (`segment_ids`, `positions`) included; all
            by default.
        pad_id, fills, dtypes, levels, names: as in `rollkit.pack`.
        algorithm, align, max_segments, bins_multiple_of, oversize, order, seed: likewise.
        share_prefixes, groups, match: likewise. `layout` is a `TreeLayout` then, and of a bin by itself
            `predecessors` count within it: `take_along_axis(logprobs, predecessors, 1)` of those that are
            stacked. Columns per token are among the `rows` of `batch(…)`, or laid in all bins at once by
            `bins.layout.reduce`.

    Attributes:
        layout: of all bins.
        names: of the arrays of a bin.
        plan: what is where, as 16 digits: a state of a sampler for other bins is refused. Of rollouts in
            memory it tells lengths, and the tokens of three bins.

    Raises:
        ValueError: as `rollkit.pack`; `columns` has a name that no array has; or `names="maxtext"`, and rows
            are in pieces: the target of a piece's last token is in another bin.

    Example:
        >>> rollouts = {"response_ids": [[1, 2, 3], [4, 5], [6, 7, 8, 9]]}
        >>> bins = Bins(rollouts, 5, columns=["input_ids", "segment_ids"])
        >>> len(bins), bins[1]["input_ids"], bins[1]["segment_ids"]
        (2, array([1, 2, 3, 4, 5], dtype=int32), array([1, 1, 1, 2, 2], dtype=int32))
    """

    def __init__(
        self,
        rollouts: Source | Sequence[Source],
        capacity: int | None = None,
        *,
        layout: Layout | TreeLayout | None = None,
        columns: Sequence[str] | None = None,
        pad_id: int = 0,
        fills: Mapping[str, Any] | None = None,
        dtypes: Mapping[str, DTypeLike] | None = None,
        levels: Mapping[str, str] | None = None,
        names: Names = "rollkit",
        algorithm: str = "first_fit_decreasing",
        align: int = 1,
        max_segments: int | None = None,
        bins_multiple_of: int = 1,
        oversize: str = "raise",
        order: str = "opened",
        seed: int | None = None,
        share_prefixes: bool = False,
        groups: str | ArrayLike | Sequence[Any] | None = None,
        match: str | Sequence[str] = (),
    ) -> None:
        check_names(names)
        sources = Sources.of(rollouts, levels)
        packing: Packing = {
            "algorithm": algorithm,
            "align": align,
            "max_segments": max_segments,
            "bins_multiple_of": bins_multiple_of,
            "oversize": oversize,
            "order": order,
            "seed": seed,
        }
        store: Store
        if shares(share_prefixes, layout, groups, match):
            from rollkit._batch.shared import SharedFilling, planned_trees  # with it come forests
            from rollkit._loading.planned_trees import PlannedTrees

            check_shared_names(names)
            shared = SharedFilling.of(sources, pad_id, fills, dtypes)
            trees = planned_trees("Bins", sources, capacity, layout, None, groups, match, **packing)
            store = PlannedTrees(trees, shared, check=layout is not None)
        else:
            filling = Filling.of(sources, pad_id, fills, asked(dtypes, names), PACKED)
            plan = planned("Bins", sources, capacity, layout, **packing)
            store = Planned(sources.rows, plan, filling)
        self._open(store, columns, names)
        if not {"loss_masks", "labels"}.isdisjoint(self.names):
            warn_of_other_masks(sources.names)

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], *, columns: Sequence[str] | None = None, names: Names = "rollkit"
    ) -> Bins:
        """The bins of a folder that `rollkit pack` wrote, mapped into memory.

        A shard is mapped when a bin of it is first asked for, and of it only this bin is copied. What is
        given out is as of any `Bins`: memory of its own. Finished shards do not change: one whose size or
        time differs from when the folder was opened is refused where it is mapped, and one that is cut short
        while it is mapped ends the process, as of any map. The rows of `layout` are those of the sources, in
        their order, but for those that were dropped. It pickles as the path of the folder, which is opened
        anew where it is unpickled.

        Args:
            folder: of shards; of any format that rollkit has written.
            columns: the names of exactly what a bin has; all by default.
            names: as in `rollkit.pack`.

        Raises:
            ValueError: the run that wrote the folder is unfinished; a file is missing, is not as the index
                says, or is of another run; the message names it.
            FileNotFoundError: there is no index.

        Example:
            >>> import tempfile
            >>> from rollkit import _cli, sample_path
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     command = ["pack", str(sample_path()), "-o", folder, "--capacity", "4096", "--quiet"]
            ...     status = _cli.main(command)
            ...     bins = Bins.open(folder, columns=["input_ids", "segment_ids"])
            ...     len(bins), list(bins[3]), bins[3]["input_ids"].shape
            (4, ['input_ids', 'segment_ids'], (4096,))
        """
        from rollkit._loading.stored import Stored  # reads files, which importing rollkit does not wait for

        check_names(names)
        bins = cls.__new__(cls)
        bins._open(Stored(folder), columns, names)
        return bins

    def _open(self, store: Store, columns: Sequence[str] | None, names: Names) -> None:
        self._store, self._renamed = store, names
        arrays, _, layout, _ = store.write(np.empty(0, np.int64), None, {})
        self._shares = not isinstance(layout, Layout)  # prefixes; the layout of all bins may be large to read
        there = list(self._called(arrays, layout))
        if columns is not None:
            columns = [str(name) for name in _check.items("columns", columns)]
            for name in columns:
                if name not in there:
                    known = ", ".join(map(repr, there))
                    raise ValueError(f"columns has {name!r}, which is no array; there are {known}")
            there = list(dict.fromkeys(columns))
        self.names: Sequence[str] = tuple(there)
        self._wanted = self.names if names == "rollkit" else None  # others are made of arrays not asked for
        if names == "maxtext":
            _check_whole(store.layout)

    def select(self, columns: Sequence[str]) -> Bins:
        """The same bins, of exactly these arrays; what they are made of is shared.

        Example:
            >>> bins = Bins({"response_ids": [[1, 2, 3], [4, 5]]}, 5)
            >>> bins.select(["input_ids"])[0]
            {'input_ids': array([1, 2, 3, 4, 5], dtype=int32)}
        """
        found = object.__new__(type(self))
        found._open(self._store, columns, self._renamed)
        return found

    def _called(self, arrays: dict[str, Any], layout: Layout | TreeLayout) -> dict[str, Any]:
        return arrays if self._renamed == "rollkit" else renamed(arrays, layout, self._renamed)

    @property
    def layout(self) -> Layout | TreeLayout:
        """Where all rows are, `[bins, capacity]`."""
        return self._store.layout

    @property
    def capacity(self) -> int:
        """Tokens of a bin."""
        return self._store.shape[-1]

    @property
    def plan(self) -> str:
        """What is where, as 16 digits."""
        return self._store.plan

    @property
    def costs(self) -> Int64s:
        """`[bins]` int64, what attention costs: the squares of segments' lengths, added up.

        What rows share costs once: a node that ends at element `e` of its rows and begins at `b`, e² - b².
        """
        return self._store.costs()

    def __len__(self) -> int:
        return self._store.shape[0]

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return self.__getitems__(range(len(self))[i])
        arrays, _ = self._apart(np.array([self._number(i)]), {})
        return {name: _bin(array, 0, self.capacity) for name, array in arrays.items()}

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Several bins in one call, which share memory: what torch's `DataLoader` asks for."""
        arrays, width = self._stacked(numbers), self.capacity
        return [{name: _bin(array, i, width) for name, array in arrays.items()} for i in range(len(numbers))]

    def _stacked(self, numbers: ArrayLike) -> dict[str, Any]:
        """Several bins as `[len(numbers), capacity]` arrays, whose lines are what each bin is by itself."""
        return self._apart(self._numbers(numbers), {})[0]

    def batch(self, numbers: ArrayLike, *, out: Batch | None = None) -> Batch:
        """Some bins as a `Batch`, with its layout and what is per row.

        Args:
            numbers: of the bins.
            out: a batch whose memory is filled again, where it is large enough.

        Returns:
            `[len(numbers), capacity]`; its rows are those of the bins as they lie, and
            `batch.rows["row_numbers"]` says which rollouts they are.

        Example:
            >>> bins = Bins({"response_ids": [[1, 2, 3], [4, 5], [6, 7, 8, 9]]}, 5)
            >>> batch = bins.batch([1])
            >>> batch.unpack("input_ids").to_list(), batch.rows["row_numbers"]
            ([[1, 2, 3], [4, 5]], array([0, 1]))
        """
        spare = spare_of(out)
        chosen = self._numbers(numbers)
        arrays, memory, layout, prompt_lengths = self._written(chosen, spare)
        columns, more = self._store.columns(chosen, spare)
        return Batch(arrays, layout, prompt_lengths, columns, {**memory, **more}, self._store.per_token)

    def iterate(self, order: Iterable[int] | None = None) -> Iterator[dict[str, Any]]:
        """Bins one after the other, in memory that is used again.

        New memory costs more than what is written to it. What was handed out is filled again once nothing
        refers to it: an array, a view or tensor of it keeps it as it is, and other memory is taken.

        Args:
            order: numbers of bins; all by default.
        """
        ring: list[dict[str, AnyArray]] = []
        for number in range(len(self)) if order is None else order:
            spare = next((memory for memory in ring if _is_free(memory)), {})
            arrays, memory = self._apart(np.array([self._number(number)]), spare)
            if spare:
                spare |= memory  # lists may have outgrown what there was
            elif memory:  # lists of rollouts have none
                ring.append(memory)
            found = {name: _bin(array, 0, self.capacity) for name, array in arrays.items()}
            del arrays, memory, spare
            yield found
            del found

    def balanced(self, ranks: int, *, seed: int = 0, epoch: int = 0) -> Int64s:
        """Deal bins to ranks so that those of one step take as long: by the squares of their segments.

        Args:
            ranks: how many there are.
            seed: of the order of steps.
            epoch: another order for each.

        Returns:
            `[steps, ranks]` int64 numbers of bins; steps in random order. Bins beyond a multiple of `ranks`
            are left out, others in each epoch.
        """
        ranks = _check.positive("ranks", ranks)
        count = len(self)
        steps = count // ranks
        shuffled = permuted(np.arange(count), count, seed=seed, epoch=epoch)[: steps * ranks]
        by_cost = shuffled[np.argsort(self.costs[shuffled], kind="stable")].reshape(steps, ranks)
        turned = (np.arange(ranks) + np.arange(steps)[:, None]) % ranks  # no rank always has the dearest
        return np.take_along_axis(by_cost, turned, 1)[
            permuted(np.arange(steps), steps, seed=seed, epoch=epoch)
        ]

    def _apart(
        self, bins: Int64s, spare: Mapping[str, AnyArray]
    ) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """The arrays of some bins, each to be taken by itself, and their memory."""
        arrays, memory, _, _ = self._written(bins, spare)
        if self._shares and len(bins) > 1 and "predecessors" in arrays:
            found, lines = arrays["predecessors"], np.arange(len(bins))[:, None]
            np.subtract(found, lines * self.capacity, out=found, where=found >= 0)
        return arrays, memory

    def _written(
        self, bins: Int64s, spare: Mapping[str, AnyArray]
    ) -> tuple[dict[str, Any], dict[str, AnyArray], Layout | TreeLayout, Int64s]:
        arrays, memory, layout, prompt_lengths = self._store.write(bins, self._wanted, spare)
        arrays = self._called(arrays, layout)
        return {name: arrays[name] for name in self.names}, memory, layout, prompt_lengths

    def _number(self, i: Any) -> int:
        number = _check.integer("a bin's number", i)
        if not -len(self) <= number < len(self):
            raise IndexError(f"bin {i} is out of range: there are {len(self):,}")
        return number % len(self)

    def _numbers(self, numbers: ArrayLike) -> Int64s:
        found = _check.int64s("numbers", numbers)
        if (odd := (found < -len(self)) | (found >= len(self))).any():
            raise IndexError(f"bin {found[odd][0]} is out of range: there are {len(self):,}")
        return np.where(found < 0, found + len(self), found)

    def __repr__(self) -> str:
        return f"Bins({len(self):,} × {self.capacity:,}: {', '.join(self.names)})"


def _bin(array: Any, i: int, width: int) -> Any:
    return array.part(i * width, (i + 1) * width) if isinstance(array, Lists) else array[i]


def _check_whole(layout: Layout | TreeLayout) -> None:
    """Refuse rows in pieces: of a bin alone, what follows the last token of a piece is not there."""
    if not isinstance(layout, Layout) or not layout.has_pieces:
        return
    rows, _ = layout.pieces_of_rows()
    if (odd := np.bincount(rows[layout.starts != ABSENT], minlength=1) > 1).any():
        raise ValueError(
            f"names='maxtext' is for whole rows, and row {int(odd.argmax())} is in pieces: the target of a "
            "piece's last token is in another bin; take oversize='truncate', or names='grain'"
        )


def _is_free(memory: Mapping[str, AnyArray]) -> bool:
    """Whether nobody holds an array over this memory: only the dict, this loop and `getrefcount` do."""
    return all(sys.getrefcount(array) == _ALONE for array in memory.values())


_ALONE = next(sys.getrefcount(array) for array in {"": np.empty(0)}.values())
