"""What a run is told of how to go about its work: who watches it, and who does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Calls a function with each of some items, and gives what it returns in their order, as `map` does."""


class Watch(Protocol):
    """Passes items through, and may show how far it is."""

    def __call__(self, items: Iterable[T], label: str, total: int | None) -> Iterable[T]:
        """Pass `items` through."""


def unwatched(items: Iterable[T], label: str, total: int | None) -> Iterable[T]:
    """Pass items through, and show nothing."""
    return items
