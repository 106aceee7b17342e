"""`PackBatches` and `CollateArrow` of tables at hand: what columns of Arrow become, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.house.refusals import check_refusal

pytest.importorskip("ray")
pa: Any = pytest.importorskip("pyarrow")
torch: Any = pytest.importorskip("torch")

from ray.data.extensions import ArrowTensorArray, ArrowVariableShapedTensorArray  # noqa: E402

from rollkit.ray import CollateArrow, PackBatches  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning:ray")

COLLATE: Any = CollateArrow()
IDS = [[1, 2], [3]]


def ragged(rows: list[Any]) -> Any:
    found = np.empty(len(rows), object)
    found[:] = rows
    return ArrowVariableShapedTensorArray.from_numpy(found)


def lists(values: Any, size: int) -> Any:
    elements = pa.array(*values) if isinstance(values, tuple) else values
    return pa.FixedSizeListArray.from_arrays(elements, size)


VALUES = np.arange(24, dtype=np.float16).reshape(3, 4, 2)


@pytest.mark.parametrize(
    "made",
    [
        lambda: ArrowTensorArray.from_numpy(VALUES),
        lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(VALUES),
        lambda: lists(lists((VALUES.ravel(),), 2), 4),
    ],
)
def test_tensors_of_ray_and_of_arrow_are_tensors(made: Callable[[], Any]) -> None:
    """A step in NumPy, Ray's default, makes tensors of its own of the bins."""
    column = made()
    whole = COLLATE(pa.table({"a": column}))["a"]
    assert whole.dtype == torch.float16
    assert whole.tolist() == VALUES.tolist()
    assert COLLATE(pa.table({"a": column}).slice(1))["a"].tolist() == VALUES[1:].tolist()
    none = COLLATE(pa.table({"a": pa.chunked_array([], column.type)}))["a"]
    assert (none.dtype, none.shape) == (torch.float16, (0, 4, 2))


def test_tensors_of_any_shape_are_tensors_where_they_have_one() -> None:
    """Ray before 2.55 makes such of lists of one size, too."""
    table = pa.table({"a": ragged([*VALUES, np.zeros((1, 2), np.float16)])})
    assert COLLATE(table.slice(0, 3))["a"].tolist() == VALUES.tolist()
    assert (
        COLLATE(pa.concat_tables([table.slice(1, 1), table.slice(0, 1)]))["a"].tolist()
        == VALUES[[1, 0]].tolist()
    )
    assert COLLATE(table.slice(2))["a"] == [VALUES[2].tolist(), [[0.0, 0.0]]]
    empty = pa.table({"a": ragged([np.zeros((0, 2), np.float16)] * 2)})
    assert COLLATE(empty)["a"] == [[], []]


def test_rows_of_any_length_that_ray_has_as_tensors_are_packed() -> None:
    rows = [np.arange(4).reshape(2, 1, 2), np.zeros((0, 1, 2), int), np.arange(4, 6).reshape(1, 1, 2)]
    table = pa.table({
        "response_ids": ragged([np.array([1, 2]), np.zeros(0, int), np.array([3])]),
        "routed_experts": ragged(rows),
    })  # fmt: skip
    bins = COLLATE(PackBatches(4)(table))
    assert bins["input_ids"].tolist() == [[1, 2, 3, 0]]
    assert bins["routed_experts"].tolist() == [[[[0, 1]], [[2, 3]], [[4, 5]], [[0, 0]]]]
    assert COLLATE(PackBatches(4)(table.slice(1)))["input_ids"].tolist() == [[3, 0, 0, 0]]
    assert COLLATE(table)["response_ids"] == [[1, 2], [], [3]]


def test_rows_that_ray_has_as_one_tensor_are_packed() -> None:
    table = pa.table({
        "response_ids": ArrowTensorArray.from_numpy(np.arange(4).reshape(2, 2)),
        "rollout_logprobs": ArrowTensorArray.from_numpy(-np.arange(4.0).reshape(2, 2)),
    })  # fmt: skip
    bins = COLLATE(PackBatches(4)(table))
    assert bins["rollout_logprobs"].tolist() == [[0, -1, -2, -3]]


def test_features_of_rays_tensors_are_collated() -> None:
    from rollkit.torch import Collator

    table = pa.table({"input_ids": ragged([np.array([1, 2]), np.array([3])])})
    assert CollateArrow(Collator())(table)["input_ids"].tolist() == [[1, 2], [3, 0]]


