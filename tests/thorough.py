"""How much the tests try: `ROLLKIT_THOROUGH=0` every kind of case, `1` every combination, `2` for hours.

`make test` is 0, `.ci/run` sets 1, `make soak` 2.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

LEVEL = int(os.environ.get("ROLLKIT_THOROUGH") or 0)


def by_level(*counts: int) -> int:
    """Return the count of this level; the last is for all higher ones."""
    return counts[min(LEVEL, len(counts) - 1)]


def examples(count: int) -> int:
    """How many examples hypothesis tries where `count` are thorough."""
    return by_level(count // 4, count, count * 25)


def combinations(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Every combination of the values of axes; at level 0 only so many that each value is in one.

    The next is always the one with the most new values; of those, the one with the most new pairs of values;
    of those, the one whose values are in the fewest.
    """
    lists = [list(axis) for axis in axes]
    whole = list(itertools.product(*(range(len(axis)) for axis in lists)))
    chosen = whole if LEVEL else _covering(whole)
    return [tuple(axis[number] for axis, number in zip(lists, numbers, strict=True)) for numbers in chosen]


def _covering(whole: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    seen: Counter[Any] = Counter()

    def gain(numbers: tuple[int, ...]) -> tuple[int, int, int]:
        values = list(enumerate(numbers))
        pairs = itertools.combinations(values, 2)
        return (
            sum(not seen[value] for value in values),
            sum(not seen[pair] for pair in pairs),
            -sum(seen[value] for value in values),
        )

    chosen = []
    while gain(best := max(whole, key=gain))[0]:
        chosen.append(best)
        values = list(enumerate(best))
        seen.update([*values, *itertools.combinations(values, 2)])
    return chosen
