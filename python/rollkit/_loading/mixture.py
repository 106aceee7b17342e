"""Several data sets in exact shares: `Mixture`."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import gcd
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check
from rollkit._check import Int64s
from rollkit._loading.digest import digits, key
from rollkit._loading.sampler import NO_DATA, Sampler
from rollkit._rows.order import permuted

MOST_TURNS: Final = 10_000
"""Turns before a mixture's pattern repeats: shares of four digits."""


class _Source(NamedTuple):
    name: str
    data: Any
    size: int
    weight: int
    seed: int


class Mixture:
    """Several packed data sets as one, in exact shares: pack first, mix after.

    Item `i` is of the source whose turn is the `i`-th: of any number of items in a row, from the first on, a
    source has its share, and less than one item more or less. Each source is given in an order of its own,
    shuffled anew whenever it has been given whole. So nothing needs to be stored: any item is found by its
    number, and a place in the order is a number, for all ranks.

    An epoch, `len(mixture)` items, ends when the first of the sources has been given whole; the next goes on
    where it ended. Items beyond an epoch have numbers too: `mixture.sampler` gives the next epoch's.

    Args:
        sources: name to `(data, weight)`: `rollkit.Bins`, or any sequence; weights of at most four digits
            (3 and 1, or 0.75 and 0.25), and what they mean is shares of the items.
        seed: of the orders, 0 or more.
        length: items of an epoch.

    Raises:
        ValueError: no source, an empty one, a weight that is not above 0 or has too many digits.

    Example:
        >>> mixture = Mixture({"math": (["m0", "m1", "m2"], 3), "code": (["c0", "c1"], 1)}, seed=0)
        >>> len(mixture), [mixture.where(i)[0] for i in range(8)]
        (4, ['math', 'math', 'code', 'math', 'math', 'math', 'code', 'math'])

    References:
        Turns are those of R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980: from
        an exact share no count is ever further than 1 - 1 / (2 · sources - 2).
    """

    def __init__(
        self, sources: Mapping[str, tuple[Sequence[Any], float]], *, seed: int, length: int | None = None
    ) -> None:
        seed = _check.positive("seed", seed, least=0)
        self._sources = _checked(_check.mapping("sources", sources), seed)
        self._turns = _turns([source.weight for source in self._sources])  # the source of each
        self._counts = np.zeros_like(self._turns)  # how many turns it had before, of these
        for i, source in enumerate(self._sources):
            self._counts[self._turns == i] = np.arange(source.weight)
        whole = min(self._first_repeat(i) for i in range(len(self._sources)))
        self._length = whole if length is None else _check.positive("length", length)

    def _first_repeat(self, i: int) -> int:
        """The first item that is of a source, and was given before."""
        rounds, turn = divmod(self._sources[i].size, self._sources[i].weight)
        return rounds * len(self._turns) + int(np.flatnonzero(self._turns == i)[turn])

    @property
    def names(self) -> list[str]:
        """The sources' names."""
        return [source.name for source in self._sources]

    @property
    def plan(self) -> str:
        """What the order is of: names, shares, sizes and what data that has a `plan` says."""
        named = [(s.name, s.weight, s.size, s.seed, str(getattr(s.data, "plan", ""))) for s in self._sources]
        return digits((self._length, named))

    def __len__(self) -> int:
        return self._length

    def where(self, i: int) -> tuple[str, int]:
        """The source of item `i`, and its number there.

        Raises:
            IndexError: `i` is negative.
        """
        ((source, number),) = self._where([i])
        return source.name, number

    def __getitem__(self, i: int) -> Any:
        ((source, number),) = self._where([i])
        return source.data[number]

    def __iter__(self) -> Iterator[Any]:
        """The items of an epoch: by numbers alone there is no end."""
        return (self[i] for i in range(len(self)))

    def __getitems__(self, items: Sequence[int]) -> list[Any]:
        """Several items, those of a source in one call: what torch's `DataLoader` asks for."""
        found: list[Any] = [None] * len(items)
        places: dict[str, list[tuple[int, int, Any]]] = {}
        for at, (source, number) in enumerate(self._where(items)):
            places.setdefault(source.name, []).append((at, number, source.data))
        for mine in places.values():
            data, numbers = mine[0][2], [number for _, number, _ in mine]
            many = getattr(data, "__getitems__", None)
            got = [data[number] for number in numbers] if many is None else many(numbers)
            for (at, _, _), item in zip(mine, got, strict=True):
                found[at] = item
        return found

    def _where(self, items: ArrayLike) -> list[tuple[_Source, int]]:
        numbers = _check.int64s("items", items)
        if (odd := numbers < 0).any():
            raise IndexError(f"item {numbers[odd][0]} is out of range: items are numbered from 0")
        rounds, turns = np.divmod(numbers, len(self._turns))
        found = []
        for of, round_, before in zip(self._turns[turns], rounds.tolist(), self._counts[turns], strict=True):
            source = self._sources[of]
            epoch, place = divmod(round_ * source.weight + int(before), source.size)
            number = permuted([place], source.size, seed=source.seed, epoch=epoch)
            found.append((source, int(number[0])))
        return found

    def sampler(
        self, *, epoch: int = 0, rank: int = 0, world_size: int = 1, remainder: str = "drop"
    ) -> Sampler:
        """The items' numbers, epoch after epoch, dealt to ranks; states as those of `ShuffledSampler`."""
        return _InTurn(self, epoch=epoch, rank=rank, world_size=world_size, remainder=remainder)

    def __repr__(self) -> str:
        total = sum(source.weight for source in self._sources)
        shares = ", ".join(f"{s.weight / total:.4g} {s.name} ({s.size:,})" for s in self._sources)
        return f"Mixture({self._length:,} items: {shares})"


