"""What splitting routes takes besides the rows it keeps: `python benches/routing_memory.py`.

Prints the peak of Python's allocations and of the resident set, over what there was before, as multiples
of the retained rows. Each case has a process of its own, so that no memory is reused.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

from rollkit.routing import split_routes

CASES: dict[str, tuple[tuple[int, int, int], int]] = {
    "1 000 000 × 8 × 4, 100 001 retained": ((1_000_000, 8, 4), 100_001),
    "131 072 × 48 × 8, 3 073 retained": ((131_072, 48, 8), 3_073),
}


def resident(field: str) -> int:
    """Bytes of a field of the process's status: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def run(name: str, kind: str) -> None:
    """Measure one case in this process."""
    shape, retained = CASES[name]
    routes = np.random.default_rng(0).integers(0, 128, shape, dtype=np.uint8)
    payload: Any = routes
    if kind == "base64":
        text = base64.b64encode(routes.tobytes()).decode()
        payload = {"data": text, "shape": list(shape), "dtype": "uint8", "start": 0}
    start = shape[0] + 1 - retained
    lengths = [retained // 2, retained - retained // 2]
    split_routes(payload, [1], start=0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that from here on
    before = resident("VmRSS")
    nodes = split_routes(payload, lengths, start=start)
    grown = resident("VmHWM") - before
    del nodes
    tracemalloc.start()
    nodes = split_routes(payload, lengths, start=start)
    peak = tracemalloc.get_traced_memory()[1]
    kept = sum(rows.nbytes for rows in nodes if rows is not None)
    size = f"{kept / 1e6:.2f} MB"
    print(f"{name}, {kind}: Python's peak {peak / kept:.3f} ×, resident {grown / kept:.3f} × {size}")


def main() -> None:
    """Run all cases, or the one named."""
    if len(sys.argv) == 3:
        run(*sys.argv[1:])
        return
    for name in CASES:
        for kind in ("base64", "array"):
            subprocess.run([sys.executable, __file__, name, kind], check=True)


if __name__ == "__main__":
    main()
