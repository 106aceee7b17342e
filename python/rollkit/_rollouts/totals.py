"""What losses are divided by, of a whole optimizer batch: `loss_totals`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check
from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._frameworks import as_array
from rollkit._rollouts.columns import mask_column, turns_of
from rollkit._rollouts.groups import Groups
from rollkit._rollouts.loss_masks import loss_masks_of
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.sources import Source, as_rollouts
from rollkit._rows.arrow import is_arrow
from rollkit._rows.ragged import Ragged

Masks = Source | Sequence[Any] | Ragged
Ids = str | ArrayLike | Iterable[Any] | None
Tokens = Mapping[Any, int]

EMPTY: Final = ("skip", "count")
_ENTRY: Final = 100
"""Bytes of a number in a dict, about."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Loss tokens and rows of a batch, or of a part of one: totals of parts add up, by `+` and `sum`.

    Attributes:
        tokens: loss tokens.
        rows: rows that count; trajectories, where these are given.
        groups: the loss tokens of each group, by its key; None where rows have no groups.
        trajectories: likewise of each trajectory.
        empty: whether rows, trajectories and groups without a loss token count: `"skip"` or `"count"`.

    Example:
        >>> parts = [loss_totals([[1, 0], [1, 1]], groups=["a", "b"]), loss_totals([[1]], groups=["a"])]
        >>> sum(parts)
        Totals(tokens=4, rows=3, groups={'a': 2, 'b': 2}, trajectories=None, empty='skip')
    """

    tokens: int
    rows: int
    groups: Tokens | None = None
    trajectories: Tokens | None = None
    empty: str = "skip"

    @property
    def num_groups(self) -> int:
        """How many groups count."""
        return self._counted(self.groups)

    def _counted(self, tokens: Tokens | None) -> int:
        """How many keys count, of `groups` or `trajectories`."""
        found = () if tokens is None else tokens.values()
        return len(found) if self.empty == "count" else sum(count > 0 for count in found)

    def __add__(self, other: Totals) -> Totals:
        if not isinstance(other, Totals):
            return NotImplemented
        if self.empty != other.empty:
            raise ValueError(f"totals of empty={self.empty!r} and of empty={other.empty!r} do not add up")
        groups = _merged("groups", self.groups, other.groups)
        trajectories = _merged("trajectories", self.trajectories, other.trajectories)
        return self._of(self.tokens + other.tokens, self.rows + other.rows, groups, trajectories, self.empty)

    def __radd__(self, other: object) -> Totals:
        return self if other == 0 else NotImplemented  # `sum` begins with 0

    @classmethod
    def _of(
        cls, tokens: int, rows: int, groups: Tokens | None, trajectories: Tokens | None, empty: str
    ) -> Totals:
        """Totals in which a trajectory that several parts have counts once."""
        found = cls(tokens, rows, groups, trajectories, empty)
        if trajectories is None:
            return found
        return cls(tokens, found._counted(trajectories), groups, trajectories, empty)

    def array(self) -> Int64s:
        """`[2 + groups + trajectories]` int64 to sum over ranks: tokens, rows, tokens of each of these.

        Every rank must have the same groups and trajectories: `loss_totals(num_groups=, num_trajectories=)`.
        Where ids are no such ints, gather the totals themselves, and add them.

        Raises:
            ValueError: ids are not 0, 1, 2 and so on.

        Example:
            >>> totals = loss_totals([[1, 0], [1, 1]], groups=[0, 2], num_groups=3)
            >>> totals.array()
            array([3, 2, 1, 0, 2])
            >>> Totals.from_array(totals.array()) == totals
            True
        """
        found = [self.tokens, self.rows]
        for name, tokens in (("groups", self.groups), ("trajectories", self.trajectories)):
            if tokens is None:
                continue
            if list(tokens) != list(range(len(tokens))):
                text = (
                    f"{name} are not 0 to {len(tokens) - 1}, which the places of an array stand for; give "
                    f"loss_totals ints and num_{name}=, or gather the totals themselves and add them"
                )
                raise ValueError(text)
            found += tokens.values()
        return np.array(found, np.int64)

    @classmethod
    def from_array(cls, array: ArrayLike, *, num_trajectories: int = 0, empty: str = "skip") -> Totals:
        """The inverse of `array`, of what has been summed over ranks.

        Args:
            array: ints, of any framework, on the host.
            num_trajectories: how many of the last are those of trajectories.
            empty: what `loss_totals` was told.

        Raises:
            TypeError: `array` holds no ints.
            ValueError: it is too short, a number is negative, or groups (or trajectories) have not all
                tokens between them, as where `num_trajectories` is another than `loss_totals` was told.
        """
        found = _check.int64s("array", array)
        last = _check.positive("num_trajectories", num_trajectories, 0)
        if len(found) < 2 + last or (found < 0).any():
            raise ValueError(
                f"array must be tokens, rows, tokens by group, and by {last} trajectories, each 0 or more; "
                f"got {found}"
            )
        numbers = found.tolist()
        groups = dict(enumerate(numbers[2 : len(numbers) - last]))
        trajectories = dict(enumerate(numbers[len(numbers) - last :]))
        for name, tokens in (("groups", groups), ("trajectories", trajectories)):
            if tokens and (among := sum(tokens.values())) != numbers[0]:
                raise ValueError(
                    f"array has {numbers[0]} tokens, but its {len(tokens)} {name} have {among}; give the "
                    f"num_trajectories that loss_totals was told, got {last}"
                )
        word = _check.choice("empty", empty, EMPTY)
        return cls._of(numbers[0], numbers[1], groups or None, trajectories or None, word)


def loss_totals(
    masks: Masks,
    *,
    groups: Ids = None,
    num_groups: int | None = None,
    trajectories: Ids = None,
    num_trajectories: int | None = None,
    empty: str = "skip",
) -> Totals:
    """Count what a loss is divided by, in one read of the masks.

    Of each rank's rows, or each micro-batch's; their sum is the whole optimizer batch's, which
    `loss_weights` takes.

    Args:
        masks: one mask per row: a `Ragged` of bools, ints or floats, or rows (lists, arrays, tensors), or
            rollouts with `loss_masks` (without, what `labels` say, or all of a response counts). A token
            counts whose mask is not 0, whatever else it is.
        groups: one id per row of what is averaged over by `normalize="prompt"`: ints, texts, anything with
            a hash, or the name of a column of rollouts.
        num_groups: group ids are ints below this, in all parts: then `Totals.array` can be summed over
            ranks.
        trajectories: one id per row: rows of one trajectory, in any order and in whatever parts, count
            as one.
        num_trajectories: likewise.
        empty: `"skip"` counts rows, trajectories and groups that have a loss token, as verl does; `"count"`
            all, as TRL does.

    Raises:
        TypeError: masks are no numbers, or have inner dimensions; an id has no hash.
        ValueError: there is not one id per row, one is None or NaN, or beyond `num_groups`: the row is named.

    Example:
        >>> loss_totals([[1, 0, 1], [0, 0], [1]])
        Totals(tokens=3, rows=2, groups=None, trajectories=None, empty='skip')
    """
    counted = Counted.of(masks, groups, trajectories)
    return counted.totals(_check.choice("empty", empty, EMPTY), num_groups, num_trajectories)


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows of masks, and what they belong to.

    Attributes:
        masks: one per row.
        tokens: `[rows]` int64: those whose mask is not 0.
        groups: of the rows; None without ids.
        trajectories: likewise.
    """

    masks: Ragged
    tokens: Int64s
    groups: Groups | None
    trajectories: Groups | None

    @classmethod
    def of(cls, masks: Masks, groups: Ids, trajectories: Ids) -> Counted:
        """See `loss_totals`."""
        sources: Any = masks
        rollouts = as_rollouts(sources) if _are_rollouts(masks) else None
        found = mask_column(masks if rollouts is None else loss_masks_of(rollouts))
        tokens = turns_of(found)[2]
        by_group = _grouped("groups", groups, rollouts, len(found))
        return cls(found, tokens, by_group, _grouped("trajectories", trajectories, rollouts, len(found)))

    def totals(
        self, empty: str, num_groups: int | None = None, num_trajectories: int | None = None
    ) -> Totals:
        """What they add up to."""
        rows = len(self.tokens) if empty == "count" else int(np.count_nonzero(self.tokens))
        groups = self._by("groups", self.groups, num_groups)
        trajectories = self._by("trajectories", self.trajectories, num_trajectories)
        return Totals._of(int(self.tokens.sum()), rows, groups, trajectories, empty)

    def _by(self, name: str, ids: Groups | None, count: int | None) -> dict[Any, int] | None:
        """Loss tokens by key: all keys below `count`, where that is given."""
        if ids is None:
            if count is not None:
                raise TypeError(f"num_{name} goes with {name}, one int per row")
            return None
        found = dict(zip(ids.keys, ids.sum(self.tokens).astype(np.int64).tolist(), strict=True))
        if count is None:
            return found
        count = _check.positive(f"num_{name}", count, 0)
        for group, key in enumerate(ids.keys):
            if not isinstance(key, int) or not 0 <= key < count:
                row = int(ids.rows[ids.offsets[group]])
                text = f" is {key!r}; num_{name}={count} wants ints from 0 to {count - 1}"
                raise refusal(ValueError, text, column=name, row=row)
        np.empty(min(count * _ENTRY, 2**62), np.uint8)  # what there is no memory for is told at once
        return dict.fromkeys(range(count), 0) | found


