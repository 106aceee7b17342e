"""Runs and what is read off them: equal to a loop over tokens, on every backend, and back to ids."""

from __future__ import annotations

import subprocess
import sys
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from rollkit import Layout, segments
from rollkit.segments import (
    cp_pad,
    cp_partition,
    cp_reorder,
    cu_seqlens,
    cu_seqlens_padded,
    dense_mask,
    from_positions,
    max_seqlen,
    offsets,
    positions,
    run_length_fill,
    runs,
    segment_ids,
    segment_ids_from_cu_seqlens,
    segment_positions,
    seqlens,
    thd,
)

INTEGERS = [np.dtype(kind + str(size)) for kind in "iu" for size in (1, 2, 4, 8)]


def loop(rows: list[list[int]]) -> list[tuple[int, int, int]]:
    """(id, flat start, length) of every run."""
    found, at = [], 0
    for row in rows:
        for number, group in groupby(row):
            length = len(list(group))
            if number:
                found.append((number, at, length))
            at += length
    return found


@st.composite
def batches(draw: Any) -> list[list[int]]:
    width, rows = draw(st.integers(1, 90)), draw(st.integers(1, 4))
    found = []
    for _ in range(rows):
        spans = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 70)), max_size=9))
        found.append(([i for i, n in spans for _ in range(n)] + [0] * width)[:width])
    return found


@settings(max_examples=examples(200), deadline=None)
@given(rows=batches(), dtype=st.sampled_from(INTEGERS))
def test_runs_and_all_that_is_read_off(rows: list[list[int]], dtype: Any) -> None:
    ids = np.array(rows, dtype)
    wanted = loop(rows)
    found = runs(ids)
    assert list(zip(found.ids.tolist(), found.starts.tolist(), found.lengths.tolist(), strict=True)) == wanted
    lengths = [n for _, _, n in wanted]
    assert found.cu_seqlens().tolist() == [sum(lengths[:k]) for k in range(len(lengths) + 1)]
    assert found.cu_seqlens_padded().tolist() == [s for _, s, _ in wanted] + [ids.size]
    assert found.max_seqlen == max(lengths, default=0)
    assert type(found.max_seqlen) is int
    assert found.segment_ids().tolist() == rows
    place, fill = np.zeros(ids.size, int), np.zeros(ids.size, int)
    for _, start, length in wanted:
        place[start : start + length] = np.arange(length)
        fill[start : start + length] = length
    assert found.positions().ravel().tolist() == place.tolist()
    assert found.run_length_fill().ravel().tolist() == fill.tolist()
    np.testing.assert_array_equal(found.seqlens(4), seqlens(ids, 4))
    np.testing.assert_array_equal(found.offsets(4), offsets(ids, 4))


@settings(max_examples=examples(60), deadline=None)
@given(rows=batches())
def test_device_operations_equal_rust(rows: list[list[int]]) -> None:
    from rollkit._arrays.ops import ops
    from rollkit.segments import _device

    ids = np.array(rows, np.int32)
    for name, array in (("numpy", ids), ("torch", torch.from_numpy(ids))):
        backend = ops(name)
        same(_device.positions(backend, array), positions(ids))
        same(_device.run_lengths(backend, array), run_length_fill(ids))
        same(_device.seqlens(backend, array, max_segments=4), seqlens(ids, 4))
        same(_device.offsets(backend, array, max_segments=4), offsets(ids, 4))


def same(found: Any, wanted: Any) -> None:
    found = np.asarray(found)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, wanted)


def test_traced_arrays_stay_in_the_graph() -> None:
    rng = np.random.default_rng(0)
    ids = np.sort(rng.integers(0, 6, (4, 50)), 1).astype(np.int32)
    for function in (positions, run_length_fill, lambda a: seqlens(a, 4), lambda a: offsets(a, 4)):
        same(jax.jit(function)(jnp.asarray(ids)), function(ids))
        same(jax.vmap(function)(jnp.asarray(ids)), function(ids))
        same(function(torch.from_numpy(ids)), function(ids))
    with pytest.raises(TypeError, match="runs needs values, and the array is being traced"):
        jax.jit(lambda a: runs(a).starts)(jnp.asarray(ids))


