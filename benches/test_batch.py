"""A step's rollouts to a packed batch, beside copying the batch: fresh, and into warm buffers."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest

from rollkit import Batch, pack

Benchmark: TypeAlias = Callable[..., Any]
Columns: TypeAlias = dict[str, Any]

CAPACITY = 32_768 + 1024


@pytest.fixture(scope="module")
def columns() -> Columns:
    """1 024 rollouts as arrays, with lengths as reasoning models have them."""
    rng = np.random.default_rng(0)
    count, sigma = 1024, 0.9
    mean = np.log(3800) - sigma**2 / 2
    responses = np.clip(rng.lognormal(mean, sigma, count), 1, 32_768).astype(int)
    prompts = np.clip(rng.normal(512, 128, count), 1, 1024).astype(int)
    return {
        "prompt_token_ids": [rng.integers(0, 150_000, n, np.int32) for n in prompts],
        "response_ids": [rng.integers(0, 150_000, n, np.int32) for n in responses],
        "loss_masks": [rng.integers(0, 2, n, np.uint8) for n in responses],
        "rollout_logprobs": [rng.random(n, np.float32) for n in responses],
        "rewards": rng.random(count),
        "advantages": [rng.random(n, np.float32) for n in responses],
    }


@pytest.fixture(scope="module")
def batch(columns: Columns) -> Batch:
    return pack(columns, CAPACITY)


def test_pack_fresh_rollkit(benchmark: Benchmark, columns: Columns) -> None:
    benchmark(pack, columns, CAPACITY)


def test_pack_fresh_memcpy(benchmark: Benchmark, batch: Batch) -> None:
    benchmark(lambda: [array.copy() for array in batch.arrays.values()])


def test_pack_into_rollkit(benchmark: Benchmark, columns: Columns) -> None:
    warm = pack(columns, CAPACITY)
    benchmark(pack, columns, CAPACITY, out=warm)


def test_pack_into_memcpy(benchmark: Benchmark, batch: Batch) -> None:
    warm = [np.zeros_like(array) for array in batch.arrays.values()]

    def copy() -> None:
        for out, array in zip(warm, batch.arrays.values(), strict=True):
            np.copyto(out, array)

    benchmark(copy)


def test_pack_of_int64_into_rollkit(benchmark: Benchmark, columns: Columns) -> None:
    """Token ids as trainers often keep them: cast on the way."""
    wide = {**columns, "prompt_token_ids": [row.astype(np.int64) for row in columns["prompt_token_ids"]]}
    wide["response_ids"] = [row.astype(np.int64) for row in columns["response_ids"]]
    warm = pack(wide, CAPACITY)
    benchmark(pack, wide, CAPACITY, out=warm)
