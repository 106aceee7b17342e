"""`ShuffledSampler`: every number once, cut anywhere, on any number of ranks."""

from __future__ import annotations

import itertools
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from rollkit._loading.sampler import REMAINDERS, ShuffledSampler
from rollkit._rows.order import permuted


def all_ranks(n: int, world_size: int, state: Any = None, **options: Any) -> list[ShuffledSampler]:
    ranks = [ShuffledSampler(n, rank=r, world_size=world_size, **options) for r in range(world_size)]
    for rank in ranks if state else []:
        rank.load_state_dict(state)
    return ranks


@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(0, 200),
    st.integers(1, 9),
    st.sampled_from(REMAINDERS),
    st.integers(0, 3),
    st.integers(0, 2**63 - 1),
)
def test_ranks_deal_an_epoch(n: int, world_size: int, remainder: str, epoch: int, seed: int) -> None:
    order = permuted(np.arange(n), n, seed=seed, epoch=epoch).tolist() if n else []
    ranks = all_ranks(n, world_size, seed=seed, epoch=epoch, remainder=remainder)
    found = [list(rank) for rank in ranks]
    assert [len(numbers) for numbers in found] == [len(rank) for rank in ranks]
    dealt = [number for step in itertools.zip_longest(*found) for number in step if number is not None]
    if remainder == "drop":
        assert dealt == order[: n // world_size * world_size]
    elif remainder == "pad" and n:
        steps = -(-n // world_size) * world_size
        assert dealt == [order[i % n] for i in range(steps)]
    else:
        assert dealt == order


@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(1, 120),
    st.lists(st.tuples(st.integers(1, 7), st.integers(0, 40)), min_size=1, max_size=5),
    st.integers(0, 9),
)
def test_a_run_on_changing_ranks_loses_and_repeats_nothing(
    n: int, parts: list[tuple[int, int]], seed: int
) -> None:
    """One epoch, cut at any step, each part on another number of ranks; the last takes what is left alone."""
    order = permuted(np.arange(n), n, seed=seed).tolist()
    seen: list[int] = []
    state = None
    for world_size, steps in [*parts, (1, n)]:
        ranks = all_ranks(n, world_size, state, seed=seed)
        if state is not None and state["epoch"] == 1:
            break
        left = n - len(seen)
        steps = min(steps, left // world_size)
        iterators = [iter(rank) for rank in ranks]
        seen += [next(it) for _ in range(steps) for it in iterators]
        if steps:
            states = [rank.state_dict() for rank in ranks]
            assert all(found == states[0] for found in states)
            state = json.loads(json.dumps(states[0]))
            assert len(json.dumps(state)) <= 200
    assert state is not None
    assert seen == order[: len(seen)]
    assert len(seen) >= n - max(world_size for world_size, _ in parts) + 1


def test_after_the_end_comes_the_next_epoch() -> None:
    sampler = ShuffledSampler(5, seed=1)
    first = list(sampler)
    assert sampler.state_dict() == {"plan": sampler.plan, "epoch": 1, "position": 0}
    second = list(sampler)
    assert sorted(first) == sorted(second) == list(range(5))
    assert first != second
    after = ShuffledSampler(5, seed=1)
    after.load_state_dict(sampler.state_dict())
    assert list(after) == list(ShuffledSampler(5, seed=1, epoch=2))


def test_the_last_number_ends_the_epoch_before_the_loop_knows() -> None:
    sampler = ShuffledSampler(3, seed=1)
    numbers = iter(sampler)
    for _ in range(3):
        next(numbers)
    assert sampler.state_dict()["epoch"] == 1


@pytest.mark.parametrize("told", [0, 3, 7])
def test_the_epoch_of_a_state_wins(told: int) -> None:
    """Trainers say their epoch before each pass, accelerate from 0 again, some twice."""
    sampler = ShuffledSampler(10, seed=1, epoch=3)
    numbers = iter(sampler)
    head = [next(numbers) for _ in range(4)]
    after = ShuffledSampler(10, seed=1)
    after.load_state_dict(sampler.state_dict())
    after.set_epoch(told)
    after.set_epoch(told)
    assert head + list(after) == list(ShuffledSampler(10, seed=1, epoch=3))
    after.set_epoch(told + 1)
    assert list(after) == list(ShuffledSampler(10, seed=1, epoch=4))


def test_set_epoch_begins_an_epoch() -> None:
    sampler = ShuffledSampler(10, seed=1)
    next(iter(sampler))
    sampler.set_epoch(0)
    assert list(sampler) == list(ShuffledSampler(10, seed=1))
    sampler.set_epoch(5)
    assert sampler.epoch == 5
    assert list(sampler) == list(ShuffledSampler(10, seed=1, epoch=5))


def test_a_pass_that_is_broken_off_begins_anew() -> None:
    sampler = ShuffledSampler(10, seed=1)
    whole = list(ShuffledSampler(10, seed=1))
    for number in sampler:
        assert number == whole[0]
        break
    assert list(sampler) == whole


def test_what_a_loader_took_ahead_is_not_lost() -> None:
    sampler = ShuffledSampler(20, seed=1, world_size=2)
    taken_ahead = list(itertools.islice(sampler, 9))
    after = ShuffledSampler(20, seed=1, world_size=2)
    after.load_state_dict(sampler.state_dict(taken=4))
    assert taken_ahead[:4] + list(after) == list(ShuffledSampler(20, seed=1, world_size=2))
    once_more = ShuffledSampler(20, seed=1, world_size=2)
    once_more.load_state_dict(sampler.state_dict(taken=4))
    next(iter(once_more))
    assert once_more.state_dict(taken=2)["position"] == 12
    with pytest.raises(ValueError, match="taken is 11, this iteration has 10 numbers of this rank"):
        sampler.state_dict(taken=11)


def test_nothing_taken_is_where_the_next_iteration_begins() -> None:
    """A run that is stopped before its first batch, after a restart or `set_epoch`, saves where it is."""
    sampler = ShuffledSampler(20, seed=1)
    list(itertools.islice(sampler, 9))
    state = sampler.state_dict(taken=4)
    after = ShuffledSampler(20, seed=1)
    after.load_state_dict(state)
    assert after.state_dict(taken=0) == after.state_dict() == state
    fresh = ShuffledSampler(20, seed=1)
    fresh.set_epoch(3)
    assert fresh.state_dict(taken=0) == fresh.state_dict()


def test_states_of_other_data_are_refused() -> None:
    class Data(list[int]):
        plan = "abc"

    state = ShuffledSampler(Data(range(5)), seed=1).state_dict()
    ShuffledSampler(Data(range(5)), seed=1).load_state_dict(state)
    for other in (
        ShuffledSampler(5, seed=1),
        ShuffledSampler(Data(range(6)), seed=1),
        ShuffledSampler(Data(range(5)), seed=2),
    ):
        with pytest.raises(ValueError, match=r"state is of plan '\w{16}', this order is '\w{16}': "):
            other.load_state_dict(state)


def test_many_numbers_cost_nothing() -> None:
    sampler = ShuffledSampler(10**10, seed=0, world_size=8, rank=3)
    assert len(set(itertools.islice(sampler, 5_000))) == 5_000
    assert len(pickle.dumps(sampler)) < 500
    assert ShuffledSampler(2**63 - 1, seed=0).__iter__().__next__() >= 0


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: ShuffledSampler(-1, seed=0), ValueError, "n must be at least 0, got -1"),
        (lambda: ShuffledSampler(iter([1]), seed=0), TypeError,  # type: ignore[arg-type]
         "n must be an int, or data that is taken by number, got list_iterator"),
        (lambda: ShuffledSampler("shards", seed=0), TypeError,
         "n must be an int, or data that is taken by number, got str"),
        (lambda: ShuffledSampler({"response_ids": [[1]]}, seed=0), TypeError,
         "n must be an int, or data that is taken by number, got dict"),
        (lambda: ShuffledSampler(3, seed=-1), ValueError, "seed must be at least 0, got -1"),
        (lambda: ShuffledSampler(3, seed=1, rank=2, world_size=2), ValueError,
         "rank must be below world_size=2, got 2"),
        (lambda: ShuffledSampler(3, seed=1, remainder="keep"), ValueError,
         "remainder must be one of 'drop', 'pad', 'uneven', got 'keep'"),
        (lambda: ShuffledSampler(3, seed=1).set_epoch(-1), ValueError, "epoch must be at least 0, got -1"),
        (lambda: ShuffledSampler(3, seed=1).load_state_dict({"epoch": 0}), ValueError,
         "state must have 'plan', 'epoch', 'position', as state_dict gives it, got ['epoch']"),
        (lambda: ShuffledSampler(3, seed=1).load_state_dict([]), ValueError,  # type: ignore[arg-type]
         "state must have 'plan', 'epoch', 'position', as state_dict gives it, got list"),
        (lambda: ShuffledSampler(3, seed=1).load_state_dict(
            {"plan": ShuffledSampler(3, seed=1).plan, "epoch": 0, "position": 4}), ValueError,
         "state['position'] is 4, there are 3 items"),
    ],
)  # fmt: skip
def test_refusals(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message
