"""`place`, `take`, `concat`: every dtype, every kind of memory, beside loops over elements."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rollkit import Layout, Ragged, concat, place, take
from rollkit.testing import DTYPES, concat_reference, place_reference, raggeds, take_reference

ML_DTYPES = (np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn))
ALL_DTYPES = tuple(np.dtype(f"{d.kind}5") if d.itemsize == 0 else d for d in DTYPES) + ML_DTYPES


def ragged(values: Any, offsets: Any) -> Ragged:
    """Any array and a list of offsets, which `Ragged` converts."""
    return Ragged(values, offsets)


def same(got: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Byte for byte, with dtype and shape."""
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    assert got.tobytes() == wanted.tobytes()


@st.composite
def layouts_of(draw: Any, row_lengths: NDArray[np.int64]) -> Layout:
    kind = draw(st.sampled_from(["concat", "left", "right", "pack", "truncate", "drop"]))
    if kind == "concat":
        return Layout.concat(row_lengths, align=draw(st.integers(1, 3)))
    if kind in ("left", "right"):
        return Layout.pad(row_lengths, side=kind, multiple_of=draw(st.integers(1, 4)))
    oversize = "alone" if kind == "pack" else kind
    return Layout.pack(
        row_lengths, draw(st.integers(1, 12)), align=draw(st.integers(1, 3)), oversize=oversize
    )


@given(st.data(), raggeds(ALL_DTYPES), st.integers(0, 1))
def test_place_equals_the_reference(data: st.DataObject, rows: Ragged, fill: int) -> None:
    layout = data.draw(layouts_of(rows.lengths))
    filler = np.asarray(fill).astype(rows.dtype) if rows.dtype.kind != "V" or fill else 0
    if rows.dtype.names:
        filler = np.ones((), rows.dtype) if fill else 0
    wanted = place_reference(rows, layout, filler)
    same(place(rows, layout, filler), wanted)
    # Into a buffer that is poisoned, twice with different bytes: what is not written shows.
    for poison in (0x00, 0xFF):
        out = np.empty(wanted.shape, wanted.dtype)
        out.reshape(-1).view(np.uint8)[:] = poison
        assert place(rows, layout, filler, out=out) is out
        same(out, wanted)


@given(st.data(), raggeds(ALL_DTYPES))
def test_rows_as_arrays_or_parts_give_the_same(data: st.DataObject, rows: Ragged) -> None:
    layout = data.draw(layouts_of(rows.lengths))
    wanted = place(rows, layout)
    cut = data.draw(st.integers(0, len(rows)))
    same(place([rows[:cut], rows[cut:]], layout), wanted)
    if len(rows):
        same(place(list(rows), layout), wanted)
        same(place([np.array(row) for row in rows], layout), wanted)
        same(place([rows[:cut], *rows[cut:]], layout), wanted)


@given(st.data(), raggeds(ALL_DTYPES))
def test_take_undoes_place(data: st.DataObject, rows: Ragged) -> None:
    layout = data.draw(layouts_of(rows.lengths))
    buffer = place(rows, layout)
    taken = take(buffer, layout)
    assert taken.to_list() == take_reference(buffer, layout)
    for row, found, kept in zip(rows, taken, layout.lengths, strict=True):
        same(np.ascontiguousarray(found), np.ascontiguousarray(row[:kept]))


@given(st.lists(raggeds([np.int32], [(2,)]), min_size=1, max_size=5))
def test_concat_equals_the_reference(parts: list[Ragged]) -> None:
    joined = concat(parts)
    assert joined.to_list() == concat_reference(parts)
    assert joined.dtype == np.int32
    out = np.full(joined.flat.shape, -1, np.int32)
    again = concat(parts, out=out)
    assert np.shares_memory(again.values, out) or not out.size
    assert again.equals(joined)
    longer = np.full((len(out) + 3, 2), -1, np.int32)
    assert concat(parts, out=longer).equals(joined)
    assert (longer[len(out) :] == -1).all()
    strided = [Ragged(np.repeat(part.values, 2, axis=0)[::2], part.offsets) for part in parts]
    assert concat(strided, out=longer).equals(joined)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("inner", [(), (2,), (2, 3), (0,)], ids=str)
def test_every_dtype_and_inner_shape(dtype: np.dtype[Any], inner: tuple[int, ...]) -> None:
    raw = np.random.default_rng(0).integers(0, 2, 7 * int(np.prod(inner)) * dtype.itemsize, np.uint8)
    values = raw.view(dtype).reshape(7, *inner)
    rows = ragged(values, [0, 3, 3, 7])
    layout = Layout.pad(rows.lengths)
    same(place(rows, layout), place_reference(rows, layout, np.zeros((), dtype)))
    same(take(place(rows, layout), layout).flat, values)
    same(concat([rows[1:], rows[:1]]).flat, np.roll(values, 4, axis=0))
    same(Ragged.from_rows(list(rows)).flat, values)


