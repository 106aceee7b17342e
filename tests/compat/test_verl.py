"""`rollkit.compat.verl` against slow versions; with `TensorDict` where it is installed."""

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollkit.compat.verl import concat, left_right_2_no_padding, no_padding_2_padding
from rollkit.testing import ways

untimed = settings(deadline=None)  # torch imports much at its first nested tensor
PAD = 99
Rows = list[tuple[list[int], list[int]]]
Data = dict[str, Any]


def batch_of(rows: Rows, prompt: int, response: int) -> Data:
    """A batch as an agent loop pads it: prompts on the left, responses on the right, element by element."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for p, r in rows:
        left, right = prompt - len(p), response - len(r)
        mask = [0] * left + [1] * len(p + r) + [0] * right
        columns["prompts"].append([PAD] * left + p)
        columns["responses"].append(r + [PAD] * right)
        columns["input_ids"].append([PAD] * left + p + r + [PAD] * right)
        columns["attention_mask"].append(mask)
        columns["position_ids"].append([max(sum(mask[: i + 1]) - 1, 0) for i in range(len(mask))])
        columns["response_mask"].append([1] * len(r) + [0] * right)
        columns["rollout_log_probs"].append([-float(x) for x in r] + [0.0] * right)
        tokens = [0] * left + p + r + [0] * right
        columns["routed_experts"].append([[[token, 2 * token]] for token in tokens])
    tensors = {name: tensor(name, column) for name, column in columns.items()}
    tensors["routed_experts"] = tensors["routed_experts"].to(torch.uint8)
    tensors["scores"] = torch.arange(float(len(rows)))
    uids = np.array([f"{p}{r}" for p, r in rows], dtype=object)
    return {**tensors, "uid": uids, "tags": [len(p) for p, _ in rows], "task": "airline"}


def tensor(name: str, column: list[Any]) -> torch.Tensor:
    return torch.tensor(column, dtype=torch.float32 if name == "rollout_log_probs" else torch.int64)


COLUMNS = (
    "prompts",
    "responses",
    "input_ids",
    "attention_mask",
    "position_ids",
    "response_mask",
    "rollout_log_probs",
    "routed_experts",
)
ids = st.lists(st.integers(1, 9), max_size=4)
some_rows = st.lists(st.tuples(ids.filter(bool), ids), min_size=1, max_size=4)


def padded(draw: st.DrawFn, rows: Rows) -> tuple[Data, int, int]:
    prompt = max(len(p) for p, _ in rows) + draw(st.integers(0, 2))
    response = max(len(r) for _, r in rows) + draw(st.integers(0, 2))
    return batch_of(rows, prompt, response), prompt, response


@st.composite
def batches(draw: st.DrawFn) -> tuple[Rows, Data]:
    rows = draw(some_rows)
    return rows, padded(draw, rows)[0]


def kept(values: torch.Tensor, mask: torch.Tensor) -> list[list[Any]]:
    """Row by row, what the mask keeps."""
    return [
        [x for x, m in zip(row, own, strict=True) if m]
        for row, own in zip(values.tolist(), mask.tolist(), strict=True)
    ]


def as_lists(nested: torch.Tensor) -> list[Any]:
    return [row.tolist() for row in nested.unbind()]


@untimed
@given(batches())
def test_left_right_2_no_padding(case: tuple[Rows, Data]) -> None:
    rows, data = case
    before = dict(data)
    data["teacher_ids"] = teacher_ids = data["input_ids"].unsqueeze(-1).int()
    data["teacher_logprobs"] = -teacher_ids.bfloat16()
    found = left_right_2_no_padding(data)
    assert found is data
    assert as_lists(found["input_ids"]) == [p + r for p, r in rows]
    assert found["input_ids"].offsets().dtype == torch.int32
    assert as_lists(found["position_ids"]) == [list(range(len(p + r))) for p, r in rows]
    assert found["position_ids"].offsets().dtype == torch.int64
    mask = before["attention_mask"]
    for name, values in (("routed_experts", before["routed_experts"]), ("teacher_ids", teacher_ids)):
        assert found[name].dtype == values.dtype
        assert as_lists(found[name]) == kept(values, mask)
    assert as_lists(found["teacher_logprobs"]) == kept(-teacher_ids.bfloat16(), mask)
    assert found["loss_mask"] is found["response_mask"]
    assert found["max_seq_len"] == mask.shape[1]
    assert found["max_response_len"] == before["responses"].shape[1]
    assert found["indices"].tolist() == [i for i, m in enumerate(mask.flatten().tolist()) if m]
    for name in ("attention_mask", "prompts", "responses", "uid"):
        assert found[name] is before[name]


@untimed
@given(st.data(), st.sampled_from([torch.int64, torch.bool, torch.int8, torch.float32]))
def test_masks_may_have_holes_and_empty_rows(data: st.DataObject, dtype: torch.dtype) -> None:
    rows, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    bits = data.draw(st.lists(st.booleans(), min_size=rows * width, max_size=rows * width))
    mask = torch.tensor(bits).reshape(rows, width).to(dtype)
    numbers = torch.arange(rows * width).reshape(width, rows).T  # not contiguous
    batch = {"attention_mask": mask, "response_mask": mask, "input_ids": numbers, "position_ids": numbers}
    for grad in (False, True):
        routes = numbers.double().requires_grad_(grad)
        found = left_right_2_no_padding({**batch, "routed_experts": routes})
        assert as_lists(found["input_ids"]) == kept(numbers, mask)
        assert as_lists(found["routed_experts"]) == kept(numbers.double(), mask)
        assert found["routed_experts"].requires_grad == grad


def test_positions_with_axes() -> None:
    mask = torch.tensor([[0, 1, 1], [0, 0, 1], [1, 1, 1]])
    positions = torch.arange(18).reshape(3, 2, 3)
    for rows in (slice(None), slice(2, 3)):
        own = mask[rows]
        batch = {"input_ids": own, "attention_mask": own, "response_mask": own}
        found = left_right_2_no_padding({**batch, "position_ids": positions[rows]})["position_ids"]
        wanted = [p[:, m.bool()].tolist() for p, m in zip(positions[rows], own, strict=True)]
        assert as_lists(found) == wanted


def test_nested_routes_and_a_lone_teacher_are_left_as_they_are() -> None:
    mask = torch.ones(1, 2, dtype=torch.int64)
    routes = torch.nested.as_nested_tensor([torch.ones(2, 1)], layout=torch.jagged)
    batch = dict.fromkeys(("input_ids", "attention_mask", "response_mask", "position_ids"), mask)
    found = left_right_2_no_padding({**batch, "routed_experts": routes, "teacher_ids": mask})
    assert found["routed_experts"] is routes
    assert found["teacher_ids"] is mask


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "response_mask", "position_ids"])
def test_missing_columns(name: str) -> None:
    batch = batch_of([([1], [2])], 1, 1)
    del batch[name]
    with pytest.raises(AssertionError, match=name):
        left_right_2_no_padding(batch)


def shifted(rows: Rows, outputs: torch.Tensor, width: int) -> list[list[float]]:
    """The outputs before each response token, cut and padded by hand."""
    found, end = [], 0
    for p, r in rows:
        end += len(p + r)
        response = outputs.tolist()[end - len(r) - 1 : end - 1][:width]
        found.append(response + [0.0] * (width - len(response)))
    return found


@untimed
@given(batches(), st.sampled_from([torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int64]))
def test_no_padding_2_padding(case: tuple[Rows, Data], dtype: torch.dtype) -> None:
    rows, data = case
    width = data["responses"].shape[1]
    count = sum(len(p + r) for p, r in rows)
    outputs = torch.arange(1, 2 * count + 1).to(dtype)[::2]
    left_right_2_no_padding(data)
    found = no_padding_2_padding(outputs, data)
    assert found.dtype == dtype
    assert found.tolist() == shifted(rows, outputs, width)
    wide = no_padding_2_padding(torch.stack([outputs, outputs], 1), data)
    assert wide.tolist() == torch.stack([found, found], 2).tolist()
    assert no_padding_2_padding(nested(rows, outputs), data).tolist() == found.tolist()
    if dtype == torch.float32:
        outputs = outputs.clone().requires_grad_()
        slow = no_padding_2_padding(outputs, data)
        assert slow.tolist() == found.tolist()
        slow.sum().backward()
        assert outputs.grad is not None
        trained = {x for row in found.tolist() for x in row}
        assert outputs.grad.tolist() == [float(x in trained) for x in outputs.tolist()]


def nested(rows: Rows, values: torch.Tensor) -> torch.Tensor:
    parts = torch.split(values, [len(p + r) for p, r in rows])
    return torch.nested.as_nested_tensor(list(parts), layout=torch.jagged)


@untimed
@given(some_rows, st.none() | st.integers(0, 5))
def test_no_padding_2_padding_of_nested_columns(rows: Rows, width: int | None) -> None:
    data: Data = {
        name: torch.nested.as_nested_tensor(
            [torch.tensor(row[i], dtype=torch.int64) for row in rows], layout=torch.jagged
        )
        for i, name in enumerate(("prompts", "responses"))
    }
    if width is not None:
        data["max_response_len"] = width
    outputs = torch.arange(1.0, 1 + sum(len(p + r) for p, r in rows))
    padded_to = max(len(r) for _, r in rows) if width is None else width
    for given_outputs in (outputs, outputs.clone().requires_grad_()):
        found = no_padding_2_padding(given_outputs, data)
        assert found.tolist() == shifted(rows, outputs, padded_to)


def test_outputs_that_do_not_fit() -> None:
    data = batch_of([([1], [2])], 1, 1)
    with pytest.raises(AssertionError, match="3 tokens, prompts and responses have 2"):
        no_padding_2_padding(torch.zeros(3), data)
    data["attention_mask"][0, 0] = 0
    with pytest.raises(AssertionError, match="prompt 0 is empty"):
        no_padding_2_padding(torch.zeros(1), data)


@st.composite
def batches_to_join(draw: st.DrawFn) -> tuple[list[Data], Data]:
    """Batches of different widths, and their rows padded at once."""
    parts, rows, prompts, responses = [], [], [], []
    for _ in range(draw(st.integers(1, 3))):
        own = draw(some_rows)
        part, prompt, response = padded(draw, own)
        parts.append(part)
        rows += own
        prompts.append(prompt)
        responses.append(response)
    whole = batch_of(rows, max(prompts), max(responses))
    whole["scores"] = torch.cat([part["scores"] for part in parts])
    return parts, whole


def assert_same(found: Data, wanted: Data) -> None:
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype
            assert found[name].tolist() == value.tolist(), name
        else:
            assert np.array_equal(found[name], value), name


@untimed
@given(batches_to_join())
def test_concat_is_padding_at_once(case: tuple[list[Data], Data]) -> None:
    parts, whole = case
    assert_same(concat(parts, pad_token_id=PAD), whole)


@untimed
@given(batches_to_join())
def test_concat_by_torch_is_the_same(case: tuple[list[Data], Data]) -> None:
    parts, whole = case
    for part in parts:
        part["rollout_log_probs"].requires_grad_()
    found = concat(parts, pad_token_id=PAD)
    assert found["rollout_log_probs"].requires_grad
    assert_same(found, whole)


def test_concat_of_positions_with_axes_and_other_dtypes() -> None:
    a, b = batch_of([([1], [2])], 1, 1), batch_of([([3, 4], [5, 6])], 2, 2)
    for part in (a, b):
        part["position_ids"] = torch.stack([part["position_ids"], part["position_ids"] + 10], 1)
    a["response_mask"] = a["response_mask"].bool()
    found = concat([a, b])
    assert found["position_ids"].tolist() == [
        [[0, 0, 1, 1], [0, 10, 11, 11]],
        [[0, 1, 2, 3], [10, 11, 12, 13]],
    ]
    assert found["response_mask"].dtype == torch.int64


def test_concat_of_columns_that_are_as_wide_everywhere() -> None:
    parts = [{"responses": torch.ones(1, n), "features": torch.ones(1, 7)} for n in (2, 3)]
    found = concat(parts)
    assert found["responses"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert found["features"].shape == (2, 7)
    assert concat([{"x": torch.ones(1, 3)}, {"x": torch.zeros(0, 3)}])["x"].shape == (1, 3)


def test_concat_without_prompts_or_columns_of_them() -> None:
    a, b = batch_of([([1], [2])], 1, 1), batch_of([([3, 4], [5, 6])], 2, 2)
    for part in (a, b):
        del part["prompts"]
    assert concat([a, b], pad_token_id=9)["input_ids"].tolist() == [[9, 1, 2, 9], [3, 4, 5, 6]]


def test_concat_asks_what_columns_are_per() -> None:
    a, b = batch_of([([1], [2])], 1, 1), batch_of([([3, 4], [5])], 2, 1)
    for part in (a, b):
        part["prompt_weights"] = part["hints"] = part["prompts"].float()
    found = concat([a, b], levels={"hints": "prompt"})
    assert found["prompt_weights"].tolist() == found["hints"].tolist() == [[0, 1], [3, 4]]
    with pytest.raises(ValueError, match=r"'hints' is 2 wide in batches\[1\], 1 .* its name or levels"):
        concat([a, b])
    with pytest.raises(ValueError, match=r"'hints' is \[1, 2\] wide .* levels has it per response token"):
        concat([a, b], levels={"hints": "response"})
    with pytest.raises(ValueError, match="levels"):
        concat([a, b], levels={"hints": "prompts"})  # type: ignore[dict-item]


def test_each_way_is_taken_where_it_should_be() -> None:
    rows: Rows = [([1, 2], [3]), ([4], [5, 6])]
    for grad, wanted in ((False, {"rust"}), (True, {"framework"})):
        data = batch_of(rows, 3, 2)
        data["routed_experts"] = data["routed_experts"].float().requires_grad_(grad)
        column = {name: data[name] for name in ("prompts", "responses")}
        column["rollout_log_probs"] = data["rollout_log_probs"].requires_grad_(grad)
        with ways() as taken:
            joined = concat(
                [{"responses": p["responses"], "x": p["rollout_log_probs"]} for p in (column,) * 2]
            )
        assert joined["x"].requires_grad == grad
        assert taken["framework"] == int(grad)
        left_right_2_no_padding(data)
        values = data["routed_experts"].values()
        assert values.requires_grad == grad
        with ways() as taken:
            no_padding_2_padding(values, data)
        assert set(taken) == wanted


def test_outputs_on_a_device_stay_there() -> None:
    data = batch_of([([1], [2]), ([3], [])], 2, 2)
    found = no_padding_2_padding(torch.empty(3, 4, device="meta", dtype=torch.bfloat16), data)
    assert (found.device.type, found.dtype, found.shape) == ("meta", torch.bfloat16, (2, 2, 4))


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ([], ValueError, "empty"),
        ([{"a": ones(1)}, {"b": ones(1)}], ValueError, r"batches\[1\] and batches\[0\] .*: 'a', 'b'"),
        ([{"a": ones(1)}, {"a": [1]}], TypeError, r"'a' is a tensor in some.*batches\[1\]"),
        ([{"a": ones(1, 2)}, {"a": ones(1, 3)}], ValueError, r"'a' is 3 wide in batches\[1\], 2"),
        ([{"input_ids": ones(1, 2)}, {"input_ids": ones(1, 3)}], ValueError, "'input_ids' is 3 wide"),
        ([{"a": ones(1, 2, 3)}, {"a": ones(1, 2, 4)}], ValueError, r"'a' of batches\[1\] has shape"),
        ([{"a": ones(1, 2)}, {"a": ones(1, 2, 4)}], ValueError, r"'a' of batches\[1\] has shape"),
        ([{"step": 1}, {"step": 2}], ValueError, r"'step' is 2 in batches\[1\], 1"),
        (
            [{"prompts": ones(1, 2), "responses": ones(1, 2), "input_ids": ones(1, 3)}],
            ValueError,
            r"batches\[0\]: prompts and responses",
        ),
    ],
)
def test_concat_errors(parts: list[Data], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        concat(parts)


def test_concat_refuses_nested_columns() -> None:
    column = torch.nested.as_nested_tensor([torch.ones(2)], layout=torch.jagged)
    with pytest.raises(TypeError, match="'a' is nested"):
        concat([{"a": column}])


@pytest.fixture(scope="module")
def tensordict() -> Any:
    if importlib.util.find_spec("tensordict") is None:
        pytest.skip("tensordict is not installed")
    return importlib.import_module("tensordict")


def of_dict(tensordict: Any, data: Data) -> Any:
    tensors = {name: value for name, value in data.items() if isinstance(value, torch.Tensor)}
    found = tensordict.TensorDict(tensors, batch_size=[len(data["scores"])])
    found.set_non_tensor("task", data["task"])
    return found


@pytest.mark.filterwarnings("ignore")
@untimed
@given(case=batches_to_join())
def test_tensordicts(tensordict: Any, case: tuple[list[Data], Data]) -> None:
    parts, whole = case
    joined = concat([of_dict(tensordict, part) for part in parts], pad_token_id=PAD)
    assert isinstance(joined, tensordict.TensorDict)
    assert joined.batch_size == (len(whole["scores"]),)
    assert joined["task"] == "airline"
    for name, value in whole.items():
        if isinstance(value, torch.Tensor):
            assert joined[name].tolist() == value.tolist()
    flat = left_right_2_no_padding(joined)
    wanted = left_right_2_no_padding(dict(whole))
    assert flat is joined
    for name in ("input_ids", "position_ids", "routed_experts"):
        assert as_lists(flat[name]) == as_lists(wanted[name])
    assert flat["max_response_len"] == wanted["max_response_len"]
    assert isinstance(flat.get("indices"), tensordict.NonTensorData)
    assert flat["indices"].tolist() == wanted["indices"].tolist()
    outputs = torch.arange(1.0, 1 + len(wanted["indices"]))
    assert torch.equal(no_padding_2_padding(outputs, flat), no_padding_2_padding(outputs, wanted))


@pytest.mark.parametrize("short", [np.array(["a"], object), torch.ones(1)])
def test_concat_refuses_columns_of_other_rows(short: Any) -> None:
    batch = {"input_ids": torch.ones(2, 3, dtype=torch.int64), "uid": short}
    with pytest.raises(ValueError, match=r"batches\[0\]: 'uid' has 1 rows, 'input_ids' has 2"):
        concat([batch, batch])
