"""Every refusal of the decode loops, as in test_errors.py: what was asked, the error, its message."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from tests.decode.decoding import CACHE, CODES, SLIDING, VOCAB, config, qwen3
from tests.house.refusals import check_refusal

import rollkit.decode
import rollkit.decode.jax_driver
from rollkit.compat import transformers as compat
from rollkit.decode import AllowedSet, _hf

# Arguments of wrong types are what this file is about.
ActiveBatch: Any = rollkit.decode.ActiveBatch
AllowedLogits: Any = compat.AllowedLogits
Phase: Any = rollkit.decode.Phase
Sampler: Any = compat.Sampler
compact: Any = rollkit.decode.compact
crop_padding: Any = rollkit.decode.crop_padding
select: Any = rollkit.decode.select
PartialHead: Any = rollkit.decode.PartialHead
Kept: Any = rollkit.decode.Kept
cfg: Any = rollkit.decode.cfg
uniforms: Any = rollkit.decode.uniforms
LoRA: Any = rollkit.decode.head.LoRA

MODEL = qwen3()
WINDOWS = qwen3(**SLIDING)
PLAN = ActiveBatch(3).finish([True, False, False])
FROZEN = np.zeros((3, 2))
FROZEN.flags.writeable = False
STATE: Any = jnp.arange(3)
WEIGHT: Any = np.ones((6, 2), np.float32)
SET = AllowedSet([1, 4], 6)
ROWS: Any = np.ones((2, 4), np.float32)
KEPT: Any = Kept(np.array([0, 2, 3], np.int32), np.array([0, 2, 3]))
IDS: Any = torch.tensor([[1, 2]])


def generate(prompts: Any = ((1,), (2,)), model: Any = MODEL, **options: Any) -> Any:
    return rollkit.decode.generate(model, prompts, **{"max_new_tokens": 2, **options})


def static(length: int) -> Any:
    return lambda columns: transformers.StaticCache(config=config(), max_cache_len=length)


def used(columns: int) -> Any:
    cache = transformers.DynamicCache(config=config())
    MODEL(IDS, **{CACHE: cache})
    return cache


class Quantised:
    """A layer as those of transformers' QuantizedCache, which another version has of other kinds."""

    def _quantize(self, tensor: Any) -> None: ...


def quantised(columns: int) -> Any:
    return SimpleNamespace(layers=[Quantised()], update=None, get_seq_length=lambda: 0)


def sample(cond: Any = ROWS, *more: Any, **options: Any) -> Any:
    given: Any = {} if "noise" in options else {"seeds": 0, "positions": 0}
    return rollkit.decode.sample(cond, *more, **{"allowed": None, **given, **options})


def replay(logits: Any = ROWS, tokens: Any = (1, 2), kept: Any = KEPT, **options: Any) -> Any:
    return rollkit.decode.replay_logprobs(logits, tokens, kept, **options)


def adapted(bias: bool = False, **more: Any) -> Any:
    """A layer as PEFT wraps it."""
    a, b = torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 6, bias=bias)
    own: dict[str, Any] = {
        "lora_A": {"x": a},
        "lora_B": {"x": b},
        "scaling": {"x": 1.0},
        "active_adapters": ["x"],
    }
    return SimpleNamespace(base_layer=torch.nn.Linear(2, 6), **own, **more)


def decode(step: Any, state: Any = STATE, n: Any = 3, max_steps: Any = 3, **options: Any) -> Any:
    return rollkit.decode.jax_driver.decode(step, None, state, n, max_steps=max_steps, **options)


def count(params: Any, state: Any, slots: Any, t: Any) -> Any:
    return state + 1, state, state == 4


