"""`rollkit.compat.trl` against slow versions, and against TRL where it is installed."""

import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollkit.compat.trl import flush_left, pad

untimed = settings(deadline=None)  # torch is slow at first, and TRL to import
DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.complex64,
    torch.complex128,
]


def content(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Everything that must be the same, to the bit."""
    flat = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach()).reshape(-1)
    held = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return tensor.dtype, tensor.shape, tensor.device, tensor.requires_grad, held


def contents(found: torch.Tensor | tuple[torch.Tensor, ...]) -> Any:
    return content(found) if isinstance(found, torch.Tensor) else [content(tensor) for tensor in found]


def pad_reference(tensors: list[torch.Tensor], value: float, side: str, multiple: int | None) -> torch.Tensor:
    """Rows joined with blocks of padding, for tensors of one inner shape."""
    width = max(len(tensor) for tensor in tensors)
    while multiple is not None and width % multiple:
        width += 1
    rows = []
    for tensor in tensors:
        shape = (width - len(tensor), *tensor.shape[1:])
        missing = torch.full(shape, value, dtype=tensors[0].dtype)
        row = tensor.to(tensors[0].dtype)
        rows.append(torch.cat([missing, row] if side == "left" else [row, missing]))
    return torch.stack(rows)


def flush_left_reference(mask: torch.Tensor, *tensors: torch.Tensor) -> list[list[list[float]]]:
    """Rows as lists, each rolled by hand."""
    firsts = [row.index(max(row)) for row in mask.tolist()]
    rolled = [
        [row[first:] + row[:first] for row, first in zip(tensor.tolist(), firsts, strict=True)]
        for tensor in (mask, *tensors)
    ]
    columns = list(zip(*rolled[0], strict=True))
    kept = next((i for i, column in enumerate(columns) if sum(column) == 0), len(columns))
    return [[row[:kept] for row in rows] for rows in rolled]


@st.composite
def tensors_to_pad(draw: st.DrawFn) -> list[torch.Tensor]:
    """Tensors of one dtype (or one that differs) and inner shape, some of which are no dense memory."""
    dtype = draw(st.sampled_from(DTYPES))
    inner = draw(st.lists(st.integers(0, 3), max_size=2))
    tensors = []
    for _ in range(draw(st.integers(1, 4))):
        length = draw(st.integers(0, 5))
        own = (
            draw(st.sampled_from(DTYPES)) if draw(st.integers(0, 9)) == 0 and not dtype.is_complex else dtype
        )
        if own.is_complex and not dtype.is_complex:
            own = dtype
        tensor = torch.arange(2 * length * int(np.prod(inner))).reshape(2 * length, *inner).to(own)
        tensors.append(tensor[::2] if draw(st.booleans()) else tensor[:length])
    return tensors


@untimed
@given(
    tensors_to_pad(),
    st.sampled_from([0, 1, 7, 1.5, True]),
    st.sampled_from(["left", "right"]),
    st.sampled_from([None, 1, 4]),
)
def test_pad(tensors: list[torch.Tensor], value: float, side: str, multiple: int | None) -> None:
    before = [tensor.clone() for tensor in tensors]
    found = pad(tensors, value, side, multiple)
    assert content(found) == content(pad_reference(tensors, value, side, multiple))
    assert all(content(a) == content(b) for a, b in zip(tensors, before, strict=True))


def test_pad_takes_the_first_dtype_and_wraps_as_torch_assigns() -> None:
    found = pad([torch.tensor([1], dtype=torch.uint8), torch.tensor([258, -1])], padding_value=-2)
    assert found.dtype == torch.uint8
    assert found.tolist() == [[1, 254], [2, 255]]


def test_pad_pads_inner_dimensions_on_the_right() -> None:
    found = pad([torch.ones(1, 2, 1), torch.ones(2, 1, 2)], -1.0, "left")
    assert found.tolist() == [[[[-1, -1], [-1, -1]], [[1, -1], [1, -1]]], [[[1, 1], [-1, -1]]] * 2]


def test_pad_carries_gradients() -> None:
    weights = torch.tensor([1.0, 2.0], requires_grad=True)
    pad([weights, torch.ones(3)], padding_side="left").mul(torch.arange(6.0).reshape(2, 3)).sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [1.0, 2.0]
    with torch.no_grad():
        assert pad([weights]).tolist() == [[1.0, 2.0]]


def test_pad_stays_on_the_device() -> None:
    found = pad([torch.empty(3, 2, device="meta"), torch.empty(1, 2, device="meta")])
    assert (found.device.type, found.shape) == ("meta", (2, 3, 2))


def test_pad_takes_the_rows_of_a_tensor_and_conjugates() -> None:
    assert pad(torch.tensor([[1, 2], [3, 4]]), pad_to_multiple_of=3).tolist() == [[1, 2, 0], [3, 4, 0]]
    assert pad([torch.tensor([1 + 2j]).conj(), torch.zeros(2)]).tolist() == [[1 - 2j, 0], [0, 0]]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (([],), ValueError),
        (([torch.zeros(2), torch.zeros(2, 2)],), ValueError),
        (([torch.zeros(2)], 0, "middle"), ValueError),
        (([torch.tensor(1)],), IndexError),
        (([torch.tensor(1)], 0, "left", 4), IndexError),
        (([torch.zeros(2, dtype=torch.uint8)], 300), RuntimeError),
        (([torch.zeros(2, dtype=torch.uint8)], 300, "middle"), RuntimeError),
        (([torch.zeros(2)], 0, "right", 0), ZeroDivisionError),
        (([torch.zeros(5)], 0, "right", -3), RuntimeError),
        (([[1, 2]],), AttributeError),
        ((iter([torch.zeros(2)]),), TypeError),
    ],
)
def test_pad_errors(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        pad(*arguments)


@st.composite
def masks(draw: st.DrawFn) -> torch.Tensor:
    """Spans of ones, holes, and now and then numbers that are no mask."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    values = draw(st.sampled_from([(0, 1), (0, 1), (-1, 0, 2)]))
    dtype = draw(st.sampled_from([torch.int64, torch.int8, torch.float32]))
    row = st.lists(st.sampled_from(values), min_size=width, max_size=width)
    return torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)), dtype=dtype)


