"""Where rows go in an output buffer: `Layout`, and all that a trainer reads off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rollkit import _check, _native
from rollkit._check import Int64s
from rollkit._errors import retold, row_of
from rollkit._frameworks import as_array
from rollkit._rows.binpack import check_bins, multiple_of_bins, plan_options, shuffle_key
from rollkit._rows.edges import edges
from rollkit._rows.laid import Laid, counted
from rollkit._rows.pieces import ABSENT as ABSENT
from rollkit._rows.rowwise import Rowwise

MOST_ELEMENTS: Final = 2**63 - 1


@dataclass(frozen=True, eq=False, repr=False)
class Layout(Rowwise):
    """Where each row goes in an output of `shape`, from row lengths alone.

    A layout knows no tokens: it is small, picklable, and can be made in one place (a driver, the step
    before) and executed by `place` in another. Build one with `concat`, `pad` or `pack`.

    A layout may be of *pieces* of rows (a row split over bins, a rank's share of a sequence): `source_rows`
    and `begins` then say which elements of which row a piece is. Without them each piece is a row, from its
    first element on. `place` reads pieces, `take` gives whole rows back.

    Attributes:
        shape: `[total]` for a flat stream, `[rows, width]` padded, `[bins, capacity]` packed.
        starts: `[pieces]` int64, the flat position of each piece's first element; -1 where it was dropped.
        lengths: `[pieces]` int64, the elements placed of each.
        row_lengths: `[rows]` int64, the elements each row has; more than are placed where truncated.
        source_rows: `[pieces]` int64, the row that each piece is of; None if piece `i` is of row `i`.
        begins: `[pieces]` int64, the first element of each within its row; None if they all begin at 0.
        order: `[pieces]` int64, pieces by ascending start; None where they already are. Of pieces with one
            start all but the last are empty.

    Example:
        >>> layout = Layout.pack([3, 7, 2], capacity=8)
        >>> layout
        Layout(3 rows in 2 × 8, 75.0 % used)
        >>> layout.segment_ids()
        array([[1, 1, 1, 1, 1, 1, 1, 0],
               [1, 1, 1, 2, 2, 0, 0, 0]], dtype=int32)
        >>> layout.positions()
        array([[0, 1, 2, 3, 4, 5, 6, 0],
               [0, 1, 2, 0, 1, 0, 0, 0]], dtype=int32)
    """

    shape: tuple[int, ...]
    starts: Int64s
    lengths: Int64s
    row_lengths: Int64s
    source_rows: Int64s | None = None
    begins: Int64s | None = None
    order: Int64s | None = field(init=False)

    def __post_init__(self) -> None:
        for name in ("starts", "lengths", "row_lengths", "source_rows", "begins"):
            given = getattr(self, name)
            if given is not None or name not in ("source_rows", "begins"):
                object.__setattr__(self, name, _check.int64s(name, given))
        object.__setattr__(self, "shape", _check.shape("shape", self.shape))
        for name in (
            "lengths",
            "source_rows",
            "begins",
            *(() if self.source_rows is not None else ("row_lengths",)),
        ):
            found = getattr(self, name)
            if found is not None and len(found) != len(self.starts):
                raise ValueError(f"{name} has {len(found)} rows, starts has {len(self.starts)}")
        order = _native.sorted_rows(self.starts, self.lengths, None, size=self.size)
        object.__setattr__(self, "order", order)
        if self.has_pieces:
            self._check_pieces()
        elif self.lengths is not self.row_lengths and (odd := self.lengths > self.row_lengths).any():
            row = int(odd.argmax())
            raise ValueError(
                f"row {row} has {self.row_lengths[row]} elements, of which lengths places {self.lengths[row]}"
            )
        if (odd := (self.starts == ABSENT) & (self.lengths != 0)).any():
            row = int(odd.argmax())
            raise ValueError(
                f"row {row} is dropped (its start is -1), but its length is {self.lengths[row]}; "
                "a dropped row has length 0"
            )

    @classmethod
    def _trusted(
        cls,
        shape: tuple[int, ...],
        starts: Int64s,
        lengths: Int64s,
        row_lengths: Int64s,
        order: Int64s | None = None,
        source_rows: Int64s | None = None,
        begins: Int64s | None = None,
    ) -> Layout:
        """Make a layout of what is known to be one, without a look at its rows."""
        layout = object.__new__(cls)
        vars(layout).update(
            shape=shape,
            starts=starts,
            lengths=lengths,
            row_lengths=row_lengths,
            source_rows=source_rows,
            begins=begins,
            order=order,
        )
        return layout

    @property
    def written(self) -> Layout:
        """The layout itself: `place` writes what `take` reads."""
        return self

    @classmethod
    def at(cls, shape: tuple[int, ...], starts: Int64s, lengths: Int64s) -> Layout:
        """Lay whole rows where their starts are known.

        Example:
            >>> Layout.at((6,), [1, 4], [2, 1]).positions()
            array([0, 0, 1, 0, 0, 0], dtype=int32)
        """
        return cls(shape, starts, lengths, lengths)

    @classmethod
    def concat(cls, lengths: ArrayLike, *, align: int = 1, multiple_of: int = 1) -> Layout:
        """Lay rows end to end: the flat stream that variable-length attention kernels take.

        Args:
            lengths: `[rows]` ints.
            align: each row starts at a multiple of this; the gaps are padding.
            multiple_of: the length of the stream is rounded up to a multiple of this.

        Example:
            >>> Layout.concat([3, 1], align=4).cu_seqlens_padded()
            array([0, 4, 8], dtype=int32)
        """
        lengths = _check.lengths("lengths", lengths).copy()  # a plan of its own, whatever becomes of theirs
        slots = _native.offsets_from_lengths(lengths, _check.positive("align", align))
        size = _round_up(int(slots[-1]), _check.positive("multiple_of", multiple_of))
        if size > MOST_ELEMENTS:
            raise OverflowError(
                f"{slots[-1]} elements, rounded up to multiple_of={multiple_of}, are beyond int64"
            )
        return cls._trusted((size,), slots[:-1], lengths, lengths)

    @classmethod
    def pad(
        cls,
        lengths: ArrayLike,
        *,
        side: str = "left",
        width: int | None = None,
        multiple_of: int = 1,
    ) -> Layout:
        """Lay one row per line of a rectangle.

        Args:
            lengths: `[rows]` ints.
            side: where the padding goes: `"left"` (rows end together) or `"right"`.
            width: the width of the rectangle; the longest row's by default.
            multiple_of: the width is rounded up to a multiple of this.

        Raises:
            ValueError: a row is longer than `width`; the message names it.

        Example:
            >>> Layout.pad([3, 1], multiple_of=4).attention_mask()
            array([[0, 1, 1, 1],
                   [0, 0, 0, 1]], dtype=uint8)
        """
        lengths = _check.lengths("lengths", lengths).copy()  # a plan of its own, whatever becomes of theirs
        _check.choice("side", side, ("left", "right"))
        longest = int(lengths.max(initial=0))
        wide = longest if width is None else _check.positive("width", width, least=0)
        if longest > wide:
            raise ValueError(
                f"row {int(lengths.argmax())} has {longest} elements, more than width={wide}; "
                "pass a larger width, or truncate the rows"
            )
        wide = _round_up(wide, _check.positive("multiple_of", multiple_of))
        if len(lengths) * wide > MOST_ELEMENTS:
            raise OverflowError(f"{len(lengths)} rows of width={wide} have more than 2**63 - 1 elements")
        starts = np.arange(len(lengths), dtype=np.int64) * wide
        if side == "left":
            # An empty row starts where its line does: where it ends, the next line starts.
            starts += np.where(lengths == 0, 0, wide - lengths)
        return cls._trusted((len(lengths), wide), starts, lengths, lengths)

    @classmethod
    def pack(
        cls,
        lengths: ArrayLike,
        capacity: int,
        *,
        algorithm: str = "first_fit_decreasing",
        align: int = 1,
        max_segments: int | None = None,
        bins_multiple_of: int = 1,
        bins: int | None = None,
        oversize: str = "raise",
        order: str = "opened",
        seed: int | None = None,
    ) -> Layout:
        """Lay rows in bins of `capacity` elements, in input order within a bin.

        An empty row is where the row before it in its bin ends. Where that is the end of the bin, and so
        the start of the next, it is where the last row that has elements starts, and comes before it.

        Args:
            lengths: `[rows]` ints.
            capacity: elements of a bin.
            algorithm: see `plan_bins`.
            align: each row starts at a multiple of this within its bin.
            max_segments: at most that many rows in a bin.
            bins_multiple_of: empty bins are added up to a multiple of this (data-parallel ranks).
            bins: exactly so many bins, empty ones at the end; `bins_multiple_of` is left out then.
            oversize: what becomes of a row longer than `capacity`: `"raise"`, `"truncate"` (its first
                `capacity` elements stay), `"alone"` (a bin of its own; all bins become that wide),
                `"drop"`, or `"split"`: it becomes pieces of `capacity` elements, each in a bin of its own,
                and one of what is left, which is packed as a row is. A piece is a segment of its own, counts
                for `max_segments`, and its positions go on; `take` gives whole rows back.
            order: of bins: `"opened"`, in which the longest rows come first where an algorithm takes them
                first, or `"shuffled"`, which training in this order wants. Added bins stay at the end.
            seed: of the shuffled order, 0 or more; the same bins come in the same order on every machine.

        Example:
            >>> Layout.pack([6, 9, 3], capacity=8, oversize="truncate", bins_multiple_of=4).shape
            (4, 8)
            >>> Layout.pack([3, 11], capacity=4, oversize="split").positions()
            array([[ 0,  1,  2,  3],
                   [ 4,  5,  6,  7],
                   [ 0,  1,  2,  0],
                   [ 8,  9, 10,  0]], dtype=int32)
        """
        lengths = _check.lengths("lengths", lengths).copy()  # a plan of its own, whatever becomes of theirs
        options = plan_options(capacity, algorithm, align, max_segments, oversize)
        shuffle = shuffle_key(order, seed)
        multiple = multiple_of_bins(bins, bins_multiple_of)
        rows = begins = None
        whole = lengths
        if oversize == "split":
            options["oversize"] = "raise"
            if (pieces := _native.split_rows(lengths, capacity=options["capacity"])) is not None:
                rows, begins, whole = pieces
        try:
            starts, placed, by_start, found, width = _native.pack_rows(
                whole, bins_multiple_of=multiple, shuffle=shuffle, **options
            )
        except OverflowError as error:
            if rows is None or (piece := row_of(error)) is None:
                raise
            raise retold(error, row=int(rows[piece])) from None
        if bins is not None and found != multiple:
            needed = _native.pack_rows(whole, bins_multiple_of=1, shuffle=None, **options)[3]
            check_bins(multiple, needed, width)
            found = multiple  # there is no row
        return cls._trusted((found, width), starts, placed, lengths, by_start, rows, begins)

    @classmethod
    def union(cls, layouts: Sequence[Layout]) -> Layout:
        """Lay the rows of several layouts of one shape in one output; row numbers count through.

        Example:
            >>> rows = Layout.pad([3, 2])
            >>> both = Layout.union([rows.spans(0, [1, 1]), rows.spans([1, 1], [2, 1])])
            >>> both.starts.tolist(), both.lengths.tolist()
            ([0, 4, 1, 5], [1, 1, 2, 1])
        """
        layouts = _check.items("layouts", layouts)
        shape = _alike(layouts, "union").shape
        starts = np.concatenate([layout.starts for layout in layouts])
        lengths = np.concatenate([layout.lengths for layout in layouts])
        row_lengths = np.concatenate([layout.row_lengths for layout in layouts])
        near = _orders(layouts) if any(layout.order is not None for layout in layouts) else None
        order = _native.sorted_rows(starts, lengths, near, size=prod(shape))
        if not any(layout.has_pieces for layout in layouts):
            return cls._trusted(shape, starts, lengths, row_lengths, order)
        pieces = [layout.pieces_of_rows() for layout in layouts]
        firsts = np.cumsum([0, *map(len, layouts)])
        rows = np.concatenate([found + first for (found, _), first in zip(pieces, firsts[:-1], strict=True)])
        begins = np.concatenate([found for _, found in pieces])
        return cls._trusted(shape, starts, lengths, row_lengths, order, rows, begins)

    @classmethod
    def stack(cls, layouts: Sequence[Layout]) -> Layout:
        """Lay the pieces that several layouts have of the same rows in one output, a layout after the other.

        What `all_gather` makes of all ranks' outputs is of this shape: `take` gives the rows back.

        Args:
            layouts: of one shape and the same rows, of which no element is in two; `shard` makes such.

        Returns:
            A layout of shape `(len(layouts), *shape)`.

        Example:
            >>> Layout.stack(Layout.concat([8]).shard(2)).positions()
            array([[0, 1, 6, 7],
                   [2, 3, 4, 5]], dtype=int32)
        """
        first = _alike(layouts := _check.items("layouts", layouts), "stack")
        for i, layout in enumerate(layouts):
            if not _check.same_ints(layout.row_lengths, first.row_lengths):
                raise ValueError(f"layouts must have the same rows; layouts[{i}] has others than layouts[0]")
        starts = [
            np.where(one.starts == ABSENT, ABSENT, one.starts + i * first.size)
            for i, one in enumerate(layouts)
        ]
        rows, begins = zip(*(layout.pieces_of_rows() for layout in layouts), strict=True)
        return cls(
            (len(layouts), *first.shape),
            np.concatenate(starts),
            np.concatenate([layout.lengths for layout in layouts]),
            first.row_lengths,
            np.concatenate(rows),
            np.concatenate(begins),
        )

    def shard(self, size: int, scheme: str = "zigzag", *, align: int | None = None) -> tuple[Layout, ...]:
        """Deal the tokens of each line to the ranks of a context-parallel group.

        Each rank gets as many tokens of a line, padding counted, as a layout of pieces: any column of the
        rows is one `place` away, positions go on as they are in the rows, and what comes after each token
        (labels) is `place(column, shard.shifted())`.

        | scheme | cuts | a rank has |
        |---|---|---|
        | `"zigzag"` | each row's slot, in 2 · size chunks | chunks r and 2 · size - 1 - r |
        | `"dual_chunk"` | each line, in 2 · size chunks | likewise |
        | `"striped"` | each line, in stripes of `align` | every size-th stripe from r on |
        | `"contiguous"` | each line, in size chunks | chunk r |
        | `"balanced"` | each line, in blocks of `align` | as many blocks, of about equal cost |

        What is cut must be a multiple of the chunks (2 · size or size) and of `align`; nothing is dropped.
        A slot is a row and the padding after it (a line's first one begins with the line). A token costs its
        position and one, which is what causal attention takes: "balanced" evens that out whatever the rows
        are, for attention that gathers keys and values of all ranks; a ring needs one of the first three.

        Args:
            size: how many ranks there are; any number.
            scheme: one of the five.
            align: of how many tokens that stay together everything dealt is a multiple: 128 for `"balanced"`,
                else 1.

        Returns:
            `size` layouts of shape `(…, width / size)`, rank 0's first. Their rows are this layout's.

        Raises:
            ValueError: a slot or a line cannot be dealt evenly; the message names it and how to pad.

        Example:
            >>> from rollkit import place
            >>> layout = Layout.concat([6, 3], align=4)
            >>> first, second = layout.shard(2)
            >>> rows = [[10, 11, 12, 13, 14, 15], [20, 21, 22]]
            >>> place(rows, first), place(rows, second)
            (array([10, 11,  0,  0, 20,  0]), array([12, 13, 14, 15, 21, 22]))
            >>> place(rows, second.shifted(), fill=-100)
            array([  13,   14,   15, -100,   22, -100])
        """
        from rollkit._rows.shard import shares  # with it comes what balances

        found = shares(self, size, scheme, align)
        shape = (*self.shape[:-1], self.width // len(found))
        return tuple(
            Layout._trusted(shape, laid.starts, laid.lengths, self.row_lengths, None, laid.rows, laid.begins)
            for laid in found
        )

    def shifted(self, by: int = 1) -> Layout:
        """Lay at each token's place what comes `by` elements after it in its row; nothing at the row's end.

        `place(column, layout.shifted(), fill)` is the column shifted to the left, row by row, and laid out:
        tokens become labels, and masks, weights and log-probabilities go where the model's output about
        their token is. What comes next may be on another rank, in another bin, or cut off from the batch.
        `take(output, layout.shifted())` gives rows from element `by` on.

        Example:
            >>> from rollkit import place
            >>> layout = Layout.concat([3, 2])
            >>> place([[1, 2, 3], [4, 5]], layout.shifted(), fill=-100)
            array([   2,    3, -100,    5, -100])
        """
        by = _check.positive("by", by, least=0)
        rows, begins = self.pieces_of_rows()
        ends = self.row_lengths[rows]
        begins = begins + np.minimum(by, ends - begins)
        lengths = np.minimum(self.lengths, ends - begins)
        return Layout._trusted(self.shape, self.starts, lengths, self.row_lengths, self.order, rows, begins)

    @property
    def labels_from(self) -> Int64s:
        """`shape` int64: where the next token of each is in the rows' values; -1 at a row's end, in padding.

        Example:
            >>> [shard.labels_from.tolist() for shard in Layout.concat([6, 2], align=4).shard(2)]
            [[1, 2, -1, -1, 7, -1], [3, 4, 5, -1, -1, -1]]
        """
        next_ones = self.shifted()
        rows, begins = next_ones.pieces_of_rows()
        firsts = _native.offsets_from_lengths(self.row_lengths)[rows] + begins
        found = np.full(self.size, -1, np.int64)
        found[counted(self.starts, next_ones.lengths)] = counted(firsts, next_ones.lengths)
        return found.reshape(self.shape)

    def spans(self, begins: ArrayLike, lengths: ArrayLike) -> Layout:
        """Lay a part of each row where that part is: the response within prompt and response, say.

        Args:
            begins: where the part begins within its row: `[rows]` ints, or one for all.
            lengths: `[rows]` ints, the elements of the part. What truncation cut off stays cut off.

        Example:
            >>> Layout.pad([3, 2], side="right").spans([1, 1], [2, 1]).attention_mask()
            array([[0, 1, 1],
                   [0, 1, 0]], dtype=uint8)
        """
        if self.has_pieces:
            return self._piece_spans(*checked_spans(self.row_lengths, begins, lengths))
        first, wanted = given_spans(len(self), begins, lengths)
        starts, kept = _native.spans(self.starts, self.lengths, self.row_lengths, first, wanted)
        # Parts are within their rows, so they are in the order of these.
        return Layout._trusted(self.shape, starts, kept, wanted, self.order)

    def _piece_spans(self, first: Int64s, wanted: Int64s) -> Layout:
        """What pieces hold of a part of each row."""
        rows, begins = self.pieces_of_rows()
        low = np.maximum(begins, first[rows])
        kept = np.minimum(begins + self.lengths, (first + wanted)[rows]) - low
        present = (self.starts != ABSENT) & (kept > 0)
        starts = np.where(present, self.starts + (low - begins), ABSENT)
        kept = np.where(present, kept, 0)
        # A piece that holds nothing of the part is of nothing: it begins anywhere, so at the part's start.
        begins = np.where(present, low - first[rows], 0)
        # Parts are within their pieces, of which two may have the same elements: a bin that is there twice.
        return Layout._trusted(self.shape, starts, kept, wanted, self.order, rows, begins)

    def kept(self, rows: ArrayLike) -> Layout:
        """Lay only some rows where they are; the others keep their numbers, and have no place.

        Args:
            rows: `[rows]` bool, which to keep.

        Example:
            >>> Layout.concat([2, 1, 3]).kept([True, False, True]).attention_mask()
            array([1, 1, 0, 1, 1, 1], dtype=uint8)
        """
        keep = np.asarray(as_array(rows))
        if not keep.size and not isinstance(rows, np.ndarray):
            keep = keep.astype(bool)  # NumPy makes float64 of an empty list
        if keep.dtype != bool or keep.shape != (len(self),):
            raise ValueError(
                f"rows must be one bool per row, {len(self)}, got {keep.dtype} of shape {keep.shape}"
            )
        if self.source_rows is not None:
            keep = keep[self.source_rows]
        starts, lengths = np.where(keep, self.starts, ABSENT), np.where(keep, self.lengths, 0)
        return Layout._trusted(
            self.shape, starts, lengths, self.row_lengths, self.order, self.source_rows, self.begins
        )

    def rows_on(self, first_line: int, lines: int) -> Int64s:
        """The rows, in ascending order, that have a piece on `lines` lines from `first_line` on.

        Example:
            >>> Layout.pack([3, 7, 2], capacity=8).rows_on(first_line=1, lines=1)
            array([0, 2])
        """
        first_line = _check.positive("first_line", first_line, least=0)
        lines = _check.positive("lines", lines, least=0)
        if not self.size and len(self) == self.shape[0]:  # of no width: one row a line
            return np.arange(first_line, first_line + lines)
        line = prod(self.shape[1:])
        begin, end = first_line * line, (first_line + lines) * line
        on = (self.starts != ABSENT) & (self.starts >= begin) & (self.starts < end)
        rows: Int64s = np.flatnonzero(on)
        return rows if self.source_rows is None else np.unique(self.source_rows[rows])

    def select(self, rows: ArrayLike, first_line: int, lines: int) -> Layout:
        """Lay only `rows`, all of which are on `lines` lines from `first_line` on: a shard of bins.

        Of a row in pieces, those on other lines are left out.

        Example:
            >>> layout = Layout.pack([3, 7, 2], capacity=8)
            >>> layout.select([0, 2], first_line=1, lines=1).segment_ids()
            array([[1, 1, 1, 2, 2, 0, 0, 0]], dtype=int32)
        """
        chosen = _check.int64s("rows", rows)
        if (odd := (chosen < 0) | (chosen >= len(self))).any():
            raise IndexError(f"row {chosen[odd][0]} is out of range: there are {len(self)} rows")
        first_line = _check.positive("first_line", first_line, least=0)
        lines = _check.positive("lines", lines, least=0)
        line = prod(self.shape[1:])
        begin, end = first_line * line, (first_line + lines) * line
        pieces, rows_of_pieces = self.pieces_of(chosen)
        if self.source_rows is not None:
            there = self._meet(begin, end)[pieces]
            has_some = np.bincount(rows_of_pieces[there], minlength=len(chosen)) > 0
            keep = there | ~has_some[rows_of_pieces]  # of a row that has none there all, to be refused
            pieces, rows_of_pieces = pieces[keep], rows_of_pieces[keep]
        starts, lengths = self.starts[pieces], self.lengths[pieces]
        odd = (starts != ABSENT) & ((starts < begin) | (starts + lengths > end))
        if odd.any():
            raise ValueError(
                f"row {chosen[rows_of_pieces[odd][0]]} is not on lines {first_line} to {first_line + lines} "
                f"of a layout of shape {self.shape}"
            )
        starts = np.where(starts == ABSENT, ABSENT, starts - begin)
        shape = (lines, *self.shape[1:])
        order = _native.sorted_rows(starts, lengths, None, size=prod(shape))  # a row may be chosen twice
        row_lengths = self.row_lengths[chosen]
        if not self.has_pieces:
            return Layout._trusted(shape, starts, lengths, row_lengths, order)
        begins = None if self.begins is None else self.begins[pieces]
        return Layout._trusted(shape, starts, lengths, row_lengths, order, rows_of_pieces, begins)

    def _on_lines(self, begin: int, count: int) -> tuple[Int64s, Layout]:
        """The rows on some lines that follow each other, and their layout there."""
        rows = self.rows_on(begin, count)
        return rows, self.select(rows, begin, count)

    def _meet(self, begin: int, end: int) -> NDArray[np.bool_]:
        """Which pieces have an element between two flat positions; empty ones, whether they are there."""
        empty = self.lengths == 0
        ends = self.starts + self.lengths
        found: NDArray[np.bool_] = (self.starts < end + empty) & (ends > begin - empty)
        found &= self.starts != ABSENT
        return found

    def equals(self, other: object) -> bool:
        """Whether `other` lays as many rows of the same lengths in the same places.

        Example:
            >>> Layout.pad([2, 1]).equals(Layout.pad([2, 1]))
            True
        """
        return (
            isinstance(other, Layout)
            and self.shape == other.shape
            and all(a is b or np.array_equal(a, b) for a, b in zip(self._fields, other._fields, strict=True))
        )

    @property
    def _fields(self) -> tuple[Any, ...]:
        return self.starts, self.lengths, self.row_lengths, self.source_rows, self.begins

    @property
    def max_seqlen(self) -> int:
        """The longest row placed: a Python int, as attention kernels want it."""
        return int(self.lengths.max(initial=0))

    @property
    def utilisation(self) -> float:
        """The share of the output that rows fill; 1.0 for an empty output."""
        return self.num_placed / self.size if self.size else 1.0

    def segment_ids(self, out: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
        """`shape` int32: the row's number within its line, from 1; 0 is padding.

        Empty rows have a number too, so that segment `k` is `cu_seqlens()[k - 1:k + 1]`.
        """
        out = self._output(out, np.int32)
        _native.segment_ids(self.starts, self.lengths, self.order, width=max(self.width, 1), out=out)
        return out

    def positions(self, out: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
        """`shape` int32: 0, 1, 2, … within each row, going on from piece to piece; 0 in padding."""
        out = self._output(out, np.int32)
        _native.positions(*self.slots, out=out, begins=self.begins)
        return out

    def visible_until(self, out: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
        """`shape` int32: where the tokens end that may attend to each, within its line; padding has none.

        Token `q` attends to token `k` of its line if `k <= q < visible_until[k]`: the whole causal mask, here
        of segments, in a `TreeLayout` of trees. Pieces are segments, as `segment_ids` has them.

        Example:
            >>> Layout.pack([3, 2], capacity=6).visible_until()
            array([[3, 3, 3, 5, 5, 5]], dtype=int32)
        """
        out = self._output(out, np.int32)
        ends = np.where(self.starts == ABSENT, ABSENT, self.starts + self.lengths)
        _native.visible_until(*self.slots, ends, width=max(self.width, 1), out=out)
        return out

    def attention_mask(self, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """`shape` uint8: 1 where a row is, 0 in padding."""
        out = self._output(out, np.uint8)
        _native.attention_mask(self.starts, self.lengths, self.order, out=out)
        return out

    def cu_seqlens(self, line: int | None = None) -> NDArray[np.int32]:
        """`[segments + 1]` int32: 0 and the running sum of segment lengths, padding left out.

        Args:
            line: only the segments of this line (bin); of the whole output by default.

        Example:
            >>> Layout.pack([3, 7, 2], capacity=8).cu_seqlens(line=1)
            array([0, 3, 5], dtype=int32)
        """
        return _int32(_native.offsets_from_lengths(self.lengths[self._segments(line)]))

    def cu_seqlens_padded(self, line: int | None = None) -> NDArray[np.int32]:
        """`[segments + 1]` int32: where each segment starts, padding counted, and where the last slot ends.

        Example:
            >>> Layout.pack([3, 7, 2], capacity=8).cu_seqlens_padded()
            array([ 0,  8, 11, 16], dtype=int32)
        """
        segments = self._segments(line)
        first, size = (0, self.size) if line is None else (line * self.width, self.width)
        return _int32(np.append(self.starts[segments] - first, size))

    def edges(self, where: Any = None) -> tuple[Any, Any]:
        """Where each token is that has a predecessor in its row, and where that is.

        The model's output at the predecessor is about the token: a head and a loss that run on these alone
        see no padding, no first token (before it is another rollout), and nothing that does not count. A row
        in pieces goes on from the last token of one to the first token of the next, wherever they are.

        Args:
            where: `shape`, of any framework: only tokens at which it is not 0, such as
                `batch["loss_masks"]`. It has values: not under `jit`.

        Returns:
            `predecessor` and `token`, `[edges]` int64 (in JAX what it has for that), flat positions in
            memory order; of the framework and on the device of `where`, else NumPy's.

        Example:
            >>> Layout.pack([3, 2], capacity=6).edges()
            (array([0, 1, 3]), array([1, 2, 4]))
        """
        return edges(self, where)

    def _segments(self, line: int | None) -> Int64s:
        """Rows that have a place, in memory order."""
        rows = np.arange(len(self.starts)) if self.order is None else self.order
        starts = self.starts[rows]
        if line is None:
            present: Int64s = rows[starts != ABSENT]
            return present
        line = _check.positive("line", line, least=-MOST_ELEMENTS)
        count = prod(self.shape[:-1])
        if not 0 <= line < count:
            raise IndexError(f"line {line} is out of range: the layout has shape {self.shape}")
        if count == 1:
            on_line = starts != ABSENT  # an empty row may start where the line ends
        else:
            on_line = (starts >= line * self.width) & (starts < (line + 1) * self.width)
        found: Int64s = rows[on_line]
        return found

    def _output(self, out: NDArray[Any] | None, dtype: DTypeLike) -> NDArray[Any]:
        if out is None:
            fresh: NDArray[Any] = np.empty(self.shape, dtype)
            return fresh
        return _check.checked_out(out, self.shape, np.dtype(dtype))

    def __reduce__(self) -> tuple[Any, ...]:
        return Layout, (self.shape, *self._fields)

    def __repr__(self) -> str:
        shape = " × ".join(f"{n:,}" for n in self.shape)
        of = f"{len(self.starts):,} pieces of " if self.has_pieces else ""
        return f"Layout({of}{len(self):,} rows in {shape}, {self.utilisation:.1%} used)".replace("%", " %")


def given_spans(rows: int, begins: ArrayLike, lengths: ArrayLike) -> tuple[Int64s, Int64s]:
    """Where a part of each row begins (of one row, or of all), and how long it is."""
    wanted = _check.lengths("lengths", lengths)
    first = _check.one_or_more_int64s("begins", begins)
    for name, found in (("lengths", len(wanted)), ("begins", len(first))):
        if found != rows and (name == "lengths" or np.ndim(begins)):
            raise ValueError(f"{name} has {found} rows, the layout has {rows}")
    return first, wanted


def checked_spans(row_lengths: Int64s, begins: ArrayLike, lengths: ArrayLike) -> tuple[Int64s, Int64s]:
    """`given_spans`, one of each for a row, which are within it."""
    first, wanted = given_spans(len(row_lengths), begins, lengths)
    first = np.broadcast_to(first, wanted.shape)
    if (odd := (first < 0) | (first > row_lengths - wanted)).any():
        row = int(odd.argmax())
        raise ValueError(
            f"row {row} has {row_lengths[row]} elements; elements {first[row]} to "
            f"{first[row]} + {wanted[row]} are no part of it"
        )
    return first, wanted


def _alike(layouts: Sequence[Any], verb: str) -> Layout:
    """Check that layouts have one shape; return the first."""
    for i, layout in enumerate(layouts):
        if not isinstance(layout, Layout):
            raise TypeError(f"layouts must be Layouts; layouts[{i}] is {type(layout).__name__}")
    shapes = {layout.shape for layout in layouts}
    if not shapes:
        raise ValueError(f"layouts is empty; {verb} needs at least one layout")
    if len(shapes) != 1:
        raise ValueError(f"layouts must share one shape, got {sorted(shapes)}")
    return cast(Layout, layouts[0])


def _orders(layouts: Sequence[Layout]) -> Int64s:
    """The rows of layouts, counted through, each layout's by ascending start."""
    firsts = np.cumsum([0, *(len(layout.starts) for layout in layouts)])
    return np.concatenate(
        [
            first + (np.arange(len(layout.starts)) if layout.order is None else layout.order)
            for first, layout in zip(firsts[:-1], layouts, strict=True)
        ]
    )


def _round_up(value: Any, multiple: int) -> Any:
    return -(-value // multiple) * multiple


def _int32(values: Int64s) -> NDArray[np.int32]:
    if values[-1] > np.iinfo(np.int32).max:
        raise OverflowError(f"{values[-1]} elements are beyond int32, which attention kernels take")
    return values.astype(np.int32)


def refuse_shared(called: str, given: Any) -> None:
    """Refuse a batch whose rows share tokens where its lines would be taken for rows."""
    layout = getattr(given, "__dict__", {}).get("layout")
    if isinstance(layout, Laid) and not isinstance(layout, Layout):
        raise TypeError(
            f"{called} is a batch that shares prefixes: its lines are no rows, which batch.unpack(name) gives"
        )
