"""`columns=`, `rename=` and `nonfinite=` of `read`, `iter_chunks` and the command line."""

from __future__ import annotations

import json
import math
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.house.refusals import check_refusal

from rollkit import _native, concat, iter_chunks, read
from rollkit._cli import main


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def both(path: Path, **options: Any) -> Any:
    """What `read` gives, which chunks give too."""
    found = read(path, **options)
    assert concat(list(iter_chunks(path, rows=1, **options))).equals(found)
    return found


ODD = '{"response_ids": [1, 2], "rollout_logprobs": [NaN, -Infinity], "x": [1, null, Infinity], "y": NaN}\n'


def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ODD)
    kept = both(path, nonfinite="keep")
    np.testing.assert_array_equal(kept["rollout_logprobs"].values, np.array([np.nan, -np.inf], np.float32))
    np.testing.assert_array_equal(kept["x"].values, [1.0, np.nan, np.inf])
    assert math.isnan(kept["y"][0])
    null = both(path, nonfinite="null")
    assert np.isnan(null["rollout_logprobs"].values).all()
    np.testing.assert_array_equal(null["x"].values, [1.0, np.nan, np.nan])
    assert null["y"] == [None]


@pytest.mark.parametrize(
    ("line", "message", "position"),
    [
        (
            '"rollout_logprobs": [0, NaN]',
            'rollout_logprobs[1]: NaN is no JSON number; nonfinite="keep" or "null" takes it',
            1,
        ),
        ('"y": Infinity', 'y: Infinity is no JSON number; nonfinite="keep" or "null" takes it', None),
        ('"y": -Infinity', 'y: -Infinity is no JSON number; nonfinite="keep" or "null" takes it', None),
        (
            '"rollout_logprobs": [null]',
            'rollout_logprobs[0]: null is no JSON number; nonfinite="keep" or "null" takes it',
            0,
        ),
    ],
)
def test_they_are_refused_by_key_line_and_option(
    tmp_path: Path, line: str, message: str, position: Any
) -> None:
    path = write(tmp_path / "a.jsonl", '{"response_ids": [1]}\n'.replace("}", f", {line}}}"))
    check_refusal(lambda: read(path), ValueError, f"{path}:1: {message}")
    with pytest.raises(ValueError, match="nonfinite") as found:
        read(path)
    assert (found.value.line, found.value.position) == (1, position)  # type: ignore[attr-defined]


def test_ids_are_never_nan(tmp_path: Path) -> None:
    for word in ("NaN", "null"):
        path = write(tmp_path / "a.jsonl", f'{{"response_ids": [1, {word}]}}\n')
        for option in ("keep", "null"):
            with pytest.raises(ValueError, match=r"response_ids\[1\]: "):
                read(path, nonfinite=option)


FLOATS = st.none() | st.integers(-5, 5) | st.floats(width=32)


@given(st.lists(st.lists(FLOATS, max_size=6), min_size=1, max_size=4), st.sampled_from(["keep", "null"]))
def test_they_are_read_as_json_reads_them(rows: list[list[Any]], option: str) -> None:
    text = "\n".join(json.dumps({"x": row}) for row in rows)
    values, offsets = _native.parse_jsonl(
        np.frombuffer(text.encode(), np.uint8), hints={"x": "float64"}, nonfinite=option
    )[2]["x"]
    flat = [
        math.nan if x is None or (option == "null" and not math.isfinite(x)) else x
        for row in rows
        for x in row
    ]
    np.testing.assert_array_equal(values, flat)
    assert np.diff(offsets).tolist() == list(map(len, rows))


WORDS = (
    '"x": NaN',
    '"x": [1, NaN]',
    '"x": {"a": [-Infinity, {"b": NaN}]}',
    '"x": [[], "NaN", {"\\ud800": NaN}]',
)


