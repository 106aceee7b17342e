"""Rollouts of a Ray dataset, batch by batch, to rows that are bins: `PackBatches`."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np

from rollkit import _check
from rollkit._batch import pack
from rollkit._errors import at
from rollkit._extras import extra
from rollkit._frameworks import AnyArray
from rollkit._rollouts.columns import check_level
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.layout import ABSENT, Layout
from rollkit._rows.lists import Lists
from rollkit.ray._tables import check_table, listed, nested

_OF_ONE = ("rows", "layout", "out", "share_prefixes", "groups", "match")
"""Options of `pack` that are of one batch alone."""
_OF_COLUMNS = ("fills", "dtypes", "levels")
"""Options of `pack` by the names of columns, which only a batch has."""


class PackBatches:
    """Packs each batch of a Ray dataset into bins: what `Dataset.map_batches` calls.

        bins = dataset.map_batches(
            PackBatches, fn_constructor_args=(16384,), batch_format="pyarrow", batch_size=1000
        )

    A batch is packed by itself, and its last bin is often not full: those of fifty bins and more are full by
    99 %. What comes of a batch depends on it and the options alone, so what Ray does again comes to the same.

    Args:
        capacity: tokens of a bin.
        keep: columns per row that bins have, too, as lists of the entries of their rows; others are left out.
        **options: of `rollkit.pack`, such as `names="hf"` or `levels=`.

    Raises:
        ValueError: as `rollkit.pack`.

    Example:
        >>> import pyarrow as pa
        >>> rows = {"prompt_token_ids": [[1], [2]], "response_ids": [[3, 4], [5]], "task": ["a", "b"]}
        >>> bins = PackBatches(6, keep=["task"])(pa.table(rows))
        >>> bins["input_ids"].to_pylist(), bins["segment_ids"].to_pylist(), bins["task"].to_pylist()
        ([[1, 3, 4, 2, 5, 0]], [[1, 1, 1, 2, 2, 0]], [['a', 'b']])
    """

    def __init__(self, capacity: int, *, keep: Sequence[str] = (), **options: Any) -> None:
        self._capacity = _check.positive("capacity", capacity)
        self._keep = tuple(map(str, _check.items("keep", keep)))
        for name in options:
            if name not in signature(pack).parameters:
                raise TypeError(f"{name!r} is no option of rollkit.pack")
        for name in _OF_ONE:
            if name in options:
                raise TypeError(
                    f"{name} is of one batch, and batches of a dataset are packed alike; leave it out"
                )
        self._options = options
        for name in _OF_COLUMNS:
            _check.mapping(name, options.get(name))
        for name, level in (options.get("levels") or {}).items():
            check_level(name, level)
        # What is wrong, is so here.
        pack({"response_ids": [[0]]}, self._capacity, **{**options, **dict.fromkeys(_OF_COLUMNS)})

    def __call__(self, table: Any) -> Any:
        """Pack a table of pyarrow; gives one with a row for each bin."""
        pa = extra("pyarrow", "ray")
        check_table(table)
        table = pa.table({name: listed(name, table.column(name)) for name in table.column_names})
        rollouts = Rollouts.from_arrow(table)
        for name in self._keep:
            if name not in rollouts:
                raise ValueError(
                    f"keep has {name!r}, which is no column; there are {', '.join(map(repr, rollouts))}"
                )
        batch = pack(rollouts, self._capacity, **self._options)
        assert isinstance(batch.layout, Layout)
        columns = {}
        for name, array in batch.items():
            if name in self._keep:
                raise ValueError(
                    f"keep has {name!r}, which is an array of the bins; give the column another name"
                )
            with at(column=name):
                columns[name] = _rows_of(pa, array, batch.layout.width)
        return pa.table(columns | {name: _kept(pa, table[name], batch.layout) for name in self._keep})


def _rows_of(pa: Any, array: AnyArray | Lists, width: int) -> Any:
    """A row of an array for each bin: lists of one size; of inner dimensions such lists again."""
    if isinstance(array, Lists):
        elements = pa.LargeListArray.from_arrays(pa.array(array.offsets), _elements(pa, array.values))
        return pa.FixedSizeListArray.from_arrays(elements, width)
    return nested(pa, _elements(pa, array), array.shape[1:])


def _elements(pa: Any, array: AnyArray) -> Any:
    """The numbers of an array, end to end."""
    try:
        return pa.array(np.ascontiguousarray(array).reshape(-1))
    except NotImplementedError:
        text = f"Arrow has no {array.dtype}; ask for another by dtypes, such as float16 or float32"
        raise TypeError(text) from None


def _kept(pa: Any, column: Any, layout: Layout) -> Any:
    """The entries of a column by bins, in the order that their rows have there."""
    rows, offsets = _rows_in_bins(layout)
    return pa.LargeListArray.from_arrays(pa.array(offsets), column.combine_chunks().take(pa.array(rows)))


def _rows_in_bins(layout: Layout) -> tuple[AnyArray, AnyArray]:
    """The rows of all bins, and where those of each begin."""
    there = np.flatnonzero((layout.starts != ABSENT) & (layout.lengths > 0))
    there = there[np.argsort(layout.starts[there], kind="stable")]
    begins = np.arange(layout.shape[0] + 1) * layout.width
    return layout.pieces_of_rows()[0][there], np.searchsorted(layout.starts[there], begins)
