"""`rollkit.compat.skyrl` against plain Python, with lists, arrays, tensors and columns."""

import copy
import logging
import re
import subprocess
import sys
import types
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tests.compat import skyrl_oracles as oracle

from rollkit import Ragged, Rollouts
from rollkit.compat import skyrl

TOKENS = ("prompt_token_ids", "response_ids", "loss_masks", "rollout_logprobs")


@dataclass(frozen=True)
class TrajectoryID:
    instance_id: str
    repetition_id: int

    def to_string(self) -> str:
        return f"{self.instance_id}_{self.repetition_id}"


@st.composite
def generator_outputs(draw: st.DrawFn, logprobs: bool | None = None) -> dict[str, Any]:
    lengths = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 8)), min_size=1, max_size=4))
    per_token = draw(st.booleans())
    quarters = st.integers(-4, 4).map(lambda n: n / 4)
    rows = [
        {
            "prompt_token_ids": draw(st.lists(st.integers(0, 99), min_size=p, max_size=p)),
            "response_ids": draw(st.lists(st.integers(0, 99), min_size=r, max_size=r)),
            "loss_masks": draw(st.lists(st.integers(0, 1), min_size=r, max_size=r)),
            "rewards": draw(st.lists(quarters, min_size=r, max_size=r)) if per_token else draw(quarters),
            "stop_reasons": draw(st.sampled_from(["stop", "length"])),
            "rollout_logprobs": draw(st.lists(quarters, min_size=r, max_size=r)),
        }
        for p, r in lengths
    ]
    rows[0] |= {"prompt_token_ids": [1], "response_ids": [2], "loss_masks": [1], "rollout_logprobs": [0.5]}
    rows[0]["rewards"] = [1.0] if per_token else 1.0
    output: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    if not (draw(st.booleans()) if logprobs is None else logprobs):
        output["rollout_logprobs"] = None
    return output


def as_arrays(output: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [np.array(row, float if name == "rollout_logprobs" else int) for row in value]
        if name in TOKENS and value is not None
        else value
        for name, value in output.items()
    }


def as_tensors(output: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [torch.from_numpy(row) for row in value] if name in TOKENS and value is not None else value
        for name, value in as_arrays(output).items()
    }


def as_columns(output: dict[str, Any]) -> dict[str, Any]:
    return {
        name: Ragged.from_rows(value) if name in TOKENS and value is not None else value
        for name, value in output.items()
    }


def plain(value: Any) -> Any:
    """Rows of any kind as lists."""
    if isinstance(value, Ragged):
        return value.to_list()
    if isinstance(value, list):
        return [row.tolist() if hasattr(row, "tolist") else row for row in value]
    return value


FORMS: list[Any] = [copy.deepcopy, as_arrays, as_tensors, as_columns]


