"""A list per element: rows of lists through everything, beside lists of lists of Python."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollkit import Layout, Ragged, concat, place, take
from rollkit._rows.lists import Lists
from rollkit.testing import layouts

Rows = list[list[list[int]]]

entries = st.lists(st.integers(0, 99), max_size=4)
rows_of_lists = st.lists(st.lists(entries, max_size=4), max_size=5)


def lists_of(lists: Any) -> list[list[int]]:
    """CSR as lists."""
    values, offsets = np.asarray(lists.values), np.asarray(lists.offsets)
    return [values[a:b].tolist() for a, b in pairwise(offsets)]


@given(rows_of_lists, st.sampled_from([None, np.int32, np.uint8, np.int64, np.float32]))
def test_rows_come_back(rows: Rows, dtype: Any) -> None:
    ragged = Ragged.from_rows(rows, dtype, lists=True)
    assert ragged.to_list() == rows
    assert len(ragged) == len(rows)
    assert ragged.inner == (-1,)
    assert dtype is None or ragged.dtype == dtype
    assert [row.to_list() for row in ragged] == rows  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(ragged)).equals(ragged)
    assert ragged.astype(np.float64 if dtype is np.float32 else np.int64).to_list() == rows
    arrays = [[np.array(x, np.int64) for x in row] for row in rows]
    assert Ragged.from_rows(arrays, lists=True).to_list() == rows
    assert Ragged.from_rows(ragged, lists=True) is ragged


@given(rows_of_lists, st.data())
def test_slices_and_rows_by_number(rows: Rows, data: st.DataObject) -> None:
    ragged = Ragged.from_rows(rows, lists=True)
    begin, end = (data.draw(st.integers(0, len(rows))) for _ in range(2))
    part = ragged[begin:end]
    assert part.to_list() == rows[begin:end]
    assert pickle.loads(pickle.dumps(part)).to_list() == rows[begin:end]
    assert part.equals(Ragged.from_rows(rows[begin:end], part.dtype, lists=True))
    if rows[begin:end]:
        numbers = data.draw(st.lists(st.integers(0, len(part) - 1), max_size=6))
        assert part.take(np.array(numbers, np.int64)).to_list() == [rows[begin:end][i] for i in numbers]
    assert part.astype(np.uint8).to_list() == rows[begin:end]


@given(st.lists(rows_of_lists, min_size=1, max_size=3))
def test_joined(parts: list[Rows]) -> None:
    found = concat([Ragged.from_rows(rows, np.int32, lists=True) for rows in parts])
    assert found.to_list() == [row for rows in parts for row in rows]


@given(layouts(), st.integers(1, 3), st.data())
def test_placed_and_taken(layout: Layout, parts: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = [[rng.integers(0, 99, rng.integers(0, 4)).tolist() for _ in range(n)] for n in layout.row_lengths]
    cuts = sorted(rng.integers(0, len(rows) + 1, parts - 1).tolist())
    bounds = [0, *cuts, len(rows)]
    pieces = [rows[a:b] for a, b in pairwise(bounds)]
    # Behind a row that does not belong to it, so that offsets begin beyond 0.
    column = [Ragged.from_rows([[[7]], *piece], np.int32, lists=True)[1:] for piece in pieces]
    placed = place(column, layout)
    assert type(placed) is Lists
    wanted: list[list[int]] = [[] for _ in range(layout.size)]
    for piece, (row, begin) in enumerate(zip(*layout.pieces_of_rows(), strict=True)):
        for i in range(layout.lengths[piece]):
            wanted[layout.starts[piece] + i] = rows[row][begin + i]
    assert lists_of(placed) == wanted
    if layout.lengths.sum() == layout.row_lengths.sum():
        assert take(placed, layout).to_list() == rows
    again = place(column, layout, dtype=np.int64)
    assert again.values.dtype == np.int64
    assert lists_of(again) == wanted


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax"])
def test_lists_by_number(framework: str) -> None:
    values, offsets = np.array([5, 9, 6, 7], np.int32), np.array([0, 2, 2, 4])
    if framework == "torch":
        import torch

        lists = Lists(torch.from_numpy(values), torch.from_numpy(offsets))
    elif framework == "jax":
        import jax

        lists = Lists(jax.numpy.asarray(values), jax.numpy.asarray(offsets))
    else:
        lists = Lists(values, offsets)
    found = lists.take([2, 0, 2, 1])
    assert lists_of(found) == [[6, 7], [5, 9], [6, 7], []]
    assert type(found.offsets) is type(lists.offsets)
    assert lists_of(lists.part(1, 3)) == [[], [6, 7]]
    with pytest.raises(IndexError, match="list 3 is out of range: there are 3"):
        lists.take([3])
    with pytest.raises(IndexError, match="lists 1 to 4 are out of range: there are 3"):
        lists.part(1, 4)


def test_refused() -> None:
    ragged = Ragged.from_rows([[[1], [2, 3]], [[4]]], lists=True)
    for call in (ragged.sum, ragged.mean, ragged.max):
        with pytest.raises(TypeError, match="is for numbers; these rows have a list for each element"):
            call()
    with pytest.raises(OverflowError, match="row 1, position 1: 300 does not fit uint8"):
        Ragged.from_rows([[[1]], [[2], [300]]], np.uint8, lists=True)
    with pytest.raises(OverflowError, match="row 0, position 1: 300 does not fit uint8"):
        Ragged.from_rows([[[9]], [[2], [300]]], np.int64, lists=True)[1:].astype(np.uint8)
    with pytest.raises(TypeError, match="row 1 is int; expected a list for each element"):
        Ragged.from_rows([[[1]], 5], lists=True)
    with pytest.raises(TypeError, match="row 0, position 0 is int, expected a list, tuple or array"):
        Ragged.from_rows([[1]], lists=True)
    with pytest.raises(TypeError, match="expected a list for each element, got int64"):
        Ragged.from_rows(Ragged.from_rows([[1]]), lists=True)
    with pytest.raises(TypeError, match="lists take no out and no fill"):
        place(ragged, Layout.concat([2, 1]), fill=1)
    with pytest.raises(ValueError, match="array has 3 lists, the layout has 9 places"):
        take(place(ragged, Layout.concat([2, 1])), Layout.concat([9]))
    with pytest.raises(ValueError, match=r"parts\[1\] has numbers, parts\[0\] a list for each element"):
        concat([ragged, Ragged.from_rows([[1]])])
    with pytest.raises(ValueError, match=r"row 0 is elements 0 to 0 \+ 9 of a source that has 3"):
        Ragged(ragged.values, np.array([0, 9]))


def test_equal_lengths_are_lists_too() -> None:
    rectangle = Ragged.from_rows([[[1, 2], [3, 4]], [[5, 6]]])
    assert rectangle.inner == (2,)
    lists = Ragged.from_rows(rectangle, lists=True)
    assert lists.inner == (-1,)
    assert lists.to_list() == rectangle.to_list()
    assert np.shares_memory(lists.flat.values, rectangle.values)  # type: ignore[attr-defined]
    assert not lists.equals(rectangle)
