"""Rollouts as columns: `Rollouts`."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from typing import Any, cast, overload

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check, _native
from rollkit._errors import at, refusal
from rollkit._extras import extra
from rollkit._frameworks import AnyArray, is_array
from rollkit._rollouts.arrow import columns_from_arrow, stream_of
from rollkit._rollouts.columns import (
    Column,
    as_column,
    check_unlaid,
    joined_entries,
    same_column,
    take_column,
    token_columns,
    warn_of_indexes,
)
from rollkit._rollouts.groups import Groups
from rollkit._rollouts.truncate import truncated
from rollkit._rollouts.validate import validate
from rollkit._rows.arrow import is_arrow
from rollkit._rows.ragged import Ragged, row_indices


@dataclass(frozen=True, eq=False, repr=False)
class Rollouts:
    """Columns of equal row count, named as in SkyRL's `GeneratorOutput`.

    Maps names to columns: `Ragged` for what has an element per token, an array for what has one number
    per row, a list for anything else. Unknown columns pass through everything. As in a data frame,
    iterating gives names, and `len` counts rows. Lists of known columns take the dtype that these have in a
    batch; what has a dtype keeps it (a float64 `Ragged` of `rollout_logprobs`, an Arrow column) until `pack`
    and `pad` narrow it, so that no digit is lost before.

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
        if not isinstance(self.columns, Mapping):
            got = type(self.columns).__name__
            way = (
                "from_arrow takes tables and data frames"
                if is_arrow(self.columns)
                else "from_rows takes rows"
            )
            raise TypeError(f"columns must be a dict of columns, got {got}; Rollouts.{way}")
        check_unlaid(self.columns)
        warn_of_indexes(self.columns)
        columns = {str(name): as_column(str(name), found) for name, found in self.columns.items()}
        counts = {name: len(column) for name, column in columns.items()}
        first = next(iter(counts), None)
        for name, count in counts.items():
            if first is not None and count != counts[first]:
                text = (
                    f"columns must have equal row counts: {name!r} has {count}, {first!r} has {counts[first]}"
                )
                raise refusal(ValueError, text, column=name, label="")
        object.__setattr__(self, "columns", columns)

    @classmethod
    def _trusted(cls, columns: Mapping[str, Column]) -> Rollouts:
        """Make rollouts of columns that are some already, of equal row count."""
        rollouts = object.__new__(cls)
        object.__setattr__(rollouts, "columns", columns)
        return rollouts

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Rollouts:
        """Turn one mapping per rollout into columns; all need the same keys.

        Raises:
            ValueError: a row lacks a key, or has one more; the message names it.
        """
        rows = _check.items("rows", rows)
        for i, row in enumerate(rows):
            if not isinstance(row, Mapping):
                text = f" is {type(row).__name__}; expected a dict of values by name"
                raise refusal(TypeError, text, row=i)
        names = list(rows[0]) if rows else []
        for i, row in enumerate(rows):
            if row.keys() != rows[0].keys():
                odd = sorted(row.keys() ^ rows[0].keys())
                raise ValueError(f"row {i} and row 0 differ in keys: {', '.join(map(repr, odd))}")
        return cls({name: [row[name] for row in rows] for name in names})

    @classmethod
    def from_generator_output(cls, output: Mapping[str, Any]) -> Rollouts:
        """Take the columns of a `GeneratorOutput`-shaped dict; `None` and per-batch values stay out.

        Per-batch values are texts, numbers and mappings (`rollout_metrics`). Anything else that can be
        iterated over is a column.

        Raises:
            ValueError: a column has another number of rows than the token ids.
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
        """View what speaks Arrow's C interface: tables, record batches, streams, data frames, `datasets`.

        List columns become `Ragged` without a copy where they are one chunk, and numbers arrays. Lists of a
        fixed size are an array `[rows, size]`, unless the column's name says that they are tokens. Decimals
        are int64 where they have no places behind the point, else float64. The index of a data frame, where
        it is no range, comes as a column, as in every Arrow table that pandas makes: `__index_level_0__`, or
        its name. Columns of structs, dates and the like, which are objects here, are read through `pyarrow`.

        Raises:
            TypeError: no table, or several: a `DatasetDict`, a dict or a list of tables.
            ValueError: a row of elements is null, or a number in one.
            OverflowError: int64 or float64 does not hold all digits of a decimal.

        Example:
            >>> import pyarrow as pa
            >>> Rollouts.from_arrow(pa.table({"response_ids": [[1, 2], [3]], "rewards": [1.0, 0.0]}))
            Rollouts(2 rows: response_ids int64, rewards float64)
        """
        return cls(columns_from_arrow(table))

    def to_arrow(self) -> Any:
        """Return a `pyarrow` table; token columns share memory with it."""
        return extra("pyarrow", "arrow").table(self)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The capsule of Arrow's C stream interface: one record batch over the same memory.

        Rows of elements are `large_list`, or `list` where `requested_schema` asks for it, and texts
        `large_string`. Columns of other objects are made by `pyarrow`.
        """
        return stream_of(self.columns, len(self), requested_schema)

    def __array__(self, dtype: Any = None, copy: Any = None) -> AnyArray:
        raise TypeError(
            "Rollouts are no array; take a column, .to_rows() for a data frame, or what reads Arrow "
            "(polars.DataFrame(rollouts), pyarrow.table(rollouts).to_pandas())"
        )

    @classmethod
    def joined(
        cls,
        parts: Sequence[Rollouts],
        out: Mapping[str, AnyArray] | None = None,
        called: Sequence[str] = (),
    ) -> Rollouts:
        """See `rollkit.concat`; `called` is what refusals call the parts."""
        called = called or [f"parts[{i}]" for i in range(len(parts))]
        first, names = parts[0], parts[0].columns.keys()
        for one, part in zip(called, parts, strict=True):
            if part.columns.keys() != names:
                odd = sorted(part.columns.keys() ^ names)
                raise ValueError(f"{one} and {called[0]} differ in columns: {', '.join(map(repr, odd))}")
        out = _outs(out, first)
        return cls._trusted({name: _join(name, parts, out.get(name), called) for name in names})

    def take(self, indices: ArrayLike) -> Rollouts:
        """Copy the rows at `indices` (ints, or one bool per row), in that order."""
        rows = row_indices(indices, len(self))
        return self._trusted({name: take_column(column, rows) for name, column in self.columns.items()})

    def sort(self, *names: str) -> Rollouts:
        """Copy the rows in ascending order of columns that have one entry per row; ties as they are.

        Args:
            names: the columns, the most important first. Ids that have a `to_string()` are sorted by it.

        Raises:
            KeyError: there is no such column.
            TypeError: a column has an element per token, or entries that cannot be compared.

        Example:
            >>> rollouts = Rollouts({"trajectory_ids": ["b", "a", "b"], "step": [1, 0, 0]})
            >>> rollouts.sort("trajectory_ids", "step")["step"]
            array([0, 0, 1])
        """
        rows = list(range(len(self)))
        for name in reversed(names):
            keys = _sort_keys(name, self._named(name))
            try:
                rows.sort(key=keys.__getitem__)
            except TypeError as error:
                text = f"entries cannot be compared: {error}; give one kind of text or number"
                raise refusal(TypeError, text, column=name) from None
        return self.take(np.array(rows, np.int64))

    def filter(self, rows: ArrayLike) -> Rollouts:
        """Copy the rows for which there is True.

        Args:
            rows: `[rows]` bool.

        Example:
            >>> rollouts = Rollouts({"response_ids": [[1], [2, 3]], "rewards": [0.0, 1.0]})
            >>> rollouts.filter(rollouts["rewards"] > 0)["response_ids"].to_list()
            [[2, 3]]
        """
        found = _check.host("rows", rows)
        if isinstance(rows, list) and not rows:
            found = found.astype(bool)  # of no rollouts
        if found.dtype != bool:
            raise TypeError(f"rows must be one bool per row, got {found.dtype}; .take takes row numbers")
        return self.take(found)

    def select(self, *names: str) -> Rollouts:
        """These columns alone, in this order; they are shared."""
        return self._trusted({name: self._named(name) for name in names})

    def _named(self, name: str) -> Column:
        if not isinstance(name, str):
            text = f"names are given one by one (*names), got {type(name).__name__}"
            raise TypeError(text)
        return self[name]

    def drop(self, *names: str) -> Rollouts:
        """All columns but these; they are shared."""
        gone = {name for name in names if self._named(name) is not None}
        return self._trusted({name: found for name, found in self.columns.items() if name not in gone})

    def rename(self, names: Mapping[str, str]) -> Rollouts:
        """The same columns, some under new names, whose meaning they take on.

        Rows of elements keep their dtype, as those of a `Ragged` do everywhere; `pack` and `pad` narrow
        them.

        Args:
            names: `{old: new}`.

        Raises:
            KeyError: there is no such column.
            ValueError: two columns would have one name.

        Example:
            >>> list(Rollouts({"tokens": [[1]], "rewards": [1.0]}).rename({"tokens": "response_ids"}))
            ['response_ids', 'rewards']
        """
        names = _check.mapping("names", names)
        for old in names:
            self[old]
        found = [str(names.get(name, name)) for name in self.columns]
        if len(set(found)) != len(found):
            twice = next(name for name in found if found.count(name) > 1)
            raise ValueError(f"names gives two columns the name {twice!r}")
        return Rollouts(dict(zip(found, self.columns.values(), strict=True)))

    def truncate(
        self,
        *,
        prompt: int | None = None,
        response: int | None = None,
        side: str | None = None,
        levels: Mapping[str, str] | None = None,
    ) -> Rollouts:
        """Cut prompts and responses to lengths, and with them all that has an element for their tokens.

        Args:
            prompt: how many tokens of a prompt stay at most; None: all.
            response: likewise of a response.
            side: which tokens go, the first (`"left"`) or the last (`"right"`). By default a prompt loses
                its first, and a response its last ones.
            levels: what columns have an element for, where their names do not say it; see `pack`.

        Returns:
            Rollouts with two more columns, `truncated_prompt_tokens` and `truncated_response_tokens`: how
            many tokens each row has lost by now; `mask_overlong` masks rows that lost some of their response.

        Raises:
            ValueError: `prompt` where there are only `input_ids`, which `response` cuts; the rows of a
                column have another length than their tokens; or a row that would be cut has entries in a
                column of level `"row[]"`, which may be of any of its tokens.

        Warns:
            UserWarning: rewards other than 0 are cut off.

        Example:
            >>> rollouts = Rollouts({"prompt_token_ids": [[1, 2, 3]], "response_ids": [[4, 5]]})
            >>> short = rollouts.truncate(prompt=2, response=1)
            >>> short["prompt_token_ids"].to_list(), short["response_ids"].to_list()
            ([[2, 3]], [[4]])
            >>> short["truncated_prompt_tokens"], short["truncated_response_tokens"]
            (array([1]), array([1]))
        """
        return Rollouts(truncated(self.columns, prompt, response, side, levels))

    def to_buffers(self) -> tuple[bytes, list[memoryview]]:
        """A header (JSON), and flat buffers over the same memory; see `Ragged.to_buffers`.

        Columns of texts and objects go as JSON, in which tuples are lists.

        Raises:
            TypeError: an object is not one of JSON.

        Example:
            >>> rollouts = Rollouts({"response_ids": [[1], [2, 3]], "stop_reasons": ["stop", None]})
            >>> Rollouts.from_buffers(*rollouts.to_buffers()).equals(rollouts)
            True
        """
        from rollkit._rollouts.buffers import buffers_of  # with it comes json

        return buffers_of(self.columns)

    @classmethod
    def from_buffers(cls, header: Any, buffers: Sequence[Any]) -> Rollouts:
        """View what `to_buffers` gave, or copies of it: anything with the buffer protocol.

        Raises:
            ValueError: not the header, or not the buffers, of rollouts.
        """
        from rollkit._rollouts.buffers import columns_from_buffers

        return cls(columns_from_buffers(header, buffers))

    def with_columns(self, **columns: Any) -> Rollouts:
        """Add or replace columns; the others are shared."""
        return Rollouts({**self.columns, **columns})

    def group_by(self, by: str | ArrayLike | Iterable[Any]) -> Groups:
        """Group rollouts whose entries of a per-row column are equal (`"instance_ids"`).

        Args:
            by: a column's name, or one id per row.

        Example:
            >>> rollouts = Rollouts({"response_ids": [[1], [2], [3]], "instance_ids": ["a", "b", "a"]})
            >>> rollouts.group_by("instance_ids").sizes
            array([2, 1])
            >>> rollouts.group_by([7, 7, 8]).sizes
            array([2, 1])
        """
        if isinstance(by, Iterator):
            by = list(by)
        name, column = (by, self[by]) if isinstance(by, str) else ("by", as_column("by", by))
        if len(column) != len(self):
            raise ValueError(f"by has {len(column)} ids, there are {len(self)} rows")
        return Groups.by(_entries(name, column, "group"))

    def validate(self, *, step_wise: bool = False) -> None:
        """Check that these rollouts can be trained on: their columns, the lengths of rows, and the values.

        The rules are those of SkyRL's `validate_generator_output` (NovaSky-AI/SkyRL, August 2026).

        Args:
            step_wise: rows are steps of trajectories; `is_last_step` and `trajectory_ids` must agree.

        Raises:
            ValueError: with column and row: a needed column (`prompt_token_ids`, `response_ids`,
                `loss_masks`, `rewards`) is missing; `loss_masks`, token `rewards` or another known column
                per response token has not one for each; routes are for more tokens than there are; the
                steps of a trajectory are not adjacent, or of two `instance_ids`, or `is_last_step` is not
                where trajectories end. With position: a token id or expert is negative, a mask neither 0
                nor 1, a reward None, NaN or infinite, a log-probability NaN or above 0, a sampling mask
                without the token that was sampled (an empty one says nothing).

        Warns:
            UserWarning: every token is masked.

        Example:
            >>> rows = {"prompt_token_ids": [[1]], "response_ids": [[2, 3]], "loss_masks": [[1]]}
            >>> Rollouts(rows | {"rewards": [1.0]}).validate()
            Traceback (most recent call last):
            ValueError: column 'loss_masks': row 0 has 1 elements, its response has 2 tokens
        """
        validate(self.columns, step_wise=step_wise)

    def equals(self, other: object) -> bool:
        """Whether `other` has the same columns with the same rows and dtypes."""
        return (
            isinstance(other, Rollouts)
            and self.columns.keys() == other.columns.keys()
            and all(same_column(column, other.columns[name]) for name, column in self.columns.items())
        )

    def keys(self) -> KeysView[str]:
        """The names of the columns."""
        return self.columns.keys()

    def items(self) -> ItemsView[str, Column]:
        """Names and columns."""
        return self.columns.items()

    def values(self) -> ValuesView[Column]:
        """The columns."""
        return self.columns.values()

    def get(self, name: str, default: Any = None) -> Any:
        """A column, or `default` if there is none."""
        return self.columns.get(str(name), default)

    def to_rows(self) -> list[dict[str, Any]]:
        """One dict per rollout, as `from_rows` takes them; rows of elements are views of the columns.

        Example:
            >>> Rollouts({"response_ids": [[1], [2, 3]], "rewards": [0.0, 1.0]}).to_rows()[1]
            {'response_ids': array([2, 3], dtype=int32), 'rewards': 1.0}
        """
        columns = self.to_generator_output()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    @overload
    def __getitem__(self, key: str) -> Column: ...
    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: slice | AnyArray | list[int] | list[bool]) -> Rollouts: ...
    def __getitem__(self, key: Any) -> Column | Rollouts | dict[str, Any]:
        """A column by name, a row by number, or rows: a slice (views, but for a step), ints or bools."""
        if isinstance(key, slice):
            return self._trusted({name: column[key] for name, column in self.columns.items()})
        if isinstance(key, int | np.integer) and not isinstance(key, bool):
            row = int(row_indices(np.array([key]), len(self))[0])
            return self[row : row + 1].to_rows()[0]
        if isinstance(key, list) or is_array(key):
            return self.take(key)
        try:
            return self.columns[key]
        except (KeyError, TypeError):
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
        if not isinstance(name, str):
            raise TypeError(f"name must be that of a column, got {type(name).__name__}")
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