def test_torch_maps_them() -> None:
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(np.sort(rng.integers(0, 6, (3, 2, 20)), 2))
    places = torch.from_numpy(rng.integers(0, 20, (3, 2, 20)))

    def step(q: Any, kv: Any, at_q: Any, at_kv: Any) -> Any:
        return tuple(thd(q, kv, positions_q=at_q, positions_kv=at_kv, max_segments=6, on_reentry="te"))

    lengths = torch.tensor([[3, 0, 2], [1, 1, 1], [0, 0, 0]])
    for function, arrays, mapped in (
        (positions, (ids,), (0,)),
        (run_length_fill, (ids,), (0,)),
        (lambda a: seqlens(a, 4), (ids,), (0,)),
        (lambda a: offsets(a, 4), (ids,), (0,)),
        (lambda a: from_positions(a, padding="zeros"), (places,), (0,)),
        (lambda a: dense_mask(a, mask="padding"), (ids,), (0,)),
        (lambda a: cp_reorder(a, 5), (ids,), (0,)),
        (lambda a: segment_ids(a, total=6), (lengths,), (0,)),
        (lambda a: segment_positions(a, total=6), (lengths,), (0,)),
        (step, (ids, ids.flip(2), places, places.flip(0)), (0, 0, 0, 0)),
        (step, (ids[0], ids, places, places), (None, 0, 0, 0)),
        (step, (ids[0], ids[0], places, places[0]), (None, None, 0, None)),
    ):
        got = torch.vmap(function, mapped)(*arrays)
        rows: list[Any] = [
            function(*(a if axis is None else a[n] for a, axis in zip(arrays, mapped, strict=True)))
            for n in range(3)
        ]
        whole = [torch.stack(part) for part in zip(*rows, strict=True)] if isinstance(got, tuple) else rows
        for one, other in zip(got, whole, strict=True):
            assert torch.equal(one, other)
    with pytest.raises(TypeError, match="runs needs values"):
        torch.vmap(lambda a: runs(a).starts)(ids)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int8"])
def test_torch_ids_of_every_dtype_in_a_graph(dtype: str) -> None:
    ids = torch.tensor([1, 1, 0, 3]).to(getattr(torch, dtype))

    def all_of(a: Any) -> Any:
        return positions(a), run_length_fill(a), seqlens(a, 3), offsets(a, 3), dense_mask(a)

    graph = torch.compile(all_of, fullgraph=True, backend="eager")
    for got, wanted in zip(graph(ids), all_of(ids), strict=True):
        assert torch.equal(got, wanted)


def test_a_list_is_of_the_framework_of_the_other_array() -> None:
    for make, kind in ((torch.tensor, torch.Tensor), (jnp.asarray, jax.Array), (np.asarray, np.ndarray)):
        for found in (
            thd([1, 1], make([1, 2]), mask="padding", max_segments=2),
            thd(make([1, 1]), [1, 2], mask="padding", max_segments=2),
        ):
            assert isinstance(found.q_seqlens, kind)
            assert found.q_seqlens.tolist() == [2, 0]
        assert isinstance(from_positions(make([0, 1]), padding=[1, 0]), kind)
    traced = jax.jit(lambda a: thd(a, [1, 2], mask="padding", max_segments=2).q_seqlens)
    assert traced(jnp.asarray([1, 1])).tolist() == [2, 0]


def test_no_segments_in_a_graph() -> None:
    for function in (segment_ids, segment_positions):
        traced = jax.jit(lambda a, function=function: function(a, total=3))
        assert traced(jnp.zeros(0, jnp.int32)).tolist() == [0, 0, 0]
        assert torch.compile(lambda a, function=function: function(a, total=3), backend="eager")(
            torch.zeros(0, dtype=torch.int32)
        ).tolist() == [0, 0, 0]


def test_running_sums_that_are_traced_are_named() -> None:
    sums = jnp.asarray([0, 4])
    for call, name in (
        (segment_ids_from_cu_seqlens, "cu_seqlens"),
        (lambda a: segment_ids_from_cu_seqlens(sums, cu_seqlens_padded=a), "cu_seqlens_padded"),
        (lambda a: cp_partition(a, 2, 0).indices, "cu_seqlens"),
        (lambda a: cp_pad(a).lengths, "lengths"),
    ):
        with pytest.raises(TypeError, match=f"^{name} needs values.*; compute it outside"):
            jax.jit(call)(sums)
    with pytest.raises(TypeError, match="cu_seqlens needs values"):
        segment_ids_from_cu_seqlens(torch.zeros(3, dtype=torch.int32, device="meta"))


def test_results_are_of_the_framework_of_the_ids() -> None:
    ids = [[1, 1, 0], [2, 2, 2]]
    for make, kind in ((torch.tensor, torch.Tensor), (jnp.asarray, jax.Array)):
        for found in (cu_seqlens(make(ids)), cu_seqlens_padded(make(ids)), runs(make(ids)).positions()):
            assert isinstance(found, kind)
            assert "int32" in str(found.dtype)
        assert max_seqlen(make(ids)) == 3


