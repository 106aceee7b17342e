"""Orders without memory: a keyed permutation of 0 … n - 1, any part of it by itself.

What these functions return is a promise, for every version and platform: a run that is resumed goes on in it.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from rollkit import _check, _native
from rollkit._check import Int64s


def permuted(numbers: ArrayLike, n: int, *, seed: int, epoch: int = 0) -> Int64s:
    """Return where numbers go in a random-looking permutation of 0 … n - 1, each by itself.

    Nothing is stored: a million of 10¹⁰ numbers cost as much as a million of a million, about 33 ns each.
    Read as an order, `permuted(np.arange(n), n, seed=…)` is what comes first, second, …

    Args:
        numbers: `[numbers]` ints from 0 to n - 1.
        n: how many are permuted, at most 2⁶³ - 1.
        seed: which permutation, 0 or more.
        epoch: another one for each, 0 or more.

    Returns:
        `[numbers]` int64.

    Raises:
        TypeError: `numbers` are no integers, or an option is no int.
        ValueError: `numbers` is not one-dimensional, or an option is negative.
        IndexError: a number is not among 0 … n - 1.

    Example:
        >>> permuted([0, 1, 2, 3, 4, 5], 6, seed=7)
        array([0, 4, 1, 5, 2, 3])
        >>> permuted([0, 10**9], 10**10, seed=7)
        array([9038482153, 3549110252])

    References:
        `src/order.rs` has the method: a generalised Feistel network with cycle walking (J. Black, P. Rogaway,
        CT-RSA 2002).
    """
    return _permute(numbers, n, seed, epoch, inverse=False)


def unpermuted(images: ArrayLike, n: int, *, seed: int, epoch: int = 0) -> Int64s:
    """Return which numbers `permuted` sends to these; args as there.

    Example:
        >>> unpermuted(permuted([4, 0, 5], 6, seed=7), 6, seed=7)
        array([4, 0, 5])
    """
    return _permute(images, n, seed, epoch, inverse=True)


def _permute(numbers: ArrayLike, n: int, seed: int, epoch: int, *, inverse: bool) -> Int64s:
    return _native.permute(
        _check.int64s("numbers", numbers),
        count=_check.positive("n", n, least=0),
        seed=_check.positive("seed", seed, least=0),
        epoch=_check.positive("epoch", epoch, least=0),
        inverse=inverse,
    )
