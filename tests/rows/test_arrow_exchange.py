"""Arrow both ways by its C interface: other packages' tables in and out, over the same memory."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.house.refusals import check_refusal

from rollkit import Ragged, Rollouts, _native, concat, pack
from rollkit.testing import raggeds, rollout_rows

ROWS = [[1, 2], [], [3], [4, 5, 6]]
NESTED = [[[1, 2], []], [], [[3]], [[4, 5], [6]]]
ROLLOUTS = Rollouts(
    {
        "prompt_token_ids": [[1, 2], [3]],
        "response_ids": [[4], [5, 6]],
        "rewards": [1.0, 0.0],
        "stop_reasons": ["stop", None],
        "sampling_masks": [[[4, 9]], [[5], [6, 7, 8]]],
    }
)


def plain(rollouts: Rollouts) -> dict[str, Any]:
    columns = rollouts.items()
    return {name: found.to_list() if isinstance(found, Ragged) else [*found] for name, found in columns}


class OnlyCapsules:
    """What shows nothing but the interface."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__arrow_c_"):
            return getattr(self.found, name)
        raise AttributeError(name)


@given(rollout_rows())
def test_rollouts_come_back(rows: list[dict[str, Any]]) -> None:
    rollouts = Rollouts.from_rows(rows)
    assert Rollouts.from_arrow(rollouts).equals(rollouts)
    assert Rollouts.from_arrow(OnlyCapsules(rollouts[1:])).equals(rollouts[1:])
    assert Rollouts.from_arrow(rollouts.to_arrow()).equals(rollouts)


@given(raggeds(["?", *"bhilBHILefd"], [(), (3,), (2, 2)]), st.integers(0, 5))
def test_rows_come_back(rows: Ragged, begin: int) -> None:
    assert Ragged.from_arrow(rows).equals(rows)
    assert Ragged.from_arrow(OnlyCapsules(rows[begin:])).equals(rows[begin:])


@given(st.lists(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3), max_size=4), st.integers(0, 3))
def test_lists_per_element_come_back(rows: Any, begin: int) -> None:
    import pyarrow as pa

    ragged = Ragged.from_rows(rows, np.int32, lists=True)[begin:]
    assert Ragged.from_arrow(ragged, lists=True).equals(ragged)
    array = ragged.to_arrow()
    assert array.to_pylist() == rows[begin:]
    array.validate(full=True)
    chunked = pa.chunked_array([array, array])
    assert Ragged.from_arrow(chunked, lists=True).to_list() == rows[begin:] * 2


def test_memory_is_shared_both_ways() -> None:
    import pyarrow as pa

    values = np.arange(1000)
    ragged = Ragged(values, np.array([0, 400, 1000]))
    table = pa.table(Rollouts({"x": ragged, "y": np.arange(2.0)}))
    there = table["x"].chunk(0)
    assert there.values.to_numpy().ctypes.data == values.ctypes.data
    back = Rollouts.from_arrow(table)
    assert back.ragged("x").values.ctypes.data == values.ctypes.data
    assert not back.ragged("x").values.flags.writeable
    del table, there, ragged
    assert back.ragged("x")[0].sum() == values[:400].sum()  # and is kept
    slices = pa.table({"x": pa.array(ROWS, pa.large_list(pa.int64()))}).slice(1, 3)
    assert Rollouts.from_arrow(slices).ragged("x").to_list() == ROWS[1:]


