"""Tokens with compaction equal tokens without, and those of a loop that has neither batch nor cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.decode.decoding import (
    CACHE,
    CODES,
    EOS,
    GUIDED,
    LIMITS,
    MIXED,
    PROMPTS,
    SHAPE,
    VOCAB,
    config,
    mamba,
    one_by_one,
    qwen3,
    same,
)
from tests.thorough import combinations

from rollkit.decode import AllowedSet, _hf
from rollkit.decode import cache as cache_module
from rollkit.decode._arguments import _mix, own_seeds
from rollkit.decode._cached import cache_name
from rollkit.decode.active import Plan
from rollkit.decode.generate import Phase, Progress, generate


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request: Any) -> Any:
    return qwen3(getattr(torch, request.param))


@pytest.fixture(scope="module")
def exact() -> Any:
    return qwen3()


@pytest.mark.parametrize(("prompts", "limits", "guided"), combinations(PROMPTS, LIMITS, [False, True]))
def test_compaction_changes_no_token(model: Any, prompts: str, limits: str, guided: bool) -> None:
    options: dict[str, Any] = {"max_new_tokens": LIMITS[limits], "allowed": CODES, "seeds": 3, "crop": False}
    options |= GUIDED if guided else {}
    wanted = generate(model, PROMPTS[prompts], compaction=False, **options)
    same(generate(model, PROMPTS[prompts], **options), wanted)
    same(generate(model, PROMPTS[prompts], slack=0.4, **options), wanted)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("prompts", PROMPTS)
def test_cropped_padding_changes_no_token(exact: Any, prompts: str, guided: bool) -> None:
    options: dict[str, Any] = {"max_new_tokens": LIMITS["end"], "allowed": CODES, "seeds": 3}
    options |= GUIDED if guided else {}
    prompt = PROMPTS[prompts]
    same(generate(exact, prompt, **options), generate(exact, prompt, compaction=False, **options))


@pytest.mark.parametrize("guided", [False, True])
def test_a_cache_whose_rows_do_not_follow_would_show(
    exact: Any, guided: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's tokens depend on the cache, so that the tests above mean something."""
    options: dict[str, Any] = {"max_new_tokens": LIMITS["front"], "allowed": CODES, "seeds": 3}
    options |= GUIDED if guided else {}
    wanted = generate(exact, MIXED, **options)
    right = cache_module.compact

    def consecutive(cache: Any, plan: Plan) -> Any:
        if isinstance(cache, list):
            return right(cache, plan)
        first = Plan(np.arange(len(plan.keep)), plan.moves[:0], plan.bucket, 0, plan.before)
        return right(cache, first)

    monkeypatch.setattr(_hf, "compact", consecutive)
    found = generate(exact, MIXED, **options)
    pairs = zip(found["response_ids"].to_list(), wanted["response_ids"].to_list(), strict=True)  # type: ignore[union-attr]
    assert sum(got != want for got, want in pairs) > 2


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("prompts", PROMPTS)
def test_equals_a_loop_without_batch_or_cache(exact: Any, prompts: str, guided: bool) -> None:
    seeds = list(range(50, 58))
    options: dict[str, Any] = GUIDED if guided else {}
    found = generate(
        exact, PROMPTS[prompts], max_new_tokens=12, allowed=CODES, top_p=0.9, seeds=seeds, **options
    )
    uncond = options.get("uncond")
    wanted = [
        one_by_one(exact, prompt, uncond, seed, 12)
        for prompt, seed in zip(PROMPTS[prompts], seeds, strict=True)
    ]
    assert found["response_ids"].to_list() == wanted  # type: ignore[union-attr]


def test_greedy_equals_transformers(exact: Any) -> None:
    prompts = [[5, 6, 7], [8, 9, 10]]
    mask = torch.ones(2, 3, dtype=torch.long)
    wanted = exact.generate(
        torch.tensor(prompts), attention_mask=mask, do_sample=False, max_new_tokens=10, pad_token_id=0
    )[:, 3:]
    found = generate(exact, prompts, max_new_tokens=10, temperature=0)
    for row, want in zip(found["response_ids"], wanted.tolist(), strict=True):
        assert row.tolist() == want[: len(row)]


