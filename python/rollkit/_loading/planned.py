"""The bins of rollouts in memory: planned at once, and placed one by one."""

from __future__ import annotations

from collections.abc import Container, Mapping
from hashlib import sha256
from typing import Any, Final

import numpy as np

from rollkit import _native
from rollkit._batch.fill import Filling
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray
from rollkit._rollouts.columns import take_column
from rollkit._rows.layout import ABSENT, Layout

ROW_NUMBERS: Final = "row_numbers"


class Planned:
    """Rollouts, and the layout of all bins.

    Pieces are kept in the order of the bins, so that those of one are side by side.
    """

    def __init__(self, rows: Mapping[str, Any], layout: Layout, filling: Filling) -> None:
        self.layout = layout
        self._rows, self._filling = rows, filling.in_one()
        of_row, begins = layout.pieces_of_rows()
        pieces = np.arange(len(of_row)) if layout.order is None else layout.order
        pieces = pieces[layout.starts[pieces] != ABSENT]
        self._starts, self._lengths, self._of_row = (
            x[pieces] for x in (layout.starts, layout.lengths, of_row)
        )
        self._begins = begins[pieces] if layout.has_pieces else None
        edges = np.arange(layout.shape[0], dtype=np.int64) * layout.width
        self._bounds = np.append(np.searchsorted(self._starts, edges), len(pieces))

    @property
    def plan(self) -> str:
        """What is where, as 16 digits."""
        told = sha256(repr(self.layout.shape).encode())
        for array in (self._of_row, self._starts, self._lengths):
            told.update(array.tobytes())
        return told.hexdigest()[:16]

    def costs(self) -> Int64s:
        """`[bins]` int64: the squares of their segments' lengths, added up."""
        ends = _native.offsets_from_lengths(self._lengths * self._lengths)[self._bounds]
        found: Int64s = np.diff(ends)
        return found

    def rows_of(self, bins: Int64s) -> tuple[Layout, Int64s]:
        """The layout of some bins, and which rows it lays, as they lie."""
        bounds = self._bounds
        at: slice | Int64s
        if len(bins) == 1:  # which saves half of the time
            at = slice(*bounds[bins[0] : bins[0] + 2])
            starts = self._starts[at] - bins[0] * self.layout.width
        else:
            counts = (bounds[1:] - bounds[:-1])[bins]
            ends = _native.offsets_from_lengths(counts)
            at = np.arange(ends[-1]) + np.repeat(bounds[bins] - ends[:-1], counts)
            starts = self._starts[at] + np.repeat((np.arange(len(bins)) - bins) * self.layout.width, counts)
        shape, lengths, rows = (len(bins), self.layout.width), self._lengths[at], self._of_row[at]
        if self._begins is None:
            return Layout._trusted(shape, starts, lengths, self.layout.row_lengths[rows]), rows
        rows, source_rows = np.unique(rows, return_inverse=True)
        whole = self.layout.row_lengths[rows]
        return Layout._trusted(shape, starts, lengths, whole, None, source_rows, self._begins[at]), rows

    def write(
        self, bins: Int64s, wanted: Container[str] | None, spare: Mapping[str, AnyArray]
    ) -> tuple[dict[str, Any], dict[str, AnyArray], Layout, Int64s]:
        """The arrays of some bins, `[bins, capacity]`, their memory and layout, and the prompts' lengths."""
        layout, rows = self.rows_of(bins)
        filling = self._filling if wanted is None else self._filling.only(wanted)
        filling = filling.pick(rows)
        arrays, memory = filling.write(layout, spare)
        return arrays, memory, layout, filling.prompt_lengths

    def columns(self, bins: Int64s) -> dict[str, Any]:
        """What is per row, of the rows of some bins as they lie."""
        _, rows = self.rows_of(bins)
        found = {name: take_column(column, rows) for name, column in self._rows.items()}
        return {ROW_NUMBERS: rows, **found}
