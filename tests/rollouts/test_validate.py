"""`Rollouts.validate`: every rule, by its message."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from rollkit import Ragged, Rollouts

VALID: dict[str, Any] = {
    "prompt_token_ids": [[1], [2, 3]],
    "response_ids": [[4, 5], [6]],
    "loss_masks": [[1, 0], [1]],
    "rewards": [0.5, 1.0],
}

STEPS: dict[str, Any] = {
    "prompt_token_ids": [[1]] * 5,
    "response_ids": [[2]] * 5,
    "loss_masks": [[1]] * 5,
    "rewards": [0.0] * 5,
    "trajectory_ids": ["a", "a", "b", "c", "c"],
    "is_last_step": [False, True, True, False, True],
}


@dataclass
class Id:
    name: str

    def to_string(self) -> str:
        return self.name


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"rewards": [[0.0, 1.0], [1.0]]},
        {"rewards": [1, 0]},
        {"rollout_logprobs": [[-1.0, -2.0], [-3.0]]},
        {"sampling_masks": [[[4, 9], []], [[6]]]},
        {"kept_token_ids": Ragged.from_rows([[[9, 4], [5]], [[6]]], np.uint32, lists=True)},
        {"model_versions": [[3, -1], [4]]},
        {"response_ids": [[], [6]], "loss_masks": [[], [1]]},
        {"rollout_expert_indices": [np.zeros((2, 1, 2), np.uint8), np.zeros((3, 1, 2), np.uint8)]},
        {"stop_reasons": ["stop", None], "anything": [[1, 2, 3], [4]]},
    ],
)
def test_accepts(change: dict[str, Any]) -> None:
    Rollouts(VALID | change).validate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss_masks": [[1], [1]]}, "column 'loss_masks': row 0 has 1 elements, its response has 2 tokens"),
        (
            {"rewards": [[0.0, 0.0], [1.0, 0.0]]},
            "column 'rewards': row 1 has 2 elements, its response has 1 tokens",
        ),
        (
            {"rollout_logprobs": [[-1.0, -1.0], []]},
            "column 'rollout_logprobs': row 1 has 0 elements, its response has 1 tokens",
        ),
        (
            {"rewards": np.zeros((2, 2))},
            "column 'rewards': row 1 has 2 elements, its response has 1 tokens",
        ),
        (
            {"rollout_expert_indices": [np.zeros((4, 1, 2), int), np.zeros((3, 1, 2), int)]},
            "column 'rollout_expert_indices': row 0 has routes for 4 of its 3 tokens; "
            "expected a prefix of them that is not empty",
        ),
        (
            {"rollout_expert_indices": [np.zeros((3, 1, 2), int), np.zeros((0, 1, 2), int)]},
            "column 'rollout_expert_indices': row 1 has routes for 0 of its 3 tokens; "
            "expected a prefix of them that is not empty",
        ),
        (
            {"loss_masks": np.array([1, 1])},
            "column 'loss_masks': expected an element per token, got one per row",
        ),
        (
            {"rollout_logprobs": np.array([1.0, 1.0])},
            "column 'rollout_logprobs': expected an element per token, got one per row",
        ),
        (
            {"loss_masks": [[[1, 1], [1, 1]], [[1, 1]]]},
            "column 'loss_masks': expected a number per token, got elements of shape (2,)",
        ),
        (
            {"rewards": np.array(["a", "b"])},
            "column 'rewards': expected a number per row, or one per response token",
        ),
    ],
)
def test_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        Rollouts(VALID | change).validate()
    assert str(caught.value) == message


@pytest.mark.parametrize("name", VALID)
def test_names_a_missing_column(name: str) -> None:
    columns = {key: value for key, value in VALID.items() if key != name}
    with pytest.raises(ValueError, match=f"column '{name}' is missing"):
        Rollouts(columns).validate()


def test_refuses_no_rows() -> None:
    with pytest.raises(ValueError, match="column 'response_ids' has no rows"):
        Rollouts(VALID)[:0].validate()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, bool, np.int64, np.float32])
@pytest.mark.parametrize("rows", [[[0, 0], [0]], [[0] * 5000, [0]]])
def test_warns_if_every_token_is_masked(dtype: Any, rows: list[list[int]]) -> None:
    masks = Ragged.from_rows(rows, np.uint8)
    masks = Ragged(masks.values.astype(dtype), masks.offsets)
    rollouts = Rollouts(VALID | {"response_ids": rows, "loss_masks": masks})
    with pytest.warns(UserWarning, match="every token is loss-masked"):
        rollouts.validate()
    masks.values[-1] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rollouts.validate()


@pytest.mark.parametrize(
    "ids",
    [
        STEPS["trajectory_ids"],
        [Id(name) for name in STEPS["trajectory_ids"]],
        np.array([1, 1, 2, 3, 3]),
        np.array(STEPS["trajectory_ids"]),
    ],
)
def test_accepts_steps(ids: Any) -> None:
    Rollouts(STEPS | {"trajectory_ids": ids}).validate(step_wise=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_last_step": None}, "column 'is_last_step' is missing; step-wise rollouts need it"),
        ({"trajectory_ids": None}, "column 'trajectory_ids' is missing; step-wise rollouts need it"),
        (
            {"is_last_step": [False, True, True, False, False]},
            "column 'is_last_step': row 4, the last, is False; it must end its trajectory",
        ),
        (
            {"trajectory_ids": ["a", "a", "b", "a", "a"]},
            "column 'trajectory_ids': row 3 goes on with trajectory 'a', but rows of another lie between; "
            'the steps of a trajectory must be adjacent: rollouts.sort("trajectory_ids") brings them '
            "together",
        ),
        (
            {"is_last_step": [False, False, True, False, True]},
            "column 'is_last_step': row 1 is False, but row 2 belongs to another trajectory, 'b'",
        ),
        (
            {"is_last_step": np.ones((5, 1), bool)},
            "column 'is_last_step': expected one bool per row, 5, got shape (5, 1)",
        ),
        (
            {"is_last_step": [True, True, True, False, True]},
            "column 'is_last_step': row 0 is True, but trajectory 'a' goes on at row 1",
        ),
    ],
)
def test_refuses_steps(change: dict[str, Any], message: str) -> None:
    columns = {name: value for name, value in (STEPS | change).items() if value is not None}
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        Rollouts(columns).validate(step_wise=True)
    assert str(caught.value) == message


KEPT = st.lists(st.lists(st.lists(st.integers(-1, 3), max_size=3), max_size=3), min_size=1, max_size=3)


@settings(max_examples=examples(200))
@given(KEPT, st.integers(0, 2), st.sampled_from(["sampling_masks", "sampling_mask", "kept_token_ids"]))
def test_kept_ids_hold_the_token_that_was_sampled(rows: list[list[list[int]]], begin: int, name: str) -> None:
    tokens = [[position % 3 for position in range(len(row))] for row in rows]
    columns: dict[str, Any] = {
        "prompt_token_ids": [[0] for _ in rows],
        "response_ids": tokens,
        "loss_masks": [[1] * len(row) for row in rows],
        "rewards": [0.0 for _ in rows],
        name: rows,
    }
    rollouts = Rollouts(columns)[min(begin, len(rows) - 1) :]
    places = [
        (row, position, kept, rollouts.ragged("response_ids")[row][position])
        for row, lists in enumerate(rollouts.ragged(name).to_list())
        for position, kept in enumerate(lists)
    ]
    negative = [(row, position) for row, position, kept, _ in places if min(kept, default=0) < 0]
    lacking = [(row, position) for row, position, kept, token in places if kept and token not in kept]
    wrong = negative or lacking
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no token at all
        if not wrong:
            rollouts.validate()
            return
        with pytest.raises(ValueError, match=f"column '{name}': row ") as caught:
            rollouts.validate()
    error: Any = caught.value
    assert (error.column, error.row, error.position) == (name, *wrong[0])
