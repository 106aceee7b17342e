"""Routes against NumPy that decodes the whole context, pads it by a row, and slices."""

import base64
import pickle
import re
import tracemalloc
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import rollkit
from rollkit import Layout, Ragged, Rollouts
from rollkit.routing import (
    NodeRoutes,
    RouteBuilder,
    cycle_routes,
    decode_routes,
    join_routes,
    narrow_routes,
    route_mask,
    split_routes,
)

Array = NDArray[Any]

DTYPES = ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i2"]
FINALS = ["repeat", "zeros", "arange", "cycle", "sentinel", None]
KINDS = ["str", "base64", "raw", "bytearray", "memoryview", "array", "tensor"]


def routes_of(rows: int, dtype: str = "uint8", layers: int = 2, topk: int = 3, experts: int = 100) -> Array:
    found: Array = np.random.default_rng(rows).integers(0, experts, (rows, layers, topk)).astype(dtype)
    return found


def payload_of(routes: Array, kind: str = "str", start: int = 0) -> Any:
    """The same rows in every form an engine sends."""
    text = base64.b64encode(routes.tobytes())
    data: Any = {
        "str": text.decode(),
        "base64": text,
        "raw": routes.tobytes(),
        "bytearray": bytearray(text),
        "memoryview": memoryview(routes.tobytes()),
        "array": routes,
        "tensor": routes,
    }[kind]
    if kind == "tensor" and routes.dtype.str in ("|u1", "<i2", "<i4"):
        data = torch.from_numpy(routes.copy())
    return {"data": data, "shape": list(routes.shape), "dtype": routes.dtype.str, "start": start}


def fill_of(final: str, routes: Array, num_experts: int, first: int = 0) -> Array:
    """The row that a peer appends to those from position `first` on."""
    inner = routes.shape[1:]
    rows: dict[str, Any] = {
        "zeros": np.zeros(inner),
        "arange": np.tile(np.arange(inner[1]), (inner[0], 1)),
        "cycle": (((first + len(routes)) * prod(inner) + np.arange(prod(inner))) % num_experts).reshape(
            inner
        ),
        "sentinel": np.full(inner, -1),
    }
    return np.asarray(routes[-1] if final == "repeat" else rows[final])


def split_reference(
    routes: Array, lengths: list[int], off: int, final: str | None, num_experts: int, first: int = 0
) -> list[Array | None]:
    """Pad the full context by one row, then slice it."""
    rows = len(routes)
    padded = routes
    if final is not None and (rows or final != "repeat"):
        padded = np.concatenate(
            [routes, fill_of(final, routes, num_experts, first)[None].astype(routes.dtype)]
        )
    last = max((i for i, n in enumerate(lengths) if n), default=-1)
    nodes: list[Array | None] = []
    for i, n in enumerate(lengths):
        end = off + n
        inside = n > 0 and off >= 0
        ends_beyond = i == last and end == rows + 1 and (final is None or len(padded) > rows)
        nodes.append(padded[off:end] if inside and (end <= rows or ends_beyond) else None)
        off = end
    return nodes


@st.composite
def splits(draw: st.DrawFn) -> tuple[Array, list[int], int, int]:
    """Routes, node lengths, and where both start: mostly ending a row apart, sometimes anywhere."""
    dtype = draw(st.sampled_from(DTYPES))
    lengths = draw(st.lists(st.integers(0, 4), max_size=6))
    start = draw(st.integers(0, 5))
    first = draw(st.integers(0, start + 3))
    rows = max(start + sum(lengths) - first - draw(st.sampled_from([0, 1, 1, 1, 2])), 0)
    return routes_of(rows, dtype, draw(st.integers(1, 2)), draw(st.integers(1, 3))), lengths, start, first


