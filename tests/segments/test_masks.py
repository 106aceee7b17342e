"""Masks equal the O(T²) reference, and block masks those that torch makes of the same predicate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tests.thorough import by_level
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from rollkit.segments import block_mask, dense_mask, runs, splash_segment_ids
from rollkit.testing import mask_reference, thd_cases

MASKS = ("causal", "causal_bottom_right", "padding")
PARTS = [
    f"{full}{side}_{what}" for full in ("", "full_") for side in "q" for what in ("num_blocks", "indices")
] + [f"{full}kv_{what}" for full in ("", "full_") for what in ("num_blocks", "indices")]


def by_torch(ids: Any, mask: str, window: tuple[int, int] | None, size: Any) -> Any:
    """torch's block mask of the same rule, written as a user would."""
    found = torch.as_tensor(np.atleast_2d(ids))
    left, right = window or (-1, -1)

    def seen(b: Any, h: Any, q: Any, kv: Any) -> Any:
        same = (found[b, q] == found[b, kv]) & (found[b, q] > 0)
        if mask == "causal":
            same = same & (q >= kv)
        if left >= 0:
            same = same & (q - kv <= left)
        if right >= 0:
            same = same & (kv - q <= right)
        return same

    rows, width = found.shape
    return create_block_mask(seen, rows, None, width, width, device="cpu", BLOCK_SIZE=size)


def equal(found: Any, wanted: Any) -> None:
    for part in PARTS:
        assert torch.equal(getattr(found, part), getattr(wanted, part)), part
        assert getattr(found, part).dtype == torch.int32
    assert found.seq_lengths == wanted.seq_lengths
    assert found.BLOCK_SIZE == wanted.BLOCK_SIZE


def layout(rng: np.random.Generator, width: int) -> Any:
    """Documents of every length, some with holes, padding, or ids that come again."""
    ids = np.zeros(width, np.int64)
    at, number = int(rng.integers(0, 30)), 1
    while at < width:
        length = int(rng.integers(1, rng.choice([8, 60, 300])))
        ids[at : at + length] = number
        at += length + int(rng.choice([0, 0, 1, 40]))
        number += 1
    if rng.random() < 0.3:
        ids = np.where(ids > 0, ids % 3 + 1, 0)
    if rng.random() < 0.3:
        ids[rng.random(width) < 0.01] = 0
    return ids


@pytest.mark.parametrize("seed", range(by_level(8, 30)))
def test_block_mask_equals_torchs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 700))
    ids = np.stack([layout(rng, width) for _ in range(int(rng.integers(1, 3)))])
    size: Any = [128, 16, (64, 32), (16, 64)][seed % 4]
    for mask in ("causal", "padding"):
        for window in (None, (40, 0), (0, 0), (100, 5), (-1, 30)):
            equal(
                block_mask(torch.as_tensor(ids), mask=mask, window=window, block_size=size),
                by_torch(ids, mask, window, size),
            )


@pytest.mark.parametrize("ids", [[0] * 300, [1] * 256, [1], [0, 1], [1] * 128 + [2] * 128])
def test_block_mask_at_the_edges(ids: list[int]) -> None:
    for mask in ("causal", "padding"):
        equal(block_mask(ids, mask=mask), by_torch(ids, mask, None, 128))
    equal(block_mask(runs(np.array(ids))), by_torch(ids, "causal", None, 128))


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_block_mask_of_ids_that_come_again_all_along(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollkit.segments._masks.MOST_PAIRS", 50)
    ids = np.zeros((2, 500), np.int64)
    ids[0, ::2], ids[1] = np.arange(250) % count + 1, np.arange(500) % count
    for window in (None, (40, 0), (3, 7)):
        for mask in ("causal", "padding"):
            for size in (16, (48, 20)):
                found = block_mask(ids, mask=mask, window=window, block_size=size)
                equal(found, by_torch(ids, mask, window, size))


def test_block_mask_of_ids_beyond_int32() -> None:
    ids = np.repeat([2**40, 2**33, 2**40], 20)
    equal(block_mask(ids, block_size=8), by_torch(ids, "causal", None, 8))
    predicate = block_mask(ids, block_size=8).mask_mod
    assert [bool(predicate(0, 0, 45, at)) for at in (0, 25, 44, 46)] == [True, False, True, False]


def test_block_mask_of_many_runs_takes_the_memory_of_blocks() -> None:
    found = block_mask(np.arange(1 << 17) % 2, block_size=1024)  # 2³³ pairs of runs
    assert found.kv_num_blocks.sum() == 128 * 129 // 2


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_takes_it() -> None:
    ids = layout(np.random.default_rng(1), 300)
    ids[ids == 0] = 99
    q, k, v = torch.randn(3, 1, 2, 300, 16, dtype=torch.float64).unbind()
    found = flex_attention(q, k, v, block_mask=block_mask(ids))
    plain = torch.from_numpy(dense_mask(ids))[None, None]
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, plain)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("window", [None, (3, -1), (2, 2)])
def test_dense_mask_equals_the_reference(mask: str, window: Any) -> None:
    for name in ("cross, holes", "ring, striped 1", "anything"):
        case = thd_cases(name, 50)
        wanted = mask_reference(*case, mask=mask, window=window)
        for make in (np.asarray, torch.as_tensor, lambda a: jnp.asarray(a, jnp.int32)):
            q, kv, positions_q, positions_kv = map(make, case)
            found = dense_mask(
                q, kv, positions_q=positions_q, positions_kv=positions_kv, mask=mask, window=window
            )
            np.testing.assert_array_equal(np.asarray(found), wanted)