def test_take_is_a_view_where_rows_are_end_to_end() -> None:
    flat = np.arange(10)
    assert np.shares_memory(take(flat, Layout.concat([4, 6])).values, flat)
    lines = np.arange(8).reshape(2, 4)
    assert np.shares_memory(take(lines, Layout.pad([4, 4])).values, lines)
    assert not np.shares_memory(take(lines, Layout.pad([3, 4], width=4)).values, lines)


def test_take_of_model_outputs() -> None:
    import jax.numpy as jnp
    import torch

    layout = Layout.pad([2, 1])
    wanted = [[[0.0, 1.0], [2.0, 3.0]], [[6.0, 7.0]]]
    numbers = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    assert take(torch.tensor(numbers, requires_grad=True), layout).to_list() == wanted
    assert take(torch.tensor(numbers).to(torch.bfloat16), layout).dtype == ml_dtypes.bfloat16
    assert take(torch.tensor(numbers).transpose(0, 1), layout).to_list() == [
        [[0.0, 1.0], [4.0, 5.0]],
        [[6.0, 7.0]],
    ]
    assert take(jnp.asarray(numbers), layout).to_list() == wanted
    assert take(np.asfortranarray(numbers), layout).to_list() == wanted


class Sub(np.ndarray[Any, np.dtype[Any]]):
    """An ndarray with a class of its own."""


def memories(values: NDArray[np.int64], folder: Path) -> dict[str, NDArray[Any]]:
    """One array in every kind of memory that NumPy knows."""
    file = folder / "values.bin"
    file.write_bytes(values.tobytes())
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    wide = np.zeros((len(values), 3), np.int64)
    wide[:, 1] = values
    return {
        "plain": values,
        "read-only bytes": np.frombuffer(values.tobytes(), np.int64),
        "mmap": np.frombuffer(mapped, np.int64),
        "memmap": np.memmap(file, np.int64, "r"),
        "strided": np.repeat(values, 2)[::2],
        "reversed": values[::-1].copy()[::-1],
        "a column": wide[:, 1],
        "misaligned": np.frombuffer(b"x" + values.tobytes(), np.uint8)[1:].view(np.int64),
        "subclass": values.view(Sub),
        "broadcast": np.broadcast_to(values, (2, len(values)))[1],
    }


def test_every_kind_of_memory(tmp_path: Path) -> None:
    values = np.arange(6)
    layout = Layout.pad([3, 1, 2])
    wanted = [[0, 1, 2], [-1, -1, 3], [-1, 4, 5]]
    for kind, array in memories(values, tmp_path).items():
        rows = ragged(array, [0, 3, 4, 6])
        assert place(rows, layout, -1).tolist() == wanted, kind
        assert place(list(rows), layout, -1).tolist() == wanted, kind
        assert place(rows, layout, -1, dtype=np.int16).tolist() == wanted, kind
        assert concat([rows, rows]).to_list() == 2 * rows.to_list(), kind
        assert take(array, Layout.concat([2, 4])).to_list() == [[0, 1], [2, 3, 4, 5]], kind
        assert Ragged.from_rows([array, array[:1]]).to_list() == [list(range(6)), [0]], kind
        assert rows.take([2, 0]).to_list() == [[4, 5], [0, 1, 2]], kind


def test_fortran_order() -> None:
    values = np.asfortranarray(np.arange(12).reshape(6, 2))
    rows = ragged(values, [0, 4, 6])
    assert place(rows, Layout.concat([4, 2])).tolist() == values.tolist()
    assert Ragged.from_rows([values, values[:1]]).to_list() == [values.tolist(), values[:1].tolist()]


def test_rows_of_tensors() -> None:
    import jax.numpy as jnp
    import torch

    layout = Layout.concat([2, 1])
    for one, two in [
        (torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0])),
        (torch.tensor([1.0, 9.0, 2.0, 9.0])[::2], torch.tensor([3.0])),
        (jnp.array([1.0, 2.0]), jnp.array([3.0])),
        (torch.tensor([1.0, 2.0]), np.array([3.0], np.float32)),
        (torch.tensor([1.0, 2.0]), [3]),
    ]:
        got = place([one, two], layout)
        assert got.dtype in (np.float32, torch.float32)
        assert got.tolist() == [1.0, 2.0, 3.0]
    got = place([torch.tensor([1.0, 2.0], dtype=torch.bfloat16), torch.tensor([3.0]).bfloat16()], layout)
    assert got.dtype == ml_dtypes.bfloat16
    assert got.astype(float).tolist() == [1.0, 2.0, 3.0]


