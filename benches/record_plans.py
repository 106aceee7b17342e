"""Plans: parts that cost the same, and steps of the optimizer.

    python benches/record_plans.py

Least CPU time of several runs; the peer runs in the same process. A section is a function that gives rows of
the table.
"""

from __future__ import annotations

import pickle
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rollkit as rk
from rollkit.testing import differencing_reference

COST = (24576, 1)

Section = Callable[[], dict[str, str]]


def least(call: Callable[[], Any], runs: int = 7) -> tuple[Any, float]:
    """What a call gives, and its CPU time in milliseconds."""
    best, found = float("inf"), None
    for _ in range(runs):
        begun = time.thread_time()
        found = call()
        best = min(best, time.thread_time() - begun)
    return found, best * 1e3


def log_normal(rows: int, seed: int = 1) -> NDArray[np.int64]:
    """Lengths of a reasoning run: σ = 0.9, median 2 617, 16 to 32 768."""
    return np.random.default_rng(seed).lognormal(7.87, 0.9, rows).clip(16, 32768).astype(np.int64)


def costs(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return COST[0] * lengths + COST[1] * lengths**2


def equal_counts() -> dict[str, str]:
    """Beside the largest differencing method, which trainers use, in Python as they do."""
    wanted = {
        (960, 64): "2 points over the bound, 0.6 ms",
        (9728, 512): "0.01 %, 25 ms",
        (999_936, 512): "0.001 %, 90 ms",
    }
    table = {}
    for (rows, parts), target in wanted.items():
        lengths = log_normal(rows)
        found, took = least(partial(rk.balance, lengths, parts, cost=COST, equal_counts=True))
        excess, bound = rk.imbalance(lengths, found, cost=COST)
        theirs, their_time = least(partial(differencing_reference, costs(lengths), parts), runs=1)
        their_excess, _ = rk.imbalance(lengths, theirs, cost=COST)
        table[f"balance, equal counts, {rows}/{parts} (wanted {target})"] = (
            f"{excess:.4%}, bound {bound:.4%}, {took:.2f} ms; "
            f"differencing {their_excess:.4%}, {their_time:.0f} ms"
        )
    return table


def free_counts() -> dict[str, str]:
    """Any number of rows a part."""
    table = {}
    for rows, parts, target in ((960, 64, "0.3 points over the bound"), (10**6, 512, "0.001 %, 140 ms")):
        lengths = log_normal(rows)
        found, took = least(partial(rk.balance, lengths, parts, cost=COST))
        excess, bound = rk.imbalance(lengths, found, cost=COST, equal_counts=False)
        table[f"balance, free counts, {rows}/{parts} (wanted {target})"] = (
            f"{excess:.4%}, bound {bound:.4%}, {took:.2f} ms"
        )
    return table


def within_a_capacity() -> dict[str, str]:
    """As many parts as first fit decreasing packs rows into, and one in twenty more."""
    table = {}
    lengths = log_normal(4096)
    needed = int(rk.plan_bins(lengths, 65536).max()) + 1
    for parts in (needed, needed * 21 // 20):
        found, took = least(partial(rk.balance, lengths, parts, cost=COST, capacity=65536))
        excess, _ = rk.imbalance(lengths, found, cost=COST)
        table[f"balance, capacity 64 k, 4096/{parts}; first fit decreasing needs {needed}"] = (
            f"{excess:.4%}, {took:.2f} ms"
        )
    return table


def steps() -> dict[str, str]:
    """Of one optimizer step."""
    table = {}
    cases = ((1024, 65536, 8, "0.2 %"), (4096, 65536, 64, "0.3 %"), (4096, 32768, 64, "8 %"))
    for rows, capacity, ranks, target in cases:
        lengths = log_normal(rows)
        for sync in ("micro_batch", "step"):
            plan, took = least(
                partial(rk.plan_steps, lengths, capacity=capacity, ranks=ranks, cost=COST, sync=sync)
            )
            name = f"plan_steps, {rows} rows, {capacity >> 10} k, {ranks} ranks, sync {sync}"
            name += f" (wanted {target}, 2 ms)" if sync == "micro_batch" else ""
            table[name] = (
                f"{plan.excess:.3%}, {plan.steps} micro-batches a rank, {took:.2f} ms, "
                f"{len(pickle.dumps(plan)) / rows:.1f} bytes a row"
            )
    return table


SECTIONS: tuple[Section, ...] = (equal_counts, free_counts, within_a_capacity, steps)


def main() -> None:
    """Print a table."""
    print(f"{platform.machine()}, CPython {platform.python_version()}, NumPy {np.__version__}\n")
    print("| what | got |\n|---|---|")
    for section in SECTIONS:
        for name, got in section().items():
            print(f"| {name} | {got} |", flush=True)


if __name__ == "__main__":
    main()
