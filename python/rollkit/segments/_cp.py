"""Context parallelism: which tokens a rank has, and the metadata of its shard."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import Any

import numpy as np

from rollkit import _check, _native
from rollkit._arrays.ops import ops
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray, framework_of
from rollkit._rows.shard import Deal
from rollkit.segments._ids import cu_pair
from rollkit.segments._runs import DESCRIBED, like_of, runs
from rollkit.segments._tokens import INT32_MAX, check_segments, on_host, rewrapped

SCHEMES = ("zigzag", "dual_chunk", "striped", "contiguous")


@dataclass(frozen=True, eq=False)
class CPShard:
    """A rank's part of a stream of segments.

    Attributes:
        indices: `[tokens]` int64, the stream index of each of the rank's tokens, in the order it keeps
            them: `shard = stream[indices]`. Padding is included.
        cu_seqlens: `[segments + 1]` int32, running sums of the rank's valid tokens of each segment.
        cu_seqlens_padded: `[segments + 1]` int32, where each segment starts in the shard.
    """

    indices: Any
    cu_seqlens: Any
    cu_seqlens_padded: Any


@dataclass(frozen=True, eq=False)
class CPPadding:
    """Segments padded so that ranks share them evenly.

    Attributes:
        lengths: `[segments]` int64, the slots: lengths rounded up.
        cu_seqlens: `[segments + 1]` int32, running sums of the valid lengths.
        cu_seqlens_padded: `[segments + 1]` int32, running sums of the slots.
        alignment: what slots are multiples of.
    """

    lengths: Any
    cu_seqlens: Any
    cu_seqlens_padded: Any
    alignment: int


def cp_pad(
    lengths: Any,
    *,
    cp_size: int = 1,
    tp_size: int = 1,
    fp8: bool = False,
    multiple_of: int = 1,
) -> CPPadding:
    """Pad segments so that `cp_partition` can deal them: to multiples of tp · 2 · cp, and of 16 · cp in fp8.

    Args:
        lengths: `[segments]` integers, valid tokens; 0 stays 0. Results are of its framework. Or `Runs`, a
            `Layout` or a `Batch`: the lengths of its runs, in memory order.
        cp_size: ranks that share a segment, two chunks each; 1 for none.
        tp_size: ranks that share a shard's tokens (sequence parallelism).
        fp8: every rank's part is a multiple of 16, which fp8 matrix products need.
        multiple_of: of anything else.

    Raises:
        ValueError: a length is negative, or a size below 1.
        OverflowError: the total is beyond int32.

    Example:
        >>> found = cp_pad([5, 8, 0], cp_size=2)
        >>> found.lengths, found.cu_seqlens, found.cu_seqlens_padded
        (array([8, 8, 0]), array([ 0,  5, 13, 13], dtype=int32), array([ 0,  8, 16, 16], dtype=int32))

    References:
        The rule is that of SkyRL's `preprocess_packed_seqs` (tp · 2 · cp, and lcm with 16 · cp for fp8).
    """
    like = like_of(lengths)
    check_segments("lengths", lengths)
    given = runs(lengths).lengths if isinstance(lengths, DESCRIBED) else on_host("lengths", lengths)
    counts = _check.lengths("lengths", given)
    cp_size, tp_size = _check.positive("cp_size", cp_size), _check.positive("tp_size", tp_size)
    align = tp_size * (2 * cp_size if cp_size > 1 else 1)
    narrow = 16 * cp_size if _check.flag("fp8", fp8) else 1
    align = lcm(align, narrow, _check.positive("multiple_of", multiple_of))
    align = _check.positive("the alignment", align)
    sums = _sums(counts)  # first: within int32, rounding up stays within int64
    slots = -(-counts // align) * align
    found = [rewrapped(array, like) for array in (slots, sums, _sums(slots))]
    return CPPadding(found[0], found[1], found[2], align)


def cp_partition(
    cu_seqlens: Any,
    cp_size: int,
    rank: int,
    scheme: str = "zigzag",
    *,
    cu_seqlens_padded: Any = None,
    stripe: int = 1,
) -> CPShard:
    """Find the tokens of one rank, and what of each segment it has.

    | scheme | deals | a rank has | needs |
    |---|---|---|---|
    | `"zigzag"` | each segment, in 2 · cp chunks | chunks r and 2 · cp - 1 - r | slots % (2 · cp) = 0 |
    | `"dual_chunk"` | the stream, in 2 · cp chunks | likewise | tokens % (2 · cp) = 0 |
    | `"striped"` | the stream, in stripes | every cp-th stripe from r on | tokens % (cp · stripe) = 0 |
    | `"contiguous"` | the stream, in cp chunks | chunk r | tokens % cp = 0 |

    Megatron and TransformerEngine for PyTorch take zigzag; TransformerEngine for JAX and MaxText
    reorder rows by dual chunks or stripes; ring attention over a plain split is contiguous.

    Args:
        cu_seqlens: `[segments + 1]` integers from 0, running sums of valid lengths. Or `Runs`, a `Layout` or
            a `Batch`: the sums of its runs, in memory order, and where they start.
        cp_size: how many ranks there are; any number, odd ones too.
        rank: which one, from 0.
        scheme: one of the four.
        cu_seqlens_padded: `[segments + 1]` integers from 0, where segments start and the stream ends, as
            `cp_pad` makes them; equal to `cu_seqlens` by default. A segment is valid at its slot's front.
        stripe: tokens of a stripe.

    Returns:
        `CPShard`, of the framework of `cu_seqlens`. In the shard too, each segment is valid at its
        slot's front, so that the two running sums describe it.

    Raises:
        ValueError: a segment or the stream cannot be dealt evenly; the message names it and says how
            to pad.

    Example:
        >>> shard = cp_partition([0, 6], 2, 0, cu_seqlens_padded=[0, 8])
        >>> shard.indices, shard.cu_seqlens, shard.cu_seqlens_padded
        (array([0, 1, 6, 7]), array([0, 2], dtype=int32), array([0, 4], dtype=int32))
    """
    valid, padded, deal = _dealt(cu_seqlens, cu_seqlens_padded, cp_size, scheme, stripe)
    rank = _check.positive("rank", rank, least=0)
    if rank >= cp_size:
        raise ValueError(f"rank must be below cp_size={cp_size}, got {rank}")
    share = deal.share(rank)
    before = share.before(padded)
    ends = before[1:] if valid is padded else share.before(padded[:-1] + np.diff(valid))
    sums = _sums(ends - before[:-1]), _sums(np.diff(before))  # first: they refuse what is too long
    return CPShard(*(rewrapped(array, like_of(cu_seqlens)) for array in (share.indices, *sums)))


def cp_restore(
    cu_seqlens: Any,
    cp_size: int,
    scheme: str = "zigzag",
    *,
    cu_seqlens_padded: Any = None,
    stripe: int = 1,
) -> Any:
    """Invert `cp_partition`: where each token of the stream is in the ranks' shards, joined in order.

    Takes the arguments of `cp_partition`.

    Returns:
        `[tokens]` int64: `stream = concatenate(shards)[indices]`.

    Example:
        >>> cp_restore([0, 8], 2)
        array([0, 1, 4, 5, 6, 7, 2, 3])
    """
    _, _, deal = _dealt(cu_seqlens, cu_seqlens_padded, cp_size, scheme, stripe)
    order = np.concatenate([deal.share(rank).indices for rank in range(cp_size)])
    return rewrapped(_inverse(order), like_of(cu_seqlens))


def cp_reorder(
    array: Any, cp_size: int, *, scheme: str = "dual_chunk", stripe: int = 1, axis: int = 1
) -> Any:
    """Permute a batch along its tokens so that an even split gives each rank its share of a causal mask.

    Args:
        array: NumPy, torch or JAX, traced too; `[B, T, …]` by default.
        cp_size: how many ranks split `axis` afterwards; any number.
        scheme: `"dual_chunk"` or `"striped"`, as in `cp_partition`.
        stripe: tokens of a stripe.
        axis: that of tokens.

    Returns:
        The array with tokens in the order rank 0's, rank 1's, …

    Raises:
        ValueError: the axis cannot be dealt evenly.

    Example:
        >>> import numpy as np
        >>> cp_reorder(np.arange(8)[None], 2)
        array([[0, 1, 6, 7, 2, 3, 4, 5]])
        >>> cp_reorder(np.arange(8)[None], 2, scheme="striped")
        array([[0, 2, 4, 6, 1, 3, 5, 7]])
    """
    return _taken(array, cp_size, scheme, stripe, axis, back=False)


def cp_inverse_reorder(
    array: Any, cp_size: int, *, scheme: str = "dual_chunk", stripe: int = 1, axis: int = 1
) -> Any:
    """Undo `cp_reorder`.

    Example:
        >>> import numpy as np
        >>> cp_inverse_reorder(np.array([[0, 1, 6, 7, 2, 3, 4, 5]]), 2)
        array([[0, 1, 2, 3, 4, 5, 6, 7]])
    """
    return _taken(array, cp_size, scheme, stripe, axis, back=True)


def _dealt(
    cu_seqlens: Any, cu_seqlens_padded: Any, cp_size: int, scheme: str, stripe: int
) -> tuple[Int64s, Int64s, Deal]:
    """Valid sums, padded sums, and how the stream is dealt."""
    check_segments("cu_seqlens", cu_seqlens)
    if isinstance(cu_seqlens, DESCRIBED):
        found = runs(cu_seqlens)._on_host()
        cu_seqlens = found.cu_seqlens()
        cu_seqlens_padded = found.cu_seqlens_padded() if cu_seqlens_padded is None else cu_seqlens_padded
    valid, padded = cu_pair(cu_seqlens, cu_seqlens_padded)
    if padded[0] != 0:
        raise ValueError(
            f"cu_seqlens_padded[0] is {padded[0]}; the stream that ranks share begins with its first segment"
        )
    cp_size = _check.positive("cp_size", cp_size)
    _check.choice("scheme", scheme, SCHEMES)
    stripe = _check.positive("stripe", stripe)
    if cp_size == 1:
        scheme = "contiguous"  # two chunks each would still ask for even lengths
    if scheme != "zigzag":
        _even(int(padded[-1]), cp_size, scheme, stripe, "the stream")
    elif (odd := np.diff(padded) % (2 * cp_size) != 0).any():
        row = int(odd.argmax())
        raise ValueError(
            f"segment {row} has {np.diff(padded)[row]} tokens, which {2 * cp_size} chunks cannot share; "
            f"pad it: rollkit.segments.cp_pad(lengths, cp_size={cp_size})"
        )
    bounds = padded if scheme == "zigzag" else padded[[0, -1]]
    return valid, padded, Deal.of(scheme, cp_size, stripe, bounds)


def _even(total: int, cp_size: int, scheme: str, stripe: int, what: str) -> None:
    align = cp_size * {"striped": stripe, "contiguous": 1}.get(scheme, 2)
    if total % align:
        raise ValueError(
            f"{what} has {total} tokens, which scheme={scheme!r} with cp_size={cp_size} cannot deal "
            f"evenly; pad it to a multiple of {align}"
        )


def _inverse(order: Int64s) -> Int64s:
    found = np.empty_like(order)
    found[order] = np.arange(len(order))
    return found


def _taken(array: Any, cp_size: int, scheme: str, stripe: int, axis: int, *, back: bool) -> Any:
    framework = framework_of(array)
    if framework is None:
        raise TypeError(f"array must be NumPy's, torch's or JAX's, got {type(array).__name__}")
    axis = _check.integer("axis", axis)
    if not -array.ndim <= axis < array.ndim:
        raise ValueError(f"axis {axis} is out of range: the array has shape {tuple(array.shape)}")
    _check.choice("scheme", scheme, ("dual_chunk", "striped"))
    cp_size, stripe = _check.positive("cp_size", cp_size), _check.positive("stripe", stripe)
    _even(array.shape[axis], cp_size, scheme, stripe, "the axis")
    axis %= array.ndim
    before, after = tuple(array.shape[:axis]), tuple(array.shape[axis + 1 :])
    if scheme == "striped":  # reshaped, and not indexed token by token: compilers see through it
        cycles = array.shape[axis] // (cp_size * stripe)
        sides = (cp_size, cycles) if back else (cycles, cp_size)
        moved = array.reshape((*before, *sides, stripe, *after)).swapaxes(axis, axis + 1)
    else:
        order = [chunk for rank in range(cp_size) for chunk in (rank, 2 * cp_size - 1 - rank)]
        order = np.argsort(order).tolist() if back else order
        size = array.shape[axis] // (2 * cp_size)
        chunks = array.reshape((*before, 2 * cp_size, size, *after))
        moved = ops(framework).take(chunks, order, axis)
    return moved.reshape(tuple(array.shape))


def _sums(lengths: Int64s) -> AnyArray:
    sums = _native.offsets_from_lengths(lengths)
    if sums[-1] > INT32_MAX:
        raise OverflowError(f"{sums[-1]} tokens are beyond int32, which attention kernels take")
    return sums.astype(np.int32)
