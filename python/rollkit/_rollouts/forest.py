"""What rollouts share of their beginnings: `Forest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check, _native
from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._frameworks import is_array
from rollkit._rollouts.groups import Groups
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.sources import Source, Sources, on_host
from rollkit._rows.arrow import is_arrow
from rollkit._rows.binpack import check_bins, multiple_of_bins
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts
from rollkit._rows.place import Column, parts_of
from rollkit._rows.ragged import Ragged
from rollkit._rows.trees import NONE, TreeLayout

OVERSIZE: Final = ("raise", "truncate", "alone", "drop")


@dataclass(frozen=True, eq=False, repr=False)
class Forest:
    """Rows as trees of nodes: every token that rows share is in one node. `Forest.build` makes one.

    Nodes are depth first: parents before children, and these in the order of their first rows. A row is the
    path to its leaf. Two rows are on one path exactly as far as they share tokens.

    Attributes:
        parents: `[nodes]` int64: the node that each goes on from, -1 for a root.
        begins: `[nodes]` int64: where each begins in its rows: where its parent ends.
        ends: `[nodes]` int64: where each ends in its rows.
        source_rows: `[nodes]` int64: the first row that has it.
        leaf: `[rows]` int64: the node that each row ends with, -1 for an empty row.

    Example:
        >>> forest = Forest.build([[5, 6, 7], [5, 6, 8, 9], [4]])
        >>> forest
        Forest(3 rows, 4 nodes: 6 of 8 tokens)
        >>> forest.parents.tolist(), forest.begins.tolist(), forest.ends.tolist(), forest.leaf.tolist()
        ([-1, 0, 0, -1], [0, 2, 2, 0], [2, 3, 4, 1], [1, 2, 3])
    """

    parents: Int64s
    begins: Int64s
    ends: Int64s
    source_rows: Int64s
    leaf: Int64s

    def __post_init__(self) -> None:
        for name in ("parents", "begins", "ends", "source_rows", "leaf"):
            object.__setattr__(self, name, _check.int64s(name, getattr(self, name)))
        _native.check_forest(*self._nodes)
        if len(self.source_rows) != self.nodes:
            raise ValueError(f"source_rows has {len(self.source_rows)} rows, parents has {self.nodes}")
        if (odd := (self.source_rows < 0) | (self.source_rows >= self.rows)).any():
            node = int(odd.argmax())
            raise ValueError(f"node {node} is of row {self.source_rows[node]}; there are {self.rows} rows")
        self._check_rows()

    def _check_rows(self) -> None:
        """Refuse nodes of no row, or of another than they say, and more tokens than an int64 counts."""
        _native.offsets_from_lengths(self.row_lengths)
        lengths = self.ends - self.begins
        places = _native.offsets_from_lengths(lengths)
        starts, width = places[:-1], max(int(places[-1]), 1)
        below, rows, _ = _native.read_forest(self.parents, starts, lengths, self.leaf, width=width)
        if (none := rows == 0).any():
            raise ValueError(f"node {int(none.argmax())} is of no row: none ends in or below it")
        leaf = self.leaf[self.source_rows]
        at = starts[leaf]
        if (odd := (leaf == NONE) | (at < starts) | (at >= below)).any():
            node = int(odd.argmax())
            raise ValueError(
                f"node {node} is of row {self.source_rows[node]}, which does not end in or below it"
            )

    @classmethod
    def build(
        cls,
        rows: Column | Source | Sequence[Source],
        *,
        groups: str | ArrayLike | Sequence[Any] | None = None,
        match: str | Sequence[Any] = (),
        min_shared: int = 1,
    ) -> Forest:
        """Find what rows share of their beginnings.

        Args:
            rows: rows of token ids, as `place` takes them, or rollouts: a row is prompt and response then.
            groups: an entry per row, or the column that has them: only rows of one group share tokens.
            match: further columns that must be the same, bit for bit, for a token to be shared, as routes or
                ids of images. Names, of columns per token of prompt and response; of rows, the columns.
            min_shared: rows with fewer first tokens in common share none.

        Each shared part is compared once, by bytes, where it is: the time is that of reading it.

        Raises:
            ValueError: `groups` or a column of `match` has other rows; the message names the first.
            TypeError: token ids are no integers.

        Example:
            >>> Forest.build([[5, 6], [5, 7]], groups=["a", "b"]).unique
            4
            >>> Forest.build({"prompt_token_ids": [[1, 2], [1, 2]], "response_ids": [[3], [4]]}).unique
            4
        """
        if _is_rollouts(rows):
            return cls._of_sources(Sources.of(rows), groups, match, min_shared)  # type: ignore[arg-type]
        tokens = _tokens(parts_of(rows))  # type: ignore[arg-type]
        columns = [(tokens,), *(_column(i, column, tokens) for i, column in enumerate(_matches(match)))]
        if isinstance(groups, str):
            raise TypeError(f"groups is {groups!r}, but the rows have no columns; give an entry per row")
        return cls._of_columns(columns, groups, min_shared)

    @classmethod
    def _of_sources(cls, sources: Sources, groups: Any, match: Any, min_shared: int = 1) -> Forest:
        """Find what rollouts share, which are in the order of their sources."""
        columns = [_sequences(sources), *(_matched(sources, name) for name in _matches(match))]
        if isinstance(groups, str):
            groups = _entries(sources, groups)
        return cls._of_columns(columns, groups, min_shared)

    @classmethod
    def _of_columns(cls, columns: Sequence[tuple[Parts, ...]], groups: Any, min_shared: int) -> Forest:
        min_shared = _check.positive("min_shared", min_shared)
        count = len(columns[0][0].lengths)
        found = _native.build_forest(
            [_as_kernel(column) for column in columns if 0 not in column[0].inner],
            groups=None if groups is None else _group_ids(groups, count),
            min_shared=min_shared,
        )
        return cls._trusted(*found)

    @classmethod
    def _trusted(
        cls, parents: Int64s, begins: Int64s, ends: Int64s, source_rows: Int64s, leaf: Int64s
    ) -> Forest:
        """Make a forest of what is known to be one."""
        forest = object.__new__(cls)
        vars(forest).update(parents=parents, begins=begins, ends=ends, source_rows=source_rows, leaf=leaf)
        return forest

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.leaf)

    @property
    def nodes(self) -> int:
        """How many nodes there are; fewer than twice as many as rows."""
        return len(self.parents)

    @property
    def tokens(self) -> int:
        """The tokens of all rows."""
        return int(self.row_lengths.sum())

    @property
    def unique(self) -> int:
        """The tokens of all nodes: what is left where each shared one counts once."""
        return int((self.ends - self.begins).sum())

    @property
    def row_lengths(self) -> Int64s:
        """`[rows]` int64: the tokens of each row."""
        if not self.nodes:
            return np.zeros_like(self.leaf)
        return np.where(self.leaf < 0, 0, self.ends[self.leaf])

    @property
    def _nodes(self) -> tuple[Int64s, Int64s, Int64s, Int64s]:
        return self.parents, self.begins, self.ends, self.leaf

    def lower_bound(self, capacity: int) -> tuple[int, int]:
        """How many bins of `capacity` the rows take at least, and how many tokens, each once for its bins.

        Example:
            >>> Forest.build([[1, 2, 3], [1, 2, 4, 5]]).lower_bound(4)
            (2, 7)
        """
        return _native.forest_bound(*self._nodes, capacity=_check.positive("capacity", capacity))

    def saving(self, cost: tuple[float, float] = (24576, 1)) -> float:
        """How many times less a model computes of the forest than of its rows.

        Args:
            cost: (a, b): a row of length L costs a·L + b·L². For dense attention a : b is about six times the
                model's hidden size: 24576 at 4096.

        Example:
            >>> forest = Forest.build([[1, 2, 3], [1, 2, 4]])
            >>> forest.saving((1, 0)), round(forest.saving((0, 1)), 3)
            (1.5, 1.286)
        """
        try:
            a, b = (float(_check.number(f"cost[{i}]", part)) for i, part in enumerate(cost))
        except (TypeError, ValueError):
            raise TypeError(
                f"cost must be two numbers, (per token, per token squared), got {cost!r}"
            ) from None
        if not (a >= 0 and b >= 0 and np.isfinite(a + b) and a + b > 0):
            raise ValueError(f"cost must be two numbers of 0 or more, not both 0, got {cost!r}")
        lengths, ends, begins = (x.astype(np.float64) for x in (self.row_lengths, self.ends, self.begins))
        whole = a * lengths.sum() + b * (lengths**2).sum()
        # A token at depth d attends to d tokens, so a node to what its rows do less what its parent does.
        shared = a * (ends - begins).sum() + b * (ends**2 - begins**2).sum()
        return float(whole / shared) if shared else 1.0

    def pack(
        self,
        capacity: int,
        *,
        align: int = 1,
        bins_multiple_of: int = 1,
        bins: int | None = None,
        max_segments: int | None = None,
        oversize: str = "raise",
    ) -> TreeLayout:
        """Lay the rows in bins of `capacity` tokens: each in one bin, in which what rows share is once.

        What is under a node is put together from below, the largest first (first fit decreasing), and bins
        are then emptied into others while that goes; where first fit in the order of the trees takes fewer
        bins, or as many and fewer tokens, that is taken. Without shared tokens it is `Layout.pack`'s
        `"first_fit_decreasing"` with a second look.

        Args:
            capacity: elements of a bin.
            align: each tree starts at a multiple of this within its bin.
            bins_multiple_of: empty bins are added up to a multiple of this (data-parallel ranks).
            bins: exactly so many bins, empty ones at the end; `bins_multiple_of` is left out then.
            max_segments: at most that many trees in a bin.
            oversize: what becomes of a row longer than `capacity`, as in `Layout.pack`: `"raise"`,
                `"truncate"`, `"alone"` or `"drop"`.

        Example:
            >>> layout = Forest.build([[1, 2, 3], [1, 2, 4, 5]]).pack(4)
            >>> layout, layout.row_bins
            (TreeLayout(2 rows, 4 nodes in 2 × 4, 87.5 % used), array([1, 0]))
        """
        multiple = multiple_of_bins(bins, bins_multiple_of)
        options: dict[str, Any] = {
            "capacity": _check.positive("capacity", capacity),
            "align": _check.positive("align", align),
            "max_segments": None if max_segments is None else _check.positive("max_segments", max_segments),
            "oversize": _check.choice("oversize", oversize, OVERSIZE),
        }
        found, count, width = _native.pack_forest(*self._nodes, bins_multiple_of=multiple, **options)
        if bins is not None and count != multiple:
            needed = _native.pack_forest(*self._nodes, bins_multiple_of=1, **options)[1]
            check_bins(multiple, needed, width)
            count = multiple  # there is no row
        parents, starts, lengths, sources, begins, leaf = found
        nodes = Layout._trusted((count, width), starts, lengths, self.row_lengths, None, sources, begins)
        return TreeLayout._trusted(nodes, parents, leaf)

    def equals(self, other: object) -> bool:
        """Whether `other` has the same nodes and rows."""
        fields = ("parents", "begins", "ends", "source_rows", "leaf")
        return isinstance(other, Forest) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in fields
        )

    def __len__(self) -> int:
        return self.rows

    def __reduce__(self) -> tuple[Any, ...]:
        return Forest, (self.parents, self.begins, self.ends, self.source_rows, self.leaf)

    def __repr__(self) -> str:
        return f"Forest({self.rows:,} rows, {self.nodes:,} nodes: {self.unique:,} of {self.tokens:,} tokens)"


def _is_rollouts(rows: Any) -> bool:
    """Whether these are rollouts, and not rows of tokens."""
    first = rows[0] if isinstance(rows, list | tuple) and len(rows) else rows
    if isinstance(first, Ragged):
        return False
    return isinstance(first, Rollouts | Mapping) or is_arrow(first)


def _matches(match: Any) -> Sequence[Any]:
    """What must agree, one or several."""
    return _check.items("match", [match] if isinstance(match, str | Ragged) else match)


def _sequences(sources: Sources) -> tuple[Parts, ...]:
    """Prompts and responses as halves of one column."""
    with at(column=sources.main):
        responses = _tokens(sources.responses)
    if sources.prompts is None:
        return (responses,)
    with at(column="prompt_token_ids"):
        prompts = _tokens(sources.prompts)
    if prompts.dtype != responses.dtype:
        dtype = np.result_type(prompts.dtype, responses.dtype)
        dtype = dtype if dtype.kind in "iu" else np.dtype(np.int64)  # NumPy makes float64 of int64 and uint64
        prompts, responses = prompts.astype(dtype), responses.astype(dtype)
    return prompts, responses


def _tokens(parts: Parts) -> Parts:
    """Rows of token ids, in the host's memory."""
    found = on_host(parts).parts() if parts.own is not None else parts
    if found.of_lists or found.inner or (found.dtype.kind not in "iu" and found.lengths.any()):
        kind = "lists" if found.of_lists else found.dtype
        raise TypeError(
            f"rows must hold token ids, one integer each, got {kind} of inner shape {found.inner}"
        )
    return found


