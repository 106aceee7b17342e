"""The examples run, from any directory, and say something."""

import importlib.util
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.paths import ROOT
from tests.thorough import LEVEL

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHORT = {"grpo.py": ["2"], "sft.py": ["1"]}
"""Arguments of those that train, where tests are not thorough: steps, epochs."""


@pytest.fixture
def threads() -> Iterator[None]:
    """Give torch its threads back: small models are trained on one."""
    torch = importlib.util.find_spec("torch") and importlib.import_module("torch")
    before = torch and torch.get_num_threads()
    yield
    if torch:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), *(() if LEVEL else SHORT.get(path.name, ()))])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()
