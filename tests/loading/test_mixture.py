"""`Mixture`: exact shares at every moment, each source whole before it repeats."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from rollkit._loading.mixture import Mixture


class Data(Sequence[Any]):
    """Items that say where they are from, and count calls."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size, self.calls = name, size, 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: Any) -> tuple[str, int]:
        return self.name, range(self.size)[i]

    def __getitems__(self, items: Sequence[int]) -> list[Any]:
        self.calls += 1
        return [self[i] for i in items]


mixtures = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=5)


def mixed(found: list[tuple[int, int]], seed: int = 0, **options: Any) -> Mixture:
    return Mixture({str(i): (Data(str(i), n), w) for i, (n, w) in enumerate(found)}, seed=seed, **options)


@settings(max_examples=examples(200), deadline=None)
@given(mixtures, st.integers(0, 5))
def test_shares_are_exact_from_the_first_item_on(found: list[tuple[int, int]], seed: int) -> None:
    mixture, total = mixed(found, seed), sum(weight for _, weight in found)
    counts: Counter[str] = Counter()
    for i in range(3 * total + 2):
        name, _ = mixture.where(i)
        counts[name] += 1
        for j, (_, weight) in enumerate(found):
            assert abs(counts[str(j)] - (i + 1) * weight / total) < 1


@settings(max_examples=examples(200), deadline=None)
@given(mixtures, st.integers(0, 5))
def test_each_source_is_given_whole_before_it_repeats(found: list[tuple[int, int]], seed: int) -> None:
    mixture = mixed(found, seed)
    items = [mixture[i] for i in range(3 * len(mixture))]
    assert items == mixture.__getitems__(range(3 * len(mixture)))
    for j, (size, _) in enumerate(found):
        mine = [number for name, number in items if name == str(j)]
        for begin in range(0, len(mine) - size + 1, size):
            assert sorted(mine[begin : begin + size]) == list(range(size))
    first = items[: len(mixture)]
    assert len(set(first)) == len(first)
    assert mixture[len(mixture)] in first or any(
        Counter(name for name, _ in first)[str(j)] == size for j, (size, _) in enumerate(found)
    )


def test_a_batch_asks_each_source_once() -> None:
    mixture = mixed([(9, 1), (9, 2)])
    mixture.__getitems__([5, 0, 3, 4, 1])
    assert [source.data.calls for source in mixture._sources] == [1, 1]


def test_the_sampler_goes_on_where_the_epoch_ended() -> None:
    mixture = mixed([(4, 1), (30, 3)])
    sampler = mixture.sampler()
    assert list(sampler) + list(sampler) == list(range(2 * len(mixture)))
    ranks = [mixture.sampler(rank=r, world_size=2) for r in (0, 1)]
    head = [next(it) for it in map(iter, ranks)]
    after = mixture.sampler()
    after.load_state_dict(ranks[0].state_dict())
    assert head + list(after) == list(range(len(mixture)))
    other = mixed([(4, 1), (30, 2)]).sampler()
    with pytest.raises(ValueError, match="it was saved for another number of items"):
        other.load_state_dict(ranks[0].state_dict())


def test_iterating_ends_with_the_epoch() -> None:
    mixture = mixed([(4, 1), (30, 3)])
    found = list(itertools.islice(mixture, len(mixture) + 1))
    assert found == [mixture[i] for i in range(len(mixture))]


def test_weights_are_shares() -> None:
    data = range(10)
    by_floats = Mixture({"a": (data, 0.1), "b": (data, 0.3)}, seed=0)
    by_ints = Mixture({"a": (data, 20), "b": (data, 60)}, seed=0)
    assert [by_floats.where(i) for i in range(80)] == [by_ints.where(i) for i in range(80)]
    assert by_floats.plan == by_ints.plan
    assert repr(by_floats) == "Mixture(14 items: 0.25 a (10), 0.75 b (10))"
    assert len(Mixture({"a": (data, 1)}, seed=0, length=99)) == 99


def test_sources_of_one_size_have_orders_of_their_own() -> None:
    mixture = Mixture({"a": (range(50), 1), "b": (range(50), 1)}, seed=0)
    orders = {name: [mixture.where(i)[1] for i in range(100) if mixture.where(i)[0] == name] for name in "ab"}
    assert orders["a"] != orders["b"]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Mixture({}, seed=0), ValueError,
         "sources is empty; give at least one {name: (data, weight)}"),
        (lambda: Mixture({"a": ([], 1)}, seed=0), ValueError, "sources['a'] is empty; leave it out"),
        (lambda: Mixture({"a": ([1], 0)}, seed=0), ValueError,
         "the weight of 'a' must be a number above 0, got 0"),
        (lambda: Mixture({"a": ([1], float("nan"))}, seed=0), ValueError,
         "the weight of 'a' must be a number above 0, got nan"),
        (lambda: Mixture({"a": ([1], "1")}, seed=0), TypeError,  # type: ignore[dict-item]
         "the weight of 'a' must be a number, got str"),
        (lambda: Mixture({"a": [1]}, seed=0), TypeError,  # type: ignore[dict-item]
         "sources['a'] must be (data, weight), data being taken by number, got list"),
        (lambda: Mixture({"a": ("shards", 1)}, seed=0), TypeError,
         "sources['a'] must be (data, weight), data being taken by number, got (str, int)"),
        (lambda: Mixture({"a": ({"response_ids": [[1]]}, 1)}, seed=0), TypeError,  # type: ignore[dict-item]
         "sources['a'] must be (data, weight), data being taken by number, got (dict, int)"),
        (lambda: Mixture({"a": ([1], 1 / 3), "b": ([1], 1)}, seed=0), ValueError, None),
        (lambda: Mixture({"a": ([1], 1)}, seed=0).where(-1), IndexError,
         "item -1 is out of range: items are numbered from 0"),
    ],
)  # fmt: skip
def test_refusals(call: Any, kind: type[Exception], message: str | None) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert message is None or str(caught.value) == message
    assert message or "at most 10,000 are planned; round them" in str(caught.value)
