"""`Layout`: where rows go, what is read off it, and what it refuses."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.thorough import examples

from rollkit import Layout, place, plan_bins, take
from rollkit._rows.binpack import ALGORITHMS, OVERSIZE
from rollkit.testing import (
    attention_mask_reference,
    lengths,
    pack_starts_reference,
    pieces_reference,
    place_reference,
    positions_reference,
    segment_ids_reference,
)


@st.composite
def layouts(draw: Any) -> Layout:
    """A layout of any kind, with rows cut or dropped, and what is derived from it."""
    rows = draw(lengths())
    kind = draw(st.sampled_from(["concat", "pad", "pack"]))
    if kind == "concat":
        layout = Layout.concat(rows, align=draw(st.integers(1, 4)))
    elif kind == "pad":
        side = draw(st.sampled_from(["left", "right"]))
        layout = Layout.pad(rows, side=side, multiple_of=draw(st.integers(1, 4)))
    else:
        layout = Layout.pack(
            rows,
            draw(st.integers(1, 12)),
            algorithm=draw(st.sampled_from(["first_fit_decreasing", "next_fit"])),
            align=draw(st.integers(1, 3)),
            max_segments=draw(st.none() | st.integers(1, 3)),
            bins_multiple_of=draw(st.integers(1, 3)),
            oversize=draw(st.sampled_from(["truncate", "alone", "drop"])),
        )
    derived = draw(st.sampled_from(["whole", "whole", "spans", "union", "select"]))
    heads = np.array([draw(st.integers(0, n)) for n in rows], np.int64)
    if derived == "spans":
        return layout.spans(heads, np.array(rows, np.int64) - heads)
    if derived == "union":
        parts = [layout.spans(0, heads), layout.spans(heads, np.array(rows, np.int64) - heads)]
        return Layout.union(parts[:: draw(st.sampled_from([1, -1]))])
    if derived == "select" and kind != "concat" and layout.width:
        line = draw(st.integers(0, layout.shape[0]))
        on_line = (layout.starts // layout.width == line) & (layout.starts >= 0)
        chosen = np.flatnonzero(on_line)[:: draw(st.sampled_from([1, -1]))]
        return layout.select(chosen, line, min(1, layout.shape[0] - line))
    return layout


@given(layouts())
def test_rows_are_disjoint_and_in_bounds(layout: Layout) -> None:
    taken = np.zeros(layout.size, np.int64)
    for start, length, whole in zip(layout.starts, layout.lengths, layout.row_lengths, strict=True):
        assert -1 <= start <= layout.size
        assert 0 <= length <= whole
        assert start >= 0 or length == 0
        taken[start : start + length] += 1
    assert taken.max(initial=0) <= 1
    assert layout.max_seqlen == max(layout.lengths.tolist(), default=0)
    assert layout.utilisation == (taken.mean() if layout.size else 1.0)
    assert len(layout) == len(layout.starts)


@given(layouts())
def test_order_is_that_of_starts(layout: Layout) -> None:
    """Whether derived from lengths, from a parent or, when unpickled, from the starts."""
    key = [(start, length > 0) for start, length in zip(layout.starts, layout.lengths, strict=True)]
    for known in (layout, pickle.loads(pickle.dumps(layout))):
        order = list(range(len(layout))) if known.order is None else known.order.tolist()
        assert sorted(order) == list(range(len(layout)))
        placed = [key[row] for row in order if key[row][0] >= 0]
        assert placed == sorted(placed)
        filled = [start for start, length in placed if length]
        assert len(set(filled)) == len(filled)


@given(layouts())
def test_what_is_read_off_equals_the_reference(layout: Layout) -> None:
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
        (layout.segment_ids(), segment_ids_reference(layout)),
        (layout.positions(), positions_reference(layout)),
        (layout.attention_mask(), attention_mask_reference(layout)),
    ]
    for got, wanted in pairs:
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == wanted.dtype


@given(layouts())
def test_out_is_overwritten_and_returned(layout: Layout) -> None:
    reads: list[Any] = [layout.segment_ids, layout.positions, layout.attention_mask]
    for read in reads:
        wanted = read()
        poisoned = np.full_like(wanted, 77)
        assert read(poisoned) is poisoned
        np.testing.assert_array_equal(poisoned, wanted)


@given(layouts())
def test_gather_indices_are_the_cells_of_rows(layout: Layout) -> None:
    cells = [
        start + i
        for start, length in zip(layout.starts.tolist(), layout.lengths.tolist(), strict=True)
        for i in range(length)
    ]
    got = layout.gather_indices()
    assert got.dtype == np.int64
    assert got.tolist() == cells


@given(layouts())
def test_cu_seqlens_agree_with_segment_ids(layout: Layout) -> None:
    """On every line segment k is `cu_seqlens[k - 1:k + 1]` long, and starts at `cu_seqlens_padded[k - 1]`."""
    lines = layout.segment_ids().reshape(-1, max(layout.width, 1))[: layout.size]
    for i, line in enumerate(lines):
        cu, padded = layout.cu_seqlens(i), layout.cu_seqlens_padded(i)
        assert cu.dtype == padded.dtype == np.int32
        assert cu[0] == 0
        assert padded[-1] == layout.width
        assert len(cu) == len(padded) > line.max()
        for k, length in enumerate(np.diff(cu), start=1):
            cells = np.flatnonzero(line == k)
            assert len(cells) == length
            assert length == 0 or cells[0] == padded[k - 1]
    present = layout.starts >= 0
    assert layout.cu_seqlens()[-1] == layout.lengths.sum()
    assert len(layout.cu_seqlens()) == len(layout.cu_seqlens_padded()) == present.sum() + 1
    if len(lines):
        assert sum(len(layout.cu_seqlens(i)) - 1 for i in range(len(lines))) == present.sum()


@given(layouts())
def test_pickles_whole(layout: Layout) -> None:
    again = pickle.loads(pickle.dumps(layout))
    assert again.shape == layout.shape
    for name in ("starts", "lengths", "row_lengths"):
        np.testing.assert_array_equal(getattr(again, name), getattr(layout, name))
    np.testing.assert_array_equal(again.segment_ids(), layout.segment_ids())


def test_a_used_layout_pickles_without_what_it_cached() -> None:
    layout = Layout.pack(range(1000), 1000)
    before = len(pickle.dumps(layout))
    layout.segment_ids()
    assert len(pickle.dumps(layout)) == before


@given(lengths(), st.integers(1, 5))
def test_concat_lays_rows_end_to_end(rows: list[int], align: int) -> None:
    layout = Layout.concat(rows, align=align)
    begin = 0
    for start, length in zip(layout.starts.tolist(), rows, strict=True):
        assert start == begin
        begin = -(-(begin + length) // align) * align
    assert layout.shape == (begin,)


@given(lengths(), st.sampled_from(["left", "right"]), st.none() | st.integers(0, 4), st.integers(1, 5))
def test_pad_lays_one_row_per_line(rows: list[int], side: str, more: int | None, multiple: int) -> None:
    longest = max(rows, default=0)
    width = None if more is None else longest + more
    layout = Layout.pad(rows, side=side, width=width, multiple_of=multiple)
    wide = -(-(longest if width is None else width) // multiple) * multiple
    assert layout.shape == (len(rows), wide)
    for line, length in zip(layout.attention_mask().tolist(), rows, strict=True):
        ones, zeros = [1] * length, [0] * (wide - length)
        assert line == (zeros + ones if side == "left" else ones + zeros)


@given(lengths(), st.integers(1, 12), st.integers(1, 3), st.sampled_from(["truncate", "alone", "drop"]))
def test_pack_puts_rows_in_their_bins(rows: list[int], capacity: int, align: int, oversize: str) -> None:
    layout = Layout.pack(rows, capacity, align=align, oversize=oversize)
    bins = plan_bins(rows, capacity, align=align, oversize=oversize)
    longest = max(rows, default=0)
    assert layout.width == (max(capacity, longest) if oversize == "alone" else capacity)
    for length, kept, start, found in zip(rows, layout.lengths, layout.starts, bins, strict=True):
        if found < 0:
            assert (oversize, start, kept) == ("drop", -1, 0)
            assert length > capacity
        else:
            assert kept == (min(length, capacity) if oversize == "truncate" else length)
            assert start // layout.width == found
            assert start % layout.width % align == 0


@settings(max_examples=500)
@given(
    lengths() | st.lists(st.integers(0, 3) | st.sampled_from([0, 8]), max_size=30),
    st.integers(1, 12),
    st.fixed_dictionaries(
        {
            "algorithm": st.sampled_from(ALGORITHMS),
            "align": st.integers(1, 5),
            "max_segments": st.none() | st.integers(1, 4),
            "oversize": st.sampled_from(OVERSIZE[1:-1]),
        }
    ),
    st.sampled_from([{}, {"order": "shuffled", "seed": 0}, {"order": "shuffled", "seed": 2**63 - 1}]),
)
def test_pack_equals_the_reference(
    rows: list[int], capacity: int, options: dict[str, Any], order: dict[str, Any]
) -> None:
    options |= order
    layout = Layout.pack(rows, capacity, **options)
    starts = pack_starts_reference(rows, capacity, **options)
    assert layout.starts.tolist() == starts
    # Empty rows come first where they share a start, and else all rows are in input order.
    wanted = sorted(range(len(rows)), key=lambda row: (starts[row], rows[row] > 0))
    if layout.order is None:
        assert [row for row in wanted if starts[row] >= 0] == [
            row for row in range(len(rows)) if starts[row] >= 0
        ]
    else:
        assert layout.order.tolist() == wanted
    assert (layout.lengths is layout.row_lengths) == (layout.lengths.tolist() == rows)


@settings(max_examples=examples(400))
@given(
    lengths() | st.lists(st.integers(0, 40), max_size=12),
    st.integers(1, 12),
    st.fixed_dictionaries(
        {
            "algorithm": st.sampled_from(ALGORITHMS),
            "align": st.integers(1, 5),
            "max_segments": st.none() | st.integers(1, 4),
        }
    ),
    st.sampled_from([{}, {"order": "shuffled", "seed": 5}]),
)
def test_rows_are_split_as_the_reference_does(
    rows: list[int], capacity: int, options: dict[str, Any], order: dict[str, Any]
) -> None:
    layout = Layout.pack(rows, capacity, oversize="split", **options, **order)
    pieces = pieces_reference(rows, capacity)
    sizes = [length for *_, length in pieces]
    plan = Layout.pack(sizes, capacity, **options, **order)
    assert layout.has_pieces == (len(pieces) > len(rows))
    assert layout.shape == plan.shape
    assert layout.starts.tolist() == pack_starts_reference(sizes, capacity, **options, **order)
    source_rows, begins = layout.pieces_of_rows()
    found = zip(source_rows.tolist(), begins.tolist(), layout.lengths.tolist(), strict=True)
    assert list(found) == pieces
    assert layout.row_lengths.tolist() == rows
    Layout(*layout.__reduce__()[1])  # which looks at all
    values = [np.arange(n) + 100 * row for row, n in enumerate(rows)]
    assert layout.positions().tolist() == positions_reference(layout).tolist()
    if rows:
        placed = place(values, layout, -1)
        assert placed.tolist() == place_reference(values, layout, -1).tolist()
        assert take(placed, layout).to_list() == [row.tolist() for row in values]


def test_empty_bins_stay_at_the_end_of_a_shuffled_order() -> None:
    for seed in range(9):
        layout = Layout.pack([8, 8, 5, 3], 8, order="shuffled", seed=seed, bins=6)
        assert layout.attention_mask()[3:].sum() == 0
        more = Layout.pack([8, 8, 5, 3], 8, order="shuffled", seed=seed, bins_multiple_of=4)
        assert more.starts.tolist() == layout.starts.tolist()
    assert Layout.pack([], 8, order="shuffled", seed=1, bins=2).shape == (2, 8)


def test_order_does_not_go_with_length() -> None:
    lengths = np.random.default_rng(0).lognormal(7.87, 0.9, 3000).astype(np.int64).clip(1, 32768)
    means = {}
    for order in ({}, {"order": "shuffled", "seed": 0}):
        bins = plan_bins(lengths, 32768, **order)  # type: ignore[arg-type]
        mean = np.bincount(bins, lengths) / np.bincount(bins)
        means[len(order)] = np.corrcoef(np.arange(len(mean)), mean)[0, 1]
    assert means[0] < -0.8
    assert abs(means[2]) < 0.1


@given(layouts(), st.data())
def test_spans_equal_a_loop(layout: Layout, data: Any) -> None:
    begins = [data.draw(st.integers(0, n)) for n in layout.row_lengths.tolist()]
    wanted = [data.draw(st.integers(0, n - b)) for n, b in zip(layout.row_lengths, begins, strict=True)]
    parts = layout.spans(np.array(begins, np.int64), np.array(wanted, np.int64))
    for row, (start, length) in enumerate(zip(layout.starts.tolist(), layout.lengths.tolist(), strict=True)):
        cells = [start + i for i in range(length)][begins[row] : begins[row] + wanted[row]]
        whole = not wanted[row] and start >= 0
        assert parts.lengths[row] == len(cells)
        assert parts.starts[row] == (cells[0] if cells else start if whole else -1)
    np.testing.assert_array_equal(parts.segment_ids() > 0, parts.attention_mask() > 0)


def test_a_union_of_rows_that_overlap_is_refused() -> None:
    rows = Layout.pad([3, 2])
    with pytest.raises(ValueError, match="row 2 starts at element 0, but elements below 3 are taken"):
        Layout.union([rows, rows])
    with pytest.raises(ValueError, match="are taken"):
        rows.select([1, 1], 1, 1)


def test_sizes_beyond_int64_are_refused() -> None:
    makers: list[Callable[[], Layout]] = [
        lambda: Layout.concat([2**62, 2**62]),
        lambda: Layout.concat([2**63 - 1], align=2),
        lambda: Layout.pad([1, 1], width=2**62),
        lambda: Layout.pack([1, 2**62], 2**62),
        lambda: Layout.pack([1], 2**62, bins_multiple_of=2),
    ]
    for make in makers:
        with pytest.raises(OverflowError, match="more than 2"):
            make()


def test_rows_of_a_bin_are_in_input_order() -> None:
    layout = Layout.pack([3, 7, 2, 3], capacity=8)
    assert layout.starts.tolist() == [8, 0, 11, 13]
    # Empty rows, too: each is where the one before it ends.
    assert Layout.pack([3, 0, 2, 0, 4], 16).starts.tolist() == [0, 3, 3, 5, 5]
    assert Layout.pack([0, 3, 0, 5, 0, 0], 8).starts.tolist() == [0, 0, 3, 3, 3, 3]
    assert Layout.pack([0, 3, 0, 5, 0, 0], 8).cu_seqlens().tolist() == [0, 0, 3, 3, 3, 3, 8]


def test_empty_rows_stay_on_their_line() -> None:
    assert Layout.pad([0, 3, 0]).segment_ids().tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    packed = Layout.pack([8, 0, 3], capacity=8)
    assert packed.cu_seqlens(line=0).tolist() == [0, 0, 8]
    assert packed.cu_seqlens(line=1).tolist() == [0, 3]
    assert Layout.concat([3, 0]).cu_seqlens(line=0).tolist() == [0, 3, 3]
    assert Layout.pad([0, 0]).cu_seqlens(line=1).tolist() == [0]


def test_empty_responses_stay_on_their_line() -> None:
    responses = Layout.pad([2, 3]).spans([2, 1], [0, 2])
    assert responses.segment_ids().tolist() == [[0, 0, 0], [0, 1, 1]]
    assert responses.cu_seqlens(line=1).tolist() == [0, 2]


def test_lists_of_no_rows() -> None:
    """NumPy makes float64 of an empty list, which are no integers and no bools."""
    layout = Layout.pack([], 4)
    assert len(layout.spans([], [])) == len(layout.kept([])) == len(layout.select([], 0, 0)) == 0


def test_spans_of_truncated_and_dropped_rows() -> None:
    layout = Layout.pack([9, 2, 12], capacity=8, oversize="truncate")
    tails = layout.spans([7, 0, 9], [2, 1, 3])
    assert tails.lengths.tolist() == [1, 1, 0]
    assert tails.starts.tolist() == [7, 16, -1]
    dropped = Layout.pack([9, 2], capacity=8, oversize="drop").spans(1, [8, 1])
    assert dropped.starts.tolist() == [-1, 1]
    assert dropped.row_lengths.tolist() == [8, 1]


def test_select_is_a_shard() -> None:
    layout = Layout.pack([3, 7, 2, 8], capacity=8)
    shard = layout.select([2, 0], first_line=2, lines=1)
    assert shard.shape == (1, 8)
    assert shard.segment_ids().tolist() == [[1, 1, 1, 2, 2, 0, 0, 0]]
    assert shard.starts.tolist() == [3, 0]
    whole = layout.select(np.arange(4), first_line=0, lines=3)
    np.testing.assert_array_equal(whole.segment_ids(), layout.segment_ids())


def test_lengths_of_any_integers() -> None:
    import torch

    wanted = Layout.concat([3, 0, 2]).starts.tolist()
    misaligned = np.frombuffer(b"x" + np.array([3, 0, 2]).tobytes(), np.uint8)[1:].view(np.int64)
    for given_ in (
        (3, 0, 2),
        np.array([3, 0, 2], np.uint8),
        np.array([3, 0, 2], ">i4"),
        np.array([2, 0, 3])[::-1],
        np.array([3, 9, 0, 9, 2, 9], np.uint64)[::2],
        misaligned,
        torch.tensor([3, 0, 2]),
    ):
        assert Layout.concat(given_).starts.tolist() == wanted


@pytest.mark.parametrize("rows", [[], [0], [0, 0, 0]])
def test_layouts_of_nothing(rows: list[int]) -> None:
    for layout in (Layout.concat(rows), Layout.pad(rows), Layout.pack(rows, 4)):
        assert layout.positions().shape == layout.shape
        assert layout.cu_seqlens().tolist() == [0] * (len(rows) + 1)
        assert layout.gather_indices().tolist() == []
        assert layout.max_seqlen == 0


def test_beyond_int32_is_refused_where_kernels_take_int32() -> None:
    layout = Layout.concat([2**31 - 1, 1])
    assert layout.size == 2**31
    with pytest.raises(OverflowError, match="beyond int32"):
        layout.cu_seqlens()
    with pytest.raises(OverflowError, match="beyond int32"):
        layout.cu_seqlens_padded()


def test_repr_is_short_whatever_the_rows() -> None:
    assert repr(Layout.pack([3, 7, 2], 8)) == "Layout(3 rows in 2 × 8, 75.0 % used)"
    assert repr(Layout.concat([10] * 100_000)) == "Layout(100,000 rows in 1,000,000, 100.0 % used)"
