"""One optimizer step over chunks: `plan`, and what each rank has of it, `RankPlan`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check, _native
from rollkit._check import Int64s
from rollkit._errors import TELLING, retold, row_of
from rollkit._loading.digest import digits
from rollkit._rows.balance import Cost, GroupIds
from rollkit._rows.layout import Layout
from rollkit._rows.step_plan import NOBODY, StepPlan, plan_steps
from rollkit.ray._chunk import lengths_of

_ARRAYS: Final = ("rows", "lengths", "bounds", "chunks", "firsts", "sizes")


@dataclass(frozen=True, eq=False, repr=False)
class RankPlan:
    """What one rank does in one optimizer step: which rows it has, of which chunks, and where each goes.

    It knows no tokens, and pickles to some 10 bytes a row. `len` counts its bins, of which all ranks have
    equally many: bin `t` is micro-batch `t`. `plan[t]` and `plan[a:b]` are plans of some of the bins.

    Attributes:
        rank: whose it is.
        ranks: how many there are.
        capacity: the tokens of a bin.
        align: each row of a bin starts at a multiple of this.
        digest: the whole plan, of all ranks, as 16 digits; see `agree`.
        num_chunks: how many chunks there are, of all ranks.
        rows: `[rows]` int64, the numbers of its rows, counted through all chunks: bin after bin, ascending in
            each.
        lengths: `[rows]` int64, their tokens.
        bounds: `[bins + 1]` int64: bin `t` has the rows from `bounds[t]` on.
        chunks: `[chunks]` int64, the numbers of the chunks that it needs, ascending.
        firsts: `[chunks]` int64, the number of the first row of each of them.
        sizes: `[chunks]` int64, how many rows each of them has.

    Example:
        >>> first, second = plan([[9, 8, 6, 5, 4], [4, 3, 2, 2, 1]], 12, 2)
        >>> first
        RankPlan(rank 0 of 2: 5 rows of 2 chunks in 2 bins × 12, 91.7 % used)
        >>> first.rows, first.layout.starts
        (array([0, 7, 2, 5, 9]), array([ 0,  9, 12, 18, 22]))
    """

    rank: int
    ranks: int
    capacity: int
    align: int
    digest: str
    num_chunks: int
    rows: Int64s
    lengths: Int64s
    bounds: Int64s
    chunks: Int64s
    firsts: Int64s
    sizes: Int64s

    @cached_property
    def layout(self) -> Layout:
        """Where each row goes, `[bins, capacity]`: row `i` of it is row `rows[i]`."""
        counts = np.diff(self.bounds)
        before = _native.offsets_from_lengths(self.lengths, self.align)
        within = before[:-1] - np.repeat(before[self.bounds[:-1]], counts)
        within = np.minimum(within, self.capacity)  # of empty rows after one whose slot ends beyond
        starts = within + np.repeat(np.arange(len(self)) * self.capacity, counts)
        return Layout((len(self), self.capacity), starts, self.lengths, self.lengths)

    @cached_property
    def by_chunk(self) -> tuple[Int64s, Int64s]:
        """The places in `rows` of each chunk's rows, chunk after chunk, and where each chunk's begin."""
        chunk = np.searchsorted(self.firsts, self.rows, side="right") - 1
        places = np.argsort(_small(chunk), kind="stable")  # of 16 bits NumPy sorts by digits
        return places, np.searchsorted(chunk[places], np.arange(len(self.chunks) + 1))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, key: Any) -> RankPlan:
        """The plan of one bin, or of a slice of them."""
        if not isinstance(key, slice):
            number = _check.integer("a bin's number", key)
            if not -len(self) <= number < len(self):
                raise IndexError(f"bin {number} is out of range: there are {len(self):,}")
            number %= len(self)
            key = slice(number, number + 1)
        begin, end, step = key.indices(len(self))
        if step != 1:
            raise ValueError(f"bins of a plan are sliced in their order, one after the other, got {key}")
        bounds = self.bounds[begin : max(begin, end) + 1]
        rows = slice(bounds[0], bounds[-1])
        needed = _needed(self.rows[rows], self.chunks, self.firsts, self.sizes)
        bins = self.rows[rows], self.lengths[rows], bounds - bounds[0]
        return RankPlan(*(*self._named, *bins, *needed))

    def __eq__(self, other: object) -> bool:
        """Whether both are the same bins of the same plan."""
        if not isinstance(other, RankPlan):
            return NotImplemented
        return self._named == other._named and all(
            _check.same_ints(getattr(self, name), getattr(other, name)) for name in _ARRAYS
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def _named(self) -> Any:
        return self.rank, self.ranks, self.capacity, self.align, self.digest, self.num_chunks

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle in as few bytes as the numbers need, and without what is made of the rest."""
        return _unpickled, (self._named, [_small(getattr(self, name)) for name in _ARRAYS])

    def __repr__(self) -> str:
        used = 100 * self.lengths.sum() / max(len(self) * self.capacity, 1)
        return (
            f"RankPlan(rank {self.rank} of {self.ranks}: {len(self.rows):,} rows of {len(self.chunks):,} "
            f"chunks in {len(self):,} bins × {self.capacity:,}, {used:.1f} % used)"
        )


