"""Slow, obvious versions of what `rollkit.decode` does fast, and each backend by name, to test against."""

from __future__ import annotations

import math
import os
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit._frameworks import as_array
from rollkit.decode._keys import SPREAD, STARTS
from rollkit.decode._request import make_request
from rollkit.decode.allowed import AllowedSet
from rollkit.decode.kept import Kept
from rollkit.decode.sample import Sampled, draw_on_host

SAME: Final = 1 + 1e-12
"""Race times this close are equal, and the lowest id wins."""


def uniform_reference(seed: int, position: int, token: int) -> float:
    """`rollkit.decode.uniforms` for one token, in Python's integers.

    Example:
        >>> round(uniform_reference(1, 0, 5), 8)
        0.87202269
    """

    def finalise(h: int) -> int:
        h = ((h ^ h >> 16) * 0x85EBCA6B) % 2**32
        h = ((h ^ h >> 13) * 0xC2B2AE35) % 2**32
        return h ^ h >> 16

    first, second = STARTS
    for word in (seed % 2**32, (seed >> 32) % 2**32, position):
        first, second = finalise(first ^ word), finalise(second ^ word)
    bits = finalise(finalise((token * SPREAD) % 2**32 ^ first) ^ second) >> 9
    return (bits + 0.5) / 2**23


def sample_row_reference(
    z: NDArray[np.float32],
    u: NDArray[Any],
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    order: str = "hf",
) -> tuple[int, float, NDArray[np.bool_]]:
    """Draw one row of `rollkit.decode.sample` by comparing every value with every distinct larger one.

    Args:
        z: `[tokens]` guided logits, without NaN, not all −∞, none +∞.
        u: `[tokens]` uniforms.
        temperature: as for `sample`, like the rest.
        top_k: see there.
        top_p: see there.
        min_p: see there.
        order: see there.

    Returns:
        The local id drawn, its log-probability over the kept set, and the kept set `[tokens]`.

    Example:
        >>> local, logprob, kept = sample_row_reference(np.float32([0, 3, 3]), np.full(3, 0.5), top_k=1)
        >>> local, round(logprob, 4), kept
        (1, -0.6931, array([False,  True,  True]))
    """
    most = float(z.max())
    if temperature == 0:
        local = int(z.argmax())
        return local, 0.0, np.arange(len(z)) == local
    with np.errstate(over="ignore"):
        weight = np.exp((z.astype(np.float64) - most) / temperature)
    alive = z > -np.inf

    def with_top_k(kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        larger = np.array([(z > value).sum() for value in z])
        return np.where(larger < top_k, kept, False) if top_k else kept

    def with_top_p(kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if top_p >= 1:
            return kept
        mass = np.where(kept, weight, 0)
        larger = np.array([math.fsum(mass[z > value]) for value in z])
        return np.where((larger < top_p * math.fsum(mass)) | (z == most), kept, False)

    def with_min_p(kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        floor = most + temperature * math.log(min_p) if min_p else -np.inf
        return np.where(z.astype(np.float64) >= floor, kept, False)

    if order == "joint":
        kept = with_min_p(with_top_k(alive) & with_top_p(alive))
    elif order == "vllm":
        kept = with_top_p(with_top_k(with_min_p(alive)))
    else:
        kept = with_min_p(with_top_p(with_top_k(alive)))
    with np.errstate(divide="ignore"):
        times = np.where(kept, -np.log(u.astype(np.float64)) / weight, np.inf)
    local = int(np.argmax(times <= times.min() * SAME))
    return local, math.log(weight[local] / math.fsum(weight[kept])), kept


def sample_on(backend: str, cond: Any, uncond: Any = None, **options: Any) -> Sampled:
    """Run `rollkit.decode.sample` with one backend's own operations, wherever the arrays are.

    `sample` takes arrays in the host's memory to Rust; this does not, so that any platform can be
    checked against it.

    Args:
        backend: `"rust"`, `"torch"`, `"triton"` or `"jax"` (jitted). `"triton"` runs on CUDA or, where
            `TRITON_INTERPRET=1` was set before Triton was imported, on the host, which takes long.
        cond: logits of NumPy or, for `"torch"` and `"triton"`, of torch.
        uncond: as `cond`, or `None`.
        **options: those of `sample`, in NumPy or as numbers.

    Returns:
        What `sample` does, in NumPy.

    Example:
        >>> sample_on("rust", np.float32([[0, 9]]), allowed=None, seeds=0, positions=0).token_ids
        array([1])
    """
    if backend == "rust":
        return draw_on_host(make_request(cond, uncond, **options))
    if backend == "torch":
        return _on_torch(cond, uncond, options)
    if backend == "triton":
        return _on_triton(cond, uncond, options)
    if backend == "jax":
        return _on_jax(cond, uncond, options)
    raise ValueError(f"backend must be 'rust', 'torch', 'triton' or 'jax', got {backend!r}")


def _on_torch(cond: Any, uncond: Any, options: dict[str, Any]) -> Sampled:
    from rollkit.decode import _torch

    logits = [_tensor(branch) for branch in (cond, uncond)]
    noise = _tensor(options.get("noise"))
    return _to_numpy(_torch.draw(make_request(*logits, **{**options, "noise": noise})))


def _on_triton(cond: Any, uncond: Any, options: dict[str, Any]) -> Sampled:
    from rollkit.decode import _triton

    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    logits = [_tensor(branch) for branch in (cond, uncond)]
    if not interpreted:
        logits = [None if branch is None else branch.cuda() for branch in logits]
    with np.errstate(all="ignore"):  # the interpreter is NumPy, which warns of the logarithm of zero
        return _to_numpy(_triton.draw(make_request(*logits, **options)))


def _to_numpy(drawn: tuple[Any, Any, Any, Any]) -> Sampled:
    token_ids, logprobs, status, kept = drawn
    return Sampled(
        token_ids.cpu().numpy(),
        None if logprobs is None else logprobs.cpu().numpy(),
        status.cpu().numpy(),
        None if kept is None else Kept(*(part.cpu().numpy() for part in kept)),
    )


def _tensor(array: Any) -> Any:
    from rollkit._arrays.torch import from_numpy

    return from_numpy(array, None, {}) if isinstance(array, np.ndarray) else array


def _on_jax(cond: Any, uncond: Any, options: dict[str, Any]) -> Sampled:
    from rollkit.decode import _jax

    logits = [as_array(branch) for branch in (cond, uncond)]
    noise = options.get("noise")

    @_jax.jax.jit  # type: ignore[untyped-decorator]
    def draw(cond: Any, uncond: Any, noise: Any) -> Any:
        return _jax.draw(make_request(cond, uncond, **{**options, "noise": noise}))

    drawn = draw(*logits, noise)
    token_ids, logprobs, status, mask = (None if found is None else np.asarray(found) for found in drawn)
    allowed = options["allowed"] or AllowedSet.full(logits[0].shape[1])
    return Sampled(token_ids, logprobs, status, None if mask is None else Kept.from_mask(mask, allowed))
