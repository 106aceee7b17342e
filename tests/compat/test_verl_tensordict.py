"""`to_tensordict` and `from_tensordict` with the real `TensorDict`, over the same memory."""

# ruff: noqa: E501

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

import rollkit
from rollkit.compat.verl import from_tensordict, to_tensordict

Ragged: Any = rollkit.Ragged
Rollouts: Any = rollkit.Rollouts
tensordict: Any = pytest.importorskip("tensordict")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
MADE = ("input_ids", "position_ids", "loss_mask")


def some() -> Any:
    return Rollouts(
        {
            "prompt_token_ids": [[1, 2], [3], []],
            "response_ids": [[4], [5, 6], [7]],
            "loss_masks": [[1], [1, 0], [1]],
            "rewards": [[0.5], [0.0, 1.0], [2.0]],
            "rollout_logprobs": [[-0.5], [-0.25, -1.0], [0.0]],
            "rollout_expert_indices": Ragged(np.arange(14, dtype=np.uint8).reshape(7, 1, 2), [0, 3, 6, 7]),
            "instance_ids": ["a", "a", "b"],
            "score": [0.5, 1.0, 1.5],
            "stop_reasons": ["stop", None, "stop"],
        }
    )


def address(found: Any) -> int:
    values = found.values() if isinstance(found, torch.Tensor) and found.is_nested else found
    values = values.values if isinstance(values, Ragged) else values
    pointer: int = values.data_ptr() if isinstance(values, torch.Tensor) else values.ctypes.data
    return pointer


NAMES = {
    "prompt_token_ids": "prompts",
    "response_ids": "responses",
    "loss_masks": "response_mask",
    "rewards": "rm_scores",
    "rollout_logprobs": "rollout_log_probs",
    "rollout_expert_indices": "routed_experts",
    "score": "score",
}


def test_columns_share_memory_under_the_names_of_verl() -> None:
    rollouts = some()
    data = to_tensordict(rollouts)
    assert isinstance(data, tensordict.TensorDict)
    assert data.batch_size == (3,)
    assert set(data.keys()) == {*NAMES.values(), *MADE, "uid", "stop_reasons"}
    for ours, theirs in NAMES.items():
        assert address(data[theirs]) == address(rollouts[ours]), ours
    assert data["routed_experts"].shape[2:] == (1, 2)
    assert data.get("uid").tolist() == ["a", "a", "b"]
    assert data.get("stop_reasons").tolist() == ["stop", None, "stop"]


def test_what_workers_read_besides_is_made() -> None:
    data = to_tensordict(some())
    rows = [[1, 2, 4], [3, 5, 6], [7]]
    assert [row.tolist() for row in data["input_ids"].unbind()] == rows
    assert [row.tolist() for row in data["position_ids"].unbind()] == [list(range(len(row))) for row in rows]
    assert data["input_ids"].dtype == data["position_ids"].dtype == torch.int64
    assert address(data["loss_mask"]) == address(data["response_mask"])
    assert data["responses"].to_padded_tensor(0).shape == (3, 2)
    of_rows = to_tensordict(some().drop("loss_masks", "prompt_token_ids", "rollout_expert_indices"))
    assert not {*MADE} & set(of_rows.keys())


def test_tensors_of_equal_rows_compute_together() -> None:
    data = to_tensordict(some())
    product = data["rollout_log_probs"] * data["response_mask"]
    assert product.values().tolist() == [-0.5, -0.25, 0.0, 0.0]


def test_and_back_by_address() -> None:
    rollouts = some()
    back = from_tensordict(to_tensordict(rollouts))
    assert back.drop(*MADE).equals(rollouts)
    for name in NAMES:
        assert address(back[name]) == address(rollouts[name]), name
    again = to_tensordict(back)
    assert [address(again[name]) for name in MADE] == [address(back[name]) for name in MADE]
    batch = rollkit.pack(back.drop(*MADE), capacity=8)
    assert np.array_equal(batch["input_ids"], rollkit.pack(rollouts, capacity=8)["input_ids"])


def test_rows_of_a_slice_and_of_read_only_memory() -> None:
    rollouts = some()
    for column in rollouts.columns.values():
        if isinstance(column, Ragged):
            column.values.flags.writeable = False
            column.offsets.flags.writeable = False
    data = to_tensordict(rollouts[1:])
    assert address(data["responses"]) == rollouts["response_ids"].values[1:].ctypes.data
    assert data["responses"].offsets().tolist() == [0, 2, 3]
    assert [row.tolist() for row in data["input_ids"].unbind()] == [[3, 5, 6], [7]]
    assert from_tensordict(data).drop(*MADE).equals(rollouts[1:])


def test_no_rows_and_empty_rows() -> None:
    for rollouts in (some()[:0], some()[3:], Rollouts({"prompt_token_ids": [[]], "response_ids": [[]]})):
        data = to_tensordict(rollouts)
        assert data.batch_size == (len(rollouts),)
        assert data["responses"].to_padded_tensor(0).shape == (len(rollouts), 0)
        back: Any = from_tensordict(data).drop(*({*MADE} & set(data.keys())))
        assert list(back) == list(rollouts)
        assert len(back) == len(rollouts)
        assert all(back[name].equals(rollouts[name]) for name in ("prompt_token_ids", "response_ids"))
    assert to_tensordict(Rollouts({})).batch_size == (0,)
    assert len(from_tensordict(to_tensordict(Rollouts({})))) == 0


