"""What models call their cache: stand-ins for each name, so that one transformers is enough to try all."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tests.decode.decoding import CACHE, CODES, GUIDED, MIXED, mamba, qwen3

from rollkit.compat.transformers import AllowedLogits, Sampler
from rollkit.decode._cached import Cached, cache_name
from rollkit.decode.generate import generate

PROMPTS = [[1, 2, 3], [4, 5, 6], [9, 8, 7]]
UNCOND = [[3, 4]] * 3


class Stand(torch.nn.Module):
    """A model around one of the installed transformers."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def read(self, name: str, cache: Any, **inputs: Any) -> Any:
        """Read with a cache, and return it by a name."""
        out = self.inner(**inputs, **{CACHE: cache})
        found = {part: getattr(out, part, None) for part in ("logits", "last_hidden_state")}
        return SimpleNamespace(**found, **{name: getattr(out, CACHE)})


class New(Stand):
    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        cache: Any = None,
        use_cache: Any = None,
        **ignored: Any,
    ) -> Any:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        return self.read("cache", cache, use_cache=use_cache, **inputs)


class Old(Stand):
    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        use_cache: Any = None,
        **ignored: Any,
    ) -> Any:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        return self.read("past_key_values", past_key_values, use_cache=use_cache, **inputs)


class Remote(Old):
    """A model's own code, with an old name, that fills an output of a newer transformers."""

    def read(self, name: str, cache: Any, **inputs: Any) -> Any:
        return super().read("cache", cache, **inputs)


class Passing(Stand):
    """A wrapper that says nothing of what it takes."""

    def forward(self, *args: Any, **options: Any) -> Any:
        return self.inner(*args, **options)


class Sub(New):
    """A subclass that says nothing of what it takes."""

    def forward(self, *args: Any, **options: Any) -> Any:
        return super().forward(*args, **options)


def unnamed(forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **options: forward(*args, **options)


class Decorated(New):
    """As a decorator leaves it that does not say what it wraps."""

    forward = unnamed(New.forward)


class Swallowing(Stand):
    """One that takes any name, and makes a cache of its own each time: 5.40, asked for past_key_values."""

    def forward(self, input_ids: Any = None, use_cache: Any = None, **ignored: Any) -> Any:
        return self.read(CACHE, None, input_ids=input_ids, use_cache=use_cache)


class Idle(Stand):
    """One that returns the cache it was given, and never wrote to it."""

    def forward(self, input_ids: Any = None, cache: Any = None, **ignored: Any) -> Any:
        out = self.read(CACHE, None, input_ids=input_ids)
        out.cache = cache or transformers.DynamicCache(config=self.inner.config)
        return out


class Silent(Stand):
    """One that returns none."""

    def forward(self, input_ids: Any = None, cache: Any = None, **ignored: Any) -> Any:
        return self.read("cache", cache, input_ids=input_ids, use_cache=False)


GOING_ON: dict[str, Callable[[Any], Any]] = {
    "new": New,
    "old": Old,
    "remote code": Remote,
    "wrapped new": lambda inner: Passing(New(inner)),
    "wrapped old": lambda inner: Passing(Passing(Old(inner))),
    "subclass": Sub,
    "decorated": Decorated,
}
REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "swallowed": (Swallowing, f"Swallowing does not go on from the {CACHE} it is given, so that "),
    "wrapped": (
        lambda inner: Passing(Swallowing(inner)),
        f"Passing does not go on from the {CACHE} it is given, so that ",
    ),
    "not written": (Idle, "Idle returns an empty cache, so that "),
    "not returned": (Silent, "Silent returns no cache, so that "),
    "not taken": (lambda inner: torch.nn.Identity(), "Identity takes no cache or past_key_values, so that "),
}


@pytest.fixture(scope="module")
def model() -> Any:
    return qwen3(pad_token_id=0)


