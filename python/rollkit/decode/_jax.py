"""Decoding's operations in JAX: static shapes, no sort, usable under `jax.jit`.

Masses are in float64, which JAX has only where it is switched on: each entry point switches it on for
its own operations, also while they are being traced. XLA may fuse a product with a sum and so round
once instead of twice; where bits matter (guidance, uniforms), products are exact, so that it cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import numpy as np

from rollkit._arrays import jax as memory
from rollkit._arrays.ops import narrowed
from rollkit._extras import extra
from rollkit._frameworks import as_array
from rollkit.decode import _keys as keyed
from rollkit.decode._operations import Drawn
from rollkit.decode._request import SAME, Request
from rollkit.decode.allowed import AllowedSet
from rollkit.decode.kept import Kept

jax = extra("jax", "jax")
jnp, lax = jax.numpy, jax.lax

JOINS_NUMPY: Final = True

LEAST, MOST = -(2**31), 2**31 - 1


def guide(cond: Any, uncond: Any, scale: Any) -> Any:
    """`rollkit.decode.cfg`."""
    with jax.enable_x64(True):
        c, u = cond.astype(jnp.float32), uncond.astype(jnp.float32)
        s = _column(scale, jnp.float32)
        guided = u.astype(jnp.float64) + s.astype(jnp.float64) * (c - u).astype(jnp.float64)
        # Rounds for certain; a mere cast may be dropped where the result is widened again.
        guided = lax.reduce_precision(guided, 8, 23).astype(jnp.float32)
        masked = (c == -jnp.inf) | (u == -jnp.inf)
        return jnp.where(s == 1, c, jnp.where(masked, jnp.float32(-jnp.inf), guided))


def uniforms(seeds: Any, positions: Any, ids: Any) -> Any:
    """`rollkit.decode.uniforms`."""
    with jax.enable_x64(True):
        return _uniform(_bits(seeds, positions, ids.reshape(1, -1)), jnp.float32)


def _uniform(bits: Any, dtype: Any) -> Any:
    # The half is 1 of a number twice as large, so that no product comes before the sum.
    return (2 * bits.astype(jnp.int32) + 1).astype(dtype) * dtype(2.0 ** -(keyed.BITS + 1))


def _bits(seeds: Any, positions: Any, ids: Any) -> Any:
    words = (*_seed_words(seeds), _position(positions))
    keys = []
    for start in keyed.STARTS:
        h = jnp.uint32(start)
        for word in words:
            h = _finalise(h ^ word)
        keys.append(h.reshape(-1, 1))
    h = _finalise((ids.astype(jnp.uint32) * jnp.uint32(keyed.SPREAD)) ^ keys[0])
    return _finalise(h ^ keys[1]) >> jnp.uint32(32 - keyed.BITS)


def _finalise(h: Any) -> Any:
    h = (h ^ (h >> jnp.uint32(16))) * jnp.uint32(keyed.MULTIPLIERS[0])
    h = (h ^ (h >> jnp.uint32(13))) * jnp.uint32(keyed.MULTIPLIERS[1])
    return h ^ (h >> jnp.uint32(16))


def _seed_words(seeds: Any) -> tuple[Any, Any]:
    """Return the low and high 32 bits of seeds; 32-bit ones are sign-extended, as elsewhere."""
    if not isinstance(seeds, jax.Array) or memory.is_host(seeds):
        host = keyed.as_seeds(seeds).view(np.uint64)
        return jnp.asarray(host.astype(np.uint32)), jnp.asarray((host >> np.uint64(32)).astype(np.uint32))
    if seeds.dtype.kind not in "iu" or seeds.ndim > 1:
        raise TypeError(f"seeds must be ints, one or [rows], got {seeds.dtype} of shape {seeds.shape}")
    low = seeds.astype(jnp.uint32)
    if seeds.dtype.itemsize == 8:
        return low, (seeds >> 32).astype(jnp.uint32)
    return low, jnp.where(seeds < 0, jnp.uint32(keyed.MASK), jnp.uint32(0))


def _position(positions: Any) -> Any:
    if not isinstance(positions, jax.Array) or memory.is_host(positions):
        return jnp.asarray(keyed.as_positions(positions).astype(np.uint32))
    if positions.dtype.kind not in "iu" or positions.ndim > 1:
        raise TypeError(
            f"positions must be ints, one or [rows], got {positions.dtype} of shape {positions.shape}"
        )
    return positions.astype(jnp.uint32)


def _column(value: Any, dtype: Any) -> Any:
    given = value if isinstance(value, jax.Array) else as_array(value)
    return jnp.asarray(given, dtype).reshape(-1, 1)


def draw(request: Request) -> Drawn:
    """`rollkit.decode.sample`; what is kept stays a mask where it is traced."""
    token_ids, logprobs, status, mask = _drawn(request)
    if mask is None or memory.is_traced(mask):
        return token_ids, logprobs, status, mask
    return token_ids, logprobs, status, Kept(*csr(mask, request.allowed))


def _drawn(request: Request) -> Drawn:
    with jax.enable_x64(True):
        z, most, status = _clean(_logits(request))
        heat = _column(request.temperature, jnp.float64)
        greedy = heat == 0
        heat = jnp.where(greedy, 1.0, heat)
        deep = z.astype(jnp.float64) - most
        weight = jnp.exp(deep / heat)
        kept = _kept(request, z, most, heat, weight)
        ids = jnp.asarray(request.allowed.ids)
        times = jnp.where(kept, -jnp.log(_uniforms(request, ids)) / weight, jnp.inf)
        drawn = _first(times <= times.min(-1, keepdims=True) * SAME)
        local = jnp.where(greedy[:, 0], _first(deep == 0), drawn)
        kept = jnp.where(greedy, jnp.arange(z.shape[1], dtype=jnp.int32) == local[:, None], kept)
        kept = kept & (status == 0)[:, None]
        token_ids = jnp.where(status == 0, ids[local], jnp.int32(-1))
        logprobs = None
        if request.logprobs == "allowed":
            logprobs = _score(deep, jnp.exp(deep), local, z > -jnp.inf, status)
        elif request.logprobs == "kept":
            logprobs = _score(deep / heat, weight, local, kept, status)
        return token_ids, logprobs, status, kept if request.return_kept else None


def _logits(request: Request) -> Any:
    cond, uncond = (request.compact(branch) for branch in (request.cond, request.uncond))
    return cond.astype(jnp.float32) if uncond is None else guide(cond, uncond, request.cfg_scale)


def _clean(z: Any) -> tuple[Any, Any, Any]:
    """Return logits, their maximum in float64 and statuses; rows without a token are all zero."""
    nan = jnp.isnan(z).any(-1)
    most = z.max(-1, keepdims=True)
    zero, masked = jnp.float32(0), jnp.float32(-jnp.inf)
    z = jnp.where(most == jnp.inf, jnp.where(z == jnp.inf, zero, masked), z)
    most = jnp.where(most == jnp.inf, zero, most)
    status = jnp.where(nan, 2, jnp.where(most[:, 0] == -jnp.inf, 1, 0)).astype(jnp.int8)
    bad = (status != 0)[:, None]
    return jnp.where(bad, zero, z), jnp.where(bad, zero, most).astype(jnp.float64), status


def _kept(request: Request, z: Any, most: Any, heat: Any, weight: Any) -> Any:
    """Return `[rows, columns]` bool: what the filters keep."""
    size = z.shape[1]
    kept = z > -jnp.inf
    small = top = kept
    if not request.off("min_p"):
        floor = most + jnp.log(_column(request.min_p, jnp.float64)) * heat
        small = kept & (z.astype(jnp.float64) >= floor)
    keys = _keys(z)
    if not request.off("top_k"):
        k = _column(request.top_k, jnp.int32)
        top = kept & ((keys >= _kth(keys, k)) | (k <= 0) | (k >= size))
    if request.off("top_p"):
        return small & top
    p = _column(request.top_p, jnp.float64)
    counted = {"joint": kept, "vllm": small & top}.get(request.order, top)
    mass = jnp.where(counted, weight, 0.0)
    target = p * mass.sum(-1, keepdims=True)
    return small & top & ((keys >= _nucleus(keys, mass, target)) | (p >= 1))


# Compiled once for each shape, also where `sample` runs untraced: a loop over a new closure is compiled anew.
@jax.jit  # type: ignore[untyped-decorator]
def _kth(keys: Any, k: Any) -> Any:
    return _least(keys, lambda floor: (keys > floor).sum(-1, keepdims=True, dtype=jnp.int32) < k)


@jax.jit  # type: ignore[untyped-decorator]
def _nucleus(keys: Any, mass: Any, target: Any) -> Any:
    return _least(keys, lambda floor: jnp.where(keys > floor, mass, 0.0).sum(-1, keepdims=True) < target)


def _keys(z: Any) -> Any:
    """Return int32 numbers in the order of logits, equal for equal logits."""
    bits = lax.bitcast_convert_type(jnp.where(z == 0, jnp.float32(0), z), jnp.int32)
    return bits ^ ((bits >> 31) & jnp.int32(MOST))


def _least(keys: Any, holds: Callable[[Any], Any]) -> Any:
    """Return the least number, at most each row's largest key, from which on `holds` is true: bisection."""

    def halve(_: Any, ends: Any) -> Any:
        low, high = ends
        middle = (low & high) + ((low ^ high) >> 1)  # the mean, without overflow
        true = holds(middle)
        return jnp.where(true, low, middle + 1), jnp.where(true, middle, high)

    high = keys.max(-1, keepdims=True)
    return lax.fori_loop(0, 32, halve, (jnp.full_like(high, LEAST), high))[1]


