"""Which prompts of an asynchronous run are out, done and trained: `Ledger`."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

from rollkit import _check
from rollkit._loading.sampler import check_state

_OUT, _DONE, _LOST = "out", "done", "lost"
_STATE = ("next", "open", "done")


class Ledger:
    """Which prompts of an asynchronous run are out, done and trained.

    Rollouts come back in another order than prompts went out: the fast ones first. A cursor, saved with the
    weights, then says too much or too little: what was still being generated at a restart is never trained,
    or what was trained already is trained again. A ledger names the prompts instead, by *ordinal*: 0, 1, 2, …
    in the order they are given out, through all epochs.

    A prompt is `out` when it was given to an engine, `done` when its rollouts are here, and trained when they
    are in the weights. All that was given out and is not open (`out` or `done`) is trained: memory and state
    are as large as what is in flight, however long the run. Marks may be set twice; the second does nothing.

    Save `state_dict()` together with the weights, and load both together. Prompts that were open then are
    given out again, the oldest first, before any new one. Rollouts that were saved too (a replay buffer) stay
    done: name them in `load_state_dict(state, done=…)`.

    Several threads may share a ledger.

    Args:
        total: so many ordinals are given out in all; None: no end.

    Example:
        >>> ledger = Ledger()
        >>> ledger.give(3)
        [0, 1, 2]
        >>> ledger.mark_done([2, 0]), ledger.mark_done([2])
        ([2, 0], [])
        >>> ledger.mark_trained([2])
        [2]
        >>> state = ledger.state_dict()
        >>> after = Ledger()
        >>> after.load_state_dict(state)
        >>> after.give(3)
        [0, 1, 3]
    """

    def __init__(self, total: int | None = None) -> None:
        self._total = None if total is None else _check.positive("total", total, least=0)
        self._next = 0
        self._open: dict[int, str] = {}
        self._lost: list[int] = []  # a heap; what is in it and no more lost is passed over
        self._lock = Lock()

    @property
    def out(self) -> list[int]:
        """The ordinals that are being generated, ascending."""
        return self._in(_OUT)

    @property
    def done(self) -> list[int]:
        """The ordinals whose rollouts wait to be trained, ascending."""
        return self._in(_DONE)

    @property
    def num_trained(self) -> int:
        """How many are trained."""
        with self._lock:
            return self._next - len(self._open)

    @property
    def low_water(self) -> int:
        """The first ordinal that is not trained yet."""
        with self._lock:
            return min(self._open, default=self._next)

    def give(self, count: int = 1) -> list[int]:
        """Give out prompts: lost ones first, the oldest before the others, then new ones.

        Returns:
            `count` ordinals, now `out`; fewer where `total` ends them.
        """
        count = _check.positive("count", count, least=0)
        with self._lock:
            found: list[int] = []
            while self._lost and len(found) < count:
                ordinal = heapq.heappop(self._lost)
                if self._open.get(ordinal) == _LOST:
                    found.append(ordinal)
            fresh = count - len(found)
            if self._total is not None:
                fresh = min(fresh, self._total - self._next)
            found += range(self._next, self._next + fresh)
            self._next += fresh
            self._open.update(dict.fromkeys(found, _OUT))
            return found

    def mark_done(self, ordinals: int | Iterable[int]) -> list[int]:
        """Their rollouts are here.

        Returns:
            Those of which this is news. The others were done or trained before (an engine that was thought
            lost delivers after all): drop their rollouts.

        Raises:
            ValueError: one was never given out.
        """
        with self._lock:
            known = self._known(ordinals)
            news = [n for n in dict.fromkeys(known) if self._open.get(n, _DONE) != _DONE]
            self._open.update(dict.fromkeys(news, _DONE))
            return news

    def mark_trained(self, ordinals: int | Iterable[int]) -> list[int]:
        """Their rollouts are in the weights: nothing more comes of them.

        Returns:
            Those of which this is news. To train the others would be to train them twice.

        Raises:
            ValueError: one was never given out.
        """
        with self._lock:
            known = self._known(ordinals)
            return [n for n in dict.fromkeys(known) if self._open.pop(n, None) is not None]

    def mark_lost(self, ordinals: int | Iterable[int]) -> list[int]:
        """Their engine is gone, or what it sent is no good: they are given out again.

        Returns:
            Those of which this is news; what is trained stays trained.

        Raises:
            ValueError: one was never given out.
        """
        with self._lock:
            known = self._known(ordinals)
            news = [n for n in dict.fromkeys(known) if self._open.get(n, _LOST) != _LOST]
            self._lose(news)
            return news

    def state_dict(self) -> dict[str, Any]:
        """What to save with the weights: numbers that JSON holds, as many as there are prompts in flight."""
        with self._lock:
            done = sorted(n for n, status in self._open.items() if status == _DONE)
            return {"next": self._next, "open": sorted(self._open), "done": done}

    def load_state_dict(self, state: Mapping[str, Any], done: int | Iterable[int] = ()) -> None:
        """Go on from a state.

        Args:
            state: of `state_dict`.
            done: ordinals whose rollouts were saved with it; all others that were open are given out again.

        Raises:
            ValueError: no state of a ledger, or `done` names one that was not done then.
        """
        after, still_open, was_done = _checked(state)
        kept = _ordinals("done", done)
        for ordinal in kept:
            if ordinal not in was_done:
                raise ValueError(f"done has {ordinal}, which was not done in this state")
        with self._lock:
            self._next = after
            self._open = dict.fromkeys(kept, _DONE)
            self._lost = []
            self._lose([n for n in still_open if n not in self._open])

    def _known(self, ordinals: int | Iterable[int]) -> list[int]:
        found = _ordinals("ordinals", ordinals)
        for ordinal in found:
            if ordinal >= self._next:
                raise ValueError(f"ordinal {ordinal} was never given out; the next is {self._next}")
        return found

    def _lose(self, ordinals: list[int]) -> None:
        self._open.update(dict.fromkeys(ordinals, _LOST))
        for ordinal in ordinals:
            heapq.heappush(self._lost, ordinal)

    def _in(self, status: str) -> list[int]:
        with self._lock:
            return sorted(n for n, found in self._open.items() if found == status)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {**vars(self), "_open": dict(self._open), "_lost": list(self._lost), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())

    def __repr__(self) -> str:
        lost = len(self._in(_LOST))
        more = f", {lost:,} to give again" if lost else ""
        return f"Ledger({len(self.out):,} out, {len(self.done):,} done, {self.num_trained:,} trained{more})"


def _ordinals(name: str, value: int | Iterable[int]) -> list[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    found = value if isinstance(value, range) else _check.int64s(name, _listed(name, value)).tolist()
    for ordinal in found[:1] if isinstance(found, range) else found:
        _check.positive(f"an ordinal of {name}", ordinal, least=0)
    return list(found)


def _listed(name: str, value: Any) -> Any:
    """Arrays as they are; sets, generators and the like as lists."""
    return value if hasattr(value, "dtype") else _check.items(name, value)


def _checked(state: Any) -> tuple[int, list[int], set[int]]:
    """The parts of a state, or a refusal."""
    check_state(state, _STATE, "Ledger.state_dict")
    after = _check.positive("state['next']", state["next"], least=0)
    still_open, done = (_ordinals(f"state[{name!r}]", state[name]) for name in ("open", "done"))
    if any(ordinal >= after for ordinal in still_open) or not set(done) <= set(still_open):
        raise ValueError("state is no state of a ledger: 'open' must be below 'next', and hold 'done'")
    return after, still_open, set(done)
