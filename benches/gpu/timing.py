"""Contenders timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from gpu.setting import Setting

Run = Callable[[], object]
Timing = dict[str, Any]
ROUNDS = 9
SAMPLE = 2e-3  # seconds, at least, of calls between two readings of the clock


def timing(setting: Setting, what: str, runs: dict[str, Run], *, moved: int = 0) -> Timing:
    """Medians in milliseconds, contenders in turn.

    Args:
        setting: where.
        what: is timed.
        runs: ours first.
        moved: bytes that a copy reads, for a bandwidth; 0 for none.
    """
    rounds = ROUNDS if setting.on_gpu else 1
    calls, failed = {}, {}
    for name, run in list(runs.items()):
        try:
            run()  # compiles and allocates
            once = max(clocked(setting, run, 1) for _ in range(2))
            calls[name] = max(1, min(50, round(SAMPLE / max(once, 1e-7)))) if setting.on_gpu else 1
        except Exception as error:  # a peer that does not run here is no reason to time none
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            if name == next(iter(runs)):
                raise
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, found in times.items():
            found.append(clocked(setting, runs[name], calls[name]))
    result: Timing = {"what": what, "ms": {name: 1e3 * median(found) for name, found in times.items()}}
    if moved:
        result["gb"] = moved / 1e9
    return result | ({"failed": failed} if failed else {})


def clocked(setting: Setting, run: Run, calls: int) -> float:
    """Seconds of a call."""
    if not setting.on_gpu:
        begin = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - begin) / calls
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / calls
