"""Every refusal, in one table: what was asked, the type of the error, and its message, word for word.

A message is one line. It names the argument, or the column and the row, and says what came and what was
wanted.
"""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.house.refusals import check_refusal

import rollkit

# Arguments of wrong types are what this file is about.
Layout: Any = rollkit.Layout
Ragged: Any = rollkit.Ragged
Rollouts: Any = rollkit.Rollouts
balance: Any = rollkit.balance
concat: Any = rollkit.concat
fit_cost: Any = rollkit.fit_cost
imbalance: Any = rollkit.imbalance
labels: Any = rollkit.labels
pack: Any = rollkit.pack
pad: Any = rollkit.pad
read: Any = rollkit.read
save: Any = rollkit.save
place: Any = rollkit.place
plan_steps: Any = rollkit.plan_steps
take: Any = rollkit.take

UNSIGNED: Any = Ragged(np.array([2**63], np.uint64), np.array([0, 1]))
ROWS: Any = Ragged.from_rows([[1], [2, 3], [4, 5, 600]])
PLAN: Any = Layout.pad(ROWS.lengths)
FROZEN = np.zeros((3, 3), np.int32)
FROZEN.flags.writeable = False
COLUMNS: Any = Rollouts({"response_ids": [[1], [2, 3]], "tags": ["a", "b"]})
BATCH: Any = pad({"response_ids": [[1, 2]]})
BARE: Any = type(BATCH)(BATCH.arrays)
BARE_OF = "it was made of another's arrays (torch's collate functions and transformers' Trainer do that); keep the one of pack or pad, and move it by .to(device)"
VALID: dict[str, Any] = {
    "prompt_token_ids": [[1]],
    "response_ids": [[1, 2]],
    "loss_masks": [[1, 1]],
    "rewards": [1.0],
}


class Table:
    """A table of another package."""

    __arrow_c_stream__ = COLUMNS.__arrow_c_stream__


TABLE = Table()

