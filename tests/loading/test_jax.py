"""`rollkit.jax`: bins of each process as global arrays, of one shape."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from tests.loading.some import key, rollouts
from tests.paths import ROOT

from rollkit import Bins, ShuffledSampler, pack
from rollkit.jax import batches, device_batch, prefetch

jax: Any = pytest.importorskip("jax")

CAPACITY = 48


def bins(names: str = "maxtext") -> Bins:
    return Bins(rollouts(), CAPACITY, names=names)


def one_device() -> Any:
    return jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])


@pytest.mark.parametrize("names", ["rollkit", "hf", "maxtext"])
def test_arrays_are_those_of_the_batch(names: str) -> None:
    batch = pack(rollouts(), CAPACITY, names=names)
    found = device_batch(batch, one_device())
    assert list(found) == list(batch)
    for name, array in found.items():
        np.testing.assert_array_equal(np.asarray(array), batch[name])
        assert isinstance(array, jax.Array)


def test_batches_are_the_bins_of_an_order() -> None:
    data, sampler = bins("rollkit"), ShuffledSampler(bins("rollkit"), seed=3)
    found = list(prefetch(batches(data, sampler, lines=4), one_device()))
    order = list(ShuffledSampler(data, seed=3))
    assert len(found) == len(order) // 4
    for step, batch in enumerate(found):
        for line, number in enumerate(order[4 * step : 4 * step + 4]):
            assert key({"input_ids": batch["input_ids"][line]}) == key(data[number])


def test_a_run_is_cut_anywhere() -> None:
    data = bins("rollkit")
    whole = [key(batch) for batch in batches(data, ShuffledSampler(data, seed=3), lines=2)]
    for cut in (0, 1, 5, len(whole)):
        sampler = ShuffledSampler(data, seed=3)
        ahead = prefetch(batches(data, sampler, lines=2), one_device(), depth=3)
        head = [key(next(ahead)) for _ in range(cut)]
        after = ShuffledSampler(data, seed=3)
        after.load_state_dict(json.loads(json.dumps(sampler.state_dict(taken=2 * cut))))
        if cut < len(whole):
            assert head + [key(batch) for batch in batches(data, after, lines=2)] == whole


def test_one_shape_is_compiled_once() -> None:
    traces = []

    @jax.jit  # type: ignore[untyped-decorator]
    def step(batch: Any) -> Any:
        traces.append(1)
        return batch["inputs"].sum()

    data = bins()
    for batch in prefetch(batches(data, ShuffledSampler(data, seed=0), lines=2), one_device()):
        step(batch)
    assert len(traces) == 1


EIGHT = """
import json, jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from rollkit import Bins, ShuffledSampler
from rollkit.jax import batches, prefetch
from tests.loading.some import rollouts
bins = Bins(rollouts(), 48, names="maxtext")
sharding = NamedSharding(jax.make_mesh((4, 2), ("data", "model")), PartitionSpec("data"))
order = list(ShuffledSampler(bins, seed=0))
for step, batch in enumerate(prefetch(batches(bins, ShuffledSampler(bins, seed=0), lines=4), sharding)):
    tokens = batch["inputs"]
    assert tokens.shape == (4, 48) and len(tokens.addressable_shards) == 8
    for shard in tokens.addressable_shards:
        (line,) = range(4)[shard.index[0]]
        assert (np.asarray(shard.data)[0] == bins[order[4 * step + line]]["inputs"]).all()
print("steps", step + 1)
"""

TWO = """
import sys, jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
rank = int(sys.argv[2])
jax.distributed.initialize(f"localhost:{sys.argv[1]}", 2, rank)
from rollkit import Bins, ShuffledSampler
from rollkit.jax import batches, prefetch
from tests.loading.some import rollouts
bins = Bins(rollouts(), 48, names="maxtext")
sharding = NamedSharding(jax.make_mesh((4,), ("data",)), PartitionSpec("data"))
order = ShuffledSampler(bins, seed=0, rank=jax.process_index(), world_size=jax.process_count())
own = list(ShuffledSampler(bins, seed=0, rank=rank, world_size=2))
for step, batch in enumerate(prefetch(batches(bins, order, lines=4), sharding)):
    tokens = batch["inputs"]
    assert tokens.shape == (8, 48) and len(tokens.addressable_shards) == 2
    for shard in tokens.addressable_shards:
        for at, line in zip(range(8)[shard.index[0]], np.asarray(shard.data)):
            assert (line == bins[own[4 * step + at % 4]]["inputs"]).all()
            assert at // 4 == rank
print("steps", step + 1)
"""


def program(text: str, devices: int, *arguments: Any) -> subprocess.Popen[str]:
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )


def check(process: subprocess.Popen[str], steps: int) -> None:
    out, errors = process.communicate(timeout=120)
    assert out.strip() == f"steps {steps}", errors


def test_lines_are_laid_over_eight_devices() -> None:
    check(program(EIGHT, 8), len(bins()) // 4)


def test_two_processes_give_their_lines() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    for process in [program(TWO, 2, port, rank) for rank in range(2)]:
        check(process, len(bins()) // 8)


LISTS = pack({"response_ids": [[5, 6]], "sampling_mask": [[[5, 9], [6]]]}, 3)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: device_batch([1], one_device()), TypeError,  # type: ignore[arg-type]
         "batch must be a Batch or a dict of arrays, got list"),
        (lambda: device_batch({}, "cpu"), TypeError, "sharding must be a jax.sharding.Sharding, got str"),
        (lambda: prefetch([], None), TypeError, "sharding must be a jax.sharding.Sharding, got NoneType"),
        (lambda: prefetch([], one_device(), 0), ValueError, "depth must be at least 1, got 0"),
        (lambda: device_batch({"x": np.float32(1)}, one_device()), ValueError,
         "array 'x' is one number, expected [lines, …]"),
        (lambda: device_batch({"x": np.array([2**40])}, one_device()), OverflowError,
         "array 'x': int64 values beyond int32; set jax_enable_x64"),
        (lambda: device_batch(LISTS, one_device()), TypeError,
         "array 'sampling_mask': lists per token have another size in each batch; leave it out, by columns="),
        (lambda: list(prefetch([{"x": np.ones((2, 3), np.int32)}, {"x": np.ones((1, 3), np.int32)}],
                               one_device())), ValueError,
         "batch 1: array 'x' is int32 [1, 3], that of batch 0 int32 [2, 3]; batches of one shape are "
         "compiled once"),
        (lambda: list(prefetch([{"x": np.ones(2)}, {"y": np.ones(2)}], one_device())), ValueError,
         "batch 1: array 'x' is not there, that of batch 0 float32 [2]; batches of one shape are "
         "compiled once"),
        (lambda: batches([1], [0], 2), TypeError,  # type: ignore[arg-type]
         "bins must be rollkit.Bins, got list; Bins(rollouts, capacity)"),
        (lambda: batches(bins(), [0], 0), ValueError, "lines must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_refusals(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message
