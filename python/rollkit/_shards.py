"""Folders of packed shards: rollouts are streamed in, planned at once, and written bin by bin.

A folder holds `shard-00000.safetensors` and so on, and `index.json`, which is written last. A shard's
tensors are the arrays of its `Batch` under their own names, its layout under `layout.…`, and what has
one entry per row under `rows.…` (objects as the bytes of a JSON array).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from rollkit._batch import Batch, pack
from rollkit._check import Int64s
from rollkit._extras import extra
from rollkit._io import JSONL, iter_chunks
from rollkit._layout import ABSENT, Layout
from rollkit._native import __version__
from rollkit._rollouts import Rollouts
from rollkit._spool import Spool, per_token

FORMAT: Final = 1
INDEX: Final = "index.json"
WORK: Final = ".rollkit"
"""The hidden folder of a run: lock, plan, spool, records of finished shards. It goes when the run ends."""
PLAN: Final = "plan.json"

T = TypeVar("T")


class Watch(Protocol):
    """Passes items through, and may show how far it is: `tqdm`, in short."""

    def __call__(self, items: Iterable[T], label: str, total: int | None) -> Iterable[T]:
        """Pass `items` through."""


def unwatched(items: Iterable[T], label: str, total: int | None) -> Iterable[T]:
    """Pass items through, and show nothing."""
    return items


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to pack; see `rollkit.pack`.

    Attributes:
        bins_per_shard: bins in a file; two shards' worth of tokens are in memory at a time.
        chunk_rows: rows read at a time.
        skip_columns: columns to leave out.
    """

    capacity: int
    align: int = 1
    max_segments: int | None = None
    algorithm: str = "first_fit_decreasing"
    oversize: str = "raise"
    pad_id: int = 0
    bins_per_shard: int = 64
    skip_columns: tuple[str, ...] = ()
    chunk_rows: int = 256

    def __post_init__(self) -> None:
        # What is wrong with an option is wrong with it for any row: say so before reading.
        layout = self.plan(np.ones(1, np.int64))
        pack({"response_ids": [[0]]}, layout=layout, pad_id=self.pad_id)

    def plan(self, lengths: Int64s) -> Layout:
        """Lay rows of these lengths in bins."""
        return Layout.pack(
            lengths,
            self.capacity,
            algorithm=self.algorithm,
            align=self.align,
            max_segments=self.max_segments,
            oversize=self.oversize,
        )

    def recorded(self) -> dict[str, Any]:
        """What decides the bytes of the output."""
        found = asdict(self)
        del found["chunk_rows"]
        return {**found, "skip_columns": list(self.skip_columns)}


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
    paths = [Path(source) for source in sources]
    with _claimed(Path(folder), resume) as work:
        job = {
            "format": FORMAT,
            "rollkit": __version__,
            "arguments": options.recorded(),
            "sources": [_source(path) for path in paths],
        }
        index = _finished(work, job)
        if index is None:
            with Spool(work / "spool") as spool:
                rows = _spooled(spool, paths, options, watch)
                index = _packed(work, spool, job, options, _planned(spool, options, paths, rows), watch)
        return index


def read_index(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read `index.json` of a folder that `write_shards` wrote."""
    path = Path(folder) / INDEX
    try:
        index = json.loads(path.read_bytes())
        known = index["format"] == FORMAT
    except FileNotFoundError:
        if (path.parent / WORK).exists():
            raise ValueError(
                f"{folder}: this run is unfinished; continue it with rollkit pack --resume"
            ) from None
        raise
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not an index that rollkit wrote") from None
    if not known:
        raise ValueError(f"{path}: format {index['format']!r}; this rollkit reads {FORMAT}")
    return dict(index)


def check_shards(folder: str | os.PathLike[str], *, verify: bool = False) -> list[str]:
    """Return what is wrong with the files of a folder: one line each, none if all is as the index says.

    Args:
        folder: where `write_shards` wrote.
        verify: compare contents too (SHA-256), and not only sizes.
    """
    wrong = []
    for shard in read_index(folder)["shards"]:
        path = Path(folder) / shard["file"]
        if not path.is_file():
            wrong.append(f"{path}: missing")
        elif (size := path.stat().st_size) != shard["bytes"]:
            wrong.append(f"{path}: {size:,} bytes, the index says {shard['bytes']:,}")
        elif verify and _digest(path) != shard["sha256"]:
            wrong.append(f"{path}: contents differ from what the index says (sha256)")
    return wrong


def read_shards(folder: str | os.PathLike[str]) -> Iterator[Batch]:
    """Load the shards of a folder, one `Batch` at a time.

    `Batch.rows["row_numbers"]` says which rows of the sources they hold.

    Raises:
        ValueError: a file is missing, or not as large as the index says.
    """
    for wrong in check_shards(folder):
        raise ValueError(wrong)
    for shard in read_index(folder)["shards"]:
        yield _load(Path(folder) / shard["file"])


def read_layout(folder: str | os.PathLike[str]) -> Layout:
    """Read where the rows of all shards are, and none of their tokens; bins count through."""
    parts, lines, width = [], 0, 0
    for shard in read_index(folder)["shards"]:
        with _opened(Path(folder) / shard["file"]) as (file, _):
            width = file.get_slice("input_ids").get_shape()[1]
            starts, lengths, row_lengths = (
                file.get_tensor(f"layout.{name}") for name in ("starts", "lengths", "row_lengths")
            )
        parts.append((starts + lines * width, lengths, row_lengths))
        lines += shard["bins"]
    starts, lengths, row_lengths = (np.concatenate(found) for found in zip(*parts, strict=True))
    return Layout((lines, width), starts, lengths, row_lengths)


# Reading the sources.


def _source(path: Path) -> dict[str, Any]:
    """What identifies a source. Its name alone, so that the index is the same wherever it lies."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: not a file; it is read twice, so a pipe or a folder will not do")
    return {"file": path.name, "bytes": status.st_size, "sha256": _digest(path)}


