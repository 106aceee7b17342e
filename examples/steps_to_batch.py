"""From agent turns to one training step: merge, score, pack, train, and check which tokens were trained.

Run it with a step-wise Parquet file, or without, on the sample that comes with rollkit:

    python examples/steps_to_batch.py [steps.parquet]
"""

import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import rollkit
from rollkit import Batch, Ragged, Rollouts

VOCABULARY, WIDTH = 512, 16
COLUMNS = ("prompt_token_ids", "response_ids", "loss_masks", "rollout_logprobs", "rollout_expert_indices")


def cut_at_turns(rollouts: Rollouts) -> Rollouts:
    """What an agent loop that records every call of the model has: one row per assistant turn.

    A turn's prompt is all that came before it; its response is what was sampled.
    """
    steps = []
    for row in range(len(rollouts)):
        prompt, response, mask, logprobs, routes = (rollouts[name][row] for name in COLUMNS)
        edges = np.flatnonzero(np.diff(mask, prepend=0, append=0))
        for begin, end in edges.reshape(-1, 2):
            steps.append(
                {
                    "prompt_token_ids": np.concatenate([prompt, response[:begin]]),
                    "response_ids": response[begin:end],
                    "loss_masks": mask[begin:end],
                    "rollout_logprobs": logprobs[begin:end],
                    # An engine has no route for the last token: it has not been through the model.
                    "rollout_expert_indices": routes[: len(prompt) + end - 1],
                    "rewards": rollouts["rewards"][row],
                    "instance_ids": rollouts["instance_ids"][row],
                    "is_last_step": end == edges[-1],
                }
            )
    return Rollouts.from_rows(steps)


class Toy(nn.Module):
    """Predicts a token from the mean of the embeddings before it, in its own segment alone."""

    def __init__(self) -> None:
        super().__init__()
        # float64, so that packed and row-by-row sums agree to many digits.
        self.embedding = nn.Embedding(VOCABULARY, WIDTH, dtype=torch.float64)
        self.head = nn.Linear(WIDTH, VOCABULARY, dtype=torch.float64)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """`[tokens]` log-probability of each token; 0 for the first of a segment.

        A running sum less what it was before the segment is a causal mask that segments do not cross.
        """
        ids = ids.long() % VOCABULARY
        embedded = self.embedding(ids)
        sums = embedded.cumsum(0)
        firsts = torch.arange(len(ids)) - positions
        seen = sums - sums[firsts] + embedded[firsts]
        logits = self.head(seen / (positions + 1).unsqueeze(1))
        before, after = logits[:-1].log_softmax(-1), ids[1:].unsqueeze(1)
        logprobs = torch.cat([torch.zeros(1, dtype=before.dtype), before.gather(1, after).squeeze(1)])
        return torch.where(positions > 0, logprobs, 0.0)


def losses(model: Toy, ids: Tensor, positions: Tensor, masks: Tensor, advantages: Tensor) -> Tensor:
    """`[tokens]`: the policy gradient loss of each token; 0 where it is not trained."""
    return torch.where(masks > 0, -advantages * model(ids, positions), 0.0)


def packed_losses(model: Toy, batch: Batch) -> Tensor:
    """`[bins, capacity]`: the loss of each token, bin by bin."""
    columns = [batch[name] for name in ("input_ids", "positions", "loss_masks", "advantages")]
    return torch.stack([losses(model, *line) for line in zip(*columns, strict=True)])


def row_losses(model: Toy, rollouts: Rollouts) -> Ragged:
    """The losses of the responses, one rollout at a time: what packing must not change."""
    rows = []
    columns = [rollouts[n] for n in ("prompt_token_ids", "response_ids", "loss_masks", "advantages")]
    for prompt, response, mask, advantage in zip(*columns, strict=True):
        ids = torch.from_numpy(np.concatenate([prompt, response]))
        masks, advantages = (
            torch.from_numpy(np.concatenate([np.zeros(len(prompt), own.dtype), own]))
            for own in (mask, advantage)
        )
        rows.append(losses(model, ids, torch.arange(len(ids)), masks, advantages)[len(prompt) :])
    return Ragged.from_rows(rows)


def lengths(rollouts: Rollouts) -> NDArray[np.int64]:
    """Tokens of each row: prompt and response."""
    return rollouts.ragged("prompt_token_ids").lengths + rollouts.ragged("response_ids").lengths


def check_trained(batch: Batch, steps: Rollouts) -> int:
    """The tokens under the batch's mask are those that were sampled: all of them, in their order."""
    masks = rollkit.take(batch["loss_masks"], batch.responses).flat
    trained = rollkit.take(batch["input_ids"], batch.responses).flat[masks > 0]
    sampled = steps.ragged("response_ids").flat[steps.ragged("loss_masks").flat > 0]
    assert int((batch["loss_masks"] > 0).sum()) == len(sampled)
    assert np.array_equal(trained, sampled)
    return len(trained)


def main(path: str | None = None) -> None:
    if path is None:
        trajectories = rollkit.read(rollkit.sample_path())
        steps = cut_at_turns(trajectories)
    else:
        steps = rollkit.read(path)
    print(f"{len(steps):,} assistant turns hold {lengths(steps).sum():,} tokens; each repeats all before it.")

    merged = rollkit.merge_steps(steps)
    print(f"merge_steps makes {len(merged):,} trajectories of them: {lengths(merged).sum():,} tokens.")
    if path is None:
        for name in COLUMNS:
            assert merged.ragged(name).equals(trajectories.ragged(name)), name
        print("They are the trajectories that the turns were cut from, token by token, route by route.")

    merged = merged.with_columns(advantages=rollkit.advantages(merged, by="instance_ids"))
    capacity = max(4096, 1 << int(lengths(merged).max() - 1).bit_length())
    batch = rollkit.pack(merged, capacity).to("torch")
    bins, full = len(batch["input_ids"]), batch.layout.utilisation
    print(f"pack puts them in {bins} bins of {capacity:,}, which are {full:.1%} full.")

    trained = check_trained(batch, steps)
    print(f"{trained:,} tokens are trained: those that were sampled, all of them, in their order.")

    torch.manual_seed(0)
    model = Toy()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    per_token = packed_losses(model, batch)
    unpacked = rollkit.take(per_token, batch.responses)
    by_row = torch.as_tensor(row_losses(model, merged).flat)
    apart = float((torch.as_tensor(unpacked.flat) - by_row).detach().abs().max())
    assert apart < 1e-9, apart
    print(f"Loss per token, packed and row by row: {apart:.0e} apart at most. No segment sees another.")

    loss = per_token.sum() / trained
    torch.autograd.backward(loss)
    optimizer.step()
    with torch.no_grad():
        after = packed_losses(model, batch).sum() / trained
    print(f"One step takes the loss from {loss:.6f} to {after:.6f}.")


if __name__ == "__main__":
    main(*sys.argv[1:2])
