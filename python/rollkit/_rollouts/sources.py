"""What public functions take as rollouts: one source or several, their rows counted through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check
from rollkit._check import Int64s
from rollkit._errors import at, refusal, warn
from rollkit._frameworks import as_array, is_array
from rollkit._rollouts.arrow import columns_from_arrow
from rollkit._rollouts.columns import (
    LISTS,
    Column,
    Level,
    as_column,
    check_levels,
    check_uncut,
    check_whole,
    holds_numbers,
    is_rows,
    joined_entries,
    level_of,
    take_column,
    token_columns,
    uneven,
)
from rollkit._rollouts.fields import FIELDS, narrow
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.validate import check_values
from rollkit._rows.arrow import is_arrow
from rollkit._rows.dtypes import common
from rollkit._rows.layout import ABSENT, Layout
from rollkit._rows.parts import Parts, end_to_end
from rollkit._rows.place import parts_of
from rollkit._rows.ragged import Ragged, row_indices, trusted

Source = Rollouts | Mapping[str, Any]
"""Rollouts, or a `GeneratorOutput`-shaped dict: token columns as lists, arrays or tensors.

What speaks Arrow (tables, record batches, data frames) is taken too, where `pyarrow` is installed. A sequence
of dicts whose token columns are flat is rows: one rollout each, as a collator gets them.
"""


_OF_A_ROW: Final = ("rewards", "stop_reasons", "instance_ids", "trajectory_ids", "is_last_step")
"""Columns with an entry per row: a number or a text in one is that of a row."""

_WHOLE: Final = frozenset("iub")

_HOW: Final = 'levels={{{0!r}: "row"}} carries the rows along as they are, "response[]" lists per token'

SMALL: Final = 1 << 14
"""Columns of as many bytes on average are joined before they are placed."""


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Sources:
    """The columns of all sources, rows counted through."""

    prompts: Parts | None
    responses: Parts
    tokens: dict[str, Parts]
    rows: dict[str, Any]
    levels: Mapping[str, str] = field(default_factory=dict)
    main: str = "response_ids"
    """What the responses are called: `"input_ids"` where they are whole sequences."""
    order: Int64s | None = None
    """Which of these rows each row of a batch is; None: the same."""

    @classmethod
    def of(
        cls,
        rollouts: Source | Sequence[Source],
        levels: Mapping[str, str] | None = None,
        wanted: ArrayLike | None = None,
    ) -> Sources:
        """Name the buffers of rollouts.

        Args:
            rollouts: one source, or a sequence of them.
            levels: what columns have an element for, where their names do not say it; see `level_of`.
            wanted: numbers of the rows, counted through; all by default.
        """
        sources = sources_of(rollouts)
        columns, order = columns_in(sources), None
        said = _check.mapping("levels", levels)
        levels = check_levels(said, columns[0])
        for name in levels:
            if said[name].endswith(LISTS):
                columns = [{**part, name: _as_lists(name, part[name])} for part in columns]
        if wanted is not None:
            # As columns first: what a list is does not depend on which of its rows are asked for.
            whole = [
                part if isinstance(source, Rollouts) else Rollouts(part).columns
                for source, part in zip(sources, columns, strict=True)
            ]
            columns, order = picked(whole, wanted)
        tokens: dict[str, Parts] = {}
        rows: dict[str, Any] = {}
        for name in columns[0]:
            found = [part[name] for part in columns]
            if levels.get(name) != "row" and _are_rows(name, found):
                try:
                    tokens[name] = _named_parts(name, found)
                    continue
                except (TypeError, ValueError) as error:
                    if name in FIELDS or any(map(holds_numbers, found)):
                        if name not in FIELDS:
                            error.add_note(_HOW.format(name))
                        raise  # others are lists of texts or of objects, one per row
            rows[name] = _joined_rows(name, found)
        prompts = tokens.pop("prompt_token_ids", None)
        main = "response_ids" if "response_ids" in tokens else "input_ids"
        if main not in tokens:
            raise ValueError("rollouts need a column 'response_ids' (or 'input_ids') of token ids")
        if main == "input_ids" and prompts is not None:
            raise ValueError("'input_ids' holds whole sequences; 'prompt_token_ids' goes with 'response_ids'")
        responses = tokens.pop(main)
        count = len(responses.lengths)
        if prompts is not None and len(prompts.lengths) != count:
            raise ValueError(f"'prompt_token_ids' has {len(prompts.lengths)} rows, {main!r} has {count}")
        made = cls(prompts, responses, tokens, rows, levels, main, order)
        for name, entries in rows.items():
            if len(entries) != count:
                raise uneven(name, len(entries), main, count)
            if count and name in levels:
                level_of(name, None, made.prompt_lengths, responses.lengths, levels)
        return made

    @property
    def prompt_lengths(self) -> Int64s:
        if self.prompts is None:
            return np.zeros_like(self.responses.lengths)
        return self.prompts.lengths

    @property
    def lengths(self) -> Int64s:
        """Tokens of each rollout: prompt and response."""
        return self.prompt_lengths + self.responses.lengths

    @property
    def names(self) -> list[str]:
        """The columns beside the token ids."""
        return [*self.tokens, *self.rows]

    def ordered(self, column: Any) -> Any:
        """A column that has an entry per row, in the order of the batch."""
        return column if self.order is None else take_column(column, self.order)

    def in_order(self) -> Sources:
        """The same rows in the order of the batch; a copy where that is another."""
        order = self.order
        if order is None:
            return self
        prompts = None if self.prompts is None else self.prompts.in_one().pick(order)
        tokens = {name: parts.in_one().pick(order) for name, parts in self.tokens.items()}
        rows = {name: take_column(column, order) for name, column in self.rows.items()}
        responses = self.responses.in_one().pick(order)
        return Sources(prompts, responses, tokens, rows, self.levels, self.main)

    def check_cut(self, layout: Layout) -> None:
        """Refuse to cut rows that have what may not be cut, and warn of those that lose all of a response."""
        cut = (layout.starts != ABSENT) & (layout.lengths < layout.row_lengths)
        for name, column in self.rows.items():
            if isinstance(column, Ragged) and column.of_lists:
                check_uncut(name, self.ordered(column).lengths, cut)
        warn_cut(layout, self.ordered(self.prompt_lengths))

    def check_values(self) -> None:
        """Refuse values that no rollout has, as `Rollouts.validate` does."""
        named = {"prompt_token_ids": self.prompts, self.main: self.responses, **self.tokens}
        parts = {name: found for name, found in named.items() if found is not None}
        check_values({name: on_host(found) for name, found in parts.items()} | self.rows)

    def level(self, name: str) -> Level:
        """What a column of `tokens` has an element for: `"response"`, `"sequence"` or `"prompt"` tokens."""
        lengths = self.tokens[name].lengths
        return level_of(name, lengths, self.prompt_lengths, self.responses.lengths, self.levels)


def on_host(parts: Parts) -> Ragged:
    """Rows end to end in the host's memory."""
    values, offsets = end_to_end(parts)
    if parts.of_lists:
        return trusted(values, offsets)
    return Ragged(as_array(values), offsets)