# fmt: off
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: generate("hello"), TypeError, "prompts must be a list of prompts, each of token ids, got str"),
    (lambda: generate(None), TypeError, "prompts must be a list of prompts, each of token ids, got NoneType"),
    (lambda: generate({"input_ids": [[1]]}), TypeError, "prompts must be a list of prompts, each of token ids, got dict"),
    (lambda: generate([1, 2]), TypeError, "prompts[0] must be a list or array of token ids, got int"),
    (lambda: generate([[1], "hello"]), TypeError, "prompts[1] must be a list or array of token ids, got str"),
    (lambda: generate([[1], []]), ValueError, "prompts[1] is empty; a prompt needs at least one token"),
    (lambda: generate([[1.5]]), TypeError, "prompts[0] must hold integers, got float64"),
    (lambda: generate([[1], [2, 300]]), ValueError, "prompts[1] has token 300; the model reads 0 to 299"),
    (lambda: generate([[1], [-1]]), ValueError, "prompts[1] has token -1; the model reads 0 to 299"),
    (lambda: generate(max_new_tokens=0), ValueError, "max_new_tokens must be at least 1, got 0"),
    (lambda: generate(max_new_tokens=[3, 0]), ValueError, "max_new_tokens[1] is 0; it must be at least 1"),
    (lambda: generate(max_new_tokens=[1, 2, 3]), ValueError, "max_new_tokens must be one int or [2], one per prompt, got 3"),
    (lambda: generate(max_new_tokens=1.5), TypeError, "max_new_tokens must be an int, got float"),
    (lambda: generate(max_new_tokens=None), TypeError, "max_new_tokens must be an int, got NoneType"),
    (lambda: generate(eos=300), ValueError, "eos has id 300; ids of vocab_size=300 are 0 to 299"),
    (lambda: generate(eos="</s>"), TypeError, "eos must be an int or ints, got '</s>'"),
    (lambda: generate(allowed=[1]), TypeError, "allowed must be an AllowedSet or None, got list"),
    (lambda: generate(allowed=AllowedSet([1], 20)), ValueError, "allowed has vocab_size 20, the model's head 300 rows"),
    (lambda: generate(allowed=CODES, eos=3), TypeError, "pass eos with the set: AllowedSet(…, eos=…)"),
    (lambda: generate(phases=[Phase(CODES)], eos=3), TypeError, "pass phases, or allowed, or eos; each phase has its own allowed, with its eos"),
    (lambda: generate(phases=[CODES]), TypeError, "phases must be a list of Phase; wrap what you have: phases=[Phase(allowed)]"),
    (lambda: generate(phases=Phase(CODES)), TypeError, "phases must be a list of Phase; wrap what you have: phases=[Phase(allowed)]"),
    (lambda: Phase([1, 2]), TypeError, "allowed must be an AllowedSet, got list"),
    (lambda: Phase(CODES, until=100), TypeError, "until must be a tuple of tokens, got int"),
    (lambda: Phase(CODES, until=(3,)), ValueError, "until has token 3, which is not allowed; add it to allowed"),
    (lambda: Phase(CODES, max_tokens=0), ValueError, "max_tokens must be at least 1, got 0"),
    (lambda: Phase(CODES, sampling={"heat": 1}), ValueError, "sampling must be one of 'cfg_scale', 'temperature', 'top_k', 'top_p', 'min_p', 'order', got 'heat'"),
    (lambda: generate(cfg_scale=2), ValueError, "cfg_scale is not 1 without uncond; pass unconditional prompts"),
    (lambda: generate(uncond=3), TypeError, "uncond must be a list of prompts, each of token ids, got int"),
    (lambda: generate(uncond=[]), ValueError, "uncond must be one prompt or 2, one per prompt, got 0"),
    (lambda: generate(uncond=[[1]] * 3), ValueError, "uncond must be one prompt or 2, one per prompt, got 3"),
    (lambda: generate(uncond=torch.tensor([1, 400])), ValueError, "uncond has token 400; the model reads 0 to 299"),
    (lambda: generate(temperature=[1.0, 0.5]), TypeError, "temperature must be one number for all sequences, got list; call generate once for each number"),
    (lambda: generate(temperature=-1), ValueError, "temperature is -1; it must be at least 0"),
    (lambda: generate(top_p=1.5), ValueError, "top_p is 1.5; it must be 0 to 1"),
    (lambda: generate(top_k=1.5), TypeError, "top_k must be ints, got float64"),
    (lambda: generate(min_p=-1), ValueError, "min_p is -1; it must be 0 to 1"),
    (lambda: generate(order="x"), ValueError, "order must be one of 'hf', 'vllm', 'joint', 'acestep', got 'x'"),
    (lambda: generate(phases=[Phase(CODES, sampling={"order": "acestep"})], min_p=0.1), ValueError, 'min_p is not part of order="acestep"; leave it 0, or pass order="hf"'),
    (lambda: generate(allowed=AllowedSet([], VOCAB)), ValueError, "allowed is empty; a row needs at least one token to draw from"),
    (lambda: generate(phases=3), TypeError, "phases must be a list of Phase; wrap what you have: phases=[Phase(allowed)]"),
    (lambda: Phase(CODES, sampling={"top_p": 2}), ValueError, "top_p is 2; it must be 0 to 1"),
    (lambda: generate(seeds=[1]), ValueError, "seeds must be one int or [2], one per prompt, got 1"),
    (lambda: generate(seeds=1.5), TypeError, "seeds must be one int or [2] ints, got float"),
    (lambda: generate(seeds=2**63), OverflowError, "seeds is 9223372036854775808; it must fit into int64"),
    (lambda: generate(seeds=-(2**63) - 1), OverflowError, "seeds is -9223372036854775809; it must fit into int64"),
    (lambda: generate(seeds=None), TypeError, "seeds must be one int or [2] ints, got NoneType"),
    (lambda: generate(slack=2), ValueError, "slack must be 0 to 1, got 2"),
    (lambda: generate(slack="all"), TypeError, "slack must be a number, got str"),
    (lambda: generate(logprobs=None), ValueError, "logprobs must be one of 'kept', 'allowed', got None"),
    (lambda: generate(progress_every=0), ValueError, "progress_every must be at least 1, got 0"),
    (lambda: generate(on_bad="go"), ValueError, "on_bad must be one of 'raise', 'stop', got 'go'"),
    (lambda: generate(on_tokens=3), TypeError, "on_tokens must be a function or None, got int"),
    (lambda: generate(on_progress=3), TypeError, "on_progress must be a function or None, got int"),
    (lambda: generate(cancel=True), TypeError, "cancel must be a function or None, got bool"),
    (lambda: generate(cancel=lambda: None), TypeError, "cancel must return a bool, or the sequences to end, got NoneType"),
    (lambda: generate(cancel=lambda: [0, 7]), ValueError, "cancel must return sequences of 0 to 1, got 7"),
    (lambda: generate(cancel=lambda: [0.5]), TypeError, "what cancel returns must hold integers, got float64"),
    (lambda: generate(cache="fixed"), ValueError, "cache must be one of 'dynamic', 'static', got 'fixed'"),
    (lambda: generate(cache=used(0)), TypeError, "cache must be 'dynamic', 'static' or a function, got DynamicCache; pass a function that makes one: lambda columns: DynamicCache(…)"),
    (lambda: generate(cache=transformers.StaticCache), TypeError, "cache must be 'dynamic', 'static' or a function, got StaticCache; pass a function that makes one: lambda columns: StaticCache(…)"),
    (lambda: generate(cache=lambda columns: columns), TypeError, "cache must return a transformers Cache, got int"),
    (lambda: generate(cache=used), ValueError, "cache must return an empty cache, got one of 2 tokens; make it anew"),
    (lambda: generate(cache=static(2)), ValueError, "layer 0 of cache has room for 2 tokens, prompts and responses need 3: make as many columns as the function is given"),
    (lambda: generate(model=WINDOWS, max_new_tokens=20, cache=lambda _: transformers.StaticCache(config=WINDOWS.config, max_cache_len=9)), ValueError, "layer 1 of cache has room for 9 tokens, prompts and responses need 21: make as many columns as the function is given"),
    (lambda: generate(cache=quantised), TypeError, "layer 0 of cache is a Quantised, whose rows cannot be moved; pass a cache that is not quantised"),
    (lambda: generate(model="gpt2"), TypeError, "model must be a causal language model with a head, got str"),
    (lambda: AllowedLogits(CODES, cfg_scale=2, model=torch.nn.Identity()), TypeError, "Identity takes no cache or past_key_values, so that guidance would lose what the unconditional branch has read; pass a model that goes on from its cache, or cfg_scale=1"),
    (lambda: generate(model=MODEL.model), TypeError, "model must be a causal language model with a head, got Qwen3Model"),
    (lambda: ActiveBatch(0), ValueError, "n must be at least 1, got 0"),
    (lambda: ActiveBatch(1.5), TypeError, "n must be an int, got float"),
    (lambda: ActiveBatch(1, mirrored=True), ValueError, "mirrored needs cfg=True; one row per sequence has nothing to mirror"),
    (lambda: ActiveBatch(2).finish([0, 1]), TypeError, "mask must be bool, got int64"),
    (lambda: ActiveBatch(2).finish([True]), ValueError, "mask must be [2], one per row of slots, got shape (1,)"),
    (lambda: ActiveBatch(2).finish([[True], [True, False]]), ValueError, "mask must be [2], got rows of different lengths"),
    (lambda: ActiveBatch(2).finish([True, False], tokens=-1), ValueError, "tokens must be at least 0, got -1"),
    (lambda: ActiveBatch(2).drop([5]), ValueError, "slots must be 0 to 1, got 5 to 5"),
    (lambda: compact("cache", PLAN), TypeError, "cache must be a transformers cache, an array, or a tree of arrays, got builtins.str"),
    (lambda: compact(np.zeros((2, 2)), PLAN), ValueError, "an array of the cache has 2 rows on axis 0, the batch has 3"),
    (lambda: compact(np.zeros(3), PLAN, axis=1), ValueError, "axis is 1; an array of the cache has shape (3,)"),
    (lambda: compact(np.zeros(3), [True, False, False]), TypeError, "plan must be a Plan, as ActiveBatch.finish returns it, got list; select(cache, rows) copies rows of your choice"),
    (lambda: compact(FROZEN, PLAN), ValueError, "an array of the cache is read-only; pass in_place=False to copy rows"),
    (lambda: compact(torch.zeros(3, requires_grad=True), PLAN), ValueError, "a tensor of the cache requires grad; decode under torch.no_grad(), or pass in_place=False"),
    (lambda: select(np.zeros(3), [True, False, True]), TypeError, "keep must hold integers, got bool"),
    (lambda: select(jnp.zeros(3), [3]), IndexError, "keep has row 3; an array of the cache has 3 on axis 0"),
    (lambda: select(torch.zeros(3), [0, -1]), IndexError, "keep has row -1; an array of the cache has 3 on axis 0"),
    (lambda: crop_padding(used(0), 1.5), TypeError, "columns must be an int, got float"),
    (lambda: crop_padding(used(0), 3), ValueError, "columns must be 0 to 2, got 3"),
    (lambda: crop_padding([], 1), TypeError, "cache must be a transformers Cache, got list"),
    (lambda: decode("step"), TypeError, "step must be a function, got str"),
    (lambda: decode(count, n=0), ValueError, "n must be at least 1, got 0"),
    (lambda: decode(count, max_steps=0), ValueError, "max_steps must be at least 1, got 0"),
    (lambda: decode(count, n=4), ValueError, "state must have 4 rows in every array, got shape (3,)"),
    (lambda: decode(count, cfg=True), ValueError, "state must have 6 rows in every array, got shape (3,)"),
    (lambda: decode(count, [1, 2, 3]), TypeError, "state must hold arrays of JAX or NumPy, got int"),
    (lambda: decode(lambda p, s, slots, t: (s, s)), TypeError, "step must return (state, emitted, ended), got 2 values"),
    (lambda: decode(lambda p, s, slots, t: (s, s, s)), TypeError, "step must return ended as bool[3], got int32[3]"),
    (lambda: decode(lambda p, s, slots, t: (s, s, True)), TypeError, "step must return ended as bool[3], got bool[]"),
    (lambda: decode(lambda p, s, slots, t: (s, t, s > 2)), ValueError, "step must emit arrays of 3 rows, as slots, got shape ()"),
    (lambda: decode(lambda p, s, slots, t: (s / 2, s, s > 2)), TypeError, "step must return state as it is given, int32[3], got float32[3]; cast it"),
    (lambda: decode(lambda p, s, slots, t: ((s, s), s, s > 2)), TypeError, "step must return state as the tree it is given, PyTreeDef(*), got PyTreeDef((*, *))"),
    (lambda: decode(lambda p, s, slots, t: (s, {"token": s}, s > 2)).rollouts([[1]] * 3), TypeError, "the step must emit tokens [rows], or (tokens [rows], log-probabilities [rows])"),
    (lambda: PartialHead(WEIGHT, [1, 4]), TypeError, "allowed must be an AllowedSet, got list"),
    (lambda: PartialHead([[1.0]], SET), TypeError, "weight must be an array of torch, JAX or NumPy, got list"),
    (lambda: PartialHead(WEIGHT, SET, [1.0] * 6), TypeError, "bias must be an array of torch, JAX or NumPy, got list"),
    (lambda: PartialHead(WEIGHT, SET, lora=(WEIGHT.T, WEIGHT)), TypeError, "lora must be a LoRA or a list of them, got tuple; pass LoRA(a, b)"),
    (lambda: PartialHead(WEIGHT.astype(np.int8), SET), TypeError, "weight is int8 without scale; pass scale=…, or floating-point numbers"),
    (lambda: PartialHead(torch.ones(6, 2, dtype=torch.int8), SET), TypeError, "weight is torch.int8 without scale; pass scale=…, or floating-point numbers"),
    (lambda: PartialHead(WEIGHT, SET)(np.ones((1, 3))), ValueError, "hidden must be an array [..., 2], as wide as the weight, got shape (1, 3)"),
    (lambda: PartialHead(WEIGHT, SET)([[1.0, 2.0]]), ValueError, "hidden must be an array [..., 2], as wide as the weight, got shape (1, 2)"),
    (lambda: PartialHead(torch.ones(6, 2), SET)(np.ones((1, 2))), TypeError, "weight is of torch, hidden of numpy; convert one: hidden = torch.as_tensor(hidden)"),
    (lambda: PartialHead(WEIGHT, SET)(torch.ones(1, 2)), TypeError, "weight is of numpy, hidden of torch; convert one: hidden = np.asarray(hidden)"),
    (lambda: PartialHead(WEIGHT, SET, lora=LoRA(WEIGHT[:3], WEIGHT)), ValueError, "lora[0].a must be [rank, hidden] = (2, 2), got shape (3, 2)"),
    (lambda: PartialHead(WEIGHT, SET, lora=[LoRA(torch.ones(2, 2), WEIGHT)]), TypeError, "weight is of numpy, lora[0].a of torch; convert one: lora[0].a = np.asarray(lora[0].a)"),
    (lambda: AllowedSet(2, 3), TypeError, "allowed must be ids, a range, or a sequence of both, got int"),
    (lambda: sample(temperature=np.inf), ValueError, "temperature is inf; it must be finite"),
    (lambda: PartialHead.from_module(adapted(use_dora={"x": True}), SET), ValueError, "adapter 'x' of the head is DoRA, which rescales the weight; merge it first (merge_adapter())"),
    (lambda: PartialHead.from_module(adapted(lora_variant={"x": SET}), SET), ValueError, "adapter 'x' of the head is a AllowedSet; merge it first (merge_adapter())"),
    (lambda: PartialHead.from_module(adapted(bias=True), SET), ValueError, "adapter 'x' of the head has lora_bias; merge it first (merge_adapter())"),
    (lambda: PartialHead.from_module(adapted(merged=True, disable_adapters=True), SET), ValueError, "adapters are disabled and merged into the weight; call unmerge_adapter() first"),
    (lambda: PartialHead.from_module(SimpleNamespace(base_layer=torch.nn.Linear(2, 6)), SET), TypeError, "types.SimpleNamespace is no LoRA; merge the adapter, and pass the base layer"),
    (lambda: sample(cfg_scale=2.0), ValueError, "cfg_scale is 2.0 without uncond; pass the unconditional logits"),
    (lambda: sample(cfg_scale=[1, 2]), ValueError, "cfg_scale is [1, 2] without uncond; pass the unconditional logits"),
    (lambda: sample(torch.ones(2, 4), cfg_scale=0), ValueError, "cfg_scale is 0 without uncond; pass the unconditional logits"),
    (lambda: sample(torch.ones(2, 4, dtype=torch.int32)), TypeError, "cond must be float32, float16 or bfloat16, got int32"),
    (lambda: sample(temperature=[1, [2, 3]]), ValueError, "temperature must be one number or [2], got rows of different lengths"),
    (lambda: sample(np.ones((2, 0), np.float32)), ValueError, "cond has no columns; a row needs at least one token to draw from"),
    (lambda: sample(noise=[[0.5]]), ValueError, "noise must have the shape of cond, (2, 4), got (1, 1)"),
    (lambda: cfg(ROWS, ROWS, "a"), TypeError, "scale must be one number or [2], got str"),
    (lambda: cfg(ROWS, ROWS, None), TypeError, "scale must be one number or [2], got NoneType"),
    (lambda: cfg(ROWS, ROWS, [1, 2, 3]), ValueError, "scale must be one number or [2], one per row, got shape (3,)"),
    (lambda: cfg(ROWS, ROWS, np.nan), ValueError, "scale is nan; it must be finite"),
    (lambda: cfg(ROWS, None, [1, 2]), ValueError, "scale must be one number or [1], one per row, got shape (2,)"),
    (lambda: cfg(ROWS[:1], None, 2), ValueError, "cond must have cond rows, then as many uncond rows, when uncond is None; got 1 rows"),
    (lambda: cfg([[1, 2]], [[1, 2]], 2), TypeError, "cond must be float32, float16 or bfloat16, got int64"),
    (lambda: cfg(ROWS, ROWS, 2, bias=np.zeros(3)), ValueError, "bias must broadcast to the shape of cond, (2, 4), got (3,)"),
    (lambda: cfg(ROWS, ROWS, 2, bias=np.zeros((5, 2, 4))), ValueError, "bias must broadcast to the shape of cond, (2, 4), got (5, 2, 4)"),
    (lambda: cfg(ROWS[:1], ROWS[:1], 2, bias=np.zeros((3, 1))), ValueError, "bias must broadcast to the shape of cond, (1, 4), got (3, 1)"),
    (lambda: cfg(ROWS, ROWS, 2, bias="a"), TypeError, "bias must hold numbers, got <U1"),
    (lambda: cfg(ROWS, ROWS, 2, bias=torch.zeros(4)), TypeError, "cond is of numpy, bias of torch; convert one: bias = np.asarray(bias)"),
    (lambda: uniforms(1, 0, torch.tensor([1.5])), TypeError, "ids must hold integers, got float32"),
    (lambda: uniforms(1, 0, jnp.array([True])), TypeError, "ids must hold integers, got bool"),
    (lambda: CODES.to_local([1.5]), TypeError, "ids must hold integers, got float64"),
    (lambda: CODES.to_local(torch.tensor([100.7])), TypeError, "ids must hold integers, got float32"),
    (lambda: CODES.to_global(torch.tensor([True])), TypeError, "ids must hold integers, got bool"),
    (lambda: CODES.to_local(jnp.array([100.7])), TypeError, "ids must hold integers, got float32"),
    (lambda: AllowedSet([True, False], 2), TypeError, "allowed is a mask; pass ids: np.flatnonzero(mask)"),
    (lambda: AllowedSet(np.array([True, False]), 2), TypeError, "allowed is a mask; pass ids: np.flatnonzero(mask)"),
    (lambda: AllowedSet(range(5), 2**40), ValueError, "vocab_size must be at most 2**31, as ids have 32 bits, got 1099511627776"),
    (lambda: Kept.from_mask([[2, 0]], SET), TypeError, "mask must be bool, got int64"),
    (lambda: Kept.from_mask(torch.ones(1, 2), SET), TypeError, "mask must be bool, got float32"),
    (lambda: Kept.from_mask(ROWS > 0, SET), ValueError, "mask must be [rows, 2], a column per allowed token, got (2, 4)"),
    (lambda: replay(ROWS[0]), ValueError, "logits must be [rows, columns], got shape (4,)"),
    (lambda: replay(ROWS.astype(int)), TypeError, "logits must be floating-point numbers, got int64"),
    (lambda: replay(kept=ROWS > 0), TypeError, "kept must be a Kept, got ndarray; see Kept and Kept.from_mask"),
    (lambda: replay(kept=Kept([0, 2], [0, 3, 2])), ValueError, "kept.offsets must rise from 0 to the 2 ids of kept"),
    (lambda: replay(kept=Kept([0, 2], [0, 1, 1])), ValueError, "kept.offsets must rise from 0 to the 2 ids of kept"),
    (lambda: replay(kept=Kept([0.5, 2], [0, 1, 2])), TypeError, "kept.token_ids must hold integers, got float64"),
    (lambda: replay(tokens=[1.5, 2]), TypeError, "token_ids must hold integers, got float64"),
    (lambda: replay(torch.ones(2, 4), torch.tensor([1.5, 2])), TypeError, "token_ids must hold integers, got float32"),
    (lambda: replay(jnp.ones((2, 4)), jnp.array([1.5, 2])), TypeError, "token_ids must hold integers, got float32"),
    (lambda: replay(temperature=-1), ValueError, "temperature is -1; it must be at least 0"),
    (lambda: replay(temperature=[1, 2, 3]), ValueError, "temperature must be one number or [2], one per row, got shape (3,)"),
    (lambda: replay(allowed=[1]), TypeError, "allowed must be an AllowedSet or None, got list"),
    (lambda: jax.jit(lambda ids: replay(jnp.ones((2, 4)), kept=Kept(ids, ids)))(jnp.arange(3)), TypeError, "kept is traced by JAX; its size is not known then, so pass it from outside of jit"),
    (lambda: AllowedLogits([1, 2]), TypeError, "allowed must be an AllowedSet, got list"),
    (lambda: AllowedLogits(AllowedSet([], VOCAB)), ValueError, "allowed is empty; a row needs at least one token to draw from"),
    (lambda: AllowedLogits(CODES, cfg_scale=2), ValueError, "cfg_scale is 2 without model; pass the model that generates"),
    (lambda: AllowedLogits(CODES, cfg_scale=2, model=MODEL, unconditional_ids=[[1]]), TypeError, "unconditional_ids must be a tensor [rows, width], got list"),
    (lambda: AllowedLogits(CODES, cfg_scale=2, model=MODEL, unconditional_ids=IDS[0]), TypeError, "unconditional_ids must be a tensor [rows, width], got (2,)"),
    (lambda: AllowedLogits(CODES, cfg_scale=2, model=MODEL, unconditional_ids=IDS, unconditional_attention_mask=IDS[:, :1]), ValueError, "unconditional_attention_mask must have the shape of unconditional_ids, (1, 2), got (1, 1)"),
    (lambda: Sampler(CODES, heat=1), TypeError, "Sampler has no argument 'heat'; sampling has temperature, top_k, top_p, min_p, order"),
    (lambda: Sampler(CODES, temperature=-1), ValueError, "temperature is -1; it must be at least 0"),
    (lambda: Sampler(CODES, order="x"), ValueError, "order must be one of 'hf', 'vllm', 'joint', 'acestep', got 'x'"),
    (lambda: AllowedLogits(CODES, cfg_scale=np.nan, model=MODEL), ValueError, "cfg_scale is nan; it must be finite"),
    (lambda: Sampler(CODES, seeds=[1, 2])(IDS, torch.zeros(1, VOCAB)), ValueError, "seeds must be one int or [1], one per prompt, got 2"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED, ids=[case[2][:60] for case in REFUSED])
