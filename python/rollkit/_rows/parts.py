"""Rows as a layout moves them: `Parts`, and what places them. Knows arrays and layouts, and no columns.

Of plain host memory Rust moves bytes. Arrays on a device, with a gradient, or traced are gathered and
scattered by their own framework, so that nothing of these is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Final

import numpy as np

from rollkit import _native
from rollkit._arrays.ops import Ops, ops
from rollkit._check import Int64s, checked_out, host, same_ints
from rollkit._errors import Unfit, refusal
from rollkit._frameworks import AnyArray, as_array, dtype_name, framework_of
from rollkit._rows.dtypes import common, numpy_dtype, odd_one
from rollkit._rows.laid import Laid
from rollkit._rows.layout import ABSENT, Layout
from rollkit._rows.lists import OF_ANY_LENGTH, Lists, host_offsets, is_plain, rows_of_lists
from rollkit._rows.ways import took

Buffer = AnyArray | tuple[Any, Int64s]
"""An array that is one row, or an array (or lists) and where in it rows begin."""

LONG: Final = 4096
"""Rows of as many elements on average are not joined first: copying them twice takes the time then."""

_ONE_ROW = np.zeros(1, np.int64)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Parts:
    """Rows in buffers, counted through: what one call of the kernel moves.

    Attributes:
        buffers: arrays of one dtype and inner shape: NumPy's, or of a framework that moves its own.
        lengths: `[rows]` int64, the elements of each row.
        dtype: of the elements, the framework's.
        inner: the shape of an element; -1 first where each element is a list (`Lists`).
        own: the operations of the framework that moves these rows itself; None where Rust does.
    """

    buffers: list[Buffer]
    lengths: Int64s
    dtype: Any
    inner: tuple[int, ...]
    own: Ops | None = None

    @classmethod
    def over(cls, values: Any, begins: Int64s, lengths: Int64s) -> Parts:
        """Rows of one array: `lengths[i]` elements from element `begins[i]` on."""
        if isinstance(values, Lists):
            inner = (OF_ANY_LENGTH, *values.values.shape[1:])
            return cls([(values, begins)], lengths, values.dtype, inner)
        own = own_ops(values)
        if own is None:
            values = as_array(values)
            if not values.flags.c_contiguous:
                values = np.ascontiguousarray(values)
        return cls([(values, begins)], lengths, values.dtype, tuple(values.shape[1:]), own)

    @classmethod
    def of_one(cls, value: int, lengths: Int64s) -> Parts:
        """Rows of one uint8: all of one array, which is as long as the longest."""
        values = np.full(int(lengths.max(initial=0)), value, np.uint8)
        return cls.over(values, np.zeros_like(lengths), lengths)

    @property
    def of_lists(self) -> bool:
        """Whether each element is a list."""
        return self.inner[:1] == (OF_ANY_LENGTH,)

    @classmethod
    def one_each(cls, values: Any) -> Parts:
        """Rows of one element."""
        count = len(values)
        return cls.over(values, np.arange(count), np.ones(count, np.int64))

    @classmethod
    def of_arrays(cls, rows: Sequence[Any]) -> Parts | None:
        """Rows that are arrays, each its own buffer; None unless all are, and alike."""
        if not rows:
            return None
        if type(rows[0]) is np.ndarray:
            lengths = _native.array_lengths(rows)  # type: ignore[arg-type]
            if lengths is not None:
                return cls(list(rows), lengths, rows[0].dtype, rows[0].shape[1:])
        framework = framework_of(rows[0])
        if framework is None or framework == "numpy":
            return None
        return cls._of_tensors(ops(framework), rows)

    @classmethod
    def _of_tensors(cls, own: Ops, rows: Sequence[Any]) -> Parts | None:
        """Rows that are arrays of a framework: short ones joined by it, long ones each its own buffer."""
        if {type(row) for row in rows} != {type(rows[0])}:
            return None
        lengths = _lengths(rows)
        if int(lengths.sum()) > LONG * len(rows) and all(map(own.is_plain, rows)):
            return cls.of_arrays([own.memory(row) for row in rows])
        values = _together(own, rows)
        if values is None:
            return None
        offsets = _native.offsets_from_lengths(lengths)
        return cls.over(own.memory(values) if own.is_plain(values) else values, offsets[:-1], lengths)

    def spans(self, begins: Int64s, lengths: Int64s) -> Parts:
        """A part of each row: `lengths[i]` elements from its element `begins[i]` on."""
        buffers: list[Buffer] = []
        row = 0
        for buffer in self.buffers:
            if isinstance(buffer, tuple):
                values, firsts = buffer
                buffers.append((values, firsts + begins[row : row + len(firsts)]))
                row += len(firsts)
            else:
                buffers.append(buffer[begins[row] : begins[row] + lengths[row]])
                row += 1
        return Parts(buffers, lengths, self.dtype, self.inner, self.own)

    def pick(self, rows: Int64s) -> Parts:
        """Some of these rows, which all are of one array."""
        ((values, begins),) = self.buffers
        return Parts([(values, begins[rows])], self.lengths[rows], self.dtype, self.inner, self.own)

    def in_one(self) -> Parts:
        """Rows that all are of one array: these, or a copy."""
        if len(self.buffers) == 1 and isinstance(self.buffers[0], tuple):
            return self
        values, offsets = end_to_end(self)
        return Parts.over(values, offsets[:-1], self.lengths)

    def astype(self, dtype: Any) -> Parts:
        """Parts of this dtype, so that the rows of several count through in one call of the kernel."""
        if self.dtype == dtype:
            return self
        layout = Layout.concat(self.lengths)
        return Parts.over(place_parts(self, layout, 0, dtype=dtype), layout.starts, self.lengths)

    def like(self, other: Parts) -> Parts:
        """These rows, all of which are empty, with the dtype and inner shape of others."""
        values, _ = _first_buffer(other)
        none = values.part(0, 0) if isinstance(values, Lists) else values[:0]
        return Parts.over(none, np.zeros_like(self.lengths), self.lengths)

    @classmethod
    def join(cls, parts: Sequence[Parts], names: Sequence[str] = ()) -> Parts:
        """Let the rows of several parts count through, in the dtype that all meet in (`common`).

        Args:
            parts: of one inner shape.
            names: what refusals call them; `parts[0]` and so on unless given.
        """
        if len(parts) == 1:
            return parts[0]
        # Lists without a number have neither dtype nor inner shape: they take those of the others.
        at = next((i for i, part in enumerate(parts) if part.lengths.any()), 0)
        first = parts[at]
        filled = [part if part.lengths.any() else part.like(first) for part in parts]
        called = names or [f"parts[{i}]" for i in range(len(parts))]
        for name, part in zip(called, filled, strict=True):
            if part.of_lists != first.of_lists:
                kinds = ["numbers", "a list for each element"]
                text = f"{name} has {kinds[part.of_lists]}, {called[at]} {kinds[first.of_lists]}"
                raise ValueError(text)
            if part.inner != first.inner:
                raise ValueError(f"{name} has inner shape {part.inner}, {called[at]} has {first.inner}")
            if part.own is not first.own:
                raise TypeError(f"{name} and {called[at]} are of two frameworks, or of a device and the host")
        dtype = _common_of(called, [part.dtype for part in filled])
        filled = [part.astype(dtype) for part in filled]
        return cls(
            [buffer for part in filled for buffer in part.buffers],
            np.concatenate([part.lengths for part in filled]),
            filled[at].dtype,
            first.inner,
            first.own,
        )


def _lengths(rows: Sequence[Any]) -> Int64s:
    try:
        return np.array([row.shape[0] for row in rows], np.int64)
    except IndexError:
        flat = next(i for i, row in enumerate(rows) if not row.ndim)
        raise ValueError(f"row {flat} is a 0-D array; a row has at least one dimension") from None


def _together(own: Ops, rows: Sequence[Any]) -> Any:
    """Rows in one array; None if they are plain, but unlike: then they are cast as rows of NumPy's are."""
    dtypes = {row.dtype for row in rows}
    if len(dtypes) > 1:
        if all(map(own.is_plain, rows)):
            return None
        wanted = numpy_dtype(common([row.dtype for row in rows if len(row)] or dtypes))
        rows = [own.cast(row, wanted) if len(row) else _empty(own, row, wanted) for row in rows]
    try:
        return own.cat(rows)
    except (RuntimeError, TypeError, ValueError):
        odd = _odd_row(rows)
        if odd is None:
            _check_device(own, rows)
            raise
    if all(map(own.is_plain, rows)):
        return None
    raise ValueError(
        f"row {odd} is {dtype_name(rows[odd])} of inner shape {tuple(rows[odd].shape[1:])}, "
        f"row 0 is {dtype_name(rows[0])} of {tuple(rows[0].shape[1:])}"
    )


