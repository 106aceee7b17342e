"""Classifier-free guidance on compact logits: `cfg`."""

from __future__ import annotations

from typing import Any

import numpy as np

from rollkit._arrays.ops import narrowed, ops_of, single
from rollkit._check import host
from rollkit._frameworks import is_array, kind_of, same_framework
from rollkit.decode._operations import operations_of
from rollkit.decode._request import as_pair, check_pair, parameter


def cfg(cond: Any, uncond: Any, scale: Any, *, bias: Any = None) -> Any:
    """Return guided logits `u + s (c − u)`, the same bits on every backend.

    The difference is taken in float32; the product and the sum in float64, where the product is
    exact, and rounded once to float32. So a compiler that fuses the two (XLA does) changes nothing.
    A row with scale 1 is `cond` as it is, with no gradient to the scale. A token that either branch
    masks with −∞ stays masked, which plain arithmetic makes NaN, or +∞ where only `uncond` is masked.

    Logits need not be normalised first: subtracting each branch's log-sum-exp, as transformers does,
    shifts a row by a constant.

    Args:
        cond: `[rows, columns]` float32, float16 or bfloat16. With `uncond=None`, `[2 · rows, columns]`:
            conditional rows first, then unconditional ones in the same order. float64 is rounded to float32.
        uncond: as `cond`, or `None`. Where one is a list, it gets the other's framework, device and dtype.
        scale: one number or `[rows]`.
        bias: added after guidance, before any temperature; numbers that broadcast to the result.

    Returns:
        `[rows, columns]` float32 of the same framework.

    Raises:
        TypeError: arguments of several frameworks, or logits that are no floats.
        ValueError: shapes do not fit, or `scale` is not finite.
        OverflowError: a number does not fit float32; the message names row and position. Arrays on a
            device or traced are not looked at.

    Example:
        >>> cfg(np.float32([[1, 2]]), np.float32([[0, 4]]), 1.5)
        array([[1.5, 1. ]], dtype=float32)
        >>> cfg(np.float32([[1, 2], [0, 4]]), None, 1.5)
        array([[1.5, 1. ]], dtype=float32)

    References:
        J. Ho, T. Salimans, "Classifier-free diffusion guidance", 2022, with s = 1 + w. G. Sanchez et
        al., "Stay on topic with classifier-free guidance", 2023, for language models.
    """
    cond, uncond = as_pair(cond, uncond)
    check_pair(cond, uncond)
    cond, uncond = single("cond", cond), None if uncond is None else single("uncond", uncond)
    if uncond is None:
        cond, uncond = _halves(cond)
    scale = parameter("scale", scale, cond.shape[0])
    bias = None if bias is None else _bias(bias, cond)
    guided = operations_of(cond).guide(cond, uncond, scale)
    return guided if bias is None else guided + bias


def _halves(cond: Any) -> tuple[Any, Any]:
    if cond.shape[0] % 2:
        raise ValueError(
            "cond must have cond rows, then as many uncond rows, when uncond is None; "
            f"got {cond.shape[0]} rows"
        )
    half = cond.shape[0] // 2
    return cond[:half], cond[half:]


def _bias(bias: Any, cond: Any) -> Any:
    """Return a bias as float32 of the framework of `cond`; NumPy's goes to any."""
    found = bias if is_array(bias) else host("bias", bias)
    if kind_of(found) not in ("int", "float"):
        raise TypeError(f"bias must hold numbers, got {found.dtype}")
    shape = tuple(cond.shape)
    if found.ndim > 2 or any(
        mine not in (1, wanted) for mine, wanted in zip(found.shape[::-1], shape[::-1], strict=False)
    ):
        raise ValueError(f"bias must broadcast to the shape of cond, {shape}, got {tuple(found.shape)}")
    kernel = ops_of(cond)
    if not isinstance(found, np.ndarray):
        same_framework(cond=cond, bias=found)
    found = narrowed("bias", found, np.float32, rows=False)
    return kernel.from_host(found, cond) if isinstance(found, np.ndarray) else found
