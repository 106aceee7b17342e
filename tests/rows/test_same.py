"""`place_same`: what comes back is of the dtype, framework and device that went in, whichever way it took."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from rollkit import Layout
from rollkit._rows import same
from rollkit._rows.same import place_same
from rollkit.testing import ways

DTYPES = [
    torch.bool,
    torch.int8,
    torch.uint16,
    torch.int64,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float64,
    torch.complex64,
    torch.complex128,
]
LAYOUT = Layout.pad([2, 0, 3], width=4)
PLACES = [2, 3, 9, 10, 11]


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def by_hand(rows: list[torch.Tensor], fill: torch.Tensor) -> torch.Tensor:
    """Each element where the layout puts it, one after the other."""
    elements = [fill.expand(rows[0].shape[1:])] * 12
    for place, element in zip(PLACES, [element for row in rows for element in row], strict=True):
        elements[place] = element
    return torch.stack(elements).reshape(3, 4, *rows[0].shape[1:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inner", [(), (2,)])
@pytest.mark.parametrize("most", [0, 2048])
def test_every_dtype_both_ways(
    dtype: torch.dtype, inner: tuple[int, ...], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(same, "_SMALL", most)  # whether rows are joined first
    values = torch.arange(5 * 2).reshape(5, 2)[:, : inner[0] if inner else 1].reshape(5, *inner)
    rows = [row.to(dtype) for row in (values[:2], values[:0], values[2:])]
    fill = torch.tensor(3).to(dtype)
    wanted = by_hand(rows, fill)
    with ways() as taken:
        found = place_same(rows, LAYOUT, fill)
    assert taken == {"rust": 1}
    flat, begins = torch.cat(rows), np.array([0, 2, 2])
    assert as_bytes(place_same([flat], LAYOUT, fill, begins=[begins])) == as_bytes(wanted)
    with ways() as taken:
        slow = place_same([Subclass(row) for row in rows], LAYOUT, fill)
    assert taken == {"framework": 1}
    for tensor in (found, slow):
        assert (tensor.dtype, tensor.shape) == (dtype, wanted.shape)
        assert as_bytes(tensor.as_subclass(torch.Tensor)) == as_bytes(wanted)


class Subclass(torch.Tensor):
    """A tensor that may mean something else to whoever made it, so that Rust must not touch it."""

    @staticmethod
    def __new__(cls, tensor: torch.Tensor) -> Any:
        return tensor.as_subclass(cls)


def test_one_gradient_among_several_arrays() -> None:
    weights = torch.tensor([1.0, 2.0], requires_grad=True)
    rows = [weights, torch.ones(0), torch.tensor([3.0, 4.0, 5.0])]
    found = place_same(rows, LAYOUT, torch.tensor(-1.0))
    assert found.tolist() == [[-1, -1, 1, 2], [-1] * 4, [-1, 3, 4, 5]]
    (found * torch.arange(12.0).reshape(3, 4)).sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [2, 3]


def test_rows_end_to_end_are_not_scattered_and_not_shared() -> None:
    values = torch.arange(6.0).requires_grad_()
    for begins, wanted in (([3, 0], [3, 4, 5, 0, 1, 2]), ([0, 3], [0, 1, 2, 3, 4, 5])):
        found = place_same([values], Layout.concat([3, 3]), begins=[np.array(begins)])
        assert found.tolist() == wanted
        assert found.untyped_storage().data_ptr() != values.untyped_storage().data_ptr()


def test_devices_and_other_frameworks() -> None:
    rows = [torch.empty(n, 2, device="meta") for n in (2, 0, 3)]
    found = place_same(rows, LAYOUT, torch.tensor(1.0, device="meta"))
    assert (found.device.type, found.shape) == ("meta", (3, 4, 2))
    wanted = [[7, 7, 1, 2], [7] * 4, [7, 3, 4, 5]]
    for make in (np.asarray, jnp.asarray):
        arrays = [make(np.array(row, np.float32)) for row in ([1, 2], [], [3, 4, 5])]
        placed = place_same(arrays, LAYOUT, make(np.float32(7)))
        assert type(placed) is type(arrays[0])
        assert placed.dtype == np.float32
        assert placed.tolist() == wanted
    bfloat = place_same([jnp.ones(2, jnp.bfloat16)], Layout.pad([2], width=3))
    assert bfloat.dtype == jnp.bfloat16
    assert bfloat.tolist() == [[0, 1, 1]]


def test_ways_count_only_meanwhile_and_may_be_nested() -> None:
    row = torch.ones(2)
    with ways() as outer:
        place_same([row], Layout.concat([2]))
        with ways() as inner:
            place_same([row.clone().requires_grad_()], Layout.concat([2]))
    place_same([row], Layout.concat([2]))
    assert outer == {"rust": 1, "framework": 1}
    assert inner == {"framework": 1}
