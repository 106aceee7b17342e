"""Rollouts of any size to shards: streamed in, planned at once, and written bin by bin."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, Unpack

import numpy as np

from rollkit import _check
from rollkit._batch import Batch, pack
from rollkit._check import Int64s
from rollkit._errors import TELLING, refusal, row_of
from rollkit._extras import extra
from rollkit._files.folder import INDEX, PLAN, SPOOL, agree, claimed, digest, replace, write_json
from rollkit._files.read import check_columns, in_file, iter_chunks, local_path
from rollkit._files.shards import FORMAT, TAKEN, check_shards, read_index, save_shard, shard_name
from rollkit._files.spool import Spool, per_token
from rollkit._files.state import PLAN_SHAPE, RECORD_SHAPE, read_state
from rollkit._native import __version__
from rollkit._rollouts.columns import check_level
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.sources import warn_cut
from rollkit._rows.binpack import DEFAULTS, Packing
from rollkit._rows.layout import ABSENT, Layout

T = TypeVar("T")

_MOST: Final = 2**31 - 1


class Watch(Protocol):
    """Passes items through, and may show how far it is: `tqdm`, in short."""

    def __call__(self, items: Iterable[T], label: str, total: int | None) -> Iterable[T]:
        """Pass `items` through."""


def unwatched(items: Iterable[T], label: str, total: int | None) -> Iterable[T]:
    """Pass items through, and show nothing."""
    return items


class Options:
    """How to make shards.

    Attributes:
        capacity: tokens of a bin.
        pad_id: the token id of padding.
        bins_per_shard: bins in a file; two shards' worth of tokens are in memory at a time.
        skip_columns: columns to leave out.
        levels: what columns have an element for; see `rollkit.pack`.
        chunk_rows: rows read at a time.
        nonfinite: as in `rollkit.read`.
        rename: as in `rollkit.read`.
        packing: the other options of `Layout.pack`.
    """

    def __init__(
        self,
        *,
        capacity: int,
        pad_id: int = 0,
        bins_per_shard: int = 64,
        skip_columns: Sequence[str] = (),
        levels: Mapping[str, str] | None = None,
        chunk_rows: int = 256,
        nonfinite: str = "raise",
        rename: Mapping[str, str] | None = None,
        **packing: Unpack[Packing],
    ) -> None:
        self.capacity, self.pad_id, self.packing = capacity, pad_id, packing
        self.bins_per_shard = _check.positive("bins_per_shard", bins_per_shard)
        self.chunk_rows = _check.positive("chunk_rows", chunk_rows)
        self.nonfinite, self.rename = nonfinite, dict(rename or {})
        self.skip_columns, self.levels = tuple(skip_columns), dict(levels or {})
        # What is wrong with an option is wrong with it for any row: say so before reading.
        if capacity > _MOST:
            raise ValueError(
                f"capacity must be at most {_MOST:,}, what int32 positions count, got {capacity:,}"
            )
        bins = _check.positive("bins_multiple_of", packing.get("bins_multiple_of", 1))
        if bins > _MOST:
            raise ValueError(f"bins_multiple_of must be at most {_MOST:,}, got {bins:,}")
        if not -_MOST - 1 <= pad_id <= _MOST:
            raise OverflowError(f"pad_id is {pad_id:,}, which does not fit int32")
        self.plan(np.ones(1, np.int64))
        layout = Layout.concat([1])
        pack({"response_ids": [[0]]}, layout=layout, pad_id=pad_id)
        for name, level in self.levels.items():
            check_level(name, level)

    def plan(self, lengths: Int64s) -> Layout:
        """Lay rows of these lengths in bins."""
        return Layout.pack(lengths, self.capacity, **self.packing)

    def recorded(self) -> dict[str, Any]:
        """What decides the bytes of the output."""
        return {
            "capacity": self.capacity,
            **DEFAULTS,
            **self.packing,
            "pad_id": self.pad_id,
            "bins_per_shard": self.bins_per_shard,
            "skip_columns": list(self.skip_columns),
            "levels": self.levels,
            # Options that came later: the index of a run without them is as it was.
            **({} if self.nonfinite == "raise" else {"nonfinite": self.nonfinite}),
            **({"rename": self.rename} if self.rename else {}),
        }


def write_shards(
    sources: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    options: Options,
    *,
    resume: bool = False,
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """Pack the rollouts of `sources` into shards in `folder`; memory is bounded by chunks and shards.

    All rows are read and checked before the first shard is written. A run that was killed leaves only
    whole shards under their names, and with `resume` it is continued to the same bytes.

    Args:
        sources: files that `rollkit.read` reads.
        folder: made if it is missing; refused if it holds anything, but for what `resume` continues.
        options: how to pack.
        resume: go on with what an earlier run with the same sources and options left; begin if
            there is none.
        watch: shows progress.

    Returns:
        The index, as in `index.json`.

    Raises:
        ValueError: a row is wrong (the message names file and line), the folder is in use, or is that
            of a run with other sources or options. Nothing is left behind where no shard was written.
    """
    extra("safetensors", "cli")
    paths = [local_path(source) for source in sources]
    with claimed(local_path(folder), resume) as work:
        job = {
            "format": FORMAT,
            "rollkit": __version__,
            "arguments": options.recorded(),
            "sources": [_source(path) for path in paths],
        }
        index = _finished(work, job)
        if index is None:
            spool = Spool(work / SPOOL)
            rows = _spooled(spool, paths, options, watch)
            index = _packed(work, spool, job, options, _planned(spool, options, paths, rows), watch)
        return index


def _finished(work: Path, job: dict[str, Any]) -> dict[str, Any] | None:
    """The index of a run that is complete. Refuses to go on with a run that is not this one."""
    folder = work.parent
    index = read_index(folder) if (folder / INDEX).exists() else None
    earlier = index
    if earlier is None and (work / PLAN).exists():
        earlier = read_state(work / PLAN, "a plan", PLAN_SHAPE)
    if earlier is not None:
        agree(work, earlier, job)
    if index is not None:
        for wrong in check_shards(folder):
            raise ValueError(wrong)
    return index


# Reading the sources.


def _source(path: Path) -> dict[str, Any]:
    """What identifies a source. Its name alone, so that the index is the same wherever it lies."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: not a file; it is read twice, so a pipe or a folder will not do")
    return {"file": path.name, "bytes": status.st_size, "sha256": digest(path)}


