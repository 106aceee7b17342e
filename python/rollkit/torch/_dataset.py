"""Bins as a data set of torch: `PackedDataset`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Final

from rollkit import _check
from rollkit._batch import Batch
from rollkit._extras import extra
from rollkit._loading.bins import Bins
from rollkit._rollouts.labels import labels as made_labels
from rollkit._rollouts.names import Names, check_names
from rollkit._rollouts.sources import Source
from rollkit._rows.lists import Lists
from rollkit.torch._tensors import tensor

torch = extra("torch", "torch")
_Dataset: Any = torch.utils.data.Dataset

_OF_A_MODEL: Final = ("input_ids", "position_ids", "labels")
_OF_LABELS: Final = ("input_ids", "loss_masks")
_FLASH: Final = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


class PackedDataset(_Dataset):  # type: ignore[misc]
    """Packed bins by number: a data set for `DataLoader`, torchdata, accelerate and `Trainer`.

    Planned when it is made; a bin is placed when it is asked for, and its tensors are over the bin's own
    memory. Its `__getitems__` places a whole batch in one call. Nothing is shuffled here:
    `rollkit.ShuffledSampler` does that, or the trainer's own sampler.

    Args:
        rollouts: as `rollkit.pack` takes them; or a folder that `rollkit pack` wrote; or `rollkit.Bins`.
        capacity: tokens of a bin. Folders and bins are planned already, and take none.
        labels: whether there is an int64 array `labels`, as `rollkit.labels` makes them. Of `names="hf"`
            there always is.
        names: as `rollkit.pack` has them. `"hf"` is what models take and no more: int64 `input_ids`,
            `position_ids` and `labels`, unless `columns` says otherwise. Bins that share prefixes have their
            own names, and neither labels nor `flash_kwargs`.
        flash_kwargs: add `cu_seq_lens_q`, `cu_seq_lens_k` (int32) and `max_length_q`, `max_length_k` (ints),
            by which attention kernels know segments. They are of one bin: a batch is of one bin, collated by
            `collate_one`.
        columns: names of exactly the arrays that are wanted.
        **packing: further options of `rollkit.Bins`: `align=`, `oversize=`, `pad_id=`, …

    Attributes:
        bins: the `Bins`, with their layout, costs and plan.
        names: of the arrays.
        plan: which they are: a state of `ShuffledSampler(dataset)` for other data is refused.

    Raises:
        TypeError: bins or a folder, and how to pack.
        ValueError: as `rollkit.Bins`.

    Example:
        >>> rollouts = {"prompt_token_ids": [[1], [2]], "response_ids": [[3, 4], [5]]}
        >>> dataset = PackedDataset(rollouts, 6, names="hf")
        >>> len(dataset), dataset[0]["position_ids"], dataset[0]["labels"]
        (1, tensor([0, 1, 2, 0, 1, 0]), tensor([-100,    3,    4, -100,    5, -100]))
    """

    bins: Bins
    names: Sequence[str]

    def __init__(
        self,
        rollouts: Source | Sequence[Source] | str | os.PathLike[str] | Bins,
        capacity: int | None = None,
        *,
        labels: bool = False,
        names: Names = "rollkit",
        flash_kwargs: bool = False,
        columns: Sequence[str] | None = None,
        **packing: Any,
    ) -> None:
        names = check_names(names)
        self._flash = _check.flag("flash_kwargs", flash_kwargs)
        given = ({} if capacity is None else {"capacity": capacity}) | packing
        if isinstance(rollouts, Bins):
            _check_planned("bins are", given | ({} if names == "rollkit" else {"names": names}))
            bins = rollouts
        elif isinstance(rollouts, str | os.PathLike):
            _check_planned("a folder of bins is", given)
            bins = Bins.open(rollouts, names=names)
        else:
            _check_options(packing)
            bins = Bins(rollouts, capacity, names=names, **packing)
        self._labels = _check.flag("labels", labels) and "labels" not in bins.names
        if bins._shares:
            _check_shared(self._labels, self._flash)
        if columns is None and names == "hf":
            columns = _OF_A_MODEL
        wanted = bins.names if columns is None else [str(x) for x in _check.items("columns", columns)]
        if self._labels:
            _check_labelled(bins)
            rest = [name for name in wanted if name != "labels"]
            self.names, needed = (*rest, "labels"), [*rest, *_OF_LABELS]
        else:
            self.names = tuple(wanted)
            needed = list(wanted)
        self.bins = bins.select(needed)

    @property
    def plan(self) -> str:
        """What is where, as 16 digits."""
        return self.bins.plan

    def __len__(self) -> int:
        return len(self.bins)

    def __getitem__(self, number: Any) -> dict[str, Any]:
        if self._labels or self._flash:
            return self._of(self.bins.batch([_check.integer("a bin's number", number)]))[0]
        return {name: tensor(array) for name, array in self.bins[number].items()}

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Several bins in one call: what `DataLoader` asks for."""
        if self._flash and len(numbers) != 1:
            raise ValueError(
                f"flash_kwargs=True is for batches of one bin, got {len(numbers)}: segments of several "
                "would be told by one; set batch_size=1 and pack to a larger capacity"
            )
        if self._labels or self._flash:
            return self._of(self.bins.batch(numbers))
        items = self.bins.__getitems__(numbers)
        return [{name: tensor(array) for name, array in item.items()} for item in items]

    def _of(self, batch: Batch) -> list[dict[str, Any]]:
        """The bins of a batch one by one, with what is read off its layout."""
        arrays = batch.arrays
        if self._labels:
            arrays["labels"] = made_labels(batch)
            arrays = {name: arrays[name] for name in self.names}
        width, flash = self.bins.capacity, {}
        if self._flash:
            flash = {name: tensor(found) for name, found in batch.flash_kwargs().items()}
        return [
            {name: tensor(_line(array, i, width)) for name, array in arrays.items()} | flash
            for i in range(batch.layout.shape[0])
        ]

    def __repr__(self) -> str:
        return f"PackedDataset({self.bins!r})"


