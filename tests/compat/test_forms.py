"""Every drop-in of odd dtypes, strides, gradients and tensors without values: right, or refused."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rollkit.compat import flash_attn, skyrl, transformer_engine, trl, verifiers, verl
from rollkit.testing import ways

MASK = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0]])
LENGTHS = MASK.sum(1).tolist()
PLACES = MASK.flatten().nonzero().flatten()
NESTED = torch.nested.nested_tensor_from_jagged(torch.ones(5), torch.tensor([0, 1, 3, 5]))


def jagged(x: Any) -> Any:
    return torch.nested.nested_tensor_from_jagged(x.flatten(), torch.tensor([0, 4, 8, 12], device=x.device))


def left_right(x: Any, name: str) -> Any:
    data = {
        "input_ids": MASK,
        "attention_mask": MASK,
        "response_mask": MASK[:, 2:],
        "position_ids": MASK,
        "teacher_ids": MASK,
        "teacher_logprobs": MASK,
    }
    return verl.left_right_2_no_padding({**data, name: x})[name].values()


def responses(x: Any) -> Any:
    full = torch.ones_like(MASK)
    return verl.no_padding_2_padding(
        x.flatten(), {"prompts": MASK[:, :2], "responses": MASK[:, 2:], "attention_mask": full}
    )


def embeds(x: Any) -> Any:
    data = {"prompt_embeds": x[..., None], "prompt_embeds_mask": MASK}
    return verl.embeds_padding_2_no_padding(data)["prompt_embeds"].values()


def concat(x: Any) -> Any:
    ids = {"prompts": MASK[:, :2], "responses": MASK[:, 2:]}
    wider = {"prompts": MASK, "responses": MASK[:, 2:], "prompt_x": x.new_zeros(3, 4)}
    return verl.concat([{**ids, "prompt_x": x[:, :2]}, wider])["prompt_x"]


# What moves elements: a call on `[3, 4]`, and which way it goes where nothing hinders.
MOVES: dict[str, tuple[Callable[[Any], Any], str | None]] = {
    "trl.pad": (lambda x: trl.pad([row[:n] for row, n in zip(x, LENGTHS, strict=True)]), "rust"),
    "trl.flush_left": (lambda x: trl.flush_left(MASK, x)[1], "rust"),
    "verl.left_right input_ids": (lambda x: left_right(x, "input_ids"), "rust"),
    "verl.left_right routed_experts": (lambda x: left_right(x, "routed_experts"), "rust"),
    "verl.left_right teacher_logprobs": (lambda x: left_right(x, "teacher_logprobs"), "rust"),
    "verl.left_right position_ids": (lambda x: left_right(x[:, None].expand(3, 2, 4), "position_ids"), None),
    "verl.no_padding_2_padding": (responses, "rust"),
    "verl.embeds": (embeds, "rust"),
    "verl.response_from_nested": (lambda x: verl.response_from_nested(jagged(x), NESTED).values(), "rust"),
    "verl.response_to_nested": (lambda x: verl.response_to_nested(x, NESTED).values(), "rust"),
    "verl.concat": (concat, "rust"),
    "flash_attn.index_first_axis": (lambda x: flash_attn.index_first_axis(x, torch.tensor([2, 0])), None),
    "flash_attn.index_put_first_axis": (
        lambda x: flash_attn.index_put_first_axis(x, torch.tensor([4, 0, 2], device=x.device), 6),
        None,
    ),
    "flash_attn.index_first_axis_residual": (
        lambda x: torch.cat(flash_attn.index_first_axis_residual(x, torch.tensor([2, 0]))),
        None,
    ),
    "flash_attn.unpad_input": (lambda x: flash_attn.unpad_input(x[..., None], MASK)[0], None),
    "flash_attn.unpad_concatenated": (
        lambda x: flash_attn.unpad_input_for_concatenated_sequences(x[..., None], MASK)[0],
        None,
    ),
    "flash_attn.pad_input": (
        lambda x: flash_attn.pad_input(x.reshape(12, 1)[PLACES], PLACES.to(x.device), 3, 4),
        None,
    ),
}
FORMS: dict[str, Callable[[Any], Any]] = {
    "bfloat16": lambda x: x.bfloat16(),
    "float16": lambda x: x.half(),
    "int16": lambda x: x.short(),
    "bool": lambda x: x % 2 == 1,
    "not contiguous": lambda x: x.t().contiguous().t(),
    "every second": lambda x: x.repeat_interleave(2, 1)[:, ::2],
}


@pytest.mark.parametrize("name", MOVES)
def test_what_moves_elements(name: str) -> None:
    call, way = MOVES[name]
    numbers = torch.arange(1, 13).reshape(3, 4)
    moved = call(numbers)  # which element is where, 0 for none: other tests say that this is right
    for form, change in FORMS.items():
        x = change(numbers)
        with ways() as taken:
            found = call(x)
        wanted = torch.cat([x.new_zeros(1), x.flatten()])[moved]
        assert found.dtype == x.dtype, form
        assert torch.equal(found, wanted), form
        assert "framework" not in taken, form
        assert way is None or way in taken, form

    for dtype in (torch.float32, torch.bfloat16):
        x = numbers.to(dtype).requires_grad_()
        with ways() as taken:
            found = call(x)
        assert way is None or "framework" in taken
        weights = torch.arange(1, found.numel() + 1).reshape(found.shape).to(dtype)
        found.backward(weights)
        grad = torch.zeros(13, dtype=dtype).index_add(0, moved.flatten(), weights.flatten())[1:]
        assert x.grad is not None
        assert torch.equal(x.grad, grad.reshape(3, 4))

    if name == "verl.response_from_nested":
        with pytest.raises(NotImplementedError, match=r"^tensor is on the meta device"):
            call(numbers.to("meta"))  # how long the rows are is in it
        return
    found = call(numbers.to("meta"))
    assert found.is_meta
    assert found.shape == moved.shape


X = torch.arange(12).reshape(3, 4)
VERL = {
    "input_ids": X,
    "response_mask": X[:, 2:],
    "position_ids": X,
    "prompts": X[:, :2],
    "responses": X[:, 2:],
}
# What decides where elements go, each as a call on a mask like MASK.
MASKS: dict[str, Callable[[Any], Any]] = {
    "mask": lambda mask: trl.flush_left(mask, X)[1],
    "attention_mask": lambda mask: flash_attn.unpad_input(X[..., None], mask)[1],
    "attention_mask_in_length": lambda mask: flash_attn.unpad_input_for_concatenated_sequences(
        X[..., None], mask
    )[1],
    " attention_mask": lambda mask: verl.left_right_2_no_padding({**VERL, "attention_mask": mask})["indices"],
    "  attention_mask": lambda mask: verl.no_padding_2_padding(
        torch.arange(7), {**VERL, "attention_mask": mask}
    ),
    "prompt_embeds_mask": lambda mask: verl.embeds_padding_2_no_padding(
        {"prompt_embeds": X, "prompt_embeds_mask": mask}
    )["prompt_embeds"].values(),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str) -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0]])
    wanted = MASKS[name](mask)
    for form, change in FORMS.items():
        if form != "bool":  # TRL refuses it, and lengths are none
            assert torch.equal(MASKS[name](change(mask)), wanted), form
    assert torch.equal(MASKS[name](mask.float().requires_grad_()), wanted)
    with pytest.raises(NotImplementedError, match=rf"^{name.strip()} is on the meta device"):
        MASKS[name](mask.to("meta"))


def collated(name: str, rows: Any) -> Any:
    given = {
        "prompts": [[1], [2]],
        "responses": [[3], [4]],
        "rewards": [[1.0], [0.0]],
        "loss_masks": [[1], [1]],
    }
    return skyrl.convert_prompts_responses_to_batch_tensors(0, **{**given, name: rows})


@pytest.mark.parametrize(("name", "place"), [("responses", 0), ("loss_masks", 4), ("logprobs", 5)])
def test_rows_of_skyrl(name: str, place: int) -> None:
    wanted = collated(name, [[1], [0]])
    for form, change in FORMS.items():
        if name == "responses" and "float" in form:
            continue  # refused: ids are no floats
        rows = list(change(torch.tensor([[1], [0]])))
        assert torch.equal(collated(name, rows)[place], wanted[place]), form
    for row, what in [
        (torch.ones(1, requires_grad=True), "with a gradient, which would be lost"),
        (torch.ones(1, device="meta"), "without values"),
    ]:
        with pytest.raises(TypeError, match=rf"^{name}.*row 1.*{what}"):
            collated(name, [torch.ones(1), row])
        output = {"prompt_token_ids": [[1]], "response_ids": [[2]], "rewards": [1.0], "loss_masks": [row]}
        with pytest.raises(TypeError, match=rf"^loss_masks.*row 0.*{what}"):
            skyrl.validate_generator_output(1, output)


@pytest.mark.parametrize("form", ["int16", "not contiguous", "every second"])
def test_routes_and_segments(form: str) -> None:
    ids = torch.tensor([[1, 1, 0, 2], [3, 0, 0, 0], [1, 2, 2, 2]])
    wanted = transformer_engine._get_seqlens_and_offsets(ids, 3)
    for got, right in zip(
        transformer_engine._get_seqlens_and_offsets(FORMS[form](ids), 3), wanted, strict=True
    ):
        assert torch.equal(got, right)
    assert routes_of(FORMS[form](ids)).ravel().tolist() == ids.flatten().tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_routes_and_segments_are_integers(dtype: Any) -> None:
    floats = torch.ones(3, 4, dtype=dtype)
    with pytest.raises(TypeError, match="must hold integers"):
        transformer_engine._get_seqlens_and_offsets(floats, 3)
    with pytest.raises(TypeError, match="must be integers"):
        routes_of(floats)


def test_routes_and_segments_without_values() -> None:
    meta = torch.ones(3, 4, dtype=torch.int32, device="meta")
    assert all(found.is_meta for found in transformer_engine._get_seqlens_and_offsets(meta, 3))
    with pytest.raises(TypeError, match="without values"):
        routes_of(meta)


def routes_of(x: Any) -> Any:
    node = SimpleNamespace(token_ids=[5, 6, 7], routed_experts=None)
    payload = {"data": x[:, None], "start": 0}
    verifiers.attribute_routed_experts(SimpleNamespace(nodes=[node]), [0], 0, payload)
    return node.routed_experts
