"""Features to tensors: `Collator`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rollkit import _check
from rollkit._arrays.ops import ops_of
from rollkit._batch import Batch
from rollkit._batch.fill import MADE, PACKED, Filling
from rollkit._batch.pack import pack, pad
from rollkit._errors import refusal
from rollkit._extras import extra
from rollkit._rollouts.fields import FIELDS
from rollkit._rollouts.labels import labels
from rollkit._rollouts.names import Names, check_names, check_shared_names
from rollkit._rollouts.other_masks import warn_of_other_masks
from rollkit._rollouts.sources import Sources
from rollkit._rows.layout import Layout
from rollkit._rows.lists import Lists
from rollkit._rows.ragged import Ragged
from rollkit.torch._tensors import tensor

torch = extra("torch", "torch")

IGNORED: Final = -100
_OF_A_MODEL: Final = ("input_ids", "attention_mask", "position_ids", "labels")


@dataclass(frozen=True, kw_only=True, slots=True)
class Collator:
    """A list of features to a batch of tensors, padded or packed: a `collate_fn`, or a `data_collator`.

    A feature is a dict of lists, arrays or tensors: `input_ids`, alone or with `labels` or `loss_masks`; or
    rollkit's columns, `prompt_token_ids` and `response_ids` with what is per token. Columns that rollkit does
    not know are left out unless `keep` names them. `attention_mask` is made anew, and so is `position_ids`:
    features come without padding.

    transformers' `Trainer` hands on only what the model's `forward` names: for other columns set
    `remove_unused_columns=False`.

    Args:
        pad_id: the token id of padding.
        side: where padding goes, `"right"` or `"left"`.
        pack: tokens of a bin: features are packed into `[bins, pack]`, however many bins that takes. None:
            each has a line of its own.
        share_prefixes: lay once what features share of their beginnings, as `rollkit.pack` does: a `Batch`
            whose other columns per token are among its `rows`. There are no labels in it: it goes with
            `labels=False`, and `names="rollkit"` or `{old: new}`.
        multiple_of: the width of padded batches is rounded up to a multiple of this.
        labels: whether there are `labels`: those of the features; else all tokens, or the ones that
            `loss_masks` count. The first token of each feature is never one.
        names: `"hf"` is what models take: int64 `input_ids`, `position_ids`, `labels` and, of padded batches,
            `attention_mask`. Others as `rollkit.pack` has them.
        keep: names of further columns: with an element per token, they are laid out beside the tokens; with a
            number per feature, they are a tensor `[features]`, and anything else is a list.

    Returns:
        A dict of tensors from each call. Of `names="rollkit"` a `rollkit.Batch` of all columns, which has a
        layout to take a model's output back by.

    Raises:
        ValueError: there are no features; they differ in columns; a column has not an element for each token;
            a feature is longer than `pack`.

    Example:
        >>> collate = Collator(pad_id=9)
        >>> batch = collate([{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5]}])
        >>> batch["input_ids"], batch["labels"]
        (tensor([[1, 2, 3],
                [4, 5, 9]]), tensor([[-100,    2,    3],
                [-100,    5, -100]]))
        >>> Collator(pack=6)([{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5]}])["position_ids"]
        tensor([[0, 1, 2, 0, 1, 0]])
    """

    pad_id: int = 0
    side: str = "right"
    pack: int | None = None
    multiple_of: int = 1
    labels: bool = True
    names: Names = "hf"
    keep: Sequence[str] = ()
    share_prefixes: bool = False

    def __post_init__(self) -> None:
        """Check the options where they are given, and not at the first batch."""
        _check.integer("pad_id", self.pad_id)
        _check.choice("side", self.side, ("right", "left"))
        _check.positive("multiple_of", self.multiple_of)
        _check.flag("labels", self.labels)
        check_names(self.names)
        object.__setattr__(self, "keep", tuple(map(str, _check.items("keep", self.keep))))
        if self.pack is not None:
            _check.positive("pack", self.pack)
            for name, alone in (("side", "right"), ("multiple_of", 1)):
                if (found := getattr(self, name)) != alone:
                    raise ValueError(f"{name}={found!r} is for padding; leave it out, or pack")
        if _check.flag("share_prefixes", self.share_prefixes):
            if self.pack is None:
                raise ValueError("share_prefixes=True is for packing; give pack, the tokens of a bin")
            check_shared_names(self.names)
            if self.labels:
                raise ValueError(
                    "labels=True is for batches of segments, and this one shares prefixes; set labels=False, "
                    "and take the loss of rollkit.next_token_logprobs"
                )

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> Any:
        """A dict of tensors; a `Batch` of them for `names="rollkit"`."""
        columns = self._columns(features)
        if self.names == "hf":
            return {name: found for part in self._of_a_model(columns) for name, found in part.items()}
        batch = self._batch(columns)
        return batch if self.names == "rollkit" else batch.arrays | self._kept(batch.rows)

    def _one_bin(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Features that are one bin, as `[pack]` tensors, without a dimension of bins."""
        columns = self._columns(features)
        if self.names == "hf":
            arrays, kept = self._of_a_model(columns)
        else:
            batch = self._batch(columns)
            arrays, kept = batch.arrays, self._kept(batch.rows)
        return {
            name: array if isinstance(array, Lists) else array[0] for name, array in arrays.items()
        } | kept

    def _batch(self, columns: Mapping[str, Any]) -> Batch:
        if self.pack is None:
            batch = pad(columns, pad_id=self.pad_id, side=self.side, multiple_of=self.multiple_of)
        else:
            batch = pack(columns, self.pack, pad_id=self.pad_id, share_prefixes=self.share_prefixes)
        batch = batch.to("torch")
        if self.labels and "labels" not in batch and self.names not in ("grain", "maxtext"):
            batch |= {"labels": labels(batch)}
        return batch.rename(self.names)

    def _of_a_model(self, columns: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What `pad(…, names="hf")` makes, each array written once as models take it; and what is kept."""
        if self.labels and columns.keys().isdisjoint(("labels", "loss_masks")):
            # All tokens of a response: they are laid out a second time, among other padding.
            main = "response_ids" if "response_ids" in columns else "input_ids"
            if isinstance(columns[main][0], list):
                columns[main] = Ragged.from_rows(columns[main])  # lists are read once
            columns["labels"] = columns[main]
        sources = Sources.of(columns)
        layout = self._layout(sources)
        of_labels = ("labels", "loss_masks") if self.labels else ()
        made = PACKED if self.pack else MADE
        filling = Filling.of(sources, self.pad_id, None, {"input_ids": np.int64}, made)
        wanted = {"input_ids", "positions", "attention_mask", *columns.keys() & of_labels, *self.keep}
        found, _ = filling.only(wanted).write(layout)
        if (ids := found["input_ids"]).ndim != 2:
            text = f"elements of shape {tuple(ids.shape[2:])}, expected numbers; tokenizers add a dimension "
            raise refusal(ValueError, text + "with return_tensors=: leave it out", column="input_ids")
        found["position_ids"] = found.pop("positions").astype(np.int64)
        if "attention_mask" in found:
            found["attention_mask"] = found["attention_mask"].astype(np.int64)
        if self.labels:
            found["labels"] = _labelled(found, layout)
        chosen = {name: tensor(found[name]) for name in (*_OF_A_MODEL, *self.keep) if name in found}
        return chosen, self._kept(sources.rows)

    def _layout(self, sources: Sources) -> Layout:
        if self.pack is None:
            return Layout.pad(sources.lengths, side=self.side, multiple_of=self.multiple_of)
        return Layout.pack(sources.lengths, self.pack)

    def _kept(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _entries(column) for name, column in rows.items() if name in self.keep}

    def _columns(self, features: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Features by column: those that are wanted."""
        features = _check.items("features", features)
        if not features:
            raise ValueError("features is empty; a batch has at least one")
        for i, feature in enumerate(features):
            if not isinstance(feature, Mapping):
                raise refusal(
                    TypeError, f" is {type(feature).__name__}, expected a dict", row=i, before="features: "
                )
            if feature.keys() != features[0].keys():
                odd = ", ".join(map(repr, sorted(feature.keys() ^ features[0].keys())))
                raise refusal(ValueError, f" and row 0 differ in columns: {odd}", row=i, before="features: ")
        there = features[0].keys()
        if there.isdisjoint(("input_ids", "response_ids")):
            known = ", ".join(map(repr, there)) or "none"
            raise ValueError(
                f"features need 'input_ids', or 'response_ids', got {known}; a "
                "Trainer hands on all columns with remove_unused_columns=False"
            )
        if self.labels:
            warn_of_other_masks(there)
        for name in self.keep:
            if name not in there:
                known = ", ".join(map(repr, there))
                raise ValueError(f"keep has {name!r}, which features lack; they have {known}")
        if "attention_mask" in there:
            _check_unpadded([feature["attention_mask"] for feature in features])
        wanted = [name for name in there if name in FIELDS or name in self.keep]
        return {name: [feature[name] for feature in features] for name in wanted}


def _labelled(arrays: Mapping[str, Any], layout: Layout) -> Any:
    """The `labels` of arrays, where their `loss_masks` count them; none on the first token of a feature."""
    found, own = arrays.get("labels", arrays["input_ids"]), ops_of(arrays["input_ids"])
    if "loss_masks" in arrays:
        found = own.where(arrays["loss_masks"] != 0, found, IGNORED)
    found.reshape(-1)[own.index(layout.starts[layout.lengths > 0], found)] = IGNORED
    return found


def _check_unpadded(masks: list[Any]) -> None:
    rows = Ragged.from_rows(masks)
    if rows.values.all():
        return
    place = int(np.argmin(rows.values != 0))
    row = int(np.searchsorted(rows.offsets, place, side="right")) - 1
    position = place - int(rows.offsets[row])
    text = " is 0: features are batched whole, and padding is of the batch; leave out what is masked"
    raise refusal(ValueError, text, column="attention_mask", row=row, position=position)


def _entries(column: Any) -> Any:
    """A column with an entry per feature: numbers as a tensor."""
    found = np.asarray(column) if not isinstance(column, Ragged) else None
    if found is None or found.dtype.kind not in "biuf":
        return column
    return torch.from_numpy(found)