def test_a_gradient_goes_through_both_ways() -> None:
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    rollouts = Rollouts({"response_ids": [[4], [5, 6]], "values": Ragged(values, [0, 1, 3])})
    data = to_tensordict(rollouts)
    assert address(data["values"]) == values.data_ptr()
    back: Any = from_tensordict(data)["values"]
    (back.values * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 10.0, 100.0]


def test_a_reward_per_row_lands_on_the_last_token() -> None:
    rollouts = Rollouts({"response_ids": [[4], [], [5, 6]], "rewards": [0.5, 0.0, 2.0]})
    scores = to_tensordict(rollouts)["rm_scores"]
    assert [row.tolist() for row in scores.unbind()] == [[0.5], [], [0.0, 2.0]]
    assert scores.dtype == torch.float32


def test_routes_that_end_early_go_on_in_zeros() -> None:
    routes = Ragged(np.arange(1, 7, dtype=np.uint8).reshape(3, 1, 2), [0, 2, 3])
    rollouts = Rollouts(
        {"prompt_token_ids": [[1], [2]], "response_ids": [[3, 4], [5]], "rollout_expert_indices": routes}
    )
    found = to_tensordict(rollouts)["routed_experts"]
    wanted = [[[[1, 2]], [[3, 4]], [[0, 0]]], [[[5, 6]], [[0, 0]]]]
    assert [row.tolist() for row in found.unbind()] == wanted


def test_positions_with_axes_are_jagged_along_the_tokens() -> None:
    values = torch.arange(12).reshape(3, 4)
    offsets = torch.tensor([0, 1, 4])
    data = {
        "responses": torch.nested.nested_tensor_from_jagged(torch.arange(4), offsets),
        "position_ids": torch.nested.nested_tensor_from_jagged(values, offsets, jagged_dim=2),
    }
    rollouts: Any = from_tensordict(data)
    assert rollouts["position_ids"].to_list() == [[[0, 4, 8]], values[:, 1:].T.tolist()]
    assert address(rollouts["position_ids"]) == values.data_ptr()
    again = to_tensordict(rollouts)["position_ids"]
    assert again._ragged_idx == 2
    assert address(again) == values.data_ptr()
    assert [row.tolist() for row in again.unbind()] == [row.tolist() for row in data["position_ids"].unbind()]
    later = to_tensordict(rollouts[1:])["position_ids"]
    assert later.values().tolist() == values[:, 1:].tolist()


def test_what_is_no_tensor_comes_back_as_lists() -> None:
    entries: list[Any] = [{"image": 1}, {}, None]
    data = tensordict.TensorDict({"inputs": tensordict.NonTensorStack(*entries)}, batch_size=[3])
    data["step"] = tensordict.NonTensorData(7)
    data.set_non_tensor("agent", "tool")
    data["names"] = np.array(["a", "b", None], object)
    found: Any = from_tensordict(data)
    assert found["inputs"] == entries
    assert found["step"].tolist() == [7, 7, 7]
    assert found["agent"] == ["tool", "tool", "tool"]
    assert found["names"] == ["a", "b", None]
    assert from_tensordict(dict(data.items())).equals(found.select(*data.keys()))


def test_tensordict_is_needed_to_make_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensordict", None)
    assert from_tensordict({"uid": ["a"]})["instance_ids"] == ["a"]
    with pytest.raises(ModuleNotFoundError, match="this needs tensordict; install it with: pip install tens"):
        to_tensordict(some())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_with_holes_and_of_the_strided_layout_are_copied() -> None:
    whole = torch.arange(10).reshape(2, 5)
    holes = torch.nested.narrow(whole, 1, torch.tensor([1, 0]), torch.tensor([3, 2]), layout=torch.jagged)
    strided = torch.nested.nested_tensor([torch.tensor([1, 2, 3]), torch.tensor([4, 5])])
    found: Any = from_tensordict({"responses": holes, "extra": strided})
    assert found["response_ids"].to_list() == [[1, 2, 3], [5, 6]]
    assert found["extra"].to_list() == [[1, 2, 3], [4, 5]]


def test_dtypes_that_numpy_lacks() -> None:
    values = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    data = {"values": torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, 2]))}
    back = to_tensordict(from_tensordict(data))
    assert back["values"].dtype == torch.bfloat16
    assert address(back["values"]) == values.data_ptr()


def test_it_survives_what_verl_does_with_it() -> None:
    data = to_tensordict(some())
    loaded = tensordict.TensorDict(dict(data.items()), batch_size=[3]).consolidate()
    found = from_tensordict(loaded)
    assert found.drop(*MADE).equals(some())
    chunk = from_tensordict(data.select("prompts", "responses", "uid"))
    assert chunk.equals(some().select("prompt_token_ids", "response_ids", "instance_ids"))