@pytest.mark.parametrize("of", [pa.list_, pa.large_list])
def test_a_list_for_each_element(of: Any) -> None:
    column = lists(([[1], [2, 3], [], [4]], of(pa.int64())), 2)
    found = COLLATE(pa.table({"a": column}))["a"]
    assert (found.values.tolist(), found.offsets.tolist()) == ([1, 2, 3, 4], [0, 1, 3, 3, 4])
    pairs = lists(([[[1, 2]], [[3, 4], [5, 6]]], of(pa.list_(pa.int64(), 2))), 2)
    found = COLLATE(pa.table({"a": pairs}))["a"]
    assert (found.values.tolist(), found.offsets.tolist()) == ([[1, 2], [3, 4], [5, 6]], [0, 1, 3])


def test_options_by_column_are_those_of_the_batches() -> None:
    packed = PackBatches(
        4, fills={"response_logprobs": -1.0}, dtypes={"response_logprobs": "float16", "input_ids": "int64"}
    )
    bins = COLLATE(packed(pa.table({"response_ids": IDS, "response_logprobs": [[-0.5, -2.0], [0.0]]})))
    assert bins["response_logprobs"].dtype == torch.float16
    assert bins["response_logprobs"].tolist() == [[-0.5, -2.0, 0.0, -1.0]]
    assert bins["input_ids"].dtype == torch.int64


NULLS = "has nulls; fill them, or leave the rows out"
IDS_TABLE = pa.table({"response_ids": IDS, "rewards": [0.5, 1.0], "response_logprobs": [[-0.5, -2.0], [0.0]]})
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: COLLATE(pa.table({"a": [1, None]})), ValueError, f"column 'a': {NULLS}"),
    (lambda: COLLATE(pa.table({"a": pa.array([[1, 2], None], pa.list_(pa.int64(), 2))})), ValueError,
     f"column 'a': {NULLS}"),
    (lambda: COLLATE(pa.table({"a": lists(([[1], None], pa.large_list(pa.int64())), 2)})), ValueError,
     f"column 'a': {NULLS}"),
    (lambda: COLLATE(pa.table({"a": lists(([[1], [None]], pa.large_list(pa.int64())), 2)})), ValueError,
     f"column 'a': {NULLS}"),
    (lambda: COLLATE(pa.table({"a": pa.array([[[1], [2]], None], pa.list_(pa.large_list(pa.int64()), 2))})),
     ValueError, f"column 'a': {NULLS}"),
    (lambda: COLLATE(pa.table({"a": lists(([["a"], ["b"]], pa.large_list(pa.string())), 2)})), TypeError,
     "column 'a': has lists of large_list<item: string>, expected numbers"),
    (lambda: COLLATE(pa.table({"a": lists((["a", "b"],), 2)})), TypeError,
     "column 'a': has lists of string, expected numbers"),
    (lambda: COLLATE({"a": np.arange(3)}), TypeError,
     'expected a table of pyarrow, got dict; map_batches has batch_format="pyarrow"'),
    (lambda: PackBatches(4)({"response_ids": np.arange(3)}), TypeError,
     'expected a table of pyarrow, got dict; map_batches has batch_format="pyarrow"'),
    (lambda: PackBatches(4)(pa.table({"response_ids": ragged([np.ones((1, 2)), np.ones((1, 3))])})),
     ValueError, "column 'response_ids': has rows of several inner shapes: [(2,), (3,)]"),
    (lambda: PackBatches(4, keep=["rewards"])(IDS_TABLE), ValueError,
     "keep has 'rewards', which is an array of the bins; give the column another name"),
    (lambda: PackBatches(4, dtypes={"response_logprobs": "bfloat16"})(IDS_TABLE), TypeError,
     "column 'response_logprobs': Arrow has no bfloat16; "
     "ask for another by dtypes, such as float16 or float32"),
    (lambda: PackBatches(4, levels={"x": "token"}), ValueError,
     "levels['x'] must be one of 'prompt', 'response', 'sequence', 'row', "
     "'prompt[]', 'response[]', 'sequence[]', 'row[]', got 'token'"),
    (lambda: PackBatches(4, fills=3), TypeError, "fills must be a dict by name, got int"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), REFUSED)
def test_refusals(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    check_refusal(call, kind, text)
