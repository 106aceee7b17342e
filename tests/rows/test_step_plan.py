"""`plan_steps`: every row once, never over the capacity, as few micro-batches as can be; `StepPlan`."""

from __future__ import annotations

import dataclasses
import pickle
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.thorough import examples

from rollkit import Layout, StepPlan, pack, place, plan_bins, plan_steps, take
from rollkit._rows.near import Rows, even_nodes
from rollkit._rows.step_plan import SYNCS
from rollkit.testing import even_nodes_reference

MODEL = (24576, 1)


def log_normal(rows: int, seed: int = 1) -> NDArray[np.int64]:
    return np.random.default_rng(seed).lognormal(7.87, 0.9, rows).clip(16, 32768).astype(np.int64)


def loads(plan: StepPlan, costs: NDArray[np.int64]) -> NDArray[np.int64]:
    """`[ranks, steps]`: what each micro-batch costs, read off its rows."""
    return np.array(
        [[costs[plan.rows(rank, t)].sum() for t in range(plan.steps)] for rank in range(plan.ranks)], np.int64
    ).reshape(plan.ranks, plan.steps)


def excess_of(plan: StepPlan, costs: NDArray[np.int64], sync: str) -> float:
    found = loads(plan, costs)
    longest = found.max(0).sum() if sync == "micro_batch" else found.sum(1).max()
    return float(longest / (found.sum() / plan.ranks) - 1)


