"""Caches whose rows follow a `Plan`: transformers' caches, tensors, arrays and trees of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit._arrays.ops import ops_of
from rollkit._check import flag, int64s, integer, positive
from rollkit._extras import extra
from rollkit._frameworks import is_array
from rollkit.decode.active import Plan


def compact(cache: Any, plan: Plan, *, axis: int = 0, in_place: bool = True) -> Any:
    """Make a cache's rows those of the batch after `plan`: in every layer, keys and values alike.

    Args:
        cache: a transformers cache (`DynamicCache`, `StaticCache`, hybrid ones), an array of NumPy,
            torch or JAX, or mappings, lists, tuples and JAX pytrees of arrays.
        plan: as `ActiveBatch.finish` returns it.
        axis: the axis of rows; a transformers cache knows its own.
        in_place: NumPy and torch: fill holes, and go on with a view of what is left. That moves O(ended)
            rows but keeps the memory of all. `False`: copy the rows that are left. JAX arrays never
            change and are always copied.

    Returns:
        A transformers cache is changed and returned; of anything else, a new tree with the new arrays
        or views.

    Raises:
        TypeError: `cache` is none of these, or `plan` no `Plan`.
        ValueError: an array has not `plan.before` rows, or may not be written to in place.

    Example:
        >>> from rollkit.decode.active import ActiveBatch
        >>> cache = {"keys": np.array([[0, 0], [1, 1], [2, 2]])}
        >>> plan = ActiveBatch(3).finish([True, False, False])
        >>> compact(cache, plan)["keys"]
        array([[2, 2],
               [1, 1]])
    """
    if not isinstance(plan, Plan):
        raise TypeError(
            f"plan must be a Plan, as ActiveBatch.finish returns it, got {type(plan).__name__}; "
            "select(cache, rows) copies rows of your choice"
        )
    if not plan.changes:
        return cache
    return _map(cache, axis, lambda array, rows: _moved(array, plan, rows, in_place))


def select(cache: Any, keep: Any, *, axis: int = 0) -> Any:
    """Copy rows `keep` of a cache, in that order; a row may come several times.

    Args:
        cache: as for `compact`.
        keep: `[rows]` ints.
        axis: as for `compact`.

    Returns:
        As `compact`.

    Raises:
        TypeError: `keep` holds no ints; a mask is none.
        IndexError: a row is out of range.

    Example:
        >>> select([np.array([5, 6, 7])], [2, 0, 0])
        [array([7, 5, 5])]
    """
    rows = int64s("keep", keep)
    return _map(cache, axis, lambda array, where: _selected(array, rows, where))


def crop_padding(cache: Any, columns: int) -> Any:
    """Drop the first `columns` tokens of a `DynamicCache`: padding that all rows have in common.

    Keys are rotated already and positions are the caller's to pass, so that nothing else changes.
    Attention masks lose the same columns.

    Args:
        cache: a `DynamicCache` all of whose layers keep all tokens.
        columns: how many to drop; at most as many as there are.

    Returns:
        `cache`, with views for keys and values.

    Raises:
        TypeError: a layer is no `DynamicLayer` (static ones have a fixed width, sliding ones a window).
        ValueError: `columns` is negative or more than there are.
    """
    columns = positive("columns", columns, 0)
    for number, layer in enumerate(_layers(cache)):
        if not can_crop(layer):
            name = type(layer).__name__ if getattr(layer, "is_initialized", True) else "layer without tokens"
            raise TypeError(f"layer {number} is a {name}; only DynamicLayer can be cropped")
        if not 0 <= columns <= layer.keys.shape[-2]:
            raise ValueError(f"columns must be 0 to {layer.keys.shape[-2]}, got {columns}")
        layer.keys, layer.values = layer.keys[..., columns:, :], layer.values[..., columns:, :]
    return cache


def can_crop(layer: Any) -> bool:
    """Whether a layer of a transformers cache keeps all tokens, and nothing but keys and values."""
    return type(layer).__name__ == "DynamicLayer" and layer.is_initialized


def is_empty(cache: Any) -> bool:
    """Whether a transformers cache has layers, and none of these a tensor: nothing was written to it."""
    torch, layers = extra("torch", "torch"), getattr(cache, "layers", None) or ()
    return bool(layers) and not any(True for layer in layers for _ in _tensors(layer, torch))


def _layers(cache: Any) -> list[Any]:
    layers = getattr(cache, "layers", None)
    if layers is None:
        raise TypeError(f"cache must be a transformers Cache, got {type(cache).__name__}")
    return list(layers)


def _map(cache: Any, axis: int, change: Callable[[Any, int], Any]) -> Any:
    """Change every array of a cache, given its axis of rows."""
    if hasattr(cache, "layers") and hasattr(cache, "update"):
        for layer in cache.layers:
            _change_layer(layer, change)
        return cache
    if hasattr(cache, "self_attention_cache"):
        for part in (cache.self_attention_cache, cache.cross_attention_cache):
            _map(part, axis, change)
        return cache
    if is_array(cache):
        return change(cache, axis)
    if cache is None:
        return None
    if isinstance(cache, Mapping):
        return _rebuilt(cache, {name: _map(part, axis, change) for name, part in cache.items()})
    if isinstance(cache, tuple) and hasattr(cache, "_fields"):
        return type(cache)(*(_map(part, axis, change) for part in cache))
    if isinstance(cache, list | tuple):
        try:
            return type(cache)(_map(part, axis, change) for part in cache)
        except RecursionError:
            raise ValueError("cache is a list within itself, or nested too deep") from None
    return _map_registered(cache, axis, change)


def _rebuilt(cache: Mapping[Any, Any], parts: dict[Any, Any]) -> Any:
    """Return a mapping of the same type: a copy that is filled anew, or one made of a dict."""
    if type(cache) is dict:
        return parts
    if not isinstance(cache, MutableMapping):
        return type(cache)(parts)  # type: ignore[call-arg]
    found = copy.copy(cache)
    found.update(parts)
    return found


def _map_registered(cache: Any, axis: int, change: Callable[[Any, int], Any]) -> Any:
    import sys

    jax = sys.modules.get("jax")
    if jax is not None:
        leaves, tree = jax.tree_util.tree_flatten(cache)
        if leaves and all(is_array(leaf) for leaf in leaves):
            return jax.tree_util.tree_unflatten(tree, [change(leaf, axis) for leaf in leaves])
    raise TypeError(
        "cache must be a transformers cache, an array, or a tree of arrays, "
        f"got {type(cache).__module__}.{type(cache).__qualname__}"
    )


def _change_layer(layer: Any, change: Callable[[Any, int], Any]) -> None:
    """Change the tensors of a layer, found by what they are, so that hybrid layers need no list of names."""
    torch = extra("torch", "torch")
    for owner, name, tensor in _tensors(layer, torch):
        axis = 1 if name == "indexer_position_ids" else 0
        owner[name] = change(tensor, axis)
    keys = getattr(layer, "keys", None)
    for name in ("batch_size", "max_batch_size"):
        if hasattr(layer, name) and keys is not None:
            setattr(layer, name, keys.shape[0])


def _tensors(layer: Any, torch: Any) -> Iterator[tuple[Any, Any, Any]]:
    for name, value in list(vars(layer).items()):
        if isinstance(value, torch.Tensor) and value.ndim > 1 and value.numel():
            yield vars(layer), name, value
        elif isinstance(value, dict):
            for key, part in list(value.items()):
                if isinstance(part, torch.Tensor) and part.ndim > 1 and part.numel():
                    yield value, key, part
        elif isinstance(value, tuple | list) and any(isinstance(part, torch.Tensor) for part in value):
            raise TypeError(
                f"{type(layer).__name__}.{name} is a sequence of tensors (quantised); not supported"
            )


def _moved(array: Any, plan: Plan, axis: int, in_place: bool) -> Any:
    if (count := _rows(array, axis)) != plan.before:
        raise ValueError(
            f"an array of the cache has {count} rows on axis {axis}, the batch has {plan.before}"
        )
    if not flag("in_place", in_place) or not ops_of(array).IN_PLACE:
        return _taken(array, plan.keep, axis)
    _check_writable(array)
    rows = array.swapaxes(0, axis)
    for source, destination in plan.moves.tolist():
        rows[destination] = rows[source]
    return rows[plan.start : plan.stop].swapaxes(0, axis)


def _selected(array: Any, rows: NDArray[np.int64], axis: int) -> Any:
    """Copy rows, once they are known to be there: JAX makes NaN of others, and CUDA an error later on."""
    count = _rows(array, axis)
    if rows.size and not (rows.min() >= 0 and rows.max() < count):
        wrong = rows.min() if rows.min() < 0 else rows.max()
        raise IndexError(f"keep has row {wrong}; an array of the cache has {count} on axis {axis}")
    return _taken(array, rows, axis)


def _rows(array: Any, axis: int) -> int:
    axis = integer("axis", axis)
    if not -array.ndim <= axis < array.ndim:
        raise ValueError(f"axis is {axis}; an array of the cache has shape {tuple(array.shape)}")
    return int(array.shape[axis])


def _check_writable(array: Any) -> None:
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        raise ValueError("an array of the cache is read-only; pass in_place=False to copy rows")
    if getattr(array, "requires_grad", False):
        raise ValueError(
            "a tensor of the cache requires grad; decode under torch.no_grad(), or pass in_place=False"
        )


def _taken(array: Any, rows: Any, axis: int) -> Any:
    return ops_of(array).take(array, rows, axis)