def test_requested_schemas() -> None:
    import pyarrow as pa

    ragged = Ragged.from_rows(ROWS, np.int32)
    assert pa.array(ragged).type == pa.large_list(pa.int32())
    assert pa.field("x", pa.large_list(pa.int32())).type == pa.array(ragged).type
    wanted = pa.list_(pa.int32())
    capsules = ragged.__arrow_c_array__(wanted.__arrow_c_schema__())
    assert pa.Array._import_from_c_capsule(*capsules).type == wanted
    assert pa.DataType._import_from_c_capsule(ragged.__arrow_c_schema__()) == pa.large_list(pa.int32())
    schema = pa.schema([("prompt_token_ids", wanted), ("response_ids", pa.large_list(pa.int32()))])
    stream = ROLLOUTS.select("prompt_token_ids", "response_ids").__arrow_c_stream__(
        schema.__arrow_c_schema__()
    )
    found = pa.RecordBatchReader._import_from_c_capsule(stream).read_all()
    assert found.schema == schema
    with pytest.raises(OverflowError, match="2147483648 elements are beyond the int32 offsets"):
        _native.export_array(("list", np.array([0, 2**31]), ("numbers", np.zeros(1, np.uint8), None), False))


@pytest.mark.parametrize("kind", ["list_view", "large_list_view"])
def test_views(kind: str) -> None:
    import pyarrow as pa

    make = getattr(pa, kind)
    array = pa.array(ROWS, make(pa.int32()))
    assert Ragged.from_arrow(array).to_list() == ROWS
    assert Ragged.from_arrow(array[1:]).to_list() == ROWS[1:]
    offsets = pa.array([3, 0, 1], pa.int32() if kind == "list_view" else pa.int64())
    sizes = pa.array([2, 1, 3], offsets.type)
    cls = pa.ListViewArray if kind == "list_view" else pa.LargeListViewArray
    apart = cls.from_arrays(offsets, sizes, pa.array([10, 11, 12, 13, 14]))
    assert Ragged.from_arrow(apart).to_list() == [[13, 14], [10], [11, 12, 13]]
    nested = pa.array([[[1, 2]], [[3, 4], [5, 6]]], make(pa.list_(pa.int64(), 2)))
    assert Ragged.from_arrow(nested).to_list() == [[[1, 2]], [[3, 4], [5, 6]]]
    texts = pa.array([["a"]], make(pa.string()))
    assert Rollouts.from_arrow(pa.table({"x": texts}))["x"] == [["a"]]


def test_other_kinds_of_columns() -> None:
    import datetime

    import pyarrow as pa

    table = pa.table(
        {
            "text": pa.array(["a", None, "ö" * 20]),
            "view": pa.array(["a", None, "ö" * 20], pa.string_view()),
            "large": pa.array(["a", None, ""], pa.large_string()),
            "dictionary": pa.array(["x", "y", None]).dictionary_encode(),
            "texts": [["a", "b"], [], [None]],
            "struct": [{"a": 1}, None, {"a": 3}],
            "date": [datetime.date(2026, 1, 1)] * 3,
            "nulls": pa.nulls(3),
            "bools": [True, None, False],
            "flags": [True, False, True],
            "numbers": pa.array([1.5, None, 2.0]),
            "int8": pa.array([1, 2, 3], pa.int8()),
        }
    )
    found = Rollouts.from_arrow(table)
    wanted = table.to_pydict()
    assert plain(found) == wanted
    assert found["flags"].dtype == bool  # type: ignore[union-attr]
    assert found["int8"].dtype == np.int8  # type: ignore[union-attr]
    assert plain(Rollouts.from_arrow(table[1:])) == table[1:].to_pydict()
    assert plain(Rollouts.from_arrow(pa.concat_tables([table, table]))) == {
        k: v * 2 for k, v in wanted.items()
    }
    assert list(Rollouts.from_arrow(table.schema.empty_table())) == table.column_names


