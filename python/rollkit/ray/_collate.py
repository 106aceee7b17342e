"""What a Ray dataset gives to a training loop, as tensors: `CollateArrow`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rollkit._arrays.ops import array_maker
from rollkit._errors import refusal
from rollkit._extras import extra
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.lists import Lists
from rollkit.ray._tables import check_table, is_tensors, listed

extra("ray", "ray")
from ray.data.collate_fn import ArrowBatchCollateFn  # noqa: E402

_TENSOR = array_maker("torch", None, {}, None)


class CollateArrow(ArrowBatchCollateFn):
    """Tables of a Ray dataset to tensors: what `Dataset.iter_torch_batches(collate_fn=…)` calls.

        for batch in bins.iter_torch_batches(batch_size=8, collate_fn=CollateArrow()):
            loss(model(batch["input_ids"], batch["positions"]))

    A plain function gets tensors that Ray has made of all columns before, one copy more; this one gets Arrow.

    Args:
        collate: makes a batch of rows that are not packed yet, such as `rollkit.torch.Collator(pack=16384)`.
            None: rows are bins, as `PackBatches` makes them. Then lists of one size, and tensors of Ray's
            that are of one in these rows, are tensors `[rows, size, …]` (where each element is a list,
            `values` and `offsets` of all, as in a `Batch`), numbers are tensors `[rows]`, and other columns
            lists of what Python has.

    Returns:
        A dict from each call; with `collate`, what that gives.

    Example:
        >>> import pyarrow as pa
        >>> from rollkit.ray import PackBatches
        >>> bins = PackBatches(4)(pa.table({"response_ids": [[1, 2], [3]]}))
        >>> CollateArrow()(bins)["input_ids"]
        tensor([[1, 2, 3, 0]], dtype=torch.int32)
        >>> from rollkit.torch import Collator
        >>> CollateArrow(Collator())(pa.table({"input_ids": [[1, 2], [3]]}))["input_ids"]
        tensor([[1, 2],
                [3, 0]])
    """

    def __init__(self, collate: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        if collate is not None and not callable(collate):
            raise TypeError(f"collate must be called with rows, got {type(collate).__name__}")
        self._collate = collate

    def __call__(self, batch: Any) -> Any:
        """Make tensors of a table of pyarrow."""
        check_table(batch)
        if self._collate is not None:
            return self._collate(_features(batch))
        return {name: _column(name, batch.column(name)) for name in batch.column_names}


def _features(table: Any) -> list[dict[str, Any]]:
    """Each row as a dict, whose arrays are views."""
    pa = extra("pyarrow", "ray")
    rows = Rollouts.from_arrow(
        pa.table({name: listed(name, table.column(name)) for name in table.column_names})
    )
    return [{name: column[i] for name, column in rows.items()} for i in range(len(rows))]


def _column(name: str, column: Any) -> Any:
    pa = extra("pyarrow", "ray")
    column = _of_one_size(listed(name, column)) if is_tensors(column.type) else column
    shape, kind = _shape_of(column.type)
    if _is_number(kind):
        parts = [_numbers(name, chunk) for chunk in column.chunks]
        # A copy: what Ray has is read-only, and belongs to all who read it.
        joined = np.concatenate(parts) if parts else np.empty(0, kind.to_pandas_dtype())
        return _TENSOR(joined.reshape(len(column), *shape))
    if not shape:
        return column.to_pylist()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        inner, element = _shape_of(kind.value_type)
        if _is_number(element):
            return _lists(name, column, inner)
    raise refusal(TypeError, f"has lists of {kind}, expected numbers", column=name)


def _of_one_size(column: Any) -> Any:
    """Rows that all have as many elements as lists of one size, others as they are.

    Ray before 2.55 makes tensors of any size of lists of one size, in a step in NumPy.
    """
    pa = extra("pyarrow", "ray")
    if not pa.types.is_large_list(column.type):
        return column
    sizes = {size for chunk in column.chunks for size in np.unique(chunk.value_lengths())}
    if len(sizes) != 1 or not (size := sizes.pop()):
        return column
    return pa.chunked_array(
        [pa.FixedSizeListArray.from_arrays(chunk.flatten(), size) for chunk in column.chunks]
    )


def _shape_of(kind: Any) -> tuple[list[int], Any]:
    """The sizes of lists of one size, the outermost first, and what these hold."""
    pa, shape = extra("pyarrow", "ray"), []
    while pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    return shape, kind


def _is_number(kind: Any) -> bool:
    types = extra("pyarrow", "ray").types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _lists(name: str, column: Any, inner: list[int]) -> Any:
    """A list for each element of lists of one size."""
    found = _flat(name, column.combine_chunks())
    offsets = np.array(found.offsets, np.int64)
    values = np.array(_numbers(name, found.flatten())).reshape(-1, *inner)
    return Lists(_TENSOR(values), _TENSOR(offsets - offsets[0]))


def _numbers(name: str, chunk: Any) -> Any:
    """The numbers of lists of one size, end to end."""
    return _flat(name, chunk).to_numpy(zero_copy_only=False)


def _flat(name: str, chunk: Any) -> Any:
    """What lists of one size hold, end to end."""
    while hasattr(chunk.type, "list_size") and not chunk.null_count:
        chunk = chunk.flatten()
    if chunk.null_count:
        raise refusal(ValueError, "has nulls; fill them, or leave the rows out", column=name)
    return chunk
