from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rollkit.decode import AllowedSet, Kept, replay_logprobs, sample


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _ids(ids: list[int]) -> NDArray[np.int32]:
    return np.array(ids, np.int32)


ALLOWED = AllowedSet([3, range(20, 60)], 100)
LOGITS = 2 * normal(12, 100)
HEAT = np.linspace(0.5, 1.5, 12)


def drawn(**more: Any) -> Any:
    options: dict[str, Any] = {
        "temperature": HEAT,
        "top_p": 0.8,
        "seeds": np.arange(12),
        "positions": 0,
    } | more
    return sample(LOGITS, allowed=ALLOWED, return_kept=True, **options)


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, jnp.asarray], ids=["numpy", "torch", "jax"])
@pytest.mark.parametrize("compact", [False, True])
def test_replays_what_was_drawn(make: Any, compact: bool) -> None:
    found = drawn()
    logits = make(LOGITS[:, ALLOWED.ids] if compact else LOGITS)
    for tokens in (found.token_ids, make(found.token_ids)):
        got = replay_logprobs(logits, tokens, found.kept, allowed=ALLOWED, temperature=HEAT)
        np.testing.assert_allclose(np.asarray(got), found.logprobs, rtol=1e-4, atol=1e-5)
    kept = Kept(*map(make, found.kept))
    got = replay_logprobs(logits, found.token_ids, kept, allowed=ALLOWED, temperature=HEAT)
    np.testing.assert_allclose(np.asarray(got), found.logprobs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, jnp.asarray], ids=["numpy", "torch", "jax"])
def test_tokens_that_were_not_kept(make: Any) -> None:
    kept = Kept(np.array([3, 20, 21, 20], np.int32), np.array([0, 0, 3, 4]))
    logits = make(np.zeros((3, 100), np.float32))
    got = replay_logprobs(logits, np.array([3, 50, 20]), kept, allowed=ALLOWED)
    np.testing.assert_allclose(np.asarray(got), [-np.inf, -np.inf, 0])
    greedy = drawn(temperature=0.0)
    got = replay_logprobs(make(LOGITS), greedy.token_ids, greedy.kept, allowed=ALLOWED, temperature=0.0)
    np.testing.assert_allclose(np.asarray(got), np.zeros(12), atol=1e-6)


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, jnp.asarray], ids=["numpy", "torch", "jax"])
def test_infinite_logits_share_all_mass(make: Any) -> None:
    z = np.array([[np.inf, 1, np.inf, 2], [0, np.inf, 0, 0], [1, 2, 3, 4]], np.float32)
    found = sample(z, allowed=None, seeds=3, positions=0, temperature=0.7, return_kept=True)
    got = replay_logprobs(make(z), found.token_ids, found.kept, temperature=0.7)
    np.testing.assert_allclose(np.asarray(got), found.logprobs, rtol=1e-5, atol=1e-6)
    every = Kept(np.tile(np.arange(4, dtype=np.int32), 3), np.arange(4) * 4)
    got = replay_logprobs(make(z), np.array([1, 1, 1]), every)
    np.testing.assert_allclose(np.asarray(got)[:2], [-np.inf, 0])


def test_infinite_logits_spoil_no_gradient() -> None:
    z = np.array([[np.inf, 1, 2], [1, 2, 3]], np.float32)
    kept, tokens = Kept(np.tile(np.arange(3, dtype=np.int32), 2), np.array([0, 3, 6])), np.array([0, 1])
    tensor = torch.from_numpy(z.copy()).requires_grad_()
    replay_logprobs(tensor, tokens, kept).sum().backward()
    assert tensor.grad is not None
    assert tensor.grad[0].tolist() == [0, 0, 0]
    assert bool((tensor.grad[1] != 0).all())
    on_jax = jax.grad(lambda logits: replay_logprobs(logits, tokens, kept).sum())(jnp.asarray(z))
    np.testing.assert_allclose(on_jax, tensor.grad, rtol=1e-5)