@settings(max_examples=examples(200), deadline=None)
@given(lengths=st.lists(st.integers(0, 9), max_size=12), tail=st.integers(0, 5))
def test_ids_from_lengths(lengths: list[int], tail: int) -> None:
    total = sum(lengths) + tail
    ids = [k + 1 for k, n in enumerate(lengths) for _ in range(n)] + [0] * tail
    places = [p for n in lengths for p in range(n)] + [0] * tail
    assert segment_ids(lengths, total=total).tolist() == ids
    assert segment_positions(lengths, total=total).tolist() == places
    assert segment_ids(torch.tensor(lengths, dtype=torch.int64), total=total).tolist() == ids
    sums = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    assert segment_ids_from_cu_seqlens(sums, total=total).tolist() == ids
    kept = [n for n in lengths if n]
    np.testing.assert_array_equal(np.diff(cu_seqlens(ids)), kept)


def test_lengths_and_offsets_of_runs_of_large_ids() -> None:
    found = runs([2**40, 2**40, 0, 2])
    assert found.seqlens(3).tolist() == [0, 1, 0]
    assert found.offsets(3).tolist() == [0, 3, -1, -1]
    assert runs(np.zeros((2, 0), int)).offsets(1).tolist() == [[-1, -1]] * 2


def test_an_empty_segment_may_start_anywhere() -> None:
    assert segment_ids([3, 0, 2], starts=[0, 1, 3]).tolist() == [1, 1, 1, 3, 3]
    assert segment_positions([3, 0, 2], starts=[0, 1, 4]).tolist() == [0, 1, 2, 0, 0, 1]


def test_ids_from_lengths_in_a_graph() -> None:
    lengths = [3, 0, 2, 4, 0]
    for function in (segment_ids, segment_positions):
        traced = jax.jit(lambda a, function=function: function(a, total=11))(jnp.asarray(lengths))
        same(traced, function(lengths, total=11))


@settings(max_examples=examples(100), deadline=None)
@given(slots=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=9))
def test_valid_and_padded_sums(slots: list[tuple[int, int]]) -> None:
    valid = np.concatenate([[0], np.cumsum([n for n, _ in slots])]).astype(int)
    padded = np.concatenate([[0], np.cumsum([n + gap for n, gap in slots])]).astype(int)
    ids = [i for k, (n, gap) in enumerate(slots) for i in [k + 1] * n + [0] * gap]
    assert segment_ids_from_cu_seqlens(valid, cu_seqlens_padded=padded).tolist() == ids


def test_layouts_say_the_same() -> None:
    layout = Layout.pack([3, 7, 2, 5], capacity=8, align=2)
    found = runs(layout.segment_ids())
    assert found.cu_seqlens().tolist() == layout.cu_seqlens().tolist()
    assert found.cu_seqlens_padded().tolist() == layout.cu_seqlens_padded().tolist()
    same(found.positions(), layout.positions())


@pytest.mark.parametrize(
    ("padding", "wanted"),
    [
        ("none", [1, 1, 1, 2, 3, 3, 4, 5, 6]),
        ("trailing", [1, 1, 1, 2, 3, 3, 0, 0, 0]),
        ("zeros", [1, 1, 1, 0, 2, 2, 0, 0, 0]),
        ([1, 1, 1, 0, 1, 1, 1, 0, 0], [1, 1, 1, 0, 2, 2, 3, 0, 0]),
        ([1, 1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 2, 3, 3, 0, 0, 0]),
    ],
)
def test_ids_from_positions(padding: Any, wanted: list[int]) -> None:
    given_ = [0, 1, 2, 0, 0, 1, 0, 0, 0]
    assert from_positions(given_, padding=padding).tolist() == wanted
    for make in (torch.tensor, jnp.asarray):
        rule = padding if isinstance(padding, str) else make([padding, padding])
        assert from_positions(make([given_, given_]), padding=rule).tolist() == [wanted, wanted]
        if not isinstance(padding, str):
            flags = make([bool(flag) for flag in padding])
            assert from_positions(make(given_), padding=flags).tolist() == wanted
    rule = padding if isinstance(padding, str) else jnp.asarray(padding)
    traced = jax.jit(lambda a: from_positions(a, padding=rule))
    assert traced(jnp.asarray(given_)).tolist() == wanted


def test_a_segment_that_begins_elsewhere_than_at_0_begins_where_it_jumps() -> None:
    assert from_positions([5, 6, 7, 0, 1], padding="none").tolist() == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_positions_at_the_end_of_a_dtype_do_not_wrap(dtype: Any) -> None:
    most = np.iinfo(dtype).max
    array = np.array([most - 1, most, 0, 1, 0], dtype)
    for padding in ("none", [1, 1, 1, 1, 1]):
        assert from_positions(array, padding=padding).tolist() == [1, 1, 2, 2, 3]
    if dtype != np.uint64:  # torch has its dtype, and no arithmetic beyond int64
        assert from_positions(torch.from_numpy(array), padding="none").tolist() == [1, 1, 2, 2, 3]
    with jax.enable_x64(True):
        assert from_positions(jnp.asarray(array), padding="none").tolist() == [1, 1, 2, 2, 3]


