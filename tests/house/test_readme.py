"""What the README shows runs."""

import re
from typing import Any

from tests.paths import ROOT


def test_the_ten_lines_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        names: dict[str, Any] = {}
        exec(block, names)
        assert names["rows"].dtype == names["batch"]["rollout_logprobs"].dtype


def test_its_links_lead_somewhere() -> None:
    for source in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", source.read_text()):
            assert (source.parent / link).exists(), f"{source.name}: {link}"


def test_its_commands_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), re.M):
        assert re.search(rf"^{name}:", makefile, re.M), name
