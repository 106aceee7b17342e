"""Trees for attention kernels: all that they take of `visible_until`, one number per token.

    token q attends to token k of its line  ⟺  k <= q < visible_until[k]

Segments are the case of trees of one node, so an ordinary `Layout` is taken everywhere, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit import _check, _native
from rollkit._batch import Batch
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray
from rollkit._rows.laid import counted
from rollkit._rows.layout import Layout
from rollkit._rows.trees import NONE, TreeLayout
from rollkit.segments._runs import like_of
from rollkit.segments._tokens import INT32_MAX, rewrapped

Bools = NDArray[np.bool_]

FULL: Final = 0
CAUSAL: Final = 1
"""What MagiAttention calls the kinds of a slice in its `attn_type_map`."""


def layout_of(given: Any) -> Any:
    """The layout of a batch, or what is given."""
    return given.layout if isinstance(given, Batch) else given


def dense(layout: Layout | TreeLayout) -> Bools:
    """`[T, T]` or `[bins, T, T]` bool: which token attends to which."""
    ends = layout.visible_until()
    places = np.arange(layout.width)
    found: Bools = (places <= places[:, None]) & (places[:, None] < ends[..., None, :])
    return found


def grids(ends: AnyArray, q_size: int, kv_size: int) -> tuple[Bools, Bools]:
    """Which blocks are seen in part, and which in full: `[B, 1, q blocks, kv blocks]` each.

    Keys of one kv block that lie in one q block are seen from this on, up to where the last of them ends.
    A kv block is seen in full by q blocks that begin after all its keys, and end before all of them do.

    Args:
        ends: `[B, T]` int32, `visible_until`.
        q_size: queries of a block.
        kv_size: keys of a block.
    """
    lines, width = ends.shape
    shape = lines, 1, -(-width // q_size), -(-width // kv_size)
    if not width or not lines:
        return np.zeros(shape, bool), np.zeros(shape, bool)
    # One that holds more than all holds it likewise, and int32, in which ends are counted, holds its size.
    q_size, kv_size = min(q_size, width + 1), min(kv_size, width + 1)
    edges = np.union1d(np.arange(0, width, q_size), np.arange(0, width, kv_size))
    last = np.maximum.reduceat(ends, edges, axis=1)
    # A key that is padding ends where it is: where all are, nothing of the cell is seen.
    real = np.maximum.reduceat(ends - np.arange(width), edges, axis=1) > 0
    begin = np.broadcast_to(edges // q_size, last.shape)
    seen = _painted(shape, edges // kv_size, begin, np.where(real, -(-last // q_size), begin))

    blocks = np.arange(0, width, kv_size)
    first = np.minimum.reduceat(ends, blocks, axis=1)
    first[:, blocks + kv_size > width] = 0  # torch counts a block that the line does not fill as one in part
    after = np.broadcast_to(-(-(blocks + kv_size - 1) // q_size), first.shape)
    full = _painted(shape, blocks // kv_size, after, np.maximum(first // q_size, after))
    return seen & ~full, full


def _painted(shape: tuple[int, ...], columns: Int64s, begins: AnyArray, ends: AnyArray) -> Bools:
    """Set the q blocks from `begins` to `ends`, of each line, in kv blocks."""
    lines, _, height, width = shape
    edges = np.zeros((lines, height + 1, width), np.int32)
    line = np.arange(lines)[:, None]
    kept = np.broadcast_to(columns, begins.shape)
    np.add.at(edges, (line, np.minimum(begins, height), kept), 1)
    np.add.at(edges, (line, np.minimum(ends, height), kept), -1)
    found: Bools = edges.cumsum(1)[:, None, :-1] > 0
    return found


def predicate(torch: Any, ends: AnyArray, device: Any) -> Callable[..., Any]:
    """The rule as flex_attention's `mask_mod`."""
    until = torch.as_tensor(ends).to(device)

    def mask_mod(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (kv <= q) & (q < until[b, kv])

    return mask_mod


def magi_ranges(layout: Layout | TreeLayout | Batch) -> dict[str, Any]:
    """Make the slices that MagiAttention (`flex_flash_attn_func`) takes, and any kernel of q and k ranges.

    A node attends to itself, causally, and what is below it attends to all of it: two slices for a node that
    has something below it, one for any other.

    Args:
        layout: a `Layout` or `TreeLayout`; bins count through. Or a `Batch`: results are where it is.

    Returns:
        `q_ranges` and `k_ranges`, `[slices, 2]` int32; `attn_type_map`, `[slices]` int32: 0 full, 1 causal.

    Raises:
        OverflowError: the layout has more elements than an int32 counts.

    Example:
        >>> from rollkit import Forest
        >>> found = magi_ranges(Forest.build([[5, 6, 7], [5, 6, 8, 9]]).pack(8))
        >>> found["q_ranges"].tolist(), found["k_ranges"].tolist(), found["attn_type_map"]
        ([[0, 2], [2, 5], [2, 3], [3, 5]], [[0, 2], [0, 2], [2, 3], [3, 5]], array([1, 0, 1, 1], dtype=int32))
    """
    like, layout = like_of(layout), layout_of(layout)
    starts, ends, visible = _spans(layout)
    if layout.size > INT32_MAX:
        raise OverflowError(f"the layout has {layout.size} elements, beyond int32")
    own = np.stack([starts, ends], 1)
    below = np.flatnonzero(visible > ends)
    queries = np.concatenate([own, np.stack([ends, visible], 1)[below]])
    keys = np.concatenate([own, own[below]])
    kinds = np.repeat([CAUSAL, FULL], [len(own), len(below)])
    # In the order of the keys, a node's own slice first.
    order = np.argsort(np.append(np.arange(len(own)), below), kind="stable")
    found = {"q_ranges": queries[order], "k_ranges": keys[order], "attn_type_map": kinds[order]}
    return {name: rewrapped(array.astype(np.int32), like) for name, array in found.items()}


def flashmask_indices(layout: Layout | TreeLayout | Batch) -> Any:
    """Make FlashMask's `startend_row_indices` for `causal=True`: the row from which on a key is masked.

    Args:
        layout: a `Layout` or `TreeLayout` of one or two dimensions. Or a `Batch`: the result is
            where it is.

    Returns:
        `[bins, 1, T, 1]` int32: `visible_until`, for all heads.

    Example:
        >>> flashmask_indices(Layout.pack([3, 2], capacity=6)).reshape(-1)
        array([3, 3, 3, 5, 5, 5], dtype=int32)
    """
    like, layout = like_of(layout), layout_of(layout)
    _check_lines(layout)
    return rewrapped(layout.visible_until().reshape(-1, 1, layout.width, 1), like)


def tree_varlen(layout: Layout | TreeLayout | Batch, *, most: float | None = 4.0) -> dict[str, Any]:
    """Make one varlen call of a forest: each node a sequence, whose keys are gathered along its path.

    `q[q_index]` are then the queries and `k[kv_index]` the keys of flash-attn's `flash_attn_varlen_func` with
    `causal=True`, which aligns the ends of both. Keys that nodes share are gathered again for each: two
    levels take little more, deep trees many times as much.

    Args:
        layout: a `Layout` or `TreeLayout`; bins count through. Or a `Batch`: results are where it is.
        most: keys per token that are placed, beyond which this is refused; None for any number.

    Returns:
        `q_index` and `kv_index`, int64; `cu_seqlens_q` and `cu_seqlens_k`, `[nodes + 1]` int32;
        `max_seqlen_q` and `max_seqlen_k`, Python ints.

    Raises:
        ValueError: there are more than `most` keys per token.
        OverflowError: there are more keys than an int32 counts.

    Example:
        >>> from rollkit import Forest
        >>> found = tree_varlen(Forest.build([[5, 6, 7], [5, 6, 8, 9]]).pack(8))
        >>> found["kv_index"], found["cu_seqlens_q"].tolist(), found["cu_seqlens_k"].tolist()
        (array([0, 1, 0, 1, 2, 0, 1, 3, 4]), [0, 2, 3, 5], [0, 2, 5, 9])
    """
    like, layout = like_of(layout), layout_of(layout)
    starts, ends, _ = _spans(layout)
    parents = layout.parents if isinstance(layout, TreeLayout) else np.full(len(starts), NONE)
    nodes = np.arange(len(starts))
    offsets, begins, lengths = _native.forest_paths(parents, starts, ends - starts, nodes)
    bounds = _native.offsets_from_lengths(lengths)
    keys, placed = int(bounds[-1]), layout.num_placed
    if most is not None and keys > _check.number("most", most) * placed:
        raise ValueError(
            f"gathering along paths takes {keys} keys for {placed} tokens, {keys / placed:.1f} for each, "
            f"more than most={most}; use block_mask, magi_ranges or flashmask_indices, or pass a larger most"
        )
    if keys > INT32_MAX:
        raise OverflowError(f"gathering along paths takes {keys} keys, beyond int32")
    cu_q, cu_k = _native.offsets_from_lengths(ends - starts), bounds[offsets]
    arrays: dict[str, AnyArray] = {
        "q_index": counted(starts, ends - starts),
        "kv_index": counted(begins, lengths),
        "cu_seqlens_q": cu_q.astype(np.int32),
        "cu_seqlens_k": cu_k.astype(np.int32),
    }
    longest = {
        "max_seqlen_q": int((ends - starts).max(initial=0)),
        "max_seqlen_k": int(np.diff(cu_k).max(initial=0)),
    }
    return {name: rewrapped(array, like) for name, array in arrays.items()} | longest


def _spans(layout: Any) -> tuple[Int64s, Int64s, Int64s]:
    """Of nodes that are not empty, by start: flat starts and ends, and the end of what is below each."""
    _check_lines(layout)
    if isinstance(layout, TreeLayout):
        starts = layout.nodes.starts
        return starts, starts + layout.nodes.lengths, layout._read[0]
    rows = np.flatnonzero(layout.lengths > 0) if layout.order is None else layout.order
    rows = rows[layout.lengths[rows] > 0]
    starts = layout.starts[rows]
    return starts, (ends := starts + layout.lengths[rows]), ends


def _check_lines(layout: Any) -> None:
    if not isinstance(layout, Layout | TreeLayout):
        raise TypeError(f"layout must be a Layout, a TreeLayout or a Batch, got {type(layout).__name__}")
    if len(layout.shape) > 2:
        raise ValueError(f"the layout must be [tokens] or [bins, tokens], got shape {layout.shape}")
