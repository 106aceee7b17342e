"""NumPy: the host's memory as it is."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit._errors import Unfit

AnyArray = NDArray[Any]
IN_PLACE: Final = True

_PART: Final = 1 << 20
"""Elements of a part of logits that is cast at a time."""


def from_numpy(array: AnyArray, device: Any, options: Mapping[str, Any]) -> AnyArray:
    """Return the array itself."""
    if not (device is None or (isinstance(device, str) and device == "cpu")) or options:
        raise ValueError(f"NumPy arrays are on the CPU and take no options, got device={device!r}")
    return array


moved = from_numpy


def device_named(device: Any) -> None:
    """NumPy has no devices."""


def register_tree(kind: type, flat: Any, made: Any) -> None:
    """NumPy knows no trees."""


def memory(array: AnyArray) -> AnyArray:
    """Return the array itself; refuse one with a mask, which nothing here looks at, and matrices."""
    if type(array) is not np.ndarray and hasattr(array, "mask"):  # without an import of numpy.ma
        raise TypeError("got a masked array; fill it (.filled), or give what is left (.compressed)")
    if isinstance(array, np.matrix):
        raise TypeError("got a np.matrix, each row of which is a matrix again; give np.asarray(…) of it")
    return array


def is_plain(array: Any) -> bool:
    """Yes."""
    return True


def check_dense(array: Any) -> None:
    """NumPy's arrays are."""


def bits(array: AnyArray) -> AnyArray:
    """Return the array itself."""
    return array


def from_bits(array: AnyArray, dtype: Any) -> AnyArray:
    """Return the array itself."""
    return array


def cat(arrays: Sequence[AnyArray]) -> AnyArray:
    """Join arrays along their first axis."""
    return np.concatenate(arrays)


def gather(array: AnyArray, index: AnyArray) -> AnyArray:
    """Rows of an array by number."""
    return array[index]


def scatter(count: int, fill: AnyArray, values: AnyArray, index: AnyArray) -> AnyArray:
    """Rows at `index`, and `fill` elsewhere."""
    out = np.empty((count, *values.shape[1:]), values.dtype)
    out[...] = fill
    out[index] = values
    return out


def scatter_sum(count: int, values: AnyArray, index: AnyArray) -> AnyArray:
    """Sums of rows at `index`; floats are added up in float64 and rounded once."""
    whole = values.dtype.kind in "biu"
    found = np.int64 if whole else np.dtype(np.float32) if values.dtype.itemsize < 4 else values.dtype
    if values.dtype.kind == "f" and values.ndim == 1:  # most often; a third of the time
        return np.bincount(index, values, count).astype(found)
    out = np.zeros((count, *values.shape[1:]), np.int64 if whole else np.result_type(found, np.float64))
    np.add.at(out, index, values.astype(out.dtype, copy=False))
    return out.astype(found, copy=False)


def cast(array: AnyArray, dtype: Any) -> AnyArray:
    """Cast, checked; rows that are placed, Rust casts, and checks."""
    wanted = np.dtype(dtype)
    if array.dtype == wanted:
        return array
    if wanted.kind in "iub" and array.dtype.kind not in "iub":
        raise TypeError(f"cannot cast {array.dtype} to {wanted} without loss; round it first")
    with np.errstate(over="ignore", invalid="ignore"):
        found = array.astype(wanted)
    if np.can_cast(array.dtype, wanted):
        return found
    if wanted.kind in "iub":
        odd = found != array
    else:
        odd = (np.isinf(found) != np.isinf(array)) | (np.isnan(found) != np.isnan(array))
    if odd.any():
        raise Unfit(array, odd, str(wanted))
    return found


def dtype_of(array: AnyArray) -> Any:
    """The array's own."""
    return array.dtype


def is_host(array: Any) -> bool:
    """Yes."""
    return True


def is_traced(array: Any) -> bool:
    """No."""
    return False


def to_host(array: Any) -> AnyArray:
    """Return the array, or one of what a list holds."""
    return np.asarray(memory(array))


def from_host(array: AnyArray, like: Any) -> AnyArray:
    """Return the array itself."""
    return array


def device(array: Any) -> None:
    """Nowhere else."""
    return


def index(array: AnyArray, like: Any) -> AnyArray:
    """Return the array itself."""
    return array


def is_integer(array: Any) -> bool:
    """Whether the dtype is one of integers."""
    return array.dtype.kind in "iu"


def run(function: Callable[..., Any], *arrays: Any, **static: Any) -> Any:
    """Call the function with this module and the arrays."""
    return function(sys.modules[__name__], *arrays, **static)


def arange(count: int, like: Any) -> AnyArray:
    """0, 1, 2 and so on."""
    return np.arange(count, dtype=np.int32)


def zeros(shape: tuple[int, ...], like: Any) -> AnyArray:
    """Zeros."""
    return np.zeros(shape, np.int32)


def signed(array: AnyArray) -> AnyArray:
    """Integers that subtract: int32 where all of the dtype fit, else int64."""
    return array.astype(np.int32, copy=False) if np.can_cast(array.dtype, np.int32) else wide(array)


