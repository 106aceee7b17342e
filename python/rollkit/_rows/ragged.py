"""Rows of different lengths in one flat array: `Ragged`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rollkit import _check, _native
from rollkit._arrays.ops import ops_of
from rollkit._check import Int64s, checked_out, int64s
from rollkit._frameworks import AnyArray, as_array, framework_of, is_array, is_traced
from rollkit._rows.casts import cast as cast_rows
from rollkit._rows.dtypes import common
from rollkit._rows.equal import same_values as same_values
from rollkit._rows.from_rows import joined_lists, joined_rows, picked_rows
from rollkit._rows.indices import row_indices as row_indices
from rollkit._rows.layout import Layout
from rollkit._rows.lists import OF_ANY_LENGTH, Lists, of_element
from rollkit._rows.parts import Parts, end_to_end, gathered, own_ops, place_parts
from rollkit._rows.pickled import shipped as shipped
from rollkit._rows.reductions import row_maxima, row_means, row_sums


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Ragged:
    """Rows of different lengths: row `i` is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: `[N, *inner]`, any dtype; every row's elements, end to end. A `Ragged` again where each
            element is a list. NumPy's, or an array of torch or JAX that is on a device, has a gradient, or is
            traced: then lengths, slices, `take`, `astype` and `concat` stay with it, and `equals` and
            `to_arrow` refuse it.
        offsets: `[rows + 1]` int64, never falling. They need not start at 0 nor end at N: a slice of
            rows is a view, with the same values and fewer offsets (as in Arrow).

    Example:
        >>> import numpy as np
        >>> rows = Ragged(np.arange(5), np.array([0, 3, 3, 5]))
        >>> rows
        Ragged(3 rows, 5 values, int64, mean length 1.7)
        >>> rows[0], rows[1]
        (array([0, 1, 2]), array([], dtype=int64))
        >>> rows[1:].to_list()
        [[], [3, 4]]
    """

    values: AnyArray
    offsets: Int64s

    def __post_init__(self) -> None:
        if isinstance(self.values, Ragged):
            offsets = int64s("offsets", self.offsets)
            _check_offsets(offsets, len(self.values))
            object.__setattr__(self, "offsets", offsets)
            return
        values = self.values if own_ops(self.values) is not None else as_array(self.values)
        if not is_array(values) or values.ndim == 0:
            got = "a 0-D array" if is_array(values) else type(values).__name__
            raise TypeError(
                f"values must be an array of at least one dimension, got {got}; Ragged.from_rows takes lists"
            )
        offsets = int64s("offsets", self.offsets)
        _check_offsets(offsets, len(values))
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "offsets", offsets)

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Any] | AnyArray | Ragged,
        dtype: DTypeLike | None = None,
        *,
        lists: bool = False,
        item: int | str | None = None,
    ) -> Ragged:
        """Join rows into one array, in one write.

        Args:
            rows: lists or tuples of numbers (nested for inner dimensions), NumPy arrays, CPU tensors,
                or a mix. Arrays keep their dtype; ints become int64, bools
                bool, and floats, or ints with floats among them, float64. Where arrays differ,
                integers widen, and integers and floats meet in a float, whatever comes first;
                numbers of lists take the dtype of the arrays where they fit it.
            dtype: the dtype of the values; ints that do not fit it are an error, and so are floats for
                an integer dtype.
            lists: each element is a list of its own length, whatever these happen to be (such as the token
                ids that survived top-p): the values are a `Ragged` again, with a row per element.
            item: which number of each element is meant, where elements are more than numbers: an int is the
                entry of a tuple or list, a str the value of a dict or an attribute. Rows are lists or
                tuples then.

        Raises:
            OverflowError: a number does not fit the dtype; the message names row and position.
            TypeError: something is no number, or a float in an integer column, or has no such entry or
                attribute, likewise.
            ValueError: rows differ in inner shape; a tuple is shorter, or a dict has no such key.

        Example:
            >>> Ragged.from_rows([[1, 2, 3], [], [4]], np.int32)
            Ragged(3 rows, 4 values, int32, mean length 1.3)
            >>> Ragged.from_rows([[1, 2], [300]], np.uint8)
            Traceback (most recent call last):
            OverflowError: row 1, position 0: 300 does not fit uint8
            >>> Ragged.from_rows([[[5, 9], [6]], [[7]]], lists=True)
            Ragged(2 rows, 3 lists of 4 values, int64, mean length 1.5)
            >>> Ragged.from_rows([[(-0.5, 7), (-0.25, 9)], []], np.float32, item=0).to_list()
            [[-0.5, -0.25], []]
        """
        if _check.flag("lists", lists) and item is not None:
            raise TypeError("give lists or item, not both: an item of an element is a number")
        if item is not None:
            return trusted(*picked_rows(rows, dtype, item))
        if getattr(rows, "is_nested", False) and not lists:
            rows = cast(Any, rows_of_jagged(rows))
        if isinstance(rows, Ragged):
            found = as_lists(rows) if lists else rows
            return found if dtype is None else found.astype(dtype)
        return trusted(*(joined_lists if lists else joined_rows)(rows, dtype))

    @classmethod
    def laid(cls, parts: Parts, layout: Layout, firsts: Int64s | None = None) -> Ragged:
        """Place parts in a flat layout whose pieces are the rows, or of which `firsts` begin the rows."""
        bounds = layout.offsets()
        if firsts is not None:
            bounds = bounds[np.append(firsts, -1)]
        return trusted(place_parts(parts, layout, 0), bounds)

    @classmethod
    def joined(cls, parts: Sequence[Ragged], out: Any = None, called: Sequence[str] = ()) -> Ragged:
        """See `rollkit.concat`; `called` is what refusals call the parts."""
        values, offsets = [part.values for part in parts], [part.offsets for part in parts]
        on_host = all(type(array) is np.ndarray for array in values)
        if out is not None and on_host:
            rows = out.shape[:1] if isinstance(out, np.ndarray) else ()
            some = [part for part in parts if len(part.flat)] or parts
            checked_out(out, (*rows, *some[0].inner), common(part.dtype for part in some))
        found = _native.concat_columns(values, offsets, out=out) if on_host else None
        if found is None:  # strided, of equal dtypes that are other objects, on a device, or refused
            rows_of = Parts.join([part.parts() for part in parts], called)
            if isinstance(out, np.ndarray):
                out = out[: rows_of.lengths.sum()]
            return trusted(*end_to_end(rows_of, out=out))
        return trusted(found[0] if out is None else found[0][: found[1][-1]], found[1])

    def parts(self) -> Parts:
        """Name the buffer of these rows, for the kernel."""
        return Parts.over(self._held, self.offsets[:-1], self.lengths)

    @property
    def _held(self) -> Any:
        """The values as they are in a buffer: `Lists` of a list per element."""
        values: Any = self.values
        return Lists(values.values, values.offsets) if isinstance(values, Ragged) else values

    @classmethod
    def from_arrow(cls, array: Any, *, lists: bool = False) -> Ragged:
        """View an array of lists of anything that speaks Arrow's C interface.

        Lists of any kind are read (`list`, `large_list`, `list_view`, `fixed_size_list`; nested for inner
        dimensions, which must be rectangular). Slices are honoured and nothing is copied, but for chunks,
        which are joined, and views that are not end to end.

        Args:
            array: of pyarrow, polars, arro3, nanoarrow or others.
            lists: each element is a list of its own length; see `from_rows`.

        Raises:
            ValueError: a row or a value is null; the message names the row.
            TypeError: not a list array of numbers.

        Example:
            >>> import pyarrow as pa
            >>> Ragged.from_arrow(pa.array([[1, 2], [3]])).to_list()
            [[1, 2], [3]]
        """
        from rollkit._rows.arrow import rows_from_arrow

        return of_values(*rows_from_arrow(array, _check.flag("lists", lists)))

    def to_arrow(self) -> Any:
        """Return a `pyarrow` `large_list` array over the same memory; inner dims become fixed-size lists.

        Example:
            >>> Ragged.from_rows([[1, 2], [3]], np.int32).to_arrow().type
            LargeListType(large_list<item: int32>)
        """
        from rollkit._extras import extra

        return extra("pyarrow", "arrow").array(self)

    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[Any, Any]:
        """The capsules of Arrow's C interface: a `large_list` over the same memory.

        A `list` is made where `requested_schema` asks for one; its offsets, of int32, are copied.

        Raises:
            OverflowError: more elements than int32 offsets count.
            TypeError: of a dtype that Arrow has none like.
        """
        from rollkit import _native
        from rollkit._rows.arrow import asked_for, exported

        large = True if requested_schema is None else dict(asked_for(requested_schema)).get(None, True)
        return _native.export_array(exported(self._host_parts("to_arrow"), self.offsets, large))

    def __arrow_c_schema__(self) -> Any:
        """The capsule of the type that `__arrow_c_array__` exports."""
        return self[:0].__arrow_c_array__()[0]

    def _host_parts(self, method: str) -> Any:
        """The values for what reads them on the host, `Lists` of a list per element."""
        held = self._held
        return held if isinstance(held, Lists) else self._host(method)

    @property
    def lengths(self) -> Int64s:
        """`[rows]` int64: the number of elements of each row."""
        return self.offsets[1:] - self.offsets[:-1]  # a quarter of the time of np.diff

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values; the framework's, where they are not NumPy's."""
        return self.values.dtype

    @property
    def inner(self) -> tuple[int, ...]:
        """The shape of one element: `values.shape[1:]`; -1 first where each is a list of its own length."""
        values: Any = self.values
        if isinstance(values, Ragged):
            return OF_ANY_LENGTH, *values.inner
        return tuple(values.shape[1:])

    @property
    def of_lists(self) -> bool:
        """Whether each element is a list of its own length."""
        return isinstance(self.values, Ragged)

    @property
    def flat(self) -> AnyArray:
        """The elements of these rows alone: a view of `values` without what a slice leaves out."""
        return self.values[self.offsets[0] : self.offsets[-1]]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[AnyArray]:
        bounds = self.offsets.tolist()
        return (self.values[a:b] for a, b in pairwise(bounds))

    @overload
    def __getitem__(self, index: int) -> AnyArray: ...
    @overload
    def __getitem__(self, index: slice) -> Ragged: ...
    def __getitem__(self, index: int | slice) -> AnyArray | Ragged:
        """Row `index` as a view, or a slice of rows (a view too, unless it has a step)."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            return trusted(self.values, self.offsets[start : max(start, stop) + 1])
        try:
            row = range(len(self))[index]
        except TypeError:
            raise TypeError(
                f"rows are indexed by int or slice, got {type(index).__name__}; use .take(indices)"
            ) from None
        except IndexError:
            raise IndexError(f"row {index} is out of range: there are {len(self)} rows") from None
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def take(self, indices: ArrayLike) -> Ragged:
        """Copy the rows at `indices` (ints, or one bool per row), in that order.

        Example:
            >>> Ragged.from_rows([[1], [2, 2], []]).take([1, 0, 1]).to_list()
            [[2, 2], [1], [2, 2]]
        """
        rows = row_indices(indices, len(self))
        begins = self.offsets[rows]
        return trusted(*gathered(self._held, begins, self.offsets[rows + 1] - begins, copy=True))

    def astype(self, dtype: DTypeLike) -> Ragged:
        """Cast the values, checked; the same object where the dtype is this already.

        Integers must fit; floats become floats of another size, never integers, and never infinite that were
        not. That is not looked at where it would wait for a device, or where there are no values yet: there
        a float too large becomes infinite.

        Raises:
            OverflowError: a value does not fit; the message names row and position.
            TypeError: floats to integers.

        Example:
            >>> Ragged.from_rows([[1], [-1]]).astype(np.uint8)
            Traceback (most recent call last):
            OverflowError: row 1, position 0: -1 does not fit uint8
        """
        if isinstance(self.values, Ragged):
            with of_element(self.offsets):
                return trusted(self.flat.astype(dtype), self.offsets - self.offsets[0])
        values, offsets = cast_rows(self.values, self.offsets, dtype)
        return self if values is self.values else trusted(values, offsets)

    def sum(self) -> AnyArray:
        """`[rows, *inner]`: the sum of each row, 0 of an empty one.

        Integers and bools are summed in 64 bits, floats in float64.

        Raises:
            OverflowError: a sum of integers does not fit 64 bits; the message names the row.

        Example:
            >>> Ragged.from_rows([[1, 2], [], [3]]).sum()
            array([3, 0, 3])
        """
        return row_sums(self._host("sum"), self.offsets)

    def mean(self) -> NDArray[np.float64]:
        """`[rows, *inner]` float64: the mean of each row, NaN of an empty one.

        Example:
            >>> Ragged.from_rows([[1, 2], [], [3]]).mean()
            array([1.5, nan, 3. ])
        """
        return row_means(self._host("mean"), self.offsets)

    def max(self) -> AnyArray:
        """`[rows, *inner]`: the largest element of each row; NaN if there is one.

        Raises:
            ValueError: a row is empty, and so has none; the message names it.

        Example:
            >>> Ragged.from_rows([[1, 2], [3]]).max()
            array([2, 3])
        """
        return row_maxima(self._host("max"), self.offsets)

    def to_torch(self) -> Any:
        """A jagged nested tensor over the same memory: `[rows, *, *inner]` of torch.

        Example:
            >>> Ragged.from_rows([[1, 2], [3]]).to_torch().unbind()
            (tensor([1, 2]), tensor([3]))
        """
        from rollkit._arrays.ops import ops

        if isinstance(self.values, Ragged):
            raise TypeError("torch has no jagged tensor with a list for each element; use .flat for those")
        make: Any = ops("torch")
        return make.jagged(self.values, self.offsets)

    def to_list(self) -> list[list[Any]]:
        """Return the rows as nested Python lists."""
        if isinstance(self.values, Ragged):
            lists = self.flat.to_list()
            bounds = (self.offsets - self.offsets[0]).tolist()
            return [lists[a:b] for a, b in pairwise(bounds)]
        if is_traced(self.values):
            self._host("to_list")
        return [row.tolist() for row in self]

    def equals(self, other: object) -> bool:
        """Whether `other` has the same rows, dtype and inner shape; NaN equals NaN.

        Example:
            >>> a = Ragged.from_rows([[9], [1, 2]])[1:]
            >>> a.equals(Ragged.from_rows([[1, 2]]))
            True
        """
        return (
            isinstance(other, Ragged)
            and self.dtype == other.dtype
            and self.inner == other.inner
            and np.array_equal(self.lengths, other.lengths)
            and _same_flat(self, other)
        )

    def _equals_numbers(self, other: Ragged) -> bool:
        return bool(same_values(self._host("equals", self.flat), other._host("equals", other.flat)))

    def hash(self) -> NDArray[np.uint64]:
        """`[rows]` uint64: a hash of each row's bytes, dtype and inner shape, wherever the row lies.

        To find the rows that a transport or a file has changed. NaNs of other payloads differ, and so do 0
        and -0. The hash is XXH3 (Collet, 2019), of 64 bits: it finds accidents, not forgeries.

        Example:
            >>> rows = Ragged.from_rows([[1, 2], [3], [1, 2]])
            >>> hashes, narrow = rows.hash().tolist(), rows.astype(np.int32).hash().tolist()
            >>> hashes[0] == hashes[2], hashes[0] == narrow[0]
            (True, False)
        """
        from rollkit._rows.buffers import hashes

        return hashes(self._host_parts("hash"), self.offsets)

    def to_buffers(self) -> tuple[bytes, list[memoryview]]:
        """A header of a few bytes (JSON), and flat buffers over the same memory, for any transport.

        Example:
            >>> header, buffers = Ragged.from_rows([[1, 2], [3]], np.int32).to_buffers()
            >>> [len(buffer) for buffer in buffers]
            [24, 12]
            >>> Ragged.from_buffers(header, buffers).to_list()
            [[1, 2], [3]]
        """
        from rollkit._rows.buffers import packed, rows_out

        said, buffers = rows_out(self._host_parts("to_buffers"), self.offsets)
        return packed(said), buffers

    @classmethod
    def from_buffers(cls, header: Any, buffers: Sequence[Any]) -> Ragged:
        """View what `to_buffers` gave, or copies of it: anything with the buffer protocol.

        Raises:
            ValueError: not the header, or not the buffers, of rows.
        """
        from rollkit._rows.buffers import rows_in, unpacked

        values, offsets, left = rows_in(*unpacked(header, buffers))
        if left:
            raise ValueError(f"{len(left)} buffers are left over")
        return of_values(values, offsets)

    def __reduce__(self) -> tuple[Any, ...]:
        # A slice of rows must not ship its parent's buffer.
        flat: Any = self.flat
        sent: tuple[Any, Any]
        if isinstance(flat, np.ndarray):
            sent = shipped(flat)
        elif isinstance(flat, Ragged):
            sent = flat, None
        else:  # a view of a tensor ships all that it is a view of
            sent = (flat if len(flat) == len(self.values) else ops_of(flat).cat([flat])), None
        return _unpickled, (*sent, self.offsets - self.offsets[0])

    def __array__(self, dtype: Any = None, copy: Any = None) -> AnyArray:
        raise TypeError(
            "a Ragged is no rectangle; use .values, or place it in a padded Layout (rollkit.place)"
        )

    def _host(self, method: str, values: Any = None) -> AnyArray:
        """The values, or some of them, for a method that reads them on the host."""
        found: Any = self.values if values is None else values
        if isinstance(found, Ragged):
            raise TypeError(f"Ragged.{method} is for numbers; these rows have a list for each element")
        if not isinstance(found, np.ndarray):
            raise TypeError(
                f"Ragged.{method} reads values on the host; these are of {framework_of(found)}, on a device, "
                "with a gradient, or traced: take them there first (.detach().cpu(), np.asarray)"
            )
        return found

    def __repr__(self) -> str:
        count = int(self.offsets[-1] - self.offsets[0])
        if isinstance(self.values, Ragged):
            entries = int(self.flat.offsets[-1] - self.flat.offsets[0])
            mean = f", mean length {count / len(self):,.1f}" if len(self) else ""
            return f"Ragged({len(self):,} rows, {count:,} lists of {entries:,} values, {self.dtype}{mean})"
        of_shape = f" of shape {self.inner}" if self.inner else ""
        mean = f", mean length {count / len(self):,.1f}" if len(self) else ""
        return f"Ragged({len(self):,} rows, {count:,} values{of_shape}, {self.dtype}{mean})"


def _check_offsets(offsets: Int64s, count: int) -> None:
    if not len(offsets):
        raise ValueError("offsets is empty; expected one more than there are rows, so at least one")
    if offsets[0] < 0:
        raise ValueError(f"offsets[0] is {offsets[0]}; offsets start at 0 or more and never fall")
    _native.check_offsets(offsets, count)


def as_lists(rows: Ragged) -> Ragged:
    """Rows whose elements are lists; those that have all one length, and so an inner dimension, too."""
    if isinstance(rows.values, Ragged):
        return rows
    if not rows.inner and not rows.lengths.any():  # no element tells
        return trusted(trusted(rows.values[:0], np.zeros(1, np.int64)), np.zeros_like(rows.offsets))
    if not rows.inner:
        raise TypeError(f"expected a list for each element, got {rows.dtype}")
    width, *rest = rows.inner
    count = len(rows.values)
    values = rows.values.reshape(count * width, *rest)
    return trusted(trusted(values, np.arange(count + 1, dtype=np.int64) * width), rows.offsets)


def _same_flat(a: Ragged, b: Ragged) -> bool:
    """Whether rows of equal lengths, dtype and inner shape hold the same."""
    if isinstance(a.values, Ragged):
        return a.flat.equals(b.flat)
    return a._equals_numbers(b)


def of_values(values: Any, offsets: Int64s) -> Ragged:
    """Rows of values, or of lists, that come from elsewhere: their offsets are checked."""
    return Ragged(cast(Any, Ragged(*values)) if isinstance(values, Lists) else values, offsets)


def rows_of_jagged(tensor: Any) -> Ragged | list[Any]:
    """A nested tensor of torch as rows over its memory; as a list of them where it is not end to end."""
    own: Any = ops_of(tensor)
    found = own.of_jagged(tensor)
    return list(tensor.unbind()) if found is None else Ragged(*found)


def _unpickled(values: Any, dtype: np.dtype[Any] | None, offsets: Int64s) -> Ragged:
    return Ragged(values if dtype is None else values.view(dtype), offsets)


def trusted(values: Any, offsets: Int64s) -> Ragged:
    """Make a `Ragged` of arrays known to be valid, without the pass that checks offsets."""
    ragged = object.__new__(Ragged)
    object.__setattr__(ragged, "values", trusted(*values) if isinstance(values, Lists) else values)
    object.__setattr__(ragged, "offsets", offsets)
    return ragged
