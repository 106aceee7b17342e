"""Rows into a buffer and back: `concat`, `place`, `take`. One kernel executes them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import DTypeLike

from rollkit import _native
from rollkit._check import AnyArray, Int64s, as_array, is_array
from rollkit._layout import Layout, checked_out
from rollkit._ragged import Ragged, _trusted

if TYPE_CHECKING:
    from rollkit._rollouts import Rollouts

Column = Ragged | Sequence[Any]
"""Rows for `place`: a `Ragged`, or a sequence of parts (`Ragged`) or of rows (arrays, tensors, lists)."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Rows as the kernel takes them: buffers, and the length of every row, counted through."""

    buffers: list[AnyArray | tuple[AnyArray, Int64s]]
    lengths: Int64s
    dtype: np.dtype[Any]
    inner: tuple[int, ...]

    @classmethod
    def of(cls, column: Column, dtype: np.dtype[Any] | None = None) -> Parts:
        """Name the buffers of a column without touching its elements.

        Lists are no buffers: they become a `Ragged` of `dtype` first.
        """
        if isinstance(column, Ragged):
            values = np.ascontiguousarray(column.values)
            buffer = (values, column.offsets[:-1])
            return cls([buffer], column.lengths, column.dtype, column.inner)
        rows = column if isinstance(column, list | tuple) else list(column)
        if any(isinstance(row, Ragged) for row in rows):
            return cls.join([cls.of(part if isinstance(part, Ragged) else [part], dtype) for part in rows])
        if rows and is_array(rows[0]):
            arrays = [as_array(row) for row in rows]
            lengths = _native.array_lengths(arrays)
            if lengths is not None:
                first = arrays[0]
                return cls(list(arrays), lengths, first.dtype, first.shape[1:])
        return cls.of(Ragged.from_rows(rows, dtype))

    @classmethod
    def of_ragged(cls, columns: Sequence[Ragged]) -> Parts:
        """Name the buffers of many columns whose rows count through, at the cost of a loop over them."""
        filled = [column for column in columns if len(column.offsets) > 1] or list(columns[:1])
        values = [column.values for column in filled]
        offsets = [column.offsets for column in filled]
        inner, dtype = values[0].shape[1:], values[0].dtype
        if len({array.dtype for array in values}) > 1 or len({array.shape[1:] for array in values}) > 1:
            return cls.join([cls.of(column) for column in filled])  # which says what differs
        begins = [array[:-1] for array in offsets]
        joined = np.concatenate(offsets)
        # Between the last offset of a column and the first of the next there is no row.
        ends = np.cumsum(list(map(len, offsets)), dtype=np.int64) - 1
        lengths = np.delete(np.diff(joined), ends[:-1])
        return cls(list(zip(map(np.ascontiguousarray, values), begins, strict=True)), lengths, dtype, inner)

    def cast_by_numpy(self, dtype: np.dtype[Any]) -> Parts:
        """Cast what the kernel cannot (float16, bfloat16, fp8, to bool), one copy of each buffer."""
        buffers: list[AnyArray | tuple[AnyArray, Int64s]] = [
            (_cast_by_numpy(buffer[0], dtype), buffer[1])
            if isinstance(buffer, tuple)
            else _cast_by_numpy(buffer, dtype)
            for buffer in self.buffers
        ]
        return Parts(buffers, self.lengths, dtype, self.inner)

    @classmethod
    def join(cls, parts: Sequence[Parts]) -> Parts:
        """Let the rows of several columns count through."""
        filled = [part for part in parts if len(part.lengths)] or list(parts[:1])
        first = filled[0]
        for i, part in enumerate(filled):
            if part.inner != first.inner:
                raise ValueError(f"parts[{i}] has inner shape {part.inner}, parts[0] has {first.inner}")
            if part.dtype != first.dtype:
                raise TypeError(
                    f"parts[{i}] is {part.dtype}, parts[0] is {first.dtype}; cast one with .astype"
                )
        return cls(
            [buffer for part in filled for buffer in part.buffers],
            np.concatenate([part.lengths for part in filled]),
            first.dtype,
            first.inner,
        )


