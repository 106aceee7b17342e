"""What part of a training step is data path: TRL's collator beside rollkit's bins, on one thread of a CPU.

    python benches/record_share.py [conversations]

A small Qwen3 is trained on the same conversations in each way. The data path is what a `DataLoader` does for
the next batch; the step is forward, backward and the optimizer. CPU time of one process, without workers.
What is done once, before training (TRL's packing, rollkit's plan or shards), is told apart.
"""

from __future__ import annotations

import logging
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

import datasets  # type: ignore[import-untyped]
import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl import pack_dataset  # type: ignore[attr-defined]
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

import rollkit
from rollkit.torch import PackedDataset

ROOT = Path(__file__).parents[1]
CAPACITY, LINES, VOCABULARY = 4096, 8, 4096
OF_A_MODEL = ("input_ids", "attention_mask", "position_ids", "labels")


class Way(NamedTuple):
    """A way from conversations to batches."""

    name: str
    once: float
    """Seconds before training."""
    loader: Iterable[dict[str, Any]]


def main(count: int = 400) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    rollouts = conversations(count)
    tokens = int(
        (rollouts.ragged("prompt_token_ids").lengths + rollouts.ragged("response_ids").lengths).sum()
    )
    print(
        f"{count:,} conversations, {tokens:,} tokens, bins of {CAPACITY:,}. Times per 1 000 trained tokens.\n"
    )
    print("| way | once | trained of all positions | data path | step | share |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for way in ways(rollouts, Path(folder)):
            report(way)
    grpo()


def conversations(count: int) -> rollkit.Rollouts:
    """Prompts of 16 to 200 tokens, responses of log-normal lengths."""
    rng = np.random.default_rng(0)
    prompts, responses = rng.integers(16, 200, count), rng.lognormal(5.8, 0.9, count).clip(16, 3800)
    make = [rng.integers(0, VOCABULARY, int(n)).astype(np.int32) for n in (*prompts, *responses)]
    return rollkit.Rollouts({"prompt_token_ids": make[:count], "response_ids": make[count:]})


def ways(rollouts: rollkit.Rollouts, folder: Path) -> Iterator[Way]:
    own = theirs(rollouts)
    padded = DataCollatorForLanguageModeling(pad_token_id=0)
    yield Way("TRL, padded, 8 a batch", 0.0, DataLoader(own, LINES, shuffle=True, collate_fn=padded))

    packed, once = timed(lambda: pack_dataset(own, CAPACITY, "bfd"))
    flat = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    yield Way(
        "TRL, `pack_dataset` and padding-free", once, DataLoader(packed, 1, shuffle=True, collate_fn=flat)
    )

    bins, once = timed(lambda: PackedDataset(rollouts, CAPACITY, names="hf"))
    yield Way("`PackedDataset`, in memory", once, DataLoader(bins, 1, shuffle=True))

    rollkit.save(rollouts, folder / "rollouts.parquet")
    command = [sys.executable, "-m", "rollkit", "pack", str(folder / "rollouts.parquet")]
    options = ["-o", str(folder / "shards"), "--capacity", str(CAPACITY), "--quiet"]
    _, once = timed(lambda: subprocess.run([*command, *options], check=True), time.perf_counter)
    bins = PackedDataset(folder / "shards", names="hf")
    yield Way("`PackedDataset`, of shards", once, DataLoader(bins, 1, shuffle=True))


def theirs(rollouts: rollkit.Rollouts) -> datasets.Dataset:
    """The same conversations as TRL has them: `input_ids` and `labels`."""
    both = zip(rollouts["prompt_token_ids"], rollouts["response_ids"], strict=True)
    ids = [np.concatenate(pair) for pair in both]
    labels = [
        np.concatenate([np.full(len(prompt), -100), row[len(prompt) :]])
        for prompt, row in zip(rollouts["prompt_token_ids"], ids, strict=True)
    ]
    return datasets.Dataset.from_dict({"input_ids": ids, "labels": labels})


def timed(call: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> tuple[Any, float]:
    begun = clock()
    return call(), clock() - begun


def report(way: Way, steps: int = 24) -> None:
    torch.manual_seed(0)
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters())
    paths, works, trained, positions = [], [], 0, 0
    batches = iter(way.loader)
    for _ in range(steps):
        begun = time.process_time()
        batch = next(batches)
        there = time.process_time()
        model(**{name: batch[name] for name in OF_A_MODEL if name in batch}, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        done = time.process_time()
        tokens = int((batch["labels"] != -100).sum())
        paths.append((there - begun) / tokens)
        works.append((done - there) / tokens)
        trained, positions = trained + tokens, positions + batch["labels"].numel()
    path, work = median(paths) * 1e6, median(works) * 1e6  # ms per 1 000 tokens
    share = path / (path + work)
    print(
        f"| {way.name} | {way.once * 1e3:,.0f} ms | {trained / positions:.0%} | {path:.2f} ms "
        f"| {work:,.0f} ms | {share:.2%} |",
        flush=True,
    )


def grpo(steps: int = 20) -> None:
    """The parts of a step of `examples/grpo.py`."""
    example = SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / "grpo.py")))
    model = example.small_model()
    parts, tokens = [], 0
    for step in range(steps):
        marks = [time.process_time()]
        rollouts = example.answers(model, step)
        marks.append(time.process_time())
        ranks = [[*example.micro_batches(rollouts, rank)] for rank in range(example.RANKS)]
        marks.append(time.process_time())
        example.gradient(model, (example.loss(model, batch) for batches in ranks for batch in batches))
        marks.append(time.process_time())
        parts.append(np.diff(marks) * 1e3)
        tokens = int(rollouts.ragged("response_ids").lengths.sum())
    sampling, path, training = np.median(parts, axis=0)
    print(
        f"\nexamples/grpo.py, a step of {len(rollouts)} rollouts and {tokens:,} trained tokens on two ranks: "
        f"sampling {sampling:.0f} ms, scores, plan and packing {path:.1f} ms, gradient {training:.0f} ms"
    )


def small_model() -> Any:
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, vocab_size=VOCABULARY))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
