"""Shards of rollouts, written by a cluster: `write_shards`."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

from rollkit._files import stream
from rollkit._files.paths import local_files
from rollkit._files.source import File, PathLike, local_path
from rollkit._files.spooling import size_of
from rollkit._rows.binpack import DEFAULTS
from rollkit.ray._tasks import Tasks, check_shared, connected


def write_shards(
    sources: PathLike | Sequence[PathLike],
    folder: PathLike,
    *,
    capacity: int,
    resume: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Pack files of rollouts into shards, as `rollkit pack` does, to the same bytes; the work is Ray's tasks.

    Sources are read in parts (JSONL by lines, others by files), the driver plans all rows at once by their
    lengths, and each shard is a task. What a node or a process did not finish is done again. The files and
    the folder lie on storage that all nodes share.

    Args:
        sources: files that `rollkit.read` reads, folders and globs of them.
        folder: made if it is missing.
        capacity: tokens of a bin.
        resume: go on with what an earlier run left, of this or of `rollkit pack`.
        **options: those of `rollkit pack`, with underscores: `pad_id`, `bins_per_shard`, `skip_columns` (a
            sequence), `levels` and `rename` (mappings), `chunk_rows`, `nonfinite`, `derived`, and those of
            `Layout.pack`. The order is as bins are opened, unless `order="shuffled", seed=0` is said.

    Returns:
        The index, as in `index.json`.

    Raises:
        ValueError: as `rollkit pack`; or a node does not see a file.
        OSError: Ray gave a task up.
    """
    known = {*signature(stream.Options).parameters, *DEFAULTS} - {"packing"}
    for name in options:
        if name not in known:
            raise TypeError(f"{name!r} is no option of shards; there are {', '.join(sorted(known))}")
    paths = [sources] if isinstance(sources, str) or not isinstance(sources, Sequence) else sources
    return _written(local_files(paths), folder, stream.Options(capacity=capacity, **options), resume=resume)


def written_at(
    address: str, sources: Sequence[Any], folder: PathLike, options: stream.Options, **how: Any
) -> dict[str, Any]:
    """Write shards at the cluster of an address, see `connected`, for a process that has no connection."""
    files = local_files(sources)
    local_path(folder)
    for file in files:  # what is not there is told before anything is started
        size_of(file)
    with connected(address):
        return _written(files, folder, options, **how)


def _written(files: Sequence[File], folder: PathLike, options: stream.Options, **how: Any) -> dict[str, Any]:
    there = next(path for path in local_path(folder).absolute().parents if path.exists())
    check_shared([*(file.path for file in files), there])
    return stream.write_shards(files, folder, options, each=Tasks(), **how)
