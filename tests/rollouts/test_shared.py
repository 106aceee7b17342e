"""`pack(share_prefixes=True)` beside the same rollouts packed without: rows, losses and gradients."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rollouts.sharing import (
    LEVELS,
    VOCABULARY,
    Attending,
    Columns,
    clipped,
    lengths_of,
    scores,
    shared_rollouts,
)
from tests.thorough import combinations, examples

from rollkit import Batch, Forest, Ragged, Rollouts, TreeLayout, next_token_logprobs, pack, take
from rollkit._batch.unlike import _shared_spans
from rollkit.segments import block_mask, dense_mask, runs
from rollkit.testing import tree_mask_reference

PER_TOKEN = (
    "input_ids", "positions", "loss_masks", "rollout_logprobs", "prompt_kinds", "sampling_masks", "entropies",
    "kinds",
)  # fmt: skip


def same_rows(shared: Batch, plain: Batch) -> None:
    """Rows come back alike by `unpack`, whichever way they were packed."""
    assert shared.num_rows == plain.num_rows
    for name in PER_TOKEN:
        got, wanted = shared.unpack(name), plain.unpack(name)
        assert got.equals(wanted), name
        assert got.dtype == wanted.dtype, name
    assert shared.prompt_lengths.tolist() == plain.prompt_lengths.tolist()
    for name in ("rewards", "task_ids"):
        assert list(shared.rows[name]) == list(plain.rows[name])
    positions = [batch.unpack("positions") for batch in (shared, plain)]
    responses = [take(batch["positions"], batch.responses) for batch in (shared, plain)]
    assert positions[0].equals(positions[1])
    assert responses[0].equals(responses[1])


def as_its_layout_says(batch: Batch, pad_id: int) -> None:
    """The arrays are those of the layout, which is checked by itself."""
    layout = batch.layout
    assert isinstance(layout, TreeLayout)
    assert list(batch) == [
        "input_ids", "positions", "segment_ids", "visible_until", "multiplicity", "predecessors",
    ]  # fmt: skip
    for name in ("positions", "segment_ids", "visible_until", "multiplicity", "predecessors"):
        np.testing.assert_array_equal(batch[name], getattr(layout, name)(), name)
    assert (batch["input_ids"][batch["segment_ids"] == 0] == pad_id).all()
    assert batch["input_ids"].dtype == np.int32
    assert set(batch.rows) >= set(PER_TOKEN) - {"input_ids", "positions"}


@settings(max_examples=examples(200))
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.sampled_from([{}, {"oversize": "truncate"}, {"oversize": "drop"}, {"oversize": "alone"}, {"bins": 9}]),
    st.sampled_from([None, "task_ids"]),
)
def test_rows_are_those_without_sharing(seed: int, rows: int, options: Columns, groups: str | None) -> None:
    columns = shared_rollouts(np.random.default_rng(seed), rows)
    longest = max(1, *lengths_of(columns))
    capacity = max(1, longest // 2) if "oversize" in options else longest
    given_now: Columns = {"pad_id": 9, "levels": LEVELS, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        shared = pack(columns, capacity, share_prefixes=True, groups=groups, **given_now)
        plain = pack(columns, capacity, **given_now)
    same_rows(shared, plain)
    as_its_layout_says(shared, 9)
    assert shared.layout.num_placed <= plain.layout.num_placed
    if "bins" in options:
        assert shared["input_ids"].shape == (9, capacity)
    back = pickle.loads(pickle.dumps(shared))
    same_rows(back, plain)
    assert back.layout.equals(shared.layout)


@pytest.mark.parametrize("seed", range(examples(40)))
def test_parts_and_rows_in_another_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [Rollouts(shared_rollouts(rng, 4)), Rollouts(shared_rollouts(rng, 3))]
    rows = rng.integers(0, 7, 8)
    shared = pack(parts, 64, share_prefixes=True, rows=rows, levels=LEVELS, groups="task_ids")
    plain = pack(parts, 64, rows=rows, levels=LEVELS)
    same_rows(shared, plain)
    forest = Forest.build(plain.unpack("input_ids"), groups=plain.rows["task_ids"])
    assert shared.layout.equals(forest.pack(64))


def test_rows_that_match() -> None:
    rows = {
        "prompt_token_ids": [[1, 2], [1, 2]],
        "response_ids": [[3], [3]],
        "images": [[7, 7, 0], [7, 8, 0]],
        "tasks": ["a", "b"],
    }
    with pytest.warns(UserWarning, match="equal tokens may stand for other images"):
        assert pack(rows, 8, share_prefixes=True).layout.num_placed == 3
    assert pack(rows, 8, share_prefixes=True, match="images").layout.num_placed == 5
    assert pack(rows, 8, share_prefixes=True, groups="tasks").layout.num_placed == 6
    assert pack(rows, 8, share_prefixes=True, groups=[5, 6]).layout.num_placed == 6


@pytest.mark.parametrize("seed", range(examples(40)))
def test_slices(seed: int) -> None:
    """Bins of a batch are a batch: positions in the whole are positions in it."""
    columns = shared_rollouts(np.random.default_rng(seed), 9)
    batch = pack(
        columns, max(1, *lengths_of(columns)), share_prefixes=True, levels=LEVELS, bins_multiple_of=3
    )
    seen = 0
    for part in batch.split(3):
        as_its_layout_says(part, 0)
        rows = part.unpack("input_ids").to_list()
        columns_of_part = part.rows
        seen += part.num_rows
        assert [len(row) for row in rows] == part.unpack("loss_masks").lengths.tolist()
        assert len(columns_of_part["task_ids"]) == part.num_rows
    assert seen == batch.num_rows
    empty = batch[1:1]
    assert empty.num_rows == 0
    assert empty["input_ids"].shape == (0, batch["input_ids"].shape[1])


def test_memory_is_filled_again() -> None:
    rng = np.random.default_rng(5)
    first = pack(shared_rollouts(rng, 9), 40, share_prefixes=True, levels=LEVELS)
    memory = {name: array.__array_interface__["data"][0] for name, array in first.items()}
    wanted = shared_rollouts(rng, 4)
    again = pack(wanted, 40, share_prefixes=True, levels=LEVELS, out=first)
    same_rows(again, pack(wanted, 40, levels=LEVELS))
    as_its_layout_says(again, 0)
    for name in ("input_ids", "positions", "segment_ids", "visible_until", "multiplicity"):
        assert again[name].__array_interface__["data"][0] == memory[name], name


def test_masks_take_the_batch() -> None:
    pytest.importorskip("torch")
    columns = shared_rollouts(np.random.default_rng(1), 6)
    batch = pack(columns, 64, share_prefixes=True, levels=LEVELS)
    np.testing.assert_array_equal(dense_mask(batch)[0], tree_mask_reference(batch.layout))
    assert block_mask(batch).shape == block_mask(batch.layout).shape
    with pytest.raises(TypeError, match="share tokens"):
        runs(batch)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_columns_of_rows_move_with_the_batch(framework: str) -> None:
    pytest.importorskip(framework)
    columns = shared_rollouts(np.random.default_rng(2), 6)
    columns["lists"] = Ragged.from_rows([[1, 2], [3], [], [4], [5], [6]])
    plain = pack(columns, 64, levels={**LEVELS, "lists": "row"})
    moved = pack(columns, 64, share_prefixes=True, levels={**LEVELS, "lists": "row"}).to(framework)
    assert type(moved.unpack("rollout_logprobs").flat) is type(moved["positions"])
    assert isinstance(moved.rows["lists"].values, np.ndarray)
    part = moved[0:1]
    assert type(part.unpack("rollout_logprobs").flat) is type(moved["positions"])
    back = pickle.loads(pickle.dumps(part)).to("numpy")
    if framework == "torch":  # JAX has no int64
        same_rows(back, plain)


def test_repr_and_views() -> None:
    batch = pack({"response_ids": [[1, 2], [1, 3]]}, 4, share_prefixes=True)
    assert repr(batch).startswith("Batch(TreeLayout(2 rows, 3 nodes in 1 × 4, 75.0 % used): input_ids int32")
    assert batch.rename({"input_ids": "tokens"}).unpack("tokens").to_list() == [[1, 2], [1, 3]]
    more = batch | {"hidden": np.zeros((1, 4, 2))}
    assert more.unpack("hidden").lengths.tolist() == [2, 2]
    assert more.unpack("loss_masks").to_list() == [[1, 1], [1, 1]]


def logits_of(rng: np.random.Generator, batch: Batch) -> Any:
    """Logits that depend on a token and its position alone: the same for rows that share it, and without."""
    table = rng.normal(size=(VOCABULARY, 64, VOCABULARY)).astype(np.float32)
    return table[np.minimum(batch["input_ids"], VOCABULARY - 1), batch["positions"]]


@pytest.mark.parametrize(("seed", "framework"), combinations(range(examples(24)), ["numpy", "torch", "jax"]))
def test_logprobs_are_those_without_sharing(seed: int, framework: str) -> None:
    columns = shared_rollouts(np.random.default_rng(seed), 7)
    batches = [pack(columns, 48, levels=LEVELS, share_prefixes=shared) for shared in (True, False)]
    found = []
    for batch in batches:
        logits = logits_of(np.random.default_rng(seed), batch)
        if framework != "numpy":
            pytest.importorskip(framework)
            batch = batch.to(framework)
            logits = batch._with({"logits": logits}).to(framework)["logits"]
        rows = batch.unpack(next_token_logprobs(logits, batch))
        found.append([np.asarray(row) for row in rows.to_list()])
    assert [row.shape for row in found[0]] == [row.shape for row in found[1]]
    for got, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def test_logprobs_under_jit() -> None:
    jax = pytest.importorskip("jax")
    columns = shared_rollouts(np.random.default_rng(3), 6)
    batch = pack(columns, 48, levels=LEVELS, share_prefixes=True)
    logits = logits_of(np.random.default_rng(0), batch)
    traces = []

    def score(batch: Batch, logits: Any) -> Any:
        traces.append(1)
        logprobs = batch.unpack(next_token_logprobs(logits, batch))
        return (logprobs.flat * batch.unpack("rollout_logprobs").flat).sum()

    compiled = jax.jit(score)
    for factor in (1, 2):  # columns of rows are values, as arrays are: others are not another program
        columns["rollout_logprobs"] = [[factor * x for x in row] for row in columns["rollout_logprobs"]]
        again = pack(columns, 48, levels=LEVELS, share_prefixes=True)
        found = compiled(again.to("jax"), jax.numpy.asarray(logits))
        rows = batch.unpack(next_token_logprobs(logits, batch)).flat
        wanted = (rows * again.unpack("rollout_logprobs").flat).sum()
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert len(traces) == 1


@pytest.mark.parametrize("seed", range(examples(12)))
@pytest.mark.parametrize("precise", [True, False])
def test_gradients_are_those_without_sharing(seed: int, precise: bool) -> None:
    """Any loss of rows: float64 by `edges`, float32 by `next_token_logprobs`."""
    torch = pytest.importorskip("torch")
    columns = shared_rollouts(np.random.default_rng(seed), 16, most=6)
    model = Attending(torch, torch.float64 if precise else torch.float32, seed)

    def gradient(batch: Batch) -> Any:
        scored = scores(torch, model, batch) if precise else next_token_logprobs(model.logits(batch), batch)
        return model.gradients(clipped(torch, batch.unpack(scored), batch))

    wanted = gradient(pack(columns, 64, levels=LEVELS))
    found = gradient(pack(columns, 64, levels=LEVELS, share_prefixes=True))
    assert float(wanted.norm()) > 1e-3, "a case that shows something"
    assert float((found - wanted).norm() / wanted.norm()) <= (1e-12 if precise else 2e-6)


def test_a_shared_token_that_counts_once_is_another_gradient() -> None:
    torch = pytest.importorskip("torch")
    rows = {"prompt_token_ids": [[1], [1], [1]], "response_ids": [[2, 3], [2, 4, 0], [2, 4]]}
    model = Attending(torch, torch.float64, 0)
    plain, shared = (pack(rows, 12, share_prefixes=once) for once in (False, True))
    wanted, found = (
        model.gradients(batch.unpack(scores(torch, model, batch)).flat.sum()) for batch in (plain, shared)
    )
    once = model.gradients(scores(torch, model, shared).sum())
    assert float((found - wanted).norm() / wanted.norm()) <= 1e-12
    assert float((once - wanted).norm() / wanted.norm()) > 0.1


@pytest.mark.parametrize("seed", range(examples(12)))
def test_linear_losses_by_weights_that_are_summed(seed: int) -> None:
    """`reduce(…, "sum")`: one weight for each token, the same loss and gradient."""
    torch = pytest.importorskip("torch")
    columns = shared_rollouts(np.random.default_rng(seed), 16, most=6)
    model = Attending(torch, torch.float32, seed)
    plain = pack(columns, 64, levels=LEVELS)
    shared = pack(columns, 64, levels=LEVELS, share_prefixes=True)
    layout = shared.layout
    assert isinstance(layout, TreeLayout)
    weights = layout.reduce(shared.rows["rollout_logprobs"], "sum")
    assert weights.shape == shared["input_ids"].shape
    losses = [
        (next_token_logprobs(model.logits(batch), batch) * torch.as_tensor(found)).sum()
        for batch, found in ((plain, plain["rollout_logprobs"]), (shared, weights))
    ]
    gradients = [model.gradients(loss) for loss in losses]
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) <= 2e-6


def test_edges_where_a_row_counts() -> None:
    rows = {"prompt_token_ids": [[1], [1]], "response_ids": [[2, 3], [2, 4]], "loss_masks": [[0, 1], [1, 0]]}
    batch = pack(rows, 8, share_prefixes=True)
    before, after = batch.layout.edges(where=batch.rows["loss_masks"])
    assert batch["input_ids"].reshape(-1)[after].tolist() == [2, 3]
    assert batch["input_ids"].reshape(-1)[before].tolist() == [1, 2]


def test_columns_of_tensors_keep_their_gradient() -> None:
    torch = pytest.importorskip("torch")
    values = torch.arange(4.0, requires_grad=True)
    rows = {"response_ids": [[1, 2], [1, 3]], "scores": Ragged(values, np.array([0, 2, 4]))}
    batch = pack(rows, 4, share_prefixes=True, levels={"scores": "response"})
    layout = batch.layout
    assert isinstance(layout, TreeLayout)
    layout.reduce(batch.rows["scores"], "sum").square().sum().backward()
    assert values.grad.tolist() == [4.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("framework", "dtype"),
    [("torch", "float32"), ("torch", "bfloat16"), ("jax", "float32"), ("jax", "bfloat16")],
)
def test_gradients_of_a_token_that_several_follow(framework: str, dtype: str) -> None:
    """What predicts all branches gets the gradient of each."""
    pytest.importorskip(framework)
    rows = {"response_ids": [[1, 0], [1, 2], [1, 3, 3], [4, 1]]}
    shared, plain = (pack(rows, 12, share_prefixes=once).to(framework) for once in (True, False))
    weights = np.arange(1, 10, dtype=np.float32)
    found = []
    for batch in (shared, plain):
        table = np.random.default_rng(0).normal(size=(VOCABULARY, 3, VOCABULARY)).astype(np.float32)
        logits = table[np.asarray(batch["input_ids"]), np.asarray(batch["positions"])]
        if framework == "torch":
            import torch

            given_now = torch.tensor(logits).to(getattr(torch, dtype)).requires_grad_()
            scored = batch.unpack(next_token_logprobs(given_now, batch)).flat
            (scored * torch.tensor(weights)).sum().backward()
            gradient = np.asarray(given_now.grad.float())  # type: ignore[union-attr]
        else:
            import jax

            def loss(logits: Any, batch: Batch = batch) -> Any:
                return (batch.unpack(next_token_logprobs(logits, batch)).flat * weights).sum()

            gradient = np.asarray(jax.grad(loss)(jax.numpy.asarray(logits, dtype)), np.float32)
        sums = np.zeros_like(table)
        np.add.at(sums, (np.asarray(batch["input_ids"]), np.asarray(batch["positions"])), gradient)
        found.append(sums)
    bound = 0.05 if dtype == "bfloat16" else 1e-6
    np.testing.assert_allclose(found[0], found[1], rtol=bound, atol=bound)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_pickles_keep_the_framework(framework: str) -> None:
    pytest.importorskip(framework)
    rows = {
        "response_ids": [[1, 2], [1, 3]],
        "kept_token_ids": [[[1], [2, 3]], [[], [4]]],
        "tags": ["a", "b"],
    }
    batch = pack(rows, 4, share_prefixes=True).to(framework)
    for found in (
        pickle.loads(pickle.dumps(batch)),
        copy.deepcopy(batch),
        pickle.loads(pickle.dumps(batch[:1])),
    ):
        for name in ("loss_masks", "kept_token_ids"):
            held, wanted = found.rows[name]._held, batch.rows[name]._held
            if name == "kept_token_ids":
                held, wanted = held.values, wanted.values
            assert type(held) is type(wanted) is not np.ndarray
            assert found.unpack(name).to_list() == batch.unpack(name).to_list()
        assert found.rows["tags"] == batch.rows["tags"]


def test_rows_that_grow_are_compared_once_each() -> None:
    forest = Forest.build([list(range(n)) for n in range(1, 30)])
    spans = list(_shared_spans(forest, forest.row_lengths))
    assert spans == [(n, n - 1, 0, n) for n in range(1, 29)]
