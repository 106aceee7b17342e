"""`pack_dataset` as in `trl.data_utils` of TRL 1.16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollkit import _check
from rollkit._rows.tables import STRATEGIES, packed

LENGTHS = "seq_lengths"


def pack_dataset(
    dataset: Any, seq_length: int, strategy: str = "bfd", map_kwargs: dict[str, Any] | None = None
) -> Any:
    """Pack the rows of a dataset of Hugging Face `datasets` into rows of at most `seq_length` elements.

    By `dataset.map`, with all that it does (cache, processes, streams); what happens to each of its batches
    is `rollkit.datasets.pack_table`.

    Args:
        dataset: a `Dataset` or `IterableDataset`, or a dict of them; all columns are lists.
        seq_length: the elements that a row may have.
        strategy: `"bfd"`, `"bfd_split"` or `"wrapped"`; see `pack_table`.
        map_kwargs: passed on to `dataset.map`. It packs batches of 1 000 rows unless `batch_size` says
            otherwise: `{"batch_size": None}` packs the whole dataset at once, into fewer rows.

    Returns:
        A dataset of the same kind and format, with the column `seq_lengths` unless it is wrapped.

    Raises:
        ValueError: no strategy, or columns differ in a row.
        TypeError: no dataset, or a column is not of lists.

    Source: `trl.pack_dataset`.

    Example:
        >>> from datasets import Dataset
        >>> dataset = Dataset.from_dict({"input_ids": [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10], [11]]})
        >>> pack_dataset(dataset, seq_length=4)[:]
        {'input_ids': [[1, 2, 3, 4], [8, 9, 10, 11], [6, 7]], 'seq_lengths': [[4], [3, 1], [2]]}
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"Invalid packing strategy {_check.shown(strategy)}, must be one of {STRATEGIES}.")
    _check.positive("seq_length", seq_length)
    if not hasattr(dataset, "with_format") or not hasattr(dataset, "map"):
        raise TypeError(
            f"dataset must be one of Hugging Face datasets, got {type(dataset).__name__}; "
            "rollkit.datasets.pack_table takes Arrow tables"
        )
    form = _format_of(_first(dataset))
    options = {"seq_length": seq_length, "strategy": strategy, "lengths": LENGTHS}
    found = dataset.with_format("arrow").map(packed, batched=True, fn_kwargs=options, **(map_kwargs or {}))
    if "columns" in form and LENGTHS in _first(found).column_names:  # not where there was no row to pack
        form["columns"] = [*form["columns"], LENGTHS]
    return found.with_format(**form)


def _first(dataset: Any) -> Any:
    return next(iter(dataset.values())) if isinstance(dataset, Mapping) else dataset


def _format_of(dataset: Any) -> dict[str, Any]:
    """What `with_format` takes for a dataset to be as this one is."""
    if not hasattr(dataset, "format"):  # a stream, which tells only this
        return {"type": getattr(dataset._formatting, "format_type", None)}
    form: dict[str, Any] = dict(dataset.format)
    form.update(form.pop("format_kwargs", {}))
    return form
