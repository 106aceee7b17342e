from __future__ import annotations

import copy
import pickle
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


class Adapted(torch.nn.Module):
    """The attributes of PEFT's LoRA layers that matter."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.base_layer: Any = torch.nn.Linear(HIDDEN, 64, dtype=dtype)
        self.lora_A = torch.nn.ModuleDict({"x": torch.nn.Linear(HIDDEN, 4, bias=False)})
        self.lora_B = torch.nn.ModuleDict({"x": torch.nn.Linear(4, 64, bias=False)})
        self.lora_embedding_A, self.lora_embedding_B = torch.nn.ParameterDict(), torch.nn.ParameterDict()
        self.scaling = {"x": 0.25}
        self.active_adapters = ["x", "of another layer"]
        self.merged = self.disable_adapters = False
        self.use_dora, self.lora_variant = {"x": False}, dict[str, Any]()

    def forward(self, hidden: Any) -> Any:
        result = self.base_layer(hidden)
        if self.merged or self.disable_adapters:
            return result
        more = self.lora_B["x"](self.lora_A["x"](hidden.to(torch.float32))) * self.scaling["x"]
        return (result + more).to(result.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_adds_adapters_of_peft(dtype: torch.dtype) -> None:
    module = Adapted(dtype)
    hidden = torch.randn(2, HIDDEN, dtype=dtype)
    head = PartialHead.from_module(module, SETS["window"])
    columns = SETS["window"].ids.tolist()

    def check() -> None:
        torch.testing.assert_close(head(hidden), module(hidden)[:, columns])
        again = PartialHead.from_module(module, SETS["window"])(hidden)
        torch.testing.assert_close(again, module(hidden)[:, columns])

    check()
    module.merged = True
    check()
    module.merged, module.disable_adapters = False, True
    check()
    module.disable_adapters = False
    module.scaling = {"x": 2.0}
    check()
    other = Adapted(dtype).state_dict()
    module.load_state_dict(other, assign=True)
    check()


def test_a_head_of_a_module_can_be_copied_and_has_no_gradient() -> None:
    module, hidden = Adapted(), torch.randn(2, HIDDEN)
    head = PartialHead.from_module(module, SETS["holes"])
    wanted = head(hidden)
    assert not wanted.requires_grad
    for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        torch.testing.assert_close(other(hidden), wanted)
        with torch.no_grad():
            module.base_layer.weight.add_(1)  # not its own
        torch.testing.assert_close(other(hidden), wanted)
        with torch.no_grad():
            module.base_layer.weight.sub_(1)


@torch.no_grad()
def test_adds_adapters_of_embeddings() -> None:
    module = Adapted()
    module.base_layer = torch.nn.Embedding(64, HIDDEN)
    module.lora_A = torch.nn.ModuleDict()
    module.lora_embedding_A["x"] = torch.nn.Parameter(torch.randn(4, 64))
    module.lora_embedding_B["x"] = torch.nn.Parameter(torch.randn(HIDDEN, 4))
    hidden = torch.randn(2, HIDDEN)
    delta = (module.lora_embedding_B["x"] @ module.lora_embedding_A["x"]).T * 0.25
    wanted = hidden @ (module.base_layer.weight + delta).T
    head = PartialHead.from_module(module, SETS["holes"])
    torch.testing.assert_close(head(hidden), wanted[:, SETS["holes"].ids.tolist()])
    rows = head._b[0].get()
    head(hidden)
    assert head._b[0].get() is rows, "sliced once"


@pytest.mark.filterwarnings("ignore")  # PEFT's own
@torch.no_grad()
def test_equals_peft() -> None:
    peft = pytest.importorskip("peft")
    from tests.decode.decoding import VOCAB, qwen3

    allowed = AllowedSet([1, 5, range(9, 30)], VOCAB)
    for dtype in (torch.float32, torch.bfloat16):
        model = peft.get_peft_model(qwen3(dtype), peft.LoraConfig(target_modules=["lm_head"], r=4))
        module = model.base_model.model.lm_head
        module.lora_B["default"].weight.normal_()
        hidden = torch.randn(3, 32, dtype=dtype)
        head = PartialHead.from_module(module, allowed)
        torch.testing.assert_close(head(hidden), module(hidden)[:, allowed.ids.tolist()])
        with model.disable_adapter():
            torch.testing.assert_close(head(hidden), module(hidden)[:, allowed.ids.tolist()])


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


@pytest.mark.parametrize("allowed", SETS.values(), ids=SETS)
@torch.no_grad()
def test_follows_a_module_whose_weight_is_another(allowed: AllowedSet) -> None:
    lm_head = torch.nn.Linear(HIDDEN, 64)
    head = PartialHead.from_module(lm_head, allowed)
    hidden, index = torch.randn(2, HIDDEN), allowed.ids.tolist()
    head(hidden)
    lm_head.load_state_dict(torch.nn.Linear(HIDDEN, 64).state_dict(), assign=True)
    torch.testing.assert_close(head(hidden), lm_head(hidden)[:, index])
    for _ in range(20):  # memory that is given back is where the next weight goes
        lm_head.weight = torch.nn.Parameter(torch.randn(64, HIDDEN))
        torch.testing.assert_close(head(hidden), lm_head(hidden)[:, index])
    lm_head.weight = torch.nn.Parameter(torch.randn(65, HIDDEN))
    with pytest.raises(ValueError, match=r"weight must have shape \(64, 16\), got \(65, 16\)"):
        head(hidden)


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("allowed", SETS.values(), ids=SETS)
def test_what_is_kept_from_inference_mode_can_be_trained_with(allowed: AllowedSet, quantised: bool) -> None:
    scale = torch.ones(64) if quantised else None
    head = PartialHead(torch.randn(64, HIDDEN), allowed, scale=scale)
    with torch.inference_mode():
        head(torch.randn(2, HIDDEN))
    hidden = torch.randn(2, HIDDEN, requires_grad=True)
    head(hidden).sum().backward()
    assert hidden.grad is not None


@pytest.mark.parametrize("allowed", SETS.values(), ids=SETS)
def test_slices_what_inference_mode_made(allowed: AllowedSet) -> None:
    with torch.inference_mode():
        lm_head = torch.nn.Linear(HIDDEN, 64)
    head = PartialHead.from_module(lm_head, allowed)
    hidden = torch.randn(2, HIDDEN)
    for mode in (torch.inference_mode(), torch.no_grad()):
        with mode:
            torch.testing.assert_close(head(hidden), lm_head(hidden)[:, allowed.ids.tolist()])


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("weight", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("hidden", ["float32", "bfloat16"])
def test_logits_have_the_wider_dtype(name: str, weight: str, hidden: str) -> None:
    make = framework(name)
    quantised = weight == "int8"

    def cast(array: Any, dtype: str) -> Any:
        if name == "torch":
            return make(array).to(getattr(torch, dtype))
        return make(array).astype(jnp.dtype(dtype))

    scale = cast(np.ones(64, np.float32), "bfloat16") if quantised else None
    bias = cast(normal(64), "float32")
    lora = LoRA(cast(normal(4, HIDDEN), "float32"), cast(normal(64, 4), "float32"))
    head = PartialHead(cast(normal(64, HIDDEN), weight), SETS["window"], bias, scale=scale, lora=lora)
    given = cast(normal(2, HIDDEN), hidden)
    wanted = "bfloat16" if hidden == "bfloat16" and weight != "float32" else "float32"
    assert str(head(given).dtype).removeprefix("torch.") == wanted
    if name == "jax":
        assert jax.jit(lambda head, given: head(given))(head, given).dtype == wanted


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
            "weight is of numpy, bias of torch; convert one: bias = np.asarray(bias)",
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
