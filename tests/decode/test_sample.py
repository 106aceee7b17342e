from __future__ import annotations

import itertools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.decode.sampling import FILTERS, INF, SPECIAL, STATUS, assert_equal
from tests.thorough import combinations, examples

from rollkit.decode import AllowedSet, Sampled, Status, cfg, sample, uniforms
from rollkit.decode._request import make_request
from rollkit.testing.decode import sample_on, sample_row_reference

BACKENDS = ("rust", "torch", "jax")


def logits(rows: int, columns: int, seed: int = 0, spread: float = 3.0) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).normal(size=(rows, columns)) * spread
    return found.astype(np.float32)


# Values from a few, so that ties are common.
few = [0.0, -0.0, 1.0, 1.5, -2.0, 3.0, -np.inf]
values = st.one_of(
    st.sampled_from(few), st.floats(-20, 20, width=32), st.sampled_from([3.4e38, -3.4e38, 1e-30])
)


@settings(max_examples=examples(400), deadline=None)
@given(
    row=st.lists(values, min_size=1, max_size=40),
    seed=st.integers(0, 2**40),
    temperature=st.sampled_from([0.0, 1e-310, 0.3, 1.0, 2.5, 1e40, 1e300]),
    top_k=st.integers(0, 45),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    order=st.sampled_from(["hf", "vllm", "joint"]),
)
def test_equals_the_reference(row: list[float], seed: int, **options: Any) -> None:
    z = np.array([row], np.float32)
    drawn = sample(z, allowed=None, seeds=seed, positions=3, return_kept=True, **options)
    if np.all(z == -INF):
        assert drawn.status.tolist() == [Status.MASKED]
        assert drawn.token_ids.tolist() == [-1]
        return
    u = uniforms(seed, 3, np.arange(len(row)))[0]
    local, logprob, kept = sample_row_reference(z[0], u, **options)
    assert drawn.token_ids.tolist() == [local]
    np.testing.assert_array_equal(drawn.kept.token_ids, np.flatnonzero(kept))
    np.testing.assert_allclose(drawn.logprobs, [logprob], rtol=1e-6, atol=1e-6)
    assert drawn.status.tolist() == [Status.OK]


