"""Which tokens may be drawn: `AllowedSet`."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final, SupportsIndex, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollkit._arrays.ops import as_like, ops_of
from rollkit._check import host, int64s, number, positive
from rollkit._frameworks import as_array, check_ints, is_array
from rollkit.decode._operations import operations_of

Int32s = NDArray[np.int32]

MOST: Final = 2**31
"""Tokens of a vocabulary, at most."""

WORD: Final = 32
"""Bits of a bitmask's word."""


class AllowedSet:
    """The tokens of a vocabulary that may be drawn, as rising unique ids.

    A *global* id counts in the vocabulary, a *local* one in the set: local id i is the i-th smallest
    allowed token, and column i of compact logits. Sets are immutable, hashable and compare by value.

    Args:
        allowed: ids (1-D ints), a `range`, or a sequence of ids and ranges mixed. Duplicates count once.
        vocab_size: tokens of the vocabulary: columns of full logits, rows of the full head.
        eos: a token or tokens that end a sequence; they are added to the set. Without it the set has
            no end of sequence unless `allowed` does, and `.eos` is empty.

    Raises:
        TypeError: ids are no integers.
        ValueError: an id is outside 0 … `vocab_size` − 1, or `allowed` is not one-dimensional.

    Example:
        An end of sequence and five audio codes, out of 20 tokens:

        >>> allowed = AllowedSet(range(10, 15), 20, eos=7)
        >>> allowed
        AllowedSet([7, range(10, 15)], 20, eos=(7,))
        >>> allowed.ids
        array([ 7, 10, 11, 12, 13, 14], dtype=int32)
        >>> allowed.to_local([7, 12, 8])
        array([ 0,  3, -1])
        >>> allowed.to_global([0, 3])
        array([ 7, 12])
    """

    __slots__ = ("__dict__", "_bases", "_runs", "eos", "vocab_size")

    vocab_size: int
    eos: tuple[int, ...]

    def __init__(
        self,
        allowed: ArrayLike | Iterable[object],  # type checkers make list[object] of [1, range(3, 9)]
        vocab_size: int,
        *,
        eos: int | Iterable[int] | None = None,
    ) -> None:
        """See the class."""
        self.vocab_size = positive("vocab_size", vocab_size)
        if vocab_size > MOST:
            raise ValueError(f"vocab_size must be at most 2**31, as ids have 32 bits, got {vocab_size}")
        self.eos = tuple(sorted(set(_eos_ids(eos))))
        runs = _runs_of(allowed, self.vocab_size, "allowed")
        if self.eos:
            runs = _joined(np.concatenate([runs, _runs_of(list(self.eos), self.vocab_size, "eos")]))
        self._runs = runs
        self._bases = np.concatenate([[0], np.cumsum(runs[:, 1] - runs[:, 0])])

    @classmethod
    def full(cls, vocab_size: int, *, eos: int | Iterable[int] | None = None) -> AllowedSet:
        """Allow every token.

        Example:
            >>> len(AllowedSet.full(5))
            5
        """
        return cls(range(positive("vocab_size", vocab_size)), vocab_size, eos=eos)

    @classmethod
    def from_bitmask(
        cls, bitmask: Any, vocab_size: int, *, eos: int | Iterable[int] | None = None
    ) -> AllowedSet:
        """Read one row of a packed mask as xgrammar and llguidance make them.

        Args:
            bitmask: `[ceil(vocab_size / 32)]` int32 (or uint32), one set bit per allowed token, the
                lowest bit first. A further dimension of size 1 is dropped; more words are ignored, as
                are bits beyond `vocab_size`.
            vocab_size: as for the class.
            eos: as for the class; a grammar's mask has the end of sequence where it may come, and
                `eos` adds it everywhere.

        Example:
            >>> AllowedSet.from_bitmask(np.array([0b10110], np.int32), 20)
            AllowedSet([range(1, 3), 4], 20)
        """
        size = positive("vocab_size", vocab_size)
        words = host("bitmask", bitmask)
        if words.ndim == 2 and len(words) == 1:
            words = words[0]
        needed = -(-size // WORD)
        if words.dtype not in (np.int32, np.uint32):
            raise TypeError(f"bitmask must be int32 or uint32, got {words.dtype}")
        if words.ndim != 1 or len(words) < needed:
            raise ValueError(
                f"bitmask must be [{needed}] words for vocab_size={size}, got shape {words.shape}; "
                "pass one row of a batch of masks"
            )
        octets = np.ascontiguousarray(words[:needed], "<u4").view(np.uint8)
        bits = np.unpackbits(octets, bitorder="little", count=size)
        return cls(np.flatnonzero(bits), size, eos=eos)

    def to_bitmask(self) -> Int32s:
        """Return the packed mask: `[ceil(vocab_size / 32)]` int32.

        Example:
            >>> AllowedSet([1, 2, 4], 20).to_bitmask()
            array([22], dtype=int32)
        """
        bits = np.zeros(-(-self.vocab_size // WORD) * WORD, np.uint8)
        bits[self.ids] = 1
        packed: Int32s = np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32).view(np.int32)
        return packed

    @cached_property
    def ids(self) -> Int32s:
        """`[size]` int32, rising; read-only."""
        parts = [np.arange(start, stop, dtype=np.int32) for start, stop in self._runs]
        found: Int32s = np.concatenate(parts) if parts else np.empty(0, np.int32)
        found.flags.writeable = False
        return found

    @property
    def runs(self) -> list[range]:
        """The set as ranges that neither touch nor overlap, rising."""
        return [range(int(start), int(stop)) for start, stop in self._runs]

    @property
    def span(self) -> range | None:
        """The one range that the set is, `None` if it has holes or is empty."""
        return self.runs[0] if len(self._runs) == 1 else None

    def window(self, waste: float = 0.125) -> range | None:
        """Return the covering range if at most `waste` of it is not allowed, else `None`.

        A head is sliced to such a window without a copy; the few columns too many are dropped after.

        Example:
            >>> AllowedSet([range(10, 100)], 200, eos=7).window()
            range(7, 100)
            >>> AllowedSet([range(100, 200)], 200, eos=7).window() is None
            True
        """
        waste = number("waste", waste)
        if not len(self._runs):
            return None
        found = range(int(self._runs[0, 0]), int(self._runs[-1, 1]))
        return found if len(found) - len(self) <= waste * len(found) else None

    def to_local(self, ids: Any) -> Any:
        """Return local ids of global ones, -1 for tokens that are not allowed.

        Args:
            ids: ints of any shape; a list, or an array of NumPy, torch or JAX (also traced).

        Returns:
            Ints of the same shape and framework (int64; a JAX array keeps its dtype).
        """
        return _lookup(ids, self._runs[:, 0], self._runs[:, 1], self._bases[:-1])

    def to_global(self, local: Any) -> Any:
        """Return global ids of local ones, -1 for numbers that are none.

        Args:
            local: ints of any shape; a list, or an array of NumPy, torch or JAX (also traced).

        Returns:
            Ints of the same shape and framework (int64; a JAX array keeps its dtype).
        """
        return _lookup(local, self._bases[:-1], self._bases[1:], self._runs[:, 0])

    def compact(self, logits: Any) -> Any:
        """Return the allowed columns `[..., size]` of full logits `[..., vocab_size]`.

        A view where the set is one range (JAX arrays aside), else a gathered copy.

        Example:
            >>> AllowedSet([0, 2], 3).compact(np.array([[1.0, 2.0, 3.0]]))
            array([[1., 3.]])
        """
        if not is_array(logits) or not logits.ndim:
            raise TypeError(f"logits must be an array [..., {self.vocab_size}], got {type(logits).__name__}")
        if logits.shape[-1] != self.vocab_size:
            raise ValueError(
                f"logits must have {self.vocab_size} columns, the vocab_size of allowed, "
                f"got {logits.shape[-1]}"
            )
        if self.span is not None:
            return logits[..., self.span.start : self.span.stop]
        return logits[..., self.index_on(logits)]

    def index_on(self, array: Any) -> Any:
        """Return `.ids` as an index for `array`: on its framework and device, made once for each."""
        kernel = ops_of(array)
        cache: dict[Any, Any] = self.__dict__.setdefault("_indices", {})
        device = kernel.device(array)
        if device not in cache:
            cache[device] = kernel.index(self.ids, array)
        return cache[device]

    @cached_property
    def digest(self) -> str:
        """A name of the set that is the same in every process: 16 hexadecimal digits."""
        head = np.array([self.vocab_size, len(self._runs)], "<i8").tobytes()
        return hashlib.blake2b(head + self._runs.astype("<i8").tobytes(), digest_size=8).hexdigest()

    def __len__(self) -> int:
        """How many tokens are allowed."""
        return int(self._bases[-1])

    def __contains__(self, token: object) -> bool:
        """Whether a token is allowed."""
        try:
            return int(self.to_local([operator.index(cast(SupportsIndex, token))])[0]) >= 0
        except TypeError:
            return False

    def __eq__(self, other: object) -> bool:
        """Whether both sets allow the same of the same vocabulary, and end alike."""
        if not isinstance(other, AllowedSet):
            return NotImplemented
        same = self.vocab_size == other.vocab_size and self.eos == other.eos
        return same and np.array_equal(self._runs, other._runs)

    def __hash__(self) -> int:
        """Hash by value."""
        return hash((self.digest, self.eos))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle runs, not ids or tensors."""
        return (_rebuild, (self.runs, self.vocab_size, self.eos))

    def __repr__(self) -> str:
        """Show runs, the first few of many."""
        shown = [str(run[0]) if len(run) == 1 else repr(run) for run in self.runs[:6]]
        if len(self._runs) > 6:
            shown.append(f"… {len(self._runs)} runs, {len(self)} tokens")
        eos = f", eos={self.eos}" if self.eos else ""
        return f"AllowedSet([{', '.join(shown)}], {self.vocab_size}{eos})"


def _rebuild(runs: list[range], vocab_size: int, eos: tuple[int, ...]) -> AllowedSet:
    return AllowedSet(runs, vocab_size, eos=eos)


def _eos_ids(eos: Any) -> list[int]:
    if eos is None:
        return []
    try:
        return [operator.index(eos)]
    except TypeError:
        pass
    try:
        return [operator.index(token) for token in eos]
    except TypeError:
        raise TypeError(f"eos must be an int or ints, got {eos!r}") from None


def _runs_of(allowed: Any, vocab_size: int, name: str) -> NDArray[np.int64]:
    """Return `[runs, 2]` starts and stops of ids, ranges, or both."""
    if isinstance(allowed, range):
        allowed = [allowed]
    allowed = as_array(allowed)
    if not isinstance(allowed, Iterable):
        raise TypeError(f"{name} must be ids, a range, or a sequence of both, got {type(allowed).__name__}")
    if not isinstance(allowed, np.ndarray | Sequence):
        allowed = list(allowed)
    spans = [part for part in allowed if isinstance(part, range)] if isinstance(allowed, Sequence) else []
    if any(span.step != 1 for span in spans):
        raise ValueError(f"{name} must have ranges of step 1; pass other ranges as list(range(…))")
    singles = [part for part in allowed if not isinstance(part, range)] if spans else allowed
    if host(name, singles[:1]).dtype == bool:
        raise TypeError(f"{name} is a mask; pass ids: np.flatnonzero(mask)")
    ids = np.unique(int64s(name, singles)) if len(singles) else np.empty(0, np.int64)
    pairs = [(span.start, span.stop) for span in spans if len(span)]
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    runs = _joined(np.concatenate([np.stack([ids, ids + 1], 1), ends]))
    if len(runs) and (runs[0, 0] < 0 or runs[-1, 1] > vocab_size):
        wrong = int(runs[0, 0]) if runs[0, 0] < 0 else int(runs[-1, 1]) - 1
        raise ValueError(f"{name} has id {wrong}; ids of vocab_size={vocab_size} are 0 to {vocab_size - 1}")
    return runs


def _joined(runs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort runs and join those that touch or overlap."""
    if not len(runs):
        return runs
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    reach = np.maximum.accumulate(runs[:, 1])
    first = np.flatnonzero(np.concatenate([[True], runs[1:, 0] > reach[:-1]]))
    return np.stack([runs[first, 0], reach[np.append(first[1:], len(runs)) - 1]], 1)


def _lookup(value: Any, starts: Any, stops: Any, targets: Any) -> Any:
    """Map a number within run r of `starts` to `stops` onto `targets[r]`, -1 for one within none."""
    ids = as_like("ids", value, None)
    check_ints("ids", ids)
    return operations_of(ids).look_up(ids, starts, stops, targets)
