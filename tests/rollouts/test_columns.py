"""What a column has an element for, and what is taken as rollouts: one answer each, in every function."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.house.refusals import check_refusal

from rollkit import (
    Ragged,
    Rollouts,
    advantages,
    mask_overlong,
    mask_zero_variance,
    merge_steps,
    pack,
    pad,
    rollout_metrics,
    spread_rewards,
)
from rollkit._rollouts.columns import level_of
from rollkit._rollouts.sources import Sources, as_rollouts


def level(name: str, rows: list[int] | None, levels: dict[str, str] | None = None) -> str:
    """Of a column whose rows have these lengths, where prompts have 2 and 1 tokens, responses 1 and 3."""
    lengths = None if rows is None else np.array(rows)
    return level_of(name, lengths, np.array([2, 1]), np.array([1, 3]), levels)


@pytest.mark.parametrize(
    ("name", "rows", "levels", "wanted"),
    [
        ("x", [1, 3], None, "response"),
        ("x", [3, 4], None, "sequence"),
        ("x", None, None, "row"),
        ("prompt_x", [2, 1], None, "prompt"),
        ("prompt_x", None, None, "row"),
        ("prompt_x", [1, 3], {"prompt_x": "response"}, "response"),
        ("x", [2, 1], {"x": "prompt"}, "prompt"),
        ("x", [9, 9], {"x": "row"}, "row"),
        ("loss_masks", [1, 3], None, "response"),
        ("loss_masks", [3, 4], {"loss_masks": "sequence"}, "sequence"),
        ("rewards", [1, 3], None, "response"),
        ("rewards", None, None, "row"),
        ("is_last_step", None, None, "row"),
        ("rollout_expert_indices", [2, 4], None, "sequence"),
        ("rollout_expert_indices", [1, 3], {"rollout_expert_indices": "response"}, "response"),
    ],
)
def test_levels(name: str, rows: list[int] | None, levels: Any, wanted: str) -> None:
    assert level(name, rows, levels) == wanted


REFUSED: list[tuple[Any, str]] = [
    (
        lambda: level("x", [2, 1]),
        "column 'x': its rows are as long as the prompts; if that is meant, pass levels={'x': \"prompt\"}",
    ),
    (
        lambda: level("prompt_x", [2, 3]),
        "column 'prompt_x': row 1 has 3 elements; its prompt has 1 tokens, its response 3; by its name it is "
        "per prompt token; levels={'prompt_x': \"response\"} says otherwise",
    ),
    (
        lambda: level("x", [1, 3], {"x": "prompt"}),
        "column 'x': row 0 has 1 elements; its prompt has 2 tokens, its response 1; levels has it per prompt "
        "token",
    ),
    (
        lambda: level("x", None, {"x": "prompt"}),
        "column 'x': levels has it per prompt token, got one entry per row",
    ),
    (
        lambda: level("loss_masks", None),
        "column 'loss_masks': expected an element per token, got one per row",
    ),
    (
        lambda: level("is_last_step", [1, 1]),
        "column 'is_last_step': expected one entry per row, got rows of elements",
    ),
    (
        lambda: pad({"response_ids": [[1]], "x": [[1]]}, levels={"x": "token"}),
        "levels['x'] must be one of 'prompt', 'response', 'sequence', 'row', 'prompt[]', 'response[]', "
        "'sequence[]', 'row[]', got 'token'",
    ),
    (
        lambda: pack({"response_ids": [[1]], "x": [[1]]}, 8, levels={"y": "prompt"}),
        "levels has 'y', which is no column; there are 'response_ids', 'x'",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_levels_that_are_refused(call: Any, message: str) -> None:
    check_refusal(call, ValueError, message)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=6), st.data())
def test_a_level_does_not_depend_on_which_rows_are_there(
    sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Some of the rows are of the level of all, or, without prompts, of one that is the same there."""
    prompt, response = np.array(sizes).T
    name = data.draw(st.sampled_from(["x", "prompt_x", "loss_masks", "rollout_expert_indices"]))
    lengths = {"x": prompt + response, "prompt_x": prompt, "loss_masks": response}.get(
        name, prompt + response
    )
    whole = level_of(name, lengths, prompt, response)
    some = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, unique=True))
    part = level_of(name, lengths[some], prompt[some], response[some])
    assert part == whole or not prompt[some].any()


