"""How the ranks that share a sequence (context parallelism) are dealt its tokens: `Layout.shard`.

A `Deal` cuts sections of an output into equal chunks and says whose each chunk is. What a rank gets is a
`Share`: stretches of the output, laid end to end. Everything else is read off these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Final

import numpy as np

from rollkit import _check, _native
from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._rows.balance import balance
from rollkit._rows.laid import counted
from rollkit._rows.pieces import Pieces

SCHEMES: Final = ("zigzag", "dual_chunk", "striped", "contiguous", "balanced")

BLOCK: Final = 128
"""Tokens of a block of `"balanced"`: of the blocks that attention kernels go by."""

CLOSE: Final = 1e-3
"""How far above the mean the busiest rank may be: closer is not looked for."""


@dataclass(frozen=True, eq=False)
class Share:
    """A rank's part of an output: stretches of it, ascending and apart.

    Attributes:
        starts: `[stretches]` int64, where each is in the output.
        lengths: `[stretches]` int64, none of them 0.
    """

    starts: Int64s
    lengths: Int64s

    @cached_property
    def offsets(self) -> Int64s:
        """`[stretches + 1]` int64: where each stretch is in the share."""
        return _native.offsets_from_lengths(self.lengths)

    @property
    def indices(self) -> Int64s:
        """The place in the output of each element of the share."""
        return counted(self.starts, self.lengths)

    def before(self, places: Int64s) -> Int64s:
        """How many elements of the share come before each place of the output."""
        if not len(self.starts):
            return np.zeros_like(places)
        last = np.maximum(np.searchsorted(self.starts, places, side="right") - 1, 0)
        begun = np.minimum(places - self.starts[last], self.lengths[last])
        found: Int64s = self.offsets[last] + np.maximum(begun, 0)
        return found

    def cut(self, starts: Int64s, lengths: Int64s) -> tuple[Int64s, Int64s, Int64s, Int64s]:
        """What the share has of pieces, ascending and none of them empty.

        Returns:
            For each stretch of a piece: whose it is, from which element of the piece on, how many, and
            where in the share.
        """
        ends, last_ends = starts + lengths, self.starts + self.lengths
        first = np.searchsorted(last_ends, starts, side="right")
        counts = np.searchsorted(self.starts, ends, side="left") - first
        pieces = np.repeat(np.arange(len(starts)), counts)
        stretches = counted(first, counts)
        begins = np.maximum(starts[pieces], self.starts[stretches])
        cut_lengths = np.minimum(ends[pieces], last_ends[stretches]) - begins
        places = self.offsets[stretches] + begins - self.starts[stretches]
        return pieces, begins - starts[pieces], cut_lengths, places


@dataclass(frozen=True, eq=False, slots=True)
class Deal:
    """Sections of an output, all cut into as many chunks, and the rank that gets each.

    Attributes:
        begins: `[sections]` int64, ascending.
        chunks: `[sections]` int64, the length of a chunk of each; or `[1]`, of all.
        owners: `[chunks]` int64, the same in each section, or `[sections, chunks]`.
    """

    begins: Int64s
    chunks: Int64s
    owners: Int64s

    @classmethod
    def of(cls, scheme: str, size: int, align: int, bounds: Int64s) -> Deal:
        """Deal sections by a rule that asks for no costs; `bounds` are their begins, and the last end."""
        begins, lengths = bounds[:-1], np.diff(bounds)
        if scheme == "striped":  # each cycle of stripes is a section
            begins = np.arange(bounds[0], bounds[-1], size * align)
            return cls(begins, np.array([align]), np.arange(size))
        owners = np.arange(size)
        if scheme in ("zigzag", "dual_chunk") and size > 1:  # one rank has all: two chunks ask for evens
            owners = np.concatenate([owners, owners[::-1]])
        return cls(begins, lengths // len(owners), owners)

    def share(self, rank: int) -> Share:
        """What a rank gets."""
        if self.owners.ndim == 2:
            sections, mine = np.nonzero(self.owners == rank)
            lengths = self.chunks[sections]
            return _joined(self.begins[sections] + lengths * mine, lengths)
        mine = np.flatnonzero(self.owners == rank)
        starts = self.begins[:, None] + self.chunks[:, None] * mine
        lengths = np.empty_like(starts)
        lengths[:] = self.chunks[:, None]
        starts, lengths = starts.reshape(-1), lengths.reshape(-1)
        step = int(mine[-1] - mine[0])  # of one chunk or two; a section's last is beside the next one's first
        if step != 1 and step != len(self.owners) - 1 and self.chunks.all():
            return Share(starts, lengths)
        return _joined(starts, lengths)


def _joined(starts: Int64s, lengths: Int64s) -> Share:
    """A share in which what follows on itself is one stretch."""
    if not lengths.all():
        starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    ends = starts + lengths
    apart = ends[:-1] != starts[1:]
    if not apart.all():
        starts = starts[np.append(True, apart)]
        lengths = ends[np.append(apart, True)] - starts
    return Share(starts, lengths)


@dataclass(frozen=True, eq=False, slots=True)
class Laid:
    """The pieces of a layout that are somewhere, in memory order and none across two lines.

    Attributes:
        rows: `[pieces]` int64, whose each is.
        begins: `[pieces]` int64, its first element within the row.
        starts: `[pieces]` int64, its place in the output.
        lengths: `[pieces]` int64, none of them 0.
    """

    rows: Int64s
    begins: Int64s
    starts: Int64s
    lengths: Int64s

    @classmethod
    def of(cls, layout: Pieces) -> Laid:
        """Read pieces off a layout."""
        chosen = np.arange(len(layout.starts)) if layout.order is None else layout.order
        chosen = chosen[layout.lengths[chosen] > 0]
        rows, begins = layout.pieces_of_rows()
        found = cls(rows[chosen], begins[chosen], layout.starts[chosen], layout.lengths[chosen])
        if not layout.size:
            return found
        lines = lines_of(layout)
        return found.within(Share(lines[:-1], np.diff(lines)))

    def within(self, share: Share) -> Laid:
        """What a share has of these, where it is there."""
        pieces, begins, lengths, places = share.cut(self.starts, self.lengths)
        return Laid(self.rows[pieces], self.begins[pieces] + begins, places, lengths)


def lines_of(layout: Pieces) -> Int64s:
    """`[lines + 1]`: where lines begin, and the end."""
    lines: Int64s = np.arange(prod(layout.shape[:-1]) + 1) * layout.width
    return lines


def shares(layout: Pieces, size: int, scheme: str, align: int | None) -> list[Laid]:
    """What each rank has of a layout; see `Layout.shard`."""
    size = _check.positive("size", size)
    _check.choice("scheme", scheme, SCHEMES)
    align = _check.positive("align", (BLOCK if scheme == "balanced" else 1) if align is None else align)
    _check_size(size, align)
    if not layout.size or size == 1:
        _check_even(layout, size, scheme, align)
        return [Laid.of(layout)] * size
    found, lines = Laid.of(layout), lines_of(layout)
    if scheme == "zigzag":
        lines = _slots(layout, found, 2 * size * align)
    else:
        _check_even(layout, size, scheme, align)
    if scheme == "balanced":
        deal = _balanced(layout, found, lines, size, align)
    else:
        deal = Deal.of(scheme, size, align, lines)
    return [found.within(deal.share(rank)) for rank in range(size)]


def _check_size(size: int, align: int) -> None:
    """Refuse what is so large that no number of tokens is a multiple of it."""
    if 2 * size * align > np.iinfo(np.int64).max:
        raise OverflowError(f"size={size} parts of multiples of align={align} are beyond int64")


def _slots(layout: Pieces, found: Laid, multiple: int) -> Int64s:
    """Where slots begin, and the end: a piece's reaches to the next one, a line's first begins with it."""
    lines = found.starts // max(layout.width, 1)
    later = np.flatnonzero(lines[1:] == lines[:-1]) + 1
    bounds = np.sort(np.concatenate([lines_of(layout), found.starts[later]]))
    if (odd := np.diff(bounds) % multiple != 0).any():
        at = int(odd.argmax())
        raise _uneven_slot(layout, found, int(bounds[at]), int(bounds[at + 1]), multiple)
    return bounds


def _uneven_slot(layout: Pieces, found: Laid, begin: int, end: int, multiple: int) -> ValueError:
    """The refusal of a slot that cannot be dealt evenly."""
    text = (
        f"{end - begin} tokens, which scheme='zigzag' cannot deal evenly; make it a multiple of {multiple}: "
        f"Layout.concat(…, align={multiple}), Layout.pad(…, multiple_of={multiple}), or Layout.pack(…, "
        f"align={multiple}) with such a capacity"
    )
    at = int(np.searchsorted(found.starts, begin))
    if at == len(found.starts) or found.starts[at] >= end:  # a line without a row
        return ValueError(f"line {begin // layout.width} has {text}")
    return refusal(ValueError, f" has a slot of {text}", row=int(found.rows[at]))


def _check_even(layout: Pieces, size: int, scheme: str, align: int) -> None:
    """Refuse lines that cannot be dealt evenly."""
    multiple = size * align * (2 if scheme == "dual_chunk" and size > 1 else 1)
    if layout.width % multiple:
        raise ValueError(
            f"a line has {layout.width} tokens, which scheme={scheme!r} cannot deal evenly; make it a "
            f"multiple of {multiple}: Layout.concat(…, multiple_of={multiple}), Layout.pad(…, "
            f"multiple_of={multiple}), or a capacity of Layout.pack that is one"
        )


def _balanced(layout: Pieces, found: Laid, lines: Int64s, size: int, align: int) -> Deal:
    """Deal blocks of `align` tokens by what attention costs: a token sees those before it, and itself."""
    blocks = layout.size // align
    longest = int(layout.row_lengths.max(initial=0))
    if align * longest * blocks > np.iinfo(np.int64).max:
        raise OverflowError(f"the costs of {blocks} blocks of rows of {longest} tokens are beyond int64")
    every = Share(np.arange(blocks) * align, np.full(blocks, align))
    pieces, begins, lengths, places = every.cut(found.starts, found.lengths)
    begins = begins + found.begins[pieces]
    costs = np.zeros(blocks, np.int64)
    np.add.at(costs, places // align, lengths * begins + lengths * (lengths + 1) // 2)
    by_line = costs.reshape(len(lines) - 1, layout.width // align)
    parts = [balance(line, size, cost=line, equal_counts=True, tolerance=CLOSE) for line in by_line]
    owners = np.array(parts, np.int64).reshape(by_line.shape)
    return Deal(lines[:-1], np.full(len(by_line), align), owners)
