"""Batches that share prefixes and are planned elsewhere: a layout made before, and trees over ranks."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rollouts.sharing import (
    LEVELS,
    Attending,
    clipped,
    lengths_of,
    scores,
    shared_rollouts,
)
from tests.thorough import examples

from rollkit import Batch, Forest, StepPlan, TreeLayout, balance, imbalance, pack, plan_steps

Columns = dict[str, Any]
COST = (24, 1)


def same(got: Batch, wanted: Batch) -> None:
    assert list(got) == list(wanted)
    assert got.layout.equals(wanted.layout)
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array, name)
    for name in ("input_ids", "loss_masks", "rollout_logprobs", "sampling_masks"):
        assert got.unpack(name).equals(wanted.unpack(name)), name


@settings(max_examples=examples(120), deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.sampled_from([{}, {"oversize": "truncate"}, {"oversize": "drop"}, {"oversize": "alone"}]),
)
@pytest.mark.filterwarnings("ignore:truncation leaves")
def test_a_layout_made_before_is_that_of_pack(seed: int, rows: int, options: Columns) -> None:
    columns = shared_rollouts(np.random.default_rng(seed), rows)
    longest = max(1, *lengths_of(columns))
    capacity = max(1, longest // 2) if options else longest
    wanted = pack(columns, capacity, share_prefixes=True, levels=LEVELS, **options)
    layout = pickle.loads(pickle.dumps(Forest.build(columns).pack(capacity, **options)))
    same(pack(columns, layout=layout, levels=LEVELS), wanted)
    same(pack(columns, layout=layout, levels=LEVELS, share_prefixes=True, out=wanted), wanted)
    chosen = np.random.default_rng(seed).permutation(layout.shape[0])[:2]
    part = pack(columns, rows=layout.rows_of(chosen), layout=layout.bins(chosen), levels=LEVELS)
    for name in ("input_ids", "positions", "visible_until"):
        np.testing.assert_array_equal(part[name], wanted[name][chosen], name)


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_one_other_token_is_refused_where_it_is_shared(seed: int, rows: int) -> None:
    """And is as good as any where it is not."""
    rng = np.random.default_rng(seed)
    columns = shared_rollouts(rng, rows)
    layout = Forest.build(columns).pack(max(1, *lengths_of(columns)))
    row = int(rng.integers(0, rows))
    if not (length := lengths_of(columns)[row]):
        return
    position = int(rng.integers(0, length))
    tokens = columns["prompt_token_ids"][row] + columns["response_ids"][row]
    tokens[position] += 7
    cut = len(columns["prompt_token_ids"][row])
    columns["prompt_token_ids"][row], columns["response_ids"][row] = tokens[:cut], tokens[cut:]
    begin = int(layout.row_offsets()[row])
    shared = layout.multiplicity().reshape(-1)[layout.gather_indices()[begin + position]] > 1
    if not shared:
        batch = pack(columns, layout=layout, levels=LEVELS)
        assert batch.unpack("input_ids").to_list()[row] == tokens
        return
    with pytest.raises(ValueError, match=rf"position {position} differs from what another row has"):
        pack(columns, layout=layout, levels=LEVELS)


def test_an_empty_bin_is_a_batch() -> None:
    """What a rank runs where there are fewer bins than ranks."""
    layout = Forest.build([[1, 2], [1, 3]]).pack(4, bins_multiple_of=2)
    batch = pack({"response_ids": [[1, 2], [1, 3]]}, rows=[], layout=layout.bins([1]), pad_id=9)
    assert batch["input_ids"].tolist() == [[9, 9, 9, 9]]
    assert batch.num_rows == 0
    assert layout.costs((1, 1)).tolist() == [3 + 4 + 4 - 1, 0]


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_tokens_of_a_framework_are_compared(framework: str) -> None:
    module = pytest.importorskip(framework)
    made = module.tensor if framework == "torch" else module.numpy.asarray
    layout = Forest.build([[1, 2, 3], [1, 2, 4]]).pack(4)
    rows = [[1, 2, 3], [1, 2, 4]]
    batch = pack({"response_ids": list(map(made, rows))}, layout=layout)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4]]
    rows[1][1] = 9
    with pytest.raises(ValueError, match=r"^row 1, position 1 differs from what another row has"):
        pack({"response_ids": list(map(made, rows))}, layout=layout)


def dealt(layout: TreeLayout, ranks: int, way: str) -> list[list[np.ndarray[Any, Any]]]:
    """The bins of each rank, micro-batch by micro-batch: two ways to deal them."""
    costs = layout.costs(COST)
    if way == "balance":
        parts = balance(layout.costs(), ranks, cost=costs, equal_counts=True)
        return [[np.flatnonzero(parts == rank)] for rank in range(ranks)]
    plan = plan_steps(layout.costs(), capacity=layout.width, ranks=ranks, cost=costs, max_segments=1)
    assert isinstance(plan, StepPlan)
    assert plan.steps == -(-layout.shape[0] // ranks)
    return [[plan.rows(rank, t) for t in range(plan.steps)] for rank in range(ranks)]


@pytest.mark.parametrize("way", ["balance", "plan_steps"])
@pytest.mark.parametrize("seed", range(examples(12)))
def test_trees_over_ranks(seed: int, way: str) -> None:
    """Each row is at one rank, ranks have as many bins, and their gradients add up to that of one batch."""
    torch = pytest.importorskip("torch")
    columns = shared_rollouts(np.random.default_rng(seed), 40, most=6)
    ranks, capacity = 2 + seed % 2, max(lengths_of(columns))
    layout = Forest.build(columns).pack(capacity, bins_multiple_of=ranks)
    model = Attending(torch, torch.float64, seed)

    def gradient(batch: Batch) -> Any:
        return model.gradients(clipped(torch, batch.unpack(scores(torch, model, batch)), batch))

    seen: list[int] = []
    total: Any = 0
    of_ranks = dealt(layout, ranks, way)
    for micro_batches in of_ranks:
        assert sum(map(len, micro_batches)) == layout.shape[0] // ranks
        for bins in micro_batches:
            rows = layout.rows_of(bins)
            seen += rows.tolist()
            batch = pack(columns, rows=rows, layout=layout.bins(bins), levels=LEVELS)
            total = total + gradient(batch)
    assert sorted(seen) == list(range(40))
    wanted = gradient(pack(columns, capacity, levels=LEVELS))
    assert float((total - wanted).norm() / wanted.norm()) <= 1e-12


def test_bins_are_dealt_by_what_they_cost() -> None:
    """Of many bins ranks get as much to compute, whatever their rows share."""
    columns = shared_rollouts(np.random.default_rng(0), 3000, most=12)
    layout = Forest.build(columns, groups=np.arange(3000) // 8).pack(512, oversize="drop", bins_multiple_of=8)
    costs = layout.costs(COST)
    parts = balance(layout.costs(), 8, cost=costs, equal_counts=True)
    assert np.ptp(np.bincount(parts, minlength=8)) == 0
    excess, bound = imbalance(layout.costs(), parts, cost=costs, parts=8)
    assert excess <= max(bound, 0.02)
    whole = sum(length * COST[0] + length**2 * COST[1] for length in lengths_of(columns) if length <= 512)
    assert costs.sum() < whole