class TestConcatenate:
    @pytest.mark.parametrize("form", FORMS)
    @given(data=st.data())
    def test_joins_measures_and_checks(self, form: Any, data: st.DataObject) -> None:
        logprobs = data.draw(st.booleans())
        parts = [data.draw(generator_outputs(logprobs)) for _ in range(data.draw(st.integers(1, 4)))]
        kinds = {isinstance(part["rewards"][0], list) for part in parts}
        if len(kinds) > 1:
            return
        given = [form(part) for part in parts]
        found = skyrl.concatenate_generator_outputs(given)
        for name in (*TOKENS, "rewards", "stop_reasons"):
            if parts[0][name] is None:
                assert found[name] is None
            else:
                assert plain(found[name]) == [row for part in parts for row in part[name]]
        joined = {name: [row for part in parts for row in part[name]] for name in ("response_ids", "rewards")}
        masks = [row for part in parts for row in part["loss_masks"]]
        wanted = oracle.metrics(joined["response_ids"], joined["rewards"], masks)
        assert found["rollout_metrics"] == pytest.approx(wanted, rel=1e-9)
        assert all(found[name] is None for name in ("trajectory_generation_times", "trajectory_time_splits"))
        assert [{name: plain(value) for name, value in part.items()} for part in given] == parts

    def test_rows_of_lists_are_shared(self) -> None:
        part = output()
        assert skyrl.concatenate_generator_outputs([part])["response_ids"][0] is part["response_ids"][0]

    def test_takes_rollouts(self) -> None:
        parts = [Rollouts.from_generator_output(output()) for _ in range(2)]
        found = skyrl.concatenate_generator_outputs(parts)
        assert found["response_ids"].to_list() == output()["response_ids"] * 2
        assert found["rewards"].tolist() == output()["rewards"] * 2

    def test_other_list_fields_are_joined_and_others_left_out(self) -> None:
        part = output() | {"env_metrics": [{"a": 1}, {"a": 2}], "note": "x"}
        found = skyrl.concatenate_generator_outputs([part, part])
        assert found["env_metrics"] == part["env_metrics"] * 2
        assert "note" not in found

    def test_times_of_steps_count_once_per_trajectory(self) -> None:
        steps = {
            "prompt_token_ids": [[1], [1, 2, 3]],
            "response_ids": [[2], [4]],
            "rewards": [0.0, 1.0],
            "loss_masks": [[1], [1]],
            "trajectory_ids": ["a", "a"],
            "is_last_step": [False, True],
            "trajectory_generation_times": [1.0, 5.0],
            "trajectory_time_splits": {"llm": [1.0, 3.0]},
        }
        found = skyrl.concatenate_generator_outputs([steps], step_wise=True)
        metrics = found["rollout_metrics"]
        assert metrics["generate/trajectory_time_completion_mean"] == 5.0
        assert metrics["generate/trajectory_time_llm_max"] == 3.0
        assert metrics["generate/trajectory_time_other_p90"] == 2.0
        assert found["trajectory_time_splits"] == {"llm": [1.0, 3.0]}
        either = [steps | {"trajectory_time_splits": None}, steps | {"trajectory_ids": ["b", "b"]}]
        for parts in (either, either[::-1]):
            found = skyrl.concatenate_generator_outputs(parts, step_wise=True)
            assert found["trajectory_time_splits"] is None
            assert found["trajectory_generation_times"] == [1.0, 5.0, 1.0, 5.0]

    def test_metrics_of_generators_are_aggregated(self) -> None:
        parts = [
            output() | {"rollout_metrics": {"x/avg": 1.0, "generate/min_num_tokens": 0, "turns": 2}},
            output() | {"rollout_metrics": None},
            output() | {"rollout_metrics": {"x/avg": 2.0, "turns": 3}},
        ]
        metrics = skyrl.concatenate_generator_outputs(parts)["rollout_metrics"]
        assert (metrics["x/avg"], metrics["turns"], metrics["generate/min_num_tokens"]) == (1.5, 5, 1)

    @pytest.mark.parametrize("name", ["rollout_logprobs", "rollout_expert_indices"])
    def test_refuses_a_mix_by_name(self, name: str) -> None:
        values = [[-1.0, -2.0], [-3.0]]
        parts = [output() | {name: values}, output() | {name: None}]
        for mixed in (parts, parts[::-1]):
            with pytest.raises(ValueError, match=f"all have null {name} or all non-null, but received a mix"):
                skyrl.concatenate_generator_outputs(mixed)

    def test_refuses_nothing(self) -> None:
        with pytest.raises(AssertionError):
            skyrl.concatenate_generator_outputs([])


def output(**change: Any) -> dict[str, Any]:
    valid = {
        "prompt_token_ids": [[1, 2], [3]],
        "response_ids": [[4, 5], [6]],
        "rewards": [0.5, 1.0],
        "loss_masks": [[1, 0], [1]],
        "stop_reasons": ["stop", "length"],
        "rollout_logprobs": None,
    }
    return valid | change


def steps(**change: Any) -> dict[str, Any]:
    rows = {
        "prompt_token_ids": [[1]] * 4,
        "response_ids": [[2]] * 4,
        "rewards": [[0.0]] * 4,
        "loss_masks": [[1]] * 4,
        "rollout_logprobs": None,
        "trajectory_ids": [TrajectoryID(name, 0) for name in "aabb"],
        "is_last_step": [False, True, False, True],
    }
    return rows | change


