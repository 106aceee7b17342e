"""Every refusal of the collators and of packing tables, word for word; see `tests/house/test_errors.py`."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.house.refusals import check_refusal

from rollkit import datasets
from rollkit.compat import transformers, trl

# Arguments of wrong types are what this file is about.
Flat: Any = transformers.DataCollatorWithFlattening
Trl: Any = trl.DataCollatorForLanguageModeling
pack_table: Any = datasets.pack_table
pack_dataset: Any = trl.pack_dataset


def flat(*rows: Any, **options: Any) -> Any:
    return Flat(**options)([{"input_ids": row} for row in rows])


def padded(*rows: Any, **options: Any) -> Any:
    return Trl(0, **options)([{"input_ids": row} for row in rows])


def table(**columns: Any) -> Any:
    return pa.table(columns)


def small(*values: int) -> Any:
    return np.array(values, np.uint8)


# fmt: off
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Flat()([]), ValueError, 'DataCollatorWithFlattening received a batch where every example is empty.'),
    (lambda: flat([], []), ValueError, 'DataCollatorWithFlattening received a batch where every example is empty.'),
    (lambda: Flat()([[1]]), TypeError, "features[0] must be a dict with 'input_ids', got list"),
    (lambda: Flat()([{"input_ids": [1]}, {"text": [1], "b": 2}]), KeyError, "features[1] has no 'input_ids'; it has text, b"),
    (lambda: Flat()([{"input_ids": []}, {"input_ids": [1], "labels": [1]}, {"input_ids": [1]}]), KeyError, "features[2] has no 'labels'; it has input_ids"),
    (lambda: Flat()([{"input_ids": []}, {"input_ids": [1, 2], "labels": [1]}]), ValueError, "column 'labels': row 1 has 1 elements, its input_ids have 2"),
    (lambda: Flat()([{"input_ids": [1, 2], "labels": None}]), TypeError, "column 'labels': row 0 is NoneType, expected a list, tuple or array"),
    (lambda: flat([1], None), TypeError, "column 'input_ids': row 1 is NoneType, expected a list, tuple or array"),
    (lambda: flat(5), TypeError, "column 'input_ids': row 0 is int, expected a list, tuple or array"),
    (lambda: flat([1], "ab"), TypeError, "column 'input_ids': row 1 is str, expected a list, tuple or array"),
    (lambda: flat([], [1], [2, "a"]), TypeError, "column 'input_ids': row 2, position 1: 'a' is not a number"),
    (lambda: flat([1], [1.5]), TypeError, "column 'input_ids': row 1, position 0: float 1.5 in an int64 column; pass dtype=np.float32 (or another float dtype) or round it first"),
    (lambda: flat(np.array([1]), np.array([1.5])), TypeError, "column 'input_ids': row 1 holds float64, expected integers"),
    (lambda: flat(torch.tensor([1.5])), TypeError, "column 'input_ids': row 0 holds float32, expected integers"),
    (lambda: flat([[1, 2]]), ValueError, "column 'input_ids': row 0 has elements of shape (2,), expected numbers"),
    (lambda: flat(torch.ones(1, 2, dtype=torch.long)), ValueError, "column 'input_ids': row 0 has elements of shape (2,), expected numbers"),
    (lambda: flat(torch.tensor(1)), ValueError, "column 'input_ids': row 0 is a 0-D array; a row has at least one dimension"),
    (lambda: flat([1], [2**63]), OverflowError, "column 'input_ids': row 1, position 0: 9223372036854775808 does not fit int64"),
    (lambda: flat([], np.array([1, 2**63], np.uint64)), OverflowError, "column 'input_ids': row 1, position 1: 9223372036854775808 does not fit int64"),
    (lambda: flat([1], return_tensors="tf"), ValueError, 'return_tensors must be one of ("pt", "np"), return_tensors=\'tf\' not supported'),
    (lambda: flat([1], separator_id=1.5), TypeError, 'separator_id must be an int, got float'),
    (lambda: flat([1], position_ids_start="a"), TypeError, 'position_ids_start must be an int, got str'),
    (lambda: Trl(0)([]), ValueError, 'features is empty; a batch has one or more'),
    (lambda: Trl(0)([5]), TypeError, "features[0] must be a dict with 'input_ids', got int"),
    (lambda: Trl(0)([{"a": 1}]), KeyError, "features[0] has no 'input_ids'; it has a"),
    (lambda: padded([1, 2], [1.5]), TypeError, "column 'input_ids': row 1, position 0: float 1.5 in an int64 column; pass dtype=np.float32 (or another float dtype) or round it first"),
    (lambda: Trl(0)([{"input_ids": [1, 2], "labels": [1]}]), ValueError, "column 'labels': row 0 has 1 elements, its input_ids have 2"),
    (lambda: Trl(0, True)([{"input_ids": [1, 2], "seq_lengths": [1]}]), ValueError, "column 'seq_lengths': row 0 adds up to 1, its input_ids have 2"),
    (lambda: Trl(0, True)([{"input_ids": [1, 2], "seq_lengths": [3, -1]}]), ValueError, 'seq_lengths[1] is -1; lengths must be 0 or more'),
    (lambda: Trl(0, True)([{"input_ids": [1, 2], "seq_lengths": [2]}, {"input_ids": [1]}]), KeyError, "features[1] has no 'seq_lengths'; it has input_ids"),
    (lambda: padded([], padding_free=True), ValueError, 'every row is empty; a flat batch has one token or more'),
    (lambda: Trl(0)([{"input_ids": [1]}], "np"), ValueError, "Framework 'np' not recognized!"),
    (lambda: padded([1], pad_to_multiple_of=0), ValueError, 'pad_to_multiple_of must be at least 1, got 0'),
    (lambda: Trl("a")([{"input_ids": [1]}]), TypeError, 'pad_token_id must be an int, got str'),
    (lambda: padded(small(1), small(1, 2)), OverflowError, "column 'labels': fill=-100 does not fit uint8"),
    (lambda: padded(small(1), padding_free=True), OverflowError, "column 'labels': fill=-100 does not fit uint8"),
    (lambda: Trl(300)([{"input_ids": small(1), "labels": [1]}]), OverflowError, "column 'input_ids': fill=300 does not fit uint8"),
    (lambda: padded(small(1), np.array([300])), OverflowError, "column 'input_ids': row 1, position 0: 300 does not fit uint8"),
    (lambda: padded(np.array([1]), np.array([1], np.uint64), padding_free=True), TypeError, "column 'input_ids': no integer dtype holds int64 and uint64; cast one with .astype"),
    (lambda: pack_table(5, 4), TypeError, 'table must be an Arrow table, got int'),
    (lambda: pack_table({"a": [[1]]}, 4), TypeError, 'table must be an Arrow table, got dict'),
    (lambda: pack_table(pa.array([[1]]), 4), TypeError, 'table must be an Arrow table, got ListArray'),
    (lambda: pack_table(table(), 4), ValueError, 'table has no columns; expected lists of tokens'),
    (lambda: pack_table(table(a=[1]), 4), TypeError, "column 'a': this is int64. Packing requires all columns to be lists of lists. Drop it first"),
    (lambda: pack_table(table(a=[[1]], b=[[1, 2]]), 4), ValueError, "column 'b': row 0 has 2 values, in 'a' 1. All columns must have values of the same length."),
    (lambda: pack_table(table(a=[[1]], seq_lengths=[[1]]), 4), ValueError, "the table has a column 'seq_lengths' already; pass another name as lengths"),
    (lambda: pack_table(pa.Table.from_arrays([pa.array([[1]])] * 2, ["a", "a"]), 4), ValueError, "the table has two columns 'a'; rename one of them"),
    (lambda: pack_table(table(a=[[1]]), 0), ValueError, 'seq_length must be at least 1, got 0'),
    (lambda: pack_table(table(a=[[1]]), 2.5), TypeError, 'seq_length must be an int, got float'),
    (lambda: pack_table(table(a=[[1]]), 4, "ffd"), ValueError, "strategy must be one of 'bfd', 'bfd_split', 'wrapped', got 'ffd'"),
    (lambda: pack_table(table(a=[[1]]), 4, lengths=3), TypeError, 'lengths must be a str, got int'),
    (lambda: pack_dataset([1], 4), TypeError, 'dataset must be one of Hugging Face datasets, got list; rollkit.datasets.pack_table takes Arrow tables'),
    (lambda: pack_dataset([1], 4, "ffd"), ValueError, "Invalid packing strategy 'ffd', must be one of ('bfd', 'bfd_split', 'wrapped')."),
    (lambda: pack_dataset([1], -1), ValueError, 'seq_length must be at least 1, got -1'),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED, ids=[message[:90] for *_, message in REFUSED])
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    check_refusal(call, kind, message)
