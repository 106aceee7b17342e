"""Rollouts as columns: `Rollouts`."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _native
from rollkit._frameworks import AnyArray, as_array, is_array
from rollkit._rollouts.fields import FIELDS, Field
from rollkit._rollouts.groups import Groups
from rollkit._rows.ragged import Ragged, row_indices, same_values

Column = Ragged | AnyArray | list[Any]
"""A column: `Ragged` per token, an array `[rows, …]` per row, or a list of objects."""


@dataclass(frozen=True, eq=False, repr=False)
class Rollouts:
    """Columns of equal row count, named as in SkyRL's `GeneratorOutput`.

    Maps names to columns: `Ragged` for what has an element per token, an array for what has one number
    per row, a list for anything else. Unknown columns pass through everything. As in a data frame,
    iterating gives names, and `len` counts rows.

    Example:
        >>> rollouts = Rollouts.from_rows([
        ...     {"prompt_token_ids": [1, 2], "response_ids": [3], "stop_reasons": "stop"},
        ...     {"prompt_token_ids": [1], "response_ids": [4, 5], "stop_reasons": "length"},
        ... ])
        >>> rollouts
        Rollouts(2 rows: prompt_token_ids int32, response_ids int32, stop_reasons list)
        >>> rollouts["response_ids"].to_list()
        [[3], [4, 5]]
    """

    columns: Mapping[str, Column]

    def __post_init__(self) -> None:
        columns = {str(name): as_column(str(name), found) for name, found in self.columns.items()}
        counts = {name: len(column) for name, column in columns.items()}
        first = next(iter(counts), None)
        for name, count in counts.items():
            if first is not None and count != counts[first]:
                raise ValueError(
                    f"columns must have equal row counts: {name!r} has {count}, {first!r} has {counts[first]}"
                )
        object.__setattr__(self, "columns", columns)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Rollouts:
        """Turn one mapping per rollout into columns; all need the same keys.

        Raises:
            ValueError: a row lacks a key, or has one more; the message names it.
        """
        rows = list(rows)
        names = list(rows[0]) if rows else []
        for i, row in enumerate(rows):
            if row.keys() != rows[0].keys():
                odd = sorted(row.keys() ^ rows[0].keys())
                raise ValueError(f"row {i} and row 0 differ in keys: {', '.join(map(repr, odd))}")
        return cls({name: [row[name] for row in rows] for name in names})

    @classmethod
    def from_generator_output(cls, output: Mapping[str, Any]) -> Rollouts:
        """Take the columns of a `GeneratorOutput`-shaped dict; `None` and per-batch values stay out.

        Per-batch values are those that are no sequence of one entry per rollout (`rollout_metrics`).
        """
        return cls(token_columns(output))

    def to_generator_output(self) -> dict[str, Any]:
        """Return a `GeneratorOutput`-shaped dict of lists; rows are arrays, views of the columns."""
        return {
            name: list(column) if isinstance(column, Ragged | list) else column.tolist()
            for name, column in self.columns.items()
        }

    @classmethod
    def from_arrow(cls, table: Any) -> Rollouts:
        """View a `pyarrow` table or record batch; list columns become `Ragged` without a copy.

        Example:
            >>> import pyarrow as pa
            >>> Rollouts.from_arrow(pa.table({"response_ids": [[1, 2], [3]], "rewards": [1.0, 0.0]}))
            Rollouts(2 rows: response_ids int64, rewards float64)
        """
        from rollkit._rows.arrow import columns_from_arrow

        return cls(columns_from_arrow(table))

    def to_arrow(self) -> Any:
        """Return a `pyarrow` table; token columns share memory with it."""
        from rollkit._rows.arrow import columns_to_arrow

        return columns_to_arrow(self.columns)

    @classmethod
    def joined(cls, parts: Sequence[Rollouts], out: Mapping[str, AnyArray] | None = None) -> Rollouts:
        """See `rollkit.concat`."""
        first, names = parts[0], parts[0].columns.keys()
        for i, part in enumerate(parts):
            if part.columns.keys() != names:
                odd = sorted(part.columns.keys() ^ names)
                raise ValueError(f"parts[{i}] and parts[0] differ in columns: {', '.join(map(repr, odd))}")
        out = _outs(out, first)
        return cls({name: _join(name, parts, out.get(name)) for name in names})

    def take(self, indices: ArrayLike) -> Rollouts:
        """Copy the rows at `indices` (ints, or one bool per row), in that order."""
        rows = row_indices(indices, len(self))
        return Rollouts({name: _take(column, rows) for name, column in self.columns.items()})

    def with_columns(self, **columns: Any) -> Rollouts:
        """Add or replace columns; the others are shared."""
        return Rollouts({**self.columns, **columns})

    def group_by(self, name: str) -> Groups:
        """Group rollouts whose entries of a per-row column are equal (`"instance_ids"`).

        Example:
            >>> rollouts = Rollouts({"response_ids": [[1], [2], [3]], "instance_ids": ["a", "b", "a"]})
            >>> rollouts.group_by("instance_ids").sizes
            array([2, 1])
        """
        column = self[name]
        if isinstance(column, Ragged) or (isinstance(column, np.ndarray) and column.ndim > 1):
            raise TypeError(f"column {name!r} has no single entry per rollout to group by")
        return Groups.by(column)

    def validate(self, *, step_wise: bool = False) -> None:
        """Check that these rollouts can be trained on; offsets are compared, tokens are not read.

        The rules are those of SkyRL's `validate_generator_output` (NovaSky-AI/SkyRL, August 2026).

        Args:
            step_wise: rows are steps of trajectories; `is_last_step` and `trajectory_ids` must agree.

        Raises:
            ValueError: with column and row: a needed column (`prompt_token_ids`, `response_ids`,
                `loss_masks`, `rewards`) is missing; `loss_masks`, token `rewards` or `rollout_logprobs`
                are not one per response token; routes are for more tokens than there are; the steps of
                a trajectory are not adjacent, or `is_last_step` is not where trajectories end.

        Warns:
            UserWarning: every token is masked.

        Example:
            >>> rows = {"prompt_token_ids": [[1]], "response_ids": [[2, 3]], "loss_masks": [[1]]}
            >>> Rollouts(rows | {"rewards": [1.0]}).validate()
            Traceback (most recent call last):
            ValueError: column 'loss_masks': row 0 has 1 elements, its response has 2 tokens
        """
        from rollkit._rollouts.validate import validate

        validate(self, step_wise=step_wise)

    def equals(self, other: object) -> bool:
        """Whether `other` has the same columns with the same rows and dtypes."""
        return (
            isinstance(other, Rollouts)
            and self.columns.keys() == other.columns.keys()
            and all(_same(column, other.columns[name]) for name, column in self.columns.items())
        )

    def keys(self) -> KeysView[str]:
        """The names of the columns."""
        return self.columns.keys()

    def items(self) -> ItemsView[str, Column]:
        """Names and columns."""
        return self.columns.items()

    @overload
    def __getitem__(self, key: str) -> Column: ...
    @overload
    def __getitem__(self, key: slice) -> Rollouts: ...
    def __getitem__(self, key: str | slice) -> Column | Rollouts:
        """A column by name, or a slice of rows: views, but for a step."""
        if isinstance(key, slice):
            return Rollouts({name: column[key] for name, column in self.columns.items()})
        try:
            return self.columns[key]
        except KeyError:
            known = ", ".join(map(repr, self.columns))
            raise KeyError(f"no column {key!r}; there are {known}") from None

    def ragged(self, name: str) -> Ragged:
        """Return a column that has an element per token; unlike `self[name]`, nothing else.

        Raises:
            KeyError: there is no such column.
            TypeError: it has one entry per row.

        Example:
            >>> Rollouts({"response_ids": [[1], [2, 3]]}).ragged("response_ids").lengths
            array([1, 2])
        """
        column = self[name]
        if not isinstance(column, Ragged):
            kind = "a list of objects" if isinstance(column, list) else f"{column.dtype} per row"
            raise TypeError(f"column {name!r} is {kind}, expected a Ragged; index rollouts[{name!r}] for it")
        return column

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __repr__(self) -> str:
        kinds = (
            f"{name} {'list' if isinstance(column, list) else column.dtype}"
            for name, column in self.columns.items()
        )
        return f"Rollouts({len(self):,} rows: {', '.join(kinds)})".replace(": )", ")")


def token_columns(output: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a `GeneratorOutput`-shaped dict that have one entry per rollout, as they are."""
    wanted = next((name for name in ("response_ids", "input_ids") if output.get(name) is not None), None)
    if wanted is None:
        raise ValueError(
            f"no 'response_ids' (nor 'input_ids') among {', '.join(map(repr, output)) or 'no keys'}"
        )
    count = len(output[wanted])
    return {
        name: found
        for name, found in output.items()
        if isinstance(found, Ragged | list | tuple | np.ndarray) or is_array(found)
        if name in FIELDS or (getattr(found, "ndim", None) != 0 and len(found) == count)
    }


