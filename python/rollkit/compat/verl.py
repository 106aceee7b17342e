"""The padding round trip of verl 0.9 (`verl.workers.utils.padding`), and `concat` of padded batches.

`to_tensordict` and `from_tensordict` view rollouts as the jagged batches of its v1 trainer.

Batches are `TensorDict`s or plain dicts. Dense tensors on the CPU go through Rust, over shared memory; all
others, and tensors that a gradient goes through, torch moves.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollkit._check import Int64s
from rollkit._extras import extra
from rollkit._frameworks import Tensor
from rollkit._rows.layout import Layout
from rollkit._rows.same import place_same
from rollkit.compat._jagged import jagged
from rollkit.compat._values import need_tensors, need_values
from rollkit.compat._verl_concat import concat
from rollkit.compat._verl_tensordict import from_tensordict, to_tensordict

__all__ = [
    "build_attention_mask_from_nested",
    "concat",
    "embeds_padding_2_no_padding",
    "from_tensordict",
    "left_right_2_no_padding",
    "no_padding_2_padding",
    "response_from_nested",
    "response_to_nested",
    "to_tensordict",
]

Data = MutableMapping[str, Any]
"""A `tensordict.TensorDict`, or a dict."""


def left_right_2_no_padding(data: Data) -> Data:
    """Replace the padded sequences of a batch by nested (jagged) tensors, in place.

    Args:
        data: with `input_ids` and `attention_mask` `[rows, width]`, `response_mask` `[rows, responses]`,
            and `position_ids` `[rows, width]` or `[rows, axes, width]`; also, if there are any,
            `routed_experts`, and `teacher_logprobs` with `teacher_ids`, `[rows, width, *inner]`.

    Returns:
        `data`, in which these hold a row per sequence, of the tokens that `attention_mask` keeps, and
        `loss_mask` is `response_mask`. `max_seq_len`, `max_response_len` and `indices` (`[tokens]`
        int64, where each token was in the flattened batch) are added, as non-tensor data of a
        `TensorDict`.

    Raises:
        AssertionError: a column is missing; the message names it.

    Source: `verl.workers.utils.padding.left_right_2_no_padding`.

    Example:
        >>> import torch
        >>> data = left_right_2_no_padding({
        ...     "input_ids": torch.tensor([[0, 5, 6, 0], [7, 8, 9, 1]]),
        ...     "attention_mask": torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]]),
        ...     "position_ids": torch.tensor([[0, 0, 1, 1], [0, 1, 2, 3]]),
        ...     "response_mask": torch.tensor([[1, 0], [1, 1]]),
        ... })
        >>> data["input_ids"].values(), data["input_ids"].offsets()
        (tensor([5, 6, 7, 8, 9, 1]), tensor([0, 2, 6], dtype=torch.int32))
    """
    torch = extra("torch", "torch")
    for name in ("input_ids", "attention_mask", "response_mask", "position_ids"):
        if name not in data:
            raise AssertionError(f"{name} is required")
    ids, responses = data.pop("input_ids"), data["response_mask"]
    tokens = _Tokens.kept_by("attention_mask", data["attention_mask"])
    _set_other(data, "max_seq_len", ids.shape[1])
    _set_other(data, "max_response_len", responses.shape[1])
    _set_other(data, "indices", tokens.indices)
    positions = data["position_ids"]
    data["input_ids"] = tokens.jagged(ids)
    if positions.dim() == 2:
        data["position_ids"] = tokens.jagged(positions, torch.int64)
    else:
        values = tokens.of_axes(positions)
        offsets = tokens.offsets.to(values.device, torch.int64)
        data["position_ids"] = jagged(values, offsets, tokens.counts, jagged_dim=2)
    data["loss_mask"] = responses
    routes = data.get("routed_experts", None)
    if routes is not None and not routes.is_nested:
        data["routed_experts"] = tokens.jagged(routes)
    teachers = {name: data.get(name, None) for name in ("teacher_logprobs", "teacher_ids")}
    if all(teacher is not None for teacher in teachers.values()):
        for name, teacher in teachers.items():
            data[name] = tokens.jagged(teacher)
    return data


def no_padding_2_padding(tensor: Tensor, data: Mapping[str, Any]) -> Tensor:
    """Cut the responses out of a model's output on the tokens, moved by one: what predicted each token.

    Args:
        tensor: nested, or `[tokens, *inner]`: an output for every token of every sequence. A gradient
            goes through.
        data: with `prompts` and `responses`: nested, or padded beside an `attention_mask`. Nested ones
            are padded to `max_response_len` if `data` has it, else to the longest.

    Returns:
        `[rows, responses, *inner]`: element j of a row is the output one token before its response's
        token j; padding is 0.

    Raises:
        AssertionError: the sequences have another number of tokens than `tensor`, or a prompt is empty:
            no token comes before its response.

    Source: `verl.workers.utils.padding.no_padding_2_padding`.

    Example:
        >>> import torch
        >>> data = {
        ...     "prompts": torch.tensor([[0, 5], [7, 8]]),
        ...     "responses": torch.tensor([[6, 0], [9, 1]]),
        ...     "attention_mask": torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]]),
        ... }
        >>> no_padding_2_padding(torch.tensor([0.5, 0.6, 0.7, 0.8, 0.9, 0.1]), data)
        tensor([[0.5000, 0.0000],
                [0.8000, 0.9000]])
    """
    need_tensors(tensor=tensor)
    values = _without_holes(tensor).values() if tensor.is_nested else tensor
    prompts, responses, width = _lengths(data)
    ends = np.cumsum(prompts + responses)
    total = int(ends[-1]) if len(ends) else 0
    if total != len(values):
        raise AssertionError(f"tensor has {len(values)} tokens, prompts and responses have {total}")
    if not prompts.all():
        row = int(prompts.argmin())
        raise AssertionError(f"prompt {row} is empty: no token comes before its response")
    begins = ends - responses - 1
    lengths = np.minimum(responses, width)  # as verl, which cuts off what is longer
    layout = Layout.pad(lengths, side="right", width=width)
    return place_same([values], layout, begins=[begins])


def build_attention_mask_from_nested(input_ids: Tensor, max_seq_len: int | None = None) -> Tensor:
    """Say where the tokens of a nested batch are once it is padded on the right.

    Args:
        input_ids: nested.
        max_seq_len: the width; the longest row's by default.

    Returns:
        `[rows, width]` int32, 1 on tokens.

    Raises:
        AssertionError: `input_ids` is not nested.

    Source: `verl.workers.utils.padding.build_attention_mask_from_nested`.

    Example:
        >>> import torch
        >>> ids = torch.nested.nested_tensor_from_jagged(torch.tensor([5, 6, 7]), torch.tensor([0, 2, 3]))
        >>> build_attention_mask_from_nested(ids).tolist()
        [[1, 1], [1, 0]]
    """
    torch = extra("torch", "torch")
    need_tensors(input_ids=input_ids)
    if not input_ids.is_nested:
        raise AssertionError("input_ids must be a nested tensor")
    need_values("input_ids", input_ids.offsets())
    lengths = input_ids.offsets().diff().to(input_ids.values().device)
    width = int(lengths.max()) if max_seq_len is None else max_seq_len
    return (torch.arange(width, device=lengths.device) < lengths[:, None]).to(torch.int32)


def embeds_padding_2_no_padding(data: Data) -> Data:
    """Replace padded embeddings of prompts, and their masks, by nested (jagged) tensors, in place.

    Args:
        data: with `prompt_embeds` `[rows, width, size]` and `prompt_embeds_mask` `[rows, width]`; likewise
            `negative_prompt_embeds` and `negative_prompt_embeds_mask`, if there are any.

    Returns:
        `data`, in which these hold a row per prompt, of what the mask keeps; masks are bool. A gradient
        goes through.

    Source: `verl.workers.utils.padding.embeds_padding_2_no_padding`.

    Example:
        >>> import torch
        >>> data = embeds_padding_2_no_padding({
        ...     "prompt_embeds": torch.tensor([[[1.0], [2.0]], [[3.0], [0.0]]]),
        ...     "prompt_embeds_mask": torch.tensor([[1, 1], [1, 0]]),
        ... })
        >>> data["prompt_embeds"].values().flatten().tolist()
        [1.0, 2.0, 3.0]
    """
    torch = extra("torch", "torch")
    names = ["prompt_embeds"]
    if isinstance(data.get("negative_prompt_embeds", None), torch.Tensor):
        names.append("negative_prompt_embeds")
    for name in names:
        mask = data[f"{name}_mask"]
        tokens = _Tokens.kept_by(f"{name}_mask", mask)
        data[name] = tokens.jagged(data[name], torch.int64)
        data[f"{name}_mask"] = tokens.jagged(mask != 0, torch.int64)
    return data


def response_from_nested(tensor: Tensor, response_mask: Tensor) -> Tensor:
    """Cut the responses out of a nested output, moved by one: what predicted each token.

    Args:
        tensor: nested, an output for every token of prompt and response. A gradient goes through.
        response_mask: nested, a row per response.

    Returns:
        Nested, a row per response: element j is the output one token before its token j.

    Raises:
        AssertionError: the rows are not as many, or one has no token before its response (verl takes the
            row before's, or nothing).

    Source: `verl.workers.utils.padding.response_from_nested`.

    Example:
        >>> import torch
        >>> jagged = torch.nested.nested_tensor_from_jagged
        >>> output = jagged(torch.tensor([0.5, 0.6, 0.7, 0.8, 0.9]), torch.tensor([0, 2, 5]))
        >>> mask = jagged(torch.tensor([1, 1, 1]), torch.tensor([0, 1, 3]))
        >>> response_from_nested(output, mask).values()
        tensor([0.5000, 0.7000, 0.8000])
    """
    tensor = _without_holes(tensor)
    ends, lengths = _offsets("tensor", tensor), np.diff(_offsets("response_mask", response_mask))
    if len(ends) - 1 != len(lengths):
        raise AssertionError(f"tensor has {len(ends) - 1} rows, response_mask {len(lengths)}")
    if (short := np.diff(ends) <= lengths).any():
        row = int(short.argmax())
        raise AssertionError(
            f"row {row} has {ends[row + 1] - ends[row]} tokens, {lengths[row]} of the response: "
            "no token comes before it"
        )
    return _cut(tensor.values(), ends[1:] - lengths - 1, lengths)


def response_to_nested(tensor: Tensor, response_mask: Tensor) -> Tensor:
    """Take the padding off responses.

    Args:
        tensor: `[rows, width, *inner]`, padded on the right. A gradient goes through.
        response_mask: nested, a row per response.

    Returns:
        Nested, a row per response.

    Raises:
        AssertionError: `response_mask` is not nested, its rows are not as many, or one is longer than the
            width (verl gives a shorter row).

    Source: `verl.workers.utils.padding.response_to_nested`.

    Example:
        >>> import torch
        >>> mask = torch.nested.nested_tensor_from_jagged(torch.ones(3), torch.tensor([0, 2, 3]))
        >>> response_to_nested(torch.tensor([[5, 6], [7, 0]]), mask).values()
        tensor([5, 6, 7])
    """
    need_tensors(response_mask=response_mask)
    if not response_mask.is_nested:
        raise AssertionError("response_mask must be a nested tensor")
    lengths = np.diff(_offsets("response_mask", response_mask))
    rows, width = tensor.shape[:2]
    if rows != len(lengths):
        raise AssertionError(f"tensor has {rows} rows, response_mask {len(lengths)}")
    if (long := lengths > width).any():
        row = int(long.argmax())
        raise AssertionError(f"response {row} has {lengths[row]} tokens, tensor is {width} wide")
    return _cut(tensor.flatten(0, 1), np.arange(rows) * width, lengths)


def _offsets(name: str, nested: Tensor) -> Int64s:
    """`[rows + 1]`, where rows begin; they decide shapes, so they must be known."""
    need_values(name, nested.offsets())
    found: Int64s = nested.offsets().cpu().numpy()
    return found


def _without_holes(nested: Tensor) -> Tensor:
    """Rows end to end: those of a narrowed tensor lie apart, and its offsets do not tell their lengths."""
    return nested if nested.lengths() is None else nested.contiguous()


def _cut(values: Tensor, begins: Int64s, lengths: Int64s) -> Tensor:
    """A row of so many values from each begin on."""
    layout = Layout.concat(np.asarray(lengths, np.int64))
    cut = place_same([values], layout, begins=[np.asarray(begins, np.int64)])
    offsets = extra("torch", "torch").from_numpy(layout.offsets()).to(values.device)
    return jagged(cut, offsets, layout.lengths)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The tokens of a padded batch that its attention mask keeps.

    Attributes:
        indices: `[tokens]` int64 tensor, where each was in the flattened batch.
        offsets: `[rows + 1]` int32 tensor, where each row begins among them.
        counts: `[rows]`, how many each row has.
        begins: `[runs]`, where tokens that lie side by side begin in the flattened batch.
        lengths: `[runs]`, how many they are.
    """

    indices: Tensor
    offsets: Tensor
    counts: Int64s
    begins: Int64s
    lengths: Int64s

    @classmethod
    def kept_by(cls, name: str, attention_mask: Tensor) -> _Tokens:
        need_values(name, attention_mask)
        torch = extra("torch", "torch")
        kept = (attention_mask != 0).cpu().numpy()
        framed = np.concatenate([[False], kept.reshape(-1), [False]])
        edges = np.flatnonzero(framed[1:] != framed[:-1])
        begins, ends = np.ascontiguousarray(edges.reshape(-1, 2).T)
        counts = kept.sum(axis=1)
        offsets = np.append(0, np.cumsum(counts)).astype(np.int32)
        indices, offsets = (
            torch.from_numpy(found).to(attention_mask.device) for found in (np.flatnonzero(kept), offsets)
        )
        return cls(indices, offsets, counts, begins, ends - begins)

    def of(self, column: Tensor) -> Tensor:
        """`[rows, width, *inner]` to `[tokens, *inner]`."""
        return place_same([column.flatten(0, 1)], Layout.concat(self.lengths), begins=[self.begins])

    def jagged(self, column: Tensor, dtype: Any = None) -> Tensor:
        """`[rows, width, *inner]` to a row of tokens each; the dtype is that of the offsets."""
        values = self.of(column)
        return jagged(values, self.offsets.to(values.device, dtype), self.counts)

    def of_axes(self, column: Tensor) -> Tensor:
        """`[rows, axes, width]` to `[axes, tokens]`."""
        return column.transpose(0, 1).flatten(1)[:, self.indices]


def _lengths(data: Mapping[str, Any]) -> tuple[Int64s, Int64s, int]:
    """`[rows]` lengths of the prompts and of the responses, and the width that responses are padded to."""
    prompts, responses = data["prompts"], data["responses"]
    if prompts.is_nested:
        lengths: list[Int64s] = [np.diff(_offsets(name, data[name])) for name in ("prompts", "responses")]
        # Not .get, which does not unwrap what is no tensor of a TensorDict.
        padded = "max_response_len" in data and data["max_response_len"] >= 0
        return lengths[0], lengths[1], data["max_response_len"] if padded else int(lengths[1].max())
    need_values("attention_mask", data["attention_mask"])
    mask, first = data["attention_mask"] != 0, prompts.shape[1]
    lengths = [part.sum(dim=1).cpu().numpy() for part in (mask[:, :first], mask[:, first:])]
    return lengths[0], lengths[1], responses.shape[1]


def _set_other(data: Data, name: str, value: Any) -> None:
    """Store what is no tensor of the batch: in a `TensorDict` it has a wrapper."""
    if hasattr(data, "set_non_tensor"):
        data.set_non_tensor(name, value)
    else:
        data[name] = value