class TestValidate:
    @pytest.mark.parametrize(
        "valid",
        [
            output(),
            output(rewards=[[0.0, 1.0], [1.0]]),
            output(rollout_logprobs=[[-1.0, -1.0], [-1.0]]),
            output(rollout_logprobs=[]) | {"rollout_logprobs": None},
            output(response_ids=[[], [6]], loss_masks=[[], [1]]),
            *[form(output(rollout_logprobs=[[0.5, 0.5], [0.5]])) for form in FORMS],
        ],
    )
    def test_accepts(self, valid: dict[str, Any]) -> None:
        skyrl.validate_generator_output(2, valid)

    def test_steps_may_be_more_than_prompts(self) -> None:
        skyrl.validate_generator_output(2, steps(), step_wise=True)
        skyrl.validate_generator_output(2, steps(trajectory_ids=[0, 0, 1, 1]), step_wise=True)

    @pytest.mark.parametrize(
        ("bad", "error", "message"),
        [
            (output(response_ids=[]), RuntimeError, "No outputs generated"),
            (output(response_ids=[[4]]), AssertionError, "Mismatch between prompts (2) and responses (1)"),
            (
                output(prompt_token_ids=[[1]]),
                AssertionError,
                "Mismatch between responses (2) and prompt_token_ids (1)",
            ),
            *[
                (
                    output(**{name: [[1]] * 3}),
                    AssertionError,
                    f"Generator output {name} length must be equal to response_ids length, got 3 and 2",
                )
                for name in ("rewards", "loss_masks", "rollout_logprobs", "stop_reasons", "pixel_values")
            ],
            (
                output(loss_masks=[[1, 0], [1, 1]]),
                AssertionError,
                "Response ids and loss masks must have the same length, for sample 1 got 1 and 2",
            ),
            (
                output(rewards=[[1.0], [1.0]]),
                AssertionError,
                "Token rewards and response ids must have the same length, for sample 0 got 1 and 2",
            ),
            (
                output(rollout_logprobs=[[1.0], [1.0]]),
                AssertionError,
                "Response ids and rollout logprobs must have the same length, for sample 0 got 2 and 1",
            ),
            (
                output(loss_masks=[[1, 0], []], rollout_logprobs=[[1.0], [1.0]]),
                AssertionError,
                "Response ids and rollout logprobs must have the same length, for sample 0 got 2 and 1",
            ),
            (
                output(rewards=[[1.0, 0.0], 1.0]),
                AssertionError,
                "rewards must be `List[float]` or `List[List[float]]`",
            ),
            (
                output(rewards=[1.0, [1.0]]),
                AssertionError,
                "rewards must be `List[float]` or `List[List[float]]`",
            ),
        ],
    )
    def test_refuses(self, bad: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=re.escape(message)):
            skyrl.validate_generator_output(2, bad)

    @pytest.mark.parametrize(
        ("change", "pattern"),
        [
            ({"is_last_step": None}, "is_last_step.*missing"),
            ({"trajectory_ids": None}, "trajectory_ids.*missing"),
            ({"is_last_step": [True] * 3}, "is_last_step length"),
            ({"is_last_step": [False] * 4}, r"is_last_step\[-1\] must be True"),
            ({"trajectory_ids": ["a", "b", "a", "b"]}, "Non-contiguous trajectory at index 2"),
            ({"is_last_step": [False, False, False, True]}, "Trajectory boundary at index 1"),
            ({"is_last_step": [True, True, False, True]}, "is_last_step.*True.*trajectory continues"),
        ],
    )
    def test_refuses_steps(self, change: dict[str, Any], pattern: str) -> None:
        with pytest.raises(AssertionError, match=pattern):
            skyrl.validate_generator_output(2, steps(**change), step_wise=True)

    @pytest.mark.parametrize("form", FORMS)
    def test_logs_each_time_if_all_is_masked(self, form: Any, caplog: pytest.LogCaptureFixture) -> None:
        masked = form(output(loss_masks=[[0, 0], [0]]))
        for _ in range(2):
            skyrl.validate_generator_output(2, masked)
        skyrl.concatenate_generator_outputs([masked])
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
        assert all("loss masked" in record.message for record in caplog.records)
        assert {record.name for record in caplog.records} == {"rollkit.compat.skyrl"}

    @pytest.mark.parametrize("name", ["skyrl.train.utils.trainer_utils", "skyrl_train.utils.trainer_utils"])
    def test_logs_where_skyrl_does(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        masked = output(loss_masks=[[0, 0], [0]])
        theirs, loguru = Mock(), Mock()
        monkeypatch.setitem(sys.modules, "loguru", loguru)
        skyrl.validate_generator_output(2, masked)
        message = (
            "All outputs are loss masked, which may lead to NaN loss, please check your generation logic!!"
        )
        loguru.logger.warning.assert_called_once_with(message)
        monkeypatch.setitem(sys.modules, name, theirs)
        skyrl.validate_generator_output(2, masked)
        theirs.logger.warning.assert_called_once_with(message)
        loguru.logger.warning.assert_called_once()


class TestStatistics:
    @pytest.mark.parametrize("form", FORMS)
    @given(data=st.data())
    def test_rollout_metrics_are_those_of_numpy_bit_by_bit(self, form: Any, data: st.DataObject) -> None:
        rows = data.draw(generator_outputs())
        given = form(rows)
        found = skyrl.get_rollout_metrics(
            given["response_ids"], given["rewards"], loss_masks=given["loss_masks"]
        )
        lengths = np.array([len(row) for row in rows["response_ids"]])
        runs = np.array([run for mask in rows["loss_masks"] for run in oracle.turns(mask)])
        sums = np.array([sum(mask) for mask in rows["loss_masks"]])
        assert found["generate/std_num_tokens"] == np.std(lengths).item()
        assert found["generate/std_assistant_tokens"] == np.std(sums).item()
        assert found["generate/tokens_per_turn_mean"] == np.mean(runs).item()
        assert found["generate/tokens_per_turn_std"] == np.std(runs).item()

    def test_environments_with_their_own_aggregation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gym = types.ModuleType("skyrl_gym.metrics")
        gym.aggregate_for_environment = (  # type: ignore[attr-defined]
            lambda name, rows: {f"{name}/count": len(rows)}
        )
        arguments: Any = ([[1], [2]], [1.0, 0.0], [{"a": 1}, {"a": 3}], ["x", "x"])
        assert skyrl.get_rollout_metrics(*arguments)["environment/a"] == 2.0
        monkeypatch.setitem(sys.modules, "skyrl_gym.metrics", gym)
        assert skyrl.get_rollout_metrics(*arguments)["environment/x/count"] == 2

    def test_turn_token_counts(self) -> None:
        masks = [[0, 1, 1, 0], [], [0, 0], [1], [1, 0, 1]]
        assert skyrl.compute_turn_token_counts(masks) == [2, 1, 1, 1]
        assert skyrl.compute_turn_token_counts([np.array(mask, int) for mask in masks]) == [2, 1, 1, 1]
        assert skyrl.compute_turn_token_counts([]) == []

    def test_overlong_filtering_copies(self) -> None:
        masks = [[1, 1], [1, 0]]
        found = skyrl.apply_overlong_filtering(masks, ["length", "stop"])
        assert found == [[0, 0], [1, 0]]
        found[1][0] = 5
        assert masks == [[1, 1], [1, 0]]
        for rows in ([np.array(mask) for mask in masks], [torch.tensor(mask) for mask in masks]):
            found = skyrl.apply_overlong_filtering(rows, ["length", "stop"])
            assert [type(row) for row in found] == [type(row) for row in rows]
            assert plain(found) == [[0, 0], [1, 0]]
            found[1][0] = 5
            assert plain(rows) == masks
        found = skyrl.apply_overlong_filtering(Ragged.from_rows(masks), ["length", "stop"])  # type: ignore[arg-type]
        assert plain(found) == [[0, 0], [1, 0]]
        with pytest.raises(AssertionError, match="must have the same length"):
            skyrl.apply_overlong_filtering(masks, ["stop"])


class TestSlice:
    def test_every_kind_of_field(self) -> None:
        given = {
            "rewards": [0.0, 1.0, 2.0],
            "response_ids": Ragged.from_rows([[1], [2, 2], [3]]),
            "is_last_step": np.array([True, False, True]),
            "trajectory_time_splits": {"llm": [1, 2, 3]},
            "rollout_logprobs": None,
            "rollout_metrics": {"x": 1},
        }
        found = skyrl.slice_generator_output(given, [2, 1])
        assert found["rewards"] == [2.0, 1.0]
        assert found["response_ids"].to_list() == [[3], [2, 2]]
        assert found["is_last_step"].tolist() == [True, False]
        assert found["trajectory_time_splits"] == {"llm": [3, 2]}
        assert found["rollout_logprobs"] is None
        assert found["rollout_metrics"] == {"x": 1}
        assert "rollout_metrics" not in skyrl.slice_generator_output(given, [0], preserve_metrics=False)
        with pytest.raises(AssertionError, match="indices must be non-empty"):
            skyrl.slice_generator_output(given, [])


class TestMerge:
    def turns(self, **change: Any) -> dict[str, Any]:
        """Three turns, of which the last breaks the prefix; then one of another trajectory."""
        ids = [TrajectoryID("a", 0)] * 3 + [TrajectoryID("b", 1)]
        rows = {
            "prompt_token_ids": [[1], [1, 2, 3], [1, 9], [5]],
            "response_ids": [[2], [4, 5], [6], [7]],
            "rewards": [0.0, 0.25, 5, -1.0],
            "loss_masks": [[1], [1, 1], [1], [1]],
            "stop_reasons": ["tool", "length", "stop", "stop"],
            "rollout_logprobs": [[-0.1], [-0.2, -0.3], [-0.4], [-0.5]],
            "trajectory_ids": ids,
            "is_last_step": [False, False, True, True],
            "rollout_expert_indices": None,
            "rollout_metrics": {"x": 1.0},
        }
        return rows | change

    @pytest.mark.parametrize("form", [copy.deepcopy, as_arrays, as_columns])
    def test_merges_while_the_prefix_holds(self, form: Any) -> None:
        given = self.turns()
        found = skyrl.merge_stepwise_output(form(given))
        assert found["prompt_token_ids"] == [[1], [1, 9], [5]]
        assert found["response_ids"] == [[2, 3, 4, 5], [6], [7]]
        assert found["loss_masks"] == [[1, 0, 1, 1], [1], [1]]
        assert found["rollout_logprobs"] == [[-0.1, 0.0, -0.2, -0.3], [-0.4], [-0.5]]
        assert found["rewards"] == [0.25, 5, -1.0]
        assert found["stop_reasons"] == ["length", "stop", "stop"]
        assert found["trajectory_ids"] == given["trajectory_ids"][1:]
        assert found["is_last_step"] == [False, True, True]
        assert found["rollout_metrics"]["generate/max_num_tokens"] == 4
        assert "x" not in found["rollout_metrics"]

    def test_token_rewards_and_nothing_optional(self) -> None:
        given = self.turns(
            rewards=[[1.0], [0.0, 2.0], [3.0], [4.0]], rollout_logprobs=None, stop_reasons=None
        )
        before = copy.deepcopy(given)
        found = skyrl.merge_stepwise_output(given)
        assert given == before
        assert found["rewards"] == [[1.0, 0.0, 0.0, 2.0], [3.0], [4.0]]
        assert found["rollout_logprobs"] is None
        assert found["stop_reasons"] is None

    def test_routes_are_carried_if_told(self) -> None:
        def routes(begin: int, count: int) -> Any:
            return np.arange(begin, begin + count * 2, dtype=np.uint8).reshape(count, 1, 2)

        given = self.turns(rollout_expert_indices=[routes(0, 1), routes(10, 4), routes(20, 2), routes(30, 1)])
        found = skyrl.merge_stepwise_output(given, carry_routes=True)
        assert [len(rows) for rows in found["rollout_expert_indices"]] == [4, 2, 1]
        assert found["rollout_expert_indices"][1].tolist() == routes(20, 2).tolist()

    @pytest.mark.parametrize(
        ("change", "error", "pattern"),
        [
            ({"trajectory_ids": None}, AssertionError, "trajectory_ids"),
            ({"is_last_step": None}, TypeError, "is_last_step is required"),
            ({"is_last_step": [False] * 4}, AssertionError, "is_last_step"),
            ({"rollout_expert_indices": [[]] * 4}, AssertionError, "rollout_expert_indices not supported"),
            ({"pixel_values": [1]}, AssertionError, "pixel_values"),
            ({"is_last_step": [False, False, False, True]}, AssertionError, "same trajectory_id"),
        ],
    )
    def test_refuses(self, change: dict[str, Any], error: type[Exception], pattern: str) -> None:
        with pytest.raises(error, match=pattern):
            skyrl.merge_stepwise_output(self.turns(**change))


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Any]:
    lengths = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=5))
    token, real = st.integers(0, 1 << 40), st.floats(-100, 100, width=32)

    def rows(element: Any, which: int) -> list[list[Any]]:
        return [draw(st.lists(element, min_size=n[which], max_size=n[which])) for n in lengths]

    return {
        "prompts": rows(token, 0),
        "responses": rows(token, 1),
        "rewards": rows(real, 1),
        "loss_masks": rows(st.integers(0, 1), 1),
        "logprobs": rows(real, 1) if draw(st.booleans()) else None,
    }


