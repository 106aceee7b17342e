"""`head`, `show`, `stats`, `convert`, and what `pack` takes beside files: `-`, folders, `--config`, `--dry-run`."""

# ruff: noqa: E501

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollkit import Rollouts, iter_chunks, read, sample_path, save
from rollkit._cli import main, progress, text
from rollkit._files.shards import read_index, read_shards

SAMPLE = str(sample_path())
ROWS = Rollouts(
    {
        "prompt_token_ids": [[1, 2], [3]],
        "response_ids": [[4, 5, 6], [7]],
        "loss_masks": [[1, 0, 1], [1]],
        "rollout_logprobs": [[-0.5, -0.25, -1.0], [-2.0]],
        "rewards": [[0.0, 0.0, 1.5], [0.0]],
        "prompt_ranks": [[8, 9], [10]],
        "routes": np.arange(12).reshape(6, 2).tolist() and [[[0, 1], [2, 3], [4, 5]], [[6, 7]]],
        "notes": [{"a": "\x1b[31m"}, None],
        "odd\n": ["text", "x" * 300],
    }
)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    save(ROWS, "rows.safetensors")
    return "rows.safetensors"


def told(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> Any:
    """What a command prints: its output, or one line of error without the program's name."""
    assert main([str(argument) for argument in arguments]) == status
    found = capsys.readouterr()
    if not status:
        assert found.err == ""
        assert not any(line != line.rstrip() for line in found.out.splitlines())
        return found.out
    assert found.out == ""
    assert found.err.startswith("rollkit: ")
    assert found.err.count("\n") == 1
    return found.err.removeprefix("rollkit: ").rstrip()


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


# head and show.


def test_head(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, "head", source).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:2] == ["prompt_token_ids", "response_ids"]
    assert "3: 4 5 6" in lines[1]
    assert "3×2: 0 1 2 3 4 5" in lines[1]
    assert "\x1b" not in lines[1]
    assert lines[2].endswith("x" * 23 + "…")
    assert len(told(capsys, "head", source, "-n", 1).splitlines()) == 2
    lines = told(capsys, "head", SAMPLE, "-n", 5).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["0", "1", "2", "3", "4"]


