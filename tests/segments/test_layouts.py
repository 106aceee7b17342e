"""Runs, layouts and batches in place of ids: the same results, without a look at a token."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollkit import Batch, Layout, pack, pad, segments
from rollkit.segments import Runs, runs

S = 16


@st.composite
def layouts(draw: Any) -> Layout:
    """A layout of any kind: rows that are empty, cut, dropped, in parts, or out of order."""
    rows = draw(st.lists(st.integers(0, 6), max_size=8))
    counts = np.array(rows, np.int64)
    kind = draw(st.sampled_from(["concat", "pad", "pack"]))
    if kind == "concat":
        layout = Layout.concat(rows, align=draw(st.integers(1, 4)))
    elif kind == "pad":
        layout = Layout.pad(rows, side=draw(st.sampled_from(["left", "right"])), multiple_of=3)
    else:
        layout = Layout.pack(
            rows,
            draw(st.integers(1, 12)),
            align=draw(st.integers(1, 3)),
            bins_multiple_of=draw(st.integers(1, 3)),
            oversize=draw(st.sampled_from(["truncate", "alone", "drop"])),
        )
    heads = np.array([draw(st.integers(0, n)) for n in rows], np.int64)
    what = draw(st.sampled_from(["whole", "spans", "union", "select"]))
    if what == "spans":
        return layout.spans(heads, counts - heads)
    if what == "union":
        parts = [layout.spans(0, heads), layout.spans(heads, counts - heads)]
        return Layout.union(parts[:: draw(st.sampled_from([1, -1]))])
    if what == "select" and kind == "pack" and layout.shape[0]:
        line = draw(st.integers(0, layout.shape[0] - 1))
        chosen = np.flatnonzero((layout.starts // layout.width == line) & (layout.starts >= 0))
        return layout.select(chosen[::-1], line, 1)
    return layout


def equal(found: Any, wanted: Any) -> None:
    """The same structure with the same numbers, in the same dtypes."""
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        found, wanted = list(found.values()), list(wanted.values())
    if isinstance(wanted, list | tuple):
        for one, other in zip(found, wanted, strict=True):
            equal(one, other)
        return
    assert str(getattr(found, "dtype", type(found))).rpartition(".")[2] == str(
        getattr(wanted, "dtype", type(wanted))
    )
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


def same_runs(found: Runs, wanted: Runs) -> None:
    for name in ("ids", "starts", "lengths"):
        assert getattr(found, name).dtype == np.int64
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), name)
    assert found.shape == wanted.shape


@settings(max_examples=400, deadline=None)
@given(layout=layouts())
def test_runs_of_a_layout_are_those_of_its_ids(layout: Layout) -> None:
    wanted = runs(layout.segment_ids())
    for found in (Runs.of(layout), runs(layout), runs(pickle.loads(pickle.dumps(Runs.of(layout))))):
        same_runs(found, wanted)
        assert found.like is None


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_rows_that_go_on_in_the_next_line(data: Any) -> None:
    shape = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5)))
    size = shape[0] * shape[1]
    cuts = sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=8)))
    starts = np.array(cuts[:-1], np.int64)
    lengths = np.array([data.draw(st.integers(0, b - a)) for a, b in pairwise(cuts)], np.int64)
    order = np.array(data.draw(st.permutations(range(len(starts)))))
    layout = Layout(shape, starts[order], lengths[order], lengths[order])
    same_runs(Runs.of(layout), runs(layout.segment_ids()))


def readings(ids: Any, positions: Any = None) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every function of segments that takes ids, with them and the positions that arrays must bring."""
    brought = {} if positions is None else {"positions_q": positions, "positions_kv": positions}
    for name in ("seqlens", "offsets"):
        yield name, lambda name=name: getattr(segments, name)(ids, S)  # type: ignore[misc]
    for name in ("positions", "run_length_fill", "cu_seqlens", "cu_seqlens_padded", "max_seqlen"):
        yield name, lambda name=name: getattr(segments, name)(ids)  # type: ignore[misc]
    yield "cu_seqlens, size", lambda: segments.cu_seqlens(ids, size=30)
    yield "thd of one", lambda: segments.thd(ids, max_segments=S)
    for mask in ("causal", "causal_bottom_right", "padding"):
        yield f"thd, {mask}", lambda m=mask: segments.thd(ids, ids, mask=m, max_segments=S, **brought)  # type: ignore[misc]
        yield f"mask, {mask}", lambda m=mask: segments.dense_mask(ids, ids, mask=m, **brought)  # type: ignore[misc]
    yield "mask of one", lambda: segments.dense_mask(ids)
    yield "mask, window", lambda: segments.dense_mask(ids, ids, window=(2, 1), **brought)
    yield "flash-attn", lambda: segments.flash_attn_varlen(ids, padding="removed")
    yield "flash-attn, pair", lambda: segments.flash_attn_varlen(ids, ids, padding="removed")
    yield "Hugging Face", lambda: segments.flash_attention_kwargs(ids, padding="removed", seq_idx=True)
    yield "Megatron", lambda: segments.packed_seq_params(ids)
    yield "TransformerEngine", lambda: segments.te_ids_and_positions(ids, ids)
    yield "MaxText", lambda: segments.maxtext_columns(ids)
    yield "grain", lambda: segments.grain_columns(ids)


