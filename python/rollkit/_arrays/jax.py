"""JAX: device arrays."""

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit._arrays import jax_bits, jax_logprobs
from rollkit._arrays.numpy import native
from rollkit._errors import Unfit
from rollkit._extras import extra

jax = extra("jax", "jax")
jnp = jax.numpy
lax = jax.lax
AnyArray = NDArray[Any]

IN_PLACE: Final = False


def from_numpy(array: AnyArray, device: Any, options: Mapping[str, Any]) -> Any:
    """Return a JAX array; on the CPU it shares aligned memory.

    Raises:
        OverflowError: 64-bit numbers that do not fit JAX, which has 32 bits unless told otherwise.
    """
    return moved(narrowed(array), device, options)


def narrowed(array: AnyArray) -> AnyArray:
    """The array with the numbers that JAX has: of 32 bits, unless told otherwise.

    Raises:
        OverflowError: 64-bit numbers that do not fit.
    """
    array = native(array)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and not jax.config.jax_enable_x64:
        narrow = np.dtype(np.int32 if array.dtype.kind == "i" else np.uint32)
        bounds = np.iinfo(narrow)
        if array.size and (array.min() < bounds.min or array.max() > bounds.max):
            raise OverflowError(f"{array.dtype} values beyond {narrow}; set jax_enable_x64")
        array = array.astype(narrow)
    wanted = (
        jax.dtypes.canonicalize_dtype(array.dtype) if array.dtype in (np.float64, np.complex128) else None
    )
    if wanted is not None and wanted != array.dtype:
        with np.errstate(over="ignore"):
            narrow_floats = array.astype(wanted)
        if (np.isinf(narrow_floats) != np.isinf(array)).any():
            raise OverflowError(f"{array.dtype} values beyond {wanted}; set jax_enable_x64")
        array = narrow_floats
    return array


def moved(array: Any, device: Any, options: Mapping[str, Any]) -> Any:
    """Return the array on a device, where it is if None."""
    if isinstance(device, str):
        device = device_named(device) or jax.devices(device)
    return jax.device_put(array, device, **options)


def device_named(device: Any) -> Any:
    """A device or sharding of JAX (`"cpu"`, `"cuda:1"`); None if this names none."""
    if isinstance(device, jax.Device | jax.sharding.Sharding):
        return device
    if not isinstance(device, str):
        return None
    platform, _, number = device.partition(":")
    if not platform:
        return None  # JAX's default
    try:
        return jax.devices(platform)[int(number or 0)]
    except (RuntimeError, ValueError, IndexError):
        return None


def register_tree(
    kind: type,
    flat: Callable[[Any], tuple[Sequence[str], Sequence[Any], Any]],
    made: Callable[[Iterable[Any], Any], Any],
) -> None:
    """Let a class be a pytree; `flat` gives names, arrays and what is static."""

    def with_keys(found: Any) -> Any:
        names, arrays, static = flat(found)
        return list(zip(map(jax.tree_util.DictKey, names), arrays, strict=True)), static

    jax.tree_util.register_pytree_with_keys(
        kind,
        with_keys,
        lambda static, leaves: made(leaves, static),
        lambda found: flat(found)[1:],
    )


def memory(array: Any) -> AnyArray:
    """The array's memory as NumPy's: without a copy where it is one piece on the CPU."""
    if is_traced(array):
        raise TypeError(
            "got a traced JAX array, which has no values yet; pass it outside of jit, grad or vmap"
        )
    return np.asarray(array)


def is_plain(array: Any) -> bool:
    """Whether Rust may move the array: one with values, on the CPU."""
    return is_host(array)


def check_dense(array: Any) -> None:
    """JAX's arrays are."""


def bits(array: Any) -> AnyArray:
    """The array's memory as NumPy's: JAX brings the dtypes that NumPy has not."""
    return memory(array)


def from_bits(array: AnyArray, dtype: Any) -> Any:
    """Return a JAX array of the same dtype."""
    return from_numpy(array, None, {})


def cat(arrays: Sequence[Any]) -> Any:
    """Join arrays along their first axis."""
    return jnp.concatenate(arrays)


def gather(array: Any, index: Any) -> Any:
    """Rows of an array by number."""
    return array.at[index].get(mode="promise_in_bounds")


def scatter(count: int, fill: Any, values: Any, index: Any) -> Any:
    """Rows at `index`, and `fill` elsewhere."""
    out = jnp.broadcast_to(fill.astype(values.dtype), (count, *values.shape[1:]))
    return out.at[index].set(values, unique_indices=True, mode="promise_in_bounds")