def _spooled(spool: Spool, paths: Sequence[Path], options: Options, watch: Watch) -> list[int]:
    """Read and check all rows; return how many each source has."""
    counts, scratch = [], None
    seen: list[set[str]] = []
    for path in paths:
        before = spool.rows
        seen.append(set())
        read = iter_chunks(path, rows=options.chunk_rows, nonfinite=options.nonfinite, rename=options.rename)
        chunks = watch(read, f"reading {path.name}", None)
        try:
            for chunk in chunks:
                seen[-1] |= chunk.keys()
                wanted = _wanted(chunk, options)
                # What `pack` would refuse later it refuses now, when nothing is written yet.
                layout = Layout.concat(_lengths(wanted))
                columns = per_token(wanted.columns, options.levels)
                scratch = pack(
                    columns,
                    layout=layout,
                    pad_id=options.pad_id,
                    levels=_among(options.levels, columns),
                    out=scratch,
                )
                spool.append(wanted)
        except TELLING as error:
            raise in_file(error, path, spool.rows - before) from None
        counts.append(spool.rows - before)
    _check_seen(paths, counts, seen, options)
    spool.finish()
    return counts


def _check_seen(
    paths: Sequence[Path], counts: Sequence[int], seen: Sequence[set[str]], options: Options
) -> None:
    """Refuse files of other columns than the first one, and names to leave out that none has."""
    skipped = set(options.skip_columns)
    filled = [i for i, count in enumerate(counts) if count]
    for i in filled:
        first = filled[0]
        check_columns(paths[i], seen[i] - skipped, paths[first], seen[first] - skipped, "--skip-column")
    known = set().union(*seen)
    for name in options.skip_columns:
        if filled and name not in known:
            there = ", ".join(map(repr, sorted(known)))
            raise ValueError(f"--skip-column {name}: no source has this column; there are {there}")


