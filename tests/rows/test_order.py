"""`permuted`: every number once, nothing that shows how it was made, and the same for ever."""

from __future__ import annotations

from math import factorial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.thorough import by_level

from rollkit._rows.order import permuted, unpermuted
from rollkit.testing import permuted_reference

MOST = 2**63 - 1
TEXT: Any = "a"


def test_small_ones_are_bijective() -> None:
    for n in range(0, 4097, by_level(5, 1)):
        numbers = np.arange(n)
        found = permuted(numbers, n, seed=n, epoch=1)
        assert np.array_equal(np.sort(found), numbers)
        assert np.array_equal(unpermuted(found, n, seed=n, epoch=1), numbers)


@given(st.integers(0, 70), st.integers(0, MOST), st.integers(0, MOST))
def test_equals_the_reference(n: int, seed: int, epoch: int) -> None:
    assert permuted(np.arange(n), n, seed=seed, epoch=epoch).tolist() == permuted_reference(
        n, seed=seed, epoch=epoch
    )


@given(st.integers(1, MOST) | st.integers(MOST - 9, MOST), st.integers(0, MOST), st.data())
def test_large_ones_lead_back(n: int, seed: int, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, n - 1), unique=True))
    found = permuted(numbers, n, seed=seed)
    assert len(set(found.tolist())) == len(numbers)
    assert unpermuted(found, n, seed=seed).tolist() == numbers


@pytest.mark.parametrize(
    ("n", "seed", "epoch", "wanted"),
    [
        (0, 0, 0, []),
        (1, 0, 0, [0]),
        (2, 0, 0, [1, 0]),
        (10, 7, 0, [7, 8, 6, 4, 9, 5, 1, 0, 3, 2]),
        (10, 7, 1, [3, 9, 4, 0, 7, 1, 6, 2, 8, 5]),
        (17, 0, 0, [9, 10, 12, 2, 4, 15, 14, 3, 8, 11, 5, 0, 6, 16, 1, 7, 13]),
        (12, MOST, MOST, None),
    ],
)
def test_never_changes(n: int, seed: int, epoch: int, wanted: list[int] | None) -> None:
    found = permuted(np.arange(n), n, seed=seed, epoch=epoch).tolist()
    assert found == (permuted_reference(n, seed=seed, epoch=epoch) if wanted is None else wanted)


def test_large_ones_never_change() -> None:
    last = permuted([0, 1, 2, MOST // 2, MOST - 1], MOST, seed=7, epoch=3).tolist()
    assert last == [
        7641828994449360369,
        7889824012635653918,
        5751760177268313397,
        2236002302782755398,
        8456811953927137250,
    ]
    many = permuted([0, 1, 2, 10**10 - 1], 10**10, seed=7, epoch=3).tolist()
    assert many == [6055273321, 8513360014, 4436494335, 9069475156]


def deviation(counts: NDArray[np.integer], degrees: int | None = None) -> float:
    """How many standard deviations chi-square is above what equal chances give."""
    expected = counts.sum() / counts.size
    degrees = counts.size - 1 if degrees is None else degrees
    return float((((counts - expected) ** 2 / expected).sum() - degrees) / np.sqrt(2 * degrees))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("key", ["seed", "epoch"])
def test_all_orders_of_few_are_equally_likely(n: int, key: str) -> None:
    keys = 100 * factorial(n)
    orders = np.array([permuted(np.arange(n), n, **{"seed": 1, key: i}) for i in range(keys)])
    numbers = np.unique(orders @ n ** np.arange(n), return_counts=True)[1]
    counts = np.pad(numbers, (0, factorial(n) - len(numbers)))
    assert abs(deviation(counts)) < 4


@pytest.mark.parametrize("n", [9, 16, 25, 100])
def test_positions_and_neighbours_of_many_seeds(n: int) -> None:
    orders = np.array([permuted(np.arange(n), n, seed=seed) for seed in range(4000)])
    table = np.array([np.bincount(column, minlength=n) for column in orders.T])
    assert abs(deviation(table, (n - 1) ** 2)) < 4, "where each number goes"
    steps = np.diff(orders, axis=1) % n
    assert abs(deviation(np.bincount(steps.ravel(), minlength=n)[1:])) < 4, "how far neighbours are apart"
    pairs = np.bincount(orders[:, 0] * n + orders[:, 1], minlength=n * n)
    assert pairs.max() < 4000 / (n * (n - 1)) * 4 + 10, "what comes first and second"


@pytest.mark.parametrize("n", [10**5, 10**10, MOST])
def test_positions_and_neighbours_of_one_seed(n: int) -> None:
    found = permuted(np.arange(10**5), n, seed=3).astype(np.float64) / n
    if n > 10**5:
        assert abs(deviation(np.bincount((found * 500).astype(int), minlength=500))) < 4
    steps = np.diff(found) % 1
    assert abs(deviation(np.bincount((steps * 500).astype(int), minlength=500))) < 4
    cells = (found * 32).astype(int)
    assert abs(deviation(np.bincount(cells[:-1] * 32 + cells[1:], minlength=1024))) < 4
    other = permuted(np.arange(10**5), n, seed=3, epoch=1).astype(np.float64) / n
    apart = (other - found) % 1
    assert abs(deviation(np.bincount((apart * 500).astype(int), minlength=500))) < 4


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: permuted([0, 4], 4, seed=0), IndexError, "numbers[1] is 4, out of range: there are 4"),
        (lambda: permuted([-1], 4, seed=0), IndexError, "numbers[0] is -1, out of range: there are 4"),
        (lambda: unpermuted([0], 0, seed=0), IndexError, "numbers[0] is 0, out of range: there are 0"),
        (lambda: permuted([0], -1, seed=0), ValueError, "n must be at least 0, got -1"),
        (lambda: permuted([0], 1, seed=-1), ValueError, "seed must be at least 0, got -1"),
        (lambda: permuted([0], 1, seed=0, epoch=-1), ValueError, "epoch must be at least 0, got -1"),
        (lambda: permuted([0], 2**63, seed=0), OverflowError, f"n is {2**63}, beyond int64"),
        (lambda: permuted([0.5], 1, seed=0), TypeError, "numbers must hold integers, got float64"),
        (lambda: permuted([0], 1, seed=TEXT), TypeError, "seed must be an int, got str"),
    ],
)
def test_refused(call: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()  # type: ignore[operator]
    assert caught.value.args[0] == message
