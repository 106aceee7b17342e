"""torch: tensors over NumPy's memory."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit._arrays import torch_logprobs
from rollkit._arrays.numpy import native
from rollkit._errors import Unfit
from rollkit._extras import extra

torch = extra("torch", "torch")
AnyArray = NDArray[Any]

IN_PLACE: Final = True

_FAKE: Final = torch._subclasses.FakeTensor

_BITS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_NOT_SCATTERED: Final = frozenset(
    ["uint16", "uint32", "uint64", *(name for name in dir(torch) if name.startswith("float8_"))]
)
"""Dtypes that torch has no `index_copy` for; their bits move as integers."""


def from_numpy(array: AnyArray, device: Any, options: Mapping[str, Any]) -> Any:
    """Return a tensor that shares the array's memory, or a copy of it on another device."""
    array = np.ascontiguousarray(native(array))
    if array.dtype.kind == "V" or array.dtype.isbuiltin == 2:  # bfloat16 and fp8, of ml_dtypes
        named = getattr(torch, array.dtype.name, None)
        if named is None:
            raise TypeError(f"torch has no dtype like {array.dtype}")
        tensor = from_bits(
            array.view(f"i{array.dtype.itemsize}" if array.dtype.itemsize > 1 else "u1"), named
        )
    else:
        tensor = _shared(array)
    return moved(tensor, device, options)


def moved(array: Any, device: Any, options: Mapping[str, Any]) -> Any:
    """Return the tensor on a device, where it is if None."""
    return array.to(device=device, **options) if device is not None or options else array


def device_named(device: Any) -> Any:
    """A `torch.device`; None if this names none."""
    if isinstance(device, torch.device):
        return device
    if not isinstance(device, str | int) or isinstance(device, bool):
        return None  # without asking torch.device: some other objects end the process there
    try:
        return torch.device(device)
    except (RuntimeError, ValueError):
        return None


def register_tree(
    kind: type,
    flat: Callable[[Any], tuple[Sequence[str], Sequence[Any], Any]],
    made: Callable[[Iterable[Any], Any], Any],
) -> None:
    """Let a class be a pytree; `flat` gives names, arrays and what is static."""
    tree = torch.utils._pytree

    def with_keys(found: Any) -> Any:
        names, arrays, static = flat(found)
        return [(tree.MappingKey(name), array) for name, array in zip(names, arrays, strict=True)], static

    tree.register_pytree_node(
        kind,
        lambda found: (list(flat(found)[1]), flat(found)[2]),
        made,
        serialized_type_name=f"rollkit.{kind.__name__}",
        flatten_with_keys_fn=with_keys,
    )


def jagged(values: Any, offsets: AnyArray) -> Any:
    """A jagged nested tensor over values and offsets; those in the host's memory are shared."""
    tensor = values if isinstance(values, torch.Tensor) else from_numpy(values, None, {})
    begin, end, lengths = int(offsets[0]), int(offsets[-1]), np.diff(offsets)
    bounds = _shared(offsets - begin if begin else offsets).to(tensor.device)
    shortest, longest = (int(lengths.min()), int(lengths.max())) if len(lengths) else (0, 0)
    # Without them torch pads to as many as there are elements in all.
    return torch.nested.nested_tensor_from_jagged(
        tensor[begin:end], bounds, min_seqlen=shortest, max_seqlen=longest
    )


def of_jagged(tensor: Any) -> tuple[Any, AnyArray] | None:
    """Values and offsets of a jagged nested tensor; None of one with holes, or of another layout."""
    if tensor.layout != torch.jagged or tensor.lengths() is not None or tensor._ragged_idx != 1:
        return None
    return tensor.values(), tensor.offsets().cpu().numpy().astype(np.int64, copy=False)


def memory(array: Any) -> AnyArray:
    """The tensor's memory as NumPy's, without a copy."""
    if is_traced(array):
        raise TypeError("got a torch tensor without values (meta device, compiler or vmap); use a real one")
    if array.device.type != "cpu":
        raise TypeError(f"got a torch tensor on {array.device}; move it with .cpu() first")
    if array.layout != torch.strided:
        raise TypeError(f"got a torch tensor of layout {array.layout}; pass a dense one, or a list of rows")
    if array.requires_grad and torch.is_grad_enabled():
        raise TypeError("got a torch tensor with a gradient, which would be lost; pass .detach()")
    return _named(array)


