"""One number for each row: sums, means and maxima over values and offsets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._frameworks import AnyArray


def row_sums(values: AnyArray, offsets: Int64s) -> AnyArray:
    """Sums of rows in 64 bits; see `Ragged.sum`."""
    check_real(values)
    kind = values.dtype.kind
    if kind not in "biuf":
        values = values.astype(np.float64)  # bfloat16 and its kin
        kind = "f"
    wide = np.dtype({"f": np.float64, "u": np.uint64}.get(kind, np.int64))
    filled = np.flatnonzero(offsets[1:] > offsets[:-1])
    out = np.zeros((len(offsets) - 1, *values.shape[1:]), wide)
    if not len(filled):
        return out
    # `reduceat` sums from one begin to the next: empty rows, which have none, are left out.
    with np.errstate(invalid="ignore"):  # infinities of both signs make NaN
        out[filled] = np.add.reduceat(values[: offsets[-1]], offsets[filled], axis=0, dtype=wide)
    if kind in "iu" and values.dtype.itemsize == 8:
        _check_sums(values, offsets, out, filled)
    return out


def _check_sums(values: AnyArray, offsets: Int64s, sums: AnyArray, filled: Int64s) -> None:
    """Refuse sums that have wrapped: floats, which do not, are then far away."""
    near = np.add.reduceat(values[: offsets[-1]], offsets[filled], axis=0, dtype=np.float64)
    odd = abs(near - sums[filled].astype(np.float64)) > 2.0**62
    if odd.any():
        row = int(filled[odd.reshape(len(filled), -1).any(axis=1).argmax()])
        raise refusal(OverflowError, f": the sum does not fit {sums.dtype}", row=row)


def row_means(values: AnyArray, offsets: Int64s) -> NDArray[np.float64]:
    """Means of rows; see `Ragged.mean`."""
    lengths = (offsets[1:] - offsets[:-1]).reshape(-1, *[1] * (values.ndim - 1))
    sums = row_sums(values, offsets).astype(np.float64)
    means: NDArray[np.float64] = np.full(sums.shape, np.nan)
    np.divide(sums, lengths, out=means, where=lengths > 0)
    return means


def row_maxima(values: AnyArray, offsets: Int64s) -> AnyArray:
    """Maxima of rows; see `Ragged.max`."""
    check_real(values)
    empty = offsets[1:] == offsets[:-1]
    if empty.any():
        raise refusal(ValueError, " is empty, and has no largest element", row=int(empty.argmax()))
    if len(empty) == 0:
        return values[:0]
    found: AnyArray = np.maximum.reduceat(values[: offsets[-1]], offsets[:-1], axis=0)
    return found


def check_real(values: AnyArray) -> None:
    """Refuse what has no sum or order in these dtypes: complex numbers, dates, texts, objects."""
    if values.dtype.kind in "cmMSUO" or values.dtype.type is np.void:
        raise TypeError(f"sum, mean and max are of real numbers, got {values.dtype}")
