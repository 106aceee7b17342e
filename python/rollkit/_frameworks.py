"""Whose array this is, and which module knows its memory: one row a framework.

Frameworks are looked up among the modules that are imported already, so that importing rollkit imports none.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

AnyArray = NDArray[Any]
Tensor = Any
"""A `torch.Tensor`. torch is imported where it is used, never with rollkit."""

Framework = Literal["numpy", "torch", "jax"]
Kind = Literal["int", "float", "bool", "other"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Registered:
    """A framework.

    Attributes:
        package: the module that its users import.
        array: the name of its array's class there.
        memory: our module that knows its memory (`rollkit._arrays.ops.Ops`).
        load: imports that module.
        conversion: how a user makes its array of another.
    """

    package: str
    array: str
    memory: str
    load: Callable[[], Any]
    conversion: str


# Written out: torch.compile, which may be the first to call, traces no other imports.


def _numpy() -> Any:
    from rollkit._arrays import numpy

    return numpy


def _torch() -> Any:
    from rollkit._arrays import torch

    return torch


def _jax() -> Any:
    from rollkit._arrays import jax

    return jax


FRAMEWORKS: Final[dict[str, Registered]] = {
    "numpy": Registered("numpy", "ndarray", "rollkit._arrays.numpy", _numpy, "np.asarray({})"),
    "torch": Registered("torch", "Tensor", "rollkit._arrays.torch", _torch, "torch.as_tensor({})"),
    "jax": Registered("jax", "Array", "rollkit._arrays.jax", _jax, "jnp.asarray({})"),
}


def framework_of(value: Any) -> Framework | None:
    """The framework whose array this is, traced or not; None for lists, numbers and the like."""
    if type(value) is np.ndarray:
        return "numpy"  # most often, and a third of the time
    for name, row in FRAMEWORKS.items():
        package = sys.modules.get(row.package)
        # A package that is being imported has no class of arrays yet, so this is none of its.
        if package is not None and isinstance(value, getattr(package, row.array, ())):
            return cast(Framework, name)
    return None


def is_imported(framework: str) -> bool:
    """Whether a framework is there; while it is being imported it has no class of arrays yet."""
    row = FRAMEWORKS[framework]
    return hasattr(sys.modules.get(row.package), row.array)


def is_array(value: Any) -> bool:
    """Whether `value` is an array of a framework that is imported."""
    return framework_of(value) is not None


def memory_of(framework: str) -> Any:
    """The module that knows a framework's memory; typed, it is `rollkit._arrays.ops.ops`."""
    row = FRAMEWORKS[framework]
    return sys.modules.get(row.memory) or row.load()


def implementation(module: str) -> Any:
    """A module of ours that needs a framework, imported when it is first asked for."""
    # Not `import_module` alone: torch.compile does not trace it.
    return sys.modules.get(module) or importlib.import_module(module)


def as_array(value: Any) -> Any:
    """An array's memory as NumPy's, without a copy; anything that is no array as it is.

    Raises:
        TypeError: the memory is not the host's, or has no values yet.
    """
    framework = framework_of(value)
    return value if framework is None else memory_of(framework).memory(value)


def same_framework(**arrays: Any) -> Framework:
    """The one framework of several arguments; None is left out, and lists are of any.

    Raises:
        TypeError: they are of several.
    """
    first, found = "", None
    for name, array in arrays.items():
        framework = framework_of(array)
        if framework is None:
            continue
        if found is None:
            first, found = name, framework
        elif framework != found:
            convert = FRAMEWORKS[found].conversion.format(name)
            raise TypeError(f"{first} is of {found}, {name} of {framework}; convert one: {name} = {convert}")
    return found or "numpy"


def dtype_name(array: Any) -> str:
    """What an array's dtype is called, without its framework."""
    return str(array.dtype).rpartition(".")[2]


def kind_of(array: Any) -> Kind:
    """What an array of any framework holds."""
    if not hasattr(array, "dtype"):
        raise TypeError(f"an array is wanted, got {type(array).__name__}")
    name = getattr(array.dtype, "name", None) or dtype_name(array)  # torch's dtypes have no name
    if name == "bool":
        return "bool"
    if "float" in name:  # bfloat16 and its kin too, which NumPy has no kind for
        return "float"
    return "int" if name.removeprefix("u").startswith("int") else "other"


def check_ints(name: str, array: Any) -> None:
    """Refuse what would be cut off: an array that holds no integers, where it holds anything."""
    if kind_of(array) != "int" and 0 not in array.shape:
        raise TypeError(f"{name} must hold integers, got {dtype_name(array)}")


def is_traced(array: Any) -> bool:
    """Whether an array has no values, or none yet (jit, vmap, meta device)."""
    framework = framework_of(array)
    return framework is not None and bool(memory_of(framework).is_traced(array))
