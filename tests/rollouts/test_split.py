"""`oversize="split"`: all columns of rollouts in pieces, whole rows back, in one batch or in microbatches."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from rollkit import Batch, Layout, Rollouts, pack, pad, take
from rollkit.testing import pad_reference, place_reference, rollout_rows, segment_ids_reference

ROWS: dict[str, Any] = {
    "prompt_token_ids": [[1, 2, 3, 4, 5], [], [9]],
    "response_ids": [[6, 7], [1, 2, 3], [4]],
    "rewards": [1.5, -1.0, 2.0],
    "kept_token_ids": [[[1], [2, 3]], [[], [4], [5, 6, 7]], [[8]]],
    "tags": ["a", "b", "c"],
}


def packed(rows: list[dict[str, Any]], capacity: int, **options: Any) -> Batch:
    return pack(Rollouts.from_rows(rows), capacity, oversize="split", **options)


orders = st.sampled_from([{}, {"order": "shuffled", "seed": 3}])


@given(rollout_rows(), st.integers(1, 8), st.integers(1, 3), orders)
@settings(max_examples=examples(200))
def test_every_column_is_where_its_token_is(
    rows: list[dict[str, Any]], capacity: int, align: int, order: dict[str, Any]
) -> None:
    fills = {"advantages": 7, "rollout_expert_indices": 1, "token_types": 3}
    batch = packed(rows, capacity, align=align, pad_id=5, fills=fills, **order)
    assert isinstance(batch.layout, Layout)
    full = pad_reference(rows, pad_id=5, side="right", fills=fills)  # a line begins with its row
    for name, array in batch.items():
        lines = [line[:n] for line, n in zip(full[name], batch.layout.row_lengths, strict=True)]
        fill = {"input_ids": 5, "route_masks": 1, **fills}.get(name, 0)
        made = name == "segment_ids"
        wanted = segment_ids_reference(batch.layout) if made else place_reference(lines, batch.layout, fill)
        np.testing.assert_array_equal(array, wanted, err_msg=name)
    assert batch.layout.lengths.max(initial=0) <= capacity


@given(rollout_rows(), st.integers(1, 8), orders)
@settings(max_examples=examples(100))
def test_rows_come_back_whole(rows: list[dict[str, Any]], capacity: int, order: dict[str, Any]) -> None:
    batch = packed(rows, capacity, **order)
    whole = pad(Rollouts.from_rows(rows), side="right")
    assert batch.num_rows == len(rows)
    for name in set(batch) - {"segment_ids"}:
        assert batch.unpack(name).to_list() == whole.unpack(name).to_list()
    assert take(batch["input_ids"], batch.responses).to_list() == [row["response_ids"] for row in rows]
    again = pickle.loads(pickle.dumps(batch))
    assert again.unpack("input_ids").to_list() == batch.unpack("input_ids").to_list()
    assert again.layout.equals(batch.layout)


@given(rollout_rows(), st.integers(1, 5), orders, st.data())
@settings(max_examples=examples(100))
def test_microbatches_have_the_pieces_of_their_lines(
    rows: list[dict[str, Any]], capacity: int, order: dict[str, Any], data: st.DataObject
) -> None:
    batch = packed(rows, capacity, **order)
    if not batch.layout.shape[0]:
        return
    parts = batch.split(data.draw(st.integers(1, batch.layout.shape[0])))
    first = 0
    for part in parts:
        lines = part.layout.shape[0]
        numbers = batch.layout.rows_on(first, lines)
        # Packed by themselves, as a loader does it, they are the same: no reward is in two of them.
        alone = pack(
            Rollouts.from_rows(rows), rows=numbers, layout=batch.layout.select(numbers, first, lines)
        )
        for name, array in batch.items():
            np.testing.assert_array_equal(part[name], array[first : first + lines])
            if name != "segment_ids":
                np.testing.assert_array_equal(alone[name], part[name], err_msg=name)
        assert part.num_rows == len(numbers)
        first += lines
    if "rewards" in batch:
        total = sum(float(part["rewards"].sum(dtype=np.float64)) for part in parts)
        assert total == pytest.approx(float(batch["rewards"].sum(dtype=np.float64)))


def test_by_hand() -> None:
    batch = pack(ROWS, 3, oversize="split", levels={"tags": "row"})
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 5, 6], [1, 2, 3], [7, 9, 4]]
    assert batch["positions"].tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2], [6, 0, 1]]
    assert batch["segment_ids"].tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 2, 2]]
    assert batch["loss_masks"].tolist() == [[0, 0, 0], [0, 0, 1], [1, 1, 1], [1, 0, 1]]
    assert batch["rewards"].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, -1], [1.5, 0, 2]]
    assert batch.rows["tags"] == ["a", "b", "c"]
    kept = batch["kept_token_ids"]
    lists = [kept.values[a:b].tolist() for a, b in zip(kept.offsets, kept.offsets[1:], strict=False)]
    assert lists == [[], [], [], [], [], [1], [], [4], [5, 6, 7], [2, 3], [], [8]]
    assert batch.flash_kwargs()["cu_seq_lens_q"].tolist() == [0, 3, 6, 9, 10, 12]
    assert batch.layout.cu_seqlens().tolist() == [0, 3, 6, 9, 10, 12]


def test_what_is_not_too_long_is_packed_as_ever() -> None:
    plain, split = pack(ROWS, 7), pack(ROWS, 7, oversize="split")
    assert not split.layout.has_pieces
    assert split.layout.equals(plain.layout)


@pytest.mark.parametrize("lengths", [[], [0], [1], [0, 0, 5], [1, 1, 1]])
@pytest.mark.parametrize("capacity", [1, 2, 2**62])
def test_edges(lengths: list[int], capacity: int) -> None:
    layout = Layout.pack(lengths, capacity, oversize="split")
    assert layout.num_placed == sum(lengths)
    assert layout.lengths.max(initial=0) <= capacity
    assert len(layout) == len(lengths)


def test_pieces_count_as_segments_and_take_bins() -> None:
    layout = Layout.pack([9, 1, 1], 4, oversize="split", max_segments=2)
    assert layout.shape == (4, 4)
    with pytest.raises(ValueError, match="bins is 3, the rows take 4 of 4; give more bins"):
        Layout.pack([9, 1, 1], 4, oversize="split", max_segments=2, bins=3)
    assert Layout.pack([9, 1, 1], 4, oversize="split", bins=5).shape == (5, 4)


def test_more_pieces_than_there_is_memory_for() -> None:
    with pytest.raises(MemoryError):
        Layout.pack([2**62], 1, oversize="split")
    with pytest.raises(OverflowError, match="up to row 1"):
        Layout.pack([2**62, 2**62], 2**61 + 1, oversize="split")


def test_rows_in_another_order() -> None:
    batch = pack(ROWS, 3, rows=[2, 0], oversize="split", levels={"tags": "row"})
    assert batch.unpack("input_ids").to_list() == [[9, 4], [1, 2, 3, 4, 5, 6, 7]]
    assert batch["rewards"].sum() == 3.5
    assert batch.rows["tags"] == ["c", "a"]


def test_truncated_rewards_are_on_what_is_left_in_any_order() -> None:
    columns = {"response_ids": [[1, 2, 3], [4]], "rewards": [1.0, 2.0]}
    batch = pack(columns, 2, rows=[1, 0], oversize="truncate")
    assert batch.unpack("rewards").to_list() == [[2], [0, 1]]
    for line in range(2):
        rows = batch.layout.rows_on(line, 1)
        part = pack(columns, rows=np.array([1, 0])[rows], layout=batch.layout.select(rows, line, 1))
        np.testing.assert_array_equal(part["rewards"], batch["rewards"][line : line + 1])


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_columns_of_frameworks(framework: str) -> None:
    columns = {name: ROWS[name] for name in ("prompt_token_ids", "response_ids")}
    wanted = pack(columns, 3, oversize="split")
    found = pack(columns, 3, oversize="split").to(framework)
    assert found.unpack("input_ids").to_list() == wanted.unpack("input_ids").to_list()
    assert found.unpack(found["positions"]).to_list() == wanted.unpack("positions").to_list()
