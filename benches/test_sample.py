"""`sample` against transformers' way: over the full vocabulary, and in torch on the same compact logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rollkit.decode import AllowedSet, sample

VOCAB, ROWS, SCALE, HEAT, TOP_P = 217_204, 16, 2.0, 0.85, 0.9
OPTIONS: dict[str, Any] = {"cfg_scale": SCALE, "temperature": HEAT, "top_p": TOP_P, "positions": 0}


def codes(size: int) -> AllowedSet:
    """An end of sequence and the last `size` - 1 tokens."""
    return AllowedSet(range(VOCAB - size + 1, VOCAB), VOCAB, eos=151_645)


def branches(columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of both branches, N(0, 9)."""
    make = torch.Generator().manual_seed(0)
    return (
        3 * torch.randn(ROWS, columns, generator=make),
        3 * torch.randn(ROWS, columns, generator=make),
    )


def with_sort(cond: torch.Tensor, uncond: torch.Tensor, masked: torch.Tensor | None) -> torch.Tensor:
    """Draw as transformers' processors do: CFG, mask, temperature, sorted top-p, softmax, multinomial."""
    z = uncond + SCALE * (cond - uncond)
    if masked is not None:
        z = z.masked_fill(masked, -1e9)
    z = z / HEAT
    rising, order = z.sort(descending=False)
    dropped = rising.softmax(-1).cumsum(-1) <= 1 - TOP_P
    dropped[..., -1:] = False
    z = z.masked_fill(dropped.scatter(1, order, dropped), -torch.inf)
    return torch.multinomial(z.softmax(-1), 1)[:, 0]


@pytest.mark.parametrize("size", [2049, 65536])
@pytest.mark.parametrize("how", ["full", "compact", "rollkit", "rollkit, full logits"])
def test_top_p(benchmark: Any, size: int, how: str) -> None:
    benchmark.group = f"sample, V = {VOCAB}, B = {ROWS}, C = {size}, CFG, top-p {TOP_P}"
    allowed = codes(size)
    masked = torch.ones(VOCAB, dtype=torch.bool)
    masked[torch.from_numpy(allowed.ids.copy()).long()] = False
    full = "full" in how
    cond, uncond = branches(VOCAB if full else size)
    torch.set_num_threads(1)
    if "rollkit" in how:
        seeds = np.arange(ROWS)
        benchmark(sample, cond, uncond, allowed=allowed, seeds=seeds, logprobs=None, **OPTIONS)
    else:
        benchmark(with_sort, cond, uncond, masked if full else None)


@pytest.mark.parametrize("size", [2049, 65536])
@pytest.mark.parametrize(
    "filters",
    [{"top_p": 1.0}, {"top_k": 50}, {"min_p": 0.05}, {"top_k": 50, "top_p": 0.9}, {"temperature": 0.0}],
    ids=str,
)
def test_filters(benchmark: Any, size: int, filters: dict[str, Any]) -> None:
    benchmark.group = f"sample, B = {ROWS}, C = {size}, CFG"
    cond, uncond = (branch.numpy() for branch in branches(size))
    options = {"cfg_scale": SCALE, "temperature": HEAT, "seeds": np.arange(ROWS), "positions": 0} | filters
    benchmark(sample, cond, uncond, allowed=codes(size), **options)
