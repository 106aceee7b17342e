"""Past one machine, on Ray."""

from rollkit.ray._shards import write_shards

__all__ = ["write_shards"]
