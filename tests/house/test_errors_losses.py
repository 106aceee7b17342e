"""Every refusal of loss weights, scans over tokens and what belongs to them; see `test_errors`."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.house.refusals import check_refusal

import rollkit as typed

# Arguments of wrong types are what this file is about.
rollkit: Any = typed
LOSS_TOTALS = rollkit.loss_totals([[1, 0], [1]], groups=["a", "b"])

# fmt: off
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: rollkit.loss_weights([[1]],normalize="mean"), ValueError, "normalize must be one of 'token', 'sequence', 'prompt', 'constant', 'sequence_sum', got 'mean'"),
    (lambda: rollkit.loss_weights([[1]],normalize="constant"), TypeError, 'constant goes with normalize="constant": give both, or neither'),
    (lambda: rollkit.loss_weights([[1]],constant=3), TypeError, 'constant goes with normalize="constant": give both, or neither'),
    (lambda: rollkit.loss_weights([[1]],normalize="constant",constant=0), ValueError, "constant must be above 0, got 0"),
    (lambda: rollkit.loss_weights([[1]],normalize="prompt"), TypeError, 'normalize="prompt" needs groups: one id per row, or the name of a column'),
    (lambda: rollkit.loss_weights([[1]],dtype=np.float16), TypeError, "dtype must be float32 or float64, got float16; narrower ones lose weights"),
    (lambda: rollkit.loss_weights([[1]],scale=float("nan")), ValueError, "scale must be finite, got nan"),
    (lambda: rollkit.loss_weights([[0],[1]],scale=1e300), OverflowError, "column 'loss_weights': row 1 has the weight 1e+300, which does not fit float32"),
    (lambda: rollkit.loss_weights([[0],[1]],scale=1e-300), OverflowError, "column 'loss_weights': row 1 has the weight 1e-300, which does not fit float32"),
    (lambda: rollkit.loss_weights([[1]],totals=3), TypeError, "totals must be Totals, as loss_totals returns them, got int"),
    (lambda: rollkit.loss_weights([[1,1,1]],totals=rollkit.loss_totals([[1]])), ValueError, "totals have 1 loss tokens in 1 rows, here are 3 in 1; they must be of the whole optimizer batch"),
    (lambda: rollkit.loss_weights([[1]],totals=rollkit.loss_totals([[1]]),empty="count"), ValueError, "totals are of empty='skip', these weights of empty='count'"),
    (lambda: rollkit.loss_weights([[1]],normalize="prompt",groups=[1],totals=rollkit.loss_totals([[1]])), ValueError, "totals have no groups; give groups= to loss_totals too"),
    (lambda: rollkit.loss_weights([[1]],normalize="prompt",groups=["c"],totals=LOSS_TOTALS), ValueError, "totals have nothing of groups 'c', here are 1 loss tokens"),
    (lambda: rollkit.loss_weights([[1,1]],normalize="prompt",groups=["a"],totals=LOSS_TOTALS), ValueError, "totals have only 1 loss tokens of groups 'a', here are 2 loss tokens"),
    (lambda: rollkit.loss_weights([[1]],normalize="sequence",trajectories=[1],totals=rollkit.loss_totals([[1]])), ValueError, "totals have no trajectories; give trajectories= to loss_totals too"),
    (lambda: rollkit.loss_weights([[1]],normalize="sequence",totals=rollkit.loss_totals([[1]],trajectories=[1])), ValueError, "totals have trajectories, these rows have none; give trajectories= here too"),
    (lambda: rollkit.loss_totals([[1],[1]],groups=["a"]), ValueError, "groups must be one id per row, 2, got 1"),
    (lambda: rollkit.loss_totals([[1],[1]],groups=["a",None]), ValueError, "column 'groups': row 1 is None; give each row an id, or leave the column out"),
    (lambda: rollkit.loss_totals([[1],[1]],groups=[0,3],num_groups=3), ValueError, "column 'groups': row 1 is 3; num_groups=3 wants ints from 0 to 2"),
    (lambda: rollkit.loss_totals([[1],[1]],groups=["a","b"],num_groups=3), ValueError, "column 'groups': row 0 is 'a'; num_groups=3 wants ints from 0 to 2"),
    (lambda: rollkit.loss_totals([[1],[1]],num_groups=3), TypeError, "num_groups goes with groups, one int per row"),
    (lambda: rollkit.loss_totals([[1],[1]],groups="instance_ids"), TypeError, "groups='instance_ids' names a column, and masks has none; give one id per row"),
    (lambda: LOSS_TOTALS.array(), ValueError, "groups are not 0 to 1, which the places of an array stand for; give loss_totals ints and num_groups=, or gather the totals themselves and add them"),
    (lambda: rollkit.Totals.from_array([1]), ValueError, "array must be tokens, rows, tokens by group, and by 0 trajectories, each 0 or more; got [1]"),
    (lambda: rollkit.Totals.from_array([3,1,2,1,3]), ValueError, "array has 3 tokens, but its 3 groups have 6; give the num_trajectories that loss_totals was told, got 0"),
    (lambda: rollkit.Totals.from_array([3,1,2,1,3], num_trajectories=2), ValueError, "array has 3 tokens, but its 1 groups have 2; give the num_trajectories that loss_totals was told, got 2"),
    (lambda: LOSS_TOTALS+rollkit.loss_totals([[1]]), ValueError, "one of the totals has groups, the other has none; give groups= for all parts"),
    (lambda: LOSS_TOTALS+rollkit.loss_totals([[1]],empty="count"), ValueError, "totals of empty='skip' and of empty='count' do not add up"),
    (lambda: rollkit.soft_overlong_penalty({"response_ids":[[1]],"rewards":[1.0]},max_length=3,cache=4), ValueError, "cache must be at most max_length, 3, got 4"),
    (lambda: rollkit.soft_overlong_penalty({"response_ids":[[1]],"rewards":[1.0]},max_length=3,cache=2,factor=-1), ValueError, "factor must be 0 or more, got -1.0"),
    (lambda: rollkit.gae([[1.0]],[[1.0,2.0]],gamma=1.0,lam=1.0), ValueError, "column 'values': row 0 has 2 elements, its rewards has 1"),
    (lambda: rollkit.gae([[1.0]],[[1.0],[2.0]],gamma=1.0,lam=1.0), ValueError, "column 'values': has 2 rows, rewards has 1"),
    (lambda: rollkit.gae([[1.0]],[[1.0]],gamma=1.5,lam=1.0), ValueError, "gamma must be from 0 to 1, got 1.5"),
    (lambda: rollkit.gae([1.0,2.0],[[1.0]],gamma=1.0,lam=1.0), ValueError, "column 'rewards': has 2 entries, there are 1 rows"),
    (lambda: rollkit.gae(np.zeros(3),np.zeros(2),gamma=1.0,lam=1.0), ValueError, "values has shape (2,), rewards has (3,); expected [T] or [B, T]"),
    (lambda: rollkit.gae(np.zeros(3),1.0,gamma=1.0,lam=1.0), TypeError, "values must be an array or rows, got float"),
    (lambda: rollkit.gae([[1.0]],[[1.0]],gamma=1.0,lam=1.0,segment_ids=np.ones(1,int)), TypeError, "segment_ids goes with arrays; rows say themselves where they end"),
    (lambda: rollkit.gae(np.zeros(3),np.zeros(3),gamma=1.0,lam=1.0,segment_ids=np.zeros(3)), TypeError, "segment_ids must hold integers, got float64"),
    (lambda: rollkit.returns(np.array(["a"]),gamma=1.0), TypeError, "rewards must hold numbers, got <U1"),
    (lambda: rollkit.gae([None,1.0],[[1.0],[1.0]],gamma=1.0,lam=1.0), ValueError, "column 'rewards': row 0 is None; score it, leave the rollout out, or give 0"),
    (lambda: rollkit.returns([1.0,2.0],gamma=1.0), TypeError, "column 'rewards': row 0 is float, expected a list, tuple or array"),
    (lambda: rollkit.gae([[[1.0]]],[[1.0]],gamma=1.0,lam=1.0), ValueError, "column 'rewards': expected a number per token, got elements of shape (1,)"),
    (lambda: rollkit.whiten([[1.0]],[[1,1]]), ValueError, "column 'loss_masks': row 0 has 2 elements, its values 1"),
    (lambda: rollkit.whiten([[1.0]],[[1],[1]]), ValueError, "column 'loss_masks': has 2 rows, values has 1"),
    (lambda: rollkit.whiten([[1.0],[2.0,1e200]]), ValueError, "column 'values': row 1, position 1: 1e+200 has no finite square, which would spoil the whole batch; mend or mask it"),
    (lambda: rollkit.Moments.of([[float("nan")],[float("nan")]],[[0],[1]]), ValueError, "column 'values': row 1, position 0: nan has no finite square, which would spoil the whole batch; mend or mask it"),
    (lambda: rollkit.advantages({"response_ids":[[1],[2]],"rewards":[1e308,-1e308],"instance_ids":[1,1]}), OverflowError, "column 'rewards': row 0 has the advantage nan, which does not fit float32; scale the rewards"),
    (lambda: rollkit.whiten([[1.0]],moments=3), TypeError, "moments must be Moments, got int"),
    (lambda: rollkit.whiten([[1.0]],eps=-1), ValueError, "eps must be 0 or more, got -1"),
    (lambda: rollkit.Moments.from_array([1,2]), ValueError, "array must be count, sum and squares, got shape (2,)"),
    (lambda: rollkit.advantages({"response_ids":[[1]],"rewards":[1.0]},estimator="reinforce_plus_plus",ignore="masked"), TypeError, "ignore goes with comparisons in a group, not with estimator='reinforce_plus_plus'"),
    (lambda: rollkit.advantages({"response_ids":[[1]],"rewards":[1.0],"instance_ids":[1]},moments=rollkit.Moments.of([[1.0]])), TypeError, "moments goes with estimator=\"reinforce_plus_plus\", not 'grpo'"),
    (lambda: rollkit.advantages({"response_ids":[[1]],"rewards":[float("nan")]},estimator="reinforce_plus_plus"), ValueError, "column 'rewards': row 0 has a return or advantage of nan; its rewards or values are not finite"),
    (lambda: rollkit.advantages({"response_ids":[[1]],"rewards":[1.0],"values":[[1.0]]},estimator="gae",moments=rollkit.Moments.of([[1.0]])), TypeError, 'moments goes with estimator="reinforce_plus_plus"; whiten takes those of "gae"'),
    (lambda: rollkit.loss_totals([[[1]]]), TypeError, "loss_masks must have one element per token, got elements of shape (1,)"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    check_refusal(call, kind, message)
