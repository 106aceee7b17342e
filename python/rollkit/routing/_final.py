"""What the row of the last token holds, for which an engine sends no routes."""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np

from rollkit._check import Int64s, choice, positive
from rollkit._frameworks import AnyArray

FINALS: Final = ("repeat", "zeros", "arange", "cycle", "sentinel")


def cycled(position: int | Int64s, inner: tuple[int, ...], experts: int) -> Int64s:
    """The rows of `"cycle"` at positions of a sequence: each goes on where the one before ended."""
    row = np.asarray(position)[..., None] * prod(inner) + np.arange(prod(inner))
    return (row % experts).reshape(np.shape(position) + inner)


def final_row(
    final: str | None,
    dtype: np.dtype[Any],
    inner: tuple[int, ...],
    num_experts: int | None,
    position: int | Int64s = 0,
) -> AnyArray | None:
    """The row that a policy writes; `None` where it writes none, or the one before (`"repeat"`).

    `"cycle"` is that of the row's position in its sequence, so that rows of many sequences are spread; of
    `[rows]` positions there are as many.
    """
    if final is None:
        return None
    choice("final", final, FINALS)
    if final == "repeat":
        return None
    if final == "cycle":
        if num_experts is None:
            raise ValueError("final='cycle' needs num_experts, how many there are to cycle over")
        # A row then has no expert twice, which dropless dispatch cannot take.
        count = positive("num_experts", num_experts, least=max(inner[-1], 1))
        row = cycled(position, inner, count)
    else:
        one = {"zeros": 0, "arange": np.arange(inner[-1]), "sentinel": -1}[final]
        row = np.broadcast_to(np.asarray(one), inner)
    bounds = np.iinfo(dtype)
    if row.size and not (bounds.min <= row.min() and row.max() <= bounds.max):
        worst = row.min() if row.min() < bounds.min else row.max()
        raise OverflowError(
            f"final={final!r} writes {worst}, which {dtype} does not hold; widen the routes first, such as "
            "with decode_routes(payload).astype(np.int32)"
        )
    return row.astype(dtype)
