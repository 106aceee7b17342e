"""Gradients of a transformer on a forest beside those of one forward per row: PPO's clip, its own in each."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.paths import ROOT
from tests.thorough import by_level

from rollkit import Batch, pack, take
from rollkit.segments import tree_varlen

torch = pytest.importorskip("torch")
attention = torch.nn.functional.scaled_dot_product_attention

SEEDS = range(by_level(2, 10))
CLIP = 0.2
EXACT, SINGLE = 1e-12, 2e-6
"""How far a gradient may be off, by its norm, in float64 and in float32."""


@pytest.fixture(scope="module")
def example() -> Iterator[SimpleNamespace]:
    """The transformer that people copy, on one thread: more would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / "forest.py")))
    torch.set_num_threads(before)


class Case(NamedTuple):
    """Rows, and of each token the old log-probability, the weight, and the advantage."""

    batch: Batch
    """The rows as a forest, in bins with padding, one of which may be nothing else."""
    rows: list[Any]
    old: list[Any]
    weights: list[Any]
    advantages: list[Any]


def drawn(seed: int, *, one_old: bool = False) -> Case:
    """Twenty rows that begin alike: some are equal, and others begin with some.

    Args:
        seed: of all that is drawn.
        one_old: what rows share has one old log-probability, as where the trainer made them.
    """
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 64, 20)]
    for _ in range(17):
        other = rows[rng.integers(len(rows))]
        kept = other[: rng.integers(1, len(other) + 1)]
        rows.append(np.append(kept, rng.integers(0, 64, rng.integers(0, 15))))
    rows += [rows[3], rows[5][:-1]]
    batch = pack({"response_ids": rows}, 128, share_prefixes=True, bins_multiple_of=2).to("torch")
    old = [rng.normal(-np.log(64), 0.3, len(row)) for row in rows]
    if one_old:
        old = list(take(rng.normal(-np.log(64), 0.3, batch.layout.shape), batch.layout))
    weights = [rng.integers(0, 2, len(row)) * rng.uniform(0.1, 1) for row in rows]
    return Case(batch, rows, old, weights, [np.full(len(row), rng.normal()) for row in rows])


def gradient(model: Any, loss: Any) -> Any:
    found = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([part.flatten() for part in found]).double()


def apart(found: Any, wanted: Any) -> float:
    return float((found - wanted).norm() / wanted.norm())


def losses(logprobs: Any, old: Any, advantages: Any) -> Any:
    ratio = (logprobs - old).exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - CLIP, 1 + CLIP))


def row_by_row(model: Any, case: Case) -> Any:
    """The gradient that is wanted, with nothing of rollkit in it."""
    total, clipped = 0, 0
    for tokens, *columns in zip(*case[1:], strict=True):
        ids = torch.tensor(tokens)[None]
        logits = model(ids, torch.arange(len(tokens))[None], partial(attention, is_causal=True))[0, :-1]
        logprobs = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        old, weights, advantages = (torch.tensor(column[1:]).to(logits.dtype) for column in columns)
        total = total + (weights * losses(logprobs, old, advantages)).sum()
        clipped += int((((logprobs - old).exp() - 1).abs() > CLIP).sum())
    assert 0 < clipped < sum(map(len, case.rows)), "some are clipped, and some are not"
    return gradient(model, total)


def in_calls(batch: Batch) -> Any:
    """A varlen call of each node with its path: what flash-attn makes of `tree_varlen`."""
    found = tree_varlen(batch.layout, most=None)
    cu_q, cu_k = found["cu_seqlens_q"], found["cu_seqlens_k"]

    def attend(*heads: Any) -> Any:
        q, k, v = (x.transpose(0, 1).flatten(1, 2) for x in heads)  # [heads, tokens of all bins, …]
        seen = torch.zeros_like(q)
        for node in range(len(cu_q) - 1):
            mine = found["q_index"][cu_q[node] : cu_q[node + 1]]
            path = found["kv_index"][cu_k[node] : cu_k[node + 1]]
            mask = torch.ones(len(mine), len(path), dtype=torch.bool).tril(len(path) - len(mine))
            part = attention(q[:, mine], k[:, path], v[:, path], attn_mask=mask)
            seen = seen.index_put((torch.arange(len(q))[:, None], torch.tensor(mine)), part)
        return seen.unflatten(1, batch.layout.shape).transpose(0, 1)

    return attend


def scored(model: Any, case: Case, score: Any, attend: Any) -> Any:
    """The log-probability of each token, where it is in the bins."""
    return score(model(case.batch["input_ids"], case.batch["positions"], attend), case.batch)


def by_rows(model: Any, case: Case, score: Any, attend: Any) -> Any:
    """Log-probabilities go back to the rows, and any loss goes on from there."""
    logprobs = case.batch.unpack(scored(model, case, score, attend)).flat
    old, weights, advantages = (
        torch.tensor(np.concatenate(column)).to(logprobs.dtype) for column in case[2:]
    )
    return gradient(model, (weights * losses(logprobs, old, advantages)).sum())


def by_sums(example: Any, model: Any, case: Case, how: str = "sum", where: Any = 1.0) -> Any:
    """Two weights for each token, of rows that would have more of it, and of those that would have less."""
    bins: Any = case.batch.layout
    both = [w * a for w, a in zip(case.weights, case.advantages, strict=True)]
    more, less = (
        torch.tensor(bins.reduce([np.maximum(sign * x, 0) for x in both], how) * where) for sign in (1, -1)
    )
    old = torch.tensor(bins.reduce(case.old, "equal"))
    logprobs = scored(model, case, example.exact_logprobs, example.attention(case.batch))
    ratio = (logprobs - old).exp()
    bounded = ratio.clamp(1 - CLIP, 1 + CLIP)
    return gradient(
        model, (less * torch.maximum(ratio, bounded) - more * torch.minimum(ratio, bounded)).sum()
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kernel", ["dense", "varlen"])
def test_any_loss_of_rows(example: Any, seed: int, kernel: str) -> None:
    case = drawn(seed)
    attend = example.attention(case.batch) if kernel == "dense" else in_calls(case.batch)
    model = example.small_model(torch.float64)
    found = by_rows(model, case, example.exact_logprobs, attend)
    assert apart(found, row_by_row(model, case)) <= EXACT


@pytest.mark.parametrize("seed", SEEDS)
def test_any_loss_of_rows_in_float32(example: Any, seed: int) -> None:
    case, model = drawn(seed), example.small_model()
    found = by_rows(model, case, example.rollkit.next_token_logprobs, example.attention(case.batch))
    assert apart(found, row_by_row(model, case)) <= SINGLE


@pytest.mark.parametrize("seed", SEEDS)
def test_two_sums(example: Any, seed: int) -> None:
    """Where old log-probabilities are one for all rows, nothing is gathered."""
    case, model = drawn(seed, one_old=True), example.small_model(torch.float64)
    wanted = row_by_row(model, case)
    assert apart(by_sums(example, model, case), wanted) <= EXACT


@pytest.mark.parametrize("seed", SEEDS)
def test_naive_forms_are_other_gradients(example: Any, seed: int) -> None:
    case, model = drawn(seed, one_old=True), example.small_model(torch.float64)
    wanted = row_by_row(model, case)
    once = by_sums(example, model, case, how="first")  # a shared token counts for one of its rows
    assert apart(once, wanted) > 0.1
    layout: Any = case.batch.layout
    inside = np.ones(layout.shape)
    inside.reshape(-1)[layout.nodes.starts] = 0  # what comes first after a branch is left out
    branches = by_sums(example, model, case, where=inside)
    assert apart(branches, wanted) > 0.1
