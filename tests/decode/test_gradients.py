"""No gradient is lost without a word, and lists become like the arrays beside them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tests.decode.sampling import FILTERS

from rollkit.decode import AllowedSet, Kept, PartialHead, cfg, replay_logprobs, sample, uniforms

ALLOWED = AllowedSet([3, range(20, 60)], 100)
COND, UNCOND = 2 * np.random.default_rng(0).normal(size=(2, 12, 100)).astype(np.float32)
KEYS: dict[str, Any] = {"seeds": np.arange(12), "positions": 3}
MAKERS: dict[str, Any] = {"numpy": np.asarray, "torch": torch.tensor, "jax": jnp.asarray}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
def test_a_draw_of_tensors_with_a_gradient_is_the_same_and_keeps_it(filters: dict[str, Any]) -> None:
    options: dict[str, Any] = {"allowed": ALLOWED, "return_kept": True, "temperature": 0.8, **KEYS, **filters}
    wanted = sample(COND, **options)
    logits = torch.tensor(COND, requires_grad=True)
    found = sample(logits, **options)
    np.testing.assert_array_equal(found.token_ids, wanted.token_ids)
    np.testing.assert_array_equal(found.kept.token_ids, wanted.kept.token_ids)
    np.testing.assert_allclose(found.logprobs.detach(), wanted.logprobs, rtol=2e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(found.logprobs.sum(), logits)
    again = replay_logprobs(
        logits, found.token_ids, found.kept, allowed=ALLOWED, temperature=options["temperature"]
    )
    (by_replay,) = torch.autograd.grad(again.sum(), logits)
    torch.testing.assert_close(gradient, by_replay, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert not sample(logits, **options).logprobs.requires_grad


@pytest.mark.parametrize("make", [np.asarray, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("name", ["temperature", "cfg_scale"])
@pytest.mark.parametrize("shape", [(), (12,)])
def test_parameters_keep_their_gradient(make: Any, name: str, shape: tuple[int, ...]) -> None:
    value = torch.full(shape, 1.5, dtype=torch.float64, requires_grad=True)

    def total(value: Any) -> Any:
        found = sample(make(COND), make(UNCOND), allowed=None, **{name: value}, **KEYS)
        return found.logprobs.sum()

    total(value).backward()
    assert value.grad is not None
    # The same tokens win a little to both sides.
    low, high = (float(total(value.detach() + step)) for step in (-1e-3, 1e-3))
    np.testing.assert_allclose(value.grad.sum(), (high - low) / 2e-3, rtol=1e-2, atol=1e-2)


def test_special_rows_spoil_no_gradient() -> None:
    z = torch.tensor([[1, np.nan, 2], [-np.inf] * 3, [np.inf, 1, np.inf], [-np.inf, 1, 2]])
    logits = z.clone().requires_grad_()
    found = sample(logits, allowed=None, seeds=0, positions=0, top_p=0.99, min_p=0.01)
    assert found.status.tolist() == [2, 1, 0, 0]
    (gradient,) = torch.autograd.grad(found.logprobs[2:].sum(), logits)
    assert torch.isfinite(gradient).all()
    assert gradient[:3].eq(0).all()
    assert gradient[3, 1:].ne(0).all()


def test_gradients_that_numpy_would_lose_are_refused() -> None:
    one = torch.tensor(1.5, requires_grad=True)
    with pytest.raises(TypeError, match="gradient, which would be lost"):
        cfg(COND, UNCOND, one)
    kept = Kept(np.arange(12, dtype=np.int32), np.arange(13))
    with pytest.raises(TypeError, match="gradient, which would be lost"):
        replay_logprobs(COND, np.arange(12), kept, temperature=one)
    with pytest.raises(TypeError, match="gradient, which would be lost"):
        jax.jit(lambda z: sample(z, allowed=None, temperature=one, **KEYS).token_ids)(COND)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_jax_refuses_to_differentiate_draws() -> None:
    with pytest.raises(TypeError, match="dtypes"):
        jax.grad(lambda z: sample(z, allowed=None, **KEYS).logprobs.sum())(jnp.asarray(COND))


@pytest.mark.parametrize("make", [torch.tensor, jnp.asarray], ids=["torch", "jax"])
def test_heads_and_guidance_have_gradients(make: Any) -> None:
    head = PartialHead(make(np.ascontiguousarray(COND[:4].T)), AllowedSet(list(range(5, 90, 2)), 100))
    uncond, hidden = make(UNCOND[:, :43]), make(COND[:, :4])

    def total(hidden: Any) -> Any:
        return (cfg(head(hidden), uncond, 1.5) ** 2).sum()

    if make is jnp.asarray:
        gradient = np.asarray(jax.grad(total)(hidden))
    else:
        (found,) = torch.autograd.grad(total(hidden.requires_grad_()), hidden)
        gradient = found.numpy()
    assert (gradient != 0).all()


@makers
def test_lists_become_like_the_arrays_beside_them(make: Any) -> None:
    c, u = COND[:3, :9], UNCOND[:3, :9]
    wanted = cfg(c, u, 1.5)
    for pair in ((make(c), u.tolist()), (c.tolist(), make(u))):
        found = cfg(*pair, 1.5)
        assert type(found) is type(make(c))
        np.testing.assert_array_equal(found, wanted)
        drawn = sample(*pair, allowed=None, cfg_scale=1.5, seeds=[0, 1, 2], positions=0)
        assert type(drawn.token_ids) is type(make(c))
        want = sample(c, u, allowed=None, cfg_scale=1.5, seeds=np.arange(3), positions=0)
        np.testing.assert_array_equal(drawn.token_ids, want.token_ids)
    noise = uniforms([0, 1, 2], 0, np.arange(9))
    assert type(uniforms([0, 1, 2], make([0, 0, 0]), list(range(9)))) is type(make(c))
    np.testing.assert_array_equal(uniforms([0, 1, 2], make([0, 0, 0]), list(range(9))), noise)
    drawn = sample(make(c), make(u), allowed=None, cfg_scale=1.5, noise=noise.tolist())
    np.testing.assert_array_equal(drawn.token_ids, want.token_ids)
    kept = Kept([0, 1, 2], [0, 1, 2, 3])
    for logits, tokens in ((make(c), [0, 1, 2]), (c.tolist(), make([0, 1, 2]))):
        scored = replay_logprobs(logits, tokens, kept)
        assert type(scored) is type(make(c))
        np.testing.assert_allclose(scored, np.zeros(3), atol=1e-6)


def test_lists_get_the_dtype_and_place_of_tensors() -> None:
    half = torch.tensor(COND[:2, :5]).bfloat16()
    both = torch.tensor(UNCOND[:2, :5]).bfloat16()
    np.testing.assert_array_equal(cfg(half, both.tolist(), 2.0), cfg(half, both, 2.0))
    assert cfg(half.to("meta"), both.tolist(), 2.0).is_meta
    jitted = jax.jit(lambda c: cfg(c, UNCOND.tolist(), 2.0))(jnp.asarray(COND))
    np.testing.assert_array_equal(jitted, cfg(COND, UNCOND, 2.0))
    with pytest.raises(ValueError, match="uncond must be an array, got rows of different lengths"):
        cfg(half, [[1.0], [1.0, 2.0]], 2.0)
    with pytest.raises(TypeError, match="uncond must hold numbers, got <U1"):
        cfg(half, [["a"]], 2.0)


def test_logits_of_numpy_go_to_a_traced_parameter() -> None:
    wanted = sample(COND, allowed=ALLOWED, top_p=0.9, **KEYS)
    draw = jax.jit(lambda p: sample(COND, allowed=ALLOWED, top_p=p, **KEYS).token_ids)
    np.testing.assert_array_equal(draw(0.9), wanted.token_ids)
    tensor = jax.jit(lambda p: sample(torch.tensor(COND), allowed=ALLOWED, top_p=p, **KEYS).token_ids)
    np.testing.assert_array_equal(tensor(0.9), wanted.token_ids)