def _spooled(spool: Spool, paths: Sequence[Path], options: Options, watch: Watch) -> list[int]:
    """Read and check all rows; return how many each source has."""
    counts, scratch = [], None
    for path in paths:
        before = spool.rows
        try:
            for chunk in watch(iter_chunks(path, rows=options.chunk_rows), f"reading {path.name}", None):
                wanted = _wanted(chunk, options)
                # What `pack` would refuse later it refuses now, when nothing is written yet.
                layout = Layout.concat(_lengths(wanted))
                scratch = pack(per_token(wanted.columns), layout=layout, pad_id=options.pad_id, out=scratch)
                spool.append(wanted)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(_located(str(error), path, spool.rows - before)) from None
        counts.append(spool.rows - before)
    spool.finish()
    return counts


def _wanted(chunk: Rollouts, options: Options) -> Rollouts:
    columns = {name: column for name, column in chunk.items() if name not in options.skip_columns}
    for name in columns:
        if name in _TAKEN or name.startswith(("layout.", "rows.")):
            raise ValueError(
                f"column {name!r}: this name has another meaning in a shard; "
                f"rename the column, or leave it out (--skip-column {name})"
            )
    return Rollouts(columns)


_TAKEN: Final = ("segment_ids", "positions", "attention_mask", "row_numbers")


def _lengths(chunk: Rollouts) -> Int64s:
    total = np.zeros(len(chunk), np.int64)
    for name in _TOKEN_IDS:
        if name in chunk:
            total += chunk[name].lengths  # type: ignore[union-attr]
    return total


_TOKEN_IDS: Final = ("prompt_token_ids", "response_ids", "input_ids")


def _located(message: str, path: Path, before: int) -> str:
    """Say where in the source the row is that a message about a chunk speaks of, if it does not itself."""
    if message.startswith(str(path)):
        return message
    found = re.search(r"\brow (\d+)", message)
    if found is None:
        return f"{path}: {message}"
    row = before + int(found[1])
    line = _line(path, row)
    if line is None:
        return f"{path}: {message[: found.start()]}row {row}{message[found.end() :]}"
    return f"{path}:{line}: {message[: found.start()]}this row{message[found.end() :]}"


def _line(path: Path, row: int) -> int | None:
    """The line of a JSONL file that holds this row, counted from 1; blank lines hold none."""
    suffixes = path.suffixes[-2:]
    if not set(JSONL) & set(suffixes) or suffixes[-1] == ".zst":
        return None
    with gzip.open(path) if suffixes[-1] == ".gz" else path.open("rb") as file:
        filled = (number for number, line in enumerate(file, 1) if line.strip())
        return next((number for i, number in enumerate(filled) if i == row), None)


# Planning and writing.


