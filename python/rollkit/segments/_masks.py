"""Masks: block-sparse ones from runs, in linear time, and the plain one for small T."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollkit import _check
from rollkit._check import Int64s
from rollkit._extras import extra
from rollkit._frameworks import AnyArray
from rollkit._rows.layout import Layout
from rollkit._rows.trees import TreeLayout
from rollkit.segments import _device, _trees
from rollkit.segments._runs import Runs, ids_of, like_of, positions_of, runs
from rollkit.segments._thd import MASKS, checked_window
from rollkit.segments._tokens import check_framework, check_segments, int32s, rewrapped, same_shape, tokens

Bools = NDArray[np.bool_]

Pairs = tuple[Int64s, Int64s, Int64s]

MOST_PAIRS = 1 << 20  # that are in memory at a time


def dense_mask(
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
            nothing. Or `Runs`, a `Layout` or a `Batch`, which bring positions, too. Or a `TreeLayout`, alone.
        ids_kv: `[T_kv]` or `[B, T_kv]`, or likewise; `ids_q` by default.
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
        >>> dense_mask([1, 1, 2, 0]).astype(int)
        array([[1, 0, 0, 0],
               [1, 1, 0, 0],
               [0, 0, 1, 0],
               [0, 0, 0, 0]])
    """
    _check.choice("mask", mask, MASKS)
    window = checked_window(window)
    if isinstance(trees := _trees.layout_of(ids_q), TreeLayout):
        _check_tree(mask, window)
        if ids_kv is not None or positions_q is not None or positions_kv is not None:
            raise TypeError("a TreeLayout attends to itself by its own positions; give nothing beside it")
        return rewrapped(_trees.dense(trees), like_of(ids_q))
    check_segments("ids_kv", ids_kv)
    itself = ids_kv is None
    ids_kv = ids_q if itself else ids_kv
    by_place = itself and positions_q is None and positions_kv is None and mask != "causal_bottom_right"
    compares = (mask != "padding" or window is not None) and not by_place
    if compares:
        positions_q, positions_kv = positions_of(ids_q, positions_q), positions_of(ids_kv, positions_kv)
    if compares and (positions_q is None or positions_kv is None):
        what = f"mask={mask!r}" if mask != "padding" else "window"
        raise ValueError(
            f"{what} compares positions; pass positions_q and positions_kv "
            "(rollkit.segments.positions makes them where every segment is whole)"
        )
    found = tokens(
        ids_q=ids_of(ids_q),
        ids_kv=ids_of(ids_kv),
        positions_q=positions_q,
        positions_kv=positions_kv,
    )
    same_shape("positions_q", found.arrays[2], "ids_q", found.arrays[0])
    same_shape("positions_kv", found.arrays[3], "ids_kv", found.arrays[1])
    arrays = [a if a is None or not found.host else found.wrap(a) for a in found.arrays]
    return found.unbatch(found.ops.run(_device.dense_mask, *arrays, mask=mask, window=window))


