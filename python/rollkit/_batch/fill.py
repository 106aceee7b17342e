"""The arrays of a batch, written in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

from rollkit import _native
from rollkit._batch.batch import Batch
from rollkit._check import Int64s, mapping
from rollkit._errors import at, refusal, retold
from rollkit._frameworks import AnyArray
from rollkit._rollouts.fields import fill_of, narrow
from rollkit._rollouts.names import Names, renamed
from rollkit._rollouts.rewards import check_scalars
from rollkit._rollouts.sources import Sources
from rollkit._rows.dtypes import numpy_dtype
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts, castable, fill_element, is_new, place_parts

MADE: Final = {"segment_ids": np.int32, "positions": np.int32, "attention_mask": np.uint8}
"""The arrays that are read off the layout."""


def fill(
    sources: Sources,
    layout: Layout,
    pad_id: int,
    fills: Mapping[str, Any] | None,
    dtypes: Mapping[str, DTypeLike] | None,
    out: Batch | None,
    names: Names,
    attention_mask: bool = False,
) -> Batch:
    """See `pack`."""
    fills, dtypes = mapping("fills", fills), mapping("dtypes", dtypes)
    _check_names(sources, fills, dtypes)
    if names == "hf":
        dtypes = {"input_ids": np.int64, **dtypes}
    arrays = _Arrays(sources, layout, dtypes, out)
    arrays.add_tokens(pad_id)
    for name, dtype in MADE.items():
        if attention_mask or name != "attention_mask":
            arrays.make(name, dtype)
    for name, parts in sources.tokens.items():
        padding = fills[name] if name in fills else fill_of(name, () if parts.of_lists else parts.inner)
        arrays.add(name, sources.level(name), parts, padding)
    if "loss_masks" not in sources.tokens:
        arrays.add(
            "loss_masks", "response", _constant(1, sources.responses.lengths), fills.get("loss_masks", 0)
        )
    routes = sources.tokens.get("rollout_expert_indices")
    if routes is not None and "route_masks" not in sources.tokens:
        arrays.add("route_masks", "sequence", _constant(0, routes.lengths), fills.get("route_masks", 1))
    rows = dict(sources.rows)
    if "rewards" in rows:
        scalars = np.asarray(rows["rewards"])
        check_scalars(scalars, sources.responses.lengths)
        arrays.add("rewards", "last", Parts.one_each(scalars), fills.get("rewards", 0))
    arrays.fill()
    rows = {name: sources.ordered(column) for name, column in rows.items()}
    made = arrays.made if names == "rollkit" else renamed(arrays.made, layout, names)
    return Batch(made, layout, sources.ordered(sources.prompt_lengths), rows, arrays.memory)


def _constant(value: int, lengths: Int64s) -> Parts:
    """Rows of one value: all of one array, which is as long as the longest."""
    values = np.full(int(lengths.max(initial=0)), value, np.uint8)
    return Parts.over(values, np.zeros_like(lengths), lengths)


class _Arrays:
    """The arrays of a batch, in the memory of an earlier one where that is large enough.

    They are all written in one call, which finds each row's place once.
    """

    def __init__(
        self, sources: Sources, layout: Layout, dtypes: Mapping[str, DTypeLike], out: Batch | None
    ) -> None:
        if out is not None and not isinstance(out, Batch):
            raise TypeError(f"out must be a Batch, got {type(out).__name__}")
        self._sources, self._layout, self._dtypes = sources, layout, dtypes
        self._spare = {} if out is None else dict(out._memory)
        self._columns: list[Any] = []
        self._names: list[tuple[str, ...]] = []  # of the sources of each column
        self.memory: dict[str, AnyArray] = {}
        self.made: dict[str, Any] = {}

    def make(
        self, name: str, dtype: DTypeLike, inner: tuple[int, ...] = (), *, zeros: bool = False
    ) -> AnyArray:
        """An array to fill."""
        shape = (*self._layout.shape, *inner)
        size = prod(shape)
        spare = self._spare.get(name)
        if spare is None or spare.size < size or spare.dtype != dtype:
            spare = (np.zeros if zeros else np.empty)(size, dtype)
        self.memory[name] = spare
        array = spare if spare.size == size else spare[:size]
        self.made[name] = array = array.reshape(shape)
        return array

    def add(self, name: str, level: str, parts: Parts, fill: Any) -> None:
        """An array of a column, or its lists."""
        if parts.of_lists:
            with at(column=name):
                dtype = self._dtype(name, parts.dtype)
                self.made[name] = place_parts(parts, self._where(level, parts), 0, dtype=dtype)
            return
        if parts.own is not None:
            where = self._where(level, parts)
            with at(column=name):
                self.made[name] = place_parts(parts, where, fill, dtype=self._own_dtype(name, parts))
            return
        with at(column=name):
            dtype = self._dtype(name, parts.dtype)
            parts = castable(parts, dtype)
            self._append(name, (name,), level, (parts.buffers, parts.lengths), parts, fill, dtype)

    def add_tokens(self, pad_id: int) -> None:
        """`input_ids`, of prompts and responses."""
        prompts, responses = self._sources.prompts, self._sources.responses
        if prompts is None:
            with at(column="input_ids"):
                self.add("input_ids", "response", responses, pad_id)
            return
        names = ("prompt_token_ids", "response_ids")
        for name, parts in zip(names, (prompts, responses), strict=True):
            if parts.inner:
                raise refusal(
                    ValueError, f"expected token ids, got elements of shape {parts.inner}", column=name
                )
        if prompts.own is not None or responses.own is not None:
            with at(column="input_ids"):
                both = Parts.join([prompts, responses])
                where = Layout.union([self._where(level, responses) for level in ("prompt", "response")])
                dtype = self._own_dtype("input_ids", both)
                self.made["input_ids"] = place_parts(both, where, pad_id, dtype=dtype)
            return
        dtype = self._dtype("input_ids", prompts.dtype)
        found = []
        for name, parts in zip(names, (prompts, responses), strict=True):
            with at(column=name):
                found.append(castable(parts, dtype))
        first, second = found
        rows = (first.buffers, second.buffers), (first.lengths, second.lengths)
        self._append("input_ids", names, "tokens", rows, first, pad_id, dtype)

    def _append(
        self, name: str, names: tuple[str, ...], level: str, rows: Any, parts: Parts, fill: Any, dtype: Any
    ) -> None:
        element = fill_element(fill, dtype, parts.inner)
        zeroed = name not in self._spare and is_new(self._layout.size, element)
        out = self.make(name, dtype, parts.inner, zeros=zeroed)
        if out.size:
            self._columns.append((level, *rows, element, out, zeroed))
            self._names.append(names)

    def fill(self) -> None:
        """Write all arrays."""
        layout = self._sources.from_batch(self._layout)
        made = {name: self.made[name] for name in MADE if name in self.made}
        try:
            _native.fill_batch(
                *layout.slots,
                layout.row_lengths,
                self._sources.prompt_lengths,
                self._columns,
                size=layout.size,
                width=max(layout.width, 1),
                source_rows=layout.source_rows,
                begins=layout.begins,
                **made,
            )
        except (OverflowError, ValueError, TypeError) as error:
            index = getattr(error, "index", None)
            if index is None:
                raise
            column, source = index
            raise retold(error, column=self._names[column][source]) from None

    def _dtype(self, name: str, found: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype that was asked for, or else the narrow one."""
        wanted = self._dtypes.get(name)
        return narrow(name, found) if wanted is None else numpy_dtype(wanted, f"dtypes[{name!r}]")

    def _own_dtype(self, name: str, parts: Parts) -> Any:
        """`_dtype` of rows that their framework places; None for their own."""
        wanted = self._dtypes.get(name)
        if wanted is not None or parts.own is None:
            return wanted
        buffer = parts.buffers[0]
        found = parts.own.dtype_of(buffer[0] if isinstance(buffer, tuple) else buffer)
        narrowed = narrow(name, found)
        return None if narrowed == found else narrowed

    def _where(self, level: str, parts: Parts) -> Layout:
        """Where a column goes whose framework places it."""
        layout = self._sources.from_batch(self._layout)
        prompts, responses = self._sources.prompt_lengths, self._sources.responses.lengths
        if level == "response":
            return layout.spans(prompts, responses)
        return layout.spans(0, prompts if level == "prompt" else parts.lengths)


def _check_names(sources: Sources, fills: Mapping[str, Any], dtypes: Mapping[str, Any]) -> None:
    """Check that options are for columns that there are, and that no column is one that a batch makes."""
    for name in MADE.keys() & sources.tokens.keys():
        raise ValueError(f"column {name!r}: a batch makes this array itself; rename or leave out the column")
    if "input_ids" in fills:
        raise ValueError("fills has 'input_ids', whose padding is pad_id")
    for name in fills:
        if name in sources.tokens and sources.tokens[name].of_lists:
            raise ValueError(f"fills has {name!r}, which is a list per token; padding has empty ones")
    known = [*sources.tokens, *({"loss_masks"} - sources.tokens.keys()), *({"rewards"} & sources.rows.keys())]
    for option, given, names in (("fills", fills, known), ("dtypes", dtypes, ["input_ids", *known])):
        for name in given.keys() - set(names):
            there = ", ".join(map(repr, names)) or "none"
            raise ValueError(f"{option} has {name!r}, which is no token column; there are {there}")
