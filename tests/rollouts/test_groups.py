"""Groups and advantages against loops over Python lists."""

import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollkit import Groups, Rollouts, advantages, balance, loss_totals
from rollkit._rollouts.advantages import OF_GROUPS

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


@pytest.mark.filterwarnings("ignore:each of")
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


@pytest.mark.filterwarnings("ignore:each of")
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.sampled_from([0.0, 1.0, 2.5])),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(OF_GROUPS),
    st.booleans(),
    st.booleans(),
)
def test_the_steps_of_a_trajectory_count_once(
    found: list[tuple[str, int, float]], estimator: str, told: bool, token_rewards: bool
) -> None:
    columns: dict[str, Any] = {"response_ids": [], "rewards": [], "instance_ids": [], "trajectory_ids": []}
    last = []
    for number, (key, steps, reward) in enumerate(found):
        for step in range(steps):
            value = reward if step == steps - 1 else 7.0  # only the last counts
            columns["response_ids"].append([1, 2])
            columns["rewards"].append([0.0, value] if token_rewards else value)
            columns["instance_ids"].append(key)
            columns["trajectory_ids"].append(number)
            last.append(step == steps - 1)
    if told:
        columns |= {"is_last_step": last}
    result = advantages(columns, estimator=estimator).to_list()
    groups = members([(key, reward) for key, _, reward in found])
    wanted = [
        [advantage(estimator, reward, groups[key])] * 2 for key, steps, reward in found for _ in range(steps)
    ]
    np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-4)


def test_masked_tokens_get_zero_whatever_the_advantage() -> None:
    columns = {"response_ids": [[1, 2], [3]], "loss_masks": [[0, 1], [1]], "instance_ids": ["a", "a"]}
    found = advantages({**columns, "rewards": [-1.0, 1.0]}).flat
    assert not np.signbit(found[0])
    assert advantages({**columns, "rewards": [1.0, 1.0]}, eps=0.0).to_list() == [[0, 0], [0]]


def test_masks_are_optional_and_a_slice_of_rollouts_works() -> None:
    rollouts = Rollouts(
        {"response_ids": [[9], [1, 2], [3]], "rewards": [9.0, 2.0, 0.0], "instance_ids": ["b", "a", "a"]}
    )
    assert advantages(rollouts[1:], estimator="mean").to_list() == [[1.0, 1.0], [-1.0]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: advantages(Rollouts({"response_ids": [[1]]}), estimator="vtrace"),
            ValueError,
            "estimator must be one of 'grpo', 'mean', 'rloo', 'gae', 'reinforce_plus_plus', got 'vtrace'",
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
            lambda: Groups.by([1, [2], "b"]),  # type: ignore[list-item]
            TypeError,
            "entries[1] is list, which cannot be grouped by; give one number, text or other hashable object "
            "per row",
        ),
        (
            lambda: advantages(
                {"response_ids": [[1]], "rewards": [1.0], "instance_ids": ["a"], "is_last_step": [False]}
            ),
            ValueError,
            "column 'is_last_step': row 0, the last, is False; it must end its trajectory",
        ),
        (
            lambda: advantages(
                {"response_ids": [[1]], "rewards": [1.0], "instance_ids": ["a"], "is_last_step": [[True]]}
            ),
            ValueError,
            "column 'is_last_step': expected one bool per row, 1, got rows of elements",
        ),
        (
            lambda: advantages({"response_ids": [[1]], "rewards": [1.0], "instance_ids": ["a"]}, eps=-1),
            ValueError,
            "eps must be 0 or more, got -1",
        ),
        (
            lambda: advantages([[1]]),  # type: ignore[list-item]
            TypeError,
            "rollouts must be Rollouts or GeneratorOutput-shaped dicts; part 0 is list",
        ),
        (
            lambda: Groups.by(["a", "b"]).mean([1.0]),
            ValueError,
            "values must be one per row, 2, got shape (1,)",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as found:
        call()
    assert str(found.value) == message


@pytest.mark.parametrize("value", [0.1, 0.7, 1e300, -1 / 3])
def test_equal_values_have_no_deviation(value: float) -> None:
    assert Groups.by(list("aaabaaaa")).std([value] * 8).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_rewards_whose_squares_no_float_holds_are_compared(scale: float) -> None:
    rewards = [3.0 * scale, 1.0 * scale, 2.0 * scale, 0.5, 0.25]
    assert Groups.by(list("aaabb")).std(rewards) == pytest.approx([scale * (2 / 3) ** 0.5, 0.125])
    found = advantages(
        {"response_ids": [[1]] * 5, "rewards": rewards, "instance_ids": list("aaabb")}, eps=0.0
    )
    assert found.values.tolist() == pytest.approx([1.0, -1.0, 0.0, 0.5**0.5, -(0.5**0.5)])


@pytest.mark.parametrize("make", ["tensor", "list of tensors", "jax", "list of arrays"])
def test_ids_of_any_framework_group_by_their_values(make: str) -> None:
    """Tensors are hashed by which object they are: each row would be a group of its own."""
    ids: Any = [7, 7, 9]
    if make == "jax":
        ids = pytest.importorskip("jax.numpy").array(ids)
    elif make == "list of arrays":
        ids = [np.array(found) for found in ids]
    else:
        torch = pytest.importorskip("torch")
        ids = torch.tensor(ids) if make == "tensor" else [torch.tensor(found) for found in ids]
    groups = Groups.by(ids)
    assert (groups.keys, groups.ids.tolist()) == ([7, 9], [0, 0, 1])
    rows = {"response_ids": [[1], [2], [3]], "rewards": [1.0, 0.0, 1.0]}
    wanted = advantages({**rows, "instance_ids": [7, 7, 9]}).to_list()
    assert advantages({**rows, "instance_ids": ids}).to_list() == wanted
    assert advantages(rows, by=ids).to_list() == wanted
    assert balance([4, 4, 9], 2, groups=ids).tolist() == balance([4, 4, 9], 2, groups=[7, 7, 9]).tolist()
    assert loss_totals([[1], [1], [0]], groups=ids).groups == {7: 2, 9: 0}


def test_ids_of_several_elements_are_refused() -> None:
    """Tensors of one value hash apart: they would be two groups."""
    torch = pytest.importorskip("torch")
    ids: Any = [torch.tensor([3]), torch.tensor([3])]
    for call in (
        lambda: Groups.by(ids),
        lambda: balance([1, 2], 2, groups=ids),
        lambda: loss_totals([[1], [1]], groups=ids),
        lambda: loss_totals([[1], [1]], trajectories=ids),
    ):
        with pytest.raises(TypeError, match=r"\[0\] is \w+, which cannot be grouped by; give one number"):
            call()
    with pytest.raises(TypeError, match="column 'by' has no single entry per rollout to group by"):
        advantages({"response_ids": [[1], [2]], "rewards": [1.0, 0.0]}, by=ids)
