"""What collators are given, feature dicts, to columns of tokens; and what they make of lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit import _native
from rollkit._arrays.ops import Ops, ops, ops_of
from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._extras import extra
from rollkit._frameworks import AnyArray, framework_of, is_array, kind_of
from rollkit._rows.layout import Layout
from rollkit._rows.parts import place_parts
from rollkit._rows.ragged import Ragged, trusted

INT64, INT32 = np.dtype(np.int64), np.dtype(np.int32)
_LINE = 64
"""Bytes at which arrays begin."""


def entries(features: Sequence[Any], name: str, numbers: Sequence[int] | None = None) -> list[Any]:
    """What each feature has by a name; `numbers` are theirs, where not 0 and on.

    Raises:
        KeyError: one has none.
        TypeError: one is no mapping.
    """
    try:
        return [feature[name] for feature in features]
    except (KeyError, TypeError, IndexError):
        for i, feature in zip(numbers or range(len(features)), features, strict=True):
            if not hasattr(feature, "keys"):
                text = f"features[{i}] must be a dict with {name!r}, got {type(feature).__name__}"
                raise TypeError(text) from None
            if name not in feature:
                raise KeyError(f"features[{i}] has no {name!r}; it has {', '.join(feature)}") from None
        raise


def token_rows(name: str, rows: Sequence[Any], dtype: np.dtype[Any] | None = None) -> Ragged:
    """Rows of integers, end to end in new memory.

    Args:
        name: what refusals call them.
        rows: one a feature: lists, arrays or tensors, of any device, or several of these.
        dtype: of the result; None: as rows have it, int64 of lists.

    Raises:
        TypeError: a row is none, or of other numbers.
        ValueError: a row has inner dimensions.
        OverflowError: a number does not fit `dtype`.
    """
    with at(column=name):
        found = _together(rows, dtype)
        if found.dtype.kind not in "iub" and len(found.values):
            odd = (i for i, row in enumerate(rows) if kind_of(row) not in ("int", "bool"))
            raise refusal(TypeError, f" holds {found.dtype}, expected integers", row=next(odd, None))
        if found.inner:
            raise refusal(ValueError, f" has elements of shape {found.inner}, expected numbers", row=0)
    return found


def _together(rows: Sequence[Any], dtype: np.dtype[Any] | None) -> Ragged:
    kinds = set(map(type, rows))
    framework = framework_of(rows[0]) if len(kinds) == 1 else None
    if framework not in (None, "numpy"):
        joined = _joined(ops(framework), rows)
        if joined is not None:
            return joined if dtype is None else joined.astype(dtype)
    if not kinds <= {list, tuple, np.ndarray}:
        rows = [_on_host(row) for row in rows]
    elif np.ndarray not in kinds:
        dtype = dtype or INT64  # so that a float among them is named
    return Ragged.from_rows(rows, dtype)


def _joined(own: Ops, rows: Sequence[Any]) -> Ragged | None:
    """Arrays of a framework joined by it, as one look at the memory of each would take longer."""
    if any(row.ndim != 1 for row in rows):
        return None
    try:
        values = own.to_host(own.cat(rows))
    except (RuntimeError, ValueError):  # of several devices
        return None
    return trusted(values, _native.offsets_from_lengths(np.array([len(row) for row in rows])))


def _on_host(row: Any) -> Any:
    if is_array(row):
        return ops_of(row).to_host(row)
    return row.tolist() if hasattr(row, "tolist") else row


def check_lengths(name: str, lengths: Int64s, wanted: Int64s, found: str = "has {} elements") -> None:
    """Refuse a column whose rows are not as long as `input_ids`."""
    odd = np.flatnonzero(lengths != wanted)
    if len(odd):
        row = int(odd[0])
        text = f" {found.format(lengths[row])}, its input_ids have {wanted[row]}"
        raise refusal(ValueError, text, column=name, row=row)


def cast_to(out: AnyArray, name: str, rows: Ragged) -> None:
    """Write the values of rows to an array of another dtype, checked."""
    if np.can_cast(rows.dtype, out.dtype):
        out[:] = rows.values
        return
    with at(column=name):
        place_parts(rows.parts(), Layout.concat(rows.lengths), 0, dtype=out.dtype, out=out)


def begun(out: AnyArray, ramp: AnyArray, starts: Int64s, lengths: Int64s) -> None:
    """Write to rows, which start one after the other, the beginning of `ramp`, and 0 elsewhere."""
    parts = [(ramp, np.zeros_like(lengths))]
    _native.place(parts, starts, lengths, None, fill=np.zeros(1, out.dtype), out=out)


def numbered(out: NDArray[np.int32], starts: Int64s, lengths: Int64s) -> None:
    """Write to each of rows, which start one after the other, its number."""
    _native.fill_runs(starts, lengths, np.arange(len(lengths)), out=out)


def allocated(size: int, *dtypes: np.dtype[Any]) -> list[AnyArray]:
    """Arrays of one size in one allocation.

    Allocators keep one for the next batch; of several of a few MB each they give back what lies at the end,
    and page faults then take three times as long as all else.
    """
    begins = [0]
    for dtype in dtypes:
        begins.append(begins[-1] + -(-size * dtype.itemsize // _LINE) * _LINE)
    block = np.empty(begins.pop(), np.uint8)
    return [np.ndarray(size, dtype, block, begin) for dtype, begin in zip(dtypes, begins, strict=True)]


def tensors(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors over the memory of a batch's arrays; what is none as it is."""
    make = extra("torch", "torch").from_numpy
    return {name: make(found) if isinstance(found, np.ndarray) else found for name, found in batch.items()}
