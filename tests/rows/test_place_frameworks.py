"""`place` and `take` by torch and JAX: under a gradient, on a device, traced; beside the host's results.

`device="meta"` stands in for a GPU: it has shapes, dtypes and a device, and no values that could be read.
"""

# Lists for int64 arrays, and tensors for arrays, which both are taken at run time.
# mypy: disable-error-code="arg-type, attr-defined, dict-item, no-untyped-call, return-value, unused-ignore"

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.thorough import combinations

import rollkit
from rollkit import Batch, Layout, Ragged, Rollouts, concat, pack, pad, place, take
from rollkit.testing import layouts, place_reference, take_reference

few = settings(max_examples=25)

Int64s = NDArray[np.int64]


def int64s(values: Any) -> Int64s:
    return np.array(values, np.int64)


def layout_of(shape: tuple[int, ...], *columns: Any) -> Layout:
    """A layout of lists."""
    return Layout(shape, *map(int64s, columns))


PIECES = layout_of((2, 4), [5, 0, 3], [2, 2, 1], [4, 2], [0, 1, 0], [2, 0, 0])
LAYOUTS = {
    "padded": Layout.pad([3, 0, 1, 2]),
    "end to end": Layout.concat([2, 4]),
    "aligned": Layout.concat([2, 0, 3], align=4),
    "packed": Layout.pack([3, 7, 2, 0], 8),
    "cut": Layout.pack([3, 9, 2], 4, oversize="truncate"),
    "dropped": Layout.pack([3, 9, 2], 4, oversize="drop"),
    "pieces": PIECES,
    "empty rows": Layout.pad([0, 0], width=2),
    "no rows": Layout.pad([], width=3),
}
NAMED = list(LAYOUTS.items())
each_layout = pytest.mark.parametrize("layout", list(LAYOUTS.values()), ids=list(LAYOUTS))


def numbers(layout: Layout, inner: tuple[int, ...] = ()) -> Ragged:
    """Rows for a layout, from 1 on, in a buffer that has more than they hold, before and after."""
    total = int(layout.row_lengths.sum())
    values = np.arange((total + 2) * int(np.prod(inner)), dtype=np.float64).reshape(-1, *inner)
    return Ragged(values, 1 + int64s([0, *layout.row_lengths.cumsum()]))


def is_like(got: Any, wanted: NDArray[Any]) -> None:
    """A tensor or a JAX array with these values and this shape."""
    assert tuple(got.shape) == wanted.shape
    values = got.detach().float().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    np.testing.assert_array_equal(values, wanted)


# torch.