def _among(levels: Mapping[str, str], columns: Mapping[str, Any]) -> dict[str, str]:
    return {name: level for name, level in levels.items() if name in columns}


def _wanted(chunk: Rollouts, options: Options) -> Rollouts:
    columns = {name: column for name, column in chunk.items() if name not in options.skip_columns}
    for name in columns:
        if name in TAKEN or name.startswith(("layout.", "rows.")):
            raise refusal(
                ValueError,
                "this name has another meaning in a shard; rename the column, or leave it out "
                f"(--skip-column {name})",
                column=name,
            )
    rewards = columns.get("rewards")
    if isinstance(rewards, list) and None in rewards:  # as objects they would not be in the shard's arrays
        text = " is None; score it, leave the rollout out, or --skip-column rewards"
        raise refusal(ValueError, text, column="rewards", row=rewards.index(None))
    return Rollouts(columns)


def _lengths(chunk: Rollouts) -> Int64s:
    total = np.zeros(len(chunk), np.int64)
    for name in _TOKEN_IDS:
        if name in chunk:
            total += chunk[name].lengths  # type: ignore[union-attr]
    return total


_TOKEN_IDS: Final = ("prompt_token_ids", "response_ids", "input_ids")


# Planning and writing.


@dataclass(frozen=True)
class _Shards:
    layout: Layout
    prompt_lengths: Int64s
    bins_per_shard: int
    levels: Mapping[str, str]
    # Rows that have a place, by bin; and where among them each shard's begin.
    rows: Int64s
    bounds: Int64s

    @classmethod
    def of(
        cls, layout: Layout, prompt_lengths: Int64s, bins_per_shard: int, levels: Mapping[str, str]
    ) -> _Shards:
        bins = layout.shape[0]
        shards = -(-bins // bins_per_shard)
        placed = np.flatnonzero(layout.starts != ABSENT)
        # An empty row at the very end begins where a bin after the last one would.
        lines = np.minimum(layout.starts[placed] // layout.width, bins - 1)
        order = np.argsort(lines // bins_per_shard, kind="stable")
        bounds = np.searchsorted(lines[order] // bins_per_shard, np.arange(shards + 1))
        return cls(layout, prompt_lengths, bins_per_shard, levels, placed[order], bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def shard(self, number: int) -> tuple[Int64s, Layout]:
        """The rows of a shard, ascending, and where they go in it."""
        rows = self.rows[self.bounds[number] : self.bounds[number + 1]]
        first = number * self.bins_per_shard
        lines = min(self.bins_per_shard, self.layout.shape[0] - first)
        return rows, self.layout.select(rows, first, lines)

    def digest(self) -> str:
        found = hashlib.sha256(repr(self.layout.shape).encode())
        for array in (self.layout.starts, self.layout.lengths, self.layout.row_lengths, self.prompt_lengths):
            found.update(array.data)
        return found.hexdigest()


def _planned(spool: Spool, options: Options, paths: Sequence[Path], counts: Sequence[int]) -> _Shards:
    if not spool.rows:
        raise ValueError(f"no rollouts in {', '.join(map(str, paths))}")
    prompt_lengths = spool.lengths("prompt_token_ids")
    lengths = sum((spool.lengths(name) for name in _TOKEN_IDS[1:]), prompt_lengths)
    try:
        levels = spool.levels(options.levels)
        _check_capacity(lengths, options)
    except TELLING as error:
        raise _in_files(error, paths, counts) from None
    layout = options.plan(lengths)
    if not layout.shape[0]:
        raise ValueError(f"all {spool.rows:,} rows are longer than a capacity of {options.capacity:,}")
    warn_cut(layout, prompt_lengths)
    return _Shards.of(layout, prompt_lengths, options.bins_per_shard, levels)


def _check_capacity(lengths: Int64s, options: Options) -> None:
    longest = int(lengths.argmax())
    if options.packing.get("oversize", "raise") == "raise" and lengths[longest] > options.capacity:
        first = int((lengths > options.capacity).argmax())
        raise refusal(
            ValueError,
            f" has {lengths[first]:,} tokens, more than a capacity of {options.capacity:,}; the longest "
            f"row has {lengths[longest]:,}; --oversize truncate, alone or drop says what becomes of them",
            row=first,
        )


def _in_files(error: Exception, paths: Sequence[Path], counts: Sequence[int]) -> Exception:
    """Say where in the sources an error is that is about a row of all."""
    row = row_of(error)
    if row is None:
        return error
    ends = np.cumsum(counts)
    source = int(np.searchsorted(ends, row, side="right"))
    return in_file(error, paths[source], int(counts[source] - ends[source]))


def _packed(
    work: Path, spool: Spool, job: dict[str, Any], options: Options, plan: _Shards, watch: Watch
) -> dict[str, Any]:
    """Write the shards that are not there yet, and the index."""
    planned = {**job, "plan_sha256": plan.digest()}
    if (work / PLAN).exists():
        agree(work, read_state(work / PLAN, "a plan", PLAN_SHAPE), planned)
    else:
        write_json(work, work / PLAN, planned)
    records: list[dict[str, Any]] = []
    batch = None
    try:
        for number in watch(range(len(plan)), "writing shards", len(plan)):
            record = _whole(work, number)
            if record is None:
                rows, layout = plan.shard(number)
                columns = spool.tokens(rows, plan.levels)
                levels = _among(plan.levels, columns)
                batch = pack(columns, layout=layout, pad_id=options.pad_id, levels=levels, out=batch)
                record = _write(
                    work, number, batch, rows, spool.scalars(rows, plan.levels), planned["plan_sha256"]
                )
            records.append(record)
    except BaseException as error:
        if records:
            error.add_note(f"{len(records):,} of {len(plan):,} shards are whole; --resume goes on from there")
        raise
    index = {**planned, **_totals(plan, spool.rows), **records[0]["contents"]}
    index["shards"] = [record["shard"] for record in records]
    write_json(work, work.parent / INDEX, index)
    return index


def _totals(plan: _Shards, rows: int) -> dict[str, Any]:
    layout = plan.layout
    placed = layout.lengths[plan.rows]
    return {
        "totals": {
            "rows": rows,
            "tokens": int(placed.sum()),
            "bins": layout.shape[0],
            "width": layout.width,
            "utilisation": round(layout.utilisation, 6),
            "dropped": rows - len(placed),
            "truncated": int((placed < layout.row_lengths[plan.rows]).sum()),
        }
    }


def _write(
    work: Path, number: int, batch: Batch, rows: Int64s, scalars: dict[str, Any], plan: str
) -> dict[str, Any]:
    """Write a shard under a temporary name, its record, and then give it its own name."""
    layout = batch.layout
    temporary = work / f"{shard_name(number)}.tmp"
    kinds = save_shard(temporary, batch, rows, scalars, number=number, plan_sha256=plan)
    shard = {
        "file": shard_name(number),
        "bins": layout.shape[0],
        "rows": len(rows),
        "tokens": int(layout.lengths.sum()),
        "bytes": temporary.stat().st_size,
        "sha256": digest(temporary),
    }
    columns = {
        name: {"dtype": array.dtype.name, "shape": ["bins", *array.shape[1:]]}
        for name, array in batch.items()
    }
    record = {"shard": shard, "contents": {"columns": columns, "rows": kinds}}
    write_json(work, work / f"{shard_name(number)}.json", record)
    replace(temporary, work.parent / shard_name(number))
    return record


def _whole(work: Path, number: int) -> dict[str, Any] | None:
    """The record of a shard that an earlier run finished, if it is there as it was written."""
    path = work.parent / shard_name(number)
    try:
        record = read_state(work / f"{path.name}.json", "a record", RECORD_SHAPE)
        same = not path.is_symlink() and digest(path) == record["shard"]["sha256"]
    except (FileNotFoundError, ValueError):
        return None  # a record that is damaged is written again, as a shard is
    return record if same and record["shard"]["file"] == path.name else None
