"""Columns of Arrow as Ray has them: tensors of its own, as lists of lists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rollkit._errors import refusal
from rollkit._extras import extra

_OF_RAY = "ray.data.arrow_"
"""What the names of Ray's types begin with; a step in NumPy, Ray's default, makes such of lists."""


def check_table(table: Any) -> None:
    """Refuse what is no table: Ray gives a step a dict of NumPy arrays, unless that says otherwise."""
    if not isinstance(table, extra("pyarrow", "ray").Table):
        raise TypeError(
            f'expected a table of pyarrow, got {type(table).__name__}; map_batches has batch_format="pyarrow"'
        )


def is_tensors(kind: Any) -> bool:
    """Whether a type is one of tensors, Ray's or Arrow's."""
    pa = extra("pyarrow", "ray")
    if isinstance(kind, pa.FixedShapeTensorType):
        return True
    if not isinstance(kind, pa.BaseExtensionType):
        return False
    return kind.extension_name.startswith(_OF_RAY) and (hasattr(kind, "shape") or hasattr(kind, "ndim"))


def listed(name: str, column: Any) -> Any:
    """A column of tensors, of Ray's types or of Arrow's, as one of lists; others as they are.

    Tensors of one shape become lists of one size of such lists. Where the first dimension differs between
    rows, so do the lengths of the outer lists.
    """
    pa = extra("pyarrow", "ray")
    kind = column.type
    if not is_tensors(kind):
        return column
    if isinstance(kind, pa.FixedShapeTensorType):
        permuted = kind.permutation not in (None, [*range(len(kind.shape))])
        if permuted:
            text = f"has tensors whose dimensions are permuted, {kind.permutation}; store them in their order"
            raise refusal(ValueError, text, column=name)
    chunks = [chunk.storage for chunk in column.chunks]
    if any(chunk.null_count for chunk in chunks):
        raise refusal(ValueError, "has nulls; fill them, or leave the rows out", column=name)
    if pa.types.is_struct(kind.storage_type):
        return _ragged(pa, name, chunks, kind.storage_type.field("data").type.value_type)
    found = [nested(pa, chunk.flatten(), kind.shape) for chunk in chunks]
    empty = nested(pa, pa.array([], kind.storage_type.value_type), kind.shape)
    return pa.chunked_array(found, empty.type)


def nested(pa: Any, elements: Any, shape: Sequence[int]) -> Any:
    """Elements in lists of these sizes, the outermost first."""
    for size in reversed(shape):
        elements = pa.FixedSizeListArray.from_arrays(elements, size)
    return elements


def _ragged(pa: Any, name: str, chunks: Sequence[Any], element: Any) -> Any:
    """Rows of tensors that differ in their first dimension."""
    shapes = [np.array(chunk.field("shape").to_pylist(), np.int64) for chunk in chunks if len(chunk)]
    inner = {tuple(map(int, shape[1:])) for found in shapes for shape in found if shape.prod()}
    if len(inner) > 1:
        raise refusal(ValueError, f"has rows of several inner shapes: {sorted(inner)}", column=name)
    shape = inner.pop() if inner else ()
    size = max(math.prod(shape), 1)
    found = []
    for chunk in chunks:
        data = chunk.field("data")
        lengths = np.array(data.value_lengths(), np.int64) // size
        rows = nested(pa, data.flatten(), shape)
        found.append(pa.LargeListArray.from_arrays(pa.array(np.append(0, np.cumsum(lengths))), rows))
    return pa.chunked_array(found, pa.large_list(nested(pa, pa.array([], element), shape).type))
