"""`to_packed` and `from_packed` with stand-ins that check what SkyRL's classes check."""

# ruff: noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.house.refusals import check_refusal
from tests.thorough import examples

import rollkit
from rollkit.compat.skyrl import from_packed, to_packed

Ragged: Any = rollkit.Ragged


def check_offsets(offsets: Any, values: Any, count: int) -> None:
    assert offsets.dtype == torch.int32
    assert offsets.ndim == 1
    assert offsets.device == values.device
    assert int(offsets[0]) == 0
    assert int(offsets[-1]) == count


@dataclass
class PackedTensor:
    values: Any
    cu_seqlens: Any

    def __post_init__(self) -> None:
        assert self.cu_seqlens.numel() >= 2
        check_offsets(self.cu_seqlens, self.values, len(self.values))


@dataclass
class PackedRaggedTensor:
    values: Any
    row_offsets: Any
    cu_seqlens: Any

    def __post_init__(self) -> None:
        assert self.values.ndim == 1
        assert self.cu_seqlens.numel() >= 2
        check_offsets(self.row_offsets, self.values, len(self.values))
        check_offsets(self.cu_seqlens, self.values, self.row_offsets.numel() - 1)


@dataclass
class WithHostOffsets(PackedTensor):
    cu_seqlens_cpu: Any = None


def routes() -> Any:
    return Ragged(np.arange(24, dtype=np.uint8).reshape(6, 2, 2), [0, 3, 3, 6])


def test_rows_share_memory_both_ways() -> None:
    rows = routes()
    packed = to_packed(rows, PackedTensor)
    assert packed.values.data_ptr() == rows.values.ctypes.data
    assert packed.cu_seqlens.tolist() == [0, 3, 3, 6]
    back = from_packed(packed)
    assert back.equals(rows)
    assert back.values.ctypes.data == rows.values.ctypes.data


def test_rows_of_a_slice_and_of_read_only_memory() -> None:
    rows = routes()
    rows.values.flags.writeable = False
    rows.offsets.flags.writeable = False
    packed = to_packed(rows[2:], PackedTensor)
    assert packed.values.data_ptr() == rows.values[3:].ctypes.data
    assert from_packed(packed).equals(rows[2:])
    assert from_packed(to_packed(rows[1:2], PackedTensor)).equals(rows[1:2])


def test_lists_share_memory_both_ways() -> None:
    rows = Ragged.from_rows([[[1, 2], []], [], [[3], [4, 5, 6]]], np.int32, lists=True)
    packed = to_packed(rows, PackedRaggedTensor)
    ids: Any = rows.values.values
    assert packed.values.data_ptr() == ids.ctypes.data
    assert packed.row_offsets.tolist() == [0, 2, 2, 3, 6]
    assert packed.cu_seqlens.tolist() == [0, 2, 2, 4]
    assert from_packed(packed).equals(rows)
    later = to_packed(rows[1:], PackedRaggedTensor)
    assert later.values.data_ptr() == ids[2:].ctypes.data
    assert later.row_offsets.tolist() == [0, 1, 4]
    assert from_packed(later).equals(rows[1:])


def test_a_gradient_goes_through_both_ways() -> None:
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    packed = to_packed(Ragged(values, [0, 1, 3]), PackedTensor)
    assert packed.values.data_ptr() == values.data_ptr()
    back: Any = from_packed(packed).values
    (back * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 10.0, 100.0]


def test_offsets_on_the_host_are_read_where_there_are_some() -> None:
    values, meta = torch.arange(3), torch.tensor([0, 1, 3], dtype=torch.int32)
    found = from_packed(WithHostOffsets(values, meta, torch.tensor([0, 2, 3])))
    assert found.to_list() == [[0, 1], [2]]
    assert from_packed(WithHostOffsets(values, meta)).to_list() == [[0], [1, 2]]


@settings(deadline=None, max_examples=examples(100))
@given(
    rows=st.lists(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3), min_size=1, max_size=4),
    cut=st.integers(0, 3),
)
def test_round_trips(rows: list[list[list[int]]], cut: int) -> None:
    rows = rows[min(cut, len(rows) - 1) :]
    lists = Ragged.from_rows(rows, np.int32, lists=True)
    assert from_packed(to_packed(lists, PackedRaggedTensor)).equals(lists)
    flat = Ragged.from_rows([[x for one in row for x in one] for row in rows], np.int32)
    assert from_packed(to_packed(flat, PackedTensor)).equals(flat)


LISTS = Ragged.from_rows([[[1, 2]], [[3], [4]]], lists=True)
BAD: Any = [[1], [2]]
CLASS: Any = 5

# fmt: off
REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: to_packed(BAD, PackedTensor), TypeError, "rows must be a Ragged, got list; Ragged.from_rows makes one"),
    (lambda: to_packed(routes(), CLASS), TypeError, "kind must be SkyRL's PackedTensor, got int"),
    (lambda: to_packed(LISTS, PackedTensor), TypeError, "rows has a list for each element; give SkyRL's PackedRaggedTensor as kind"),
    (lambda: to_packed(routes(), PackedRaggedTensor), TypeError, "rows has a value for each element; give SkyRL's PackedTensor as kind"),
    (lambda: to_packed(routes()[:0], PackedTensor), ValueError, "rows has none, and SkyRL packs at least one; leave the field out"),
    (lambda: to_packed(Ragged(np.zeros(1, "M8[s]"), [0, 1]), PackedTensor), TypeError, "torch has no dtype like datetime64[s]; make it numbers, or a list of objects"),
    (lambda: from_packed(BAD), TypeError, "packed must be SkyRL's PackedTensor; list has no 'values'"),
    (lambda: from_packed(PackedTensor.__new__(PackedTensor)), TypeError, "packed must be SkyRL's PackedTensor; PackedTensor has no 'values'"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_what_cannot_be_packed_is_refused(call: Any, kind: type[Exception], message: str) -> None:
    check_refusal(call, kind, message)


def test_more_elements_than_int32_counts() -> None:
    values = torch.zeros(1, dtype=torch.uint8).expand(2**31)
    message = "rows has 2147483648 elements, beyond int32, which cu_seqlens is of; split them"
    check_refusal(
        lambda: to_packed(Ragged(values, [0, 2**31]), PackedTensor),
        OverflowError,
        message,
    )
