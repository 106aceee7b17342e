"""Torch tensors as bytes for the kernels, which move rows of any dtype by their size."""

from typing import Any, Final

from rollkit._extras import extra
from rollkit._frameworks import AnyArray

Tensor = Any
"""A `torch.Tensor`. torch is imported where it is used, never with rollkit."""

_BITS: Final = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}


def is_plain(tensor: Any, shape: Any = None) -> bool:
    """Whether Rust can read the tensor: a dense one on the CPU that no gradient goes through."""
    torch = extra("torch", "torch")
    return (
        type(tensor) is torch.Tensor
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not tensor.is_quantized
        and not (tensor.requires_grad and torch.is_grad_enabled())
        and (shape is None or tensor.shape == shape)
    )


def bits(tensor: Tensor) -> AnyArray:
    """Return the memory of a plain tensor as an array of its item size: NumPy has no bfloat16 or fp8."""
    torch = extra("torch", "torch")
    found = tensor.detach().resolve_conj().resolve_neg()
    named = _BITS.get(tensor.element_size())
    array: AnyArray = (found if named is None else found.view(getattr(torch, named))).numpy()
    return array


def from_bits(array: AnyArray, dtype: Any) -> Tensor:
    """Return a tensor of `dtype` over the memory of `array`: the inverse of `bits`."""
    return extra("torch", "torch").from_numpy(array).view(dtype)
