"""Slow, obvious versions of what rollkit makes of rollouts: batches, labels and log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit.testing.rows import pack_starts_reference


def pad_reference(
    rows: Sequence[Mapping[str, Any]],
    *,
    pad_id: int = 0,
    side: str = "left",
    width: int | None = None,
    fills: Mapping[str, Any] | None = None,
) -> dict[str, NDArray[Any]]:
    """The arrays of `rollkit.pad`, cell by cell; `rows` are dicts of lists, one per rollout.

    Example:
        >>> row = {"prompt_token_ids": [5], "response_ids": [6, 7], "rewards": 1.0}
        >>> arrays = pad_reference([row], width=4)
        >>> arrays["input_ids"], arrays["rewards"]
        (array([[0, 5, 6, 7]], dtype=int32), array([[0., 0., 0., 1.]], dtype=float32))
    """
    sizes = [len(row.get("prompt_token_ids", ())) + len(row["response_ids"]) for row in rows]
    wide = max(sizes, default=0) if width is None else width
    starts = [(i, 0 if side == "right" or not n else wide - n) for i, n in enumerate(sizes)]
    arrays = _batch_reference(rows, starts, (len(rows), wide), pad_id, fills or {})
    arrays["attention_mask"] = (arrays["segment_ids"] != 0).astype(np.uint8)
    return arrays


def pack_reference(
    rows: Sequence[Mapping[str, Any]],
    capacity: int,
    *,
    pad_id: int = 0,
    algorithm: str = "first_fit_decreasing",
    align: int = 1,
    fills: Mapping[str, Any] | None = None,
) -> dict[str, NDArray[Any]]:
    """The arrays of `rollkit.pack`, cell by cell; `rows` are dicts of lists, one per rollout.

    Example:
        >>> rows = [{"response_ids": [1, 2]}, {"response_ids": [3, 4, 5]}, {"response_ids": [6]}]
        >>> pack_reference(rows, capacity=4)["input_ids"]
        array([[3, 4, 5, 6],
               [1, 2, 0, 0]], dtype=int32)
    """
    sizes = [len(row.get("prompt_token_ids", ())) + len(row["response_ids"]) for row in rows]
    flat = pack_starts_reference(sizes, capacity, algorithm=algorithm, align=align)
    starts = [divmod(start, capacity) for start in flat]
    lines = 1 + max((line for line, _ in starts), default=-1)
    return _batch_reference(rows, starts, (lines, capacity), pad_id, fills or {})


def _batch_reference(
    rows: Sequence[Mapping[str, Any]],
    starts: Sequence[tuple[int, int]],
    shape: tuple[int, int],
    pad_id: int,
    fills: Mapping[str, Any],
) -> dict[str, NDArray[Any]]:
    """The cells of a batch whose rollout `i` begins at (line, column) `starts[i]`."""
    arrays: dict[str, NDArray[Any]] = {
        "input_ids": np.full(shape, pad_id, np.int32),
        "segment_ids": np.zeros(shape, np.int32),
        "positions": np.zeros(shape, np.int32),
    }
    if not any("loss_masks" in row for row in rows):
        arrays["loss_masks"] = np.zeros(shape, np.uint8)
        rows = [{**row, "loss_masks": _masks_reference(row)} for row in rows]
    # Of rollouts with one start the empty ones come first.
    filled = [bool(row.get("prompt_token_ids", ()) or row["response_ids"]) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: (starts[i], filled[i]))
    for i, (row, (line, column)) in enumerate(zip(rows, starts, strict=True)):
        prompt, response = list(row.get("prompt_token_ids", ())), list(row["response_ids"])
        number = 1 + sum(starts[j][0] == line for j in order[: order.index(i)])
        for position, token in enumerate(prompt + response):
            arrays["input_ids"][line, column + position] = token
            arrays["segment_ids"][line, column + position] = number
            arrays["positions"][line, column + position] = position
        for name, found in row.items():
            if name in ("prompt_token_ids", "response_ids"):
                continue
            if name == "rewards" and not isinstance(found, list):
                cells = {len(prompt) + len(response) - 1: found} if prompt or response else {}
                shown = np.zeros(0, np.float32)
            elif not isinstance(found, list):
                continue
            else:
                first = len(prompt) if _is_of_responses(rows, name) else 0
                cells = {first + j: entry for j, entry in enumerate(found)}
                shown = _narrow_reference(name, [row[name] for row in rows])
            if name not in arrays:
                inner: tuple[int, ...] = shown.shape[1:]
                legal: Any = {"labels": -100, "model_versions": -1}.get(name, 0)
                if name == "rollout_expert_indices" and inner:
                    legal = np.arange(inner[-1])
                arrays[name] = np.full((*shape, *inner), fills.get(name, legal), shown.dtype)
            if name == "rollout_expert_indices":
                masks = arrays.setdefault("route_masks", np.ones(shape, np.uint8))
                masks[line, column : column + len(cells)] = 0
            for position, entry in cells.items():
                arrays[name][line, column + position] = entry
    return arrays


def _masks_reference(row: Mapping[str, Any]) -> list[int]:
    """The loss masks of a row without any: those of its labels, or all of its response."""
    if "labels" in row:
        return [int(label != -100) for label in row["labels"]]
    return [1] * len(row["response_ids"])


def _is_of_responses(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether a column has an element for each token of the response, and none for the prompt's."""
    if name == "rollout_expert_indices" or name.startswith("prompt_"):
        return False
    return all(len(row[name]) == len(row["response_ids"]) for row in rows)


