"""Token trees against lists of whole contexts, and the bundled rollouts there and back."""

import base64
import copy
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import rollkit
from rollkit import Layout, Ragged, Rollouts
from rollkit.forest import TokenTree
from rollkit.routing import RouteBuilder, join_routes, narrow_routes, route_mask, split_routes

Array = NDArray[Any]
ROUTES = "rollout_expert_indices"


def routes_for(tokens: list[int]) -> Array:
    """Routes that depend on the tokens up to each, as a model's do: `[tokens, 2, 2]` int16."""
    found = np.zeros((len(tokens), 2, 2), np.int16)
    state = 1
    for i, token in enumerate(tokens):
        state = (state * 31 + token + 1) % 32_749
        found[i] = [[state, state // 2], [state // 3, state // 5]]
    return found


@st.composite
def turns(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Turns in a vocabulary of 2: they continue one another, branch anywhere, and collide."""
    tokens = st.lists(st.integers(0, 1), max_size=5)
    contexts: list[list[int]] = [[]]
    found = []
    for _ in range(draw(st.integers(1, 8))):
        base = draw(st.sampled_from(contexts))
        prompt = base[: draw(st.integers(0, len(base)))] if draw(st.booleans()) else base
        prompt = prompt + draw(tokens)
        response = draw(st.lists(st.integers(0, 1), min_size=1, max_size=4))
        contexts.append(prompt + response)
        whole = draw(st.booleans())
        short = draw(st.booleans()) and len(prompt) + len(response) > 1
        found.append({"prompt": prompt, "response": response, "whole": whole, "short": short})
    return found


def common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def commit(tree: TokenTree, turn: dict[str, Any], known: int, number: int) -> int:
    """Commit a turn with routes of its whole context, or of what is new alone."""
    prompt, response = turn["prompt"], turn["response"]
    routes = routes_for(prompt + response)
    if turn["short"]:
        routes = routes[:-1]
    start = 0 if turn["whole"] else known
    payload = {
        "data": base64.b64encode(routes[start:].tobytes()).decode(),
        "shape": routes[start:].shape,
        "dtype": "int16",
        "start": start,
    }
    logprobs = [-float(number)] * len(response)
    return tree.commit(prompt, response, routes=payload, rollout_logprobs=logprobs)


@given(turns())
def test_every_turn_is_a_path_and_no_prefix_is_stored_twice(found: list[dict[str, Any]]) -> None:
    tree = TokenTree()
    contexts: list[list[int]] = []
    ends: list[int] = []
    stored = 0
    for number, turn in enumerate(found, 1):
        known = max((common(turn["prompt"], context) for context in contexts), default=0)
        end = commit(tree, turn, known, number)
        contexts.append(turn["prompt"] + turn["response"])
        ends.append(end)
        stored += len(contexts[-1]) - known
        assert int(tree.lengths.sum()) == stored
        _, _, lengths, sampled_nodes, captured = tree._nodes.columns()
        path = tree._nodes.path(end)
        assert lengths[path].sum() == len(contexts[-1])
        if turn["whole"]:
            assert (captured[path] == lengths[path])[:-1].all()
        assert not sampled_nodes[end] or captured[end] == lengths[end] - turn["short"]

    branches = tree.branches()
    leaves = tree.leaves.tolist()
    assert set(leaves) <= set(ends)
    sampled = set()
    for row, leaf in enumerate(leaves):
        tokens = [*branches["prompt_token_ids"][row].tolist(), *branches["response_ids"][row].tolist()]
        assert tokens == contexts[ends.index(leaf)]
        path = tree._nodes.path(leaf).tolist()
        sampled |= {node for node in path if tree.sampled[node]}
        masks = np.concatenate([[int(tree.sampled[node])] * tree.lengths[node] for node in path])
        prompt = len(branches["prompt_token_ids"][row])
        assert prompt == masks.argmax()
        np.testing.assert_array_equal(branches["loss_masks"][row], masks[prompt:])
        logprobs = np.asarray(branches["rollout_logprobs"][row])
        np.testing.assert_array_equal(logprobs != 0, masks[prompt:] == 1)
        last = ends.index(leaf)
        own = len(found[last]["response"])
        assert (logprobs[-own:] == -float(last + 1)).all()
        routes, filled = branches[ROUTES][row], branches["route_masks"][row].astype(bool)
        np.testing.assert_array_equal(routes[~filled], routes_for(tokens)[~filled])
        holes = np.flatnonzero(filled)
        for hole in holes:
            np.testing.assert_array_equal(routes[hole], routes[hole - 1])

    once = tree.branches(once=True)["loss_masks"]
    assert isinstance(once, Ragged)
    assert int(once.values.sum()) == sum(int(tree.lengths[node]) for node in sampled)


@given(turns(), st.integers(1, 12))
def test_the_forest_has_the_nodes_and_the_branches_are_its_rows(
    found: list[dict[str, Any]], spare: int
) -> None:
    tree = TokenTree()
    for turn in found:
        tree.commit(turn["prompt"], turn["response"])
    forest, branches = tree.forest(), tree.branches()
    prompts, responses = branches.ragged("prompt_token_ids"), branches.ragged("response_ids")
    rows = Ragged.from_rows([np.concatenate(both) for both in zip(prompts, responses, strict=True)], np.int32)
    assert forest.unique == tree.lengths.sum()
    assert (forest.nodes, forest.rows) == (len(tree), len(tree.leaves))
    checked = rollkit.Forest(forest.parents, forest.begins, forest.ends, forest.source_rows, forest.leaf)
    assert checked.equals(forest)
    np.testing.assert_array_equal(forest.row_lengths, rows.lengths)
    # The tokens of nodes, and each node once: the way to a leaf is the same in both.
    numbers: dict[int, int] = {}
    for row, leaf in enumerate(tree.leaves.tolist()):
        node = int(forest.leaf[row])
        for own in reversed(tree._nodes.path(leaf).tolist()):
            assert numbers.setdefault(own, node) == node
            span = slice(forest.begins[node], forest.ends[node])
            _, begins, lengths, _, _ = tree._nodes.columns()
            stored = tree._tokens.rows[begins[own] : begins[own] + lengths[own]]
            np.testing.assert_array_equal(rows[row][span], stored)
            np.testing.assert_array_equal(rows[int(forest.source_rows[node])][span], stored)
            assert forest.source_rows[node] <= row
            node = int(forest.parents[node])
        assert node == -1
    assert len(set(numbers.values())) == len(tree)

    layout = forest.pack(int(rows.lengths.max()) + spare)
    placed = rollkit.place(rows, layout)
    assert rollkit.take(placed, layout).equals(rows)
    assert layout.nodes.num_placed == forest.unique or layout.shape[0] > 1


@given(turns(), st.integers(0, 7), st.sampled_from(["kept_token_ids", "x", "y"]))
def test_lists_per_token_come_back(found: list[dict[str, Any]], at: int, name: str) -> None:
    """Of known names, of a `Ragged`, and where `levels` says so; by way of a table and a pickle."""
    tree, contexts, ends = TokenTree({"y": "response[]"}), [], []
    for number, turn in enumerate(found):
        # One that tells turn and token, of its own length.
        lists = [[number, token, i] * (i % 3) for i, token in enumerate(turn["response"])]
        value: Any = Ragged.from_rows([[], *lists], np.int32)[1:] if name == "x" else lists
        ends.append(tree.commit(turn["prompt"], turn["response"], **{name: value}))
        contexts.append((turn["prompt"], lists))
        if number == at:
            table, pickled = TokenTree.from_arrow(tree.to_arrow()), pickle.loads(pickle.dumps(tree))
            assert table.branches().equals(tree.branches())
            assert pickled.branches().equals(tree.branches())
            tree = table if number % 2 else pickled
    branches = tree.branches()
    column = branches.ragged(name)
    assert column.of_lists
    np.testing.assert_array_equal(column.lengths, branches.ragged("response_ids").lengths)
    for row, leaf in enumerate(tree.leaves.tolist()):
        _, lists = contexts[ends.index(leaf)]
        own = column.to_list()[row]
        assert own[len(own) - len(lists) :] == lists
        unsampled = branches.ragged("loss_masks")[row] == 0
        lengths = np.array([len(entries) for entries in own])
        assert not lengths[unsampled].any()


def test_lists_of_prompts_and_responses() -> None:
    tree = TokenTree({"x": "sequence[]"})
    tree.commit([1], [2], x=[[1.0], [1.0, 2.0]])
    tree.commit([1, 2, 3], [4], x=[[9.0], [9.0], [], [3.0]])
    assert tree.branches().ragged("x").to_list() == [[[1], [1, 2], [], [3]]]
    table = tree.to_arrow()
    assert TokenTree.from_arrow(table).branches().equals(tree.branches())


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_tree_is_saved_as_a_file(tmp_path: Path, kind: str) -> None:
    """What is known of columns is in the table's metadata, which both formats keep."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    tree = TokenTree({"x": "sequence[]", "y": "sequence"})
    tree.commit([1], [2], x=[[1], []], y=[0.5, 1.5], routes=routes_for([1, 2]))
    tree.commit([1, 3], [4], x=[[], [2, 3], [4]], y=[9, 2.5, 3.5], routes=routes_for([1, 3, 4]))
    path = tmp_path / f"tree.{kind}"
    if kind == "parquet":
        pq.write_table(tree.to_arrow(), path)
        table = pq.read_table(path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, tree.to_arrow().schema) as writer:
            writer.write_table(tree.to_arrow())
        table = pa.ipc.open_file(path).read_all()
    loaded = TokenTree.from_arrow(table)
    assert loaded.branches().equals(tree.branches())
    assert loaded.forest().equals(tree.forest())
    for each in (tree, loaded):
        each.commit([1, 3, 4], [5], x=[[], [], [], [6]], y=[0, 0, 0, 1], routes=routes_for([1, 3, 4, 5]))
    assert loaded.branches().equals(tree.branches())


def test_lists_widen() -> None:
    tree = TokenTree()
    tree.commit([1], [2], x=Ragged.from_rows([[1]], np.int8))
    tree.commit([1], [2], x=[[0.5, 2.5]])
    assert tree.branches().ragged("x").to_list() == [[[1.0]], [[0.5, 2.5]]]


def test_what_has_no_number_has_no_say() -> None:
    tree = TokenTree({"x": "response[]"})
    none: list[Any] = [[], np.zeros(0), [[], []], [[]]]
    for i, value in enumerate(none):
        tree.commit([1], [2] * len(value), x=value)
        if i == 1:
            tree.commit([1], [3], x=[np.zeros((2, 3), np.int8)])
    column = tree.branches().ragged("x")
    assert column.dtype == np.int8
    assert [len(entries) for row in column.to_list() for entries in row] == [2, 0, 0, 0]
    plain = TokenTree()
    for value in (np.zeros(1, np.int8), np.zeros(0), Ragged.from_rows([])):
        plain.commit([1], [2] * len(value), x=value)
    assert plain.branches().ragged("x").dtype == np.int8


def test_a_refused_turn_changes_no_dtype() -> None:
    tree = TokenTree()
    tree.commit([1], [2], x=[1], routes=routes_for([1, 2]).astype(np.uint8))
    before = tree.branches()
    wide = {"data": "!" * 16, "shape": [3, 2, 2], "dtype": "int8"}
    with pytest.raises(ValueError, match="base64"):
        tree.commit([1, 2], [3], x=[0.5], routes=wide)
    with pytest.raises(ValueError, match="differ in columns"):
        tree.commit([1, 2], [3], x=[0.5], y=[1, 2], routes=routes_for([1, 2, 3]))
    assert tree.branches().equals(before)


def test_trees_are_copied_whole() -> None:
    tree = TokenTree()
    tree.commit([1, 2], [3], rollout_logprobs=[-1.0], routes=routes_for([1, 2, 3]))
    for copied in (copy.deepcopy(tree), copy.copy(tree)):
        copied.commit([1], [4], rollout_logprobs=[-2.0], routes=routes_for([1, 4]))
        assert (len(tree), len(copied)) == (2, 4)
    assert TokenTree.from_arrow(TokenTree().to_arrow()).commit([1], [2]) == 1


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda tree: tree.find(np.zeros(3, np.int64), np.zeros(1, np.int32)), TypeError),
        (lambda tree: tree.find(np.zeros(6, np.int32)[::2], np.zeros(1, np.int32)), ValueError),
        (lambda tree: tree.find(np.zeros(1, np.int32), np.array([1], np.int32)), ValueError),
        (lambda tree: tree.path(2), IndexError),
        (lambda tree: tree.path(-1), OverflowError),
        (lambda tree: extend(tree, after=2), ValueError),
        (lambda tree: extend(tree, after=-2), ValueError),
        (lambda tree: extend(tree, within=0), ValueError),
        (lambda tree: extend(tree, within=3), ValueError),
        (lambda tree: extend(tree, begin=4), ValueError),
        (lambda tree: extend(tree, begin=2**64 - 1), ValueError),
        (lambda tree: extend(tree, observed=2**64 - 1), ValueError),
        (lambda tree: extend(tree, captured=9), ValueError),
        (lambda tree: extend(tree, repaired=np.array([5])), ValueError),
        (lambda tree: extend(tree, repaired=np.array([0.5])), TypeError),
        (lambda tree: type(tree)(np.zeros(1, np.int32), [np.zeros(1, np.int64)] * 4), ValueError),
        (lambda tree: type(tree)(np.zeros(1, np.int32), [np.zeros(1, np.int32)] * 5), TypeError),
        (lambda tree: type(tree)(np.zeros(1, np.int32), [np.arange(1), *[np.arange(2)] * 4]), ValueError),
        (lambda tree: type(tree)(None, [np.array([-1]), *[np.ones(1, np.int64)] * 4]), ValueError),
    ],
)
def test_hostile_calls_are_refused(call: Callable[[Any], object], error: type[Exception]) -> None:
    tree = TokenTree()
    tree.commit([1, 2], [3], rollout_logprobs=[0.0])
    before = tree.branches()
    with pytest.raises(error):
        call(tree._nodes)
    assert tree.branches().equals(before)
    assert tree.commit([1, 2, 3], [4], rollout_logprobs=[0.0]) == 2


