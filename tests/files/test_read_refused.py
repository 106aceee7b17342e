"""Sources of columns that differ, names that are none, and what is said in one line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.house.refusals import check_refusal

from rollkit import Layout, concat, iter_chunks, pack, read
from rollkit._cli import main
from rollkit._files.stream import Options, write_shards


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_ints_and_floats_meet_across_files_and_chunks(tmp_path: Path) -> None:
    ints = {"response_ids": [1, 2], "x": [0, 1], "y": 1}
    floats = {"response_ids": [3, 4], "x": [0.5, 1.0], "y": 0.5}
    a, b = jsonl(tmp_path / "a.jsonl", ints), jsonl(tmp_path / "b.jsonl", floats)
    one = jsonl(tmp_path / "one.jsonl", ints, floats)
    wanted = read(one)
    assert read([a, b]).equals(wanted)
    assert concat(list(iter_chunks(one, rows=1))).equals(wanted)
    assert read([b, a])["x"].to_list() == [[0.5, 1.0], [0.0, 1.0]]  # type: ignore[union-attr]


def test_dtypes_meet_across_files_of_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for name, dtype in (("a", pa.int32()), ("b", pa.int64()), ("c", pa.uint64())):
        table = pa.table({"response_ids": [[1]], "x": pa.array([[1]], pa.list_(dtype))})
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    a, b, c = (tmp_path / f"{name}.parquet" for name in "abc")
    assert read([a, b]).ragged("x").dtype == read([b, a]).ragged("x").dtype == np.int64
    message = f"column 'x': {c} is uint64, {a} is int32: no integer dtype holds int32 and uint64; "
    message += "cast one with .astype"
    check_refusal(lambda: read([a, c]), TypeError, message)


def test_files_of_other_columns_are_refused_by_read_and_pack_alike(tmp_path: Path) -> None:
    a = jsonl(tmp_path / "a.jsonl", {"response_ids": [1]})
    b = jsonl(tmp_path / "b.jsonl", {"response_ids": [1], "x": 1})
    empty = jsonl(tmp_path / "empty.jsonl")
    message = f"{b}: differs in columns from {a}: 'x'; "
    check_refusal(lambda: read([empty, a, b]), ValueError, message + "columns=[…] leaves them out")
    folder = tmp_path / "out"
    check_refusal(
        lambda: write_shards([empty, a, b], folder, Options(capacity=4)),
        ValueError,
        message + "--skip-column leaves them out",
    )
    assert not folder.exists()
    index = write_shards([a, b], folder, Options(capacity=4, skip_columns=["x"]))
    assert index["totals"]["rows"] == 2


def test_a_column_to_skip_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    a = jsonl(tmp_path / "a.jsonl", {"response_ids": [1], "x": 1})
    check_refusal(
        lambda: write_shards([a], tmp_path / "out", Options(capacity=4, skip_columns=["y"])),
        ValueError,
        "--skip-column y: no source has this column; there are 'response_ids', 'x'",
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scheme", ["s3", "gs", "https", "file"])
def test_urls_are_refused_before_work(scheme: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    source, url = str(jsonl(tmp_path / "a.jsonl", {"response_ids": [1]})), f"{scheme}://bucket/out"
    before = sorted(tmp_path.iterdir())
    for arguments in ([source, "-o", url], [url, "-o", "out"], [source, "-o", "out", "--plot", url + ".png"]):
        assert main(["pack", *arguments, "--capacity", "4", "--quiet"]) == 1
        assert f"URLs of {scheme} are not taken here" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (None, "paths must be a path or a sequence of paths, got NoneType"),
        (b"a", "paths must be the names of files, got bytes; write its contents to a file first"),
        (io.BytesIO(), "paths must be the names of files, got BytesIO; write its contents to a file first"),
        ([None], "expected a path, got NoneType"),
    ],
)
def test_what_is_no_path_is_refused(paths: Any, message: str) -> None:
    check_refusal(lambda: read(paths), TypeError, message)


def test_a_capacity_beyond_all_positions_is_refused(tmp_path: Path, capsys: Any) -> None:
    source = str(jsonl(tmp_path / "a.jsonl", {"response_ids": [1]}))
    assert main(["pack", source, "-o", str(tmp_path / "out"), "--capacity", "100000000000"]) == 1
    assert capsys.readouterr().err.startswith("rollkit: capacity must be at most 2,147,483,647")


def test_truncation_that_leaves_no_response_is_told_once(tmp_path: Path, capsys: Any) -> None:
    rows = {"prompt_token_ids": [[1, 2, 3], [1], [1, 2]], "response_ids": [[4], [5], [6, 7]]}
    message = r"^truncation leaves 1 of 3 rows without a token of their response \(2 are cut\)$"
    with pytest.warns(UserWarning, match=message) as told:
        pack(rows, 3, oversize="truncate")
    assert len(told) == 1
    source = jsonl(tmp_path / "a.jsonl", *({k: v[i] for k, v in rows.items()} for i in range(3)))
    arguments = ["--capacity", "3", "--oversize", "truncate", "--quiet"]
    assert main(["pack", str(source), "-o", str(tmp_path / "out"), *arguments]) == 0
    assert capsys.readouterr().err == (
        "rollkit: warning: truncation leaves 1 of 3 rows without a token of their response (2 are cut)\n"
    )


def test_pictures_and_tables_tell_halves() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from rollkit import plot

    ax = Figure().subplots()
    plot.utilisation(Layout.pack([3], 4), ax=ax)
    assert list(ax.get_xticks()) == [0]
    ax = Figure().subplots()
    plot.lengths([4, 5], ax=ax)
    assert [text.get_text() for text in ax.texts] == ["median 4.5"]
