"""Arrow IPC files: what is wanted is read, batch by batch, and what is damaged is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollkit import Ragged, Rollouts, iter_chunks, read

pa = pytest.importorskip("pyarrow")
ipc = pytest.importorskip("pyarrow.ipc")

ROWS, BATCH, LENGTH = 2000, 100, 500
KINDS = [ipc.new_file, ipc.new_stream]


def write(path: Path, new: Any, table: Any) -> Path:
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=BATCH)
    return path


@pytest.fixture(scope="module")
def table() -> Any:
    values = np.arange(ROWS * LENGTH, dtype=np.int32)
    offsets = np.arange(0, ROWS * LENGTH + 1, LENGTH)
    columns = {"response_ids": Ragged(values, offsets), "other": Ragged(values + 1, offsets)}
    return Rollouts(columns | {"score": np.arange(ROWS)}).to_arrow()


@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("columns", [None, ["score"], ["score", "response_ids"], []])
@pytest.mark.parametrize("rows", [1, 30, BATCH, 10 * BATCH])
def test_chunks_are_what_is_read_at_once(
    tmp_path: Path, table: Any, new: Any, columns: list[str] | None, rows: int
) -> None:
    path = write(tmp_path / "x.arrow", new, table.slice(0, 3 * BATCH))
    whole = read(path, columns=columns)
    assert set(whole) == set(table.schema.names if columns is None else columns)
    chunks = list(iter_chunks(path, rows=rows, columns=columns))
    assert all(len(chunk) <= rows for chunk in chunks)
    for name, column in whole.items():
        parts = [chunk[name] for chunk in chunks]
        if isinstance(column, Ragged):
            assert column.to_list() == [row for part in parts for row in part.to_list()]  # type: ignore[union-attr]
        else:
            np.testing.assert_array_equal(column, np.concatenate(parts))


def bytes_read() -> int:
    """How much this process has read so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


needs_io = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes by /proc/self/io")


@needs_io
@pytest.mark.parametrize("new", KINDS)
def test_what_is_not_wanted_yet_is_not_read(tmp_path: Path, table: Any, new: Any) -> None:
    path = write(tmp_path / "x.arrow", new, table)
    batch = path.stat().st_size // (ROWS // BATCH)
    before = bytes_read()
    chunks = iter_chunks(path, rows=BATCH)
    next(chunks)
    assert bytes_read() - before < 2 * batch
    list(chunks)
    assert bytes_read() - before > path.stat().st_size


@needs_io
def test_columns_that_are_not_wanted_are_not_read(tmp_path: Path, table: Any) -> None:
    path = write(tmp_path / "x.arrow", ipc.new_file, table)
    for call in (lambda: read(path, columns=["score"]), lambda: list(iter_chunks(path, columns=["score"]))):
        before = bytes_read()
        call()
        assert bytes_read() - before < path.stat().st_size // 10


@pytest.mark.parametrize("new", KINDS)
def test_damage_is_named(tmp_path: Path, table: Any, new: Any) -> None:
    path = write(tmp_path / "x.arrow", new, table.slice(0, 3 * BATCH))
    data = path.read_bytes()
    for size in (0, 3, 10, 300, len(data) // 2, len(data) - 200):
        path.write_bytes(data[:size])
        for call in (lambda: read(path), lambda: list(iter_chunks(path, rows=7))):
            with pytest.raises(ValueError, match=r"x\.arrow: ") as caught:
                call()
            assert "\n" not in str(caught.value)
    # The metadata of a batch begins with its length.
    at = data.index(b"\xff\xff\xff\xff", data.index(b"\xff\xff\xff\xff", 8) + 8)
    path.write_bytes(data[: at + 8] + b"\xff" * 100 + data[at + 108 :])
    with pytest.raises(ValueError, match=r"x\.arrow: ") as caught:
        read(path)
    assert caught.value.path == str(path)  # type: ignore[attr-defined]


def test_damage_in_parquet_is_named(tmp_path: Path, table: Any) -> None:
    path = tmp_path / "x.parquet"
    pytest.importorskip("pyarrow.parquet").write_table(table, path)
    data = path.read_bytes()
    path.write_bytes(data[:10] + b"\xff" * 100 + data[110:])
    with pytest.raises(ValueError, match=r"x\.parquet: ") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("new", KINDS)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, new: Any) -> None:
    found = pa.table([pa.array([[1]]), pa.array([[2]])], names=["response_ids", "response_ids"])
    path = write(tmp_path / "x.arrow", new, found)
    for call in (lambda: read(path), lambda: list(iter_chunks(path))):
        with pytest.raises(ValueError, match=r"x\.arrow: two columns 'response_ids'; rename one of them"):
            call()
