"""`plan_bins` against the loop over all open bins that packers are usually written as."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rollkit._rows.binpack import ALGORITHMS, plan_bins
from rollkit.testing import plan_bins_reference

CAPACITY = 65536


def log_normal(rows: int) -> NDArray[np.int64]:
    """Lengths of σ = 0.9 and mean 3 800, up to 32 Ki."""
    found = np.random.default_rng(0).lognormal(np.log(3800) - 0.405, 0.9, rows)
    return found.clip(1, 32768).astype(np.int64)


@pytest.mark.benchmark(group="plan_bins, 2 000 rows")
@pytest.mark.parametrize("plan", [plan_bins, plan_bins_reference])
def test_small(benchmark: Any, plan: Any) -> None:
    lengths = log_normal(2000)
    bins = benchmark(plan, lengths, CAPACITY)
    np.testing.assert_array_equal(bins, plan_bins_reference(lengths, CAPACITY))


@pytest.mark.parametrize("rows", [100_000, 1_000_000])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_large(benchmark: Any, rows: int, algorithm: str) -> None:
    benchmark.group = f"plan_bins, {rows} rows"
    lengths = log_normal(rows)
    bins = benchmark(plan_bins, lengths, CAPACITY, algorithm=algorithm)
    assert np.bincount(bins, weights=lengths).max() <= CAPACITY