INTEGERS = [np.dtype(kind) for kind in "bhilBHIL"]
FLOATS = [np.dtype("f4"), np.dtype("f8")]


@pytest.mark.parametrize(
    "target", [*INTEGERS, *FLOATS, np.dtype("e"), ML_DTYPES[0], np.dtype(">i4")], ids=str
)
@pytest.mark.parametrize("source", [np.dtype(bool), *INTEGERS, np.dtype(">i8")], ids=str)
def test_integers_that_fit_are_cast(source: np.dtype[Any], target: np.dtype[Any]) -> None:
    limits = [np.iinfo(d) for d in (source, target) if d.kind in "iu"]
    low = max([int(limit.min) for limit in limits] + ([0] if source.kind == "b" else [-100]))
    high = min([int(limit.max) for limit in limits] + ([1] if source.kind == "b" else []))
    high = min(high, 65504) if target == np.float16 else high
    rng = np.random.default_rng(0)
    # More than a block of the kernel, so that its vector loop and its rest both run.
    values = rng.integers(low, high, 150, np.int64 if high < 2**63 else np.uint64, endpoint=True)
    values[[0, 149]] = low, high
    given_ = values.astype(source)
    wanted = given_.astype(target)
    same(place(ragged(given_, [0, 70, 150]), Layout.concat([70, 80]), dtype=target), wanted)
    same(ragged(given_, [0, 150]).astype(target).flat, wanted)


@pytest.mark.parametrize("target", [*INTEGERS, np.dtype(">i2")], ids=str)
@pytest.mark.parametrize("source", [*INTEGERS, np.dtype(">i8")], ids=str)
def test_integers_that_do_not_fit_are_named(source: np.dtype[Any], target: np.dtype[Any]) -> None:
    have, want = np.iinfo(source), np.iinfo(target)
    for bad in (int(want.min) - 1, int(want.max) + 1):
        if not have.min <= bad <= have.max:
            continue
        values = np.zeros((200, 2), source)
        values[170, 1] = bad
        rows = ragged(values, [0, 100, 100, 200])
        name = str(target.newbyteorder("="))
        with pytest.raises(OverflowError, match=f"^row 2, position 70: {bad} does not fit {name}$"):
            rows.astype(target)
        with pytest.raises(OverflowError, match=f"^row 1, position 70: {bad} does not fit {name}$"):
            place(rows[1:], Layout.pad([0, 100]), dtype=target)
        assert rows[:2].astype(target).lengths.tolist() == [100, 0]  # what a slice leaves out may not fit


@pytest.mark.parametrize("target", [np.dtype("e"), ML_DTYPES[1]], ids=str)
def test_integers_beyond_a_small_float_are_named(target: np.dtype[Any]) -> None:
    rows = ragged(np.array([[0, 0], [1, 2], [3, 100_000]]), [0, 2, 3])
    with pytest.raises(OverflowError, match=f"^row 1, position 0: 100000 does not fit {target}$"):
        rows.astype(target)


NARROWER = [
    ("f8", "f4", 1e39),
    ("f8", "f2", 1e5),
    ("f4", "f2", 1e5),
    (">f8", "f4", 1e39),
    ("f8", ">f4", 1e39),
    ("f8", ml_dtypes.bfloat16, 1e39),
    ("f4", ml_dtypes.bfloat16, 3.4e38),
    ("f8", ml_dtypes.float8_e4m3fn, 1e4),
    ("f8", ml_dtypes.float8_e5m2, 1e6),
    ("c16", "c8", 1e39),
    ("c16", "c8", 1e39j),
]


@pytest.mark.parametrize(("source", "target", "value"), NARROWER, ids=str)
def test_no_finite_float_becomes_infinite(source: str, target: Any, value: complex) -> None:
    rows = ragged(np.array([1, 2, 3, -value, 5]).astype(source), [0, 2, 5])
    for cast in (rows.astype, lambda dtype: place(rows, Layout.pad([2, 3]), dtype=dtype)):
        with pytest.raises(OverflowError, match=r"^row 1, position 1: .* does not fit ") as caught:
            cast(target)
        assert (error := vars(caught.value))["row"] == error["position"] == 1
    with pytest.raises(OverflowError, match="does not fit"):
        place(ragged(np.zeros(1, target), [0, 1]), Layout.pad([1], width=2), fill=value)
    lists = [[1, 2], [3, -value, 5]]
    if isinstance(value, float):
        with pytest.raises(OverflowError, match=r"^row 1, position 1: .* does not fit "):
            Ragged.from_rows(lists, target)


