"""`bert_padding`'s functions: results of a loop over tokens, dtypes, and gradients."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rollkit.compat.flash_attn import (
    index_first_axis,
    index_first_axis_residual,
    index_put_first_axis,
    pad_input,
    rearrange,
    unpad_input,
    unpad_input_for_concatenated_sequences,
)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.int64])
def test_unpad_and_pad(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, width = 3, 7
    mask = torch.rand(rows, width, generator=generator) < 0.6
    unused = (torch.rand(rows, width, generator=generator) < 0.3) & ~mask
    hidden = torch.randn(rows, width, 2, 4, generator=generator)
    for extra in (None, unused):
        placed = mask if extra is None else mask | extra
        given = (hidden, mask.to(dtype)) if extra is None else (hidden, mask.to(dtype), extra.to(dtype))
        stream, indices, cu_seqlens, longest, used = unpad_input(*given)
        places = [(b, t) for b in range(rows) for t in range(width) if placed[b, t]]
        assert indices.tolist() == [b * width + t for b, t in places]
        assert torch.equal(stream, torch.stack([hidden[b, t] for b, t in places]))
        counts = placed.sum(1).tolist()
        assert cu_seqlens.tolist() == [sum(counts[:b]) for b in range(rows + 1)]
        assert isinstance(longest, int)
        assert longest == max(counts)
        assert used.tolist() == mask.sum(1).tolist()
        assert (indices.dtype, cu_seqlens.dtype, used.dtype) == (torch.int64, torch.int32, torch.int32)
        padded = pad_input(stream, indices, rows, width)
        assert torch.equal(pad_input(stream, indices.int(), rows, width), padded)
        assert torch.equal(padded, torch.where(placed[..., None, None], hidden, 0.0))


def test_concatenated_sequences() -> None:
    lengths = torch.tensor([[2, 3, 0, 0, 0, 0], [3, 2, 0, 0, 0, 0], [6, 0, 0, 0, 0, 0]])
    hidden = torch.arange(18.0).reshape(3, 6, 1)
    stream, indices, cu_seqlens, longest = unpad_input_for_concatenated_sequences(hidden, lengths)
    assert indices.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17]
    assert stream.flatten().tolist() == indices.tolist()
    assert cu_seqlens.tolist() == [0, 2, 5, 8, 10, 16]
    assert cu_seqlens.dtype == torch.int32
    assert longest == 6


def test_gradients_flow() -> None:
    hidden = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])

    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        stream, indices, *_ = unpad_input(x, mask)
        found: torch.Tensor = pad_input(index_first_axis(stream, torch.tensor([0, 1, 2, 3])), indices, 2, 3)
        return found

    assert torch.autograd.gradcheck(there_and_back, (hidden,))


def test_what_the_original_asserts() -> None:
    with pytest.raises(AssertionError, match="two axes"):
        index_first_axis(torch.zeros(3), torch.tensor([0]))
    with pytest.raises(AssertionError, match="one axis"):
        pad_input(torch.zeros(1, 2), torch.tensor([[0]]), 1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rows_are_put_and_their_gradients_taken(dtype: torch.dtype) -> None:
    values = torch.randn(3, 2, 4, dtype=dtype).transpose(1, 2).requires_grad_()
    places = torch.tensor([4, 0, 2])
    found = index_put_first_axis(values, places, 5)
    assert torch.equal(found[places], values)
    assert not found[[1, 3]].any()
    weights = torch.randn_like(found)
    (gradient,) = torch.autograd.grad((found * weights).sum(), values)
    assert torch.equal(gradient, weights[places])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_gradients_of_rows_and_of_the_rest_add_up(dtype: torch.dtype) -> None:
    given = torch.randn(2, 4, dtype=dtype).T.requires_grad_()
    places = torch.tensor([3, 1])
    rows, rest = index_first_axis_residual(given, places)
    assert torch.equal(rows, given[places])
    assert rest.data_ptr() == given.data_ptr()
    assert rest.stride() == given.stride()
    (gradient,) = torch.autograd.grad((rows * 2).sum() + (rest * 3).sum(), given)
    assert gradient.tolist() == [[3, 3], [5, 5], [3, 3], [5, 5]]


def test_meta_tensors_have_shapes() -> None:
    values, places = torch.empty(3, 4, device="meta"), torch.empty(3, dtype=torch.int64, device="meta")
    assert index_put_first_axis(values, places, 5).shape == (5, 4)
    assert index_first_axis_residual(values, places)[0].shape == (3, 4)


def test_rearrange_is_that_of_einops(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(tensor: object, pattern: str, **axes: int) -> tuple[object, ...]:
        return tensor, pattern, axes

    modules: Any = sys.modules
    with monkeypatch.context() as patch:
        patch.setitem(modules, "einops", SimpleNamespace(rearrange=named))
        assert rearrange(1, "(b s) -> b s", b=2) == (1, "(b s) -> b s", {"b": 2})
        patch.setitem(modules, "einops", None)
        with pytest.raises(ModuleNotFoundError, match="this needs einops; install it with: pip install"):
            rearrange(1, "a -> a")
