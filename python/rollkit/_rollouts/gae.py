"""Advantages and returns, by one scan from the end of each row: `gae`, `returns`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit import _check, _native
from rollkit._arrays.ops import Ops, ops, ops_of
from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._frameworks import (
    AnyArray,
    as_array,
    check_ints,
    dtype_name,
    framework_of,
    kind_of,
    same_framework,
)
from rollkit._rollouts.columns import is_rows
from rollkit._rollouts.rewards import check_scalars
from rollkit._rows.ragged import Ragged, trusted


def gae(
    rewards: Any, values: Any, masks: Any = None, *, gamma: float, lam: float, segment_ids: Any = None
) -> tuple[Any, Any]:
    """Generalized advantage estimates, and the returns that a critic learns: advantages plus values.

    Schulman et al. 2015, arXiv 1506.02438. From the end of each row, with `next` the next token that counts:

        advantage[t] = rewards[t] + gamma * values[next] - values[t] + gamma * lam * advantage[next]

    Past a row's last token that counts, values and advantages are 0. Tokens whose mask is 0 (observations,
    prompts, padding) are stepped over without discount, as in verl, and get 0. A reward on such a token goes
    to the token before it that counts, since what the environment says answers that; verl drops it. A value
    on one is not read.

    On the host Rust scans; on devices, under a gradient or a trace it is a parallel scan of the framework's,
    through which gradients go. No loop over time is in Python. Advantages are not whitened: `whiten` does it.

    Args:
        rewards: one per token: a `Ragged`, rows (lists, arrays, tensors), or an array `[T]` or `[B, T]` of
            any framework. Beside rows also one per row, which counts on the last token.
        values: what a critic expects at each token, shaped as `rewards`.
        masks: which tokens count, where it is not 0; all by default.
        gamma: the discount of rewards, from 0 to 1.
        lam: of advantages, from 0 to 1.
        segment_ids: of arrays: rows end where it changes, and 0 is padding. Without, each line is one row.

    Returns:
        Advantages and returns, shaped as `values`: a `Ragged` each for rows, else arrays of the framework.
        They are float64 where rewards or values are, else float32. The host computes in float64, frameworks
        in the dtype of the result. NaN goes to the tokens before it in its row, and no further.

    Raises:
        TypeError: something holds no numbers, or is of another framework.
        ValueError: rows or shapes differ, a discount is not from 0 to 1; column and row are named.

    Example:
        >>> advantages, returns = gae([[0.0, 0.0, 1.0]], [[0.5, 9.0, 0.5]], [[1, 0, 1]], gamma=1.0, lam=0.5)
        >>> advantages.to_list(), returns.to_list()
        ([[0.25, 0.0, 0.5]], [[0.75, 0.0, 1.0]])
    """
    found = _scanned(rewards, values, masks, segment_ids, discount("gamma", gamma), discount("lam", lam))
    return found[0], found[1]


def returns(rewards: Any, masks: Any = None, *, gamma: float, segment_ids: Any = None) -> Any:
    """What each token still brings: its reward, and `gamma` times what the next token that counts brings.

    `gae` without values and with `lam=1`: everything else is said there.

    Example:
        >>> returns([[0.0, 0.0, 1.0], [2.0]], [[1, 0, 1], [1]], gamma=0.5).to_list()
        [[0.5, 0.0, 1.0], [2.0]]
        >>> import numpy as np
        >>> returns(np.array([1.0, 1.0, 1.0]), gamma=1.0, segment_ids=np.array([1, 1, 2]))
        array([2., 1., 1.])
    """
    return _scanned(rewards, None, masks, segment_ids, discount("gamma", gamma), 1.0)[0]


def scan_rows(
    rewards: Ragged, values: Ragged | None, masks: Ragged | None, bounds: Int64s, gamma: float, lam: float
) -> tuple[Any, Any]:
    """Advantages and returns of rows that are equally long, end to end; `bounds` are where scans end.

    Those of `rewards` for rows, others where rows go on in the next.
    """
    arrays = [None if rows is None else rows.flat for rows in (rewards, values, masks)]
    like = next((array for array in arrays if array is not None and framework_of(array) != "numpy"), None)
    if like is None:
        return _native_scan(*arrays, bounds, gamma, lam)
    own = ops_of(like)
    lines = [None if array is None else _moved(own, array, like)[None] for array in arrays]
    ends = np.zeros(lines[0].shape, bool)
    ends[0, bounds[1:][bounds[1:] > bounds[:-1]] - 1] = True
    found = own.run(_scan_given, *lines, own.from_host(ends, like), gamma=gamma, lam=lam)
    return _both(lambda array: array[0], found)


def _scanned(
    rewards: Any, values: Any, masks: Any, segment_ids: Any, gamma: float, lam: float
) -> tuple[Any, Any]:
    given = {"rewards": rewards, "values": values, "masks": masks}
    if values is None:
        del given["values"]
    if not any(_are_rows(found) for found in given.values()):
        return _of_arrays(rewards, values, masks, segment_ids, gamma, lam)
    if segment_ids is not None:
        raise TypeError("segment_ids goes with arrays; rows say themselves where they end")
    columns = _columns({name: found for name, found in given.items() if found is not None})
    main = columns["rewards"]
    bounds = main.offsets - main.offsets[0]
    found = scan_rows(main, columns.get("values"), columns.get("masks"), bounds, gamma, lam)
    return _both(lambda array: trusted(array, bounds), found)


def _are_rows(found: Any) -> bool:
    return isinstance(found, Ragged | list | tuple) or bool(getattr(found, "is_nested", False))


def _columns(given: dict[str, Any]) -> dict[str, Ragged]:
    """Rows of numbers, equally long."""
    scalars = None
    if len(given) > 1 and _is_per_row(given["rewards"]):
        scalars = np.asarray(as_array(given.pop("rewards")))
    found = {}
    for name, rows in given.items():
        with at(column=name):
            found[name] = Ragged.from_rows(rows)
        if found[name].inner:
            text = f"expected a number per token, got elements of shape {found[name].inner}"
            raise refusal(ValueError, text, column=name)
    first, main = next(iter(found.items()))
    for name, rows in found.items():
        if len(rows) != len(main):
            raise refusal(ValueError, f"has {len(rows)} rows, {first} has {len(main)}", column=name)
        if (odd := rows.lengths != main.lengths).any():
            row = int(odd.argmax())
            text = f" has {rows.lengths[row]} elements, its {first} has {main.lengths[row]}"
            raise refusal(ValueError, text, column=name, row=row)
    if scalars is not None:
        found["rewards"] = _spread(scalars, main)
    return found


def _is_per_row(rewards: Any) -> bool:
    if isinstance(rewards, list | tuple):
        return bool(rewards) and not is_rows(rewards)
    return not isinstance(rewards, Ragged) and getattr(rewards, "ndim", 0) == 1


def _spread(rewards: NDArray[Any], main: Ragged) -> Ragged:
    """One reward per row, on the last token of each."""
    if len(rewards) != len(main):
        raise refusal(ValueError, f"has {len(rewards)} entries, there are {len(main)} rows", column="rewards")
    check_scalars(rewards, main.lengths)
    bounds = main.offsets - main.offsets[0]
    flat = np.zeros(bounds[-1], np.float64 if rewards.dtype == np.float64 else np.float32)
    filled = main.lengths > 0
    flat[bounds[1:][filled] - 1] = rewards[filled]
    return trusted(flat, bounds)


def _of_arrays(
    rewards: Any, values: Any, masks: Any, segment_ids: Any, gamma: float, lam: float
) -> tuple[Any, Any]:
    given = {"rewards": rewards, "values": values, "masks": masks, "segment_ids": segment_ids}
    given = {name: array for name, array in given.items() if array is not None or name == "rewards"}
    for name, array in given.items():
        if framework_of(array) is None:
            raise TypeError(f"{name} must be an array or rows, got {type(array).__name__}")
        shape, wanted = tuple(array.shape), tuple(rewards.shape)
        if shape != wanted or len(shape) not in (1, 2):
            raise ValueError(f"{name} has shape {shape}, rewards has {wanted}; expected [T] or [B, T]")
    theirs = {name: array for name, array in given.items() if framework_of(array) != "numpy"}
    like, own = next(iter(theirs.values()), None), ops(same_framework(**theirs))
    if segment_ids is not None:
        check_ints("segment_ids", segment_ids)
    if like is None or all(ops_of(array).is_plain(array) for array in given.values()):
        found = _host_arrays(**{name: as_array(array) for name, array in given.items()}, gamma=gamma, lam=lam)
        return _both(lambda array: own.from_numpy(array, None, {}), found)
    lines = {name: _moved(own, array, like) for name, array in given.items()}
    if rewards.ndim == 1:
        lines = {name: array[None] for name, array in lines.items()}
    ready = [lines.get(name) for name in ("rewards", "values", "masks", "segment_ids")]
    found = own.run(_scan_lines, *ready, gamma=gamma, lam=lam)
    return _both(lambda array: array.reshape(rewards.shape), found)


def _both(change: Callable[[Any], Any], found: tuple[Any, Any]) -> tuple[Any, Any]:
    """Advantages and, if there are some, returns."""
    return change(found[0]), None if found[1] is None else change(found[1])


def _host_arrays(
    rewards: AnyArray,
    values: AnyArray | None = None,
    masks: AnyArray | None = None,
    segment_ids: AnyArray | None = None,
    *,
    gamma: float,
    lam: float,
) -> tuple[Any, Any]:
    ends = np.zeros(rewards.shape, bool)
    ends[..., -1:] = True
    if segment_ids is not None:
        ends[..., :-1] = segment_ids[..., 1:] != segment_ids[..., :-1]
        present = segment_ids != 0
        masks = present if masks is None else present & (masks != 0)
    bounds = np.append(0, np.flatnonzero(ends) + 1)
    flat = [None if array is None else array.reshape(-1) for array in (rewards, values, masks)]
    found = _native_scan(*flat, bounds, gamma, lam)
    return _both(lambda array: array.reshape(rewards.shape), found)


def _native_scan(
    rewards: Any, values: Any, masks: Any, bounds: Int64s, gamma: float, lam: float
) -> tuple[Any, Any]:
    """Rust's scan of flat arrays of the host."""
    dtype = np.float64 if _is_wide(rewards, values) else np.float32
    rewards, values = _floats("rewards", rewards, dtype), _floats("values", values, dtype)
    if masks is not None:
        plain = masks.dtype.kind in "biu" and masks.dtype.itemsize == 1
        masks = np.ascontiguousarray(masks if plain else masks != 0)
    return _native.gae(rewards, values, masks, bounds, gamma=gamma, lam=lam, both=values is not None)


