"""The command line: what it prints, what it refuses, and how it ends."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.paths import SHARED

import rollkit
from rollkit import Layout, sample_path
from rollkit._cli import main
from rollkit._cli.text import bar, byte_count, count, round_edges
from rollkit._files.shards import read_layout, read_shards
from rollkit._rows.binpack import Packing

pytest.importorskip("safetensors")

TAU = SHARED / "tau_airline.jsonl"
SAMPLE = str(sample_path())
needs_tau = pytest.mark.skipif(not TAU.exists(), reason="the rollouts of shared/data are not here")


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def pack_sample(out: Path, *more: object) -> int:
    return run("pack", SAMPLE, "-o", out, "--capacity", 4096, *more)


def cells(text: str) -> dict[str, str]:
    """The `name  value` lines of a table."""
    found = (line.split(None, 1) for line in text.splitlines())
    return {pair[0]: pair[1] for pair in found if len(pair) == 2}


def test_pack_and_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack_sample(tmp_path / "out", "--bins-per-shard", 2) == 0
    packed = cells(capsys.readouterr().out)
    assert packed["rows"] == "32"
    assert packed["written"].split() == ["to", str(tmp_path / "out")]
    assert "tokens/s" in packed["seconds"]
    assert run("inspect", tmp_path / "out") == 0
    told = capsys.readouterr()
    shown = cells(told.out)
    for name in ("rows", "tokens", "bins", "utilisation", "shards"):
        assert shown[name] == packed[name]
    assert shown["capacity"] == "4,096"
    assert shown["input_ids"].split() == ["int32", "[bins,", "4096]"]
    assert shown["positions"].split() == ["int32", "[bins,", "4096]", "derived"]
    assert "█" in told.out
    assert told.err == ""
    assert not any(line != line.rstrip() for line in told.out.splitlines())


def test_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack_sample(tmp_path / "out", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_flags_are_those_of_packing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--bins-multiple-of", 8, "--level", "loss_masks=response", "--max-segments", 3]
    assert pack_sample(tmp_path / "out", *more) == 0
    assert int(cells(capsys.readouterr().out)["bins"].split()[0]) % 8 == 0
    assert run("inspect", tmp_path / "out") == 0
    options = cells(capsys.readouterr().out)["options"]
    assert options == (
        "max segments 3, bins multiple of 8, order shuffled, seed 0, levels {'loss masks': 'response'}"
    )
    with pytest.raises(SystemExit):
        run("pack", "--help")
    told = capsys.readouterr().out
    for name in Packing.__annotations__:
        assert f"--{name.replace('_', '-')}" in told


@pytest.mark.parametrize("level", ["x", "x=", "=row", "x=token"])
def test_a_level_that_is_none(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("pack", SAMPLE, "-o", "out", "--capacity", 8, "--level", level)
    assert "expected NAME=LEVEL, with a level of prompt, response, sequence, row" in capsys.readouterr().err


def test_damage_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack_sample(tmp_path / "out", "--quiet")
    shard = next((tmp_path / "out").glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert run("inspect", tmp_path / "out") == 0
    capsys.readouterr()
    assert run("verify", tmp_path / "out") == 1
    assert capsys.readouterr().err == (
        f"rollkit: {shard}: contents differ from what the index says (sha256)\n"
    )
    shard.unlink()
    for command in ("inspect", "verify"):
        assert run(command, tmp_path / "out") == 1
        assert capsys.readouterr() == ("", f"rollkit: {shard}: missing\n")


def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack_sample(tmp_path / "out", "--quiet", "--bins-per-shard", 1)
    assert run("verify", tmp_path / "out") == 0
    told = capsys.readouterr()
    assert re.fullmatch(r"4 files of [\d.]+ kB: as they were written\n", told.out)
    assert told.err == ""
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    shards[0].unlink()
    shards[2].write_bytes(shards[2].read_bytes() + b"x")
    assert run("verify", tmp_path / "out", "--json") == 1
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert [line.split(": ")[0] for line in found["wrong"]] == [str(shards[0]), str(shards[2])]
    assert told.err.splitlines() == [f"rollkit: {line}" for line in found["wrong"]]
    assert run("verify", tmp_path) == 1
    assert "index.json" in capsys.readouterr().err


def test_bins_are_shuffled_unless_said_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ways: list[tuple[object, ...]] = [(), ("--seed", 0), ("--seed", 1), ("--order", "opened")]
    layouts = []
    for i, way in enumerate(ways):
        assert pack_sample(tmp_path / str(i), "--quiet", *way) == 0
        layouts.append(read_layout(tmp_path / str(i)))
    lengths = layouts[0].row_lengths
    assert layouts[0].equals(layouts[1])
    assert layouts[1].equals(Layout.pack(lengths, 4096, order="shuffled", seed=0))
    assert layouts[2].equals(Layout.pack(lengths, 4096, order="shuffled", seed=1))
    assert layouts[3].equals(Layout.pack(lengths, 4096))
    with pytest.raises(SystemExit):
        pack_sample(tmp_path / "none", "--order", "opened", "--seed", 1)
    assert "--seed is of a shuffled order, so it does not go with --order opened" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        pack_sample(tmp_path / "none", "--seed", -1)
    assert "argument --seed: expected a whole number of at least 0, got '-1'" in capsys.readouterr().err


def test_what_is_derived_is_stored_when_asked(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    for name, more in (("derived", ()), ("stored", ("--derived",))):
        assert pack_sample(tmp_path / name, "--quiet", *more) == 0
    derived, stored = (
        load_file(next((tmp_path / name).glob("*.safetensors"))) for name in ("derived", "stored")
    )
    assert stored.keys() - derived.keys() == {"segment_ids", "positions", "rewards"}
    for ours, theirs in zip(read_shards(tmp_path / "derived"), read_shards(tmp_path / "stored"), strict=True):
        assert list(ours) == list(theirs)
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs[name])
            np.testing.assert_array_equal(array, stored[name])
            assert array.dtype == theirs[name].dtype == stored[name].dtype


def test_info_imports_no_optional_package() -> None:
    code = (
        "import sys; from rollkit._cli import main; status = main(['info']);"
        "assert not {'torch', 'jax', 'pyarrow', 'matplotlib', 'safetensors', 'obstore'} & sys.modules.keys();"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown = cells(done.stdout)
    assert shown["rollkit"].startswith(rollkit.__version__)
    assert shown["numpy"] == np.__version__
    assert {"torch", "jax", "pyarrow", "matplotlib", "safetensors"} <= shown.keys()


def test_importing_rollkit_does_not_import_the_command_line() -> None:
    code = (
        "import sys, rollkit;"
        "assert not {'argparse', 'rollkit._cli.commands', 'rollkit._files.shards'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["pack", "--help"]])
def test_module_and_program(arguments: list[str]) -> None:
    program = Path(sys.executable).with_name("rollkit")
    commands = [[sys.executable, "-m", "rollkit"], *([[str(program)]] if program.exists() else [])]
    told = {
        subprocess.run([*command, *arguments], capture_output=True, text=True, check=True).stdout
        for command in commands
    }
    assert len(told) == 1
    assert "rollkit" in told.pop()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unpack"],
        ["pack", SAMPLE, "--capacity", "8"],
        ["pack", SAMPLE, "-o", "out"],
        ["pack", "-o", "out", "--capacity", "8"],
        ["pack", SAMPLE, "-o", "out", "--capacity", "0"],
        ["pack", SAMPLE, "-o", "out", "--capacity", "8", "--oversize", "cut"],
        ["pack", SAMPLE, "-o", "out", "--capacity", "8", "--bins-per-shard", "-1"],
    ],
)
def test_misuse(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("rollkit: ")
    assert said.endswith(" --help says what there is\n")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


GOOD = '{"prompt_token_ids": [1, 2], "response_ids": [3, 4, 5]}\n'
LONG = GOOD.replace("3", "3" + ", 3" * 90)
WRONG_FILES: list[tuple[str, bytes, str]] = [
    ("none.jsonl", b"", "no rollouts in none.jsonl"),
    ("blank.jsonl", b"\n\n", "no rollouts in blank.jsonl"),
    ("cut.jsonl", (GOOD * 3 + GOOD[:20]).encode(), "cut.jsonl:4: "),
    ("binary.jsonl", b"\x00\xff\xfe" * 9, "binary.jsonl:1: "),
    ("list.jsonl", (GOOD + "[1]\n").encode(), "list.jsonl:2: "),
    (
        "long.jsonl",
        (GOOD + GOOD.replace("3", "3" + ", 3" * 90)).encode(),
        "long.jsonl:2: this row has 95 tokens",
    ),
    ("text.txt", GOOD.encode(), "text.txt: unknown kind of file"),
    ("cut.jsonl.gz", gzip.compress(GOOD.encode() * 2000)[:-20], "cut.jsonl.gz"),
    ("odd.parquet", b"PAR1 and more", "odd.parquet"),
    ("odd.arrow", b"no arrow", "odd.arrow"),
]


@pytest.mark.parametrize(("name", "data", "said"), WRONG_FILES, ids=[name for name, _, _ in WRONG_FILES])
def test_wrong_files(
    name: str,
    data: bytes,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name.endswith((".parquet", ".arrow")):
        pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(data)
    assert run("pack", name, "-o", "out", "--capacity", 64) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"rollkit: {said}")
    assert told.err.count("\n") == 1
    assert os.listdir() == [name]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["missing.jsonl"], "missing.jsonl: No such file or directory"),
        (["."], "a folder without files of .jsonl,"),
        ([SAMPLE, "--algorithm", "best"], "algorithm must be one of"),
        ([SAMPLE, "--pad-id", "99999999999"], "does not fit int32"),
        (
            [SAMPLE, "--bins-multiple-of", str(10**18)],
            "bins_multiple_of must be at most 2,147,483,647, got 1,000",
        ),
        ([SAMPLE, "--plot", "missing/bins.png"], "missing: no such folder for the picture"),
        ([SAMPLE, "--plot", "bins.xyz"], "no picture format"),
        ([SAMPLE, "-o", SAMPLE], "File exists"),
        ([SAMPLE, "--capacity", "8"], "more than a capacity of 8"),
        ([SAMPLE, "--capacity", "8", "--oversize", "drop"], "longer than a capacity of 8"),
    ],
)
def test_refusals(
    more: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "--plot" in more:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert main(["pack", "-o", "out", "--capacity", "4096", *more]) == 1
    error = capsys.readouterr().err
    assert error.startswith("rollkit: ")
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("folder", "said"),
    [(".", "index.json"), ("missing", "index.json"), (SAMPLE, "a file, expected a folder")],
)
def test_inspect_of_something_else(
    folder: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("inspect", folder) == 1
    assert said in capsys.readouterr().err


def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert pack_sample(tmp_path / "out") == 1
    assert "this needs safetensors; install it with: pip install 'safetensors>=" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(28, "No space left on device"), 1, "rollkit: No space left on device"),
        (PermissionError(13, "Permission denied", "out"), 1, "rollkit: out: Permission denied"),
        (MemoryError(), 1, "rollkit: out of memory; --chunk-rows"),
        (KeyboardInterrupt(), 130, "rollkit: interrupted"),
    ],
)
def test_failures_on_the_way(
    error: BaseException,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Layout, "select", failing)
        assert pack_sample(tmp_path / "out") == status
    assert capsys.readouterr().err.startswith(said)
    assert not list(tmp_path.iterdir())


def test_what_can_be_resumed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace = os.replace

    def failing(a: str, b: Path) -> None:
        if Path(b).name == "shard-00001.safetensors":
            raise KeyboardInterrupt
        replace(a, b)

    more = ("--bins-per-shard", 1, "--quiet")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        assert pack_sample(tmp_path / "out", *more) == 130
    assert re.search(r"interrupted; 1 of \d+ shards are whole; --resume", capsys.readouterr().err)
    assert run("inspect", tmp_path / "out") == 1
    assert "unfinished; continue it with rollkit pack --resume" in capsys.readouterr().err
    assert pack_sample(tmp_path / "out", *more, "--resume") == 0
    assert run("verify", tmp_path / "out") == 0


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name == "nt", reason="POSIX signals")
def test_ctrl_c_and_broken_pipe_of_a_process(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(GOOD * 100_000)
    # What a shell starts in the background ignores SIGINT, and so would all that these tests start.
    program = """import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("rollkit", run_name="__main__", alter_sys=True)"""
    command = [sys.executable, "-c", program, "pack", str(source), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*command, "--capacity", "8", "--chunk-rows", "1"], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "out/.rollkit").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "rollkit: interrupted\n")
    assert not (tmp_path / "out").exists()

    pack_sample(tmp_path / "out", "--quiet")
    inspect = f"{sys.executable} -m rollkit inspect {tmp_path / 'out'} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", inspect], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_ctrl_c_in_the_first_call_of_a_kernel_is_no_panic() -> None:
    # What the kernels need of NumPy was found when they were imported: nothing asks for its version now.
    program = """