def extend(tree: Any, **changed: Any) -> int:
    named = {"after": 0, "within": 2, "begin": 2, "observed": 0, "sampled": 1, "captured": 0}
    tokens = np.array([1, 2, 3], np.int32)
    found: int = tree.extend(tokens, **{**named, "repaired": np.zeros(0, np.int64), **changed})
    return found


@given(turns(), st.integers(0, 7))
def test_arrow_and_pickle_in_between(found: list[dict[str, Any]], at: int) -> None:
    plain, arrow, pickled = TokenTree(), TokenTree(), TokenTree()
    contexts: list[list[int]] = []
    for number, turn in enumerate(found, 1):
        known = max((common(turn["prompt"], context) for context in contexts), default=0)
        contexts.append(turn["prompt"] + turn["response"])
        ends = {commit(tree, turn, known, number) for tree in (plain, arrow, pickled)}
        assert len(ends) == 1
        if number - 1 == at:
            arrow = TokenTree.from_arrow(arrow.to_arrow())
            pickled = pickle.loads(pickle.dumps(pickled, protocol=5))
    for tree in (arrow, pickled):
        assert tree.branches().equals(plain.branches())


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), min_size=1, max_size=6), st.booleans())
def test_turns_in_a_row_are_merged_steps(sizes: list[tuple[int, int]], short: bool) -> None:
    rng = np.random.default_rng(len(sizes))
    steps: dict[str, list[Any]] = {
        name: [] for name in ("prompt_token_ids", "response_ids", "loss_masks", "rollout_logprobs", ROUTES)
    }
    tree = TokenTree()
    context: list[int] = []
    for observed, sampled in sizes:
        prompt = context + rng.integers(0, 9, observed).tolist()
        response = rng.integers(0, 9, sampled).tolist()
        context = prompt + response
        routes = routes_for(context)[: len(context) - short]
        turn = (prompt, response, [1] * sampled, (-rng.random(sampled)).astype(np.float32), routes)
        for name, value in zip(steps, turn, strict=True):
            steps[name].append(value)
        tree.commit(prompt, response, routes=routes, rollout_logprobs=turn[3])
    last = [False] * (len(sizes) - 1) + [True]
    merged = rollkit.merge_steps({**steps, "is_last_step": last})
    branches = tree.branches(final=None)
    for name, column in branches.items():
        assert isinstance(column, Ragged)
        assert column.equals(merged[name]), name


