"""Lengths and offsets of q and kv at 2²⁰ tokens, beside one read of the four arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rollkit.segments import thd


def ring_step(count: int, dtype: Any) -> list[Any]:
    length = (1 << 20) // count
    ids = np.repeat(np.arange(1, count + 1), length).astype(dtype)
    positions = np.tile(2 * np.arange(length), count).astype(dtype)
    return [ids, ids.copy(), positions, positions + dtype(1)]


@pytest.mark.parametrize("count", [16, 256])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("mask", ["one read", "causal", "causal_bottom_right", "padding"])
def test_q_and_kv(benchmark: Any, count: int, dtype: Any, mask: str) -> None:
    benchmark.group = f"thd, {count} segments, {np.dtype(dtype)}"
    ids_q, ids_kv, positions_q, positions_kv = arrays = ring_step(count, dtype)
    if mask == "one read":
        benchmark(lambda: [array.max() for array in arrays])
        return
    benchmark(
        thd,
        ids_q,
        ids_kv,
        positions_q=positions_q,
        positions_kv=positions_kv,
        mask=mask,
        max_segments=count,
    )
