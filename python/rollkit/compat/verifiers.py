"""Routes of experts for the traces of verifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rollkit.routing import split_routes
from rollkit.routing._payload import Payload


def attribute_routed_experts(
    trace: Any,
    new_node_ids: Sequence[int],
    path_len: int,
    payload: Mapping[str, Any] | None,
    *,
    prefix_node_ids: Sequence[int] = (),
) -> None:
    """Set `routed_experts` of a turn's new nodes, decoding their rows and no others.

    A node that the payload does not cover keeps what it has; the last one, where it ends one row beyond the
    payload, has its last row twice. A `None` payload changes nothing.

    Args:
        trace: has `nodes`, each with `token_ids`, `routed_experts` and (those of the prefix) `sampled`.
        new_node_ids: the turn's nodes, in order.
        path_len: the tokens before them.
        payload: `{data, shape, start}` and, unless uint8, `dtype`; see `rollkit.routing.decode_routes`.
        prefix_node_ids: the nodes before them, as verifiers passes since it mends them: the last one with
            tokens, if it was sampled, has a stand-in for its last row, which the payload may know.

    Raises:
        ValueError: malformed base64, or a shape that is not the data's.

    Follows verifiers' `_attribute_routed_experts` (`verifiers/v1/graph.py`), which has its name and order of
    arguments here too.

    Example:
        >>> from types import SimpleNamespace as Node
        >>> trace = Node(nodes=[Node(token_ids=[5, 6]), Node(token_ids=[7, 8])])
        >>> payload = {"data": "AAECAwQF", "shape": [3, 1, 2], "start": 0}
        >>> attribute_routed_experts(trace, [1], 2, payload)
        >>> trace.nodes[1].routed_experts.tolist()
        [[[4, 5]], [[4, 5]]]
    """
    if payload is None:
        return
    found = Payload.of(payload)
    nodes = [trace.nodes[node] for node in new_node_ids]
    split = split_routes(payload, [len(node.token_ids) for node in nodes], start=path_len)
    _mend([trace.nodes[node] for node in prefix_node_ids], found, path_len - found.start)
    for node, rows in zip(nodes, split, strict=True):
        if rows is not None:
            node.routed_experts = rows


def _attribute_routed_experts(
    trace: Any,
    prefix_node_ids: Sequence[int],
    new_node_ids: Sequence[int],
    path_len: int,
    payload: Mapping[str, Any] | None,
) -> None:
    """`attribute_routed_experts` with the name and the order of arguments of verifiers 0.4.0.

    Args:
        trace: see `attribute_routed_experts`, as for all others.
        prefix_node_ids: the nodes before the turn's.
        new_node_ids: the turn's nodes.
        path_len: the tokens before them.
        payload: `{data, shape, start}` and, unless uint8, `dtype`, or `None`.

    Source: `verifiers.v1.graph._attribute_routed_experts`.

    Example:
        >>> from types import SimpleNamespace as Node
        >>> trace = Node(nodes=[Node(token_ids=[5, 6], sampled=False), Node(token_ids=[7, 8])])
        >>> payload = {"data": "AAECAwQF", "shape": [3, 1, 2], "start": 0}
        >>> _attribute_routed_experts(trace, [0], [1], 2, payload)
        >>> trace.nodes[1].routed_experts.tolist()
        [[[4, 5]], [[4, 5]]]
    """
    attribute_routed_experts(trace, new_node_ids, path_len, payload, prefix_node_ids=prefix_node_ids)


def _mend(prefix: Sequence[Any], payload: Payload, known: int) -> None:
    """Put the payload's row in the place of the stand-in that ends the prefix."""
    last = next((node for node in reversed(prefix) if len(node.token_ids)), None)
    if last is None or not last.sampled or not 1 <= known <= payload.rows:
        return
    rows = last.routed_experts
    if rows is None or not len(rows) or rows.shape[1:] != payload.inner:
        return
    last.routed_experts = np.concatenate([rows[:-1], payload.view(known - 1, known)])
