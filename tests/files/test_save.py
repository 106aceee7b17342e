"""`save`: what is written is read back as it was, whole or not at all, and what no file can hold is refused."""
# ruff: noqa: E501

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.house.refusals import check_refusal
from tests.thorough import examples

import rollkit
from rollkit import Rollouts, concat, iter_chunks, read, save
from rollkit._files.source import File
from rollkit._files.tensors import Tensors
from rollkit._rows.dtypes import numpy_dtype

Ragged: Any = rollkit.Ragged  # offsets may be lists

KINDS = ["arrow", "feather", "ipc", "parquet", "safetensors"]
PLAIN = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
PLAIN += ["float16", "float32", "float64"]
SMALL = ["complex64", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


def needs(kind: str) -> None:
    if kind not in ("safetensors", "jsonl"):
        pytest.importorskip("pyarrow")


def same(a: Rollouts, b: Rollouts) -> bool:
    """Whether rollouts are the same to the bit, and their columns of the same types."""
    return list(a) == list(b) and len(a) == len(b) and all(same_column(a[name], b[name]) for name in a)


def same_column(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return repr(a) == repr(b)
    arrays = (a.flat, b.flat) if isinstance(a, Ragged) else (a, b)
    lengths = (a.lengths.tolist(), b.lengths.tolist()) if isinstance(a, Ragged) else (0, 0)
    x, y = arrays
    return (x.dtype, x.shape, x.tobytes(), lengths[0]) == (y.dtype, y.shape, y.tobytes(), lengths[1])


def check_same(path: Path, rollouts: Rollouts, rows: int = 2) -> None:
    save(rollouts, path)
    found = read(path)
    assert same(found, rollouts)
    assert found.equals(rollouts) or "nan" in repr(rollouts.columns)  # in lists, NaN is no NaN
    chunks = list(iter_chunks(path, rows=rows))
    assert [len(chunk) for chunk in chunks] == [
        min(rows, len(rollouts) - first) for first in range(0, len(rollouts), rows)
    ]
    if chunks:
        assert same(concat(chunks), rollouts)


def random_bits(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Any:
    """Any bits at all, NaN of any payload among them; 0 and 1 where there are no others."""
    wanted = numpy_dtype(dtype)
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, wanted.itemsize), np.uint8)
    return (raw & 1 if dtype == "bool" else raw).view(wanted).reshape(shape)


@pytest.mark.parametrize("dtype", PLAIN + SMALL)
@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_of_every_kind_of_column(tmp_path: Path, kind: str, dtype: str) -> None:
    needs(kind)
    if dtype.startswith(("bfloat", "float8")):
        pytest.importorskip("ml_dtypes")
    offsets = np.array([0, 0, 3, 3, 5])
    columns: dict[str, Any] = {
        "rows": Ragged(random_bits(dtype, (5,)), offsets),
        "inner": Ragged(random_bits(dtype, (5, 2, 3)), offsets),
        "array": random_bits(dtype, (4,)),
        "matrix": random_bits(dtype, (4, 3)),
        "cube": random_bits(dtype, (4, 1, 2)),
    }
    rollouts = Rollouts(columns)
    path = tmp_path / f"a.{kind}"
    if kind != "safetensors" and dtype in SMALL:
        message = f"column 'rows': Arrow has no dtype like {dtype}; cast with .astype first"
        check_refusal(lambda: save(rollouts, path), TypeError, message)
        assert not list(tmp_path.iterdir())
        return
    for part in (rollouts, rollouts[1:3], rollouts[:0], rollouts[0:1]):
        check_same(path, part)


@pytest.mark.parametrize("kind", KINDS)
def test_lists_per_token(tmp_path: Path, kind: str) -> None:
    needs(kind)
    uneven: Any = [[[1, 2], []], [], [[3]], [[], [4, 5, 6]]]
    even: Any = [[[1, 2], [3, 4]], [], [[5, 6]], []]
    rollouts = Rollouts(
        {
            "sampling_masks": uneven,
            "kept_token_ids": even,
            "other": Ragged.from_rows(uneven, np.int64, lists=True),
            "square": Ragged.from_rows(even, np.float32, lists=True),
            "empty": Ragged.from_rows([[[]], [], [], []], np.int16, lists=True),
        }
    )
    path = tmp_path / f"a.{kind}"
    for part in (rollouts, rollouts[1:3], rollouts[:0], rollouts[1:]):
        save(part, path)
        assert read(path).equals(part)
        if len(part):
            assert concat(list(iter_chunks(path, rows=1))).equals(part)


ENTRIES: dict[str, list[Any]] = {
    "text": ["a", "", "é\n\u2028\x00", "🙂"],
    "text and None": ["a", None, None, ""],
    "None": [None] * 4,
    "half of a surrogate pair": ["\ud800", None, "a", ""],
    "bytes": [b"\xff", b"", None, b"a"],
    "dicts": [{"a": 1}, {"b": [1.5, None, {"c": "é"}]}, {}, None],
    "lists of objects": [[{"role": "user"}], [], [None], ["a"]],
    "mixed": [1, "a", None, True],
    "ints and None": [1, None, -(2**63), 2**63 - 1],
    "large ints": [2**70, None, 1, -(2**80)],
    "floats and None": [0.1, None, float("inf"), -0.0],
    "NaN and None": [float("nan"), None, 1e-320, 1.0],
    "ints and floats": [1, 1.0, None, 0.5],
    "bools and None": [True, None, False, True],
}


@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_entry(tmp_path: Path, kind: str, entries: str) -> None:
    needs(kind)
    found = ENTRIES[entries]
    if b"a" in found and kind == "safetensors":
        message = "column 'x': row 0 has a bytes, which JSON does not hold; make it text, a number, a list or a dict"
        check_refusal(lambda: save(Rollouts({"x": found}), tmp_path / "a.safetensors"), TypeError, message)
        return
    rollouts = Rollouts._trusted({"x": found, "y": np.arange(4)})
    for part in (rollouts, rollouts[1:3], rollouts[:0], rollouts[2:3]):
        check_same(tmp_path / f"a.{kind}", part)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def rollouts(draw: st.DrawFn) -> Rollouts:
    count = draw(st.integers(0, 6))
    columns: dict[str, Any] = {}
    for name in draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=4), max_size=5, unique=True)):
        kind = draw(st.sampled_from(["rows", "array", "text", "objects"]))
        inner = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
        dtype, seed = draw(st.sampled_from(PLAIN)), draw(st.integers(0, 99))
        if kind == "rows":
            lengths = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
            before = draw(st.integers(0, 3))  # a slice: values that no row has
            offsets = before + np.append(0, np.cumsum(lengths, dtype=np.int64))
            columns[name] = Ragged(random_bits(dtype, (int(offsets[-1]) + 1, *inner), seed), offsets)
        elif kind == "array":
            columns[name] = random_bits(dtype, (count, *inner), seed)
        else:
            entry = JSON if kind == "objects" else st.none() | st.text(st.characters(codec="utf-8"))
            columns[name] = draw(st.lists(entry, min_size=count, max_size=count))
    return Rollouts._trusted(columns)