def _narrow_reference(name: str, rows: Sequence[list[Any]]) -> NDArray[Any]:
    """All entries of a column, in the dtype that it has in a batch."""
    known = {
        "loss_masks": np.uint8,
        "rewards": np.float32,
        "rollout_logprobs": np.float32,
        "labels": np.int64,
        "model_versions": np.int32,
    }
    flat = np.array([entry for row in rows for entry in row])
    natural: type[np.generic] = np.float32 if flat.dtype == np.float64 else flat.dtype.type
    return flat.astype(known.get(name, natural if flat.size else np.int64))


def next_token_logprobs_reference(
    logits: NDArray[Any], tokens: NDArray[Any], segment_ids: NDArray[Any]
) -> NDArray[np.float64]:
    """`rollkit.next_token_logprobs` of `[B, T, V]` logits, token by token in float64.

    Example:
        >>> next_token_logprobs_reference(np.zeros((1, 3, 2)), np.array([[1, 0, 1]]), np.array([[1, 1, 2]]))
        array([[ 0.        , -0.69314718,  0.        ]])
    """
    found = np.zeros(tokens.shape)
    for line in range(tokens.shape[0]):
        for t in range(1, tokens.shape[1]):
            if segment_ids[line, t] and segment_ids[line, t] == segment_ids[line, t - 1]:
                scores = logits[line, t - 1].astype(np.float64)
                found[line, t] = scores[tokens[line, t]] - np.logaddexp.reduce(scores)
    return found


def labels_reference(
    tokens: NDArray[Any], segment_ids: NDArray[Any], masks: NDArray[Any], ignore_index: int = -100
) -> NDArray[np.int64]:
    """`rollkit.labels`, token by token.

    Example:
        >>> labels_reference(np.array([[7, 8, 9]]), np.array([[1, 1, 2]]), np.ones((1, 3)))
        array([[-100,    8, -100]])
    """
    found = np.full(tokens.shape, ignore_index, np.int64)
    for line in range(tokens.shape[0]):
        for t in range(1, tokens.shape[1]):
            if masks[line, t] and segment_ids[line, t] and segment_ids[line, t] == segment_ids[line, t - 1]:
                found[line, t] = tokens[line, t]
    return found
