"""What `sample` was asked for, checked, as every backend takes it."""

from __future__ import annotations

import numbers
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from rollkit._arrays.ops import as_like, ops, ops_of, single
from rollkit._check import choice
from rollkit._frameworks import (
    AnyArray,
    as_array,
    dtype_name,
    framework_of,
    is_array,
    kind_of,
    same_framework,
)
from rollkit.decode.allowed import AllowedSet

ORDERS: Final = ("hf", "vllm", "joint", "acestep")
LOGPROBS: Final = ("kept", "allowed")
PARAMETERS: Final = ("cfg_scale", "temperature", "top_k", "top_p", "min_p")
ARRAYS: Final = ("cond", "uncond", *PARAMETERS, "seeds", "positions", "noise")
MOST: Final = float(np.finfo(np.float32).max)
LIMITS: Final = {
    "cfg_scale": (-MOST, MOST),
    "scale": (-MOST, MOST),
    "temperature": (0, np.inf),
    "top_k": (0, np.inf),
    "top_p": (0, 1),
    "min_p": (0, 1),
}
LEAST_HEAT: Final = 1e-300
SAME: Final = 1 + 1e-12
"""Race times this close are equal: those of other tokens never are, roundings of one always."""
OFF: Final = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `sample`; parameters are numbers, or arrays of one per row."""

    cond: Any
    uncond: Any
    allowed: AllowedSet
    full: bool
    cfg_scale: Any
    temperature: Any
    top_k: Any
    top_p: Any
    min_p: Any
    seeds: Any
    positions: Any
    noise: Any
    order: str
    logprobs: str
    return_kept: bool

    def off(self, name: str) -> bool:
        """Whether a filter is off for all rows, told without looking at arrays."""
        value: Any = getattr(self, name)
        return isinstance(value, int | float) and value == OFF[name]

    def compact(self, matrix: Any) -> Any:
        """Return the allowed columns of a matrix shaped like the logits."""
        return self.allowed.compact(matrix) if self.full and matrix is not None else matrix

    def arrays(self) -> list[Any]:
        """The arguments that are arrays."""
        return [value for name in ARRAYS if hasattr(value := getattr(self, name), "shape")]

    def is_plain(self) -> bool:
        """Whether Rust may read all arrays: in the host's memory, with no gradient or trace to lose."""
        return all(map(_is_plain, self.arrays()))

    def together(self) -> Request:
        """Move logits that are plain to the framework of what is not: a traced parameter, say."""
        other = next((value for value in self.arrays() if not _is_plain(value)), self.cond)
        if framework_of(other) == framework_of(self.cond) or not _is_plain(self.cond):
            return self
        kernel = ops_of(other)
        cond, uncond, noise = (
            None if value is None else kernel.from_host(as_array(value), other)
            for value in (self.cond, self.uncond, self.noise)
        )
        return replace(self, cond=cond, uncond=uncond, noise=noise)


def _is_plain(value: Any) -> bool:
    framework = framework_of(value)
    return framework is None or ops(framework).is_plain(value)


def make_request(
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
) -> Request:
    """Check the arguments of `sample`."""
    cond, uncond = as_pair(cond, uncond, noise=noise)
    noise = as_like("noise", noise, cond, np.float32)
    check_pair(cond, uncond)
    cond, uncond = single("cond", cond), None if uncond is None else single("uncond", uncond)
    rows, columns = cond.shape
    tokens = _allowed(allowed, columns)
    _check_noise(cond, seeds, positions, noise)
    request = Request(
        cond=cond,
        uncond=uncond,
        allowed=tokens,
        full=columns != len(tokens),
        cfg_scale=parameter("cfg_scale", cfg_scale, rows),
        temperature=_normal(parameter("temperature", temperature, rows)),
        top_k=_at_most(len(tokens), parameter("top_k", top_k, rows)),
        top_p=parameter("top_p", top_p, rows),
        min_p=parameter("min_p", min_p, rows),
        seeds=seeds,
        positions=positions,
        noise=noise,
        order=choice("order", order, ORDERS),
        logprobs="off" if logprobs is None else choice("logprobs", logprobs, LOGPROBS),
        return_kept=return_kept,
    )
    if uncond is None and not _is_one(request.cfg_scale):
        raise ValueError(f"cfg_scale is {cfg_scale} without uncond; pass the unconditional logits")
    check_order(request.order, request.off("min_p"))
    return request


def check_order(order: Any, no_min_p: bool) -> None:
    """Refuse an order that is none, or has no place for what is asked for."""
    if choice("order", order, ORDERS) == "acestep" and not no_min_p:
        raise ValueError('min_p is not part of order="acestep"; leave it 0, or pass order="hf"')


def _allowed(allowed: AllowedSet | None, columns: int) -> AllowedSet:
    if not columns:
        raise ValueError("cond has no columns; a row needs at least one token to draw from")
    if allowed is None:
        return AllowedSet.full(columns)
    if not isinstance(allowed, AllowedSet):
        raise TypeError(f"allowed must be an AllowedSet or None, got {type(allowed).__name__}")
    if not len(allowed):
        raise ValueError("allowed is empty; a row needs at least one token to draw from")
    if columns not in (len(allowed), allowed.vocab_size):
        raise ValueError(
            f"cond must have {len(allowed)} columns (compact) or {allowed.vocab_size} (full), got {columns}"
        )
    return allowed


