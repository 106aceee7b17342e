"""Arguments whose values decide the result: they must have some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rollkit._errors import at
from rollkit._extras import extra
from rollkit._frameworks import as_array, framework_of


def need_tensors(**tensors: Any) -> None:
    """Refuse what is no tensor by its name."""
    torch = extra("torch", "torch")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")


def need_values(name: str, tensor: Any) -> None:
    """Refuse what is no tensor, and one of the meta device with the error that torch raises for it."""
    need_tensors(**{name: tensor})
    if tensor.is_meta:
        raise NotImplementedError(f"{name} is on the meta device, and has no values; pass a real tensor")


def on_host(name: str, rows: Any) -> Any:
    """Rows that NumPy can read: those of tensors as arrays.

    Raises:
        TypeError: a row has a gradient, which would be lost, or no values.
    """
    if not isinstance(rows, Sequence) or all(type(row) is list for row in rows):
        return rows
    found = []
    for number, row in enumerate(rows):
        with at(column=name, label=name, row=number):
            found.append(row if framework_of(row) is None else as_array(row))
    return found
