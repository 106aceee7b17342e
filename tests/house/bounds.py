"""Calls whose numbers are huge and whose inputs are small, under a memory limit.

Run by `test_bounds.py`, as a process.
Each must end in a second or two: with a result as small as its input, or a refusal.
"""

from __future__ import annotations

import faulthandler
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import rollkit
from rollkit import (
    Rollouts,
    balance,
    concat,
    decode,
    forest,
    imbalance,
    mask_overlong,
    pack,
    pad,
    place,
    plan_bins,
    plan_steps,
    routing,
    segments,
    take,
)

# Lists pass for arrays here as elsewhere, but for type checkers.
Layout: Any = rollkit.Layout
Ragged: Any = rollkit.Ragged

HUGE = 2**40
SECONDS = 10
"""Far more than any call takes, on a machine that is busy."""

IDS = np.array([[1, 1, 2]], np.int32)
ROWS = {"response_ids": [[1], [2, 3]]}
STOPPED = {**ROWS, "loss_masks": [[1], [1, 1]], "stop_reasons": ["stop", "length"]}


def empty(*shape: int, dtype: Any = np.int32) -> Any:
    """An array of no elements, of any shape."""
    return np.empty(shape, dtype)


def wide(dtype: Any = np.int32, value: int = 0) -> Any:
    """A terabyte or more in four bytes."""
    return np.broadcast_to(np.full((), value, dtype), HUGE)


