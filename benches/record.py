"""Measure rollkit beside its peers and record the ratios: `python benches/record.py [NAME…]`.

Every case runs its contenders in turn, round after round, in one process, and takes medians, so that a
busy machine slows all of them alike. The limit is a copy of the output's bytes into fresh memory (or,
where the case says warm, into memory that has been written before).

Prints a Markdown table and writes it, with date and machine, to benches/results/.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import datetime
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson

import rollkit
from rollkit import _native, testing
from rollkit.compat import skyrl
from rollkit.routing import RouteBuilder, split_routes
from test_skyrl import generator_outputs, log_normal, slice_assign

Run = Callable[[], object]
HERE = Path(__file__).parent
RNG = np.random.default_rng(0)


@dataclass
class Case:
    """What is compared: `ours` first, then peers and limits by name."""

    what: str
    runs: dict[str, Run]
    target: str
    rounds: int = 15


CASES: dict[str, Callable[[], Iterator[Case]]] = {}


def case(make: Callable[[], Iterator[Case]]) -> Callable[[], Iterator[Case]]:
    """Register a group of cases by its function's name."""
    CASES[make.__name__] = make
    return make


def fresh(*arrays: Any) -> Run:
    """Copy into memory that the system hands out anew: the limit for a call that allocates."""
    return lambda: [array.copy() for array in arrays]


def warm(*arrays: Any) -> Run:
    """Copy into memory that has been written before: the limit for a call with `out=`."""
    targets = [np.empty_like(array) for array in arrays]

    def run() -> None:
        for target, array in zip(targets, arrays, strict=True):
            np.copyto(target, array)

    run()
    return run


def from_chain(rows: list[list[Any]], dtype: Any) -> object:
    """Flatten lists by NumPy's fastest way."""
    return np.fromiter(itertools.chain.from_iterable(rows), dtype, count=sum(map(len, rows)))


@case
def lists() -> Iterator[Case]:
    """Python lists to flat columns."""
    kinds: list[tuple[str, list[list[Any]], Any]] = [
        ("ints to int32", RNG.integers(300, 150_000, (1000, 4000)).tolist(), np.int32),
        ("floats to float32", (-RNG.random((1000, 4000))).tolist(), np.float32),
        ("masks to uint8", RNG.integers(0, 2, (1000, 4000)).tolist(), np.uint8),
    ]
    for name, rows, dtype in kinds:
        out = rollkit.Ragged.from_rows(rows, dtype)

        runs: dict[str, Run] = {
            "rollkit": partial(rollkit.Ragged.from_rows, rows, dtype),
            "np.fromiter": partial(from_chain, rows, dtype),
            "copy": fresh(out.values),
        }
        yield Case(f"1 000 lists × 4 000, {name}", runs, "≥ 5 × np.fromiter", 7)


@case
def arrays() -> Iterator[Case]:
    """NumPy rows to one array."""
    for count, length, target in (
        (100_000, 40, "≥ 6 × np.concatenate"),
        (1000, 40_000, "≥ 0.95 × np.concatenate"),
    ):
        rows = [RNG.integers(0, 1000, length).astype(np.int32) for _ in range(count)]
        runs: dict[str, Run] = {
            "rollkit": partial(rollkit.Ragged.from_rows, rows),
            "np.concatenate": partial(np.concatenate, rows),
            "copy": fresh(np.concatenate(rows)),
        }
        yield Case(f"{count:,} arrays × {length:,} int32 to `Ragged`", runs, target)
    parts = [rollkit.Ragged.from_rows(rows[i::4]) for i in range(4)]
    values = [part.values for part in parts]
    out = np.empty(sum(map(len, values)), np.int32)
    runs = {
        "rollkit": lambda: rollkit.concat(parts, out=out),
        "np.concatenate": lambda: np.concatenate(values, out=out),
        "copy": warm(out),
    }
    yield Case("`concat` of 4 long parts, warm `out=`", runs, "≥ 0.95 × np.concatenate")