def collate_one(features: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of one bin: `[1, capacity]` tensors, and what is of all its segments as it is.

    A `collate_fn` of `DataLoader`, and a `data_collator` of `Trainer`, of `PackedDataset(flash_kwargs=True)`:
    torch's default makes `cu_seq_lens_q` two-dimensional, which kernels do not take.

    Raises:
        ValueError: there are several, or none.

    Example:
        >>> dataset = PackedDataset({"response_ids": [[1, 2], [3]]}, 4, names="hf", flash_kwargs=True)
        >>> batch = collate_one([dataset[0]])
        >>> batch["input_ids"], batch["cu_seq_lens_q"], batch["max_length_q"]
        (tensor([[1, 2, 3, 0]]), tensor([0, 2, 3, 4], dtype=torch.int32), 2)
    """
    features = _check.items("features", features)
    if len(features) != 1:
        raise ValueError(f"collate_one is for batches of one bin, got {len(features)}; set batch_size=1")
    return {
        name: value[None] if name not in _FLASH and isinstance(value, torch.Tensor) else value
        for name, value in _check.mapping("features[0]", features[0]).items()
    }


def _check_options(packing: Mapping[str, Any]) -> None:
    known = [
        name
        for name in signature(Bins).parameters
        if name not in ("rollouts", "capacity", "columns", "names")
    ]
    if odd := [name for name in packing if name not in known]:
        raise TypeError(f"PackedDataset has no argument {odd[0]!r}; packing has {', '.join(known)}")


def _check_planned(what: str, given: Mapping[str, Any]) -> None:
    if given:
        raise TypeError(f"{what} planned already; leave out {', '.join(given)}")


def _check_shared(labels: bool, flash: bool) -> None:
    """Refuse what is of segments, of bins that share prefixes."""
    for name, given in (("labels", labels), ("flash_kwargs", flash)):
        if given:
            raise ValueError(
                f"{name}=True is for bins of segments, and these share prefixes; `visible_until` is their "
                "mask, and `predecessors` say what predicts each token"
            )


def _check_labelled(bins: Bins) -> None:
    if missing := [name for name in _OF_LABELS if name not in bins.names]:
        there = ", ".join(map(repr, bins.names))
        raise ValueError(
            f"labels=True needs {missing[0]!r}, which these bins lack; they have {there}. "
            "Leave names='rollkit', or take names='hf', which has labels"
        )


def _line(array: Any, i: int, width: int) -> Any:
    return array.part(i * width, (i + 1) * width) if isinstance(array, Lists) else array[i]