def test_show(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    above, below = told(capsys, "show", source, 0).split("\n\n")
    assert re.search(r"tokens +5 \(prompt 2, response 3\)", above)
    assert re.search(r'notes +\{"a": "\\+u001b\[31m"\}', above)
    assert re.search(r"odd\\n +text", above)
    head, *lines = [line.split() for line in below.splitlines()]
    assert head == ["part", "token", "loss_masks", "rollout_logprobs", "rewards", "prompt_ranks", "routes"]
    assert lines == [
        ["0", "prompt", "1", "8"],
        ["1", "prompt", "2", "9"],
        ["2", "response", "4", "1", "-0.5", "0", "2:", "0", "1"],
        ["3", "response", "5", "0", "-0.25", "0", "2:", "2", "3"],
        ["4", "response", "6", "1", "-1", "1.5", "2:", "4", "5"],
    ]
    assert len({line.rindex(":") for line in below.splitlines()[3:]}) == 1  # columns are aligned


@pytest.mark.parametrize("row", range(0, 32, 5))
def test_show_has_all_of_a_row(row: int, capsys: pytest.CaptureFixture[str]) -> None:
    below = told(capsys, "show", SAMPLE, row).split("\n\n")[1]
    lines = [line.split() for line in below.splitlines()[1:]]
    rollouts = read(SAMPLE)
    prompt, response = (rollouts.ragged(name)[row].tolist() for name in ("prompt_token_ids", "response_ids"))
    assert [int(line[2]) for line in lines] == prompt + response
    assert [line[1] for line in lines] == ["prompt"] * len(prompt) + ["response"] * len(response)
    logprobs = [float(line[4]) for line in lines[len(prompt) :]]
    np.testing.assert_allclose(logprobs, rollouts.ragged("rollout_logprobs")[row], rtol=1e-3)


def test_show_of_whole_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(Rollouts({"input_ids": [[1, 2]], "x": [[5, 6, 7]]}), tmp_path / "a.jsonl")
    above, below = told(capsys, "show", tmp_path / "a.jsonl", 0).split("\n\n")
    assert re.search(r"x +3: 5 6 7", above)
    assert [line.split() for line in below.splitlines()] == [["part", "token"], ["0", "1"], ["1", "2"]]


@pytest.mark.parametrize("colour", [True, False])
def test_colour_where_the_terminal_has_it(
    source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, colour: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    lines = told(capsys, "show", source, 0).split("\n\n")[1].splitlines()
    begins = [line[: line.index(" ")] for line in lines]
    dim, bold = (text.DIM, text.BOLD) if colour else ("", "")
    assert begins == ["", dim, dim, "", dim, bold]
    assert ("\x1b[0m" in "".join(lines)) == colour


def test_what_labels_ignore_is_dim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    path = tmp_path / "labels.jsonl"
    path.write_text('{"input_ids": [1, 2, 3], "labels": [-100, 2, -100]}\n')
    lines = told(capsys, "show", str(path), 0).split("\n\n")[1].splitlines()
    assert [line.startswith(text.DIM) for line in lines] == [False, True, False, True]


# stats.


def test_stats(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, "stats", source, source, "--json"))
    assert found["files"] == 2
    assert (found["rows"], found["tokens"]) == (4, 14)
    assert found["masks"] == {"trained": 6, "of": 8}
    assert found["rewards"] == {
        "rows": 4, "missing": 0, "mean": 0.75, "std": 0.75, "min": 0.0, "max": 1.5, "positive": 0.5
    }  # fmt: skip
    assert found["lengths"]["all"]["max"] == 5
    assert found["columns"]["routes"] == {"dtype": "int64 [2]", "per": "response token", "rows": 4}
    assert found["columns"]["prompt_ranks"]["per"] == "prompt token"
    assert found["columns"]["notes"] == {"dtype": "objects", "per": "row", "rows": 4}
    shown = told(capsys, "stats", source)
    assert re.search(r"trained on +3 tokens \(75\.0 % of the masks\)", shown)
    assert re.search(r"rewards +mean 0\.75, std 0\.75, 0 to 1\.5, 50\.0 % above 0", shown)
    assert "odd\\n" in shown


def test_stats_are_those_of_numpy(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, "stats", SAMPLE, "--json"))
    rollouts = read(SAMPLE)
    lengths = rollouts.ragged("response_ids").lengths
    wanted = [lengths.min(), *np.quantile(lengths, [0.1, 0.5, 0.9, 0.99]), lengths.max(), lengths.mean()]
    assert list(found["lengths"]["response"].values()) == pytest.approx(wanted)
    assert found["rewards"]["mean"] == pytest.approx(np.mean(rollouts["rewards"]))


def test_stats_of_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"response_ids": [1], "rewards": null, "x": 1}\n')
    (tmp_path / "b.jsonl").write_text(
        '{"response_ids": [1], "rewards": 0.5, "x": 0.5}\n{"response_ids": [], "rewards": 1, "x": 1}\n'
    )
    (tmp_path / "c.jsonl").write_text('{"response_ids": [1, 2], "y": 1}\n')
    found = json.loads(told(capsys, "stats", tmp_path, "--json"))
    assert (found["rewards"]["missing"], found["rewards"]["rows"], found["rewards"]["mean"]) == (1, 2, 0.75)
    assert found["columns"]["x"] == {"dtype": "int64, float64", "per": "row", "rows": 3}
    assert "in 1 of 4 rows" in told(capsys, "stats", tmp_path)
    (tmp_path / "c.jsonl").write_text("")
    assert "no rollouts in" in told(capsys, "stats", tmp_path / "c.jsonl", status=1)


# convert.


