"""The best parts there are, by trying all, and those that trainers make: to compare `balance` with."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray


def balance_reference(
    costs: Sequence[int] | NDArray[np.integer],
    parts: int,
    *,
    lengths: Sequence[int] | NDArray[np.integer] = (),
    capacity: int | None = None,
    equal_counts: bool = False,
    groups: Sequence[object] | None = None,
) -> NDArray[np.int64] | None:
    """An assignment whose costliest part is as cheap as can be, by trying all `parts ** rows`.

    Of several it is the first in lexicographic order; None if there is none. Takes what `balance` does, but
    what rows cost in place of `cost`.

    Example:
        >>> balance_reference([7, 5, 4, 3, 1], 2)
        array([0, 1, 1, 0, 1])
    """
    best: tuple[int, tuple[int, ...]] | None = None
    for assignment in product(range(parts), repeat=len(costs)):
        rows = [[row for row, part in enumerate(assignment) if part == number] for number in range(parts)]
        counts = [len(part) for part in rows]
        if equal_counts and max(counts) - min(counts) > 1:
            continue
        if capacity is not None and max(sum(int(lengths[row]) for row in part) for part in rows) > capacity:
            continue
        if groups is not None and len(set(zip(groups, assignment, strict=True))) > len(set(groups)):
            continue
        costliest = max(sum(int(costs[row]) for row in part) for part in rows)
        if best is None or costliest < best[0]:
            best = costliest, assignment
    return None if best is None else np.array(best[1], np.int64)


def even_nodes_reference(
    costs: Sequence[int] | NDArray[np.integer],
    home: Sequence[int] | NDArray[np.integer],
    ranks: Sequence[int] | NDArray[np.integer],
) -> list[int]:
    """The node that runs each row under `plan_steps(nodes=…)`, one row after the other.

    Args:
        costs: `[rows]`.
        home: `[rows]`, the node that has each, -1 where none has.
        ranks: `[nodes]`, how many ranks each has.

    Example:
        >>> even_nodes_reference([5, 3, 2, 2], home=[0, 0, 0, 1], ranks=[1, 1])
        [0, 1, 0, 1]
    """
    nodes = range(len(ranks))
    node = [int(of) for of in home]
    total = sum(int(cost) for cost in costs)
    share = [total * int(of) // sum(int(of) for of in ranks) for of in ranks]
    has = [sum(int(cost) for cost, of in zip(costs, node, strict=True) if of == number) for number in nodes]
    over = [has[number] > share[number] for number in nodes]
    falling = sorted(range(len(node)), key=lambda row: -int(costs[row]))
    given = []
    for row in falling:
        cost, of = int(costs[row]), node[row]
        if of < 0:
            given.append(row)
        elif over[of] and 0 < cost <= has[of] - share[of]:
            has[of] -= cost
            given.append(row)
    taken = [0 for _ in nodes]
    for row in given:
        to = min(nodes, key=lambda number: (has[number] - share[number], taken[number], number))
        node[row] = to
        has[to] += int(costs[row])
        taken[to] += 1
    return node


def differencing_reference(costs: Sequence[int] | NDArray[np.integer], parts: int) -> NDArray[np.int64]:
    """Parts of equal counts by the largest differencing method, as trainers make them.

    Rows, by falling cost, make tuples of `parts` rows. The two tuples of the widest spreads are joined, the
    costliest part of the one with the cheapest of the other, until one tuple is left. The rows must divide by
    `parts`.

    Example:
        >>> differencing_reference([7, 5, 4, 3], 2)
        array([0, 1, 1, 0])

    References:
        N. Karmarkar, R. M. Karp, "The differencing method of set partitioning", UC Berkeley, 1982.
    """
    if len(costs) % parts:
        raise ValueError(f"{len(costs)} rows do not divide by {parts} parts")
    order = sorted(range(len(costs)), key=lambda row: (-int(costs[row]), row))
    heap: list[tuple[int, int, list[tuple[int, list[int]]]]] = []
    for number, begin in enumerate(range(0, len(order), parts)):
        tuple_ = [(int(costs[row]), [row]) for row in order[begin : begin + parts]]
        heap.append((tuple_[-1][0] - tuple_[0][0], number, tuple_))
    heapq.heapify(heap)
    made = len(heap)
    while len(heap) > 1:
        first, second = heapq.heappop(heap)[2], heapq.heappop(heap)[2]
        joined = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(first, reversed(second), strict=True)]
        joined.sort(key=lambda part: -part[0])
        heapq.heappush(heap, (joined[-1][0] - joined[0][0], made, joined))
        made += 1
    out = np.zeros(len(costs), np.int64)
    for number, (_, rows) in enumerate(heap[0][2] if heap else []):
        out[rows] = number
    return out
