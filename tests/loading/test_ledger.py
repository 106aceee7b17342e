"""`Ledger`: what is in flight when a run is killed is neither lost nor trained twice."""

from __future__ import annotations

import copy
import json
import pickle
import random
from collections import Counter
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import by_level, examples

from rollkit._loading.ledger import Ledger


def test_a_restart_gives_out_what_was_open_and_nothing_else() -> None:
    ledger = Ledger()
    assert ledger.give(6) == [0, 1, 2, 3, 4, 5]
    ledger.mark_done([1, 4, 5])
    ledger.mark_trained([1, 4])
    assert (ledger.out, ledger.done, ledger.num_trained, ledger.low_water) == ([0, 2, 3], [5], 2, 0)
    after = Ledger()
    after.load_state_dict(json.loads(json.dumps(ledger.state_dict())), done=[5])
    assert (after.out, after.done, after.num_trained) == ([], [5], 2)
    assert after.give(5) == [0, 2, 3, 6, 7]
    assert repr(after) == "Ledger(5 out, 1 done, 2 trained)"


def test_marks_are_news_once() -> None:
    ledger = Ledger()
    ledger.give(3)
    assert ledger.mark_done([0, 0, 1]) == [0, 1]
    assert ledger.mark_done([0, 2]) == [2]
    assert ledger.mark_trained(0) == [0]
    assert ledger.mark_trained([0]) == ledger.mark_done([0]) == ledger.mark_lost([0]) == []
    assert ledger.mark_lost([1, 1]) == [1]
    assert ledger.give(1) == [1]


def test_an_engine_that_was_thought_lost_may_deliver() -> None:
    ledger = Ledger()
    ledger.give(2)
    ledger.mark_lost([0, 1])
    assert ledger.mark_done([1]) == [1]
    assert ledger.give(2) == [0, 2]  # 1 is here


def test_the_end() -> None:
    ledger = Ledger(total=3)
    assert ledger.give(2) == [0, 1]
    assert ledger.give(5) == [2]
    assert ledger.give(5) == []
    ledger.mark_lost([1])
    assert ledger.give(5) == [1]
    ledger.mark_trained(range(3))
    assert (ledger.num_trained, ledger.low_water) == (3, 3)


def test_memory_and_state_are_what_is_in_flight() -> None:
    ledger = Ledger()
    slow = ledger.give(3)
    for _ in range(2_000):
        ledger.mark_trained(ledger.give(8))
    assert ledger.out == slow
    assert len(json.dumps(ledger.state_dict())) < 80


class Model:
    """The same by the book: the status of every ordinal that was ever given."""

    def __init__(self) -> None:
        self.status: list[str] = []

    def give(self, count: int) -> list[int]:
        lost = [n for n, status in enumerate(self.status) if status == "lost"][:count]
        for n in lost:
            self.status[n] = "out"
        fresh = list(range(len(self.status), len(self.status) + count - len(lost)))
        self.status += ["out"] * len(fresh)
        return lost + fresh

    def mark(self, ordinals: list[int], to: str, final: tuple[str, ...]) -> list[int]:
        news = [n for n in dict.fromkeys(ordinals) if self.status[n] not in final]
        for n in news:
            self.status[n] = to
        return news


steps = st.lists(
    st.tuples(
        st.sampled_from(["give", "done", "trained", "lost", "restart", "pickle"]),
        st.integers(0, 5),
        st.randoms(),
    ),
    max_size=40,
)


@settings(max_examples=examples(300), deadline=None)
@given(steps)
def test_equals_the_book(steps: list[tuple[str, int, random.Random]]) -> None:
    ledger, model = Ledger(), Model()
    for what, count, rng in steps:
        given_out = range(len(model.status))
        some = [rng.choice(given_out) for _ in range(count)] if given_out else []
        if what == "give":
            assert ledger.give(count) == model.give(count)
        elif what == "done":
            assert ledger.mark_done(some) == model.mark(some, "done", ("done", "trained"))
        elif what == "trained":
            assert ledger.mark_trained(some) == model.mark(some, "trained", ("trained",))
        elif what == "lost":
            assert ledger.mark_lost(some) == model.mark(some, "lost", ("lost", "trained"))
        elif what == "pickle":
            ledger = rng.choice([copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])(ledger)
        else:
            kept = [n for n in given_out if model.status[n] == "done" and rng.random() < 0.5]
            state, ledger = ledger.state_dict(), Ledger()
            ledger.load_state_dict(state, done=kept)
            gone = [n for n in given_out if model.status[n] in ("out", "done") and n not in kept]
            model.mark(gone, "lost", ("trained",))
        for status in ("out", "done"):
            assert getattr(ledger, status) == [n for n, found in enumerate(model.status) if found == status]
        assert ledger.num_trained == model.status.count("trained")