@dataclass(frozen=True)
class _Plan:
    layout: Layout
    prompt_lengths: Int64s
    bins_per_shard: int
    # Rows that have a place, by bin; and where among them each shard's begin.
    rows: Int64s
    bounds: Int64s

    @classmethod
    def of(cls, layout: Layout, prompt_lengths: Int64s, bins_per_shard: int) -> _Plan:
        bins = layout.shape[0]
        shards = -(-bins // bins_per_shard)
        placed = np.flatnonzero(layout.starts != ABSENT)
        # An empty row at the very end begins where a bin after the last one would.
        lines = np.minimum(layout.starts[placed] // layout.width, bins - 1)
        order = np.argsort(lines // bins_per_shard, kind="stable")
        bounds = np.searchsorted(lines[order] // bins_per_shard, np.arange(shards + 1))
        return cls(layout, prompt_lengths, bins_per_shard, placed[order], bounds)

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


def _planned(spool: Spool, options: Options, paths: Sequence[Path], counts: Sequence[int]) -> _Plan:
    if not spool.rows:
        raise ValueError(f"no rollouts in {', '.join(map(str, paths))}")
    prompt_lengths = spool.lengths("prompt_token_ids")
    lengths = sum((spool.lengths(name) for name in _TOKEN_IDS[1:]), prompt_lengths)
    longest = int(lengths.argmax())
    if options.oversize == "raise" and lengths[longest] > options.capacity:
        first = int((lengths > options.capacity).argmax())
        ends = np.cumsum(counts)
        number = int(np.searchsorted(ends, first, side="right"))
        message = (
            f"row 0 has {lengths[first]:,} tokens, more than a capacity of {options.capacity:,}; the longest "
            f"row has {lengths[longest]:,}; --oversize truncate, alone or drop says what becomes of them"
        )
        raise ValueError(_located(message, paths[number], first - int(ends[number] - counts[number])))
    layout = options.plan(lengths)
    if not layout.shape[0]:
        raise ValueError(f"all {spool.rows:,} rows are longer than a capacity of {options.capacity:,}")
    return _Plan.of(layout, prompt_lengths, options.bins_per_shard)


def _packed(
    work: Path, spool: Spool, job: dict[str, Any], options: Options, plan: _Plan, watch: Watch
) -> dict[str, Any]:
    """Write the shards that are not there yet, and the index."""
    planned = {**job, "plan_sha256": plan.digest()}
    if (work / PLAN).exists():
        _agree(work, json.loads((work / PLAN).read_bytes()), planned)
    else:
        _write_json(work, work / PLAN, planned)
    records: list[dict[str, Any]] = []
    batch = None
    try:
        for number in watch(range(len(plan)), "writing shards", len(plan)):
            record = _whole(work, number)
            if record is None:
                rows, layout = plan.shard(number)
                batch = pack(spool.tokens(rows), layout=layout, pad_id=options.pad_id, out=batch)
                record = _write(work, number, batch, rows, spool.scalars(rows), planned["plan_sha256"])
            records.append(record)
    except BaseException as error:
        if records:
            error.add_note(f"{len(records):,} of {len(plan):,} shards are whole; --resume goes on from there")
        raise
    index = {**planned, **_totals(plan, spool.rows), **records[0]["contents"]}
    index["shards"] = [record["shard"] for record in records]
    _write_json(work, work.parent / INDEX, index)
    return index


def _totals(plan: _Plan, rows: int) -> dict[str, Any]:
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


def _name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def _write(
    work: Path, number: int, batch: Batch, rows: Int64s, scalars: dict[str, Any], plan: str
) -> dict[str, Any]:
    """Write a shard under a temporary name, its record, and then give it its own name."""
    layout = batch.layout
    tensors = dict(batch.arrays)
    tensors |= {f"layout.{name}": getattr(layout, name) for name in ("starts", "lengths", "row_lengths")}
    tensors |= {"layout.prompt_lengths": layout.row_lengths - batch.responses.row_lengths}
    tensors |= {"layout.row_numbers": rows}
    for name, found in scalars.items():
        tensors[f"rows.{name}"] = np.frombuffer(found, np.uint8) if isinstance(found, bytes) else found
    kinds = {
        name: "json" if isinstance(found, bytes) else found.dtype.name for name, found in scalars.items()
    }
    # safetensors writes entries of its metadata in no fixed order, so there is one.
    header = {"format": FORMAT, "number": number, "plan_sha256": plan, "arrays": list(batch), "rows": kinds}
    temporary = work / f"{_name(number)}.tmp"
    _save(temporary, tensors, {"rollkit": json.dumps(header)})
    shard = {
        "file": _name(number),
        "bins": layout.shape[0],
        "rows": len(rows),
        "tokens": int(layout.lengths.sum()),
        "bytes": temporary.stat().st_size,
        "sha256": _digest(temporary),
    }
    columns = {
        name: {"dtype": array.dtype.name, "shape": ["bins", *array.shape[1:]]}
        for name, array in batch.items()
    }
    record = {"shard": shard, "contents": {"columns": columns, "rows": kinds}}
    _write_json(work, work / f"{_name(number)}.json", record)
    _replace(temporary, work.parent / _name(number))
    return record


def _whole(work: Path, number: int) -> dict[str, Any] | None:
    """The record of a shard that an earlier run finished, if it is there as it was written."""
    try:
        record: dict[str, Any] = json.loads((work / f"{_name(number)}.json").read_bytes())
        same = _digest(work.parent / _name(number)) == record["shard"]["sha256"]
    except FileNotFoundError:
        return None
    return record if same else None


def _save(path: Path, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    safetensors = extra("safetensors", "cli")
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        extra("safetensors.numpy", "cli").save_file(tensors, path, metadata=metadata)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: {error}") from None
    path.chmod(mode)  # safetensors lets nobody else read its files
    with path.open("rb") as file:
        os.fsync(file.fileno())


# Loading.


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a shard; gives the file, and the header that `_write` put there."""
    safetensors = extra("safetensors", "cli")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file, json.loads((file.metadata() or {})["rollkit"])
    except (safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a shard that rollkit wrote: {error}") from None


def _load(path: Path) -> Batch:
    with _opened(path) as (file, header):
        arrays = {name: file.get_tensor(name) for name in header["arrays"]}
        names = ("starts", "lengths", "row_lengths", "prompt_lengths", "row_numbers")
        starts, lengths, row_lengths, prompt_lengths, numbers = (
            file.get_tensor(f"layout.{name}") for name in names
        )
        rows = {"row_numbers": numbers}
        for name, kind in header["rows"].items():
            found = file.get_tensor(f"rows.{name}")
            rows[name] = json.loads(found.tobytes()) if kind == "json" else found
    layout = Layout(arrays["input_ids"].shape[:2], starts, lengths, row_lengths)
    return Batch(arrays, layout, prompt_lengths, rows)


# The folder of a run.


@contextmanager
def _claimed(folder: Path, resume: bool) -> Iterator[Path]:
    """Hold `folder` for one run; gives its work folder, and clears up however the run ends."""
    made = _make(folder)
    work = folder / WORK
    try:
        _refuse_other(folder, resume)
        planned = (work / PLAN).exists()
        work.mkdir(exist_ok=True)
    except BaseException:
        _unmake(made)
        raise
    with _locked(work, folder):
        try:
            _clean(work)
            yield work
        except BaseException:
            if planned or any(work.glob("shard-*.json")):
                _clean(work)  # whole shards stay, for --resume
            else:
                shutil.rmtree(work)
                _unmake(made)
            raise
        shutil.rmtree(work)


def _make(folder: Path) -> list[Path]:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _unmake(made: Sequence[Path]) -> None:
    for path in made:
        with suppress(OSError):
            path.rmdir()


def _refuse_other(folder: Path, resume: bool) -> None:
    found = {path.name for path in folder.iterdir()}
    if not found:
        return
    if not resume:
        if WORK in found:
            raise ValueError(f"{folder}: holds an unfinished run; --resume continues it")
        raise ValueError(f"{folder}: exists and is not empty; choose another folder")
    if not found & {WORK, INDEX}:
        raise ValueError(f"{folder}: holds no run to resume; choose another folder")


@contextmanager
def _locked(work: Path, folder: Path) -> Iterator[None]:
    """Keep a second run out. The lock goes with the process, however it ends."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    with (work / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another run is writing there") from None
        yield


def _clean(work: Path) -> None:
    """Remove what a run leaves that nothing can be continued from."""
    shutil.rmtree(work / "spool", ignore_errors=True)
    for path in work.iterdir():
        if path.suffix != ".json" and path.name != "lock":
            path.unlink()


def _finished(work: Path, job: dict[str, Any]) -> dict[str, Any] | None:
    """The index of a run that is complete. Refuses to go on with a run that is not this one."""
    folder = work.parent
    index = read_index(folder) if (folder / INDEX).exists() else None
    earlier = index
    if earlier is None and (work / PLAN).exists():
        earlier = json.loads((work / PLAN).read_bytes())
    if earlier is not None:
        _agree(work, earlier, job)
    if index is not None:
        for wrong in check_shards(folder):
            raise ValueError(wrong)
    return index


def _agree(work: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to continue another run; name what differs."""
    before, after = _flat(earlier), _flat(now)
    odd = [name for name in after if before.get(name) != after[name]]
    odd += [name for name in before if name.startswith("source ") and name not in after]
    if odd:
        name = odd[0]
        told = f"was {before.get(name)!r}, is {after.get(name)!r}" if name != "plan_sha256" else "differs"
        raise ValueError(
            f"{work.parent}: cannot resume: {name} {told}; run it as before, or choose another folder"
        )


def _flat(job: dict[str, Any]) -> dict[str, Any]:
    found = {name: job.get(name) for name in ("format", "rollkit")}
    found |= {f"--{name.replace('_', '-')}": value for name, value in job["arguments"].items()}
    for i, source in enumerate(job["sources"], 1):
        found |= {f"source {i} {key}": value for key, value in source.items()}
    return found | ({"plan_sha256": job["plan_sha256"]} if "plan_sha256" in job else {})


# Files.


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(work: Path, path: Path, value: Any) -> None:
    temporary = work / f"{path.name}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    _replace(temporary, path)


def _replace(temporary: Path, path: Path) -> None:
    """Rename in one step, and have the name on disk too."""
    os.replace(temporary, path)
    with suppress(OSError, AttributeError):  # Windows opens no folders
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