def test_refused(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    check_refusal(call, kind, message)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"top_p": 2},
        {"order": "x"},
        {"progress_every": 0},
        {"on_bad": "go"},
        {"logprobs": None},
        {"allowed": AllowedSet([], VOCAB)},
    ],
    ids=str,
)
@pytest.mark.parametrize("prompts", [[[1, 2]], []], ids=str)
def test_refused_before_the_model_runs(
    options: dict[str, Any], prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(_hf.Model, "_forward", run)
    monkeypatch.setattr(_hf.Model, "_whole", run)
    with pytest.raises(ValueError, match=next(iter(options))):
        generate(prompts, **options)


@pytest.mark.parametrize("name", ["on_tokens", "on_progress", "cancel", "cache"])
def test_what_a_callback_raises_comes_out_and_spoils_nothing(name: str) -> None:
    def fail(*_: Any) -> Any:
        raise LookupError(name)

    wanted = generate()["response_ids"].to_list()
    with pytest.raises(LookupError, match=name):
        generate(**{name: fail})
    assert generate()["response_ids"].to_list() == wanted


def test_a_set_that_decoded_can_be_trained_with() -> None:
    """What is kept from a call must not be an inference tensor."""
    allowed = AllowedSet([1, 5, 9], VOCAB)
    generate(allowed=allowed)
    with torch.inference_mode():
        other = AllowedSet([2, 6], VOCAB)
        other.compact(torch.zeros(2, VOCAB))
    for found in (allowed, other):
        logits = torch.zeros(2, VOCAB, requires_grad=True)
        found.compact(logits).sum().backward()
        assert logits.grad is not None
