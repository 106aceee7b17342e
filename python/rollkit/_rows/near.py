"""One optimizer step where rows stay on the node that has them: `plan_near`."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from rollkit._check import Int64s

Planner = Callable[[Int64s, int, int], tuple[Int64s, int]]
"""Some rows, ranks, and the least micro-batches of each -> where each row goes, and how many they are."""

_NOTHING: Final = np.empty(0, np.int64)


class Rows(NamedTuple):
    """What is planned.

    Attributes:
        lengths: `[rows]`, what each takes of a micro-batch.
        costs: `[rows]`.
        groups: `[rows]`, rows of one number stay in one micro-batch; or None.
        home: `[rows]`, the node that has each, -1 where none has.
    """

    lengths: Int64s
    costs: Int64s
    groups: Int64s | None
    home: Int64s


def plan_near(rows: Rows, nodes: Int64s, plan: Planner) -> tuple[Int64s, int]:
    """Plan each node's rows for its own ranks; rows leave only nodes that have more than their share.

    Args:
        rows: all of them.
        nodes: `[ranks]`, the node of each rank, a number below that of nodes.
        plan: plans rows for some ranks.

    Returns:
        `[rows]`, `rank * steps + t` of each, and the steps.
    """
    order = np.argsort(nodes, kind="stable")
    ranks_of = np.split(order, np.flatnonzero(np.diff(nodes[order])) + 1)
    node = even_nodes(rows, np.array([len(ranks) for ranks in ranks_of], np.int64))
    by_node = np.argsort(node, kind="stable")
    bounds = np.searchsorted(node[by_node], np.arange(1, len(ranks_of)))
    mine = np.split(by_node, bounds)
    steps, planned = 0, [(_NOTHING, -1)] * len(ranks_of)
    # Who has most for a rank comes first, since it is likely to need most micro-batches.
    full = [rows.lengths[own].sum() / len(ranks) for own, ranks in zip(mine, ranks_of, strict=True)]
    turns = sorted(range(len(ranks_of)), key=lambda number: (-full[number], number))
    while any(found != steps for _, found in planned):
        for number in turns:
            if planned[number][1] < steps or not steps:
                planned[number] = plan(mine[number], len(ranks_of[number]), steps)
                steps = max(steps, planned[number][1])
    slots = np.empty(len(node), np.int64)
    for own, ranks, (found, _) in zip(mine, ranks_of, planned, strict=True):
        slots[own] = ranks[found // steps] * steps + found % steps if steps else 0
    return slots, steps


def even_nodes(rows: Rows, ranks: Int64s) -> Int64s:
    """The node that runs each row, so that each has as much to do for each rank.

    A node that has more than its share gives rows away, the costliest first, which have most cost a byte; and
    who is short of most gets the next. Rows that are at home nowhere are dealt out with them.

    Args:
        rows: all of them.
        ranks: `[nodes]`, how many ranks each has.
    """
    first, item = _items(rows)
    costs = _sums(rows.costs, item, len(first))
    node = _homes(rows, item, len(first), len(ranks))
    total, count = int(costs.sum()), int(ranks.sum())
    held = np.zeros(len(ranks), np.int64)
    at_home = node >= 0
    np.add.at(held, node[at_home], costs[at_home])
    short = [total * of // count - have for of, have in zip(ranks.tolist(), held.tolist(), strict=True)]
    order = np.argsort(-costs, kind="stable")
    over = np.array([*(left < 0 for left in short), True])  # the last: what nobody has
    giving = order[over[node[order]]]
    given: list[tuple[int, int]] = []
    for number, home, cost in zip(
        giving.tolist(), node[giving].tolist(), costs[giving].tolist(), strict=True
    ):
        if home < 0:
            given.append((number, cost))
        elif 0 < cost <= -short[home]:
            short[home] += cost
            given.append((number, cost))
    needy = [(-left, 0, number) for number, left in enumerate(short)]
    heapq.heapify(needy)
    for number, cost in given:
        left, many, to = needy[0]
        heapq.heapreplace(needy, (left + cost, many + 1, to))  # what costs nothing goes round
        node[number] = to
    return node[item]


def _items(rows: Rows) -> tuple[Int64s, Int64s]:
    """The first row of each item, and the item of each row: a group, or a row."""
    if rows.groups is None:
        numbers = np.arange(len(rows.costs))
        return numbers, numbers
    _, first, item = np.unique(rows.groups, return_index=True, return_inverse=True)
    return first, item


def _sums(numbers: Int64s, item: Int64s, count: int) -> Int64s:
    sums = np.zeros(count, np.int64)
    np.add.at(sums, item, numbers)
    return sums


def _homes(rows: Rows, item: Int64s, count: int, nodes: int) -> Int64s:
    """The node that has most elements of each item, -1 where none has any."""
    if rows.groups is None:
        return rows.home.copy()
    pairs, pair = np.unique(item * (nodes + 1) + rows.home + 1, return_inverse=True)
    elements = _sums(np.where(rows.home < 0, -1, rows.lengths), pair, len(pairs))
    order = np.lexsort((-pairs, elements))  # the last of an item wins: most elements, then the first node
    homes = np.empty(count, np.int64)
    homes[pairs[order] // (nodes + 1)] = pairs[order] % (nodes + 1) - 1
    return homes
