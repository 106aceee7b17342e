"""A JAX toy with a cache: buckets change no token."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.thorough import combinations

from rollkit.decode import AllowedSet, PartialHead, sample
from rollkit.decode.jax_driver import decode

VOCAB, HIDDEN, STEPS, PROMPT = 64, 16, 24, 4
CODES = AllowedSet(range(20, 50), VOCAB, eos=3)
SEEDS = np.arange(100, 116, dtype=np.int32)


def weights(dtype: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    names = {"embed": (VOCAB, HIDDEN), "q": (HIDDEN, HIDDEN), "k": (HIDDEN, HIDDEN), "v": (HIDDEN, HIDDEN)}
    found: dict[str, Any] = {
        name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in names.items()
    }
    found["head"] = PartialHead(jnp.asarray(rng.normal(size=(VOCAB, HIDDEN)), dtype), CODES)
    return found


def attend(params: Any, state: Any) -> tuple[Any, Any]:
    """One layer with a cache at each row's own length; returns the hidden state and the new cache."""
    x = params["embed"][state["token"]]
    rows, at = jnp.arange(x.shape[0]), state["length"]
    keys = state["keys"].at[rows, at].set(x @ params["k"])
    values = state["values"].at[rows, at].set(x @ params["v"])
    scores = jnp.einsum("rh,rth->rt", x @ params["q"], keys).astype(jnp.float32) / 16
    seen = jnp.arange(keys.shape[1]) <= at[:, None]
    share = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1).astype(keys.dtype)
    hidden = x + jnp.einsum("rt,rth->rh", share, values)
    return hidden, {**state, "keys": keys, "values": values, "length": at + 1}


def draw(params: Any, hidden: Any, slots: Any, t: Any, scale: float) -> Any:
    logits = params["head"](hidden).astype(jnp.float32) / 4
    half = slots.shape[0]
    return sample(
        logits[:half],
        logits[half:] if scale != 1 else None,
        allowed=CODES,
        cfg_scale=scale,
        seeds=params["seeds"][jnp.minimum(slots, len(SEEDS) - 1)],
        positions=jnp.full(half, t),
    )


def step_with(scale: float) -> Any:
    def step(params: Any, state: Any, slots: Any, t: Any) -> Any:
        hidden, state = attend(params, state)
        found = draw(params, hidden, slots, t, scale)
        tokens = found.token_ids
        state["token"] = jnp.concatenate([tokens, tokens]) if scale != 1 else tokens
        limit = params["limits"][jnp.minimum(slots, len(SEEDS) - 1)]
        return state, (tokens, found.logprobs), (tokens == 3) | (t + 1 >= limit)

    return step


PLAIN, GUIDED = step_with(1.0), step_with(1.5)

LIMITS = {
    "front": [2] * 8 + [STEPS] * 8,
    "middle": [STEPS] * 4 + [1, 2, 3, 4, 4, 3, 2, 1] + [STEPS] * 4,
    "end": [STEPS] * 7 + [3] * 9,
    "one by one": [1 + (7 * i) % 16 for i in range(16)],
    "together": [5] * 16,
}


def start(n: int, dtype: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    shape = (n, STEPS + PROMPT, HIDDEN)
    return {
        "keys": jnp.asarray(rng.normal(size=shape), dtype),
        "values": jnp.asarray(rng.normal(size=shape), dtype),
        "length": jnp.asarray(rng.integers(0, PROMPT, n), jnp.int32),  # mixed prompt lengths
        "token": jnp.asarray(rng.integers(0, VOCAB, n), jnp.int32),
    }


@pytest.mark.parametrize(
    ("limits", "guided", "dtype"), combinations(LIMITS, [False, True], ["float32", "bfloat16"])
)
def test_buckets_change_no_token(limits: str, guided: bool, dtype: str) -> None:
    params = weights(dtype) | {"seeds": jnp.asarray(SEEDS), "limits": jnp.asarray(LIMITS[limits])}
    step, rows = (GUIDED, 32) if guided else (PLAIN, 16)
    runs = [
        decode(step, params, start(rows, dtype), 16, max_steps=STEPS, cfg=guided, compaction=compaction)
        for compaction in (True, False)
    ]
    short, static = runs
    np.testing.assert_array_equal(short.emitted[0], static.emitted[0])
    np.testing.assert_array_equal(short.lengths, static.lengths)
    np.testing.assert_array_equal(short.ended, static.ended)
    np.testing.assert_allclose(
        short.emitted[1], static.emitted[1], rtol=0, atol=1e-4 if dtype == "float32" else 0.05
    )
    assert static.shapes == (16,)
    assert len(short.shapes) <= 6
    assert short.shapes == tuple(sorted(set(short.shapes), reverse=True))
    assert short.syncs == len(short.shapes)
    assert (short.lengths <= np.array(LIMITS[limits])).all()
    prompts = [[1, 2]] * 16
    found = short.rollouts(prompts)
    for row, length, want in zip(found["response_ids"], short.lengths, static.emitted[0], strict=True):
        assert row.tolist() == want[:length].tolist()


def test_one_by_one_equals_the_batch() -> None:
    """Each sequence alone, step by step, without the driver."""
    limits = LIMITS["one by one"]
    params = weights("float32") | {"seeds": jnp.asarray(SEEDS), "limits": jnp.asarray(limits)}
    found = decode(PLAIN, params, start(16, "float32"), 16, max_steps=STEPS).rollouts([[0]] * 16)
    step = jax.jit(PLAIN)
    for slot, row in enumerate(found["response_ids"]):
        state = jax.tree_util.tree_map(lambda leaf, slot=slot: leaf[slot : slot + 1], start(16, "float32"))
        tokens: list[int] = []
        for t in range(STEPS):
            state, (token, _), ended = step(params, state, jnp.array([slot]), jnp.int32(t))
            tokens.append(int(token[0]))
            if bool(ended[0]):
                break
        assert row.tolist() == tokens


def test_the_callers_state_is_left_alone() -> None:
    state = jnp.arange(4)

    def count(params: Any, state: Any, slots: Any, t: Any) -> Any:
        return state + 1, state, state >= 5

    for _ in range(2):
        out = decode(count, None, state, 4, max_steps=3)
        assert out.lengths.tolist() == [3, 3, 3, 3]
        assert out.ended.tolist() == [False, False, False, True]
        assert list(out.rollouts([[0]] * 4)["stop_reasons"]) == ["length"] * 3 + ["stop"]
