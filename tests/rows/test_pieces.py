"""Layouts of pieces: rows that are split, windowed, cut or left out, beside loops over elements."""

# Lists for int64 arrays, and tensors for arrays, which both are taken at run time.
# mypy: disable-error-code="arg-type, attr-defined, dict-item, no-untyped-call, unused-ignore"

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rollkit import Layout, Ragged, Rollouts, pack, place, segments, take
from rollkit.testing import (
    DTYPES,
    attention_mask_reference,
    layouts,
    lengths,
    pad_reference,
    place_reference,
    positions_reference,
    raggeds,
    rollout_rows,
    segment_ids_reference,
    take_reference,
)

ALL_DTYPES = tuple(np.dtype(f"{d.kind}5") if d.itemsize == 0 else d for d in DTYPES)
BYTES = np.dtype(np.uint8)


def same(got: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Byte for byte, with dtype and shape."""
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    assert got.tobytes() == wanted.tobytes()


def whole(layout: Layout) -> list[tuple[int, int, int, int]]:
    """Row, begin, start and length of each piece."""
    rows, begins = layout.pieces_of_rows()
    columns = (rows, begins, layout.starts, layout.lengths)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def numbered(layout: Layout) -> list[NDArray[np.int64]]:
    """Rows of the layout's lengths whose elements all differ."""
    return [100 * row + np.arange(n) for row, n in enumerate(layout.row_lengths.tolist())]


def cells(layout: Layout) -> NDArray[np.int64]:
    """Which element of which row (see `numbered`) each element of the output is; -1 in padding."""
    rows = numbered(layout)
    return place_reference(rows, layout, -1) if rows else np.full(layout.shape, -1)


def equal_layouts(got: Layout, wanted: Layout) -> None:
    """The same plan, piece by piece."""
    assert got.shape == wanted.shape
    assert whole(got) == whole(wanted)
    assert got.row_lengths.tolist() == wanted.row_lengths.tolist()
    assert got.has_pieces == wanted.has_pieces


# What is read off.


@given(layouts())
def test_what_is_read_off_equals_the_reference(layout: Layout) -> None:
    same(layout.positions(), positions_reference(layout))
    same(layout.attention_mask(), attention_mask_reference(layout))
    same(layout.segment_ids(), segment_ids_reference(layout))
    placed = (cells(layout) >= 0).sum()
    assert layout.num_placed == placed
    assert layout.utilisation == (placed / layout.size if layout.size else 1.0)
    assert layout.max_seqlen == max(layout.lengths.tolist(), default=0)
    assert len(layout) == len(layout.row_lengths)


@given(layouts(), st.sampled_from([0x00, 0xFF]))
def test_out_is_overwritten_and_returned(layout: Layout, poison: int) -> None:
    makers: list[tuple[Callable[..., Any], Any, Any]] = [
        (layout.positions, np.int32, positions_reference),
        (layout.attention_mask, np.uint8, attention_mask_reference),
        (layout.segment_ids, np.int32, segment_ids_reference),
    ]
    for make, dtype, reference in makers:
        out = np.full(layout.shape, poison, dtype)
        assert make(out=out) is out
        same(out, reference(layout))


@given(layouts())
def test_cu_seqlens_are_of_pieces_in_memory_order(layout: Layout) -> None:
    pieces = [(start, length) for *_, start, length in whole(layout) if start >= 0]
    pieces.sort(key=lambda piece: (piece[0], piece[1] > 0))
    assert layout.cu_seqlens().tolist() == np.cumsum([0, *(n for _, n in pieces)]).tolist()
    assert layout.cu_seqlens_padded().tolist() == [*(start for start, _ in pieces), layout.size]
    if len(layout.shape) == 2 and layout.shape[0] > 1 and layout.width:
        for line in range(layout.shape[0]):
            on_line = [(s, n) for s, n in pieces if s // layout.width == line]
            assert layout.cu_seqlens(line).tolist() == np.cumsum([0, *(n for _, n in on_line)]).tolist()


@given(layouts())
def test_gather_indices_are_the_cells_of_rows(layout: Layout) -> None:
    flat = cells(layout).reshape(-1)
    got = flat[layout.gather_indices()]
    wanted = [int(cell) for cell in np.sort(flat) if cell >= 0]
    assert got.tolist() == wanted  # row after row, and each in its order


@given(layouts(), st.data())
def test_source_indices_are_the_elements_that_are_placed(layout: Layout, data: st.DataObject) -> None:
    gaps = [data.draw(st.integers(0, 2)) for _ in layout.row_lengths]
    firsts = np.cumsum([0, *layout.row_lengths.tolist()])[:-1] + np.cumsum(np.array(gaps, np.int64))
    values = np.full(int((firsts + layout.row_lengths).max(initial=0)), -1)
    for first, row in zip(firsts, numbered(layout), strict=True):
        values[first : first + len(row)] = row
    index = layout.source_indices(firsts)
    wanted = cells(layout).reshape(-1)[layout.gather_indices()]
    got = values[: layout.num_placed] if index is None else values[index]
    assert got.tolist() == wanted.tolist()


@given(layouts())
def test_reads_are_what_take_copies(layout: Layout) -> None:
    (begins, sizes), offsets = layout.reads(), layout.row_offsets()
    flat = cells(layout).reshape(-1)
    copied = [cell for b, n in zip(begins, sizes, strict=True) for cell in flat[b : b + n].tolist()]
    rows = [copied[a:b] for a, b in pairwise(offsets)]
    assert rows == take_reference(cells(layout), layout)
    assert (begins[sizes > 0] >= 0).all()


@given(layouts())
def test_layouts_pickle_and_print(layout: Layout) -> None:
    for again in (pickle.loads(pickle.dumps(layout)), copy.deepcopy(layout)):
        equal_layouts(again, layout)
        same(again.positions(), layout.positions())
        same(again.segment_ids(), layout.segment_ids())
    assert ("pieces of" in repr(layout)) == layout.has_pieces


@given(layouts())
def test_order_is_that_of_starts(layout: Layout) -> None:
    order = np.arange(len(layout.starts)) if layout.order is None else layout.order
    assert sorted(order.tolist()) == list(range(len(layout.starts)))
    present = [(s, n > 0) for *_, s, n in (whole(layout)[i] for i in order.tolist()) if s >= 0]
    assert present == sorted(present)


# Layouts of layouts.


@given(layouts(), st.data())
def test_spans_equal_a_loop(layout: Layout, data: st.DataObject) -> None:
    first = [data.draw(st.integers(0, n)) for n in layout.row_lengths.tolist()]
    wanted = [data.draw(st.integers(0, n - b)) for n, b in zip(layout.row_lengths, first, strict=True)]
    parts = layout.spans(np.array(first, np.int64), np.array(wanted, np.int64))
    assert parts.row_lengths.tolist() == wanted
    flat = cells(layout).reshape(-1).tolist()
    for row, (begin, length) in enumerate(zip(first, wanted, strict=True)):
        inside = range(100 * row + begin, 100 * row + begin + length)
        flat = [cell - begin if cell in inside else -1 if cell // 100 == row else cell for cell in flat]
    assert cells(parts).reshape(-1).tolist() == flat
    equal_layouts(pickle.loads(pickle.dumps(parts)), parts)  # which checks it


def test_spans_take_one_begin_for_all() -> None:
    layout = Layout((5,), [0, 3], [2, 2], [5, 4], [0, 1], [1, 2])
    assert whole(layout.spans(1, [3, 3])) == [(0, 0, 0, 2), (1, 1, 3, 2)]


@given(layouts(), st.data())
def test_kept_leaves_the_others_without_a_place(layout: Layout, data: st.DataObject) -> None:
    keep = np.array([data.draw(st.booleans()) for _ in layout.row_lengths], bool)
    kept = layout.kept(keep)
    flat = cells(layout)
    gone = ~keep[flat // 100] & (flat >= 0) if len(keep) else np.zeros(flat.shape, bool)
    same(cells(kept), np.where(gone, -1, flat))
    same(kept.segment_ids(), segment_ids_reference(kept))
    again = pickle.loads(pickle.dumps(kept))
    same(again.positions(), kept.positions())


@given(layouts(), st.data())
def test_select_takes_rows_and_lines(layout: Layout, data: st.DataObject) -> None:
    line = int(np.prod(layout.shape[1:]))
    first = data.draw(st.integers(0, layout.shape[0]))
    count = data.draw(st.integers(0, layout.shape[0] - first))
    begin, end = first * line, (first + count) * line
    pieces = [piece for piece in whole(layout) if piece[2] >= 0]
    fits = [True] * len(layout)
    for row in range(len(layout)):
        ours = [(start, start + length) for found, _, start, length in pieces if found == row]
        met = [(a, b) for a, b in ours if (begin < b and a < end) or (a == b and begin <= a <= end)]
        if layout.source_rows is not None and met:
            ours = met  # the others are left out
        fits[row] = all(begin <= a and b <= end for a, b in ours)
    rows = data.draw(st.permutations([row for row in range(len(layout)) if fits[row]]))
    found = layout.select(np.array(rows, np.int64), first, count)
    assert found.shape == (count, *layout.shape[1:])
    flat = cells(layout).reshape(-1)[begin:end].tolist()
    wanted = [100 * rows.index(c // 100) + c % 100 if c >= 0 and c // 100 in rows else -1 for c in flat]
    assert cells(found).reshape(-1).tolist() == wanted
    equal_layouts(pickle.loads(pickle.dumps(found)), found)
    for row in (row for row in range(len(layout)) if not fits[row]):
        with pytest.raises(ValueError, match=f"^row {row} is not on lines {first} to {first + count} of"):
            layout.select([row], first, count)


@given(layouts(), layouts())
def test_unions_count_rows_through(one: Layout, two: Layout) -> None:
    size = one.size + two.size
    wide = [
        Layout(
            (size,),
            np.where(part.starts < 0, -1, part.starts + before),
            part.lengths,
            part.row_lengths,
            part.source_rows,
            part.begins,
        )
        for part, before in ((one, 0), (two, one.size))
    ]
    for parts in (wide, wide[::-1]):
        both = Layout.union(parts)
        first = cells(parts[0])
        second = cells(parts[1])
        wanted = np.where(second >= 0, second + 100 * len(parts[0]), first)
        same(cells(both), wanted)
        same(both.positions(), positions_reference(both))
        equal_layouts(pickle.loads(pickle.dumps(both)), both)


def test_one_half_for_each_of_two_ranks() -> None:
    """Context parallelism by hand: every rank has the same plan of another half."""
    rows = [np.arange(4), np.arange(4) + 10]
    ranks = [Layout((4,), [0, 2], [2, 2], [4, 4], begins=[2 * rank, 2 * rank]) for rank in (0, 1)]
    assert [place(rows, rank).tolist() for rank in ranks] == [[0, 1, 10, 11], [2, 3, 12, 13]]
    assert ranks[1].positions().tolist() == [2, 3, 2, 3]
    assert take(place(rows, ranks[1]), ranks[1]).to_list() == [[2, 3], [12, 13]]


@given(layouts(pieces=True), st.data())
def test_edges_go_from_token_to_token_of_a_row(layout: Layout, data: Any) -> None:
    rows, begins = layout.pieces_of_rows()
    cells = {
        (row, begin + i): start + i
        for row, begin, start, length in zip(
            rows.tolist(), begins.tolist(), layout.starts.tolist(), layout.lengths.tolist(), strict=True
        )
        for i in range(length)
    }
    where = data.draw(st.none() | st.lists(st.booleans(), min_size=layout.size, max_size=layout.size))
    wanted = sorted(
        (token, cells[row, i - 1])
        for (row, i), token in cells.items()
        if (row, i - 1) in cells and (where is None or where[token])
    )
    before, after = layout.edges(None if where is None else np.array(where, bool).reshape(layout.shape))
    assert list(zip(after.tolist(), before.tolist(), strict=True)) == wanted


# Rows moved.


@given(st.data(), raggeds(ALL_DTYPES))
def test_place_and_take_equal_the_reference(data: st.DataObject, rows: Ragged) -> None:
    layout = data.draw(layouts(rows.lengths, pieces=True))
    fill = np.ones((), rows.dtype) if rows.dtype.kind not in "SU" else np.asarray("x").astype(rows.dtype)
    wanted = place_reference(rows, layout, fill)
    same(place(rows, layout, fill), wanted)
    for poison in (0x00, 0xFF):
        out = np.empty(wanted.shape, wanted.dtype)
        out.reshape(-1).view(np.uint8)[:] = poison
        assert place(rows, layout, fill, out=out) is out
        same(out, wanted)
    cut = data.draw(st.integers(0, len(rows)))
    same(place([rows[:cut], rows[cut:]], layout, fill), wanted)
    if len(rows):
        same(place(list(rows), layout, fill), wanted)
        same(place([rows[:cut], *rows[cut:]], layout, fill), wanted)
    taken = take(wanted, layout)
    assert taken.dtype == rows.dtype
    assert taken.inner == rows.inner
    assert taken.to_list() == take_reference(wanted, layout)


@given(st.data(), raggeds(ALL_DTYPES))
def test_take_undoes_place_of_pieces_that_cover_rows(data: st.DataObject, rows: Ragged) -> None:
    layout = data.draw(layouts(rows.lengths, pieces=True, covering=True))
    taken = take(place(rows, layout), layout)
    assert taken.lengths.tolist() == rows.lengths.tolist()
    for got, row in zip(taken, rows, strict=True):
        same(np.ascontiguousarray(got), np.ascontiguousarray(row))


@given(st.data(), raggeds([np.int64], [(), (2,)]))
def test_casts_are_of_the_elements_that_are_placed(data: st.DataObject, rows: Ragged) -> None:
    layout = data.draw(layouts(rows.lengths, pieces=True))
    for dtype in (np.int8, np.float32, np.float16, ">i2"):
        same(place(rows, layout, 3, dtype=dtype), place_reference(rows, layout, 3, dtype))
    values = np.array(rows.flat)
    large = Ragged(values, rows.offsets - rows.offsets[0])
    seen = np.zeros(len(values), bool)
    for row, begin, _, length in whole(layout):
        seen[large.offsets[row] + begin : large.offsets[row] + begin + length] = True
    values[~seen] = 1000  # nobody asked for these
    same(place(large, layout, dtype=np.int8), place_reference(large, layout, dtype=np.int8))


@given(st.data(), raggeds([np.float32], [(2, 2)]))
def test_fills_of_inner_shape(data: st.DataObject, rows: Ragged) -> None:
    layout = data.draw(layouts(rows.lengths))
    fill = np.arange(4, dtype=np.float32).reshape(2, 2)
    same(place(rows, layout, fill), place_reference(rows, layout, fill))


@pytest.mark.parametrize("kind", ["read-only", "strided", "reversed", "misaligned", "Fortran"])
def test_every_kind_of_memory(kind: str) -> None:
    values = np.arange(12).reshape(6, 2)
    found: NDArray[Any] = {
        "read-only": lambda: np.frombuffer(values.tobytes(), np.int64).reshape(6, 2),
        "strided": lambda: np.repeat(values, 2, axis=0)[::2],
        "reversed": lambda: values[::-1].copy()[::-1],
        "misaligned": lambda: np.frombuffer(b"x" + values.tobytes(), BYTES)[1:].view(np.int64).reshape(6, 2),
        "Fortran": lambda: np.asfortranarray(values),
    }[kind]()
    layout = Layout((2, 4), [5, 0, 3], [2, 2, 1], [4, 2], [0, 1, 0], [2, 0, 0])
    wanted = place_reference([values[:4], values[4:]], layout, -1)
    offsets = np.array([0, 4, 6])
    assert place(Ragged(found, offsets), layout, -1).tolist() == wanted.tolist()
    assert place([found[:4], found[4:]], layout, -1).tolist() == wanted.tolist()
    assert take(found[:5], Layout((5,), [3, 0], [2, 2], [4], [0, 0], [0, 2])).to_list() == [
        values[[3, 4, 0, 1]].tolist()
    ]


def test_take_is_a_view_where_pieces_are_end_to_end() -> None:
    flat = np.arange(6)
    halves = Layout((6,), [0, 2, 4], [2, 2, 2], [4, 2], [0, 0, 1], [0, 2, 0])
    assert halves.is_end_to_end()
    assert np.shares_memory(take(flat, halves).values, flat)
    turned = Layout((6,), [2, 0, 4], [2, 2, 2], [4, 2], [0, 0, 1], [0, 2, 0])
    assert not turned.is_end_to_end()
    assert take(flat, turned).to_list() == [[2, 3, 0, 1], [4, 5]]


def test_a_value_that_does_not_fit_is_named() -> None:
    layout = Layout((4,), [0, 2], [2, 2], [4], [0, 0], [0, 2])
    with pytest.raises(OverflowError, match=r"^row 0, position 3: 300 does not fit uint8$"):
        place([np.array([1, 2, 3, 300])], layout, dtype=np.uint8)


@given(st.data())
def test_arrays_of_dimensions_more(data: st.DataObject) -> None:
    """Layouts of three dimensions, as some trainers have them."""
    layout = data.draw(layouts(pieces=True))
    deep = Layout(
        (1, *layout.shape), layout.starts, layout.lengths, layout.row_lengths, *layout.pieces_of_rows()
    )
    same(deep.positions(), layout.positions()[None])
    assert take(deep.positions(), deep).to_list() == take(layout.positions(), layout).to_list()


# Batches.


def plan(data: st.DataObject, rows: list[dict[str, Any]], **options: Any) -> Layout:
    sizes = [len(row["prompt_token_ids"]) + len(row["response_ids"]) for row in rows]
    drawn: Layout = data.draw(layouts(sizes, pieces=True, **options))
    return drawn


@given(rollout_rows(), st.data())
def test_pack_of_pieces_equals_the_reference(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    layout = plan(data, rows)
    fills = {"advantages": 7, "rollout_expert_indices": 1, "token_types": 3}
    batch = pack(Rollouts.from_rows(rows), layout=layout, pad_id=5, fills=fills)
    # Padded to the right, a line begins with its row.
    full = pad_reference(rows, pad_id=5, side="right", fills=fills)
    for name, array in batch.items():
        lines = [line[:n] for line, n in zip(full[name], layout.row_lengths, strict=True)]
        fill = {"input_ids": 5, "route_masks": 1, **fills}.get(name, 0)
        same(
            array,
            segment_ids_reference(layout) if name == "segment_ids" else place_reference(lines, layout, fill),
        )
    assert set(batch) == full.keys() - {"attention_mask"}


@given(rollout_rows(), st.data())
def test_batches_of_pieces_unpack(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    rollouts = Rollouts.from_rows(rows)
    batch = pack(rollouts, layout=plan(data, rows, covering=True))
    assert batch.unpack("input_ids").to_list() == [
        [*row["prompt_token_ids"], *row["response_ids"]] for row in rows
    ]
    assert batch.unpack("positions").to_list() == [[*range(n)] for n in batch.layout.row_lengths]
    assert take(batch["input_ids"], batch.responses).to_list() == [row["response_ids"] for row in rows]
    assert take(batch["advantages"], batch.responses).to_list() == [row["advantages"] for row in rows]
    again = pickle.loads(pickle.dumps(batch))
    assert again.unpack("input_ids").to_list() == batch.unpack("input_ids").to_list()
    both = pack([rollouts, rollouts], layout=Layout.concat(2 * batch.layout.row_lengths.tolist()))
    assert both.num_rows == 2 * len(rows)


@given(rollout_rows(), st.data())
def test_responses_of_pieces_that_are_cut(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    layout = plan(data, rows)
    batch = pack(Rollouts.from_rows(rows), layout=layout)
    numbers = cells(layout)
    for row, found in enumerate(take(numbers, batch.responses).to_list()):
        first = len(rows[row]["prompt_token_ids"])
        there = take_reference(numbers, layout)[row]
        assert found == [cell for cell in there if cell - 100 * row >= first]


@given(rollout_rows(), st.data())
def test_memory_is_filled_again(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    rollouts = Rollouts.from_rows(rows)
    first = pack(rollouts, layout=plan(data, rows))
    for array in first.arrays.values():
        array.reshape(-1).view(np.uint8)[:] = 0xFF
    layout = plan(data, rows)
    again = pack(rollouts, layout=layout, out=first)
    for name, array in pack(rollouts, layout=layout).items():
        same(again[name], array)


def test_a_scalar_reward_is_on_the_last_token_of_its_row() -> None:
    rollouts = {"prompt_token_ids": [[1]], "response_ids": [[2, 3]], "rewards": [4.0]}
    halves = Layout((2, 2), [2, 0], [1, 2], [3], [0, 0], [0, 1])
    assert pack(rollouts, layout=halves)["rewards"].tolist() == [[0, 4], [0, 0]]
    # One of two batches has the reward, and not each of them.
    first, second = halves.select([0], 1, 1), halves.select([0], 0, 1)
    assert pack(rollouts, layout=first)["rewards"].tolist() == [[0, 0]]
    assert pack(rollouts, layout=second)["rewards"].tolist() == [[0, 4]]
    assert pack(rollouts, rows=[0], layout=first)["rewards"].tolist() == [[0, 0]]


def test_a_plan_of_other_rows_is_refused() -> None:
    layout = Layout((2, 2), [2, 0], [1, 2], [3], [0, 0], [0, 1])
    with pytest.raises(ValueError, match=r"^there are 2 rollouts, the layout has 1 rows$"):
        pack({"response_ids": [[1], [2]]}, layout=layout)
    with pytest.raises(ValueError, match=r"^row 0 has 1 tokens \(prompt and response\), the layout has 3"):
        pack({"response_ids": [[1]]}, layout=layout)


# Segments.


@given(layouts())
def test_runs_of_a_layout_are_those_of_its_ids(layout: Layout) -> None:
    if layout.width == 0:
        return
    got, wanted = segments.Runs.of(layout), segments.runs(layout.segment_ids())
    for name in ("ids", "starts", "lengths"):
        assert getattr(got, name).tolist() == getattr(wanted, name).tolist()
    same(segments.cu_seqlens(layout), segments.cu_seqlens(layout.segment_ids()))
    same(segments.cu_seqlens_padded(layout), segments.cu_seqlens_padded(layout.segment_ids()))


# What is refused.

SPLIT = Layout((4,), [0, 2], [2, 2], [4], [0, 0], [0, 2])

# One refusal a line.
# ruff: noqa: E501
REFUSALS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Layout((4,), [0], [2], [4], [1], [0]), ValueError, "piece 0 is of row 1; there are 1 rows"),
    (lambda: Layout((4,), [0], [2], [4], [-1], [0]), ValueError, "piece 0 is of row -1; there are 1 rows"),
    (lambda: Layout((4,), [0, 2], [2, 2], [4, 4], [0, 2], [0, 0]), ValueError, "piece 1 is of row 2; there are 2 rows"),
    (lambda: Layout((4,), [0], [2], [4], [0], [3]), ValueError, "piece 0 is 2 elements from element 3 on of row 0, which has 4"),
    (lambda: Layout((4,), [0], [2], [4], [0], [-1]), ValueError, "piece 0 is 2 elements from element -1 on of row 0, which has 4"),
    (lambda: Layout((4,), [0], [2], [4], [0], [2**63 - 1]), ValueError, f"piece 0 is 2 elements from element {2**63 - 1} on of row 0, which has 4"),
    (lambda: Layout((4,), [0, 2], [2, 2], [4], [0, 0], [0, 1]), ValueError, "pieces 0 and 1 both have element 1 of row 0"),
    (lambda: Layout((4,), [2, 0], [2, 2], [4], [0, 0], [1, 0]), ValueError, "pieces 1 and 0 both have element 1 of row 0"),
    (lambda: Layout((9,), [0, 4, 4], [4, 0, 2], [9], [0, 0, 0], [0, 2, 3]), ValueError, "pieces 0 and 2 both have element 3 of row 0"),
    (lambda: Layout((4,), [0], [2], [4, -1], [0], [0]), ValueError, "row 1 has -1 elements; expected 0 or more"),
    (lambda: Layout((4,), [0], [2], [4], [0, 0], [0]), ValueError, "source_rows has 2 rows, starts has 1"),
    (lambda: Layout((4,), [0], [2], [4], [0], [0, 0]), ValueError, "begins has 2 rows, starts has 1"),
    (lambda: Layout((4,), [0], [2, 2], [4], [0], [0]), ValueError, "lengths has 2 rows, starts has 1"),
    (lambda: Layout((4,), [0], [2], [4, 4], begins=[0]), ValueError, "row_lengths has 2 rows, starts has 1"),
    (lambda: Layout((4,), [0, 1], [2, 2], [4], [0, 0], [0, 2]), ValueError, "row 1 starts at element 1, but elements below 2 are taken; rows must be disjoint, and `order` must sort them by start"),
    (lambda: Layout((4,), [-1], [2], [4], [0], [0]), ValueError, "row 0 is dropped (its start is -1), but its length is 2; a dropped row has length 0"),
    (lambda: SPLIT.spans([3], [2]), ValueError, "row 0 has 4 elements; elements 3 to 3 + 2 are no part of it"),
    (lambda: SPLIT.spans([-1], [2]), ValueError, "row 0 has 4 elements; elements -1 to -1 + 2 are no part of it"),
    (lambda: SPLIT.spans([2**63 - 1], [2]), ValueError, f"row 0 has 4 elements; elements {2**63 - 1} to {2**63 - 1} + 2 are no part of it"),
    (lambda: SPLIT.spans([0, 0], [2]), ValueError, "begins has 2 rows, the layout has 1"),
    (lambda: SPLIT.spans([0], [2, 2]), ValueError, "lengths has 2 rows, the layout has 1"),
    (lambda: SPLIT.kept([True, True]), ValueError, "rows must be one bool per row, 1, got bool of shape (2,)"),
    (lambda: SPLIT.select([1], 0, 4), IndexError, "row 1 is out of range: there are 1 rows"),
    (lambda: SPLIT.select([0], 0, 3), ValueError, "row 0 is not on lines 0 to 3 of a layout of shape (4,)"),
    (lambda: place([np.arange(3)], SPLIT), ValueError, "row 0 has 3 elements, the layout has 4 for it"),
    (lambda: place([np.arange(4)] * 2, SPLIT), ValueError, "the column has 2 rows, the layout has 1"),
    (lambda: take(np.zeros(5), SPLIT), ValueError, "array must have shape (4,) (and inner dims), got (5,)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


@given(lengths(), st.data())
def test_pieces_that_share_an_element_are_refused(rows: list[int], data: st.DataObject) -> None:
    """Any pieces at all: refused exactly where two hold one element, or one holds what is not there."""
    if not rows:
        return
    pieces = data.draw(
        st.lists(st.tuples(st.integers(0, len(rows) - 1), st.integers(0, 6), st.integers(0, 4)), max_size=5)
    )
    held = [(row, element) for row, begin, n in pieces for element in range(begin, begin + n)]
    sound = len(set(held)) == len(held) and all(b + n <= rows[row] for row, b, n in pieces)
    starts = np.cumsum([0, *(n for *_, n in pieces)])
    columns = zip(*pieces, strict=True) if pieces else ((), (), ())
    source_rows, begins, sizes = (np.array(column, np.int64) for column in columns)
    try:
        Layout((int(starts[-1]),), starts[:-1], sizes, np.array(rows), source_rows, begins)
    except ValueError:
        assert not sound
    else:
        assert sound
