"""`DataCollatorForLanguageModeling` as in `trl.trainer.sft_trainer` of TRL 1.16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rollkit import _check, _native
from rollkit._check import Int64s
from rollkit._errors import at
from rollkit._extras import extra
from rollkit._frameworks import AnyArray, Tensor
from rollkit._rows.dtypes import common, numpy_dtype
from rollkit._rows.layout import Layout
from rollkit._rows.parts import fill_element, place_parts
from rollkit._rows.ragged import Ragged
from rollkit.compat._features import (
    INT32,
    INT64,
    allocated,
    begun,
    check_lengths,
    entries,
    numbered,
    tensors,
    token_rows,
)

IGNORED = -100


@dataclass
class DataCollatorForLanguageModeling:
    """Pad the rows of a batch on the right, or lay them end to end.

    Rows may be lists, arrays or tensors, on any device, of any integers; they keep their dtype, and lists
    become int64. Rows without `labels` are their own. `seq_lengths`, if the first feature has them, are the
    lengths of the sequences that a row is packed of: positions begin anew with each.

    Args:
        pad_token_id: what `input_ids` are padded with.
        padding_free: lay rows end to end; `position_ids` and what attention kernels take instead of a mask.
        return_position_ids: add `position_ids` to padded rows.
        pad_to_multiple_of: the width is rounded up to a multiple of this.
        return_tensors: `"pt"`, as in TRL.

    Source: `trl.trainer.sft_trainer.DataCollatorForLanguageModeling`.

    Example:
        >>> features = [{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5], "labels": [-100, 5]}]
        >>> for name, found in DataCollatorForLanguageModeling(0)(features).items():
        ...     print(name, found.tolist())
        input_ids [[1, 2, 3], [4, 5, 0]]
        labels [[1, 2, 3], [-100, 5, -100]]
        attention_mask [[1, 1, 1], [1, 1, 0]]
        >>> flat = DataCollatorForLanguageModeling(0, padding_free=True)(features)
        >>> flat["labels"], flat["cu_seq_lens_q"], flat["max_length_q"]
        (tensor([[-100,    2,    3, -100,    5]]), tensor([0, 3, 5], dtype=torch.int32), 3)
    """

    pad_token_id: int
    padding_free: bool = False
    return_position_ids: bool = False
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def __call__(
        self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None
    ) -> dict[str, Any]:
        """Collate features.

        Returns:
            Padded: `input_ids`, `labels`, `position_ids` if asked for, `attention_mask`: `[rows, width]`.
            Flat: `input_ids`, `labels`, `position_ids` `[1, tokens]`; `cu_seq_lens_*` int32, `max_length_*`
            ints, `seq_idx` `[1, tokens]` int32. Each token of padding is a sequence of its own there.

        Raises:
            KeyError: a feature has no `input_ids`, or no `seq_lengths` where the first has.
            ValueError: no features, or no token in a flat batch; `labels` or `seq_lengths` of another length;
                no such `return_tensors`.
            TypeError: something is no row of integers.
        """
        kind = self.return_tensors if return_tensors is None else return_tensors
        if kind != "pt":
            raise ValueError(f"Framework {_check.shown(kind)} not recognized!")
        return self.torch_call(features)

    def torch_call(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate features, as TRL's own tests call it."""
        rows = entries(examples, "input_ids")
        if not rows:
            raise ValueError("features is empty; a batch has one or more")
        ids = token_rows("input_ids", rows, self._dtype("input_ids", rows))
        labels = self._labels(examples, rows, ids)
        sequences = Sequences.of_rows(ids)
        if "seq_lengths" in examples[0] and (self.padding_free or self.return_position_ids):
            sequences = Sequences.within(ids, entries(examples, "seq_lengths"))
        make = self._flat if self.padding_free else self._padded
        return tensors(make(ids, labels, sequences))

    @staticmethod
    def get_position_ids_from_packed_seq_lengths(batch_seq_lengths: Sequence[Sequence[int]]) -> list[Tensor]:
        """For each row, which sequences of these lengths are packed in, the positions within these.

        Example:
            >>> DataCollatorForLanguageModeling.get_position_ids_from_packed_seq_lengths([[2, 1], [3]])
            [tensor([0, 1, 0]), tensor([0, 1, 2])]
        """
        lengths = token_rows("seq_lengths", batch_seq_lengths, INT64)
        found = extra("torch", "torch").from_numpy(Layout.concat(lengths.values).positions().astype(np.int64))
        return list(found.split(lengths.sum().tolist()))

    def _dtype(self, name: str, rows: Sequence[Any]) -> np.dtype[Any]:
        """Rows end to end meet in a dtype; padded ones have that of the first. Lists are int64."""
        dtypes = [getattr(row, "dtype", INT64) for row in (rows if self.padding_free else rows[:1])]
        with at(column=name):
            return numpy_dtype(common(dtypes))

    def _labels(self, examples: Sequence[Any], rows: Sequence[Any], ids: Ragged) -> Ragged:
        if not any("labels" in example for example in examples):
            return ids
        rows = [example.get("labels", row) for example, row in zip(examples, rows, strict=True)]
        labels = token_rows("labels", rows, self._dtype("labels", rows))
        check_lengths("labels", labels.lengths, ids.lengths)
        return labels

    def _padded(self, ids: Ragged, labels: Ragged, sequences: Sequences) -> dict[str, Any]:
        layout = Layout.pad(ids.lengths, side="right", multiple_of=self._multiple())
        dtypes = [ids.dtype, labels.dtype, ids.dtype] + [INT64] * self.return_position_ids
        tokens, targets, mask, *more = (
            array.reshape(layout.shape) for array in allocated(layout.size, *dtypes)
        )
        pad, ignored = self._pad(ids), _element("labels", IGNORED, labels)
        place_parts(ids.parts(), layout, pad, out=tokens)
        place_parts(labels.parts(), layout, ignored, out=targets)
        begun(mask, np.ones(layout.max_seqlen, ids.dtype), layout.starts, layout.lengths)
        for positions in more:
            begun(positions, *sequences.ramps(layout.starts))
        names = ["input_ids", "labels", *["position_ids"] * len(more), "attention_mask"]
        return dict(zip(names, [tokens, targets, *more, mask], strict=True))

    def _flat(self, ids: Ragged, labels: Ragged, sequences: Sequences) -> dict[str, Any]:
        total = len(ids.values)
        if not total:
            raise ValueError("every row is empty; a flat batch has one token or more")
        width = total + -total % self._multiple()
        tokens, targets, positions, numbers = allocated(width, ids.dtype, labels.dtype, INT64, INT32)
        ramp, starts, lengths = sequences.ramps(ids.offsets[:-1])
        ignored = _element("labels", IGNORED, labels)
        for out, rows, fill in ((tokens, ids, self._pad(ids)), (targets, labels, ignored)):
            out[:total], out[total:] = rows.values, fill
        targets[starts] = ignored
        begun(positions, ramp, starts, lengths)
        # Padding counts from 0 at each of its tokens, so that each is a sequence for the kernels.
        bounds = np.append(starts, np.arange(total, width + 1))
        sizes = np.diff(bounds)
        numbered(numbers, bounds[:-1], sizes)
        bounds, longest = bounds.astype(np.int32), int(sizes.max())
        return {
            "input_ids": tokens[None],
            "labels": targets[None],
            "position_ids": positions[None],
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": longest,
            "max_length_k": longest,
            "seq_idx": numbers[None],
        }

    def _pad(self, ids: Ragged) -> Any:
        return _element("input_ids", _check.integer("pad_token_id", self.pad_token_id), ids)

    def _multiple(self) -> int:
        wanted = self.pad_to_multiple_of
        return 1 if wanted is None else _check.positive("pad_to_multiple_of", wanted)


