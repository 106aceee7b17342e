"""The one rule for rows of several dtypes, and what a user may call a dtype."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


def common(dtypes: Iterable[Any]) -> Any:
    """The dtype that rows of several dtypes meet in, whatever comes first.

    Integers widen, integers and floats meet in a float, as in NumPy; but integers never become floats
    for want of an integer dtype that holds both.

    Args:
        dtypes: NumPy's, or a framework's own.

    Returns:
        The dtype itself if there is one only, else NumPy's.

    Raises:
        TypeError: no dtype holds all.

    Example:
        >>> common([np.dtype("uint8"), np.dtype("int8")])
        dtype('int16')
    """
    given = list(dict.fromkeys(dtypes))
    if len(given) == 1:
        return given[0]
    found = [numpy_dtype(dtype) for dtype in given]
    try:
        wanted = np.result_type(*found)
    except TypeError:  # bfloat16 and fp8, which do not meet all others
        try:
            wanted = np.result_type(*(np.dtype(np.float32) if _is_small(dtype) else dtype for dtype in found))
        except TypeError:
            raise TypeError(f"no dtype holds {_listed(found)}") from None
    if wanted.kind == "f" and all(dtype.kind in "iub" for dtype in found):
        raise TypeError(f"no integer dtype holds {_listed(found)}; cast one with .astype")
    if wanted.kind in "SUO" and any(dtype.kind not in "SUO" for dtype in found):
        raise TypeError(f"no dtype holds {_listed(found)}")
    return wanted


def odd_one(dtypes: Iterable[Any]) -> int:
    """The number of the first dtype that does not meet those before it, where `common` refuses them."""
    seen: dict[Any, None] = {}
    for i, dtype in enumerate(dtypes):
        if dtype not in seen:  # there are few, of however many rows
            seen[dtype] = None
            try:
                common(seen)
            except TypeError:
                return i
    return 0


def numpy_dtype(wanted: DTypeLike | Any, name: str = "dtype") -> np.dtype[Any]:
    """NumPy's dtype of what a user calls one: NumPy's own words, `torch.int64`, `"bfloat16"`.

    Raises:
        TypeError: there is no such dtype; `name` says which argument asked for it.
    """
    if isinstance(wanted, np.dtype):
        return wanted
    try:
        return np.dtype(wanted)
    except TypeError:
        pass
    word = wanted if isinstance(wanted, str) else str(wanted).rpartition("torch.")[2]
    try:
        if word == "bfloat16" or word.startswith("float8"):
            import ml_dtypes  # NumPy has these dtypes only through it

            small: np.dtype[Any] = np.dtype(getattr(ml_dtypes, word))
            return small
        return np.dtype(word)
    except (TypeError, AttributeError, ModuleNotFoundError):
        raise TypeError(f"{name} is {wanted!r}, which is no dtype that NumPy has") from None


def _is_small(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "V" and not issubclass(dtype.type, np.void)


def _listed(dtypes: list[np.dtype[Any]]) -> str:
    return " and ".join(sorted(map(str, dtypes)))
