"""Arrays to one `Ragged` and rows to a rectangle, beside NumPy's way and beside copying the result."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from rollkit import Layout, Ragged, concat, place, take

Benchmark: TypeAlias = Callable[..., Any]

CASES = {"100 000 × 40": (100_000, 40), "1 000 × 4 000": (1_000, 4_000)}


@pytest.fixture(params=CASES, scope="module")
def arrays(request: pytest.FixtureRequest) -> list[NDArray[np.int32]]:
    rows, length = CASES[request.param]
    flat = np.arange(rows * length, dtype=np.int32)
    return [flat[i : i + length].copy() for i in range(0, len(flat), length)]


def test_join_rollkit(benchmark: Benchmark, arrays: list[NDArray[np.int32]]) -> None:
    rows = benchmark(Ragged.from_rows, arrays)
    assert len(rows) == len(arrays)


def test_join_np_concatenate(benchmark: Benchmark, arrays: list[NDArray[np.int32]]) -> None:
    benchmark(np.concatenate, arrays)


def test_join_memcpy(benchmark: Benchmark, arrays: list[NDArray[np.int32]]) -> None:
    """A copy of the result to fresh memory: what joining could cost at least."""
    joined = np.concatenate(arrays)
    benchmark(joined.copy)


def test_join_into_rollkit(benchmark: Benchmark, arrays: list[NDArray[np.int32]]) -> None:
    layout = Layout.concat([len(row) for row in arrays])
    out = np.zeros(layout.size, np.int32)
    benchmark(place, arrays, layout, out=out)


def test_join_into_np_concatenate(benchmark: Benchmark, arrays: list[NDArray[np.int32]]) -> None:
    out = np.zeros(sum(map(len, arrays)), np.int32)
    benchmark(np.concatenate, arrays, out=out)


def test_join_into_memcpy(benchmark: Benchmark, arrays: list[NDArray[np.int32]]) -> None:
    joined = np.concatenate(arrays)
    benchmark(np.copyto, np.zeros_like(joined), joined)


def test_concat_eight_parts(benchmark: Benchmark, arrays: list[NDArray[np.int32]]) -> None:
    benchmark(concat, [Ragged.from_rows(arrays[i::8]) for i in range(8)])


def test_pad_rollkit(benchmark: Benchmark, arrays: list[NDArray[np.int32]]) -> None:
    rows = Ragged.from_rows(arrays)
    layout = Layout.pad(rows.lengths, multiple_of=64)
    benchmark(place, rows, layout)


def test_pad_numpy_loop(benchmark: Benchmark, arrays: list[NDArray[np.int32]]) -> None:
    width = Layout.pad([len(row) for row in arrays], multiple_of=64).width

    def loop() -> NDArray[np.int32]:
        out = np.zeros((len(arrays), width), np.int32)
        for line, row in zip(out, arrays, strict=True):
            line[width - len(row) :] = row
        return out

    benchmark(loop)


def test_pad_memcpy(benchmark: Benchmark, arrays: list[NDArray[np.int32]]) -> None:
    rows = Ragged.from_rows(arrays)
    benchmark(place(rows, Layout.pad(rows.lengths, multiple_of=64)).copy)


def test_take_rollkit(benchmark: Benchmark, arrays: list[NDArray[np.int32]]) -> None:
    rows = Ragged.from_rows(arrays)
    layout = Layout.pad(rows.lengths, multiple_of=64)
    benchmark(take, place(rows, layout), layout)
