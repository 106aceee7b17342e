"""Files to a file of another kind, chunk by chunk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from rollkit._errors import at
from rollkit._files.atomic import replacing
from rollkit._files.read import Reading, read_sources
from rollkit._files.save import no_place, save, write_lines, writer_of
from rollkit._files.source import ARROW, BLOCK, JSONL, PARQUET, TENSORS, File, Source, is_known
from rollkit._files.stream import no_rollouts
from rollkit._files.uniform import Sample, Uniform, conformed, sample_of
from rollkit._files.watch import Watch, unwatched
from rollkit._rollouts.columns import Column
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.ragged import Ragged

_Pairs = Iterable[tuple[Rollouts, Rollouts]]
Write = Callable[[Rollouts], None]
Writes = Callable[[Any, Sample], AbstractContextManager[Write]]
"""What writes rows to a file, of which a sample tells what they are."""


def convert(
    sources: Sequence[Source], path: Path, how: Reading, *, rows: int = 256, watch: Watch = unwatched
) -> int:
    """Write what `read` gives of `sources`, as `save` does, but in chunks: memory does not grow with them.

    Args:
        sources: the files, which are read twice; a pipe is copied to a file first.
        path: the file to be written.
        how: files are read.
        rows: of a chunk.
        watch: shows progress.

    Returns:
        How many rows were written.
    """
    writer_of(path)  # before the work
    writes = next(writes for kinds, writes in _WRITES if path.suffix.lower() in kinds)
    with ExitStack() as stack:
        given = [_read_twice(source, stack) for source in sources]
        files = [Uniform(source, rows, how, watch) for source in given]
        filled = [file for file in files if file.rows and file.sample]
        if filled:
            return _in_chunks(filled, path, writes, rows, watch)
        rollouts = read_sources(given, how)
        if not rollouts.columns:
            raise no_rollouts(sources)
        save(rollouts, path)
    return 0


def _read_twice(source: Source, stack: ExitStack) -> Source:
    """A source that can be read twice: of a pipe, a copy."""
    if source.state() or not is_known(source.name):
        return source
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rollkit-"))
    copy = Path(folder, source.name)
    with source.open() as pipe, copy.open("wb") as file:
        shutil.copyfileobj(pipe, file, BLOCK)
    return File(copy, called=str(source))


def _in_chunks(files: Sequence[Uniform], path: Path, writes: Writes, rows: int, watch: Watch) -> int:
    sample = sample_of(files)
    done = 0
    with replacing(path) as (file, temporary):
        with writes(file, sample) as write:
            for chunk in watch(_chunks(files, sample), f"writing {path.name}", None):
                with at(first_row=done):
                    write(chunk)
                done += len(chunk)
        file.flush()
        if path.suffix.lower() in JSONL:
            label = f"checking {path.name}"
            _check_same(files, sample, temporary, rows, lambda items: watch(items, label, None))
    return done


def _chunks(files: Sequence[Uniform], sample: Sample) -> Iterator[Rollouts]:
    return (conformed(chunk, sample, file.source) for file in files for chunk in file.chunks())


# The kinds of files.


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
def _safetensors(file: Any, _: Sample) -> Iterator[Write]:
    from rollkit._files.tensor_columns import TensorParts

    with TensorParts(file) as parts:
        yield lambda chunk: parts.write(chunk.columns, len(chunk))


@contextmanager
def _jsonl(file: Any, _: Sample) -> Iterator[Write]:
    yield lambda chunk: write_lines(file, chunk)


def _check_same(
    files: Sequence[Uniform], sample: Sample, path: Path, rows: int, watched: Callable[[_Pairs], _Pairs]
) -> None:
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
    for ours, found in watched(pairs):
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


_WRITES: Final[tuple[tuple[Sequence[str], Writes], ...]] = (
    (ARROW, _arrow),
    (PARQUET, _parquet),
    (TENSORS, _safetensors),
    (JSONL, _jsonl),
)
