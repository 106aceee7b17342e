"""verl's jagged tensors: torch pads them to their true width, and its other helpers row by row."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rollkit.compat import verl

LENGTHS = [2, 3, 4]


def nested(rows: list[Any]) -> Any:
    return torch.nested.as_nested_tensor([torch.as_tensor(row) for row in rows], layout=torch.jagged)


def padded_batch(axes: int = 0) -> dict[str, Any]:
    mask = torch.tensor([[0] * (4 - n) + [1] * n for n in LENGTHS])
    ids = torch.arange(1, 13).reshape(3, 4) * mask
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    if axes:
        positions = positions[:, None].expand(3, axes, 4).contiguous()
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "response_mask": mask[:, 2:],
        "position_ids": positions,
        "routed_experts": torch.arange(24).reshape(3, 4, 1, 2),
        "teacher_logprobs": torch.rand(3, 4),
        "teacher_ids": torch.arange(12).reshape(3, 4),
    }


@pytest.mark.parametrize("axes", [0, 2])
def test_every_jagged_tensor_pads_to_its_width(axes: int) -> None:
    before = padded_batch(axes)
    data = verl.left_right_2_no_padding(dict(before))
    for name in ("input_ids", "position_ids", "routed_experts", "teacher_logprobs", "teacher_ids"):
        rows = data[name].unbind()
        tokens = -1 if name == "position_ids" and axes else 0
        assert [row.shape[tokens] for row in rows] == LENGTHS, name
        full = data[name].to_padded_tensor(0)
        assert full.shape[2 if tokens else 1] == 4, name
        for row, wanted in zip(full, rows, strict=True):
            assert torch.equal(row.narrow(tokens, 0, wanted.shape[tokens]), wanted), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.float8_e4m3fn])
def test_responses_from_and_to_nested(dtype: Any) -> None:
    rows = [torch.arange(n).to(dtype) for n in (3, 5, 2)]
    output, mask = nested(rows), nested([[1], [1, 1], [1]])
    found = verl.response_from_nested(output, mask)
    wanted = [row[len(row) - n - 1 : -1] for row, n in zip(rows, (1, 2, 1), strict=True)]
    assert torch.equal(found.values().float(), torch.cat(wanted).float())
    assert found.offsets().tolist() == [0, 1, 3, 4]
    block = torch.tensor([[1, 9], [2, 3], [4, 9]]).to(dtype)
    back = verl.response_to_nested(block, mask)
    assert back.values().float().tolist() == [1, 2, 3, 4]
    assert back.offsets().tolist() == [0, 1, 3, 4]


def test_responses_of_a_transposed_and_of_a_narrowed_tensor() -> None:
    mask = nested([[1.0, 1.0], [1.0]])
    block = torch.arange(6.0).reshape(3, 2).T
    assert verl.response_to_nested(block, mask).values().tolist() == [0, 2, 1]
    whole = torch.arange(10.0).reshape(2, 5)
    starts, lengths = torch.tensor([1, 0]), torch.tensor([3, 2])
    holes = torch.nested.narrow(whole, 1, starts, lengths, layout=torch.jagged)
    assert verl.response_from_nested(holes, mask).values().tolist() == [1, 2, 5]


def test_a_gradient_goes_through() -> None:
    mask = nested([[1.0, 1.0], [1.0]])
    block = torch.rand(2, 3, requires_grad=True)
    verl.response_to_nested(block, mask).values().sum().backward()
    assert block.grad is not None
    assert block.grad.tolist() == [[1, 1, 0], [1, 0, 0]]
    values = torch.rand(6, requires_grad=True)
    output = torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, 4, 6]))
    verl.response_from_nested(output, mask).values().sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 0, 1, 0]


def test_embeddings_lose_their_padding() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    embeds = torch.rand(2, 3, 4, dtype=torch.bfloat16, requires_grad=True)
    data = {"prompt_embeds": embeds, "prompt_embeds_mask": mask, "negative_prompt_embeds": None}
    found = verl.embeds_padding_2_no_padding(data)
    assert found["negative_prompt_embeds"] is None
    assert torch.equal(found["prompt_embeds"].values(), embeds[mask.bool()])
    assert found["prompt_embeds_mask"].values().dtype == torch.bool
    assert found["prompt_embeds"].to_padded_tensor(0).shape == (2, 2, 4)
    found["prompt_embeds"].values().sum().backward()
    assert embeds.grad is not None
    assert torch.equal(embeds.grad, mask[..., None].expand(2, 3, 4).to(torch.bfloat16))


def test_the_mask_of_nested_ids() -> None:
    ids = nested([[1, 2], [3]])
    assert verl.build_attention_mask_from_nested(ids, 3).tolist() == [[1, 1, 0], [1, 0, 0]]
    assert verl.build_attention_mask_from_nested(ids).dtype == torch.int32


def test_what_does_not_fit_is_refused() -> None:
    mask = nested([[1.0, 1.0], [1.0]])
    with pytest.raises(AssertionError, match="row 0 has 2 tokens, 2 of the response: no token comes before"):
        verl.response_from_nested(nested([[1, 2], [3, 4]]), mask)
    with pytest.raises(AssertionError, match="response 0 has 2 tokens, tensor is 1 wide"):
        verl.response_to_nested(torch.zeros(2, 1), mask)
    with pytest.raises(AssertionError, match="tensor has 3 rows, response_mask 2"):
        verl.response_to_nested(torch.zeros(3, 2), mask)
    calls: list[Any] = [
        verl.build_attention_mask_from_nested,
        lambda flat: verl.response_to_nested(flat, flat),
    ]
    for call in calls:
        with pytest.raises(AssertionError, match="must be a nested tensor"):
            call(torch.zeros(2, 2))


def test_what_torch_loses_without_a_width() -> None:
    """As docs/compat.md says."""
    tokens, offsets = torch.arange(1, 10), torch.tensor([0, 2, 5, 9])
    jagged = torch.nested.nested_tensor_from_jagged
    rows = jagged(tokens, offsets).to_padded_tensor(0)
    assert rows.shape == (3, 9)
    assert rows[rows != 0].tolist() == tokens.tolist()
    axes = jagged(torch.stack([tokens, tokens]), offsets, jagged_dim=2).to_padded_tensor(0)
    assert axes[:, 0].tolist() == [[1, 2], [3, 4], [6, 7]]
