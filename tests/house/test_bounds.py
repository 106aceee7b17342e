"""Time and memory are bounded by the input, or the call is refused; and nothing is kept."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.house import starved
from tests.thorough import by_level

from rollkit import pack, take

ROOT = Path(__file__).parents[2]


def run(module: str, *names: str) -> str:
    """What a module of this folder prints, run as a process."""
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    line = [sys.executable, "-m", f"tests.house.{module}", *names]
    done = subprocess.run(line, cwd=ROOT, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"after {done.stdout[-200:]}: {done.stderr[-2000:]}"
    return done.stdout


def test_huge_numbers_take_no_time_and_no_memory() -> None:
    assert run("bounds")


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how large the process is")
def test_without_memory_there_is_an_error_and_the_process_goes_on() -> None:
    names = (
        list(starved.CASES)
        if by_level(0, 1)
        else ["bins, best_fit_decreasing", "runs", "lists", "pack", "take", "gzip"]
    )
    said = run("starved", *names)
    assert said.count(" refused") == len(names)
    assert said.count(": 0 of") < len(names), said


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how large the process is")
def test_a_thousand_packs_keep_nothing() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 9, 3000) for _ in range(8)]

    def packs(count: int) -> tuple[int, int]:
        for _ in range(count):
            batch = pack({"response_ids": rows, "rewards": np.ones(8)}, 8192)
            take(batch["input_ids"], batch.layout)
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        return resident, len(os.listdir("/proc/self/fd"))

    packs(100)  # what is kept for good is there now
    before, files = packs(1)
    after, open_files = packs(by_level(1000, 1000, 20_000))
    assert open_files == files
    assert after - before < 8 << 20, "a thousand batches of a third of a megabyte leave less than ten of them"
