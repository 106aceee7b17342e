"""`pack_table` against its oracle, in every kind of table; against TRL's in tests/compat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from rollkit import Rollouts
from rollkit._rows import tables
from rollkit._rows.best_fit import best_fit_decreasing
from rollkit.datasets import pack_table
from rollkit.testing import pack_table_reference

STRATEGIES = ("bfd", "bfd_split", "wrapped")
VALUES: Any = {
    pa.int8(): lambda at: at % 128 - 64,
    pa.uint16(): lambda at: at,
    pa.int32(): lambda at: -at,
    pa.int64(): lambda at: at << 40,
    pa.float16(): lambda at: np.float16(at),
    pa.float64(): lambda at: at / 4,
    pa.timestamp("us"): lambda at: at,
    pa.bool_(): lambda at: at % 3 == 0,
    pa.string(): lambda at: "x" * (at % 3),
    pa.list_(pa.int8()): lambda at: [at % 7] * (at % 3),
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, list[int | None], int]:
    """A table of two columns, the lengths of its rows (None of a null), and what to pack to."""
    seq_length = draw(st.integers(1, 24))
    longest = draw(st.sampled_from([1, seq_length, 3 * seq_length]))
    lengths = draw(st.lists(st.none() | st.integers(0, longest), max_size=40))
    lists = draw(st.sampled_from([pa.list_, pa.large_list]))
    columns = {}
    for name in ("tokens", "others"):
        kind = draw(st.sampled_from(list(VALUES)))
        columns[name] = pa.chunked_array(_rows(lengths, VALUES[kind]), lists(kind))
    table, cut = pa.table(columns), draw(st.integers(0, len(lengths)))
    match draw(st.sampled_from(["whole", "slice", "chunks", "nulls"])):
        case "slice":
            table, lengths = table.slice(cut), lengths[cut:]
        case "chunks":
            table = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
        case "nulls":  # of values
            table = pa.table({name: _with_nulls(column) for name, column in columns.items()})
    return table, lengths, seq_length


def _rows(lengths: list[int | None], value: Any) -> list[Any]:
    ends = np.cumsum([0] + [length or 0 for length in lengths]).tolist()
    rows = zip(ends[:-1], lengths, strict=True)
    return [[None if n is None else [value(at) for at in range(begin, begin + n)] for begin, n in rows]]


def _with_nulls(column: Any) -> Any:
    rows = [None if row is None else [None, *row[1:]][: len(row)] for row in column.to_pylist()]
    return pa.chunked_array([rows], column.type)


@settings(max_examples=examples(400))
@given(cases(), st.sampled_from(STRATEGIES))
def test_pack_table(case: tuple[Any, list[int | None], int], strategy: str) -> None:
    table, lengths, seq_length = case
    found = pack_table(table, seq_length, strategy)
    found.validate(full=True)
    numbers = [[i] * (n or 0) for i, n in enumerate(lengths)]
    _, wanted_lengths = pack_table_reference(numbers, seq_length, strategy)
    for name, column in zip(table.column_names, table.columns, strict=True):
        rows = [row or [] for row in column.to_pylist()]
        assert found[name].to_pylist() == pack_table_reference(rows, seq_length, strategy)[0]
        assert found[name].type == column.type
    assert found.column_names == [*table.column_names, *["seq_lengths"] * (strategy != "wrapped")]
    if strategy != "wrapped":
        assert found["seq_lengths"].to_pylist() == wanted_lengths
        large = pa.types.is_large_list(table["tokens"].type)
        assert found["seq_lengths"].type == pa.list_(pa.int64() if large else pa.int32())


@settings(max_examples=examples(400))
@given(st.integers(1, 70_000), st.lists(st.floats(0, 1), max_size=60))
def test_best_fit(capacity: int, shares: list[float]) -> None:
    """Capacities beyond 16 bits are sorted another way."""
    lengths = np.array([max(1, int(share * capacity)) for share in shares], np.int64)
    order, counts = best_fit_decreasing(lengths, capacity)
    rows = [[i] * length for i, length in enumerate(lengths.tolist())]
    packed, wanted = pack_table_reference(rows, capacity)
    assert counts.tolist() == list(map(len, wanted))
    firsts = [
        row[at] for row, sizes in zip(packed, wanted, strict=True) for at in np.cumsum([0, *sizes[:-1]])
    ]
    assert order.tolist() == firsts


def test_of_equally_full_rows_the_one_that_has_been_so_for_longer_gets_the_next() -> None:
    """TRL's tie, where `plan_bins` takes the first one opened: the first comes to have room for 1 later."""
    table = pa.table({"a": [[length] * length for length in (7, 5, 4, 2, 1)]})
    assert pack_table(table, 10)["seq_lengths"].to_pylist() == [[7, 2], [5, 4, 1]]


