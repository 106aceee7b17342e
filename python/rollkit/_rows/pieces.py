"""Rows in pieces: which elements of which row are where, and how they are read back."""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np

from rollkit import _native
from rollkit._check import Int64s
from rollkit._rows.laid import Laid, counted

ABSENT: Final = -1
"""Where a piece starts that was dropped."""


class Pieces(Laid):
    """What a `Layout` knows of its pieces: this half of it asks nothing about lines.

    Attributes are those of `Layout`.
    """

    starts: Int64s
    lengths: Int64s
    row_lengths: Int64s
    source_rows: Int64s | None
    begins: Int64s | None
    order: Int64s | None

    def __len__(self) -> int:
        return len(self.row_lengths)

    @property
    def num_placed(self) -> int:
        """The elements that rows fill."""
        return int(self.lengths.sum())

    def pieces_of(self, rows: Int64s) -> tuple[Int64s, Int64s]:
        """The pieces of some rows, and which of these each is of."""
        if self.source_rows is None:
            return rows, np.arange(len(rows))
        order, offsets = self._row_order, self._row_pieces
        counts = np.diff(offsets)[rows]
        return order[counted(offsets[:-1][rows], counts)], np.repeat(np.arange(len(rows)), counts)

    @property
    def has_pieces(self) -> bool:
        """Whether pieces are other than whole rows, one each."""
        return self.source_rows is not None or self.begins is not None

    def pieces_of_rows(self) -> tuple[Int64s, Int64s]:
        """`[pieces]` int64: the row of each piece, and its first element within it."""
        rows = np.arange(len(self.starts)) if self.source_rows is None else self.source_rows
        return rows, np.zeros_like(self.starts) if self.begins is None else self.begins

    @property
    def slots(self) -> tuple[Int64s, Int64s, Int64s | None]:
        """What kernels take of where pieces are: starts, lengths, order."""
        return self.starts, self.lengths, self.order

    @property
    def pieces(self) -> dict[str, Int64s]:
        """What kernels take of which pieces there are; nothing where they are rows."""
        if not self.has_pieces:
            return {}
        rows, begins = self.pieces_of_rows()
        return {"row_lengths": self.row_lengths, "source_rows": rows, "begins": begins}

    @cached_property
    def _row_order(self) -> Int64s:
        """Pieces by row, and in their order within one."""
        rows, begins = self.pieces_of_rows()
        return np.lexsort((self.lengths, begins, rows))

    @cached_property
    def _row_pieces(self) -> Int64s:
        """`[rows + 1]`: where each row's pieces begin in `_row_order`."""
        rows, _ = self.pieces_of_rows()
        return _native.offsets_from_lengths(np.bincount(rows, minlength=len(self)).astype(np.int64))

    def reads(self) -> tuple[Int64s, Int64s]:
        """What `take` copies, row after row: where each piece is, and its length."""
        if not self.has_pieces:
            return self.starts, self.lengths
        order = self._row_order
        return self.starts[order], self.lengths[order]

    def row_offsets(self, ends: Int64s | None = None) -> Int64s:
        """`[rows + 1]` int64: where rows begin once `take` has copied them."""
        if ends is None:
            ends = _native.offsets_from_lengths(self.reads()[1])
        return ends[self._row_pieces] if self.has_pieces else ends

    def offsets(self) -> Int64s:
        """`[pieces + 1]` int64: where each piece starts, and the end of the output, for pieces in order."""
        found = np.empty(len(self.starts) + 1, np.int64)
        found[:-1] = self.starts
        found[-1] = self.size
        return found

    def row_position(self, element: int) -> tuple[int, int]:
        """Row and position of the `element`-th of all that are placed, in the order of `gather_indices`."""
        rows, begins = self.pieces_of_rows()
        order = self._row_order
        ends = self.lengths[order].cumsum()
        at = int(np.searchsorted(ends, element, side="right"))
        piece = order[at]
        return int(rows[piece]), int(begins[piece] + element - (ends[at] - self.lengths[piece]))

    def source_indices(self, begins: Int64s) -> Int64s | None:
        """Which elements of rows that begin at `begins` are placed, in the order of `gather_indices`.

        None if they are the first ones, one after the other.
        """
        if self.has_pieces:
            rows, firsts = self.pieces_of_rows()
            order = self._row_order
            at, lengths = (begins[rows] + firsts)[order], self.lengths[order]
        else:
            at, lengths = begins, self.lengths
        ends = _native.offsets_from_lengths(lengths)
        if np.array_equal(np.where(lengths > 0, at, ends[:-1]), ends[:-1]):
            return None
        return counted(at, lengths)

    def _check_pieces(self) -> None:
        """Check that pieces are within their rows, and no element is in two."""
        if (odd := self.row_lengths < 0).any():
            row = int(odd.argmax())
            raise ValueError(f"row {row} has {self.row_lengths[row]} elements; expected 0 or more")
        rows, begins = self.pieces_of_rows()
        if (odd := (rows < 0) | (rows >= len(self))).any():
            piece = int(odd.argmax())
            raise ValueError(f"piece {piece} is of row {rows[piece]}; there are {len(self)} rows")
        if (odd := (begins < 0) | (begins > self.row_lengths[rows] - self.lengths)).any():
            piece = int(odd.argmax())
            raise ValueError(
                f"piece {piece} is {self.lengths[piece]} elements from element {begins[piece]} on of row "
                f"{rows[piece]}, which has {self.row_lengths[rows[piece]]}"
            )
        order = self._row_order
        order = order[self.lengths[order] > 0]  # an empty piece may be anywhere, within another too
        rows, begins, lengths = rows[order], begins[order], self.lengths[order]
        odd = (rows[1:] == rows[:-1]) & (begins[1:] < begins[:-1] + lengths[:-1])
        if odd.any():
            at = int(odd.argmax())
            raise ValueError(
                f"pieces {order[at]} and {order[at + 1]} both have element {begins[at + 1]} of row {rows[at]}"
            )