def _element(name: str, fill: int, rows: Ragged) -> Any:
    """A number in the dtype of rows."""
    with at(column=name):
        return fill_element(fill, rows.dtype, ())[0]


class Sequences(NamedTuple):
    """Sequences within rows, but for those without a token.

    Attributes:
        rows: the row that each is in.
        begins: where in it each begins.
        lengths: the tokens of each.
    """

    rows: Int64s
    begins: Int64s
    lengths: Int64s

    @classmethod
    def of_rows(cls, ids: Ragged) -> Sequences:
        """Each row is one."""
        rows = np.flatnonzero(ids.lengths)
        return cls(rows, np.zeros_like(rows), ids.lengths[rows])

    @classmethod
    def within(cls, ids: Ragged, packed: Sequence[Any]) -> Sequences:
        """Those of which lengths are given for each row."""
        found = token_rows("seq_lengths", packed, INT64)
        lengths = _check.lengths("seq_lengths", found.values)
        ends = _native.offsets_from_lengths(lengths)
        firsts = ends[found.offsets]  # where rows begin, and the last one ends
        check_lengths("seq_lengths", np.diff(firsts), ids.lengths, "adds up to {}")
        rows = np.repeat(np.arange(len(ids)), found.lengths)
        some = lengths > 0
        return cls(rows[some], (ends[:-1] - firsts[rows])[some], lengths[some])

    def ramps(self, starts: Int64s) -> tuple[AnyArray, Int64s, Int64s]:
        """For `begun`: 0, 1 and on; where sequences of rows from `starts` on start, and their lengths."""
        longest = int(self.lengths.max(initial=0))
        return np.arange(longest), starts[self.rows] + self.begins, self.lengths
