"""Sequences shared by ranks: every token once, labels those of whole rows, and the rows back."""

# Lists for int64 arrays, and tensors for arrays, which both are taken at run time.
# mypy: disable-error-code="arg-type, no-untyped-call, unused-ignore"

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.thorough import by_level, combinations, examples

import rollkit
from rollkit import Layout, Ragged, labels, pack, place, take
from rollkit._rows.shard import SCHEMES
from rollkit.segments import cp_pad, cp_partition
from rollkit.testing import layouts, place_reference, shard_reference, take_reference

RULES = SCHEMES[:-1]


def numbered(layout: Layout) -> Ragged:
    """Rows of the layout's lengths whose elements all differ."""
    return Ragged(np.arange(int(layout.row_lengths.sum())) + 7, np.append(0, np.cumsum(layout.row_lengths)))


def cells(layout: Layout) -> NDArray[np.int64]:
    """Those rows in the output, -1 in padding."""
    if not len(layout):
        return np.full(layout.shape, -1)
    return place_reference(numbered(layout), layout, -1)


@st.composite
def even(draw: Any, multiple: int) -> Layout:
    """Layouts of every kind, the slots of whose pieces are multiples of a number."""
    kind = draw(st.sampled_from(["concat", "left", "right", "pack", "flat", "lined", "crossing"]))
    if kind in ("concat", "left", "right", "pack"):
        rows = draw(st.lists(st.integers(0, 20), min_size=1, max_size=5))
        if kind == "concat":
            return Layout.concat(rows, align=multiple)
        if kind == "pack":
            capacity = multiple * draw(st.integers(1, 4))
            return Layout.pack(rows, capacity, align=multiple, oversize="truncate", bins_multiple_of=2)
        return Layout.pad(rows, side=kind, multiple_of=multiple)
    drawn = draw(layouts(pieces=True, max_rows=4))
    order = np.argsort(drawn.starts, kind="stable") if drawn.order is None else drawn.order
    slots = -(-drawn.lengths[order] // multiple) * multiple
    starts = np.empty_like(drawn.starts)
    widest = max(int(slots.max(initial=0)), multiple)
    starts[order] = np.arange(len(order)) * widest if kind == "lined" else np.cumsum(slots) - slots
    shape: tuple[int, ...] = (int(slots.sum()),)
    if kind == "lined":
        shape = (len(order), widest)
    elif kind == "crossing":
        shape = (-(-shape[0] // (2 * multiple)), 2 * multiple)
    starts[drawn.lengths == 0] = -1
    return Layout(shape, starts, drawn.lengths, drawn.row_lengths, *drawn.pieces_of_rows())


@st.composite
def cases(draw: Any, schemes: tuple[str, ...] = SCHEMES) -> tuple[Layout, int, str, int]:
    """A layout, and how it is dealt."""
    size, align = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    return draw(even(2 * size * align)), size, draw(st.sampled_from(schemes)), align


@settings(max_examples=examples(400), deadline=None)
@given(cases(RULES))
def test_equals_a_loop_over_tokens(case: tuple[Layout, int, str, int]) -> None:
    layout, size, scheme, align = case
    wanted = shard_reference(layout, size, scheme, align=align)
    shards = layout.shard(size, scheme, align=align)
    assert len(shards) == size
    rows, laid, positions = numbered(layout), cells(layout).reshape(-1), layout.positions().reshape(-1)
    for shard, places in zip(shards, wanted, strict=True):
        assert shard.shape == places.shape
        np.testing.assert_array_equal(place(rows, shard, -1), laid[places])
        np.testing.assert_array_equal(shard.positions(), positions[places])


@settings(max_examples=examples(400), deadline=None)
@given(cases())
def test_every_token_is_some_ranks_once(case: tuple[Layout, int, str, int]) -> None:
    layout, size, scheme, align = case
    shards = layout.shard(size, scheme, align=align)
    rows, laid = numbered(layout), cells(layout)
    parts = [place(rows, shard, -1) for shard in shards]
    np.testing.assert_array_equal(np.sort(parts, axis=None), np.sort(laid, axis=None))
    for shard in shards:
        checked = pickle.loads(pickle.dumps(shard))  # by the constructor, which looks at all there is
        assert checked.equals(shard)
        apart = (shard.starts + shard.lengths)[:-1] < shard.starts[1:]
        rows_of, begins = shard.pieces_of_rows()
        goes_on = (rows_of[:-1] == rows_of[1:]) & (begins[:-1] + shard.lengths[:-1] == begins[1:])
        on_one_line = shard.starts[:-1] // max(shard.width, 1) == shard.starts[1:] // max(shard.width, 1)
        if layout.source_rows is None:
            assert (apart | ~goes_on | ~on_one_line).all()  # as few pieces as there can be
    wanted = take_reference(laid, layout)
    assert take(parts, shards).to_list() == wanted
    assert take(np.array(parts), shards).to_list() == wanted
    stacked = Layout.stack(shards)
    assert stacked.shape == (size, *shards[0].shape)
    np.testing.assert_array_equal(place(rows, stacked, -1), parts)


@settings(max_examples=examples(300), deadline=None)
@given(cases())
def test_labels_are_those_of_rows_shifted_first(case: tuple[Layout, int, str, int]) -> None:
    layout, size, scheme, align = case
    rows = numbered(layout)
    shifted = [[*row[1:], -100] if row else [] for row in rows.to_list()]
    for shard in (layout, *layout.shard(size, scheme, align=align)):
        wanted = place(Ragged.from_rows(shifted, np.int64), shard, -100)
        np.testing.assert_array_equal(place(rows, shard.shifted(), -100), wanted)
        at = shard.labels_from
        assert at.dtype == np.int64
        assert at.shape == shard.shape
        values = np.append(rows.values, -100)  # -1 is the last
        np.testing.assert_array_equal(values[at], wanted)
        unmoved = shard.shape, shard.starts, shard.lengths, shard.row_lengths
        assert shard.shifted(0).equals(Layout(*unmoved, *shard.pieces_of_rows()))
        for by in (2, 3, 2**62):
            later = [[*row[by:], *[-1] * min(by, len(row))] for row in rows.to_list()]
            wanted = place(Ragged.from_rows(later, np.int64), shard, -1)
            np.testing.assert_array_equal(place(rows, shard.shifted(by), -1), wanted)


@settings(max_examples=examples(100), deadline=None)
@given(cases(), st.data())
def test_parts_of_rows_are_sharded_as_rows_are(
    case: tuple[Layout, int, str, int], data: st.DataObject
) -> None:
    layout, size, scheme, align = case
    prompts = np.array([data.draw(st.integers(0, n)) for n in layout.row_lengths.tolist()], np.int64)
    responses = layout.row_lengths - prompts
    rows = [row[p:] for p, row in zip(prompts, numbered(layout).to_list(), strict=True)]
    whole = [[-1] * p + row for p, row in zip(prompts, rows, strict=True)]
    for shard in layout.shard(size, scheme, align=align):
        for laid in (shard, shard.shifted()):
            found = place(Ragged.from_rows(rows, np.int64), laid.spans(prompts, responses), -1)
            np.testing.assert_array_equal(found, place(Ragged.from_rows(whole, np.int64), laid, -1))


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.integers(0, 12), max_size=6), st.integers(1, 4), st.sampled_from(SCHEMES))
def test_labels_of_a_batch_then_sharded(rows: list[int], size: int, scheme: str) -> None:
    given_rows = {"response_ids": [list(range(1, n + 1)) for n in rows]}
    batch = pack(given_rows, capacity=16 * size, align=2 * size)
    before = labels(batch, mask=None, shift=True)
    column = take(before, batch.layout)
    for shard in batch.layout.shard(size, scheme, align=1):
        found = place(given_rows["response_ids"], shard.shifted(), -100, dtype=np.int64)
        np.testing.assert_array_equal(found, place(column, shard, -100))


@settings(max_examples=examples(200), deadline=None)
@given(cases(), st.sampled_from(["numpy", "torch", "jax"]))
def test_row_sums_add_up_over_ranks(case: tuple[Layout, int, str, int], framework: str) -> None:
    layout, size, scheme, align = case
    make: Any = {"numpy": np.asarray, "torch": torch.from_numpy, "jax": jnp.asarray}[framework]
    rows, numbers = numbered(layout), np.arange(len(layout)) + 1
    total = np.zeros(len(layout), np.int64)
    for shard in layout.shard(size, scheme, align=align):
        found = shard.row_sums(make(place(rows, shard, fill=10**6)))  # padding counts in none
        assert type(found) is type(make(numbers))
        total += np.asarray(found)
        np.testing.assert_array_equal(
            np.asarray(shard.spread(make(numbers))),
            place([[n] * m for n, m in zip(numbers, layout.row_lengths, strict=True)], shard)
            if len(layout)
            else np.zeros(shard.shape),
        )
    assert total.tolist() == take(place(rows, layout), layout).sum().tolist()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_go_through_on_torch(scheme: str) -> None:
    layout = Layout.pack([5, 3, 9, 0, 4], 16, align=4)
    shards = layout.shard(2, scheme, align=1)
    weights = torch.arange(21, dtype=torch.float64)
    values = torch.linspace(1, 2, 21, dtype=torch.float64, requires_grad=True)
    rows = Ragged(values, np.array([0, 5, 8, 17, 17, 21]))
    parts = [place(rows, shard, fill=0.0) for shard in shards]
    sums = sum(shard.row_sums(part) for shard, part in zip(shards, parts, strict=True))
    torch.testing.assert_close(sums, torch.stack([row.sum() for row in values.split([5, 3, 9, 0, 4])]))
    back = take(parts, shards)
    spread = [shard.spread(sums) for shard in shards]
    loss = (back.values * weights).sum() + take(spread, shards).values.sum()
    loss.backward()
    lengths_of = torch.repeat_interleave(torch.tensor([5.0, 3, 9, 0, 4]), torch.tensor([5, 3, 9, 0, 4]))
    torch.testing.assert_close(values.grad, weights + lengths_of.double())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_go_through_on_jax(scheme: str) -> None:
    layout = Layout.pack([5, 3, 9, 0, 4], 16, align=4)
    shards = layout.shard(2, scheme, align=1)
    weights = jnp.arange(21.0)

    @jax.jit
    def loss(values: Any) -> Any:
        rows = Ragged(values, np.array([0, 5, 8, 17, 17, 21]))
        parts = [place(rows, shard, fill=0.0) for shard in shards]
        sums: Any = sum(shard.row_sums(part) for shard, part in zip(shards, parts, strict=True))
        spread = [shard.spread(sums) for shard in shards]
        later = [place(rows, shard.shifted()) for shard in shards]
        return (
            (take(parts, shards).values * weights).sum()
            + take(spread, shards).values.sum()
            + sum(part.sum() for part in later)
        )

    firsts = np.isin(np.arange(21), [0, 5, 8, 17])
    wanted = np.arange(21) + np.repeat([5, 3, 9, 0, 4], [5, 3, 9, 0, 4]) + ~firsts
    np.testing.assert_allclose(jax.grad(loss)(jnp.linspace(1, 2, 21)), wanted)


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bool, torch.int64),
        (torch.uint8, torch.int64),
    ],
)
def test_sums_are_wide(dtype: Any, wanted: Any) -> None:
    shard = Layout.concat([300, 100]).shard(4, "striped")[1]
    sums = shard.row_sums(torch.ones(100, dtype=dtype))
    assert sums.dtype == wanted
    assert sums.tolist() == [75, 25]
    inner = shard.row_sums(torch.ones(100, 2, 3, dtype=dtype))
    assert inner.shape == (2, 2, 3)
    on_numpy = shard.row_sums(np.ones((100, 2), np.float16))
    assert on_numpy.dtype == np.float64
    assert on_numpy.tolist() == [[75, 75], [25, 25]]
    on_jax = shard.row_sums(jnp.ones(100, jnp.bfloat16))
    assert on_jax.dtype == jnp.float32
    assert on_jax.tolist() == [75, 25]


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.integers(0, 30), max_size=6), st.integers(1, 5), st.sampled_from(RULES))
def test_cp_partition_names_the_same_tokens(rows: list[int], size: int, scheme: str) -> None:
    padding = cp_pad(rows, cp_size=size)
    layout = Layout.concat(rows, align=padding.alignment)
    stream = cells(layout)
    for rank, shard in enumerate(layout.shard(size, scheme)):
        found = cp_partition(
            padding.cu_seqlens, size, rank, scheme, cu_seqlens_padded=padding.cu_seqlens_padded
        )
        np.testing.assert_array_equal(stream[found.indices], place(numbered(layout), shard, -1))
        taken = take(place(numbered(layout), shard, -1), shard)
        assert taken.lengths.tolist() == np.diff(found.cu_seqlens).tolist()


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_line_of_one_row_is_one_slot(side: str) -> None:
    layout = Layout.pad([5, 0, 12], side=side, multiple_of=4)
    for one, other in zip(layout.shard(2, "zigzag"), layout.shard(2, "dual_chunk"), strict=True):
        assert one.equals(other)


