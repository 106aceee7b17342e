"""Ctrl-C during a long native call: the call ends, and then there is a KeyboardInterrupt.

Run by `test_hostile.py`, as a process, with the name of a call and a factor of its size. It prints the
seconds from the signal to the exception, and those that the call takes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rollkit import _native, plan_bins, segments


def bins(size: float) -> Callable[[], Any]:
    lengths = np.random.default_rng(0).integers(1, 9000, int(20e6 * size))
    return lambda: plan_bins(lengths, 9000, algorithm="best_fit_decreasing")


def lines(size: float) -> Callable[[], Any]:
    line = b'{"response_ids": [1, 2, 3, 4, 5, 6, 7, 8], "rewards": 1.5}\n'
    text = np.frombuffer(line * int(500e6 * size / len(line)), np.uint8)
    return lambda: _native.parse_jsonl(text, hints={}, on_error="raise")


def runs(size: float) -> Callable[[], Any]:
    ids = (np.arange(int(30e6 * size)) % 2 + 1).astype(np.int8)
    return lambda: segments.runs(ids)


CASES = {"bins": bins, "lines": lines, "runs": runs}


def main(name: str, size: float) -> None:
    call = CASES[name](size)
    begun = time.monotonic()
    call()
    takes = time.monotonic() - begun
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(takes / 10, interrupt).start()
    try:
        call()
        time.sleep(60)  # the signal is handled here at the latest
    except KeyboardInterrupt:
        sys.stdout.write(json.dumps([time.monotonic() - sent[0], takes]))
        return
    raise SystemExit("no KeyboardInterrupt")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
