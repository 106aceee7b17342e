"""The Triton kernel without a GPU: run by Triton's interpreter in other processes, and compiled here."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.decode.sampling import FILTERS, INF, SPECIAL, STATUS, assert_equal
from tests.thorough import LEVEL, by_level, combinations

from rollkit.decode import AllowedSet, Sampled, _cuda, sample, uniforms
from rollkit.decode import _torch as operations
from rollkit.decode._request import SAME, Request, make_request
from rollkit.testing.decode import sample_on

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
kernels = pytest.importorskip("rollkit.decode._triton")

Job = tuple[Any, Any, dict[str, Any]]
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Processes in which Triton is imported with its interpreter, as in no other test's."""
    spawn = multiprocessing.get_context("spawn")
    first = "import os; os.environ['TRITON_INTERPRET'] = '1'"
    with ProcessPoolExecutor(by_level(1, 2), mp_context=spawn, initializer=exec, initargs=(first,)) as pool:
        yield pool


def check(pool: ProcessPoolExecutor, jobs: list[Job]) -> list[Sampled]:
    """Draw by the kernel and by Rust, and compare all that comes out."""
    found = [pool.submit(sample_on, "triton", cond, uncond, **options) for cond, uncond, options in jobs]
    drawn = []
    for future, (cond, uncond, options) in zip(found, jobs, strict=True):
        got, wanted = future.result(), sample_on("rust", cond, uncond, **options)
        assert_equal(got, wanted)
        assert (got.token_ids.dtype, got.status.dtype) == (np.int64, np.int8)
        assert (got.logprobs is None) == (wanted.logprobs is None)
        drawn.append(got)
    return drawn


def halved(jobs: list[Any], other: bool) -> list[Any]:
    """All jobs; by default one half of them, as the interpreter is slow, and the other for other columns."""
    return jobs if LEVEL else jobs[other::2]


def logits(rows: int, columns: int, seed: int = 0, dtype: Any = np.float32) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    found = 3 * rng.normal(size=(rows, columns))
    found[rng.random(found.shape) < 0.02] = -np.inf
    return found.astype(dtype)