@given(splits(), st.sampled_from(FINALS), st.sampled_from(KINDS), st.booleans())
def test_split_equals_padding_the_context(
    case: tuple[Array, list[int], int, int], final: str | None, kind: str, copy: bool
) -> None:
    routes, lengths, start, first = case
    if final == "sentinel" and routes.dtype.kind == "u":
        with pytest.raises(OverflowError, match="final='sentinel' writes -1"):
            split_routes(payload_of(routes, kind), lengths, final=final)
        return
    payload = payload_of(routes, kind, first)
    nodes = split_routes(payload, lengths, start=start, final=final, num_experts=7, copy=copy)
    expected = split_reference(routes, lengths, start - first, final, 7, first)
    assert [rows is None for rows in nodes] == [rows is None for rows in expected]
    for rows, wanted in zip(nodes, expected, strict=True):
        if rows is not None and wanted is not None:
            np.testing.assert_array_equal(rows, wanted)
            assert rows.dtype == routes.dtype
            assert not copy or (rows.flags.owndata and rows.flags.writeable and rows.base is None)
    for node, (rows, valid) in enumerate(zip(nodes, nodes.valid.tolist(), strict=True)):
        begin = start - first + sum(lengths[:node])
        known = min(begin + lengths[node], len(routes)) - begin
        assert valid == (0 if rows is None else known)
    assert nodes.lengths.tolist() == lengths


@given(st.integers(0, 40), st.integers(-45, 45), st.integers(-45, 45), st.sampled_from(KINDS))
def test_decode_is_a_slice(rows: int, begin: int, end: int, kind: str) -> None:
    routes = routes_of(rows, "uint16", 1, 5, 512)
    found = decode_routes(payload_of(routes, kind), slice(begin, end))
    np.testing.assert_array_equal(found, routes[begin:end])
    assert found.flags.owndata
    np.testing.assert_array_equal(decode_routes(payload_of(routes, kind)), routes)
    out = np.empty_like(found)
    assert decode_routes(payload_of(routes, kind), slice(begin, end), out=out) is out
    np.testing.assert_array_equal(out, found)


def test_rows_of_many_blocks() -> None:
    routes = routes_of(20_000, "uint16", 3, 4, 512)
    payload = payload_of(routes)
    for begin, end in ((0, 20_000), (1, 19_999), (12_345, 20_000), (19_999, 20_000)):
        np.testing.assert_array_equal(decode_routes(payload, slice(begin, end)), routes[begin:end])


def test_characters_before_the_rows_are_not_read() -> None:
    payload = payload_of(routes_of(300))
    payload["data"] = "!" * 400 + payload["data"][400:]
    np.testing.assert_array_equal(decode_routes(payload, slice(200, None)), routes_of(300)[200:])
    with pytest.raises(
        ValueError, match=r"^character 0 of the base64 data is '!', which is not valid there$"
    ):
        decode_routes(payload)