def scatter_sum(count: int, values: Any, index: Any) -> Any:
    """Sums of rows at `index`."""
    if not jnp.issubdtype(values.dtype, jnp.inexact):
        values = wide(values)
    elif values.dtype.itemsize < 4:
        values = values.astype(jnp.float32)
    return jnp.zeros((count, *values.shape[1:]), values.dtype).at[index].add(values, mode="promise_in_bounds")


def cast(array: Any, dtype: Any) -> Any:
    """Cast, checked; of a traced array, only what cannot fail.

    Whether floats have become infinite is looked at in the host's memory only: elsewhere that would wait
    for the device.
    """
    wanted = jnp.dtype(dtype)
    if array.dtype == wanted:
        return array
    if wanted.itemsize > 4 and jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise TypeError(f"JAX has no {wanted} unless jax_enable_x64 is set; set it, or ask for 32 bits")
    if array.dtype.kind == "c" and wanted.kind != "c":
        raise TypeError(
            f"cannot cast {array.dtype} to {wanted} without loss; take its real part or its magnitude first"
        )
    if wanted.kind in "iub":
        if array.dtype.kind not in "iub":
            raise TypeError(f"cannot cast {array.dtype} to {wanted} without loss; round it first")
        if not jnp.can_cast(array.dtype, wanted):
            _check_range(array, wanted)
    found = array.astype(wanted)
    if wanted.kind in "fVc":
        small = wanted.itemsize < 4 and is_integer(array) and not is_traced(array)
        if small or (is_host(array) and wanted.itemsize <= array.dtype.itemsize and not is_integer(array)):
            odd = (jnp.isinf(found) != jnp.isinf(array)) | (jnp.isnan(found) != jnp.isnan(array))
            if odd.any():
                raise Unfit(to_host(array), to_host(odd), str(wanted))
    return found


def _check_range(array: Any, wanted: Any) -> None:
    if is_traced(array):
        raise TypeError(f"cannot check that {array.dtype} values fit {wanted} while tracing; cast first")
    low, high = (0, 1) if wanted.kind == "b" else (jnp.iinfo(wanted).min, jnp.iinfo(wanted).max)
    least, most = (int(array.min()), int(array.max())) if array.size else (low, low)
    if least < low or most > high:
        values = to_host(array)
        raise Unfit(values, (values < low) | (values > high), str(wanted))


def dtype_of(array: Any) -> Any:
    """The array's own; float32 for floats that NumPy has from elsewhere."""
    return array.dtype if array.dtype.kind != "V" else np.dtype(np.float32)


def is_host(array: Any) -> bool:
    """Whether this is an array in one piece on the CPU."""
    if is_traced(array):
        return False
    devices = array.devices()
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"


def is_traced(array: Any) -> bool:
    """Whether this is one of `jit`, `vmap` and so on."""
    return isinstance(array, jax.core.Tracer)


def to_host(array: Any) -> AnyArray:
    """Return the array's memory, or a copy of it from a device."""
    return np.asarray(array)


def from_host(array: AnyArray, like: Any) -> Any:
    """Return an array on the device of `like`; where that is several and the shape another, on each."""
    if is_traced(like):
        return from_numpy(array, None, {})
    sharding = like.sharding
    if array.shape != like.shape and not isinstance(sharding, jax.sharding.SingleDeviceSharding):
        devices = np.array(sorted(sharding.device_set, key=lambda device: device.id))
        mesh = getattr(sharding, "mesh", None) or jax.sharding.Mesh(devices, ("devices",))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return from_numpy(array, sharding, {})


def device(array: Any) -> None:
    """JAX puts the host's indices where they are needed."""
    return


def index(array: AnyArray, like: Any) -> AnyArray:
    """Return the array itself, a constant where traced."""
    return array


def is_integer(array: Any) -> bool:
    """Whether the dtype is one of integers."""
    return bool(jnp.issubdtype(array.dtype, jnp.integer))


def run(function: Callable[..., Any], *arrays: Any, **static: Any) -> Any:
    """Call the function with this module and the arrays, compiled."""
    return _compiled(function, tuple(sorted(static)))(*arrays, **static)


@functools.cache
def _compiled(function: Callable[..., Any], static: tuple[str, ...]) -> Any:
    return jax.jit(functools.partial(function, sys.modules[__name__]), static_argnames=static)


def arange(count: int, like: Any) -> Any:
    """0, 1, 2 and so on."""
    return jnp.arange(count, dtype=jnp.int32)


def zeros(shape: tuple[int, ...], like: Any) -> Any:
    """Zeros."""
    return jnp.zeros(shape, jnp.int32)


