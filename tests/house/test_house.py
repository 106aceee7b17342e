"""What holds for the whole package: imports, processes, threads, the GIL, memory, sources."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.paths import ROOT

import rollkit
from rollkit import Layout, Ragged, concat, pack, place, take


def python(code: str) -> Any:
    """Run code in a fresh interpreter; return the JSON it prints."""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_importing_loads_numpy_and_nothing_else() -> None:
    loaded = python(
        "import sys, json, numpy; before = set(sys.modules); import rollkit;"
        "print(json.dumps(sorted({m.partition('.')[0] for m in set(sys.modules) - before})))"
    )
    foreign = set(loaded) - set(sys.stdlib_module_names) - {"rollkit", "numpy"}
    assert foreign == set()


def test_importing_starts_no_thread(record_property: Any) -> None:
    before, after, seconds = python(
        "import os, json, threading, time, numpy\n"
        "def count(): return [threading.active_count(), len(os.listdir('/proc/self/task')) if os.path.isdir("
        "'/proc/self/task') else 0]\n"
        "before = count(); start = time.perf_counter(); import rollkit\n"
        "taken = time.perf_counter() - start\n"
        "rollkit.place(rollkit.Ragged.from_rows([[1] * 100000] * 4), rollkit.Layout.concat([100000] * 4))\n"
        "print(json.dumps([before, count(), taken]))"
    )
    assert before == after
    record_property("seconds to import", seconds)


@pytest.mark.parametrize("name", rollkit.__all__)
def test_public_names_exist_and_show_an_example(name: str) -> None:
    found = getattr(rollkit, name)
    if isinstance(found, str | ModuleType):
        assert name.startswith("__") or found.__doc__
        return
    assert inspect.getdoc(found), name
    assert doctest.DocTestParser().get_examples(found.__doc__), f"{name} has no example"


def test_what_loads_later_is_what_type_checkers_see() -> None:
    tree = ast.parse(Path(rollkit.__file__).read_text())
    later = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in later.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"rollkit.{module}" for name, module in rollkit._LATER.items()}
    assert set(rollkit._LATER) <= set(dir(rollkit)) & set(rollkit.__all__)
    loaded = python(
        "import sys, json, rollkit; later = {f'rollkit.{module}' for module in rollkit._LATER.values()};"
        "print(json.dumps([sorted(later & set(sys.modules)), rollkit.save is rollkit.save]))"
    )
    assert loaded == [[], True]


def test_all_is_sorted_and_whole() -> None:
    assert sorted(rollkit.__all__) == rollkit.__all__
    public = {
        name
        for name, found in vars(rollkit).items()
        if not name.startswith("_") and not isinstance(found, ModuleType)
    }
    assert public - set(rollkit.__all__) == set()


def test_public_methods_are_documented() -> None:
    for owner in (rollkit.Ragged, rollkit.Rollouts, rollkit.Layout, rollkit.Batch):
        for name, member in vars(owner).items():
            if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{owner.__name__}.{name}"


def work(seed: int) -> list[list[int]]:
    """Some of everything, and through the part of the kernel that gives up the GIL."""
    rng = np.random.default_rng(seed)
    rows = Ragged.from_rows([np.full(int(n), seed, np.int64) for n in rng.integers(0, 3000, 40)])
    batch = pack({"response_ids": rows}, 4096)
    again = concat(
        [batch.unpack("input_ids"), take(place(rows, batch.layout), batch.layout).astype(np.int32)]
    )
    return [[row.size, int(row.sum())] for row in again]


def answer(queue: Any, seed: int) -> None:
    queue.put(work(seed))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_started_after_use(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    wanted = work(3)
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=answer, args=(queue, 3))
    child.start()
    try:
        assert queue.get(timeout=60) == wanted
        child.join(timeout=60)
        assert child.exitcode == 0
    finally:
        child.kill()


def test_threads_get_right_results() -> None:
    wanted = [work(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, [seed for _ in range(12) for seed in range(8)]))
    assert results == wanted * 12


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="there is no GIL to release")
def test_long_work_releases_the_gil() -> None:
    """While one call runs, a thread that needs the GIL for every step makes progress.

    The switch interval is so long that the interpreter hands over the GIL only where a thread gives it up:
    the counting thread does when it sleeps, this one in the kernel, or else not at all.
    """
    progress, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            progress[0] += 1
            time.sleep(1e-5)

    def steps_during(size: int) -> int:
        rows = Ragged(np.ones(size, np.uint8), np.array([0, size]))
        layout, out = Layout.concat([size]), np.zeros(size, np.uint8)
        before = progress[0]
        place(rows, layout, out=out)
        return progress[0] - before

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=count)
    thread.start()
    try:
        sys.setswitchinterval(100)
        assert sum(steps_during(1000) for _ in range(50)) == 0  # short work is done before anybody notices
        assert any(steps_during(1 << 26) for _ in range(20))
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


def test_declares_that_it_needs_no_gil() -> None:
    """The slot `Py_mod_gil` exists from CPython 3.13 on; there, importing must not turn the GIL on."""
    assert "gil_used = false" in (ROOT / "src/python/mod.rs").read_text()
    if sys.version_info >= (3, 13) and "t" in getattr(sys, "abiflags", ""):
        assert not sys._is_gil_enabled()


def sources(pattern: str) -> list[Path]:
    tracked = subprocess.run(
        ["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\n")
    return [ROOT / name for name in tracked if name and (ROOT / name).is_file()]


UNSAFE_FILES = re.compile(r"src/python/(array|list|arrow)(/\w+)?\.rs")


def test_unsafe_code_is_where_it_is_allowed_and_says_why() -> None:
    files = list((ROOT / "src").rglob("*.rs"))
    assert len(files) > 10
    for file in files:
        lines = file.read_text().splitlines()
        name = file.relative_to(ROOT).as_posix()
        for number, line in enumerate(lines, start=1):
            code = line.split("//")[0]
            if not re.search(r"\bunsafe\b(?!_code|_op)", code):
                continue
            assert UNSAFE_FILES.fullmatch(name), f"{name}:{number}"
            above = [text.strip() for text in lines[max(0, number - 9) : number]]
            said = any("SAFETY:" in text or "# Safety" in text for text in above)
            assert said, f"{name}:{number} does not say why it is sound"


def test_no_file_names_a_place_on_a_machine() -> None:
    files = sources("*")
    if not files:
        pytest.skip("no git checkout")
    # Spelled so that this file does not match itself.
    wanted = re.compile(
        rb"(?<![\w.])/(?:" + b"|".join([b"wor" + b"k", b"roo" + b"t", b"hom" + b"e"]) + rb")/"
    )
    for file in files:
        found = wanted.search(file.read_bytes())
        assert found is None, f"{file.relative_to(ROOT)}: {found}"


def peak(call: Any) -> tuple[int, Any]:
    """The most NumPy memory that a call has at once beyond what there was, and its result."""
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def test_place_takes_the_memory_of_its_output() -> None:
    rows = Ragged(np.zeros(4_000_000, np.int64), np.arange(0, 4_000_001, 1000))
    layout = Layout.pad(rows.lengths, width=1500)
    used, out = peak(lambda: place(rows, layout))
    assert out.nbytes <= used < out.nbytes + 1_000_000
    used, narrow = peak(lambda: place(rows, layout, dtype=np.int16))
    assert narrow.nbytes <= used < narrow.nbytes + 1_000_000
    used, _ = peak(lambda: place(rows, layout, out=out))
    assert used < 1_000_000


def test_pack_takes_the_memory_of_its_outputs() -> None:
    rows = [np.zeros(4000, np.int64) for _ in range(500)]
    columns = {
        "prompt_token_ids": [row[:500] for row in rows],
        "response_ids": rows,
        "loss_masks": rows,
        "rollout_logprobs": [row.astype(np.float32) for row in rows],
    }
    used, batch = peak(lambda: pack(columns, 8192))
    total = sum(array.nbytes for array in batch.arrays.values())
    assert total <= used < total + 1_000_000
    used, again = peak(lambda: pack(columns, 8192, out=batch))
    assert used < 1_000_000
    assert np.shares_memory(again["input_ids"], batch["input_ids"])


RESIDENT = """
import numpy as np, psutil
from rollkit import Layout, Ragged, place
process = psutil.Process()
values = np.ones(64_000_000, np.uint8)
rows = Ragged(values, np.arange(0, 64_000_001, 64_000))
layout = Layout.pad(rows.lengths, width=100_000)
before = process.memory_info().rss
out = place(rows, layout)
print(out.nbytes, process.memory_info().rss - before)
"""
"""In a process of its own: in one that has run other tests there may be memory that is resident and free."""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads the memory of the process from /proc")
def test_resident_memory_grows_by_the_output() -> None:
    """Rust allocates nothing that NumPy does not see: no second copy on its side of the boundary."""
    done = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)
    nbytes, grown = map(int, done.stdout.split())
    assert 0.9 * nbytes < grown < nbytes + 40_000_000