def _named(tensor: Any) -> AnyArray:
    named = str(tensor.dtype).removeprefix("torch.")
    if named == "bfloat16" or named.startswith("float8"):
        import ml_dtypes  # NumPy has these dtypes only through it; the bits are the same

        found: AnyArray = bits(tensor).view(getattr(ml_dtypes, named))
        return found
    plain: AnyArray = tensor.detach().resolve_conj().resolve_neg().numpy()
    return plain


def bits(tensor: Any) -> AnyArray:
    """The memory of a CPU tensor as integers of its item size: NumPy has no bfloat16 or fp8."""
    found = tensor.detach().resolve_conj().resolve_neg()
    named = _BITS.get(tensor.element_size())
    array: AnyArray = (found if named is None else found.view(named)).numpy()
    return array


def from_bits(array: AnyArray, dtype: Any) -> Any:
    """Return a tensor of `dtype` over the memory of `array`: the inverse of `bits`."""
    return _shared(array).view(dtype)


def _shared(array: AnyArray) -> Any:
    if array.flags.writeable:
        return torch.from_numpy(array)  # a tenth of the time
    with warnings.catch_warnings():
        # A read-only array (from Arrow, Ray or a map) makes a tensor that must not be written to.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def is_plain(array: Any) -> bool:
    """Whether Rust may move the tensor: a dense one on the CPU that no gradient goes through."""
    return (
        is_host(array)
        and not array.is_nested
        and array.layout == torch.strided
        and not array.is_quantized
        and not (array.requires_grad and torch.is_grad_enabled())
    )


def check_dense(array: Any) -> None:
    """Refuse a tensor that is not one block of elements."""
    if array.is_nested or array.layout != torch.strided:
        kind = "nested" if array.is_nested else f"of layout {array.layout}"
        raise TypeError(f"got a torch tensor that is {kind}; pass a dense one, or a list of rows")


def cat(arrays: Sequence[Any]) -> Any:
    """Join tensors along their first axis."""
    return torch.cat(list(arrays))


def gather(array: Any, index: Any) -> Any:
    """Rows of a tensor by number."""
    return array.index_select(0, index)


def scatter(count: int, fill: Any, values: Any, index: Any) -> Any:
    """Rows at `index`, and `fill` elsewhere."""
    fill = fill.to(values.dtype)
    if str(values.dtype).removeprefix("torch.") in _NOT_SCATTERED and not values.requires_grad:
        named = _BITS[values.element_size()]
        return scatter(count, fill.view(named), values.view(named), index).view(values.dtype)
    out = fill.expand(count, *values.shape[1:]).contiguous()
    return out.index_copy(0, index, values)


def scatter_sum(count: int, values: Any, index: Any) -> Any:
    """Sums of rows at `index`."""
    if not values.dtype.is_floating_point and not values.dtype.is_complex:
        values = values.long()
    elif values.element_size() < 4:
        values = values.float()
    return values.new_zeros((count, *values.shape[1:])).index_add(0, index, values)


def cast(array: Any, dtype: Any) -> Any:
    """Cast, checked; of a tensor without values, only what cannot fail.

    Whether floats have become infinite is looked at in the host's memory only: elsewhere that would wait
    for the device.
    """
    wanted = dtype if isinstance(dtype, torch.dtype) else _over_numpy(dtype)
    if array.dtype == wanted:
        return array
    if array.dtype.is_complex and not wanted.is_complex:
        raise TypeError(
            f"cannot cast {array.dtype} to {wanted} without loss; take its real part or its magnitude first"
        )
    if not wanted.is_floating_point and not wanted.is_complex:
        _check_whole(array, wanted)
    found = array.to(wanted)
    if wanted.is_floating_point or wanted.is_complex:
        small = wanted.itemsize < 4 and is_integer(array) and not is_traced(array)
        if small or (is_host(array) and wanted.itemsize <= array.dtype.itemsize and not is_integer(array)):
            _check_finite(array, found)
    return found


