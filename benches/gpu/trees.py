"""Forests on a device: their batches, sums and scores beside the host, and their gradients row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpu.cases import Rng, prefixed_rows
from gpu.setting import Array, Faults, Setting, check_bits, check_near, moved, own_operations, placed
from rollkit import Batch, Ragged, next_token_logprobs, pack, place, take

VOCABULARY = 11
CLOSE = 1e-5  # of float32 sums in another order


def of_torch(setting: Setting) -> Iterator[str]:
    """Many forests."""
    yield from _of(setting, "torch", _torch_gradient, setting.tries(1000, 10))


def of_jax(setting: Setting) -> Iterator[str]:
    """Few, since JAX compiles for each."""
    yield from _of(setting, "jax", _jax_gradient, setting.tries(40, 1))


def _of(
    setting: Setting, framework: str, gradient: Callable[..., Any], numbers: Iterator[int]
) -> Iterator[str]:
    with own_operations(setting, framework):
        count, worst, faults = 0, 0.0, Faults(setting)
        for number in numbers:
            rng = np.random.default_rng([4, number])
            rows = [row for row in prefixed_rows(rng, length=9, tokens=VOCABULARY) if row]
            if not rows:
                continue
            batch = pack(
                {"response_ids": rows}, max(map(len, rows)) + int(rng.integers(0, 9)), share_prefixes=True
            )
            there = moved(setting, framework, batch)
            with faults.of("moves"):
                check_moves(setting, framework, rng, batch, there)
            with faults.of("gradients"):
                check_gradients(setting, framework, gradient, batch)
            with faults.of("scores"):
                worst = max(worst, check_scores(setting, framework, gradient, rng, batch, there, rows))
            count += 1
        faults.check()
        yield f"{count} forests: place, take, reduce, edges and their gradients: bit for bit the host's"
        yield f"log-probabilities and their gradient beside rows one by one in float64: within {worst:.1e}"


def check_moves(setting: Setting, framework: str, rng: Rng, batch: Batch, there: Batch) -> None:
    """What moves elements, and sums of numbers that are exact."""
    layout: Any = batch.layout
    for name in batch:
        assert np.array_equal(np.asarray(there[name].tolist()), batch[name]), f"{name} of a moved batch"
    offsets = np.append(0, np.cumsum(layout.row_lengths))
    numbers = rng.integers(-9, 9, (int(offsets[-1]), 2)).astype(np.float32)
    host, column = (Ragged(x, offsets) for x in (numbers, placed(setting, framework, numbers)))
    for how in ("sum", "first"):
        wanted = layout.reduce(host, how)
        check_bits(layout.reduce(column, how), wanted, f"reduce {how!r} by {framework}, {layout!r}")
    wanted = place(host, layout, 7)
    check_bits(place(column, layout, 7), wanted, f"place by {framework}, {layout!r}")
    array = rng.normal(size=(*layout.shape, 2)).astype(np.float32)
    found = take(placed(setting, framework, array), layout)
    check_bits(found.flat, take(array, layout).flat, f"take by {framework}, {layout!r}")
    where = rng.integers(0, 2, layout.shape).astype(np.int32)
    pairs = zip(layout.edges(placed(setting, framework, where)), layout.edges(where), strict=True)
    for got, right in pairs:
        assert got.tolist() == right.tolist(), f"edges by {framework}, {layout!r}"
    masks = [where.reshape(-1)[: int(n)] for n in layout.row_lengths]
    flat = np.concatenate(masks)
    chosen = layout.edges(Ragged(placed(setting, framework, flat), offsets))
    for got, right in zip(chosen, layout.edges(Ragged(flat, offsets)), strict=True):
        assert got.tolist() == right.tolist(), f"edges of rows by {framework}, {layout!r}"


def check_gradients(setting: Setting, framework: str, gradient: Callable[..., Any], batch: Batch) -> None:
    """Of `take` each token has the weights of all its rows; of `reduce` each row those of its tokens."""
    layout: Any = batch.layout
    index = layout.gather_indices()
    weights = (np.arange(len(index)) % 61 + 1).astype(np.float32)
    wanted = np.zeros(layout.size, np.float32)
    np.add.at(wanted, index, weights)
    given = placed(setting, framework, np.ones(layout.shape, np.float32))
    found = gradient(lambda x: take(x, layout).flat, given, placed(setting, framework, weights))
    check_bits(found, wanted.reshape(layout.shape), f"gradient of take by {framework}, {layout!r}")

    offsets = np.append(0, np.cumsum(layout.row_lengths))
    cells = (np.arange(layout.size) % 61 + 1).astype(np.float32).reshape(layout.shape)
    given = placed(setting, framework, np.ones(len(index), np.float32))
    found = gradient(
        lambda x: layout.reduce(Ragged(x, offsets), "sum"), given, placed(setting, framework, cells)
    )
    check_bits(found, cells.reshape(-1)[index], f"gradient of reduce by {framework}, {layout!r}")


def check_scores(
    setting: Setting,
    framework: str,
    gradient: Callable[..., Any],
    rng: Rng,
    batch: Batch,
    there: Batch,
    rows: list[list[int]],
) -> float:
    """Scores of rows, and what weights of their tokens have for a gradient; how far they are off."""
    layout: Any = batch.layout
    logits = 3 * rng.normal(size=(*layout.shape, VOCABULARY)).astype(np.float32)
    weights = rng.normal(size=sum(map(len, rows))).astype(np.float32)
    scores, wanted = by_rows(logits.reshape(-1, VOCABULARY), batch, rows, weights)
    given = placed(setting, framework, logits)
    found = there.unpack(next_token_logprobs(given, there)).flat
    off = check_near(found, scores, CLOSE, f"scores by {framework}, {layout!r}")
    slope = gradient(
        lambda x: take(next_token_logprobs(x, there), layout).flat, given, placed(setting, framework, weights)
    )
    what = f"gradient of scores by {framework}, {layout!r}"
    return max(off, check_near(slope, wanted.reshape(logits.shape), CLOSE, what))


def by_rows(logits: Array, batch: Batch, rows: list[list[int]], weights: Array) -> tuple[Array, Array]:
    """The same of each row alone, in float64: log-probabilities, and the gradient of their weighted sum."""
    offsets, index = batch.layout.row_offsets(), batch.layout.gather_indices()
    scores, slope = np.zeros(len(index)), np.zeros(logits.shape)
    for row, tokens in enumerate(rows):
        path = index[offsets[row] : offsets[row + 1]]
        for i in range(1, len(tokens)):
            line = logits[path[i - 1]].astype(np.float64)
            chances = np.exp(line - line.max())
            chances /= chances.sum()
            at = int(offsets[row]) + i
            scores[at] = np.log(chances[tokens[i]])
            chosen = np.arange(len(line)) == tokens[i]
            slope[path[i - 1]] += float(weights[at]) * (chosen - chances)
    return scores, slope


def _torch_gradient(function: Callable[[Any], Any], given: Any, weights: Any) -> Any:
    given = given.detach().requires_grad_()
    (function(given) * weights).sum().backward()
    return given.grad


def _jax_gradient(function: Callable[[Any], Any], given: Any, weights: Any) -> Any:
    import jax

    return jax.grad(lambda x: (function(x) * weights).sum())(given)