@settings(max_examples=examples(300), deadline=None)
@given(rollouts(), st.sampled_from(["arrow", "parquet", "safetensors"]), st.integers(1, 4))
def test_rollouts_come_back(
    tmp_path_factory: pytest.TempPathFactory, found: Rollouts, kind: str, rows: int
) -> None:
    needs(kind)
    check_same(tmp_path_factory.getbasetemp() / f"come_back.{kind}", found, rows)


@pytest.mark.parametrize("kind", ["arrow", "parquet", "safetensors", "jsonl"])
def test_columns_and_names_of_what_was_saved(tmp_path: Path, kind: str) -> None:
    needs(kind)
    path = tmp_path / f"a.{kind}"
    save(Rollouts({"response_ids": [[1], [2]], "theirs": [[0.5], [1.5]], "x": ["a", None]}), path)
    for call in (read, lambda *a, **o: concat(list(iter_chunks(*a, rows=1, **o)))):
        assert list(call(path, columns=["x"])) == ["x"]
        found = call(path, columns=["rollout_logprobs", "x"], rename={"theirs": "rollout_logprobs"})
        assert set(found) == {"rollout_logprobs", "x"}
        for options in ({"columns": ["y"]}, {"rename": {"y": "z"}}):
            with pytest.raises(ValueError, match=r"no column 'y'"):
                call(path, **options)


def test_others_read_it(tmp_path: Path) -> None:
    numpy_files = pytest.importorskip("safetensors.numpy")
    rows = Ragged(np.arange(6, dtype=np.int32), [0, 2, 5])[1:]
    save(Rollouts({"x": rows, "t": [{"a": 1}], "n": np.array([2.0])}), tmp_path / "a.safetensors")
    found = numpy_files.load_file(tmp_path / "a.safetensors")
    assert {name: array.tolist() for name, array in found.items()} == {
        "columns.x.values": [2, 3, 4],
        "columns.x.offsets": [0, 3],
        "columns.t.json": list(b'[{"a":1}]'),
        "columns.n.array": [2.0],
    }