def _check_whole(array: Any, wanted: Any) -> None:
    if array.dtype.is_floating_point:
        raise TypeError(f"cannot cast {array.dtype} to {wanted} without loss; round it first")
    (least, most), (low, high) = _bounds(array.dtype), _bounds(wanted)
    if low <= least and most <= high:
        return
    if is_traced(array):
        raise TypeError(f"cannot check that {array.dtype} values fit {wanted} while tracing; cast first")
    least, most = (int(array.min()), int(array.max())) if array.numel() else (low, low)
    if least < low or most > high:
        values = to_host(array)
        raise Unfit(values, (values < low) | (values > high), _name(wanted))


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _check_finite(array: Any, found: Any) -> None:
    """Refuse numbers that became none of a smaller float."""
    if found.is_complex():
        found, array = torch.view_as_real(found.detach()), torch.view_as_real(array.detach())
    wide = found.detach().double()
    odd = (wide.isinf() != array.isinf()) | (wide.isnan() != array.isnan())
    if odd.any():
        raise Unfit(to_host(array), to_host(odd), _name(found.dtype))


def _bounds(dtype: Any) -> tuple[int, int]:
    return (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)


def _over_numpy(dtype: Any) -> Any:
    named = getattr(torch, np.dtype(dtype).name, None)
    if not isinstance(named, torch.dtype):
        raise TypeError(f"torch has no dtype like {np.dtype(dtype)}")
    return named


def dtype_of(array: Any) -> Any:
    """NumPy's dtype of the same name, or float32 for the floats that NumPy does not have."""
    try:
        return np.dtype(str(array.dtype).removeprefix("torch."))
    except TypeError:
        return np.dtype(np.float32)


def is_host(array: Any) -> bool:
    """Whether this is a plain CPU tensor, and not that of the compiler, or of `torch.vmap`."""
    plain = type(array) in (torch.Tensor, torch.nn.Parameter) and array.device.type == "cpu"
    return plain and not is_traced(array)


def is_traced(array: Any) -> bool:
    """Whether this is a tensor of the compiler or of `torch.vmap`, or has a shape only."""
    if torch.compiler.is_compiling():
        return True
    if array.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(array):
        return True
    return type(array) is not torch.Tensor and isinstance(array, _FAKE)


def to_host(array: Any) -> AnyArray:
    """Return the tensor's memory, or a copy of it from a device, without its gradient."""
    return memory(array.detach().cpu())


def from_host(array: AnyArray, like: Any) -> Any:
    """Return a tensor on the device of `like`, also of inference mode none that is its."""
    where = None if like.device.type == "cpu" else like.device
    if not torch.is_inference_mode_enabled():
        return from_numpy(array, where, {})
    with torch.inference_mode(False):  # it may be kept, and what is indexed with it later may be trained
        return from_numpy(array, where, {})


def device(array: Any) -> Any:
    """The tensor's own."""
    return array.device


def index(array: AnyArray, like: Any) -> Any:
    """Return a tensor on the device of `like`, also of inference mode none that is its."""
    with torch.inference_mode(False):  # what is indexed with it later may be trained
        return torch.tensor(array, dtype=torch.int64, device=like.device)


def is_integer(array: Any) -> bool:
    """Whether the dtype is one of integers."""
    return not (array.dtype.is_floating_point or array.dtype.is_complex or array.dtype == torch.bool)


def run(function: Callable[..., Any], *arrays: Any, **static: Any) -> Any:
    """Call the function with this module and the tensors, of dtypes that torch computes with."""
    # Not `sys.modules[__name__]`: in a first call, torch.compile does not see the new entry.
    from rollkit._arrays import torch as operations

    return function(operations, *map(_computable, arrays), **static)


def _computable(array: Any) -> Any:
    """Unsigned integers of 16 bits and more as signed ones: torch neither adds nor compares them."""
    if array is None or array.dtype not in (torch.uint16, torch.uint32, torch.uint64):
        return array
    found = array.long()
    # What is beyond int64 is the largest, so that order stays.
    return torch.where(found < 0, 2**63 - 1, found) if array.dtype == torch.uint64 else found


def arange(count: int, like: Any) -> Any:
    """0, 1, 2 and so on."""
    return torch.arange(count, dtype=torch.int32, device=like.device)


def zeros(shape: tuple[int, ...], like: Any) -> Any:
    """Zeros."""
    return torch.zeros(shape, dtype=torch.int32, device=like.device)


