"""Decoding's operations in torch: for tensors that Rust cannot read, or that a gradient goes through."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final

from rollkit._arrays import torch as memory
from rollkit._arrays.ops import narrowed
from rollkit._extras import extra
from rollkit._frameworks import as_array
from rollkit.decode import _keys as keyed
from rollkit.decode._operations import Drawn
from rollkit.decode._request import SAME, Request
from rollkit.decode.allowed import AllowedSet
from rollkit.decode.kept import Kept

torch = extra("torch", "torch")

JOINS_NUMPY: Final = False


def guide(cond: Any, uncond: Any, scale: Any) -> Any:
    """`rollkit.decode.cfg`."""
    c, u = cond.float(), uncond.float()
    s = _column(scale, c, torch.float32)
    guided = (u.double() + s.double() * (c - u).double()).float()
    masked = (c == -torch.inf) | (u == -torch.inf)
    return torch.where(s == 1, c, torch.where(masked, -torch.inf, guided))


def uniforms(seeds: Any, positions: Any, ids: Any) -> Any:
    """`rollkit.decode.uniforms`."""
    return uniform(bits(seeds, positions, ids.reshape(1, -1).long()), torch.float32)


def uniform(found: Any, dtype: Any) -> Any:
    """Return (n + ½) / 2²³."""
    return (found.to(dtype) + 0.5) * 2.0**-keyed.BITS


def bits(seeds: Any, positions: Any, ids: Any) -> Any:
    """Return `[rows, tokens]` int64: 32-bit arithmetic in 64 bits, as torch has few unsigned operations."""
    seed, position = (
        key(name, given).to(ids.device, torch.int64).reshape(-1, 1)
        for name, given in (("seeds", seeds), ("positions", positions))
    )
    words = (seed & keyed.MASK, (seed >> 32) & keyed.MASK, position)
    keys = []
    for start in keyed.STARTS:
        h = torch.full_like(seed, start)
        for word in words:
            h = _finalise(h ^ word)
        keys.append(h)
    h = _finalise(((ids * keyed.SPREAD) & keyed.MASK) ^ keys[0])
    return _finalise(h ^ keys[1]) >> (32 - keyed.BITS)


def key(name: str, value: Any) -> Any:
    """Return seeds or positions as a tensor of ints, one or `[rows]`, where they are."""
    if not isinstance(value, torch.Tensor) or memory.is_host(value):
        host = keyed.as_seeds(value) if name == "seeds" else keyed.as_positions(value)
        value = torch.from_numpy(host.copy())
    if value.dtype.is_floating_point or value.dtype == torch.bool or value.ndim > 1:
        raise TypeError(
            f"{name} must be ints, one or [rows], got {value.dtype} of shape {tuple(value.shape)}"
        )
    return value


def _finalise(h: Any) -> Any:
    h = ((h ^ (h >> 16)) * keyed.MULTIPLIERS[0]) & keyed.MASK
    h = ((h ^ (h >> 13)) * keyed.MULTIPLIERS[1]) & keyed.MASK
    return h ^ (h >> 16)


def _column(value: Any, like: Any, dtype: Any) -> Any:
    given = value if isinstance(value, torch.Tensor) else as_array(value)
    return torch.as_tensor(given, dtype=dtype, device=like.device).reshape(-1, 1)


def draw(request: Request) -> Drawn:
    """`rollkit.decode.sample`; gradients go through log-probabilities."""
    z = _logits(request)
    z, most, status = _clean(z)
    heat = _column(request.temperature, z, torch.float64)
    greedy = heat == 0
    heat = torch.where(greedy, 1.0, heat)
    deep = (z.double() - most) / heat
    weight = deep.exp()
    kept = _kept(request, z, most, heat, weight)
    times = torch.where(kept, -_uniforms(request, z).log() / weight, torch.inf)
    local = _first(times <= times.amin(-1, keepdim=True) * SAME)
    local = torch.where(greedy[:, 0], _first(z.double() == most), local)
    kept = torch.where(greedy, torch.arange(z.shape[1], device=z.device) == local[:, None], kept)
    kept = kept & (status == 0)[:, None]
    token_ids = torch.where(status == 0, request.allowed.to_global(local), -1)
    logprobs = None
    if request.logprobs == "allowed":
        deep = z.double() - most
        logprobs = _score(deep, deep.exp(), local, torch.tensor(True, device=z.device), status)
    elif request.logprobs == "kept":
        logprobs = _score(deep, weight, local, kept, status)
    return token_ids, logprobs, status, Kept(*csr(kept, request.allowed)) if request.return_kept else None


def _logits(request: Request) -> Any:
    cond, uncond = (request.compact(branch) for branch in (request.cond, request.uncond))
    return cond.float() if uncond is None else guide(cond, uncond, request.cfg_scale)


def _clean(z: Any) -> tuple[Any, Any, Any]:
    """Return logits, their maximum in float64 and statuses; rows without a token are all zero."""
    nan = z.isnan().any(-1)
    most = z.detach().amax(-1, keepdim=True)  # all that is scored is relative to it
    z = torch.where(most == torch.inf, torch.where(z == torch.inf, 0.0, -torch.inf), z)
    most = torch.where(most == torch.inf, 0.0, most)
    masked = most[:, 0] == -torch.inf
    status = torch.where(nan, 2, torch.where(masked, 1, 0)).to(torch.int8)
    bad = (status != 0)[:, None]
    return torch.where(bad, 0.0, z), torch.where(bad, 0.0, most).double(), status


def _kept(request: Request, z: Any, most: Any, heat: Any, weight: Any) -> Any:
    """Return `[rows, columns]` bool: what the filters keep."""
    size = z.shape[1]
    kept = z > -torch.inf
    small = kept
    if not request.off("min_p"):
        floor = most + _column(request.min_p, z, torch.float64).log() * heat
        small = kept & (z.double() >= floor)
    k, p = _column(request.top_k, z, torch.int64), _column(request.top_p, z, torch.float64)
    if request.off("top_k") and request.off("top_p"):
        return small
    falling, order = z.sort(-1, descending=True)
    top = kept
    if not request.off("top_k"):
        kth = falling.gather(-1, (k - 1).clamp(0, size - 1).expand(len(z), 1))
        top = kept & ((z >= kth) | (k <= 0) | (k >= size))
    if request.off("top_p"):
        return small & top
    counted = {"joint": kept, "vllm": small & top}.get(request.order, top)
    mass = torch.where(counted, weight, 0.0).gather(-1, order)
    total = mass.cumsum(-1)
    before = torch.nn.functional.pad(total[:, :-1], (1, 0))
    first = torch.nn.functional.pad(falling[:, 1:] != falling[:, :-1], (1, 0), value=True)
    larger = torch.where(first, before, 0.0).cummax(-1).values  # the mass of strictly larger values
    inside = (larger < p * total[:, -1:]) | (p >= 1)
    last = (inside.sum(-1, keepdim=True) - 1).clamp(min=0)
    return small & top & (z >= falling.gather(-1, last))


def _uniforms(request: Request, z: Any) -> Any:
    if request.noise is not None:
        return request.compact(request.noise).double()
    ids = request.allowed.index_on(z).reshape(1, -1)
    return uniform(bits(request.seeds, request.positions, ids), torch.float64)


def _first(mask: Any) -> Any:
    return mask.to(torch.int8).argmax(-1)


def _score(deep: Any, weight: Any, local: Any, kept: Any, status: Any) -> Any:
    own = deep.gather(-1, local[:, None])[:, 0]
    found = own - torch.where(kept, weight, 0.0).sum(-1).log()
    return torch.where(status == 0, found, torch.nan).float()


def csr(mask: Any, allowed: AllowedSet) -> tuple[Any, Any]:
    """Return global ids and offsets of a mask."""
    ids = allowed.index_on(mask)[mask.nonzero()[:, 1]].to(torch.int32)
    return ids, torch.nn.functional.pad(mask.sum(-1).cumsum(0), (1, 0))


def replay(logits: Any, tokens: Any, rows: Any, columns: Any, temperature: Any) -> Any:
    """`rollkit.decode.replay_logprobs`."""
    rows, columns, tokens = (
        torch.as_tensor(found, device=logits.device).long() for found in (rows, columns, tokens)
    )
    heat = _column(temperature, logits, torch.float32)
    heat = torch.where(heat == 0, 1.0, heat).expand(len(logits), 1)[:, 0]
    z = logits[rows, columns].float() / heat[rows]
    most = z.new_full((len(logits),), -torch.inf).scatter_reduce(0, rows, z.detach(), "amax")
    infinite = most == torch.inf
    z, most = _limit(z, infinite[rows]), torch.where(infinite, 0.0, most)
    mass = z.new_zeros(len(logits)).index_add(0, rows, (z - most[rows]).exp())
    hit = columns == tokens[rows]
    inside = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    inside[rows[hit]] = True
    own = logits[torch.arange(len(logits), device=logits.device), tokens.where(inside, 0)].float() / heat
    own = _limit(own, infinite)
    # Rows that kept nothing must not put a NaN into the gradient of the others.
    safe = torch.where(inside, mass, 1.0).log() + torch.where(inside, most, 0.0)
    return torch.where(inside, own - safe, -torch.inf)


def _limit(z: Any, infinite: Any) -> Any:
    """Let +∞ share all mass, in rows that have it."""
    return torch.where(infinite, torch.where(z == torch.inf, 0.0, -torch.inf), z)


def look_up(ids: Any, starts: Any, stops: Any, targets: Any) -> Any:
    """Map numbers within runs."""
    ids = ids.to(torch.int64)
    if not len(starts):
        return torch.full_like(ids, -1)
    if len(starts) == 1:
        start, stop, target = int(starts[0]), int(stops[0]), int(targets[0])
        return torch.where((ids >= start) & (ids < stop), ids - start + target, -1)
    starts, stops, targets = (torch.tensor(ends, device=ids.device) for ends in (starts, stops, targets))
    run = (torch.searchsorted(starts, ids.contiguous(), right=True) - 1).clamp(min=0)
    inside = (ids >= starts[run]) & (ids < stops[run])
    return torch.where(inside, ids - starts[run] + targets[run], -1)


def product(hidden: Any, weight: Any, bias: Any) -> Any:
    """`hidden @ weight.T + bias`."""
    wide = torch.promote_types(hidden.dtype, weight.dtype)
    bias = None if bias is None else narrowed("bias", bias, wide, rows=False)
    return torch.nn.functional.linear(hidden.to(wide), weight.to(wide), bias)


def detached(array: Any) -> Any:
    """Return the tensor, without a gradient to it."""
    return array.detach()


def trainable() -> AbstractContextManager[Any]:
    """Leave inference mode: what is kept from it could not be trained with later."""
    guard: AbstractContextManager[Any] = torch.inference_mode(False)
    return guard


def state(array: Any) -> Any:
    """Return where the tensor is, and how often it was written to if that is counted."""
    version = None if array.is_inference() else array._version
    return array.data_ptr(), version, array.device, array.dtype


def register_head(head: type[Any], sliced: type[Any]) -> None:
    """Nothing to do."""