def test_two_samples_from_one_prompt_stay_two() -> None:
    tree = TokenTree()
    first, second = tree.commit([1, 2], [3, 4]), tree.commit([1, 2], [3, 4])
    assert first != second
    assert tree.branches()["response_ids"].to_list() == [[3, 4], [3, 4]]  # type: ignore[union-attr]
    third = tree.commit([1, 2, 3, 4, 5], [6])
    assert tree._nodes.path(third)[:-2].tolist() == tree._nodes.path(second).tolist(), (
        "the newest is continued"
    )


def test_a_response_that_was_tokenised_again_shares_its_beginning() -> None:
    tree = TokenTree()
    tree.commit([1], [2, 3, 4], rollout_logprobs=[-1.0, -2.0, -3.0])
    tree.commit([1, 2, 9], [5], rollout_logprobs=[-4.0])
    branches = tree.branches()
    assert branches["rollout_logprobs"].to_list() == [[-1, -2, -3], [-1, 0, -4]]  # type: ignore[union-attr]
    assert branches["loss_masks"].to_list() == [[1, 1, 1], [1, 0, 1]]  # type: ignore[union-attr]
    once = tree.branches(once=True)["loss_masks"]
    assert once.to_list() == [[1, 1, 1], [0, 0, 1]]  # type: ignore[union-attr]