def as_rollouts(rollouts: Any) -> Rollouts:
    """The argument of functions that take `Rollouts` or a `GeneratorOutput`-shaped dict."""
    if isinstance(rollouts, Rollouts):
        return rollouts
    if isinstance(rollouts, Mapping):
        return Rollouts.from_generator_output(rollouts)
    raise TypeError(
        f"rollouts must be Rollouts or a GeneratorOutput-shaped dict, got {type(rollouts).__name__}"
    )


def as_column(name: str, found: Any) -> Column:
    """Turn what a user has for a column into a column; known names get their dtype.

    Raises:
        TypeError, OverflowError, ValueError: with the column's name in front.
    """
    field = FIELDS.get(name)
    found = as_array(found)
    try:
        if isinstance(found, Ragged):
            return found
        if isinstance(found, np.ndarray):
            return _from_array(found, field)
        if not isinstance(found, list | tuple):
            raise TypeError(f"expected a Ragged, an array or a list, got {type(found).__name__}")
        return _from_list(found, field)
    except (TypeError, OverflowError, ValueError) as error:
        raise type(error)(f"column {name!r}: {error}") from None


def is_rows(column: Any) -> bool:
    """Whether a column, raw or not, has an element per token (and not an entry per row).

    An array `[rows, …]` has an entry per row, unless its name says otherwise (`Field`).
    """
    if isinstance(column, Ragged):
        return True
    if isinstance(column, np.ndarray):
        return column.dtype == object and is_rows(column.tolist())
    first = next((row for row in column if row is not None), None)
    if is_array(first):
        return bool(as_array(first).ndim)
    return isinstance(first, list | tuple)