import numpy as np, rollkit
def interrupted(*_):
    raise KeyboardInterrupt
np.lib.NumpyVersion = interrupted
rollkit.Layout.concat([1])"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = [sys.executable, "-m", "rollkit", "pack", SAMPLE, "-o", str(tmp_path / "out")]
    command += ["--capacity", "4096"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, check=True)
    os.set_blocking(ours, False)
    assert b"writing shards" in os.read(ours, 100_000)
    os.close(ours)
    os.close(theirs)
    assert b"writing" not in done.stdout


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / f"bins.{suffix}"
    assert pack_sample(tmp_path / "out", "--plot", picture) == 0
    assert str(picture) in capsys.readouterr().out
    assert picture.stat().st_size > 5000
    assert run("inspect", tmp_path / "out", "--plot", picture) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [picture.name, "out"]


@needs_tau
def test_tau_airline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pack", TAU, "-o", tmp_path / "out", "--capacity", 16384, "--bins-per-shard", 20) == 0
    shown = cells(capsys.readouterr().out)
    assert shown["rows"] == "200"
    assert shown["tokens"] == "836,774"
    assert shown["bins"] == "52 of 16,384 tokens"
    wanted = [json.loads(line) for line in TAU.read_text().splitlines()]
    seen = 0
    for batch in read_shards(tmp_path / "out"):
        for i, tokens in zip(batch.rows["row_numbers"], batch.unpack("input_ids"), strict=True):
            assert tokens.tolist() == wanted[i]["prompt_token_ids"] + wanted[i]["response_ids"]
            seen += 1
    assert seen == 200


