"""`generate` on caches of several kinds and layers: the same tokens from all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from tests.decode.decoding import (
    CODES,
    GUIDED,
    LIMITS,
    MIXED,
    PROMPTS,
    SLIDING,
    gemma3,
    lfm2,
    one_by_one,
    qwen3,
    same,
)
from tests.thorough import combinations

from rollkit.decode.generate import generate

MODELS: dict[str, Any] = {
    "full": qwen3,
    "sliding": lambda dtype, **more: qwen3(dtype, **SLIDING, **more),
    "gemma": gemma3,
    "states": lfm2,
}


def built(kind: str, *args: Any, **options: Any) -> Any:
    if kind == "states" and not hasattr(transformers.cache_utils, "LinearAttentionLayer"):
        pytest.skip("an older LFM2 has a cache of its own, and is refused")
    return MODELS[kind](*args, **options)


def test_a_model_with_a_cache_of_its_own_works_or_is_refused() -> None:
    model = lfm2()
    try:
        found = generate(model, MIXED[:2], max_new_tokens=4, allowed=CODES, top_p=0.9, seeds=[5, 6])
    except TypeError as error:
        assert "Lfm2ForCausalLM cannot be read with padding and a cache" in str(error)  # noqa: PT017
    else:
        wanted = [one_by_one(model, prompt, None, 5 + i, 4) for i, prompt in enumerate(MIXED[:2])]
        assert found["response_ids"].to_list() == wanted  # type: ignore[union-attr]


@pytest.fixture(scope="module", params=combinations(MODELS, ["float32", "bfloat16"]), ids=str)
def model(request: Any) -> Any:
    """Eager attention adds up in one order, so that more columns that are masked change no bit."""
    kind, dtype = request.param
    return built(kind, getattr(torch, dtype), attn_implementation="eager")


@pytest.fixture(scope="module", params=MODELS)
def exact(request: Any) -> Any:
    return built(request.param, torch.float32)


@pytest.mark.parametrize(("prompts", "guided"), combinations(PROMPTS, [False, True]))
def test_caches_change_no_token(model: Any, prompts: str, guided: bool) -> None:
    options: dict[str, Any] = {"max_new_tokens": LIMITS["one by one"], "allowed": CODES, "seeds": 3}
    options |= GUIDED if guided else {}
    wanted = generate(model, PROMPTS[prompts], compaction=False, **options)
    same(generate(model, PROMPTS[prompts], **options), wanted)
    same(generate(model, PROMPTS[prompts], cache="static", **options), wanted)
    same(generate(model, PROMPTS[prompts], cache="static", compaction=False, **options), wanted)


@pytest.mark.parametrize(
    ("prompts", "guided", "cache"), combinations(["mixed", "prefix"], [False, True], ["static", "dynamic"])
)
def test_caches_equal_a_loop_without_one(exact: Any, prompts: str, guided: bool, cache: str) -> None:
    """Padding after a shared beginning would use up a window."""
    options: dict[str, Any] = GUIDED if guided else {}
    found = generate(
        exact,
        PROMPTS[prompts][:4],
        max_new_tokens=8,
        allowed=CODES,
        top_p=0.9,
        seeds=range(50, 54),
        cache=cache,
        **options,
    )
    prompt = PROMPTS[prompts][:4]
    wanted = [one_by_one(exact, one, options.get("uncond"), 50 + i, 8) for i, one in enumerate(prompt)]
    assert found["response_ids"].to_list() == wanted  # type: ignore[union-attr]


def test_a_cache_of_ones_own() -> None:
    model = qwen3()
    made: list[Any] = []

    def make(columns: int) -> Any:
        made.append(transformers.StaticCache(config=model.config, max_cache_len=columns))
        return made[-1]

    found = generate(model, MIXED, max_new_tokens=9, allowed=CODES, cache=make)
    same(found, generate(model, MIXED, max_new_tokens=9, allowed=CODES))
    assert made[0].layers[0].keys.shape[-2] == max(map(len, MIXED)) + 9
    assert int(made[0].get_seq_length()) <= max(map(len, MIXED)) + 9
