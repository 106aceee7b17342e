"""GRPO from sampling to the optimizer, whole, in seconds on a CPU: a small Qwen3 learns to repeat a token.

    python examples/grpo.py [steps]

It is asked with two tokens, and rewarded for each token of its answer that is the second of them. Weights are
random: nothing is downloaded. First it is checked what all rests on: however a step is packed and split over
ranks, its gradient is that of one padded batch.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

import rollkit
from rollkit import Batch, Rollouts
from rollkit.decode.generate import generate

VOCABULARY, END = 16, 0  # the last token of an answer
PROMPTS, SAMPLES, LONGEST = 16, 8, 8  # of a step, of a prompt, tokens of an answer
RANKS, CAPACITY = 2, 320  # who shares a step, tokens of a micro-batch
CLIP = 0.2


def train(model: Any, steps: int) -> list[float]:
    """Return the mean reward of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    rewards = []
    for step in range(steps):
        rollouts = answers(model, step)
        for rank in range(RANKS):  # in one process here, one after another; gradients add up
            for batch in micro_batches(rollouts, rank):
                torch.autograd.backward(loss(model, batch))
        optimizer.step()
        optimizer.zero_grad()
        rewards.append(float(np.mean(rollouts["rewards"])))
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step:3}: mean reward {rewards[-1]:.2f}", flush=True)
    return rewards


def answers(model: Any, step: int) -> Rollouts:
    """Sample answers to new prompts, and reward them."""
    prompts = np.random.default_rng(step).integers(1, VOCABULARY, (PROMPTS, 2)).repeat(SAMPLES, axis=0)
    rollouts = generate(model, list(prompts), max_new_tokens=LONGEST, eos=END, seeds=step)
    right = [
        np.count_nonzero(answer == prompt[-1])
        for prompt, answer in zip(prompts, rollouts["response_ids"], strict=True)
    ]
    return rollouts.with_columns(
        rewards=np.array(right) / LONGEST, instance_ids=np.arange(PROMPTS).repeat(SAMPLES)
    )


def micro_batches(
    rollouts: Rollouts, rank: int, *, ranks: int = RANKS, capacity: int = CAPACITY, dtype: Any = np.float32
) -> Iterator[Batch]:
    """What a rank runs of an optimizer step: every rank makes the same plan."""
    totals = rollkit.loss_totals(rollouts)  # where each rank has its own rollouts, the sum of theirs
    rollouts = rollouts.with_columns(
        advantages=rollkit.advantages(rollouts, by="instance_ids"),
        loss_weights=rollkit.loss_weights(rollouts, totals=totals, dtype=dtype),
    )
    lengths = rollouts.ragged("prompt_token_ids").lengths + rollouts.ragged("response_ids").lengths
    plan = rollkit.plan_steps(lengths, capacity=capacity, ranks=ranks)
    for rows, layout in plan.micro_batches(rank):
        batch = rollkit.pack(rollouts, rows=rows, layout=layout, names="hf", dtypes={"loss_weights": dtype})
        yield batch.to("torch")


def loss(model: Any, batch: Batch) -> Tensor:
    """A micro-batch's part of the objective: a sum, because its tokens are weighed by the whole step."""
    before, token = batch.layout.edges(where=batch["loss_masks"])  # what is trained, and what predicts it
    hidden = model.model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)[0]
    logits = model.lm_head(hidden.flatten(0, 1)[before])  # none for prompts and padding
    ids, old, advantages, weights = (
        batch[name].flatten()[token]
        for name in ("input_ids", "rollout_logprobs", "advantages", "loss_weights")
    )
    logprobs = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
    total: Tensor = (weights * clipped(logprobs, old, advantages)).sum()
    return total


def clipped(logprobs: Tensor, old: Tensor, advantages: Tensor) -> Tensor:
    """The loss of each token, of PPO and GRPO."""
    ratio = (logprobs - old).exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - CLIP, 1 + CLIP))


def padded_loss(model: Any, rollouts: Rollouts) -> Tensor:
    """The objective as it is written: a mean over all trained tokens of one padded batch."""
    scored = rollouts.with_columns(advantages=rollkit.advantages(rollouts, by="instance_ids"))
    batch = rollkit.pad(scored, side="right", names="hf").to("torch")
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    logprobs = logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[:, :, 0]
    old, advantages, masks = (batch[name][:, 1:] for name in ("rollout_logprobs", "advantages", "loss_masks"))
    return clipped(logprobs, old, advantages)[masks > 0].mean()


def gradient(model: Any, losses: Iterator[Tensor]) -> Tensor:
    """`[parameters]`: the gradient of a sum of losses."""
    model.zero_grad()
    for part in losses:
        torch.autograd.backward(part)
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def check_gradient(ways: int) -> float:
    """How far the gradient of a step that is split so many ways is from a padded batch's, in float64."""
    rollouts = answers(small_model(), 0)[::4]
    model = small_model(seed=1).double()  # not the one that sampled, so that ratios are not 1
    wanted = gradient(model, iter([padded_loss(model, rollouts)]))
    ranks = (micro_batches(rollouts, i, ranks=ways, dtype=np.float64) for i in range(ways))
    found = gradient(model, (loss(model, batch) for batches in ranks for batch in batches))
    return float((found - wanted).abs().max() / wanted.abs().max())


def small_model(seed: int = 0) -> Any:
    """A Qwen3 of random weights."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "head_dim": 16,
    }
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    tokens: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": END}
    model: Any = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, **tokens, initializer_range=0.1))
    return model.eval()


def main(steps: int = 100) -> None:
    torch.set_num_threads(1)  # more would wait for each other: the model is small
    for ways in (1, 2, 7):
        apart = check_gradient(ways)
        assert apart < 1e-10, apart
        print(f"gradient of packed micro-batches, split {ways} ways: {apart:.0e} from a padded batch's")
    rewards = train(small_model(), steps)
    first, last = np.mean(rewards[:10]), np.mean(rewards[-10:])
    print(f"mean reward of the first ten steps {first:.2f}, of the last ten {last:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
