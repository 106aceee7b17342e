"""Routes of a context to those of its nodes: `split_routes`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rollkit._check import Int64s, flag, lengths, positive
from rollkit._frameworks import AnyArray
from rollkit.routing._final import final_row
from rollkit.routing._payload import Payload


class NodeRoutes(list[AnyArray | None]):
    """Routes of each node, `[tokens, layers, topk]` or `None`: a list that knows more.

    Attributes:
        lengths: `[nodes]` int64, the tokens of each node.
        valid: `[nodes]` int64, the rows that the engine sent for it, which come first.
    """

    def __init__(self, rows: Iterable[AnyArray | None], lengths: Int64s, valid: Int64s) -> None:
        super().__init__(rows)
        self.lengths = lengths
        self.valid = valid

    def __reduce__(self) -> tuple[Any, ...]:
        return NodeRoutes, (list(self), self.lengths, self.valid)


def split_routes(
    routes: AnyArray | Mapping[str, Any],
    node_lengths: ArrayLike,
    *,
    start: int = 0,
    final: str | None = "repeat",
    num_experts: int | None = None,
    copy: bool = True,
) -> NodeRoutes:
    """Give each node of a sequence its rows, decoding no others.

    Nodes are next to each other from position `start` on. A node that the payload does not cover, or
    covers in part, has no rows: `None`, as has one without tokens. The one exception is the last node with
    tokens, where it ends exactly one row beyond the payload, as an engine has no routes for the last token.

    Args:
        routes: an array `[rows, layers, topk]` whose first row is position 0, or a payload (see
            `decode_routes`) whose first row is position `payload["start"]`.
        node_lengths: `[nodes]` ints, the tokens of each node.
        start: the position of the first node: the tokens whose routes are known from turns before.
        final: what the missing row of the last token holds: `"repeat"` the row before, `"zeros"`,
            `"arange"` (0 … topk - 1 in every layer), `"cycle"` (0, 1, … over all layers and on from row to
            row, modulo `num_experts`: a sequence begins with 0), `"sentinel"` (-1); with `None` the node
            has one row less than it has tokens.
        num_experts: for `"cycle"`.
        copy: each node's rows in memory of its own, which keeps neither the payload nor the other nodes
            alive. Else they are views of the array, or of what was decoded.

    Returns:
        A list of arrays and `None`, with `.valid`: how many rows of each node the engine sent.

    Raises:
        ValueError: malformed base64, a shape that is not the data's, a policy that is unknown.
        TypeError: routes that are no integers.
        OverflowError: the dtype does not hold what `final` writes.

    The rule is that of verifiers' `_attribute_routed_experts` (pull request 1794).

    Example:
        >>> import numpy as np
        >>> routes = np.arange(8).reshape(4, 1, 2)
        >>> nodes = split_routes(routes, [2, 0, 1], start=2)
        >>> [None if rows is None else rows.tolist() for rows in nodes]
        [[[[4, 5]], [[6, 7]]], None, [[[6, 7]]]]
        >>> nodes.valid
        array([2, 0, 0])
    """
    payload = Payload.of(routes)
    tokens = lengths("node_lengths", node_lengths)
    counts = tokens.tolist()  # nodes are few: a loop over ints is faster than arrays of them
    first = positive("start", start, least=0) - payload.start
    last = max(start + sum(counts) - 1, 0)
    fill = final_row(final, payload.dtype, payload.inner, num_experts, last)
    end = first + sum(counts)
    short = end == payload.rows + 1 and (payload.rows > 0 or final != "repeat")
    rows = _Rows(payload, flag("copy", copy), max(first, 0))
    nodes: list[AnyArray | None] = []
    valid: list[int] = []
    for count in counts:
        known = 0
        found = None
        if count and first >= 0 and first + count <= payload.rows:
            known = count
            found = rows.of(first, count)
        elif count and first >= 0 and first + count == end and short:
            known = count - 1
            found = rows.of(first, known) if final is None else rows.filled(first, count, fill)
        nodes.append(found)
        valid.append(known)
        first += count
    return NodeRoutes(nodes, tokens, np.array(valid, np.int64))


class _Rows:
    """Rows of a payload: copies, or views of what is decoded once, from the row `first` on."""

    def __init__(self, payload: Payload, copy: bool, first: int) -> None:
        self._payload, self._first = payload, min(first, payload.rows)
        self._shared = None if copy else payload.view(self._first, payload.rows)

    def of(self, begin: int, count: int) -> AnyArray:
        if self._shared is not None:
            return self._shared[begin - self._first : begin - self._first + count]
        rows = np.empty((count, *self._payload.inner), self._payload.dtype)
        self._payload.read(begin, rows)
        return rows

    def filled(self, begin: int, count: int, fill: AnyArray | None) -> AnyArray:
        """All rows but the last, and then the fill or the row before."""
        rows = np.empty((count, *self._payload.inner), self._payload.dtype)
        self._payload.read(begin, rows[:-1])
        if fill is not None:
            rows[-1] = fill
        elif count > 1:
            rows[-1] = rows[-2]
        else:
            self._payload.read(begin - 1, rows)
        return rows
