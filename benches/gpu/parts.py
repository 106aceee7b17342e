"""The parts by name, and the process that runs some of them and says line by line what came of it."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
import traceback
from typing import Any, NamedTuple, TextIO

SOFT = 0.6  # of a part's seconds, after which it begins no case
VERSIONS = ("numpy", "torch", "triton", "jax", "transformers", "flashinfer-python")


class Part(NamedTuple):
    """A function that yields what it has proved, as text, or timed, as dicts.

    Attributes:
        where: module and function.
        process: parts of one run in one process, one after the other.
        seconds: after which it is ended.
    """

    where: str
    process: str
    seconds: float


PROOFS = {
    "rows, torch": Part("rows:of_torch", "rows", 90),
    "forests, torch": Part("trees:of_torch", "rows", 60),
    "segments, torch": Part("metadata:of_torch", "rows", 60),
    "rows, JAX": Part("rows:of_jax", "JAX", 110),
    "segments, JAX": Part("metadata:of_jax", "JAX", 50),
    "forests, JAX": Part("trees:of_jax", "JAX", 50),
    "block masks of batches": Part("masks:of_batch", "attention", 40),
    "flex_attention of any shape": Part("masks:flex", "attention", 170),
    "flex_attention of one shape": Part("masks:flex_of_one_shape", "steps", 110),
    "gradients": Part("steps:gradients", "steps", 60),
    "sampler, torch and Triton": Part("draws:of_torch", "sampler", 150),
    "sampler, JAX": Part("draws:of_jax", "sampler, JAX", 120),
    "batches moved": Part("rows:moves", "sampler, JAX", 30),
}
TIMES = {
    "place and take": Part("times:rows", "times", 25),
    "sampler": Part("times:sampler", "times", 60),
    "scores": Part("times:scores", "times", 20),
    "metadata": Part("times:metadata", "times", 20),
    "transfers": Part("times:transfers", "times", 15),
    "attention": Part("models:attention", "times", 60),
    "Qwen3": Part("models:qwen3", "times", 90),
    "JAX": Part("times_jax:arrays", "times, JAX", 40),
}
PARTS = {f"proof: {name}": part for name, part in PROOFS.items()} | {
    f"times: {name}": part for name, part in TIMES.items()
}


def run(names: list[str], device: str, share: float, to: TextIO) -> None:
    """Run parts, and write what happens as lines of JSON; end the process where the device is lost."""

    def say(**event: Any) -> None:
        to.write(json.dumps(event) + "\n")
        to.flush()

    for name in names:
        part = PARTS[name]
        begin = time.monotonic()
        say(begin=name)
        try:
            module, function = part.where.split(":")
            setting = importlib.import_module("gpu.setting").Setting(
                device, share, begin + SOFT * part.seconds
            )
            for found in getattr(importlib.import_module(f"gpu.{module}"), function)(setting):
                say(found=found)
        except ModuleNotFoundError as error:
            say(left_out=f"no module {error.name}")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            say(
                failed=f"{type(error).__name__}: {str(error)[:2000]}", at=f"{where.name}, line {where.lineno}"
            )
            traceback.print_exc()
            if device == "cuda" and _is_lost():
                raise SystemExit(3) from None
        say(end=name, seconds=round(time.monotonic() - begin, 1))


def _is_lost() -> bool:
    """Whether the device answers no more: after a wrong access nothing runs in this process."""
    torch = sys.modules.get("torch")
    try:
        if torch is not None:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except RuntimeError:
        return True
    return False


def about(device: str) -> dict[str, str]:
    """The machine, the card and the versions."""
    found = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "python": platform.python_version()}
    found["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["rollkit"] = importlib.import_module("rollkit").__version__
    if device == "cuda":
        import torch

        found["card"] = torch.cuda.get_device_name()
        found["memory"] = f"{torch.cuda.get_device_properties(0).total_memory / 1e9:.0f} GB"
        found["cuda"] = str(torch.version.cuda)
    return found
