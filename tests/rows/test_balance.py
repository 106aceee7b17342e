"""`balance` keeps its rules, comes near its bounds, and is never refused what can be packed."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.thorough import examples

from rollkit import balance, fit_cost, imbalance, plan_bins
from rollkit.testing import balance_reference, differencing_reference

BIG = 2**63 - 1
MODEL = (24576, 1)
PINNED = [0, 0, 1, 0, 1, 2, 0, 1, 2, 2, 1, 0]
PINNED_EQUAL = [2, 0, 1, 0, 1, 2, 0, 1, 2, 2, 1, 0]
"""What comes out of squares: a change would change what ranks of different versions do."""


def log_normal(rows: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).lognormal(7.87, 0.9, rows).clip(16, 32768).astype(np.int64)


def costs_of(lengths: NDArray[np.int64], cost: tuple[int, int] = MODEL) -> NDArray[np.int64]:
    return cost[0] * lengths + cost[1] * lengths**2


def loads(costs: Any, assignment: Any, parts: int) -> list[int]:
    return [sum(int(c) for c, p in zip(costs, assignment, strict=True) if p == part) for part in range(parts)]


rows = st.lists(st.integers(0, 12) | st.sampled_from([0, 5, 40]), max_size=6)


@settings(max_examples=examples(400), deadline=None)
@given(
    lengths=rows,
    parts=st.integers(1, 3),
    cost=st.sampled_from([None, (1, 0), (3, 1), (0, 1), (0, 0)]),
    equal=st.booleans(),
    capacity=st.none() | st.integers(1, 60),
    per_group=st.none() | st.integers(1, 3),
    tolerance=st.sampled_from([0.0, 1e-4, 9.0]),
)
def test_keeps_its_rules_and_bounds(
    lengths: list[int],
    parts: int,
    cost: tuple[int, int] | None,
    equal: bool,
    capacity: int | None,
    per_group: int | None,
    tolerance: float,
) -> None:
    groups = None if per_group is None else [f"g{row // per_group}" for row in range(len(lengths))]
    token, square = cost or (1, 0)
    costs = [token * n + square * n * n for n in lengths]
    best = balance_reference(
        costs, parts, lengths=lengths, capacity=capacity, equal_counts=equal, groups=groups
    )
    try:
        found = balance(
            lengths,
            parts,
            cost=cost,
            equal_counts=equal,
            capacity=capacity,
            groups=groups,
            tolerance=tolerance,
        )
    except ValueError:
        sizes = [
            sum(n for _, n in of)
            for _, of in groupby(zip(groups or range(99), lengths, strict=False), lambda x: x[0])
        ]
        if not equal:
            assert capacity is not None
            assert max(sizes) > capacity or plan_bins(sizes, capacity).max() >= parts
        else:
            assert groups is not None or capacity is not None
        return
    assert best is not None
    assert found.dtype == np.int64
    assert found.shape == (len(lengths),)
    assert all(0 <= part < parts for part in found)
    counts = np.bincount(found, minlength=parts)
    if equal:
        assert counts.max() - counts.min() <= 1
    if capacity is not None:
        assert max(loads(lengths, found, parts)) <= capacity
    if groups is not None:
        assert len(set(zip(groups, found.tolist(), strict=True))) == len(set(groups))
    least = max(loads(costs, best, parts))
    got = max(loads(costs, found, parts))
    assert got >= least
    excess, bound = imbalance(lengths, found, cost=cost, parts=parts, equal_counts=equal, groups=groups)
    if total := sum(costs):
        assert excess == pytest.approx(got * parts / total - 1)
        assert bound <= least * parts / total - 1 + 1e-12
    else:
        assert (excess, bound) == (0, 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "parts"), [(960, 64), (1000, 8), (9728, 512), (1000, 120)])
@pytest.mark.parametrize("equal", [True, False])
def test_is_near_its_bound_on_real_lengths(count: int, parts: int, equal: bool, seed: int) -> None:
    lengths = log_normal(count, seed)
    found = balance(lengths, parts, cost=MODEL, equal_counts=equal)
    excess, bound = imbalance(lengths, found, cost=MODEL, parts=parts, equal_counts=equal)
    assert excess - bound < 2e-3
    counts = np.bincount(found, minlength=parts)
    assert not equal or counts.max() - counts.min() <= 1


def test_beats_the_largest_differences() -> None:
    lengths = log_normal(960, 3)
    theirs = differencing_reference(costs_of(lengths), 64)
    assert np.bincount(theirs).tolist() == [15] * 64
    excess, _ = imbalance(lengths, theirs, cost=MODEL)
    ours, _ = imbalance(lengths, balance(lengths, 64, cost=MODEL, equal_counts=True), cost=MODEL)
    assert ours < excess / 3


def test_is_the_same_again_and_anywhere() -> None:
    lengths = log_normal(2000)
    found = balance(lengths, 37, cost=MODEL, equal_counts=True)
    np.testing.assert_array_equal(found, balance(lengths.tolist(), 37, cost=MODEL, equal_counts=True))
    assert balance(np.arange(12) ** 2, 3).tolist() == PINNED
    assert balance(np.arange(12) ** 2, 3, equal_counts=True).tolist() == PINNED_EQUAL


@pytest.mark.parametrize("equal", [True, False])
def test_corner_cases(equal: bool) -> None:
    assert balance([], 3, equal_counts=equal).tolist() == []
    assert balance([4, 2], 1, equal_counts=equal).tolist() == [0, 0]
    assert sorted(balance([4, 2], 5, equal_counts=equal).tolist()) == [0, 1]
    assert np.bincount(balance([7] * 12, 4, equal_counts=equal)).tolist() == [3] * 4
    assert np.bincount(balance([0] * 12, 4, equal_counts=equal)).tolist() == [3] * 4
    giant = balance([1000, 1, 1, 1, 1, 1], 3, equal_counts=equal)
    assert (giant == giant[0]).sum() == (2 if equal else 1)
    assert balance([BIG], 2, equal_counts=equal).tolist() == [0]
    assert imbalance([], [], parts=3) == (0, 0)


def test_capacity_that_is_just_reached() -> None:
    # Longest to the lightest would leave no room for the last; first fit decreasing packs all.
    lengths = [6, 3, 3, 2, 2, 2]
    assert plan_bins(lengths, 9).max() + 1 == 2
    assert loads(lengths, balance(lengths, 2, capacity=9), 2) == [9, 9]
    assert loads(lengths, balance(lengths, 2, capacity=9, cost=(0, 1)), 2) == [9, 9]
    assert loads([8, 8], balance([8, 8], 2, capacity=8), 2) == [8, 8]


@settings(max_examples=examples(300), deadline=None)
@given(
    lengths=st.lists(st.integers(0, 50), max_size=60), capacity=st.integers(50, 130), more=st.integers(0, 2)
)
def test_what_can_be_packed_is_not_refused(lengths: list[int], capacity: int, more: int) -> None:
    parts = int(plan_bins(lengths, capacity).max(initial=0)) + 1 + more
    found = balance(lengths, parts, capacity=capacity, cost=(3, 2))
    assert max(loads(lengths, found, parts)) <= capacity


def test_equal_counts_within_a_capacity() -> None:
    lengths = log_normal(512, 1)
    capacity = int(lengths.sum() / 64 * 1.02)
    found = balance(lengths, 64, cost=(0, 1), capacity=max(capacity, 40_000), equal_counts=True)
    assert np.bincount(found).tolist() == [8] * 64
    assert max(loads(lengths, found, 64)) <= max(capacity, 40_000)


def test_groups_of_any_ids() -> None:
    lengths = [5, 1, 4, 4, 2, 2]
    wanted = balance(lengths, 2, groups=[0, 1, 0, 2, 1, 2]).tolist()
    assert wanted == [0, 1, 0, 1, 1, 1]
    for groups in (
        ["a", "b", "a", "c", "b", "c"],
        np.array([7, -3, 7, 2**40, -3, 2**40]),
        [(1,), 0, (1,), "c", 0, "c"],
    ):
        assert balance(lengths, 2, groups=groups).tolist() == wanted


def test_groups_of_one_size_in_equal_counts() -> None:
    lengths = log_normal(64 * 8, 2)
    prompts = np.random.default_rng(0).permutation(np.repeat(np.arange(64), 8))
    found = balance(lengths, 8, cost=MODEL, groups=prompts, equal_counts=True)
    assert np.bincount(found).tolist() == [64] * 8
    assert all(len(set(found[prompts == prompt])) == 1 for prompt in range(64))
    excess, bound = imbalance(lengths, found, cost=MODEL, groups=prompts)
    assert bound <= excess < 0.01


def test_groups_of_unlike_sizes_in_equal_counts() -> None:
    groups = [0] * 5 + [1] * 3 + [2, 3, 4, 5]
    found = balance([1] * 12, 2, groups=groups, equal_counts=True)
    assert np.bincount(found).tolist() == [6, 6]


@pytest.mark.parametrize("capacity", [None, 9])
def test_fewer_groups_than_parts_are_not_equal_counts(capacity: int | None) -> None:
    with pytest.raises(ValueError, match="whole groups go to 4 parts with 0 to 2 rows"):
        balance([1] * 5, 4, groups=[0, 0, 1, 1, 2], equal_counts=True, capacity=capacity)
    assert balance([1, 1], 4, groups=["a", "b"], equal_counts=True).tolist() == [0, 1]


def test_costs_of_each_row() -> None:
    lengths = [1, 1, 1, 1]
    assert balance(lengths, 2, cost=[9, 1, 5, 5]).tolist() == [0, 0, 1, 1]
    assert balance([1, 2], 2, cost=np.array([3, 4], np.uint8)).tolist() == [1, 0]
    assert balance([1, 2], 1, cost=(3, 4)).tolist() == [0, 0]


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_arrays_of_frameworks(framework: str) -> None:
    make: Any = (
        pytest.importorskip("torch").tensor
        if framework == "torch"
        else pytest.importorskip("jax.numpy").array
    )
    lengths = [7, 5, 4, 3, 1]
    found = balance(make(lengths), 2, cost=make(lengths), groups=make([0, 1, 2, 3, 4]))
    assert type(found) is np.ndarray
    assert found.tolist() == balance(lengths, 2).tolist()
    assert imbalance(make(lengths), make(found.tolist())) == (0, 0)


def test_imbalance_of_more_parts_than_memory_has_room_for() -> None:
    assert imbalance([3, 4], [0, 2**60]) == imbalance([3, 4], [0, 1], parts=2**60 + 1)
    assert imbalance([3, 4], [5, 5], parts=10**12) == pytest.approx((1e12 - 1, 4e12 / 7 - 1))
    assert imbalance([3, 3], [1, 4], parts=6, equal_counts=None) == (2, 2)
    assert imbalance([], [], parts=10**12) == (0, 0)


def test_imbalance_bounds_equal_counts_by_more_than_one_row() -> None:
    # Each of the two must have a 9 beside it, or one the 1 and the other the 9.
    lengths, parts = [100, 100, 9, 9, 9, 1], [0, 1, 0, 1, 2, 2]
    excess, bound = imbalance(lengths, parts)
    assert excess == pytest.approx(109 * 3 / 228 - 1)
    assert bound == pytest.approx(105 * 3 / 228 - 1)
    assert imbalance(lengths, parts, equal_counts=False)[1] == pytest.approx(100 * 3 / 228 - 1)
    assert imbalance([4, 4], [0, 0], parts=2) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("a", "b"), [(24576.0, 1.0), (1.0, 0.0), (0.0, 3e-9), (5e-7, 4e-12), (0.25, 1.0), (1e9, 1e-9)]
)
def test_fit_cost_finds_what_was_measured(a: float, b: float) -> None:
    rng = np.random.default_rng(0)
    tokens, squares = rng.integers(1000, 65536, 50), rng.integers(10**6, 10**9, 50)
    found = fit_cost(tokens, squares, a * tokens + b * squares)
    assert all(type(of) is int and of >= 0 for of in found)
    lengths = np.array([100, 1000, 32768], np.float64)
    got, wanted = (x * lengths + y * lengths**2 for x, y in (found, (a, b)))
    np.testing.assert_allclose(got / got.sum(), wanted / wanted.sum(), rtol=1e-4)
    balance(np.full(1000, 32768), 8, cost=found)


def test_fit_cost_is_never_negative() -> None:
    tokens, squares = np.array([1000, 2000, 3000.0]), np.array([3e6, 1e6, 2e6])
    assert fit_cost(tokens, squares, 5 * tokens - 1e-6 * squares) == (1, 0)
    assert fit_cost(tokens, squares, 2 * squares - 1e-3 * tokens)[0] == 0
