"""`check_isolation` finds models that leak, and names where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rollkit import Batch, pack, pad
from rollkit.segments import dense_mask
from rollkit.testing import check_isolation

ROWS = {"prompt_token_ids": [[1, 2], [1, 2], [3], []], "response_ids": [[3, 4], [2, 2, 2], [1, 4], []]}

BATCHES = {
    "pack": lambda: pack(ROWS, 8),
    "pad": lambda: pad(ROWS),
    "forest": lambda: pack(ROWS, 8, share_prefixes=True),
}


def attention(batch: Batch) -> Any:
    """Each token's mean of what it attends to."""
    mask = dense_mask(batch.layout)
    found = mask / np.maximum(mask.sum(-1, keepdims=True), 1)
    x = (
        np.asarray(batch["input_ids"])[..., None] * np.array([1.0, -2.0])
        + np.asarray(batch["positions"])[..., None]
    )
    first = found @ x
    return {"layer 0": first, "layer 1": found @ first**2}


@pytest.mark.parametrize("name", BATCHES)
def test_attention_may_be_packed(name: str) -> None:
    check_isolation(attention, BATCHES[name]())


@pytest.mark.parametrize("name", BATCHES)
def test_a_layer_that_leaks_is_named(name: str) -> None:
    def model(batch: Batch) -> Any:
        found = attention(batch)
        state = found["layer 1"].cumsum(1)  # a state that goes on from row to row
        return found | {"state": state}

    batch = BATCHES[name]()
    if name == "pad":  # a row a line: nothing comes before it but padding, of which there is nothing
        check_isolation(model, batch)
        return
    with pytest.raises(AssertionError, match=r"row \d, token \d: 'state' is off by"):
        check_isolation(model, batch)


def test_the_first_that_differs_is_named() -> None:
    batch = pack({"response_ids": [[1, 2], [3, 4, 5]]}, 8)

    def model(batch: Batch) -> Any:
        found = np.asarray(batch["input_ids"]) * 1.0
        if batch.num_rows > 1:
            found[0, 3] += 0.5
        return {"a": found * 0, "b": found, "c": found}

    with pytest.raises(AssertionError) as caught:
        check_isolation(model, batch)
    assert caught.value.args[0] == "row 1, token 1: 'b' is off by 0.5 from what it is of the row alone (4)"
    check_isolation(model, batch, atol=0.6)


def test_a_torch_model() -> None:
    torch = pytest.importorskip("torch")
    convolution = torch.nn.Conv1d(1, 1, 3, padding=2)
    batch = pack(ROWS, 8, share_prefixes=True).to("torch")

    def model(batch: Batch) -> Any:
        x = batch["input_ids"].float()[:, None]
        return convolution(x)[:, 0, : x.shape[-1]]

    with pytest.raises(AssertionError, match="'output' is off by"):
        check_isolation(model, batch)
    check_isolation(lambda batch: batch["input_ids"].float() * 2, batch)


def test_what_a_model_may_return() -> None:
    batch = pack({"response_ids": [[1, 2]]}, 4)
    model: Any
    for model in (lambda batch: 5, lambda batch: np.zeros(3), lambda batch: {"x": None}):
        with pytest.raises(TypeError, match="model must return arrays of shape"):
            check_isolation(model, batch)


def test_a_row_alone_has_the_arrays_of_the_batch() -> None:
    rows: dict[str, Any] = {**ROWS, "scales": [[1.0, 2.0], [0.5, 1.0, 4.0], [2.0, 1.0], []]}
    rows["kept_token_ids"] = [[[i] * i for i in range(len(row))] for row in rows["response_ids"]]
    for batch in (
        pad(rows, side="right"),
        pack(rows, 8).rename("hf"),
        pack(rows, 8),
        pack(rows, 8, share_prefixes=True) | {"own": np.arange(16.0).reshape(2, 8)},
    ):
        seen: list[Batch] = []

        def model(given: Batch, seen: list[Batch] = seen) -> Any:
            seen.append(given)
            return {
                name: array
                for name, array in given.items()
                if name
                not in (
                    "kept_token_ids",
                    "visible_until",
                    "multiplicity",
                    "segment_ids",
                    "predecessors",
                    "own",
                )
            }

        check_isolation(model, batch)
        for alone in seen[1:]:
            assert set(alone) == set(batch)
            assert type(alone.layout) is type(batch.layout)
            for name in batch:
                if name != "kept_token_ids":
                    assert alone[name].dtype == batch[name].dtype
            if "visible_until" in batch:
                assert alone["visible_until"].tolist() == alone.layout.visible_until().tolist()
                assert alone["multiplicity"].tolist() == [[1] * alone.layout.size]


def test_what_is_no_real_number_is_compared_whole() -> None:
    batch = pack({"response_ids": [[1, 2], [3, 4, 5]]}, capacity=8)
    with pytest.raises(AssertionError, match=r"row 1, token 0: 'output' is off by 3 .* \(0\+3j\)"):
        check_isolation(lambda batch: batch["input_ids"].cumsum(1) * 1j, batch)


def test_what_is_no_batch() -> None:
    wrong: Any
    for wrong, message in (("a", "batch must be a Batch, got str"), (Batch({}), "this batch has no layout")):
        with pytest.raises(TypeError, match=message):
            check_isolation(attention, wrong)
