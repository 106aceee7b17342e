"""What comes next is made while this is used: `prefetch`, on a thread of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import count
from queue import SimpleQueue
from threading import Event, Thread, current_thread
from typing import Any, Final, TypeVar

from rollkit import _check

Item = TypeVar("Item")

_ITEM, _ERROR, _END = range(3)
_PATIENCE: Final = 1.0
"""Seconds that are waited, at the end, for the item that the thread is about to make."""


def prefetch(iterable: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Iterate what a thread makes ahead: bins are placed while the model computes, and nothing is copied.

    Placing lets go of the interpreter's lock, so one thread does what worker processes are usually for; those
    send each tensor through shared memory, which takes longer than making it. The thread starts with the
    first item, is a daemon, and ends with the iteration, however that ends. An error of the iterable comes
    where its item would have come, with its traceback.

    A position of what is iterated (`ShuffledSampler.state_dict()`) is ahead of what was taken here. To save a
    state, either say how many were taken, `state_dict(taken=…)`, or let each item bring its own::

        for item, state in prefetch((item, loader.state_dict()) for item in loader):

    Args:
        iterable: what is iterated, in the thread.
        depth: items that are made ahead, at most.

    Returns:
        An iterator, of one thread and one process; after a fork begin another.

    Raises:
        TypeError: `iterable` is none, or `depth` no int.
        ValueError: `depth` is below 1.

    Example:
        >>> list(prefetch(i * i for i in range(4)))
        [0, 1, 4, 9]
    """
    depth = _check.positive("depth", depth)
    if isinstance(iterable, str | bytes) or not isinstance(iterable, Iterable):
        raise TypeError(f"iterable must be iterable, got {type(iterable).__name__}")
    return _ahead(iterable, depth)


def _ahead(iterable: Iterable[Item], depth: int) -> Iterator[Item]:
    made: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    room: SimpleQueue[None] = SimpleQueue()
    stopped, process = Event(), os.getpid()
    work = (iterable, depth, made, room, stopped)
    thread = Thread(target=_make, args=work, name="rollkit-prefetch", daemon=True)
    del iterable, work  # the thread's alone, so that it ends there
    thread.start()
    try:
        while True:
            if os.getpid() != process:
                raise RuntimeError(
                    "this iteration began before a fork, and its thread is in the other process; "
                    "call prefetch again, after the fork"
                )
            kind, item = made.get()
            if kind == _END:
                return
            if kind == _ERROR:
                raise item
            room.put(None)
            yield item
            del item  # whose memory may be written again
    finally:
        item = None  # an error holds this frame, which would hold the error
        stopped.set()
        room.put(None)
        if os.getpid() == process and thread is not current_thread():  # a garbage collection may be there
            thread.join(_PATIENCE)


def _make(
    iterable: Iterable[Any],
    depth: int,
    made: SimpleQueue[tuple[int, Any]],
    room: SimpleQueue[None],
    stopped: Event,
) -> None:
    """Put items, the thread's work; what it holds is let go as soon as it is put."""
    try:
        items = iter(iterable)
        for number in count():
            if number >= depth:
                room.get()
            if stopped.is_set():
                break
            try:
                made.put((_ITEM, next(items)))
            except StopIteration:
                made.put((_END, None))
                break
    except BaseException as error:
        made.put((_ERROR, error))
