"""What URLs name is read by ranges, from a server that the tests start on the loopback."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.files.serving import Server, served

from rollkit import Ragged, Rollouts, concat, iter_chunks, read, sample_path, save
from rollkit._cli import main
from rollkit._files import remote

pytest.importorskip("obstore")

KINDS = ["jsonl", "jsonl.gz", "arrow", "parquet", "safetensors"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "_RETRY", {"max_retries": 0})
    with served(tmp_path) as server:
        for name, value in {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_REGION": "nowhere",
        }.items():
            monkeypatch.setenv(name, value)
        yield server


def put(folder: Path, kind: str, rollouts: Rollouts, name: str = "a b") -> str:
    """Write a file of a kind; returns its name in a URL."""
    path = folder / f"{name}.{kind.removesuffix('.gz')}"
    save(rollouts, path)
    if kind.endswith(".gz"):
        (folder / f"{name}.{kind}").write_bytes(gzip.compress(path.read_bytes()))
    return f"{name}.{kind}".replace(" ", "%20")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", ["http", "http without ranges", "s3"])
def test_every_kind_from_every_store(server: Server, tmp_path: Path, kind: str, store: str) -> None:
    rollouts = read(sample_path())
    name = put(tmp_path, kind, rollouts)
    server.ranges = store != "http without ranges"
    url = f"s3://bucket/{name}" if store == "s3" else f"{server.url}/{name}?signature=secret"
    assert read(url).equals(rollouts)
    assert concat(list(iter_chunks(url, rows=7))).equals(rollouts)
    local = tmp_path / name.replace("%20", " ")
    assert read([url, local]).equals(concat([rollouts, rollouts]))
    options: Any = {"columns": ["response_ids", "loss"], "rename": {"loss_masks": "loss"}}
    assert read(url, **options).equals(read(local, **options))
    assert all(("signature=secret" in path) == (store != "s3") for path, _ in server.asked)


@pytest.mark.parametrize("kind", ["jsonl", "arrow", "parquet", "safetensors"])
def test_large_files_come_piece_by_piece(
    server: Server, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BLOCK", 50_000)
    monkeypatch.setattr(remote, "_LEAST", 4000)
    monkeypatch.setattr(remote, "_MOST", 30_000)
    rng = np.random.default_rng(0)
    rows = Ragged(rng.integers(0, 2**31, 50_000, np.int32), np.arange(0, 50_001, 500))
    rollouts = Rollouts(
        {"response_ids": rows, "other": rows.astype(np.int64), "score": [float(i) for i in range(100)]}
    )
    name = put(tmp_path, kind, rollouts)
    for found in (read(f"{server.url}/{name}"), concat(list(iter_chunks(f"{server.url}/{name}", rows=9)))):
        assert found.equals(rollouts)
    assert all(asked is not None for _, asked in server.asked)
    server.asked.clear()
    assert read(f"{server.url}/{name}", columns=["score"])["score"][99] == 99.0
    ranges = [asked.removeprefix("bytes=").split("-") for _, asked in server.asked if asked]
    taken = sum(int(last) - int(first) + 1 for first, last in ranges)
    if kind != "jsonl":
        assert taken < (tmp_path / name.replace("%20", " ")).stat().st_size / 2


def test_an_empty_object(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    for url in (f"{server.url}/a.jsonl", "s3://bucket/a.jsonl"):
        assert len(read(url)) == 0
        assert list(iter_chunks(url)) == []


def test_what_a_server_says_is_one_line_without_secrets(server: Server, tmp_path: Path) -> None:
    for url, called in (
        (f"{server.url}/none.jsonl?signature=secret", f"{server.url}/none.jsonl"),
        ("s3://bucket/none.parquet", "s3://bucket/none.parquet"),
    ):
        for call in (lambda url=url: read(url), lambda url=url: list(iter_chunks(url))):
            with pytest.raises(FileNotFoundError) as caught:
                call()
            assert caught.value.filename == called
            assert "404" in str(caught.value)
            assert "secret" not in str(caught.value)
            assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match="error") as failed:
        read("http://127.0.0.1:1/a.jsonl?signature=secret")
    assert failed.value.filename == "http://127.0.0.1:1/a.jsonl"
    assert "secret" not in str(failed.value)


def test_errors_in_files_name_url_and_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"response_ids": [1]}\n\n{"response_ids": ["a"]}\n')
    with pytest.raises(ValueError, match=rf"^{server.url}/a\.jsonl:3: "):
        read(f"{server.url}/a.jsonl?signature=secret")
    (tmp_path / "a.jsonl").write_text(
        '{"response_ids": [1], "x": [1]}\n{"response_ids": [1], "x": [[1, 2]]}\n'
    )
    with pytest.raises(ValueError, match=rf"^{server.url}/a\.jsonl"):
        read(f"{server.url}/a.jsonl")
    for kind in ("arrow", "parquet", "safetensors"):
        (tmp_path / f"a.{kind}").write_bytes(b"nothing of the kind" * 9)
        with pytest.raises(ValueError, match=rf"^{server.url}/a\.{kind}: ") as caught:
            read(f"{server.url}/a.{kind}")
        assert "\n" not in str(caught.value)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=rf"^{server.url}/a\.txt: unknown kind of file '\.txt'"):
        read(f"{server.url}/a.txt")


def test_an_object_that_changes_meanwhile_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BLOCK", 1000)
    path = tmp_path / "a.jsonl"
    path.write_text('{"response_ids": [1]}\n' * 500)
    chunks = iter_chunks(f"{server.url}/a.jsonl", rows=5)
    next(chunks)
    os.utime(path, (1, 1))
    with pytest.raises(ValueError, match=rf"^{server.url}/a\.jsonl: changed while it was read"):
        list(chunks)


def test_an_answer_that_is_cut_short_is_an_error(server: Server, tmp_path: Path) -> None:
    put(tmp_path, "jsonl", Rollouts({"response_ids": [[1]] * 100}), "a")
    server.cut = 70
    with pytest.raises(OSError, match="error"):
        read(f"{server.url}/a.jsonl")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_is_refused_and_does_not_hang(server: Server, tmp_path: Path) -> None:
    put(tmp_path, "jsonl", Rollouts({"response_ids": [[1]]}), "a")
    read(f"{server.url}/a.jsonl")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            read(f"{server.url}/a.jsonl")
        except ValueError as error:
            status = 0 if "before this process was forked" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_command_line_reads_urls_and_packs_none(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = put(tmp_path, "jsonl", read(sample_path()), "a")
    for command in (["stats"], ["head"], ["convert"]):
        out = [str(tmp_path / "b.safetensors")] if command == ["convert"] else []
        assert main([*command, f"{server.url}/{name}", *out]) == 0
    assert read(tmp_path / "b.safetensors").equals(read(sample_path()))
    capsys.readouterr()
    assert main(["stats", f"{server.url}/none.jsonl?signature=secret"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"rollkit: {server.url}/none.jsonl: ")
    assert "secret" not in told
    assert told.count("\n") == 1
    assert main(["pack", f"{server.url}/{name}", "-o", str(tmp_path / "out"), "--capacity", "4096"]) == 1
    assert "URLs of http are not taken here" in capsys.readouterr().err
