"""What calls cost beside their bytes, and short rows: CPU time, the least of many, in one process.

    python benches/record_fixed.py                    # this checkout
    python benches/record_fixed.py --before PYTHON    # beside another checkout's `python` folder, in turn

Each version runs in processes of its own, in turns with the other.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 3


def least(call: Callable[[], Any], times: int = 400) -> float:
    """Microseconds of CPU."""
    for _ in range(min(times, 30)):
        call()
    best = float("inf")
    for _ in range(times):
        begun = time.thread_time_ns()
        call()
        best = min(best, time.thread_time_ns() - begun)
    return best / 1e3


def small() -> dict[str, float]:
    """Calls on a handful of rows."""
    import rollkit as rk
    from rollkit.routing import split_routes

    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 99, 8).astype(np.int32) for _ in range(8)]
    responses = [rng.integers(1, 99, 12).astype(np.int32) for _ in range(8)]
    columns: dict[str, Any] = {
        "prompt_token_ids": rk.Ragged.from_rows(prompts),
        "response_ids": rk.Ragged.from_rows(responses),
        "loss_masks": rk.Ragged.from_rows([np.ones(12, np.uint8)] * 8),
        "rollout_logprobs": rk.Ragged.from_rows([np.zeros(12, np.float32)] * 8),
        "rewards": np.zeros(8, np.float32),
    }
    rollouts = rk.Rollouts(columns)
    one = rk.Rollouts({"prompt_token_ids": prompts[:1], "response_ids": responses[:1]})
    parts = [rk.Rollouts({**columns}) for _ in range(3)]
    batch = rk.pack(rollouts, 64)
    out = np.zeros(batch.layout.shape, np.float32)
    steps: dict[str, Any] = {
        "prompt_token_ids": [list(range(1, 4 + 5 * i)) for i in range(8)],
        "response_ids": [[4 + 5 * i, 5 + 5 * i] for i in range(8)],
        "loss_masks": [[1, 1]] * 8,
        "is_last_step": [False] * 7 + [True],
    }
    steps_of = rk.Rollouts(steps)
    routes = np.zeros((12, 4, 2), np.uint8)
    payload = {
        "data": base64.b64encode(routes.tobytes()).decode(),
        "shape": list(routes.shape),
        "dtype": "uint8",
        "start": 0,
    }
    calls: dict[str, Callable[[], Any]] = {
        "pack, 8 rows × 20 tokens, five columns": lambda: rk.pack(rollouts, 64),
        "pad, the same": lambda: rk.pad(rollouts),
        "pack, one row, two columns": lambda: rk.pack(one, 64),
        "take(x, batch.responses), 8 rows": lambda: rk.take(out, batch.responses),
        "Layout.concat, 8 rows": lambda: rk.Layout.concat([5, 6, 7, 8, 5, 6, 7, 8]),
        "Ragged.take, 4 rows": lambda: columns["response_ids"].take([0, 3, 5, 1]),
        "concat, 3 Rollouts": lambda: rk.concat(parts),
        'Batch.to("torch"), 6 arrays': lambda: batch.to("torch"),
        "split_routes, base64, 12 rows": lambda: split_routes(payload, [12]),
        "merge_steps, 8 steps": lambda: rk.merge_steps(steps_of),
    }
    return {name: least(call) for name, call in calls.items()}


def large() -> dict[str, float]:
    """Many short rows, and the peers beside them."""
    import torch

    import rollkit as rk

    rng = np.random.default_rng(0)
    found: dict[str, float] = {}
    tensors = [torch.arange(40, dtype=torch.int32) for _ in range(1000)]
    found["1 000 tensors × 40 to Ragged"] = least(lambda: rk.Ragged.from_rows(tensors), 30)
    found["  torch.cat"] = least(lambda: torch.cat(tensors), 30)
    sources = [
        {
            "response_ids": rk.Ragged.from_rows([np.arange(40, dtype=np.int32)] * 8),
            "loss_masks": rk.Ragged.from_rows([np.ones(40, np.uint8)] * 8),
        }
        for _ in range(640)
    ]
    rollouts = [rk.Rollouts(source) for source in sources]
    found["pack, 640 parts of 8 rows"] = least(lambda: rk.pack(rollouts, 4096), 10)
    found["  concat, then pack"] = least(lambda: rk.pack(rk.concat(rollouts), 4096), 10)
    arrays = [np.arange(40, dtype=np.int32) for _ in range(100_000)]
    found["100 000 arrays × 40 to Ragged, heap order"] = least(lambda: rk.Ragged.from_rows(arrays), 5)
    found["  np.concatenate"] = least(lambda: np.concatenate(arrays), 5)
    shuffled = [arrays[i] for i in rng.permutation(len(arrays))]
    found["100 000 arrays × 40 to Ragged, shuffled heap"] = least(lambda: rk.Ragged.from_rows(shuffled), 5)
    found["  np.concatenate, shuffled"] = least(lambda: np.concatenate(shuffled), 5)
    lengths = rng.integers(1, 80, 200_000)
    rows = rk.Ragged(np.arange(lengths.sum(), dtype=np.int32), np.append(0, np.cumsum(lengths)))
    layout = rk.Layout.pack(lengths, 4096)
    out = np.empty(layout.shape, np.int32)
    found["place, 200 000 rows × 40, ns a row"] = least(lambda: rk.place(rows, layout, out=out), 7) / 200
    many = rng.lognormal(np.log(3800) - 0.405, 0.9, 10_000_000).clip(1, 32768).astype(np.int64)
    found["Layout.pack, 10⁷ rows, ns a row"] = least(lambda: rk.Layout.pack(many, 32768), 2) / 1e4
    return found


def measured(folder: str) -> dict[str, float]:
    """All figures of a version, in a process of its own."""
    code = f"import sys; sys.path.insert(0, {folder!r}); sys.argv = ['', '--figures']; import runpy; "
    code += f"runpy.run_path({__file__!r}, run_name='__main__')"
    environment = {**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", help="the `python` folder of another checkout, built")
    parser.add_argument("--figures", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.figures:
        print(json.dumps(small() | large()))
        return
    here = str(Path(__file__).resolve().parents[1] / "python")
    folders = {"before": options.before, "after": here} if options.before else {"after": here}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in folders}
    for _ in range(ROUNDS):
        for name, folder in folders.items():
            rounds[name].append(measured(str(Path(folder).resolve())))
    print("| what (µs of CPU, the least; three rounds in turns) | " + " | ".join(folders) + " |")
    print("|---|" + "---|" * len(folders))
    for what in rounds["after"][0]:
        cells = [f"{min(found[what] for found in rounds[name]):,.1f}" for name in folders]
        print(f"| {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