def _empty(own: Ops, row: Any, dtype: Any) -> Any:
    """A row of no elements in a dtype that its own may not be cast to."""
    return own.from_host(np.empty(tuple(row.shape), dtype), row)


def _common_of(names: Sequence[str], dtypes: Sequence[Any]) -> Any:
    """`common`, whose refusal names the first that does not meet those before it."""
    try:
        return common(dtypes)
    except TypeError as error:
        i = odd_one(dtypes)
        raise TypeError(f"{names[i]} is {dtypes[i]}, {names[0]} is {dtypes[0]}: {error}") from None


def _check_device(own: Ops, arrays: Sequence[Any]) -> None:
    """Refuse arrays of several devices."""
    first = own.device(arrays[0])
    for array in arrays:
        if own.device(array) != first:
            raise TypeError(f"rows are on {first} and on {own.device(array)}; move all to one device")


def _odd_row(rows: Sequence[Any]) -> int | None:
    """The first row of another dtype or inner shape than row 0."""
    first = rows[0]
    unlike = (i for i, row in enumerate(rows) if row.dtype != first.dtype or row.shape[1:] != first.shape[1:])
    return next(unlike, None)


def own_ops(values: Any) -> Ops | None:
    """The operations of the framework that must move an array itself; None where Rust may."""
    framework = framework_of(values)
    if framework is None or framework == "numpy":
        return None
    own = ops(framework)
    if own.is_plain(values):
        return None
    own.check_dense(values)
    return own


