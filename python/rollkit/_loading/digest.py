"""What orders and plans are called: digests, the same on every machine."""

from __future__ import annotations

from hashlib import sha256
from typing import Any


def digits(named: tuple[Any, ...]) -> str:
    """What depends on these, as 16 digits."""
    return sha256(repr(named).encode()).hexdigest()[:16]


def key(*named: Any) -> int:
    """A seed made of others."""
    return int.from_bytes(sha256(" ".join(map(str, named)).encode()).digest()[:7])
