"""Keyword arguments of other packages, from runs: make `Runs` once per batch, adapt it for free."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from rollkit import _check
from rollkit._arrays.ops import ops
from rollkit._frameworks import same_framework
from rollkit._rows.laid import counted
from rollkit._rows.trees import TreeLayout
from rollkit.segments._runs import Runs, ids_of, like_of, positions, positions_of, runs, sized
from rollkit.segments._thd import THD
from rollkit.segments._tokens import INT32_MAX, int32s, same_shape, tokens
from rollkit.segments._trees import layout_of


def flash_attn_varlen(
    ids_q: Any,
    ids_kv: Any = None,
    *,
    padding: str = "raise",
    size: int | None = None,
    tail: str = "left_out",
) -> dict[str, Any]:
    """Make the arguments of `flash_attn_varlen_func`, and of kernels like it.

    Args:
        ids_q: `[T]` or `[B, T]` integers, `Runs`, a `Layout` or a `Batch`; rows count through.
        ids_kv: likewise; `ids_q` by default. The segments must be the same, in the same order.
        padding: the kernel takes segments end to end. `"raise"` if the ids have padding anywhere but at
            the very end; `"removed"`: the tokens come without it (`unpad_input`, `take`).
        size: of cu_seqlens, as in `cu_seqlens`.
        tail: what padding at the very end is: `"left_out"`, in no segment: kernels may leave their output
            there unwritten, and what is computed of that, NaN too, counts once anything adds it up;
            `"segment"`, one more segment, of q and kv alike, so that all of the output is written.

    Returns:
        `cu_seqlens_q`, `cu_seqlens_k` (int32) and `max_seqlen_q`, `max_seqlen_k` (Python ints).

    Raises:
        ValueError: there is padding in between; or the segments of q and kv are not the same, row by row.
        TypeError: q and kv are of two frameworks.

    Example:
        >>> found = flash_attn_varlen([1, 1, 1, 2, 2, 0])
        >>> found["cu_seqlens_q"], found["max_seqlen_q"]
        (array([0, 3, 5], dtype=int32), 3)
        >>> flash_attn_varlen([1, 1, 1, 2, 2, 0], tail="segment")["cu_seqlens_q"]
        array([0, 3, 5, 6], dtype=int32)
    """
    q, kv = _end_to_end(ids_q, ids_kv, padding, tail)
    return {
        "cu_seqlens_q": q.cu_seqlens(size),
        "cu_seqlens_k": kv.cu_seqlens(size),
        "max_seqlen_q": q.max_seqlen,
        "max_seqlen_k": kv.max_seqlen,
    }


def flash_attention_kwargs(
    ids_q: Any,
    ids_kv: Any = None,
    *,
    padding: str = "raise",
    seq_idx: bool = False,
    tail: str = "left_out",
) -> dict[str, Any]:
    """Make Hugging Face's `FlashAttentionKwargs`, which every `transformers` model passes on.

    Args:
        ids_q: as in `flash_attn_varlen`.
        ids_kv: likewise.
        padding: likewise.
        seq_idx: whether to add `seq_idx` (int32 `[1, T]`, segments from 0, padding one beyond the last),
            which convolutional and state-space layers take.
        tail: as in `flash_attn_varlen`.

    Returns:
        `cu_seq_lens_q`, `cu_seq_lens_k` (int32), `max_length_q`, `max_length_k` (Python ints), `seq_idx`.

    Example:
        >>> found = flash_attention_kwargs([1, 1, 1, 2, 2], seq_idx=True)
        >>> found["cu_seq_lens_k"], found["max_length_k"], found["seq_idx"]
        (array([0, 3, 5], dtype=int32), 3, array([[0, 0, 0, 1, 1]], dtype=int32))
    """
    q, kv = _end_to_end(ids_q, ids_kv, padding, tail)
    found = {
        "cu_seq_lens_q": q.cu_seqlens(),
        "cu_seq_lens_k": kv.cu_seqlens(),
        "max_length_q": q.max_seqlen,
        "max_length_k": kv.max_seqlen,
    }
    if _check.flag("seq_idx", seq_idx):
        found["seq_idx"] = _sequence_index(q, removed=padding == "removed")
    return found


def mamba(ids: Any) -> dict[str, Any]:
    """Make the argument by which Mamba 2 and `causal_conv1d_fn` begin anew at each segment.

    Args:
        ids: `[T]` or `[B, T]` integers, `Runs`, a `Layout` or a `Batch`.

    Returns:
        `seq_idx`, int32 `[B, T]` (`[1, T]` of `[T]`), as `mamba_chunk_scan_combined` and `causal_conv1d_fn`
        take it: another number for each segment, counted through from 0, and for padding one beyond the last.
        These kernels compare numbers, so no two segments of a line have the same.

    Raises:
        TypeError: rows share tokens: a recurrent state does not branch.

    Example:
        >>> mamba([[1, 1, 1, 0], [1, 2, 2, 2]])["seq_idx"]
        array([[0, 0, 0, 3],
               [1, 2, 2, 2]], dtype=int32)
    """
    found = _unbranched(ids)
    numbers = np.full(prod(found.shape), len(found), np.int32)
    numbers[counted(found.starts, found.lengths)] = np.repeat(
        np.arange(len(found), dtype=np.int32), found.lengths
    )
    return {"seq_idx": found._wrap(numbers.reshape((1, *found.shape)[-2:]))}


def flash_linear_attention(ids: Any, *, size: int | None = None) -> dict[str, Any]:
    """Make the argument by which kernels of flash-linear-attention (`fla`) begin anew at each segment.

    They are those of Gated DeltaNet, KDA, GLA, RetNet and others, and its `causal_conv1d`. With it they take
    the tokens of a batch end to end, `x.reshape(1, B * T, …)`, padding included: its stretches are segments
    of their own, so that all of the output is written.

    Args:
        ids: `[T]` or `[B, T]` integers, `Runs`, a `Layout` or a `Batch`; rows count through.
        size: of the result, as in `cu_seqlens`.

    Returns:
        `cu_seqlens`, int64 `[segments + 1]`, from 0 to B · T.

    Raises:
        TypeError: rows share tokens: a recurrent state does not branch.
        ValueError: there are more segments than `size` has room for.

    Example:
        >>> flash_linear_attention([[1, 1, 1, 0], [1, 2, 2, 2]])["cu_seqlens"]
        array([0, 3, 4, 5, 8])
    """
    found = _unbranched(ids)
    total = prod(found.shape)
    bounds = np.unique(np.concatenate([found.starts, found.starts + found.lengths, [0, total]]))
    return {"cu_seqlens": found._wrap(sized(bounds, size))}


def _unbranched(ids: Any) -> Runs:
    """The runs of a batch whose rows share nothing."""
    if isinstance(layout_of(ids), TreeLayout):
        raise TypeError(
            "ids is of rows that share tokens, and a convolution or a state goes on from token to token "
            "in memory, where it cannot branch; pack without share_prefixes"
        )
    return runs(ids)


def packed_seq_params(ids_q: Any, ids_kv: Any = None, *, size: int | None = None) -> dict[str, Any]:
    """Make the arguments of Megatron's `PackedSeqParams`, with valid and padded sums kept apart.

    Tokens stay where they are, padding included: `cu_seqlens_*_padded` says where segments start, and
    `cu_seqlens_*` how long they are. Where padding comes first, the padded sums begin above 0. A tail of
    padding is in the last segment's slot.

    Args:
        ids_q: as in `flash_attn_varlen`.
        ids_kv: likewise.
        size: of the sums, as in `cu_seqlens`.

    Returns:
        `qkv_format` ("thd"), `cu_seqlens_q`, `cu_seqlens_kv`, `cu_seqlens_q_padded`,
        `cu_seqlens_kv_padded` (int32), `max_seqlen_q`, `max_seqlen_kv` (Python ints: of slots, which
        padded kernels are launched for).

    Example:
        >>> found = packed_seq_params([1, 1, 1, 0, 2, 2])
        >>> found["cu_seqlens_q"], found["cu_seqlens_q_padded"], found["max_seqlen_q"]
        (array([0, 3, 5], dtype=int32), array([0, 4, 6], dtype=int32), 4)
    """
    q, kv = _pair(ids_q, ids_kv, "kept")
    return {
        "qkv_format": "thd",
        "cu_seqlens_q": q.cu_seqlens(size),
        "cu_seqlens_kv": kv.cu_seqlens(size),
        "cu_seqlens_q_padded": q.cu_seqlens_padded(size),
        "cu_seqlens_kv_padded": kv.cu_seqlens_padded(size),
        "max_seqlen_q": _longest_slot(q),
        "max_seqlen_kv": _longest_slot(kv),
    }


def te_ids_and_positions(
    ids_q: Any, ids_kv: Any = None, *, positions_q: Any = None, positions_kv: Any = None
) -> dict[str, Any]:
    """Make the arguments of TransformerEngine's `SequenceDescriptor.from_segment_ids_and_pos`.

    Args:
        ids_q: `[B, T]` integers, traced JAX arrays too; `Runs`, a `Layout` or a `Batch`.
        ids_kv: `[B, T_kv]`; `ids_q` by default.
        positions_q: shaped as `ids_q`; those of the batch or layout, or counted along each run, by default,
            which is right where every segment is whole and in order. Shards of context parallelism must
            bring theirs.
        positions_kv: likewise.

    Returns:
        `segment_ids` and `segment_pos`, each a pair (q, kv), int32.

    Raises:
        ValueError: shapes disagree.
        OverflowError: a number of the host is beyond int32.

    Example:
        >>> found = te_ids_and_positions([[1, 1, 2, 0]])
        >>> found["segment_pos"][0]
        array([[0, 1, 0, 0]], dtype=int32)
    """
    named = {
        "ids_q": ids_of(ids_q),
        "ids_kv": ids_of(ids_kv),
        "positions_q": positions_of(ids_q, positions_q),
        "positions_kv": positions_of(ids_kv, positions_kv),
    }
    found = tokens(**named)
    q, kv, pos_q, pos_kv = found.arrays
    same_shape("positions_q", pos_q, "ids_q", q)
    same_shape("positions_kv", pos_kv, "ids_kv", q if kv is None else kv)
    q, kv, pos_q, pos_kv = int32s(found, **dict(zip(named, found.arrays, strict=True)))
    pos_q = positions(q) if pos_q is None else pos_q
    if pos_kv is None:
        pos_kv = pos_q if kv is None else positions(kv)
    return {"segment_ids": (q, q if kv is None else kv), "segment_pos": (pos_q, pos_kv)}


def te_seqlens_and_offsets(found: THD) -> dict[str, Any]:
    """Make the arguments of TransformerEngine's `SequenceDescriptor.from_seqlens_and_offsets`.

    Args:
        found: what `thd` returned, its lengths and offsets pairing (`on_reentry="raise"`).

    Returns:
        `seqlens` and `seq_offsets`, each a pair (q, kv) of int32 in which -1 is unused.

    Example:
        >>> from rollkit.segments import thd
        >>> te_seqlens_and_offsets(thd([[1, 1, 3, 0]], max_segments=3))["seqlens"][0]
        array([[ 2, -1,  1]], dtype=int32)
    """
    if not isinstance(found, THD):
        raise TypeError(f"found must be what rollkit.segments.thd returns, got {type(found).__name__}")
    backend = ops(same_framework(**found._asdict()))
    q, kv = (backend.where(n > 0, n, -1) for n in (found.q_seqlens, found.kv_seqlens))
    return {"seqlens": (q, kv), "seq_offsets": (found.q_offsets, found.kv_offsets)}


def maxtext_columns(
    ids: Any, positions: Any = None, *, features: tuple[str, ...] = ("inputs", "targets")
) -> dict[str, Any]:
    """Name ids and positions as MaxText's input pipeline does: `inputs_segmentation`, `inputs_position`.

    Args:
        ids: `[B, T]` integers, traced too; `Runs`, a `Layout` or a `Batch`.
        positions: shaped as `ids`; those of the batch or layout, or counted along each run, by default.
        features: whose they are.

    Returns:
        int32 arrays by name.

    Example:
        >>> sorted(maxtext_columns([[1, 1, 0]]))
        ['inputs_position', 'inputs_segmentation', 'targets_position', 'targets_segmentation']
    """
    return _columns(ids, positions, features, "segmentation", "position")


def grain_columns(
    ids: Any, positions: Any = None, *, features: tuple[str, ...] = ("inputs", "targets")
) -> dict[str, Any]:
    """Name ids and positions as grain's packing does: `inputs_segment_ids`, `inputs_positions`.

    Takes what `maxtext_columns` takes.

    Example:
        >>> grain_columns([[1, 1, 0]], features=("tokens",))["tokens_positions"]
        array([[0, 1, 0]], dtype=int32)
    """
    return _columns(ids, positions, features, "segment_ids", "positions")


def _columns(
    ids: Any, positions: Any, features: tuple[str, ...], ids_name: str, positions_name: str
) -> dict[str, Any]:
    if isinstance(features, str):
        raise TypeError(f"features must be a tuple of names, got {features!r}; pass ({features!r},)")
    made = te_ids_and_positions(ids, positions_q=positions)
    columns = {}
    for feature in _check.items("features", features):
        columns[f"{feature}_{ids_name}"] = made["segment_ids"][0]
        columns[f"{feature}_{positions_name}"] = made["segment_pos"][0]
    return columns


def _end_to_end(ids_q: Any, ids_kv: Any, padding: str, tail: str) -> tuple[Runs, Runs]:
    """The runs of q and kv for kernels that take segments end to end."""
    q, kv = _pair(ids_q, ids_kv, _check.choice("padding", padding, ("raise", "removed")))
    if _check.choice("tail", tail, ("left_out", "segment")) == "left_out":
        return q, kv
    if padding == "removed":
        raise ValueError('padding="removed" leaves no tail to be a segment; leave tail="segment" out')
    tails = [prod(side.shape) - int(side.lengths.sum()) for side in (q, kv)]
    if not any(tails):
        return q, kv
    longer = [
        replace(
            side,
            ids=np.append(side.ids, side.ids.max(initial=0) + 1),
            starts=np.append(side.starts, prod(side.shape) - length),
            lengths=np.append(side.lengths, length),
        )
        for side, length in zip((q, kv), tails, strict=True)
    ]
    return longer[0], longer[1]


def _pair(ids_q: Any, ids_kv: Any, padding: str) -> tuple[Runs, Runs]:
    q = kv = runs(ids_q)
    if ids_kv is not None:
        like_q, like_kv = like_of(ids_q), like_of(ids_kv)
        same_framework(ids_q=like_q, ids_kv=like_kv)
        q, kv = _liked(q, like_kv), _liked(runs(ids_kv), like_q)
        _same_segments(q, kv)
    if padding == "raise":
        for name, side in (("ids_q", q), ("ids_kv", kv)):
            gaps = side.starts - np.append(0, side.starts + side.lengths)[:-1]
            if gaps.any():
                raise ValueError(
                    f"{name} has padding before token {side.starts[gaps.argmax()]}, and the kernel takes "
                    'segments end to end; remove it from the tokens and pass padding="removed"'
                )
    return q, kv


def _liked(found: Runs, like: Any) -> Runs:
    """The runs, of the framework of the other side if they have none of their own."""
    return found if found.like is not None or like is None else replace(found, like=like)


def _same_segments(q: Runs, kv: Runs) -> None:
    """Check that the n-th runs of both are of one segment: ids count from 1 in each row."""
    rows = [prod(side.shape[:-1]) for side in (q, kv)]
    if rows[0] != rows[1]:
        raise ValueError(f"ids_q has {rows[0]} rows, ids_kv has {rows[1]}; they must have the same rows")
    if not np.array_equal(q.ids, kv.ids):
        raise ValueError(
            f"q has segments {_short(q)}, kv has {_short(kv)}; varlen kernels pair them by order, so both "
            "must have the same (thd finds those that attend)"
        )
    row_q, row_kv = (side._places()[0] for side in (q, kv))
    if (odd := row_q != row_kv).any():
        n = int(odd.argmax())
        raise ValueError(
            f"segment {q.ids[n]} is in row {row_q[n]} of ids_q and in row {row_kv[n]} of ids_kv; varlen "
            "kernels pair segments by order, so each row must have the same (thd finds those that attend)"
        )


def _short(found: Runs) -> str:
    ids = [str(i) for i in found.ids[:8]]
    return f"[{', '.join(ids)}{', …' if len(found) > 8 else ''}]"


def _longest_slot(found: Runs) -> int:
    ends = np.append(found.starts[1:], prod(found.shape))
    return int((ends - found.starts).max(initial=0))


def _sequence_index(found: Runs, removed: bool) -> Any:
    total = int(found.lengths.sum()) if removed else prod(found.shape)
    if total > INT32_MAX:
        raise OverflowError(f"{total} tokens are beyond int32")
    index = np.full((1, total), len(found), np.int32)
    numbers = np.repeat(np.arange(len(found), dtype=np.int32), found.lengths)
    index[0, : len(numbers)] = numbers
    return found._wrap(index)
