"""Rows and columns as header and buffers, and hashes that find what changed on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollkit import Ragged, Rollouts, concat
from rollkit.testing import raggeds, rollout_rows


@given(raggeds(), st.integers(0, 4))
def test_rows_come_back(rows: Ragged, begin: int) -> None:
    part = rows[begin:]
    if part.dtype.fields is not None:
        with pytest.raises(TypeError, match="are not sent; send each field"):
            part.to_buffers()
        return
    header, buffers = part.to_buffers()
    assert Ragged.from_buffers(header, buffers).equals(part)
    sent = [bytes(buffer) for buffer in buffers]
    assert Ragged.from_buffers(bytearray(header), sent).equals(part)
    odd = [memoryview(b"x" + buffer)[1:] for buffer in sent]  # nowhere aligned
    assert Ragged.from_buffers(header, odd).equals(part)


@given(rollout_rows())
def test_rollouts_come_back(rows: list[dict[str, Any]]) -> None:
    masks = [[[1] * (i % 3) for i in range(len(row["response_ids"]))] for row in rows]
    notes = [{"a": [1, None]}] * len(rows)
    rollouts = Rollouts.from_rows(rows).with_columns(sampling_masks=masks, notes=notes)
    for part in (rollouts, rollouts[1:]):
        header, buffers = part.to_buffers()
        assert Rollouts.from_buffers(header, buffers).equals(part)
        assert Rollouts.from_buffers(header, [bytes(buffer) for buffer in buffers]).equals(part)


def test_memory_is_shared() -> None:
    ragged = Ragged.from_rows([np.arange(100), np.arange(50)])
    header, buffers = ragged.to_buffers()
    back = Ragged.from_buffers(header, buffers)
    assert np.shares_memory(back.values, ragged.values)
    assert len(header) < 200


def test_refused() -> None:
    header, buffers = Ragged.from_rows([[1, 2], [3]], np.int32).to_buffers()
    both = Rollouts({"x": [[1]], "y": ["a"]}).to_buffers()
    odd: list[tuple[Any, Any, type[Exception], str]] = [
        (b"", buffers, ValueError, "header is none that to_buffers made"),
        (None, buffers, ValueError, "header is none that to_buffers made"),
        (b"[]", buffers, ValueError, "header is none that to_buffers made"),
        (header.replace(b'"rollkit":1', b'"rollkit":9'), buffers, ValueError, "header is of format 9"),
        (header, buffers[:1], ValueError, "there are fewer buffers than the header says"),
        (header, [], ValueError, "none that to_buffers made"),
        (header, [*buffers, b""], ValueError, "1 buffers are left over"),
        (header, buffers[::-1], ValueError, r"a buffer has 12 bytes, <i8 of shape \(3,\) takes 24"),
        (header.replace(b"<i4", b"<q9"), buffers, ValueError, "none that to_buffers made"),
        (header.replace(b"[3]", b"[-3]"), buffers, ValueError, "takes -24"),
        (header, 5, TypeError, "buffers must be a sequence of buffers, got int"),
        (header, ["text", "text"], ValueError, "none that to_buffers made"),
        (both[0], both[1], ValueError, "none that to_buffers made"),
    ]
    for head, given_buffers, kind, message in odd:
        with pytest.raises(kind, match=message):
            Ragged.from_buffers(head, given_buffers)
    falling = np.array([0, 3, 2]).tobytes()
    with pytest.raises(ValueError, match="offsets fall at row 1"):
        Ragged.from_buffers(header, [falling, buffers[1]])
    with pytest.raises(ValueError, match="header is of rows alone"):
        Rollouts.from_buffers(header, buffers)
    with pytest.raises(ValueError, match="column 'y': there are fewer buffers than the header says"):
        Rollouts.from_buffers(both[0], both[1][:2])
    with pytest.raises(ValueError, match="1 buffers are left over"):
        Rollouts.from_buffers(both[0], [*both[1], b"x"])
    with pytest.raises(TypeError, match="column 'o': row 1: Object of type object is not JSON"):
        Rollouts({"o": [{"a": 1}, {"b": object()}]}).to_buffers()


@given(raggeds(), raggeds())
def test_equal_rows_have_equal_hashes(rows: Ragged, other: Ragged) -> None:
    hashes = rows.hash()
    assert hashes.dtype == np.uint64
    assert len(hashes) == len(rows)
    behind = concat([other, rows]) if (other.dtype, other.inner) == (rows.dtype, rows.inner) else rows
    assert behind.hash()[len(behind) - len(rows) :].tolist() == hashes.tolist()
    for i, row in enumerate(rows):
        for j, same in enumerate(rows):
            assert (row.tobytes() == same.tobytes()) == (hashes[i] == hashes[j])


def test_what_changed_is_found() -> None:
    rng = np.random.default_rng(0)
    rows = Ragged.from_rows([rng.integers(0, 99, n) for n in rng.integers(2, 60, 60)], np.int32)
    before, found = rows.hash(), 0
    for row in range(60):
        for kind in ("bit", "swap", "shift"):
            values = rows.values.copy()
            begin, end = rows.offsets[row : row + 2]
            if kind == "bit":
                values[rng.integers(begin, end)] ^= 1 << int(rng.integers(0, 31))
            elif kind == "swap":
                values[begin], values[end - 1] = values[end - 1] + 100, values[begin]
            else:
                values[begin:end] = np.roll(values[begin:end] * 2 + np.arange(end - begin), 1)
            changed = Ragged(values, rows.offsets).hash() != before
            found += changed.tolist() == [i == row for i in range(60)]
    assert found == 180


def test_bits_that_compare_equal_are_told_apart() -> None:
    zeros = Ragged.from_rows([[0.0], [-0.0]])
    assert zeros.hash()[0] != zeros.hash()[1]
    nans = np.array([0x7FF8000000000000, 0x7FF8000000000001], np.uint64).view(np.float64)
    payloads = Ragged(nans, np.array([0, 1, 2]))
    assert payloads.hash()[0] != payloads.hash()[1]
    widths = [Ragged.from_rows([[1, 0]], dtype).hash()[0] for dtype in (np.int32, np.uint32, np.int64)]
    assert len(set(widths)) == 3
    flat = Ragged(np.zeros((4, 1), np.uint8), np.array([0, 4]))
    square = Ragged(np.zeros((2, 2), np.uint8), np.array([0, 2]))
    assert flat.hash()[0] != square.hash()[0]


def test_lists_per_element() -> None:
    rows = Ragged.from_rows([[[1, 2], [3]], [[1], [2, 3]], [[1, 2], [3]], [], [[]]], np.int32, lists=True)
    hashes = rows.hash()
    assert hashes[0] == hashes[2]
    assert len(set(hashes.tolist())) == 4
    assert rows[2:].hash().tolist() == hashes[2:].tolist()


def test_headers_of_no_bytes() -> None:
    flat = Ragged.from_rows([[1, 2], [3]], np.int32).to_buffers()
    nested = Ragged.from_rows([[[1], [2, 3]], []], np.int32, lists=True).to_buffers()
    odd = [
        (flat[0].replace(b'"<i8"', b"null"), flat[1]),
        (flat[0].replace(b'"<i8"', b'"O"'), flat[1]),
        (flat[0].replace(b'"<i4"', b'"|O8"'), flat[1]),
        (b'{"rollkit":1,"offsets":{"dtype":"<i8","shape":[3]},"lists":5}', nested[1]),
    ]
    for header, buffers in odd:
        with pytest.raises(ValueError, match="none that to_buffers made"):
            Ragged.from_buffers(header, buffers)


def test_keys_that_json_would_change() -> None:
    for entry in ({1: 2}, [{"a": ({None: 1},)}]):
        with pytest.raises(TypeError, match="column 'o': row 1: JSON would make a text of the key"):
            Rollouts({"o": [{"a": 1}, {"b": entry}]}).to_buffers()
    kept = Rollouts({"o": [{"a": "{"}, ["{", {"b": []}]]})
    assert Rollouts.from_buffers(*kept.to_buffers()).equals(kept)
