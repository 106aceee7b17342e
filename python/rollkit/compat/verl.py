"""The padding round trip of verl 0.9 (`verl.workers.utils.padding`), and `concat` of padded batches.

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
from rollkit.compat._verl_concat import concat

__all__ = ["concat", "left_right_2_no_padding", "no_padding_2_padding"]

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
    tokens = _Tokens.kept_by(data["attention_mask"])
    _set_other(data, "max_seq_len", ids.shape[1])
    _set_other(data, "max_response_len", responses.shape[1])
    _set_other(data, "indices", tokens.indices)
    jagged = torch.nested.nested_tensor_from_jagged
    positions = data["position_ids"]
    data["input_ids"] = jagged(tokens.of(ids), tokens.offsets)
    if positions.dim() == 2:
        data["position_ids"] = jagged(tokens.of(positions), tokens.offsets.long())
    else:
        data["position_ids"] = jagged(tokens.of_axes(positions), tokens.offsets.long(), jagged_dim=2)
    data["loss_mask"] = responses
    routes = data.get("routed_experts", None)
    if routes is not None and not routes.is_nested:
        data["routed_experts"] = jagged(tokens.of(routes), tokens.offsets)
    teachers = {name: data.get(name, None) for name in ("teacher_logprobs", "teacher_ids")}
    if all(teacher is not None for teacher in teachers.values()):
        for name, teacher in teachers.items():
            data[name] = jagged(tokens.of(teacher), tokens.offsets)
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
    values = tensor.values() if tensor.is_nested else tensor
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


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The tokens of a padded batch that its attention mask keeps.

    Attributes:
        indices: `[tokens]` int64 tensor, where each was in the flattened batch.
        offsets: `[rows + 1]` int32 tensor, where each row begins among them.
        begins: `[runs]`, where tokens that lie side by side begin in the flattened batch.
        lengths: `[runs]`, how many they are.
    """

    indices: Tensor
    offsets: Tensor
    begins: Int64s
    lengths: Int64s

    @classmethod
    def kept_by(cls, attention_mask: Tensor) -> _Tokens:
        torch = extra("torch", "torch")
        kept = (attention_mask != 0).cpu().numpy()
        framed = np.concatenate([[False], kept.reshape(-1), [False]])
        edges = np.flatnonzero(framed[1:] != framed[:-1])
        begins, ends = np.ascontiguousarray(edges.reshape(-1, 2).T)
        offsets = np.append(0, np.cumsum(kept.sum(axis=1))).astype(np.int32)
        indices, offsets = (
            torch.from_numpy(found).to(attention_mask.device) for found in (np.flatnonzero(kept), offsets)
        )
        return cls(indices, offsets, begins, ends - begins)

    def of(self, column: Tensor) -> Tensor:
        """`[rows, width, *inner]` to `[tokens, *inner]`."""
        return place_same([column.flatten(0, 1)], Layout.concat(self.lengths), begins=[self.begins])

    def of_axes(self, column: Tensor) -> Tensor:
        """`[rows, axes, width]` to `[axes, tokens]`."""
        return column.transpose(0, 1).flatten(1)[:, self.indices]


def _lengths(data: Mapping[str, Any]) -> tuple[Int64s, Int64s, int]:
    """`[rows]` lengths of the prompts and of the responses, and the width that responses are padded to."""
    prompts, responses = data["prompts"], data["responses"]
    if prompts.is_nested:
        lengths = [part.offsets().diff().cpu().numpy() for part in (prompts, responses)]
        # Not .get, which does not unwrap what is no tensor of a TensorDict.
        padded = "max_response_len" in data and data["max_response_len"] >= 0
        return *lengths, data["max_response_len"] if padded else int(lengths[1].max())
    mask, first = data["attention_mask"] != 0, prompts.shape[1]
    lengths = [part.sum(dim=1).cpu().numpy() for part in (mask[:, :first], mask[:, first:])]
    return lengths[0], lengths[1], responses.shape[1]


def _set_other(data: Data, name: str, value: Any) -> None:
    """Store what is no tensor of the batch: in a `TensorDict` it has a wrapper."""
    if hasattr(data, "set_non_tensor"):
        data.set_non_tensor(name, value)
    else:
        data[name] = value
