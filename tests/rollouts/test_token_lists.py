"""Columns of a list per token, from lists to a batch and back."""

from __future__ import annotations

import json
import pickle
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollkit import Batch, Layout, Ragged, Rollouts, concat, iter_chunks, merge_steps, pack, pad, read
from rollkit._rows.lists import Lists
from rollkit.decode import replay_logprobs
from rollkit.testing import rollout_rows

Rows = list[dict[str, Any]]


def lists_of(lists: Any) -> list[list[int]]:
    values, offsets = np.asarray(lists.values), np.asarray(lists.offsets)
    return [values[a:b].tolist() for a, b in pairwise(offsets)]


@st.composite
def with_masks(draw: Any) -> Rows:
    rows: Rows = draw(rollout_rows())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    even = draw(st.booleans())
    for row in rows:
        sizes = [2 if even else int(rng.integers(0, 4)) for _ in row["response_ids"]]
        row["sampling_masks"] = [rng.integers(0, 99, size).tolist() for size in sizes]
    return rows


def in_batch(batch: Batch, rows: Rows) -> list[list[int]]:
    """Where each token's list must be, by a loop."""
    wanted: list[list[int]] = [[] for _ in range(batch.layout.size)]
    for row, start, prompt in zip(rows, batch.layout.starts, batch.prompt_lengths, strict=True):
        for i, found in enumerate(row["sampling_masks"]):
            wanted[int(start) + int(prompt) + i] = found
    return wanted


@given(with_masks(), st.data())
def test_in_a_batch(rows: Rows, data: st.DataObject) -> None:
    rollouts = Rollouts.from_rows(rows)
    column = rollouts.ragged("sampling_masks")
    assert column.inner == (-1,)
    assert column.dtype == np.int32
    assert column.to_list() == [row["sampling_masks"] for row in rows]
    capacity = max(1, *(len(row["prompt_token_ids"]) + len(row["response_ids"]) for row in rows))
    raw = {name: [row[name] for row in rows] for name in rows[0]}
    for source in (rollouts, raw, [rollouts]):
        for batch in (pack(source, capacity), pad(source), pad(source, side="right")):
            lists = batch["sampling_masks"]
            assert type(lists) is Lists
            assert lists_of(lists) == in_batch(batch, rows)
            assert [
                found[len(row["prompt_token_ids"]) :]
                for found, row in zip(batch.unpack("sampling_masks").to_list(), rows, strict=True)
            ] == column.to_list()
            again = pickle.loads(pickle.dumps(batch))
            assert lists_of(again["sampling_masks"]) == lists_of(lists)
            for part in batch.split(1):
                assert lists_of(part["sampling_masks"]) == lists_of(lists)
    batch = pack(rollouts, capacity)
    begin = data.draw(st.integers(0, batch.layout.shape[0]))
    part = batch[begin:]
    assert lists_of(part["sampling_masks"]) == in_batch(batch, rows)[begin * capacity :]
    numbers = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=4))
    both = pack([rollouts, rollouts], capacity, rows=[*numbers, *(n + len(rows) for n in numbers)])
    assert lists_of(both["sampling_masks"]) == in_batch(both, [rows[n] for n in [*numbers, *numbers]])