def _from_array(found: AnyArray, field: Field | None) -> Column:
    if found.dtype == object:
        return _from_list(found.tolist(), field)
    if found.ndim == 0:
        raise TypeError("expected a row per rollout, got a 0-D array")
    if found.ndim > 1 and field is not None and field.per != "row":
        return Ragged.from_rows(found, field.dtype)
    if found.ndim == 1 and field is not None and found.dtype.kind == "V":
        return found.astype(np.float32)  # bfloat16, which NumPy does not count with
    return found


def _from_list(found: Sequence[Any], field: Field | None) -> Column:
    dtype = None if field is None else field.dtype
    if field is not None and field.per in ("prompt", "response", "sequence"):
        _refuse_none(found)
        return Ragged.from_rows(found, dtype)
    if is_rows(found):
        if field is not None:
            _refuse_none(found)
            return Ragged.from_rows(found, dtype)
        try:
            return Ragged.from_rows(found)
        except (TypeError, ValueError):
            return list(found)  # lists of strings, of dicts, ragged nests: objects
    return _scalars(found, field)


def _scalars(found: Sequence[Any], field: Field | None) -> Column:
    """One entry per row: an array if they are numbers. Kept wide, there are few of them."""
    array = np.array(found) if all(isinstance(x, int | float | np.generic) for x in found) else None
    if found and array is not None and array.dtype.kind in "biuf":
        return array
    if field is not None and found:
        row = next((i for i, x in enumerate(found) if np.array(x).dtype.kind not in "biuf"), 0)
        if isinstance(found[row], int):
            raise OverflowError(f"row {row}: {found[row]} does not fit 64 bits")
        raise TypeError(f"row {row}: {found[row]!r} is no number")
    return list(found)


def _refuse_none(found: Sequence[Any]) -> None:
    missing = [i for i, row in enumerate(found) if row is None]
    if missing:
        raise ValueError(
            f"row {missing[0]} is None, others are not; give all rows or leave the column out"
            if len(missing) < len(found)
            else "all rows are None; leave the column out"
        )


def _join(name: str, parts: Sequence[Rollouts], out: AnyArray | None) -> Column:
    """Join a column of many rollouts."""
    found: list[Any] = [part.columns[name] for part in parts]
    if len(set(map(type, found))) > 1:
        # A column of no rows may be a list, for want of an entry that tells what it is.
        found = [column for column in found if len(column)] or found[:1]
    kinds = sorted({kind.__name__ for kind in set(map(type, found))})
    if len(kinds) > 1:
        raise TypeError(f"column {name!r} is {' in some parts and '.join(kinds)} in others")
    if isinstance(found[0], list):
        return list(chain.from_iterable(found))
    if isinstance(found[0], Ragged):
        try:
            return Ragged.joined(found, out)
        except (TypeError, ValueError) as error:
            raise type(error)(f"column {name!r}: {error}") from None
    joined = _native.concat_arrays(found)  # None unless C-contiguous and of one dtype
    return np.concatenate(found) if joined is None else joined[0]


def _outs(out: Any, first: Rollouts) -> Mapping[str, AnyArray]:
    """Memory for the columns of a concatenation, once the names are found to be right."""
    if out is None:
        return {}
    if not isinstance(out, Mapping):
        raise TypeError(f"out must be a dict of arrays by column for Rollouts, got {type(out).__name__}")
    for name in out:
        if not isinstance(first.columns.get(name), Ragged):
            kind = "is no Ragged" if name in first.columns else "is not in parts[0]"
            raise ValueError(f"out has column {name!r}, which {kind}; leave it out")
    return out


def _take(column: Column, rows: AnyArray) -> Column:
    if isinstance(column, Ragged):
        return column.take(rows)
    return [column[i] for i in rows] if isinstance(column, list) else column[rows]


def _same(a: Column, b: Column) -> bool:
    if isinstance(a, Ragged):
        return a.equals(b)
    if isinstance(a, list) or not isinstance(b, np.ndarray):
        return isinstance(b, list) and len(a) == len(b) and all(map(_same_entry, a, b))
    return a.dtype == b.dtype and a.shape == b.shape and same_values(a, b)


def _same_entry(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return _same(a, b) if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) else False
    return bool(a == b)