def as_numpy(batch: dict[str, Any]) -> dict[str, Any]:
    dtypes = {"prompts": "i8", "responses": "i8", "loss_masks": "u1", "rewards": "f4", "logprobs": "f8"}
    return {name: rows and [np.array(row, dtypes[name]) for row in rows] for name, rows in batch.items()}


def as_torch(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: rows and [torch.from_numpy(row) for row in rows] for name, rows in as_numpy(batch).items()}


def as_ragged(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: rows and Ragged.from_rows(rows) for name, rows in as_numpy(batch).items()}


class TestCollate:
    @pytest.mark.parametrize("form", [copy.deepcopy, as_numpy, as_torch, as_ragged])
    @given(batch=batches())
    # Empty rows where others start: the layout must sort by end as well.
    @example(
        batch={
            "prompts": [[], [3]],
            "responses": [[], []],
            "rewards": [[], []],
            "loss_masks": [[], []],
            "logprobs": None,
        }
    )
    def test_bit_identical(self, form: Any, batch: dict[str, Any]) -> None:
        found = skyrl.convert_prompts_responses_to_batch_tensors(9, **form(batch))
        columns = [batch[name] for name in ("rewards", "loss_masks", "logprobs")]
        wanted = oracle.collate(9, batch["prompts"], batch["responses"], *columns)
        assert len(found) == 7
        assert found[6] is None
        for i, (tensor, rows) in enumerate(zip(found, wanted, strict=False)):
            if rows is None:
                assert tensor is None
                continue
            dtype = torch.int64 if i < 3 else torch.float32
            assert tensor.dtype == dtype
            assert tensor.is_contiguous()
            assert torch.equal(tensor, torch.tensor(rows, dtype=dtype).reshape(tensor.shape))

    def test_takes_a_tokenizer_and_mixed_forms(self) -> None:
        tokenizer = SimpleNamespace(pad_token_id=7)
        prompts, responses = [np.array([1], np.int32), np.array([2, 3], np.int32)], [[4], [5]]
        rewards = [torch.tensor([1.0], requires_grad=True), [2]]
        found = skyrl.convert_prompts_responses_to_batch_tensors(
            tokenizer, prompts, responses, rewards, [[1], [True]], []
        )
        assert found[0].tolist() == [[7, 1, 4], [2, 3, 5]]
        assert found[3].tolist() == [[1.0], [2.0]]
        assert found[4].tolist() == [[1.0], [1.0]]
        assert found[5] is None

    def test_prompts_and_responses_of_unlike_dtypes(self) -> None:
        prompts = [np.array([4], np.uint8), np.array([5], np.uint8)]
        responses = [np.array([400], np.int32), np.array([1], np.int32)]
        ones = [[1.0], [1.0]]
        found = skyrl.convert_prompts_responses_to_batch_tensors(0, prompts, responses, ones, ones)
        assert found[0].tolist() == [[4, 400], [5, 1]]
        wide = skyrl.convert_prompts_responses_to_batch_tensors(0, prompts, [[2**40], [1]], ones, ones)
        assert wide[0].tolist() == [[4, 2**40], [5, 1]]

    def test_weights_and_short_masks_are_right_aligned(self) -> None:
        found = skyrl.convert_prompts_responses_to_batch_tensors(
            0, [[1], [1]], [[2, 3], [4]], [[0.0, 0.0], [0.0]], [[0.5], [0.25]]
        )
        assert found[4].tolist() == [[0.0, 0.5], [0.0, 0.25]]

    def test_the_input_is_as_it_was(self) -> None:
        batch: dict[str, Any] = {
            "prompts": [[1]],
            "responses": [[2]],
            "rewards": [[1.0]],
            "loss_masks": [[1]],
        }
        before = copy.deepcopy(batch)
        for tensor in skyrl.convert_prompts_responses_to_batch_tensors(0, **batch)[:5]:
            tensor += 1
        assert batch == before

    def test_a_long_sequence_is_logged_and_kept(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            found = skyrl.convert_prompts_responses_to_batch_tensors(
                0, [[1, 2]], [[3]], [[0.0]], [[1]], max_seq_len=2
            )
        assert found[0].tolist() == [[1, 2, 3]]
        assert "(3) exceeds max_seq_len (2)" in caplog.text

    @given(st.data())
    def test_routes(self, data: st.DataObject) -> None:
        rows = data.draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4))
        highest = [data.draw(st.sampled_from([3, 255, 256, 40_000])) for _ in rows]
        layers, topk = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
        counts = [data.draw(st.integers(1, p + r)) for p, r in rows]
        routes = [np.full((n, layers, topk), top, np.int64) for n, top in zip(counts, highest, strict=True)]
        prompts, responses = [[1] * p for p, _ in rows], [[2] * r for _, r in rows]
        ones = [[1.0] * r for _, r in rows]
        found = skyrl.convert_prompts_responses_to_batch_tensors(
            0, prompts, responses, ones, ones, rollout_expert_indices=routes
        )[6]
        narrowest = {3: torch.uint8, 255: torch.uint8, 256: torch.int16, 40_000: torch.int32}
        assert found.dtype == narrowest[max(highest)]
        assert found.tolist() == oracle.collate_routes(prompts, responses, routes)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (
                {"prompts": [], "responses": []},
                AssertionError,
                "prompts and responses must have the same length",
            ),
            ({"responses": [[1]]}, AssertionError, "got 2 and 1"),
            (
                {"rewards": [[1.0]]},
                AssertionError,
                "rewards must have the same length as prompts, got 1 and 2",
            ),
            ({"loss_masks": []}, AssertionError, "loss_masks must have the same length as prompt"),
            ({"rewards": [1.0, 2.0]}, ValueError, "Expected a 1D per-token reward sequence"),
            ({"rewards": [torch.ones(1, 1)] * 2}, ValueError, "Expected a 1D per-token reward sequence"),
            ({"rewards": [[[1.0]]] * 2}, ValueError, "Expected a 1D per-token reward sequence"),
            (
                {"loss_masks": [[1], [1, 1, 1]]},
                ValueError,
                "loss_masks: row 1 has 3 elements, the longest response 2 tokens",
            ),
            ({"rewards": np.zeros(2)}, ValueError, "Expected a 1D per-token reward sequence, got shape ()"),
            (
                {"logprobs": np.zeros((1, 2))},
                AssertionError,
                "logprobs must have the same length as prompts, got 1 and 2",
            ),
            ({"logprobs": [[0.0]]}, AssertionError, "logprobs must have the same length as prompts, got 1"),
            (
                {"pad_token_id": SimpleNamespace(pad_token_id=None)},
                TypeError,
                "pad_token_id must be an int, or a tokenizer that has one, got None",
            ),
            ({"rollout_expert_indices": ()}, TypeError, "must be a list of NumPy arrays"),
            ({"rollout_expert_indices": []}, ValueError, "must contain routes for every trajectory"),
            ({"rollout_expert_indices": [[[[1]]]] * 2}, TypeError, "entries must be NumPy arrays, got list"),
            (
                {"rollout_expert_indices": [np.ones((1, 2, 0), int)] * 2},
                ValueError,
                "must contain at least one expert per layer",
            ),
            (
                {"rollout_expert_indices": [np.ones((0, 2, 2), int), np.ones((1, 2, 2), int)]},
                ValueError,
                "must contain routes for every trajectory",
            ),
            (
                {"rollout_expert_indices": [np.ones((1, 2, 2), int), np.ones((1, 2, 3), int)]},
                ValueError,
                "entries must share [layers, topk], got shape (1, 2, 3) at sample 1",
            ),
            (
                {"rollout_expert_indices": [np.ones((1, 1, 2), int), np.ones((4, 1, 2), int)]},
                ValueError,
                "Trajectory 1 has 4 route rows for 3 tokens",
            ),
        ],
    )
    def test_refuses(self, change: dict[str, Any], error: type[Exception], message: str) -> None:
        valid: dict[str, Any] = {
            "prompts": [[1], [1]],
            "responses": [[1], [1, 2]],
            "rewards": [[0.0], [0.0, 1.0]],
            "loss_masks": [[1], [1, 1]],
            "pad_token_id": 0,
        }
        with pytest.raises(error) as caught:
            skyrl.convert_prompts_responses_to_batch_tensors(**(valid | change))
        assert message in str(caught.value)


