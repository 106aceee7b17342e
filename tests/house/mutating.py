"""Calls native functions while another thread writes to what they read.

Run by `test_hostile.py`, as a process. Arguments: names of functions, the seconds for each, a seed. It ends
with 0 if every call returned, or refused as functions may; not after a panic, a crash or a hang.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from typing import Any

import numpy as np
from tests.house.native_calls import CALLS, replaced

from rollkit import _native

ROWS = 1 << 16
"""So many that arguments have more bytes than are looked at with the GIL."""

REFUSALS = (ValueError, TypeError, OverflowError, MemoryError, IndexError)


def arrays_of(call: Any) -> list[Any]:
    """The arrays among the arguments."""
    found: list[Any] = []

    def keep(array: Any) -> Any:
        found.append(array)
        return array

    replaced(call, keep)
    return found


def write(arrays: list[Any], rng: np.random.Generator, stop: threading.Event) -> None:
    """Write odd values to arrays, and back, until told to stop."""
    kept = [array.copy() for array in arrays]
    while not stop.is_set():
        at = int(rng.integers(len(arrays)))
        flat, good = arrays[at].reshape(-1), kept[at].reshape(-1)
        if len(flat):
            begin = int(rng.integers(len(flat)))
            odd = rng.integers(0, 256, min(64, len(flat) - begin) * flat.itemsize, np.uint8).view(flat.dtype)
            few = rng.integers(-3, 40, len(odd)).astype(flat.dtype)
            flat[begin : begin + len(odd)] = odd if rng.integers(2) else few
        time.sleep(rng.random() / 2000)
        if rng.random() < 0.9:  # so that most calls find good values, and some find others later
            flat[:] = good


def main(name: str, seconds: float, seed: int) -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(seconds + 60, exit=True)  # a call that does not end
    sys.setswitchinterval(1e-5)
    rng = np.random.default_rng(seed)
    function, end, calls, refused = getattr(_native, name), time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        call = CALLS[name](rng, ROWS)
        stop = threading.Event()
        writer = threading.Thread(target=write, args=(arrays_of(call), np.random.default_rng(seed), stop))
        writer.start()
        try:
            for _ in range(8):
                calls += 1
                try:
                    function(*call.args, **call.named)
                except REFUSALS:
                    refused += 1
        finally:
            stop.set()
            writer.join()
    if _native.panics():
        raise SystemExit(f"{name}: {_native.panics()} panics")
    sys.stdout.write(f"{name}: {calls} calls, {refused} refused\n")


if __name__ == "__main__":
    for one in sys.argv[1].split(","):
        main(one, float(sys.argv[2]), int(sys.argv[3]))