def rollout_columns(count: int = 1024) -> dict[str, Any]:
    """Rollouts as arrays: log-normal response lengths of mean 3.8 k, one at the cap."""
    lengths = np.clip(RNG.lognormal(np.log(2600), 0.9, count), 1, 32_768).astype(int)
    prompts = np.clip(RNG.normal(512, 128, count), 1, None).astype(int)
    return {
        "prompt_token_ids": [RNG.integers(0, 150_000, n).astype(np.int32) for n in prompts],
        "response_ids": [RNG.integers(0, 150_000, n).astype(np.int32) for n in lengths],
        "loss_masks": [RNG.integers(0, 2, n).astype(np.uint8) for n in lengths],
        "rollout_logprobs": [RNG.random(n).astype(np.float32) for n in lengths],
        "rewards": RNG.random(count),
    }


@case
def packing() -> Iterator[Case]:
    """Rollouts to a packed batch."""
    columns = rollout_columns()
    batch = rollkit.pack(columns, 65_536)
    spare = rollkit.pack(columns, 65_536)
    outputs = list(batch.arrays.values())
    what = f"`pack` of 1 024 rollouts, {sum(a.nbytes for a in outputs) / 1e6:.0f} MB out"
    runs: dict[str, Run] = {"rollkit": lambda: rollkit.pack(columns, 65_536), "copy": fresh(*outputs)}
    yield Case(f"{what}, fresh", runs, "≤ 1.5 × copy")
    runs = {"rollkit": lambda: rollkit.pack(columns, 65_536, out=spare), "copy": warm(*outputs)}
    yield Case(f"{what}, warm `out=`", runs, "≤ 1.2 × copy")


@case
def bins() -> Iterator[Case]:
    """Row lengths to bins."""
    for count, target in ((100_000, "≤ 10 ms"), (1_000_000, "≤ 150 ms")):
        lengths = np.clip(RNG.lognormal(np.log(2600), 0.9, count), 1, 32_768).astype(np.int64)
        runs: dict[str, Run] = {
            "rollkit": partial(rollkit.plan_bins, lengths, 65_536),
            "copy": fresh(lengths),
        }
        yield Case(f"`plan_bins` (first fit decreasing), {count:,} rows", runs, target, 7)
    few = lengths[:2000]
    runs = {
        "rollkit": lambda: rollkit.plan_bins(few, 65_536),
        "quadratic": lambda: testing.plan_bins_reference(few, 65_536),
    }
    yield Case("`plan_bins`, 2 000 rows", runs, "the same bins", 5)


def jsonl_text(rows: int = 400) -> bytes:
    """JSONL with log-probabilities as float32 prints them, and those as float64 does."""
    lines = []
    for i, n in enumerate(RNG.integers(500, 5000, rows).tolist()):
        logprobs = -RNG.random(n)
        lines.append(
            {
                "trajectory_ids": f"t{i}",
                "prompt_token_ids": RNG.integers(0, 131_072, 300).tolist(),
                "response_ids": RNG.integers(0, 131_072, n).tolist(),
                "loss_masks": RNG.integers(0, 2, n).tolist(),
                "rollout_logprobs": [float(str(x)) for x in logprobs.astype(np.float32)],
                "rewards": 1.0,
            }
        )
    return b"\n".join(map(orjson.dumps, lines))


def by_orjson(text: bytes, kinds: dict[str, Any]) -> object:
    """Read columns by way of Python objects."""
    rows = [orjson.loads(line) for line in text.splitlines()]
    return {key: from_chain([row[key] for row in rows], kind) for key, kind in kinds.items()}


@case
def jsonl() -> Iterator[Case]:
    """JSONL to columns, one core."""
    kinds = {
        "prompt_token_ids": np.int32,
        "response_ids": np.int32,
        "loss_masks": np.uint8,
        "rollout_logprobs": np.float32,
    }
    hints = {name: np.dtype(kind) for name, kind in kinds.items()}
    texts = {"synthetic": jsonl_text()}
    real = HERE.parents[1] / "shared" / "data" / "tau_airline.jsonl"
    if real.exists():
        texts["tau-bench airline"] = real.read_bytes()
    for name, text in texts.items():
        data = np.frombuffer(text, np.uint8)
        runs: dict[str, Run] = {
            "rollkit": partial(_native.parse_jsonl, data, hints=hints),
            "orjson + np.fromiter": partial(by_orjson, text, kinds),
        }
        yield Case(f"JSONL to columns, {name}, {len(text) / 1e6:.1f} MB", runs, "≥ 3.5 × orjson", 9)


