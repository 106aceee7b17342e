"""`OnlinePacker`: the bins of the obvious loop, from any cut of the stream, in any thread."""

# ruff: noqa: E501

from __future__ import annotations

import copy
import json
import pickle
import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.thorough import examples

import rollkit
from rollkit import OnlinePacker
from rollkit._rows.online import POLICIES
from rollkit.testing import OnlinePackerReference

Packer: Any = OnlinePacker

options = st.fixed_dictionaries(
    {
        "buffer": st.integers(1, 9),
        "policy": st.sampled_from(POLICIES),
        "max_wait": st.none() | st.integers(0, 12),
        "max_segments": st.none() | st.integers(1, 4),
        "align": st.integers(1, 5),
    }
)


@st.composite
def streams(draw: Any) -> tuple[int, list[int], dict[str, Any]]:
    """A capacity, lengths, options."""
    capacity = draw(st.integers(1, 20))
    length = st.integers(0, capacity) | st.sampled_from([0, 1, capacity])
    return capacity, draw(st.lists(length, max_size=60)), draw(options)


def lists(bins: Any) -> list[list[int]]:
    return [bin.tolist() for bin in bins]


def added(packer: Any, rows: Any, lengths: Any) -> list[list[int]]:
    return [list(map(int, bin)) for row, n in zip(rows, lengths, strict=True) for bin in packer.add(row, n)]


@given(streams())
@settings(max_examples=examples(600))
def test_equals_the_reference(case: tuple[int, list[int], dict[str, Any]]) -> None:
    capacity, lengths, how = case
    rows = [row // 2 * 7 - 3 for row in range(len(lengths))]  # of any number, and twice
    packer, reference = OnlinePacker(capacity, **how), OnlinePackerReference(capacity, **how)
    for row, length in zip(rows, lengths, strict=True):
        bins = packer.add(row, length)
        assert all(bin.dtype == np.int64 for bin in bins)
        assert lists(bins) == reference.add(row, length)
    assert packer.pending == len(reference.waiting) + sum(map(len, reference.bins))
    assert lists(packer.flush()) == reference.flush()
    assert (packer.pending, packer.flush()) == (0, [])


@given(streams(), st.data())
@settings(max_examples=examples(300))
def test_goes_on_from_any_state(case: tuple[int, list[int], dict[str, Any]], data: st.DataObject) -> None:
    capacity, lengths, how = case
    rows = range(len(lengths))
    whole = OnlinePacker(capacity, **how)
    wanted = added(whole, rows, lengths) + lists(whole.flush())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(lengths)), max_size=3)))
    packer, found = OnlinePacker(capacity, **how), []
    for begin, end in pairwise([0, *cuts, len(lengths)]):
        found += lists(packer.extend(rows[begin:end], lengths[begin:end]))
        again = OnlinePacker.from_state(json.loads(json.dumps(packer.state())))
        assert again.state() == packer.state()
        assert again.pending == packer.pending
        packer = data.draw(
            st.sampled_from(
                [again, pickle.loads(pickle.dumps(packer)), copy.copy(packer), copy.deepcopy(packer)]
            )
        )
    assert found + lists(packer.flush()) == wanted


