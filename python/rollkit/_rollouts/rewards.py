"""What a rollout's reward is, and on which token it lands."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._frameworks import AnyArray, as_array
from rollkit._rows.layout import ABSENT, Layout
from rollkit._rows.ragged import Ragged

_FLOAT64 = np.dtype(np.float64)


def row_rewards(rewards: Any) -> NDArray[np.float64]:
    """`[rows]` float64: the reward of each row, the sum of its tokens' where they are per token.

    Raises:
        TypeError: a row is neither a number nor numbers; it is named.
        ValueError: token rewards have inner dimensions.
    """
    with at(column="rewards"):
        if isinstance(rewards, Ragged):
            return _row_sums(Ragged(as_array(rewards.values), rewards.offsets))
        found = as_array(rewards)
    if isinstance(found, np.ndarray) and found.dtype != object:
        return found.astype(_FLOAT64) if found.ndim == 1 else _row_sums(Ragged.from_rows(found))
    numbers = _numbers(found)
    if numbers is not None:
        return numbers
    if isinstance(found, list | tuple) and all(type(row) is list for row in found):
        with at(column="rewards"):
            return _row_sums(Ragged.from_rows(found, _FLOAT64))
    return np.array([_total(i, row) for i, row in enumerate(found)], _FLOAT64)


def is_row(reward: Any) -> bool:
    """Whether a reward is one per token, and not a number."""
    return isinstance(reward, list | tuple) or len(getattr(reward, "shape", ())) > 0


def _numbers(found: Any) -> NDArray[np.float64] | None:
    """All rows at once, if they are numbers."""
    if not len(found) or not isinstance(found[0], int | float):
        return None
    try:
        numbers = np.array(found)  # of no dtype in particular: as floats, None would be NaN
    except ValueError:
        return None  # rows among the numbers
    return numbers.astype(_FLOAT64) if numbers.ndim == 1 and numbers.dtype.kind in "biuf" else None


def _total(index: int, row: Any) -> float:
    try:
        if is_row(row):
            return float(np.sum(as_array(row), dtype=_FLOAT64))
        if not isinstance(row, str):
            return float(row)
    except OverflowError:
        raise refusal(OverflowError, f": {row} does not fit float64", column="rewards", row=index) from None
    except (TypeError, ValueError):
        pass
    text = f" is {row!r}; expected a number, or one per response token"
    raise refusal(TypeError, text, column="rewards", row=index)


def _row_sums(rows: Ragged) -> NDArray[np.float64]:
    """One sum per row rather than one scan over all: it rounds as NumPy does, which decides what is 0."""
    if rows.inner:
        text = f"column 'rewards' must have one number per token, got elements of shape {rows.inner}"
        raise refusal(ValueError, text, column="rewards", label="")
    return np.array([np.add.reduce(row, dtype=_FLOAT64) for row in rows], _FLOAT64)


def check_scalars(rewards: AnyArray, responses: Int64s) -> None:
    """Check rewards of which each goes on the last token of a response, of these lengths."""
    if rewards.dtype == object and rewards.ndim == 1 and None in (entries := rewards.tolist()):
        text = " is None; score it, leave the rollout out, or give 0"
        raise refusal(ValueError, text, column="rewards", row=entries.index(None))
    if rewards.ndim != 1 or (rewards.size and rewards.dtype.kind not in "biuf"):
        text = "expected a number per rollout, or one per response token"
        raise refusal(ValueError, text, column="rewards")
    if responses.all():
        return
    lost = (responses == 0) & (rewards != 0)
    if lost.any():
        row = int(lost.argmax())
        raise refusal(
            ValueError,
            f" has reward {rewards[row]} and an empty response, so no token to put it on; drop the rollout "
            "or set the reward to 0",
            column="rewards",
            row=row,
        )


def last_tokens(rewards: AnyArray, responses: Layout) -> Layout:
    """One element per row, on the last token of its response that is placed, if any is."""
    check_scalars(rewards, responses.row_lengths)
    present = responses.lengths > 0
    starts = np.where(present, responses.starts + responses.lengths - 1, ABSENT)
    return Layout(responses.shape, starts, present.astype(np.int64), np.ones_like(starts))
