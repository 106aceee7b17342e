"""Rollouts of any size to shards: streamed in, planned at once, and written bin by bin."""

from __future__ import annotations

import hashlib
import json
import math
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
from rollkit._files.atomic import replace
from rollkit._files.folder import INDEX, PLAN, SPOOL, agree, claimed, digest, write_json
from rollkit._files.paths import local_files
from rollkit._files.read import Reading, check_columns, chunks_of, in_file
from rollkit._files.shard import FORMAT, PREFIXES, TAKEN, derivable, save_shard, shard_name
from rollkit._files.shards import check_shards, read_index
from rollkit._files.source import File, PathLike, changed, local_path
from rollkit._files.spool import Spool, per_token
from rollkit._files.state import PLAN_SHAPE, RECORD_SHAPE, read_state, seal
from rollkit._frameworks import AnyArray
from rollkit._native import __version__
from rollkit._rollouts.columns import check_level
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.sources import warn_cut
from rollkit._rows.binpack import DEFAULTS, Packing
from rollkit._rows.layout import ABSENT, Layout
from rollkit._rows.ragged import Ragged

T = TypeVar("T")

_MOST: Final = 2**31 - 1
_TOKEN_IDS: Final = ("prompt_token_ids", "response_ids", "input_ids")


class Watch(Protocol):
    """Passes items through, and may show how far it is."""

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
        derived: store what layout and rows give too, for readers that do not derive it.
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
        derived: bool = False,
        **packing: Unpack[Packing],
    ) -> None:
        self.capacity, self.pad_id, self.packing = capacity, pad_id, packing
        self.bins_per_shard = _check.positive("bins_per_shard", bins_per_shard)
        self.chunk_rows = _check.positive("chunk_rows", chunk_rows)
        self.nonfinite, self.rename = nonfinite, dict(rename or {})
        self.derived = derived
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

    def reading(self, columns: Sequence[str] | None = None) -> Reading:
        """How the sources are read: these columns, or all."""
        return Reading(nonfinite=self.nonfinite, columns=columns, rename=self.rename)

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
            **({"derived": True} if self.derived else {}),
        }