def _floats(name: str, array: Any, dtype: Any) -> Any:
    if array is None:
        return None
    if kind_of(array) == "other":
        raise TypeError(f"{name} must hold numbers, got {dtype_name(array)}")
    return np.require(array, dtype, ["C", "A"])


def _is_wide(*arrays: Any) -> bool:
    return any(array is not None and dtype_name(array) == "float64" for array in arrays)


def _moved(own: Ops, array: Any, like: Any) -> Any:
    """NumPy's arrays as the framework's, beside its own."""
    return own.from_host(array, like) if framework_of(array) == "numpy" else array


def _scan_lines(
    own: Ops, rewards: Any, values: Any, masks: Any, ids: Any, *, gamma: float, lam: float
) -> tuple[Any, Any]:
    """`[R, N]` of a framework: rows end where ids change, or with the line."""
    if ids is None:
        ends = own.arange(rewards.shape[-1], rewards) == rewards.shape[-1] - 1
        return _scan_ends(own, rewards, values, masks, ends[None], gamma, lam)
    ids = own.wide(ids)
    ends = ids != own.flip(own.shift(own.flip(ids)))
    counts = (ids != 0) if masks is None else (ids != 0) & (masks != 0)
    return _scan_ends(own, rewards, values, counts, ends, gamma, lam)


