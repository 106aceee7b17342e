"""Routed experts (MoE router replay): dtypes, fill rows and the mask of what was not captured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from rollkit._extras import extra
from rollkit._frameworks import AnyArray

_NARROWEST = ((1 << 8, np.dtype(np.uint8)), (1 << 15, np.dtype(np.int16)), (1 << 31, np.dtype(np.int32)))


def compact_routed_expert_indices(routed_experts: AnyArray) -> AnyArray:
    """Cast expert ids to the narrowest of uint8, int16 and int32; the same array where it is that.

    Args:
        routed_experts: `[tokens, layers, topk]`, any integer dtype.

    Returns:
        The ids, C-contiguous and writeable.

    Raises:
        TypeError: not a NumPy array.
        ValueError: not of three dimensions or no integers; an id is negative or beyond int32.

    Example:
        >>> compact_routed_expert_indices(np.array([[[3, 300]]])).dtype
        dtype('int16')
    """
    if not isinstance(routed_experts, np.ndarray):
        raise TypeError(f"routed expert indices must be a NumPy array, got {type(routed_experts).__name__}")
    if routed_experts.ndim != 3 or routed_experts.dtype.kind not in "iu":
        raise ValueError(
            "routed expert indices must be an integer [tokens, layers, topk] array, "
            f"got shape {routed_experts.shape} and dtype {routed_experts.dtype}"
        )
    compact = np.asarray(routed_experts, _narrowest(routed_experts), order="C")
    return compact if compact.flags.writeable else compact.copy()


def _narrowest(ids: AnyArray) -> np.dtype[Any]:
    if ids.dtype.kind == "i" and int(ids.min(initial=0)) < 0:
        raise ValueError("routed expert indices must be non-negative")
    largest = 0 if ids.dtype == np.uint8 else int(ids.max(initial=0))
    for limit, dtype in _NARROWEST:
        if largest < limit:
            return dtype
    raise ValueError(f"routed expert index exceeds signed int32: {largest}")


def make_replay_padding_indices_np(shape: tuple[int, ...], *, dtype: DTypeLike) -> AnyArray:
    """Routes for padding: experts 0, 1, …, topk − 1 in every row, as no expert may come twice in one.

    Raises:
        ValueError: the last dimension, topk, is missing or 0.

    Example:
        >>> make_replay_padding_indices_np((2, 1, 3), dtype=np.uint8).tolist()
        [[[0, 1, 2]], [[0, 1, 2]]]
    """
    if not shape or shape[-1] < 1:
        raise ValueError(f"Replay route padding requires a positive topk dimension, got shape {shape}")
    padding = np.empty(shape, dtype)
    padding[...] = np.arange(shape[-1], dtype=padding.dtype)
    return padding


def make_router_padding_mask(attention_mask: Any, captured_route_lengths: Sequence[int]) -> Any:
    """Mark what has no captured route: left padding, and tokens after the captured prefix.

    Args:
        attention_mask: `[batch, width]` tensor, 1 on tokens, left-padded.
        captured_route_lengths: the route rows of each sequence.

    Returns:
        `[batch, width]` bool tensor on the same device, True where a dummy route is.

    Raises:
        ValueError: the mask is not 2-D, or a length is negative, beyond its sequence, or missing.

    Example:
        >>> import torch
        >>> make_router_padding_mask(torch.tensor([[0, 1, 1], [1, 1, 1]]), [1, 3]).int().tolist()
        [[1, 0, 1], [0, 0, 0]]
    """
    torch = extra("torch", "torch")
    mask = torch.as_tensor(attention_mask)
    if mask.ndim != 2:
        raise ValueError(f"Expected 2D attention_mask, got shape {tuple(mask.shape)}")
    batch, width = mask.shape
    if len(captured_route_lengths) != batch:
        raise ValueError(
            f"Expected one captured route length per trajectory, got {len(captured_route_lengths)} "
            f"for {batch}"
        )
    captured = torch.as_tensor(captured_route_lengths, dtype=torch.long, device=mask.device)
    lengths = mask.sum(dim=1, dtype=torch.long)
    if bool(((captured < 0) | (captured > lengths)).any()):
        raise ValueError(
            "Captured route lengths must be within trajectory lengths, got "
            f"captured={captured.tolist()} and lengths={lengths.tolist()}"
        )
    begins = (width - lengths)[:, None]
    positions = torch.arange(width, device=mask.device)
    return (positions < begins) | (positions >= begins + captured[:, None])
