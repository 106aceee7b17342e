"""Compact logits to tokens: `sample`."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from rollkit import _native
from rollkit._frameworks import AnyArray, as_array
from rollkit.decode import noise as keyed
from rollkit.decode._framework import Framework, framework_of, is_traced
from rollkit.decode._plan import Plan, make_plan
from rollkit.decode.allowed import AllowedSet
from rollkit.decode.kept import Kept


class Status(IntEnum):
    """What a row's draw came to."""

    OK = 0
    """A token."""
    MASKED = 1
    """No token: every allowed logit is −∞."""
    NAN = 2
    """No token: an allowed logit is NaN."""


class Sampled(NamedTuple):
    """What `sample` returns, on the framework and device of the logits."""

    token_ids: Any
    """`[rows]` int64 (int32 in JAX): global ids; -1 where `status` is not 0."""
    logprobs: Any
    """`[rows]` float32, NaN where `status` is not 0; `None` if not asked for."""
    status: Any
    """`[rows]` int8: see `Status`."""
    kept: Any = None
    """A `Kept`; traced by JAX a bool mask `[rows, len(allowed)]`; `None` if not asked for."""


def sample(
    cond: Any,
    uncond: Any = None,
    *,
    allowed: AllowedSet | None,
    cfg_scale: Any = 1.0,
    temperature: Any = 1.0,
    top_k: Any = 0,
    top_p: Any = 1.0,
    min_p: Any = 0.0,
    seeds: Any = None,
    positions: Any = None,
    noise: Any = None,
    order: str = "hf",
    logprobs: str | None = "kept",
    return_kept: bool = False,
) -> Sampled:
    """Draw one token per row: guidance, temperature, top-k, top-p, min-p, and noise that belongs to tokens.

    The noise of a token is a hash of (seed, position, global token id): see `uniforms`. So the same
    logits draw the same token from the full vocabulary, compact, in a batch that was compacted,
    reordered or split, and in Rust, torch and JAX. Guided logits and uniforms have the same bits
    everywhere; weights and race times are float64, in which libraries differ by about 1e-16 of a value,
    so a token could differ only where two race times, or a mass and its limit, are that close.

    Filters keep values, not positions: equal logits are kept or dropped together.

    * top-k keeps a logit iff fewer than k are larger;
    * top-p keeps a logit iff the mass of larger ones is below p, in float64; the largest always stays;
    * min-p keeps a logit iff its probability is at least min_p times the largest.

    | order | |
    |---|---|
    | `"hf"` | top-k → top-p of what is left → min-p (transformers) |
    | `"vllm"` | min-p → top-k → top-p of what is left |
    | `"joint"` | top-k and top-p, both of the whole allowed set → min-p (SGLang, FlashInfer) |
    | `"acestep"` | top-k → top-p of what is left; there is no min-p |

    Guidance and temperature always come first. The draw is an exponential race, −ln u / weight, which
    the token with the least time wins; of times within 1e-12 the lowest id. Uniforms have 23 bits: a token
    with less than 3.6e-9 of the largest weight is never drawn.

    NumPy arrays, and torch and JAX arrays in the host's memory, go through Rust without a copy and
    without the GIL; other devices and traced JAX arrays stay where they are. On CUDA one Triton kernel
    draws, where Triton is installed; it waits for nothing if parameters, seeds and positions are numbers or
    on the device.

    Log-probabilities are to be read: those that Rust returns are detached, and JAX has no gradient of
    them. `replay_logprobs` has gradients everywhere.

    Args:
        cond: `[rows, columns]` logits: compact (a column per allowed token) or full (a column per token
            of the vocabulary). float32, float16, bfloat16; float64 is rounded to float32.
        uncond: as `cond`, the unconditional branch of guidance.
        allowed: which tokens may be drawn; `None`: all columns, which then are the vocabulary.
        cfg_scale: guidance `u + s (c − u)`; see `cfg`. One number or `[rows]`, as all parameters.
        temperature: 0 is greedy: the largest logit, of equals the lowest id; only it counts as kept.
            Others are at least 1e-300.
        top_k: 0 is off.
        top_p: from 0 to 1; 1 is off.
        min_p: from 0 to 1; 0 is off.
        seeds: ints of up to 64 bits, one or `[rows]`: one per sequence, say.
        positions: ints from 0 to 2³¹ − 1, one or `[rows]`: tokens of the sequence so far, say. A seed
            and position must not come twice where draws are to be independent.
        noise: `[rows, columns]` uniforms between 0 and 1, both excluded, instead of seeds and positions.
        order: as above.
        logprobs: `"kept"`: of the token at this temperature over the kept set, what it was drawn with.
            `"allowed"`: at temperature 1 over the allowed set, before filters. `None`: none. A partial
            head cannot give that over the full vocabulary.
        return_kept: also return the kept sets.

    Returns:
        A `Sampled`. Rows with NaN or without a token that is not masked have a `Status` and token -1. A
        logit of +∞ takes all mass; under guidance, one of `uncond` is NaN.

    Raises:
        TypeError: arrays of several frameworks; integer logits; both or neither of seeds and noise.
        ValueError: a shape does not fit, a parameter is out of range, or `allowed` is empty. Parameters
            on a device or traced are not looked at.

    Example:
        >>> allowed = AllowedSet(range(100, 104), 1000)
        >>> logits = np.float32([[0, 1, 2, 3], [3, 2, 1, 0]])
        >>> drawn = sample(logits, allowed=allowed, top_p=0.9, seeds=[1, 2], positions=0, return_kept=True)
        >>> drawn.token_ids
        array([102, 101])
        >>> drawn.kept.row(0)
        array([101, 102, 103], dtype=int32)
        >>> sample(logits[::-1], allowed=allowed, top_p=0.9, seeds=[2, 1], positions=0).token_ids
        array([101, 102])

    References:
        A. Holtzman et al., "The curious case of neural text degeneration", ICLR 2020 (top-p). M. Nguyen
        et al., "Turning up the heat: min-p sampling", ICLR 2025. The race: L. Devroye, "Non-uniform
        random variate generation", 1986; its Gumbel form: C. Maddison et al., "A* sampling", NIPS 2014.
    """
    plan = make_plan(
        cond,
        uncond,
        allowed=allowed,
        cfg_scale=cfg_scale,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seeds=seeds,
        positions=positions,
        noise=noise,
        order=order,
        logprobs=logprobs,
        return_kept=return_kept,
    )
    return _run(plan)