def place(
    column: Column,
    layout: Layout,
    fill: Any = 0,
    *,
    dtype: DTypeLike | None = None,
    out: AnyArray | None = None,
) -> AnyArray:
    """Write each row where `layout` puts it, and `fill` everywhere else: every element once.

    Args:
        column: a `Ragged`, or a sequence of `Ragged` parts, or of rows (arrays, tensors, lists), whose
            rows count through. They are not joined first: elements go from their buffers to the output.
        layout: where rows go; its row lengths must be the column's.
        fill: what padding holds: a number, or an array of the inner shape.
        dtype: of the output; the column's by default. Integers are checked to fit.
        out: an array to write to, of the output's shape and dtype. After an `OverflowError` its
            contents are undefined.

    Returns:
        `[*layout.shape, *inner]`, a new array or `out`.

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
    wanted = None if dtype is None else np.dtype(dtype)
    return place_parts(Parts.of(column, wanted), layout, fill, dtype=wanted, out=out)


def place_parts(
    parts: Parts,
    layout: Layout,
    fill: Any,
    *,
    dtype: np.dtype[Any] | None = None,
    out: AnyArray | None = None,
) -> AnyArray:
    """`place` for rows whose buffers are known."""
    _same_rows(parts.lengths, layout.row_lengths)
    dtype = parts.dtype if dtype is None else dtype
    if dtype != parts.dtype and not _native.can_cast(parts.dtype, dtype):
        parts = parts.cast_by_numpy(dtype)
    shape = (*layout.shape, *parts.inner)
    out = np.empty(shape, dtype) if out is None else checked_out(out, shape, dtype)
    if out.size:
        fill = _fill(fill, dtype, parts.inner)
        _native.place(parts.buffers, layout.starts, layout.lengths, layout.order, fill=fill, out=out)
    return out


def take(array: Any, layout: Layout) -> Ragged:
    """Turn a buffer that `layout` describes back into rows, in input order: the inverse of `place`.

    Args:
        array: `[*layout.shape, *inner]`: a batch column, or a model's per-token output (NumPy, or a
            tensor on the CPU).
        layout: where the rows are.

    Returns:
        The rows; a view of `array` where it holds them end to end, else a copy.

    Example:
        >>> layout = Layout.pack([2, 3], capacity=4)
        >>> take(layout.positions(), layout).to_list()
        [[0, 1], [0, 1, 2]]
    """
    found = as_array(array)
    if not isinstance(found, np.ndarray):
        raise TypeError(f"array must be a NumPy array or a CPU tensor, got {type(array).__name__}")
    depth = len(layout.shape)
    if found.shape[:depth] != layout.shape:
        raise ValueError(f"array must have shape {layout.shape} (and inner dims), got {found.shape}")
    inner = found.shape[depth:]
    flat = found.reshape(layout.size, *inner)
    offsets = _native.offsets_from_lengths(layout.lengths)
    if np.array_equal(layout.starts, offsets[:-1]):
        return _trusted(flat, offsets)
    begins = np.maximum(layout.starts, 0)  # dropped rows are empty, and begin anywhere
    buffer = (np.ascontiguousarray(flat), begins)
    return _end_to_end(Parts([buffer], layout.lengths, flat.dtype, inner))


@overload
def concat(parts: Sequence[Ragged], *, out: AnyArray | None = None) -> Ragged: ...
@overload
def concat(parts: Sequence[Rollouts], *, out: AnyArray | None = None) -> Rollouts: ...
def concat(parts: Any, *, out: AnyArray | None = None) -> Any:
    """Join `Ragged` parts, or `Rollouts` column by column, in one pass and one allocation.

    Args:
        parts: all `Ragged` of one dtype and inner shape, or all `Rollouts` of the same columns.
        out: for `Ragged` parts, `[total, *inner]` to write the values to.

    Example:
        >>> a, b = Ragged.from_rows([[1], [2, 3]]), Ragged.from_rows([[4, 5]])
        >>> concat([a, b]).to_list()
        [[1], [2, 3], [4, 5]]
    """
    from rollkit._rollouts import Rollouts

    parts = list(parts)
    if not parts:
        raise ValueError("parts is empty; concat needs at least one part")
    if set(map(type, parts)) not in ({Ragged}, {Rollouts}):
        kinds = [type(part).__name__ for part in parts]
        odd = next(
            i for i, kind in enumerate(kinds) if kind not in ("Ragged", "Rollouts") or kind != kinds[0]
        )
        raise TypeError(f"parts must be all Ragged or all Rollouts; parts[{odd}] is {kinds[odd]}")
    if isinstance(parts[0], Ragged):
        return _end_to_end(Parts.of_ragged(parts), out)
    if out is not None:
        raise TypeError("out is for Ragged parts; Rollouts have several columns")
    return Rollouts.joined(parts)


def gather(ragged: Ragged, rows: Int64s) -> Ragged:
    """Copy rows by number; see `Ragged.take`."""
    values = np.ascontiguousarray(ragged.values)
    buffer = (values, ragged.offsets[rows])
    return _end_to_end(Parts([buffer], ragged.lengths[rows], ragged.dtype, ragged.inner))


def cast(ragged: Ragged, dtype: np.dtype[Any]) -> Ragged:
    """Cast values, checked; see `Ragged.astype`."""
    return _end_to_end(Parts.of(ragged), dtype=dtype)


def _end_to_end(parts: Parts, out: AnyArray | None = None, dtype: np.dtype[Any] | None = None) -> Ragged:
    layout = Layout.concat(parts.lengths)
    values = place_parts(parts, layout, 0, dtype=dtype, out=out)
    return _trusted(values, np.append(layout.starts, layout.size))


def _cast_by_numpy(values: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    if dtype.kind == "b" and values.dtype.kind in "iu":
        if values.size and (values.min() < 0 or values.max() > 1):
            raise OverflowError(f"cannot cast {values.dtype} to bool: there are values other than 0 and 1")
    elif values.dtype.kind not in "iub" and dtype.kind in "iub":
        raise TypeError(f"cannot cast {values.dtype} to {dtype} without loss; round it first")
    return values.astype(dtype)


def _same_rows(got: Int64s, wanted: Int64s) -> None:
    if len(got) != len(wanted):
        raise ValueError(f"the column has {len(got)} rows, the layout has {len(wanted)}")
    if not np.array_equal(got, wanted):
        row = int(np.flatnonzero(got != wanted)[0])
        raise ValueError(f"row {row} has {got[row]} elements, the layout has {wanted[row]} for it")


def _fill(fill: Any, dtype: np.dtype[Any], inner: tuple[int, ...]) -> AnyArray:
    """One element's worth of padding."""
    given = np.asarray(as_array(fill))
    try:
        value = np.broadcast_to(given.astype(dtype), inner)
    except (ValueError, TypeError) as error:
        raise type(error)(f"fill={fill!r} is no {dtype} of inner shape {inner}") from error
    if dtype.kind in "iub" and (value != given).any():
        raise OverflowError(f"fill={fill!r} does not fit {dtype}")
    return np.ascontiguousarray(value).reshape(-1)
