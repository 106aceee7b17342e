"""Errors that know where they are: what an exception is about is in attributes, its message is made of them.

`column`, `row`, `position` (the element of the row), `path` and `line` are attributes of the plain
`ValueError`, `TypeError` or `OverflowError` that is raised, each None where it does not apply. Who makes
one, here or in a kernel, says what it knows (`refusal`); who passes it on adds what it knows beyond (`at`),
and the message is made again of all parts. No message is ever read for what it says.

An exception survives `pickle` with its attributes, so that it says the same from a worker process.
"""

from __future__ import annotations

import sys
import warnings
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

E = TypeVar("E", bound=Exception)

TELLING: Final = (ValueError, TypeError, OverflowError)
"""The kinds of exceptions that are told where they are."""


class Words(NamedTuple):
    """What an exception says, but for where.

    Attributes:
        before: what comes before the row and position.
        after: what comes after them; all there is where neither is named.
        placed: whether a row or a position stands between the two.
        label: what stands for the column, `"column 'x'"` if None; nothing if empty.
    """

    before: str
    after: str
    placed: bool
    label: str | None


def warn(text: str, kind: type[Warning] = UserWarning) -> None:
    """Warn, at the line that called the package, however far up that is."""
    level, frame = 1, sys._getframe()
    while (outer := frame.f_back) is not None and frame.f_globals.get("__name__", "").startswith("rollkit."):
        level, frame = level + 1, outer
    warnings.warn(text, kind, stacklevel=level)


def refusal(
    kind: type[E],
    after: str,
    *,
    before: str = "",
    label: str | None = None,
    column: str | None = None,
    row: int | None = None,
    position: int | None = None,
    path: object = None,
    line: int | None = None,
) -> E:
    """Make an exception that knows where it is.

    Args:
        kind: its type.
        after: what it says after the row and position, if it has them: `" has 3 elements"`, `": 'a' is no
            number"`. Else the whole sentence.
        before: what it says before them.
        label: what stands for the column in front; `""` where the sentence names it.
        column: the column's name.
        row: the row, counted as the user counts.
        position: the element of the row.
        path: the file.
        line: the line of the file, from 1.

    Example:
        >>> error = refusal(ValueError, " has 3 elements", column="x", row=7)
        >>> error, error.row
        (ValueError("column 'x': row 7 has 3 elements"), 7)
    """
    error = kind()
    error.__dict__.update(
        column=column,
        row=None if row is None else int(row),
        position=None if position is None else int(position),
        path=None if path is None else str(path),
        line=line,
        _words=Words(before, after, row is not None or position is not None, label),
    )
    error.args = (_message(error.__dict__),)
    return error


class at:
    """Tell the exceptions of a block where they are.

    What an exception knows already stays, but for its row, which `row` replaces and `first_row` moves, and
    its position, which `position` replaces.
    Subclasses become the type that they are of, with the original as their cause: their own messages and
    attributes may say anything.

    Args:
        column: the column's name.
        label: what stands for it in front, if not `"column 'x'"`.
        row: the number of the only row that the block looks at.
        position: the element of it that the block looks at.
        alone: that row has no number, for it is the only one there is.
        first_row: the number of the block's first row, where it counts from 0.
        path: the file.
        line: the line of the file, from 1.
        kind: what the exception is to be.

    Example:
        >>> with at(column="row 7", first_row=20):
        ...     raise refusal(ValueError, " is odd", row=3)
        Traceback (most recent call last):
        ValueError: column 'row 7': row 23 is odd
    """

    __slots__ = ("_where",)

    def __init__(
        self,
        *,
        column: str | None = None,
        label: str | None = None,
        row: int | None = None,
        position: int | None = None,
        alone: bool = False,
        first_row: int = 0,
        path: object = None,
        line: int | None = None,
        kind: type[Exception] | None = None,
    ) -> None:
        self._where = (column, label, row, position, alone, first_row, path, line, kind)

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the exception that ends the block, if one does, and let it go on."""
        if error is None or not isinstance(error, TELLING):
            return
        told = _retold(error, *self._where)
        if told is not error:
            raise told from error


def retold(error: Exception, **where: Any) -> Exception:
    """The exception, told where it is; see `at`. For where that is known only once there is an exception."""
    try:
        with at(**where):
            raise error
    except TELLING as told:
        return told


class Unfit(OverflowError):
    """A cast found a value that does not fit.

    Attributes:
        index: where the first such element is, along the first axis.
        position: and along the others, as if they were one; None if there are none.
    """

    def __init__(self, values: Any, odd: Any, dtype: str) -> None:
        values, odd = np.atleast_1d(values), np.atleast_1d(odd)
        first = int(odd.reshape(-1).argmax())
        inner = odd[0].size
        self.index = first // inner
        self.position = first % inner if odd.ndim > 1 else None
        super().__init__(f"{values.reshape(-1)[first]} does not fit {dtype}")


def row_of(error: BaseException) -> int | None:
    """The row that an exception is about, if it was told."""
    return error.__dict__["row"] if "_words" in error.__dict__ else None


def path_of(error: BaseException) -> str | None:
    """The file that an exception is about, if it was told."""
    return error.__dict__["path"] if "_words" in error.__dict__ else None


def _retold(
    error: Exception,
    column: str | None,
    label: str | None,
    row: int | None,
    position: int | None,
    alone: bool,
    first_row: int,
    path: object,
    line: int | None,
    kind: type[Exception] | None,
) -> Exception:
    wanted = kind or next(known for known in TELLING if isinstance(error, known))
    told = error if error.__class__ is wanted else wanted()
    known = told.__dict__
    if "_words" in error.__dict__:
        known |= error.__dict__
    else:  # made elsewhere: all it says is its message
        words = Words("", str(error), False, None)
        known |= {"column": None, "row": None, "position": None, "path": None, "line": None, "_words": words}
    words = Words(*known["_words"])
    if column is not None and known["column"] is None:
        known["column"] = column
        words = words._replace(label=label)
    if row is not None:
        known["row"] = row
        if not words.placed:
            words = words._replace(after=f": {words.after}", placed=True)
    elif alone:
        known["row"] = None
    elif known["row"] is not None:
        known["row"] += first_row
    if position is not None:
        known["position"] = position
    if path is not None and known["path"] is None:
        known["path"], known["line"] = str(path), line
    known["_words"] = words
    told.args = (_message(known),)
    return told


def _message(known: dict[str, Any]) -> str:
    """The one place where a message is made."""
    words: Words = known["_words"]
    in_file = known["line"] is not None
    parts = []
    if known["path"] is not None:
        parts.append(f"{known['path']}:{known['line']}: " if in_file else f"{known['path']}: ")
    label = f"column {known['column']!r}" if words.label is None else words.label
    if known["column"] is not None and label:
        parts.append(f"{label}: ")
    place = ""
    if words.placed:
        # The line says which row it is.
        row = None if known["row"] is None else "this row" if in_file else f"row {known['row']}"
        position = None if known["position"] is None else f"position {known['position']}"
        place = ", ".join(filter(None, (row, position))) or "this row"
    return "".join([*parts, words.before, place, words.after])
