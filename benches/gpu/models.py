"""Forward and backward of a small Qwen3, random weights: padded, packed, and as a forest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask

from gpu.cases import Rng
from gpu.masks import by_rule, compiled
from gpu.setting import Array, Setting
from gpu.timing import Timing, timing
from rollkit import Batch, Layout, next_token_logprobs, pack, segments

Rollouts = dict[str, list[Any]]
NAME = "rollkit_record"  # of the attention, among those of transformers
SMALL: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
REAL: dict[str, Any] = {
    "vocab_size": 16_384,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 8,
}
REAL |= {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
TOGETHER = 4  # rows that are padded to the longest of them


def qwen3(setting: Setting) -> Iterator[Timing]:
    """Samples of a few prompts, and turns of agents whose contexts are edited."""
    model, apart = _model(setting), []
    for what, rollouts in (("samples", samples(setting)), ("edited turns", turns(setting))):
        ways = {
            "forest": packed(setting, rollouts, shared=True),
            "packed": packed(setting, rollouts, shared=False),
            f"padded, {TOGETHER} at a time": padded(setting, rollouts),
        }
        sizes = {name: sum(part.layout.size for part in parts) for name, parts in ways.items()}
        slopes = {name: _gradient(model, parts) for name, parts in ways.items()}  # compiles, too
        wanted = slopes[f"padded, {TOGETHER} at a time"]
        off = max(float((found - wanted).norm() / wanted.norm()) for found in slopes.values())
        apart.append(off)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(3 if setting.on_gpu else 1):
            for name, parts in ways.items():
                times[name].append(_seconds(setting, lambda: step(model, parts)))  # noqa: B023
        rows = len(rollouts["response_ids"])
        shown = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        yield {
            "what": f"small Qwen3, {rows} {what}, gradients within {off:.1e}; positions: {shown}",
            "ms": {name: 1e3 * median(found) for name, found in times.items()},
        }
    most = 0.1 if setting.on_gpu else 1e-4  # in bfloat16, and added up in it
    alike = all(off <= most for off in apart)
    assert alike, f"gradients of padded rows, bins and forests are apart by {apart}, more than {most:g}"


def samples(setting: Setting) -> Rollouts:
    """Several skewed responses to each of a few prompts."""
    rng = np.random.default_rng(20)
    prompts, each, long, most = (8, 8, 1000, 4096) if setting.on_gpu else (2, 3, 12, 20)
    found: Rollouts = {"prompt_token_ids": [], "response_ids": []}
    for _ in range(prompts):
        prompt = _tokens(setting, rng, long)
        for _ in range(each):
            found["prompt_token_ids"].append(prompt)
            length = int(np.clip(rng.lognormal(np.log(most / 7), 0.8), 2, most))
            found["response_ids"].append(_tokens(setting, rng, length))
    return _with_advantages(rng, found)


def turns(setting: Setting) -> Rollouts:
    """A row for each turn; later contexts lack the first half of what was sampled before."""
    rng = np.random.default_rng(21)
    agents, each, long = (6, 10, 300) if setting.on_gpu else (2, 3, 6)
    found: Rollouts = {"prompt_token_ids": [], "response_ids": []}
    for _ in range(agents):
        context = _tokens(setting, rng, 2 * long)
        for _ in range(each):
            response = _tokens(setting, rng, int(rng.integers(long // 2, long)))
            found["prompt_token_ids"].append(context)
            found["response_ids"].append(response)
            seen = response[len(response) // 2 :]
            context = np.concatenate([context, seen, _tokens(setting, rng, long // 2)])
    return _with_advantages(rng, found)


def _tokens(setting: Setting, rng: Rng, count: int) -> Array:
    size = (REAL if setting.on_gpu else SMALL)["vocab_size"]
    found: Array = rng.integers(0, size, count).astype(np.int32)
    return found


def _with_advantages(rng: Rng, rollouts: Rollouts) -> Rollouts:
    sizes = [len(response) for response in rollouts["response_ids"]]
    columns: Rollouts = {
        "loss_masks": [np.ones(n, np.uint8) for n in sizes],
        "advantages": [np.full(n, rng.normal(), np.float32) for n in sizes],
    }
    return {**rollouts, **columns}


def packed(setting: Setting, rollouts: Rollouts, *, shared: bool) -> list[Batch]:
    """Bins, one at a time."""
    capacity = 16_384 if setting.on_gpu else 64
    batch = pack(rollouts, capacity, share_prefixes=shared).to(setting.device)
    return [batch[line : line + 1] for line in range(batch.layout.shape[0])]


def padded(setting: Setting, rollouts: Rollouts) -> list[Batch]:
    """A few rows at a time, in their order, padded on the right to the longest of them."""
    found = []
    for row in range(0, len(rollouts["response_ids"]), TOGETHER):
        some = {name: column[row : row + TOGETHER] for name, column in rollouts.items()}
        both = zip(some["prompt_token_ids"], some["response_ids"], strict=True)
        layout = Layout.pad([len(prompt) + len(response) for prompt, response in both], side="right")
        found.append(pack(some, layout=layout).to(setting.device))
    return found


def step(model: Any, parts: list[Batch]) -> None:
    """Forward and backward of all rows, the masks among it."""
    for part in parts:
        ids = part["input_ids"]
        mask = None if _is_padded(part) else segments.block_mask(part)
        logits = model(
            input_ids=ids,
            position_ids=part["positions"],
            attention_mask={"full_attention": mask},
            use_cache=False,
        ).logits
        scores = part.unpack(next_token_logprobs(logits, part)).flat
        weights = [part.unpack(name).flat for name in ("advantages", "loss_masks")]
        weight, mask_of = (torch.as_tensor(x, device=ids.device) for x in weights)
        (-(scores * weight * mask_of).sum() / 1000).backward()


def _is_padded(part: Batch) -> bool:
    """Whether each line is one row, which plain causal attention is right for."""
    layout: Any = part.layout
    if not isinstance(layout, Layout) or len(layout) != layout.shape[0]:
        return False
    return not (layout.starts % layout.width).any()


def _gradient(model: Any, parts: list[Batch]) -> torch.Tensor:
    """Of all weights in one."""
    model.zero_grad(set_to_none=True)
    step(model, parts)
    return torch.cat([weight.grad.float().flatten() for weight in model.parameters()])


def _seconds(setting: Setting, run: Callable[[], object]) -> float:
    if setting.on_gpu:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    if setting.on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _model(setting: Setting) -> Any:
    """A Qwen3 whose attention takes block masks, or plain causal attention for None."""
    from transformers import AttentionInterface, Qwen3Config, Qwen3ForCausalLM

    flex = compiled(setting) if setting.on_gpu else by_rule

    def attend(
        module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float | None = None, **_: Any
    ) -> tuple[Any, None]:
        if isinstance(mask, BlockMask):
            out = flex(q, k, v, block_mask=mask, scale=scaling, enable_gqa=True)
        else:
            plain = torch.nn.functional.scaled_dot_product_attention
            out = plain(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register(NAME, attend)
    config = Qwen3Config(**(REAL if setting.on_gpu else SMALL), tie_word_embeddings=True)
    config._attn_implementation = NAME
    torch.manual_seed(0)
    model: Any = Qwen3ForCausalLM(config)
    return model.to(setting.device, torch.bfloat16 if setting.on_gpu else torch.float32)


def attention(setting: Setting) -> Iterator[Timing]:
    """Attention alone, forward and backward: bins and forests by flex, rectangles by torch's kernel."""
    dtype, size = (torch.bfloat16, 128) if setting.on_gpu else (torch.float32, 16)
    flex = compiled(setting) if setting.on_gpu else by_rule
    rollouts = samples(setting)
    runs: dict[str, Callable[[], object]] = {}
    shown = []
    for name, shared in (("forest", True), ("packed", False)):
        parts = packed(setting, rollouts, shared=shared)
        inputs = [_inputs(setting, part.layout.shape, size, dtype) for part in parts]
        masks = [segments.block_mask(part) for part in parts]
        shown.append(f"{name} {sum(part.layout.size for part in parts):,}")

        def by_flex(inputs: Any = inputs, masks: Any = masks) -> None:
            for (q, k, v, w), mask in zip(inputs, masks, strict=True):
                out = flex(q, k, v, block_mask=mask, scale=size**-0.5, enable_gqa=True)
                torch.autograd.grad(out, (q, k, v), w)

        runs[name] = by_flex
    parts = padded(setting, rollouts)
    rectangles = [_inputs(setting, part.layout.shape, size, dtype) for part in parts]
    shown.append(f"padded {sum(part.layout.size for part in parts):,}")

    def causal() -> None:
        for q, k, v, w in rectangles:
            plain = torch.nn.functional.scaled_dot_product_attention
            torch.autograd.grad(plain(q, k, v, is_causal=True, enable_gqa=True), (q, k, v), w)

    runs[f"padded, {TOGETHER} at a time"] = causal
    what = f"attention alone, 16 and 8 heads of {size}, forward and backward; positions: {', '.join(shown)}"
    yield timing(setting, what, runs)


def _inputs(setting: Setting, shape: tuple[int, ...], size: int, dtype: Any) -> list[torch.Tensor]:
    lines, width = shape
    found = [
        torch.randn(lines, heads, width, size, device=setting.device, dtype=dtype) for heads in (16, 8, 8, 16)
    ]
    return [x.requires_grad_(i < 3) for i, x in enumerate(found)]
