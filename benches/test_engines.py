"""Results of engines to columns, beside comprehensions: time over tokens is ns a token.

Objects of 60 000 tokens lie over more memory than the nearest caches have; of 15 000 they fit.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import pytest

from rollkit import Ragged
from rollkit.engines import from_vllm

Benchmark: TypeAlias = Callable[..., Any]

LENGTH = 1500


@dataclass
class Logprob:
    """As vLLM has it."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


class Slots:
    __slots__ = ("logprob", "rank")

    def __init__(self, logprob: float) -> None:
        self.logprob = logprob


MAKE: dict[str, tuple[Callable[[float], Any], Any]] = {
    "SGLang's lists": (lambda x: [x, 5, None], 0),
    "tuples": (lambda x: (x, 5, None), 0),
    "OpenAI's content": (
        lambda x: {"token": "a", "logprob": x, "bytes": None, "top_logprobs": []},
        "logprob",
    ),
    "objects": (Logprob, "logprob"),
}


def get(element: Any, item: Any) -> Any:
    return getattr(element, item) if isinstance(element, Logprob) else element[item]


@pytest.mark.parametrize("way", ["rollkit", "comprehension"])
@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("rows", [10, 40])
def test_items(benchmark: Benchmark, rows: int, kind: str, way: str) -> None:
    make, item = MAKE[kind]
    rng = random.Random(0)
    given = [[make(-rng.random()) for _ in range(LENGTH)] for _ in range(rows)]
    ways: dict[str, Callable[[], Any]] = {
        "rollkit": lambda: Ragged.from_rows(given, np.float32, item=item),
        "comprehension": lambda: [np.array([get(x, item) for x in row], np.float32) for row in given],
    }
    benchmark(ways[way])


@pytest.mark.parametrize("way", ["rollkit", "comprehension"])
@pytest.mark.parametrize("make", [Logprob, Slots])
@pytest.mark.parametrize("rows", [10, 40])
def test_vllm(benchmark: Benchmark, rows: int, make: Callable[[float], Any], way: str) -> None:
    rng = random.Random(0)
    outputs = []
    for row in range(rows):
        ids = [rng.randrange(2, 90_000) for _ in range(LENGTH)]
        logprobs = [{token: make(-rng.random()), 1: make(-3.0)} for token in ids]
        sample = SimpleNamespace(token_ids=ids, logprobs=logprobs, finish_reason="stop")
        outputs.append(SimpleNamespace(request_id=str(row), prompt_token_ids=[1] * 100, outputs=[sample]))

    def comprehension() -> Any:
        samples = [output.outputs[0] for output in outputs]
        return [np.array(sample.token_ids, np.int32) for sample in samples], [
            np.array([d[t].logprob for t, d in zip(s.token_ids, s.logprobs, strict=True)], np.float32)
            for s in samples
        ]

    benchmark({"rollkit": lambda: from_vllm(outputs), "comprehension": comprehension}[way])
