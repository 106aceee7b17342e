"""Which sequences of a batch still decode, and how rows move when some end: `ActiveBatch`."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollkit._check import flag, int64s, positive
from rollkit._frameworks import as_array

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]

PARKED: Final = -1
"""The sequence of a row that decodes in vain: its own has ended, and the row was not worth removing."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How the rows of a batch change. Both ways give the same rows in the same order.

    * Copy: `array[plan.keep]`.
    * In place: for each (source, destination) of `plan.moves`, copy one row to the other, in this order or
      all at once; then go on with the rows from `plan.start` to `plan.stop`.

    Rows are those of arrays: under guidance there are two for each sequence.

    Attributes:
        keep: `[stop - start]` int64: which old row each new row is.
        moves: `[moves, 2]` int64: source and destination among the old rows.
        bucket: sequences' rows from now on; arrays have as many rows, under guidance twice as many.
        start: the first old row that is left after the moves.
        before: rows that arrays had.
    """

    keep: Int64s
    moves: Int64s
    bucket: int
    start: int
    before: int

    @property
    def stop(self) -> int:
        """The old row at which those that are left end."""
        return self.start + len(self.keep)

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return len(self.keep) != self.before or len(self.moves) > 0


class ActiveBatch:
    """Sequences that decode together, and drop out of the batch as they end.

    A *slot* is a sequence, 0 … n − 1, and never changes; a *row* is where it is in arrays at the
    moment. State is best kept by slot; what must be by row (caches, tokens to feed) moves with the
    `Plan` that `finish` returns. A hole is filled with the last row: as many moves as holes, not as rows.

    Under guidance arrays hold conditional rows first, then unconditional ones in the same order. Then
    the second half moves up whenever the first gets shorter: as many moves as there are sequences.
    `mirrored=True` reverses the first half, so that both meet in the middle and rows leave at either
    end: two moves for each hole, whatever the batch size. `order` says which row is which.

    Args:
        n: sequences.
        cfg: each sequence has two rows.
        buckets: rows are a power of two (or `n`), so that few shapes are compiled; rows beyond the live
            ones are parked.
        slack: hysteresis: rows stay until at least this share of them has ended. At 0 every end counts.
        ordered: rows keep the order of slots; moves are then as many as rows behind the first hole.
        mirrored: see above; for `cfg`.

    Raises:
        ValueError: `n` is less than 1, `slack` is not from 0 to 1, or `mirrored` is without `cfg`.

    Example:
        >>> batch = ActiveBatch(5)
        >>> plan = batch.finish([False, True, False, False, False])
        >>> batch.slots  # the last row went into the hole
        array([0, 4, 2, 3])
        >>> plan.moves, plan.keep
        (array([[4, 1]]), array([0, 4, 2, 3]))
        >>> batch.finished, batch.emitted, batch.lengths
        (1, 5, array([1, 1, 1, 1, 1]))

        Guided, rows 2 of both halves go:

        >>> ActiveBatch(3, cfg=True).finish([False, False, True]).keep
        array([0, 1, 3, 4])
        >>> mirrored = ActiveBatch(3, cfg=True, mirrored=True)  # arrays have slots 2, 1, 0, 0, 1, 2
        >>> plan = mirrored.finish([False, False, True])
        >>> plan.start, plan.stop, len(plan.moves)
        (1, 5, 0)
    """

    def __init__(
        self,
        n: int,
        cfg: bool = False,
        *,
        buckets: bool = False,
        slack: float = 0.0,
        ordered: bool = False,
        mirrored: bool = False,
    ) -> None:
        """See the class."""
        self.n = positive("n", n)
        given: object = slack
        if not isinstance(given, numbers.Real):
            raise TypeError(f"slack must be a number, got {type(given).__name__}")
        if not 0 <= slack <= 1:
            raise ValueError(f"slack must be 0 to 1, got {slack}")
        cfg, buckets = flag("cfg", cfg), flag("buckets", buckets)
        ordered, mirrored = flag("ordered", ordered), flag("mirrored", mirrored)
        if mirrored and not cfg:
            raise ValueError("mirrored needs cfg=True; one row per sequence has nothing to mirror")
        self.cfg, self.buckets, self.slack = cfg, buckets, slack
        self.ordered, self.mirrored = ordered, mirrored
        self._slots = np.arange(self.n)
        self._lengths = np.zeros(self.n, np.int64)
        self._steps = 0
        self._live = self.n
        self._emitted = 0

    @property
    def slots(self) -> Int64s:
        """`[rows]` int64: the sequence of each row, -1 for parked rows; read-only, and never written to."""
        view = self._slots.view()
        view.flags.writeable = False
        return view

    @property
    def order(self) -> Int64s:
        """`[rows]`, under guidance `[2 · rows]`: which row of `slots` each row of arrays belongs to."""
        return self._places(np.arange(len(self._slots)), len(self._slots))

    @property
    def live(self) -> Bools:
        """`[rows]` bool: rows whose sequence goes on."""
        alive: Bools = self._slots >= 0
        return alive

    @property
    def rows(self) -> int:
        """Rows per branch, parked ones included: the `bucket` of the last plan."""
        return len(self._slots)

    @property
    def active(self) -> int:
        """Sequences that go on."""
        return self._live

    @property
    def finished(self) -> int:
        """Sequences that have ended."""
        return self.n - self._live

    @property
    def emitted(self) -> int:
        """Tokens of all sequences so far."""
        return self._emitted

    @property
    def lengths(self) -> Int64s:
        """`[n]` int64: tokens of each sequence so far, by slot."""
        found = self._lengths.copy()
        alive = self._slots[self._slots >= 0]
        found[alive] = self._steps
        return found

    def finish(self, mask: ArrayLike, *, tokens: int = 1) -> Plan:
        """End a step: count its tokens, and drop the sequences that ended with it.

        Args:
            mask: `[rows]` bool, as `slots`: sequences that end here. Parked rows are not looked at.
            tokens: how many tokens each sequence got in this step; 0 to drop sequences in between.

        Returns:
            How rows change; `slots` and `order` already are the new ones.

        Raises:
            TypeError: `mask` is not bool.
            ValueError: `mask` has not one entry per row.
        """
        tokens = positive("tokens", tokens, 0)
        try:
            ended = np.asarray(as_array(mask))
        except ValueError:
            raise ValueError(f"mask must be [{self.rows}], got rows of different lengths") from None
        if ended.dtype != np.bool_:
            raise TypeError(f"mask must be bool, got {ended.dtype}")
        if ended.shape != self._slots.shape:
            raise ValueError(f"mask must be [{self.rows}], one per row of slots, got shape {ended.shape}")
        self._emitted += tokens * self._live
        self._steps += tokens
        ended = np.flatnonzero(ended & (self._slots >= 0))
        self._lengths[self._slots[ended]] = self._steps
        self._live -= len(ended)
        if len(ended):
            self._slots = self._slots.copy()  # views of it that are out stay true
            self._slots[ended] = PARKED
        return self._plan()

    def drop(self, slots: ArrayLike) -> Plan:
        """Drop sequences between steps (cancelled ones), by slot; those that ended already are let be."""
        wanted = int64s("slots", slots)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < self.n):
            raise ValueError(f"slots must be 0 to {self.n - 1}, got {wanted.min()} to {wanted.max()}")
        return self.finish(np.isin(self._slots, wanted), tokens=0)

    def __repr__(self) -> str:
        """Show how far it is."""
        return f"ActiveBatch({self._live} of {self.n} active in {self.rows} rows, {self._emitted} tokens)"

    def _plan(self) -> Plan:
        before = self.rows
        bucket = self._bucket()
        source = np.arange(before)
        moves = np.empty((0, 2), np.int64)
        if bucket < before:
            moves = self._ordered_moves() if self.ordered else self._hole_moves()
            source[moves[:, 1]] = moves[:, 0]
            self._slots = self._slots[source[:bucket]]
            self._slots[self._live :] = PARKED
        return self._in_arrays(source[:bucket], moves, before)

    def _bucket(self) -> int:
        """Rows from now on: fewer only if that is worth it."""
        wanted = self._live
        if self.buckets and wanted:
            wanted = min(1 << (wanted - 1).bit_length(), self.rows)
        worth = wanted == 0 or self.rows - self._live >= self.slack * self.rows
        return wanted if worth else self.rows

    def _hole_moves(self) -> Int64s:
        holes = np.flatnonzero(self._slots[: self._live] < 0)
        last = self._live + np.flatnonzero(self._slots[self._live :] >= 0)
        return np.stack([last[::-1], holes], 1)

    def _ordered_moves(self) -> Int64s:
        alive = np.flatnonzero(self._slots >= 0)
        to = np.arange(self._live)
        moves: Int64s = np.stack([alive, to], 1)[alive != to]  # sources are behind: safe in this order
        return moves

    def _in_arrays(self, keep: Int64s, moves: Int64s, before: int) -> Plan:
        """Turn rows of sequences into rows of arrays."""
        bucket = len(keep)
        if not self.cfg:
            return Plan(keep, moves, bucket, 0, before)
        total = 2 * before
        if self.mirrored:
            kept = np.concatenate([before - 1 - keep[::-1], before + keep])
            both = np.concatenate([before - 1 - moves, before + moves])
            return Plan(kept, both, bucket, before - bucket, total)
        kept = np.concatenate([keep, before + keep])
        if bucket == before:
            return Plan(kept, moves, bucket, 0, total)
        # Destinations of the second half are ahead of every source that is still to be read.
        second = np.stack([before + keep, bucket + np.arange(bucket)], 1)
        return Plan(kept, np.concatenate([moves, second]), bucket, 0, total)

    def _places(self, rows: Int64s, count: int) -> Int64s:
        if not self.cfg:
            return rows
        return np.concatenate([rows[::-1] if self.mirrored else rows, rows])