def signed(array: Any) -> Any:
    """Integers that subtract: int32 where all of the dtype fit, else `wide`."""
    return array.astype(jnp.int32) if jnp.can_cast(array.dtype, jnp.int32) else wide(array)


def wide(array: Any) -> Any:
    """Cast to int64, without 64 bits to int32; what is beyond becomes the largest."""
    dtype = jnp.int64 if jax.config.jax_enable_x64 or array.dtype == jnp.int64 else jnp.int32
    if not jnp.can_cast(array.dtype, dtype):
        array = jnp.minimum(array, jnp.array(jnp.iinfo(dtype).max, array.dtype))
    return array.astype(dtype)


def int32(array: Any) -> Any:
    """Cast to int32."""
    return array.astype(jnp.int32)


where = jnp.where


def within(ids: Any, most: int) -> Any:
    """Ids from 1 to `most`, and 0 for all others."""
    wide = ids if ids.dtype.itemsize >= 4 else ids.astype(jnp.int32)
    return jnp.where((wide > 0) & (wide <= most), wide, 0).astype(jnp.int32)


def shift(rows: Any) -> Any:
    """Each element becomes the one before it, the first 0."""
    # Unlike a slice and a concatenation, this is fused into whatever reads it.
    return lax.pad(rows, jnp.zeros((), rows.dtype), ((0, 0, 0), (1, -1, 0))) if rows.shape[-1] else rows


def flip(rows: Any) -> Any:
    """Reverse the last axis."""
    return jnp.flip(rows, -1)


def cumsum(rows: Any) -> Any:
    """Running sums along the last axis."""
    return jnp.cumsum(rows, axis=-1, dtype=jnp.int32)


def carry_back(factors: Any, terms: Any) -> Any:
    """Each term, and its factor times what the term after it has become."""

    def joined(after: Any, before: Any) -> Any:
        (further, term), (factor, own) = after, before
        return factor * further, jnp.where(factor == 0, own, own + factor * term)

    factors = jnp.broadcast_to(factors, terms.shape)
    return lax.associative_scan(joined, (factors, terms), reverse=True, axis=terms.ndim - 1)[1]


nth = jax_bits.nth
latest = jax_bits.latest
rank = jax_bits.rank
picked = jax_logprobs.picked


def search(rows: Any, values: Any) -> Any:
    """How many elements of each row are below each value."""
    return jax.vmap(lambda row: jnp.searchsorted(row, values))(rows).astype(jnp.int32)


def count(size: int, index: Any) -> Any:
    """How often each index below `size` occurs."""
    index = jnp.minimum(index, size)
    found = jnp.zeros(index.shape[0] * (size + 1), jnp.int32)
    found = found.at[_flat(index, size + 1)].add(1, mode="promise_in_bounds")
    return found.reshape(index.shape[0], size + 1)[:, :size]


def present(size: int, index: Any) -> Any:
    """Whether each index below `size` occurs."""
    table = jnp.zeros(index.shape[0] * size, bool)
    found = table.at[_flat(index, size)].set(True, mode="promise_in_bounds")
    return found.reshape(index.shape[0], size)


def table_min(size: int, index: Any, values: Any) -> Any:
    """The smallest value of each index."""
    table = jnp.full(index.shape[0] * size, jnp.iinfo(values.dtype).max, values.dtype)
    found = table.at[_flat(index, size)].min(values.reshape(-1), mode="promise_in_bounds")
    return found.reshape(index.shape[0], size)


def table_max(size: int, index: Any, values: Any) -> Any:
    """The largest value of each index."""
    table = jnp.full(index.shape[0] * size, jnp.iinfo(values.dtype).min, values.dtype)
    found = table.at[_flat(index, size)].max(values.reshape(-1), mode="promise_in_bounds")
    return found.reshape(index.shape[0], size)


def look_up(table: Any, index: Any) -> Any:
    """The number that each row of a table has at each index of the row."""
    found = table.reshape(-1).at[_flat(index, table.shape[1])].get(mode="promise_in_bounds")
    return found.reshape(index.shape)


def _flat(index: Any, width: int) -> Any:
    """Indices of rows as indices into all of them."""
    if index.shape[0] * width > np.iinfo(np.int32).max:
        raise OverflowError(
            f"{index.shape[0]} rows of {width} table entries are beyond int32; pass fewer rows at a time"
        )
    return (index + jnp.arange(index.shape[0], dtype=jnp.int32)[:, None] * width).reshape(-1)


def take(array: Any, order: list[int], axis: int) -> Any:
    """Elements along an axis, by a few numbers."""
    return jnp.take(array, np.array(order, np.int32), axis, mode="clip")
