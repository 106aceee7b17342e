"""Labels say which tokens count where no loss masks do: in every function as masks of the same would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.thorough import examples

import rollkit
from rollkit import Rollouts, pack, pad
from rollkit._cli import main
from rollkit.testing import pack_reference, pad_reference

IGNORED = -100

LABELLED: dict[str, Any] = {
    "input_ids": [[1, 7, 8, 2], [1, 9, 2], [5]],
    "labels": [[IGNORED, 7, 8, 2], [IGNORED, IGNORED, 2], [IGNORED]],
    "stop_reasons": ["stop", "length", "stop"],
    "rewards": [1.0, 0.0, 0.5],
    "instance_ids": [0, 0, 0],
}
MASKED: dict[str, Any] = {
    name: [[0, 1, 1, 1], [0, 0, 1], [0]] if name == "labels" else column for name, column in LABELLED.items()
}
MASKED["loss_masks"] = MASKED.pop("labels")
SPLIT: dict[str, Any] = {
    "prompt_token_ids": [[1], [1], []],
    "response_ids": [[7, 8, 2], [9, 2], [5]],
    **{name: LABELLED[name] for name in ("labels", "stop_reasons", "rewards", "instance_ids")},
}


@pytest.mark.parametrize("labelled", [LABELLED, SPLIT], ids=["whole", "prompt and response"])
@pytest.mark.parametrize("share", [False, True])
def test_a_batch_has_their_masks(labelled: dict[str, Any], share: bool) -> None:
    found = rollkit.pack(labelled, 8, share_prefixes=share).unpack("loss_masks")
    assert found.dtype == np.uint8
    assert found.to_list() == MASKED["loss_masks"]
    bins = rollkit.Bins(labelled, 8, share_prefixes=share)
    assert bins.batch(range(len(bins))).unpack("loss_masks").to_list() == MASKED["loss_masks"]
    if not share:
        assert rollkit.pad(labelled).unpack("loss_masks").to_list() == MASKED["loss_masks"]
        wanted = rollkit.pack(MASKED, 8, names="maxtext")["targets_segmentation"]
        np.testing.assert_array_equal(
            rollkit.pack(labelled, 8, names="maxtext")["targets_segmentation"], wanted
        )


@pytest.mark.parametrize("kind", ["lists", "tensors", "jax"])
def test_of_any_framework(kind: str) -> None:
    rows: dict[str, Any] = {name: LABELLED[name] for name in ("input_ids", "labels")}
    if kind == "lists":
        made: Any = rollkit.pack(rows, 8)["loss_masks"]
    elif kind == "tensors":
        import torch

        made = rollkit.pack({name: list(map(torch.tensor, rows[name])) for name in rows}, 8)["loss_masks"]
    else:
        from jax import numpy as jnp

        made = rollkit.pack({name: list(map(jnp.array, rows[name])) for name in rows}, 8)["loss_masks"]
    assert np.asarray(made).tolist() == [[0, 1, 1, 1, 0, 0, 1, 0]]


@pytest.mark.parametrize("labelled", [LABELLED, SPLIT], ids=["whole", "prompt and response"])
def test_functions_of_rollouts_count_the_same_tokens(labelled: dict[str, Any]) -> None:
    rows = labelled["response_ids" if "response_ids" in labelled else "input_ids"]
    masks = [mask[-len(row) :] for mask, row in zip(MASKED["loss_masks"], rows, strict=True)]
    masked = {**labelled, "loss_masks": masks}
    for call in (
        lambda rows: rollkit.loss_weights(rows, normalize="sequence").to_list(),
        lambda rows: rollkit.loss_totals(rows, groups="instance_ids"),
        lambda rows: rollkit.mask_overlong(rows).ragged("loss_masks").to_list(),
        lambda rows: rollkit.mask_zero_variance(rows, ignore="masked").ragged("loss_masks").to_list(),
    ):
        assert call(labelled) == call(masked)
    if "response_ids" in labelled:
        for ignore in (None, "masked"):
            found, wanted = (rollkit.advantages(rows, ignore=ignore) for rows in (labelled, masked))
            assert found.to_list() == wanted.to_list()


def test_masks_take_tokens_out_of_given_labels() -> None:
    masked = rollkit.mask_overlong(LABELLED)
    wanted = [[IGNORED, 7, 8, 2, IGNORED, IGNORED, IGNORED, IGNORED]]
    assert rollkit.pack(masked, 8, names="hf")["labels"].tolist() == wanted
    assert rollkit.pack(masked, 8).to("torch").rename("hf")["labels"].tolist() == wanted


@given(
    st.lists(
        st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=5), min_size=1, max_size=4
    )
)
def test_a_collator_does_so_too(rows: list[list[tuple[bool, bool]]]) -> None:
    from rollkit.torch import Collator

    features = [
        {
            "input_ids": [5] * len(row),
            "labels": [5 if label else IGNORED for label, _ in row],
            "loss_masks": [int(mask) for _, mask in row],
        }
        for row in rows
    ]
    columns = {name: [feature[name] for feature in features] for name in features[0]}
    found = Collator(pack=6)(features)["labels"]
    np.testing.assert_array_equal(found, rollkit.pack(columns, 6, names="hf")["labels"])
    counted = sum(label and mask for row in rows for label, mask in row[1:])
    assert int((found != IGNORED).sum()) == counted


def test_shards_have_their_masks(tmp_path: Path) -> None:
    rollkit.save(rollkit.Rollouts(LABELLED), tmp_path / "rows.jsonl")
    arguments = ["pack", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "shards"), "--capacity", "8"]
    assert main([*arguments, "--quiet"]) == 0
    bins = rollkit.Bins.open(tmp_path / "shards")
    batch = bins.batch(range(len(bins)))
    order = np.argsort(batch.rows["row_numbers"])
    assert batch.unpack("loss_masks").take(order).to_list() == MASKED["loss_masks"]


@pytest.mark.parametrize("of_prompts", [False, True])
@pytest.mark.parametrize("seed", range(examples(40)))
def test_batches_of_labels_are_the_references(of_prompts: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(rng.integers(1, 6)):
        prompt, response = (rng.integers(0, 9, rng.integers(low, 5)).tolist() for low in (1, 0))
        labels = [*prompt * of_prompts, *response]
        labels = [label if rng.random() < 0.6 else -100 for label in labels]
        rows.append({"prompt_token_ids": prompt, "response_ids": response, "labels": labels})
    for found, wanted in (
        (pack(Rollouts.from_rows(rows), 16), pack_reference(rows, 16)),
        (pad(Rollouts.from_rows(rows)), pad_reference(rows)),
    ):
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
            assert found[name].dtype == array.dtype
