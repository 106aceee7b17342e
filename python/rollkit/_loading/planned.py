"""The bins of rollouts in memory: planned at once, and placed one by one."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import numpy as np

from rollkit._arrays.ops import ops_of
from rollkit._batch.fill import Filling
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray
from rollkit._loading.lines import Lines
from rollkit._rollouts.columns import take_column
from rollkit._rows.layout import Layout

ROW_NUMBERS: Final = "row_numbers"


def some_bins(count: int) -> Int64s:
    """The first, middle and last bin, of so many."""
    return np.unique([0, (count - 1) // 2, count - 1]) if count else np.empty(0, np.int64)


class Planned:
    """Rollouts, and the layout of all bins."""

    per_token: Sequence[str] = ()

    def __init__(self, rows: Mapping[str, Any], layout: Layout, filling: Filling) -> None:
        self.layout, self.shape = layout, layout.shape
        self._rows, self._filling = rows, filling.in_one()
        self._lines = Lines(layout)

    @property
    def plan(self) -> str:
        """What is where, as 16 digits: of the tokens, those of three bins, which tell data of one layout."""
        told = sha256(repr(self.layout.shape).encode())
        for array in (self._lines.of_row, self._lines.starts, self._lines.lengths, self._some_tokens()):
            told.update(array.tobytes())
        return told.hexdigest()[:16]

    def _some_tokens(self) -> Int64s:
        arrays, _, _, _ = self.write(some_bins(self.shape[0]), {"input_ids"}, {})
        tokens = arrays["input_ids"]
        found: Int64s = ops_of(tokens).to_host(tokens).astype(np.int64)
        return found

    def costs(self) -> Int64s:
        """`[bins]` int64: the squares of their segments' lengths, added up."""
        return self._lines.costs()

    def write(
        self, bins: Int64s, wanted: Container[str] | None, spare: Mapping[str, AnyArray]
    ) -> tuple[dict[str, Any], dict[str, AnyArray], Layout, Int64s]:
        """The arrays of some bins, `[bins, capacity]`, their memory and layout, and the prompts' lengths."""
        layout, rows = self._lines.only(bins)
        filling = self._filling if wanted is None else self._filling.only(wanted)
        filling = filling.pick(rows)
        arrays, memory = filling.write(layout, spare)
        return arrays, memory, layout, filling.prompt_lengths

    def columns(
        self, bins: Int64s, spare: Mapping[str, AnyArray]
    ) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """What is per row, of the rows of some bins as they lie."""
        _, rows = self._lines.only(bins)
        found = {name: take_column(column, rows) for name, column in self._rows.items()}
        return {ROW_NUMBERS: rows, **found}, {}
