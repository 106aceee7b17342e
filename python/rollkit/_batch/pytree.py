"""A batch as a pytree of torch and JAX: its arrays are leaves, and all else is static."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rollkit._arrays.ops import ops
from rollkit._frameworks import is_imported
from rollkit._rollouts.columns import same_column
from rollkit._rows.layout import Layout
from rollkit._rows.ragged import trusted

if TYPE_CHECKING:
    from rollkit._rows.trees import TreeLayout


class Static:
    """What a batch is besides its arrays, compared by value: what is traced for one fits its equals."""

    def __init__(self, batch: Any) -> None:
        found = vars(batch)
        self.names: tuple[str, ...] = tuple(batch.arrays)
        self.layout: Layout | TreeLayout | None = found.get("layout")
        self.prompt_lengths = found.get("prompt_lengths")
        self.per_token: tuple[str, ...] = found["_per_token"]
        self.rows: Mapping[str, Any] = {
            name: column for name, column in batch.rows.items() if name not in self.per_token
        }

    @cached_property
    def offsets(self) -> Any:
        """Where rows begin in columns per token: the layout says so, whatever a leaf is."""
        return self.layout.row_offsets() if self.layout is not None else None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Static)
            and self.names == other.names
            and self.per_token == other.per_token
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


def _same_layout(a: Layout | TreeLayout | None, b: Layout | TreeLayout | None) -> bool:
    return a is not None and b is not None and a.equals(b)


def _leaves(batch: Any) -> tuple[tuple[str, ...], list[Any], Static]:
    static, rows = Static(batch), batch.rows
    columns = [rows[name]._held for name in static.per_token]
    return (*static.names, *static.per_token), [*batch.arrays.values(), *columns], static


WAITING: Final = ["torch", "jax"]
"""Frameworks that do not know batches yet."""


def register(kind: type[Any]) -> None:
    """Tell the frameworks that are imported by now what a batch is, each once; none is imported for it."""

    def made(leaves: Iterable[Any], static: Static) -> Any:
        found, count = list(leaves), len(static.names)
        arrays = dict(zip(static.names, found[:count], strict=True))
        rows = dict(static.rows)
        for name, values in zip(static.per_token, found[count:], strict=True):
            rows[name] = trusted(values, static.offsets)
        return kind(arrays, static.layout, static.prompt_lengths, rows, per_token=static.per_token)

    for name in [name for name in WAITING if is_imported(name)]:
        with suppress(ValueError):  # another thread was here first
            WAITING.remove(name)
            ops(name).register_tree(kind, _leaves, made)