def test_polars() -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(ROLLOUTS)
    assert frame["response_ids"].to_list() == [[4], [5, 6]]
    assert frame["sampling_masks"].to_list() == ROLLOUTS.ragged("sampling_masks").to_list()
    assert plain(Rollouts.from_arrow(frame)) == plain(ROLLOUTS)
    assert Ragged.from_arrow(frame["response_ids"]).to_list() == [[4], [5, 6]]
    assert Rollouts({"response_ids": pl.Series([[1], [2, 3]])}).ragged("response_ids").to_list() == [
        [1],
        [2, 3],
    ]
    assert ROLLOUTS.with_columns(x=pl.Series([1, 2]))["x"].tolist() == [1, 2]  # type: ignore[union-attr]
    assert pack(frame, 8)["input_ids"].tolist() == pack(ROLLOUTS, 8)["input_ids"].tolist()
    lazy = pl.concat([frame, frame], rechunk=False)
    assert Rollouts.from_arrow(lazy).ragged("response_ids").to_list() == [[4], [5, 6]] * 2


def test_duckdb() -> None:
    duckdb = pytest.importorskip("duckdb")
    pa = pytest.importorskip("pyarrow")
    reader = pa.RecordBatchReader.from_stream(ROLLOUTS)
    relation = duckdb.sql("select response_ids, rewards from reader order by rewards")
    found = Rollouts.from_arrow(relation)
    assert found.ragged("response_ids").to_list() == [[5, 6], [4]]
    assert reader is not None


def test_arro3() -> None:
    arro3 = pytest.importorskip("arro3.core")
    table = arro3.Table.from_arrow(ROLLOUTS)
    assert plain(Rollouts.from_arrow(table)) == plain(ROLLOUTS)
    assert Ragged.from_arrow(arro3.Array.from_arrow(Ragged.from_rows(ROWS))).to_list() == ROWS


def test_pandas() -> None:
    pd = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match="Rollouts are no array; take a column"):
        pd.DataFrame(ROLLOUTS)
    frame = pd.DataFrame(ROLLOUTS.to_rows())
    assert list(frame.columns) == list(ROLLOUTS)
    assert len(frame) == 2
    back = Rollouts.from_arrow(pd.DataFrame({"response_ids": [[1], [2, 3]], "rewards": [0.0, 1.0]}))
    assert back.ragged("response_ids").to_list() == [[1], [2, 3]]


def test_datasets() -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"response_ids": [[1], [2, 3], [4]], "rewards": [0.0, 1.0, 2.0]})
    assert Rollouts.from_arrow(data).ragged("response_ids").to_list() == [[1], [2, 3], [4]]
    turned = data.select([2, 0])
    assert Rollouts.from_arrow(turned).ragged("response_ids").to_list() == [[4], [1]]
    assert pack(data, 8)["input_ids"].tolist() == [[1, 2, 3, 4, 0, 0, 0, 0]]


def test_splits_are_taken_one_by_one() -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset(ROLLOUTS.select("response_ids", "rewards").to_arrow())
    splits = datasets.DatasetDict({"train": data, "test": data})
    message = "table must be an Arrow table, got DatasetDict; take one of its tables: 'train', 'test'"
    check_refusal(lambda: Rollouts.from_arrow(splits), TypeError, message)
    message = (
        "table must be an Arrow table, got IterableDataset, a stream of rows; Rollouts.from_rows takes it"
    )
    check_refusal(lambda: Rollouts.from_arrow(data.to_iterable_dataset()), TypeError, message)
    assert len(Rollouts.from_rows(data.to_iterable_dataset())) == 2
    message = (
        "column 'train': expected an array of Arrow, got a table; take one of its columns, or of several "
    )
    check_refusal(lambda: pack(splits, 4), TypeError, message + "tables one")
    assert plain(Rollouts.from_arrow(splits["test"])) == plain(Rollouts.from_arrow(data))


def test_tables_of_several_packages_are_joined() -> None:
    pa, pl = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    tables = [pa.table(ROLLOUTS), pl.DataFrame(ROLLOUTS), ROLLOUTS]
    joined = concat([Rollouts.from_arrow(table) for table in tables])
    assert plain(joined[2:4]) == plain(ROLLOUTS)
    assert pack(tables, 8).layout.equals(pack(joined, 8).layout)


