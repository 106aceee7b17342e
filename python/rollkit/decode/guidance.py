"""Classifier-free guidance on compact logits: `cfg`."""

from __future__ import annotations

from typing import Any

import numpy as np

from rollkit._frameworks import as_array
from rollkit.decode._framework import framework_of, kind_of, same_framework
from rollkit.decode._plan import check_pair, parameter


def cfg(cond: Any, uncond: Any, scale: Any, *, bias: Any = None) -> Any:
    """Return guided logits `u + s (c − u)`, the same bits on every backend.

    The difference is taken in float32; the product and the sum in float64, where the product is
    exact, and rounded once to float32. So a compiler that fuses the two (XLA does) changes nothing.
    A row with scale 1 is `cond` as it is. A token that either branch masks with −∞ stays masked,
    which plain arithmetic makes NaN, or +∞ where only `uncond` is masked.

    Logits need not be normalised first: subtracting each branch's log-sum-exp, as transformers does,
    shifts a row by a constant.

    Args:
        cond: `[rows, columns]` float32, float16 or bfloat16. With `uncond=None`, `[2 · rows, columns]`:
            conditional rows first, then unconditional ones in the same order.
        uncond: as `cond`, or `None`.
        scale: one number or `[rows]`.
        bias: added after guidance, before any temperature; numbers that broadcast to the result.

    Returns:
        `[rows, columns]` float32 of the same framework.

    Raises:
        TypeError: arguments of several frameworks, or logits that are no floats.
        ValueError: shapes do not fit, or `scale` is not finite.

    Example:
        >>> cfg(np.float32([[1, 2]]), np.float32([[0, 4]]), 1.5)
        array([[1.5, 1. ]], dtype=float32)
        >>> cfg(np.float32([[1, 2], [0, 4]]), None, 1.5)
        array([[1.5, 1. ]], dtype=float32)

    References:
        J. Ho, T. Salimans, "Classifier-free diffusion guidance", 2022, with s = 1 + w. G. Sanchez et
        al., "Stay on topic with classifier-free guidance", 2023, for language models.
    """
    framework = same_framework(cond=cond, uncond=uncond)
    if framework == "numpy":
        cond, uncond = np.asarray(cond), None if uncond is None else np.asarray(uncond)
    check_pair(cond, uncond)
    if uncond is None:
        cond, uncond = _halves(cond)
    scale = parameter("scale", scale, cond.shape[0])
    bias = None if bias is None else _bias(bias, cond)
    if framework == "torch":
        from rollkit.decode import _torch

        guided = _torch.guide(cond, uncond, scale)
    elif framework == "jax":
        from rollkit.decode import _jax

        guided = _jax.guide(cond, uncond, scale)
    else:
        guided = guide(cond, uncond, scale)
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
    """Return a bias as float32 of the framework of `cond`."""
    framework = framework_of(cond)
    found: Any = bias if framework_of(bias) != "numpy" else np.asarray(bias)
    if kind_of(found) not in ("int", "float"):
        raise TypeError(f"bias must hold numbers, got {found.dtype}")
    shape = tuple(cond.shape)
    if found.ndim > 2 or any(
        mine not in (1, wanted) for mine, wanted in zip(found.shape[::-1], shape[::-1], strict=False)
    ):
        raise ValueError(f"bias must broadcast to the shape of cond, {shape}, got {tuple(found.shape)}")
    if framework_of(found) == "numpy":
        found = found.astype(np.float32)
        if framework == "torch":
            import torch  # noqa: TID251 - `cond` is a tensor, so it is imported

            return torch.from_numpy(found).to(cond.device)
        return found
    same_framework(cond=cond, bias=found)
    return found.float() if framework == "torch" else found.astype(np.float32)


def guide(cond: Any, uncond: Any, scale: Any) -> Any:
    """`cfg` in NumPy."""
    c, u = (np.asarray(branch).astype(np.float32) for branch in (cond, uncond))
    s = np.asarray(as_array(scale), np.float32).reshape(-1, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        guided = (u.astype(np.float64) + s.astype(np.float64) * (c - u).astype(np.float64)).astype(np.float32)
    masked = (c == -np.inf) | (u == -np.inf)
    return np.where(s == 1, c, np.where(masked, np.float32(-np.inf), guided))