def splash_segment_ids(ids_q: Any, ids_kv: Any = None) -> Any:
    """Wrap segment ids for JAX's splash attention: its `SegmentIds(q, kv)`, int32.

    The kernel has no id for padding: tokens with id 0 attend to each other, which harms nothing and keeps
    their softmax defined. It prefetches ids to scalar memory, which limits T (524 288 tokens, as MaxText
    found). Give ids of one sequence; `jax.vmap` the kernel over a batch.

    Args:
        ids_q: `[T]` or `[B, T]` integers, NumPy or JAX, traced too; `Runs`, a `Layout` or a `Batch`.
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
    check_framework("jax", "splash attention", ids_q=like_of(ids_q), ids_kv=like_of(ids_kv))
    found = tokens(ids_q=ids_of(ids_q), ids_kv=ids_of(ids_kv))
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
    tokens. Here what an id spans of a q block paints the kv blocks that it meets: O(T) to find the runs,
    and the size of the answer, (T / block)², to write it down, or as much per id of a block where ids
    come again all along a row. Of a layout, packed or of trees, the causal mask is read off
    `visible_until`, in closed form.

    Args:
        ids: `[T]` or `[B, T]` integers, torch or NumPy, `Runs`, a `Layout` or a `Batch`; 0 is padding, and
            attends to nothing. Or a `TreeLayout`, whose mask is causal and has no window.
        mask: `"causal"`, by place in the row, or `"padding"`, every token of the segment.
        window: (left, right): only keys at most that far before and after; -1 is no bound.
        block_size: of q and kv, or (q, kv).
        device: of the result; that of `ids` by default, the CPU for NumPy.

    Returns:
        `torch.nn.attention.flex_attention.BlockMask`, for one head that stands for all.

    Raises:
        ValueError: an option is out of range.
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
    sides = block_size if isinstance(block_size, tuple | list) else (block_size, block_size)
    if len(sides) != 2:
        raise ValueError(f"block_size must be an int or (q, kv), got {block_size!r}")
    q_size, kv_size = (_check.positive("block_size", side) for side in sides)
    check_framework("torch", "flex_attention", ids=like_of(ids))
    window = checked_window(window)
    layout = _trees.layout_of(ids)
    if isinstance(layout, TreeLayout):
        _check_tree(mask, window)
    if device is None and (like := like_of(ids)) is not None:
        device = getattr(like, "device", None)
    if isinstance(layout, TreeLayout) or _is_plain(layout, mask, window):
        ends = np.atleast_2d(layout.visible_until())
        grids, width = _trees.grids(ends, q_size, kv_size), layout.width
        device = _device_of(torch, device)
        mask_mod = _trees.predicate(torch, ends, device)
    else:
        found = runs(ids)
        width = found.shape[-1]
        left, right = _reach(mask, window, width)
        grids = _grids(found, q_size, kv_size, left, right)
        device = _device_of(torch, device)
        mask_mod = _predicate(torch, found, device, left, right)
    blocks = [torch.from_numpy(array).to(device) for grid in grids for array in _ordered(grid)]
    flex = extra("torch.nn.attention.flex_attention", "torch")
    return flex.BlockMask.from_kv_blocks(
        *blocks,
        BLOCK_SIZE=(q_size, kv_size),
        mask_mod=mask_mod,
        seq_lengths=(width, width),
    )


def _is_plain(layout: Any, mask: str, window: tuple[int, int] | None) -> bool:
    """Whether each token is seen from itself on to an end."""
    return isinstance(layout, Layout) and len(layout.shape) <= 2 and mask == "causal" and window is None


def _check_tree(mask: str, window: tuple[int, int] | None) -> None:
    """Refuse what a tree's order does not give."""
    if mask != "causal":
        raise ValueError(f"mask is {mask!r}; the mask of a TreeLayout is causal")
    if window is not None:
        raise ValueError("window counts places in the row, and a TreeLayout's are not those of a row")


def _reach(mask: str, window: tuple[int, int] | None, width: int) -> tuple[int, int]:
    """How far before and after itself a token sees; the width of a row where there is no bound."""
    left, right = (width if side < 0 else min(side, width) for side in window or (-1, -1))
    return left, 0 if mask == "causal" else right


def _predicate(torch: Any, runs: Runs, device: Any, left: int, right: int) -> Callable[..., Any]:
    numbers = np.unique(runs.ids, return_inverse=True)[1] + 1  # ids may be beyond int32
    ids = torch.as_tensor(np.atleast_2d(runs._on_host()._filled(numbers))).to(device)
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
    numbers = np.unique(runs.ids, return_inverse=True)[1]
    for row in range(rows):
        mine = slice(bounds[row], bounds[row + 1])
        starts = runs.starts[mine] - row * width
        spans = _Spans(numbers[mine], starts, starts + runs.lengths[mine] - 1)
        reach = _Reach(width, q_size, kv_size, left, right)
        full[row, 0] = _painted(shape[2:], reach.full(spans))
        partial[row, 0] = _painted(shape[2:], reach.seen(spans)) & ~full[row, 0]
    return partial, full


