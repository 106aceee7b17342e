"""Columns as a header and flat buffers; see `Rollouts.to_buffers`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rollkit._errors import at, refusal
from rollkit._rows.buffers import array_in, array_out, packed, rows_in, rows_out, unpacked
from rollkit._rows.ragged import Ragged, of_values


def buffers_of(columns: Mapping[str, Any]) -> tuple[bytes, list[memoryview]]:
    """See `Rollouts.to_buffers`."""
    said: dict[str, Any] = {}
    buffers: list[memoryview] = []
    for name, column in columns.items():
        with at(column=name):
            if isinstance(column, Ragged):
                said[name], own = rows_out(column._host_parts("to_buffers"), column.offsets)
            elif isinstance(column, np.ndarray) and not column.dtype.hasobject:
                array, own_buffer = array_out(column)
                said[name], own = {"array": array}, [own_buffer]
            else:
                said[name], own = {"json": len(column)}, [memoryview(_json(list(column)))]
        buffers += own
    return packed({"columns": said}), buffers


def _json(entries: list[Any]) -> bytes:
    for row, entry in enumerate(entries):
        try:
            _check_keys(entry, json.dumps(entry))
        except (TypeError, ValueError, RecursionError) as error:
            raise refusal(TypeError, f": {error}; drop the column, or send texts", row=row) from None
    return json.dumps(entries, separators=(",", ":")).encode()


def _check_keys(entry: Any, text: str) -> None:
    """Refuse keys that JSON makes texts of."""
    if "{" not in text:
        return
    if isinstance(entry, dict):
        if odd := [key for key in entry if not isinstance(key, str)]:
            raise TypeError(f"JSON would make a text of the key {odd[0]!r}")
        entry = entry.values()
    if not isinstance(entry, str) and isinstance(entry, Iterable):
        for item in entry:
            _check_keys(item, text)


def columns_from_buffers(header: Any, buffers: Sequence[Any]) -> dict[str, Any]:
    """See `Rollouts.from_buffers`."""
    found, left = unpacked(header, buffers)
    if not isinstance(found.get("columns"), dict):
        raise ValueError("header is of rows alone; Ragged.from_buffers reads it")
    columns: dict[str, Any] = {}
    for name, said in found["columns"].items():
        with at(column=name):
            if not left or not isinstance(said, dict):
                raise ValueError("there are fewer buffers than the header says")
            if "array" in said:
                columns[name] = array_in(said["array"], left.pop(0))
            elif "json" in said:
                columns[name] = json.loads(bytes(left.pop(0)))
            else:
                values, offsets, left = rows_in(said, left)
                columns[name] = of_values(values, offsets)
    if left:
        raise ValueError(f"{len(left)} buffers are left over")
    return columns
