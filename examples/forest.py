"""A training step on an agent whose contexts are edited, with every shared token computed once.

    python examples/forest.py

A row is a turn: what an agent was shown, and what it wrote then. Of what it wrote earlier it is shown the end
alone, so a turn does not go on from the one before, and `merge_steps` cannot join them. They begin alike all
the same. A step is trained on these rows packed, and as a forest: one gradient, a third of the tokens.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import rollkit
from rollkit import Batch, Rollouts, segments

VOCABULARY, WIDTH, HEADS, LAYERS = 64, 64, 2, 2
TASKS, ATTEMPTS, TURNS = 2, 3, 8
CAPACITY, CLIP = 512, 0.2

Score = Callable[[Tensor, Batch], Tensor]
"""From logits to the log-probability of each token."""
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From queries, keys and values to what tokens see."""


def main() -> None:
    torch.set_num_threads(1)  # more would wait for each other: the model is small
    rollouts = scored(turns())
    for dtype, score, bound in (
        (torch.float64, exact_logprobs, 1e-12),
        (torch.float32, rollkit.next_token_logprobs, 2e-6),
    ):
        packed, shared = (gradient(small_model(dtype), rollouts, once, score) for once in (False, True))
        apart = float((shared - packed).norm() / packed.norm())
        assert apart <= bound, apart
        print(f"gradient of the forest, {dtype}: {apart:.0e} from that of packed rows")
    for name, once in (("packed", False), ("forest", True)):
        tokens, seconds = train(small_model(), rollouts, once)
        print(f"{name}: {tokens:6,} tokens, a step in {seconds * 1e3:4.0f} ms")


def turns() -> Rollouts:
    """What agents did: each turn they are shown all that was said, but of their own the last words only."""
    rng = np.random.default_rng(0)

    def say(count: Any) -> Any:
        return rng.integers(1, VOCABULARY, count)

    system = say(64)  # the same for all
    rows = []
    for task in range(TASKS):
        question = say(32)
        for attempt in range(ATTEMPTS):
            shown = [system, question]
            for turn in range(TURNS):
                written = say(rng.integers(24, 48))  # a thought, and 8 tokens that it ends with
                rows.append(
                    {
                        "prompt_token_ids": np.concatenate(shown),
                        "response_ids": written,
                        "rollout_logprobs": rng.normal(-np.log(VOCABULARY), 0.2, len(written)),
                        "rewards": float(rng.integers(0, 2)),  # of a trajectory, that of its last row counts
                        "trajectory_ids": f"{task}.{attempt}",
                        "instance_ids": task,
                        "is_last_step": turn == TURNS - 1,
                    }
                )
                shown += [written[-8:], say(16)]  # and what a tool answers
    return Rollouts.from_rows(rows)


def scored(rollouts: Rollouts) -> Rollouts:
    """Add what the loss needs of the whole step: a token that rows share has another advantage in each."""
    return rollouts.with_columns(
        advantages=rollkit.advantages(rollouts), loss_weights=rollkit.loss_weights(rollouts)
    )


def train(model: nn.Module, rollouts: Rollouts, share_prefixes: bool) -> tuple[int, float]:
    """Do one step; return how many tokens the model computed, and how long it took."""
    optimizer = torch.optim.AdamW(model.parameters())
    begun = time.process_time()
    batch = rollkit.pack(rollouts, CAPACITY, share_prefixes=share_prefixes).to("torch")
    torch.autograd.backward(loss(model, batch))
    optimizer.step()
    return batch.layout.num_placed, time.process_time() - begun


def loss(model: nn.Module, batch: Batch, score: Score = rollkit.next_token_logprobs) -> Tensor:
    """The loss of PPO and GRPO, on rows: nothing in it knows whether they were packed or shared."""
    logits = model(batch["input_ids"], batch["positions"], attention(batch))
    columns = score(logits, batch), "rollout_logprobs", "advantages", "loss_weights"
    rows = [batch.unpack(column) for column in columns]  # where rows share tokens, their gradients add up
    logprobs, old, advantages, weights = (torch.as_tensor(column.flat) for column in rows)
    ratio = (logprobs - old).exp()
    clipped = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - CLIP, 1 + CLIP))
    return (weights * clipped).sum()


def attention(batch: Batch) -> Attend:
    """How a model attends in this batch, packed or shared.

    On a GPU: `partial(flex_attention, block_mask=segments.block_mask(batch.layout, device="cuda"))`.
    """
    mask = torch.from_numpy(segments.dense_mask(batch.layout))
    mask |= torch.eye(mask.shape[-1], dtype=torch.bool)  # padding, too, attends to something
    return partial(functional.scaled_dot_product_attention, attn_mask=mask[:, None])


def exact_logprobs(logits: Tensor, batch: Batch) -> Tensor:
    """What `next_token_logprobs` gives in float32, in the model's own precision."""
    before, token = (torch.from_numpy(found) for found in batch.layout.edges())
    ids = batch["input_ids"].flatten()[token].long()
    found = logits.flatten(0, 1)[before].log_softmax(-1).gather(1, ids[:, None])[:, 0]
    return logits.new_zeros(batch.layout.size).index_put((token,), found).view(batch.layout.shape)


def gradient(model: nn.Module, rollouts: Rollouts, share_prefixes: bool, score: Score) -> Tensor:
    """`[parameters]`: the gradient of one step."""
    batch = rollkit.pack(rollouts, CAPACITY, share_prefixes=share_prefixes).to("torch")
    found = torch.autograd.grad(loss(model, batch, score), [*model.parameters()])
    return torch.cat([part.flatten() for part in found])


class Block(nn.Module):
    """A layer of a transformer as they are now: RMSNorm, rotary positions, SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_gate = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(2 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        heads = self.qkv(self.before_attention(x)).unflatten(-1, (3, HEADS, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # [bins, heads, tokens, …] each
        seen = attend(rotated(q, positions), rotated(k, positions), v)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        gate, up = self.gate(self.before_gate(x)).chunk(2, -1)
        found: Tensor = x + self.down(functional.silu(gate) * up)
        return found


class Transformer(nn.Module):
    """Ids and positions to logits; `attend` mixes tokens, and nothing else does."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, positions, attend)
        logits: Tensor = self.head(self.norm(x))
        return logits


def rotated(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary embedding, by the place of a token in its row, not in memory."""
    half = x.shape[-1] // 2
    rates = 10_000.0 ** -(torch.arange(half, dtype=x.dtype) / half)
    angles = positions[:, None, :, None] * rates
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def small_model(dtype: Any = torch.float32) -> nn.Module:
    """A transformer of random weights, each time the same."""
    torch.manual_seed(0)
    return Transformer().to(dtype)


if __name__ == "__main__":
    main()
