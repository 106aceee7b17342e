"""Times of JAX's arrays, jitted; nothing here loads torch, whose libraries for a GPU may be others."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import jax
import numpy as np

from gpu.cases import skewed_lengths
from gpu.setting import Setting, placed
from rollkit import Layout, Ragged, place, segments, take

Run = Callable[[], object]
Timing = dict[str, Any]


def arrays(setting: Setting) -> Iterator[Timing]:
    """`place`, `take` and `thd`, jitted."""
    lengths = skewed_lengths(setting.on_gpu, 1024, 16_384)
    offsets = np.append(0, np.cumsum(lengths))
    layout = Layout.pack(lengths, int(lengths.max()))
    values = placed(setting, "jax", np.zeros(int(offsets[-1]), np.float32))
    put = jax.jit(lambda x: place(Ragged(x, offsets), layout))
    out = put(values)
    back, copy = jax.jit(lambda x: take(x, layout).flat), jax.jit(lambda x: x + 1)
    done = jax.block_until_ready
    runs: dict[str, Run] = {
        "rollkit": lambda: done(put(values)),
        "adding 1 to the output": lambda: done(copy(out)),
    }
    what = f"JAX, jitted: place {len(lengths)} rows, {offsets[-1]:,} float32, to {layout.shape[0]} bins"
    yield timing_by_clock(setting, what, runs, out.nbytes)
    runs = {"rollkit": lambda: done(back(out)), "adding 1 to the rows": lambda: done(copy(values))}
    yield timing_by_clock(setting, f"JAX, jitted: take them, {offsets[-1]:,} float32", runs, values.nbytes)
    tokens = 1 << 17 if setting.on_gpu else 256
    ids = np.repeat(np.arange(1, 17, dtype=np.int32), tokens // 16)[None]
    q = placed(setting, "jax", ids)
    find = jax.jit(lambda x: tuple(segments.thd(x, max_segments=16)))
    runs = {"rollkit": lambda: done(find(q)), "adding 1": lambda: done(copy(q))}
    yield timing_by_clock(setting, f"JAX, jitted: thd, {tokens} tokens, 16 segments", runs, q.nbytes)


def timing_by_clock(setting: Setting, what: str, runs: dict[str, Run], moved: int) -> Timing:
    """Each call waits for its result; what a call itself takes is among it."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range((30 if setting.on_gpu else 1) + 2):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if turn > 1:
                times[name].append(time.perf_counter() - begin)
    return {
        "what": what,
        "ms": {name: 1e3 * median(found) for name, found in times.items() if found},
        "gb": moved / 1e9,
    }
