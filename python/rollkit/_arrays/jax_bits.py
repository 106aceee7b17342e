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
LOG = 5  # as shifts; XLA divides integers one by one


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


def latest(flags: Any) -> Any:
    """Where the last flag that is set is, at each element or before it; -1 where there is none."""
    words = _words(flags)
    ends = jnp.arange(words.shape[1], dtype=jnp.int32) * WORD + _last_bit(words)
    ends = lax.cummax(jnp.where(words > 0, ends, -1), axis=1)
    index, word, before = _within(flags, words, ends, -1)
    return jnp.where(word > 0, (index >> LOG << LOG) + _last_bit(word), before)


def rank(flags: Any) -> Any:
    """How many flags are set, at each element or before it."""
    words = _words(flags)
    ends = jnp.cumsum(_ones(words), axis=1, dtype=jnp.int32)
    _, word, before = _within(flags, words, ends, 0)
    return before + _ones(word)


def _within(flags: Any, words: Any, ends: Any, first: int) -> tuple[Any, Any, Any]:
    """For each element: its index, the bits of its word up to it, and what the word before ends with."""
    index = jnp.arange(flags.shape[1], dtype=jnp.int32)
    before = lax.pad(ends, jnp.int32(first), ((0, 0, 0), (1, -1, 0)))
    # Looked up, and not broadcast: then XLA would not use vectors.
    rows = jnp.arange(len(flags), dtype=jnp.int32)[:, None] * words.shape[1]
    at = (rows + (index >> LOG)).reshape(-1)
    word, before = (
        found.reshape(-1).at[at].get(mode="promise_in_bounds").reshape(flags.shape)
        for found in (words, before)
    )
    upto = np.uint32(2**WORD - 1) >> (WORD - 1 - (index & (WORD - 1))).astype(jnp.uint32)
    return index, word & upto, before


def _words(flags: Any) -> Any:
    """The flags of 32 tokens as one word, the first as the lowest bit."""
    rows, width = flags.shape
    padded = jnp.pad(flags, ((0, 0), (0, -width % WORD)))
    bits = padded.reshape(rows, -(-width // WORD), WORD).astype(jnp.uint32)
    return (bits << jnp.arange(WORD, dtype=jnp.uint32)).sum(-1, dtype=jnp.uint32)


def _ones(words: Any) -> Any:
    """How many bits are set."""
    return lax.population_count(words).astype(jnp.int32)


def _last_bit(words: Any) -> Any:
    """The highest bit that is set."""
    return WORD - 1 - lax.clz(words).astype(jnp.int32)


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
