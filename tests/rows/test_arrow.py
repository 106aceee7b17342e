"""Arrow lists to rows and back: every list type, slices, chunks, nulls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollkit import Ragged, Rollouts, concat, iter_chunks, read
from rollkit.testing import raggeds

ROWS = [[1, 2], [], [3], [4, 5, 6]]
NESTED = [[[1, 2]], [], [[3, 4], [5, 6]]]
LISTS = [
    (pa.list_(pa.int32()), ROWS),
    (pa.large_list(pa.int32()), ROWS),
    (pa.list_(pa.float16()), [[np.float16(1)], [np.float16(2), np.float16(3)]]),
    (pa.list_(pa.bool_()), [[True, False], [], [True]]),
    (pa.list_(pa.int32(), 2), [[1, 2], [3, 4], [5, 6]]),
    (pa.list_(pa.list_(pa.int16())), NESTED),
    (pa.large_list(pa.large_list(pa.uint8())), NESTED),
    (pa.list_(pa.list_(pa.int64(), 2)), NESTED),
    (pa.list_(pa.list_(pa.list_(pa.int8(), 1), 2)), [[[[1], [2]]], [[[3], [4]], [[5], [6]]]]),
    (pa.list_(pa.list_(pa.int32(), 2), 1), [[[1, 2]], [[3, 4]]]),
]


@pytest.mark.parametrize(("kind", "rows"), LISTS, ids=lambda found: str(found)[:40])
def test_every_list_type_and_every_slice(kind: Any, rows: list[Any]) -> None:
    array = pa.array(rows, kind)
    for begin in range(len(rows) + 1):
        for end in range(begin, len(rows) + 1):
            assert Ragged.from_arrow(array[begin:end]).to_list() == rows[begin:end]
    chunked = pa.chunked_array([array[1:], array[:1], array[:0]], kind)
    assert Ragged.from_arrow(chunked).to_list() == rows[1:] + rows[:1]
    assert Ragged.from_arrow(pa.chunked_array([], kind)).to_list() == []


def test_numbers_are_not_copied() -> None:
    values = np.arange(1000)
    array = pa.LargeListArray.from_arrays(pa.array([0, 400, 1000], pa.int64()), pa.array(values))
    for part in (array, array[1:]):
        rows = Ragged.from_arrow(part)
        assert np.shares_memory(rows.values, values)
        assert not rows.values.flags.writeable
    assert np.shares_memory(Ragged(values, np.array([0, 9])).to_arrow().values.to_numpy(), values)


@given(raggeds(["?", *"bhilBHILefd"], [(), (3,), (2, 2)]))
def test_there_and_back(rows: Ragged) -> None:
    array = rows.to_arrow()
    assert array.to_pylist() == rows.to_list()
    assert Ragged.from_arrow(array).equals(rows)
    array.validate(full=True)


@given(raggeds([np.int32], [(), (2,)]), st.integers(0, 9), st.integers(0, 9))
def test_slices_there_and_back(rows: Ragged, a: int, b: int) -> None:
    assert rows[a:b].to_arrow().to_pylist() == rows[a:b].to_list()
    assert Ragged.from_arrow(rows.to_arrow()[a : max(a, b)]).to_list() == rows.to_list()[a : max(a, b)]


NULLS = [
    ([[1], None, [2]], pa.list_(pa.int32()), "row 1 is null"),
    ([[1], [2, None]], pa.list_(pa.int32()), "row 1, position 1 is null"),
    ([[1, 2], None], pa.list_(pa.int32(), 2), "row 1 is null"),
    ([[1, 2], [3, None]], pa.list_(pa.int32(), 2), "row 1, position 1 is null"),
    ([[[1]], [[2], None]], pa.list_(pa.list_(pa.int32())), "row 1, position 1 is null"),
    ([[[1, 2]], [[3, 4], [5, None]]], pa.list_(pa.list_(pa.int32())), "row 1, position 1 is null"),
    ([[[1, 2]], [[3, 4], [5, None]]], pa.list_(pa.list_(pa.int32(), 2)), "row 1, position 1 is null"),
    ([[], [True, None]], pa.list_(pa.bool_()), "row 1, position 1 is null"),
]


@pytest.mark.parametrize(("rows", "kind", "message"), NULLS, ids=lambda found: str(found)[:30])
def test_nulls_are_refused_with_the_row_named(rows: Any, kind: Any, message: str) -> None:
    array = pa.array(rows, kind)
    with pytest.raises(ValueError, match=f"^{message}; fill or drop nulls first$"):
        Ragged.from_arrow(array)
    # The last rows alone have other numbers; the first row has no null.
    with pytest.raises(ValueError, match=r"^" + message.replace("row 1", "row 0")):
        Ragged.from_arrow(array[1:])
    assert Ragged.from_arrow(array[:1]).to_list() == rows[:1]


def test_inner_lists_must_be_alike() -> None:
    array = pa.array([[[1]], [[1], [1, 2]]])
    with pytest.raises(ValueError, match=r"^row 1, position 1 has an inner list of 2, the first has 1;"):
        Ragged.from_arrow(array)
    assert Ragged.from_arrow(array[:1]).to_list() == [[[1]]]
    assert Ragged.from_arrow(pa.array([[[1]], [[1, 2]]])[1:]).to_list() == [[[1, 2]]]


def test_lists_without_elements() -> None:
    for inner in (pa.list_(pa.int32()), pa.list_(pa.int32(), 3)):
        rows = Ragged.from_arrow(pa.array([[], []], pa.list_(inner)))
        assert rows.to_list() == [[], []]
        assert rows.dtype == np.int32


def test_other_libraries_by_the_c_interface() -> None:
    class Column:
        """What polars and others show of a column."""

        def __init__(self, array: Any) -> None:
            self.array = array

        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            return self.array.__arrow_c_array__(requested_schema)

    assert Ragged.from_arrow(Column(pa.array(ROWS))).to_list() == ROWS


@pytest.mark.parametrize(
    "found", [pa.array([1, 2]), pa.array(["a"]), pa.table({"a": [[1]]}), [[1]], pa.array([["a"]])]
)
def test_what_is_no_list_of_numbers_is_refused(found: Any) -> None:
    with pytest.raises(TypeError, match=r"^expected (an Arrow list array|lists of numbers), got "):
        Ragged.from_arrow(found)


def test_tables_there_and_back() -> None:
    rollouts = Rollouts(
        {
            "response_ids": ROWS,
            "rewards": [1.0, 2.0, 3.0, 4.0],
            "is_last_step": [True, False, True, True],
            "stop_reasons": ["stop", "length", "stop", None],
            "routes": Ragged(np.arange(12).reshape(6, 2), np.array([0, 2, 2, 3, 6])),
        }
    )
    table = rollouts.to_arrow()
    assert table.num_rows == 4
    assert Rollouts.from_arrow(table).equals(rollouts)
    assert Rollouts.from_arrow(table[1:3]).equals(rollouts[1:3])
    assert Rollouts.from_arrow(table.to_batches()[0]).equals(rollouts)
    assert Rollouts.from_arrow(pa.concat_tables([table[2:], table[:2]])).equals(rollouts.take([2, 3, 0, 1]))


def test_columns_with_nulls_are_named_or_kept_as_objects() -> None:
    assert Rollouts.from_arrow(pa.table({"x": [1, None]}))["x"] == [1, None]
    with pytest.raises(ValueError, match=r"^column 'x': row 1 is null"):
        Rollouts.from_arrow(pa.table({"x": [[1], None]}))


def tensors(shape: tuple[int, ...], count: int) -> Any:
    size = int(np.prod(shape))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(count * size)), size)
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int64(), shape), flat)


def test_tensors_keep_their_shape(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    column = tensors((2, 3), 4)
    rows = np.arange(24).reshape(4, 2, 3)
    lists = pa.ListArray.from_arrays([0, 1, 1, 4], column)
    for array in (column, pa.chunked_array([column[:1], column[1:]])):
        assert Ragged.from_arrow(array).to_list() == rows.tolist()
    assert Ragged.from_arrow(column[1:3]).to_list() == rows[1:3].tolist()
    wanted = [rows[:1].tolist(), [], rows[1:].tolist()]
    assert Ragged.from_arrow(lists).to_list() == wanted
    assert Ragged.from_arrow(lists[1:]).to_list() == wanted[1:]
    table = pa.table({"x": lists})
    parquet.write_table(table, tmp_path / "x.parquet")
    with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as file:
        file.write_table(table)
    for found in (
        Rollouts.from_arrow(table),
        read(tmp_path / "x.parquet"),
        read(tmp_path / "x.arrow"),
        concat(list(iter_chunks(tmp_path / "x.parquet", rows=2))),
    ):
        assert found.ragged("x").to_list() == wanted
    turned = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int64(), (2, 3), permutation=[1, 0]), column.storage
    )
    with pytest.raises(TypeError, match=r"^tensors with a permutation \(\[1, 0\]\) are not read"):
        Ragged.from_arrow(turned)


def test_nulls_among_tensors_are_named() -> None:
    storage = pa.array([[1, 2, 3, 4], None], pa.list_(pa.int64(), 4))
    column = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int64(), (2, 2)), storage)
    with pytest.raises(ValueError, match=r"^row 1 is null"):
        Ragged.from_arrow(column)
    with pytest.raises(ValueError, match=r"^row 1, position 0 is null"):
        Ragged.from_arrow(pa.ListArray.from_arrays([0, 1, 2], column))


def test_chunks_are_not_joined_by_arrow() -> None:
    """Whose int32 offsets would overflow at an inner level: rows and errors count through the chunks."""
    chunks = [
        pa.array([[[1, 2]], []]),
        pa.array([], pa.list_(pa.list_(pa.int64()))),
        pa.array([[[3, 4], [5, 6]]]),
    ]
    assert Ragged.from_arrow(pa.chunked_array(chunks)).to_list() == [[[1, 2]], [], [[3, 4], [5, 6]]]
    with pytest.raises(ValueError, match=r"^row 2, position 1 is null"):
        Ragged.from_arrow(pa.chunked_array([chunks[0], pa.array([[[3, 4], None]])]))