def gathered(values: Any, begins: Int64s, lengths: Int64s, *, copy: bool) -> tuple[Any, Int64s]:
    """Rows of one array, end to end: values and offsets; without `copy` the array itself where they are."""
    if isinstance(values, Lists):
        return rows_of_lists(values, begins, lengths, copy=copy)
    if type(values) is np.ndarray and not values.dtype.hasobject:
        return _native.gather_rows(np.ascontiguousarray(values), begins, lengths, copy=copy)
    return end_to_end(Parts.over(values, begins, lengths))


def place_parts(
    parts: Parts, layout: Layout, fill: Any, *, dtype: Any = None, out: AnyArray | None = None
) -> Any:
    """Write each row where `layout` puts it, and `fill` elsewhere; see `rollkit.place`."""
    same_rows(parts.lengths, layout.row_lengths)
    if parts.of_lists:
        if out is not None or np.ndim(fill) or fill:
            raise TypeError("lists take no out and no fill: where there is no element the list is empty")
        return _placed_lists(parts, layout, dtype)
    if parts.own is not None:
        took("framework")
        return _placed_by(parts.own, parts, layout, fill, dtype, out)
    took("rust")
    wanted = parts.dtype if dtype is None else numpy_dtype(dtype)
    parts = castable(parts, wanted)
    shape = (*layout.shape, *parts.inner)
    element = fill_element(fill, wanted, parts.inner) if layout.size else None
    zeroed = out is None and is_new(layout.size, element)
    make = np.zeros if zeroed else np.empty
    out = make(shape, wanted) if out is None else checked_out(out, shape, wanted)
    if element is not None and out.size:
        _native.place(parts.buffers, *layout.slots, fill=element, out=out, zeroed=zeroed, **layout.pieces)
    return out


def end_to_end(parts: Parts, *, dtype: Any = None, out: AnyArray | None = None) -> tuple[Any, Int64s]:
    """All rows in one array: values and offsets."""
    layout = Layout.concat(parts.lengths)
    return place_parts(parts, layout, 0, dtype=dtype, out=out), layout.offsets()


