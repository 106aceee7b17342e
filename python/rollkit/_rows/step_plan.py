"""One optimizer step: rows to micro-batches, and those to ranks: `plan_steps`, `StepPlan`."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check, _native
from rollkit._check import Int64s
from rollkit._errors import TELLING, refusal
from rollkit._rows.balance import Cost, GroupIds, group_ids, over_mean, row_costs
from rollkit._rows.layout import Layout
from rollkit._rows.near import Rows, plan_near

SYNCS: Final = ("micro_batch", "step")
NOBODY: Final = -1


@dataclass(frozen=True, eq=False, repr=False)
class StepPlan:
    """Which rank runs which rows in which micro-batch of one optimizer step, from `plan_steps`.

    A plan knows no tokens: it pickles to 16 bytes a row, and is the same on every rank that makes it of the
    same lengths.

    Attributes:
        lengths: `[rows]` int64.
        slots: `[rows]` int64, where each row goes: `rank * steps + t`.
        ranks: how many ranks there are.
        steps: how many micro-batches each of them runs.
        capacity: the elements that a micro-batch holds.
        excess: how much longer the step takes than if all ranks had the same to do all the time, as a share:
            of the sum of each micro-batch's costliest rank (`sync="micro_batch"`), or of the rank that has
            most to do (`"step"`).
        bound: what that of every plan is at least.
        align: each row of a micro-batch starts at a multiple of this.

    Example:
        >>> plan = plan_steps([9, 8, 6, 5, 4, 4, 3, 2, 2, 1], capacity=12, ranks=2)
        >>> plan
        StepPlan(10 rows: 2 micro-batches on each of 2 ranks, excess 0.00 %)
        >>> plan.rows(0, 0), plan.lengths[plan.rows(0, 0)]
        (array([0, 7]), array([9, 2]))
        >>> plan.layout(0, 0)
        Layout(2 rows in 1 × 12, 91.7 % used)
    """

    lengths: Int64s
    slots: Int64s
    ranks: int
    steps: int
    capacity: int
    excess: float
    bound: float
    align: int = 1

    @property
    def counts(self) -> Int64s:
        """`[ranks]` int64: the micro-batches of each rank, which are equally many."""
        return np.full(self.ranks, self.steps, np.int64)

    @property
    def dummies(self) -> list[tuple[int, int]]:
        """`(rank, t)` of each micro-batch without rows; none where there are as many rows as micro-batches.

        What a rank runs there, so that the others do not wait for ever, has a loss of 0.
        """
        empty = np.flatnonzero(np.diff(self._order[1]) == 0).tolist()
        return [divmod(slot, self.steps) for slot in empty]

    def rows(self, rank: int, t: int) -> Int64s:
        """`[rows]` int64: the numbers of the rows of a rank's micro-batch `t`, ascending."""
        slot = _below("rank", rank, self.ranks) * self.steps + _below("t", t, self.steps)
        order, offsets = self._order
        return order[offsets[slot] : offsets[slot + 1]].copy()

    def layout(self, rank: int, t: int) -> Layout:
        """Lay the rows of a micro-batch in a line, `[1, capacity]`, as `pack(…, rows=, layout=)` takes it."""
        return Layout.pack(self.lengths[self.rows(rank, t)], self.capacity, bins=1, align=self.align)

    def micro_batches(self, rank: int) -> Iterator[tuple[Int64s, Layout]]:
        """Yield the rows and the layout of each micro-batch of a rank, in turn."""
        for t in range(self.steps):
            yield self.rows(rank, t), self.layout(rank, t)

    @cached_property
    def _order(self) -> tuple[Int64s, Int64s]:
        """Rows by slot, and where each slot's begin."""
        counts = np.bincount(self.slots, minlength=self.ranks * self.steps).astype(np.int64, copy=False)
        slots = self.slots.astype(np.min_scalar_type(max(len(counts) - 1, 0)))  # 16 bits are sorted by digits
        return np.argsort(slots, kind="stable"), _native.offsets_from_lengths(counts)

    def __eq__(self, other: object) -> bool:
        """Whether both are the same plan."""
        if not isinstance(other, StepPlan):
            return NotImplemented
        ours, theirs = self._parts(), other._parts()
        return ours[2:] == theirs[2:] and all(map(_check.same_ints, ours[:2], theirs[:2]))

    __hash__ = None  # type: ignore[assignment]

    def _parts(self) -> tuple[Any, ...]:
        numbers = self.ranks, self.steps, self.capacity, self.excess, self.bound, self.align
        return self.lengths, self.slots, *numbers

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without what is made of the rest."""
        return StepPlan, self._parts()

    def __repr__(self) -> str:
        return (
            f"StepPlan({len(self.lengths):,} rows: {self.steps:,} micro-batches on each of {self.ranks:,} "
            f"ranks, excess {100 * self.excess:.2f} %)"
        )


def plan_steps(
    lengths: ArrayLike,
    *,
    capacity: int,
    ranks: int,
    cost: Cost = None,
    sync: str = "micro_batch",
    home: ArrayLike | None = None,
    nodes: Sequence[Hashable] | None = None,
    max_segments: int | None = None,
    groups: GroupIds = None,
    seed: int | None = None,
    align: int = 1,
) -> StepPlan:
    """Plan one optimizer step: rows to micro-batches of at most `capacity` elements, equally many a rank.

    There are as few as `plan_bins` needs, rounded up to a multiple of `ranks`. No rank needs to ask another:
    all that call this with the same arguments get the same plan.

    Args:
        lengths: `[rows]` ints, 0 or more: all rows of the optimizer step, on all ranks.
        capacity: elements that a micro-batch holds, never exceeded.
        ranks: data-parallel ranks.
        cost: what a row costs; see `balance`.
        sync: when ranks wait for one another: after each `"micro_batch"`, as FSDP and pipelines do, or at the
            end of the `"step"`, as DDP does with `no_sync`.
        home: `[rows]` ints, the rank that has each row already, -1 where none has. Micro-batches that cost
            the same go where most of their elements are; the excess stays what it is. With `nodes`, any rank
            of the node that has the row.
        nodes: `[ranks]`, the node of each rank: an id that has a hash. Rows leave a node only where it has
            more than its share (of the cost, by its ranks), the costliest first; each node's are planned for
            its ranks. So few rows move, but there may be one more micro-batch a rank, and with few of them
            the excess is larger. A node with fewer rows than micro-batches has empty ones.
        max_segments: at most that many rows in a micro-batch.
        groups: see `balance`; rows of one id stay in one micro-batch.
        seed: shuffles micro-batches, all ranks' alike. Without, they come costliest first, so that memory is
            at its peak at once; but then a step's rows are in an order.
        align: each row starts at a multiple of this within its micro-batch, as in `plan_bins`: what
            `Layout.shard` and some kernels ask for.

    Returns:
        The plan. Where there are fewer rows than micro-batches, `StepPlan.dummies` says which are empty.

    Raises:
        TypeError: lengths or costs are no integers, or an option has the wrong type.
        ValueError: a row (or group) does not fit the capacity; it is named.
        OverflowError: costs add up to more than 2**63 - 1; the row is named.

    Example:
        >>> plan = plan_steps([5, 1, 4, 2, 3], capacity=6, ranks=2, cost=(0, 1))
        >>> [[plan.rows(rank, t).tolist() for t in range(plan.steps)] for rank in range(2)]
        [[[0], [1, 3]], [[2], [4]]]
        >>> near = plan_steps([4, 4, 3, 3, 2], capacity=8, ranks=2, home=[0, 1, 0, 1, 0], nodes=["a", "b"])
        >>> near.slots // near.steps  # all stay; without nodes two move, and one micro-batch a rank will do
        array([0, 1, 0, 1, 0])
    """
    rows = _check.lengths("lengths", lengths).copy()  # a plan of its own, whatever becomes of theirs
    wide, many = _check.positive("capacity", capacity), _check.positive("ranks", ranks)
    align = _check.positive("align", align)
    taken, costs, ids = _taken(rows, wide, align), row_costs(rows, cost), group_ids(groups, len(rows))
    there = _homes(home, len(rows), many)
    options: dict[str, Any] = {
        "capacity": wide,
        "sync": _check.choice("sync", sync, SYNCS),
        "max_segments": None if max_segments is None else _check.positive("max_segments", max_segments),
        "seed": None if seed is None else _check.positive("seed", seed, least=0),
    }
    if nodes is None:
        slots, steps, makespan, bound, total = _native.plan_steps(
            taken, costs, ids, there, ranks=many, steps=0, **options
        )
    else:
        node = _nodes(nodes, many)
        if there is None:
            raise TypeError("nodes needs home, which says where each row is: a rank of its node")
        bound, total = _native.balance_bound(costs, ids, parts=many, equal_counts=False)
        where = np.where(there < 0, NOBODY, node[there])
        slots, steps = _near(Rows(taken, costs, ids, where), node, options)
        makespan = _makespan(costs, slots, many, steps, sync)
    return StepPlan(
        rows, slots, many, steps, wide, over_mean(makespan, many, total), over_mean(bound, many, total), align
    )


def _near(rows: Rows, nodes: Int64s, options: dict[str, Any]) -> tuple[Int64s, int]:
    """`plan_near`, which refuses what a plan without nodes does, in its words."""

    def plan(own: Int64s, ranks: int, steps: int) -> tuple[Int64s, int]:
        groups = None if rows.groups is None else np.unique(rows.groups[own], return_inverse=True)[1]
        slots, steps, *_ = _native.plan_steps(
            rows.lengths[own], rows.costs[own], groups, None, ranks=ranks, steps=steps, **options
        )
        return slots, steps

    try:
        return plan_near(rows, nodes, plan)
    except TELLING:
        _native.plan_steps(rows.lengths, rows.costs, rows.groups, None, ranks=len(nodes), steps=0, **options)
        raise


def _makespan(costs: Int64s, slots: Int64s, ranks: int, steps: int, sync: str) -> int:
    """What passes from the first micro-batch to the last, as cost."""
    loads = np.zeros((ranks, steps), np.int64)
    np.add.at(loads.reshape(-1), slots, costs)
    return int(loads.max(axis=0).sum() if sync == "micro_batch" else loads.sum(axis=1).max())


def _nodes(nodes: Sequence[Hashable], ranks: int) -> Int64s:
    """The number of the node of each rank."""
    found = _check.items("nodes", nodes)
    if len(found) != ranks:
        raise ValueError(f"nodes has {len(found)} ranks, there are {ranks}")
    numbers: dict[Hashable, int] = {}
    for rank, node in enumerate(found):
        try:
            numbers.setdefault(node, len(numbers))
        except TypeError:
            text = f"nodes[{rank}] is {type(node).__name__}; give an id that has a hash"
            raise TypeError(text) from None
    return np.array([numbers[node] for node in found], np.int64)


def _taken(lengths: Int64s, capacity: int, align: int) -> Int64s:
    """What rows take of a micro-batch: a row that is longer than a whole number of slots takes all of it."""
    if align == 1:
        return lengths
    slots = -(-lengths // align) * align
    room: Int64s = np.where((slots < lengths) | (slots > capacity), capacity, slots)
    return np.where(lengths > capacity, lengths, room)


def _homes(home: ArrayLike | None, rows: int, ranks: int) -> Int64s | None:
    if home is None:
        return None
    found = _check.int64s("home", home)
    if len(found) != rows:
        raise ValueError(f"home has {len(found)} rows, lengths has {rows}")
    if (odd := (found < NOBODY) | (found >= ranks)).any():
        row = int(odd.argmax())
        after = f" is at home on rank {found[row]}, expected one of 0 to {ranks - 1}, or -1 for none"
        raise refusal(ValueError, after, row=row)
    return found


def _below(name: str, value: int, count: int) -> int:
    """Return a number of one of so many."""
    number = _check.positive(name, value, least=0)
    if number >= count:
        raise ValueError(f"{name} must be below {count}, got {number}")
    return number
