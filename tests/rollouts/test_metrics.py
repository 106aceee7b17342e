"""Turn lengths and rollout metrics against plain Python."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.compat import skyrl_oracles as oracle

import rollkit
from rollkit import Ragged, Rollouts, rollout_metrics, turn_lengths
from rollkit._rollouts.metrics import merge_extra

MASKS = st.lists(st.lists(st.integers(0, 1), max_size=300), max_size=6)
DTYPES = ["bool", "uint8", "int8", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64"]


@given(MASKS, st.sampled_from(DTYPES))
def test_turn_lengths_of_columns(masks: list[list[int]], dtype: str) -> None:
    rows = Ragged.from_rows(masks, np.uint8)
    column = Ragged(rows.values.astype(dtype), rows.offsets)
    assert turn_lengths(column).to_list() == [oracle.turns(mask) for mask in masks]


@given(MASKS)
def test_turn_lengths_of_rows(masks: list[list[int]]) -> None:
    wanted = [oracle.turns(mask) for mask in masks]
    arrays = [np.array(mask, np.int64) for mask in masks]
    assert turn_lengths(masks).to_list() == wanted
    assert turn_lengths(arrays).to_list() == wanted
    assert turn_lengths([torch.from_numpy(array) for array in arrays]).to_list() == wanted


def test_turn_lengths_of_a_slice_and_of_strided_values() -> None:
    rows = Ragged.from_rows([[1, 1], [0, 1], [1, 1, 0, 1]], np.uint8)
    assert turn_lengths(rows[1:]).to_list() == [[1], [2, 1]]
    strided = Ragged(np.repeat(rows.values, 2)[::2], rows.offsets)
    assert turn_lengths(strided).to_list() == [[2], [1], [2, 1]]


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        (Ragged.from_rows([[[1, 2]]]), TypeError, "one element per token, got elements of shape (2,)"),
        ([["a"]], TypeError, "row 0, position 0"),
        (Ragged(np.array([1j]), np.array([0, 1])), TypeError, "bools, ints or floats, got 1-D complex128"),
        (Ragged(np.array([1.0], ">f4"), np.array([0, 1])), TypeError, "native byte order"),
    ],
)
def test_turn_lengths_refuses(masks: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        turn_lengths(masks)
    assert message in str(caught.value)


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Any]:
    lengths = draw(st.lists(st.integers(0, 90), min_size=1, max_size=6))
    tokens = draw(st.booleans())
    # Quarters add up without rounding, in any order.
    reward = st.integers(-4, 4).map(lambda n: n / 4)
    batch: dict[str, Any] = {
        "response_ids": [[7] * n for n in lengths],
        "rewards": [
            draw(st.lists(reward, min_size=n, max_size=n)) if tokens else draw(reward) for n in lengths
        ],
    }
    if draw(st.booleans()):
        flag = st.integers(0, 1) if draw(st.booleans()) else st.integers(0, 300)
        batch["loss_masks"] = [draw(st.lists(flag, min_size=n, max_size=n)) for n in lengths]
    if draw(st.booleans()):
        seconds = st.lists(st.floats(0, 1e3), min_size=len(lengths), max_size=len(lengths))
        batch["trajectory_generation_times"] = draw(seconds)
        if draw(st.booleans()):
            batch["trajectory_time_splits"] = {"llm": draw(seconds), "env": draw(seconds)}
    return batch


@given(batches())
def test_rollout_metrics(batch: dict[str, Any]) -> None:
    wanted = oracle.metrics(
        batch["response_ids"],
        batch["rewards"],
        batch.get("loss_masks"),
        batch.get("trajectory_generation_times"),
        batch.get("trajectory_time_splits"),
    )
    found = rollout_metrics(batch)
    assert list(found) == list(wanted)
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert {type(value) for value in found.values()} <= {int, float}
    if max(map(max, filter(None, batch.get("loss_masks", []))), default=0) > 255:
        return  # a column of masks is bytes
    splits = batch.pop("trajectory_time_splits", None)
    assert rollout_metrics(Rollouts(batch), time_splits=splits) == pytest.approx(found, rel=1e-6, abs=1e-6)


def test_a_mask_of_weights_is_summed() -> None:
    batch = {"response_ids": [[1, 2, 3]], "rewards": [1.0], "loss_masks": [[0.5, 0.0, 0.25]]}
    metrics = rollout_metrics(batch)
    assert metrics["generate/avg_assistant_tokens"] == 0.75
    assert metrics["generate/tokens_per_turn_max"] == 1


def test_a_batch_that_is_masked_whole_has_no_turns() -> None:
    metrics = rollout_metrics({"response_ids": [[1, 2]], "rewards": [0], "loss_masks": [[0, 0]]})
    assert metrics["generate/max_assistant_tokens"] == 0
    assert not any("tokens_per_turn" in key for key in metrics)


def test_bfloat16_masks() -> None:
    masks = [torch.tensor([1, 1, 0, -0.0], dtype=torch.bfloat16), torch.ones(3, dtype=torch.bfloat16)]
    assert turn_lengths(masks).to_list() == [[2], [3]]


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (
            {"rewards": [1.0, None]},
            TypeError,
            "column 'rewards': row 1 is None; expected a number, or one per",
        ),
        (
            {"rewards": [[1.0], "a"]},
            TypeError,
            "column 'rewards': row 1 is 'a'; expected a number, or one per",
        ),
        (
            {"rewards": [[1.0], [None]]},
            TypeError,
            "column 'rewards': row 1, position 0: None is not a number",
        ),
        ({"rewards": np.ones((2, 1, 2))}, ValueError, "one number per token, got elements of shape (2,)"),
        ({"rewards": [1.0]}, ValueError, "column 'rewards' has 1 rows, 'response_ids' has 2"),
        ({"loss_masks": []}, ValueError, "column 'loss_masks' has 0 rows, 'response_ids' has 2"),
    ],
)
def test_columns_that_cannot_be_measured(columns: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        rollout_metrics({"response_ids": [[1], [2]], "rewards": [0.0, 1.0], **columns})
    assert message in str(caught.value)


def test_environments_are_averaged_by_class() -> None:
    metrics = rollout_metrics(
        {
            "response_ids": [[1], [2], [3]],
            "rewards": [1, 1, 1],
            "env_metrics": [{"steps": 2, "won": True, "name": "x"}, {"steps": 4}, {"moves": 5}],
            "env_classes": ["a", "a", "b"],
        }
    )
    found = {key: value for key, value in metrics.items() if key.startswith("environment/")}
    assert found == {"environment/steps": 3.0, "environment/won": 1.0, "environment/moves": 5.0}


def test_what_generators_measured_joins_the_metrics() -> None:
    columns = {"response_ids": [[1], [2]], "rewards": [0.0, 1.0]}
    found = rollout_metrics(
        columns, generator_metrics=[{"tool_calls": 2, "avg_wait": 1.0}, {"tool_calls": 3}]
    )
    assert (found["tool_calls"], found["avg_wait"]) == (5, 1.0)
    assert rollout_metrics(columns).items() <= found.items()


def test_what_generators_measured_is_aggregated_by_name() -> None:
    parts = [{"avg_x": 1, "min_x": 1, "max_x": 1, "count": 1, "known": 9, "text": "a"}, None, {"count": 2}]
    parts[2] = {"avg_x": 4, "min_x": 4, "max_x": 4, "count": 4, "mean_min": 1}
    assert merge_extra({"known": 1.0}, parts) == {
        "known": 1.0,
        "avg_x": 2.5,
        "min_x": 1,
        "max_x": 4,
        "count": 5,
        "mean_min": 1.0,
    }


def test_rollout_metrics_refuses() -> None:
    with pytest.raises(ValueError, match="there are no rollouts to measure"):
        rollout_metrics({"response_ids": [], "rewards": []})
    with pytest.raises(KeyError, match="rewards"):
        rollout_metrics({"response_ids": [[1]]})
    with pytest.raises(ValueError, match="column 'env_classes' has 0 rows, 'response_ids' has 1"):
        rollout_metrics({"response_ids": [[1]], "rewards": [1], "env_metrics": [{}], "env_classes": []})


def test_names_are_exported() -> None:
    assert rollkit.turn_lengths is turn_lengths
    assert rollkit.rollout_metrics is rollout_metrics


def test_rewards_with_a_gradient_are_refused_by_name() -> None:
    values: Any = torch.ones(3, requires_grad=True)
    rewards = rollkit.Ragged(values, np.array([0, 1, 3]))
    rollouts = {"response_ids": [[1], [2, 3]], "loss_masks": [[1], [1, 1]], "rewards": rewards}
    for score in (rollkit.rollout_metrics, lambda found: rollkit.advantages(found, by=["a", "a"])):
        with pytest.raises(TypeError, match=r"^column 'rewards': .*pass \.detach\(\)") as caught:
            score(rollouts)
        assert caught.value.column == "rewards"  # type: ignore[attr-defined]
