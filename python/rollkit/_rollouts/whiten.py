"""Numbers of tokens to mean 0 and deviation 1, over all loss tokens of a batch: `whiten`, `Moments`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollkit import _check
from rollkit._errors import at, refusal
from rollkit._frameworks import framework_of, kind_of
from rollkit._rollouts.columns import mask_column
from rollkit._rows.ragged import Ragged

_ROUNDING: Final = 1e-13
"""What part of a mean square a variance may be by rounding alone."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, sum, and sum of squares of numbers: those of parts add up, by `+` and `sum`.

    Example:
        >>> parts = [Moments.of([[1.0, 9.0]], [[1, 0]]), Moments.of([[3.0]])]
        >>> total = sum(parts)
        >>> total.mean, total.std(ddof=0)
        (2.0, 1.0)
    """

    count: int
    sum: float
    squares: float

    @classmethod
    def of(cls, values: Any, masks: Any = None) -> Moments:
        """Those of rows of numbers, where the mask is not 0; computed in float64.

        Args:
            values: rows of numbers, on the host.
            masks: one mask per row, as long as it; all count by default.

        Raises:
            ValueError: as `whiten`.
        """
        rows, counts = _counted(values, masks)
        found = rows.flat if counts is None else rows.flat[counts]
        wide = found.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = float(wide @ wide)
        if not math.isfinite(squares):
            raise _spoiling(rows, counts)
        return cls(len(wide), float(wide.sum()), squares)

    @property
    def mean(self) -> float:
        """The mean; 0 of none."""
        return self.sum / max(self.count, 1)

    def std(self, *, ddof: int = 1) -> float:
        """The standard deviation; 0 of one number, and of those that differ by no more than rounding."""
        least = _check.positive("ddof", ddof, 0)
        if self.count == 0:
            return 0.0
        mean_square = self.squares / self.count
        variance = mean_square - self.mean**2
        if variance <= _ROUNDING * mean_square:
            return 0.0
        return math.sqrt(variance * self.count / max(self.count - least, 1))

    def array(self) -> NDArray[np.float64]:
        """`[3]` float64 to sum over ranks: count, sum, squares."""
        return np.array([self.count, self.sum, self.squares])

    @classmethod
    def from_array(cls, array: ArrayLike) -> Moments:
        """The inverse of `array`."""
        found = _check.floats("array", array)
        if found.shape != (3,):
            raise ValueError(f"array must be count, sum and squares, got shape {found.shape}")
        return cls(round(found[0]), float(found[1]), float(found[2]))

    def __add__(self, other: Moments) -> Moments:
        if not isinstance(other, Moments):
            return NotImplemented
        return Moments(self.count + other.count, self.sum + other.sum, self.squares + other.squares)

    def __radd__(self, other: object) -> Moments:
        return self if other == 0 else NotImplemented  # `sum` begins with 0


def whiten(
    values: Any, masks: Any = None, *, moments: Moments | None = None, ddof: int = 1, eps: float = 1e-6
) -> Ragged:
    """Shift and scale the numbers of loss tokens to mean 0 and standard deviation 1.

    Args:
        values: rows of numbers, on the host, such as the advantages of `gae`.
        masks: one mask per row, as long as it: tokens whose mask is 0 do not count, and get 0.
        moments: of the whole batch, where these rows are a part of it; theirs by default.
        ddof: of the standard deviation: 1 divides by n - 1, as verl, 0 by n.
        eps: added to the standard deviation.

    Returns:
        A `Ragged` of float32, of float64 values float64; all 0 where numbers do not differ.

    Raises:
        TypeError: `values` holds no numbers, or `moments` are none.
        ValueError: a mask has another length; a number that counts is NaN, infinite, or so large that its
            square is; the row is named.

    Example:
        >>> whiten([[1.0, 3.0], [7.0]], [[1, 1], [0]], ddof=0, eps=0).to_list()
        [[-1.0, 1.0], [0.0]]
    """
    if not _check.number("eps", eps) >= 0:
        raise ValueError(f"eps must be 0 or more, got {eps}")
    if moments is not None and not isinstance(moments, Moments):
        raise TypeError(f"moments must be Moments, got {type(moments).__name__}")
    rows, counts = _counted(values, masks)
    known = Moments.of(values, masks) if moments is None else moments
    spread = known.std(ddof=ddof)
    dtype = np.float64 if rows.dtype == np.float64 else np.float32
    bounds = rows.offsets - rows.offsets[0]
    if spread == 0:
        return Ragged(np.zeros(bounds[-1], dtype), bounds)
    found = ((rows.flat.astype(np.float64) - known.mean) / (spread + eps)).astype(dtype)
    if counts is not None:
        np.copyto(found, 0, where=~counts)
    return Ragged(found, bounds)


def _spoiling(rows: Ragged, counts: NDArray[np.bool_] | None) -> ValueError:
    """The refusal of a number without which the squares would be finite."""
    sizes = np.abs(rows.flat.astype(np.float64))
    sizes[np.isnan(sizes)] = np.inf
    if counts is not None:
        sizes[~counts] = -1
    at = int(sizes.argmax())
    row = int(np.searchsorted(rows.offsets - rows.offsets[0], at, side="right")) - 1
    position = at - int(rows.offsets[row] - rows.offsets[0])
    text = f": {rows.flat[at]} has no finite square, which would spoil the whole batch; mend or mask it"
    return refusal(ValueError, text, column="values", row=row, position=position)


def _counted(values: Any, masks: Any) -> tuple[Ragged, NDArray[np.bool_] | None]:
    """Rows of numbers, and which of them count."""
    with at(column="values"):
        rows = Ragged.from_rows(values)
    if framework_of(rows.values) != "numpy" or rows.inner or kind_of(rows.values) == "other":
        text = "expected rows of numbers on the host"
        raise refusal(TypeError, text, column="values")
    if masks is None:
        return rows, None
    found = mask_column(masks)
    if not np.array_equal(found.lengths, rows.lengths):
        if len(found) != len(rows):
            text = f"has {len(found)} rows, values has {len(rows)}"
            raise refusal(ValueError, text, column="loss_masks")
        row = int((found.lengths != rows.lengths).argmax())
        text = f" has {found.lengths[row]} elements, its values {rows.lengths[row]}"
        raise refusal(ValueError, text, column="loss_masks", row=row)
    return rows, found.flat != 0
