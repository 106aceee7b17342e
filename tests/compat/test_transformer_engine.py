"""Argument for argument, what TransformerEngine's mask path returned: its arithmetic, written out."""

from __future__ import annotations

from enum import Enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollkit.compat import transformer_engine as te
from rollkit.testing import thd_cases, thd_reference
from rollkit.testing.segments import CASES


class AttnMaskType(Enum):
    """The names that TransformerEngine gives its masks."""

    PADDING_MASK = 1
    PADDING_CAUSAL_MASK = 2
    PADDING_CAUSAL_BOTTOM_RIGHT_MASK = 3


NAMES = {
    AttnMaskType.PADDING_MASK: "padding",
    AttnMaskType.PADDING_CAUSAL_MASK: "causal",
    AttnMaskType.PADDING_CAUSAL_BOTTOM_RIGHT_MASK: "causal_bottom_right",
}


def row_by_row(ids: Any, most: int) -> tuple[list[list[int]], list[list[int]]]:
    """Lengths by id and offsets by appearance, one token at a time."""
    lengths, offsets = [], []
    for row in ids:
        count, starts = [0] * most, []
        for at, number in enumerate(row):
            if 0 < number <= most:
                count[number - 1] += 1
            if number and (at == 0 or row[at - 1] != number):
                starts.append(at)
        lengths.append(count)
        offsets.append((starts + [-1] * (most + 1))[: most + 1])
    return lengths, offsets


@pytest.mark.parametrize("name", ["self, holes", "self, ids repeated", "self, too many segments", "anything"])
def test_get_seqlens_and_offsets(name: str) -> None:
    ids = thd_cases(name, 200).ids_q
    wanted = row_by_row(ids.tolist(), 6)
    traced = jax.jit(te._get_seqlens_and_offsets, static_argnums=1)
    for found in (
        te._get_seqlens_and_offsets(ids, 6),
        traced(jnp.asarray(ids), 6),
        te._get_seqlens_and_offsets(jnp.asarray(ids), max_segments_per_seq=6),
    ):
        assert found[0].tolist() == wanted[0]
        assert found[1].tolist() == wanted[1]
        assert found[0].dtype == found[1].dtype == np.int32


@pytest.mark.parametrize("mask", AttnMaskType)
def test_segment_ids_pos_to_seqlens_offsets(mask: AttnMaskType) -> None:
    traced = jax.jit(te._segment_ids_pos_to_seqlens_offsets, static_argnums=(4, 5, 6))
    for name in CASES:
        case = thd_cases(name, 100, seed=1)
        wanted = thd_reference(*case, mask=NAMES[mask], max_segments=6)
        arrays = [jnp.asarray(array) for array in case]
        for found in (
            te._segment_ids_pos_to_seqlens_offsets(*case, mask, (-1, -1), 6),
            traced(*arrays, mask, None, 6),
            traced(*arrays, mask.name.lower().removesuffix("_mask"), (8, 0), 6),
        ):
            assert len(found) == 4
            for got, want in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(got, want)


def test_a_mask_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="attn_mask_type must be an AttnMaskType or its name, got 3"):
        te._segment_ids_pos_to_seqlens_offsets([[1]], [[1]], [[0]], [[0]], 3, None, 1)
    for name in ("arbitrary", "paddign_causal", "bottom_right"):
        with pytest.raises(ValueError, match=f"attn_mask_type '{name}' is not known"):
            te._segment_ids_pos_to_seqlens_offsets([[1]], [[1]], [[0]], [[0]], name, None, 1)


@pytest.mark.parametrize("window", [None, (-1, -1)])
def test_a_padding_mask_of_one_row_is_not_causal(window: Any) -> None:
    ids_q, ids_kv = np.array([[1, 1, 2, 2, 0]]), np.array([[1, 2, 2, 2, 0]])
    at_q, at_kv = np.array([[0, 1, 0, 1, 0]]), np.array([[5, 5, 6, 7, 0]])
    mask = AttnMaskType.PADDING_MASK
    found = te._segment_ids_pos_to_seqlens_offsets(ids_q, ids_kv, at_q, at_kv, mask, window, 3)
    assert [part.tolist() for part in found[:2]] == [[[2, 2, 0]], [[1, 3, 0]]]
