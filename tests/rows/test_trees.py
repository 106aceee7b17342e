"""Forests beside a dictionary of prefixes, and their layouts beside every ancestor of every token."""

# mypy: disable-error-code="arg-type, no-untyped-call, unused-ignore"

from __future__ import annotations

import copy
import pickle
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.thorough import by_level

from rollkit import Forest, Layout, Ragged, TreeLayout, place, take
from rollkit._rows.no_segments import NoSegments
from rollkit.testing import (
    forest_rows,
    layouts,
    shared_reference,
    tree_mask_reference,
    visible_reference,
)


def random_rows(rng: np.random.Generator) -> list[list[int]]:
    """Equal rows, empty ones, ones that others begin with, and of one token."""
    rows: list[list[int]] = []
    for _ in range(int(rng.integers(1, 14))):
        before = rows[rng.integers(len(rows))] if rows and rng.random() < 0.8 else []
        kept = int(rng.integers(0, len(before) + 1))
        rows.append([*before[:kept], *rng.integers(0, 3, int(rng.integers(0, 6))).tolist()])
    return rows


def tokens_of(forest: Forest) -> list[list[tuple[int, int]]]:
    """The node, and the element of it, that each token of each row is."""
    found = []
    for leaf in forest.leaf.tolist():
        path: list[tuple[int, int]] = []
        node = leaf
        while node >= 0:
            begin, end = int(forest.begins[node]), int(forest.ends[node])
            path = [(node, depth) for depth in range(begin, end)] + path
            node = int(forest.parents[node])
        found.append(path)
    return found


def check_forest(forest: Forest, rows: list[list[int]], shared: list[list[int]]) -> None:
    """Rows share what they are to share, and nodes are as `Forest` says."""
    paths = tokens_of(forest)
    names = [
        (node, token)
        for path, row in zip(paths, shared, strict=True)
        for node, token in zip(path, row, strict=True)
    ]
    assert len(set(names)) == len({node for node, _ in names}) == len({token for _, token in names})
    assert forest.unique == len(set(names))
    assert forest.row_lengths.tolist() == [len(row) for row in rows]
    first: dict[int, int] = {}
    for row, path in enumerate(paths):
        for node, _ in path:
            first.setdefault(node, row)
    assert forest.source_rows.tolist() == [first[node] for node in range(forest.nodes)]
    children = [(int(parent), first[node]) for node, parent in enumerate(forest.parents.tolist())]
    for parent in set(forest.parents.tolist()):
        mine = [row for above, row in children if above == parent]
        assert mine == sorted(set(mine)), "children in the order of their first rows"
    # No node that could be longer: it branches, or rows end with it, or its row is the only one of its kind.
    ends = set(forest.leaf.tolist())
    assert all(node in ends or forest.parents.tolist().count(node) > 1 for node in range(forest.nodes))
    # Checked again, depth first.
    Forest(forest.parents, forest.begins, forest.ends, forest.source_rows, forest.leaf)


