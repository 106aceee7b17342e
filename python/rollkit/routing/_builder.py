"""Routes of a sequence, turn by turn: `RouteBuilder`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollkit._check import positive
from rollkit._frameworks import AnyArray
from rollkit._rows.growing import Growing
from rollkit.routing._final import final_row
from rollkit.routing._join import common_dtype
from rollkit.routing._payload import Payload


class RouteBuilder:
    """Routes of one sequence that grows by turns, each row written once (amortised).

    `len(builder)` counts the rows so far.

    Args:
        capacity: rows to reserve address space for: the context length, say. It grows by itself.

    Example:
        >>> import numpy as np
        >>> builder = RouteBuilder()
        >>> builder.append(np.zeros((3, 1, 2), np.uint8))
        3
        >>> builder.append(np.ones((5, 1, 2), np.uint8), start=0)
        2
        >>> builder.finish(6)[:, 0, 0]
        array([0, 0, 0, 1, 1, 1], dtype=uint8)
    """

    def __init__(self, *, capacity: int = 0) -> None:
        self._capacity = positive("capacity", capacity, least=0)
        self._rows: Growing | None = None
        self._count = 0
        self._finished = False

    def append(self, routes: AnyArray | Mapping[str, Any], start: int | None = None) -> int:
        """Add what a turn knows beyond the rows so far; of a payload no other rows are decoded.

        Args:
            routes: an array, or a payload (see `decode_routes`).
            start: the position of its first row; by default where the payload says, or, of an array, where
                the rows so far end.

        Returns:
            The rows added.

        Raises:
            ValueError: rows between the last one and `start` are missing, or inner shapes differ.

        A turn of a wider dtype widens the rows so far.
        """
        self._check_open()
        payload = Payload.of(routes)
        if start is not None:
            payload = payload.at(positive("start", start, least=0))
        elif not isinstance(routes, Mapping):
            payload = payload.at(len(self))
        known = len(self) - payload.start
        if known < 0:
            raise ValueError(
                f"routes start at position {payload.start}, there are {len(self)} rows, none for what is "
                "between; append the turns in order"
            )
        if self._rows is None:
            self._rows = Growing(payload.dtype, payload.inner, self._capacity)
        elif payload.inner != self._rows.inner:
            raise ValueError(f"routes have inner shape {payload.inner}, those before {self._rows.inner}")
        count = max(payload.rows - known, 0)
        self._rows.widen(common_dtype(self._rows.dtype, payload.dtype))
        payload.read(known, self._rows.room(count))
        self._rows.length += count
        self._count = self._rows.length
        return count

    def finish(
        self, length: int | None = None, *, final: str | None = "repeat", num_experts: int | None = None
    ) -> AnyArray:
        """Return the rows, `[rows, layers, topk]`, without a copy; once.

        Args:
            length: the tokens of the sequence: as many as there are rows, or one more, for which `final`
                then writes a row. By default the rows are returned as they are.
            final: see `split_routes`.
            num_experts: see `split_routes`.
        """
        self._check_open()
        rows = self._rows
        if rows is None:
            raise ValueError("nothing was appended, so neither dtype nor shape is known")
        missing = 0 if length is None else positive("length", length, least=0) - len(self)
        if missing not in (0, 1):
            raise ValueError(
                f"length is {length}, there are {len(self)} rows; only that of the last token may be missing"
            )
        fill = final_row(final, rows.dtype, rows.inner, num_experts, max(len(self) + missing - 1, 0))
        if missing and final is not None:
            if fill is None and not len(self):
                raise ValueError("there is no row to repeat; pass another policy as final")
            rows.room(1)[0] = rows.rows[-1] if fill is None else fill
            rows.length += 1
        self._finished = True
        self._rows = None
        return rows.finish()

    def _check_open(self) -> None:
        if self._finished:
            raise ValueError("the builder is finished; make a new one")

    def __len__(self) -> int:
        return self._count
