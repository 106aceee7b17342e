"""Noise that belongs to tokens: `uniforms`.

    bits = finalise(finalise(id · φ ^ k₀) ^ k₁) >> 9        (k₀, k₁) from (seed, position)
    u    = (bits + ½) / 2²³

All integers have 32 bits, so that Rust, NumPy, torch and JAX get the same ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit._arrays.ops import ops_of
from rollkit._check import int64s
from rollkit._frameworks import check_ints, is_array
from rollkit.decode._keys import POSITIONS
from rollkit.decode._operations import operations_of


def uniforms(seeds: Any, positions: Any, ids: Any) -> Any:
    """Return the uniform of each token: a hash of (seed, position, global token id).

    The same three numbers give the same bits in NumPy (Rust), torch and JAX, on any device, in any
    row and column. Uniforms are odd multiples of 2⁻²⁴, from 2⁻²⁴ to 1 − 2⁻²⁴: never 0, never 1,
    and exact in float32. `sample` draws with −ln u; this is for checking and for other samplers.

    The hash is two rounds of MurmurHash3's finaliser (A. Appleby, 2011) with 64 bits of key. It is
    not cryptographic.

    Args:
        seeds: `[rows]` ints of up to 64 bits, or one int; a negative one stands for its two's complement.
        positions: `[rows]` ints from 0 to 2³¹ − 1, or one int.
        ids: `[tokens]` ints from 0 to 2³¹ − 1; their framework and device are the result's (of a list,
            those of `seeds` or `positions`).

    Returns:
        `[rows, tokens]` float32.

    Raises:
        TypeError: an argument holds no integers.
        ValueError: shapes do not fit, or a number is out of range (checked on the host only).

    Example:
        >>> uniforms([1, 2], [0, 0], np.array([5, 7]))
        array([[0.8720227 , 0.792021  ],
               [0.33560282, 0.0551942 ]], dtype=float32)
        >>> uniforms(2, 0, np.array([7, 5]))
        array([[0.0551942 , 0.33560282]], dtype=float32)
    """
    if is_array(ids) and not isinstance(ids, np.ndarray):
        check_ints("ids", ids)
        return operations_of(ids).uniforms(seeds, positions, ids)
    tokens = _on_host(ids)
    like = None if is_array(ids) else next(filter(is_array, (seeds, positions)), None)
    tokens = ops_of(like).from_host(tokens, like)
    return operations_of(like).uniforms(seeds, positions, tokens)


def _on_host(ids: Any) -> NDArray[np.int64]:
    found = int64s("ids", ids)
    if found.size and (found.min() < 0 or found.max() >= POSITIONS):
        raise ValueError(f"ids must be 0 to 2**31 - 1, got {found.min()} to {found.max()}")
    return found
