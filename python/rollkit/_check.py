"""Coercions that every front function needs, with errors that name the argument."""

import math
import numbers
import operator
from collections.abc import Iterable, Mapping
from itertools import islice
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit import _native
from rollkit._errors import refusal
from rollkit._frameworks import as_array, is_array

Int64s = NDArray[np.int64]

MOST: Final = 2**63 - 1
UNSIGNED_BEYOND_INT64: Final = "uint64"
_INT64: Final = np.dtype(np.int64)
_DIMENSIONS: Final = 64


def shown(value: Any) -> str:
    """A value as messages have it; Python writes no int of thousands of digits."""
    try:
        return repr(value)
    except ValueError:
        return f"{type(value).__name__} with a number of too many digits"


def positive(name: str, value: Any, least: int = 1) -> int:
    """Return `value` as an int that is at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {shown(number)}")
    if number > MOST:
        raise OverflowError(f"{name} is {shown(number)}, beyond int64")
    return number


def integer(name: str, value: Any) -> int:
    """Return `value` as an int of either sign."""
    return positive(name, value, least=-MOST)


def number(name: str, value: Any) -> Any:
    """Return `value` if it is a real number; an array of one is none."""
    if not isinstance(value, numbers.Real | np.number | np.bool_) or isinstance(value, np.complexfloating):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    return value


def finite(name: str, value: Any) -> float:
    """Return `value` as a float if it is a finite number."""
    found = number(name, value)
    try:
        wide = float(found)
    except OverflowError:
        wide = math.inf
    if not math.isfinite(wide):
        raise ValueError(f"{name} must be finite, got {shown(found)}")
    return wide


def flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False, or 1 or 0."""
    if isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, got {type(value).__name__}")


def items(name: str, value: Any) -> list[Any]:
    """Return the items of a sequence, or of what else goes from item to item, but for text."""
    if isinstance(value, list):
        return value
    no_rows = isinstance(value, np.ndarray) and value.ndim == 0
    if isinstance(value, str | bytes) or not isinstance(value, Iterable) or no_rows:
        raise TypeError(f"{name} must be a sequence, got {type(value).__name__}")
    return list(value)


def entries(name: str, value: Any) -> list[Any]:
    """Return the items of a sequence, those that are arrays of one element as what they say.

    Equal tensors have hashes of their own: what is grouped by them would fall apart without a word.
    """
    return [_entry(entry) for entry in items(name, host(name, value).tolist() if is_array(value) else value)]


def given(name: str, ids: Iterable[Any]) -> None:
    """Refuse ids that are missing: rows without one would be taken for rows of one."""
    for row, entry in enumerate(ids):
        if entry is None or (isinstance(entry, float | np.floating) and entry != entry):
            text = f" is {entry}; give each row an id, or leave the column out"
            raise refusal(ValueError, text, column=name, row=row)


def _entry(entry: Any) -> Any:
    if isinstance(entry, str | int | float | np.generic) or not is_array(entry):
        return entry
    found = host("an entry", entry)
    return found if found.ndim else found.item()  # of NumPy's arrays none has a hash: they are refused


def mapping(name: str, value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a mapping; an empty one for None."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict by name, got {type(value).__name__}")
    return value


def host(name: str, value: Any) -> NDArray[Any]:
    """Return numbers as an array on the host, of any shape and dtype."""
    try:
        return np.asarray(as_array(value))
    except ValueError:
        raise ValueError(f"{name} must be numbers or an array, got rows of different lengths") from None


def floats(name: str, value: Any) -> NDArray[np.float64]:
    """Return numbers as float64 on the host."""
    found = host(name, value)
    if found.dtype.kind not in "biufV" or (found.dtype.kind == "V" and issubclass(found.dtype.type, np.void)):
        raise TypeError(f"{name} must hold numbers, got {found.dtype}")
    return found.astype(np.float64)


def shape(name: str, value: Any) -> tuple[int, ...]:
    """Return a shape of one or more dimensions, whose elements int64 counts."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} must be a tuple of ints, got {type(value).__name__}")
    # No array has more dimensions; what goes on for ever ends here.
    found = tuple(integer(f"{name}[{i}]", size) for i, size in enumerate(islice(value, _DIMENSIONS + 1)))
    if len(found) > _DIMENSIONS:
        raise ValueError(f"{name} must have at most {_DIMENSIONS} dimensions")
    if not found or min(found) < 0:
        raise ValueError(f"{name} must have one or more dimensions of 0 or more, got {found}")
    if prod(found) > MOST:
        raise OverflowError(f"{name} {found} has more than 2**63 - 1 elements")
    return found


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


def one_or_more_int64s(name: str, value: Any) -> Int64s:
    """Return integers, or one, as `int64s` does."""
    return int64s(name, [value] if host(name, value).ndim == 0 else value)


def same_ints(a: Int64s, b: Int64s) -> bool:
    """Whether two arrays of int64 are equal."""
    if a is b:
        return True
    if len(a) != len(b):
        return False
    if len(a) <= 512:
        return a.tobytes() == b.tobytes()  # a quarter of the time of np.array_equal
    return bool((a == b).all())


def choice(name: str, value: Any, known: tuple[str, ...]) -> str:
    """Return `value` if it is one of the known words."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {shown(value)}")
    return str(value)


def checked_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `out` if it is an array that can take the result."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out must be {dtype} of shape {shape}, got {out.dtype} of shape {out.shape}")
    flags = out.flags
    wrong = {
        "read-only": not flags.writeable,
        "strided": not flags.c_contiguous,
        "misaligned": not flags.aligned,
    }
    for got, found in wrong.items():
        if found:
            raise ValueError(
                f"out must be C-contiguous, aligned and writeable, got a {got} array; np.empty makes one"
            )
    return out