def _uniforms(request: Request, ids: Any) -> Any:
    if request.noise is not None:
        return request.compact(request.noise).astype(jnp.float64)
    return _uniform(_bits(request.seeds, request.positions, ids.reshape(1, -1)), jnp.float64)


def _first(mask: Any) -> Any:
    # Not `jnp.argmax`, whose index dtype is decided once while tracing and again, without 64 bits, after.
    return lax.argmax(mask, 1, jnp.int32)


def _score(deep: Any, weight: Any, local: Any, kept: Any, status: Any) -> Any:
    own = jnp.take_along_axis(deep, local[:, None], -1)[:, 0]
    found = own - jnp.log(jnp.where(kept, weight, 0.0).sum(-1))
    return jnp.where(status == 0, found, jnp.nan).astype(jnp.float32)


def replay(logits: Any, tokens: Any, rows: Any, columns: Any, temperature: Any) -> Any:
    """`rollkit.decode.replay_logprobs`."""
    height = logits.shape[0]
    rows, columns = (jnp.asarray(found.astype(np.int32)) for found in (rows, columns))
    tokens = jnp.asarray(tokens).astype(jnp.int32)
    heat = _column(temperature, jnp.float32)
    heat = jnp.broadcast_to(jnp.where(heat == 0, 1.0, heat), (height, 1))[:, 0]
    z = logits[rows, columns].astype(jnp.float32) / heat[rows]
    hit = (columns == tokens[rows]).astype(jnp.int32)
    inside = jnp.zeros(height, jnp.int32).at[rows].add(hit) > 0
    most = jnp.full(height, -jnp.inf).at[rows].max(lax.stop_gradient(z))
    infinite = most == jnp.inf
    z, most = _limit(z, infinite[rows]), jnp.where(infinite, 0, most)
    mass = jnp.zeros(height).at[rows].add(jnp.exp(z - most[rows]))
    own = logits[jnp.arange(height), jnp.where(inside, tokens, 0)].astype(jnp.float32) / heat
    own = _limit(own, infinite)
    safe = jnp.log(jnp.where(inside, mass, 1.0)) + jnp.where(inside, most, 0.0)
    return jnp.where(inside, own - safe, -jnp.inf)


