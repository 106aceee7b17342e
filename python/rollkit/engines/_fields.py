"""Fields of results, whatever holds them, and columns of what all rows have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rollkit import _check
from rollkit._errors import at, refusal
from rollkit._frameworks import as_array
from rollkit._rows.ragged import Ragged

INT32 = np.dtype(np.int32)
FLOAT32 = np.dtype(np.float32)
UINT8 = np.dtype(np.uint8)


def field(source: Any, name: str) -> Any:
    """What a dict or an object has by a name; None where it has nothing."""
    if isinstance(source, dict):
        return source.get(name)
    found = getattr(source, name, None)
    # Other mappings are asked last: that takes the time of all the rest.
    return source.get(name) if found is None and isinstance(source, Mapping) else found


def results_of(name: str, results: Any) -> list[Any]:
    """The results, of which one alone is no sequence."""
    if isinstance(results, Mapping):
        raise TypeError(
            f"{name} must be a sequence of results, got one {type(results).__name__}; give a list"
        )
    return _check.items(name, results)


def required(called: str, result: Any, name: str, kind: str) -> Any:
    """A field that every result has, of whatever kind the row is."""
    found = field(result, name)
    if found is None:
        raise TypeError(f"{called} is {type(result).__name__} without {name!r}; expected {kind}")
    return found


def listed(called: str, result: Any, name: str, kind: str) -> Sequence[Any]:
    """The items of a field that every result has, and that is a list."""
    found = required(called, result, name, kind)
    if not isinstance(found, list | tuple):
        raise TypeError(f"{called}.{name} must be a list, got {type(found).__name__}")
    return found


def nested(called: str, results: Any, name: str, kind: str) -> tuple[list[Any], list[Any]]:
    """The items of a list that each result has, one after the other, and the result that each is of."""
    owners: list[Any] = []
    items: list[Any] = []
    for i, result in enumerate(results_of(called, results)):
        found = listed(f"{called}[{i}]", result, name, kind)
        items += found
        owners += [result] * len(found)
    return owners, items


def in_all(column: str, name: str, values: Sequence[Any], called: Callable[[int], str] | None = None) -> bool:
    """Whether rows have a field: all do, or none does. `called` tells what a row is in the results.

    Raises:
        ValueError: some have it; a row that has not is named.
    """
    missing = [row for row, value in enumerate(values) if value is None]
    if not missing:
        return bool(values)
    if len(missing) < len(values):
        there = next(row for row, value in enumerate(values) if value is not None)
        place = "" if called is None else f" ({called(missing[0])})"
        text = f"{place} has no {name!r}, row {there} has; ask for it in every request, or in none"
        raise refusal(ValueError, text, column=column, row=missing[0])
    return False


def tokens_of(column: str, name: str, values: Sequence[Any], hint: str = "") -> list[Any]:
    """Token ids of every row, as lists that the interpreter holds in one piece."""
    for row, value in enumerate(values):
        if value is None:
            text = f" has no {name!r}{hint}"
            raise refusal(ValueError, text, column=column, row=row)
    return [as_list(column, row, value) for row, value in enumerate(values)]


def as_list(column: str, row: int, value: Any) -> Any:
    """A row of a field as a list or tuple."""
    if isinstance(value, list | tuple):
        return value
    found = as_array(value)
    if isinstance(found, np.ndarray) and found.ndim:
        return found.tolist()
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        text = f" is {type(value).__name__}, expected a list of token ids"
        raise refusal(TypeError, text, column=column, row=row)
    return list(value)


def ints(column: str, rows: Sequence[Any]) -> Ragged:
    """Rows of token ids as a column."""
    return numbers(column, rows, INT32)


def numbers(column: str, rows: Sequence[Any], dtype: np.dtype[Any]) -> Ragged:
    """Rows of one number a token as a column."""
    with at(column=column):
        found = Ragged.from_rows(rows, dtype)
        if found.inner:
            row = int(found.lengths.argmax())
            raise refusal(
                ValueError, f" has elements of shape {found.inner}; a number a token expected", row=row
            )
        return found


def check_lengths(column: str, found: Any, wanted: Any) -> None:
    """Refuse rows that have another number of elements than there are tokens."""
    odd = np.flatnonzero(np.asarray(found) != np.asarray(wanted))
    if len(odd):
        row = int(odd[0])
        text = f" has {found[row]} elements for {wanted[row]} tokens"
        raise refusal(ValueError, text, column=column, row=row)


def word(reason: Any) -> Any:
    """Why a sample ended, in the engine's word: SGLang's is a dict with more."""
    return reason.get("type") if isinstance(reason, Mapping) else reason
