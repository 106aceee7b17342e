"""Lists per token in JSONL, which Rust reads where they are of integers: like those by way of objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from rollkit import Ragged, iter_chunks, read
from rollkit._files.paths import sources
from rollkit._files.read import Reading, read_sources

ENTRIES = st.integers(0, 150_000) | st.integers(0, 9)
ODD: Any = st.sampled_from([-3, 2**31, 2**63, 2**64, 0.5, 1e3, True, None, "a", [1], {}, float("nan")])


def rows(entry: Any) -> Any:
    return st.lists(st.lists(st.lists(entry, max_size=4), max_size=4), max_size=4)


def told(path: Path, **options: Any) -> Any:
    """What a file is, or why it is refused."""
    try:
        found = read_sources(sources(path), Reading(**options))
    except (ValueError, TypeError, OverflowError) as error:
        return type(error), str(error), vars(error).get("__notes__")
    return {
        # As text, in which NaN is NaN.
        name: (column.dtype, column.inner, repr(column.to_list()))
        if isinstance(column, Ragged)
        else list(column)
        for name, column in found.items()
    }


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(400), deadline=None
)
@given(
    table=rows(ENTRIES) | rows(st.one_of(ENTRIES, ENTRIES, ENTRIES, ODD)),
    absent=st.none() | st.integers(0, 3),
    name=st.sampled_from(["sampling_masks", "kept_token_ids", "more"]),
    nonfinite=st.sampled_from(["raise", "keep", "null"]),
)
def test_they_are_those_of_objects(
    tmp_path: Path, table: Any, absent: int | None, name: str, nonfinite: str
) -> None:
    lines = [{"response_ids": [0] * len(lists), name: lists} for lists in table]
    if absent is not None and absent < len(lines):
        del lines[absent][name]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    how: dict[str, Any] = {"lists": ["more"] if name == "more" else [], "nonfinite": nonfinite}
    found = told(path, **how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reading, "list_dtypes", lambda self: {})
        assert told(path, **how) == found


def test_they_come_as_arrays_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"response_ids": [5, 6], "theirs": [ [5,9 ] , [ ] ]}\n\n{"response_ids": [], "theirs": []}\n'
        '{"response_ids": [7], "theirs": [[7]]}\n'
    )
    found = read(path, rename={"theirs": "sampling_masks"})["sampling_masks"]
    assert isinstance(found, Ragged)
    assert found.to_list() == [[[5, 9], []], [], [[7]]]
    assert found.dtype == np.int32
    pieces = [
        chunk["sampling_masks"] for chunk in iter_chunks(path, rows=1, rename={"theirs": "sampling_masks"})
    ]
    assert [row for piece in pieces for row in piece.to_list()] == found.to_list()  # type: ignore[union-attr]