def test_dense_mask_of_one_array() -> None:
    ids = np.array([1, 1, 2, 2, 0])
    order = np.arange(5)
    np.testing.assert_array_equal(dense_mask(ids), mask_reference(ids, ids, order, order))
    traced = jax.jit(lambda x: dense_mask(x, window=(1, 0)))(jnp.asarray(ids))
    wanted = mask_reference(ids, ids, order, order, window=(1, 0))
    np.testing.assert_array_equal(traced, wanted)


def test_ids_below_0_attend_to_nothing() -> None:
    ids = np.array([-1, -1, 2])
    for make in (np.asarray, torch.as_tensor, jnp.asarray):
        assert np.asarray(dense_mask(make(ids))).sum() == 1


def test_windows_of_positions_far_apart() -> None:
    ids = np.array([1, 1])
    for dtype in (np.int32, np.int64):
        bounds = np.iinfo(dtype)
        places = np.array([bounds.min, bounds.max], dtype)
        for make in (np.asarray, torch.as_tensor, jnp.asarray):
            if make is jnp.asarray and dtype == np.int64:
                continue
            found = dense_mask(
                make(ids), positions_q=make(places), positions_kv=make(places), mask="padding", window=(9, 9)
            )
            assert np.asarray(found).tolist() == [[True, False], [False, True]]


def test_splash_segment_ids() -> None:
    q, kv = np.array([1, 1, 2], np.int64), np.array([1, 2, 2, 0], np.int64)
    found = splash_segment_ids(q, kv)
    assert found.q.dtype == found.kv.dtype == jnp.int32
    assert found.q.tolist() == q.tolist()
    assert found.kv.tolist() == kv.tolist()
    traced = jax.jit(lambda x: splash_segment_ids(x).q)(jnp.asarray(q))
    assert traced.tolist() == q.tolist()


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="compares positions; pass positions_q"):
        dense_mask([1, 2], [1, 2])
    with pytest.raises(ValueError, match=r"^window compares positions; pass positions_q"):
        dense_mask([1, 2], [1, 2], mask="padding", window=(1, 1))
    with pytest.raises(TypeError, match="ids is of jax; flex_attention is torch's"):
        block_mask(jnp.ones(4, jnp.int32))
    with pytest.raises(TypeError, match="ids is of jax; flex_attention is torch's"):
        block_mask(runs(jnp.ones(4, jnp.int32)))
    with pytest.raises(ValueError, match=r"block_size must be an int or \(q, kv\), got \(8, 8, 8\)"):
        block_mask([1], block_size=(8, 8, 8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mask must be one of 'causal', 'padding'"):
        block_mask([1], mask="causal_bottom_right")
    with pytest.raises(OverflowError, match="ids_kv has 4294967297, which is beyond int32"):
        splash_segment_ids(np.array([1]), np.array([2**32 + 1]))
    with pytest.raises(TypeError, match="ids_q is of torch; splash"):
        splash_segment_ids(torch.ones(4, dtype=torch.int32))
