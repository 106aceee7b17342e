"""Arrays with a number per token: which framework's, of what shape, and who computes on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rollkit._arrays.ops import Ops, ops
from rollkit._frameworks import AnyArray, framework_of, same_framework

INT32_MAX = 2**31 - 1

_numpy_ops = ops("numpy")


class Tokens(NamedTuple):
    """Arrays `[rows, width]` of one framework.

    On the host, `arrays` are NumPy's, C-contiguous and ready for Rust; else they are the framework's.
    """

    ops: Ops
    host: bool
    arrays: list[Any]
    batched: bool
    like: Any

    @property
    def traced(self) -> bool:
        """Whether there are values that are not there yet."""
        if self.host:
            return False
        return any(self.ops.is_traced(array) for array in self.arrays if array is not None)

    def wrap(self, found: AnyArray) -> Any:
        """Turn what Rust made into the framework's array."""
        return self.ops.from_host(found, self.like)

    def unbatch(self, found: Any) -> Any:
        """Drop the row axis if the arguments had none."""
        return found if self.batched else found[0]


def tokens(**named: Any) -> Tokens:
    """Check arrays of integers, `[T]` or `[B, T]`; None stays None. The first gives the shape's rank."""
    ready = _as_they_are(named)
    if ready is not None:
        return ready
    name, like = next(iter(named.items()))
    if like is None:
        raise TypeError(f"{name} must be integers, [tokens] or [rows, tokens], got None")
    framework = same_framework(**named)
    backend = ops(framework)
    named = _without_lists(backend, named)
    given = {name: array for name, array in named.items() if array is not None}
    like = given[name]  # lists are arrays by now
    for other, array in given.items():
        if not backend.is_integer(array):
            raise TypeError(f"{other} must hold integers, got {array.dtype}")
        if array.ndim not in (1, 2):
            raise ValueError(f"{other} must be [tokens] or [rows, tokens], got shape {tuple(array.shape)}")
        if array.ndim != like.ndim or array.shape[:-1] != like.shape[:-1]:
            raise ValueError(
                f"{other} has shape {tuple(array.shape)}, {name} has {tuple(like.shape)}; "
                "they must have the same rows"
            )
        if array.shape[-1] > INT32_MAX:
            raise OverflowError(f"{other} has rows of {array.shape[-1]} tokens, beyond int32")
    batched = like.ndim == 2
    host = all(backend.is_host(array) for array in given.values())
    arrays = list(named.values())
    if host:
        arrays = [None if array is None else _ready(backend.to_host(array), batched) for array in arrays]
    elif not batched:
        arrays = [None if array is None else array[None] for array in arrays]
    return Tokens(backend, host, arrays, batched, like)


def same_shape(name: str, array: Any, other: str, wanted: Any) -> None:
    """Check that there is a number for each token."""
    if array is not None and array.shape != wanted.shape:
        raise ValueError(
            f"{name} has {array.shape[-1]} tokens per row, {other} has {wanted.shape[-1]}; "
            "each token has an id and a position"
        )


def int32s(found: Tokens, **named: Any) -> list[Any]:
    """Arrays of `found` as the framework's int32, shaped as they were given; on the host nothing wraps."""
    return [None if array is None else _int32(found, name, array) for name, array in named.items()]


def _int32(found: Tokens, name: str, array: Any) -> Any:
    if not found.host:
        return found.unbatch(found.ops.int32(array))
    if array.dtype != np.int32:
        if not np.can_cast(array.dtype, np.int32) and array.size:
            for value in (int(array.min()), int(array.max())):
                if not -INT32_MAX - 1 <= value <= INT32_MAX:
                    raise OverflowError(f"{name} has {value}, which is beyond int32")
        array = array.astype(np.int32)
    return found.wrap(found.unbatch(array))


def on_host(name: str, value: Any) -> Any:
    """The values of an array, or a copy of them from a device; lists as they are."""
    framework = framework_of(value)
    if framework is None:
        return value
    if ops(framework).is_traced(value):
        raise unreadable(name, "compute it outside")
    return ops(framework).to_host(value)


def unreadable(what: str, fix: str) -> TypeError:
    """The error for what needs values that a traced array does not have."""
    return TypeError(f"{what} needs values, and the array is being traced (jit, vmap); {fix}")


def _as_they_are(named: dict[str, Any]) -> Tokens | None:
    """NumPy arrays that need nothing: checked as others are, without the time it takes to name them."""
    like: Any = None
    arrays: list[Any] = []
    for array in named.values():
        if array is None:
            if like is None:
                return None
            arrays.append(None)
            continue
        if (
            type(array) is not np.ndarray
            or array.dtype.kind not in "iu"
            or not (array.dtype.isnative and array.flags.aligned)
        ):
            return None
        if like is None:
            like = array
        shape = array.shape
        if len(shape) != like.ndim or shape[:-1] != like.shape[:-1] or not array.flags.c_contiguous:
            return None
        if len(shape) not in (1, 2) or shape[-1] > INT32_MAX:
            return None
        arrays.append(array if len(shape) == 2 else array[None])
    return None if like is None else Tokens(_numpy_ops, True, arrays, like.ndim == 2, like)


def _without_lists(backend: Ops, named: dict[str, Any]) -> dict[str, Any]:
    """Lists as arrays of the framework of the others."""
    lists = {name for name, array in named.items() if array is not None and framework_of(array) is None}
    if not lists:
        return named
    others = (array for name, array in named.items() if array is not None and name not in lists)
    like = next(others, None)
    return {
        name: backend.from_host(_listed(name, array), like) if name in lists else array
        for name, array in named.items()
    }


def _listed(name: str, array: Any) -> AnyArray:
    try:
        found = np.asarray(array)
    except ValueError:
        raise ValueError(f"{name} must be rows of one length; pad them with 0") from None
    return found if found.size else found.astype(np.int64)


def _ready(array: AnyArray, batched: bool) -> AnyArray:
    if not batched:
        array = array[None]
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype.isnative:
        return array
    return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])
