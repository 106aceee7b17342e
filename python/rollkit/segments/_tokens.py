"""Arrays with a number per token: which framework's, of what shape, and who computes on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rollkit import _check
from rollkit._arrays.ops import Ops, ops
from rollkit._batch import Batch
from rollkit._frameworks import FRAMEWORKS, AnyArray, framework_of, is_array, same_framework
from rollkit._rows.trees import TreeLayout

INT32_MAX = 2**31 - 1

# Room for more segments than a row has tokens is for fixed shapes; more than this would be a mistake.
ROOM = 1 << 16

_numpy_ops = ops("numpy")


def room_for(max_segments: Any, width: int) -> int:
    """Check how many segments a row of `width` tokens is to have room for."""
    wanted = _check.positive("max_segments", max_segments)
    if wanted > (most := max(width, ROOM)):
        raise ValueError(f"max_segments must be at most {most}, for rows of {width} tokens, got {wanted}")
    return wanted


class Known(NamedTuple):
    """Numbers that the host has: of a list, or read off runs or a layout.

    Attributes:
        array: the numbers.
        like: an array of the framework and device that results go to; None for those of the others.
    """

    array: AnyArray
    like: Any = None

    def wrap(self) -> Any:
        """The numbers as the framework's array."""
        return rewrapped(self.array, self.like)


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
    name = next(iter(named))
    if named[name] is None:
        raise TypeError(f"{name} must be integers, [tokens] or [rows, tokens], got None")
    given = {name: _given(name, value) for name, value in named.items() if value is not None}
    likes = {name: value.like if isinstance(value, Known) else value for name, value in given.items()}
    backend = ops(same_framework(**likes))
    first = _numbers(given[name])
    for other, value in given.items():
        _check_integers(other, value, backend, name, first)
    batched = first.ndim == 2
    # Not `next` of these, which torch.compile of torch 2.7 does not trace.
    like = [*(like for like in likes.values() if like is not None), first][0]
    there = [value for value in given.values() if not isinstance(value, Known)]
    host = all(map(backend.is_host, there))
    for other, value in given.items():
        known = isinstance(value, Known)
        if host:
            given[other] = _ready(value.array if known else backend.to_host(value), batched)
        else:
            array = backend.from_host(value.array, there[0]) if known else value
            given[other] = array if batched else array[None]
    return Tokens(backend, host, [given.get(other) for other in named], batched, like)


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


def rewrapped(found: AnyArray, like: Any) -> Any:
    """Turn an array into one of the framework of `like`."""
    framework = framework_of(like)
    return found if framework is None else ops(framework).from_host(found, like)


def check_framework(wanted: str, owner: str, **given: Any) -> None:
    """Refuse arrays of another framework than that of the package they are for; NumPy's are for all."""
    for name, array in given.items():
        framework = framework_of(array)
        if framework not in (None, "numpy", wanted):
            convert = FRAMEWORKS[wanted].conversion.format(name)
            raise TypeError(f"{name} is of {framework}; {owner} is {wanted}'s: {convert}")


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


def check_segments(name: str, value: Any) -> None:
    """Refuse a batch, or its layout, of rows that share tokens."""
    if isinstance(value, Batch):
        name, value = "batch.layout", vars(value).get("layout")
    if isinstance(value, TreeLayout):
        raise TypeError(
            f"{name} is a TreeLayout, whose rows are no segments: they share tokens; use block_mask, "
            "magi_ranges, flashmask_indices, tree_varlen or dense_mask"
        )


def _given(name: str, value: Any) -> Any:
    """An array as it is, or numbers of the host."""
    check_segments(name, value)
    return value if isinstance(value, Known) or is_array(value) else Known(_listed(name, value))


def _check_integers(name: str, value: Any, backend: Ops, first_name: str, first: Any) -> None:
    """Refuse what holds no integers, or has other rows than the first array."""
    array = _numbers(value)
    if not (_numpy_ops if array is not value else backend).is_integer(array):
        raise TypeError(f"{name} must hold integers, got {array.dtype}")
    if array.ndim not in (1, 2):
        raise ValueError(f"{name} must be [tokens] or [rows, tokens], got shape {tuple(array.shape)}")
    if array.ndim != first.ndim or array.shape[:-1] != first.shape[:-1]:
        raise ValueError(
            f"{name} has shape {tuple(array.shape)}, {first_name} has {tuple(first.shape)}; "
            "they must have the same rows"
        )
    if array.shape[-1] > INT32_MAX:
        raise OverflowError(f"{name} has rows of {array.shape[-1]} tokens, beyond int32")


def _numbers(value: Any) -> Any:
    return value.array if isinstance(value, Known) else value


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
