"""`merge_steps` against a plain loop over Python lists."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.paths import SHARED

import rollkit
from rollkit import Ragged, Rollouts, merge_steps

Steps = dict[str, list[Any]]


def merge_reference(steps: Steps) -> Steps:
    """Merge step by step, rebuilding the context at every turn."""
    merged: Steps = {name: [] for name in steps}
    context: list[int] | None = None
    for i, (prompt, response) in enumerate(
        zip(steps["prompt_token_ids"], steps["response_ids"], strict=True)
    ):
        joins = context is not None and prompt[: len(context)] == context
        if not joins:
            for name, column in steps.items():
                merged[name].append(list(column[i]) if isinstance(column[i], list) else column[i])
        else:
            assert context is not None
            observation = prompt[len(context) :]
            merged["response_ids"][-1] += observation + response
            for name in ("loss_masks", "rollout_logprobs"):
                merged[name][-1] += [0] * len(observation) + steps[name][i]
            if isinstance(steps["rewards"][i], list):
                merged["rewards"][-1] += [0.0] * len(observation) + steps["rewards"][i]
            else:
                merged["rewards"][-1] = steps["rewards"][i]
            routes = merged["rollout_expert_indices"][-1]
            routes += steps["rollout_expert_indices"][i][len(routes) :]
            for name in ("is_last_step", "stop_reasons"):
                merged[name][-1] = steps[name][i]
        context = None if steps["is_last_step"][i] else prompt + response
    return merged


@st.composite
def step_lists(draw: st.DrawFn, token_rewards: bool | None = None) -> Steps:
    """Trajectories of turns, some of which break the prefix, in a vocabulary of 3 so that they collide."""
    tokens = st.lists(st.integers(0, 2), max_size=4)
    steps: Steps = {name: [] for name in NAMES}
    per_token = draw(st.booleans()) if token_rewards is None else token_rewards
    for _ in range(draw(st.integers(1, 4))):
        context = draw(tokens)
        turns = draw(st.integers(1, 4))
        for turn in range(turns):
            prompt = draw(tokens) if draw(st.integers(0, 4)) == 0 else context + draw(tokens)
            response = draw(tokens)
            context = prompt + response
            number = len(steps["rewards"]) + 1
            steps["prompt_token_ids"].append(prompt)
            steps["response_ids"].append(response)
            steps["loss_masks"].append([1] * len(response))
            steps["rollout_logprobs"].append([-float(number)] * len(response))
            steps["rewards"].append([float(number)] * len(response) if per_token else float(number))
            routes = max(len(context) - draw(st.integers(0, 3)), int(len(context) > 1))
            steps["rollout_expert_indices"].append([[[number, turn]]] * routes)
            steps["is_last_step"].append(turn == turns - 1)
            steps["stop_reasons"].append(f"turn {turn}")
    return steps


NAMES = (
    "prompt_token_ids",
    "response_ids",
    "loss_masks",
    "rollout_logprobs",
    "rewards",
    "rollout_expert_indices",
    "is_last_step",
    "stop_reasons",
)


def as_arrays(steps: Steps) -> dict[str, Any]:
    """The same steps with an array per row."""
    kinds = {"rollout_logprobs": np.float32, "loss_masks": np.uint8, "rewards": np.float32}
    return {
        name: [
            np.array(row, kinds.get(name, np.int64)).reshape((-1, 1, 2) if "expert" in name else -1)
            for row in column
        ]
        if isinstance(column[0], list)
        else column
        for name, column in steps.items()
    }


def plain(rollouts: Rollouts) -> Steps:
    """Columns as Python lists."""
    return {
        name: column.to_list() if isinstance(column, Ragged) else list(column)
        for name, column in rollouts.items()
    }


@given(step_lists())
def test_equals_the_loop(steps: Steps) -> None:
    expected = merge_reference(steps)
    for given_steps in (steps, as_arrays(steps), Rollouts(as_arrays(steps))):
        merged = plain(merge_steps(given_steps))
        assert merged == expected


@given(step_lists())
def test_observations_are_masked_where_no_masks_are_given(steps: Steps) -> None:
    expected = merge_reference(steps)  # whose turns are trained whole
    for made in (as_arrays(steps), Rollouts(as_arrays(steps))):
        unmasked = {name: column for name, column in made.items() if name != "loss_masks"}
        assert plain(merge_steps(unmasked)) == expected


def test_what_labels_ignore_is_ignored_when_merged() -> None:
    steps = {
        "prompt_token_ids": [[1], [1, 2, 9]],
        "response_ids": [[2], [3, 4]],
        "is_last_step": [False, True],
    }
    for labels in ([[2], [-100, 4]], [[-100, 2], [-100, -100, -100, -100, 4]]):
        merged = merge_steps({**steps, "labels": labels})
        assert "loss_masks" not in merged
        assert rollkit.pack(merged, 8)["loss_masks"].tolist() == [[0, 1, 0, 0, 1, 0, 0, 0]]


def test_masks_by_another_name_are_warned_of() -> None:
    steps = {"prompt_token_ids": [[1], [1, 2]], "response_ids": [[2], [3]], "is_last_step": [False, True]}
    with pytest.warns(UserWarning, match="column 'completion_mask' masks nothing"):
        merge_steps({**steps, "completion_mask": [[1], [0]]})


@given(step_lists(token_rewards=False))
def test_parts_count_through_and_tensors_are_rows(steps: Steps) -> None:
    arrays = as_arrays(steps)
    tensors = {
        name: [torch.from_numpy(row) for row in column] if isinstance(column[0], np.ndarray) else column
        for name, column in arrays.items()
    }
    assert plain(merge_steps(tensors)) == plain(merge_steps(arrays))
    ends = [i + 1 for i, last in enumerate(steps["is_last_step"]) if last]
    parts = [
        {name: column[a:b] for name, column in arrays.items()} for a, b in zip([0, *ends], ends, strict=False)
    ]
    assert plain(rollkit.merge_steps(parts)) == plain(merge_steps(arrays))


def test_inputs_are_not_changed() -> None:
    prompts = [np.array([1, 2]), np.array([1, 2, 3, 4])]
    responses = [np.array([3]), np.array([5])]
    for row in prompts + responses:
        row.flags.writeable = False
    steps = {"prompt_token_ids": prompts, "response_ids": responses, "is_last_step": [False, True]}
    merged = merge_steps(steps)
    assert plain(merged)["response_ids"] == [[3, 4, 5]]
    assert [row.tolist() for row in prompts] == [[1, 2], [1, 2, 3, 4]]


def test_a_prompt_that_is_a_prefix_of_the_context_but_not_longer_breaks() -> None:
    # The second prompt is a prefix of prompt + response, and longer than the prompt alone.
    steps = {
        "prompt_token_ids": [[1, 2], [1, 2, 3]],
        "response_ids": [[3, 4], [5]],
        "is_last_step": [False, True],
    }
    assert plain(merge_steps(steps))["response_ids"] == [[3, 4], [5]]


class OnlyText:
    """An id as engines have them: another object in each row, told apart by its text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def to_string(self) -> str:
        return self.text


