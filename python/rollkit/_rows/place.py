"""Rows into a buffer and back: `concat`, `place`, `take`. One kernel executes them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import DTypeLike

from rollkit import _native
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray, as_array
from rollkit._rows.layout import Layout, checked_out
from rollkit._rows.ragged import Ragged, _trusted

if TYPE_CHECKING:
    from rollkit._rollouts.rollouts import Rollouts

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
        if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__iter__"):
            raise TypeError(f"column must be a Ragged or a sequence of rows, got {type(column).__name__}")
        rows = column if isinstance(column, list | tuple) else list(column)
        if rows and isinstance(rows[0], np.ndarray):
            lengths = _native.array_lengths(rows)  # None unless all rows are arrays, and alike
            if lengths is not None:
                return cls(list(rows), lengths, rows[0].dtype, rows[0].shape[1:])
        if any(isinstance(row, Ragged) for row in rows):
            return cls.join([cls.of(part if isinstance(part, Ragged) else [part], dtype) for part in rows])
        arrays = [as_array(row) for row in rows]
        if any(array is not row for array, row in zip(arrays, rows, strict=True)):
            return cls.of(arrays, dtype)  # tensors: over the same memory
        return cls.of(Ragged.from_rows(rows, dtype))

    def spans(self, begins: Int64s, lengths: Int64s) -> Parts:
        """A part of each row: `lengths[i]` elements from its element `begins[i]` on."""
        buffers: list[AnyArray | tuple[AnyArray, Int64s]] = []
        row = 0
        for buffer in self.buffers:
            if isinstance(buffer, tuple):
                values, firsts = buffer
                buffers.append((values, firsts + begins[row : row + len(firsts)]))
                row += len(firsts)
            else:
                buffers.append(buffer[begins[row] : begins[row] + lengths[row]])
                row += 1
        return Parts(buffers, lengths, self.dtype, self.inner)

    def astype(self, dtype: np.dtype[Any]) -> Parts:
        """Parts of this dtype, so that the rows of several count through in one call of the kernel."""
        if self.dtype == dtype:
            return self
        layout = Layout.concat(self.lengths)
        values = place_parts(self, layout, 0, dtype=dtype)
        return Parts([(values, layout.starts)], self.lengths, dtype, self.inner)

    def cast_by_numpy(self, dtype: np.dtype[Any]) -> Parts:
        """Cast what the kernel cannot (float16, bfloat16, fp8, byte-swapped, to bool), by way of a copy."""
        layout = Layout.concat(self.lengths)
        values = place_parts(self, layout, 0)
        native = self.dtype.newbyteorder("=")
        if native != self.dtype and _native.can_cast(native, dtype):
            return Parts([(values.astype(native), layout.starts)], self.lengths, native, self.inner)
        values = _cast_by_numpy(values, dtype, layout.starts)
        return Parts([(values, layout.starts)], self.lengths, dtype, self.inner)

    def like(self, other: Parts) -> Parts:
        """These rows, all of which are empty, with the dtype and inner shape of others."""
        nothing = np.empty((0, *other.inner), other.dtype)
        return Parts([(nothing, np.zeros_like(self.lengths))], self.lengths, other.dtype, other.inner)

    @classmethod
    def join(cls, parts: Sequence[Parts]) -> Parts:
        """Let the rows of several columns count through."""
        # Lists without a number have neither dtype nor inner shape: they take those of the others.
        at = next((i for i, part in enumerate(parts) if part.lengths.any()), 0)
        first = parts[at]
        filled = [part if part.lengths.any() else part.like(first) for part in parts]
        for i, part in enumerate(filled):
            if part.inner != first.inner:
                raise ValueError(f"parts[{i}] has inner shape {part.inner}, parts[{at}] has {first.inner}")
            if part.dtype != first.dtype:
                raise TypeError(
                    f"parts[{i}] is {part.dtype}, parts[{at}] is {first.dtype}; cast one with .astype"
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
    if parts.dtype.hasobject:
        raise TypeError(f"the column has dtype {parts.dtype}, which holds Python objects; expected numbers")
    dtype = parts.dtype if dtype is None else dtype
    if dtype != parts.dtype and not _native.can_cast(parts.dtype, dtype):
        parts = parts.cast_by_numpy(dtype)
    shape = (*layout.shape, *parts.inner)
    element = _fill(fill, dtype, parts.inner) if layout.size else None
    zeroed = out is None and _is_new(layout.size, element)
    make = np.zeros if zeroed else np.empty
    out = make(shape, dtype) if out is None else checked_out(out, shape, dtype)
    if element is not None and out.size:
        rows = (layout.starts, layout.lengths, layout.order)
        _native.place(parts.buffers, *rows, fill=element, out=out, zeroed=zeroed)
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
def concat(parts: Sequence[Rollouts], *, out: Mapping[str, AnyArray] | None = None) -> Rollouts: ...
def concat(parts: Any, *, out: Any = None) -> Any:
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
    from rollkit._rollouts.rollouts import Rollouts

    if not hasattr(parts, "__iter__"):
        raise TypeError(f"parts must be a sequence of Ragged or Rollouts, got {type(parts).__name__}")
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
        return join_columns(parts, out)
    return Rollouts.joined(parts, out)


def join_columns(columns: Sequence[Ragged], out: Any = None) -> Ragged:
    """`concat` of `Ragged`."""
    values, offsets = [column.values for column in columns], [column.offsets for column in columns]
    if out is not None:
        rows = out.shape[:1] if isinstance(out, np.ndarray) else ()
        checked_out(out, (*rows, *columns[0].inner), columns[0].dtype)
    joined = _native.concat_columns(values, offsets, out=out)
    if joined is None:  # strided, of equal dtypes that are other objects, or refused
        parts = Parts.join([Parts.of(column) for column in columns])
        return _end_to_end(parts, out=None if out is None else out[: parts.lengths.sum()])
    return _trusted(joined[0][: joined[1][-1]], joined[1])


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


def _cast_by_numpy(values: AnyArray, dtype: np.dtype[Any], starts: Int64s) -> AnyArray:
    """Cast rows that are end to end, from `starts` on."""
    given = values.dtype
    if given.newbyteorder("=") == dtype.newbyteorder("="):
        return values.astype(dtype)
    if dtype.kind == "b" and given.kind in "iu":
        _refuse(values, (values != 0) & (values != 1), dtype, starts)
    elif dtype.kind in "iu" and given.kind in "iub":
        # A byte-swapped target: the kernel casts, and checks, to the native dtype first.
        native = cast(Ragged(values, np.append(starts, len(values))), dtype.newbyteorder("="))
        return native.values.astype(dtype)
    elif not _is_number(given) or not _is_number(dtype):
        raise TypeError(f"cannot cast {given} to {dtype}: only numbers are cast")
    elif given.kind == "c" and dtype.kind != "c":
        raise TypeError(
            f"cannot cast {given} to {dtype} without loss; take its real part or its magnitude first"
        )
    elif given.kind not in "iub" and dtype.kind in "iub":
        raise TypeError(f"cannot cast {given} to {dtype} without loss; round it first")
    with np.errstate(over="ignore", invalid="ignore"):
        found: AnyArray = values.astype(dtype)
    if given.kind in "iu" and dtype.kind in "fV":
        _refuse(values, ~np.isfinite(found), dtype, starts)
    return found


def _refuse(values: AnyArray, odd: AnyArray, dtype: np.dtype[Any], starts: Int64s) -> None:
    """Name the first value that does not fit, by row and position."""
    if odd.any():
        at = int(odd.reshape(len(odd), -1).any(axis=1).argmax())
        row = int(np.searchsorted(starts, at, side="right")) - 1
        value = np.atleast_1d(values[at])[np.atleast_1d(odd[at])][0]
        raise OverflowError(f"row {row}, position {at - starts[row]}: {value} does not fit {dtype}")


def _is_number(dtype: np.dtype[Any]) -> bool:
    # bfloat16 and fp8 have kind V, as structured dtypes and raw bytes have, but a type of their own.
    return dtype.kind in "biufc" or (dtype.kind == "V" and not issubclass(dtype.type, np.void))


def _is_new(elements: int, element: AnyArray | None) -> bool:
    """Whether zeros are to be had for less than it takes to write them: new memory is zero.

    Up to 32 MB an allocator may hand out memory that has been used, which it would have to clear.
    """
    return element is not None and elements * element.nbytes > 1 << 25 and not element.view(np.uint8).any()


def _same_rows(got: Int64s, wanted: Int64s) -> None:
    if len(got) != len(wanted):
        raise ValueError(f"the column has {len(got)} rows, the layout has {len(wanted)}")
    if not np.array_equal(got, wanted):
        row = int(np.flatnonzero(got != wanted)[0])
        raise ValueError(f"row {row} has {got[row]} elements, the layout has {wanted[row]} for it")


def _fill(fill: Any, dtype: np.dtype[Any], inner: tuple[int, ...]) -> AnyArray:
    """One element's worth of padding."""
    given = np.asarray(as_array(fill))
    if given.dtype.kind in "biu" and not given.any() and not _is_number(dtype):
        given = np.zeros(given.shape, dtype)  # not the text "0"
    shown = f"fill={fill!r}" if given.ndim == 0 else f"fill of shape {given.shape}"
    try:
        if _is_number(dtype) and (not _is_number(given.dtype) or given.dtype.kind == "c" != dtype.kind):
            raise TypeError
        with np.errstate(invalid="ignore", over="ignore"):
            value = np.broadcast_to(given.astype(dtype), inner)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{shown} is no {dtype} of inner shape {inner}") from None
    lost = value != given if dtype.kind in "iub" else dtype.kind == "f" and np.isinf(value) & ~np.isinf(given)
    if np.any(lost):
        raise OverflowError(f"{shown} does not fit {dtype}")
    return np.ascontiguousarray(value).reshape(-1)
