"""`DataCollatorWithFlattening` as in transformers 5.24."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from rollkit._check import integer, shown
from rollkit._errors import retold, row_of
from rollkit._rows.layout import Layout
from rollkit.compat._features import (
    INT32,
    INT64,
    allocated,
    begun,
    cast_to,
    check_lengths,
    entries,
    numbered,
    tensors,
    token_rows,
)


@dataclass
class DataCollatorWithFlattening:
    """Lay the rows of a batch end to end, as attention without padding takes them.

    Rows may be lists, arrays or tensors, on any device, of any integers. Empty rows are left out. Plain and
    picklable: it goes into a `DataLoader` with workers, and into `Trainer`.

    Args:
        return_tensors: `"pt"` for torch, `"np"` for NumPy.
        return_position_ids: add `position_ids`.
        separator_id: the label of each row's first token, which nothing predicts.
        return_flash_attn_kwargs: add `cu_seq_lens_q`, `cu_seq_lens_k` and `max_length_q`, `max_length_k`.
        return_seq_idx: add `seq_idx`.
        position_ids_start: the position of each row's first token.

    Source: `transformers.DataCollatorWithFlattening`.

    Example:
        >>> collate = DataCollatorWithFlattening("np", return_seq_idx=True)
        >>> for name, array in collate([{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9]}]).items():
        ...     print(name, array)
        input_ids [[5 6 7 8 9]]
        labels [[-100    6    7 -100    9]]
        position_ids [[0 1 2 0 1]]
        seq_idx [[0 0 0 1 1]]
    """

    return_tensors: str = "pt"
    _: KW_ONLY
    return_position_ids: bool = True
    separator_id: int = -100
    return_flash_attn_kwargs: bool = False
    return_seq_idx: bool = False
    position_ids_start: int = 0

    def __call__(
        self,
        features: Sequence[Mapping[str, Any]],
        return_tensors: str | None = None,
        separator_id: int | None = None,
    ) -> dict[str, Any]:
        """Collate features.

        Args:
            features: each has `input_ids`, and if the first that is not empty has `labels`, so has each.
            return_tensors: instead of the collator's own.
            separator_id: instead of the collator's own.

        Returns:
            `input_ids`, `labels`, `position_ids`: `[1, tokens]` int64; `seq_idx` `[1, tokens]` int32;
            `cu_seq_lens_*` `[rows + 1]` int32; `max_length_*` ints.

        Raises:
            KeyError: a feature has no `input_ids`, or no `labels` where others have.
            ValueError: every feature is empty; `labels` of another length; no such `return_tensors`.
            TypeError: something is no row of integers.
        """
        kind = self.return_tensors if return_tensors is None else return_tensors
        separator = integer("separator_id", self.separator_id if separator_id is None else separator_id)
        rows = entries(features, "input_ids")
        try:
            kept = [i for i, row in enumerate(rows) if len(row)]
        except TypeError:
            token_rows("input_ids", rows)  # which names the row that is none
            raise
        if not kept:
            raise ValueError("DataCollatorWithFlattening received a batch where every example is empty.")
        try:
            batch = self._batch([features[i] for i in kept], [rows[i] for i in kept], kept, separator)
        except (ValueError, TypeError, OverflowError) as error:
            row = row_of(error)
            raise error if row is None else retold(error, row=kept[row]) from None
        if kind not in ("pt", "np"):
            text = f"return_tensors={shown(kind)} not supported"
            raise ValueError(f'return_tensors must be one of ("pt", "np"), {text}')
        return tensors(batch) if kind == "pt" else batch

    def _batch(
        self, features: Sequence[Any], rows: Sequence[Any], numbers: Sequence[int], separator: int
    ) -> dict[str, Any]:
        """What a batch has, as arrays of NumPy."""
        ids = token_rows("input_ids", rows)
        lengths, starts = ids.lengths, ids.offsets[:-1]
        flat_ids, labels, *more = allocated(len(ids.values), *self._dtypes())
        batch: dict[str, Any] = {"input_ids": flat_ids[None], "labels": labels[None]}
        cast_to(flat_ids, "input_ids", ids)
        if "labels" in features[0]:
            given = token_rows("labels", entries(features, "labels", numbers))
            check_lengths("labels", given.lengths, lengths)
            cast_to(labels, "labels", given)
        else:
            labels[:] = flat_ids
        labels[starts] = separator
        if self.return_position_ids:
            first = integer("position_ids_start", self.position_ids_start)
            positions = more.pop(0)
            begun(positions, np.arange(first, first + int(lengths.max())), starts, lengths)
            batch["position_ids"] = positions[None]
        if self.return_seq_idx:
            numbered(more[0], starts, lengths)
            batch["seq_idx"] = more[0][None]
        if self.return_flash_attn_kwargs:
            layout = Layout.concat(lengths)
            bounds, longest = layout.cu_seqlens(), layout.max_seqlen
            batch |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds.copy()}
            batch |= {"max_length_q": longest, "max_length_k": longest}
        return batch

    def _dtypes(self) -> list[np.dtype[Any]]:
        """Of ids and labels, and of positions and numbers of rows where these are asked for."""
        return [INT64, INT64] + [INT64] * self.return_position_ids + [INT32] * self.return_seq_idx
