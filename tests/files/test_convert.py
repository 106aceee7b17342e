"""`rollkit convert`: what it writes in chunks is what all rows at once make, whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.files.test_save import rollouts, same
from tests.thorough import by_level, examples

from rollkit import Ragged, Rollouts, read, save
from rollkit._cli import main
from rollkit._files.convert import convert
from rollkit._files.paths import sources
from rollkit._files.read import Reading, read_sources
from rollkit._files.source import File
from rollkit._files.stream import no_rollouts
from rollkit._files.uniform import Uniform, conformed

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

KINDS = ["arrow", "parquet", "jsonl", "safetensors"]
ERRORS = (TypeError, ValueError, OverflowError)


def alike(a: Rollouts, b: Rollouts) -> bool:
    """Whether rollouts are the same to the bit."""
    lists = [name for name, column in a.items() if isinstance(column, Ragged) and column.of_lists]
    plain = [name for name in a if name not in lists]
    if list(a) != list(b) or not same(a.select(*plain), b.select(*plain)):
        return False
    return a.select(*lists).equals(b.select(*lists))


def outcome(write: Callable[[Path], object], path: Path) -> Any:
    """What is read of a file, and its schema; or what is said of what cannot be written."""
    path.unlink(missing_ok=True)
    try:
        write(path)
    except ERRORS as error:
        assert not [left for left in path.parent.iterdir() if left.name.startswith(".rollkit")]
        assert not path.exists()
        return type(error), str(error).replace(str(path), "PATH")
    schema = None
    if path.suffix == ".arrow":
        schema = pa.ipc.open_file(path).schema
    if path.suffix == ".parquet":
        schema = parquet.read_schema(path)
    return read(path), schema, path.read_bytes() if schema is None else None


def check_same(
    paths: Sequence[Path], out: Path, rows: int, how: Reading | None = None, *, words: bool = True
) -> Any:
    """Compare with what all rows at once make."""
    how = Reading() if how is None else how
    given = sources(list(paths))

    def at_once(path: Path) -> None:
        found = read_sources(given, how)
        if not found.columns:
            raise no_rollouts(given)
        save(found, path)

    wanted = outcome(at_once, out)
    found = outcome(lambda path: convert(given, path, how, rows=rows), out)
    if isinstance(wanted[0], Rollouts):
        assert isinstance(found[0], Rollouts), found
        assert alike(found[0], wanted[0]), (found[0].columns, wanted[0].columns)
        if wanted[1] is not None:
            assert found[1].equals(wanted[1], check_metadata=True)
        assert found[2] == wanted[2]
    elif words:
        assert found == wanted
    else:
        assert not isinstance(found[0], Rollouts), (found, wanted)
    return found


# JSONL, whose columns are what their values say.

SCALARS = [0, 1, 2**53 + 1, -(2**63), 0.5, 1.0, 1e300, True, False, None, "", "é", "a"]
ARRAYS = [[], [1], [1, 2], [0.5], [1, 2.5], [True], [[1, 2]], [[1, 2], [3, 4]], [[1], [2, 3]], [[]], ["a"]]
ARRAYS += [[1, True], [[], []], [[0.5, 1]], [{"a": 1}], [None], [1, None]]
OBJECTS = [{}, {"a": [1, 2.5]}, {"b": None}]
NAN = float("nan")
FAMILIES: list[list[Any]] = [
    [0, 1, 2**53 + 1, -5],
    [0, 2, 0.5, 1.0, 2**53 + 1],
    [0, None, 2.5],
    [None],
    [True, False, None],
    ["", "é", None],
    [[], [1], [1, 2]],
    [[], [1, 2**53 + 1], [0.5]],
    [[], [[1, 2]], [[3, 4], [5, 6]]],
    [[], None],
    [[], [True], [1, True], [0.5, True]],
    [{}, 1, "a", [1, 2.5], 2.5, None, [], 2**70],
    [["a"], [1], [], None, {"a": 1}, 5, 0.5],
    [[[1], [2, 3]], [[1]], [], [[]], [[2.5]]],
    [NAN, 1, 1.5, None],
    [[NAN, 1], [1], [2.5], []],
    [[None, 1], [1], []],
    [{}, NAN, [NAN, 1]],
    SCALARS + ARRAYS + OBJECTS,
]
MISSING = "missing"


@st.composite
def lines(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """Rows of several files."""
    known = ["response_ids", "rollout_logprobs", "rewards", "sampling_masks", "is_last_step"]
    names = draw(st.lists(st.sampled_from(["x", "y", "z", *known]), min_size=1, max_size=3, unique=True))
    values = {
        name: draw(st.sampled_from(FAMILIES)) + ([MISSING] if draw(st.integers(0, 4)) == 0 else [])
        for name in names
    }
    files = draw(st.lists(st.integers(0, 6), min_size=1, max_size=2))
    rows = []
    for count in files:
        row = st.fixed_dictionaries({name: st.sampled_from(values[name]) for name in names})
        found = draw(st.lists(row, min_size=count, max_size=count))
        rows.append([{k: v for k, v in row.items() if v != MISSING} for row in found])
    return rows


@settings(max_examples=examples(800), deadline=None)
@given(
    lines(),
    st.sampled_from(KINDS),
    st.integers(1, 4),
    st.sampled_from(["raise", "keep", "null"]),
    st.sampled_from([None, ["x"], ["y", "response_ids"]]),
)
def test_lines_in_chunks_are_what_they_are_at_once(
    tmp_path_factory: pytest.TempPathFactory,
    found: list[list[dict[str, Any]]],
    kind: str,
    rows: int,
    nonfinite: str,
    columns: list[str] | None,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "lines"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.jsonl" for i in range(len(found))]
    for path, file in zip(paths, found, strict=True):
        path.write_text("".join(f"{json.dumps(row)}\n" for row in file))
    # Of several faults the first in the order of rows is told, and all rows of a chunk may be None.
    words = {name for file in found for row in file for name in row} in ({"x"}, {"y"}, {"z"})
    check_same(paths, folder / f"out.{kind}", rows, Reading("raise", nonfinite, columns), words=words)


@settings(max_examples=examples(400), deadline=None)
@given(
    st.lists(rollouts(), min_size=1, max_size=2),
    st.sampled_from(KINDS),
    st.sampled_from(KINDS),
    st.integers(1, 4),
    st.booleans(),
)
def test_saved_rollouts_in_chunks_are_what_they_are_at_once(
    tmp_path_factory: pytest.TempPathFactory,
    found: list[Rollouts],
    source: str,
    kind: str,
    rows: int,
    rename: bool,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "saved"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.{source}" for i in range(len(found))]
    for path, file in zip(paths, [found[0], found[0][:2] if rename else found[-1]], strict=False):
        try:
            save(file, path)
        except ERRORS:  # what JSONL does not hold
            return
    # What is renamed is looked at anew, as a user's own column is.
    names = {name: f"{name}_" for name in list(found[0])[:1]} if rename else {}
    check_same(
        paths,
        folder / f"out.{kind}",
        rows,
        Reading(rename=names),
        words=len(found) == len(found[0].columns) == 1,
    )


# Arrow, whose columns have types.

TYPES: list[tuple[Any, list[Any]]] = [
    (pa.int64(), [1, 2**53 + 1, -1]),
    (pa.int32(), [1, None]),
    (pa.uint64(), [2**63, 1]),
    (pa.uint64(), [2**63, 1, None]),
    (pa.float32(), [0.5, None, float("nan")]),
    (pa.bool_(), [True, False, None]),
    (pa.string(), ["", "é", None]),
    (pa.binary(), [b"", b"\xff", None]),
    (pa.null(), [None]),
    (pa.decimal128(9, 0), [1, 2]),
    (pa.decimal128(9, 2), [1, None]),
    (pa.list_(pa.int16()), [[], [1], [1, 2]]),
    (pa.list_(pa.int16()), [[], [1], None]),
    (pa.list_(pa.decimal128(9, 1)), [[], [1], [1, 2]]),
    (pa.list_(pa.int16(), 2), [[1, 2], [3, 4]]),
    (pa.list_(pa.list_(pa.int32())), [[], [[1, 2]], [[1, 2], [3, 4]]]),
    (pa.list_(pa.list_(pa.int32())), [[], [[1, 2]], [[1, 2, 3]]]),
    (pa.list_(pa.string()), [[], ["a"], None]),
    (pa.list_(pa.string()), [[], ["a", None]]),
    (pa.list_(pa.null()), [[]]),
    (pa.list_(pa.struct([("a", pa.int8())])), [[], [{"a": 1}]]),
    (pa.struct([("a", pa.list_(pa.int8()))]), [{"a": [1]}, {"a": None}, None]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", "b", None]),
    (pa.dictionary(pa.int8(), pa.int64()), [1, 2]),
    (pa.dictionary(pa.int8(), pa.int64()), [1, 2, None]),
    (pa.list_(pa.dictionary(pa.int8(), pa.int64())), [[], [1], [1, 2]]),
    (pa.list_(pa.dictionary(pa.int8(), pa.int64())), [[], [1], [None]]),
    (pa.timestamp("us"), [0, None]),
    (pa.duration("us"), [0]),
]


@st.composite
def tables(draw: st.DrawFn) -> list[Any]:
    """Tables of one schema, or of two."""
    names = draw(st.lists(st.sampled_from(["x", "y", "rewards", "response_ids"]), min_size=1, unique=True))
    found = []
    schema = {name: draw(st.sampled_from(TYPES)) for name in names}
    for count in draw(st.lists(st.integers(0, 6), min_size=1, max_size=2)):
        if draw(st.integers(0, 5)) == 0:
            schema[names[0]] = draw(st.sampled_from(TYPES))
        columns = {}
        for name, (kind, values) in schema.items():
            entries = draw(st.lists(st.sampled_from(values), min_size=count, max_size=count))
            columns[name] = pa.array(entries, kind)
        found.append(pa.table(columns))
    return found


@settings(max_examples=examples(800), deadline=None)
@given(
    tables(),
    st.sampled_from(["arrow", "parquet"]),
    st.sampled_from(KINDS),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_tables_in_chunks_are_what_they_are_at_once(
    tmp_path_factory: pytest.TempPathFactory, found: list[Any], source: str, kind: str, rows: int, batch: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "tables"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.{source}" for i in range(len(found))]
    for path, table in zip(paths, found, strict=True):
        if source == "parquet":
            parquet.write_table(table, path, row_group_size=batch)
        else:
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=batch)
    check_same(paths, folder / f"out.{kind}", rows, words=False)


# What is refused, and by which words.

LINES = '{"x": 1}\n{"x": 2}\n{"x": 3}\n'

# fmt: off
# ruff: noqa: E501
REFUSED: list[tuple[list[str], str, str]] = [
    ([LINES + '{"x": "a"}\n'], "a.arrow", "0.jsonl:4: x: expected a number as in the rows before, found a string"),
    ([LINES + "{}\n" * 4 + '{"y": [1]}\n'], "a.arrow", "0.jsonl:8: y: missing or null; a column of arrays needs an array in every row"),
    (['{"y": [1]}\n' * 4 + "{}\n"], "a.arrow", "0.jsonl:5: y: missing or null; a column of arrays needs an array in every row"),
    ([LINES, '{"y": 1}\n'], "a.arrow", "1.jsonl: differs in columns from 0.jsonl: 'x', 'y'; columns=[…] leaves them out"),
    ([LINES, '{"x": [1]}\n'], "a.arrow", "column 'x': has rows of elements in 1.jsonl, one entry per row in 0.jsonl"),
    (['{"x": [[1]]}\n', '{"x": [[1, 2]]}\n'], "a.arrow", "column 'x': 1.jsonl has inner shape (2,), 0.jsonl has (1,)"),
    ([LINES, '{"x": "a"}\n'], "a.arrow", "column 'x' is list in some parts and ndarray in others"),
    ([LINES + '{"x": null}\n{"x": [NaN]}\n'], "a.arrow", "0.jsonl:5: x: "),
    (['{"is_last_step": true}\n' * 4 + "{}\n"], "a.arrow", "0.jsonl:5: column 'is_last_step': this row: None is no number"),
    (["{}\n" * 4 + '{"is_last_step": true}\n'], "a.arrow", "0.jsonl:1: column 'is_last_step': this row: None is no number"),
    ([LINES + "{\n"], "a.parquet", "0.jsonl:4: "),
]
# fmt: on


@pytest.mark.parametrize(("files", "out", "said"), REFUSED, ids=range(len(REFUSED)))
def test_refused_as_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], out: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [Path(f"{i}.jsonl") for i in range(len(files))]
    for path, text in zip(paths, files, strict=True):
        path.write_text(text)
    Path(out).write_text("what was there")
    for rows in (1, 2, 3, 100):
        with pytest.raises(ERRORS) as caught:
            convert(sources(list(paths)), Path(out), Reading(), rows=rows)
        assert str(caught.value).startswith(said)
        with pytest.raises(ERRORS) as wanted:
            read(paths)
        assert (str(caught.value), type(caught.value)) == (str(wanted.value), type(wanted.value))
    assert Path(out).read_text() == "what was there"
    assert sorted(tmp_path.iterdir()) == sorted(tmp_path / name for name in (*map(str, paths), out))


def test_a_row_that_a_kind_does_not_hold_is_counted_from_the_first(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([[("a", 1)]] * 5, pa.map_(pa.string(), pa.int8()))})
    parquet.write_table(table, tmp_path / "a.parquet")
    for kind in KINDS:
        with pytest.raises(TypeError, match=r"column 'x': row 0 has a tuple, which JSON does not hold"):
            convert(sources(tmp_path / "a.parquet"), tmp_path / f"b.{kind}", Reading(), rows=2)
    lists = Rollouts._trusted({"x": ["a", b"a", "b", b"\xff", 5]})
    with pytest.raises(TypeError, match="row 1 has a bytes"):
        save(lists, tmp_path / "a.arrow")
    save(Rollouts({"x": [0.5] * 4 + [float("nan")]}), tmp_path / "a.arrow")
    with pytest.raises(ValueError, match=r"column 'x': row 4 is NaN or infinite"):
        convert(sources(tmp_path / "a.arrow"), tmp_path / "b.jsonl", Reading(), rows=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.arrow", "a.parquet"]


def test_lines_are_checked_to_read_back(tmp_path: Path) -> None:
    save(
        Rollouts._trusted({"y": [1] * 5, "x": [2**53 + 1, None, None, None, 0.5]}), tmp_path / "a.safetensors"
    )
    for rows in (1, 2, 9):
        with pytest.raises(TypeError, match="column 'y': JSONL has no place for it as it is") as caught:
            convert(sources(tmp_path / "a.safetensors"), tmp_path / "b.jsonl", Reading(), rows=rows)
        how = Reading(columns=["x"])  # numbers are floats with a float among them, which lacks a digit
        with pytest.raises(TypeError, match=r"column 'x': .*\(a list, read back as a list\)"):
            convert(sources(tmp_path / "a.safetensors"), tmp_path / "b.jsonl", how, rows=rows)
    assert caught.value.column == "y"  # type: ignore[attr-defined]
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


# Sources.


def test_a_source_that_changes_between_the_readings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)
    found = Uniform(File(path), 2, Reading())
    path.write_text(LINES + '{"x": 0.5}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl: changed while it was read"):
        list(found.chunks())
    monkeypatch.setattr(File, "state", lambda _: ("a URL's",))  # which is the same whatever the bytes are
    found = Uniform(File(path), 2, Reading())
    path.write_text(LINES + '{"x": "a"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:\d: x: expected a number"):
        list(found.chunks())
    path.write_text('{"y": 0.5}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl: changed while it was read"):
        [conformed(chunk, found.sample, found.source) for chunk in found.chunks()]


def test_a_file_may_take_its_own_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n{"x": 1.5}\n')
    assert convert(sources(path), path, Reading(), rows=1) == 2
    assert path.read_text() == '{"x":1.0}\n{"x":1.5}\n'


def test_a_mark_of_byte_order_and_compressed_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + LINES.encode()))
    convert(sources(tmp_path / "a.jsonl.gz"), tmp_path / "b.safetensors", Reading(), rows=1)
    assert read(tmp_path / "b.safetensors")["x"].tolist() == [1, 2, 3]  # type: ignore[union-attr]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
def test_a_pipe_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    os.mkfifo(tmp_path / "a.jsonl")
    with ThreadPoolExecutor() as pool:
        pool.submit((tmp_path / "a.jsonl").write_text, LINES)
        assert convert(sources(tmp_path / "a.jsonl"), tmp_path / "b.arrow", Reading(), rows=2) == 3
        pool.submit((tmp_path / "a.jsonl").write_text, LINES + "{\n")
        with pytest.raises(ValueError, match=r"/a\.jsonl:4: "):
            convert(sources(tmp_path / "a.jsonl"), tmp_path / "b.arrow", Reading(), rows=2)
    assert read(tmp_path / "b.arrow")["x"].tolist() == [1, 2, 3]  # type: ignore[union-attr]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.arrow"]


def test_files_without_rows(tmp_path: Path) -> None:
    save(Rollouts({"x": np.zeros(0, np.int16)}), tmp_path / "a.arrow")
    for kind in KINDS[:2]:
        assert convert(sources(tmp_path / "a.arrow"), tmp_path / f"b.{kind}", Reading()) == 0
        assert read(tmp_path / f"b.{kind}")["x"].dtype == np.int16  # type: ignore[union-attr]
    with pytest.raises(TypeError, match="JSONL has no place"):
        convert(sources(tmp_path / "a.arrow"), tmp_path / "b.jsonl", Reading())


def test_progress_is_shown_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text(LINES)
    arguments = ["convert", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), "--chunk-rows", "2"]
    for terminal, more in ((True, []), (True, ["--quiet"]), (False, [])):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        assert main([*arguments, *more]) == 0
        shown = capsys.readouterr().err
        for label in ("reading a.jsonl: 0 chunks", "writing b.jsonl: 0 chunks", "checking b.jsonl: 0 chunks"):
            assert (label in shown) == (terminal and not more)
        assert not shown or shown.endswith("\r")


# Whole or not at all.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [(OSError, 28, "No space left on device"), (KeyboardInterrupt,)])
@pytest.mark.parametrize("chunk", [0, 2])
def test_what_fails_on_the_way_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: Any, chunk: int
) -> None:
    path, out = tmp_path / "a.jsonl", tmp_path / f"b.{kind}"
    path.write_text(LINES)
    out.write_text("what was there")

    def failing(items: Iterable[Any], label: str, total: int | None) -> Iterator[Any]:
        for number, item in enumerate(items):
            if label == f"writing {out.name}" and number == chunk:
                raise error[0](*error[1:])
            yield item

    with pytest.raises(error[0]) as caught:
        convert(sources(path), out, Reading(), rows=1, watch=failing)
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(out)
    assert sorted(left.name for left in tmp_path.iterdir()) == ["a.jsonl", out.name]
    assert out.read_text() == "what was there"


KILLED = """
import os, signal, sys
from rollkit._files import convert
from rollkit._cli import main
number = int(sys.argv[1])
def watch(items, label, total):
    for i, item in enumerate(items):
        if label.startswith("writing") and i == 1:
            os.kill(os.getpid(), number)
        yield item