def write_shards(
    sources: Sequence[PathLike | File],
    folder: PathLike,
    options: Options,
    *,
    resume: bool = False,
    watch: Watch = unwatched,
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
        job = {
            "format": FORMAT,
            "rollkit": __version__,
            "arguments": options.recorded(),
            "sources": [_source(file) for file in files],
        }
        index = _finished(work, job)
        if index is None:
            spool = Spool(work / SPOOL)
            rows = _spooled(spool, files, options, watch)
            for file, state in zip(files, begun, strict=True):
                if file.state() != state:  # what was read is not what was hashed
                    raise changed(file)
            index = _packed(work, spool, job, options, _planned(spool, options, files, rows), watch)
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
        _size(file)  # not a pipe
        counts.append(0)
        try:
            head = next(filter(len, chunks_of(file, options.chunk_rows, options.reading())), Rollouts({}))
            seen.append(set(head))
            if not len(head):
                continue
            wanted = _wanted(head, options)
            sizes.append(_sizes(wanted, options))
            names = [name for name in _TOKEN_IDS if name in wanted]
            # NaN is not passed over in a column that is left out.
            how = options.reading(names if options.nonfinite == "raise" else None)
            rest = filter(len, chunks_of(file, options.chunk_rows, how))
            for chunk in watch(rest, f"reading {file.name}", None):
                prompts = _lengths(chunk, _TOKEN_IDS[:1])
                lengths.append(np.stack([prompts, _lengths(chunk)]))
                counts[-1] += len(chunk)
        except TELLING as error:
            raise in_file(error, file, counts[-1]) from None
    _check_seen(files, counts, seen, options)
    prompt_lengths, whole = np.concatenate(lengths, axis=1)
    if not len(whole):
        raise no_rollouts(files)
    layout = _laid(whole, prompt_lengths, options, files, counts)
    totals = _totals(layout)
    token, row = np.max(sizes, axis=0)
    size = int(layout.size * token + (totals["rows"] - totals["dropped"]) * row)
    return {**totals, "shards": -(-totals["bins"] // options.bins_per_shard), "bytes": size}


def _sizes(chunk: Rollouts, options: Options) -> tuple[float, float]:
    """Bytes of a token's place in a shard, and of what a row has beside, by some rows."""
    columns = per_token(chunk.columns, options.levels)
    layout = Layout.concat(_lengths(chunk))
    batch = pack(columns, layout=layout, pad_id=options.pad_id, levels=_among(options.levels, columns))
    rest = {name: column for name, column in chunk.items() if name not in columns or name == "rewards"}
    left_out = () if options.derived else derivable(batch, rest)
    stored = [array for name, array in batch.items() if name not in left_out]
    token = sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in stored)
    entries = (
        column.nbytes / len(chunk)
        if isinstance(column, np.ndarray)
        else len(json.dumps(column, default=str)) / len(chunk) + _PER_NUMBER
        for column in rest.values()
    )
    return token, _PER_NUMBER * _PER_ROW + sum(entries)


_PER_NUMBER: Final = 8
_PER_ROW: Final = 5
"""Numbers that a shard's layout has for each row."""


# Reading the sources.


def _source(file: File) -> dict[str, Any]:
    """What identifies a source. Its name alone, so that the index is the same wherever it lies."""
    return {"file": file.name, "bytes": _size(file), "sha256": digest(file.path)}


def _size(file: File) -> int:
    status = file.path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{file}: not a file, and it is read twice; - takes a pipe, on the standard input")
    return status.st_size


def _spooled(spool: Spool, files: Sequence[File], options: Options, watch: Watch) -> list[int]:
    """Read and check all rows; return how many each source has."""
    counts, scratch = [], None
    seen: list[set[str]] = []
    for file in files:
        before = spool.rows
        seen.append(set())
        read = filter(len, chunks_of(file, options.chunk_rows, options.reading()))
        try:
            for chunk in watch(read, f"reading {file.name}", None):
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
            raise in_file(error, file, spool.rows - before) from None
        counts.append(spool.rows - before)
    _check_seen(files, counts, seen, options)
    spool.finish()
    return counts


def _check_seen(
    files: Sequence[File], counts: Sequence[int], seen: Sequence[set[str]], options: Options
) -> None:
    """Refuse files of other columns than the first one, and names to leave out that none has."""
    skipped = set(options.skip_columns)
    filled = [i for i, count in enumerate(counts) if count]
    for i in filled:
        first = filled[0]
        check_columns(files[i], seen[i] - skipped, files[first], seen[first] - skipped, "--skip-column")
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
        if name in TAKEN or name.startswith(PREFIXES):
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


def _lengths(chunk: Rollouts, names: Sequence[str] = _TOKEN_IDS) -> Int64s:
    total = np.zeros(len(chunk), np.int64)
    for name in names:
        if name in chunk:
            total += chunk[name].lengths  # type: ignore[union-attr]
    return total


# Planning and writing.


def no_rollouts(files: Iterable[object]) -> ValueError:
    """What is said of sources without a row."""
    return ValueError(f"no rollouts in {', '.join(map(str, files))}")


@dataclass(frozen=True)
class _Shards:
    layout: Layout
    prompt_lengths: Int64s
    bins_per_shard: int
    levels: Mapping[str, str]
    # Rows that have a place, by shard; and where among them each shard's begin.
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
        of_row = layout.pieces_of_rows()[0][placed]
        # A row has one entry in each shard that has pieces of it.
        found = np.unique(np.stack([lines // bins_per_shard, of_row]), axis=1)
        bounds = np.searchsorted(found[0], np.arange(shards + 1))
        return cls(layout, prompt_lengths, bins_per_shard, levels, found[1], bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def shard(self, number: int) -> tuple[Int64s, Layout]:
        """The rows of a shard, ascending, and where they go in it."""
        rows = self.rows[self.bounds[number] : self.bounds[number + 1]]
        first = number * self.bins_per_shard
        lines = min(self.bins_per_shard, self.layout.shape[0] - first)
        return rows, self.layout.select(rows, first, lines)

    def digest(self, sources: Sequence[Mapping[str, Any]]) -> str:
        """Which row of which sources is where: data of the same lengths has the same layout."""
        found = hashlib.sha256(repr((self.layout.shape, [x["sha256"] for x in sources])).encode())
        layout = self.layout
        pieces = layout.pieces_of_rows() if layout.has_pieces else ()
        for array in (layout.starts, layout.lengths, layout.row_lengths, self.prompt_lengths, *pieces):
            found.update(array.data)
        return found.hexdigest()


def _planned(spool: Spool, options: Options, files: Sequence[File], counts: Sequence[int]) -> _Shards:
    if not spool.rows:
        raise no_rollouts(files)
    prompt_lengths = spool.lengths("prompt_token_ids")
    lengths = sum((spool.lengths(name) for name in _TOKEN_IDS[1:]), prompt_lengths)
    try:
        levels = spool.levels(options.levels)
    except TELLING as error:
        raise _in_files(error, files, counts) from None
    layout = _laid(lengths, prompt_lengths, options, files, counts)
    return _Shards.of(layout, prompt_lengths, options.bins_per_shard, levels)


def _laid(
    lengths: Int64s, prompt_lengths: Int64s, options: Options, files: Sequence[File], counts: Sequence[int]
) -> Layout:
    """Rows of all sources in bins."""
    try:
        _check_capacity(lengths, options)
    except TELLING as error:
        raise _in_files(error, files, counts) from None
    layout = options.plan(lengths)
    if not layout.shape[0]:
        raise ValueError(f"all {len(lengths):,} rows are longer than a capacity of {options.capacity:,}")
    warn_cut(layout, prompt_lengths)
    return layout


def _check_capacity(lengths: Int64s, options: Options) -> None:
    longest = int(lengths.argmax())
    if options.packing.get("oversize", "raise") == "raise" and lengths[longest] > options.capacity:
        first = int((lengths > options.capacity).argmax())
        raise refusal(
            ValueError,
            f" has {lengths[first]:,} tokens, more than a capacity of {options.capacity:,}; the longest "
            f"row has {lengths[longest]:,}; --oversize truncate, alone, drop or split says what becomes "
            "of them",
            row=first,
        )


def _in_files(error: Exception, files: Sequence[File], counts: Sequence[int]) -> Exception:
    """Say where in the sources an error is that is about a row of all."""
    row = row_of(error)
    if row is None:
        return error
    ends = np.cumsum(counts)
    source = int(np.searchsorted(ends, row, side="right"))
    return in_file(error, files[source], int(counts[source] - ends[source]))


def _packed(
    work: Path, spool: Spool, job: dict[str, Any], options: Options, plan: _Shards, watch: Watch
) -> dict[str, Any]:
    """Write the shards that are not there yet, and the index."""
    planned = {**job, "plan_sha256": plan.digest(job["sources"])}
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
                found = spool.scalars(rows, plan.levels)
                header = {"number": number, "plan_sha256": planned["plan_sha256"]}
                record = _write(work, header, batch, rows, found, derived=options.derived)
            records.append(record)
    except BaseException as error:
        if records:
            error.add_note(f"{len(records):,} of {len(plan):,} shards are whole; --resume goes on from there")
        raise
    index = {**planned, "totals": _totals(plan.layout), **records[0]["contents"]}
    index["shards"] = [record["shard"] for record in records]
    write_json(work, work.parent / INDEX, index)
    return index


def _totals(layout: Layout) -> dict[str, Any]:
    of_row, _ = layout.pieces_of_rows()
    placed = layout.starts != ABSENT
    tokens = np.zeros(len(layout), np.int64)
    np.add.at(tokens, of_row, layout.lengths)
    pieces = np.bincount(of_row[placed], minlength=len(layout))
    there = pieces > 0
    return {
        "rows": len(layout),
        "tokens": layout.num_placed,
        "bins": layout.shape[0],
        "width": layout.width,
        "utilisation": round(layout.utilisation, 6),
        "dropped": int((~there).sum()),
        "truncated": int((there & (tokens < layout.row_lengths)).sum()),
        **({"split": int((pieces > 1).sum())} if layout.has_pieces else {}),
    }


def _write(
    work: Path,
    header: dict[str, Any],
    batch: Batch,
    rows: Int64s,
    scalars: Mapping[str, AnyArray | Ragged],
    *,
    derived: bool,
) -> dict[str, Any]:
    """Write a shard under a temporary name, its record, and then give it its own name."""
    layout, name = batch.layout, shard_name(header["number"])
    temporary = work / f"{name}.tmp"
    contents = save_shard(temporary, batch, rows, scalars, derived=derived, **header)
    shard = {
        "file": name,
        "bins": layout.shape[0],
        "rows": len(rows),
        "tokens": layout.num_placed,
        "bytes": temporary.stat().st_size,
        "sha256": digest(temporary),
    }
    record = {"shard": shard, "contents": contents}
    write_json(work, work / f"{name}.json", record | {"seal": seal(record)})
    replace(temporary, work.parent / name)
    return record


def _whole(work: Path, number: int) -> dict[str, Any] | None:
    """The record of a shard that an earlier run finished, if it is there as it was written."""
    path = work.parent / shard_name(number)
    try:
        record = read_state(work / f"{path.name}.json", "a record", RECORD_SHAPE)
        same = record.pop("seal") == seal(record)
        same = same and not path.is_symlink() and digest(path) == record["shard"]["sha256"]
    except (FileNotFoundError, ValueError):
        return None  # a record that is damaged is written again, as a shard is
    return record if same and record["shard"]["file"] == path.name else None