@each_layout
@pytest.mark.parametrize("inner", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_gradient_is_that_of_indexing(layout: Layout, inner: tuple[int, ...], dtype: torch.dtype) -> None:
    rows = numbers(layout, inner)
    values = torch.tensor(rows.values, dtype=dtype, requires_grad=True)
    column = Ragged(values, rows.offsets)
    placed = place(column, layout, fill=5)
    assert placed.dtype == dtype
    is_like(placed, place_reference(rows, layout, 5))
    weights = torch.arange(1.0, placed.numel() + 1).reshape(placed.shape).to(dtype)
    (placed * weights).sum().backward()
    # By hand: where an element goes is its gradient.
    cells = place_reference(
        [np.arange(a, b) for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]
        if len(rows)
        else Ragged(int64s([]), int64s([0])),
        layout,
        -1,
    )
    wanted = torch.zeros_like(values)
    there = torch.tensor(cells >= 0)
    wanted[torch.tensor(cells)[there]] = weights[there]
    assert values.grad is not None
    assert torch.equal(values.grad, wanted)


@each_layout
@pytest.mark.parametrize("inner", [(), (2,)], ids=str)
def test_what_is_taken_has_the_gradient_of_indexing(layout: Layout, inner: tuple[int, ...]) -> None:
    array = np.arange(layout.size * int(np.prod(inner)), dtype=np.float64).reshape(*layout.shape, *inner)
    output, plain = (torch.tensor(array, requires_grad=True) for _ in range(2))
    taken = take(output, layout)
    assert isinstance(taken.values, torch.Tensor)
    index = torch.tensor(layout.gather_indices())
    wanted = plain.reshape(layout.size, *inner)[index]
    used = taken.values[: len(wanted)]
    assert torch.equal(used, wanted)
    assert taken.to_list() == take_reference(array, layout)
    weights = torch.rand(wanted.shape, dtype=torch.float64)
    (used * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert output.grad is not None
    assert plain.grad is not None
    assert torch.equal(output.grad, plain.grad)


@few
@given(layouts(max_rows=4, max_length=4))
def test_gradcheck(layout: Layout) -> None:
    rows = numbers(layout)
    values = torch.tensor(rows.values, requires_grad=True)
    output = torch.rand(layout.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: place(Ragged(v, rows.offsets), layout, 1.5), (values,))
    if layout.num_placed:
        assert torch.autograd.gradcheck(lambda o: take(o, layout).values, (output,))


@few
@given(layouts(), st.sampled_from([(), (2,)]))
def test_torch_equals_the_host(layout: Layout, inner: tuple[int, ...]) -> None:
    rows = numbers(layout, inner)
    wanted = place(rows, layout, 3)
    values = torch.tensor(rows.values, requires_grad=True)
    is_like(place(Ragged(values, rows.offsets), layout, 3), wanted)
    if len(rows):
        one_each = list(values.split([1, *rows.lengths.tolist(), 1]))[1:-1]
        is_like(place(one_each, layout, 3), wanted)
        halves = [Ragged(values, rows.offsets)[:1], Ragged(values, rows.offsets)[1:]]
        is_like(place(halves, layout, 3), wanted)
    taken = take(torch.tensor(wanted, requires_grad=True), layout)
    assert taken.to_list() == take_reference(wanted, layout)
    assert taken.values.requires_grad
    meta = place(Ragged(values.detach().to("meta"), rows.offsets), layout, 3)
    assert (meta.shape, meta.dtype, meta.device.type) == (wanted.shape, torch.float64, "meta")
    found = take(meta, layout)
    assert (found.values.device.type, found.inner) == ("meta", inner)
    assert found.lengths.tolist() == taken.lengths.tolist()


INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool]
UNSIGNED = [torch.uint16, torch.uint32, torch.uint64]


def bits_are_mapped(tensor: torch.Tensor) -> bool:
    """Whether `torch.vmap` takes views of other dtypes; that of torch 2.7 does not."""
    try:
        torch.vmap(lambda x: x.view(torch.uint8))(tensor)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("dtype", [*INTEGERS, *UNSIGNED, torch.bfloat16, torch.complex64], ids=str)
def test_vmap_and_meta_keep_dtypes(dtype: torch.dtype) -> None:
    layout = LAYOUTS["padded"]
    many = torch.arange(12).reshape(2, 6).to(dtype)
    if dtype in UNSIGNED and not bits_are_mapped(many):
        pytest.skip("torch.vmap maps no views of other dtypes, by which these are moved")
    found = torch.vmap(lambda v: place(Ragged(v, int64s([0, 3, 3, 4, 6])), layout, 1))(many)
    assert found.dtype == dtype
    back = torch.vmap(lambda o: take(o, layout).values)(found)
    assert back.dtype == dtype
    assert torch.equal(back, many)
    for line, row in zip(found, many, strict=True):
        host = place(Ragged(row.to(torch.complex64).numpy(), int64s([0, 3, 3, 4, 6])), layout, 1)
        np.testing.assert_array_equal(line.to(torch.complex64).numpy(), host)
    meta = place(Ragged(many[0].to("meta"), int64s([0, 3, 3, 4, 6])), layout, 1)
    assert (meta.dtype, meta.device.type) == (dtype, "meta")


def test_take_of_rows_end_to_end_is_a_view_with_its_gradient() -> None:
    output = torch.rand(6, requires_grad=True)
    taken = take(output, Layout.concat([2, 4]))
    assert taken.values.data_ptr() == output.data_ptr()
    taken[1].sum().backward()
    assert output.grad is not None
    assert output.grad.tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_without_autograd_a_gradient_is_not_asked_for(mode: Any, dtype: torch.dtype) -> None:
    layout = LAYOUTS["padded"]
    column = Ragged(torch.arange(6.0).to(dtype).requires_grad_(), int64s([0, 3, 3, 4, 6]))
    wanted = [[0, 1, 2], [0, 0, 0], [0, 0, 3], [0, 4, 5]]
    with mode():
        assert place(column, layout).astype(float).tolist() == wanted
        assert column.take([3, 0]).to_list() == [[4, 5], [0, 1, 2]]
        assert concat([column, column]).lengths.tolist() == 2 * column.lengths.tolist()
        assert column.astype(np.float64).to_list() == column.to_list()
        assert take(column.values.reshape(2, 3), Layout.pad([3, 2])).to_list() == [[0, 1, 2], [4, 5]]


class Sub(torch.Tensor):
    """A tensor with a class of its own, as of a GPU: only torch may move it."""


def test_indices_made_in_inference_mode_serve_training() -> None:
    layout = Layout.pad([3, 1, 2])
    with torch.inference_mode():
        take(torch.zeros(3, 3).as_subclass(Sub), layout)  # type: ignore[arg-type]
        place(Ragged(torch.zeros(6).as_subclass(Sub), int64s([0, 3, 4, 6])), layout)  # type: ignore[arg-type]
    assert len(layout._indices) == 1
    output, column = torch.zeros(3, 3, requires_grad=True), torch.zeros(6, requires_grad=True)
    take(output, layout).values.sum().backward()
    place(Ragged(column, int64s([0, 3, 4, 6])), layout).sum().backward()
    assert output.grad is not None
    assert output.grad.tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]
    assert column.grad is not None
    assert len(layout._indices) == 1