# fmt: off
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Layout(6, [0], [1], [1]), TypeError, "shape must be a tuple of ints, got int"),
    (lambda: Layout((6.5,), [0], [1], [1]), TypeError, "shape[0] must be an int, got float"),
    (lambda: Layout((2**40, 2**40), [0], [1], [1]), OverflowError, "shape (1099511627776, 1099511627776) has more than 2**63 - 1 elements"),
    (lambda: Layout.pack([2**62], capacity=2**63), OverflowError, "capacity is 9223372036854775808, beyond int64"),
    (lambda: Layout.union([PLAN, 1]), TypeError, "layouts must be Layouts; layouts[1] is int"),
    (lambda: PLAN.cu_seqlens(line="a"), TypeError, "line must be an int, got str"),
    (lambda: place(ROWS, PLAN, dtype="nonsense"), TypeError, "dtype is 'nonsense', which is no dtype that NumPy has"),
    (lambda: Ragged([[1]], [0, 1]), TypeError, "values must be an array of at least one dimension, got list; Ragged.from_rows takes lists"),
    (lambda: Ragged(np.array(1), [0]), TypeError, "values must be an array of at least one dimension, got a 0-D array; Ragged.from_rows takes lists"),
    (lambda: Ragged(np.zeros(3), []), ValueError, "offsets is empty; expected one more than there are rows, so at least one"),
    (lambda: Ragged(np.zeros(3), [0.0, 1.0]), TypeError, "offsets must hold integers, got float64"),
    (lambda: Ragged(np.zeros(3), [[0, 1]]), ValueError, "offsets must be one-dimensional, got shape (1, 2)"),
    (lambda: Ragged(np.zeros(3), [0, 2, 1]), ValueError, "offsets fall at row 1: it begins at 2 and ends at 1; offsets start at ≥ 0 and never fall"),
    (lambda: Ragged(np.zeros(3), [-1, 2]), ValueError, "offsets[0] is -1; offsets start at 0 or more and never fall"),
    (lambda: Ragged(np.zeros(3), [0, 2, 4]), ValueError, "row 1 is elements 2 to 2 + 2 of a source that has 3"),
    (lambda: Ragged(np.zeros(3), np.array([0, 2**63], np.uint64)), OverflowError, "offsets has values beyond int64"),
    (lambda: Ragged.from_rows(5), TypeError, "rows must be a sequence of rows, got int"),
    (lambda: Ragged.from_rows("text"), TypeError, "rows must be a sequence of rows, got str"),
    (lambda: Ragged.from_rows([1, 2]), TypeError, "row 0 is int, expected a list, tuple or array"),
    (lambda: Ragged.from_rows(np.arange(3)), TypeError, "rows must be a sequence of rows, got a 1-D int64 array"),
    (lambda: Ragged.from_rows([[1], None]), TypeError, "row 1 is NoneType, expected a list, tuple or array"),
    (lambda: Ragged.from_rows([[1], ["a"]]), TypeError, "row 1, position 0: 'a' is not a number"),
    (lambda: Ragged.from_rows([[1], [2, 300]], np.uint8), OverflowError, "row 1, position 1: 300 does not fit uint8"),
    (lambda: Ragged.from_rows([[1], [2, 0.5]], np.uint8), TypeError, "row 1, position 1: float 0.5 in a uint8 column; pass dtype=np.float32 (or another float dtype) or round it first"),
    (lambda: Ragged.from_rows([[[1, 2]], [[3]]]), ValueError, "row 1, position 0: inner shape (2,) expected, got a list of 1"),
    (lambda: Ragged.from_rows([[1]], "S3"), TypeError, "cannot cast int64 to |S3: only numbers are cast"),
    (lambda: Ragged.from_rows([np.zeros(2), np.array(1)]), ValueError, "row 1 is a 0-D array; a row has at least one dimension"),
    (lambda: Ragged.from_rows([np.zeros((1, 2)), np.zeros((1, 3))]), ValueError, "row 1 has inner shape (3,), row 0 has (2,)"),
    (lambda: Ragged.from_rows([[], np.zeros((1, 2)), [[1, 2, 3]]]), ValueError, "row 2 has inner shape (3,), expected (2,)"),
    (lambda: Ragged.from_rows([np.zeros(1, np.int32), np.zeros(1)], np.int32), TypeError, "row 1: cannot cast float64 to int32 without loss; round it first"),
    (lambda: Ragged.from_rows([np.zeros(1, np.int32), ["a"]]), TypeError, "row 1, position 0: 'a' is not a number"),
    (lambda: Ragged.from_arrow([[1]]), TypeError, "expected an Arrow list array, got list"),
    (lambda: ROWS[3], IndexError, "row 3 is out of range: there are 3 rows"),
    (lambda: ROWS[-4], IndexError, "row -4 is out of range: there are 3 rows"),
    (lambda: ROWS["a"], TypeError, "rows are indexed by int or slice, got str; use .take(indices)"),
    (lambda: ROWS[[0, 1]], TypeError, "rows are indexed by int or slice, got list; use .take(indices)"),
    (lambda: ROWS.take([3]), IndexError, "row 3 is out of range: there are 3 rows"),
    (lambda: ROWS.take([0.5]), TypeError, "indices must hold integers, got float64"),
    (lambda: ROWS.take([True]), ValueError, "a bool selection needs one entry per row: 3, got (1,)"),
    (lambda: ROWS.astype(np.int8), OverflowError, "row 2, position 2: 600 does not fit int8"),
    (lambda: ROWS.astype(bool), OverflowError, "row 1, position 0: 2 does not fit bool"),
    (lambda: Ragged.from_rows([[0.5]]).astype(int), TypeError, "row 0: cannot cast float64 to int64 without loss; round it first"),
    (lambda: Ragged.from_rows([[0.5]]).astype("S3"), TypeError, "cannot cast float64 to |S3: only numbers are cast"),
    (lambda: Ragged(np.zeros(1, ">i4"), [0, 1]).to_arrow(), TypeError, "Arrow has no dtype like >i4; cast with .astype first"),
    (lambda: np.asarray(ROWS), TypeError, "a Ragged is no rectangle; use .values, or place it in a padded Layout (rollkit.place)"),
    (lambda: Layout.concat([1, -2]), ValueError, "lengths[1] is -2; lengths must be 0 or more"),
    (lambda: Layout.concat([1.5]), TypeError, "lengths must hold integers, got float64"),
    (lambda: Layout.concat([[1]]), ValueError, "lengths must be one-dimensional, got shape (1, 1)"),
    (lambda: Layout.concat([[1], [1, 2]]), ValueError, "lengths must be one-dimensional, got rows of different lengths"),
    (lambda: Layout.concat(["a"]), TypeError, "lengths must hold integers, got <U1"),
    (lambda: Layout.concat([1], align=0), ValueError, "align must be at least 1, got 0"),
    (lambda: Layout.concat([1], align=1.5), TypeError, "align must be an int, got float"),
    (lambda: Layout.concat([2**62, 2**62]), OverflowError, "the lengths up to row 1 add up to more than 2**63 - 1 elements"),
    (lambda: Layout.pad([1], side="top"), ValueError, "side must be one of 'left', 'right', got 'top'"),
    (lambda: Layout.pad([1, 5, 3], width=4), ValueError, "row 1 has 5 elements, more than width=4; pass a larger width, or truncate the rows"),
    (lambda: Layout.pad([1], width=-1), ValueError, "width must be at least 0, got -1"),
    (lambda: Layout.pad([1], multiple_of=0), ValueError, "multiple_of must be at least 1, got 0"),
    (lambda: Layout.pack([1], 4096, bins_multiple_of=10**18), OverflowError, "bins_multiple_of=1000000000000000000: bins of 4096 elements add up to more than 2**63 - 1 elements"),
    (lambda: pack({"response_ids": [[1]]}, 8, bins_multiple_of=2**62), OverflowError, "bins_multiple_of=4611686018427387904: bins of 8 elements add up to more than 2**63 - 1 elements"),
    (lambda: Layout.pack([1], 8, align=10**5000), OverflowError, "align is int with a number of too many digits, beyond int64"),
    (lambda: Layout.pack([1], 8, oversize=-10**5000), ValueError, "oversize must be one of 'raise', 'truncate', 'alone', 'drop', 'split', got int with a number of too many digits"),
    (lambda: Layout(range(1, 100), [], [], []), ValueError, "shape must have at most 64 dimensions"),
    (lambda: Layout.pack([1], 0), ValueError, "capacity must be at least 1, got 0"),
    (lambda: Layout.pack([1], "8"), TypeError, "capacity must be an int, got str"),
    (lambda: Layout.pack([1, 9], 8), ValueError, 'row 1 has 9 elements, more than the capacity of 8; raise capacity, or pass oversize="truncate", "alone", "drop" or "split"'),
    (lambda: Layout.pack([1], 8, algorithm="best"), ValueError, "algorithm must be one of 'first_fit_decreasing', 'best_fit_decreasing', 'first_fit', 'next_fit', got 'best'"),
    (lambda: Layout.pack([1], 8, oversize="cut"), ValueError, "oversize must be one of 'raise', 'truncate', 'alone', 'drop', 'split', got 'cut'"),
    (lambda: Layout.pack([1], 8, max_segments=0), ValueError, "max_segments must be at least 1, got 0"),
    (lambda: Layout.pack([1], 8, bins_multiple_of=0), ValueError, "bins_multiple_of must be at least 1, got 0"),
    (lambda: balance([1.5], 2), TypeError, "lengths must hold integers, got float64"),
    (lambda: balance([1, -1], 2), ValueError, "lengths[1] is -1; lengths must be 0 or more"),
    (lambda: balance([1], 0), ValueError, "parts must be at least 1, got 0"),
    (lambda: balance([1], 2, equal_counts="yes"), TypeError, "equal_counts must be True or False, got str"),
    (lambda: balance([1], 2, tolerance="x"), TypeError, "tolerance must be a number, got str"),
    (lambda: balance([1], 2, tolerance=float("nan")), ValueError, "tolerance must be at least 0, got nan"),
    (lambda: balance([1], 2, cost=(1, 2, 3)), ValueError, "cost must be (a, b), or one int per row, got a tuple of 3"),
    (lambda: balance([1], 2, cost=(1, -2)), ValueError, "cost[1] must be at least 0, got -2"),
    (lambda: balance([1], 2, cost=(1.5, 2)), TypeError, "cost[0] must be an int, got float"),
    (lambda: balance([1], 2, cost=[1, 2]), ValueError, "cost has 2 rows, lengths has 1; a cost per token and per square is a tuple (a, b)"),
    (lambda: balance([1], 2, cost=[1.5]), TypeError, "cost must hold integers, got float64"),
    (lambda: balance([1, 1], 2, cost=[1, -5]), ValueError, "row 1 costs -5; costs must be 0 or more"),
    (lambda: balance([1, 2**40], 2, cost=(1, 1)), OverflowError, "the costs up to row 1 add up to more than 2**63 - 1; give smaller costs"),
    (lambda: balance([2**62, 2**62], 2), OverflowError, "the costs up to row 1 add up to more than 2**63 - 1; give smaller costs"),
    (lambda: balance([2**62, 2**62], 2, cost=[1, 1], capacity=2**62), OverflowError, "the lengths up to row 1 add up to more than 2**63 - 1 elements"),
    (lambda: balance([1, 9], 2, capacity=8), ValueError, "row 1 has 9 elements, more than the capacity of 8; raise capacity, or cut the row"),
    (lambda: balance([1, 5, 4], 2, capacity=8, groups=["a", "b", "b"]), ValueError, "the group of row 1 has 9 elements, more than the capacity of 8; raise capacity, or split the group"),
    (lambda: balance([5, 5, 5], 2, capacity=8), ValueError, "parts is 2, first fit decreasing needs 3 of 8 elements; give more parts, or a larger capacity"),
    (lambda: balance([1], 2, capacity=0), ValueError, "capacity must be at least 1, got 0"),
    (lambda: balance([1], 2, groups=[1, 2]), ValueError, "groups has 2 rows, lengths has 1"),
    (lambda: balance([1], 2, groups=np.array(1)), TypeError, "groups must be a sequence, got int"),
    (lambda: balance([1], 2, groups=[np.array([1])]), TypeError, "groups[0] is ndarray, which cannot be grouped by; give one number, text or other hashable object per row"),
    (lambda: balance([1, 1], 2, groups=["a", None]), ValueError, "column 'groups': row 1 is None; give each row an id, or leave the column out"),
    (lambda: balance([1, 1], 2, groups=[np.nan, 1.0]), ValueError, "column 'groups': row 0 is nan; give each row an id, or leave the column out"),
    (lambda: balance([1], 2, groups=[[1]]), TypeError, "groups[0] is list, which cannot be grouped by; give one number, text or other hashable object per row"),
    (lambda: balance([1] * 6, 2, groups=[0, 0, 1, 1, 2, 2], equal_counts=True), ValueError, "whole groups go to 2 parts with 2 to 4 rows; leave equal_counts out, or give a number of parts that divides the groups"),
    (lambda: balance([8, 1, 1, 1], 2, equal_counts=True, capacity=8), ValueError, "no parts of equal counts within the capacity of 8 were found, the fullest has 9; leave equal_counts out, or give more parts or a larger capacity"),
    (lambda: imbalance([1, 2], [0]), ValueError, "assignment has 1 rows, lengths has 2"),
    (lambda: imbalance([1, 2], [0, -1]), ValueError, "row 1 is of part -1, expected one of 0 to 0"),
    (lambda: imbalance([1, 2], [0, 3], parts=2), ValueError, "row 1 is of part 3, expected one of 0 to 1"),
    (lambda: fit_cost([1, 2], [1, 2], [1]), ValueError, "tokens, squares and seconds have 2, 2, 1 batches"),
    (lambda: fit_cost([1, 2], [1, -2], [1, 2]), ValueError, "squares[1] is -2.0; measurements must be 0 or more"),
    (lambda: fit_cost([[1]], [1], [1]), ValueError, "tokens must be one-dimensional, got shape (1, 1)"),
    (lambda: fit_cost([1, 2], [3, 6], [1, 2]), ValueError, "tokens and squares are in one ratio in all batches, so that their costs cannot be told apart; measure some batches of short rows and some of long ones"),
    (lambda: fit_cost([1, 2], [3, 5], [0, 0]), ValueError, "seconds are 0 in all batches; measure what takes time"),
    (lambda: plan_steps([1, 9], capacity=8, ranks=2), ValueError, "row 1 has 9 elements, more than the capacity of 8; raise capacity, or cut the row"),
    (lambda: plan_steps([1], capacity=8, ranks=0), ValueError, "ranks must be at least 1, got 0"),
    (lambda: plan_steps([1], capacity=8, ranks=2, sync="never"), ValueError, "sync must be one of 'micro_batch', 'step', got 'never'"),
    (lambda: plan_steps([1], capacity=8, ranks=2, seed=-1), ValueError, "seed must be at least 0, got -1"),
    (lambda: plan_steps([1], capacity=8, ranks=2, max_segments=0), ValueError, "max_segments must be at least 1, got 0"),
    (lambda: plan_steps([1, 1], capacity=8, ranks=2, max_segments=1, groups=[0, 0]), ValueError, "the group of row 0 has 2 rows, more than max_segments=1; raise max_segments, or split the group"),
    (lambda: plan_steps([1, 1], capacity=8, ranks=2, home=[0]), ValueError, "home has 1 rows, lengths has 2"),
    (lambda: plan_steps([1, 1], capacity=8, ranks=2, home=[0, 2]), ValueError, "row 1 is at home on rank 2, expected one of 0 to 1, or -1 for none"),
    (lambda: plan_steps([1, 1], capacity=8, ranks=2, home=[0, -2]), ValueError, "row 1 is at home on rank -2, expected one of 0 to 1, or -1 for none"),
    (lambda: plan_steps([1, 1], capacity=8, ranks=2, nodes=["a", "b"]), TypeError, "nodes needs home, which says where each row is: a rank of its node"),
    (lambda: plan_steps([1, 1], capacity=8, ranks=2, home=[0, 1], nodes=["a"]), ValueError, "nodes has 1 ranks, there are 2"),
    (lambda: plan_steps([1, 1], capacity=8, ranks=2, home=[0, 1], nodes=["a", []]), TypeError, "nodes[1] is list; give an id that has a hash"),
    (lambda: plan_steps([1, 1], capacity=8, ranks=2, home=[0, 1], nodes=["a", ([],)]), TypeError, "nodes[1] is tuple; give an id that has a hash"),
    (lambda: plan_steps([1, 9], capacity=8, ranks=2, home=[0, 1], nodes=["a", "b"]), ValueError, "row 1 has 9 elements, more than the capacity of 8; raise capacity, or cut the row"),
    (lambda: plan_steps([2**62, 2**62], capacity=2**62, ranks=2, home=[0, 1], nodes=["a", "b"]), OverflowError, "the costs up to row 1 add up to more than 2**63 - 1; give smaller costs"),
    (lambda: plan_steps([1], capacity=8, ranks=2).rows(2, 0), ValueError, "rank must be below 2, got 2"),
    (lambda: plan_steps([1], capacity=8, ranks=2).layout(0, 1), ValueError, "t must be below 1, got 1"),
    (lambda: plan_steps([2**40], capacity=2**41, ranks=2, cost=(0, 1)), OverflowError, "the costs up to row 0 add up to more than 2**63 - 1; give smaller costs"),
    (lambda: Layout.union([]), ValueError, "layouts is empty; union needs at least one layout"),
    (lambda: Layout.union([Layout.concat([1]), Layout.concat([2])]), ValueError, "layouts must share one shape, got [(1,), (2,)]"),
    (lambda: Layout.union([Layout.concat([2]), Layout.concat([2])]), ValueError, "row 1 starts at element 0, but elements below 2 are taken; rows must be disjoint, and `order` must sort them by start"),
    (lambda: Layout.concat([1], multiple_of=0), ValueError, "multiple_of must be at least 1, got 0"),
    (lambda: Layout.concat([2**62 + 1], multiple_of=2**62), OverflowError, "4611686018427387905 elements, rounded up to multiple_of=4611686018427387904, are beyond int64"),
    (lambda: Layout.concat([8]).shard(0), ValueError, "size must be at least 1, got 0"),
    (lambda: Layout.concat([8]).shard("2"), TypeError, "size must be an int, got str"),
    (lambda: Layout.concat([8]).shard(2, "ring"), ValueError, "scheme must be one of 'zigzag', 'dual_chunk', 'striped', 'contiguous', 'balanced', got 'ring'"),
    (lambda: Layout.concat([8]).shard(2, align=0), ValueError, "align must be at least 1, got 0"),
    (lambda: Layout.concat([8]).shard(2**40, align=2**40), OverflowError, "size=1099511627776 parts of multiples of align=1099511627776 are beyond int64"),
    (lambda: Layout.concat([4, 6]).shard(2), ValueError, "row 1 has a slot of 6 tokens, which scheme='zigzag' cannot deal evenly; make it a multiple of 4: Layout.concat(…, align=4), Layout.pad(…, multiple_of=4), or Layout.pack(…, align=4) with such a capacity"),
    (lambda: Layout.pack([8, 6], 8, bins=3).shard(3, align=5), ValueError, "row 0 has a slot of 8 tokens, which scheme='zigzag' cannot deal evenly; make it a multiple of 30: Layout.concat(…, align=30), Layout.pad(…, multiple_of=30), or Layout.pack(…, align=30) with such a capacity"),
    (lambda: Layout((1, 6), [], [], []).shard(2), ValueError, "line 0 has 6 tokens, which scheme='zigzag' cannot deal evenly; make it a multiple of 4: Layout.concat(…, align=4), Layout.pad(…, multiple_of=4), or Layout.pack(…, align=4) with such a capacity"),
    (lambda: Layout.concat([4, 6]).shard(2, "dual_chunk"), ValueError, "a line has 10 tokens, which scheme='dual_chunk' cannot deal evenly; make it a multiple of 4: Layout.concat(…, multiple_of=4), Layout.pad(…, multiple_of=4), or a capacity of Layout.pack that is one"),
    (lambda: Layout.concat([4, 6]).shard(2, "striped", align=2), ValueError, "a line has 10 tokens, which scheme='striped' cannot deal evenly; make it a multiple of 4: Layout.concat(…, multiple_of=4), Layout.pad(…, multiple_of=4), or a capacity of Layout.pack that is one"),
    (lambda: Layout.pad([3]).shard(2, "contiguous"), ValueError, "a line has 3 tokens, which scheme='contiguous' cannot deal evenly; make it a multiple of 2: Layout.concat(…, multiple_of=2), Layout.pad(…, multiple_of=2), or a capacity of Layout.pack that is one"),
    (lambda: Layout.pack([3], 300).shard(2, "balanced"), ValueError, "a line has 300 tokens, which scheme='balanced' cannot deal evenly; make it a multiple of 256: Layout.concat(…, multiple_of=256), Layout.pad(…, multiple_of=256), or a capacity of Layout.pack that is one"),
    (lambda: Layout((256,), [0], [1], [2**62], [0], [2**62 - 1]).shard(2, "balanced"), OverflowError, "the costs of 2 blocks of rows of 4611686018427387904 tokens are beyond int64"),
    (lambda: PLAN.shifted(-1), ValueError, "by must be at least 0, got -1"),
    (lambda: PLAN.shifted(0.5), TypeError, "by must be an int, got float"),
    (lambda: Layout.stack([]), ValueError, "layouts is empty; stack needs at least one layout"),
    (lambda: Layout.stack([PLAN, 1]), TypeError, "layouts must be Layouts; layouts[1] is int"),
    (lambda: Layout.stack([PLAN, Layout.concat([1])]), ValueError, "layouts must share one shape, got [(1,), (3, 3)]"),
    (lambda: Layout.stack([Layout.concat([1, 2]), Layout.concat([2, 1])]), ValueError, "layouts must have the same rows; layouts[1] has others than layouts[0]"),
    (lambda: Layout.stack([Layout.concat([2])] * 2), ValueError, "pieces 0 and 1 both have element 0 of row 0"),
    (lambda: take([np.zeros(2)], Layout.concat([4]).shard(2, "contiguous")), ValueError, "there are 1 arrays and 2 layouts; give one for each"),
    (lambda: take([np.zeros(2), np.zeros(3)], Layout.concat([4]).shard(2, "contiguous")), ValueError, "array[1] must have shape (2,) (and inner dims), got (3,)"),
    (lambda: take([np.zeros(2), [1, 2]], Layout.concat([4]).shard(2, "contiguous")), ValueError, "array[1] must have shape (2,) (and inner dims), got list"),
    (lambda: take(np.zeros(4), Layout.concat([4]).shard(2, "contiguous")), ValueError, "array must have shape (2, 2) (and inner dims), got (4,)"),
    (lambda: take(np.zeros(4), []), ValueError, "layouts is empty; stack needs at least one layout"),
    (lambda: PLAN.row_sums([1]), TypeError, "array must be an array of NumPy, torch or JAX, got list"),
    (lambda: PLAN.row_sums(np.zeros(3)), ValueError, "array must have shape (3, 3) (and inner dims), got (3,)"),
    (lambda: PLAN.row_sums(np.full((3, 3), "a")), TypeError, "sum, mean and max are of real numbers, got <U1"),
    (lambda: PLAN.row_sums(np.full((3, 3), 2**62)), OverflowError, "row 1: the sum does not fit int64"),
    (lambda: PLAN.spread([1, 2]), ValueError, "numbers must be one for each of 3 rows, got shape (2,)"),
    (lambda: PLAN.spread(5), ValueError, "numbers must be one for each of 3 rows, got shape ()"),
    (lambda: Layout((4,), [0, 1], [2, 2], [2, 2]), ValueError, "row 1 starts at element 1, but elements below 2 are taken; rows must be disjoint, and `order` must sort them by start"),
    (lambda: Layout((4,), [3], [2], [2]), ValueError, "row 0 goes to elements 3 to 3 + 2 of an output that has 4"),
    (lambda: Layout((4,), [-2], [2], [2]), ValueError, "row 0 goes to elements -2 to -2 + 2 of an output that has 4"),
    (lambda: Layout((4,), [0], [-1], [2]), ValueError, "row 0 has length -1; lengths are ≥ 0"),
    (lambda: Layout((4,), [0], [3], [2]), ValueError, "row 0 has 2 elements, of which lengths places 3"),
    (lambda: Layout((4,), [-1], [1], [1]), ValueError, "row 0 is dropped (its start is -1), but its length is 1; a dropped row has length 0"),
    (lambda: Layout((4,), [0], [1, 1], [1]), ValueError, "lengths has 2 rows, starts has 1"),
    (lambda: Layout((4,), [0], [1], [1, 1]), ValueError, "row_lengths has 2 rows, starts has 1"),
    (lambda: Layout((-4,), [], [], []), ValueError, "shape must have one or more dimensions of 0 or more, got (-4,)"),
    (lambda: Layout((), [], [], []), ValueError, "shape must have one or more dimensions of 0 or more, got ()"),
    (lambda: PLAN.spans([0], [1]), ValueError, "lengths has 1 rows, the layout has 3"),
    (lambda: PLAN.spans([0, 1], [1]), ValueError, "lengths has 1 rows, the layout has 3"),
    (lambda: PLAN.spans([0, 1], [1, 1, 1]), ValueError, "begins has 2 rows, the layout has 3"),
    (lambda: PLAN.spans(0, [1, 1, 4]), ValueError, "row 2 has 3 elements; elements 0 to 4 are no part of it"),
    (lambda: PLAN.spans(-1, [1, 1, 1]), ValueError, "row 0 has 1 elements; elements -1 to 0 are no part of it"),
    (lambda: PLAN.spans(0.5, [1, 1, 1]), TypeError, "begins must hold integers, got float64"),
    (lambda: PLAN.select([3], 0, 1), IndexError, "row 3 is out of range: there are 3 rows"),
    (lambda: PLAN.select([0, 1], 1, 1), ValueError, "row 0 is not on lines 1 to 2 of a layout of shape (3, 3)"),
    (lambda: PLAN.select([0], -1, 1), ValueError, "first_line must be at least 0, got -1"),
    (lambda: PLAN.cu_seqlens(3), IndexError, "line 3 is out of range: the layout has shape (3, 3)"),
    (lambda: PLAN.segment_ids(np.zeros((3, 3), np.int64)), ValueError, "out must be int32 of shape (3, 3), got int64 of shape (3, 3)"),
    (lambda: PLAN.positions(np.zeros((3, 4), np.int32)), ValueError, "out must be int32 of shape (3, 3), got int32 of shape (3, 4)"),
    (lambda: PLAN.positions([0]), TypeError, "out must be a NumPy array, got list"),
    (lambda: PLAN.attention_mask(np.zeros((3, 6), np.uint8)[:, ::2]), ValueError, "out must be C-contiguous, aligned and writeable, got a strided array; np.empty makes one"),
    (lambda: PLAN.segment_ids(FROZEN), ValueError, "out must be C-contiguous, aligned and writeable, got a read-only array; np.empty makes one"),
    (lambda: place(5, PLAN), TypeError, "column must be a Ragged or a sequence of rows, got int"),
    (lambda: place({"a": 1}, PLAN), TypeError, "column must be a Ragged or a sequence of rows, got dict"),
    (lambda: place("text", PLAN), TypeError, "column must be a Ragged or a sequence of rows, got str"),
    (lambda: place(ROWS[:2], PLAN), ValueError, "the column has 2 rows, the layout has 3"),
    (lambda: place(ROWS[::-1], PLAN), ValueError, "row 0 has 3 elements, the layout has 1 for it"),
    (lambda: place(ROWS, PLAN, fill=0.5), OverflowError, "fill=0.5 does not fit int64"),
    (lambda: place(ROWS, PLAN, fill=None), TypeError, "fill=None is no int64 of inner shape ()"),
    (lambda: place(ROWS, PLAN, fill="x"), TypeError, "fill='x' is no int64 of inner shape ()"),
    (lambda: place(ROWS, PLAN, fill=[1, 2]), ValueError, "fill of shape (2,) is no int64 of inner shape ()"),
    (lambda: place(ROWS, PLAN, fill=300, dtype=np.int16, out=np.zeros((3, 3), np.int8)), ValueError, "out must be int16 of shape (3, 3), got int8 of shape (3, 3)"),
    (lambda: place(ROWS, PLAN, fill=300, dtype=np.int8), OverflowError, "fill=300 does not fit int8"),
    (lambda: place(ROWS[2:], Layout.concat([3]), dtype=np.int8), OverflowError, "row 0, position 2: 600 does not fit int8"),
    (lambda: place(Ragged.from_rows([[1.5]]), Layout.concat([1]), fill=1e39, dtype=np.float32), OverflowError, "fill=1e+39 does not fit float32"),
    (lambda: place(Ragged.from_rows([[1.5]]), Layout.concat([1]), dtype=int), TypeError, "row 0: cannot cast float64 to int64 without loss; round it first"),
    (lambda: place(ROWS, PLAN, out=[0]), TypeError, "out must be a NumPy array, got list"),
    (lambda: place(ROWS, PLAN, out=np.zeros((3, 3), np.int32)), ValueError, "out must be int64 of shape (3, 3), got int32 of shape (3, 3)"),
    (lambda: place(ROWS, PLAN, out=np.zeros(9, np.int64)), ValueError, "out must be int64 of shape (3, 3), got int64 of shape (9,)"),
    (lambda: place(ROWS, PLAN, out=np.zeros((3, 6), np.int64)[:, ::2]), ValueError, "out must be C-contiguous, aligned and writeable, got a strided array; np.empty makes one"),
    (lambda: place(ROWS, Layout.concat([1, 2, 3]), out=ROWS.values), ValueError, "out shares memory with an input; pass a buffer of its own"),
    (lambda: place([ROWS, UNSIGNED], PLAN), TypeError, "parts[1] is uint64, parts[0] is int64: no integer dtype holds int64 and uint64; cast one with .astype"),
    (lambda: place([ROWS, Ragged.from_rows([[[1, 2]]])], PLAN), ValueError, "parts[1] has inner shape (2,), parts[0] has ()"),
    (lambda: place(Ragged(np.array([None]), [0, 1]), Layout.concat([1])), TypeError, "the column has dtype object, which holds Python objects; expected numbers"),
    (lambda: take([1, 2], PLAN), TypeError, "array must be an array of NumPy, torch or JAX, got list"),
    (lambda: take(np.zeros((3, 4)), PLAN), ValueError, "array must have shape (3, 3) (and inner dims), got (3, 4)"),
    (lambda: concat(5), TypeError, "parts must be a sequence of Ragged or Rollouts, got int"),
    (lambda: concat([]), ValueError, "parts is empty; concat needs at least one part"),
    (lambda: concat([ROWS, [1]]), TypeError, "parts must be all Ragged or all Rollouts; parts[1] is list"),
    (lambda: concat([ROWS, COLUMNS]), TypeError, "parts must be all Ragged or all Rollouts; parts[1] is Rollouts"),
    (lambda: concat([COLUMNS, {"response_ids": [[1]]}]), TypeError, "parts must be all Ragged or all Rollouts; parts[1] is dict; Rollouts takes dicts of columns"),
    (lambda: concat([TABLE, COLUMNS]), TypeError, "parts must be all Ragged or all Rollouts; parts[0] is Table; Rollouts.from_arrow takes tables, Ragged.from_arrow list arrays"),
    (lambda: Rollouts.from_arrow({"train": TABLE, "test": TABLE}), TypeError, "table must be an Arrow table, got dict; take one of its tables: 'train', 'test'"),
    (lambda: Rollouts.from_arrow({}), TypeError, "table must be an Arrow table, got dict; take one of its tables: none"),
    (lambda: Rollouts.from_arrow([TABLE]), TypeError, "table must be an Arrow table, got list; take each, and rollkit.concat what comes of them"),
    (lambda: pack({"train": TABLE}, 4), TypeError, "column 'train': expected an array of Arrow, got a table; take one of its columns, or of several tables one"),
    (lambda: Rollouts({**VALID, "sampling_masks": [[[1, -1], [2]]]}).validate(), ValueError, "column 'sampling_masks': row 0, position 0: -1 is wrong; expected a token id, 0 or more"),
    (lambda: pack({**VALID, "kept_token_ids": [[[1], [2, -7]]]}, 4, validate=True), ValueError, "column 'kept_token_ids': row 0, position 1: -7 is wrong; expected a token id, 0 or more"),
    (lambda: Rollouts({**VALID, "sampling_mask": [[[], [1, 3]]]}).validate(), ValueError, "column 'sampling_mask': row 0, position 1: the sampled token 2 is not among its 2 kept ids"),
    (lambda: Rollouts({**VALID, "sampling_masks": [[[1]]]}).validate(), ValueError, "column 'sampling_masks': row 0 has 1 elements, its response has 2 tokens"),
    (lambda: Rollouts({**VALID, "sampling_masks": [[[[1]], [[2]]]]}).validate(), ValueError, "column 'sampling_masks': expected a list of ids per token, got lists of elements of shape (1,)"),
    (lambda: Rollouts({**VALID, "model_versions": [[3]]}).validate(), ValueError, "column 'model_versions': row 0 has 1 elements, its response has 2 tokens"),
    (lambda: labels({"input_ids": np.zeros((1, 2), int)}), TypeError, "batch must be a Batch, got dict; pack and pad make one"),
    (lambda: labels(BARE), TypeError, "this batch has no layout: " + BARE_OF),
    (lambda: rollkit.next_token_logprobs(np.zeros((1, 2, 3)), BARE), TypeError, "this batch has no layout: " + BARE_OF),
    (lambda: rollkit.segments.Runs.of(BARE), AttributeError, "this batch has no layout: " + BARE_OF),
    (lambda: delattr(BATCH, "layout"), AttributeError, "a Batch does not change: 'layout' is not deleted"),
    (lambda: delattr(BATCH, "arrays"), AttributeError, "a Batch does not change: 'arrays' is not deleted"),
    (lambda: setattr(BATCH, "rows", {}), AttributeError, "rows of a Batch: it does not change; pack and pad make another"),
    (lambda: setattr(BATCH, "x", 1), AttributeError, 'a Batch does not change; batch | {"x": array} makes one with more arrays'),
    (lambda: concat([ROWS], out=np.zeros(5, np.int64)), ValueError, "out must have room for 6 elements, got 5"),
    (lambda: concat([ROWS], out=ROWS.values), ValueError, "out shares memory with an input; pass a buffer of its own"),
    (lambda: concat([COLUMNS], out={"tags": np.zeros(5)}), ValueError, "out has column 'tags', which is no Ragged; leave it out"),
    (lambda: concat([COLUMNS], out={"response": np.zeros(5)}), ValueError, "out has column 'response', which is not in parts[0]; leave it out"),
    (lambda: concat([COLUMNS], out={"response_ids": [0]}), TypeError, "column 'response_ids': out must be a NumPy array, got list"),
    (lambda: concat([COLUMNS], out={"response_ids": np.zeros(1, np.int32)}), ValueError, "column 'response_ids': out must have room for 3 elements, got 1"),
    (lambda: COLUMNS.ragged("tags"), TypeError, "column 'tags' is a list of objects, expected a Ragged; index rollouts['tags'] for it"),
    (lambda: concat([COLUMNS], out=np.zeros(5)), TypeError, "out must be a dict of arrays by column for Rollouts, got ndarray"),
    (lambda: concat([COLUMNS, COLUMNS.with_columns(x=[1])]), ValueError, "columns must have equal row counts: 'x' has 1, 'response_ids' has 2"),
    (lambda: concat([COLUMNS, Rollouts({"response_ids": UNSIGNED, "tags": ["a"]})]), TypeError, "column 'response_ids': parts[1] is uint64, parts[0] is int32: no integer dtype holds int32 and uint64; cast one with .astype"),
    (lambda: concat([COLUMNS, Rollouts({"response_ids": [[1]], "tags": [1]})]), TypeError, "column 'tags' is list in some parts and ndarray in others"),
    (lambda: Rollouts({"a": [1], "b": [1, 2]}), ValueError, "columns must have equal row counts: 'b' has 2, 'a' has 1"),
    (lambda: Rollouts({"response_ids": None}), TypeError, "column 'response_ids': expected a Ragged, an array or a list, got NoneType"),
    (lambda: Rollouts({"response_ids": [[1], None]}), ValueError, "column 'response_ids': row 1 is None, others are not; give all rows or leave the column out"),
    (lambda: Rollouts({"response_ids": [None]}), ValueError, "column 'response_ids': all rows are None; leave the column out"),
    (lambda: Rollouts({"response_ids": [["a"]]}), TypeError, "column 'response_ids': row 0, position 0: 'a' is not a number"),
    (lambda: Rollouts({"response_ids": [[2**40]]}), OverflowError, "column 'response_ids': row 0, position 0: 1099511627776 does not fit int32"),
    (lambda: Rollouts({"rewards": [1.0, "a"]}), TypeError, "column 'rewards': row 1: 'a' is no number"),
    (lambda: Rollouts({"x": np.array(1)}), TypeError, "column 'x': expected a row per rollout, got a 0-D array"),
    (lambda: Rollouts.from_rows([{"a": 1}, {"b": 1}]), ValueError, "row 1 and row 0 differ in keys: 'a', 'b'"),
    (lambda: Rollouts.from_generator_output({"a": 1}), ValueError, "no 'response_ids' (nor 'input_ids') among 'a'"),
    (lambda: Rollouts.from_generator_output({}), ValueError, "no 'response_ids' (nor 'input_ids') among no keys"),
    (lambda: COLUMNS["nothing"], KeyError, "no column 'nothing'; there are 'response_ids', 'tags'"),
    (lambda: COLUMNS.take([5]), IndexError, "row 5 is out of range: there are 2 rows"),
    (lambda: pack([], 8), ValueError, "rollouts is empty; give at least one part"),
    (lambda: pack(5, 8), TypeError, "rollouts must be Rollouts, a GeneratorOutput-shaped dict or a sequence of them, got int"),
    (lambda: pack([5], 8), TypeError, "rollouts must be Rollouts or GeneratorOutput-shaped dicts; part 0 is int"),
    (lambda: pack({"response_ids": [[1]]}), TypeError, "pack needs a capacity, or a layout"),
    (lambda: pack({"response_ids": [[1]]}, 8, layout=Layout.pack([1], 8)), TypeError, "pack takes a capacity or a layout, not both: a layout has its capacity"),
    (lambda: pack({"response_ids": [[1]], "a": [[1]]}, 8, fills={"b": 1}), ValueError, "fills has 'b', which is no token column; there are 'a', 'loss_masks'"),
    (lambda: pad({"response_ids": [[1]]}, dtypes={"segment_ids": np.int64}), ValueError, "dtypes has 'segment_ids', which is no token column; there are 'input_ids', 'loss_masks'"),
    (lambda: pad({"response_ids": [[1]], "positions": [[1]]}), ValueError, "column 'positions': a batch makes this array itself; rename or leave out the column"),
    (lambda: pack({"loss_masks": [[1]]}, 8), ValueError, "no 'response_ids' (nor 'input_ids') among 'loss_masks'"),
    (lambda: pack({"response_ids": [[1] * 9]}, 8), ValueError, 'row 0 has 9 elements, more than the capacity of 8; raise capacity, or pass oversize="truncate", "alone", "drop" or "split"'),
    (lambda: pack(COLUMNS, layout=Layout.pack([1], 8)), ValueError, "there are 2 rollouts, the layout has 1 rows"),
    (lambda: pack(COLUMNS, layout=Layout.pack([1, 3], 8)), ValueError, "row 1 has 2 tokens (prompt and response), the layout has 3 for it"),
    (lambda: pack({"prompt_token_ids": [[1]], "input_ids": [[1]]}, 8), ValueError, "'input_ids' holds whole sequences; 'prompt_token_ids' goes with 'response_ids'"),
    (lambda: pack({"prompt_token_ids": [[1]], "response_ids": [[1], [2]]}, 8), ValueError, "'prompt_token_ids' has 1 rows, 'response_ids' has 2"),
    (lambda: pack({"response_ids": [[1], ["a"]]}, 8), TypeError, "column 'response_ids': row 1, position 0: 'a' is not a number"),
    (lambda: pack({"response_ids": [np.array([1]), np.array([2**40])]}, 8), OverflowError, "column 'input_ids': row 1, position 0: 1099511627776 does not fit int32"),
    (lambda: pack({"prompt_token_ids": [[1], [1]], "response_ids": [np.array([1]), np.array([2**40])]}, 8), OverflowError, "column 'response_ids': row 1, position 0: 1099511627776 does not fit int32"),
    (lambda: pack({"response_ids": [np.array([0.5])]}, 8), TypeError, "column 'response_ids': row 0: expected integers, got float64; round them first"),
    (lambda: pack({"response_ids": [[1], [2]], "loss_masks": [[1], [1, 1]]}, 8), ValueError, "column 'loss_masks': row 1 has 2 elements; its prompt has 0 tokens, its response 1"),
    (lambda: pack({"response_ids": [[1], [2]], "loss_masks": [[1]]}, 8), ValueError, "column 'loss_masks' has 1 rows, there are 2"),
    (lambda: pack({"response_ids": [[1], [2]], "rewards": [1.0]}, 8), ValueError, "column 'rewards' has 1 rows, 'response_ids' has 2"),
    (lambda: pack({"response_ids": [[1], []], "rewards": [1.0, 1.0]}, 8), ValueError, "column 'rewards': row 1 has reward 1.0 and an empty response, so no token to put it on; drop the rollout or set the reward to 0"),
    (lambda: pack({"response_ids": [[1], [2]], "x": [[1, 2], [1]]}, 8), ValueError, "column 'x': row 0 has 2 elements; its prompt has 0 tokens, its response 1; to carry rows that are no tokens along, wrap each in a dict"),
    (lambda: Rollouts({"rewards": [1, 2**70]}), OverflowError, "column 'rewards': row 1: 1180591620717411303424 does not fit 64 bits"),
    (lambda: Rollouts({"rewards": [np.complex64(1)]}), TypeError, "column 'rewards': row 0: np.complex64(1+0j) is no number"),
    (lambda: pack({"response_ids": [[1], [2]], "rewards": ["a", "b"]}, 8), TypeError, "column 'rewards': row 0: 'a' is no number"),
    (lambda: pack({"response_ids": [[1, 2, 3]], "rollout_expert_indices": [[[1]] * 4]}, 8), ValueError, "column 'rollout_expert_indices': row 0 has 4 elements for 3 tokens; expected one per token of prompt and response, the last ones may be missing"),
    (lambda: pack([{"response_ids": [[1]]}, {"response_ids": [[1]], "x": [[1]]}], 8), ValueError, "rollouts[1] and rollouts[0] differ in columns: 'x'"),
    (lambda: pack([{"response_ids": [[1]], "x": [[1]]}, {"response_ids": [[1]], "x": [1]}], 8), TypeError, "column 'x' has rows of elements in some parts and one entry per row in others"),
    (lambda: pack([{"response_ids": [[1]]}, {"response_ids": [["a"]]}], 8), TypeError, "column 'response_ids' of rollouts[1]: row 0, position 0: 'a' is not a number"),
    (lambda: pack({"response_ids": [[1]]}, 8, out={}), TypeError, "out must be a Batch, got dict"),
    (lambda: pack({"response_ids": [[1]]}, 8, fills={"input_ids": 1}), ValueError, "fills has 'input_ids', whose padding is pad_id"),
    (lambda: pack({"response_ids": [[1]], "loss_masks": [[1]]}, 8, fills={"loss_masks": 256}), OverflowError, "column 'loss_masks': fill=256 does not fit uint8"),
    (lambda: pack({"response_ids": [[1]]}, 8, pad_id=2**40), OverflowError, "column 'input_ids': fill=1099511627776 does not fit int32"),
    (lambda: pad({"response_ids": [[1, 2]]}, width=1), ValueError, "row 0 has 2 elements, more than width=1; pass a larger width, or truncate the rows"),
    (lambda: pad({"response_ids": [[1, 2]]}, side="top"), ValueError, "side must be one of 'left', 'right', got 'top'"),
    (lambda: BATCH["nothing"], KeyError, "no array 'nothing'; there are 'input_ids', 'segment_ids', 'positions', 'attention_mask', 'loss_masks'"),
    (lambda: BATCH.unpack(np.zeros((1, 3))), ValueError, "array must have shape (1, 2) (and inner dims), got (1, 3)"),
    (lambda: BATCH.unpack([1]), TypeError, "array must be an array of NumPy, torch or JAX, got list"),
    (lambda: BATCH.to("tensorflow"), ValueError, "target must be one of 'numpy', 'torch', 'jax', or a device ('cpu', 'cuda:0'), got 'tensorflow'"),
    (lambda: BATCH.to("numpy", "cuda"), ValueError, "NumPy arrays are on the CPU and take no options, got device='cuda'"),
    (lambda: concat([ROWS, UNSIGNED]), TypeError, "parts[1] is uint64, parts[0] is int64: no integer dtype holds int64 and uint64; cast one with .astype"),
    (lambda: save(COLUMNS, "s3://bucket/a.arrow"), ValueError, "s3://bucket/a.arrow: URLs of s3 are not taken here; copy the file here first, or write to a folder"),
    (lambda: save(COLUMNS, "a.txt"), ValueError, "a.txt: unknown kind of file '.txt'; expected .arrow, .feather, .ipc, .parquet, .safetensors, .jsonl, .ndjson, .json"),
    (lambda: save(COLUMNS, "a.jsonl.gz"), ValueError, "a.jsonl.gz: unknown kind of file '.gz'; expected .arrow, .feather, .ipc, .parquet, .safetensors, .jsonl, .ndjson, .json; compress the file afterwards"),
    (lambda: save(COLUMNS, 5), TypeError, "expected a path, got int"),
    (lambda: save(5, "a.jsonl"), TypeError, "rollouts must be Rollouts, a GeneratorOutput-shaped dict or a sequence of them, got int"),
    (lambda: save(Rollouts({"x": [[1], [2]], "y": [None, {"a": (1,)}]}), "a.safetensors"), TypeError, "column 'y': row 1 has a tuple, which JSON does not hold; make it text, a number, a list or a dict"),
    (lambda: read("ftp://bucket/a.arrow"), ValueError, "ftp://bucket/a.arrow: URLs of ftp are not read; those of s3, gs, az, http, https are"),
    (lambda: read("s3://bucket"), ValueError, "s3://bucket: names no file; a URL is of one file, such as s3://bucket/rollouts.parquet"),
    (lambda: read("none/*.jsonl"), ValueError, "none/*.jsonl: no file matches"),
    (lambda: read([]), ValueError, "paths is empty; give at least one file"),
    (lambda: PLAN.segment_ids(np.frombuffer(bytearray(37), np.uint8)[1:].view(np.int32).reshape(3, 3)), ValueError, "out must be C-contiguous, aligned and writeable, got a misaligned array; np.empty makes one"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED, ids=[case[2][:60] for case in REFUSED])
def test_refused(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    check_refusal(call, kind, message)


def test_every_public_function_refuses_something() -> None:
    """The table has a line for each public function of rows, layouts and batches."""
    lines = {name for call, _, _ in REFUSED for name in call.__code__.co_names}
    wanted = {"concat", "pack", "pad", "place", "take", "spans", "select", "union", "cu_seqlens"}
    wanted |= {"segment_ids", "positions", "attention_mask", "from_rows", "from_arrow", "to_arrow", "astype"}
    wanted |= {"read", "save", "from_generator_output", "unpack", "to", "Layout", "Ragged", "Rollouts"}
    assert wanted <= lines


def test_a_refused_place_of_a_bad_layout_writes_nothing() -> None:
    out = np.full(6, 7)
    with pytest.raises(ValueError, match="elements, the layout has"):
        place(ROWS, Layout.concat([2, 2, 2]), out=out)
    assert out.tolist() == [7] * 6
