"""Random features, and batches compared key by key."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

ROWS: Any = {
    "list": list,
    "tuple": tuple,
    "int32": lambda row: np.array(row, np.int32),
    "int64": lambda row: np.array(row, np.int64),
    "strided": lambda row: np.repeat(np.array(row, np.int64), 2)[::2],
    "torch": lambda row: torch.tensor(row, dtype=torch.long),
    "torch int32": lambda row: torch.tensor(row, dtype=torch.int32),
}


@st.composite
def features(draw: st.DrawFn, kinds: tuple[str, ...], least: int = 0, packed: bool = False) -> list[Any]:
    """Features of one kind, or of several; some with labels, or all, or none."""
    labelled = draw(st.sampled_from(["all", "some", "none"]))
    several = draw(st.integers(0, 4)) == 0
    kind = draw(st.sampled_from(kinds))
    found = []
    for _ in range(draw(st.integers(1, 5))):
        make = ROWS[draw(st.sampled_from(kinds)) if several else kind]
        sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        length = sum(sizes) if packed else draw(st.sampled_from([least, 1, 2, 5, 9]))
        row = draw(st.lists(st.integers(0, 99), min_size=length, max_size=length))
        feature = {"input_ids": make(row)}
        if labelled == "all" or (labelled == "some" and draw(st.booleans())):
            feature["labels"] = make([-100 if draw(st.booleans()) else token for token in row])
        if packed:
            feature["seq_lengths"] = sizes
        found.append(feature)
    return found


def outcome(collate: Any, *arguments: Any, **options: Any) -> Any:
    """What a collator returns, or the type of its error."""
    try:
        return collate(*arguments, **options)
    except Exception as error:
        return type(error)


def check_same(found: Any, wanted: Any) -> None:
    """The same keys in the same order, and the same types, dtypes, shapes and values."""
    if not isinstance(wanted, dict) or not isinstance(found, dict):
        assert found is wanted
        return
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert type(found[name]) is type(array), name
        if isinstance(array, torch.Tensor | np.ndarray):
            assert found[name].dtype == array.dtype, name
            assert found[name].shape == array.shape, name
        assert np.array_equal(found[name], array), name
