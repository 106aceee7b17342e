"""Masking rows and groups, and rewards on tokens, against plain Python."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compat import skyrl_oracles as oracle

from rollkit import (
    Ragged,
    Rollouts,
    mask_overlong,
    mask_stale,
    mask_zero_variance,
    pack,
    rollout_metrics,
    soft_overlong_penalty,
    spread_rewards,
)
from rollkit.testing import rollout_rows


def rollouts(masks: list[list[int]], **columns: Any) -> Rollouts:
    return Rollouts({"response_ids": [[7] * len(mask) for mask in masks], "loss_masks": masks, **columns})


def lists(found: Rollouts, name: str = "loss_masks") -> list[list[Any]]:
    column = found[name]
    assert isinstance(column, Ragged)
    return column.to_list()


ROWS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 1), max_size=5),
        st.sampled_from(["stop", "length", "abort"]),
        st.sampled_from([0.0, 0.1, 1.0]),
        st.sampled_from("abc"),
    ),
    min_size=1,
    max_size=9,
)


@given(ROWS)
def test_overlong(rows: list[Any]) -> None:
    masks, reasons = [row[0] for row in rows], [row[1] for row in rows]
    given = rollouts(masks, stop_reasons=reasons)
    wanted = [
        mask if reason == "stop" else [0] * len(mask) for mask, reason in zip(masks, reasons, strict=True)
    ]
    assert lists(mask_overlong(given)) == wanted
    assert lists(given) == masks, "the input is as it was"
    either = mask_overlong(given, keep=("stop", "length"))
    assert lists(either) == [
        [0] * len(mask) if reason == "abort" else mask for mask, reason in zip(masks, reasons, strict=True)
    ]


def test_overlong_keeps_the_dtype_and_shares_the_rest() -> None:
    given = rollouts([[1, 1], [1]], stop_reasons=["length", "stop"])
    masked = mask_overlong(given[1:])
    assert lists(masked) == [[1]]
    assert not np.shares_memory(masked["loss_masks"].values, given["loss_masks"].values)  # type: ignore[union-attr]
    masked = mask_overlong(given, keep="stop")
    assert masked["loss_masks"].dtype == np.uint8  # type: ignore[union-attr]
    assert masked["response_ids"] is given["response_ids"]


@pytest.mark.filterwarnings("ignore:each of")
@given(ROWS, st.booleans())
def test_zero_variance(rows: list[Any], as_array: bool) -> None:
    masks, rewards, ids = ([row[i] for row in rows] for i in (0, 2, 3))
    by = np.array([ord(group) for group in ids]) if as_array else ids
    given = rollouts(masks, rewards=rewards, instance_ids=by)
    for ignore in (False, True):
        live = [any(mask) for mask in masks] if ignore else None
        kept = oracle.varied(rewards, ids, live)
        wanted = [mask if keep else [0] * len(mask) for mask, keep in zip(masks, kept, strict=True)]
        assert lists(mask_zero_variance(given, ignore="masked" if ignore else None)) == wanted
        assert lists(mask_zero_variance(given, by, ignore="masked" if ignore else None)) == wanted
    assert lists(given) == masks, "the input is as it was"


def test_the_steps_of_a_trajectory_count_once() -> None:
    given = rollouts(
        [[1], [1], [1], [1]], rewards=[0.0, 1.0, 1.0, 0.0], is_last_step=[False, True, True, True]
    )
    ids = ["a", "a", "a", "b"]
    assert lists(mask_zero_variance(given, ids)) == [[0], [0], [0], [1]]
    given = given.with_columns(is_last_step=[True] * 4)
    assert lists(mask_zero_variance(given, ids)) == [[1], [1], [1], [1]]


def test_a_trajectory_is_live_if_one_of_its_steps_is() -> None:
    given = rollouts([[1], [0], [1], [0]], rewards=[0.0] * 4, is_last_step=[False, True, True, True])
    assert lists(mask_zero_variance(given, list("aaaa"), ignore="masked")) == [[0], [0], [0], [0]]
    given = rollouts([[0], [0], [1], [0]], rewards=[0.0] * 4, is_last_step=[False, True, True, True])
    assert lists(mask_zero_variance(given, list("aaaa"), ignore="masked")) == [[0], [0], [1], [0]]


def test_dicts_are_taken_too() -> None:
    given = {"response_ids": [[1, 2]], "loss_masks": [[1, 1]], "rewards": [0.5], "stop_reasons": ["length"]}
    assert lists(mask_overlong(given)) == [[0, 0]]
    assert lists(mask_zero_variance(given, ["a"])) == [[1, 1]]
    assert lists(spread_rewards(given), "rewards") == [[0.0, 0.5]]


def test_bfloat16_rewards_and_masks() -> None:
    import torch

    masks = Ragged(torch.ones(2, dtype=torch.bfloat16), [0, 1, 2])  # type: ignore[arg-type]
    given: dict[str, Any] = {"prompt_token_ids": [[1], [1]], "response_ids": [[1], [2]], "loss_masks": masks}
    given["rewards"] = torch.tensor([0.5, 0.5], dtype=torch.bfloat16)
    Rollouts(given).validate()
    assert lists(spread_rewards(given), "rewards") == [[0.5], [0.5]]
    assert lists(mask_zero_variance(given, ["a", "a"], ignore="masked")) == [[0.0], [0.0]]


def test_zero_variance_of_token_rewards_and_within_a_tolerance() -> None:
    given = rollouts([[1, 1], [1], [1], [1]], rewards=[[0.5, 0.5], [1.0], [0.2], [0.3]])
    assert lists(mask_zero_variance(given, ["a", "a", "b", "b"])) == [[0, 0], [0], [1], [1]]
    assert lists(mask_zero_variance(given, ["a", "a", "b", "b"], tol=0.2)) == [[0, 0], [0], [0], [0]]


@given(ROWS)
def test_spread_rewards(rows: list[Any]) -> None:
    lengths = [len(row[0]) for row in rows]
    rewards = [row[2] if n else 0.0 for n, row in zip(lengths, rows, strict=True)]
    given = Rollouts({"response_ids": [[7] * n for n in lengths], "rewards": rewards})
    wanted = [
        [0.0] * (n - 1) + [np.float32(r).item()] if n else [] for n, r in zip(lengths, rewards, strict=True)
    ]
    spread = spread_rewards(given)
    assert lists(spread, "rewards") == wanted
    assert spread["rewards"].dtype == np.float32  # type: ignore[union-attr]
    assert spread_rewards(spread) is spread, "token rewards stay as they are"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (mask_overlong, KeyError, "no column 'stop_reasons'"),
        (mask_zero_variance, KeyError, "no column 'instance_ids'"),
        (lambda r: mask_zero_variance(r, ["a"]), ValueError, "by has 1 ids, there are 2 rows"),
        (
            lambda r: mask_overlong(r.with_columns(loss_masks=np.ones(2), stop_reasons=["stop"] * 2)),
            ValueError,
            "column 'loss_masks': expected an element per token, got one per row",
        ),
        (
            lambda r: spread_rewards(r.with_columns(response_ids=[[], [1]])),
            ValueError,
            "column 'rewards': row 0 has reward 1.0 and an empty response",
        ),
    ],
)
def test_refuses(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call(rollouts([[1, 1], [1]], rewards=[1.0, 0.0]))
    assert message in str(caught.value)


@given(rollout_rows(), st.integers(3, 6), st.integers(0, 3))
def test_stale_tokens_beside_a_loop(rows: list[dict[str, Any]], current: int, most: int) -> None:
    versions = [[(i + j) % 5 - 1 for j in range(len(row["response_ids"]))] for i, row in enumerate(rows)]
    made = Rollouts.from_rows(rows).with_columns(model_versions=versions)
    found = mask_stale(made, current, most)
    assert found.ragged("model_versions").dtype == np.int32
    wanted = [[*row["loss_masks"]] for row in rows]
    for masks, old in zip(wanted, versions, strict=True):
        for i, version in enumerate(old):
            if version >= 0 and current - version > most:
                masks[i] = 0
    assert found.ragged("loss_masks").to_list() == wanted
    assert mask_stale(made[1:], current, most).ragged("loss_masks").to_list() == wanted[1:]
    flat = [(i, v) for i, row in enumerate(versions) for v in row if v >= 0]
    metrics = rollout_metrics(made.with_columns(rewards=[0.0] * len(rows)), current=current)
    if flat:
        assert metrics["generate/staleness_mean"] == pytest.approx(current - np.mean([v for _, v in flat]))
        assert metrics["generate/staleness_max"] == current - min(v for _, v in flat)
        assert metrics["generate/versions_per_response_mean"] == len(set(flat)) / len({i for i, _ in flat})
    else:
        assert "generate/staleness_mean" not in metrics


def test_stale_tokens_are_refused() -> None:
    made = Rollouts({"response_ids": [[1], [2, 3]], "model_versions": [[1], [2, 9]], "rewards": [1.0, 0.0]})
    with pytest.raises(ValueError, match="row 1, position 1: version 9 is newer than current=5"):
        mask_stale(made, 5, 1)
    with pytest.raises(ValueError, match="version 9 is newer than current=5"):
        rollout_metrics(made, current=5)
    with pytest.raises(ValueError, match="column 'model_versions': row 1 has 1 elements, its mask has 2"):
        mask_stale(made.with_columns(model_versions=[[1], [2]]), 5, 1)
    with pytest.raises(KeyError, match="model_versions"):
        mask_stale(made.drop("model_versions"), 5, 1)
    with pytest.raises(TypeError, match="most"):
        mask_stale(made, 9, 0.5)  # type: ignore[arg-type]
    batch = pack(made, 4)
    assert batch["model_versions"].tolist() == [[1, 2, 9, -1]]
    assert batch["model_versions"].dtype == np.int32


def test_versions_are_one_per_token() -> None:
    with pytest.raises(ValueError, match=r"column 'model_versions': expected a version per token"):
        mask_stale({"response_ids": [[1]], "model_versions": [[[1, 2]]]}, 4, 1)


@given(st.lists(st.integers(0, 14), min_size=1, max_size=8), st.integers(1, 10), st.integers(0, 5))
def test_soft_overlong_penalty(lengths: list[int], cache: int, more: int) -> None:
    most = cache + more

    def penalty(length: int) -> float:
        """DAPO's equation 13."""
        if length <= most - cache:
            return 0.0
        return (most - cache - length) / cache if length <= most else -1.0

    rows = Rollouts({"response_ids": [[1] * n for n in lengths], "rewards": [float(n > 0) for n in lengths]})
    wanted = [float(n > 0) + 2 * penalty(n) for n in lengths]
    found = soft_overlong_penalty(rows, max_length=most, cache=cache, factor=2)
    assert found["rewards"].tolist() == pytest.approx(wanted)  # type: ignore[union-attr]
    assert rows["rewards"].tolist() == [float(n > 0) for n in lengths], "the input is as it was"  # type: ignore[union-attr]
    spread = soft_overlong_penalty(spread_rewards(rows), max_length=most, cache=cache, factor=2)
    assert lists(spread, "rewards") == [
        [0.0] * (n - 1) + [pytest.approx(total)] * (n > 0) for n, total in zip(lengths, wanted, strict=True)
    ]


def test_soft_overlong_penalty_of_what_is_not_scored() -> None:
    rows = {"response_ids": [[1] * 4, [1] * 4], "rewards": [None, 1]}
    assert soft_overlong_penalty(rows, max_length=4, cache=2)["rewards"] == [None, 0.0]


def test_what_truncate_cut_is_overlong_too() -> None:
    rollouts = Rollouts(
        {"response_ids": [[1, 2, 3], [4], [5, 6]], "stop_reasons": ["stop", "stop", "length"]}
    )
    short = rollouts.truncate(response=2)
    assert mask_overlong(short).ragged("loss_masks").to_list() == [[0, 0], [1], [0, 0]]
    assert mask_overlong(short, keep="length").ragged("loss_masks").to_list() == [[0, 0], [1], [1, 1]]
    assert mask_overlong(rollouts).ragged("loss_masks").to_list() == [[1, 1, 1], [1], [0, 0]]
