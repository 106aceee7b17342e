"""Groups and advantages against loops over Python lists."""

import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollkit import Groups, Rollouts, advantages

ENTRIES = st.lists(st.tuples(st.sampled_from("abc"), st.floats(-100, 100)), min_size=1, max_size=12)


def members(entries: list[tuple[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for key, value in entries:
        found.setdefault(key, []).append(value)
    return found


@given(ENTRIES)
def test_statistics(entries: list[tuple[str, float]]) -> None:
    keys, values = zip(*entries, strict=True)
    groups = Groups.by(keys)
    expected = members(entries)
    assert groups.keys == list(expected)
    assert groups.sizes.tolist() == [len(found) for found in expected.values()]
    assert [groups.keys[i] for i in groups.ids] == list(keys)
    assert sorted(groups.rows.tolist()) == list(range(len(keys)))
    np.testing.assert_allclose(groups.sum(values), [sum(v) for v in expected.values()], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        groups.mean(values), [statistics.mean(v) for v in expected.values()], rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        groups.std(values), [statistics.pstdev(v) for v in expected.values()], rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        groups.std(values, ddof=1),
        [statistics.stdev(v) if len(v) > 1 else 0.0 for v in expected.values()],
        rtol=1e-9,
        atol=1e-9,
    )


def advantage(estimator: str, reward: float, group: list[float]) -> float:
    if len(group) == 1:
        return 0.0
    if estimator == "rloo":
        return reward - (sum(group) - reward) / (len(group) - 1)
    centred = reward - statistics.mean(group)
    return centred / (statistics.stdev(group) + 1e-6) if estimator == "grpo" else centred


@pytest.mark.parametrize("estimator", ["grpo", "mean", "rloo"])
@given(entries=ENTRIES, token_rewards=st.booleans())
def test_advantages(estimator: str, entries: list[tuple[str, float]], token_rewards: bool) -> None:
    keys, values = zip(*entries, strict=True)
    responses = [[1] * (i % 3 + 1) for i in range(len(keys))]
    masks = [[j % 2 for j in range(len(row))] for row in responses]
    columns: dict[str, Any] = {"response_ids": responses, "loss_masks": masks, "instance_ids": list(keys)}
    columns["rewards"] = list(values)
    if token_rewards:
        columns["rewards"] = [[0.0] * (len(r) - 1) + [v] for r, v in zip(responses, values, strict=True)]
        values = tuple(float(np.float32(v)) for v in values)
    found = advantages(Rollouts(columns), estimator=estimator)
    groups = members(list(zip(keys, values, strict=True)))
    assert found.dtype == np.float32
    for row, key, value, mask in zip(found, keys, values, masks, strict=True):
        expected = advantage(estimator, value, groups[key])
        np.testing.assert_allclose(row, [expected * m for m in mask], rtol=1e-4, atol=1e-4)


def test_masks_are_optional_and_a_slice_of_rollouts_works() -> None:
    rollouts = Rollouts(
        {"response_ids": [[9], [1, 2], [3]], "rewards": [9.0, 2.0, 0.0], "instance_ids": ["b", "a", "a"]}
    )
    assert advantages(rollouts[1:], estimator="mean").to_list() == [[1.0, 1.0], [-1.0]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: advantages(Rollouts({"response_ids": [[1]]}), estimator="gae"),
            ValueError,
            "estimator must be one of 'grpo', 'mean', 'rloo', got 'gae'",
        ),
        (
            lambda: advantages(Rollouts({"response_ids": [[1]], "rewards": [1.0]})),
            KeyError,
            "\"no column 'instance_ids'; there are 'response_ids', 'rewards'\"",
        ),
        (
            lambda: Rollouts({"response_ids": [[1]]}).group_by("response_ids"),
            TypeError,
            "column 'response_ids' has no single entry per rollout to group by",
        ),
        (
            lambda: Groups.by("ab").mean([1.0]),
            ValueError,
            "values must be one per row, 2, got shape (1,)",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as found:
        call()
    assert str(found.value) == message
