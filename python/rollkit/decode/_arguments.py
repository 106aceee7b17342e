"""The arguments of `generate`, checked before a model runs: afterwards an error names no argument."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit._check import host, int64s, mapping, positive
from rollkit._frameworks import is_array
from rollkit.decode._request import check_order, parameter
from rollkit.decode.allowed import AllowedSet

Int64s = NDArray[np.int64]

PHI: Final = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ over the golden ratio."""


def prompts_of(name: str, prompts: Any, vocab_size: int) -> list[Int64s]:
    """Return prompts as arrays."""
    if isinstance(prompts, str | Mapping) or not isinstance(prompts, Iterable):
        raise TypeError(f"{name} must be a list of prompts, each of token ids, got {type(prompts).__name__}")
    return [_ids(f"{name}[{i}]", prompt, vocab_size) for i, prompt in enumerate(prompts)]


def unconditional(uncond: Any, n: int, vocab_size: int) -> list[Int64s] | None:
    """Return one prompt for each sequence."""
    if uncond is None:
        return None
    flat = isinstance(uncond, Sequence) or (is_array(uncond) and uncond.ndim > 0)
    if flat and not isinstance(uncond, str) and len(uncond) and _is_number("uncond[0]", uncond[0]):
        return [_ids("uncond", uncond, vocab_size)] * n
    found = prompts_of("uncond", uncond, vocab_size)
    if len(found) != n:
        raise ValueError(f"uncond must be one prompt or {n}, one per prompt, got {len(found)}")
    return found


def limits_of(limit: Any, n: int) -> Int64s:
    """Return the most tokens of each sequence."""
    if limit is None or _is_number("max_new_tokens", limit):
        return np.full(n, positive("max_new_tokens", limit))
    found = int64s("max_new_tokens", limit)
    if len(found) != n:
        raise ValueError(f"max_new_tokens must be one int or [{n}], one per prompt, got {len(found)}")
    if found.size and found.min() < 1:
        i = int(found.argmin())
        raise ValueError(f"max_new_tokens[{i}] is {found[i]}; it must be at least 1")
    return found


def own_seeds(seeds: Any, n: int) -> Int64s:
    """Give each sequence its seed: i of a number s is `mix(mix(s) + i φ)`, in 64 bits."""
    if host("seeds", seeds).ndim == 0:
        if not isinstance(seeds, numbers.Integral) and not hasattr(seeds, "__index__"):
            raise TypeError(f"seeds must be one int or [{n}] ints, got {type(seeds).__name__}")
        seed = int(seeds)
        if not -(2**63) <= seed < 2**63:
            raise OverflowError(f"seeds is {seed}; it must fit into int64")
        start = _mix(np.array([seed % 2**64], np.uint64))
        return _mix(start + np.arange(n, dtype=np.uint64) * PHI).view(np.int64)
    found = int64s("seeds", seeds)
    if len(found) != n:
        raise ValueError(f"seeds must be one int or [{n}], one per prompt, got {len(found)}")
    return found


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return splitmix64's output for a state (G. Steele et al., 2014): no two states have the same."""
    z = state + PHI
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def check_allowed(allowed: Any) -> None:
    """Refuse what is no set, or one that leaves nothing to draw from."""
    if not isinstance(allowed, AllowedSet):
        raise TypeError(f"allowed must be an AllowedSet, got {type(allowed).__name__}")
    if not len(allowed):
        raise ValueError("allowed is empty; a row needs at least one token to draw from")


def check_sampling(sampling: Mapping[str, Any]) -> None:
    """Refuse what `sample` would, and arrays: rows of the batch change places."""
    sampling = mapping("sampling", sampling)
    for name, value in sampling.items():
        if name == "order":
            continue
        if not isinstance(value, numbers.Real):
            raise TypeError(
                f"{name} must be one number for all sequences, got {type(value).__name__}; "
                "call generate once for each number"
            )
        parameter(name, value, 1)
    check_order(sampling.get("order", "hf"), sampling.get("min_p", 0) == 0)


def check_callbacks(**callbacks: Any) -> None:
    """Refuse what cannot be called."""
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise TypeError(f"{name} must be a function or None, got {type(callback).__name__}")


def cancelled(wanted: Any, n: int) -> bool | Int64s:
    """Return what `cancel` returned: all or none, or sequences."""
    if isinstance(wanted, bool | np.bool_):
        return bool(wanted)
    if not isinstance(wanted, Iterable) or isinstance(wanted, str):
        raise TypeError(f"cancel must return a bool, or the sequences to end, got {type(wanted).__name__}")
    found = int64s("what cancel returns", list(wanted))
    if found.size and not (found.min() >= 0 and found.max() < n):
        wrong = found.min() if found.min() < 0 else found.max()
        raise ValueError(f"cancel must return sequences of 0 to {n - 1}, got {wrong}")
    return found


def _is_number(name: str, value: Any) -> bool:
    return host(name, value).ndim == 0 and not isinstance(value, str | Mapping)


def _ids(name: str, prompt: Any, vocab_size: int) -> Int64s:
    if isinstance(prompt, str) or host(name, prompt).ndim == 0:
        raise TypeError(f"{name} must be a list or array of token ids, got {type(prompt).__name__}")
    found = int64s(name, prompt)
    if not len(found):
        raise ValueError(f"{name} is empty; a prompt needs at least one token")
    if found.min() < 0 or found.max() >= vocab_size:
        wrong = found.min() if found.min() < 0 else found.max()
        raise ValueError(f"{name} has token {wrong}; the model reads 0 to {vocab_size - 1}")
    return found