def test_the_order_of_prompts_changes_no_token(exact: Any) -> None:
    seeds = np.arange(8)
    options: dict[str, Any] = {"max_new_tokens": 12, "allowed": CODES}
    whole = generate(exact, MIXED, seeds=seeds, **options)
    reverse = generate(exact, MIXED[::-1], seeds=seeds[::-1].copy(), **options)
    same(reverse.take(np.arange(8)[::-1]), whole)
    same(generate(exact, MIXED[3:5], seeds=seeds[3:5], **options), whole.take([3, 4]))


def test_what_comes_back(exact: Any) -> None:
    out = generate(exact, MIXED, max_new_tokens=30, allowed=CODES, seeds=1, temperature=4.0)
    assert out["prompt_token_ids"].to_list() == MIXED  # type: ignore[union-attr]
    for row, scores, reason in zip(
        out["response_ids"], out["rollout_logprobs"], out["stop_reasons"], strict=True
    ):
        assert len(row) == len(scores) <= 30
        assert all(int(token) in CODES for token in row)
        assert (reason == "stop") == (row[-1] == EOS)
        assert (scores <= 0).all()
    assert "stop" in list(out["stop_reasons"])
    assert len(generate(exact, [], max_new_tokens=3)) == 0


def test_phases_have_their_own_vocabulary_and_guidance(exact: Any) -> None:
    text = AllowedSet(range(10, 30), VOCAB)
    phases = [
        Phase(text, until=(12,), max_tokens=6, sampling={"temperature": 4.0, "cfg_scale": 1.0}),
        Phase(CODES, sampling={"cfg_scale": 2.0, "top_k": 5}),
    ]
    options: dict[str, Any] = {"phases": phases, "uncond": [3], "seeds": 6, "max_new_tokens": 20}
    out = generate(exact, MIXED, **options)
    switched = set()
    for row in out["response_ids"]:
        first = next((i + 1 for i, token in enumerate(row) if token == 12), 6)
        first = min(first, 6)
        switched.add(first)
        assert all(int(token) in text for token in row[:first])
        assert all(int(token) in CODES for token in row[first:])
    assert len(switched) > 1
    same(generate(exact, MIXED, compaction=False, **options), out)
    last = generate(exact, MIXED, phases=[Phase(text, until=(12,), max_tokens=4)], max_new_tokens=9)
    for row, reason in zip(last["response_ids"], last["stop_reasons"], strict=True):
        assert (reason == "stop") == (row[-1] == 12)
        assert len(row) == 4 or reason == "stop"


def test_streaming_and_progress(exact: Any) -> None:
    streams: list[list[int]] = [[] for _ in MIXED]
    seen: list[Progress] = []

    def on_tokens(slots: Any, tokens: Any) -> None:
        for slot, token in zip(slots, tokens, strict=True):
            streams[slot].append(int(token))

    out = generate(
        exact,
        MIXED,
        max_new_tokens=20,
        allowed=CODES,
        on_tokens=on_tokens,
        on_progress=seen.append,
        progress_every=5,
        **GUIDED,
    )
    assert streams == out["response_ids"].to_list()  # type: ignore[union-attr]
    assert [report.step % 5 for report in seen[:-1]] == [0] * (len(seen) - 1)
    assert seen[-1].active == 0
    assert seen[-1].finished == 8
    assert seen[-1].emitted == sum(map(len, streams))


@pytest.mark.parametrize("guided", [False, True])
def test_cancel(exact: Any, guided: bool) -> None:
    steps = iter(range(100))

    def some() -> list[int]:
        return [1, 6] if next(steps) == 3 else []

    options: dict[str, Any] = {"max_new_tokens": 9, "allowed": CODES, **(GUIDED if guided else {})}
    whole = generate(exact, MIXED, **options)
    out = generate(exact, MIXED, cancel=some, **options)
    for slot, (row, want) in enumerate(
        zip(out["response_ids"].to_list(), whole["response_ids"].to_list(), strict=True)  # type: ignore[union-attr]
    ):
        assert row == (want[:3] if slot in (1, 6) else want)
    assert out["stop_reasons"][1] in ("cancelled", "stop")
    stopped = generate(exact, MIXED, cancel=lambda: True, **options)
    assert list(stopped["stop_reasons"]) == ["cancelled"] * 8
    assert stopped["response_ids"].to_list() == [[]] * 8  # type: ignore[union-attr]


