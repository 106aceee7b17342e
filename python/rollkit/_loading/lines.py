"""The pieces of a layout, line by line: `Lines`."""

from __future__ import annotations

import numpy as np

from rollkit import _native
from rollkit._check import Int64s
from rollkit._rows.layout import ABSENT, Layout


class Lines:
    """The pieces of a layout in the order of its lines, so that those of one are side by side."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        of_row, begins = layout.pieces_of_rows()
        pieces = np.arange(len(of_row)) if layout.order is None else layout.order
        pieces = pieces[layout.starts[pieces] != ABSENT]
        self.starts, self.lengths, self.of_row = (x[pieces] for x in (layout.starts, layout.lengths, of_row))
        self._begins = begins[pieces] if layout.has_pieces else None
        edges = np.arange(layout.shape[0], dtype=np.int64) * layout.width
        self._bounds = np.append(np.searchsorted(self.starts, edges), len(pieces))

    def costs(self) -> Int64s:
        """`[lines]` int64: the squares of their pieces' lengths, added up."""
        ends = _native.offsets_from_lengths(self.lengths * self.lengths)[self._bounds]
        found: Int64s = np.diff(ends)
        return found

    def only(self, lines: Int64s) -> tuple[Layout, Int64s]:
        """The layout of some lines, and which rows it lays, as they lie."""
        bounds, width = self._bounds, self.layout.width
        at: slice | Int64s
        if len(lines) == 1:  # which saves half of the time
            at = slice(*bounds[lines[0] : lines[0] + 2])
            starts = self.starts[at] - lines[0] * width
        else:
            counts = (bounds[1:] - bounds[:-1])[lines]
            ends = _native.offsets_from_lengths(counts)
            at = np.arange(ends[-1]) + np.repeat(bounds[lines] - ends[:-1], counts)
            starts = self.starts[at] + np.repeat((np.arange(len(lines)) - lines) * width, counts)
        shape, lengths, rows = (len(lines), width), self.lengths[at], self.of_row[at]
        if self._begins is None:
            return Layout._trusted(shape, starts, lengths, self.layout.row_lengths[rows]), rows
        rows, source_rows = np.unique(rows, return_inverse=True)
        whole = self.layout.row_lengths[rows]
        return Layout._trusted(shape, starts, lengths, whole, None, source_rows, self._begins[at]), rows
