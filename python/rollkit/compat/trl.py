"""`pad`, `flush_left`, `pack_dataset`, `DataCollatorForLanguageModeling`, `tree_columns`: as in TRL 1.16.

Of the first two, dense tensors on the CPU go through Rust, over shared memory. All others, and tensors that a
gradient goes through, torch moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rollkit._check import Int64s
from rollkit._extras import extra
from rollkit._frameworks import Tensor
from rollkit._rows.layout import Layout
from rollkit._rows.same import place_same
from rollkit.compat._trl_collator import DataCollatorForLanguageModeling as DataCollatorForLanguageModeling
from rollkit.compat._trl_dataset import pack_dataset as pack_dataset
from rollkit.compat._trl_tree import tree_columns as tree_columns
from rollkit.compat._values import need_values

__all__ = ["DataCollatorForLanguageModeling", "flush_left", "pack_dataset", "pad", "tree_columns"]


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
    width, inner = shape[0], shape[1:]
    if pad_to_multiple_of is not None:
        width += -width % pad_to_multiple_of
    first = tensors[0]
    # Torch's conversion of the value, or its error. Of one element alone it checks less.
    fill = torch.full((2,), padding_value, dtype=first.dtype, device=first.device)[0]
    if padding_side not in ("left", "right"):
        raise ValueError(f"padding_side must be 'left' or 'right', got {padding_side!r}")
    lengths = [len(tensor) for tensor in tensors]
    if width < max(lengths):
        raise RuntimeError(f"the longest tensor has {max(lengths)} elements, more than {width}")
    rows = [_widened(tensor.to(first), inner, padding_value) for tensor in tensors]
    return place_same(rows, Layout.pad(lengths, side=padding_side, width=width), fill)


def _widened(tensor: Tensor, inner: list[int], padding_value: float) -> Tensor:
    """Pad all dimensions but the first on the right."""
    missing = [wanted - size for wanted, size in zip(inner, tensor.shape[1:], strict=True)]
    if not any(missing):
        return tensor
    # From the last dimension on, before and after; not `functional.pad`, which takes any value for a float.
    sizes = [size for count in reversed(missing) for size in (0, count)]
    return extra("torch", "torch").constant_pad_nd(tensor, sizes, padding_value)


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
    need_values("mask", mask)
    _, width = mask.shape
    begins = mask.argmax(dim=1).cpu().numpy()
    rolled = _Rolled.by(begins, width, width).of(mask)
    empty = (rolled.sum(dim=0) == 0).nonzero()
    kept = int(empty[0]) if len(empty) else width
    if not tensors:
        return rolled[:, :kept]
    shorter = _Rolled.by(begins, width, kept)
    return rolled[:, :kept], *(shorter.of(tensor) for tensor in tensors)


@dataclass(frozen=True, slots=True)
class _Rolled:
    """Rows rolled to the left, and cut off.

    Attributes:
        width: of the rows.
        begins: `[2 * rows]`, where in the flattened rows the two pieces of each begin.
        layout: where these go.
    """

    width: int
    begins: Int64s
    layout: Layout

    @classmethod
    def by(cls, begins: Int64s, width: int, kept: int) -> _Rolled:
        """The first `kept` columns of each row from `begins` on, and on from the row's start."""
        heads, lines = np.minimum(width - begins, kept), np.arange(len(begins))
        starts = _alternating(lines * kept, lines * kept + heads)
        layout = Layout.at((len(begins), kept), starts, _alternating(heads, kept - heads))
        return cls(width, _alternating(lines * width + begins, lines * width), layout)

    def of(self, tensor: Tensor) -> Tensor:
        rows = self.layout.shape[0]
        if tensor.dim() != 2 or tensor.shape[0] < rows or tensor.shape[1] < self.width:
            raise RuntimeError(f"a tensor has shape {list(tensor.shape)}, the mask has {[rows, self.width]}")
        return place_same([tensor[:rows, : self.width].flatten()], self.layout, begins=[self.begins])


def _alternating(first: Int64s, second: Int64s) -> Int64s:
    return np.stack([first, second], axis=1).reshape(-1)
