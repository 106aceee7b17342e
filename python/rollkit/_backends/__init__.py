"""Frameworks that batches go to. A module is imported when its framework is first asked for."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from rollkit._check import AnyArray, as_array


class Backend(Protocol):
    """What a backend module supplies."""

    def from_numpy(self, array: AnyArray, device: Any, options: Mapping[str, Any]) -> Any:
        """Return the framework's array; on the CPU over the same memory where it allows that."""
        ...


BACKENDS = {
    "numpy": "rollkit._backends._numpy",
    "torch": "rollkit._backends._torch",
    "jax": "rollkit._backends._jax",
}


def array_maker(framework: str, device: Any, options: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return a function from arrays of any framework to arrays of `framework` on `device`."""
    if framework not in BACKENDS:
        known = ", ".join(map(repr, BACKENDS))
        raise ValueError(f"framework must be one of {known}, got {framework!r}")
    backend = cast(Backend, importlib.import_module(BACKENDS[framework]))
    return lambda array: backend.from_numpy(as_array(array), device, options)
