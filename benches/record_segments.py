"""Measure segments beside one read of their arrays, and beside peers: `python benches/record_segments.py`.

Times are medians of interleaved runs in one process, each after a run that is not timed. For compiled
JAX, the plan besides: temporary bytes and flops per token, as XLA states them. On a GPU, if there is one, a
copy of the same bytes is the limit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention.flex_attention import create_block_mask

from record import Case, Run, measure, report
from rollkit import segments
from rollkit._arrays.ops import ops
from rollkit.segments import _device

Arrays = list[NDArray[np.int32]]

SETTLES = 5  # a case of more rounds has one call that is not timed before each that is


def settled(found: Case) -> dict[str, float]:
    """Medians in seconds, contenders in turn, with caches as a contender itself leaves them."""
    if found.rounds < SETTLES:
        return measure(found)
    times: dict[str, list[float]] = {name: [] for name in found.runs}
    for _ in range(found.rounds):
        for name, run in found.runs.items():
            run()
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    return {name: median(values) for name, values in times.items()}


CASES: list[Callable[[], Iterator[Case]]] = []


def case(make: Callable[[], Iterator[Case]]) -> Callable[[], Iterator[Case]]:
    """Register a group of cases."""
    CASES.append(make)
    return make


def ring_step(tokens: int, count: int) -> Arrays:
    """Ids and positions of q (rank 0 of 2) and kv (rank 1), dealt in turns; 12 % is padding in between."""
    length = 2 * tokens // count
    positions = np.tile(np.arange(length, dtype=np.int32), count)
    ids = np.repeat(np.arange(1, count + 1, dtype=np.int32), length)
    ids[positions >= 0.88 * length] = 0
    return [array[start::2].copy() for array in (ids, positions) for start in (0, 1)]


def q_kv(arrays: Any, count: int) -> Any:
    """`thd` of such arrays."""
    ids_q, ids_kv, positions_q, positions_kv = arrays
    return segments.thd(ids_q, ids_kv, positions_q=positions_q, positions_kv=positions_kv, max_segments=count)


def by_one_hot(ids_q: Any, ids_kv: Any, positions_q: Any, positions_kv: Any, count: int) -> Any:
    """The same with each segment's bounds found among `[T, S + 1]` comparisons with its id: O(T·S)."""
    hot_q, hot_kv = (jax.nn.one_hot(ids, count + 1, dtype=bool) for ids in (ids_q, ids_kv))
    bounds = np.iinfo(np.int32)
    lowest = jnp.where(hot_kv, positions_kv[..., None], bounds.max).min(1)
    highest = jnp.where(hot_q, positions_q[..., None], bounds.min).max(1)
    asking = positions_q >= jnp.take_along_axis(lowest, ids_q, 1)
    asked = positions_kv <= jnp.take_along_axis(highest, ids_kv, 1)
    return columns(jnp.where(asking, ids_q, 0), jnp.where(asked, ids_kv, 0), count)


def columns(q: Any, kv: Any, count: int) -> Any:
    """Lengths and offsets of ids that are 0 where a token does not count."""
    found = [_device.thd_self(ops("jax"), side, max_segments=count) for side in (q, kv)]
    return found[0][0], found[1][0], found[0][2], found[1][2]


def by_mask(ids_q: Any, ids_kv: Any, positions_q: Any, positions_kv: Any, count: int) -> Any:
    """The same from the mask of all pairs of tokens: O(T²)."""
    same = (ids_q[:, :, None] == ids_kv[:, None, :]) & (ids_q[:, :, None] > 0)
    seen = same & (positions_q[:, :, None] >= positions_kv[:, None, :])
    return columns(jnp.where(seen.any(2), ids_q, 0), jnp.where(seen.any(1), ids_kv, 0), count)


@case
def host() -> Iterator[Case]:
    """Rust, by way of NumPy: beside reading the arrays once."""
    for count in (16, 256):
        arrays = ring_step(1 << 20, count)
        ids = arrays[0]
        read = {"ids.max()": ids.max}
        yield Case(
            f"runs, T = 2²⁰, {count} segments",
            {"rollkit": partial(segments.runs, ids), **read},
            "≤ 1.2 × ids.max()",
            200,
        )
        yield Case(
            f"thd of one array, {count} segments",
            {"rollkit": partial(segments.thd, ids, max_segments=count), **read},
            "≤ 1.2 × ids.max()",
            200,
        )
        yield Case(
            f"thd of q and kv, causal, {count} segments",
            {
                "rollkit": partial(q_kv, arrays, count),
                "max() of its four": partial(lambda four: [a.max() for a in four], arrays),
            },
            "≤ 1.5 × max() of its four",
            200,
        )


def plan(function: Callable[..., Any], arrays: Any, count: int) -> tuple[Any, str]:
    """Compile; say what XLA plans per token."""
    tokens = arrays[0].size
    compiled: Any = jax.jit(partial(function, count=count)).lower(*arrays).compile()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    temp, flops = memory.temp_size_in_bytes / tokens, cost["flops"] / tokens
    return compiled, f"{temp:.1f} B, {flops:.0f} flops per token"


def done(function: Callable[..., Any], arrays: Any) -> Run:
    """Call, and wait for the result."""

    def run() -> object:
        return jax.block_until_ready(function(*arrays))  # type: ignore[no-untyped-call]

    return run


def on_cuda(function: Run) -> Run:
    """Call, and wait for the device."""

    def run() -> None:
        function()
        torch.cuda.synchronize()

    return run


