"""Masks by names of other frameworks: a warning where all tokens count for want of masks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import rollkit
from rollkit._rollouts.other_masks import OTHER_MASKS

WHOLE: dict[str, Any] = {"input_ids": [[1, 2], [3]], "assistant_masks": [[0, 1], [1]]}
RESPONSES: dict[str, Any] = {
    "response_ids": [[1, 2], [3]],
    "response_mask": [[0, 1], [1]],
    "rewards": [1.0, 0.0],
    "stop_reasons": ["stop", "length"],
    "model_versions": [[1, 1], [2]],
    "g": [0, 0],
}

CALLS: dict[str, Callable[[], Any]] = {
    "pack": lambda: rollkit.pack(WHOLE, 4),
    "pad": lambda: rollkit.pad(WHOLE),
    "forest": lambda: rollkit.pack(WHOLE, 4, share_prefixes=True),
    "Bins": lambda: rollkit.Bins(WHOLE, 4),
    "Bins of forests": lambda: rollkit.Bins(WHOLE, 4, share_prefixes=True),
    "Bins, labels": lambda: rollkit.Bins(WHOLE, 4, columns=["input_ids", "loss_masks"]),
    "loss_weights": lambda: rollkit.loss_weights(RESPONSES),
    "loss_totals": lambda: rollkit.loss_totals(RESPONSES),
    "advantages": lambda: rollkit.advantages(RESPONSES, by="g", estimator="reinforce_plus_plus"),
    "mask_overlong": lambda: rollkit.mask_overlong(RESPONSES),
    "mask_zero_variance": lambda: rollkit.mask_zero_variance(RESPONSES, by="g", ignore="masked"),
    "mask_stale": lambda: rollkit.mask_stale(RESPONSES, current=2, most=1),
}


def warned(call: Callable[[], Any]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return found


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_each_warns_at_the_line_that_called(call: Callable[[], Any]) -> None:
    found = warned(call)
    assert found
    for one in found:
        assert "masks nothing, and all of each response counts" in str(one.message)
        assert one.filename == __file__
        assert one.lineno == call.__code__.co_firstlineno


def test_code_of_no_module_is_warned_too() -> None:
    """What `exec` runs may have no `__name__`."""
    (one,) = warned(lambda: exec("pack(rollouts, 4)", {"pack": rollkit.pack, "rollouts": WHOLE}))
    assert (one.filename, one.lineno) == ("<string>", 1)


@pytest.mark.parametrize("name", OTHER_MASKS)
def test_what_is_renamed_masks(name: str) -> None:
    rollouts = rollkit.Rollouts({"input_ids": WHOLE["input_ids"], name: WHOLE["assistant_masks"]})
    (one,) = warned(lambda: rollkit.pack(rollouts, 4))
    assert f'rename it: {{"{name}": "loss_masks"}}' in str(one.message)
    renamed = rollouts.rename({name: "loss_masks"})
    assert rollkit.pack(renamed, 4)["loss_masks"].tolist() == [[0, 1, 1, 0]]


SILENT: dict[str, Callable[[], Any]] = {
    "labels": lambda: rollkit.pack({**WHOLE, "labels": WHOLE["input_ids"]}, 4),
    "loss_masks too": lambda: rollkit.pad({**WHOLE, "loss_masks": WHOLE["assistant_masks"]}),
    "not asked for": lambda: rollkit.Bins(WHOLE, 4, columns=["input_ids", "assistant_masks"]),
    "moved": lambda: rollkit.Rollouts(WHOLE).take([0]),
}


@pytest.mark.parametrize("call", SILENT.values(), ids=SILENT)
def test_nothing_is_said_where_nothing_is_made(call: Callable[[], Any]) -> None:
    assert warned(call) == []


def test_collators_and_data_sets_of_torch() -> None:
    pytest.importorskip("torch")
    from rollkit.torch import Collator, PackedDataset, Packer

    rows = [{"input_ids": [1, 2], "assistant_masks": [0, 1]}]
    for call in (
        lambda: Collator(pad_id=0)(rows),
        lambda: PackedDataset(WHOLE, capacity=4),
        lambda: list(Packer(rows, 4, rank=0, world_size=1)),
    ):
        (one,) = warned(call)
        assert one.filename == __file__
    assert warned(lambda: Collator(pad_id=0, labels=False, keep=("assistant_masks",))(rows)) == []
