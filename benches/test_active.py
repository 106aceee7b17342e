"""Batches that shrink: moving cache rows, `generate` beside transformers', buckets in JAX."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from rollkit.decode import AllowedSet, PartialHead, sample
from rollkit.decode.active import ActiveBatch
from rollkit.decode.cache import compact, select
from rollkit.decode.generate import generate
from rollkit.decode.jax_driver import decode

Benchmark: TypeAlias = Callable[..., Any]

VOCAB, EOS, N = 151_936, 7, 16
CODES = AllowedSet(range(100_000, 102_048), VOCAB, eos=EOS)  # 2 049 tokens
PROMPT = 16


def skewed(n: int, longest: int) -> list[int]:
    """Log-normal lengths, mean a third of the longest."""
    lengths = np.random.default_rng(0).lognormal(0, 1, n)
    return [int(max(1, length)) for length in lengths / lengths.max() * longest]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Moving rows: 16 rows of 512 tokens, 4 layers of 8 heads of 128, bfloat16; one has ended.


def cache() -> Any:
    shape = (N, 8, 512, 128)
    return [[torch.zeros(shape, dtype=torch.bfloat16) for _ in range(2)] for _ in range(4)]


def test_move_rows_rollkit(benchmark: Benchmark) -> None:
    full, plan = cache(), ActiveBatch(N).finish(np.arange(N) == 3)
    benchmark(compact, full, plan)


def test_move_rows_index_select(benchmark: Benchmark) -> None:
    full, plan = cache(), ActiveBatch(N).finish(np.arange(N) == 3)
    benchmark(select, full, plan.keep)


def test_bookkeeping(benchmark: Benchmark) -> None:
    def steps() -> None:
        batch = ActiveBatch(1024)
        while batch.active:
            batch.finish(np.arange(batch.rows) == 5 % batch.rows)

    benchmark(steps)


# `generate`: 16 sequences of skewed lengths with guidance, beside transformers' own.


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=True,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    found: Any = transformers.Qwen3ForCausalLM(config)
    return found.eval()


PROMPTS = np.random.default_rng(1).integers(0, VOCAB, (N, PROMPT))
LIMITS = skewed(N, 48)


def once(benchmark: Any, call: Callable[[], Any]) -> None:
    benchmark.pedantic(call, rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("compaction", [True, False], ids=["compaction", "static"])
def test_generate_rollkit(benchmark: Any, model: Any, compaction: bool) -> None:
    once(
        benchmark,
        lambda: generate(
            model,
            list(PROMPTS),
            max_new_tokens=LIMITS,
            allowed=CODES,
            uncond=[1, 2, 3],
            cfg_scale=2.0,
            temperature=0.85,
            top_p=0.9,
            compaction=compaction,
        ),
    )


def test_generate_transformers(benchmark: Any, model: Any) -> None:
    """All rows run to the longest: transformers drops none, and knows no limit for each."""
    tokens, ids = torch.tensor(PROMPTS), CODES.ids.tolist()
    options: dict[str, Any] = {
        "attention_mask": torch.ones_like(tokens),
        "negative_prompt_ids": torch.tensor([[1, 2, 3]] * N),
        "prefix_allowed_tokens_fn": lambda *_: ids,
        "eos_token_id": None,
    }
    benchmark.pedantic(
        lambda: model.generate(
            tokens,
            max_new_tokens=max(LIMITS),
            do_sample=True,
            guidance_scale=2.0,
            temperature=0.85,
            top_p=0.9,
            top_k=0,
            **options,
        ),
        rounds=1,
    )


# A model with the shape of Qwen3-0.6B, whose set is 65 536 tokens; 1.2 GB, and a minute.


@pytest.fixture(scope="module")
def large() -> Any:
    if "ROLLKIT_BENCH_LARGE" not in os.environ:
        pytest.skip("set ROLLKIT_BENCH_LARGE to run")
    config = transformers.Qwen3Config(
        vocab_size=217_204,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    make: Any = transformers.Qwen3ForCausalLM._from_config
    found: Any = make(config)
    return found.eval()


@pytest.mark.parametrize("static", [False, True], ids=["compaction, 65 536", "static, full head"])
def test_generate_large(benchmark: Any, large: Any, static: bool) -> None:
    prompts = [list(range(i, i + 16)) for i in range(8)]
    options: dict[str, Any] = {"allowed": AllowedSet(range(217_204 - 65_536, 217_204), 217_204)}
    if static:
        options = {"eos": [], "compaction": False}
    options |= {"max_new_tokens": [64, 5, 8, 11, 16, 13, 32, 8], "uncond": [1, 2, 3], "cfg_scale": 2.0}
    benchmark.pedantic(lambda: generate(large, prompts, top_p=0.9, **options), rounds=1)


# A toy in JAX: four attention layers over 512 tokens of context, a head of 2 049 tokens.

HIDDEN, LAYERS, STEPS, CONTEXT = 512, 4, 96, 512
JAX_LIMITS = jnp.asarray(skewed(N, STEPS), jnp.int32)


def toy(params: Any, state: Any, slots: Any, t: Any) -> Any:
    x = params["embed"][state["token"]]
    keys = []
    for weight, layer in zip(params["layers"], state["keys"], strict=True):
        query = x @ weight
        layer = layer.at[:, CONTEXT + t].set(query)
        share = jax.nn.softmax(
            jnp.where(
                jnp.arange(CONTEXT + STEPS) <= CONTEXT + t, jnp.einsum("rh,rth->rt", query, layer), -jnp.inf
            )
            / 16,
            -1,
        )
        x = x + jnp.einsum("rt,rth->rh", share, layer)
        keys.append(layer)
    drawn = sample(params["head"](x), allowed=CODES, seeds=slots, positions=jnp.full(slots.shape, t))
    state = {"token": drawn.token_ids, "keys": keys}
    return state, drawn.token_ids, t + 1 >= params["limits"][jnp.minimum(slots, N - 1)]


@pytest.mark.parametrize("compaction", [True, False], ids=["buckets", "static"])
def test_jax_toy(benchmark: Any, compaction: bool) -> None:
    rng = np.random.default_rng(0)
    embed = jnp.asarray(rng.normal(size=(VOCAB, HIDDEN)) / 16, jnp.float32)
    params = {
        "embed": embed,
        "head": PartialHead(embed, CODES),
        "layers": [jnp.asarray(rng.normal(size=(HIDDEN, HIDDEN)) / 16, jnp.float32) for _ in range(LAYERS)],
        "limits": JAX_LIMITS,
    }
    state = {
        "token": jnp.arange(N, dtype=jnp.int32),
        "keys": [jnp.zeros((N, CONTEXT + STEPS, HIDDEN), jnp.float32) for _ in range(LAYERS)],
    }
    found = decode(toy, params, state, N, max_steps=STEPS, compaction=compaction)
    benchmark.extra_info["shapes"] = found.shapes
    once(benchmark, lambda: decode(toy, params, state, N, max_steps=STEPS, compaction=compaction))