@case
def merging() -> Iterator[Case]:
    """Steps to trajectories."""
    prompts, responses, last = [], [], []
    for _ in range(64):
        context = RNG.integers(0, 131_072, 30_000).astype(np.int32)
        for turn in range(64):
            prompts.append(context)
            responses.append(RNG.integers(0, 131_072, 100).astype(np.int32))
            context = np.concatenate([context, responses[-1], RNG.integers(0, 131_072, 300).astype(np.int32)])
            last.append(turn == 63)
    steps = {"prompt_token_ids": prompts, "response_ids": responses, "is_last_step": last}
    size = sum(prompt.nbytes for prompt in prompts)
    runs: dict[str, Run] = {
        "rollkit": lambda: rollkit.merge_steps(steps),
        "one read": lambda: [
            prompt.view(np.int64 if len(prompt) % 2 == 0 else np.int32).max() for prompt in prompts
        ],
    }
    yield Case(f"`merge_steps`, 64 × 64 turns, {size / 1e6:.0f} MB of prompts", runs, "≤ 3 × one read")


def kept(run: Run) -> Run:
    """Keep what a call returns as long as the turns of a few rollouts would, so that memory is not hot."""
    alive: deque[object] = deque(maxlen=64)
    return lambda: alive.append(run())


def by_whole_context(payload: dict[str, Any], start: int, lengths: list[int]) -> object:
    """Attribute routes as verifiers does: decode all, then copy each node's rows and repeat the last."""
    routes = np.frombuffer(binascii.a2b_base64(payload["data"]), np.uint8).reshape(payload["shape"])
    first, last = start + lengths[0], start + sum(lengths) - 1
    return routes[start:first].copy(), np.concatenate([routes[first:last], routes[-1:]])


