"""What the tests of every sampler draw from, and how draws are compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from rollkit.decode import Sampled, Status

FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "top-k": {"top_k": 7},
    "top-p": {"top_p": 0.9},
    "min-p": {"min_p": 0.05},
    "all": {"top_k": 20, "top_p": 0.8, "min_p": 0.02},
    "greedy": {"temperature": 0.0, "top_p": 0.5},
}
INF = np.float32(np.inf)

SPECIAL = np.array(
    [
        [1, np.nan, 2],
        [-INF, -INF, -INF],
        [-INF, 5, -INF],
        [INF, 1, INF],
        [-INF, np.nan, INF],
        [0, -0.0, -INF],
        [3e38, -3e38, 0],
    ],
    np.float32,
)
STATUS = [Status.NAN, Status.MASKED, 0, 0, Status.NAN, 0, 0]


def assert_equal(got: Sampled, wanted: Sampled) -> None:
    np.testing.assert_array_equal(got.token_ids, wanted.token_ids)
    np.testing.assert_array_equal(got.status, wanted.status)
    if wanted.kept is not None:
        np.testing.assert_array_equal(got.kept.offsets, wanted.kept.offsets)
        np.testing.assert_array_equal(got.kept.token_ids, wanted.kept.token_ids)
    if wanted.logprobs is not None:
        np.testing.assert_allclose(got.logprobs, wanted.logprobs, rtol=2e-6, atol=1e-6)