COLUMNS: dict[str, Any] = {
    "prompt_token_ids": [[1, 2]],
    "response_ids": [[5, 6]],
    "prompt_mask": [[1, 1]],
    "other": [[7, 8]],
    "sizes": [[1, 2, 3]],
}


def test_batches_place_columns_by_their_level() -> None:
    levels = {"other": "prompt", "sizes": "row"}
    for batch in (pad(COLUMNS, levels=levels), pack(COLUMNS, 4, levels=levels)):
        assert batch["prompt_mask"].tolist() == [[1, 1, 0, 0]]
        assert batch["other"].tolist() == [[7, 8, 0, 0]]
        assert [list(row) for row in batch.rows["sizes"]] == [[1, 2, 3]]
    without = {name: column for name, column in COLUMNS.items() if name != "sizes"}
    assert pad(without)["other"].tolist() == [[0, 0, 7, 8]]


def test_merging_takes_levels() -> None:
    steps = {
        "prompt_token_ids": [[1, 2], [1, 2, 3, 8]],
        "response_ids": [[3], [4]],
        "is_last_step": [False, True],
        "flags": [[5, 6], [5, 6, 7, 8]],
        "prompt_flags": [[5, 6], [5, 6, 7, 8]],
    }
    merged = merge_steps(steps, levels={"flags": "prompt"})
    assert merged["flags"].to_list() == merged["prompt_flags"].to_list() == [[5, 6]]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"pass levels=\{'flags': \"prompt\"\}"):
        merge_steps(steps)


# The intake.

ROWS: dict[str, Any] = {
    "prompt_token_ids": [[1], [2], [3], [4]],
    "response_ids": [[5, 6], [7], [8], [9]],
    "loss_masks": [[1, 1], [1], [1], [1]],
    "rewards": [1.0, 0.0, 1.0, 1.0],
    "stop_reasons": ["stop", "length", "stop", "stop"],
    "instance_ids": ["a", "a", "b", "b"],
    "trajectory_ids": ["0", "1", "2", "3"],
}
IDS = np.array([0, 0, 1, 1])
FUNCTIONS: dict[str, Any] = {
    "pad": lambda rows: dict(pad(rows).arrays),
    "pack": lambda rows: dict(pack(rows, 8).arrays),
    "merge_steps": merge_steps,
    "mask_overlong": mask_overlong,
    "mask_zero_variance": mask_zero_variance,
    "mask_zero_variance by": lambda rows: mask_zero_variance(rows, by=IDS),
    "spread_rewards": spread_rewards,
    "advantages": advantages,
    "advantages by": lambda rows: advantages(rows, by=IDS),
    "advantages by a list": lambda rows: advantages(rows, by=IDS.tolist()),
    "rollout_metrics": rollout_metrics,
}


