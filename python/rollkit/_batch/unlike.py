"""Equal tokens that are not equal inputs: warnings of `pack(share_prefixes=True)`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from rollkit._check import Int64s
from rollkit._errors import warn
from rollkit._rollouts.forest import Forest
from rollkit._rollouts.sources import Sources, on_host
from rollkit._rows.ragged import Ragged

ROUTES: Final = "rollout_expert_indices"

IMAGES: Final = ("image_grid_thw", "images", "multi_modal_data", "multi_modal_inputs", "pixel_values")
"""What columns of what the tokens of images stand for are called."""


def warn_of_unlike(sources: Sources, forest: Forest, groups: Any, match: Any) -> None:
    """Warn where rows share tokens that may be other inputs in each; called by what `pack` calls.

    Args:
        sources: the rollouts.
        forest: what they share.
        groups: what restricts that; who gives groups says which rows have the same images.
        match: the columns that agree.
    """
    if forest.unique == forest.tokens:
        return
    matched = [match] if isinstance(match, str) else list(match)
    if ROUTES in sources.tokens and ROUTES not in matched:
        text = _other_routes(on_host(sources.tokens[ROUTES]), forest)
        if text is not None:
            warn(text)
    if groups is None and not matched:
        for name in IMAGES:
            if name in sources.rows or name in sources.tokens:
                text = (
                    f"column {name!r}: equal tokens may stand for other images, and rollouts share them; say "
                    "which may by groups=, or by match= a column of the images' ids per token"
                )
                warn(text)
                return


def _other_routes(routes: Ragged, forest: Forest) -> str | None:
    """What there is to say of the first token that rows share, and have other experts for."""
    for row, other, begin, end in _shared_spans(forest, routes.lengths):
        mine, theirs = routes[row][begin:end], routes[other][begin:end]
        both = min(len(mine), len(theirs))  # at the end of a row there may be none
        if np.array_equal(mine[:both], theirs[:both]):
            continue
        odd = (mine[:both] != theirs[:both]).reshape(both, -1).any(axis=1)
        return (
            f"column {ROUTES!r}: row {row}, position {begin + int(odd.argmax())} has other experts than row "
            f"{other}, with which it shares this token; where routes are replayed, let rows share tokens of "
            f"the same experts alone: match={ROUTES!r}"
        )
    return None


def _shared_spans(forest: Forest, lengths: Int64s) -> Iterator[tuple[int, int, int, int]]:
    """Each row with one before it that shares nodes, and where these begin and end; from the leaf up.

    Of the rows before it, it is the first with the longest column: what equals that equals all of them.
    """
    longest: dict[int, int] = {}
    parents, ends = forest.parents.tolist(), forest.ends.tolist()
    sizes = lengths.tolist()
    for row, node in enumerate(forest.leaf.tolist()):
        last, end = row, 0  # with whom the nodes below are shared, in one span, and where that ends
        while node >= 0:
            other = longest.setdefault(node, row)
            if other != last:
                if last != row:
                    yield row, last, ends[node], end
                last, end = other, ends[node]
            if sizes[row] > sizes[other]:
                longest[node] = row
            node = parents[node]
        if last != row:
            yield row, last, 0, end
