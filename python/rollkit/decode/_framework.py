"""Which framework an array belongs to, looked up among the modules that are already imported."""

from __future__ import annotations

import sys
from typing import Any, Literal

from rollkit import _check
from rollkit._check import Framework as Framework

Kind = Literal["int", "float", "bool", "other"]


def framework_of(value: Any) -> Framework:
    """Return the framework of an array; lists and numbers count as NumPy's."""
    return _check.framework_of(value) or "numpy"


def dtype_name(array: Any) -> str:
    """Return what a dtype is called, without its framework."""
    return str(array.dtype).removeprefix("torch.")


def same_framework(**arrays: Any) -> Framework:
    """Return the framework of all arrays that are given.

    Raises:
        TypeError: they are of several.
    """
    found = {name: framework_of(array) for name, array in arrays.items() if array is not None}
    (first, framework), *others = found.items()
    for name, other in others:
        if other != framework:
            raise TypeError(f"{name} is of {other} but {first} of {framework}; convert {name} to {framework}")
    return framework


def kind_of(array: Any) -> Kind:
    """Return what an array holds, of any framework."""
    if framework_of(array) == "torch":
        name, whole = dtype_name(array), not array.dtype.is_floating_point
    else:
        name, whole = array.dtype.name, array.dtype.kind in "iu"
    if name == "bool":
        return "bool"
    if "float" in name:  # bfloat16 and its kin too, which NumPy has no kind for
        return "float"
    return "int" if whole and "complex" not in name else "other"


def check_ints(name: str, array: Any) -> None:
    """Refuse what would be cut off: an array that holds no integers, where it holds anything."""
    if kind_of(array) != "int" and 0 not in array.shape:
        raise TypeError(f"{name} must hold integers, got {dtype_name(array)}")


def is_traced(array: Any) -> bool:
    """Whether an array of JAX has no values yet."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(array, jax.core.Tracer)