def _run(plan: Plan) -> Sampled:
    framework = framework_of(plan.cond)
    if plan.is_on_host():
        return _to(framework, plan, draw_on_host(plan))
    if framework == "torch":
        from rollkit.decode import _torch

        token_ids, logprob, status, kept = _torch.draw(plan)
        return Sampled(token_ids, logprob, status, None if kept is None else Kept(*kept))
    from rollkit.decode import _jax

    drawn = Sampled(*_jax.sample(plan))
    if drawn.kept is None or is_traced(drawn.kept):
        return drawn
    device = next(iter(plan.cond.devices()))
    csr = Kept.from_mask(drawn.kept, plan.allowed)
    return drawn._replace(kept=Kept(*(_jax.from_host(part, device) for part in csr)))


def draw_on_host(plan: Plan) -> Sampled:
    """Draw in Rust."""
    cond, dtype = _logits("cond", plan.cond)
    uncond = None if plan.uncond is None else _logits("uncond", plan.uncond)[0]
    rows = len(cond)

    def column(name: str, kind: Any) -> AnyArray:
        out = np.empty(rows, kind)
        out[...] = as_array(getattr(plan, name))  # one number or [rows]
        return out

    keys = None if plan.noise is not None else keyed.host_keys(plan.seeds, plan.positions, rows)
    parameters = {
        "cfg_scale": column("cfg_scale", np.float32),
        "temperature": column("temperature", np.float64),
        "top_k": column("top_k", np.int64),
        "top_p": column("top_p", np.float64),
        "min_p": column("min_p", np.float64),
        "seeds": keys and keys[0],
        "positions": keys and keys[1],
        "noise": None if plan.noise is None else _given(plan.noise),
    }
    span = plan.allowed.span
    token_ids, logprob, status, kept = _native.sample(
        cond,
        uncond,
        plan.allowed.ids if span is None else (span.start, span.stop),
        dtype=dtype,
        full=plan.full,
        rows=parameters,
        order=plan.order,
        logprobs=plan.logprobs,
        return_kept=plan.return_kept,
    )
    return Sampled(
        token_ids,
        None if plan.logprobs == "off" else logprob,
        status,
        None if kept is None else Kept(*kept),
    )


def _logits(name: str, logits: Any) -> tuple[AnyArray, str]:
    """Return contiguous logits, 16-bit ones as their bits, and what they are."""
    found = np.asarray(as_array(logits))
    if found.dtype == np.float32 and found.flags.c_contiguous and found.flags.aligned:
        return found, "float32"
    dtype = found.dtype.name
    if dtype == "float64":
        found, dtype = found.astype(np.float32), "float32"
    if dtype not in ("float32", "float16", "bfloat16"):
        raise TypeError(f"{name} must be float32, float16 or bfloat16, got {dtype}")
    found = np.require(found, None, ["C", "A"])
    return (found if dtype == "float32" else found.view(np.uint16)), dtype


def _given(noise: Any) -> AnyArray:
    found = np.require(as_array(noise), np.float32, ["C", "A"])
    wrong = ~((found > 0) & (found < 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"noise[{row}, {column}] is {found[row, column]} as float32; uniforms are above 0 and below 1"
        )
    return found


def _to(framework: Framework, plan: Plan, drawn: Sampled) -> Sampled:
    """Return the arrays on the framework of the logits."""
    if framework == "numpy":
        return drawn
    if framework == "torch":
        from rollkit.decode import _torch

        make = _torch.torch.from_numpy

    else:
        from rollkit.decode import _jax

        device = next(iter(plan.cond.devices()))

        def make(array: AnyArray) -> Any:
            return _jax.from_host(array, device)

    return Sampled(
        make(drawn.token_ids),
        None if drawn.logprobs is None else make(drawn.logprobs),
        make(drawn.status),
        None if drawn.kept is None else Kept(*map(make, drawn.kept)),
    )
