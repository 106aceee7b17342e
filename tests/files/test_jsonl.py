"""JSONL into columns, against `json.loads`."""

from __future__ import annotations

import gc
import gzip
import io
import json
import mmap
import re
import shutil
import subprocess
import threading
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.paths import SHARED

from rollkit import _native

TAU = SHARED / "tau_airline.jsonl"
HINTS = {
    "prompt_token_ids": np.int32,
    "response_ids": np.int32,
    "loss_masks": np.uint8,
    "rollout_logprobs": np.float32,
}


def parse(lines: str | bytes, **options: Any) -> tuple[int, int, dict[str, Any]]:
    data = lines.encode() if isinstance(lines, str) else lines
    options.setdefault("hints", {})
    return _native.parse_jsonl(np.frombuffer(data, np.uint8), **options)


def columns(lines: str | bytes, **options: Any) -> dict[str, Any]:
    return parse(lines, **options)[2]


def rows(column: Any) -> list[Any]:
    """A column as a list of what `json.loads` makes of its values."""
    if isinstance(column, tuple):
        values, offsets = column
        return [values[a:b].tolist() for a, b in pairwise(offsets)]
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def test_kinds_of_columns() -> None:
    found = columns(
        '{"ids": [1, 2], "routes": [[[1, 2]], [[3, 4]]], "done": [true], "reward": 1, "ok": true,'
        ' "text": "a", "info": {"k": [1, "x"]}, "none": null}\n'
        '{"ids": [], "routes": [], "done": [], "reward": 0.5, "ok": false,'
        ' "text": "é\\n\\ud83d\\ude00", "info": [], "none": null, "late": "x"}\n'
    )
    assert list(found) == ["ids", "routes", "done", "reward", "ok", "text", "info", "none", "late"]
    ids, offsets = found["ids"]
    assert (ids.dtype, ids.tolist(), offsets.dtype, offsets.tolist()) == (
        "int64",
        [1, 2],
        "int64",
        [0, 2, 2],
    )
    routes, offsets = found["routes"]
    assert (routes.shape, routes.tolist(), offsets.tolist()) == (
        (2, 1, 2),
        [[[1, 2]], [[3, 4]]],
        [0, 2, 2],
    )
    done, offsets = found["done"]
    assert (done.dtype, done.tolist(), offsets.tolist()) == ("bool", [True], [0, 1, 1])
    assert (found["reward"].dtype, found["reward"].tolist()) == ("float64", [1.0, 0.5])
    assert (found["ok"].dtype, found["ok"].tolist()) == ("bool", [True, False])
    assert found["text"] == ["a", "é\n😀"]
    assert found["info"] == [{"k": [1, "x"]}, []]
    assert found["none"] == [None, None]
    assert found["late"] == [None, "x"]


@pytest.mark.parametrize(
    "dtype",
    [
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float32",
        "float64",
    ],
)
def test_a_hint_fixes_the_dtype(dtype: str) -> None:
    found = columns('{"a": [1, 2], "b": 3}\n{"a": [100], "b": 4}', hints={"a": dtype, "b": np.dtype(dtype)})
    assert (found["a"][0].dtype, found["a"][0].tolist()) == (dtype, [1, 2, 100])
    assert (found["b"].dtype, found["b"].tolist()) == (dtype, [3, 4])


def test_words_under_a_hint() -> None:
    lines = '{"a": [true, false, 1], "b": true}'
    for dtype in ("uint8", "int64", "bool"):
        found = columns(lines, hints={"a": dtype, "b": dtype})
        assert (found["a"][0].dtype, found["a"][0].tolist()) == (dtype, [1, 0, 1])
        assert (found["b"].dtype, found["b"].tolist()) == (dtype, [1])


def test_an_object_hint_keeps_anything() -> None:
    lines = '{"a": [1, 2]}\n{"a": 7}\n{"a": null}\n{"a": "x"}\n{}\n{"a": [[1], [2, 3]]}'
    assert columns(lines, hints={"a": object})["a"] == [[1, 2], 7, None, "x", None, [[1], [2, 3]]]


