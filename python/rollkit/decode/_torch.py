"""The sampler in torch operations: for tensors that are not in the host's memory, and for replay."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

from rollkit._extras import extra
from rollkit.decode import noise
from rollkit.decode._plan import Plan
from rollkit.decode.allowed import AllowedSet

torch = extra("torch", "torch")

SAME = 1 + 1e-12
"""Race times this close are equal: those of other tokens never are, roundings of one always."""


def guide(cond: Any, uncond: Any, scale: Any) -> Any:
    """`rollkit.decode.cfg`."""
    c, u = cond.float(), uncond.float()
    s = _column(scale, c, torch.float32)
    guided = (u.double() + s.double() * (c - u).double()).float()
    masked = (c == -torch.inf) | (u == -torch.inf)
    return torch.where(s == 1, c, torch.where(masked, -torch.inf, guided))


def uniforms(seeds: Any, positions: Any, ids: Any) -> Any:
    """`rollkit.decode.noise.uniforms`."""
    return uniform(bits(seeds, positions, ids.reshape(1, -1).long()), torch.float32)


def uniform(found: Any, dtype: Any) -> Any:
    """Return (n + ½) / 2²³."""
    return (found.to(dtype) + 0.5) * 2.0**-noise.BITS


def bits(seeds: Any, positions: Any, ids: Any) -> Any:
    """Return `[rows, tokens]` int64: 32-bit arithmetic in 64 bits, as torch has few unsigned operations."""
    seed, position = (
        key(name, given).to(ids.device, torch.int64).reshape(-1, 1)
        for name, given in (("seeds", seeds), ("positions", positions))
    )
    words = (seed & noise.MASK, (seed >> 32) & noise.MASK, position)
    keys = []
    for start in noise.STARTS:
        h = torch.full_like(seed, start)
        for word in words:
            h = _finalise(h ^ word)
        keys.append(h)
    h = _finalise(((ids * noise.SPREAD) & noise.MASK) ^ keys[0])
    return _finalise(h ^ keys[1]) >> (32 - noise.BITS)


def key(name: str, value: Any) -> Any:
    """Return seeds or positions as a tensor of ints, one or `[rows]`, where they are."""
    if not isinstance(value, torch.Tensor):
        host = noise.as_seeds(value) if name == "seeds" else noise.host_keys(0, value, None)[1]
        value = torch.from_numpy(host.copy())
    if value.dtype.is_floating_point or value.dtype == torch.bool or value.ndim > 1:
        raise TypeError(
            f"{name} must be ints, one or [rows], got {value.dtype} of shape {tuple(value.shape)}"
        )
    return value


def _finalise(h: Any) -> Any:
    h = ((h ^ (h >> 16)) * noise.MULTIPLIERS[0]) & noise.MASK
    h = ((h ^ (h >> 13)) * noise.MULTIPLIERS[1]) & noise.MASK
    return h ^ (h >> 16)


def _column(value: Any, like: Any, dtype: Any) -> Any:
    return torch.as_tensor(value, dtype=dtype, device=like.device).reshape(-1, 1)


def draw(plan: Plan) -> tuple[Any, Any, Any, Any]:
    """Return what `sample` does, from one kernel where that can draw it."""
    if is_common(plan) and has_kernel(plan.cond.device):
        from rollkit.decode import _triton

        return _triton.sample(plan)
    return sample(plan)


def is_common(plan: Plan) -> bool:
    """Whether the kernel is made for this: plain tensors of logits, rows without gaps, noise by key.

    The operations below take all else. They also are what a compiler can trace, and what gradients of
    log-probabilities go through.
    """
    branches = [plan.cond] if plan.uncond is None else [plan.cond, plan.uncond]
    plain = all(
        type(branch) is torch.Tensor  # no subclass: it need not have the memory that it seems to
        and branch.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and branch.stride(1) == 1
        and branch.device == plan.cond.device
        and not (branch.requires_grad and torch.is_grad_enabled())
        for branch in branches
    )
    return plain and plan.noise is None and not torch.compiler.is_compiling()


@cache
def has_kernel(device: Any) -> bool:
    """Whether the kernel runs on a device: Triton of 3.2 or later, and NVIDIA's chips from Ampere on."""
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        import triton

        if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 2):
            return False
        triton.runtime.driver.active.get_current_target()
    except ModuleNotFoundError:
        return False
    except Exception as error:  # Triton finds no C compiler, say, which it needs to launch anything
        warnings.warn(
            f"sample draws with plain torch operations, as Triton does not run here: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def sample(plan: Plan) -> tuple[Any, Any, Any, Any]:
    """Return token ids, log-probabilities, statuses and the kept set of `rollkit.decode.sample`."""
    z = _logits(plan)
    z, most, status = _clean(z)
    heat = _column(plan.temperature, z, torch.float64)
    greedy = heat == 0
    heat = torch.where(greedy, 1.0, heat)
    deep = (z.double() - most) / heat
    weight = deep.exp()
    kept = _kept(plan, z, most, heat, weight)
    times = torch.where(kept, -_uniforms(plan, z).log() / weight, torch.inf)
    local = _first(times <= times.amin(-1, keepdim=True) * SAME)
    local = torch.where(greedy[:, 0], _first(z.double() == most), local)
    kept = torch.where(greedy, torch.arange(z.shape[1], device=z.device) == local[:, None], kept)
    kept = kept & (status == 0)[:, None]
    token_ids = torch.where(status == 0, plan.allowed.to_global(local), -1)
    logprobs = None
    if plan.logprobs == "allowed":
        deep = z.double() - most
        logprobs = _score(deep, deep.exp(), local, torch.tensor(True, device=z.device), status)
    elif plan.logprobs == "kept":
        logprobs = _score(deep, weight, local, kept, status)
    return token_ids, logprobs, status, csr(kept, plan.allowed) if plan.return_kept else None


def _logits(plan: Plan) -> Any:
    cond, uncond = (plan.compact(branch) for branch in (plan.cond, plan.uncond))
    return cond.float() if uncond is None else guide(cond, uncond, plan.cfg_scale)


def _clean(z: Any) -> tuple[Any, Any, Any]:
    """Return logits, their maximum in float64 and statuses; rows without a token are all zero."""
    nan = z.isnan().any(-1)
    most = z.amax(-1, keepdim=True)
    z = torch.where(most == torch.inf, torch.where(z == torch.inf, 0.0, -torch.inf), z)
    most = torch.where(most == torch.inf, 0.0, most)
    masked = most[:, 0] == -torch.inf
    status = torch.where(nan, 2, torch.where(masked, 1, 0)).to(torch.int8)
    bad = (status != 0)[:, None]
    return torch.where(bad, 0.0, z), torch.where(bad, 0.0, most).double(), status


def _kept(plan: Plan, z: Any, most: Any, heat: Any, weight: Any) -> Any:
    """Return `[rows, columns]` bool: what the filters keep."""
    size = z.shape[1]
    kept = z > -torch.inf
    small = kept
    if not plan.off("min_p"):
        floor = most + _column(plan.min_p, z, torch.float64).log() * heat
        small = kept & (z.double() >= floor)
    k, p = _column(plan.top_k, z, torch.int64), _column(plan.top_p, z, torch.float64)
    if plan.off("top_k") and plan.off("top_p"):
        return small
    falling, order = z.sort(-1, descending=True)
    top = kept
    if not plan.off("top_k"):
        kth = falling.gather(-1, (k - 1).clamp(0, size - 1).expand(len(z), 1))
        top = kept & ((z >= kth) | (k <= 0) | (k >= size))
    if plan.off("top_p"):
        return small & top
    counted = {"joint": kept, "vllm": small & top}.get(plan.order, top)
    mass = torch.where(counted, weight, 0.0).gather(-1, order)
    total = mass.cumsum(-1)
    before = torch.nn.functional.pad(total[:, :-1], (1, 0))
    first = torch.nn.functional.pad(falling[:, 1:] != falling[:, :-1], (1, 0), value=True)
    larger = torch.where(first, before, 0.0).cummax(-1).values  # the mass of strictly larger values
    inside = (larger < p * total[:, -1:]) | (p >= 1)
    last = (inside.sum(-1, keepdim=True) - 1).clamp(min=0)
    return small & top & (z >= falling.gather(-1, last))


def _uniforms(plan: Plan, z: Any) -> Any:
    if plan.noise is not None:
        return plan.compact(plan.noise).double()
    ids = plan.allowed.index_on(z).reshape(1, -1)
    return uniform(bits(plan.seeds, plan.positions, ids), torch.float64)


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
