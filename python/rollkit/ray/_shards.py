"""Shards of rollouts, written by a cluster: `write_shards`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rollkit._files import stream
from rollkit._files.paths import local_files
from rollkit._files.source import PathLike, local_path
from rollkit._files.watch import Watch, unwatched
from rollkit.ray._tasks import Tasks, check_shared


def write_shards(
    sources: PathLike | Sequence[PathLike],
    folder: PathLike,
    *,
    capacity: int,
    resume: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Pack files of rollouts into shards, as `rollkit pack` does, to the same bytes; reading and writing are tasks.

    Sources are read in parts (JSONL by lines, others by files), all rows are planned at once at the driver, by
    their lengths, and each shard is a task. What a node or a process did not finish is done again. The files
    and the folder lie on storage that all nodes share.

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
    paths = [sources] if isinstance(sources, str) or not isinstance(sources, Sequence) else sources
    return written(paths, folder, stream.Options(capacity=capacity, **options), resume=resume)


def written(
    sources: Sequence[Any],
    folder: PathLike,
    options: stream.Options,
    *,
    resume: bool,
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """Write shards, for whom Ray is connected to."""
    files = local_files(sources)
    parent = next(path for path in local_path(folder).absolute().parents if path.exists())
    check_shared([*(file.path for file in files), parent])
    return stream.write_shards(files, folder, options, resume=resume, watch=watch, each=Tasks())
