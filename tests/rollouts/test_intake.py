"""No column changes its meaning, place or numbers because of what comes first, or of a value in it."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.house.refusals import check_refusal

from rollkit import Ragged, Rollouts, concat, merge_steps, pack, pad
from rollkit._rollouts.sources import as_rollouts
from rollkit._rows.dtypes import common, numpy_dtype

HOW = 'levels={\'x\': "row"} carries the rows along as they are, "response[]" lists per token'
IDS: dict[str, Any] = {"response_ids": [[1], [2]]}
DTYPES = [np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
FLOATS = [np.dtype(np.float32), np.dtype(np.float64)]


@given(st.lists(st.sampled_from([*DTYPES, *FLOATS]), min_size=1, max_size=4), st.randoms())
def test_dtypes_meet_whatever_comes_first(dtypes: list[np.dtype[Any]], random: Any) -> None:
    other = random.sample(dtypes, len(dtypes))
    wanted = np.result_type(*dtypes)
    if wanted.kind == "f" and all(dtype.kind in "iu" for dtype in dtypes):
        for given_ in (dtypes, other):
            with pytest.raises(TypeError, match="no integer dtype holds"):
                common(given_)
        return
    assert common(dtypes) == common(other) == wanted


def meet(rows: list[Any]) -> list[Ragged]:
    """The same rows, joined in every way."""
    parts = [Ragged.from_rows([row]) for row in rows]
    columns = [Rollouts({"x": part}) for part in parts]
    return [
        Ragged.from_rows(rows),
        Ragged.joined(parts),
        concat(parts),
        concat(columns).ragged("x"),
        as_rollouts([{"response_ids": [[1]], "x": [row]} for row in rows]).ragged("x"),
    ]


@pytest.mark.parametrize(
    "dtypes", [("u1", "u2"), ("u1", "i1"), ("i4", "i8"), ("i8", "f4"), ("u1", "f4", "i8"), ("f4", "f8")]
)
def test_rows_meet_in_one_dtype_in_every_way(dtypes: tuple[str, ...]) -> None:
    wanted = np.result_type(*map(np.dtype, dtypes))
    for order in permutations(dtypes):
        rows = [np.array([7, np.iinfo(d).max if np.dtype(d).kind in "iu" else 0.5], d) for d in order]
        for found in meet(rows):
            assert found.dtype == wanted
            assert found.to_list() == [row.astype(wanted).tolist() for row in rows]


def test_torch_rows_meet_as_rows_of_numpy_do() -> None:
    torch = pytest.importorskip("torch")
    rows = [torch.tensor([0.5]), torch.tensor([1]), torch.tensor([], dtype=torch.float64)]
    for order in permutations(rows[:2]):
        assert Ragged.from_rows(list(order)).dtype == np.float64
        trained = [row.clone().requires_grad_() if row.is_floating_point() else row for row in order]
        found = Ragged.from_rows(trained)
        assert found.values.dtype == torch.float64
        values: Any = found.values
        assert values.requires_grad
    assert Ragged.from_rows([rows[1], rows[2]]).dtype == np.int64


def test_numbers_of_lists_take_the_dtype_of_arrays_where_they_fit() -> None:
    small: Any = np.array([1], np.uint8)
    for row, wanted in (([2], "uint8"), ([300], "int64"), ([0.5], "float64"), ([], "uint8")):
        for rows in ([small, row], [row, small]):
            found = Ragged.from_rows(rows)
            assert (found.dtype.name, found.to_list()) == (wanted, [list(each) for each in rows])
    lists: list[Any] = [[[True], [2]], [[2], [True]], [[np.uint8(1)], [300]], [[300], [np.uint8(1)]]]
    for rows in lists:
        assert Ragged.from_rows(rows).to_list() == rows


@pytest.mark.parametrize("order", [1, -1])
def test_ints_and_floats_meet_in_a_batch(order: int) -> None:
    batch = pack({**IDS, "advantages": [np.array([0]), np.array([0.5])][::order]}, 4)
    assert batch["advantages"].tolist() == [[0, 0.5, 0, 0] if order == 1 else [0.5, 0, 0, 0]]


def test_routes_widen_and_are_never_floats() -> None:
    small, large = np.ones((1, 1, 2), np.uint8), np.full((1, 1, 2), 300, np.uint16)
    for rows in ([small, large], [large, small]):
        for source in (
            {**IDS, "rollout_expert_indices": rows},
            [{**IDS, "response_ids": [[1]], "rollout_expert_indices": [row]} for row in rows],
        ):
            found = pack(source, 2)["rollout_expert_indices"]
            assert (found.dtype, found.max()) == (np.uint16, 300)
    message = "column 'rollout_expert_indices': row 1: expected integers, got float64; round them first"
    floats = {**IDS, "rollout_expert_indices": [small, large.astype(float)]}
    for call in (lambda: pack(floats, 2), lambda: Rollouts(floats)):
        check_refusal(call, TypeError, message)


def test_numbers_per_row_are_not_rounded_where_parts_meet() -> None:
    a, b = Rollouts({"x": np.array([2**63], np.uint64)}), Rollouts({"x": np.array([-1])})
    message = "column 'x': no integer dtype holds int64 and uint64; cast one with .astype"
    check_refusal(lambda: concat([a, b]), TypeError, message)
    sources = [{"response_ids": [[1]], "x": part["x"]} for part in (a, b)]
    check_refusal(lambda: pack(sources, 2), TypeError, message)
    assert Rollouts({"x": [2**63, -1]})["x"] == [2**63, -1]
    found = concat([Rollouts({"x": [None, 1.5]}), Rollouts({"x": [2]})])["x"]
    assert found == [None, 1.5, 2]


MIXED: list[tuple[Any, str, dict[str, Any]]] = [
    ([[-0.1], None], "row 1 is NoneType, expected a list, tuple or array", {"row": 1}),
    ([None, [-0.1]], "row 0 is NoneType, expected a list, tuple or array", {"row": 0}),
    ([[1.0], ["a"]], "row 1, position 0: 'a' is not a number", {"row": 1, "position": 0}),
    ([0.5, [1.0]], "row 0 is float, expected a list, tuple or array", {"row": 0}),
    ([{"a": 1}, [1.0]], "row 0 is dict, expected a list, tuple or array", {"row": 0}),
    ([[None], [1.0]], "row 0, position 0: None is not a number", {"row": 0, "position": 0}),
    (
        [[[5, 9], [6]], [[7, 8, 9]]],
        "row 0, position 1: inner shape (2,) expected, got a list of 1",
        {"row": 0},
    ),
]


@pytest.mark.parametrize(("rows", "message", "where"), MIXED)
def test_no_value_moves_a_column_to_the_rows(rows: list[Any], message: str, where: dict[str, Any]) -> None:
    steps = {"prompt_token_ids": [[1], [1]], **IDS, "is_last_step": [True, True]}
    for source in ({**IDS, "x": rows}, Rollouts({**IDS, "x": rows})):
        for call, given_ in (
            (pad, source),
            (lambda found: pack(found, 4), source),
            (merge_steps, {**steps, "x": rows}),
        ):
            with pytest.raises((TypeError, ValueError)) as found:
                call(given_)
            assert str(found.value) == f"column 'x': {message}"
            assert {name: getattr(found.value, name) for name in where} == where
            assert found.value.__notes__ == [
                'levels={\'x\': "row"} carries the rows along as they are, "response[]" lists per token'
            ]
    assert pack({**IDS, "x": rows}, 4, levels={"x": "row"}).rows["x"] == rows


def test_rows_of_objects_go_along() -> None:
    for rows in ([["a"], ["b", "c"]], [[{"n": 1}], []], [["a"], None], [None, None]):
        assert pack({**IDS, "x": rows}, 4).rows["x"] == rows


def test_rows_as_a_collator_gets_them() -> None:
    torch = pytest.importorskip("torch")
    wanted = [[1, 2, 3, 0]]
    kinds: list[Any] = [
        [{"input_ids": [1, 2]}, {"input_ids": [3]}],
        ({"input_ids": row} for row in (np.array([1, 2]), np.array([3]))),
        [{"input_ids": torch.tensor([1, 2])}, {"input_ids": torch.tensor([3])}],
        [{"input_ids": []}, {"input_ids": (1, 2, 3)}],
    ]
    for rows in kinds:
        assert pack(rows, 4)["input_ids"].tolist() == wanted
    rows = [{"prompt_token_ids": [1], "response_ids": [], "rewards": 1.0, "tag": "a"}]
    rows += [{"prompt_token_ids": [2], "response_ids": [3], "rewards": 0.5, "tag": "b"}]
    assert pack(
        [{**row, "rewards": [], "response_ids": []} for row in rows[:1]] + [{**rows[1], "rewards": [0.5]}], 4
    ).rows == {"tag": ["a", "b"]}
    assert as_rollouts(rows)["rewards"].tolist() == [1.0, 0.5]  # type: ignore[union-attr]
    assert (
        pack([{"input_ids": [[1, 2]]}, {"input_ids": []}, {"input_ids": [[3]]}], 4)["input_ids"].tolist()
        == wanted
    )
    check_refusal(
        lambda: pack([{"input_ids": [[1]]}, {"input_ids": []}, {"input_ids": [1]}], 4),
        TypeError,
        "rollouts[2] is a row, its tokens a flat run, and rollouts[0] a source of rows; "
        "give either, not both",
    )
    check_refusal(
        lambda: pack([{"input_ids": [1]}, {"input_ids": [1], "x": 1}], 4),
        ValueError,
        "row 1 and row 0 differ in columns: 'x'",
    )


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_jagged_tensors_are_columns() -> None:
    torch = pytest.importorskip("torch")
    rows = [torch.tensor([1]), torch.tensor([2, 3])]
    for layout in (torch.jagged, torch.strided):
        nested = torch.nested.nested_tensor(rows, layout=layout)
        assert pack({"response_ids": nested}, 4)["input_ids"].tolist() == [[1, 2, 3, 0]]
        assert Rollouts({"response_ids": nested}).ragged("response_ids").to_list() == [[1], [2, 3]]


def test_dtypes_by_any_name() -> None:
    torch = pytest.importorskip("torch")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for wanted, dtype in (
        (torch.int64, np.int64),
        ("bfloat16", ml_dtypes.bfloat16),
        (torch.bfloat16, ml_dtypes.bfloat16),
    ):
        assert pack({**IDS, "x": IDS["response_ids"]}, 4, dtypes={"x": wanted})["x"].dtype == dtype
        assert Ragged.from_rows([[1]], wanted).dtype == Ragged.from_rows([[1]]).astype(wanted).dtype == dtype
    with pytest.raises(
        TypeError, match=r"^column 'x': dtypes\['x'\] is 'zz', which is no dtype that NumPy has$"
    ):
        pack({**IDS, "x": IDS["response_ids"]}, 4, dtypes={"x": "zz"})
    with pytest.raises(TypeError, match=r"^dtype is 'zz'"):
        numpy_dtype("zz")


def test_rows_that_are_all_empty_are_rows() -> None:
    rows = [{"response_ids": [], "rewards": 0.0}, {"response_ids": [], "rewards": 0.0}]
    assert len(pack(rows, 4).layout) == 2
    assert len(as_rollouts(rows)) == 2


@pytest.mark.parametrize(
    "column", [{0.5, 1.5}, frozenset([0.5, 1.5]), np.ma.masked_array([0.5, 1.5], [False, True])]
)
def test_what_has_no_order_or_a_mask_is_no_column(column: Any) -> None:
    rows = {"response_ids": [[1], [2]], "rewards": column}
    calls: list[Any] = [lambda: pack(rows, 4), lambda: Rollouts(rows)]
    for call in calls:
        with pytest.raises(TypeError, match="column 'rewards': "):
            call()