def _limit(z: Any, infinite: Any) -> Any:
    return jnp.where(infinite, jnp.where(z == jnp.inf, 0.0, -jnp.inf).astype(z.dtype), z)


def csr(mask: Any, allowed: AllowedSet) -> tuple[Any, Any]:
    """Return global ids and offsets of a mask, made on the host."""
    found = np.asarray(as_array(mask))
    offsets = np.concatenate([[0], np.cumsum(found.sum(1, dtype=np.int64))])
    parts = allowed.ids[np.nonzero(found)[1]], offsets
    ids, offsets = (memory.from_host(part, mask) for part in parts)
    return ids, offsets


def look_up(ids: Any, starts: Any, stops: Any, targets: Any) -> Any:
    """Map numbers within runs."""
    if not len(starts):
        return jnp.full_like(ids, -1)
    starts, stops, targets = (jnp.asarray(ends.astype(np.int32)) for ends in (starts, stops, targets))
    run = jnp.maximum(jnp.searchsorted(starts, ids, side="right") - 1, 0)
    inside = (ids >= starts[run]) & (ids < stops[run])
    return jnp.where(inside, ids - starts[run] + targets[run], -1)


def product(hidden: Any, weight: Any, bias: Any) -> Any:
    """`hidden @ weight.T + bias`."""
    logits = hidden @ weight.T
    return logits if bias is None else narrowed("hidden @ weight.T + bias", logits + bias, logits.dtype)


def detached(array: Any) -> Any:
    """Return the array itself: JAX says what gradients are of."""
    return array


def trainable() -> AbstractContextManager[None]:
    """Nothing to do."""
    return nullcontext()


def state(array: Any) -> Any:
    """Return which array it is: none is written to."""
    return id(array)


def register_head(head: type[Any], sliced: type[Any]) -> None:
    """Make `PartialHead` and what it is inside of jitted functions pytrees, once."""
    if head not in _REGISTERED:
        _REGISTERED.add(head)
        tree = jax.tree_util
        tree.register_pytree_node(sliced, sliced.flatten, sliced.unflatten)
        tree.register_pytree_node(head, lambda head: sliced.of(head).flatten(), sliced.unflatten)


_REGISTERED: Final[set[Any]] = set()