def _check_noise(cond: Any, seeds: Any, positions: Any, noise: Any) -> None:
    if noise is None:
        if seeds is None or positions is None:
            raise TypeError("pass seeds and positions, or noise")
        return
    if not (seeds is None and positions is None):
        raise TypeError("pass seeds and positions, or noise; got both")
    if tuple(noise.shape) != tuple(cond.shape):
        raise ValueError(f"noise must have the shape of cond, {tuple(cond.shape)}, got {tuple(noise.shape)}")
    if (values := readable(noise)) is None:
        return
    found = np.asarray(values, np.float32)
    wrong = ~((found > 0) & (found < 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"noise[{row}, {column}] is {found[row, column]} as float32; uniforms are above 0 and below 1"
        )


def as_pair(cond: Any, uncond: Any, **others: Any) -> tuple[Any, Any]:
    """Return both branches as arrays of the framework of `others`; a list becomes like the first array."""
    named = {"cond": cond, "uncond": uncond, **others}
    given = {name: value for name, value in named.items() if value is not None}
    same_framework(**given)
    arrays = {name: value for name, value in given.items() if is_array(value)}
    if len(arrays) == len(given):
        return cond, uncond
    like = next(iter(arrays.values()), None)
    dtype = next((arrays[name].dtype for name in ("cond", "uncond") if name in arrays), None)
    return as_like("cond", cond, like, dtype), as_like("uncond", uncond, like, dtype)


def check_pair(cond: Any, uncond: Any) -> None:
    """Refuse branches that do not belong together."""
    if not is_array(cond):
        raise TypeError(f"cond must be an array, got {type(cond).__name__}")
    if cond.ndim != 2:
        raise ValueError(f"cond must be [rows, columns], got shape {tuple(cond.shape)}")
    if kind_of(cond) != "float":
        raise TypeError(f"cond must be float32, float16 or bfloat16, got {dtype_name(cond)}")
    if uncond is not None and tuple(uncond.shape) != tuple(cond.shape):
        raise ValueError(
            f"uncond must have the shape of cond, {tuple(cond.shape)}, got {tuple(uncond.shape)}"
        )
    if uncond is not None and uncond.dtype != cond.dtype:
        raise TypeError(f"uncond must have the dtype of cond, {cond.dtype}, got {uncond.dtype}")


def _at_most(columns: int, top_k: Any) -> Any:
    """Return a top-k that fits into 32 bits: all columns are as many as any larger number."""
    if isinstance(top_k, int):
        return min(top_k, columns)
    return (
        np.minimum(top_k, columns).astype(np.int64) if isinstance(top_k, np.ndarray | list | tuple) else top_k
    )


def _normal(temperature: Any) -> Any:
    """Return temperatures of which no backend makes 0, as XLA does of the least; the draw is the same."""
    if isinstance(temperature, int | float):
        return temperature if temperature == 0 else max(temperature, LEAST_HEAT)
    found = readable(temperature)
    if found is None or not _is_plain(temperature):
        return temperature
    small = (found > 0) & (found < LEAST_HEAT)
    return np.where(small, LEAST_HEAT, found) if small.any() else temperature


def _is_one(scale: Any) -> bool:
    found = readable(scale)
    return found is None or bool((found == 1).all())


def parameter(name: str, value: Any, rows: int) -> Any:
    """Return a parameter as it is, once its range is checked where it is in reach."""
    least, most = LIMITS[name]
    usual = (int,) if name == "top_k" else (int, float)
    if type(value) in usual and least <= value <= most and abs(value) < np.inf:
        return value  # without NumPy
    if not (is_array(value) or isinstance(value, list | tuple | numbers.Number)):
        raise TypeError(f"{name} must be one number or [{rows}], got {type(value).__name__}")
    if not isinstance(value, numbers.Number) and getattr(value, "ndim", 1) > 0:
        shape = _shape(name, value, rows)
        if shape != (rows,):
            raise ValueError(f"{name} must be one number or [{rows}], one per row, got shape {shape}")
    found = readable(value)
    if found is None:
        return value
    if kind_of(found) not in (("int",) if name == "top_k" else ("int", "float")) and found.size:
        wanted = "ints" if name == "top_k" else "numbers"
        raise TypeError(f"{name} must be {wanted}, got {found.dtype}")
    wrong = ~((found >= least) & (found <= most) & np.isfinite(found))
    if wrong.any():
        row = "" if found.ndim == 0 else f"[{int(np.argmax(wrong))}]"
        value = found[wrong].flat[0]
        if most == MOST and np.isfinite(value):
            raise OverflowError(f"{name}{row} is {value}, which does not fit float32")
        limits = f"at least {least}" if most == np.inf else f"{least} to {most}"
        if most == MOST or value == np.inf:
            limits = "finite"
        raise ValueError(f"{name}{row} is {value}; it must be {limits}")
    return found.item() if found.ndim == 0 and _is_plain(value) else value


def _shape(name: str, value: Any, rows: int) -> tuple[int, ...]:
    if hasattr(value, "shape"):
        return tuple(value.shape)
    try:
        return np.shape(value)
    except ValueError:
        raise ValueError(f"{name} must be one number or [{rows}], got rows of different lengths") from None


def readable(value: Any) -> AnyArray | None:
    """Return the values of an array or number to look at, if that waits for no device; `None` if it would."""
    kernel = ops_of(value)
    return kernel.to_host(value) if kernel.is_host(value) else None