class _InTurn(Sampler):
    """The items of a mixture: each epoch goes on after the one before."""

    def _order(self, positions: Int64s, epoch: int) -> Int64s:
        return positions + epoch * self._n

    @property
    def _name(self) -> tuple[Any, ...]:
        return ()


def _checked(sources: Mapping[str, Any], seed: int) -> list[_Source]:
    if not sources:
        raise ValueError("sources is empty; give at least one {name: (data, weight)}")
    shares, sizes = [], []
    for name, given in sources.items():
        try:
            data, weight = given
            if isinstance(data, NO_DATA):
                raise TypeError
            sizes.append(operator.index(len(data)))
        except (TypeError, ValueError):
            got = f"({', '.join(type(x).__name__ for x in given)})" if isinstance(given, tuple) else ""
            got = got or type(given).__name__
            text = f"sources[{name!r}] must be (data, weight), data being taken by number, got {got}"
            raise TypeError(text) from None
        shares.append(_fraction(name, weight))
        if not sizes[-1]:
            raise ValueError(f"sources[{name!r}] is empty; leave it out")
    whole = sum(shares, Fraction(0))
    parts = [share / whole for share in shares]
    turns = 1
    for part in parts:
        turns = turns * part.denominator // gcd(turns, part.denominator)
    if turns > MOST_TURNS:
        after = f"weights repeat after {_check.shown(turns)} turns"
        raise ValueError(f"{after}, at most {MOST_TURNS:,} are planned; round them")
    return [
        _Source(name, given[0], size, int(part * turns), key(seed, name))
        for (name, given), size, part in zip(sources.items(), sizes, parts, strict=True)
    ]


def _fraction(name: str, weight: Any) -> Fraction:
    """A weight as it is written: 0.1 is a tenth."""
    number = _check.number(f"the weight of {name!r}", weight)
    try:
        found = Fraction(str(number))
    except ValueError:
        found = Fraction(0)
    if found <= 0:
        raise ValueError(f"the weight of {name!r} must be a number above 0, got {number}")
    return found


def _turns(weights: Sequence[int]) -> Int64s:
    """Which source each turn is of: Tijdeman's, whose share is due and whose deadline is next."""
    total, count = sum(weights), len(weights)
    if count == 1:
        return np.zeros(total, np.int64)
    slack = 2 * count - 2
    due = [0] * count  # share so far less turns had, times total
    found = np.empty(total, np.int64)
    for turn in range(total):
        due = [had + weight for had, weight in zip(due, weights, strict=True)]
        found[turn] = best = min(
            (i for i in range(count) if due[i] * slack >= total),
            key=lambda i: (((slack - 1) * total - slack * due[i]) / weights[i], i),
        )
        due[best] -= total
    return found
