"""What a file can hold of a column: objects as JSON, and numbers of the dtypes that it has."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any

import numpy as np

from rollkit._errors import refusal


def json_texts(name: str, entries: list[Any], *, strict: bool = False) -> list[str]:
    """One JSON text an entry, of which the same entry can be made again.

    Args:
        name: of the column.
        entries: what there is a text of.
        strict: refuse NaN and Infinity too, which Python writes and reads, and JSON does not have.

    Raises:
        TypeError: there is something that JSON does not have, or makes something else of.
    """
    for row, entry in enumerate(entries):
        try:
            odd = _beyond_json(entry, strict)
        except RecursionError:
            odd = "an entry of more levels"
        if odd is not None:
            text = f" has {odd}, which JSON does not hold; make it text, a number, a list or a dict"
            raise refusal(TypeError, text, column=name, row=row)
    return number_texts(entries)


def number_texts(entries: list[Any]) -> list[str]:
    """`json_texts` of numbers, or lists of them, which need no look at each."""
    return [json.dumps(entry, separators=(",", ":")) for entry in entries]


def _beyond_json(entry: Any, strict: bool) -> str | None:
    """What in an entry would not come back as it is, in words; None if all would."""
    kind = type(entry)
    if kind is float and strict and not math.isfinite(entry):
        return str(entry)
    if kind in (str, int, float, bool, type(None)):
        return None
    if kind is list:
        return next((odd for item in entry if (odd := _beyond_json(item, strict)) is not None), None)
    if kind is dict:
        key = next((key for key in entry if type(key) is not str), None)
        if key is not None:
            return f"the key {key!r}, a {type(key).__name__}"
        return _beyond_json(list(entry.values()), strict)
    return f"a {kind.__name__}"


def check_dtype(dtype: np.dtype[Any], known: Collection[str], kind: str) -> None:
    """Refuse numbers that a kind of file has no dtype for, and what is no number."""
    if dtype.name in known and dtype.isnative:
        return
    if dtype.kind in "SUO":
        raise TypeError(f"an array of {dtype} is not saved; a list is (.tolist())")
    raise TypeError(f"{kind} has no dtype like {dtype}; cast with .astype first")
