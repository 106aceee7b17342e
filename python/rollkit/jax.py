"""Batches for JAX: bins of each process as one global array, of one shape, moved while the model computes.

    sharding = NamedSharding(mesh, PartitionSpec("data"))
    order = ShuffledSampler(bins, seed=0, rank=jax.process_index(), world_size=jax.process_count())
    for batch in prefetch(batches(bins, order, lines=8), sharding):
        state = train_step(state, batch)

Each step has the same shape, so that it is compiled once. See docs/loaders.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from rollkit import _check
from rollkit._arrays.jax import narrowed
from rollkit._errors import at, refusal
from rollkit._extras import extra
from rollkit._frameworks import as_array
from rollkit._loading.bins import Bins
from rollkit._loading.prefetch import prefetch as on_a_thread
from rollkit._rows.lists import Lists

__all__ = ["batches", "device_batch", "prefetch"]

jax = extra("jax", "jax")


def device_batch(batch: Mapping[str, Any], sharding: Any) -> dict[str, Any]:
    """The arrays of all processes' batches as global arrays: each process gives the lines that are its own.

    Args:
        batch: this process's: a `Batch`, or a dict of arrays `[lines, …]`. Each process has as many lines.
        sharding: a `jax.sharding.Sharding`, that lays the first axis (lines) over processes in their order.
            With one process, any.

    Returns:
        By name, `[lines of all processes, …]`. 64-bit numbers are 32 bits, as JAX has them, unless
        `jax_enable_x64` is set.

    Raises:
        TypeError: not a batch, or no sharding.
        ValueError: an array has no lines, or other shapes than devices divide. Or several processes give
            batches that share prefixes, whose predecessors count within each.
        OverflowError: 64-bit numbers that do not fit 32 bits.

    Example:
        >>> import jax, rollkit
        >>> from jax.sharding import NamedSharding, PartitionSpec
        >>> sharding = NamedSharding(jax.make_mesh((1,), ("data",)), PartitionSpec("data"))
        >>> batch = rollkit.pack({"response_ids": [[1, 2], [3]]}, 4, names="maxtext")
        >>> device_batch(batch, sharding)["targets"]
        Array([[2, 0, 0, 0]], dtype=int32)
    """
    if not isinstance(batch, Mapping):
        raise TypeError(f"batch must be a Batch or a dict of arrays, got {type(batch).__name__}")
    _check_sharding(sharding)
    if jax.process_count() > 1 and "predecessors" in batch and hasattr(batch, "unpack"):
        text = (
            "places in this process's lines, and no places among all; rollkit.jax.batches has those of a bin"
        )
        raise refusal(ValueError, f"array 'predecessors': {text}", column="predecessors", label="")
    return {name: _global(name, array, sharding) for name, array in batch.items()}


def _check_sharding(sharding: Any) -> None:
    if not isinstance(sharding, jax.sharding.Sharding):
        raise TypeError(f"sharding must be a jax.sharding.Sharding, got {type(sharding).__name__}")


def _global(name: str, array: Any, sharding: Any) -> Any:
    if isinstance(array, Lists):
        text = "lists per token have another size in each batch; leave it out, by columns="
        raise refusal(TypeError, f"array {name!r}: {text}", column=name, label="")
    found = np.asarray(as_array(array))
    if not found.ndim:
        text = f"array {name!r} is one number, expected [lines, …]"
        raise refusal(ValueError, text, column=name, label="")
    with at(column=name, label=f"array {name!r}"):
        return jax.make_array_from_process_local_data(sharding, narrowed(found))


def batches(bins: Bins, order: Iterable[int], lines: int) -> Iterator[dict[str, Any]]:
    """Batches of as many bins each, as NumPy's arrays in memory of their own.

    Args:
        bins: `rollkit.Bins`.
        order: numbers of bins: a `rollkit.ShuffledSampler` of this process, whose state then says where it
            is; save `state_dict(taken=steps * lines)`.
        lines: bins of a batch, on this process. What is left at the end is left out.

    Returns:
        Dicts of `[lines, capacity]` arrays.

    Example:
        >>> bins = Bins({"response_ids": [[1, 2], [3, 4], [5]]}, 2, columns=["input_ids"])
        >>> [batch["input_ids"].tolist() for batch in batches(bins, [2, 0, 1], lines=2)]
        [[[5, 0], [1, 2]]]
    """
    if not isinstance(bins, Bins):
        raise TypeError(f"bins must be rollkit.Bins, got {type(bins).__name__}; Bins(rollouts, capacity)")
    if isinstance(order, str | bytes) or not isinstance(order, Iterable):
        raise TypeError(f"order must be numbers of bins, got {type(order).__name__}")
    return _batches(bins, iter(order), _check.positive("lines", lines))


def _batches(bins: Bins, numbers: Iterator[int], lines: int) -> Iterator[dict[str, Any]]:
    while len(chosen := list(islice(numbers, lines))) == lines:
        yield bins._stacked(chosen)


def prefetch(batches: Iterable[Mapping[str, Any]], sharding: Any, depth: int = 2) -> Iterator[dict[str, Any]]:
    """`device_batch` of each, made and moved on a thread while the model computes.

    Args:
        batches: this process's, `rollkit.jax.batches` or a dataset of grain.
        sharding: as in `device_batch`.
        depth: batches that are ahead, at most; each is memory of the devices.

    Raises:
        ValueError: a batch has other names, shapes or dtypes than the first: each new one would be compiled.

    Example:
        >>> import jax, numpy as np
        >>> device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        >>> [batch["x"].sum() for batch in prefetch([{"x": np.ones((2, 3), np.int32)}], device)]
        [Array(6, dtype=int32)]
    """
    _check_sharding(sharding)
    return on_a_thread(_alike(batches, sharding), depth)


def _alike(batches: Iterable[Mapping[str, Any]], sharding: Any) -> Iterator[dict[str, Any]]:
    first: dict[str, Any] = {}
    for step, batch in enumerate(batches):
        made = device_batch(batch, sharding)
        shapes = {name: (array.shape, str(array.dtype)) for name, array in made.items()}
        first = first or shapes
        if shapes != first:
            name = next(name for name in [*first, *shapes] if first.get(name) != shapes.get(name))
            raise ValueError(
                f"batch {step}: array {name!r} is {_told(shapes.get(name))}, that of batch 0 "
                f"{_told(first.get(name))}; batches of one shape are compiled once"
            )
        yield made
        del made, batch


def _told(found: tuple[Any, str] | None) -> str:
    return "not there" if found is None else f"{found[1]} {list(found[0])}"