@given(with_masks(), st.data())
def test_in_rollouts(rows: Rows, data: st.DataObject) -> None:
    rollouts = Rollouts.from_rows(rows)
    lists = [row["sampling_masks"] for row in rows]
    numbers = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=4))
    assert rollouts.take(np.array(numbers, np.int64)).ragged("sampling_masks").to_list() == [
        lists[n] for n in numbers
    ]
    assert concat([rollouts, rollouts[:1]]).ragged("sampling_masks").to_list() == [*lists, lists[0]]
    assert pickle.loads(pickle.dumps(rollouts)).equals(rollouts)
    again = Rollouts.from_rows(rollouts.to_rows())
    assert again.ragged("sampling_masks").to_list() == lists
    most = data.draw(st.integers(0, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cut = rollouts.drop("rewards").truncate(response=most)
    assert cut.ragged("sampling_masks").to_list() == [row[:most] for row in lists]
    rollouts.equals(cut)


def test_merged_steps() -> None:
    merged = merge_steps(
        {
            "prompt_token_ids": [[1], [1, 2, 3], [9]],
            "response_ids": [[2], [4], [5, 6]],
            "trajectory_ids": ["a", "a", "b"],
            "sampling_masks": [[[2, 7]], [[4]], [[], [1, 2, 3]]],
        }
    )
    assert merged.ragged("sampling_masks").to_list() == [[[2, 7], [], [4]], [[], [1, 2, 3]]]


def test_from_files(tmp_path: Path) -> None:
    for masks in ([[[5, 9], [6]], [[7]]], [[[5, 9], [6, 3]], [[7, 8]]]):
        rows = [
            {"response_ids": ids, "sampling_masks": m} for ids, m in zip([[5, 6], [7]], masks, strict=True)
        ]
        path = tmp_path / "a.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert read(path).ragged("sampling_masks").to_list() == masks
        found = [chunk.ragged("sampling_masks").to_list() for chunk in iter_chunks(path, rows=1)]
        assert found == [[masks[0]], [masks[1]]]


def test_levels_of_lists() -> None:
    ids = {"prompt_token_ids": [[1, 2], [3]], "response_ids": [[4], [5, 6]]}
    images: Any = [[[1, 2, 3], [4]], []]
    batch = pack({**ids, "images": images}, 4, levels={"images": "row[]"})
    assert batch.rows["images"].to_list() == images
    texts: Any = [[[1], [2, 3]], [[4, 4, 4]]]
    batch = pack({**ids, "kinds": texts}, 8, levels={"kinds": "prompt[]"})
    assert batch.unpack("kinds").to_list() == [[[1], [2, 3], []], [[4, 4, 4], [], []]]
    whole: Any = [[[1], [2, 3], []], [[], [], [5]]]
    assert pad({**ids, "w": whole}, levels={"w": "sequence[]"}).unpack("w").to_list() == whole
    with pytest.raises(ValueError, match=r"column 'w': row 0, position 1: inner shape") as caught:
        pad({**ids, "w": whole})
    assert caught.value.__notes__ == [
        'levels={\'w\': "row"} carries the rows along as they are, "response[]" lists per token'
    ]
    with pytest.raises(ValueError, match="column 'w': row 0 has 3 elements"):
        pad({**ids, "w": whole}, levels={"w": "response[]"})
    with pytest.raises(ValueError, match="fills has 'sampling_masks', which is a list per token"):
        pad({"response_ids": [[1]], "sampling_masks": [[[1]]]}, fills={"sampling_masks": 1})
    with pytest.raises(TypeError, match="column 'sampling_masks': row 0, position 0 is int, expected a list"):
        pad({"response_ids": [[1]], "sampling_masks": [[1]]})
    with pytest.raises(TypeError, match=r"column 'sampling_masks': .*expected integers, got float64"):
        Rollouts({"sampling_masks": Ragged.from_rows([[[0.5]]], lists=True)})


def test_rows_without_a_token_are_lists_too() -> None:
    rows = Rollouts({"response_ids": [[], []], "x": [[], []], "sampling_masks": [[], []]})
    batch = pack(rows, 2, levels={"x": "response[]"})
    assert batch.unpack("x").to_list() == batch.unpack("sampling_masks").to_list() == [[], []]
    assert batch["x"].dtype == np.int64
    none = Ragged(np.arange(3, dtype=np.int16), np.array([2, 2, 2]))  # of a slice
    assert Rollouts({"sampling_masks": none}).ragged("sampling_masks").of_lists
    with pytest.raises(TypeError, match="column 'x': expected a list for each element, got int64"):
        pack(Rollouts({"response_ids": [[], [1]], "x": [[], [1]]}), 2, levels={"x": "response[]"})


def test_what_a_row_has_several_of_is_not_cut() -> None:
    rows: dict[str, Any] = {
        "response_ids": [[1, 2, 3], [4], [5, 6, 7]],
        "images": [[], [[1, 2]], [[3], [4, 5]]],
    }
    levels = {"images": "row[]"}
    with pytest.raises(ValueError, match="column 'images': row 2 would be cut"):
        pack(rows, 2, oversize="truncate", levels=levels)
    short = {name: found[:2] for name, found in rows.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = pack(short, 2, oversize="truncate", levels=levels)
    assert batch.rows["images"].to_list() == [[], [[1, 2]]]
    rollouts = Rollouts(rows).with_columns(images=Ragged.from_rows(rows["images"], lists=True))
    with pytest.raises(ValueError, match="column 'images': row 2 would be cut"):
        rollouts.truncate(response=2, levels=levels)
    assert rollouts[:2].truncate(response=2, levels=levels).ragged("images").to_list() == [[], [[1, 2]]]


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_on_other_frameworks(framework: str) -> None:
    batch = pack({"response_ids": [[5, 6], [7]], "sampling_masks": [[[5, 9], [6]], [[7]]]}, 4)
    there = batch.to(framework)
    lists = there["sampling_masks"]
    assert type(lists) is Lists
    assert lists_of(lists) == [[5, 9], [6], [7], []]
    assert lists_of(there[0:1]["sampling_masks"]) == [[5, 9], [6], [7], []]
    assert there.unpack("sampling_masks").to_list() == [[[5, 9], [6]], [[7]]]
    both = there | {"kept": lists}
    assert lists_of(both["kept"]) == lists_of(lists)
    assert "sampling_masks int32" in repr(batch)
    assert there.rename("grain")["sampling_masks"] is lists
    assert batch.rename("hf")["sampling_masks"] is batch["sampling_masks"]
    with pytest.raises(ValueError, match="lists per token are not shifted"):
        there.rename("maxtext")


def test_replayed_from_a_batch() -> None:
    batch = pack({"response_ids": [[1, 2], [3]], "sampling_masks": [[[1], [0, 2]], [[3]]]}, 4)
    logits = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    before, token = batch.layout.edges(batch["loss_masks"])
    found = replay_logprobs(
        logits[before], batch["input_ids"].reshape(-1)[token], batch["sampling_masks"].take(token)
    )
    wanted = logits[0, 2] - np.log(np.exp(logits[0, [0, 2]]).sum())
    np.testing.assert_allclose(found, [wanted], rtol=1e-6)


def test_layouts_of_pieces() -> None:
    rollouts = Rollouts({"response_ids": [[1, 2, 3]], "sampling_masks": [[[1], [2, 2], [3]]]})
    layout = Layout((2, 2), *map(np.array, ([0, 2], [2, 1], [3], [0, 0], [0, 2])))
    batch = pack(rollouts, layout=layout)
    assert lists_of(batch["sampling_masks"]) == [[1], [2, 2], [3], []]
    assert batch.unpack("sampling_masks").to_list() == [[[1], [2, 2], [3]]]