def test_indices_are_made_once_for_each_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = Layout.gather_indices

    def counted(layout: Layout) -> Int64s:
        made.append(1)
        return original(layout)

    monkeypatch.setattr(Layout, "gather_indices", counted)
    layout = Layout.pad([3, 1, 2])
    for _ in range(3):
        take(torch.zeros(3, 3, requires_grad=True), layout)
    assert len(made) == 1
    jax.jit(lambda o: take(o, layout).values)(jnp.zeros((3, 3)))
    torch.vmap(lambda o: take(o, layout).values)(torch.zeros(2, 3, 3))
    assert list(layout._indices) == [("torch", "cpu")]  # nothing of a trace


def test_fake_tensors_leave_nothing_behind() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    layout = Layout.pad([3, 1, 2])
    with FakeTensorMode():
        found = take(torch.zeros(3, 3), layout)
        assert tuple(found.values.shape) == (6,)
    assert take(torch.ones(3, 3, requires_grad=True), layout).to_list() == [[1, 1, 1], [1], [1, 1]]


@pytest.mark.filterwarnings("ignore")
def test_under_torch_compile() -> None:
    for layout in (Layout.pad([3, 1, 2]), PIECES):
        compiled = torch.compile(lambda o, layout=layout: take(o * 2, layout).values + 1, backend="eager")
        output = torch.rand(layout.shape, requires_grad=True)
        flat = (output * 2).reshape(-1)[torch.tensor(layout.gather_indices())] + 1
        assert torch.equal(compiled(output), flat)
        assert torch.equal(
            torch.autograd.grad(compiled(output).sum(), output)[0], torch.autograd.grad(flat.sum(), output)[0]
        )
        take(torch.rand(layout.shape, requires_grad=True), layout).values.sum().backward()


# Fills, dtypes, out.


def with_grad(values: Any, dtype: torch.dtype = torch.float64) -> Ragged:
    """Three rows, of which torch moves the elements."""
    return Ragged(torch.tensor(values, dtype=dtype).as_subclass(Sub), int64s([0, 3, 4, 6]))  # type: ignore


ROWS = Layout.pad([3, 1, 2])


@pytest.mark.parametrize("fill", [0, 7, -1.5, np.float32(2), float("nan"), True, torch.tensor(4.0)], ids=str)
def test_fills_are_those_of_the_host(fill: Any) -> None:
    values = torch.arange(6.0, dtype=torch.float64, requires_grad=True)
    offsets = int64s([0, 3, 4, 6])
    wanted = place(Ragged(values.detach(), offsets), ROWS, fill)
    is_like(place(Ragged(values, offsets), ROWS, fill), wanted)
    traced = jax.jit(lambda v: place(Ragged(v, offsets), ROWS, fill))(jnp.arange(6.0))
    is_like(traced, wanted)


