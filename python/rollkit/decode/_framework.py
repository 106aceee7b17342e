"""Which framework an array belongs to, looked up among the modules that are already imported."""

from __future__ import annotations

import sys
from typing import Any, Literal

Framework = Literal["numpy", "torch", "jax"]


def framework_of(value: Any) -> Framework:
    """Return the framework of an array; lists and numbers count as NumPy's."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return "torch"
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(value, jax.Array):  # traced arrays too
        return "jax"
    return "numpy"


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
