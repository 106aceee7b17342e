"""Kernels with a state, told of boundaries: a convolution and a recurrence, packed, are those of each row."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.thorough import by_level

from rollkit import Batch, Forest, Layout, pack, pad
from rollkit.segments import flash_linear_attention, mamba, runs
from rollkit.testing import check_isolation

TAPS = (0.5, -1.0, 2.0, 0.25)
DECAY = 0.75

Kernel = Callable[[Batch], Any]


def inputs(batch: Batch) -> Any:
    return np.asarray(batch["input_ids"]) * 1.0 + 1.0  # padding too has a value that leaks


def by_number(batch: Batch, numbers: Any) -> dict[str, Any]:
    """As causal_conv1d and Mamba 2 read `seq_idx`: what is of the same number in a line goes on."""
    x, width = inputs(batch), batch.layout.width
    ages = np.arange(width)[:, None] - np.arange(width)
    goes_on = (ages >= 0) & (numbers[:, :, None] == numbers[:, None, :])
    taps = sum(tap * (ages == age) for age, tap in enumerate(TAPS))
    mixed = ((goes_on * taps) @ x[..., None])[..., 0]
    return {
        "convolution": mixed,
        "state": ((goes_on * DECAY ** ages.clip(0)) @ mixed[..., None])[..., 0],
    }


def by_bounds(batch: Batch, bounds: Any) -> dict[str, Any]:
    """As kernels of fla read `cu_seqlens`: the tokens of all lines end to end, a state for each segment."""
    x = inputs(batch).reshape(-1)
    assert bounds[0] == 0
    assert bounds[-1] == len(x), "all of the output is written"
    mixed, states = np.full_like(x, np.nan), np.full_like(x, np.nan)
    for begin, end in itertools.pairwise(bounds):
        state = 0.0
        for at in range(begin, end):
            mixed[at] = sum(tap * x[at - age] for age, tap in enumerate(TAPS) if at - age >= begin)
            states[at] = state = DECAY * state + mixed[at]
    shape = batch.layout.shape
    return {"convolution": mixed.reshape(shape), "state": states.reshape(shape)}


def with_seq_idx(batch: Batch) -> Any:
    return by_number(batch, np.asarray(mamba(batch)["seq_idx"]))


def with_cu_seqlens(batch: Batch) -> Any:
    return by_bounds(batch, np.asarray(flash_linear_attention(batch)["cu_seqlens"]).tolist())


TOLD: tuple[Kernel, ...] = (with_seq_idx, with_cu_seqlens)
UNTOLD: tuple[Kernel, ...] = (
    lambda batch: by_number(batch, np.zeros(batch.layout.shape)),
    lambda batch: by_bounds(batch, [0, batch.layout.size]),
)


def rollouts(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 9, rng.integers(2, 12))
    lengths[:2] = 3, 4
    return {"response_ids": [rng.integers(1, 9, length).tolist() for length in lengths]}


BATCHES: dict[str, Callable[[dict[str, Any]], Batch]] = {
    "packed": lambda rows: pack(rows, 12),
    "aligned": lambda rows: pack(rows, 16, align=4),
    "padded": lambda rows: pad(rows),
    "right": lambda rows: pad(rows, side="right", multiple_of=4),
}


@pytest.mark.parametrize("seed", range(by_level(6, 60)))
@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("kernel", TOLD)
def test_told_of_boundaries_it_is_that_of_rows(seed: int, name: str, kernel: Kernel) -> None:
    check_isolation(kernel, BATCHES[name](rollouts(seed)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize("kernel", TOLD)
def test_of_frameworks(framework: str, kernel: Kernel) -> None:
    pytest.importorskip(framework)
    batch = BATCHES["aligned"](rollouts(0)).to(framework)
    check_isolation(kernel, batch, rtol=1e-12, atol=1e-12)
    for found in (*mamba(batch).values(), *flash_linear_attention(batch).values()):
        assert type(found) is type(batch["input_ids"])
    assert str(mamba(batch)["seq_idx"].dtype).endswith("int32")
    if framework == "torch":
        assert str(flash_linear_attention(batch)["cu_seqlens"].dtype) == "torch.int64"


@pytest.mark.parametrize("name", ["packed", "aligned"])
@pytest.mark.parametrize("kernel", UNTOLD)
def test_not_told_it_leaks(name: str, kernel: Kernel) -> None:
    with pytest.raises(AssertionError, match=r"'convolution' is off by"):
        check_isolation(kernel, BATCHES[name](rollouts(0)))


def test_numbers_that_come_again_leak() -> None:
    """Why ids are not `seq_idx`: kernels compare numbers, and two runs may have one id."""
    batch = BATCHES["packed"](rollouts(0))
    alternating = np.asarray(batch["segment_ids"]) % 2
    with pytest.raises(AssertionError, match="is off by"):
        check_isolation(
            lambda b: by_number(b, alternating if b is batch else np.zeros(b.layout.shape)), batch
        )
    assert mamba([1, 2, 1, 0, 1])["seq_idx"].tolist() == [[0, 1, 2, 4, 3]]


def test_what_they_are() -> None:
    ids = np.array([[1, 1, 0, 2], [0, 1, 1, 0]])
    assert mamba(ids)["seq_idx"].tolist() == [[0, 0, 3, 1], [3, 2, 2, 3]]
    assert flash_linear_attention(ids)["cu_seqlens"].tolist() == [0, 2, 3, 4, 5, 7, 8]
    assert flash_linear_attention(ids, size=9)["cu_seqlens"].tolist() == [0, 2, 3, 4, 5, 7, 8, 8, 8]
    for given in (runs(ids), Layout.pack([3, 2], 8)):
        assert mamba(given)["seq_idx"].dtype == np.int32
        assert flash_linear_attention(given)["cu_seqlens"].dtype == np.int64
    assert mamba(np.zeros((2, 0), int))["seq_idx"].shape == (2, 0)
    assert mamba([])["seq_idx"].shape == (1, 0)
    assert flash_linear_attention([])["cu_seqlens"].tolist() == [0]
    with pytest.raises(ValueError, match="there are 6 segments, size=4 has room for 3"):
        flash_linear_attention(ids, size=4)


@pytest.mark.parametrize("adapter", [mamba, flash_linear_attention])
def test_trees_are_refused(adapter: Callable[..., Any]) -> None:
    batch = pack({"response_ids": [[1, 2], [1, 3]]}, 4, share_prefixes=True)
    for given in (batch, batch.layout, Forest.build([[1, 2], [1, 3]]).pack(4)):
        with pytest.raises(TypeError) as caught:
            adapter(given)
        assert str(caught.value) == (
            "ids is of rows that share tokens, and a convolution or a state goes on from token to token "
            "in memory, where it cannot branch; pack without share_prefixes"
        )