@pytest.mark.parametrize(("columns", "filters"), combinations([1, 2, 33, 300, 2049], FILTERS))
def test_equals_the_reference_on_normal_logits(columns: int, filters: str) -> None:
    rows = 6 if columns > 1000 else 40
    z = logits(rows, columns)
    allowed = AllowedSet(range(50, 50 + columns), 3000)
    options = {"temperature": 0.85, **FILTERS[filters]}
    for order in ("hf", "vllm", "joint"):
        drawn = sample(
            z, allowed=allowed, seeds=np.arange(rows), positions=1, order=order, return_kept=True, **options
        )
        u = uniforms(np.arange(rows), 1, allowed.ids)
        for row in range(rows):
            local, logprob, kept = sample_row_reference(z[row], u[row], order=order, **options)
            assert drawn.token_ids[row] == 50 + local
            np.testing.assert_array_equal(drawn.kept.row(row), allowed.ids[kept])
            np.testing.assert_allclose(drawn.logprobs[row], logprob, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "columns"), combinations([np.float32, np.float16, ml_dtypes.bfloat16], [100, 2049, 1])
)
def test_backends_agree(dtype: Any, columns: int) -> None:
    rows = 100
    cond, uncond = (logits(rows, columns, seed).astype(dtype) for seed in (1, 2))
    allowed = AllowedSet(np.random.default_rng(0).choice(5000, columns, replace=False), 5000)
    for filters, order in itertools.product(FILTERS.values(), ("hf", "vllm", "joint")):
        options = {
            "allowed": allowed,
            "cfg_scale": 2.3,
            "temperature": 0.7,
            "seeds": np.arange(rows) - 50,
            "positions": np.arange(rows) * 3,
            "order": order,
            "return_kept": True,
            **filters,
        }
        wanted = sample_on("rust", cond, uncond, **options)
        assert np.all(wanted.status == 0)
        assert_equal(sample_on("torch", cond, uncond, **options), wanted)
        if (order == "hf" and dtype == np.float32) or len(filters) == 3:  # compiling takes most of the time
            assert_equal(sample_on("jax", cond, uncond, **options), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_agrees_with_per_row_parameters(backend: str) -> None:
    rows, columns = 60, 513
    cond, uncond = logits(rows, columns, 1), logits(rows, columns, 2)
    rng = np.random.default_rng(3)
    options: dict[str, Any] = {
        "cfg_scale": rng.choice([1.0, 1.5, 3.0], rows),
        "temperature": rng.choice([0.0, 0.5, 1.0, 2.0], rows),
        "top_k": rng.choice([0, 1, 5, 513, 600], rows),
        "top_p": rng.choice([0.0, 0.5, 0.9, 1.0], rows),
        "min_p": rng.choice([0.0, 0.1, 1.0], rows),
        "seeds": np.arange(rows),
        "positions": np.arange(rows),
    }
    for logprobs in ("kept", "allowed"):
        drawn = sample_on(backend, cond, uncond, allowed=None, return_kept=True, logprobs=logprobs, **options)
        for row in range(rows):
            own = {name: value[row].item() for name, value in options.items()}
            one = slice(row, row + 1)
            alone = sample(cond[one], uncond[one], allowed=None, return_kept=True, logprobs=logprobs, **own)
            assert drawn.token_ids[row] == alone.token_ids[0]
            np.testing.assert_array_equal(drawn.kept.row(row), alone.kept.row(0))
            np.testing.assert_allclose(drawn.logprobs[row], alone.logprobs[0], rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("backend", "parts"),
    combinations(BACKENDS, [[range(100, 400)], [*range(0, 900, 3)], [7, range(100, 400)]]),
)
def test_full_compact_reordered_and_split_draw_the_same(backend: str, parts: Any) -> None:
    allowed = AllowedSet(parts, 1000)
    rows = 24
    full = [logits(rows, 1000, seed) for seed in (1, 2)]
    full[0][:, 999] = np.nan  # not allowed: nothing that matters
    compact = [branch[:, allowed.ids] for branch in full]
    seeds, positions = np.arange(rows) + 9, np.arange(rows)
    common: dict[str, Any] = {"cfg_scale": 1.5, "top_p": 0.95, "return_kept": True, "allowed": allowed}

    def draw(branches: Any, pick: Any) -> Sampled:
        picked = [np.ascontiguousarray(branch[pick]) for branch in branches]
        return sample_on(backend, *picked, seeds=seeds[pick], positions=positions[pick], **common)

    wanted = draw(full, slice(None))
    assert len(set(wanted.token_ids.tolist())) > 10
    assert_equal(draw(compact, slice(None)), wanted)
    shuffled = np.random.default_rng(0).permutation(rows)
    np.testing.assert_array_equal(draw(compact, shuffled).token_ids, wanted.token_ids[shuffled])
    for part in (slice(0, 1), slice(1, 8), slice(8, None)):
        np.testing.assert_array_equal(draw(compact, part).token_ids, wanted.token_ids[part])
    # A larger allowed set whose other tokens are masked.
    masked = [np.where(np.isin(np.arange(1000), allowed.ids), branch, -INF) for branch in full]
    drawn = sample_on(backend, *masked, seeds=seeds, positions=positions, **{**common, "allowed": None})
    assert_equal(drawn, wanted)


def spread_of(counts: Any, expected: Any) -> float:
    """Chi-square, as standard deviations above its mean."""
    freedom = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


DISTRIBUTIONS: list[tuple[dict[str, Any], str]] = [
    ({}, "hf"),
    ({"temperature": 0.5}, "hf"),
    ({"top_k": 5, "top_p": 0.8}, "hf"),
    ({"top_k": 5, "top_p": 0.8}, "joint"),
    ({"min_p": 0.2, "top_p": 0.9}, "vllm"),
]


@pytest.mark.parametrize(("backend", "case"), combinations(BACKENDS, DISTRIBUTIONS), ids=str)
def test_distribution_is_exact(backend: str, case: tuple[dict[str, Any], str]) -> None:
    filters, order = case
    rows = 40_000
    row = np.array([0.3, 1.0, -1.0, 1.0, 0.0, -3.0, 0.9, 0.2, -0.5, 0.5], np.float32)
    ids = np.arange(10) * 1000
    drawn = sample_on(
        backend,
        np.tile(row, (rows, 1)),
        allowed=AllowedSet(ids, 10_000),
        seeds=np.arange(rows) // 200,
        positions=np.arange(rows) % 200,
        order=order,
        **filters,
    )
    _, _, kept = sample_row_reference(row, np.full(10, 0.5), order=order, **filters)
    weight = np.where(kept, np.exp(row.astype(np.float64) / filters.get("temperature", 1.0)), 0)
    counts = np.bincount(drawn.token_ids // 1000, minlength=10)
    assert counts[~kept].sum() == 0
    assert abs(spread_of(counts[kept], rows * (weight / weight.sum())[kept])) < 5
    share = (weight / weight.sum())[drawn.token_ids // 1000]
    np.testing.assert_allclose(drawn.logprobs, np.log(share), rtol=1e-5)


def test_distribution_over_many_tokens() -> None:
    rows, columns = 200_000, 257
    row = logits(1, columns, 5, 1.0)
    drawn = sample(np.repeat(row, rows, 0), allowed=None, seeds=np.arange(rows), positions=0)
    weight = np.exp(row[0].astype(np.float64))
    counts = np.bincount(drawn.token_ids, minlength=columns)
    assert abs(spread_of(counts, rows * weight / weight.sum())) < 5


@pytest.mark.parametrize(("backend", "name"), combinations(BACKENDS, FILTERS))
def test_special_rows(backend: str, name: str) -> None:
    filters = FILTERS[name]
    drawn = sample_on(backend, SPECIAL, allowed=None, seeds=5, positions=0, return_kept=True, **filters)
    assert drawn.status.tolist() == STATUS
    assert drawn.status.dtype == np.int8
    assert drawn.token_ids[[0, 1, 4]].tolist() == [-1, -1, -1]
    assert np.isnan(drawn.logprobs).tolist() == [status != 0 for status in STATUS]
    assert np.diff(drawn.kept.offsets)[[0, 1, 4]].tolist() == [0, 0, 0]
    assert drawn.token_ids[2] == 1
    assert drawn.token_ids[3] in (0, 2)
    assert 1 not in drawn.kept.row(3)
    assert drawn.token_ids[6] == 0
    greedy = filters.get("temperature") == 0
    assert drawn.kept.row(5).tolist() == ([0] if greedy else [0, 1]), "zeros are equal"


@pytest.mark.parametrize("backend", BACKENDS)
def test_infinite_logits_are_drawn_alike(backend: str) -> None:
    both = sample_on(
        backend, np.repeat(SPECIAL[3:4], 200, 0), allowed=None, seeds=np.arange(200), positions=0
    )
    assert set(both.token_ids.tolist()) == {0, 2}
    np.testing.assert_allclose(both.logprobs, np.log(0.5), rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_guidance_with_masks(backend: str) -> None:
    cond = np.array([[1, 2, -INF, 4], [-INF, 0, 0, 0], [INF, 0, 0, 0], [INF, 0, 0, 0]], np.float32)
    uncond = np.array([[1, -INF, -INF, 0], [0, 0, 0, 0], [0, 0, 0, 0], [INF, 0, 0, 0]], np.float32)
    drawn = sample_on(
        backend, cond, uncond, allowed=None, cfg_scale=2.0, seeds=0, positions=0, return_kept=True
    )
    assert drawn.kept.row(0).tolist() == [0, 3], "what either branch masks stays masked"
    assert drawn.kept.row(1).tolist() == [1, 2, 3]
    assert drawn.status.tolist() == [0, 0, 0, Status.NAN]
    assert drawn.token_ids[2] == 0
    off = sample_on(backend, cond, uncond, allowed=None, seeds=0, positions=0, return_kept=True)
    assert off.kept.row(0).tolist() == [0, 1, 3]
    assert off.token_ids[2] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_filters_keep_ties(backend: str) -> None:
    z = np.array([[1, 3, 2, 3, 2, 2, 0]], np.float32)

    def kept(**options: Any) -> list[int]:
        drawn = sample_on(backend, z, allowed=None, seeds=0, positions=0, return_kept=True, **options)
        ids: list[int] = drawn.kept.token_ids.tolist()
        return ids

    assert kept(top_k=1) == [1, 3]
    assert kept(top_k=2) == [1, 3]
    assert kept(top_k=3) == [1, 2, 3, 4, 5]
    assert kept(top_k=6) == [0, 1, 2, 3, 4, 5]
    assert kept(top_k=7) == kept(top_k=100) == kept() == list(range(7))
    assert kept(top_p=0.0) == kept(top_p=0.5) == [1, 3]
    assert kept(top_p=0.7) == [1, 2, 3, 4, 5]
    assert kept(min_p=1.0) == [1, 3]
    assert kept(min_p=float(np.exp(-1.000001))) == [1, 2, 3, 4, 5]
    assert kept(temperature=0.0) == [1]
    flat = sample_on(
        backend, np.zeros((1, 4), np.float32), allowed=None, seeds=0, positions=0, top_p=0.5, return_kept=True
    )
    assert flat.kept.token_ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("backend", BACKENDS)
def test_orders_differ_where_they_should(backend: str) -> None:
    z = np.log(np.array([[0.4, 0.3, 0.2, 0.06, 0.04]])).astype(np.float32)

    def kept(order: str, **options: Any) -> int:
        drawn = sample_on(
            backend, z, allowed=None, seeds=0, positions=0, order=order, return_kept=True, **options
        )
        return len(drawn.kept.token_ids)

    # Of the top three, 0.4 + 0.3 is 0.78 of the mass; of all it is 0.7.
    assert kept("hf", top_k=3, top_p=0.75) == kept("acestep", top_k=3, top_p=0.75) == 2
    assert kept("joint", top_k=3, top_p=0.75) == 3
    # Min-p first leaves 0.9 of the mass, of which 0.7 is 0.78.
    assert kept("vllm", min_p=0.3, top_p=0.75) == 2
    assert kept("hf", min_p=0.3, top_p=0.75) == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_race_times_go_to_the_lowest_id(backend: str) -> None:
    z = np.zeros((3, 5), np.float32)
    noise = np.array([[0.1, 0.9, 0.2, 0.9, 0.9], [0.5] * 5, [0.1, 0.2, 0.3, 0.9, 0.9]], np.float32)
    drawn = sample_on(backend, z, allowed=None, noise=noise)
    assert drawn.token_ids.tolist() == [1, 0, 3]


@pytest.mark.parametrize("backend", BACKENDS)
def test_race_times_that_rounding_may_tell_apart_are_equal(backend: str) -> None:
    """The second is sooner by 5e-14 of its time."""
    z = np.array([[0, -5.159478746463719e-07]], np.float32)
    noise = np.array([[0.25, 0.2500001788139343]], np.float32)
    assert sample_on(backend, z, allowed=None, noise=noise).token_ids.tolist() == [0]
    both = [np.ascontiguousarray(matrix[:, ::-1]) for matrix in (z, noise)]
    assert sample_on(backend, both[0], allowed=None, noise=both[1]).token_ids.tolist() == [0]


ENDS = (1e-310, 1e-300, 1e-30, 1e38, 1e40, 1e300)


@pytest.mark.parametrize("backend", ["torch", "jax"])
@pytest.mark.parametrize(
    ("temperature", "filters"), combinations(ENDS, [{}, {"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.3}])
)
def test_agrees_at_the_ends_of_numbers(backend: str, temperature: float, filters: dict[str, Any]) -> None:
    z = np.array([[0, 1, 1, 1, 0.5], [1, -1, 1, 0, -1], [1, 1, 1, -1, -INF], [5, 5, 5, -INF, 5]], np.float32)
    z[1:3] *= np.float32(3.4e38)
    z = np.repeat(z, 40, 0)
    options: dict[str, Any] = {"seeds": np.arange(len(z)), "positions": 0, "return_kept": True, **filters}
    wanted = sample_on("rust", z, allowed=None, temperature=temperature, **options)
    assert_equal(sample_on(backend, z, allowed=None, temperature=temperature, **options), wanted)
    per_row = np.full(len(z), temperature)
    assert_equal(sample_on(backend, z, allowed=None, temperature=per_row, **options), wanted)
    if temperature > 1 and not filters:
        assert set(wanted.token_ids[:40].tolist()) > {1, 2, 3}


@pytest.mark.parametrize("backend", BACKENDS)
def test_noise_given_is_the_noise_used(backend: str) -> None:
    z = logits(30, 200)
    allowed = AllowedSet([3, range(20, 90)], 200)
    keyed = sample_on(backend, z, allowed=allowed, seeds=np.arange(30), positions=2, top_p=0.9)
    full = uniforms(np.arange(30), 2, np.arange(200))
    assert_equal(sample_on(backend, z, allowed=allowed, noise=full, top_p=0.9), keyed)
    compact = [np.ascontiguousarray(matrix[:, allowed.ids]) for matrix in (z, full)]
    assert_equal(sample_on(backend, compact[0], allowed=allowed, noise=compact[1], top_p=0.9), keyed)


def test_returns_arrays_of_the_caller() -> None:
    z = logits(4, 8)
    options: dict[str, Any] = {"allowed": None, "seeds": 1, "positions": np.arange(4), "return_kept": True}
    wanted = sample(z, **options)
    assert wanted.token_ids.dtype == np.int64
    assert wanted.kept.token_ids.dtype == np.int32
    assert wanted.kept.offsets.dtype == np.int64
    tensor = torch.from_numpy(z).requires_grad_()
    on_torch = sample(tensor, **{**options, "positions": torch.arange(4)})
    assert isinstance(on_torch.token_ids, torch.Tensor)
    assert on_torch.token_ids.dtype == torch.int64
    assert on_torch.token_ids.tolist() == wanted.token_ids.tolist()
    assert on_torch.kept.token_ids.tolist() == wanted.kept.token_ids.tolist()
    half = sample(torch.from_numpy(z).bfloat16(), **options)
    assert half.token_ids.tolist() == sample(z.astype(ml_dtypes.bfloat16), **options).token_ids.tolist()
    on_jax = sample(jnp.asarray(z), **{**options, "positions": jnp.arange(4)})
    assert isinstance(on_jax.token_ids, jax.Array)
    assert on_jax.token_ids.dtype == jnp.int32
    assert on_jax.token_ids.tolist() == wanted.token_ids.tolist()
    traced = jax.jit(lambda z, positions: sample(z, **{**options, "positions": positions}))
    drawn = traced(jnp.asarray(z), jnp.arange(4))
    assert drawn.token_ids.tolist() == wanted.token_ids.tolist()
    assert drawn.token_ids.dtype == jnp.int32
    assert drawn.kept.shape == (4, 8)
    bare = sample(z, **{**options, "logprobs": None, "return_kept": False})
    assert bare.logprobs is None
    assert bare.kept is None


def test_runs_untraced_where_arrays_are_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    z = logits(5, 30)
    options: dict[str, Any] = {"allowed": None, "seeds": 3, "positions": 1, "top_p": 0.9, "return_kept": True}
    wanted = sample(z, **options)
    monkeypatch.setattr(type(make_request(z, **options)), "is_plain", lambda _: False)
    assert_equal(sample(jnp.asarray(z), **options), wanted)
    drawn = sample(torch.from_numpy(z), **options)
    assert drawn.token_ids.tolist() == wanted.token_ids.tolist()
    assert drawn.kept.token_ids.tolist() == wanted.kept.token_ids.tolist()


def test_untraced_calls_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    z = jnp.asarray(logits(5, 31))
    monkeypatch.setattr(
        type(make_request(logits(1, 1), **GOOD | {"allowed": None})), "is_plain", lambda _: False
    )
    compiled: list[str] = []

    def note(event: str, duration_secs: float, **_: Any) -> None:
        compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    counts = []
    for position in range(4):
        sample(z, allowed=None, seeds=position, positions=position, top_k=9, top_p=0.9, min_p=0.01)
        counts.append(sum("backend_compile" in name for name in compiled))
    assert counts[0] > 0
    assert counts[1:] == counts[1:2] * 3


def test_traces_parameters_in_loops() -> None:
    z = logits(4, 50)

    @jax.jit
    def run(z: Any, top_p: Any, temperature: Any) -> Any:
        def step(position: Any, out: Any) -> Any:
            drawn = sample(
                z, allowed=None, seeds=jnp.arange(4), positions=position, top_p=top_p, temperature=temperature
            )
            return out.at[:, position].set(drawn.token_ids)

        return jax.lax.fori_loop(0, 6, step, jnp.zeros((4, 6), jnp.int32))

    for top_p, temperature in ((0.9, 0.7), (1.0, 0.0)):
        got = np.asarray(run(z, top_p, temperature))
        for position in range(6):
            wanted = sample(
                z,
                allowed=None,
                seeds=np.arange(4),
                positions=position,
                top_p=float(np.float32(top_p)),
                temperature=float(np.float32(temperature)),
            )
            np.testing.assert_array_equal(got[:, position], wanted.token_ids)


def test_takes_any_memory() -> None:
    z = logits(6, 40)
    options: dict[str, Any] = {"allowed": None, "seeds": np.arange(6), "positions": 0}
    wanted = sample(z, **options).token_ids
    wide = np.repeat(z, 2, 1)[:, ::2]
    read_only = z.copy()
    read_only.flags.writeable = False
    for found in (wide, read_only, np.asfortranarray(z), z.astype(np.float64), np.tile(z, 2)[:, :40]):
        np.testing.assert_array_equal(sample(found, **options).token_ids, wanted)
    assert sample(z[:0], **{**options, "seeds": 0}).token_ids.shape == (0,)


def test_guides_alike() -> None:
    c, u = logits(64, 999, 1), logits(64, 999, 2)
    c[0, :3], u[0, 1:4] = -INF, -INF
    scale = np.linspace(0.5, 7, 64).astype(np.float32)
    scale[5] = 1
    wanted = cfg(c, u, scale)
    assert wanted.dtype == np.float32
    np.testing.assert_allclose(wanted[6:], u[6:] + scale[6:, None] * (c[6:] - u[6:]), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(wanted[5], c[5])
    assert np.all(wanted[0, :4] == -INF)
    on_torch = cfg(torch.from_numpy(c), torch.from_numpy(u), torch.from_numpy(scale))
    np.testing.assert_array_equal(on_torch.numpy(), wanted)
    np.testing.assert_array_equal(jax.jit(cfg)(c, u, jnp.asarray(scale)), wanted)
    np.testing.assert_array_equal(jax.jit(lambda c, u: cfg(c, u, scale) * 2)(c, u), wanted * 2)
    np.testing.assert_array_equal(cfg(np.concatenate([c, u]), None, scale), wanted)
    np.testing.assert_array_equal(cfg(c, u, 2.0, bias=np.ones(999, np.float32)), cfg(c, u, 2.0) + 1)


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, jnp.asarray], ids=["numpy", "torch", "jax"])
def test_guided_logits_are_float32_with_any_bias(make: Any) -> None:
    c, u, bias = logits(2, 3, 1), logits(2, 3, 2), [0.5, -1, 2]
    wanted = cfg(c, u, 1.5) + np.array(bias, np.float32)
    for added in (bias, np.array(bias), make(np.array(bias)), np.array([bias] * 2)):
        found = cfg(make(c), make(u), 1.5, bias=added)
        assert str(found.dtype).removeprefix("torch.") == "float32"
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(cfg(make(c), make(u), 1.5, bias=2), cfg(c, u, 1.5) + 2)
    np.testing.assert_array_equal(cfg(c.tolist(), u.tolist(), 1.5), cfg(c, u, 1.5))


def test_takes_parameters_of_any_size_and_dtype() -> None:
    z = logits(4, 9)
    wanted = sample(z, **{**GOOD, "allowed": None}, temperature=0.5).token_ids
    for top_k in (9, 2**40, 2**63, [2**40] * 4, np.full(4, 2**63, np.uint64)):
        found = sample(z, **{**GOOD, "allowed": None}, temperature=0.5, top_k=top_k)
        np.testing.assert_array_equal(found.token_ids, wanted)
        draw = jax.jit(lambda z, k=top_k: sample(z, **{**GOOD, "allowed": None}, temperature=0.5, top_k=k))
        np.testing.assert_array_equal(draw(jnp.asarray(z)).token_ids, wanted)
    half = torch.full((4,), 0.5, dtype=torch.bfloat16)
    for heat in (half, half[0], jnp.full(4, 0.5, jnp.bfloat16)):
        found = sample(z, **{**GOOD, "allowed": None}, temperature=heat)
        np.testing.assert_array_equal(found.token_ids, wanted)
    noise = uniforms([0] * 4, 0, np.arange(9)).tolist()
    found = sample(z.tolist(), allowed=None, temperature=0.5, noise=noise)
    np.testing.assert_array_equal(found.token_ids, wanted)
    assert sample(z[:0], allowed=None, seeds=[], positions=[]).token_ids.shape == (0,)


ALLOWED = AllowedSet(range(2, 5), 9)
GOOD: dict[str, Any] = {"allowed": ALLOWED, "seeds": 0, "positions": 0}


@pytest.mark.parametrize(
    ("shape", "more", "error", "message"),
    [
        ((3,), {}, ValueError, "cond must be [rows, columns], got shape (3,)"),
        ((2, 4), {}, ValueError, "cond must have 3 columns (compact) or 9 (full), got 4"),
        ((2, 3), {"allowed": [1]}, TypeError, "allowed must be an AllowedSet or None, got list"),
        (
            (2, 3),
            {"allowed": AllowedSet([], 3)},
            ValueError,
            "allowed is empty; a row needs at least one token to draw from",
        ),
        ((2, 3), {"seeds": None}, TypeError, "pass seeds and positions, or noise"),
        ((2, 3), {"noise": np.ones((2, 3))}, TypeError, "pass seeds and positions, or noise; got both"),
        (
            (2, 3),
            {"noise": np.ones((2, 2)), "seeds": None, "positions": None},
            ValueError,
            "noise must have the shape of cond, (2, 3), got (2, 2)",
        ),
        (
            (2, 3),
            {"noise": np.full((2, 3), 1 - 1e-9), "seeds": None, "positions": None},
            ValueError,
            "noise[0, 0] is 1.0 as float32; uniforms are above 0 and below 1",
        ),
        ((2, 3), {"temperature": -1}, ValueError, "temperature is -1; it must be at least 0"),
        ((2, 3), {"temperature": [1, np.nan]}, ValueError, "temperature[1] is nan; it must be at least 0"),
        ((2, 3), {"top_p": [0.5, 1.5]}, ValueError, "top_p[1] is 1.5; it must be 0 to 1"),
        ((2, 3), {"min_p": -0.5}, ValueError, "min_p is -0.5; it must be 0 to 1"),
        ((2, 3), {"top_k": 1.5}, TypeError, "top_k must be ints, got float64"),
        (
            (2, 3),
            {"top_k": [1, 2, 3]},
            ValueError,
            "top_k must be one number or [2], one per row, got shape (3,)",
        ),
        ((2, 3), {"cfg_scale": np.inf}, ValueError, "cfg_scale is inf; it must be finite"),
        (
            (2, 3),
            {"seeds": [1, 2, 3]},
            ValueError,
            "seeds must be one int or [2], one per row, got shape (3,)",
        ),
        (
            (2, 3),
            {"order": "x"},
            ValueError,
            "order must be one of 'hf', 'vllm', 'joint', 'acestep', got 'x'",
        ),
        ((2, 3), {"logprobs": "raw"}, ValueError, "logprobs must be one of 'kept', 'allowed', got 'raw'"),
        (
            (2, 3),
            {"order": "acestep", "min_p": 0.1},
            ValueError,
            'min_p is not part of order="acestep"; leave it 0, or pass order="hf"',
        ),
        (
            (2, 3),
            {"uncond": np.zeros((1, 3), np.float32)},
            ValueError,
            "uncond must have the shape of cond, (2, 3), got (1, 3)",
        ),
        (
            (2, 3),
            {"uncond": np.zeros((2, 3), np.float16)},
            TypeError,
            "uncond must have the dtype of cond, float32, got float16",
        ),
        (
            (2, 3),
            {"uncond": torch.zeros(2, 3)},
            TypeError,
            "cond is of numpy, uncond of torch; convert one: uncond = np.asarray(uncond)",
        ),
    ],
)
def test_errors(shape: tuple[int, ...], more: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        sample(np.zeros(shape, np.float32), **{**GOOD, **more})
    assert str(raised.value) == message


def test_refuses_integers() -> None:
    with pytest.raises(TypeError, match="cond must be float32, float16 or bfloat16, got int64"):
        sample(np.zeros((2, 3), np.int64), **GOOD)


def test_rollkit_does_not_import_decode() -> None:
    import subprocess

    code = "import sys, rollkit; assert not any('decode' in m or m in ('torch', 'jax') for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, rollkit.decode; assert not any(m in ('torch', 'jax') for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
