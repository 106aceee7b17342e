"""A run through it all, as `examples/grpo.py` shows: gradients do not know the split, and rewards rise."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.paths import ROOT
from tests.thorough import LEVEL


@pytest.fixture(scope="module")
def grpo() -> Iterator[Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / "grpo.py")))
    torch.set_num_threads(before)


@pytest.mark.parametrize("ways", [1, 2, 7])
def test_the_gradient_is_that_of_a_padded_batch(grpo: Any, ways: int) -> None:
    assert grpo.check_gradient(ways) < 1e-10


@pytest.mark.parametrize("capacity", [10, 37, 1280])
def test_whatever_a_micro_batch_holds(grpo: Any, capacity: int) -> None:
    rollouts = grpo.answers(grpo.small_model(), 0)[::4]
    model = grpo.small_model(seed=1).double()
    batches = [
        batch
        for rank in range(2)
        for batch in grpo.micro_batches(rollouts, rank, capacity=capacity, dtype=np.float64)
    ]
    wanted = grpo.gradient(model, iter([grpo.padded_loss(model, rollouts)]))
    found = grpo.gradient(model, (grpo.loss(model, batch) for batch in batches))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_means_of_micro_batches_have_another_gradient(grpo: Any) -> None:
    """The weights matter, so that the tests above mean something."""
    rollouts = grpo.answers(grpo.small_model(), 0)[::4]
    model = grpo.small_model(seed=1).double()
    wanted = grpo.gradient(model, iter([grpo.padded_loss(model, rollouts)]))

    def by_means() -> Iterator[Any]:
        for rank in range(7):
            for batch in grpo.micro_batches(rollouts, rank, ranks=7, dtype=np.float64):
                masks = batch["loss_masks"]
                yield grpo.loss(model, batch | {"loss_weights": masks / masks.sum() / 7})

    apart = (grpo.gradient(model, by_means()) - wanted).abs().max() / wanted.abs().max()
    assert apart > 1e-3


def test_a_rank_without_rows_runs_a_loss_of_nothing(grpo: Any) -> None:
    rollouts = grpo.answers(grpo.small_model(), 0)[:1]
    (batch,) = grpo.micro_batches(rollouts, 1)
    model = grpo.small_model()
    assert not grpo.gradient(model, iter([grpo.loss(model, batch)])).any()


@pytest.mark.skipif(not LEVEL, reason="seconds of training")
def test_the_reward_rises(grpo: Any) -> None:
    rewards = grpo.train(grpo.small_model(), 100)
    assert np.mean(rewards[-10:]) - np.mean(rewards[:10]) >= 0.3
