"""`plan_bins`: the textbook's bins from any integer array, and errors that say what to do."""

from __future__ import annotations

import inspect
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.paths import SHARED
from tests.thorough import examples

from rollkit import Layout, _native, pack
from rollkit._rows.binpack import ALGORITHMS, DEFAULTS, OVERSIZE, Packing, plan_bins
from rollkit.testing import plan_bins_reference

AIRLINE = SHARED / "tau_airline.jsonl"

options = st.fixed_dictionaries(
    {
        "algorithm": st.sampled_from(ALGORITHMS),
        "align": st.integers(1, 9),
        "max_segments": st.none() | st.integers(1, 5),
        "oversize": st.sampled_from(OVERSIZE[1:-1]),
    }
)


@settings(max_examples=examples(500), deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40) | st.sampled_from([0, 3, 8]), max_size=60),
    capacity=st.integers(1, 60),
    options=options,
)
def test_equals_the_reference(lengths: list[int], capacity: int, options: dict[str, Any]) -> None:
    got = plan_bins(lengths, capacity, **options)
    np.testing.assert_array_equal(got, plan_bins_reference(lengths, capacity, **options))
    assert got.dtype == np.int64


@settings(max_examples=examples(300), deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40) | st.sampled_from([0, 3, 8]), max_size=60),
    capacity=st.integers(1, 60),
    options=options,
    seed=st.integers(0, 2**63 - 1),
)
def test_bins_are_shuffled_whole(
    lengths: list[int], capacity: int, options: dict[str, Any], seed: int
) -> None:
    got = plan_bins(lengths, capacity, **options, order="shuffled", seed=seed)
    wanted = plan_bins_reference(lengths, capacity, **options, order="shuffled", seed=seed)
    np.testing.assert_array_equal(got, wanted)
    opened = plan_bins(lengths, capacity, **options)
    pairs = set(zip(opened.tolist(), got.tolist(), strict=True))
    assert len(pairs) == len(set(opened.tolist())) == len(set(got.tolist()))


@settings(max_examples=examples(300), deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), max_size=60),
    capacity=st.integers(1, 60),
    options=options,
)
def test_bins_hold_their_rows(lengths: list[int], capacity: int, options: dict[str, Any]) -> None:
    bins = plan_bins(lengths, capacity, **options)
    layout = Layout.pack(lengths, capacity, **options)
    assert np.array_equal(np.where(layout.starts < 0, -1, layout.starts // layout.width), bins)
    assert np.array_equal(np.unique(bins[bins >= 0]), np.arange(bins.max(initial=-1) + 1))
    most = options["max_segments"] or len(lengths)
    assert np.bincount(bins[bins >= 0]).max(initial=0) <= most
    if options["algorithm"] in ("first_fit", "next_fit"):
        opened = bins[np.sort(np.unique(bins, return_index=True)[1])]
        assert np.all(np.diff(opened[opened >= 0]) == 1)


def log_normal(rows: int, seed: int = 0) -> NDArray[np.int64]:
    found = np.random.default_rng(seed).lognormal(np.log(3800) - 0.405, 0.9, rows)
    return found.clip(1, 32768).astype(np.int64)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("align", [1, 128])
def test_equals_the_reference_on_many_rows(algorithm: str, align: int) -> None:
    lengths = log_normal(3000)
    got = plan_bins(lengths, 65536, algorithm=algorithm, align=align)
    wanted = plan_bins_reference(lengths, 65536, algorithm=algorithm, align=align)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.skipif(not AIRLINE.exists(), reason="the rollouts are not part of the repository")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_equals_the_reference_on_rollouts(algorithm: str) -> None:
    rows = [json.loads(line) for line in AIRLINE.read_text().splitlines()]
    lengths = [len(row["prompt_token_ids"]) + len(row["response_ids"]) for row in rows]
    assert sum(lengths) == 836_774
    bins = plan_bins(lengths, 16384, algorithm=algorithm)
    np.testing.assert_array_equal(bins, plan_bins_reference(lengths, 16384, algorithm=algorithm))
    if algorithm == "first_fit_decreasing":
        assert bins.max() + 1 == 52


WANTED = [0, 1, 1, 2, 2]


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">i8"])
def test_takes_any_integer_array(dtype: str) -> None:
    lengths = np.array([8, 3, 5, 3, 3], dtype)
    lengths.flags.writeable = False
    assert plan_bins(lengths, 8).tolist() == WANTED
    assert plan_bins(np.repeat(lengths, 2)[::2], 8).tolist() == WANTED


@pytest.mark.parametrize("lengths", [[8, 3, 5, 3, 3], (8, 3, 5, 3, 3), np.array([8, 3, 5, 3, 3])])
def test_takes_sequences(lengths: Any) -> None:
    capacity: Any = np.int32(8)
    assert plan_bins(lengths, capacity).tolist() == WANTED


def test_takes_tensors() -> None:
    torch = pytest.importorskip("torch")
    assert plan_bins(torch.tensor([8, 3, 5, 3, 3]), 8).tolist() == WANTED


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("oversize", OVERSIZE[:-1])
def test_edges(algorithm: str, oversize: str) -> None:
    def plan(lengths: list[int], **more: Any) -> list[int]:
        bins: list[int] = plan_bins(lengths, 8, algorithm=algorithm, oversize=oversize, **more).tolist()
        return bins

    assert plan([]) == []
    assert plan([0]) == [0]
    assert plan([8]) == [0]
    assert plan([0, 0, 0], max_segments=2) == [0, 0, 1]
    assert plan([8, 0, 0]) == [0, 0, 0]
    assert plan([8, 8, 8], align=16) == [0, 1, 2]


