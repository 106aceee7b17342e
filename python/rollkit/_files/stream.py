"""Rollouts of any size to shards: streamed in, planned at once, and written bin by bin."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from rollkit._batch import pack
from rollkit._errors import TELLING
from rollkit._extras import extra
from rollkit._files.folder import INDEX, PLAN, SPOOL, agree, claimed, write_json
from rollkit._files.options import Options as Options
from rollkit._files.paths import local_files
from rollkit._files.read import chunks_of, in_file
from rollkit._files.shard import FORMAT, WITH_LISTS, derivable
from rollkit._files.shard_plan import Shards, laid, planned, totals
from rollkit._files.shard_plan import no_rollouts as no_rollouts
from rollkit._files.shard_writer import Writer
from rollkit._files.shards import check_shards, read_index
from rollkit._files.source import File, PathLike, changed, local_path
from rollkit._files.spool import per_token
from rollkit._files.spooling import (
    TOKEN_IDS,
    among,
    check_seen,
    lengths_of,
    size_of,
    source_of,
    spooled,
    wanted_of,
)
from rollkit._files.state import PLAN_SHAPE, read_state
from rollkit._files.watch import Each, Watch
from rollkit._files.watch import unwatched as unwatched
from rollkit._native import __version__
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.layout import Layout
from rollkit._rows.lists import Lists


def write_shards(
    sources: Sequence[PathLike | File],
    folder: PathLike,
    options: Options,
    *,
    resume: bool = False,
    watch: Watch = unwatched,
    each: Each | None = None,
) -> dict[str, Any]:
    """Pack the rollouts of `sources` into shards in `folder`; memory is bounded by chunks and shards.

    All rows are read and checked before the first shard is written. A run that was killed leaves only
    whole shards under their names, and with `resume` it is continued to the same bytes.

    Args:
        sources: files that `rollkit.read` reads, folders and globs of them; no URLs.
        folder: made if it is missing; refused if it holds anything, but for what `resume` continues.
        options: how to pack.
        resume: go on with what an earlier run with the same sources and options left; begin if
            there is none.
        watch: shows progress.
        each: does parts of the work elsewhere, where these files and the folder are, too; the bytes are the
            same.

    Returns:
        The index, as in `index.json`.

    Raises:
        ValueError: a row is wrong (the message names file and line), the folder is in use, or is that
            of a run with other sources or options. Nothing is left behind where no shard was written.
    """
    extra("safetensors", "cli")
    files = local_files(sources)
    begun = [file.state() for file in files]
    with claimed(local_path(folder), resume) as work:
        job: dict[str, Any] = {
            "format": FORMAT,
            "rollkit": __version__,
            "arguments": options.recorded(),
            "sources": list((each or map)(source_of, files)),
        }
        index = _finished(work, job)
        if index is None:
            spool, counts = spooled(work / SPOOL, files, options, watch, each)
            for file, state in zip(files, begun, strict=True):
                if file.state() != state:  # what was read is not what was hashed
                    raise changed(file)
            shards = planned(spool, options, files, counts)
            header = {**job, "plan_sha256": shards.digest(job["sources"])}
            if spool.has_lists(shards.levels):
                header["format"] = WITH_LISTS
            writer = Writer(work, spool, shards, options, header["plan_sha256"])
            index = _written(work, header, shards, writer, watch, each or map)
        return index


def _finished(work: Path, job: dict[str, Any]) -> dict[str, Any] | None:
    """The index of a run that is complete. Refuses to go on with a run that is not this one."""
    folder = work.parent
    index = read_index(folder) if (folder / INDEX).exists() else None
    earlier = index
    if earlier is None and (work / PLAN).exists():
        earlier = read_state(work / PLAN, "a plan", PLAN_SHAPE)
    if earlier is not None:
        # Whether there are lists is not known before all rows are read.
        agree(work, earlier, {**job, "format": WITH_LISTS} if earlier["format"] == WITH_LISTS else job)
    if index is not None:
        for wrong in check_shards(folder):
            raise ValueError(wrong)
    return index


def plan_shards(
    sources: Sequence[PathLike | File], options: Options, *, watch: Watch = unwatched
) -> dict[str, Any]:
    """What `write_shards` would make of the same arguments, by the lengths of rows alone. Writes nothing.

    Returns:
        The totals of an index, with `shards` and, about, `bytes`: those of the first rows tell of the others.

    Raises:
        ValueError: as `write_shards`, but what is wrong in columns other than token ids is not found.
    """
    files = local_files(sources)
    lengths, counts, sizes, seen = [np.zeros((2, 0), np.int64)], [], [], []
    for file in files:
        size_of(file)  # not a pipe
        counts.append(0)
        try:
            head = next(filter(len, chunks_of(file, options.chunk_rows, options.reading())), Rollouts({}))
            seen.append(set(head))
            if not len(head):
                continue
            wanted = wanted_of(head, options)
            sizes.append(_sizes(wanted, options))
            names = [name for name in TOKEN_IDS if name in wanted]
            # NaN is not passed over in a column that is left out.
            how = options.reading(names if options.nonfinite == "raise" else None)
            rest = filter(len, chunks_of(file, options.chunk_rows, how))
            for chunk in watch(rest, f"reading {file.name}", None):
                prompts = lengths_of(chunk, TOKEN_IDS[:1])
                lengths.append(np.stack([prompts, lengths_of(chunk)]))
                counts[-1] += len(chunk)
        except TELLING as error:
            raise in_file(error, file, counts[-1]) from None
    check_seen(files, counts, seen, options)
    prompt_lengths, whole = np.concatenate(lengths, axis=1)
    if not len(whole):
        raise no_rollouts(files)
    layout = laid(whole, prompt_lengths, options, files, counts)
    found = totals(layout)
    token, row = np.max(sizes, axis=0)
    size = int(layout.size * token + (found["rows"] - found["dropped"]) * row)
    return {**found, "shards": -(-found["bins"] // options.bins_per_shard), "bytes": size}


def _sizes(chunk: Rollouts, options: Options) -> tuple[float, float]:
    """Bytes of a token's place in a shard, and of what a row has beside, by some rows."""
    columns = per_token(chunk.columns, options.levels)
    layout = Layout.concat(lengths_of(chunk))
    batch = pack(columns, layout=layout, pad_id=options.pad_id, levels=among(options.levels, columns))
    rest = {name: column for name, column in chunk.items() if name not in columns or name == "rewards"}
    left_out = () if options.derived else derivable(batch, rest)
    stored = [array for name, array in batch.items() if name not in left_out]
    lists = [array for array in stored if isinstance(array, Lists)]
    plain = [array for array in stored if not isinstance(array, Lists)]
    token = sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in plain) + len(lists)
    entries = (
        column.nbytes / len(chunk)
        if isinstance(column, np.ndarray)
        else len(json.dumps(column, default=str)) / len(chunk) + _PER_NUMBER
        for column in rest.values()
    )
    of_lists = sum(found.values.nbytes for found in lists) / len(chunk)
    return token, _PER_NUMBER * _PER_ROW + sum(entries) + of_lists


_PER_NUMBER: Final = 8
_PER_ROW: Final = 5
"""Numbers that a shard's layout has for each row."""


def _written(
    work: Path, planned: dict[str, Any], shards: Shards, writer: Writer, watch: Watch, each: Each
) -> dict[str, Any]:
    """Write the shards that are not there yet, and the index."""
    if (work / PLAN).exists():
        agree(work, read_state(work / PLAN, "a plan", PLAN_SHAPE), planned)
    else:
        write_json(work, work / PLAN, planned)
    records: list[dict[str, Any]] = []
    count = len(shards)
    try:
        for record in watch(each(writer, range(count)), "writing shards", count):
            records.append(record)
    except BaseException as error:
        if records:
            error.add_note(f"{len(records):,} of {count:,} shards are whole; --resume goes on from there")
        raise
    index = {**planned, "totals": totals(shards.layout), **records[0]["contents"]}
    index["shards"] = [record["shard"] for record in records]
    write_json(work, work.parent / INDEX, index)
    return index
