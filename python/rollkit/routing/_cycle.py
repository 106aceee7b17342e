"""Filled rows of routes spread over all experts: `cycle_routes`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rollkit._check import host, positive
from rollkit._frameworks import AnyArray
from rollkit.routing._final import cycled


def cycle_routes(routes: AnyArray, route_masks: ArrayLike, *, num_experts: int) -> AnyArray:
    """Spread the rows that are no routes over all experts, in place: 0, 1, 2, … modulo `num_experts`.

    A batch fills them with experts 0 … topk - 1, which are legal but all on the same ranks.

    Args:
        routes: `[*shape, layers, topk]` integers, such as `batch["rollout_expert_indices"]`.
        route_masks: `shape`, not 0 where a row is to be written, such as `batch["route_masks"]`.
        num_experts: how many there are, topk or more.

    Returns:
        `routes`. Each row goes on where the one before ended, so that no row names an expert twice.

    Raises:
        ValueError: there are fewer experts than topk, or the shapes do not fit.
        OverflowError: the dtype does not hold the last expert.

    Example:
        >>> import numpy as np
        >>> routes = np.array([[[7, 5]], [[0, 1]], [[0, 1]]])
        >>> cycle_routes(routes, [0, 1, 1], num_experts=3)[:, 0].tolist()
        [[7, 5], [0, 1], [2, 0]]
    """
    given: object = routes
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "iu":
        got = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
        raise TypeError(f"routes must be a NumPy array of integers, got {got}")
    marks = np.asarray(host("route_masks", route_masks) != 0)  # of one text, NumPy 2.0 makes a bool
    if routes.shape[: marks.ndim] != marks.shape or routes.ndim == marks.ndim:
        raise ValueError(f"route_masks has shape {marks.shape}, routes {routes.shape}")
    inner = routes.shape[marks.ndim :]
    count = positive("num_experts", num_experts, least=max(inner[-1], 1))
    if count - 1 > np.iinfo(routes.dtype).max:
        raise OverflowError(f"{routes.dtype} does not hold expert {count - 1}; widen the routes first")
    routes[marks] = cycled(np.arange(int(marks.sum())), inner, count)
    return routes
