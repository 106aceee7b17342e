"""Flags of JAX arrays, found by way of their bits.

XLA scans slowly, on a CPU above all: a running sum takes some ten times as long as a read. So the flags of
32 tokens become one word, only words are scanned, and the rest happens within a word.
"""

from typing import Any

import numpy as np

from rollkit._extras import extra

jax = extra("jax", "jax")
jnp = jax.numpy
lax = jax.lax

WORD = 32


def nth(flags: Any, count: int) -> Any:
    """Where each row's first `count` flags that are set are, and the width where there are fewer."""
    rows, width = flags.shape
    if not width:
        return jnp.zeros((rows, count), jnp.int32)
    words = _words(flags)
    ends = jnp.cumsum(_ones(words), axis=1, dtype=jnp.int32)
    index = jnp.arange(count, dtype=jnp.int32)
    found = jax.vmap(lambda row: jnp.searchsorted(row, index, side="right"))(ends).astype(jnp.int32)
    word = _along(words, found)
    inside = index[None] - (_along(ends, found) - _ones(word))
    return jnp.where(index[None] < ends[:, -1:], found * WORD + _nth_bit(word, inside), width)


def _words(flags: Any) -> Any:
    """The flags of 32 tokens as one word, the first as the lowest bit."""
    rows, width = flags.shape
    padded = jnp.pad(flags, ((0, 0), (0, -width % WORD)))
    bits = padded.reshape(rows, -(-width // WORD), WORD).astype(jnp.uint32)
    return (bits << jnp.arange(WORD, dtype=jnp.uint32)).sum(-1, dtype=jnp.uint32)


def _ones(words: Any) -> Any:
    """How many bits are set."""
    return lax.population_count(words).astype(jnp.int32)


def _nth_bit(word: Any, n: Any) -> Any:
    """Which bit is the n-th that is set, from 0, by halving the word."""
    found = jnp.zeros_like(n)
    for half in (16, 8, 4, 2, 1):
        lower = _ones(word & np.uint32((1 << half) - 1))
        above = n >= lower
        n, found = jnp.where(above, n - lower, n), jnp.where(above, found + half, found)
        word = jnp.where(above, word >> half, word)
    return found


def _along(rows: Any, index: Any) -> Any:
    return jnp.take_along_axis(rows, index, 1, mode="clip")