written = convert._in_chunks
convert._in_chunks = lambda *a: written(*a[:-1], watch)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["parquet", "safetensors"])
def test_a_signal_leaves_what_was_there(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    """Also of the copy of the standard input, and of what is written beside the file."""
    (tmp_path / "tmp").mkdir()
    out = tmp_path / f"b.{kind}"
    out.write_text("what was there")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(int(number)), "convert", "-", str(out), "--chunk-rows", "1"],
        input=LINES.encode(),
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == (130 if number == signal.SIGINT else 143), done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == [out.name, "tmp"]
    assert out.read_text() == "what was there"


# Memory.

PAIRS = [("parquet", "safetensors"), ("jsonl", "parquet"), ("safetensors", "arrow"), ("arrow", "jsonl")]
MOST = """
import sys
from pathlib import Path
from rollkit._files import arrow
from rollkit._files.convert import convert
from rollkit._files.paths import sources
from rollkit._files.read import Reading
arrow._PART = 1 << 20
small, large, out = map(Path, sys.argv[1:])
def most():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
convert(sources([small] * 12), large, Reading(), rows=64)
convert(sources([small] * 3), out, Reading(), rows=64)  # what is kept for good is there now
before = most()
convert(sources(large), out, Reading(), rows=64)
print(most() - before)
"""
"""In a process of its own, for what other tests have freed may be resident."""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the most that was resident")
@pytest.mark.parametrize(("source", "kind"), PAIRS[: by_level(2, 4)])
def test_memory_does_not_grow_with_the_files(tmp_path: Path, source: str, kind: str) -> None:
    """All rows are 48 MB, and more as lines; what a quarter takes is there before."""
    rows, tokens = 500, 1000
    values = np.random.default_rng(0).integers(0, 2**60, rows * tokens)
    found: Any = {
        "x": Ragged(values, np.arange(rows + 1) * tokens),
        "text": [f"{i:0100}" for i in range(rows)],
    }
    small = tmp_path / f"small.{source}"
    save(Rollouts(found), small)
    done = subprocess.run(
        [sys.executable, "-c", MOST, small, tmp_path / f"large.{source}", tmp_path / f"out.{kind}"],
        env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},  # other pools keep what is freed
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 36 << 20  # what three quarters are at once, without any text
