"""Casts to float32 in which a finite number would become infinite: refused where that waits for no device."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch

from rollkit import next_token_logprobs, pack
from rollkit._arrays.ops import ops_of
from rollkit.compat import transformers as compat
from rollkit.compat.skyrl import convert_prompts_responses_to_batch_tensors
from rollkit.decode import AllowedSet, Kept, PartialHead, cfg, replay_logprobs, sample
from rollkit.decode.head import LoRA
from rollkit.decode.jax_driver import Decoded

HUGE = 1e39
"""Fits float64, and not float32."""

KEPT: Any = Kept(np.array([0, 1], np.int32), np.array([0, 1, 2]))
ONES: Any = np.ones((2, 3), np.float32)
WIDE: Any = np.array([[1, 2, 3], [4, HUGE, -HUGE]])
BATCH = pack({"prompt_token_ids": [[1], [2, 1]], "response_ids": [[2], [1]]}, 8)
MAKERS = [np.asarray, torch.tensor, jnp.asarray]


def keyed(**options: Any) -> Any:
    return {"allowed": None, "seeds": 0, "positions": 0, **options}


def head(make: Callable[[Any], Any], hidden: Any, **options: Any) -> Any:
    weight = make(np.ones((6, 3), np.float32))
    return PartialHead(weight, AllowedSet([1, 4], 6), **options)(make(hidden))


def wide_logits() -> Any:
    logits = np.zeros((*BATCH.layout.shape, 4))
    logits[0, 3] = [0, HUGE, 0, -np.inf]  # what the token after the row's second one is chosen by
    return logits


CASES: dict[str, tuple[Callable[[Callable[[Any], Any]], Any], str, int | None, int | None]] = {
    "cond": (lambda make: cfg(make(WIDE), make(WIDE * 0), 2), "cond: row 1, position 1: 1e+39", 1, 1),
    "uncond": (lambda make: cfg(make(WIDE * 0), make(WIDE), 2), "uncond: row 1, position 1: 1e+39", 1, 1),
    "both halves": (lambda make: cfg(make(WIDE), None, 2), "cond: row 1, position 1: 1e+39", 1, 1),
    "bias": (lambda make: cfg(make(ONES), make(ONES), 2, bias=make(WIDE)), "bias: row 1, position 1: 1e+39", 1, 1),
    "bias of columns": (lambda make: cfg(make(ONES), make(ONES), 2, bias=make(WIDE[1])), "bias: position 1: 1e+39", None, 1),
    "bias for all": (lambda make: cfg(make(ONES), make(ONES), 2, bias=make(np.array(HUGE))), "bias: 1e+39", None, None),
    "host's bias": (lambda make: cfg(make(ONES), make(ONES), 2, bias=WIDE[1]), "bias: position 1: 1e+39", None, 1),
    "sample": (lambda make: sample(make(WIDE), **keyed()), "cond: row 1, position 1: 1e+39", 1, 1),
    "sample guided": (lambda make: sample(make(WIDE * 0), make(WIDE), cfg_scale=2, **keyed()), "uncond: row 1, position 1: 1e+39", 1, 1),
    "replay": (lambda make: replay_logprobs(make(WIDE), np.array([0, 1]), KEPT), "logits: row 1, position 1: 1e+39", 1, 1),
    "next tokens": (lambda make: next_token_logprobs(make(wide_logits()), BATCH), "logits: row 1, position 2: 1e+39", 1, 2),
    "head's bias": (lambda make: head(make, ONES, bias=make(np.full(6, HUGE))), "", None, None),
    "adapter": (
        lambda make: head(make, ONES * 70000, lora=LoRA(make(np.ones((2, 3), np.float16)), make(np.ones((6, 2), np.float16)))),
        "hidden: row 0, position 0: 70000",
        0,
        0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", MAKERS, ids=["numpy", "torch", "jax"])
@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_is_named(name: str, make: Any) -> None:
    call, said, row, position = CASES[name]
    with jax.enable_x64(True), pytest.raises(OverflowError) as caught:
        call(make)
    error: Any = caught.value
    assert str(error).startswith(said)
    assert "does not fit float" in str(error)
    if said:
        assert (error.row, error.position) == (row, position)


@pytest.mark.parametrize("value", [3.0000001e38, -np.inf, np.inf, np.nan, 1e-50])
@pytest.mark.parametrize("make", MAKERS, ids=["numpy", "torch", "jax"])
def test_what_fits_is_taken(make: Any, value: float) -> None:
    wide = np.array([[0.0, value, 1.0], [1.0, 2.0, 3.0]])
    with jax.enable_x64(True):
        narrow, given = make(wide.astype(np.float32)), make(wide)
        np.testing.assert_array_equal(np.asarray(cfg(given, given, 1)), np.asarray(cfg(narrow, narrow, 1)))
        got, wanted = (sample(logits, **keyed()) for logits in (given, narrow))
    np.testing.assert_array_equal(np.asarray(got.token_ids), np.asarray(wanted.token_ids))
    np.testing.assert_array_equal(np.asarray(got.logprobs), np.asarray(wanted.logprobs))


def test_wide_logits_score_as_narrow_ones() -> None:
    logits = np.random.default_rng(0).normal(size=(*BATCH.layout.shape, 4))
    for make in (np.asarray, torch.tensor):
        got = next_token_logprobs(make(logits), BATCH)
        wanted = next_token_logprobs(make(logits.astype(np.float32)), BATCH)
        np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted))
    tensor = torch.tensor(logits, requires_grad=True)
    next_token_logprobs(tensor, BATCH).sum().backward()
    assert tensor.grad is not None
    assert tensor.grad.dtype == torch.float64


@pytest.mark.parametrize("name", ["scale", "cfg_scale"])
@pytest.mark.parametrize("given", [HUGE, -HUGE, [1.0, HUGE]])
def test_scales(name: str, given: Any) -> None:
    at = "[1]" if isinstance(given, list) else ""
    value = given[1] if isinstance(given, list) else given
    with pytest.raises(
        OverflowError, match=rf"^{name}{'.1.' if at else ''} is {value}, which".replace("+", r"\+")
    ):
        cfg(ONES, ONES, given) if name == "scale" else sample(ONES, ONES, cfg_scale=given, **keyed())


def test_what_is_traced_is_not_looked_at() -> None:
    with jax.enable_x64(True):
        found = jax.jit(lambda z: cfg(z, z, 1))(jnp.asarray(WIDE))
    assert np.isinf(np.asarray(found)[1, 1:]).all()


def test_emitted_columns_keep_what_they_hold() -> None:
    def emitted(tokens: Any, logprobs: Any) -> Any:
        return Decoded((tokens, logprobs), np.array([2, 1]), np.array([True, False]), (2,), 1)

    tokens, logprobs = np.array([[1, 2], [3, 0]]), np.array([[-1.0, -2.0], [-HUGE, 0.0]])
    with pytest.raises(
        OverflowError, match=r"column 'rollout_logprobs': row 1, position 0: -1e.39 does not fit float32"
    ):
        emitted(tokens, logprobs).rollouts([[1], [2]])
    with pytest.raises(
        OverflowError, match="column 'response_ids': row 0, position 1: 2147483648 does not fit int32"
    ):
        emitted(tokens * 2**30, logprobs).rollouts([[1], [2]])


def test_guided_logits_of_half_precision() -> None:
    logits = compat.AllowedLogits(AllowedSet([0, 1], 3))
    with pytest.raises(
        OverflowError, match=r"guided logits: row 1, position 1: 100000.0 does not fit float16"
    ):
        logits._spread(torch.tensor([[1.0, 2.0], [3.0, 1e5]]), torch.zeros(2, 3, dtype=torch.float16))


def test_rewards_of_the_trainer() -> None:
    rewards: Any = [torch.tensor([1.0, HUGE], dtype=torch.float64)]
    with pytest.raises(OverflowError, match="row 0, position 1"):
        convert_prompts_responses_to_batch_tensors(
            SimpleNamespace(pad_token_id=0), [[1]], [[2, 3]], rewards, [[1, 1]]
        )


@pytest.mark.parametrize(
    ("array", "dtype", "said"),
    [
        (np.array([1, 300]), np.uint8, "300 does not fit uint8"),
        (np.array([2**63], np.uint64), np.int64, "9223372036854775808 does not fit int64"),
        (np.array([[1.0, 70000]]), np.float16, "70000.0 does not fit float16"),
        (np.array([1, 100000]), np.float16, "100000 does not fit float16"),
        (np.array([1e39]), ml_dtypes.bfloat16, "1e+39 does not fit bfloat16"),
        (np.array([-1]), bool, "-1 does not fit bool"),
    ],
)
def test_casts_of_numpy(array: Any, dtype: Any, said: str) -> None:
    with pytest.raises(OverflowError) as caught:
        ops_of(array).cast(array, dtype)
    assert str(caught.value) == said
