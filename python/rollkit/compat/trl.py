"""`pad` and `flush_left` as in `trl.trainer.utils` of TRL 1.16.

Dense tensors on the CPU go through Rust, over shared memory. All others, and tensors that a gradient
goes through, take plain torch operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rollkit._check import Int64s
from rollkit._extras import extra
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts, place_parts
from rollkit._rows.place import place
from rollkit.compat._torch import Tensor, bits, from_bits, is_plain

__all__ = ["flush_left", "pad"]


def pad(
    tensors: Sequence[Tensor] | Tensor,
    padding_value: float = 0,
    padding_side: str = "right",
    pad_to_multiple_of: int | None = None,
) -> Tensor:
    """Stack tensors of different lengths, padded along the first dimension (and where others differ).

    Args:
        tensors: each `[length, *inner]`. The first one's dtype and device are the result's: the others
            are converted as torch assigns, unchecked.
        padding_value: what padding holds.
        padding_side: `"left"` or `"right"`, of the first dimension; inner ones are padded on the right.
        pad_to_multiple_of: the width is rounded up to a multiple of this.

    Returns:
        `[len(tensors), width, *inner]`.

    Raises:
        ValueError: there are no tensors, they differ in rank, or the side is neither of the two.
        IndexError: the tensors have no dimension.
        RuntimeError: the padding value does not fit the dtype.

    Source: `trl.trainer.utils.pad`.

    Example:
        >>> import torch
        >>> pad([torch.tensor([1, 2, 3]), torch.tensor([4])], padding_side="left", pad_to_multiple_of=4)
        tensor([[0, 1, 2, 3],
                [0, 0, 0, 4]])
    """
    torch = extra("torch", "torch")
    shape = np.max([tensor.shape for tensor in tensors], axis=0).tolist()
    if pad_to_multiple_of is not None:
        shape[0] += -shape[0] % pad_to_multiple_of
    first = tensors[0]
    # Torch's conversion of the value, or its error. Of one element alone it checks less.
    fill = torch.full((2,), padding_value, dtype=first.dtype, device=first.device)[:1]
    if padding_side not in ("left", "right"):
        raise ValueError(f"padding_side must be 'left' or 'right', got {padding_side!r}")
    width, inner = shape[0], shape[1:]
    alike = all(is_plain(tensor) and list(tensor.shape[1:]) == inner for tensor in tensors)
    if alike and (pad_to_multiple_of is None or pad_to_multiple_of > 0):
        rows = [bits(tensor.to(first.dtype)) for tensor in tensors]
        layout = Layout.pad([len(row) for row in rows], side=padding_side, width=width)
        return from_bits(place(rows, layout, bits(fill)[0]), first.dtype)
    out = fill.repeat(len(tensors), *shape)
    for row, tensor in enumerate(tensors):
        begin = width - len(tensor) if padding_side == "left" else 0
        inside = tuple(slice(size) for size in tensor.shape[1:])
        out[(row, slice(begin, begin + len(tensor)), *inside)] = tensor
    return out


def flush_left(mask: Tensor, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Roll each row to the left until its mask begins, and cut off where no row has a mask.

    A row rolls as a whole: what is before the mask comes after it, masked values included.

    Args:
        mask: `[rows, width]`, not bool. A row begins at the first of its greatest values.
        *tensors: of the mask's shape, rolled and cut as it is.

    Returns:
        The mask, or a tuple of the mask and the tensors: `[rows, shorter]`, dtypes and devices as given.
        They end before the first column, after rolling, whose mask adds up to 0.

    Raises:
        ValueError: the mask is not two-dimensional.
        IndexError: the mask has a width of 0.
        NotImplementedError: the mask is bool, in which torch finds no maximum.

    Source: `trl.trainer.utils.flush_left`.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0]])
        >>> flush_left(mask, torch.tensor([[9, 9, 2, 3], [8, 5, 6, 7]]))
        (tensor([[1, 1],
                [1, 1]]), tensor([[2, 3],
                [5, 6]]))
    """
    _, width = mask.shape
    begins = mask.argmax(dim=1)
    rolled = _rolled(mask, begins, mask, width)
    empty = (rolled.sum(dim=0) == 0).nonzero()
    kept = int(empty[0]) if len(empty) else width
    flushed = rolled[:, :kept]
    if not tensors:
        return flushed
    return flushed, *(_rolled(tensor, begins, mask, kept) for tensor in tensors)


def _rolled(tensor: Any, begins: Tensor, mask: Tensor, kept: int) -> Tensor:
    """The first `kept` columns of each row from `begins` on, and on from the row's start."""
    width = mask.shape[1]
    if mask.device.type == "cpu" and is_plain(tensor, mask.shape):
        return _rolled_by_rust(tensor, begins.numpy(), kept)
    # For another shape, all columns: a narrower tensor is an error even where they are cut off.
    columns = kept if tensor.shape == mask.shape else width
    index = begins.unsqueeze(1) + extra("torch", "torch").arange(columns, device=mask.device)
    return tensor.gather(1, index % width)[:, :kept]


def _rolled_by_rust(tensor: Tensor, begins: Int64s, kept: int) -> Tensor:
    rows, width = tensor.shape
    heads = np.minimum(width - begins, kept)
    tails = kept - heads
    whole = Layout.pad(np.full(rows, kept), width=kept)
    layout = Layout.union([whole.spans(0, heads), whole.spans(heads, tails)])
    flat = np.ascontiguousarray(bits(tensor)).reshape(-1)
    lines = Parts.over(flat, np.arange(rows) * width, np.full(rows, width))
    spans = [lines.spans(begins, heads), lines.spans(np.zeros_like(begins), tails)]
    return from_bits(place_parts(Parts.join(spans), layout, 0), tensor.dtype)
