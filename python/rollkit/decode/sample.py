"""Compact logits to tokens: `sample`."""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

from rollkit._arrays.ops import ops_of
from rollkit.decode._keys import check_rows
from rollkit.decode._operations import drawer, operations
from rollkit.decode._request import Request, make_request
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
    without the GIL; other devices, traced arrays, and tensors that require a gradient (where torch records
    any) stay in their framework's operations. On CUDA one Triton kernel draws, where Triton is installed; it
    waits for nothing if parameters, seeds and positions are numbers or on the device.

    Log-probabilities have gradients in torch, to logits, scales and temperatures that require one, with
    what was drawn and kept as given. JAX refuses to differentiate them; `replay_logprobs` has gradients in
    both.

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
        OverflowError: a float64 logit, or a scale, does not fit float32; likewise.

    Example:
        >>> import numpy as np
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
    request = make_request(
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
    return draw_on_host(request) if request.is_plain() else _draw(request.together())


def draw_on_host(request: Request) -> Sampled:
    """Draw in Rust, for arrays of the framework of the logits."""
    token_ids, logprobs, status, kept = operations("numpy").draw(request)
    make = partial(ops_of(request.cond).from_host, like=request.cond)
    return Sampled(
        make(token_ids),
        None if logprobs is None else make(logprobs),
        make(status),
        None if kept is None else Kept(*map(make, kept)),
    )


def _draw(request: Request) -> Sampled:
    """Draw where the arrays are, or in what a compiler traces."""
    if request.noise is None:
        check_rows(request.cond.shape[0], request.seeds, request.positions)
    return Sampled(*drawer(request).draw(request))
