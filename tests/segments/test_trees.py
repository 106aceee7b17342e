"""What kernels take of trees, beside every ancestor of every token, and torch's own block masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.rows.test_trees import random_rows
from tests.segments.test_masks import equal
from tests.thorough import by_level
from torch.nn.attention.flex_attention import create_block_mask

from rollkit import Forest, Layout, TreeLayout, segments
from rollkit.testing import tree_mask_reference


def some_layout(rng: np.random.Generator, scale: int = 1) -> Layout | TreeLayout:
    """A forest in bins, or an ordinary layout: packed, or end to end with gaps."""
    rows = [np.repeat(row, scale) for row in random_rows(rng)]
    longest = max(1, *map(len, rows), 1)
    kind = rng.integers(4)
    lengths = [len(row) for row in rows]
    if kind == 0:
        return Layout.pack(lengths, longest + int(rng.integers(0, 9)), align=int(rng.integers(1, 4)))
    if kind == 1:
        return Layout.concat(lengths, align=int(rng.integers(1, 6)))
    align = int(rng.choice([1, 4]))
    return Forest.build(rows).pack(longest + int(rng.integers(0, 3 * longest)), align=align)


def by_torch(layout: Layout | TreeLayout, size: Any) -> Any:
    ends = torch.as_tensor(np.atleast_2d(layout.visible_until()))
    lines, width = ends.shape
    return create_block_mask(
        lambda b, h, q, kv: (kv <= q) & (q < ends[b, kv]),
        lines,
        None,
        width,
        width,
        device="cpu",
        BLOCK_SIZE=size,
    )


@pytest.mark.parametrize("size", [4, 16, (3, 8), (8, 3), 128])
def test_block_masks_are_those_of_torch(size: Any) -> None:
    rng = np.random.default_rng(5)
    for _ in range(by_level(15, 300)):
        layout = some_layout(rng, int(rng.choice([1, 3, 8])))
        if layout.size:
            equal(segments.block_mask(layout, block_size=size), by_torch(layout, size))


def test_their_predicate_is_the_mask() -> None:
    rng = np.random.default_rng(6)
    for _ in range(20):
        layout = some_layout(rng)
        mask_mod: Any = segments.block_mask(layout, block_size=8).mask_mod if layout.size else None
        lines, width = (1, *layout.shape)[-2:]
        places = torch.arange(width)
        for line in range(lines if layout.size else 0):
            found = mask_mod(torch.tensor(line), 0, places[:, None], places[None])
            part = slice(line * width, (line + 1) * width)
            assert np.array_equal(found.numpy(), tree_mask_reference(layout)[part, part])


def test_dense_masks_are_every_ancestor() -> None:
    rng = np.random.default_rng(7)
    for _ in range(by_level(30, 300)):
        layout = some_layout(rng)
        found = segments.dense_mask(layout)
        assert np.array_equal(together(found), tree_mask_reference(layout))


def together(lines: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Masks of lines as one of the whole output."""
    if lines.ndim == 2:
        return lines
    count, width, _ = lines.shape
    found = np.zeros((count * width, count * width), bool)
    for line, mask in enumerate(lines):
        part = slice(line * width, (line + 1) * width)
        found[part, part] = mask
    return found


def test_slices_paint_every_pair_once() -> None:
    rng = np.random.default_rng(8)
    for _ in range(by_level(30, 300)):
        layout = some_layout(rng)
        found = segments.magi_ranges(layout)
        painted = np.zeros((layout.size, layout.size), int)
        for (a, b), (c, d), kind in zip(*found.values(), strict=True):
            block = np.ones((b - a, d - c), int)
            painted[a:b, c:d] += np.tril(block, (d - c) - (b - a)) if kind else block
        assert np.array_equal(painted, tree_mask_reference(layout))
        assert all(array.dtype == np.int32 for array in found.values())


def test_a_column_says_where_keys_end() -> None:
    rng = np.random.default_rng(9)
    for _ in range(by_level(30, 300)):
        layout = some_layout(rng)
        found = segments.flashmask_indices(layout)
        assert found.shape == ((1, *layout.shape)[-2], 1, layout.width, 1)
        rows = np.arange(layout.width)
        seen = (rows[:, None] >= rows) & (rows[:, None] < found[:, 0, None, :, 0])
        assert np.array_equal(together(seen), tree_mask_reference(layout))


def test_one_varlen_call_is_every_node_with_its_path() -> None:
    rng = np.random.default_rng(10)
    for _ in range(by_level(30, 300)):
        layout = some_layout(rng)
        found = segments.tree_varlen(layout, most=None)
        painted = np.zeros((layout.size, layout.size), int)
        bounds = zip(
            found["cu_seqlens_q"],
            found["cu_seqlens_q"][1:],
            found["cu_seqlens_k"],
            found["cu_seqlens_k"][1:],
            strict=False,
        )
        for a, b, c, d in bounds:
            queries, keys = found["q_index"][a:b], found["kv_index"][c:d]
            for i, query in enumerate(queries):
                painted[query, keys[: len(keys) - len(queries) + i + 1]] += 1
        assert np.array_equal(painted, tree_mask_reference(layout))
        assert found["max_seqlen_q"] == np.diff(found["cu_seqlens_q"]).max(initial=0)
        assert found["max_seqlen_k"] == np.diff(found["cu_seqlens_k"]).max(initial=0)


def test_deep_trees_are_no_varlen_call_unless_told() -> None:
    layout = Forest.build([list(range(n)) for n in range(1, 40)]).pack(64)
    with pytest.raises(ValueError, match=r"20\.0 for each, more than most=4\.0"):
        segments.tree_varlen(layout)
    assert len(segments.tree_varlen(layout, most=None)["kv_index"]) == 780


def test_a_tree_is_no_segments() -> None:
    layout = Forest.build([[1, 2], [1, 3]]).pack(4)
    for call in (segments.runs, segments.cu_seqlens, segments.positions, segments.flash_attn_varlen):
        with pytest.raises(TypeError, match=r"ids.* is a TreeLayout, whose rows are no segments"):
            call(layout)
    for options, wanted in (({"mask": "padding"}, "is causal"), ({"window": (4, 0)}, "window counts places")):
        for mask in (segments.block_mask, segments.dense_mask):
            with pytest.raises(ValueError, match=wanted):
                mask(layout, **options)


def test_blocks_larger_than_all() -> None:
    for layout in (Forest.build([[1, 2, 3], [1, 4]]).pack(4), Layout.pack([3, 2], 4)):
        for size in (5, 2**31, 2**40, 2**62):
            found, wanted = (segments.block_mask(layout, block_size=(n, n)) for n in (size, 8))
            for name in ("kv_num_blocks", "full_kv_num_blocks", "kv_indices", "full_kv_indices"):
                assert getattr(found, name).equal(getattr(wanted, name))
