from __future__ import annotations

import pickle
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from rollkit.decode import AllowedSet


@settings(max_examples=examples(200), deadline=None)
@given(
    st.lists(st.integers(0, 199), max_size=60), st.lists(st.tuples(st.integers(0, 199), st.integers(0, 200)))
)
def test_is_a_sorted_set(ids: list[int], ends: list[tuple[int, int]]) -> None:
    ranges = [range(start, stop) for start, stop in ends]
    wanted = sorted(set(ids).union(*ranges))
    allowed = AllowedSet([*ids, *ranges], 200)
    assert allowed.ids.tolist() == wanted
    assert allowed.ids.dtype == np.int32
    assert len(allowed) == len(wanted)
    assert [token for run in allowed.runs for token in run] == wanted
    assert all(
        before.stop < after.start for before, after in zip(allowed.runs, allowed.runs[1:], strict=False)
    )
    every = np.arange(-3, 205)
    local = np.array([wanted.index(token) if token in wanted else -1 for token in every.tolist()])
    np.testing.assert_array_equal(allowed.to_local(every), local)
    np.testing.assert_array_equal(allowed.to_local(torch.from_numpy(every)).numpy(), local)
    back = np.array([wanted[i] if 0 <= i < len(wanted) else -1 for i in every.tolist()])
    np.testing.assert_array_equal(allowed.to_global(every), back)
    np.testing.assert_array_equal(allowed.to_global(torch.from_numpy(every)).numpy(), back)
    assert AllowedSet(wanted, 200) == allowed == AllowedSet.from_bitmask(allowed.to_bitmask(), 200)


@pytest.mark.parametrize("parts", [[range(3, 9)], [1, range(3, 9), 20], []])
def test_maps_ids_in_jax(parts: Any) -> None:
    allowed = AllowedSet(parts, 30)
    every = np.arange(-2, 31, dtype=np.int32).reshape(3, 11)
    for jit in (jax.jit, lambda f: f):
        np.testing.assert_array_equal(jit(allowed.to_local)(jnp.asarray(every)), allowed.to_local(every))
        np.testing.assert_array_equal(jit(allowed.to_global)(jnp.asarray(every)), allowed.to_global(every))


def test_takes_ids_of_any_kind() -> None:
    wanted = AllowedSet([1, 2, 5], 9)
    for ids in ([5, 1, 2, 2], (1, 2, 5), {1, 2, 5}, np.array([5, 2, 1], "u1"), [range(1, 3), 5]):
        assert AllowedSet(ids, 9) == wanted
    assert AllowedSet(torch.tensor([1, 2, 5]), 9) == wanted
    assert AllowedSet(jnp.array([1, 2, 5]), 9) == wanted


def test_eos_is_explicit() -> None:
    allowed = AllowedSet(range(10, 12), 20, eos=[3, 10])
    assert allowed.ids.tolist() == [3, 10, 11]
    assert allowed.eos == (3, 10)
    assert 3 in allowed
    assert 4 not in allowed
    assert "a" not in allowed
    assert AllowedSet([3, 10, 11], 20) != allowed
    assert AllowedSet([3, 10, 11], 20).eos == ()


def test_spans_and_windows() -> None:
    assert AllowedSet(range(3, 9), 20).span == range(3, 9)
    assert AllowedSet([1, range(3, 9)], 20).span is None
    assert AllowedSet([], 20).span is None
    assert AllowedSet([], 20).window() is None
    assert AllowedSet([1, range(3, 9)], 20).window() == range(1, 9)
    assert AllowedSet([0, range(10, 19)], 20).window() is None
    assert AllowedSet([0, range(10, 19)], 20).window(0.5) == range(0, 19)


def test_bitmasks() -> None:
    rng = np.random.default_rng(0)
    ids = np.flatnonzero(rng.random(151_936) < 0.3)
    mask = AllowedSet(ids, 151_936).to_bitmask()
    assert mask.dtype == np.int32
    assert mask.shape == (4748,)
    np.testing.assert_array_equal(AllowedSet.from_bitmask(torch.from_numpy(mask)[None], 151_936).ids, ids)
    full = np.full(2, -1, np.int32)
    assert AllowedSet.from_bitmask(full, 33) == AllowedSet.full(33)
    assert AllowedSet.from_bitmask(full.view(np.uint32), 33, eos=3).eos == (3,)


def test_compacts() -> None:
    full = np.arange(24, dtype=np.float32).reshape(2, 12)
    for parts in ([range(3, 7)], [0, range(3, 7)]):
        allowed = AllowedSet(parts, 12)
        wanted = full[:, allowed.ids]
        np.testing.assert_array_equal(allowed.compact(full), wanted)
        np.testing.assert_array_equal(allowed.compact(torch.from_numpy(full)).numpy(), wanted)
        np.testing.assert_array_equal(jax.jit(allowed.compact)(jnp.asarray(full)), wanted)
    assert np.shares_memory(AllowedSet(range(3, 7), 12).compact(full), full)


def test_is_a_value() -> None:
    allowed = AllowedSet([1, range(3, 9)], 20, eos=1)
    again = pickle.loads(pickle.dumps(allowed))
    assert again == allowed
    assert hash(again) == hash(allowed)
    assert again.digest == allowed.digest
    assert len(allowed.digest) == 16
    assert AllowedSet([1, range(3, 9)], 21, eos=1).digest != allowed.digest
    assert len(pickle.dumps(AllowedSet.full(10**6))) < 300
    assert "… 50 runs, 50 tokens" in repr(AllowedSet(list(range(0, 100, 2)), 200))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AllowedSet([1, 20], 20), ValueError, "allowed has id 20; ids of vocab_size=20 are 0 to 19"),
        (lambda: AllowedSet([-1], 20), ValueError, "allowed has id -1; ids of vocab_size=20 are 0 to 19"),
        (
            lambda: AllowedSet(range(9, 21), 20),
            ValueError,
            "allowed has id 20; ids of vocab_size=20 are 0 to 19",
        ),
        (lambda: AllowedSet([1], 20, eos=20), ValueError, "eos has id 20; ids of vocab_size=20 are 0 to 19"),
        (lambda: AllowedSet([1.5], 20), TypeError, "allowed must hold integers, got float64"),
        (lambda: AllowedSet([[1]], 20), ValueError, "allowed must be one-dimensional, got shape (1, 1)"),
        (lambda: AllowedSet([1], 0), ValueError, "vocab_size must be at least 1, got 0"),
        (
            lambda: AllowedSet(range(0, 9, 2), 20),
            ValueError,
            "allowed must have ranges of step 1; pass other ranges as list(range(…))",
        ),
        (lambda: AllowedSet([1], 20, eos=cast(Any, 1.5)), TypeError, "eos must be an int or ints, got 1.5"),
        (
            lambda: AllowedSet.from_bitmask(np.zeros(2, np.int64), 20),
            TypeError,
            "bitmask must be int32 or uint32, got int64",
        ),
        (
            lambda: AllowedSet.from_bitmask(np.zeros((2, 3), np.int32), 70),
            ValueError,
            "bitmask must be [3] words for vocab_size=70, got shape (2, 3); pass one row of a batch of masks",
        ),
        (
            lambda: AllowedSet([1], 20).compact(np.zeros((2, 19))),
            ValueError,
            "logits must have 20 columns, the vocab_size of allowed, got 19",
        ),
    ],
)
def test_errors(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        make()
    assert str(raised.value) == message
