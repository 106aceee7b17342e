"""Past one machine, on Ray."""

from typing import TYPE_CHECKING, Any

from rollkit.ray._data import PackBatches
from rollkit.ray._shards import write_shards

if TYPE_CHECKING:
    from rollkit.ray._collate import CollateArrow

__all__ = ["CollateArrow", "PackBatches", "write_shards"]


def __getattr__(name: str) -> Any:
    if name == "CollateArrow":  # a class of Ray's
        from rollkit.ray._collate import CollateArrow

        return CollateArrow
    raise AttributeError(f"module 'rollkit.ray' has no attribute {name!r}")
