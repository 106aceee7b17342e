"""JAX: log-probabilities picked from logits; the compiler fuses the cast into the sums over them."""

from functools import partial
from typing import Any

import numpy as np

from rollkit._extras import extra

jax = extra("jax", "jax")
jnp = jax.numpy


def picked(logits: Any, rows: Any, ids: Any, *, repeats: int, normalised: bool) -> Any:
    """`[E]` float32: what row `rows[i]` has for `ids[i]`, normalised; NaN where it has none."""
    if normalised:
        return _at(logits, rows, ids)
    return _picked(logits, jnp.asarray(rows), ids, repeats)


def _at(logits: Any, rows: Any, ids: Any) -> Any:
    unknown = (ids < 0) | (ids >= logits.shape[-1])  # a negative one would count from the end
    return jnp.where(unknown, jnp.nan, logits.at[rows, ids].get(mode="clip").astype(jnp.float32))


def _forward(logits: Any, rows: Any, ids: Any, repeats: int) -> tuple[Any, tuple[Any, ...]]:
    totals = jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1)
    return _at(logits, rows, ids) - totals[rows], (logits, rows, ids, totals)


def _backward(repeats: int, kept: tuple[Any, ...], grad: Any) -> tuple[Any, Any, Any]:
    """The gradient is made from the logits again: what is kept is one number a row."""
    logits, rows, ids, totals = kept
    single = len(rows) - repeats
    once = rows[:single]
    weights = jnp.zeros(len(logits), jnp.float32).at[once].set(grad[:single], unique_indices=True)
    chosen = jnp.full(len(logits), -1, ids.dtype).at[once].set(ids[:single], unique_indices=True)
    vocabulary = jnp.arange(logits.shape[1], dtype=ids.dtype)
    hits = vocabulary == chosen[:, None]
    shares = jnp.exp(logits.astype(jnp.float32) - totals[:, None])
    # Not `0 * shares`, which is NaN where a row that no token follows has none but -inf.
    found = jnp.where(weights[:, None] == 0, 0, (hits - shares) * weights[:, None])
    found = found.astype(logits.dtype)
    if repeats:
        again = rows[single:]
        hits = vocabulary == ids[single:, None]
        shares = jnp.exp(logits[again].astype(jnp.float32) - totals[again, None])
        found = found.at[again].add(((hits - shares) * grad[single:, None]).astype(found.dtype))
    return found, _none(rows), _none(ids)


def _none(index: Any) -> Any:
    return np.zeros(index.shape, jax.dtypes.float0)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _picked(logits: Any, rows: Any, ids: Any, repeats: int) -> Any:
    return _forward(logits, rows, ids, repeats)[0]


_picked.defvjp(_forward, _backward)
_picked = jax.jit(_picked, static_argnums=3)
