"""Advantages and returns, by one scan from the end of each row: `gae`, `returns`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit import _check
from rollkit._arrays.ops import Ops, ops, ops_of
from rollkit._errors import at, refusal
from rollkit._frameworks import as_array, check_ints, dtype_name, framework_of, same_framework
from rollkit._rollouts.columns import is_rows
from rollkit._rollouts.rewards import check_scalars
from rollkit._rollouts.scans import Found, Tokens, beside, scan_flat, scan_host, scan_lines
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
            any framework. Beside rows also one per row, which counts on the last token, in the dtype of
            values.
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
    return _scanned(rewards, values, masks, segment_ids, discount("gamma", gamma), discount("lam", lam))


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


def _scanned(
    rewards: Any, values: Any, masks: Any, segment_ids: Any, gamma: float, lam: float
) -> tuple[Any, Any]:
    tokens = Tokens(rewards, values, masks)
    if not any(map(_are_rows, tokens)):
        return _of_arrays(tokens, segment_ids, gamma, lam)
    if segment_ids is not None:
        raise TypeError("segment_ids goes with arrays; rows say themselves where they end")
    columns = _columns({name: found for name, found in tokens._asdict().items() if found is not None})
    bounds = columns["rewards"].offsets - columns["rewards"].offsets[0]
    flat = Tokens(**{name: rows.flat for name, rows in columns.items()})
    return scan_flat(flat, bounds, gamma, lam).map(lambda array: trusted(array, bounds))


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
    flat = np.zeros(bounds[-1], np.float64 if dtype_name(main.values) == "float64" else np.float32)
    filled = main.lengths > 0
    flat[bounds[1:][filled] - 1] = rewards[filled]
    return trusted(flat, bounds)


def _of_arrays(tokens: Tokens, segment_ids: Any, gamma: float, lam: float) -> tuple[Any, Any]:
    given = {**tokens._asdict(), "segment_ids": segment_ids}
    given = {name: array for name, array in given.items() if array is not None or name == "rewards"}
    for name, array in given.items():
        if framework_of(array) is None:
            raise TypeError(f"{name} must be an array or rows, got {type(array).__name__}")
        shape, wanted = tuple(array.shape), tuple(tokens.rewards.shape)
        if shape != wanted or len(shape) not in (1, 2):
            raise ValueError(f"{name} has shape {shape}, rewards has {wanted}; expected [T] or [B, T]")
    if segment_ids is not None:
        check_ints("segment_ids", segment_ids)
    theirs = {name: array for name, array in given.items() if framework_of(array) != "numpy"}
    like, own = next(iter(theirs.values()), None), ops(same_framework(**theirs))
    if all(ops_of(array).is_plain(array) for array in given.values()):
        found = _of_host(tokens.map(as_array), as_array(segment_ids), gamma, lam)
        return found.map(lambda array: own.from_numpy(array, None, {}))
    flat = tokens.rewards.ndim == 1
    lines, ids = tokens.map(lambda array: _line(own, array, like, flat)), segment_ids
    ids = None if ids is None else _line(own, ids, like, flat)
    return scan_lines(own, lines, ids, gamma, lam).map(lambda array: array.reshape(tokens.rewards.shape))


def _line(own: Ops, array: Any, like: Any, flat: bool) -> Any:
    found = beside(own, array, like)
    return found[None] if flat else found


def _of_host(tokens: Tokens, segment_ids: Any, gamma: float, lam: float) -> Found:
    shape = tokens.rewards.shape
    if segment_ids is None:
        bounds = np.arange((shape[0] if len(shape) > 1 else 1) + 1) * shape[-1]
    else:
        ends = np.ones(shape, bool)
        np.not_equal(segment_ids[..., 1:], segment_ids[..., :-1], out=ends[..., :-1])
        bounds = np.append(0, np.flatnonzero(ends) + 1)
        counts = segment_ids != 0
        tokens = tokens._replace(masks=counts if tokens.masks is None else counts & (tokens.masks != 0))
    flat = tokens.map(lambda array: array.reshape(-1))
    return scan_host(flat, bounds, gamma, lam).map(lambda array: array.reshape(shape))


def discount(name: str, value: Any) -> float:
    """A number from 0 to 1."""
    found = _check.finite(name, value)
    if not 0 <= found <= 1:
        raise ValueError(f"{name} must be from 0 to 1, got {found}")
    return found
