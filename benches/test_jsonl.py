"""JSONL to columns, beside orjson and `np.fromiter`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from rollkit import _native

SHARED = Path(__file__).parents[2] / "shared" / "data" / "tau_airline.jsonl"
HINTS: dict[str, type[np.generic]] = {
    "prompt_token_ids": np.int32,
    "response_ids": np.int32,
    "loss_masks": np.uint8,
    "rollout_logprobs": np.float32,
}


def real() -> bytes:
    return SHARED.read_bytes() * 10 if SHARED.exists() else b""


def full_precision(comma: str) -> bytes:
    """Rows with float32 log-probabilities as Python prints them: all their digits."""
    rng = np.random.default_rng(0)
    lines = [
        {
            "prompt_token_ids": rng.integers(0, 131_072, 300).tolist(),
            "response_ids": rng.integers(0, 131_072, 1_000).tolist(),
            "loss_masks": (rng.random(1_000) < 0.7).astype(int).tolist(),
            "rollout_logprobs": (-rng.exponential(size=1_000)).astype(np.float32).tolist(),
        }
        for _ in range(1_500)
    ]
    return "\n".join(json.dumps(line, separators=(comma, ":")) for line in lines).encode()


def with_orjson(data: bytes) -> dict[str, Any]:
    """The best of orjson: no row's objects outlive it."""
    parts: dict[str, list[Any]] = {}
    for line in data.splitlines():
        for key, value in orjson.loads(line).items():
            dtype = HINTS.get(key)
            row = value if dtype is None else np.fromiter(value, dtype, len(value))
            parts.setdefault(key, []).append(row)
    columns: dict[str, Any] = dict(parts)
    for key in HINTS:
        lengths = [len(row) for row in parts[key]]
        columns[key] = (np.concatenate(parts[key]), np.cumsum([0, *lengths]))
    return columns


def with_rollkit(data: bytes) -> dict[str, Any]:
    return _native.parse_jsonl(np.frombuffer(data, np.uint8), hints=HINTS)[2]


@pytest.fixture(scope="module", params=["real", "full_precision", "full_precision_spaced"])
def data(request: pytest.FixtureRequest) -> bytes:
    makers: dict[str, Callable[[], bytes]] = {
        "real": real,
        "full_precision": lambda: full_precision(","),
        "full_precision_spaced": lambda: full_precision(", "),
    }
    return makers[request.param]() or pytest.skip("the shared data is elsewhere")


@pytest.mark.parametrize("read", [with_rollkit, with_orjson])
def test_jsonl(benchmark: Any, read: Callable[[bytes], dict[str, Any]], data: bytes) -> None:
    benchmark.extra_info["megabytes"] = len(data) / 1e6
    columns = benchmark.pedantic(read, (data,), rounds=5, warmup_rounds=1)
    assert columns["response_ids"][0].dtype == np.int32
