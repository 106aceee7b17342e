"""Supervised fine-tuning from a file to a trained model: shards, transformers' `Trainer`, and on from a stop.

    python examples/sft.py [epochs]

A small Qwen3 of random weights learns to count in steps: asked with 3, 2 it answers 5, 7, 9, … Its training
is stopped amid an epoch, goes on in a new trainer, and ends with the very weights of a run that was not
stopped: it saw every bin once, in the same order. All files are in `sft-out/`.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    Qwen3Config,
    Qwen3ForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import rollkit
from rollkit.torch import PackedDataset

OUT = Path("sft-out")
VOCABULARY, CAPACITY = 32, 128


def main(epochs: int = 4) -> None:
    torch.set_num_threads(1)  # more would wait for each other: the model is small
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    rollkit.save(conversations(800), OUT / "conversations.jsonl")
    pack(OUT / "conversations.jsonl", OUT / "shards")

    bins = PackedDataset(OUT / "shards", names="hf")  # input_ids, position_ids, labels; mapped into memory
    print(f"{bins}")

    whole = trainer(bins, "whole", epochs)
    whole.train()
    losses = [entry["loss"] for entry in whole.state.log_history if "loss" in entry]
    print(f"loss: {losses[0]:.2f} at first, {losses[-1]:.2f} at the end")

    stop = whole.state.max_steps * 3 // 8  # amid an epoch
    trainer(bins, "stopped", epochs, StopAt(stop)).train()
    again = trainer(bins, "stopped", epochs)
    again.train(resume_from_checkpoint=True)
    print(f"stopped at step {stop} of {again.state.max_steps}, and on from the checkpoint")
    same = all(
        torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True)
    )
    assert same
    print("its weights are those of the run that was not stopped, bit by bit")


def conversations(count: int) -> rollkit.Rollouts:
    """Prompts `start, step`, and responses that count on."""
    rng = np.random.default_rng(0)
    starts, steps = rng.integers(0, VOCABULARY, count), rng.integers(1, 4, count)
    lengths = rng.lognormal(2.5, 0.7, count).clip(2, 100).astype(np.int64)
    rows = zip(starts, steps, lengths, strict=True)
    return rollkit.Rollouts(
        {
            "prompt_token_ids": np.stack([starts, steps], axis=1),
            "response_ids": [(a + b * np.arange(1, n + 1)) % VOCABULARY for a, b, n in rows],
        }
    )


def pack(source: Path, folder: Path) -> None:
    """What `rollkit pack` does: once, before all training."""
    options = ["--capacity", str(CAPACITY), "--seed", "0", "--quiet"]
    command = [sys.executable, "-m", "rollkit", "pack", str(source), "-o", str(folder), *options]
    subprocess.run(command, check=True)


def trainer(bins: PackedDataset, name: str, epochs: int, *callbacks: TrainerCallback) -> Any:
    """A trainer as any other: packed bins are a data set, and segments are told by `position_ids`."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "head_dim": 16,
    }
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": VOCABULARY}
    arguments = TrainingArguments(
        str(OUT / name),
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=9,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    model: Any = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads))
    return Trainer(model, arguments, train_dataset=bins, callbacks=[*callbacks])


class StopAt(TrainerCallback):
    """Save and stop after a step, as a machine that is taken away does at best."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