def test_kills_lose_and_repeat_nothing() -> None:
    """1 000 prompts, a few of which take a hundred times as long; the run dies again and again."""
    kills, rng = by_level(1_000, 10_000, 100_000), random.Random(4)
    done_with = 0
    while done_with < kills:
        total = 1_000
        saved: tuple[dict[str, Any], list[int], Counter[int]] = (Ledger(total).state_dict(), [], Counter())
        while saved[2].total() < total:
            state, buffer, weights = saved[0], list(saved[1]), saved[2].copy()
            ledger, clock = Ledger(total), 0
            flying: dict[int, int] = {}
            ledger.load_state_dict(state, done=buffer)
            dies = rng.expovariate(1 / 60)
            while clock < dies and weights.total() < total:
                clock += 1
                for ordinal in ledger.give(64 - len(flying)):
                    flying[ordinal] = clock + (100 if ordinal % 97 == 0 else rng.randint(1, 4))
                back = [ordinal for ordinal, when in flying.items() if when <= clock]
                for ordinal in back:
                    del flying[ordinal]
                buffer += ledger.mark_done(back)
                rng.shuffle(buffer)
                batch, buffer = buffer[:16], buffer[16:]
                weights.update(ledger.mark_trained(batch))
                if rng.random() < 0.2:
                    kept = [n for n in buffer if rng.random() < 0.7]  # the others were not saved
                    saved = ledger.state_dict(), kept, weights.copy()
                    buffer = [n for n in buffer if n in kept] + [n for n in buffer if n not in kept]
            if weights.total() == total:
                saved = ledger.state_dict(), [], weights
            done_with += 1
        assert saved[2] == Counter(range(total))


def test_threads_share_it() -> None:
    ledger, seen = Ledger(total=4_000), list[int]()

    def work() -> None:
        while mine := ledger.give(3):
            seen.extend(ledger.mark_done(mine))
            ledger.mark_trained(mine)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(4_000))
    assert ledger.num_trained == 4_000


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: x.mark_done([7]), ValueError, "ordinal 7 was never given out; the next is 2"),
        (lambda x: x.mark_done(["a"]), TypeError, "ordinals must hold integers, got <U1"),
        (lambda x: x.mark_trained("ab"), TypeError, "ordinals must be a sequence, got str"),
        (lambda x: x.mark_lost([-1]), ValueError, "an ordinal of ordinals must be at least 0, got -1"),
        (lambda x: x.give(-1), ValueError, "count must be at least 0, got -1"),
        (lambda _: Ledger("3"), TypeError, "total must be an int, got str"),  # type: ignore[arg-type]
        (
            lambda x: x.load_state_dict({"next": 3}),
            ValueError,
            "state must have 'next', 'open', 'done', as Ledger.state_dict gives it, got ['next']",
        ),
        (
            lambda x: x.load_state_dict({"next": 3, "open": [3], "done": []}),
            ValueError,
            "state is no state of a ledger: 'open' must be below 'next', and hold 'done'",
        ),
        (
            lambda x: x.load_state_dict({"next": 3, "open": [1], "done": []}, done=[1]),
            ValueError,
            "done has 1, which was not done in this state",
        ),
    ],
)
def test_refusals(call: Any, kind: type[Exception], message: str) -> None:
    ledger = Ledger()
    ledger.give(2)
    before = ledger.state_dict()
    with pytest.raises(kind) as caught:
        call(ledger)
    assert str(caught.value) == message
    assert ledger.state_dict() == before
