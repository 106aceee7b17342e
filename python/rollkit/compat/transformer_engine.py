"""TransformerEngine's THD metadata for JAX (`transformer_engine.jax.attention`), exact and O(T).

The functions take what TransformerEngine's of the same names take, in that order, and return what its
O(T²) mask returned, for traced and for concrete arrays (and for NumPy's and torch's, their own). They
differ from what it computes today where that differs from the mask: its fast causal path outside
self-attention; bottom-right masks with a segment all of whose keys are below -1; negative positions;
and, with more segments than there is room for, the last offset.
"""

from __future__ import annotations

from typing import Any

from rollkit import segments

MASKS = {
    frozenset(words.split()): mask
    for words, mask in {
        "no": "padding",
        "padding": "padding",
        "causal": "causal",
        "padding causal": "causal",
        "causal bottom right": "causal_bottom_right",
        "padding causal bottom right": "causal_bottom_right",
    }.items()
}
"""The words of each name that an `AttnMaskType` may have, in any order, and the mask of `segments.thd`."""


def _get_seqlens_and_offsets(segment_ids: Any, max_segments_per_seq: int) -> tuple[Any, Any]:
    """Count tokens by id, and find where runs start.

    Args:
        segment_ids: `[B, T]` integers, 0 for padding.
        max_segments_per_seq: S.

    Returns:
        `[B, S]` int32 lengths, 0 where there are none, and `[B, S + 1]` int32 offsets, -1 where there
        are none.

    Example:
        >>> _get_seqlens_and_offsets([[1, 1, 0, 2]], 3)
        (array([[2, 1, 0]], dtype=int32), array([[ 0,  3, -1, -1]], dtype=int32))
    """
    found = segments.thd(segment_ids, max_segments=max_segments_per_seq, on_reentry="te")
    return found.q_seqlens, found.q_offsets


def _segment_ids_pos_to_seqlens_offsets(
    segment_ids_q: Any,
    segment_ids_kv: Any,
    segment_pos_q: Any,
    segment_pos_kv: Any,
    attn_mask_type: Any,
    window_size: tuple[int, int] | None,
    max_segments_per_seq: int,
) -> tuple[Any, Any, Any, Any]:
    """Find lengths and offsets of what attends and is attended to.

    Args:
        segment_ids_q: `[B, T]` integers.
        segment_ids_kv: `[B, T_kv]` integers.
        segment_pos_q: `[B, T]` integers.
        segment_pos_kv: `[B, T_kv]` integers.
        attn_mask_type: an `AttnMaskType`, or its name ("padding_causal", …).
        window_size: changes nothing: the kernel applies it.
        max_segments_per_seq: S.

    Returns:
        `(q_seqlens, kv_seqlens, q_offsets, kv_offsets)`, int32, `[B, S]` and `[B, S + 1]`.

    Example:
        >>> ids, pos = [[1, 1, 2]], [[0, 1, 0]]
        >>> found = _segment_ids_pos_to_seqlens_offsets(ids, ids, pos, pos, "padding_causal", None, 2)
        >>> found[0], found[3]
        (array([[2, 1]], dtype=int32), array([[ 0,  2, -1]], dtype=int32))
    """
    found = segments.thd(
        segment_ids_q,
        segment_ids_kv,
        positions_q=segment_pos_q,
        positions_kv=segment_pos_kv,
        mask=_mask(attn_mask_type),
        max_segments=max_segments_per_seq,
        on_reentry="te",
    )
    return tuple(found)


def _mask(attn_mask_type: Any) -> str:
    name = attn_mask_type if isinstance(attn_mask_type, str) else getattr(attn_mask_type, "name", None)
    if not isinstance(name, str):
        raise TypeError(f"attn_mask_type must be an AttnMaskType or its name, got {attn_mask_type!r}")
    found = MASKS.get(frozenset(name.lower().removesuffix("_mask").split("_")))
    if found is None:
        raise ValueError(f"attn_mask_type {name!r} is not known; it says padding, causal or bottom_right")
    return found
