"""`pad`, `pack`, `Batch`: every array beside loops over rows, from every kind of source."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rollkit import Batch, Layout, Ragged, Rollouts, pack, pad, take
from rollkit.testing import pack_reference, pad_reference, rollout_rows

Rows = list[dict[str, Any]]


def same(batch: Batch, wanted: Mapping[str, NDArray[Any]]) -> None:
    assert set(batch) == set(wanted)
    for name, array in wanted.items():
        assert batch[name].dtype == array.dtype, name
        np.testing.assert_array_equal(batch[name], array, err_msg=name)


def as_dict(rows: Rows) -> dict[str, Any]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def arrays(rows: Rows, kind: type) -> dict[str, Any]:
    """The same columns, with arrays of wide dtypes (or tensors) for lists."""
    import torch

    columns = as_dict(rows)
    for name, column in columns.items():
        if isinstance(column[0], list):
            shape = next((np.shape(row)[1:] for row in column if row), ())
            found = [
                np.array(row, float if row and "float" in str(np.array(row).dtype) else np.int64)
                for row in column
            ]
            found = [row if row.size else row.reshape(0, *shape) for row in found]
            if any(row.dtype == float for row in found) or name in (
                "rollout_logprobs",
                "advantages",
                "rewards",
            ):
                found = [row.astype(np.float64) for row in found]
            columns[name] = found if kind is np.ndarray else [torch.from_numpy(row) for row in found]
    return columns


def sizes(rows: Rows) -> list[int]:
    return [len(row["prompt_token_ids"]) + len(row["response_ids"]) for row in rows]


@given(rollout_rows(), st.sampled_from(["left", "right"]), st.none() | st.integers(0, 3), st.integers(-1, 9))
def test_pad_equals_the_reference(rows: Rows, side: str, more: int | None, pad_id: int) -> None:
    width = None if more is None else max(sizes(rows)) + more
    fills = {"rollout_logprobs": -5.0, "rollout_expert_indices": 7}
    wanted = pad_reference(rows, pad_id=pad_id, side=side, width=width, fills=fills)
    same(pad(as_dict(rows), pad_id=pad_id, side=side, width=width, fills=fills), wanted)
    same(pad(Rollouts.from_rows(rows), pad_id=pad_id, side=side, width=width, fills=fills), wanted)


@given(
    rollout_rows(),
    st.integers(0, 3),
    st.sampled_from(["first_fit_decreasing", "best_fit_decreasing", "first_fit", "next_fit"]),
    st.integers(1, 3),
)
def test_pack_equals_the_reference(rows: Rows, more: int, algorithm: str, align: int) -> None:
    capacity = max(*sizes(rows), 1) + more
    wanted = pack_reference(rows, capacity, algorithm=algorithm, align=align)
    batch = pack(as_dict(rows), capacity, algorithm=algorithm, align=align)
    same(batch, wanted)
    same(pack(Rollouts.from_rows(rows), layout=batch.layout), wanted)
    assert batch.rows["stop_reasons"] == [row["stop_reasons"] for row in rows]
    assert list(batch.rows["is_last_step"]) == [row["is_last_step"] for row in rows]
    assert batch.prompt_lengths.tolist() == [len(row["prompt_token_ids"]) for row in rows]
    assert batch.num_rows == len(rows)


@given(rollout_rows(), st.data())
def test_sources_of_every_kind_give_the_same(rows: Rows, data: st.DataObject) -> None:
    wanted = pad_reference(rows)
    kinds = [lambda part: part, Rollouts.from_rows]
    for kind in (np.ndarray, object):
        found = pad(arrays(rows, kind))
        for name, array in wanted.items():
            np.testing.assert_array_equal(
                found[name].reshape(array.shape) if not array.size else found[name], array, err_msg=name
            )
            if name != "rollout_expert_indices" and array.any():
                assert found[name].dtype == array.dtype, name
    cut = data.draw(st.integers(0, len(rows)))
    make = data.draw(st.sampled_from(kinds))
    first = {name: column[:cut] for name, column in as_dict(rows).items()}
    second = {name: column[cut:] for name, column in as_dict(rows).items()}
    if make is Rollouts.from_rows:
        whole = Rollouts.from_rows(rows)
        same(pad([whole[:cut], whole[cut:]]), wanted)
    else:
        same(pad([first, second]), wanted)


@given(rollout_rows(), st.integers(0, 2))
def test_unpack_undoes(rows: Rows, more: int) -> None:
    columns = as_dict(rows)
    for batch in (pad(columns), pack(columns, max(*sizes(rows), 1) + more)):
        whole = [row["prompt_token_ids"] + row["response_ids"] for row in rows]
        assert batch.unpack("input_ids").to_list() == whole
        assert batch.unpack(batch["input_ids"]).to_list() == whole
        for name in ("loss_masks", "rollout_logprobs", "advantages"):
            assert take(batch[name], batch.responses).to_list() == columns[name]


@given(rollout_rows(), rollout_rows())
def test_out_gives_the_same_in_the_same_memory(rows: Rows, others: Rows) -> None:
    shape_of = max(*sizes(rows), *sizes(others), 1)
    first = pack(as_dict(rows), shape_of)
    memory = {name: array.__array_interface__["data"] for name, array in first.items()}
    wanted = {name: array.copy() for name, array in first.items()}
    for array in first.arrays.values():
        array.view(np.uint8)[...] = 0xA5
    again = pack(as_dict(rows), shape_of, out=first)
    same(again, wanted)
    assert {name: array.__array_interface__["data"] for name, array in again.items()} == memory
    # Others of another shape, and back: what is too small is made anew.
    between = pack(as_dict(others), shape_of, out=again)
    same(between, pack_reference(others, shape_of))
    same(pack(as_dict(rows), shape_of, out=between), wanted)


def test_mixed_sources_and_dtypes() -> None:
    parts: list[Any] = [
        {"prompt_token_ids": [[1]], "response_ids": [[2, 3]], "loss_masks": [[True, False]]},
        {
            "prompt_token_ids": [np.array([4], np.uint16)],
            "response_ids": [np.array([5, 70_000])],
            "loss_masks": [np.array([0, 1], np.int64)],
        },
        Rollouts({"prompt_token_ids": [[]], "response_ids": [[6]], "loss_masks": [[1]]}),
    ]
    batch = pad(parts, side="right")
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 5, 70_000], [6, 0, 0]]
    assert batch["loss_masks"].tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert batch["loss_masks"].dtype == np.uint8


def test_narrow_prompts_do_not_narrow_responses() -> None:
    batch = pad({"prompt_token_ids": [np.array([1], np.uint8)], "response_ids": [np.array([300])]})
    assert batch["input_ids"].tolist() == [[1, 300]]


def test_whole_sequences() -> None:
    batch = pad({"input_ids": [[1, 2], [3]], "loss_masks": [[0, 1], [1]]})
    assert batch["input_ids"].tolist() == [[1, 2], [0, 3]]
    assert batch["loss_masks"].tolist() == [[0, 1], [0, 1]]
    assert batch.prompt_lengths.tolist() == [0, 0]


def test_routes_may_lack_the_last_token() -> None:
    routes = [np.arange(6, dtype=np.uint8).reshape(3, 2), np.zeros((1, 2), np.uint8)]
    batch = pad(
        {"prompt_token_ids": [[1], [2]], "response_ids": [[3, 4], [5]], "rollout_expert_indices": routes},
        side="right",
        fills={"rollout_expert_indices": 255},
    )
    assert batch["rollout_expert_indices"].dtype == np.uint8
    assert batch["rollout_expert_indices"].tolist() == [
        [[0, 1], [2, 3], [4, 5]],
        [[0, 0], [255, 255], [255, 255]],
    ]


def test_unknown_columns_at_every_level() -> None:
    batch = pad(
        {
            "prompt_token_ids": [[1, 2], [3]],
            "response_ids": [[4], [5, 6, 7]],
            "of the response": [[1.5], [1, 2, 3]],
            "of both": [[1, 2, 3], [4, 5, 6, 7]],
            "prompt_flags": [[True, True], [True]],
            "of the row": [0.5, 1],
            "tags": [["a"], ["b", "c"]],
        }
    )
    assert batch["of the response"].tolist() == [[0, 0, 0, 1.5], [0, 1, 2, 3]]
    assert batch["of the response"].dtype == np.float32
    assert batch["of both"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert batch["prompt_flags"].tolist() == [[False, True, True, False], [True, False, False, False]]
    assert list(batch.rows["of the row"]) == [0.5, 1]
    assert batch.rows["tags"] == [["a"], ["b", "c"]]
    assert "tags" not in batch


def test_rewards_land_on_the_last_token() -> None:
    columns = {"prompt_token_ids": [[1], [2, 3]], "response_ids": [[4, 5], []], "rewards": [2.0, 0.0]}
    assert pad(columns, side="right")["rewards"].tolist() == [[0, 0, 2], [0, 0, 0]]
    for rewards in (np.array([2, 0], np.int8), [True, False], np.array([2.0, 0.0], np.float32)):
        assert pad({**columns, "rewards": rewards})["rewards"].dtype == np.float32
    kept = pack(columns, 2, oversize="truncate")["rewards"]
    assert kept.tolist() == [[0, 2], [0, 0]]
    assert pack(columns, 2, oversize="drop")["rewards"].tolist() == [[0, 0]]
    per_token = {**columns, "rewards": [[1.0, 2.0], []]}
    assert pad(per_token, side="right")["rewards"].tolist() == [[0, 1, 2], [0, 0, 0]]


@pytest.mark.filterwarnings("ignore:truncation leaves")
def test_truncation_cuts_every_column_at_the_same_token() -> None:
    batch = pack(
        {
            "prompt_token_ids": [[1, 2], [3, 4, 5, 6, 7]],
            "response_ids": [[8, 9, 10], [11]],
            "loss_masks": [[1, 1, 1], [1]],
            "of both": [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]],
        },
        4,
        oversize="truncate",
    )
    assert sorted(batch["input_ids"].tolist()) == [[1, 2, 8, 9], [3, 4, 5, 6]]
    assert sorted(batch["loss_masks"].tolist()) == [[0, 0, 0, 0], [0, 0, 1, 1]]
    assert batch["of both"].tolist() == [[1, 2, 3, 4], [1, 2, 3, 4]]
    assert batch.unpack("input_ids").to_list() == [[1, 2, 8, 9], [3, 4, 5, 6]]
    assert np.diff(batch.responses.row_offsets()).tolist() == [2, 0]


def test_dtypes_and_fills() -> None:
    batch = pad(
        {
            "response_ids": [[1], [2, 3]],
            "rollout_logprobs": [[-1.0], [-2.0, -3.0]],
            "loss_masks": [[1], [1, 0]],
        },
        dtypes={"input_ids": np.int64, "rollout_logprobs": ml_dtypes.bfloat16, "loss_masks": bool},
        fills={"rollout_logprobs": -9, "loss_masks": True},
    )
    assert batch["input_ids"].dtype == np.int64
    assert batch["loss_masks"].tolist() == [[True, True], [True, False]]
    assert batch["rollout_logprobs"].dtype == ml_dtypes.bfloat16
    assert batch["rollout_logprobs"].astype(float).tolist() == [[-9, -1], [-2, -3]]


@pytest.mark.parametrize(
    "rows",
    [[], Ragged(np.empty(0, np.int32), np.array([0])), np.empty((0, 2), int)],
    ids=["list", "rows", "2-D"],
)
def test_no_rows(rows: Any) -> None:
    batch = pack({"response_ids": rows}, 4)
    assert batch["input_ids"].shape == (0, 4)
    assert pad({"response_ids": rows})["input_ids"].shape == (0, 0)
    assert batch.num_rows == 0
    assert batch.unpack("input_ids").to_list() == []


def test_to_torch_shares_memory() -> None:
    import torch

    batch = pad(
        {
            "response_ids": [[1], [2, 3]],
            "loss_masks": [[1], [1, 0]],
            "rollout_logprobs": [[-1.0], [-2.0, -3.0]],
        },
        dtypes={"rollout_logprobs": ml_dtypes.bfloat16},
    )
    tensors = batch.to("torch")
    kinds = {"input_ids": torch.int32, "loss_masks": torch.uint8, "rollout_logprobs": torch.bfloat16}
    for name, kind in kinds.items():
        assert tensors[name].dtype == kind
        assert tensors[name].data_ptr() == batch[name].__array_interface__["data"][0]
    assert tensors["rollout_logprobs"].float().tolist() == [[0, -1], [-2, -3]]
    assert tensors.unpack("input_ids").to_list() == [[1], [2, 3]]
    assert tensors.layout is batch.layout
    np.testing.assert_array_equal(tensors.to("numpy")["input_ids"], batch["input_ids"])
    wide = batch.to("torch", dtype=torch.float64)
    assert wide["input_ids"].dtype == torch.float64


def test_read_only_arrays_go_to_torch_without_a_warning() -> None:
    frozen = np.arange(4)
    frozen.flags.writeable = False
    batch = Batch({"x": frozen.reshape(1, 4)}, Layout.pad([4]), np.zeros(1, np.int64), {})
    assert batch.to("torch")["x"].tolist() == [[0, 1, 2, 3]]


def test_to_jax() -> None:
    import jax

    batch = pad({"response_ids": [[1], [2, 3]], "x": [np.array([2**40]), np.array([1, 2])]})
    with pytest.raises(OverflowError, match="jax_enable_x64"):
        batch.to("jax")
    batch = pad({"response_ids": [[1], [2, 3]], "x": [[7], [8, 9]]})
    found = batch.to("jax")
    assert isinstance(found["input_ids"], jax.Array)
    assert found["input_ids"].dtype == found["x"].dtype == np.int32
    assert found["x"].tolist() == [[0, 7], [8, 9]]
    assert found.unpack("x").to_list() == [[7], [8, 9]]
    assert batch.to("jax", "cpu")["x"].tolist() == [[0, 7], [8, 9]]


def test_pin_memory() -> None:
    import torch

    batch = pad({"response_ids": [[1], [2, 3]]})
    try:
        pinned = batch.pin_memory()
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    assert torch.is_tensor(pinned["input_ids"])
    assert pinned["input_ids"].tolist() == [[0, 1], [2, 3]]


def test_pickles_out_of_band() -> None:
    rows = {"response_ids": [np.arange(1000)] * 20, "rollout_logprobs": [np.zeros(1000)] * 20}
    batch = pack(rows, 4000, dtypes={"rollout_logprobs": ml_dtypes.bfloat16})
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(batch, 5, buffer_callback=buffers.append)
    assert len(pickled) < 2000
    again = pickle.loads(pickled, buffers=buffers)
    same(again, batch.arrays)
    assert np.shares_memory(again["rollout_logprobs"], batch["rollout_logprobs"])
    assert again.unpack("input_ids").equals(batch.unpack("input_ids"))
    assert again.num_rows == 20
    assert pickle.loads(pickle.dumps(batch.to("torch")))["input_ids"].tolist() == batch["input_ids"].tolist()


def test_is_a_mapping_of_names() -> None:
    batch = pad({"response_ids": [[1], [2, 3]]})
    assert (
        list(batch)
        == list(batch.keys())
        == [
            "input_ids",
            "segment_ids",
            "positions",
            "attention_mask",
            "loss_masks",
        ]
    )
    assert "input_ids" in batch
    assert dict(batch.items())["input_ids"] is batch["input_ids"]


def test_repr_shows_no_data() -> None:
    assert repr(pack({"response_ids": [[12345], [2, 3]]}, 4)) == (
        "Batch(Layout(2 rows in 1 × 4, 75.0 % used): "
        "input_ids int32, segment_ids int32, positions int32, loss_masks uint8)"
    )


def test_a_two_dimensional_array_of_an_unknown_name_has_an_entry_per_row() -> None:
    columns: dict[str, Any] = {"response_ids": [[1, 2], [3]], "scores": np.array([[0.1, 0.2], [0.3, 0.4]])}
    for source in (columns, Rollouts(columns)):
        batch = pack(source, 4)
        assert "scores" not in batch
        np.testing.assert_array_equal(batch.rows["scores"], columns["scores"])


@pytest.mark.filterwarnings("ignore:truncation leaves")
def test_a_reward_goes_with_the_last_token_of_the_response_that_is_placed() -> None:
    columns = {
        "prompt_token_ids": [[1, 1, 1], [1, 1, 1, 1, 1]],
        "response_ids": [[2, 2, 2], [2]],
        "rewards": [1.0, 5.0],
    }
    batch = pack(columns, 4, oversize="truncate")
    assert batch.unpack("rewards").to_list() == [[0, 0, 0, 1], [0, 0, 0, 0]]


def test_changing_lengths_later_does_not_change_the_plan() -> None:
    lengths = np.array([2, 1])
    layout = Layout.pad(lengths)
    lengths[:] = 0
    assert layout.lengths.tolist() == [2, 1]


def test_columns_that_their_framework_places() -> None:
    """A gradient, a device and the dtype that is asked for stay; dtypes are narrow as on the host."""
    torch = pytest.importorskip("torch")
    scores = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([7, 8, 9], device="meta")
    rollouts = {
        "prompt_token_ids": [[1], [2]],
        "response_ids": [[3], [4, 5]],
        "rollout_logprobs": [scores[:1], scores[1:]],
        "elsewhere": [ids[:1], ids[1:]],
    }
    batch = pack(rollouts, 8)
    assert batch["rollout_logprobs"].dtype == torch.float32
    assert batch["rollout_logprobs"].tolist() == [[0.0, 1.0, 0.0, 2.0, 3.0, 0.0, 0.0, 0.0]]
    (batch["rollout_logprobs"] * torch.arange(8)).sum().backward()
    assert scores.grad.tolist() == [1.0, 3.0, 4.0]
    assert batch["elsewhere"].device.type == "meta"
    assert batch["elsewhere"].dtype == torch.int64
    whole = {"prompt_token_ids": [ids[:1]], "response_ids": [ids[1:]]}
    for dtype in (torch.int64, np.int64):
        assert pack(whole, 4, dtypes={"input_ids": dtype})["input_ids"].dtype == torch.int64
    with pytest.raises(
        ValueError, match=r"column 'response_ids': expected token ids, got elements of shape \(2,\)"
    ):
        pack({"prompt_token_ids": [[1]], "response_ids": [np.ones((3, 2), np.int32)]}, 8)


def test_rows_with_a_gradient_stay_in_the_batch() -> None:
    """Lists beside them become like them; arrays that do not go with them are refused, and never left out."""
    torch = pytest.importorskip("torch")
    score, pair = torch.ones(1, requires_grad=True), torch.ones(2)
    both = pad({"response_ids": [[1], [2, 3]], "scores": [score, pair.double()]})["scores"]
    assert (both.requires_grad, both.dtype) == (True, torch.float32)
    for rows in ([score, [1.0, 2.0]], [[1.0], score * torch.tensor([1.0, 2.0])]):
        batch = pad({"response_ids": [[1], [2, 3]], "scores": rows})
        assert batch["scores"].requires_grad
        assert batch["scores"].tolist() == [[0.0, 1.0], [1.0, 2.0]]
    for rows in ([score, np.ones(2, "f4")], [np.ones(1), pair * score]):
        with pytest.raises((TypeError, ValueError), match=r"column 'scores': row [01]"):
            pad({"response_ids": [[1], [2, 3]], "scores": rows})


def test_to_keeps_a_gradient_that_is_there() -> None:
    torch = pytest.importorskip("torch")
    logprobs = torch.arange(3.0, requires_grad=True)
    rollouts = {"response_ids": [[1], [2, 3]], "logprobs": Ragged(logprobs, np.array([0, 1, 3]))}
    batch = pad(rollouts)
    for there in (batch.to("torch"), batch.to("torch", device="cpu"), batch.to("torch", "cpu").to("torch")):
        assert isinstance(there["input_ids"], torch.Tensor)
        (gradient,) = torch.autograd.grad(there["logprobs"].square().sum(), logprobs, retain_graph=True)
        assert gradient.tolist() == [0.0, 2.0, 4.0]
    with pytest.raises(TypeError, match=r"pass \.detach\(\)"):
        batch.to("numpy")


@pytest.mark.parametrize(
    ("name", "rows", "where"),
    [
        ("rollout_logprobs", [[0.0], [0.0, -1e39]], (1, 1)),
        ("rollout_logprobs", [np.zeros(1), np.array([0.0, -1e39])], (1, 1)),
        ("rollout_logprobs", Ragged(np.array([0, 0, 1e39]), np.array([0, 1, 3])), (1, 1)),
        ("rewards", [0.0, 1e39], (1, 0)),
        ("rewards", np.array([0.0, 1e39]), (1, 0)),
        ("values", Ragged(np.array([0, 0, 1e39]), np.array([0, 1, 3])), (1, 1)),
        ("values", [[0.0], [0.0, 1e39]], (1, 1)),
    ],
)
def test_no_finite_float_becomes_infinite(name: str, rows: Any, where: tuple[int, int]) -> None:
    with pytest.raises(OverflowError, match=f"column '{name}': row 1, .*does not fit float32") as caught:
        pack({"response_ids": [[1], [2, 3]], name: rows}, capacity=8)
    error: Any = caught.value
    assert (error.column, error.row, error.position) == (name, *where)
