"""Calls with little memory left: a MemoryError or a result, never the end of the process.

Run by `test_bounds.py`, as a process. The inputs are made first; then the process may grow by so many bytes
only, from nearly none on.
"""

from __future__ import annotations

import atexit
import gzip
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rollkit import (
    Forest,
    Layout,
    Ragged,
    Rollouts,
    balance,
    concat,
    decode,
    merge_steps,
    pack,
    pad,
    plan_bins,
    plan_steps,
    read,
    segments,
    take,
    turn_lengths,
)

ROOM = [1 << power for power in range(14, 27)]
"""Bytes that the process may grow by."""

ROWS = 300_000

Maker = Callable[[np.random.Generator], Callable[[], Any]]


def bins(algorithm: str) -> Maker:
    def make(rng: np.random.Generator) -> Callable[[], Any]:
        lengths = rng.integers(1, 9000, ROWS)
        return lambda: plan_bins(lengths, 9000, algorithm=algorithm)

    return make


def parts(equal_counts: bool) -> Maker:
    def make(rng: np.random.Generator) -> Callable[[], Any]:
        lengths = rng.integers(1, 9000, ROWS)
        return lambda: balance(lengths, 5000, capacity=2**40, equal_counts=equal_counts)

    return make


def step_plans(rng: np.random.Generator) -> Callable[[], Any]:
    lengths, home = rng.integers(1, 9000, ROWS), rng.integers(0, 8, ROWS)
    return lambda: plan_steps(lengths, capacity=65536, ranks=8, home=home, max_segments=40)


def packed(rng: np.random.Generator) -> Callable[[], Any]:
    lengths = rng.integers(1, 9, ROWS)
    return lambda: Layout.pack(lengths, 64, max_segments=9)


def forests(rng: np.random.Generator) -> Callable[[], Any]:
    rows = ragged(rng)
    return lambda: Forest.build(rows).pack(64, max_segments=9)


def runs(rng: np.random.Generator) -> Callable[[], Any]:
    ids = (np.arange(2_000_000) % 2 + 1).astype(np.int8)
    return lambda: segments.runs(ids)


def sample(rng: np.random.Generator) -> Callable[[], Any]:
    logits = rng.normal(size=(64, 20_000)).astype(np.float32)
    return lambda: decode.sample(logits, allowed=None, seeds=1, positions=np.arange(64), return_kept=True)


def lists(rng: np.random.Generator) -> Callable[[], Any]:
    rows = [[1, 2, 3]] * ROWS
    return lambda: Ragged.from_rows(rows)


def arrays(rng: np.random.Generator) -> Callable[[], Any]:
    rows = [np.arange(3)] * ROWS
    return lambda: Ragged.from_rows(rows)


def ragged(rng: np.random.Generator) -> Ragged:
    lengths = rng.integers(0, 9, ROWS)
    return Ragged(np.zeros(lengths.sum(), np.int64), np.append(0, np.cumsum(lengths)))


def joined(rng: np.random.Generator) -> Callable[[], Any]:
    rows = ragged(rng)
    return lambda: concat([rows, rows[::2], rows])


def columns(rng: np.random.Generator) -> Rollouts:
    rows = ragged(rng)
    return Rollouts(
        {"prompt_token_ids": rows, "response_ids": rows, "rollout_logprobs": rows.astype(np.float64)}
    )


def packs(rng: np.random.Generator) -> Callable[[], Any]:
    rollouts = columns(rng)
    return lambda: pack(rollouts, 64)


def pads(rng: np.random.Generator) -> Callable[[], Any]:
    rollouts = columns(rng)
    return lambda: pad(rollouts)


def takes(rng: np.random.Generator) -> Callable[[], Any]:
    layout = Layout.pack(rng.integers(1, 9, ROWS), 64)
    array = np.zeros(layout.shape, np.float32)
    return lambda: take(array, layout)


def selects(rng: np.random.Generator) -> Callable[[], Any]:
    rows = ragged(rng)
    order = rng.permutation(len(rows))
    return lambda: rows.take(order)


def casts(rng: np.random.Generator) -> Callable[[], Any]:
    rows = ragged(rng)
    return lambda: rows.astype(np.int32)


def turns(rng: np.random.Generator) -> Callable[[], Any]:
    masks = ragged(rng).astype(np.int8)
    masks.values[::2] = 1
    return lambda: turn_lengths(masks)


def steps(rng: np.random.Generator) -> Callable[[], Any]:
    rollouts = columns(rng).with_columns(trajectory_ids=np.arange(ROWS) // 3)
    return lambda: merge_steps(rollouts)


def unpacks(rng: np.random.Generator) -> Callable[[], Any]:
    handle, name = tempfile.mkstemp(".jsonl.gz")
    os.close(handle)
    Path(name).write_bytes(gzip.compress(b'{"response_ids": [1, 2, 3]}\n' * ROWS))
    atexit.register(os.unlink, name)
    return lambda: read(name)


CASES: dict[str, Maker] = {
    **{
        f"bins, {name}": bins(name)
        for name in ("first_fit_decreasing", "best_fit_decreasing", "first_fit", "next_fit")
    },
    "packed": packed,
    "forests": forests,
    "parts": parts(equal_counts=False),
    "parts of equal counts": parts(equal_counts=True),
    "step plans": step_plans,
    "runs": runs,
    "sample": sample,
    "lists": lists,
    "arrays": arrays,
    "concat": joined,
    "pack": packs,
    "pad": pads,
    "take": takes,
    "select": selects,
    "cast": casts,
    "turns": turns,
    "steps": steps,
    "gzip": unpacks,
}


def size() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main(name: str) -> None:
    call = CASES[name](np.random.default_rng(0))
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    refused = 0
    for room in ROOM:
        resource.setrlimit(resource.RLIMIT_AS, (size() + room, hard))
        try:
            call()
        except MemoryError:
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    call()
    sys.stdout.write(f"{name}: {refused} of {len(ROOM)} refused\n")


if __name__ == "__main__":
    for one in sys.argv[1:] or CASES:
        main(one)
