"""Orders, in plain Python: a keyed permutation, and bins of rows that arrive one by one."""

from __future__ import annotations

from math import isqrt
from typing import Final

_STEP: Final = 0x9E3779B97F4A7C15
_FACTORS: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_WORD: Final = 2**64


def permuted_reference(n: int, *, seed: int, epoch: int = 0) -> list[int]:
    """Where each of 0 … n - 1 goes in the permutation that rollkit's shuffled orders are made of.

    A generalised Feistel network over `left · b + right`, 24 rounds, with cycle walking: as `src/order.rs`.

    Example:
        >>> permuted_reference(10, seed=7)
        [7, 8, 6, 4, 9, 5, 1, 0, 3, 2]
    """
    a = max(isqrt(n - 1) + 1, 1) if n else 1
    b = max(-(-n // a), 1)
    b += b % 2
    state = _mixed(_mixed(seed + _STEP) ^ (epoch * _STEP % _WORD))
    keys = [_mixed(state + _STEP * (i + 1)) for i in range(24)]
    images = []
    for number in range(n):
        image = _rounds(number, a, b, keys)
        while image >= n:
            image = _rounds(image, a, b, keys)
        images.append(image)
    return images


def _rounds(number: int, a: int, b: int, keys: list[int]) -> int:
    left, right = divmod(number, b)
    for i, key in enumerate(keys):
        if i % 2 == 0:
            left = (left + _below(right, key, a)) % a
        else:
            right = (right + _below(left, key, b)) % b
    return left * b + right


def _below(half: int, key: int, size: int) -> int:
    found = (half ^ key) * _FACTORS[0] % _WORD
    found = (found ^ found >> 32) * _FACTORS[1] % _WORD
    return found * size // _WORD


def _mixed(word: int) -> int:
    word %= _WORD
    word = (word ^ word >> 30) * _FACTORS[0] % _WORD
    word = (word ^ word >> 27) * _FACTORS[1] % _WORD
    return word ^ word >> 31


class OnlinePackerReference:
    """`rollkit.OnlinePacker`, by a look at every waiting row or open bin for every row.

    Takes what it does, but checks nothing; bins are lists.

    Example:
        >>> packer = OnlinePackerReference(8, buffer=2)
        >>> [packer.add(row, length) for row, length in enumerate([5, 7, 3, 1])]
        [[], [], [], [[0, 2]]]
        >>> packer.flush()
        [[1, 3]]
    """

    def __init__(
        self,
        capacity: int,
        *,
        buffer: int = 64,
        policy: str = "look_ahead",
        max_wait: int | None = None,
        max_segments: int | None = None,
        align: int = 1,
    ) -> None:
        """Begin without a row."""
        self.slots, self.align = max(capacity // align, 1), align
        self.buffer, self.looks_ahead, self.max_wait = buffer, policy == "look_ahead", max_wait
        self.most = max_segments
        self.added = 0
        self.waiting: list[tuple[int, int, int]] = []  # row, length, when it came: the oldest first
        self.bins: list[list[tuple[int, int, int]]] = []

    def add(self, row: int, length: int) -> list[list[int]]:
        """Add a row; return the bins that are complete now."""
        out: list[list[int]] = []
        came = (row, length, self.added)
        self.added += 1
        if self.looks_ahead:
            self.waiting.append(came)
            while len(self.waiting) >= self.buffer:
                if not self._take():
                    out += self._out()
                    self.bins.append([self.waiting.pop(0)])
        else:
            fitting = [bin for bin in self.bins if self._fits(bin, length)]
            if fitting:
                min(fitting, key=self._room).append(came)
            else:
                out += self._out() if len(self.bins) >= self.buffer else []
                self.bins.append([came])
        if self.max_wait is not None:
            while (self.bins or self.waiting) and self.added - self._oldest() > self.max_wait:
                out += self._complete()
        return out

    def flush(self) -> list[list[int]]:
        """Return the bins of all rows that are left."""
        out: list[list[int]] = []
        while self.bins or self.waiting:
            out += self._complete()
        return out

    def _oldest(self) -> int:
        return (self.bins[0] if self.bins else self.waiting)[0][2]

    def _need(self, length: int) -> int:
        return min(-(-length // self.align), self.slots)

    def _room(self, bin: list[tuple[int, int, int]]) -> int:
        return self.slots - sum(self._need(length) for _, length, _ in bin)

    def _fits(self, bin: list[tuple[int, int, int]], length: int) -> bool:
        return self._need(length) <= self._room(bin) and (self.most is None or len(bin) < self.most)

    def _take(self) -> bool:
        fitting = [row for row in self.waiting if self.bins and self._fits(self.bins[0], row[1])]
        if fitting:
            longest = max(fitting, key=lambda row: row[1])  # of equally long ones the first
            self.bins[0].append(longest)
            self.waiting.remove(longest)
        return bool(fitting)

    def _complete(self) -> list[list[int]]:
        if not self.bins:
            self.bins.append([self.waiting.pop(0)])
        while self._take():
            pass
        return self._out()

    def _out(self) -> list[list[int]]:
        return [[row for row, _, _ in self.bins.pop(0)]] if self.bins else []