def test_columns_per_token_and_masks() -> None:
    tree = TokenTree()
    tree.commit([1, 2], [3], input_scores=[0.5, 1.5, 2.5], loss_masks=[0])
    tree.commit([1, 2, 3, 4], [5], input_scores=[9, 9, 9, 3.5, 4.5], loss_masks=[1])
    branches = tree.branches()
    assert branches["input_scores"].to_list() == [[0.5, 1.5, 2.5, 3.5, 4.5]]  # type: ignore[union-attr]
    assert branches["loss_masks"].to_list() == [[0, 0, 1]]  # type: ignore[union-attr]
    assert repr(tree) == "TokenTree(4 nodes, 5 tokens: input_scores, loss_masks)"


def test_empty_responses_add_no_node() -> None:
    tree = TokenTree()
    assert tree.commit([1, 2], []) == 0
    assert tree.commit([1, 2], [], routes=None) == 0
    branches = tree.branches()
    assert branches["prompt_token_ids"].to_list() == [[1, 2]]  # type: ignore[union-attr]
    assert branches["response_ids"].to_list() == [[]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("turn", "error", "message"),
    [
        ({"prompt_token_ids": [1.5]}, TypeError, r"^prompt_token_ids: position 0: "),
        ({"prompt_token_ids": [2**40]}, OverflowError, r"^prompt_token_ids: position 0: 1099511627776 does"),
        ({"response_ids": 5}, TypeError, r"^response_ids: expected an element per token, got 5$"),
        (
            {"rollout_logprobs": [0.0, 0.0]},
            ValueError,
            r"^rollout_logprobs has 2 elements, expected 1; the prompt has 4 tokens, the response 1$",
        ),
        ({"extra": 1.0}, ValueError, r"^the turn and those before differ in columns: 'extra' \("),
        ({"loss_masks": 1}, TypeError, r"^loss_masks: expected an element per token, got 1$"),
        ({"extra": [1]}, ValueError, r"^the turn and those before differ in columns: 'extra' \("),
        ({"routes": None}, ValueError, r"differ in columns: 'rollout_expert_indices' \("),
        (
            {"routes": routes_for([0] * 3)},
            ValueError,
            r"^routes are of positions 0 to 3, the turn's new tokens at 3 to 5; only the last one's may be",
        ),
        (
            {"routes": {"data": routes_for([0]), "start": 4}},
            ValueError,
            r"^routes are of positions 4 to 5, the turn's new tokens at 3 to 5",
        ),
        (
            {"routes": np.zeros((5, 3, 2), np.int16)},
            ValueError,
            r"^routes have inner shape \(3, 2\), in the turns before \(2, 2\)$",
        ),
        (
            {"routes": {"data": "!" * 54 + "==", "shape": [5, 2, 2], "dtype": "int16"}},
            ValueError,
            r"^character \d+ of the base64 data is '!'",
        ),
    ],
)
def test_a_refused_turn_leaves_the_tree_as_it_was(
    turn: dict[str, Any], error: type[Exception], message: str
) -> None:
    tree = TokenTree()
    tree.commit([1, 2], [3], rollout_logprobs=[-1.0], routes=routes_for([1, 2, 3])[:2])
    before = tree.branches()
    good: dict[str, Any] = {
        "prompt_token_ids": [1, 2, 3, 4],
        "response_ids": [5],
        "rollout_logprobs": [-2.0],
        "routes": routes_for([1, 2, 3, 4, 5]),
    }
    with pytest.raises(error, match=message):
        tree.commit(**{**good, **turn})
    assert tree.branches().equals(before)
    tree.commit(**good)
    np.testing.assert_array_equal(tree.branches()[ROUTES][0], good["routes"])