def test_progress_is_told_at_the_end_of_what_is_cancelled(exact: Any) -> None:
    for steps in (0, 3):
        seen: list[Progress] = []
        stop = iter([False] * steps + [True]).__next__
        options: dict[str, Any] = {"max_new_tokens": 9, "allowed": CODES, "on_progress": seen.append}
        out = generate(exact, MIXED[:3], cancel=stop, **options)
        assert [report.step for report in seen] == [steps]
        assert (seen[0].active, seen[0].finished) == (0, 3)
        assert seen[0].emitted == out["response_ids"].lengths.sum()  # type: ignore[union-attr]


def test_until_and_phases_may_be_read_only_once(exact: Any) -> None:
    ends = (token for token in range(100, 140))
    phase = Phase(CODES, until=ends)  # type: ignore[arg-type]
    assert phase.until == tuple(range(100, 140))
    phases: Any = (one for one in [phase])
    out = generate(exact, MIXED[:3], max_new_tokens=9, phases=phases)
    assert [len(row) for row in out["response_ids"]] == [1, 1, 1]
    assert list(out["stop_reasons"]) == ["stop"] * 3


def test_nan_is_named_or_stops_its_sequence(exact: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = _hf.Model.logits

    def broken(self: Any, allowed: Any, rows: Any) -> Any:
        found = right(self, allowed, rows).clone()
        if len(rows) == 8:
            found[2, 0] = torch.nan
        return found

    monkeypatch.setattr(_hf.Model, "logits", broken)
    with pytest.raises(FloatingPointError, match="logits of sequence 2 are nan at token 0"):
        generate(exact, MIXED, max_new_tokens=4, allowed=CODES)
    seen: list[Progress] = []
    out = generate(
        exact,
        MIXED,
        max_new_tokens=4,
        allowed=CODES,
        on_bad="stop",
        on_progress=seen.append,
        progress_every=1,
    )
    assert [report.emitted for report in seen][:1] == [7]
    assert seen[-1].emitted == out["response_ids"].lengths.sum()  # type: ignore[union-attr]
    assert out["stop_reasons"][2] == "nan"
    assert len(out["response_ids"][2]) == 0
    assert len(out["response_ids"][3]) > 0


def _small(kind: Any, options: Any) -> Any:
    torch.manual_seed(0)
    return kind(options).eval()


SMALL: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2}


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_factors_of_logits_are_the_models_own(factor: float) -> None:
    for name in ("HyperCLOVAX", "Granite"):
        if not hasattr(transformers, f"{name}Config"):
            continue  # HyperCLOVA X is not in the oldest transformers
        kind, options = (getattr(transformers, name + end) for end in ("ForCausalLM", "Config"))
        shape = {name: value for name, value in SHAPE.items() if name != "head_dim"}
        model = _small(kind, options(**shape, logits_scaling=factor))
        found = generate(model, MIXED[:2], max_new_tokens=6, allowed=CODES, top_p=0.9, seeds=[5, 6])
        wanted = [one_by_one(model, prompt, None, 5 + i, 6) for i, prompt in enumerate(MIXED[:2])]
        assert found["response_ids"].to_list() == wanted  # type: ignore[union-attr]


class Louder(transformers.Qwen3ForCausalLM):  # type: ignore[no-untyped-call]
    """A model whose factor no configuration names."""

    def forward(self, *args: Any, **options: Any) -> Any:
        out = super().forward(*args, **options)
        out.logits = out.logits * 1.5
        return out


class Forgetful(transformers.Qwen3Model):  # type: ignore[no-untyped-call]
    """A decoder that returns the cache it was given, unused."""

    def forward(self, *args: Any, **options: Any) -> Any:
        cache = options.pop(CACHE, None)
        out = super().forward(*args, **{**options, "use_cache": False})
        setattr(out, CACHE, cache)
        return out


class Restarting(transformers.Qwen3Model):  # type: ignore[no-untyped-call]
    """One that returns a new cache each time."""

    def forward(self, *args: Any, **options: Any) -> Any:
        return super().forward(*args, **{**options, CACHE: None})


class Failing(transformers.Qwen3Model):  # type: ignore[no-untyped-call]
    """One that asks too much of the cache it is given."""

    def forward(self, *args: Any, **options: Any) -> Any:
        raise ValueError("no such layer")