class TestEdges:
    """What lists of numbers hide: None, tensors of one number, arrays that are no column."""

    part: ClassVar[dict[str, Any]] = {
        "prompt_token_ids": [[1]],
        "response_ids": [[2, 3]],
        "loss_masks": [[1, 0]],
        "rewards": [1.0],
    }

    def test_a_reward_that_is_none_is_named(self) -> None:
        with pytest.raises(TypeError, match="'rewards': row 1 is None; expected a number"):
            skyrl.concatenate_generator_outputs([self.part, {**self.part, "rewards": [None]}])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"response_ids": [None]}, "column 'response_ids': row 1 is None, expected a row of elements"),
            ({"loss_masks": [None]}, "loss_masks: row 1 is NoneType, expected a list, tuple or array"),
            ({"rollout_logprobs": [None]}, "column 'rollout_logprobs': row 1 is None, expected a row of"),
        ],
    )
    def test_a_row_that_is_none_is_named(self, change: dict[str, Any], message: str) -> None:
        part = {**self.part, "rollout_logprobs": [[0.0, 0.0]]}
        with pytest.raises(TypeError) as caught:
            skyrl.concatenate_generator_outputs([part, part | change])
        assert message in str(caught.value)

    def test_rollouts_do_for_a_generator_output(self) -> None:
        steps = {**self.part, "is_last_step": [True], "trajectory_ids": ["a"]}
        rollouts = Rollouts(steps)
        skyrl.validate_generator_output(1, rollouts, step_wise=True)
        assert skyrl.merge_stepwise_output(rollouts)["response_ids"] == [[2, 3]]
        assert skyrl.concatenate_generator_outputs([rollouts])["rewards"].tolist() == [1.0]
        assert skyrl.slice_generator_output(rollouts, [0])["trajectory_ids"] == ["a"]

    def test_arrays_that_are_no_column_stay_out(self) -> None:
        odd = {**self.part, "scale": np.array(3.0), "table": np.ones((3, 2)), "seen": np.array([5])}
        found = skyrl.concatenate_generator_outputs([odd, odd])
        assert found["seen"].tolist() == [5, 5]
        assert "scale" not in found
        assert "table" not in found

    def test_steps_with_tensors_for_rewards(self) -> None:
        steps = {
            "prompt_token_ids": [[1], [1, 2, 9]],
            "response_ids": [[2], [3]],
            "loss_masks": [[1], [1]],
            "rewards": torch.tensor([0.0, 1.0]),
            "is_last_step": [False, True],
            "trajectory_ids": ["a", "a"],
        }
        found = skyrl.merge_stepwise_output(steps)
        assert found["response_ids"] == [[2, 9, 3]]
        assert [float(reward) for reward in found["rewards"]] == [1.0]

    def test_masks_of_truncated_rows_are_zeros_of_their_own_type(self) -> None:
        for mask in (np.array([True]), np.array([np.nan, 1.0]), torch.tensor([float("nan"), 1.0])):
            found = skyrl.apply_overlong_filtering([mask], ["length"])[0]
            assert type(found) is type(mask)
            assert found.dtype == mask.dtype
            assert not found.any()


