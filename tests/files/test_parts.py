"""Shards of sources that are read in parts: the same bytes, and the same refusals, as read in order."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.thorough import examples

import rollkit
from rollkit._files import shard, shard_writer, spooling
from rollkit._files.folder import WORK
from rollkit._files.read import chunks_of
from rollkit._files.source import File
from rollkit._files.stream import Options, write_shards


def elsewhere(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Call a function as another process would: a copy of it, with copies, the last item first."""
    found = [
        pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(item))) for item in [*items][::-1]
    ]
    return iter(pickle.loads(pickle.dumps(found[::-1])))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "_PART", 64)
    monkeypatch.setattr(spooling, "BLOCK", 48)


def files_in(folder: Path) -> dict[str, bytes]:
    assert not (folder / WORK).exists()
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def outcome(sources: list[Path], folder: Path, options: Any, each: Any) -> Any:
    """What a run writes, or refuses."""
    try:
        index = write_shards(sources, folder, Options(capacity=32, **options), each=each)
    except (ValueError, TypeError, OverflowError) as error:
        assert not folder.exists()
        return str(error)
    found = files_in(folder)
    assert json.loads(found["index.json"]) == index
    return found


def written(path: Path, rows: list[dict[str, Any] | None]) -> Path:
    path.write_text("".join("\n" if row is None else json.dumps(row) + "\n" for row in rows))
    return path


ENTRY = st.one_of(
    st.integers(0, 9),
    st.sampled_from([0.5, True, None, "a", 2**62, {"k": 1}, [1], [1, 2], [[1, 2]], [0.5]]),
)
"""What a column has in a row: of any kind, and so of several."""
ROW = st.fixed_dictionaries(
    {"response_ids": st.lists(st.integers(0, 9), max_size=5)},
    optional={"rewards": st.sampled_from([1, 0.5, 2]), "x": ENTRY, "y": st.sampled_from([1, 2.5, "b"])},
)
ROWS = st.lists(st.one_of(ROW, st.none()), max_size=40)


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS, more=ROWS, chunk=st.integers(1, 7))
def test_parts_make_what_all_makes_or_refuse_alike(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], more: list[Any], chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    sources = [written(folder / "a.jsonl", rows), written(folder / "b.jsonl", more)]
    options = {"chunk_rows": chunk, "bins_per_shard": 1}
    one = outcome(sources, folder / "one", options, None)
    parts = outcome(sources, folder / "parts", options, elsewhere)
    assert parts == one


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lines=st.lists(st.sampled_from([0, 1, 5, 40, 90]), max_size=60),
    chunk=st.integers(1, 9),
    ended=st.booleans(),
)
def test_parts_are_whole_chunks(
    tmp_path_factory: pytest.TempPathFactory, lines: list[int], chunk: int, ended: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    text = "\n".join(json.dumps({"response_ids": [1], "n": "x" * line}) if line else "" for line in lines)
    path.write_text(text + "\n" * ended)
    parts = spooling.parts_of([File(path)], chunk)
    assert sum(len(part) for part in parts) >= 1
    how = Options(capacity=9).reading()
    whole = [chunk.to_rows() for chunk in chunks_of(File(path), chunk, how)]
    found = [c.to_rows() for part in parts for _, piece in part for c in chunks_of(piece, chunk, how)]
    assert list(filter(None, found)) == list(filter(None, whole))


def test_there_are_parts(tmp_path: Path) -> None:
    rows: list[Any] = [{"response_ids": [i], "rewards": i % 2} for i in range(64)]
    rows[40]["rewards"] = 0.5  # so that parts have two dtypes
    source = written(tmp_path / "a.jsonl", rows)
    assert len(spooling.parts_of([File(source)], 4)) > 4
    calls = []

    def counted(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        calls.append(type(function).__name__)
        return elsewhere(function, items)

    options = {"chunk_rows": 4, "bins_per_shard": 1}
    assert outcome([source], tmp_path / "parts", options, counted) == outcome(
        [source], tmp_path / "one", options, None
    )
    assert calls == ["function", "Reader", "Writer"]  # digests, rows, shards: nothing was read again
    (batch,) = (rollkit.Bins.open(tmp_path / "parts").batch([0]).rows["rewards"],)
    assert np.asarray(batch).dtype == np.float64


def test_a_wrong_row_is_told_by_its_line(tmp_path: Path) -> None:
    rows: list[Any] = [{"response_ids": [i]} for i in range(40)]
    rows[33] = {"response_ids": ["a"]}
    source = written(tmp_path / "a.jsonl", rows)
    said = outcome([source], tmp_path / "out", {"chunk_rows": 4}, elsewhere)
    assert said.startswith(f"{source}:34: ")


class Abreast:
    """Passes chunks through, one at a time of two attempts that have the same barrier."""

    def __init__(self, barrier: Barrier) -> None:
        self.barrier = barrier

    def __call__(self, items: Iterable[Any], label: str, total: int | None) -> Iterator[Any]:
        for chunk in items:
            self.barrier.wait(10)
            yield chunk


def test_two_attempts_at_a_part_read_the_same(tmp_path: Path) -> None:
    """A node that is out of reach goes on for a while, and Ray has another do what it did."""
    source = written(tmp_path / "a.jsonl", [{"response_ids": [i, i]} for i in range(64)])

    def twice(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(function, spooling.Reader):
                reader = replace(function, watch=Abreast(Barrier(2)))
                with ThreadPoolExecutor(2) as attempts:
                    yield list(attempts.map(reader, [item, item]))[1]
            else:
                yield function(item)

    options = {"chunk_rows": 1, "bins_per_shard": 9}
    assert outcome([source], tmp_path / "parts", options, twice) == outcome(
        [source], tmp_path / "one", options, None
    )


def test_two_attempts_at_a_shard_write_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(tmp_path / "a.jsonl", [{"response_ids": [i, i]} for i in range(64)])
    save, calls = shard.save_shard, list[int]()

    def each(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(function, shard_writer.Writer):

                def saved(*given: Any, item: Any = item, **named: Any) -> Any:
                    found = save(*given, **named)
                    if not calls or calls[-1] != item:
                        calls.append(item)
                        function(item)  # while this one has not ended
                    return found

                monkeypatch.setattr(shard_writer, "save_shard", saved)
            yield function(item)

    options = {"chunk_rows": 4, "bins_per_shard": 1}
    assert outcome([source], tmp_path / "parts", options, each) == outcome(
        [source], tmp_path / "one", options, None
    )
    assert len(calls) > 3