tokens = st.lists(st.integers(0, 2**31 - 1), max_size=4)
rows = st.lists(st.tuples(tokens, tokens), min_size=0, max_size=5)


@settings(deadline=None, max_examples=examples(100))
@given(rows=rows, cut=st.integers(0, 5))
def test_round_trips(rows: list[tuple[list[int], list[int]]], cut: int) -> None:
    rollouts = Rollouts(
        {
            "prompt_token_ids": Ragged.from_rows([p for p, _ in rows], np.int32),
            "response_ids": Ragged.from_rows([r for _, r in rows], np.int32),
            "rollout_logprobs": Ragged.from_rows([[-float(x) for x in r] for _, r in rows], np.float32),
            "instance_ids": [str(p) for p, _ in rows],
        }
    )[cut:]
    data = to_tensordict(rollouts)
    assert [row.tolist() for row in data["input_ids"].unbind()] == [p + r for p, r in rows[cut:]]
    assert from_tensordict(data).drop("input_ids", "position_ids").equals(rollouts)


LISTS: Any = Ragged.from_rows([[[1, 2]], [[3], [4]]], lists=True)
TOKENS: Any = {"prompt_token_ids": [[1], [2]], "response_ids": [[3], [4, 5]]}
BOTH = "columns 'loss_masks' and 'response_mask' would both be 'response_mask'; drop or rename one"
PADDED = (
    "column 'attention_mask': it is not nested, so this batch is padded; from_tensordict takes jagged columns: "
    "response_to_nested takes the padding off"
)

# fmt: off
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sampling_masks": LISTS}, TypeError, "column 'sampling_masks': it has a list for each element, which no jagged tensor holds; drop it, or save it"),
    ({"when": np.array(["2020-01-01", "NaT"], "M8[s]")}, TypeError, "column 'when': torch has no dtype like datetime64[s]; make it numbers, or a list of objects"),
    ({"loss_masks": [[1], [1, 1]], "response_mask": [[1], [1, 1]]}, ValueError, BOTH),
    ({"response_ids": [[3], []], "rewards": [0.0, 1.5]}, ValueError, "column 'rewards': row 1 has reward 1.5 and an empty response, so no token to put it on; drop the rollout or set the reward to 0"),
    ({"rewards": [0.0, None]}, ValueError, "column 'rewards': row 1 is None; score it, leave the rollout out, or give 0"),
    ({"loss_masks": [[1], [1, 1, 1]]}, ValueError, "column 'loss_masks': row 1 has 3 elements; its prompt has 1 tokens, its response 2"),
]  # fmt: skip
# fmt: on


@pytest.mark.parametrize(("columns", "kind", "message"), REFUSED)
def test_what_cannot_be_held_is_refused_by_name(
    columns: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        to_tensordict(Rollouts(TOKENS | columns))
    assert type(caught.value) is kind
    assert str(caught.value) == message
    assert caught.value.column in message  # type: ignore[attr-defined]


def test_rewards_need_responses() -> None:
    with pytest.raises(ValueError, match="no 'response_ids' whose last token it would be on"):
        to_tensordict(Rollouts({"input_ids": [[1]], "rewards": [1.0]}))


def test_values_of_another_framework_are_refused() -> None:
    jnp = pytest.importorskip("jax.numpy")
    import jax

    def traced(values: Any) -> Any:
        with pytest.raises(TypeError, match="column 'x': its values are of jax; make them NumPy's first"):
            to_tensordict(Rollouts({"response_ids": [[1, 2]], "x": Ragged(values, np.array([0, 2]))}))
        return values

    jax.jit(traced)(jnp.ones(2))


def test_what_is_not_rollouts_is_refused() -> None:
    padded = {"responses": torch.ones(2, 3), "attention_mask": torch.ones(2, 4)}
    nested = tensordict.TensorDict({"inputs": {"a": torch.ones(2)}}, batch_size=[2])
    both = {"responses": torch.ones(2), "response_ids": torch.ones(2)}
    wanted: list[tuple[Any, type[Exception], str]] = [
        ([1], TypeError, "data must be a TensorDict, or a dict of columns, got list"),
        (padded, ValueError, PADDED),
        (both, ValueError, "columns 'responses' and 'response_ids' would both be 'response_ids'; drop or rename one"),
        (nested, TypeError, "column 'inputs': it is a TensorDict of batch_size [2]; rollouts hold tensors and non-tensor data of the rows: drop it, or make it a NonTensorStack of a dict per row"),
        ({"step": tensordict.NonTensorData(7)}, TypeError, "column 'step': it is a NonTensorData of batch_size []; rollouts hold tensors and non-tensor data of the rows: drop it, or make it a NonTensorStack of a dict per row"),
        (tensordict.TensorDict({}, batch_size=[]), ValueError, "data must have one batch dimension, its rows; got batch_size []"),
        (tensordict.TensorDict({}, batch_size=[2, 3]), ValueError, "data must have one batch dimension, its rows; got batch_size [2, 3]"),
    ]  # fmt: skip
    for data, kind, message in wanted:
        with pytest.raises(kind) as caught:
            from_tensordict(data)
        assert str(caught.value) == message