def comparable(found: Any) -> Any:
    if isinstance(found, Ragged):
        return found.to_list()
    if isinstance(found, Rollouts):
        return {name: comparable(column) for name, column in found.items()}
    if isinstance(found, dict):
        return {name: comparable(column) for name, column in found.items()}
    return found.tolist() if isinstance(found, np.ndarray) else found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_takes_every_kind_of_rollouts(name: str) -> None:
    call = FUNCTIONS[name]
    wanted = comparable(call(ROWS))
    first = {key: column[:1] for key, column in ROWS.items()}
    second = {key: column[1:] for key, column in ROWS.items()}
    kinds: list[Any] = [
        Rollouts(ROWS),
        [ROWS],
        [first, second],
        (Rollouts(first), second),
        [first, Rollouts(second)],
        {**ROWS, "response_ids": deque(ROWS["response_ids"]), "rewards": (x for x in ROWS["rewards"])},
        {**ROWS, "rollout_metrics": {"a": 1}, "note": "text", "none": None, "seed": 3},
    ]
    for rows in kinds:
        assert comparable(call(rows)) == wanted


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_takes_arrow(name: str) -> None:
    pa = pytest.importorskip("pyarrow")
    call = FUNCTIONS[name]
    wanted = comparable(call(ROWS))
    table = pa.table(ROWS)
    for rows in (table, table.to_batches()[0], [table.slice(0, 1), table.slice(1)]):
        assert comparable(call(rows)) == wanted
    column_wise = {**ROWS, "response_ids": table.column("response_ids"), "rewards": pa.array(ROWS["rewards"])}
    assert comparable(call(column_wise)) == wanted
    if name in ("pad", "advantages"):  # read once, so that there is one call of it
        assert comparable(call(table.to_reader())) == wanted


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("column", ["instance_ids", "trajectory_ids", "unknown"])
def test_every_function_refuses_another_row_count(name: str, column: str) -> None:
    shorts: list[Any] = [["a", "b", "c"], deque("abc"), np.zeros(3), (x for x in "abc"), []]
    for count, short in zip([3, 3, 3, 3, 0], shorts, strict=True):
        with pytest.raises(
            ValueError, match=f"^column '{column}' has {count} rows, 'response_ids' has 4$"
        ) as found:
            FUNCTIONS[name]({**ROWS, column: short})
        assert found.value.column == column  # type: ignore[attr-defined]


def test_by_of_another_row_count_is_refused() -> None:
    for call in (advantages, mask_zero_variance):
        with pytest.raises(ValueError, match=r"^by has 3 ids, there are 4 rows$"):
            call(ROWS, by=[1, 2, 3])


def test_sources_differ_in_columns() -> None:
    parts: list[Any] = [{"response_ids": [[1]]}, {"response_ids": [[1]], "x": [1]}]
    message = "rollouts[1] and rollouts[0] differ in columns: 'x'"
    check_refusal(lambda: as_rollouts(parts), ValueError, message)
    check_refusal(lambda: Sources.of(parts), ValueError, message)


def test_time_splits_of_several_dicts_count_through() -> None:
    parts = [
        {"response_ids": [[1]], "rewards": [1.0], "trajectory_time_splits": {"llm": [1.0]}},
        {"response_ids": [[1]], "rewards": [1.0], "trajectory_time_splits": {"llm": [3.0]}},
    ]
    assert rollout_metrics(parts)["generate/trajectory_time_llm_mean"] == 2.0


def test_a_column_with_a_gradient_that_is_needed_on_the_host_is_named() -> None:
    torch = pytest.importorskip("torch")
    rollouts = {
        "response_ids": [[1], [2, 3]],
        "loss_masks": [[1], [1, 1]],
        "rewards": torch.ones(2).requires_grad_(),
    }
    for use in (Rollouts, spread_rewards, rollout_metrics, lambda found: pack(found, capacity=4)):
        with pytest.raises(TypeError, match=r"^column 'rewards': .*pass \.detach\(\)"):
            use(rollouts)


def test_levels_that_are_no_dict_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^levels must be a dict by name, got str$"):
        pack({"response_ids": [[1]]}, capacity=4, levels="row")  # type: ignore[arg-type]


def test_rows_with_a_gradient_are_a_column_of_any_name() -> None:
    torch = pytest.importorskip("torch")
    rows = [torch.tensor([1.0], requires_grad=True), torch.tensor([2.0, 3.0], requires_grad=True)]
    batch = pad({"response_ids": [[1], [2, 3]], "scores": rows})
    (batch["scores"] ** 2).sum().backward()
    assert [row.grad.tolist() for row in rows] == [[2.0], [4.0, 6.0]]