def test_null_in_scalar_columns() -> None:
    found = columns('{"a": null, "b": "x"}\n{"a": 1}\n{"a": 0.5, "b": null}')
    assert found == {"a": [None, 1.0, 0.5], "b": ["x", None, None]}


def test_empty() -> None:
    assert parse("") == (0, 0, {})
    assert parse("\n \r\n") == (0, 0, {})
    assert parse("{}\n{}") == (2, 0, {})
    values, offsets = columns('{"a": []}')["a"]
    assert (values.dtype, values.shape, offsets.tolist()) == ("int64", (0,), [0, 0])


def test_errors_name_file_line_and_place() -> None:
    def message(lines: str, **options: Any) -> str:
        with pytest.raises(ValueError, match=r"^f\.jsonl:") as caught:
            parse(lines, name="f.jsonl", **options)
        return str(caught.value)

    assert message("{}\n\n[]") == "f.jsonl:3: expected an object at column 1, found '['"
    assert message('{"a":[1,2', first_line=8123) == (
        "f.jsonl:8123: expected ',' or ']' at column 10, found end of line"
    )
    assert message('{"m": [0, 300]}', hints={"m": "uint8"}) == "f.jsonl:1: m[1]: 300 does not fit uint8"
    assert message('{"a":[1]}\n{}') == (
        "f.jsonl:2: a: missing or null; a column of arrays needs an array in every row"
    )


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip', got \"drop\""):
        parse("{}", on_error="drop")
    with pytest.raises(TypeError, match=r"hints\['a'\] is float16"):
        parse("{}", hints={"a": np.float16})
    with pytest.raises(ValueError, match="not C-contiguous"):
        _native.parse_jsonl(np.zeros(8, np.uint8)[::2], hints={})


def test_skip_drops_lines_whole() -> None:
    lines = '{"a": [1], "b": "x"}\n{"a": [2], "b": }\n{"c": 1, "a": [3, 4], "b": "y" \n{"a": [5], "b": "z"}'
    count, skipped, found = parse(lines, on_error="skip")
    assert (count, skipped, list(found)) == (2, 2, ["a", "b"])
    assert (rows(found["a"]), found["b"]) == ([[1], [5]], ["x", "z"])


def test_results_outlive_the_input() -> None:
    data = np.frombuffer(b'{"a": [1, 2], "s": "x", "o": {"k": 1}}', np.uint8).copy()
    found = _native.parse_jsonl(data, hints={})[2]
    data[:] = 0
    del data
    gc.collect()
    assert (found["a"][0].tolist(), found["s"], found["o"]) == ([1, 2], ["x"], [{"k": 1}])
    found["a"][0][0] = 9  # the array is the caller's


def test_read_only_and_mapped_input(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": [1, 2]}\r\n')
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        assert _native.parse_jsonl(view, hints={})[2]["a"][0].tolist() == [1, 2]
        del view


NUMBER = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)
ROW = st.fixed_dictionaries(
    {
        "ids": st.lists(st.integers(0, 200_000), max_size=40),
        "masks": st.lists(st.integers(0, 1), max_size=40),
        "logprobs": st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20),
        "reward": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "text": st.none() | st.text(),
        "other": JSON,
    }
)


