"""The scan of `gae` over tokens of the host, or of a framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rollkit import _native
from rollkit._arrays.ops import Ops, ops_of
from rollkit._check import Int64s
from rollkit._frameworks import dtype_name, framework_of, kind_of


class Tokens(NamedTuple):
    """What each token has: arrays of one shape; values and masks may be None."""

    rewards: Any
    values: Any = None
    masks: Any = None

    def map(self, change: Callable[[Any], Any]) -> Tokens:
        """Those that there are, changed."""
        return Tokens(*(None if array is None else change(array) for array in self))

    @property
    def dtype(self) -> Any:
        """The dtype of what is computed of them."""
        wide = any(array is not None and dtype_name(array) == "float64" for array in self[:2])
        return np.float64 if wide else np.float32


class Found(NamedTuple):
    """Advantages and, where there are values, returns."""

    advantages: Any
    returns: Any

    def map(self, change: Callable[[Any], Any]) -> Found:
        """Those that there are, changed."""
        return Found(change(self.advantages), None if self.returns is None else change(self.returns))


def scan_flat(tokens: Tokens, bounds: Int64s, gamma: float, lam: float) -> Found:
    """Of arrays `[N]` that begin and end with `bounds`, as a scan does at each."""
    given = [array for array in tokens if array is not None]
    like = next((array for array in given if framework_of(array) != "numpy"), None)
    if like is None:
        return scan_host(tokens, bounds, gamma, lam)
    own = ops_of(like)
    ends = np.zeros((1, len(like)), bool)
    ends[0, bounds[1:][bounds[1:] > bounds[:-1]] - 1] = True
    lines = tokens.map(lambda array: beside(own, array, like)[None])
    found = Found(*own.run(_scan_ends, lines, own.from_host(ends, like), gamma=gamma, lam=lam))
    return found.map(lambda array: array[0])


def scan_host(tokens: Tokens, bounds: Int64s, gamma: float, lam: float) -> Found:
    """Rust's scan, of arrays of the host."""
    rewards, values = _floats("rewards", tokens.rewards, tokens.dtype), None
    if tokens.values is not None:
        values = _floats("values", tokens.values, tokens.dtype)
    masks = tokens.masks
    if masks is not None:
        is_bytes = masks.dtype.kind in "biu" and masks.dtype.itemsize == 1
        masks = np.ascontiguousarray(masks if is_bytes else masks != 0)
    return Found(*_native.gae(rewards, values, masks, bounds, gamma=gamma, lam=lam, both=values is not None))


def scan_lines(own: Ops, tokens: Tokens, ids: Any, gamma: float, lam: float) -> Found:
    """Of a framework's arrays `[R, N]`, whose rows end where segment ids change, or with the line."""
    return Found(*own.run(_scan_lines, tokens, ids, gamma=gamma, lam=lam))


def beside(own: Ops, array: Any, like: Any) -> Any:
    """One of NumPy's arrays as the framework's; its own as they are."""
    return own.from_host(array, like) if framework_of(array) == "numpy" else array


def _floats(name: str, array: Any, dtype: Any) -> Any:
    if kind_of(array) == "other":
        raise TypeError(f"{name} must hold numbers, got {dtype_name(array)}")
    return np.require(array, dtype, ["C", "A"])


def _scan_lines(own: Ops, tokens: Tokens, ids: Any, *, gamma: float, lam: float) -> Any:
    if ids is None:
        width = tokens.rewards.shape[-1]
        ends = own.arange(width, tokens.rewards)[None] == width - 1
        return _scan_ends(own, tokens, ends, gamma=gamma, lam=lam)
    ids = own.wide(ids)
    ends = ids != own.flip(own.shift(own.flip(ids)))
    counts = (ids != 0) if tokens.masks is None else (ids != 0) & (tokens.masks != 0)
    return _scan_ends(own, tokens._replace(masks=counts), ends, gamma=gamma, lam=lam)


def _scan_ends(own: Ops, tokens: Tokens, ends: Any, *, gamma: float, lam: float) -> Any:
    """What a token gives the one before it is a factor and a term, and these compose."""
    rewards, values = own.cast(tokens.rewards, tokens.dtype), None
    if tokens.values is not None:
        values = own.cast(tokens.values, tokens.dtype)
    expected = 0.0 if values is None else values
    through = 1 - own.cast(ends, tokens.dtype)  # nothing comes over the end of a row
    # What is carried to the token before: a value, and rewards of tokens that do not count.
    carried, decay = gamma * expected, through * (gamma * lam)
    counts = None if tokens.masks is None else tokens.masks != 0
    if counts is not None:
        carried = own.carry_back(own.where(counts, 0.0, through), own.where(counts, carried, rewards))
        decay = own.where(counts, decay, through)
    surprise = rewards - expected
    if counts is not None or values is not None:
        surprise = surprise + own.where(ends, 0.0, own.flip(own.shift(own.flip(carried))))

    def counted(array: Any) -> Any:
        return array if counts is None else own.where(counts, array, 0.0)

    advantages = counted(own.carry_back(decay, counted(surprise)))
    return advantages, None if values is None else counted(advantages + values)
