"""Lines of a batch as batches, rows picked by number, a fixed number of bins."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollkit import Batch, Layout, Ragged, Rollouts, pack, pad, take
from rollkit.testing import rollout_rows

Rows = list[dict[str, Any]]


def same(a: Batch, b: Batch) -> None:
    assert list(a) == list(b)
    for name, array in a.items():
        assert array.dtype == b[name].dtype
        np.testing.assert_array_equal(array, b[name], err_msg=name)
    assert a.layout.equals(b.layout)
    assert a.prompt_lengths.tolist() == b.prompt_lengths.tolist()
    assert Rollouts(a.rows).equals(Rollouts(b.rows))


def tokens(row: dict[str, Any]) -> list[int]:
    return [*row["prompt_token_ids"], *row["response_ids"]]


@given(rollout_rows(), st.data())
def test_lines_of_a_batch(rows: Rows, data: st.DataObject) -> None:
    longest = max(1, *(len(tokens(row)) for row in rows))
    batch = pack(Rollouts.from_rows(rows), longest + data.draw(st.integers(0, 9)))
    lines = batch.layout.shape[0]
    begin = data.draw(st.integers(0, lines))
    end = data.draw(st.integers(0, lines))
    part = batch[begin:end]
    assert part.layout.shape == (max(0, end - begin), batch.layout.width)
    for name, array in batch.items():
        np.testing.assert_array_equal(part[name], array[begin:end])
        assert part[name].size == 0 or np.shares_memory(part[name], array)
    wanted = [
        row
        for row, start in zip(rows, batch.layout.starts.tolist(), strict=True)
        if begin <= start // batch.layout.width < end
    ]
    assert part.num_rows == len(wanted)
    assert part.unpack("input_ids").to_list() == [tokens(row) for row in wanted]
    assert take(part["input_ids"], part.responses).to_list() == [row["response_ids"] for row in wanted]
    assert list(part.rows["stop_reasons"]) == [row["stop_reasons"] for row in wanted]


@given(rollout_rows(), st.integers(1, 4))
def test_split_is_all_of_it(rows: Rows, parts: int) -> None:
    batch = pad(Rollouts.from_rows(rows))
    lines = batch.layout.shape[0]
    if parts > lines:
        with pytest.raises(ValueError, match=f"parts is {parts}, the batch has {lines} lines"):
            batch.split(parts)
        return
    found = batch.split(parts)
    sizes = [part.layout.shape[0] for part in found]
    assert len(found) == parts
    assert sum(sizes) == lines
    assert max(sizes) - min(sizes) <= 1
    for name, array in batch.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in found]), array)
    unpacked = [row for part in found for row in part.unpack("input_ids").to_list()]
    assert unpacked == [tokens(row) for row in rows]


@given(rollout_rows(max_rows=9), st.booleans(), st.data())
def test_rows_by_number(whole: Rows, as_lists: bool, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(1, len(whole)), max_size=2)))
    parts = [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)]) if a < b]
    count = len(whole)
    numbers = data.draw(st.lists(st.integers(-count, count - 1), max_size=6))
    chosen: Any = Rollouts.from_rows(whole).take(numbers)
    if as_lists:
        sources: Any = [{name: [row[name] for row in rows] for name in rows[0]} for rows in parts]
    else:
        sources = [Rollouts.from_rows(rows) for rows in parts]
    capacity = max(1, *(len(tokens(row)) for row in whole))
    if not numbers:
        assert pack(sources, capacity, rows=[]).num_rows == 0
        return
    same(pack(sources, capacity, rows=numbers), pack(chosen, capacity))
    same(pad(sources, rows=numbers), pad(chosen))
    layout = Layout.concat(pack(chosen, capacity).layout.row_lengths)
    same(pack(sources, layout=layout, rows=numbers), pack(chosen, layout=layout))


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_rows_by_number_through_a_gradient(framework: str) -> None:
    rng = np.random.default_rng(0)
    parts, ids = [], []
    for count in (3, 2):
        lengths = rng.integers(1, 5, count)
        ids += [rng.integers(0, 9, n).tolist() for n in lengths]
        parts.append({"response_ids": ids[-count:], "advantages": [rng.normal(size=n) for n in lengths]})
    numbers = [4, 0, 3, 3]
    wanted = pack(parts, 8, rows=numbers, dtypes={"advantages": np.float32})
    if framework == "torch":
        import torch

        leaves: list[Any] = [
            torch.tensor(x, dtype=torch.float32, requires_grad=True) for p in parts for x in p["advantages"]
        ]
        given_parts = [{**parts[0], "advantages": leaves[:3]}, {**parts[1], "advantages": leaves[3:]}]
        found = pack(given_parts, 8, rows=numbers)["advantages"]
        np.testing.assert_allclose(found.detach().numpy(), wanted["advantages"])
        found.sum().backward()
        counts = [float(leaf.grad.max()) for leaf in leaves]
        assert counts == [1.0, 0.0, 0.0, 2.0, 1.0]
    else:
        import jax

        values = [np.asarray(x, np.float32) for p in parts for x in p["advantages"]]

        def total(arrays: Any) -> Any:
            given_parts = [{**parts[0], "advantages": arrays[:3]}, {**parts[1], "advantages": arrays[3:]}]
            return pack(given_parts, 8, rows=numbers)["advantages"].sum()

        slopes = jax.grad(total)([jax.numpy.asarray(value) for value in values])
        assert [float(slope.max()) for slope in slopes] == [1.0, 0.0, 0.0, 2.0, 1.0]


def test_rows_that_are_not_there() -> None:
    parts = [{"response_ids": [[1], [2]]}, {"response_ids": [[3]]}]
    with pytest.raises(IndexError, match="row 3 is out of range: there are 3 rows"):
        pack(parts, 4, rows=[0, 3])
    with pytest.raises(TypeError, match="rows must hold integers"):
        pack(parts, 4, rows=[0.5])
    with pytest.raises(ValueError, match=r"row 0 has 1 tokens .* the layout has 2"):
        pack(parts, layout=Layout.concat([2]), rows=[2])
    with pytest.raises(ValueError, match="'loss_masks' has 1, 'response_ids' has 2"):
        pack({"response_ids": [[1], [2]], "loss_masks": [[1]]}, 4, rows=[0])


@given(st.lists(st.integers(0, 6), max_size=8), st.integers(1, 9))
def test_a_fixed_number_of_bins(lengths: list[int], bins: int) -> None:
    plain = Layout.pack(lengths, 6)
    if plain.shape[0] > bins:
        with pytest.raises(ValueError, match=f"bins is {bins}, the rows take {plain.shape[0]} of 6"):
            Layout.pack(lengths, 6, bins=bins)
        return
    layout = Layout.pack(lengths, 6, bins=bins)
    assert layout.shape == (bins, 6)
    np.testing.assert_array_equal(layout.segment_ids()[: plain.shape[0]], plain.segment_ids())
    assert not layout.segment_ids()[plain.shape[0] :].any()
    assert layout.lengths.tolist() == lengths


def test_bins_or_a_multiple() -> None:
    with pytest.raises(TypeError, match="bins or bins_multiple_of, not both"):
        Layout.pack([1], 2, bins=4, bins_multiple_of=2)
    assert pack({"response_ids": [[1]]}, 2, bins=3)["input_ids"].shape == (3, 2)


def test_lists_of_several_parts() -> None:
    """Small parts are joined before they are placed: lists per token have no array to join."""
    masks = [[[5, 9], [6]], [], [[7, 8, 1]], [[]]]
    rollouts = Rollouts({"response_ids": [[1, 2], [], [3], [4]], "sampling_masks": masks})
    whole = pack(rollouts, 4)["sampling_masks"]
    for parts in ([rollouts[:1], rollouts[1:]], [rollouts[i : i + 1] for i in range(4)]):
        found = pack(parts, 4)["sampling_masks"]
        np.testing.assert_array_equal(found.values, whole.values)
        np.testing.assert_array_equal(found.offsets, whole.offsets)


def test_names_and_leaves_of_any_kind() -> None:
    batch = pack(Rollouts({"response_ids": [[1, 2]]}), 4)
    with pytest.raises(TypeError, match="names of arrays are texts, got 3, int"):
        batch | {3: batch["input_ids"]}
    assert "input_ids NoneType" in repr(Batch(dict.fromkeys(batch), batch.layout, batch.prompt_lengths))
    assert repr(Batch({"x": batch["input_ids"]})) == "Batch(no layout: x int32)"


def test_lines_of_traced_lists() -> None:
    jax = pytest.importorskip("jax")
    masks = [[[5, 9], [6]]]
    batch = pack(Rollouts({"response_ids": [[1, 2]], "sampling_masks": masks}), 4).to("jax")
    with pytest.raises(TypeError, match="a list per token is moved by its offsets"):
        jax.jit(lambda batch: batch[0:1]["input_ids"])(batch)


def test_of_another_byte_order() -> None:
    x = Ragged(np.array([1, 2], ">i8"), np.array([0, 2]))
    batch = pack({"response_ids": [[1, 2]], "x": x}, 2) | {"y": np.array([[0.5, 1.5]], ">f8")}
    for framework in ("torch", "jax"):
        pytest.importorskip(framework)
        moved = batch.to(framework)
        assert moved["x"].tolist() == [[1, 2]]
        assert moved["y"].tolist() == [[0.5, 1.5]]


def test_without_a_layout() -> None:
    batch = Batch(dict(pack({"response_ids": [[1]]}, 2)))
    for name in ("num_rows", "responses", "layout"):
        with pytest.raises(
            AttributeError, match=r"this batch has no (layout|num_rows|responses): it was made"
        ):
            getattr(batch, name)


def test_a_layout_has_its_bins() -> None:
    with pytest.raises(TypeError, match="pack takes bins or a layout, not both"):
        pack({"response_ids": [[1]]}, layout=Layout.pack([1], 2), bins=3)
