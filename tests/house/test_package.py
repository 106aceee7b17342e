"""What rollkit is built from, and what its sdist carries."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.paths import ROOT

ALLOWED = {"Apache-2.0", "Apache-2.0 WITH LLVM-exception", "MIT", "Unicode-3.0", "Zlib"}
ALLOWED |= {"BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"}


def run(*line: str) -> str:
    """What a program prints that this machine and this checkout may lack."""
    if shutil.which(line[0]) is None:
        pytest.skip(f"no {line[0]}")
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def crates() -> list[dict[str, Any]]:
    if not (ROOT / "Cargo.lock").exists():
        pytest.skip("no Cargo.lock")
    line = ("cargo", "metadata", "--format-version=1", "--locked", "--offline", "--features=python")
    try:
        return json.loads(run(*line))["packages"]  # type: ignore[no-any-return]
    except AssertionError as error:
        if "--offline" in str(error):
            pytest.skip("crates are not there")
        raise


def allowed(licence: str) -> bool:
    """Whether an SPDX expression can be met by licences that are allowed."""

    def word(found: re.Match[str]) -> str:
        name = found[0]
        return name.lower() if name in ("AND", "OR") else str(name in ALLOWED)

    # "/" is how "OR" was once written.
    return bool(eval(re.sub(r"[\w.+-]+( WITH [\w.+-]+)?", word, licence.replace("/", " OR "))))


@pytest.mark.parametrize(
    ("licence", "good"),
    [
        ("MIT", True),
        ("Unlicense/MIT", True),
        ("MIT OR LGPL-2.1-or-later", True),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0 WITH GCC-exception-3.1", False),
        ("MIT AND MPL-2.0", False),
        ("", False),
    ],
)
def test_expressions(licence: str, good: bool) -> None:
    assert allowed(licence or "none") is good


def test_every_crate_has_a_licence_that_is_allowed() -> None:
    found = {crate["name"]: crate["license"] or "none" for crate in crates()}
    assert len(found) > 30
    assert {name: licence for name, licence in found.items() if not allowed(licence)} == {}


def test_no_crate_needs_a_newer_rust() -> None:
    """And ours is not newer than what they need; clippy refuses what came to the language later."""

    def number(version: str) -> tuple[int, ...]:
        return tuple(int(part) for part in version.split("."))[:2]

    ours = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["rust-version"]
    theirs = [crate for crate in crates() if crate["name"] != "rollkit" and crate["rust_version"]]
    assert max(number(crate["rust_version"]) for crate in theirs) == number(ours)


def test_the_sdist_has_all_that_it_takes_to_build_and_to_test(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    maturin = shutil.which("maturin", path=str(Path(sys.executable).parent)) or "maturin"
    tracked = [name for name in run("git", "ls-files").splitlines() if (ROOT / name).exists()]
    run(maturin, "sdist", "--out", str(tmp_path))
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as packed:
        carried = {name.partition("/")[2] for name in packed.getnames()}
    # For a checkout only.
    left_out = re.compile(
        r"\.ci/|fuzz/|\.git(ignore|attributes)|clippy\.toml|rustfmt\.toml|.*\.proptest-regressions"
    )
    assert {name for name in tracked if not left_out.match(name)} - carried == set()
    assert not [name for name in carried if name.endswith((".so", ".pyc"))]