def test_a_row_over_two_lines_has_a_slot_on_each() -> None:
    layout = Layout.at((2, 8), np.array([0, 12]), np.array([12, 4]))
    for shard, wanted in zip(layout.shard(2), shard_reference(layout, 2), strict=True):
        np.testing.assert_array_equal(place(numbered(layout), shard, -1), cells(layout).reshape(-1)[wanted])


def test_shards_of_shards() -> None:
    layout = Layout.concat([37, 11, 80], align=16)
    for outer in layout.shard(2, "dual_chunk"):
        inner = outer.shard(4, "contiguous")
        rows = numbered(layout)
        np.testing.assert_array_equal(
            np.concatenate([place(rows, shard) for shard in inner]), place(rows, outer)
        )
        np.testing.assert_array_equal(
            np.concatenate([shard.positions() for shard in inner]), outer.positions()
        )


@pytest.mark.parametrize(("scheme", "size"), combinations(SCHEMES, [1, 2, 7, 64]))
def test_few_rows_and_many_ranks(scheme: str, size: int) -> None:
    multiple = 2 * size
    for layout in (
        Layout.concat([]),
        Layout.concat([0, 0]),
        Layout.concat([1], align=multiple),
        Layout.pad([], width=3 * multiple),
        Layout.pad([0, 1, 0], multiple_of=multiple),
        Layout((3, multiple), [], [], []),
        Layout((2**40, 0), [0], [0], [0]),
        Layout((2, 3, multiple), [0, multiple], [1, 2], [1, 2]),
    ):
        shards = layout.shard(size, scheme, align=1)
        assert len(shards) == size
        assert all(shard.shape == (*layout.shape[:-1], layout.width // size) for shard in shards)
        assert sum(shard.num_placed for shard in shards) == layout.num_placed
        for shard in shards:
            assert shard.row_lengths is layout.row_lengths
        if layout.size:
            assert (
                take([shard.positions() for shard in shards], shards).lengths.tolist()
                == layout.row_lengths.tolist()
            )


def excess(layout: Layout, size: int, scheme: str = "balanced") -> float:
    """How much more the busiest rank attends to than the mean, over lines: where all wait for it."""
    costs = np.zeros((size, layout.shape[0]))
    for rank, shard in enumerate(layout.shard(size, scheme)):
        positions = shard.positions().astype(np.float64) + shard.attention_mask()
        costs[rank] = positions.sum(axis=-1)
    return float(costs.max(axis=0).sum() / costs.mean(axis=0).sum() - 1)


def test_balanced_shares_cost_about_the_same() -> None:
    rng = np.random.default_rng(0)
    rows = np.minimum(rng.lognormal(8, 1, by_level(100, 1000)), 32768).astype(int)
    layout = Layout.pack(rows, 65536)
    assert excess(layout, 16) <= 0.003
    assert excess(layout, 16, "dual_chunk") > 0.05  # what it is there for
    assert layout.shard(16, "balanced")[3].equals(layout.shard(16, "balanced")[3])


def test_balanced_knows_how_far_into_its_row_a_piece_is() -> None:
    layout = Layout((1, 1024), [0, 512], [512, 512], [512, 100_512], [0, 1], [0, 100_000])
    for shard in layout.shard(2, "balanced"):
        assert take(shard.positions(), shard).lengths.tolist() == [256, 256]


def test_blocks_of_balanced_stay_whole() -> None:
    layout = Layout.pack([100, 500, 33, 210], 512)
    for shard in layout.shard(4, "balanced", align=32):
        places = place(numbered(layout), shard, -1).reshape(-1, 32)
        laid = {tuple(block) for block in cells(layout).reshape(-1, 32).tolist()}
        assert {tuple(block) for block in places.tolist()} <= laid


def test_streams_are_padded_at_their_end() -> None:
    assert Layout.concat([3, 4], multiple_of=8).shape == (8,)
    assert Layout.concat([3, 4], align=4, multiple_of=16).cu_seqlens_padded().tolist() == [0, 4, 16]
    assert Layout.concat([], multiple_of=8).shape == (0,)


def test_shards_print_as_layouts() -> None:
    first, _ = rollkit.Layout.concat([8]).shard(2)
    assert repr(first) == "Layout(2 pieces of 1 rows in 4, 100.0 % used)"