def from_batch(layout: Layout, order: Int64s, count: int) -> Layout:
    """The layout of a batch, whose row `i` is row `order[i]` of `count`, as one of these rows."""
    rows, _ = layout.pieces_of_rows()
    row_lengths = np.zeros(count, np.int64)
    row_lengths[order] = layout.row_lengths
    slots = layout.shape, layout.starts, layout.lengths
    return Layout._trusted(*slots, row_lengths, layout.order, order[rows], layout.begins)


def sources_of(rollouts: Source | Sequence[Source]) -> list[Any]:
    """The sources, one or several, as they are."""
    if isinstance(rollouts, Rollouts | Mapping) or is_arrow(rollouts):
        return [rollouts]
    if not hasattr(rollouts, "__iter__"):
        raise TypeError(
            "rollouts must be Rollouts, a GeneratorOutput-shaped dict or a sequence of them, got "
            f"{type(rollouts).__name__}"
        )
    sources = list(rollouts)
    if not sources:
        raise ValueError("rollouts is empty; give at least one part")
    return _joined_dicts(sources)


def _joined_dicts(sources: list[Any]) -> list[Any]:
    """Sources as they are, or one of all rows where each is a row (a dict whose tokens are a flat run)."""
    kinds = [_is_row(source) for source in sources]
    if True not in kinds:
        return sources
    if False in kinds:
        row, source = kinds.index(True), kinds.index(False)
        raise TypeError(
            f"rollouts[{row}] is a row, its tokens a flat run, and rollouts[{source}] a source of rows; "
            "give either, not both"
        )
    names = sources[0].keys()
    for i, row in enumerate(sources):
        if row.keys() != names:
            odd = ", ".join(map(repr, sorted(row.keys() ^ names)))
            raise refusal(ValueError, f" and row 0 differ in columns: {odd}", row=i)
    return [{name: [row[name] for row in sources] for name in names}]


