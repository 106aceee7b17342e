"""Rows of a shrinking batch: against lists that are filtered the obvious way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rollkit.decode.active import ActiveBatch, Plan

OPTIONS: list[dict[str, Any]] = [
    {},
    {"ordered": True},
    {"buckets": True},
    {"slack": 0.4},
    {"buckets": True, "slack": 0.6},
    {"cfg": True},
    {"cfg": True, "ordered": True},
    {"cfg": True, "mirrored": True},
    {"cfg": True, "mirrored": True, "buckets": True},
    {"cfg": True, "mirrored": True, "ordered": True, "slack": 0.3},
]


def in_place(rows: list[Any], plan: Plan) -> list[Any]:
    rows = list(rows)
    for source, destination in plan.moves.tolist():
        rows[destination] = rows[source]
    return rows[plan.start : plan.stop]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("seed", range(30))
def test_rows_follow_their_sequences(seed: int, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 21))
    batch = ActiveBatch(n, **options)
    alive, lengths, step = set(range(n)), [0] * n, 0
    branches = ["cond", "uncond"] if options.get("cfg") else ["only"]

    def labels() -> list[Any]:
        half = len(batch.order) // len(branches)
        return [(batch.slots[row], branches[place // half]) for place, row in enumerate(batch.order)]

    rows = labels()
    while alive:
        ended = {slot for slot in alive if rng.random() < 0.2}
        mask = np.isin(batch.slots, list(ended)) | (~batch.live & (rng.random() < 0.5))
        step += 1
        for slot in alive:
            lengths[slot] = step
        alive -= ended
        plan = batch.finish(mask)
        copied = [rows[row] for row in plan.keep]
        assert copied == in_place(rows, plan)
        rows = copied
        assert plan.before >= len(plan.keep) == len(branches) * plan.bucket
        # A parked row may be what is left of a row that was moved away.
        assert all(was == now for was, now in zip(rows, labels(), strict=True) if now[0] >= 0)
        assert sorted(batch.slots[batch.live]) == sorted(alive)
        assert (batch.active, batch.finished, batch.emitted) == (len(alive), n - len(alive), sum(lengths))
        assert batch.lengths.tolist() == lengths
        if options.get("ordered"):
            assert np.all(np.diff(batch.slots[batch.live]) > 0)
        if not options.get("slack"):
            full = min(n, 1 << max(len(alive) - 1, 0).bit_length()) if options.get("buckets") else len(alive)
            assert batch.rows == (full if alive else 0)
    assert batch.rows == 0


@pytest.mark.parametrize("n", [16, 1024])
@pytest.mark.parametrize("options", [{}, {"cfg": True, "mirrored": True}])
def test_moves_are_as_many_as_holes(n: int, options: dict[str, Any]) -> None:
    mask = np.zeros(n, bool)
    mask[[0, 3, n - 1]] = True
    assert len(ActiveBatch(n, **options).finish(mask).moves) == 2 * (2 if options else 1)


def test_the_last_rows_go_without_a_move() -> None:
    plan = ActiveBatch(4).finish([False, False, True, True])
    assert not len(plan.moves)
    assert plan.changes
    assert not ActiveBatch(4).finish([False] * 4).changes


def test_hysteresis_parks_rows_until_enough_have_ended() -> None:
    batch = ActiveBatch(4, slack=0.5)
    assert not batch.finish([False, True, False, False]).changes
    assert batch.slots.tolist() == [0, -1, 2, 3]
    assert batch.emitted == 4
    plan = batch.finish([True, False, False, False])
    assert batch.slots.tolist() == [3, 2]
    assert plan.moves.tolist() == [[3, 0], [2, 1]]
    assert batch.emitted == 7


def test_drop_counts_no_tokens() -> None:
    batch = ActiveBatch(3)
    batch.finish([False] * 3)
    batch.drop([1])
    batch.drop([1])
    assert (batch.emitted, batch.finished, batch.lengths.tolist()) == (3, 1, [1, 1, 1])
    batch.finish([False, True])
    assert repr(batch) == "ActiveBatch(1 of 3 active in 1 rows, 5 tokens)"


def test_slots_that_were_handed_out_stay_as_they_were() -> None:
    batch = ActiveBatch(3)
    before = batch.slots
    batch.finish([True, False, False])
    assert before.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="read-only"):
        before[0] = 7
