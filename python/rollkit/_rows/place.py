"""Rows into a buffer and back: `concat`, `place`, `take`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

from numpy.typing import DTypeLike

from rollkit._arrays.ops import ops
from rollkit._frameworks import AnyArray, is_array, same_framework
from rollkit._rows.arrow import is_arrow
from rollkit._rows.laid import Laid
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts, place_parts, taken
from rollkit._rows.ragged import Ragged, trusted

Column = Ragged | Sequence[Any]
"""Rows for `place`: a `Ragged`, or a sequence of parts (`Ragged`) or of rows (arrays, tensors, lists)."""


def parts_of(column: Column | Parts, dtype: Any = None) -> Parts:
    """Name the buffers of a column without touching its elements.

    Lists are no buffers: they become a `Ragged` of `dtype` first.
    """
    if isinstance(column, Ragged):
        return column.parts()
    if isinstance(column, Parts):
        return column
    if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__iter__"):
        raise TypeError(f"column must be a Ragged or a sequence of rows, got {type(column).__name__}")
    rows = column if isinstance(column, list | tuple) else list(column)
    if any(isinstance(row, Ragged) for row in rows):
        return Parts.join([parts_of(part if isinstance(part, Ragged) else [part], dtype) for part in rows])
    return Parts.of_arrays(rows) or Ragged.from_rows(rows, dtype).parts()


def place(
    column: Column,
    layout: Laid,
    fill: Any = 0,
    *,
    dtype: DTypeLike | None = None,
    out: AnyArray | None = None,
) -> Any:
    """Write each row where `layout` puts it, and `fill` everywhere else: every element once.

    Args:
        column: a `Ragged`, or a sequence of `Ragged` parts, or of rows (arrays, tensors, lists), whose
            rows count through. They are not joined first: elements go from their buffers to the output.
            Tensors on a device, with a gradient, or traced are scattered by their framework.
        layout: where rows go; its row lengths must be the column's. In a `TreeLayout` what rows share is
            written once, from the first of them in the bin.
        fill: what padding holds: a number, or an array of the inner shape.
        dtype: of the output; the column's by default. Numbers are checked to fit, as by `Ragged.astype`.
        out: an array to write to, of the output's shape and dtype. After an `OverflowError` its
            contents are undefined.

    Returns:
        `[*layout.shape, *inner]`, a new array or `out`: NumPy's, or of the framework that scattered.

    Raises:
        ValueError: the column's rows are not those of the layout; the message names the first.
        OverflowError: a value does not fit `dtype`; likewise.

    Example:
        >>> import numpy as np
        >>> rows = Ragged.from_rows([[1, 2, 3], [4]], np.int32)
        >>> place(rows, Layout.pad(rows.lengths), fill=-1)
        array([[ 1,  2,  3],
               [-1, -1,  4]], dtype=int32)
    """
    _check_layout(layout)
    return place_parts(parts_of(column, dtype), layout.written, fill, dtype=dtype, out=out)


def take(array: Any, layout: Laid | list[Layout] | tuple[Layout, ...]) -> Ragged:
    """Turn a buffer that `layout` describes back into rows, in input order: the inverse of `place`.

    Args:
        array: `[*layout.shape, *inner]`: a batch column, or a model's per-token output, of any framework.
            Of several layouts an array for each, or one with a first axis for them.
        layout: where the rows are; or the layouts that share them (`Layout.shard`). In a `TreeLayout` rows
            share elements, whose gradients add up.

    Returns:
        The rows; a view of `array` where it holds them end to end, else a copy. Of an array on a device,
        with a gradient, or traced, the values are of its framework, and gradients go through.

    Example:
        >>> layout = Layout.pack([2, 3], capacity=4)
        >>> take(layout.positions(), layout).to_list()
        [[0, 1], [0, 1, 2]]
        >>> shards = Layout.concat([4, 8], align=4).shard(2)
        >>> take([shard.positions() for shard in shards], shards).to_list()
        [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7]]
    """
    if isinstance(layout, list | tuple):
        return trusted(*taken(*_stacked(array, layout)))
    _check_layout(layout)
    return trusted(*taken(array, layout))


def _stacked(arrays: Any, layouts: Sequence[Layout]) -> tuple[Any, Layout]:
    """One array of the outputs that several layouts describe, and its layout."""
    layout = Layout.stack(layouts)
    if not isinstance(arrays, list | tuple):
        return arrays, layout
    if len(arrays) != len(layouts):
        raise ValueError(f"there are {len(arrays)} arrays and {len(layouts)} layouts; give one for each")
    own = ops(same_framework(**{f"array[{i}]": array for i, array in enumerate(arrays)}))
    flat = []
    for i, (array, one) in enumerate(zip(arrays, layouts, strict=True)):
        depth = len(one.shape)
        if not is_array(array) or tuple(array.shape[:depth]) != one.shape:
            came = tuple(array.shape) if is_array(array) else type(array).__name__
            raise ValueError(f"array[{i}] must have shape {one.shape} (and inner dims), got {came}")
        flat.append(array[None])
    return own.cat(flat), layout


def _check_layout(layout: Any) -> None:
    if not isinstance(layout, Laid):
        raise TypeError(
            f"layout must be a Layout, got {type(layout).__name__}; Layout.pad and others make one"
        )


class Joinable(Protocol):
    """Rows that `concat` joins: `Ragged`, `Rollouts`."""

    @classmethod
    def joined(cls, parts: Sequence[Self], out: Any = None) -> Self:
        """Join parts of this class."""
        ...


Rows = TypeVar("Rows", bound=Joinable)


def concat(parts: Sequence[Rows], *, out: Any = None) -> Rows:
    """Join `Ragged` parts, or `Rollouts` column by column, in one pass and one allocation.

    Args:
        parts: all `Ragged` of one dtype and inner shape, or all `Rollouts` of the same columns.
        out: memory to write the values to, for loops that would else touch new memory each time:
            `[n, *inner]`, n at least the total, of which the result is a view. For `Rollouts`, such an
            array for each `Ragged` column that is to have one, by name.

    Raises:
        TypeError: parts are of several types or dtypes; `out` is no array, or no dict of them.
        ValueError: parts have other inner shapes or columns; `out` is too small, or has other columns.

    Example:
        >>> a, b = Ragged.from_rows([[1], [2, 3]]), Ragged.from_rows([[4, 5]])
        >>> concat([a, b]).to_list()
        [[1], [2, 3], [4, 5]]
    """
    if not hasattr(parts, "__iter__"):
        raise TypeError(f"parts must be a sequence of Ragged or Rollouts, got {type(parts).__name__}")
    parts = list(parts)
    if not parts:
        raise ValueError("parts is empty; concat needs at least one part")
    first = type(parts[0])
    for i, part in enumerate(parts):
        if type(part) is not first or not hasattr(first, "joined"):
            raise TypeError(
                f"parts must be all Ragged or all Rollouts; parts[{i}] is {type(part).__name__}{_fix(part)}"
            )
    return first.joined(parts, out)


def _fix(part: Any) -> str:
    """What makes rows of a part that is none."""
    if hasattr(part, "joined"):
        return ""
    if is_arrow(part):
        return "; Rollouts.from_arrow takes tables, Ragged.from_arrow list arrays"
    return "; Rollouts takes dicts of columns" if isinstance(part, Mapping) else ""
