"""A batch where rollouts are expected: its lines are bins, and no rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.house.refusals import check_refusal

import rollkit

SAID = (
    "expected rollouts, got a Batch: its lines are laid out, and no rows; "
    "batch.unpack(name) and batch.rows have those"
)
TAKE_ROLLOUTS: list[Callable[[Any], Any]] = [
    rollkit.Rollouts,
    rollkit.Rollouts.from_generator_output,
    rollkit.loss_totals,
    rollkit.loss_weights,
    rollkit.merge_steps,
    rollkit.mask_overlong,
    rollkit.mask_zero_variance,
    rollkit.pad,
    rollkit.rollout_metrics,
    rollkit.Forest.build,
    lambda found: rollkit.advantages(found, by=[0]),
    lambda found: rollkit.Bins(found, 8),
    lambda found: rollkit.pack(found, 8),
    lambda found: rollkit.pack([found, found], 8),
    lambda found: rollkit.pack(found, 8, share_prefixes=True),
    lambda found: rollkit.save(found, "rows.arrow"),
]


@pytest.mark.parametrize("call", TAKE_ROLLOUTS)
@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_is_no_rollouts(call: Callable[[Any], Any], shared: bool) -> None:
    rollouts = {"prompt_token_ids": [[1], [1]], "response_ids": [[4], [5, 6]], "rewards": [1.0, -1.0]}
    batch = rollkit.pack(rollouts, 8, share_prefixes=shared)
    check_refusal(lambda: call(batch), TypeError, SAID)