@pytest.mark.parametrize("value", WORDS)
def test_what_is_left_out_may_have_them(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"response_ids": [1], {value}, "y": 2}}\n' * 2)
    for option in ("raise", "keep", "null"):
        assert list(both(path, columns=["response_ids", "y"], nonfinite=option)) == ["response_ids", "y"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[NaN, 1", "expected ',' or ']' at column 17, found '}'"),
        ('{"a": NaN "b": 1}', "expected ',' or '}' at column 20, found '\"'"),
        ('{"a": NaN, b: 1}', "expected a key at column 21, found 'b'"),
        ('{"a": NaN, "b" 1}', "expected ':' at column 25, found '1'"),
        ("[NaN, Nan]", "expected value at column 16"),
        ("[" * 130 + "NaN", "expected value at column 140"),  # too deep to be looked for
        ("[1, 2", "expected `,` or `]` at column"),
    ],
)
def test_what_is_left_out_is_json_but_for_them(tmp_path: Path, value: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"left": {value}}}\n')
    with pytest.raises(ValueError, match=re.escape(f"{path}:1: {message}")):
        read(path, columns=["response_ids"])


OBJECTS = '{"response_ids": [1], "metrics": {"kl": NaN, "more": [1, {"a": -Infinity}], "text": "NaN"}}\n'


def test_objects_have_them_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", OBJECTS * 2)
    kept = both_objects(path, "keep")
    assert math.isnan(kept["kl"])
    assert kept["more"] == [1, {"a": -math.inf}]
    assert both_objects(path, "null") == {"kl": None, "more": [1, {"a": None}], "text": "NaN"}
    message = 'metrics: NaN is no JSON number; nonfinite="keep" or "null" takes it'
    check_refusal(lambda: read(path), ValueError, f"{path}:1: {message}")


def both_objects(path: Path, option: str) -> Any:
    first, second = read(path, nonfinite=option)["metrics"]
    assert repr(first) == repr(second)
    assert [repr(part["metrics"]) for part in iter_chunks(path, rows=1, nonfinite=option)] == [
        repr([first])
    ] * 2
    return first


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from([None, 0, 1]))
def test_any_value_is_passed_or_read_as_json_does(value: Any, indent: int | None) -> None:
    spaces = (", ", ": ") if indent else (",", ":")
    line = json.dumps({"ids": [1], "x": {"x": value}}, separators=spaces, ensure_ascii=indent is None)
    data = np.frombuffer(line.encode(), np.uint8)
    assert list(_native.parse_jsonl(data, hints={}, columns={"ids"})[2]) == ["ids"]
    for option, constant in (("keep", float), ("null", lambda _: None)):
        found = _native.parse_jsonl(data, hints={}, nonfinite=option)[2]["x"]
        assert repr(found) == repr([json.loads(line, parse_constant=constant)["x"]])


TEXTS = '{"response_ids": [1], "text": "\\ud800", "note": {"a": "\\ud800"}, "theirs": [2]}\n'