class Blind(transformers.Qwen3Model):  # type: ignore[no-untyped-call]
    """One that takes padding for tokens."""

    def forward(self, *args: Any, **options: Any) -> Any:
        return super().forward(*args, **{**options, "attention_mask": None})


def decoding_with(kind: Any) -> Any:
    model = qwen3()
    model.model.__class__ = kind
    return model


OTHERS: dict[str, tuple[Any, Any, str]] = {
    "a factor": (lambda: _small(Louder, config()), ValueError, "Louder makes its logits otherwise than"),
    "a cache unused": (lambda: decoding_with(Forgetful), TypeError, "Forgetful returns an empty cache, so"),
    "another cache": (
        lambda: decoding_with(Restarting),
        TypeError,
        f"Restarting does not go on from the {CACHE} it is given, so that rows cannot leave",
    ),
    "an error": (
        lambda: decoding_with(Failing),
        TypeError,
        r"Qwen3ForCausalLM cannot be read with padding and a cache \(no such layer\)",
    ),
    "padding seen": (
        lambda: decoding_with(Blind),
        ValueError,
        "gives other logits where it goes on from its cache, with padding",
    ),
    "a transform": (
        lambda: _small(
            transformers.BertLMHeadModel,
            transformers.BertConfig(
                **SMALL, intermediate_size=64, num_attention_heads=4, is_decoder=True, initializer_range=0.3
            ),
        ),
        (TypeError, ValueError),  # before transformers 5 it is its own decoder, without hidden states
        "BertLMHeadModel (makes its logits otherwise than by its head|cannot be read with padding)",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_works_otherwise_is_refused(name: str, dtype: torch.dtype) -> None:
    make, error, message = OTHERS[name]
    model = make().to(dtype)
    for _ in range(2):
        with pytest.raises(error, match=message) as caught:
            generate(model, [[1, 2, 3, 4]], max_new_tokens=2, allowed=CODES)
        assert "rollkit.compat.transformers" in str(caught.value)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("prompts", ["mixed", "prefix"])
def test_states_alone_work_or_are_refused(prompts: str, guided: bool) -> None:
    model = mamba()
    options: dict[str, Any] = {
        "allowed": CODES,
        "top_p": 0.9,
        "seeds": range(50, 54),
        **(GUIDED if guided else {}),
    }
    if cache_name(model) is None:  # before transformers 5.24
        with pytest.raises(
            TypeError, match="MambaForCausalLM takes no cache or past_key_values, so that rows"
        ):
            generate(model, PROMPTS[prompts][:4], max_new_tokens=8, **options)
        return
    found = generate(model, PROMPTS[prompts][:4], max_new_tokens=8, **options)
    uncond = options.get("uncond")
    wanted = [one_by_one(model, prompt, uncond, 50 + i, 8) for i, prompt in enumerate(PROMPTS[prompts][:4])]
    assert found["response_ids"].to_list() == wanted  # type: ignore[union-attr]


class Recomputing(transformers.Qwen3Model):  # type: ignore[no-untyped-call]
    """One whose cache is off while it trains, as all were before transformers 5.24."""

    is_activation_checkpointing = True

    def forward(self, *args: Any, **options: Any) -> Any:
        off = {CACHE: None, "use_cache": False} if self.training else {}
        return super().forward(*args, **{**options, **off})


def test_a_model_whose_cache_is_off_says_how_to_switch_it_on() -> None:
    model = decoding_with(Recomputing)
    generate(model, [[1, 2]], max_new_tokens=2, allowed=CODES)
    with pytest.raises(TypeError, match=r"call model.eval\(\), or switch gradient checkpointing off"):
        generate(model.train(), [[1, 2]], max_new_tokens=2, allowed=CODES)


@pytest.mark.filterwarnings("ignore")  # that checkpointing switches the cache off
def test_a_model_that_is_checkpointed_draws_the_same_or_is_refused() -> None:
    model = qwen3()
    wanted = generate(model, MIXED, max_new_tokens=4, allowed=CODES)
    model.gradient_checkpointing_enable()
    same(generate(model, MIXED, max_new_tokens=4, allowed=CODES), wanted)
    try:
        found = generate(model.train(), MIXED, max_new_tokens=4, allowed=CODES)
    except TypeError as error:
        assert "call model.eval(), or switch gradient checkpointing off" in str(error)  # noqa: PT017
    else:
        same(found, wanted)


def test_a_model_is_checked_once_and_left_as_it_was() -> None:
    model = qwen3().train()
    model.model.layers[1].eval()
    flags = [module.training for module in model.modules()]
    calls: list[Any] = []
    model.register_forward_hook(lambda module, given, out: calls.append(out))
    for seed in range(3):
        generate(model, [[1], [2]], max_new_tokens=2, allowed=CODES, seeds=seed)
    assert [len(call.logits) for call in calls] == [1]
    assert [module.training for module in model.modules()] == flags
    assert not model.model._forward_hooks


LONG = [int(k) for k in np.random.default_rng(9).integers(0, VOCAB, 40)]


@pytest.mark.parametrize(
    ("uncond", "shapes"),
    [
        ([3, 4], [(1, 40), (5, 11)]),  # too short to have a beginning of its own
        (LONG[:30], [(2, 40), (5, 11)]),
        ([[*LONG[:20], i] for i in range(4)], [(2, 40), (8, 11)]),
        ([[*LONG, 1 + i] for i in range(4)], [(1, 40), (8, 11)]),  # the same beginning
        ([[i, *LONG] for i in range(4)], [(8, 51)]),  # what they would add to the cache is too much
    ],
    ids=["short", "one", "several", "same", "none"],
)
def test_beginnings_are_read_once_under_guidance(
    exact: Any, uncond: Any, shapes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [[*LONG, *tail] for tail in MIXED[:4]]
    assert max(map(len, prompts)) == 51
    wanted = []
    for i, prompt in enumerate(prompts):
        own = uncond if isinstance(uncond[0], int) else uncond[i]
        wanted.append(one_by_one(exact, prompt, own, 50 + i, 6))
    generate(exact, [[1]], max_new_tokens=1, allowed=CODES)  # the check reads too
    seen = []
    right = _hf.Model._forward

    def forward(self: Any, tokens: Any, *more: Any) -> Any:
        seen.append(tokens.shape)
        return right(self, tokens, *more)

    monkeypatch.setattr(_hf.Model, "_forward", forward)
    options: dict[str, Any] = {"allowed": CODES, "top_p": 0.9, "uncond": uncond, "cfg_scale": 1.5}
    for cache in ("dynamic", "static"):
        seen.clear()
        found = generate(exact, prompts, max_new_tokens=6, seeds=range(50, 54), cache=cache, **options)
        assert found["response_ids"].to_list() == wanted  # type: ignore[union-attr]
        assert [shape for shape in seen if shape[1] > 1] == shapes


def test_each_sequence_of_each_seed_has_its_own() -> None:
    apart = [0, 1, -1, 5, 5 << 32, 2**31, 2**32, 2**62, -(2**63), 2**63 - 1]
    found = np.concatenate([own_seeds(seed, 1000) for seed in apart])
    assert found.dtype == np.int64
    assert len(np.unique(found)) == len(found)
    # The second output of a generator that starts at the first output of one at 0, as Java has them.
    first = 0xE220A8397B1DCDAF
    assert int(own_seeds(0, 1)[0]) % 2**64 == int(_mix(np.array([first], np.uint64))[0])
    assert int(_mix(np.array([0], np.uint64))[0]) == first
    np.testing.assert_array_equal(own_seeds(np.int64(7), 3), own_seeds(7, 5)[:3])
    np.testing.assert_array_equal(own_seeds([3, 4], 2), [3, 4])


@pytest.mark.filterwarnings("ignore")  # PEFT's own
@torch.no_grad()
def test_a_model_with_adapters_draws_what_it_says_itself() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(target_modules=["lm_head", "q_proj"], r=4)
    model = peft.get_peft_model(qwen3(torch.float32), config).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_()
    prompt = [[1, 2, 3, 4, 5]]

    def both() -> tuple[list[int], list[int]]:
        own = model.generate(input_ids=torch.tensor(prompt), max_new_tokens=8, do_sample=False)
        found = generate(model, prompt, max_new_tokens=8, temperature=0.0)
        return found.ragged("response_ids").to_list()[0], own[0, 5:].tolist()

    adapted, wanted = both()
    assert adapted == wanted
    with model.disable_adapter():
        plain, wanted = both()
    assert plain == wanted
    assert plain != adapted