@settings(max_examples=examples(300), deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), max_size=50),
    capacity=st.integers(30, 90),
    ranks=st.integers(1, 7),
    cost=st.sampled_from([None, (1, 0), (7, 1), (0, 0)]),
    sync=st.sampled_from(SYNCS),
    max_segments=st.none() | st.integers(1, 6),
    seed=st.none() | st.integers(0, 2**63 - 1),
    homes=st.booleans(),
)
def test_keeps_its_rules(
    lengths: list[int],
    capacity: int,
    ranks: int,
    cost: tuple[int, int] | None,
    sync: str,
    max_segments: int | None,
    seed: int | None,
    homes: bool,
) -> None:
    home = [row % (ranks + 1) - 1 for row in range(len(lengths))] if homes else None
    options: dict[str, Any] = {"capacity": capacity, "ranks": ranks, "cost": cost, "sync": sync}
    options |= {"max_segments": max_segments, "seed": seed, "home": home}
    plan = plan_steps(lengths, **options)
    assert plan.counts.tolist() == [plan.steps] * ranks
    assert plan.counts.dtype == np.int64
    needed = int(plan_bins(lengths, capacity, max_segments=max_segments).max(initial=-1)) + 1
    assert plan.steps == -(-needed // ranks)
    found, empty = [], []
    for rank in range(ranks):
        for step, (rows, layout) in enumerate(plan.micro_batches(rank)):
            assert np.array_equal(rows, plan.rows(rank, step))
            assert rows.dtype == np.int64
            assert np.all(np.diff(rows) > 0)
            assert layout.shape == (1, capacity)
            assert np.array_equal(layout.row_lengths, np.array(lengths, np.int64)[rows])
            assert np.array_equal(layout.lengths, layout.row_lengths)
            assert max_segments is None or len(rows) <= max_segments
            found.append(rows)
            if not len(rows):
                empty.append((rank, step))
    assert sorted(np.concatenate([[], *found]).tolist()) == list(range(len(lengths)))
    assert plan.dummies == empty
    assert not empty or len(lengths) < plan.steps * ranks
    token, square = cost or (1, 0)
    costs = token * np.array(lengths, np.int64) + square * np.array(lengths, np.int64) ** 2
    if costs.sum():
        assert plan.excess == pytest.approx(excess_of(plan, costs, sync), abs=1e-12)
        assert 0 <= plan.bound <= plan.excess + 1e-12
    else:
        assert (plan.excess, plan.bound) == (0, 0)
    assert plan == plan_steps(np.array(lengths, np.int32), **options)


@pytest.mark.parametrize(
    ("rows", "capacity", "ranks", "most"),
    [(1024, 65536, 8, 0.004), (4096, 65536, 64, 0.006), (4096, 32768, 64, 0.10)],
)
def test_is_even_on_real_lengths(rows: int, capacity: int, ranks: int, most: float) -> None:
    lengths = log_normal(rows)
    for sync in SYNCS:
        plan = plan_steps(lengths, capacity=capacity, ranks=ranks, cost=MODEL, sync=sync)
        assert plan.excess <= most
        assert len(pickle.dumps(plan)) <= 16 * rows + 1024


def test_few_long_rows_do_not_make_one_rank_wait() -> None:
    """A row of 32 768 alone costs twice what others do; if those all cost the same, nothing evens it."""
    plan = plan_steps(log_normal(4096), capacity=32768, ranks=64, cost=MODEL, sync="step")
    assert plan.excess < 0.02


def test_a_plan_is_a_value() -> None:
    plan = plan_steps(log_normal(100), capacity=65536, ranks=4, cost=MODEL)
    plan.rows(0, 0)  # what is made of the plan is no part of it
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    assert np.array_equal(again.rows(3, 0), plan.rows(3, 0))
    assert plan != plan_steps(log_normal(100), capacity=65536, ranks=2, cost=MODEL)
    assert plan != plan_steps(log_normal(100, 2), capacity=65536, ranks=4, cost=MODEL)
    assert plan != 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.ranks = 5  # type: ignore[misc]
    lengths = np.array([3, 4])
    plan = plan_steps(lengths, capacity=8, ranks=1)
    lengths[:] = 0
    assert plan.lengths.tolist() == [3, 4]
    assert plan_steps([1], capacity=8, ranks=1000) == pickle.loads(
        pickle.dumps(plan_steps([1], capacity=8, ranks=1000))
    )
    assert len(pickle.dumps(plan_steps([1], capacity=8, ranks=10_000))) < 1000


def test_few_rows_leave_dummies() -> None:
    plan = plan_steps([], capacity=8, ranks=3)
    assert (plan.steps, plan.dummies, plan.excess) == (0, [], 0)
    plan = plan_steps([5, 2], capacity=8, ranks=3)
    assert plan.counts.tolist() == [1, 1, 1]
    assert [plan.rows(rank, 0).tolist() for rank in range(3)] == [[0], [1], []]
    assert plan.dummies == [(2, 0)]
    assert plan.bound == plan.excess == pytest.approx(5 * 3 / 7 - 1)
    assert plan_steps([0] * 6, capacity=8, ranks=3).dummies == []
    assert plan_steps([8, 8, 8, 8], capacity=8, ranks=2, max_segments=1).steps == 2


def test_packs_each_micro_batch() -> None:
    rollouts = {"prompt_token_ids": [[1, 2], [3], [4, 5, 6]], "response_ids": [[7], [8, 9], []]}
    plan = plan_steps([3, 3, 3], capacity=6, ranks=4)
    seen = []
    for rank in range(4):
        for rows, layout in plan.micro_batches(rank):
            batch = pack(rollouts, rows=rows, layout=layout)
            assert batch["input_ids"].shape == (1, 6)
            seen += batch["input_ids"][batch["segment_ids"] > 0].tolist()
    assert sorted(seen) == list(range(1, 10))


def test_a_full_line_with_empty_rows() -> None:
    plan = plan_steps([8, 0, 0, 8], capacity=8, ranks=1)
    for step in range(plan.steps):
        layout = plan.layout(0, step)
        assert isinstance(layout, Layout)
        assert layout.starts.max() < 8


def test_groups_stay_in_one_micro_batch() -> None:
    lengths = log_normal(400)
    pairs = np.arange(400) // 2
    plan = plan_steps(lengths, capacity=65536, ranks=4, cost=MODEL, groups=pairs, max_segments=40)
    assert np.array_equal(plan.slots[::2], plan.slots[1::2])
    assert np.bincount(plan.slots).max() <= 40


@pytest.mark.parametrize("sync", SYNCS)
def test_home_changes_names_alone(sync: str) -> None:
    lengths = log_normal(2000)
    home = np.random.default_rng(0).integers(-1, 16, 2000)
    options: dict[str, Any] = {"capacity": 65536, "ranks": 16, "cost": MODEL, "sync": sync}
    plain, local = plan_steps(lengths, **options), plan_steps(lengths, **options, home=home)
    assert (local.excess, local.steps) == (plain.excess, plain.steps)

    def at_home(plan: StepPlan) -> int:
        return int(lengths[plan.slots // plan.steps == home].sum())

    assert at_home(local) > 1.5 * at_home(plain)
    # All of one micro-batch at home, if that is where it was.
    exact = plan_steps(lengths, **options, home=plain.slots // plain.steps)
    assert np.array_equal(exact.slots, plain.slots)


def test_seed_shuffles_steps_alone() -> None:
    lengths = log_normal(3000)
    options: dict[str, Any] = {"capacity": 32768, "ranks": 4, "cost": MODEL}
    plain, shuffled = plan_steps(lengths, **options), plan_steps(lengths, **options, seed=7)
    costs = MODEL[0] * lengths + lengths**2
    ours, theirs = loads(plain, costs), loads(shuffled, costs)
    assert np.all(np.diff(ours.max(0)) <= 0)
    assert not np.array_equal(ours, theirs)
    order = np.argsort(-theirs.max(0), kind="stable")
    assert np.array_equal(np.sort(theirs[:, order], 0), np.sort(ours, 0))
    assert shuffled != plan_steps(lengths, **options, seed=8)
    assert shuffled.excess == plain.excess


@settings(max_examples=examples(300), deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), max_size=50),
    capacity=st.integers(30, 90),
    nodes=st.lists(st.sampled_from("abc"), min_size=1, max_size=7),
    cost=st.sampled_from([None, (1, 0), (7, 1), (0, 0)]),
    sync=st.sampled_from(SYNCS),
    max_segments=st.none() | st.integers(1, 6),
    align=st.sampled_from([1, 1, 4]),
    pairs=st.booleans(),
    seed=st.none() | st.integers(0, 9),
)
def test_plans_of_nodes_keep_the_rules(
    lengths: list[int],
    capacity: int,
    nodes: list[str],
    cost: tuple[int, int] | None,
    sync: str,
    max_segments: int | None,
    align: int,
    pairs: bool,
    seed: int | None,
) -> None:
    ranks, rows = len(nodes), np.array(lengths, np.int64)
    home = np.arange(len(rows)) * 5 % (ranks + 1) - 1
    groups = np.arange(len(rows)) // 2 if pairs else None
    options: dict[str, Any] = {"capacity": capacity, "ranks": ranks, "cost": cost, "sync": sync}
    options |= {"max_segments": max_segments, "groups": groups, "align": align, "seed": seed}
    try:
        plan = plan_steps(rows, **options, home=home, nodes=nodes)
    except ValueError as error:
        with pytest.raises(ValueError, match=f"^{re.escape(str(error))}$"):
            plan_steps(rows, **options)
        return
    assert plan == plan_steps(lengths, **options, home=home.tolist(), nodes=tuple(nodes))
    assert plan.steps >= plan_steps(rows, **options).steps
    found = [plan.rows(rank, t) for rank in range(ranks) for t in range(plan.steps)]
    assert sorted(np.concatenate([[], *found]).tolist()) == list(range(len(rows)))
    for of in found:
        assert (-(-rows[of] // align) * align).sum() <= capacity + align - 1
        assert max_segments is None or len(of) <= max_segments
    if pairs:
        assert np.array_equal(plan.slots[: len(rows) // 2 * 2 : 2], plan.slots[1::2])
    token, square = cost or (1, 0)
    costs = token * rows + square * rows**2
    assert plan.excess == pytest.approx(excess_of(plan, costs, sync) if costs.any() else 0, abs=1e-12)
    assert 0 <= plan.bound <= plan.excess + 1e-12
    if pairs or not plan.steps:
        return
    names = list(dict.fromkeys(nodes))
    counts = [nodes.count(name) for name in names]
    at = np.array([-1 if rank < 0 else names.index(nodes[rank]) for rank in home])
    ran = [names.index(nodes[slot // plan.steps]) for slot in plan.slots]
    assert ran == even_nodes_reference(costs, at, counts)
    # Who leaves is of a node that has more than its share, and no more leaves than that.
    for number, count in enumerate(counts):
        left = costs[(at == number) & (np.array(ran) != number)].sum()
        assert left <= max(0, costs[at == number].sum() - costs.sum() * count // ranks)


def test_nodes_balance_their_own() -> None:
    lengths = log_normal(4000)
    home = np.random.default_rng(0).integers(0, 5, 4000) % 4 * 4  # one of four nodes has twice the rows
    options: dict[str, Any] = {"capacity": 65536, "ranks": 16, "cost": MODEL}
    plan = plan_steps(lengths, **options, home=home, nodes=[rank // 4 for rank in range(16)])
    assert plan.excess < 0.01
    away = plan.slots // plan.steps // 4 != home // 4
    assert set(home[away].tolist()) == {0}
    assert lengths[away].sum() < 0.16 * lengths.sum()
    plain = plan_steps(lengths, **options, home=home)
    assert lengths[plain.slots // plain.steps // 4 != home // 4].sum() > 3 * lengths[away].sum()


def test_groups_go_where_most_of_them_is() -> None:
    lengths, groups = [4, 3, 2, 9], [0, 0, 0, 1]
    for home, node in (([0, 1, 1, 0], 1), ([0, 1, -1, 1], 0), ([-1, -1, 1, 0], 1)):
        rows = Rows(np.array(lengths), np.array(lengths), np.array(groups), np.array(home))
        assert even_nodes(rows, np.array([1, 1])).tolist() == [node] * 3 + [0 if node else 1]


def test_rows_that_cost_nothing_go_round() -> None:
    plan = plan_steps([4] * 8, capacity=4, ranks=4, cost=(0, 0), home=[-1] * 8, nodes=[0, 1, 2, 3])
    assert plan.steps == 2


@settings(max_examples=examples(200), deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), max_size=30),
    capacity=st.integers(30, 70),
    align=st.integers(1, 20),
    ranks=st.integers(1, 4),
)
def test_aligned_rows_fit_their_micro_batch(
    lengths: list[int], capacity: int, align: int, ranks: int
) -> None:
    plan = plan_steps(lengths, capacity=capacity, ranks=ranks, align=align)
    assert pickle.loads(pickle.dumps(plan)) == plan
    for rank in range(ranks):
        for rows, layout in plan.micro_batches(rank):
            assert layout.shape == (1, capacity)
            assert np.all(layout.starts % align == 0)
            assert layout.lengths.tolist() == [lengths[row] for row in rows]


def test_aligned_micro_batches_are_sharded() -> None:
    plan = plan_steps([5, 6, 3, 8], capacity=16, ranks=2, align=4)
    for rows, layout in plan.micro_batches(0):
        shards = layout.shard(2, "zigzag")
        tokens = [list(range(plan.lengths[row])) for row in rows]
        assert take([place(tokens, shard) for shard in shards], shards).to_list() == tokens
