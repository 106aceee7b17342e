"""Build the bundled sample of rollouts, or check it against the model that made it.

The sample is real decoding output, at toy size: a randomly initialised Qwen3-MoE answers a few
tasks over several turns, every assistant token is sampled at temperature 1, and the file keeps the
log-probability of each sampled token and the experts the router picked, as they were during
decoding with a key-value cache. Before anything is written, one forward pass over each finished
sequence must give the same values. Weights come from NumPy, so that the model does not depend on
how a release of transformers initialises its layers.

    python scripts/make_sample.py            # write python/rollkit/sample/rollouts.jsonl
    python scripts/make_sample.py --check    # recompute the file's log-probabilities and routes

Needs torch and transformers. Two runs on one machine give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from transformers import DynamicCache, Qwen3MoeConfig, Qwen3MoeForCausalLM

from rollkit.decode._cached import cache_name

DEFAULT_OUT = Path(__file__).resolve().parents[1] / "python/rollkit/data/rollouts.jsonl"

# With this seed every expert picked leads the next one by at least 1e-5 in probability, where the
# rounding of float32 moves probabilities by about 2e-6: no route hangs on the order of additions.
SEED = 6
WEIGHT_STD = 0.25
# A larger output row makes the end-of-sequence token likely after some tokens, so that turns end.
EOS_SCALE = 1.5
TASKS = 8
TRIALS = 4
MAX_TURN_TOKENS = 512
LOGPROB_TOLERANCE = 1e-4

VOCAB = 512
BOS, EOS, ENV, ASSISTANT, FIRST_WORD = 1, 2, 3, 4, 5


class Row(TypedDict):
    """One trajectory, under the names of SkyRL's `GeneratorOutput`."""

    trajectory_ids: str
    instance_ids: str
    prompt_token_ids: list[int]
    response_ids: list[int]
    loss_masks: list[int]
    rollout_logprobs: list[float]
    rewards: float
    stop_reasons: str
    rollout_expert_indices: list[list[list[int]]]


class Model:
    """The sample's model, with the experts its routers pick recorded at every forward pass."""

    def __init__(self) -> None:
        """Build the model and fill its matrices from a fixed seed; norm weights stay at one."""
        options: dict[str, Any] = {
            "vocab_size": VOCAB,
            "hidden_size": 64,
            "intermediate_size": 128,
            "moe_intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "max_position_embeddings": 4096,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "attn_implementation": "eager",
            "experts_implementation": "eager",
            "dtype": torch.float32,
        }
        self.net: Any = Qwen3MoeForCausalLM(Qwen3MoeConfig(**options))
        self.net.train(False)
        rng = np.random.default_rng(SEED)
        with torch.no_grad():
            for _, weight in sorted(self.net.named_parameters()):
                if weight.ndim > 1:
                    drawn = rng.normal(0.0, WEIGHT_STD, tuple(weight.shape)).astype(np.float32)
                    weight.copy_(torch.from_numpy(drawn))
            self.net.lm_head.weight[EOS] *= EOS_SCALE
        self._picked: list[torch.Tensor] = []
        for layer in self.net.model.layers:
            layer.mlp.gate.register_forward_hook(self._record)

    def _record(self, module: Any, args: Any, output: tuple[torch.Tensor, ...]) -> None:
        """Keep the third output of a router, the expert ids, of shape [tokens, top-k]."""
        self._picked.append(output[2])

    @torch.no_grad()
    def forward(
        self, tokens: list[int], cache: DynamicCache | None = None
    ) -> tuple[torch.Tensor, list[list[list[int]]]]:
        """Feed tokens, after those in the cache if one is given.

        Returns:
            The next token's log-probabilities after each token, [tokens, vocab], and each token's
            routes, [tokens][layers][top-k], in the order in which the router gave them.
        """
        self._picked.clear()
        output = self.net(
            input_ids=torch.tensor([tokens]),
            use_cache=cache is not None,
            **{str(cache_name(self.net)): cache},
        )
        routes: list[list[list[int]]] = torch.stack(self._picked, dim=1).tolist()
        return torch.log_softmax(output.logits[0].float(), dim=-1), routes


def message(rng: np.random.Generator, start: int, mean_length: int) -> list[int]:
    """Draw a message that hands the turn to the assistant: start, words of skewed number, end."""
    length = 4 + int(rng.exponential(mean_length))
    return [start, *rng.integers(FIRST_WORD, VOCAB, length).tolist(), ASSISTANT]


def reward_of(prompt: list[int], response: list[int], mask: list[int]) -> float:
    """Return 1.0 if the assistant sampled the word its task asks for, the prompt's last one."""
    wanted = prompt[-2]
    return float(any(m and token == wanted for token, m in zip(response, mask, strict=True)))


