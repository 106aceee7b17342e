"""In and out: Arrow, lists per token, hashes, and an event loop beside calls in a thread.

    python benches/record_exchange.py

Medians of runs in turns, of CPU time where one thread works.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import rollkit as rk

RUNS = 7


def medians(**calls: Callable[[], Any]) -> dict[str, float]:
    """Seconds of CPU for each call, run in turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(RUNS):
        for name, call in calls.items():
            begun = time.thread_time()
            call()
            found[name].append(time.thread_time() - begun)
    return {name: statistics.median(times) for name, times in found.items()}


def arrow() -> dict[str, str]:
    """One chunk of 40 MB, in and out."""
    import pyarrow as pa

    rows = rk.Ragged(np.arange(10_000_000, dtype=np.int32), np.arange(0, 10_000_001, 2000))
    rollouts = rk.Rollouts({"response_ids": rows})
    table = pa.table(rollouts)
    times = medians(out=rollouts.__arrow_c_stream__, back=lambda: rk.Rollouts.from_arrow(table))
    back = rk.Rollouts.from_arrow(table).ragged("response_ids")
    assert back.values.ctypes.data == rows.values.ctypes.data
    return {
        "Arrow out, 40 MB in one chunk (wanted ≤ 0.05 ms)": f"{times['out'] * 1e3:.3f} ms, the same memory",
        "Arrow in, likewise": f"{times['back'] * 1e3:.3f} ms, the same memory",
    }


def lists() -> dict[str, str]:
    """Sampling masks of 250 000 tokens × 1–200 ids."""
    rng = np.random.default_rng(0)
    rows, tokens = 250, 1000
    sizes = rng.integers(1, 201, rows * tokens)
    ids = rng.integers(0, 150_000, int(sizes.sum())).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    flat = [ids[a:b].tolist() for a, b in pairwise(offsets)]
    nested = [flat[i * tokens : (i + 1) * tokens] for i in range(rows)]
    masks = rk.Ragged.from_rows(nested, np.int32, lists=True)
    responses = rk.Ragged(np.zeros(rows * tokens, np.int32), masks.offsets)
    bare = rk.Rollouts({"response_ids": responses})
    both = bare.with_columns(sampling_masks=masks)
    order = rng.permutation(rows)
    times = medians(
        read=lambda: rk.Ragged.from_rows(nested, np.int32, lists=True),
        bare=lambda: rk.pack(bare, 16384),
        both=lambda: rk.pack(both, 16384),
        copy=lambda: (ids.copy(), offsets.copy()),
        rows=lambda: ids[: len(ids) // rows * rows].reshape(rows, -1)[order],
    )
    packed = (times["both"] - times["bare"]) / times["copy"]
    by_row = f"NumPy's own copy row by row {times['rows'] / times['copy']:.2f} ×"
    return {
        "lists per token: lists in (wanted ≤ 3 ns an id)": f"{times['read'] / len(ids) * 1e9:.1f} ns",
        "lists per token: pack, over a copy of ids and offsets (wanted ≤ 1.5)": f"{packed:.2f} ×; {by_row}",
    }


def hashes() -> dict[str, str]:
    """Rows of 8 kB, and of 32 bytes."""
    values = np.random.default_rng(0).integers(0, 99, 10_000_000).astype(np.int32)
    long = rk.Ragged(values, np.arange(0, 10_000_001, 2000))
    short = rk.Ragged(values, np.arange(0, 10_000_001, 8))
    times = medians(long=long.hash, short=short.hash)
    return {
        "hash, rows of 8 kB (wanted ≥ 5 GB/s)": f"{values.nbytes / times['long'] / 1e9:.1f} GB/s",
        "hash, rows of 32 bytes": f"{times['short'] / len(short) * 1e9:.1f} ns a row",
    }


def stalls() -> dict[str, str]:
    """The longest pause of an event loop beside calls in a thread, on about 1 GB."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2000, 6000, 25_000)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    total = int(offsets[-1])
    masks, logprobs = np.ones(total, np.uint8), np.zeros(total, np.float32)
    columns = {
        "prompt_token_ids": rk.Ragged.from_rows([np.arange(9, dtype=np.int32)] * len(lengths)),
        "response_ids": rk.Ragged(rng.integers(0, 99, total).astype(np.int32), offsets),
        "loss_masks": rk.Ragged(masks, offsets),
        "rollout_logprobs": rk.Ragged(logprobs, offsets),
    }
    rollouts = rk.Rollouts(columns)
    turns = {**columns, "is_last_step": np.ones(len(lengths), bool)}

    async def longest(call: Callable[[], Any]) -> float:
        task = asyncio.get_running_loop().run_in_executor(None, call)
        worst, last = 0.0, time.perf_counter()
        while not task.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now
        await task
        return worst

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        line = json.dumps({"response_ids": list(range(3000)), "rewards": 1.0}) + "\n"
        path.write_text(line * (1_000_000_000 // len(line)))
        calls: dict[str, Callable[[], Any]] = {
            "pack": lambda: rk.pack(rollouts, 8192),
            "read": lambda: rk.read(path),
            "merge_steps": lambda: rk.merge_steps(turns),
        }
        return {
            f"event loop beside {name} of 1 GB (wanted ≤ 50 ms)": f"{asyncio.run(longest(call)) * 1e3:.0f} ms"
            for name, call in calls.items()
        }


def imports() -> dict[str, str]:
    """What `import rollkit` takes beyond NumPy."""

    def seconds(module: str) -> float:
        program = f"import time; a = time.process_time(); import {module}; print(time.process_time() - a)"
        found = [
            float(
                subprocess.run(
                    [sys.executable, "-c", program], capture_output=True, text=True, check=True
                ).stdout
            )
            for _ in range(15)
        ]
        return min(found)

    more = (seconds("rollkit") - seconds("numpy")) * 1e3
    return {"import rollkit over NumPy (wanted ≤ 25 ms)": f"{more:.0f} ms"}


def main() -> None:
    """Print a table."""
    print("| what | got |\n|---|---|")
    for part in (arrow, lists, hashes, stalls, imports):
        for name, got in part().items():
            print(f"| {name} | {got} |", flush=True)


if __name__ == "__main__":
    main()
