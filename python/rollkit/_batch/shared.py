"""Batches in which what rollouts share of their beginnings is once: `pack(share_prefixes=True)`."""

from __future__ import annotations

from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Unpack

import numpy as np
from numpy.typing import DTypeLike

from rollkit._arrays.ops import ops_of
from rollkit._batch.batch import Batch, spare_of
from rollkit._batch.fill import PACKED, Filling, buffer
from rollkit._batch.plan import check_alone, check_rows
from rollkit._batch.unlike import warn_of_unlike
from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._frameworks import AnyArray
from rollkit._rollouts.columns import take_column
from rollkit._rollouts.forest import Forest
from rollkit._rollouts.names import Names, check_shared_names, renamed
from rollkit._rollouts.other_masks import warn_of_other_masks
from rollkit._rollouts.sources import Sources
from rollkit._rows.binpack import DEFAULTS, Packing
from rollkit._rows.layout import Layout
from rollkit._rows.place import take
from rollkit._rows.ragged import trusted
from rollkit._rows.trees import TreeLayout

IN_TREES: Final = ("input_ids", "positions")
"""The arrays that are written as nodes; all others that a batch makes of its columns are rows."""

OF_TREES: Final = ("segment_ids", "visible_until", "multiplicity", "predecessors")
"""The arrays that are read off the trees."""

_NOTHING: Final[Mapping[str, AnyArray]] = MappingProxyType({})


def planned_trees(
    called: str,
    sources: Sources,
    capacity: int | None,
    layout: object,
    bins: int | None,
    groups: Any,
    match: Any,
    **packing: Unpack[Packing],
) -> TreeLayout:
    """Where rollouts go that share their beginnings; of a layout made before, tokens are still to check."""
    if layout is not None:
        return _made_before(called, sources, layout, groups, match, capacity, bins, packing)
    if capacity is None:
        raise TypeError(f"{called} needs a capacity, or a layout")
    for name, why in (
        ("algorithm", "has one algorithm"),
        ("order", "has one order of bins; layout.bins(numbers) lays them in any"),
        ("seed", "has one order of bins"),
    ):
        if packing[name] != DEFAULTS[name]:  # type: ignore[literal-required]
            raise ValueError(f"share_prefixes=True {why}; leave {name} out")
    forest = Forest._of_sources(sources, groups, match)
    warn_of_unlike(sources, forest, groups, match)
    trees = forest.pack(
        capacity,
        align=packing["align"],
        bins=bins,
        bins_multiple_of=packing["bins_multiple_of"],
        max_segments=packing["max_segments"],
        oversize=packing["oversize"],
    )
    if packing["oversize"] == "truncate":
        sources.check_cut(_whole(trees))
    return trees


def _made_before(
    called: str,
    sources: Sources,
    layout: object,
    groups: Any,
    match: Any,
    capacity: int | None,
    bins: int | None,
    packing: Packing,
) -> TreeLayout:
    """A layout of these rollouts, if it is one by their lengths."""
    if not isinstance(layout, TreeLayout):
        raise TypeError(
            f"share_prefixes=True takes a TreeLayout, got {type(layout).__name__}; Forest.pack makes one"
        )
    check_alone(called, capacity, bins, packing)
    for name, given in (("groups", groups), ("match", match)):
        if given is not None and not (isinstance(given, list | tuple) and not given):
            raise TypeError(f"{called} takes {name} or a layout, not both: a TreeLayout says what is shared")
    check_rows(sources, layout)
    return layout


