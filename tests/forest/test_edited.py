"""Real turns, whole and with edited contexts: what they share, and how few bins it takes."""

from __future__ import annotations

import numpy as np
import pytest
from tests.forest.edited import edited
from tests.paths import SHARED

import rollkit
from rollkit import Forest, Ragged, Rollouts, place, take

STEPS = SHARED / "tau_airline_steps.parquet"
needs_steps = pytest.mark.skipif(not STEPS.exists(), reason="the shared rollouts are not here")


@pytest.fixture(scope="module")
def steps() -> Rollouts:
    pytest.importorskip("pyarrow")
    return rollkit.read(STEPS, columns=["trajectory_ids", "instance_ids", "prompt_token_ids", "response_ids"])


def test_the_first_half_of_what_was_written_is_not_shown_again() -> None:
    turns = Rollouts(
        {
            "trajectory_ids": ["a", "a", "a", "b", "b"],
            "prompt_token_ids": [[1], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6, 7, 8], [1], [1, 9, 9, 8]],
            "response_ids": [[2, 3, 4], [6, 7], [9], [9, 9], [7]],
        }
    )
    found = edited(turns)["prompt_token_ids"]
    assert isinstance(found, Ragged)
    assert found.to_list() == [[1], [1, 3, 4, 5], [1, 3, 4, 5, 7, 8], [1], [1, 9, 8]]


@needs_steps
@pytest.mark.parametrize(
    ("edit", "tokens", "unique", "bins"),
    [(False, 7_959_074, 581_020, {16384: 40, 32768: 19}), (True, 7_241_793, 679_632, {16384: 47, 32768: 22})],
)
def test_real_turns(steps: Rollouts, edit: bool, tokens: int, unique: int, bins: dict[int, int]) -> None:
    rows = edited(steps) if edit else steps
    forest = Forest.build(rows)
    assert (forest.tokens, forest.unique) == (tokens, unique)
    both = zip(rows["prompt_token_ids"], rows["response_ids"], strict=True)
    whole = Ragged.from_rows([np.concatenate(pair) for pair in both])
    assert Forest.build(whole).equals(forest)
    for capacity, most in bins.items():
        layout = forest.pack(capacity)
        least, least_tokens = forest.lower_bound(capacity)
        assert least <= layout.shape[0] <= most
        assert layout.num_placed >= least_tokens
        assert take(place(whole, layout), layout).equals(whole)


@needs_steps
def test_tasks_share_the_system_prompt(steps: Rollouts) -> None:
    assert Forest.build(steps, groups="instance_ids").unique == 644_323
