"""Shards are read without a map: what `safetensors` wrote is read, what is damaged is refused by name."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from rollkit._files import shards, tensors
from rollkit._files.shard import opened
from rollkit._files.shards import check_shards, read_layout, read_shards
from rollkit._files.source import File, read_bytes
from rollkit._files.stream import Options, write_shards
from rollkit._files.tensors import Tensors
from rollkit._rows.dtypes import numpy_dtype

numpy_files = pytest.importorskip("safetensors.numpy")

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
DTYPES += ["float16", "float32", "float64", "complex64", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
SHAPES = [(), (0,), (3,), (2, 0, 4), (5, 1, 7)]


@pytest.mark.parametrize("name", DTYPES)
def test_what_safetensors_wrote_is_read(tmp_path: Path, name: str) -> None:
    if name.startswith(("bfloat", "float8")):
        pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    arrays = {
        str(i): np.asarray(rng.integers(0, 2, shape) + i).astype(numpy_dtype(name))
        for i, shape in enumerate(SHAPES)
    }
    numpy_files.save_file(arrays, tmp_path / "x", metadata={"é": "1"})
    with Tensors(File(tmp_path / "x"), "a shard") as file:
        assert file.metadata == {"é": "1"}
        for key, array in arrays.items():
            found = file.read(key)
            assert (found.dtype, found.shape, file.shape(key)) == (array.dtype, array.shape, array.shape)
            assert found.tobytes() == array.tobytes()
            assert found.flags.writeable


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards")
    row = {"prompt_token_ids": [1, 2], "response_ids": [3, 4, 5], "rewards": 0.5, "messages": [{"a": "b"}]}
    (path / "rows.jsonl").write_text((json.dumps(row) + "\n") * 40)
    write_shards([path / "rows.jsonl"], path / "out", Options(capacity=16, bins_per_shard=5))
    return path / "out"


def copied(folder: Path, out: Path) -> Path:
    out.mkdir()
    for path in folder.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out / "shard-00001.safetensors"


def load(path: Path) -> Any:
    with opened(path) as shard:
        return shard.batch()


READERS: list[Callable[[Path], Any]] = [lambda folder: list(read_shards(folder)), read_layout]


@pytest.mark.parametrize("read", READERS)
def test_a_shard_that_is_cut_short_is_named(
    folder: Path, tmp_path: Path, read: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = copied(folder, tmp_path / "out")
    monkeypatch.setattr(shards, "check_shards", lambda *_: [])  # it is cut after its size was looked at
    data = shard.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    needed = len(data) - 1 if read is READERS[0] else header
    for size in (0, 3, 8, 9, header - 1, header, needed):
        shard.write_bytes(data[:size])
        with pytest.raises(ValueError, match="not a shard that rollkit wrote: it ends too early") as caught:
            read(tmp_path / "out")
        assert caught.value.path == str(shard)  # type: ignore[attr-defined]


def test_a_shard_that_is_cut_while_it_is_read_is_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = copied(folder, tmp_path / "out")

    def cutting(file: Any, count: int) -> Any:
        if Path(file.name) == shard and file.tell() > 8:
            os.truncate(shard, file.tell() + count - 1)
        return read_bytes(file, count)

    monkeypatch.setattr(tensors, "read_bytes", cutting)
    found = read_shards(tmp_path / "out")
    next(found)
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors: not a shard that rollkit wrote"):
        next(found)


def test_a_shard_that_is_written_to_while_it_is_read_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = copied(folder, tmp_path / "out")

    def touching(file: Any, count: int) -> Any:
        if Path(file.name) == shard:
            os.utime(shard, ns=(1, 1))
        return read_bytes(file, count)

    monkeypatch.setattr(tensors, "read_bytes", touching)
    with pytest.raises(ValueError, match="changed while it was read; read it again"):
        list(read_shards(tmp_path / "out"))


HEADERS: list[tuple[Any, str]] = [
    ([], "it is [], expected dict"),
    ({"__metadata__": {"rollkit": 3}}, "rollkit is 3, expected str"),
    ({}, "it has no header of rollkit's"),
    ({"__metadata__": {"rollkit": "["}}, "it has no header of rollkit's"),
    ({"__metadata__": {"rollkit": "{}"}}, "format is missing"),
    ({"input_ids": None}, "input_ids is None, expected dict"),
    ({"input_ids": "I32"}, "input_ids is 'I32', expected dict"),
    ({"input_ids": {"shape": [1]}}, "input_ids.dtype is missing"),
    ({"input_ids": {"dtype": "F4", "shape": [1, 2], "data_offsets": [0, 4]}}, "input_ids.dtype is 'F4'"),
    ({"input_ids": {"dtype": "I32", "shape": [1, -2], "data_offsets": [0, 8]}}, "shape[1] is -2"),
    ({"input_ids": {"dtype": "I32", "shape": [1, 2], "data_offsets": [0]}}, "data_offsets are 1, expected 2"),
    ({"input_ids": {"dtype": "I32", "shape": [1, 2], "data_offsets": [8, 0]}}, "not as long as its shape"),
    (
        {"input_ids": {"dtype": "I32", "shape": [2**62, 4], "data_offsets": [0, 8]}},
        "not as long as its shape",
    ),
    ({"input_ids": {"dtype": "I32", "shape": [8], "data_offsets": [0, 32]}}, "input_ids has shape (8,)"),
    (
        {"input_ids": {"dtype": "U8", "shape": [1, 2**50], "data_offsets": [0, 2**50]}},
        "it ends too early",
    ),
]


@pytest.mark.parametrize(("header", "said"), HEADERS, ids=range(len(HEADERS)))
def test_a_damaged_header_is_named(folder: Path, tmp_path: Path, header: Any, said: str) -> None:
    shard = copied(folder, tmp_path / "out")
    data = shard.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    if header != {} and isinstance(header, dict) and "input_ids" in header:
        header = json.loads(data[8:end]) | header
    text = json.dumps(header).encode()
    shard.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    with pytest.raises(ValueError, match="not a shard that rollkit wrote") as caught:
        load(shard)
    assert str(caught.value).startswith(f"{shard}: ")
    assert said in str(caught.value)


@settings(max_examples=examples(200), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 10_000),
)
def test_garbage_is_read_or_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], size: int
) -> None:
    data = bytearray((folder / "shard-00000.safetensors").read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    shard = tmp_path_factory.getbasetemp() / "garbage.safetensors"
    shard.write_bytes(data[:size])
    with suppress(ValueError):
        load(shard)
        return
    with pytest.raises(ValueError, match=re.escape(f"{shard}: ")):
        load(shard)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the maps of the process from /proc")
def test_no_shard_is_mapped(folder: Path) -> None:
    for batch in read_shards(folder):
        assert batch.rows["row_numbers"] is not None
        assert str(folder) not in Path("/proc/self/maps").read_text()
    read_layout(folder)
    assert check_shards(folder, verify=True) == []
    assert str(folder) not in Path("/proc/self/maps").read_text()