def _placed_lists(parts: Parts, layout: Layout, dtype: Any) -> Lists:
    """The lists of all positions of the output, in memory order; empty where there is no element."""
    buffers = [buffer for buffer in parts.buffers if isinstance(buffer, tuple)]
    bounds = [host_offsets(lists) for lists, _ in buffers]
    sizes: list[Buffer] = [
        (found[1:] - found[:-1], begins) for found, (_, begins) in zip(bounds, buffers, strict=True)
    ]
    counts = Parts(sizes, parts.lengths, np.dtype(np.int64), ())
    offsets = _native.offsets_from_lengths(place_parts(counts, layout, 0).reshape(-1))

    pieces = np.arange(len(layout.starts)) if layout.order is None else layout.order
    pieces = pieces[(layout.starts[pieces] != ABSENT) & (layout.lengths[pieces] > 0)]
    rows, begins = (found[pieces] for found in layout.pieces_of_rows())
    ends = np.cumsum([len(firsts) for _, firsts in buffers])
    of_buffer = np.searchsorted(ends, rows, side="right")
    grouped = np.argsort(of_buffer, kind="stable")
    spans: list[Buffer] = []
    lengths = np.zeros(len(pieces), np.int64)
    for i, (found, (lists, firsts)) in enumerate(zip(bounds, buffers, strict=True)):
        mine = grouped[of_buffer[grouped] == i]
        at = firsts[rows[mine] - (ends[i] - len(firsts))] + begins[mine]
        lengths[mine] = found[at + layout.lengths[pieces[mine]]] - found[at]
        spans.append((_values(lists), found[at]))
    if len(spans) == 1 and dtype in (None, parts.dtype):  # one after the other: no gap to fill
        return Lists(gathered(spans[0][0], spans[0][1], lengths, copy=True)[0], offsets)
    where = _native.offsets_from_lengths(lengths)
    order = np.argsort(grouped) if len(spans) > 1 else None
    flat = Layout._trusted((int(where[-1]),), where[:-1][grouped], lengths[grouped], lengths[grouped], order)
    entries = Parts(spans, lengths[grouped], parts.dtype, parts.inner[1:])
    return Lists(place_parts(entries, flat, 0, dtype=dtype), offsets)


def _values(lists: Lists) -> AnyArray:
    """The values of lists, for Rust."""
    if not is_plain(lists):
        raise TypeError("lists per token are packed on the host; move their values there first (.cpu())")
    return np.ascontiguousarray(as_array(lists.values))


def taken(array: Any, layout: Laid) -> tuple[Any, Int64s]:
    """Rows of a buffer that `layout` describes, end to end: values and offsets; see `rollkit.take`."""
    if isinstance(array, Lists):
        if len(array.offsets) - 1 != layout.size:
            raise ValueError(f"array has {len(array.offsets) - 1} lists, the layout has {layout.size} places")
        begins, lengths = layout.reads()
        return rows_of_lists(array, begins, lengths, copy=False)[0], layout.row_offsets()
    framework = framework_of(array)
    if framework is None:
        raise TypeError(f"array must be an array of NumPy, torch or JAX, got {type(array).__name__}")
    own = own_ops(array)
    found = array if own is not None else as_array(array)
    depth = len(layout.shape)
    if tuple(found.shape[:depth]) != layout.shape:
        raise ValueError(f"array must have shape {layout.shape} (and inner dims), got {tuple(found.shape)}")
    flat = found.reshape(layout.size, *found.shape[depth:])
    if own is not None:
        took("framework")
        ends = layout.row_offsets()
        if not layout.is_end_to_end():
            return own.gather(flat, layout.indices(own, flat)), ends
        return (flat if layout.size == ends[-1] else flat[: ends[-1]]), ends
    took("rust")
    begins, lengths = layout.reads()
    values, ends = gathered(flat, begins, lengths, copy=False)
    return values, layout.row_offsets(ends)


def _placed_by(own: Ops, parts: Parts, layout: Layout, fill: Any, dtype: Any, out: Any) -> Any:
    """Place by a framework's own scatter, through which gradients and traces go."""
    if out is not None:
        raise TypeError("out is for arrays in the host's memory; leave it out for tensors that are not")
    values, begins = _first_buffer(parts) if len(parts.buffers) == 1 else _joined(own, parts)
    index = layout.source_indices(begins)
    if index is not None:
        values = own.gather(values, own.from_host(index, values))
    elif len(values) != layout.num_placed:
        values = values[: layout.num_placed]
    if dtype is not None:  # of what is placed only: a slice may leave out what does not fit
        values = _cast(own, values, dtype, layout)
    if index is not None and layout.num_placed == layout.size and layout.is_end_to_end():
        return values.reshape(*layout.shape, *parts.inner)  # these are the output, and no other's memory
    element = _fill_by(own, fill, values)
    placed = own.scatter(layout.size, element, values, layout.indices(own, values))
    return placed.reshape(*layout.shape, *parts.inner)


