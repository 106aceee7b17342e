"""Bins of a stream: `Packer`."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import numpy as np

from rollkit import _check
from rollkit._errors import refusal
from rollkit._extras import extra
from rollkit._loading.digest import digits, key
from rollkit._loading.sampler import check_plan, check_state
from rollkit._rollouts.names import Names, check_names
from rollkit._rows.online import OnlinePacker
from rollkit._rows.order import permuted
from rollkit.torch._collator import Collator

torch = extra("torch", "torch")
_IterableDataset: Any = torch.utils.data.IterableDataset

Feature = Mapping[str, Any]

_STATE: Final = ("plan", "epoch", "read", "ready", "packer")


class Packer(_IterableDataset):  # type: ignore[misc]
    """Packs a stream of features into bins as they come: for what cannot be taken by number.

    What has a length is better a `PackedDataset`: it is shuffled whole, and resumed by a number. A stream is
    read once, in its order, by each rank: all ranks pack the same bins, and each lays out its own. So a state
    is that of the stream, the same on all ranks that are as far, and goes on with any number of them.

    Under accelerate and transformers' `Trainer` with several processes this raises: they deal out what a rank
    yields a second time, and lose the rest. In a worker of a `DataLoader` it raises, too: each would read the
    whole stream, and its own epoch. `rollkit.torch.prefetch` packs ahead on a thread.

    Args:
        source: features (dicts as `Collator` takes them), from the beginning each time it is iterated; or a
            function that is given the epoch and returns them. Where it has a method `skip` (`datasets`'
            streams do) a resumed run skips by that; others are read again, from the start.
        capacity: tokens of a bin.
        buffer: features that wait for a bin that they fill; see `rollkit.OnlinePacker`.
        rank: whose bins these are, from 0.
        world_size: how many ranks there are.
        seed: features are shuffled within each run of `buffer` of them; None: they stay in their order.
        epoch: the first one; each iteration goes to the next.
        drop_last: bins that are too few for all ranks, at the end, are left out; else some ranks have one
            more.
        pad_id, labels, names, keep: as `Collator` has them.

    Raises:
        TypeError, ValueError: an option is none, or out of range.

    Example:
        >>> features = [{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5, 6]}, {"input_ids": [7]}]
        >>> [bin["input_ids"].tolist() for bin in Packer(features, 4, buffer=2)]
        [[1, 2, 3, 7], [4, 5, 6, 0]]
    """

    def __init__(
        self,
        source: Iterable[Feature] | Callable[[int], Iterable[Feature]],
        capacity: int,
        *,
        buffer: int = 64,
        rank: int = 0,
        world_size: int = 1,
        seed: int | None = None,
        epoch: int = 0,
        drop_last: bool = True,
        pad_id: int = 0,
        labels: bool = True,
        names: Names = "hf",
        keep: Sequence[str] = (),
    ) -> None:
        if not callable(source) and (isinstance(source, Iterator) or not isinstance(source, Iterable)):
            raise TypeError(
                f"source must be what can be iterated again, or a function of the epoch, got "
                f"{type(source).__name__}"
            )
        self._source = source
        self._capacity = _check.positive("capacity", capacity)
        self._buffer = _check.positive("buffer", buffer)
        self._world_size = _check.positive("world_size", world_size)
        self._rank = _check.positive("rank", rank, least=0)
        if self._rank >= self._world_size:
            raise ValueError(f"rank must be below world_size={self._world_size}, got {self._rank}")
        self._seed = None if seed is None else _check.positive("seed", seed, least=0)
        self._drop_last = _check.flag("drop_last", drop_last)
        if check_names(names) == "rollkit":
            raise ValueError("names='rollkit' is for a batch with its layout, and bins have none; take 'hf'")
        self._collate = Collator(pad_id=pad_id, pack=self._capacity, labels=labels, names=names, keep=keep)
        self._loaded = False  # a state, from which the next iteration goes on
        self._shift = 0  # from the trainer's epochs to ours
        self._begin(_check.positive("epoch", epoch, least=0))

    def _begin(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self._epoch = epoch
        self._packer = OnlinePacker(self._capacity, buffer=self._buffer)
        self._read = 0  # features that were taken from the source and given to the packer
        self._ready: deque[list[int]] = deque()  # bins that are complete, and dealt to nobody yet
        self._ended = False

    @property
    def plan(self) -> str:
        """How this packs, as 16 digits: a state of another plan is refused."""
        return digits((self._capacity, self._buffer, self._seed))

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch; after `load_state_dict` the state's wins (`ShuffledSampler`)."""
        epoch = _check.positive("epoch", epoch, least=0)
        if self._loaded:
            self._shift = self._epoch - epoch
        else:
            self._begin(max(epoch + self._shift, 0))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """This rank's bins: of the whole epoch, or of the rest of it where a state was loaded."""
        _check_alone()
        if not self._loaded:
            self._begin(self._epoch)
        self._loaded = False
        held: dict[int, Feature] = {}
        for row, feature in self._arriving(held):
            held[row] = feature
            found = self._packer.add(row, _length(row, feature))
            self._read += 1
            self._ready.extend(rows.tolist() for rows in found)
            yield from self._dealt(held, self._world_size)
        self._ready.extend(rows.tolist() for rows in self._packer.flush())
        self._ended = True
        yield from self._dealt(held, self._world_size if self._drop_last else 1)
        self._begin(self._epoch + 1)

    def _dealt(self, held: dict[int, Feature], least: int) -> Iterator[dict[str, Any]]:
        """This rank's of the bins that are complete, while there are `least` to deal."""
        while len(self._ready) >= least:
            step = [self._ready.popleft() for _ in range(min(self._world_size, len(self._ready)))]
            features = [[held.pop(row) for row in rows] for rows in step]
            if self._rank < len(features):
                yield self._collate._one_bin(features[self._rank])

    def _arriving(self, held: dict[int, Feature]) -> Iterator[tuple[int, Feature]]:
        """Features by number, as they are packed; those that were read before and wait are put in `held`."""
        size = 1 if self._seed is None else self._buffer
        block = self._read - self._read % size
        pending = self._pending()
        first = min([block, *pending])
        stream = self._from(first)
        for row, feature in zip(range(first, block), stream, strict=False):
            if row in pending:
                held[row] = feature
                pending.discard(row)
        taken = self._read - block
        while features := list(islice(stream, size)):
            for i in self._order(block, len(features)):
                if taken == 0:
                    yield block + i, features[i]
                    continue
                taken -= 1
                if block + i in pending:
                    held[block + i] = features[i]
                    pending.discard(block + i)
            block += size
        if pending:
            raise ValueError(
                f"source ended before feature {max(pending)}, which the state has read: it was saved for "
                "another source"
            )

    def _order(self, block: int, count: int) -> list[int]:
        """In which order the features of a run are packed."""
        if self._seed is None:
            return list(range(count))
        seed = key(self._seed, self._epoch, block)
        found: list[int] = permuted(np.arange(count), count, seed=seed).tolist()
        return found

    def _from(self, first: int) -> Iterator[Feature]:
        """The source's features from this one on."""
        source = self._source(self._epoch) if callable(self._source) else self._source
        if first and hasattr(source, "skip"):
            return iter(source.skip(first))
        return islice(source, first, None)

    def _pending(self) -> set[int]:
        """The numbers of features that were read, and are in no bin that was dealt."""
        state = self._packer.state()
        of_bins = [rows for _, _, rows in state["bins"]]
        return {row for row, _, _ in state["waiting"]}.union(*of_bins, *self._ready)

    def state_dict(self) -> dict[str, Any]:
        """Where in the stream this is: the same on all ranks that are as far.

        Returns:
            `{"plan", "epoch", "read", "ready", "packer"}`: numbers and lengths of the features that wait, a
            few kB as JSON, and no tokens. After the end of an epoch it is the beginning of the next.
        """
        left = len(self._ready) >= (self._world_size if self._drop_last else 1)
        if self._ended and not left:
            after = OnlinePacker(self._capacity, buffer=self._buffer).state()
            return {"plan": self.plan, "epoch": self._epoch + 1, "read": 0, "ready": [], "packer": after}
        return {
            "plan": self.plan,
            "epoch": self._epoch,
            "read": self._read,
            "ready": [list(rows) for rows in self._ready],
            "packer": self._packer.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, whatever number of ranks it was made with: the next iteration does.

        Raises:
            ValueError: no state of a packer, or that of other options.
        """
        check_state(state, _STATE, "state_dict")
        check_plan(state, self.plan, "packer", "with another capacity, buffer or seed")
        epoch = _check.positive("state['epoch']", state["epoch"], least=0)
        read = _check.positive("state['read']", state["read"], least=0)
        ready = [[_check.integer("state['ready']", row) for row in rows] for rows in state["ready"]]
        packer = OnlinePacker.from_state(state["packer"])
        self._begin(epoch)
        self._loaded, self._shift = True, 0
        self._read, self._packer = read, packer
        self._ready.extend(ready)


def _length(row: int, feature: Feature) -> int:
    """The tokens of a feature."""
    if not isinstance(feature, Mapping):
        raise refusal(TypeError, f" is {type(feature).__name__}, expected a dict", row=row, before="source: ")
    for names in (("input_ids",), ("response_ids", "prompt_token_ids"), ("response_ids",)):
        if all(name in feature for name in names):
            return sum(len(feature[name]) for name in names)
    known = ", ".join(map(repr, feature))
    raise refusal(
        ValueError, f" has no 'input_ids' or 'response_ids'; it has {known}", row=row, before="source: "
    )


def _check_alone() -> None:
    """Refuse to be iterated by workers, or under what deals out a second time."""
    info = torch.utils.data.get_worker_info()
    if info is not None:
        raise RuntimeError(
            f"Packer takes no workers, got num_workers={info.num_workers}: each would read and pack "
            "the whole stream; set num_workers=0 and iterate rollkit.torch.prefetch(loader), or take a "
            "PackedDataset"
        )
    state = sys.modules.get("accelerate.state")
    shared = getattr(getattr(state, "PartialState", None), "_shared_state", {})
    if (processes := shared.get("num_processes", 1)) > 1:
        raise RuntimeError(
            f"Packer under accelerate or a Trainer, with {processes} processes: they deal out each rank's "
            "bins once more, and all but a part is lost; take a PackedDataset"
        )