@pytest.mark.parametrize("told", [False, True])
def test_ids_are_told_apart_by_their_text(told: bool) -> None:
    steps: dict[str, Any] = {
        "prompt_token_ids": [[1], [1, 2, 3], [1, 2, 3, 4, 5]],
        "response_ids": [[2], [4], [6]],
        "trajectory_ids": [OnlyText("a"), OnlyText("a"), OnlyText("b")],
    }
    if told:
        steps["is_last_step"] = [False, True, True]
    assert merge_steps(steps).ragged("response_ids").to_list() == [[2, 3, 4], [6]]


def test_signed_and_unsigned_ids_stay_integers() -> None:
    merged = merge_steps(
        {
            "prompt_token_ids": [np.array([1], np.int64), np.array([1, 2, 3], np.int64)],
            "response_ids": [np.array([2], np.uint64), np.array([4], np.uint64)],
            "is_last_step": [False, True],
        }
    )
    assert merged.ragged("response_ids").dtype == np.int64
    assert merged["response_ids"].to_list() == [[2, 3, 4]]  # type: ignore[union-attr]


def test_trajectory_ids_end_trajectories_where_there_is_no_last_step() -> None:
    steps = {
        "prompt_token_ids": [[1], [1, 2], [1, 2, 2]],
        "response_ids": [[2], [2], [3]],
        "trajectory_ids": ["a", "a", "b"],
    }
    merged = merge_steps(steps)
    assert plain(merged)["response_ids"] == [[2, 2], [3]]
    assert merged["trajectory_ids"] == ["a", "b"]


