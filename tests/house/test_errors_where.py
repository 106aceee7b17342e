"""Errors know where they are: attributes, told once by who knows, and no message taken for a place."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.house.refusals import check_refusal
from tests.paths import ROOT

from rollkit import Layout, Ragged, Rollouts, concat, iter_chunks, merge_steps, pack, read
from rollkit._errors import at, refusal, retold
from rollkit._files.stream import Options, write_shards
from rollkit.forest import TokenTree

ODD: Any = [2, "a"]
PLACE = ("column", "row", "position", "path", "line")


def caught(call: Any) -> Any:
    with pytest.raises((ValueError, TypeError, OverflowError)) as found:
        call()
    return found.value


def place(error: Any) -> dict[str, Any]:
    """What an error knows of where it is."""
    return {name: getattr(error, name) for name in PLACE if getattr(error, name) is not None}


@pytest.mark.parametrize(
    ("call", "known"),
    [
        (lambda: Ragged.from_rows([[1], [2, "a"]]), {"row": 1, "position": 1}),
        (lambda: Ragged.from_rows([[1], 5]), {"row": 1}),
        (lambda: Ragged.from_rows([[1], [2, 300]], np.uint8), {"row": 1, "position": 1}),
        (lambda: Ragged.from_rows([np.zeros(1, np.int32), ["a"]]), {"row": 1, "position": 0}),
        (lambda: Ragged.from_rows([np.zeros(1, np.int32), np.zeros(1)], np.int32), {"row": 1}),
        (lambda: Ragged.from_rows([np.zeros(1, np.int64), np.zeros(1, np.uint64)]), {"row": 1}),
        (lambda: Ragged.from_rows([[1], [600]]).astype(np.int8), {"row": 1, "position": 0}),
        (lambda: Ragged(np.zeros(3), np.array([0, 2, 1])), {"row": 1}),
        (lambda: Layout.concat([2**62, 2**62]), {"row": 1}),
        (lambda: Layout.pack([1, 9], 8), {"row": 1}),
        (lambda: Rollouts({"rewards": [1.0, "a"]}), {"column": "rewards", "row": 1}),
        (lambda: Rollouts({"a": [1], "b": [1, 2]}), {"column": "b"}),
        (
            lambda: pack({"response_ids": [[1], [2]], "x": [[1, 2], [1]]}, 8),
            {"column": "x", "row": 0},
        ),
        (
            lambda: pack({"response_ids": [np.array([1]), np.array([1, 2**40])]}, 8),
            {"column": "input_ids", "row": 1, "position": 1},
        ),
        (lambda: Rollouts({"loss_masks": [[1]]}).validate(), {"column": "prompt_token_ids"}),
        (lambda: TokenTree().commit([1], ODD), {"column": "response_ids", "position": 1}),
    ],
)
def test_what_an_error_knows(call: Any, known: dict[str, Any]) -> None:
    assert place(caught(call)) == known


def test_columns_of_several_sources_keep_the_row_within_theirs() -> None:
    error = caught(lambda: pack([{"response_ids": [[1]]}, {"response_ids": [[1], ["a"]]}], 8))
    assert place(error) == {"column": "response_ids", "row": 1, "position": 0}


# Names and messages that look like places.

LIKE_A_ROW = "row 7"


def test_a_column_that_is_called_like_a_row(tmp_path: Path) -> None:
    rows = [{"response_ids": [1, 2], LIKE_A_ROW: [1, 2]} for _ in range(9)]
    rows[4][LIKE_A_ROW] = [1]
    source = tmp_path / "row 3.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    for chunk_rows in (1, 3, 100):
        error = caught(
            lambda n=chunk_rows: write_shards([source], tmp_path / "out", Options(capacity=8, chunk_rows=n))
        )
        assert str(error).startswith(f"{source}:5: column 'row 7': this row has 1 elements; ")
        assert place(error) == {"column": LIKE_A_ROW, "row": 4, "path": str(source), "line": 5}


def test_a_path_that_is_called_like_a_row(tmp_path: Path) -> None:
    source = tmp_path / "row 3, position 1" / "row 0.jsonl"
    source.parent.mkdir()
    source.write_text('{"response_ids": [1]}\n{"response_ids": [1, "a"]}\n')
    error = caught(lambda: read(source))
    assert str(error).startswith(f"{source}:2: response_ids[1]: ")
    assert place(error) == {"column": "response_ids", "position": 1, "path": str(source), "line": 2}


class Mine(ValueError):
    """Somebody's own, with attributes of theirs."""

    def __init__(self, row: str) -> None:
        super().__init__(f"row 5, position 9: {row} is mine")
        self.row = row


def test_a_message_of_somebody_elses_is_kept_and_not_read() -> None:
    error = caught(lambda: _raise(Mine("x")))
    assert type(error) is ValueError
    assert str(error) == "column 'c': row 5, position 9: x is mine"
    assert place(error) == {"column": "c"}
    assert isinstance(error.__cause__, Mine)
    assert error.__cause__.row == "x"
    assert str(error.__cause__) == "row 5, position 9: x is mine"
    plain = caught(lambda: _raise(ValueError("row 0 is odd")))
    assert str(plain) == "column 'c': row 0 is odd"
    assert place(plain) == {"column": "c"}
    undecodable = caught(lambda: _raise(UnicodeDecodeError("utf-8", b"row 1", 0, 1, "odd")))
    assert type(undecodable) is ValueError
    assert str(undecodable).startswith("column 'c': 'utf-8' codec can't decode")


