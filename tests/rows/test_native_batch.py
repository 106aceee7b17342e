"""`_native.fill_batch` beside a loop over tokens: parts of every kind, truncated and dropped rows, pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rollkit import Layout, _native

FILL = -7


def int64s(values: Any) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def parts_of(data: st.DataObject, rows: list[NDArray[Any]]) -> tuple[list[Any], NDArray[np.int64] | None]:
    """Rows as `fill_batch` takes them: arrays, or buffers with begins or offsets."""
    kind = data.draw(st.sampled_from(["arrays", "begins", "offsets", "mixed"]))
    lengths = int64s([len(row) for row in rows])
    cut = {"arrays": 0, "mixed": len(rows) // 2}.get(kind, len(rows))
    joined = np.concatenate([rows[0][:0], np.full(2, 99, rows[0].dtype), *rows[:cut]])
    offsets = int64s(np.cumsum([2, *lengths[:cut]]))
    described = data.draw(st.booleans()) if kind in ("arrays", "mixed") else kind == "offsets"
    where = offsets if described else offsets[:-1].copy()
    return [(joined, where), *rows[cut:]], None if described else lengths


@given(st.data())
def test_fill_batch_equals_a_loop_over_tokens(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=7))
    prompt_lengths, responses = int64s(lengths).T.copy()
    totals = prompt_lengths + responses
    oversize = data.draw(st.sampled_from(["truncate", "drop", "alone"]))
    layout = Layout.pack(totals, data.draw(st.integers(1, 12)), oversize=oversize)
    dtype = data.draw(st.sampled_from([np.int64, np.int32]))

    def rows(lengths: NDArray[np.int64], salt: int) -> list[NDArray[Any]]:
        return [(salt + 10 * i + np.arange(n)).astype(dtype) for i, n in enumerate(lengths)]

    missing = int64s([data.draw(st.integers(0, n)) for n in totals])
    columns = {
        "prompt": rows(prompt_lengths, 1),
        "response": rows(responses, 1000),
        "sequence": rows(totals - missing, 2000),
        "last": rows(np.ones_like(totals), 3000),
    }
    out = {name: np.full(layout.size, 5, np.int32) for name in [*columns, "tokens"]}
    fill = np.array([FILL], np.int32)
    descriptors: list[Any] = []
    for name, column in columns.items():
        parts, described = parts_of(data, column)
        descriptors.append((name, parts, described, fill, out[name], False))
    prompts, responses_ = parts_of(data, columns["prompt"]), parts_of(data, columns["response"])
    both = (prompts[0], responses_[0]), (prompts[1], responses_[1])
    descriptors.append(("tokens", *both, fill, out["tokens"], False))
    made: dict[str, Any] = {
        "segment_ids": np.full(layout.shape, 5, np.int32),
        "positions": np.full(layout.shape, 5, np.int32),
        "attention_mask": np.full(layout.shape, 5, np.uint8),
    }
    _native.fill_batch(
        layout.starts,
        layout.lengths,
        layout.order,
        layout.row_lengths,
        prompt_lengths,
        descriptors,
        size=layout.size,
        width=layout.width,
        **made,
    )
    wanted = {name: np.full(layout.size, FILL) for name in out}
    for row, (start, placed) in enumerate(zip(layout.starts, layout.lengths, strict=True)):
        prompt = prompt_lengths[row]
        for at in range(placed):
            side, first = ("prompt", 0) if at < prompt else ("response", prompt)
            wanted[side][start + at] = wanted["tokens"][start + at] = columns[side][row][at - first]
            if at < len(columns["sequence"][row]):
                wanted["sequence"][start + at] = columns["sequence"][row][at]
        if placed > prompt:
            wanted["last"][start + placed - 1] = columns["last"][row][0]
    for name, found in out.items():
        assert found.tolist() == wanted[name].tolist(), name
    assert np.array_equal(made["segment_ids"], layout.segment_ids())
    assert np.array_equal(made["positions"], layout.positions())
    assert np.array_equal(made["attention_mask"], layout.attention_mask())


def call(*columns: Any, **options: Any) -> None:
    """Two rows of 1 + 2 and 0 + 2 tokens, end to end."""
    arrays = {"starts": [0, 3], "lengths": [3, 2], "row_lengths": [3, 2], "prompt_lengths": [1, 0]}
    given = [int64s(options.pop(name, values)) for name, values in arrays.items()]
    options = {"size": 5, "width": 5, **options}
    starts, lengths, row_lengths, prompt_lengths = given
    _native.fill_batch(starts, lengths, None, row_lengths, prompt_lengths, list(columns), **options)


def column(level: str, *rows: Any, out: Any = None, **options: Any) -> Any:
    out = np.empty(5, np.int16) if out is None else out
    parts = [np.array(row, options.get("dtype", np.int64)) for row in rows]
    return level, parts, None, np.zeros(1, out.dtype), out, options.get("zeroed", False)


def test_pieces_of_rows_keep_their_positions() -> None:
    out, last, positions = np.empty(6, np.int16), np.empty(6, np.int16), np.empty(6, np.int32)
    columns = column("response", [1, 2], [3, 4], out=out), column("last", [8], [9], out=last)
    pieces = {"starts": [0, 2, 4], "lengths": [2, 1, 1], "source_rows": int64s([0, 1, 0])}
    call(*columns, **pieces, begins=int64s([0, 1, 2]), positions=positions, size=6)
    assert out.tolist() == [0, 1, 4, 0, 2, 0]
    assert last.tolist() == [0, 0, 9, 0, 8, 0]
    assert positions.tolist() == [0, 1, 1, 0, 2, 0]


def test_rows_are_in_order_unless_told() -> None:
    """Pieces may begin anywhere even where each is of its own row."""
    out = np.empty(5, np.int16)
    call(column("response", [1, 2], [3, 4], out=out), lengths=[2, 1], begins=int64s([1, 1]))
    assert out.tolist() == [1, 2, 0, 4, 0]


def test_zeroed_memory_is_left_alone() -> None:
    out = np.zeros(5, np.int16)
    call(column("response", [1, 2], [3, 4], out=out, zeroed=True))
    assert out.tolist() == [0, 1, 2, 3, 4]


RIGHT = column("response", [1, 2], [3, 4])


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ([column("response", [1, 2], [3])], {}, "row 1 has 1 elements, expected 2: one per response token"),
        ([column("prompt", [1, 2], [])], {}, "row 0 has 2 elements, expected 1: one per prompt token"),
        ([column("sequence", [], [1, 2, 3])], {}, "row 1 has 3 elements, expected 2: one per token of"),
        ([column("last", [1], [])], {}, "row 1 has 0 elements, expected 1: one per row"),
        ([column("response", [1, 2])], {}, "the column has 1 rows, expected 2"),
        ([column("step", [1])], {}, 'level is "step"'),
        ([column("response", [1, 2], [3, 4], out=np.empty(4, np.int8))], {}, "out has 4 bytes, expected 5"),
        ([RIGHT, RIGHT], {}, "out shares memory with out"),
        ([RIGHT], {"prompt_lengths": [4, 0]}, "row 0 has a prompt of 4 tokens, and 3 tokens in all"),
        ([RIGHT], {"prompt_lengths": [-1, 0]}, "row 0 has a prompt of -1 tokens"),
        ([RIGHT], {"prompt_lengths": [0]}, "prompt_lengths has 1 rows, expected 2"),
        ([RIGHT], {"lengths": [3, 3], "size": 6}, "piece 1 is elements 0 to 0 \\+ 3 of row 1, which has 2"),
        ([RIGHT], {"begins": int64s([0, 2**63 - 1])}, "piece 1 is elements 9223372036854775807"),
        ([RIGHT], {"begins": int64s([0])}, "begins has 1 rows, expected 2"),
        ([RIGHT], {"source_rows": int64s([0, 2])}, "piece 1 is of row 2, but there are 2 rows"),
        ([RIGHT], {"source_rows": int64s([0])}, "source_rows has 1 rows, expected 2"),
        ([RIGHT], {"positions": np.empty(4, np.int32)}, "positions has 4 bytes, expected 5"),
    ],
)
def test_what_is_no_batch_is_refused(columns: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*columns, **options)


@pytest.mark.parametrize("where", [[0, 2, 3], [0, 3, 1], [-1, 2, 4], [0, 2, 2**63 - 1]])
def test_offsets_that_lie_are_refused(where: list[int]) -> None:
    part = (np.arange(4), int64s(where))
    with pytest.raises(ValueError, match=r"row . (has 1 elements, expected 2|is elements)"):
        call(("response", [part], None, np.zeros(1, np.int16), np.empty(5, np.int16), False))


def test_outputs_share_no_memory_with_inputs() -> None:
    memory = np.zeros(12, np.int16)
    fill = np.zeros(1, np.int16)
    with pytest.raises(ValueError, match="out shares memory with an input"):
        call(("response", [memory[4:6], np.zeros(2, np.int16)], None, fill, memory[:5], False))
    with pytest.raises(ValueError, match="out shares memory with an input"):
        call(("response", [memory[6:8], memory[8:10]], None, memory[4:5], memory[:5], False))
    lengths = np.full(2, 2)
    masked = ("response", [(memory[:4], int64s([0, 2]))], lengths, fill, np.zeros(5, np.int16), False)
    with pytest.raises(ValueError, match="attention_mask shares memory with an input"):
        call(masked, attention_mask=lengths.view(np.uint8)[:5])
    memory.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        call(("response", [memory[6:8], memory[8:10]], None, fill, memory[:5], False))


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(OverflowError, match="row 1, position 0: 70000 does not fit int16"):
        call(RIGHT, column("response", [1, 2], [70_000, 4]))
    with pytest.raises(TypeError, match="cannot place float64 rows in a int16 output"):
        call(column("response", [1, 2], [3, 4], dtype=np.float64))


def test_large_batches() -> None:
    """Beyond the size at which the GIL is released."""
    rows = [np.arange(200_000, dtype=np.int32) for _ in range(4)]
    lengths = int64s([200_000] * 4)
    layout, out = Layout.concat(lengths), np.empty(800_000, np.int32)
    column = ("response", rows, None, np.zeros(1, np.int32), out, False)
    where = (layout.starts, lengths, None, lengths, np.zeros_like(lengths))
    _native.fill_batch(*where, [column], size=800_000, width=800_000)
    assert np.array_equal(out, np.concatenate(rows))