@settings(max_examples=60, deadline=None)
@given(layout=layouts())
def test_every_function_takes_layouts_and_runs(layout: Layout) -> None:
    ids, positions = layout.segment_ids(), layout.positions()
    wanted = dict(readings(ids, positions))
    for described in (layout, Runs.of(layout), runs(ids)):
        for name, call in readings(described):
            equal(call(), wanted[name]())


ROWS = {"prompt_token_ids": [[1], [2, 3], [], [4]], "response_ids": [[5, 6], [7], [], [8, 9, 9]]}
MAKE: dict[str, Callable[[Any], Any]] = {"numpy": np.asarray, "torch": torch.as_tensor, "jax": jnp.asarray}
KIND: dict[str, type] = {"numpy": np.ndarray, "torch": torch.Tensor, "jax": jax.Array}


def arrays_in(found: Any) -> list[Any]:
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return [array for part in found for array in arrays_in(part)]
    return [] if isinstance(found, int | str) else [found]


@pytest.mark.parametrize("framework", MAKE)
@pytest.mark.parametrize("make", [lambda: pack(ROWS, 8, align=2), lambda: pad(ROWS)], ids=["pack", "pad"])
def test_every_function_takes_batches_of_every_framework(framework: str, make: Callable[[], Batch]) -> None:
    batch = make()
    ids, positions = batch["segment_ids"], batch["positions"]
    wanted = dict(readings(ids, positions))
    for described in (batch.to(framework), runs(batch.to(framework))):
        for name, call in readings(described):
            found = call()
            equal(found, wanted[name]())
            assert all(isinstance(array, KIND[framework]) for array in arrays_in(found)), name


def test_a_batch_on_a_device_is_not_read() -> None:
    batch = pack(ROWS, 8)
    there = batch.to("torch", "meta")  # has no values to read, as a device's are not the host's
    wanted = dict(readings(batch["segment_ids"], batch["positions"]))
    for name, call in readings(there):
        found, plain = arrays_in(call()), arrays_in(wanted[name]())
        assert [tuple(array.shape) for array in found] == [array.shape for array in plain], name
        assert all(array.device.type == "meta" for array in found), name
    assert segments.max_seqlen(there) == segments.max_seqlen(batch)
    assert segments.block_mask(there).kv_num_blocks.device.type == "meta"
    same_runs(runs(there), runs(batch["segment_ids"]))
    shard = segments.cp_partition(there, 2, 0, "striped")
    assert shard.indices.device.type == "meta"
    validated = segments.thd(there, there, max_segments=S, validate=True)
    assert validated.q_seqlens.device.type == "meta"


def test_a_batch_means_its_layout() -> None:
    batch = pack(ROWS, 8)
    wanted = dict(readings(batch.layout))
    odd = {"input_ids": batch["input_ids"], "segment_ids": np.full_like(batch["segment_ids"], 7)}
    for arrays in (odd, {"ids": batch["segment_ids"]}, {}):
        for name, call in readings(Batch(arrays, batch.layout, batch.prompt_lengths, {})):
            equal(call(), wanted[name]())


def test_blocks_and_splash() -> None:
    batch = pack(ROWS, 8)
    wanted = segments.block_mask(batch["segment_ids"], block_size=2)
    for described in (batch, batch.layout, batch.to("torch"), runs(batch)):
        found = segments.block_mask(described, block_size=2)
        for name in ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices"):
            assert torch.equal(getattr(found, name), getattr(wanted, name))
    for described in (batch, batch.layout, batch.to("jax"), runs(batch)):
        splash = segments.splash_segment_ids(described, described)
        equal([splash.q, splash.kv], [batch["segment_ids"]] * 2)
    with pytest.raises(TypeError, match=r"ids_q is of torch; splash attention is jax's: jnp\.asarray"):
        segments.splash_segment_ids(batch.to("torch"))
    with pytest.raises(TypeError, match=r"ids is of jax; flex_attention is torch's: torch\.as_tensor"):
        segments.block_mask(batch.to("jax"))