def plan(
    lengths: Sequence[Any],
    capacity: int,
    ranks: int,
    *,
    cost: Cost = None,
    sync: str = "micro_batch",
    home: ArrayLike | None = None,
    nodes: Sequence[Hashable] | None = None,
    max_segments: int | None = None,
    groups: GroupIds = None,
    seed: int | None = None,
    align: int = 1,
) -> list[RankPlan]:
    """Plan one optimizer step of rollouts that lie in chunks, from their lengths: who places which rows.

    Rows count through all chunks, and become micro-batches as `rollkit.plan_steps` makes them. A driver hands
    each rank its part; or each rank makes the plan of the same lengths, and takes its own (see `agree`).
    Needs no Ray, but for lengths that are refs.

    Args:
        lengths: one for each chunk: `[rows]` ints, the tokens of each row (prompt and response), an
            `ObjectRef` of them, a `Chunk`, or rollouts that are at hand.
        capacity: tokens of a micro-batch, never exceeded.
        ranks: data-parallel ranks.
        cost: as in `rollkit.plan_steps`.
        sync: likewise.
        home: `[chunks]` ints, a rank on the node where each chunk is, -1 where none is; see `homes`.
            Micro-batches that cost the same go where most of their tokens are.
        nodes: `[ranks]`, the node of each rank, as in `homes`: rows leave a node only where it has more than
            its share. See `rollkit.plan_steps`.
        max_segments: likewise.
        groups: `[rows]` ids, counted through all chunks: rows of one id stay in one micro-batch.
        seed: likewise.
        align: likewise.

    Returns:
        A `RankPlan` for each rank, all with equally many bins.

    Raises:
        ValueError: a row is longer than `capacity`: it is named, and its chunk; and as `plan_steps`.

    Example:
        >>> plans = plan([[5, 1, 4], [2, 3]], capacity=6, ranks=2, cost=(0, 1))
        >>> [[part[t].rows.tolist() for t in range(len(part))] for part in plans]
        [[[0], [1, 3]], [[2], [4]]]
        >>> plans[1].chunks
        array([0, 1])
    """
    chunks = lengths_of(lengths)
    sizes = np.array([len(chunk) for chunk in chunks], np.int64)
    ends = np.cumsum(sizes)
    whole = np.concatenate([np.empty(0, np.int64), *chunks])
    try:
        steps = plan_steps(
            whole,
            capacity=capacity,
            ranks=ranks,
            cost=cost,
            sync=sync,
            home=_homes(home, sizes, ranks),
            nodes=nodes,
            max_segments=max_segments,
            groups=groups,
            seed=seed,
            align=align,
        )
    except TELLING as error:
        row = row_of(error)
        if row is None:
            raise
        chunk = int(np.searchsorted(ends, row, side="right"))
        raise retold(error, path=f"chunk {chunk}", row=row - int(ends[chunk] - sizes[chunk])) from None
    return _of_ranks(steps, sizes)


