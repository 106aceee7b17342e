"""Lists of Python numbers to flat columns."""

import enum
import gc
import math
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rollkit._native import from_lists

INTS: list[np.dtype[Any]] = [np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]
FLOATS: list[np.dtype[Any]] = [np.dtype(np.float32), np.dtype(np.float64)]
DTYPES = [np.dtype(np.bool_), *INTS, *FLOATS]


def from_lists_slowly(
    rows: Sequence[Sequence[Any]], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """What `from_lists` does with flat rows, one number at a time."""
    values = np.array([convert(x, dtype) for x in chain.from_iterable(rows)], dtype)
    return values, np.cumsum([0, *map(len, rows)], dtype=np.int64)


def convert(value: Any, dtype: np.dtype[Any]) -> Any:
    """A number as a NumPy scalar of `dtype`, or the error that it gets."""
    is_float = isinstance(value, (float, np.floating))
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return (np.float64(value) if is_float else np.int64(value)).astype(dtype)
    if is_float:
        raise TypeError
    low, high = limits(dtype)
    if not low <= int(value) <= high:
        raise OverflowError
    return dtype.type(value)


def limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The least and the greatest number of a bool or integer dtype."""
    if dtype.kind == "b":
        return 0, 1
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def bits(array: NDArray[Any]) -> NDArray[Any]:
    """The bytes of each element, so that nan equals nan and -0.0 is not 0.0."""
    return np.frombuffer(array.tobytes(), np.uint8)


def numbers(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    """Python and NumPy numbers that fit `dtype`."""
    if dtype.kind == "f":
        ints = st.integers(-(2**63), 2**63 - 1)
        most = float(np.finfo(dtype).max)
        # A nan's payload is not kept by all conversions.
        floats = st.floats(-most, most) | st.sampled_from([np.inf, -np.inf])
        return (
            ints
            | floats
            | st.booleans()
            | floats.map(np.float64)
            | st.floats(width=32).map(np.float32).filter(lambda x: not np.isnan(x))
        )
    low, high = limits(dtype)
    ints = st.integers(low, high)
    return ints | st.booleans() | ints.map(dtype.type) | st.booleans().map(np.bool_)


@given(st.data(), st.sampled_from(DTYPES))
def test_flat_rows_equal_the_slow_way(data: st.DataObject, dtype: np.dtype[Any]) -> None:
    row = st.lists(numbers(dtype), max_size=40)
    rows = data.draw(st.lists(row | row.map(tuple)))
    values, offsets = from_lists(data.draw(st.sampled_from([rows, tuple(rows)])), dtype)
    wanted, wanted_offsets = from_lists_slowly(rows, dtype)
    assert values.dtype == dtype
    assert values.shape == wanted.shape
    np.testing.assert_array_equal(bits(values), bits(wanted))
    assert offsets.dtype == np.int64
    np.testing.assert_array_equal(offsets, wanted_offsets)


@given(st.lists(st.integers() | st.floats() | st.booleans(), min_size=1), st.sampled_from(DTYPES[:-2]))
def test_refusals_equal_the_slow_way(row: list[Any], dtype: np.dtype[Any]) -> None:
    errors: list[type[Exception] | None] = []
    for function in (from_lists, from_lists_slowly):
        try:
            function([row], dtype)
            errors.append(None)
        except (TypeError, OverflowError) as error:
            errors.append(type(error))
    assert errors[0] is errors[1]


@pytest.mark.parametrize("dtype", DTYPES[:-2], ids=str)
def test_range_edges(dtype: np.dtype[Any]) -> None:
    low, high = limits(dtype)
    assert from_lists([[low, high]], dtype)[0].tolist() == [low, high]
    for value in (low - 1, high + 1, low - 2**64, high + 2**64, -(2**127), 2**128):
        with pytest.raises(OverflowError, match=rf"row 1, position 1: {value} does not fit {dtype}"):
            from_lists([[], [0, value]], dtype)


def test_ints_around_the_ends_of_digits() -> None:
    borders = [2**n + d for n in (0, 8, 15, 16, 29, 30, 31, 32, 45, 59, 60, 61, 62) for d in (-1, 0, 1)]
    row = [*borders, *(-x for x in borders), 2**63 - 1, -(2**63)]
    assert from_lists([row])[0].tolist() == row
    assert from_lists([row], np.dtype(np.float64))[0].tolist() == [float(x) for x in row]


def test_floats_keep_their_bits() -> None:
    row = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 1e-45, 1e38, 1e-46]
    for dtype in FLOATS:
        wanted = np.array(row).astype(dtype)
        np.testing.assert_array_equal(bits(from_lists([row], dtype)[0]), bits(wanted))


@pytest.mark.parametrize("value", [1e39, -1.7e308, np.float64(1e39)], ids=repr)
def test_no_finite_float_becomes_infinite(value: float) -> None:
    assert from_lists([[value]], np.dtype(np.float64))[0].tolist() == [value]
    with pytest.raises(OverflowError, match=r"^row 1, position 1: .* does not fit float32$"):
        from_lists([[], [1.0, value]], np.dtype(np.float32))


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="long doubles are doubles")
def test_long_doubles_beyond_doubles_are_refused() -> None:
    for dtype in FLOATS:
        with pytest.raises(OverflowError, match=f"^row 0, position 1: .* does not fit {dtype}$"):
            from_lists([[1.0, np.longdouble("1e400")]], dtype)
        assert np.isinf(from_lists([[1.0, np.longdouble("inf")]], dtype)[0][1])


def test_ints_are_rounded_once() -> None:
    # One above the middle of two float32 values: by way of float64 it would go to the lower one.
    for shift in (5, 30, 38, 60, 100, 103):
        above = ((2**24 + 1) << shift) + 1
        for sign in (1, -1):
            (value,) = from_lists([[sign * above]], np.dtype(np.float32))[0]
            assert int(value) == sign * ((2**24 + 2) << shift)
    greatest = int(np.finfo(np.float32).max)
    assert from_lists([[greatest, -greatest]], np.dtype(np.float32))[0].tolist() == [
        greatest,
        -greatest,
    ]


class Colour(enum.IntEnum):
    RED = 3


class Index:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __index__(self) -> int:
        if isinstance(self.value, BaseException):
            raise self.value
        return int(self.value() if callable(self.value) else self.value)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([], np.zeros(0, np.int64)),
        ([[], ()], np.zeros(0, np.int64)),
        ([[[]], [[], []]], np.zeros((3, 0), np.int64)),
        ([[], [1]], np.array([1])),
        ([[True, 0]], np.array([True, False])),
        ([[1.5, 1, True]], np.array([1.5, 1.0, 1.0])),
        ([[Colour.RED]], np.array([3])),
        ([[Index(7)]], np.array([7])),
        ([[np.float32(0.1)]], np.array([0.1], np.float32)),
        ([[np.float64(0.1)]], np.array([0.1])),
        ([[np.uint8(3), 4]], np.array([3, 4], np.uint8)),
        ([[np.bool_(True)]], np.array([True])),
        ([[], [[np.int16(1), 2]]], np.array([[1, 2]], np.int16)),
    ],
)
def test_dtype_is_that_of_the_first_number(rows: Any, wanted: NDArray[Any]) -> None:
    values, offsets = from_lists(rows)
    assert values.dtype == wanted.dtype
    assert values.shape == wanted.shape
    assert values.flags.c_contiguous
    assert values.flags.owndata
    np.testing.assert_array_equal(values, wanted)
    assert offsets.tolist() == [0, *np.cumsum([len(row) for row in rows]).tolist()]


@given(
    st.lists(st.integers(0, 5), max_size=6),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.sampled_from(DTYPES),
    st.booleans(),
)
def test_nested_rows(lengths: list[int], inner: list[int], dtype: np.dtype[Any], as_tuples: bool) -> None:
    values = np.arange(sum(lengths) * math.prod(inner)).astype(dtype).reshape(-1, *inner)
    rows = [part.tolist() for part in np.split(values, np.cumsum(lengths))[:-1]]
    got, offsets = from_lists(deep_tuple(rows) if as_tuples else rows, dtype)
    wanted = values if len(values) else np.zeros(0, dtype)  # no row tells the inner shape
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, wanted, strict=True)
    assert offsets.tolist() == [0, *np.cumsum(lengths).tolist()]


def deep_tuple(value: Any) -> Any:
    return tuple(map(deep_tuple, value)) if isinstance(value, list) else value


def test_sixty_three_inner_dimensions_and_not_more() -> None:
    nested: Any = 1
    for _ in range(64):
        nested = [nested]
    assert from_lists([nested[0]])[0].ndim == 63
    assert from_lists([nested])[0].ndim == 64
    endless: list[Any] = []
    endless.append(endless)
    for rows in ([[nested]], endless):
        with pytest.raises(ValueError, match="row 0, position 0: nested deeper than 64 dimensions"):
            from_lists(rows)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


FLOAT_HINT = "pass dtype=np.float32 (or another float dtype) or round it first"


@pytest.mark.parametrize(
    ("rows", "dtype", "error", "message"),
    [
        (7, None, TypeError, "rows must be a list or tuple, got int"),
        ("ab", None, TypeError, "rows must be a list or tuple, got str"),
        ([[1], [2], 3], None, TypeError, "row 2 is int, expected a list, tuple or array"),
        ([["a"], None], None, TypeError, "row 1 is NoneType, expected a list, tuple or array"),
        ([[1] * 17 + [300]], "uint8", OverflowError, "row 0, position 17: 300 does not fit uint8"),
        ([[np.int32(300)]], "uint8", OverflowError, "row 0, position 0: 300 does not fit uint8"),
        ([[2]], "bool", OverflowError, "row 0, position 0: 2 does not fit bool"),
        (
            [[10**400]],
            "float64",
            OverflowError,
            f"row 0, position 0: 1{'0' * 39}… does not fit float64",
        ),
        ([[2**128]], "float32", OverflowError, f"row 0, position 0: {2**128} does not fit float32"),
        ([[10**5000]], "int32", OverflowError, "row 0, position 0: <int> does not fit int32"),
        (
            [[], [1, 1.5]],
            "int32",
            TypeError,
            f"row 1, position 1: float 1.5 in an int32 column; {FLOAT_HINT}",
        ),
        (
            [[1, 1.0]],
            None,
            TypeError,
            f"row 0, position 1: float 1.0 in an int64 column; {FLOAT_HINT}",
        ),
        (
            [[np.float32(2)]],
            "uint8",
            TypeError,
            f"row 0, position 0: float 2.0 in a uint8 column; {FLOAT_HINT}",
        ),
        (
            [[0.0]],
            "bool",
            TypeError,
            f"row 0, position 0: float 0.0 in a bool column; {FLOAT_HINT}",
        ),
        ([[], [], [1, None]], None, TypeError, "row 2, position 1: None is not a number"),
        ([[None]], None, TypeError, "row 0, position 0: None is not a number"),
        ([["x" * 99]], "float32", TypeError, f"row 0, position 0: '{'x' * 39}… is not a number"),
        ([[Unprintable()]], "int8", TypeError, "row 0, position 0: <Unprintable> is not a number"),
        ([[1j]], "float64", TypeError, "row 0, position 0: 1j is not a number"),
        (
            [[np.complex64(1)]],
            "float32",
            TypeError,
            "row 0, position 0: np.complex64(1+0j) is not a number",
        ),
        (
            [[np.timedelta64(3, "ns")]],
            "int64",
            TypeError,
            "row 0, position 0: np.timedelta64(3,'ns') is not a number",
        ),
        ([[np.ones(1)]], "float32", TypeError, "row 0, position 0: array([1.]) is not a number"),
        ([[1, [2]]], None, ValueError, "row 0, position 1: a number expected, got a list of 1"),
        ([[[1], 2]], None, ValueError, "row 0, position 1: inner shape (1,) expected, got 2"),
        (
            [[], [], [[[0] * 4] * 2] * 5 + [[[0] * 4] * 3]],
            None,
            ValueError,
            "row 2, position 5: inner shape (2, 4) expected, got a list of 3",
        ),
        (
            [[[[0] * 4] * 2], [[[0] * 4, (0, 0)]]],
            None,
            ValueError,
            "row 1, position 0: inner shape (2, 4) expected, got a tuple of 2",
        ),
        (
            [[[[1]], [[[]]]]],
            None,
            ValueError,
            "row 0, position 1: inner shape (1, 1) expected, got a list of 0",
        ),
        (
            [[[]], [[1]]],
            None,
            ValueError,
            "row 1, position 0: inner shape (0,) expected, got a list of 1",
        ),
        (
            [[[1, 2], [1, None]]],
            None,
            TypeError,
            "row 0, position 1: None is not a number",
        ),
        (
            [[1]],
            "float16",
            TypeError,
            "lists become bool, (u)int8 to (u)int64, float32 or float64 in native byte order, not float16",
        ),
    ],
)
def test_messages(rows: Any, dtype: str | None, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        from_lists(rows, None if dtype is None else np.dtype(dtype))
    assert str(caught.value) == message


@pytest.mark.parametrize("name", [">i4", ">f8", "float16", "complex64", "datetime64[s]", "O", "U3", "V4"])
def test_unsupported_dtypes(name: str) -> None:
    with pytest.raises(TypeError, match=r"^lists become bool, .*, not "):
        from_lists([[1]], np.dtype(name))


def test_errors_of_the_objects_pass() -> None:
    for error in (ZeroDivisionError("mine"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            from_lists([[1, Index(error)]])


def test_a_row_that_changes_itself_is_read_as_it_was() -> None:
    def clear() -> int:
        row.clear()
        gc.collect()
        return 5

    row: list[Any] = [*range(1000, 1100), Index(clear), *range(2000, 2100)]
    values, _ = from_lists([row])
    assert values.tolist() == [*range(1000, 1100), 5, *range(2000, 2100)]


def test_a_row_that_changes_a_later_one_is_refused() -> None:
    def append() -> int:
        later.append(1)
        return 5

    later: list[Any] = [1, 2]
    with pytest.raises(ValueError, match="row 1 changed while it was read"):
        from_lists([[Index(append)], later])


def test_nested_lists_that_change_are_safe() -> None:
    def clear() -> int:
        for part in (*row, row, rows):
            part.clear()
        gc.collect()
        return 5

    row: list[Any] = [[1000, Index(clear)], [2000, 3000]]
    rows = [row, [[4000, 5000]]]
    with pytest.raises(ValueError, match="row 0, position 1: inner shape"):
        from_lists(rows)


def test_threads_that_change_rows_are_safe() -> None:
    rows: list[Any] = [[1000 + i for i in range(50)] for _ in range(20)]
    done = threading.Event()

    def change() -> None:
        i = 0
        while not done.is_set():
            row = rows[i % len(rows)]
            row.append(3000 + i)
            row.pop(0)
            i += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(2000):
            try:
                values, _ = from_lists(rows)
            except ValueError as error:
                assert "changed while it was read" in str(error)  # noqa: PT017
            else:
                assert values.min() >= 1000
    finally:
        done.set()
        thread.join()


def references(objects: Sequence[object]) -> Iterator[int]:
    return map(sys.getrefcount, objects)


@pytest.mark.parametrize("last", [7, np.int32(7), None])
def test_no_reference_is_left(last: Any) -> None:
    numbers = [1000 + i for i in range(10)]
    row: list[Any] = [*numbers, last]
    watched: list[Any] = [*numbers, row]
    before = list(references(watched))
    for rows in ([row, tuple(row)], [[row, row], [row]]):
        try:
            from_lists(rows)
        except TypeError as error:
            assert "None is not a number" in str(error)  # noqa: PT017
    del rows
    assert list(references(watched)) == before
