"""`Ragged`: rows from anything, views, pickles, equality."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import rollkit
from rollkit import Ragged
from rollkit.testing import raggeds


def ragged(values: Any, offsets: Any) -> Ragged:
    """Any array and a list of offsets, which `Ragged` converts."""
    return Ragged(values, offsets)


@given(raggeds())
def test_rows_are_slices_of_values(rows: Ragged) -> None:
    bounds = rows.offsets.tolist()
    assert rows.lengths.tolist() == [b - a for a, b in pairwise(bounds)]
    assert len(rows) == len(list(rows)) == len(bounds) - 1
    for i, row in enumerate(rows):
        numbers: list[Any] = [i, i - len(rows), np.int32(i)]
        for found in (row, *(rows[number] for number in numbers)):
            np.testing.assert_array_equal(found, rows.values[bounds[i] : bounds[i + 1]])
            assert np.shares_memory(found, rows.values) or not found.size
    assert rows.to_list() == [row.tolist() for row in rows]
    assert sum(map(len, rows)) == len(rows.flat)


@given(raggeds(), st.integers(-9, 9) | st.none(), st.integers(-9, 9) | st.none(), st.sampled_from([1, 2, -1]))
def test_slices_of_rows_are_those_of_a_list(rows: Ragged, a: int | None, b: int | None, step: int) -> None:
    part = rows[a:b:step]
    assert part.to_list() == rows.to_list()[a:b:step]
    assert part.values is rows.values or step != 1
    assert part[::2].to_list() == rows.to_list()[a:b:step][::2]


@given(raggeds(), st.data())
def test_take_gathers(rows: Ragged, data: st.DataObject) -> None:
    count = len(rows)
    indices = data.draw(st.lists(st.integers(-count, count - 1), max_size=9)) if count else []
    taken = rows.take(indices)
    assert taken.to_list() == [rows.to_list()[i] for i in indices]
    assert (taken.dtype, taken.inner) == (rows.dtype, rows.inner)
    assert not np.shares_memory(taken.values, rows.values)
    mask = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    for chosen in (mask, np.array(mask, bool)):
        wanted = [row for row, keep in zip(rows.to_list(), mask, strict=True) if keep]
        assert count == 0 or rows.take(chosen).to_list() == wanted


@given(raggeds())
def test_from_rows_of_its_rows_is_the_same(rows: Ragged) -> None:
    if not len(rows):
        return
    as_given: list[Any] = [list(rows), tuple(rows), (row for row in rows), [np.array(row) for row in rows]]
    for given_ in as_given:
        again = Ragged.from_rows(given_)
        assert again.equals(rows)
        assert not np.shares_memory(again.values, rows.values)


@given(raggeds([np.int64, np.float64, np.bool_], [(), (3,), (2, 2)]))
def test_from_rows_of_lists_is_the_same(rows: Ragged) -> None:
    again = Ragged.from_rows(rows.to_list(), rows.dtype)
    assert again.to_list() == rows.to_list()
    assert again.dtype == rows.dtype
    if rows.lengths.any():
        assert again.equals(rows)


def test_from_rows_of_a_mix() -> None:
    import jax.numpy as jnp
    import torch

    wanted = [[1, 2], [3], [4], [], [5], [6, 7]]
    rows = [
        np.array([1, 2], np.int32),
        [3],
        torch.tensor([4]),
        (),
        jnp.array([5]),
        np.array([6, 0, 7], ">i8")[::2],
    ]
    mixed = Ragged.from_rows(rows)
    assert mixed.to_list() == wanted
    assert mixed.dtype == np.int64
    assert Ragged.from_rows(rows[::-1], np.int16).to_list() == wanted[::-1]
    with pytest.raises(OverflowError, match=r"^row 1, position 0: 3000000000 does not fit int32$"):
        Ragged.from_rows([np.array([1], np.int32), np.array([3_000_000_000])], np.int32)


def test_from_rows_of_object_arrays() -> None:
    of_lists = np.array([[1, 2], [3]], object)
    assert Ragged.from_rows(of_lists).to_list() == [[1, 2], [3]]
    of_objects = [np.array([1, 2], object), np.array([3], object)]
    assert Ragged.from_rows(of_objects).to_list() == [[1, 2], [3]]
    assert Ragged.from_rows([of_objects[0], np.array([4])]).to_list() == [[1, 2], [4]]


def test_from_rows_of_a_rectangle() -> None:
    import torch

    for rectangle in (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))):
        assert Ragged.from_rows(rectangle).to_list() == [[0, 1, 2], [3, 4, 5]]
    assert Ragged.from_rows(np.zeros((2, 0))).to_list() == [[], []]
    assert Ragged.from_rows(np.zeros((0, 2))).to_list() == []
    tensor: Any = torch.arange(6).reshape(2, 3)
    assert Ragged.from_rows(tensor).to_list() == [[0, 1, 2], [3, 4, 5]]
    assert Ragged.from_rows(np.arange(12).reshape(2, 3, 2)).inner == (2,)


@pytest.mark.parametrize("dtype", ["f2", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ">i4", ">f8", "c8"])
def test_from_rows_of_lists_in_other_dtypes(dtype: Any) -> None:
    rows = Ragged.from_rows([[1, 2], [], [3]], dtype)
    assert rows.dtype == np.dtype(dtype)
    assert rows.flat.astype(np.complex64).tolist() == [1, 2, 3]
    assert Ragged.from_rows([], dtype).dtype == np.dtype(dtype)


@given(raggeds())
def test_pickles_the_same(rows: Ragged) -> None:
    for again in (pickle.loads(pickle.dumps(rows, 5)), copy.deepcopy(rows)):
        assert again.to_list() == rows.to_list()
        # NumPy pickles empty byte-swapped arrays as native ones.
        assert again.equals(rows) or not rows.lengths.any()


@pytest.mark.parametrize("dtype", [np.int32, ml_dtypes.bfloat16, "M8[s]", [("a", "i4")]])
def test_pickles_out_of_band(dtype: Any) -> None:
    """Values go beside the pickle, uncopied, and a slice does not take its parent along."""
    values = np.zeros(100_000, dtype)
    rows = ragged(values, np.arange(0, 100_001, 1000))
    for part, count in ((rows, 100_000), (rows[10:12], 2000)):
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(part, 5, buffer_callback=buffers.append)
        assert len(pickled) < 1000
        sizes = [buffer.raw().nbytes for buffer in buffers]
        assert sizes == [count * values.itemsize, 8 * (len(part) + 1)]
        again = pickle.loads(pickled, buffers=buffers)
        assert again.equals(part)
        assert np.shares_memory(again.values, values)
    assert len(pickle.dumps(rows[10:11], 5)) < 1000 * values.itemsize + 1000


def test_equals_looks_at_rows_dtype_and_inner_shape() -> None:
    rows = Ragged.from_rows([[1, 2], [3]])
    assert rows.equals(ragged(np.array([9, 1, 2, 3, 9]), [1, 3, 4]))
    assert not rows.equals(Ragged.from_rows([[1], [2, 3]]))
    assert not rows.equals(Ragged.from_rows([[1, 2], [4]]))
    assert not rows.equals(rows.astype(np.int32))
    assert not rows.equals(Ragged.from_rows([[[1], [2]], [[3]]]))
    assert not rows.equals([[1, 2], [3]])


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (np.array([np.nan]), np.array([np.nan]), True),
        (np.array([np.nan, 1]), np.array([np.nan, 2]), False),
        (np.array([0.0]), np.array([-0.0]), True),
        (np.array(["NaT"], "M8[s]"), np.array(["NaT"], "M8[s]"), True),
        (np.array([1], ml_dtypes.bfloat16), np.array([1], ml_dtypes.bfloat16), True),
        (np.array([1], ml_dtypes.bfloat16), np.array([2], ml_dtypes.bfloat16), False),
        (np.array(["a"]), np.array(["b"]), False),
        (np.array([(1,)], [("a", "i4")]), np.array([(1,)], [("a", "i4")]), True),
    ],
)
def test_equals_of_values(a: NDArray[Any], b: NDArray[Any], equal: bool) -> None:
    assert ragged(a, [0, len(a)]).equals(ragged(b, [0, len(b)])) is equal


def test_a_slice_is_a_view_and_take_is_not() -> None:
    rows = ragged(np.arange(10), [0, 5, 10])
    assert rows[1:].values is rows.values
    rows[1][0] = 99
    assert rows.values[5] == 99
    assert rows.take([1]).values.base is None


def test_values_of_tensors_are_their_memory() -> None:
    import torch

    tensor = torch.zeros(4)
    rows = ragged(tensor, [0, 4])
    tensor[2] = 5
    assert rows.to_list() == [[0, 0, 5, 0]]


def test_repr_shows_no_data() -> None:
    assert repr(ragged(np.full((9, 2), 7), [0, 4, 9])) == (
        "Ragged(2 rows, 9 values of shape (2,), int64, mean length 4.5)"
    )
    assert repr(ragged(np.zeros(0), [0])) == "Ragged(0 rows, 0 values, float64)"


def test_numpy_makes_no_rectangle_of_it() -> None:
    with pytest.raises(TypeError, match="no rectangle"):
        np.asarray(Ragged.from_rows([[1], [2, 3]]))


def test_only_real_numbers_are_summed() -> None:
    for values in (
        np.ones(2, np.complex64),
        np.array([b"a", b"b"]),
        np.zeros(2, "M8[s]"),
        np.array([1, 2], object),
    ):
        rows = Ragged(values, np.array([0, 1, 2]))
        for method in (rows.sum, rows.mean, rows.max):
            with pytest.raises(TypeError, match=r"are of real numbers, got"):
                method()


@pytest.mark.filterwarnings("error")
def test_infinities_of_both_signs() -> None:
    assert np.isnan(Ragged.from_rows([[np.inf, -np.inf]], np.float32).sum()).all()


def test_jagged_tensors_know_their_longest_row() -> None:
    pytest.importorskip("torch")
    rows = Ragged.from_rows([[1, 2], [], [3]])
    assert rows.to_torch().to_padded_tensor(0).tolist() == [[1, 2], [0, 0], [3, 0]]
    assert rows[1:].to_torch().to_padded_tensor(9).tolist() == [[9], [3]]
    for empty in (rows[:0], rows[1:2]):
        assert empty.to_torch().to_padded_tensor(0).shape == (len(empty), 0)


def test_jagged_of_another_byte_order() -> None:
    torch = pytest.importorskip("torch")
    rows = Ragged(np.arange(3, dtype=">i4"), np.array([0, 2, 3]))
    assert torch.equal(rows.to_torch().values(), torch.arange(3, dtype=torch.int32))
    with pytest.raises(TypeError, match="torch has no jagged tensor with a list for each element"):
        Ragged.from_rows([[[1]]], lists=True).to_torch()


def test_pickles_name_what_stays_where_it_is() -> None:
    """Pickles outlive the code that made them: what they call must be found where it was."""
    call = Ragged.from_rows([[1]]).__reduce__()[0]
    assert (call.__module__, call.__qualname__) == ("rollkit._rows.ragged", "_unpickled")


MASKED: Any = np.ma.masked_array([1, 2, 3], [False, True, False])
TAKES_ARRAYS: list[Callable[[], Any]] = [
    lambda: Ragged.from_rows([MASKED]),
    lambda: Ragged.from_rows([[1], MASKED]),
    lambda: Ragged.from_rows(MASKED.reshape(1, 3)),
    lambda: Ragged(MASKED, np.array([0, 3])),
    lambda: Ragged.from_rows([[1], [2]]).take(MASKED),
    lambda: rollkit.place([MASKED], rollkit.Layout.concat([3])),
    lambda: rollkit.take(MASKED, rollkit.Layout.concat([3])),
    lambda: rollkit.Layout.pack(MASKED, 9),
    lambda: rollkit.Forest.build([MASKED]),
    lambda: rollkit.Rollouts({"response_ids": [MASKED]}),
    lambda: rollkit.gae([MASKED], [MASKED], gamma=1, lam=1),
    lambda: rollkit.segments.thd(MASKED, max_segments=4),
    lambda: rollkit.balance(MASKED, 2),
]


def test_a_matrix_is_refused() -> None:
    """Each row of one is a matrix again."""
    matrix: Any = np.arange(4).reshape(2, 2).view(np.matrix)
    text = r"got a np\.matrix, each row of which is a matrix again; give np\.asarray"
    with pytest.raises(TypeError, match=text):
        Ragged.from_rows(matrix)
    with pytest.raises(TypeError, match=text):
        Ragged(matrix, np.array([0, 2]))


@pytest.mark.parametrize("call", TAKES_ARRAYS)
def test_a_mask_is_not_lost(call: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"got a masked array; fill it \(.filled\), or give what is left"):
        call()