def test_levels_say_what_a_turn_has_elements_for() -> None:
    tree = TokenTree(levels={"x": "sequence", "prompt_x": "response"})
    tree.commit([], [1, 2], x=[5, 6], prompt_x=[7, 8])
    tree.commit([1, 2], [3], x=[5, 6, 9], prompt_x=[1])
    branches = tree.branches()
    assert branches.ragged("x").to_list() == [[5, 6, 9]]
    assert branches.ragged("prompt_x").to_list() == [[7, 8, 1]]
    found: list[dict[str, str]] = [{}, {"prompt_x": "prompt"}]
    for levels in found:
        with pytest.raises(ValueError, match=r"^prompt_x: a tree has columns per response or sequence token"):
            TokenTree(levels).commit([1, 2], [3], prompt_x=[1, 2])


def test_errors_of_branches() -> None:
    with pytest.raises(ValueError, match=r"^the tree is empty; commit a turn first$"):
        TokenTree().branches()
    with pytest.raises(ValueError, match=r"^the turn has no tokens$"):
        TokenTree().commit([], [])
    tree = TokenTree()
    tree.commit([1], [2], routes=routes_for([1]))
    tree.commit([1, 2, 3], [4], routes={"data": routes_for([1, 2, 3])[2:], "start": 2})
    with pytest.raises(ValueError, match=r"^branch 0: the last token of node 1 has no routes; pass a policy"):
        tree.branches(final=None)
    assert tree.branches()["route_masks"].to_list() == [[0, 1, 0, 1]]  # type: ignore[union-attr]
    lone = TokenTree()
    lone.commit([], [1], routes=routes_for([]))
    with pytest.raises(ValueError, match=r"^branch 0: its first token has no routes and no row before it"):
        lone.branches()
    assert lone.branches(final="arange")[ROUTES].to_list() == [[[[0, 1], [0, 1]]]]  # type: ignore[union-attr]
    assert lone.branches(final="sentinel")[ROUTES].to_list() == [[[[-1, -1], [-1, -1]]]]  # type: ignore[union-attr]


