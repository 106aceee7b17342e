"""Samples drawn at random, and how each engine would send them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st

LAYERS, TOPK = 2, 3
ROUTES = np.random.default_rng(0).integers(0, 99, (32, LAYERS, TOPK)).astype(np.int16)


@dataclass
class Sample:
    """What a row must say; `None` where the engine does not send it."""

    prompt: list[int]
    response: list[int]
    logprobs: list[float]
    others: list[dict[int, float]]
    """Of each token, other tokens and their log-probabilities."""
    kept: list[list[int]]
    versions: list[int]
    reason: str
    group: int = 0
    routes: Any = field(default=None, compare=False)

    def __post_init__(self) -> None:
        count = len(self.prompt) + len(self.response)
        self.routes = ROUTES[:count]

    @property
    def known(self) -> Any:
        """Routes but for the last token."""
        return self.routes[:-1]

    def spans(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for at, version in enumerate(self.versions):
            if found and found[-1]["version"] == str(version):
                found[-1]["end"] = at + 1
            else:
                found.append({"version": str(version), "start": at, "end": at + 1})
        return found or [{"version": "1", "start": 0, "end": 0}]


tokens = st.integers(0, 50) | st.integers(10**5, 2**31 - 1)
floats = st.floats(-9, 0, width=32)


@st.composite
def samples(draw: st.DrawFn, prompt: list[int], group: int) -> Sample:
    response = draw(st.lists(tokens, max_size=6))
    count = len(response)

    def each(element: st.SearchStrategy[Any]) -> Any:
        return draw(st.lists(element, min_size=count, max_size=count))

    others = each(st.dictionaries(tokens, floats, min_size=3, max_size=4))
    for token, known in zip(response, others, strict=True):
        known.pop(token, None)
    return Sample(
        prompt, response, each(floats), others, each(st.lists(tokens, max_size=3)), each(st.integers(1, 3)),
        draw(st.sampled_from(["stop", "length"])), group,
    )  # fmt: skip


@st.composite
def groups(draw: st.DrawFn) -> list[list[Sample]]:
    """Samples by prompt."""
    prompts = draw(st.lists(st.lists(tokens, min_size=1, max_size=5), max_size=4))
    return [
        draw(st.lists(samples(prompt, number), min_size=1, max_size=3))
        for number, prompt in enumerate(prompts)
    ]


def entries(sample: Sample) -> list[dict[int, float]]:
    """Log-probabilities by token: the chosen one's first, as vLLM has it."""
    zipped = zip(sample.response, sample.logprobs, sample.others, strict=True)
    return [{token: value, **others} for token, value, others in zipped]


def csr(kept: list[list[int]]) -> Any:
    flat = [token for row in kept for token in row]
    return SimpleNamespace(token_ids=flat, offsets=[0, *np.cumsum([len(row) for row in kept]).tolist()])


def flat_logprobs(dicts: list[dict[int, float]]) -> Any:
    counts = np.array([len(entry) for entry in dicts], int)
    ends = np.cumsum(counts)
    return SimpleNamespace(
        start_indices=(ends - counts).tolist(), end_indices=ends.tolist(),
        token_ids=[token for entry in dicts for token in entry],
        logprobs=[value for entry in dicts for value in entry.values()],
    )  # fmt: skip


def base64_of(array: Any, npy: bool = False) -> str:
    if not npy:
        return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    file = io.BytesIO()
    np.save(file, array)
    return base64.b64encode(file.getvalue()).decode()


def dicts_of(found: Any) -> Any:
    """Objects as dicts of the same fields, all the way down."""
    if isinstance(found, SimpleNamespace):
        return {name: dicts_of(value) for name, value in vars(found).items()}
    if isinstance(found, list):
        return [dicts_of(value) for value in found]
    if isinstance(found, dict):
        return {name: dicts_of(value) for name, value in found.items()}
    return found