def test_arrow_reads_text_and_numbers_as_its_own(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    save(Rollouts({"x": [[1, 2], [3]], "t": ["a", None], "n": [1.5, None]}), tmp_path / "a.parquet")
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == [
        {"x": [1, 2], "t": "a", "n": 1.5},
        {"x": [3], "t": None, "n": None},
    ]


def test_a_slice_is_saved_without_what_it_leaves_out(tmp_path: Path) -> None:
    rows = Ragged(np.zeros(10**6), np.arange(0, 10**6 + 1, 1000))
    for kind in ("arrow", "safetensors"):
        needs(kind)
        save(Rollouts({"x": rows})[5:6], tmp_path / f"a.{kind}")
        assert (tmp_path / f"a.{kind}").stat().st_size < 20_000


def test_large_files_are_of_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    from rollkit._files import arrow

    monkeypatch.setattr(arrow, "_BATCH", 1000)
    rollouts = Rollouts({"x": np.arange(1000), "t": [str(i) for i in range(1000)]})
    for kind in ("arrow", "parquet"):
        path = tmp_path / f"a.{kind}"
        save(rollouts, path)
        assert same(read(path), rollouts)
        lengths = [len(chunk) for chunk in iter_chunks(path, rows=10**6)]
        assert sum(lengths) == 1000
        assert len(lengths) > 5 or kind == "parquet"


# JSONL.


def test_lines_have_every_digit(tmp_path: Path) -> None:
    rollouts = Rollouts(
        {
            "response_ids": [[1, 2], [], [3]],
            "rollout_logprobs": [[-0.1, 1e-45], [], [-3.4028234e38]],
            "x": [[0.1, 5e-324], [], [1.0]],
            "f": [1.0, -0.0, 2.0**70],
            "text": ["a\n", None, "\u2028"],
            "notes": [{"a": [1, None]}, [], None],
            "routes": Ragged(np.arange(12).reshape(3, 2, 2), [0, 2, 2, 3]),
        }
    )
    for kind in ("jsonl", "ndjson", "json"):
        check_same(tmp_path / f"a.{kind}", rollouts)
    lines = (tmp_path / "a.jsonl").read_text().split("\n")
    assert json.loads(lines[0])["x"] == [0.1, 5e-324]
    assert len(lines) == 4


@settings(max_examples=examples(200), deadline=None)
@given(rollouts())
def test_lines_are_right_or_refused(tmp_path_factory: pytest.TempPathFactory, found: Rollouts) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.unlink(missing_ok=True)
    with suppress(TypeError, ValueError):
        save(found, path)
        assert read(path).equals(found)
        return
    with pytest.raises((TypeError, ValueError)) as caught:
        save(found, path)
    assert caught.value.column in found  # type: ignore[attr-defined]
    assert not path.exists()


# What is refused.

SHORT = Rollouts({"x": [[1], [2]]})
DEEP: Any = [1]
for _ in range(5000):
    DEEP = [DEEP]

# fmt: off
REFUSED: list[tuple[dict[str, Any], str, type[Exception], str]] = [
    ({"x": np.array(["a"])}, "arrow", TypeError, "column 'x': an array of <U1 is not saved; a list is (.tolist())"),
    ({"x": np.array(["2026"], "M8[s]")}, "arrow", TypeError, "column 'x': Arrow has no dtype like datetime64[s]; cast with .astype first"),
    ({"x": np.zeros(1, np.longdouble)}, "safetensors", TypeError, f"column 'x': safetensors has no dtype like {np.dtype(np.longdouble)}; cast with .astype first"),
    ({"x": np.zeros(1, ">i4")}, "safetensors", TypeError, "column 'x': safetensors has no dtype like >i4; cast with .astype first"),
    ({"x": Ragged(np.zeros((1, 0)), [0, 1])}, "arrow", ValueError, "column 'x': Arrow has no lists of inner shape (0,); inner dimensions must be 1 or more"),
    ({"x": [{"a": (1,)}]}, "arrow", TypeError, "column 'x': row 0 has a tuple, which JSON does not hold; make it text, a number, a list or a dict"),
    ({"x": [None, {1: 2}]}, "safetensors", TypeError, "column 'x': row 1 has the key 1, a int, which JSON does not hold; make it text, a number, a list or a dict"),
    ({"x": [{"a": np.float64(1)}]}, "parquet", TypeError, "column 'x': row 0 has a float64, which JSON does not hold; make it text, a number, a list or a dict"),
    ({"x": [{"a": DEEP}]}, "safetensors", TypeError, "column 'x': row 0 has an entry of more levels, which JSON does not hold; make it text, a number, a list or a dict"),
    ({"x": [[1], [2]]}, "arrow.gz", ValueError, "{path}: unknown kind of file '.gz'; expected .arrow, .feather, .ipc, .parquet, .safetensors, .jsonl, .ndjson, .json; compress the file afterwards"),
    ({"x": [[1], [2]]}, "txt", ValueError, "{path}: unknown kind of file '.txt'; expected .arrow, .feather, .ipc, .parquet, .safetensors, .jsonl, .ndjson, .json"),
    ({"x": np.array([1], np.int16)}, "jsonl", TypeError, "column 'x': JSONL has no place for it as it is (ndarray of int16, read back as ndarray of int64); save as .arrow, .parquet or .safetensors"),
    ({"x": Ragged(np.array([0.5, np.nan, np.inf], np.float32), [0, 1, 3])}, "jsonl", ValueError, "column 'x': row 1 is NaN or infinite, which JSON does not have; save as .arrow, .parquet or .safetensors"),
    ({"x": np.array([0x7F800001], np.uint32).view(np.float32)}, "jsonl", ValueError, "column 'x': row 0 is NaN or infinite, which JSON does not have; save as .arrow, .parquet or .safetensors"),
    ({"x": [{"a": float("nan")}]}, "jsonl", TypeError, "column 'x': row 0 has nan, which JSON does not hold; make it text, a number, a list or a dict"),
]
# fmt: on


@pytest.mark.parametrize(
    ("columns", "kind", "error", "message"), REFUSED, ids=[case[3][:50] for case in REFUSED]
)
def test_refused(
    tmp_path: Path, columns: dict[str, Any], kind: str, error: type[Exception], message: str
) -> None:
    needs(kind)
    path = tmp_path / f"a.{kind}"
    path.write_text("what was there")
    rollouts = Rollouts._trusted(columns)
    check_refusal(lambda: save(rollouts, path), error, message.replace("{path}", str(path)))
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "what was there"


def test_what_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for scheme in ("s3", "https", "file"):
        url = f"{scheme}://bucket/a.safetensors"
        message = (
            f"{url}: URLs of {scheme} are not taken here; copy the file here first, or write to a folder"
        )
        check_refusal(lambda url=url: save(SHORT, url), ValueError, message)  # type: ignore[misc]
    (tmp_path / "b.jsonl").mkdir()
    message = "b.jsonl: there is something that is no file; choose another name"
    check_refusal(lambda: save(SHORT, "b.jsonl"), ValueError, message)
    if hasattr(os, "mkfifo"):
        os.mkfifo("c.jsonl")
        with pytest.raises(ValueError, match="something that is no file"):
            save(SHORT, "c.jsonl")
    with pytest.raises(FileNotFoundError) as caught:
        save(SHORT, "none/a.jsonl")
    assert caught.value.filename == "none/a.jsonl"
    with pytest.raises(TypeError, match="rollouts must be Rollouts"):
        save(5, "a.jsonl")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a path, got int"):
        save(SHORT, 5)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) in (["b.jsonl"], ["b.jsonl", "c.jsonl"])


