"""What a layout of trees has not: the names that speak of segments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Never


class NoSegments:
    """What a `Layout` knows of its rows as segments, and a `TreeLayout` refuses by name: rows share tokens.

    The names are declared, so that of a batch's layout, which is either, a type checker knows them as a
    `Layout`'s: `batch.layout.cu_seqlens()` needs no `isinstance`.
    """

    begins: Never
    cu_seqlens: Never
    cu_seqlens_padded: Never
    element_rows: Never
    has_pieces: Never
    kept: Never
    labels_from: Never
    lengths: Never
    max_seqlen: Never
    offsets: Never
    order: Never
    pieces: Never
    pieces_of: Never
    pieces_of_rows: Never
    row_position: Never
    row_sums: Never
    rows_on: Never
    select: Never
    shard: Never
    shifted: Never
    slots: Never
    source_indices: Never
    source_rows: Never
    spread: Never
    starts: Never

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            text = f"a TreeLayout has no {name}"
            if name in NoSegments.__annotations__:
                text += ": its rows share tokens and are no segments; layout.nodes is the Layout of its nodes"
            raise AttributeError(text, name=name, obj=self)
