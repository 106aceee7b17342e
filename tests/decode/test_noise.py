from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from rollkit.decode import uniforms
from rollkit.testing.decode import uniform_reference

SEEDS = np.array([0, 1, -1, 7, 2**31, -(2**31), 2**32, 2**63 - 1, -(2**63)], np.int64)
POSITIONS = np.array([0, 1, 2, 3, 2**31 - 1, 5, 6, 7, 8], np.int64)
IDS = np.array([0, 1, 2, 151_645, 217_203, 2**31 - 1])


def test_equals_the_reference() -> None:
    wanted = [
        [uniform_reference(int(seed), int(position), int(token)) for token in IDS]
        for seed, position in zip(SEEDS, POSITIONS, strict=True)
    ]
    got = uniforms(SEEDS, POSITIONS, IDS)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.astype(np.float64), wanted)


def test_is_the_same_on_all_backends() -> None:
    ids = np.concatenate([IDS, np.random.default_rng(0).integers(0, 2**31, 100_000)])
    wanted = uniforms(SEEDS, POSITIONS, ids)
    on_torch = uniforms(torch.from_numpy(SEEDS), torch.from_numpy(POSITIONS), torch.from_numpy(ids))
    np.testing.assert_array_equal(on_torch.numpy(), wanted)
    tokens = jnp.asarray(ids.astype(np.int32))
    np.testing.assert_array_equal(np.asarray(uniforms(SEEDS, POSITIONS, tokens)), wanted)
    jitted = jax.jit(lambda tokens: uniforms(SEEDS, POSITIONS, tokens))
    np.testing.assert_array_equal(np.asarray(jitted(tokens)), wanted)


def test_seeds_of_32_bits_extend_their_sign() -> None:
    narrow = np.array([0, 5, -1, -(2**31)], np.int32)
    wanted = uniforms(narrow.astype(np.int64), 3, IDS)
    tokens = jnp.asarray(IDS.astype(np.int32))
    np.testing.assert_array_equal(uniforms(narrow, 3, IDS), wanted)
    np.testing.assert_array_equal(uniforms(torch.from_numpy(narrow), 3, torch.from_numpy(IDS)), wanted)
    np.testing.assert_array_equal(jax.jit(uniforms)(jnp.asarray(narrow), jnp.int32(3), tokens), wanted)
    high = np.array([2**64 - 1], np.uint64)
    np.testing.assert_array_equal(uniforms(high, 3, IDS), uniforms([-1], 3, IDS))
    unsigned = jnp.asarray(np.array([2**32 - 1], np.uint32))
    np.testing.assert_array_equal(uniforms(unsigned, 3, tokens), uniforms([2**32 - 1], 3, IDS))


def test_is_above_0_and_below_1() -> None:
    found = uniforms(0, np.arange(64), np.arange(2**18))
    assert 2.0**-24 <= found.min() < 2.0**-21
    assert 1 - 2.0**-21 < found.max() <= np.float32(1 - 2.0**-24) < 1
    odd = found.astype(np.float64) * 2**24
    assert np.all(odd % 2 == 1)


def chi_square(counts: Any, expected: Any) -> float:
    """How many standard deviations above its mean the statistic is."""
    freedom = np.size(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize("axis", ["ids", "seeds", "positions"])
def test_is_uniform_and_independent_of_its_neighbours(axis: str) -> None:
    many = np.arange(2**20)
    found = {
        "ids": lambda: uniforms(3, 4, many)[0],
        "seeds": lambda: uniforms(many, 4, [5])[:, 0],
        "positions": lambda: uniforms(3, many, [5])[:, 0],
    }[axis]()
    cells = (found * 64).astype(np.int64)
    assert abs(chi_square(np.bincount(cells, minlength=64), len(many) / 64)) < 5
    for distance in (1, 2, 64, 1000):
        pairs = cells[:-distance] * 64 + cells[distance:]
        assert abs(chi_square(np.bincount(pairs, minlength=4096), len(pairs) / 4096)) < 5


def test_rows_are_independent() -> None:
    rows = uniforms([1, 1, 2, 2], [1, 2, 1, 2], np.arange(2**20))
    correlation = np.corrcoef(rows) - np.eye(4)
    assert np.abs(correlation).max() < 5 / 2**10
    low = np.sort(rows[0])
    assert len(np.intersect1d(low, rows[1])) > 0
    assert not np.array_equal(low, np.sort(rows[1])), "rows are no permutations of each other"


@settings(max_examples=examples(50), deadline=None)
@given(
    st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 30)
)
def test_every_input_bit_matters(seed: int, position: int, token: int, bit: int) -> None:
    wanted = uniform_reference(seed, position, token)
    assert uniform_reference(seed ^ (1 << bit), position, token) != wanted
    assert uniform_reference(seed ^ (1 << (bit + 32)), position, token) != wanted
    assert uniform_reference(seed, position ^ (1 << bit), token) != wanted


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1.5, 0, [1]), TypeError, "seeds must be 64-bit ints, one or [rows], got float64 of shape (1,)"),
        ((1, -1, [1]), ValueError, "positions must be 0 to 2**31 - 1, got -1 to -1"),
        ((1, 2**31, [1]), ValueError, "positions must be 0 to 2**31 - 1, got 2147483648 to 2147483648"),
        ((1, 0, [-1]), ValueError, "ids must be 0 to 2**31 - 1, got -1 to -1"),
        (
            ([1, 2, 3], [1, 2], [1]),
            ValueError,
            "positions must be one int or [3], one per row, got shape (2,)",
        ),
    ],
)
def test_errors(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        uniforms(*arguments)
    assert str(raised.value) == message