def _cast(own: Ops, values: Any, dtype: Any, layout: Layout) -> Any:
    """Cast what `layout` places, in the order of its indices."""
    try:
        return own.cast(values, dtype)
    except Unfit as error:
        row, position = layout.row_position(error.index)
        raise refusal(OverflowError, f": {error}", row=row, position=position) from None


def _fill_by(own: Ops, fill: Any, values: Any) -> Any:
    """One element's worth of padding, where `values` are; a fill that is like them stays there."""
    framework, inner = framework_of(fill), tuple(values.shape[1:])
    if framework == framework_of(values) and fill.dtype == values.dtype and tuple(fill.shape) in ((), inner):
        return fill
    if framework not in (None, "numpy"):
        fill = as_array(fill)
    return own.from_host(fill_element(fill, own.dtype_of(values), inner).reshape(inner), values)


def _first_buffer(parts: Parts) -> tuple[Any, Int64s]:
    buffer = parts.buffers[0]
    return buffer if isinstance(buffer, tuple) else (buffer, _ONE_ROW)


def _joined(own: Ops, parts: Parts) -> tuple[Any, Int64s]:
    """One array of all buffers, and where in it each row begins."""
    arrays: list[Any] = []
    begins: list[Int64s] = []
    before = 0
    for buffer in parts.buffers:
        values, firsts = buffer if isinstance(buffer, tuple) else (buffer, _ONE_ROW)
        arrays.append(values)
        begins.append(firsts + before)
        before += len(values)
    _check_device(own, arrays)
    return own.cat(arrays), np.concatenate(begins)


def castable(parts: Parts, dtype: np.dtype[Any]) -> Parts:
    """Parts that the kernel casts to `dtype`: these, or a copy (16-bit floats, fp8, byte-swapped, bool)."""
    if parts.dtype.hasobject:
        raise TypeError(f"the column has dtype {parts.dtype}, which holds Python objects; expected numbers")
    if parts.dtype is dtype or parts.dtype == dtype or _native.can_cast(parts.dtype, dtype):
        return parts
    values, offsets = end_to_end(parts)
    native = parts.dtype.newbyteorder("=")
    if native != parts.dtype and _native.can_cast(native, dtype):
        return Parts.over(values.astype(native), offsets[:-1], parts.lengths)
    return Parts.over(_cast_by_numpy(values, dtype, offsets[:-1]), offsets[:-1], parts.lengths)


def _cast_by_numpy(values: AnyArray, dtype: np.dtype[Any], starts: Int64s) -> AnyArray:
    """Cast rows that are end to end, from `starts` on."""
    given = values.dtype
    if given.newbyteorder("=") == dtype.newbyteorder("="):
        return values.astype(dtype)
    if dtype.kind == "b" and given.kind in "iu":
        _refuse(values, (values != 0) & (values != 1), dtype, starts)
    elif dtype.kind in "iu" and given.kind in "iub":
        # A byte-swapped target: the kernel casts, and checks, to the native dtype first.
        lengths = np.diff(np.append(starts, len(values)))
        native, _ = end_to_end(Parts.over(values, starts, lengths), dtype=dtype.newbyteorder("="))
        swapped: AnyArray = native.astype(dtype)
        return swapped
    elif not _is_number(given) or not _is_number(dtype):
        raise TypeError(f"cannot cast {given} to {dtype}: only numbers are cast")
    elif given.kind == "c" and dtype.kind != "c":
        raise TypeError(
            f"cannot cast {given} to {dtype} without loss; take its real part or its magnitude first"
        )
    elif given.kind not in "iub" and dtype.kind in "iub" and len(values):
        row = int(np.searchsorted(starts, 0, side="right")) - 1
        text = f": cannot cast {given} to {dtype} without loss; round it first"
        raise refusal(TypeError, text, row=row)
    with np.errstate(over="ignore", invalid="ignore"):
        found: AnyArray = values.astype(dtype)
    _refuse(values, _lost(values, found), dtype, starts)
    return found


