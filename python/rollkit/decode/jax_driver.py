"""Decoding in JAX in buckets of static shapes: `decode`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit._check import positive
from rollkit._errors import at
from rollkit._extras import extra
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.ragged import Ragged
from rollkit.decode.active import ActiveBatch
from rollkit.decode.cache import compact

Step = Callable[[Any, Any, Any, Any], tuple[Any, Any, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What `decode` returns.

    Attributes:
        emitted: the tree that the step emits, each array `[n, max_steps, …]` by sequence, 0 where a
            sequence had ended.
        lengths: `[n]` int64: steps of each sequence.
        ended: `[n]` bool: whether the step said so, rather than `max_steps`.
        shapes: the row counts that were run, in order: as many compilations, at the first call.
        syncs: how often the host waited for the device.
    """

    emitted: Any
    lengths: NDArray[np.int64]
    ended: NDArray[np.bool_]
    shapes: tuple[int, ...]
    syncs: int

    def rollouts(self, prompts: Sequence[Any]) -> Rollouts:
        """Return columns, for a step that emits tokens, or tokens and their log-probabilities.

        Args:
            prompts: `[n]` token ids.

        Raises:
            TypeError: something else is emitted.
        """
        parts = self.emitted if isinstance(self.emitted, tuple) else (self.emitted,)
        if not 1 <= len(parts) <= 2 or any(getattr(part, "ndim", 0) != 2 for part in parts):
            raise TypeError("the step must emit tokens [rows], or (tokens [rows], log-probabilities [rows])")
        columns: dict[str, Any] = {"prompt_token_ids": list(prompts)}
        for name, part in zip(("response_ids", "rollout_logprobs"), parts, strict=False):
            dtype = np.int32 if name == "response_ids" else np.float32
            rows = np.asarray(part)
            with at(column=name):
                columns[name] = Ragged.from_rows(
                    [row[:end] for row, end in zip(rows, self.lengths, strict=True)], dtype
                )
        columns["stop_reasons"] = ["stop" if ended else "length" for ended in self.ended]
        return Rollouts(columns)


def decode(
    step: Step,
    params: Any,
    state: Any,
    n: int,
    *,
    max_steps: int,
    cfg: bool = False,
    compaction: bool = True,
) -> Decoded:
    """Run a step until all sequences have ended, on ever fewer rows, in few compiled shapes.

    The rows are a power of two (or `n`). A `lax.while_loop` stays on the device until half of them or
    fewer go on; then the host, which waits once for each bucket, moves those to the next one. What a
    sequence emits must depend on its own rows, slot and step only; draw with noise that is keyed by
    these (`sample` is), and compaction changes no token.

    Args:
        step: `step(params, state, slots, t) -> (state, emitted, ended)`, traced once for each shape.
            `slots` `[rows]` int32: the sequence of each row, for what is kept by sequence (seeds); `n`
            for rows that run in vain. `t`: int32, the step. `emitted`: a tree of arrays `[rows, …]`,
            `ended` `[rows]` bool: this was the sequence's last. Compilations are kept by function: pass
            the same one again (not a new lambda), and what changes in `params` or `state`.
        params: a tree, the same for all sequences: weights.
        state: a tree of arrays `[rows, …]`: caches, last tokens. Its shapes and dtypes stay.
        n: sequences; `state` has as many rows.
        max_steps: the most steps. It is the width of what is emitted, so that another number compiles
            anew: pass the largest you need, and let the step end sequences.
        cfg: `state` has `2 n` rows: conditional ones first, then unconditional ones in the same order;
            `slots`, what is emitted and `ended` are for the first half.
        compaction: `False` stays at `n` rows, to compare.

    Returns:
        A `Decoded`.

    Raises:
        TypeError: `state` holds something else than arrays, or `step` returns something else than above.
        ValueError: an array of `state`, or of what `step` returns, has another number of rows.

    Example:
        Sequence i counts from i to 4:

        >>> import jax.numpy as jnp
        >>> def count(params, state, slots, t):
        ...     return state + 1, state, state == 4
        >>> out = decode(count, None, jnp.arange(5), 5, max_steps=10)
        >>> out.rollouts([[0]] * 5)["response_ids"].to_list()
        [[0, 1, 2, 3, 4], [1, 2, 3, 4], [2, 3, 4], [3, 4], [4]]
        >>> out.shapes
        (5, 2, 1)
    """
    jax, jnp = extra("jax", "jax"), extra("jax.numpy", "jax")
    steps = positive("max_steps", max_steps)
    batch = ActiveBatch(n, cfg, buckets=compaction, slack=0.0 if compaction else 1.0)
    _check_state(jax, state, 2 * n if cfg else n)
    state = jax.tree_util.tree_map(jnp.asarray, state)
    slots = jnp.arange(n, dtype=jnp.int32)
    spec = _emitted(jax, step, (params, state, slots, jnp.int32(0)))
    out = jax.tree_util.tree_map(lambda leaf: jnp.zeros((n, steps, *leaf.shape[1:]), leaf.dtype), spec)
    lengths = jnp.zeros(n, jnp.int32)
    run = _bucket(step)
    shapes, t = [], 0
    while batch.active and t < steps:
        shapes.append(batch.rows)
        fewest = batch.rows // 2 if compaction else 0
        state, out, lengths, after, now = run(
            params, state, out, lengths, slots, jnp.int32(t), jnp.int32(fewest), jnp.int32(steps)
        )
        alive, t = np.asarray(after) < n, int(now)  # here the host waits
        plan = batch.finish(~alive, tokens=0)
        state = compact(state, plan)
        slots = jnp.asarray(np.where(batch.slots < 0, n, batch.slots), jnp.int32)
    ended = np.ones(n, bool)
    ended[batch.slots[batch.live]] = False
    return Decoded(out, np.asarray(lengths, np.int64), ended, tuple(shapes), len(shapes))