def _is_row(source: Any) -> bool | None:
    """Whether this is one rollout, and no source of rollouts; None where it has no token that tells."""
    if isinstance(source, Rollouts) or not isinstance(source, Mapping):
        return False
    for name in ("response_ids", "input_ids", "prompt_token_ids"):
        tokens: Any = source.get(name)
        if isinstance(tokens, list | tuple):
            if tokens:
                return isinstance(tokens[0], int | np.integer)
        elif is_array(tokens) and tokens.dtype != object:
            if tokens.ndim and 0 not in tokens.shape:
                return bool(tokens.ndim == 1)
        elif tokens is not None:
            return False
    one = any(isinstance(source.get(name), str | int | float | np.number) for name in _OF_A_ROW)
    return True if one else None


def warn_cut(layout: Layout, prompt_lengths: Int64s) -> None:
    """Say once how many rows truncation has left without a response: nothing of them is trained on."""
    if layout.has_pieces:
        return  # which are not cut
    placed = layout.starts != ABSENT
    cut = placed & (layout.lengths < layout.row_lengths)
    empty = cut & (layout.lengths <= prompt_lengths) & (prompt_lengths < layout.row_lengths)
    if empty.any():
        warn(
            f"truncation leaves {int(empty.sum()):,} of {len(empty):,} rows without a token of their "
            f"response ({int(cut.sum()):,} are cut)"
        )


def columns_of(rollouts: Source | Sequence[Source]) -> list[Mapping[str, Any]]:
    """The columns of each source, as they are, all of the same names: where every function begins."""
    return columns_in(sources_of(rollouts))


def columns_in(sources: Sequence[Any]) -> list[Mapping[str, Any]]:
    """`columns_of` what `sources_of` gave."""
    columns = [_columns(i, source) for i, source in enumerate(sources)]
    for i, part in enumerate(columns):
        if part.keys() != columns[0].keys():
            odd = ", ".join(map(repr, sorted(part.keys() ^ columns[0].keys())))
            raise ValueError(f"rollouts[{i}] and rollouts[0] differ in columns: {odd}")
    return columns


def picked(
    columns: Sequence[Mapping[str, Column]], wanted: ArrayLike
) -> tuple[list[Mapping[str, Any]], Int64s | None]:
    """The rows of these numbers, part after part, and which of them each number is (None: in that order).

    Tokens are not copied: their rows are named where they are.
    """
    main = next((name for name in ("response_ids", "input_ids") if name in columns[0]), None)
    if main is None:
        return list(columns), None  # refused elsewhere
    counts = [len(part[main]) for part in columns]
    ends = np.cumsum(counts)
    numbers = row_indices(wanted, int(ends[-1]), "rows")
    of_part = np.searchsorted(ends, numbers, side="right")
    order = np.argsort(of_part, kind="stable")
    bounds = np.searchsorted(of_part[order], np.arange(len(columns) + 1))
    chosen = [
        numbers[order[a:b]] - (end - count)
        for a, b, end, count in zip(bounds, bounds[1:], ends, counts, strict=False)
    ]
    named = {name: _rows_named(name, [part[name] for part in columns], chosen) for name in columns[0]}
    found: list[Mapping[str, Any]] = [
        {name: parts[i] for name, parts in named.items()} for i in range(len(columns))
    ]
    if (of_part[1:] >= of_part[:-1]).all():
        return found, None
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return found, places


def _rows_named(name: str, found: Sequence[Column], chosen: Sequence[Int64s]) -> list[Any]:
    """The chosen rows of a column in each part, in the dtype of all its rows, chosen or not."""
    if not all(isinstance(column, Ragged) for column in found):
        return [take_column(column, rows) for column, rows in zip(found, chosen, strict=True)]
    parts = [
        Parts.over(column._held, (begins := column.offsets[rows]), column.offsets[rows + 1] - begins)
        for column, rows in zip(found, chosen, strict=True)
        if isinstance(column, Ragged)
    ]
    if len(parts) == 1 or any(part.own is not None for part in parts):
        return parts
    full = [i for i, column in enumerate(found) if isinstance(column, Ragged) and len(column.flat)] or [0]
    with at(column=name):
        dtype = common(parts[i].dtype for i in full)
    return [
        part.astype(dtype) if i in full else part.like(parts[full[0]]).astype(dtype)
        for i, part in enumerate(parts)
    ]


