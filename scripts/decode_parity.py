"""Count rows on which backends differ: `python scripts/decode_parity.py [ROWS]`, 120 000 by default.

Draws the same rows with Rust, torch and JAX (jitted), over sizes from 1 to 65 536, all filters and
orders, several dtypes and shapes of distribution, and compares tokens, statuses, kept sets, and
log-probabilities. Also draws a shuffled half of each batch with Rust. Ends with 1 if anything differs.

The Triton kernel takes part where there is a CUDA device. With TRITON_INTERPRET=1 it runs on the host,
some twenty rows a second, and JAX stays out: pass a few thousand ROWS.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections import Counter
from typing import Any

import ml_dtypes
import numpy as np
import torch

from rollkit.decode import AllowedSet, Sampled
from rollkit.testing.decode import sample_on

# Columns, the share of rows, rows per batch.
SIZES = (
    (1, 0.1, 2000),
    (2, 0.15, 2000),
    (7, 0.2, 2000),
    (100, 0.25, 1000),
    (513, 0.16, 500),
    (2049, 0.1, 250),
    (8192, 0.03, 60),
    (65536, 0.01, 12),
)
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"top_k": 50},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"top_k": 50, "top_p": 0.9},
    {"top_k": 300, "top_p": 0.99, "min_p": 0.001},
    {"top_p": 0.95, "temperature": 1.7},
    {"temperature": 0.0},
)
ORDERS = ("hf", "vllm", "joint")
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)
SPREADS = (0.01, 1.0, 4.0)
VOCAB = 217_204


def backends() -> tuple[str, ...]:
    """Return what is compared with Rust here."""
    if importlib.util.find_spec("triton") is None:
        return ("torch", "jax")
    if os.environ.get("TRITON_INTERPRET") == "1":
        return ("torch", "triton")
    return ("torch", "jax", "triton") if torch.cuda.is_available() else ("torch", "jax")


def differing(got: Sampled, wanted: Sampled) -> dict[str, int]:
    """Count rows by what differs."""
    rows = range(len(wanted.token_ids))
    return {
        "tokens": int((got.token_ids != wanted.token_ids).sum()),
        "statuses": int((got.status != wanted.status).sum()),
        "kept sets": sum(not np.array_equal(got.kept.row(row), wanted.kept.row(row)) for row in rows),
        "logprobs": int(
            (~np.isclose(got.logprobs, wanted.logprobs, rtol=2e-6, atol=1e-6, equal_nan=True)).sum()
        ),
    }


def main(rows: int) -> int:
    """Compare that many rows, and print a line per size."""
    rng = np.random.default_rng(0)
    total: Counter[str] = Counter()
    done = 0
    compared = backends()
    print(f"Rust and {', '.join(compared)}")
    print(f"{'columns':>8} {'rows':>8} {'kept':>10} {'seconds':>8}  rows that differ")
    for size, share, batch in SIZES:
        begin, here, kept = time.perf_counter(), 0, 0
        batch = min(batch, max(2, int(share * rows / 6)))  # few rows meet several filters too
        found: Counter[str] = Counter()
        allowed = AllowedSet(rng.choice(VOCAB, size, replace=False), VOCAB)
        turn = 0
        while here < share * rows:
            filters = FILTERS[turn % len(FILTERS)]
            order = ORDERS[turn // len(FILTERS) % 3]
            dtype = DTYPES[turn % 3]
            spread = SPREADS[turn // 2 % 3]
            cond, uncond = ((rng.normal(size=(batch, size)) * spread).astype(dtype) for _ in range(2))
            cond[rng.random((batch, size)) < 0.02] = -np.inf
            seeds = rng.integers(-(2**63), 2**63, batch)
            positions = rng.integers(0, 2**31, batch)
            options: dict[str, Any] = {
                "allowed": allowed,
                "cfg_scale": 2.3 if turn % 4 else 1.0,
                "temperature": 0.85,
                "order": order,
                "return_kept": True,
                **filters,
            }
            keys = {"seeds": seeds, "positions": positions}
            wanted = sample_on("rust", cond, uncond, **keys, **options)
            for backend in compared:
                drawn = sample_on(backend, cond, uncond, **keys, **options)
                found.update({f"{backend} {what}": count for what, count in differing(drawn, wanted).items()})
            pick = rng.permutation(batch)[: batch // 2 + 1]
            keys = {"seeds": seeds[pick], "positions": positions[pick]}
            half = sample_on("rust", cond[pick], uncond[pick], **keys, **options)
            found["reordered tokens"] += int((half.token_ids != wanted.token_ids[pick]).sum())
            here, kept, turn = here + batch, kept + len(wanted.kept.token_ids), turn + 1
        total.update(found)
        done += here
        seconds = time.perf_counter() - begin
        print(f"{size:>8} {here:>8} {kept:>10} {seconds:>8.1f}  {dict(+found) or 'none'}", flush=True)
    print(f"{done} rows: {dict(+total) or 'no difference'}")
    return int(bool(+total))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 120_000))
