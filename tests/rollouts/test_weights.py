"""Loss weights: however a batch is split, their sum is the objective."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import by_level, examples

from rollkit import Ragged, Rollouts, Totals, concat, loss_totals, loss_weights, pack, turn_lengths
from rollkit._rollouts.weights import NORMALIZERS
from rollkit.testing import objective_reference

ROWS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.floats(-4, 4), st.sampled_from([0, 0, 1, 1, 1])), max_size=6),
        st.integers(0, 3),  # group
        st.integers(0, 5),  # trajectory
        st.integers(0, 3),  # rank
        st.integers(0, 2),  # micro-batch
    ),
    max_size=12,
)


@settings(max_examples=examples(200))
@given(ROWS, st.sampled_from(NORMALIZERS), st.sampled_from(["skip", "count"]), st.booleans(), st.booleans())
def test_any_split_is_the_objective(
    rows: list[Any], normalize: str, empty: str, told: bool, by_array: bool
) -> None:
    losses = [[loss for loss, _ in row[0]] for row in rows]
    masks = [[mask for _, mask in row[0]] for row in rows]
    kwargs: dict[str, Any] = {"groups": [row[1] for row in rows]}
    if told:
        kwargs["trajectories"] = [row[2] for row in rows]
    numbers = {"num_groups": 4, **({"num_trajectories": 6} if told else {})} if by_array else {}
    splits = {row[3:] for row in rows}
    parts = [[i for i, row in enumerate(rows) if row[3:] == split] for split in sorted(splits)]

    def of(part: list[int]) -> tuple[list[Any], dict[str, Any]]:
        return [masks[i] for i in part], {name: [ids[i] for i in part] for name, ids in kwargs.items()}

    def counted(part: list[int]) -> Totals:
        mine, ids = of(part)
        return loss_totals(mine, empty=empty, **ids, **numbers)

    totals: Any = sum(map(counted, parts), start=counted([]))
    if by_array:
        summed = np.sum([counted(part).array() for part in [[], *parts]], axis=0)
        assert Totals.from_array(summed, num_trajectories=6 * told, empty=empty) == totals
    if numbers and empty == "count":
        return  # then ids that no row has count too
    options = {"constant": 8.0} if normalize == "constant" else {}
    found = 0.0
    for part in parts:
        mine, ids = of(part)
        weights = loss_weights(
            mine, normalize=normalize, empty=empty, totals=totals, dtype=np.float64, **ids, **options
        )
        found += sum(float(np.dot(w, losses[i])) for w, i in zip(weights, part, strict=True))
    wanted = objective_reference(losses, masks, normalize=normalize, empty=empty, constant=8.0, **kwargs)
    assert found == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_random_splits_over_ranks_and_micro_batches() -> None:
    rng = np.random.default_rng(0)
    for _ in range(by_level(50, 200)):
        count = int(rng.integers(1, 20))
        masks = [(rng.random(n) < 0.7).astype(np.uint8) for n in rng.integers(0, 12, count)]
        losses = [rng.normal(size=len(mask)) for mask in masks]
        groups = rng.integers(0, 5, count)
        where = rng.integers(0, rng.integers(1, 20), count)
        parts = [np.flatnonzero(where == part) for part in np.unique(where)]
        totals: Any = sum(loss_totals([masks[i] for i in part], groups=groups[part]) for part in parts)
        for name in NORMALIZERS:
            more: dict[str, Any] = {"constant": 64} if name == "constant" else {}
            found: Any = 0.0
            for part in parts:
                weights = loss_weights(
                    [masks[i] for i in part],
                    normalize=name,
                    groups=groups[part],
                    totals=totals,
                    dtype=np.float64,
                    **more,
                )
                found += sum(w @ losses[i] for w, i in zip(weights, part, strict=True))
            lists = [x.tolist() for x in losses], [x.tolist() for x in masks]
            wanted = objective_reference(*lists, normalize=name, groups=groups.tolist(), constant=64)
            assert abs(found - wanted) < 1e-12


MASKS = [[1, 0, 1], [], [0, 0], [1]]


@pytest.mark.parametrize("normalize", NORMALIZERS)
def test_without_a_loss_token_all_are_zero(normalize: str) -> None:
    more: dict[str, Any] = {"constant": 9} if normalize == "constant" else {}
    cases: list[list[list[int]]] = [[], [[]], [[0, 0], []]]
    for masks in cases:
        found = loss_weights(masks, normalize=normalize, groups=[7] * len(masks), **more)
        assert found.to_list() == [[0.0] * len(mask) for mask in masks]
        assert found.dtype == np.float32


def _torch(masks: list[list[int]]) -> Any:
    torch = pytest.importorskip("torch")
    return [torch.tensor(mask, dtype=torch.int64) for mask in masks]


def _jax(masks: list[list[int]]) -> Any:
    jnp = pytest.importorskip("jax").numpy
    return [jnp.asarray(mask, dtype=jnp.float32) for mask in masks]


def _frozen(masks: list[list[int]]) -> Any:
    rows = Ragged.from_rows(masks, np.uint8)
    rows.values.flags.writeable = False
    return rows


@pytest.mark.parametrize(
    "made",
    [
        lambda masks: masks,
        lambda masks: [np.array(mask, bool) for mask in masks],
        lambda masks: Ragged.from_rows([[9], *masks, [1, 1]])[1:-1],
        lambda masks: Rollouts({"response_ids": [[5] * len(m) for m in masks], "loss_masks": masks}),
        lambda masks: {"response_ids": [[5] * len(m) for m in masks], "loss_masks": masks},
        lambda masks: [[-3 * x for x in mask] for mask in masks],
        lambda masks: [[float("nan") if x else 0.0 for x in mask] for mask in masks],
        _frozen,
        _torch,
        _jax,
    ],
)
def test_masks_of_any_kind(made: Any) -> None:
    found = loss_weights(made(MASKS), normalize="sequence")
    assert found.to_list() == [[0.25, 0.0, 0.25], [], [0.0, 0.0], [0.5]]
    assert loss_totals(made(MASKS)) == Totals(3, 2)
    assert loss_totals(made(MASKS), empty="count") == Totals(3, 4, empty="count")


def test_responses_count_whole_without_masks() -> None:
    assert loss_weights({"response_ids": [[5, 6], [7, 8]]}).to_list() == [[0.25, 0.25]] * 2


def test_names_of_columns() -> None:
    rows = Rollouts(
        {
            "response_ids": [[1, 2], [3], [4]],
            "instance_ids": ["a", "a", "b"],
            "trajectory_ids": ["x", "x", "y"],
        }
    )
    found = loss_weights(rows, normalize="prompt", groups="instance_ids")
    assert found.to_list() == [pytest.approx([1 / 6, 1 / 6]), pytest.approx([1 / 6]), [0.5]]
    found = loss_weights(rows, normalize="sequence", trajectories="trajectory_ids")
    assert found.to_list() == [pytest.approx([1 / 6, 1 / 6]), pytest.approx([1 / 6]), [0.5]]
    assert loss_totals(rows, trajectories="trajectory_ids").rows == 2


def test_a_trajectory_may_be_split_over_ranks() -> None:
    parts = [([[1, 1]], [0]), ([[1], [1]], [0, 1])]
    totals: Any = sum(loss_totals(masks, trajectories=ids, num_trajectories=3) for masks, ids in parts)
    assert (totals.rows, totals.array().tolist()) == (2, [4, 2, 3, 1, 0])
    found = [
        loss_weights(masks, normalize="sequence", trajectories=ids, totals=totals) for masks, ids in parts
    ]
    assert concat(found).to_list() == [pytest.approx([1 / 6, 1 / 6]), pytest.approx([1 / 6]), [0.5]]


def test_trajectories_need_only_be_named_where_rows_are_weighed_by_them() -> None:
    masks = [[1], [1, 1]]
    totals = loss_totals(masks, trajectories=["x", "x"])
    assert loss_weights(masks, normalize="sequence_sum", totals=totals).to_list() == [[1.0], [1.0, 1.0]]
    assert loss_weights(masks, normalize="constant", constant=2, totals=totals).to_list()[0] == [0.5]


def test_scale_multiplies_and_float32_is_rounded_once() -> None:
    masks = [[1] * 3]
    assert loss_weights(masks, scale=8.0).values[0] == np.float32(8 / 3)
    assert loss_weights(masks, scale=8.0, dtype=np.float64).values[0] == 8 / 3
    assert loss_weights(masks, scale=-1.0).values[0] == np.float32(-1 / 3)


def test_weights_go_where_tokens_go() -> None:
    rows = Rollouts({"prompt_token_ids": [[1], [2, 3]], "response_ids": [[4, 5], [6]]})
    rows = rows.with_columns(loss_weights=loss_weights(rows, normalize="sequence"))
    batch = pack(rows, capacity=6)
    assert batch["loss_weights"].dtype == np.float32
    assert batch["loss_weights"].sum() == 1
    assert batch.unpack("loss_weights").to_list() == [[0, 0.25, 0.25], [0, 0, 0.5]]


def test_all_groups_that_are_announced_count() -> None:
    counted = loss_totals([[1], [0]], groups=[0, 2], num_groups=4, empty="count")
    assert (counted.num_groups, counted.rows) == (4, 2)
    assert loss_totals([[1], [0]], groups=[0, 2], num_groups=4).num_groups == 1


def test_masks_without_values_are_refused() -> None:
    torch = pytest.importorskip("torch")
    for counts in (loss_totals, turn_lengths):
        with pytest.raises(TypeError, match="loss_masks must be on the host"):
            counts([torch.ones(2, device="meta")])


def test_totals_are_small_and_travel() -> None:
    totals = loss_totals([[1]], groups=["a"])
    assert pickle.loads(pickle.dumps(totals)) == totals
    assert Totals.from_array(Totals(3, 2).array()) == Totals(3, 2)
