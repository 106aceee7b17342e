"""Every refusal of forests, as in test_errors.py: what was asked, the error, its message."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.house.refusals import check_refusal

import rollkit
from rollkit.forest import TokenTree

# Arguments of wrong types are what this file is about.
Forest: Any = rollkit.Forest
Layout: Any = rollkit.Layout
Ragged: Any = rollkit.Ragged
TreeLayout: Any = rollkit.TreeLayout
clip_weights: Any = rollkit.clip_weights
place: Any = rollkit.place
take: Any = rollkit.take
segments: Any = rollkit.segments

TREES = Forest.build([[5, 6, 7], [5, 6, 8, 9], [4]])
LAYOUT = TREES.pack(8)
NODES = LAYOUT.nodes
TURNS = {"prompt_token_ids": [[1], [2]], "response_ids": [[3], [4]], "loss_masks": [[1], [1]]}

SHARED = rollkit.pack(TURNS, 4, share_prefixes=True)
PPO = rollkit.pack(
    {
        "prompt_token_ids": [[1], [1]],
        "response_ids": [[2, 3], [2, 4]],
        "rollout_logprobs": [[-1.0, -2.0], [-1.5, -3.0]],
        "advantages": [1.0, -1.0],
        "loss_weights": [[0.5, 0.5], [0.5, 0.5]],
        "stop_reasons": ["stop", "stop"],
    },
    8,
    share_prefixes=True,
)
NAMED = "names='hf' is for batches of segments, and this one shares prefixes; rename its arrays by {old: new}, give the model a mask of rollkit.segments, and take the loss of next_token_logprobs"


TREE = TokenTree()
TREE.commit([1], [2])


def grown(**columns: Any) -> Any:
    tree = TokenTree()
    tree.commit([1], [2], **columns)
    return tree


def share(capacity: Any, **options: Any) -> Any:
    return rollkit.pack(TURNS, capacity, **{"share_prefixes": True, **options})


# fmt: off
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: TokenTree({"x": "tokens"}), ValueError, "levels['x'] must be one of 'prompt', 'response', 'sequence', 'row', 'prompt[]', 'response[]', 'sequence[]', 'row[]', got 'tokens'"),
    (lambda: TokenTree({"x": "response[]"}).commit([1], [2], x=[3]), TypeError, "x: position 0 is int, expected a list, tuple or array"),
    (lambda: TokenTree().commit([1], [2, 3], x=[[4], [5, 6]]), ValueError, "x: position 1: inner shape (1,) expected, got a list of 2"),
    (lambda: TokenTree().commit([1], [2], x=np.array(["a"])), TypeError, "x: expected numbers, got <U1"),
    (lambda: TokenTree().commit(np.ma.array([1], mask=[True]), [2]), TypeError, "prompt_token_ids: a masked array; fill it (.filled), or give what is left (.compressed)"),
    (lambda: TokenTree().commit(Ragged.from_rows([[1]]), [2]), TypeError, "prompt_token_ids: expected an element per token, got a list for each"),
    (lambda: TokenTree().commit(np.array([[1]]), [2]), ValueError, "prompt_token_ids: expected one token after the other, got shape (1, 1)"),
    (lambda: TokenTree().commit([1], [2], rollout_logprobs=Ragged.from_rows([[1.0]])), TypeError, "rollout_logprobs: expected an element per token, got a list for each"),
    (lambda: TokenTree().commit([1], [2], x=Ragged.from_rows([[[1]]], lists=True)), TypeError, "x: expected a list per token, got lists of lists"),
    (lambda: TokenTree().commit([1], [2], token_ids=[3]), ValueError, "a tree makes 'token_ids' itself; rename the column, or give routes as routes="),
    (lambda: TokenTree().commit([1], [2], rollout_expert_indices=[[[1]]]), ValueError, "a tree makes 'rollout_expert_indices' itself; rename the column, or give routes as routes="),
    (lambda: grown(x=[1]).commit([1], [2], x=Ragged.from_rows([[1]])), ValueError, "x has a list for each token, in the turns before numbers"),
    (lambda: grown(x=[[1, 2]]).commit([1], [2], x=[[1]]), ValueError, "x has inner shape (1,), in the turns before (2,)"),
    (lambda: grown(kept_token_ids=[[1]]).commit([1], [2], kept_token_ids=[[2**31]]), OverflowError, "kept_token_ids: position 0: 2147483648 does not fit int32"),
    (lambda: grown(kept_token_ids=[[1]]).commit([1], [2], kept_token_ids=[[2], [3]]), ValueError, "kept_token_ids has 2 elements, expected 1; the prompt has 1 tokens, the response 1"),
    (lambda: TokenTree.from_arrow(TREE.to_arrow().set_column(3, "token_ids", [[[2**31], [1]]])), OverflowError, "column 'token_ids': row 0, position 0: 2147483648 does not fit int32"),
    (lambda: Forest.build([[1.5]]), TypeError, "rows must hold token ids, one integer each, got float64 of inner shape ()"),
    (lambda: Forest.build(5), TypeError, "column must be a Ragged or a sequence of rows, got int"),
    (lambda: Forest.build([[1]], groups=["a", "b"]), ValueError, "groups has 2 entries, there are 1 rows"),
    (lambda: Forest.build([[1]], groups="tags"), TypeError, "groups is 'tags', but the rows have no columns; give an entry per row"),
    (lambda: Forest.build([[1]], min_shared=0), ValueError, "min_shared must be at least 1, got 0"),
    (lambda: Forest.build([[1]], match="routes"), TypeError, "match[0] is 'routes', but the rows have no columns; give the column itself"),
    (lambda: Forest.build([[1]], match=[[[1, 2]]]), ValueError, "match[0]: row 0 has 2 elements, the row has 1 tokens"),
    (lambda: Forest.build([[1]], match=[[[1], [2]]]), ValueError, "match[0] has 2 rows, there are 1"),
    (lambda: Forest.build([[1]], match=5), TypeError, "match must be a sequence, got int"),
    (lambda: Forest.build(TURNS, match="loss_masks"), ValueError, "match names 'loss_masks', which is per response token; it must be per token of both"),
    (lambda: Forest.build(TURNS, match="routes"), ValueError, "match names 'routes', which is no column per token of the rollouts"),
    (lambda: Forest.build(TURNS, match=[3]), TypeError, "match names columns of the rollouts, got int"),
    (lambda: Forest.build(TURNS, groups="tasks"), ValueError, "groups names 'tasks', which is no column per row of the rollouts"),
    (lambda: Forest.build(Ragged(np.zeros((2, 2), np.int32), [0, 2])), TypeError, "rows must hold token ids, one integer each, got int32 of inner shape (2,)"),
    (lambda: Forest([-1], [0], [2], [1], [0]), ValueError, "node 0 is of row 1; there are 1 rows"),
    (lambda: Forest([-1, -1], [0, 0], [2, 1], [0, 0], [0]), ValueError, "node 1 is of no row: none ends in or below it"),
    (lambda: Forest([-1, -1], [0, 0], [2, 1], [1, 1], [0, 1]), ValueError, "node 0 is of row 1, which does not end in or below it"),
    (lambda: Forest([-1, -1], [0, 0], [2**62, 2**62], [0, 1], [0, 1]), OverflowError, "the lengths up to row 1 add up to more than 2**63 - 1 elements"),
    (lambda: Forest.build([[1], [1]], groups=[[1], [2]]), TypeError, "groups[0] is list, which cannot be grouped by; give one number, text or other hashable object per row"),
    (lambda: Forest.build([[1], [1]], groups=3), TypeError, "groups must be a sequence, got int"),
    (lambda: Forest([-1], [0], [2], [0, 0], [0]), ValueError, "source_rows has 2 rows, parents has 1"),
    (lambda: Forest([-1, 0], [0, 1], [2, 3], [0, 0], [1]), ValueError, "node 1 begins other than where its parent ends, or is empty"),
    (lambda: Forest([0], [0], [2], [0], [0]), ValueError, "node 0 has a parent that is none of the path before it"),
    (lambda: Forest([-1], [0], [2], [0], [1]), ValueError, "row 0 ends with node 1, but there are 1 nodes"),
    (lambda: TREES.lower_bound(0), ValueError, "capacity must be at least 1, got 0"),
    (lambda: TREES.lower_bound(3), ValueError, 'row 1 has 4 elements, more than the capacity of 3; raise capacity, or pass oversize="truncate", "alone" or "drop"'),
    (lambda: TREES.pack(3), ValueError, 'row 1 has 4 elements, more than the capacity of 3; raise capacity, or pass oversize="truncate", "alone" or "drop"'),
    (lambda: TREES.pack(8, oversize="cut"), ValueError, "oversize must be one of 'raise', 'truncate', 'alone', 'drop', got 'cut'"),
    (lambda: TREES.pack("8"), TypeError, "capacity must be an int, got str"),
    (lambda: TREES.pack(8, align=0), ValueError, "align must be at least 1, got 0"),
    (lambda: TREES.pack(8, max_segments=0), ValueError, "max_segments must be at least 1, got 0"),
    (lambda: TREES.pack(16, bins_multiple_of=10**18), OverflowError, "bins_multiple_of=1000000000000000000: bins of 16 elements add up to more than 2**63 - 1 elements"),
    (lambda: TREES.pack(4, bins=1), ValueError, "bins is 1, the rows take 2 of 4; give more bins"),
    (lambda: TREES.pack(4, bins=2, bins_multiple_of=2), TypeError, "give bins or bins_multiple_of, not both"),
    (lambda: LAYOUT.spans([0, 0, 0], [1, 1]), ValueError, "lengths has 2 rows, the layout has 3"),
    (lambda: LAYOUT.spans(2, [1, 2, 0]), ValueError, "row 2 has 1 elements; elements 2 to 2 + 0 are no part of it"),
    (lambda: place([[1], [1], [1]], LAYOUT.spans(0, [1, 1, 1])), TypeError, "parts of rows that share tokens are taken, not placed; place whole rows"),
    (lambda: LAYOUT.spans(0, [1, 1, 1]).edges(), TypeError, "parts of rows have no edges; take those of the whole layout"),
    (lambda: share(4, groups="tasks"), ValueError, "groups names 'tasks', which is no column per row of the rollouts"),
    (lambda: share(4, groups=[1]), ValueError, "groups has 1 entries, there are 2 rows"),
    (lambda: share(4, match="loss_masks"), ValueError, "match names 'loss_masks', which is per response token; it must be per token of both"),
    (lambda: share(4, layout=LAYOUT), TypeError, "pack takes a capacity or a layout, not both: a layout has its capacity"),
    (lambda: share(None, layout=LAYOUT, bins=2), TypeError, "pack takes bins or a layout, not both: a layout has its bins"),
    (lambda: share(None, layout=LAYOUT, order="shuffled", seed=1), TypeError, "pack takes an order or a layout, not both: a layout has its order"),
    (lambda: share(None, layout=LAYOUT, groups=[1, 2]), TypeError, "pack takes groups or a layout, not both: a TreeLayout says what is shared"),
    (lambda: rollkit.pack(TURNS, layout=LAYOUT, match="images"), TypeError, "pack takes match or a layout, not both: a TreeLayout says what is shared"),
    (lambda: share(None, layout=NODES), TypeError, "share_prefixes=True takes a TreeLayout, got Layout; Forest.pack makes one"),
    (lambda: rollkit.pack(TURNS, layout=LAYOUT.spans(0, [1, 1, 1])), TypeError, "share_prefixes=True takes a TreeLayout, got PathSpans; Forest.pack makes one"),
    (lambda: rollkit.pack(TURNS, layout=LAYOUT), ValueError, "there are 2 rollouts, the layout has 3 rows"),
    (lambda: rollkit.pack({"response_ids": [[5, 6, 7], [5, 6, 8], [4]]}, layout=LAYOUT), ValueError, "row 1 has 3 tokens (prompt and response), the layout has 4 for it"),
    (lambda: rollkit.pack({"response_ids": [[5, 6, 7], [5, 5, 8, 9], [4]]}, layout=LAYOUT), ValueError, "row 1, position 1 differs from what another row has at a token that they share: the layout is of other rows"),
    (lambda: rollkit.Bins({"response_ids": [[5, 6, 7], [5, 5, 8, 9], [4]]}, layout=LAYOUT), ValueError, "row 1, position 1 differs from what another row has at a token that they share: the layout is of other rows"),
    (lambda: rollkit.Bins(TURNS, share_prefixes=True), TypeError, "Bins needs a capacity, or a layout"),
    (lambda: rollkit.Bins(TURNS, 4, share_prefixes=True, order="shuffled", seed=1), ValueError, "share_prefixes=True has one order of bins; layout.bins(numbers) lays them in any; leave order out"),
    (lambda: rollkit.Bins(TURNS, 4, share_prefixes=True, names="hf"), ValueError, NAMED),
    (lambda: rollkit.Bins(TURNS, 4, share_prefixes=True, columns=["loss_masks"]), ValueError, "columns has 'loss_masks', which is no array; there are 'input_ids', 'positions', 'segment_ids', 'visible_until', 'multiplicity', 'predecessors'"),
    (lambda: rollkit.Bins(TURNS, 4, groups=[1, 2]), TypeError, "groups and match say which rollouts share tokens; pass share_prefixes=True, too"),
    (lambda: rollkit.Bins({**TURNS, "multiplicity": [[1], [1]]}, 4, share_prefixes=True), ValueError, "column 'multiplicity': a batch that shares prefixes makes this array itself; rename or leave out the column"),
    (lambda: share(None), TypeError, "pack needs a capacity, or a layout"),
    (lambda: LAYOUT.costs(5), TypeError, "cost must be a tuple (a, b), got 5"),
    (lambda: LAYOUT.costs((1,)), TypeError, "cost must be a tuple (a, b), got (1,)"),
    (lambda: LAYOUT.costs((1, -1)), ValueError, "cost[1] must be at least 0, got -1"),
    (lambda: LAYOUT.costs((0, 2**62)), OverflowError, "costs add up to more than 2**63 - 1; give smaller ones"),
    (lambda: LAYOUT.costs((2**60 + 2**59, 0)), OverflowError, "costs add up to more than 2**63 - 1; give smaller ones"),
    (lambda: SHARED.layout.cu_seqlens(), AttributeError, "a TreeLayout has no cu_seqlens: its rows share tokens and are no segments; layout.nodes is the Layout of its nodes"),
    (lambda: LAYOUT.position, AttributeError, "a TreeLayout has no position"),
    (lambda: share(1), ValueError, 'row 0 has 2 elements, more than the capacity of 1; raise capacity, or pass oversize="truncate", "alone" or "drop"'),
    (lambda: share(1, oversize="split"), ValueError, "oversize must be one of 'raise', 'truncate', 'alone', 'drop', got 'split'"),
    (lambda: share(4, algorithm="next_fit"), ValueError, "share_prefixes=True has one algorithm; leave algorithm out"),
    (lambda: share(4, order="shuffled"), ValueError, "share_prefixes=True has one order of bins; layout.bins(numbers) lays them in any; leave order out"),
    (lambda: share(4, seed=1), ValueError, "share_prefixes=True has one order of bins; leave seed out"),
    (lambda: share(4, names="hf"), ValueError, NAMED),
    (lambda: SHARED.rename("hf"), ValueError, NAMED),
    (lambda: SHARED.rename({"predecessors": "before"}), ValueError, "names renames 'predecessors', which a slice of the batch finds by its name; keep it"),
    (lambda: SHARED.unpack("advantages"), KeyError, "no array 'advantages'; there are 'input_ids', 'positions', 'segment_ids', 'visible_until', 'multiplicity', 'predecessors'"),
    (lambda: SHARED.flash_kwargs(), TypeError, "rows of a batch that shares prefixes are no segments; segments.tree_varlen(batch.layout) makes one varlen call of them"),
    (lambda: rollkit.labels(SHARED), TypeError, "a batch that shares prefixes has no labels: a token may have several after it; next_token_logprobs scores each at its own place, and layout.edges says what predicts it"),
    (lambda: rollkit.pack({**TURNS, "multiplicity": [[1], [1]]}, 4, share_prefixes=True), ValueError, "column 'multiplicity': a batch that shares prefixes makes this array itself; rename or leave out the column"),
    (lambda: share(4, share_prefixes="yes"), TypeError, "share_prefixes must be True or False, got str"),
    (lambda: rollkit.pack(TURNS, 4, groups=[1, 2]), TypeError, "groups and match say which rollouts share tokens; pass share_prefixes=True, too"),
    (lambda: clip_weights(5), TypeError, "batch must be a Batch, got int; pack and pad make one"),
    (lambda: clip_weights(PPO, advantages=5), TypeError, "advantages is the name of a column, got int"),
    (lambda: clip_weights(PPO, weights="advantages"), TypeError, "weights is 'advantages', which has no number for each token"),
    (lambda: clip_weights(PPO, advantages="stop_reasons"), TypeError, "advantages is 'stop_reasons', which has no number for each token or row"),
    (lambda: clip_weights(PPO, weights="kept"), ValueError, "weights is 'kept', which the batch does not have; there are 'input_ids', 'positions', 'segment_ids', 'visible_until', 'multiplicity', 'predecessors', 'advantages', 'stop_reasons', 'rollout_logprobs', 'loss_weights', 'loss_masks'"),
    (lambda: clip_weights(PPO), ValueError, "column 'rollout_logprobs': row 1, position 1 differs from what another row has at this token, and both have a loss there, so that two sums do not say it; take the loss of rows: batch.unpack(next_token_logprobs(logits, batch))"),
    (lambda: segments.mamba(SHARED), TypeError, "ids is of rows that share tokens, and a convolution or a state goes on from token to token in memory, where it cannot branch; pack without share_prefixes"),
    (lambda: segments.flash_linear_attention([1, 2], size=2), ValueError, "there are 2 segments, size=2 has room for 1"),
    (lambda: segments.thd([1], LAYOUT, max_segments=1), TypeError, "ids_kv is a TreeLayout, whose rows are no segments: they share tokens; use block_mask, magi_ranges, flashmask_indices, tree_varlen or dense_mask"),
    (lambda: rollkit.pad(SHARED), TypeError, "expected rollouts, got a Batch: its lines are laid out, and no rows; batch.unpack(name) and batch.rows have those"),
    (lambda: segments.runs(SHARED), TypeError, "batch.layout is a TreeLayout, whose rows are no segments: they share tokens; use block_mask, magi_ranges, flashmask_indices, tree_varlen or dense_mask"),
    (lambda: TREES.saving(5), TypeError, "cost must be two numbers, (per token, per token squared), got 5"),
    (lambda: TREES.saving((0, 0)), ValueError, "cost must be two numbers of 0 or more, not both 0, got (0, 0)"),
    (lambda: TREES.saving((1, -1)), ValueError, "cost must be two numbers of 0 or more, not both 0, got (1, -1)"),
    (lambda: TREES.saving(("a", 1)), TypeError, "cost must be two numbers, (per token, per token squared), got ('a', 1)"),
    (lambda: TreeLayout(1, [], []), TypeError, "nodes must be a Layout, got int"),
    (lambda: TreeLayout(Layout.pad([1]), [-1], [0]), ValueError, "nodes must be a layout of pieces in bins; Forest.pack makes one"),
    (lambda: TreeLayout(Layout.pad([1]), [-1], []), ValueError, "leaf has 0 rows, nodes has 1"),
    (lambda: TreeLayout(NODES, LAYOUT.parents, [1, 2, 4]), ValueError, "row 2 ends with node 4, but there are 4 nodes"),
    (lambda: TreeLayout(NODES, [-1, -1, 0, -1], LAYOUT.leaf), ValueError, "node 2 has a parent that is none of the path before it"),
    (lambda: TreeLayout(NODES, LAYOUT.parents, [2, 1, 3]), ValueError, "node 1 is of row 0, which does not end in or below it"),
    (lambda: LAYOUT.bins([1]), IndexError, "bin 1 is out of range: there are 1 bins"),
    (lambda: LAYOUT.bins([0, 0]), ValueError, "bins names a bin twice; give each once"),
    (lambda: LAYOUT.bins("a"), TypeError, "bins must hold integers, got <U1"),
    (lambda: LAYOUT.rows_of([2]), IndexError, "bin 2 is out of range: there are 1 bins"),
    (lambda: LAYOUT.reduce([[1], [1], [1]], "sum"), ValueError, "row 0 has 1 elements, the layout has 3 for it"),
    (lambda: LAYOUT.reduce([[1, 2, 3]], "mean"), ValueError, "how must be one of 'sum', 'first', 'equal', got 'mean'"),
    (lambda: LAYOUT.reduce([[1, 2, 3], [1, 3, 4, 5], [1]], "equal"), ValueError, "row 1, position 1 differs from what another row has at a token that they share"),
    (lambda: LAYOUT.edges(Ragged.from_rows([[[1]], [], []], lists=True)), TypeError, "where has a list for each token; give one number or bool each"),
    (lambda: SHARED["loss_masks"], KeyError, "no array 'loss_masks': a token that rows share may have another in each; batch.unpack('loss_masks') has that of all rows"),
    (lambda: LAYOUT.edges(np.ones((2, 2))), ValueError, "where must have the layout's shape (1, 8), got (2, 2)"),
    (lambda: LAYOUT.segment_ids(np.zeros(3)), ValueError, "out must be int32 of shape (1, 8), got float64 of shape (3,)"),
    (lambda: place([[1]], LAYOUT), ValueError, "the column has 1 rows, the layout has 3"),
    (lambda: take(np.zeros((2, 2)), LAYOUT), ValueError, "array must have shape (1, 8) (and inner dims), got (2, 2)"),
    (lambda: segments.magi_ranges([1, 1]), TypeError, "layout must be a Layout, a TreeLayout or a Batch, got list"),
    (lambda: segments.tree_varlen(LAYOUT, most="a"), TypeError, "most must be a number, got str"),
    (lambda: segments.tree_varlen(LAYOUT, most=1), ValueError, "gathering along paths takes 10 keys for 6 tokens, 1.7 for each, more than most=1; use block_mask, magi_ranges or flashmask_indices, or pass a larger most"),
    (lambda: segments.dense_mask(LAYOUT, LAYOUT), TypeError, "a TreeLayout attends to itself by its own positions; give nothing beside it"),
    (lambda: segments.block_mask(LAYOUT, mask="padding"), ValueError, "mask is 'padding'; the mask of a TreeLayout is causal"),
    (lambda: segments.block_mask(LAYOUT, window=(1, 0)), ValueError, "window counts places in the row, and a TreeLayout's are not those of a row"),
    (lambda: segments.runs(LAYOUT), TypeError, "ids is a TreeLayout, whose rows are no segments: they share tokens; use block_mask, magi_ranges, flashmask_indices, tree_varlen or dense_mask"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED, ids=[entry[2] for entry in REFUSED])
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    check_refusal(call, kind, message)
