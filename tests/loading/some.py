"""Data for the tests of loaders."""

from __future__ import annotations

from typing import Any

import numpy as np

from rollkit import Rollouts


def rollouts(rows: int = 60, seed: int = 0, longest: int = 20) -> Rollouts:
    """Rollouts whose tokens are all different numbers, so that a bin is known by its tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest, (rows, 2))
    ids = iter(np.split(np.arange(1, lengths.sum() + 1), np.cumsum(lengths.reshape(-1))[:-1]))
    pairs = [(next(ids), next(ids)) for _ in range(rows)]
    return Rollouts({
        "prompt_token_ids": [prompt for prompt, _ in pairs],
        "response_ids": [response for _, response in pairs],
        "loss_masks": [rng.integers(0, 2, len(response)) for _, response in pairs],
    })  # fmt: skip


def features(rows: int = 200, seed: int = 0, longest: int = 20) -> list[dict[str, Any]]:
    """Features whose tokens are all different numbers."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest, rows)
    ids = np.split(np.arange(1, lengths.sum() + 1), np.cumsum(lengths)[:-1])
    return [{"input_ids": row} for row in ids]


def key(bin: Any) -> int:
    """What a bin, or a batch of bins, is told apart by."""
    return hash(np.asarray(bin["input_ids"]).astype(np.int64).tobytes())