class SharedFilling(NamedTuple):
    """What a batch that shares prefixes is made of: ready to be written to any `TreeLayout` of these rows.

    Attributes:
        nodes: what is written once for all rows that share it.
        tokens: the columns that are rows with an element per token.
        rows: the columns with an entry per row.
    """

    nodes: Filling
    tokens: Filling
    rows: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        sources: Sources,
        pad_id: int,
        fills: Mapping[str, Any] | None,
        dtypes: Mapping[str, DTypeLike] | None,
    ) -> SharedFilling:
        """Prepare all arrays of a batch; see `pack`."""
        for name in OF_TREES:
            if name in sources.tokens or name in sources.rows:
                text = "a batch that shares prefixes makes this array itself; rename or leave out the column"
                raise refusal(ValueError, text, column=name)
        warn_of_other_masks(sources.names)
        filling = Filling.of(sources, pad_id, fills, dtypes, PACKED)
        tokens = filling.without((*IN_TREES, *PACKED, *sources.rows))
        return cls(filling.only(IN_TREES), tokens, sources.rows)

    @property
    def per_token(self) -> tuple[str, ...]:
        """The names of the columns that are rows with an element per token."""
        return self.tokens.names

    def in_one(self) -> SharedFilling:
        """The same, ready to `pick` from."""
        return SharedFilling(self.nodes.in_one(), self.tokens.in_one(), self.rows)

    def pick(self, rows: Int64s) -> SharedFilling:
        """The same of some of the rows."""
        entries = {name: take_column(column, rows) for name, column in self.rows.items()}
        return SharedFilling(self.nodes.pick(rows), self.tokens.pick(rows), entries)

    def write(
        self,
        layout: TreeLayout,
        wanted: Container[str] | None = None,
        spare: Mapping[str, AnyArray] = _NOTHING,
    ) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """The arrays, or those that are wanted, and their flat memory."""
        nodes = self.nodes if wanted is None else self.nodes.only(wanted)
        made, memory = nodes.write(layout.nodes, spare)
        for name in OF_TREES:
            if wanted is None or name in wanted:
                dtype = np.int64 if name == "predecessors" else np.int32
                made[name] = getattr(layout, name)(buffer(memory, name, layout.nodes, dtype, (), spare))
        return made, memory

    def columns(
        self, layout: TreeLayout, spare: Mapping[str, AnyArray] = _NOTHING
    ) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """The columns of rows, and the memory of those per token."""
        columns, memory = self.tokens.write(_whole(layout), spare)
        offsets = layout.row_offsets()
        return {**self.rows, **{name: trusted(x, offsets) for name, x in columns.items()}}, memory

    def check(self, layout: TreeLayout, rows: Int64s | None = None) -> None:
        """Refuse rows that differ where a layout has them share a token.

        Args:
            layout: of these rows.
            rows: what they are called; as they are numbered, by default.
        """
        tokens = self.nodes.only(("input_ids",))
        placed, wanted = (tokens.write(where)[0]["input_ids"] for where in (layout.nodes, _whole(layout)))
        own, found = ops_of(wanted), take(placed, layout).flat
        odd = own.to_host(found) != own.to_host(wanted)
        if not odd.any():
            return
        odd = odd.any(axis=tuple(range(1, odd.ndim)))
        element, ends = int(odd.argmax()), layout.row_offsets()
        row = int(np.searchsorted(ends, element, side="right")) - 1
        text = " differs from what another row has at a token that they share: the layout is of other rows"
        called = row if rows is None else int(rows[row])
        raise refusal(ValueError, text, row=called, position=element - int(ends[row]))


def fill_shared(
    sources: Sources,
    layout: TreeLayout,
    pad_id: int,
    fills: Mapping[str, Any] | None,
    dtypes: Mapping[str, DTypeLike] | None,
    out: Batch | None,
    names: Names,
    check: bool = False,
) -> Batch:
    """The arrays of trees, and the columns of rows; see `pack`."""
    spare = spare_of(out)
    check_shared_names(names)
    filling = SharedFilling.of(sources, pad_id, fills, dtypes)
    if check:
        filling.check(layout)
    made, memory = filling.write(layout, None, spare)
    rows, more = filling.columns(layout, spare)
    arrays = renamed(made, layout, names)
    return Batch(arrays, layout, sources.prompt_lengths, rows, memory | more, filling.per_token)


def _whole(layout: TreeLayout) -> Layout:
    """Rows end to end, as far as they are placed."""
    ends = layout.row_offsets()
    return Layout._trusted((int(ends[-1]),), ends[:-1], np.diff(ends), layout.row_lengths)