def wide(array: AnyArray) -> AnyArray:
    """Cast to int64; what is beyond becomes the largest."""
    if array.dtype == np.uint64:
        array = np.minimum(array, np.uint64(2**63 - 1))
    return array.astype(np.int64, copy=False)


def int32(array: AnyArray) -> AnyArray:
    """Cast to int32."""
    return array.astype(np.int32, copy=False)


where = np.where


def within(ids: AnyArray, most: int) -> AnyArray:
    """Ids from 1 to `most`, and 0 for all others."""
    return np.where((ids > 0) & (ids <= most), ids, 0).astype(np.int32)


def shift(rows: AnyArray) -> AnyArray:
    """Each element becomes the one before it, the first 0."""
    return np.concatenate([np.zeros_like(rows[:, :1]), rows[:, :-1]], axis=-1)


def flip(rows: AnyArray) -> AnyArray:
    """Reverse the last axis."""
    return rows[..., ::-1]


def cumsum(rows: AnyArray) -> AnyArray:
    """Running sums along the last axis."""
    return np.cumsum(rows, axis=-1, dtype=np.int32)


def carry_back(factors: AnyArray, terms: AnyArray) -> AnyArray:
    """Each term, and its factor times what the term after it has become."""
    found = terms.copy()
    for at in range(terms.shape[-1] - 2, -1, -1):
        factor = factors[..., at]
        found[..., at] += np.where(factor == 0, 0, factor * found[..., at + 1])
    return found


def latest(flags: AnyArray) -> AnyArray:
    """Where the last flag that is set is, at each element or before it; -1 where there is none."""
    found: AnyArray = np.maximum.accumulate(np.where(flags, arange(flags.shape[-1], flags), -1), axis=-1)
    return found


def rank(flags: AnyArray) -> AnyArray:
    """How many flags are set, at each element or before it."""
    return cumsum(flags)


def nth(flags: AnyArray, count: int) -> AnyArray:
    """Where each row's first `count` flags that are set are, and the width where there are fewer."""
    return search(rank(flags), arange(count, flags) + 1)


def search(rows: AnyArray, values: AnyArray) -> AnyArray:
    """How many elements of each row are below each value."""
    if not len(rows):
        return np.zeros((0, len(values)), np.int32)
    return np.stack([np.searchsorted(row, values) for row in rows]).astype(np.int32)


def count(size: int, index: AnyArray) -> AnyArray:
    """How often each index below `size` occurs."""
    found = np.zeros((len(index), size + 1), np.int32)
    np.add.at(found, (_rows(index), np.minimum(index, size)), 1)
    return found[:, :size]


def present(size: int, index: AnyArray) -> AnyArray:
    """Whether each index below `size` occurs."""
    table = np.zeros((len(index), size), bool)
    table[_rows(index), index] = True
    return table


def table_min(size: int, index: AnyArray, values: AnyArray) -> AnyArray:
    """The smallest value of each index."""
    table = np.full((len(index), size), np.iinfo(values.dtype).max, values.dtype)
    np.minimum.at(table, (_rows(index), index), values)
    return table


def table_max(size: int, index: AnyArray, values: AnyArray) -> AnyArray:
    """The largest value of each index."""
    table = np.full((len(index), size), np.iinfo(values.dtype).min, values.dtype)
    np.maximum.at(table, (_rows(index), index), values)
    return table


def look_up(table: AnyArray, index: AnyArray) -> AnyArray:
    """The number that each row of a table has at each index of the row."""
    return np.take_along_axis(table, index, 1)


def _rows(index: AnyArray) -> AnyArray:
    return np.arange(len(index))[:, None]


def take(array: AnyArray, order: list[int], axis: int) -> AnyArray:
    """Elements along an axis, by a few numbers."""
    if not array.size:  # NumPy goes over all that is before the axis, though there is nothing in it
        shape = list(array.shape)
        shape[axis] = len(order)
        return np.empty(shape, array.dtype)
    return np.take(array, order, axis)


def picked(logits: AnyArray, rows: AnyArray, ids: AnyArray, *, repeats: int, normalised: bool) -> AnyArray:
    """What each row has for its id, normalised; float32."""
    if normalised:
        return logits[rows, ids].astype(np.float32)
    found = np.empty(len(rows), np.float32)
    step = max(_PART // max(logits.shape[1], 1), 1)
    for i in range(0, len(rows), step):
        values = logits[rows[i : i + step]].astype(np.float32)
        chosen = np.take_along_axis(values, ids[i : i + step, None], 1)[:, 0]
        largest = values.max(1, initial=-np.inf, keepdims=True)
        np.exp(np.subtract(values, largest, out=values), out=values)
        found[i : i + step] = chosen - largest[:, 0] - np.log(values.sum(1))
    return found


def native(array: NDArray[Any]) -> NDArray[Any]:
    """An array in the machine's byte order, which torch and JAX have alone; itself where it is."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
