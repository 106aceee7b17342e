"""The arrays of a batch, written in one pass."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from rollkit import _native
from rollkit._batch.batch import Batch, spare_of
from rollkit._check import Int64s, mapping
from rollkit._errors import at, refusal, retold
from rollkit._frameworks import AnyArray
from rollkit._rollouts.fields import fill_of, narrow
from rollkit._rollouts.loss_masks import masks_of_labels
from rollkit._rollouts.names import Names, renamed
from rollkit._rollouts.other_masks import warn_of_other_masks
from rollkit._rollouts.rewards import check_scalars
from rollkit._rollouts.sources import Sources, from_batch
from rollkit._rows.dtypes import numpy_dtype
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts, castable, fill_element, is_new, place_parts

MADE: Final = {"segment_ids": np.int32, "positions": np.int32, "attention_mask": np.uint8}
"""The arrays that are read off the layout."""

PACKED: Final = ("segment_ids", "positions")
"""Those that any batch has."""

_NO_ROWS = np.empty(0, np.int64)


class _Column(NamedTuple):
    """An array to be whose rows Rust moves: of one column, or of prompts and responses (level `"tokens"`)."""

    name: str
    level: str
    sources: tuple[tuple[str, Parts], ...]
    element: AnyArray  # of padding
    dtype: np.dtype[Any]

    @property
    def rows(self) -> tuple[Any, Any]:
        """Buffers and lengths, as the kernel takes them."""
        if self.level != "tokens":
            ((_, parts),) = self.sources
            return parts.buffers, parts.lengths
        (_, prompts), (_, responses) = self.sources
        return (prompts.buffers, responses.buffers), (prompts.lengths, responses.lengths)

    @property
    def inner(self) -> tuple[int, ...]:
        return self.sources[0][1].inner

    def in_one(self) -> _Column:
        return self._replace(sources=tuple((name, parts.in_one()) for name, parts in self.sources))

    def pick(self, rows: Int64s) -> _Column:
        picked = tuple((name, parts.pick(rows)) for name, parts in self.sources)
        return self._replace(sources=picked)

    def without_rows(self) -> _Column:
        return self._replace(sources=tuple((name, _emptied(parts)) for name, parts in self.sources))


class _Apart(NamedTuple):
    """An array to be that is placed by itself: by the framework of its rows, or because it is of lists."""

    name: str
    level: str
    parts: Parts
    fill: Any
    dtype: Any

    def in_one(self) -> _Apart:
        return self._replace(parts=self.parts.in_one())

    def pick(self, rows: Int64s) -> _Apart:
        return self._replace(parts=self.parts.pick(rows))

    def without_rows(self) -> _Apart:
        return self._replace(parts=_emptied(self.parts))


class Filling(NamedTuple):
    """What the arrays of a batch are made of: ready to be written to any layout of these rows.

    Attributes:
        arrays: in the order of the batch; a name of `MADE` is read off the layout.
        prompt_lengths: `[rows]`.
        response_lengths: `[rows]`.
        order: which of these rows each row of a layout is; None: the same.
    """

    arrays: Sequence[str | _Column | _Apart]
    prompt_lengths: Int64s
    response_lengths: Int64s
    order: Int64s | None

    @classmethod
    def of(
        cls,
        sources: Sources,
        pad_id: int,
        fills: Mapping[str, Any] | None,
        dtypes: Mapping[str, DTypeLike] | None,
        made: Container[str],
    ) -> Filling:
        """Prepare all arrays of a batch, and those of `made`; see `pack`."""
        fills, dtypes = mapping("fills", fills), mapping("dtypes", dtypes)
        _check_names(sources, fills, dtypes)
        prepared = _Preparing(sources, dtypes)
        prepared.add_tokens(pad_id)
        prepared.arrays += [name for name in MADE if name in made]
        for name, parts in sources.tokens.items():
            padding = fills[name] if name in fills else fill_of(name, () if parts.of_lists else parts.inner)
            prepared.add(name, sources.level(name), parts, padding)
        if "loss_masks" not in sources.tokens:
            level, masks = _masks(sources)
            prepared.add("loss_masks", level, masks, fills.get("loss_masks", 0))
        routes = sources.tokens.get("rollout_expert_indices")
        if routes is not None and "route_masks" not in sources.tokens:
            zeros = Parts.of_one(0, routes.lengths)
            prepared.add("route_masks", "sequence", zeros, fills.get("route_masks", 1))
        if "rewards" in sources.rows:
            scalars = np.asarray(sources.rows["rewards"])
            check_scalars(scalars, sources.responses.lengths)
            prepared.add("rewards", "last", Parts.one_each(scalars), fills.get("rewards", 0))
        lengths = sources.prompt_lengths, sources.responses.lengths
        return cls(prepared.arrays, *lengths, sources.order)

    @classmethod
    def derived(
        cls,
        dtypes: Mapping[str, np.dtype[Any]],
        prompt_lengths: Int64s,
        response_lengths: Int64s,
        rewards: AnyArray | None,
    ) -> Filling:
        """Prepare arrays that take no tokens: those that the layout gives, and rewards of a number per row.

        Args:
            dtypes: by name, `rewards` or one of `MADE`.
            prompt_lengths: `[rows]`.
            response_lengths: `[rows]`.
            rewards: `[rows]`, if `dtypes` has them.
        """
        arrays: list[str | _Column | _Apart] = [name for name in dtypes if name in MADE]
        if "rewards" in dtypes:
            dtype = dtypes["rewards"]
            parts = castable(Parts.one_each(rewards), dtype)
            element = fill_element(0, dtype, ())
            arrays.append(_Column("rewards", "last", (("rewards", parts),), element, dtype))
        return cls(arrays, prompt_lengths, response_lengths, None)

    @property
    def names(self) -> tuple[str, ...]:
        """What the arrays are called, in the order of the batch."""
        return tuple(_name(array) for array in self.arrays)

    def in_one(self) -> Filling:
        """The same, ready to `pick` from: the rows of each column in one array, copied where they are not."""
        return self._replace(arrays=[x if isinstance(x, str) else x.in_one() for x in self.arrays])

    def only(self, names: Container[str]) -> Filling:
        """Of the arrays these alone."""
        kept = [array for array in self.arrays if _name(array) in names]
        return self._replace(arrays=kept)

    def without(self, names: Container[str]) -> Filling:
        """Of the arrays all but these."""
        kept = [array for array in self.arrays if _name(array) not in names]
        return self._replace(arrays=kept)

    def pick(self, rows: Int64s) -> Filling:
        """The same arrays of some of the rows. Of none that a batch has in another order."""
        picked = [array if isinstance(array, str) else array.pick(rows) for array in self.arrays]
        return Filling(picked, self.prompt_lengths[rows], self.response_lengths[rows], None)

    def filled(self) -> Filling:
        """The arrays that Rust writes, of which these rows have an element."""
        columns = [array for array in self.arrays if isinstance(array, _Column)]
        some = [array for array in columns if any(parts.lengths.any() for _, parts in array.sources)]
        return self._replace(arrays=some)

    def without_rows(self) -> Filling:
        """The same arrays, which hold none of the memory of their rows."""
        arrays = [array if isinstance(array, str) else array.without_rows() for array in self.arrays]
        return Filling(arrays, _NO_ROWS, _NO_ROWS, None)

    def of_lists(self) -> dict[str, Parts]:
        """The rows of the arrays that are of lists, or that their framework places."""
        return {array.name: array.parts for array in self.arrays if isinstance(array, _Apart)}

    def with_lists(
        self,
        parts: Mapping[str, Parts],
        levels: Mapping[str, str],
        prompt_lengths: Int64s,
        response_lengths: Int64s,
        order: Int64s,
    ) -> Filling:
        """Those arrays alone, of other rows, which may tell that they have elements for other tokens."""
        found = [
            a._replace(parts=parts[a.name], level=levels.get(a.name, a.level))
            for a in self.arrays
            if isinstance(a, _Apart)
        ]
        return Filling(found, prompt_lengths, response_lengths, order)

    def padding(
        self, layout: Layout, spare: Mapping[str, AnyArray]
    ) -> tuple[dict[str, AnyArray], dict[str, AnyArray]]:
        """The arrays that Rust writes, all of them padding, and their memory: `write` puts rows in."""
        made: dict[str, AnyArray] = {}
        memory: dict[str, AnyArray] = {}
        for array in self.arrays:
            if isinstance(array, _Column):
                zeros = array.name not in spare and not array.element.view(np.uint8).any()
                out = buffer(memory, array.name, layout, array.dtype, array.inner, spare, zeros=zeros)
                if not zeros and out.size:
                    out.reshape(layout.size, -1)[...] = array.element
                made[array.name] = out
        return made, memory

    def write(
        self, layout: Layout, spare: Mapping[str, AnyArray] = MappingProxyType({}), *, padded: bool = False
    ) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """Write all arrays: those that Rust moves in one call, which finds each row's place once.

        Args:
            layout: of the rows, in the order of the batch.
            spare: flat memory by name, which is filled again where it is large enough.
            padded: it has its padding: what is between the rows stays.

        Returns:
            The arrays, and their flat memory.
        """
        layout = layout if self.order is None else from_batch(layout, self.order, len(self.response_lengths))
        made: dict[str, Any] = {}
        memory: dict[str, AnyArray] = {}
        columns: list[Any] = []
        sources: list[tuple[tuple[str, Parts], ...]] = []
        for array in self.arrays:
            if isinstance(array, _Apart):
                made[array.name] = self._placed(array, layout)
                continue
            if isinstance(array, str):
                made[array] = buffer(memory, array, layout, MADE[array], (), spare)
                continue
            zeroed = padded or (array.name not in spare and is_new(layout.size, array.element))
            out = buffer(memory, array.name, layout, array.dtype, array.inner, spare, zeros=zeroed)
            made[array.name] = out
            if out.size:
                columns.append((array.level, *array.rows, array.element, out, zeroed))
                sources.append(array.sources)
        try:
            _native.fill_batch(
                *layout.slots,
                layout.row_lengths,
                self.prompt_lengths,
                columns,
                size=layout.size,
                width=max(layout.width, 1),
                source_rows=layout.source_rows,
                begins=layout.begins,
                **{name: made[name] for name in MADE if name in memory},
            )
        except (OverflowError, ValueError, TypeError) as error:
            index = getattr(error, "index", None)
            if index is None:
                raise
            column, source = index
            raise retold(error, column=sources[column][source][0]) from None
        return made, memory

    def _placed(self, array: _Apart, layout: Layout) -> Any:
        with at(column=array.name):
            where = self._where(array.level, array.parts, layout)
            return place_parts(array.parts, where, array.fill, dtype=array.dtype)

    def _where(self, level: str, parts: Parts, layout: Layout) -> Layout:
        """Where a column goes that is placed by itself."""
        if level == "tokens":
            return Layout.union([self._where(one, parts, layout) for one in ("prompt", "response")])
        if level == "response":
            return layout.spans(self.prompt_lengths, self.response_lengths)
        return layout.spans(0, self.prompt_lengths if level == "prompt" else parts.lengths)


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
    spare = spare_of(out)
    warn_of_other_masks(sources.names)
    dtypes = asked(dtypes, names)
    filling = Filling.of(sources, pad_id, fills, dtypes, MADE if attention_mask else PACKED)
    made, memory = filling.write(layout, spare)
    rows = {name: sources.ordered(column) for name, column in sources.rows.items()}
    made = made if names == "rollkit" else renamed(made, layout, names)
    return Batch(made, layout, sources.ordered(sources.prompt_lengths), rows, memory)


def asked(dtypes: Mapping[str, DTypeLike] | None, names: Names) -> Mapping[str, DTypeLike]:
    """The dtypes that were asked for, by themselves or by a trainer's names: nothing is cast twice."""
    given = mapping("dtypes", dtypes)
    return {"input_ids": np.int64, **given} if names == "hf" else given


