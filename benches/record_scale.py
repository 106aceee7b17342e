"""A training step over Ray: ranks that place their own rows, beside drivers that gather them.

    python benches/record_scale.py [rollouts]

Wall-clock medians, interleaved, warm: memory of a batch is filled again. All processes are on one machine, so
that what crosses a network elsewhere is a view of shared memory here; who gathers lists pays for making and
pickling them. A section is a function of the scene that gives rows of the table.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import ray

import rollkit as rk
from rollkit.ray import Chunk, RankPlan, execute, plan, with_lengths

CAPACITY, PRODUCERS, RANKS, RUNS = 24576, 4, 2, 7
SMALL, MANY = 256, 50
"""Rows of a chunk, and chunks, where rows are picked."""
PART = 16
"""Lists are so slow that a part of the rollouts stands for all."""


class _Producer:
    """Makes a chunk."""

    @ray.method(num_returns=2)
    def make(self, seed: int, rows: int) -> Any:
        return with_lengths(made(seed, rows))


Producer: Any = ray.remote(num_cpus=0)(_Producer)


def made(seed: int, rows: int) -> rk.Rollouts:
    """Rollouts of some 4 000 tokens, 12 bytes each."""
    rng = np.random.default_rng(seed)
    prompts = rng.integers(64, 1024, rows)
    responses = rng.lognormal(7.82, 0.9, rows).clip(16, 20_000).astype(np.int64)

    def column(lengths: Any, dtype: Any) -> rk.Ragged:
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        values = rng.integers(0, 2 if dtype is np.uint8 else 150_000, offsets[-1], np.int64)
        return rk.Ragged(values.astype(dtype), offsets)

    return rk.Rollouts({
        "prompt_token_ids": column(prompts, np.int32),
        "response_ids": column(responses, np.int32),
        "loss_masks": column(responses, np.uint8),
        "rollout_logprobs": column(responses, np.float32),
        "advantages": column(responses, np.float32),
        "rewards": rng.normal(size=rows),
    })  # fmt: skip


class _Rank:
    """Has a batch, as a trainer does, and fills it again."""

    def __init__(self) -> None:
        self.batch: Any = None

    def place(self, plan: RankPlan, refs: Any) -> float:
        begun = time.perf_counter()
        self.batch = execute(plan, refs, out=self.batch)
        return time.perf_counter() - begun

    def take(self, batch: Any) -> None:
        """What comes from a driver: arrays, views of the store."""
        self.batch = batch

    def memory(self, plan: RankPlan, refs: Any) -> tuple[int, int]:
        """The memory of its own that making a batch takes, and the batch's bytes."""
        self.batch = None
        execute(plan[:1], refs)
        used, batch = most_memory(lambda: execute(plan, refs))
        return used, sum(array.nbytes for array in batch.values())


Rank: Any = ray.remote(num_cpus=0)(_Rank)


