"""Context parallelism: every token is some rank's, once, and a shard's metadata describes it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from rollkit.segments import (
    cp_inverse_reorder,
    cp_pad,
    cp_partition,
    cp_reorder,
    cp_restore,
    segment_ids_from_cu_seqlens,
    segment_positions,
    thd,
)
from rollkit.segments._cp import SCHEMES
from rollkit.testing import thd_reference


def loop(lengths: list[int], slots: list[int], cp: int, rank: int, scheme: str, stripe: int) -> Any:
    """One token at a time: (indices, valid tokens per segment, slots per segment)."""
    owner: list[int] = []
    segment: list[int] = []
    valid: list[bool] = []
    total = sum(slots)
    for number, (length, slot) in enumerate(zip(lengths, slots, strict=True)):
        for position in range(slot):
            at = len(owner)
            if scheme == "striped":
                who = at // stripe % cp
            elif scheme == "contiguous":
                who = at // (total // cp)
            else:
                size, where = (slot, position) if scheme == "zigzag" else (total, at)
                chunk = where // max(size // (2 * cp), 1) if cp > 1 else 0
                who = min(chunk, 2 * cp - 1 - chunk) if cp > 1 else 0
            owner.append(who)
            segment.append(number)
            valid.append(position < length)
    mine = [t for t in range(total) if owner[t] == rank]
    count = [sum(1 for t in mine if segment[t] == n and valid[t]) for n in range(len(lengths))]
    return mine, count, [sum(1 for t in mine if segment[t] == n) for n in range(len(lengths))]


@settings(max_examples=examples(300), deadline=None)
@given(
    lengths=st.lists(st.integers(0, 20), max_size=6),
    cp=st.integers(1, 5),
    scheme=st.sampled_from(SCHEMES),
    stripe=st.integers(1, 4),
)
def test_equals_a_loop_over_tokens(lengths: list[int], cp: int, scheme: str, stripe: int) -> None:
    padding = cp_pad(lengths, cp_size=cp, multiple_of=cp * stripe)
    slots = padding.lengths.tolist()
    options: Any = {"cu_seqlens_padded": padding.cu_seqlens_padded, "stripe": stripe}
    shards = []
    for rank in range(cp):
        shard = cp_partition(padding.cu_seqlens, cp, rank, scheme, **options)
        indices, valid, mine = loop(lengths, slots, cp, rank, scheme, stripe)
        assert shard.indices.tolist() == indices
        assert np.diff(shard.cu_seqlens).tolist() == valid
        assert np.diff(shard.cu_seqlens_padded).tolist() == mine
        assert shard.cu_seqlens.dtype == shard.cu_seqlens_padded.dtype == np.int32
        shards.append(shard.indices)
    joined = np.concatenate(shards)
    restored = joined[cp_restore(padding.cu_seqlens, cp, scheme, **options)]
    np.testing.assert_array_equal(restored, np.arange(len(restored)))


@settings(max_examples=examples(100), deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), cp=st.sampled_from([2, 4, 8]))
def test_the_running_sums_of_a_shard_are_those_of_its_ids(lengths: list[int], cp: int) -> None:
    padding = cp_pad(lengths, cp_size=cp)
    ids = segment_ids_from_cu_seqlens(padding.cu_seqlens, cu_seqlens_padded=padding.cu_seqlens_padded)
    for scheme in SCHEMES:
        for rank in range(cp):
            shard = cp_partition(
                padding.cu_seqlens, cp, rank, scheme, cu_seqlens_padded=padding.cu_seqlens_padded
            )
            described = segment_ids_from_cu_seqlens(
                shard.cu_seqlens, cu_seqlens_padded=shard.cu_seqlens_padded
            )
            np.testing.assert_array_equal(described, ids[shard.indices])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("cp", [2, 4, 8])
def test_ring_steps_equal_the_mask(scheme: str, cp: int) -> None:
    rng = np.random.default_rng(cp)
    padding = cp_pad(rng.integers(1, 40, 7), cp_size=cp, multiple_of=4)
    ids = segment_ids_from_cu_seqlens(padding.cu_seqlens, cu_seqlens_padded=padding.cu_seqlens_padded)
    positions = segment_positions(padding.lengths)
    options: Any = {"cu_seqlens_padded": padding.cu_seqlens_padded}
    shards = [cp_partition(padding.cu_seqlens, cp, rank, scheme, **options).indices for rank in range(cp)]
    for q in shards:
        for kv in shards:
            arrays = [ids[q], ids[kv], positions[q], positions[kv]]
            wanted = thd_reference(*(array[None] for array in arrays), max_segments=7)
            found = thd(
                *arrays[:2],
                positions_q=arrays[2],
                positions_kv=arrays[3],
                max_segments=7,
                on_reentry="te",
            )
            for got, want in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(got, want[0])


@pytest.mark.parametrize(
    ("options", "align"),
    [
        ({}, 1),
        ({"tp_size": 4}, 4),
        ({"cp_size": 4}, 8),
        ({"cp_size": 2, "tp_size": 4}, 16),
        ({"cp_size": 3, "fp8": True}, 48),
        ({"fp8": True}, 16),
        ({"cp_size": 2, "multiple_of": 6}, 12),
    ],
)
def test_alignments(options: Any, align: int) -> None:
    found = cp_pad([0, 1, align, align + 1], **options)
    assert found.alignment == align
    assert found.lengths.tolist() == [0, align, align, 2 * align]


@pytest.mark.parametrize("cp", [1, 2, 3, 4])
@pytest.mark.parametrize(("scheme", "stripe"), [("dual_chunk", 1), ("striped", 1), ("striped", 4)])
def test_reorder_and_back(cp: int, scheme: str, stripe: int) -> None:
    batch = np.arange(2 * 48 * 3).reshape(2, 48, 3)
    moved = cp_reorder(batch, cp, scheme=scheme, stripe=stripe)
    for rank, part in enumerate(np.split(moved, cp, axis=1)):
        wanted = cp_partition([0, 48], cp, rank, scheme, stripe=stripe).indices
        np.testing.assert_array_equal(part, batch[:, wanted])
    np.testing.assert_array_equal(cp_inverse_reorder(moved, cp, scheme=scheme, stripe=stripe), batch)


def test_other_frameworks() -> None:
    batch = np.arange(16).reshape(1, 16)
    wanted = cp_reorder(batch, 2)
    assert torch.equal(cp_reorder(torch.from_numpy(batch), 2), torch.from_numpy(wanted))
    jitted = jax.jit(lambda x: cp_reorder(x, 2))(jnp.asarray(batch))
    np.testing.assert_array_equal(jitted, wanted)
    for scheme in ("dual_chunk", "striped"):
        for function in (cp_reorder, cp_inverse_reorder):
            graph = torch.compile(
                lambda a, function=function, scheme=scheme: function(a, 2, scheme=scheme),
                fullgraph=True,
                backend="eager",
            )
            wanted = function(batch, 2, scheme=scheme)
            assert torch.equal(graph(torch.from_numpy(batch)), torch.from_numpy(wanted))
    shard = cp_partition(torch.tensor([0, 8, 16]), 2, 1)
    assert isinstance(shard.indices, torch.Tensor)
    assert shard.cu_seqlens.dtype == torch.int32
    assert isinstance(cp_pad(jnp.asarray([3]), cp_size=2).cu_seqlens, jax.Array)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"segment 1 has 6 tokens, which 4 chunks cannot share; pad it: "):
        cp_partition([0, 4, 10], 2, 0)
    with pytest.raises(ValueError, match=r"the stream has 10 tokens.*multiple of 4"):
        cp_partition([0, 4, 10], 2, 0, "dual_chunk")
    with pytest.raises(ValueError, match="rank must be below cp_size=2, got 2"):
        cp_partition([0, 4], 2, 2)
    with pytest.raises(ValueError, match="segment 0 has 5 tokens in a slot of 4"):
        cp_partition([0, 5], 2, 0, cu_seqlens_padded=[0, 4])
    with pytest.raises(ValueError, match="cu_seqlens falls from 4 to 2 at segment 1"):
        cp_partition([0, 4, 2], 2, 0)
    for call in (
        lambda sums: cp_partition(sums, 2, 0),
        lambda sums: cp_restore(sums, 2),
        segment_ids_from_cu_seqlens,
    ):
        with pytest.raises(ValueError, match=r"cu_seqlens\[0\] is 4; running sums begin with 0"):
            call([4, 8])
    with pytest.raises(ValueError, match=r"cu_seqlens_padded\[0\] is 4; the stream that ranks share begins"):
        cp_restore([0, 4], 2, cu_seqlens_padded=[4, 8])
    with pytest.raises(ValueError, match=r"the axis has 6 tokens.*multiple of 4"):
        cp_reorder(np.zeros((1, 6)), 2)
    with pytest.raises(OverflowError, match="beyond int32"):
        cp_pad([2**31])
    with pytest.raises(OverflowError, match="beyond int32"):
        cp_partition([0, 2**62], 2, 0)
    with pytest.raises(OverflowError, match="row 1"):
        cp_pad([2**62] * 3)
    with pytest.raises(TypeError, match="must be NumPy's"):
        cp_reorder([1], 2)
