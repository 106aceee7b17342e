"""Rollouts that begin alike, and a model run on them: for tests of batches that share prefixes."""

from __future__ import annotations

from typing import Any

import numpy as np

from rollkit import Batch, Ragged
from rollkit.segments import dense_mask

Columns = dict[str, Any]

VOCABULARY = 5


def shared_rollouts(rng: np.random.Generator, rows: int, most: int = 5) -> Columns:
    """Rollouts of few tokens, which begin alike, with a column of each level and kind."""
    found: Columns = {name: [] for name in ("prompt_token_ids", "response_ids")}
    for row in range(rows):
        other = int(rng.integers(0, row)) if row and rng.random() < 0.8 else None
        whole = [] if other is None else found["prompt_token_ids"][other] + found["response_ids"][other]
        new = rng.integers(0, VOCABULARY, int(rng.integers(0, most))).tolist()
        tokens = whole[: int(rng.integers(0, len(whole) + 1))] + new
        cut = int(rng.integers(0, len(tokens) + 1))
        found["prompt_token_ids"].append(tokens[:cut])
        found["response_ids"].append(tokens[cut:])
    responses, prompts = found["response_ids"], found["prompt_token_ids"]
    both = [first + second for first, second in zip(prompts, responses, strict=True)]
    columns = {
        "loss_masks": [rng.integers(0, 2, len(row)).tolist() for row in responses],
        "rollout_logprobs": [rng.normal(size=len(row)).round(3).tolist() for row in responses],
        "prompt_kinds": [rng.integers(0, 9, len(row)).tolist() for row in prompts],
        "sampling_masks": [[list(range(int(rng.integers(0, 3)))) for _ in row] for row in responses],
        "entropies": Ragged.from_rows([rng.normal(size=(len(row), 2)) for row in responses]),
        "kinds": Ragged.from_rows([np.arange(len(row)) % 3 for row in both], np.int16),
    }
    scalars = {
        "rewards": rng.normal(size=rows).round(2) * [len(row) > 0 for row in responses],
        "task_ids": [f"task {int(rng.integers(0, 3))}" for _ in range(rows)],
    }
    return found | columns | scalars


LEVELS = {"kinds": "sequence", "entropies": "response"}


def lengths_of(columns: Columns) -> list[int]:
    return [
        len(first) + len(second)
        for first, second in zip(columns["prompt_token_ids"], columns["response_ids"], strict=True)
    ]


class Attending:
    """A model of one layer: what a token knows is what it attends to, by places in its row."""

    def __init__(self, torch: Any, dtype: Any, seed: int, width: int = 6) -> None:
        made = torch.Generator().manual_seed(seed)

        def weights(*shape: int) -> Any:
            drawn = torch.randn(shape, generator=made, dtype=torch.float64) * 0.4
            return drawn.to(dtype).requires_grad_()

        self.torch = torch
        self.tokens, self.places = weights(VOCABULARY, width), weights(64, width)
        self.q, self.k, self.v = (weights(width, width) for _ in range(3))
        self.head = weights(width, VOCABULARY)
        self.weights = [self.tokens, self.places, self.q, self.k, self.v, self.head]

    def logits(self, batch: Batch) -> Any:
        ids = self.torch.as_tensor(batch["input_ids"]).long()
        positions = self.torch.as_tensor(batch["positions"]).long()
        x = self.tokens[ids] + self.places[positions]
        mask = self.torch.as_tensor(dense_mask(batch.layout) | np.eye(ids.shape[1], dtype=bool))
        seen = (x @ self.q) @ (x @ self.k).transpose(-1, -2)
        x = x + seen.masked_fill(~mask, -self.torch.inf).softmax(-1) @ (x @ self.v)
        return x @ self.head

    def gradients(self, loss: Any) -> Any:
        found = self.torch.autograd.grad(loss, self.weights)
        return self.torch.cat([one.reshape(-1) for one in found])


def clipped(torch: Any, rows: Any, batch: Batch) -> Any:
    """PPO's clipped loss, with advantages and masks of each row."""
    old = torch.as_tensor(batch.unpack("rollout_logprobs").flat).to(rows.flat.dtype)
    counts = torch.as_tensor(batch.unpack("loss_masks").flat)
    owners = np.repeat(np.arange(batch.num_rows), batch.unpack("loss_masks").lengths)
    advantages = torch.as_tensor(np.asarray(batch.rows["rewards"])[owners]).to(rows.flat.dtype)
    ratio = (rows.flat - old * 0.1).exp()
    loss = -torch.minimum(ratio * advantages, ratio.clamp(0.1, 0.4) * advantages)
    return (loss * counts).sum()


def scores(torch: Any, model: Attending, batch: Batch) -> Any:
    """The log-probability of each token, in the model's own dtype: by `edges`."""
    logits = model.logits(batch)
    before, after = batch.layout.edges()
    ids = torch.as_tensor(batch["input_ids"]).reshape(-1)[after].long()
    found = logits.reshape(-1, VOCABULARY)[before].log_softmax(-1).gather(1, ids[:, None])[:, 0]
    flat = logits.new_zeros(batch.layout.size).index_put((torch.as_tensor(after),), found)
    return flat.reshape(batch.layout.shape)