def most_memory(call: Callable[[], Any]) -> tuple[int, Any]:
    """The most memory of its own that this process has during a call, beyond what it had, and the result."""

    def anonymous() -> int:
        (kb,) = re.findall(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(kb) << 10

    seen, done = [anonymous()], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            seen.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = call()
    finally:
        done.set()
        watcher.join()
    return max([*seen, anonymous()]) - seen[0], result


class Scene(NamedTuple):
    """What all sections measure on."""

    ranks: list[Any]
    chunks: list[Chunk]
    plans: list[RankPlan]
    tokens: int
    bytes: int


Section = Callable[[Scene], dict[str, str]]


def interleaved(calls: dict[str, Callable[[], Any]], runs: int = RUNS) -> dict[str, float]:
    """Median seconds of each call, in turn; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs + 1):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begun)
    return {name: median(found[1:]) for name, found in times.items()}


def least(call: Callable[[], Any], runs: int = 21) -> float:
    """Least CPU time, in seconds."""
    times = []
    for _ in range(runs):
        begun = time.thread_time()
        call()
        times.append(time.thread_time() - begun)
    return min(times)


def planning(scene: Scene) -> dict[str, str]:
    lengths = ray.get([chunk.lengths for chunk in scene.chunks])
    rows = sum(map(len, lengths))
    calls: dict[str, Callable[[], Any]] = {
        "plan": lambda: plan(lengths, CAPACITY, RANKS),
        "plan_steps in it": lambda: rk.plan_steps(np.concatenate(lengths), capacity=CAPACITY, ranks=RANKS),
    }
    took = {name: least(call) for name, call in calls.items()}
    sizes = [len(pickle.dumps(part)) / len(part.rows) for part in scene.plans]
    return {
        f"plan of {rows:,} rows for {RANKS} ranks (wanted 3 ms), CPU": ", ".join(
            f"{name} {1e3 * seconds:.1f} ms" for name, seconds in took.items()
        ),
        "a rank's plan, pickled (wanted 24 bytes a row)": f"{max(sizes):.1f} bytes a row",
    }


def step(scene: Scene) -> dict[str, str]:
    """Beside one process that packs all, out of the same shared memory."""
    chunks = ray.get([chunk.ref for chunk in scene.chunks])
    own: list[Any] = [None] * RANKS
    refs = [chunk.ref for chunk in scene.chunks]

    def packed() -> None:
        for i, part in enumerate(scene.plans):
            own[i] = rk.pack(chunks, rows=part.rows, layout=part.layout, out=own[i])

    def placed() -> None:
        ray.get([rank.place.remote(p, refs) for rank, p in zip(scene.ranks, scene.plans, strict=True)])

    def one() -> None:
        for rank, part in zip(scene.ranks, scene.plans, strict=True):
            ray.get(rank.place.remote(part, refs))

    took = interleaved({"pack": packed, "one": one, "placed": placed})
    speed = {name: scene.tokens / seconds / 1e6 for name, seconds in took.items()}
    found = {name: f"{each:.0f} Mtok/s, {each / speed['pack']:.2f} ×" for name, each in speed.items()}
    return {
        "`pack(rows=, layout=, out=)` of all, one process": f"{speed['pack']:.0f} Mtok/s",
        "`execute`, both ranks at once (wanted 0.6 of `pack`)": found["placed"],
        "`execute`, one rank after the other": found["one"],
    }


def memory(scene: Scene) -> dict[str, str]:
    refs = [chunk.ref for chunk in scene.chunks]
    used, size = ray.get(scene.ranks[0].memory.remote(scene.plans[0], refs))
    text = f"{used / 2**20:,.0f} MB for {size / 2**20:,.0f} MB, {used / size:.3f} ×"
    return {"memory of a rank beyond the store (wanted 1.1 × its batch)": text}


def picking(scene: Scene) -> dict[str, str]:
    """Of many chunks, an eighth of the rows of each: the price of a task; what it saves is on a network."""
    chunks = [made(i, SMALL) for i in range(MANY)]
    refs = [ray.put(chunk) for chunk in chunks]
    part = plan(chunks, CAPACITY, 8)[0]
    calls: dict[str, Callable[[], Any]] = {
        name: lambda pick=pick, fetch=fetch: execute(part, refs, pick=pick, fetch=fetch)  # type: ignore[misc]
        for name, pick, fetch in (("whole", False, 2), ("picked", True, 2), ("fetch=8", True, 8))
    }
    took = {name: 1e3 * seconds / MANY for name, seconds in interleaved(calls, runs=3).items()}
    size = sum(column.nbytes for column in map(values_of, chunks[0].values()))
    text = ", ".join(f"{name} {each:.1f} ms" for name, each in took.items())
    return {f"a chunk of {size / 1e6:.1f} MB, of which a rank wants an eighth": text}


def values_of(column: Any) -> Any:
    return getattr(column, "values", column)


def gathering(scene: Scene) -> dict[str, str]:
    """Drivers that fetch all rollouts, pack them, and send each rank its batch."""
    refs = [chunk.ref for chunk in scene.chunks]
    own: list[Any] = [None]

    def by_ranks() -> None:
        plans = plan(scene.chunks, CAPACITY, RANKS)
        ray.get([rank.place.remote(part, refs) for rank, part in zip(scene.ranks, plans, strict=True)])

    def gather(parts: list[Any]) -> None:
        whole = {name: [row for part in ray.get(parts) for row in part[name]] for name in ray.get(refs[0])}
        pack_and_send(rk.Rollouts(whole))

    def pack_and_send(rollouts: rk.Rollouts) -> None:
        layout = rk.Layout.pack(lengths_of(rollouts), CAPACITY, bins_multiple_of=RANKS)
        own[0] = rk.pack(rollouts, layout=layout, out=own[0])
        sent = [ray.put(batch) for batch in own[0].split(RANKS)]
        ray.get([rank.take.remote(batch) for rank, batch in zip(scene.ranks, sent, strict=True)])

    took = interleaved(
        {"by ranks": by_ranks, "columns": lambda: pack_and_send(rk.concat(ray.get(refs)))}, runs=3
    )
    for kind, part, runs in (("arrays", 1, 3), ("lists", PART, 1)):
        parts = [rows_of.remote(ref, kind, part) for ref in refs]
        ray.wait(parts, num_returns=len(parts), fetch_local=False)
        took[kind] = part * interleaved({kind: lambda parts=parts: gather(parts)}, runs)[kind]  # type: ignore[misc]
        del parts
    found = {name: f"{seconds:.2f} s, {seconds / took['by ranks']:.1f} ×" for name, seconds in took.items()}
    return {
        "a step: plan, and both ranks place": f"{took['by ranks']:.2f} s",
        "a driver that gathers columns, packs and sends (all is in one memory here)": found["columns"],
        "a driver that gathers an array a row (wanted 3 ×)": found["arrays"],
        f"a driver that gathers lists (wanted 20 ×; {PART} × the time of 1/{PART})": found["lists"],
    }


@ray.remote(num_cpus=0)
def rows_of(rollouts: rk.Rollouts, kind: str, part: int) -> Any:
    """Some rollouts as trainers have them: a list or an array for each row of a column."""
    some = rollouts[: len(rollouts) // part].items()
    if kind == "arrays":
        return {name: list(map(np.array, c)) if isinstance(c, rk.Ragged) else c for name, c in some}
    return {name: c.to_list() if isinstance(c, rk.Ragged) else np.asarray(c).tolist() for name, c in some}


def lengths_of(rollouts: rk.Rollouts) -> Any:
    return rollouts.ragged("prompt_token_ids").lengths + rollouts.ragged("response_ids").lengths


SECTIONS: tuple[Section, ...] = (planning, step, memory, picking, gathering)


def main(rows: int = 20_000) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=7 << 30,
    )
    try:
        producers = [Producer.remote() for _ in range(PRODUCERS)]
        chunks = [Chunk(*p.make.remote(i, rows // PRODUCERS)) for i, p in enumerate(producers)]
        lengths = ray.get([chunk.lengths for chunk in chunks])
        tokens = int(sum(map(np.sum, lengths)))
        size = sum(values_of(c).nbytes for ref, _ in chunks for c in ray.get(ref).values())
        for producer in producers:
            ray.kill(producer)  # what they returned stays
        ranks = [Rank.remote() for _ in range(RANKS)]
        scene = Scene(ranks, chunks, plan(lengths, CAPACITY, RANKS), tokens, size)
        print(
            f"{rows:,} rollouts, {tokens / 1e6:.1f} M tokens, {scene.bytes / 1e9:.2f} GB, {PRODUCERS} chunks"
        )
        print(f"{len(scene.plans[0]):,} bins of {CAPACITY:,} on each of {RANKS} ranks\n")
        print("| what | got |\n|---|---|", flush=True)
        for section in SECTIONS:
            for what, got in section(scene).items():
                print(f"| {what} | {got} |", flush=True)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
