"""State files that are damaged, folders with strangers' things, files that change while they are read."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import rollkit
from rollkit._files import spooling
from rollkit._files.folder import WORK, digest
from rollkit._files.shards import check_shards, read_index, read_layout, read_shards
from rollkit._files.stream import Options, write_shards

ROWS = [{"prompt_token_ids": [1, 2], "response_ids": [3, 4, 5], "loss_masks": [1, 0, 1]}] * 40
OPTIONS = Options(capacity=16, bins_per_shard=3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def unfinished(source: Path, tmp_path: Path) -> Path:
    """A run that ended after its first shards."""

    class Stop(Exception):
        pass

    def stopping(items: Any, what: str, total: int | None) -> Any:
        for number, item in enumerate(items):
            if what == "writing shards" and number == 1:  # which is written
                raise Stop
            yield item

    folder, watch = tmp_path / "out", cast(Any, stopping)
    with pytest.raises(Stop):
        write_shards([source], folder, OPTIONS, watch=watch)
    assert sorted(path.name for path in (folder / WORK).glob("*.json")) == [
        "plan.json",
        "shard-00000.safetensors.json",
        "shard-00001.safetensors.json",
    ]
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "lock"}


GARBAGE = ["", "{", "null", "[]", "3", '{"format": 1}', '{"shard": []}', "\udcff", "[" * 100_000]


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_a_damaged_index_is_named(source: Path, tmp_path: Path, text: str) -> None:
    write_shards([source], tmp_path / "out", OPTIONS)
    index = tmp_path / "out" / "index.json"
    index.write_bytes(text.encode("utf-8", "surrogateescape"))
    calls: list[Callable[[], Any]] = [
        lambda: read_index(tmp_path / "out"),
        lambda: write_shards([source], tmp_path / "out", OPTIONS, resume=True),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"index\.json: (not an index that rollkit wrote|format)"):
            call()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shards": None}, "shards is None, expected list"),
        ({"shards": [{"file": "shard-00000.safetensors"}]}, r"shards\[0\].bins is missing"),
        ({"totals": {"rows": "x"}}, "totals.tokens is missing"),
        ({"columns": {"a": 3}}, "columns.a is 3, expected dict"),
        ({"format": True}, "format is True, expected int"),
        ({"arguments": 7}, "arguments is 7, expected dict"),
        ({"arguments": {"algorithm": "next_fit"}}, "arguments.capacity is missing"),
        ({"format": 10**400}, "format is 10+…, expected int"),
        ({"shards": []}, "it has no shards"),
    ],
)
def test_what_is_wrong_in_an_index_is_named(source: Path, tmp_path: Path, change: Any, said: str) -> None:
    index = write_shards([source], tmp_path / "out", OPTIONS)
    (tmp_path / "out" / "index.json").write_text(json.dumps(index | change))
    with pytest.raises(ValueError, match=said):
        read_index(tmp_path / "out")


@pytest.mark.parametrize("name", ["../rows.jsonl", "/etc/passwd", "shard-00001.safetensors", "", "x/../y"])
def test_an_index_names_only_its_own_shards(source: Path, tmp_path: Path, name: str) -> None:
    index = write_shards([source], tmp_path / "out", OPTIONS)
    index["shards"][0]["file"] = name
    (tmp_path / "out" / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"shards\[0\].file is .*, expected 'shard-00000.safetensors'"):
        check_shards(tmp_path / "out")


def test_a_shard_that_is_a_link_out_of_the_folder_is_not_followed(source: Path, tmp_path: Path) -> None:
    write_shards([source], tmp_path / "out", OPTIONS)
    shard = tmp_path / "out" / "shard-00000.safetensors"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    assert check_shards(tmp_path / "out") == [f"{shard}: a link out of the folder, which is not followed"]


@pytest.mark.parametrize("kind", ["a link", "a pipe", "a folder"])
def test_an_index_that_is_no_file_is_not_read(source: Path, tmp_path: Path, kind: str) -> None:
    write_shards([source], tmp_path / "out", OPTIONS)
    index = tmp_path / "out" / "index.json"
    index.rename(tmp_path / "elsewhere")
    makers: dict[str, Callable[[], object]] = {
        "a link": lambda: index.symlink_to(tmp_path / "elsewhere"),
        "a pipe": lambda: os.mkfifo(index),  # whose reader waits for a writer
        "a folder": index.mkdir,
    }
    makers[kind]()
    with pytest.raises(ValueError, match=r"index\.json: not an index that rollkit wrote: a link, or no file"):
        read_index(tmp_path / "out")


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_a_damaged_record_is_written_again(source: Path, tmp_path: Path, unfinished: Path, text: str) -> None:
    write_shards([source], tmp_path / "wanted", OPTIONS)
    record = unfinished / WORK / "shard-00001.safetensors.json"
    record.write_bytes(text.encode("utf-8", "surrogateescape"))
    write_shards([source], unfinished, OPTIONS, resume=True)
    assert everything(unfinished) == everything(tmp_path / "wanted")


@pytest.mark.parametrize("name", ["rows", "tokens", "bytes", "bins"])
def test_a_record_with_other_numbers_is_written_again(
    source: Path, tmp_path: Path, unfinished: Path, name: str
) -> None:
    """Its shape does not tell that it is damaged."""
    write_shards([source], tmp_path / "wanted", OPTIONS)
    path = unfinished / WORK / "shard-00001.safetensors.json"
    record = json.loads(path.read_bytes())
    record["shard"][name] += 1
    path.write_text(json.dumps(record))
    write_shards([source], unfinished, OPTIONS, resume=True)
    assert everything(unfinished) == everything(tmp_path / "wanted")


def test_a_layout_that_is_damaged_is_named(source: Path, tmp_path: Path) -> None:
    write_shards([source], tmp_path / "out", OPTIONS)
    path = tmp_path / "out" / "shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    at = json.loads(data[8:begin])["layout.starts"]["data_offsets"][0]
    data[begin + at + 4] = 1
    path.write_bytes(data)
    calls: list[Callable[[], Any]] = [
        lambda: read_layout(tmp_path / "out"),
        lambda: list(read_shards(tmp_path / "out")),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"shard-00001\.safetensors: row \d+ .*elements"):
            call()


def test_shards_of_another_run_are_no_shards_of_one_folder(source: Path, tmp_path: Path) -> None:
    for capacity, name in ((16, "out"), (32, "other")):
        write_shards([source], tmp_path / name, Options(capacity=capacity, bins_per_shard=3))
    (tmp_path / "other" / "shard-00001.safetensors").replace(tmp_path / "out" / "shard-00001.safetensors")
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors: a shard of another run$"):
        read_layout(tmp_path / "out")


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_a_damaged_plan_is_named_and_nothing_is_touched(source: Path, unfinished: Path, text: str) -> None:
    (unfinished / WORK / "plan.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    before = everything(unfinished)
    with pytest.raises(ValueError, match=r"plan\.json: not a plan that rollkit wrote"):
        write_shards([source], unfinished, OPTIONS, resume=True)
    assert everything(unfinished) == before


ENDED = """
import resource, signal, sys
from rollkit._files.stream import Options, write_shards
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
write_shards([sys.argv[1]], sys.argv[2], Options(capacity=16, bins_per_shard=3))
"""


def test_a_run_that_died_in_the_middle_of_a_shard_is_resumed(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    write_shards([source], tmp_path / "wanted", OPTIONS)
    most = (tmp_path / "wanted" / "shard-00000.safetensors").stat().st_size - 1
    command = [sys.executable, "-c", ENDED, str(source), str(tmp_path / "out"), str(most)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGXFSZ
    assert not list((tmp_path / "out").glob("shard-*"))
    assert (tmp_path / "out" / WORK / "plan.json").exists()
    write_shards([source], tmp_path / "out", OPTIONS, resume=True)
    assert everything(tmp_path / "out") == everything(tmp_path / "wanted")


def linked(work: Path, victim: Path) -> None:
    for path in work.iterdir():
        path.unlink()
    work.rmdir()
    work.symlink_to(victim)


def spooled(work: Path, victim: Path) -> None:
    (work / "spool").mkdir()
    (work / "spool" / "mine").write_text("x")


def lock_linked(work: Path, victim: Path) -> None:
    (work / "lock").unlink()
    (work / "lock").symlink_to(victim / "new")


STRANGERS: dict[str, Any] = {
    "a link to a folder": linked,
    "a file": lambda work, victim: (work / "notes.txt").write_text("mine"),
    "a folder": lambda work, victim: (work / "mine").mkdir(),
    "a name that is nearly ours": lambda work, victim: (work / "shard-1.safetensors.json").write_text("{}"),
    "a link with a name of ours": lambda work, victim: (work / "plan.json.tmp").symlink_to(victim / "a"),
    "a spool that is a link": lambda work, victim: (work / "spool").symlink_to(victim),
    "a spool that is a file": lambda work, victim: (work / "spool").write_text("mine"),
    "a stranger in the spool": spooled,
    "a lock that is a link": lock_linked,
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_what_is_not_ours_is_refused_untouched(
    source: Path, tmp_path: Path, unfinished: Path, stranger: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.tex").write_text("years")
    STRANGERS[stranger](unfinished / WORK, victim)
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="nothing here is touched; move it away, or choose another folder"):
        write_shards([source], unfinished, OPTIONS, resume=True)
    assert everything(tmp_path) == before


def test_a_file_with_the_name_of_the_lock_keeps_what_is_in_it(source: Path, unfinished: Path) -> None:
    mine = unfinished.parent / "thesis.tex"
    mine.write_text("years")
    (unfinished / WORK / "lock").unlink(missing_ok=True)
    os.link(mine, unfinished / WORK / "lock")
    write_shards([source], unfinished, OPTIONS, resume=True)
    assert mine.read_text() == "years"


FORMATS = ["jsonl", "parquet", "arrow"]


def table(path: Path, rows: int, value: int) -> None:
    columns = {"response_ids": [[value] * 30] * rows}
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"response_ids": [value] * 30}) + "\n" for _ in range(rows)))
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path, row_group_size=100)
        return
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.table(columns).schema) as writer:
        writer.write_table(pa.table(columns), max_chunksize=100)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("change", ["rewritten", "truncated", "replaced", "touched"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, kind: str, change: str) -> None:
    path = tmp_path / f"rows.{kind}"
    table(path, 2000, 1)
    chunks = rollkit.iter_chunks(path, rows=100)
    assert set(next(chunks).ragged("response_ids").flat) == {1}
    if change == "rewritten":
        table(path, 2000, 2)
    elif change == "truncated":
        os.truncate(path, 1000)
    elif change == "touched":
        os.utime(path, ns=(1, 1))
    else:
        table(tmp_path / f"new.{kind}", 2000, 2)
        os.replace(tmp_path / f"new.{kind}", path)
    with pytest.raises(ValueError, match="changed while it was read") as caught:
        list(chunks)
    assert str(path) in str(caught.value)


def test_a_source_that_changes_between_its_digest_and_its_rows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    table(path, 20, 1)

    def hashed(found: Path) -> str:
        told = digest(found)
        table(path, 20, 2)
        return told

    monkeypatch.setattr(spooling, "digest", hashed)
    with pytest.raises(ValueError, match="changed while it was read") as caught:
        write_shards([path], tmp_path / "out", Options(capacity=64))
    assert str(path) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_read_is_a_copy(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    table(path, 500, 1)
    rows = rollkit.read(path)
    os.truncate(path, 0)
    np.testing.assert_array_equal(rows.ragged("response_ids").flat, np.ones(500 * 30))