def test_columns_that_are_left_out_do_not_cost_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", TEXTS * 2)
    with pytest.raises(ValueError, match=r"a\.jsonl:1: "):
        read(path)
    found = both(path, columns=["response_ids", "loss_masks"], rename={"theirs": "loss_masks"})
    assert list(found) == ["response_ids", "loss_masks"]
    assert found["loss_masks"].dtype == np.uint8
    assert both(path, columns=["theirs"], rename={"theirs": "loss_masks"}).equals(
        both(path, columns=["loss_masks"], rename={"theirs": "loss_masks"})
    )
    with pytest.raises(ValueError, match="at column"):
        read(write(tmp_path / "b.jsonl", '{"response_ids": [1], "text": "a}\n'), columns=["response_ids"])


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow"])
def test_columns_and_names_of_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    columns = {"response_ids": [[1], [2]], "theirs": [[0.5], [1.5]], "x": ["a", "b"]}
    path = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        write(path, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        pa = pytest.importorskip("pyarrow")
        table = pa.table(columns)
        if kind == "parquet":
            pytest.importorskip("pyarrow.parquet").write_table(table, path)
        else:
            with pa.ipc.new_file(path, table.schema) as file:
                file.write_table(table)
    assert list(both(path, columns=["theirs", "response_ids"])) == ["response_ids", "theirs"]
    assert list(both(path, rename={"theirs": "ours"})) == ["response_ids", "ours", "x"]
    for options in ({"columns": ["y"]}, {"rename": {"y": "z"}}):
        message = f"{path}: no column 'y'; there are 'response_ids'"
        with pytest.raises(ValueError, match="no column 'y'") as found:
            read(path, **options)
        assert str(found.value).startswith(message) or kind == "jsonl"
    with pytest.raises(ValueError, match=r"rename makes two columns 'x'; leave one out"):
        read(path, rename={"theirs": "x"})


def test_the_command_line_takes_them(tmp_path: Path, capsys: Any) -> None:
    path = write(tmp_path / "a.jsonl", '{"theirs": [1, 2], "rollout_logprobs": [NaN, 0.5]}\n')
    arguments = ["pack", str(path), "-o", str(tmp_path / "out"), "--capacity", "4", "--quiet"]
    assert main([*arguments, "--rename", "theirs=response_ids"]) == 1
    assert 'nonfinite="keep"' in capsys.readouterr().err
    assert main([*arguments, "--rename", "theirs=response_ids", "--nonfinite", "keep"]) == 0


def test_a_json_array_is_refused_in_words(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"response_ids": [1]}]')
    with pytest.raises(ValueError, match=r"a\.json:1: expected an object"):
        read(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": 5}, "columns must be a sequence, got int"),
        ({"columns": [5]}, "columns must hold names, got 5"),
        ({"rename": 5}, "rename must be a dict by name, got int"),
        ({"rename": {"a": 5}}, "rename must hold names, got 5"),
        ({"rename": {5: "a"}}, "rename must hold names, got 5"),
    ],
)
def test_names_that_are_none_are_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"response_ids": [1]}\n')
    for call in (read, lambda *a, **o: list(iter_chunks(*a, **o))):
        with pytest.raises(TypeError, match=said):
            call(path, **options)


def test_names_may_come_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"response_ids": [1], "x": 1}\n' * 5)
    chunks = iter_chunks(path, rows=2, columns=(name for name in ["response_ids"]))  # type: ignore[arg-type]
    assert [list(chunk) for chunk in chunks] == [["response_ids"]] * 3


@pytest.mark.parametrize("whole", [True, False])
def test_a_pipe_is_read_while_it_is_written(tmp_path: Path, whole: bool) -> None:
    path = tmp_path / "rows.jsonl"
    os.mkfifo(path)

    def write() -> None:
        with path.open("w") as file:
            for i in range(5):
                file.write(json.dumps({"response_ids": [i]}) + "\n")
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    rows = [read(path)] if whole else list(iter_chunks(path, rows=2))
    writer.join()
    found: list[Any] = [row for part in rows for row in part.ragged("response_ids").to_list()]
    assert found == [[0], [1], [2], [3], [4]]


def test_rows_of_a_chunk_without_a_wanted_column_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"response_ids": [1]}\n' * 5 + '{"response_ids": [1], "x": "a"}\n')
    chunks = list(iter_chunks(path, rows=2, columns=["x"]))
    assert [row for chunk in chunks for row in chunk["x"]] == [None] * 5 + ["a"]
    assert read(path, columns=["x"])["x"] == [None] * 5 + ["a"]
    renamed = list(iter_chunks(path, rows=4, columns=["y"], rename={"x": "y"}))
    assert [chunk["y"] for chunk in renamed] == [[None] * 4, [None, "a"]]
    with pytest.raises(ValueError, match=r"no column 'z'; there are none$"):
        list(iter_chunks(path, rows=2, columns=["z"]))