def test_context_parallelism() -> None:
    layout = Layout.concat([8, 3, 0, 4], align=4)
    found = runs(layout.segment_ids())
    sums, padded = found.cu_seqlens(), found.cu_seqlens_padded()
    batch = pad({"response_ids": [[1, 2, 3], [4]]}, side="right", width=4)
    for described in (layout, found):
        for scheme in ("zigzag", "dual_chunk", "striped", "contiguous"):
            for rank in range(2):
                one = segments.cp_partition(described, 2, rank, scheme)
                other = segments.cp_partition(sums, 2, rank, scheme, cu_seqlens_padded=padded)
                equal(list(vars(one).values()), list(vars(other).values()))
            equal(
                segments.cp_restore(described, 2, scheme),
                segments.cp_restore(sums, 2, scheme, cu_seqlens_padded=padded),
            )
        equal(segments.cp_pad(described, cp_size=2).lengths, np.array([8, 4, 4]))
    on_torch = segments.cp_partition(batch.to("torch"), 2, 0)
    assert torch.equal(on_torch.indices, torch.tensor([0, 3, 4, 7]))
    assert torch.equal(
        segments.cp_pad(batch.to("torch"), cp_size=2).cu_seqlens, torch.tensor([0, 3, 4]).int()
    )


def test_two_sides() -> None:
    batch = pack(ROWS, 8)
    ids, positions = batch["segment_ids"], batch["positions"]
    wanted = segments.thd(ids, ids, positions_q=positions, positions_kv=positions, max_segments=S)
    for framework, make in MAKE.items():
        there = batch.to(framework)
        q, at = make(ids), make(positions)
        sides = [(there, batch.layout), (batch.layout, there), (runs(there), batch.layout), (there, there)]
        for one, other in sides:
            equal(segments.thd(one, other, max_segments=S), wanted)
            found = segments.flash_attn_varlen(one, other, padding="removed")
            assert isinstance(found["cu_seqlens_q"], KIND[framework])
            assert isinstance(found["cu_seqlens_k"], KIND[framework])
        mixed = segments.thd(q, batch.layout, positions_q=at, max_segments=S)
        equal(mixed, wanted)
        assert isinstance(mixed.kv_offsets, KIND[framework])
        # Positions that are given go before those of the layout.
        still = segments.thd(there, q, positions_q=make(positions * 0 - 1), positions_kv=at, max_segments=S)
        assert np.asarray(still.q_seqlens).sum() == 0
    traced = jax.jit(lambda a: segments.thd(a, batch.layout, positions_q=positions.tolist(), max_segments=S))
    equal(traced(jnp.asarray(ids)), wanted)
    with pytest.raises(TypeError, match=r"ids_q is of torch, ids_kv of jax; convert one"):
        segments.flash_attn_varlen(batch.to("torch"), batch.to("jax"))
    with pytest.raises(TypeError, match=r"ids_q is of torch, ids_kv of jax; convert one"):
        segments.thd(batch.to("torch"), batch.to("jax"), max_segments=S)


def test_runs_that_do_not_pair_are_refused_as_ids_are() -> None:
    for ids in ([[1, 2, 1]], [[2, 1, 0]], [[1, 2, 3]]):
        for given_ in (ids, runs(ids)):
            with pytest.raises(ValueError, match="ids_q, row 0, position"):
                segments.thd(given_, max_segments=2)
        equal(
            segments.thd(runs(ids), max_segments=2, on_reentry="te"),
            segments.thd(ids, max_segments=2, on_reentry="te"),
        )
    with pytest.raises(ValueError, match="positions_q has 2 tokens per row, ids_q has 8"):
        segments.thd(pack(ROWS, 8), positions_q=[[0, 0]] * 2, max_segments=S)


def test_layouts_that_have_no_runs() -> None:
    one = (np.array([0]), np.array([1]), np.array([1]))
    with pytest.raises(ValueError, match=r"the layout must be \[tokens\] or \[rows, tokens\], got shape"):
        Runs.of(Layout((1, 2, 3), *one))
    with pytest.raises(OverflowError, match="the layout has rows of 2147483648 tokens, beyond int32"):
        segments.cu_seqlens(Layout((2**31,), *one))
    with pytest.raises(TypeError, match="given must be a Layout or a Batch, got list"):
        Runs.of([1, 2])  # type: ignore[arg-type]


def test_runs_pickle() -> None:
    batch = pack(ROWS, 8).to("torch")
    found = pickle.loads(pickle.dumps(runs(batch)))
    same_runs(found, runs(batch))
    assert torch.equal(found.positions(), batch["positions"])