def test_a_float_in_the_last_block_is_named_where_others_were_infinite_already() -> None:
    for size in (1, 63, 64, 65, 200):
        values = np.full(size, np.inf)
        values[::3], values[-1] = np.nan, 3.5e38
        rows = ragged(values, [0, size])
        with pytest.raises(
            OverflowError, match=f"^row 0, position {size - 1}: 3.5e\\+38 does not fit float32$"
        ):
            rows.astype("f4")
        values[-1] = np.finfo(np.float32).max
        same(rows.astype("f4").flat, values.astype("f4"))


def test_rounding_decides_what_is_beyond() -> None:
    most = float(np.finfo(np.float32).max)
    half = most + 2.0**103  # in the middle between the largest float32 and what would be the next
    below = np.nextafter(half, 0)
    assert ragged(np.array([below]), [0, 1]).astype("f4").to_list() == [[most]]
    assert Ragged.from_rows([[below]], "f4").to_list() == [[most]]
    made: list[Any] = [
        lambda: ragged(np.array([half]), [0, 1]).astype("f4"),
        lambda: Ragged.from_rows([[half]], "f4"),
    ]
    for rows in made:
        with pytest.raises(
            OverflowError, match=r"^row 0, position 0: 3.4028235677973366e\+38 does not fit float32$"
        ):
            rows()


@pytest.mark.parametrize("source", [np.float64, np.float32])
def test_what_was_infinite_or_nan_stays(source: Any) -> None:
    row = [np.inf, -np.inf, np.nan, 1.0]
    rows = ragged(np.array(row, source), [0, 4])
    for target in ("f4", "f2", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, "c8"):
        same(rows.astype(target).flat.astype("c16"), np.array(row).astype("c16"))
        same(Ragged.from_rows([row], target).flat.astype("c16"), np.array(row).astype("c16"))
    with pytest.raises(OverflowError, match=r"^row 0, position 0: inf does not fit float8_e4m3fn$"):
        rows.astype(ml_dtypes.float8_e4m3fn)  # which has no infinity


@pytest.mark.parametrize("pair", [("f8", "f4"), ("f4", "f8"), ("f8", "f2"), ("f2", "f4"), (">f8", "f4")])
def test_floats_are_rounded_as_numpy_rounds(pair: tuple[str, str]) -> None:
    values = np.array([0.1, -2.5, 1e-40, 65504.0, np.inf, -np.inf, np.nan, -0.0]).astype(pair[0])
    same(ragged(values, [0, 8]).astype(pair[1]).flat, values.astype(pair[1]))


@pytest.mark.parametrize("target", [*INTEGERS, np.dtype(bool)], ids=str)
@pytest.mark.parametrize("source", [*FLOATS, np.dtype("e"), *ML_DTYPES, np.dtype(">f8")], ids=str)
def test_floats_never_become_integers(source: np.dtype[Any], target: np.dtype[Any]) -> None:
    with pytest.raises(TypeError, match="without loss"):
        ragged(np.zeros(1, source), [0, 1]).astype(target)


@pytest.mark.parametrize("pair", [("S3", "f4"), ("U3", "i4"), ("M8[s]", "i8"), ("i8", "M8[s]"), ("i4", "S3")])
def test_only_numbers_are_cast(pair: tuple[str, str]) -> None:
    with pytest.raises(TypeError, match="only numbers are cast"):
        ragged(np.zeros(1, pair[0]), [0, 1]).astype(pair[1])


def test_complex_numbers_keep_their_half() -> None:
    rows = ragged(np.array([1 + 2j]), [0, 1])
    assert rows.astype(np.complex64).to_list() == [[1 + 2j]]
    with pytest.raises(TypeError, match="real part"):
        rows.astype(np.float64)


def test_casting_to_bool_takes_zeros_and_ones() -> None:
    assert Ragged.from_rows([[0, 1], [1]]).astype(bool).to_list() == [[False, True], [True]]
    with pytest.raises(OverflowError, match=r"^row 1, position 1: 2 does not fit bool$"):
        Ragged.from_rows([[0], [1, 2]]).astype(bool)


def test_fill_of_inner_shape() -> None:
    rows = ragged(np.arange(4).reshape(2, 2), [0, 1, 2])
    got = place(rows, Layout.pad([1, 1], width=2), fill=[7, 8])
    assert got.tolist() == [[[7, 8], [0, 1]], [[7, 8], [2, 3]]]


