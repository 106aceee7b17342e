"""What is compared with what: trajectories, groups, equal rewards, stops, and values that spoil a batch."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.paths import ROOT

import rollkit
from rollkit import Rollouts, advantages, mask_overlong, mask_zero_variance, merge_steps
from rollkit._rollouts.advantages import OF_GROUPS
from rollkit._rollouts.stops import CUT, FINISHED

STEPS: dict[str, Any] = {
    "prompt_token_ids": [[1], [1], [1]],
    "response_ids": [[2], [6], [3]],
    "loss_masks": [[1], [1], [1]],
    "rewards": [0.0, 0.0, 1.0],
    "instance_ids": ["x"] * 3,
    "is_last_step": [True] * 3,
    "trajectory_ids": ["a", "b", "c"],
}

BY_TRAJECTORY: dict[str, Callable[[Any], Any]] = {
    "advantages": lambda rows: advantages(rows, estimator="mean"),
    "mask_zero_variance": mask_zero_variance,
    "merge_steps": merge_steps,
    "validate": lambda rows: Rollouts(rows).validate(step_wise=True),
}


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("name", BY_TRAJECTORY)
def test_rows_of_a_trajectory_must_be_adjacent(name: str, told: bool) -> None:
    rows = STEPS | {"trajectory_ids": ["a", "b", "a"], "is_last_step": [False, True, True]}
    if not told and name != "validate":
        del rows["is_last_step"]
    with pytest.raises(
        ValueError, match=r"'trajectory_ids': row 2 goes on with trajectory 'a'.*sort\("
    ) as caught:
        BY_TRAJECTORY[name](rows)
    assert (caught.value.column, caught.value.row) == ("trajectory_ids", 2)  # type: ignore[attr-defined]


def test_sorting_brings_them_together() -> None:
    rows = Rollouts(STEPS | {"trajectory_ids": ["b", "a", "b"], "step": [1, 0, 0]})
    found = rows.sort("trajectory_ids", "step")
    assert found["trajectory_ids"] == ["a", "b", "b"]
    assert found.ragged("response_ids").to_list() == [[6], [3], [2]]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), max_size=12))
def test_sort_is_that_of_python(entries: list[tuple[int, str]]) -> None:
    numbers, texts = [entry[0] for entry in entries], [entry[1] for entry in entries]
    rows = Rollouts({"n": np.array(numbers, np.int64), "t": texts, "at": np.arange(len(entries))})
    wanted = sorted(range(len(entries)), key=lambda i: (texts[i], numbers[i]))
    assert rows.sort("t", "n")["at"].tolist() == wanted  # type: ignore[union-attr]


def test_sort_refuses_what_has_no_order() -> None:
    rows = Rollouts({"ids": [[1], [2]], "mixed": ["a", 1]})
    with pytest.raises(TypeError, match="column 'ids' has no single entry per rollout to sort by"):
        rows.sort("ids")
    with pytest.raises(TypeError, match="column 'mixed': entries cannot be compared"):
        rows.sort("mixed")
    with pytest.raises(KeyError, match="no column 'step'"):
        rows.sort("step")


@pytest.mark.parametrize("name", BY_TRAJECTORY)
def test_a_trajectory_has_one_group(name: str) -> None:
    rows = STEPS | {
        "trajectory_ids": [0, 1, 1],
        "is_last_step": [True, False, True],
        "instance_ids": list("aab"),
    }
    with pytest.raises(ValueError, match="'instance_ids': row 2 is of another group than row 1"):
        BY_TRAJECTORY[name](rows)


def test_repetition_numbers_are_no_trajectory_ids() -> None:
    rows = {"response_ids": [[1]] * 4, "rewards": [1.0, 0.0] * 2, "loss_masks": [[1]] * 4}
    rows |= {"trajectory_ids": [0, 1, 1, 0], "instance_ids": list("aabb")}
    for call in (advantages, mask_zero_variance):
        with pytest.raises(ValueError, match="trajectory_ids"):
            call(rows)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, object])
@pytest.mark.parametrize("estimator", OF_GROUPS)
def test_equal_rewards_give_exactly_zero(estimator: str, dtype: Any) -> None:
    for reward in (0.1, 1 / 3, 1e-30, 7.0, -0.1):
        for count in (2, 3, 6, 7, 31, 64):
            rewards = np.full(count, reward).astype(dtype)
            rows = {"response_ids": [[2]] * count, "rewards": list(rewards), "loss_masks": [[1]] * count}
            ids = ["x"] * count
            assert not advantages(rows, by=ids, estimator=estimator, eps=0).flat.any(), (reward, count)
            assert not mask_zero_variance(rows, ids).ragged("loss_masks").flat.any()


def test_a_deviation_far_below_the_mean_is_one() -> None:
    rows = {"response_ids": [[2]] * 2, "rewards": [1.0, 1.0 + 1e-12]}
    found = advantages(rows, by=["x", "x"], eps=0).flat
    np.testing.assert_allclose(found, [-(0.5**0.5), 0.5**0.5], rtol=1e-3)


SCORED: dict[str, Any] = {
    "response_ids": [[1]] * 4,
    "instance_ids": ["x"] * 4,
    "loss_masks": [[1], [1], [1], [0]],
}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, None])
@pytest.mark.parametrize("call", [advantages, mask_zero_variance])
def test_a_reward_that_is_no_number_is_refused_or_ignored(call: Callable[..., Any], bad: Any) -> None:
    rows = SCORED | {"rewards": [1.0, bad, 0.0, 5.0]}
    with pytest.raises((TypeError, ValueError), match="'rewards': row 1 is") as caught:
        call(rows)
    assert caught.value.row == 1  # type: ignore[attr-defined]
    ignored = np.array([False, True, False, True])
    found = call(rows, ignore=ignored)
    if call is advantages:
        np.testing.assert_allclose(found.flat[:3], [0.5**0.5, 0, -(0.5**0.5)], rtol=1e-4)
        if not (isinstance(bad, float) and np.isinf(bad)):
            both = advantages(rows, ignore=("unscored", "masked"))
            assert both.equals(found)


def test_ignored_rows_are_compared_with_none() -> None:
    rows = SCORED | {"rewards": [1.0, 1.0, 1.0, 0.0]}
    assert mask_zero_variance(rows)["loss_masks"].to_list() == [[1], [1], [1], [0]]  # type: ignore[union-attr]
    found = mask_zero_variance(rows, ignore="masked")
    assert found.ragged("loss_masks").to_list() == [[0], [0], [0], [0]]


@pytest.mark.parametrize("ignore", ["masks", ("masked", "x"), [True], np.zeros(4), 3])
def test_what_is_ignored_is_a_mask_or_words(ignore: Any) -> None:
    with pytest.raises(ValueError, match="ignore must be one"):
        advantages(SCORED | {"rewards": [1.0] * 4}, ignore=ignore)


def test_groups_of_one_are_told_once_with_counts() -> None:
    rows = SCORED | {"rewards": [1.0, 0.0, 1.0, 0.0], "instance_ids": list("abcd")}
    for call in (advantages, mask_zero_variance):
        with pytest.warns(UserWarning, match="each of 4 groups has one rollout") as caught:
            call(rows)
        assert len(caught) == 1
        assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advantages(rows, by=list("aabc"))


def test_groups_may_be_given_as_any_iterable() -> None:
    rows = SCORED | {"rewards": [1.0, 0.0, 1.0, 0.0]}
    wanted = advantages(rows)
    assert advantages(rows, by=(group for group in "xxxx")).equals(wanted)
    assert advantages(rows, by=iter("xxxx")).equals(wanted)


REASONS: list[tuple[Any, bool | None]] = [
    *((word, True) for word in sorted(FINISHED)),
    *((word, False) for word in sorted(CUT)),
    ("STOP", True),
    ("MAX_TOKENS", False),
    ({"type": "stop", "matched": 7}, True),
    ({"type": "length", "length": 9}, False),
    ({"type": "abort", "message": "x"}, False),
    (None, None),
    ("weird", None),
    ({}, None),
    (7, None),
]


@pytest.mark.parametrize(("reason", "finished"), REASONS, ids=str)
def test_stop_reasons(reason: Any, finished: bool | None) -> None:
    rows = {"response_ids": [[1], [2]], "loss_masks": [[1], [1]], "stop_reasons": ["stop", reason]}
    if finished is None:
        with pytest.raises(ValueError, match="'stop_reasons': row 1 is ") as caught:
            mask_overlong(rows)
        assert caught.value.row == 1  # type: ignore[attr-defined]
        assert repr(reason) in str(caught.value)
        assert mask_overlong(rows, keep=(reason,)).ragged("loss_masks").to_list() == [[1], [1]]
        assert mask_overlong(rows, cut=(reason,)).ragged("loss_masks").to_list() == [[1], [0]]
    else:
        assert mask_overlong(rows).ragged("loss_masks").to_list() == [[1], [int(finished)]]


def test_what_is_kept_wins_over_what_is_known() -> None:
    rows = {"response_ids": [[1], [2]], "loss_masks": [[1], [1]], "stop_reasons": ["stop", "length"]}
    assert mask_overlong(rows, keep="length").ragged("loss_masks").to_list() == [[1], [1]]
    assert mask_overlong(rows, cut="stop").ragged("loss_masks").to_list() == [[0], [0]]
    with pytest.raises(TypeError, match=r"keep must be stop reasons, such as \('eos',\), got int"):
        mask_overlong(rows, keep=3)  # type: ignore[arg-type]


def test_the_documented_words_are_the_known_ones() -> None:
    text = (ROOT / "docs" / "rollouts.md").read_text()
    for line, words in (("| finished |", FINISHED), ("| was cut off |", CUT)):
        row = next(row for row in text.splitlines() if row.startswith(line))
        assert set(re.findall("`([a-z_]+)`", row)) == words


def test_our_own_engine_says_known_words() -> None:
    from rollkit.decode.generate import BAD

    assert {"stop", "length", "cancelled", *BAD.values()} <= FINISHED | CUT


VALID: dict[str, Any] = {
    "prompt_token_ids": [[1], [1, 1]],
    "response_ids": [[2, 3], [4]],
    "loss_masks": [[1, 0], [1]],
    "rewards": [1.0, 0.0],
    "rollout_logprobs": [[-0.5, 0.0], [-np.inf]],
}

WRONG: list[tuple[str, Any, str]] = [
    ("prompt_token_ids", [[1], [1, -2]], "row 1, position 1: -2 is wrong; expected a token id, 0 or more"),
    ("response_ids", [[2, -3], [4]], "row 0, position 1: -3 is wrong; expected a token id, 0 or more"),
    ("loss_masks", [[1, 0], [2]], "row 1, position 0: 2 is wrong; expected 0 or 1"),
    ("rewards", [np.nan, 1.0], "row 0 is nan; expected a finite number"),
    ("rewards", [1.0, np.inf], "row 1 is inf; expected a finite number"),
    ("rewards", [1.0, None], "row 1 is None; expected a number"),
    ("rewards", [[0, 1.0], [np.nan]], "row 1, position 0: nan is wrong; expected a finite number"),
    (
        "rollout_logprobs",
        [[-1.0, np.nan], [-1.0]],
        "row 0, position 1: nan is wrong; expected a log-probability",
    ),
    (
        "rollout_logprobs",
        [[-1.0, 0.5], [-1.0]],
        "row 0, position 1: 0.5 is wrong; expected a log-probability",
    ),
    ("ref_logprobs", [[-1.0, -1.0], [0.5]], "row 1, position 0: 0.5 is wrong; expected a log-probability"),
    ("rollout_expert_indices", [[[[0, 1]], [[0, 1]]], [[[-1, 2]]]], "row 1, position 0: -1 is wrong"),
]


@pytest.mark.parametrize(("name", "column", "message"), WRONG)
def test_validate_looks_at_values(name: str, column: Any, message: str) -> None:
    Rollouts(VALID).validate()
    given = Rollouts(
        {"before": [9, 9, 9], **{key: [value[0], *value] for key, value in (VALID | {name: column}).items()}}
    )
    for rows in (Rollouts(VALID | {name: column}), given[1:]):  # a slice counts from its own first row
        with pytest.raises(ValueError, match=f"column '{name}': {message}") as caught:
            rows.validate()
        assert caught.value.column == name  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", [lambda rows: rollkit.pack(rows, 8), rollkit.pad, rollkit.spread_rewards])
def test_an_unscored_row_is_named_where_a_number_is_needed(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="'rewards': row 1 is None"):
        make(VALID | {"rewards": [1.0, None]})


@pytest.mark.parametrize(
    "make", [lambda rows: rollkit.pack(rows, 8, validate=True), lambda rows: rollkit.pad(rows, validate=True)]
)
def test_whole_sequences_are_called_by_their_own_name(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="column 'input_ids': row 1, position 0: -2 is wrong"):
        make({"input_ids": [[1], [-2]]})


@pytest.mark.parametrize("estimator", ["mean", "rloo"])
def test_an_advantage_beyond_float32_is_refused(estimator: str) -> None:
    rows = SCORED | {"rewards": [0.0, 1e300, 0.0, -1e300]}
    message = r"column 'rewards': row 1 has the advantage 1[.0-9]*e\+300, which does not fit float32"
    with pytest.raises(OverflowError, match=message) as caught:
        advantages(rows, estimator=estimator)
    assert caught.value.row == 1  # type: ignore[attr-defined]


def test_a_batch_keeps_what_it_is_given() -> None:
    batch = rollkit.pack(VALID | {"rollout_logprobs": [[np.nan, 0.5], [0.0]]}, 8)
    assert np.isnan(batch["rollout_logprobs"]).any()


@pytest.mark.parametrize(("name", "column", "message"), WRONG)
def test_a_batch_and_a_file_look_at_values_where_asked(
    name: str, column: Any, message: str, tmp_path: Path
) -> None:
    rows = VALID | {name: column}
    for make in (rollkit.pad, lambda rows, **options: rollkit.pack([rows], 8, **options)):
        make(VALID, validate=True)
        with pytest.raises(ValueError, match=f"column '{name}': {message}"):
            make(rows, validate=True)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({key: rows[key][i] for key in rows}) + "\n" for i in range(2)))
    with pytest.raises(ValueError, match=f"column '{name}': ") as caught:
        rollkit.read(path, nonfinite="keep", validate=True)
    assert caught.value.row is not None  # type: ignore[attr-defined]
    rollkit.read(path, nonfinite="keep")


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize("name", ["trajectory_ids", "instance_ids"])
@pytest.mark.parametrize("call", [advantages, mask_zero_variance, merge_steps])
def test_rows_without_an_id_are_not_of_one_trajectory_or_group(call: Any, name: str, missing: Any) -> None:
    rows = {
        "prompt_token_ids": [[1], [1, 2], [1, 2]],
        "response_ids": [[2], [3], [4]],
        "rewards": [0.0, 0.0, 1.0],
        "instance_ids": ["a", "a", "a"],
        name: ["a", missing, missing],
    }
    if call is merge_steps and name == "instance_ids":
        return  # joins by trajectories alone
    with pytest.raises(ValueError, match=rf"column '{name}': row 1 is (None|nan); give each row an id"):
        call(rows)


def test_a_missing_id_is_refused_by_array_too() -> None:
    rows = {"response_ids": [[1], [2]], "rewards": [0.0, 1.0], "trajectory_ids": np.array([np.nan, np.nan])}
    with pytest.raises(ValueError, match="column 'trajectory_ids': row 0 is nan"):
        advantages(rows, by=["a", "a"])
    del rows["trajectory_ids"]
    with pytest.raises(ValueError, match="column 'by': row 1 is None"):
        advantages(rows, by=["a", None])


@pytest.mark.parametrize("call", [advantages, mask_zero_variance])
def test_rewards_of_more_tokens_than_there_are_are_refused(call: Callable[..., Any]) -> None:
    rows = {"response_ids": [[1], [2, 3]], "rewards": [[1.0], [0.0]], "instance_ids": ["a", "a"]}
    with pytest.raises(ValueError, match="column 'rewards': row 1 has 1 elements, its response has 2 tokens"):
        call(rows)


@pytest.mark.parametrize("reason", [float("nan"), np.float32("nan")])
def test_a_missing_stop_reason_is_not_the_word_nan(reason: Any) -> None:
    rows = {"response_ids": [[1], [2]], "stop_reasons": ["stop", reason]}
    with pytest.raises(ValueError, match="column 'stop_reasons': row 1 is"):
        mask_overlong(rows)
    assert mask_overlong(rows, keep=[reason]).ragged("loss_masks").to_list() == [[1], [1]]


@pytest.mark.parametrize("entries", [[1, 2], np.array([1, 2]), [True, False], np.array([True, False])])
def test_stop_reasons_that_are_numbers_go_by_value(entries: Any) -> None:
    rows = {"response_ids": [[1], [2]], "stop_reasons": entries}
    keep, cut = ([entry.item() if isinstance(entry, np.generic) else entry] for entry in entries)
    assert mask_overlong(rows, keep=keep, cut=cut).ragged("loss_masks").to_list() == [[1], [0]]


def test_masks_left_out_are_1_on_responses() -> None:
    rows = {"response_ids": [[1, 2], [3]], "stop_reasons": ["stop", "length"], "rewards": [1.0, 1.0]}
    assert mask_overlong(rows).ragged("loss_masks").to_list() == [[1, 1], [0]]
    assert mask_zero_variance(rows, by=["a", "a"]).ragged("loss_masks").to_list() == [[0, 0], [0]]
    rows["rewards"] = [1.0, 0.0]
    assert advantages(rows, by=["a", "a"], estimator="mean", ignore="masked").to_list() == [[0.5] * 2, [-0.5]]


@pytest.mark.parametrize(("name", "column"), [("route_masks", [[0, 2]]), ("loss_weights", [[1.0, np.nan]])])
def test_validate_looks_at_masks_and_weights(name: str, column: Any) -> None:
    with pytest.raises(ValueError, match=f"column '{name}': row 0, position 1: "):
        rollkit.pack({"prompt_token_ids": [[1]], "response_ids": [[2, 3]], name: column}, 4, validate=True)