@given(streams())
@settings(max_examples=examples(300))
def test_rows_fit_and_wait_no_longer_than_said(case: tuple[int, list[int], dict[str, Any]]) -> None:
    capacity, lengths, how = case
    packer = OnlinePacker(capacity, **how)
    align, most = how["align"], how["max_segments"]
    out: list[list[int]] = []
    came_at, out_at = {}, {}
    for row, length in enumerate(lengths):
        came_at[row] = len(out)
        out += lists(packer.add(row, length))
        for bin in out[came_at[row] :]:
            out_at.update(dict.fromkeys(bin, row))
        if how["max_wait"] is not None:
            assert all(other in out_at for other in range(row - how["max_wait"] + 1))
    out += lists(packer.flush())
    assert sorted(row for bin in out for row in bin) == list(range(len(lengths)))
    for bin in out:
        used = 0
        for row in bin:
            used = min(-(-used // align) * align, capacity) + lengths[row]
            assert used <= capacity
        assert most is None or len(bin) <= most
    for number, bin in enumerate(out):
        # One that was open when the row came, and fewer than `buffer` after it.
        ahead = 1 if how["policy"] == "look_ahead" else how["buffer"]
        assert all(number - came_at[row] < how["buffer"] + ahead for row in bin)


def log_normal(rows: int) -> NDArray[np.int64]:
    found = np.random.default_rng(0).lognormal(7.87, 0.9, rows)
    return found.astype(np.int64).clip(16, 32768)


@pytest.mark.parametrize(
    ("policy", "buffer", "least"),
    [("look_ahead", 8, 0.992), ("look_ahead", 64, 0.997), ("best_fit", 16, 0.994), ("best_fit", 64, 0.995)],
)
def test_bins_are_nearly_full_and_of_no_order(policy: str, buffer: int, least: float) -> None:
    lengths = log_normal(20_000)
    packer = OnlinePacker(32768, buffer=buffer, policy=policy)
    bins = packer.extend(np.arange(len(lengths)), lengths)
    sizes = np.add.reduceat(lengths[bins.values], bins.offsets[:-1])
    assert sizes.max() <= 32768
    assert sizes.mean() / 32768 >= least
    means = sizes / bins.lengths
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.05
    if policy == "look_ahead":
        assert len(json.dumps(packer.state())) < 6000


def test_extremes() -> None:
    most = 2**63 - 1
    for policy in POLICIES:
        packer = OnlinePacker(most, buffer=1, policy=policy, align=most, max_wait=most)
        assert added(packer, [most, -most, 0], [most, most, 0]) == [[most]]
        assert lists(packer.flush()) == [[-most, 0]]
        one = OnlinePacker(1, policy=policy, max_wait=0)
        assert added(one, [5, 6, 7], [1, 0, 1]) == [[5], [6], [7]]
        none = OnlinePacker(8, policy=policy)
        assert none.extend([], []).to_list() == []
        assert none.flush() == []
        empty = OnlinePacker(8, policy=policy, buffer=1, max_segments=2)
        assert added(empty, range(5), [0] * 5) == [[0, 1], [2, 3]]
        same = OnlinePacker(8, policy=policy, buffer=2)
        assert added(same, [3, 3, 3], [8, 8, 8])[:1] == [[3]]


def test_threads_take_turns() -> None:
    packer, out = OnlinePacker(64, buffer=8), []

    def work(first: int) -> None:
        for begin in range(first, first + 2000, 50):
            rows = np.arange(begin, begin + 50)
            out.extend(lists(packer.extend(rows, rows % 60)))
            out.extend(lists(packer.add(begin + 10_000, 5)))

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 2000, 4000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out += lists(packer.flush())
    wanted = [*range(6000), *(row + 10_000 for row in range(0, 6000, 50))]
    assert sorted(row for bin in out for row in bin) == wanted


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: Packer(0), ValueError, "capacity must be at least 1, got 0"),
    (lambda: Packer(8.0), TypeError, "capacity must be an int, got float"),
    (lambda: Packer(8, buffer=0), ValueError, "buffer must be at least 1, got 0"),
    (lambda: Packer(8, policy="first"), ValueError, "policy must be one of 'look_ahead', 'best_fit', got 'first'"),
    (lambda: Packer(8, max_wait=-1), ValueError, "max_wait must be at least 0, got -1"),
    (lambda: Packer(8, max_segments=0), ValueError, "max_segments must be at least 1, got 0"),
    (lambda: Packer(8, align=0), ValueError, "align must be at least 1, got 0"),
    (lambda: Packer(8).add(1.5, 3), TypeError, "row must be an int, got float"),
    (lambda: Packer(8).add(2**63, 3), OverflowError, f"row is {2**63}, beyond int64"),
    (lambda: Packer(8).add(1, "3"), TypeError, "length must be an int, got str"),
    (lambda: Packer(8).add(1, -3), ValueError, "length must be at least 0, got -3"),
    (lambda: Packer(8).add(7, 9), ValueError, "row 7 has 9 elements, more than the capacity of 8; raise capacity, or cut the row"),
    (lambda: Packer(8).extend([5, 6], [1, 9]), ValueError, "row 6 has 9 elements, more than the capacity of 8; raise capacity, or cut the row"),
    (lambda: Packer(8).extend([5, 6], [1]), ValueError, "lengths has 1 rows, rows has 2"),
    (lambda: Packer(8).extend([5], [-1]), ValueError, "lengths[0] is -1; lengths must be 0 or more"),
    (lambda: Packer(8).extend([0.5], [1]), TypeError, "rows must hold integers, got float64"),
    (lambda: Packer.from_state([1]), TypeError, "state must be a dict by name, got list"),
    (lambda: Packer.from_state({}), ValueError, "state has other keys than OnlinePacker.state() gives: added, align, bins, buffer, capacity, max_segments, max_wait, policy, waiting"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.args[0] == message


def test_a_refusal_leaves_the_packer_as_it_was() -> None:
    packer = OnlinePacker(8, buffer=3)
    added(packer, range(5), [3, 4, 2, 8, 1])
    before = packer.state()
    for rows, lengths in (([9, 9], [1, 9]), ([9, 9], [1, -1]), ([9], [1, 2])):
        with pytest.raises(ValueError, match=r"row 9 has 9|lengths"):
            packer.extend(rows, lengths)
    for length in (9, -1):
        with pytest.raises(ValueError, match=r"row 9 has 9|length must be at least 0"):
            packer.add(9, length)
    assert packer.state() == before


@pytest.mark.parametrize(
    "changed",
    [
        {"added": -1},
        {"added": 2},
        {"added": "x"},
        {"waiting": [[0, 9, 0]]},
        {"waiting": [[0, -1, 0]]},
        {"waiting": [[0, 1, 3], [1, 1, 2]]},
        {"waiting": [[0, 1]]},
        {"waiting": 3},
        {"waiting": [[i, 1, i] for i in range(4)]},
        {"bins": [[9, 0, [1]]]},
        {"bins": [[-1, 0, [1]]]},
        {"bins": [[1, 0, []]]},
        {"bins": [[1, 0, [1]], [1, 1, [1]]]},
        {"bins": [[1, 4, [2**70]]]},
        {"capacity": 0},
    ],
)
def test_states_that_no_packer_has_are_refused(changed: dict[str, Any]) -> None:
    packer = OnlinePacker(8, buffer=3)
    added(packer, range(5), [3, 4, 2, 7, 6])
    state = packer.state()
    assert state["waiting"]
    assert state["bins"]
    OnlinePacker.from_state(state)
    with pytest.raises(ValueError, match=r"state is none|capacity must be"):
        OnlinePacker.from_state({**state, **changed})


def test_is_public_and_says_what_it_is() -> None:
    assert rollkit.OnlinePacker is OnlinePacker
    assert repr(OnlinePacker(32768)) == "OnlinePacker(32,768, buffer=64, policy='look_ahead': 0 rows pending)"
