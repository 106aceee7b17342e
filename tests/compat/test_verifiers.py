"""Drop-in functions for verifiers against what its function does, by decoding all."""

import base64
import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rollkit.compat import verifiers
from rollkit.compat.verifiers import attribute_routed_experts


def routes_of(rows: int, dtype: str, topk: int = 2) -> NDArray[Any]:
    found: NDArray[Any] = np.random.default_rng(rows).integers(0, 250, (rows, 2, topk)).astype(dtype)
    return found


def payload_of(routes: NDArray[Any], start: int, raw: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"data": base64.b64encode(routes.tobytes()).decode(), "shape": list(routes.shape)}
    if raw:
        found["data"] = routes.tobytes()
    if start:
        found["start"] = start
    if routes.dtype != np.uint8:
        found["dtype"] = routes.dtype.name
    return found


def expected_rows(
    nodes: list[Any], prefix: list[int], new: list[int], path_len: int, routes: NDArray[Any], start: int
) -> dict[int, NDArray[Any] | None]:
    """Each node's rows after a turn: a lookup of every position of the turn, one by one."""
    rows = {node: nodes[node].routed_experts for node in range(len(nodes))}
    at = {start + i: row for i, row in enumerate(routes)}
    for node in reversed(prefix):
        if not nodes[node].token_ids:
            continue
        own = rows[node]
        usable = nodes[node].sampled and own is not None and len(own) and own.shape[1:] == routes.shape[1:]
        if usable and start < path_len <= start + len(routes):
            rows[node] = np.concatenate([own[:-1], at[path_len - 1][None]])
        break
    total = path_len + sum(len(nodes[node].token_ids) for node in new)
    if total - 1 not in at and total - 2 in at:
        at[total - 1] = at[total - 2]
    position = path_len
    for node in new:
        span = range(position, position + len(nodes[node].token_ids))
        if len(span) and all(p in at for p in span):
            rows[node] = np.stack([at[p] for p in span])
        position = span.stop
    return rows


@st.composite
def traces(draw: st.DrawFn) -> tuple[list[Any], list[int], list[int], NDArray[Any], int]:
    nodes = []
    dtype = draw(st.sampled_from(["uint8", "uint16"]))
    for number in range(draw(st.integers(1, 6))):
        length = draw(st.integers(0, 4))
        own = routes_of(length, draw(st.sampled_from([dtype, "uint8"])), draw(st.sampled_from([2, 2, 2, 1])))
        nodes.append(
            SimpleNamespace(
                token_ids=[number] * length,
                sampled=draw(st.booleans()),
                routed_experts=own if draw(st.booleans()) else None,
            )
        )
    reused = draw(st.integers(0, len(nodes) - 1))
    prefix, new = list(range(reused)), list(range(reused, len(nodes)))
    path_len = sum(len(nodes[node].token_ids) for node in prefix)
    total = path_len + sum(len(nodes[node].token_ids) for node in new)
    start = draw(st.integers(0, path_len + 2))
    rows = max(total - start - draw(st.sampled_from([0, 1, 1, 1, 2])), 0)
    return nodes, prefix, new, routes_of(rows, dtype), start


@given(traces(), st.booleans(), st.booleans())
def test_equals_looking_up_every_position(
    case: tuple[list[Any], list[int], list[int], NDArray[Any], int], mends: bool, raw: bool
) -> None:
    nodes, prefix, new, routes, start = case
    path_len = sum(len(nodes[node].token_ids) for node in prefix)
    expected = expected_rows(nodes, prefix if mends else [], new, path_len, routes, start)
    attribute_routed_experts(
        SimpleNamespace(nodes=nodes),
        new,
        path_len,
        payload_of(routes, start, raw),
        prefix_node_ids=prefix if mends else (),
    )
    for node, wanted in expected.items():
        found = nodes[node].routed_experts
        assert (found is None) == (wanted is None)
        if found is not None and wanted is not None:
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == wanted.dtype
            assert found.flags.owndata


def test_no_payload_changes_nothing() -> None:
    trace = SimpleNamespace(nodes=[SimpleNamespace(token_ids=[1], routed_experts="kept")])
    attribute_routed_experts(trace, [0], 0, None)
    assert trace.nodes[0].routed_experts == "kept"


def test_malformed_payloads_are_refused() -> None:
    trace = SimpleNamespace(nodes=[SimpleNamespace(token_ids=[1], routed_experts=None)])
    with pytest.raises(ValueError, match=r"^the payload's 'data' decodes to 3 bytes"):
        attribute_routed_experts(trace, [0], 0, {"data": "AAAA", "shape": [2, 1, 1], "start": 0})


def test_the_private_name_has_the_order_of_verifiers() -> None:
    names = list(inspect.signature(verifiers._attribute_routed_experts).parameters)
    assert names == ["trace", "prefix_node_ids", "new_node_ids", "path_len", "payload"]
    payload = {"data": "AAECAwQF", "shape": [3, 1, 2], "start": 0}

    def trace() -> Any:
        before = np.array([[[0, 1]], [[0, 1]]], np.uint8)  # the last row is a stand-in
        prefix = SimpleNamespace(token_ids=[5, 6], sampled=True, routed_experts=before)
        return SimpleNamespace(nodes=[prefix, SimpleNamespace(token_ids=[7, 8], routed_experts=None)])

    ours, native = trace(), trace()
    verifiers._attribute_routed_experts(ours, [0], [1], 2, payload)
    verifiers.attribute_routed_experts(native, [1], 2, payload, prefix_node_ids=[0])
    for got, wanted in zip(ours.nodes, native.nodes, strict=True):
        assert got.routed_experts.tolist() == wanted.routed_experts.tolist()
    assert ours.nodes[0].routed_experts.tolist() == [[[0, 1]], [[2, 3]]]
