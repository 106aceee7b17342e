"""Orders that resume anywhere: `ShuffledSampler`, in no memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, Final

import numpy as np

from rollkit import _check
from rollkit._check import Int64s
from rollkit._loading.digest import digits
from rollkit._rows.order import permuted

REMAINDERS: Final = ("drop", "pad", "uneven")
_STATE: Final = ("plan", "epoch", "position")
NO_DATA: Final = (str, bytes, dict)
"""What has a length and is not data: the path of a folder, columns by name."""
_AT_ONCE: Final = 4096
"""Numbers made in one call: 0.14 ms, and the first of 10¹⁰ comes as soon."""


class Sampler(ABC):
    """Numbers of a data set in an order of its own for each epoch, dealt to ranks, that goes on anywhere.

    The order is one of all ranks: at each step the next `world_size` positions are dealt, one to each. So a
    state is a place in the order, and says nothing of ranks or workers.
    """

    def __init__(
        self, n: int | Sized, *, epoch: int = 0, rank: int = 0, world_size: int = 1, remainder: str = "drop"
    ) -> None:
        self._data = "" if isinstance(n, int | np.integer) else str(getattr(n, "plan", ""))
        self._n = _check.positive("n", n if isinstance(n, int | np.integer) else _size(n), least=0)
        self._world_size = _check.positive("world_size", world_size)
        self._rank = _check.positive("rank", rank, least=0)
        if self._rank >= self._world_size:
            raise ValueError(f"rank must be below world_size={self._world_size}, got {self._rank}")
        self._remainder = _check.choice("remainder", remainder, REMAINDERS)
        self._epoch = _check.positive("epoch", epoch, least=0)
        self._position = 0  # in the order, after what was handed out
        self._begun = epoch, 0  # epoch and position where the iteration that goes on began, or the next will
        self._loaded = False  # a state, from which the next iteration goes on
        self._shift = 0  # from the trainer's epochs to ours

    @abstractmethod
    def _order(self, positions: Int64s, epoch: int) -> Int64s:
        """The numbers at positions of the order of an epoch."""

    @property
    @abstractmethod
    def _name(self) -> tuple[Any, ...]:
        """What the order depends on, beside the epoch."""

    @property
    def epoch(self) -> int:
        """The epoch of the next iteration, or of the one that goes on."""
        return self._epoch

    def __iter__(self) -> Iterator[int]:
        """This rank's numbers: of the whole epoch, or of the rest of it where a state was loaded."""
        epoch, begin = self._epoch, self._position if self._loaded else 0
        self._begun, self._loaded, self._position = (epoch, begin), False, begin
        steps = self._steps(begin)
        for first in range(0, steps, _AT_ONCE):
            dealt = np.arange(first, min(first + _AT_ONCE, steps), dtype=np.int64)
            places = begin + dealt * self._world_size + self._rank
            for step, number in zip(
                dealt.tolist(), self._order(places % self._n, epoch).tolist(), strict=True
            ):
                self._epoch, self._position = epoch, begin + (step + 1) * self._world_size
                yield number
        self._epoch, self._position = epoch + 1, 0

    def __len__(self) -> int:
        """How many numbers this rank has in a whole epoch."""
        return self._steps(0)

    def _steps(self, begin: int) -> int:
        left = max(self._n - begin, 0)
        if self._remainder == "drop":
            return left // self._world_size
        if self._remainder == "pad":
            return -(-left // self._world_size)
        return max(-(-(left - self._rank) // self._world_size), 0)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch, as trainers say before each.

        After `load_state_dict` the state's epoch wins: the trainer means that one, whether it counts from
        where it was or from 0 again, and by its next number the epoch after that.
        """
        epoch = _check.positive("epoch", epoch, least=0)
        if self._loaded:
            self._shift = self._epoch - epoch
        else:
            self._epoch, self._position = max(epoch + self._shift, 0), 0
            self._begun = self._epoch, 0

    def state_dict(self, taken: int | None = None) -> dict[str, Any]:
        """Where in the order this is: the same on all ranks that are as far.

        Args:
            taken: how many numbers of this rank the training loop has used since this iteration began; None:
                all that were handed out. A DataLoader with workers takes numbers ahead of the batches that it
                gives; torchdata's `StatefulDataLoader` knows that by itself.

        Returns:
            `{"plan", "epoch", "position"}`, below 200 bytes as JSON. After the end of an epoch it is the
            beginning of the next.
        """
        epoch, position = self._epoch, self._position
        if taken is not None:
            epoch, begin = self._begun
            most = self._steps(begin)
            if _check.positive("taken", taken, least=0) > most:
                raise ValueError(f"taken is {taken}, this iteration has {most} numbers of this rank")
            position = begin + taken * self._world_size
        if position and not self._any_left(position):
            epoch, position = epoch + 1, 0
        return {"plan": self.plan, "epoch": epoch, "position": position}

    def _any_left(self, position: int) -> bool:
        left = self._n - position
        return left >= (self._world_size if self._remainder == "drop" else 1)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, whatever number of ranks or workers it was made with.

        Raises:
            ValueError: no state of a sampler, or that of another data set or seed.
        """
        check_state(state, _STATE, "state_dict")
        other = "for another number of items, other data or another seed"
        check_plan(state, self.plan, "order", other)
        epoch = _check.positive("state['epoch']", state["epoch"], least=0)
        position = _check.positive("state['position']", state["position"], least=0)
        if position > self._n:
            raise ValueError(f"state['position'] is {position}, there are {self._n} items")
        self._epoch, self._position, self._loaded, self._shift = epoch, position, True, 0
        self._begun = epoch, position

    @property
    def plan(self) -> str:
        """What the order is of, as 16 digits: a state of another plan is refused."""
        return digits((type(self).__name__, self._n, self._data, *self._name))


class ShuffledSampler(Sampler):
    """The numbers 0 … n - 1, shuffled anew for each epoch, in no memory; resumes under any number of ranks.

    A sampler for torch's `DataLoader` and torchdata's `StatefulDataLoader`, of `rollkit.Bins` or any other
    data that is taken by number; any loop may iterate it. All ranks make the same order, and each takes its
    own numbers of it. Nothing is stored but a place in the order, so that 10¹⁰ numbers cost what ten do.

    Under accelerate and transformers' `Trainer`, which deal batches to their processes themselves, leave
    `rank` and `world_size` as they are.

    Args:
        n: how many numbers there are, or the data. Of `Bins` the state knows which they are.
        seed: which order, 0 or more.
        epoch: the first one.
        rank: whose numbers these are, from 0.
        world_size: how many ranks there are.
        remainder: what becomes of the last numbers of an epoch, where ranks do not divide them: `"drop"`;
            `"pad"`, which repeats the first ones; or `"uneven"`, some ranks one more (for evaluation: ranks
            that train would wait for each other).

    Example:
        >>> sampler = ShuffledSampler(6, seed=7)
        >>> list(sampler)
        [0, 4, 1, 5, 2, 3]
        >>> rank = ShuffledSampler(6, seed=7, rank=1, world_size=2)
        >>> numbers = iter(rank)
        >>> next(numbers), rank.state_dict()
        (4, {'plan': '885ad8d0405c4ff1', 'epoch': 0, 'position': 2})
        >>> alone = ShuffledSampler(6, seed=7)
        >>> alone.load_state_dict(rank.state_dict())
        >>> list(alone)
        [1, 5, 2, 3]

    References:
        The permutation is that of `src/order.rs`.
    """

    def __init__(
        self,
        n: int | Sized,
        *,
        seed: int,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        remainder: str = "drop",
    ) -> None:
        super().__init__(n, epoch=epoch, rank=rank, world_size=world_size, remainder=remainder)
        self._seed = _check.positive("seed", seed, least=0)

    def _order(self, positions: Int64s, epoch: int) -> Int64s:
        return permuted(positions, self._n, seed=self._seed, epoch=epoch)

    @property
    def _name(self) -> tuple[Any, ...]:
        return (self._seed,)


def check_state(state: Any, names: Sequence[str], made_by: str) -> None:
    """Refuse what has other names than a state."""
    if not isinstance(state, Mapping) or set(state) != set(names):
        got = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"state must have {', '.join(map(repr, names))}, as {made_by} gives it, got {got}")


def check_plan(state: Mapping[str, Any], plan: str, this: str, other: str) -> None:
    """Refuse a state of another plan."""
    if state["plan"] != plan:
        raise ValueError(f"state is of plan {state['plan']!r}, this {this} is {plan!r}: it was saved {other}")


def _size(data: Any) -> int:
    if not isinstance(data, Sized) or isinstance(data, NO_DATA):
        raise TypeError(f"n must be an int, or data that is taken by number, got {type(data).__name__}")
    return len(data)