def test_only_the_rows_kept_are_in_memory() -> None:
    routes = routes_of(50_000, layers=8, topk=4)
    payload = payload_of(routes)
    for given_routes in (payload, routes):
        split_routes(given_routes, [1, 1])  # imports and caches
        tracemalloc.start()
        nodes = split_routes(given_routes, [4_000, 1_001], start=45_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        kept = sum(rows.nbytes for rows in nodes if rows is not None)
        assert kept == 5_001 * 32
        assert peak <= 1.02 * kept + 4_096


def test_payloads_are_lenient_where_nothing_is_lost() -> None:
    routes = routes_of(4)
    text = base64.b64encode(routes.tobytes()).decode()
    for payload in (
        {"data": text, "shape": (4, 2, 3)},
        {"data": text, "shape": np.array([4, 2, 3]), "dtype": None, "start": None},
        {"data": text, "shape": [4, 2, 3], "dtype": np.uint8, "start": np.int64(0)},
        {"data": routes},
        {"data": routes.astype(np.int64), "shape": [4, 2, 3]},
        {"data": routes.astype(np.int32), "start": 0},
    ):
        np.testing.assert_array_equal(decode_routes(payload), routes)
    read_only = np.frombuffer(routes.tobytes(), np.uint8).reshape(routes.shape)
    np.testing.assert_array_equal(join_routes(split_routes(read_only[::2], [3])), routes[[0, 2, 2]])


@pytest.mark.parametrize(
    ("payload", "error", "message"),
    [
        (
            {"shape": [1, 1, 1]},
            ValueError,
            "the payload has no 'data'; it needs 'data' and 'shape' (and 'dtype', 'start')",
        ),
        ({"data": "AAAA"}, ValueError, "the payload has no 'shape'; it is [rows, layers, topk]"),
        (
            {"data": "AAAA", "shape": [2, 1, 1]},
            ValueError,
            "the payload's 'data' decodes to 3 bytes; shape (2, 1, 1) of uint8 has 2",
        ),
        (
            {"data": "AAA", "shape": [2, 1, 1]},
            ValueError,
            "the payload's 'data' has 3 characters; base64 has a multiple of 4, padded with '=' and without "
            "line breaks",
        ),
        (
            {"data": b"12345", "shape": [2, 1, 1]},
            ValueError,
            "the payload's 'data' has 5 bytes; shape (2, 1, 1) of uint8 is 2 bytes raw, 4 in base64",
        ),
        (
            {"data": "AAéA", "shape": [3, 1, 1]},
            ValueError,
            "the payload's 'data' has characters beyond ASCII, which are not base64",
        ),
        (
            {"data": "AA_A", "shape": [3, 1, 1]},
            ValueError,
            "character 2 of the base64 data is '_', which is not valid there",
        ),
        (
            {"data": "AAAA", "shape": [3, 1, 1], "dtype": "uint9"},
            TypeError,
            "the payload's 'dtype' is 'uint9', which NumPy does not know; it is 'uint8', 'int16', …",
        ),
        (
            {"data": "AAAA", "shape": [3, 1, 1], "dtype": "float32"},
            TypeError,
            "routes must be integers, got float32",
        ),
        (
            {"data": "AAAA", "shape": [3]},
            ValueError,
            "routes must have rows and the experts of each, [rows, layers, topk]; got (3,)",
        ),
        (
            {"data": "AAAA", "shape": 3},
            TypeError,
            "shape must be [rows, layers, topk], got 3",
        ),
        (
            {"data": "AAAA", "shape": [-3, -1]},
            ValueError,
            "a dimension of routes must be at least 0, got -3",
        ),
        (
            {"data": "AAAA", "shape": [3, 1], "start": -1},
            ValueError,
            "the payload's 'start' must be at least 0, got -1",
        ),
        (
            {"data": 5, "shape": [3, 1]},
            TypeError,
            "the payload's 'data' must be base64 (str or bytes) or a contiguous buffer, got int",
        ),
        (
            [[[1]]],
            TypeError,
            "routes must be an array or a payload {data, shape, dtype, start}, got list; np.asarray makes an "
            "array of lists",
        ),
        (np.zeros((2, 1, 1)), TypeError, "routes must be integers, got float64"),
    ],
)
def test_payload_errors(payload: Any, error: type[Exception], message: str) -> None:
    for call in (decode_routes, lambda found: split_routes(found, [1, 1, 1])):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            call(payload)


def test_split_errors() -> None:
    routes = routes_of(3)
    with pytest.raises(ValueError, match=r"^final must be one of 'repeat', 'zeros', .*, got 'last'$"):
        split_routes(routes, [4], final="last")
    with pytest.raises(ValueError, match=r"^final='cycle' needs num_experts"):
        split_routes(routes, [4], final="cycle")
    with pytest.raises(ValueError, match=r"^num_experts must be at least 3, got 2$"):
        split_routes(routes, [4], final="cycle", num_experts=2)
    with pytest.raises(ValueError, match=r"^node_lengths\[1\] is -1"):
        split_routes(routes, [4, -1])
    with pytest.raises(ValueError, match=r"^start must be at least 0, got -1$"):
        split_routes(routes, [4], start=-1)
    with pytest.raises(OverflowError, match=r"^final='arange' writes 129, which int8 does not hold"):
        split_routes(np.zeros((3, 1, 130), np.int8), [4], final="arange")
    with pytest.raises(ValueError, match=r"^rows must have no step, got 2"):
        decode_routes(routes, slice(None, None, 2))


def test_a_cycle_has_no_expert_twice_in_a_layer() -> None:
    found = split_routes(routes_of(1, layers=5, topk=4), [2], final="cycle", num_experts=6)[0]
    assert found is not None
    assert all(len(set(layer)) == 4 for layer in found[1].tolist())


def test_512_experts() -> None:
    routes = routes_of(10, "uint16", 4, 8, 512)
    assert int(routes.max()) > 255
    nodes = split_routes(payload_of(routes), [4, 3], start=4, final="arange")
    joined = join_routes(nodes)
    assert joined is not None
    np.testing.assert_array_equal(joined[:-1], routes[4:])
    np.testing.assert_array_equal(joined[-1], np.tile(np.arange(8), (4, 1)))
    assert narrow_routes(joined.astype(np.int64)).dtype == np.int16
    assert narrow_routes(joined + np.uint16(40_000)).dtype == np.uint16


@given(splits(), st.sampled_from(["repeat", None]))
def test_join_is_the_inverse(case: tuple[Array, list[int], int, int], final: str | None) -> None:
    routes, lengths, start, first = case
    nodes = split_routes(payload_of(routes, start=first), lengths, start=start, final=final)
    missing = any(n and rows is None for rows, n in zip(nodes, lengths, strict=True))
    if missing:
        assert join_routes(nodes) is None
    elif not any(lengths):
        with pytest.raises(ValueError, match=r"^parts has no routes"):
            join_routes(nodes)
    else:
        joined = join_routes(nodes)
        assert joined is not None
        rows = [
            node
            for node in split_reference(routes, lengths, start - first, final, 7, first)
            if node is not None
        ]
        np.testing.assert_array_equal(joined, np.concatenate(rows))
        out = np.empty_like(joined)
        assert join_routes(nodes, out=out) is out


def test_join_widens_and_refuses() -> None:
    narrow, wide = routes_of(2), routes_of(3, "uint16", experts=512)
    joined = join_routes([narrow, wide])
    assert joined is not None
    assert joined.dtype == np.uint16
    np.testing.assert_array_equal(joined, np.concatenate([narrow, wide]))
    assert join_routes([narrow, None]) is None
    with pytest.raises(ValueError, match=r"^array 1 has inner shape \(2, 4\), the first has \(2, 3\)$"):
        join_routes([narrow, routes_of(1, topk=4)])
    with pytest.raises(TypeError, match=r"^no integer dtype holds the ids of uint64 and int64$"):
        join_routes([routes_of(1, "uint64"), routes_of(1, "int64")])


def test_node_routes_pickle() -> None:
    nodes = split_routes(routes_of(3), [2, 0, 2])
    found = pickle.loads(pickle.dumps(nodes, protocol=5))
    assert isinstance(found, NodeRoutes)
    assert found.valid.tolist() == [2, 0, 1]
    np.testing.assert_array_equal(join_routes(found), join_routes(nodes))


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=8),
    st.sampled_from(KINDS),
    st.integers(0, 30),
    st.sampled_from(FINALS[:4]),
)
def test_builder_equals_cutting_and_joining(
    turns: list[tuple[int, int]], kind: str, capacity: int, final: str
) -> None:
    """Each turn adds rows, and sends some of those before again."""
    total = sum(new for new, _ in turns)
    routes = routes_of(total, "int16")
    builder = RouteBuilder(capacity=capacity)
    end = 0
    for new, again in turns:
        start = max(end - again, 0)
        added = builder.append(payload_of(routes[start : end + new], kind, start))
        assert added == new
        end += new
        assert len(builder) == end
    missing = total > 0
    found = builder.finish(total + missing, final=final, num_experts=5)
    np.testing.assert_array_equal(found[:total], routes)
    if missing:
        np.testing.assert_array_equal(found[-1], fill_of(final, routes, 5))
    assert found.flags.owndata
    assert len(builder) == total