def check_layout(
    layout: TreeLayout, rows: list[list[int]], placed: list[int], shared: list[list[int]]
) -> None:
    """Each row is whole in one bin, attends to itself alone, and shares what it can there."""
    flat = Ragged.from_rows(rows, np.int32)
    array = place(flat, layout, fill=-7)
    back = take(array, layout)
    assert back.to_list() == [row[:n] for row, n in zip(rows, placed, strict=True)]
    assert (np.asarray(array)[layout.attention_mask() == 0] == -7).all()
    assert take(layout.positions(), layout).to_list() == [list(range(n)) for n in placed]
    indices, offsets = layout.gather_indices(), layout.row_offsets()
    paths = [indices[a:b].tolist() for a, b in pairwise(offsets)]
    bins = layout.row_bins.tolist()
    cells = set()
    for path, tokens, number in zip(paths, shared, bins, strict=True):
        assert {cell // layout.width for cell in path} <= {number}
        cells |= {(cell, number, token) for cell, token in zip(path, tokens, strict=False)}
    assert len(cells) == len({cell for cell, _, _ in cells}) == len({pair[1:] for pair in cells})
    assert layout.num_placed == len(cells)
    mask = tree_mask_reference(layout)
    np.testing.assert_array_equal(visible_reference(layout), mask)
    before = layout.predecessors().reshape(-1)
    rows_at = np.zeros(layout.size, int)
    for path in paths:
        rows_at[path] += 1
        assert before[path[1:]].tolist() == path[:-1]
        assert not path or before[path[0]] == -1
    assert layout.multiplicity().reshape(-1).tolist() == rows_at.tolist()
    own = (rows_at > 0) * (3 + 2 * (2 * layout.positions().reshape(-1) + 1))  # a token at p attends to p more
    assert layout.costs((3, 2)).tolist() == own.reshape(layout.shape).sum(1).tolist()
    assert layout.costs().tolist() == (rows_at > 0).reshape(layout.shape).sum(1).tolist()
    assert (before[rows_at == 0] == -1).all()
    trees = layout.segment_ids()
    together = (mask | mask.T).reshape(layout.size, layout.size)
    numbers = trees.reshape(-1)
    assert (numbers > 0).tolist() == (rows_at > 0).tolist()
    queries, keys = np.nonzero(together)
    assert (numbers[queries] == numbers[keys]).all()
    for line in trees:
        assert (np.diff(line[line > 0]) >= 0).all()
        assert set(line[line > 0].tolist()) == set(range(1, int(line.max(initial=0)) + 1))
    # Checked again, by what a TreeLayout made from outside is asked.
    assert TreeLayout(layout.nodes, layout.parents, layout.leaf).equals(layout)
    assert pickle.loads(pickle.dumps(layout)).equals(layout)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int8", ">i4", "float64", "bool", "str"])
def test_groups_are_those_of_their_entries_whatever_holds_them(dtype: str) -> None:
    rows = [[1, 2], [1, 3], [1, 2], [1], [1, 2]]
    numbers = [0, 1, 0, 1, 1]
    if dtype == "uint64":
        numbers = [2**64 - 1 - number for number in numbers]
    wanted = Forest.build(rows, groups=["ab"[number % 2] for number in numbers])
    array = np.array(numbers, dtype)
    for groups in (array, np.repeat(array, 2)[::2], array.tolist()):
        found = Forest.build(rows, groups=groups)
        assert found.leaf.tolist() == wanted.leaf.tolist()
        assert found.unique == wanted.unique == 5


def check_all(rng: np.random.Generator) -> None:
    rows = random_rows(rng)
    groups = rng.integers(0, 2, len(rows)).tolist() if rng.random() < 0.3 else None
    match = []
    if rng.random() < 0.3:
        match = [[(np.arange(len(row)) // 3 + rng.integers(0, 2)).tolist() for row in rows]]
    least = int(rng.choice([1, 1, 1, 2, 3]))
    columns = [Ragged.from_rows(column, np.int64) for column in match]
    forest = Forest.build(Ragged.from_rows(rows, np.int32), groups=groups, match=columns, min_shared=least)
    shared = shared_reference(rows, groups, match, least)
    check_forest(forest, rows, shared)

    longest = max(map(len, rows))
    capacity = max(1, longest + int(rng.integers(-2, 6)))
    align = int(rng.choice([1, 1, 1, 4]))
    most = [None, 1, 2][int(rng.choice(3, p=[0.7, 0.15, 0.15]))]
    oversize = str(rng.choice(["truncate", "alone", "drop"])) if longest > capacity else "raise"
    multiple = int(rng.choice([1, 1, 3]))
    layout = forest.pack(
        capacity, align=align, max_segments=most, oversize=oversize, bins_multiple_of=multiple
    )
    placed = [
        {"truncate": capacity, "drop": 0}.get(oversize, len(row)) if len(row) > capacity else len(row)
        for row in rows
    ]
    check_layout(layout, rows, placed, shared)
    bins, width = layout.shape
    assert bins % multiple == 0
    assert width == (longest if oversize == "alone" else capacity)
    if oversize == "raise":
        least_bins, least_tokens = forest.lower_bound(capacity)
        assert bins >= least_bins
        assert layout.num_placed >= least_tokens
    if most is not None:
        assert layout.segment_ids().max(initial=0) <= most
    roots = layout.nodes.starts[layout.parents == -1]
    assert (roots % width % align == 0).all()
    chosen = rng.permutation(bins)[: int(rng.integers(0, bins + 1))]
    some = layout.bins(chosen)
    kept = layout.rows_of(chosen)
    mine = [placed[row] for row in kept]
    check_layout(some, [rows[row] for row in kept], mine, [shared[row] for row in kept])
    np.testing.assert_array_equal(some.positions(), layout.positions()[chosen])
    np.testing.assert_array_equal(some.visible_until(), layout.visible_until()[chosen])


@pytest.mark.parametrize("seed", range(by_level(20, 100, 1000)))
def test_a_forest_is_that_of_a_dictionary_of_prefixes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(by_level(20, 100, 100)):
        check_all(rng)


@given(forest_rows(), st.integers(1, 3))
def test_hypothesis_finds_no_other(rows: list[list[int]], least: int) -> None:
    forest = Forest.build(Ragged.from_rows(rows, np.int16), min_shared=least)
    shared = shared_reference(rows, min_shared=least)
    check_forest(forest, rows, shared)
    layout = forest.pack(max([1, *map(len, rows)]))
    check_layout(layout, rows, list(map(len, rows)), shared)


def test_bins_are_taken_in_any_order_and_twice() -> None:
    rows = [[1, 2, 3], [4], [1, 2, 5], [6, 7], [], [1, 2, 3]]
    layout = Forest.build(rows).pack(4, bins_multiple_of=4)
    chosen = np.array([2, 0, 3, 2])
    numbers, found = layout.laid(chosen)
    assert numbers.tolist() == [row for one in chosen for row in layout.rows_of([one])]
    flat = [rows[row] for row in numbers]
    array = place(Ragged.from_rows(flat, np.int32), found, fill=-7)
    np.testing.assert_array_equal(array, place(Ragged.from_rows(rows, np.int32), layout, fill=-7)[chosen])
    assert take(array, found).to_list() == flat
    assert TreeLayout(found.nodes, found.parents, found.leaf).equals(found)
    for name in ("positions", "segment_ids", "visible_until", "multiplicity"):
        np.testing.assert_array_equal(getattr(found, name)(), getattr(layout, name)()[chosen])
    assert layout.bins([]).shape == (0, 4)
    assert layout.rows_of([]).tolist() == []


def test_what_is_of_segments_is_refused_by_name() -> None:
    """So that `batch.layout`, which may be either, is typed as a `Layout`."""
    names = {
        name
        for name, found in vars_of(Layout).items()
        if name[0] != "_" and not isinstance(found, classmethod)
    } | {field.name for field in fields(Layout)}
    assert set(NoSegments.__annotations__) == names - set(dir(TreeLayout)) - {"shape", "row_lengths"}
    for name in (*NoSegments.__annotations__, "other"):
        assert not hasattr(some_layout(), name)
    assert copy.deepcopy(some_layout()).equals(some_layout())


def vars_of(kind: type) -> dict[str, Any]:
    return {name: found for base in reversed(kind.__mro__) for name, found in vars(base).items()}


@given(layouts())
def test_ordinary_layouts_see_their_segments(layout: Layout) -> None:
    found = layout.visible_until().reshape(-1)
    width = max(layout.width, 1)
    wanted = np.arange(layout.size) % width
    for start, length in zip(layout.starts.tolist(), layout.lengths.tolist(), strict=True):
        if start >= 0:
            wanted[start : start + length] = start % width + length
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == np.int32


def some_layout() -> TreeLayout:
    return Forest.build([[5, 6, 7], [5, 6, 8, 9], [5, 6], [4], []]).pack(6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.bool_, np.uint8])
def test_sums_are_those_of_a_loop(dtype: Any) -> None:
    layout = some_layout()
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 2, (n, 3)).astype(dtype) for n in layout.row_lengths.tolist()]
    wanted = np.zeros((layout.size, 3), np.float64)
    offsets, indices = layout.row_offsets(), layout.gather_indices()
    for row, begin, end in zip(rows, offsets[:-1], offsets[1:], strict=True):
        for cell, value in zip(indices[begin:end], row, strict=True):
            wanted[cell] += value
    got = layout.reduce(Ragged.from_rows(rows), "sum")
    assert got.dtype == (dtype if np.issubdtype(dtype, np.floating) else np.int64)
    np.testing.assert_array_equal(got, wanted.reshape(*layout.shape, 3))


def test_sums_of_truncated_rows_are_of_what_is_there() -> None:
    layout = Forest.build([[1, 2, 3, 4], [1, 2, 5]]).pack(3, oversize="truncate")
    got = layout.reduce([[1, 1, 1, 100], [1, 1, 1]], "sum")
    assert got.sum() == 6


def test_what_rows_agree_in_is_placed_and_the_first_that_differs_named() -> None:
    layout = some_layout()
    alike = [[np.nan, 1.5, 7], [np.nan, 1.5, 8, 9], [np.nan, 1.5], [4], []]
    np.testing.assert_array_equal(layout.reduce(alike, "equal"), place(alike, layout))
    with pytest.raises(ValueError, match="row 2, position 1 differs from what another row has") as caught:
        layout.reduce([[0, 1, 7], [0, 1, 8, 9], [0, 2], [4], []], "equal")
    assert (caught.value.row, caught.value.position) == (2, 1)  # type: ignore[attr-defined]


def test_edges_are_of_any_row_that_counts_its_token() -> None:
    layout = some_layout()
    masks = [[0, 0, 1], [0, 1, 0, 1], [0, 0], [1], []]
    before, tokens = layout.edges(Ragged.from_rows(masks, np.uint8))
    wanted = {
        (path[i - 1], path[i])
        for row, mask in enumerate(masks)
        for path in [
            layout.gather_indices()[layout.row_offsets()[row] : layout.row_offsets()[row + 1]].tolist()
        ]
        for i in range(1, len(path))
        if mask[i]
    }
    assert list(zip(before.tolist(), tokens.tolist(), strict=True)) == sorted(
        wanted, key=lambda edge: edge[1]
    )
    everywhere = layout.edges()
    assert (layout.predecessors().reshape(-1)[everywhere[1]] == everywhere[0]).all()


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_gradients_of_shared_tokens_add_up(framework: str) -> None:
    layout = some_layout()
    rng = np.random.default_rng(1)
    weights = rng.normal(size=int(layout.row_lengths.sum()))
    array = rng.normal(size=layout.shape)
    wanted = np.zeros(layout.size)
    np.add.at(wanted, layout.gather_indices(), weights)
    if framework == "torch":
        torch = pytest.importorskip("torch")
        given_array = torch.tensor(array, requires_grad=True)
        rows = take(given_array, layout)
        (rows.values * torch.tensor(weights)).sum().backward()
        got = given_array.grad.numpy()
    else:
        jax = pytest.importorskip("jax")
        with jax.enable_x64(True):
            loss = lambda x: (take(x, layout).values * weights).sum()  # noqa: E731
            got = np.asarray(jax.grad(loss)(jax.numpy.asarray(array)))
    np.testing.assert_allclose(got.reshape(-1), wanted, rtol=1e-12)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_rows_go_into_the_tree_with_their_gradient(framework: str) -> None:
    layout = some_layout()
    values = np.random.default_rng(2).normal(size=int(layout.row_lengths.sum())).astype(np.float32)
    offsets = np.append(0, np.cumsum(layout.row_lengths))
    sums = layout.reduce(Ragged(values, offsets), "sum")
    first = place(Ragged(values, offsets), layout)
    if framework == "torch":
        torch = pytest.importorskip("torch")
        given_values = torch.tensor(values, requires_grad=True)
        summed = layout.reduce(Ragged(given_values, offsets), "sum")
        placed = place(Ragged(given_values, offsets), layout)
        (summed * torch.arange(layout.size).reshape(layout.shape)).sum().backward()
        gradient = given_values.grad.numpy()
        summed, placed = summed.detach().numpy(), placed.detach().numpy()
    else:
        jax = pytest.importorskip("jax")

        def loss(x: Any) -> Any:
            found = layout.reduce(Ragged(x, offsets), "sum")
            return (found * np.arange(layout.size).reshape(layout.shape)).sum()

        gradient = np.asarray(jax.grad(loss)(jax.numpy.asarray(values)))
        summed = jax.jit(lambda x: layout.reduce(Ragged(x, offsets), "sum"))(jax.numpy.asarray(values))
        placed = jax.jit(lambda x: place(Ragged(x, offsets), layout))(jax.numpy.asarray(values))
    np.testing.assert_allclose(np.asarray(summed), sums, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(placed), first)
    np.testing.assert_array_equal(gradient, layout.gather_indices().astype(np.float32))


def test_lists_per_token_are_those_of_the_first_row() -> None:
    layout = Forest.build([[5, 6], [5, 7]]).pack(3)
    rows = Ragged.from_rows([[[1], [2, 3]], [[9], []]], lists=True)
    lists = place(rows, layout)
    assert take(lists, layout).to_list() == [[[1], [2, 3]], [[1], []]]


def test_deep_chains_take_no_stack() -> None:
    count = 1_000_000
    parents, ends = np.arange(-1, count - 1), np.arange(1, count + 1)
    leaf = np.array([count - 1, count // 2])
    forest = Forest(parents, ends - 1, ends, np.zeros(count, np.int64), leaf)
    assert forest.lower_bound(count) == (1, count)
    layout = forest.pack(count)
    assert layout.shape == (1, count)
    assert layout.row_offsets().tolist() == [0, count, count + count // 2 + 1]
    assert (layout.visible_until() == count).all()
    cut = forest.pack(10, oversize="truncate")
    assert cut.shape == (1, 10)
    assert cut.row_offsets().tolist() == [0, 10, 20]


def test_rows_are_compared_in_two_halves() -> None:
    rng = np.random.default_rng(3)
    for _ in range(by_level(100, 1000)):
        rows = random_rows(rng)
        cuts = [int(rng.integers(0, len(row) + 1)) for row in rows]
        rollouts = {
            "prompt_token_ids": [row[:cut] for row, cut in zip(rows, cuts, strict=True)],
            "response_ids": [row[cut:] for row, cut in zip(rows, cuts, strict=True)],
        }
        assert Forest.build(rollouts).equals(Forest.build(Ragged.from_rows(rows, np.int32)))


def test_routes_that_lack_the_last_token_match_only_their_like() -> None:
    rows = [[1, 2, 3], [1, 2, 3], [1, 2, 3, 4]]
    routes = Ragged.from_rows([np.full((n, 2, 1), 7, np.uint8) for n in (2, 2, 4)])
    forest = Forest.build(rows, match=[routes])
    check_forest(forest, rows, shared_reference(rows, match=[[[7] * n for n in (2, 2, 4)]]))
    rollouts = {
        "prompt_token_ids": [row[:1] for row in rows],
        "response_ids": [row[1:] for row in rows],
        "rollout_expert_indices": routes,
        "instance_ids": ["a", "a", "b"],
    }
    assert Forest.build(rollouts, match="rollout_expert_indices").equals(forest)
    assert Forest.build(rollouts, groups="instance_ids").unique == 7


def test_empty_rows_have_a_bin_and_no_node() -> None:
    assert Forest.build([]).pack(4).shape == (0, 4)
    layout = Forest.build([[], []]).pack(4, bins_multiple_of=2)
    assert layout.shape == (2, 4)
    assert layout.row_bins.tolist() == [0, 0]
    assert take(layout.positions(), layout).to_list() == [[], []]
    assert place([[], []], layout, dtype=np.int32).tolist() == [[0] * 4] * 2


def test_where_nothing_is_shared_bins_are_those_of_the_longest_first() -> None:
    lengths = np.random.default_rng(4).integers(1, 60, 200)
    rows = [np.full(n, i, np.int32) for i, n in enumerate(lengths)]
    forest = Forest.build(rows)
    assert forest.saving() == 1.0
    assert forest.pack(64).shape[0] <= Layout.pack(lengths, 64).shape[0]
    assert forest.lower_bound(64)[1] == lengths.sum()


def test_a_prefix_in_every_bin_is_paid_in_every_bin() -> None:
    rows = [[*range(10), 100 + i, *range(4)] for i in range(30)]
    layout = Forest.build(rows).pack(30)
    least = Forest.build(rows).lower_bound(30)
    assert layout.shape[0] == least[0] == 8  # four of five tokens and ten shared ones
    assert layout.num_placed == least[1] == 8 * 10 + 30 * 5


@pytest.mark.parametrize("rows", [[[0, 0]], [[], [1]], [[1, 2], []], [[]], [[1], [2, 3]]])
def test_rows_that_lie_end_to_end_are_compared_without_what_follows(rows: list[list[int]]) -> None:
    layout = Forest.build(Ragged.from_rows(rows, np.int32)).pack(4)
    found = layout.reduce(Ragged.from_rows(rows, np.int32), "equal")
    np.testing.assert_array_equal(found, place(Ragged.from_rows(rows, np.int32), layout))


def test_equal_columns_keep_their_gradient() -> None:
    torch = pytest.importorskip("torch")
    layout = Forest.build([[5, 6, 7], [5, 6, 8]]).pack(4)
    values = torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 4.0], requires_grad=True)
    found = layout.reduce(Ragged(values, np.array([0, 3, 6])), "equal")
    assert found.tolist() == [[1, 2, 3, 4]]
    found.sum().backward()
    assert values.grad.tolist() == [1, 1, 1, 0, 0, 1]
    with pytest.raises(ValueError, match="row 1, position 0 differs"):
        layout.reduce(Ragged(values * torch.arange(6), np.array([0, 3, 6])), "equal")


def test_what_has_no_values_is_not_compared() -> None:
    jax = pytest.importorskip("jax")
    layout = Forest.build([[5, 6, 7], [5, 6, 8]]).pack(4)
    with pytest.raises(TypeError, match="column has no values yet, and whether rows agree is read off them"):
        jax.jit(lambda x: layout.reduce(Ragged(x, np.array([0, 3, 6])), "equal"))(np.ones(6))
