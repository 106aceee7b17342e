"""Files to a file of another kind, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from rollkit._errors import at
from rollkit._files.atomic import replacing
from rollkit._files.read import Reading, read_sources
from rollkit._files.save import no_place, save, write_lines, writer_of
from rollkit._files.source import ARROW, JSONL, PARQUET, File, Source
from rollkit._files.stream import no_rollouts
from rollkit._files.uniform import Sample, Uniform, conformed, sample_of
from rollkit._files.watch import Watch, unwatched
from rollkit._rollouts.columns import Column
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.ragged import Ragged

Write = Callable[[Rollouts], None]


def convert(
    sources: Sequence[Source], path: Path, how: Reading, *, rows: int = 1024, watch: Watch = unwatched
) -> int:
    """Write what `read` gives of `sources`, as `save` does, but in chunks where the kind can be written so.

    Args:
        sources: the files, read twice; where one is a pipe all rows are in memory.
        path: the file to be written.
        how: files are read.
        rows: of a chunk.
        watch: shows progress.

    Returns:
        How many rows were written.
    """
    writer_of(path)  # before the work
    writes = next((writes for kinds, writes in _WRITES if path.suffix.lower() in kinds), None)
    if writes is None or not all(source.state() for source in sources):
        return _at_once(sources, path, how)
    files = [Uniform(source, rows, how, watch) for source in sources]
    filled = [file for file in files if file.rows]
    if not filled:
        return _at_once(sources, path, how)
    sample = sample_of(filled)
    done = 0
    with replacing(path) as (file, temporary):
        with writes(file, sample) as write:
            for chunk in watch(_chunks(filled, sample), f"writing {path.name}", None):
                with at(first_row=done):
                    write(chunk)
                done += len(chunk)
        file.flush()
        if path.suffix.lower() in JSONL:
            _check_same(filled, sample, temporary, rows, watch)
    return done


def _at_once(sources: Sequence[Source], path: Path, how: Reading) -> int:
    rollouts = read_sources(sources, how)
    if not rollouts.columns:
        raise no_rollouts(sources)
    save(rollouts, path)
    return len(rollouts)


def _chunks(files: Sequence[Uniform], sample: Sample) -> Iterator[Rollouts]:
    return (conformed(chunk, sample, file.source) for file in files for chunk in file.chunks())


# The kinds of files that are written in parts.


@contextmanager
def _arrow(file: Any, sample: Sample) -> Iterator[Write]:
    from rollkit._files.arrow import IpcParts

    with IpcParts(file, sample) as parts:
        yield lambda chunk: parts.write(chunk.columns)


@contextmanager
def _parquet(file: Any, sample: Sample) -> Iterator[Write]:
    from rollkit._files.arrow import ParquetParts

    with ParquetParts(file, sample) as parts:
        yield lambda chunk: parts.write(chunk.columns)


@contextmanager
def _jsonl(file: Any, sample: Sample) -> Iterator[Write]:
    yield lambda chunk: write_lines(file, chunk)


def _check_same(files: Sequence[Uniform], sample: Sample, path: Path, rows: int, watch: Watch) -> None:
    """Refuse rows that `read` makes something else of, as `save` does."""
    try:
        back = Uniform(File(path), rows, Reading())
    except ValueError:
        for name, column in sample.items():  # one of them is what cannot be read
            _check_like(name, column, _sample_alone(path, name, rows))
        raise
    for name, column in sample.items():
        _check_like(name, column, back.sample.get(name))
    pairs = _side_by_side(_chunks(files, sample), back.chunks())
    for ours, found in watch(pairs, f"checking {path.name}", None):
        for name in sample:
            if not found.select(name).equals(ours.select(name)):
                raise no_place(name, sample[name], back.sample[name])


def _sample_alone(path: Path, name: str, rows: int) -> Column | None:
    try:
        return Uniform(File(path), rows, Reading(columns=[name])).sample.get(name)
    except ValueError:
        return None


def _check_like(name: str, column: Column, got: Column | None) -> None:
    if type(got) is not type(column) or _element(got) != _element(column):
        raise no_place(name, column, got)


def _element(column: Column | None) -> object:
    if isinstance(column, Ragged):
        return column.dtype, column.inner
    return (column.dtype, column.shape[1:]) if isinstance(column, np.ndarray) else None


def _side_by_side(
    ours: Iterator[Rollouts], theirs: Iterator[Rollouts]
) -> Iterator[tuple[Rollouts, Rollouts]]:
    """The same rows of two, whose chunks are not alike."""
    rest = Rollouts({})
    for chunk in ours:
        while len(chunk):
            rest = rest if len(rest) else next(theirs)
            count = min(len(chunk), len(rest))
            yield chunk[:count], rest[:count]
            chunk, rest = chunk[count:], rest[count:]


_WRITES: Final[tuple[tuple[Sequence[str], Callable[[Any, Sample], AbstractContextManager[Write]]], ...]] = (
    (ARROW, _arrow),
    (PARQUET, _parquet),
    (JSONL, _jsonl),
)