def test_builder_widens_and_takes_arrays_in_order() -> None:
    builder = RouteBuilder()
    assert builder.append(routes_of(3)) == 3
    assert builder.append(routes_of(2, "uint16", experts=512)) == 2
    assert builder.append(routes_of(4), start=1) == 0
    rows = builder.finish()
    assert rows.dtype == np.uint16
    np.testing.assert_array_equal(rows, np.concatenate([routes_of(3), routes_of(2, "uint16", experts=512)]))


def test_a_malformed_turn_leaves_the_builder_as_it_was() -> None:
    builder = RouteBuilder()
    builder.append(routes_of(3))
    bad = payload_of(routes_of(2), start=3)
    bad["data"] = "?" + bad["data"][1:]
    with pytest.raises(ValueError, match=r"^character 0 of the base64 data is '\?'") as caught:
        builder.append(bad)
    builder.append(payload_of(routes_of(2), start=3))
    found = builder.finish()
    np.testing.assert_array_equal(found, np.concatenate([routes_of(3), routes_of(2)]))
    views = []
    assert caught.value.__traceback__ is not None
    traceback = caught.value.__traceback__.tb_next
    while traceback is not None:
        views += [value for value in traceback.tb_frame.f_locals.values() if isinstance(value, np.ndarray)]
        traceback = traceback.tb_next
    assert views
    assert not any(np.shares_memory(view, found) for view in views), "memory that views have is not shrunk"


