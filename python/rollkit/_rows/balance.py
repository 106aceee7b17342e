"""Rows to parts that cost the same: `balance`, `imbalance`, `fit_cost`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollkit import _check, _native
from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._frameworks import as_array, is_array

Cost = tuple[int, int] | ArrayLike | None
"""What a row costs: its length, `a * length + b * length**2`, or a number of its own."""

GroupIds = ArrayLike | Sequence[Hashable] | None
"""Which rows stay together."""

_SQUARE: Final = 100
_MOST: Final = 2**31


def balance(
    lengths: ArrayLike,
    parts: int,
    *,
    cost: Cost = None,
    equal_counts: bool = False,
    capacity: int | None = None,
    groups: GroupIds = None,
    tolerance: float = 1e-4,
) -> Int64s:
    """Deal rows to parts (ranks, micro-batches, optimizer steps) that cost the same.

    Everything is in integers, with ties by row number: the same call gives the same parts on every machine.

    Args:
        lengths: `[rows]` ints, 0 or more.
        parts: how many parts there are. Where there are more than rows (or groups), some stay empty.
        cost: what a row costs. None: its length. A tuple `(a, b)`: `a * length + b * length**2`, as the
            matrix products and the attention of a transformer do; `fit_cost` finds them. `[rows]` ints:
            those.
        equal_counts: the rows of parts differ by one at most.
        capacity: elements that a part holds, at most. What `plan_bins` packs into so many bins is never
            refused (but for `equal_counts`, where none may be found although there is one).
        groups: `[rows]` ids, ints or what else has a hash: rows of one id stay in one part (the samples of a
            prompt, the steps of a trajectory).
        tolerance: the costliest part is made cheaper until it costs at most this share above the mean, or
            nothing is found that makes it so.

    Returns:
        `[rows]` int64, the part of each row.

    Raises:
        TypeError: lengths or costs are no integers, or an option has the wrong type.
        ValueError: rows do not fit the capacity (the message says how many parts first fit decreasing
            needs), or groups cannot be dealt out in equal counts.
        OverflowError: costs add up to more than 2**63 - 1; the row is named.

    Example:
        >>> balance([7, 5, 4, 3, 1], 2)
        array([0, 1, 1, 0, 1])
        >>> balance([7, 5, 4, 3], 2, equal_counts=True, cost=(0, 1))
        array([0, 1, 1, 0])
        >>> balance([4, 4, 4, 9], 2, groups=["a", "b", "a", "b"])
        array([1, 0, 1, 0])

    References:
        R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969, for the
        first assignment of free counts. Of equal counts, the costliest row that is left goes to the part that
        is short of most for each place it has free. Then rows are exchanged between the costliest part and
        the others.
    """
    rows = _check.lengths("lengths", lengths)
    share = float(_check.number("tolerance", tolerance))
    if not share >= 0:
        raise ValueError(f"tolerance must be at least 0, got {share}")
    return _native.balance(
        rows,
        row_costs(rows, cost),
        group_ids(groups, len(rows)),
        parts=_check.positive("parts", parts),
        equal_counts=_check.flag("equal_counts", equal_counts),
        capacity=None if capacity is None else _check.positive("capacity", capacity),
        tolerance=share,
    )


def imbalance(
    lengths: ArrayLike,
    assignment: ArrayLike,
    *,
    cost: Cost = None,
    parts: int | None = None,
    equal_counts: bool | None = None,
    groups: GroupIds = None,
) -> tuple[float, float]:
    """Tell how much more the costliest part costs than the mean, and how much it must.

    Args:
        lengths: `[rows]` ints, 0 or more.
        assignment: `[rows]` ints, the part of each row, as `balance` gives them.
        cost: see `balance`.
        parts: how many parts there are; as many as `assignment` names by default.
        equal_counts: whether the bound is that of parts whose rows differ by one at most; by default, whether
            those of `assignment` do.
        groups: see `balance`; the bound is that of groups that stay together.

    Returns:
        The excess, `(costliest - mean) / mean`, and what that of every assignment is at least: no part of the
        costliest row (or group) is cheaper than that row, nor, in equal counts, than with the cheapest others
        beside it. Both are 0 where nothing costs anything.

    Raises:
        ValueError: a part is not one of `parts`; the row is named.

    Example:
        >>> imbalance([7, 5, 4, 3, 1], [0, 1, 1, 0, 1])
        (0.0, 0.0)
        >>> imbalance([8, 2, 1, 1], [0, 1, 0, 1])  # 9 and 3, of a mean of 6
        (0.5, 0.5)
    """
    rows = _check.lengths("lengths", lengths)
    costs = row_costs(rows, cost)
    found = _check.int64s("assignment", assignment)
    if len(found) != len(rows):
        raise ValueError(f"assignment has {len(found)} rows, lengths has {len(rows)}")
    count = int(found.max(initial=0)) + 1 if parts is None else _check.positive("parts", parts)
    if (odd := (found < 0) | (found >= count)).any():
        row = int(odd.argmax())
        raise refusal(ValueError, f" is of part {found[row]}, expected one of 0 to {count - 1}", row=row)
    used = count
    if count > len(rows):  # some have no row, and of those there may be any number
        names, found = np.unique(found, return_inverse=True)
        used = len(names)
    counts = np.bincount(found, minlength=used)
    fewest = counts.min(initial=len(rows)) if used == count else 0
    equal = int(counts.max(initial=0) - fewest) <= 1 if equal_counts is None else equal_counts
    least, total = _native.balance_bound(
        costs, group_ids(groups, len(rows)), parts=count, equal_counts=_check.flag("equal_counts", equal)
    )
    loads = np.zeros(used, np.int64)
    np.add.at(loads, found, costs)
    return over_mean(int(loads.max(initial=0)), count, total), over_mean(least, count, total)


def over_mean(most: int, parts: int, total: int) -> float:
    """How much more than the mean of parts the costliest of them costs, as a share of the mean."""
    return max(most * parts - total, 0) / total if total else 0.0


def fit_cost(tokens: ArrayLike, squares: ArrayLike, seconds: ArrayLike) -> tuple[int, int]:
    """Find `(a, b)` for `cost=` from micro-batches that were measured: seconds ≈ a · tokens + b · squares.

    The fit is of least squares, with neither below 0. Only the ratio of the two matters to `balance`, so `b`
    is 100, and `a` what goes with it, rounded: what a row of `n` tokens costs is right to 0.5 % / `n`. (Where
    `a` would pass 2**31, it is that, and `b` what goes with it; where one is 0, the other is 1.) Costs of 10
    million rows of 32 768 tokens still add up in an int64.

    Args:
        tokens: `[batches]`, the tokens of each micro-batch: Σ length.
        squares: `[batches]`, Σ length² over its rows.
        seconds: `[batches]`, what each took.

    Raises:
        ValueError: there are fewer than two batches, or all have the same squares per token, so that the two
            cannot be told apart: measure some of short rows, some of long ones.

    Example:
        >>> tokens, squares = np.array([8192, 8192, 4096]), np.array([8192 * 8192, 8192 * 512, 4096 * 2048])
        >>> fit_cost(tokens, squares, 1e-12 * (24576 * tokens + squares))
        (2457600, 100)
    """
    columns = [
        _fitted(name, of) for name, of in (("tokens", tokens), ("squares", squares), ("seconds", seconds))
    ]
    if len({len(column) for column in columns}) != 1:
        raise ValueError(
            f"tokens, squares and seconds have {', '.join(str(len(c)) for c in columns)} batches"
        )
    scales = [float(column.max(initial=0)) or 1.0 for column in columns]
    x, y, wanted = (column / scale for column, scale in zip(columns, scales, strict=True))
    xx, xy, yy, xw, yw = x @ x, x @ y, y @ y, x @ wanted, y @ wanted
    independent = xx * yy - xy * xy
    if not independent > 1e-12 * xx * yy:
        raise ValueError(
            "tokens and squares are in one ratio in all batches, so that their costs cannot be told apart; "
            "measure some batches of short rows and some of long ones"
        )
    a, b = float((xw * yy - yw * xy) / independent), float((yw * xx - xw * xy) / independent)
    if a < 0:
        a, b = 0.0, float(yw / yy)
    elif b < 0:
        a, b = float(xw / xx), 0.0
    return _as_ints(a / scales[0], b / scales[1])


def _as_ints(a: float, b: float) -> tuple[int, int]:
    """The ratio of two numbers, in integers."""
    if a == 0 == b:
        raise ValueError("seconds are 0 in all batches; measure what takes time")
    if a == 0 or b == 0:
        return int(a > 0), int(b > 0)
    scale = min(_SQUARE / b, _MOST / a)
    return round(a * scale), round(b * scale)


def _fitted(name: str, value: ArrayLike) -> NDArray[np.float64]:
    found = _check.floats(name, value)
    if found.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {found.shape}")
    if (odd := ~((found >= 0) & (found < np.inf))).any():
        row = int(odd.argmax())
        raise ValueError(f"{name}[{row}] is {found[row]}; measurements must be 0 or more")
    return found


def row_costs(lengths: Int64s, cost: Cost) -> Int64s:
    """What each row costs."""
    if cost is None:
        return lengths
    if isinstance(cost, tuple):
        if len(cost) != 2:
            raise ValueError(f"cost must be (a, b), or one int per row, got a tuple of {len(cost)}")
        token, square = (_check.positive(f"cost[{i}]", of, least=0) for i, of in enumerate(cost))
        return _native.row_costs(lengths, per_token=token, per_square=square)
    found = _check.int64s("cost", cost)
    if len(found) != len(lengths):
        raise ValueError(
            f"cost has {len(found)} rows, lengths has {len(lengths)}; a cost per token and per square is a "
            "tuple (a, b)"
        )
    if (row := _native.first_negative(found)) is not None:
        raise refusal(ValueError, f" costs {found[row]}; costs must be 0 or more", row=row)
    return found


def group_ids(groups: GroupIds, rows: int) -> Int64s | None:
    """Numbers below that of rows, one a group."""
    if groups is None:
        return None
    given = np.asarray(as_array(groups)) if is_array(groups) else None
    if given is not None and given.dtype.kind in "iu" and given.ndim == 1:
        _check_count(len(given), rows)
        return np.unique(given, return_inverse=True)[1].astype(np.int64, copy=False)
    entries = _check.entries("groups", groups)
    _check_count(len(entries), rows)
    _check.given("groups", entries)
    numbers: dict[Hashable, int] = {}
    return np.array([_number(numbers, row, entry) for row, entry in enumerate(entries)], np.int64)


def _number(numbers: dict[Hashable, int], row: int, entry: Any) -> int:
    """The number of an id, a new one where it is."""
    try:
        return numbers.setdefault(entry, len(numbers))
    except TypeError:
        raise TypeError(
            f"groups[{row}] is {type(entry).__name__}, which cannot be grouped by; give one number, text or "
            "other hashable object per row"
        ) from None


def _check_count(got: int, rows: int) -> None:
    if got != rows:
        raise ValueError(f"groups has {got} rows, lengths has {rows}")