@pytest.mark.parametrize("size", range(1, 18))
def test_fill_of_every_size(size: int) -> None:
    """The kernel has a loop per fill size, and one for fills of equal bytes."""
    for byte in (bytes(range(1, size + 1)), b"\x05" * size):
        fill = np.frombuffer(byte, f"V{size}")[0]
        rows = ragged(np.zeros(1, f"V{size}"), [0, 1])
        got = place(rows, Layout.pad([1], width=40, side="right"), fill)
        assert got.tobytes() == bytes(size) + 39 * byte


def test_padding_of_texts_is_empty() -> None:
    rows = ragged(np.array(["ab"]), [0, 1])
    assert place(rows, Layout.pad([1], width=2)).tolist() == [["", "ab"]]


def test_parts_without_elements_take_the_dtype_of_others() -> None:
    nothing = Ragged.from_rows([[], []])
    routes = Ragged.from_rows([[[1, 2]], []], np.uint8)
    for parts in ([nothing, routes], [routes, nothing]):
        joined = concat(parts)
        assert joined.dtype == np.uint8
        assert joined.inner == (2,)
        assert joined.to_list() == concat_reference(parts)


@pytest.mark.parametrize("fill", [0, -0.0, 1])
def test_large_outputs_that_are_new_memory(fill: float) -> None:
    rows = ragged(np.arange(1.0, 11.0), [0, 3, 10])
    layout = Layout.pad(rows.lengths, width=3 << 20)
    out = place(rows, layout, fill)
    wanted = np.full(out.shape, fill, np.float64)
    wanted[0, -3:], wanted[1, -7:] = [1, 2, 3], range(4, 11)
    assert out.tobytes() == wanted.tobytes()
    assert place(rows, layout, fill, dtype=np.float32).tobytes() == wanted.astype(np.float32).tobytes()


def test_zero_rows() -> None:
    nothing = ragged(np.empty((0, 2), np.int8), [0])
    assert place(nothing, Layout.concat([])).shape == (0, 2)
    assert place(nothing, Layout.pack([], 4, bins_multiple_of=2)).shape == (0, 4, 2)
    assert take(np.empty((0, 5)), Layout.pad([], width=5)).to_list() == []
    assert concat([nothing]).to_list() == []


def test_inputs_are_left_alone() -> None:
    values = np.arange(6)
    rows = ragged(values, [0, 2, 6])
    place(rows, Layout.pad(rows.lengths), dtype=np.int8)
    concat([rows, rows])
    assert values.tolist() == list(range(6))
    assert not np.shares_memory(concat([rows]).values, values)


def at(size: int, start: int, length: int) -> Layout:
    """One row in an output of `size`."""
    return Layout((size,), np.array([start]), np.array([length]), np.array([length]))


def test_more_than_two_to_the_31_bytes() -> None:
    """Offsets and starts beyond int32, in memory that is mostly never touched."""
    if psutil.virtual_memory().available < 6 << 30:
        pytest.skip("needs 6 GB of memory to map")
    size = 2**31 + 100
    values = np.zeros(size, np.uint8)  # the system hands out zero pages when they are read or written
    values[-3:] = 1, 2, 3
    rows = ragged(values, [0, 5, size - 3, size])
    assert rows[2].tolist() == [1, 2, 3]
    assert rows.take([2, 0]).to_list() == [[1, 2, 3], [0] * 5]
    ends = ragged(values, [size - 3, size])
    layout = at(size, size - 5, 3)
    assert layout.gather_indices().tolist() == [size - 5, size - 4, size - 3]
    assert place(ends, Layout.pad([3], width=4)).tolist() == [[0, 1, 2, 3]]
    assert take(values, at(size, size - 2, 2)).to_list() == [[2, 3]]
    # A large element makes a large offset of a small row number.
    wide = np.zeros((3, 2**30), np.uint8)
    wide[2, -1] = 9
    assert ragged(wide, [0, 2, 3])[1:].flat[0, -1] == 9


@pytest.mark.parametrize(
    "array", [np.arange(12)[::2], np.arange(24).reshape(12, 2)[::2], np.arange(12).reshape(2, 6).T]
)
def test_take_of_what_is_not_contiguous_skips_dropped_rows(array: NDArray[Any]) -> None:
    layout = Layout.concat([2, 1, 3]).kept([True, False, True])
    assert take(array, layout).to_list() == [array[:2].tolist(), [], array[3:].tolist()]