def buffer(
    memory: dict[str, AnyArray],
    name: str,
    layout: Layout,
    dtype: DTypeLike,
    inner: tuple[int, ...],
    spare: Mapping[str, AnyArray],
    *,
    zeros: bool = False,
) -> AnyArray:
    """An array to fill, in spare memory where that is large enough."""
    shape = (*layout.shape, *inner)
    return flat_buffer(memory, name, prod(shape), dtype, spare, zeros=zeros).reshape(shape)


def flat_buffer(
    memory: dict[str, AnyArray],
    name: str,
    size: int,
    dtype: DTypeLike,
    spare: Mapping[str, AnyArray],
    *,
    zeros: bool = False,
) -> AnyArray:
    """Elements to fill, in spare memory where that is large enough."""
    found = spare.get(name)
    if found is None or found.size < size or found.dtype != dtype:
        found = (np.zeros if zeros else np.empty)(size, dtype)
    memory[name] = found
    return found if found.size == size else found[:size]


def _name(array: str | _Column | _Apart) -> str:
    return array if isinstance(array, str) else array.name


def _emptied(parts: Parts) -> Parts:
    return Parts([], _NO_ROWS, parts.dtype, parts.inner)


def _masks(sources: Sources) -> tuple[str, Parts]:
    """The loss masks where none are given: those of labels, or all of each response."""
    labels = sources.tokens.get("labels")
    if labels is None or labels.inner:
        return "response", Parts.of_one(1, sources.responses.lengths)
    return sources.level("labels"), masks_of_labels(labels)


