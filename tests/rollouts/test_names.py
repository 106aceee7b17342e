"""`Batch.rename`, `names=` of `pack` and `pad`: what trainers read, and what a model makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rollkit
from rollkit import Batch, labels, pack, pad

Layout: Any = rollkit.Layout
ROWS: dict[str, Any] = {
    "prompt_token_ids": [[1, 2], [3], [4, 5, 6]],
    "response_ids": [[7, 8, 9], [10, 11], [12]],
    "advantages": [[1.0, 1.0, 1.0], [2.0, 2.0], [3.0]],
}


@pytest.fixture(scope="module")
def model() -> Any:
    from tests.decode.decoding import qwen3

    return qwen3()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["pack", "pad left", "pad right"])
def test_a_model_sees_each_row_alone(model: Any, attention: str, kind: str) -> None:
    import torch

    model.set_attn_implementation(attention)
    batch = pack(ROWS, 10, names="hf") if kind == "pack" else pad(ROWS, side=kind.split()[1], names="hf")
    tensors = batch.to("torch")
    with torch.no_grad():
        output = model(**tensors, use_cache=False)
        found = tensors.unpack(output.logits)
        losses, count = 0.0, 0
        for i, (prompt, response) in enumerate(
            zip(ROWS["prompt_token_ids"], ROWS["response_ids"], strict=True)
        ):
            alone = model(torch.tensor([prompt + response]), use_cache=False).logits[0]
            np.testing.assert_allclose(found[i], alone, atol=1e-5)
            wanted = torch.tensor(response)
            scores = alone.log_softmax(-1)[len(prompt) - 1 : -1]
            losses -= float(scores.gather(1, wanted[:, None]).sum())
            count += len(response)
    assert float(output.loss) == pytest.approx(losses / count, rel=1e-5)


def test_hf_names_and_dtypes() -> None:
    batch = pad(ROWS, names="hf")
    for name in ("input_ids", "position_ids", "labels", "attention_mask"):
        assert batch[name].dtype == np.int64, name
    assert "positions" not in batch
    assert batch["advantages"].dtype == np.float32
    plain = pad(ROWS)
    np.testing.assert_array_equal(batch["labels"], labels(plain))
    again = plain.rename("hf")
    assert set(again) == set(batch)
    for name in batch:
        np.testing.assert_array_equal(batch[name], again[name])
    torch_batch = plain.to("torch").rename("hf")
    assert str(torch_batch["labels"].dtype) == "torch.int64"
    assert pad(ROWS, names="hf", out=batch)["input_ids"] is not None


def test_given_labels_are_ignored_where_another_rollout_stands_before() -> None:
    batch = pack({"input_ids": [[1, 2], [3, 4]], "labels": [[1, 2], [3, 4]]}, 5, names="hf")
    assert batch["labels"].tolist() == [[-100, 2, -100, 4, -100]]


def test_grain_and_maxtext() -> None:
    rows = {"prompt_token_ids": [[1], [4]], "response_ids": [[2, 3], [5]]}
    grain = pack(rows, 6, names="grain")
    assert set(grain) == {
        name + end for name in ("input_ids", "loss_masks") for end in ("", "_segment_ids", "_positions")
    }
    found = pack(rows, 6, names="maxtext")
    assert found["inputs"].tolist() == [[1, 2, 3, 4, 5, 0]]
    assert found["targets"].tolist() == [[2, 3, 0, 5, 0, 0]]
    assert found["targets_segmentation"].tolist() == [[1, 1, 0, 2, 0, 0]]
    assert found["inputs_segmentation"].tolist() == [[1, 1, 1, 2, 2, 0]]
    assert found["inputs_position"].tolist() == [[0, 1, 2, 0, 1, 0]]
    assert {array.dtype.name for name, array in found.items() if name != "loss_masks"} == {"int32"}
    assert found["loss_masks"].tolist() == [[1, 1, 0, 1, 0, 0]]
    own = {"input_ids": [[1, 2, 3], [4, 5]], "labels": [[-100, 2, 3], [4, 5]]}
    assert pack(own, 6, names="maxtext")["labels"].tolist() == [[2, 3, -100, 5, -100, -100]]
    jax = pack(rows, 6).to("jax").rename("maxtext")
    np.testing.assert_array_equal(jax["loss_masks"], found["loss_masks"])
    np.testing.assert_array_equal(jax["targets"], found["targets"])


def test_flash_kwargs_cover_every_element() -> None:
    batch = pack({"response_ids": [[1, 2], [3], [4, 5, 6, 7]]}, 5, algorithm="first_fit_decreasing")
    kwargs = batch.to("torch").flash_kwargs()
    assert kwargs["cu_seq_lens_q"].tolist() == [0, 1, 5, 7, 10]
    assert str(kwargs["cu_seq_lens_k"].dtype) == "torch.int32"
    assert kwargs["max_length_q"] == kwargs["max_length_k"] == 4


@pytest.mark.parametrize(
    ("names", "column"),
    [
        ("hf", "position_ids"),
        ("maxtext", "inputs"),
        ("maxtext", "targets"),
        ("maxtext", "inputs_segmentation"),
        ("grain", "input_ids_positions"),
        ("grain", "loss_masks_segment_ids"),
    ],
)
def test_a_column_that_is_called_what_a_trainer_calls_another_array(names: str, column: str) -> None:
    rows = {"response_ids": [[1, 2], [3]], column: [[7, 8], [9]]}
    text = f"^column '{column}': names='{names}' makes this array itself; rename or leave out the column$"
    for call in (
        lambda: pack(rows, 4, names=names),
        lambda: pack(rows, 4).rename(names),
        lambda: rollkit.Bins(rows, 4, names=names),
    ):
        with pytest.raises(ValueError, match=text) as found:
            call()
        assert getattr(found.value, "column", None) == column
    assert pack(rows, 4)[column].tolist() == [[7, 8, 9, 0]]


def test_names_by_hand_and_what_is_refused() -> None:
    batch = pack(ROWS, 10)
    assert "ids" in batch.rename({"input_ids": "ids"})
    assert batch.rename("rollkit").arrays == batch.arrays
    for names, message in (
        ({"x": "y"}, "names has 'x', which is no array; there are 'input_ids'"),
        ({"positions": "input_ids"}, "names gives two arrays the name 'input_ids'"),
        ("trl", "names must be one of 'rollkit', 'hf', 'grain', 'maxtext', got 'trl'"),
    ):
        with pytest.raises(ValueError, match=message):
            batch.rename(names)
    with pytest.raises(ValueError, match="names must be one of"):
        pad(ROWS, names="trl")
    with pytest.raises(ValueError, match="is for a batch with its own names; no 'positions' among"):
        batch.rename("hf").rename("grain")
    going_on = Layout((4,), [0, 2], [2, 2], [2, 4], source_rows=[0, 1], begins=[0, 2])
    arrays = {"input_ids": np.zeros(4), "positions": going_on.positions(), "segment_ids": np.zeros(4)}
    with pytest.raises(ValueError, match="positions go on from row 0 to row 1"):
        Batch(arrays, going_on, np.zeros(2, np.int64), {}).rename("hf")


@pytest.mark.parametrize("kind", ["numpy", "torch", "jax", "jit"])
@pytest.mark.parametrize("oversize", ["raise", "split"])
def test_maxtext_shifts_all_that_is_per_token_and_keeps_its_dtype(kind: str, oversize: str) -> None:
    rows = {
        "response_ids": [[1, 2, 3], [4, 5]],
        "kept": [np.array([True, False, True]), np.array([False, True])],
        "top": [np.arange(6, dtype=np.int16).reshape(3, 2), np.full((2, 2), 9, np.int16)],
    }
    batch = pack(rows, 6 if oversize == "raise" else 2, oversize=oversize).to(
        "jax" if kind == "jit" else kind
    )
    if kind == "jit":
        import jax

        found: Any = jax.jit(lambda given: given.rename("maxtext").arrays)(batch)
    else:
        found = batch.rename("maxtext")
    before, token = batch.layout.edges()
    for name in ("kept", "top"):
        given, moved = np.asarray(batch[name]), np.asarray(found[name])
        wanted = np.zeros_like(given)
        inner = given.shape[2:]
        wanted.reshape(-1, *inner)[np.asarray(before)] = given.reshape(-1, *inner)[np.asarray(token)]
        assert moved.dtype == given.dtype
        np.testing.assert_array_equal(moved, wanted)
