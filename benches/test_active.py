"""Batches that shrink: moving cache rows, `generate` beside transformers', buckets in JAX.

Contenders are made here, by name; `record_decode.py` runs the same ones in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import NormalDist
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
Runs: TypeAlias = dict[str, Callable[[], Any]]

VOCAB, EOS, N = 151_936, 7, 16
CODES = AllowedSet(range(100_000, 102_048), VOCAB, eos=EOS)  # 2 049 tokens
PROMPT = 16
UNCOND = [1, 2, 3]
GUIDED: dict[str, Any] = {"uncond": UNCOND, "cfg_scale": 2.0, "temperature": 0.85, "top_p": 0.9}


def skewed(n: int, longest: int) -> list[int]:
    """Log-normal lengths (σ = 1) in any order: quantiles, so that the tail is not one sample's."""
    lengths = np.exp([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])
    lengths = np.random.default_rng(0).permutation(lengths / lengths.max() * longest)
    return [int(max(1, length)) for length in lengths]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def row_moves() -> Runs:
    """16 rows of 512 tokens, 4 layers of 8 heads of 128, bfloat16; one has ended."""

    def cache() -> Any:
        shape = (N, 8, 512, 128)
        return [[torch.zeros(shape, dtype=torch.bfloat16) for _ in range(2)] for _ in range(4)]

    plan = ActiveBatch(N).finish(np.arange(N) == 3)
    return {
        "rollkit": partial(compact, cache(), plan),
        "index_select": partial(select, cache(), plan.keep),
    }


@pytest.mark.parametrize("how", ["rollkit", "index_select"])
def test_move_rows(benchmark: Benchmark, how: str) -> None:
    benchmark(row_moves()[how])


def test_bookkeeping(benchmark: Benchmark) -> None:
    def steps() -> None:
        batch = ActiveBatch(1024)
        while batch.active:
            batch.finish(np.arange(batch.rows) == 5 % batch.rows)

    benchmark(steps)


def qwen3(**shape: Any) -> Any:
    """A random Qwen3, tied."""
    torch.manual_seed(0)
    config = transformers.Qwen3Config(tie_word_embeddings=True, eos_token_id=EOS, pad_token_id=0, **shape)
    make: Any = transformers.Qwen3ForCausalLM._from_config
    return make(config).eval()


def generates() -> Runs:
    """16 sequences of skewed lengths with guidance, on a small model.

    In transformers all rows run to the longest: it drops none, and knows no limit for each.
    """
    model = qwen3(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
    )
    prompts, limits = np.random.default_rng(1).integers(0, VOCAB, (N, PROMPT)), skewed(N, 48)
    ours = partial(generate, model, list(prompts), max_new_tokens=limits, allowed=CODES, **GUIDED)
    tokens, ids = torch.tensor(prompts), CODES.ids.tolist()
    theirs = partial(
        model.generate,
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=max(limits),
        do_sample=True,
        guidance_scale=GUIDED["cfg_scale"],
        negative_prompt_ids=torch.tensor([UNCOND] * N),
        prefix_allowed_tokens_fn=lambda *_: ids,
        temperature=GUIDED["temperature"],
        top_p=GUIDED["top_p"],
        top_k=0,
        eos_token_id=None,
    )
    return {
        "rollkit": ours,
        "compaction=False": partial(ours, compaction=False),
        'cache="static"': partial(ours, cache="static"),
        "transformers": theirs,
    }


@pytest.fixture(scope="module")
def generating() -> Runs:
    return generates()


@pytest.mark.parametrize("how", ["rollkit", "compaction=False", 'cache="static"', "transformers"])
def test_generate(benchmark: Any, generating: Runs, how: str) -> None:
    benchmark.pedantic(generating[how], rounds=1 if how == "transformers" else 3)


# A toy in JAX: four attention layers over 512 tokens of context, a head of 2 049 tokens.

ROWS, HIDDEN, LAYERS, STEPS, CONTEXT = 32, 512, 4, 96, 512


def toy(params: Any, state: Any, slots: Any, t: Any) -> Any:
    x = params["embed"][state["token"]]
    keys = []
    seen = jnp.arange(CONTEXT + STEPS) <= CONTEXT + t
    for weight, layer in zip(params["layers"], state["keys"], strict=True):
        query = x @ weight
        layer = layer.at[:, CONTEXT + t].set(query)
        scores = jnp.where(seen, jnp.einsum("rh,rth->rt", query, layer), -jnp.inf)
        x = x + jnp.einsum("rt,rth->rh", jax.nn.softmax(scores / 16, -1), layer)
        keys.append(layer)
    drawn = sample(params["head"](x), allowed=CODES, seeds=slots, positions=jnp.full(slots.shape, t))
    state = {"token": drawn.token_ids, "keys": keys}
    return state, drawn.token_ids, t + 1 >= params["limits"][jnp.minimum(slots, ROWS - 1)]


def jax_buckets() -> Runs:
    """32 sequences of skewed lengths."""
    rng = np.random.default_rng(0)
    embed = jnp.asarray(rng.normal(size=(VOCAB, HIDDEN)) / 16, jnp.float32)
    params = {
        "embed": embed,
        "head": PartialHead(embed, CODES),
        "layers": [jnp.asarray(rng.normal(size=(HIDDEN, HIDDEN)) / 16, jnp.float32) for _ in range(LAYERS)],
        "limits": jnp.asarray(skewed(ROWS, STEPS), jnp.int32),
    }
    state = {
        "token": jnp.arange(ROWS, dtype=jnp.int32),
        "keys": [jnp.zeros((ROWS, CONTEXT + STEPS, HIDDEN), jnp.float32) for _ in range(LAYERS)],
    }
    ours = partial(decode, toy, params, state, ROWS, max_steps=STEPS)
    return {"rollkit": ours, "static shapes": partial(ours, compaction=False)}


@pytest.mark.parametrize("how", ["rollkit", "static shapes"])
def test_jax_toy(benchmark: Any, how: str) -> None:
    run = jax_buckets()[how]
    benchmark.extra_info["shapes"] = run().shapes
    benchmark.pedantic(run, rounds=3)