@case
def routes() -> Iterator[Case]:
    """A turn's routes to its nodes."""
    for shape, retained, target in (((1_000_000, 8, 4), 100_001, 25), ((131_072, 48, 8), 3_073, 100)):
        routes = RNG.integers(0, 128, shape, dtype=np.uint8)
        payload = {"data": base64.b64encode(routes.tobytes()).decode(), "shape": shape, "dtype": "uint8"}
        start = shape[0] + 1 - retained
        lengths = [retained // 2, retained - retained // 2]
        rows = routes[start : start + lengths[0]], routes[start + lengths[0] :]
        what = f"`split_routes`, {retained:,} of {shape[0]:,} rows of {shape[1]} × {shape[2]} uint8"
        runs: dict[str, Run] = {
            "rollkit": partial(split_routes, payload, lengths, start=start),
            "the whole context": partial(by_whole_context, payload, start, lengths),
            "copy": fresh(*rows),
        }
        yield Case(f"{what}, base64", runs, f"≥ {target} × the whole context")
        ours = partial(split_routes, routes, lengths, start=start)
        runs = {"rollkit": kept(ours), "copy": kept(fresh(*rows))}
        yield Case(f"{what}, array", runs, "≤ 1.2 × copy", 201)


def by_concatenating(turns: list[Any]) -> object:
    """Grow routes turn by turn, as slime does."""
    routes = turns[0]
    for turn in turns[1:]:
        routes = np.concatenate([routes, turn])
    return routes


def by_appending(turns: list[Any]) -> object:
    """Grow routes turn by turn."""
    builder = RouteBuilder()
    for turn in turns:
        builder.append(turn)
    return builder.finish()


@case
def route_batches() -> Iterator[Case]:
    """Routes that grow, and routes to batches."""
    turns = [RNG.integers(0, 128, (2048, 48, 8), dtype=np.uint8) for _ in range(32)]
    runs: dict[str, Run] = {
        "rollkit": partial(by_appending, turns),
        "np.concatenate": partial(by_concatenating, turns),
        "copy": fresh(np.concatenate(turns)),
    }
    yield Case("`RouteBuilder`, 32 turns of 2 048 × 48 × 8 uint8", runs, "≤ 1.5 × copy")

    lengths = np.clip(RNG.lognormal(np.log(1500), 0.6, 64), 1, 6000).astype(int)
    rows = [RNG.integers(0, 128, (n, 48, 8), dtype=np.uint8) for n in lengths]
    padded = rollkit.Layout.pad(lengths)
    fill = np.arange(8, dtype=np.uint8)

    def by_assignment() -> object:
        out = np.empty((*padded.shape, 48, 8), np.uint8)
        out[...] = fill
        for line, row in zip(out, rows, strict=True):
            line[len(line) - len(row) :] = row
        return out

    runs = {
        "rollkit": lambda: rollkit.place(rows, padded, fill=fill),
        "fill, then assign": by_assignment,
        "writing it": lambda: np.empty((*padded.shape, 48, 8), np.uint8).fill(1),
    }
    what = f"64 trajectories of 48 × 8 uint8, {lengths.sum() * 384 / 1e6:.0f} MB,"
    yield Case(f"{what} to a rectangle, arange in padding", runs, "≤ 1.3 × writing it")
    runs = {
        "rollkit": lambda: rollkit.place(rows, rollkit.Layout.concat(lengths)),
        "copy": fresh(np.concatenate(rows)),
    }
    yield Case(f"{what} end to end", runs, "≤ 1.3 × copy")


@case
def generator_output() -> Iterator[Case]:
    """SkyRL's path: concat, validate and metrics; collation; turns."""
    outputs = generator_outputs()
    columns = [rollkit.Rollouts.from_generator_output(output) for output in outputs]
    arrays = [part.to_generator_output() for part in columns]
    masks = [mask for output in outputs for mask in output["loss_masks"]]

    def three_passes() -> object:
        return [sum(mask) for mask in masks], [np.asarray(mask) for mask in masks], np.concatenate(masks)

    joined = rollkit.concat(columns)
    tokens = [name for name in joined if isinstance(joined[name], rollkit.Ragged)]
    room = {name: np.empty_like(joined.ragged(name).values) for name in tokens}

    def on_columns(out: Any = None) -> object:
        joined = rollkit.concat(columns, out=out)
        joined.validate()
        return rollkit.rollout_metrics(joined)

    what = "concat, validate, metrics; 640 outputs × 8"
    contenders: tuple[tuple[str, Run, str], ...] = (
        ("lists", partial(skyrl.concatenate_generator_outputs, outputs), "≥ 5 × the passes"),
        ("NumPy rows", partial(skyrl.concatenate_generator_outputs, arrays), "≥ 30 × the passes"),
        ("`Ragged` columns, joined", on_columns, "≥ 30 × the passes"),
        ("`Ragged` columns, joined, warm `out=`", partial(on_columns, room), "≥ 30 × the passes"),
    )
    pieces = [[part.ragged(name).values for part in columns] for name in tokens]
    for name, ours, target in contenders:
        runs: dict[str, Run] = {"rollkit": ours, "three list passes over the masks alone": three_passes}
        if "joined" in name:
            runs["np.concatenate of the values alone"] = lambda: [np.concatenate(p) for p in pieces]
        yield Case(f"{what}, {name}", runs, target, 5)

    rows = log_normal(256)
    lists = tuple([row.tolist() for row in column] for column in rows)
    tensors = slice_assign(*rows)
    convert: Any = skyrl.convert_prompts_responses_to_batch_tensors
    runs = {"rollkit": partial(convert, 0, *lists), "slice assignment": partial(slice_assign, *lists)}
    yield Case("SkyRL collation of 256 rollouts, lists, bit-identical", runs, "≥ 2.5 × slice assignment", 7)
    runs = {
        "rollkit": partial(convert, 0, *rows),
        "writing the bytes once": lambda: [np.full(t.shape, 1, t.numpy().dtype) for t in tensors],
    }
    yield Case("SkyRL collation of 256 rollouts, arrays, bit-identical", runs, "≤ 1.3 × writing", 7)

    spans = np.random.default_rng(0).geometric(1 / 200, 50_000)
    turns = np.repeat(np.arange(len(spans)) % 2 == 0, spans)[:4_000_000].astype(np.uint8)
    for kind, values in (("one turn per row", np.ones_like(turns)), ("turns of 200 on average", turns)):
        mask = rollkit.Ragged(values, np.arange(5001) * 800)
        runs = {
            "rollkit": partial(rollkit.turn_lengths, mask),
            "max (one read)": values.max,
            "sum": values.sum,
        }
        yield Case(f"`turn_lengths`, 4 M uint8, {kind}", runs, "≤ 1.5 × one read")


def steps(run: Run) -> Run:
    """Repeat, so that what the contender before left in the caches does not decide."""

    def repeated() -> None:
        for _ in range(4):
            run()

    return repeated


@case
def sampler() -> Iterator[Case]:
    """Compact logits to tokens, one thread."""
    import runpy

    import torch

    from rollkit.decode import sample

    torch.set_num_threads(1)
    peers = runpy.run_path(str(HERE / "test_sample.py"))
    full, with_sort, rows = peers["branches"](peers["VOCAB"]), peers["with_sort"], peers["ROWS"]
    for size, target in ((2049, "≥ 500 × full, ≥ 8 × compact"), (65536, "≥ 40 × full, ≥ 20 × compact")):
        allowed = peers["codes"](size)
        compact = peers["branches"](size)
        masked = torch.ones(peers["VOCAB"], dtype=torch.bool)
        masked[torch.tensor(allowed.ids.tolist())] = False
        options = {"allowed": allowed, "seeds": np.arange(rows), **peers["OPTIONS"]}
        runs: dict[str, Run] = {
            "rollkit": steps(partial(sample, *compact, logprobs=None, **options)),
            "torch, full vocabulary": steps(partial(with_sort, *full, masked)),
            "torch, compact": steps(partial(with_sort, *compact, None)),
        }
        yield Case(f"4 × sample: V = 217 204, B = 16, CFG, top-p 0.9, C = {size}", runs, target, 9)


@case
def importing() -> Iterator[Case]:
    """Import time over NumPy's own."""

    def run(code: str) -> Run:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    runs: dict[str, Run] = {"rollkit": run("import rollkit"), "numpy": run("import numpy")}
    yield Case("`import rollkit`, process included", runs, "< 50 ms over NumPy")


def measure(found: Case) -> dict[str, float]:
    """Medians in seconds, contenders in turn."""
    times: dict[str, list[float]] = {name: [] for name in found.runs}
    for round_number in range(found.rounds + 1):
        for name, contender in found.runs.items():
            begin = time.perf_counter()
            result = contender()
            elapsed = time.perf_counter() - begin
            del result
            if round_number:  # the first round warms caches and page tables
                times[name].append(elapsed)
    return {name: median(values) for name, values in times.items()}


def row(found: Case, seconds: dict[str, float]) -> str:
    """One line of the table: our time, and the others' as multiples of it."""
    ours = seconds["rollkit"]
    others = ", ".join(f"{name} {time / ours:.2f} ×" for name, time in seconds.items() if name != "rollkit")
    return f"| {found.what} | {ours * 1e3:.2f} ms | {others} | {found.target} |"


def machine() -> str:
    """The processor and the versions that figures depend on."""
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("rollkit", "numpy", "orjson")
    )
    system = f"{platform.system()}, CPython {platform.python_version()}"
    return f"{processor}, {os.cpu_count()} cores, {system}, {versions}"


def report(
    name: str, cases: Iterable[Case], time_all: Callable[[Case], dict[str, float]], *, write: bool
) -> None:
    """Time cases, print a table of them, and keep it under benches/results/, dated."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    lines = [f"# {name.capitalize()} {today}".replace("  ", " "), "", machine(), ""]
    lines += ["Times are medians of interleaved runs; other columns are multiples of ours.", ""]
    lines += ["| what | rollkit | others, as multiples of rollkit's time | target |", "|---|---|---|---|"]
    print("\n".join(lines))
    raw = {}
    for found in cases:
        raw[found.what] = time_all(found)
        lines.append(row(found, raw[found.what]))
        print(lines[-1], flush=True)
    if write:
        target = HERE / "results" / f"{name}-{today}-{platform.machine()}".removeprefix("-")
        target.parent.mkdir(exist_ok=True)
        target.with_suffix(".md").write_text("\n".join(lines) + "\n")
        target.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")


def main() -> None:
    """Run the named groups, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    unknown = set(options.names) - CASES.keys()
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    found = (found for name in options.names or CASES for found in CASES[name]())
    report("", found, measure, write=not options.no_write)


if __name__ == "__main__":
    main()