def _matched(sources: Sources, name: Any) -> tuple[Parts, ...]:
    """A column of rollouts that must agree where tokens are shared."""
    if not isinstance(name, str):
        raise TypeError(f"match names columns of the rollouts, got {type(name).__name__}")
    if name not in sources.tokens:
        raise ValueError(f"match names {name!r}, which is no column per token of the rollouts")
    if (level := sources.level(name)) != "sequence":
        raise ValueError(f"match names {name!r}, which is per {level} token; it must be per token of both")
    with at(column=name):
        return (_comparable(sources.tokens[name]),)


def _column(index: int, column: Any, tokens: Parts) -> tuple[Parts, ...]:
    """A column that must agree where tokens of rows are shared."""
    if isinstance(column, str):
        raise TypeError(f"match[{index}] is {column!r}, but the rows have no columns; give the column itself")
    with at(column=f"match[{index}]", label=f"match[{index}]"):
        found = _comparable(parts_of(column))
    if len(found.lengths) != len(tokens.lengths):
        raise ValueError(f"match[{index}] has {len(found.lengths)} rows, there are {len(tokens.lengths)}")
    if (odd := found.lengths > tokens.lengths).any():
        row = int(odd.argmax())
        text = f" has {found.lengths[row]} elements, the row has {tokens.lengths[row]} tokens"
        raise refusal(ValueError, text, column=f"match[{index}]", label=f"match[{index}]", row=row)
    return (found,)


def _comparable(parts: Parts) -> Parts:
    if parts.of_lists:
        raise TypeError("a list per token cannot be compared; give numbers")
    return on_host(parts).parts() if parts.own is not None else parts


def _entries(sources: Sources, name: str) -> Any:
    if name not in sources.rows:
        raise ValueError(f"groups names {name!r}, which is no column per row of the rollouts")
    return sources.ordered(sources.rows[name])


def _group_ids(groups: Any, count: int) -> Int64s:
    """Numbers that are the same where groups are: the groups themselves, if they are numbers in an array."""
    numbers = _check.host("groups", groups) if is_array(groups) else None
    if numbers is not None and numbers.ndim == 1 and numbers.dtype.kind in "iu":
        ids = np.ascontiguousarray(numbers.astype(np.int64))  # uint64 of 2**63 and up are the negative ones
    else:
        ids = Groups.by(groups, called="groups").ids
    if len(ids) != count:
        raise ValueError(f"groups has {len(ids)} entries, there are {count} rows")
    return ids


def _as_kernel(column: Sequence[Parts]) -> tuple[int, list[tuple[Any, Int64s]]]:
    return prod(column[0].inner), [(parts.buffers, parts.lengths) for parts in column]