def _check_state(jax: Any, state: Any, rows: int) -> None:
    for leaf in jax.tree_util.tree_leaves(state):
        if not isinstance(leaf, jax.Array | np.ndarray):
            raise TypeError(f"state must hold arrays of JAX or NumPy, got {type(leaf).__name__}")
        if leaf.shape[:1] != (rows,):
            raise ValueError(f"state must have {rows} rows in every array, got shape {tuple(leaf.shape)}")


def _emitted(jax: Any, step: Any, given: tuple[Any, ...]) -> Any:
    """Return shapes of what a step emits, once it returns what a loop can go on with."""
    if not callable(step):
        raise TypeError(f"step must be a function, got {type(step).__name__}")
    found = jax.eval_shape(step, *given)
    if not (isinstance(found, tuple) and len(found) == 3):
        what = f"{len(found)} values" if isinstance(found, tuple) else type(found).__name__
        raise TypeError(f"step must return (state, emitted, ended), got {what}")
    state, emitted, ended = found
    _, before, slots, _ = given
    rows = slots.shape[0]
    trees = [jax.tree_util.tree_structure(tree) for tree in (before, state)]
    if trees[0] != trees[1]:
        raise TypeError(f"step must return state as the tree it is given, {trees[0]}, got {trees[1]}")
    for old, new in zip(*map(jax.tree_util.tree_leaves, (before, state)), strict=True):
        if _kind(old) != _kind(new):
            raise TypeError(f"step must return state as it is given, {_kind(old)}, got {_kind(new)}; cast it")
    for leaf in jax.tree_util.tree_leaves(emitted):
        if leaf.shape[:1] != (rows,):
            raise ValueError(f"step must emit arrays of {rows} rows, as slots, got shape {tuple(leaf.shape)}")
    if _kind(ended) != f"bool[{rows}]":
        raise TypeError(f"step must return ended as bool[{rows}], got {_kind(ended)}")
    return emitted


def _kind(array: Any) -> str:
    if not hasattr(array, "shape"):
        return type(array).__name__
    return f"{array.dtype}[{','.join(map(str, array.shape))}]"


@lru_cache(maxsize=32)
def _bucket(step: Step) -> Any:
    """Return the compiled loop over one bucket; JAX keeps one for each shape."""
    jax, jnp = extra("jax", "jax"), extra("jax.numpy", "jax")

    def run(
        params: Any, state: Any, out: Any, lengths: Any, slots: Any, t: Any, fewest: Any, steps: Any
    ) -> tuple[Any, ...]:
        n = lengths.shape[0]

        def goes_on(carry: Any) -> Any:
            *_, slots, t = carry
            return (t < steps) & ((slots < n).sum() > fewest)

        def body(carry: Any) -> Any:
            state, out, lengths, slots, t = carry
            state, emitted, ended = step(params, state, slots, t)
            # Rows that run in vain have slot n: out of bounds, and dropped.
            out = jax.tree_util.tree_map(
                lambda all_, new: all_.at[slots, t].set(new, mode="drop"), out, emitted
            )
            lengths = lengths.at[slots].set(t + 1, mode="drop")
            return state, out, lengths, jnp.where(ended, jnp.int32(n), slots), t + 1

        carried: tuple[Any, ...] = jax.lax.while_loop(goes_on, body, (state, out, lengths, slots, t))
        return carried

    # The outputs' buffers are written in place; the state's are the caller's, or of another shape.
    return jax.jit(run, donate_argnums=(2, 3))