def _join(name: str, parts: Sequence[Rollouts], out: AnyArray | None, called: Sequence[str]) -> Column:
    """Join a column of many rollouts."""
    found: list[Any] = [part.columns[name] for part in parts]
    if len(set(map(type, found))) > 1:
        # A column of no rows may be a list, for want of an entry that tells what it is.
        filled = [i for i, column in enumerate(found) if len(column)] or [0]
        found, called = [found[i] for i in filled], [called[i] for i in filled]
        rows = [isinstance(column, Ragged) for column in found]
        if len(set(rows)) > 1:
            text = f"has rows of elements in {called[rows.index(True)]}, one entry per row in "
            raise refusal(TypeError, text + called[rows.index(False)], column=name)
    if isinstance(found[0], Ragged):
        with at(column=name):
            return Ragged.joined(found, out, called)
    if all(isinstance(column, np.ndarray) for column in found):
        joined = _native.concat_arrays(found)  # None unless C-contiguous and of one dtype
        if joined is not None:
            return joined[0]
    return cast(Column, joined_entries(name, found))


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


def _entries(name: str, column: Column, verb: str) -> list[Any] | AnyArray:
    """A column that has one entry per row; another has none to sort or to group by."""
    if isinstance(column, Ragged) or (isinstance(column, np.ndarray) and column.ndim > 1):
        text = f"column {name!r} has no single entry per rollout to {verb} by"
        raise refusal(TypeError, text, column=name, label="")
    return column


def _sort_keys(name: str, column: Column) -> list[Any]:
    """What rows are sorted by."""
    entries = _entries(name, column, "sort")
    entries = entries.tolist() if isinstance(entries, np.ndarray) else entries
    return [entry.to_string() if hasattr(entry, "to_string") else entry for entry in entries]
