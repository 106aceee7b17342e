"""NumPy: the host's memory as it is."""

from collections.abc import Mapping
from typing import Any

from rollkit._check import AnyArray


def from_numpy(array: AnyArray, device: Any, options: Mapping[str, Any]) -> AnyArray:
    """Return the array itself."""
    if device not in (None, "cpu") or options:
        raise ValueError(f"NumPy arrays are on the CPU and take no options, got device={device!r}")
    return array
