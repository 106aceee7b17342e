"""Writing one shard of many: `Writer`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollkit._batch import Batch, pack
from rollkit._check import Int64s
from rollkit._files.atomic import replace
from rollkit._files.folder import attempt, digest, write_json
from rollkit._files.options import Options
from rollkit._files.shard import save_shard, shard_name
from rollkit._files.shard_plan import Shards
from rollkit._files.spooled import Spooled
from rollkit._files.spooling import among
from rollkit._files.state import RECORD_SHAPE, read_state, seal
from rollkit._frameworks import AnyArray
from rollkit._rows.ragged import Ragged


@dataclass
class Writer:
    """Writes a shard: plain and picklable, to be called elsewhere.

    Attributes:
        work: the hidden folder in that of the run.
        spool: the rows.
        shards: where they go.
        options: how to pack.
        plan_sha256: the digest of the plan.
    """

    work: Path
    spool: Spooled
    shards: Shards
    options: Options
    plan_sha256: str

    def __post_init__(self) -> None:
        self._batch: Batch | None = None  # whose memory the next shard takes

    def __call__(self, number: int) -> dict[str, Any]:
        """Write a shard, unless an earlier run did; returns its record."""
        record = _whole(self.work, number)
        if record is not None:
            return record
        rows, layout = self.shards.shard(number)
        columns, levels = self.spool.tokens(rows, self.shards.levels), self.shards.levels
        self._batch = pack(
            columns,
            layout=layout,
            pad_id=self.options.pad_id,
            levels=among(levels, columns),
            out=self._batch,
        )
        scalars = self.spool.scalars(rows, levels)
        header = {"number": number, "plan_sha256": self.plan_sha256}
        return _write(self.work, header, self._batch, rows, scalars, derived=self.options.derived)


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
    temporary = work / f"{name}.{attempt()}.tmp"
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
