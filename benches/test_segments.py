"""Runs and ids at 2²⁰ tokens, beside one read of the ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rollkit import segments

TOKENS = 1 << 20


@pytest.mark.parametrize("count", [16, 256, 16_384])
@pytest.mark.parametrize("run", [np.max, segments.runs, segments.positions], ids=lambda run: run.__name__)
def test_of_ids(benchmark: Any, count: int, run: Any) -> None:
    benchmark.group = f"segments, {count} segments"
    benchmark(run, np.repeat(np.arange(1, count + 1, dtype=np.int32), TOKENS // count))


@pytest.mark.parametrize("run", [segments.segment_ids, segments.segment_positions])
def test_of_lengths(benchmark: Any, run: Any) -> None:
    benchmark.group = "segments, 16 384 lengths"
    lengths = np.random.default_rng(0).integers(1, 97, 16_384)
    assert len(benchmark(run, lengths)) == lengths.sum()


@pytest.mark.parametrize("scheme", ["zigzag", "striped", "contiguous"])
def test_cp_partition(benchmark: Any, scheme: str) -> None:
    benchmark.group = "cp_partition, 2048 segments, cp 4"
    padding = segments.cp_pad(np.random.default_rng(0).integers(1, 800, 2048), cp_size=4)
    benchmark(segments.cp_partition, padding.cu_seqlens_padded, 4, 1, scheme)