def rollout(
    model: Model,
    task: int,
    trial: int,
    prompt: list[int],
    rng: np.random.Generator,
    sampler: torch.Generator,
) -> Row:
    """Decode one trajectory.

    An assistant turn ends with the end-of-sequence token. The environment then answers, until the
    trajectory has had its turns; a turn that exceeds its budget ends the trajectory at once. The
    last sampled token is never fed, so it has no routes, as in an inference engine.
    """
    cache = DynamicCache(config=model.net.config)
    response: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    routes: list[list[list[int]]] = []
    pending = prompt
    turns_left = int(rng.integers(1, 5))
    turn_tokens = 0
    while True:
        scores, fed = model.forward(pending, cache)
        routes += fed
        token = int(torch.multinomial(scores[-1].exp(), 1, generator=sampler))
        response.append(token)
        mask.append(1)
        # The shortest decimal that gives the same float32, which JSON then writes as it is.
        logprobs.append(float(str(np.float32(scores[-1, token].item()))))
        pending = [token]
        turn_tokens += 1
        if token == EOS:
            turns_left -= 1
            if turns_left == 0:
                break
            answer = message(rng, ENV, mean_length=24)
            response += answer
            mask += [0] * len(answer)
            logprobs += [0.0] * len(answer)
            pending = [token, *answer]
            turn_tokens = 0
        elif turn_tokens == MAX_TURN_TOKENS:
            break
    return {
        "trajectory_ids": f"task-{task}_{trial}",
        "instance_ids": f"task-{task}",
        "prompt_token_ids": prompt,
        "response_ids": response,
        "loss_masks": mask,
        "rollout_logprobs": logprobs,
        "rewards": reward_of(prompt, response, mask),
        "stop_reasons": "stop" if response[-1] == EOS else "length",
        "rollout_expert_indices": routes,
    }


def problems(model: Model, row: Row) -> list[str]:
    """Compare a row with one forward pass over its whole sequence; return what differs."""
    prompt, response, mask = row["prompt_token_ids"], row["response_ids"], row["loss_masks"]
    scores, routes = model.forward([*prompt, *response][:-1])
    sampled = torch.tensor(mask, dtype=torch.float32)
    targets = torch.tensor(response)
    expected = scores[len(prompt) - 1 :].gather(1, targets[:, None])[:, 0] * sampled
    stored = torch.tensor(row["rollout_logprobs"], dtype=torch.float32)
    found = []
    if stored.shape != expected.shape:
        found.append("log-probabilities: not one per response token")
    elif not bool((error := (stored - expected).abs().max()) <= LOGPROB_TOLERANCE):
        found.append(f"log-probabilities: off by up to {error:.2e}")
    if row["rollout_expert_indices"] != routes:
        found.append("routes: not those of the model")
    if row["rewards"] != reward_of(prompt, response, mask):
        found.append("reward: not that of its tokens")
    if row["stop_reasons"] != ("stop" if response[-1] == EOS else "length"):
        found.append("stop reason: not that of its last token")
    return [f"{row['trajectory_ids']}: {line}" for line in found]


def make_rows(model: Model) -> list[Row]:
    """Decode every trial of every task; the trials of a task share its prompt."""
    rng = np.random.default_rng(SEED + 1)
    sampler = torch.Generator().manual_seed(SEED + 2)
    rows = []
    for task in range(TASKS):
        prompt = message(rng, BOS, mean_length=40)
        rows += [rollout(model, task, trial, prompt, rng, sampler) for trial in range(TRIALS)]
    return rows


def main() -> int:
    """Write the sample, or with `--check` verify the one that is there."""
    parser = argparse.ArgumentParser(description="Build or check the bundled sample of rollouts.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the file to write or check")
    parser.add_argument("--check", action="store_true", help="check the file instead of writing it")
    args = parser.parse_args()

    # One thread, because the order of additions changes the last bits of a log-probability.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = Model()
    if args.check:
        text = args.out.read_text(encoding="utf-8")
        rows: list[Row] = [json.loads(line) for line in text.splitlines()]
    else:
        rows = make_rows(model)
    found = [line for row in rows for line in problems(model, row)]
    if found or not rows:
        print("\n".join(found) or "no rows", file=sys.stderr)
        return 1
    if not args.check:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
        args.out.write_text(text, encoding="utf-8", newline="\n")
    tokens = sum(len(row["prompt_token_ids"]) + len(row["response_ids"]) for row in rows)
    print(f"{args.out}: {len(rows)} rows, {tokens} tokens, agrees with the model")
    return 0


if __name__ == "__main__":
    sys.exit(main())