def test_values_on_a_device_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    rows = Ragged(torch.zeros(2, requires_grad=True), [0, 2])
    message = "column 'x': its values are of torch; take them to the host first (.detach().cpu())"
    for kind in ("arrow", "safetensors", "jsonl"):
        check_refusal(lambda k=kind: save(Rollouts({"x": rows}), tmp_path / f"a.{k}"), TypeError, message)  # type: ignore[misc]


# Whole or not at all.


@pytest.mark.parametrize("kind", ["arrow", "parquet", "safetensors", "jsonl"])
@pytest.mark.parametrize("error", [(OSError, 28, "No space left on device"), (KeyboardInterrupt,)])
@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_what_fails_on_the_way_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: Any, place: str
) -> None:
    needs(kind)
    path = tmp_path / f"a.{kind}"
    save(SHORT, path)
    before = path.read_bytes()

    def failing(*_: object) -> None:
        raise error[0](*error[1:])

    with monkeypatch.context() as patch:
        patch.setattr(os, place, failing)
        with pytest.raises(error[0]) as caught:
            save(Rollouts({"x": [[3]]}), path)
    if isinstance(caught.value, OSError) and place == "fsync":
        assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == before
    save(Rollouts({"x": [[3]]}), path)
    assert len(read(path)) == 1