def test_builder_errors() -> None:
    builder = RouteBuilder()
    with pytest.raises(ValueError, match=r"^nothing was appended"):
        builder.finish()
    builder.append(routes_of(3))
    with pytest.raises(ValueError, match=r"^routes start at position 4, there are 3 rows, none for what is"):
        builder.append(routes_of(1), start=4)
    with pytest.raises(ValueError, match=r"^routes have inner shape \(2, 4\), those before \(2, 3\)$"):
        builder.append(routes_of(1, topk=4))
    with pytest.raises(ValueError, match=r"^length is 5, there are 3 rows; only that of the last token"):
        builder.finish(5)
    assert builder.finish(4, final=None).shape == (3, 2, 3)
    with pytest.raises(ValueError, match=r"^the builder is finished; make a new one$"):
        builder.finish()
    with pytest.raises(ValueError, match=r"^the builder is finished; make a new one$"):
        builder.append(routes_of(1))
    empty = RouteBuilder()
    empty.append(routes_of(0))
    with pytest.raises(ValueError, match=r"^there is no row to repeat"):
        empty.finish(1)


@pytest.mark.parametrize(
    ("values", "sentinel", "dtype"),
    [
        ([0, 255], False, "uint8"),
        ([0, 256], False, "int16"),
        ([0, 32_767], False, "int16"),
        ([0, 32_768], False, "uint16"),
        ([0, 65_535], False, "uint16"),
        ([0, 65_536], False, "int32"),
        ([-1, 3], True, "int16"),
        ([-1, 32_768], True, "int32"),
        ([0, 3], True, "uint8"),
        ([], False, "uint8"),
    ],
)
@pytest.mark.parametrize("given_dtype", ["int32", "int64", ">i8"])
def test_narrow(values: list[int], sentinel: bool, dtype: str, given_dtype: str) -> None:
    routes = np.array(values, given_dtype).reshape(-1, 1, 1)
    narrowed = narrow_routes(routes, sentinel=sentinel)
    assert narrowed.dtype == dtype
    assert narrowed.shape == routes.shape
    np.testing.assert_array_equal(narrowed, routes)
    if values:
        rows = Ragged(np.concatenate([routes[:1] - 9, routes]), np.array([1, 1, len(routes) + 1]))
        found = narrow_routes(rows, sentinel=sentinel)
        assert found.dtype == dtype
        assert found.to_list() == rows.to_list()


