"""Routes of nodes to those of a sequence: `join_routes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rollkit._check import checked_out, items
from rollkit._frameworks import AnyArray, as_array
from rollkit._rows.layout import Layout
from rollkit._rows.parts import place_parts
from rollkit._rows.place import parts_of
from rollkit.routing._payload import Payload
from rollkit.routing._split import NodeRoutes


def join_routes(parts: Sequence[AnyArray | None], *, out: AnyArray | None = None) -> AnyArray | None:
    """Join the routes of nodes, end to end, in one write.

    Args:
        parts: arrays `[tokens, layers, topk]`. Where dtypes differ, the result has one that holds all.
            `None` stands for a node without tokens if this is what `split_routes` returned; it knows which
            those are. In any other list a `None` is a node whose routes are missing.
        out: an array to write to.

    Returns:
        `[total, layers, topk]` in memory of its own; `None` if a node with tokens has no routes, for
        rows beyond it would stand beside the wrong tokens.

    Raises:
        ValueError: there is no array, or inner shapes differ.

    Example:
        >>> import numpy as np
        >>> from rollkit.routing import split_routes
        >>> nodes = split_routes(np.zeros((5, 2, 4), np.uint8), [2, 0, 4])
        >>> join_routes(nodes).shape
        (6, 2, 4)
        >>> join_routes([nodes[0], None]) is None
        True
    """
    if not isinstance(parts, NodeRoutes):
        parts = items("parts", parts)
    empty = parts.lengths == 0 if isinstance(parts, NodeRoutes) else [False] * len(parts)
    arrays: list[AnyArray] = []
    for part, nothing in zip(parts, empty, strict=True):
        if part is not None:
            arrays.append(as_array(part))
        elif not nothing:
            return None
    if not arrays:
        raise ValueError("parts has no routes; join_routes needs at least one array")
    for i, array in enumerate(arrays):
        if (inner := Payload.of(array).inner) != arrays[0].shape[1:]:
            raise ValueError(f"array {i} has inner shape {inner}, the first has {arrays[0].shape[1:]}")
    dtype = common_dtype(*(array.dtype for array in arrays))
    joined = parts_of([np.ascontiguousarray(array).astype(dtype, copy=False) for array in arrays])
    layout = Layout.concat(joined.lengths)
    if out is not None:
        out = checked_out(out, (layout.size, *joined.inner), dtype)
    found: AnyArray = place_parts(joined, layout, 0, out=out)
    return found


def common_dtype(*dtypes: np.dtype[Any]) -> np.dtype[Any]:
    """The integer dtype that holds the ids of all."""
    found = np.result_type(*dtypes)
    if found.kind not in "iu":
        raise TypeError(f"no integer dtype holds the ids of {' and '.join(map(str, dtypes))}")
    return found
