"""The sampler's backends beside Rust: tokens, statuses, kept sets and log-probabilities of many rows."""

# mypy: disable-error-code="attr-defined, no-untyped-call"

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from gpu.cases import Rng
from gpu.setting import Array, Faults, Setting, on_host, placed
from rollkit.decode import AllowedSet, sample
from rollkit.testing.decode import sample_on

VOCABULARY = 217_204
OF_A_BATCH = ((7, 2000, 6), (513, 1000, 12), (2049, 500, 12), (8192, 50, 6))
OF_EACH_ROW = (
    (1, 2000, 2),
    (7, 2000, 6),
    (100, 4000, 10),
    (513, 1000, 12),
    (2049, 500, 8),
    (8192, 50, 4),
    (65_536, 4, 4),
)
"""Columns, rows of a batch, batches: 10⁵ rows in all, of few kinds, since Triton compiles each."""
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"top_k": 50},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"top_k": 50, "top_p": 0.9},
    {"top_k": 300, "top_p": 0.99, "min_p": 0.001},
)
SAME = "Rust's tokens, statuses, kept sets, log-probabilities"
ORDERS = ("hf", "vllm", "joint")
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)


def batches(setting: Setting, *, per_row: bool) -> Iterator[tuple[Array, Array, dict[str, Any]]]:
    """Logits and options, filters of a batch or of each row, until it is late."""
    sizes: tuple[tuple[int, int, int], ...] = OF_EACH_ROW if per_row else OF_A_BATCH
    if not setting.on_gpu:  # what interprets the kernel is slow
        sizes = tuple(size for size in sizes if size[0] <= 513)
    plan = [(at, turn) for at, (_, _, count) in enumerate(sizes) for turn in range(count)]
    order = np.random.default_rng(9).permutation(len(plan))  # what is left out is of all sizes
    for number in setting.tries(len(plan), 4):
        at, turn = plan[order[number]]
        columns, rows, _ = sizes[at]
        rows = rows if setting.on_gpu else min(rows, 10)
        rng = np.random.default_rng([10, number])
        kind = at + (turn % 2 if per_row else turn % len(FILTERS))
        spread = (0.01, 1.0, 4.0)[turn % 3]
        cond, uncond = (rng.normal(size=(rows, columns), scale=spread).astype(DTYPES[kind % 3]) for _ in "cu")
        cond[rng.random((rows, columns)) < 0.02] = -np.inf
        if turn % 4 == 3:
            cond[0], cond[-1, 0] = -np.inf, np.nan  # no token, and no number
        options: dict[str, Any] = {
            "allowed": AllowedSet(rng.choice(VOCABULARY, columns, replace=False), VOCABULARY),
            "seeds": rng.integers(-(2**63), 2**63, rows),
            "positions": rng.integers(0, 2**31, rows),
            "order": ORDERS[kind % 3],
            "return_kept": True,
            "logprobs": ("kept", "allowed")[kind % 2],
        }
        yield cond, uncond, options | (_each_row(rng, rows, columns) if per_row else _one(turn))