def test_arrays_per_row_come_back() -> None:
    more = {"x": np.arange(6.0).reshape(2, 3), "y": np.arange(8, dtype=np.int16).reshape(2, 2, 2)}
    rollouts = ROLLOUTS.with_columns(**more)
    for rows in (rollouts, rollouts[1:], rollouts[:0]):
        assert Rollouts.from_arrow(rows).equals(rows)
        assert Rollouts.from_arrow(OnlyCapsules(rows)).equals(rows)
    found = Rollouts.from_arrow(rollouts)["x"]
    assert np.shares_memory(found, more["x"])
    pa = pytest.importorskip("pyarrow")
    twice = pa.concat_tables([rollouts.to_arrow()] * 2)
    assert Rollouts.from_arrow(twice).equals(concat([rollouts, rollouts]))
    # Known names say that rows of one length are tokens.
    tokens = pa.table({"response_ids": pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))})
    assert isinstance(Rollouts.from_arrow(tokens)["response_ids"], Ragged)


DIGITS = st.decimals(min_value=-(10**9), max_value=10**9, places=3, allow_nan=False)


@given(
    st.lists(st.none() | DIGITS, min_size=1, max_size=5), st.lists(st.lists(DIGITS, max_size=3), max_size=4)
)
def test_decimals_are_numbers(entries: list[Any], rows: list[list[Decimal]]) -> None:
    pa = pytest.importorskip("pyarrow")
    found = Rollouts.from_arrow(pa.table({"x": pa.array(entries, pa.decimal128(15, 3))}))["x"]
    assert list(found) == [None if entry is None else float(entry) for entry in entries]
    lists = pa.array(rows, pa.list_(pa.decimal128(15, 3)))
    assert Ragged.from_arrow(lists).to_list() == [[float(entry) for entry in row] for row in rows]
    assert Ragged.from_arrow(lists[1:]).to_list() == [[float(entry) for entry in row] for row in rows[1:]]


def test_decimals_keep_all_their_digits() -> None:
    pa = pytest.importorskip("pyarrow")
    whole = pa.table({"x": pa.array([Decimal(2**53 + 1), Decimal(-(2**63))], pa.decimal128(38, 0))})
    assert Rollouts.from_arrow(whole)["x"].tolist() == [2**53 + 1, -(2**63)]  # type: ignore[union-attr]
    fine, long = Decimal("0.1"), Decimal("0.12345678901234567890")
    message = "0.12345678901234567890 has more digits than float64 holds; cast to double first"
    one = pa.chunked_array([pa.array([fine], pa.decimal128(30, 20)), pa.array([long], pa.decimal128(30, 20))])
    rewards = pa.table({"rewards": one})
    check_refusal(lambda: Rollouts.from_arrow(rewards), OverflowError, f"column 'rewards': row 1: {message}")
    rows = pa.array([[fine], [], [fine, long]])
    check_refusal(lambda: Ragged.from_arrow(rows), OverflowError, f"row 2, position 1: {message}")
    huge = pa.table({"x": pa.array([Decimal(2**63)], pa.decimal128(38, 0))})
    message = "column 'x': row 0: 9223372036854775808 has more digits than int64 holds; cast to double first"
    check_refusal(lambda: Rollouts.from_arrow(huge), OverflowError, message)


def test_an_index_is_a_column() -> None:
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"response_ids": [[1], [2], [3]], "rewards": [0.0, 1.0, 1.0]})
    assert list(Rollouts.from_arrow(frame)) == ["response_ids", "rewards"]
    frame.index = ["a", "b", "c"]
    chosen = frame[frame.rewards > 0]
    for table in (chosen, pa.Table.from_pandas(chosen)):
        found = Rollouts.from_arrow(table)["__index_level_0__"]
        assert found == ["b", "c"]
    assert list(Rollouts.from_arrow(chosen.rename_axis("uid")))[-1] == "uid"
    assert list(Rollouts.from_arrow(chosen.reset_index(drop=True))) == ["response_ids", "rewards"]