def test_temperature_is_not_rounded_to_the_logits_dtype() -> None:
    z = torch.from_numpy(LOGITS).bfloat16()
    found = drawn(temperature=0.7)
    got = replay_logprobs(z, torch.from_numpy(found.token_ids), found.kept, temperature=0.7)
    wanted = replay_logprobs(z.float(), torch.from_numpy(found.token_ids), found.kept, temperature=0.7)
    np.testing.assert_array_equal(got, wanted)


def test_gradients_stay_within_kept_sets() -> None:
    found = drawn()
    tokens = found.token_ids.copy()
    tokens[2] = 99  # not allowed
    offsets = found.kept.offsets.copy()
    mask = np.zeros((12, 100), bool)
    for row in range(12):
        mask[row, found.kept.row(row)] = True
    tensor = torch.from_numpy(LOGITS.copy()).requires_grad_()
    scored = replay_logprobs(tensor, tokens, Kept(found.kept.token_ids, offsets), temperature=HEAT)
    scored[torch.isfinite(scored)].sum().backward()
    wanted = torch.from_numpy(LOGITS.copy()).requires_grad_()
    masked = (wanted / torch.from_numpy(HEAT[:, None]).float()).masked_fill(
        ~torch.from_numpy(mask), -torch.inf
    )
    rows = [row for row in range(12) if row != 2]
    masked.log_softmax(-1)[rows, tokens[rows]].sum().backward()  # type: ignore[no-untyped-call]
    assert tensor.grad is not None
    assert wanted.grad is not None
    torch.testing.assert_close(tensor.grad, wanted.grad.nan_to_num(0), rtol=1e-4, atol=1e-5)

    def total(logits: Any) -> Any:
        scored = replay_logprobs(logits, tokens, found.kept, temperature=HEAT)
        return jnp.where(jnp.isfinite(scored), scored, 0).sum()

    for gradient in (jax.grad(total), jax.jit(jax.grad(total))):
        np.testing.assert_allclose(gradient(jnp.asarray(LOGITS)), tensor.grad, rtol=1e-4, atol=1e-5)


def test_masks_to_rows() -> None:
    mask = np.random.default_rng(0).random((7, len(ALLOWED))) < 0.3
    mask[3] = False
    wanted = Kept.from_mask(mask, ALLOWED)
    assert wanted.token_ids.dtype == np.int32
    assert wanted.offsets.dtype == np.int64
    for row in range(7):
        np.testing.assert_array_equal(wanted.row(row), ALLOWED.ids[mask[row]])
    on_torch = Kept.from_mask(torch.from_numpy(mask), ALLOWED)
    np.testing.assert_array_equal(on_torch.token_ids.numpy(), wanted.token_ids)
    np.testing.assert_array_equal(on_torch.offsets.numpy(), wanted.offsets)
    on_jax = Kept.from_mask(jnp.asarray(mask), ALLOWED)
    np.testing.assert_array_equal(on_jax.token_ids, wanted.token_ids)
    joined = Kept.concat([wanted, wanted])
    np.testing.assert_array_equal(joined.row(9), wanted.row(2))
    assert len(joined.offsets) == 15
    empty = Kept.concat([])
    assert empty.offsets.tolist() == [0]
    assert len(empty.token_ids) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (LOGITS, [1], Kept(_ids([1]), np.array([0, 1]))),
            ValueError,
            "kept has 1 rows, logits have 12; they go row by row",
        ),
        (
            (LOGITS[:1], [1, 2], Kept(_ids([1]), np.array([0, 1]))),
            ValueError,
            "token_ids must be [1], one per row, got shape (2,)",
        ),
        (
            (LOGITS[:1, :5], [1], Kept(_ids([7]), np.array([0, 1]))),
            ValueError,
            "kept has token 7, which is no column of logits with 5; pass allowed=",
        ),
        (
            (LOGITS[:1], torch.tensor([1]), Kept(_ids([7]), np.array([0, 1]))),
            TypeError,
            "logits is of numpy, token_ids of torch; convert one: token_ids = np.asarray(token_ids)",
        ),
    ],
)
def test_errors(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        replay_logprobs(*arguments)
    assert str(raised.value) == message