class TestRoutes:
    @pytest.mark.parametrize(
        ("highest", "dtype"),
        [(0, np.uint8), (255, np.uint8), (256, np.int16), (2**15 - 1, np.int16), (2**15, np.int32)],
    )
    @pytest.mark.parametrize("given", [np.int16, np.uint16, np.int64, np.uint64])
    def test_narrowest_dtype(self, highest: int, dtype: Any, given: Any) -> None:
        if highest > np.iinfo(given).max:
            return
        routes = np.array([[[0, highest]]], given)
        found = skyrl.compact_routed_expert_indices(routes)
        assert found.dtype == dtype
        assert found.tolist() == routes.tolist()

    def test_keeps_what_is_compact_and_copies_what_is_read_only(self) -> None:
        routes = np.ones((2, 1, 2), np.uint8)
        assert skyrl.compact_routed_expert_indices(routes) is routes
        routes.flags.writeable = False
        found = skyrl.compact_routed_expert_indices(routes)
        assert found.flags.writeable
        assert skyrl.compact_routed_expert_indices(np.zeros((0, 1, 2), np.int64)).dtype == np.uint8
        assert skyrl.compact_routed_expert_indices(found.transpose(2, 1, 0)).flags.c_contiguous

    @pytest.mark.parametrize(
        ("routes", "error", "message"),
        [
            ([[[1]]], TypeError, "must be a NumPy array"),
            (np.ones((2, 2), int), ValueError, "an integer [tokens, layers, topk] array, got shape (2, 2)"),
            (np.ones((1, 1, 1)), ValueError, "and dtype float64"),
            (np.full((1, 1, 1), -1), ValueError, "must be non-negative"),
            (np.full((1, 1, 1), 2**31), ValueError, "exceeds signed int32: 2147483648"),
        ],
    )
    def test_refuses_routes(self, routes: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error) as caught:
            skyrl.compact_routed_expert_indices(routes)
        assert message in str(caught.value)

    def test_padding_rows(self) -> None:
        found = skyrl.make_replay_padding_indices_np((2, 1, 3), dtype=np.dtype(np.int16))
        assert found.dtype == np.int16
        assert found.tolist() == [[[0, 1, 2]]] * 2
        for shape in ((), (2, 0)):
            with pytest.raises(ValueError, match="positive topk"):
                skyrl.make_replay_padding_indices_np(shape, dtype=np.uint8)

    @given(st.data())
    def test_padding_mask(self, data: st.DataObject) -> None:
        lengths = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
        captured = [data.draw(st.integers(0, n)) for n in lengths]
        width = max(lengths) + data.draw(st.integers(0, 2))
        mask = torch.tensor([[0] * (width - n) + [1] * n for n in lengths])
        found = skyrl.make_router_padding_mask(mask, captured)
        wanted = [
            [True] * (width - n) + [False] * c + [True] * (n - c)
            for n, c in zip(lengths, captured, strict=True)
        ]
        assert found.dtype == torch.bool
        assert found.tolist() == wanted
        assert skyrl.make_router_padding_mask(mask.numpy(), captured).tolist() == wanted

    @pytest.mark.parametrize(
        ("mask", "captured", "message"),
        [
            (torch.ones(3), [1], "Expected 2D attention_mask"),
            (torch.ones(2, 3), [1], "Expected one captured route length per trajectory, got 1"),
            (torch.ones(1, 3), [4], "Captured route lengths must be within trajectory lengths"),
            (torch.ones(1, 3), [-1], "Captured route lengths must be within trajectory lengths"),
        ],
    )
    def test_refuses_masks(self, mask: Any, captured: list[int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            skyrl.make_router_padding_mask(mask, captured)


def test_prompt_boundaries() -> None:
    assert skyrl.compute_prompt_boundaries(["a", "a", "b", "c", "c"]) == [(0, 2), (2, 3), (3, 5)]
    assert skyrl.compute_prompt_boundaries(["a"]) == [(0, 1)]
    assert skyrl.compute_prompt_boundaries([]) == []
    with pytest.raises(
        AssertionError,
        match=r"uid 'a' appears in non-contiguous positions at index 2\. Full uids: \['a', 'b', 'a'",
    ):
        skyrl.compute_prompt_boundaries(["a", "b", "a"])


def test_importing_loads_no_framework() -> None:
    code = "import sys, rollkit.compat.skyrl; print([m for m in ('torch', 'jax', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("logprobs", [[[-0.1], [-0.2]], [[-0.1, -0.3, -0.4], [-0.2]], [[], [-0.2]]])
def test_log_probabilities_that_are_not_one_per_token_are_refused_by_row(logprobs: Any) -> None:
    rows = [[1], [2]], [[3, 4], [5]], [[0.0, 1.0], [1.0]], [[1, 1], [1]]
    count = len(logprobs[0])
    with pytest.raises(
        ValueError, match=f"logprobs: row 0 has {count} log-probabilities for 2 response tokens"
    ):
        skyrl.convert_prompts_responses_to_batch_tensors(0, *rows, logprobs)