@pytest.mark.parametrize("kind", ["arrow", "parquet", "safetensors", "jsonl"])
def test_convert_there_and_back(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind in ("arrow", "parquet"):
        pytest.importorskip("pyarrow")
    there, back = tmp_path / f"a.{kind}", tmp_path / "b.jsonl"
    assert re.search(r"rows +32\n +written to +.*a\.\w+ \(\d", told(capsys, "convert", SAMPLE, there))
    assert told(capsys, "convert", there, back, "--quiet") == ""
    assert read(there).equals(read(SAMPLE))
    assert read(back).equals(read(SAMPLE))


def test_convert_joins_renames_and_chooses(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--column", "ids", "--column", "response_ids", "--rename", "prompt_token_ids=ids"]
    told(capsys, "convert", source, source, "out.safetensors", *options)
    found = read("out.safetensors")
    assert found.ragged("ids").to_list() == [[1, 2], [3]] * 2
    assert list(found) == ["ids", "response_ids"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["convert", "rows.safetensors", "s3://b/a.jsonl"], "s3://b/a.jsonl: URLs of s3 are not taken here"),
        (["convert", "none.jsonl", "a.txt"], "a.txt: unknown kind of file '.txt'; expected .arrow,"),
        (["convert", "none.jsonl", "a.jsonl"], "none.jsonl: No such file or directory"),
        (["convert", "rows.safetensors", "none/a.jsonl"], "none/a.jsonl: No such file or directory"),
        (["convert", "empty.jsonl", "a.safetensors"], "no rollouts in empty.jsonl"),
        (["convert", "rows.safetensors", "a.safetensors", "--column", "y"], "rows.safetensors: no column 'y'; there are 'prompt"),
        (["convert", "*.none", "a.safetensors"], "*.none: no file matches"),
        (["show", "rows.safetensors", "2"], "rows.safetensors: no row 2; there are 2"),
        (["show", "empty.jsonl", "0"], "empty.jsonl: no row 0; there are 0"),
        (["head", "empty.jsonl"], "no rollouts in empty.jsonl"),
        (["head", "bad.jsonl"], "bad.jsonl:1: "),
        (["stats", "bad.jsonl"], "bad.jsonl:1: "),
        (["stats", "empty.jsonl"], "no rollouts in empty.jsonl"),
        (["pack", "-", "-", "-o", "out", "--capacity", "8"], "- is given twice, and the standard input comes once"),
        (["pack", "*.none", "-o", "out", "--capacity", "8"], "*.none: no file matches"),
        (["pack", "rows.safetensors", "--capacity", "4", "--dry-run"], "rows.safetensors: row 0 has 5 tokens, more than a capacity of 4"),
        (["pack", "empty.jsonl", "--capacity", "4", "--dry-run"], "no rollouts in empty.jsonl"),
        (["pack", "rows.safetensors", "--capacity", "8", "--dry-run", "--skip-column", "y"], "--skip-column y: no source has this column"),
    ],
)  # fmt: skip
def test_refusals(source: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.jsonl").write_text("")
    Path("bad.jsonl").write_text("{\n")
    before = sorted(os.listdir())
    assert told(capsys, *arguments, status=1).startswith(said)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "a.jsonl"], "the following arguments are required: ROW"),
        (["show", "a.jsonl", "-1"], "argument ROW: expected a whole number of at least 0, got '-1'"),
        (["show", "a.jsonl", "x"], "argument ROW: expected a whole number of at least 0, got 'x'"),
        (["head", "a.jsonl", "-n", "0"], "argument -n/--rows: expected a whole number of at least 1, got '0'"),
        (["convert", "a.jsonl"], "the following arguments are required: DST"),
        (["pack", "a.jsonl", "--dry-run"], "the following arguments are required: --capacity"),
        (["pack", "a.jsonl"], "the following arguments are required: -o/--out, --capacity"),
        (["pack", "a.jsonl", "--dry-run", "--capacity", "8", "--resume"], "--dry-run writes nothing, so --plot and --resume"),
        (["pack", "a.jsonl", "-o", "b", "--capacity", "8", "--quiet", "--json"], "--json writes, and --quiet does not"),
    ],
)  # fmt: skip
def test_misuse(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"rollkit: {said}")
    assert error.endswith(" --help says what there is\n")
    assert error.count("\n") == 1


# pack.


def pack(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told(capsys, "pack", "--json", *arguments))
    return found


