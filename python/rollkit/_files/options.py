"""How to make shards: `Options`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Unpack

import numpy as np

from rollkit import _check
from rollkit._batch import pack
from rollkit._check import Int64s
from rollkit._files.read import Reading
from rollkit._rollouts.columns import LISTS, check_level
from rollkit._rows.binpack import DEFAULTS, Packing
from rollkit._rows.layout import Layout

_MOST: Final = 2**31 - 1


class Options:
    """How to make shards.

    Attributes:
        capacity: tokens of a bin.
        pad_id: the token id of padding.
        bins_per_shard: bins in a file; two shards' worth of tokens are in memory at a time.
        skip_columns: columns to leave out.
        levels: what columns have an element for, without the brackets of lists; see `rollkit.pack`.
        lists: the columns of which each element is a list.
        chunk_rows: rows read at a time.
        nonfinite: as in `rollkit.read`.
        rename: as in `rollkit.read`.
        derived: store what layout and rows give too, for readers that do not derive it.
        packing: the other options of `Layout.pack`.
    """

    def __init__(
        self,
        *,
        capacity: int,
        pad_id: int = 0,
        bins_per_shard: int = 64,
        skip_columns: Sequence[str] = (),
        levels: Mapping[str, str] | None = None,
        chunk_rows: int = 256,
        nonfinite: str = "raise",
        rename: Mapping[str, str] | None = None,
        derived: bool = False,
        **packing: Unpack[Packing],
    ) -> None:
        self.capacity, self.packing = _check.number("capacity", capacity), packing
        self.pad_id = _check.number("pad_id", pad_id)
        self.bins_per_shard = _check.positive("bins_per_shard", bins_per_shard)
        self.chunk_rows = _check.positive("chunk_rows", chunk_rows)
        self.nonfinite, self.rename = nonfinite, dict(rename or {})
        self.derived = derived
        self.skip_columns, self._said = tuple(skip_columns), dict(levels or {})
        self.levels = {name: level.removesuffix(LISTS) for name, level in self._said.items()}
        self.lists = [name for name, level in self._said.items() if level.endswith(LISTS)]
        # What is wrong with an option is wrong with it for any row: say so before reading.
        if capacity > _MOST:
            raise ValueError(
                f"capacity must be at most {_MOST:,}, what int32 positions count, got {capacity:,}"
            )
        bins = _check.positive("bins_multiple_of", packing.get("bins_multiple_of", 1))
        if bins > _MOST:
            raise ValueError(f"bins_multiple_of must be at most {_MOST:,}, got {bins:,}")
        if not -_MOST - 1 <= pad_id <= _MOST:
            raise OverflowError(f"pad_id is {pad_id:,}, which does not fit int32")
        self.plan(np.ones(1, np.int64))
        layout = Layout.concat([1])
        pack({"response_ids": [[0]]}, layout=layout, pad_id=pad_id)
        for name, level in self._said.items():
            check_level(name, level)

    def plan(self, lengths: Int64s) -> Layout:
        """Lay rows of these lengths in bins."""
        return Layout.pack(lengths, self.capacity, **self.packing)

    def reading(self, columns: Sequence[str] | None = None) -> Reading:
        """How the sources are read: these columns, or all."""
        return Reading(nonfinite=self.nonfinite, columns=columns, rename=self.rename, lists=self.lists)

    def recorded(self) -> dict[str, Any]:
        """What decides the bytes of the output."""
        return {
            "capacity": self.capacity,
            **DEFAULTS,
            **self.packing,
            "pad_id": self.pad_id,
            "bins_per_shard": self.bins_per_shard,
            "skip_columns": list(self.skip_columns),
            "levels": self._said,
            # Options that came later: the index of a run without them is as it was.
            **({} if self.nonfinite == "raise" else {"nonfinite": self.nonfinite}),
            **({"rename": self.rename} if self.rename else {}),
            **({"derived": True} if self.derived else {}),
        }