def guided(model: Any, branch: Any, process: Any = Sampler, **more: Any) -> list[list[int]]:
    """Decode with a model, and another for the unconditional branch."""
    tokens = torch.tensor(PROMPTS)
    found = process(CODES, cfg_scale=1.5, model=branch, unconditional_ids=torch.tensor(UNCOND), **more)
    out: Any = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=8,
        do_sample=False,
        logits_processor=transformers.LogitsProcessorList([found]),
        pad_token_id=0,
    )
    return out[:, 3:].tolist()  # type: ignore[no-any-return]


def decoding_with(decoder: Callable[[Any], Any]) -> Any:
    """Return a model that `generate` reads with another decoder."""
    model = qwen3()
    found = decoder(model.model)
    model.get_decoder = lambda: found
    return model


@pytest.mark.parametrize("process", [AllowedLogits, Sampler])
@pytest.mark.parametrize("name", GOING_ON)
def test_guidance_goes_on_by_any_name(model: Any, name: str, process: Any) -> None:
    assert guided(model, GOING_ON[name](model), process) == guided(model, model, process)


@pytest.mark.parametrize("options", [{}, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("name", GOING_ON)
def test_generate_goes_on_by_any_name(model: Any, name: str, options: dict[str, Any]) -> None:
    options = {"max_new_tokens": 8, "allowed": CODES, "seeds": 3, **options}
    found = generate(decoding_with(GOING_ON[name]), MIXED, **options)
    wanted = generate(model, MIXED, **options)
    assert found["response_ids"].to_list() == wanted["response_ids"].to_list()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", REFUSED)
def test_what_was_read_is_never_lost_without_a_word(model: Any, name: str) -> None:
    make, message = REFUSED[name]
    for process in (AllowedLogits, Sampler):
        with pytest.raises(TypeError, match=message + "guidance would lose what the uncond"):
            guided(model, make(model), process)
    with pytest.raises(TypeError, match=message + "rows cannot leave the batch; use the model's own"):
        generate(decoding_with(make), MIXED, max_new_tokens=4, allowed=CODES)


@pytest.mark.filterwarnings("ignore")  # that checkpointing switches the cache off
def test_a_branch_that_is_checkpointed_guides_the_same_or_is_refused(model: Any) -> None:
    branch = qwen3().train()
    branch.gradient_checkpointing_enable()
    try:
        found = guided(model, branch)
    except TypeError as error:
        assert "call model.eval(), or switch gradient checkpointing off" in str(error)  # noqa: PT017
    else:
        assert found == guided(model, model)


def test_names_are_seen_through_what_is_put_around_a_model(model: Any) -> None:
    assert cache_name(model) == CACHE
    assert cache_name(torch.compile(Old(model))) == "past_key_values"
    assert cache_name(torch.nn.DataParallel(New(model))) == "cache"
    assert cache_name(functools.partial(Old(model).forward, use_cache=True)) == "past_key_values"
    assert cache_name(functools.wraps(Old.forward)(lambda *args, **options: None)) == "past_key_values"
    assert cache_name(torch.nn.Sequential(New(model))) is None  # it passes no keywords on
    assert cache_name(lambda **options: None) is None


@pytest.mark.filterwarnings("ignore")  # PEFT's own
def test_names_are_seen_through_adapters() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj"], r=2, task_type="CAUSAL_LM")
    assert cache_name(peft.get_peft_model(qwen3(), config)) == CACHE


def test_a_mask_of_what_was_read_is_for_columns_alone() -> None:
    """Mamba multiplies tokens by the mask: for its states they are all that it may be of."""
    branch = mamba()
    if cache_name(branch) is None:
        pytest.skip("Mamba takes no cache by that name before transformers 5.24")
    tokens = torch.tensor([[0, 0, 5, 6, 7], [1, 2, 3, 4, 5]])
    mask, places = (tokens > 0).long(), (tokens > 0).long()
    step = Cached(branch, so_that="", instead="")
    with torch.no_grad():
        _, cache = step(None, input_ids=tokens[:, :4], attention_mask=mask[:, :4], position_ids=places)
        out, _ = step(cache, input_ids=tokens[:, 4:], attention_mask=mask, position_ids=places)
        wanted = branch(tokens[:1, 2:]).logits[:, -1]
    assert out.logits.shape[1] == 1
    torch.testing.assert_close(out.logits[:1, -1], wanted)