def test_the_bytes_are_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def noted(*arguments: Any) -> Any:
            done.append(name)
            return original(*arguments)

        return noted

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noting(name))
    save(SHORT, tmp_path / "a.safetensors")
    assert done[:2] == ["fsync", "replace"]


@pytest.mark.skipif(os.name == "nt", reason="links and modes of POSIX")
def test_a_link_stays_one_and_a_mode_is_kept(tmp_path: Path) -> None:
    place, link = tmp_path / "real" / "a.jsonl", tmp_path / "link.jsonl"
    place.parent.mkdir()
    save(SHORT, place)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(place.stat().st_mode) == 0o666 & ~umask
    place.chmod(0o640)
    link.symlink_to(place)
    save(Rollouts({"x": [[7]]}), link)
    assert link.is_symlink()
    assert stat.S_IMODE(place.stat().st_mode) == 0o640
    assert read(place).ragged("x").to_list() == [[7]]


# Damage.


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def with_header(header: dict[str, Any], rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def saved(path: Path) -> bytes:
    rollouts = Rollouts({"x": [[1], [2, 3]], "t": ["a", None], "n": np.arange(2)})
    save(rollouts, path)
    return path.read_bytes()


DAMAGED: list[tuple[str, Any, str]] = [
    ("rollkit", None, "it has no header of rollkit.save"),
    ("rollkit", {"format": 1}, "saved is missing"),
    ("rollkit", {"saved": 9, "rows": 2, "columns": {}}, "format 9; this rollkit reads 1"),
    ("rollkit", {"saved": 1, "rows": 2, "columns": {"y": "array"}}, "columns.y.array is missing"),
    ("rollkit", {"saved": 1, "rows": 2, "columns": {"x": "text"}}, "column 'x' is of kind 'text'"),
    ("rollkit", {"saved": 1, "rows": 3, "columns": {"n": "array"}}, "column 'n' does not have 3 rows"),
    ("rollkit", {"saved": 1, "rows": 3, "columns": {"x": "values"}}, "column 'x' does not have 3 rows"),
    ("rollkit", {"saved": 1, "rows": 3, "columns": {"t": "json"}}, "column 't' does not have 3 rows"),
    (
        "columns.n.array",
        {"dtype": "I64", "shape": [], "data_offsets": [0, 8]},
        "column 'n' does not have 2 rows",
    ),
    (
        "columns.x.offsets",
        {"dtype": "I32", "shape": [3], "data_offsets": [0, 12]},
        "column 'x' does not have",
    ),
    ("columns.x.values", {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}, "column 'x' does not have"),
    ("columns.t.json", {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}, "column 't' does not have"),
]


@pytest.mark.parametrize(("name", "value", "said"), DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_named(tmp_path: Path, name: str, value: Any, said: str) -> None:
    path = tmp_path / "a.safetensors"
    header, rest = header_of(saved(path))
    if name == "rollkit":
        header["__metadata__"] = {} if value is None else {"rollkit": json.dumps(value)}
    else:
        header[name] = value
    path.write_bytes(with_header(header, rest))
    for call in (lambda: read(path), lambda: list(iter_chunks(path, rows=1))):
        with pytest.raises(ValueError, match="not rollouts that rollkit wrote: ") as caught:
            call()
        assert str(caught.value).startswith(f"{path}: not rollouts that rollkit wrote: ")
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@settings(max_examples=examples(200), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 2000),
)
def test_garbage_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.safetensors"
    data = bytearray(saved(path))
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data[:size])
    with suppress(ValueError):
        read(path)
        return
    with pytest.raises(ValueError, match=r"garbage\.safetensors: "):
        read(path)


def test_parts_of_tensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(Rollouts({"n": np.arange(24).reshape(6, 4)}), path)
    with Tensors(File(path), "rollouts") as file:
        assert list(file.names()) == ["columns.n.array"]
        np.testing.assert_array_equal(file.read("columns.n.array", 2, 5), np.arange(24).reshape(6, 4)[2:5])


def test_a_shard_is_no_file_of_rollouts(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    from rollkit._files.stream import Options, write_shards

    save(SHORT.with_columns(response_ids=[[1], [2]]), tmp_path / "a.safetensors")
    write_shards(
        [tmp_path / "a.safetensors"], tmp_path / "out", Options(capacity=4, levels={"x": "response"})
    )
    with pytest.raises(ValueError, match="not rollouts that rollkit wrote: saved is missing"):
        read(tmp_path / "out" / "shard-00000.safetensors")
    with pytest.raises(ValueError, match="a folder of packed shards, and no rollouts"):
        read(tmp_path / "out")
