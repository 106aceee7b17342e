"""Row lengths to bins: `plan_bins`."""

from __future__ import annotations

from typing import Final, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check, _native
from rollkit._check import Int64s
from rollkit._rows.order import permuted

ALGORITHMS: Final = ("first_fit_decreasing", "best_fit_decreasing", "first_fit", "next_fit")
OVERSIZE: Final = ("raise", "truncate", "alone", "drop", "split")
ORDERS: Final = ("opened", "shuffled")


class Packing(TypedDict, total=False):
    """How rows are packed: what `plan_bins`, `Layout.pack`, `rollkit.pack` and shards have in common.

    Functions that users read name these options one by one; a test holds them to this. Others pass them on as
    `**packing`. The command line makes its flags of them.
    """

    algorithm: str
    align: int
    max_segments: int | None
    oversize: str
    bins_multiple_of: int
    order: str
    seed: int | None


DEFAULTS: Final = Packing(
    algorithm="first_fit_decreasing",
    align=1,
    max_segments=None,
    oversize="raise",
    bins_multiple_of=1,
    order="opened",
    seed=None,
)
"""What holds where nothing is said. Of bins, `plan_bins` makes only those that it needs."""


def plan_bins(
    lengths: ArrayLike,
    capacity: int,
    *,
    algorithm: str = "first_fit_decreasing",
    align: int = 1,
    max_segments: int | None = None,
    oversize: str = "raise",
    order: str = "opened",
    seed: int | None = None,
) -> Int64s:
    """Pack rows into as few bins of `capacity` elements as a textbook algorithm needs.

    The bins are exactly those of the algorithm's quadratic loop, found in O(N log N): see
    `rollkit.testing.plan_bins_reference`. They are numbered in the order they are opened, which the
    decreasing algorithms make one of length: the first bins have the longest rows.

    | algorithm | takes | goes to | bins, at most |
    |---|---|---|---|
    | `"first_fit_decreasing"` | longest first | the first bin with room | 11/9 OPT + 6/9 |
    | `"best_fit_decreasing"` | longest first | the fullest bin with room | 11/9 OPT + 4 |
    | `"first_fit"` | in input order | the first bin with room | 1.7 OPT |
    | `"next_fit"` | in input order | the last opened bin | 2 OPT |

    Equally long rows are taken in input order, equally full bins by number. The bounds hold without
    `max_segments`, for lengths as rounded by `align`; the decreasing algorithms are typically
    within 2 % of the lower bound. `"next_fit"` keeps neighbouring rows together.

    Args:
        lengths: `[rows]` ints, 0 or more. An empty row takes no room, but counts as a row.
        capacity: elements a bin holds.
        algorithm: one of the four above.
        align: each row starts at a multiple of this. A row takes its length rounded up to one, and
            a bin has its capacity rounded down to one, so that rows fit their bin in any order. A
            row that is longer than that, yet within the capacity, takes all of a bin.
        max_segments: at most that many rows in a bin, empty ones included.
        oversize: what becomes of a row longer than `capacity`: `"raise"`; `"truncate"` (it counts
            as `capacity` long); `"alone"` (it gets a bin to which not even an empty row is added);
            or `"drop"` (it gets bin -1). One bin a row is no way to say `"split"`; see `Layout.pack`.
        order: how bins are numbered: `"opened"`, in the order they are; or `"shuffled"`, by a permutation
            that `seed` chooses, the same on every machine.
        seed: of that order, 0 or more.

    Returns:
        `[rows]` int64, the bin of each row; -1 for a dropped one.

    Raises:
        TypeError: `lengths` are no integers, or an option has the wrong type; one of `order="shuffled"` and
            `seed` is given alone.
        ValueError: a length is negative; `lengths` is not one-dimensional; an option is out of
            range; or a row is longer than `capacity` with `oversize="raise"`.
        OverflowError: a number is beyond int64.

    Example:
        >>> plan_bins([3, 3, 5, 5], capacity=8)
        array([0, 1, 0, 1])
        >>> plan_bins([3, 3, 5, 5], capacity=8, algorithm="first_fit")
        array([0, 0, 1, 2])
        >>> plan_bins([3, 9, 5], capacity=8, oversize="drop")
        array([ 0, -1,  0])
        >>> plan_bins([3, 3, 5, 5, 8, 8], capacity=8, order="shuffled", seed=1)
        array([1, 2, 1, 2, 3, 0])

    References:
        D. S. Johnson, "Near-optimal bin packing algorithms", MIT, 1973. D. S. Johnson, A. Demers,
        J. D. Ullman, M. R. Garey, R. L. Graham, "Worst-case performance bounds for simple
        one-dimensional packing algorithms", SIAM J. Comput. 3, 1974. G. Dósa, "The tight bound of
        first fit decreasing bin-packing algorithm is FFD(I) ≤ 11/9 OPT(I) + 6/9", ESCAPE 2007.
        G. Dósa, J. Sgall, "First fit bin packing: a tight analysis", STACS 2013.
    """
    found = _check.lengths("lengths", lengths)
    options = plan_options(capacity, algorithm, align, max_segments, oversize)
    key = shuffle_key(order, seed)
    if oversize == "split":
        raise ValueError(
            'oversize="split" gives a row several bins, and plan_bins says one of each; '
            'Layout.pack(lengths, capacity, oversize="split") says where its pieces are'
        )
    bins = _native.plan_bins(found, **options)
    if key is None:
        return bins
    count = int(bins.max(initial=-1)) + 1
    numbers = permuted(np.arange(count), count, seed=key)
    return np.append(numbers, -1)[bins]  # and -1 is -1 again


class PlanOptions(TypedDict):
    """What the planner takes beside lengths, checked."""

    capacity: int
    algorithm: str
    align: int
    max_segments: int | None
    oversize: str


def plan_options(
    capacity: int, algorithm: str, align: int, max_segments: int | None, oversize: str
) -> PlanOptions:
    """Check how to pack."""
    return {
        "capacity": _check.positive("capacity", capacity),
        "algorithm": _check.choice("algorithm", algorithm, ALGORITHMS),
        "align": _check.positive("align", align),
        "max_segments": None if max_segments is None else _check.positive("max_segments", max_segments),
        "oversize": _check.choice("oversize", oversize, OVERSIZE),
    }


def multiple_of_bins(bins: int | None, bins_multiple_of: int) -> int:
    """What the number of bins is to be a multiple of: `bins` themselves, if they are given."""
    multiple = _check.positive("bins_multiple_of", bins_multiple_of)
    if bins is None:
        return multiple
    if multiple != 1:
        raise TypeError("give bins or bins_multiple_of, not both")
    return _check.positive("bins", bins)


def check_bins(bins: int, needed: int, capacity: int) -> None:
    """Refuse fewer bins than the rows take."""
    if needed > bins:
        raise ValueError(f"bins is {bins}, the rows take {needed} of {capacity}; give more bins")


def shuffle_key(order: str, seed: int | None) -> int | None:
    """Return the key of a shuffled order; None for that in which bins are opened."""
    if _check.choice("order", order, ORDERS) == "opened":
        if seed is not None:
            raise TypeError(f'seed is {_check.shown(seed)}, of an order="shuffled"; give both, or neither')
        return None
    if seed is None:
        raise TypeError('order="shuffled" needs a seed, which says what order')
    return _check.positive("seed", seed, least=0)
