"""The bins of rollouts in memory that share prefixes: planned at once, and placed one by one."""

from __future__ import annotations

from collections.abc import Container, Mapping
from hashlib import sha256
from typing import Any, Final

import numpy as np

from rollkit._arrays.ops import ops_of
from rollkit._batch.shared import SharedFilling
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray
from rollkit._loading.planned import ROW_NUMBERS, some_bins
from rollkit._rows.trees import TreeLayout

_AT_ONCE: Final = 1 << 22
"""Tokens that are checked at a time."""


class PlannedTrees:
    """Rollouts, and the layout of all bins.

    Args:
        layout: of the rollouts.
        filling: what bins are made of.
        check: whether the layout was made elsewhere, and perhaps of others.
    """

    def __init__(self, layout: TreeLayout, filling: SharedFilling, *, check: bool) -> None:
        self.layout, self.shape = layout, layout.shape
        self._filling = filling.in_one()
        self.per_token = filling.per_token
        if check:
            self._check()

    def _check(self) -> None:
        count, width = self.shape
        step = max(_AT_ONCE // max(width, 1), 1)
        for begin in range(0, count, step):
            rows, layout = self.layout.laid(np.arange(begin, min(begin + step, count)))
            self._filling.pick(rows).check(layout, rows)

    @property
    def plan(self) -> str:
        """What is where, as 16 digits: of the tokens, those of three bins, which tell data of one layout."""
        layout, nodes = self.layout, self.layout.nodes
        told = sha256(repr(self.shape).encode())
        arrays, _, _, _ = self.write(some_bins(self.shape[0]), {"input_ids"}, {})
        tokens = arrays["input_ids"]
        some = ops_of(tokens).to_host(tokens).astype(np.int64)
        for array in (
            nodes.starts,
            nodes.lengths,
            *nodes.pieces_of_rows(),
            layout.parents,
            layout.leaf,
            some,
        ):
            told.update(array.tobytes())
        return told.hexdigest()[:16]

    def costs(self) -> Int64s:
        """`[bins]` int64: the squares of rows' lengths, added up; what they share costs once."""
        return self.layout.costs((0, 1))

    def write(
        self, bins: Int64s, wanted: Container[str] | None, spare: Mapping[str, AnyArray]
    ) -> tuple[dict[str, Any], dict[str, AnyArray], TreeLayout, Int64s]:
        """The arrays of some bins, `[bins, capacity]`, their memory and layout, and the prompts' lengths."""
        rows, layout = self.layout.laid(bins)
        nodes = self._filling.nodes.pick(rows)
        arrays, memory = self._filling._replace(nodes=nodes).write(layout, wanted, spare)
        return arrays, memory, layout, nodes.prompt_lengths

    def columns(
        self, bins: Int64s, spare: Mapping[str, AnyArray]
    ) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """What is of rows, of those in some bins, bin after bin; and the memory of what is per token."""
        rows, layout = self.layout.laid(bins)
        found, memory = self._filling.pick(rows).columns(layout, spare)
        return {ROW_NUMBERS: rows, **found}, memory
