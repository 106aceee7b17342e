"""What the README shows runs."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.paths import ROOT

import rollkit
from rollkit._cli import main as command_line


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_its_lines_run() -> None:
    """One block after the other, with a model and an optimizer that are the reader's."""
    import torch

    class Model(torch.nn.Linear):
        def forward(self, *, input_ids: Any, position_ids: Any, labels: Any, use_cache: bool) -> Any:  # type: ignore[override]
            self.loss = super().forward(((labels >= 0) & (position_ids > 0)).sum(1, True).float()).sum()
            return self

    model = Model(1, 1)
    names: dict[str, Any] = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=1.0)}
    first, *others = blocks("python")
    exec(first, names)
    assert names["rows"].dtype == names["batch"]["rollout_logprobs"].dtype
    names["rollouts"] = names["rollouts"][:-10]
    for block in others:
        exec(block, names)
    assert names["taken"] == len(names["bins"]) == 3  # so that the last batch is not whole
    assert (names["state"]["epoch"], names["state"]["position"]) == (1, 0)


def test_its_file_is_read(tmp_path: Path) -> None:
    (block,) = blocks("json")
    (tmp_path / "rollouts.jsonl").write_text(block)
    rollouts = rollkit.read(tmp_path / "rollouts.jsonl")
    rollouts.validate()
    assert len(rollouts) == block.count("\n")
    assert rollkit.pack(rollouts, capacity=10)["rewards"].sum() == 1


def test_its_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(rollkit.sample_path(), "rollouts.jsonl")
    lines = [line.partition("#")[0].split() for block in blocks("sh") for line in block.splitlines()]
    commands = [words for words in lines if words[:1] == ["rollkit"]]
    assert len(commands) >= 3
    for words in commands:
        assert not command_line(words[1:]), (words, capsys.readouterr().err)


def anchors(page: Path) -> set[str]:
    """What its headings are called in a link."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_its_links_lead_somewhere() -> None:
    for source in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", source.read_text()):
            page = source.parent / link if link else source
            assert page.exists(), f"{source.name}: {link}"
            assert not anchor or anchor in anchors(page), f"{source.name}: {link}#{anchor}"


def test_its_commands_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), re.M):
        assert re.search(rf"^{name}:", makefile, re.M), name
