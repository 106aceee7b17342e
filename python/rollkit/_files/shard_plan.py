"""Which rows go where in which shard: `Shards`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollkit._check import Int64s
from rollkit._errors import TELLING, refusal, row_of
from rollkit._files.options import Options
from rollkit._files.read import in_file
from rollkit._files.source import File
from rollkit._files.spooled import Spooled
from rollkit._files.spooling import TOKEN_IDS
from rollkit._rollouts.columns import check_uncut
from rollkit._rollouts.sources import warn_cut
from rollkit._rows.layout import ABSENT, Layout


def no_rollouts(files: Iterable[object]) -> ValueError:
    """What is said of sources without a row."""
    return ValueError(f"no rollouts in {', '.join(map(str, files))}")


@dataclass(frozen=True)
class Shards:
    """Where all rows go.

    Attributes:
        layout: of all of them.
        prompt_lengths: `[rows]`.
        bins_per_shard: bins in a file.
        levels: what columns have an element for whose names do not say it.
        rows: those that have a place, by shard.
        bounds: where among them each shard's begin.
    """

    layout: Layout
    prompt_lengths: Int64s
    bins_per_shard: int
    levels: Mapping[str, str]
    rows: Int64s
    bounds: Int64s

    @classmethod
    def of(
        cls, layout: Layout, prompt_lengths: Int64s, bins_per_shard: int, levels: Mapping[str, str]
    ) -> Shards:
        """Cut a layout into shards."""
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


def planned(spool: Spooled, options: Options, files: Sequence[File], counts: Sequence[int]) -> Shards:
    """Lay the rows of all sources in shards.

    Args:
        spool: the rows.
        options: how.
        files: the sources.
        counts: how many rows each has.
    """
    if not spool.rows:
        raise no_rollouts(files)
    prompt_lengths = spool.lengths("prompt_token_ids")
    lengths = sum((spool.lengths(name) for name in TOKEN_IDS[1:]), prompt_lengths)
    try:
        levels = spool.levels(options.levels)
    except TELLING as error:
        raise _in_files(error, files, counts) from None
    layout = laid(lengths, prompt_lengths, options, files, counts)
    try:
        _check_cut(layout, spool, levels)
    except TELLING as error:
        raise _in_files(error, files, counts) from None
    return Shards.of(layout, prompt_lengths, options.bins_per_shard, levels)


def _check_cut(layout: Layout, spool: Spooled, levels: Mapping[str, str]) -> None:
    """Refuse to cut rows that have lists which may be of any of their tokens."""
    if layout.has_pieces:
        return  # which are not cut
    cut = (layout.starts != ABSENT) & (layout.lengths < layout.row_lengths)
    for name, column in spool.columns.items():
        if column.counts is not None and levels.get(name) == "row":
            check_uncut(name, column.lengths, cut)


def laid(
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


def totals(layout: Layout) -> dict[str, Any]:
    """What an index says of all shards."""
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
