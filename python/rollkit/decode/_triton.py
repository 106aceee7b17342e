"""The sampler as one Triton kernel, for logits on CUDA: `_torch.draw` in one launch, a program per row.

Up to `IN_REGISTERS` columns a row stays in registers; a longer one is written once as float32, and read
again in chunks. Filters look for one threshold per row, without a sort: halving the float32 numbers
between the least and the largest logit, of which there are fewer than 2³², and stepping from one logit
to the next where halves hold none.

The arithmetic is that of `_torch` and of Rust: guided logits and uniforms to the bit, weights and race
times in float64. A reduction adds in a fixed order, so that a row draws the same token every time.
"""

from __future__ import annotations

import struct
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import triton
import triton.language as tl

from rollkit.decode import _keys as keys
from rollkit.decode import _torch
from rollkit.decode._operations import Drawn
from rollkit.decode._request import SAME, Request
from rollkit.decode.allowed import AllowedSet
from rollkit.decode.kept import Kept

torch = _torch.torch

IN_REGISTERS: Final = 4096
"""Columns that `WARPS` hold in registers, 8 per thread."""

CHUNK: Final = 2048
"""Columns that are read at a time of a longer row, 4 per thread: more would leave no registers."""

WARPS: Final = 16
PER_WARP: Final = IN_REGISTERS // WARPS

_SAME = tl.constexpr(SAME)
_INF = tl.constexpr(float("inf"))
_FINITE = tl.constexpr(-3.4028234663852886e38)  # the least float32: whatever is not masked is not below it
_LAST = tl.constexpr(2**31 - 1)
_SHIFT = tl.constexpr(32 - keys.BITS)
_STEP = tl.constexpr(2.0**-keys.BITS)
_SPREAD = tl.constexpr(keys.SPREAD)
_FIRST_START, _SECOND_START = (tl.constexpr(start) for start in keys.STARTS)
_FIRST_FACTOR, _SECOND_FACTOR = (tl.constexpr(factor) for factor in keys.MULTIPLIERS)


