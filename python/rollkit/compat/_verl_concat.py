"""Padded batches one after the other: `rollkit.compat.verl.concat`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from math import prod
from typing import Any, Final

import numpy as np

from rollkit._extras import extra
from rollkit._frameworks import Tensor
from rollkit._rollouts.columns import Level, check_level, level_of
from rollkit._rows.layout import Layout, refuse_shared
from rollkit._rows.same import place_same

_KNOWN: Final = {
    "prompts": "prompt",
    "responses": "response",
    "response_mask": "response",
    "input_ids": "sequence",
    "attention_mask": "sequence",
    "position_ids": "sequence",
}
_TOKENS: Final = ("prompts", "responses", "input_ids")

_UNKNOWN: Final = -(1 << 40)
"""A width that makes no column as wide."""

Widths = dict[str, int]


def concat(
    batches: Sequence[Mapping[str, Any]], *, pad_token_id: int = 0, levels: Mapping[str, Level] | None = None
) -> Any:
    """Lay the rows of padded batches one after the other, padded anew to the width they need together.

    Prompts are padded on the left, responses on the right, sequences (a prompt's block, then a
    response's) on both sides. A tensor that is as wide as the responses of its batch, in all batches,
    is padded as they are; likewise sequences. So are prompts, of a name that begins with `prompt_`, or
    where `levels` says so. What is as wide in all is left as it is.

    Args:
        batches: `TensorDict`s, or dicts of tensors `[rows, …]` and of arrays or lists with an entry per
            row. All have the same columns.
        pad_token_id: what padding holds in `prompts`, `responses` and `input_ids`. New padding of
            `position_ids` repeats a row's last position on the right, as verl pads; all else is 0.
        levels: what columns have an element for, where their names do not say it: `{"hints": "prompt"}`.

    Returns:
        A batch of the type of the first, in new memory: the batch that padding all the rows at once
        would have given. dtypes are promoted as `torch.cat` does. Entries of a dict that are none per
        row must be equal in all.

    Raises:
        ValueError: there are no batches; columns of one differ in rows; they differ in columns, in a
            tensor's inner shape, or in an entry that must be equal; or a tensor's width is neither the
            same in all nor what its level says. The message names the column and the batch.
        TypeError: a column is a tensor in some batches only, or nested.

    Source: `verl.protocol.DataProto.concat`, which takes batches of one width.

    Example:
        >>> import torch
        >>> a = {"prompts": torch.tensor([[1, 2]]), "responses": torch.tensor([[3]])}
        >>> b = {"prompts": torch.tensor([[4]]), "responses": torch.tensor([[5, 6]])}
        >>> concat([a, b], pad_token_id=9)
        {'prompts': tensor([[1, 2],
                [9, 4]]), 'responses': tensor([[3, 9],
                [5, 6]])}
    """
    parts: list[Any] = list(batches)
    for i, part in enumerate(parts):
        refuse_shared(f"batches[{i}]", part)
    if not parts:
        raise ValueError("batches is empty; concat needs at least one")
    names = list(parts[0].keys())
    for i, part in enumerate(parts):
        if odd := set(names) ^ set(part.keys()):
            listed = ", ".join(map(repr, sorted(odd)))
            raise ValueError(f"batches[{i}] and batches[0] differ in columns: {listed}")
        _check_rows(i, part)
    widths = [_widths(i, part) for i, part in enumerate(parts)]
    said = {} if levels is None else levels
    for name, level in said.items():
        check_level(name, level)
    joined: dict[str, Any] = {}
    for name in names:
        if _all_tensors(name, [part.get(name) for part in parts]):
            fill = pad_token_id if name in _TOKENS else 0
            joined[name] = _joined(name, [part[name] for part in parts], widths, fill, said)
        elif all(isinstance(part[name], np.ndarray) for part in parts):
            joined[name] = np.concatenate([part[name] for part in parts])
        elif not hasattr(parts[0], "batch_size"):
            joined[name] = _joined_others(name, [part[name] for part in parts])
    if not hasattr(parts[0], "batch_size"):
        return joined
    others = [name for name in names if name not in joined]
    result = extra("torch", "torch").cat([part.select(*others) for part in parts], 0)
    result.update(joined)
    return result


def _all_tensors(name: str, columns: Sequence[Any]) -> bool:
    torch = extra("torch", "torch")
    found = [isinstance(column, torch.Tensor) for column in columns]
    if any(found) and not all(found):
        raise TypeError(
            f"column {name!r} is a tensor in some batches only, not in batches[{found.index(False)}]"
        )
    if any(found) and any(column.is_nested for column in columns):
        raise TypeError(f"column {name!r} is nested; concat takes padded tensors")
    return all(found)


def _check_rows(i: int, part: Mapping[str, Any]) -> None:
    """Refuse a batch whose columns differ in rows: joined, theirs would stand beside others'."""
    first = ""
    for name, column in part.items():  # a TensorDict iterates over its rows
        if not getattr(column, "ndim", 0):
            continue
        first = first or name
        if (count := len(column)) != (wanted := len(part[first])):
            raise ValueError(f"batches[{i}]: {name!r} has {count} rows, {first!r} has {wanted}")


def _widths(index: int, batch: Any) -> Widths:
    """How wide a batch's prompts, responses and sequences are, as far as its columns tell."""
    known: Widths = {}
    for name, level in _KNOWN.items():
        if name in batch:
            known.setdefault(level, batch[name].shape[-1])
    for level, other in (("prompt", "response"), ("response", "prompt")):
        if "sequence" in known and other in known:
            known.setdefault(level, known["sequence"] - known[other])
    whole = known.get("prompt", 0) + known.get("response", 0)
    if known.get("sequence", whole) != whole and "prompt" in known:
        raise ValueError(f"batches[{index}]: prompts and responses are not as wide as sequences: {known}")
    if "prompt" in known and "response" in known:
        known["sequence"] = whole
    else:
        known.pop("sequence", None)  # nothing tells where its responses begin
    return known


def _joined_others(name: str, columns: list[Any]) -> Any:
    if all(isinstance(column, list) for column in columns):
        return [entry for column in columns for entry in column]
    for i, column in enumerate(columns):
        if column != columns[0]:
            raise ValueError(f"column {name!r} is {column!r} in batches[{i}], {columns[0]!r} in batches[0]")
    return columns[0]


def _joined(
    name: str, tensors: list[Tensor], widths: Sequence[Widths], fill: int, levels: Mapping[str, str]
) -> Tensor:
    torch = extra("torch", "torch")
    # Positions may have several axes before the tokens: [rows, axes, width].
    dim = tensors[0].dim() - 1 if name == "position_ids" else 1
    for i, tensor in enumerate(tensors):
        if _without(tensor, dim) != _without(tensors[0], dim):
            raise ValueError(
                f"column {name!r} of batches[{i}] has shape {list(tensor.shape)}, "
                f"that of batches[0] {list(tensors[0].shape)}"
            )
    level = None if tensors[0].dim() == 1 else _level(name, [t.shape[dim] for t in tensors], widths, levels)
    if level is None:
        return torch.cat(tensors)
    prompt = max(known.get("prompt", 0) for known in widths)
    response = max(known.get("response", 0) for known in widths)
    begins = [0 if level == "response" else prompt - known["prompt"] for known in widths]
    width = {"prompt": prompt, "response": response, "sequence": prompt + response}[level]
    dtype = reduce(torch.promote_types, [tensor.dtype for tensor in tensors])
    out = _padded([tensor.to(dtype) for tensor in tensors], dim, begins, width, fill)
    if name == "position_ids":
        _repeat_last(out, tensors, dim, begins)
    return out


def _without(tensor: Tensor, dim: int) -> tuple[int, ...]:
    """The shape but for the rows and for dimension `dim`."""
    return (*tensor.shape[1:dim], -1, *tensor.shape[dim + 1 :])


def _level(name: str, sizes: list[int], widths: Sequence[Widths], said: Mapping[str, str]) -> str | None:
    """What a column is padded as; None if it needs no padding."""
    prompt, response = (
        np.array([known.get(level, _UNKNOWN) for known in widths]) for level in ("prompt", "response")
    )
    try:
        level = level_of(name, np.array(sizes), prompt, response, {**_KNOWN, **said})
        return None if level == "row" else level
    except ValueError:
        if name in said:
            raise ValueError(
                f"column {name!r} is {sizes} wide in the batches; levels has it per {said[name]} token, and "
                f"their widths are {list(widths)}"
            ) from None
        if len(set(sizes)) == 1:
            return None
    i = next(i for i, size in enumerate(sizes) if size != sizes[0])
    raise ValueError(
        f"column {name!r} is {sizes[i]} wide in batches[{i}], {sizes[0]} in batches[0]; to be padded it "
        f"must be as wide as the responses or sequences of its batch, or the prompts if its name or levels "
        f"says so: they are {widths[i]}"
    )


def _padded(tensors: list[Tensor], dim: int, begins: list[int], width: int, fill: int) -> Tensor:
    """Tensors whose lines (dimension `dim`) begin at `begins` of lines of `width`."""
    counts = [prod(tensor.shape[:dim]) for tensor in tensors]
    sizes = [tensor.shape[dim] for tensor in tensors]
    starts = np.arange(sum(counts)) * width + np.repeat(begins, counts)
    layout = Layout.at((sum(counts), width), starts, np.repeat(sizes, counts))
    lines = [tensor.flatten(0, dim) for tensor in tensors]
    firsts = [np.arange(count) * size for count, size in zip(counts, sizes, strict=True)]
    placed = place_same(lines, layout, lines[0].new_full((), fill), begins=firsts)
    first, rows = tensors[0], sum(map(len, tensors))
    return placed.reshape(rows, *first.shape[1:dim], width, *first.shape[dim + 1 :])


def _repeat_last(out: Tensor, tensors: list[Tensor], dim: int, begins: list[int]) -> None:
    """Let positions stay at a row's last where its padding is new."""
    row = 0
    for tensor, begin in zip(tensors, begins, strict=True):
        if end := begin + tensor.shape[dim]:
            lines = out[row : row + len(tensor)]
            lines[..., end:] = lines[..., end - 1 : end]
        row += len(tensor)