CASES: dict[str, Callable[[], Any]] = {
    "seqlens of many segments": lambda: segments.seqlens(IDS, 2**31 - 1),
    "offsets of many segments": lambda: segments.offsets(IDS, 2**31 - 1),
    "thd of many segments": lambda: segments.thd(IDS, max_segments=2**31 - 1),
    "te of many segments": lambda: segments.thd(IDS, IDS, max_segments=HUGE),
    "seqlens of empty rows": lambda: segments.seqlens(empty(HUGE, 0), 4),
    "seqlens of empty rows and no segments": lambda: segments.seqlens(empty(HUGE, 0), 1),
    "offsets of empty rows": lambda: segments.offsets(empty(HUGE, 0), 1),
    "thd of empty rows": lambda: segments.thd(empty(HUGE, 0), max_segments=1),
    "runs of empty rows": lambda: segments.runs(empty(HUGE, 0)),
    "cu_seqlens of empty rows": lambda: segments.cu_seqlens(empty(HUGE, 0)),
    "positions of empty rows": lambda: segments.positions(empty(HUGE, 0)),
    "fill of empty rows": lambda: segments.run_length_fill(empty(HUGE, 0)),
    "mask of empty rows": lambda: segments.dense_mask(empty(HUGE, 0)),
    "varlen of empty rows": lambda: segments.flash_attn_varlen(empty(HUGE, 0)),
    "columns of empty rows": lambda: segments.maxtext_columns(empty(HUGE, 0)),
    "from_positions of empty rows": lambda: segments.from_positions(empty(HUGE, 0), padding="none"),
    "cu_seqlens of a size": lambda: segments.cu_seqlens(IDS, HUGE),
    "segment ids of a total": lambda: segments.segment_ids([1, 2], total=HUGE),
    "segment positions of a total": lambda: segments.segment_positions([1, 2], total=HUGE),
    "segment ids of huge lengths": lambda: segments.segment_ids([HUGE, HUGE]),
    "ids of cu_seqlens": lambda: segments.segment_ids_from_cu_seqlens(np.array([0, HUGE])),
    "runs of a broadcast": lambda: segments.runs(wide()),
    "cp_partition of a huge stream": lambda: segments.cp_partition([0, HUGE], 2, 0),
    "cp_partition of many ranks": lambda: segments.cp_partition([0, 8], HUGE, 0),
    "cp_pad of many ranks": lambda: segments.cp_pad([1, 2], cp_size=2**60, tp_size=2**60),
    "cp_reorder of many ranks": lambda: segments.cp_reorder(IDS, HUGE),
    "bins of huge capacity": lambda: plan_bins([1, 2], 2**62),
    "bins of huge rows": lambda: plan_bins([2**61, 2**61], 2**62),
    "bins of huge align": lambda: plan_bins([1, 2], 2**62, align=2**62),
    "bins of many segments": lambda: plan_bins([1, 2], 8, max_segments=2**62),
    "parts of many": lambda: balance([1, 2], HUGE),
    "parts of huge rows": lambda: balance([2**61, 2**61], 2, capacity=2**62),
    "costs of huge rows": lambda: balance([2**40, 2**40], 2, cost=(HUGE, HUGE)),
    "an imbalance of many parts": lambda: imbalance([1, 2], [0, HUGE - 1]),
    "steps of many ranks": lambda: plan_steps([1, 2], capacity=8, ranks=HUGE),
    "steps of huge capacity": lambda: plan_steps([2**61, 2**61], capacity=2**62, ranks=2),
    "a multiple of bins": lambda: Layout.pack([1, 2], 8, bins_multiple_of=HUGE),
    "a pack of many bins": lambda: pack(ROWS, 8, bins_multiple_of=HUGE),
    "a pack of huge capacity": lambda: pack(ROWS, HUGE),
    "a pad of huge width": lambda: pad(ROWS, width=HUGE),
    "a pad to a multiple": lambda: pad(ROWS, multiple_of=2**62),
    "a layout of huge width": lambda: Layout.pad([1, 2], width=2**62).starts,
    "a layout of huge align": lambda: Layout.concat([1, 2], align=2**62),
    "a layout of empty lines": lambda: Layout((HUGE, 0), [0], [0], [0]).segment_ids(),
    "lines of a layout of empty lines": lambda: Layout((HUGE, 0), [0], [0], [0]).cu_seqlens(),
    "select of many lines": lambda: Layout.pad([1, 2]).select([0], 0, HUGE),
    "positions of a huge layout": lambda: Layout((HUGE, HUGE >> 20), [0], [1], [1]).positions(),
    "shards of a huge width": lambda: Layout.pad([1, 2], width=2**62).shard(8, "dual_chunk"),
    "stripes of a huge width": lambda: Layout.pad([1, 2], width=2**62).shard(8, "striped"),
    "blocks of a huge width": lambda: Layout.pad([1, 2], width=2**62).shard(8, "balanced"),
    "shards of empty lines": lambda: Layout((HUGE, 0), [0], [0], [0]).shard(2),
    "shards of many lines": lambda: Layout((HUGE, 4), [0], [1], [1]).shard(2),
    "shards of many": lambda: Layout.concat([8]).shard(HUGE),
    "shards of many of nothing": lambda: Layout.concat([]).shard(HUGE),
    "labels of a huge layout": lambda: Layout((HUGE, HUGE >> 20), [0], [1], [1]).labels_from,
    "place in a huge layout": lambda: place([[1]], Layout((HUGE,), [0], [1], [1])),
    "take from a broadcast": lambda: take(wide(), Layout((HUGE,), [0], [1], [1])),
    "place of empty inner shape": lambda: place(Ragged(empty(2, 0, HUGE), [0, 2]), Layout.pad([2])),
    "concat of empty inner shape": lambda: concat([Ragged(empty(2, 0, HUGE), [0, 2])] * 2),
    "rows of a rectangle without elements": lambda: Ragged.from_rows(empty(HUGE, 0)),
    "rows of a broadcast": lambda: Ragged.from_rows(np.broadcast_to(np.int32(0), (HUGE, 1))),
    "a column without elements": lambda: Rollouts({"response_ids": empty(HUGE, 0)}),
    "a column of a broadcast": lambda: Rollouts({"response_ids": [[1]], "rewards": wide(np.float64)}),
    "offsets of a broadcast": lambda: Ragged(np.zeros(1), wide(np.int64)),
    "lengths of a broadcast": lambda: plan_bins(wide(np.int64), 8),
    "allowed of a huge vocabulary": lambda: decode.AllowedSet([1], 2**31 - 1).window(),
    "a batch of many": lambda: decode.ActiveBatch(HUGE),
    "routes of many rows": lambda: routing.decode_routes(
        {"data": "", "shape": [HUGE, 0, 2], "dtype": "uint8"}
    ),
    "routes of room": lambda: routing.RouteBuilder(capacity=HUGE).append(empty(1, 1, 2, dtype=np.uint8)),
    "routes of many nodes": lambda: routing.split_routes(empty(1, 1, 2), [HUGE, HUGE]),
    "a layout of many dimensions": lambda: Layout(range(1, HUGE), [0], [1], [1]),
    "words that are many": lambda: mask_overlong(STOPPED, keep=wide()),
    "words that are many and empty": lambda: mask_overlong(STOPPED, cut=empty(HUGE, 0)),
    "a fill of many": lambda: place([[1]], Layout.pad([1]), fill=wide(value=1)),
    "a pad id of many": lambda: pack(ROWS, 8, pad_id=wide(value=1)),
    "cp_reorder of empty rows": lambda: segments.cp_reorder(empty(HUGE, 8, 0), 2),
    "cp_inverse_reorder of many empty rows": lambda: segments.cp_inverse_reorder(empty(HUGE, 8, 0), 2),
    "cp_inverse_reorder of many ranks": lambda: segments.cp_inverse_reorder(empty(1, 400_000), 200_000),
    "a tree of a broadcast": lambda: forest.TokenTree().commit(wide(), [1]),
    "uniforms of many": lambda: decode.uniforms([1], [0], wide()),
    "sample of no rows": lambda: decode.sample(
        empty(0, 4, dtype=np.float32), allowed=None, seeds=1, positions=0
    ),
    "sample of a broadcast": lambda: decode.sample(
        np.broadcast_to(np.float32(0), (1, HUGE)), allowed=None, seeds=1, positions=0
    ),
}

REFUSALS = (ValueError, TypeError, OverflowError, MemoryError, IndexError)


def main(name: str) -> None:
    begin = time.monotonic()
    try:
        CASES[name]()
        ended = "returned"
    except REFUSALS as error:
        ended = f"{type(error).__name__}: {error}"
    took = time.monotonic() - begin
    if took > SECONDS / 2:
        raise SystemExit(f"{name} took {took:.0f} s")
    sys.stdout.write(f"{name}: {ended[:90]} ({took:.2f} s)\n")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    for one in sys.argv[1:] or CASES:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        main(one)
