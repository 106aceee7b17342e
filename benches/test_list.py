"""Lists of Python numbers to flat columns, beside NumPy's ways and beside copying the result."""

import itertools
import random
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from rollkit._native import from_lists

Rows: TypeAlias = list[list[Any]]
Benchmark: TypeAlias = Callable[..., Any]

ROWS, LENGTH = 1000, 4000


def rows_of(number: Callable[[random.Random], Any], shuffled: bool = False) -> Rows:
    """Rows of numbers, in the order they were made or, as on an aged heap, in any."""
    rng = random.Random(0)
    flat = [number(rng) for _ in range(ROWS * LENGTH)]
    if shuffled:
        rng.shuffle(flat)
    return [flat[i : i + LENGTH] for i in range(0, len(flat), LENGTH)]


def token(rng: random.Random) -> int:
    return rng.randrange(257, 150_000)  # CPython keeps one object for each int up to 256


CASES: dict[str, tuple[Callable[[], Rows], str]] = {
    "ints": (lambda: rows_of(token), "int32"),
    "floats": (lambda: rows_of(random.Random.random), "float32"),
    "masks": (lambda: rows_of(lambda rng: rng.getrandbits(1)), "uint8"),
    "bools": (lambda: rows_of(lambda rng: rng.random() < 0.5), "bool"),
    "shuffled ints": (lambda: rows_of(token, shuffled=True), "int32"),
    "shuffled floats": (lambda: rows_of(random.Random.random, shuffled=True), "float32"),
}


def fromiter(rows: Rows, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.fromiter(itertools.chain.from_iterable(rows), dtype, count=ROWS * LENGTH)


def array_per_row(rows: Rows, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.concatenate([np.array(row, dtype) for row in rows])


WAYS: dict[str, Callable[[Rows, np.dtype[Any]], Any]] = {
    "rollkit": from_lists,
    "fromiter": fromiter,
    "array per row": array_per_row,
}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[Rows, np.dtype[Any]]:
    make, dtype = CASES[request.param]
    return make(), np.dtype(dtype)


@pytest.mark.parametrize("way", WAYS)
def test_flat(benchmark: Benchmark, case: tuple[Rows, np.dtype[Any]], way: str) -> None:
    rows, dtype = case
    benchmark(WAYS[way], rows, dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_copying_the_result(benchmark: Benchmark, dtype: str) -> None:
    source = np.ones(ROWS * LENGTH, dtype)
    benchmark(lambda: np.copyto(np.empty_like(source), source))


@pytest.mark.parametrize("way", ["rollkit", "numpy"])
def test_routes(benchmark: Benchmark, way: str) -> None:
    """Experts per token, layer and rank: lists of 8, where the lists cost more than the numbers."""
    routes = np.random.default_rng(0).integers(0, 128, (100, 100, 48, 8)).tolist()
    dtype = np.dtype(np.uint8)
    ways: dict[str, Callable[[], Any]] = {
        "rollkit": lambda: from_lists(routes, dtype),
        "numpy": lambda: np.concatenate([np.array(row, dtype) for row in routes]),
    }
    benchmark(ways[way])