def _one(turn: int) -> dict[str, Any]:
    filters = FILTERS[turn % len(FILTERS)]
    return {
        "cfg_scale": 1.0 if filters == {} else 2.3,
        "temperature": (0.85, 1.7, 0.0)[turn // 6 % 3],
        **filters,
    }


def _each_row(rng: Rng, rows: int, columns: int) -> dict[str, Any]:
    return {
        "cfg_scale": rng.choice([1.0, 1.5, 3.1], rows),
        "temperature": rng.choice([0.0, 0.5, 1.0, 2.1], rows, p=[0.1, 0.3, 0.3, 0.3]),
        "top_k": rng.choice([0, 1, 5, 300, columns, columns + 1], rows),
        "top_p": rng.choice([0.0, 0.5, 0.93, 0.999, 1.0], rows),
        "min_p": rng.choice([0.0, 0.001, 0.1, 1.0], rows),
    }


def check(backend: str, got: Any, wanted: Any, options: dict[str, Any]) -> None:
    """Refuse a batch of which any row differs."""
    tokens, statuses = on_host(got.token_ids), on_host(got.status)
    shown = {name: value for name, value in options.items() if isinstance(value, int | float | str)}
    what = f"{backend}, {len(tokens)} × {len(options['allowed'])}, {shown}"
    assert np.array_equal(statuses, wanted.status), f"statuses by {what}"
    odd = np.flatnonzero(tokens != wanted.token_ids)
    assert not len(odd), f"tokens of {len(odd)} rows by {what}: row {odd[0]}"
    for part in ("offsets", "token_ids"):
        found, right = on_host(getattr(got.kept, part)), getattr(wanted.kept, part)
        assert np.array_equal(found, right), f"kept sets by {what}: {part}"
    near = np.isclose(on_host(got.logprobs), wanted.logprobs, rtol=2e-6, atol=1e-6, equal_nan=True)
    assert near.all(), f"log-probabilities of {(~near).sum()} rows by {what}: row {(~near).argmax()}"


def of_torch(setting: Setting) -> Iterator[str]:
    """Plain torch operations, the kernel, and what `sample` chooses."""
    import torch

    backends: dict[str, Callable[..., Any]] = {"torch": lambda *a, **o: sample_on("torch", *a, **o)}
    if importlib.util.find_spec("triton") and (setting.on_gpu or os.environ.get("TRITON_INTERPRET") == "1"):
        backends["triton"] = lambda *a, **o: sample_on("triton", *a, **o)
    if setting.on_gpu:
        from rollkit.decode import _cuda

        assert _cuda.has_kernel(torch.device("cuda", torch.cuda.current_device())), (
            "sample has no kernel here"
        )
        backends["sample"] = sample
    total, faults = 0, Faults(setting)
    for per_row in (False, True):
        rows = 0
        for cond, uncond, options in batches(setting, per_row=per_row):
            wanted = sample_on("rust", cond, uncond, **options)
            here = [placed(setting, "torch", array) for array in (cond, uncond)]
            for backend, draw in backends.items():
                with faults.of(backend):
                    check(backend, draw(*here, **options), wanted, options)
            rows += len(cond)
        total += rows
        faults.check()
        how = "options of each row" if per_row else "options of a batch"
        yield f"{rows} rows, {how}, {', '.join(backends)}: {SAME}"
    yield f"{total} rows in all, none differs"


def of_jax(setting: Setting) -> Iterator[str]:
    """One compilation for a size and an order, and then many rows."""
    import jax

    from rollkit.decode import Sampled, _jax
    from rollkit.decode._request import make_request
    from rollkit.decode.kept import Kept

    rows = 0
    sizes = ((100, 4000), (2049, 500), (7, 4000)) if setting.on_gpu else ((100, 40),)
    for columns, many in sizes:
        for order in ORDERS[: 3 if setting.on_gpu else 1]:
            allowed = AllowedSet(
                np.random.default_rng(columns).choice(VOCABULARY, columns, replace=False), VOCABULARY
            )
            fixed = {"allowed": allowed, "order": order, "return_kept": True}

            @jax.jit
            def draw(cond: Any, uncond: Any, options: Any, fixed: Any = fixed) -> Any:
                return _jax.draw(make_request(cond, uncond, **options, **fixed))

            for number in setting.tries(4):
                rng = np.random.default_rng([11, columns, number, ORDERS.index(order)])
                cond, uncond = (rng.normal(size=(many, columns)).astype(np.float32) * 2 for _ in range(2))
                cond[rng.random(cond.shape) < 0.02] = -np.inf
                options = _each_row(rng, many, columns)
                with (
                    jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64(True)
                ):
                    options |= {
                        "seeds": jax.numpy.asarray(rng.integers(-(2**63), 2**63, many)),
                        "positions": jax.numpy.asarray(rng.integers(0, 2**31, many)),
                    }
                    options = {name: jax.numpy.asarray(value) for name, value in options.items()}
                    tokens, logprobs, status, mask = map(np.asarray, draw(cond, uncond, options))
                got = Sampled(tokens, logprobs, status, Kept.from_mask(mask, allowed))
                host = {name: np.asarray(value) for name, value in options.items()}
                wanted = sample_on("rust", cond, uncond, **host, **fixed)
                check("JAX", got, wanted, {**host, **fixed})
                rows += many
    yield f"{rows} rows, options of each row, JAX, jitted: {SAME}"
