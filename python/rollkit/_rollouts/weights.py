"""What each token's loss is multiplied by, so that a sum is the objective however a batch is split."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit import _check
from rollkit._errors import refusal
from rollkit._rollouts.masking import on_tokens
from rollkit._rollouts.totals import EMPTY, Counted, Ids, Masks, Totals
from rollkit._rows.dtypes import numpy_dtype
from rollkit._rows.ragged import Ragged

NORMALIZERS: Final = ("token", "sequence", "prompt", "constant", "sequence_sum")

_DTYPES: Final = (np.dtype(np.float32), np.dtype(np.float64))


def loss_weights(
    masks: Masks,
    *,
    normalize: str = "token",
    groups: Ids = None,
    constant: float | None = None,
    trajectories: Ids = None,
    empty: str = "skip",
    totals: Totals | None = None,
    scale: float = 1.0,
    dtype: Any = np.float32,
) -> Ragged:
    """What to multiply each token's loss by, so that its sum over ranks and micro-batches is the objective.

    Then a training step is `(weights * loss).sum().backward()` in every micro-batch, and its gradient does
    not depend on how rows are split. A mean over each micro-batch's tokens does: it weighs a token by the
    company that it is in.

    With T loss tokens, R rows that have some, T_r of row r, G groups that have some, T_g of group g:

    | `normalize=` | weight | whose |
    |---|---|---|
    | `"token"` | 1 / T | DAPO as implemented, REINFORCE++ |
    | `"sequence"` | 1 / (R · T_r) | GRPO, arXiv 2402.03300; GSPO, 2507.18071 |
    | `"prompt"` | 1 / (G · T_g) | DAPO's formula, 2503.14476; CISPO, 2506.13585 |
    | `"constant"` | 1 / (R · `constant`) | Dr. GRPO, 2503.20783 |
    | `"sequence_sum"` | 1 / R | RLOO on whole sequences, 2402.14740 |

    Args:
        masks: the rows of this rank or micro-batch; see `loss_totals`.
        normalize: one of the five above.
        groups: one id per row, or a column of rollouts: the prompt that a row answers. For `"prompt"`.
        constant: what `"constant"` divides by: the longest response that there may be, never that there is.
        trajectories: one id per row, or a column of rollouts: rows of one count once in R, and T_r is the sum
            over all rows of theirs, also those of other parts where `totals` has them.
        empty: `"skip"` or `"count"`, as `loss_totals` was told.
        totals: of the whole optimizer batch; by default these rows are all there are.
        scale: a factor of all weights, for trainers that average what should be summed: see docs/losses.md.
        dtype: float32 or float64. Weights are computed in float64.

    Returns:
        A `Ragged` of rows as long as the masks: the weight of each token whose mask is not 0, else 0. Without
        a loss token in the whole batch all are 0.

    Raises:
        TypeError, ValueError: those of `loss_totals`; `totals` are of another `empty`, lack groups or
            trajectories, or have fewer tokens or rows than there are here.
        OverflowError: a weight is beyond `dtype`, or so small that it would be 0: the row is named.

    Example:
        >>> loss_weights([[1, 0, 1], [1, 1]]).to_list()
        [[0.25, 0.0, 0.25], [0.25, 0.25]]
        >>> from rollkit import loss_totals
        >>> parts = [[[1, 0, 1]], [[1, 1], [0]]]
        >>> totals = sum(loss_totals(masks) for masks in parts)
        >>> [loss_weights(masks, normalize="sequence", totals=totals).to_list() for masks in parts]
        [[[0.25, 0.0, 0.25]], [[0.25, 0.25], [0.0]]]
    """
    _check.choice("normalize", normalize, NORMALIZERS)
    empty, scale = _check.choice("empty", empty, EMPTY), _check.finite("scale", scale)
    if (constant is None) == (normalize == "constant"):
        raise TypeError('constant goes with normalize="constant": give both, or neither')
    if constant is not None and _check.finite("constant", constant) <= 0:
        raise ValueError(f"constant must be above 0, got {constant}")
    if normalize == "prompt" and groups is None:
        raise TypeError('normalize="prompt" needs groups: one id per row, or the name of a column')
    wanted = numpy_dtype(dtype)
    if wanted not in _DTYPES:
        raise TypeError(f"dtype must be float32 or float64, got {wanted}; narrower ones lose weights")
    counted = Counted.of(masks, groups, trajectories)
    here = counted.totals(empty)
    totals = here if totals is None else _checked(totals, here, normalize)
    with np.errstate(over="ignore"):
        found = scale / _divisors(counted, totals, normalize, constant)
    return on_tokens(_narrowed(np.where(counted.tokens > 0, found, 0.0), wanted), counted.masks)


def _divisors(
    counted: Counted, totals: Totals, normalize: str, constant: float | None
) -> NDArray[np.float64]:
    """`[rows]` float64: what the losses of each row's tokens are divided by; above 0."""
    means = {"token": totals.tokens, "prompt": totals.num_groups}.get(normalize, totals.rows)
    each: Any = np.ones(len(counted.tokens))
    if normalize == "prompt":
        each = _tokens_of(counted.groups, totals.groups)
    elif normalize == "sequence" and counted.trajectories is not None:
        each = _tokens_of(counted.trajectories, totals.trajectories)
    elif normalize == "sequence":
        each = counted.tokens.astype(np.float64)
    each = np.maximum(each, 1.0)
    if normalize == "constant":
        each = each * constant
    found: NDArray[np.float64] = each * max(means, 1)
    return found


