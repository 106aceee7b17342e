"""`_native.place` of pieces, beside slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rollkit import _native


def int64s(values: Any) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def place(parts: list[Any], starts: Any, lengths: Any, out: NDArray[Any], fill: Any, **pieces: Any) -> None:
    pieces = {name: int64s(values) for name, values in pieces.items()}
    element = np.array([fill], out.dtype)
    _native.place(parts, int64s(starts), int64s(lengths), None, fill=element, out=out, **pieces)


@given(st.data())
def test_pieces_are_slices_of_rows(data: st.DataObject) -> None:
    row_lengths = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=5))
    rows = [np.arange(length) + 10 * i for i, length in enumerate(row_lengths)]
    cut = data.draw(st.integers(0, len(rows)))  # the first rows in one buffer, the others each in its own
    firsts = int64s(np.cumsum([0, *row_lengths])[:cut])
    parts: list[Any] = [(np.concatenate([int64s([]), *rows[:cut]]), firsts), *rows[cut:]]
    out_dtype = data.draw(st.sampled_from([np.int64, np.int8]))
    wanted: list[int] = []
    pieces: list[tuple[int, int, int, int]] = []
    for row in data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6)):
        begin = data.draw(st.integers(0, row_lengths[row]))
        length = data.draw(st.integers(0, row_lengths[row] - begin))
        wanted += [-1] * data.draw(st.integers(0, 3))
        pieces.append((len(wanted), length, row, begin))
        wanted += rows[row][begin : begin + length].tolist()
    starts, lengths, source_rows, begins = zip(*pieces, strict=True) if pieces else ((), (), (), ())
    out = np.empty(len(wanted), out_dtype)
    where = {"row_lengths": row_lengths, "source_rows": source_rows, "begins": begins}
    place(parts, starts, lengths, out, -1, **where)
    assert out.tolist() == wanted


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ({"source_rows": [2]}, "piece 0 is of row 2, but there are 2 rows"),
        ({"source_rows": [-1]}, "piece 0 is of row -1, but there are 2 rows"),
        ({"begins": [2]}, "piece 0 is elements 2 to 2 \\+ 2 of row 1, which has 3"),
        ({"begins": [-1]}, "piece 0 is elements -1 to -1 \\+ 2 of row 1"),
        ({"begins": [2**63 - 1]}, "of row 1, which has 3"),
        ({"row_lengths": [1, 1]}, "of row 1, which has 1"),
        ({"row_lengths": [1, 4]}, "row 1 is elements 0 to 0 \\+ 4 of a source that has 3"),
        ({"row_lengths": [1, -1]}, "row 1 is elements 0 to 0 \\+ -1"),
        ({"begins": [0, 0]}, "begins has 2 rows, expected 1"),
    ],
)
def test_pieces_that_are_not_there_are_refused(pieces: dict[str, Any], message: str) -> None:
    given = {"row_lengths": [1, 3], "source_rows": [1], "begins": [1], **pieces}
    with pytest.raises(ValueError, match=message):
        place([np.zeros(1), np.ones(3)], [0], [2], np.empty(2), 0, **given)


def test_pieces_need_all_three() -> None:
    with pytest.raises(TypeError, match="pieces need row_lengths, source_rows and begins, all three"):
        place([np.zeros(1)], [0], [1], np.empty(1), 0, begins=[0])


def test_a_value_that_does_not_fit_is_named_within_its_row() -> None:
    given = {"row_lengths": [4], "source_rows": [0, 0], "begins": [0, 2]}
    with pytest.raises(OverflowError, match="row 0, position 3: 300 does not fit uint8"):
        place([int64s([1, 2, 3, 300])], [0, 2], [2, 2], np.empty(4, np.uint8), 0, **given)