def _raise(error: Exception) -> None:
    with at(column="c", first_row=20):
        raise error


def test_other_exceptions_pass() -> None:
    for error in (KeyError("row 1"), OSError("row 1"), MemoryError("row 1")):
        with pytest.raises(type(error)) as found:
            _raise(error)
        assert found.value is error
        assert found.value.args == ("row 1",)


# Telling.


def test_what_is_known_stays_and_rows_count_on() -> None:
    error = caught(_deep_inside)
    assert str(error) == "f.jsonl:9: column 'a': this row, position 2: odd"
    assert place(error) == {"column": "a", "row": 111, "position": 2, "path": "f.jsonl", "line": 9}
    check_refusal(_in_row, TypeError, "row 3: no number")


def _deep_inside() -> None:
    with at(path="f.jsonl", line=9), at(column="outer", first_row=100), at(column="a", first_row=10):
        raise refusal(ValueError, ": odd", row=1, position=2)


def _in_row() -> None:
    with at(row=3):
        raise TypeError("no number")


def test_an_error_is_the_same_from_threads_and_processes() -> None:
    wanted = caught(_refused)
    again = pickle.loads(pickle.dumps(wanted))
    with ThreadPoolExecutor(1) as threads:
        threaded = caught(threads.submit(_refused).result)
    done = subprocess.run([sys.executable, "-c", SENDING], capture_output=True, check=True, timeout=60)
    for error in (again, threaded, pickle.loads(done.stdout)):
        assert type(error) is OverflowError
        assert error.args == wanted.args
        assert place(error) == place(wanted) == {"column": "loss_masks", "row": 1, "position": 0}
        assert str(retold(error, path="p", line=3)).startswith(
            "p:3: column 'loss_masks': this row, position 0: "
        )


SENDING = """import pickle, sys
from rollkit import Rollouts
try:
    Rollouts({"response_ids": [[1], [2]], "loss_masks": [[1], [300]]})
except OverflowError as error:
    sys.stdout.buffer.write(pickle.dumps(error))"""


def _refused() -> None:
    Rollouts({"response_ids": [[1], [2]], "loss_masks": [[1], [300]]})


def test_one_place_makes_messages() -> None:
    """Nothing is told by making an exception of another's text, or by looking into it."""
    for file in (ROOT / "python").rglob("*.py"):
        text = file.read_text()
        if file.name != "_errors.py":
            assert 'type(error)(f"column' not in text, file
        assert "str(error).re" not in text, file


# Files.


def test_rows_of_parquet_count_through_its_chunks(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    source = tmp_path / "row 1.parquet"
    parquet.write_table(pa.table({"response_ids": [[1]] * 6 + [[1, None]] + [[1]]}), source)
    for call in (lambda: read(source), lambda: list(iter_chunks(source, rows=4))):
        error = caught(call)
        wanted = "column 'response_ids': row 6, position 1 is null; fill or drop nulls first"
        assert str(error) == f"{source}: {wanted}"
        assert place(error) == {"column": "response_ids", "row": 6, "position": 1, "path": str(source)}
    lengths = tmp_path / "lengths.parquet"
    parquet.write_table(
        pa.table({"response_ids": [[1]] * 8, "loss_masks": [[1]] * 5 + [[1, 1]] * 3}), lengths
    )
    error = caught(lambda: write_shards([lengths], tmp_path / "out", Options(capacity=8, chunk_rows=2)))
    assert str(error).startswith(f"{lengths}: column 'loss_masks': row 5 has 2 elements; ")
    assert place(error) == {"column": "loss_masks", "row": 5, "path": str(lengths)}


def test_a_column_that_is_no_rows_names_its_line(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('\n{"response_ids": null}\n\n{"response_ids": null}\n')
    error = caught(lambda: list(iter_chunks(source, rows=1)))
    assert str(error) == f"{source}: column 'response_ids': all rows are None; leave the column out"
    source.write_text('{"rewards": 1.0, "response_ids": [1]}\n\n{"rewards": "a", "response_ids": [1]}\n')
    error = caught(lambda: list(iter_chunks(source, rows=2)))
    assert place(error) == {"column": "rewards", "row": 1, "path": str(source), "line": 3}


def test_rows_that_were_skipped_tell_no_line(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('no json\n{"rewards": [["a"]]}\n')
    with pytest.raises(ValueError, match="rewards") as found:
        read(source, on_error="skip")
    assert found.value.line is None  # type: ignore[attr-defined]


def test_rows_in_the_second_source(tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_text('{"response_ids": [1]}\n' * 3)
    second.write_text('\n{"response_ids": [1]}\n\n{"response_ids": [1, 2, 3]}\n')
    error = caught(lambda: write_shards([first, second], tmp_path / "out", Options(capacity=2)))
    assert str(error).startswith(f"{second}:4: this row has 3 tokens, more than a capacity of 2; ")
    assert place(error) == {"row": 1, "path": str(second), "line": 4}


def test_merging_names_what_is_wrong() -> None:
    columns = {"prompt_token_ids": [[1]], "response_ids": [[2]], "is_last_step": [[True]]}
    error = caught(lambda: merge_steps(columns))
    assert place(error) == {"column": "is_last_step"}
    error = caught(lambda: concat([Rollouts({"x": [[1]]}), Rollouts({"x": [[[1]]]})]))
    assert place(error) == {"column": "x"}
