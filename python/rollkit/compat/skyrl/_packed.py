"""A `Ragged` as SkyRL's `PackedTensor` and `PackedRaggedTensor`, and back, over the same memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit._check import Int64s
from rollkit._rows.ragged import Ragged
from rollkit.compat._jagged import tensor_of, values_of
from rollkit.compat._values import need_tensors, need_values


def to_packed(rows: Ragged, kind: Callable[..., Any]) -> Any:
    """View rows as SkyRL holds routes and sample supports in a training batch.

    Args:
        rows: at least one; of elements, or of lists.
        kind: SkyRL's class: `PackedTensor` (`skyrl.backends.skyrl_train.utils.packed_tensor`), or
            `PackedRaggedTensor` for rows of lists, such as the token ids that survived sampling.

    Returns:
        `kind(values, cu_seqlens)`, or `kind(values, row_offsets, cu_seqlens)` of lists. `values` are over the
        same memory, a gradient goes through; the offsets are int32, from 0 on, and new.

    Raises:
        ValueError: there are no rows, which SkyRL refuses.
        TypeError: `kind` is for the other kind of rows, or the values are of another framework.
        OverflowError: there are more elements than int32 counts.

    Source: NovaSky-AI/SkyRL, pull request 2235 (September 2026).

    Example:
        >>> from types import SimpleNamespace
        >>> def PackedTensor(values, cu_seqlens):
        ...     return SimpleNamespace(values=values, cu_seqlens=cu_seqlens)
        >>> to_packed(Ragged.from_rows([[[0, 1]], [[2, 3], [4, 5]]]), PackedTensor).cu_seqlens
        tensor([0, 1, 3], dtype=torch.int32)
    """
    if not isinstance(rows, Ragged):
        raise TypeError(f"rows must be a Ragged, got {type(rows).__name__}; Ragged.from_rows makes one")
    if not callable(kind):
        raise TypeError(f"kind must be SkyRL's PackedTensor, got {type(kind).__name__}")
    takes_lists = "row_offsets" in _parameters(kind)
    if takes_lists != rows.of_lists:
        each, other = ("a list", "PackedRaggedTensor") if rows.of_lists else ("a value", "PackedTensor")
        raise TypeError(f"rows has {each} for each element; give SkyRL's {other} as kind")
    if not len(rows):
        raise ValueError("rows has none, and SkyRL packs at least one; leave the field out")
    lists: Any = rows.flat if rows.of_lists else rows
    offsets = [_int32(lists.offsets)] + ([_int32(rows.offsets)] if rows.of_lists else [])
    values = values_of(lists)
    return kind(values, *(tensor_of(bounds).to(values.device) for bounds in offsets))


def from_packed(packed: Any) -> Ragged:
    """View a `PackedTensor` or `PackedRaggedTensor` of SkyRL as rows.

    Args:
        packed: with `values` and `cu_seqlens`, and `row_offsets` if its rows are of lists. Offsets on the
            host, `cu_seqlens_cpu`, are read instead where there are some: that waits for no device.

    Raises:
        TypeError: it has not these attributes.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> from_packed(SimpleNamespace(values=torch.tensor([5, 6, 7]), cu_seqlens=torch.tensor([0, 1, 3])))
        Ragged(2 rows, 3 values, int64, mean length 1.5)
    """
    missing = [name for name in ("values", "cu_seqlens") if not hasattr(packed, name)]
    if missing:
        raise TypeError(f"packed must be SkyRL's PackedTensor; {type(packed).__name__} has no {missing[0]!r}")
    need_tensors(values=packed.values)
    on_host = getattr(packed, "cu_seqlens_cpu", None)
    offsets = _host("cu_seqlens", packed.cu_seqlens if on_host is None else on_host)
    lists = getattr(packed, "row_offsets", None)
    if lists is None:
        return Ragged(packed.values, offsets)
    of_lists: Any = Ragged(packed.values, _host("row_offsets", lists))
    return Ragged(of_lists, offsets)


def _parameters(kind: Callable[..., Any]) -> Any:
    try:
        return inspect.signature(kind).parameters
    except (TypeError, ValueError):
        return ()


def _int32(offsets: Int64s) -> NDArray[np.int32]:
    """Offsets from 0 on."""
    count = int(offsets[-1] - offsets[0])
    if count > np.iinfo(np.int32).max:
        raise OverflowError(f"rows has {count} elements, beyond int32, which cu_seqlens is of; split them")
    found: NDArray[np.int32] = (offsets - offsets[0]).astype(np.int32)
    return found


def _host(name: str, offsets: Any) -> Int64s:
    need_values(name, offsets)
    found: Int64s = offsets.detach().cpu().numpy().astype(np.int64)
    return found