def test_json_and_dry_run_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("safetensors")
    out = tmp_path / "out"
    for more in (
        [],
        ["--bins-per-shard", 2],
        ["--oversize", "drop", "--skip-column", "rollout_expert_indices"],
    ):
        capacity = ["--capacity", 900 if "drop" in more else 4096]
        plan = pack(capsys, SAMPLE, *capacity, *more, "--dry-run")
        assert not out.exists()
        found = pack(capsys, SAMPLE, *capacity, *more, "-o", out)
        index = read_index(out)
        assert found["out"] == str(out)
        assert plan["out"] is None
        for name, value in index["totals"].items():
            assert found[name] == plan[name] == value
        assert found["shards"] == plan["shards"] == len(index["shards"])
        assert found["bytes"] == sum(shard["bytes"] for shard in index["shards"])
        assert plan["bytes"] == pytest.approx(found["bytes"], rel=0.05)
        for path in out.iterdir():
            path.unlink()
        out.rmdir()
    assert "nothing: a dry run" in told(capsys, "pack", SAMPLE, "--capacity", 4096, "--dry-run")


def test_a_dry_run_reads_names_as_the_run_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"theirs": [1, 2], "rollout_logprobs": [NaN, 0.5]}\n' * 3)
    arguments = [
        tmp_path / "a.jsonl",
        "--capacity",
        4,
        "--rename",
        "theirs=response_ids",
        "--nonfinite",
        "keep",
    ]
    assert pack(capsys, *arguments, "--dry-run")["tokens"] == 6


def test_inspect_and_info_write_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("safetensors")
    told(capsys, "pack", SAMPLE, "-o", tmp_path / "out", "--capacity", 4096)
    found = json.loads(told(capsys, "inspect", tmp_path / "out", "--json"))
    assert found["totals"] == read_index(tmp_path / "out")["totals"]
    assert found["row_lengths"]["max"] == 1067
    info = json.loads(told(capsys, "info", "--json"))
    assert info["numpy"] == np.__version__
    assert set(info["packages"]) >= {"torch", "obstore"}


def after(command: str, name: str) -> list[object]:
    """The arguments after the source."""
    found: dict[str, list[object]] = {
        "pack": ["-o", name, "--capacity", 4096],
        "show": [3],
        "convert": [f"{name}.jsonl"],
    }
    return found.get(command, [])


