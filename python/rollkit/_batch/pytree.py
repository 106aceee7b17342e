"""A batch as a pytree of torch and JAX: its arrays are leaves, and all else is static."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np

from rollkit._arrays.ops import ops
from rollkit._frameworks import is_imported
from rollkit._rollouts.columns import same_column
from rollkit._rows.layout import Layout


class Static:
    """What a batch is besides its arrays, compared by value: what is traced for one fits its equals."""

    def __init__(self, batch: Any) -> None:
        found = vars(batch)
        self.names: tuple[str, ...] = tuple(batch.arrays)
        self.layout: Layout | None = found.get("layout")
        self.prompt_lengths = found.get("prompt_lengths")
        self.rows: Mapping[str, Any] = batch.rows

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Static)
            and self.names == other.names
            and (self.layout is other.layout or _same_layout(self.layout, other.layout))
            and np.array_equal(self.prompt_lengths, other.prompt_lengths)
            and self.rows.keys() == other.rows.keys()
            and all(same_column(found, other.rows[name]) for name, found in self.rows.items())
        )

    def __hash__(self) -> int:
        layout = self.layout
        placed = None if layout is None else (layout.shape, layout.written.starts.tobytes())
        return hash((self.names, placed))

    def __repr__(self) -> str:
        return f"{self.layout!r}: {', '.join(self.names)}"


def _same_layout(a: Layout | None, b: Layout | None) -> bool:
    return a is not None and b is not None and a.equals(b)


def _leaves(batch: Any) -> tuple[tuple[str, ...], list[Any], Static]:
    return tuple(batch.arrays), list(batch.arrays.values()), Static(batch)


WAITING: Final = ["torch", "jax"]
"""Frameworks that do not know batches yet."""


def register(kind: type[Any]) -> None:
    """Tell the frameworks that are imported by now what a batch is, each once; none is imported for it."""

    def made(leaves: Iterable[Any], static: Static) -> Any:
        arrays = dict(zip(static.names, leaves, strict=True))
        return kind(arrays, static.layout, static.prompt_lengths, static.rows)

    for name in [name for name in WAITING if is_imported(name)]:
        with suppress(ValueError):  # another thread was here first
            WAITING.remove(name)
            ops(name).register_tree(kind, _leaves, made)