def test_narrow_keeps_what_is_narrow() -> None:
    routes = routes_of(3)
    assert narrow_routes(routes) is routes
    rows = Ragged.from_rows([routes])
    assert narrow_routes(rows) is rows
    assert narrow_routes(routes.transpose(1, 0, 2)[None].astype(np.int64)).shape == (1, 2, 3, 3)


def test_narrow_errors() -> None:
    with pytest.raises(ValueError, match=r"^routes\[1, 0\] is -1; ids must be 0 or more; pass sentinel=True"):
        narrow_routes(np.array([[0], [-1]]))
    with pytest.raises(ValueError, match=r"^routes\[0\] is -2; ids must be 0 or more$"):
        narrow_routes(np.array([-2, 5]), sentinel=True)
    with pytest.raises(OverflowError, match=r"^routes hold 18446744073709551615, which is beyond int32$"):
        narrow_routes(np.array([2**64 - 1], np.uint64))
    with pytest.raises(TypeError, match=r"^routes must be an array or a Ragged of integers, got float64$"):
        narrow_routes(np.zeros(3))
    with pytest.raises(TypeError, match=r"^routes must be an array or a Ragged of integers, got list$"):
        narrow_routes([1])  # type: ignore[type-var]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=6), st.booleans())
def test_mask(rows: list[tuple[int, int]], padded: bool) -> None:
    lengths = [max(row) for row in rows]
    valid = [min(row) for row in rows]
    layout = Layout.pad(lengths) if padded else Layout.pack(lengths, 8, align=2)
    expected = np.ones(layout.shape, bool)
    for start, count in zip(layout.starts, valid, strict=True):
        expected.reshape(-1)[start : start + count] = False
    np.testing.assert_array_equal(route_mask(layout, valid), expected)
    column = Ragged.from_rows([np.zeros((count, 1, 2), np.uint8) for count in valid])
    np.testing.assert_array_equal(route_mask(layout, column), expected)


def test_mask_errors() -> None:
    with pytest.raises(ValueError, match=r"^row 1 has 3 routes for 2 tokens$"):
        route_mask(Layout.pad([3, 2]), [3, 3])
    with pytest.raises(ValueError, match=r"^valid has 1 rows, the layout has 2$"):
        route_mask(Layout.pad([3, 2]), [3])


