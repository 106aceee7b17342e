"""`rollkit convert`: what it writes in chunks is what all rows at once make, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.files.test_save import rollouts, same
from tests.thorough import examples

from rollkit import Ragged, Rollouts, read, save
from rollkit._files.convert import convert
from rollkit._files.paths import sources
from rollkit._files.read import Reading, read_sources
from rollkit._files.stream import no_rollouts

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

KINDS = ["arrow", "parquet", "jsonl", "safetensors"]
ERRORS = (TypeError, ValueError, OverflowError)


def alike(a: Rollouts, b: Rollouts) -> bool:
    """Whether rollouts are the same to the bit."""
    lists = [name for name, column in a.items() if isinstance(column, Ragged) and column.of_lists]
    plain = [name for name in a if name not in lists]
    if list(a) != list(b) or not same(a.select(*plain), b.select(*plain)):
        return False
    return a.select(*lists).equals(b.select(*lists))


def outcome(write: Callable[[Path], object], path: Path) -> Any:
    """What is read of a file, and its schema; or what is said of what cannot be written."""
    path.unlink(missing_ok=True)
    try:
        write(path)
    except ERRORS as error:
        assert not [left for left in path.parent.iterdir() if left.name.startswith(".rollkit")]
        assert not path.exists()
        return type(error), str(error).replace(str(path), "PATH")
    schema = None
    if path.suffix == ".arrow":
        schema = pa.ipc.open_file(path).schema
    if path.suffix == ".parquet":
        schema = parquet.read_schema(path)
    return read(path), schema, path.read_bytes() if schema is None else None


def check_same(
    paths: Sequence[Path], out: Path, rows: int, how: Reading | None = None, *, words: bool = True
) -> Any:
    """Compare with what all rows at once make."""
    how = Reading() if how is None else how
    given = sources(list(paths))

    def at_once(path: Path) -> None:
        found = read_sources(given, how)
        if not found.columns:
            raise no_rollouts(given)
        save(found, path)

    wanted = outcome(at_once, out)
    found = outcome(lambda path: convert(given, path, how, rows=rows), out)
    if isinstance(wanted[0], Rollouts):
        assert isinstance(found[0], Rollouts), found
        assert alike(found[0], wanted[0]), (found[0].columns, wanted[0].columns)
        if wanted[1] is not None:
            assert found[1].equals(wanted[1], check_metadata=True)
        assert found[2] == wanted[2]
    elif words:
        assert found == wanted
    else:
        assert not isinstance(found[0], Rollouts), (found, wanted)
    return found


# JSONL, whose columns are what their values say.

SCALARS = [0, 1, 2**53 + 1, -(2**63), 0.5, 1.0, 1e300, True, False, None, "", "é", "a"]
ARRAYS = [[], [1], [1, 2], [0.5], [1, 2.5], [True], [[1, 2]], [[1, 2], [3, 4]], [[1], [2, 3]], [[]], ["a"]]
ARRAYS += [[1, True], [[], []], [[0.5, 1]], [{"a": 1}], [None], [1, None]]
OBJECTS = [{}, {"a": [1, 2.5]}, {"b": None}]
NAN = float("nan")
FAMILIES: list[list[Any]] = [
    [0, 1, 2**53 + 1, -5],
    [0, 2, 0.5, 1.0, 2**53 + 1],
    [0, None, 2.5],
    [None],
    [True, False, None],
    ["", "é", None],
    [[], [1], [1, 2]],
    [[], [1, 2**53 + 1], [0.5]],
    [[], [[1, 2]], [[3, 4], [5, 6]]],
    [[], None],
    [[], [True], [1, True], [0.5, True]],
    [{}, 1, "a", [1, 2.5], 2.5, None, [], 2**70],
    [["a"], [1], [], None, {"a": 1}, 5, 0.5],
    [[[1], [2, 3]], [[1]], [], [[]], [[2.5]]],
    [NAN, 1, 1.5, None],
    [[NAN, 1], [1], [2.5], []],
    [[None, 1], [1], []],
    [{}, NAN, [NAN, 1]],
    SCALARS + ARRAYS + OBJECTS,
]
MISSING = "missing"


@st.composite
def lines(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """Rows of several files."""
    known = ["response_ids", "rollout_logprobs", "rewards", "sampling_masks", "is_last_step"]
    names = draw(st.lists(st.sampled_from(["x", "y", "z", *known]), min_size=1, max_size=3, unique=True))
    values = {
        name: draw(st.sampled_from(FAMILIES)) + ([MISSING] if draw(st.integers(0, 4)) == 0 else [])
        for name in names
    }
    files = draw(st.lists(st.integers(0, 6), min_size=1, max_size=2))
    rows = []
    for count in files:
        row = st.fixed_dictionaries({name: st.sampled_from(values[name]) for name in names})
        found = draw(st.lists(row, min_size=count, max_size=count))
        rows.append([{k: v for k, v in row.items() if v != MISSING} for row in found])
    return rows


@settings(max_examples=examples(1600), deadline=None)
@given(
    lines(),
    st.sampled_from(KINDS),
    st.integers(1, 4),
    st.sampled_from(["raise", "keep", "null"]),
    st.sampled_from([None, ["x"], ["y", "response_ids"]]),
)
def test_lines_in_chunks_are_what_they_are_at_once(
    tmp_path_factory: pytest.TempPathFactory,
    found: list[list[dict[str, Any]]],
    kind: str,
    rows: int,
    nonfinite: str,
    columns: list[str] | None,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "lines"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.jsonl" for i in range(len(found))]
    for path, file in zip(paths, found, strict=True):
        path.write_text("".join(f"{json.dumps(row)}\n" for row in file))
    # Of several faults the first in the order of rows is told, and all rows of a chunk may be None.
    words = {name for file in found for row in file for name in row} in ({"x"}, {"y"}, {"z"})
    check_same(paths, folder / f"out.{kind}", rows, Reading("raise", nonfinite, columns), words=words)


@settings(max_examples=examples(400), deadline=None)
@given(
    st.lists(rollouts(), min_size=1, max_size=2),
    st.sampled_from(KINDS),
    st.sampled_from(KINDS),
    st.integers(1, 4),
    st.booleans(),
)
def test_saved_rollouts_in_chunks_are_what_they_are_at_once(
    tmp_path_factory: pytest.TempPathFactory,
    found: list[Rollouts],
    source: str,
    kind: str,
    rows: int,
    rename: bool,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "saved"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.{source}" for i in range(len(found))]
    for path, file in zip(paths, [found[0], found[0][:2] if rename else found[-1]], strict=False):
        try:
            save(file, path)
        except ERRORS:  # what JSONL does not hold
            return
    # What is renamed is looked at anew, as a user's own column is.
    names = {name: f"{name}_" for name in list(found[0])[:1]} if rename else {}
    check_same(paths, folder / f"out.{kind}", rows, Reading(rename=names), words=len(found) == 1)


# Arrow, whose columns have types.

TYPES: list[tuple[Any, list[Any]]] = [
    (pa.int64(), [1, 2**53 + 1, -1]),
    (pa.int32(), [1, None]),
    (pa.uint64(), [2**63, 1]),
    (pa.uint64(), [2**63, 1, None]),
    (pa.float32(), [0.5, None, float("nan")]),
    (pa.bool_(), [True, False, None]),
    (pa.string(), ["", "é", None]),
    (pa.binary(), [b"", b"\xff", None]),
    (pa.null(), [None]),
    (pa.decimal128(9, 0), [1, 2]),
    (pa.decimal128(9, 2), [1, None]),
    (pa.list_(pa.int16()), [[], [1], [1, 2]]),
    (pa.list_(pa.int16()), [[], [1], None]),
    (pa.list_(pa.decimal128(9, 1)), [[], [1], [1, 2]]),
    (pa.list_(pa.int16(), 2), [[1, 2], [3, 4]]),
    (pa.list_(pa.list_(pa.int32())), [[], [[1, 2]], [[1, 2], [3, 4]]]),
    (pa.list_(pa.list_(pa.int32())), [[], [[1, 2]], [[1, 2, 3]]]),
    (pa.list_(pa.string()), [[], ["a"], None]),
    (pa.list_(pa.string()), [[], ["a", None]]),
    (pa.list_(pa.null()), [[]]),
    (pa.list_(pa.struct([("a", pa.int8())])), [[], [{"a": 1}]]),
    (pa.struct([("a", pa.list_(pa.int8()))]), [{"a": [1]}, {"a": None}, None]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", "b", None]),
    (pa.dictionary(pa.int8(), pa.int64()), [1, 2]),
    (pa.dictionary(pa.int8(), pa.int64()), [1, 2, None]),
    (pa.list_(pa.dictionary(pa.int8(), pa.int64())), [[], [1], [1, 2]]),
    (pa.list_(pa.dictionary(pa.int8(), pa.int64())), [[], [1], [None]]),
    (pa.timestamp("us"), [0, None]),
    (pa.duration("us"), [0]),
]


@st.composite
def tables(draw: st.DrawFn) -> list[Any]:
    """Tables of one schema, or of two."""
    names = draw(st.lists(st.sampled_from(["x", "y", "rewards", "response_ids"]), min_size=1, unique=True))
    found = []
    schema = {name: draw(st.sampled_from(TYPES)) for name in names}
    for count in draw(st.lists(st.integers(0, 6), min_size=1, max_size=2)):
        if draw(st.integers(0, 5)) == 0:
            schema[names[0]] = draw(st.sampled_from(TYPES))
        columns = {}
        for name, (kind, values) in schema.items():
            entries = draw(st.lists(st.sampled_from(values), min_size=count, max_size=count))
            columns[name] = pa.array(entries, kind)
        found.append(pa.table(columns))
    return found


@settings(max_examples=examples(1600), deadline=None)
@given(
    tables(),
    st.sampled_from(["arrow", "parquet"]),
    st.sampled_from(KINDS),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_tables_in_chunks_are_what_they_are_at_once(
    tmp_path_factory: pytest.TempPathFactory, found: list[Any], source: str, kind: str, rows: int, batch: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "tables"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.{source}" for i in range(len(found))]
    for path, table in zip(paths, found, strict=True):
        if source == "parquet":
            parquet.write_table(table, path, row_group_size=batch)
        else:
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=batch)
    check_same(paths, folder / f"out.{kind}", rows, words=False)
