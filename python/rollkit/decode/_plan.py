"""What `sample` was asked for, checked, as every backend takes it."""

from __future__ import annotations

import numbers
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Final

import numpy as np

from rollkit._check import choice
from rollkit._frameworks import as_array
from rollkit.decode._framework import dtype_name, framework_of, kind_of, same_framework
from rollkit.decode.allowed import AllowedSet

ORDERS: Final = ("hf", "vllm", "joint", "acestep")
LOGPROBS: Final = ("kept", "allowed")
PARAMETERS: Final = ("cfg_scale", "temperature", "top_k", "top_p", "min_p")
ARRAYS: Final = ("cond", "uncond", *PARAMETERS, "seeds", "positions", "noise")
LIMITS: Final = {
    "cfg_scale": (-np.inf, np.inf),
    "scale": (-np.inf, np.inf),
    "temperature": (0, np.inf),
    "top_k": (0, np.inf),
    "top_p": (0, 1),
    "min_p": (0, 1),
}
LEAST_HEAT: Final = 1e-300
OFF: Final = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """The arguments of `sample`, with its defaults; parameters are numbers, or arrays of one per row."""

    cond: Any
    uncond: Any = None
    _: KW_ONLY
    allowed: AllowedSet
    full: bool = False
    cfg_scale: Any = 1.0
    temperature: Any = 1.0
    top_k: Any = 0
    top_p: Any = 1.0
    min_p: Any = 0.0
    seeds: Any = None
    positions: Any = None
    noise: Any = None
    order: str = "hf"
    logprobs: Any = "kept"
    return_kept: bool = False

    def off(self, name: str) -> bool:
        """Whether a filter is off for all rows, told without looking at arrays."""
        value: Any = getattr(self, name)
        return isinstance(value, int | float) and value == OFF[name]

    def compact(self, matrix: Any) -> Any:
        """Return the allowed columns of a matrix shaped like the logits."""
        return self.allowed.compact(matrix) if self.full and matrix is not None else matrix

    def is_on_host(self) -> bool:
        """Whether all arrays are in the host's memory, and none is traced."""
        values = [getattr(self, name) for name in ARRAYS]
        return all(map(on_host, (value for value in values if hasattr(value, "shape"))))


def make_plan(cond: Any, uncond: Any = None, **options: Any) -> Plan:
    """Check the arguments of `sample`; their names and defaults are those of `Plan`."""
    if same_framework(cond=cond, uncond=uncond, noise=options.get("noise")) == "numpy":
        cond, uncond = np.asarray(cond), None if uncond is None else np.asarray(uncond)
        if options.get("noise") is not None:
            options["noise"] = np.asarray(options["noise"])
    check_pair(cond, uncond)
    given = Plan(cond, uncond, **options)
    allowed = _allowed(given.allowed, cond.shape[1])
    rows = cond.shape[0]
    _check_noise(cond, given.seeds, given.positions, given.noise)
    plan = replace(
        given,
        allowed=allowed,
        full=cond.shape[1] != len(allowed),
        cfg_scale=parameter("cfg_scale", given.cfg_scale, rows),
        temperature=_normal(parameter("temperature", given.temperature, rows)),
        top_k=_at_most(len(allowed), parameter("top_k", given.top_k, rows)),
        top_p=parameter("top_p", given.top_p, rows),
        min_p=parameter("min_p", given.min_p, rows),
        order=choice("order", given.order, ORDERS),
        logprobs="off" if given.logprobs is None else choice("logprobs", given.logprobs, LOGPROBS),
    )
    if uncond is None and not _is_one(plan.cfg_scale):
        raise ValueError(f"cfg_scale is {given.cfg_scale} without uncond; pass the unconditional logits")
    check_order(plan.order, plan.off("min_p"))
    return plan


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
    if noise is None and (seeds is None or positions is None):
        raise TypeError("pass seeds and positions, or noise")
    if noise is not None and not (seeds is None and positions is None):
        raise TypeError("pass seeds and positions, or noise; got both")
    if noise is not None and tuple(noise.shape) != tuple(cond.shape):
        raise ValueError(f"noise must have the shape of cond, {tuple(cond.shape)}, got {tuple(noise.shape)}")


def check_pair(cond: Any, uncond: Any) -> None:
    """Refuse branches that do not belong together."""
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
    if not on_host(temperature):
        return temperature
    found = np.asarray(as_array(temperature))
    small = (found > 0) & (found < LEAST_HEAT)
    return np.where(small, LEAST_HEAT, found) if small.any() else temperature


def _is_one(scale: Any) -> bool:
    return not on_host(scale) or bool((np.asarray(as_array(scale)) == 1).all())


def parameter(name: str, value: Any, rows: int) -> Any:
    """Return a parameter as it is, once its range is checked where it is in reach."""
    least, most = LIMITS[name]
    usual = (int,) if name == "top_k" else (int, float)
    if type(value) in usual and least <= value <= most and abs(value) < np.inf:
        return value  # without NumPy
    if value is None or isinstance(value, str):
        raise TypeError(f"{name} must be one number or [{rows}], got {type(value).__name__}")
    if not isinstance(value, numbers.Number) and getattr(value, "ndim", 1) > 0:
        shape = _shape(name, value, rows)
        if shape != (rows,):
            raise ValueError(f"{name} must be one number or [{rows}], one per row, got shape {shape}")
    if not on_host(value):
        return value
    found = np.asarray(as_array(value))
    if kind_of(found) not in (("int",) if name == "top_k" else ("int", "float")) and found.size:
        wanted = "ints" if name == "top_k" else "numbers"
        raise TypeError(f"{name} must be {wanted}, got {found.dtype}")
    wrong = ~((found >= least) & (found <= most) & np.isfinite(found))
    if wrong.any():
        row = "" if found.ndim == 0 else f"[{int(np.argmax(wrong))}]"
        value = found[wrong].flat[0]
        limits = f"at least {least}" if most == np.inf else f"{least} to {most}"
        if least == -np.inf or value == np.inf:
            limits = "finite"
        raise ValueError(f"{name}{row} is {value}; it must be {limits}")
    return found.item() if found.ndim == 0 else value


def _shape(name: str, value: Any, rows: int) -> tuple[int, ...]:
    if hasattr(value, "shape"):
        return tuple(value.shape)
    try:
        return np.shape(value)
    except ValueError:
        raise ValueError(f"{name} must be one number or [{rows}], got rows of different lengths") from None


def on_host(array: Any) -> bool:
    """Whether an array is in the host's memory, to be looked at without waiting for a device."""
    framework = framework_of(array)
    if framework == "torch":
        return bool(array.device.type == "cpu")
    if framework == "jax":
        import jax  # noqa: TID251 - `array` is a JAX array, so it is imported

        if isinstance(array, jax.core.Tracer):
            return False
        return all(device.platform == "cpu" for device in array.devices())
    return True