@untimed
@given(masks(), st.lists(st.sampled_from(DTYPES), max_size=3), st.booleans())
def test_flush_left(mask: torch.Tensor, dtypes: list[torch.dtype], transposed: bool) -> None:
    numbers = torch.arange(mask.numel())
    shaped = numbers.reshape(mask.T.shape).T if transposed else numbers.reshape(mask.shape)
    tensors = [shaped.to(dtype) for dtype in dtypes]
    found = flush_left(mask, *tensors)
    flushed = found if isinstance(found, tuple) else (found,)
    assert isinstance(found, tuple) == bool(tensors)
    assert [tensor.dtype for tensor in flushed] == [mask.dtype, *dtypes]
    assert [tensor.tolist() for tensor in flushed] == flush_left_reference(mask, *tensors)


@untimed
@given(masks())
def test_flush_left_by_torch_is_the_same(mask: torch.Tensor) -> None:
    numbers = torch.arange(float(mask.numel())).reshape(mask.shape)
    fast = flush_left(mask, numbers)
    slow = flush_left(mask, numbers.clone().requires_grad_())
    assert [tensor.tolist() for tensor in fast] == [tensor.tolist() for tensor in slow]


def test_flush_left_carries_gradients() -> None:
    weights = torch.arange(4.0).reshape(1, 4).requires_grad_()
    _, flushed = flush_left(torch.tensor([[0, 1, 1, 0]]), weights)
    (flushed * torch.tensor([[3.0, 5.0]])).sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [[0.0, 3.0, 5.0, 0.0]]


def test_flush_left_of_tensors_that_are_larger_than_the_mask() -> None:
    mask, larger = torch.tensor([[0, 1, 1]]), torch.arange(8).reshape(2, 4)
    for tensor in (larger, larger.double().requires_grad_()):
        assert flush_left(mask, tensor)[1].tolist() == [[1, 2]]


def test_flush_left_without_rows_or_masks() -> None:
    for mask in (torch.zeros(0, 3), torch.zeros(2, 3)):
        found = flush_left(mask, torch.ones_like(mask), torch.ones_like(mask).requires_grad_())
        assert [tensor.shape for tensor in found] == [(len(mask), 0)] * 3


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((torch.zeros(3),), ValueError),
        ((torch.zeros(2, 0),), IndexError),
        ((torch.ones(1, 2, dtype=torch.bool),), RuntimeError),
        ((torch.ones(2, 2), torch.ones(2, 1)), RuntimeError),
        ((torch.tensor([[1, 0]]), torch.ones(1, 1)), RuntimeError),
        ((torch.ones(2, 2), torch.ones(1, 2)), RuntimeError),
        ((torch.ones(2, 2), [[1, 1]]), AttributeError),
    ],
)
def test_flush_left_errors(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        flush_left(*arguments)


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return contents(function(*arguments))
    except Exception as error:
        return type(error)


@pytest.fixture(scope="module")
def trl() -> Any:
    if importlib.util.find_spec("trl") is None:
        pytest.skip("trl is not installed")
    return importlib.import_module("trl.trainer.utils")


@pytest.mark.filterwarnings("ignore")
@untimed
@given(data=st.data())
def test_results_and_errors_are_those_of_trl(trl: Any, data: st.DataObject) -> None:
    for ours, theirs in ((pad, trl.pad), (flush_left, trl.flush_left)):
        named = [list(inspect.signature(function).parameters) for function in (ours, theirs)]
        assert named[0] == named[1]
    tensors = data.draw(tensors_to_pad())
    value, multiple = (
        data.draw(st.sampled_from([0, -100, 300, 1.5])),
        data.draw(st.sampled_from([None, 0, 4])),
    )
    side = data.draw(st.sampled_from(["left", "right", "middle"]))
    arguments = (tensors, value, side, multiple)
    assert outcome(pad, *arguments) == outcome(trl.pad, *arguments)
    mask = data.draw(masks())
    gathered = [dtype for dtype in DTYPES if dtype != torch.float8_e4m3fn]  # which torch does not gather
    other = torch.arange(mask.numel()).reshape(mask.shape).to(data.draw(st.sampled_from(gathered)))
    assert outcome(flush_left, mask, other) == outcome(trl.flush_left, mask, other)
