"""Folders and globs, alone and among files; with `columns=` and `rename=`."""

# ruff: noqa: E501

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.house.refusals import check_refusal

from rollkit import Rollouts, concat, iter_chunks, read, save

KINDS = ".jsonl, .ndjson, .json, .parquet, .arrow, .feather, .ipc, .arrows, .safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of two kinds, and others that are not to be read."""
    folder = tmp_path / "run"
    (folder / "inner").mkdir(parents=True)
    for number, name in enumerate(["b.jsonl", "a.safetensors", "c.JSONL", "inner/d.jsonl"]):
        rows = Rollouts({"response_ids": [[number]], "theirs": ["x"]})
        save(rows, folder / name)
    (folder / ".hidden.jsonl").write_text('{"y": 1}\n')
    (folder / "notes.txt").write_text("no rollouts")
    (folder / "old.arrow.gz").write_bytes(b"")
    (folder / "g[1].jsonl").write_text('{"response_ids": [9], "theirs": "x"}\n')
    return folder


def ids(paths: Any, **options: Any) -> list[int]:
    found = read(paths, **options)
    assert concat(list(iter_chunks(paths, rows=1, **options))).equals(found)
    return [row[0] for row in found.ragged("response_ids").to_list()]


def test_what_paths_stand_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert ids(folder) == ids(".") == [1, 0, 2, 9]
    assert ids("*.jsonl") == [0, 9]
    assert ids(folder / "*.[jJ]*") == [0, 2, 9]
    assert ids("**/*.jsonl") == [0, 9, 3]
    assert ids("g[1].jsonl") == [9]  # which is there, by this very name
    assert ids("inn*") == [3]
    assert ids(["c.JSONL", "inner", "?.safetensors", Path("b.jsonl")]) == [2, 3, 1, 0]


def test_columns_and_names_of_all(folder: Path) -> None:
    for paths in (folder, f"{folder}/*.[jJs]*", [folder / "b.jsonl", folder / "inner"]):
        for columns in (["ours", "response_ids"], ["theirs", "response_ids"]):
            assert ids(paths, columns=columns, rename={"theirs": "ours"})
            assert set(read(paths, columns=columns, rename={"theirs": "ours"})) == {"response_ids", "ours"}
        for call in (read, lambda *a, **o: list(iter_chunks(*a, **o))):
            with pytest.raises(ValueError, match=r"no column 'y'"):
                call(paths, columns=["y"])


REFUSED: list[tuple[Any, type[Exception], str]] = [
    ("", ValueError, "a path is empty; give the name of a file"),
    ("*.none", ValueError, "*.none: no file matches"),
    ("none/*", ValueError, "none/*: no file matches"),
    ("empty", ValueError, f"empty: a folder without files of {KINDS}"),
    (["b.jsonl", "emp*"], ValueError, f"empty: a folder without files of {KINDS}"),
    ("packed", ValueError, "packed: a folder of packed shards, and no rollouts; rollkit inspect shows what is in it"),
    ("begun", ValueError, "begun: a folder of packed shards, and no rollouts; rollkit inspect shows what is in it"),
    ("not*", ValueError, f"notes.txt: unknown kind of file '.txt'; expected {KINDS} (JSONL also .gz, .zst)"),
    ("old.arrow.gz", ValueError, f"old.arrow.gz: unknown kind of file '.gz'; expected {KINDS} (JSONL also .gz, .zst)"),
    ("ftp://a/b.jsonl", ValueError, "ftp://a/b.jsonl: URLs of ftp are not read; those of s3, gs, az, http, https are"),
    ("file:///a.jsonl", ValueError, "file:///a.jsonl: URLs of file are not read; those of s3, gs, az, http, https are"),
    ("s3://a/", ValueError, "s3://a/: names no file; a URL is of one file, such as s3://bucket/rollouts.parquet"),
    ("s3://a", ValueError, "s3://a: names no file; a URL is of one file, such as s3://bucket/rollouts.parquet"),
    ("gs:///a.jsonl", ValueError, "gs:///a.jsonl: names no file; a URL is of one file, such as s3://bucket/rollouts.parquet"),
    ("az://a/b.jsonl?sig=secret", ValueError, "az://a/b.jsonl: a URL of a store has no query; what it asks for is in the environment"),
    ("http://user:secret@a:b/c.jsonl", ValueError, "http://a:b/c.jsonl: no URL: Port could not be cast to integer value as 'b'"),
]  # fmt: skip


@pytest.mark.parametrize(("paths", "kind", "message"), REFUSED, ids=[str(case[0]) for case in REFUSED])
def test_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, paths: Any, kind: type[Exception], message: str
) -> None:
    monkeypatch.chdir(folder)
    for name, file in (("empty", ""), ("packed", "index.json"), ("begun", ".rollkit")):
        Path(name).mkdir()
        if file:
            (Path(name) / file).write_text("{}")
    calls: list[Callable[[], Any]] = [lambda: read(paths), lambda: list(iter_chunks(paths))]
    for call in calls:
        check_refusal(call, kind, message)


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    for scheme in ("s3", "gs", "az", "http", "https"):
        with pytest.raises(
            ModuleNotFoundError, match=r"^this needs obstore; install it with: pip install '?obstore"
        ):
            read(f"{scheme}://a/b.jsonl")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_line_of_a_pipe_is_not_looked_for_again(tmp_path: Path) -> None:
    import threading

    path = tmp_path / "rows.jsonl"
    os.mkfifo(path)
    rows = [{"response_ids": [1], "x": [1, 2]}, {"response_ids": [2], "x": [[1]]}]
    writer = threading.Thread(target=lambda: path.write_text("".join(json.dumps(row) + "\n" for row in rows)))
    writer.start()
    with pytest.raises(ValueError, match=r"rows\.jsonl"):
        read(path)
    writer.join()