def test_cycle_goes_on_with_the_position() -> None:
    """Each filled row names other experts, the same on every branch, and those that `split_routes` names."""
    tree = TokenTree()
    contexts = [[1, 2], [1, 2, 3, 4], [1, 2, 5, 6, 7]]
    for context, start in zip(contexts, (0, 2, 2), strict=True):
        payload = {"data": routes_for(context)[start:-1], "start": start}
        tree.commit(context[:-1], context[-1:], routes=payload)
    branches = tree.branches(final="cycle", num_experts=7)
    filled = branches["route_masks"].to_list()  # type: ignore[union-attr]
    assert filled == [[0, 1, 0, 1], [0, 1, 0, 0, 1]]
    for marks, routes in zip(filled, branches[ROUTES], strict=True):
        for position in np.flatnonzero(marks):
            assert routes[position].ravel().tolist() == [(4 * position + i) % 7 for i in range(4)]
    lone = split_routes(routes_for(contexts[2])[:-1], [5], final="cycle", num_experts=7)[0]
    assert lone is not None
    np.testing.assert_array_equal(lone[4], branches[ROUTES][1][4])


def test_tables_that_are_no_tree() -> None:
    tree = TokenTree()
    tree.commit([1], [2])
    table = tree.to_arrow()
    with pytest.raises(ValueError, match=r"^the table has no column 'parents'$"):
        TokenTree.from_arrow(table.drop_columns(["parents"]))
    circle = table.set_column(0, "parents", [[1, 0]])
    with pytest.raises(ValueError, match=r"^node 0 has parent 1, from which no way leads to a root$"):
        TokenTree.from_arrow(circle)
    for name, wrong in (("parents", [-1, None]), ("sampled", ["a", "b"]), ("captured", [0.5, 1.5])):
        odd = table.set_column(table.schema.names.index(name), name, [wrong])
        with pytest.raises(ValueError, match=rf"^column '{name}' must have one integer per node"):
            TokenTree.from_arrow(odd)
    for ids in ([1, 2], [[0.5], [1.5]], [["a"], ["b"]], [[[1]], [[2]]]):
        with pytest.raises(ValueError, match=r"^column 'token_ids' must have token ids per node$"):
            TokenTree.from_arrow(table.set_column(3, "token_ids", [ids]))
    with pytest.raises(ValueError, match=r"^node 1 has no tokens; nodes have one or more$"):
        TokenTree.from_arrow(table.set_column(3, "token_ids", [[[1], []]]))
    captured = table.set_column(2, "captured", [[0, 2]])
    with pytest.raises(ValueError, match=r"^node 1 has 1 tokens and 2 routes"):
        TokenTree.from_arrow(captured)
    masks = table.set_column(4, "loss_masks", [[[1], [1, 1]]])
    with pytest.raises(ValueError, match=r"^column 'loss_masks' must have an element per token"):
        TokenTree.from_arrow(masks)