def _lost(given: AnyArray, found: AnyArray) -> AnyArray:
    """Which numbers have become infinite or NaN by a cast, and were not."""
    if found.dtype.kind == "c":
        return _lost(given.real, found.real) | _lost(given.imag, found.imag)
    if found.dtype.kind not in "fV":
        return np.zeros(found.shape, bool)
    lost: AnyArray = (np.isinf(found) != np.isinf(given)) | (np.isnan(found) != np.isnan(given))
    return lost


def _refuse(values: AnyArray, odd: AnyArray, dtype: np.dtype[Any], starts: Int64s) -> None:
    """Name the first value that does not fit, by row and position."""
    if odd.any():
        at = int(odd.reshape(len(odd), -1).any(axis=1).argmax())
        row = int(np.searchsorted(starts, at, side="right")) - 1
        value = np.atleast_1d(values[at])[np.atleast_1d(odd[at])][0]
        raise refusal(OverflowError, f": {value} does not fit {dtype}", row=row, position=at - starts[row])


def _is_number(dtype: np.dtype[Any]) -> bool:
    # bfloat16 and fp8 have kind V, as structured dtypes and raw bytes have, but a type of their own.
    return dtype.kind in "biufc" or (dtype.kind == "V" and not issubclass(dtype.type, np.void))


def is_new(elements: int, element: AnyArray | None) -> bool:
    """Whether zeros are to be had for less than it takes to write them: new memory is zero.

    Up to 32 MB an allocator may hand out memory that has been used, which it would have to clear.
    """
    return element is not None and elements * element.nbytes > 1 << 25 and not element.view(np.uint8).any()


def same_rows(got: Int64s, wanted: Int64s) -> None:
    """Refuse rows of other lengths than a layout has for them."""
    if len(got) != len(wanted):
        raise ValueError(f"the column has {len(got)} rows, the layout has {len(wanted)}")
    if not same_ints(got, wanted):
        row = int(np.flatnonzero(got != wanted)[0])
        raise ValueError(f"row {row} has {got[row]} elements, the layout has {wanted[row]} for it")


@lru_cache(maxsize=64)
def _zero(dtype: np.dtype[Any], inner: tuple[int, ...]) -> AnyArray:
    element = np.zeros(prod(inner), dtype)
    element.flags.writeable = False
    return element


def fill_element(fill: Any, dtype: np.dtype[Any], inner: tuple[int, ...]) -> AnyArray:
    """One element's worth of padding."""
    if type(fill) is int and fill == 0 and dtype.kind in "biuf":
        return _zero(dtype, inner)
    return _run(fill, dtype, inner) if type(fill) is range else _element(fill, dtype, inner)


@lru_cache(maxsize=64)
def _run(fill: range, dtype: np.dtype[Any], inner: tuple[int, ...]) -> AnyArray:
    element = _element(np.array(fill), dtype, inner)
    element.flags.writeable = False
    return element


def _element(fill: Any, dtype: np.dtype[Any], inner: tuple[int, ...]) -> AnyArray:
    given = host("fill", fill)
    if given.size > max(prod(inner), 1):  # found before any of it is looked at
        raise ValueError(f"{_shown(fill, given)} is no {dtype} of inner shape {inner}")
    if given.dtype.kind in "biu" and not given.any() and not _is_number(dtype):
        given = np.zeros(given.shape, dtype)  # not the text "0"
    try:
        if _is_number(dtype) and (not _is_number(given.dtype) or given.dtype.kind == "c" != dtype.kind):
            raise TypeError
        with np.errstate(invalid="ignore", over="ignore"):
            value = np.broadcast_to(given.astype(dtype), inner)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{_shown(fill, given)} is no {dtype} of inner shape {inner}") from None
    if dtype.kind in "iub":
        lost = value != given
    else:
        lost = _lost(given, value) if _is_number(dtype) else np.zeros((), bool)
    if lost.any():
        raise OverflowError(f"{_shown(fill, given)} does not fit {dtype}")
    return np.ascontiguousarray(value).reshape(-1)


def _shown(fill: Any, given: AnyArray) -> str:
    return f"fill={fill!r}" if given.ndim == 0 else f"fill of shape {given.shape}"