def test_a_stream_is_read_once() -> None:
    import pyarrow as pa

    reader = pa.table({"x": [[1]]}).to_reader()
    assert Rollouts.from_arrow(reader).ragged("x").to_list() == [[1]]
    capsule = pa.table({"x": [[1]]}).__arrow_c_stream__()

    class Again:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return capsule

    assert Rollouts.from_arrow(Again()).ragged("x").to_list() == [[1]]
    with pytest.raises(ValueError, match="this Arrow capsule was read before, and can be read once"):
        Rollouts.from_arrow(Again())


def test_streams_that_fail() -> None:
    import pyarrow as pa

    def batches() -> Any:
        yield pa.record_batch({"x": [[1]]})
        raise OSError("the disk is gone")

    reader = pa.RecordBatchReader.from_batches(pa.schema({"x": pa.list_(pa.int64())}), batches())
    with pytest.raises((ValueError, OSError), match="the disk is gone"):
        Rollouts.from_arrow(reader)


@pytest.mark.parametrize("found", [5, "capsule", None, (1, 2), object()])
def test_what_is_no_capsule(found: Any) -> None:
    class Odd:
        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            return found

    class Stream:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return found

    for odd in (Odd(), Stream()):
        with pytest.raises((TypeError, ValueError)):
            Rollouts.from_arrow(odd)


def test_refused() -> None:
    import ml_dtypes
    import pyarrow as pa

    with pytest.raises(TypeError, match=r"column 'x': Arrow has no dtype like bfloat16; cast"):
        pa.table(Rollouts({"x": Ragged(np.zeros(2, ml_dtypes.bfloat16), np.array([0, 2]))}))
    odd = Rollouts({"a\0b": [1]})
    for name in ("a\0b", "\ud800"):
        with pytest.raises(ValueError, match="Arrow's interface has no names with a NUL, or of no UTF-8"):
            pa.table(odd.rename({"a\0b": name}))
    assert list(Rollouts.from_arrow(pa.table({"a\0b": [1], "a\0c": [2]}))) == ["a\0b", "a\0c"]
    with pytest.raises(ValueError, match="two columns 'x'"):
        Rollouts.from_arrow(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]))
    with pytest.raises(TypeError, match="table must be an Arrow table, got an array of int64"):
        Rollouts.from_arrow(pa.array([1, 2]))
    for rows in ([{"x": [1]}, None], [{"x": [1]}, {"x": [2]}, None]):
        with pytest.raises(ValueError, match=f"row {len(rows) - 1} is null; drop null rows first"):
            Rollouts.from_arrow(pa.array(rows))
    with pytest.raises(TypeError, match="column 'x': expected an array of Arrow, got a table"):
        Rollouts({"x": pa.table({"a": [1]})})
    with pytest.raises(ValueError, match="row 1, position 0 is null; fill or drop nulls first"):
        Ragged.from_arrow(pa.array([[[1]], [None]]), lists=True)
    with pytest.raises(ValueError, match="row 1, position 1 is null; fill or drop nulls first"):
        Ragged.from_arrow(pa.array([[[1]], [[2], [None]]]), lists=True)
    with pytest.raises(TypeError, match="expected a list for each element, got int64"):
        Ragged.from_arrow(pa.array([[1]]), lists=True)


def test_no_package_is_imported() -> None:
    program = """
import sys
import numpy as np
from rollkit import Ragged, Rollouts
r = Rollouts({"response_ids": [[1], [2, 3]], "rewards": [1.0, 2.0], "stop_reasons": ["a", None]})
assert Rollouts.from_arrow(r).equals(r)
assert Ragged.from_arrow(r["response_ids"]).to_list() == [[1], [2, 3]]
assert not {"pyarrow", "torch", "jax", "polars", "pandas"} & set(sys.modules), sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