def payload(rows: Array, start: int) -> dict[str, Any]:
    return {
        "data": base64.b64encode(np.ascontiguousarray(rows[start:]).tobytes()).decode(),
        "shape": rows[start:].shape,
        "dtype": rows.dtype.name,
        "start": start,
    }


def as_turns(prompt: Array, response: Array, routes: Array, parts: int) -> list[tuple[Array, Array, Array]]:
    """A rollout cut as if it had been sampled in several turns: context, response, routes so far."""
    cuts = np.linspace(0, len(response), parts + 1).astype(int)
    whole = np.concatenate([prompt, response])
    found = []
    for a, b in zip(cuts[:-1] + len(prompt), cuts[1:] + len(prompt), strict=True):
        found.append((whole[:a], whole[a:b], routes[: b - 1]))
    return found


def test_the_choices_of_a_real_router_come_back() -> None:
    """The bundled rollouts, cut into turns, by way of every path that routes take."""
    rollouts = rollkit.read(rollkit.sample_path())
    column = rollouts[ROUTES]
    assert isinstance(column, Ragged)
    assert narrow_routes(column).dtype == np.uint8
    rollouts = rollouts.with_columns(**{ROUTES: column.astype(np.int16)})
    choices = rollouts[ROUTES]
    assert isinstance(choices, Ragged)
    assert choices.inner == (2, 2)
    names = ("prompt_token_ids", "response_ids", "rollout_logprobs")
    steps: dict[str, list[Any]] = {name: [] for name in (*names, ROUTES, "is_last_step")}
    for row in range(len(rollouts)):
        prompt, response, logprobs = (rollouts[name][row] for name in names)
        turns_of_row = as_turns(prompt, response, choices[row], 3)
        tree, builder = TokenTree(), RouteBuilder()
        nodes_of_row: list[Array | None] = []
        known = 0
        for i, (context, sampled, routes) in enumerate(turns_of_row):
            first = len(context) - len(prompt)
            own = logprobs[first : first + len(sampled)]
            tree.commit(context, sampled, routes=payload(routes, max(known - 1, 0)), rollout_logprobs=own)
            nodes_of_row += split_routes(
                payload(routes, 0), [len(context) - known, len(sampled)], start=known, final="sentinel"
            )
            builder.append(payload(routes, max(known - 1, 0)))
            known = len(context) + len(sampled)
            for name, value in zip(steps, (context, sampled, own, routes, i == 2), strict=True):
                steps[name].append(value)
        branch = tree.branches(final=None)
        np.testing.assert_array_equal(branch[ROUTES][0], choices[row])
        np.testing.assert_array_equal(branch["rollout_logprobs"][0], logprobs)
        np.testing.assert_array_equal(builder.finish(), choices[row])
        joined = join_routes([rows for rows in nodes_of_row if rows is not None])
        assert joined is not None
        captured = np.asarray((joined >= 0).all(axis=(1, 2)))
        assert (~captured).sum() == 3, "the last token of each turn"
        np.testing.assert_array_equal(joined[:-1][captured[:-1]], choices[row][captured[:-1]])

    merged = rollkit.merge_steps(steps)
    for name in (*names, ROUTES):
        found, wanted = merged[name], rollouts[name]
        assert isinstance(found, Ragged)
        assert found.equals(wanted), name
    for source in (merged, rollouts):
        batch = rollkit.pack(source, 2048)
        unpacked = batch.to("torch").unpack(ROUTES)
        hidden = Ragged(route_mask(Layout.concat(unpacked.lengths), choices), unpacked.offsets)
        for row in range(len(rollouts)):
            np.testing.assert_array_equal(unpacked[row][~hidden[row]], choices[row])
            assert hidden[row].tolist() == [False] * len(choices[row]) + [True]