def test_fills_of_inner_shape() -> None:
    values = torch.arange(12.0, requires_grad=True).reshape(6, 2)
    offsets = int64s([0, 3, 4, 6])
    wanted = place(Ragged(values.detach(), offsets), ROWS, [8, 9])
    for fill in ([8, 9], np.array([8, 9]), torch.tensor([8, 9])):
        is_like(place(Ragged(values, offsets), ROWS, fill), wanted)


DTYPES = [np.float32, np.float16, "bfloat16", np.float64]


@pytest.mark.parametrize("wanted", DTYPES, ids=str)
def test_dtypes_of_numpy_and_of_torch(wanted: Any) -> None:
    name = "bfloat16" if wanted == "bfloat16" else np.dtype(wanted).name
    of_torch = getattr(torch, name)
    values = torch.arange(6.0, requires_grad=True)
    column = Ragged(values, int64s([0, 3, 4, 6]))
    for dtype in (of_torch, jnp.bfloat16 if name == "bfloat16" else wanted):
        placed = place(column, ROWS, dtype=dtype)
        assert placed.dtype == of_torch
        assert column.astype(dtype).dtype == of_torch
        (gradient,) = torch.autograd.grad(placed.float().sum(), values)
        assert gradient.tolist() == [1] * 6
    assert Ragged.from_rows([values, values], dtype=of_torch).dtype == of_torch


def test_the_dtype_that_there_is_makes_no_copy() -> None:
    column = Ragged(torch.arange(6.0, requires_grad=True), int64s([0, 3, 4, 6]))
    assert column.astype(torch.float32) is column
    assert column.astype(np.float32) is column


def test_integers_are_checked_as_on_the_host() -> None:
    column = with_grad([1, 2, 3, 4, 300, -6], torch.int64)
    assert place(column, ROWS, dtype=torch.int16).dtype == torch.int16
    assert column[:2].astype(np.uint8).to_list() == [[1, 2, 3], [4]]  # what a slice leaves out may not fit
    cut = Layout.pack([3, 1, 2], 2, oversize="drop").kept(np.array([True, True, False]))
    assert place(column, cut, dtype=torch.uint8).dtype == torch.uint8


