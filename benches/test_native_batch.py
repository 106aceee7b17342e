"""One call for all arrays of a batch, and short rows in another order than that of their memory."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from rollkit import Layout, _native

Benchmark: TypeAlias = Callable[..., Any]

# Rows, mean tokens of a response, rows of a part.
CASES = {"8 × 20": (8, 15, 8), "5 120 × 40, 640 parts": (5120, 30, 8), "100 000 × 40": (100_000, 30, 100_000)}


def column(lengths: NDArray[np.int64], dtype: Any, step: int) -> list[Any]:
    """Parts of `step` rows, each with its offsets."""
    parts = [lengths[i : i + step] for i in range(0, len(lengths), step)]
    return [(np.ones(part.sum(), dtype), np.concatenate([[0], np.cumsum(part)])) for part in parts]


@pytest.fixture(params=CASES, scope="module")
def batch(request: pytest.FixtureRequest) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rows, mean, step = CASES[request.param]
    rng = np.random.default_rng(0)
    prompts, responses = rng.integers(1, mean, rows), rng.integers(1, 2 * mean, rows)
    layout = Layout.pack(prompts + responses, 4096)
    kinds = {"tokens": np.int32, "loss_masks": np.uint8, "logprobs": np.float32, "rewards": np.float32}
    outs = {name: np.zeros(layout.shape, dtype) for name, dtype in kinds.items()}
    fill = {name: np.zeros(1, dtype) for name, dtype in kinds.items()}
    parts: dict[str, tuple[str, Any]] = {
        "tokens": ("tokens", (column(prompts, np.int32, step), column(responses, np.int32, step))),
        "loss_masks": ("response", column(responses, np.uint8, step)),
        "logprobs": ("response", column(responses, np.float32, step)),
        "rewards": ("last", column(np.ones_like(responses), np.float32, step)),
    }
    columns = [(*parts[name], None, fill[name], outs[name], False) for name in kinds]
    where = (layout.starts, layout.lengths, layout.order, layout.row_lengths, prompts, columns)
    made = {name: np.zeros(layout.shape, np.int32) for name in ("segment_ids", "positions")}
    return where, {"size": layout.size, "width": layout.width, **made}


def test_fill_batch_rollkit(benchmark: Benchmark, batch: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    where, options = batch
    benchmark(_native.fill_batch, *where, **options)


def test_fill_batch_memcpy(benchmark: Benchmark, batch: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    where, options = batch
    outs = [column[4] for column in where[5]] + [options["segment_ids"], options["positions"]]
    copies = [np.zeros_like(out) for out in outs]

    def copy() -> None:
        for target, out in zip(copies, outs, strict=True):
            np.copyto(target, out)

    benchmark(copy)


def test_place_in_packed_order_rollkit(benchmark: Benchmark) -> None:
    lengths = np.random.default_rng(0).integers(1, 80, 200_000)
    layout = Layout.pack(lengths, 4096)
    values, begins = np.ones(lengths.sum(), np.int32), np.cumsum(lengths) - lengths
    out, fill = np.zeros(layout.shape, np.int32), np.zeros(1, np.int32)
    rows = (layout.starts, layout.lengths, layout.order)
    benchmark(_native.place, [(values, begins)], *rows, fill=fill, out=out)


def test_place_shuffled_arrays_rollkit(benchmark: Benchmark) -> None:
    arrays = [np.full(40, i, np.int32) for i in range(100_000)]
    np.random.default_rng(0).shuffle(arrays)
    layout = Layout.concat([40] * len(arrays))
    out, fill = np.zeros(layout.shape, np.int32), np.zeros(1, np.int32)
    benchmark(_native.place, arrays, layout.starts, layout.lengths, None, fill=fill, out=out)


def test_place_shuffled_arrays_np_concatenate(benchmark: Benchmark) -> None:
    arrays = [np.full(40, i, np.int32) for i in range(100_000)]
    np.random.default_rng(0).shuffle(arrays)
    benchmark(np.concatenate, arrays, out=np.zeros(4_000_000, np.int32))