def keys(rows: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    found = {"seeds": rng.integers(-(2**63), 2**63, rows), "positions": rng.integers(0, 2**31, rows)}
    found["seeds"][:2], found["positions"][:2] = (-(2**63), 2**63 - 1)[:rows], (2**31 - 1, 0)[:rows]
    return found


ORDERS = ("hf", "vllm", "joint")


@pytest.mark.parametrize(("columns", "order"), combinations([1, 2, 7, 1000, 2049, 5000], ORDERS))
def test_equals_rust_with_parameters_per_row(pool: ProcessPoolExecutor, columns: int, order: str) -> None:
    rows = by_level(3, 6)  # the interpreter takes up to a tenth of a second for one
    turn = ORDERS.index(order)
    rng = np.random.default_rng([columns, turn])
    cond, uncond = (logits(rows, columns, 2 * turn + branch, DTYPES[turn]) for branch in (0, 1))
    options: dict[str, Any] = {
        "allowed": AllowedSet(range(50, 50 + columns), 6000),
        "cfg_scale": rng.choice([1.0, 1.5, 3.1], rows),
        "temperature": rng.choice([0.0, 0.5, 1.0, 2.1], rows, p=[0.1, 0.3, 0.3, 0.3]),
        "top_k": rng.choice([0, 1, 5, 300, columns, columns + 1], rows),
        "top_p": rng.choice([0.0, 0.5, 0.93, 0.999, 1.0], rows),
        "min_p": rng.choice([0.0, 0.001, 0.1, 1.0], rows),
        "order": order,
        "logprobs": "allowed" if turn else "kept",
        "return_kept": True,
        **keys(rows, turn),
    }
    check(pool, [(cond, uncond, options)])


@pytest.mark.parametrize("columns", [100, 4500])
def test_equals_rust_with_numbers(pool: ProcessPoolExecutor, columns: int) -> None:
    rows = 4
    jobs: list[Job] = []
    for turn, filters in enumerate((*FILTERS.values(), {"top_k": 20, "top_p": 0.8, "order": "acestep"})):
        options: dict[str, Any] = {"allowed": None, "temperature": 0.85, "return_kept": turn % 4 != 3}
        options |= {"cfg_scale": 2.3 if turn % 4 == 1 else 1.0, **keys(rows, turn), **filters}
        options["logprobs"] = ("kept", "allowed", None)[turn % 3]
        branches = [logits(rows, columns, seed, DTYPES[turn % 3]) for seed in (turn, turn + 1)]
        uncond = branches[1] if turn % 2 else None
        jobs.append((branches[0], uncond, options))
    ones = {"allowed": None, "seeds": 1, "positions": 1, "top_k": 1, "return_kept": True}
    tensors = {"temperature": torch.tensor([0.7, 1, 2, 0]), "seeds": torch.arange(4, dtype=torch.int32)}
    jobs += [(branches[0], None, ones), (branches[0], None, {**ones, **tensors, "top_k": [0, 1, 2, 3]})]
    check(pool, halved(jobs, columns > 1000))


@pytest.mark.parametrize(
    "parts",
    [[range(100, 400)], [7, range(100, 400)], list(range(0, 9000, 2))],
    ids=["range", "table", "long table"],
)
def test_full_and_compact_draw_the_same(pool: ProcessPoolExecutor, parts: Any) -> None:
    allowed, rows = AllowedSet(parts, 9000), 3
    full = [logits(rows, 9000, seed) for seed in (1, 2)]
    full[0][:, 8999] = np.nan  # not allowed: nothing that matters
    options: dict[str, Any] = {"cfg_scale": 1.5, "top_p": 0.95, "return_kept": True, "allowed": allowed}
    options |= keys(rows)
    compact = [branch[:, allowed.ids] for branch in full]
    strided = [torch.from_numpy(branch).repeat_interleave(2, 0)[::2] for branch in full]
    jobs: list[Job] = [(cond, uncond, options) for cond, uncond in (full, compact)]
    drawn = check(pool, jobs)
    np.testing.assert_array_equal(drawn[0].token_ids, drawn[1].token_ids)
    assert strided[0].stride(0) == 18_000
    got = pool.submit(sample_on, "triton", *strided, **options).result()
    np.testing.assert_array_equal(got.token_ids, drawn[0].token_ids)


@pytest.mark.parametrize("columns", [3, 4500])
def test_special_rows(pool: ProcessPoolExecutor, columns: int) -> None:
    z = np.full((7, columns), -INF)
    z[:, [0, columns // 2, columns - 1]] = SPECIAL
    common: dict[str, Any] = {"allowed": None, "seeds": 5, "positions": 0, "return_kept": True}
    some = [FILTERS[name] for name in ("none", "all", "greedy")]
    drawn = check(pool, [(z, None, {**common, **filters}) for filters in some])
    assert all(found.status.tolist() == STATUS for found in drawn)


def test_guidance_with_masks(pool: ProcessPoolExecutor) -> None:
    cond = np.array([[1, 2, -INF, 4], [-INF, 0, 0, 0], [INF, 0, 0, 0], [INF, 0, 0, 0]], np.float32)
    uncond = np.array([[1, -INF, -INF, 0], [0, 0, 0, 0], [0, 0, 0, 0], [INF, 0, np.nan, 0]], np.float32)
    common: dict[str, Any] = {"allowed": None, "seeds": 0, "positions": 0, "return_kept": True}
    scales: list[Any] = [2.0, 1.0, -1.5, np.array([1, 2, 0.1, 1])]
    check(pool, [(cond, uncond, {**common, "cfg_scale": scale}) for scale in scales])


@pytest.mark.parametrize("columns", [40, 4500])
def test_filters_keep_ties(pool: ProcessPoolExecutor, columns: int) -> None:
    rows = 3
    some = np.array([0.0, -0.0, 1.0, 1.5, -2.0, 3.0, -INF, 1e-40, -1e-40], np.float32)
    z = np.random.default_rng(0).choice(some, (rows, columns))
    z[0] = 0.5
    common = {"allowed": None, "return_kept": True, **keys(rows)}
    tries: list[dict[str, Any]] = [
        {"top_k": columns // 5},
        {"top_k": columns - 1, "top_p": 0.97},
        {"top_p": np.array([0.5, 0.0, 0.6])},
        {"min_p": float(np.exp(-1.500001)), "top_p": 0.9, "order": "vllm"},
        {"top_p": 0.6, "temperature": 1e-3},
        {"min_p": 1.0, "temperature": 50.0},
    ]
    check(pool, [(z, None, {**common, **filters}) for filters in halved(tries, columns > 1000)])


def test_equal_race_times_go_to_the_lowest_id(pool: ProcessPoolExecutor) -> None:
    columns = 5000
    u = uniforms(np.arange(10_000), 0, np.arange(columns))
    u.partition(columns - 2, axis=1)
    tied = np.flatnonzero(u[:, -1] == u[:, -2])
    assert len(tied) >= 3
    z = np.zeros((len(tied), columns), np.float32)
    check(pool, [(z, None, {"allowed": None, "seeds": tied, "positions": 0, "temperature": 0.3})])


# What is compiled, without a GPU.


def compiled(kernel: Any, signature: dict[str, str], constants: dict[str, Any], capability: int) -> str:
    """Return PTX; `ptxas` has made machine code of it too."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = dict.fromkeys((name for name, kind in signature.items() if kind == "constexpr")) | constants
    source = ASTSource(kernel, signature | dict.fromkeys(constants, "constexpr"), constants)
    options = {"enable_fp_fusion": False, "sanitize_overflow": False, "num_warps": 16}
    found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert found.asm["cubin"]
    text: str = found.asm["ptx"]
    return text


@pytest.fixture
def compiling(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes from a cache."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton was imported with its interpreter, which compiles nothing")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


NUMBERS = {"cfg_scale": "i64", "temperature": "i64", "top_k": "i64", "top_p": "i64", "min_p": "i64"}
COLUMNS = {"cfg_scale": "*fp32", "temperature": "*fp64", "top_k": "*i32", "top_p": "*fp32", "min_p": "*fp64"}


@pytest.mark.parametrize(
    ("capability", "dtype", "filters", "more"),
    [
        (80, "fp32", NUMBERS, {"ONE": True}),
        (90, "bf16", COLUMNS, {"ONE": False, "FULL": True, "LOGPROB": "allowed"}),
        (90, "fp16", NUMBERS | dict.fromkeys(("top_k", "top_p", "min_p"), "constexpr"), {"ONE": False}),
        (80, "bf16", COLUMNS | {"cfg_scale": "constexpr"}, {"ONE": False, "ORDER": "vllm", "LOGPROB": "off"}),
    ],
    ids=["in registers", "full table", "no filter", "not guided"],
)
@pytest.mark.usefixtures("compiling")
def test_compiles_for_cuda(
    capability: int, dtype: str, filters: dict[str, str], more: dict[str, Any]
) -> None:
    one, full = more["ONE"], "FULL" in more
    weighed = not one and filters["top_p"] != "constexpr"
    signature = {
        "cond": f"*{dtype}",
        "uncond": "constexpr" if filters["cfg_scale"] == "constexpr" else f"*{dtype}",
        "table": "*i32" if full else "constexpr",
        **filters,
        "seeds": "*i64",
        "positions": "i32",
        "token_ids": "*i64",
        "status": "*i8",
        "logprobs": "constexpr" if more.get("LOGPROB") == "off" else "*fp32",
        "mask": "*i8" if full else "constexpr",
        "logits": "constexpr" if one else "*fp32",
        "weights": "*fp64" if weighed else "constexpr",
        **dict.fromkeys(("size", "first", "cond_stride", "uncond_stride"), "i32"),
    }
    constants = {name.upper(): filters[name] != "constexpr" for name in ("top_k", "top_p", "min_p")}
    constants |= {"FULL": False, "ORDER": "hf", "LOGPROB": "kept", "BLOCK": kernels.CHUNK} | more
    ptx = compiled(kernels._draw, signature, constants, capability)
    assert "fma.rn.f32" not in ptx
    assert "div.rn.f64" in ptx
    assert "fma.rn.f64" in ptx, "exp and log are polynomials"
    assert "3FF71547652B82FE" in ptx, "exp in float64 starts with log2(e)"
    assert f"{np.float64(SAME).view(np.uint64):016X}" in ptx
    # What is less than exact is within exp and log of float64, as CUDA's own library has them: a first
    # guess of a reciprocal, and the upper half of a float64 looked at as if it were a float32.
    loose = {word for word in ptx.split() if ".approx" in word or ".ftz" in word}
    assert loose <= {"rcp.approx.ftz.f64", "abs.ftz.f32"}


@triton.jit
def guide_all(cond, uncond, scale, out):  # type: ignore[no-untyped-def]
    at = tl.arange(0, 512)
    guided = kernels._guide(cond, uncond, tl.load(scale), at, at < 500, True)
    tl.store(out + at, guided)


@triton.jit
def hash_all(seeds, positions, out):  # type: ignore[no-untyped-def]
    seed, position = tl.load(seeds), tl.load(positions)
    first = kernels._chain(kernels._FIRST_START, seed, position)
    at = tl.arange(0, 512)
    tl.store(out + at, kernels._uniforms(at, first, kernels._chain(1, seed, position)))


@pytest.mark.usefixtures("compiling")
def test_guidance_is_not_contracted() -> None:
    guide = {"cond": "*bf16", "uncond": "*bf16", "scale": "*fp32", "out": "*fp32"}
    ptx = compiled(guide_all, guide, {}, 90)
    assert "fma" not in ptx
    assert ".ftz" not in ptx
    for wanted in ("sub.rn.f32", "mul.rn.f64", "add.rn.f64", "cvt.rn.f32.f64"):
        assert wanted in ptx, wanted


@pytest.mark.usefixtures("compiling")
def test_hash_is_unsigned() -> None:
    ptx = compiled(hash_all, {"seeds": "*i64", "positions": "*i64", "out": "*fp64"}, {}, 80)
    assert "shr.s32" not in ptx
    assert "shr.u32" in ptx
    assert "mul.lo.s32" in ptx, "the low half is the same for both signs"
    assert "cvt.rn.f64.u32" in ptx


# Who draws what.


def test_plain_operations_draw_what_is_not_common() -> None:
    z = torch.zeros(2, 8)
    plain: dict[str, Any] = {"allowed": None, "seeds": 0, "positions": 0}

    def common(cond: Any, uncond: Any = None, **options: Any) -> bool:
        return _cuda.is_common(make_request(cond, uncond, **(options or plain)))

    assert common(z)
    assert common(z.half(), z.half())
    assert common(torch.zeros(2, 16)[:, 4:12]), "rows without gaps"
    assert not common(torch.zeros(2, 16)[:, ::2])
    assert common(z.double()), "as float32"
    assert not common(z, allowed=None, noise=torch.full((2, 8), 0.5))
    assert not common(z, z.clone().requires_grad_())
    with torch.no_grad():
        assert common(z.clone().requires_grad_())
    assert not common(z, **plain, temperature=torch.ones(2, requires_grad=True))
    assert not common(torch.nn.Parameter(z)), "a subclass"
    assert not _cuda.has_kernel(torch.device("cpu"))


def test_the_kernel_draws_what_is_common(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Request] = []

    def record(request: Request) -> Any:
        calls.append(request)
        return operations.draw(request)

    monkeypatch.setattr(Request, "is_plain", lambda request: False)
    monkeypatch.setattr(_cuda, "has_kernel", lambda device: True)
    monkeypatch.setattr(kernels, "draw", record)
    z = torch.from_numpy(logits(3, 9))
    options: dict[str, Any] = {"allowed": None, "seeds": 0, "positions": 0}
    assert sample(z, **options).token_ids.shape == (3,)
    assert len(calls) == 1
    sample(z, allowed=None, noise=torch.full((3, 9), 0.5))
    assert len(calls) == 1