def test_other_columns_are_carried() -> None:
    merged = merge_steps(
        {
            "prompt_token_ids": [[1], [1, 2, 7]],
            "response_ids": [[2], [3, 4]],
            "is_last_step": [False, True],
            "values": [[0.5], [1.5, 2.5]],
            "kinds": [[[1, 0]], [[2, 0], [3, 0]]],
            "prompt_weights": [[9.0], [8.0, 8.0, 8.0]],
            "notes": [{"a": 1}, {"b": 2}],
        }
    )
    assert plain(merged)["values"] == [[0.5, 0.0, 1.5, 2.5]]
    assert plain(merged)["kinds"] == [[[1, 0], [0, 0], [2, 0], [3, 0]]]
    assert plain(merged)["prompt_weights"] == [[9.0]]
    assert merged["notes"] == [{"b": 2}]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            {"response_ids": [[1]]},
            "merging needs the columns 'prompt_token_ids' and 'response_ids'",
        ),
        (
            {"prompt_token_ids": [[1]], "response_ids": [[1]]},
            "merging needs a column 'is_last_step' or 'trajectory_ids', to know where trajectories end",
        ),
        (
            {
                "prompt_token_ids": [[1], [1, 2]],
                "response_ids": [[2], [3]],
                "loss_masks": [[1], [1, 1]],
                "is_last_step": [False, True],
            },
            "column 'loss_masks': row 1 has 2 elements; its prompt has 2 tokens, its response 1",
        ),
        (
            {
                "prompt_token_ids": [[1], [1, 2]],
                "response_ids": [[2], [3]],
                "is_last_step": [False, True],
                "trajectory_ids": ["a", "b"],
            },
            "column 'is_last_step': row 0 is False, but row 1 belongs to another trajectory, 'b'",
        ),
        (
            {"prompt_token_ids": [[1]], "response_ids": [[1]], "is_last_step": np.array([[True]])},
            "column 'is_last_step': expected one bool per row, 1, got shape (1, 1)",
        ),
    ],
)
def test_errors(steps: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        merge_steps(steps)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared rollouts are not here")
def test_real_steps_give_the_real_trajectories() -> None:
    merged = merge_steps(rollkit.read(SHARED / "tau_airline_steps.parquet"))
    whole = rollkit.read(SHARED / "tau_airline.jsonl")
    assert len(merged) == 200
    for name in ("prompt_token_ids", "response_ids", "loss_masks", "rollout_logprobs"):
        ours, theirs = merged[name], whole[name]
        assert isinstance(ours, Ragged)
        assert isinstance(theirs, Ragged)
        assert ours.astype(theirs.dtype).equals(theirs), name
    rewards = merged["rewards"]
    assert isinstance(rewards, Ragged)
    for tokens, reward in zip(rewards, whole["rewards"], strict=True):
        assert tokens[-1] == reward
        assert not tokens[:-1].any()


def test_a_list_of_the_row_is_that_of_its_last_step() -> None:
    images = Ragged.from_rows([[[1.0]], [[1.0], [2.0, 3.0]], []], np.float32, lists=True)
    steps = {"prompt_token_ids": [[1], [1, 2, 8], [1]], "response_ids": [[2], [4], [6]], "images": images}
    merged = merge_steps(steps | {"trajectory_ids": ["a", "a", "b"]}, levels={"images": "row[]"})
    assert merged.ragged("images").equals(images[1:])