def agree(digests: Sequence[str | RankPlan]) -> str:
    """Refuse ranks that have made different plans, before one of them waits for the others.

    Args:
        digests: that of each rank, as a collective gathers them; or their plans.

    Returns:
        The digest of all.

    Raises:
        ValueError: a rank has another plan; it is named.

    Example:
        >>> first, second = plan([[3, 2], [4]], 8, 2)
        >>> agree([first, second.digest]) == first.digest
        True
        >>> agree([first, "another"])
        Traceback (most recent call last):
        ValueError: rank 1 has plan 'another', rank 0 'ea52823fa5d5ae2e': all plan the same lengths alike
    """
    found = [
        entry.digest if isinstance(entry, RankPlan) else entry for entry in _check.items("digests", digests)
    ]
    if not found:
        raise ValueError("digests is empty; give that of each rank")
    for rank, digest in enumerate(found):
        if not isinstance(digest, str):
            raise TypeError(f"digests[{rank}] must be the digest of a RankPlan, got {type(digest).__name__}")
        if digest != found[0]:
            text = f"rank {rank} has plan {digest!r}, rank 0 {found[0]!r}: all plan the same lengths alike"
            raise ValueError(text)
    return str(found[0])


def _of_ranks(steps: StepPlan, sizes: Int64s) -> list[RankPlan]:
    """What each rank has of a step."""
    order, offsets = steps._order
    digest = _digest(steps, sizes)
    chunks, firsts = np.arange(len(sizes)), np.cumsum(sizes) - sizes
    plans = []
    for rank in range(steps.ranks):
        bounds = offsets[rank * steps.steps : (rank + 1) * steps.steps + 1]
        rows = order[bounds[0] : bounds[-1]]
        named = rank, steps.ranks, steps.capacity, steps.align, digest, len(sizes)
        bins = rows, steps.lengths[rows], bounds - bounds[0]
        plans.append(RankPlan(*(*named, *bins, *_needed(rows, chunks, firsts, sizes))))
    return plans


def _needed(rows: Int64s, chunks: Int64s, firsts: Int64s, sizes: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """The chunks that rows are of. Of no rows the first one, which says what columns there are."""
    found = np.unique(np.searchsorted(firsts, rows, side="right") - 1) if len(rows) else slice(0, 1)
    return chunks[found], firsts[found], sizes[found]


def _digest(steps: StepPlan, sizes: Int64s) -> str:
    told = sha256()
    for array in (sizes, steps.lengths, steps.slots):
        told.update(np.ascontiguousarray(array, "<i8").data)
    return digits((told.hexdigest(), steps.ranks, steps.steps, steps.capacity, steps.align))


def _homes(home: ArrayLike | None, sizes: Int64s, ranks: int) -> Int64s | None:
    """The rank of each row, of those of chunks."""
    if home is None:
        return None
    found = _check.int64s("home", home)
    if len(found) != len(sizes):
        raise ValueError(f"home has {len(found)} chunks, lengths has {len(sizes)}")
    if (odd := (found < NOBODY) | (found >= _check.positive("ranks", ranks))).any():
        chunk = int(odd.argmax())
        raise ValueError(f"home[{chunk}] is {found[chunk]}, expected a rank below {ranks}, or -1 for none")
    return np.repeat(found, sizes)


def _small(array: Int64s) -> Any:
    """The same numbers, none negative, in the narrowest dtype that holds them."""
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def _unpickled(named: Any, arrays: Sequence[Any]) -> RankPlan:
    found = {name: array.astype(np.int64) for name, array in zip(_ARRAYS, arrays, strict=True)}
    return RankPlan(*named, **found)