def _merged(name: str, a: Tokens | None, b: Tokens | None) -> Tokens | None:
    if a is None and b is None:
        return None
    if a is None or b is None:
        raise ValueError(f"one of the totals has {name}, the other has none; give {name}= for all parts")
    return {**a, **{key: count + a.get(key, 0) for key, count in b.items()}}


def _are_rollouts(masks: Any) -> bool:
    """Whether these are columns, or several sources of them, and no rows of masks."""
    if isinstance(masks, list | tuple) and masks:
        masks = masks[0]
    if isinstance(masks, Rollouts | Mapping):
        return True
    return is_arrow(masks) and not isinstance(masks, Ragged)


def _grouped(name: str, ids: Ids, rollouts: Rollouts | None, count: int) -> Groups | None:
    """Which rows have equal ids."""
    if ids is None:
        return None
    if isinstance(ids, str):
        if rollouts is None:
            raise TypeError(f"{name}={ids!r} names a column, and masks has none; give one id per row")
        name, ids = ids, rollouts[ids]
    entries: Any = as_array(ids)
    whole = isinstance(entries, np.ndarray) and entries.dtype.kind in "iu"
    entries = entries.tolist() if isinstance(entries, np.ndarray) else _check.items(name, entries)
    if not isinstance(entries, list) or len(entries) != count:
        got = len(entries) if isinstance(entries, list) else "none"
        raise ValueError(f"{name} must be one id per row, {count}, got {got}")
    if not whole:  # a look at each takes as long as grouping them
        _check.given(name, entries)
        entries = [_key(entry) for entry in entries]
    with at(column=name):
        return Groups.by(entries)


def _key(entry: Any) -> Any:
    """What tells ids apart: `to_string()` where an id has it, and of NumPy's numbers Python's."""
    if isinstance(entry, np.generic):
        return entry.item()
    return entry.to_string() if hasattr(entry, "to_string") else entry