@given(
    st.lists(ROW, min_size=1, max_size=5),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")]),
    st.booleans(),
)
def test_reads_what_json_reads(items: list[dict[str, Any]], separators: tuple[str, str], ascii: bool) -> None:
    lines = [json.dumps(item, separators=separators, ensure_ascii=ascii) for item in items]
    hints = {"masks": "uint8", "logprobs": "float64", "reward": "float64", "other": object}
    count, skipped, found = parse("\n".join(lines), hints=hints)
    assert (count, skipped) == (len(items), 0)
    for key in items[0]:
        assert rows(found[key]) == [json.loads(line)[key] for line in lines]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_float32_keeps_every_bit(values: list[float]) -> None:
    wanted = np.array(values, np.float32)
    for text in (json.dumps(values), "[" + ", ".join(map(str, wanted)) + "]"):
        got = columns('{"a": ' + text + "}", hints={"a": "float32"})["a"][0]
        np.testing.assert_array_equal(got.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.skipif(not TAU.exists(), reason="the shared data is elsewhere")
def test_real_rollouts() -> None:
    data = TAU.read_bytes()
    items = [json.loads(line) for line in data.splitlines()]
    count, skipped, found = parse(data, hints=HINTS)
    assert (count, skipped) == (len(items), 0) == (200, 0)
    for key, dtype in HINTS.items():
        values, offsets = found[key]
        wanted = np.fromiter(chain.from_iterable(item[key] for item in items), dtype)
        np.testing.assert_array_equal(values, wanted, strict=True)
        assert np.diff(offsets).tolist() == [len(item[key]) for item in items]
    for key in items[0].keys() - HINTS.keys():
        assert rows(found[key]) == [item[key] for item in items]


@pytest.mark.skipif(not TAU.exists(), reason="the shared data is elsewhere")
def test_other_threads_run_meanwhile() -> None:
    data = np.frombuffer(TAU.read_bytes() * 3, np.uint8)
    turns = 0
    done = threading.Event()

    def work() -> None:
        _native.parse_jsonl(data, hints=HINTS)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        turns += 1
    thread.join()
    assert turns > 1000


def zstd(data: bytes) -> bytes:
    program = shutil.which("zstd")
    if program is None:
        pytest.skip("the zstd program is not there")
    return subprocess.run([program, "-q", "-c"], input=data, capture_output=True, check=True).stdout


@pytest.fixture(params=["gzip", "zstd"])
def packed(request: pytest.FixtureRequest) -> tuple[str, bytes, bytes]:
    """A kind, text, and the text compressed in two members or frames."""
    text = b"".join(b'{"a": [%d]}\n' % i for i in range(50_000))
    pack = gzip.compress if request.param == "gzip" else zstd
    return request.param, text, pack(text[:1000]) + pack(text[1000:])


def unpack(kind: str, data: bytes, block: int) -> bytes:
    stream = _native.Decompressor(io.BytesIO(data), kind, name="f.jsonl")
    buffer, out = np.empty(block, np.uint8), b""
    while count := stream.readinto(buffer):
        out += buffer[:count].tobytes()
        assert count == block or stream.readinto(buffer) == 0
    return out


@pytest.mark.parametrize("block", [997, 1 << 20])
def test_decompresses_blocks(packed: tuple[str, bytes, bytes], block: int) -> None:
    kind, text, data = packed
    assert unpack(kind, data, block) == text


def test_refuses_what_is_not_whole(packed: tuple[str, bytes, bytes]) -> None:
    kind, _, data = packed
    broken = [
        b"",
        data[:-1],
        data[:-5],
        data[: len(data) // 2],
        data[:3],
        data + b"junk",
        b"plain text",
    ]
    middle = bytearray(data)
    middle[len(data) // 2] ^= 0xFF
    for each in [*broken, bytes(middle)]:
        with pytest.raises(ValueError, match=f"^{re.escape(f'f.jsonl: not a whole {kind} stream: ')}"):
            unpack(kind, each, 1 << 16)


def test_the_files_own_errors_pass() -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ConnectionResetError("gone")

    for kind in ("gzip", "zstd"):
        with pytest.raises(ConnectionResetError, match="gone"):
            _native.Decompressor(Broken(), kind, name="f").readinto(np.empty(8, np.uint8))
    with pytest.raises(ValueError, match="kind must be 'gzip' or 'zstd', got \"xz\""):
        _native.Decompressor(io.BytesIO(), "xz", name="f")