@needs_tau
def test_tau_airline_with_a_line_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = TAU.read_text().splitlines(keepends=True)
    lines[3] = lines[3][: len(lines[3]) // 2] + "\n"
    source = tmp_path / "tau.jsonl"
    source.write_text("".join(lines))
    assert run("pack", source, "-o", tmp_path / "out", "--capacity", 16384) == 1
    told = capsys.readouterr()
    assert told.err.startswith(f"rollkit: {source}:4: ")
    assert told.out == ""
    assert os.listdir(tmp_path) == ["tau.jsonl"]


def test_numbers_for_people() -> None:
    found = [byte_count(n) for n in (0, 999, 1000, 5.5e6, 2e15)]
    assert found == ["0 B", "999 B", "1.0 kB", "5.5 MB", "2,000.0 TB"]
    assert [count(n) for n in (12, 3_400, 2.5e6, 7e9)] == ["12", "3.4 k", "2.5 M", "7.0 G"]
    assert [bar(share, 2) for share in (0, 0.001, 0.5, 0.75, 1)] == ["", "▏", "█", "█▌", "██"]


@pytest.mark.parametrize(
    ("least", "most"), [(0, 0), (5, 5), (1, 7), (1490, 12428), (0, 131072), (10**6, 10**6 + 3)]
)
def test_bounds_of_the_histogram(least: int, most: int) -> None:
    edges = round_edges(least, most)
    assert edges[0] <= least
    assert edges[-1] > most
    assert 2 <= len(edges) <= 14
    assert len(set(np.diff(edges))) == 1


# Streams that are closed, names that are no text, options without end.


def shell(command: str) -> subprocess.CompletedProcess[str]:
    command = command.replace("rollkit", f"{sys.executable} -m rollkit", 1)
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_streams_that_are_closed(tmp_path: Path) -> None:
    said = "rollkit: standard output is closed; redirect it, to /dev/null if it is not wanted\n"
    pack = f"pack {SAMPLE} -o {tmp_path / 'out'} --capacity 4096"
    for command in ("info", "inspect .", pack):
        done = shell(f"rollkit {command} >&-")
        assert (done.returncode, done.stderr) == (1, said)
    assert not (tmp_path / "out").exists()
    for command in ("--help", "pack --help", "--version"):
        done = shell(f"rollkit {command} >&-")
        assert (done.returncode, done.stderr) == (1, said)
    done = shell(f"rollkit {pack} --quiet >&-")
    assert (done.returncode, done.stderr) == (0, "")
    for command, status in (("info", 0), ("nothing", 2), ("inspect nowhere", 1)):
        done = shell(f"rollkit {command} 2>&-")
        assert (done.returncode, done.stderr, "rollkit: " in done.stdout) == (status, "", False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_finds_no_space(unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    for command in ("info", "--help", "--version", f"stats {SAMPLE}"):
        done = shell(f"rollkit {command} >/dev/full")
        assert (done.returncode, done.stderr) == (1, "rollkit: No space left on device\n"), command
    for command, status in (("head nowhere", 1), ("nothing", 2), ("info", 0)):
        assert shell(f"rollkit {command} 2>/dev/full").returncode == status, command
    done = shell("set -o pipefail; rollkit --help | true")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files that are any bytes")
def test_names_that_are_no_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = (tmp_path / os.fsdecode(name) for name in (b"a\xff.jsonl", b"out\xff"))
    source.write_bytes(Path(SAMPLE).read_bytes())
    for more in ([], ["--resume"]):
        assert run("pack", source, "-o", out, "--capacity", 4096, "--quiet", *more) == 0
    for name, said in (
        (b"a\xff.jsonl", "a\\xff.jsonl:1: expected"),
        (b"b\xff.jsonl.gz", "b\\xff.jsonl.gz: not a"),
    ):
        source = tmp_path / os.fsdecode(name)
        source.write_bytes(b"[1]\n")
        assert run("pack", source, "-o", tmp_path / "none", "--capacity", 4096) == 1
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--capacity", "capacity must be at most 2,147,483,647"),
        ("--bins-per-shard", "bins_per_shard is 1000"),
        ("--chunk-rows", "chunk_rows is 1000"),
        ("--pad-id", "pad_id is 1,000,000,000,000,000,000,000, which does not fit int32"),
    ],
)
def test_options_without_end(
    option: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack_sample(tmp_path / "out", option, 10**21) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"rollkit: {said}")
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_during_imports(tmp_path: Path) -> None:
    # Stands for NumPy, which takes longest.
    stopped = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    (tmp_path / "numpy.py").write_text(stopped)
    path = [str(tmp_path), str(Path(rollkit.__file__).parents[1])]
    # What a shell starts in the background ignores SIGINT, and so would all that these tests start.
    begin = (
        "import os, sys; from signal import *; signal(SIGINT, SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )

    def told(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-c", begin, sys.executable, *arguments]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)
        return done.returncode, done.stderr

    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/rollkit"
    program.write_text("from rollkit._cli import main; raise SystemExit(main())")
    for arguments in (["-m", "rollkit"], [str(program)]):
        assert told(*arguments, "info") == (130, "rollkit: interrupted\n")
    # A program that uses the package keeps its own Ctrl-C.
    assert told("-c", "import rollkit")[1].endswith("KeyboardInterrupt\n")


def test_head_of_lists_per_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"response_ids": [5, 6], "sampling_masks": [[5, 9], [6]]}\n')
    assert run("head", source) == 0
    assert "2: [5, 9] [6]" in capsys.readouterr().out
