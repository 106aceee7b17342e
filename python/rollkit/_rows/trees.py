"""Rows that share prefixes, laid in bins: `TreeLayout`, and all that a trainer reads off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollkit import _check, _native
from rollkit._check import Int64s, same_ints
from rollkit._rows.balance import row_costs
from rollkit._rows.edges import chosen_edges
from rollkit._rows.laid import Laid, counted
from rollkit._rows.layout import ABSENT, Layout, checked_spans
from rollkit._rows.no_segments import NoSegments
from rollkit._rows.parts import place_parts
from rollkit._rows.place import parts_of
from rollkit._rows.ragged import Ragged
from rollkit._rows.sums import equal_rows, summed_rows

NONE = -1
"""The parent of a root, and the leaf of a row that has no element here."""


@dataclass(frozen=True, eq=False, repr=False)
class TreeLayout(NoSegments, Laid):
    """Where rows are in bins that hold what they share once: `Forest.pack` makes one.

    A bin has whole trees, one after the other, each with its nodes depth first: what is below a node lies
    right after it. A row is the path to its leaf; it is in one bin, and a node is once in each bin that has a
    row of it. `place` writes a node from the first of its rows that the bin has, `take` reads whole rows.

    Attributes:
        nodes: the layout of the nodes: each is a piece of a row, none is empty, by ascending start.
        parents: `[nodes]` int64: the node that each goes on from, -1 for a root.
        leaf: `[rows]` int64: the node that each row ends with, -1 if it is empty or was dropped.

    Example:
        >>> from rollkit import Forest
        >>> layout = Forest.build([[5, 6, 7], [5, 6, 8, 9], [4]]).pack(8)
        >>> layout
        TreeLayout(3 rows, 4 nodes in 1 × 8, 75.0 % used)
        >>> layout.positions()
        array([[0, 1, 2, 2, 3, 0, 0, 0]], dtype=int32)
        >>> layout.visible_until()
        array([[5, 5, 3, 5, 5, 6, 6, 7]], dtype=int32)
        >>> layout.predecessors()
        array([[-1,  0,  1,  1,  3, -1, -1, -1]])
    """

    nodes: Layout
    parents: Int64s
    leaf: Int64s

    def __post_init__(self) -> None:
        if not isinstance(self.nodes, Layout):
            raise TypeError(f"nodes must be a Layout, got {type(self.nodes).__name__}")
        for name in ("parents", "leaf"):
            object.__setattr__(self, name, _check.int64s(name, getattr(self, name)))
        nodes = self.nodes
        if len(self.leaf) != len(nodes):
            raise ValueError(f"leaf has {len(self.leaf)} rows, nodes has {len(nodes)}")
        if len(nodes.shape) != 2 or nodes.source_rows is None or nodes.begins is None:
            raise ValueError("nodes must be a layout of pieces in bins; Forest.pack makes one")
        found = self._read  # which checks what is said of nodes and parents
        lengths, begins, rows = nodes.lengths, nodes.begins, nodes.source_rows
        above = np.where(self.parents == NONE, 0, (begins + lengths)[self.parents])
        if (odd := begins != above).any():
            node = int(odd.argmax())
            raise ValueError(
                f"node {node} begins at element {begins[node]}, its parent ends at {above[node]}"
            )
        leaf = self.leaf[rows]
        at = nodes.starts[leaf]
        if (odd := (leaf == NONE) | (at < nodes.starts) | (at >= found[0])).any():
            node = int(odd.argmax())
            raise ValueError(f"node {node} is of row {rows[node]}, which does not end in or below it")
        ends = self._row_ends
        if (odd := ends > nodes.row_lengths).any():
            row = int(odd.argmax())
            raise ValueError(f"row {row} has {nodes.row_lengths[row]} elements, its leaf ends at {ends[row]}")

    @classmethod
    def _trusted(cls, nodes: Layout, parents: Int64s, leaf: Int64s) -> TreeLayout:
        """Make a layout of what is known to be one."""
        layout = object.__new__(cls)
        vars(layout).update(nodes=nodes, parents=parents, leaf=leaf)
        return layout

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """`[bins, capacity]`."""
        return self.nodes.shape

    @property
    def row_lengths(self) -> Int64s:
        """`[rows]` int64: the elements each row has; more than are placed where it is cut or dropped."""
        return self.nodes.row_lengths

    @property
    def written(self) -> Layout:
        """The layout of the nodes."""
        return self.nodes

    def reads(self) -> tuple[Int64s, Int64s]:
        """What `take` copies, row after row: the spans of its path."""
        return self._paths[1], self._paths[2]

    def row_offsets(self, ends: Int64s | None = None) -> Int64s:
        """`[rows + 1]` int64: where rows begin once `take` has copied them."""
        if ends is None:
            ends = _native.offsets_from_lengths(self._paths[2])
        return ends[self._paths[0]]

    @cached_property
    def _paths(self) -> tuple[Int64s, Int64s, Int64s]:
        """Where the spans of each row begin, and of spans starts and lengths."""
        offsets, starts, lengths = _native.forest_paths(*self._placed)
        return offsets, starts, lengths

    @property
    def _placed(self) -> tuple[Int64s, Int64s, Int64s, Int64s]:
        return self.parents, self.nodes.starts, self.nodes.lengths, self.leaf

    @cached_property
    def _read(self) -> tuple[Int64s, Int64s, Int64s]:
        """Of each node the end of what is below it, how many rows have it, and the number of its tree."""
        visible, rows, trees = _native.read_forest(*self._placed, width=max(self.width, 1))
        return visible, rows, trees

    @property
    def _row_ends(self) -> Int64s:
        """`[rows]` int64: the elements that are placed of each row."""
        if not len(self.parents):
            return np.zeros_like(self.leaf)
        begins = self.nodes.pieces_of_rows()[1]
        return np.where(self.leaf == NONE, 0, (begins + self.nodes.lengths)[self.leaf])

    @property
    def num_placed(self) -> int:
        """The elements that rows fill, those that they share counted once."""
        return self.nodes.num_placed

    @property
    def utilisation(self) -> float:
        """The share of the output that rows fill; 1.0 for an empty output."""
        return self.nodes.utilisation

    @property
    def row_bins(self) -> Int64s:
        """`[rows]` int64: the bin of each row; that of an empty one is 0, of a dropped one -1."""
        without = np.where(self.row_lengths == 0, 0, ABSENT)
        if not len(self.parents):
            return without
        return np.where(self.leaf == NONE, without, self.nodes.starts[self.leaf] // self.width)

    def positions(self, out: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
        """`shape` int32: 0, 1, 2, … within each row, whichever it is; 0 in padding."""
        return self.nodes.positions(out)

    def attention_mask(self, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """`shape` uint8: 1 where a row is, 0 in padding."""
        return self.nodes.attention_mask(out)

    def segment_ids(self, out: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
        """`shape` int32: the tree's number within its bin, from 1; 0 is padding.

        Rows of one tree do not all see each other: what does is in `visible_until`.
        """
        return self._filled(self._read[2], out)

    def multiplicity(self, out: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
        """`shape` int32: how many rows have each token; 0 in padding.

        Example:
            >>> from rollkit import Forest
            >>> Forest.build([[5, 6], [5, 7], [5]]).pack(4).multiplicity()
            array([[3, 1, 1, 0]], dtype=int32)
        """
        return self._filled(self._read[1], out)

    def visible_until(self, out: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
        """`shape` int32: where the tokens end that may attend to each, within its bin; padding has none.

        Token `q` attends to token `k` of its bin if `k <= q < visible_until[k]`: to all before it in its row,
        and to no other.
        """
        out = self.nodes._output(out, np.int32)
        _native.visible_until(*self.nodes.slots, self._read[0], width=max(self.width, 1), out=out)
        return out

    def predecessors(self, out: Int64s | None = None) -> Int64s:
        """`shape` int64: the flat position of the token before each in its row; -1 at roots and padding."""
        out = self.nodes._output(out, np.int64)
        starts, flat = self.nodes.starts, out.reshape(-1)
        ends = starts + self.nodes.lengths
        flat[:] = np.arange(-1, self.size - 1)
        padding = np.append(0, ends)  # where it begins: before each node, and at the end
        flat[counted(padding, np.append(starts, self.size) - padding)] = NONE
        if len(starts):
            flat[starts] = np.where(self.parents == NONE, NONE, ends[self.parents] - 1)
        return out

    def edges(self, where: Any = None) -> tuple[Any, Any]:
        """Where each token is that has a predecessor in its row, and where that is.

        The model's output at the predecessor is about the token. A token has one predecessor, but a
        predecessor may have several tokens after it: labels that are shifted cannot say that, these do.

        Args:
            where: `shape`, of any framework: only tokens at which it is not 0. Or rows (a `Ragged`) with an
                element per token: only tokens at which a row that has them is not 0. Each is there once.

        Returns:
            `predecessor` and `token`, as of `Layout.edges`.

        Example:
            >>> from rollkit import Forest
            >>> Forest.build([[5, 6, 7], [5, 6, 8, 9]]).pack(5).edges()
            (array([0, 1, 1, 3]), array([1, 2, 3, 4]))
        """
        if isinstance(where, Ragged):
            if where.of_lists:
                raise TypeError("where has a list for each token; give one number or bool each")
            where = self.reduce(Ragged(where.flat != 0, where.offsets - where.offsets[0]), "sum")
        before = self.predecessors()
        return chosen_edges(before >= 0, before.reshape(-1), where)

    def reduce(self, column: Ragged | Sequence[Any], how: str) -> Any:
        """Bring a column of the rows into the bins, where a token may have an element of several rows.

        Args:
            column: rows with an element per token, of any framework; or, where rows are cut, per token
                that is left, as `take` gives them.
            how: `"sum"` of all rows that have the token: of weights, which gives a loss that is linear in
                them its gradient; `"first"`, that of the first row, as `place` does; `"equal"`, likewise,
                which it is in all rows, or the error says where not.

        Returns:
            `[*shape, *inner]`, 0 in padding. Integers and bools are summed in 64 bits (in JAX what it has for
            that), floats of 16 bits in float32, others as they are; NumPy adds up in float64.

        Raises:
            ValueError: rows are not those of the layout; `"equal"`, and two rows differ.

        Example:
            >>> from rollkit import Forest
            >>> layout = Forest.build([[5, 6, 7], [5, 6, 8]]).pack(4)
            >>> layout.reduce([[0.0, 1.0, 1.0], [0.0, 0.5, 2.0]], "sum")
            array([[0. , 1.5, 1. , 2. ]])
        """
        _check.choice("how", how, ("sum", "first", "equal"))
        parts = parts_of(column)
        layout = self._cut if same_ints(parts.lengths, self._row_ends) else self
        if how == "first":
            return place_parts(parts, layout.written, 0)
        if how == "equal":
            return equal_rows(parts, layout)
        return summed_rows(parts, layout, self._row_ends)

    @property
    def _cut(self) -> TreeLayout:
        """This layout, of rows that have no more elements than are placed."""
        nodes = self.nodes
        shown = nodes.source_rows, nodes.begins
        cut = Layout._trusted(nodes.shape, nodes.starts, nodes.lengths, self._row_ends, nodes.order, *shown)
        return TreeLayout._trusted(cut, self.parents, self.leaf)

    def spans(self, begins: ArrayLike, lengths: ArrayLike) -> Laid:
        """A part of each row, for `take`: the response within prompt and response, say.

        Args:
            begins: where the part begins within its row: `[rows]` ints, or one for all.
            lengths: `[rows]` ints, the elements of the part. What truncation cut off stays cut off.

        Example:
            >>> from rollkit import Forest, take
            >>> layout = Forest.build([[5, 6, 7], [5, 6, 8, 9]]).pack(8)
            >>> take(layout.positions(), layout.spans([2, 1], [1, 3])).to_list()
            [[2], [1, 2, 3]]
        """
        first, wanted = checked_spans(self.row_lengths, begins, lengths)
        offsets, starts, kept = self._paths
        rows = np.repeat(np.arange(len(self)), np.diff(offsets))
        ends = _native.offsets_from_lengths(kept)
        at = ends[:-1] - ends[offsets[:-1]][rows]  # where each span begins within its row
        low = np.maximum(at, first[rows])
        found = np.minimum(at + kept, (first + wanted)[rows]) - low
        return PathSpans(self, offsets, np.where(found > 0, starts + (low - at), starts), found.clip(0))

    def bins(self, numbers: ArrayLike) -> TreeLayout:
        """Lay only some bins, in this order, and of the rows those in them.

        Args:
            numbers: of the bins, each once. The rows are `rows_of(numbers)`.

        Example:
            >>> from rollkit import Forest
            >>> layout = Forest.build([[1, 2], [1, 3], [4, 5, 6]]).pack(3)
            >>> layout.rows_of([1]), layout.bins([1]).shape
            (array([2]), (1, 3))
        """
        rows, found = self.laid(self._bin_numbers(numbers))
        order = np.argsort(rows)
        sources, begins = found.nodes.pieces_of_rows()
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        placed = found.shape, found.nodes.starts, found.nodes.lengths
        nodes = Layout._trusted(*placed, found.row_lengths[order], None, places[sources], begins)
        return TreeLayout._trusted(nodes, found.parents, found.leaf[order])

    def rows_of(self, bins: ArrayLike) -> Int64s:
        """The rows, in ascending order, that are in some bins."""
        chosen, rows = self._bin_numbers(bins), self._by_bin
        return np.sort(rows.rows[counted(rows.rows_at[chosen], rows.row_counts[chosen])])

    def laid(self, bins: Int64s) -> tuple[Int64s, TreeLayout]:
        """The rows in some bins, bin after bin, and their layout there; a bin may be there twice.

        Its time is that of what these bins have, of however many.
        """
        all_, nodes, width = self._by_bin, self.nodes, self.width
        counts, row_counts = all_.node_counts[bins], all_.row_counts[bins]
        kept = counted(all_.nodes_at[bins], counts)
        rows = all_.rows[counted(all_.rows_at[bins], row_counts)]
        first_nodes = _native.offsets_from_lengths(counts)[:-1]
        first_rows = _native.offsets_from_lengths(row_counts)[:-1]
        moved = first_nodes - all_.nodes_at[bins]  # from numbers of all nodes to those of these
        sources, begins = nodes.pieces_of_rows()
        found = Layout._trusted(
            (len(bins), width),
            nodes.starts[kept] + np.repeat((np.arange(len(bins)) - bins) * width, counts),
            nodes.lengths[kept],
            nodes.row_lengths[rows],
            None,
            all_.places[sources[kept]] + np.repeat(first_rows, counts),
            begins[kept],
        )
        parents = _moved(self.parents[kept], np.repeat(moved, counts))
        return rows, TreeLayout._trusted(
            found, parents, _moved(self.leaf[rows], np.repeat(moved, row_counts))
        )

    @cached_property
    def _by_bin(self) -> _ByBin:
        bins, count = self.row_bins, self.shape[0]
        rows = np.argsort(bins, kind="stable")  # those that were dropped come first
        rows_at = np.searchsorted(bins[rows], np.arange(count + 1))
        nodes_at = np.searchsorted(self.nodes.starts, np.arange(count + 1) * self.width)
        places = np.empty_like(rows)
        places[rows] = np.arange(len(rows)) - rows_at[bins[rows]]
        return _ByBin(nodes_at, np.diff(nodes_at), rows, rows_at, np.diff(rows_at), places)

    def costs(self, cost: tuple[int, int] | None = None) -> Int64s:
        """`[bins]` int64: what each bin costs, as `balance` counts it: what rows share costs once.

        Whole bins are dealt to ranks by it: `plan_steps(layout.costs(), capacity=…, ranks=…, max_segments=1,
        cost=layout.costs((a, b)))`, whose rows are then bins. See docs/forest.md, "Trees over ranks".

        Args:
            cost: None: tokens. (a, b): a row of length L costs a·L + b·L², and a node what its rows cost up
                to its end less what they do up to its beginning.

        Raises:
            OverflowError: costs add up to more than 2**63 - 1.

        Example:
            >>> from rollkit import Forest
            >>> layout = Forest.build([[1, 2, 3], [1, 2, 4], [5]]).pack(4)
            >>> layout.costs(), layout.costs((0, 1))  # 3² + 3² - 2² and 1²
            (array([4, 1]), array([14,  1]))
        """
        given: object = cost
        if given is not None and not (isinstance(given, tuple) and len(given) == 2):
            raise TypeError(f"cost must be a tuple (a, b), got {_check.shown(given)}")
        begins = self.nodes.pieces_of_rows()[1]
        try:
            each = row_costs(begins + self.nodes.lengths, cost) - row_costs(begins, cost)
            sums = _native.offsets_from_lengths(each)
        except OverflowError:
            raise OverflowError("costs add up to more than 2**63 - 1; give smaller ones") from None
        found: Int64s = np.diff(sums[self._by_bin.nodes_at])
        return found

    def _on_lines(self, begin: int, count: int) -> tuple[Int64s, TreeLayout]:
        """The rows in some bins that follow each other, and their layout there."""
        numbers = np.arange(begin, begin + count)
        return self.rows_of(numbers), self.bins(numbers)

    def _bin_numbers(self, numbers: ArrayLike) -> Int64s:
        found = _check.one_or_more_int64s("bins", numbers)
        if (odd := (found < 0) | (found >= self.shape[0])).any():
            raise IndexError(f"bin {found[odd][0]} is out of range: there are {self.shape[0]} bins")
        if len(np.unique(found)) < len(found):
            raise ValueError("bins names a bin twice; give each once")
        return found

    def equals(self, other: object) -> bool:
        """Whether `other` lays as many rows of the same lengths in the same places."""
        return (
            isinstance(other, TreeLayout)
            and self.nodes.equals(other.nodes)
            and np.array_equal(self.parents, other.parents)
            and np.array_equal(self.leaf, other.leaf)
        )

    def _filled(self, values: Int64s, out: NDArray[np.int32] | None) -> NDArray[np.int32]:
        out = self.nodes._output(out, np.int32)
        _native.fill_runs(self.nodes.starts, self.nodes.lengths, values, out=out)
        return out

    def __len__(self) -> int:
        return len(self.leaf)

    def __reduce__(self) -> tuple[Any, ...]:
        return TreeLayout, (self.nodes, self.parents, self.leaf)

    def __repr__(self) -> str:
        bins, width = self.shape
        of = f"{len(self):,} rows, {len(self.parents):,} nodes in {bins:,} × {width:,}"
        return f"TreeLayout({of}, {self.utilisation:.1%} used)".replace("%", " %")


class _ByBin(NamedTuple):
    """The nodes and rows of a layout's bins.

    Attributes:
        nodes_at: `[bins + 1]`, where the nodes of each bin begin.
        node_counts: `[bins]`, how many there are.
        rows: the rows, bin after bin, in ascending order within one.
        rows_at: `[bins + 1]`, where those of each bin begin.
        row_counts: `[bins]`, how many there are.
        places: `[rows]`, the number of each row among those of its bin.
    """

    nodes_at: Int64s
    node_counts: Int64s
    rows: Int64s
    rows_at: Int64s
    row_counts: Int64s
    places: Int64s


def _moved(numbers: Int64s, by: Int64s) -> Int64s:
    """Numbers of nodes moved, and NONE as it is."""
    return np.where(numbers == NONE, NONE, numbers + by)


class PathSpans(Laid):
    """A part of each row of a `TreeLayout`: `take` reads it; `place` cannot write what rows share in part."""

    def __init__(self, trees: TreeLayout, offsets: Int64s, starts: Int64s, lengths: Int64s) -> None:
        self.shape = trees.shape
        self._offsets, self._starts, self._lengths = offsets, starts, lengths

    @property
    def written(self) -> Layout:
        """Refused: what is a part of one row may be another part of a row that shares it."""
        raise TypeError("parts of rows that share tokens are taken, not placed; place whole rows")

    def reads(self) -> tuple[Int64s, Int64s]:
        """What `take` copies, row after row."""
        return self._starts, self._lengths

    def row_offsets(self, ends: Int64s | None = None) -> Int64s:
        """`[rows + 1]` int64: where rows begin once `take` has copied them."""
        found = _native.offsets_from_lengths(self._lengths) if ends is None else ends
        return found[self._offsets]

    def edges(self, where: Any = None) -> tuple[Any, Any]:
        """Refused: the predecessor of a part's first token is in no part."""
        raise TypeError("parts of rows have no edges; take those of the whole layout")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __repr__(self) -> str:
        bins, width = self.shape
        return f"PathSpans(parts of {len(self):,} rows in {bins:,} × {width:,})"
