"""Native functions called with anything, and while their arguments are written to.

`_native` is private, but sound: whatever it is called with, it writes nothing outside its outputs, and it
returns or refuses. What it refuses is `tests/house/test_garbage.py`'s business.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.house.mutating import REFUSALS
from tests.house.native_calls import CALLS, FUNCTIONS, Call, replaced
from tests.thorough import by_level

from rollkit import _native

CANARY = 0xA5
MARGIN = 128
"""Bytes before and after each array."""

ROOT = Path(__file__).parents[2]


def test_every_native_function_is_called() -> None:
    assert set(FUNCTIONS) - {"Decompressor", "OnlinePacker", "TokenTree"} == set(CALLS)


class Guarded:
    """Arrays within larger ones, whose margins tell of writes outside."""

    def __init__(self) -> None:
        self.blocks: list[Any] = []
        self.made: dict[int, tuple[Any, Any]] = {}

    def array(self, array: Any) -> Any:
        """The same array with margins; of one array always one."""
        if array.dtype.hasobject or not array.flags.c_contiguous:
            return array
        if id(array) in self.made:
            return self.made[id(array)][1]
        block = np.full(array.nbytes + 2 * MARGIN, CANARY, np.uint8)
        inside = block[MARGIN : MARGIN + array.nbytes]
        inside[:] = np.frombuffer(array.tobytes(), np.uint8)
        self.blocks.append(block)
        self.made[id(array)] = array, inside.view(array.dtype).reshape(array.shape)
        return self.made[id(array)][1]

    def check(self) -> None:
        """Look at all margins."""
        for block in self.blocks:
            assert (block[:MARGIN] == CANARY).all(), "written before an array"
            assert (block[-MARGIN:] == CANARY).all(), "written after an array"


NUMBERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 7, 8, 16, 2**31 - 1, 2**32, 2**63 - 1, 2**64)
WORDS = ("", "raise", "drop", "alone", "next_fit", "first_fit", "causal", "padding", "float16", "ids", "é")
DTYPES = (
    "i1",
    "u1",
    "i4",
    "u4",
    "i8",
    "u8",
    "f2",
    "f4",
    "f8",
    "?",
    ">i4",
    ">i8",
    "c8",
    "M8[s]",
    "O",
    "S3",
    "V5",
)


def mutated(array: Any, rng: np.random.Generator) -> Any:
    """An array that is nearly the same, or another altogether."""
    way = int(rng.integers(12))
    if way < 6 and array.size and array.dtype.kind in "iubf":
        found = array.copy()
        at = rng.integers(0, array.size, int(rng.integers(1, 4)))
        some = rng.choice(np.array([-3, -1, 0, 1, 2, 5, 9, 40, 2**31 - 1, 2**62]), len(at))
        found.reshape(-1)[at] = some.astype(array.dtype)
        return found
    if way == 6:
        return array[: len(array) // 2].copy() if array.ndim else array
    if way == 7:
        return np.concatenate([array, array[:1]]) if array.ndim else array
    if way == 8:
        with np.errstate(all="ignore"):
            return array.astype(rng.choice(DTYPES[:10]))
    if way == 9:
        return np.zeros(array.shape, str(rng.choice(DTYPES)))
    if way == 10:
        return np.zeros(tuple(rng.integers(0, 4, int(rng.integers(0, 4)))), array.dtype)
    return array[::-1] if array.ndim else array  # not contiguous


def changed(value: Any, rng: np.random.Generator, rate: float) -> Any:
    """Arguments of which some are others."""
    if isinstance(value, dict):
        return {key: changed(item, rng, rate) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [changed(item, rng, rate) for item in value]
        if items and rng.random() < rate / 4:
            items = items[:-1] if rng.integers(2) else [*items, items[0]]
        return type(value)(items)
    if rng.random() >= rate:
        return value
    if isinstance(value, np.ndarray):
        return mutated(value, rng)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return int(rng.choice(np.array(NUMBERS, object)))
    if isinstance(value, str):
        return str(rng.choice(WORDS))
    return value


def shared(call: Call, rng: np.random.Generator) -> Call:
    """Now and then an output that is an input too."""
    out = call.named.get("out")
    if isinstance(out, np.ndarray) and rng.random() < 0.02:
        return Call([out if isinstance(arg, np.ndarray) else arg for arg in call.args], call.named)
    return call


def bounded(name: str, call: Call) -> bool:
    """Whether the outputs that a call asks for fit the machine: they are allocated as asked for."""
    if name == "split_rows":
        lengths, capacity = next(iter(call.args), None), call.named.get("capacity")
        if (
            not isinstance(lengths, np.ndarray)
            or lengths.dtype.kind not in "iu"
            or not isinstance(capacity, int)
        ):
            return True
        return capacity < 1 or bool(np.abs(lengths.astype(float)).sum() / capacity < 1 << 20)
    most = call.named.get("max_segments", 0)
    return name not in ("thd", "seqlens_and_offsets") or not isinstance(most, int) or most < 1 << 20


@pytest.mark.parametrize("name", sorted(CALLS))
def test_hostile_calls_write_nothing_outside(name: str) -> None:
    function, rng = getattr(_native, name), np.random.default_rng(sum(map(ord, name)))
    succeeded = 0
    count = by_level(60, 400, 20_000)
    for _ in range(count):
        call = CALLS[name](rng, int(rng.choice([0, 1, 3, 40, 300])))
        if rng.integers(2):
            rate = 1 / max(len(call.args) + len(call.named), 2)
            call = Call(changed(call.args, rng, rate), changed(call.named, rng, rate))
        guarded = Guarded()
        call = replaced(shared(call, rng), guarded.array)
        if not bounded(name, call):
            continue
        try:
            function(*call.args, **call.named)
            succeeded += 1
        except REFUSALS:
            pass
        guarded.check()
    assert succeeded >= count * 0.5, f"{name}: {succeeded} of {count} calls succeeded"


@pytest.mark.parametrize("names", [sorted(CALLS)[i::4] for i in range(4)], ids=lambda names: names[0])
def test_arguments_that_are_written_to_meanwhile(names: list[str]) -> None:
    """Wrong values are allowed, and refusals; no panic, no crash, no hang."""
    seconds = by_level(1, 5, 200) / 10
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    run = [sys.executable, "-m", "tests.house.mutating", ",".join(names), str(seconds), "0"]
    done = subprocess.run(run, cwd=ROOT, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "panicked" not in done.stderr


@pytest.mark.parametrize("name", ["bins", "lines", "runs"])
def test_ctrl_c_ends_a_long_call(name: str, record_property: Any) -> None:
    """Kernels run to their end, which is seconds away at the most; then the interrupt is raised."""
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    run = [sys.executable, "-m", "tests.house.interrupted", name, str(by_level(5, 20, 100) / 100)]
    done = subprocess.run(run, cwd=ROOT, env=where, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    waited, takes = json.loads(done.stdout)
    record_property("seconds from the signal to the exception, and of the call", (waited, takes))
