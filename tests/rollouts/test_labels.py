"""`labels`, `Layout.edges`, `next_token_logprobs` and the column `labels`, beside loops over tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

import rollkit
from rollkit import Batch, Layout, labels, next_token_logprobs, pack, pad, take
from rollkit.testing import labels_reference, layouts, next_token_logprobs_reference, rollout_rows

FRAMEWORKS = ("numpy", "torch", "jax")
ROWS: dict[str, Any] = {
    "prompt_token_ids": [[1, 2], [], [3]],
    "response_ids": [[4, 0], [5], [6, 1, 2]],
    "loss_masks": [[1, 1], [1], [1, 0, 1]],
}


def host(array: Any) -> Any:
    return array.detach().numpy() if hasattr(array, "detach") else np.asarray(array)


def own(framework: str, array: Any) -> Any:
    return Batch({"x": array}, Layout.concat([]), np.zeros(0, np.int64), {}).to(framework)["x"]


@given(rollout_rows(), st.booleans(), st.sampled_from(FRAMEWORKS))
@settings(max_examples=examples(60))
def test_labels_equal_the_reference(rows: list[dict[str, Any]], packed: bool, framework: str) -> None:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    longest = max(len(row["prompt_token_ids"]) + len(row["response_ids"]) for row in rows)
    batch = pack(columns, max(longest, 1) + 1) if packed else pad(columns)
    wanted = labels_reference(batch["input_ids"], batch["segment_ids"], batch["loss_masks"])
    theirs = batch.to(framework)
    found = labels(theirs)
    assert type(found) is type(theirs["input_ids"])
    np.testing.assert_array_equal(host(found), wanted)
    if framework != "jax":
        assert host(found).dtype == np.int64
    moved = host(labels(theirs, shift=True))
    np.testing.assert_array_equal(moved.reshape(-1)[:-1], wanted.reshape(-1)[1:])
    assert (moved.reshape(-1)[-1:] == -100).all()
    everything = labels_reference(
        batch["input_ids"], batch["segment_ids"], np.ones_like(batch["loss_masks"]), -1
    )
    np.testing.assert_array_equal(host(labels(theirs, -1, mask=None)), everything)


@given(layouts(pieces=False))
@settings(max_examples=examples(100))
def test_edges_are_within_segments(layout: Layout) -> None:
    wanted = [
        (start + i - 1, start + i)
        for start, length in zip(layout.starts.tolist(), layout.lengths.tolist(), strict=True)
        for i in range(1, length)
    ]
    before, token = layout.edges()
    assert before.dtype == token.dtype == np.int64
    assert list(zip(before.tolist(), token.tolist(), strict=True)) == sorted(wanted)


def whole_and_split(rows: list[dict[str, Any]], capacity: int) -> tuple[Batch, Batch]:
    """Rollouts padded, a row a line, and in pieces."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return pad(columns, side="right"), pack(columns, capacity, oversize="split", order="shuffled", seed=1)


@given(rollout_rows(), st.integers(1, 7), st.sampled_from(FRAMEWORKS))
@settings(max_examples=examples(60))
def test_shifted_labels_go_on_from_piece_to_piece(
    rows: list[dict[str, Any]], capacity: int, framework: str
) -> None:
    whole, batch = whole_and_split(rows, capacity)
    wanted = take(labels(whole, shift=True), whole.layout).to_list()
    found = host(labels(batch.to(framework), shift=True))
    assert take(np.asarray(found, np.int64), batch.layout).to_list() == wanted
    # Where the loss shifts by itself, the first token of a piece has none.
    firsts = host(labels(batch.to(framework))).reshape(-1)[batch.layout.starts[batch.layout.lengths > 0]]
    assert (firsts == -100).all()


