"""What is missing is named by its own package and the version that `pyproject.toml` declares."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from typing import Any

import pytest
from tests.paths import ROOT

from rollkit import _extras
from rollkit._cli import main
from rollkit._cli.info import OPTIONAL
from rollkit._extras import extra, how_to_install

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def absent(*packages: str) -> Any:
    """Return `metadata.version` of an environment without some packages."""

    def version(package: str) -> str:
        if package in packages:
            raise metadata.PackageNotFoundError(package)
        return "1"

    return version


@pytest.mark.parametrize("name", [name for name in EXTRAS if name != "all"])
def test_needs_are_those_declared(name: str) -> None:
    assert _extras.needs(name) == EXTRAS[name]


def test_the_package_and_what_else_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    torch, transformers = EXTRAS["transformers"]
    monkeypatch.setattr(metadata, "version", absent("transformers"))
    assert how_to_install("transformers", "transformers") == f"pip install '{transformers}'"
    monkeypatch.setattr(metadata, "version", absent("torch", "transformers"))
    assert how_to_install("transformers", "transformers") == f"pip install '{transformers}' '{torch}'"
    assert how_to_install("", "ml_dtypes") == "pip install ml_dtypes"


def test_a_missing_module_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(metadata, "version", absent("pyarrow"))
    with pytest.raises(ModuleNotFoundError) as raised:
        extra("pyarrow", "arrow")
    assert str(raised.value) == f"this needs pyarrow; install it with: pip install '{EXTRAS['arrow'][0]}'"
    assert raised.value.name == "pyarrow"


def test_where_rollkit_is_not_installed_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(_: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "requires", requires)
    assert how_to_install("arrow", "pyarrow") == "pip install pyarrow"


def test_info_names_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(metadata, "version", absent(*(package for package, _ in OPTIONAL)))
    assert main(["info"]) == 0
    told = capsys.readouterr().out
    for package, name in OPTIONAL:
        assert f"pip install '{package}>=" in told or not name


def test_nothing_says_to_install_rollkit_from_the_index() -> None:
    """The name is somebody else's there."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    files = [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    if not files:
        pytest.skip("no git checkout")
    hint = b"install " + b"'rollkit"
    for file in files:
        text = file.read_bytes()
        assert hint not in text.replace(b'"', b"'"), file.name
        assert b"install " + b"rollkit" not in text, file.name