@pytest.mark.parametrize("offset", [0, 3])
def test_wrapped_is_a_view(offset: int) -> None:
    column = pa.array([[1, 2, 3], [4], [5, 6, 7, 8, 9]])
    for kind in (column.type, pa.large_list(pa.int64())):
        table = pa.table({"a": pa.chunked_array([column.cast(kind)])}).slice(offset > 0)
        found = pack_table(table, 4, "wrapped")["a"].chunk(0)
        whole = table["a"].chunk(0).values
        assert found.values.buffers()[1].address == whole.buffers()[1].address
        assert found.to_pylist()[0] == [1, 2, 3, 4, 5, 6, 7, 8, 9][offset : offset + 4]


def test_packed_rows_have_memory_of_their_own() -> None:
    values = np.arange(6, dtype=np.int32)
    table = pa.table({"a": pa.ListArray.from_arrays(np.array([0, 2, 6], np.int32), pa.array(values))})
    found = pack_table(table, 6)
    values[:] = -1
    assert found["a"].to_pylist() == [[2, 3, 4, 5, 0, 1]]


def test_lists_beyond_their_offsets_are_of_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_IN_A_LIST_ARRAY", 7)
    rows = [[1, 2, 3], [4, 5, 6], [7, 8], [9]]
    for strategy in STRATEGIES:
        found = pack_table(pa.table({"a": rows}), 3, strategy)["a"]
        assert found.num_chunks == 2
        assert found.to_pylist() == pack_table_reference(rows, 3, strategy)[0]
    large = pa.table({"a": pa.array(rows, pa.large_list(pa.int64()))})
    assert pack_table(large, 3)["a"].num_chunks == 1
    with pytest.raises(
        OverflowError, match=r"^a list of 9 values is beyond the offsets of list<item: int64>; "
    ):
        pack_table(pa.table({"a": rows}), 9, "wrapped")


def test_any_table_that_speaks_arrow() -> None:
    rows = [[1, 2], [3]]
    wanted = {"a": [[1, 2, 3]], "n": [[2, 1]]}
    batch = pa.RecordBatch.from_pydict({"a": rows})
    for table in (batch, pa.RecordBatchReader.from_batches(batch.schema, [batch]), Rollouts({"a": rows})):
        assert pack_table(table, 3, lengths="n").to_pydict() == wanted
    pl = pytest.importorskip("polars")
    assert pack_table(pl.DataFrame({"a": rows}), 3, lengths="n").to_pydict() == wanted


def test_a_dataset_of_hugging_face_in_its_own_order() -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"a": [[1, 2], [3], [4]]}).select([2, 0])
    assert pack_table(dataset, 3).to_pydict() == {"a": [[1, 2, 4]], "seq_lengths": [[2, 1]]}


def test_buffers_that_are_not_aligned() -> None:
    raw = np.zeros(25, np.uint8)
    raw[1:] = np.arange(3).view(np.uint8)
    values = pa.Array.from_buffers(pa.int64(), 3, [None, pa.py_buffer(raw[1:])])
    table = pa.table({"a": pa.ListArray.from_arrays(pa.array([0, 1, 3], pa.int32()), values)})
    assert pack_table(table, 2)["a"].to_pylist() == [[1, 2], [0]]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_table_without_tokens(strategy: str) -> None:
    rows: Any
    for rows in ([], [[]], [[], []]):
        found = pack_table(pa.table({"a": pa.array(rows, pa.list_(pa.int32()))}), 4, strategy)
        assert found.num_rows == 0
        assert found.schema.field("a").type == pa.list_(pa.int32())