def test_routes_travel_with_the_rows() -> None:
    """Through concat, pad with a fill, pack, torch, and back; against loops."""
    parts, expected = [], []
    for seed in range(3):
        lengths = [(2, 3), (1, 4), (3, 1)]
        rows = [routes_of(p + r - 1 + 10 * seed, "int16", experts=512)[10 * seed :] for p, r in lengths]
        expected += rows
        parts.append(
            Rollouts(
                {
                    "prompt_token_ids": [[1] * p for p, _ in lengths],
                    "response_ids": [[2] * r for _, r in lengths],
                    "rollout_expert_indices": rows,
                }
            )
        )
    rollouts = rollkit.concat(parts)
    column = rollouts["rollout_expert_indices"]
    assert isinstance(column, Ragged)
    for fill in (np.arange(3), 0, -1):
        batch = rollkit.pad(rollouts, fills={"rollout_expert_indices": fill})
        assert isinstance(batch.layout, Layout)
        mask = route_mask(batch.layout, column)
        placed = batch["rollout_expert_indices"]
        assert placed.dtype == np.int16
        for line, hidden, row in zip(placed, mask, expected, strict=True):
            np.testing.assert_array_equal(line[~hidden], row)
            assert (line[hidden] == fill).all()
    packed = rollkit.pack(rollouts, 16)
    tensors = packed.to("torch")
    for found in (packed, tensors):
        back = found.unpack("rollout_expert_indices")
        for placed_row, row in zip(back, expected, strict=True):
            np.testing.assert_array_equal(placed_row[:-1], row)
            assert (placed_row[-1] == np.arange(3)).all()
    again = rollkit.pack(rollouts, 16, out=packed)
    np.testing.assert_array_equal(again["rollout_expert_indices"], tensors["rollout_expert_indices"])


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
def test_what_is_filled_is_a_legal_route_and_marked(framework: str, dtype: str) -> None:
    rows = [routes_of(4, dtype), routes_of(2, dtype)]
    if framework != "numpy":
        as_theirs = pytest.importorskip(framework).asarray if framework == "torch" else _jax_array()
        rows = [as_theirs(row) for row in rows]
    rollouts = {"prompt_token_ids": [[1], [2]], "response_ids": [[3] * 4, [4]]}
    rollouts["rollout_expert_indices"] = rows  # type: ignore[assignment]
    for batch in (rollkit.pad(rollouts), rollkit.pack(rollouts, 9), rollkit.pad(rollouts, side="right")):
        placed, marks = np.asarray(batch["rollout_expert_indices"]), np.asarray(batch["route_masks"])
        assert marks.dtype == np.uint8
        assert isinstance(batch.layout, Layout)
        np.testing.assert_array_equal(marks, route_mask(batch.layout, [4, 2]))
        assert (placed[marks == 1] == np.arange(placed.shape[-1])).all()


def test_the_marks_of_filled_routes_stay_those_of_the_rollouts() -> None:
    rollouts = {
        "response_ids": [[3, 4]],
        "rollout_expert_indices": [routes_of(2, "uint8")],
        "route_masks": [[0, 1]],
    }
    assert rollkit.pack(rollouts, 3)["route_masks"].tolist() == [[0, 1, 1]]
    back = rollkit.pack({**rollouts, "route_masks": [[0, 0]]}, 3, fills={"route_masks": 0})
    assert back["route_masks"].tolist() == [[0, 0, 0]]


def _jax_array() -> Any:
    pytest.importorskip("jax")
    import jax.numpy as jnp

    return jnp.asarray


@pytest.mark.parametrize(("experts", "topk"), [(8, 3), (4, 4), (5, 2)])
def test_cycled_routes_go_on_from_row_to_row(experts: int, topk: int) -> None:
    routes = np.zeros((2, 6, 2, topk), np.int16)
    marks = np.array([[0, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1]], np.uint8)
    found = cycle_routes(routes, marks, num_experts=experts)
    assert found is routes
    assert not routes[marks == 0].any()
    filled = routes[marks == 1]
    np.testing.assert_array_equal(filled.ravel(), np.arange(filled.size) % experts)
    assert all(len(set(row)) == topk for row in filled.reshape(-1, topk).tolist())
    with pytest.raises(ValueError, match="num_experts"):
        cycle_routes(routes, marks, num_experts=topk - 1)
    with pytest.raises(OverflowError, match="int8 does not hold expert 255"):
        cycle_routes(np.zeros((200, 1, 2), np.int8), np.ones(200, bool), num_experts=256)


def test_the_last_row_of_a_longer_sequence_cycles_to_other_experts() -> None:
    routes = np.zeros((9, 2, 2), np.uint8)
    lasts = []
    for length in (4, 5):
        node = split_routes(routes[: length - 1], [length], final="cycle", num_experts=16)[0]
        builder = RouteBuilder()
        builder.append(routes[: length - 1])
        built = builder.finish(length, final="cycle", num_experts=16)
        assert node is not None
        np.testing.assert_array_equal(node[-1], built[-1])
        lasts.append(node[-1].ravel().tolist())
    assert lasts == [[12, 13, 14, 15], [0, 1, 2, 3]]
