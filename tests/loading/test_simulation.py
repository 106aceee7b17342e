"""scripts/simulate_scale.py, small: rows and bytes add up, and the planner is no worse than its peers."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scripts import simulate_scale as scale
from tests.thorough import by_level

BY = {strategy.name: strategy for strategy in scale.STRATEGIES}
PLAN, WITHOUT_SLOW, WHOLE, BY_NODE, BY_CHUNKS, DRIVER, HASH, HOME = scale.STRATEGIES
SETTING = scale.Setting(rows=400, nodes=4, ranks_per_node=2, slow_ranks=1)


@pytest.fixture(scope="module", params=range(by_level(2, 5, 50)))
def world(request: pytest.FixtureRequest) -> scale.World:
    return scale.World.make(
        replace(SETTING, seed=request.param, sync=("micro_batch", "step")[request.param % 2])
    )


@pytest.fixture(scope="module")
def outcomes(world: scale.World) -> dict[str, scale.Outcome]:
    return {name: scale.run(world, strategy) for name, strategy in BY.items()}


@pytest.mark.parametrize("name", BY)
def test_every_row_runs_once_within_the_capacity(
    world: scale.World, outcomes: dict[str, scale.Outcome], name: str
) -> None:
    split = outcomes[name].split
    assert np.array_equal(np.sort(split.rows), np.arange(SETTING.rows))
    tokens = np.zeros((SETTING.ranks, split.steps), np.int64)
    np.add.at(tokens, (split.rank, split.step), world.lengths[split.rows])
    assert tokens.max() <= SETTING.capacity
    assert split.loads(world).sum() == world.costs.sum()


@pytest.mark.parametrize("name", BY)
def test_bytes_are_those_of_rows_that_leave_their_node(
    world: scale.World, outcomes: dict[str, scale.Outcome], name: str
) -> None:
    """And of their chunks, each once a node, where those are fetched whole."""
    found = outcomes[name]
    of, split, strategy = world.of, found.split, found.strategy
    chunks = np.bincount(world.chunk, world.bytes).astype(int).tolist()
    to_rank, into, out, there = [0] * of.ranks, [0] * of.nodes, [0] * of.nodes, set()
    for row, rank in zip(split.rows.tolist(), split.rank.tolist(), strict=True):
        chunk, node = int(world.chunk[row]), rank // of.ranks_per_node
        home = chunk // of.ranks_per_node
        if home == node and not strategy.driver:
            continue
        size = int(world.bytes[row])
        to_rank[rank] += size
        if strategy.whole:
            size = 0 if (node, chunk) in there else chunks[chunk]
            there.add((node, chunk))
        into[node] += size
        out[home] += size
    assert found.moved == sum(into) * (1 + strategy.driver)
    assert found.at_rank == max(to_rank)
    assert found.at_port == (sum(into) if strategy.driver else max(out + into))


def test_no_split_moves_less_than_its_bound(outcomes: dict[str, scale.Outcome]) -> None:
    for found in outcomes.values():
        assert 0 <= found.least <= found.moved
    assert outcomes[HOME.name].moved == outcomes[HOME.name].least == 0
    assert outcomes[BY_NODE.name].moved <= outcomes[PLAN.name].moved < outcomes[DRIVER.name].moved
    assert outcomes[PLAN.name].moved <= outcomes[WHOLE.name].moved
    assert outcomes[BY_NODE.name].moved <= outcomes[BY_CHUNKS.name].moved <= outcomes[WHOLE.name].moved


def test_the_bound_is_that_of_the_best_choice_of_rows() -> None:
    lengths = np.array([10, 6, 4, 2, 3, 3])
    of = scale.Setting(rows=6, nodes=2, ranks_per_node=1, cost=(0, 1))
    world = scale.World(of, lengths, lengths**2, np.array([0, 0, 0, 0, 1, 1]), token_bytes=1)

    def least(*rank: int) -> int:
        return scale.least_bytes(world, scale.Split(np.arange(6), np.array(rank), np.zeros(6, np.int64), 1))

    assert least(0, 0, 0, 0, 1, 1) == 0
    assert (
        least(0, 1, 1, 1, 1, 1) == 12
    )  # of the cost, 56 must go, 0.56 of a row; but it holds 12 tokens more
    assert least(1, 0, 0, 0, 1, 0) == 9  # of the cost, 91 must go, 0.91 of a row
    assert least(1, 0, 0, 0, 0, 0) == 8
    assert least(0, 0, 0, 0, 0, 1) == 3


def test_the_planner_waits_least(outcomes: dict[str, scale.Outcome]) -> None:
    for peer in (DRIVER, HASH, HOME):
        assert outcomes[PLAN.name].idle <= outcomes[peer.name].idle
        assert outcomes[PLAN.name].seconds <= outcomes[peer.name].seconds


def test_idle_time_is_that_of_the_split_where_the_network_is_no_limit(world: scale.World) -> None:
    fast = replace(world, of=replace(world.of, node_bandwidth=1e18, rank_bandwidth=1e18))
    for strategy in scale.STRATEGIES:
        found = scale.run(fast, strategy)
        assert found.idle == pytest.approx(found.split.idle(fast), abs=1e-9)


def test_a_slow_network_is_waited_for(world: scale.World) -> None:
    """The last byte of a driver comes after all have passed its port, in and out."""
    slow = replace(world, of=replace(world.of, node_bandwidth=1e3))
    found = scale.run(slow, DRIVER)
    assert found.seconds > found.moved / 1e3
    assert found.seconds > scale.run(slow, PLAN).seconds


def test_a_slow_rank_holds_up_all_unless_it_has_nothing_to_do(world: scale.World) -> None:
    found, without = scale.run(world, PLAN), scale.run(world, WITHOUT_SLOW)
    assert found.with_slow[0] > found.seconds * 1.1
    assert without.with_slow == (without.seconds, without.idle)
    assert not np.isin(without.split.rank, world.slow).any()


@pytest.mark.parametrize("name", BY)
def test_after_a_loss_every_row_runs_once(
    world: scale.World, outcomes: dict[str, scale.Outcome], name: str
) -> None:
    found = outcomes[name]
    for way in found.strategy.ways:
        loss = scale.lose(world, found, way)
        assert np.array_equal(np.sort(np.concatenate([loss.done, loss.rest.rows])), np.arange(SETTING.rows))
        lost = set(range(SETTING.nodes)) - set(loss.rest.node(world).tolist())
        assert len(lost) == 1
        assert not np.isin(found.split.node(world)[np.isin(found.split.rows, loss.done)], list(lost)).any()
        assert (loss.remade == 0) == found.strategy.driver
        assert loss.more_seconds >= loss.least_seconds - 1e-9


def test_micro_batches_that_are_dealt_again_are_the_same(
    world: scale.World, outcomes: dict[str, scale.Outcome]
) -> None:
    """Rows of one micro-batch stay together, and no others come to them."""
    found = outcomes[PLAN.name]
    rest = scale.lose(world, found, "dealt again").rest

    def together(split: scale.Split) -> set[tuple[int, ...]]:
        slots = split.rank * split.steps + split.step
        return {tuple(sorted(split.rows[slots == slot].tolist())) for slot in np.unique(slots)}

    assert together(rest) <= together(found.split)


def test_one_seed_gives_one_outcome(world: scale.World, outcomes: dict[str, scale.Outcome]) -> None:
    again = scale.World.make(world.of)
    for name, strategy in BY.items():
        found, before = scale.run(again, strategy), outcomes[name]
        assert (found.moved, found.least, found.seconds, found.with_slow) == (
            (before.moved, before.least, before.seconds, before.with_slow)
        )
        for way in strategy.ways:
            ours, theirs = scale.lose(again, found, way), scale.lose(world, before, way)
            assert (ours.more_moved, ours.more_seconds) == (theirs.more_moved, theirs.more_seconds)


def test_a_token_takes_the_bytes_of_its_columns() -> None:
    assert scale.token_bytes(0, 0) == 9  # id, log-probability, mask
    assert scale.token_bytes(48, 8) == 9 + 48 * 8


def test_the_script_prints_tables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        "--rows",
        "400",
        "--nodes",
        "4",
        "--ranks-per-node",
        "2",
        "--cost",
        "24576",
        "1",
        "--sync",
        "step",
    ]
    monkeypatch.setattr(sys, "argv", ["simulate_scale.py", *options])
    scale.main()
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(f"| {name} |") for line in lines) for name in BY)


def test_a_report_of_ranks_that_are_nearly_all_slow() -> None:
    """Who is left when a node is lost are the slow ones."""
    assert len(list(scale.report(scale.Setting(rows=200, nodes=2, ranks_per_node=2, seed=1)))) > 10
    assert len(list(scale.report(scale.Setting(rows=200, nodes=2, ranks_per_node=1)))) > 10


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rows": 0}, "rows must be at least 1, got 0"),
        ({"nodes": 1}, "nodes must be at least 2, got 1"),
        ({"fetch": 0}, "fetch must be at least 1, got 0"),
        ({"node_bandwidth": 0.0}, "node_bandwidth must be above 0, got 0.0"),
        ({"cost": (0, 0)}, "cost must be above 0, got (0, 0)"),
    ],
)
def test_what_cannot_be_simulated_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        scale.Setting(**given)