def _tokens_of(ids: Any, tokens: Any) -> Any:
    """`[rows]` float64: the loss tokens, in the whole batch, of what each row belongs to."""
    return np.array([tokens[key] for key in ids.keys], np.float64)[ids.ids]


def _checked(totals: Totals, here: Totals, normalize: str) -> Totals:
    """Refuse totals that are not of a batch with these rows in it."""
    if not isinstance(totals, Totals):
        raise TypeError(f"totals must be Totals, as loss_totals returns them, got {type(totals).__name__}")
    if totals.empty != here.empty:
        raise ValueError(f"totals are of empty={totals.empty!r}, these weights of empty={here.empty!r}")
    alike = (totals.trajectories is None) == (here.trajectories is None)
    if totals.tokens < here.tokens or (alike and totals.rows < here.rows):
        raise ValueError(
            f"totals have {totals.tokens} loss tokens in {totals.rows} rows, here are {here.tokens} in "
            f"{here.rows}; they must be of the whole optimizer batch"
        )
    if normalize == "prompt":
        _check_keys("groups", totals.groups, here.groups)
    if normalize not in ("token", "prompt") and here.trajectories is not None:
        _check_keys("trajectories", totals.trajectories, here.trajectories)
    if normalize == "sequence" and here.trajectories is None and totals.trajectories is not None:
        raise ValueError("totals have trajectories, these rows have none; give trajectories= here too")
    return totals


def _check_keys(name: str, totals: Any, here: Any) -> None:
    if totals is None:
        raise ValueError(f"totals have no {name}; give {name}= to loss_totals too")
    for key, tokens in here.items():
        if totals.get(key, -1) < tokens:
            got = f"only {totals[key]} loss tokens" if key in totals else "nothing"
            raise ValueError(f"totals have {got} of {name} {key!r}, here are {tokens} loss tokens")


def _narrowed(per_row: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore", under="ignore"):
        found: NDArray[Any] = per_row.astype(dtype)
    lost = ~np.isfinite(found) | ((found == 0) & (per_row != 0))
    if lost.any():
        row = int(lost.argmax())
        text = f" has the weight {per_row[row]}, which does not fit {dtype}"
        raise refusal(OverflowError, text, column="loss_weights", row=row)
    return found