# One refusal a line.
# ruff: noqa: E501
REFUSALS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: with_grad([1, 2, 3, 4, 300, 6], torch.int64).astype(np.uint8), OverflowError, "row 2, position 0: 300 does not fit uint8"),
    (lambda: with_grad([1, 2, 3, 4, 5, -1], torch.int64).astype(torch.uint8), OverflowError, "row 2, position 1: -1 does not fit uint8"),
    (lambda: with_grad([1, 2, 3, 4, 5, 6], torch.int64).astype(bool), OverflowError, "row 0, position 1: 2 does not fit bool"),
    (lambda: with_grad([1, 100000, 3, 4, 5, 6], torch.int64).astype(np.float16), OverflowError, "row 0, position 1: 100000 does not fit float16"),
    (lambda: place([torch.tensor([1, 2, 3, 300]).as_subclass(Sub), torch.tensor([1, 2]).as_subclass(Sub)], PIECES, dtype=np.uint8), OverflowError, "row 0, position 3: 300 does not fit uint8"),
    (lambda: with_grad(range(6)).astype(torch.int32), TypeError, "cannot cast torch.float64 to torch.int32 without loss; round it first"),
    (lambda: with_grad(range(6), torch.complex64).astype(torch.float32), TypeError, "cannot cast torch.complex64 to torch.float32 without loss; take its real part or its magnitude first"),
    (lambda: place(with_grad(range(6), torch.int32), ROWS, 0.5), OverflowError, "fill=0.5 does not fit int32"),
    (lambda: place(with_grad(range(6), torch.uint8), ROWS, 256), OverflowError, "fill=256 does not fit uint8"),
    (lambda: place(with_grad(range(6), torch.float16), ROWS, 1e6), OverflowError, "fill=1000000.0 does not fit float16"),
    (lambda: place(with_grad(range(6)), ROWS, [1, 2]), ValueError, "fill of shape (2,) is no float64 of inner shape ()"),
    (lambda: place(with_grad(range(6)), ROWS, torch.ones((), requires_grad=True)), TypeError, "got a torch tensor with a gradient, which would be lost; pass .detach()"),
    (lambda: place(with_grad(range(6)), ROWS, out=np.zeros((3, 3))), TypeError, "out is for arrays in the host's memory; leave it out for tensors that are not"),
    (lambda: concat([with_grad(range(6))] * 2, out=np.zeros(12)), TypeError, "out is for arrays in the host's memory; leave it out for tensors that are not"),
    (lambda: place(with_grad(range(6)), Layout.pad([3, 1, 3])), ValueError, "row 2 has 2 elements, the layout has 3 for it"),
    (lambda: place([torch.ones(3, requires_grad=True), np.ones(1), np.ones(2)], ROWS), TypeError, "row 0: got a torch tensor with a gradient, which would be lost; pass .detach()"),
    (lambda: place([np.ones(3), torch.ones(1, requires_grad=True), [1.0, 2.0]], ROWS), TypeError, "row 1: got a torch tensor with a gradient, which would be lost; pass .detach()"),
    (lambda: place([torch.ones(3, requires_grad=True), jnp.ones(1), jnp.ones(2)], ROWS), TypeError, "row 0: got a torch tensor with a gradient, which would be lost; pass .detach()"),
    (lambda: place([jnp.ones(3), torch.ones(1, device="meta"), jnp.ones(2)], ROWS), TypeError, "row 1: got a torch tensor without values (meta device, compiler or vmap); use a real one"),
    (lambda: place([torch.ones(3, requires_grad=True), torch.ones(1, device="meta"), torch.ones(2)], ROWS), TypeError, "rows are on cpu and on meta; move all to one device"),
    (lambda: place([with_grad(range(6))[:1], np.ones(1), np.ones(2)], ROWS), TypeError, "parts[1] and parts[0] are of two frameworks, or of a device and the host"),
    (lambda: concat([with_grad(range(6)), Ragged(np.ones(2), int64s([0, 2]))]), TypeError, "parts[1] and parts[0] are of two frameworks, or of a device and the host"),
    (lambda: concat([with_grad(range(6)), Ragged(torch.ones(2, device="meta", dtype=torch.float64), int64s([0, 2]))]), TypeError, "rows are on cpu and on meta; move all to one device"),
    (lambda: place([torch.ones(3, requires_grad=True), torch.ones(1, 2).double(), torch.ones(2)], ROWS), ValueError, "row 1 is float64 of inner shape (2,), row 0 is float64 of ()"),
    (lambda: place([torch.ones((), requires_grad=True)], Layout.pad([1])), ValueError, "row 0 is a 0-D array; a row has at least one dimension"),
    (lambda: with_grad(range(6)).to_arrow(), TypeError, "Ragged.to_arrow reads values on the host; these are of torch, on a device, with a gradient, or traced: take them there first (.detach().cpu(), np.asarray)"),
    (lambda: with_grad(range(6)).equals(with_grad(range(6))), TypeError, "Ragged.equals reads values on the host; these are of torch, on a device, with a gradient, or traced: take them there first (.detach().cpu(), np.asarray)"),
    (lambda: take(torch.ones(3, 4, requires_grad=True), ROWS), ValueError, "array must have shape (3, 3) (and inner dims), got (3, 4)"),
    (lambda: Ragged(torch.ones(3, device="meta"), int64s([0, 3])).to_list(), TypeError, "Ragged.to_list reads values on the host; these are of torch, on a device, with a gradient, or traced: take them there first (.detach().cpu(), np.asarray)"),
    (lambda: jax.jit(lambda v: place(Ragged(v, int64s([0, 3, 4, 6])), ROWS, dtype=np.int8))(jnp.arange(6)), TypeError, "cannot check that int32 values fit int8 while tracing; cast first"),
    (lambda: jax.jit(lambda v: place(Ragged(v, int64s([0, 3, 4, 6])), ROWS, dtype=np.int64))(jnp.arange(6)), TypeError, "JAX has no int64 unless jax_enable_x64 is set; set it, or ask for 32 bits"),
    (lambda: jax.eval_shape(lambda o: take(o, Layout.at((2**31 + 2,), int64s([2**31]), int64s([2]))).values, jax.ShapeDtypeStruct((2**31 + 2,), jnp.int8)), OverflowError, "int64 values beyond int32; set jax_enable_x64"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as found:
        call()
    assert str(found.value) == message  # JAX adds notes, which `match` would see


# JAX.


@pytest.mark.parametrize(("name", "inner"), combinations(LAYOUTS, [(), (2,)]), ids=str)
def test_jax_equals_the_host(name: str, inner: tuple[int, ...]) -> None:
    layout = LAYOUTS[name]
    rows = numbers(layout, inner)
    values = jnp.asarray(rows.values, jnp.float32)
    wanted = place_reference(rows, layout, 5).astype(np.float32)

    def placed(values: Any) -> Any:
        return place(Ragged(values, rows.offsets), layout, 5)

    def taken(output: Any) -> Any:
        return take(output, layout).values[: layout.num_placed]

    is_like(placed(values), wanted)  # eager: the host's
    is_like(jax.jit(placed)(values), wanted)
    is_like(jax.vmap(placed)(jnp.stack([values, values + 1]))[0], wanted)
    index = layout.gather_indices()
    flat = wanted.reshape(layout.size, *inner)[index]
    is_like(jax.jit(taken)(wanted), flat)
    is_like(jax.vmap(taken)(np.stack([wanted, wanted])), np.stack([flat, flat]))
    weights = np.arange(1.0, wanted.size + 1, dtype=np.float32).reshape(wanted.shape)
    cells = place_reference(Ragged(np.arange(len(rows.values)), rows.offsets), layout, -1)
    by_hand = np.zeros(rows.values.shape, np.float32)
    by_hand[cells[cells >= 0]] = weights[cells >= 0]
    is_like(jax.grad(lambda v: (placed(v) * weights).sum())(values), by_hand)
    for gradient in (jax.grad, lambda f: jax.jit(jax.grad(f))):
        is_like(
            gradient(lambda o: (taken(o) * weights.reshape(-1, *inner)[: len(flat)]).sum())(
                jnp.asarray(wanted)
            ),
            np.asarray(
                jax.grad(
                    lambda o: (
                        o.reshape(layout.size, *inner)[index] * weights.reshape(-1, *inner)[: len(flat)]
                    ).sum()
                )(jnp.asarray(wanted))
            ),
        )


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool_, jnp.bfloat16, jnp.complex64], ids=str)
def test_traces_keep_dtypes(dtype: Any) -> None:
    values = jnp.arange(6).astype(dtype)
    found = jax.jit(lambda v: place(Ragged(v, int64s([0, 3, 4, 6])), ROWS, 1))(values)
    assert found.dtype == dtype
    assert jax.jit(lambda o: take(o, ROWS).values)(found).tolist() == values.tolist()


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from rollkit import Layout, Ragged, place, take
assert len(jax.devices()) == 2
layout = Layout.pad([3, 1])
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))
where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
output = jax.device_put(jnp.arange(6.0).reshape(2, 3), where)
inside = jax.jit(lambda: take(output, layout).values * 2)()  # has values, on devices, under a trace
assert inside.tolist() == [0, 2, 4, 10], inside
assert not layout._indices
for _ in range(2):
    assert take(output, layout).to_list() == [[0, 1, 2], [5]]
