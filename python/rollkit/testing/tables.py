"""Slow, obvious packing of a table's rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def pack_table_reference(
    rows: Sequence[Sequence[Any]], seq_length: int, strategy: str = "bfd"
) -> tuple[list[list[Any]], list[list[int]]]:
    """Rows packed as `rollkit.datasets.pack_table` packs a column, and the lengths that each is made of.

    Of `"wrapped"` there are no lengths.
    """
    if strategy == "wrapped":
        flat = [value for row in rows for value in row]
        return [flat[at : at + seq_length] for at in range(0, len(flat), seq_length)], []
    pieces = [list(row[at : at + seq_length]) for row in rows for at in range(0, len(row), seq_length)]
    if strategy == "bfd":
        pieces = [list(row[:seq_length]) for row in rows if len(row)]
    bins: list[list[list[Any]]] = []
    since: list[int] = []  # when each came to have the room it has
    for now, piece in enumerate(sorted(pieces, key=len, reverse=True)):
        rooms = [seq_length - sum(map(len, found)) for found in bins]
        fitting = [i for i, room in enumerate(rooms) if room >= len(piece)]
        if not fitting:
            bins.append([])
            since.append(now)
            fitting, rooms = [len(bins) - 1], [*rooms, seq_length]
        chosen = min(fitting, key=lambda i: (rooms[i], since[i]))
        bins[chosen].append(piece)
        since[chosen] = now
    packed = [[value for piece in found for value in piece] for found in bins]
    return packed, [[len(piece) for piece in found] for found in bins]