def test_samples_of_one_prompt_share_it() -> None:
    """All bundled rollouts in one tree: the same rollouts come back, each prompt stored once."""
    rollouts = rollkit.read(rollkit.sample_path())
    tree = TokenTree()
    for row in range(len(rollouts)):
        tree.commit(
            rollouts["prompt_token_ids"][row],
            rollouts["response_ids"][row],
            routes=rollouts[ROUTES][row],
            rollout_logprobs=rollouts["rollout_logprobs"][row],
        )
    assert isinstance(rollouts, Rollouts)
    prompts, responses = rollouts["prompt_token_ids"], rollouts["response_ids"]
    assert isinstance(prompts, Ragged)
    assert isinstance(responses, Ragged)
    total = int(prompts.lengths.sum() + responses.lengths.sum())
    assert int(tree.lengths.sum()) < total
    branches = TokenTree.from_arrow(tree.to_arrow()).branches(final=None)
    for name in ("prompt_token_ids", "response_ids", "rollout_logprobs"):
        column = branches[name]
        assert isinstance(column, Ragged)
        assert column.equals(rollouts[name]), name
    for row in range(len(rollouts)):
        routes, wanted = branches[ROUTES][row], rollouts[ROUTES][row]
        np.testing.assert_array_equal(routes[len(prompts[row]) :], wanted[len(prompts[row]) :])


def test_integers_that_no_integer_dtype_holds_together_are_refused() -> None:
    tree = TokenTree()
    tree.commit([1], [2], x=np.array([-1]))
    with pytest.raises(TypeError, match="column 'x': no integer dtype holds int64 and uint64"):
        tree.commit([1], [3], x=np.array([2**63], np.uint64))


def test_threads_commit_one_after_the_other() -> None:
    def work(tree: TokenTree, seed: int) -> None:
        rng, context = np.random.default_rng(seed), [1, 2, 3]
        for _ in range(40):
            response = rng.integers(0, 1000, 5).tolist()
            tree.commit(context, response, rollout_logprobs=[float(token) for token in response])
            context = context + response
            if seed == 0:
                pickle.loads(pickle.dumps(tree)).commit([5], [6], rollout_logprobs=[0.0])
                tree.branches()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(4):
            tree = TokenTree()
            with ThreadPoolExecutor(6) as threads:
                for done in [threads.submit(work, tree, seed) for seed in range(6)]:
                    done.result()
            branches: Any = tree.branches()
            assert len(branches) == 6
            assert branches["rollout_logprobs"].to_list() == branches["response_ids"].to_list()
    finally:
        sys.setswitchinterval(before)
