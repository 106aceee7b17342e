from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rollkit.decode import AllowedSet, PartialHead
from rollkit.decode.head import LoRA

SETS = {
    "range": AllowedSet(range(10, 40), 64),
    "window": AllowedSet([8, range(10, 40)], 64),
    "holes": AllowedSet(list(range(0, 64, 5)), 64),
}
HIDDEN = 16


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def framework(name: str) -> Any:
    return {"numpy": np.asarray, "torch": torch.tensor, "jax": jnp.asarray}[name]


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("allowed", SETS.values(), ids=SETS)
@pytest.mark.parametrize("extra", ["none", "bias", "lora", "both"])
def test_equals_columns_of_the_full_head(name: str, allowed: AllowedSet, extra: str) -> None:
    make = framework(name)
    weight, bias, hidden = normal(64, HIDDEN), normal(64, seed=1), normal(3, 5, HIDDEN, seed=2)
    a, b = normal(4, HIDDEN, seed=3), normal(64, 4, seed=4)
    wanted = hidden @ weight.T
    options: dict[str, Any] = {}
    if extra in ("bias", "both"):
        options["bias"], wanted = make(bias), wanted + bias
    if extra in ("lora", "both"):
        options["lora"], wanted = LoRA(make(a), make(b), 0.5), wanted + 0.5 * (hidden @ a.T) @ b.T
    head = PartialHead(make(weight), allowed, **options)
    logits = head(make(hidden))
    assert logits.shape == (3, 5, len(allowed))
    np.testing.assert_allclose(np.asarray(logits), wanted[..., allowed.ids], rtol=1e-4, atol=1e-4)
    if name == "jax":
        jitted = jax.jit(lambda head, hidden: head(hidden))(head, make(hidden))
        np.testing.assert_allclose(np.asarray(jitted), wanted[..., allowed.ids], rtol=1e-4, atol=1e-4)
        inner = jax.jit(lambda head, hidden: head(hidden))
        nested = jax.jit(lambda head, hidden: inner(head, hidden))(head, make(hidden))
        np.testing.assert_array_equal(nested, jitted)


def test_is_a_view_where_it_can_be() -> None:
    weight = torch.randn(64, HIDDEN)
    for name, allowed in SETS.items():
        head = PartialHead(weight, allowed)
        shares = head.weight.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
        assert shares == head.is_view == (name != "holes")
        assert head.weight is head.weight, "sliced once"
    assert not PartialHead(weight, SETS["window"], waste=0.0).is_view
    assert "view of (64, 16)" in repr(PartialHead(weight, SETS["range"]))


@pytest.mark.parametrize("allowed", SETS.values(), ids=SETS)
def test_follows_writes_to_the_weight(allowed: AllowedSet) -> None:
    lm_head = torch.nn.Linear(HIDDEN, 64)
    head = PartialHead.from_module(lm_head, allowed)
    hidden = torch.randn(2, HIDDEN)
    index = torch.tensor(allowed.ids.copy()).long()

    def check() -> None:
        with torch.no_grad():
            torch.testing.assert_close(head(hidden), lm_head(hidden)[:, index])

    check()
    assert not head(hidden).requires_grad
    optimiser = torch.optim.SGD(lm_head.parameters(), 0.5)
    lm_head(hidden).square().sum().backward()
    optimiser.step()
    check()
    lm_head.load_state_dict(torch.nn.Linear(HIDDEN, 64).state_dict())
    check()
    lm_head.weight.data = torch.randn(64, HIDDEN)  # other memory
    check()
    lm_head.weight.data.copy_(torch.randn(64, HIDDEN))  # goes unseen where the slice is a copy
    head.refresh()
    check()
    lm_head.double()
    hidden = hidden.double()
    check()


def test_refreshes_with_a_new_array() -> None:
    first, second = jnp.asarray(normal(64, HIDDEN)), jnp.asarray(normal(64, HIDDEN, seed=1))
    hidden = normal(2, HIDDEN, seed=2)
    head = PartialHead(first, SETS["holes"])
    head(hidden)
    head.refresh(second)
    wanted = np.asarray(hidden @ second.T)[:, SETS["holes"].ids]
    np.testing.assert_allclose(head(hidden), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"weight must have shape \(64, 16\), got \(63, 16\)"):
        head.refresh(second[:63])