class _Preparing:
    """The arrays of a batch as they are added."""

    def __init__(self, sources: Sources, dtypes: Mapping[str, DTypeLike]) -> None:
        self._sources, self._dtypes = sources, dtypes
        self.arrays: list[str | _Column | _Apart] = []

    def add(self, name: str, level: str, parts: Parts, fill: Any) -> None:
        """An array of a column, or its lists."""
        with at(column=name):
            if parts.of_lists:
                self.arrays.append(_Apart(name, level, parts, 0, self._dtype(name, parts.dtype)))
            elif parts.own is not None:
                self.arrays.append(_Apart(name, level, parts, fill, self._own_dtype(name, parts)))
            else:
                dtype = self._dtype(name, parts.dtype)
                self._append(name, level, ((name, castable(parts, dtype)),), fill, dtype)

    def add_tokens(self, pad_id: int) -> None:
        """`input_ids`, of prompts and responses."""
        prompts, responses = self._sources.prompts, self._sources.responses
        if prompts is None:
            self.add("input_ids", "response", responses, pad_id)
            return
        both = (("prompt_token_ids", prompts), ("response_ids", responses))
        for name, parts in both:
            if parts.inner:
                text = f"expected token ids, got elements of shape {parts.inner}"
                raise refusal(ValueError, text, column=name)
        if prompts.own is not None or responses.own is not None:
            with at(column="input_ids"):
                joined = Parts.join([prompts, responses])
                dtype = self._own_dtype("input_ids", joined)
                self.arrays.append(_Apart("input_ids", "tokens", joined, pad_id, dtype))
            return
        dtype = self._dtype("input_ids", prompts.dtype)
        found = []
        for name, parts in both:
            with at(column=name):
                found.append((name, castable(parts, dtype)))
        self._append("input_ids", "tokens", tuple(found), pad_id, dtype)

    def _append(
        self, name: str, level: str, sources: tuple[tuple[str, Parts], ...], fill: Any, dtype: np.dtype[Any]
    ) -> None:
        element = fill_element(fill, dtype, sources[0][1].inner)
        self.arrays.append(_Column(name, level, sources, element, dtype))

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
