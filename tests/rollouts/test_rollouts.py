"""`Rollouts`: columns from rows, from generator outputs; slices, joins, pickles."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollkit import Ragged, Rollouts, concat, pack
from rollkit.testing import rollout_rows, rollouts

OUTPUT: dict[str, Any] = {
    "prompt_token_ids": [[1, 2], [3]],
    "response_ids": [[4], [5, 6]],
    "rewards": [1.0, 0.0],
    "loss_masks": [[1], [0, 1]],
    "stop_reasons": ["stop", "length"],
    "rollout_logprobs": None,
    "rollout_metrics": {"mean": 1.0},
    "step": np.array(3),
    "version": "v2",
}


def plain(rollouts: Rollouts) -> list[dict[str, Any]]:
    """Rows of Python objects."""
    columns = {
        name: column.to_list() if isinstance(column, Ragged) else list(column)
        for name, column in rollouts.items()
    }
    return [{name: column[i] for name, column in columns.items()} for i in range(len(rollouts))]


@given(rollout_rows())
def test_rows_come_back(rows: list[dict[str, Any]]) -> None:
    assert plain(Rollouts.from_rows(rows)) == rows


@given(rollouts(), st.integers(-7, 7), st.integers(-7, 7), st.sampled_from([1, 2, -1]))
def test_slices_and_take_are_those_of_a_list(found: Rollouts, a: int, b: int, step: int) -> None:
    rows = plain(found)
    assert plain(found[a:b:step]) == rows[a:b:step]
    indices = np.arange(len(rows))[a:b:step]
    assert plain(found.take(indices)) == rows[a:b:step]
    keep = [bool(row["response_ids"]) for row in rows]
    assert plain(found.take(keep)) == [row for row in rows if row["response_ids"]]


@given(st.lists(rollout_rows(), min_size=1, max_size=4))
def test_concat_is_that_of_lists(parts: list[list[dict[str, Any]]]) -> None:
    parts = [[{k: row[k] for k in row if k != "rewards"} for row in part] for part in parts]
    joined = concat([Rollouts.from_rows(part) for part in parts])
    assert plain(joined) == [row for part in parts for row in part]


def test_concat_into_memory_that_is_there() -> None:
    part = Rollouts.from_rows(
        [{"response_ids": [1, 2], "rewards": 0.5}, {"response_ids": [3], "rewards": 1.0}]
    )
    room = np.zeros(10, np.int32)
    joined = concat([part, part], out={"response_ids": room})
    assert np.shares_memory(joined.ragged("response_ids").values, room)
    assert room.tolist() == [1, 2, 3, 1, 2, 3, 0, 0, 0, 0]
    assert joined.equals(concat([part, part]))


@given(rollouts())
def test_pickles_and_equals(found: Rollouts) -> None:
    again = pickle.loads(pickle.dumps(found, 5))
    assert again.equals(found)
    assert found.equals(found[:])
    assert not found.equals(found.with_columns(extra=np.zeros(len(found))))
    assert not found.equals(found[:-1])


def test_pickles_out_of_band_without_the_parent() -> None:
    tokens = Ragged(np.zeros(100_000, np.int32), np.arange(0, 100_001, 1000))
    whole = Rollouts({"response_ids": tokens, "rewards": np.zeros(100)})
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(whole[5:6], 5, buffer_callback=buffers.append)
    assert len(pickled) < 1000
    assert sorted(buffer.raw().nbytes for buffer in buffers) == [8, 16, 4000]
    assert pickle.loads(pickled, buffers=buffers).equals(whole[5:6])


def test_generator_outputs_there_and_back() -> None:
    found = Rollouts.from_generator_output(OUTPUT)
    assert list(found) == ["prompt_token_ids", "response_ids", "rewards", "loss_masks", "stop_reasons"]
    assert [found[name].dtype for name in ("response_ids", "loss_masks", "rewards")] == [  # type: ignore[union-attr]
        np.int32,
        np.uint8,
        np.float64,
    ]
    back = found.to_generator_output()
    assert [row.tolist() for row in back["response_ids"]] == OUTPUT["response_ids"]
    assert back["rewards"] == OUTPUT["rewards"]
    assert Rollouts.from_generator_output(back).equals(found)


def test_columns_by_kind() -> None:
    import torch

    columns: dict[str, Any] = {
        "per_token": [[1.5], [2.5, 3.5]],
        "tensors": [torch.zeros(1), torch.ones(2)],
        "scores": [1, 2],
        "vectors": np.zeros((2, 3)),
        "texts": ["a", "b"],
        "lists of texts": [["a"], ["b", "c"]],
        "with holes": [1.0, None],
        "images": [np.zeros((1, 2)), np.zeros((1, 3))],
        "empty": [[], []],
        "tensor": torch.zeros(2),
    }
    found = Rollouts(columns)
    kinds = {name: type(column) for name, column in found.items()}
    ragged = {name for name, kind in kinds.items() if kind is Ragged}
    arrays = {name for name, kind in kinds.items() if kind is np.ndarray}
    assert ragged == {"per_token", "tensors", "empty"}
    assert arrays == {"scores", "vectors", "tensor"}
    assert found.equals(found.take([0, 1]))


def test_known_columns_of_rectangles_become_rows() -> None:
    found = Rollouts({"response_ids": np.arange(6).reshape(2, 3), "is_last_step": np.zeros(2, bool)})
    assert isinstance(found["response_ids"], Ragged)
    assert found["response_ids"].dtype == np.int32


def test_parts_without_rows_join() -> None:
    some = Rollouts({"response_ids": [[1]], "tags": ["a"], "vectors": np.zeros((1, 2))})
    none = Rollouts({"response_ids": [], "tags": [], "vectors": []})
    for parts in ([none, some], [some, none], [some, some[:0]]):
        assert concat(parts).equals(some)
    assert len(concat([none, none])) == 0


def test_no_columns() -> None:
    assert len(Rollouts({})) == 0
    assert len(Rollouts.from_rows([])) == 0
    assert repr(Rollouts({})) == "Rollouts(0 rows)"


def test_is_a_mapping_of_names() -> None:
    found = Rollouts.from_generator_output(OUTPUT)
    assert "rewards" in found
    assert "step" not in found
    assert list(found.keys()) == list(found) == [name for name, _ in found.items()]
    assert dict(found)["stop_reasons"] == ["stop", "length"]


def test_with_columns_shares_the_others() -> None:
    found = Rollouts.from_generator_output(OUTPUT)
    more = found.with_columns(rewards=[5.0, 6.0])
    assert more["response_ids"] is found["response_ids"]
    assert list(more["rewards"]) == [5.0, 6.0]
    assert list(found["rewards"]) == [1.0, 0.0]


def test_repr_shows_no_data() -> None:
    assert repr(Rollouts({"response_ids": [[12345]], "tags": ["secret"]})) == (
        "Rollouts(1 rows: response_ids int32, tags list)"
    )


def test_a_row_without_a_key_is_named() -> None:
    with pytest.raises(ValueError, match=r"^row 1 and row 0 differ in keys: 'b'$"):
        Rollouts.from_rows([{"a": 1, "b": 2}, {"a": 1}])


def test_a_list_of_rows_is_told_the_way_in() -> None:
    with pytest.raises(TypeError, match="columns must be a dict of columns, got list; Rollouts"):
        Rollouts([{"response_ids": [1]}])  # type: ignore[arg-type]


def test_a_data_frame_is_told_the_way_in() -> None:
    frame = pytest.importorskip("pandas").DataFrame({"response_ids": [[1]]})
    text = "got DataFrame; Rollouts.from_arrow takes tables and data frames"
    with pytest.raises(TypeError, match=text):
        Rollouts(frame)
    assert Rollouts.from_arrow(frame).ragged("response_ids").to_list() == [[1]]


def test_verbs_say_what_they_take() -> None:
    rollouts = Rollouts({"response_ids": [[1]], "rewards": [1.0]})
    for verb in (rollouts.select, rollouts.drop, rollouts.sort):
        with pytest.raises(TypeError, match="names are given one by one"):
            verb(["rewards"])  # type: ignore[arg-type]
    assert len(rollouts[:0].filter([])) == 0
    with pytest.raises(ValueError, match="a bool selection needs one entry per row"):
        rollouts.filter([])
    with pytest.raises(ValueError, match="prompt needs the columns 'prompt_token_ids' and 'response_ids'"):
        Rollouts({"input_ids": [[1, 2]]}).truncate(prompt=1)


def test_lists_go_through_rows() -> None:
    lists = Ragged.from_rows([[[1], [2, 3]], []], np.float32, lists=True)
    rollouts = Rollouts({"response_ids": [[1], [2]], "images": lists})
    assert Rollouts.from_rows(rollouts.to_rows()).equals(rollouts)


ENTRIES: list[tuple[Any, Any, bool]] = [
    ({"pixels": np.ones(2)}, {"pixels": np.ones(2)}, True),
    ({"pixels": np.ones(2)}, {"pixels": np.ones(2, np.float32)}, False),
    ({"pixels": np.ones(2)}, {"pixels": np.array([1, np.nan])}, False),
    ({"pixels": [np.array([np.nan])]}, {"pixels": [np.array([np.nan])]}, True),
    ({"a": 1}, {"b": 1}, False),
    ([{"a": np.ones(2)}], ({"a": np.ones(2)},), False),
    ((1, np.ones(2)), (1, np.ones(2)), True),
    ((1, np.ones(2)), (1,), False),
    ({"a": "x"}, {"a": "x"}, True),
]


@pytest.mark.parametrize(("a", "b", "same"), ENTRIES)
def test_entries_are_equal_with_what_is_in_them(a: Any, b: Any, same: bool) -> None:
    ours, theirs = (Rollouts({"response_ids": [[1]], "image": [entry]}) for entry in (a, b))
    assert ours.equals(theirs) == theirs.equals(ours) == same


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax"])
def test_a_reward_may_be_an_array_of_one_number(framework: str) -> None:
    module: Any = pytest.importorskip(framework)
    make = (module.numpy if framework == "jax" else module).asarray
    rows = Rollouts({"response_ids": [[1], [2], [3]], "rewards": [make(0.5), make(1), 2.0]})
    np.testing.assert_array_equal(rows["rewards"], [0.5, 1, 2])


def test_series_of_other_indexes_are_warned_of() -> None:
    """What pandas would join by index is joined by place here."""
    pd = pytest.importorskip("pandas")
    tokens, rewards = pd.Series([[1, 2], [3]], index=[1, 0]), pd.Series([1.0, 2.0])
    for call in (Rollouts, lambda columns: pack(columns, 4)):
        with pytest.warns(
            UserWarning, match="'response_ids' and 'rewards' have other indexes, and are joined by"
        ):
            call({"response_ids": tokens, "rewards": rewards})
        call({"response_ids": tokens, "rewards": rewards.set_axis([1, 0])})
        call({"response_ids": tokens, "rewards": [1.0, 2.0]})
