"""A training step on a forest, on packed rows and row by row: one gradient, in float64 and in float32."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from gpu.cases import Rng, prefixed_rows
from gpu.masks import compiled, dense_attention
from gpu.setting import Setting
from rollkit import Batch, next_token_logprobs, pack, segments

VOCABULARY, WIDE, HEADS, LAYERS, LONGEST = 13, 64, 2, 2, 64
Weights = dict[str, torch.Tensor]


def gradients(setting: Setting) -> Iterator[str]:
    """PPO's clip with advantages and masks of each row."""
    for dtype, most in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        worst, count = {False: 0.0, True: 0.0}, 0
        for number in setting.tries(20, 1):
            rng = np.random.default_rng([12, number])
            rows = [row for row in prefixed_rows(rng, 16, 12, VOCABULARY) if len(row) > 1]
            if len(rows) < 2:
                continue
            weights = made(setting, dtype, number)
            rollouts = rollouts_of(rng, rows)
            wanted = [x.double() for x in alone(setting, rollouts, weights, dtype)]
            for shared in worst:
                batch = pack(rollouts, 80, share_prefixes=shared, bins_multiple_of=4).to(setting.device)
                attention = dense(batch)
                if setting.on_gpu and dtype == torch.float32:
                    attention = by_flex(setting, batch)
                found = slopes(loss_of(batch, forward(batch, weights, attention), dtype), weights)
                pairs = list(zip(found, wanted, strict=True))
                off = sum(float(((a - b) ** 2).sum()) for a, b in pairs) ** 0.5
                off /= sum(float((b**2).sum()) for _, b in pairs) ** 0.5
                assert off <= most, (
                    f"gradient of {batch.layout!r}, {dtype}: off by {off:.3g}, more than {most:g}"
                )
                worst[shared] = max(worst[shared], off)
            count += 1
        how = "flex_attention" if setting.on_gpu and dtype == torch.float32 else "dense attention"
        yield (
            f"gradient of a transformer with PPO's clip, {count} batches, {how}, "
            f"{str(dtype).removeprefix('torch.')}, beside rows one by one: packed within {worst[False]:.1e}, "
            f"as a forest within {worst[True]:.1e}"
        )


def rollouts_of(rng: Rng, rows: list[list[int]]) -> dict[str, Any]:
    """Rows with masks, advantages and old log-probabilities of their own."""
    sizes = [len(row) - 1 for row in rows]
    return {
        "prompt_token_ids": [row[:1] for row in rows],
        "response_ids": [row[1:] for row in rows],
        "loss_masks": [rng.integers(0, 2, n).tolist() for n in sizes],
        "advantages": [rng.normal(size=n).astype(np.float32) for n in sizes],
        "rollout_logprobs": [(rng.normal(size=n) * 0.2 - 2.5).astype(np.float32) for n in sizes],
    }


def alone(setting: Setting, rollouts: dict[str, Any], weights: Weights, dtype: Any) -> list[torch.Tensor]:
    """The gradient of each row in a batch of its own, added up."""
    total: list[torch.Tensor] = []
    for row in range(len(rollouts["response_ids"])):
        one = {name: column[row : row + 1] for name, column in rollouts.items()}
        batch = pack(one, len(one["prompt_token_ids"][0]) + len(one["response_ids"][0])).to(setting.device)
        found = slopes(loss_of(batch, forward(batch, weights, dense(batch)), dtype), weights)
        total = [a + b for a, b in zip(total, found, strict=True)] if total else list(found)
    return total


def loss_of(batch: Batch, logits: torch.Tensor, dtype: Any) -> torch.Tensor:
    """PPO's clip over the rows of a batch."""
    if dtype == torch.float64:  # `next_token_logprobs` gives float32
        before, after = (torch.as_tensor(x, device=logits.device) for x in batch.layout.edges())
        chosen = logits.flatten(0, 1)[before].log_softmax(-1)
        picked = chosen.gather(1, batch["input_ids"].flatten()[after].long()[:, None])[:, 0]
        scores = (
            logits.new_zeros(logits.shape[:2].numel()).index_copy(0, after, picked).reshape(logits.shape[:2])
        )
    else:
        scores = next_token_logprobs(logits, batch)
    new: Any = batch.unpack(scores).flat
    old, advantages, masks = (
        torch.as_tensor(batch.unpack(name).flat, device=logits.device).to(dtype)
        for name in ("rollout_logprobs", "advantages", "loss_masks")
    )
    ratio = (new - old).exp()
    objective = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    return -(objective * masks).sum()


def slopes(loss: torch.Tensor, weights: Weights) -> tuple[torch.Tensor, ...]:
    """The gradient of all weights, in float64."""
    return tuple(x.double() for x in torch.autograd.grad(loss, list(weights.values())))


def made(setting: Setting, dtype: torch.dtype, seed: int) -> Weights:
    """A small transformer."""
    shapes = {"tokens": (VOCABULARY, WIDE), "places": (LONGEST, WIDE), "head": (WIDE, VOCABULARY)}
    for layer in range(LAYERS):
        shapes |= {f"in {layer}": (WIDE, 3 * WIDE), f"out {layer}": (WIDE, WIDE)}
        shapes |= {f"up {layer}": (WIDE, 2 * WIDE), f"down {layer}": (2 * WIDE, WIDE)}
    rng = np.random.default_rng([13, seed])
    return {
        name: torch.from_numpy(rng.normal(size=shape) * 0.6 / shape[0] ** 0.5)
        .to(setting.device, dtype)
        .requires_grad_()
        for name, shape in shapes.items()
    }


def forward(batch: Batch, weights: Weights, attention: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Logits of a batch."""
    ids, positions = batch["input_ids"].long(), batch["positions"].long()
    x = weights["tokens"][ids] + weights["places"][positions]
    for layer in range(LAYERS):
        parts = (norm(x) @ weights[f"in {layer}"]).unflatten(-1, (3, HEADS, -1))
        q, k, v = (part.transpose(1, 2) for part in parts.unbind(2))
        x = x + attention(q, k, v).transpose(1, 2).flatten(2) @ weights[f"out {layer}"]
        up = torch.nn.functional.silu(norm(x) @ weights[f"up {layer}"])
        x = x + up @ weights[f"down {layer}"]
    return norm(x) @ weights["head"]


def norm(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def dense(batch: Batch) -> Callable[..., torch.Tensor]:
    """Attention by the mask of all pairs."""
    seen = torch.as_tensor(segments.dense_mask(batch.layout), device=batch["input_ids"].device)[:, None]
    return lambda q, k, v: dense_attention(q, k, v, seen=seen)


def by_flex(setting: Setting, batch: Batch) -> Callable[..., torch.Tensor]:
    """The kernel, with the closed form of the mask."""
    mask, attention = segments.block_mask(batch), compiled(setting)
    return lambda q, k, v: attention(q, k, v, block_mask=mask)
