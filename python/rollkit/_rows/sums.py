"""What rows have together of the tokens that they share: sums, and whether they agree."""

from __future__ import annotations

from typing import Any

import numpy as np

from rollkit._arrays.ops import ops
from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._rows.laid import Laid
from rollkit._rows.parts import Parts, end_to_end, place_parts, same_rows, taken


def summed_rows(parts: Parts, layout: Laid, placed: Int64s) -> Any:
    """Add up, at every element of the output, what the rows that have it have there.

    Args:
        parts: the rows, whole.
        layout: where they are.
        placed: `[rows]` int64: the elements of each that are.
    """
    check_numbers(parts)
    values = _placed_values(parts, layout, placed)
    own = parts.own or ops("numpy")
    summed = own.scatter_sum(layout.size, values, layout.indices(own, values))
    return summed.reshape(*layout.shape, *parts.inner)


def equal_rows(parts: Parts, layout: Laid) -> Any:
    """Place rows that agree where they share elements, or refuse the first that does not."""
    check_numbers(parts)
    out = place_parts(parts, layout.written, 0)
    found, offsets = taken(out, layout)
    # A view of all, where rows lie end to end.
    found, offsets = found[offsets[0] : offsets[-1]], offsets - offsets[0]
    given = _placed_values(parts, layout, np.diff(offsets))
    own = parts.own or ops("numpy")
    if own.is_traced(given):
        raise TypeError(
            "column has no values yet, and whether rows agree is read off them; call reduce outside of jit, "
            "or take the first: how='first'"
        )
    a, b = own.to_host(found), own.to_host(given)  # what is given out keeps its gradient
    odd = (a != b) & ((a == a) | (b == b))  # NaN equals NaN here
    if odd.any():
        at = int(odd.reshape(len(odd), -1).any(axis=1).argmax())
        row = int(np.searchsorted(offsets, at, side="right")) - 1
        text = " differs from what another row has at a token that they share"
        raise refusal(ValueError, text, row=row, position=at - int(offsets[row]))
    return out


def check_numbers(parts: Parts) -> None:
    """Refuse lists per token, which do not add up."""
    if parts.of_lists:
        raise TypeError("a list per token is brought into a forest by how='first' alone")


def _placed_values(parts: Parts, layout: Laid, placed: Int64s) -> Any:
    """The elements of rows that are placed, row after row."""
    same_rows(parts.lengths, layout.written.row_lengths)
    return end_to_end(parts.spans(np.zeros_like(placed), placed))[0]
