"""What attackable inputs cost, counted in calls and bytes that Python sees, not in seconds: linear in them.

Kernels count what they allocate in `tests/work.rs` and `tests/jsonl_work.rs`.
"""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rollkit import Ragged, Rollouts, _native
from rollkit.forest import TokenTree

FEW = 100
MANY = 10 * FEW


def calls(work: Callable[[], object]) -> int:
    """How many functions are called, Python's and C's, on the way through a call."""
    count = 0

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def check_linear(make: Callable[[int], Callable[[], object]]) -> None:
    """Hold a call to what it costs for each element: no more for many than for few."""
    few, many = (calls(make(count)) / count for count in (FEW, MANY))
    assert many <= 1.2 * few, f"{few} calls for each of {FEW}, {many} of {MANY}"


KINDS: dict[str, list[Any]] = {
    "lists and arrays": [[1, 2], np.array([3])],
    "ints and floats": [[1], [0.5]],
    "narrow and wide": [np.array([1], np.int8), np.array([2], np.int64), np.array([3], np.uint8)],
    "empty and full": [[], [1]],
    "arrays of every dtype": [np.array([1], dtype) for dtype in ("i1", "u2", "f4", "i4", "f8", ">i4", "f2")],
}


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_rows_of_alternating_kinds(kinds: list[Any]) -> None:
    def make(count: int) -> Callable[[], object]:
        rows = (kinds * count)[:count]
        return lambda: Ragged.from_rows(rows)

    check_linear(make)


def test_columns_of_alternating_kinds() -> None:
    rows: list[dict[str, Any]] = [
        {"ids": [1], "k": 1},
        {"ids": np.array([2]), "k": None},
        {"ids": [0.5], "k": "x"},
    ]
    check_linear(lambda count: lambda: Rollouts.from_rows((rows * count)[:count]))


TURNS: dict[str, Callable[[int], tuple[list[int], list[int]]]] = {
    "all begin at the root": lambda i: ([i], [0]),
    "all part after a common prompt": lambda i: ([1, 2, 3], [i]),
    "all are the same": lambda i: ([1, 2, 3], [4]),
    "each parts from the one before": lambda i: ([7] * (i % 50), [i]),
}


@pytest.mark.xfail(reason="a turn is compared with each node beside it", strict=True)
@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_trees(turn: Callable[[int], tuple[list[int], list[int]]]) -> None:
    def make(count: int) -> Callable[[], object]:
        tree, turns = TokenTree(), [turn(i) for i in range(count)]

        def build() -> None:
            for prompt, response in turns:
                tree.commit(prompt, response)

        return build

    check_linear(make)


class Counted(io.BytesIO):
    """A file that counts how often it is read, and how many bytes are."""

    reads = 0
    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.reads += 1
        self.taken += len(found)
        return found


def unpacked(packed: bytes, room: int) -> tuple[int, int, int]:
    """Reads, the bytes they got, and all bytes that came out, `room` at a time."""
    file, out, total = Counted(packed), np.zeros(room, np.uint8), 0
    source = _native.Decompressor(file, "gzip", name="x.gz")
    while got := source.readinto(out):
        total += got
    return file.reads, file.taken, total


@pytest.mark.parametrize("room", [1 << 10, 1 << 16])
def test_a_file_is_read_once_whatever_it_unpacks_to(room: int) -> None:
    zeros = 1 << 24
    packed = gzip.compress(bytes(zeros))
    reads, read, total = unpacked(packed, room)
    assert (read, total) == (len(packed), zeros)
    assert reads <= len(packed) / 1024 + 3
    members = gzip.compress(b"") * 20_000 + gzip.compress(b"x")
    reads, read, total = unpacked(members, room)
    assert (read, total) == (len(members), 1)
    assert reads <= len(members) / 1024 + 3
