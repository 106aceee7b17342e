"""Runs that are killed at any moment, or find the disk full: resumed, they end in the same bytes.

`make soak` has 200 of each kind; `pytest -rP` shows how many were not too late.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.thorough import by_level

pytest.importorskip("resource")
pytest.importorskip("safetensors")

COUNT = by_level(2, 3, 200)


def tell(text: str) -> None:
    sys.stdout.write(text + "\n")


class Packs:
    """Runs of `rollkit pack --resume` of one source."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("packing.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        out: Path,
        *,
        most: int | None = None,
        meanwhile: Callable[[int], object] = lambda process: None,
    ) -> tuple[int, str]:
        """Returns the status of a run, and what it told."""
        options = ["--capacity", "256", "--bins-per-shard", "8", "--chunk-rows", "50", "--quiet", "--resume"]
        job = {"arguments": ["pack", str(self.source), "-o", str(out), *options], "most": most}
        meanwhile(self._answer(json.dumps(job)))
        status, told = self._answer("")  # until this it may be killed, even if it has ended
        return status, told

    def _answer(self, line: str) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        self._server.communicate(timeout=60)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packs]:
    source = tmp_path_factory.mktemp("source") / "rows.jsonl"
    rng = random.Random(0)
    with source.open("w") as file:
        for number in range(500):
            prompt, response = rng.randint(0, 30), rng.randint(1, 60)
            row: dict[str, Any] = {
                "trajectory_ids": f"t{number}",
                "rewards": rng.random(),
                "messages": [{"role": "user", "content": "x" * (number % 7)}],
                "prompt_token_ids": rng.choices(range(2**31), k=prompt),
                "response_ids": rng.choices(range(1000), k=response),
                # Of the first chunks it is integers, then floats: what the spool holds is written anew.
                "scores": [number if number < 220 else number + 0.5] * response,
            }
            file.write(json.dumps(row) + "\n")
    found = Packs(source)
    yield found
    found.close()


@pytest.fixture(scope="module")
def undisturbed(packs: Packs, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """What a run writes, and the seconds that it takes."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert packs.run(out / "first") == (0, "")
    begun = time.perf_counter()
    assert packs.run(out / "second") == (0, "")
    seconds = time.perf_counter() - begun
    whole = contents(out / "first")
    assert whole == contents(out / "second")
    assert len(whole) > 10
    return whole, seconds


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_nothing_is_half(out: Path, whole: dict[str, bytes], *, tidy: bool) -> None:
    """All under its final name is whole. Who had time to clear up left only what is resumed, or nothing."""
    left = contents(out) if out.exists() else {}
    for name, data in left.items():
        if not name.startswith(".rollkit/"):
            assert data == whole[name]
        elif tidy:
            assert name.endswith((".json", "/lock"))
    assert not (tidy and out.exists()) or left


def resume(packs: Packs, out: Path, whole: dict[str, bytes]) -> None:
    assert packs.run(out) == (0, "")
    assert contents(out) == whole
    shutil.rmtree(out)


ENDS = {
    "SIGKILL": (-9, ""),
    "SIGTERM": (-15, ""),
    "SIGINT": (130, "rollkit: interrupted"),
}


@pytest.mark.parametrize("name", ENDS)
def test_killed_at_any_moment(
    packs: Packs,
    undisturbed: tuple[dict[str, bytes], float],
    name: str,
    tmp_path: Path,
) -> None:
    whole, span = undisturbed
    rng, out, kills, late = random.Random(name), tmp_path / "deep" / "out", 0, 0
    wanted, says = ENDS[name]

    def kill(process: int) -> None:
        time.sleep(rng.uniform(0, span))
        os.kill(process, getattr(signal, name))

    while kills < COUNT:
        for _ in range(rng.choice([1, 1, 2])):  # resuming is killed too
            status, told = packs.run(out, meanwhile=kill)
            if status == 0:
                late += 1
                span *= 0.9
                continue
            kills += 1
            span *= 1.03  # so that about one in four is too late, however busy the machine
            assert status == wanted, told
            assert told.startswith(says)
            assert told.count("\n") == bool(says)
            assert_nothing_is_half(out, whole, tidy=name == "SIGINT")
        resume(packs, out, whole)
    tell(f"{name}: {kills} killed, {late} over before")


def check_full(packs: Packs, out: Path, whole: dict[str, bytes], says: str, most: int | None = None) -> bool:
    """Whether a run found the disk full; if so, it says so of a file and leaves what is resumed."""
    status, told = packs.run(out, most=most)
    if status == 0:
        return False
    assert status == 1
    assert told.startswith(f"rollkit: {out}")
    assert says in told
    assert told.count("\n") == 1
    assert_nothing_is_half(out, whole, tidy=True)
    return True


def test_files_that_may_not_grow(
    packs: Packs,
    undisturbed: tuple[dict[str, bytes], float],
    tmp_path: Path,
) -> None:
    whole, out = undisturbed[0], tmp_path / "out"
    rng, full = random.Random(1), 0
    for _ in range(COUNT):
        most = int(2 ** rng.uniform(0, 17))  # the spool has files of up to some 100 kB
        full += check_full(packs, out, whole, "File too large", most)
        resume(packs, out, whole)
    tell(f"files that may not grow: {full} of {COUNT}")
    assert full > COUNT // 2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, in memory."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a disk here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk(
    packs: Packs,
    undisturbed: tuple[dict[str, bytes], float],
    disk: Path,
) -> None:
    whole, out, rng, full = undisturbed[0], disk / "out", random.Random(2), 0
    most = 2 * sum(map(len, whole.values()))
    for _ in range(COUNT):
        resize(disk, rng.randint(4096, most))
        full += check_full(packs, out, whole, "No space left on device")
        resize(disk, 4 * most)
        resume(packs, out, whole)
    tell(f"full disk: {full} of {COUNT}")
    assert full >= COUNT // 4


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