def as_rollouts(rollouts: Source | Sequence[Source]) -> Rollouts:
    """One or several sources as `Rollouts`, for functions that return them."""
    if isinstance(rollouts, Rollouts):
        return rollouts
    parts = [Rollouts(columns) for columns in columns_of(rollouts)]
    return Rollouts.joined(parts) if len(parts) > 1 else parts[0]


def _columns(index: int, source: Any) -> Mapping[str, Any]:
    if isinstance(source, Rollouts):
        return source.columns
    if isinstance(source, Mapping):
        return token_columns(source)
    if is_arrow(source):
        return columns_from_arrow(source)
    raise TypeError(
        f"rollouts must be Rollouts or GeneratorOutput-shaped dicts; part {index} is {type(source).__name__}"
    )


def _are_rows(name: str, found: Sequence[Any]) -> bool:
    """Whether a column has rows of elements in all parts. A list without rows does not tell."""
    known = FIELDS.get(name)
    if known is not None and known.is_per_token:
        return True
    if {type(column) for column in found} <= {Ragged, Parts}:
        return True
    if known is not None and known.per == "row":
        return False
    rectangle = known is not None
    kinds = {
        is_rows(column) or (rectangle and isinstance(column, np.ndarray) and column.ndim > 1)
        for column in found
        if len(column)
    }
    if not kinds:
        return all(isinstance(column, Ragged) for column in found)
    if len(kinds) > 1:
        raise TypeError(f"column {name!r} has rows of elements in some parts and one entry per row in others")
    return kinds == {True}


def _named_parts(name: str, found: Sequence[Any]) -> Parts:
    """The buffers of one column. Lists, which have none, are converted to the column's dtype here."""
    parts = _column_parts(name, found)
    if getattr(parts.dtype, "kind", "") not in _WHOLE and name in FIELDS and FIELDS[name].whole:
        with at(column=name):
            check_whole(parts.dtype, parts.lengths, chain.from_iterable(found))
    return parts


def _column_parts(name: str, found: Sequence[Any]) -> Parts:
    known = FIELDS.get(name)
    dtype = None if known is None else known.dtype
    if known is not None and known.lists:
        found = [column if isinstance(column, Parts) else as_column(name, column) for column in found]
    if len(found) == 1:
        with at(column=name):
            return parts_of(found[0], dtype)
    if (joined := _joined_short(found)) is not None:
        return joined.parts()
    parts: list[Parts] = []
    for i, column in enumerate(found):
        with at(column=name, label=_of_part(name, i)):
            parts.append(parts_of(column, dtype))
    dtypes = {part.dtype for part in parts if part.lengths.any()}
    if len(dtypes) > 1 and all(part.own is None for part in parts):
        with at(column=name):
            wanted = narrow(name, common(dtypes))
        for i, part in enumerate(parts):
            with at(column=name, label=_of_part(name, i)):
                parts[i] = part.astype(wanted)
    with at(column=name):
        return Parts.join(parts)


def _joined_short(found: Sequence[Any]) -> Ragged | None:
    """Small columns as one: joining them costs less than a look at each. None where some are large."""
    if type(found[0]) is not Ragged or type(found[0].values) is not np.ndarray:
        return None
    first, size = found[0].values, 0
    dtype, inner = first.dtype, first.shape[1:]
    for column in found:
        values = column.values if type(column) is Ragged else None
        if type(values) is not np.ndarray or values.dtype is not dtype:
            return None
        if inner and values.shape[1:] != inner:
            return None
        size += values.nbytes
    return Ragged.joined(found) if size <= SMALL * len(found) else None


def _as_lists(name: str, column: Any) -> Ragged:
    with at(column=name):
        return Ragged.from_rows(column, lists=True)


def _of_part(name: str, index: int) -> str:
    return f"column {name!r} of rollouts[{index}]"


def _joined_rows(name: str, found: Sequence[Any]) -> Any:
    columns = [
        trusted(*end_to_end(column)) if isinstance(column, Parts) else as_column(name, column)
        for column in found
    ]
    return columns[0] if len(columns) == 1 else joined_entries(name, columns)
