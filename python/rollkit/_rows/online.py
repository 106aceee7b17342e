"""Bins of rows that arrive one by one: `OnlinePacker`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from numpy.typing import ArrayLike

from rollkit import _check, _native
from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._rows.ragged import Ragged, trusted

POLICIES: Final = ("look_ahead", "best_fit")
_OPTIONS: Final = ("capacity", "buffer", "policy", "max_wait", "max_segments", "align")
_STATE: Final = (*_OPTIONS, "added", "waiting", "bins")


class OnlinePacker:
    """Packs rows in the order in which they arrive into bins that are nearly full: looks at a few of them.

    Bins come out in the order of the rows, whatever their lengths; those of `plan_bins`, which must see all
    rows first, come longest rows first. What waits is little, and all that there is to save: `state`.

    - `"look_ahead"`: `buffer` rows wait, beside one open bin. The oldest begins a bin; then, each time that
      as many wait again, the longest that fits is added, of equally long ones the oldest. Where none fits,
      the bin is complete.
    - `"best_fit"`: `buffer` bins are open. A row goes to the one with the least room that is enough, of
      equally full ones the oldest. Where none has room, the oldest bin is complete and the row begins one.

    However long the stream, a row is passed over by fewer than `buffer` bins that are begun after it came.

    Threads may share a packer: they take turns.

    Args:
        capacity: elements a bin holds.
        buffer: how many rows, or open bins, wait. With 64 rows bins of eight rows are 99.8 % full.
        policy: `"look_ahead"` or `"best_fit"`.
        max_wait: a row is out by the time that so many more have come, if need be in a bin that is not full;
            with 0, each at once. None: no such bound.
        max_segments: at most that many rows in a bin, empty ones included. Rows without an element always
            fit, and without this a stream of them fills no bin.
        align: each row starts at a multiple of this within its bin; see `plan_bins`.

    Raises:
        TypeError: an option is no int, or `policy` no word.
        ValueError: an option is out of range.

    Example:
        >>> packer = OnlinePacker(8, buffer=2)
        >>> [packer.add(row, length) for row, length in enumerate([5, 7, 3, 1])]
        [[], [], [], [array([0, 2])]]
        >>> packer.flush()
        [array([1, 3])]
    """

    __slots__ = ("_core", "_options")

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
        self._options: dict[str, Any] = {
            "capacity": _check.positive("capacity", capacity),
            "buffer": _check.positive("buffer", buffer),
            "policy": _check.choice("policy", policy, POLICIES),
            "max_wait": None if max_wait is None else _check.positive("max_wait", max_wait, least=0),
            "max_segments": None if max_segments is None else _check.positive("max_segments", max_segments),
            "align": _check.positive("align", align),
        }
        self._core = _native.OnlinePacker(**self._options)

    def add(self, row: int, length: int) -> list[Int64s]:
        """Add a row; return the bins that are complete now, most often none.

        Args:
            row: what to call it: an int, which need not be another than that of other rows.
            length: its elements, at most `capacity`.

        Returns:
            By bin, `[rows]` int64, in the order in which they were put there.

        Raises:
            TypeError: no int.
            ValueError: `length` is negative, or more than `capacity`. The packer is as it was.
            OverflowError: beyond int64.
        """
        try:
            return self._core.add(row, length)
        except (TypeError, ValueError, OverflowError):
            self._refuse(_check.integer("row", row), _check.positive("length", length, least=0))
            raise

    def extend(self, rows: ArrayLike, lengths: ArrayLike) -> Ragged:
        """Add rows, as `add` does one by one; return all bins that are complete then.

        Args:
            rows: `[rows]` ints.
            lengths: `[rows]` ints.

        Returns:
            A `Ragged` with a bin as a row: `for bin in packer.extend(rows, lengths)`.

        Raises:
            TypeError: no ints.
            ValueError: a length is negative, or more than `capacity`; lengths and rows differ in number.
                The packer is as it was.

        Example:
            >>> OnlinePacker(8, buffer=2).extend([10, 11, 12, 13], [5, 7, 3, 1]).to_list()
            [[10, 12]]
        """
        numbers, sizes = _check.int64s("rows", rows), _check.lengths("lengths", lengths)
        if len(numbers) != len(sizes):
            raise ValueError(f"lengths has {len(sizes)} rows, rows has {len(numbers)}")
        if (odd := sizes > self._options["capacity"]).any():
            at = int(odd.argmax())
            self._refuse(int(numbers[at]), int(sizes[at]))
        return trusted(*self._core.extend(numbers, sizes))

    def flush(self) -> list[Int64s]:
        """Return the bins of all rows that are left, full or not; then there is none.

        Example:
            >>> packer = OnlinePacker(8)
            >>> packer.add(0, 3), packer.flush(), packer.pending
            ([], [array([0])], 0)
        """
        return self._core.flush()

    @property
    def pending(self) -> int:
        """How many rows were added and are in no bin that has been returned."""
        return self._core.pending()

    def state(self) -> dict[str, Any]:
        """Return all that there is to go on from, as JSON takes it.

        That is the options, how many rows were added, and the numbers and lengths of those that are pending:
        a few kB. `from_state` goes on with the very same bins, on any machine.

        Example:
            >>> packer = OnlinePacker(8, buffer=2)
            >>> packer.add(7, 5)
            []
            >>> state = packer.state()
            >>> state["added"], state["waiting"], state["bins"]
            (1, [[7, 5, 0]], [])
            >>> OnlinePacker.from_state(state).flush()
            [array([7])]
        """
        added, waiting, bins = self._core.state()
        held = [[room, came, rows] for room, came, rows in bins]
        return {**self._options, "added": added, "waiting": [list(row) for row in waiting], "bins": held}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Make a packer that goes on where `state` was taken.

        Raises:
            TypeError: `state` is no mapping.
            ValueError: it is none that `state()` returned.
        """
        found = _check.mapping("state", state)
        if odd := sorted(map(str, found.keys() ^ set(_STATE))):
            raise ValueError(f"state has other keys than OnlinePacker.state() gives: {', '.join(odd)}")
        packer = cls(**{name: found[name] for name in _OPTIONS})
        try:
            waiting = [tuple(row) for row in found["waiting"]]
            bins = [(room, came, list(rows)) for room, came, rows in found["bins"]]
            packer._core = _native.OnlinePacker(**packer._options, state=(found["added"], waiting, bins))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"state is none of an OnlinePacker's: {error}") from None
        return packer

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_state, (self.state(),)

    def __repr__(self) -> str:
        capacity, buffer, policy = (self._options[name] for name in ("capacity", "buffer", "policy"))
        return (
            f"OnlinePacker({capacity:,}, buffer={buffer:,}, policy={policy!r}: {self.pending:,} rows pending)"
        )

    def _refuse(self, row: int, length: int) -> None:
        """Refuse a row that is longer than a bin."""
        capacity = self._options["capacity"]
        if length > capacity:
            text = f" has {length} elements, more than the capacity of {capacity}"
            raise refusal(ValueError, f"{text}; raise capacity, or cut the row", row=row)
        return
