"""torch: tensors over NumPy's memory."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from rollkit._check import AnyArray
from rollkit._extras import extra

torch = extra("torch", "torch")


def from_numpy(array: AnyArray, device: Any, options: Mapping[str, Any]) -> Any:
    """Return a tensor that shares the array's memory, or a copy of it on another device."""
    with warnings.catch_warnings():
        # A read-only array (from Arrow, Ray or a map) makes a tensor that must not be written to.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensor = _over(np.ascontiguousarray(array))
    return tensor.to(device=device, **options) if device is not None or options else tensor


def _over(array: AnyArray) -> Any:
    if array.dtype.kind != "V":
        return torch.from_numpy(array)
    # bfloat16 and fp8 have no NumPy dtype that torch knows; the bits are the same.
    named = getattr(torch, array.dtype.name, None)
    if named is None:
        raise TypeError(f"torch has no dtype like {array.dtype}")
    bits = np.int16 if array.dtype.itemsize == 2 else np.uint8
    return torch.from_numpy(array.view(bits)).view(named)