@given(rollout_rows(), st.integers(1, 7), st.sampled_from(FRAMEWORKS))
@settings(max_examples=examples(40))
def test_logprobs_go_on_from_piece_to_piece(
    rows: list[dict[str, Any]], capacity: int, framework: str
) -> None:
    whole, batch = whole_and_split(rows, capacity)
    table = np.random.default_rng(0).normal(0, 3, (1000, 1000)).astype(np.float32)  # a bigram model
    assert batch["input_ids"].max(initial=0) < 1000
    wanted = take(next_token_logprobs(table[whole["input_ids"]], whole), whole.layout)
    found = host(next_token_logprobs(own(framework, table[batch["input_ids"]]), batch))
    np.testing.assert_allclose(take(found, batch.layout).flat, wanted.flat, atol=1e-4)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_targets_go_on_from_piece_to_piece(framework: str) -> None:
    rows = {
        "response_ids": [[1, 2, 3, 4, 5, 6, 7], [8]],
        "loss_masks": [[1, 1, 1, 1, 0, 1, 1], [1]],
        "advantages": [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [0.8]],
    }
    batch = pack(rows, 3, oversize="split").to(framework)
    assert host(batch["input_ids"]).tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 0]]
    named = batch.rename("maxtext")
    assert host(named["targets"]).tolist() == [[2, 3, 4], [0, 6, 7], [0, 0, 0]]
    assert host(named["targets_segmentation"]).tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 0]]
    assert host(named["loss_masks"]).tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 0]]
    np.testing.assert_allclose(host(named["advantages"]), [[0.2, 0.3, 0.4], [0.5, 0.6, 0.7], [0.0, 0.0, 0.0]])
    before, after = batch.layout.edges(where=batch["loss_masks"])
    assert (host(before).tolist(), host(after).tolist()) == ([0, 1, 2, 4, 5], [1, 2, 3, 5, 6])
    if framework != "jax":  # which has no int64 unless told
        assert host(batch.rename("hf")["labels"]).tolist() == [
            [-100, 2, 3],
            [-100, -100, 6],
            [-100, -100, -100],
        ]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_edges_of_the_tokens_that_count(framework: str) -> None:
    batch = pack(ROWS, 6)
    masks = own(framework, batch["loss_masks"])
    before, token = batch.layout.edges(where=masks)
    assert type(token) is type(masks)
    counted = labels(batch).reshape(-1)
    np.testing.assert_array_equal(host(token), np.flatnonzero(counted != -100))
    np.testing.assert_array_equal(host(before), host(token) - 1)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("make", [lambda: pack(ROWS, 7), lambda: pad(ROWS), lambda: pad(ROWS, side="right")])
def test_logprobs_equal_the_reference(framework: str, make: Any) -> None:
    batch = make()
    logits = np.random.default_rng(0).normal(0, 9, (*batch.layout.shape, 8)).astype(np.float32)
    wanted = next_token_logprobs_reference(logits, batch["input_ids"], batch["segment_ids"])
    found = next_token_logprobs(own(framework, logits), batch)
    assert host(found).dtype == np.float32
    np.testing.assert_allclose(host(found), wanted, rtol=1e-5, atol=1e-5)
    normal = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    picked = next_token_logprobs(own(framework, normal), batch.to(framework), normalised=True)
    np.testing.assert_allclose(host(picked), wanted, rtol=1e-5, atol=1e-5)


def test_parts_of_logits_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from rollkit._arrays import numpy as numpy_ops
    from rollkit._arrays import torch_logprobs

    monkeypatch.setattr(numpy_ops, "_PART", 20)
    monkeypatch.setattr(torch_logprobs, "PART", 20)
    batch = pack(ROWS, 7)
    logits = np.random.default_rng(1).normal(size=(*batch.layout.shape, 8)).astype(np.float32)
    wanted = next_token_logprobs_reference(logits, batch["input_ids"], batch["segment_ids"])
    np.testing.assert_allclose(next_token_logprobs(logits, batch), wanted, atol=1e-5)
    np.testing.assert_allclose(next_token_logprobs(torch.from_numpy(logits), batch), wanted, atol=1e-5)


@pytest.mark.parametrize("normalised", [False, True])
def test_gradients_are_those_of_log_softmax(normalised: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import jax
    import jax.numpy as jnp
    import torch

    from rollkit._arrays import torch_logprobs

    monkeypatch.setattr(torch_logprobs, "PART", 20)
    batch = pack(ROWS, 7)
    before, token = batch.layout.edges()
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(*batch.layout.shape, 8)).astype(np.float32)
    weights = rng.normal(size=batch.layout.shape).astype(np.float32)

    leaf: Any = torch.from_numpy(logits.copy()).requires_grad_()
    scores = leaf if normalised else leaf.log_softmax(-1)
    ids = torch.from_numpy(batch["input_ids"]).reshape(-1)[token].long()
    plain: Any = scores.reshape(-1, 8)[torch.from_numpy(before), ids]
    (plain * torch.from_numpy(weights).reshape(-1)[token]).sum().backward()
    wanted = leaf.grad.numpy()

    leaf = torch.from_numpy(logits.copy()).requires_grad_()
    found = next_token_logprobs(leaf, batch, normalised=normalised)
    (found * torch.from_numpy(weights)).sum().backward()
    np.testing.assert_allclose(leaf.grad, wanted, atol=1e-5)

    def loss(values: Any, tokens: Any) -> Any:
        traced = Batch({"input_ids": tokens}, batch.layout, batch.prompt_lengths, {})
        return (next_token_logprobs(values, traced, normalised=normalised) * weights).sum()

    grad = jax.jit(jax.grad(loss))(jnp.asarray(logits), jnp.asarray(batch["input_ids"]))
    np.testing.assert_allclose(grad, wanted, atol=1e-5)


def test_half_precision_logits_keep_a_gradient_of_their_dtype() -> None:
    import torch

    batch = pack(ROWS, 7)
    leaf = torch.randn(*batch.layout.shape, 8, dtype=torch.bfloat16, requires_grad=True)
    found = next_token_logprobs(leaf, batch)
    wanted = next_token_logprobs_reference(
        leaf.detach().float().numpy(), batch["input_ids"], batch["segment_ids"]
    )
    np.testing.assert_allclose(found.detach(), wanted, atol=1e-5)
    found.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == torch.bfloat16


