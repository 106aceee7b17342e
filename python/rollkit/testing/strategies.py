"""Strategies that draw rows, layouts and rollouts.

They need hypothesis, which is imported when one is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.layout import Layout
from rollkit._rows.ragged import Ragged

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def lengths(max_rows: int = 8, max_length: int = 9) -> SearchStrategy[list[int]]:
    """Row lengths, many of them 0 and many alike.

    Example:
        >>> import hypothesis
        >>> @hypothesis.given(lengths())
        ... def check(rows):
        ...     assert Layout.concat(rows).size == sum(rows)
        >>> check()
    """
    from hypothesis import strategies as st

    length = st.integers(0, max_length) | st.sampled_from([0, 1, max_length])
    return st.lists(length, max_size=max_rows)


def layouts(
    row_lengths: Sequence[int] | NDArray[np.integer] | None = None,
    *,
    pieces: bool | None = None,
    covering: bool = False,
    max_rows: int = 6,
    max_length: int = 9,
) -> SearchStrategy[Layout]:
    """Layouts of every kind: whole rows end to end, padded or packed, and pieces of rows in any order.

    Rows are split, have windows and holes, or no piece at all; pieces are empty or dropped, and lie on one
    line or several, with gaps.

    Args:
        row_lengths: of the rows that are laid; drawn unless given.
        pieces: whether layouts are of pieces; of either kind unless given.
        covering: every element of every row has a place.
        max_rows: at most that many rows, where they are drawn.
        max_length: of a row, where they are drawn.

    Example:
        >>> import hypothesis
        >>> from rollkit.testing import take_reference
        >>> @hypothesis.given(layouts(covering=True))
        ... def check(layout):
        ...     assert take_reference(layout.positions(), layout) == [[*range(n)] for n in layout.row_lengths]
        >>> check()
    """
    from hypothesis import strategies as st

    @st.composite
    def draw_one(draw: Any) -> Layout:
        rows = draw(lengths(max_rows, max_length)) if row_lengths is None else [int(n) for n in row_lengths]
        split = draw(st.booleans()) if pieces is None else pieces
        return _draw_pieces(draw, rows, covering) if split else _draw_whole(draw, rows, covering)

    return draw_one()


def _draw_whole(draw: Any, rows: list[int], covering: bool) -> Layout:
    from hypothesis import strategies as st

    kind = draw(
        st.sampled_from(["concat", "left", "right", "alone", "truncate", "drop"][: 4 if covering else 6])
    )
    align = draw(st.integers(1, 3))
    if kind == "concat":
        return Layout.concat(rows, align=align)
    if kind in ("left", "right"):
        return Layout.pad(rows, side=kind, multiple_of=align)
    return Layout.pack(rows, draw(st.integers(1, 12)), align=align, oversize=kind)


def _draw_pieces(draw: Any, rows: list[int], covering: bool) -> Layout:
    from hypothesis import strategies as st

    found: list[tuple[int, int, int]] = []  # row, begin, length
    for row, length in enumerate(rows):
        cuts = draw(st.lists(st.integers(0, length), max_size=3))
        bounds = [0, *sorted(cuts), length]
        found += [(row, a, b - a) for a, b in pairwise(bounds) if covering or draw(st.integers(0, 3))]
    found = draw(st.permutations(found))
    width = max([length for *_, length in found], default=0) + draw(st.integers(0, 3))
    flat = draw(st.booleans())
    starts, free = [], 0
    for *_, length in found:
        free += draw(st.sampled_from([0, 0, 0, 1, 3])) if width else 0
        if not flat and width and length > width - free % width:
            free += width - free % width
        starts.append(-1 if not length and draw(st.booleans()) else free)
        free += length
    lines = -(-free // width) if width else draw(st.integers(0, 2))
    shape = (free + draw(st.integers(0, 2)),) if flat else (lines + draw(st.integers(0, 1)), width)
    source_rows, begins, sizes = zip(*found, strict=True) if found else ((), (), ())
    wanted = [np.array(values, np.int64) for values in (starts, sizes, rows, source_rows, begins)]
    return Layout(shape, *wanted)


DTYPES = (
    *(np.dtype(kind) for kind in "?bhilBHILefdFDSU"),
    np.dtype(">i4"),
    np.dtype(">f8"),
    np.dtype("M8[s]"),
    np.dtype([("a", "<i4"), ("b", "<f2")]),
)
"""Dtypes that `raggeds` draws from unless told otherwise: of every kind that holds no Python objects."""


def raggeds(
    dtypes: Sequence[DTypeLike] = DTYPES,
    inners: Sequence[tuple[int, ...]] = ((), (3,), (2, 2), (0,)),
    max_rows: int = 8,
    max_length: int = 9,
) -> SearchStrategy[Ragged]:
    """Rows of any dtype and inner shape, some of them a slice of more rows, or over strided memory.

    Example:
        >>> import hypothesis
        >>> @hypothesis.given(raggeds([np.int32], inners=[()]))
        ... def check(rows):
        ...     assert sum(map(len, rows)) == rows.lengths.sum()
        >>> check()
    """
    from hypothesis import strategies as st

    @st.composite
    def draw_one(draw: Any) -> Ragged:
        sizes = np.array(draw(lengths(max_rows, max_length)), np.int64)
        dtype = np.dtype(draw(st.sampled_from(list(dtypes))))
        dtype = np.dtype(f"{dtype.kind}5") if dtype.itemsize == 0 else dtype
        inner = draw(st.sampled_from(list(inners)))
        before, after, step = draw(
            st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([1, 1, -2]))
        )
        total = int(sizes.sum()) + before + after
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        memory = _any_values(rng, (total * abs(step), *inner), dtype)[::step]
        offsets = np.append(0, sizes.cumsum()) + before
        ragged = Ragged(memory, offsets)
        first = draw(st.integers(0, 1))
        return ragged[first:] if draw(st.booleans()) else ragged

    return draw_one()


def _any_values(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    numbers = rng.integers(0, 100, shape)
    if dtype.names:
        values = np.empty(shape, dtype)
        for name in dtype.names:
            values[name] = numbers
        return values
    return numbers.astype(dtype)


def rollouts(max_rows: int = 6, max_length: int = 6) -> SearchStrategy[Rollouts]:
    """Rollouts with every known column and some unknown ones; prompts and responses may be empty.

    Example:
        >>> import hypothesis
        >>> @hypothesis.given(rollouts())
        ... def check(drawn):
        ...     assert len(drawn["response_ids"]) == len(drawn)
        >>> check()
    """
    return rollout_rows(max_rows, max_length).map(Rollouts.from_rows)


def rollout_rows(max_rows: int = 6, max_length: int = 6) -> SearchStrategy[list[dict[str, Any]]]:
    """What `rollouts` is made of: one dict of lists and numbers per rollout, at least one.

    Example:
        >>> import hypothesis
        >>> @hypothesis.given(rollout_rows())
        ... def check(rows):
        ...     assert all(len(row["loss_masks"]) == len(row["response_ids"]) for row in rows)
        >>> check()
    """
    from hypothesis import strategies as st

    @st.composite
    def draw_rows(draw: Any) -> list[dict[str, Any]]:
        size = st.integers(0, max_length) | st.sampled_from([0, 1])
        sizes = draw(st.lists(st.tuples(size, size), min_size=1, max_size=max_rows))
        short = draw(st.integers(0, 3))
        per_token = draw(st.booleans())
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))

        def floats(count: int) -> list[float]:
            drawn: list[float] = (rng.integers(-99, 99, count) / 4).tolist()
            return drawn

        return [
            {
                "prompt_token_ids": rng.integers(1, 99, prompt).tolist(),
                "response_ids": rng.integers(1, 99, response).tolist(),
                "loss_masks": rng.integers(0, 2, response).tolist(),
                "rollout_logprobs": floats(response),
                "rewards": floats(response) if per_token else float(rng.integers(1, 9) * bool(response)),
                "stop_reasons": "stop" if rng.integers(2) else "length",
                "rollout_expert_indices": rng.integers(
                    0, 64, (max(prompt + response - short, int(prompt + response > 1)), 2, 3)
                ).tolist(),
                "is_last_step": bool(rng.integers(2)),
                "advantages": floats(response),
                "token_types": rng.integers(0, 9, prompt + response).tolist(),
            }
            for prompt, response in sizes
        ]

    return draw_rows()
