"""Coercions that every front function needs, with errors that name the argument."""

import operator
import sys
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rollkit import _native

Int64s = NDArray[np.int64]
AnyArray = NDArray[Any]
Framework = Literal["numpy", "torch", "jax"]

UNSIGNED_BEYOND_INT64: Final = "uint64"
_INT64: Final = np.dtype(np.int64)


def positive(name: str, value: Any, least: int = 1) -> int:
    """Return `value` as an int that is at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def lengths(name: str, value: Any) -> Int64s:
    """Return row lengths as a contiguous, one-dimensional int64 array without negatives."""
    found = int64s(name, value)
    if (row := _native.first_negative(found)) is not None:
        raise ValueError(f"{name}[{row}] is {found[row]}; lengths must be 0 or more")
    return found


def int64s(name: str, value: Any) -> Int64s:
    """Return integers as a contiguous, aligned, one-dimensional int64 array."""
    if type(value) is np.ndarray and value.dtype is _INT64 and value.ndim == 1:
        flags = value.flags
        if flags.c_contiguous and flags.aligned:
            return value  # most often; a third of the time of a short call, otherwise
    try:
        found = np.asarray(as_array(value))
    except ValueError:
        raise ValueError(f"{name} must be one-dimensional, got rows of different lengths") from None
    if found.size == 0 and not isinstance(value, np.ndarray):
        found = found.astype(np.int64)  # NumPy makes float64 of an empty list
    if found.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {found.shape}")
    if found.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {found.dtype}")
    if found.dtype == UNSIGNED_BEYOND_INT64 and found.size and int(found.max()) >= 2**63:
        raise OverflowError(f"{name} has values beyond int64")
    aligned: Int64s = np.require(found, np.int64, ["C", "A"])
    return aligned


def choice(name: str, value: Any, known: tuple[str, ...]) -> str:
    """Return `value` if it is one of the known words."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    return str(value)


def as_array(value: Any) -> Any:
    """Return a tensor's memory as a NumPy array, without a copy; anything else as it is.

    Frameworks are looked up among the modules that are already imported, so that importing rollkit
    imports none of them.
    """
    if isinstance(value, np.ndarray):
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _from_torch(torch, value)
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(value, jax.Array):
        return np.asarray(value)
    return value


def is_array(value: Any) -> bool:
    """Whether `value` is a NumPy array or a tensor of a framework that is imported."""
    return framework_of(value) is not None


def framework_of(value: Any) -> Framework | None:
    """The framework whose array this is, traced or not; None for lists and the like."""
    if isinstance(value, np.ndarray):
        return "numpy"
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and isinstance(value, torch.Tensor):
        return "torch"
    if jax is not None and isinstance(value, jax.Array):
        return "jax"
    return None


def _from_torch(torch: Any, tensor: Any) -> AnyArray:
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        raise TypeError(f"got a torch tensor on {tensor.device}; move it with .cpu() first")
    named = str(tensor.dtype).removeprefix("torch.")
    if named == "bfloat16" or named.startswith("float8"):
        # NumPy has these dtypes only through ml_dtypes; the bits are the same.
        import ml_dtypes

        bits = torch.int16 if named == "bfloat16" else torch.uint8
        viewed: AnyArray = tensor.view(bits).numpy().view(getattr(ml_dtypes, named))
        return viewed
    plain: AnyArray = tensor.numpy()
    return plain