def test_labels_are_traced_by_jax() -> None:
    import jax
    import jax.numpy as jnp

    batch = pack(ROWS, 7)

    def traced(tokens: Any, masks: Any) -> Any:
        arrays = {"input_ids": tokens, "loss_masks": masks}
        return labels(Batch(arrays, batch.layout, batch.prompt_lengths, {}))

    found = jax.jit(traced)(jnp.asarray(batch["input_ids"]), jnp.asarray(batch["loss_masks"]))
    np.testing.assert_array_equal(found, labels(batch))
    with pytest.raises(TypeError, match="where has no values yet"):
        jax.jit(lambda masks: batch.layout.edges(masks))(jnp.asarray(batch["loss_masks"]))


def test_a_column_of_labels_has_its_own_padding(tmp_path: Path) -> None:
    rows = {"prompt_token_ids": [[1], [2]], "response_ids": [[3, 4], [5]]}
    of_responses = pack({**rows, "labels": [[3, 4], [5]]}, 6)
    assert of_responses["labels"].dtype == np.int64
    assert of_responses["labels"].tolist() == [[-100, 3, 4, -100, 5, -100]]
    of_sequences = pad({**rows, "labels": [[-100, 3, 4], [-100, 5]]})
    assert of_sequences["labels"].tolist() == [[-100, 3, 4], [-100, -100, 5]]
    assert pack({**rows, "labels": [[3, 4], [5]]}, 6, fills={"labels": -1})["labels"][0, 0] == -1
    weights = pack({**rows, "loss_weights": [[0.5, 1], [2]]}, 6)["loss_weights"]
    assert weights.dtype == np.float32
    assert weights.tolist() == [[0, 0.5, 1, 0, 2, 0]]
    with pytest.raises(TypeError, match="column 'labels': row 1 is None"):
        pack({**rows, "labels": [[3, 4], None]}, 6)

    path = tmp_path / "rows.jsonl"
    path.write_text('{"response_ids": [3, 4], "labels": [3, 4]}\n{"response_ids": [5], "labels": []}\n')
    read: Any = rollkit.read(path)["labels"]
    assert read.dtype == np.int64


def test_observations_and_prompts_of_a_tree_get_the_padding_of_labels() -> None:
    steps = {
        "prompt_token_ids": [[1], [1, 2, 9]],
        "response_ids": [[2], [3]],
        "labels": [[2], [3]],
        "is_last_step": [False, True],
    }
    merged: Any = rollkit.merge_steps(steps)["labels"]
    assert merged.to_list() == [[2, -100, 3]]
    from rollkit.forest import TokenTree

    tree = TokenTree()
    tree.commit([1], [2], labels=[2])
    tree.commit([1, 2, 9], [3], labels=[3])
    branch: Any = tree.branches()["labels"]
    assert branch.to_list() == [[2, -100, 3]]


def test_masks_that_were_not_given_are_ones_on_responses() -> None:
    rows = {"prompt_token_ids": [[1], []], "response_ids": [[2, 3], [4]]}
    assert pack(rows, 4)["loss_masks"].tolist() == [[0, 1, 1, 1]]
    assert pad({"input_ids": [[1, 2], [3]]})["loss_masks"].tolist() == [[1, 1], [0, 1]]
    assert pack(rows, 4, dtypes={"loss_masks": np.float32})["loss_masks"].dtype == np.float32
    assert pack({**rows, "loss_masks": [[0, 1], [1]]}, 4)["loss_masks"].tolist() == [[0, 0, 1, 1]]
    assert pack({"response_ids": [[], []]}, 4)["loss_masks"].tolist() == [[0, 0, 0, 0]]


def test_what_labels_and_logprobs_refuse() -> None:
    batch = pack(ROWS, 7)
    logits = np.zeros((*batch.layout.shape, 6), np.float32)
    with pytest.raises(ValueError, match="row 2, position 1: token 6 is beyond the logits, which are of 6"):
        next_token_logprobs(logits, batch)
    with pytest.raises(ValueError, match="logits must have shape"):
        next_token_logprobs(logits[:, 1:], batch)
    with pytest.raises(TypeError, match="logits must be an array of floats, got int64"):
        next_token_logprobs(logits.astype(np.int64), batch)
    with pytest.raises(TypeError, match="batch must be a Batch, got dict"):
        labels(ROWS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mask must have the batch's shape"):
        labels(batch, mask=np.ones(3))
    with pytest.raises(TypeError, match="ignore_index must be an int"):
        labels(batch, ignore_index=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="where must have the layout's shape"):
        batch.layout.edges(np.ones(3))


def test_a_mask_may_be_a_list() -> None:
    batch = pack({"response_ids": [[5, 6, 7]]}, 4)
    assert labels(batch, mask=[[1, 1, 0, 1]]).tolist() == [[-100, 6, -100, -100]]
    assert labels(batch.to("torch"), mask=[[1, 1, 0, 1]]).tolist() == [[-100, 6, -100, -100]]
