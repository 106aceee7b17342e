"""Batches in which what rollouts share of their beginnings is once: `pack(share_prefixes=True)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Unpack, cast

import numpy as np
from numpy.typing import DTypeLike

from rollkit._batch.batch import Batch
from rollkit._batch.fill import PACKED, Filling, buffer
from rollkit._batch.unlike import warn_of_unlike
from rollkit._errors import refusal
from rollkit._rollouts.forest import Forest
from rollkit._rollouts.names import Names, check_shared_names, renamed
from rollkit._rollouts.sources import Sources
from rollkit._rows.binpack import DEFAULTS, Packing
from rollkit._rows.layout import Layout
from rollkit._rows.ragged import trusted
from rollkit._rows.trees import TreeLayout

IN_TREES: Final = ("input_ids", "positions")
"""The arrays that are written as nodes; all others that a batch makes of its columns are rows."""

OF_TREES: Final = ("segment_ids", "visible_until", "multiplicity")
"""The arrays, int32, that are read off the trees."""


def planned_trees(
    sources: Sources,
    capacity: int | None,
    layout: object,
    bins: int | None,
    groups: Any,
    match: Any,
    **packing: Unpack[Packing],
) -> TreeLayout:
    """Where rollouts go that share their beginnings."""
    if layout is not None:
        raise TypeError("share_prefixes=True makes its own layout; give a capacity in place of the layout")
    if capacity is None:
        raise TypeError("pack needs a capacity")
    for name, why in (
        ("algorithm", "has one algorithm"),
        ("order", "has one order of bins; batch.layout.bins(numbers) lays them in any"),
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


def fill_shared(
    sources: Sources,
    layout: TreeLayout,
    pad_id: int,
    fills: Mapping[str, Any] | None,
    dtypes: Mapping[str, DTypeLike] | None,
    out: Batch | None,
    names: Names,
) -> Batch:
    """The arrays of trees, and the columns of rows; see `pack`."""
    if out is not None and not isinstance(out, Batch):
        raise TypeError(f"out must be a Batch, got {type(out).__name__}")
    check_shared_names(names)
    for name in (*OF_TREES, "predecessors"):
        if name in sources.tokens or name in sources.rows:
            text = "a batch that shares prefixes makes this array itself; rename or leave out the column"
            raise refusal(ValueError, text, column=name)
    spare = {} if out is None else out._memory
    filling = Filling.of(sources, pad_id, fills, dtypes, PACKED)
    made, memory = filling.only(IN_TREES).write(layout.nodes, spare)
    for name in OF_TREES:
        made[name] = getattr(layout, name)(buffer(memory, name, layout.nodes, np.int32, (), spare))
    made["predecessors"] = layout.predecessors()
    per_token = filling.without((*IN_TREES, *PACKED, *sources.rows))
    columns, more = per_token.write(_whole(layout), spare)
    offsets = layout.row_offsets()
    rows = sources.rows | {name: trusted(found, offsets) for name, found in columns.items()}
    laid = cast(Layout, layout)  # what a batch asks of its layout, both answer
    return Batch(renamed(made, laid, names), laid, sources.prompt_lengths, rows, memory | more, columns)


def _whole(layout: TreeLayout) -> Layout:
    """Rows end to end, as far as they are placed."""
    ends = layout.row_offsets()
    return Layout._trusted((int(ends[-1]),), ends[:-1], np.diff(ends), layout.row_lengths)
