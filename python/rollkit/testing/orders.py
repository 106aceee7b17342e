"""Orders, in plain Python: a keyed permutation."""

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
