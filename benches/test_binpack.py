"""`plan_bins` against the loop over all open bins that packers are usually written as; layouts by size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rollkit import Layout
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


def case(kind: str, rows: int) -> tuple[NDArray[np.int64], int]:
    """Lengths, and a capacity for them."""
    if kind == "log-normal":
        return log_normal(rows), 32768
    return np.random.default_rng(0).integers(1, 41, rows), 4096


@pytest.mark.parametrize("rows", [8, 10_000, 1_000_000, 10_000_000])
@pytest.mark.parametrize("kind", ["log-normal", "uniform"])
@pytest.mark.parametrize("more", [{}, {"align": 64}, {"max_segments": 16}], ids=str)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_pack(benchmark: Any, rows: int, kind: str, more: dict[str, int], algorithm: str) -> None:
    benchmark.group = f"Layout.pack, {rows} rows, {kind}"
    lengths, capacity = case(kind, rows)
    layout = benchmark(Layout.pack, lengths, capacity, algorithm=algorithm, **more)
    assert layout.width == capacity


@pytest.mark.parametrize("rows", [8, 1_000_000])
def test_derived(benchmark: Any, rows: int) -> None:
    """The parts of a batch: prompts, responses, and both again."""
    benchmark.group = f"spans and union, {rows} rows"
    lengths, capacity = case("log-normal", rows)
    layout, heads = Layout.pack(lengths, capacity), lengths // 2

    def derive() -> Layout:
        return Layout.union([layout.spans(0, heads), layout.spans(heads, lengths - heads)])

    assert benchmark(derive).utilisation == layout.utilisation


def test_concat_of_eight(benchmark: Any) -> None:
    benchmark(Layout.concat, log_normal(8))