def _scan_given(own: Ops, *arrays: Any, gamma: float, lam: float) -> tuple[Any, Any]:
    return _scan_ends(own, *arrays, gamma, lam)


def _scan_ends(
    own: Ops, rewards: Any, values: Any, masks: Any, ends: Any, gamma: float, lam: float
) -> tuple[Any, Any]:
    """The scan of `gae`: what a token gives the one before it is a factor and a term, and these compose."""
    dtype = np.float64 if _is_wide(rewards, values) else np.float32
    rewards = own.cast(rewards, dtype)
    expected = rewards if values is None else own.cast(values, dtype)
    through = 1 - own.cast(ends, dtype)  # nothing comes over the end of a row

    def ahead(array: Any) -> Any:
        """What the token after has, 0 past the end of a row."""
        return own.where(ends, 0.0, own.flip(own.shift(own.flip(array))))

    def next_of(array: Any) -> Any:
        """What the next token that counts has."""
        if masks is None:
            return ahead(array)
        return ahead(own.carry_back(passed, own.where(counts, array, 0.0)))

    counts = None if masks is None else masks != 0
    passed = None if masks is None else own.where(counts, 0.0, through)
    surprise = rewards if values is None else rewards + gamma * next_of(expected) - expected
    decay = through * (gamma * lam)
    if masks is not None:
        owed = ahead(own.carry_back(passed, own.where(counts, 0.0, rewards)))
        surprise, decay = own.where(counts, surprise + owed, 0.0), own.where(counts, decay, through)
    advantages = own.carry_back(decay, surprise)
    sums = advantages + expected
    if masks is not None:
        advantages, sums = (own.where(counts, found, 0.0) for found in (advantages, sums))
    return advantages, None if values is None else sums


def discount(name: str, value: Any) -> float:
    """A number from 0 to 1."""
    found = float(_check.number(name, value))
    if not 0 <= found <= 1:
        raise ValueError(f"{name} must be from 0 to 1, got {found}")
    return found
