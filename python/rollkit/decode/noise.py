"""Noise that belongs to tokens: `uniforms`.

    bits = finalise(finalise(id · φ ^ k₀) ^ k₁) >> 9        (k₀, k₁) from (seed, position)
    u    = (bits + ½) / 2²³

All integers have 32 bits, so that Rust, NumPy, torch and JAX get the same ones.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollkit import _native
from rollkit._check import int64s
from rollkit._frameworks import as_array
from rollkit.decode._framework import check_ints, framework_of

BITS: Final = 23
"""Bits of a uniform. With 24, (n + ½) would need 25 bits and round to 1.0 in float32."""

STARTS: Final = (0x243F6A88, 0xB7E15163)
SPREAD: Final = 0x9E3779B9
MULTIPLIERS: Final = (0x85EBCA6B, 0xC2B2AE35)
MASK: Final = 0xFFFFFFFF
POSITIONS: Final = 2**31


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
        ids: `[tokens]` ints from 0 to 2³¹ − 1; their framework and device are the result's.

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
    framework = framework_of(ids)
    if framework != "numpy":
        check_ints("ids", ids)
    if framework == "torch":
        from rollkit.decode import _torch

        return _torch.uniforms(seeds, positions, ids)
    if framework == "jax":
        from rollkit.decode import _jax

        return _jax.uniforms(seeds, positions, ids)
    tokens = int64s("ids", ids)
    if tokens.size and (tokens.min() < 0 or tokens.max() >= POSITIONS):
        raise ValueError(f"ids must be 0 to 2**31 - 1, got {tokens.min()} to {tokens.max()}")
    seed, position = host_keys(seeds, positions, None)
    out = np.empty((len(seed), len(tokens)), np.float32)
    _native.uniforms(seed, position, tokens.astype(np.int32), out=out)
    return out


def host_keys(seeds: Any, positions: Any, rows: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `[rows]` int64 seeds and positions; the longer of the two says `rows` if it is `None`."""
    seed = as_seeds(seeds)
    given = as_array(positions)
    position = int64s("positions", np.atleast_1d(given) if np.ndim(given) == 0 else given)
    if position.size and (position.min() < 0 or position.max() >= POSITIONS):
        raise ValueError(f"positions must be 0 to 2**31 - 1, got {position.min()} to {position.max()}")
    rows = max(len(seed), len(position)) if rows is None else rows
    for name, found in (("seeds", seed), ("positions", position)):
        if len(found) not in (1, rows):
            raise ValueError(f"{name} must be one int or [{rows}], one per row, got shape {found.shape}")
    return _filled(rows, seed), _filled(rows, position)


def _filled(rows: int, value: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(value) == rows and value.flags.c_contiguous and value.flags.aligned:
        return value
    out = np.empty(rows, np.int64)
    out[...] = value
    return out


def as_seeds(seeds: ArrayLike | Any) -> NDArray[np.int64]:
    """Return seeds on the host as int64, those above 2⁶³ as their two's complement."""
    found = np.atleast_1d(np.asarray(as_array(seeds)))
    if not found.size:
        found = found.astype(np.int64)  # NumPy makes float64 of an empty list
    if found.dtype.kind not in "iu" or found.ndim != 1:
        raise TypeError(f"seeds must be 64-bit ints, one or [rows], got {found.dtype} of shape {found.shape}")
    return found.astype(np.int64, copy=False)
