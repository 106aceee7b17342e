"""Masks: block-sparse ones from runs, in linear time, and the plain one for small T."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit import _check
from rollkit._backends import common_framework, framework_of
from rollkit._check import AnyArray, Int64s
from rollkit._extras import extra
from rollkit.segments import _device
from rollkit.segments._runs import Runs, as_runs
from rollkit.segments._thd import MASKS, checked_window
from rollkit.segments._tokens import int32s, same_shape, tokens

Bools = NDArray[np.bool_]

MOST_PAIRS = 1 << 26


def attention_mask(
    ids_q: Any,
    ids_kv: Any = None,
    *,
    positions_q: Any = None,
    positions_kv: Any = None,
    mask: str = "causal",
    window: tuple[int, int] | None = None,
) -> Any:
    """Write out which q token attends to which kv token: O(T²), for small T and for reading.

    Args:
        ids_q: `[T]` or `[B, T]` integers, NumPy, torch or JAX, traced too; 0 is padding, and attends to
            nothing.
        ids_kv: `[T_kv]` or `[B, T_kv]`; `ids_q` by default.
        positions_q: shaped as `ids_q`; for self-attention the place in the row by default.
        positions_kv: shaped as `ids_kv`; likewise.
        mask: as in `thd`.
        window: (left, right): only keys at most that far before and after; -1 is no bound.

    Returns:
        `[T, T_kv]` or `[B, T, T_kv]` bool, true where attention goes. (torch's
        `scaled_dot_product_attention` takes it as it is, with an axis for heads.)

    Raises:
        ValueError: positions are missing for two arrays; shapes disagree.

    Example:
        >>> attention_mask([1, 1, 2, 0]).astype(int)
        array([[1, 0, 0, 0],
               [1, 1, 0, 0],
               [0, 0, 1, 0],
               [0, 0, 0, 0]])
    """
    _check.choice("mask", mask, MASKS)
    window = checked_window(window)
    itself = ids_kv is None
    given = [p is not None for p in (positions_q, positions_kv)]
    by_place = itself and not any(given) and mask != "causal_bottom_right"
    if (mask != "padding" or window) and not all(given) and not by_place:
        raise ValueError(
            f"mask={mask!r} compares positions; pass positions_q and positions_kv "
            "(rollkit.segments.positions makes them where every segment is whole)"
        )
    found = tokens(
        ids_q=ids_q,
        ids_kv=ids_q if itself else ids_kv,
        positions_q=positions_q,
        positions_kv=positions_kv,
    )
    same_shape("positions_q", found.arrays[2], "ids_q", found.arrays[0])
    same_shape("positions_kv", found.arrays[3], "ids_kv", found.arrays[1])
    arrays = [a if a is None or not found.host else found.wrap(a) for a in found.arrays]
    return found.unbatch(found.ops.run(_device.attention_mask, *arrays, mask=mask, window=window))


def splash_segment_ids(ids_q: Any, ids_kv: Any = None) -> Any:
    """Wrap segment ids for JAX's splash attention: its `SegmentIds(q, kv)`, int32.

    The kernel has no id for padding: tokens with id 0 attend to each other, which harms nothing and keeps
    their softmax defined. It prefetches ids to scalar memory, which limits T (524 288 tokens, as MaxText
    found). Give ids of one sequence; `jax.vmap` the kernel over a batch.

    Args:
        ids_q: `[T]` or `[B, T]` integers, NumPy or JAX, traced too.
        ids_kv: `[T_kv]` or `[B, T_kv]`; `ids_q` by default.

    Raises:
        ModuleNotFoundError: there is no JAX.
        OverflowError: an id of the host is beyond int32.

    Example:
        >>> splash_segment_ids([1, 1, 2]).kv
        Array([1, 1, 2], dtype=int32)
    """
    kernel = extra("jax.experimental.pallas.ops.tpu.splash_attention", "jax")
    jnp = extra("jax.numpy", "jax")
    found = tokens(ids_q=ids_q, ids_kv=ids_kv)
    if found.like is not None and framework_of(found.like) == "torch":
        raise TypeError("ids_q is of torch; splash attention is JAX's: jnp.asarray(ids_q.numpy())")
    q, kv = int32s(found, ids_q=found.arrays[0], ids_kv=found.arrays[1])
    return kernel.SegmentIds(jnp.asarray(q), jnp.asarray(q if kv is None else kv))


def block_mask(
    ids: Any,
    *,
    mask: str = "causal",
    window: tuple[int, int] | None = None,
    block_size: int | tuple[int, int] = 128,
    device: Any = None,
) -> Any:
    """Build flex_attention's `BlockMask` from runs, without evaluating the mask token by token.

    Equal, block for block, to torch's `create_block_mask` of the same mask, which compares every pair of
    tokens. Here each run paints the span of kv blocks that each of its q blocks meets: O(T) to find the
    runs, and the size of the answer, (T / block)², to write it down.

    Args:
        ids: `[T]` or `[B, T]` integers, torch or NumPy, or `Runs`; 0 is padding, and attends to nothing.
        mask: `"causal"`, by place in the row, or `"padding"`, every token of the segment.
        window: (left, right): only keys at most that far before and after; -1 is no bound.
        block_size: of q and kv, or (q, kv).
        device: of the result; that of `ids` by default, the CPU for NumPy.

    Returns:
        `torch.nn.attention.flex_attention.BlockMask`, for one head that stands for all.

    Raises:
        ValueError: an option is out of range; or ids are entered again so often that there are more
            pairs of runs than blocks could need.
        TypeError: ids of JAX, or traced by torch.compile.

    Example:
        >>> found = block_mask([1] * 256 + [2] * 256)
        >>> found.kv_num_blocks.tolist(), found.full_kv_num_blocks.tolist()
        ([[[1, 1, 1, 1]]], [[[0, 1, 0, 1]]])

    References:
        PyTorch, `torch.nn.attention.flex_attention` (`create_block_mask`).
    """
    torch = extra("torch", "torch")
    _check.choice("mask", mask, ("causal", "padding"))
    sides = block_size if isinstance(block_size, tuple) else (block_size, block_size)
    q_size, kv_size = (_check.positive("block_size", side) for side in sides)
    if not isinstance(ids, Runs) and common_framework(ids=ids) == "jax":
        raise TypeError("ids is of jax; flex_attention is torch's: torch.from_numpy(np.asarray(ids))")
    runs = as_runs(ids)
    if device is None and runs.like is not None:
        device = runs.like.device
    left, right = _reach(mask, checked_window(window), runs.shape[-1])
    grids = _grids(runs, q_size, kv_size, left, right)
    blocks = [torch.from_numpy(array).to(device) for grid in grids for array in _ordered(grid)]
    flex = extra("torch.nn.attention.flex_attention", "torch")
    return flex.BlockMask.from_kv_blocks(
        *blocks,
        BLOCK_SIZE=(q_size, kv_size),
        mask_mod=_predicate(torch, runs, device, left, right),
        seq_lengths=(runs.shape[-1], runs.shape[-1]),
    )


def _reach(mask: str, window: tuple[int, int] | None, width: int) -> tuple[int, int]:
    """How far before and after itself a token sees; the width of a row where there is no bound."""
    left, right = (width if side < 0 else min(side, width) for side in window or (-1, -1))
    return left, 0 if mask == "causal" else right


def _predicate(torch: Any, runs: Runs, device: Any, left: int, right: int) -> Callable[..., Any]:
    ids = torch.as_tensor(np.atleast_2d(runs._filled(runs.ids, wrap=False))).to(device)
    width = runs.shape[-1]

    def mask_mod(b: Any, h: Any, q: Any, kv: Any) -> Any:
        mine = ids[b, q]
        seen = (mine == ids[b, kv]) & (mine != 0)
        if right < width:
            seen = seen & (kv - q <= right)
        if left < width:
            seen = seen & (q - kv <= left)
        return seen

    return mask_mod


def _grids(runs: Runs, q_size: int, kv_size: int, left: int, right: int) -> tuple[Bools, Bools]:
    """Which blocks are seen in part, and which in full: `[B, 1, q blocks, kv blocks]` each."""
    rows, width = (1, *runs.shape)[-2:]
    shape = (rows, 1, -(-width // q_size), -(-width // kv_size))
    partial, full = np.zeros(shape, bool), np.zeros(shape, bool)
    bounds = np.searchsorted(runs.starts, np.arange(rows + 1) * width)
    for row in range(rows):
        mine = slice(bounds[row], bounds[row + 1])
        starts = runs.starts[mine] - row * width
        spans = _Spans(runs.ids[mine], starts, starts + runs.lengths[mine], q_size, kv_size, left, right)
        full[row, 0] = spans.paint(shape[2:], *spans.full())
        partial[row, 0] = spans.paint(shape[2:], *spans.seen()) & ~full[row, 0]
    return partial, full


class _Spans:
    """Pairs of (a run's part in a q block, a run of the same id), and the kv blocks that each pair meets."""

    def __init__(
        self, ids: Int64s, starts: Int64s, ends: Int64s, q_size: int, kv_size: int, left: int, right: int
    ) -> None:
        self.q_size, self.kv_size, self.left, self.right = q_size, kv_size, left, right
        counts = (ends - 1) // q_size - starts // q_size + 1 if len(ids) else ends
        run = np.repeat(np.arange(len(ids)), counts)
        block = np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts) + starts[run] // q_size
        order = np.argsort(ids, kind="stable")
        first = np.searchsorted(ids[order], ids[run], "left")
        others = np.searchsorted(ids[order], ids[run], "right") - first
        if (pairs := int(others.sum())) > MOST_PAIRS:
            raise ValueError(
                f"ids are entered again too often: {pairs} pairs of runs share one; renumber them"
            )
        piece = np.repeat(np.arange(len(run)), others)
        kv = order[first[piece] + np.arange(len(piece)) - np.repeat(np.cumsum(others) - others, others)]
        run, self.block = run[piece], block[piece]
        self.low = np.maximum(starts[run], self.block * q_size)
        self.high = np.minimum(ends[run], (self.block + 1) * q_size) - 1
        self.start, self.end = starts[kv], ends[kv]

    def seen(self) -> tuple[Int64s, Int64s]:
        """First and last kv blocks with a key that some query of the part sees."""
        low = np.maximum(self.start, self.low - self.left)
        high = np.minimum(self.end - 1, self.high + self.right)
        return low // self.kv_size, np.where(low <= high, high // self.kv_size, -1)

    def full(self) -> tuple[Int64s, Int64s]:
        """First and last kv blocks all of whose keys every query of the part's block sees."""
        low = np.maximum(self.start, self.high - self.left)
        high = np.minimum(self.end, self.low + self.right + 1)
        whole = self.high - self.low + 1 == self.q_size
        return -(-low // self.kv_size), np.where(whole, high // self.kv_size - 1, -1)

    def paint(self, shape: tuple[int, ...], first: Int64s, last: Int64s) -> Bools:
        kept = first <= last
        edges = np.zeros((shape[0], shape[1] + 1), np.int32)
        np.add.at(edges, (self.block[kept], first[kept]), 1)
        np.add.at(edges, (self.block[kept], last[kept] + 1), -1)
        found: Bools = edges.cumsum(1)[:, :-1] > 0
        return found


def _ordered(grid: Bools) -> tuple[AnyArray, AnyArray]:
    """How many blocks there are in each row, and their numbers before those of the others."""
    counts = grid.sum(-1, dtype=np.int32)
    order = np.argsort(~grid, axis=-1, kind="stable").astype(np.int32)
    return counts, order
