"""Decoding's operations in NumPy and Rust."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit import _native
from rollkit._arrays.ops import narrowed
from rollkit._frameworks import AnyArray, as_array
from rollkit.decode._keys import host_keys
from rollkit.decode._operations import Drawn
from rollkit.decode._request import Request
from rollkit.decode.allowed import AllowedSet
from rollkit.decode.kept import Kept

JOINS_NUMPY: Final = True


def guide(cond: AnyArray, uncond: AnyArray, scale: Any) -> AnyArray:
    """`rollkit.decode.cfg`."""
    c, u = (branch.astype(np.float32) for branch in (cond, uncond))
    s = np.asarray(as_array(scale), np.float32).reshape(-1, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        guided = (u.astype(np.float64) + s.astype(np.float64) * (c - u).astype(np.float64)).astype(np.float32)
    masked = (c == -np.inf) | (u == -np.inf)
    return np.where(s == 1, c, np.where(masked, np.float32(-np.inf), guided))


def uniforms(seeds: Any, positions: Any, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """`rollkit.decode.uniforms`."""
    seed, position = host_keys(seeds, positions, None)
    out = np.empty((len(seed), len(ids)), np.float32)
    _native.uniforms(seed, position, ids.astype(np.int32), out=out)
    return out


def draw(request: Request) -> Drawn:
    """Draw in Rust; arrays may be of any framework."""
    cond, dtype = _logits("cond", request.cond)
    uncond = None if request.uncond is None else _logits("uncond", request.uncond)[0]
    rows = len(cond)

    def column(name: str, kind: Any) -> AnyArray:
        value, out = getattr(request, name), np.empty(rows, kind)
        out[...] = value if isinstance(value, int | float) else as_array(value)  # one, or [rows]
        return out

    noise = None if request.noise is None else np.require(as_array(request.noise), np.float32, ["C", "A"])
    keys = None if request.noise is not None else host_keys(request.seeds, request.positions, rows)
    parameters = {
        "cfg_scale": column("cfg_scale", np.float32),
        "temperature": column("temperature", np.float64),
        "top_k": column("top_k", np.int64),
        "top_p": column("top_p", np.float64),
        "min_p": column("min_p", np.float64),
        "seeds": keys and keys[0],
        "positions": keys and keys[1],
        "noise": noise,
    }
    span = request.allowed.span
    token_ids, logprobs, status, kept = _native.sample(
        cond,
        uncond,
        request.allowed.ids if span is None else (span.start, span.stop),
        dtype=dtype,
        full=request.full,
        rows=parameters,
        order=request.order,
        logprobs=request.logprobs,
        return_kept=request.return_kept,
    )
    scored = None if request.logprobs == "off" else logprobs
    return token_ids, scored, status, None if kept is None else Kept(*kept)


def _logits(name: str, logits: Any) -> tuple[AnyArray, str]:
    """Return contiguous logits, 16-bit ones as their bits, and what they are."""
    found = np.asarray(as_array(logits))
    if found.dtype == np.float32 and found.flags.c_contiguous and found.flags.aligned:
        return found, "float32"
    dtype = found.dtype.name
    if dtype not in ("float32", "float16", "bfloat16"):
        raise TypeError(f"{name} must be float32, float16 or bfloat16, got {dtype}")
    found = np.require(found, None, ["C", "A"])
    return (found if dtype == "float32" else found.view(np.uint16)), dtype


def replay(
    logits: AnyArray, tokens: AnyArray, rows: AnyArray, columns: AnyArray, temperature: Any
) -> NDArray[np.float32]:
    """`rollkit.decode.replay_logprobs`."""
    height, temperature = len(logits), np.asarray(as_array(temperature))
    heat = np.broadcast_to(np.where(temperature == 0, 1.0, temperature), height).astype(np.float64)
    z = logits[rows, columns].astype(np.float64) / heat[rows]
    most = np.full(height, -np.inf)
    np.maximum.at(most, rows, z)
    infinite = most == np.inf
    z, most = _limit(z, infinite[rows]), np.where(infinite, 0, most)
    mass = np.bincount(rows, np.exp(z - most[rows]), minlength=height)
    inside = np.zeros(height, bool)
    inside[rows[columns == tokens[rows]]] = True
    own = logits[np.arange(height), np.where(inside, tokens, 0)].astype(np.float64) / heat
    own = _limit(own, infinite)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(inside, own - most - np.log(mass), -np.inf)
    return found.astype(np.float32)


def _limit(z: AnyArray, infinite: NDArray[np.bool_]) -> AnyArray:
    """Let +∞ share all mass, in rows that have it."""
    return np.where(infinite, np.where(z == np.inf, 0, -np.inf), z)


def look_up(ids: AnyArray, starts: AnyArray, stops: AnyArray, targets: AnyArray) -> AnyArray:
    """Map numbers within runs."""
    ids = ids.astype(np.int64)
    if not len(starts):
        return np.full_like(ids, -1)
    run = np.maximum(np.searchsorted(starts, ids, side="right") - 1, 0)
    inside = (ids >= starts[run]) & (ids < stops[run])
    return np.where(inside, ids - starts[run] + targets[run], -1)


def csr(mask: AnyArray, allowed: AllowedSet) -> tuple[AnyArray, AnyArray]:
    """Return global ids and offsets of a mask."""
    offsets = np.concatenate([[0], np.cumsum(mask.sum(1, dtype=np.int64))])
    return allowed.ids[np.nonzero(mask)[1]], offsets


def product(hidden: AnyArray, weight: Any, bias: Any) -> Any:
    """`hidden @ weight.T + bias`; NumPy multiplies bfloat16 in float32."""
    logits = hidden @ weight.T
    logits = logits if bias is None else logits + bias
    return narrowed("hidden @ weight.T + bias", logits, np.promote_types(hidden.dtype, weight.dtype))


def detached(array: AnyArray) -> AnyArray:
    """Return the array itself."""
    return array


def trainable() -> AbstractContextManager[None]:
    """Nothing to do."""
    return nullcontext()


def state(array: AnyArray) -> Any:
    """Return which array it is; what is written to it goes unseen."""
    return id(array)


def register_head(head: type[Any], sliced: type[Any]) -> None:
    """Nothing to do."""
