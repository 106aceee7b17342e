"""Which rows of a batch are no routes: `route_mask`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollkit import _check
from rollkit._rows.layout import Layout
from rollkit._rows.ragged import Ragged


def route_mask(layout: Layout, valid: Ragged | ArrayLike) -> NDArray[np.bool_]:
    """Mark the rows of a batch that hold no route: padding, and what comes after a row's valid routes.

    Args:
        layout: where rows are: `batch.layout`, or `Layout.concat(nodes.lengths)` of split routes.
        valid: the column of routes that was placed, or `[rows]` ints: how many routes each row has.

    Returns:
        `layout.shape` bool, True where the model must choose by itself (or the loss must not look).

    Raises:
        ValueError: a row has more routes than tokens.

    The rule is that of SkyRL's router padding mask.

    Example:
        >>> route_mask(Layout.pad([3, 2]), [2, 2])
        array([[False, False,  True],
               [ True, False, False]])
    """
    if not isinstance(layout, Layout):
        raise TypeError(f"layout must be a Layout, got {type(layout).__name__}")
    counts = valid.lengths if isinstance(valid, Ragged) else _check.lengths("valid", valid)
    if len(counts) != len(layout):
        raise ValueError(f"valid has {len(counts)} rows, the layout has {len(layout)}")
    if (odd := counts > layout.row_lengths).any():
        row = int(odd.argmax())
        raise ValueError(f"row {row} has {counts[row]} routes for {layout.row_lengths[row]} tokens")
    mask: NDArray[np.bool_] = layout.spans(0, counts).attention_mask().view(bool)
    np.logical_not(mask, out=mask)
    return mask
