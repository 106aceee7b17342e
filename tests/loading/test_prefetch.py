"""`prefetch`: the items of an iterable, made ahead on a thread that ends when the iteration does."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from tests.loading.some import key, rollouts

from rollkit import Bins, ShuffledSampler
from rollkit._loading.prefetch import prefetch


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rollkit-prefetch"]


def ended() -> bool:
    """Whether all threads end, soon."""
    for _ in range(200):
        if not threads():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_items_come_in_order(count: int, depth: int) -> None:
    assert list(prefetch(range(count), depth)) == list(range(count))
    assert ended()


def test_it_makes_so_many_ahead_and_no_more() -> None:
    made = 0

    def source() -> Iterator[int]:
        nonlocal made
        for i in range(100):
            made += 1
            yield i

    it = prefetch(source(), 3)
    assert made == 0  # nothing is begun before it is asked for
    for taken in range(1, 5):
        next(it)
        for _ in range(200):
            if made >= taken + 2:
                break
            time.sleep(0.005)
        time.sleep(0.02)
        assert made <= taken + 3
    it.close()  # type: ignore[attr-defined]


def test_an_error_comes_in_its_place_with_its_traceback() -> None:
    def failing() -> Iterator[int]:
        yield 0
        yield 1
        raise KeyError("here")

    it = prefetch(failing())
    assert [next(it), next(it)] == [0, 1]
    with pytest.raises(KeyError) as caught:
        next(it)
    assert any(frame.name == "failing" for frame in traceback.extract_tb(caught.value.__traceback__))
    assert list(it) == []
    assert ended()


@pytest.mark.parametrize("how", ["close", "forgotten", "broken off", "raised"])
def test_the_thread_ends_when_the_loop_stops(how: str) -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    it = prefetch(source())
    next(it)
    if how == "close":
        it.close()  # type: ignore[attr-defined]
    elif how == "raised":
        with suppress(ZeroDivisionError):
            for _ in it:
                raise ZeroDivisionError
    elif how == "broken off":
        for item in it:
            if item == 5:
                break
    del it
    gc.collect()
    assert ended()
    assert closed.wait(2)  # and what it iterated, too


def test_what_was_handed_out_is_not_held() -> None:
    """So that `Bins.iterate` writes to the same memory again."""
    bins = Bins(rollouts(200), 64, columns=["input_ids"])
    found = [key(bin) for bin in prefetch(bins.iterate(), 1)]
    assert found == [key(bin) for bin in bins]
    places = {bin["input_ids"].ctypes.data for bin in prefetch(bins.iterate(), 1)}
    assert len(places) <= 5


def test_a_state_is_of_what_was_taken() -> None:
    whole = list(ShuffledSampler(20, seed=0))
    sampler = ShuffledSampler(20, seed=0)
    it = prefetch(sampler, depth=4)
    head = [next(it) for _ in range(5)]
    after = ShuffledSampler(20, seed=0)
    after.load_state_dict(sampler.state_dict(taken=5))
    assert head + list(after) == whole
    sampler = ShuffledSampler(20, seed=0)
    pairs = prefetch((item, sampler.state_dict()) for item in sampler)
    item, state = [next(pairs) for _ in range(5)][-1]
    after.load_state_dict(state)
    assert item == whole[4]
    assert list(after) == whole[5:]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_another_is_begun() -> None:
    it = prefetch(range(10))
    next(it)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if list(prefetch(range(5))) == list(range(5)):
                try:
                    next(it)
                except RuntimeError as error:
                    status = 0 if "began before a fork" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(it) == list(range(1, 10))


def test_ctrl_c_ends_the_process() -> None:
    program = (
        "import itertools, os, signal, threading, time\n"
        "from rollkit._loading.prefetch import prefetch\n"
        "def slow():\n"
        "    for i in itertools.count():\n"
        "        time.sleep(0.05)\n"
        "        yield i\n"
        # What a shell runs in the background ignores the signal.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n"  # before the timer, which may be due at once where the machine is busy
        "    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    for item in prefetch(slow()): pass\n"
        "except KeyboardInterrupt: print('stopped')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("stopped\n", 0), done.stderr


def test_importing_starts_no_thread() -> None:
    program = "import threading, rollkit._loading.prefetch; print(threading.active_count())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "1\n"


def test_arrays_are_those_of_the_bins() -> None:
    bins = Bins(rollouts(), 64)
    for found, wanted in zip(prefetch(bins), bins, strict=True):
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: prefetch([], 0), ValueError, "depth must be at least 1, got 0"),
        (lambda: prefetch([], 1.5), TypeError, "depth must be an int, got float"),  # type: ignore[arg-type]
        (lambda: prefetch(3), TypeError, "iterable must be iterable, got int"),  # type: ignore[arg-type]
        (lambda: prefetch("abc"), TypeError, "iterable must be iterable, got str"),
    ],
)
def test_refusals(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message
