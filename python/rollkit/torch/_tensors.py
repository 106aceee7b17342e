"""Tensors over the memory of arrays."""

from __future__ import annotations

from typing import Any

from rollkit._arrays.ops import array_maker
from rollkit._rows.lists import Lists

_MAKE = array_maker("torch", None, {}, None)


def tensor(array: Any) -> Any:
    """A tensor over the same memory, or lists of two; an int as it is."""
    if isinstance(array, Lists):
        return Lists(*map(_MAKE, array))
    return array if isinstance(array, int) else _MAKE(array)
