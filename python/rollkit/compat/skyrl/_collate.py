"""Lists of rows to the padded tensors of a training batch."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._extras import extra
from rollkit._frameworks import AnyArray, is_array
from rollkit._rollouts.columns import mask_column
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts, place_parts
from rollkit._rows.place import parts_of
from rollkit._rows.ragged import Ragged
from rollkit.compat._values import on_host
from rollkit.compat.skyrl._logger import warn
from rollkit.compat.skyrl._routes import compact_routed_expert_indices

_INT64 = np.dtype(np.int64)
_FLOAT32 = np.dtype(np.float32)


def convert_prompts_responses_to_batch_tensors(
    pad_token_id: Any,
    prompts: Sequence[Any],
    responses: Sequence[Any],
    rewards: Sequence[Any],
    loss_masks: Sequence[Any],
    logprobs: Sequence[Any] | None = None,
    rollout_expert_indices: list[AnyArray] | None = None,
    max_seq_len: int | None = None,
) -> tuple[Any, ...]:
    """Lay sequences left-padded in one rectangle, and what is per response token right-aligned in another.

    Args:
        pad_token_id: what pads the sequences; a tokenizer, from which it is taken, will do.
        prompts: token ids per row.
        responses: token ids per row.
        rewards: per response token; lists, arrays, or tensors on any device.
        loss_masks: per response token.
        logprobs: per response token, or None.
        rollout_expert_indices: `[tokens, layers, topk]` integer arrays for a prefix of each sequence.
        max_seq_len: a longer sequence is logged; nothing is cut off.

    Returns:
        `sequences`, `attention_mask` int64 `[batch, longest prompt and response]`; `response_mask` int64,
        `rewards`, `loss_masks`, `logprobs` float32 `[batch, longest response]`, the last None if not
        given; routes `[batch, width, layers, topk]` in the narrowest of uint8, int16, int32, with
        experts 0, 1, … where none were captured, or None.

    Raises:
        AssertionError: row counts differ, or there are no rows.
        ValueError: rewards are not per token, a row is longer than the longest response, log-probabilities
            are not one per response token (SkyRL makes those missing 0, or 1 in probability), or routes are
            missing, differ in `[layers, topk]`, or are for more tokens than there are.
        TypeError: routes are no list of NumPy arrays.

    Example:
        >>> sequences, *_ = convert_prompts_responses_to_batch_tensors(
        ...     9, [[1, 2], [3]], [[4], [5]], [[1.0], [0.0]], [[1], [1]]
        ... )
        >>> sequences.tolist()
        [[1, 2, 4], [9, 3, 5]]
    """
    torch = extra("torch", "torch")
    logprobs = None if logprobs is None or not len(logprobs) else logprobs
    _verify(prompts, responses, rewards, loss_masks, logprobs)
    prompt_rows = parts_of(on_host("prompts", prompts), _INT64)
    response_rows = parts_of(on_host("responses", responses), _INT64)
    whole = Layout.pad(prompt_rows.lengths + response_rows.lengths, side="left")
    tail = Layout.pad(response_rows.lengths, side="left")
    if max_seq_len is not None and whole.width > max_seq_len:
        warn(
            "dataset.preprocess",
            f"the longest sequence ({whole.width}) exceeds max_seq_len ({max_seq_len}); nothing is cut off",
        )
    pad = getattr(pad_token_id, "pad_token_id", pad_token_id)
    arrays = (
        _sequences(prompt_rows, response_rows, whole, pad),
        _ones(whole),
        _ones(tail),
        _right_aligned("rewards", _reward_rows(rewards), tail.width),
        _right_aligned("loss_masks", parts_of(mask_column(on_host("loss_masks", loss_masks))), tail.width),
        None if logprobs is None else _logprobs(logprobs, response_rows.lengths, tail.width),
        None if rollout_expert_indices is None else _routes(rollout_expert_indices, whole),
    )
    return tuple(None if array is None else torch.from_numpy(array) for array in arrays)


def compute_prompt_boundaries(uids: Sequence[str]) -> list[tuple[int, int]]:
    """The rows of each prompt, as (begin, end): runs of equal ids.

    Raises:
        AssertionError: an id comes back after another.

    Example:
        >>> compute_prompt_boundaries(["a", "a", "b"])
        [(0, 2), (2, 3)]
    """
    boundaries: list[tuple[int, int]] = []
    seen: set[str] = set()
    begin = 0
    for i in range(1, len(uids)):
        if uids[i] != uids[i - 1]:
            seen.add(uids[i - 1])
            assert uids[i] not in seen, (
                f"uid {uids[i]!r} appears in non-contiguous positions at index {i}. Full uids: {uids}"
            )
            boundaries.append((begin, i))
            begin = i
    return [*boundaries, (begin, len(uids))] if len(uids) else []


def _verify(
    prompts: Sequence[Any],
    responses: Sequence[Any],
    rewards: Any,
    masks: Sequence[Any],
    logprobs: Sequence[Any] | None,
) -> None:
    count = len(prompts)
    same = count == len(responses) and count > 0
    assert same, (
        "prompts and responses must have the same length and length must be greater than 0, "
        f"got {count} and {len(responses)}"
    )
    for name, rows in (("rewards", rewards), ("loss_masks", masks), ("logprobs", logprobs)):
        if rows is not None:
            assert len(rows) == count, (
                f"{name} must have the same length as prompts, got {len(rows)} and {count}"
            )


def _sequences(prompts: Parts, responses: Parts, whole: Layout, pad: Any) -> AnyArray:
    where = Layout.union([whole.spans(0, prompts.lengths), whole.spans(prompts.lengths, responses.lengths)])
    if prompts.dtype != responses.dtype:
        prompts, responses = prompts.astype(_INT64), responses.astype(_INT64)
    try:
        fill = operator.index(pad)
    except TypeError:
        raise TypeError(
            f"pad_token_id must be an int, or a tokenizer that has one, got {pad!r}; for a tokenizer "
            "without, set tokenizer.pad_token"
        ) from None
    found: AnyArray = place_parts(Parts.join([prompts, responses]), where, fill, dtype=_INT64)
    return found


def _ones(layout: Layout) -> AnyArray:
    """1 on tokens: every row is the beginning of one row of ones."""
    ones = np.ones(layout.max_seqlen, _INT64)
    found: AnyArray = place_parts(
        Parts([(ones, np.zeros(len(layout), _INT64))], layout.lengths, _INT64, ()), layout, 0
    )
    return found


def _right_aligned(name: str, rows: Parts, width: int) -> AnyArray:
    if (long := rows.lengths > width).any():
        row = int(long.argmax())
        raise ValueError(
            f"{name}: row {row} has {rows.lengths[row]} elements, the longest response {width} tokens"
        )
    found: AnyArray = place_parts(
        rows, Layout.pad(rows.lengths, side="left", width=width), 0.0, dtype=_FLOAT32
    )
    return found


def _logprobs(logprobs: Sequence[Any], responses: Int64s, width: int) -> AnyArray:
    """One for each token: a missing one would be 0, the log of certainty."""
    rows = parts_of(on_host("logprobs", logprobs), _FLOAT32)
    if (odd := rows.lengths != responses).any():
        row = int(odd.argmax())
        what = f" has {rows.lengths[row]} log-probabilities for {responses[row]} response tokens"
        raise refusal(ValueError, what, column="logprobs", label="logprobs", row=row)
    return _right_aligned("logprobs", rows, width)


def _reward_rows(rewards: Any) -> Parts:
    if not isinstance(rewards, Ragged) and not (isinstance(rewards, np.ndarray) and rewards.ndim > 1):
        rewards = [row.detach().cpu() if is_array(row) and hasattr(row, "detach") else row for row in rewards]
        for row in rewards:
            dims = getattr(row, "ndim", 1 if isinstance(row, list | tuple) else 0)
            if dims != 1:
                shape = tuple(getattr(row, "shape", ()))
                raise ValueError(f"Expected a 1D per-token reward sequence, got shape {shape}")
    rows = parts_of(rewards, _FLOAT32)
    if rows.inner:
        raise ValueError(f"Expected a 1D per-token reward sequence, got elements of shape {rows.inner}")
    return rows


def _routes(routes: Any, whole: Layout) -> AnyArray:
    if not isinstance(routes, list):
        raise TypeError(f"rollout_expert_indices must be a list of NumPy arrays, got {type(routes).__name__}")
    if len(routes) != len(whole):
        raise ValueError(
            f"rollout_expert_indices must contain routes for every trajectory, got {len(routes)} "
            f"for {len(whole)}"
        )
    rows = [_compact(i, row) for i, row in enumerate(routes)]
    if rows[0].shape[0] == 0:
        raise ValueError(
            "rollout_expert_indices must contain routes for every trajectory, the first has none"
        )
    inner = rows[0].shape[1:]
    if inner[1] < 1:
        raise ValueError("rollout_expert_indices must contain at least one expert per layer")
    lengths = _route_lengths(rows, inner, whole.row_lengths)
    widest = max((row.dtype for row in rows), key=lambda dtype: dtype.itemsize)
    parts = parts_of([row.astype(widest, copy=False) for row in rows])
    found: AnyArray = place_parts(parts, whole.spans(0, lengths), np.arange(inner[1]))
    return found


def _compact(index: int, row: Any) -> AnyArray:
    if not isinstance(row, np.ndarray):
        raise TypeError(
            f"rollout_expert_indices entries must be NumPy arrays, got {type(row).__name__} at sample {index}"
        )
    return compact_routed_expert_indices(row)


def _route_lengths(rows: Sequence[AnyArray], inner: tuple[int, ...], tokens: Int64s) -> Int64s:
    for i, row in enumerate(rows):
        if row.shape[1:] != inner:
            raise ValueError(
                "rollout_expert_indices entries must share [layers, topk], "
                f"got shape {row.shape} at sample {i}"
            )
        if not 0 < len(row) <= tokens[i]:
            raise ValueError(f"Trajectory {i} has {len(row)} route rows for {tokens[i]} tokens")
    return np.array([len(row) for row in rows], np.int64)
