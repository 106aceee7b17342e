"""Folders that older versions wrote: `tests/files/format1` holds one, and the rows that it was made of.

`tests/files/format2` holds what they were made to when format 3 came, which is for lists per token alone.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.paths import ROOT

from rollkit._cli import main
from rollkit._files.shards import check_shards, read_index, read_layout, read_shards
from rollkit._files.stream import Options, write_shards
from rollkit._loading.bins import Bins

pytest.importorskip("safetensors")

OLD = Path(__file__).with_name("format1")
BEFORE_LISTS = Path(__file__).with_name("format2") / "shards"
OPTIONS = Options(capacity=16, bins_per_shard=3)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    write_shards([OLD / "rows.jsonl"], tmp_path / "new", OPTIONS)
    return tmp_path / "new"


def parts_of(path: Path) -> tuple[Any, bytes]:
    """The header of a safetensors file, and its data."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def test_a_folder_without_lists_is_as_it_was(new: Path) -> None:
    assert sorted(path.name for path in new.iterdir()) == sorted(p.name for p in BEFORE_LISTS.iterdir())
    ours, theirs = read_index(new), read_index(BEFORE_LISTS)
    sealed = ("bytes", "sha256")  # of files whose header may be laid out otherwise by another safetensors
    for index in (ours, theirs):
        index["shards"] = [{k: x for k, x in shard.items() if k not in sealed} for shard in index["shards"]]
    assert json.dumps(ours | {"rollkit": theirs["rollkit"]}) == json.dumps(theirs)
    for path in BEFORE_LISTS.glob("*.safetensors"):
        assert parts_of(new / path.name) == parts_of(path)


def test_every_reader_gives_the_same_of_both(new: Path) -> None:
    old = OLD / "shards"
    assert (read_index(old)["format"], read_index(new)["format"]) == (1, 2)
    assert "derived" not in read_index(old)
    assert read_index(new)["derived"] == ["segment_ids", "positions", "rewards"]
    assert read_layout(old).equals(read_layout(new))
    assert check_shards(old, verify=True) == []
    for ours, theirs in zip(read_shards(new), read_shards(old), strict=True):
        assert list(ours) == list(theirs)
        assert ours.layout.equals(theirs.layout)
        np.testing.assert_array_equal(ours.prompt_lengths, theirs.prompt_lengths)
        for name, array in theirs.items():
            assert ours[name].dtype == array.dtype
            np.testing.assert_array_equal(ours[name], array)
        assert list(ours.rows) == list(theirs.rows)
        for name, column in theirs.rows.items():
            assert list(ours.rows[name]) == list(column)
            assert type(ours.rows[name]) is type(column)


def test_bins_of_both_are_the_same(new: Path) -> None:
    ours, theirs = Bins.open(new), Bins.open(OLD / "shards")
    assert ours.names == theirs.names
    assert ours.layout.equals(theirs.layout)
    assert ours.costs.tolist() == theirs.costs.tolist()
    for i in range(len(ours)):
        for name, array in theirs[i].items():
            assert ours[i][name].dtype == array.dtype
            np.testing.assert_array_equal(ours[i][name], array)
    rows, old_rows = (bins.batch([7, 0, 4]).rows for bins in (ours, theirs))
    assert {name: list(column) for name, column in rows.items()} == {
        name: list(column) for name, column in old_rows.items()
    }


def test_the_command_line_takes_both(new: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (new, OLD / "shards"):
        assert main(["inspect", str(folder)]) == main(["verify", str(folder)]) == 0
    assert capsys.readouterr().err == ""


def test_a_run_that_an_older_rollkit_began_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(OLD / "shards", out)
    with pytest.raises(
        ValueError, match="cannot resume: format was 1, is 2; finish it with the rollkit that "
    ):
        write_shards([OLD / "rows.jsonl"], out, OPTIONS, resume=True)
    index = json.loads((out / "index.json").read_text())
    (out / "index.json").unlink()
    (out / ".rollkit").mkdir()
    (out / ".rollkit" / "plan.json").write_text(json.dumps(index))
    with pytest.raises(
        ValueError, match=f"format was 1, is 2; .* that began it, {index['rollkit']}, or choose"
    ):
        write_shards([OLD / "rows.jsonl"], out, OPTIONS, resume=True)
    assert len(list(out.glob("shard-*"))) == 3


@pytest.mark.parametrize("number", [0, 4, 99])
def test_a_format_that_is_not_known_is_named(new: Path, number: int) -> None:
    path = new / "index.json"
    path.write_text(json.dumps({"format": number}))  # its shape is nobody's business here
    for call in (read_index, Bins.open):
        with pytest.raises(
            ValueError, match=rf"index\.json: format {number}; this rollkit reads 1, 2 and 3$"
        ):
            call(new)


def reader() -> Any:
    """The reader that docs/shards.md shows."""
    (block,) = re.findall(r"```python\n(import.*?)```", (ROOT / "docs" / "shards.md").read_text(), re.S)
    names: dict[str, Any] = {}
    exec(block, names)
    assert sum(line.startswith("    ") for line in block.splitlines()) <= 10
    return names["read_shard"]


@pytest.mark.parametrize("oversize", ["alone", "truncate", "drop", "split"])
@pytest.mark.parametrize("derived", [False, True])
def test_a_reader_that_needs_only_safetensors(tmp_path: Path, oversize: str, derived: bool) -> None:
    lengths = [4, 0, 4, 9, 3, 0, 1, 0, 21, 4, 0]
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"prompt_token_ids": [7], "response_ids": [n] * n}) + "\n" for n in lengths)
    )
    options = Options(capacity=8, bins_per_shard=2, oversize=oversize, derived=derived)
    write_shards([tmp_path / "rows.jsonl"], tmp_path / "out", options)
    for folder in (tmp_path / "out", OLD / "shards"):
        paths = sorted(folder.glob("*.safetensors"))
        for path, batch in zip(paths, read_shards(folder), strict=True):
            found = reader()(path)
            for name, array in batch.items():
                np.testing.assert_array_equal(found[name] if name != "rewards" else array, array)
            assert found["layout.row_numbers"].tolist() == batch.rows["row_numbers"].tolist()