def test_oversize() -> None:
    lengths = [9, 0, 8, 20]
    assert plan_bins(lengths, 8, oversize="truncate").tolist() == [0, 0, 1, 2]
    assert plan_bins(lengths, 8, oversize="alone").tolist() == [1, 2, 2, 0]
    assert plan_bins(lengths, 8, oversize="alone", algorithm="first_fit").tolist() == [0, 1, 1, 2]
    assert plan_bins(lengths, 8, oversize="drop").tolist() == [-1, 0, 0, -1]


@pytest.mark.parametrize(
    ("lengths", "more", "error", "message"),
    [
        ([1, -2], {}, ValueError, "lengths[1] is -2; lengths must be 0 or more"),
        ([1.5], {}, TypeError, "lengths must hold integers, got float64"),
        ([True], {}, TypeError, "lengths must hold integers, got bool"),
        (["a"], {}, TypeError, "lengths must hold integers, got <U1"),
        ([[1, 2]], {}, ValueError, "lengths must be one-dimensional, got shape (1, 2)"),
        (3, {}, ValueError, "lengths must be one-dimensional, got shape ()"),
        (np.array([2**63], "u8"), {}, OverflowError, "lengths has values beyond int64"),
        ([2**63], {}, OverflowError, "lengths has values beyond int64"),
        ([1], {"capacity": 0}, ValueError, "capacity must be at least 1, got 0"),
        ([1], {"capacity": 8.0}, TypeError, "capacity must be an int, got float"),
        ([1], {"align": 0}, ValueError, "align must be at least 1, got 0"),
        ([1], {"max_segments": 0}, ValueError, "max_segments must be at least 1, got 0"),
        (
            [1],
            {"algorithm": "worst_fit"},
            ValueError,
            "algorithm must be one of 'first_fit_decreasing', 'best_fit_decreasing', 'first_fit', "
            "'next_fit', got 'worst_fit'",
        ),
        (
            [1],
            {"oversize": None},
            ValueError,
            "oversize must be one of 'raise', 'truncate', 'alone', 'drop', 'split', got None",
        ),
        (
            [3, 12, 9],
            {},
            ValueError,
            "row 1 has 12 elements, more than the capacity of 8; raise capacity, or pass "
            'oversize="truncate", "alone", "drop" or "split"',
        ),
        (
            [3],
            {"oversize": "split"},
            ValueError,
            'oversize="split" gives a row several bins, and plan_bins says one of each; '
            'Layout.pack(lengths, capacity, oversize="split") says where its pieces are',
        ),
        (
            [3],
            {"order": "random"},
            ValueError,
            "order must be one of 'opened', 'shuffled', got 'random'",
        ),
        (
            [3],
            {"order": "shuffled"},
            TypeError,
            'order="shuffled" needs a seed, which says what order',
        ),
        ([3], {"seed": 3}, TypeError, 'seed is 3, of an order="shuffled"; give both, or neither'),
        ([3], {"order": "shuffled", "seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ],
)
def test_errors(lengths: Any, more: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        plan_bins(lengths, **{"capacity": 8, **more})
    assert str(raised.value) == message


def test_native_checks_what_it_is_given() -> None:
    good: dict[str, Any] = {
        "capacity": 8,
        "algorithm": "first_fit",
        "align": 1,
        "max_segments": None,
        "oversize": "raise",
    }
    lengths = np.array([1, 2])
    with pytest.raises(ValueError, match='algorithm is "nope"'):
        _native.plan_bins(lengths, **{**good, "algorithm": "nope"})
    with pytest.raises(ValueError, match="align must be at least 1, got 0"):
        _native.plan_bins(lengths, **{**good, "align": 0})
    with pytest.raises(ValueError, match="row 0 has length -1"):
        _native.plan_bins(-lengths, **good)
    with pytest.raises(TypeError, match="lengths must be an aligned 1-D int64 array"):
        _native.plan_bins(lengths.astype(np.int32), **good)


@pytest.mark.parametrize("function", [plan_bins, Layout.pack, pack])
def test_options_of_packing_are_declared_once(function: Any) -> None:
    """Functions spell them out for those who read them; names and defaults are those of `Packing`."""
    assert DEFAULTS.keys() == Packing.__annotations__.keys()
    wanted: dict[str, Any] = {**DEFAULTS}
    if function is plan_bins:
        del wanted["bins_multiple_of"]
    given = inspect.signature(function).parameters
    assert {name: given[name].default for name in wanted} == wanted
    assert all(given[name].kind is inspect.Parameter.KEYWORD_ONLY for name in wanted)
    own = {
        "bins",
        "capacity",
        "lengths",
        "rollouts",
        "rows",
        "pad_id",
        "layout",
        "fills",
        "dtypes",
        "levels",
        "names",
        "validate",
        "out",
        "share_prefixes",
        "groups",
        "match",
    }
    assert given.keys() - own == wanted.keys()