assert len(layout._indices) == 1
other = jax.device_put(jnp.arange(6.0).reshape(2, 3), jax.devices()[1])
assert take(other, layout).to_list() == [[0, 1, 2], [5]]
"""


def test_jax_arrays_on_several_devices() -> None:
    import os

    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# Ragged.


def test_rows_of_a_tensor_that_only_torch_moves() -> None:
    values = torch.arange(6.0, requires_grad=True)
    column = Ragged(values, int64s([0, 3, 4, 6]))
    assert repr(column) == "Ragged(3 rows, 6 values, torch.float32, mean length 2.0)"
    assert column.to_list() == [[0, 1, 2], [3], [4, 5]]
    for found, rows in [
        (column[1:], [[3], [4, 5]]),
        (column[::-1], [[4, 5], [3], [0, 1, 2]]),
        (column.take([2, 2, 0]), [[4, 5], [4, 5], [0, 1, 2]]),
        (column.take(np.array([True, False, True])), [[0, 1, 2], [4, 5]]),
        (concat([column, column[1:2]]), [[0, 1, 2], [3], [4, 5], [3]]),
        (Ragged.from_rows(list(column)), [[0, 1, 2], [3], [4, 5]]),
        (column.astype(torch.float64), [[0, 1, 2], [3], [4, 5]]),
        (concat([column, Ragged.from_rows([[]])]), [[0, 1, 2], [3], [4, 5], []]),
    ]:
        assert found.to_list() == rows
        (gradient,) = torch.autograd.grad(found.flat.sum(), values)
        counts = np.bincount([int(x) for row in rows for x in row], minlength=6)
        assert gradient.tolist() == counts.tolist()
    assert column[2].requires_grad


def test_pickles_do_not_ship_what_a_slice_leaves_out() -> None:
    for values in (torch.zeros(100_000, requires_grad=True), torch.zeros(100_000).as_subclass(Sub)):  # type: ignore
        sent = pickle.dumps(Ragged(values, int64s([0, 99_990, 100_000]))[1:])
        assert len(sent) < 5_000
        again = pickle.loads(sent)
        assert again.lengths.tolist() == [10]
        assert again.values.requires_grad == values.requires_grad


# Nothing is lost on the way, whatever is called.


def keeps(result: Any, leaf: torch.Tensor) -> bool:
    """Whether some array of a result still has the gradient of `leaf`."""
    if isinstance(result, torch.Tensor):
        if not result.requires_grad:
            return False
        (gradient,) = torch.autograd.grad(result.sum(), leaf, allow_unused=True, retain_graph=True)
        return gradient is not None
    if isinstance(result, Ragged):
        return keeps(result.values, leaf)
    found = [result[name] for name in result] if isinstance(result, Batch | Rollouts) else result
    return isinstance(found, list) and any(keeps(one, leaf) for one in found)


def rollout_columns() -> tuple[torch.Tensor, dict[str, Any]]:
    leaf = torch.arange(3.0, requires_grad=True)
    columns = {
        "prompt_token_ids": [[1], [2]],
        "response_ids": [[3, 4], [5]],
        "loss_masks": [[1, 1], [1]],
        "rewards": [1.0, 2.0],
        "stop_reasons": ["stop", "length"],
        "trajectory_ids": [0, 1],
        "values": Ragged(leaf, int64s([0, 2, 3])),
    }
    return leaf, columns


CALLS: dict[str, Callable[[Any], Any]] = {
    "pack": lambda given: pack(given, 8),
    "pack with a layout": lambda given: pack(given, layout=Layout.pad([3, 2])),
    "pack of parts": lambda given: pack([given, given], 8),
    "pad": lambda given: pad(given),
    "pad, dtypes": lambda given: pad(given, dtypes={"values": torch.float64}),
    "pad, fills": lambda given: pad(given, fills={"values": 3}),
    "Rollouts": lambda given: Rollouts(given),
    "Rollouts[:1]": lambda given: Rollouts(given)[:1],
    "Rollouts.take": lambda given: Rollouts(given).take([1, 0]),
    "concat": lambda given: concat([Rollouts(given), Rollouts(given)]),
    "mask_overlong": lambda given: rollkit.mask_overlong(given),
    "merge_steps": lambda given: rollkit.merge_steps({**given, "is_last_step": [True, True]}),
}


@pytest.mark.parametrize("name", list(CALLS))
@pytest.mark.parametrize("form", ["Ragged", "tensors"])
def test_a_column_keeps_its_gradient_or_is_refused(name: str, form: str) -> None:
    leaf, columns = rollout_columns()
    if form == "tensors":
        columns["values"] = list(columns["values"])
    try:
        result = CALLS[name](columns)
    except (TypeError, ValueError) as error:
        assert re.search("gradient|on the host", str(error)), error  # noqa: PT017
        return
    assert keeps(result, leaf)


def test_a_batch_of_tensors_goes_back_to_rows() -> None:
    leaf, columns = rollout_columns()
    batch = pad(columns)
    assert batch["values"].requires_grad
    assert take(batch["values"], batch.responses).to_list() == [[0, 1], [2]]
    rows = batch.unpack(batch["values"] * 2)
    assert rows.to_list() == [[0, 0, 2], [0, 4]]
    (gradient,) = torch.autograd.grad(rows.values.sum(), leaf)
    assert gradient.tolist() == [2, 2, 2]


ARRAYS: dict[str, Callable[[Any], Any]] = {
    "advantages": lambda x: rollkit.advantages({"response_ids": [[1], [2], [3]], "rewards": x}, by=[0, 0, 1]),
    "fill": lambda x: place([[1.0]], Layout.pad([1], width=2), fill=x[0]),
    "lengths": lambda x: Layout.pad(x),
    "Ragged.from_rows": lambda x: Ragged.from_rows(x[None]),
    "row column": lambda x: pad({"response_ids": [[1], [2], [3]], "scores": x}),
    "known row column": lambda x: pad({"response_ids": [[1], [2], [3]], "rewards": x}),
    "padded column": lambda x: Rollouts({"response_ids": [[1]], "advantages": x[:1, None]}),
    "metrics": lambda x: rollkit.rollout_metrics({"response_ids": [[1], [2], [3]], "rewards": x}),
}


@pytest.mark.parametrize("name", list(ARRAYS))
@pytest.mark.parametrize("place_", ["gradient", "meta"])
def test_an_array_keeps_its_gradient_or_is_refused(name: str, place_: str) -> None:
    leaf = torch.arange(3.0, requires_grad=True) if place_ == "gradient" else torch.zeros(3, device="meta")
    try:
        result = ARRAYS[name](leaf)
    except (TypeError, ValueError) as error:
        assert re.search("gradient|without values|integer|on the host", str(error)), error  # noqa: PT017
        return
    if place_ == "gradient":
        assert keeps(result, leaf) or any(
            keeps(found, leaf) for found in getattr(result, "rows", {}).values()
        )
    else:
        assert "meta" in str([*getattr(result, "rows", {}).values(), getattr(result, "values", result)])


def test_tensors_that_are_no_block_are_refused() -> None:
    import torch

    layout = Layout.concat(np.array([2, 2]))
    pieces = [torch.ones(2), torch.ones(2)]
    for tensor in (torch.ones(4).to_sparse(), torch.nested.nested_tensor(pieces, layout=torch.jagged)):
        with pytest.raises(TypeError, match="pass a dense one, or a list of rows"):
            take(tensor, layout)


def test_torch_dtypes_are_taken_wherever_rows_are_moved() -> None:
    import torch

    layout = Layout.concat(np.array([1, 2]))
    rows = [torch.tensor([1]), torch.tensor([2, 3])]
    assert str(place(rows, layout, dtype=torch.bfloat16).dtype) == "bfloat16"
    meta = [row.to("meta", torch.float8_e5m2) for row in rows]
    assert place(meta, layout).dtype == torch.float8_e5m2


BEYOND = [
    (torch.float64, torch.float32, 1e39),
    (torch.float32, torch.float16, 1e5),
    (torch.float32, torch.bfloat16, 3.4e38),
    (torch.complex128, torch.complex64, 1e39),
]


@pytest.mark.parametrize(("source", "target", "value"), BEYOND, ids=str)
def test_no_finite_float_becomes_infinite_in_torch(source: Any, target: Any, value: float) -> None:
    kept = torch.tensor([1.0, torch.inf, -torch.inf, torch.nan], dtype=source, requires_grad=True)
    assert Ragged(kept, [0, 4]).astype(target).values.detach().isinf().tolist() == [False, True, True, False]
    odd = torch.tensor([1, 2, 3, value], dtype=source, requires_grad=True)
    for cast in (
        Ragged(odd, [0, 2, 4]).astype,
        lambda dtype: place(Ragged(odd, [0, 2, 4]), Layout.pad([2, 2]), dtype=dtype),
    ):
        with pytest.raises(OverflowError, match=r"^row 1, position 1: .* does not fit"):
            cast(target)


def test_no_finite_float_becomes_infinite_in_jax() -> None:
    from rollkit._arrays import jax as own

    for target, value in ((jnp.float16, 1e5), (jnp.bfloat16, 3.4e38)):
        assert not jnp.isfinite(own.cast(jnp.array([jnp.inf, jnp.nan]), target)).any()
        with pytest.raises(OverflowError, match="does not fit"):
            own.cast(jnp.array([1.0, value]), target)
    with pytest.raises(OverflowError, match="float64 values beyond float32; set jax_enable_x64"):
        own.from_numpy(np.array([1.0, 1e39]), None, {})
    assert own.from_numpy(np.array([1.0, np.inf]), None, {}).tolist() == [1.0, np.inf]
