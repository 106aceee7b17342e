"""`thd` equals the O(T²) mask on every backend, and what a kernel makes of it is what the mask says.

`ROLLKIT_THOROUGH=2 pytest tests/test_thd.py` compares 427 500 cases per backend and dtype.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import by_level, combinations, examples

from rollkit import pack
from rollkit.segments import THD, _device, dense_mask, runs, thd
from rollkit.testing import (
    attended_reference,
    mask_reference,
    pairs_reference,
    thd_cases,
    thd_reference,
)
from rollkit.testing.segments import CASES, Case

COUNT = by_level(100, 400, 7500)
CHUNK = min(COUNT, 2500)
MASKS = ("causal", "causal_bottom_right", "padding")
S = 6


def equal(found: Any, wanted: THD, what: Any = "") -> None:
    for name, got, want in zip(THD._fields, found, wanted, strict=True):
        got = np.asarray(got)
        assert got.dtype == np.int32
        assert got.shape == want.shape
        wrong = np.flatnonzero((got != want).any(-1))
        assert not len(wrong), f"{name} of case {wrong[0]} ({len(wrong)} wrong) {what}"


@functools.lru_cache(len(CASES))
def drawn(name: str, seed: int) -> tuple[Case, dict[str, THD]]:
    case = thd_cases(name, CHUNK, seed)
    return case, {mask: thd_reference(*case, mask=mask, max_segments=S) for mask in MASKS}


def chunks(name: str) -> Any:
    for seed in range(-(-COUNT // CHUNK)):
        yield drawn(name, seed)


def found(case: Case, mask: str, **options: Any) -> THD:
    q, kv, positions_q, positions_kv = case
    options = {"max_segments": S, "on_reentry": "te", **options}
    return thd(q, kv, positions_q=positions_q, positions_kv=positions_kv, mask=mask, **options)


@pytest.mark.parametrize("name", CASES)
def test_numpy(name: str) -> None:
    for case, wanted in chunks(name):
        for mask in MASKS:
            equal(found(case, mask), wanted[mask], mask)
            narrow = Case(*(array.astype(np.int32) for array in case))
            equal(found(narrow, mask), wanted[mask], mask)
        if name.startswith("self"):
            equal(thd(case.ids_q, max_segments=S, on_reentry="te"), wanted["causal"])
            equal(thd(case.ids_q.astype(np.uint8), max_segments=S, on_reentry="te"), wanted["causal"])


@pytest.mark.parametrize("name", CASES)
def test_torch(name: str) -> None:
    for case, wanted in chunks(name):
        wide = [torch.from_numpy(array) for array in case]
        narrow = [tensor.int() for tensor in wide]
        for mask in MASKS:
            for tensors in (wide, narrow):
                # The tensors' memory goes through Rust; these are the operations of other devices.
                ops = _ops("torch")
                equal(_device.thd(ops, *tensors, mask=mask, max_segments=S), wanted[mask], mask)
            equal(found(Case(*narrow), mask), wanted[mask], mask)
        if name.startswith("self"):
            equal(_device.thd_self(ops, narrow[0], max_segments=S), wanted["causal"])


@functools.cache
def jitted(mask: str, mapped: bool) -> Any:
    def call(*case: Any) -> THD:
        return found(Case(*case), mask)

    return jax.jit(jax.vmap(call) if mapped else call)


@jax.jit
def jitted_self(ids: Any) -> THD:
    return thd(ids, max_segments=S, on_reentry="te")


@pytest.mark.parametrize("name", CASES)
def test_jax(name: str) -> None:
    for case, wanted in chunks(name):
        arrays = [jnp.asarray(array, jnp.int32) for array in case]
        for mask in MASKS:
            for mapped in (False, True):
                equal(jitted(mask, mapped)(*arrays), wanted[mask], (mask, mapped))
        if name.startswith("self"):
            equal(jitted_self(arrays[0]), wanted["causal"])


@pytest.mark.parametrize("name", CASES)
def test_rows_of_several_words(name: str) -> None:
    # Devices look at 32 tokens at a time; the other cases are that wide.
    case = thd_cases(name, 40, width=148)
    for mask, mapped in combinations(MASKS, (True, False)):
        wanted = thd_reference(*case, mask=mask, max_segments=S)
        arrays = [jnp.asarray(array, jnp.int32) for array in case]
        equal(jitted(mask, mapped)(*arrays), wanted, (mask, mapped))
        tensors = [torch.from_numpy(array) for array in case]
        equal(_device.thd(_ops("torch"), *tensors, mask=mask, max_segments=S), wanted, mask)


def test_jax_with_64_bits() -> None:
    mask = "causal_bottom_right"
    call = jax.jit(lambda *arrays: found(Case(*arrays), mask))
    with jax.enable_x64(True):
        for name in ("cross, holes", "ring, striped 1", "anything"):
            case, wanted = drawn(name, 0)
            equal(call(*(jnp.asarray(array, jnp.int64) for array in case)), wanted[mask], name)


def test_jax_arrays_of_the_host_go_through_rust() -> None:
    case, wanted = drawn("ring, zigzag", 0)
    arrays = [jnp.asarray(array, jnp.int32) for array in case]
    result = found(Case(*arrays), "causal")
    assert all(isinstance(array, jax.Array) for array in result)
    equal(result, wanted["causal"])


@pytest.mark.parametrize("name", CASES)
def test_raises_iff_lengths_and_offsets_do_not_pair(name: str) -> None:
    case, wanted = drawn(name, 0)
    for mask in MASKS:
        attends = mask_reference(*case, mask=mask)
        q = np.where(attends.any(-1), case.ids_q, 0)
        kv = np.where(attends.any(-2), case.ids_kv, 0)
        pair = pairs_reference(q, S) & pairs_reference(kv, S)
        if pair.any():
            kept = Case(*(array[pair] for array in case))
            equal(found(kept, mask, on_reentry="raise"), THD(*(array[pair] for array in wanted[mask])))
        for row in np.flatnonzero(~pair)[:50]:
            one = Case(*(array[row] for array in case))
            with pytest.raises(ValueError, match=r"ids_(q|kv), row 0, position \d+: segment id"):
                found(one, mask, on_reentry="raise")


@pytest.mark.parametrize(
    ("name", "masks"),
    [
        ("self, full", MASKS),
        ("self, padding between", MASKS),
        ("self, sparse ids", MASKS),
        ("cross", MASKS),
        ("cross, longer kv", MASKS),
        ("ring, striped 1", ("causal", "padding")),
        ("empty side", MASKS),
    ],
)
def test_a_kernel_attends_to_what_the_mask_says(name: str, masks: tuple[str, ...]) -> None:
    case, _ = drawn(name, 0)
    width = case.ids_q.shape[-1]
    for mask in masks:
        result = found(case, mask, max_segments=14, on_reentry="raise")
        attended = attended_reference(result, width, width, mask=mask)
        wrong = (attended != mask_reference(*case, mask=mask)).any((-1, -2))
        assert not wrong.any(), f"case {wrong.argmax()} of {name}, {mask}"


row = st.lists(st.integers(0, 8), min_size=1, max_size=24)
spans = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), max_size=12)


@st.composite
def sides(draw: Any) -> tuple[list[int], list[int]]:
    ids = draw(row) if draw(st.booleans()) else [i for i, n in draw(spans) for _ in range(n)]
    return ids, draw(st.lists(st.integers(-9, 99), min_size=len(ids), max_size=len(ids)))


@settings(max_examples=examples(300), deadline=None)
@given(q=sides(), kv=sides(), mask=st.sampled_from(MASKS), most=st.integers(1, 9))
def test_any_lists(q: Any, kv: Any, mask: str, most: int) -> None:
    case = Case(*(np.array([x], np.int64).reshape(1, -1) for x in (q[0], kv[0], q[1], kv[1])))
    wanted = thd_reference(*case, mask=mask, max_segments=most)
    equal(found(case, mask, max_segments=most), wanted)
    known = max(most + 1, case.ids_q.shape[1], case.ids_kv.shape[1])
    if max(case.ids_q.max(initial=0), case.ids_kv.max(initial=0)) <= known:  # others are padding there
        tensors = [torch.from_numpy(array) for array in case]
        equal(_device.thd(_ops("torch"), *tensors, mask=mask, max_segments=most), wanted)


@settings(max_examples=examples(100), deadline=None)
@given(ids=st.lists(st.integers(0, 2**62), max_size=40), dtype=st.sampled_from([np.int64, np.uint64]))
def test_ids_may_be_large(ids: list[int], dtype: Any) -> None:
    array = np.array([ids], dtype)
    zeros = np.zeros_like(array)
    wanted = thd_reference(array, array, zeros, zeros, max_segments=5)
    equal(found(Case(array, array, zeros, zeros), "causal", max_segments=5), wanted)
    equal(thd(array, max_segments=5, on_reentry="te"), wanted)


@pytest.mark.parametrize(("mask", "dtype"), combinations(MASKS, [np.int64, np.int32, np.uint32]))
def test_positions_at_the_ends_of_a_dtype(mask: str, dtype: Any) -> None:
    bounds = np.iinfo(dtype)
    if mask == "causal_bottom_right" and dtype == np.int64:
        return  # a key would be beyond every dtype
    ids = np.array([[1, 1, 2, 2, 3, 5, 5]]), np.array([[1, 2, 2, 2, 4, 5, 5]])
    rng = np.random.default_rng(0)
    ends = np.array([bounds.max, bounds.max - 1, bounds.min, bounds.min + 1], dtype)
    for _ in range(by_level(10, 40)):
        case = Case(*ids, *(rng.choice(ends, (2, 1, 7))))
        wanted = thd_reference(*case, mask=mask, max_segments=S)
        pairs = mask_reference(*case, mask=mask)
        equal(found(case, mask), wanted, case)
        tensors = Case(*map(torch.from_numpy, case))
        plain = _ops("torch").run(_device.thd, *tensors, mask=mask, max_segments=S)
        equal(plain, wanted, case)
        options: Any = {"positions_q": case.positions_q, "positions_kv": case.positions_kv, "mask": mask}
        np.testing.assert_array_equal(dense_mask(*ids, **options), pairs)
        with jax.enable_x64(True):
            equal(jitted(mask, False)(*map(jnp.asarray, case)), wanted, case)
        if dtype == np.int32 and mask == "causal":
            equal(jitted(mask, False)(*map(jnp.asarray, case)), wanted, case)


def test_validation_on_a_device_is_that_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    # A device that is not the host, so that its operations and checks are those used.
    monkeypatch.setattr("rollkit._arrays.torch.is_host", lambda array: False)
    again, negative = torch.tensor([2, 1]), torch.tensor([1, -1])
    for sides in ((again,), (again, again)):
        options: Any = {"mask": "padding", "max_segments": 2}
        assert thd(*sides, on_reentry="te", validate=True, **options).q_seqlens.tolist() == [1, 1]
        with pytest.raises(ValueError, match="comes after"):
            thd(*sides, validate=True, **options)
        with pytest.raises(ValueError, match="-1 is no segment id"):
            thd(*(negative for _ in sides), on_reentry="te", validate=True, **options)
        assert thd(*sides, **options).q_seqlens.tolist() == [1, 1]


def test_runs_layouts_and_batches_bring_their_positions() -> None:
    batch = pack({"response_ids": [[1, 2, 3], [4, 5], [6]]}, 4)
    ids, places = batch["segment_ids"], batch["positions"]
    wanted = thd(ids, ids, positions_q=places, positions_kv=places, max_segments=2)
    for side in (batch, batch.layout, runs(ids), batch.to("torch")):
        equal(thd(side, side, max_segments=2), wanted)
        equal(thd(side, side, mask="padding", max_segments=2), wanted)
        equal(thd(side, max_segments=2), wanted)


def test_long_runs_that_a_bound_cuts() -> None:
    ids = np.repeat(np.arange(1, 5), 5000)[None]
    rng = np.random.default_rng(0)
    rising = np.tile(np.arange(5000), 4)[None]
    mixed = np.concatenate([rng.permutation(5000) for _ in range(4)])[None]
    for positions_q in (rising, mixed):
        for positions_kv in (rising + 1000, mixed + 4000):
            case = Case(ids, ids, positions_q, positions_kv)
            bound = thd_reference(*(a[:, ::10] for a in case), max_segments=40)
            assert bound.q_seqlens.sum()
            result = found(case, "causal", max_segments=9)
            lowest = positions_kv.reshape(4, -1).min(1).repeat(5000)
            highest = positions_q.reshape(4, -1).max(1).repeat(5000)
            lengths = np.bincount(ids[0][positions_q[0] >= lowest], minlength=10)[1:]
            np.testing.assert_array_equal(result.q_seqlens[0], lengths)
            lengths = np.bincount(ids[0][positions_kv[0] <= highest], minlength=10)[1:]
            np.testing.assert_array_equal(result.kv_seqlens[0], lengths)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_no_tokens(shape: tuple[int, ...]) -> None:
    for ids in (np.zeros(shape, int), torch.zeros(shape, dtype=torch.int32), jnp.zeros(shape, jnp.int32)):
        for result in (
            thd(ids, max_segments=2),
            thd(ids, ids, positions_q=ids, positions_kv=ids, max_segments=2),
        ):
            assert np.asarray(result.q_seqlens).shape == (*shape[:-1], 2)
            assert (np.asarray(result.kv_offsets) == -1).all()
    both = jax.jit(lambda x: thd(x, x, positions_q=x, positions_kv=x, max_segments=2))
    assert both(jnp.zeros(shape, jnp.int32)).q_offsets.shape == (*shape[:-1], 3)


def test_inside_shard_map() -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("x",))
    spec = jax.sharding.PartitionSpec("x")  # type: ignore[no-untyped-call]
    case, wanted = drawn("ring, striped 1", 0)
    arrays = [jnp.asarray(array, jnp.int32) for array in case]
    shard = jax.shard_map(lambda *a: found(Case(*a), "causal"), mesh=mesh, in_specs=spec, out_specs=spec)
    equal(jax.jit(shard)(*arrays), wanted["causal"])


def test_torch_compile_traces_it() -> None:
    case, wanted = drawn("cross", 0)
    tensors = [torch.from_numpy(array).int() for array in case]
    compiled = torch.compile(lambda *a: tuple(found(Case(*a), "causal")), fullgraph=True, backend="eager")
    equal(compiled(*tensors), wanted["causal"])


def test_the_graph_holds_no_mask_and_no_one_hot() -> None:
    width, most = 4096, 256
    ids = jnp.zeros((1, width), jnp.int32)
    plan: Any = jax.jit(lambda a, b, c, d: found(Case(a, b, c, d), "causal", max_segments=most))
    compiled = plan.lower(ids, ids, ids, ids).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 32 * width
    assert compiled.cost_analysis()["flops"] <= 150 * width


def test_errors_say_what_to_do() -> None:
    ids = np.array([1, 1, 2])
    with pytest.raises(TypeError, match=r"ids_q is of numpy, ids_kv of torch; convert one: ids_kv = np"):
        thd(ids, torch.from_numpy(ids), mask="padding", max_segments=2)
    with pytest.raises(ValueError, match="positions_kv is missing"):
        thd(ids, ids, positions_q=ids, max_segments=2)
    with pytest.raises(ValueError, match="positions_q has 2 tokens per row, ids_q has 3"):
        thd(ids, ids, positions_q=ids[:2], positions_kv=ids, max_segments=2)
    with pytest.raises(TypeError, match="ids_q must hold integers, got float64"):
        thd(ids * 1.0, max_segments=2)
    with pytest.raises(ValueError, match=r"ids_q, row 0, position 1: -1 is no segment id"):
        thd([1, -1], max_segments=2)
    with pytest.raises(ValueError, match="segment id 2 is beyond max_segments=1"):
        thd(ids, max_segments=1)
    with pytest.raises(ValueError, match=r"segment id 1 is entered again after id 2; .* on_reentry"):
        thd([1, 2, 1], max_segments=2)
    with pytest.raises(ValueError, match="segment id 1 comes after id 2"):
        thd([2, 1], max_segments=2)
    with pytest.raises(ValueError, match="window must be"):
        thd(ids, window=3, max_segments=2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mask must be one of"):
        thd(ids, mask="full", max_segments=2)
    with pytest.raises(TypeError, match="validate=True needs values"):
        jax.jit(lambda a: thd(a, max_segments=2, validate=True))(jnp.asarray(ids))
    ones = jnp.asarray(ids)
    with pytest.raises(TypeError, match="validate=True needs values"):
        jax.jit(lambda a: thd(ones, a, mask="padding", max_segments=2, validate=True))(ones)
    with pytest.raises(ValueError, match="-1 is no segment id"):
        thd([1, -1], max_segments=2, validate=False)
    with pytest.raises(ValueError, match="positions_q has 2 tokens per row, ids_q has 3"):
        thd(ids, positions_q=ids[:2], max_segments=2)
    for first, second in ((None, ids), (None, None)):
        with pytest.raises(TypeError, match=r"ids_q must be integers, \[tokens\] or .*, got None"):
            thd(first, second, mask="padding", max_segments=2)
    same, fallen = [1, 1, 1], [5, 0, 5]
    with pytest.raises(ValueError, match=r"ids_q, row 0, position 2: segment id 1 goes on .* do not rise"):
        thd(same, same, positions_q=fallen, positions_kv=[3, 4, 5], max_segments=1)
    with pytest.raises(OverflowError, match="65536 rows of 32770 table entries are beyond int32; pass fewer"):
        jax.eval_shape(
            lambda a: thd(a, a, mask="padding", max_segments=9),
            jax.ShapeDtypeStruct((1 << 16, (1 << 15) + 1), jnp.int32),  # type: ignore[no-untyped-call]
        )
    with pytest.raises(ValueError, match="max_segments must be at most 65536, for rows of 4 tokens"):
        thd(np.zeros((0, 4), int), max_segments=2**45)
    with pytest.raises(ValueError, match="max_segments must be at least 1"):
        thd(ids, max_segments=0)
    assert thd(np.array([2, 1]), max_segments=2, validate=False).q_seqlens.tolist() == [1, 1]


def _ops(name: str) -> Any:
    from rollkit._arrays.ops import ops

    return ops(name)