def in_graph(*arrays: Any, count: int) -> Any:
    """`thd` of traced arrays."""
    return q_kv(arrays, count)


@case
def compiled() -> Iterator[Case]:
    """JAX and torch at 128 k tokens: beside the one-hot way."""
    for count in (16, 256):
        host_arrays = [array[None] for array in ring_step(1 << 17, count)]
        arrays = [jnp.asarray(array) for array in host_arrays]
        tensors = [torch.from_numpy(array) for array in host_arrays]
        ours, our_plan = plan(in_graph, arrays, count)
        hot, hot_plan = plan(by_one_hot, arrays, count)
        _, mask_plan = plan(by_mask, arrays, count)
        for found, wanted in zip(ours(*arrays), hot(*arrays), strict=True):
            np.testing.assert_array_equal(found, wanted)
        plain = partial(_device.thd, ops("torch"), *tensors, mask="causal", max_segments=count)
        runs: dict[str, Run] = {
            "rollkit": done(ours, arrays),
            "one-hot": done(hot, arrays),
            "torch operations": plain,
            "torch tensors of the CPU": partial(q_kv, tensors, count),
            "copy of the four": partial(lambda four: [a.copy() for a in four], host_arrays),
        }
        plans = f"plans: {our_plan}; one-hot {hot_plan}; mask {mask_plan}"
        target = f"≥ {1 if count == 16 else 50} × one-hot, torch ≤ 2 ×; ≤ 32 B, ≤ 150 flops"
        yield Case(f"jitted thd, T = 128 k, {count} segments ({plans})", runs, target, 21)


@case
def from_lengths() -> Iterator[Case]:
    """Ids and positions of many short sequences."""
    lengths = np.random.default_rng(0).integers(1, 97, 16_384)
    tensor = torch.from_numpy(lengths)

    def rollkit() -> object:
        return segments.segment_ids(lengths), segments.segment_positions(lengths)

    def torch_loop() -> object:
        ids = [torch.full((n,), k + 1, dtype=torch.int32) for k, n in enumerate(tensor.tolist())]
        positions = [torch.arange(n, dtype=torch.int32) for n in tensor.tolist()]
        return torch.cat(ids), torch.cat(positions)

    def numpy_loop() -> object:
        total = int(lengths.sum())
        ids, positions = np.empty(total, np.int32), np.empty(total, np.int32)
        at = 0
        for k, n in enumerate(lengths.tolist()):
            ids[at : at + n] = k + 1
            positions[at : at + n] = np.arange(n)
            at += n
        return ids, positions

    tokens = np.zeros(int(lengths.sum()), np.int32)
    runs: dict[str, Run] = {
        "rollkit": rollkit,
        "torch loop": torch_loop,
        "NumPy loop": numpy_loop,
        "copies": lambda: (tokens.copy(), tokens.copy()),
    }
    target = "≥ 100 × the torch loop; none for NumPy's"
    yield Case("ids and positions of 16 384 short sequences", runs, target, 9)


@case
def blocks() -> Iterator[Case]:
    """Block masks at 32 k tokens."""
    width = 1 << 15
    for count in (16, 500):
        rng = np.random.default_rng(0)
        cuts = np.sort(rng.choice(np.arange(1, width), count - 1, replace=False))
        ids = torch.from_numpy(np.searchsorted(cuts, np.arange(width), "right") + 1)

        def seen(b: Any, h: Any, q: Any, kv: Any, ids: Any = ids) -> Any:
            return (ids[q] == ids[kv]) & (q >= kv)

        eager = partial(create_block_mask, seen, None, None, width, width, device="cpu")
        found, wanted = segments.block_mask(ids), eager()
        for part in ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices"):
            assert torch.equal(getattr(found, part), getattr(wanted, part))
        runs: dict[str, Run] = {
            "rollkit": partial(segments.block_mask, ids),
            "create_block_mask": eager,
        }
        yield Case(f"block_mask, 32 k tokens, {count} documents", runs, "≥ 100 × eager", 3)


@case
def gpu() -> Iterator[Case]:
    """The same on a GPU, beside a copy of the same bytes."""
    devices = [device for device in jax.devices() if device.platform == "gpu"]
    for count in (16, 256):
        host_arrays = [array[None] for array in ring_step(1 << 17, count)]
        if devices:
            arrays = [jax.device_put(array, devices[0]) for array in host_arrays]
            ours, our_plan = plan(in_graph, arrays, count)
            hot, hot_plan = plan(by_one_hot, arrays, count)
            copy = jax.jit(lambda *four: [a + 1 for a in four])
            plans = f"plans: {our_plan}; one-hot {hot_plan}"
            runs: dict[str, Run] = {
                "rollkit": done(ours, arrays),
                "one-hot": done(hot, arrays),
                "copy": done(copy, arrays),
            }
            yield Case(
                f"JAX on {devices[0].device_kind}, {count} segments ({plans})", runs, "time beside a copy", 50
            )
        if torch.cuda.is_available():
            tensors = [torch.from_numpy(array).cuda() for array in host_arrays]

            runs = {
                "rollkit": on_cuda(partial(q_kv, tensors, count)),
                "copy": on_cuda(partial(lambda four: [a.clone() for a in four], tensors)),
            }
            yield Case(f"torch on GPU, {count} segments", runs, "time beside a copy", 50)


def main() -> None:
    """Run all cases, print a table, and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    torch.set_num_threads(1)  # two on two busy cores are bimodal, by a factor of a hundred
    report("segments", (found for make in CASES for found in make()), settled, write=not options.no_write)


if __name__ == "__main__":
    main()
