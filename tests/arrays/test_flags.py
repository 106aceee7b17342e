"""What is found among flags equals the obvious way, on every backend, also where words of flags end."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.thorough import combinations, examples

from rollkit._arrays.ops import ops

WIDTHS = (0, 1, 32, 95, 1030)
AS: dict[str, Any] = {"numpy": np.asarray, "torch": torch.from_numpy, "jax": jnp.asarray}


def wanted(flags: Any, count: int) -> tuple[Any, Any, Any]:
    rows, width = flags.shape
    nth = np.full((rows, count), width)
    latest = np.full((rows, width), -1)
    for row in range(rows):
        for rank, at in enumerate(np.flatnonzero(flags[row])):
            latest[row, at:] = at
            if rank < count:
                nth[row, rank] = at
    return nth, latest, flags.cumsum(1)


def found(name: str, flags: Any, count: int) -> tuple[Any, Any, Any]:
    backend = ops(name)
    return backend.nth(flags, count), backend.latest(flags), backend.rank(flags)


@functools.cache
def jitted(mapped: bool, count: int) -> Any:
    if not mapped:
        return jax.jit(lambda flags: found("jax", flags, count))
    return jax.jit(jax.vmap(lambda row: [each[0] for each in found("jax", row[None], count)]))


def check(name: str, flags: Any, count: int) -> None:
    calls = [jitted(False, count), jitted(True, count)] if name == "jax" else []
    for call in calls or [functools.partial(found, name, count=count)]:
        for got, want in zip(call(AS[name](flags)), wanted(flags, count), strict=True):
            got = np.asarray(got)
            assert got.dtype == np.int32
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", AS)
@pytest.mark.parametrize(("width", "rows", "whole"), combinations(WIDTHS, (3, 0), (True, False)))
def test_flags(name: str, width: int, rows: int, whole: bool) -> None:
    rng = np.random.default_rng(width)
    for share in (0, 1 / 200, 0.1, 0.5, 1):
        check(name, rng.random((rows, width)) < share, width + 5 if whole else 1)


@settings(max_examples=examples(150), deadline=None)
@given(data=st.data(), case=st.sampled_from(combinations((31, 32, 33, 70), (1, 5, 80))))
def test_any_flags(data: Any, case: tuple[int, int]) -> None:
    width, count = case
    flags = data.draw(hnp.arrays(bool, (2, width)))
    for name in AS:
        check(name, flags, count)


@pytest.mark.parametrize("name", AS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.int64])
def test_ids_within(name: str, dtype: Any) -> None:
    bounds = np.iinfo(dtype)
    ids = np.array([[bounds.min, 0, 1, 5, 6, 100, bounds.max]], dtype)
    with jax.enable_x64(dtype is np.int64):
        for most in (5, 300, 2**20):
            kept = np.asarray(ops(name).within(AS[name](ids), most))
            assert kept.dtype == np.int32
            np.testing.assert_array_equal(kept, np.where((ids > 0) & (ids <= most), ids, 0))
