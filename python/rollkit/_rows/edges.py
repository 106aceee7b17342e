"""Which tokens have a predecessor, in their own segment or the piece before, and where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit import _native
from rollkit._arrays.ops import ops
from rollkit._check import Int64s
from rollkit._frameworks import framework_of
from rollkit._rows.pieces import Pieces


def followers(layout: Pieces) -> NDArray[np.bool_]:
    """`shape` bool: the element is in a segment, and not its first one."""
    found = np.empty(layout.shape, np.uint8)
    _native.attention_mask(layout.starts, layout.lengths, layout.order, out=found)
    found.reshape(-1)[layout.starts[layout.lengths > 0]] = 0
    return found.view(bool)


def joints(layout: Pieces) -> tuple[Int64s, Int64s]:
    """Flat positions of the last tokens of pieces, and of the first ones of those that go on from them."""
    if layout.begins is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = layout._row_order
    order = order[layout.lengths[order] > 0]
    before, after = order[:-1], order[1:]
    rows = layout.pieces_of_rows()[0]
    ends = layout.begins + layout.lengths
    near = (rows[before] == rows[after]) & (ends[before] == layout.begins[after])
    before, after = before[near], after[near]
    return layout.starts[before] + layout.lengths[before] - 1, layout.starts[after]


def edges(layout: Pieces, where: Any) -> tuple[Any, Any]:
    """Flat positions of predecessors and their tokens, in memory order; see `Layout.edges`."""
    chosen = followers(layout)
    lasts, firsts = joints(layout)
    if not len(firsts):
        return chosen_edges(chosen, None, where)
    chosen.reshape(-1)[firsts] = True
    before = np.arange(-1, chosen.size - 1)
    before[firsts] = lasts
    return chosen_edges(chosen, before, where)


def chosen_edges(chosen: NDArray[np.bool_], before: Int64s | None, where: Any) -> tuple[Any, Any]:
    """The edges of those tokens that `chosen` and `where` both have.

    Args:
        chosen: `shape`; written to.
        before: flat, the predecessor of each token; None if it is the token before.
        where: see `Layout.edges`.
    """
    framework = framework_of(where)
    if where is None or framework is None:
        host = None if where is None else np.asarray(where)
    else:
        own = ops(framework)
        if own.is_traced(where):
            raise TypeError(
                "where has no values yet, and how many edges there are is the size of an array; "
                "call edges outside of jit, or leave where out and multiply by it"
            )
        host = own.to_host(where)
    if host is not None:
        if host.shape != chosen.shape:
            raise ValueError(f"where must have the layout's shape {chosen.shape}, got {host.shape}")
        chosen &= host != 0
    tokens: Int64s = np.flatnonzero(chosen)
    found = tokens - 1 if before is None else before[tokens]
    if framework is None:
        return found, tokens
    return own.from_host(found, where), own.from_host(tokens, where)
