"""`pack(share_prefixes=True)` warns where equal tokens are not equal inputs: other experts, other images."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from tests.thorough import examples

from rollkit import Ragged, Rollouts, pack

ROUTES = "rollout_expert_indices"
TEXT = (
    "column 'rollout_expert_indices': row {}, position {} has other experts than row {}, with which it "
    "shares this token; where routes are replayed, let rows share tokens of the same experts alone: "
    "match='rollout_expert_indices'"
)


def said(rollouts: Any, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pack(rollouts, 64, share_prefixes=True, **options)
    for warning in caught:
        assert warning.filename == __file__
    return [str(warning.message) for warning in caught]


def routes_of(rows: list[list[int]]) -> Ragged:
    """Experts of a layer, a number in place of each."""
    values = np.array([x for row in rows for x in row], np.uint8).reshape(-1, 1, 1)
    return Ragged(values, np.cumsum([0, *map(len, rows)]))


def rollouts(responses: list[list[int]], routes: list[list[int]]) -> dict[str, Any]:
    return {
        "prompt_token_ids": [[1, 2]] * len(responses),
        "response_ids": responses,
        ROUTES: routes_of(routes),
    }


def test_the_first_token_with_other_experts_is_named() -> None:
    rows = rollouts([[3, 4], [3, 5], [3, 6]], [[7, 7, 7, 1], [7, 7, 7, 2], [7, 7, 8, 3]])
    assert said(rows) == [TEXT.format(2, 2, 0)]
    assert said(Rollouts(rows)) == [TEXT.format(2, 2, 0)]
    assert said(rows, match=ROUTES) == []
    assert said(rows, match=[ROUTES]) == []
    assert said(rows, groups=[0, 0, 1]) == []


def test_equal_routes_and_rows_that_end_before_their_last_token() -> None:
    assert said(rollouts([[3, 4], [3, 5]], [[7, 7, 7, 1], [7, 7, 7, 2]])) == []
    # No routes of the last token; the next turn has one there.
    assert said(rollouts([[3], [3, 5], [3, 5, 6]], [[7, 7], [7, 7, 8], [7, 7, 8, 9]])) == []
    # What is compared is the longest of the rows before, not the last.
    rows = rollouts([[3, 5], [3, 5], [3, 5, 6]], [[7, 7, 8], [7], [7, 7, 9, 9]])
    assert said(rows) == [TEXT.format(2, 2, 0)]


def test_where_nothing_is_shared_nothing_is_said() -> None:
    rows = {"prompt_token_ids": [[1], [2]], "response_ids": [[3], [3]], ROUTES: routes_of([[1, 1], [2, 2]])}
    assert said(rows | {"pixel_values": [None, None]}) == []


@pytest.mark.parametrize("seed", range(examples(80)))
def test_it_warns_exactly_where_two_rows_differ(seed: int) -> None:
    rng = np.random.default_rng(seed)
    responses = [rng.integers(0, 2, rng.integers(0, 5)).tolist() for _ in range(rng.integers(1, 8))]
    whole = [[1, 2, *row] for row in responses]
    counts = [int(rng.integers(max(len(row) - 2, 1), len(row) + 1)) for row in whole]
    routes = [(rng.random(count) > 0.9).astype(int).tolist() for count in counts]

    def differ(a: int, b: int) -> bool:
        for n, pair in enumerate(zip(routes[a], routes[b], strict=False)):
            if whole[a][: n + 1] != whole[b][: n + 1]:
                return False
            if pair[0] != pair[1]:
                return True
        return False

    wanted = any(differ(a, b) for a in range(len(whole)) for b in range(a))
    assert bool(said(rollouts(responses, routes))) == wanted


@pytest.mark.parametrize("name", ["pixel_values", "image_grid_thw", "multi_modal_inputs"])
def test_images(name: str) -> None:
    rows = {"prompt_token_ids": [[1, 2], [1, 2]], "response_ids": [[3], [4]], name: [{"a": 1}, {"a": 2}]}
    assert said(rows) == [
        f"column {name!r}: equal tokens may stand for other images, and rollouts share them; say which may "
        "by groups=, or by match= a column of the images' ids per token"
    ]
    assert said(rows, groups=["a", "b"]) == []
    ids = Ragged.from_rows([[0, 0, 0], [1, 1, 1]], np.int32)
    assert said(rows | {"image_ids": ids}, match="image_ids", levels={"image_ids": "sequence"}) == []
