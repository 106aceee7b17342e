"""JAX: device arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rollkit._check import AnyArray
from rollkit._extras import extra

jax = extra("jax", "jax")


def from_numpy(array: AnyArray, device: Any, options: Mapping[str, Any]) -> Any:
    """Return a JAX array; on the CPU it shares aligned memory.

    Raises:
        OverflowError: 64-bit integers that JAX, which has 32 bits unless told otherwise, would wrap.
    """
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and not jax.config.jax_enable_x64:
        narrow = np.dtype(np.int32 if array.dtype.kind == "i" else np.uint32)
        bounds = np.iinfo(narrow)
        if array.size and (array.min() < bounds.min or array.max() > bounds.max):
            raise OverflowError(f"{array.dtype} values beyond {narrow}; set jax_enable_x64")
        array = array.astype(narrow)
    if isinstance(device, str):
        device = jax.devices(device)[0]
    return jax.device_put(array, device, **options)
