"""`benches/record_gpu.py` on a CPU: its proofs hold, and what goes wrong in a part is said."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.paths import ROOT
from tests.thorough import LEVEL

pytest.importorskip("torch")
pytest.importorskip("jax")
BENCHES = ROOT / "benches"
BY_DEFAULT = ("torch", "flex", "gradients")  # JAX compiles for long


def test_every_proof_holds_on_a_cpu() -> None:
    """By the operations that a device is given: CI's part of what a GPU proves."""
    command = [sys.executable, str(BENCHES / "record_gpu.py"), "--cpu"]
    command += ["--share", "0.01"] if LEVEL else ["--share", "0.001", "--parts", *BY_DEFAULT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all went well" in done.stdout
    assert "LEFT OUT" not in done.stdout


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHES))
    import record_gpu

    return record_gpu


def part(record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    """A part of that text, by name."""
    module = f"made_{abs(hash(text))}"
    (tmp_path / f"{module}.py").write_text(f"def run(setting):\n    {text}\n    yield 'done'\n")
    monkeypatch.setattr("gpu.__path__", [*sys.modules["gpu"].__path__, str(tmp_path)])
    monkeypatch.setitem(record.parts.PARTS, text, record.parts.Part(f"{module}:run", "", 60))
    return text


def test_a_part_that_raises_is_told_and_the_next_goes_on(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [
        part(record, tmp_path, monkeypatch, text)
        for text in ("yield 'one'; assert 1 == 2, 'no'", "import not_there", "pass")
    ]
    out = io.StringIO()
    record.parts.run(names, "cpu", 1.0, out)
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event for event in events if "end" not in event] == [
        {"begin": names[0]},
        {"found": "one"},
        {"failed": "AssertionError: no", "at": "run, line 2"},
        {"begin": names[1]},
        {"left_out": "no module not_there"},
        {"begin": names[2]},
        {"found": "done"},
    ]


CHILD = """
import json, os, sys, time
def say(**event): print(json.dumps(event), flush=True)
for name in sys.argv[4:]:
    say(begin=name)
    if name == "hangs": time.sleep(60)
    if name == "dies": os._exit(7)
    say(found=name)
    say(end=name, seconds=0.0)
"""


def test_a_process_that_dies_or_hangs_is_replaced(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    child = tmp_path / "child.py"
    child.write_text(CHILD)
    monkeypatch.setattr(record, "__file__", str(child))
    limits = {"a": 60.0, "dies": 60.0, "b": 60.0, "hangs": 0.5, "c": 60.0}
    for name, seconds in limits.items():
        monkeypatch.setitem(record.parts.PARTS, name, record.parts.Part("", "", seconds))
    found = record.Record("cuda", 1.0, 60)
    found.about = {"card": "one"}
    found.run(list(limits))
    assert {name: result.get("failed") for name, result in found.results.items()} == {
        "a": None,
        "dies": "its process ended with 7",
        "b": None,
        "hangs": "not done in 0.5 s",
        "c": None,
    }
    assert found.wrong == ["dies", "hangs"]
    record.write(found, tmp_path)
    text = (tmp_path / "gpu-undated-one.md").read_text()
    assert "**dies: failed.** its process ended with 7" in text
    assert "FAILED hangs: not done in 0.5 s" in capsys.readouterr().out


def test_a_cpu_stops_at_the_first_wrong_result_and_no_time_stops_all(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text(CHILD)
    monkeypatch.setattr(record, "__file__", str(child))
    for name in ("dies", "b", "hangs"):
        monkeypatch.setitem(record.parts.PARTS, name, record.parts.Part("", "", 60))
    found = record.Record("cpu", 1.0, 60)
    found.run(["dies", "b"])
    assert list(found.results) == ["dies"]
    short = record.Record("cuda", 1.0, 1)
    short.run(["hangs", "b"])
    assert short.results == {"hangs": {"failed": "no time is left"}}


def test_what_compares_refuses_what_differs(record: Any) -> None:
    from gpu import setting

    some = np.arange(4, dtype=np.float32)
    setting.check_bits(some, some.copy(), "same")
    for other in (some + 1, some.astype(np.float64), some[:3], np.where(some == 0, np.float32(-0.0), some)):
        with pytest.raises(AssertionError):
            setting.check_bits(other, some, "other")
    assert setting.check_near(some + 1e-6, some, 1e-5, "near") < 1e-5
    for far in (some + 0.1, some[:3], np.where(some == 2, np.nan, some)):
        with pytest.raises(AssertionError):
            setting.check_near(far, some, 1e-5, "far")
    faults = setting.Faults(setting.Setting("cuda", 1.0, 0.0))
    with faults.of("kind"):
        raise ValueError("odd")
    with pytest.raises(AssertionError, match="1 faults, the first of each kind: kind: ValueError: odd"):
        faults.check()