def test_strided_swapped_and_read_only_ids() -> None:
    ids = np.repeat([1, 0, 2], [40, 20, 30])
    wanted = runs(ids)
    strided = np.repeat(ids, 2)[::2]
    swapped = ids.astype(ids.dtype.newbyteorder())
    frozen = ids.copy()
    frozen.flags.writeable = False
    offset = np.frombuffer(b"\0" + ids.tobytes(), np.uint8)[1:].view(np.int64)
    for other in (strided, swapped, frozen, offset):
        assert runs(other).starts.tolist() == wanted.starts.tolist()


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"ids, row 1, position 2: -3 is no segment id"):
        runs([[1, 1, 1], [0, 1, -3]])
    with pytest.raises(ValueError, match=r"position 0: 9223372036854775808 is no segment id"):
        runs(np.array([2**63], np.uint64))
    with pytest.raises(TypeError, match="ids must hold integers, got bool"):
        runs(np.array([True]))
    with pytest.raises(
        ValueError, match=r"ids must be \[tokens\] or \[rows, tokens\], got shape \(1, 1, 1\)"
    ):
        runs(np.ones((1, 1, 1), int))
    with pytest.raises(ValueError, match="rows of one length"):
        runs([[1], [1, 2]])
    with pytest.raises(ValueError, match="there are 2 segments, size=2 has room for 1"):
        cu_seqlens([1, 2], size=2)
    with pytest.raises(ValueError, match="segments end at token 5, after total=4"):
        segment_ids([3, 2], total=4)
    with pytest.raises(ValueError, match=r"lengths\[1\] is -1"):
        segment_ids([3, -1])
    with pytest.raises(ValueError, match=r"starts\[1\] is -1; starts must be 0 or more"):
        segment_ids([3, 2], starts=[0, -1])
    with pytest.raises(
        ValueError, match=r"starts\[2\] is 2, and segment 0 ends at 3; .*disjoint and in order"
    ):
        segment_positions([3, 0, 2], starts=[0, 1, 2])
    with pytest.raises(OverflowError, match=r"segment 0 starts at .* beyond int64"):
        segment_ids([1], starts=[2**63 - 1])
    for padding in ("left", None):
        with pytest.raises(ValueError, match="padding must be one of 'none', 'trailing', 'zeros', got"):
            from_positions([0], padding=padding)
    with pytest.raises(TypeError, match=r"ids must be integers, \[tokens\] or \[rows, tokens\], got None"):
        runs(None)
    with pytest.raises(ValueError, match="is missing: on a device"):
        jax.jit(segment_ids)(jnp.asarray([1]))
    with pytest.raises(ValueError, match="segment 0 has 5 tokens in a slot of 4"):
        segment_ids_from_cu_seqlens([0, 5], cu_seqlens_padded=[0, 4])


def in_a_fresh_process(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torch_compile_may_be_the_first_to_call() -> None:
    in_a_fresh_process(
        "import torch, rollkit.segments as s\n"
        "f = torch.compile(lambda a: s.positions(a), fullgraph=True, backend='eager')\n"
        "assert f(torch.tensor([1, 1, 2])).tolist() == [0, 1, 0]"
    )


def test_what_is_read_off_a_sharded_array_is_on_all_its_devices() -> None:
    in_a_fresh_process(
        "import os; os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=4'\n"
        "import jax, jax.numpy as jnp, numpy as np, rollkit.segments as s\n"
        "from jax.sharding import Mesh, NamedSharding, PartitionSpec as P\n"
        "spread = NamedSharding(Mesh(np.array(jax.devices()), ('x',)), P('x'))\n"
        "ids = jax.device_put(jnp.asarray([[1, 2, 2]] * 4), spread)\n"
        "found = s.runs(ids)\n"
        "assert found.positions().sharding == spread\n"
        "sums = found.cu_seqlens()\n"
        "assert sums.tolist() == [0, 1, 3, 4, 6, 7, 9, 10, 12]\n"
        "assert sums.sharding.is_fully_replicated and len(sums.devices()) == 4"
    )


def test_importing_rollkit_imports_neither_segments_nor_frameworks() -> None:
    code = (
        "import sys, rollkit; assert 'rollkit.segments' not in sys.modules\n"
        "import rollkit.segments; found = {'torch', 'jax'} & set(sys.modules); assert not found, found"
    )
    in_a_fresh_process(code)


def test_every_public_name_has_an_example() -> None:
    for name in dir(segments):
        value = getattr(segments, name)
        if not name.startswith("_") and callable(value) and not isinstance(value, type):
            assert "Example" in (value.__doc__ or ""), name
