"""Slow, obvious versions of forests: a dictionary of prefixes, and every ancestor of every token."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rollkit._rows.layout import Layout
from rollkit._rows.trees import TreeLayout

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def shared_reference(
    rows: Sequence[Sequence[Any]],
    groups: Sequence[Hashable] | None = None,
    match: Sequence[Sequence[Sequence[Any]]] = (),
    min_shared: int = 1,
) -> list[list[int]]:
    """Which token of `rollkit.Forest.build` each token of each row is, numbered as they come.

    Example:
        >>> shared_reference([[5, 6, 7], [5, 6, 8], [6]])
        [[0, 1, 2], [0, 1, 3], [4]]
        >>> shared_reference([[5, 6], [5, 7]], min_shared=2)
        [[0, 1], [2, 3]]
    """
    known: dict[Any, int] = {}
    found = []
    for number, row in enumerate(rows):
        group = None if groups is None else groups[number]
        # An element of a column that a row lacks is like another that is lacked.
        columns = [list(row), *([*column[number]] for column in match)]
        cells = [tuple(repr(column[i : i + 1]) for column in columns) for i in range(len(row))]
        alone = number if len(row) < min_shared else None
        first = tuple(cells[:min_shared])
        keys = [(group, alone, first, tuple(cells[: i + 1])) for i in range(len(cells))]
        found.append([known.setdefault(key, len(known)) for key in keys])
    return found


def tree_mask_reference(layout: TreeLayout | Layout) -> NDArray[np.bool_]:
    """`[T, T]` bool: which token attends to which, itself among them, from where each row is.

    Example:
        >>> from rollkit import Forest
        >>> tree_mask_reference(Forest.build([[5, 6], [5, 7]]).pack(3)).astype(int)
        array([[1, 0, 0],
               [1, 1, 0],
               [1, 0, 1]])
    """
    found = np.zeros((layout.size, layout.size), bool)
    indices, offsets = layout.gather_indices(), layout.row_offsets()
    for begin, end in pairwise(offsets):
        path = indices[begin:end]
        for i, token in enumerate(path):
            found[token, path[: i + 1]] = True
    return found


def visible_reference(layout: TreeLayout | Layout) -> NDArray[np.bool_]:
    """`[T, T]` bool, as `tree_mask_reference`, from what `visible_until` says.

    Example:
        >>> visible_reference(Layout.pack([2, 1], capacity=4)).astype(int)
        array([[1, 0, 0, 0],
               [1, 1, 0, 0],
               [0, 0, 1, 0],
               [0, 0, 0, 0]])
    """
    ends, width = layout.visible_until().reshape(-1).tolist(), layout.width
    found = np.zeros((layout.size, layout.size), bool)
    for key, end in enumerate(ends):
        found[key : key // width * width + end, key] = True
    return found


def forest_rows(max_rows: int = 10, max_length: int = 8) -> SearchStrategy[list[list[int]]]:
    """Rows of tokens that begin alike: equal ones, empty ones, ones that others begin with.

    Example:
        >>> import hypothesis
        >>> @hypothesis.given(forest_rows())
        ... def check(rows):
        ...     assert all(len(row) <= 8 for row in rows)
        >>> check()
    """
    from hypothesis import strategies as st

    @st.composite
    def draw_rows(draw: Any) -> list[list[int]]:
        rows: list[list[int]] = []
        for _ in range(draw(st.integers(0, max_rows))):
            before = draw(st.sampled_from(rows)) if rows and draw(st.booleans()) else []
            kept = draw(st.integers(0, len(before)))
            more = draw(st.lists(st.integers(0, 2), max_size=max_length - kept))
            rows.append([*before[:kept], *more])
        return rows

    return draw_rows()
