"""Columns and rows of `Rollouts` chosen, renamed, cut; numbers of `Ragged` rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollkit import Ragged, Rollouts, pack
from rollkit.testing import raggeds, rollout_rows

Rows = list[dict[str, Any]]


@given(rollout_rows(), st.data())
def test_rows_chosen(rows: Rows, data: st.DataObject) -> None:
    rollouts = Rollouts.from_rows(rows)
    keep = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    numbers = data.draw(st.lists(st.integers(-len(rows), len(rows) - 1), max_size=5))
    for found in (rollouts[np.array(keep, bool)], rollouts[keep], rollouts.filter(keep)):
        assert found.equals(rollouts.take(np.flatnonzero(keep)))
    for chosen in (rollouts[np.array(numbers, np.int64)], rollouts[numbers] if numbers else rollouts[:0]):
        assert chosen.equals(rollouts.take(np.array(numbers, np.int64)))
    assert Rollouts.from_rows(rollouts.to_rows()).equals(rollouts)
    for i, row in enumerate(rollouts.to_rows()):
        one = rollouts[i]
        assert list(one) == list(row) == list(rollouts)
        assert {name: np.asarray(found).tolist() for name, found in one.items()} == rows[i]
        assert type(one["stop_reasons"]) is str
        assert rollouts[i - len(rows)]["response_ids"].tolist() == rows[i]["response_ids"]


def test_columns_chosen() -> None:
    rollouts = Rollouts({"a": [[1]], "response_ids": [[2, 3]], "rewards": [1.0]})
    assert list(rollouts.select("rewards", "a")) == ["rewards", "a"]
    assert list(rollouts.drop("a")) == ["response_ids", "rewards"]
    assert rollouts.get("none", 5) == 5
    assert len(list(rollouts.values())) == 3
    renamed = rollouts.rename({"a": "response_ids", "response_ids": "rollout_logprobs"})
    assert list(renamed) == ["response_ids", "rollout_logprobs", "rewards"]
    assert (
        renamed.ragged("rollout_logprobs").dtype == rollouts.ragged("response_ids").dtype
    )  # a Ragged is taken as it is
    assert rollouts.rename({})["a"] is rollouts["a"]
    for verb, name in (("select", "x"), ("drop", "x"), ("rename", {"x": "y"})):
        with pytest.raises(KeyError, match="no column 'x'; there are 'a', 'response_ids', 'rewards'"):
            getattr(rollouts, verb)(name)
    with pytest.raises(ValueError, match="names gives two columns the name 'a'"):
        rollouts.rename({"rewards": "a"})
    with pytest.raises(TypeError, match="rows must be one bool per row, got int64"):
        rollouts.filter([0])
    with pytest.raises(IndexError, match="row 4 is out of range"):
        rollouts[4]
    with pytest.raises(KeyError):
        rollouts[True]


def cut(row: Any, most: int | None, side: str) -> Any:
    if most is None or len(row) <= most:
        return row
    return row[len(row) - most :] if side == "left" else row[:most]


@given(
    rollout_rows(),
    st.none() | st.integers(0, 5),
    st.none() | st.integers(0, 5),
    st.sampled_from([None, "left", "right"]),
)
def test_truncate_beside_slices(rows: Rows, prompt: int | None, response: int | None, side: Any) -> None:
    rollouts = Rollouts.from_rows(rows)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = rollouts.truncate(prompt=prompt, response=response, side=side)
    lost = 0
    for i, row in enumerate(rows):
        prompts, responses = row["prompt_token_ids"], row["response_ids"]
        whole = [*range(len(prompts) + len(responses))]
        kept = cut(whole[: len(prompts)], prompt, side or "left")
        kept += cut(whole[len(prompts) :], response, side or "right")
        of_response = [at - len(prompts) for at in kept if at >= len(prompts)]
        assert found.ragged("prompt_token_ids")[i].tolist() == [prompts[a] for a in kept if a < len(prompts)]
        for name in ("response_ids", "loss_masks", "rollout_logprobs", "advantages"):
            assert found.ragged(name)[i].tolist() == [row[name][at] for at in of_response]
        assert found.ragged("token_types")[i].tolist() == [row["token_types"][at] for at in kept]
        routes = row["rollout_expert_indices"]
        assert found.ragged("rollout_expert_indices")[i].tolist() == [
            routes[a] for a in kept if a < len(routes)
        ]
        if isinstance(row["rewards"], list):
            lost += np.count_nonzero(row["rewards"]) - sum(row["rewards"][at] != 0 for at in of_response)
        assert found["truncated_prompt_tokens"][i] == len(prompts) - len(kept) + len(of_response)
        assert found["truncated_response_tokens"][i] == len(responses) - len(of_response)
    said = [f"truncate cuts off {lost:,} rewards other than 0"] if lost else []
    assert [str(warning.message) for warning in told] == said


def test_truncate_again_and_pack() -> None:
    rollouts = Rollouts({"prompt_token_ids": [[1, 2, 3]], "response_ids": [[4, 5, 6]], "extra": [{"a": 1}]})
    found = rollouts.truncate(response=2).truncate(prompt=1, response=1)
    assert list(found["truncated_prompt_tokens"]) == [2]
    assert list(found["truncated_response_tokens"]) == [2]
    batch = pack(found, 4)
    assert batch["input_ids"].tolist() == [[3, 4, 0, 0]]
    assert batch.rows["truncated_response_tokens"].tolist() == [2]
    with pytest.raises(ValueError, match="side"):
        rollouts.truncate(prompt=1, side="middle")
    with pytest.raises(ValueError, match="prompt"):
        rollouts.truncate(prompt=-1)
    with pytest.raises(ValueError, match="column 'loss_masks': row 0 has 1 elements"):
        rollouts.with_columns(loss_masks=[[1]]).truncate(response=1)
    with pytest.raises(ValueError, match="truncate needs a column 'response_ids'"):
        Rollouts({"x": [1]}).truncate(prompt=1)


@given(raggeds())
def test_numbers_of_rows(ragged: Ragged) -> None:
    rows = [np.asarray(row) for row in ragged]
    if ragged.dtype.kind not in "biuf":
        return
    wide = np.float64 if ragged.dtype.kind == "f" else np.uint64 if ragged.dtype.kind == "u" else np.int64
    with np.errstate(all="ignore"):
        sums = ragged.sum()
        assert sums.dtype == wide
        assert sums.shape == (len(rows), *ragged.inner)
        for row, got in zip(rows, sums, strict=True):
            np.testing.assert_allclose(got, row.astype(wide).sum(axis=0), rtol=1e-12)
        for row, mean in zip(rows, ragged.mean(), strict=True):
            wanted = row.astype(wide).sum(axis=0) / len(row) if len(row) else np.full(ragged.inner, np.nan)
            np.testing.assert_allclose(mean, wanted, rtol=1e-12)
    if all(map(len, rows)):
        for row, got in zip(rows, ragged.max(), strict=True):
            np.testing.assert_array_equal(got, row.max(axis=0))
    else:
        with pytest.raises(ValueError, match=f"row {[len(row) for row in rows].index(0)} is empty"):
            ragged.max()


def test_sums_that_do_not_fit() -> None:
    with pytest.raises(OverflowError, match="row 1: the sum does not fit int64"):
        Ragged.from_rows([[1], [2**62, 2**62]]).sum()
    with pytest.raises(OverflowError, match="row 0: the sum does not fit uint64"):
        Ragged.from_rows([np.array([2**63, 2**63], np.uint64)]).sum()
    assert Ragged.from_rows([np.full(1000, 255, np.uint8)]).sum().tolist() == [255_000]
    assert Ragged.from_rows([np.full(1000, 0.1, np.float32)]).sum()[0] == pytest.approx(100, rel=1e-7)


def test_jagged_tensors_share_memory() -> None:
    torch = pytest.importorskip("torch")
    ragged = Ragged.from_rows([[1, 2], [], [3, 4, 5]], np.int32)
    jagged = ragged.to_torch()
    assert jagged.is_nested
    assert jagged.values().data_ptr() == ragged.values.ctypes.data
    assert [row.tolist() for row in jagged.unbind()] == ragged.to_list()
    assert [row.tolist() for row in ragged[1:].to_torch().unbind()] == [[], [3, 4, 5]]
    for back in (Ragged.from_rows(jagged), Rollouts({"response_ids": jagged}).ragged("response_ids")):
        assert back.to_list() == ragged.to_list()
        assert np.shares_memory(back.values, ragged.values)
    batch = pack({"response_ids": jagged}, 8)
    assert batch.unpack("input_ids").to_list() == ragged.to_list()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strided = torch.nested.nested_tensor([torch.tensor([1]), torch.tensor([2, 3])])
    whole, bounds = torch.arange(12).view(2, 6), (torch.tensor([0, 1]), torch.tensor([2, 3]))
    holes = torch.nested.narrow(whole, 1, *bounds, layout=torch.jagged)
    assert Ragged.from_rows(strided).to_list() == [[1], [2, 3]]
    assert Ragged.from_rows(holes).to_list() == [[0, 1], [7, 8, 9]]
    leaf = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    graded = Ragged(leaf, np.array([0, 1, 3])).to_torch()
    graded.values().sum().backward()
    assert leaf.grad.tolist() == [1, 1, 1]
