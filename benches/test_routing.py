"""Routes of a turn to its nodes, beside decoding the whole context."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np
import pytest

from rollkit.forest import TokenTree
from rollkit.routing import RouteBuilder, narrow_routes, split_routes

ROWS, RETAINED = 131_072, 3_073


@pytest.fixture(scope="module")
def routes() -> Any:
    return np.random.default_rng(0).integers(0, 128, (ROWS, 48, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def payload(routes: Any) -> dict[str, Any]:
    text = base64.b64encode(routes.tobytes()).decode()
    return {"data": text, "shape": list(routes.shape), "dtype": "uint8", "start": 0}


@pytest.mark.benchmark(group="split_routes, 3 073 of 131 072 rows")
@pytest.mark.parametrize("source", ["base64", "array"])
def test_split(benchmark: Any, routes: Any, payload: dict[str, Any], source: str) -> None:
    given = payload if source == "base64" else routes
    benchmark(split_routes, given, [1_000, RETAINED - 1_000], start=ROWS + 1 - RETAINED)


@pytest.mark.benchmark(group="split_routes, 3 073 of 131 072 rows")
@pytest.mark.parametrize("source", ["base64", "array"])
def test_whole_context(benchmark: Any, routes: Any, payload: dict[str, Any], source: str) -> None:
    def attribute() -> Any:
        found = routes
        if source == "base64":
            found = np.frombuffer(binascii.a2b_base64(payload["data"]), np.uint8).reshape(routes.shape)
        return found[ROWS + 1 - RETAINED :].copy()

    benchmark(attribute)


@pytest.mark.benchmark(group="32 turns")
def test_builder(benchmark: Any, routes: Any) -> None:
    def grow() -> Any:
        builder = RouteBuilder()
        for turn in range(32):
            builder.append(routes[turn * 2048 : (turn + 1) * 2048])
        return builder.finish()

    benchmark(grow)


@pytest.mark.benchmark(group="32 turns")
def test_tree(benchmark: Any, routes: Any) -> None:
    """Tokens, log-probabilities and routes of 32 turns that continue one another."""
    tokens = np.arange(32 * 2048, dtype=np.int32)

    def commit() -> Any:
        tree = TokenTree()
        for turn in range(32):
            start, end = turn * 2048, (turn + 1) * 2048
            new = {"data": routes[start:end], "start": start}
            logprobs = np.zeros(1024, np.float32)
            tree.commit(tokens[: end - 1024], tokens[end - 1024 : end], routes=new, rollout_logprobs=logprobs)
        return tree.branches()

    benchmark(commit)


@pytest.mark.benchmark(group="32 turns")
def test_copy(benchmark: Any, routes: Any) -> None:
    benchmark(routes[: 32 * 2048].copy)


@pytest.mark.benchmark(group="narrow_routes")
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_narrow(benchmark: Any, routes: Any, dtype: str) -> None:
    benchmark(narrow_routes, routes[:16_384].astype(dtype))