def draw(request: Request) -> Drawn:
    """Return what `_torch.draw` does. Nothing waits for the device, but for CSR if that is wanted."""
    cond, uncond = _branches(request)
    rows, size = cond.shape[0], len(request.allowed)
    span = request.allowed.span
    table = None if span is not None else _table(request.allowed, cond)
    token_ids = cond.new_empty(rows, dtype=torch.int64)
    status = cond.new_empty(rows, dtype=torch.int8)
    logprobs = None if request.logprobs == "off" else cond.new_empty(rows, dtype=torch.float32)
    mask = cond.new_empty((rows, size), dtype=torch.bool) if request.return_kept else None
    one = size <= IN_REGISTERS
    block = max(32, triton.next_power_of_2(size)) if one else CHUNK
    filters = {name.upper(): not request.off(name) for name in ("top_k", "top_p", "min_p")}
    weighed = filters["TOP_P"] and not one
    with _on(cond):
        _draw[(rows,)](
            cond,
            uncond,
            table,
            None if uncond is None else _numbers(request.cfg_scale, cond),
            _numbers(request.temperature, cond),
            _numbers(request.top_k, cond) if filters["TOP_K"] else None,
            _numbers(request.top_p, cond) if filters["TOP_P"] else None,
            _numbers(request.min_p, cond) if filters["MIN_P"] else None,
            _keys("seeds", request.seeds, cond),
            _keys("positions", request.positions, cond),
            token_ids,
            status,
            logprobs,
            None if mask is None else mask.view(torch.int8),
            None if one else cond.new_empty((rows, size), dtype=torch.float32),
            cond.new_empty((rows, size), dtype=torch.float64) if weighed else None,
            size,
            0 if span is None else span.start,
            cond.stride(0),
            0 if uncond is None else uncond.stride(0),
            **filters,
            FULL=cond.shape[1] != size,
            ORDER=request.order,
            LOGPROB=request.logprobs,
            BLOCK=block,
            ONE=one,
            num_warps=max(1, block // PER_WARP) if one else WARPS,
            enable_fp_fusion=False,  # a product and its sum are rounded one by one, as elsewhere
            sanitize_overflow=False,  # the hash wraps, which Triton's debug mode would trap
        )
    return token_ids, logprobs, status, None if mask is None else Kept(*_torch.csr(mask, request.allowed))


def _branches(request: Request) -> tuple[Any, Any]:
    """Return the logits, of a range only its columns; others are picked by the kernel."""
    as_is = isinstance(request.cfg_scale, int | float) and request.cfg_scale == 1
    cond, uncond = request.cond, None if as_is else request.uncond
    if request.allowed.span is None:
        return cond, uncond
    return request.compact(cond), request.compact(uncond)


def _on(tensor: Any) -> AbstractContextManager[Any]:
    """Launch where a tensor is. The host is for Triton's interpreter."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _table(allowed: AllowedSet, like: Any) -> Any:
    """Return the ids as int32 on a device, made once for each."""
    cache: dict[Any, Any] = allowed.__dict__.setdefault("_tables", {})
    if like.device not in cache:
        cache[like.device] = torch.tensor(allowed.ids, dtype=torch.int32, device=like.device)
    return cache[like.device]


def _numbers(value: Any, like: Any) -> Any:
    """Return a parameter as the kernel takes it: one per row on the device, or the bits of one.

    A number goes by value, since a tensor made of it would have to be waited for; as bits, since
    Triton makes float32 of Python's floats.
    """
    if not isinstance(value, int | float):
        if not isinstance(value, torch.Tensor):
            value = torch.as_tensor(value, dtype=torch.float64)
        return value.to(like.device).reshape(-1).expand(len(like)).contiguous()
    return struct.unpack("<q", struct.pack("<d", float(value)))[0]


def _keys(name: str, value: Any, like: Any) -> Any:
    """Return seeds or positions: one per row on the device, or an int."""
    found = _torch.key(name, value)
    found = found.to(torch.int64).reshape(-1)
    if len(found) == 1 and not found.is_cuda:
        return int(found)
    return found.to(like.device).expand(len(like)).contiguous()


@triton.jit
def _number(given: tl.tensor, row: tl.tensor) -> tl.tensor:
    """Return a row's parameter as float64."""
    if given.dtype.is_ptr():
        return tl.load(given + row).to(tl.float64)
    else:  # noqa: RET505 - Triton compiles the branch that is left out otherwise
        return given.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def _key(given: tl.tensor, row: tl.tensor) -> tl.tensor:
    """Return a row's seed or position as int64."""
    if given.dtype.is_ptr():
        return tl.load(given + row).to(tl.int64)
    else:  # noqa: RET505 - as above
        return given.to(tl.int64)


@triton.jit
def _finalise(h: tl.tensor) -> tl.tensor:
    """`noise`: 32-bit products wrap, and unsigned shifts bring in zeros."""
    h = (h ^ (h >> 16)) * _FIRST_FACTOR
    h = (h ^ (h >> 13)) * _SECOND_FACTOR
    return h ^ (h >> 16)


@triton.jit
def _chain(start: tl.tensor, seed: tl.tensor, position: tl.tensor) -> tl.tensor:
    """Return half of a row's key."""
    h = _finalise(seed.to(tl.uint32) ^ start)
    h = _finalise(h ^ (seed >> 32).to(tl.uint32))
    return _finalise(h ^ position.to(tl.uint32))


@triton.jit
def _uniforms(ids: tl.tensor, first: tl.tensor, second: tl.tensor) -> tl.tensor:
    """Return the uniforms of tokens as float64."""
    h = ids.to(tl.uint32) * _SPREAD
    h = _finalise(_finalise(h ^ first) ^ second) >> _SHIFT
    return (h.to(tl.float64) + 0.5) * _STEP


@triton.jit
def _guide(
    cond: tl.tensor,
    uncond: tl.tensor,
    scale: tl.tensor,
    at: tl.tensor,
    inside: tl.tensor,
    GUIDED: tl.constexpr,
) -> tl.tensor:
    """Return guided logits as float32, -∞ outside."""
    c = tl.load(cond + at, mask=inside, other=-_INF).to(tl.float32)
    if GUIDED:
        u = tl.load(uncond + at, mask=inside, other=0.0).to(tl.float32)
        step = scale.to(tl.float64) * (c - u).to(tl.float64)
        guided = (u.to(tl.float64) + step).to(tl.float32)
        masked = (c == -_INF) | (u == -_INF)
        c = tl.where(scale == 1.0, c, tl.where(masked, -_INF, guided))
    return c


@triton.jit
def _clean(z: tl.tensor, infinite: tl.tensor, bad: tl.tensor) -> tl.tensor:
    """Let +∞ share all mass; put zeros into a row without a token."""
    z = tl.where(infinite, tl.where(z == _INF, 0.0, -_INF), z)
    return tl.where(bad, 0.0, z)


@triton.jit
def _logits(
    z: tl.tensor,
    logits: tl.tensor,
    at: tl.tensor,
    size: tl.tensor,
    infinite: tl.tensor,
    bad: tl.tensor,
    ONE: tl.constexpr,
) -> tl.tensor:
    """Return a chunk of logits: the one in registers, or as written."""
    if not ONE:
        z = _clean(tl.load(logits + at, mask=at < size, other=-_INF), infinite, bad)
    return z


@triton.jit
def _weights(
    weight: tl.tensor, weights: tl.tensor, at: tl.tensor, size: tl.tensor, ONE: tl.constexpr
) -> tl.tensor:
    """Return a chunk of weights: the one in registers, or as written."""
    if not ONE:
        weight = tl.load(weights + at, mask=at < size, other=0.0)
    return weight


@triton.jit
def _image(value: tl.tensor) -> tl.tensor:
    """Return int32 in the order of float32."""
    bits = value.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def _value(image: tl.tensor) -> tl.tensor:
    """Return the float32 of an image."""
    image = image.to(tl.int32)
    return tl.where(image < 0, image ^ 0x7FFFFFFF, image).to(tl.float32, bitcast=True)


@triton.jit
def _min_p_floor(most: tl.tensor, min_p: tl.tensor, heat: tl.tensor) -> tl.tensor:
    """Return the least float32 at or above the limit of min-p."""
    exact = most.to(tl.float64) + tl.log(min_p) * heat
    near = exact.to(tl.float32)
    above = tl.where(near.to(tl.float64) < exact, _value(_image(near) + 1), near)
    return tl.minimum(tl.maximum(above, _FINITE), most)


@triton.jit
def _mass(
    floor: tl.tensor,
    z: tl.tensor,
    weight: tl.tensor,
    logits: tl.tensor,
    weights: tl.tensor,
    size: tl.tensor,
    infinite: tl.tensor,
    bad: tl.tensor,
    BLOCK: tl.constexpr,
    ONE: tl.constexpr,
) -> tl.tensor:
    """Return the mass of logits at or above `floor`, added in the order of `_search`."""
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, BLOCK if ONE else size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        here = _logits(z, logits, at, size, infinite, bad, ONE)
        total += tl.where(here >= floor, _weights(weight, weights, at, size, ONE), 0.0)
    return tl.sum(total)


@triton.jit
def _search(
    low: tl.tensor,
    most: tl.tensor,
    wanted: tl.tensor,
    target: tl.tensor,
    z: tl.tensor,
    weight: tl.tensor,
    logits: tl.tensor,
    weights: tl.tensor,
    size: tl.tensor,
    infinite: tl.tensor,
    bad: tl.tensor,
    MASS: tl.constexpr,
    BLOCK: tl.constexpr,
    ONE: tl.constexpr,
) -> tl.tensor:
    """Return the least logit, `low` or more, above which the mass, or count, is less than `target`.

    It is above `under` and at most `over`, both images. A step halves what is between them at least:
    its end goes on to the next logit. Without `wanted` the answer is `low`.
    """
    under = _image(low).to(tl.int64) - 1
    over = tl.where(wanted, _image(most).to(tl.int64), under + 1)
    while over - under > 1:
        middle = (under + over) >> 1
        pivot = _value(middle)
        total = tl.zeros([BLOCK], tl.float64 if MASS else tl.int32)
        below = tl.full([BLOCK], -_INF, tl.float32)
        above = tl.full([BLOCK], _INF, tl.float32)
        for start in range(0, BLOCK if ONE else size, BLOCK):
            at = start + tl.arange(0, BLOCK)
            here = _logits(z, logits, at, size, infinite, bad, ONE)
            larger = here > pivot
            if MASS:
                total += tl.where(larger, _weights(weight, weights, at, size, ONE), 0.0)
            else:
                total += larger.to(tl.int32)
            below = tl.maximum(below, tl.where(larger, -_INF, here))
            above = tl.minimum(above, tl.where(larger, here, _INF))
        if tl.sum(total) >= target:
            under = _image(tl.min(above)).to(tl.int64) - 1
        else:
            over = tl.minimum(middle, _image(tl.max(below)).to(tl.int64))  # -0.0 and 0.0 are one value
    return tl.maximum(_value(over), low)


@triton.jit(do_not_specialize=["cfg_scale", "temperature", "top_k", "top_p", "min_p", "seeds", "positions"])
def _draw(
    cond: tl.tensor,
    uncond: tl.tensor,
    table: tl.tensor,
    cfg_scale: tl.tensor,
    temperature: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    min_p: tl.tensor,
    seeds: tl.tensor,
    positions: tl.tensor,
    token_ids: tl.tensor,
    status: tl.tensor,
    logprobs: tl.tensor,
    mask: tl.tensor,
    logits: tl.tensor,
    weights: tl.tensor,
    size: tl.tensor,
    first: tl.tensor,
    cond_stride: tl.tensor,
    uncond_stride: tl.tensor,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    MIN_P: tl.constexpr,
    FULL: tl.constexpr,
    ORDER: tl.constexpr,
    LOGPROB: tl.constexpr,
    BLOCK: tl.constexpr,
    ONE: tl.constexpr,
) -> None:
    """Draw a row; see `draw`."""
    GUIDED: tl.constexpr = uncond is not None
    TABLE: tl.constexpr = table is not None
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    cond += row * cond_stride
    scale = 1.0
    if GUIDED:
        uncond += row * uncond_stride
        scale = _number(cfg_scale, row).to(tl.float32)
    if not ONE:
        logits += row * size
        if TOP_P:
            weights += row * size

    # Logits, their maximum, and whether there is a token.
    z = tl.full([BLOCK], -_INF, tl.float32)
    largest = z
    nan = tl.zeros([BLOCK], tl.int32)
    for start in range(0, BLOCK if ONE else size, BLOCK):
        at = start + lane
        inside = at < size
        column = at
        if FULL and TABLE:
            column = tl.load(table + at, mask=inside, other=0)
        z = _guide(cond, uncond, scale, column, inside, GUIDED)
        nan |= (z != z).to(tl.int32)
        largest = tl.maximum(largest, tl.where(z == z, z, -_INF))
        if not ONE:
            tl.store(logits + at, z, mask=inside)
    most = tl.max(largest)
    is_nan = tl.max(nan) > 0
    bad = is_nan | (most == -_INF)
    infinite = most == _INF
    most = tl.where(bad | infinite, 0.0, most)
    z = _clean(z, infinite, bad)

    # Weights. What one thread has written others read, so that they wait for it.
    heat = _number(temperature, row)
    greedy = heat == 0.0
    heat = tl.where(greedy, 1.0, heat)
    weight = tl.zeros([BLOCK], tl.float64)
    if ONE:
        weight = tl.exp((z.to(tl.float64) - most.to(tl.float64)) / heat)
    else:
        tl.debug_barrier()
        if TOP_P:
            for start in range(0, size, BLOCK):
                at = start + lane
                here = _logits(z, logits, at, size, infinite, bad, ONE)
                deep = (here.to(tl.float64) - most.to(tl.float64)) / heat
                tl.store(weights + at, tl.exp(deep), mask=at < size)
            tl.debug_barrier()

    # The threshold of all filters.
    floor = tl.full([], _FINITE, tl.float32)
    kth = floor
    if MIN_P:
        floor = _min_p_floor(most, _number(min_p, row), heat)
    if TOP_K:
        k = _number(top_k, row)
        few = (k > 0) & (k < size)
        kth = _search(kth, most, few, k, z, weight, logits, weights, size, infinite, bad, False, BLOCK, ONE)
    if TOP_P:
        p = _number(top_p, row)
        low = kth
        if ORDER == "joint":
            low = tl.full([], _FINITE, tl.float32)
        elif ORDER == "vllm":
            low = tl.maximum(kth, floor)
        target = p * _mass(low, z, weight, logits, weights, size, infinite, bad, BLOCK, ONE)
        nucleus = _search(
            low, most, p < 1.0, target, z, weight, logits, weights, size, infinite, bad, True, BLOCK, ONE
        )
        floor = tl.maximum(floor, nucleus)
    floor = tl.maximum(floor, kth)

    # The race. A lane keeps the first of its times that are equal.
    seed, position = _key(seeds, row), _key(positions, row)
    one_key, other_key = _chain(_FIRST_START, seed, position), _chain(_SECOND_START, seed, position)
    least = tl.full([BLOCK], _INF, tl.float64)
    winner = tl.full([BLOCK], _LAST, tl.int32)
    own = tl.full([BLOCK], -_INF, tl.float32)
    mass = tl.zeros([BLOCK], tl.float64)
    for start in range(0, BLOCK if ONE else size, BLOCK):
        at = start + lane
        here = _logits(z, logits, at, size, infinite, bad, ONE)
        deep = here.to(tl.float64) - most.to(tl.float64)
        heavy = weight
        if not ONE:
            heavy = _weights(weight, weights, at, size, ONE) if TOP_P else tl.exp(deep / heat)
        ids = first + at
        if TABLE:
            ids = tl.load(table + at, mask=at < size, other=0)
        kept = here >= floor
        time = tl.where(kept, -tl.log(_uniforms(ids, one_key, other_key)) / heavy, _INF)
        time = tl.where(greedy, tl.where(here == most, 0.0, _INF), time)
        sooner = time * _SAME < least
        winner = tl.where(sooner, at, winner)
        own = tl.where(sooner, here, own)
        least = tl.minimum(least, time)
        if LOGPROB == "kept":
            mass += tl.where(kept, heavy, 0.0)
        elif LOGPROB == "allowed":
            mass += tl.where(at < size, tl.exp(deep), 0.0)
    close = least <= tl.min(least) * _SAME
    local = tl.min(tl.where(close, winner, _LAST))

    # The results.
    token = first + local
    if TABLE:
        token = tl.load(table + local, mask=bad == 0, other=0)
    tl.store(token_ids + row, tl.where(bad, -1, token).to(tl.int64))
    tl.store(status + row, tl.where(is_nan, 2, tl.where(bad, 1, 0)).to(tl.int8))
    if LOGPROB != "off":
        deep = tl.max(tl.where(close & (winner == local), own, -_INF)).to(tl.float64) - most.to(tl.float64)
        if LOGPROB == "kept":
            deep = deep / heat
        found = deep - tl.log(tl.sum(mass))
        if LOGPROB == "kept":
            found = tl.where(greedy, 0.0, found)
        tl.store(logprobs + row, tl.where(bad, float("nan"), found).to(tl.float32))
    if mask is not None:
        mask += row * size
        for start in range(0, BLOCK if ONE else size, BLOCK):
            at = start + lane
            here = _logits(z, logits, at, size, infinite, bad, ONE)
            kept = tl.where(greedy, at == local, here >= floor) & (bad == 0)
            tl.store(mask + at, kept.to(tl.int8), mask=at < size)