def signed(array: Any) -> Any:
    """Integers that subtract: int32 where all of the dtype fit, else int64."""
    return array if array.dtype == torch.int64 else array.to(torch.int32)  # `run` casts what is wider


def wide(array: Any) -> Any:
    """Cast to int64."""
    return array.long()


def int32(array: Any) -> Any:
    """Cast to int32."""
    return array.to(torch.int32)


where = torch.where
picked = torch_logprobs.picked


def within(ids: Any, most: int) -> Any:
    """Ids from 1 to `most`, and 0 for all others."""
    wide = ids if ids.dtype in (torch.int32, torch.int64) else ids.long()
    near = wide.clamp(0, most)
    return (near * (near == wide)).int()


def shift(rows: Any) -> Any:
    """Each element becomes the one before it, the first 0."""
    return torch.nn.functional.pad(rows, (1, -1)) if rows.shape[-1] else rows


def flip(rows: Any) -> Any:
    """Reverse the last axis."""
    return rows.flip(-1)


def cumsum(rows: Any) -> Any:
    """Running sums along the last axis."""
    return torch.cumsum(rows, -1, dtype=torch.int32)


def carry_back(factors: Any, terms: Any) -> Any:
    """Each term, and its factor times what the term after it has become: over 2, 4, 8 terms and so on."""
    width = 1
    while width < terms.shape[-1]:
        after = torch.nn.functional.pad(terms[..., width:], (0, width))
        terms = torch.where(factors == 0, terms, terms + factors * after)
        factors = factors * torch.nn.functional.pad(factors[..., width:], (0, width))
        width *= 2
    return terms


def latest(flags: Any) -> Any:
    """Where the last flag that is set is, at each element or before it; -1 where there is none."""
    found = torch.where(flags, arange(flags.shape[-1], flags), -1)
    return torch.cummax(found, -1).values if flags.shape[-1] else found


def rank(flags: Any) -> Any:
    """How many flags are set, at each element or before it."""
    return cumsum(flags)


def nth(flags: Any, count: int) -> Any:
    """Where each row's first `count` flags that are set are, and the width where there are fewer."""
    if not flags.shape[-1]:
        return zeros((flags.shape[0], count), flags)
    return search(rank(flags), arange(count, flags) + 1)


def search(rows: Any, values: Any) -> Any:
    """How many elements of each row are below each value."""
    wanted = values + rows.new_zeros((rows.shape[0], 1))  # not `expand`: under vmap, that is not contiguous
    return torch.searchsorted(rows.contiguous(), wanted, out_int32=True)


def count(size: int, index: Any) -> Any:
    """How often each index below `size` occurs; `bincount` would wait for a device to tell the largest."""
    table = zeros((index.shape[0], size + 1), index)
    # In memory: torch takes twice as long to add one number over and over.
    ones = torch.ones_like(index, dtype=torch.int32)
    # Not in place, here and below: `torch.vmap` refuses that where only the index is mapped.
    return table.scatter_add(1, index.clamp(max=size).long(), ones)[:, :size]


def present(size: int, index: Any) -> Any:
    """Whether each index below `size` occurs."""
    table = torch.zeros((index.shape[0], size), dtype=torch.bool, device=index.device)
    return table.scatter(1, index.long(), True)


def table_min(size: int, index: Any, values: Any) -> Any:
    """The smallest value of each index."""
    return _table(size, index, values, "amin", torch.iinfo(values.dtype).max)


def table_max(size: int, index: Any, values: Any) -> Any:
    """The largest value of each index."""
    return _table(size, index, values, "amax", torch.iinfo(values.dtype).min)


def _table(size: int, index: Any, values: Any, reduce: str, none: int) -> Any:
    table = torch.full((index.shape[0], size), none, dtype=values.dtype, device=values.device)
    return table.scatter_reduce(1, index.long(), values, reduce)


def look_up(table: Any, index: Any) -> Any:
    """The number that each row of a table has at each index of the row."""
    # Indexing with a tensor takes seven times as long.
    return table.gather(1, index.long())


def take(array: Any, order: list[int], axis: int) -> Any:
    """Elements along an axis, by a few numbers."""
    return array.index_select(axis, torch.tensor(order, device=array.device))
