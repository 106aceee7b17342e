"""`place` and `take` by a framework's own operations, bit for bit beside the host, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from gpu.cases import SIZES, Rng, any_layout, of_pieces, rows_of
from gpu.setting import Faults, Setting, check_bits, moved, on_host, own_operations, placed
from rollkit import Layout, Ragged, concat, place, take

WIDE = ("float64", "int64", "uint64", "complex64")
"""Dtypes that JAX lacks unless told otherwise, or that take it another compilation."""
NARROW = ("float32", "bfloat16", "float16", "int32", "uint8", "bool")
OTHERS = ("int16", "int8", "uint16", "uint32", "float8_e4m3fn", "float8_e5m2")
INNERS = ((), (3,))
FORMS = 8  # every so many layouts, other forms of rows and the gradient


def of_torch(setting: Setting) -> Iterator[str]:
    """Any layouts, all dtypes."""
    with own_operations(setting, "torch"):
        names = NARROW + WIDE + OTHERS
        count, faults = 0, Faults(setting)
        for number in setting.tries(10_000, 40):
            rng = np.random.default_rng([1, number])
            layout = any_layout(rng)
            name = names[number % len(names)]
            with faults.of(name):
                check(setting, "torch", rng, layout, name, INNERS[number // 7 % 2])
            if number % FORMS == 0:
                with faults.of("forms"):
                    check_forms(setting, rng, layout)
                with faults.of("gradients"):
                    check_gradient(setting, layout, _torch_gradient, "torch", NARROW[number // FORMS % 3])
            count = number + 1
        faults.check()
        yield f"{count} random layouts, {len(names)} dtypes: bit for bit the host's"
        yield f"{-(-count // FORMS)} of them as lists and in parts, and their gradients: bit for bit"


def of_jax(setting: Setting) -> Iterator[str]:
    """Layouts of few shapes, since JAX compiles for each."""
    with own_operations(setting, "jax"):
        sizes, names = (SIZES, NARROW) if setting.on_gpu else (SIZES[::2], NARROW[:2])
        count, faults = 0, Faults(setting)
        for number in setting.tries(10_000, 24):
            rng = np.random.default_rng([2, number])
            kind = number % len(sizes)
            layout = any_layout(rng) if number % 500 == 499 else of_pieces(rng, *sizes[kind])
            name = names[number // len(sizes) % len(names)]
            with faults.of(name):
                check(setting, "jax", rng, layout, name, INNERS[kind % 2])
            if number % FORMS == 1:
                floats = names[: len(names) // 2]
                dtype = floats[number // FORMS // len(sizes) % len(floats)]
                with faults.of(f"gradients, {dtype}"):
                    check_gradient(setting, layout, _jax_gradient, "jax", dtype)
            count = number + 1
        faults.check()
        yield f"{count} random layouts, {len(names)} dtypes: bit for bit the host's"
        yield f"{-(-count // FORMS)} of their gradients: bit for bit"


def check(
    setting: Setting, framework: str, rng: Rng, layout: Layout, name: str, inner: tuple[int, ...]
) -> None:
    """Place, and take what was placed."""
    rows = rows_of(rng, layout, _dtype(name), inner)
    fill = 1 if name == "bool" else 3
    what = f"{framework}, {name}, {layout!r}"
    wanted = place(rows, layout, fill)
    column = Ragged(placed(setting, framework, on_host(rows.values)), rows.offsets)
    found = place(column, layout, fill)
    check_there(setting, found, what)
    check_bits(found, wanted, f"place by {what}")
    back, right = take(found, layout), take(wanted, layout)
    check_there(setting, back.values, what)
    check_bits(back.flat, right.flat, f"take by {what}")
    assert back.lengths.tolist() == right.lengths.tolist(), f"lengths by {what}"


def check_there(setting: Setting, array: Any, what: str) -> None:
    """Refuse an array that has left the device."""
    if not setting.on_gpu:
        return
    where = array.device.type if hasattr(array, "element_size") else next(iter(array.devices())).platform
    assert where in ("cuda", "gpu"), f"{what}: the result is on {where}"


def check_forms(setting: Setting, rng: Rng, layout: Layout) -> None:
    """Rows as a list of tensors, in parts, cast, joined and picked."""
    rows = rows_of(rng, layout, np.dtype(np.float32), ())
    column = Ragged(placed(setting, "torch", on_host(rows.values)), rows.offsets)
    wide = place(rows, layout, 3, dtype=np.float64)
    check_bits(place(column, layout, 3, dtype=np.float64), wide, f"place to float64, {layout!r}")
    if not len(rows):
        return
    wanted = place(rows, layout, 3)
    check_bits(place(list(column), layout, 3), wanted, f"place of a list of tensors, {layout!r}")
    check_bits(place([column[:1], column[1:]], layout, 3), wanted, f"place of parts, {layout!r}")
    order = rng.integers(0, len(rows), 5)
    check_bits(column.take(order).flat, rows.take(order).flat, "Ragged.take")
    check_bits(concat([column[1:], column]).flat, concat([rows[1:], rows]).flat, "concat")


def check_gradient(
    setting: Setting, layout: Layout, gradient: Callable[..., Any], framework: str, name: str
) -> None:
    """What a sum of weighted elements has for a gradient: their weights, where they came from."""
    dtype = _dtype(name)
    total = int(layout.row_lengths.sum())
    offsets = np.append(0, np.cumsum(layout.row_lengths))
    cells = place(Ragged(np.arange(total), offsets), layout, -1)
    weights = (np.arange(cells.size).reshape(cells.shape) % 127 + 1).astype(dtype)
    wanted = np.zeros(total, dtype)
    wanted[cells[cells >= 0]] = weights[cells >= 0]
    given = placed(setting, framework, np.ones(total, dtype))
    found = gradient(lambda x: place(Ragged(x, offsets), layout), given, placed(setting, framework, weights))
    check_bits(found, wanted, f"gradient of place by {framework}, {name}, {layout!r}")

    index = layout.gather_indices()
    weights = (np.arange(len(index)) % 127 + 1).astype(dtype)
    wanted = np.zeros(layout.size, dtype)
    wanted[index] = weights
    given = placed(setting, framework, np.ones(layout.shape, dtype))
    found = gradient(lambda x: take(x, layout).flat, given, placed(setting, framework, weights))
    check_bits(found, wanted.reshape(layout.shape), f"gradient of take by {framework}, {name}, {layout!r}")


def _torch_gradient(function: Callable[[Any], Any], given: Any, weights: Any) -> Any:
    given.requires_grad_()
    (function(given) * weights).sum().backward()
    return given.grad


def _jax_gradient(function: Callable[[Any], Any], given: Any, weights: Any) -> Any:
    import jax

    return jax.grad(lambda x: (function(x) * weights).astype("float32").sum())(given)


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name) if "bfloat" in name or "float8" in name else name)


def moves(setting: Setting) -> Iterator[str]:
    """A packed batch to the device and back."""
    from rollkit import pack

    rng = np.random.default_rng(3)
    frameworks = ("torch", "jax")
    for number in setting.tries(200, 5):
        lengths = rng.integers(1, 9, 6)
        rollouts: dict[str, Any] = {
            "prompt_token_ids": [rng.integers(0, 99, n).tolist() for n in lengths],
            "response_ids": [rng.integers(0, 99, n).tolist() for n in lengths],
            "loss_masks": [rng.integers(0, 2, n).tolist() for n in lengths],
            "advantages": [rng.normal(size=n).astype(np.float32) for n in lengths],
        }
        batch = pack(rollouts, 32, share_prefixes=number % 2 == 1)
        for framework in frameworks:
            there = moved(setting, framework, batch)
            for name in batch:
                same = np.array_equal(on_host(there[name]), np.asarray(batch[name]))
                assert same, f"{name} of a batch moved to {framework}"
            rows = there.unpack("input_ids").to_list()
            assert rows == batch.unpack("input_ids").to_list(), f"unpack of a batch moved to {framework}"
    yield f"{setting.count(200, 5)} batches, packed and as forests, moved and unpacked, torch and JAX"
