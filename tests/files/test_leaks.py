"""A process that reads, packs and writes for days: nothing stays of a round but what it gave out.

Packing from memory alone is in `tests/house/test_bounds.py`.
"""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest

from rollkit import iter_chunks, pack, read
from rollkit._files.shards import read_shards
from rollkit._files.stream import Options, write_shards

pytest.importorskip("safetensors")

ROUNDS, WARM, SHARDS_EVERY = 1000, 200, 20
LOST = 16_000
"""Bytes that a round may not lose: less than its smallest array of tokens, twice what allocators waver by."""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors and pages of the process")
def test_a_thousand_files_leave_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = tmp_path / "rows.jsonl"
    with source.open("w") as file:
        for i in range(64):
            ids = rng.integers(0, 50_000, rng.integers(100, 200)).tolist()
            row = {"response_ids": ids, "loss_masks": [1] * len(ids), "name": f"row {i}", "rewards": 0.5}
            file.write(json.dumps(row) + "\n")

    def turn(number: int) -> None:
        batch = pack(read(source), 512)
        assert batch["input_ids"].nbytes > LOST
        chunks = iter_chunks(source, rows=16)
        pack(next(chunks), 512)  # and the others are never asked for
        with pytest.raises(ValueError, match="more than the capacity"):
            pack(read(source, columns=["response_ids"]), 8)
        if number % SHARDS_EVERY == 0:
            write_shards([source], tmp_path / "out", Options(capacity=512, bins_per_shard=8))
            next(read_shards(tmp_path / "out"))
            shutil.rmtree(tmp_path / "out")

    process = psutil.Process()
    for number in range(WARM):
        turn(number)
    gc.collect()
    memory, files = process.memory_info().rss, process.num_fds()
    for number in range(ROUNDS):
        turn(number)
    gc.collect()
    assert process.num_fds() == files
    assert process.memory_info().rss - memory < ROUNDS * LOST