class _Spans(NamedTuple):
    """Stretches of a row that have one id: from the first to the last token, both included."""

    ids: Int64s
    low: Int64s
    high: Int64s

    def kept(self, which: Any) -> _Spans:
        return _Spans(self.ids[which], self.low[which], self.high[which])

    def ordered(self) -> _Spans:
        """By id, then by place."""
        return self.kept(np.argsort(self.ids, kind="stable"))

    def parts(self, size: int) -> _Spans:
        """Cut at the edges of blocks."""
        first = self.low // size
        counts = self.high // size - first + 1
        span, block = _expanded(first, counts)
        low = np.maximum(self.low[span], block * size)
        return _Spans(self.ids[span], low, np.minimum(self.high[span], (block + 1) * size - 1))

    def extents(self, size: int) -> _Spans:
        """One span for each id and block, from its first token there to its last, holes included."""
        parts = self.parts(size).ordered()
        return parts.joined((parts.low[1:] // size) == (parts.low[:-1] // size))

    def joined(self, goes_on: Bools) -> _Spans:
        """Each with the one before that it goes on, if that is of its id."""
        begins = np.ones(len(self.ids), bool)
        begins[1:] = (self.ids[1:] != self.ids[:-1]) | ~goes_on
        at = np.flatnonzero(begins)
        ends = np.append(at, len(begins))[1:] - 1
        return _Spans(self.ids[at], self.low[at], self.high[ends])


class _Reach(NamedTuple):
    """How far tokens of a row see, in blocks; both ways give (q block, first and last kv block) of pairs."""

    width: int
    q_size: int
    kv_size: int
    left: int
    right: int

    def seen(self, spans: _Spans) -> Iterator[Pairs]:
        """Kv blocks with a key that some query of the q block sees.

        What an id spans of two blocks decides: if the spans overlap then they share a token, which sees
        itself; if not, their nearest tokens are what is nearest.
        """
        q, kv = spans.extents(self.q_size), spans.extents(self.kv_size)
        kv = kv.joined(kv.low[1:] == kv.high[:-1] + 1)
        for block, low, high in self._pairs(q, kv, q.low - self.left, q.high + self.right):
            yield block, low // self.kv_size, high // self.kv_size

    def full(self, spans: _Spans) -> Iterator[Pairs]:
        """Kv blocks all of whose keys every query of the q block sees."""
        q = spans.parts(self.q_size)
        q = q.kept(q.high - q.low + 1 == self.q_size)
        kv = spans.kept(-(-spans.low // self.kv_size) < (spans.high + 1) // self.kv_size).ordered()
        for block, low, high in self._pairs(q, kv, q.high - self.left, q.low + self.right):
            yield block, -(-low // self.kv_size), (high + 1) // self.kv_size - 1

    def _pairs(self, q: _Spans, kv: _Spans, low: Int64s, high: Int64s) -> Iterator[Pairs]:
        """Each q span's block, and the parts of kv spans of its id that are from `low` to `high`."""
        low, high = np.maximum(low, 0), np.minimum(high, self.width - 1)
        first = np.searchsorted(kv.ids * self.width + kv.high, q.ids * self.width + low)
        counts = np.searchsorted(kv.ids * self.width + kv.low, q.ids * self.width + high, "right") - first
        counts = np.maximum(counts, 0)
        group = np.cumsum(counts) // MOST_PAIRS
        for part in np.split(np.arange(len(counts)), np.flatnonzero(np.diff(group)) + 1):
            span, key = _expanded(first[part], counts[part])
            span = part[span]
            yield (
                q.low[span] // self.q_size,
                np.maximum(kv.low[key], low[span]),
                np.minimum(kv.high[key], high[span]),
            )


def _expanded(first: Int64s, counts: Int64s) -> tuple[Int64s, Int64s]:
    """For each row, `counts` numbers from `first` on: (rows, numbers)."""
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts - first, counts)


def _painted(shape: tuple[int, ...], pairs: Iterator[Pairs]) -> Bools:
    edges = np.zeros((shape[0], shape[1] + 1), np.int32)
    for block, first, last in pairs:
        kept = first <= last
        np.add.at(edges, (block[kept], first[kept]), 1)
        np.add.at(edges, (block[kept], last[kept] + 1), -1)
    found: Bools = edges.cumsum(1)[:, :-1] > 0
    return found


def _ordered(grid: Bools) -> tuple[AnyArray, AnyArray]:
    """How many blocks there are in each row, and their numbers before those of the others."""
    counts = grid.sum(-1, dtype=np.int32)
    order = np.argsort(~grid, axis=-1, kind="stable").astype(np.int32)
    return counts, order


def _device_of(torch: Any, device: Any) -> Any:
    """What torch calls a device; it has crashed on what is none, so its types are looked at first."""
    if device is None or isinstance(device, torch.device):
        return device
    if not isinstance(device, str | int):
        raise TypeError(f"device must be torch's, its name or its number, got {type(device).__name__}")
    try:
        return torch.device(device)
    except (RuntimeError, OverflowError):
        raise ValueError(f"device is {device!r}, which torch does not know") from None