def test_slices_tied_embeddings_and_kernels_of_flax() -> None:
    embedding = torch.nn.Embedding(64, HIDDEN)
    hidden = torch.randn(2, HIDDEN)
    got = PartialHead.from_module(embedding, SETS["holes"])(hidden)
    torch.testing.assert_close(got, (hidden @ embedding.weight.T)[:, SETS["holes"].ids.tolist()].detach())
    kernel = normal(HIDDEN, 64)
    head = PartialHead(jnp.asarray(kernel), SETS["holes"], vocab_axis=1)
    wanted = (hidden.numpy() @ kernel)[:, SETS["holes"].ids]
    np.testing.assert_allclose(head(jnp.asarray(hidden.numpy())), wanted, rtol=1e-4, atol=1e-5)
    head.refresh(jnp.asarray(2 * kernel))
    np.testing.assert_allclose(head(jnp.asarray(hidden.numpy())), 2 * wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("merged", [False, True])
def test_adds_adapters_of_peft(merged: bool) -> None:
    class Adapted(torch.nn.Module):
        """The attributes of `peft.tuners.lora.Linear` that matter."""

        def __init__(self) -> None:
            super().__init__()
            self.base_layer = torch.nn.Linear(HIDDEN, 64)
            self.lora_A = torch.nn.ModuleDict({"x": torch.nn.Linear(HIDDEN, 4, bias=False)})
            self.lora_B = torch.nn.ModuleDict({"x": torch.nn.Linear(4, 64, bias=False)})
            self.scaling = {"x": 0.25}
            self.active_adapters = ["x", "of another layer"]
            self.merged = merged

    module = Adapted()
    hidden = torch.randn(2, HIDDEN)
    wanted = module.base_layer(hidden)
    if not merged:
        wanted = wanted + 0.25 * module.lora_B["x"](module.lora_A["x"](hidden))
    with torch.no_grad():
        got = PartialHead.from_module(module, SETS["window"])(hidden)
    torch.testing.assert_close(got, wanted[:, SETS["window"].ids.tolist()].detach())


@pytest.mark.parametrize("name", ["torch", "jax", "numpy"])
@pytest.mark.parametrize("groups", [0, 1, 4])
@pytest.mark.parametrize("allowed", SETS.values(), ids=SETS)
def test_multiplies_quantised_rows(name: str, groups: int, allowed: AllowedSet) -> None:
    make = framework(name)
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (64, HIDDEN)).astype(np.int8)
    scale = rng.random((64, groups) if groups else 64).astype(np.float32)
    wide = weight * np.repeat(scale.reshape(64, -1), HIDDEN // max(groups, 1), 1)
    hidden = normal(2, HIDDEN)
    head = PartialHead(make(weight), allowed, scale=make(scale))
    np.testing.assert_allclose(head(make(hidden)), (hidden @ wide.T)[:, allowed.ids], rtol=1e-4, atol=1e-2)
    if name == "torch":
        assert head.weight is head.weight, "multiplied out once"
        head._weight.source.zero_()
        assert not head(make(hidden)).any()


def test_bfloat16() -> None:
    weight = torch.randn(64, HIDDEN, dtype=torch.bfloat16)
    hidden = torch.randn(5, HIDDEN, dtype=torch.bfloat16)
    got = PartialHead(weight, SETS["holes"])(hidden)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, (hidden @ weight.T)[:, SETS["holes"].ids.tolist()])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: PartialHead(np.zeros((63, 4)), SETS["range"]),
            ValueError,
            "weight must be [vocab, …] with vocab = 64, the vocab_size of allowed, got shape (63, 4)",
        ),
        (
            lambda: PartialHead(np.zeros((64, 4)), SETS["range"], np.zeros((64, 1))),
            ValueError,
            "bias must be [vocab] with vocab = 64, the vocab_size of allowed, got shape (64, 1)",
        ),
        (
            lambda: PartialHead(np.zeros((64, 4)), SETS["range"], torch.zeros(64)),
            TypeError,
            "bias is of torch but weight of numpy; convert bias to numpy",
        ),
        (
            lambda: PartialHead(np.zeros((64, 4)), AllowedSet([], 64)),
            ValueError,
            "allowed is empty; a head needs at least one token",
        ),
        (
            lambda: PartialHead(np.zeros((64, 4)), SETS["range"], vocab_axis=2),
            ValueError,
            "vocab_axis must be 0 or 1, got 2",
        ),
        (
            lambda: PartialHead.from_module(torch.nn.ReLU(), SETS["range"]),
            TypeError,
            "ReLU has no floating-point weight; pass PartialHead(weight, allowed, scale=…)",
        ),
        (
            lambda: PartialHead(np.ones((64, 4), "i1"), SETS["range"], scale=np.ones((64, 3)))(
                np.ones((1, 4))
            ),
            ValueError,
            "scale has 3 groups, which do not divide hidden = 4",
        ),
    ],
)
def test_errors(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        make()
    assert str(raised.value) == message