@pytest.mark.parametrize("command", ["pack", "stats", "head", "show", "convert"])
def test_standard_input(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    give(monkeypatch, Path(SAMPLE).read_bytes())
    piped = told(capsys, command, "-", *after(command, "piped"))
    given = told(capsys, command, SAMPLE, *after(command, "given"))
    if command in ("stats", "head"):
        assert piped == given
    if command == "show":
        assert piped.split("\n\n")[1] == given.split("\n\n")[1]
    if command == "pack":
        for a, b in zip(read_shards("piped"), read_shards("given"), strict=True):
            assert all(a[name].tobytes() == b[name].tobytes() for name in a.arrays)
    if command == "convert":
        assert read("piped.jsonl").equals(read(SAMPLE))
    give(monkeypatch, b'{"response_ids": [1]}\n\n{"response_ids": [}\n')
    assert told(capsys, command, "-", *after(command, "none"), status=1).startswith("-:3: ")
    assert not [name for name in os.listdir() if name.startswith(("rollkit-", "none"))]


def test_standard_input_is_continued_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")
    arguments = ["-o", tmp_path / "out", "--capacity", 4096, "--bins-per-shard", 1]
    replace = os.replace

    def failing(a: str, b: Path) -> None:
        if Path(b).name == "shard-00001.safetensors":
            raise KeyboardInterrupt
        replace(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        give(monkeypatch, Path(SAMPLE).read_bytes())
        assert "--resume goes on from there" in told(capsys, "pack", "-", *arguments, status=130)
    give(monkeypatch, b'{"response_ids": [1]}\n')
    assert "cannot resume: source 1 " in told(capsys, "pack", "-", *arguments, "--resume", status=1)
    give(monkeypatch, Path(SAMPLE).read_bytes())
    told(capsys, "pack", "-", *arguments, "--resume")
    assert read_index(tmp_path / "out")["totals"]["rows"] == 32


def test_folders_and_globs_are_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("safetensors")
    for number, chunk in enumerate(iter_chunks(SAMPLE, rows=20)):
        save(chunk, tmp_path / f"{number}.{'jsonl' if number else 'safetensors'}")
    for name, paths in (("a", [tmp_path]), ("b", [tmp_path / "0*", tmp_path / "*.jsonl"])):
        told(capsys, "pack", *paths, "-o", tmp_path / name / "out", "--capacity", 4096)
        index = read_index(tmp_path / name / "out")
        assert index["totals"]["rows"] == 32
        assert [source["file"] for source in index["sources"]] == ["0.safetensors", "1.jsonl"]


CONFIG = """
capacity = 4096
pad-id = -1
bins_per_shard = 1
quiet = false
skip-column = ["rewards", "stop_reasons"]
rename = {loss_masks = "masks"}
level = ["masks=response"]
"""


def test_options_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("safetensors")
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    pack(capsys, SAMPLE, "--config", config, "-o", tmp_path / "a")
    index = read_index(tmp_path / "a")
    wanted = {"capacity": 4096, "pad_id": -1, "bins_per_shard": 1, "rename": {"loss_masks": "masks"}}
    wanted |= {"skip_columns": ["rewards", "stop_reasons"], "levels": {"masks": "response"}}
    assert index["arguments"].items() >= wanted.items()
    more = ["--pad-id", 7, "--skip-column", "rewards", "--capacity", 2048]  # the command line wins
    pack(capsys, SAMPLE, "--config", config, "-o", tmp_path / "b", *more)
    wanted |= {"capacity": 2048, "pad_id": 7, "skip_columns": ["rewards"]}
    assert read_index(tmp_path / "b")["arguments"].items() >= wanted.items()
    config.write_text(f"capacity = 4096\nout = {str(tmp_path / 'c')!r}\n")
    pack(capsys, SAMPLE, "--config", config)
    assert (tmp_path / "c" / "index.json").exists()


@pytest.mark.parametrize(
    ("config", "status", "said"),
    [
        ("capcity = 1", 1, "no option 'capcity'; there are out, capacity, algorithm,"),
        ("help = true", 1, "no option 'help'; there are out,"),
        ("config = 'a.toml'", 1, "no option 'config'; there are out,"),
        ("sources = ['a']", 1, "no option 'sources'; there are out,"),
        ("[pack]\ncapacity = 1", 1, "no option 'pack'; there are out,"),
        ("capacity = ", 1, "Invalid value"),
        ("resume = 1", 1, "resume is 1, expected true or false"),
        ("skip-column = 'a'", 1, "skip-column is 'a', expected an array or a table"),
        ("capacity = [1]", 1, "capacity is [1], expected a text or a whole number"),
        ("capacity = true", 1, "capacity is True, expected a text or a whole number"),
        ("capacity = 0", 2, "argument --capacity: expected a whole number of at least 1, got '0'"),
        ("oversize = 'cut'", 2, "argument --oversize: invalid choice: 'cut'"),
        ("level = {x = 'token'}", 2, "argument --level: expected NAME=LEVEL"),
    ],
)
def test_a_file_of_options_that_is_wrong(
    config: str, status: int, said: str, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.toml").write_text(config)
    arguments = ["pack", source, "-o", "out", "--config", "c.toml"]
    if status == 2:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    else:
        assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"rollkit: c.toml: {said}")
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_a_file_of_options_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "pack", SAMPLE, "--config", "none.toml", status=1).startswith(
        "none.toml: No such file"
    )


# Progress and pipes.


def test_progress_is_a_line_that_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.Progress()(range(3), "reading a", None)) == [0, 1, 2]
    assert capsys.readouterr().err == "\rreading a: 0 chunks\r                   \r"
    watched = iter(progress.Progress()(range(3), "writing", 3))
    next(watched)
    text.complain("what is wrong")  # an error begins on a line of its own
    assert capsys.readouterr().err.endswith(f"\r{' ' * len('writing: 0 of 3')}\rrollkit: what is wrong\n")


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_pipes() -> None:
    run = f"{sys.executable} -m rollkit"
    for command, said in (
        (f"{run} show {SAMPLE} 0 | true; exit ${{PIPESTATUS[0]}}", ""),
        (f"{run} stats - < {SAMPLE} | true; exit ${{PIPESTATUS[0]}}", ""),
        (f"{run} head - <&-", "rollkit: standard input is closed; give a file instead of -\n"),
    ):
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.stderr == said
        assert done.returncode in ((1,) if said else (0, 141))
